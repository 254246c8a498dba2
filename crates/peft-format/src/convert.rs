//! Between an [`AdapterFolder`] and the adapter modules of `burn-peft`: one row a method.

use std::path::Path;

use burn::tensor::{TensorData, backend::Backend};
use burn_peft::{AnyAdapter, MethodConfig, PromptTuning, PromptTuningConfig};
use burn_qwen2::Qwen2Config;

use crate::{
    AdapterConfig, AdapterFolder, AdapterTensor, AdapterTensors, BaseDims, Error, MethodOptions,
    PROMPT_EMBEDDINGS, PromptTuningInit, PromptTuningOptions, VirtualTokenOptions,
};

impl From<&Qwen2Config> for BaseDims {
    fn from(config: &Qwen2Config) -> Self {
        Self {
            hidden_size: config.hidden_size,
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
/// An adapter that does not fit the base, or of a method that cannot be run yet.
pub fn adapter_from_folder<B: Backend>(
    folder: &AdapterFolder,
    base: &Qwen2Config,
    path: &Path,
    device: &B::Device,
) -> Result<AnyAdapter<B>, Error> {
    folder.check(&base.into(), path)?;
    match &folder.config.method {
        // P-Tuning's folder holds what its encoder gave: virtual tokens like any others.
        MethodOptions::PromptTuning(_) | MethodOptions::PTuning(_) => {
            let table = folder.tensors.get(PROMPT_EMBEDDINGS);
            let table = table.expect("`check` asks for the table");
            let data = TensorData::new(table.values().to_vec(), table.shape().to_vec());
            Ok(AnyAdapter::PromptTuning(PromptTuning::from_data(
                data, device,
            )))
        }
        other => Err(Error::NotThereYet {
            path: path.to_owned(),
            peft_type: other.peft_type(),
        }),
    }
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
    base: &Qwen2Config,
    base_name: Option<&str>,
) -> AdapterFolder {
    let mut tensors = AdapterTensors::new();
    let options = match (adapter, method) {
        (AnyAdapter::PromptTuning(adapter), MethodConfig::PromptTuning(config)) => {
            tensors.insert(
                PROMPT_EMBEDDINGS,
                to_host(adapter.prompt_embeddings().into_data()),
            );
            MethodOptions::PromptTuning(prompt_tuning_options(config, base, base_name))
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
    base: &Qwen2Config,
    base_name: Option<&str>,
) -> PromptTuningOptions {
    let tokens = VirtualTokenOptions::prompt(config.num_virtual_tokens, &base.into());
    let options = PromptTuningOptions::new(tokens);
    match config.prompt_tuning_init {
        PromptTuningInit::Random => options,
        PromptTuningInit::SampleVocab => PromptTuningOptions {
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

fn to_host(data: TensorData) -> AdapterTensor {
    AdapterTensor::new(data.shape.to_vec(), data.iter::<f32>().collect())
}
