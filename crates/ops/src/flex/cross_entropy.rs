//! Cross-entropy through a frozen head, in one buffer of logits.

use burn::tensor::{Int, Tensor};
use burn_flex::Flex;
use rayon::prelude::*;

use super::{
    element::Element,
    exp::exp,
    gemm::{Before, Cores, Matrix, multiply},
    linear::{for_blocks, times_weight},
    storage::{contiguous, narrow, tensor, wide, zeros},
    vector::{largest, sum, vectorised},
};

/// Logits held at a time: 2^24 numbers, 64 MiB.
const LOGITS_PER_CHUNK: usize = 1 << 24;

/// See [`Ops::linear_cross_entropy`](crate::Ops::linear_cross_entropy).
pub(super) fn losses<E: Element>(
    hidden: Tensor<Flex, 2>,
    weight: Tensor<Flex, 2>,
    targets: Tensor<Flex, 1, Int>,
) -> Tensor<Flex, 1> {
    let mut losses = Vec::new();
    for_chunks::<E>(hidden, weight, targets, |chunk| {
        losses.append(&mut chunk.losses)
    });
    let tokens = losses.len();
    tensor(losses, [tokens])
}

/// See [`Ops::linear_cross_entropy_gradient`](crate::Ops::linear_cross_entropy_gradient).
pub(super) fn losses_and_gradients<E: Element>(
    hidden: Tensor<Flex, 2>,
    weight: Tensor<Flex, 2>,
    targets: Tensor<Flex, 1, Int>,
) -> (Tensor<Flex, 1>, Tensor<Flex, 2>) {
    let shape @ [tokens, d_model] = hidden.dims();
    let mut losses = Vec::with_capacity(tokens);
    let mut gradients = zeros::<f32>(tokens * d_model);
    for_chunks::<E>(hidden, weight, targets, |chunk| {
        chunk.logits_to_gradients();
        let vocab = chunk.vocab;
        let tokens = chunk.targets.len();
        let gradients = &mut gradients[losses.len() * d_model..][..tokens * d_model];
        times_weight(
            gradients,
            chunk.logits,
            chunk.weight,
            [tokens, vocab, d_model],
        );
        losses.append(&mut chunk.losses);
    });
    (
        tensor(losses, [tokens]),
        tensor(narrow::<E>(gradients), shape),
    )
}

/// Some tokens whose exponentials and losses are known.
struct Chunk<'a, E> {
    weight: &'a [E],
    vocab: usize,
    targets: &'a [usize],
    /// `exp(logit − the row's largest)`, `[tokens, vocab]`.
    logits: &'a mut [f32],
    /// Of each row's exponentials, `[tokens]`.
    totals: Vec<f32>,
    losses: Vec<f32>,
}

fn for_chunks<E: Element>(
    hidden: Tensor<Flex, 2>,
    weight: Tensor<Flex, 2>,
    targets: Tensor<Flex, 1, Int>,
    mut body: impl FnMut(&mut Chunk<'_, E>),
) {
    let [vocab, d_model] = weight.dims();
    let targets: Vec<usize> = targets
        .into_data()
        .iter::<i64>()
        .map(|id| id as usize)
        .collect();
    let (hidden, weight) = (contiguous(hidden), contiguous(weight));
    let (hidden, weight) = (wide(hidden.storage::<E>()), weight.storage::<E>());
    let chunk = (LOGITS_PER_CHUNK / vocab).clamp(1, targets.len().max(1));
    let mut logits = zeros::<f32>(chunk * vocab);
    for (targets, hidden) in targets.chunks(chunk).zip(hidden.chunks(chunk * d_model)) {
        let tokens = targets.len();
        let logits = &mut logits[..tokens * vocab];
        let hidden = Matrix::dense(hidden, [tokens, d_model]);
        for_blocks(weight, d_model, |block, weight| {
            let weight = Matrix::dense(weight, [block.len(), d_model]).transposed();
            let logits = &mut logits[block.start..];
            multiply(
                logits,
                vocab,
                hidden,
                weight,
                1.0,
                Before::Ignored,
                Cores::All,
            );
        });
        let (totals, losses) = logits
            .par_chunks_exact_mut(vocab)
            .zip(targets)
            .map(|(row, target)| {
                vectorised(
                    #[inline(always)]
                    || exponentials(row, *target),
                )
            })
            .unzip();
        body(&mut Chunk {
            weight,
            vocab,
            targets,
            logits,
            totals,
            losses,
        });
    }
}

/// Turns a row of logits into exponentials; their sum, and the loss of `target`.
#[inline(always)]
fn exponentials(row: &mut [f32], target: usize) -> (f32, f32) {
    let largest = largest(row);
    let logit = row[target] - largest;
    for x in row.iter_mut() {
        *x = exp(*x - largest);
    }
    let total = sum(row.len(), |i| row[i]);
    (total, total.ln() - logit)
}

impl<E: Element> Chunk<'_, E> {
    /// `softmax − onehot`: what comes back to each logit.
    fn logits_to_gradients(&mut self) {
        self.logits
            .par_chunks_exact_mut(self.vocab)
            .zip(&self.totals)
            .zip(self.targets)
            .for_each(|((row, total), target)| {
                vectorised(
                    #[inline(always)]
                    || {
                        let scale = 1.0 / total;
                        for x in row.iter_mut() {
                            *x *= scale;
                        }
                        row[*target] -= 1.0;
                    },
                );
            });
    }
}
