//! A row that goes on, turn by turn, with what was computed of it kept.

use std::ops::ControlFlow;

use burn::tensor::{Int, Tensor, TensorData, backend::Backend};
use burn_peft_decoder::{AttentionMask, Decoder, Generated, GenerationOptions, KvCache, generate};
use burn_peft_ops::Ops;

use crate::{Injected, Inputs, Placement};

/// One row that is continued again and again, as a conversation is.
///
/// The keys and values of its tokens stay in a cache. When the row comes again with more behind it, or with another
/// end, only what differs is computed; virtual tokens and prefixes are computed once. Where virtual tokens stand
/// behind the first token that differs, the row starts anew. Results are those of a row that is computed as a whole,
/// up to rounding.
///
/// It holds a model with one adapter. For another adapter make another session: what a base has computed with one
/// means nothing with another.
#[derive(Debug)]
pub struct Session<B: Backend> {
    model: Injected<B>,
    held: Option<Held<B>>,
}

/// What is known of the row.
#[derive(Debug)]
struct Held<B: Backend> {
    /// The base, with the adapter's biases where it has some.
    base: Decoder<B>,
    cache: KvCache<B>,
    /// Cells of the cache that virtual tokens have.
    virtual_tokens: usize,
    placement: Placement,
    /// The real tokens in the cache.
    ids: Vec<u32>,
    /// The state that predicts the next token, `[1, d_model]`, as long as nothing was generated from it.
    last: Option<Tensor<B, 2>>,
}

impl<B: Ops> Session<B> {
    /// A session in which nothing was said yet. `model` comes from [`PeftModel::injected`](crate::PeftModel::injected).
    #[must_use]
    pub fn new(model: Injected<B>) -> Self {
        Self { model, held: None }
    }

    /// How many of a row's first tokens need not be computed again. `placement` is that of one row.
    #[must_use]
    pub fn held(&self, ids: &[u32], placement: &Placement) -> usize {
        let held = self.held.as_ref();
        let Some(held) = held.filter(|held| held.placement == *placement) else {
            return 0;
        };
        let pairs = held.ids.iter().zip(ids);
        let same = pairs.take_while(|(held, id)| held == id).count();
        let is_whole = same == ids.len() && same == held.ids.len() && held.last.is_some();
        let kept = match is_whole {
            true => same,
            // The last token's state is needed, and states are not kept.
            false => same.min(ids.len().saturating_sub(1)),
        };
        match kept < cells_before(placement) {
            true => 0,
            false => kept,
        }
    }

    /// Computes at most `at_most` tokens of a row (one at least, and as many as stand before its last virtual token)
    /// of those that are not [held](Self::held), and returns how many of the row are left. With this a long prompt is
    /// read in parts, and something else done in between.
    ///
    /// # Panics
    /// If the row has no token.
    pub fn read(&mut self, ids: &[u32], placement: &Placement, at_most: usize) -> usize {
        assert!(!ids.is_empty(), "a row of a session has a token");
        let kept = self.held(ids, placement);
        let end = ids.len().min(kept + at_most.max(1));
        match &mut self.held {
            Some(held) if kept > 0 => held.read(kept, &ids[kept..end]),
            _ => {
                let end = end.max(cells_before(placement));
                self.held = Some(Held::start(&self.model, &ids[..end], placement.clone()));
            }
        }
        let held = self.held.as_ref().map_or(0, |held| held.ids.len());
        ids.len() - held
    }

    /// Continues a row: reads what is left of it, then generates as [`burn_peft_decoder::generate`] does.
    ///
    /// # Panics
    /// If the row has no token.
    pub fn generate(
        &mut self,
        ids: &[u32],
        placement: &Placement,
        options: &GenerationOptions,
        on_token: &mut dyn FnMut(u32) -> ControlFlow<()>,
    ) -> Generated {
        while self.read(ids, placement, ids.len()) > 0 {}
        let held = self.held.as_mut().expect("a row that was read");
        let last = held.last.take().expect("a row that was read to its end");
        let on_token = &mut |_, id| on_token(id);
        let prompt_ids = [ids.to_vec()];
        let rows = generate(
            &held.base,
            last,
            &mut held.cache,
            &prompt_ids,
            options,
            on_token,
        );
        let row = rows.into_iter().next().expect("one row");
        let in_cache = held.cache.len() - held.virtual_tokens - held.ids.len();
        held.ids.extend(&row.token_ids[..in_cache]);
        row
    }
}

impl<B: Ops> Held<B> {
    /// Computes the start of a row, with its virtual tokens.
    fn start(model: &Injected<B>, ids: &[u32], placement: Placement) -> Self {
        let device = model.base().device();
        let prepared = model.prepare(Inputs {
            input_ids: row(ids, &device),
            attention_mask: AttentionMask::full(1, ids.len()),
            placement: placement.clone(),
        });
        let base = prepared.base().clone();
        let (last, cache) = prepared.generation_start();
        Self {
            base,
            virtual_tokens: cache.len() - ids.len(),
            cache,
            placement,
            ids: ids.to_vec(),
            last: Some(last),
        }
    }

    /// Lets `ids` follow the first `kept` tokens.
    fn read(&mut self, kept: usize, ids: &[u32]) {
        if ids.is_empty() {
            return;
        }
        self.ids.truncate(kept);
        self.cache.truncate(self.virtual_tokens + kept);
        let hidden = self.base.embed(row(ids, &self.base.device()));
        let mask = AttentionMask::full(1, ids.len());
        let end = Some(&[ids.len() - 1][..]);
        self.last = Some(self.base.decode(hidden, &mask, &mut self.cache, end));
        self.ids.extend(ids);
    }
}

/// How many cells stand before a row's last virtual token.
fn cells_before(placement: &Placement) -> usize {
    match placement {
        Placement::Front => 0,
        Placement::Cells(rows) => rows.iter().flatten().copied().max().unwrap_or(0),
    }
}

/// Ids as a batch of one row.
fn row<B: Backend>(ids: &[u32], device: &B::Device) -> Tensor<B, 2, Int> {
    let ids: Vec<i64> = ids.iter().map(|id| i64::from(*id)).collect();
    let shape = [1, ids.len()];
    Tensor::from_data(TensorData::new(ids, shape), device)
}
