//! Running totals of a run.

use std::path::PathBuf;

use super::BestSoFar;
use crate::LmOutput;
use crate::checkpoint::{BestEval, Checkpoint, Totals};
use crate::record::EvalRecord;

/// The result of training.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct FitSummary {
    /// Steps done, those before a resume included.
    pub steps: usize,
    /// Steps that this process did.
    pub new_steps: usize,
    /// Mean loss over all steps, those before a resume included; `None` where there is none.
    pub train_loss: Option<f64>,
    /// The last evaluation.
    pub eval: Option<EvalRecord>,
    /// The best evaluation of the run.
    pub best_eval: Option<BestEval>,
    /// The step whose adapter the run ends with: the last one, or with `load_best_model_at_end` the best.
    pub adapter_step: usize,
    /// Whether the run ended before its last step because its evaluations were not better any more.
    pub stopped_early: bool,
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
#[derive(Default)]
pub(super) struct Tally {
    pub(super) summary: FitSummary,
    pub(super) totals: Totals,
    pub(super) best: BestSoFar,
    /// Of the last step.
    pub(super) learning_rate: f64,
    pub(super) saved_at: Option<usize>,
    pub(super) evaluated_at: Option<usize>,
}

impl Tally {
    /// The beginning of a run, or of what is left of it.
    pub(super) fn new(resumed: Option<&Checkpoint>) -> Self {
        let Some(Checkpoint { path, state }) = resumed else {
            return Self::default();
        };
        Self {
            summary: FitSummary {
                steps: state.step,
                eval: state.eval.clone(),
                checkpoint: Some(path.clone()),
                ..FitSummary::default()
            },
            totals: state.totals,
            best: state.best.clone(),
            learning_rate: state.learning_rate,
            saved_at: Some(state.step),
            evaluated_at: state.eval.as_ref().map(|eval| eval.step),
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
            self.totals.loss += output.loss;
            self.totals.steps += 1;
        }
    }

    /// The summary, with what only the end knows.
    pub(super) fn finish(mut self, seconds: f64) -> FitSummary {
        let Totals { loss, steps } = self.totals;
        self.summary.train_loss = (steps > 0).then(|| loss / steps as f64);
        self.summary.seconds = seconds;
        self.summary.best_eval = self.best.best;
        self.summary
    }
}
