//! A short run, and what it leaves.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;
use tempfile::{TempDir, tempdir};

use super::{burn_peft, model_path, rows_file, text};

/// A folder with a file of rows, and where a run may leave its own.
pub(super) fn place(rows: usize) -> (TempDir, String, PathBuf) {
    let folder = tempdir().unwrap();
    let (data, output) = (rows_file(folder.path(), rows), folder.path().join("run"));
    (folder, data, output)
}

/// A short run whose saving, logging and evaluating do not fall together.
pub(super) fn arguments(data: &str, output: &Path, more: &[&str]) -> Vec<String> {
    let fixed = [
        "train",
        "--no-tui",
        "--model",
        &model_path(),
        "--data",
        data,
        "--valid",
        data,
        "--output",
        text(output),
    ]
    .map(str::to_owned);
    let set = [
        "train.per_device_train_batch_size=2",
        "train.save_steps=4",
        "train.logging_steps=3",
        "train.eval_steps=5",
    ];
    let set = set.map(|set| ["--set".to_owned(), set.to_owned()]);
    let more = more.iter().map(|argument| (*argument).to_owned());
    fixed
        .into_iter()
        .chain(set.into_iter().flatten())
        .chain(more)
        .collect()
}

pub(super) fn train(data: &str, output: &Path, more: &[&str]) -> Command {
    let arguments = arguments(data, output, more);
    burn_peft(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
}

/// Every file of a folder.
pub(super) fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(contents(&path)),
            false => {
                found.insert(path.clone(), fs::read(&path).unwrap());
            }
        }
    }
    found
}

/// The records of a run, without what a clock decides.
pub(super) fn metrics(output: &Path) -> Vec<Value> {
    let lines = fs::read_to_string(output.join("metrics.jsonl")).unwrap();
    let record = |line: &str| {
        let mut record: Value = serde_json::from_str(line).unwrap();
        let keys = record.as_object_mut().unwrap();
        keys.remove("tokens_per_second");
        keys.remove("eval_seconds");
        record
    };
    lines.lines().map(record).collect()
}

pub(super) fn adapter(output: &Path) -> Vec<u8> {
    fs::read(output.join("adapter_model.safetensors")).unwrap()
}
