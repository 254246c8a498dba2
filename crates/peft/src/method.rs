//! What every method's options can answer without a backend.

use burn_peft_decoder::DecoderConfig;

use crate::{AdapterPath, Error, ModuleListing};

/// What decides how fast an adapter is to learn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RateBasis<'a> {
    /// The base's sizes. What is added to each layer adds up on the way through.
    pub config: &'a DecoderConfig,
    /// The root mean square of the base's embedding table: the size of what virtual tokens stand for.
    pub embedding_rms: f64,
    /// Whether a head learns beside the adapter.
    pub with_head: bool,
}

impl RateBasis<'_> {
    /// The number of layers.
    pub(crate) fn layers(&self) -> f64 {
        self.config.num_hidden_layers as f64
    }
}

/// The options of one method.
pub(crate) trait Method {
    /// The learning rate for AdamW where none is given, and no head learns beside the adapter.
    fn default_learning_rate(&self, base: RateBasis<'_>) -> f64;

    /// Checks the values, as far as that is possible without a base.
    fn validate(&self) -> Result<(), Error>;

    /// Checks what depends on the base.
    fn check_base(&self, _base: &DecoderConfig) -> Result<(), Error> {
        Ok(())
    }

    /// The modules of an adapter for a base of this size, under PEFT's names, with every parameter that it
    /// trains.
    fn modules(&self, base: &DecoderConfig) -> ModuleListing;

    /// Virtual tokens of an adapter, 0 for a method without.
    fn num_virtual_tokens(&self) -> usize {
        0
    }

    /// The options on which the number of parameters depends, with their values.
    fn sizes(&self) -> Vec<(&'static str, usize)> {
        vec![("num_virtual_tokens", self.num_virtual_tokens())]
    }

    /// The option `num_virtual_tokens`, where the method has it: to be filled in where it was left out.
    fn num_virtual_tokens_mut(&mut self) -> Option<&mut Option<usize>> {
        None
    }

    /// Puts in the values that options have on `base` where they were left out.
    fn fill_in(&mut self, _base: &DecoderConfig) {}

    /// The adapter to start from, where there is one.
    fn init_from_mut(&mut self) -> Option<&mut AdapterPath> {
        None
    }

    /// What a new adapter starts from, besides random numbers and the base.
    fn starts_from(&self) -> StartsFrom<'_> {
        StartsFrom::Nothing
    }

    /// Options that were given and that the folder to start from decides, too: they must agree.
    fn decided_by_folder(&self) -> Vec<&'static str> {
        Vec::new()
    }

    /// Settings that are known to train badly, or to have no effect, a sentence each.
    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }
}

/// A warning of an option that is given and `unused`, because it needs another one.
pub(crate) fn without_effect(option: &str, unused: bool, needed: &str) -> Option<String> {
    unused.then(|| format!("method.{option} has no effect without `{needed}`"))
}

/// What a new adapter starts from, besides random numbers and the base.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StartsFrom<'a> {
    Nothing,
    /// The tokens of a text.
    Text(&'a str),
    /// The tokens of each label.
    Labels(&'a [String]),
    /// The adapter in a folder.
    Folder(&'a AdapterPath),
}

impl<'a> StartsFrom<'a> {
    /// A text, if it is there and `used`.
    pub(crate) fn text_if(used: bool, text: Option<&'a str>) -> Self {
        text.filter(|_| used).map_or(Self::Nothing, Self::Text)
    }

    /// The folder in place of this, if there is one.
    pub(crate) fn or_folder(self, folder: Option<&'a AdapterPath>) -> Self {
        folder.map_or(self, Self::Folder)
    }
}
