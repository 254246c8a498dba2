//! Continues texts, token by token.

mod not_computed;
mod options;
mod sampling;

use std::ops::ControlFlow;

use burn::tensor::{Int, Tensor, TensorData};
use burn_peft_ops::Ops;
use serde::Serialize;

pub use self::{
    options::{GenerationConfig, GenerationOptions},
    sampling::Sampler,
};
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
        .map(|row| Row::new(&prompt_ids[row], options))
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
            let id = row.choose(&logits[index * vocab..(index + 1) * vocab]);
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
struct Row<'a> {
    new_ids: Vec<u32>,
    finished: Option<FinishReason>,
    sampler: Sampler<'a>,
}

impl<'a> Row<'a> {
    fn new(prompt_ids: &[u32], options: &'a GenerationOptions) -> Self {
        Self {
            new_ids: Vec::new(),
            finished: None,
            sampler: Sampler::new(prompt_ids, options),
        }
    }

    fn choose(&mut self, logits: &[f32]) -> u32 {
        let id = self.sampler.choose(logits);
        self.new_ids.push(id);
        if self.sampler.stops_at(id) {
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
