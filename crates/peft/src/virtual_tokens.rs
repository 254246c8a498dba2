//! What the methods with virtual tokens share: checks of their options, and the numbers they start from.

use rand::{Rng, rngs::StdRng};

use crate::{Error, base_values::BaseValues};

/// Virtual tokens where neither options, template nor text says how many.
// Lester et al. 2021, §3.2: beyond 20 tokens only small gains.
pub(crate) const DEFAULT_TOKENS: usize = 20;

/// What an adapter may need of a tokenizer to start from.
#[derive(Debug, Clone, Default)]
pub struct InitTokens {
    /// Ids of the text that the options name, where they name one.
    pub text_ids: Vec<u32>,
    /// Ids of each label that the options name, where they name some.
    pub label_ids: Vec<Vec<u32>>,
    /// Ids that the tokenizer has. Embedding tables are padded beyond them. 0: all of the table's.
    pub known_ids: usize,
}

impl InitTokens {
    /// `count` random tokens that the tokenizer has, of a table of `vocab` rows.
    pub(crate) fn sample(&self, count: usize, vocab: usize, random: &mut StdRng) -> Vec<u32> {
        let known = match self.known_ids {
            0 => vocab,
            known => known.min(vocab),
        };
        (0..count)
            .map(|_| random.random_range(0..known as u32))
            .collect()
    }
}

/// Refuses a size of zero.
pub(crate) fn check_at_least_1(name: &'static str, size: Option<usize>) -> Result<(), Error> {
    match size {
        Some(0) => Err(Error::option(name, "it must be at least 1")),
        _ => Ok(()),
    }
}

/// Refuses a dropout outside 0 to 1.
pub(crate) fn check_dropout(name: &'static str, dropout: f64) -> Result<(), Error> {
    match (0.0..1.0).contains(&dropout) {
        true => Ok(()),
        false => Err(Error::option(name, "it must be 0 or more and below 1")),
    }
}

/// `count` ids of a text, cut or repeated, as PEFT's `TEXT` does it. `option` names the text.
pub(crate) fn cut_or_repeat(
    text_ids: &[u32],
    count: usize,
    option: &'static str,
) -> Result<Vec<u32>, Error> {
    if text_ids.is_empty() {
        return Err(Error::option(option, "the tokenizer makes no token of it"));
    }
    Ok(text_ids.iter().copied().cycle().take(count).collect())
}

/// Root mean square of the embedding table, from at most 4,096 of its rows, evenly spread.
pub(crate) fn embedding_spread(base: &dyn BaseValues) -> f64 {
    let vocab = base.config().vocab_size;
    let rows: Vec<u32> = (0..vocab as u32).step_by(vocab.div_ceil(4096)).collect();
    let values = base.embeddings(&rows);
    let squares: f64 = values.iter().map(|value| f64::from(value * value)).sum();
    (squares / values.len() as f64).sqrt()
}

/// The mean of the embeddings of a label's tokens, `[d_model]`. `option` names the labels.
pub(crate) fn mean_embedding(
    base: &dyn BaseValues,
    ids: &[u32],
    option: &'static str,
) -> Result<Vec<f32>, Error> {
    if ids.is_empty() {
        let reason = "the tokenizer makes no token of one of the labels";
        return Err(Error::option(option, reason));
    }
    let rows = base.embeddings(ids);
    let width = base.config().hidden_size;
    let sum = |column: usize| rows.iter().skip(column).step_by(width).sum::<f32>();
    let mean = (0..width).map(|column| sum(column) / ids.len() as f32);
    Ok(mean.collect())
}
