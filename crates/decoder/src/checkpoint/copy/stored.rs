//! A tensor of the copy, in the type that holds it exactly.

use std::borrow::Cow;

use half::{bf16, f16};
use safetensors::Dtype;

use super::super::convert::through_f32;

/// A tensor as it is stored.
pub(super) struct Stored {
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<usize>,
    pub(super) bytes: Vec<u8>,
    /// Bytes that it has more than the original.
    pub(super) growth: u64,
    /// Whether it is F32 because the checkpoint's type does not hold it.
    pub(super) is_widened: bool,
}

impl Stored {
    /// What `base`, of type `dtype`, is with `delta` added.
    pub(super) fn sum(base: &[u8], dtype: Dtype, delta: &[f32]) -> Self {
        let values = through_f32(base, dtype, f64::from);
        assert_eq!(values.len(), delta.len(), "a bias and what is added to it");
        let sums = values.iter().zip(delta).map(|(a, b)| a + f64::from(*b));
        Self::of(&sums.collect::<Vec<f64>>(), dtype, base.len())
    }

    /// A tensor that the original does not have.
    pub(super) fn new(dtype: Dtype, values: &[f32]) -> Self {
        let values: Vec<f64> = values.iter().map(|value| f64::from(*value)).collect();
        Self::of(&values, dtype, 0)
    }

    /// A table `[rows, width]` of type `dtype` with `new` `[new rows, width]` in place of its rows from `first` on, or
    /// behind its last. Where `exact` is asked for and the type does not hold the new rows, the table becomes F32.
    pub(super) fn with_rows(
        base: &[u8],
        dtype: Dtype,
        (first, width): (usize, usize),
        new: &[f32],
        exact: bool,
    ) -> Self {
        let values: Vec<f64> = new.iter().map(|value| f64::from(*value)).collect();
        let found = Self::of(&values, dtype, 0);
        let (dtype_found, before, rows) = match (found.is_widened, exact) {
            (false, _) => (dtype, Cow::Borrowed(base), found.bytes),
            (true, true) => {
                let wide = through_f32(base, dtype, f32::to_le_bytes);
                (Dtype::F32, Cow::Owned(wide.concat()), found.bytes)
            }
            (true, false) => (dtype, Cow::Borrowed(base), rounded(&values, dtype)),
        };
        let row = width * dtype_found.bitsize() / 8;
        let mut bytes = before.into_owned();
        let end = first * row + rows.len();
        bytes.resize(bytes.len().max(end), 0);
        bytes[first * row..end].copy_from_slice(&rows);
        Self {
            dtype: dtype_found,
            shape: vec![bytes.len() / row, width],
            growth: (bytes.len() - base.len()) as u64,
            is_widened: dtype_found != dtype,
            bytes,
        }
    }

    /// In type `dtype` where that changes nothing, else in F32. The original has `bytes_before`.
    fn of(values: &[f64], dtype: Dtype, bytes_before: usize) -> Self {
        let narrow = match dtype {
            Dtype::BF16 => in_type(values, bf16::from_f64, bf16::to_f64, bf16::to_le_bytes),
            Dtype::F16 => in_type(values, f16::from_f64, f16::to_f64, f16::to_le_bytes),
            Dtype::F64 => in_type(values, |value| value, |value| value, f64::to_le_bytes),
            _ => None,
        };
        let wide = || {
            let values = values.iter();
            values.flat_map(|value| (*value as f32).to_le_bytes())
        };
        let (found, bytes) = match narrow {
            Some(bytes) => (dtype, bytes),
            None => (Dtype::F32, wide().collect()),
        };
        Self {
            dtype: found,
            shape: vec![values.len()],
            growth: (bytes.len() - bytes_before) as u64,
            is_widened: found != dtype,
            bytes,
        }
    }
}

/// The bytes of `values` in a type that may not hold them, rounded to nearest even.
fn rounded(values: &[f64], dtype: Dtype) -> Vec<u8> {
    let values = values.iter();
    match dtype {
        Dtype::BF16 => values
            .flat_map(|value| bf16::from_f64(*value).to_le_bytes())
            .collect(),
        Dtype::F16 => values
            .flat_map(|value| f16::from_f64(*value).to_le_bytes())
            .collect(),
        other => panic!("{other:?} holds every f32"),
    }
}

/// The bytes of `values` in another type, if it holds each of them exactly.
fn in_type<T: Copy, const N: usize>(
    values: &[f64],
    narrow: impl Fn(f64) -> T,
    widen: impl Fn(T) -> f64,
    bytes: impl Fn(T) -> [u8; N],
) -> Option<Vec<u8>> {
    let mut all = Vec::with_capacity(N * values.len());
    for value in values {
        let narrowed = narrow(*value);
        if widen(narrowed) != *value {
            return None;
        }
        all.extend(bytes(narrowed));
    }
    Some(all)
}
