//! Who reads the records of a run on standard output.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use burn_peft_train::{Error, JsonLines, LogRecord, Observer, Stop};

/// Standard output, for `--json`. When it takes no more, the run is stopped as a signal stops it, so that nothing is lost.
#[derive(Debug, Clone, Default)]
pub(super) struct Reader {
    error: Arc<Mutex<Option<Error>>>,
}

impl Reader {
    pub(super) fn observer(&self, stop: Stop) -> impl Observer + use<> {
        let mut lines = JsonLines::new(io::stdout(), "standard output");
        let reader = self.clone();
        move |record: &LogRecord| {
            if let Err(error) = lines.record(record) {
                let mut kept = reader.lock();
                if kept.replace(error).is_none() {
                    stop.request();
                }
            }
            Ok(())
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Error>> {
        self.error.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn error(&self) -> Option<Error> {
        self.lock().take()
    }
}
