//! One forward pass through all layers.

use burn::tensor::{Int, Tensor, TensorData, backend::Backend};
use burn_peft_ops::{Kernels, Ops, SharedPrompt};

use crate::{
    AttentionMask, BiasTables, Decoder, KvCache, KvSlots, Piece,
    layer::{AttentionMode, Cells, Pass},
    mask::Positions,
};

/// What comes before the rows of a forward pass.
#[derive(Debug)]
pub enum Past<'a, B: Backend> {
    /// What a cache holds, if anything. The rows' keys and values are added to it.
    Cache(&'a mut KvCache<B>),
    /// A prompt that all rows share and that has not run yet, `[tokens, d_model]`, in the model's dtype. What its
    /// tokens are to the rows does not depend on the rows, so they run once, beside them. Nothing is cached.
    Prompt(Tensor<B, 2>),
}

impl<'a, B: Backend> From<&'a mut KvCache<B>> for Past<'a, B> {
    fn from(cache: &'a mut KvCache<B>) -> Self {
        Self::Cache(cache)
    }
}

impl<B: Ops> Decoder<B> {
    /// Hidden states after the last norm. Positions and causality follow from what stands before the rows and
    /// from `mask`.
    ///
    /// # Shapes
    /// - hidden: `[batch, seq, d_model]`, in the model's dtype
    /// - mask: `[batch, seq]`, of these cells only
    /// - cells: those that are read, of the row-major `[batch, seq]` and after them the tokens of
    ///   [`Past::Prompt`]; `None` for all. For the others nothing is computed after the last layer's attention
    /// - output: `[cells, d_model]`
    #[must_use]
    pub fn decode<'a>(
        &self,
        hidden: Tensor<B, 3>,
        mask: &AttentionMask,
        past: impl Into<Past<'a, B>>,
        cells: Option<&[usize]>,
    ) -> Tensor<B, 2> {
        let cells = cells.map(|cells| cell_indices(cells, &hidden.device()));
        let past = past.into();
        B::Plain::run_step(&self.device(), || {
            let mut nothing = KvCache::empty(self.layers.len(), 0);
            let (pass, mut hidden, cache) = self.start(hidden, mask, past, &mut nothing);
            for (index, layer) in self.layers.iter().enumerate() {
                let cells = self.cells_of(index, &cells);
                hidden = layer.forward(index, hidden, cells, &pass, cache);
            }
            self.norm.forward(hidden)
        })
    }

    /// Hidden states after the last norm of the next tokens of rows that are held in slots: one step of a server. What
    /// a row's tokens are depends on nothing but the row.
    ///
    /// # Shapes
    /// - hidden: `[tokens, d_model]`, those of each piece behind those of the one before, in the model's dtype
    /// - biases: tables, and each token's row of them; `None` where all have the model's own
    /// - read: the tokens whose states are asked for
    /// - output: `[read, d_model]`
    ///
    /// # Panics
    /// If a slot has no room for its piece, two pieces have one slot, or a token has no place.
    #[must_use]
    pub fn step(
        &self,
        hidden: Tensor<B, 2>,
        pieces: &[Piece],
        biases: Option<(&BiasTables<B>, &[usize])>,
        slots: &mut KvSlots<B>,
        read: &[usize],
    ) -> Tensor<B, 2> {
        let device = hidden.device();
        let tokens = hidden.dims()[0];
        let positions: Vec<usize> = pieces
            .iter()
            .flat_map(|piece| piece.places.clone())
            .collect();
        assert_eq!(positions.len(), tokens, "a place for each token");
        let positions = Positions::PerRow(vec![positions]);
        let biases = biases.map(|(tables, sets)| tables.of_tokens(sets, &device));
        let read = Some(cell_indices(read, &device));
        B::Plain::run_step(&self.device(), || {
            let [cos, sin] = self.rotary.at(&positions, tokens);
            let cells = Cells {
                batch: 1,
                seq: tokens,
                cos,
                sin,
            };
            let pass = slots.plan(pieces, self.dtype(), &device);
            let mut hidden = hidden;
            for (index, layer) in self.layers.iter().enumerate() {
                let wanted = self.cells_of(index, &read);
                let biases = biases.clone();
                hidden = layer.step(index, hidden, wanted, (&cells, &pass), biases, slots);
            }
            self.norm.forward(hidden)
        })
    }

    /// The cells whose output a layer is asked for: in the last layer those that are read, in the others all.
    pub(crate) fn cells_of(
        &self,
        layer: usize,
        cells: &Option<Tensor<B, 1, Int>>,
    ) -> Option<Tensor<B, 1, Int>> {
        let last = layer + 1 == self.layers.len();
        cells.clone().filter(|_| last)
    }

    /// What all layers share, the first one's input, and the cache that they write to: that of the past, or
    /// `scratch`.
    pub(crate) fn start<'a>(
        &self,
        hidden: Tensor<B, 3>,
        mask: &AttentionMask,
        past: Past<'a, B>,
        scratch: &'a mut KvCache<B>,
    ) -> (Pass<B>, Tensor<B, 2>, &'a mut KvCache<B>) {
        debug_assert_eq!(
            hidden.dtype(),
            self.dtype(),
            "hidden states of another type"
        );
        match past {
            Past::Cache(cache) => {
                let (pass, first) = self.start_cached(hidden, mask, cache);
                (pass, first, cache)
            }
            Past::Prompt(prompt) => {
                let (pass, first) = self.start_beside(prompt, hidden, mask);
                (pass, first, scratch)
            }
        }
    }

    /// Starts a pass of rows after a cache. The input is `[batch · seq, d_model]`.
    fn start_cached(
        &self,
        hidden: Tensor<B, 3>,
        mask: &AttentionMask,
        cache: &mut KvCache<B>,
    ) -> (Pass<B>, Tensor<B, 2>) {
        let [batch, seq, d_model] = hidden.dims();
        let all = cache.extend(mask);
        let [cos, sin] = self.rotary.at(&all.positions(seq), seq);
        let mask = B::score_mask(all.visibility(seq), self.dtype(), &hidden.device());
        let cells = Cells {
            batch,
            seq,
            cos,
            sin,
        };
        let pass = Pass {
            cells,
            attention: AttentionMode::Cached(mask),
        };
        (pass, hidden.reshape([batch * seq, d_model]))
    }

    /// Starts a pass of rows with a shared prompt. The input is `[batch · seq + tokens, d_model]`, as one row.
    fn start_beside(
        &self,
        prompt: Tensor<B, 2>,
        hidden: Tensor<B, 3>,
        mask: &AttentionMask,
    ) -> (Pass<B>, Tensor<B, 2>) {
        let ([batch, seq, d_model], tokens) = (hidden.dims(), prompt.dims()[0]);
        debug_assert_eq!(prompt.dtype(), self.dtype(), "a prompt of another type");
        let all = AttentionMask::full(batch, tokens).then(mask);
        let positions = all.positions(seq).rows(batch, seq).concat();
        let positions = Positions::PerRow(vec![positions.into_iter().chain(0..tokens).collect()]);
        let seq_of_all = batch * seq + tokens;
        let [cos, sin] = self.rotary.at(&positions, seq_of_all);
        let score_mask = |mask: &AttentionMask, seq| {
            B::score_mask(mask.visibility(seq), self.dtype(), &hidden.device())
        };
        let shared = SharedPrompt {
            batch,
            seq,
            row_mask: score_mask(&all, seq),
            prompt_mask: score_mask(&AttentionMask::full(1, tokens), tokens),
        };
        let cells = Cells {
            batch: 1,
            seq: seq_of_all,
            cos,
            sin,
        };
        let pass = Pass {
            cells,
            attention: AttentionMode::SharedPrompt(shared),
        };
        let hidden = hidden.reshape([batch * seq, d_model]);
        (pass, Tensor::cat(vec![hidden, prompt], 0))
    }
}

/// Indices on the device.
pub(crate) fn cell_indices<B: Backend>(cells: &[usize], device: &B::Device) -> Tensor<B, 1, Int> {
    let indices: Vec<i64> = cells.iter().map(|cell| *cell as i64).collect();
    Tensor::from_data(TensorData::new(indices, [cells.len()]), device)
}
