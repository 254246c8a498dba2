//! Ctrl-C, SIGTERM and SIGHUP.

use std::process::exit;

use anyhow::{Context, Result};
use burn_peft_serve::StopServer;
use burn_peft_train::{Stop, Stopping};

use crate::{faults, output};

/// The status of a process that a signal ended before its work was done.
pub(crate) const INTERRUPTED: u8 = 130;

/// Has the signals stop a run: the first one after the step, or whatever its `unit` is, another one at once. A signal that the process
/// was started to ignore, as with `nohup`, stays ignored.
pub(crate) fn stop_run(stop: Stop, unit: &'static str, json: bool) -> Result<()> {
    on_signal(move || request(&stop, unit, json))
}

/// Has the signals stop a server: the first one when what runs is finished, another one at once.
pub(crate) fn stop_server(stop: StopServer) -> Result<()> {
    on_signal(move || match stop.request() {
        true => output::say("stopping when what runs is finished"),
        false => leave(INTERRUPTED),
    })
}

/// Calls `act` with each signal.
#[cfg(unix)]
fn on_signal(act: impl Fn() + Send + 'static) -> Result<()> {
    use signal_hook::{consts, iterator::Signals};

    let ignored = ignored();
    let all = [consts::SIGINT, consts::SIGTERM, consts::SIGHUP];
    let wanted = all
        .into_iter()
        .filter(|signal| ignored >> (signal - 1) & 1 == 0);
    let mut signals = Signals::new(wanted).context("signals cannot be caught")?;
    let wait = move || {
        for signal in signals.forever() {
            if signal == consts::SIGHUP {
                output::let_go_of_a_closed_terminal();
            }
            act();
        }
    };
    let thread = std::thread::Builder::new().name("signals".into());
    thread.spawn(wait).context("signals cannot be caught")?;
    Ok(())
}

/// Calls `act` with each Ctrl-C.
#[cfg(not(unix))]
fn on_signal(act: impl Fn() + Send + 'static) -> Result<()> {
    ctrlc::set_handler(act).context("Ctrl-C cannot be caught")
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
