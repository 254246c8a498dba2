//! How the methods of `burn-peft` describe themselves in a folder: one arm a method that has fields of its own.

use burn::tensor::backend::Backend;
use burn_peft::{Adapter, MethodConfig, PTuningConfig, PrefixInit as Start, PromptTuningConfig};
use burn_peft_decoder::DecoderConfig;

use crate::Error;
use crate::folder::AdapterFolder;
use crate::method::MethodOptions;
use crate::options::{
    PTuningOptions, PrefixInit, PrefixTuningOptions, PromptTuningInit, PromptTuningOptions,
};
use crate::peft_type::Landing;
use crate::virtual_tokens::VirtualTokenOptions;

/// The folder of an adapter that was trained with the options `method`. `base_name` is a hub id or
/// a path; `None` for a base that PEFT cannot load by name.
///
/// # Errors
/// [`Error::NothingToSave`] if it injects nothing.
pub fn folder_from_adapter<B: Backend, A: Adapter<B>>(
    adapter: &A,
    method: &MethodConfig,
    base: &DecoderConfig,
    base_name: Option<&str>,
) -> Result<AdapterFolder, Error> {
    AdapterFolder::from_adapter(adapter, base, base_name, |landing| {
        method_options(method, landing, base_name)
    })
}

/// The fields of an adapter that was trained with the options `method` and lands there.
pub fn method_options(
    method: &MethodConfig,
    landing: Landing<'_>,
    base_name: Option<&str>,
) -> MethodOptions {
    match (method, landing) {
        (MethodConfig::PromptTuning(config), Landing::Prompt(tokens)) => {
            MethodOptions::PromptTuning(prompt_tuning(config, tokens, base_name))
        }
        (MethodConfig::PTuning(config), Landing::Prompt(tokens)) => {
            MethodOptions::PTuning(p_tuning(config, tokens))
        }
        (MethodConfig::PrefixTuning(config), Landing::Prefix(tokens)) => {
            MethodOptions::PrefixTuning(PrefixTuningOptions {
                prefix_projection: config.prefix_projection,
                ..prefix(config.init_weights, config.encoder_hidden_size, tokens)
            })
        }
        (MethodConfig::PTuningV2(config), Landing::Prefix(tokens)) => {
            MethodOptions::PrefixTuning(prefix(config.init_weights, None, tokens))
        }
        (_, landing) => MethodOptions::of(landing),
    }
}

fn prompt_tuning(
    config: &PromptTuningConfig,
    tokens: &VirtualTokenOptions,
    base_name: Option<&str>,
) -> PromptTuningOptions {
    let options = PromptTuningOptions::new(tokens.clone());
    match config.prompt_tuning_init {
        PromptTuningInit::Random => options,
        // PEFT knows no start from labels, and reads the field even where it starts nothing.
        PromptTuningInit::SampleVocab | PromptTuningInit::ClassLabels => PromptTuningOptions {
            prompt_tuning_init: PromptTuningInit::SampleVocab,
            ..options
        },
        // PEFT asks for text and tokenizer even where it initialises nothing.
        PromptTuningInit::Text => PromptTuningOptions {
            prompt_tuning_init: PromptTuningInit::Text,
            prompt_tuning_init_text: config.prompt_tuning_init_text.clone(),
            tokenizer_name_or_path: Some(base_name.unwrap_or_default().to_owned()),
            ..options
        },
    }
}

fn p_tuning(config: &PTuningConfig, tokens: &VirtualTokenOptions) -> PTuningOptions {
    let default = PTuningOptions::new(tokens.clone());
    PTuningOptions {
        encoder_reparameterization_type: config.encoder_reparameterization_type,
        encoder_hidden_size: config.encoder_hidden_size.or(default.encoder_hidden_size),
        encoder_num_layers: config.encoder_num_layers,
        encoder_dropout: config.encoder_dropout,
        ..default
    }
}

fn prefix(
    start: Start,
    hidden_size: Option<usize>,
    tokens: &VirtualTokenOptions,
) -> PrefixTuningOptions {
    let default = PrefixTuningOptions::new(tokens.clone());
    PrefixTuningOptions {
        encoder_hidden_size: hidden_size.or(default.encoder_hidden_size),
        init_weights: (start == Start::Zero).then_some(PrefixInit::Zero),
        ..default
    }
}
