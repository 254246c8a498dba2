//! A weight times few tokens. Reading the weight from memory is the cost, so nothing is packed: each row of it is read
//! once, where it is, and multiplied with all tokens while it is in the cache and the next rows are on their way.

use std::{array::from_fn, borrow::Cow};

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::{
    element::Element,
    storage::zeros,
    vector::{Lanes, prefetch, prefetch_early},
};

/// Numbers of the weight in a task.
const BLOCK: usize = 1 << 16;

/// Rows of the weight in a tile, which are multiplied at the same time.
const ROWS: usize = 4;

/// The same where there are 32 registers and several tokens.
const MANY_ROWS: usize = 6;

/// A multiple of both: tasks have so many rows, or several times as many.
const TILES: usize = 12;

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
    let mut output = zeros::<E>(tokens * d_out);
    let rows = (BLOCK / d_in).max(1).next_multiple_of(TILES);
    let mut tasks: Vec<Vec<&mut [E]>> = Vec::new();
    tasks.resize_with(d_out.div_ceil(rows), || Vec::with_capacity(tokens));
    for token in output.chunks_exact_mut(d_out) {
        for (task, places) in tasks.iter_mut().zip(token.chunks_mut(rows)) {
            task.push(places);
        }
    }
    tasks
        .into_par_iter()
        .zip(weight.par_chunks(rows * d_in))
        .enumerate()
        .for_each(|(index, (outputs, weight))| {
            let first_row = index * rows;
            let dots = Dots {
                outputs,
                weight,
                bias: bias.map(|bias| &bias[first_row..]),
                input: &input,
                d_in,
                reading,
            };
            arch.dispatch(dots);
        });
    output
}

/// The dot products of some rows of a weight with all tokens.
struct Dots<'a, E> {
    /// For each token, `[rows]`.
    outputs: Vec<&'a mut [E]>,
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
            (Reading::InRegisters, _) => self.tiles::<E, S, ROWS, 1>(simd, as_stored),
            (Reading::InACopy, 0..32) => self.tiles::<f32, S, ROWS, 2>(simd, E::as_f32_or_copy),
            (Reading::InACopy, _) => self.tiles::<f32, S, MANY_ROWS, 4>(simd, E::as_f32_or_copy),
        }
    }
}

#[inline(always)]
fn as_stored<'a, E>(tile: &'a [E], _: &'a mut Vec<f32>) -> &'a [E] {
    tile
}

impl<E: Element> Dots<'_, E> {
    /// Multiplies a tile of `R` rows with `T` tokens at a time, and what is left of the tokens with fewer. `read` returns a
    /// tile as `W`s, and may copy it to the vector.
    #[inline(always)]
    fn tiles<W: Element, S: Simd, const R: usize, const T: usize>(
        mut self,
        simd: S,
        read: impl for<'t> Fn(&'t [E], &'t mut Vec<f32>) -> &'t [W],
    ) {
        let d_in = self.d_in;
        let mut copy = Vec::new();
        let mut rest = self.weight;
        let mut first_row = 0;
        while !rest.is_empty() {
            let (tile, behind) = rest.split_at(rest.len().min(R * d_in));
            let mut tile = Tile {
                outputs: &mut self.outputs,
                first_row,
                weight: read(tile, &mut copy),
                bias: self.bias,
                input: self.input,
                d_in,
                next: behind.as_ptr(),
            };
            let rows = tile.weight.len() / d_in;
            if rows < R {
                (0..rows).for_each(|row| tile.all_tokens::<S, 1, T>(simd, row));
            } else {
                tile.all_tokens::<S, R, T>(simd, 0);
            }
            (rest, first_row) = (behind, first_row + rows);
        }
    }
}

/// A few rows of a weight, and where their dot products go.
struct Tile<'t, 'a, E, W> {
    /// For each token, all rows of the task.
    outputs: &'t mut [&'a mut [E]],
    /// The tile's first row of these.
    first_row: usize,
    /// `[rows, d_in]`.
    weight: &'t [W],
    /// Of all rows of the task.
    bias: Option<&'t [E]>,
    /// `[tokens, d_in]`.
    input: &'t [f32],
    d_in: usize,
    /// Where the next tile begins, of this task or of the next one. It is fetched from memory in the meantime.
    next: *const E,
}

impl<E: Element, W: Element> Tile<'_, '_, E, W> {
    /// The dot products of `R` rows with all tokens, `T` of them at a time.
    #[inline(always)]
    fn all_tokens<S: Simd, const R: usize, const T: usize>(&mut self, simd: S, row: usize) {
        let tokens = self.outputs.len();
        let whole = tokens / T * T;
        for token in (0..whole).step_by(T) {
            self.products::<S, R, T>(simd, row, token);
        }
        match tokens - whole {
            0 => {}
            1 => self.products::<S, R, 1>(simd, row, whole),
            2 => self.products::<S, R, 2>(simd, row, whole),
            _ => self.products::<S, R, 3>(simd, row, whole),
        }
    }

    /// The dot products of `R` rows with `T` tokens, from these on.
    #[inline(always)]
    fn products<S: Simd, const R: usize, const T: usize>(
        &mut self,
        simd: S,
        first_row: usize,
        first_token: usize,
    ) {
        let d_in = self.d_in;
        let row = |row: usize| &self.weight[(first_row + row) * d_in..][..d_in];
        let token = |token: usize| &self.input[(first_token + token) * d_in..][..d_in];
        let share = |token: usize| R * d_in * token / self.outputs.len();
        let ahead = match (T, first_token) {
            (1, 0) => 0..R * d_in,
            (1, _) => 0..0,
            _ => share(first_token)..share(first_token + T),
        };
        let ahead = (self.next.wrapping_add(ahead.start), ahead.len());
        let sums = dots::<W, E, S, R, T>(simd, from_fn(row), from_fn(token), ahead);
        for (row, sums) in (self.first_row + first_row..).zip(sums) {
            let bias = self.bias.map_or(0.0, |bias| bias[row].load());
            for (token, sum) in (first_token..).zip(sums) {
                self.outputs[token][row] = E::store(sum + bias);
            }
        }
    }
}

/// The dot products of rows and tokens of one length. So many numbers from a place on are fetched from memory in the
/// meantime.
#[inline(always)]
fn dots<W: Element, A, S: Simd, const ROWS: usize, const TOKENS: usize>(
    simd: S,
    rows: [&[W]; ROWS],
    tokens: [&[f32]; TOKENS],
    (ahead, ahead_len): (*const A, usize),
) -> [[f32; TOKENS]; ROWS] {
    let (len, block) = (rows.first().map_or(0, |row| row.len()), 2 * S::F32_LANES);
    let rest = len - len % block;
    let (row_blocks, token_blocks) = (
        rows.map(|row| &row[..rest]),
        tokens.map(|token| &token[..rest]),
    );
    let blocks = rest / block;
    let ahead_of_block = ahead_len.div_ceil(blocks.max(1));
    let mut sums = [[simd.splat_f32s(0.0); TOKENS]; ROWS];
    for i in 0..blocks {
        if TOKENS > 1 {
            let start = ahead.wrapping_add(i * ahead_of_block);
            prefetch_early(start, ahead_of_block);
        }
        for (token, numbers) in token_blocks.iter().enumerate() {
            let [first, second] = f32::load_pair(simd, numbers, i);
            for (number, (sums, row)) in sums.iter_mut().zip(&row_blocks).enumerate() {
                if TOKENS == 1 && ahead_len > 0 {
                    // Of each row the block that stands below: it is needed as soon.
                    let start = ahead.wrapping_add(number * len + i * block);
                    prefetch(start, block);
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
            [6, 40, 8],
            [32, 65, 13],
        ];
        let tasks = [[2, BLOCK + 5, 2 * TILES + 5], [5, BLOCK + 5, 2 * TILES + 5]];
        for dims in shapes.into_iter().chain(tasks) {
            check::<f32>(dims);
            check::<bf16>(dims);
        }
    }

    #[test]
    fn a_tokens_sums_do_not_depend_on_the_tokens_beside_it() {
        let [most, d_in, d_out] = [32, 70, 2 * TILES + 5];
        let numbers = |len: usize| (0..len).map(|i| ((i * 7919) % 1009) as f32 / 1009.0 - 0.5);
        let input: Vec<f32> = numbers(most * d_in).collect();
        let weight: Vec<f32> = numbers(d_out * d_in).collect();
        for arch in arches() {
            let some = |tokens: usize| {
                let input = &input[..tokens * d_in];
                product_on(arch, input, &weight, None, [tokens, d_in, d_out])
            };
            let all = some(most);
            for tokens in 1..most {
                assert!(some(tokens) == all[..tokens * d_out], "{tokens}, {arch:?}");
            }
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
