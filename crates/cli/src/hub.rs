//! Models by hub id, through Hugging Face's own cache.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use hf_hub::{Cache, Repo, RepoType, api::sync::ApiBuilder};

/// The files of a checkpoint that are used; weights are found by their ending.
const FILES: [&str; 6] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "model.safetensors.index.json",
];

/// Whether `name` can be a hub id: `owner/model`.
pub(crate) fn is_hub_id(name: &str) -> bool {
    let part = |text: &str| {
        !text.is_empty()
            && !text.starts_with('.')
            && text
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    };
    matches!(name.split_once('/'), Some((owner, model)) if part(owner) && part(model))
}

/// The folder of a hub model in the local cache (`HF_HOME`), fetched first where it is not whole.
/// With `HF_HUB_OFFLINE` set, nothing is fetched.
pub(crate) fn snapshot(id: &str, revision: Option<&str>) -> Result<PathBuf> {
    let revision = revision.unwrap_or("main").to_owned();
    let repo = Repo::with_revision(id.to_owned(), RepoType::Model, revision.clone());
    let cached = Cache::from_env().repo(repo.clone());
    if let Some(folder) = cached.get("config.json").as_deref().and_then(Path::parent)
        && is_whole(folder)
    {
        return Ok(folder.to_owned());
    }
    if is_set("HF_HUB_OFFLINE") {
        bail!("`{id}` (revision {revision}) is not in the cache, and HF_HUB_OFFLINE is set");
    }
    let api = ApiBuilder::from_env()
        .build()
        .context("the hub client could not start")?
        .repo(repo);
    let failed = || format!("`{id}` (revision {revision}) could not be fetched from the hub");
    let info = api.info().with_context(failed)?;
    let mut folder = None;
    for file in info.siblings.iter().map(|sibling| &sibling.rfilename) {
        // Weights of other formats and of sub-folders are other programs' business.
        let weights = file.ends_with(".safetensors") && !file.contains('/');
        if FILES.contains(&file.as_str()) || weights {
            let path = api.get(file).with_context(failed)?;
            folder = path.parent().map(Path::to_owned);
        }
    }
    folder.with_context(|| format!("`{id}` on the hub holds no model in Hugging Face layout"))
}

/// Whether every file that the checkpoint names is there.
fn is_whole(folder: &Path) -> bool {
    if !folder.join("tokenizer.json").exists() {
        return false;
    }
    if folder.join("model.safetensors").exists() {
        return true;
    }
    let index = std::fs::read_to_string(folder.join("model.safetensors.index.json"));
    let Ok(Ok(index)) = index.map(|text| serde_json::from_str::<serde_json::Value>(&text)) else {
        return false;
    };
    index["weight_map"].as_object().is_some_and(|map| {
        map.values()
            .filter_map(|shard| shard.as_str())
            .all(|shard| folder.join(shard).exists())
    })
}

/// Environment switches as huggingface_hub reads them.
fn is_set(name: &str) -> bool {
    std::env::var(name).is_ok_and(|value| {
        ["1", "ON", "YES", "TRUE"].contains(&value.to_ascii_uppercase().as_str())
    })
}

#[cfg(test)]
mod tests {
    use super::is_hub_id;

    #[test]
    fn a_hub_id_is_owner_slash_model() {
        assert!(is_hub_id("Qwen/Qwen2.5-1.5B-Instruct"));
        for path in ["model", "./model/x", "a/b/c", "/abs", "../x"] {
            assert!(!is_hub_id(path), "{path}");
        }
    }
}
