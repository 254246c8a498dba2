//! An adapter joined to a frozen base.

use std::ops::ControlFlow;

use burn::{
    module::Module,
    tensor::{Int, Tensor, backend::Backend},
};
use burn_peft_decoder::{AttentionMask, Decoder, Generated, GenerationOptions};
use burn_peft_ops::Ops;

use crate::{Adapter, Injected, Prepared};

/// A frozen base and the adapter that steers it.
///
/// As a Burn module it is the adapter: records, parameter counts and optimizers see nothing else.
#[derive(Module, Debug)]
pub struct PeftModel<B: Backend, A: Module<B>> {
    base: Decoder<B>,
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

impl<B: Backend, A: Adapter<B>> PeftModel<B, A> {
    /// Joins `adapter` to `base`.
    #[must_use]
    pub fn new(base: Decoder<B>, adapter: A) -> Self {
        Self { base, adapter }
    }

    /// The frozen model.
    #[must_use]
    pub fn base(&self) -> &Decoder<B> {
        &self.base
    }

    /// The adapter.
    #[must_use]
    pub fn adapter(&self) -> &A {
        &self.adapter
    }
}

impl<B: Ops, A: Adapter<B>> PeftModel<B, A> {
    /// Lets the adapter do to a batch what it does.
    ///
    /// Positions count a row's own tokens, virtual ones included, and padding is masked wherever it
    /// stands: a row gives the same result alone and in any batch. (PEFT puts prompts before left
    /// padding, where it does not; peft#1093.)
    ///
    /// # Panics
    /// If the placement has more virtual tokens than the adapter, or not one list a row.
    #[must_use]
    pub fn prepare(&self, inputs: Inputs<B>) -> Prepared<B> {
        Injected::once(self).prepare(inputs)
    }

    /// The model with the adapter's values as they are now, computed once for all batches to come: for
    /// evaluation and generation. Under autodiff, its graph serves one backward pass.
    #[must_use]
    pub fn injected(&self) -> Injected<B> {
        Injected::for_many(self)
    }

    /// Continues every row of a batch; see [`burn_peft_decoder::generate`].
    #[must_use]
    pub fn generate(
        &self,
        inputs: Inputs<B>,
        options: &GenerationOptions,
        on_token: &mut dyn FnMut(usize, u32) -> ControlFlow<()>,
    ) -> Vec<Generated> {
        self.injected().generate(inputs, options, on_token)
    }
}
