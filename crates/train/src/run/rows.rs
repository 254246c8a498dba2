//! From rows to batches.

use burn::{data::dataset::InMemDataset, tensor::backend::AutodiffBackend};
use burn_peft_data::{BatchOrder, Example, IGNORE_INDEX, Padding, Rows, StepLoader, Tokenized};

use crate::{Error, Plan, RunConfig};

/// Tokens of the longest row.
pub(super) fn longest(examples: &[Example]) -> usize {
    examples.iter().map(Example::len).max().unwrap_or(0)
}

/// The rows without a label on their first token. Behind virtual tokens it can be predicted, by the base alone it
/// cannot, and scores before and after training are to be of the same tokens.
pub(super) fn same_tokens(examples: &[Example]) -> Vec<Example> {
    let mut examples = examples.to_vec();
    for example in &mut examples {
        if let Some(first) = example.labels.first_mut() {
            *first = IGNORE_INDEX;
        }
    }
    examples
}

/// What became of a file's rows.
pub(super) fn describe(rows: &Rows, tokenized: &Tokenized) -> String {
    let lengths = tokenized.examples.iter().map(Example::len);
    let mut text = format!(
        "{}: {} rows, longest row: {} tokens",
        rows.path(),
        tokenized.examples.len(),
        lengths.max().unwrap_or(0),
    );
    if tokenized.truncated + tokenized.dropped > 0 {
        text += &format!(
            "; {} cut to data.max_length, {} dropped because no supervised token was left",
            tokenized.truncated, tokenized.dropped
        );
    }
    text
}

pub(super) fn step_loader<B: AutodiffBackend>(
    config: &RunConfig,
    examples: Vec<Example>,
    padding: Padding,
    plan: Plan,
    device: &B::Device,
) -> Result<StepLoader<B>, Error> {
    let train = &config.train;
    let order = BatchOrder {
        group_by_length: train.group_by_length,
        ..BatchOrder::new(
            train.seed,
            train.per_device_train_batch_size,
            train.gradient_accumulation_steps,
        )
    };
    let dataset = InMemDataset::new(examples);
    Ok(StepLoader::new(
        dataset,
        order,
        padding,
        plan.total_steps,
        device.clone(),
    )?)
}
