//! Every operation and its backward pass in Burn's own terms: the default of each backend, and what a
//! faster version is tested against.

use burn::tensor::{Int, Tensor, activation, backend::Backend, s};

use crate::{FrozenWeight, HeldWeight, Kernels, ScoreMask, dtype::accumulation_dtype};

pub(crate) fn linear<B: Kernels>(
    input: Tensor<B, 2>,
    weight: &FrozenWeight<B>,
    bias: Option<Tensor<B, 1>>,
) -> Tensor<B, 2> {
    debug_assert_eq!(input.dtype(), weight.dtype(), "a linear layer mixes dtypes");
    let output = input.matmul(weight.dense().transpose());
    match bias {
        Some(bias) => output + bias.unsqueeze(),
        None => output,
    }
}

pub(crate) fn linear_backward<B: Kernels>(
    above: Tensor<B, 2>,
    weight: &FrozenWeight<B>,
) -> Tensor<B, 2> {
    above.matmul(weight.dense())
}

pub(crate) fn bias_gradient<B: Backend>(above: Tensor<B, 2>) -> Tensor<B, 1> {
    let dtype = above.dtype();
    let sum = above.cast(accumulation_dtype(dtype)).sum_dim(0);
    sum.cast(dtype).squeeze_dim(0)
}

pub(crate) fn rms_norm<B: Backend>(
    hidden: Tensor<B, 2>,
    weight: Tensor<B, 1>,
    epsilon: f64,
) -> Tensor<B, 2> {
    let dtype = hidden.dtype();
    let (normed, _) = normalise(hidden, epsilon);
    normed.cast(dtype) * weight.unsqueeze()
}

pub(crate) fn rms_norm_backward<B: Backend>(
    hidden: Tensor<B, 2>,
    weight: Tensor<B, 1>,
    epsilon: f64,
    above: Tensor<B, 2>,
) -> Tensor<B, 2> {
    let dtype = hidden.dtype();
    let (normed, root) = normalise(hidden, epsilon);
    let above = (above * weight.unsqueeze()).cast(normed.dtype());
    // n = x / r and r² = mean(x²) + ε, so dx = (a − n · mean(a · n)) / r.
    let along = (above.clone() * normed.clone()).mean_dim(1);
    ((above - normed * along) / root).cast(dtype)
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

pub(crate) fn sigmoid<B: Backend>(input: Tensor<B, 2>) -> Tensor<B, 2> {
    // A large negative input gives exp = ∞ and the right limit, 0. Not for a tracked tensor: there
    // the backward pass would multiply that 0 and ∞.
    let one_more = (-input).exp().add_scalar(1.0);
    // A division, because ndarray's `recip` is right to 12 bits only.
    one_more.ones_like() / one_more
}

pub(crate) fn swiglu<B: Kernels>(gate: Tensor<B, 2>, up: Tensor<B, 2>) -> Tensor<B, 2> {
    let dtype = gate.dtype();
    let gate = gate.cast(accumulation_dtype(dtype));
    (B::logistic(gate.clone()) * gate).cast(dtype) * up
}

pub(crate) fn swiglu_backward<B: Kernels>(
    gate: Tensor<B, 2>,
    up: Tensor<B, 2>,
    above: Tensor<B, 2>,
) -> [Tensor<B, 2>; 2] {
    let dtype = gate.dtype();
    let gate = gate.cast(accumulation_dtype(dtype));
    let sigmoid = B::logistic(gate.clone());
    let silu = sigmoid.clone() * gate;
    // silu′ = σ · (1 + gate · (1 − σ)) = σ + silu · (1 − σ)
    let slope = sigmoid.clone() + silu.clone() * (-sigmoid + 1.0);
    [
        slope.cast(dtype) * up * above.clone(),
        silu.cast(dtype) * above,
    ]
}

pub(crate) fn swiglu_linear<B: Kernels>(
    gate: Tensor<B, 2>,
    up: Tensor<B, 2>,
    weight: &FrozenWeight<B>,
) -> Tensor<B, 2> {
    one(<B as Kernels>::frozen_linears(
        <B as Kernels>::swiglu(gate, up),
        &[(weight.clone(), None)],
    ))
}

pub(crate) fn swiglu_linears_backward<B: Kernels>(
    gate: Tensor<B, 2>,
    up: Tensor<B, 2>,
    weights: [&FrozenWeight<B>; 2],
    above: Tensor<B, 2>,
) -> Tensor<B, 2> {
    let [of_gate, of_up] = B::swiglu_backward(gate, up, above);
    let [gate, up] = weights;
    B::frozen_linear_backward(of_gate, gate) + B::frozen_linear_backward(of_up, up)
}

pub(crate) fn rotary<B: Backend>(
    states: Tensor<B, 4>,
    cos: Tensor<B, 4>,
    sin: Tensor<B, 4>,
) -> Tensor<B, 4> {
    let half = states.dims()[3] / 2;
    let first = states.clone().slice(s![.., .., .., ..half]);
    let second = states.slice(s![.., .., .., half..]);
    Tensor::cat(
        vec![
            first.clone() * cos.clone() - second.clone() * sin.clone(),
            second * cos + first * sin,
        ],
        3,
    )
}

/// Queries that share a key, stacked along the sequence, so that no key or value is repeated:
/// `[batch, n_kv_heads, group · seq, head_dim]`.
fn stack_group<B: Backend>(states: Tensor<B, 4>, n_kv_heads: usize) -> Tensor<B, 4> {
    let [batch, n_heads, seq, head_dim] = states.dims();
    states.reshape([batch, n_kv_heads, n_heads / n_kv_heads * seq, head_dim])
}

/// Softmax of the scaled and masked scores, `[batch, n_kv_heads, group · seq, kv_len]`, in f32 at least.
fn probabilities<B: Backend>(
    query: Tensor<B, 4>,
    key: Tensor<B, 4>,
    mask: &ScoreMask<B>,
) -> Tensor<B, 4> {
    let [batch, n_heads, seq, head_dim] = query.dims();
    let [_, n_kv_heads, kv_len, _] = key.dims();
    let wide = accumulation_dtype(key.dtype());
    let query = query.cast(wide).mul_scalar((head_dim as f64).powf(-0.5));
    let scores = stack_group(query, n_kv_heads)
        .matmul(key.cast(wide).swap_dims(2, 3))
        .reshape([batch, n_heads, seq, kv_len]);
    let scores = match mask.additive(wide, &scores.device()) {
        Some(mask) => scores + mask,
        None => scores,
    };
    stack_group(activation::softmax(scores, 3), n_kv_heads)
}

/// See [`Kernels::write_cells`].
pub(crate) fn write_cells<B: Backend>(
    mut held: Tensor<B, 4>,
    new: Tensor<B, 4>,
    places: &[[usize; 2]],
) -> Tensor<B, 4> {
    let mut first = 0;
    // Tokens of a row whose cells follow each other are written at once.
    let follows = |[a, b]: [[usize; 2]; 2]| a[0] == b[0] && a[1] + 1 == b[1];
    for end in 1..=places.len() {
        if end < places.len() && follows([places[end - 1], places[end]]) {
            continue;
        }
        let ([row, cell], tokens) = (places[first], end - first);
        let part = new.clone().slice(s![.., .., first..end, ..]);
        held = held.slice_assign(s![row..row + 1, .., cell..cell + tokens, ..], part);
        first = end;
    }
    held
}

pub(crate) fn attention<B: Backend>(
    query: Tensor<B, 4>,
    key: Tensor<B, 4>,
    value: Tensor<B, 4>,
    mask: &ScoreMask<B>,
) -> Tensor<B, 4> {
    let shape = query.dims();
    probabilities(query, key, mask)
        .cast(value.dtype())
        .matmul(value)
        .reshape(shape)
}

pub(crate) fn attention_backward<B: Backend>(
    query: Tensor<B, 4>,
    key: Tensor<B, 4>,
    value: Tensor<B, 4>,
    mask: &ScoreMask<B>,
    above: Tensor<B, 4>,
) -> [Tensor<B, 4>; 3] {
    let shape = query.dims();
    let (dtype, n_kv_heads) = (key.dtype(), key.dims()[1]);
    let wide = accumulation_dtype(dtype);
    let [query, key, value, above] = [query, key, value, above].map(|states| states.cast(wide));
    let probabilities = probabilities(query.clone(), key.clone(), mask);
    let above = stack_group(above, n_kv_heads);
    let value_gradient = probabilities.clone().swap_dims(2, 3).matmul(above.clone());
    let above = above.matmul(value.swap_dims(2, 3));
    // p = softmax(s), so ds = p · (dp − Σ p · dp).
    let along = (above.clone() * probabilities.clone()).sum_dim(3);
    let scores = ((above - along) * probabilities).mul_scalar((shape[3] as f64).powf(-0.5));
    let query_gradient = scores.clone().matmul(key).reshape(shape);
    let query = stack_group(query, n_kv_heads);
    let key_gradient = scores.swap_dims(2, 3).matmul(query);
    [query_gradient, key_gradient, value_gradient].map(|gradient| gradient.cast(dtype))
}

/// The output of one layer.
fn one<T>(mut outputs: Vec<T>) -> T {
    outputs.pop().expect("one output a layer")
}

/// Logits held at a time: 2^25 numbers, 128 MiB in f32.
const LOGITS_PER_CHUNK: usize = 1 << 25;

pub(crate) fn cross_entropy<B: Kernels>(
    hidden: Tensor<B, 2>,
    weight: &FrozenWeight<B>,
    targets: Tensor<B, 1, Int>,
) -> Tensor<B, 1> {
    let losses = chunks(&hidden, weight)
        .map(|(start, end)| {
            let hidden = hidden.clone().slice(s![start..end]);
            let targets = targets.clone().slice(s![start..end]);
            Softmax::of(hidden, weight).nll(targets)
        })
        .collect();
    Tensor::cat(losses, 0)
}

pub(crate) fn cross_entropy_gradient<B: Kernels>(
    hidden: Tensor<B, 2>,
    weight: &FrozenWeight<B>,
    targets: Tensor<B, 1, Int>,
) -> (Tensor<B, 1>, Tensor<B, 2>) {
    let (losses, gradients) = chunks(&hidden, weight)
        .map(|(start, end)| {
            let hidden = hidden.clone().slice(s![start..end]);
            let targets = targets.clone().slice(s![start..end]);
            let softmax = Softmax::of(hidden, weight);
            let nll = softmax.nll(targets.clone());
            // (softmax − onehot) · W, where onehot · W is a row of W.
            let expected = softmax
                .probabilities()
                .cast(weight.dtype())
                .matmul(weight.dense());
            (nll, expected - weight.held().rows(targets))
        })
        .unzip();
    (Tensor::cat(losses, 0), Tensor::cat(gradients, 0))
}

/// The chunks `start..end` of the tokens of `hidden`.
fn chunks<B: Backend>(
    hidden: &Tensor<B, 2>,
    weight: &FrozenWeight<B>,
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

impl<B: Kernels> Softmax<B> {
    fn of(hidden: Tensor<B, 2>, weight: &FrozenWeight<B>) -> Self {
        let wide = accumulation_dtype(hidden.dtype());
        let logits = one(<B as Kernels>::frozen_linears(
            hidden,
            &[(weight.clone(), None)],
        ))
        .cast(wide);
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
