//! The methods of PEFT that are known here, and what those with virtual tokens share.

use serde::Serialize;
use serde_json::{Map, Value};

use crate::Error;
use crate::beft::BeftOptions;
use crate::fields::Fields;
use crate::fit::BaseDims;
use crate::options::{PTuningOptions, PrefixTuningOptions, PromptTuningOptions};

/// PEFT's `peft_type`, with the fields of that method.
#[derive(Debug, Clone, PartialEq)]
pub enum MethodOptions {
    /// `PROMPT_TUNING`.
    PromptTuning(PromptTuningOptions),
    /// `P_TUNING`.
    PTuning(PTuningOptions),
    /// `PREFIX_TUNING`; without projection that is P-Tuning v2.
    PrefixTuning(PrefixTuningOptions),
    /// `BEFT`: biases added to the outputs of modules, the form BitFit takes in PEFT.
    Beft(BeftOptions),
}

/// The fields that every method with virtual tokens has.
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

impl MethodOptions {
    /// PEFT's name of the method.
    pub fn peft_type(&self) -> &'static str {
        match self {
            Self::PromptTuning(_) => "PROMPT_TUNING",
            Self::PTuning(_) => "P_TUNING",
            Self::PrefixTuning(_) => "PREFIX_TUNING",
            Self::Beft(_) => "BEFT",
        }
    }

    /// This project's name of the method, as on the command line.
    pub fn name(&self) -> &'static str {
        match self {
            Self::PromptTuning(_) => "prompt-tuning",
            Self::PTuning(_) => "p-tuning",
            Self::PrefixTuning(options) if options.prefix_projection => "prefix-tuning",
            Self::PrefixTuning(_) => "p-tuning-v2",
            Self::Beft(_) => "bitfit",
        }
    }

    /// The virtual tokens, where the method has them.
    pub fn virtual_tokens(&self) -> Option<&VirtualTokenOptions> {
        match self {
            Self::PromptTuning(options) => Some(&options.virtual_tokens),
            Self::PTuning(options) => Some(&options.virtual_tokens),
            Self::PrefixTuning(options) => Some(&options.virtual_tokens),
            Self::Beft(_) => None,
        }
    }

    pub(crate) fn read(fields: &mut Fields<'_>) -> Result<Self, Error> {
        let peft_type: String = fields.required("peft_type")?;
        Ok(match peft_type.as_str() {
            "PROMPT_TUNING" => Self::PromptTuning(PromptTuningOptions::read(fields)?),
            "P_TUNING" => Self::PTuning(PTuningOptions::read(fields)?),
            "PREFIX_TUNING" => Self::PrefixTuning(PrefixTuningOptions::read(fields)?),
            "BEFT" => Self::Beft(BeftOptions::read(fields)?),
            other => {
                let supported = "PROMPT_TUNING, P_TUNING, PREFIX_TUNING, BEFT";
                return Err(fields.unsupported("peft_type", other, supported));
            }
        })
    }

    /// The method's own keys.
    pub(crate) fn to_map(&self) -> Map<String, Value> {
        let value = match self {
            Self::PromptTuning(options) => serde_json::to_value(options),
            Self::PTuning(options) => serde_json::to_value(options),
            Self::PrefixTuning(options) => serde_json::to_value(options),
            Self::Beft(options) => serde_json::to_value(options),
        };
        match value {
            Ok(Value::Object(map)) => map,
            other => unreachable!("plain structs always become JSON objects, not {other:?}"),
        }
    }
}

impl VirtualTokenOptions {
    /// Of prompts, which stand where token embeddings stand.
    pub fn prompt(num_virtual_tokens: usize, dims: &BaseDims) -> Self {
        Self::new(num_virtual_tokens, dims, dims.hidden_size, dims.num_heads)
    }

    /// Of a prefix with one key and value for each key/value head, as PEFT has it.
    pub fn prefix(num_virtual_tokens: usize, dims: &BaseDims) -> Self {
        Self::new(
            num_virtual_tokens,
            dims,
            dims.num_kv_heads * dims.head_dim,
            dims.num_kv_heads,
        )
    }

    /// Of a prefix with one key and value for each *query* head, as PEFT had it before it knew grouped queries.
    ///
    /// On a base with grouped queries PEFT 0.21 refuses such a folder: it always expects the key/value width.
    pub fn attention_prefix(num_virtual_tokens: usize, dims: &BaseDims) -> Self {
        Self::new(
            num_virtual_tokens,
            dims,
            dims.num_heads * dims.head_dim,
            dims.num_heads,
        )
    }

    fn new(num_virtual_tokens: usize, dims: &BaseDims, token_dim: usize, heads: usize) -> Self {
        Self {
            num_virtual_tokens,
            token_dim: Some(token_dim),
            num_transformer_submodules: Some(1),
            num_attention_heads: Some(heads),
            num_layers: Some(dims.num_layers),
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
