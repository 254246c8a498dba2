//! A prompt that has run.

use burn::tensor::{Tensor, backend::Backend};
use burn_peft_decoder::{AttentionMask, Decoder, KvCache, LayerKv};
use burn_peft_ops::Ops;

/// The keys and values of a prompt that has run, and its last state.
#[derive(Debug, Clone)]
pub(crate) struct Lead<B: Backend> {
    /// Keys and values of its tokens.
    pub(crate) prefix: Vec<LayerKv<B>>,
    /// The hidden state of its last token, after the last norm, `[1, d_model]`.
    pub(crate) last: Tensor<B, 2>,
}

impl<B: Ops> Lead<B> {
    /// Runs a prompt, `[tokens, d_model]`.
    pub(crate) fn of(base: &Decoder<B>, embeddings: Tensor<B, 2>) -> Self {
        let tokens = embeddings.dims()[0];
        let layers = base.config().num_hidden_layers;
        let mut cache = KvCache::empty(layers, 1);
        let hidden = embeddings.cast(base.dtype()).unsqueeze();
        let mask = AttentionMask::full(1, tokens);
        let last = base.decode(hidden, &mask, &mut cache, Some(&[tokens - 1]));
        Self {
            prefix: (0..layers).map(|layer| cache.row(layer, 0)).collect(),
            last,
        }
    }
}
