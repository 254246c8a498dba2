//! What one GPU runtime has and another has not; above all a vendor's library for matrix products. Without,
//! they are Burn's kernels.

use burn::tensor::{DType, Shape};
use burn_cubecl::{
    CubeRuntime,
    kernel::matmul::{MatmulStrategy, matmul},
    ops::{numeric, reshape},
    tensor::CubeTensor,
};

/// A runtime, and what it can do beyond CubeCL's kernels.
pub trait Product: CubeRuntime {
    /// See [`Ops::run_step`](crate::Ops::run_step).
    fn run_step<T: Send>(device: &Self::Device, step: impl FnOnce() -> T + Send) -> T {
        let _ = device;
        step()
    }

    /// `lhs · rhs (+ bias)` as [`product`] wants it; `None` where no library can do it.
    fn library_product(
        lhs: &CubeTensor<Self>,
        rhs: &CubeTensor<Self>,
        bias: Option<&CubeTensor<Self>>,
        dtype: DType,
    ) -> Option<CubeTensor<Self>> {
        let _ = (lhs, rhs, bias, dtype);
        None
    }
}

#[cfg(feature = "wgpu")]
impl Product for burn_wgpu::WgpuRuntime {}

/// `lhs · rhs (+ bias)`, summed in f32 and rounded to `dtype`; views cost no copy.
///
/// # Shapes
/// - lhs: `[m, k]` or `[batch, m, k]`
/// - rhs: `[k, n]` or `[batch, k, n]`
/// - bias: `[n]`, of type `dtype`
/// - output: `[m, n]` or `[batch, m, n]`, row-major without gaps
pub(crate) fn product<R: Product>(
    lhs: &CubeTensor<R>,
    rhs: &CubeTensor<R>,
    bias: Option<&CubeTensor<R>>,
    dtype: DType,
) -> CubeTensor<R> {
    debug_assert_eq!(lhs.dtype, rhs.dtype, "a product mixes dtypes");
    if let Some(output) = R::library_product(lhs, rhs, bias, dtype) {
        return output;
    }
    let strategy = MatmulStrategy::default();
    let output = matmul(lhs.clone(), rhs.clone(), None, strategy, dtype)
        .expect("Burn has a kernel for every product");
    let output = super::launch::contiguous(output);
    match bias {
        Some(bias) => {
            let columns = bias.meta.shape()[0];
            let bias = reshape(bias.clone(), Shape::new([1, columns]));
            numeric::add(output, bias)
        }
        None => output,
    }
}
