//! Event files of TensorBoard: the records of a run under the names that transformers' callback gives them.
//!
//! A file is a sequence of records in TensorFlow's `TFRecord` framing, each an `Event` of TensorBoard's `event.proto`. Of
//! that, three kinds are needed: the version of the format, scalars, and where a process went on. They are a dozen
//! fields, which `event` writes by hand; the crates for it bring a whole protobuf.

mod event;

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use burn_peft_files::{Error as FileError, create_folder};
use serde_json::Value;

use self::event::{Event, What};
use crate::Error;
use crate::record::{LogRecord, Observer};

/// Where a run keeps its event files, in its folder. transformers calls it so too.
const FOLDER: &str = "runs";

/// The event file of this process.
#[derive(Debug)]
pub(crate) struct EventFile {
    file: File,
    path: PathBuf,
}

impl EventFile {
    /// A new file in `DIR/runs`. TensorBoard joins the files of a folder in the order of their names.
    ///
    /// Where a run is resumed after a step, the files of the processes before stay, and the new one begins with the mark that has
    /// TensorBoard forget what they say of later steps. A new run removes the files of an earlier one, which left no
    /// checkpoint.
    pub(crate) fn create(dir: &Path, resumed: Option<usize>) -> Result<Self, Error> {
        let folder = dir.join(FOLDER);
        create_folder(&folder)?;
        let existing = files_in(&folder)?;
        if resumed.is_none() {
            for path in &existing {
                fs::remove_file(path).map_err(FileError::to("remove", path))?;
            }
        }
        let now = wall_time();
        let (path, file) = (0..)
            .map(|number| {
                let name = format!(
                    "events.out.tfevents.{:010}.burn-peft.{}.{number}",
                    now as u64,
                    std::process::id()
                );
                let path = folder.join(name);
                let file = OpenOptions::new().write(true).create_new(true).open(&path);
                (path, file)
            })
            .find(|(_, file)| {
                let taken =
                    |error: &std::io::Error| error.kind() == std::io::ErrorKind::AlreadyExists;
                !file.as_ref().is_err_and(taken)
            })
            .unwrap_or_else(|| unreachable!("numbers do not end"));
        let file = file.map_err(FileError::to("create", &path))?;
        let mut events = Self { file, path };
        events.write(&Event::at(now, 0, What::Version))?;
        if let Some(done) = resumed {
            events.write(&Event::at(now, done + 1, What::Restart))?;
        }
        Ok(events)
    }

    /// In one piece and at once, so that TensorBoard shows it while the run goes on.
    fn write(&mut self, event: &Event<'_>) -> Result<(), Error> {
        self.file
            .write_all(&event.record())
            .map_err(FileError::to("write", &self.path))?;
        Ok(())
    }
}

impl Observer for EventFile {
    fn record(&mut self, record: &LogRecord) -> Result<(), Error> {
        let (step, scalars) = scalars_of(record);
        let now = wall_time();
        for (tag, value) in scalars {
            let scalar = What::Scalar {
                tag: &tag,
                value: value as f32,
            };
            self.write(&Event::at(now, step, scalar))?;
        }
        Ok(())
    }
}

/// The numbers of a record by the names of transformers' `TensorBoardCallback`: what begins with `eval_` is in the group
/// `eval`, all else in `train`.
fn scalars_of(record: &LogRecord) -> (usize, Vec<(String, f64)>) {
    let Ok(Value::Object(keys)) = serde_json::to_value(record) else {
        unreachable!("a record is an object");
    };
    let step = keys.get("step").and_then(Value::as_u64).unwrap_or_default();
    let scalars = keys.iter().filter(|(key, _)| *key != "step");
    let scalars = scalars.filter_map(|(key, value)| {
        let tag = match key.strip_prefix("eval_") {
            Some(key) => format!("eval/{key}"),
            None => format!("train/{key}"),
        };
        Some((tag, value.as_f64()?))
    });
    (step as usize, scalars.collect())
}

/// The event files that this program wrote.
fn files_in(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let entries = fs::read_dir(folder).map_err(FileError::to("read", folder))?;
    let names = entries.flatten().map(|entry| entry.path());
    let is_events = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| {
            name.starts_with("events.out.tfevents.") && name.contains(".burn-peft.")
        })
    };
    Ok(names.filter(is_events).collect())
}

/// Seconds since 1970.
fn wall_time() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0.0, |since| since.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::event::decoding::{Decoded, decode};
    use super::*;
    use crate::record::{EvalRecord, TrainRecord};

    fn train(step: usize, grad_norm: Option<f64>) -> LogRecord {
        LogRecord::Train(TrainRecord {
            step,
            epoch: 0.5,
            loss: 2.25,
            learning_rate: 1e-3,
            grad_norm,
            tokens_per_second: 100.0,
            memory_gib: None,
        })
    }

    fn eval(step: usize) -> LogRecord {
        LogRecord::Eval(EvalRecord {
            step,
            epoch: 0.5,
            eval_loss: 2.0,
            eval_label_tokens: 7,
            eval_seconds: 0.25,
            ..EvalRecord::of_loss(step, 2.0)
        })
    }

    fn events_of(dir: &Path) -> Vec<Vec<Decoded>> {
        let mut files = files_in(&dir.join(FOLDER)).unwrap();
        files.sort();
        let read = |path: &PathBuf| decode(&fs::read(path).unwrap());
        files.iter().map(read).collect()
    }

    fn scalar(tag: &str, step: i64, value: f32) -> Decoded {
        Decoded::Scalar {
            tag: tag.into(),
            step,
            value,
        }
    }

    #[test]
    fn records_are_scalars_under_the_names_of_transformers() {
        let dir = tempfile::tempdir().unwrap();
        let mut events = EventFile::create(dir.path(), None).unwrap();
        events.record(&eval(0)).unwrap();
        events.record(&train(300, Some(0.5))).unwrap();
        events.record(&train(310, None)).unwrap();
        let [found] = events_of(dir.path()).try_into().unwrap();
        assert_eq!(found[0], Decoded::Version("brain.Event:2".into()));
        for expected in [
            scalar("eval/loss", 0, 2.0),
            scalar("train/loss", 300, 2.25),
            scalar("train/learning_rate", 300, 1e-3),
            scalar("train/grad_norm", 300, 0.5),
            scalar("train/epoch", 300, 0.5),
        ] {
            assert!(found.contains(&expected), "{expected:?} in {found:?}");
        }
        let of_310 = |event: &&Decoded| matches!(event, Decoded::Scalar { tag, step: 310, .. } if tag == "train/grad_norm");
        assert_eq!(found.iter().filter(of_310).count(), 0);
    }

    #[test]
    fn a_resumed_run_adds_a_file_that_takes_back_later_steps() {
        let dir = tempfile::tempdir().unwrap();
        drop(EventFile::create(dir.path(), None).unwrap());
        EventFile::create(dir.path(), Some(20)).unwrap();
        let files = events_of(dir.path());
        assert_eq!(files.len(), 2);
        assert!(
            files[1].contains(&Decoded::Restart { step: 21 }),
            "{files:?}"
        );
    }

    #[test]
    fn a_new_run_has_no_events_of_an_earlier_one() {
        let dir = tempfile::tempdir().unwrap();
        let other = "events.out.tfevents.1.another-program.2.0";
        let other = dir.path().join(FOLDER).join(other);
        let mut events = EventFile::create(dir.path(), None).unwrap();
        events.record(&train(1, None)).unwrap();
        fs::write(&other, "mine").unwrap();
        EventFile::create(dir.path(), None).unwrap();
        assert_eq!(events_of(dir.path()).len(), 1);
        assert!(other.exists());
    }
}
