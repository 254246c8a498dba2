//! The backends on which a claim is tested.

use burn_peft_ops::Ops;

/// A backend under test, and how far from PyTorch's f32 its sums may end.
pub(crate) trait TestBackend: Ops<Device: Default> {
    /// Multiplies the tolerance of a claim: 1 where matmuls are f32.
    const SLACK: f64 = 1.0;
    /// Whether there is time for every case.
    const THOROUGH: bool = true;
}

impl TestBackend for burn_flex::Flex {}

impl TestBackend for burn_ndarray::NdArray<f32> {}

#[cfg(feature = "vulkan")]
impl TestBackend for burn_wgpu::Vulkan<f32, i32> {
    const THOROUGH: bool = false;
}

#[cfg(feature = "cuda")]
impl TestBackend for burn_cuda::Cuda<f32, i32> {
    // Burn's accelerated f32 matmuls round their inputs to TF32: 10 bits of mantissa, not 23.
    const SLACK: f64 = 100.0;
}

/// Makes a test of each claim, a function generic over [`TestBackend`], on each backend of this
/// build.
macro_rules! on_every_backend {
    ($($claim:ident),* $(,)?) => {
        mod flex {
            $(#[test] fn $claim() { super::$claim::<burn_flex::Flex>(); })*
        }
        mod ndarray {
            $(#[test] fn $claim() { super::$claim::<burn_ndarray::NdArray<f32>>(); })*
        }
        #[cfg(feature = "vulkan")]
        mod vulkan {
            $(#[test] fn $claim() { super::$claim::<burn_wgpu::Vulkan<f32, i32>>(); })*
        }
        #[cfg(feature = "cuda")]
        mod cuda {
            $(#[test] fn $claim() { super::$claim::<burn_cuda::Cuda<f32, i32>>(); })*
        }
    };
}
