//! The tensors of a checkpoint, with their shapes.

use crate::{
    DecoderConfig, LayerModule,
    layer_module::{Row, Width, layer_path},
    weights::{EMBED_TOKENS, LM_HEAD, NORM},
};

/// The norms over each head's queries and keys, in families that have them.
pub const QK_NORMS: [&str; 2] = ["q_norm", "k_norm"];

/// The path of one of [`QK_NORMS`] in a checkpoint.
pub(crate) fn qk_norm_path(layer: usize, name: &str) -> String {
    layer_path(layer, &format!("self_attn.{name}"))
}

impl Width {
    fn of(self, config: &DecoderConfig) -> usize {
        match self {
            Self::Hidden => config.hidden_size,
            Self::Query => config.query_width(),
            Self::Kv => config.kv_width(),
            Self::Inner => config.intermediate_size,
        }
    }
}

impl LayerModule {
    /// Shape of the weight: `[d_out, d_in]`, or `[d_model]` for a norm.
    #[must_use]
    pub fn weight_shape(self, config: &DecoderConfig) -> Vec<usize> {
        let Row { output, input, .. } = self.row();
        [Some(output), input]
            .into_iter()
            .flatten()
            .map(|width| width.of(config))
            .collect()
    }

    /// Width of the module's output, and length of its bias.
    #[must_use]
    pub fn width(self, config: &DecoderConfig) -> usize {
        self.row().output.of(config)
    }

    /// Whether a model of this configuration has a bias there, and a checkpoint a place for it.
    #[must_use]
    pub fn has_bias(self, config: &DecoderConfig) -> bool {
        config.biases.contains(&self)
    }
}

impl DecoderConfig {
    /// Every tensor of a checkpoint of this architecture with its shape.
    #[must_use]
    pub fn tensor_shapes(&self) -> Vec<(String, Vec<usize>)> {
        let (vocab, hidden) = (self.vocab_size, self.hidden_size);
        let mut tensors = vec![(EMBED_TOKENS.to_owned(), vec![vocab, hidden])];
        for layer in 0..self.num_hidden_layers {
            for module in LayerModule::ALL {
                let path = module.module_path(layer);
                tensors.push((format!("{path}.weight"), module.weight_shape(self)));
                if module.has_bias(self) {
                    tensors.push((format!("{path}.bias"), vec![module.width(self)]));
                }
            }
            for name in QK_NORMS.into_iter().filter(|_| self.family.has_qk_norm()) {
                let path = qk_norm_path(layer, name);
                tensors.push((format!("{path}.weight"), vec![self.head_dim]));
            }
        }
        tensors.push((NORM.to_owned(), vec![hidden]));
        if !self.tie_word_embeddings {
            tensors.push((LM_HEAD.to_owned(), vec![vocab, hidden]));
        }
        tensors
    }

    /// Parameters of the whole model, a tied head counted once (as `num_parameters()` does in
    /// transformers).
    #[must_use]
    pub fn num_parameters(&self) -> usize {
        self.tensor_shapes()
            .iter()
            .map(|(_, shape)| shape.iter().product::<usize>())
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A small model of a family, with `more` in its configuration.
    fn config(model_type: &str, more: &str) -> DecoderConfig {
        let text = format!(
            r#"{{"model_type": "{model_type}", "vocab_size": 32, "hidden_size": 16,
                "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4,
                "num_key_value_heads": 2, "head_dim": 6{more}}}"#
        );
        DecoderConfig::parse(&text, "config.json").unwrap()
    }

    #[test]
    fn paths_and_widths_are_those_of_a_checkpoint() {
        for config in [
            config("qwen2", ""),
            config("llama", ""),
            config("llama", r#", "attention_bias": true, "mlp_bias": true"#),
            config("qwen3", ""),
        ] {
            let tensors = config.tensor_shapes();
            let shape = |name: &str| {
                let found = tensors.iter().find(|(known, _)| known == name);
                found.map(|(_, shape)| shape.clone())
            };
            for module in LayerModule::ALL {
                let path = module.module_path(1);
                let weight = shape(&format!("{path}.weight"));
                let weight = weight.unwrap_or_else(|| panic!("{path} is no module"));
                assert_eq!(weight[0], module.width(&config), "{path}");
                assert_eq!(weight.len() == 1, module.is_norm(), "{path}");
                let bias = shape(&format!("{path}.bias"));
                assert_eq!(bias.is_some(), module.has_bias(&config), "{path}");
            }
        }
    }

    #[test]
    fn a_family_has_the_biases_that_it_always_has_or_its_configuration_asks_for() {
        use LayerModule::{DownProj, GateProj, KProj, OProj, QProj, UpProj, VProj};
        assert_eq!(config("qwen2", "").biases, [QProj, KProj, VProj]);
        assert_eq!(config("llama", "").biases, []);
        let attention = [QProj, KProj, VProj, OProj];
        let asked = r#", "attention_bias": true"#;
        assert_eq!(config("llama", asked).biases, attention);
        assert_eq!(config("qwen3", asked).biases, attention);
        let asked = r#", "mlp_bias": true"#;
        assert_eq!(config("llama", asked).biases, [GateProj, UpProj, DownProj]);
    }
}
