//! The trait, and the backends that implement it.

use burn::{
    backend::{Autodiff, autodiff::checkpoint::strategy::CheckpointStrategy},
    tensor::{DType, Int, Tensor, backend::Backend},
};

use crate::{
    ScoreMask, SharedPrompt, Visibility, composed, dtype::accumulation_dtype, shared_prompt,
    tracked,
};

/// Weight and bias of a linear layer, `[d_out, d_in]` and `[d_out]`.
pub type LinearLayer<B> = (Tensor<B, 2>, Option<Tensor<B, 1>>);

/// The operations of a frozen decoder layer and its loss.
///
/// Shapes use one vocabulary: `tokens` is `batch · seq` flattened, `d_in` and `d_out` the sizes of
/// a linear layer, `kv_len` the cached plus the new positions. No operation mixes dtypes: the
/// caller casts at the boundary.
pub trait Ops: Backend {
    /// Runs a whole step of many operations on the thread where this backend takes them up fastest: on the
    /// CPU as one of the threads that compute, for CUDA as the one that serves the device. These then wait
    /// for nobody between two operations.
    ///
    /// The step must not wait for other threads itself. On CUDA, no backward pass may run outside of a step
    /// at the same time: in Burn 0.21 each waits for the locks of all others.
    fn run_step<R: Send>(device: &Self::Device, step: impl FnOnce() -> R + Send) -> R {
        let _ = device;
        step()
    }

    /// Bytes of its own memory that the device has set aside for this process, and does not give back
    /// between steps: what it held at its peak. `None` where the device computes in the host's memory.
    fn reserved_memory(device: &Self::Device) -> Option<u64> {
        let _ = device;
        None
    }

    /// `input · weightᵀ (+ bias)` with a weight that never needs a gradient.
    ///
    /// # Shapes
    /// - input: `[tokens, d_in]`
    /// - weight: `[d_out, d_in]`, as a checkpoint stores it
    /// - bias: `[d_out]`
    /// - output: `[tokens, d_out]`
    fn frozen_linear(
        input: Tensor<Self, 2>,
        weight: Tensor<Self, 2>,
        bias: Option<Tensor<Self, 1>>,
    ) -> Tensor<Self, 2> {
        composed::linear(input, weight, bias)
    }

    /// [`frozen_linear`](Self::frozen_linear) of one input by several layers.
    ///
    /// # Shapes
    /// - input: `[tokens, d_in]`
    /// - output: each `[tokens, d_out]`
    fn frozen_linears<const N: usize>(
        input: Tensor<Self, 2>,
        layers: [LinearLayer<Self>; N],
    ) -> [Tensor<Self, 2>; N] {
        layers.map(|(weight, bias)| Self::frozen_linear(input.clone(), weight, bias))
    }

    /// The gradient of [`frozen_linear`](Self::frozen_linear)'s input: `above · weight`.
    ///
    /// # Shapes
    /// - above: `[tokens, d_out]`
    /// - weight: `[d_out, d_in]`
    /// - output: `[tokens, d_in]`
    fn frozen_linear_backward(above: Tensor<Self, 2>, weight: Tensor<Self, 2>) -> Tensor<Self, 2> {
        composed::linear_backward(above, weight)
    }

    /// The gradient of [`frozen_linear`](Self::frozen_linear)'s bias: the sum over the tokens, taken in
    /// f32 at least.
    ///
    /// # Shapes
    /// - above: `[tokens, d_out]`
    /// - output: `[d_out]`
    fn bias_gradient(above: Tensor<Self, 2>) -> Tensor<Self, 1> {
        composed::bias_gradient(above)
    }

    /// Root-mean-square normalisation (Zhang and Sennrich 2019), in f32 whatever the input's type.
    /// Under autodiff the weight is a constant: it gets no gradient.
    ///
    /// # Shapes
    /// - hidden, output: `[tokens, d_model]`
    /// - weight: `[d_model]`
    fn rms_norm(hidden: Tensor<Self, 2>, weight: Tensor<Self, 1>, epsilon: f64) -> Tensor<Self, 2> {
        composed::rms_norm(hidden, weight, epsilon)
    }

    /// The gradient of [`rms_norm`](Self::rms_norm)'s input.
    ///
    /// # Shapes
    /// - hidden, above, output: `[tokens, d_model]`
    /// - weight: `[d_model]`
    fn rms_norm_backward(
        hidden: Tensor<Self, 2>,
        weight: Tensor<Self, 1>,
        epsilon: f64,
        above: Tensor<Self, 2>,
    ) -> Tensor<Self, 2> {
        composed::rms_norm_backward(hidden, weight, epsilon, above)
    }

    /// The logistic function. (Burn's own default goes through a logarithm, and through f32 for
    /// f64 too: it loses a digit in the one and eight in the other.)
    ///
    /// # Shapes
    /// - input, output: `[tokens, d_ff]`
    fn logistic(input: Tensor<Self, 2>) -> Tensor<Self, 2> {
        composed::sigmoid(input)
    }

    /// `silu(gate) · up` (Shazeer 2020), silu in f32. Under autodiff only the two inputs are saved.
    ///
    /// # Shapes
    /// - gate, up, output: `[tokens, d_ff]`
    fn swiglu(gate: Tensor<Self, 2>, up: Tensor<Self, 2>) -> Tensor<Self, 2> {
        composed::swiglu(gate, up)
    }

    /// The gradients of [`swiglu`](Self::swiglu)'s gate and up.
    ///
    /// # Shapes
    /// - all: `[tokens, d_ff]`
    fn swiglu_backward(
        gate: Tensor<Self, 2>,
        up: Tensor<Self, 2>,
        above: Tensor<Self, 2>,
    ) -> [Tensor<Self, 2>; 2] {
        composed::swiglu_backward(gate, up, above)
    }

    /// [`swiglu`](Self::swiglu) and the linear layer behind it, without a bias.
    ///
    /// # Shapes
    /// - gate, up: `[tokens, d_ff]`
    /// - weight: `[d_model, d_ff]`
    /// - output: `[tokens, d_model]`
    fn swiglu_linear(
        gate: Tensor<Self, 2>,
        up: Tensor<Self, 2>,
        weight: Tensor<Self, 2>,
    ) -> Tensor<Self, 2> {
        composed::swiglu_linear(gate, up, weight)
    }

    /// The gradient of the input that gate and up are linear layers of, from that of their
    /// [`swiglu`](Self::swiglu).
    ///
    /// # Shapes
    /// - gate, up, above: `[tokens, d_ff]`
    /// - weights: those of gate and up, `[d_ff, d_model]`
    /// - output: `[tokens, d_model]`
    fn swiglu_linears_backward(
        gate: Tensor<Self, 2>,
        up: Tensor<Self, 2>,
        weights: [Tensor<Self, 2>; 2],
        above: Tensor<Self, 2>,
    ) -> Tensor<Self, 2> {
        composed::swiglu_linears_backward(gate, up, weights, above)
    }

    /// A gated MLP without biases (Shazeer 2020): `swiglu(input · gateᵀ, input · upᵀ) · downᵀ`. Under autodiff gate and up are
    /// saved, and the weights are constants.
    ///
    /// # Shapes
    /// - input, output: `[tokens, d_model]`
    /// - gate, up: `[d_ff, d_model]`
    /// - down: `[d_model, d_ff]`
    fn gated_mlp(
        input: Tensor<Self, 2>,
        [gate, up]: [Tensor<Self, 2>; 2],
        down: Tensor<Self, 2>,
    ) -> Tensor<Self, 2> {
        let [gate, up] = Self::frozen_linears(input, [(gate, None), (up, None)]);
        Self::swiglu_linear(gate, up, down)
    }

    /// Rotary position embedding (Su et al. 2021) in the half-split layout of Qwen2: dimension `i`
    /// turns together with dimension `i + head_dim / 2`.
    ///
    /// # Shapes
    /// - states, output: `[batch, heads, seq, head_dim]`
    /// - cos, sin: `[batch or 1, 1, seq, head_dim / 2]`
    fn rotary(
        states: Tensor<Self, 4>,
        cos: Tensor<Self, 4>,
        sin: Tensor<Self, 4>,
    ) -> Tensor<Self, 4> {
        composed::rotary(states, cos, sin)
    }

    /// The form in which this backend's attention wants to be told what is hidden. Made once a pass; all
    /// layers share it. `dtype` is that of the states.
    fn score_mask(visibility: Visibility, dtype: DType, device: &Self::Device) -> ScoreMask<Self> {
        ScoreMask::to_device(&visibility, accumulation_dtype(dtype), device)
    }

    /// Scaled dot-product attention over grouped heads: query head `h` reads key/value head
    /// `h / (n_heads / n_kv_heads)`. Scores and softmax are f32. Under autodiff the inputs are saved, and
    /// the scores computed again.
    ///
    /// # Shapes
    /// - query, output: `[batch, n_heads, seq, head_dim]`
    /// - key, value: `[batch, n_kv_heads, kv_len, head_dim]`
    fn grouped_attention(
        query: Tensor<Self, 4>,
        key: Tensor<Self, 4>,
        value: Tensor<Self, 4>,
        mask: &ScoreMask<Self>,
    ) -> Tensor<Self, 4> {
        composed::attention(query, key, value, mask)
    }

    /// The gradients of [`grouped_attention`](Self::grouped_attention)'s query, key and value.
    ///
    /// # Shapes
    /// - query, above: `[batch, n_heads, seq, head_dim]`
    /// - key, value: `[batch, n_kv_heads, kv_len, head_dim]`
    fn grouped_attention_backward(
        query: Tensor<Self, 4>,
        key: Tensor<Self, 4>,
        value: Tensor<Self, 4>,
        mask: &ScoreMask<Self>,
        above: Tensor<Self, 4>,
    ) -> [Tensor<Self, 4>; 3] {
        composed::attention_backward(query, key, value, mask, above)
    }

    /// [`grouped_attention`](Self::grouped_attention) of rows that share a prompt and of the prompt itself, whose
    /// tokens stand in one list so that everything else can be done to them at once.
    ///
    /// # Shapes
    /// - query, output: `[1, n_heads, batch · seq + prompt, head_dim]`
    /// - key, value: `[1, n_kv_heads, batch · seq + prompt, head_dim]`
    fn shared_prompt_attention(
        query: Tensor<Self, 4>,
        key: Tensor<Self, 4>,
        value: Tensor<Self, 4>,
        shared: &SharedPrompt<Self>,
    ) -> Tensor<Self, 4> {
        shared_prompt::attention(query, key, value, shared)
    }

    /// Negative log-likelihood of `targets` under a frozen head, one number per token, in f32.
    ///
    /// The logits are made a chunk of tokens at a time, so nothing of size `[tokens, vocab]` is
    /// held. Under autodiff the gradient of `hidden` is computed in the same pass, while a chunk's
    /// probabilities are at hand (the idea of Liger and of Cut Cross-Entropy; it is possible
    /// because the head is frozen).
    ///
    /// # Shapes
    /// - hidden: `[tokens, d_model]`
    /// - weight: `[vocab, d_model]`
    /// - targets: `[tokens]`
    /// - output: `[tokens]`
    fn linear_cross_entropy(
        hidden: Tensor<Self, 2>,
        weight: Tensor<Self, 2>,
        targets: Tensor<Self, 1, Int>,
    ) -> Tensor<Self, 1> {
        composed::cross_entropy(hidden, weight, targets)
    }

    /// What [`linear_cross_entropy`](Self::linear_cross_entropy) computes, and the gradient of each
    /// token's loss with respect to its own hidden state.
    ///
    /// # Shapes
    /// - hidden: `[tokens, d_model]`
    /// - weight: `[vocab, d_model]`
    /// - targets: `[tokens]`
    /// - output: `[tokens]` and `[tokens, d_model]`
    fn linear_cross_entropy_gradient(
        hidden: Tensor<Self, 2>,
        weight: Tensor<Self, 2>,
        targets: Tensor<Self, 1, Int>,
    ) -> (Tensor<Self, 1>, Tensor<Self, 2>) {
        composed::cross_entropy_gradient(hidden, weight, targets)
    }
}

impl Ops for burn_ndarray::NdArray<f32> {}
impl Ops for burn_ndarray::NdArray<f64> {}

impl<B: Ops, C: CheckpointStrategy> Ops for Autodiff<B, C> {
    fn run_step<R: Send>(device: &Self::Device, step: impl FnOnce() -> R + Send) -> R {
        B::run_step(device, step)
    }

    fn reserved_memory(device: &Self::Device) -> Option<u64> {
        B::reserved_memory(device)
    }

    fn frozen_linear(
        input: Tensor<Self, 2>,
        weight: Tensor<Self, 2>,
        bias: Option<Tensor<Self, 1>>,
    ) -> Tensor<Self, 2> {
        let [output] = tracked::linears(input, [(weight, bias)]);
        output
    }

    fn frozen_linears<const N: usize>(
        input: Tensor<Self, 2>,
        layers: [LinearLayer<Self>; N],
    ) -> [Tensor<Self, 2>; N] {
        tracked::linears(input, layers)
    }

    fn rms_norm(hidden: Tensor<Self, 2>, weight: Tensor<Self, 1>, epsilon: f64) -> Tensor<Self, 2> {
        tracked::rms_norm(hidden, weight, epsilon)
    }

    fn swiglu(gate: Tensor<Self, 2>, up: Tensor<Self, 2>) -> Tensor<Self, 2> {
        tracked::swiglu(gate, up)
    }

    fn gated_mlp(
        input: Tensor<Self, 2>,
        weights: [Tensor<Self, 2>; 2],
        down: Tensor<Self, 2>,
    ) -> Tensor<Self, 2> {
        tracked::gated_mlp(input, weights, down)
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
        weight: Tensor<Self, 2>,
        targets: Tensor<Self, 1, Int>,
    ) -> Tensor<Self, 1> {
        tracked::cross_entropy(hidden, weight, targets)
    }
}
