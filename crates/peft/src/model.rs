//! An adapter joined to a frozen base.

use std::ops::ControlFlow;

use burn::{module::Module, tensor::backend::Backend};
use burn_peft_decoder::{Decoder, Generated, GenerationOptions};
use burn_peft_ops::Ops;

use crate::{Adapter, Head, Injected, Inputs, Prepared};

/// A frozen base and the adapter that steers it, perhaps with a head in place of the language-model head.
///
/// As a Burn module it is adapter and head: records, parameter counts and optimizers see nothing else.
#[derive(Module, Debug)]
pub struct PeftModel<B: Backend, A: Module<B>> {
    base: Decoder<B>,
    adapter: A,
    head: Option<Head<B>>,
}

impl<B: Backend, A: Adapter<B>> PeftModel<B, A> {
    /// Joins `adapter` to `base`.
    #[must_use]
    pub fn new(base: Decoder<B>, adapter: A) -> Self {
        Self {
            base,
            adapter,
            head: None,
        }
    }

    /// The model with a head.
    #[must_use]
    pub fn with_head(self, head: Option<Head<B>>) -> Self {
        Self { head, ..self }
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

    /// The head; `None` of a language model.
    #[must_use]
    pub fn head(&self) -> Option<&Head<B>> {
        self.head.as_ref()
    }

    /// Parameters that train.
    #[must_use]
    pub fn num_trainable(&self) -> usize {
        Module::num_params(&self.adapter) + self.head.as_ref().map_or(0, Head::num_trainable)
    }
}

impl<B: Ops, A: Adapter<B>> PeftModel<B, A> {
    /// Applies the adapter to a batch.
    ///
    /// Positions count a row's own tokens, virtual ones included, and padding is masked wherever it
    /// stands: a row gives the same result alone and in any batch. (PEFT puts prompts before left
    /// padding, where it does not; peft#1093.)
    ///
    /// # Panics
    /// If the placement has more virtual tokens than the adapter, or not one list a row.
    #[must_use]
    pub fn prepare(&self, inputs: Inputs<B>) -> Prepared<B> {
        Injected::once(self.base.clone(), self.adapter.inject()).prepare(inputs)
    }

    /// The model with the adapter's values as they are now, computed once for all batches to come: for
    /// evaluation and generation. Under autodiff, its graph serves one backward pass.
    #[must_use]
    pub fn injected(&self) -> Injected<B> {
        Injected::for_many(self.base.clone(), self.adapter.inject())
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
