//! Cross-entropy through a frozen head, a chunk of tokens at a time.

use burn::{
    backend::{
        Autodiff,
        autodiff::{
            checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
            grads::Gradients,
            ops::{Backward, Ops as BackwardOps, OpsKind, unary},
        },
    },
    tensor::{Int, Tensor, backend::Backend, ops::FloatTensor, s},
};

use crate::{
    Ops,
    dtype::accumulation_dtype,
    primitive::{from_primitive, to_primitive},
};

/// Logits held at a time: 2^25 numbers, 128 MiB in f32.
const LOGITS_PER_CHUNK: usize = 1 << 25;

/// The loss alone; see [`Ops::linear_cross_entropy`].
pub(crate) fn forward<B: Ops>(
    hidden: Tensor<B, 2>,
    weight: Tensor<B, 2>,
    targets: Tensor<B, 1, Int>,
) -> Tensor<B, 1> {
    let losses = chunks(&hidden, &weight)
        .map(|(start, end)| {
            let hidden = hidden.clone().slice(s![start..end]);
            let targets = targets.clone().slice(s![start..end]);
            Softmax::of(hidden, &weight).nll(targets)
        })
        .collect();
    Tensor::cat(losses, 0)
}

/// The loss, and the gradient of each token's loss with respect to its own hidden state.
fn forward_with_gradient<B: Ops>(
    hidden: Tensor<B, 2>,
    weight: Tensor<B, 2>,
    targets: Tensor<B, 1, Int>,
) -> (Tensor<B, 1>, Tensor<B, 2>) {
    let (losses, gradients) = chunks(&hidden, &weight)
        .map(|(start, end)| {
            let hidden = hidden.clone().slice(s![start..end]);
            let targets = targets.clone().slice(s![start..end]);
            let softmax = Softmax::of(hidden, &weight);
            let nll = softmax.nll(targets.clone());
            // (softmax − onehot) · W, where onehot · W is a row of W.
            let expected = softmax
                .probabilities()
                .cast(weight.dtype())
                .matmul(weight.clone());
            (nll, expected - weight.clone().select(0, targets))
        })
        .unzip();
    (Tensor::cat(losses, 0), Tensor::cat(gradients, 0))
}

/// The chunks `start..end` of the tokens of `hidden`.
fn chunks<B: Backend>(
    hidden: &Tensor<B, 2>,
    weight: &Tensor<B, 2>,
) -> impl Iterator<Item = (usize, usize)> + use<B> {
    let tokens = hidden.dims()[0];
    let size = (LOGITS_PER_CHUNK / weight.dims()[0]).max(1);
    (0..tokens)
        .step_by(size)
        .map(move |start| (start, (start + size).min(tokens)))
}

/// A softmax over the vocabulary that has not been normalised yet.
struct Softmax<B: Backend> {
    /// Logits less the row's largest, `[tokens, vocab]`.
    shifted: Tensor<B, 2>,
    /// `exp(shifted)`, `[tokens, vocab]`.
    exponentials: Tensor<B, 2>,
    /// Row sums of the exponentials, `[tokens, 1]`.
    total: Tensor<B, 2>,
}

impl<B: Ops> Softmax<B> {
    fn of(hidden: Tensor<B, 2>, weight: &Tensor<B, 2>) -> Self {
        let wide = accumulation_dtype(hidden.dtype());
        let logits = B::frozen_linear(hidden, weight.clone(), None).cast(wide);
        let largest = logits.clone().max_dim(1);
        let shifted = logits - largest;
        let exponentials = shifted.clone().exp();
        let total = exponentials.clone().sum_dim(1);
        Self {
            shifted,
            exponentials,
            total,
        }
    }

    fn nll(&self, targets: Tensor<B, 1, Int>) -> Tensor<B, 1> {
        let logit = self.shifted.clone().gather(1, targets.unsqueeze_dim(1));
        (self.total.clone().log() - logit).squeeze_dim(1)
    }

    fn probabilities(self) -> Tensor<B, 2> {
        self.exponentials / self.total
    }
}

/// Scales the gradient found in the forward pass by what arrives from above.
#[derive(Debug)]
struct LinearCrossEntropyBackward;

impl<B: Backend> Backward<B, 1> for LinearCrossEntropyBackward {
    /// `d loss_i / d hidden_i`, `[tokens, d_model]`.
    type State = FloatTensor<B>;

    fn backward(
        self,
        ops: BackwardOps<Self::State, 1>,
        grads: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let gradient = from_primitive::<B, 2>(ops.state);
        unary::<B, _>(ops.parents, ops.node, grads, |above| {
            let above = from_primitive::<B, 1>(above)
                .cast(gradient.dtype())
                .unsqueeze_dim(1);
            (gradient * above).into_primitive().tensor()
        });
    }
}

/// The loss under autodiff, with its gradient already attached.
pub(crate) fn tracked<B: Ops, C: CheckpointStrategy>(
    hidden: Tensor<Autodiff<B, C>, 2>,
    weight: Tensor<Autodiff<B, C>, 2>,
    targets: Tensor<Autodiff<B, C>, 1, Int>,
) -> Tensor<Autodiff<B, C>, 1> {
    let (weight, targets) = (weight.inner(), targets.inner());
    let inner = hidden.clone().inner();
    let node = to_primitive(hidden).node;
    let primitive = match LinearCrossEntropyBackward
        .prepare::<C>([node])
        .compute_bound()
        .stateful()
    {
        OpsKind::Tracked(prepared) => {
            let (loss, gradient) = forward_with_gradient(inner, weight, targets);
            prepared.finish(to_primitive(gradient), to_primitive(loss))
        }
        OpsKind::UnTracked(prepared) => {
            let loss = forward(inner, weight, targets);
            prepared.finish(to_primitive(loss))
        }
    };
    from_primitive(primitive)
}
