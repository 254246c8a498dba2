//! Models by hub id, through Hugging Face's own cache.

mod client;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use hf_hub::{Cache, Repo, RepoType};

use client::{Client, PATIENCE};

/// The files of a checkpoint that are used; weights are found by their ending.
const FILES: [&str; 8] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "additional_chat_templates/tool_use.jinja",
    "model.safetensors.index.json",
];

/// Ending of the files of weights.
const WEIGHTS_ENDING: &str = ".safetensors";

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

/// Whether `name` can be the name of a file or folder of the cache: commits and etags are such.
fn is_plain_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    (1..=128).contains(&name.len()) && !name.starts_with('.') && name.chars().all(plain)
}

/// The folder of a hub model in the local cache (`HF_HOME`), fetched first where it is not whole.
/// With `HF_HUB_OFFLINE` set, nothing is fetched.
pub(crate) fn snapshot(id: &str, revision: Option<&str>) -> Result<PathBuf> {
    let revision = revision.unwrap_or("main").to_owned();
    if !revision.split('/').all(is_plain_name) {
        bail!("--revision {revision}: it is no name of a branch, a tag or a commit");
    }
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
    let cache = Cache::from_env();
    let endpoint = std::env::var("HF_ENDPOINT");
    let endpoint = endpoint.as_deref().unwrap_or("https://huggingface.co");
    let client = Client::new(endpoint, cache.token(), PATIENCE);
    let folder = cache.path().join(repo.folder_name());
    fetch(&client, id, &revision, &folder)
        .with_context(|| format!("`{id}` (revision {revision}) could not be fetched from the hub"))
}

/// Fetches what a checkpoint needs into the repository's folder of the cache, and returns the folder of the snapshot.
fn fetch(client: &Client, id: &str, revision: &str, folder: &Path) -> Result<PathBuf> {
    let info = client.info(id, revision)?;
    let mut commit: Option<String> = None;
    for file in info.files()? {
        // Weights of other formats and of sub-folders are other programs' business.
        let weights = file.ends_with(WEIGHTS_ENDING) && !file.contains('/');
        if !FILES.contains(&file) && !weights {
            continue;
        }
        let of = client.fetch(id, revision, file, &info, folder)?;
        if commit.get_or_insert_with(|| of.clone()) != &of {
            bail!("it was changed meanwhile; try again");
        }
    }
    let commit = commit.context("there is no model in Hugging Face layout")?;
    // The last thing to be written: what it names is whole.
    client::note_revision(folder, revision, &commit)?;
    Ok(folder.join("snapshots").join(commit))
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
