//! Panics, which are faults of our own: said in one line, with exit status 70 and the terminal as it was.
//!
//! A panic on the main thread, or on one of rayon's (which hands it to the thread that waits for it), unwinds first,
//! so that temporary files are removed. A panic on any other thread ends the process at once: whoever waits for that
//! thread might wait for ever. The thread that draws the dashboard is an exception: training goes on without it.

use std::io::{IsTerminal, Write};
use std::panic::{self, AssertUnwindSafe, PanicHookInfo};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::thread;

use crossterm::{ExecutableCommand, cursor::Show, terminal};

use crate::{output, ranks};

/// The exit status of a fault of our own, `EX_SOFTWARE` of sysexits.h.
const FAULT: u8 = 70;
/// The exit status of a run that was told to stop at once.
const STOPPED: u8 = 130;

/// The name of burn-train's thread that draws the dashboard.
const DASHBOARD: &str = "train-renderer";
/// What burn-train panics with when somebody chooses "Stop the training immediately" in the dashboard.
const KILLED: &str = "Killing training from user input.";

/// The panic that is unwinding.
static UNWINDING: Mutex<Option<Fault>> = Mutex::new(None);

/// Runs the program. Must be called on the main thread.
pub(crate) fn guarded(program: impl FnOnce() -> ExitCode) -> ExitCode {
    let main = thread::current().id();
    panic::set_hook(Box::new(move |info| {
        let fault = Fault::new(info);
        let here = thread::current();
        let unwinds = here.id() == main || rayon::current_thread_index().is_some();
        if fault.message == KILLED {
            leave(STOPPED, None);
        } else if here.name() == Some(DASHBOARD) {
            // Most likely this is what it failed for, and it is not done writing.
            output::let_go_of_a_closed_terminal();
            output::say(&format!(
                "the dashboard failed ({fault}); the training goes on"
            ));
        } else if unwinds && !fault.aborts() {
            *UNWINDING.lock().unwrap_or_else(PoisonError::into_inner) = Some(fault);
        } else {
            leave(FAULT, Some(fault));
        }
    }));
    match panic::catch_unwind(AssertUnwindSafe(program)) {
        Ok(code) => code,
        Err(_) => {
            let fault = UNWINDING
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take();
            leave(FAULT, fault)
        }
    }
}

/// The terminal as it was when a conversation began.
#[cfg(unix)]
static TERMINAL: Mutex<Option<nix::sys::termios::Termios>> = Mutex::new(None);

/// Remembers the modes of the terminal, for [`restore_terminal`]: line editing changes them.
#[cfg(unix)]
pub(crate) fn remember_terminal() {
    let modes = nix::sys::termios::tcgetattr(std::io::stdin()).ok();
    *TERMINAL.lock().unwrap_or_else(PoisonError::into_inner) = modes;
}

/// Takes the terminal out of the modes of the dashboard or of line editing, where it is in them.
pub(crate) fn restore_terminal() {
    #[cfg(unix)]
    {
        use nix::sys::termios::{SetArg, tcsetattr};
        let modes = TERMINAL.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(modes) = &*modes {
            tcsetattr(std::io::stdin(), SetArg::TCSANOW, modes).ok();
            // The end of bracketed paste, which rustyline begins.
            std::io::stderr().write_all(b"\x1b[?2004l").ok();
        }
    }
    if !ranks::all().is_alone() {
        return;
    }
    let mut stdout = std::io::stdout();
    if terminal::is_raw_mode_enabled().unwrap_or(false) {
        terminal::disable_raw_mode().ok();
        stdout.execute(terminal::LeaveAlternateScreen).ok();
    }
    if stdout.is_terminal() {
        stdout.execute(Show).ok();
    }
}

fn leave(status: u8, fault: Option<Fault>) -> ! {
    restore_terminal();
    if let Some(fault) = fault {
        output::error(&format!(
            "this is a bug of burn-peft's: {fault}; please open an issue with this line, the command and its input \
             (burn-peft {})",
            env!("CARGO_PKG_VERSION")
        ));
        ranks::abort(status);
    }
    std::process::exit(status.into())
}

/// A panic.
struct Fault {
    message: String,
    place: Option<String>,
}

impl Fault {
    fn new(info: &PanicHookInfo<'_>) -> Self {
        const LONGEST: usize = 400;
        let message = info.payload_as_str().unwrap_or("no message");
        let words = message.split_whitespace().collect::<Vec<_>>().join(" ");
        let place = info.location();
        Self {
            message: words.chars().take(LONGEST).collect(),
            place: place.map(|place| format!("{}:{}", in_crate(place.file()), place.line())),
        }
    }

    /// Whether the process aborts after it: it came while another one unwound, or where nothing may unwind.
    fn aborts(&self) -> bool {
        self.message.starts_with("panic in a ")
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.place {
            Some(place) => write!(f, "{} ({place})", self.message),
            None => f.write_str(&self.message),
        }
    }
}

/// The path of a source file from its crate's folder on: what is in front of that is one machine's.
fn in_crate(file: &str) -> &str {
    let file_name = || file.rfind(['/', '\\']).map_or(0, |at| at + 1);
    let is_absolute = file.starts_with(['/', '\\']) || file.get(1..2) == Some(":");
    let start = match file.rfind("/src/").or_else(|| file.rfind("\\src\\")) {
        _ if !is_absolute => 0,
        Some(src) => file[..src].rfind(['/', '\\']).map_or(0, |at| at + 1),
        None => file_name(),
    };
    &file[start..]
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Output};

    use super::*;

    /// Set for a process that is to panic, to how.
    const HOW: &str = "BURN_PEFT_TEST_PANIC";

    #[test]
    fn places_are_without_the_machine() {
        for (file, shown) in [
            ("crates/cli/src/main.rs", "crates/cli/src/main.rs"),
            (
                "/home/me/.cargo/registry/src/index.crates.io-1/burn-train-0.21.0/src/a/b.rs",
                "burn-train-0.21.0/src/a/b.rs",
            ),
            (
                "/rustc/0123abcd/library/core/src/option.rs",
                "core/src/option.rs",
            ),
            (
                r"C:\me\registry\src\index\clap-4\src\lib.rs",
                r"clap-4\src\lib.rs",
            ),
            ("/home/me/build.rs", "build.rs"),
        ] {
            assert_eq!(in_crate(file), shown);
        }
    }

    /// What the other tests run in a process of its own.
    #[test]
    fn child() {
        let Ok(how) = std::env::var(HOW) else { return };
        let wait = || -> ! {
            loop {
                thread::park();
            }
        };
        guarded(|| match how.as_str() {
            "main" => panic!("one\ntwo"),
            "rayon" => rayon::scope(|scope| {
                scope.spawn(|_| panic!("in a pool"));
                ExitCode::SUCCESS
            }),
            "thread" => {
                thread::spawn(|| panic!("elsewhere"));
                wait()
            }
            "twice" => {
                struct Bad;
                impl Drop for Bad {
                    fn drop(&mut self) {
                        panic!("while it unwinds")
                    }
                }
                let _bad = Bad;
                panic!("first")
            }
            "dashboard" => {
                let dashboard = thread::Builder::new().name(DASHBOARD.into());
                let drawing = dashboard.spawn(|| panic!("no terminal")).expect("a thread");
                drawing.join().expect_err("it panicked");
                std::process::exit(3)
            }
            "killed" => {
                thread::spawn(|| panic!("{KILLED}"));
                wait()
            }
            other => unreachable!("{other}"),
        });
    }

    fn run(how: &str) -> (Option<i32>, String) {
        let program = std::env::current_exe().expect("this test");
        let Output { status, stderr, .. } = Command::new(program)
            .args(["faults::tests::child", "--exact", "--nocapture"])
            .env(HOW, how)
            .output()
            .expect("a child");
        (status.code(), String::from_utf8_lossy(&stderr).into_owned())
    }

    #[test]
    fn a_panic_on_any_thread_is_one_line_and_exit_status_70() {
        for (how, message) in [
            ("main", "one two"),
            ("rayon", "in a pool"),
            ("thread", "elsewhere"),
        ] {
            let (status, stderr) = run(how);
            assert_eq!(status, Some(70), "{how}: {stderr}");
            let start = format!(
                "error: this is a bug of burn-peft's: {message} (crates/cli/src/faults.rs:"
            );
            assert!(stderr.starts_with(&start), "{how}: {stderr}");
            assert_eq!(stderr.lines().count(), 1, "{how}: {stderr}");
        }
        let (status, stderr) = run("twice");
        assert_eq!(status, Some(70), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
    }

    #[test]
    fn the_dashboards_end_is_not_the_trainings() {
        let (status, stderr) = run("dashboard");
        assert_eq!(status, Some(3), "{stderr}");
        assert!(
            stderr.starts_with("the dashboard failed (no terminal"),
            "{stderr}"
        );
        let (status, stderr) = run("killed");
        assert_eq!((status, stderr.as_str()), (Some(130), ""));
    }
}
