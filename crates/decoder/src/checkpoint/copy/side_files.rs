//! The files of a checkpoint's folder that hold no weights.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use burn_peft_files::{CHECKSUMS_FILE, Error as FileError, StagedFolder};
use serde_json::{Map, Value, json};

use super::super::{CONFIG_FILE, Checkpoint, INDEX_FILE, SINGLE_FILE, TEMPLATES_FOLDER, read_text};
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

/// Endings of files on which a result may depend: configurations, tokenizers, templates.
const RESULT_ENDINGS: [&str; 4] = ["json", TEMPLATE_ENDING, "model", "txt"];
/// Ending of chat templates.
const TEMPLATE_ENDING: &str = "jinja";

/// What the files of a copy that hold no weights have and the original's have not.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SideFiles {
    /// Keys of `config.json`, with their new values.
    pub config: Map<String, Value>,
    /// Whole files by their names in the folder, in place of the original's or beside them. Those that results depend on
    /// must have an ending that says so: `json` or `jinja`.
    pub files: BTreeMap<String, Vec<u8>>,
}

impl Checkpoint {
    /// Copies what results depend on beside the weights, with the changes of `changed`, and
    /// the index of the weights: they have grown by `growth` bytes and by the tensors of `added`, each with its
    /// file.
    pub(super) fn copy_side_files(
        &self,
        staged: &StagedFolder,
        growth: u64,
        added: &BTreeMap<String, String>,
        changed: &SideFiles,
    ) -> Result<(), Error> {
        for (name, from) in self.side_files(true)? {
            if changed.files.contains_key(&name) {
                continue;
            }
            if name == CONFIG_FILE && !changed.config.is_empty() {
                let text = edited(&from, |config| set_keys(config, &changed.config))?;
                staged.write(&name, text.as_bytes())?;
            } else {
                staged.write(&name, &burn_peft_files::read(&from)?)?;
            }
        }
        for (name, bytes) in &changed.files {
            if has_ending(Path::new(name), &RESULT_ENDINGS) {
                staged.write(name, bytes)?;
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

    /// Copies what no result depends on: descriptions, licences, pictures.
    pub(super) fn copy_descriptions(
        &self,
        staged: &StagedFolder,
        changed: &SideFiles,
    ) -> Result<(), Error> {
        for (name, from) in self.side_files(false)? {
            if !changed.files.contains_key(&name) {
                staged.write(&name, &burn_peft_files::read(&from)?)?;
            }
        }
        for (name, bytes) in &changed.files {
            if !has_ending(Path::new(name), &RESULT_ENDINGS) {
                staged.write(name, bytes)?;
            }
        }
        Ok(())
    }

    /// The files of the folder that go with the weights and hold none, by their names: those on which results
    /// depend, or the others.
    fn side_files(&self, for_results: bool) -> Result<BTreeMap<String, PathBuf>, Error> {
        let mut found = BTreeMap::new();
        for (name, path) in entries(&self.path)? {
            if is_side_file(&path, &name) && has_ending(&path, &RESULT_ENDINGS) == for_results {
                found.insert(name, path);
            }
        }
        let templates = self.path.join(TEMPLATES_FOLDER);
        if for_results && templates.is_dir() {
            for (name, path) in entries(&templates)? {
                if is_side_file(&path, &name) && has_ending(&path, &[TEMPLATE_ENDING]) {
                    found.insert(format!("{TEMPLATES_FOLDER}/{name}"), path);
                }
            }
        }
        Ok(found)
    }
}

/// What a folder has in it, with the names.
fn entries(folder: &Path) -> Result<Vec<(String, PathBuf)>, Error> {
    let found = fs::read_dir(folder).map_err(FileError::to("read", folder))?;
    let named = found.map(|entry| {
        let path = entry.map_err(FileError::to("read", folder))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        Ok((name.into_owned(), path))
    });
    named.collect()
}

fn has_ending(path: &Path, endings: &[&str]) -> bool {
    let ending = path.extension();
    endings
        .iter()
        .any(|known| ending.is_some_and(|ending| ending == *known))
}

/// Whether a file of the folder goes with the weights and holds none.
fn is_side_file(path: &Path, name: &str) -> bool {
    // Through symbolic links: the files of the hub's cache are such.
    let is_file = fs::metadata(path).is_ok_and(|data| data.is_file());
    // As in `pytorch_model.bin.index.json`.
    let is_index = name.ends_with(".index.json");
    // The copy gets a list of its own.
    let is_list = name == CHECKSUMS_FILE;
    let is_hidden = name.starts_with('.');
    is_file && !is_hidden && !is_index && !is_list && !has_ending(path, &WEIGHTS_ENDINGS)
}

/// The text of a JSON file after an edit, laid out as transformers does.
fn edited(path: &Path, edit: impl FnOnce(&mut Value)) -> Result<String, Error> {
    let mut value: Value = Error::json(path, &read_text(path)?, "JSON")?;
    edit(&mut value);
    Ok(format!("{value:#}\n"))
}

fn set_keys(config: &mut Value, keys: &Map<String, Value>) {
    for (key, value) in keys {
        config[key] = value.clone();
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
