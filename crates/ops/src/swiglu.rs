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
    tensor::{Tensor, TensorPrimitive, ops::FloatTensor},
};

use crate::{Ops, dtype::accumulation_dtype};

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
        let (gate, up) = (from_primitive::<B>(gate), from_primitive::<B>(up));
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
                to_primitive(slope.cast(dtype) * up * from_primitive::<B>(above))
            },
            |above| to_primitive(silu.clone().cast(dtype) * from_primitive::<B>(above)),
        );
    }
}

/// The operation under autodiff.
pub(crate) fn tracked<B: Ops, C: CheckpointStrategy>(
    gate: Tensor<Autodiff<B, C>, 2>,
    up: Tensor<Autodiff<B, C>, 2>,
) -> Tensor<Autodiff<B, C>, 2> {
    let (gate, up) = (gate.into_primitive().tensor(), up.into_primitive().tensor());
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
    Tensor::from_primitive(TensorPrimitive::Float(primitive))
}

fn from_primitive<B: Ops>(primitive: FloatTensor<B>) -> Tensor<B, 2> {
    Tensor::from_primitive(TensorPrimitive::Float(primitive))
}

fn to_primitive<B: Ops>(tensor: Tensor<B, 2>) -> FloatTensor<B> {
    tensor.into_primitive().tensor()
}
