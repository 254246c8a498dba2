//! The files of a checkpoint's folder that hold no weights.

use std::{collections::BTreeMap, fs, path::Path};

use burn_peft_files::{Error as FileError, StagedFolder};
use serde_json::{Value, json};

use super::super::{CONFIG_FILE, Checkpoint, INDEX_FILE, SINGLE_FILE, read_text};
use crate::Error;

/// Endings of files that hold weights. Those that were not read are not copied: they are the
/// weights without what was added.
const WEIGHTS_ENDINGS: [&str; 9] = [
    "safetensors",
    "bin",
    "pt",
    "pth",
    "ckpt",
    "gguf",
    "h5",
    "msgpack",
    "onnx",
];

impl Checkpoint {
    /// Copies everything in the folder that is no weights, with `config_keys` set to true in `config.json`, and
    /// the index of the weights: they have grown by `growth` bytes and by the tensors of `added`, each with its
    /// file.
    pub(super) fn copy_side_files(
        &self,
        staged: &StagedFolder,
        growth: u64,
        added: &BTreeMap<String, String>,
        config_keys: &[&str],
    ) -> Result<(), Error> {
        for entry in fs::read_dir(&self.path).map_err(FileError::to("read", &self.path))? {
            let from = entry.map_err(FileError::to("read", &self.path))?.path();
            let name = from.file_name().unwrap_or_default().to_string_lossy();
            if name == CONFIG_FILE && !config_keys.is_empty() {
                let text = edited(&from, |config| set_keys(config, config_keys))?;
                staged.write(&name, text.as_bytes())?;
            } else if is_side_file(&from, &name) {
                staged.write(&name, &burn_peft_files::read(&from)?)?;
            }
        }
        // Beside a single file, an index is left over from other weights.
        let sharded = self.files.iter().all(|file| file.name != SINGLE_FILE);
        if sharded {
            let path = self.path.join(INDEX_FILE);
            let text = match growth {
                0 => read_text(&path)?,
                _ => edited(&path, |index| grow(index, growth, added))?,
            };
            staged.write(INDEX_FILE, text.as_bytes())?;
        }
        Ok(())
    }
}

/// Whether a file of the folder goes with the weights and holds none.
fn is_side_file(path: &Path, name: &str) -> bool {
    // Through symbolic links: the files of the hub's cache are such.
    let is_file = fs::metadata(path).is_ok_and(|data| data.is_file());
    let has_weights = WEIGHTS_ENDINGS
        .iter()
        .any(|ending| path.extension().is_some_and(|e| e == *ending));
    // As in `pytorch_model.bin.index.json`.
    let is_index = name.ends_with(".index.json");
    is_file && !name.starts_with('.') && !has_weights && !is_index
}

/// The text of a JSON file after an edit, laid out as transformers does.
fn edited(path: &Path, edit: impl FnOnce(&mut Value)) -> Result<String, Error> {
    let mut value: Value = Error::json(path, &read_text(path)?, "JSON")?;
    edit(&mut value);
    Ok(format!("{value:#}\n"))
}

fn set_keys(config: &mut Value, keys: &[&str]) {
    for key in keys {
        config[*key] = json!(true);
    }
}

fn grow(index: &mut Value, growth: u64, added: &BTreeMap<String, String>) {
    if let Some(size) = index.pointer_mut("/metadata/total_size") {
        *size = json!(size.as_u64().unwrap_or_default() + growth);
    }
    for (name, file) in added {
        index["weight_map"][name] = json!(file);
    }
}
