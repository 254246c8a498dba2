//! What a batch of rows stands behind.

use burn::tensor::{Tensor, backend::Backend};
use burn_peft_ops::Ops;

use crate::{AttentionMask, Decoder, KvCache, decoder::Pass};

/// What rows that are given to the decoder stand behind.
#[derive(Debug, Clone)]
pub enum Past<B: Backend> {
    /// What a cache holds, if anything; see [`Decoder::decode_cells`].
    Cache(KvCache<B>),
    /// A prompt that they share and that has not run yet, `[tokens, d_model]`; see [`Decoder::decode_behind`].
    Prompt(Tensor<B, 2>),
}

impl<B: Backend> Past<B> {
    /// The same with other tensors.
    pub(crate) fn map<C: Backend>(
        self,
        states: impl Fn(Tensor<B, 4>) -> Tensor<C, 4>,
        prompt: impl Fn(Tensor<B, 2>) -> Tensor<C, 2>,
    ) -> Past<C> {
        match self {
            Self::Cache(cache) => Past::Cache(cache.map(states)),
            Self::Prompt(tokens) => Past::Prompt(prompt(tokens)),
        }
    }
}

impl<B: Ops> Past<B> {
    /// What all layers share, the first one's input, and the cache.
    pub(crate) fn start(
        self,
        model: &Decoder<B>,
        hidden: Tensor<B, 3>,
        mask: &AttentionMask,
    ) -> (Pass<B>, Tensor<B, 2>, KvCache<B>) {
        match self {
            Self::Cache(mut cache) => {
                let (pass, first) = model.start(hidden, mask, &mut cache);
                (pass, first, cache)
            }
            Self::Prompt(prompt) => {
                let (pass, first) = model.start_behind(prompt, hidden, mask);
                let nothing = KvCache::empty(model.layers.len(), mask.batch());
                (pass, first, nothing)
            }
        }
    }
}
