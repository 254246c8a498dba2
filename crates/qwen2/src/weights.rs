//! The names and shapes a checkpoint must have, and where its tensors come from.

use burn::tensor::{Tensor, backend::Backend};

use crate::Qwen2Config;

/// Gives a model its tensors, by the names they have in a checkpoint.
pub(crate) trait TensorSource<B: Backend> {
    /// Where they are made.
    fn device(&self) -> &B::Device;

    /// The tensor of this name; each is asked for once.
    fn tensor<const D: usize>(&mut self, name: &str) -> Tensor<B, D>;
}

/// Name of the embedding table in a checkpoint.
pub(crate) const EMBED_TOKENS: &str = "model.embed_tokens.weight";
/// Name of the last norm in a checkpoint.
pub(crate) const NORM: &str = "model.norm.weight";
/// Name of an untied output head in a checkpoint.
pub(crate) const LM_HEAD: &str = "lm_head.weight";

/// Prefix of everything in decoder layer `layer`.
pub(crate) fn layer_prefix(layer: usize) -> String {
    format!("model.layers.{layer}")
}

/// Every tensor of a checkpoint with its shape, in the order of a forward pass.
pub(crate) fn expected_tensors(config: &Qwen2Config) -> Vec<(String, Vec<usize>)> {
    let Qwen2Config {
        vocab_size: vocab,
        hidden_size: hidden,
        intermediate_size: inner,
        ..
    } = *config;
    let (query, kv) = (config.query_width(), config.kv_width());
    let mut tensors = vec![(EMBED_TOKENS.to_owned(), vec![vocab, hidden])];
    for layer in 0..config.num_hidden_layers {
        let prefix = layer_prefix(layer);
        let mut push = |name: &str, shape: &[usize]| {
            tensors.push((format!("{prefix}.{name}"), shape.to_vec()));
        };
        push("input_layernorm.weight", &[hidden]);
        for (name, width) in [("q_proj", query), ("k_proj", kv), ("v_proj", kv)] {
            push(&format!("self_attn.{name}.weight"), &[width, hidden]);
            push(&format!("self_attn.{name}.bias"), &[width]);
        }
        push("self_attn.o_proj.weight", &[hidden, query]);
        push("post_attention_layernorm.weight", &[hidden]);
        push("mlp.gate_proj.weight", &[inner, hidden]);
        push("mlp.up_proj.weight", &[inner, hidden]);
        push("mlp.down_proj.weight", &[hidden, inner]);
    }
    tensors.push((NORM.to_owned(), vec![hidden]));
    if !config.tie_word_embeddings {
        tensors.push((LM_HEAD.to_owned(), vec![vocab, hidden]));
    }
    tensors
}
