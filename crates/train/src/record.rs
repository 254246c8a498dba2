//! The run's curve as data: one JSON object for each logged step and each evaluation.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::Path;

use burn_peft_files::{Error as FileError, if_exists};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Error, TrainerState};

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
    /// Memory in use, in units of 2^30 bytes: on a GPU the device's. `None` where the system does not say. It is not written
    /// down: the records of a resumed run are those of one that was never stopped.
    #[serde(skip)]
    pub memory_gib: Option<f64>,
}

/// An evaluation on the validation rows. The one after step 0 is of the base without an adapter.
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
    /// The scores of the task, where the evaluation computes them: `eval_accuracy` and the like.
    #[serde(flatten)]
    pub metrics: BTreeMap<String, f64>,
}

impl EvalRecord {
    /// A number of the evaluation by its name, without `eval_`. `None` where it is not defined for these rows.
    pub(crate) fn metric(&self, name: &str) -> Option<f64> {
        match name {
            "loss" => Some(self.eval_loss),
            "perplexity" => Some(self.eval_loss.exp()),
            name => self.metrics.get(&format!("eval_{name}")).copied(),
        }
    }

    /// For tests of what an evaluation decides.
    #[cfg(test)]
    pub(crate) fn of_loss(step: usize, eval_loss: f64) -> Self {
        Self {
            step,
            epoch: 0.0,
            eval_loss,
            eval_label_tokens: 1,
            eval_seconds: 0.0,
            metrics: BTreeMap::new(),
        }
    }
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

/// Those whom a run tells its records.
pub(crate) type Observers = Vec<Box<dyn Observer>>;

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

/// Opens `DIR/metrics.jsonl`, anew or to go on after a checkpoint.
///
/// Records that the checkpoint does not know of are dropped, since the resumed run makes them again, and so is a last
/// line that a crash cut short.
pub(crate) fn open_metrics(
    dir: &Path,
    resumed: Option<&TrainerState>,
) -> Result<JsonLines<File>, Error> {
    let path = dir.join("metrics.jsonl");
    let found = match fs::symlink_metadata(&path) {
        // A link is replaced, and what it points to left alone.
        Ok(data) if data.is_file() => Some(burn_peft_files::read(&path)?),
        other => if_exists(other.map(|_| Vec::new())).map_err(FileError::to("read", &path))?,
    };
    let lines = found
        .as_deref()
        .unwrap_or_default()
        .split(|byte| *byte == b'\n');
    let kept: Vec<u8> = lines
        .filter(|line| resumed.is_some_and(|state| is_known(line, state)))
        .flat_map(|line| [line, b"\n"].concat())
        .collect();
    if found.as_ref() != Some(&kept) || !path.is_file() || path.is_symlink() {
        burn_peft_files::write(&path, &kept)?;
    }
    let file = OpenOptions::new()
        .append(true)
        .open(&path)
        .map_err(FileError::to("open", &path))?;
    Ok(JsonLines::new(file, &path.display().to_string()))
}

/// Whether a line is a record of a step that is done, and not of an evaluation that was repeated after it.
fn is_known(line: &[u8], state: &TrainerState) -> bool {
    let Ok(record) = serde_json::from_slice::<Value>(line) else {
        return false;
    };
    let Some(step) = record.get("step").and_then(Value::as_u64) else {
        return false;
    };
    let done = state.step as u64;
    let evaluated = state.eval.as_ref().map(|eval| eval.step as u64);
    step < done || (step == done && (record.get("eval_loss").is_none() || evaluated == Some(step)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::RunIdentity;
    use crate::metrics::Window;

    fn state(step: usize, eval: Option<EvalRecord>) -> TrainerState {
        TrainerState {
            step,
            total_steps: 40,
            steps_per_epoch: 40,
            epoch: 0.0,
            seed: 0,
            best: Default::default(),
            learning_rate: 0.0,
            eval,
            window: Window::default(),
            totals: Default::default(),
            parameters: Default::default(),
            run: RunIdentity::default(),
        }
    }

    fn eval(step: usize) -> EvalRecord {
        EvalRecord {
            step,
            epoch: 0.5,
            eval_loss: 2.0,
            eval_label_tokens: 7,
            eval_seconds: 0.25,
            metrics: BTreeMap::new(),
        }
    }

    fn record(step: usize) -> LogRecord {
        LogRecord::Train(TrainRecord {
            step,
            epoch: 0.5,
            loss: 2.25,
            learning_rate: 1e-3,
            grad_norm: Some(0.5),
            tokens_per_second: 100.0,
            memory_gib: None,
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
        lines.record(&LogRecord::Eval(eval(10))).unwrap();
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
        let mut log = open_metrics(dir.path(), None).unwrap();
        for step in [10, 20, 30] {
            log.record(&record(step)).unwrap();
        }
        drop(log);
        let path = dir.path().join("metrics.jsonl");
        let mut torn = fs::read(&path).unwrap();
        torn.extend(b"{\"step\":4\xff");
        fs::write(&path, torn).unwrap();

        let mut log = open_metrics(dir.path(), Some(&state(20, None))).unwrap();
        assert_eq!(steps(dir.path()), [10, 20]);
        log.record(&record(25)).unwrap();
        assert_eq!(steps(dir.path()), [10, 20, 25]);
    }

    #[test]
    fn an_evaluation_that_the_checkpoint_does_not_know_of_is_made_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = open_metrics(dir.path(), None).unwrap();
        log.record(&record(20)).unwrap();
        log.record(&LogRecord::Eval(eval(20))).unwrap();
        open_metrics(dir.path(), Some(&state(20, Some(eval(20))))).unwrap();
        assert_eq!(steps(dir.path()), [20, 20]);
        open_metrics(dir.path(), Some(&state(20, Some(eval(10))))).unwrap();
        assert_eq!(steps(dir.path()), [20]);
    }

    #[test]
    fn a_fresh_run_starts_an_empty_file() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = open_metrics(dir.path(), None).unwrap();
        log.record(&record(10)).unwrap();
        open_metrics(dir.path(), None).unwrap();
        assert!(steps(dir.path()).is_empty());
    }

    #[cfg(unix)]
    #[test]
    fn a_link_in_its_place_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let outside = dir.path().join("outside");
        fs::write(&outside, "precious").unwrap();
        let run = dir.path().join("run");
        fs::create_dir(&run).unwrap();
        std::os::unix::fs::symlink(&outside, run.join("metrics.jsonl")).unwrap();
        let mut log = open_metrics(&run, None).unwrap();
        log.record(&record(10)).unwrap();
        assert_eq!(fs::read_to_string(&outside).unwrap(), "precious");
        assert_eq!(steps(&run), [10]);
    }
}
