//! The binary as its users meet it: files in, files and lines out, exit codes.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use serde_json::Value;
use tempfile::{TempDir, tempdir};

use crate::fixture;

mod adapters;
mod bench;
mod best_checkpoint;
mod chat;
mod conversations;
mod damage;
mod data_choices;
mod doctor;
mod export;
mod export_prompts;
mod formats;
mod gguf;
mod heads;
mod hub;
mod key_hints;
mod methods;
#[cfg(feature = "mpi")]
mod mpi;
mod output;
mod refusals;
mod resume;
mod runs;
#[cfg(unix)]
mod serving;
mod short_run;
#[cfg(unix)]
mod stopping;
mod tasks;
mod templates;
mod watching;

fn burn_peft(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_burn-peft"));
    command.args(args);
    command
}

fn succeed(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {stderr}");
    output
}

/// Runs what must fail, and returns the one line it says.
fn refused(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{command:?}: {stderr}");
    let line = stderr.lines().last().unwrap_or_default().to_owned();
    assert!(line.starts_with("error: "), "{command:?}: {stderr}");
    assert!(!stderr.contains("panicked"), "{command:?}: {stderr}");
    line
}

fn lines(output: &Output) -> Vec<Value> {
    let stdout = String::from_utf8_lossy(&output.stdout);
    stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn copy_model(name: &str) -> TempDir {
    let folder = tempdir().unwrap();
    for entry in fs::read_dir(fixture::path("models").join(name)).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
    }
    folder
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A file of rows for the fixture models.
fn rows_file(folder: &Path, rows: usize) -> String {
    let path = folder.join("rows.jsonl");
    let rows: Vec<String> = (0..rows)
        .map(|i| {
            format!(
                r#"{{"prompt": "the cat {i} ", "completion": "sat on mat {}"}}"#,
                i % 7
            )
        })
        .collect();
    fs::write(&path, rows.join("\n")).unwrap();
    text(&path).to_owned()
}

/// A file of JSON.
fn read_json(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

fn model_path() -> String {
    text(&fixture::path("models/tied_gqa")).to_owned()
}

/// The configuration of an adapter folder, without its checksums, so that it can be edited.
fn config_to_edit(folder: &Path) -> Value {
    let mut config = read_json(&folder.join("adapter_config.json"));
    config
        .as_object_mut()
        .unwrap()
        .remove("burn_peft_checksums");
    config
}

fn write_config(folder: &Path, config: &Value) {
    fs::write(folder.join("adapter_config.json"), config.to_string()).unwrap();
}

fn folder_size(folder: &Path) -> u64 {
    fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .sum()
}
