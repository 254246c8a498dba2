//! Ctrl-C, SIGTERM and SIGHUP.

use std::process::exit;
use std::sync::{
    Arc,
    atomic::{AtomicU8, Ordering::SeqCst},
};

use anyhow::{Context, Result};
use burn_peft_serve::StopServer;
use burn_peft_train::{Stop, Stopping};

use crate::{faults, output, ranks};

/// The status of a process that a signal ended before its work was done.
pub(crate) const INTERRUPTED: u8 = 130;

/// Has the signals stop a run: the first one after the step, or whatever its `unit` is, another one at once. A signal that the process
/// was started to ignore, as with `nohup`, stays ignored. Where several processes share the run, SIGUSR1 is one of them:
/// `mpirun` hands it on and leaves them their time, where behind SIGTERM it kills them after a second.
#[cfg(unix)]
pub(crate) fn stop_run(stop: Stop, unit: &'static str, json: bool) -> Result<()> {
    let more: &[i32] = match ranks::all().is_alone() {
        true => &[],
        false => &[signal_hook::consts::SIGUSR1],
    };
    on_signals(more, move |_| request(&stop, unit, json))
}

/// Has the signals stop a server: the first one when what runs is finished, another one at once.
#[cfg(unix)]
pub(crate) fn stop_server(stop: StopServer) -> Result<()> {
    on_signals(&[], move |_| request_server(&stop))
}

/// Has Ctrl-C stop a server.
#[cfg(not(unix))]
pub(crate) fn stop_server(stop: StopServer) -> Result<()> {
    ctrlc::set_handler(move || request_server(&stop)).context("Ctrl-C cannot be caught")
}

fn request_server(stop: &StopServer) {
    match stop.request() {
        true => output::say("stopping when what runs is finished"),
        false => leave(INTERRUPTED),
    }
}

/// Has Ctrl-C stop an answer of a conversation, and whatever else these signals meet end the program.
#[cfg(unix)]
pub(crate) fn stop_answers(answering: Answering) -> Result<()> {
    use signal_hook::consts::SIGINT;

    faults::remember_terminal();
    on_signals(&[], move |signal| {
        if signal != SIGINT || !answering.stop() {
            leave(INTERRUPTED);
        }
    })
}

/// Calls `act` with each of these signals that comes, and with `more`, on a thread of its own. Those that the process was started to
/// ignore stay ignored.
#[cfg(unix)]
fn on_signals(more: &[i32], act: impl Fn(i32) + Send + 'static) -> Result<()> {
    use signal_hook::{consts, iterator::Signals};

    let ignored = ignored();
    let all = [consts::SIGINT, consts::SIGTERM, consts::SIGHUP];
    let wanted = all
        .iter()
        .chain(more)
        .copied()
        .filter(|signal| ignored >> (signal - 1) & 1 == 0);
    let mut signals = Signals::new(wanted).context("signals cannot be caught")?;
    let wait = move || {
        for signal in signals.forever() {
            if signal == consts::SIGHUP {
                output::let_go_of_a_closed_terminal();
            }
            act(signal);
        }
    };
    let thread = std::thread::Builder::new().name("signals".into());
    thread.spawn(wait).context("signals cannot be caught")?;
    Ok(())
}

/// Has Ctrl-C stop a run.
#[cfg(not(unix))]
pub(crate) fn stop_run(stop: Stop, unit: &'static str, json: bool) -> Result<()> {
    ctrlc::set_handler(move || request(&stop, unit, json)).context("Ctrl-C cannot be caught")
}

/// Has Ctrl-C stop an answer of a conversation, and end the program where there is none to stop.
#[cfg(not(unix))]
pub(crate) fn stop_answers(answering: Answering) -> Result<()> {
    let act = move || {
        if !answering.stop() {
            leave(INTERRUPTED);
        }
    };
    ctrlc::set_handler(act).context("Ctrl-C cannot be caught")
}

/// Whether a conversation is computing an answer, and whether it was asked to stop that. Clones are of the same
/// conversation.
#[derive(Debug, Clone, Default)]
pub(crate) struct Answering(Arc<AtomicU8>);

impl Answering {
    const NOTHING: u8 = 0;
    const ANSWER: u8 = 1;
    const STOPPING: u8 = 2;

    /// An answer begins.
    pub(crate) fn begin(&self) {
        self.0.store(Self::ANSWER, SeqCst);
    }

    /// It has ended.
    pub(crate) fn end(&self) {
        self.0.store(Self::NOTHING, SeqCst);
    }

    /// Whether it is to stop.
    pub(crate) fn is_stopping(&self) -> bool {
        self.0.load(SeqCst) == Self::STOPPING
    }

    /// Asks it to stop. Returns whether there was an answer that was not asked before.
    pub(crate) fn stop(&self) -> bool {
        let asked = self
            .0
            .compare_exchange(Self::ANSWER, Self::STOPPING, SeqCst, SeqCst);
        asked.is_ok()
    }
}

/// The signals that the process ignores, a bit each, where the system says.
#[cfg(unix)]
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0)
}

/// Makes an error of a file that grows over the limit of `ulimit -f`, which otherwise ends the process.
pub(crate) fn survive_file_limits() {
    #[cfg(target_os = "linux")]
    {
        const SIGXFSZ: i32 = 25;
        signal_hook::flag::register(SIGXFSZ, Default::default()).ok();
    }
}

fn request(stop: &Stop, unit: &str, json: bool) {
    match stop.request() {
        Stopping::AfterThisStep => output::say(&format!("stopping after this {unit}")),
        Stopping::Saved(folder) => {
            output::say("stopped; the scores after training are left out");
            let folder = folder.display().to_string();
            let done = match json {
                true => {
                    output::print_json(&serde_json::json!({"event": "done", "adapter": folder}))
                }
                false => output::print(&format!("adapter: {folder}\n")),
            };
            done.ok();
            leave(0);
        }
        Stopping::BeforeTheFirstStep => {
            output::say("stopped before the first step; nothing is saved");
            leave(INTERRUPTED);
        }
        _ => leave(INTERRUPTED),
    }
}

/// Ends the process with the terminal as it was.
pub(crate) fn leave(status: u8) -> ! {
    faults::restore_terminal();
    exit(status.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_stopped_once_and_nothing_else_is() {
        let answering = Answering::default();
        assert!(!answering.stop());
        answering.begin();
        assert!(!answering.is_stopping());
        assert!(answering.clone().stop());
        assert!(answering.is_stopping());
        assert!(!answering.stop(), "the second signal ends the program");
        answering.end();
        assert!(!answering.is_stopping());
    }
}
