//! Scoring a file.

use burn::data::{dataloader::DataLoader, dataset::InMemDataset};
use burn_peft::{Adapter, Injected, PeftModel};
use burn_peft_data::{Batch, EvalLoader, Example, Padding};
use burn_peft_ops::Ops;
use serde::Serialize;

use crate::{Error, loss::injected_losses};

/// How likely a model finds a file.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Evaluation {
    /// Mean negative log-likelihood of a supervised token, in nats.
    pub loss: f64,
    /// `exp(loss)`.
    pub perplexity: f64,
    /// Supervised tokens.
    pub label_tokens: usize,
    /// Rows.
    pub examples: usize,
    /// Each row on its own, in the order of the file.
    #[serde(skip)]
    pub per_example: Vec<ExampleLoss>,
}

/// How likely a model finds one row.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct ExampleLoss {
    /// Summed over the row's supervised tokens, in nats.
    pub nll: f64,
    /// Supervised tokens.
    pub label_tokens: usize,
}

/// Scores every example of `loader`. `progress` is called with the rows done so far.
pub fn evaluate<B: Ops, A: Adapter<B>>(
    model: &PeftModel<B, A>,
    loader: &dyn DataLoader<B, Batch<B>>,
    progress: &mut dyn FnMut(usize),
) -> Evaluation {
    let mut per_example = vec![ExampleLoss::default(); loader.num_items()];
    let mut done = 0;
    let model = model.injected();
    for batch in loader.iter() {
        for (row, found) in row_losses(&model, &batch).into_iter().enumerate() {
            per_example[batch.indices[row]] = found;
        }
        done += batch.batch;
        progress(done);
    }
    Evaluation::from_examples(per_example)
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

/// The losses of each row of a batch.
fn row_losses<B: Ops>(model: &Injected<B>, batch: &Batch<B>) -> Vec<ExampleLoss> {
    let mut rows = vec![ExampleLoss::default(); batch.batch];
    if let Some(losses) = injected_losses(model, batch) {
        let nll = losses.nll.into_data();
        for (row, nll) in losses.rows.iter().zip(nll.iter::<f64>()) {
            rows[*row].nll += nll;
            rows[*row].label_tokens += 1;
        }
    }
    rows
}

impl Evaluation {
    fn from_examples(per_example: Vec<ExampleLoss>) -> Self {
        let label_tokens: usize = per_example.iter().map(|e| e.label_tokens).sum();
        let nll: f64 = per_example.iter().map(|e| e.nll).sum();
        let loss = nll / label_tokens as f64;
        Self {
            loss,
            perplexity: loss.exp(),
            label_tokens,
            examples: per_example.len(),
            per_example,
        }
    }
}
