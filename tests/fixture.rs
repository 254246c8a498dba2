//! Reading `tests/fixtures` (its README has the schema).

use std::{
    fs,
    path::{Path, PathBuf},
};

use burn::tensor::{DType, Int, Tensor, TensorData, backend::Backend};
use burn_peft::{Inputs, Placement};
use burn_peft_data::{Batch, IGNORE_INDEX};
use burn_peft_decoder::{AttentionMask, Checkpoint, Decoder};
use burn_peft_ops::Ops;
use safetensors::SafeTensors;
use serde::{Deserialize, de::DeserializeOwned};

/// A path under `tests/fixtures`.
pub(crate) fn path(relative: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/fixtures")
        .join(relative)
}

pub(crate) fn json<T: DeserializeOwned>(relative: &str) -> T {
    let text = fs::read_to_string(path(relative)).unwrap();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{relative}: {error}"))
}

/// A checkpoint of `models/`, in f32.
pub(crate) fn model<B: Ops>(name: &str) -> Decoder<B> {
    let folder = path("models").join(name.trim_start_matches("models/"));
    Checkpoint::open(folder)
        .unwrap()
        .load(DType::F32, &Default::default(), &mut |_, _| {})
        .unwrap()
}

/// The tensors of one safetensors file, all f32.
pub(crate) struct Tensors(Vec<u8>);

impl Tensors {
    pub(crate) fn read(relative: &str) -> Self {
        Self(fs::read(path(relative)).unwrap())
    }

    pub(crate) fn get(&self, name: &str) -> TensorData {
        let file = SafeTensors::deserialize(&self.0).unwrap();
        let view = file
            .tensor(name)
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        let values = view.data().chunks_exact(4);
        let values: Vec<f32> = values
            .map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()))
            .collect();
        TensorData::new(values, view.shape().to_vec())
    }
}

/// Padded rows, as the fixtures write them.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Rows {
    pub(crate) input_ids: Vec<Vec<u32>>,
    pub(crate) attention_mask: Option<Vec<Vec<u8>>>,
    pub(crate) labels: Option<Vec<Vec<i64>>>,
}

impl Rows {
    pub(crate) fn batch(&self) -> usize {
        self.input_ids.len()
    }

    pub(crate) fn seq(&self) -> usize {
        self.input_ids[0].len()
    }

    /// Row-major `[batch, seq]`.
    pub(crate) fn mask_cells(&self) -> Vec<bool> {
        match &self.attention_mask {
            Some(rows) => rows.iter().flatten().map(|cell| *cell == 1).collect(),
            None => vec![true; self.batch() * self.seq()],
        }
    }

    pub(crate) fn ids<B: Backend>(&self) -> Tensor<B, 2, Int> {
        let ids: Vec<i64> = self
            .input_ids
            .iter()
            .flatten()
            .map(|id| i64::from(*id))
            .collect();
        let ids = TensorData::new(ids, [self.batch(), self.seq()]);
        Tensor::from_data(ids, &B::Device::default())
    }

    /// One row without its padding.
    pub(crate) fn row(&self, row: usize) -> Self {
        let start = row * self.seq();
        let cells = &self.mask_cells()[start..start + self.seq()];
        Self {
            input_ids: vec![kept(&self.input_ids[row], cells)],
            attention_mask: None,
            labels: self
                .labels
                .as_ref()
                .map(|rows| vec![kept(&rows[row], cells)]),
        }
    }

    /// The same rows with all padding in front.
    pub(crate) fn left_padded(&self) -> Self {
        let mut padded = self.clone();
        for index in 0..self.batch() {
            let row = self.row(index);
            let padding = self.seq() - row.seq();
            padded.input_ids[index].rotate_right(padding);
            if let Some(rows) = &mut padded.labels {
                rows[index].rotate_right(padding);
            }
            if let Some(rows) = &mut padded.attention_mask {
                rows[index].rotate_right(padding);
            }
        }
        padded
    }

    /// As a batch of `burn-peft-data`, supervised as the labels say.
    pub(crate) fn batch_on<B: Backend>(&self) -> Batch<B> {
        Batch {
            input_ids: self.ids(),
            attention_mask: self.mask_cells(),
            labels: match &self.labels {
                Some(labels) => labels.concat(),
                None => vec![IGNORE_INDEX; self.batch() * self.seq()],
            },
            row_labels: vec![None; self.batch()],
            placement: None,
            batch: self.batch(),
            seq: self.seq(),
            indices: (0..self.batch()).collect(),
        }
    }

    pub(crate) fn inputs<B: Backend>(&self) -> Inputs<B> {
        Inputs {
            input_ids: self.ids(),
            attention_mask: AttentionMask::new(self.batch(), self.seq(), self.mask_cells()),
            placement: Placement::Front,
        }
    }
}

fn kept<T: Copy>(row: &[T], cells: &[bool]) -> Vec<T> {
    let pairs = row.iter().zip(cells);
    pairs
        .filter(|(_, cell)| **cell)
        .map(|(value, _)| *value)
        .collect()
}

/// A run of `generate`.
#[derive(Debug, Deserialize)]
pub(crate) struct Greedy {
    #[serde(flatten)]
    pub(crate) rows: Rows,
    pub(crate) max_new_tokens: usize,
    pub(crate) eos_token_id: Vec<u32>,
    pub(crate) new_tokens: Vec<Vec<u32>>,
}
