//! Which hidden state predicts which label, and what it costs.

use burn::tensor::{Int, Tensor, TensorData, backend::Backend};
use burn_peft::{Adapter, Inputs, PeftModel, Placement, Prepared};
use burn_peft_data::{Batch, IGNORE_INDEX};
use burn_peft_ops::Ops;
use burn_qwen2::AttentionMask;

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
/// Only the hidden states in front of supervised tokens reach the head.
pub fn token_losses<B: Ops, A: Adapter<B>>(
    model: &PeftModel<B, A>,
    batch: &Batch<B>,
) -> Option<TokenLosses<B>> {
    let attention_mask = AttentionMask::new(batch.batch, batch.seq, batch.attention_mask.clone());
    let Prepared {
        base,
        hidden,
        mask,
        mut cache,
        cells,
    } = model.prepare(Inputs {
        input_ids: batch.input_ids.clone(),
        attention_mask,
        placement: match &batch.placement {
            Some(rows) => Placement::Cells(rows.clone()),
            None => Placement::Front,
        },
    });
    let predictions = predictions(&mask, &cells, &batch.labels);
    if predictions.is_empty() {
        return None;
    }
    let hidden = base.decode(hidden, &mask, &mut cache);
    let [rows, seq, d_model] = hidden.dims();
    let device = hidden.device();
    let to_device = |values: Vec<i64>| {
        let count = values.len();
        Tensor::<B, 1, Int>::from_data(TensorData::new(values, [count]), &device)
    };
    let cells = to_device(
        predictions
            .iter()
            .map(|p| (p.row * seq + p.cell) as i64)
            .collect(),
    );
    let targets = to_device(predictions.iter().map(|p| p.label).collect());
    let hidden = hidden.reshape([rows * seq, d_model]).select(0, cells);
    Some(TokenLosses {
        nll: base.token_losses(hidden, targets),
        rows: predictions.iter().map(|p| p.row).collect(),
    })
}

/// One supervised token.
#[derive(Debug, PartialEq, Eq)]
struct Prediction {
    row: usize,
    /// The cell whose hidden state predicts it.
    cell: usize,
    /// Its id.
    label: i64,
}

/// A label is predicted by the last token in front of it: a real one, or the last virtual one (as
/// in PEFT). `labels` are row-major `[batch, seq]`, and `cells` says where in `mask` each of them went.
fn predictions(mask: &AttentionMask, cells: &[usize], labels: &[i64]) -> Vec<Prediction> {
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
            if let (Some(before), true) = (before, label != IGNORE_INDEX) {
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
        predictions(&mask, cells, labels)
            .into_iter()
            .map(|p| (p.cell, p.label))
            .collect()
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
