//! Softmax over the last axis, with its own backward pass: it saves its output and nothing else.

use burn::{
    backend::{
        Autodiff,
        autodiff::{
            checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
            grads::Gradients,
            ops::{Backward, Ops as BackwardOps, OpsKind, unary},
        },
    },
    tensor::{Tensor, activation, backend::Backend, ops::FloatTensor},
};

use crate::primitive::{from_primitive, to_primitive};

const LAST: usize = 3;

/// See [`Ops::score_softmax`](crate::Ops::score_softmax).
pub(crate) fn forward<B: Backend>(scores: Tensor<B, 4>) -> Tensor<B, 4> {
    activation::softmax(scores, LAST)
}

#[derive(Debug)]
struct SoftmaxBackward;

impl<B: Backend> Backward<B, 1> for SoftmaxBackward {
    /// The probabilities.
    type State = FloatTensor<B>;

    fn backward(
        self,
        ops: BackwardOps<Self::State, 1>,
        grads: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let probabilities = from_primitive::<B, 4>(ops.state);
        unary::<B, _>(ops.parents, ops.node, grads, |above| {
            let above = from_primitive::<B, 4>(above);
            let expected = (above.clone() * probabilities.clone()).sum_dim(LAST);
            ((above - expected) * probabilities)
                .into_primitive()
                .tensor()
        });
    }
}

/// The operation under autodiff.
pub(crate) fn tracked<B: Backend, C: CheckpointStrategy>(
    scores: Tensor<Autodiff<B, C>, 4>,
) -> Tensor<Autodiff<B, C>, 4> {
    let scores = to_primitive(scores);
    let inner = from_primitive::<B, 4>(scores.primitive);
    let output = to_primitive(forward(inner));
    let prepared = SoftmaxBackward.prepare::<C>([scores.node]).compute_bound();
    let primitive = match prepared.stateful() {
        OpsKind::Tracked(prepared) => prepared.finish(output.clone(), output),
        OpsKind::UnTracked(prepared) => prepared.finish(output),
    };
    from_primitive(primitive)
}
