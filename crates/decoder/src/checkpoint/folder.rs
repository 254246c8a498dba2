//! The files of a checkpoint's folder.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::ErrorKind,
    path::{Component, Path, PathBuf},
};

use burn_peft_files::Checksums;
use serde::{Deserialize, de::IgnoredAny};

use crate::Error;

/// The configuration.
pub(super) const CONFIG_FILE: &str = "config.json";
/// How it wants to be sampled.
pub(super) const GENERATION_FILE: &str = "generation_config.json";
/// The weights of a checkpoint that is not sharded.
pub(super) const SINGLE_FILE: &str = "model.safetensors";
/// Which shard each tensor is in.
pub(super) const INDEX_FILE: &str = "model.safetensors.index.json";

/// A subfolder with further chat templates.
pub(super) const TEMPLATES_FOLDER: &str = "additional_chat_templates";

/// `model.safetensors.index.json`.
#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// Files of a checkpoint that results depend on, beside its weights and their index.
const RESULT_FILES: [&str; 7] = [
    CONFIG_FILE,
    GENERATION_FILE,
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "additional_chat_templates/tool_use.jinja",
    "special_tokens_map.json",
];

/// Where the folder has a list of checksums: makes sure that its files are those of the list, and that the list is
/// whole.
pub(super) fn check_checksums(folder: &Path) -> Result<(), Error> {
    let Some(checksums) = Checksums::read(folder)? else {
        return Ok(());
    };
    checksums.verify(folder).map_err(changed(folder))?;
    let weights = weights_paths(folder)?;
    let weights = weights.iter().filter_map(|path| path.file_name()?.to_str());
    // Beside a single file, an index is left over from other weights.
    let index = (!folder.join(SINGLE_FILE).exists()).then_some(INDEX_FILE);
    let here = RESULT_FILES.into_iter().chain(index);
    let here = here.filter(|name| folder.join(name).exists());
    match here
        .chain(weights)
        .find(|name| checksums.get(name).is_none())
    {
        None => Ok(()),
        Some(name) => Err(Error::Listed {
            folder: folder.to_owned(),
            what: format!("does not list `{name}`"),
        }),
    }
}

/// What the check of a folder's checksums found.
pub(super) fn changed(folder: &Path) -> impl Fn(burn_peft_files::Error) -> Error {
    move |error| match error.source.kind() {
        ErrorKind::InvalidData => Error::Changed {
            path: error.path,
            source: error.source,
        },
        _ => Error::Listed {
            folder: folder.to_owned(),
            what: format!(
                "lists a file that cannot be read, `{}`",
                error.path.display()
            ),
        },
    }
}

pub(super) fn read_text(path: &Path) -> Result<String, Error> {
    Ok(burn_peft_files::read_to_string(path)?)
}

/// The text of `generation_config.json`. One that is no JSON counts as absent, as in transformers, and is noted.
pub(super) fn generation_text(
    folder: &Path,
    notes: &mut Vec<String>,
) -> Result<Option<String>, Error> {
    let path = folder.join(GENERATION_FILE);
    if !path.exists() {
        return Ok(None);
    }
    let text = String::from_utf8(burn_peft_files::read(&path)?);
    let is_json = |text: &String| serde_json::from_str::<IgnoredAny>(text).is_ok();
    let text = text.ok().filter(is_json);
    if text.is_none() {
        notes.push(format!(
            "{}: it is not JSON, and is ignored; {CONFIG_FILE} is read instead",
            path.display()
        ));
    }
    Ok(text)
}

/// The files that hold the weights.
pub(super) fn weights_paths(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let single = folder.join(SINGLE_FILE);
    if single.exists() {
        return Ok(vec![single]);
    }
    let index_path = folder.join(INDEX_FILE);
    if !index_path.exists() {
        return Err(Error::NoWeights {
            folder: folder.to_owned(),
        });
    }
    let index: Index = Error::json(&index_path, &read_text(&index_path)?, INDEX)?;
    let shards: BTreeSet<_> = index.weight_map.into_values().collect();
    let path = |name: String| match is_plain_name(&name) {
        true => Ok(folder.join(name)),
        false => Err(Error::OutsideFolder {
            index: index_path.clone(),
            name,
        }),
    };
    shards.into_iter().map(path).collect()
}

/// What the index should be.
const INDEX: &str =
    "an index of weights: it needs `weight_map`, which gives each tensor's name the name of a file";

/// Whether `name` can only be a file of the folder itself.
fn is_plain_name(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    let first = parts.next();
    matches!(first, Some(Component::Normal(part)) if part == name) && parts.next().is_none()
}
