//! A weight times few tokens: its way from memory is the cost, and each of its rows is read once, where it is,
//! and multiplied with all tokens while it is at hand.

use std::{array::from_fn, borrow::Cow};

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::{element::Element, product::prefetch, storage::zeros, vector::Lanes};

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
    let as_they_are = tokens > MATVEC_TOKENS || E::as_f32(weight).is_some();
    let input = match as_they_are {
        true => Cow::Borrowed(input),
        false => Cow::Owned(in_pairs(input, d_in, 2 * arch.dispatch(Lanes))),
    };
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
                input: &input,
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

/// Tokens in the order in which [`Element::load_pair`] has the numbers of bf16: in blocks of two vectors, those at even places
/// first.
fn in_pairs(input: &[f32], d_in: usize, block: usize) -> Vec<f32> {
    let mut output = input.to_vec();
    let rows = output.chunks_exact_mut(d_in).zip(input.chunks_exact(d_in));
    for (output, input) in rows {
        let blocks = output
            .chunks_exact_mut(block)
            .zip(input.chunks_exact(block));
        for (output, input) in blocks {
            let (even, odd) = output.split_at_mut(block / 2);
            let pairs = input.as_chunks::<2>().0.iter();
            for ((even, odd), pair) in even.iter_mut().zip(odd).zip(pairs) {
                [*even, *odd] = *pair;
            }
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
    /// `[tokens, d_in]`, or [`in_pairs`].
    input: &'a [f32],
    d_in: usize,
}

impl<E: Element> WithSimd for Dots<'_, E> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let tokens = self.input.len() / self.d_in;
        match (tokens, S::REGISTER_COUNT) {
            (0..=MATVEC_TOKENS, _) => self.tiles::<E, S, 1>(simd),
            (_, 0..32) => self.tiles::<f32, S, 2>(simd),
            _ => self.tiles::<f32, S, 5>(simd),
        }
    }
}

impl<E: Element> Dots<'_, E> {
    /// `TILE` rows and `TOKENS` tokens at a time, as many sums as registers can hold. A tile is read as `W`s, `E` or f32.
    #[inline(always)]
    fn tiles<W: Element, S: Simd, const TOKENS: usize>(self, simd: S) {
        let Self { d_in, input, .. } = self;
        let tokens = input.len() / d_in;
        let mut copy = match W::dtype() == E::dtype() {
            true => Vec::new(),
            false => zeros::<W>(TILE * d_in),
        };
        let outputs = self.columns.chunks_mut(TILE * tokens);
        for (tile, (outputs, weight)) in outputs.zip(self.weight.chunks(TILE * d_in)).enumerate() {
            let weight: &[W] = if copy.is_empty() {
                bytemuck::cast_slice(weight)
            } else {
                for (copy, x) in copy.iter_mut().zip(weight) {
                    *copy = W::store(x.load());
                }
                &copy[..weight.len()]
            };
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
                // The next tile comes from memory; many tokens take longer than that.
                let ahead = if (TOKENS, first) == (1, 0) {
                    TILE * d_in
                } else {
                    0
                };
                let sums = dots::<W, S, TILE, TOKENS>(simd, from_fn(row), tokens, ahead);
                for (row, sums) in sums.into_iter().enumerate() {
                    for (i, sum) in sums.into_iter().enumerate() {
                        store(row, first + i, sum);
                    }
                }
            }
            let rest = (0..rows).flat_map(|row| (0..tokens).map(move |token| (row, token)));
            for (r, t) in rest.filter(|(r, t)| *r >= whole_rows || *t >= whole_tokens) {
                let [[sum]] = dots::<W, S, 1, 1>(simd, [row(r)], [token(t)], 0);
                store(r, t, sum);
            }
        }
    }
}

/// The products of rows and tokens of one length. What is `ahead` numbers behind a row's is asked for, unless that is 0.
#[inline(always)]
fn dots<W: Element, S: Simd, const ROWS: usize, const TOKENS: usize>(
    simd: S,
    rows: [&[W]; ROWS],
    tokens: [&[f32]; TOKENS],
    ahead: usize,
) -> [[f32; TOKENS]; ROWS] {
    let (len, block) = (rows.first().map_or(0, |row| row.len()), 2 * S::F32_LANES);
    let rest = len - len % block;
    let (row_blocks, token_blocks) = (
        rows.map(|row| &row[..rest]),
        tokens.map(|token| &token[..rest]),
    );
    let mut sums = [[simd.splat_f32s(0.0); TOKENS]; ROWS];
    for i in 0..rest / block {
        for (token, numbers) in token_blocks.iter().enumerate() {
            let [first, second] = f32::load_pair(simd, numbers, i);
            for (sums, row) in sums.iter_mut().zip(&row_blocks) {
                if ahead > 0 {
                    prefetch(row.as_ptr().wrapping_add(ahead + i * block), block);
                }
                let row = W::load_pair(simd, row, i);
                sums[token] = simd.mul_add_f32s(row[0], first, sums[token]);
                sums[token] = simd.mul_add_f32s(row[1], second, sums[token]);
            }
        }
    }
    let mut products = [[0.0; TOKENS]; ROWS];
    for ((products, sums), row) in products.iter_mut().zip(sums).zip(rows) {
        for ((product, sum), token) in products.iter_mut().zip(sums).zip(tokens) {
            *product = simd.reduce_sum_f32s(sum);
            for (row, token) in row[rest..].iter().zip(&token[rest..]) {
                *product += row.load() * token;
            }
        }
    }
    products
}

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::*;
    use crate::flex::vector::arches;

    /// In small whole numbers all sums are exact, whatever their order.
    #[test]
    fn all_vectors_give_the_same() {
        // The last two go through several tasks.
        let shapes = [
            [3, 20, 9],
            [1, 67, 6],
            [5, 67, 4],
            [12, 33, 11],
            [23, 130, 6],
        ];
        let tasks = [[2, BLOCK + 5, 9], [5, BLOCK + 5, 9]];
        for dims in shapes.into_iter().chain(tasks) {
            check::<f32>(dims);
            check::<bf16>(dims);
        }
    }

    fn check<E: Element + PartialEq>(dims @ [tokens, d_in, d_out]: [usize; 3]) {
        let numbers = |len: usize| (0..len).map(|i| ((i * 7919) % 17) as f32 - 8.0);
        let stored = |numbers: &[f32]| numbers.iter().map(|x| E::store(*x)).collect::<Vec<E>>();
        let input: Vec<f32> = numbers(tokens * d_in).collect();
        let weight: Vec<f32> = numbers(d_out * d_in).collect();
        let bias: Vec<f32> = numbers(d_out).collect();
        let rows = weight.chunks(d_in).zip(&bias);
        let dot = |x: &[f32], w: &[f32]| x.iter().zip(w).map(|(x, w)| x * w).sum::<f32>();
        let output = |x| rows.clone().map(move |(w, bias)| dot(x, w) + bias);
        let expected: Vec<f32> = input.chunks(d_in).flat_map(output).collect();
        let (weight, bias) = (stored(&weight), stored(&bias));
        for arch in arches() {
            let output = product_on(arch, &input, &weight, Some(&bias), dims);
            assert!(output == stored(&expected), "{dims:?}, {arch:?}");
        }
    }
}
