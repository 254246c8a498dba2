//! The model and the task that are part of the program (`assets/`).

use anyhow::Result;
use burn_peft_data::{Rows, TextTokenizer, parse_rows};
use burn_qwen2::Checkpoint;

macro_rules! asset {
    ($path:literal) => {
        concat!(env!("CARGO_MANIFEST_DIR"), "/../../assets/", $path)
    };
}

/// The settings of the run without arguments.
pub(crate) const RUN_TOML: &str = include_str!(asset!("run.toml"));

/// The learning rate of each method on the built-in model and task. They are above the methods' defaults,
/// which are for models a thousand times the size; found on valid.jsonl, in factors of 3.
const LEARNING_RATES: [(&str, f64); 5] = [
    ("prompt-tuning", 3e-1),
    ("p-tuning", 3e-3),
    ("prefix-tuning", 3e-3),
    ("p-tuning-v2", 3e-2),
    ("bitfit", 1e-2),
];

/// The learning rate of a method on the built-in model and task.
pub(crate) fn learning_rate(method: &str) -> Option<f64> {
    let row = LEARNING_RATES.iter().find(|(name, _)| *name == method);
    row.map(|(_, rate)| *rate)
}

/// Stands for the path of the built-in model in messages and in adapter folders.
pub(crate) const MODEL_NAME: &str = "built-in";

/// The small Qwen2 of `assets/model`.
pub(crate) fn checkpoint() -> Result<Checkpoint> {
    Ok(Checkpoint::embedded(
        MODEL_NAME,
        include_str!(asset!("model/config.json")),
        include_str!(asset!("model/generation_config.json")),
        include_bytes!(asset!("model/model.safetensors")),
    )?)
}

/// Its tokenizer.
pub(crate) fn tokenizer() -> Result<TextTokenizer> {
    Ok(TextTokenizer::from_bytes(
        include_bytes!(asset!("model/tokenizer.json")),
        include_bytes!(asset!("model/tokenizer_config.json")),
        Some(include_str!(asset!("model/chat_template.jinja"))),
    )?)
}

/// The built-in task's rows.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Split {
    Train,
    Valid,
    Test,
}

/// One split of the task of `assets/task`.
pub(crate) fn rows(split: Split) -> Result<Rows> {
    let (name, text) = match split {
        Split::Train => (
            "built-in train.jsonl",
            include_str!(asset!("task/train.jsonl")),
        ),
        Split::Valid => (
            "built-in valid.jsonl",
            include_str!(asset!("task/valid.jsonl")),
        ),
        Split::Test => (
            "built-in test.jsonl",
            include_str!(asset!("task/test.jsonl")),
        ),
    };
    Ok(parse_rows(name, text)?)
}
