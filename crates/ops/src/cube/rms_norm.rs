//! RMSNorm: a cube for each token.

use burn_cubecl::{
    CubeRuntime,
    cubecl::{self, prelude::*},
    tensor::CubeTensor,
};

use super::{
    launch::{contiguous, empty_like, row_grid, vector_size},
    reduce::{cube_sum, vector_sum},
};

#[cube(launch)]
fn rms_norm_kernel<F: Float, N: Size>(
    hidden: &Array<Vector<F, N>>,
    weight: &Array<Vector<F, N>>,
    output: &mut Array<Vector<F, N>>,
    epsilon: f32,
    #[comptime] units: u32,
    #[define(F)] _dtype: StorageType,
) {
    let len = weight.len();
    let start = CUBE_POS * len;
    if start >= hidden.len() {
        terminate!();
    }
    let mut squares = Vector::<f32, N>::new(0.0);
    let mut i = UNIT_POS as usize;
    while i < len {
        let value = Vector::<f32, N>::cast_from(hidden[start + i]);
        squares += value * value;
        i += units as usize;
    }
    let width = (len * N::value()) as f32;
    let mean_square = cube_sum(vector_sum::<N>(squares), units) / width;
    let scale = 1.0 / (mean_square + epsilon).sqrt();
    let mut i = UNIT_POS as usize;
    while i < len {
        let value = Vector::<f32, N>::cast_from(hidden[start + i]);
        let normed = Vector::<F, N>::cast_from(value * Vector::new(scale));
        output[start + i] = normed * weight[i];
        i += units as usize;
    }
}

#[cube(launch)]
fn rms_norm_backward_kernel<F: Float, N: Size>(
    hidden: &Array<Vector<F, N>>,
    weight: &Array<Vector<F, N>>,
    above: &Array<Vector<F, N>>,
    output: &mut Array<Vector<F, N>>,
    epsilon: f32,
    #[comptime] units: u32,
    #[define(F)] _dtype: StorageType,
) {
    let len = weight.len();
    let start = CUBE_POS * len;
    if start >= hidden.len() {
        terminate!();
    }
    // n = x / r and r² = mean(x²) + ε, so with a the weighted gradient dx = (a − n · mean(a · n)) / r.
    let mut squares = Vector::<f32, N>::new(0.0);
    let mut products = Vector::<f32, N>::new(0.0);
    let mut i = UNIT_POS as usize;
    while i < len {
        let value = Vector::<f32, N>::cast_from(hidden[start + i]);
        let above =
            Vector::<f32, N>::cast_from(above[start + i]) * Vector::<f32, N>::cast_from(weight[i]);
        squares += value * value;
        products += value * above;
        i += units as usize;
    }
    let width = (len * N::value()) as f32;
    let mean_square = cube_sum(vector_sum::<N>(squares), units) / width;
    let scale = 1.0 / (mean_square + epsilon).sqrt();
    let along = cube_sum(vector_sum::<N>(products), units) / width * scale * scale;
    let mut i = UNIT_POS as usize;
    while i < len {
        let value = Vector::<f32, N>::cast_from(hidden[start + i]);
        let above =
            Vector::<f32, N>::cast_from(above[start + i]) * Vector::<f32, N>::cast_from(weight[i]);
        let gradient = (above - value * Vector::new(along)) * Vector::new(scale);
        output[start + i] = Vector::cast_from(gradient);
        i += units as usize;
    }
}

pub(crate) fn rms_norm<R: CubeRuntime>(
    hidden: CubeTensor<R>,
    weight: CubeTensor<R>,
    epsilon: f64,
) -> CubeTensor<R> {
    let (hidden, weight) = (contiguous(hidden), contiguous(weight));
    let [rows, width] = hidden.meta.shape().dims();
    let size = vector_size(&hidden, hidden.dtype, width);
    let (count, dim, units) = row_grid(&hidden, rows, width / size);
    let output = empty_like(&hidden);
    rms_norm_kernel::launch(
        &output.client,
        count,
        dim,
        size,
        hidden.into_array_arg(),
        weight.into_array_arg(),
        output.clone().into_array_arg(),
        epsilon as f32,
        units,
        output.dtype.into(),
    );
    output
}

pub(crate) fn rms_norm_backward<R: CubeRuntime>(
    hidden: CubeTensor<R>,
    weight: CubeTensor<R>,
    epsilon: f64,
    above: CubeTensor<R>,
) -> CubeTensor<R> {
    let [hidden, weight, above] = [hidden, weight, above].map(contiguous);
    let [rows, width] = hidden.meta.shape().dims();
    let size = vector_size(&hidden, hidden.dtype, width);
    let (count, dim, units) = row_grid(&hidden, rows, width / size);
    let output = empty_like(&hidden);
    rms_norm_backward_kernel::launch(
        &output.client,
        count,
        dim,
        size,
        hidden.into_array_arg(),
        weight.into_array_arg(),
        above.into_array_arg(),
        output.clone().into_array_arg(),
        epsilon as f32,
        units,
        output.dtype.into(),
    );
    output
}
