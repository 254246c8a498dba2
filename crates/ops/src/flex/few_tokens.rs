//! A weight times few tokens: its way from memory is the cost, and each of its rows is read once, where it is,
//! and multiplied with all tokens while it is at hand.

use std::array::from_fn;

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::{element::Element, storage::zeros, vector::dot};

/// Numbers of a weight that a task goes through.
const BLOCK: usize = 1 << 16;

/// Rows of a weight that are multiplied with some tokens at a time.
const TILE: usize = 4;

/// Up to so many tokens a row is multiplied with one after the other.
const MATVEC_TOKENS: usize = 4;

/// `input · weightᵀ (+ bias)`, `[tokens, d_out]`.
pub(super) fn product<E: Element>(
    input: &[f32],
    weight: &[E],
    bias: Option<&[E]>,
    dims: [usize; 3],
) -> Vec<E> {
    product_on(Arch::new(), input, weight, bias, dims)
}

/// [`product`] in the vectors of `arch`.
fn product_on<E: Element>(
    arch: Arch,
    input: &[f32],
    weight: &[E],
    bias: Option<&[E]>,
    [tokens, d_in, d_out]: [usize; 3],
) -> Vec<E> {
    // [d_out, tokens]
    let mut columns = zeros::<E>(d_out * tokens);
    let rows = (BLOCK / d_in).max(1).next_multiple_of(TILE);
    columns
        .par_chunks_mut((rows * tokens).max(1))
        .zip(weight.par_chunks(rows * d_in))
        .enumerate()
        .for_each(|(index, (columns, weight))| {
            let first_row = index * rows;
            let dots = Dots {
                columns,
                weight,
                bias: bias.map(|bias| &bias[first_row..]),
                input,
                d_in,
            };
            arch.dispatch(dots);
        });
    if tokens == 1 {
        return columns;
    }
    let mut output = zeros::<E>(tokens * d_out);
    for (token, row) in output.chunks_exact_mut(d_out).enumerate() {
        for (output, column) in row.iter_mut().zip(columns.chunks_exact(tokens)) {
            *output = column[token];
        }
    }
    output
}

/// Rows of a weight by tokens.
struct Dots<'a, E> {
    /// `[rows, tokens]`.
    columns: &'a mut [E],
    /// `[rows, d_in]`.
    weight: &'a [E],
    /// At least `[rows]`.
    bias: Option<&'a [E]>,
    /// `[tokens, d_in]`.
    input: &'a [f32],
    d_in: usize,
}

impl<E: Element> WithSimd for Dots<'_, E> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let tokens = self.input.len() / self.d_in;
        match (tokens, S::REGISTER_COUNT) {
            (0..=MATVEC_TOKENS, _) => self.one_by_one(),
            (_, 0..32) => self.tiles::<S, 2>(simd),
            _ => self.tiles::<S, 5>(simd),
        }
    }
}

impl<E: Element> Dots<'_, E> {
    #[inline(always)]
    fn one_by_one(self) {
        let tokens = self.input.len() / self.d_in;
        let outputs = self.columns.chunks_exact_mut(tokens);
        for (row, (outputs, weight)) in outputs.zip(self.weight.chunks_exact(self.d_in)).enumerate()
        {
            let bias = self.bias.map_or(0.0, |bias| bias[row].load());
            for (output, input) in outputs.iter_mut().zip(self.input.chunks_exact(self.d_in)) {
                *output = E::store(dot(input, weight) + bias);
            }
        }
    }

    /// `TILE` rows and `TOKENS` tokens at a time, as many sums as registers can hold.
    #[inline(always)]
    fn tiles<S: Simd, const TOKENS: usize>(self, simd: S) {
        let Self { d_in, input, .. } = self;
        let tokens = input.len() / d_in;
        let mut wide = zeros::<f32>(if E::as_f32(self.weight).is_none() {
            TILE * d_in
        } else {
            0
        });
        let outputs = self.columns.chunks_mut(TILE * tokens);
        for (tile, (outputs, weight)) in outputs.zip(self.weight.chunks(TILE * d_in)).enumerate() {
            let weight = E::as_f32(weight).unwrap_or_else(|| {
                for (wide, narrow) in wide.iter_mut().zip(weight) {
                    *wide = narrow.load();
                }
                &wide[..weight.len()]
            });
            let mut store = |row: usize, token: usize, sum: f32| {
                let bias = self.bias.map_or(0.0, |bias| bias[tile * TILE + row].load());
                outputs[row * tokens + token] = E::store(sum + bias);
            };
            let row = |row: usize| &weight[row * d_in..][..d_in];
            let token = |token: usize| &input[token * d_in..][..d_in];
            let rows = weight.len() / d_in;
            let (whole_rows, whole_tokens) = (rows / TILE * TILE, tokens / TOKENS * TOKENS);
            let whole_tiles = if whole_rows > 0 { whole_tokens } else { 0 };
            for first in (0..whole_tiles).step_by(TOKENS) {
                let tokens = from_fn(|i| token(first + i));
                let sums = dots::<S, TILE, TOKENS>(simd, from_fn(row), tokens);
                for (row, sums) in sums.into_iter().enumerate() {
                    for (i, sum) in sums.into_iter().enumerate() {
                        store(row, first + i, sum);
                    }
                }
            }
            let rest = (0..rows).flat_map(|row| (0..tokens).map(move |token| (row, token)));
            for (r, t) in rest.filter(|(r, t)| *r >= whole_rows || *t >= whole_tokens) {
                let [[sum]] = dots::<S, 1, 1>(simd, [row(r)], [token(t)]);
                store(r, t, sum);
            }
        }
    }
}

/// The products of rows and tokens of one length.
#[inline(always)]
fn dots<S: Simd, const ROWS: usize, const TOKENS: usize>(
    simd: S,
    rows: [&[f32]; ROWS],
    tokens: [&[f32]; TOKENS],
) -> [[f32; TOKENS]; ROWS] {
    let len = rows.first().map_or(0, |row| row.len()) / S::F32_LANES;
    let vectors = |numbers| &S::as_simd_f32s(numbers).0[..len];
    let (row_vectors, token_vectors) = (rows.map(vectors), tokens.map(vectors));
    let mut sums = [[simd.splat_f32s(0.0); TOKENS]; ROWS];
    for i in 0..len {
        for (token, vectors) in token_vectors.iter().enumerate() {
            for (sums, row) in sums.iter_mut().zip(&row_vectors) {
                sums[token] = simd.mul_add_f32s(row[i], vectors[i], sums[token]);
            }
        }
    }
    let rest = len * S::F32_LANES;
    let mut products = [[0.0; TOKENS]; ROWS];
    for ((products, sums), row) in products.iter_mut().zip(sums).zip(rows) {
        for ((product, sum), token) in products.iter_mut().zip(sums).zip(tokens) {
            *product = simd.reduce_sum_f32s(sum);
            for (row, token) in row[rest..].iter().zip(&token[rest..]) {
                *product += row * token;
            }
        }
    }
    products
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flex::vector::arches;

    /// In small whole numbers all sums are exact, whatever their order.
    #[test]
    fn all_vectors_give_the_same() {
        let numbers = |len: usize| (0..len).map(|i| ((i * 7919) % 17) as f32 - 8.0);
        // The last two go through several tasks.
        let shapes = [[3, 20, 9], [5, 67, 4], [12, 33, 11], [23, 130, 6]];
        let tasks = [[2, BLOCK + 5, 9], [5, BLOCK + 5, 9]];
        for dims @ [tokens, d_in, d_out] in shapes.into_iter().chain(tasks) {
            let input: Vec<f32> = numbers(tokens * d_in).collect();
            let weight: Vec<f32> = numbers(d_out * d_in).collect();
            let bias: Vec<f32> = numbers(d_out).collect();
            let rows = weight.chunks(d_in).zip(&bias);
            let dot = |x: &[f32], w: &[f32]| x.iter().zip(w).map(|(x, w)| x * w).sum::<f32>();
            let output = |x| rows.clone().map(move |(w, bias)| dot(x, w) + bias);
            let expected: Vec<f32> = input.chunks(d_in).flat_map(output).collect();
            for arch in arches() {
                let output = product_on(arch, &input, &weight, Some(&bias), dims);
                assert!(output == expected, "{dims:?}, {arch:?}");
            }
        }
    }
}
