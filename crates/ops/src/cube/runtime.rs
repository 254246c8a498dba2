//! What one GPU's runtime has and another has not.

#[cfg(feature = "cuda")]
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use burn::tensor::DType;
#[cfg(feature = "cuda")]
use burn_cubecl::cubecl::{Runtime, cuda::CudaRuntime};
use burn_cubecl::{CubeRuntime, tensor::CubeTensor};

#[cfg(feature = "cuda")]
use super::blas;

/// A runtime, and what it can do beyond CubeCL's kernels.
pub trait GpuRuntime: CubeRuntime {
    /// See [`Kernels::run_step`](crate::Kernels::run_step).
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

#[cfg(feature = "cuda")]
impl GpuRuntime for CudaRuntime {
    /// On the thread that serves the device, which else every operation would be sent to.
    fn run_step<T: Send>(device: &Self::Device, step: impl FnOnce() -> T + Send) -> T {
        let mut outcome = None;
        let ran = Self::client(device).exclusive(|| {
            // A panic belongs to the caller's thread.
            outcome = Some(catch_unwind(AssertUnwindSafe(step)));
        });
        match (ran, outcome) {
            (_, Some(Ok(value))) => value,
            (_, Some(Err(panic))) => resume_unwind(panic),
            (ran, None) => panic!("the thread of the device is gone: {ran:?}"),
        }
    }

    fn library_product(
        lhs: &CubeTensor<Self>,
        rhs: &CubeTensor<Self>,
        bias: Option<&CubeTensor<Self>>,
        dtype: DType,
    ) -> Option<CubeTensor<Self>> {
        blas::product(lhs, rhs, bias, dtype)
    }
}
