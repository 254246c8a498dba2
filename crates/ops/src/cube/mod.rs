//! The operations on GPUs: kernels in CubeCL, which compiles them for CUDA, Vulkan and Metal, where Burn's
//! own operations would read and write memory several times; products through the vendor's library where
//! there is one.

mod attention;
#[cfg(feature = "cuda")]
mod blas;
mod cross_entropy;
mod launch;
mod product;
mod reduce;
mod rms_norm;
mod rotary;
mod runtime;
mod swiglu;

use burn::tensor::{DType, Int, Tensor, TensorPrimitive, backend::Backend, ops::FloatTensor, s};
use burn_cubecl::{BoolElement, CubeBackend};

use self::{
    attention::Places,
    product::{product, transposed},
    runtime::GpuRuntime,
};
use crate::{
    DenseWeight, FrozenWeight, Kernels, LinearLayer, ScoreMask, Visibility, mask::DevicePlaces,
};

/// Logits held at a time: 2^27 numbers, 512 MiB in f32.
const LOGITS_AT_ONCE: usize = 1 << 27;

/// Scores held at a time: 2^28 numbers, 1 GiB in f32.
const SCORES_AT_ONCE: usize = 1 << 28;

fn primitive<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> FloatTensor<B> {
    tensor.into_primitive().tensor()
}

fn tensor<B: Backend, const D: usize>(primitive: FloatTensor<B>) -> Tensor<B, D> {
    Tensor::from_primitive(TensorPrimitive::Float(primitive))
}

/// `start..end` of `len` things, as many at a time as keep within `most` numbers of `each`.
fn chunks(len: usize, each: usize, most: usize) -> impl Iterator<Item = (usize, usize)> {
    let size = (most / each).max(1);
    (0..len)
        .step_by(size)
        .map(move |start| (start, (start + size).min(len)))
}

/// Rows `start..end` of a batch.
fn rows<B: Backend>(states: &Tensor<B, 4>, start: usize, end: usize) -> Tensor<B, 4> {
    if (start, end) == (0, states.dims()[0]) {
        return states.clone();
    }
    states.clone().slice(s![start..end])
}

/// What is put together again along the first dimension.
fn joined<B: Backend, const D: usize>(mut parts: Vec<Tensor<B, D>>) -> Tensor<B, D> {
    match parts.len() {
        1 => parts.remove(0),
        _ => Tensor::cat(parts, 0),
    }
}

fn places<R: GpuRuntime, BT: BoolElement>(
    places: &DevicePlaces<CubeBackend<R, f32, i32, BT>>,
    start: usize,
    end: usize,
) -> Places<R> {
    let rows = |places: &Tensor<CubeBackend<R, f32, i32, BT>, 2, Int>| {
        let all = places.dims()[0];
        match all == 1 || (start, end) == (0, all) {
            true => places.clone(),
            false => places.clone().slice(s![start..end]),
        }
        .into_primitive()
    };
    Places {
        queries: rows(&places.queries),
        keys: rows(&places.keys),
    }
}

impl<R: GpuRuntime, BT: BoolElement> Kernels for CubeBackend<R, f32, i32, BT> {
    type Weight = DenseWeight<Self>;

    fn run_step<T: Send>(device: &Self::Device, step: impl FnOnce() -> T + Send) -> T {
        R::run_step(device, step)
    }

    fn reserved_memory(device: &Self::Device) -> Option<u64> {
        let usage = R::client(device).memory_usage().ok()?;
        Some(usage.bytes_reserved)
    }

    fn frozen_linears(
        input: Tensor<Self, 2>,
        layers: &[LinearLayer<Self>],
    ) -> Vec<Tensor<Self, 2>> {
        let input = primitive(input);
        let linear = |(weight, bias): &LinearLayer<Self>| {
            let (dtype, weight) = (weight.dtype(), transposed(&primitive(weight.dense())));
            let bias = bias.clone().map(primitive);
            tensor(product(&input, &weight, bias.as_ref(), dtype))
        };
        layers.iter().map(linear).collect()
    }

    fn frozen_linear_backward(
        above: Tensor<Self, 2>,
        weight: &FrozenWeight<Self>,
    ) -> Tensor<Self, 2> {
        let (dtype, weight) = (weight.dtype(), primitive(weight.dense()));
        tensor(product(&primitive(above), &weight, None, dtype))
    }

    fn bias_gradient(above: Tensor<Self, 2>) -> Tensor<Self, 1> {
        // Burn's kernel for the sum of a column takes many times as long as this product.
        let ([tokens, _], dtype) = (above.dims(), above.dtype());
        let ones = Tensor::<Self, 2>::ones([1, tokens], (&above.device(), dtype));
        let sum = product(&primitive(ones), &primitive(above), None, DType::F32);
        tensor::<Self, 2>(sum).cast(dtype).squeeze_dim(0)
    }

    fn rms_norm(hidden: Tensor<Self, 2>, weight: Tensor<Self, 1>, epsilon: f64) -> Tensor<Self, 2> {
        tensor(rms_norm::rms_norm(
            primitive(hidden),
            primitive(weight),
            epsilon,
        ))
    }

    fn rms_norm_backward(
        hidden: Tensor<Self, 2>,
        weight: Tensor<Self, 1>,
        epsilon: f64,
        above: Tensor<Self, 2>,
    ) -> Tensor<Self, 2> {
        tensor(rms_norm::rms_norm_backward(
            primitive(hidden),
            primitive(weight),
            epsilon,
            primitive(above),
        ))
    }

    fn swiglu(gate: Tensor<Self, 2>, up: Tensor<Self, 2>) -> Tensor<Self, 2> {
        tensor(swiglu::swiglu(primitive(gate), primitive(up)))
    }

    fn swiglu_backward(
        gate: Tensor<Self, 2>,
        up: Tensor<Self, 2>,
        above: Tensor<Self, 2>,
    ) -> [Tensor<Self, 2>; 2] {
        swiglu::swiglu_backward(primitive(gate), primitive(up), primitive(above)).map(tensor)
    }

    fn rotary(
        states: Tensor<Self, 4>,
        cos: Tensor<Self, 4>,
        sin: Tensor<Self, 4>,
    ) -> Tensor<Self, 4> {
        tensor(rotary::rotary(
            primitive(states),
            primitive(cos),
            primitive(sin),
        ))
    }

    fn score_mask(visibility: Visibility, _: DType, device: &Self::Device) -> ScoreMask<Self> {
        ScoreMask::places_on_device(&visibility, device)
    }

    fn grouped_attention(
        query: Tensor<Self, 4>,
        key: Tensor<Self, 4>,
        value: Tensor<Self, 4>,
        mask: &ScoreMask<Self>,
    ) -> Tensor<Self, 4> {
        let mask = mask.device_places();
        let [batch, heads, seq, _] = query.dims();
        let each = heads * seq * key.dims()[2];
        let parts = chunks(batch, each, SCORES_AT_ONCE).map(|(start, end)| {
            let [query, key, value] =
                [&query, &key, &value].map(|states| primitive(rows(states, start, end)));
            let places = places(mask, start, end);
            tensor(attention::attention(query, key, value, &places))
        });
        joined(parts.collect())
    }

    fn grouped_attention_backward(
        query: Tensor<Self, 4>,
        key: Tensor<Self, 4>,
        value: Tensor<Self, 4>,
        mask: &ScoreMask<Self>,
        above: Tensor<Self, 4>,
    ) -> [Tensor<Self, 4>; 3] {
        let mask = mask.device_places();
        let [batch, heads, seq, _] = query.dims();
        let each = heads * seq * key.dims()[2];
        let mut gradients = [const { Vec::new() }; 3];
        for (start, end) in chunks(batch, each, SCORES_AT_ONCE) {
            let [query, key, value, above] =
                [&query, &key, &value, &above].map(|states| primitive(rows(states, start, end)));
            let places = places(mask, start, end);
            let parts = attention::attention_backward(query, key, value, &places, above);
            for (gradient, part) in gradients.iter_mut().zip(parts) {
                gradient.push(tensor(part));
            }
        }
        gradients.map(joined)
    }

    fn linear_cross_entropy(
        hidden: Tensor<Self, 2>,
        weight: &FrozenWeight<Self>,
        targets: Tensor<Self, 1, Int>,
    ) -> Tensor<Self, 1> {
        let [vocab, _] = weight.dims();
        let weight = transposed(&primitive(weight.dense()));
        let losses = chunks(targets.dims()[0], vocab, LOGITS_AT_ONCE).map(|(start, end)| {
            let hidden = primitive(hidden.clone().slice(s![start..end]));
            let targets = targets.clone().slice(s![start..end]).into_primitive();
            let logits = product(&hidden, &weight, None, DType::F32);
            tensor(cross_entropy::cross_entropy(logits, targets, None).0)
        });
        joined(losses.collect())
    }

    fn linear_cross_entropy_gradient(
        hidden: Tensor<Self, 2>,
        weight: &FrozenWeight<Self>,
        targets: Tensor<Self, 1, Int>,
    ) -> (Tensor<Self, 1>, Tensor<Self, 2>) {
        let ([vocab, _], dtype) = (weight.dims(), weight.dtype());
        let weight = primitive(weight.dense());
        let parts = chunks(targets.dims()[0], vocab, LOGITS_AT_ONCE).map(|(start, end)| {
            let hidden = primitive(hidden.clone().slice(s![start..end]));
            let targets = targets.clone().slice(s![start..end]).into_primitive();
            let logits = product(&hidden, &transposed(&weight), None, DType::F32);
            let (losses, gradients) = cross_entropy::cross_entropy(logits, targets, Some(dtype));
            let gradients = gradients.expect("they were asked for");
            let gradients = product(&gradients, &weight, None, dtype);
            (tensor(losses), tensor(gradients))
        });
        let (losses, gradients) = parts.unzip();
        (joined(losses), joined(gradients))
    }
}
