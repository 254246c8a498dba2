//! A weight times few tokens. Reading the weight from memory is the cost, so nothing is packed: each row of it is read
//! once, where it is, and multiplied with all tokens while it is in the cache.

use std::{array::from_fn, borrow::Cow};

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::{
    element::Element,
    storage::zeros,
    vector::{Lanes, prefetch},
};

/// Numbers of the weight in a task.
const BLOCK: usize = 1 << 16;

/// Rows of the weight in a tile, which are multiplied at the same time.
const ROWS: usize = 4;

/// Up to so many tokens, a tile is multiplied with one token at a time.
const MATVEC_TOKENS: usize = 4;

/// How a tile of the weight is read.
#[derive(Debug, Clone, Copy)]
enum Reading {
    /// Converted to f32 in registers, for each token anew. The tokens are in the order that
    /// [`Element::load_pair`] returns.
    InRegisters,
    /// Converted to f32 in a copy of the tile, once for all tokens.
    InACopy,
}

impl Reading {
    fn for_tokens(tokens: usize) -> Self {
        match tokens {
            0..=MATVEC_TOKENS => Self::InRegisters,
            _ => Self::InACopy,
        }
    }
}

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
    let reading = Reading::for_tokens(tokens);
    let input = match reading {
        Reading::InRegisters => E::in_pair_order(input, d_in, arch.dispatch(Lanes)),
        Reading::InACopy => Cow::Borrowed(input),
    };
    let mut columns = zeros::<E>(d_out * tokens); // [d_out, tokens]
    let rows = (BLOCK / d_in).max(1).next_multiple_of(ROWS);
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
                reading,
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

/// The dot products of some rows of a weight with all tokens.
struct Dots<'a, E> {
    /// `[rows, tokens]`.
    columns: &'a mut [E],
    /// `[rows, d_in]`.
    weight: &'a [E],
    /// At least `[rows]`.
    bias: Option<&'a [E]>,
    /// `[tokens, d_in]`, each token in the order that `reading` asks for.
    input: &'a [f32],
    d_in: usize,
    reading: Reading,
}

impl<E: Element> WithSimd for Dots<'_, E> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        // As many tokens at a time as registers can hold sums of.
        match (self.reading, S::REGISTER_COUNT) {
            (Reading::InRegisters, _) => self.tiles::<E, S, 1>(simd, as_stored),
            (Reading::InACopy, 0..32) => self.tiles::<f32, S, 2>(simd, E::as_f32_or_copy),
            (Reading::InACopy, _) => self.tiles::<f32, S, 5>(simd, E::as_f32_or_copy),
        }
    }
}

#[inline(always)]
fn as_stored<'a, E>(tile: &'a [E], _: &'a mut Vec<f32>) -> &'a [E] {
    tile
}

impl<E: Element> Dots<'_, E> {
    /// Multiplies a tile of `ROWS` rows with `TOKENS` tokens at a time. `read` returns a tile as `W`s, and may copy it
    /// to the vector.
    #[inline(always)]
    fn tiles<W: Element, S: Simd, const TOKENS: usize>(
        self,
        simd: S,
        read: impl for<'t> Fn(&'t [E], &'t mut Vec<f32>) -> &'t [W],
    ) {
        let Self { d_in, input, .. } = self;
        let tokens = input.len() / d_in;
        let mut copy = Vec::new();
        let outputs = self.columns.chunks_mut(ROWS * tokens);
        for (tile, (outputs, weight)) in outputs.zip(self.weight.chunks(ROWS * d_in)).enumerate() {
            let weight = read(weight, &mut copy);
            let mut store = |row: usize, token: usize, sum: f32| {
                let bias = self.bias.map_or(0.0, |bias| bias[tile * ROWS + row].load());
                outputs[row * tokens + token] = E::store(sum + bias);
            };
            let row = |row: usize| &weight[row * d_in..][..d_in];
            let token = |token: usize| &input[token * d_in..][..d_in];
            let rows = weight.len() / d_in;
            let (whole_rows, whole_tokens) = (rows / ROWS * ROWS, tokens / TOKENS * TOKENS);
            let whole_tiles = if whole_rows > 0 { whole_tokens } else { 0 };
            for first in (0..whole_tiles).step_by(TOKENS) {
                let tokens = from_fn(|i| token(first + i));
                // The next tile is prefetched. With more tokens, multiplying takes longer than reading from memory.
                let ahead = if (TOKENS, first) == (1, 0) {
                    ROWS * d_in
                } else {
                    0
                };
                let sums = dots::<W, S, ROWS, TOKENS>(simd, from_fn(row), tokens, ahead);
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

/// The dot products of rows and tokens of one length. Unless `ahead` is 0, what is that many numbers ahead of a row's is
/// prefetched.
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
        // The last two have several tasks.
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
