//! The trait, and the backends that implement it.

use burn::{
    backend::{Autodiff, autodiff::checkpoint::strategy::CheckpointStrategy},
    tensor::{Int, Tensor, backend::Backend},
};

use crate::{composed, cross_entropy, rms_norm, softmax, swiglu};

/// The operations of a frozen decoder layer and its loss.
///
/// Shapes use one vocabulary: `tokens` is `batch · seq` flattened, `d_in` and `d_out` the sizes of
/// a linear layer, `kv_len` the cached plus the new positions. No operation mixes dtypes: the
/// caller casts at the boundary.
pub trait Ops: Backend {
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

    /// Root-mean-square normalisation (Zhang and Sennrich 2019), in f32 whatever the input's type.
    /// Under autodiff the weight is a constant: it gets no gradient.
    ///
    /// # Shapes
    /// - hidden, output: `[tokens, d_model]`
    /// - weight: `[d_model]`
    fn rms_norm(hidden: Tensor<Self, 2>, weight: Tensor<Self, 1>, epsilon: f64) -> Tensor<Self, 2> {
        rms_norm::forward(hidden, weight, epsilon)
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
        swiglu::forward(gate, up)
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

    /// Scaled dot-product attention over grouped heads: query head `h` reads key/value head
    /// `h / (n_heads / n_kv_heads)`. Scores and softmax are f32.
    ///
    /// # Shapes
    /// - query, output: `[batch, n_heads, seq, head_dim]`
    /// - key, value: `[batch, n_kv_heads, kv_len, head_dim]`
    /// - mask: `[batch or 1, 1, seq, kv_len]`, f32, added to the scores
    fn grouped_attention(
        query: Tensor<Self, 4>,
        key: Tensor<Self, 4>,
        value: Tensor<Self, 4>,
        mask: Option<Tensor<Self, 4>>,
    ) -> Tensor<Self, 4> {
        composed::attention(query, key, value, mask)
    }

    /// Softmax over the keys. Under autodiff only the probabilities are saved.
    ///
    /// # Shapes
    /// - scores, output: `[batch, n_heads, seq, kv_len]`
    fn score_softmax(scores: Tensor<Self, 4>) -> Tensor<Self, 4> {
        softmax::forward(scores)
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
        cross_entropy::forward(hidden, weight, targets)
    }
}

impl Ops for burn_flex::Flex {
    fn logistic(input: Tensor<Self, 2>) -> Tensor<Self, 2> {
        // One pass, and exact: flex has a function of its own.
        burn::tensor::activation::sigmoid(input)
    }
}
impl Ops for burn_ndarray::NdArray<f32> {}
impl Ops for burn_ndarray::NdArray<f64> {}
#[cfg(feature = "wgpu")]
impl Ops for burn_wgpu::Wgpu<f32, i32, u32> {}
#[cfg(feature = "wgpu")]
impl Ops for burn_wgpu::Wgpu<f32, i32, u8> {}
#[cfg(feature = "cuda")]
impl Ops for burn_cuda::Cuda<f32, i32> {}

impl<B: Ops, C: CheckpointStrategy> Ops for Autodiff<B, C> {
    fn rms_norm(hidden: Tensor<Self, 2>, weight: Tensor<Self, 1>, epsilon: f64) -> Tensor<Self, 2> {
        rms_norm::tracked(hidden, weight, epsilon)
    }

    fn score_softmax(scores: Tensor<Self, 4>) -> Tensor<Self, 4> {
        softmax::tracked(scores)
    }

    fn swiglu(gate: Tensor<Self, 2>, up: Tensor<Self, 2>) -> Tensor<Self, 2> {
        swiglu::tracked(gate, up)
    }

    fn linear_cross_entropy(
        hidden: Tensor<Self, 2>,
        weight: Tensor<Self, 2>,
        targets: Tensor<Self, 1, Int>,
    ) -> Tensor<Self, 1> {
        cross_entropy::tracked(hidden, weight, targets)
    }
}
