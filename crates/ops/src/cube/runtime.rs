//! What one GPU's runtime has and another has not.

use burn::tensor::DType;
use burn_cubecl::{CubeRuntime, tensor::CubeTensor};

/// A runtime, and what it can do beyond CubeCL's kernels.
pub trait GpuRuntime: CubeRuntime {
    /// See [`Ops::run_step`](crate::Ops::run_step).
    fn run_step<T: Send>(device: &Self::Device, step: impl FnOnce() -> T + Send) -> T {
        let _ = device;
        step()
    }

    /// `lhs · rhs (+ bias)` as [`product`](super::product::product) wants it; `None` where no library can do it.
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
impl GpuRuntime for burn_wgpu::WgpuRuntime {}
