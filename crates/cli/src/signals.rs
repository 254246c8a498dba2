//! Ctrl-C, SIGTERM and SIGHUP.

use std::process::exit;

use anyhow::{Context, Result};
use burn_peft_train::{Stop, Stopping};

use crate::{faults, output};

/// The status of a process that a signal ended before its work was done.
const INTERRUPTED: i32 = 130;

/// Has the signals stop a run: the first one after the step under way, another one at once.
pub(crate) fn stop_run(stop: Stop) -> Result<()> {
    let handler = move || match stop.request() {
        Stopping::AfterThisStep => output::say("stopping after this step"),
        Stopping::Saved => {
            output::say("stopped; the adapter is saved, its scores are not computed");
            leave(0);
        }
        Stopping::BeforeTheFirstStep => {
            output::say("stopped before the first step; nothing is saved");
            leave(INTERRUPTED);
        }
        _ => leave(INTERRUPTED),
    };
    ctrlc::set_handler(handler).context("signals cannot be caught")
}

fn leave(status: i32) -> ! {
    faults::restore_terminal();
    exit(status)
}
