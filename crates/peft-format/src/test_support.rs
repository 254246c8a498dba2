//! What several tests need.

use burn_peft_decoder::DecoderConfig;

use crate::{AdapterConfig, AdapterFolder, AdapterTensor, AdapterTensors, MethodOptions};

/// A small base: 2 layers, 4 query heads over 2 key/value heads.
pub(crate) fn base() -> DecoderConfig {
    DecoderConfig {
        vocab_size: 32,
        hidden_size: 24,
        intermediate_size: 40,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 6,
        ..DecoderConfig::named("qwen2.5-0.5b").unwrap()
    }
}

/// A folder with tensors of these names and shapes, all zeros.
pub(crate) fn folder(method: MethodOptions, tensors: &[(&str, &[usize])]) -> AdapterFolder {
    let mut map = AdapterTensors::new();
    for (name, shape) in tensors {
        let zeros = vec![0.0; shape.iter().product()];
        map.insert(*name, AdapterTensor::new(*shape, zeros));
    }
    AdapterFolder {
        config: AdapterConfig::new(method, Some("some/base")),
        tensors: map,
    }
}
