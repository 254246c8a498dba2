//! How trainable parameters are made.

use burn::{
    module::{Param, ParamId},
    tensor::{Element, Tensor, TensorData, backend::Backend},
};

/// A trainable parameter called `name`.
///
/// Its id is a hash of the name, not a random number, so that the state an optimizer kept for it
/// finds it again in another process.
pub(crate) fn trainable<B: Backend, const D: usize>(
    name: &str,
    value: TensorData,
    device: &B::Device,
) -> Param<Tensor<B, D>> {
    // FNV-1a, 64 bits.
    let id = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    // The backend's own float: f32, and f64 where gradients are checked. Without it the device's
    // default is taken, which is f32 for `NdArray<f64>` too.
    let dtype = B::FloatElem::dtype();
    let value = Tensor::from_data(value.convert_dtype(dtype), (device, dtype));
    Param::initialized(ParamId::from(id), value.require_grad())
}
