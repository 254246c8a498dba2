//! Scoring a file.

use burn::data::{dataloader::DataLoader, dataset::InMemDataset};
use burn::tensor::{Tensor, backend::Backend};
use burn_peft::{Adapter, Head, HeadKind, Injected, PeftModel};
use burn_peft_data::{Batch, EvalLoader, Example, Padding};
use burn_peft_ops::Ops;
use serde::{Deserialize, Deserializer, Serialize};

use crate::{
    Error, Losses, Ranks,
    loss::{head_losses, injected_losses, inputs, read_cells},
};

/// How likely a model finds a file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Mean over the labels: of a supervised token or of a class the negative log-likelihood in nats, of a number the
    /// squared error. NaN where no label is known.
    #[serde(deserialize_with = "number_or_nan")]
    pub loss: f64,
    /// `exp(loss)`; `None` where no text is learned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub perplexity: Option<f64>,
    /// Supervised tokens; with a head, labels.
    pub label_tokens: usize,
    /// Examples: rows, or windows of them.
    pub examples: usize,
    /// Each example on its own, in the order of the file.
    #[serde(skip)]
    pub per_example: Vec<ExampleLoss>,
}

/// JSON has no NaN: it is written as null.
fn number_or_nan<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(f64::NAN))
}

/// How likely a model finds one example.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct ExampleLoss {
    /// Summed over its labels; see [`Evaluation::loss`].
    pub nll: f64,
    /// Supervised tokens; with a head, labels.
    pub label_tokens: usize,
    /// What the head says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logits: Option<Logits>,
}

impl ExampleLoss {
    /// Adds another window of the same row.
    fn join(&mut self, other: &Self) {
        self.nll += other.nll;
        self.label_tokens += other.label_tokens;
        let windows = match self.logits.take() {
            Some(Logits::Windows(windows)) => windows,
            first => first.into_iter().collect(),
        };
        let windows = windows.into_iter().chain(other.logits.clone());
        self.logits = Some(Logits::Windows(windows.collect()));
    }
}

/// The outputs of a head for one example.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Logits {
    /// Of the row, `[outputs]`.
    Row(Vec<f32>),
    /// Of each token, `[tokens, outputs]`.
    Tokens(Vec<Vec<f32>>),
    /// Of each token, as the first and as the last one of the answer, `[tokens]` each.
    Span {
        /// As the first one.
        start: Vec<f32>,
        /// As the last one.
        end: Vec<f32>,
    },
    /// Of each window of a row that has several.
    Windows(Vec<Self>),
}

/// Scores every example of `loader`. `progress` is called with the rows done so far.
pub fn evaluate<B: Ops, A: Adapter<B>>(
    model: &PeftModel<B, A>,
    loader: &dyn DataLoader<B, Batch<B>>,
    progress: &mut dyn FnMut(usize),
) -> Evaluation {
    evaluate_until(model, loader, &Ranks::alone(), progress, &|| false)
        .unwrap_or_else(|| unreachable!("nothing stops it"))
}

/// [`evaluate`], with the batches dealt out among `ranks`, which all get the whole; `None` where `stop` said so to one of
/// them before all rows were done.
pub(crate) fn evaluate_until<B: Ops, A: Adapter<B>>(
    model: &PeftModel<B, A>,
    loader: &dyn DataLoader<B, Batch<B>>,
    ranks: &Ranks,
    progress: &mut dyn FnMut(usize),
    stop: &dyn Fn() -> bool,
) -> Option<Evaluation> {
    let mut per_example = vec![ExampleLoss::default(); loader.num_items()];
    let mut own = Vec::new();
    let (mut done, mut stopped) = (0, false);
    let injected = model.injected();
    for (number, batch) in loader.iter().enumerate() {
        stopped = stop();
        if stopped {
            break;
        }
        done += batch.batch;
        if !ranks.has(number) {
            continue;
        }
        let found = match model.head() {
            None => {
                let mut rows = vec![ExampleLoss::default(); batch.batch];
                add_losses(&mut rows, injected_losses(&injected, &batch));
                rows
            }
            Some(head) => head_rows(&injected, head, &batch),
        };
        own.extend(batch.indices.iter().copied().zip(found));
        progress(done);
    }
    if ranks.any(stopped) {
        return None;
    }
    for (index, found) in from_all(own, ranks) {
        per_example[index] = found;
    }
    Some(Evaluation::from_examples(
        per_example,
        model.head().is_none(),
    ))
}

/// The examples of all ranks. What a head says has no form that tells its kinds apart when it is read again, so it goes as a
/// list of lists with a number for its kind.
fn from_all(own: Vec<(usize, ExampleLoss)>, ranks: &Ranks) -> Vec<(usize, ExampleLoss)> {
    if ranks.is_alone() {
        return own;
    }
    let sent = own.into_iter().map(|(index, found)| {
        let logits = found.logits.map(|logits| match logits {
            Logits::Row(row) => (0_u8, vec![row]),
            Logits::Tokens(rows) => (1, rows),
            Logits::Span { start, end } => (2, vec![start, end]),
            Logits::Windows(_) => unreachable!("windows are put together later"),
        });
        (index, found.nll, found.label_tokens, logits)
    });
    let found = ranks
        .gather(&sent.collect::<Vec<_>>())
        .into_iter()
        .flatten();
    let found = found.map(|(index, nll, label_tokens, logits)| {
        let logits = logits.map(|(kind, mut rows)| match kind {
            0 => Logits::Row(rows.swap_remove(0)),
            1 => Logits::Tokens(rows),
            _ => Logits::Span {
                end: rows.swap_remove(1),
                start: rows.swap_remove(0),
            },
        });
        let found = ExampleLoss {
            nll,
            label_tokens,
            logits,
        };
        (index, found)
    });
    found.collect()
}

/// A loader of rows to be scored, `batch_size` of like length at a time.
pub(crate) fn eval_loader<B: Ops>(
    examples: Vec<Example>,
    batch_size: usize,
    padding: Padding,
    device: &B::Device,
) -> Result<EvalLoader<B>, Error> {
    let dataset = InMemDataset::new(examples);
    Ok(EvalLoader::new(
        dataset,
        batch_size,
        padding,
        device.clone(),
    )?)
}

/// What a head says of each row of a batch, and what its labels cost.
fn head_rows<B: Ops>(model: &Injected<B>, head: &Head<B>, batch: &Batch<B>) -> Vec<ExampleLoss> {
    let cells = read_cells(head.kind(), batch);
    let prepared = model.prepare(inputs(batch));
    let logits = head.forward(prepared.states(&cells));
    let mut rows: Vec<ExampleLoss> = rows_of(logits.clone(), &cells, batch)
        .into_iter()
        .map(|rows| ExampleLoss {
            logits: Some(of_kind(head.kind(), rows)),
            ..ExampleLoss::default()
        })
        .collect();
    add_losses(&mut rows, head_losses(head.kind(), logits, &cells, batch));
    rows
}

/// The logits of each row's cells, `[cells of the row, outputs]`.
fn rows_of<B: Backend>(
    logits: Tensor<B, 2>,
    cells: &[usize],
    batch: &Batch<B>,
) -> Vec<Vec<Vec<f32>>> {
    let outputs = logits.dims()[1];
    let values: Vec<f32> = logits.into_data().iter::<f32>().collect();
    let mut rows = vec![Vec::new(); batch.batch];
    for (cell, logits) in cells.iter().zip(values.chunks(outputs)) {
        rows[cell / batch.seq].push(logits.to_vec());
    }
    rows
}

fn of_kind(kind: HeadKind, mut rows: Vec<Vec<f32>>) -> Logits {
    match kind {
        HeadKind::Sequence => Logits::Row(rows.pop().unwrap_or_default()),
        HeadKind::Token => Logits::Tokens(rows),
        HeadKind::Span => Logits::Span {
            start: rows.iter().map(|logits| logits[0]).collect(),
            end: rows.iter().map(|logits| logits[1]).collect(),
        },
    }
}

/// Adds what the labels cost to their rows.
fn add_losses<B: Backend>(rows: &mut [ExampleLoss], losses: Option<Losses<B>>) {
    let Some(losses) = losses else { return };
    let nll = losses.nll.into_data();
    for (row, nll) in losses.rows.iter().zip(nll.iter::<f64>()) {
        rows[*row].nll += nll;
        rows[*row].label_tokens += 1;
    }
}

impl Evaluation {
    /// Each row on its own, in the order of the file; `examples` are those that were scored. The windows of a row are put
    /// together.
    pub fn per_row(&self, examples: &[Example]) -> Vec<ExampleLoss> {
        let rows = self.of_rows(examples).into_iter();
        rows.map(|(_, row)| row).collect()
    }

    /// The same with the index of each row in the file: rows of which nothing supervised was left are missing.
    pub fn of_rows(&self, examples: &[Example]) -> Vec<(usize, ExampleLoss)> {
        let mut rows: Vec<(usize, ExampleLoss)> = Vec::new();
        for (example, found) in examples.iter().zip(&self.per_example) {
            match rows.last_mut() {
                Some((row, all)) if *row == example.row => all.join(found),
                _ => rows.push((example.row, found.clone())),
            }
        }
        rows
    }

    fn from_examples(per_example: Vec<ExampleLoss>, is_text: bool) -> Self {
        let label_tokens: usize = per_example.iter().map(|e| e.label_tokens).sum();
        let nll: f64 = per_example.iter().map(|e| e.nll).sum();
        let loss = nll / label_tokens as f64;
        Self {
            loss,
            perplexity: is_text.then(|| loss.exp()),
            label_tokens,
            examples: per_example.len(),
            per_example,
        }
    }
}
