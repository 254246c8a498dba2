//! The files of a checkpoint's folder.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Component, Path, PathBuf},
};

use serde::Deserialize;

use crate::Error;

/// The configuration.
pub(super) const CONFIG_FILE: &str = "config.json";
/// How it wants to be sampled.
pub(super) const GENERATION_FILE: &str = "generation_config.json";
/// The weights of a checkpoint that is not sharded.
pub(super) const SINGLE_FILE: &str = "model.safetensors";
/// Which shard each tensor is in.
pub(super) const INDEX_FILE: &str = "model.safetensors.index.json";

/// `model.safetensors.index.json`.
#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

pub(super) fn read_text(path: &Path) -> Result<String, Error> {
    Ok(burn_peft_files::read_to_string(path)?)
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
