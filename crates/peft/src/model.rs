//! An adapter joined to a frozen base.

use std::ops::ControlFlow;

use burn::{
    module::Module,
    tensor::{Int, Tensor, TensorData, backend::Backend},
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
    /// `[batch, seq]`; what stands in padded cells and in slots does not matter.
    pub input_ids: Tensor<B, 2, Int>,
    /// `[batch, seq]`.
    pub attention_mask: AttentionMask,
    /// For each cell, row-major `[batch, seq]`, the virtual token that fills it. `None` where the
    /// virtual tokens, if any, stand in front.
    pub slots: Option<Vec<Option<usize>>>,
}

/// Everything a forward pass needs, the adapter's work done.
#[derive(Debug, Clone)]
pub struct Prepared<B: Backend> {
    /// The base, with the adapter's biases where it has some.
    pub base: Qwen2<B>,
    /// `[batch, first_token + seq, d_model]`.
    pub hidden: Tensor<B, 3>,
    /// `[batch, first_token + seq]`.
    pub mask: AttentionMask,
    /// Empty, or the adapter's prefix.
    pub cache: KvCache<B>,
    /// Cells in front of the batch's own.
    pub first_token: usize,
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
    /// If a slot names a virtual token that the adapter does not have.
    #[must_use]
    pub fn prepare(&self, inputs: Inputs<B>) -> Prepared<B> {
        let bare = Prepared::bare(self.base.clone(), inputs.input_ids, inputs.attention_mask);
        match self.adapter.inject() {
            Injection::Nothing => bare,
            Injection::Biases(biases) => bare.with_biases(biases),
            Injection::Prefix(prefix) => bare.with_prefix(prefix),
            Injection::Prompt(tokens) => match inputs.slots {
                None => bare.with_prompt_in_front(tokens),
                Some(slots) => bare.with_prompt_in_slots(tokens, &slots),
            },
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
        let hidden = base.decode(hidden, &mask, &mut cache);
        generate(&base, hidden, &mask, cache, &prompt_ids, options, on_token)
    }
}

impl<B: Ops> Prepared<B> {
    fn bare(base: Qwen2<B>, input_ids: Tensor<B, 2, Int>, mask: AttentionMask) -> Self {
        let cache = KvCache::empty(base.config().num_hidden_layers, mask.batch());
        Self {
            hidden: base.embed(input_ids),
            base,
            mask,
            cache,
            first_token: 0,
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

    fn with_prompt_in_front(self, VirtualTokens { embeddings }: VirtualTokens<B>) -> Self {
        let [tokens, d_model] = embeddings.dims();
        let batch = self.mask.batch();
        let prompt = embeddings
            .cast(self.base.dtype())
            .unsqueeze::<3>()
            .expand([batch, tokens, d_model]);
        Self {
            hidden: Tensor::cat(vec![prompt, self.hidden], 1),
            mask: AttentionMask::full(batch, tokens).then(&self.mask),
            first_token: tokens,
            ..self
        }
    }

    fn with_prompt_in_slots(
        self,
        VirtualTokens { embeddings }: VirtualTokens<B>,
        slots: &[Option<usize>],
    ) -> Self {
        let [batch, seq, d_model] = self.hidden.dims();
        let (cells, tokens) = (batch * seq, embeddings.dims()[0]);
        let rows: Vec<i64> = slots
            .iter()
            .enumerate()
            .map(|(cell, slot)| match slot {
                None => cell as i64,
                Some(token) => {
                    assert!(*token < tokens, "slot {token} of {tokens} virtual tokens");
                    (cells + token) as i64
                }
            })
            .collect();
        let rows = TensorData::new(rows, [cells]);
        let rows = Tensor::<B, 1, Int>::from_data(rows, &self.hidden.device());
        let table = Tensor::cat(
            vec![
                self.hidden.reshape([cells, d_model]),
                embeddings.cast(self.base.dtype()),
            ],
            0,
        );
        Self {
            hidden: table.select(0, rows).reshape([batch, seq, d_model]),
            ..self
        }
    }
}

/// The ids of each row without padding and slots.
fn real_ids<B: Backend>(inputs: &Inputs<B>) -> Vec<Vec<u32>> {
    let mask = &inputs.attention_mask;
    let ids: Vec<u32> = inputs.input_ids.to_data().iter::<u32>().collect();
    (0..mask.batch())
        .map(|row| {
            (0..mask.seq())
                .filter(|cell| mask.row(row)[*cell])
                .map(|cell| row * mask.seq() + cell)
                .filter(|index| inputs.slots.as_ref().is_none_or(|s| s[*index].is_none()))
                .map(|index| ids[index])
                .collect()
        })
        .collect()
}
