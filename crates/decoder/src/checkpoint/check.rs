//! What is stored, against what the configuration asks.

use std::collections::{BTreeMap, BTreeSet};

use safetensors::{Dtype, tensor::TensorInfo};

use super::{Checkpoint, PIECE, WeightsFile};
use crate::{Error, weights};

/// What the weights of a model are saved under beside their head. `AutoModel` saves them without it, and some
/// programs twice with it.
const PREFIX: &str = "model.";
/// How many names a note has.
const NAMED: usize = 4;

impl Checkpoint {
    /// Whether a head is stored that is not the embedding table. As in transformers 5, it is the head then,
    /// whatever the configuration says.
    pub(super) fn has_its_own_head(&self) -> Result<bool, Error> {
        let [head, table] = [weights::LM_HEAD, weights::EMBED_TOKENS].map(|name| self.stored(name));
        let (Some((head_file, head)), Some((table_file, table))) = (head, table) else {
            return Ok(false);
        };
        if (head.dtype, &head.shape) != (table.dtype, &table.shape) {
            return Ok(true);
        }
        let (head, table) = (head_file.range(head), table_file.range(table));
        let mut buffers = [vec![0; PIECE], vec![0; PIECE]];
        for start in (0..head.len()).step_by(PIECE) {
            let len = PIECE.min(head.len() - start);
            let [a, b] = buffers.each_mut().map(|buffer| &mut buffer[..len]);
            head_file.read_at(a, (head.start + start) as u64)?;
            table_file.read_at(b, (table.start + start) as u64)?;
            if a != b {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Every way in which the tensors keep the configuration's model from being loaded, a sentence each.
    pub(super) fn differences(&self) -> Vec<String> {
        let mut differences = Vec::new();
        let expected: BTreeMap<_, _> = self.config.tensor_shapes().into_iter().collect();
        for (name, shape) in expected {
            match self.held(&name).map(|(_, info)| info) {
                None => differences.push(format!("tensor `{name}` is missing")),
                Some(info) if info.shape != shape => differences.push(format!(
                    "tensor `{name}` has shape {:?}, expected {shape:?}",
                    info.shape
                )),
                Some(info) if !is_read(info.dtype) => {
                    differences.push(format!(
                        "tensor `{name}` is stored as {:?}; F64, F32, BF16 and F16 can be read",
                        info.dtype
                    ));
                }
                Some(_) => {}
            }
        }
        if !differences.is_empty() {
            // They say what the weights are instead.
            let ignored = self.ignored().into_iter();
            differences.extend(ignored.map(|name| format!("tensor `{name}` is unexpected")));
        }
        differences
    }

    /// What is said of the tensors that the model does not have.
    pub(super) fn note_of_ignored(&self) -> Option<String> {
        let ignored = self.ignored();
        let named: Vec<_> = ignored.iter().take(NAMED).collect();
        let named: Vec<_> = named.iter().map(|name| format!("`{name}`")).collect();
        let more = match ignored.len().saturating_sub(NAMED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        (!ignored.is_empty()).then(|| {
            format!(
                "{}: tensors that the model does not have are ignored: {}{more}",
                self.path.display(),
                named.join(", ")
            )
        })
    }

    /// The stored tensors that the model does not have.
    fn ignored(&self) -> BTreeSet<String> {
        let mut ignored: BTreeSet<String> = BTreeSet::new();
        for file in &self.files {
            ignored.extend(file.metadata.offset_keys());
        }
        // Some tied checkpoints carry the same table again as the head, and older Llama checkpoints the rotary
        // frequencies, which follow from the configuration.
        ignored.retain(|name| !name.ends_with(".rotary_emb.inv_freq"));
        let shapes: BTreeMap<_, _> = self.config.tensor_shapes().into_iter().collect();
        let head = self
            .config
            .tie_word_embeddings
            .then_some(weights::LM_HEAD)
            .into_iter();
        for name in shapes.keys().map(String::as_str).chain(head) {
            if let Some(stored) = self.files.iter().find_map(|file| file.name_of(name)) {
                ignored.remove(&stored);
            }
        }
        ignored
    }

    /// A tensor that [`differences`](Self::differences) did not miss.
    pub(super) fn find(&self, name: &str) -> (&WeightsFile, &TensorInfo) {
        self.held(name)
            .unwrap_or_else(|| panic!("`{name}` was found when the checkpoint was opened"))
    }

    /// The tensor that the model has under this name: of a tied table and head, either may be stored.
    fn held(&self, name: &str) -> Option<(&WeightsFile, &TensorInfo)> {
        let is_tied_table = name == weights::EMBED_TOKENS && self.config.tie_word_embeddings;
        let other = || {
            is_tied_table
                .then(|| self.stored(weights::LM_HEAD))
                .flatten()
        };
        self.stored(name).or_else(other)
    }

    fn stored(&self, name: &str) -> Option<(&WeightsFile, &TensorInfo)> {
        self.files.iter().find_map(|file| {
            let stored = file.name_of(name)?;
            Some((file, file.metadata.info(&stored)?))
        })
    }
}

/// Whether weights of this type are read.
fn is_read(dtype: Dtype) -> bool {
    matches!(dtype, Dtype::F64 | Dtype::F32 | Dtype::BF16 | Dtype::F16)
}

impl WeightsFile {
    /// The name under which the file has a tensor of the model. As transformers 5 does, one is also found without
    /// its prefix `model.`, and with one more.
    pub(super) fn name_of(&self, name: &str) -> Option<String> {
        let with = format!("{PREFIX}{name}");
        let without = name.strip_prefix(PREFIX);
        let names = [Some(name), Some(&with), without].into_iter().flatten();
        names
            .filter(|name| self.metadata.info(name).is_some())
            .map(str::to_owned)
            .next()
    }
}
