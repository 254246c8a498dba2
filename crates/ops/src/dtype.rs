//! The one rule about precision that every operation shares.

use burn::tensor::DType;

/// The type in which scores, softmax, norms and losses are computed for inputs of type `dtype`:
/// f32 for everything narrower, and f64 where the model itself is f64 (gradient checks).
#[must_use]
pub fn accumulation_dtype(dtype: DType) -> DType {
    match dtype {
        DType::F64 => DType::F64,
        _ => DType::F32,
    }
}
