//! Which hidden state predicts which label, and what it costs.

use burn::tensor::{Int, Tensor, TensorData, backend::Backend};
use burn_peft::{Adapter, Injected, Inputs, PeftModel, Placement, Prepared};
use burn_peft_data::{Batch, IGNORE_INDEX};
use burn_peft_decoder::{AttentionMask, Decoder, Past};
use burn_peft_ops::Ops;

/// Negative log-likelihoods of a batch's supervised tokens.
#[derive(Debug, Clone)]
pub struct TokenLosses<B: Backend> {
    /// In nats, `[supervised]`, f32, in the order of the rows.
    pub nll: Tensor<B, 1>,
    /// The row of each, `[supervised]`.
    pub rows: Vec<usize>,
}

/// What is to be predicted in a prepared batch.
pub(crate) struct Question {
    predictions: Vec<Prediction>,
    /// Cells in a row.
    seq: usize,
    /// The last token of a prompt that runs beside the rows, as a cell behind them.
    prompt_cell: Option<usize>,
}

/// Lets the adapter do its work on a batch; `None` where the batch has no supervised token that anything
/// stands in front of.
pub(crate) fn prepare<B: Ops, A: Adapter<B>>(
    model: &PeftModel<B, A>,
    batch: &Batch<B>,
) -> Option<(Prepared<B>, Question)> {
    ask(model.prepare(inputs(batch)), batch)
}

fn inputs<B: Backend>(batch: &Batch<B>) -> Inputs<B> {
    Inputs {
        input_ids: batch.input_ids.clone(),
        attention_mask: AttentionMask::new(batch.batch, batch.seq, batch.attention_mask.clone()),
        placement: match &batch.placement {
            Some(rows) => Placement::Cells(rows.clone()),
            None => Placement::Front,
        },
    }
}

fn ask<B: Backend>(prepared: Prepared<B>, batch: &Batch<B>) -> Option<(Prepared<B>, Question)> {
    let Prepared { mask, past, .. } = &prepared;
    let prompt_cell = match past {
        Past::Prompt(prompt) => Some(mask.batch() * mask.seq() + prompt.dims()[0] - 1),
        Past::Cache(_) => None,
    };
    let prompt = prompt_cell.is_some() || prepared.lead.is_some();
    let predictions = predictions(mask, &prepared.cells, prompt, &batch.labels);
    let question = Question {
        seq: mask.seq(),
        prompt_cell: prompt_cell.filter(|_| predictions.iter().any(|p| p.cell.is_none())),
        predictions,
    };
    (!question.predictions.is_empty()).then_some((prepared, question))
}

impl Question {
    /// The cells whose hidden states are wanted, of the row-major `[batch, seq]` and, the last one, of a prompt
    /// that runs beside the rows; at least one.
    pub(crate) fn cells(&self) -> Vec<usize> {
        let cells = self.predictions.iter();
        let cells = cells.filter_map(|p| p.cell.map(|cell| p.row * self.seq + cell));
        let mut cells: Vec<_> = cells.chain(self.prompt_cell).collect();
        if cells.is_empty() {
            // A prompt that has run predicts all there is; tensors without a row are not for every backend.
            cells.push(0);
        }
        cells
    }

    /// Scores the predictions. `hidden` are the states of [`cells`](Self::cells), `[cells, d_model]`, and
    /// `lead` is the prepared batch's.
    pub(crate) fn score<B: Ops>(
        &self,
        base: &Decoder<B>,
        hidden: Tensor<B, 2>,
        lead: Option<Tensor<B, 2>>,
    ) -> TokenLosses<B> {
        let device = hidden.device();
        let to_device = |values: Vec<i64>| {
            let count = values.len();
            Tensor::<B, 1, Int>::from_data(TensorData::new(values, [count]), &device)
        };
        let hidden = match self.predictions.iter().any(|p| p.cell.is_none()) {
            false => hidden,
            true => {
                let all = match lead {
                    Some(lead) => Tensor::cat(vec![hidden, lead], 0),
                    None => hidden,
                };
                let last = all.dims()[0] as i64 - 1;
                let mut next = 0..last;
                let places = self.predictions.iter().map(|p| match p.cell {
                    Some(_) => next.next().expect("a state for each cell"),
                    None => last,
                });
                all.select(0, to_device(places.collect()))
            }
        };
        let targets = to_device(self.predictions.iter().map(|p| p.label).collect());
        TokenLosses {
            nll: base.token_losses(hidden, targets),
            rows: self.predictions.iter().map(|p| p.row).collect(),
        }
    }
}

/// Runs a batch through the model and scores its supervised tokens; `None` where the batch has none
/// that anything stands in front of.
///
/// Only the hidden states in front of supervised tokens reach the head.
pub fn token_losses<B: Ops, A: Adapter<B>>(
    model: &PeftModel<B, A>,
    batch: &Batch<B>,
) -> Option<TokenLosses<B>> {
    prepare(model, batch).map(score)
}

/// [`token_losses`] of a model whose adapter has done its part for many batches.
pub fn injected_losses<B: Ops>(model: &Injected<B>, batch: &Batch<B>) -> Option<TokenLosses<B>> {
    ask(model.prepare(inputs(batch)), batch).map(score)
}

fn score<B: Ops>((prepared, question): (Prepared<B>, Question)) -> TokenLosses<B> {
    let hidden = prepared.decode_cells(&question.cells());
    question.score(&prepared.base, hidden, prepared.lead)
}

/// One supervised token.
#[derive(Debug, PartialEq, Eq)]
struct Prediction {
    row: usize,
    /// The cell whose hidden state predicts it; `None` for the last virtual token of a shared prompt.
    cell: Option<usize>,
    /// Its id.
    label: i64,
}

/// A label is predicted by the last token in front of it: a real one, or the last virtual one (as
/// in PEFT). `labels` are row-major `[batch, seq]`, and `cells` says where in `mask` each of them went;
/// `prompt`: in front of the rows stands one that is not in `mask`.
fn predictions(
    mask: &AttentionMask,
    cells: &[usize],
    prompt: bool,
    labels: &[i64],
) -> Vec<Prediction> {
    let seq = cells.len() / mask.batch();
    let mut predictions = Vec::new();
    for row in 0..mask.batch() {
        let mut label_of = vec![IGNORE_INDEX; mask.seq()];
        for index in row * seq..(row + 1) * seq {
            label_of[cells[index]] = labels[index];
        }
        let mut before = None;
        for (cell, is_token) in mask.row(row).iter().enumerate() {
            let label = label_of[cell];
            if label != IGNORE_INDEX && (prompt || before.is_some()) {
                predictions.push(Prediction {
                    row,
                    cell: before,
                    label,
                });
            }
            if *is_token {
                before = Some(cell);
            }
        }
    }
    predictions
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(mask: AttentionMask, cells: &[usize], labels: &[i64]) -> Vec<(usize, i64)> {
        predictions(&mask, cells, false, labels)
            .into_iter()
            .map(|p| (p.cell.expect("no shared prompt"), p.label))
            .collect()
    }

    #[test]
    fn the_last_token_of_a_shared_prompt_predicts_the_first_of_every_row() {
        let mask = AttentionMask::new(2, 2, vec![true, true, false, true]);
        let found = predictions(&mask, &[0, 1, 0, 1], true, &[7, 8, -100, 9]);
        let found: Vec<_> = found
            .into_iter()
            .map(|p| (p.row, p.cell, p.label))
            .collect();
        assert_eq!(found, [(0, None, 7), (0, Some(0), 8), (1, None, 9)]);
    }

    #[test]
    fn without_a_prompt_nothing_predicts_the_first_token() {
        let mask = AttentionMask::full(1, 3);
        assert_eq!(found(mask, &[0, 1, 2], &[7, 8, -100]), [(0, 8)]);
    }

    #[test]
    fn the_last_virtual_token_predicts_the_first_real_one() {
        let mask = AttentionMask::full(1, 5);
        assert_eq!(found(mask, &[2, 3, 4], &[7, 8, -100]), [(1, 7), (2, 8)]);
    }

    #[test]
    fn a_virtual_token_in_the_middle_predicts_what_follows_it() {
        let mask = AttentionMask::full(1, 4);
        assert_eq!(found(mask, &[0, 1, 3], &[-100, 7, 8]), [(0, 7), (2, 8)]);
    }

    #[test]
    fn left_padding_between_prompt_and_text_is_skipped() {
        let mask = AttentionMask::new(1, 5, vec![true, true, false, true, true]);
        assert_eq!(found(mask, &[2, 3, 4], &[-100, 7, 8]), [(1, 7), (3, 8)]);
    }
}
