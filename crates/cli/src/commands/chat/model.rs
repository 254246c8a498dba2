//! The model that answers.

use std::ops::ControlFlow;

use anyhow::Result;
use burn_peft::{AnyAdapter, NoAdapter, PeftModel, Placement, Session};
use burn_peft_data::Prompt;
use burn_peft_decoder::{Decoder, Generated, GenerationOptions};
use burn_peft_ops::Ops;

use crate::commands::adapter::OpenAdapter;

/// What a conversation needs of a model, whatever its backend.
pub(super) trait Speaker {
    /// Goes on with another adapter, or with none, and forgets what was computed with the one before.
    ///
    /// # Errors
    /// An adapter that cannot be put on the base; the one before stays.
    fn adapt(&mut self, adapter: Option<&OpenAdapter>) -> Result<()>;

    /// How many of a prompt's first tokens need not be computed again.
    fn held(&self, prompt: &Prompt) -> usize;

    /// Computes some more tokens of a prompt, and returns how many are left.
    fn read(&mut self, prompt: &Prompt, at_most: usize) -> usize;

    /// Continues a prompt.
    fn generate(
        &mut self,
        prompt: &Prompt,
        options: &GenerationOptions,
        on_token: &mut dyn FnMut(u32) -> ControlFlow<()>,
    ) -> Generated;
}

/// A model on a backend.
pub(super) struct Model<B: Ops> {
    base: Decoder<B>,
    session: Session<B>,
}

impl<B: Ops> Model<B> {
    /// The base alone.
    pub(super) fn new(base: Decoder<B>) -> Self {
        let session = Session::new(bare(base.clone()).injected());
        Self { base, session }
    }
}

fn bare<B: Ops>(base: Decoder<B>) -> PeftModel<B, AnyAdapter<B>> {
    PeftModel::new(base, AnyAdapter::None(NoAdapter::default()))
}

fn placement(prompt: &Prompt) -> Placement {
    Placement::from_rows(vec![prompt.placement.clone()])
}

impl<B: Ops> Speaker for Model<B> {
    fn adapt(&mut self, adapter: Option<&OpenAdapter>) -> Result<()> {
        let base = self.base.clone();
        let model = match adapter {
            Some(adapter) => adapter.put_on(base)?,
            None => bare(base),
        };
        self.session = Session::new(model.injected());
        Ok(())
    }

    fn held(&self, prompt: &Prompt) -> usize {
        self.session.held(&prompt.input_ids, &placement(prompt))
    }

    fn read(&mut self, prompt: &Prompt, at_most: usize) -> usize {
        let placement = placement(prompt);
        self.session.read(&prompt.input_ids, &placement, at_most)
    }

    fn generate(
        &mut self,
        prompt: &Prompt,
        options: &GenerationOptions,
        on_token: &mut dyn FnMut(u32) -> ControlFlow<()>,
    ) -> Generated {
        let placement = placement(prompt);
        let ids = &prompt.input_ids;
        self.session.generate(ids, &placement, options, on_token)
    }
}
