//! `silu(gate) · up` with its own backward pass: it saves the two inputs and nothing else.

use burn::{
    backend::{
        Autodiff,
        autodiff::{
            checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
            grads::Gradients,
            ops::{Backward, Ops as BackwardOps, OpsKind, binary},
        },
    },
    tensor::{Tensor, ops::FloatTensor},
};

use crate::{
    Ops,
    dtype::accumulation_dtype,
    primitive::{from_primitive, to_primitive},
};

/// See [`Ops::swiglu`].
pub(crate) fn forward<B: Ops>(gate: Tensor<B, 2>, up: Tensor<B, 2>) -> Tensor<B, 2> {
    let dtype = gate.dtype();
    let gate = gate.cast(accumulation_dtype(dtype));
    (B::logistic(gate.clone()) * gate).cast(dtype) * up
}

#[derive(Debug)]
struct SwigluBackward;

impl<B: Ops> Backward<B, 2> for SwigluBackward {
    /// Gate and up, `[tokens, d_ff]` each.
    type State = (FloatTensor<B>, FloatTensor<B>);

    fn backward(
        self,
        ops: BackwardOps<Self::State, 2>,
        grads: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let (gate, up) = ops.state;
        let (gate, up) = (from_primitive::<B, 2>(gate), from_primitive::<B, 2>(up));
        let dtype = gate.dtype();
        let gate = gate.cast(accumulation_dtype(dtype));
        let sigmoid = B::logistic(gate.clone());
        let silu = sigmoid.clone() * gate;
        binary::<B, _, _>(
            ops.parents,
            ops.node,
            grads,
            |above| {
                // silu′ = σ · (1 + gate · (1 − σ)) = σ + silu · (1 − σ)
                let slope = sigmoid.clone() + silu.clone() * (-sigmoid + 1.0);
                to_primitive(slope.cast(dtype) * up * from_primitive::<B, 2>(above))
            },
            |above| to_primitive(silu.clone().cast(dtype) * from_primitive::<B, 2>(above)),
        );
    }
}

/// The operation under autodiff.
pub(crate) fn tracked<B: Ops, C: CheckpointStrategy>(
    gate: Tensor<Autodiff<B, C>, 2>,
    up: Tensor<Autodiff<B, C>, 2>,
) -> Tensor<Autodiff<B, C>, 2> {
    let (gate, up) = (to_primitive(gate), to_primitive(up));
    let nodes = [gate.node.clone(), up.node.clone()];
    let output = B::swiglu(
        from_primitive(gate.primitive.clone()),
        from_primitive(up.primitive.clone()),
    );
    let output = to_primitive(output);
    let primitive = match SwigluBackward
        .prepare::<C>(nodes)
        .compute_bound()
        .stateful()
    {
        OpsKind::Tracked(prepared) => prepared.finish((gate.primitive, up.primitive), output),
        OpsKind::UnTracked(prepared) => prepared.finish(output),
    };
    from_primitive(primitive)
}
