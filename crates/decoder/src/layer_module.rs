//! The modules of a decoder layer: one table of their names, sizes and biases.

use std::fmt;

use burn::tensor::{Tensor, backend::Backend};
use serde::{Deserialize, Serialize};

use crate::DecoderConfig;

/// A module of a decoder layer, under the name that it has in a checkpoint.
///
/// An adapter can add a bias to the output of each, whether the family has one there
/// ([`has_bias`](Self::has_bias)) or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LayerModule {
    /// The projection to queries.
    QProj,
    /// The projection to keys.
    KProj,
    /// The projection to values.
    VProj,
    /// The projection of what attention gathers.
    OProj,
    /// The gate of the feed-forward layer.
    GateProj,
    /// The other factor of the feed-forward layer.
    UpProj,
    /// The output projection of the feed-forward layer.
    DownProj,
    /// The norm before attention.
    InputLayernorm,
    /// The norm before the feed-forward layer.
    PostAttentionLayernorm,
}

/// A size that the configuration gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Width {
    /// `d_model`.
    Hidden,
    /// `n_heads · head_dim`.
    Query,
    /// `n_kv_heads · head_dim`.
    Kv,
    /// `intermediate_size`.
    Inner,
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

/// One line of the table.
struct Row {
    /// Path within the layer.
    path: &'static str,
    output: Width,
    /// `None` for a norm, which has one weight for each output.
    input: Option<Width>,
}

impl LayerModule {
    /// All of them, in the order of attention, feed-forward layer, norms.
    pub const ALL: [Self; 9] = [
        Self::QProj,
        Self::KProj,
        Self::VProj,
        Self::OProj,
        Self::GateProj,
        Self::UpProj,
        Self::DownProj,
        Self::InputLayernorm,
        Self::PostAttentionLayernorm,
    ];

    #[rustfmt::skip]
    fn row(self) -> Row {
        let linear = |path, output, input| Row { path, output, input: Some(input) };
        let norm = |path| Row { path, output: Width::Hidden, input: None };
        match self {
            Self::QProj => linear("self_attn.q_proj", Width::Query, Width::Hidden),
            Self::KProj => linear("self_attn.k_proj", Width::Kv, Width::Hidden),
            Self::VProj => linear("self_attn.v_proj", Width::Kv, Width::Hidden),
            Self::OProj => linear("self_attn.o_proj", Width::Hidden, Width::Query),
            Self::GateProj => linear("mlp.gate_proj", Width::Inner, Width::Hidden),
            Self::UpProj => linear("mlp.up_proj", Width::Inner, Width::Hidden),
            Self::DownProj => linear("mlp.down_proj", Width::Hidden, Width::Inner),
            Self::InputLayernorm => norm("input_layernorm"),
            Self::PostAttentionLayernorm => norm("post_attention_layernorm"),
        }
    }

    /// The module's name, such as `q_proj`.
    #[must_use]
    pub fn name(self) -> &'static str {
        let path = self.row().path;
        path.rsplit_once('.').map_or(path, |(_, name)| name)
    }

    /// The module's path within a layer, such as `self_attn.q_proj`.
    #[must_use]
    pub fn path(self) -> &'static str {
        self.row().path
    }

    /// The module's path in a checkpoint, such as `model.layers.3.self_attn.q_proj`.
    #[must_use]
    pub fn module_path(self, layer: usize) -> String {
        format!("model.layers.{layer}.{}", self.path())
    }

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

    /// Whether the module is a norm; the others are linear layers.
    #[must_use]
    pub fn is_norm(self) -> bool {
        self.row().input.is_none()
    }

    /// Whether a model of this configuration has a bias there, and a checkpoint a place for it.
    #[must_use]
    pub fn has_bias(self, config: &DecoderConfig) -> bool {
        config.biases.contains(&self)
    }
}

impl fmt::Display for LayerModule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Biases of one layer, by module: those that a model has, or what an adapter adds to them.
#[derive(Debug, Clone)]
pub struct LayerBiases<B: Backend>([Option<Tensor<B, 1>>; LayerModule::ALL.len()]);

impl<B: Backend> LayerBiases<B> {
    /// The bias of `module`, `[d_out]`, if there is one.
    #[must_use]
    pub fn get(&self, module: LayerModule) -> Option<&Tensor<B, 1>> {
        self.0[module as usize].as_ref()
    }

    /// Sets the bias of `module`, `[d_out]`.
    pub fn set(&mut self, module: LayerModule, bias: Tensor<B, 1>) {
        self.0[module as usize] = Some(bias);
    }

    /// The biases that there are.
    pub fn iter(&self) -> impl Iterator<Item = (LayerModule, &Tensor<B, 1>)> {
        LayerModule::ALL
            .into_iter()
            .filter_map(|module| Some((module, self.get(module)?)))
    }
}

impl<B: Backend> Default for LayerBiases<B> {
    fn default() -> Self {
        Self([const { None }; LayerModule::ALL.len()])
    }
}

impl<B: Backend> FromIterator<(LayerModule, Tensor<B, 1>)> for LayerBiases<B> {
    fn from_iter<I: IntoIterator<Item = (LayerModule, Tensor<B, 1>)>>(biases: I) -> Self {
        let mut all = Self::default();
        for (module, bias) in biases {
            all.set(module, bias);
        }
        all
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

    #[test]
    fn settings_name_a_module_as_checkpoints_do() {
        // Any format of serde will do; this one needs no other crate.
        use serde::de::{IntoDeserializer, value::Error};
        for module in LayerModule::ALL {
            let name: serde::de::value::StrDeserializer<'_, Error> =
                module.name().into_deserializer();
            assert_eq!(LayerModule::deserialize(name).unwrap(), module);
            assert_eq!(module.to_string(), module.name());
            assert!(module.path().ends_with(module.name()));
        }
    }

    #[test]
    fn the_table_is_indexed_in_the_order_of_all() {
        for (index, module) in LayerModule::ALL.into_iter().enumerate() {
            assert_eq!(module as usize, index);
        }
    }
}
