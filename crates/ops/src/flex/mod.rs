//! The operations on flex, the CPU backend: all cores through rayon, all lanes through loops that the
//! compiler vectorises for the processor it finds at run time (pulp's dispatch), and f32 and bf16 states;
//! other types take the composed form.

mod attention;
mod cells;
mod cross_entropy;
mod element;
mod exp;
mod few_tokens;
mod gemm;
mod linear;
mod product;
mod rms_norm;
mod rotary;
mod storage;
mod swiglu;
#[cfg(test)]
mod tests;
mod vector;

use std::sync::{Mutex, OnceLock};

use burn::tensor::{DType, Int, Tensor};
use burn_flex::{Flex, FlexDevice};
use half::bf16;
use rayon::{ThreadPool, ThreadPoolBuilder};

pub use self::{product::bf16_products, vector::f32_lanes};
use crate::{
    DenseWeight, FrozenWeight, Kernels, LinearLayer, ScoreMask, Visibility, composed,
    dtype::accumulation_dtype,
};

/// `$fast` with `$element` standing for the type of the states, where there is a fast form of it.
macro_rules! by_element {
    ($dtype:expr, $element:ident => $fast:expr, $composed:expr) => {
        match $dtype {
            DType::F32 => {
                type $element = f32;
                $fast
            }
            DType::BF16 => {
                type $element = bf16;
                $fast
            }
            _ => $composed,
        }
    };
}

/// Threads for steps alone. An operation that is asked for from elsewhere, in a backward pass say, is divided among
/// rayon's global threads: were these the same, one of them could take up a step in the middle of that
/// operation, and the step wait for a lock that the backward pass holds.
fn step_threads() -> &'static ThreadPool {
    static THREADS: OnceLock<ThreadPool> = OnceLock::new();
    THREADS.get_or_init(|| {
        let threads = ThreadPoolBuilder::new().num_threads(rayon::current_num_threads());
        threads.build().expect("the system has threads")
    })
}

impl Kernels for Flex {
    type Weight = DenseWeight<Self>;

    fn run_step<R: Send>(_: &FlexDevice, step: impl FnOnce() -> R + Send) -> R {
        // One step at a time among the threads that compute. While one waits for its share of an operation, it
        // takes any other work there is; were that a second step, it would wait for locks that the first holds.
        static TAKEN: Mutex<()> = Mutex::new(());
        let outside = rayon::current_thread_index().is_none();
        match outside.then(|| TAKEN.try_lock()) {
            Some(Ok(_taken)) => step_threads().install(step),
            _ => step(),
        }
    }

    fn frozen_linears(
        input: Tensor<Self, 2>,
        layers: &[LinearLayer<Self>],
    ) -> Vec<Tensor<Self, 2>> {
        debug_assert!(
            layers
                .iter()
                .all(|(weight, _)| weight.dtype() == input.dtype()),
            "a linear layer mixes dtypes"
        );
        by_element!(
            input.dtype(),
            E => linear::forward::<E>(input, layers),
            layers
                .iter()
                .map(|(weight, bias)| composed::linear(input.clone(), weight, bias.clone()))
                .collect()
        )
    }

    fn frozen_linear_backward(
        above: Tensor<Self, 2>,
        weight: &FrozenWeight<Self>,
    ) -> Tensor<Self, 2> {
        by_element!(
            above.dtype(),
            E => linear::backward::<E>(above, weight.dense()),
            composed::linear_backward(above, weight)
        )
    }

    fn rms_norm(hidden: Tensor<Self, 2>, weight: Tensor<Self, 1>, epsilon: f64) -> Tensor<Self, 2> {
        by_element!(
            hidden.dtype(),
            E => rms_norm::forward::<E>(hidden, weight, epsilon),
            composed::rms_norm(hidden, weight, epsilon)
        )
    }

    fn rms_norm_backward(
        hidden: Tensor<Self, 2>,
        weight: Tensor<Self, 1>,
        epsilon: f64,
        above: Tensor<Self, 2>,
    ) -> Tensor<Self, 2> {
        by_element!(
            hidden.dtype(),
            E => rms_norm::backward::<E>(hidden, weight, epsilon, above),
            composed::rms_norm_backward(hidden, weight, epsilon, above)
        )
    }

    fn logistic(input: Tensor<Self, 2>) -> Tensor<Self, 2> {
        // One pass, and exact: flex has a function of its own.
        burn::tensor::activation::sigmoid(input)
    }

    fn swiglu(gate: Tensor<Self, 2>, up: Tensor<Self, 2>) -> Tensor<Self, 2> {
        by_element!(
            gate.dtype(),
            E => swiglu::forward::<E>(gate, up),
            composed::swiglu(gate, up)
        )
    }

    fn swiglu_backward(
        gate: Tensor<Self, 2>,
        up: Tensor<Self, 2>,
        above: Tensor<Self, 2>,
    ) -> [Tensor<Self, 2>; 2] {
        by_element!(
            gate.dtype(),
            E => swiglu::backward::<E>(gate, up, above),
            composed::swiglu_backward(gate, up, above)
        )
    }

    fn swiglu_linear(
        gate: Tensor<Self, 2>,
        up: Tensor<Self, 2>,
        weight: &FrozenWeight<Self>,
    ) -> Tensor<Self, 2> {
        by_element!(
            gate.dtype(),
            E => linear::behind_swiglu::<E>(gate, up, weight),
            composed::swiglu_linear(gate, up, weight)
        )
    }

    fn swiglu_linears_backward(
        gate: Tensor<Self, 2>,
        up: Tensor<Self, 2>,
        weights: [&FrozenWeight<Self>; 2],
        above: Tensor<Self, 2>,
    ) -> Tensor<Self, 2> {
        by_element!(
            gate.dtype(),
            E => linear::swiglu_backward::<E>(gate, up, weights.map(FrozenWeight::dense), above),
            composed::swiglu_linears_backward(gate, up, weights, above)
        )
    }

    fn rotary(
        states: Tensor<Self, 4>,
        cos: Tensor<Self, 4>,
        sin: Tensor<Self, 4>,
    ) -> Tensor<Self, 4> {
        by_element!(
            states.dtype(),
            E => rotary::rotate::<E>(states, cos, sin),
            composed::rotary(states, cos, sin)
        )
    }

    fn score_mask(visibility: Visibility, dtype: DType, device: &FlexDevice) -> ScoreMask<Self> {
        match dtype {
            DType::F32 | DType::BF16 => ScoreMask::on_host(visibility),
            _ => ScoreMask::to_device(&visibility, accumulation_dtype(dtype), device),
        }
    }

    fn grouped_attention(
        query: Tensor<Self, 4>,
        key: Tensor<Self, 4>,
        value: Tensor<Self, 4>,
        mask: &ScoreMask<Self>,
    ) -> Tensor<Self, 4> {
        let Some(places) = mask.places() else {
            return composed::attention(query, key, value, mask);
        };
        by_element!(
            query.dtype(),
            E => attention::forward::<E>(query, key, value, places),
            composed::attention(query, key, value, mask)
        )
    }

    fn write_cells(
        held: Tensor<Self, 4>,
        new: Tensor<Self, 4>,
        places: &[[usize; 2]],
    ) -> Tensor<Self, 4> {
        by_element!(
            held.dtype(),
            E => cells::write::<E>(held, new, places),
            composed::write_cells(held, new, places)
        )
    }

    fn grouped_attention_backward(
        query: Tensor<Self, 4>,
        key: Tensor<Self, 4>,
        value: Tensor<Self, 4>,
        mask: &ScoreMask<Self>,
        above: Tensor<Self, 4>,
    ) -> [Tensor<Self, 4>; 3] {
        let Some(places) = mask.places() else {
            return composed::attention_backward(query, key, value, mask, above);
        };
        by_element!(
            query.dtype(),
            E => attention::backward::<E>(query, key, value, places, above),
            composed::attention_backward(query, key, value, mask, above)
        )
    }

    fn linear_cross_entropy(
        hidden: Tensor<Self, 2>,
        weight: &FrozenWeight<Self>,
        targets: Tensor<Self, 1, Int>,
    ) -> Tensor<Self, 1> {
        by_element!(
            hidden.dtype(),
            E => cross_entropy::losses::<E>(hidden, weight.dense(), targets),
            composed::cross_entropy(hidden, weight, targets)
        )
    }

    fn linear_cross_entropy_gradient(
        hidden: Tensor<Self, 2>,
        weight: &FrozenWeight<Self>,
        targets: Tensor<Self, 1, Int>,
    ) -> (Tensor<Self, 1>, Tensor<Self, 2>) {
        by_element!(
            hidden.dtype(),
            E => cross_entropy::losses_and_gradients::<E>(hidden, weight.dense(), targets),
            composed::cross_entropy_gradient(hidden, weight, targets)
        )
    }
}
