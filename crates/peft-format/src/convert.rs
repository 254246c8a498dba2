//! Between an [`AdapterFolder`] and the adapter modules of `burn-peft`: one row a method.
//!
//! A folder holds what an adapter *injects*. So an encoder is not in it, and a folder of P-Tuning becomes
//! bare virtual tokens, one of Prefix Tuning bare keys and values: the same function, trainable on.

use std::{collections::BTreeSet, path::Path};

use burn::tensor::{TensorData, backend::Backend};
use burn_peft::{
    Adapter, AnyAdapter, BitFit, Injection, MethodConfig, PTuningConfig, Prefix,
    PrefixInit as Start, PromptTuning, PromptTuningConfig, prefix_table,
};
use burn_peft_decoder::DecoderConfig;

use crate::{
    AdapterConfig, AdapterFolder, AdapterTensor, AdapterTensors, BaseDims, BeftOptions, Error,
    MethodOptions, PROMPT_EMBEDDINGS, PTuningOptions, PrefixInit, PrefixTuningOptions,
    PromptTuningInit, PromptTuningOptions, TargetModules, VirtualTokenOptions, beft_bias_name,
    target_modules,
};

impl From<&DecoderConfig> for BaseDims {
    fn from(config: &DecoderConfig) -> Self {
        Self {
            hidden_size: config.hidden_size,
            intermediate_size: config.intermediate_size,
            num_layers: config.num_hidden_layers,
            num_heads: config.num_attention_heads,
            num_kv_heads: config.num_key_value_heads,
            head_dim: config.head_dim,
            vocab_size: config.vocab_size,
        }
    }
}

/// The adapter that a folder holds, trainable. `path` is for messages.
///
/// # Errors
/// An adapter that does not fit the base.
pub fn adapter_from_folder<B: Backend>(
    folder: &AdapterFolder,
    base: &DecoderConfig,
    path: &Path,
    device: &B::Device,
) -> Result<AnyAdapter<B>, Error> {
    folder.check(&base.into(), path)?;
    let table = || {
        let table = folder.tensors.get(PROMPT_EMBEDDINGS);
        let table = table.expect("`check` asks for the table");
        TensorData::new(table.values().to_vec(), table.shape().to_vec())
    };
    Ok(match &folder.config.method {
        MethodOptions::PromptTuning(_) | MethodOptions::PTuning(_) => {
            AnyAdapter::PromptTuning(PromptTuning::from_data(table(), device))
        }
        MethodOptions::PrefixTuning(_) => {
            AnyAdapter::Prefix(Prefix::from_data(table(), base, device))
        }
        MethodOptions::Beft(_) => {
            let deltas = folder.biases().into_iter().map(|(layer, kind, values)| {
                (
                    layer,
                    kind,
                    TensorData::new(values.to_vec(), [values.len()]),
                )
            });
            AnyAdapter::BitFit(BitFit::from_data(deltas, base, device))
        }
    })
}

/// The folder of an adapter that was trained with the options `method`. `base_name` is a hub id or
/// a path; `None` for a base that PEFT cannot load by name.
///
/// # Panics
/// If `adapter` is no adapter of that method.
#[must_use]
pub fn folder_from_adapter<B: Backend>(
    adapter: &AnyAdapter<B>,
    method: &MethodConfig,
    base: &DecoderConfig,
    base_name: Option<&str>,
) -> AdapterFolder {
    let dims = BaseDims::from(base);
    let mut tensors = AdapterTensors::new();
    let options = match (adapter.inject(), method) {
        (Injection::Prompt(prompt), MethodConfig::PromptTuning(config)) => {
            let count = prompt.embeddings.dims()[0];
            tensors.insert(PROMPT_EMBEDDINGS, to_host(prompt.embeddings.into_data()));
            let tokens = VirtualTokenOptions::prompt(count, &dims);
            MethodOptions::PromptTuning(prompt_tuning_options(config, tokens, base_name))
        }
        (Injection::Prompt(prompt), MethodConfig::PTuning(config)) => {
            let count = prompt.embeddings.dims()[0];
            tensors.insert(PROMPT_EMBEDDINGS, to_host(prompt.embeddings.into_data()));
            let tokens = VirtualTokenOptions::prompt(count, &dims);
            MethodOptions::PTuning(p_tuning_options(config, tokens))
        }
        (Injection::Prefix(prefix), MethodConfig::PrefixTuning(_) | MethodConfig::PTuningV2(_)) => {
            let [heads, count, _] = prefix[0].key.dims();
            let table = prefix_table(prefix);
            tensors.insert(PROMPT_EMBEDDINGS, to_host(table.into_data()));
            let tokens = match heads == dims.num_kv_heads {
                true => VirtualTokenOptions::prefix(count, &dims),
                false => VirtualTokenOptions::attention_prefix(count, &dims),
            };
            MethodOptions::PrefixTuning(prefix_options(method, tokens))
        }
        (Injection::Biases(layers), MethodConfig::BitFit(_)) => {
            let mut trained = BTreeSet::new();
            for (layer, biases) in layers.into_iter().enumerate() {
                for (kind, delta) in biases.iter() {
                    let values: Vec<f32> = delta.to_data().iter::<f32>().collect();
                    let tensor = AdapterTensor::new([1, values.len()], values);
                    tensors.insert(beft_bias_name(layer, kind), tensor);
                    trained.insert((layer, kind));
                }
            }
            MethodOptions::Beft(BeftOptions {
                target_modules: TargetModules::Names(target_modules(&trained, dims.num_layers)),
                ..BeftOptions::new()
            })
        }
        _ => panic!("an adapter is saved with the options of its own method"),
    };
    AdapterFolder {
        config: AdapterConfig::new(options, base_name),
        tensors,
    }
}

fn prompt_tuning_options(
    config: &PromptTuningConfig,
    tokens: VirtualTokenOptions,
    base_name: Option<&str>,
) -> PromptTuningOptions {
    let options = PromptTuningOptions::new(tokens);
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

fn p_tuning_options(config: &PTuningConfig, tokens: VirtualTokenOptions) -> PTuningOptions {
    let default = PTuningOptions::new(tokens);
    PTuningOptions {
        encoder_reparameterization_type: config.encoder_reparameterization_type,
        encoder_hidden_size: config.encoder_hidden_size.or(default.encoder_hidden_size),
        encoder_num_layers: config.encoder_num_layers,
        encoder_dropout: config.encoder_dropout,
        ..default
    }
}

/// Of either method that trains a prefix.
fn prefix_options(method: &MethodConfig, tokens: VirtualTokenOptions) -> PrefixTuningOptions {
    let default = PrefixTuningOptions::new(tokens);
    let (start, projection, hidden_size) = match method {
        MethodConfig::PrefixTuning(config) => (
            config.init_weights,
            config.prefix_projection,
            config.encoder_hidden_size,
        ),
        MethodConfig::PTuningV2(config) => (config.init_weights, false, None),
        other => unreachable!("{} trains no prefix", other.name()),
    };
    PrefixTuningOptions {
        prefix_projection: projection,
        encoder_hidden_size: hidden_size.or(default.encoder_hidden_size),
        init_weights: (start == Start::Zero).then_some(PrefixInit::Zero),
        ..default
    }
}

fn to_host(data: TensorData) -> AdapterTensor {
    AdapterTensor::new(data.shape.to_vec(), data.iter::<f32>().collect())
}
