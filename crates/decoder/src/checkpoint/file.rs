//! One safetensors file: a memory map, and tensors converted from its bytes.

use std::path::{Path, PathBuf};

use burn::tensor::{DType, Shape, TensorData};
use burn_peft_ops::MappedFile;
use half::{bf16, f16};
use safetensors::{
    Dtype, SafeTensors,
    tensor::{Metadata, TensorInfo},
};

use crate::Error;

/// One safetensors file: its bytes, and where in them the tensors are.
#[derive(Debug)]
pub(super) struct WeightsFile {
    /// Its name in the folder.
    pub(super) name: String,
    pub(super) bytes: Bytes,
    pub(super) metadata: Metadata,
    /// Where the tensors' bytes begin, behind the header.
    pub(super) data_start: usize,
}

#[derive(Debug)]
pub(super) enum Bytes {
    Mapped(MappedFile),
    Embedded(&'static [u8]),
}

impl WeightsFile {
    pub(super) fn map(path: PathBuf) -> Result<Self, Error> {
        let map = MappedFile::open(&path).map_err(|source| Error::Io {
            path: path.clone(),
            source,
        })?;
        Self::new(&path, Bytes::Mapped(map))
    }

    pub(super) fn new(path: &Path, bytes: Bytes) -> Result<Self, Error> {
        let corrupt = |reason: String| Error::Corrupt {
            path: path.to_owned(),
            reason,
        };
        let slice = bytes.as_slice();
        let (header, metadata) =
            SafeTensors::read_metadata(slice).map_err(|error| corrupt(error.to_string()))?;
        let data_start = header + size_of::<u64>();
        let expected = data_start + metadata.data_len();
        if slice.len() != expected {
            return Err(corrupt(format!(
                "it has {} bytes, its header says {expected}",
                slice.len()
            )));
        }
        let name = path.file_name().unwrap_or_default();
        Ok(Self {
            name: name.to_string_lossy().into_owned(),
            bytes,
            metadata,
            data_start,
        })
    }

    pub(super) fn read(&self, info: &TensorInfo, dtype: DType) -> TensorData {
        let (start, end) = info.data_offsets;
        let (start, end) = (self.data_start + start, self.data_start + end);
        let data = convert(
            &self.bytes.as_slice()[start..end],
            info.dtype,
            dtype,
            &info.shape,
        );
        self.bytes.forget(start, end - start);
        data
    }
}

impl Bytes {
    pub(super) fn as_slice(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Embedded(bytes) => bytes,
        }
    }

    /// See [`MappedFile::forget`].
    pub(super) fn forget(&self, start: usize, len: usize) {
        if let Self::Mapped(map) = self {
            map.forget(start, len);
        }
    }
}

/// Little-endian `bytes` of type `from` as `to`, rounding to nearest even where `to` is narrower.
fn convert(bytes: &[u8], from: Dtype, to: DType, shape: &[usize]) -> TensorData {
    let shape = Shape::from(shape.to_vec());
    match (from, to) {
        (Dtype::BF16, DType::BF16) => TensorData::new(decode(bytes, bf16::from_le_bytes), shape),
        (Dtype::F16, DType::F16) => TensorData::new(decode(bytes, f16::from_le_bytes), shape),
        (_, DType::F32) => TensorData::new(through_f32(bytes, from, |value| value), shape),
        (_, DType::F64) => TensorData::new(through_f32(bytes, from, f64::from), shape),
        (_, DType::BF16) => TensorData::new(through_f32(bytes, from, bf16::from_f32), shape),
        (_, DType::F16) => TensorData::new(through_f32(bytes, from, f16::from_f32), shape),
        (_, other) => panic!("a model is loaded as a floating-point type, not {other:?}"),
    }
}

pub(super) fn through_f32<T>(bytes: &[u8], from: Dtype, convert: impl Fn(f32) -> T) -> Vec<T> {
    match from {
        Dtype::F32 => decode(bytes, |b| convert(f32::from_le_bytes(b))),
        Dtype::BF16 => decode(bytes, |b| convert(bf16::from_le_bytes(b).to_f32())),
        Dtype::F16 => decode(bytes, |b| convert(f16::from_le_bytes(b).to_f32())),
        other => panic!("{other:?} was refused when the checkpoint was opened"),
    }
}

fn decode<T, const N: usize>(bytes: &[u8], value: impl Fn([u8; N]) -> T) -> Vec<T> {
    let (chunks, rest) = bytes.as_chunks::<N>();
    assert!(rest.is_empty(), "safetensors checks sizes against shapes");
    chunks.iter().map(|chunk| value(*chunk)).collect()
}
