//! What every method's options can say of themselves without a backend.

use burn_peft_decoder::DecoderConfig;

use crate::{Error, ModuleListing};

/// The options of one method.
pub(crate) trait Method {
    /// The name under which `type` selects it.
    fn name(&self) -> &'static str;

    /// The learning rate for AdamW where none is given.
    fn default_learning_rate(&self) -> f64;

    /// Checks what the types leave open, as far as it can be known without a base.
    fn validate(&self) -> Result<(), Error>;

    /// Checks what depends on the base.
    fn check_base(&self, _base: &DecoderConfig) -> Result<(), Error> {
        Ok(())
    }

    /// How many parameters an adapter of this kind trains on a base of this size.
    fn num_trainable(&self, base: &DecoderConfig) -> usize;

    /// The modules of an adapter for a base of this size, under PEFT's names, with all that it trains.
    fn modules(&self, base: &DecoderConfig) -> ModuleListing;

    /// The option `num_virtual_tokens`, where the method has virtual tokens.
    fn num_virtual_tokens(&self) -> Option<Option<usize>> {
        None
    }

    /// The same, to be settled.
    fn num_virtual_tokens_mut(&mut self) -> Option<&mut Option<usize>> {
        None
    }

    /// The text that the adapter starts from, where there is one.
    fn init_text(&self) -> Option<&str> {
        None
    }

    /// The labels that the adapter starts from, where there are some.
    fn init_labels(&self) -> &[String] {
        &[]
    }

    /// The adapter folder that the adapter starts from, where there is one.
    fn init_from(&self) -> Option<&str> {
        None
    }

    /// What is known to train badly, or to have no effect, in plain words.
    fn warnings(&self, _learning_rate: f64) -> Vec<String> {
        Vec::new()
    }
}
