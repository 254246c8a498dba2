//! What the methods with virtual tokens share: how many there are, and the numbers they start from.

use burn::tensor::{Int, Tensor, TensorData};
use burn_peft_decoder::Decoder;
use burn_peft_ops::Ops;
use rand::{Rng, rngs::StdRng};

use crate::Error;

/// Virtual tokens where neither options, template nor text say how many.
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
    /// `count` random tokens of a vocabulary, of which those beyond the tokenizer's are none.
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

/// Refuses a prompt without tokens.
pub(crate) fn check_count(num_virtual_tokens: Option<usize>) -> Result<(), Error> {
    match num_virtual_tokens {
        Some(0) => Err(Error::option("num_virtual_tokens", "it must be at least 1")),
        _ => Ok(()),
    }
}

/// Refuses a dropout that is no probability below 1.
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
pub(crate) fn embedding_spread<B: Ops>(base: &Decoder<B>) -> f64 {
    let vocab = base.config().vocab_size;
    let rows: Vec<u32> = (0..vocab as u32).step_by(vocab.div_ceil(4096)).collect();
    let values = embeddings_of(base, &rows);
    let squares: f64 = values.iter().map(|value| f64::from(value * value)).sum();
    (squares / values.len() as f64).sqrt()
}

/// Rows of the embedding table, on the host and in f32, row-major `[ids, d_model]`.
pub(crate) fn embeddings_of<B: Ops>(base: &Decoder<B>, ids: &[u32]) -> Vec<f32> {
    let ids: Vec<i64> = ids.iter().map(|id| i64::from(*id)).collect();
    let count = ids.len();
    let ids = TensorData::new(ids, [1, count]);
    let ids = Tensor::<B, 2, Int>::from_data(ids, &base.device());
    let rows = base.embed(ids).into_data();
    rows.iter::<f32>().collect()
}
