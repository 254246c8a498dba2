//! The fields that PEFT gives each method, with its defaults.

pub use burn_peft::{EncoderReparameterizationType, PromptTuningInit};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Error;
use crate::fields::Fields;
use crate::method::VirtualTokenOptions;

/// The fields of `PROMPT_TUNING`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PromptTuningOptions {
    /// The virtual tokens.
    #[serde(flatten)]
    pub virtual_tokens: VirtualTokenOptions,
    /// How the table was initialised. PEFT's default: RANDOM.
    pub prompt_tuning_init: PromptTuningInit,
    /// The text of `TEXT`. PEFT refuses to load `TEXT` without it.
    pub prompt_tuning_init_text: Option<String>,
    /// The tokenizer of `TEXT`. PEFT refuses to load `TEXT` without it.
    pub tokenizer_name_or_path: Option<String>,
    /// Arguments of that tokenizer. Kept, not used.
    pub tokenizer_kwargs: Option<Value>,
}

impl PromptTuningOptions {
    /// With PEFT's defaults.
    pub fn new(virtual_tokens: VirtualTokenOptions) -> Self {
        Self {
            virtual_tokens,
            prompt_tuning_init: PromptTuningInit::Random,
            prompt_tuning_init_text: None,
            tokenizer_name_or_path: None,
            tokenizer_kwargs: None,
        }
    }

    pub(crate) fn read(fields: &mut Fields<'_>) -> Result<Self, Error> {
        let default = Self::new(VirtualTokenOptions::read(fields)?);
        Ok(Self {
            prompt_tuning_init: fields.or("prompt_tuning_init", default.prompt_tuning_init)?,
            prompt_tuning_init_text: fields.optional("prompt_tuning_init_text")?,
            tokenizer_name_or_path: fields.optional("tokenizer_name_or_path")?,
            tokenizer_kwargs: fields.optional("tokenizer_kwargs")?,
            ..default
        })
    }
}

/// The fields of `P_TUNING`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PTuningOptions {
    /// The virtual tokens.
    #[serde(flatten)]
    pub virtual_tokens: VirtualTokenOptions,
    /// The encoder's kind. PEFT's default: MLP.
    pub encoder_reparameterization_type: EncoderReparameterizationType,
    /// The encoder's width. PEFT's default: `token_dim`.
    pub encoder_hidden_size: Option<usize>,
    /// Layers of the LSTM. PEFT's default: 2.
    pub encoder_num_layers: usize,
    /// Dropout between the layers of the LSTM. PEFT's default: 0.
    pub encoder_dropout: f64,
}

impl PTuningOptions {
    /// With PEFT's defaults.
    pub fn new(virtual_tokens: VirtualTokenOptions) -> Self {
        Self {
            encoder_reparameterization_type: EncoderReparameterizationType::Mlp,
            encoder_hidden_size: virtual_tokens.token_dim,
            encoder_num_layers: 2,
            encoder_dropout: 0.0,
            virtual_tokens,
        }
    }

    pub(crate) fn read(fields: &mut Fields<'_>) -> Result<Self, Error> {
        let default = Self::new(VirtualTokenOptions::read(fields)?);
        Ok(Self {
            encoder_reparameterization_type: fields.or(
                "encoder_reparameterization_type",
                default.encoder_reparameterization_type,
            )?,
            encoder_hidden_size: fields.optional("encoder_hidden_size")?,
            encoder_num_layers: fields.or("encoder_num_layers", default.encoder_num_layers)?,
            encoder_dropout: fields.or("encoder_dropout", default.encoder_dropout)?,
            ..default
        })
    }
}

/// The fields of `PREFIX_TUNING`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PrefixTuningOptions {
    /// The virtual tokens.
    #[serde(flatten)]
    pub virtual_tokens: VirtualTokenOptions,
    /// Whether an MLP made the prefix. PEFT's default: false.
    pub prefix_projection: bool,
    /// That MLP's width. PEFT's default: `token_dim`.
    pub encoder_hidden_size: Option<usize>,
    /// How the weights were initialised. PEFT's default: at random.
    pub init_weights: Option<PrefixInit>,
}

/// How a prefix starts, other than at random.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PrefixInit {
    /// All keys and values zero.
    Zero,
}

impl PrefixTuningOptions {
    /// With PEFT's defaults.
    pub fn new(virtual_tokens: VirtualTokenOptions) -> Self {
        // PEFT fills in the width whether or not there is a projection to use it.
        let encoder_hidden_size = virtual_tokens.token_dim;
        Self {
            virtual_tokens,
            prefix_projection: false,
            encoder_hidden_size,
            init_weights: None,
        }
    }

    pub(crate) fn read(fields: &mut Fields<'_>) -> Result<Self, Error> {
        let default = Self::new(VirtualTokenOptions::read(fields)?);
        Ok(Self {
            prefix_projection: fields.or("prefix_projection", default.prefix_projection)?,
            encoder_hidden_size: fields.optional("encoder_hidden_size")?,
            init_weights: fields.optional("init_weights")?,
            ..default
        })
    }
}
