//! Continues texts, token by token.

mod not_computed;
mod options;
mod sampling;

use std::{collections::HashSet, ops::ControlFlow};

use burn::tensor::{Int, Tensor, TensorData};
use burn_peft_ops::Ops;
use rand::{SeedableRng, rngs::StdRng};
use serde::Serialize;

pub use self::options::{GenerationConfig, GenerationOptions};
use self::sampling::{likeliest, sample};
use crate::{AttentionMask, Decoder, KvCache};

/// Tokens for which there is made room in the cache at once: the model's longest sequence may be more than there is
/// memory for.
const ROOM: usize = 4096;

/// Why a row ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FinishReason {
    /// At a stop id.
    Stop,
    /// At `max_new_tokens`, or at the model's longest sequence.
    Length,
}

/// What was added to one row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generated {
    /// The new tokens, the stop id included.
    pub token_ids: Vec<u32>,
    /// Why it ended.
    pub finish_reason: FinishReason,
}

/// Continues every row of a batch whose tokens are in `cache` already.
///
/// `last` are the hidden states of each row's last token, `[batch, d_model]`, as
/// [`Decoder::decode`] returns them; `prompt_ids` are the rows' ids, for the repetition penalty.
/// `on_token` is called with row and id as soon as they are known and may break off. The cache holds the new tokens
/// afterwards, too, but for the last one.
#[must_use]
pub fn generate<B: Ops>(
    model: &Decoder<B>,
    mut last: Tensor<B, 2>,
    cache: &mut KvCache<B>,
    prompt_ids: &[Vec<u32>],
    options: &GenerationOptions,
    on_token: &mut dyn FnMut(usize, u32) -> ControlFlow<()>,
) -> Vec<Generated> {
    let batch = last.dims()[0];
    let device = last.device();
    let mut rows: Vec<Row> = (0..batch)
        .map(|row| Row::new(&prompt_ids[row], options.seed))
        .collect();
    let room = model
        .config()
        .max_position_embeddings
        .saturating_sub(cache.longest_row());
    let limit = options.max_new_tokens.min(room);
    for step in 0..limit {
        if step % ROOM == 0 {
            // The last token is not run.
            cache.reserve(ROOM.min(limit - step - 1));
        }
        let logits = model.logits(last).into_data();
        let logits: Vec<f32> = logits.iter::<f32>().collect();
        let vocab = logits.len() / batch;
        let mut ids = Vec::with_capacity(batch);
        for (index, row) in rows.iter_mut().enumerate() {
            if row.finished.is_some() {
                // A finished row goes on being computed with its batch; what it gets is not used.
                ids.push(0);
                continue;
            }
            let id = row.choose(&logits[index * vocab..(index + 1) * vocab], options);
            ids.push(i64::from(id));
            if on_token(index, id).is_break() {
                return rows.into_iter().map(Row::into_generated).collect();
            }
        }
        if step + 1 == limit || rows.iter().all(|row| row.finished.is_some()) {
            break;
        }
        let ids = Tensor::<B, 2, Int>::from_data(TensorData::new(ids, [batch, 1]), &device);
        let mask = AttentionMask::full(batch, 1);
        last = model.decode(model.embed(ids), &mask, &mut *cache, None);
    }
    rows.into_iter().map(Row::into_generated).collect()
}

/// One row while it grows.
struct Row {
    new_ids: Vec<u32>,
    seen: HashSet<u32>,
    finished: Option<FinishReason>,
    random: StdRng,
}

impl Row {
    fn new(prompt_ids: &[u32], seed: u64) -> Self {
        Self {
            new_ids: Vec::new(),
            seen: prompt_ids.iter().copied().collect(),
            finished: None,
            random: StdRng::seed_from_u64(seed),
        }
    }

    fn choose(&mut self, logits: &[f32], options: &GenerationOptions) -> u32 {
        let mut scores = logits.to_vec();
        if options.repetition_penalty != 1.0 {
            let penalty = options.repetition_penalty as f32;
            for id in &self.seen {
                let score = &mut scores[*id as usize];
                *score = if *score > 0.0 {
                    *score / penalty
                } else {
                    *score * penalty
                };
            }
        }
        let id = if options.temperature <= 0.0 {
            likeliest(&scores)
        } else {
            sample(&scores, options, &mut self.random)
        };
        self.new_ids.push(id);
        self.seen.insert(id);
        if options.stop_ids.contains(&id) {
            self.finished = Some(FinishReason::Stop);
        }
        id
    }

    fn into_generated(self) -> Generated {
        Generated {
            token_ids: self.new_ids,
            finish_reason: self.finished.unwrap_or(FinishReason::Length),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repetition_penalty_lowers_positive_and_negative_scores() {
        let options = GenerationOptions {
            repetition_penalty: 2.0,
            ..GenerationOptions::greedy(1, vec![])
        };
        assert_eq!(Row::new(&[0], 0).choose(&[1.5, 1.0], &options), 1);
        assert_eq!(Row::new(&[0], 0).choose(&[-0.6, -1.0], &options), 1);
    }
}
