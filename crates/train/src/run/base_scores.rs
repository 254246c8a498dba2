//! What the frozen base is worth, before anything is trained.

use std::time::Instant;

use burn_peft::{NoAdapter, PeftModel};
use burn_peft_data::Example;
use burn_peft_decoder::Decoder;
use burn_peft_ops::Ops;

use super::{RunInputs, rows::comparable, validation::numbers};
use crate::{Error, EvalRecord, HeldOut, HeldOutRows, Stage, Texts};

/// The scores of the base's own predictions.
#[derive(Debug, Default)]
pub(super) struct BaseScores {
    /// Those of the held-out rows.
    pub(super) held_out: Option<HeldOut>,
    /// Those of the validation rows, as the record of step 0; `None` where these have no label.
    pub(super) eval: Option<EvalRecord>,
    /// Seconds that the held-out rows took, and will take once more at the end.
    pub(super) seconds: f64,
}

impl BaseScores {
    /// Scores `rows`, and the validation rows where they are others. A head is a new one, from `seed`.
    pub(super) fn compute<B: Ops>(
        base: &Decoder<B>,
        inputs: &RunInputs,
        rows: &HeldOutRows<'_>,
        valid: Option<&[Example]>,
        texts: Texts,
        seed: u64,
        progress: &mut dyn FnMut(Stage, u64, u64),
    ) -> Result<Self, Error> {
        let d_model = base.config().hidden_size;
        let head = rows.task.init_head(d_model, seed, &base.device());
        let bare = PeftModel::new(base.clone(), NoAdapter::default()).with_head(head);
        let began = Instant::now();
        let held_out = rows.score(&bare, texts, progress)?;
        let seconds = began.elapsed().as_secs_f64();
        let eval = match (&inputs.test, &inputs.valid, valid) {
            (None, ..) => record(&held_out),
            (Some(_), Some(valid_rows), Some(examples)) => {
                let valid = HeldOutRows {
                    rows: valid_rows,
                    examples: comparable(rows.task.task, examples),
                    stop_ids: Vec::new(),
                    ranks: rows.ranks.clone(),
                    ..*rows
                };
                record(&valid.score(&bare, Texts::None, progress)?)
            }
            _ => None,
        };
        Ok(Self {
            held_out: Some(held_out),
            eval,
            seconds,
        })
    }
}

/// The record of step 0.
fn record(found: &HeldOut) -> Option<EvalRecord> {
    let evaluation = &found.evaluation;
    evaluation.loss.is_finite().then(|| EvalRecord {
        step: 0,
        epoch: 0.0,
        eval_loss: evaluation.loss,
        eval_label_tokens: evaluation.label_tokens,
        eval_seconds: found.eval_seconds,
        metrics: numbers(&found.scores),
    })
}
