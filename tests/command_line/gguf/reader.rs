//! Reads a GGUF file, with nothing of what wrote it.

use std::{collections::BTreeMap, fs, path::Path};

use half::{bf16, f16};
use serde_json::{Value, json};

/// The number type of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Element {
    F32,
    F16,
    Bf16,
    Q8_0,
}

pub(super) struct Tensor {
    /// As in a checkpoint: the width of a row last.
    pub(super) shape: Vec<usize>,
    pub(super) element: Element,
    bytes: Vec<u8>,
}

pub(super) struct Gguf {
    pub(super) values: BTreeMap<String, Value>,
    pub(super) tensors: BTreeMap<String, Tensor>,
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Cursor<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let found = self.bytes[self.at..][..N].try_into().unwrap();
        self.at += N;
        found
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }

    fn u64(&mut self) -> usize {
        u64::from_le_bytes(self.take()) as usize
    }

    fn text(&mut self) -> String {
        let len = self.u64();
        let found = self.bytes[self.at..][..len].to_vec();
        self.at += len;
        String::from_utf8(found).unwrap()
    }

    fn value(&mut self, kind: u32) -> Value {
        match kind {
            4 => json!(self.u32()),
            5 => json!(i32::from_le_bytes(self.take())),
            6 => json!(f32::from_le_bytes(self.take())),
            7 => json!(self.take::<1>() == [1]),
            8 => json!(self.text()),
            9 => {
                let (kind, len) = (self.u32(), self.u64());
                (0..len).map(|_| self.value(kind)).collect()
            }
            other => panic!("a value of kind {other}"),
        }
    }
}

impl Gguf {
    pub(super) fn read(path: &Path) -> Self {
        let bytes = fs::read(path).unwrap();
        let mut header = Cursor {
            bytes: &bytes,
            at: 0,
        };
        assert_eq!((&header.take::<4>(), header.u32()), (b"GGUF", 3));
        let (tensors, values) = (header.u64(), header.u64());
        let value = |header: &mut Cursor<'_>| {
            let (key, kind) = (header.text(), header.u32());
            (key, header.value(kind))
        };
        let pairs: Vec<_> = (0..values).map(|_| value(&mut header)).collect();
        let mut infos = Vec::new();
        for _ in 0..tensors {
            let (name, dimensions) = (header.text(), header.u32());
            let mut shape: Vec<_> = (0..dimensions).map(|_| header.u64()).collect();
            shape.reverse();
            let (numbers, width) = (shape.iter().product::<usize>(), shape[shape.len() - 1]);
            let (element, len) = match header.u32() {
                0 => (Element::F32, 4 * numbers),
                1 => (Element::F16, 2 * numbers),
                30 => (Element::Bf16, 2 * numbers),
                8 => {
                    assert_eq!(width % 32, 0, "rows of whole blocks");
                    (Element::Q8_0, numbers / 32 * 34)
                }
                other => panic!("a tensor of type {other}"),
            };
            infos.push((name, shape, element, header.u64(), len));
        }
        let start = header.at.next_multiple_of(32);
        let mut end = 0;
        let mut found = BTreeMap::new();
        for (name, shape, element, offset, len) in infos {
            assert_eq!(
                (offset, offset % 32),
                (end, 0),
                "{name} follows the one before"
            );
            end = (offset + len).next_multiple_of(32);
            let bytes = bytes[start + offset..][..len].to_vec();
            let tensor = Tensor {
                shape,
                element,
                bytes,
            };
            assert!(found.insert(name, tensor).is_none());
        }
        assert_eq!(start + end, bytes.len());
        let number = pairs.len();
        let values: BTreeMap<_, _> = pairs.into_iter().collect();
        assert_eq!(values.len(), number, "a key once");
        Self {
            values,
            tensors: found,
        }
    }
}

impl Tensor {
    pub(super) fn values(&self) -> Vec<f32> {
        let bytes = &self.bytes;
        let pairs = bytes.as_chunks().0.iter();
        match self.element {
            Element::F32 => {
                let values = bytes.as_chunks().0.iter();
                values.map(|bytes| f32::from_le_bytes(*bytes)).collect()
            }
            Element::F16 => pairs
                .map(|bytes| f16::from_le_bytes(*bytes).to_f32())
                .collect(),
            Element::Bf16 => pairs
                .map(|bytes| bf16::from_le_bytes(*bytes).to_f32())
                .collect(),
            Element::Q8_0 => {
                let block = |block: &[u8; 34]| {
                    let scale = f16::from_le_bytes([block[0], block[1]]).to_f32();
                    let whole = block[2..].iter().map(|byte| f32::from(*byte as i8));
                    whole.map(|whole| scale * whole).collect::<Vec<_>>()
                };
                bytes.as_chunks().0.iter().flat_map(block).collect()
            }
        }
    }
}
