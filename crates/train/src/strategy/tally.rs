//! Running totals of a run.

use std::path::PathBuf;

use crate::LmOutput;
use crate::checkpoint::{BestEval, Checkpoint};
use crate::record::EvalRecord;

/// The result of training.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct FitSummary {
    /// Steps done, those before a resume included.
    pub steps: usize,
    /// Steps that this process did.
    pub new_steps: usize,
    /// Mean loss over the steps that this process did; `None` where it did none.
    pub train_loss: Option<f64>,
    /// The last evaluation of this process.
    pub eval: Option<EvalRecord>,
    /// The lowest evaluation loss of the run.
    pub best_eval: Option<BestEval>,
    /// The newest checkpoint.
    pub checkpoint: Option<PathBuf>,
    /// Whether the run was stopped before its last step. The interrupter itself cannot tell: the
    /// dashboard resets it.
    pub interrupted: bool,
    /// Wall time of this process's run.
    pub seconds: f64,
    /// Tokens of the rows trained on by this process.
    pub tokens: usize,
    /// Steps of this process whose rows had no supervised token, and which changed nothing.
    pub empty_steps: usize,
}

/// What the loop has come to so far.
pub(super) struct Tally {
    pub(super) summary: FitSummary,
    loss_sum: f64,
    pub(super) saved_at: Option<usize>,
    pub(super) evaluated_at: Option<usize>,
}

impl Tally {
    /// The beginning of a run, or of what is left of it.
    pub(super) fn new(resumed: Option<&Checkpoint>) -> Self {
        let summary = resumed.map(|checkpoint| FitSummary {
            steps: checkpoint.state.step,
            best_eval: checkpoint.state.best_eval,
            checkpoint: Some(checkpoint.path.clone()),
            ..FitSummary::default()
        });
        Self {
            summary: summary.unwrap_or_default(),
            loss_sum: 0.0,
            saved_at: None,
            evaluated_at: None,
        }
    }

    /// Counts a step: its loss, where it had supervised tokens.
    pub(super) fn push(&mut self, step: usize, output: &LmOutput) {
        self.summary.steps = step;
        self.summary.new_steps += 1;
        self.summary.tokens += output.tokens;
        if output.label_tokens == 0 {
            self.summary.empty_steps += 1;
        } else {
            self.loss_sum += output.loss;
        }
    }

    /// The summary, with what only the end knows.
    pub(super) fn finish(mut self, seconds: f64) -> FitSummary {
        let steps = self.summary.new_steps - self.summary.empty_steps;
        self.summary.train_loss = (steps > 0).then(|| self.loss_sum / steps as f64);
        self.summary.seconds = seconds;
        self.summary
    }
}
