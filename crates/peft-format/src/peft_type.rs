//! What this crate asks of the fields of any `peft_type`.

use burn_peft::LayerModule;

use crate::beft::TargetModules;
use crate::virtual_tokens::VirtualTokenOptions;

/// Where what an adapter trains takes effect in the base, with the fields that say which tensors the folder holds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Landing<'a> {
    /// Virtual tokens among the input embeddings.
    Prompt(&'a VirtualTokenOptions),
    /// Keys and values in front of every layer's own.
    Prefix(&'a VirtualTokenOptions),
    /// Vectors added to the outputs of modules.
    Biases(&'a TargetModules),
}

impl<'a> Landing<'a> {
    /// The virtual tokens, where there are some.
    pub fn virtual_tokens(self) -> Option<&'a VirtualTokenOptions> {
        match self {
            Self::Prompt(tokens) | Self::Prefix(tokens) => Some(tokens),
            Self::Biases(_) => None,
        }
    }
}

/// What the fields of a `peft_type` say.
pub(crate) trait PeftType {
    /// This project's name of the method, as on the command line.
    fn name(&self) -> &'static str;

    /// The class of the module that PEFT holds the parameters in.
    fn class(&self) -> &'static str;

    /// Where it lands.
    fn landing(&self) -> Landing<'_>;

    /// A field that is not set and without which PEFT does not load a folder.
    fn missing_field(&self) -> Option<&'static str> {
        None
    }

    /// Modules among the targets at which PEFT has no such bias.
    fn beyond_peft(&self) -> Vec<LayerModule> {
        Vec::new()
    }
}
