//! Softmax and cross-entropy over the vocabulary: a cube for each token, and two readings of its logits.

use burn::tensor::{DType, Shape, TensorMetadata};
use burn_cubecl::{
    CubeRuntime,
    cubecl::{self, prelude::*},
    tensor::CubeTensor,
};

use super::{
    launch::{contiguous, empty, row_grid, vector_size},
    reduce::{cube_max, cube_sum, vector_max, vector_sum},
};

/// `losses` is `-log softmax(logits)[target]`; `gradients`, where they are wanted, `softmax(logits) - onehot`.
#[cube(launch)]
fn cross_entropy_kernel<F: Float, N: Size>(
    logits: &Array<Vector<f32, N>>,
    targets: &Array<i32>,
    losses: &mut Array<f32>,
    gradients: &mut Array<Vector<F, N>>,
    len: u32,
    #[comptime] with_gradients: bool,
    #[comptime] units: u32,
    #[define(F)] _dtype: StorageType,
) {
    let (len, row) = (len as usize, CUBE_POS);
    if row >= losses.len() {
        terminate!();
    }
    let start = row * len;
    let target = targets[row] as usize;
    let (target_vector, target_lane) = (target / N::value(), target % N::value());

    // The sum leaves the target out: what is left of a certain target's gradient is then exact.
    let mut largest = Vector::<f32, N>::new(f32::MIN);
    let mut others = Vector::<f32, N>::new(0.0);
    let mut i = UNIT_POS as usize;
    while i < len {
        let mut logit = logits[start + i];
        if i == target_vector {
            logit = without::<N>(logit, target_lane);
        }
        let new = max(largest, logit);
        others = others * (largest - new).exp() + (logit - new).exp();
        largest = new;
        i += units as usize;
    }
    let target_logit = lane_of::<N>(logits[start + target_vector], target_lane);
    let top = cube_max(max(vector_max::<N>(largest), target_logit), units);
    let others = others * (largest - Vector::new(top)).exp();
    let others = cube_sum(vector_sum::<N>(others), units);
    let total = others + (target_logit - top).exp();
    if UNIT_POS == 0 {
        losses[row] = total.ln() + (top - target_logit);
    }
    if with_gradients {
        let mut i = UNIT_POS as usize;
        while i < len {
            let shifted = logits[start + i] - Vector::<f32, N>::new(top);
            let mut gradient = shifted.exp() / Vector::new(total);
            if i == target_vector {
                gradient = with_lane::<N>(gradient, target_lane, -others / total);
            }
            gradients[start + i] = Vector::cast_from(gradient);
            i += units as usize;
        }
    }
}

#[cube]
fn lane_of<N: Size>(vector: Vector<f32, N>, wanted: usize) -> f32 {
    let mut value = 0.0f32;
    #[unroll]
    for lane in 0..N::value() {
        if lane == wanted {
            value = vector[lane];
        }
    }
    value
}

#[cube]
fn with_lane<N: Size>(vector: Vector<f32, N>, changed: usize, value: f32) -> Vector<f32, N> {
    let mut vector = vector;
    #[unroll]
    for lane in 0..N::value() {
        vector[lane] = select(lane == changed, value, vector[lane]);
    }
    vector
}

/// A logit that adds nothing, in place of one.
#[cube]
fn without<N: Size>(vector: Vector<f32, N>, changed: usize) -> Vector<f32, N> {
    with_lane::<N>(vector, changed, f32::MIN)
}

/// The losses, `[tokens]`, and where `gradients` has a type the gradients of the logits in it.
///
/// # Shapes
/// - logits: `[tokens, vocab]`, f32
/// - targets: `[tokens]`
pub(crate) fn cross_entropy<R: CubeRuntime>(
    logits: CubeTensor<R>,
    targets: CubeTensor<R>,
    gradients: Option<DType>,
) -> (CubeTensor<R>, Option<CubeTensor<R>>) {
    let [logits, targets] = [logits, targets].map(contiguous);
    let [tokens, vocab] = logits.meta.shape().dims();
    let size = vector_size(&logits, DType::F32, vocab);
    let (count, dim, units) = row_grid(&logits, tokens, vocab / size);
    let losses = empty(&logits, Shape::new([tokens]), DType::F32);
    let dtype = gradients.unwrap_or(DType::F32);
    let output = match gradients {
        Some(dtype) => empty(&logits, logits.shape(), dtype),
        // Not written to.
        None => empty(&logits, Shape::new([size]), dtype),
    };
    cross_entropy_kernel::launch(
        &losses.client,
        count,
        dim,
        size,
        logits.into_array_arg(),
        targets.into_array_arg(),
        losses.clone().into_array_arg(),
        output.clone().into_array_arg(),
        (vocab / size) as u32,
        gradients.is_some(),
        units,
        dtype.into(),
    );
    (losses, gradients.is_some().then_some(output))
}
