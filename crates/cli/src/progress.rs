//! Progress bars for whatever may take longer than two seconds.

use std::time::{Duration, Instant};

use burn_peft_train::Stage;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::{output, ranks};

/// How long something may take before its bar shows.
const PATIENCE: Duration = Duration::from_secs(1);

/// A bar on stderr that shows only if its work takes a while, and only on a terminal.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: ProgressBar,
    started: Instant,
    shown: bool,
}

impl Progress {
    /// A bar that counts things.
    pub(crate) fn counting(what: &str) -> Self {
        Self::new(what, "{msg} {wide_bar} {pos}/{len} {eta}")
    }

    /// A bar that counts bytes.
    pub(crate) fn bytes(what: &str) -> Self {
        Self::new(
            what,
            "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec}",
        )
    }

    /// A bar that counts the bytes of several files.
    pub(crate) fn download() -> Self {
        Self::new(
            "",
            "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}",
        )
    }

    /// Says what is under way now.
    pub(crate) fn name(&self, what: &str) {
        self.bar.set_message(what.to_owned());
    }

    /// `done` are done already, and say nothing about how fast it goes on.
    pub(crate) fn start_at(&self, done: u64) {
        self.bar.set_position(done);
        self.bar.reset_eta();
    }

    /// A line above the bar.
    pub(crate) fn say(&self, line: &str) {
        self.bar.suspend(|| output::say(line));
    }

    fn new(what: &str, template: &str) -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        bar.set_style(
            ProgressStyle::with_template(template).expect("the templates above are well formed"),
        );
        bar.set_message(what.to_owned());
        Self {
            bar,
            started: Instant::now(),
            shown: false,
        }
    }

    /// `done` of `total` are done.
    pub(crate) fn set(&mut self, done: u64, total: u64) {
        if !self.shown && ranks::is_first() && self.started.elapsed() > PATIENCE {
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
            self.shown = true;
        }
        self.bar.set_length(total);
        self.bar.set_position(done);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// A progress bar for each stage, one after the other.
pub(crate) fn stage_bars() -> impl FnMut(Stage, u64, u64) {
    let mut current: Option<(Stage, Progress)> = None;
    move |stage, done, all| {
        if current.as_ref().is_none_or(|(shown, _)| *shown != stage) {
            let bar = match stage {
                Stage::Loading => Progress::bytes("loading"),
                Stage::Tokenising => Progress::counting("tokenising"),
                Stage::Training => Progress::counting("training"),
                Stage::Evaluating => Progress::counting("evaluating"),
                Stage::Generating => Progress::counting("generating"),
            };
            current = Some((stage, bar));
        }
        if let Some((_, bar)) = &mut current {
            bar.set(done, all);
        }
        if done == all {
            current = None;
        }
    }
}
