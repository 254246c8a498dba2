//! The modules of a decoder layer: one table of their names and sizes.

use std::fmt;

use serde::{Deserialize, Serialize};

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
pub(crate) enum Width {
    /// `d_model`.
    Hidden,
    /// `n_heads · head_dim`.
    Query,
    /// `n_kv_heads · head_dim`.
    Kv,
    /// `intermediate_size`.
    Inner,
}

/// One line of the table.
pub(crate) struct Row {
    /// Path within the layer.
    path: &'static str,
    pub(crate) output: Width,
    /// `None` for a norm, which has one weight for each output.
    pub(crate) input: Option<Width>,
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
    pub(crate) fn row(self) -> Row {
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

    /// The projections of attention's input, which share it.
    pub const QKV: [Self; 3] = [Self::QProj, Self::KProj, Self::VProj];

    /// The module's path in a checkpoint, such as `model.layers.3.self_attn.q_proj`.
    #[must_use]
    pub fn module_path(self, layer: usize) -> String {
        layer_path(layer, self.path())
    }

    /// Whether the module is a norm; the others are linear layers.
    #[must_use]
    pub fn is_norm(self) -> bool {
        self.row().input.is_none()
    }
}

impl fmt::Display for LayerModule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The path of a module in a checkpoint, by its layer and its path within it.
pub(crate) fn layer_path(layer: usize, path: &str) -> String {
    format!("model.layers.{layer}.{path}")
}

#[cfg(test)]
mod tests {
    use super::*;

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
