//! The backends on which a claim is tested.

use burn_peft_ops::Kernels;

/// A backend under test, and how far from PyTorch's f32 its sums may end.
pub(crate) trait TestBackend: Kernels<Device: Default> {
    /// Multiplies the tolerance of a claim about training an encoder, whose products are Burn's: 1 where
    /// these are f32.
    const ENCODER_SLACK: f64 = 1.0;
    /// Whether there is time for every case.
    const THOROUGH: bool = true;
    /// How often a number may be rounded to the type of the base within an operation.
    const ROUNDINGS: f64 = 1.0;
    /// Whether a matmul may add up a sum's terms one after the other.
    const SEQUENTIAL_SUMS: bool = false;
}

impl TestBackend for burn_flex::Flex {}

impl TestBackend for burn_ndarray::NdArray<f32> {}

#[cfg(feature = "vulkan")]
impl TestBackend for burn_wgpu::Vulkan<f32, i32> {
    const THOROUGH: bool = false;
    const SEQUENTIAL_SUMS: bool = true;
}

#[cfg(feature = "cuda")]
impl TestBackend for burn_cuda::Cuda<f32, i32> {
    // Burn's kernels round to TF32: 10 bits of mantissa, not 23.
    const ENCODER_SLACK: f64 = 100.0;
    // Probabilities are, between two products; a linear layer was seen at 1.05 of one rounding.
    const ROUNDINGS: f64 = 2.0;
}

/// Makes a test of each claim, a function generic over [`TestBackend`], on each backend of this
/// build.
macro_rules! on_every_backend {
    ($($claim:ident),* $(,)?) => {
        on_every_backend_with_its_own_operations!($($claim),*);
        mod ndarray {
            $(#[test] fn $claim() { super::$claim::<burn_ndarray::NdArray<f32>>(); })*
        }
    };
}

/// The same, but for ndarray, which has the composed operations.
macro_rules! on_every_backend_with_its_own_operations {
    ($($claim:ident),* $(,)?) => {
        mod flex {
            $(#[test] fn $claim() { super::$claim::<burn_flex::Flex>(); })*
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
