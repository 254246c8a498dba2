//! When what failed is tried again.

use std::{thread, time::Duration};

use anyhow::{Result, anyhow};

/// Why a request failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// It fails again.
    Final(anyhow::Error),
    /// It may go better later.
    Passing {
        /// What happened.
        reason: String,
        /// How long the server asks us to wait.
        wait: Option<Duration>,
    },
}

impl Failure {
    pub(super) fn into_error(self) -> anyhow::Error {
        match self {
            Self::Final(error) => error,
            Self::Passing { reason, .. } => anyhow!(reason),
        }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Final(error)
    }
}

impl From<burn_peft_files::Error> for Failure {
    fn from(error: burn_peft_files::Error) -> Self {
        Self::Final(error.into())
    }
}

/// How often and after how long it is tried again. The numbers are those of `huggingface_hub`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Retries {
    /// Tries after the first.
    pub(super) most: u32,
    /// The first wait; each is twice as long as the one before.
    pub(super) first_wait: Duration,
}

impl Default for Retries {
    fn default() -> Self {
        Self {
            most: 5,
            first_wait: Duration::from_secs(1),
        }
    }
}

/// The longest wait.
const LONGEST_WAIT: Duration = Duration::from_secs(8);
/// The longest wait that a server may ask for.
const LONGEST_ASKED: Duration = Duration::from_secs(60);

impl Retries {
    /// Tries until it succeeds, or no more. `note` is told of each fault.
    pub(super) fn run<T>(
        self,
        note: &mut dyn FnMut(&str),
        mut attempt: impl FnMut() -> Result<T, Failure>,
    ) -> Result<T> {
        let mut failed = 0;
        loop {
            match attempt() {
                Ok(found) => return Ok(found),
                Err(failure) => failed = self.wait(failed, failure, note)?,
            }
        }
    }

    /// Waits after a fault, the first after `failed` others in a row, and returns how many there are now.
    ///
    /// # Errors
    /// The fault, if it was one too many or will not pass.
    pub(super) fn wait(
        self,
        failed: u32,
        failure: Failure,
        note: &mut dyn FnMut(&str),
    ) -> Result<u32> {
        let (reason, asked) = match failure {
            Failure::Final(error) => return Err(error),
            Failure::Passing { reason, wait } => (reason, wait),
        };
        if failed == self.most {
            return Err(anyhow!("{reason}, {} times in a row", failed + 1));
        }
        let doubled = self.first_wait.saturating_mul(1 << failed.min(16));
        let wait = match asked {
            Some(asked) => asked.min(LONGEST_ASKED),
            None => doubled.min(LONGEST_WAIT),
        };
        note(&format!("{reason}; trying again in {wait:?}"));
        thread::sleep(wait);
        Ok(failed + 1)
    }
}
