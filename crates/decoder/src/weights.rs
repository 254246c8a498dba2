//! The names and shapes a checkpoint must have, and where its tensors come from.

use burn::tensor::Tensor;
use burn_peft_ops::{FrozenWeight, Ops};

use crate::{DecoderConfig, LayerModule};

/// Gives a model its tensors, by the names they have in a checkpoint.
pub(crate) trait TensorSource<B: Ops> {
    /// Where they are made.
    fn device(&self) -> &B::Device;

    /// The tensor of this name; each is asked for once.
    fn tensor<const D: usize>(&mut self, name: &str) -> Tensor<B, D>;

    /// The matrix of this name, in the form that the backend holds.
    fn weight(&mut self, name: &str) -> FrozenWeight<B> {
        B::freeze(self.tensor(name))
    }
}

/// Name of the embedding table in a checkpoint.
pub(crate) const EMBED_TOKENS: &str = "model.embed_tokens.weight";
/// Name of the last norm in a checkpoint.
pub(crate) const NORM: &str = "model.norm.weight";
/// Name of an untied output head in a checkpoint.
pub(crate) const LM_HEAD: &str = "lm_head.weight";

/// The norms over each head's queries and keys, in families that have them.
pub(crate) const QK_NORMS: [&str; 2] = ["q_norm", "k_norm"];

/// The path of one of [`QK_NORMS`] in a checkpoint.
pub(crate) fn qk_norm_path(layer: usize, name: &str) -> String {
    format!("model.layers.{layer}.self_attn.{name}")
}

/// Every tensor of a checkpoint with its shape.
pub(crate) fn expected_tensors(config: &DecoderConfig) -> Vec<(String, Vec<usize>)> {
    let (vocab, hidden) = (config.vocab_size, config.hidden_size);
    let mut tensors = vec![(EMBED_TOKENS.to_owned(), vec![vocab, hidden])];
    for layer in 0..config.num_hidden_layers {
        for module in LayerModule::ALL {
            let path = module.module_path(layer);
            tensors.push((format!("{path}.weight"), module.weight_shape(config)));
            if module.has_bias(config) {
                tensors.push((format!("{path}.bias"), vec![module.width(config)]));
            }
        }
        for name in QK_NORMS.into_iter().filter(|_| config.family.has_qk_norm()) {
            let path = qk_norm_path(layer, name);
            tensors.push((format!("{path}.weight"), vec![config.head_dim]));
        }
    }
    tensors.push((NORM.to_owned(), vec![hidden]));
    if !config.tie_word_embeddings {
        tensors.push((LM_HEAD.to_owned(), vec![vocab, hidden]));
    }
    tensors
}
