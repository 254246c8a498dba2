//! Cross-entropy through a frozen head: some rows of the head at a time, each read once, whose logits are
//! dropped when they have been added up. The largest logit so far is a row's unit, as in the softmax of
//! FlashAttention (Dao et al. 2022); where a larger one comes, what was added up is scaled.

use burn::tensor::{Int, Tensor};
use burn_flex::Flex;
use rayon::prelude::*;

use super::{
    element::Element,
    exp::exp,
    product::{MatrixB, add_product, product},
    storage::{contiguous, for_rows, narrow, tensor, zeros},
    vector::{largest, sum, vectorised},
};

/// Rows of the head at a time, whatever the number of tokens: a token's loss is the same in every batch.
const ROWS: usize = 1 << 12;

/// Tokens at a time: no more than 2^22 logits, 16 MiB.
const TOKENS: usize = 1 << 10;

/// See [`Kernels::linear_cross_entropy`](crate::Kernels::linear_cross_entropy).
pub(super) fn losses<E: Element>(
    hidden: Tensor<Flex, 2>,
    weight: Tensor<Flex, 2>,
    targets: Tensor<Flex, 1, Int>,
) -> Tensor<Flex, 1> {
    let [tokens, _] = hidden.dims();
    let (losses, _) = run::<E>(hidden, weight, targets, false);
    tensor(losses, [tokens])
}

/// See [`Kernels::linear_cross_entropy_gradient`](crate::Kernels::linear_cross_entropy_gradient).
pub(super) fn losses_and_gradients<E: Element>(
    hidden: Tensor<Flex, 2>,
    weight: Tensor<Flex, 2>,
    targets: Tensor<Flex, 1, Int>,
) -> (Tensor<Flex, 1>, Tensor<Flex, 2>) {
    let shape @ [tokens, _] = hidden.dims();
    let (losses, gradients) = run::<E>(hidden, weight, targets, true);
    (
        tensor(losses, [tokens]),
        tensor(narrow::<E>(gradients), shape),
    )
}

/// Losses `[tokens]`, and gradients `[tokens, d_model]` if they are wanted.
fn run<E: Element>(
    hidden: Tensor<Flex, 2>,
    weight: Tensor<Flex, 2>,
    targets: Tensor<Flex, 1, Int>,
    with_gradients: bool,
) -> (Vec<f32>, Vec<f32>) {
    let [vocab, d_model] = weight.dims();
    let targets: Vec<usize> = targets
        .into_data()
        .iter::<i64>()
        .map(|id| id as usize)
        .collect();
    assert!(
        targets.iter().all(|target| *target < vocab),
        "a target is none of the {vocab} tokens"
    );
    let (hidden, weight) = (contiguous(hidden), contiguous(weight));
    let (hidden, weight) = (hidden.storage::<E>(), weight.storage::<E>());
    let mut losses = Vec::with_capacity(targets.len());
    let mut gradients = zeros::<f32>(if with_gradients { hidden.len() } else { 0 });
    for (index, targets) in targets.chunks(TOKENS).enumerate() {
        let cells = index * TOKENS * d_model..(index * TOKENS + targets.len()) * d_model;
        let gradients = with_gradients.then(|| &mut gradients[cells.clone()]);
        let tokens = Tokens {
            hidden: &hidden[cells],
            weight,
            targets,
            d_model,
        };
        losses.extend(tokens.losses(gradients));
    }
    (losses, gradients)
}

/// Some tokens, and the head.
struct Tokens<'a, E> {
    hidden: &'a [E],
    weight: &'a [E],
    targets: &'a [usize],
    d_model: usize,
}

/// What is known of a token's logits so far.
#[derive(Clone)]
struct Token {
    largest: f32,
    /// `Σ exp(logit − largest)` over all but the target.
    others: f32,
    /// The target's logit.
    target: f32,
    /// By how much the last block made earlier exponentials smaller.
    rescale: f32,
}

impl<E: Element> Tokens<'_, E> {
    /// The loss of each token, and its gradient into zeros.
    fn losses(&self, mut gradients: Option<&mut [f32]>) -> impl Iterator<Item = f32> {
        let Self {
            d_model, targets, ..
        } = *self;
        let mut tokens = vec![Token::default(); targets.len()];
        for (block, weight) in self.weight.chunks(ROWS * d_model).enumerate() {
            let (start, weight) = (block * ROWS, MatrixB::weight(weight, d_model));
            let mut logits = product(self.hidden, weight.transposed(), None);
            let width = logits.len() / targets.len();
            logits
                .par_chunks_exact_mut(width)
                .zip(&mut tokens)
                .zip(targets)
                .for_each(|((logits, token), target)| {
                    let target = target.wrapping_sub(start);
                    vectorised(
                        #[inline(always)]
                        || token.add(logits, target),
                    );
                });
            if let Some(gradients) = &mut gradients {
                rescale(gradients, &tokens, d_model);
                add_product(gradients, &logits, weight);
            }
        }
        if let Some(gradients) = gradients {
            self.finish(gradients, &tokens);
        }
        tokens.into_iter().map(|token| token.loss())
    }

    /// From `Σ exp(logit − largest) · weight` over all but the target to the gradient.
    fn finish(&self, gradients: &mut [f32], tokens: &[Token]) {
        let d_model = self.d_model;
        for_rows(
            gradients,
            d_model,
            #[inline(always)]
            |start, part| {
                let first = start / d_model;
                for (row, gradient) in part.chunks_exact_mut(d_model).enumerate() {
                    let (token, target) = (&tokens[first + row], self.targets[first + row]);
                    let scale = 1.0 / token.total();
                    // One minus the target's probability, without the subtraction.
                    let missing = token.others * scale;
                    let weight = &self.weight[target * d_model..][..d_model];
                    for (gradient, weight) in gradient.iter_mut().zip(weight) {
                        *gradient = *gradient * scale - missing * weight.load();
                    }
                }
            },
        );
    }
}

/// Multiplies the rows whose unit the last block changed.
fn rescale(gradients: &mut [f32], tokens: &[Token], d_model: usize) {
    for_rows(
        gradients,
        d_model,
        #[inline(always)]
        |start, part| {
            let rows = part.chunks_exact_mut(d_model);
            for (gradient, token) in rows.zip(&tokens[start / d_model..]) {
                if token.rescale != 1.0 {
                    for gradient in gradient {
                        *gradient *= token.rescale;
                    }
                }
            }
        },
    );
}

impl Default for Token {
    fn default() -> Self {
        Self {
            largest: f32::NEG_INFINITY,
            others: 0.0,
            target: 0.0,
            rescale: 1.0,
        }
    }
}

impl Token {
    /// Adds a block of logits up, and turns them into exponentials; the target's, if it is among them,
    /// into zero.
    #[inline(always)]
    fn add(&mut self, logits: &mut [f32], target: usize) {
        let larger = largest(logits);
        // A NaN is no smaller.
        self.rescale = if larger <= self.largest {
            1.0
        } else {
            exp(self.largest - larger)
        };
        if self.rescale != 1.0 {
            self.largest = larger;
            self.others *= self.rescale;
        }
        if let Some(logit) = logits.get_mut(target) {
            self.target = *logit;
            *logit = f32::NEG_INFINITY;
        }
        for x in logits.iter_mut() {
            *x = exp(*x - self.largest);
        }
        self.others += sum(
            [&*logits],
            #[inline(always)]
            |[x]| x,
        );
    }

    /// `Σ exp(logit − largest)` over all.
    #[inline(always)]
    fn total(&self) -> f32 {
        self.others + exp(self.target - self.largest)
    }

    fn loss(&self) -> f32 {
        self.total().ln() + (self.largest - self.target)
    }
}
