//! What the supervised tokens of a batch cost.

use burn::tensor::{Int, Tensor, TensorData, backend::Backend};
use burn_peft::{Adapter, Injected, Inputs, PeftModel, Placement, Predictors, Prepared};
use burn_peft_data::{Batch, IGNORE_INDEX};
use burn_peft_decoder::AttentionMask;
use burn_peft_ops::Ops;

/// Negative log-likelihoods of a batch's supervised tokens.
#[derive(Debug, Clone)]
pub struct TokenLosses<B: Backend> {
    /// In nats, `[supervised]`, f32, in the order of the rows.
    pub nll: Tensor<B, 1>,
    /// The row of each, `[supervised]`.
    pub rows: Vec<usize>,
}

/// Runs a batch through the model and scores its supervised tokens; `None` where the batch has none
/// that anything stands in front of.
///
/// Only the hidden states that predict supervised tokens reach the head.
pub fn token_losses<B: Ops, A: Adapter<B>>(
    model: &PeftModel<B, A>,
    batch: &Batch<B>,
) -> Option<TokenLosses<B>> {
    prepared_losses(&model.prepare(inputs(batch)), batch)
}

/// [`token_losses`] of a model whose adapter's value is computed for many batches.
pub fn injected_losses<B: Ops>(model: &Injected<B>, batch: &Batch<B>) -> Option<TokenLosses<B>> {
    prepared_losses(&model.prepare(inputs(batch)), batch)
}

fn prepared_losses<B: Ops>(prepared: &Prepared<B>, batch: &Batch<B>) -> Option<TokenLosses<B>> {
    let predictors = prepared.predictors(&supervised(batch))?;
    Some(losses_of(prepared, predictors, batch))
}

/// A batch as the model takes it.
pub(crate) fn inputs<B: Backend>(batch: &Batch<B>) -> Inputs<B> {
    Inputs {
        input_ids: batch.input_ids.clone(),
        attention_mask: AttentionMask::new(batch.batch, batch.seq, batch.attention_mask.clone()),
        placement: match &batch.placement {
            Some(rows) => Placement::Cells(rows.clone()),
            None => Placement::Front,
        },
    }
}

/// The cells that have a label, row-major.
pub(crate) fn supervised<B: Backend>(batch: &Batch<B>) -> Vec<usize> {
    let labels = batch.labels.iter().enumerate();
    labels
        .filter(|(_, label)| **label != IGNORE_INDEX)
        .map(|(cell, _)| cell)
        .collect()
}

/// What the labels of the predicted cells cost.
pub(crate) fn losses_of<B: Ops>(
    prepared: &Prepared<B>,
    Predictors { cells, hidden }: Predictors<B>,
    batch: &Batch<B>,
) -> TokenLosses<B> {
    let targets: Vec<i64> = cells.iter().map(|cell| batch.labels[*cell]).collect();
    let targets = TensorData::new(targets, [cells.len()]);
    let targets = Tensor::<B, 1, Int>::from_data(targets, &hidden.device());
    TokenLosses {
        nll: prepared.base().token_losses(hidden, targets),
        rows: cells.into_iter().map(|cell| cell / batch.seq).collect(),
    }
}
