//! The operations under autodiff. Forward and backward are the inner backend's; what is kept between the
//! two is decided here: inputs that exist anyway, and of a gated MLP its gate and up.

use burn::{
    backend::{
        Autodiff,
        autodiff::{
            checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
            grads::Gradients,
            ops::{Backward, Ops as Step, OpsKind, unary},
        },
    },
    tensor::{Int, Tensor, TensorPrimitive, backend::Backend, ops::FloatTensor},
};

use crate::{
    FrozenWeight, Kernels, LinearLayer, ScoreMask, SharedPrompt, kernels::two, shared_prompt,
};

fn from_primitive<B: Backend, const D: usize>(primitive: FloatTensor<B>) -> Tensor<B, D> {
    Tensor::from_primitive(TensorPrimitive::Float(primitive))
}

fn to_primitive<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> FloatTensor<B> {
    tensor.into_primitive().tensor()
}

/// Puts the output of `step` with the parents `$parent` into the graph, and `$state` with it if anything
/// is tracked.
macro_rules! record {
    ($step:expr, [$($parent:expr),+], $output:expr, $state:expr) => {{
        let output = to_primitive($output);
        let nodes = [$($parent.node.clone()),+];
        from_primitive(match $step.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish($state, output),
            OpsKind::UnTracked(prepared) => prepared.finish(output),
        })
    }};
}

/// With one parent, the input; or with two, the bias behind it.
#[derive(Debug)]
struct LinearBackward;

impl<B: Kernels> Backward<B, 1> for LinearBackward {
    /// The weight.
    type State = FrozenWeight<B>;

    fn backward(self, step: Step<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        unary::<B, _>(step.parents, step.node, grads, |above| {
            to_primitive(B::frozen_linear_backward(
                from_primitive(above),
                &step.state,
            ))
        });
    }
}

impl<B: Kernels> Backward<B, 2> for LinearBackward {
    /// The weight.
    type State = FrozenWeight<B>;

    fn backward(self, step: Step<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let above = from_primitive::<B, 2>(grads.consume::<B>(&step.node));
        let [input, bias] = step.parents;
        if let Some(bias) = bias {
            let gradient = B::bias_gradient(above.clone());
            grads.register::<B>(bias.id, to_primitive(gradient));
        }
        if let Some(input) = input {
            let gradient = B::frozen_linear_backward(above, &step.state);
            grads.register::<B>(input.id, to_primitive(gradient));
        }
    }
}

pub(crate) fn linears<B: Kernels, C: CheckpointStrategy>(
    input: Tensor<Autodiff<B, C>, 2>,
    layers: &[LinearLayer<Autodiff<B, C>>],
) -> Vec<Tensor<Autodiff<B, C>, 2>> {
    let inner = |(weight, bias): &LinearLayer<Autodiff<B, C>>| {
        (weight.inner(), bias.clone().map(Tensor::inner))
    };
    let inner: Vec<_> = layers.iter().map(inner).collect();
    let outputs = <B as Kernels>::frozen_linears(input.clone().inner(), &inner);
    let input = to_primitive(input);
    let record = |(output, (weight, bias)): (_, &LinearLayer<Autodiff<B, C>>)| {
        let weight = weight.inner();
        match bias.clone().map(to_primitive) {
            Some(bias) => record!(LinearBackward, [input, bias], output, weight),
            None => record!(LinearBackward, [input], output, weight),
        }
    };
    outputs.into_iter().zip(layers).map(record).collect()
}

#[derive(Debug)]
struct RmsNormBackward {
    epsilon: f64,
}

impl<B: Kernels> Backward<B, 1> for RmsNormBackward {
    /// Input and weight.
    type State = (FloatTensor<B>, FloatTensor<B>);

    fn backward(self, step: Step<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let (hidden, weight) = step.state;
        unary::<B, _>(step.parents, step.node, grads, |above| {
            to_primitive(B::rms_norm_backward(
                from_primitive(hidden),
                from_primitive(weight),
                self.epsilon,
                from_primitive(above),
            ))
        });
    }
}

pub(crate) fn rms_norm<B: Kernels, C: CheckpointStrategy>(
    hidden: Tensor<Autodiff<B, C>, 2>,
    weight: Tensor<Autodiff<B, C>, 1>,
    epsilon: f64,
) -> Tensor<Autodiff<B, C>, 2> {
    let weight = weight.inner();
    let output = <B as Kernels>::rms_norm(hidden.clone().inner(), weight.clone(), epsilon);
    let hidden = to_primitive(hidden);
    let state = (hidden.primitive, to_primitive(weight));
    record!(RmsNormBackward { epsilon }, [hidden], output, state)
}

#[derive(Debug)]
struct SwigluBackward;

impl<B: Kernels> Backward<B, 2> for SwigluBackward {
    /// Gate and up.
    type State = (FloatTensor<B>, FloatTensor<B>);

    fn backward(self, step: Step<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let (gate, up) = step.state;
        let above = from_primitive(grads.consume::<B>(&step.node));
        let gradients = B::swiglu_backward(from_primitive(gate), from_primitive(up), above);
        for (parent, gradient) in step.parents.into_iter().zip(gradients) {
            if let Some(parent) = parent {
                grads.register::<B>(parent.id, to_primitive(gradient));
            }
        }
    }
}

pub(crate) fn swiglu<B: Kernels, C: CheckpointStrategy>(
    gate: Tensor<Autodiff<B, C>, 2>,
    up: Tensor<Autodiff<B, C>, 2>,
) -> Tensor<Autodiff<B, C>, 2> {
    let output = <B as Kernels>::swiglu(gate.clone().inner(), up.clone().inner());
    let (gate, up) = (to_primitive(gate), to_primitive(up));
    record!(
        SwigluBackward,
        [gate, up],
        output,
        (gate.primitive, up.primitive)
    )
}

#[derive(Debug)]
struct GatedMlpBackward;

impl<B: Kernels> Backward<B, 1> for GatedMlpBackward {
    /// Gate and up; the weights of both, and that of down.
    type State = ([FloatTensor<B>; 2], [FrozenWeight<B>; 3]);

    fn backward(self, step: Step<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let (states, [of_gate, of_up, down]) = step.state;
        unary::<B, _>(step.parents, step.node, grads, |above| {
            let [gate, up] = states.map(from_primitive);
            let above = B::frozen_linear_backward(from_primitive(above), &down);
            let gradient = B::swiglu_linears_backward(gate, up, [&of_gate, &of_up], above);
            to_primitive(gradient)
        });
    }
}

pub(crate) fn gated_mlp<B: Kernels, C: CheckpointStrategy>(
    input: Tensor<Autodiff<B, C>, 2>,
    gate: &FrozenWeight<Autodiff<B, C>>,
    up: &FrozenWeight<Autodiff<B, C>>,
    down: &FrozenWeight<Autodiff<B, C>>,
) -> Tensor<Autodiff<B, C>, 2> {
    let [of_gate, of_up, down] = [gate, up, down].map(FrozenWeight::inner);
    let layers = [(of_gate.clone(), None), (of_up.clone(), None)];
    let [gate, up] = two(<B as Kernels>::frozen_linears(
        input.clone().inner(),
        &layers,
    ));
    let output = B::swiglu_linear(gate.clone(), up.clone(), &down);
    let state = ([gate, up].map(to_primitive), [of_gate, of_up, down]);
    let input = to_primitive(input);
    record!(GatedMlpBackward, [input], output, state)
}

#[derive(Debug)]
struct RotaryBackward;

impl<B: Kernels> Backward<B, 1> for RotaryBackward {
    /// Cosines and sines.
    type State = (FloatTensor<B>, FloatTensor<B>);

    fn backward(self, step: Step<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let (cos, sin) = step.state;
        unary::<B, _>(step.parents, step.node, grads, |above| {
            // A rotation's transpose turns the other way.
            let back = -from_primitive::<B, 4>(sin);
            to_primitive(<B as Kernels>::rotary(
                from_primitive(above),
                from_primitive(cos),
                back,
            ))
        });
    }
}

pub(crate) fn rotary<B: Kernels, C: CheckpointStrategy>(
    states: Tensor<Autodiff<B, C>, 4>,
    cos: Tensor<Autodiff<B, C>, 4>,
    sin: Tensor<Autodiff<B, C>, 4>,
) -> Tensor<Autodiff<B, C>, 4> {
    let (cos, sin) = (cos.inner(), sin.inner());
    let output = <B as Kernels>::rotary(states.clone().inner(), cos.clone(), sin.clone());
    let states = to_primitive(states);
    let state = (to_primitive(cos), to_primitive(sin));
    record!(RotaryBackward, [states], output, state)
}

/// Of attention over grouped heads, by `M`.
#[derive(Debug)]
struct AttentionBackward<M>(M);

impl<B: Kernels> Backward<B, 3> for AttentionBackward<ScoreMask<B>> {
    /// Query, key and value.
    type State = [FloatTensor<B>; 3];

    fn backward(self, step: Step<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        carry_back::<B>(step, grads, |query, key, value, above| {
            B::grouped_attention_backward(query, key, value, &self.0, above)
        });
    }
}

impl<B: Kernels> Backward<B, 3> for AttentionBackward<SharedPrompt<B>> {
    /// Query, key and value.
    type State = [FloatTensor<B>; 3];

    fn backward(self, step: Step<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        carry_back::<B>(step, grads, |query, key, value, above| {
            shared_prompt::attention_backward(query, key, value, &self.0, above)
        });
    }
}

/// Registers the gradients of query, key and value.
fn carry_back<B: Kernels>(
    step: Step<[FloatTensor<B>; 3], 3>,
    grads: &mut Gradients,
    gradients: impl FnOnce(Tensor<B, 4>, Tensor<B, 4>, Tensor<B, 4>, Tensor<B, 4>) -> [Tensor<B, 4>; 3],
) {
    let [query, key, value] = step.state.map(from_primitive);
    let above = from_primitive(grads.consume::<B>(&step.node));
    let gradients = gradients(query, key, value, above);
    for (parent, gradient) in step.parents.into_iter().zip(gradients) {
        if let Some(parent) = parent {
            grads.register::<B>(parent.id, to_primitive(gradient));
        }
    }
}

/// Attention over tracked states, as `$forward` has it for the backend below.
macro_rules! attend {
    ($how:expr, [$query:expr, $key:expr, $value:expr], $forward:expr) => {{
        let inner = |states: &Tensor<_, 4>| states.clone().inner();
        let how = $how.clone().inner();
        let output = $forward(inner(&$query), inner(&$key), inner(&$value), &how);
        let [query, key, value] = [$query, $key, $value].map(to_primitive);
        let state = [&query, &key, &value].map(|states| states.primitive.clone());
        record!(AttentionBackward(how), [query, key, value], output, state)
    }};
}

pub(crate) fn attention<B: Kernels, C: CheckpointStrategy>(
    query: Tensor<Autodiff<B, C>, 4>,
    key: Tensor<Autodiff<B, C>, 4>,
    value: Tensor<Autodiff<B, C>, 4>,
    mask: &ScoreMask<Autodiff<B, C>>,
) -> Tensor<Autodiff<B, C>, 4> {
    attend!(mask, [query, key, value], <B as Kernels>::grouped_attention)
}

pub(crate) fn shared_prompt_attention<B: Kernels, C: CheckpointStrategy>(
    query: Tensor<Autodiff<B, C>, 4>,
    key: Tensor<Autodiff<B, C>, 4>,
    value: Tensor<Autodiff<B, C>, 4>,
    shared: &SharedPrompt<Autodiff<B, C>>,
) -> Tensor<Autodiff<B, C>, 4> {
    attend!(shared, [query, key, value], shared_prompt::attention)
}

/// Scales the gradient found in the forward pass by what arrives from above.
#[derive(Debug)]
struct CrossEntropyBackward;

impl<B: Backend> Backward<B, 1> for CrossEntropyBackward {
    /// `d loss_i / d hidden_i`, `[tokens, d_model]`.
    type State = FloatTensor<B>;

    fn backward(self, step: Step<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = from_primitive::<B, 2>(step.state);
        unary::<B, _>(step.parents, step.node, grads, |above| {
            let above = from_primitive::<B, 1>(above)
                .cast(gradient.dtype())
                .unsqueeze_dim(1);
            to_primitive(gradient * above)
        });
    }
}

pub(crate) fn cross_entropy<B: Kernels, C: CheckpointStrategy>(
    hidden: Tensor<Autodiff<B, C>, 2>,
    weight: &FrozenWeight<Autodiff<B, C>>,
    targets: Tensor<Autodiff<B, C>, 1, Int>,
) -> Tensor<Autodiff<B, C>, 1> {
    let (weight, targets) = (weight.inner(), targets.inner());
    let inner = hidden.clone().inner();
    let node = to_primitive(hidden).node;
    let step = CrossEntropyBackward.prepare::<C>([node]);
    from_primitive(match step.compute_bound().stateful() {
        OpsKind::Tracked(prepared) => {
            let (loss, gradient) = B::linear_cross_entropy_gradient(inner, &weight, targets);
            prepared.finish(to_primitive(gradient), to_primitive(loss))
        }
        OpsKind::UnTracked(prepared) => {
            let loss = <B as Kernels>::linear_cross_entropy(inner, &weight, targets);
            prepared.finish(to_primitive(loss))
        }
    })
}
