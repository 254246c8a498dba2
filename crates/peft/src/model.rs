//! An adapter joined to a frozen base.

use std::ops::ControlFlow;

use burn::{
    module::Module,
    tensor::{Int, Tensor, TensorData, backend::Backend, s},
};
use burn_peft_ops::Ops;
use burn_qwen2::{
    AttentionMask, Generated, GenerationOptions, KvCache, LayerBiases, LayerKv, Qwen2, generate,
};

use crate::{Adapter, Injection, VirtualTokens};

/// A frozen base and the adapter that steers it.
///
/// As a Burn module it is the adapter: records, parameter counts and optimizers see nothing else.
#[derive(Module, Debug)]
pub struct PeftModel<B: Backend, A: Module<B>> {
    base: Qwen2<B>,
    adapter: A,
}

/// A padded batch of token ids.
#[derive(Debug, Clone)]
pub struct Inputs<B: Backend> {
    /// `[batch, seq]`; what stands in padded cells does not matter.
    pub input_ids: Tensor<B, 2, Int>,
    /// `[batch, seq]`.
    pub attention_mask: AttentionMask,
    /// Where virtual tokens stand among the cells, if the adapter has any.
    pub placement: Placement,
}

/// Where virtual tokens stand in the rows of a batch. A batch holds real tokens only; an adapter's are
/// put among them by [`PeftModel::prepare`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Placement {
    /// In front of every row: PEFT's place.
    #[default]
    Front,
    /// Per row, for each virtual token in order, the cell (`0..=seq`) it stands in front of; ascending,
    /// and of one length in all rows. Fewer than the adapter has are its first ones.
    Cells(Vec<Vec<usize>>),
}

impl Placement {
    /// Of rows that each say where theirs stand, or `None` for in front.
    ///
    /// # Panics
    /// If only some of them say.
    #[must_use]
    pub fn from_rows(rows: Vec<Option<Vec<usize>>>) -> Self {
        if rows.iter().all(Option::is_none) {
            return Self::Front;
        }
        let said =
            |row: Option<Vec<usize>>| row.expect("all rows of a batch have a placement or none");
        Self::Cells(rows.into_iter().map(said).collect())
    }
}

/// Everything a forward pass needs, the adapter's work done.
#[derive(Debug, Clone)]
pub struct Prepared<B: Backend> {
    /// The base, with the adapter's biases where it has some.
    pub base: Qwen2<B>,
    /// `[batch, new_seq, d_model]`: the embeddings of real and virtual tokens.
    pub hidden: Tensor<B, 3>,
    /// `[batch, new_seq]`.
    pub mask: AttentionMask,
    /// Empty, or the adapter's prefix.
    pub cache: KvCache<B>,
    /// Row-major `[batch, seq]`: the cell of `hidden` that each of the batch's own went to.
    pub cells: Vec<usize>,
    /// What stands behind the last norm for the last virtual token in front of every row, `[1, d_model]`,
    /// where the rows share one prompt: its tokens are in the cache then, and not in `hidden`.
    pub lead: Option<Tensor<B, 2>>,
}

impl<B: Backend, A: Adapter<B>> PeftModel<B, A> {
    /// Joins `adapter` to `base`.
    #[must_use]
    pub fn new(base: Qwen2<B>, adapter: A) -> Self {
        Self { base, adapter }
    }

    /// The frozen model.
    #[must_use]
    pub fn base(&self) -> &Qwen2<B> {
        &self.base
    }

    /// The adapter.
    #[must_use]
    pub fn adapter(&self) -> &A {
        &self.adapter
    }
}

impl<B: Ops, A: Adapter<B>> PeftModel<B, A> {
    /// Lets the adapter do to a batch what it does: the only place that asks which kind it is.
    ///
    /// Positions count a row's own tokens, virtual ones included, and padding is masked wherever it
    /// stands: a row gives the same result alone and in any batch. (PEFT puts prompts before left
    /// padding, where it does not; peft#1093.)
    ///
    /// # Panics
    /// If the placement has more virtual tokens than the adapter, or not one list a row.
    #[must_use]
    pub fn prepare(&self, inputs: Inputs<B>) -> Prepared<B> {
        let bare = Prepared::bare(self.base.clone(), inputs.input_ids, inputs.attention_mask);
        match (self.adapter.inject(), inputs.placement) {
            (Injection::Nothing, _) => bare,
            (Injection::Biases(biases), _) => bare.with_biases(biases),
            (Injection::Prefix(prefix), Placement::Front) => bare.with_prefix(prefix),
            (Injection::Prefix(prefix), Placement::Cells(before)) => {
                bare.with_prefix_among(prefix, before)
            }
            (Injection::Prompt(tokens), Placement::Front) => bare.with_prompt(tokens),
            (Injection::Prompt(tokens), Placement::Cells(before)) => {
                bare.with_prompt_among(tokens, &before)
            }
        }
    }

    /// Continues every row of a batch; see [`burn_qwen2::generate`].
    #[must_use]
    pub fn generate(
        &self,
        inputs: Inputs<B>,
        options: &GenerationOptions,
        on_token: &mut dyn FnMut(usize, u32) -> ControlFlow<()>,
    ) -> Vec<Generated> {
        let prompt_ids = real_ids(&inputs);
        let Prepared {
            base,
            hidden,
            mask,
            mut cache,
            ..
        } = self.prepare(inputs);
        let last = mask.last_tokens().into_iter().enumerate();
        let cells: Vec<usize> = last.map(|(row, cell)| row * mask.seq() + cell).collect();
        let last = base.decode_cells(hidden, &mask, &mut cache, &cells);
        generate(&base, last, cache, &prompt_ids, options, on_token)
    }
}

impl<B: Ops> Prepared<B> {
    fn bare(base: Qwen2<B>, input_ids: Tensor<B, 2, Int>, mask: AttentionMask) -> Self {
        let cache = KvCache::empty(base.config().num_hidden_layers, mask.batch());
        Self {
            hidden: base.embed(input_ids),
            base,
            cells: (0..mask.batch()).flat_map(|_| 0..mask.seq()).collect(),
            mask,
            cache,
            lead: None,
        }
    }

    fn with_biases(self, biases: Vec<LayerBiases<B>>) -> Self {
        Self {
            base: self.base.with_biases(biases),
            ..self
        }
    }

    fn with_prefix(self, prefix: Vec<LayerKv<B>>) -> Self {
        let dtype = self.base.dtype();
        let prefix = prefix
            .into_iter()
            .map(|LayerKv { key, value }| LayerKv {
                key: key.cast(dtype),
                value: value.cast(dtype),
            })
            .collect();
        Self {
            cache: KvCache::with_prefix(prefix, self.mask.batch()),
            ..self
        }
    }

    fn with_prefix_among(self, prefix: Vec<LayerKv<B>>, before: Vec<Vec<usize>>) -> Self {
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
        let placed = self.with_prefix(prefix);
        Self {
            cache: placed.cache.prefix_among(before),
            ..placed
        }
    }

    /// A prompt in front of every row. What its tokens are to the rows does not depend on the rows: they
    /// run once, as one row, and the others attend to their keys and values as to a prefix.
    fn with_prompt(self, prompt: VirtualTokens<B>) -> Self {
        let [tokens, d_model] = prompt.embeddings.dims();
        let batch = self.mask.batch();
        let has_token = |row: usize| self.mask.row(row).contains(&true);
        if batch == 1 || !(0..batch).all(has_token) {
            // Nothing to share, or a row that consists of its prompt.
            return self.with_prompt_among(prompt, &vec![vec![0; tokens]; batch]);
        }
        let layers = self.base.config().num_hidden_layers;
        let mut cache = KvCache::empty(layers, 1);
        let hidden = prompt.embeddings.cast(self.base.dtype()).unsqueeze();
        let mask = AttentionMask::full(1, tokens);
        let last = [tokens - 1];
        let lead = self.base.decode_cells(hidden, &mask, &mut cache, &last);
        debug_assert_eq!(lead.dims(), [1, d_model]);
        let prefix = (0..layers).map(|layer| cache.row(layer, 0)).collect();
        Self {
            cache: KvCache::with_prefix(prefix, batch),
            lead: Some(lead),
            ..self
        }
    }

    fn with_prompt_among(
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

/// The ids of each row without padding.
fn real_ids<B: Backend>(inputs: &Inputs<B>) -> Vec<Vec<u32>> {
    let mask = &inputs.attention_mask;
    let ids: Vec<u32> = inputs.input_ids.to_data().iter::<u32>().collect();
    ids.chunks(mask.seq().max(1))
        .enumerate()
        .map(|(row, ids)| {
            let cells = ids.iter().zip(mask.row(row));
            cells
                .filter(|(_, is_token)| **is_token)
                .map(|(id, _)| *id)
                .collect()
        })
        .collect()
}
