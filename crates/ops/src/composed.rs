//! Every operation in Burn's own terms: the default of each backend, and what a faster version is
//! tested against.

use burn::tensor::{Tensor, backend::Backend, s};

use crate::{Ops, dtype::accumulation_dtype};

pub(crate) fn linear<B: Backend>(
    input: Tensor<B, 2>,
    weight: Tensor<B, 2>,
    bias: Option<Tensor<B, 1>>,
) -> Tensor<B, 2> {
    debug_assert_eq!(input.dtype(), weight.dtype(), "a linear layer mixes dtypes");
    let output = input.matmul(weight.transpose());
    match bias {
        Some(bias) => output + bias.unsqueeze(),
        None => output,
    }
}

pub(crate) fn sigmoid<B: Backend>(input: Tensor<B, 2>) -> Tensor<B, 2> {
    // A large negative input gives exp = ∞ and the right limit, 0. Not for a tracked tensor: there
    // the backward pass would multiply that 0 and ∞.
    let one_more = (-input).exp().add_scalar(1.0);
    // A division, because ndarray's `recip` is right to 12 bits only.
    one_more.ones_like() / one_more
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

pub(crate) fn attention<B: Ops>(
    query: Tensor<B, 4>,
    key: Tensor<B, 4>,
    value: Tensor<B, 4>,
    mask: Option<Tensor<B, 4>>,
) -> Tensor<B, 4> {
    let [batch, n_heads, seq, head_dim] = query.dims();
    let [_, n_kv_heads, kv_len, _] = key.dims();
    let group = n_heads / n_kv_heads;
    let dtype = value.dtype();
    let wide = accumulation_dtype(dtype);
    // Heads that share a key are stacked along the sequence, so no key or value is repeated.
    let query = query
        .cast(wide)
        .mul_scalar((head_dim as f64).powf(-0.5))
        .reshape([batch, n_kv_heads, group * seq, head_dim]);
    let scores = query
        .matmul(key.cast(wide).swap_dims(2, 3))
        .reshape([batch, n_heads, seq, kv_len]);
    let scores = match mask {
        Some(mask) => scores + mask.cast(wide),
        None => scores,
    };
    B::score_softmax(scores)
        .cast(dtype)
        .reshape([batch, n_kv_heads, group * seq, kv_len])
        .matmul(value)
        .reshape([batch, n_heads, seq, head_dim])
}
