//! What a step reports, and how reports are averaged and shown to burn-train.

use std::collections::BTreeMap;
use std::sync::Arc;

use burn_train::ItemLazy;
use serde::{Deserialize, Serialize};

use crate::checkpoint::exact;
use crate::fit::EvalScores;
use crate::strategy::BestRule;
use burn_train::metric::state::{FormatOptions, NumericMetricState};
use burn_train::metric::{
    Adaptor, Metric, MetricAttributes, MetricMetadata, MetricName, Numeric, NumericAttributes,
    NumericEntry, SerializedEntry,
};

/// What a training step, or the evaluation of one batch, reports: plain numbers on the host.
///
/// A step fills in the first three with [`new`](Self::new); the rest is the training loop's.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LmOutput {
    /// Mean negative log-likelihood over the supervised tokens, in nats.
    pub loss: f64,
    /// Supervised tokens.
    pub label_tokens: usize,
    /// Tokens of the rows, without padding and virtual tokens.
    pub tokens: usize,
    /// Joint L2 norm of the gradients before clipping.
    pub grad_norm: Option<f64>,
    /// Wall time, data included.
    pub seconds: Option<f64>,
    /// Of an evaluation, the metric that decides which is the best.
    pub metric: Option<f64>,
    /// Bytes of memory that the process holds.
    pub memory: Option<u64>,
    /// Seconds until the run's end, evaluations and checkpoints included.
    pub time_left: Option<f64>,
}

impl LmOutput {
    /// A report of a step or a batch.
    pub fn new(loss: f64, label_tokens: usize, tokens: usize) -> Self {
        Self {
            loss,
            label_tokens,
            tokens,
            grad_norm: None,
            seconds: None,
            metric: None,
            memory: None,
            time_left: None,
        }
    }

    /// Tokens of the rows per second, where a time is known.
    pub fn tokens_per_second(&self) -> Option<f64> {
        // A clock too coarse for a toy model must not make a number that JSON cannot hold.
        self.seconds
            .map(|seconds| self.tokens as f64 / seconds.max(1e-9))
    }
}

impl ItemLazy for LmOutput {
    type ItemSync = Self;

    fn sync(self) -> Self {
        self
    }
}

impl Adaptor<LmOutput> for LmOutput {
    fn adapt(&self) -> LmOutput {
        *self
    }
}

/// The steps since the last logged record.
///
/// The loss is the mean of the steps' losses, as transformers' `Trainer` logs it: each step counts
/// once, however many tokens it had. So is the norm.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Window {
    steps: usize,
    #[serde(with = "exact")]
    loss: f64,
    #[serde(with = "exact")]
    norm: f64,
    norms: usize,
    #[serde(with = "exact")]
    seconds: f64,
    label_tokens: usize,
    tokens: usize,
}

impl Window {
    pub(crate) fn push(&mut self, output: &LmOutput, norm: Option<f64>, seconds: f64) {
        self.steps += 1;
        self.loss += output.loss;
        self.norm += norm.unwrap_or(0.0);
        self.norms += usize::from(norm.is_some());
        self.seconds += seconds;
        self.label_tokens += output.label_tokens;
        self.tokens += output.tokens;
    }

    /// The mean over the steps, and an empty window; `None` where there was no step.
    pub(crate) fn take(&mut self) -> Option<LmOutput> {
        let window = std::mem::take(self);
        let loss = window.loss / window.steps as f64;
        (window.steps > 0).then(|| LmOutput {
            grad_norm: (window.norms > 0).then(|| window.norm / window.norms as f64),
            seconds: Some(window.seconds),
            ..LmOutput::new(loss, window.label_tokens, window.tokens)
        })
    }
}

/// Sums reports of batches into one of them all: the loss per supervised token, so that the result
/// does not depend on how rows were put into batches.
#[derive(Debug, Default)]
pub(crate) struct TokenMean {
    nll: f64,
    label_tokens: usize,
    tokens: usize,
}

impl TokenMean {
    pub(crate) fn push(&mut self, output: &LmOutput) {
        // A batch without supervised tokens has no mean; it may be NaN.
        if output.label_tokens > 0 {
            self.nll += output.loss * output.label_tokens as f64;
        }
        self.label_tokens += output.label_tokens;
        self.tokens += output.tokens;
    }

    /// The loss of them all; NaN where there was no supervised token.
    pub(crate) fn scores(&self) -> EvalScores {
        EvalScores {
            loss: self.nll / self.label_tokens as f64,
            label_tokens: self.label_tokens,
            tokens: self.tokens,
            metrics: BTreeMap::new(),
        }
    }
}

pub(crate) const LOSS: &str = "Loss";
pub(crate) const GRAD_NORM: &str = "Grad Norm";
pub(crate) const TOKENS_PER_SECOND: &str = "Tokens/s";
pub(crate) const MEMORY: &str = "Memory (GiB)";
pub(crate) const TIME_LEFT: &str = "Time left";

/// One number of an [`LmOutput`] as a burn-train metric.
///
/// burn-train's own loss metric wants a tensor and counts each batch once; this one takes the host
/// number and weighs it by its supervised tokens.
#[derive(Clone)]
pub(crate) struct ScalarMetric {
    name: MetricName,
    read: fn(&LmOutput) -> Option<f64>,
    higher_is_better: bool,
    state: NumericMetricState,
}

impl ScalarMetric {
    fn new(name: &str, higher_is_better: bool, read: fn(&LmOutput) -> Option<f64>) -> Self {
        let state = NumericMetricState::new();
        Self {
            name: Arc::new(name.into()),
            read,
            higher_is_better,
            state,
        }
    }

    pub(crate) fn loss() -> Self {
        Self::new(LOSS, false, |output| Some(output.loss))
    }

    /// The metric that decides which evaluation is the best.
    pub(crate) fn deciding(rule: &BestRule) -> Self {
        Self::new(rule.metric(), rule.greater_is_better(), |output| {
            output.metric
        })
    }

    pub(crate) fn grad_norm() -> Self {
        Self::new(GRAD_NORM, false, |output| output.grad_norm)
    }

    pub(crate) fn tokens_per_second() -> Self {
        Self::new(TOKENS_PER_SECOND, true, LmOutput::tokens_per_second)
    }

    pub(crate) fn memory() -> Self {
        Self::new(MEMORY, false, |output| output.memory.map(gib))
    }
}

impl Metric for ScalarMetric {
    type Input = LmOutput;

    fn name(&self) -> MetricName {
        self.name.clone()
    }

    fn attributes(&self) -> MetricAttributes {
        NumericAttributes {
            unit: None,
            higher_is_better: self.higher_is_better,
        }
        .into()
    }

    fn update(&mut self, item: &LmOutput, _metadata: &MetricMetadata) -> SerializedEntry {
        let value = (self.read)(item).unwrap_or(f64::NAN);
        let format = FormatOptions::new(self.name()).precision(4);
        self.state.update(value, item.label_tokens.max(1), format)
    }

    fn clear(&mut self) {
        self.state.reset();
    }
}

impl Numeric for ScalarMetric {
    fn value(&self) -> NumericEntry {
        self.state.current_value()
    }

    fn running_value(&self) -> NumericEntry {
        self.state.running_value()
    }
}

/// Bytes in units of 2^30.
pub(crate) fn gib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 30)
}

/// How long the run still takes. It is a text for burn-train: nobody wants a curve of it.
#[derive(Clone)]
pub(crate) struct TimeLeftMetric;

impl Metric for TimeLeftMetric {
    type Input = LmOutput;

    fn name(&self) -> MetricName {
        Arc::new(TIME_LEFT.into())
    }

    fn update(&mut self, item: &LmOutput, _metadata: &MetricMetadata) -> SerializedEntry {
        let text = item.time_left.map_or_else(String::new, duration);
        SerializedEntry::new(text.clone(), text)
    }

    fn clear(&mut self) {}
}

/// Seconds for a reader, as in `1m15s`.
pub(crate) fn duration(seconds: f64) -> String {
    let seconds = seconds.ceil() as u64;
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds}s"),
        (0, minutes, seconds) => format!("{minutes}m{seconds:02}s"),
        (hours, minutes, _) => format!("{hours}h{minutes:02}m"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_the_mean_over_its_steps() {
        let mut window = Window::default();
        assert_eq!(window.take(), None);
        window.push(&LmOutput::new(1.0, 10, 100), Some(2.0), 0.5);
        window.push(&LmOutput::new(4.0, 30, 100), Some(4.0), 1.5);
        let mean = window.take().unwrap();
        assert_eq!(
            (mean.loss, mean.grad_norm, mean.tokens_per_second()),
            (2.5, Some(3.0), Some(100.0))
        );
        assert_eq!(window.take(), None);
    }

    #[test]
    fn durations_are_short() {
        assert_eq!([9.0, 75.0, 7260.0].map(duration), ["9s", "1m15s", "2h01m"]);
    }

    #[test]
    fn an_evaluation_is_the_mean_over_its_tokens() {
        let mut mean = TokenMean::default();
        assert_eq!(mean.scores().label_tokens, 0);
        mean.push(&LmOutput::new(1.0, 10, 20));
        mean.push(&LmOutput::new(4.0, 30, 60));
        mean.push(&LmOutput::new(f64::NAN, 0, 7));
        let found = mean.scores();
        assert_eq!(
            (found.loss, found.label_tokens, found.tokens),
            (3.25, 40, 87)
        );
    }
}
