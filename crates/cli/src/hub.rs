//! Models and adapters by hub id, through Hugging Face's own cache.

mod client;
mod download;
mod environment;
mod name;
mod retry;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use burn_peft_format::{CONFIG_FILE, WEIGHTS_FILE};

use client::{Client, Sibling};
use download::Download;
use environment::Environment;
pub(crate) use name::HubName;

use crate::output;

/// The files of a checkpoint that are used; weights are found by their ending.
const MODEL_FILES: [&str; 8] = [
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

/// What PEFT wrote before safetensors.
const PICKLED_ADAPTER: &str = "adapter_model.bin";

/// What is wanted of a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Contents {
    /// A checkpoint and its tokenizer.
    Model,
    /// An adapter folder.
    Adapter,
}

/// The folder that `name`, which is no folder here, has in the cache, fetched first where that is not whole.
///
/// # Errors
/// A name that can only be a path; and what keeps the hub from sending it. Both are said, as nobody knows which was meant.
pub(crate) fn folder(name: &str, revision: Option<&str>, contents: Contents) -> Result<PathBuf> {
    let hub_name = HubName::parse(name).map_err(|why| anyhow!("{name}: no such folder, {why}"))?;
    let own = hub_name.revision.as_deref();
    if own.is_some() && contents == Contents::Model {
        // It stands in files of its own key.
        bail!("{name}: the revision of a model is given by --revision (`model.revision`)");
    }
    let revision = own.or(revision).unwrap_or("main");
    if !name::is_revision(revision) {
        bail!("--revision {revision}: it is no name of a branch, a tag or a commit");
    }
    let environment = Environment::read()?;
    snapshot(&environment, &hub_name, revision, contents)
        .with_context(|| format!("{name}: no such folder, and not fetched from the hub"))
}

/// The folder of a repository in the cache.
fn snapshot(
    environment: &Environment,
    name: &HubName,
    revision: &str,
    contents: Contents,
) -> Result<PathBuf> {
    let folder = format!("models--{}", name.id.replace('/', "--"));
    let folder = environment.cache.join(folder);
    let cached = download::cached(&folder, revision).filter(|cached| contents.is_whole(cached));
    if environment.offline {
        return cached.with_context(|| {
            format!("it is not in the cache (revision {revision}), and HF_HUB_OFFLINE is set")
        });
    }
    // A commit does not change.
    let is_commit = revision.len() == 40 && revision.bytes().all(|b| b.is_ascii_hexdigit());
    if let (Some(cached), true) = (&cached, is_commit) {
        return Ok(cached.clone());
    }
    let client = Client::new(environment, name, revision);
    match (
        fetch(&client, name, revision, &folder, contents, cached.is_some()),
        cached,
    ) {
        (Err(error), Some(cached)) => {
            let copy = format!("{} of the hub's cache is used", cached.display());
            output::warn(&format!("{}: {error:#}; {copy}", name.id));
            Ok(cached)
        }
        (fetched, _) => fetched,
    }
}

/// Fetches what is wanted into the repository's folder of the cache, and returns the folder of the snapshot.
fn fetch(
    client: &Client,
    name: &HubName,
    revision: &str,
    folder: &Path,
    contents: Contents,
    is_cached: bool,
) -> Result<PathBuf> {
    let info = client.info(is_cached)?;
    let commit = info.commit()?;
    let files = contents.files(info.files()?, &name.id)?;
    let mut download = Download::new(client, folder, commit);
    download.fetch(&name.id, &files)?;
    // The last thing to be written: what it names is whole.
    download::note_revision(folder, revision, commit)?;
    Ok(download.snapshot())
}

impl Contents {
    /// Those of a repository's files that are used.
    fn files<'a>(self, all: &'a [Sibling], id: &str) -> Result<Vec<&'a Sibling>> {
        let has = |name: &str| all.iter().any(|file| file.name == name);
        let is_used = |file: &&Sibling| match self {
            // Weights of other formats and of sub-folders are other programs' business.
            Self::Model => {
                let weights = file.name.ends_with(WEIGHTS_ENDING) && !file.name.contains('/');
                // Those of an adapter in the same repository are not the model's.
                MODEL_FILES.contains(&&*file.name) || (weights && file.name != WEIGHTS_FILE)
            }
            Self::Adapter => [CONFIG_FILE, WEIGHTS_FILE].contains(&&*file.name),
        };
        match self {
            Self::Model if !has("config.json") && has(CONFIG_FILE) => {
                bail!("it is an adapter, no model; name it with --adapter")
            }
            Self::Model if !has("config.json") => bail!("there is no model in Hugging Face layout"),
            Self::Adapter if !has(CONFIG_FILE) => {
                bail!("it has no {CONFIG_FILE}, so it is no adapter")
            }
            Self::Adapter if !has(WEIGHTS_FILE) && has(PICKLED_ADAPTER) => bail!(
                "its weights are a pickle ({PICKLED_ADAPTER}), which is not read here; convert them: \
                 `hf download {id} --local-dir DIR`, and in Python \
                 `safetensors.torch.save_file(torch.load(\"DIR/{PICKLED_ADAPTER}\", weights_only=True), \
                 \"DIR/{WEIGHTS_FILE}\")`"
            ),
            Self::Adapter if !has(WEIGHTS_FILE) => bail!("it has no {WEIGHTS_FILE}"),
            _ => Ok(all.iter().filter(is_used).collect()),
        }
    }

    /// Whether everything is there that it needs.
    fn is_whole(self, folder: &Path) -> bool {
        let has = |name: &str| folder.join(name).exists();
        match self {
            Self::Adapter => has(CONFIG_FILE) && has(WEIGHTS_FILE),
            Self::Model if !has("config.json") || !has("tokenizer.json") => false,
            Self::Model => has("model.safetensors") || has_all_shards(folder),
        }
    }
}

/// Whether every file that the index of a checkpoint names is there.
fn has_all_shards(folder: &Path) -> bool {
    let index = burn_peft_files::read_to_string(&folder.join("model.safetensors.index.json"));
    let Ok(Ok(index)) = index.map(|text| serde_json::from_str::<serde_json::Value>(&text)) else {
        return false;
    };
    index["weight_map"].as_object().is_some_and(|map| {
        map.values()
            .filter_map(|shard| shard.as_str())
            .all(|shard| folder.join(shard).exists())
    })
}
