//! What the outputs of a head cost. The definitions are those of transformers' `ForSequenceClassification`,
//! `ForTokenClassification` and `ForQuestionAnswering`, with padding and virtual tokens left out everywhere.

use burn::tensor::{Int, Tensor, TensorData, activation::log_softmax, backend::Backend};
use burn_peft::HeadKind;
use burn_peft_data::{Batch, IGNORE_INDEX, RowLabel};

use super::Losses;

/// Stands for the logit of a cell that is no token. Its share of a softmax is 0.
const NO_TOKEN: f32 = -1e30;

/// The cells that a head of this kind reads of a batch, row-major: each row's last token, or all tokens.
pub(crate) fn read_cells<B: Backend>(kind: HeadKind, batch: &Batch<B>) -> Vec<usize> {
    let tokens = (0..batch.batch).flat_map(|row| {
        let cells = row * batch.seq..(row + 1) * batch.seq;
        let mut tokens: Vec<usize> = cells.filter(|cell| batch.attention_mask[*cell]).collect();
        if kind == HeadKind::Sequence {
            tokens.drain(..tokens.len().saturating_sub(1));
        }
        tokens
    });
    tokens.collect()
}

/// What the labels of a batch cost, given the logits at `cells`, `[cells, outputs]`; `None` where no label is known.
pub(crate) fn head_losses<B: Backend>(
    kind: HeadKind,
    logits: Tensor<B, 2>,
    cells: &[usize],
    batch: &Batch<B>,
) -> Option<Losses<B>> {
    match kind {
        HeadKind::Sequence => sequence_losses(logits, cells, batch),
        HeadKind::Token => token_losses(logits, cells, batch),
        HeadKind::Span => span_losses(logits, cells, batch),
    }
}

/// Cross-entropy of one class, binary cross-entropy of each of several, or squared errors of numbers.
fn sequence_losses<B: Backend>(
    logits: Tensor<B, 2>,
    cells: &[usize],
    batch: &Batch<B>,
) -> Option<Losses<B>> {
    // The rows whose label is known: where each stands among the logits, and its label.
    let rows = cells.iter().map(|cell| cell / batch.seq).enumerate();
    let known = rows.filter_map(|(index, row)| match batch.row_labels[row].as_ref()? {
        RowLabel::Unknown => None,
        label => Some((index, row, label)),
    });
    let known: Vec<_> = known.collect();
    let indices: Vec<usize> = known.iter().map(|(index, ..)| *index).collect();
    let outputs = logits.dims()[1];
    let logits = rows_of(logits, &indices)?;
    let (mut classes, mut numbers, mut regression) = (Vec::new(), Vec::new(), false);
    for (_, _, label) in &known {
        match label {
            RowLabel::Class(class) => classes.push(*class),
            RowLabel::Classes(of_row) => numbers.extend(of_row.iter().map(|&is| f32::from(is))),
            RowLabel::Values(values) => {
                regression = true;
                numbers.extend(values);
            }
            RowLabel::Span { .. } | RowLabel::Unknown => {
                unreachable!("a row of a sequence head has a class or a number")
            }
        }
    }
    let row = |(_, row, _): &(usize, usize, &RowLabel)| *row;
    if !classes.is_empty() {
        let rows = known.iter().map(row).collect();
        let nll = picked(log_softmax(logits, 1), &classes).neg();
        return Some(Losses { nll, rows });
    }
    let rows = known.iter().map(row);
    let rows = rows
        .flat_map(|row| std::iter::repeat_n(row, outputs))
        .collect();
    let count = known.len() * outputs;
    let logits: Tensor<B, 1> = logits.reshape([count]);
    let targets = TensorData::new(numbers, [count]).convert_dtype(logits.dtype());
    let targets = Tensor::from_data(targets, (&logits.device(), logits.dtype()));
    let nll = match regression {
        true => (logits - targets).square(),
        // log(1 + exp(x)) − x · target, in a form whose exponential does not overflow.
        false => {
            let soft = logits.clone().abs().neg().exp().log1p();
            logits.clone().clamp_min(0.0) + soft - logits * targets
        }
    };
    Some(Losses { nll, rows })
}

/// Cross-entropy of each labelled token.
fn token_losses<B: Backend>(
    logits: Tensor<B, 2>,
    cells: &[usize],
    batch: &Batch<B>,
) -> Option<Losses<B>> {
    let labelled = cells.iter().enumerate();
    let labelled = labelled.filter(|(_, cell)| batch.labels[**cell] != IGNORE_INDEX);
    let (indices, cells): (Vec<usize>, Vec<usize>) = labelled.unzip();
    let classes: Vec<usize> = cells
        .iter()
        .map(|cell| batch.labels[*cell] as usize)
        .collect();
    let logits = rows_of(logits, &indices)?;
    Some(Losses {
        nll: picked(log_softmax(logits, 1), &classes).neg(),
        rows: cells.into_iter().map(|cell| cell / batch.seq).collect(),
    })
}

/// The mean of the cross-entropies of an answer's first and last token over the tokens of its row.
fn span_losses<B: Backend>(
    logits: Tensor<B, 2>,
    cells: &[usize],
    batch: &Batch<B>,
) -> Option<Losses<B>> {
    let known = batch.row_labels.iter().enumerate();
    let known = known.filter_map(|(row, label)| match label {
        Some(RowLabel::Span { start, end }) => Some((row, *start, *end)),
        _ => None,
    });
    let known: Vec<(usize, usize, usize)> = known.collect();
    if known.is_empty() {
        return None;
    }
    // Each cell's logits, and those of no token in the cells of padding.
    let mut places = vec![cells.len(); batch.batch * batch.seq];
    for (index, cell) in cells.iter().enumerate() {
        places[*cell] = index;
    }
    let places: Vec<usize> = known
        .iter()
        .flat_map(|(row, ..)| places[row * batch.seq..(row + 1) * batch.seq].to_vec())
        .collect();
    let outputs = logits.dims()[1];
    let no_token = Tensor::full([1, outputs], NO_TOKEN, (&logits.device(), logits.dtype()));
    let logits = rows_of(Tensor::cat(vec![logits, no_token], 0), &places)?;
    let logits = logits.reshape([known.len(), batch.seq, outputs]);
    let of_ends = |output: usize, ends: Vec<usize>| {
        let logits = logits.clone().narrow(2, output, 1).squeeze_dim::<2>(2);
        picked(log_softmax(logits, 1), &ends).neg()
    };
    let starts = of_ends(0, known.iter().map(|(_, start, _)| *start).collect());
    let ends = of_ends(1, known.iter().map(|(.., end)| *end).collect());
    Some(Losses {
        nll: (starts + ends) / 2.0,
        rows: known.into_iter().map(|(row, ..)| row).collect(),
    })
}

/// Some rows of a table; `None` where there are none.
fn rows_of<B: Backend>(table: Tensor<B, 2>, rows: &[usize]) -> Option<Tensor<B, 2>> {
    if rows.is_empty() {
        return None;
    }
    if rows.len() == table.dims()[0] && rows.iter().enumerate().all(|(at, row)| at == *row) {
        return Some(table);
    }
    let indices = ints(rows, &table.device());
    Some(table.select(0, indices))
}

/// The value of each row in one column, `[rows]`.
fn picked<B: Backend>(table: Tensor<B, 2>, columns: &[usize]) -> Tensor<B, 1> {
    let columns = ints(columns, &table.device()).unsqueeze_dim(1);
    table.gather(1, columns).squeeze_dim(1)
}

fn ints<B: Backend>(values: &[usize], device: &B::Device) -> Tensor<B, 1, Int> {
    let values: Vec<i64> = values.iter().map(|value| *value as i64).collect();
    let count = values.len();
    Tensor::from_data(TensorData::new(values, [count]), device)
}
