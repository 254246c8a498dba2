//! Stopping a run from outside, as a signal handler does.

use std::fmt;
use std::mem::forget;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use burn_peft_files::ClaimedFolder;
use burn_train::Interrupter;

/// Asks a run to stop, from any thread. Clones ask the same run.
#[derive(Clone, Default)]
pub struct Stop {
    interrupter: Interrupter,
    phase: Arc<Mutex<Phase>>,
    folder: Arc<OnceLock<PathBuf>>,
}

impl fmt::Debug for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stop").finish_non_exhaustive()
    }
}

/// What a run is doing.
#[derive(Debug)]
enum Phase {
    /// Everything before the first step. Holds the claimed folder, where the run has one, and the folders that were
    /// made for it.
    Preparing(Option<(PathBuf, Vec<PathBuf>)>),
    /// The steps, up to the saved adapter. Whether a stop was asked for already.
    Training { asked: bool },
    /// Everything behind that, with the run's folder.
    Saved(PathBuf),
}

impl Default for Phase {
    fn default() -> Self {
        Self::Preparing(None)
    }
}

/// What becomes of a run that was asked to stop.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stopping {
    /// It had not begun, has nothing to save, and does nothing any more: the caller ends the process.
    BeforeTheFirstStep,
    /// It finishes the step, saves a checkpoint and the adapter, and returns.
    AfterThisStep,
    /// It was asked before and is still at it. A caller that does not want to wait ends the process.
    AskedAgain,
    /// The adapter is saved in this folder; what is left is its scores, which the caller may wait for or not.
    Saved(PathBuf),
}

impl Stop {
    /// A run that nobody has asked to stop.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks the run to stop, and says what it does.
    pub fn request(&self) -> Stopping {
        let mut phase = self.phase();
        match &mut *phase {
            Phase::Preparing(claimed) => {
                if let Some((path, made)) = claimed {
                    ClaimedFolder::abandon(path, made);
                }
                // The run waits here for good, instead of beginning while the process ends.
                forget(phase);
                Stopping::BeforeTheFirstStep
            }
            Phase::Training { asked: true } => Stopping::AskedAgain,
            Phase::Training { asked } => {
                *asked = true;
                self.interrupter.stop(Some("asked to stop"));
                Stopping::AfterThisStep
            }
            Phase::Saved(folder) => {
                // Of several ranks, the first has the folder.
                if let Some(claimed) = self.folder.get() {
                    ClaimedFolder::abandon(claimed, &[]);
                }
                Stopping::Saved(folder.clone())
            }
        }
    }

    /// What the training loop looks at.
    pub fn interrupter(&self) -> Interrupter {
        self.interrupter.clone()
    }

    /// The run has a folder, and no step of its own yet.
    pub(crate) fn claimed(&self, folder: &ClaimedFolder) {
        let (path, made) = (folder.path().to_owned(), folder.made().to_owned());
        self.folder.set(path.clone()).ok();
        *self.phase() = Phase::Preparing(Some((path, made)));
    }

    /// From here on there is something to save.
    pub fn training_begins(&self) {
        *self.phase() = Phase::Training { asked: false };
    }

    /// Everything is saved. Returns whether a stop was asked for.
    pub(crate) fn saved(&self) -> bool {
        let mut phase = self.phase();
        let asked = matches!(*phase, Phase::Training { asked: true });
        *phase = Phase::Saved(self.folder.get().cloned().unwrap_or_default());
        asked
    }

    fn phase(&self) -> MutexGuard<'_, Phase> {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_stop_does_depends_on_how_far_the_run_is() {
        let stop = Stop::new();
        stop.training_begins();
        assert_eq!(stop.clone().request(), Stopping::AfterThisStep);
        assert!(stop.interrupter().should_stop());
        // The dashboard takes the request back when it ends.
        stop.interrupter().reset();
        assert_eq!(stop.request(), Stopping::AskedAgain);
        assert!(stop.saved());
        assert_eq!(stop.request(), Stopping::Saved(PathBuf::new()));
    }

    #[test]
    fn a_run_that_has_not_begun_leaves_no_folder() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("runs/a");
        let folder = ClaimedFolder::claim(&path).unwrap();
        let stop = Stop::new();
        stop.claimed(&folder);
        assert_eq!(stop.request(), Stopping::BeforeTheFirstStep);
        assert!(!root.path().join("runs").exists());
    }
}
