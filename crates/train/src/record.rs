//! The run's curve as data: one JSON object for each logged step and each evaluation.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::Path;

use burn_peft_files::{Error as FileError, if_exists};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Error;

/// A logged step: means over the steps since the last one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainRecord {
    /// Steps done.
    pub step: usize,
    /// Epochs done.
    pub epoch: f64,
    /// Mean of the steps' losses, in nats per supervised token.
    pub loss: f64,
    /// The rate that the last of the steps used.
    pub learning_rate: f64,
    /// Mean joint L2 norm of the gradients, before clipping.
    pub grad_norm: Option<f64>,
    /// Tokens of the rows per second; evaluations and checkpoints do not count.
    pub tokens_per_second: f64,
}

/// An evaluation on the validation rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EvalRecord {
    /// Steps done.
    pub step: usize,
    /// Epochs done.
    pub epoch: f64,
    /// Mean over all supervised tokens, in nats.
    pub eval_loss: f64,
    /// Supervised tokens.
    pub eval_label_tokens: usize,
    /// Wall time of the evaluation.
    pub eval_seconds: f64,
}

/// A line of `metrics.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum LogRecord {
    /// A logged step.
    Train(TrainRecord),
    /// An evaluation.
    Eval(EvalRecord),
}

/// Is told each record as it is made, on the thread that trains. An error ends the run.
pub trait Observer: Send {
    /// Takes a record.
    ///
    /// # Errors
    /// Whatever keeps the record from being kept.
    fn record(&mut self, record: &LogRecord) -> Result<(), Error>;
}

impl<F: FnMut(&LogRecord) -> Result<(), Error> + Send> Observer for F {
    fn record(&mut self, record: &LogRecord) -> Result<(), Error> {
        self(record)
    }
}

/// Writes each record as a line of JSON: into `metrics.jsonl`, or to standard output for `--json`.
#[derive(Debug)]
pub struct JsonLines<W> {
    writer: W,
    name: String,
}

impl<W: Write + Send> JsonLines<W> {
    /// Lines on `writer`, which errors call `name`.
    pub fn new(writer: W, name: &str) -> Self {
        Self {
            writer,
            name: name.into(),
        }
    }
}

impl<W: Write + Send> Observer for JsonLines<W> {
    fn record(&mut self, record: &LogRecord) -> Result<(), Error> {
        let mut line = serde_json::to_string(record).unwrap_or_else(|error| {
            unreachable!("a record is numbers under string keys, which JSON can hold: {error}")
        });
        line.push('\n');
        // In one piece and at once: a reader never sees half a line, a crash loses none.
        self.writer
            .write_all(line.as_bytes())
            .and_then(|()| self.writer.flush())
            .map_err(FileError::to("write", Path::new(&self.name)))?;
        Ok(())
    }
}

/// Opens `DIR/metrics.jsonl` to go on after `step`.
///
/// Records beyond `step` are dropped, since the resumed run makes them again, and so is a last line
/// that a crash cut short.
pub(crate) fn open_metrics(dir: &Path, step: usize) -> Result<JsonLines<File>, Error> {
    let path = dir.join("metrics.jsonl");
    let found = if_exists(fs::read_to_string(&path)).map_err(FileError::to("read", &path))?;
    let is_new = found.is_none();
    let found = found.unwrap_or_default();
    let kept: String = found
        .lines()
        .filter(|line| {
            serde_json::from_str::<Value>(line)
                .ok()
                .and_then(|record| record.get("step")?.as_u64())
                .is_some_and(|found| found <= step as u64 && step > 0)
        })
        .flat_map(|line| [line, "\n"])
        .collect();
    if kept != found || is_new {
        burn_peft_files::write(&path, kept.as_bytes())?;
    }
    let file = OpenOptions::new()
        .append(true)
        .open(&path)
        .map_err(FileError::to("open", &path))?;
    Ok(JsonLines::new(file, &path.display().to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(step: usize) -> LogRecord {
        LogRecord::Train(TrainRecord {
            step,
            epoch: 0.5,
            loss: 2.25,
            learning_rate: 1e-3,
            grad_norm: Some(0.5),
            tokens_per_second: 100.0,
        })
    }

    fn steps(dir: &Path) -> Vec<u64> {
        let text = fs::read_to_string(dir.join("metrics.jsonl")).unwrap();
        text.lines()
            .map(|line| {
                serde_json::from_str::<Value>(line).unwrap()["step"]
                    .as_u64()
                    .unwrap()
            })
            .collect()
    }

    #[test]
    fn a_record_is_one_line_with_the_documented_keys() {
        let mut lines = JsonLines::new(Vec::new(), "memory");
        lines.record(&record(10)).unwrap();
        lines
            .record(&LogRecord::Eval(EvalRecord {
                step: 10,
                epoch: 0.5,
                eval_loss: 2.0,
                eval_label_tokens: 7,
                eval_seconds: 0.25,
            }))
            .unwrap();
        let text = String::from_utf8(lines.writer).unwrap();
        let expected = "{\"step\":10,\"epoch\":0.5,\"loss\":2.25,\"learning_rate\":0.001,\"grad_norm\":0.5,\
                        \"tokens_per_second\":100.0}\n{\"step\":10,\"epoch\":0.5,\"eval_loss\":2.0,\
                        \"eval_label_tokens\":7,\"eval_seconds\":0.25}\n";
        assert_eq!(text, expected);
        assert_eq!(
            serde_json::from_str::<LogRecord>(text.lines().next().unwrap()).unwrap(),
            record(10)
        );
    }

    #[test]
    fn resuming_drops_later_records_and_a_torn_line() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = open_metrics(dir.path(), 0).unwrap();
        for step in [10, 20, 30] {
            log.record(&record(step)).unwrap();
        }
        drop(log);
        let path = dir.path().join("metrics.jsonl");
        let torn = fs::read_to_string(&path).unwrap() + "{\"step\":4";
        fs::write(&path, torn).unwrap();

        let mut log = open_metrics(dir.path(), 20).unwrap();
        assert_eq!(steps(dir.path()), [10, 20]);
        log.record(&record(25)).unwrap();
        assert_eq!(steps(dir.path()), [10, 20, 25]);
    }

    #[test]
    fn a_fresh_run_starts_an_empty_file() {
        let dir = tempfile::tempdir().unwrap();
        open_metrics(dir.path(), 0)
            .unwrap()
            .record(&record(10))
            .unwrap();
        open_metrics(dir.path(), 0).unwrap();
        assert!(steps(dir.path()).is_empty());
    }
}
