//! What a batch costs.

mod head;

use burn::tensor::{Int, Tensor, TensorData, backend::Backend};
use burn_peft::{Adapter, Head, Injected, Inputs, PeftModel, Placement, Predictors, Prepared};
use burn_peft_data::{Batch, IGNORE_INDEX};
use burn_peft_decoder::AttentionMask;
use burn_peft_ops::Ops;

pub(crate) use head::{head_losses, read_cells};

/// What each label of a batch costs: each supervised token, each row's class, each number, or each answer.
#[derive(Debug, Clone)]
pub struct Losses<B: Backend> {
    /// Negative log-likelihoods in nats, squared errors of a regression, `[labels]`, f32, in the order of the rows.
    pub nll: Tensor<B, 1>,
    /// The row of each, `[labels]`.
    pub rows: Vec<usize>,
}

/// Runs a batch through the model and scores its labels; `None` where the batch has none, or none that anything
/// stands in front of.
///
/// Without a head, only the hidden states that predict supervised tokens reach the language-model head. With a head,
/// only those that it reads are computed to the end, and no logits of the vocabulary.
pub fn losses<B: Ops, A: Adapter<B>>(
    model: &PeftModel<B, A>,
    batch: &Batch<B>,
) -> Option<Losses<B>> {
    prepared_losses(&model.prepare(inputs(batch)), model.head(), batch)
}

/// [`losses`] of a model without a head whose adapter's value is computed for many batches.
pub fn injected_losses<B: Ops>(model: &Injected<B>, batch: &Batch<B>) -> Option<Losses<B>> {
    prepared_losses(&model.prepare(inputs(batch)), None, batch)
}

fn prepared_losses<B: Ops>(
    prepared: &Prepared<B>,
    head: Option<&Head<B>>,
    batch: &Batch<B>,
) -> Option<Losses<B>> {
    let cells = supervised(head, batch);
    let states = match head {
        None => prepared.predictors(&cells)?,
        Some(_) => Predictors {
            hidden: (!cells.is_empty()).then(|| prepared.states(&cells))?,
            cells,
        },
    };
    losses_of(prepared, head, states, batch)
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

/// The cells that the loss is computed from, row-major: those that have a label, or those that a head needs for the
/// labels of the rows.
pub(crate) fn supervised<B: Backend>(head: Option<&Head<B>>, batch: &Batch<B>) -> Vec<usize> {
    match head.filter(|_| batch.row_labels.iter().any(Option::is_some)) {
        Some(head) => read_cells(head.kind(), batch),
        None => {
            let labels = batch.labels.iter().enumerate();
            let labelled = labels.filter(|(_, label)| **label != IGNORE_INDEX);
            labelled.map(|(cell, _)| cell).collect()
        }
    }
}

/// What the labels cost, given the states of the [`supervised`] cells: those that predict them, or those at them
/// where there is a head. `None` where no label is known.
pub(crate) fn losses_of<B: Ops>(
    prepared: &Prepared<B>,
    head: Option<&Head<B>>,
    Predictors { cells, hidden }: Predictors<B>,
    batch: &Batch<B>,
) -> Option<Losses<B>> {
    if let Some(head) = head {
        return head_losses(head.kind(), head.forward(hidden), &cells, batch);
    }
    let targets: Vec<i64> = cells.iter().map(|cell| batch.labels[*cell]).collect();
    let targets = TensorData::new(targets, [cells.len()]);
    let targets = Tensor::<B, 1, Int>::from_data(targets, &hidden.device());
    Some(Losses {
        nll: prepared.base().token_losses(hidden, targets),
        rows: cells.into_iter().map(|cell| cell / batch.seq).collect(),
    })
}
