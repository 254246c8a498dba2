//! The fields that every method with virtual tokens has.

use burn_peft_decoder::DecoderConfig;
use serde::Serialize;

use crate::Error;
use crate::fields::Fields;

/// The fields of the virtual tokens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VirtualTokenOptions {
    /// Number of virtual tokens.
    pub num_virtual_tokens: usize,
    /// Width of a virtual token: the hidden size; for a prefix, the width of one layer's keys.
    pub token_dim: Option<usize>,
    /// 1 for a decoder.
    pub num_transformer_submodules: Option<usize>,
    /// The base's attention heads; for a prefix, the heads that its keys have.
    pub num_attention_heads: Option<usize>,
    /// The base's layers.
    pub num_layers: Option<usize>,
}

impl VirtualTokenOptions {
    /// For a prompt, whose tokens stand among token embeddings.
    pub fn prompt(num_virtual_tokens: usize, base: &DecoderConfig) -> Self {
        let heads = base.num_attention_heads;
        Self::new(num_virtual_tokens, base, base.hidden_size, heads)
    }

    /// For a prefix with one key and value for each key/value head, as PEFT has it.
    pub fn prefix(num_virtual_tokens: usize, base: &DecoderConfig) -> Self {
        let heads = base.num_key_value_heads;
        Self::new(num_virtual_tokens, base, base.kv_width(), heads)
    }

    /// For a prefix with one key and value for each *query* head, as PEFT had it before it knew grouped queries.
    ///
    /// On a base with grouped queries PEFT 0.21 refuses such a folder: it always expects the key/value width.
    pub fn attention_prefix(num_virtual_tokens: usize, base: &DecoderConfig) -> Self {
        let heads = base.num_attention_heads;
        Self::new(num_virtual_tokens, base, base.query_width(), heads)
    }

    fn new(
        num_virtual_tokens: usize,
        base: &DecoderConfig,
        token_dim: usize,
        heads: usize,
    ) -> Self {
        Self {
            num_virtual_tokens,
            token_dim: Some(token_dim),
            num_transformer_submodules: Some(1),
            num_attention_heads: Some(heads),
            num_layers: Some(base.num_hidden_layers),
        }
    }

    pub(crate) fn read(fields: &mut Fields<'_>) -> Result<Self, Error> {
        Ok(Self {
            num_virtual_tokens: fields.required("num_virtual_tokens")?,
            token_dim: fields.optional("token_dim")?,
            num_transformer_submodules: fields.optional("num_transformer_submodules")?,
            num_attention_heads: fields.optional("num_attention_heads")?,
            num_layers: fields.optional("num_layers")?,
        })
    }
}
