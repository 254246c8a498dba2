//! What a backend supplies: the operations of a frozen decoder, forward and backward.

use burn::tensor::{DType, Int, Tensor, backend::Backend};

use crate::{
    DenseWeight, FrozenWeight, ScoreMask, Visibility, composed, dtype::accumulation_dtype,
    weight::HeldWeight,
};

/// Weight and bias of a linear layer, `[d_out, d_in]` and `[d_out]`.
pub type LinearLayer<B> = (FrozenWeight<B>, Option<Tensor<B, 1>>);

/// The operations of a frozen decoder layer and its loss on one backend, each with its gradient. The model
/// calls [`Ops`](crate::Ops), which is these operations on the backend itself, and records them under autodiff.
///
/// Every operation has a default composed of Burn's own, so a backend joins with a few lines.
/// None is generic: an implementation is compiled in the crate that holds it, optimised as that crate
/// is, and not in the program.
///
/// Shapes use one vocabulary: `tokens` is `batch · seq` flattened, `d_in` and `d_out` the sizes of
/// a linear layer, `kv_len` the cached plus the new positions. No operation mixes dtypes: the
/// caller casts at the boundary.
pub trait Kernels: Backend {
    /// How this backend holds a matrix of the frozen base: as a tensor ([`DenseWeight`]), or in a form that its
    /// products read faster, or that takes less memory.
    type Weight: HeldWeight<Self>;

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

    /// `input · weightᵀ (+ bias)` of one input by several layers, whose weights never need a gradient.
    ///
    /// # Shapes
    /// - input: `[tokens, d_in]`
    /// - layers: weights `[d_out, d_in]`, as a checkpoint stores them, and biases `[d_out]`
    /// - output: each `[tokens, d_out]`
    fn frozen_linears(
        input: Tensor<Self, 2>,
        layers: &[LinearLayer<Self>],
    ) -> Vec<Tensor<Self, 2>> {
        let linear = |(weight, bias): &LinearLayer<Self>| {
            composed::linear(input.clone(), weight, bias.clone())
        };
        layers.iter().map(linear).collect()
    }

    /// The gradient of [`frozen_linears`](Self::frozen_linears)' input: `above · weight`.
    ///
    /// # Shapes
    /// - above: `[tokens, d_out]`
    /// - weight: `[d_out, d_in]`
    /// - output: `[tokens, d_in]`
    fn frozen_linear_backward(
        above: Tensor<Self, 2>,
        weight: &FrozenWeight<Self>,
    ) -> Tensor<Self, 2> {
        composed::linear_backward(above, weight)
    }

    /// The gradient of [`frozen_linears`](Self::frozen_linears)' bias: the sum over the tokens, taken in
    /// f32 at least.
    ///
    /// # Shapes
    /// - above: `[tokens, d_out]`
    /// - output: `[d_out]`
    fn bias_gradient(above: Tensor<Self, 2>) -> Tensor<Self, 1> {
        composed::bias_gradient(above)
    }

    /// Root-mean-square normalisation (Zhang and Sennrich 2019), in f32 whatever the input's type.
    /// The weight is a constant: it gets no gradient.
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

    /// `silu(gate) · up` (Shazeer 2020), silu in f32. For its gradient only the two inputs are needed.
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
        weight: &FrozenWeight<Self>,
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
        weights: [&FrozenWeight<Self>; 2],
        above: Tensor<Self, 2>,
    ) -> Tensor<Self, 2> {
        composed::swiglu_linears_backward(gate, up, weights, above)
    }

    /// Rotary position embedding (Su et al. 2021) in the half-split layout of Llama and Qwen: dimension `i`
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
    /// `h / (n_heads / n_kv_heads)`. Scores and softmax are f32. The gradient
    /// needs the inputs only, and computes the scores again.
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

    /// Writes the states of tokens into cells of a cache: in place, if nothing else holds it. (Burn's own assignment to a
    /// slice copies the whole tensor on flex.) Not tracked.
    ///
    /// # Shapes
    /// - held, output: `[rows, heads, cells, head_dim]`
    /// - new: `[1, heads, tokens, head_dim]`, of the same type
    /// - places: row and cell of each token
    fn write_cells(
        held: Tensor<Self, 4>,
        new: Tensor<Self, 4>,
        places: &[[usize; 2]],
    ) -> Tensor<Self, 4> {
        composed::write_cells(held, new, places)
    }

    /// Negative log-likelihood of `targets` under a frozen head, one number per token, in f32.
    ///
    /// The logits are made a chunk of tokens at a time, so nothing of size `[tokens, vocab]` is
    /// held.
    ///
    /// # Shapes
    /// - hidden: `[tokens, d_model]`
    /// - weight: `[vocab, d_model]`
    /// - targets: `[tokens]`
    /// - output: `[tokens]`
    fn linear_cross_entropy(
        hidden: Tensor<Self, 2>,
        weight: &FrozenWeight<Self>,
        targets: Tensor<Self, 1, Int>,
    ) -> Tensor<Self, 1> {
        composed::cross_entropy(hidden, weight, targets)
    }

    /// What [`linear_cross_entropy`](Self::linear_cross_entropy) computes, and the gradient of each
    /// token's loss with respect to its own hidden state, computed in the same pass, while a chunk's
    /// probabilities are at hand (the idea of Liger and of Cut Cross-Entropy; it is possible because the
    /// head is frozen).
    ///
    /// # Shapes
    /// - hidden: `[tokens, d_model]`
    /// - weight: `[vocab, d_model]`
    /// - targets: `[tokens]`
    /// - output: `[tokens]` and `[tokens, d_model]`
    fn linear_cross_entropy_gradient(
        hidden: Tensor<Self, 2>,
        weight: &FrozenWeight<Self>,
        targets: Tensor<Self, 1, Int>,
    ) -> (Tensor<Self, 1>, Tensor<Self, 2>) {
        composed::cross_entropy_gradient(hidden, weight, targets)
    }
}

impl Kernels for burn_ndarray::NdArray<f32> {
    type Weight = DenseWeight<Self>;
}

impl Kernels for burn_ndarray::NdArray<f64> {
    type Weight = DenseWeight<Self>;
}

/// The outputs of two layers.
pub(crate) fn two<T>(outputs: Vec<T>) -> [T; 2] {
    let Ok(outputs) = outputs.try_into() else {
        panic!("one output a layer");
    };
    outputs
}

#[cfg(test)]
mod tests {
    /// A generic function is compiled in the crate that calls it: in the program, which is hardly optimised.
    /// That made products scalar once, and no other test noticed.
    #[test]
    fn no_kernel_is_generic() {
        let trait_text = include_str!("kernels.rs").split("#[cfg(test)]").next();
        let functions = trait_text.unwrap_or_default().lines().filter_map(|line| {
            let (name, _) = line.trim().strip_prefix("fn ")?.split_once('(')?;
            Some(name)
        });
        let (generic, plain): (Vec<_>, Vec<_>) = functions.partition(|name| name.contains('<'));
        assert_eq!(generic, ["run_step<R: Send>"]);
        assert!(plain.len() > 10, "{plain:?}");
        // An argument of type `impl …` makes a function generic too.
        let arguments = trait_text.unwrap_or_default().matches(": impl ").count();
        assert_eq!(arguments, 1, "the step of `run_step`");
    }
}
