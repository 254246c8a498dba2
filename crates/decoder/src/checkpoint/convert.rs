//! Tensors from the bytes of a file, in the type that is asked for.

use burn::tensor::{DType, Shape, TensorData};
use half::{bf16, f16};
use safetensors::{Dtype, tensor::TensorInfo};

use super::file::WeightsFile;
use crate::Error;

/// Why a tensor could not be read.
enum Failed {
    Reading(Error),
    /// NaN, or an infinity.
    NotFinite,
    /// There is no memory for it.
    TooLarge,
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self::Reading(error)
    }
}

impl WeightsFile {
    /// A tensor in type `to`, rounded to nearest even where that is narrower than the file's; from F64 by way of F32,
    /// as in PyTorch.
    ///
    /// # Errors
    /// If the bytes cannot be read, or a value is NaN or infinite, or too large for `to`.
    pub(super) fn read(
        &self,
        name: &str,
        info: &TensorInfo,
        to: DType,
    ) -> Result<TensorData, Error> {
        let shape = Shape::from(info.shape.clone());
        let data = match (info.dtype, to) {
            (Dtype::BF16, DType::BF16) => {
                let values = self.values(info, bf16::from_le_bytes);
                values.map(|values| TensorData::new(values, shape))
            }
            (Dtype::F16, DType::F16) => {
                let values = self.values(info, f16::from_le_bytes);
                values.map(|values| TensorData::new(values, shape))
            }
            (_, DType::F32) => {
                let values = self.through_f32(info, |value| value);
                values.map(|values| TensorData::new(values, shape))
            }
            (Dtype::F64, DType::F64) => {
                let values = self.values(info, f64::from_le_bytes);
                values.map(|values| TensorData::new(values, shape))
            }
            (_, DType::F64) => {
                let values = self.through_f32(info, f64::from);
                values.map(|values| TensorData::new(values, shape))
            }
            (_, DType::BF16) => {
                let values = self.through_f32(info, bf16::from_f32);
                values.map(|values| TensorData::new(values, shape))
            }
            (_, DType::F16) => {
                let values = self.through_f32(info, f16::from_f32);
                values.map(|values| TensorData::new(values, shape))
            }
            (_, other) => panic!("a model is loaded as a floating-point type, not {other:?}"),
        };
        data.map_err(|failed| match failed {
            Failed::Reading(error) => error,
            Failed::NotFinite => self.not_finite(name, to),
            Failed::TooLarge => self.too_large(name),
        })
    }

    fn through_f32<T: Finite>(
        &self,
        info: &TensorInfo,
        convert: impl Fn(f32) -> T,
    ) -> Result<Vec<T>, Failed> {
        match info.dtype {
            Dtype::F64 => self.values(info, |b| convert(f64::from_le_bytes(b) as f32)),
            Dtype::F32 => self.values(info, |b| convert(f32::from_le_bytes(b))),
            Dtype::BF16 => self.values(info, |b| convert(bf16::from_le_bytes(b).to_f32())),
            Dtype::F16 => self.values(info, |b| convert(f16::from_le_bytes(b).to_f32())),
            other => panic!("{other:?} was refused when the checkpoint was opened"),
        }
    }

    fn values<T: Finite, const N: usize>(
        &self,
        info: &TensorInfo,
        value: impl Fn([u8; N]) -> T,
    ) -> Result<Vec<T>, Failed> {
        let range = self.range(info);
        let mut values = Vec::new();
        let reserved = values.try_reserve_exact(range.len() / N);
        reserved.map_err(|_| Failed::TooLarge)?;
        self.pieces(range, |piece| {
            let done = values.len();
            decode(piece, &value, &mut values);
            // While they are in the cache. Without a branch a value, so that it is done many at once.
            let new = values[done..].iter();
            match new.fold(true, |all, value| all & value.finite()) {
                true => Ok(()),
                false => Err(Failed::NotFinite),
            }
        })?;
        Ok(values)
    }
}

/// The values in the bytes of a tensor, those of F64 rounded.
pub(super) fn through_f32<T>(bytes: &[u8], from: Dtype, convert: impl Fn(f32) -> T) -> Vec<T> {
    let mut values = Vec::with_capacity(8 * bytes.len() / from.bitsize());
    match from {
        Dtype::F64 => decode(
            bytes,
            |b| convert(f64::from_le_bytes(b) as f32),
            &mut values,
        ),
        Dtype::F32 => decode(bytes, |b| convert(f32::from_le_bytes(b)), &mut values),
        Dtype::BF16 => decode(
            bytes,
            |b| convert(bf16::from_le_bytes(b).to_f32()),
            &mut values,
        ),
        Dtype::F16 => decode(
            bytes,
            |b| convert(f16::from_le_bytes(b).to_f32()),
            &mut values,
        ),
        other => panic!("{other:?} was refused when the checkpoint was opened"),
    }
    values
}

fn decode<T, const N: usize>(bytes: &[u8], value: impl Fn([u8; N]) -> T, values: &mut Vec<T>) {
    let (chunks, rest) = bytes.as_chunks::<N>();
    assert!(rest.is_empty(), "safetensors checks sizes against shapes");
    values.extend(chunks.iter().map(|chunk| value(*chunk)));
}

/// Whether a number is neither NaN nor infinite.
trait Finite {
    fn finite(&self) -> bool;
}

impl Finite for f32 {
    fn finite(&self) -> bool {
        self.is_finite()
    }
}

impl Finite for f64 {
    fn finite(&self) -> bool {
        self.is_finite()
    }
}

impl Finite for f16 {
    fn finite(&self) -> bool {
        self.is_finite()
    }
}

impl Finite for bf16 {
    fn finite(&self) -> bool {
        self.is_finite()
    }
}
