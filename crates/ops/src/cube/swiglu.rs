//! SwiGLU: a unit for each vector.

use burn::tensor::TensorMetadata;
use burn_cubecl::{
    CubeRuntime,
    cubecl::{self, prelude::*},
    tensor::CubeTensor,
};

use super::launch::{contiguous, elementwise_grid, empty_like, vector_size};

#[cube]
fn logistic<N: Size>(input: Vector<f32, N>) -> Vector<f32, N> {
    // Not `-input`: CubeCL 0.10 writes that in a way that CUDA's compiler does not know for vectors.
    let one = Vector::<f32, N>::new(1.0);
    one / (one + (Vector::<f32, N>::new(0.0) - input).exp())
}

#[cube(launch)]
fn swiglu_kernel<F: Float, N: Size>(
    gate: &Array<Vector<F, N>>,
    up: &Array<Vector<F, N>>,
    output: &mut Array<Vector<F, N>>,
    #[define(F)] _dtype: StorageType,
) {
    if ABSOLUTE_POS >= output.len() {
        terminate!();
    }
    let gate = Vector::<f32, N>::cast_from(gate[ABSOLUTE_POS]);
    let up = Vector::<f32, N>::cast_from(up[ABSOLUTE_POS]);
    output[ABSOLUTE_POS] = Vector::cast_from(logistic::<N>(gate) * gate * up);
}

#[cube(launch)]
fn swiglu_backward_kernel<F: Float, N: Size>(
    gate: &Array<Vector<F, N>>,
    up: &Array<Vector<F, N>>,
    above: &Array<Vector<F, N>>,
    gate_gradient: &mut Array<Vector<F, N>>,
    up_gradient: &mut Array<Vector<F, N>>,
    #[define(F)] _dtype: StorageType,
) {
    if ABSOLUTE_POS >= gate.len() {
        terminate!();
    }
    let gate = Vector::<f32, N>::cast_from(gate[ABSOLUTE_POS]);
    let up = Vector::<f32, N>::cast_from(up[ABSOLUTE_POS]);
    let above = Vector::<f32, N>::cast_from(above[ABSOLUTE_POS]);
    let sigmoid = logistic::<N>(gate);
    let silu = sigmoid * gate;
    // silu′ = σ · (1 + gate · (1 − σ)) = σ + silu · (1 − σ)
    let slope = sigmoid + silu * (Vector::<f32, N>::new(1.0) - sigmoid);
    gate_gradient[ABSOLUTE_POS] = Vector::cast_from(slope * up * above);
    up_gradient[ABSOLUTE_POS] = Vector::cast_from(silu * above);
}

pub(crate) fn swiglu<R: CubeRuntime>(gate: CubeTensor<R>, up: CubeTensor<R>) -> CubeTensor<R> {
    let [gate, up] = [gate, up].map(contiguous);
    let elements = gate.shape().num_elements();
    let size = vector_size(&gate, gate.dtype, elements);
    let (count, dim) = elementwise_grid(&gate, elements / size);
    let output = empty_like(&gate);
    swiglu_kernel::launch(
        &output.client,
        count,
        dim,
        size,
        gate.into_array_arg(),
        up.into_array_arg(),
        output.clone().into_array_arg(),
        output.dtype.into(),
    );
    output
}

pub(crate) fn swiglu_backward<R: CubeRuntime>(
    gate: CubeTensor<R>,
    up: CubeTensor<R>,
    above: CubeTensor<R>,
) -> [CubeTensor<R>; 2] {
    let [gate, up, above] = [gate, up, above].map(contiguous);
    let elements = gate.shape().num_elements();
    let size = vector_size(&gate, gate.dtype, elements);
    let (count, dim) = elementwise_grid(&gate, elements / size);
    let gradients = [empty_like(&gate), empty_like(&gate)];
    let [gate_gradient, up_gradient] = gradients.clone();
    swiglu_backward_kernel::launch(
        &gradients[0].client,
        count,
        dim,
        size,
        gate.into_array_arg(),
        up.into_array_arg(),
        above.into_array_arg(),
        gate_gradient.into_array_arg(),
        up_gradient.into_array_arg(),
        gradients[0].dtype.into(),
    );
    gradients
}
