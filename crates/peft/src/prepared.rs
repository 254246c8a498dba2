//! A batch that an adapter has done its part to.

use burn::tensor::{Int, Tensor, TensorData, backend::Backend, s};
use burn_peft_decoder::{AttentionMask, Decoder, KvCache, LayerBiases, LayerKv, Past};
use burn_peft_ops::Ops;

use crate::{VirtualTokens, injected::Lead};

/// Everything a forward pass needs, the adapter's work done.
#[derive(Debug, Clone)]
pub struct Prepared<B: Backend> {
    /// The base, with the adapter's biases where it has some.
    pub base: Decoder<B>,
    /// `[batch, new_seq, d_model]`: the embeddings of real and virtual tokens.
    pub hidden: Tensor<B, 3>,
    /// `[batch, new_seq]`.
    pub mask: AttentionMask,
    /// The adapter's prefix, or its prompt where the rows share one; an empty cache else.
    pub past: Past<B>,
    /// Row-major `[batch, seq]`: the cell of `hidden` that each of the batch's own went to.
    pub cells: Vec<usize>,
    /// What stands behind the last norm for the last virtual token in front of every row, `[1, d_model]`,
    /// where a prompt has run before: its tokens are in the cache then, and not in `hidden`.
    pub lead: Option<Tensor<B, 2>>,
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
            past: Past::Cache(cache),
            base,
            cells: (0..mask.batch()).flat_map(|_| 0..mask.seq()).collect(),
            mask,
            lead: None,
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
        self.behind(Past::Cache(cache))
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
        self.behind(Past::Cache(cache))
    }

    fn prefix_cache(&self, prefix: Vec<LayerKv<B>>) -> KvCache<B> {
        let dtype = self.base.dtype();
        let prefix = prefix
            .into_iter()
            .map(|LayerKv { key, value }| LayerKv {
                key: key.cast(dtype),
                value: value.cast(dtype),
            })
            .collect();
        KvCache::with_prefix(prefix, self.mask.batch())
    }

    fn behind(self, past: Past<B>) -> Self {
        Self { past, ..self }
    }

    /// Behind a prompt that all rows share, still to run.
    pub(crate) fn with_shared_prompt(self, VirtualTokens { embeddings }: VirtualTokens<B>) -> Self {
        let prompt = embeddings.cast(self.base.dtype());
        self.behind(Past::Prompt(prompt))
    }

    /// Behind one that has run.
    pub(crate) fn with_lead(self, lead: Lead<B>) -> Self {
        let cache = self.prefix_cache(lead.prefix);
        Self {
            lead: Some(lead.last),
            ..self.behind(Past::Cache(cache))
        }
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

    /// The hidden states of some cells, behind the last norm; see [`Decoder::decode_cells`] and, behind a
    /// shared prompt, [`Decoder::decode_behind`].
    ///
    /// # Shapes
    /// - output: `[cells, d_model]`
    #[must_use]
    pub fn decode_cells(&self, cells: &[usize]) -> Tensor<B, 2> {
        let (base, hidden, mask) = (&self.base, self.hidden.clone(), &self.mask);
        match self.past.clone() {
            Past::Cache(mut cache) => base.decode_cells(hidden, mask, &mut cache, cells),
            Past::Prompt(prompt) => base.decode_behind(prompt, hidden, mask, cells),
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
