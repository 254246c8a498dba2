//! A copy of a checkpoint's folder with other biases, or with more tokens.

mod side_files;
mod stored;
#[cfg(test)]
mod tests;
mod tokens;
mod writer;

use std::{borrow::Cow, collections::BTreeMap, path::Path};

use burn_peft_files::StagedFolder;

use super::{Checkpoint, WeightsFile};
use crate::{Error, LayerModule};
pub use side_files::SideFiles;
use stored::Stored;
pub use tokens::NewTokens;

/// What the copy has that the original has not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Copied {
    /// Tensors that are stored as F32 now, because the checkpoint's type could not hold their values exactly.
    pub widened: Vec<String>,
    /// Biases that the original does not have.
    pub added: Vec<String>,
    /// Keys of `config.json` that are true now and were not: those that ask for the added biases.
    pub config_keys: Vec<&'static str>,
}

/// The tensors that a file has in the copy and not in the original, by their names.
type Changed = BTreeMap<String, Stored>;

/// A bias of the copy that is not the original's.
struct Change<'a> {
    /// The module's path in the checkpoint.
    module: String,
    /// Added to the bias, `[d_out]`.
    delta: Cow<'a, [f32]>,
    /// Whether the original has no bias there.
    is_new: bool,
}

impl Checkpoint {
    /// Writes the whole folder again as `output`, with `deltas` (`[d_out]` each) added to the biases of the
    /// modules that they name.
    ///
    /// A module without a bias gets one where the family's `config.json` has a key that asks for it
    /// ([`Family::bias_key`](crate::Family::bias_key)): the key is set, and because it asks for biases at several
    /// modules of every layer, those without a delta get zeros.
    ///
    /// A sum is computed in f64. Its tensor keeps its type (a new bias: that of the module's weight) where that
    /// holds every value of it exactly, and becomes F32 otherwise: loaded as f32, the copy then has bit for bit
    /// the sums that f32 arithmetic gives. Loaded in a narrower type, they are rounded to it.
    ///
    /// All other tensors keep their bytes, and shards stay the files they are. The other files of the folder are
    /// copied, except for weights in other formats, hidden files, and subfolders other than that of the chat templates. The copy has a list of checksums of
    /// all files that results depend on, which [`open`](Self::open) checks. `output` is written whole or not
    /// at all ([`StagedFolder`]). `progress` is called with the bytes of weights written and all.
    ///
    /// # Errors
    /// `output` exists and is not an empty folder, and whatever reading and writing can meet.
    ///
    /// # Panics
    /// If a delta is for a layer that is not there or for a module that has no bias and cannot get one, or has
    /// another length than its bias; if the checkpoint is part of the program and has no folder.
    pub fn save_with_biases(
        &self,
        deltas: &BTreeMap<(usize, LayerModule), &[f32]>,
        output: &Path,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Copied, Error> {
        let keys = self.new_bias_keys(deltas);
        let changes = self.changes(deltas, &keys);
        let mut side_files = SideFiles::default();
        for key in &keys {
            side_files.config.insert((*key).to_owned(), true.into());
        }
        let changed = |file: &WeightsFile| file.changed(&changes);
        let copied = self.save_changed(&changed, &side_files, output, progress)?;
        Ok(Copied {
            config_keys: keys,
            ..copied
        })
    }

    /// Writes the whole folder again, with the tensors that `changed` gives for each file in place of its own, or
    /// beside them.
    fn save_changed(
        &self,
        changed: &dyn Fn(&WeightsFile) -> Result<Changed, Error>,
        side_files: &SideFiles,
        output: &Path,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Copied, Error> {
        let staged = StagedFolder::new(output)?;
        let mut copied = Copied::default();
        let (mut written, mut growth) = (0, 0);
        // The file of each added tensor.
        let mut added = BTreeMap::new();
        for file in &self.files {
            let stored = changed(file)?;
            for (name, tensor) in &stored {
                growth += tensor.growth;
                if tensor.is_widened {
                    copied.widened.push(name.clone());
                }
                if file.metadata.info(name).is_none() {
                    added.insert(name.clone(), file.name.clone());
                }
            }
            staged.write_with(&file.name, |output| {
                file.write(output, &stored, &mut |bytes| {
                    written += bytes;
                    progress(written.min(self.size()), self.size());
                })
            })?;
        }
        self.copy_side_files(&staged, growth, &added, side_files)?;
        staged.write_checksums()?;
        self.copy_descriptions(&staged, side_files)?;
        staged.commit()?;
        copied.added = added.into_keys().collect();
        Ok(copied)
    }

    /// The keys of `config.json` that must be set for the deltas to have a place.
    fn new_bias_keys(&self, deltas: &BTreeMap<(usize, LayerModule), &[f32]>) -> Vec<&'static str> {
        let mut keys = Vec::new();
        for (_, module) in deltas.keys() {
            if module.has_bias(&self.config) {
                continue;
            }
            let key = self.config.family.bias_key(*module);
            let key = key.unwrap_or_else(|| panic!("{module} can have no bias in this family"));
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        keys
    }

    /// The biases of the copy that are not the original's, by their names.
    fn changes<'a>(
        &self,
        deltas: &BTreeMap<(usize, LayerModule), &'a [f32]>,
        keys: &[&'static str],
    ) -> BTreeMap<String, Change<'a>> {
        let asked = |module: LayerModule| {
            let key = self.config.family.bias_key(module);
            key.is_some_and(|key| keys.contains(&key))
        };
        let layers = self.config.num_hidden_layers;
        let last = deltas.keys().map(|(layer, _)| *layer).max();
        assert!(last < Some(layers), "a delta is for one of {layers} layers");
        let mut changes = BTreeMap::new();
        for layer in 0..layers {
            for module in LayerModule::ALL {
                let is_new = asked(module) && !module.has_bias(&self.config);
                let width = module.width(&self.config);
                let delta = match deltas.get(&(layer, module)) {
                    Some(delta) => Cow::Borrowed(*delta),
                    None if is_new => Cow::Owned(vec![0.0; width]),
                    None => continue,
                };
                assert_eq!(delta.len(), width, "a delta of {module} and its bias");
                let path = module.module_path(layer);
                let change = Change {
                    module: path.clone(),
                    delta,
                    is_new,
                };
                changes.insert(format!("{path}.bias"), change);
            }
        }
        changes
    }
}

impl WeightsFile {
    /// The tensors that this file has in the copy and not in the original.
    fn changed(&self, changes: &BTreeMap<String, Change<'_>>) -> Result<Changed, Error> {
        let mut changed = BTreeMap::new();
        for (name, change) in changes {
            let found = match change.is_new {
                false => match self.name_of(name) {
                    Some(stored) => {
                        let info = self.metadata.info(&stored).expect("it has this name");
                        let base = self.tensor(info)?;
                        Some((stored, Stored::sum(&base, info.dtype, &change.delta)))
                    }
                    None => None,
                },
                // A new bias is stored beside its module's weight.
                true => {
                    let weight = self.name_of(&format!("{}.weight", change.module));
                    let info = weight.and_then(|weight| self.metadata.info(&weight));
                    info.map(|info| (name.clone(), Stored::new(info.dtype, &change.delta)))
                }
            };
            changed.extend(found);
        }
        Ok(changed)
    }
}
