//! What each operation of a decoder costs on the CPU: the shapes are those of a training step of Qwen2.5-0.5B
//! with four rows of 256 tokens, and of a token in decoding.
//!
//!     cargo bench --bench operations                 all, in f32 and bf16
//!     cargo bench --bench operations -- linear/f32    some
//!
//! Throughput is in floating-point operations for the products and in elements for the rest.

use std::{hint::black_box, time::Duration};

use burn::tensor::{DType, Distribution, Int, Tensor, TensorData};
use burn_flex::Flex;
use burn_peft_ops::{FrozenWeight, Kernels, Visibility};
use criterion::{
    BatchSize, BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main,
    measurement::WallTime,
};

const ROWS: usize = 4;
const SEQ: usize = 256;
const TOKENS: usize = ROWS * SEQ;
const SUPERVISED: usize = 64;
const D_MODEL: usize = 896;
const D_FF: usize = 4864;
const D_KV: usize = 128;
const VOCAB: usize = 151_936;
const HEADS: usize = 14;
const KV_HEADS: usize = 2;
const HEAD_DIM: usize = 64;

const DTYPES: [DType; 2] = [DType::F32, DType::BF16];

fn random<const D: usize>(shape: [usize; D], dtype: DType) -> Tensor<Flex, D> {
    let spread = Distribution::Normal(0.0, 1.0);
    Tensor::<Flex, D>::random(shape, spread, &Default::default()).cast(dtype)
}

fn group<'a>(criterion: &'a mut Criterion, operation: &str) -> BenchmarkGroup<'a, WallTime> {
    let mut group = criterion.benchmark_group(operation);
    group.sample_size(10);
    group.warm_up_time(Duration::from_millis(500));
    group.measurement_time(Duration::from_secs(2));
    group
}

fn linear(criterion: &mut Criterion) {
    let layers = [
        ("q_proj", D_MODEL, D_MODEL),
        ("k_proj", D_MODEL, D_KV),
        ("gate_proj", D_MODEL, D_FF),
        ("down_proj", D_FF, D_MODEL),
    ];
    for dtype in DTYPES {
        let mut group = group(criterion, "linear");
        for (layer, d_in, d_out) in layers {
            let weight = FrozenWeight::new(random([d_out, d_in], dtype));
            let layers = [(weight.clone(), None)];
            let (input, above) = (
                random([TOKENS, d_in], dtype),
                random([TOKENS, d_out], dtype),
            );
            let token = random([1, d_in], dtype);
            let products = 2 * d_in * d_out;
            let name = dtype.name();
            group.throughput(Throughput::Elements((TOKENS * products) as u64));
            group.bench_function(format!("{name}/{layer}/forward"), |bencher| {
                bencher.iter(|| Flex::frozen_linears(input.clone(), &layers));
            });
            group.bench_function(format!("{name}/{layer}/backward"), |bencher| {
                bencher.iter(|| Flex::frozen_linear_backward(above.clone(), &weight));
            });
            group.throughput(Throughput::Elements(products as u64));
            group.bench_function(format!("{name}/{layer}/one token"), |bencher| {
                bencher.iter(|| Flex::frozen_linears(token.clone(), &layers));
            });
        }
    }
}

fn cross_entropy(criterion: &mut Criterion) {
    for dtype in DTYPES {
        let tokens = ROWS * SUPERVISED;
        let (hidden, head) = (
            random([tokens, D_MODEL], dtype),
            FrozenWeight::new(random([VOCAB, D_MODEL], dtype)),
        );
        let targets: Vec<i64> = (0..tokens as i64).map(|token| token * 577).collect();
        let targets = TensorData::new(targets, [tokens]);
        let targets = Tensor::<Flex, 1, Int>::from_data(targets, &Default::default());
        let mut group = group(criterion, "cross_entropy");
        group.throughput(Throughput::Elements((4 * tokens * D_MODEL * VOCAB) as u64));
        group.bench_function(format!("{}/with its gradient", dtype.name()), |bencher| {
            bencher.iter(|| {
                Flex::linear_cross_entropy_gradient(hidden.clone(), &head, targets.clone())
            });
        });
    }
}

fn attention(criterion: &mut Criterion) {
    for dtype in DTYPES {
        let heads = |heads| random([ROWS, SEQ, heads, HEAD_DIM], dtype).swap_dims(1, 2);
        let (query, key, value, above) =
            (heads(HEADS), heads(KV_HEADS), heads(KV_HEADS), heads(HEADS));
        let places = (0..SEQ as i32).collect::<Vec<_>>().repeat(ROWS);
        let visibility = Visibility::new(ROWS, places.clone(), places);
        let mask = Flex::score_mask(visibility, dtype, &Default::default());
        let mut group = group(criterion, "attention");
        // Half of the scores are behind the queries.
        let products = 2 * ROWS * HEADS * HEAD_DIM * SEQ * SEQ / 2;
        group.throughput(Throughput::Elements((2 * products) as u64));
        group.bench_function(format!("{}/forward", dtype.name()), |bencher| {
            bencher
                .iter(|| Flex::grouped_attention(query.clone(), key.clone(), value.clone(), &mask));
        });
        group.throughput(Throughput::Elements((5 * products) as u64));
        group.bench_function(format!("{}/backward", dtype.name()), |bencher| {
            bencher.iter(|| {
                let (query, key, value) = (query.clone(), key.clone(), value.clone());
                Flex::grouped_attention_backward(query, key, value, &mask, above.clone())
            });
        });
    }
}

fn elementwise(criterion: &mut Criterion) {
    for dtype in DTYPES {
        let name = dtype.name();
        let mut group = group(criterion, "elementwise");
        let (gate, up, above) = (
            random([TOKENS, D_FF], dtype),
            random([TOKENS, D_FF], dtype),
            random([TOKENS, D_FF], dtype),
        );
        group.throughput(Throughput::Elements((TOKENS * D_FF) as u64));
        group.bench_function(format!("{name}/swiglu/forward"), |bencher| {
            bencher.iter(|| Flex::swiglu(gate.clone(), up.clone()));
        });
        group.bench_function(format!("{name}/swiglu/backward"), |bencher| {
            // It overwrites what is its own, as gate and gradient are in a backward pass.
            let own = |states: &Tensor<Flex, 2>| states.clone() + 0.0;
            bencher.iter_batched(
                || (own(&gate), own(&above)),
                |(gate, above)| Flex::swiglu_backward(gate, up.clone(), above),
                BatchSize::PerIteration,
            );
        });
        let (hidden, above) = (
            random([TOKENS, D_MODEL], dtype),
            random([TOKENS, D_MODEL], dtype),
        );
        let weight = random([D_MODEL], dtype);
        group.throughput(Throughput::Elements((TOKENS * D_MODEL) as u64));
        group.bench_function(format!("{name}/rms_norm/forward"), |bencher| {
            bencher.iter(|| Flex::rms_norm(hidden.clone(), weight.clone(), 1e-6));
        });
        group.bench_function(format!("{name}/rms_norm/backward"), |bencher| {
            bencher.iter(|| {
                Flex::rms_norm_backward(hidden.clone(), weight.clone(), 1e-6, above.clone())
            });
        });
        let query = random([ROWS, SEQ, HEADS, HEAD_DIM], dtype).swap_dims(1, 2);
        let (cos, sin) = (
            random([1, 1, SEQ, HEAD_DIM / 2], dtype),
            random([1, 1, SEQ, HEAD_DIM / 2], dtype),
        );
        group.bench_function(format!("{name}/rotary"), |bencher| {
            bencher.iter(|| Flex::rotary(black_box(query.clone()), cos.clone(), sin.clone()));
        });
    }
}

criterion_group!(operations, linear, cross_entropy, attention, elementwise);
criterion_main!(operations);
