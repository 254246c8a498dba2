//! How a run looks while it runs: burn-train's dashboard, or plain lines.

use std::collections::HashMap;
use std::io::{IsTerminal, Write};

use burn_train::Interrupter;
use burn_train::metric::{MetricDefinition, MetricId};
use burn_train::renderer::tui::TuiMetricsRendererWrapper;
use burn_train::renderer::{
    EvaluationName, EvaluationProgress, MetricState, MetricsRenderer, MetricsRendererEvaluation,
    MetricsRendererTraining, ProgressType, TrainingProgress,
};

use crate::metrics::{GRAD_NORM, LOSS, TIME_LEFT, TOKENS_PER_SECOND};

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RendererChoice {
    /// burn-train's dashboard, on standard output.
    Tui,
    /// A line for each logged step and evaluation, on standard error.
    Plain,
    /// Nobody.
    Silent,
}

impl RendererChoice {
    /// The dashboard where standard output is a terminal and neither `--no-tui` nor `--json` was
    /// given (JSON goes to standard output, where the dashboard would draw), else plain lines.
    pub fn for_terminal(no_tui: bool, json: bool) -> Self {
        let tui = !no_tui && !json && std::io::stdout().is_terminal();
        if tui { Self::Tui } else { Self::Plain }
    }
}

/// burn-train's dashboard, at which Ctrl-C is the signal that it is everywhere else.
///
/// The dashboard puts the terminal into raw mode, in which Ctrl-C is a key like any other, and ignores that key. It leaves
/// a terminal alone that is in raw mode already, so this goes before it, and has the terminal make a signal of the key.
/// The keys of SIGQUIT and SIGTSTP stay off: they would leave the terminal as the dashboard has it.
pub(crate) fn dashboard(interrupter: Interrupter) -> TuiMetricsRendererWrapper {
    #[cfg(unix)]
    if crossterm::terminal::enable_raw_mode().is_ok() {
        keep_ctrl_c();
    }
    TuiMetricsRendererWrapper::new(interrupter, None)
}

/// Whether standard input is a terminal that does not exist any more.
pub(crate) fn terminal_is_closed() -> bool {
    #[cfg(unix)]
    {
        use nix::{errno::Errno, sys::termios::tcgetattr};
        tcgetattr(std::io::stdin()).err() == Some(Errno::EIO)
    }
    #[cfg(not(unix))]
    false
}

#[cfg(unix)]
fn keep_ctrl_c() {
    use nix::sys::termios::{
        LocalFlags, SetArg, SpecialCharacterIndices as Key, tcgetattr, tcsetattr,
    };

    let terminal = std::io::stdin();
    if let Ok(mut settings) = tcgetattr(&terminal) {
        settings.local_flags.insert(LocalFlags::ISIG);
        for key in [Key::VQUIT, Key::VSUSP] {
            // No key.
            settings.control_chars[key as usize] = 0;
        }
        tcsetattr(&terminal, SetArg::TCSANOW, &settings).ok();
    }
}

/// Writes `step 10/60  loss 2.3451  lr 1.00e-2  grad norm 0.52  tok/s 1234  eta 12s`.
pub(crate) struct PlainRenderer<W> {
    writer: W,
    total: usize,
    names: HashMap<MetricId, String>,
    time_left: Option<String>,
    train: HashMap<String, f64>,
    valid: HashMap<String, f64>,
}

impl<W: Write> PlainRenderer<W> {
    /// A renderer of a run of `total` steps.
    pub(crate) fn new(writer: W, total: usize) -> Self {
        Self {
            writer,
            total,
            time_left: None,
            names: HashMap::new(),
            train: HashMap::new(),
            valid: HashMap::new(),
        }
    }

    fn named(&self, state: MetricState) -> Option<(String, f64)> {
        let MetricState::Numeric(entry, value) = state else {
            return None;
        };
        let value = value.current();
        let name = self.names.get(&entry.metric_id)?.clone();
        value.is_finite().then_some((name, value))
    }

    fn line(&mut self, text: &str) {
        // Nobody is left to tell when standard error is closed, and that must not end a run.
        writeln!(self.writer, "{text}")
            .and_then(|()| self.writer.flush())
            .ok();
    }
}

impl<W: Write + Send + Sync> MetricsRendererTraining for PlainRenderer<W> {
    fn update_train(&mut self, state: MetricState) {
        if let MetricState::Generic(entry) = &state {
            let name = self.names.get(&entry.metric_id);
            if name.is_some_and(|name| name == TIME_LEFT) {
                self.time_left = Some(entry.serialized_entry.formatted.clone());
            }
        }
        self.train.extend(self.named(state));
    }

    fn update_valid(&mut self, state: MetricState) {
        self.valid.extend(self.named(state));
    }

    fn render_train(&mut self, progress: TrainingProgress, _indicators: Vec<ProgressType>) {
        let step = progress.iteration.unwrap_or_default();
        let values = std::mem::take(&mut self.train);
        let mut text = format!("step {step}/{}", self.total);
        for (name, label, format) in [
            (LOSS, "loss", decimals as fn(f64) -> String),
            (LEARNING_RATE, "lr", scientific),
            (GRAD_NORM, "grad norm", significant),
            (TOKENS_PER_SECOND, "tok/s", significant),
        ] {
            if let Some(value) = values.get(name) {
                text += &format!("  {label} {}", format(*value));
            }
        }
        if let Some(left) = self.time_left.take() {
            text += &format!("  eta {left}");
        }
        self.line(&text);
    }

    fn render_valid(&mut self, progress: TrainingProgress, _indicators: Vec<ProgressType>) {
        let step = progress.iteration.unwrap_or_default();
        let mut values = std::mem::take(&mut self.valid);
        let mut text = format!("step {step}/{}", self.total);
        if let Some(value) = values.remove(LOSS) {
            text += &format!("  eval loss {}", decimals(value));
        }
        for (name, value) in values {
            text += &format!("  eval {name} {}", decimals(value));
        }
        if step == 0 {
            text += "  (the base)";
        }
        self.line(&text);
    }
}

impl<W: Write + Send + Sync> MetricsRendererEvaluation for PlainRenderer<W> {
    fn update_test(&mut self, _name: EvaluationName, _state: MetricState) {}

    fn render_test(&mut self, _progress: EvaluationProgress, _indicators: Vec<ProgressType>) {}
}

impl<W: Write + Send + Sync> MetricsRenderer for PlainRenderer<W> {
    fn manual_close(&mut self) {}

    fn register_metric(&mut self, definition: MetricDefinition) {
        self.names.insert(definition.metric_id, definition.name);
    }
}

/// The name that burn-train gives its own metric of the rate.
const LEARNING_RATE: &str = "Learning Rate";

fn decimals(value: f64) -> String {
    format!("{value:.4}")
}

fn scientific(value: f64) -> String {
    format!("{value:.2e}")
}

/// Whole numbers from 100 on, three digits below, and powers of ten for the very small.
fn significant(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 || size == 0.0 => format!("{value:.0}"),
        size if size >= 0.01 => format!("{value:.2}"),
        _ => scientific(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::LmOutput;
    use crate::metrics::{ScalarMetric, TimeLeftMetric};
    use burn::data::dataloader::Progress;
    use burn_train::metric::{LearningRateMetric, Metric, MetricEntry, MetricMetadata, Numeric};
    use std::sync::Arc;

    fn show<M: Metric<Input = I> + Numeric, I>(
        renderer: &mut PlainRenderer<Vec<u8>>,
        mut metric: M,
        item: &I,
        valid: bool,
    ) {
        let id = MetricId::new(Arc::new(metric.name().to_string()));
        renderer.register_metric(MetricDefinition::new(id.clone(), &metric));
        let metadata = MetricMetadata {
            progress: Progress::new(1, 1),
            global_progress: Progress::new(1, 1),
            iteration: None,
            lr: Some(0.01),
        };
        let entry = MetricEntry::new(id, metric.update(item, &metadata));
        let state = MetricState::Numeric(entry, metric.value());
        if valid {
            renderer.update_valid(state)
        } else {
            renderer.update_train(state)
        }
    }

    fn show_time_left(renderer: &mut PlainRenderer<Vec<u8>>, output: &LmOutput) {
        let mut metric = TimeLeftMetric;
        let id = MetricId::new(metric.name());
        renderer.register_metric(MetricDefinition::new(id.clone(), &metric));
        let metadata = MetricMetadata {
            progress: Progress::new(1, 1),
            global_progress: Progress::new(1, 1),
            iteration: None,
            lr: None,
        };
        let entry = MetricEntry::new(id, metric.update(output, &metadata));
        renderer.update_train(MetricState::Generic(entry));
    }

    fn progress(step: usize) -> TrainingProgress {
        TrainingProgress {
            iteration: Some(step),
            ..TrainingProgress::none()
        }
    }

    #[test]
    fn a_logged_step_and_an_evaluation_are_a_line_each() {
        let mut renderer = PlainRenderer::new(Vec::new(), 60);
        let mut output = LmOutput::new(2.34512, 10, 1234);
        output.grad_norm = Some(0.523);
        output.seconds = Some(1.0);
        output.time_left = Some(74.5);
        show_time_left(&mut renderer, &output);
        show(&mut renderer, ScalarMetric::loss(), &output, false);
        show(&mut renderer, ScalarMetric::grad_norm(), &output, false);
        show(
            &mut renderer,
            ScalarMetric::tokens_per_second(),
            &output,
            false,
        );
        show(&mut renderer, LearningRateMetric::new(), &(), false);
        renderer.render_train(progress(60), Vec::new());
        show(&mut renderer, ScalarMetric::loss(), &output, true);
        renderer.render_valid(progress(60), Vec::new());
        show(&mut renderer, ScalarMetric::loss(), &output, true);
        renderer.render_valid(progress(0), Vec::new());
        let text = String::from_utf8(renderer.writer).unwrap();
        let expected = "step 60/60  loss 2.3451  lr 1.00e-2  grad norm 0.52  tok/s 1234  eta 1m15s\n\
                        step 60/60  eval loss 2.3451\n\
                        step 0/60  eval loss 2.3451  (the base)\n";
        assert_eq!(text, expected);
    }
}
