//! A batch that an adapter has changed: what is in front of its rows, and where its cells are.

use burn::tensor::{Int, Tensor, TensorData, backend::Backend, s};
use burn_peft_decoder::{AttentionMask, Decoder, KvCache, LayerBiases, LayerKv};
use burn_peft_ops::Ops;

use crate::{VirtualTokens, lead::Lead};

/// A batch with the adapter's value in place, ready for the decoder.
///
/// It answers which hidden states predict given cells ([`predictors`](Self::predictors)), and where generation
/// goes on ([`generation_start`](Self::generation_start)).
#[derive(Debug, Clone)]
pub struct Prepared<B: Backend> {
    /// The base, with the adapter's biases where it has some.
    pub(crate) base: Decoder<B>,
    /// `[batch, new_seq, d_model]`: the embeddings of real and virtual tokens.
    pub(crate) hidden: Tensor<B, 3>,
    /// `[batch, new_seq]`.
    pub(crate) mask: AttentionMask,
    /// Row-major `[batch, seq]`: the cell of `hidden` that each of the batch's own went to.
    pub(crate) cells: Vec<usize>,
    /// What the decoder finds in front of the rows.
    pub(crate) front: Front<B>,
}

/// What is in front of the rows of a prepared batch.
#[derive(Debug, Clone)]
pub(crate) enum Front<B: Backend> {
    /// The adapter's prefix, or an empty cache.
    Cache(KvCache<B>),
    /// A prompt that has run: its keys and values are in the cache, and `last` is the hidden state after the last
    /// norm of its last token, `[1, d_model]`.
    Lead {
        cache: KvCache<B>,
        last: Tensor<B, 2>,
    },
    /// A prompt that all rows share and that has not run, `[tokens, d_model]`.
    Prompt(Tensor<B, 2>),
}

impl<B: Ops> Prepared<B> {
    pub(crate) fn bare(
        base: Decoder<B>,
        input_ids: Tensor<B, 2, Int>,
        mask: AttentionMask,
    ) -> Self {
        let cache = KvCache::empty(base.config().num_hidden_layers, mask.batch());
        Self {
            hidden: base.embed(input_ids),
            front: Front::Cache(cache),
            base,
            cells: (0..mask.batch()).flat_map(|_| 0..mask.seq()).collect(),
            mask,
        }
    }

    pub(crate) fn with_biases(self, biases: Vec<LayerBiases<B>>) -> Self {
        Self {
            base: self.base.with_biases(biases),
            ..self
        }
    }

    pub(crate) fn with_prefix(self, prefix: Vec<LayerKv<B>>) -> Self {
        let cache = self.prefix_cache(prefix);
        self.behind(Front::Cache(cache))
    }

    pub(crate) fn with_prefix_among(
        self,
        prefix: Vec<LayerKv<B>>,
        before: Vec<Vec<usize>>,
    ) -> Self {
        let tokens = check_placement(&before, self.mask.batch());
        if tokens == 0 {
            return self;
        }
        let prefix = prefix
            .into_iter()
            .map(|LayerKv { key, value }| LayerKv {
                key: key.slice(s![.., ..tokens, ..]),
                value: value.slice(s![.., ..tokens, ..]),
            })
            .collect();
        let cache = self.prefix_cache(prefix).prefix_among(before);
        self.behind(Front::Cache(cache))
    }

    fn prefix_cache(&self, prefix: Vec<LayerKv<B>>) -> KvCache<B> {
        let dtype = self.base.dtype();
        let prefix = prefix.into_iter().map(|layer| layer.cast(dtype)).collect();
        KvCache::with_prefix(prefix, self.mask.batch())
    }

    fn behind(self, front: Front<B>) -> Self {
        Self { front, ..self }
    }

    /// With a prompt in front that all rows share and that has not run.
    pub(crate) fn with_shared_prompt(self, VirtualTokens { embeddings }: VirtualTokens<B>) -> Self {
        let prompt = embeddings.cast(self.base.dtype());
        self.behind(Front::Prompt(prompt))
    }

    /// With a prompt in front that has run.
    pub(crate) fn with_lead(self, lead: Lead<B>) -> Self {
        let cache = self.prefix_cache(lead.prefix);
        self.behind(Front::Lead {
            cache,
            last: lead.last,
        })
    }

    pub(crate) fn with_prompt_among(
        self,
        VirtualTokens { embeddings }: VirtualTokens<B>,
        before: &[Vec<usize>],
    ) -> Self {
        let [batch, seq, d_model] = self.hidden.dims();
        let tokens = check_placement(before, batch);
        if tokens == 0 {
            return self;
        }
        assert!(
            tokens <= embeddings.dims()[0],
            "{tokens} virtual tokens are placed, the adapter has {}",
            embeddings.dims()[0]
        );
        let new_seq = seq + tokens;
        let mut cells = Vec::with_capacity(batch * seq);
        // Which row of the joint table fills a cell: the real embeddings, then the virtual ones.
        let mut rows = Vec::with_capacity(batch * new_seq);
        let mut mask = Vec::with_capacity(batch * new_seq);
        for (row, before) in before.iter().enumerate() {
            let mut virtual_tokens = before.iter().enumerate().peekable();
            for cell in 0..=seq {
                while let Some((token, _)) = virtual_tokens.next_if(|(_, place)| **place <= cell) {
                    rows.push((batch * seq + token) as i64);
                    mask.push(true);
                }
                if cell < seq {
                    cells.push(rows.len() - row * new_seq);
                    rows.push((row * seq + cell) as i64);
                    mask.push(self.mask.row(row)[cell]);
                }
            }
            assert_eq!(
                rows.len(),
                (row + 1) * new_seq,
                "places are ascending cells of the row"
            );
        }
        let rows = TensorData::new(rows, [batch * new_seq]);
        let rows = Tensor::<B, 1, Int>::from_data(rows, &self.hidden.device());
        let table = Tensor::cat(
            vec![
                self.hidden.reshape([batch * seq, d_model]),
                embeddings.cast(self.base.dtype()),
            ],
            0,
        );
        Self {
            hidden: table.select(0, rows).reshape([batch, new_seq, d_model]),
            mask: AttentionMask::new(batch, new_seq, mask),
            cells,
            ..self
        }
    }
}

/// How many virtual tokens a placement has.
fn check_placement(before: &[Vec<usize>], batch: usize) -> usize {
    assert_eq!(before.len(), batch, "a placement has one list a row");
    let tokens = before.first().map_or(0, Vec::len);
    assert!(
        before
            .iter()
            .all(|row| row.len() == tokens && row.is_sorted()),
        "a placement has as many virtual tokens in every row, in order"
    );
    tokens
}
