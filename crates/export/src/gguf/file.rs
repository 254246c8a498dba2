//! The container: a header of typed values and of tensors, and their bytes behind it.
//!
//! The format is described in `docs/gguf.md` of ggml; this is version 3, little-endian.

use super::GgufType;

const MAGIC: &[u8] = b"GGUF";
const VERSION: u32 = 3;
/// Tensors begin at multiples of it.
const ALIGNMENT: usize = 32;

/// A value of the header.
#[derive(Debug, Clone)]
pub(super) enum Value {
    U32(u32),
    F32(f32),
    Bool(bool),
    Text(String),
    Texts(Vec<String>),
    I32s(Vec<i32>),
}

impl Value {
    pub(super) fn text(text: &str) -> Self {
        Self::Text(text.to_owned())
    }

    /// A size or an id. None of a model is as large as 2³².
    pub(super) fn size(size: usize) -> Self {
        Self::U32(size as u32)
    }

    fn type_id(&self) -> u32 {
        match self {
            Self::U32(_) => 4,
            Self::F32(_) => 6,
            Self::Bool(_) => 7,
            Self::Text(_) => 8,
            Self::Texts(_) | Self::I32s(_) => 9,
        }
    }

    fn write(&self, bytes: &mut Vec<u8>) {
        const I32: u32 = 5;
        const TEXT: u32 = 8;
        let put_list = |bytes: &mut Vec<u8>, of: u32, len: usize| {
            bytes.extend(of.to_le_bytes());
            bytes.extend((len as u64).to_le_bytes());
        };
        match self {
            Self::U32(value) => bytes.extend(value.to_le_bytes()),
            Self::F32(value) => bytes.extend(value.to_le_bytes()),
            Self::Bool(value) => bytes.push(u8::from(*value)),
            Self::Text(text) => put_text(bytes, text),
            Self::Texts(texts) => {
                put_list(bytes, TEXT, texts.len());
                texts.iter().for_each(|text| put_text(bytes, text));
            }
            Self::I32s(values) => {
                put_list(bytes, I32, values.len());
                values
                    .iter()
                    .for_each(|value| bytes.extend(value.to_le_bytes()));
            }
        }
    }
}

/// Everything in front of the tensors' bytes.
#[derive(Debug, Default)]
pub(super) struct Header {
    values: Vec<u8>,
    number_of_values: u64,
    tensors: Vec<u8>,
    number_of_tensors: u64,
    /// Where the next tensor begins, behind the header.
    data_len: u64,
}

impl Header {
    pub(super) fn set(&mut self, key: &str, value: Value) {
        put_text(&mut self.values, key);
        self.values.extend(value.type_id().to_le_bytes());
        value.write(&mut self.values);
        self.number_of_values += 1;
    }

    /// Announces the next tensor. `shape` is the checkpoint's; the format names the width of a row first.
    pub(super) fn tensor(&mut self, name: &str, shape: &[usize], element: GgufType) {
        put_text(&mut self.tensors, name);
        self.tensors.extend((shape.len() as u32).to_le_bytes());
        for size in shape.iter().rev() {
            self.tensors.extend((*size as u64).to_le_bytes());
        }
        self.tensors.extend(element.type_id().to_le_bytes());
        self.tensors.extend(self.data_len.to_le_bytes());
        self.number_of_tensors += 1;
        let len = element.bytes_of(shape.iter().product());
        self.data_len += (len + padding(len)) as u64;
    }

    /// Bytes of all tensors, with what lies between them.
    pub(super) fn data_len(&self) -> u64 {
        self.data_len
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend(self.number_of_tensors.to_le_bytes());
        bytes.extend(self.number_of_values.to_le_bytes());
        bytes.extend(&self.values);
        bytes.extend(&self.tensors);
        bytes.resize(bytes.len() + padding(bytes.len()), 0);
        bytes
    }
}

/// Bytes from the end of `len` to the next place where a tensor may begin.
pub(super) fn padding(len: usize) -> usize {
    len.next_multiple_of(ALIGNMENT) - len
}

fn put_text(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend((text.len() as u64).to_le_bytes());
    bytes.extend(text.as_bytes());
}
