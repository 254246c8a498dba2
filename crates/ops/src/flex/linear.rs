//! A linear layer whose weight is a constant.

use std::ops::Range;

use burn::tensor::Tensor;
use burn_flex::Flex;
use rayon::prelude::*;

use super::{
    element::Element,
    gemm::{Before, Cores, Matrix, multiply},
    storage::{contiguous, for_rows, narrow, tensor, wide, widen, zeros},
    vector::{dot, vectorised},
};

/// Up to so many tokens the weight's way from memory is the cost, and each of its rows is read once.
const MATVEC_TOKENS: usize = 4;

/// Numbers of a narrow weight that are made wide at a time, 32 MiB: a layer of a small model whole. With fewer,
/// the tokens would be prepared for the product's kernel again and again.
const BLOCK: usize = 1 << 23;

/// Numbers of a weight that a task of a matrix-vector product goes through.
const MATVEC_BLOCK: usize = 1 << 16;

/// See [`Ops::frozen_linear`](crate::Ops::frozen_linear).
pub(super) fn forward<E: Element>(
    input: Tensor<Flex, 2>,
    weight: Tensor<Flex, 2>,
    bias: Option<Tensor<Flex, 1>>,
) -> Tensor<Flex, 2> {
    let ([tokens, d_in], d_out) = (input.dims(), weight.dims()[0]);
    let (input, weight, bias) = (contiguous(input), contiguous(weight), bias.map(contiguous));
    let (input, weight) = (wide(input.storage::<E>()), weight.storage::<E>());
    let bias = bias.as_ref().map(|bias| bias.storage::<E>());
    let output = match tokens {
        0..=MATVEC_TOKENS => matvec(&input, weight, bias, [tokens, d_in, d_out]),
        _ => matmul(&input, weight, bias, [tokens, d_in, d_out]),
    };
    tensor(output, [tokens, d_out])
}

/// See [`Ops::frozen_linear_backward`](crate::Ops::frozen_linear_backward).
pub(super) fn backward<E: Element>(
    above: Tensor<Flex, 2>,
    weight: Tensor<Flex, 2>,
) -> Tensor<Flex, 2> {
    let ([tokens, d_out], d_in) = (above.dims(), weight.dims()[1]);
    let (above, weight) = (contiguous(above), contiguous(weight));
    let above = wide(above.storage::<E>());
    let mut output = zeros(tokens * d_in);
    times_weight(
        &mut output,
        &above,
        weight.storage::<E>(),
        [tokens, d_out, d_in],
    );
    tensor(narrow::<E>(output), [tokens, d_in])
}

/// `output += rows · weight`, where the output was zero. `rows` is `[tokens, d_out]`.
fn times_weight<E: Element>(
    output: &mut [f32],
    rows: &[f32],
    weight: &[E],
    [tokens, d_out, d_in]: [usize; 3],
) {
    for_blocks(
        weight,
        d_in,
        rows_a_product(weight, d_in),
        |block, weight| {
            let part = Matrix::new(&rows[block.start..], [tokens, block.len()], [d_out, 1]);
            let weight = Matrix::dense(weight, [block.len(), d_in]);
            multiply(output, d_in, part, weight, 1.0, Before::Kept, Cores::All);
        },
    );
}

/// Calls `body` with parts of the weight's rows, `rows` of them at a time, as f32.
pub(super) fn for_blocks<E: Element>(
    weight: &[E],
    d_in: usize,
    rows: usize,
    mut body: impl FnMut(Range<usize>, &[f32]),
) {
    let len = rows * d_in;
    let mut wide = match E::as_f32(weight) {
        Some(_) => Vec::new(),
        None => zeros(len.min(weight.len())),
    };
    for (index, block) in weight.chunks(len).enumerate() {
        let block = E::as_f32(block).unwrap_or_else(|| {
            let wide = &mut wide[..block.len()];
            widen(wide, block);
            wide
        });
        let start = index * rows;
        body(start..start + block.len() / d_in, block);
    }
}

/// Rows of a weight that a product takes at a time: all, where they are f32 already.
fn rows_a_product<E: Element>(weight: &[E], d_in: usize) -> usize {
    let most = match E::as_f32(weight) {
        Some(_) => weight.len(),
        None => BLOCK,
    };
    (most / d_in).max(1)
}

fn matmul<E: Element>(
    input: &[f32],
    weight: &[E],
    bias: Option<&[E]>,
    [tokens, d_in, d_out]: [usize; 3],
) -> Vec<E> {
    let input = Matrix::dense(input, [tokens, d_in]);
    let mut output = zeros::<f32>(tokens * d_out);
    let before = match bias {
        None => Before::Ignored,
        Some(bias) => {
            for_rows(
                &mut output,
                d_out,
                #[inline(always)]
                |_, part| {
                    for row in part.chunks_exact_mut(d_out) {
                        for (output, bias) in row.iter_mut().zip(bias) {
                            *output = bias.load();
                        }
                    }
                },
            );
            Before::Kept
        }
    };
    for_blocks(
        weight,
        d_in,
        rows_a_product(weight, d_in),
        |block, weight| {
            let weight = Matrix::dense(weight, [block.len(), d_in]).transposed();
            let output = &mut output[block.start..];
            multiply(output, d_out, input, weight, 1.0, before, Cores::All);
        },
    );
    narrow(output)
}

/// Few tokens: a row of the weight is multiplied with all of them while it is at hand.
fn matvec<E: Element>(
    input: &[f32],
    weight: &[E],
    bias: Option<&[E]>,
    [tokens, d_in, d_out]: [usize; 3],
) -> Vec<E> {
    // [d_out, tokens]
    let mut columns = zeros::<E>(d_out * tokens);
    let rows = (MATVEC_BLOCK / d_in).max(1);
    columns
        .par_chunks_mut((rows * tokens).max(1))
        .zip(weight.par_chunks(rows * d_in))
        .enumerate()
        .for_each(|(index, (columns, weight))| {
            vectorised(
                #[inline(always)]
                || {
                    let outputs = columns.chunks_exact_mut(tokens);
                    for (row, (outputs, weight)) in
                        outputs.zip(weight.chunks_exact(d_in)).enumerate()
                    {
                        let bias = bias.map_or(0.0, |bias| bias[index * rows + row].load());
                        for (output, input) in outputs.iter_mut().zip(input.chunks_exact(d_in)) {
                            *output = E::store(dot(input, weight) + bias);
                        }
                    }
                },
            );
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
