//! The seam: what an adapter is, and what it can do.

use burn::{
    module::{Module, ModuleDisplay},
    tensor::{Tensor, backend::Backend},
};
use burn_peft_decoder::{Decoder, LayerBiases, LayerKv};
use burn_peft_ops::Ops;

use crate::lead::Lead;

/// Everything an adapter can do to a forward pass.
///
/// Values may have any floating-point type; [`PeftModel::prepare`](crate::PeftModel::prepare) casts
/// them to the base's where they enter it.
#[derive(Debug, Clone)]
pub enum Injection<B: Backend> {
    /// The base as it is.
    Nothing,
    /// What is added to the base's biases (all of the bias where it has none), one set per layer.
    Biases(Vec<LayerBiases<B>>),
    /// Virtual tokens among the input embeddings.
    Prompt(VirtualTokens<B>),
    /// One key/value pair per layer, in the cache before the first token.
    Prefix(Vec<LayerKv<B>>),
}

impl<B: Backend> Injection<B> {
    /// The virtual tokens among it, each of which takes a position of the base's.
    #[must_use]
    pub fn num_virtual_tokens(&self) -> usize {
        match self {
            Self::Nothing | Self::Biases(_) => 0,
            Self::Prompt(prompt) => prompt.embeddings.dims()[0],
            Self::Prefix(layers) => layers.first().map_or(0, |layer| layer.key.dims()[1]),
        }
    }
}

impl<B: Ops> Injection<B> {
    /// The keys and values that it has at the beginning of a row of `base`, one pair a layer, in the base's type: a
    /// prompt's are computed. None where it has no virtual tokens.
    #[must_use]
    pub fn keys_and_values(&self, base: &Decoder<B>) -> Vec<LayerKv<B>> {
        match self {
            _ if self.num_virtual_tokens() == 0 => Vec::new(),
            Self::Nothing | Self::Biases(_) => Vec::new(),
            Self::Prompt(prompt) => Lead::of(base, prompt.embeddings.clone()).prefix,
            Self::Prefix(layers) => {
                let layers = layers.iter().cloned();
                layers.map(|layer| layer.cast(base.dtype())).collect()
            }
        }
    }
}

/// Embeddings that stand for no token of the vocabulary.
///
/// They stand where the batch places them ([`Inputs::placement`](crate::Inputs::placement)).
#[derive(Debug, Clone)]
pub struct VirtualTokens<B: Backend> {
    /// `[tokens, d_model]`.
    pub embeddings: Tensor<B, 2>,
}

/// A fine-tuning method: its trainable parameters, and what they inject.
///
/// An adapter owns *every* trainable parameter; the base is a constant. To add a method, implement
/// this for a module of your own: [`PeftModel`](crate::PeftModel) takes any.
pub trait Adapter<B: Backend>: Module<B> + ModuleDisplay {
    /// The value of the parameters at this step, tracked where the backend tracks.
    fn inject(&self) -> Injection<B>;
}
