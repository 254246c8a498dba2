//! The places of a decoder layer that can have a bias.

use std::fmt;

use burn::tensor::{Tensor, backend::Backend};
use burn_qwen2::{LayerBiases, Qwen2Config};
use serde::{Deserialize, Serialize};

/// A module of a decoder layer to whose output a bias can be added, under the name it has in a
/// checkpoint.
///
/// Qwen2 has biases in three of the nine places ([`in_qwen2`](Self::in_qwen2)); elsewhere a bias is
/// an addition of ours that starts at zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BiasKind {
    /// The queries, `[n_heads · head_dim]`.
    QProj,
    /// The keys, `[n_kv_heads · head_dim]`.
    KProj,
    /// The values, `[n_kv_heads · head_dim]`.
    VProj,
    /// The attention's output, `[d_model]`.
    OProj,
    /// The gate of the feed-forward layer, `[intermediate_size]`.
    GateProj,
    /// What the gate lets through, `[intermediate_size]`.
    UpProj,
    /// The feed-forward layer's output, `[d_model]`.
    DownProj,
    /// The norm in front of the attention, `[d_model]`.
    InputLayernorm,
    /// The norm in front of the feed-forward layer, `[d_model]`.
    PostAttentionLayernorm,
}

/// The widths that the outputs of a layer's modules have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerWidths {
    /// `d_model`.
    pub hidden: usize,
    /// `n_heads · head_dim`.
    pub query: usize,
    /// `n_kv_heads · head_dim`.
    pub kv: usize,
    /// `intermediate_size`.
    pub inner: usize,
}

impl From<&Qwen2Config> for LayerWidths {
    fn from(config: &Qwen2Config) -> Self {
        Self {
            hidden: config.hidden_size,
            query: config.query_width(),
            kv: config.kv_width(),
            inner: config.intermediate_size,
        }
    }
}

impl BiasKind {
    /// All of them: attention, feed-forward layer, norms.
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

    /// Name and parent of the module in a decoder layer, and the width of its output.
    fn row(self) -> (&'static str, Parent, Width) {
        match self {
            Self::QProj => ("q_proj", Parent::SelfAttn, Width::Query),
            Self::KProj => ("k_proj", Parent::SelfAttn, Width::Kv),
            Self::VProj => ("v_proj", Parent::SelfAttn, Width::Kv),
            Self::OProj => ("o_proj", Parent::SelfAttn, Width::Hidden),
            Self::GateProj => ("gate_proj", Parent::Mlp, Width::Inner),
            Self::UpProj => ("up_proj", Parent::Mlp, Width::Inner),
            Self::DownProj => ("down_proj", Parent::Mlp, Width::Hidden),
            Self::InputLayernorm => ("input_layernorm", Parent::Layer, Width::Hidden),
            Self::PostAttentionLayernorm => {
                ("post_attention_layernorm", Parent::Layer, Width::Hidden)
            }
        }
    }

    /// The module's name, such as `q_proj`.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.row().0
    }

    /// The module's path in a checkpoint, such as `model.layers.3.self_attn.q_proj`.
    #[must_use]
    pub fn module_path(self, layer: usize) -> String {
        let (name, parent, _) = self.row();
        let parent = match parent {
            Parent::SelfAttn => "self_attn.",
            Parent::Mlp => "mlp.",
            Parent::Layer => "",
        };
        format!("model.layers.{layer}.{parent}{name}")
    }

    /// Length of the bias.
    #[must_use]
    pub fn width(self, base: impl Into<LayerWidths>) -> usize {
        let widths = base.into();
        match self.row().2 {
            Width::Hidden => widths.hidden,
            Width::Query => widths.query,
            Width::Kv => widths.kv,
            Width::Inner => widths.inner,
        }
    }

    /// The biases of a layer that are there, by kind.
    #[must_use]
    pub fn of_layer<B: Backend>(biases: LayerBiases<B>) -> Vec<(Self, Tensor<B, 1>)> {
        let LayerBiases {
            q_proj,
            k_proj,
            v_proj,
            o_proj,
            gate_proj,
            up_proj,
            down_proj,
            input_layernorm,
            post_attention_layernorm,
        } = biases;
        let all = [
            (Self::QProj, q_proj),
            (Self::KProj, k_proj),
            (Self::VProj, v_proj),
            (Self::OProj, o_proj),
            (Self::GateProj, gate_proj),
            (Self::UpProj, up_proj),
            (Self::DownProj, down_proj),
            (Self::InputLayernorm, input_layernorm),
            (Self::PostAttentionLayernorm, post_attention_layernorm),
        ];
        all.into_iter()
            .filter_map(|(kind, bias)| Some((kind, bias?)))
            .collect()
    }

    /// Whether Qwen2 has this bias, and a checkpoint a place for it.
    #[must_use]
    pub fn in_qwen2(self) -> bool {
        matches!(self, Self::QProj | Self::KProj | Self::VProj)
    }

    /// Whether the module is a norm; the others are linear layers.
    #[must_use]
    pub fn is_norm(self) -> bool {
        matches!(self.row().1, Parent::Layer)
    }
}

impl fmt::Display for BiasKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[derive(Debug, Clone, Copy)]
enum Parent {
    SelfAttn,
    Mlp,
    Layer,
}

#[derive(Debug, Clone, Copy)]
enum Width {
    Hidden,
    Query,
    Kv,
    Inner,
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = r#"{"model_type": "qwen2", "vocab_size": 32, "hidden_size": 16,
        "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 6}"#;

    #[test]
    fn paths_and_widths_are_those_of_a_checkpoint() {
        let config = Qwen2Config::parse(CONFIG, "config.json").unwrap();
        let tensors = config.tensor_shapes();
        let shape = |name: &str| {
            let found = tensors.iter().find(|(known, _)| known == name);
            found.map(|(_, shape)| shape.clone())
        };
        for kind in BiasKind::ALL {
            let path = kind.module_path(1);
            let weight = shape(&format!("{path}.weight"));
            let weight = weight.unwrap_or_else(|| panic!("{path} is no module"));
            assert_eq!(weight[0], kind.width(&config), "{path}");
            assert_eq!(weight.len() == 1, kind.is_norm(), "{path}");
            let bias = shape(&format!("{path}.bias"));
            assert_eq!(bias.is_some(), kind.in_qwen2(), "{path}");
        }
    }

    #[test]
    fn settings_name_a_kind_as_its_module() {
        // Any format of serde will do; this one needs no other crate.
        use serde::de::{IntoDeserializer, value::Error};
        for kind in BiasKind::ALL {
            let name: serde::de::value::StrDeserializer<'_, Error> =
                kind.name().into_deserializer();
            assert_eq!(BiasKind::deserialize(name).unwrap(), kind);
            assert_eq!(kind.to_string(), kind.name());
        }
    }
}
