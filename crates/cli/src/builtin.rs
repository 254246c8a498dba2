//! The model and the task that are part of the program (`assets/`).

use std::path::Path;

use anyhow::{Context, Result};
use burn_peft_data::{Rows, Task, TextTokenizer, parse_rows};
use burn_peft_decoder::Checkpoint;

macro_rules! asset {
    ($path:expr) => {
        concat!(env!("CARGO_MANIFEST_DIR"), "/../../assets/", $path)
    };
}

/// The settings of the run without arguments.
pub(crate) const RUN_TOML: &str = include_str!(asset!("run.toml"));

/// Stands for the path of the built-in model in messages and in adapter folders.
pub(crate) const MODEL_NAME: &str = "built-in";

const CONFIG: &str = include_str!(asset!("model/config.json"));
const GENERATION_CONFIG: &str = include_str!(asset!("model/generation_config.json"));
static WEIGHTS: &[u8] = include_bytes!(asset!("model/model.safetensors"));
static TOKENIZER: &[u8] = include_bytes!(asset!("model/tokenizer.json"));
const TOKENIZER_CONFIG: &str = include_str!(asset!("model/tokenizer_config.json"));
const CHAT_TEMPLATE: &str = include_str!(asset!("model/chat_template.jinja"));

/// The small Qwen2 of `assets/model`.
pub(crate) fn checkpoint() -> Result<Checkpoint> {
    Ok(Checkpoint::embedded(
        MODEL_NAME,
        CONFIG,
        GENERATION_CONFIG,
        WEIGHTS,
    )?)
}

/// Its tokenizer.
pub(crate) fn tokenizer() -> Result<TextTokenizer> {
    Ok(TextTokenizer::from_bytes(
        TOKENIZER,
        TOKENIZER_CONFIG.as_bytes(),
        Some(CHAT_TEMPLATE),
    )?)
}

/// Writes its files to `folder`, as any other model lies in one.
pub(crate) fn unpack(folder: &Path) -> Result<()> {
    for (name, bytes) in [
        ("config.json", CONFIG.as_bytes()),
        ("generation_config.json", GENERATION_CONFIG.as_bytes()),
        ("model.safetensors", WEIGHTS),
        ("tokenizer.json", TOKENIZER),
        ("tokenizer_config.json", TOKENIZER_CONFIG.as_bytes()),
        ("chat_template.jinja", CHAT_TEMPLATE.as_bytes()),
    ] {
        let path = folder.join(name);
        std::fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// The built-in task's rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Split {
    Train,
    Valid,
    Test,
}

impl Split {
    /// All of them.
    pub(crate) const ALL: [Self; 3] = [Self::Train, Self::Valid, Self::Test];
}

/// One split of the rows of `assets/task` for a task.
pub(crate) fn rows(task: Task, split: Split) -> Result<Rows> {
    macro_rules! splits {
        ($folder:literal) => {
            match split {
                Split::Train => rows!($folder, "train"),
                Split::Valid => rows!($folder, "valid"),
                Split::Test => rows!($folder, "test"),
            }
        };
    }
    macro_rules! rows {
        ($folder:literal, $split:literal) => {
            (
                concat!("built-in ", $folder, $split, ".jsonl"),
                include_str!(asset!(concat!("task/", $folder, $split, ".jsonl"))),
            )
        };
    }
    let (name, text) = match task {
        Task::CausalLm => splits!(""),
        Task::SeqCls => splits!("seq-cls/"),
        Task::TokenCls => splits!("token-cls/"),
        Task::Qa => splits!("qa/"),
    };
    Ok(parse_rows(name, text)?)
}
