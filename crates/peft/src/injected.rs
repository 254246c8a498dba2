//! A base with an adapter's values computed.

use std::{cell::OnceCell, ops::ControlFlow};

use burn::tensor::backend::Backend;
use burn_peft_decoder::{Decoder, Generated, GenerationOptions, generate};
use burn_peft_ops::Ops;

use crate::{Injection, Inputs, Placement, Prepared, VirtualTokens, lead::Lead};

/// A frozen base, and what an adapter adds to it: computed, and ready for any number of batches.
#[derive(Debug)]
pub struct Injected<B: Backend> {
    base: Decoder<B>,
    injection: Injection<B>,
    /// Whether it is for more than one batch.
    many: bool,
    /// The pass of a prompt, run when it is first needed.
    lead: OnceCell<Lead<B>>,
}

impl<B: Backend> Injected<B> {
    /// For one batch.
    pub(crate) fn once(base: Decoder<B>, injection: Injection<B>) -> Self {
        Self {
            base,
            injection,
            many: false,
            lead: OnceCell::new(),
        }
    }

    /// The frozen model, without the adapter's biases.
    pub(crate) fn base(&self) -> &Decoder<B> {
        &self.base
    }

    /// For any number of batches.
    pub(crate) fn for_many(base: Decoder<B>, injection: Injection<B>) -> Self {
        Self {
            many: true,
            ..Self::once(base, injection)
        }
    }
}

impl<B: Ops> Injected<B> {
    /// What [`PeftModel::prepare`](crate::PeftModel::prepare) does: the only place that asks which kind of adapter it is.
    ///
    /// # Panics
    /// If the placement has more virtual tokens than the adapter, or not one list a row.
    #[must_use]
    pub fn prepare(&self, inputs: Inputs<B>) -> Prepared<B> {
        let bare = Prepared::bare(self.base.clone(), inputs.input_ids, inputs.attention_mask);
        match (self.injection.clone(), inputs.placement) {
            (Injection::Nothing, _) => bare,
            (Injection::Biases(biases), _) => bare.with_biases(biases),
            (Injection::Prefix(prefix), Placement::Front) => bare.with_prefix(prefix),
            (Injection::Prefix(prefix), Placement::Cells(before)) => {
                bare.with_prefix_among(prefix, before)
            }
            (Injection::Prompt(prompt), Placement::Front) => self.with_prompt(bare, prompt),
            (Injection::Prompt(prompt), Placement::Cells(before)) => {
                bare.with_prompt_among(prompt, &before)
            }
        }
    }

    /// A prompt in front of every row. The rows share it: for one batch it runs beside them, for many before
    /// them, and they attend to its keys and values as to a prefix.
    fn with_prompt(&self, bare: Prepared<B>, prompt: VirtualTokens<B>) -> Prepared<B> {
        if prompt.embeddings.dims()[0] == 0 {
            return bare;
        }
        let batch = bare.mask.batch();
        let has_token = |row: usize| bare.mask.row(row).contains(&true);
        if !(0..batch).all(has_token) || (batch == 1 && !self.many) {
            // A row without tokens of its own, or a single row.
            let tokens = prompt.embeddings.dims()[0];
            return bare.with_prompt_among(prompt, &vec![vec![0; tokens]; batch]);
        }
        if !self.many {
            return bare.with_shared_prompt(prompt);
        }
        let lead = self
            .lead
            .get_or_init(|| Lead::of(&self.base, prompt.embeddings));
        bare.with_lead(lead.clone())
    }

    /// What [`PeftModel::generate`](crate::PeftModel::generate) does.
    #[must_use]
    pub fn generate(
        &self,
        inputs: Inputs<B>,
        options: &GenerationOptions,
        on_token: &mut dyn FnMut(usize, u32) -> ControlFlow<()>,
    ) -> Vec<Generated> {
        let prompt_ids = real_ids(&inputs);
        let prepared = self.prepare(inputs);
        let base = prepared.base().clone();
        let (last, mut cache) = prepared.generation_start();
        generate(&base, last, &mut cache, &prompt_ids, options, on_token)
    }
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
