//! Writing a checkpoint.
//!
//! Only burn-train's `LearningCheckpointer` can read a `Learner`'s optimizer and scheduler, and it
//! hands the records to threads of its own, whose errors reach nobody but its interrupter. So those
//! threads only encode: [`Encoder`] turns a record into bytes and sends them, or the error, back,
//! and the thread that trains waits for all three parts and writes the folder.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};

use burn::record::{Record, Recorder};
use burn::tensor::backend::Backend;
use burn_peft_files::{StagedFolder, remove_folder};
use burn_train::checkpoint::{
    AsyncCheckpointer, Checkpointer, CheckpointerError, CheckpointingAction, CheckpointingStrategy,
};
use burn_train::metric::store::EventStoreClient;
use burn_train::{Learner, LearningCheckpointer, LearningComponentsTypes};

use super::{Format, MODEL, OPTIMIZER, SCHEDULER, STATE, TrainerState, folder, steps_in};
use crate::Error;

type Part = (&'static str, Result<Vec<u8>, String>);

/// Saves a learner as `step-N` and keeps the newest few.
pub(crate) struct StepCheckpointer<LC: LearningComponentsTypes> {
    encode: LearningCheckpointer<LC>,
    parts: Receiver<Part>,
    folder: PathBuf,
    limit: Option<usize>,
}

impl<LC: LearningComponentsTypes> StepCheckpointer<LC> {
    /// A checkpointer for the run in `output_dir` that keeps `limit` checkpoints (`None`: all).
    pub(crate) fn new(output_dir: &Path, limit: Option<usize>) -> Self {
        let (sender, parts) = channel();
        let part = |name| Encoder {
            name,
            sender: sender.clone(),
        };
        let encode = LearningCheckpointer::new(
            AsyncCheckpointer::new(part(MODEL)),
            AsyncCheckpointer::new(part(OPTIMIZER)),
            AsyncCheckpointer::new(part(SCHEDULER)),
            Box::new(AlwaysSave),
        );
        Self {
            encode,
            parts,
            folder: folder(output_dir),
            limit,
        }
    }

    /// Writes `step-N` and removes what is over the limit, but not step `kept`. Returns the folder.
    ///
    /// # Errors
    /// Where a part cannot be encoded or written. An older checkpoint is still there then.
    pub(crate) fn save(
        &mut self,
        learner: &Learner<LC>,
        state: &TrainerState,
        kept: Option<usize>,
        store: &EventStoreClient,
    ) -> Result<PathBuf, Error> {
        self.encode.checkpoint(learner, state.step, store);
        let mut parts = Vec::new();
        for _ in 0..3 {
            let part = self
                .parts
                .recv()
                .unwrap_or((MODEL, Err("its thread ended".into())));
            parts.push(part);
        }
        let step = state.step;
        let path = self.folder.join(format!("step-{step}"));
        let staged = StagedFolder::replacing(&path)?;
        for (name, bytes) in parts {
            let file = format!("{name}.mpk");
            let bytes = bytes.map_err(|message| Error::BadCheckpoint {
                path: path.join(&file),
                message,
            })?;
            staged.write(&file, &bytes)?;
        }
        let state = serde_json::to_vec_pretty(state).unwrap_or_else(|error| {
            unreachable!("the state is numbers and names, which JSON can hold: {error}")
        });
        staged.write(STATE, &state)?;
        staged.write_checksums()?;
        staged.commit()?;
        self.remove_old(step, kept)?;
        Ok(path)
    }

    /// Removes the oldest checkpoints over the limit, but neither the one just saved nor step `kept`. What has the name of
    /// a later step than the one just saved is damaged, or it would have been gone on from: it does not count, and its
    /// place will be taken.
    fn remove_old(&self, saved: usize, kept: Option<usize>) -> Result<(), Error> {
        let Some(limit) = self.limit else {
            return Ok(());
        };
        let mut found = steps_in(&self.folder)?;
        found.retain(|(step, _)| *step <= saved);
        let all = found.len();
        found.retain(|(step, _)| *step != saved && Some(*step) != kept);
        // As transformers counts: those that stay in any case are among the limit.
        let excess = all.saturating_sub(limit);
        for (_, path) in found.iter().take(excess) {
            remove_folder(path)?;
        }
        Ok(())
    }
}

/// Turns one kind of record into bytes, on a thread of burn-train's.
struct Encoder {
    name: &'static str,
    sender: Sender<Part>,
}

impl<R: Record<B>, B: Backend> Checkpointer<R, B> for Encoder {
    fn save(&self, _step: usize, record: R) -> Result<(), CheckpointerError> {
        // A panic (a device that cannot be read) must end the run with a message, not this thread.
        let encode = || Recorder::<B>::record(&Format::default(), record, ());
        let bytes = match catch_unwind(AssertUnwindSafe(encode)) {
            Ok(Ok(bytes)) => Ok(bytes),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("reading its tensors failed".into()),
        };
        self.sender
            .send((self.name, bytes))
            .map_err(|_| CheckpointerError::Unknown("the run has ended".into()))
    }

    fn delete(&self, _step: usize) -> Result<(), CheckpointerError> {
        Ok(())
    }

    fn restore(&self, _step: usize, _device: &B::Device) -> Result<R, CheckpointerError> {
        Err(CheckpointerError::Unknown(
            "checkpoints are read by Checkpoint".into(),
        ))
    }
}

/// When to save is the training loop's to decide.
struct AlwaysSave;

impl CheckpointingStrategy for AlwaysSave {
    fn checkpointing(
        &mut self,
        _step: usize,
        _store: &EventStoreClient,
    ) -> Vec<CheckpointingAction> {
        vec![CheckpointingAction::Save]
    }
}
