//! `adapter_model.safetensors`: named `f32` tensors on the host.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use half::{bf16, f16};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensorError, SafeTensors};

use crate::Error;
use crate::fields::shortened;

/// The tensor of the prompt and prefix methods.
pub const PROMPT_EMBEDDINGS: &str = "prompt_embeddings";

/// A tensor: a shape, and its values in row-major order.
#[derive(Debug, Clone, PartialEq)]
pub struct AdapterTensor {
    shape: Vec<usize>,
    values: Vec<f32>,
}

impl AdapterTensor {
    /// # Panics
    /// If the shape does not hold as many values as are given.
    pub fn new(shape: impl Into<Vec<usize>>, values: Vec<f32>) -> Self {
        let shape = shape.into();
        assert_eq!(
            shape.iter().product::<usize>(),
            values.len(),
            "a tensor's shape {shape:?} counts its values"
        );
        Self { shape, values }
    }

    /// The shape.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The values, row-major.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    fn from_view(view: &TensorView<'_>) -> Option<Self> {
        let bytes = view.data();
        let values = match view.dtype() {
            // As PyTorch copies them into PEFT's parameters.
            Dtype::F64 => {
                let (values, _) = bytes.as_chunks::<8>();
                values
                    .iter()
                    .map(|b| f64::from_le_bytes(*b) as f32)
                    .collect()
            }
            Dtype::F32 => bytes
                .chunks_exact(4)
                .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
                .collect(),
            Dtype::BF16 => bytes
                .chunks_exact(2)
                .map(|b| bf16::from_le_bytes([b[0], b[1]]).to_f32())
                .collect(),
            Dtype::F16 => bytes
                .chunks_exact(2)
                .map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32())
                .collect(),
            _ => return None,
        };
        Some(Self::new(view.shape(), values))
    }
}

/// The tensors of an adapter, by name.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AdapterTensors {
    map: BTreeMap<String, AdapterTensor>,
}

impl AdapterTensors {
    /// No tensors.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a tensor, and returns the one that had its name.
    pub fn insert(
        &mut self,
        name: impl Into<String>,
        tensor: AdapterTensor,
    ) -> Option<AdapterTensor> {
        self.map.insert(name.into(), tensor)
    }

    /// A tensor.
    pub fn get(&self, name: &str) -> Option<&AdapterTensor> {
        self.map.get(name)
    }

    /// Gives the tensors other names, where there are some.
    pub(crate) fn rename(&mut self, new_name: impl Fn(&str) -> Option<String>) {
        let map = std::mem::take(&mut self.map).into_iter();
        self.map = map
            .map(|(name, tensor)| (new_name(&name).unwrap_or(name), tensor))
            .collect();
    }

    /// Names and tensors, sorted by name.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &AdapterTensor)> {
        self.map
            .iter()
            .map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// Number of tensors.
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// Number of values in all tensors together.
    pub fn num_values(&self) -> usize {
        self.map.values().map(|tensor| tensor.values.len()).sum()
    }

    /// Names of tensors with NaN or infinite values, and how many they have.
    ///
    /// Such a file loads (PEFT loads it too), but no output of it means anything:
    /// [`AdapterFolder::check_values`](crate::AdapterFolder::check_values) refuses it.
    pub fn non_finite(&self) -> Vec<(&str, usize)> {
        let count = |tensor: &AdapterTensor| {
            tensor
                .values
                .iter()
                .filter(|value| !value.is_finite())
                .count()
        };
        self.iter()
            .map(|(name, tensor)| (name, count(tensor)))
            .filter(|(_, count)| *count > 0)
            .collect()
    }

    /// Reads a file: `F64`, `F32`, `BF16` and `F16` become `f32`.
    ///
    /// # Errors
    /// If the file cannot be read, is not whole, or holds another type.
    pub fn load(path: &Path) -> Result<Self, Error> {
        Self::parse(&burn_peft_files::read(path)?, path)
    }

    /// Reads the bytes of a safetensors file; `path` is for messages.
    ///
    /// # Errors
    /// If they are not a whole file, or hold another type.
    pub fn parse(bytes: &[u8], path: &Path) -> Result<Self, Error> {
        let file = SafeTensors::deserialize(bytes).map_err(|error| Error::Safetensors {
            path: path.into(),
            reason: in_words(&error),
        })?;
        let mut tensors = Self::new();
        for (name, view) in file.iter() {
            let tensor = AdapterTensor::from_view(&view).ok_or_else(|| Error::Dtype {
                path: path.into(),
                name: name.into(),
                dtype: format!("{:?}", view.dtype()),
            })?;
            tensors.insert(name, tensor);
        }
        Ok(tensors)
    }

    /// The bytes of a safetensors file as PEFT writes it: `F32`, with the metadata `{"format": "pt"}` that
    /// transformers asks for.
    pub fn to_safetensors(&self) -> Vec<u8> {
        let bytes: BTreeMap<&str, Vec<u8>> = self
            .iter()
            .map(|(name, t)| {
                (
                    name,
                    t.values
                        .iter()
                        .flat_map(|value| value.to_le_bytes())
                        .collect(),
                )
            })
            .collect();
        let views = self.iter().map(|(name, tensor)| {
            let view = TensorView::new(Dtype::F32, tensor.shape.clone(), &bytes[name]);
            (name, view.expect("a tensor's shape counts its values"))
        });
        let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
        safetensors::serialize(views, Some(metadata))
            .expect("views of matching shapes always serialise")
    }
}

/// What is wrong with a file, in words that need no knowledge of its format.
fn in_words(error: &SafeTensorError) -> String {
    match error {
        SafeTensorError::HeaderTooSmall
        | SafeTensorError::HeaderTooLarge
        | SafeTensorError::InvalidHeaderLength => "it ends before its header does".into(),
        SafeTensorError::InvalidOffset(name) => {
            format!("tensor `{}` is not where its header says", shortened(name))
        }
        SafeTensorError::MetadataIncompleteBuffer => {
            "it has fewer or more bytes than its tensors".into()
        }
        SafeTensorError::TensorInvalidInfo
        | SafeTensorError::InvalidTensorView(..)
        | SafeTensorError::ValidationOverflow
        | SafeTensorError::MisalignedSlice => {
            "the shape of a tensor and its bytes do not agree".into()
        }
        _ => "its header is damaged, or has something that is not known here".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATH: &str = "a/adapter_model.safetensors";

    fn parse(bytes: &[u8]) -> Result<AdapterTensors, Error> {
        AdapterTensors::parse(bytes, Path::new(PATH))
    }

    fn sample() -> AdapterTensors {
        let mut tensors = AdapterTensors::new();
        tensors.insert(
            "b",
            AdapterTensor::new([2, 3], vec![1.0, -2.5, 0.0, f32::MIN_POSITIVE, 1e30, -0.0]),
        );
        tensors.insert("a.weight", AdapterTensor::new([1], vec![0.1]));
        tensors
    }

    fn file(header: &str, data: &[u8]) -> Vec<u8> {
        [
            &(header.len() as u64).to_le_bytes()[..],
            header.as_bytes(),
            data,
        ]
        .concat()
    }

    #[test]
    fn what_is_written_is_read() {
        let bytes = sample().to_safetensors();
        let read = parse(&bytes).unwrap();
        assert_eq!(read, sample());
        assert_eq!(read.to_safetensors(), bytes);
        assert_eq!(read.num_values(), 7);
        assert_eq!(
            parse(&AdapterTensors::new().to_safetensors())
                .unwrap()
                .len(),
            0
        );
    }

    #[test]
    fn the_metadata_is_pytorchs() {
        let bytes = sample().to_safetensors();
        let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
        assert_eq!(header.metadata().as_ref().unwrap()["format"], "pt");
    }

    #[test]
    fn half_types_are_widened() {
        let header = r#"{"b":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]},"h":{"dtype":"F16","shape":[1],"data_offsets":[4,6]}}"#;
        let data = [
            bf16::from_f32(1.5).to_le_bytes(),
            bf16::NAN.to_le_bytes(),
            f16::from_f32(-0.25).to_le_bytes(),
        ];
        let tensors = parse(&file(header, &data.concat())).unwrap();
        assert_eq!(tensors.get("b").unwrap().values()[0], 1.5);
        assert_eq!(tensors.get("h").unwrap().values(), [-0.25]);
    }

    #[test]
    fn wide_numbers_are_rounded() {
        let header = r#"{"b":{"dtype":"F64","shape":[1],"data_offsets":[0,8]}}"#;
        let tensors = parse(&file(header, &0.1_f64.to_le_bytes())).unwrap();
        assert_eq!(tensors.get("b").unwrap().values(), [0.1_f32]);
    }

    #[test]
    fn nan_is_accepted_and_reported() {
        let mut tensors = sample();
        tensors.insert(
            "c",
            AdapterTensor::new([3], vec![f32::NAN, 1.0, f32::INFINITY]),
        );
        let read = parse(&tensors.to_safetensors()).unwrap();
        assert_eq!(read.non_finite(), [("c", 2)]);
        assert!(sample().non_finite().is_empty());
    }

    #[test]
    fn other_types_are_refused_by_name() {
        let header = r#"{"ids":{"dtype":"I64","shape":[1],"data_offsets":[0,8]}}"#;
        let message = parse(&file(header, &[0; 8])).unwrap_err().to_string();
        assert_eq!(
            message,
            format!("{PATH}: tensor `ids` is stored as I64; F64, F32, BF16 or F16 is expected")
        );
    }

    #[test]
    fn a_file_cut_anywhere_is_refused() {
        let bytes = sample().to_safetensors();
        for length in 0..bytes.len() {
            let error = parse(&bytes[..length]).unwrap_err();
            assert!(
                matches!(error, Error::Safetensors { .. }),
                "{length}: {error}"
            );
            assert!(error.to_string().starts_with(PATH));
        }
        assert!(parse(&[&bytes[..], &[0]].concat()).is_err());
    }

    #[test]
    fn hostile_headers_are_refused() {
        let max = usize::MAX;
        let headers = [
            format!(r#"{{"a":{{"dtype":"F32","shape":[{max},{max}],"data_offsets":[0,4]}}}}"#),
            format!(r#"{{"a":{{"dtype":"F32","shape":[{max}],"data_offsets":[0,{max}]}}}}"#),
            r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}"#.into(),
            r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#.into(),
            r#"{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}"#.into(),
            r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#
                .into(),
            r#"{"a":{"dtype":"F99","shape":[1],"data_offsets":[0,4]}}"#.into(),
            r#"{"a":7}"#.into(),
            "[]".into(),
            "{".into(),
            "\0".into(),
        ];
        for header in headers {
            assert!(
                matches!(
                    parse(&file(&header, &[0; 4])),
                    Err(Error::Safetensors { .. })
                ),
                "{header}"
            );
        }
        for length in [u64::MAX, i64::MAX as u64, 1 << 40] {
            assert!(
                parse(&[&length.to_le_bytes()[..], b"{}"].concat()).is_err(),
                "{length}"
            );
        }
    }

    #[test]
    fn flipped_bytes_never_panic() {
        let bytes = sample().to_safetensors();
        for position in 0..bytes.len() {
            for mask in [1, 0x10, 0x80, 0xff] {
                let mut flipped = bytes.clone();
                flipped[position] ^= mask;
                let _ = parse(&flipped);
            }
        }
    }

    #[test]
    #[should_panic(expected = "a tensor's shape [2] counts its values")]
    fn a_tensor_has_as_many_values_as_its_shape_says() {
        AdapterTensor::new([2], vec![0.0]);
    }
}
