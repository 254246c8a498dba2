//! What the model calls: the operations of a frozen decoder, with gradients under autodiff and without them
//! elsewhere.

use burn::{
    backend::{Autodiff, autodiff::checkpoint::strategy::CheckpointStrategy},
    tensor::{DType, Int, Tensor, backend::Backend},
};

use crate::{
    FrozenWeight, Kernels, LinearLayer, ScoreMask, SharedPrompt, Visibility, composed,
    kernels::two, shared_prompt, tracked, weight::HeldWeight,
};

/// The operations of a frozen decoder layer and its loss, as a model calls them.
///
/// A backend has them by implementing [`Kernels`]; `Autodiff` records them as one node of the graph each. Shapes
/// use the vocabulary of [`Kernels`]. No operation mixes dtypes: the caller casts at the boundary.
pub trait Ops: Backend {
    /// The backend that computes: this one, or the one below autodiff.
    type Plain: Kernels<Device = Self::Device>;

    /// Takes a matrix of the frozen base in, in the form that the backend reads fastest.
    ///
    /// # Shapes
    /// - matrix: `[d_out, d_in]`, of the type that the base computes in
    fn freeze(matrix: Tensor<Self, 2>) -> FrozenWeight<Self>;

    /// Rows of an embedding table.
    ///
    /// # Shapes
    /// - table: `[vocab, d_model]`
    /// - indices: `[tokens]`
    /// - output: `[tokens, d_model]`
    fn frozen_embedding(
        table: &FrozenWeight<Self>,
        indices: Tensor<Self, 1, Int>,
    ) -> Tensor<Self, 2>;

    /// `input · weightᵀ (+ bias)` with a weight that never needs a gradient.
    ///
    /// # Shapes
    /// - input: `[tokens, d_in]`
    /// - weight: `[d_out, d_in]`
    /// - bias: `[d_out]`
    /// - output: `[tokens, d_out]`
    fn frozen_linear(
        input: Tensor<Self, 2>,
        weight: &FrozenWeight<Self>,
        bias: Option<Tensor<Self, 1>>,
    ) -> Tensor<Self, 2> {
        let mut outputs = Self::frozen_linears(input, &[(weight.clone(), bias)]);
        outputs.pop().expect("one output a layer")
    }

    /// See [`Kernels::frozen_linears`].
    fn frozen_linears(input: Tensor<Self, 2>, layers: &[LinearLayer<Self>])
    -> Vec<Tensor<Self, 2>>;

    /// See [`Kernels::rms_norm`].
    fn rms_norm(hidden: Tensor<Self, 2>, weight: Tensor<Self, 1>, epsilon: f64) -> Tensor<Self, 2>;

    /// See [`Kernels::swiglu`].
    fn swiglu(gate: Tensor<Self, 2>, up: Tensor<Self, 2>) -> Tensor<Self, 2>;

    /// A gated MLP (Shazeer 2020): `swiglu(input · gateᵀ, input · upᵀ) · downᵀ`. Without biases it is one
    /// node under autodiff, which keeps gate and up.
    ///
    /// # Shapes
    /// - input, output: `[tokens, d_model]`
    /// - layers: gate and up `[d_ff, d_model]`, down `[d_model, d_ff]`
    fn gated_mlp(input: Tensor<Self, 2>, layers: &[LinearLayer<Self>; 3]) -> Tensor<Self, 2>;

    /// See [`Kernels::rotary`].
    fn rotary(
        states: Tensor<Self, 4>,
        cos: Tensor<Self, 4>,
        sin: Tensor<Self, 4>,
    ) -> Tensor<Self, 4>;

    /// See [`Kernels::score_mask`].
    fn score_mask(visibility: Visibility, dtype: DType, device: &Self::Device) -> ScoreMask<Self>;

    /// See [`Kernels::grouped_attention`].
    fn grouped_attention(
        query: Tensor<Self, 4>,
        key: Tensor<Self, 4>,
        value: Tensor<Self, 4>,
        mask: &ScoreMask<Self>,
    ) -> Tensor<Self, 4>;

    /// See [`Kernels::write_cells`].
    fn write_cells(
        held: Tensor<Self, 4>,
        new: Tensor<Self, 4>,
        places: &[[usize; 2]],
    ) -> Tensor<Self, 4> {
        composed::write_cells(held, new, places)
    }

    /// [`grouped_attention`](Self::grouped_attention) of rows that share a prompt, and of the prompt itself.
    /// Their tokens are in one list, so that everything else can be done to them at once.
    ///
    /// # Shapes
    /// - query, output: `[1, n_heads, batch · seq + prompt, head_dim]`
    /// - key, value: `[1, n_kv_heads, batch · seq + prompt, head_dim]`
    fn shared_prompt_attention(
        query: Tensor<Self, 4>,
        key: Tensor<Self, 4>,
        value: Tensor<Self, 4>,
        shared: &SharedPrompt<Self>,
    ) -> Tensor<Self, 4>;

    /// See [`Kernels::linear_cross_entropy`]. Under autodiff the gradient of `hidden` is computed in the same
    /// pass ([`Kernels::linear_cross_entropy_gradient`]).
    fn linear_cross_entropy(
        hidden: Tensor<Self, 2>,
        weight: &FrozenWeight<Self>,
        targets: Tensor<Self, 1, Int>,
    ) -> Tensor<Self, 1>;
}

impl<B: Kernels> Ops for B {
    type Plain = B;

    fn freeze(matrix: Tensor<Self, 2>) -> FrozenWeight<Self> {
        FrozenWeight::new(matrix)
    }

    fn frozen_embedding(
        table: &FrozenWeight<Self>,
        indices: Tensor<Self, 1, Int>,
    ) -> Tensor<Self, 2> {
        table.held().rows(indices)
    }

    fn frozen_linears(
        input: Tensor<Self, 2>,
        layers: &[LinearLayer<Self>],
    ) -> Vec<Tensor<Self, 2>> {
        <B as Kernels>::frozen_linears(input, layers)
    }

    fn rms_norm(hidden: Tensor<Self, 2>, weight: Tensor<Self, 1>, epsilon: f64) -> Tensor<Self, 2> {
        <B as Kernels>::rms_norm(hidden, weight, epsilon)
    }

    fn swiglu(gate: Tensor<Self, 2>, up: Tensor<Self, 2>) -> Tensor<Self, 2> {
        <B as Kernels>::swiglu(gate, up)
    }

    fn gated_mlp(input: Tensor<Self, 2>, layers: &[LinearLayer<Self>; 3]) -> Tensor<Self, 2> {
        let [gate_up @ .., (down, bias)] = layers;
        let [gate, up] = two(<B as Kernels>::frozen_linears(input, gate_up));
        match bias {
            None => <B as Kernels>::swiglu_linear(gate, up, down),
            // Biases may be trained.
            Some(bias) => {
                Self::frozen_linear(<B as Kernels>::swiglu(gate, up), down, Some(bias.clone()))
            }
        }
    }

    fn rotary(
        states: Tensor<Self, 4>,
        cos: Tensor<Self, 4>,
        sin: Tensor<Self, 4>,
    ) -> Tensor<Self, 4> {
        <B as Kernels>::rotary(states, cos, sin)
    }

    fn score_mask(visibility: Visibility, dtype: DType, device: &Self::Device) -> ScoreMask<Self> {
        <B as Kernels>::score_mask(visibility, dtype, device)
    }

    fn grouped_attention(
        query: Tensor<Self, 4>,
        key: Tensor<Self, 4>,
        value: Tensor<Self, 4>,
        mask: &ScoreMask<Self>,
    ) -> Tensor<Self, 4> {
        <B as Kernels>::grouped_attention(query, key, value, mask)
    }

    fn write_cells(
        held: Tensor<Self, 4>,
        new: Tensor<Self, 4>,
        places: &[[usize; 2]],
    ) -> Tensor<Self, 4> {
        <B as Kernels>::write_cells(held, new, places)
    }

    fn shared_prompt_attention(
        query: Tensor<Self, 4>,
        key: Tensor<Self, 4>,
        value: Tensor<Self, 4>,
        shared: &SharedPrompt<Self>,
    ) -> Tensor<Self, 4> {
        shared_prompt::attention(query, key, value, shared)
    }

    fn linear_cross_entropy(
        hidden: Tensor<Self, 2>,
        weight: &FrozenWeight<Self>,
        targets: Tensor<Self, 1, Int>,
    ) -> Tensor<Self, 1> {
        <B as Kernels>::linear_cross_entropy(hidden, weight, targets)
    }
}

impl<B: Kernels, C: CheckpointStrategy> Ops for Autodiff<B, C> {
    type Plain = B;

    fn freeze(matrix: Tensor<Self, 2>) -> FrozenWeight<Self> {
        FrozenWeight::<B>::new(matrix.inner()).tracked()
    }

    fn frozen_embedding(
        table: &FrozenWeight<Self>,
        indices: Tensor<Self, 1, Int>,
    ) -> Tensor<Self, 2> {
        Tensor::from_inner(table.inner().held().rows(indices.inner()))
    }

    fn frozen_linears(
        input: Tensor<Self, 2>,
        layers: &[LinearLayer<Self>],
    ) -> Vec<Tensor<Self, 2>> {
        tracked::linears(input, layers)
    }

    fn rms_norm(hidden: Tensor<Self, 2>, weight: Tensor<Self, 1>, epsilon: f64) -> Tensor<Self, 2> {
        tracked::rms_norm(hidden, weight, epsilon)
    }

    fn swiglu(gate: Tensor<Self, 2>, up: Tensor<Self, 2>) -> Tensor<Self, 2> {
        tracked::swiglu(gate, up)
    }

    fn gated_mlp(input: Tensor<Self, 2>, layers: &[LinearLayer<Self>; 3]) -> Tensor<Self, 2> {
        match layers {
            [(gate, None), (up, None), (down, None)] => tracked::gated_mlp(input, gate, up, down),
            [gate_up @ .., (down, bias)] => {
                let [gate, up] = two(tracked::linears(input, gate_up));
                Self::frozen_linear(tracked::swiglu(gate, up), down, bias.clone())
            }
        }
    }

    fn rotary(
        states: Tensor<Self, 4>,
        cos: Tensor<Self, 4>,
        sin: Tensor<Self, 4>,
    ) -> Tensor<Self, 4> {
        tracked::rotary(states, cos, sin)
    }

    fn score_mask(visibility: Visibility, dtype: DType, device: &Self::Device) -> ScoreMask<Self> {
        ScoreMask::from_inner(B::score_mask(visibility, dtype, device))
    }

    fn grouped_attention(
        query: Tensor<Self, 4>,
        key: Tensor<Self, 4>,
        value: Tensor<Self, 4>,
        mask: &ScoreMask<Self>,
    ) -> Tensor<Self, 4> {
        tracked::attention(query, key, value, mask)
    }

    fn shared_prompt_attention(
        query: Tensor<Self, 4>,
        key: Tensor<Self, 4>,
        value: Tensor<Self, 4>,
        shared: &SharedPrompt<Self>,
    ) -> Tensor<Self, 4> {
        tracked::shared_prompt_attention(query, key, value, shared)
    }

    fn linear_cross_entropy(
        hidden: Tensor<Self, 2>,
        weight: &FrozenWeight<Self>,
        targets: Tensor<Self, 1, Int>,
    ) -> Tensor<Self, 1> {
        tracked::cross_entropy(hidden, weight, targets)
    }
}
