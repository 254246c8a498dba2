//! RMSNorm with its own backward pass: it saves the normalised input and the root.

use burn::{
    backend::{
        Autodiff,
        autodiff::{
            checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
            grads::Gradients,
            ops::{Backward, Ops as BackwardOps, OpsKind, unary},
        },
    },
    tensor::{Tensor, backend::Backend, ops::FloatTensor},
};

use crate::{
    dtype::accumulation_dtype,
    primitive::{from_primitive, to_primitive},
};

/// See [`Ops::rms_norm`](crate::Ops::rms_norm).
pub(crate) fn forward<B: Backend>(
    hidden: Tensor<B, 2>,
    weight: Tensor<B, 1>,
    epsilon: f64,
) -> Tensor<B, 2> {
    let dtype = hidden.dtype();
    let (normed, _) = normalise(hidden, epsilon);
    normed.cast(dtype) * weight.unsqueeze()
}

/// The input over its root mean square, `[tokens, d_model]`, and the root, `[tokens, 1]`; in f32 at
/// least.
fn normalise<B: Backend>(hidden: Tensor<B, 2>, epsilon: f64) -> (Tensor<B, 2>, Tensor<B, 2>) {
    let wide = accumulation_dtype(hidden.dtype());
    let hidden = hidden.cast(wide);
    let mean_square = hidden.clone().square().mean_dim(1);
    let root = mean_square.add_scalar(epsilon).sqrt();
    // A division, because ndarray's `recip` is right to 12 bits only.
    (hidden / root.clone(), root)
}

#[derive(Debug)]
struct RmsNormBackward;

/// What the backward pass needs; tensors of the inner backend.
#[derive(Debug, Clone)]
struct Saved<B: Backend> {
    normed: FloatTensor<B>,
    root: FloatTensor<B>,
    weight: FloatTensor<B>,
}

impl<B: Backend> Backward<B, 1> for RmsNormBackward {
    type State = Saved<B>;

    fn backward(
        self,
        ops: BackwardOps<Self::State, 1>,
        grads: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let Saved {
            normed,
            root,
            weight,
        } = ops.state;
        let normed = from_primitive::<B, 2>(normed);
        let root = from_primitive::<B, 2>(root);
        let weight = from_primitive::<B, 1>(weight);
        unary::<B, _>(ops.parents, ops.node, grads, |above| {
            let above = from_primitive::<B, 2>(above);
            let dtype = above.dtype();
            let above = (above * weight.unsqueeze()).cast(normed.dtype());
            // n = x / r and r² = mean(x²) + ε, so dx = (a − n · mean(a · n)) / r.
            let along = (above.clone() * normed.clone()).mean_dim(1);
            let gradient = (above - normed * along) / root;
            gradient.cast(dtype).into_primitive().tensor()
        });
    }
}

/// The operation under autodiff.
pub(crate) fn tracked<B: Backend, C: CheckpointStrategy>(
    hidden: Tensor<Autodiff<B, C>, 2>,
    weight: Tensor<Autodiff<B, C>, 1>,
    epsilon: f64,
) -> Tensor<Autodiff<B, C>, 2> {
    let dtype = hidden.dtype();
    let hidden = to_primitive(hidden);
    let weight = weight.inner();
    let inner = from_primitive::<B, 2>(hidden.primitive);
    let (normed, root) = normalise(inner, epsilon);
    let output = normed.clone().cast(dtype) * weight.clone().unsqueeze();
    let output = to_primitive(output);
    let prepared = RmsNormBackward.prepare::<C>([hidden.node]).compute_bound();
    let primitive = match prepared.stateful() {
        OpsKind::Tracked(prepared) => {
            let saved = Saved {
                normed: to_primitive(normed),
                root: to_primitive(root),
                weight: to_primitive(weight),
            };
            prepared.finish(saved, output)
        }
        OpsKind::UnTracked(prepared) => prepared.finish(output),
    };
    from_primitive(primitive)
}
