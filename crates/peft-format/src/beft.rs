//! `BEFT`: which biases a folder holds, under which names, and how far each moved.

use std::collections::BTreeSet;

use burn_peft::LayerModule;
use serde::{Deserialize, Serialize};

use crate::fields::Fields;
use crate::folder::AdapterFolder;
use crate::{Error, MethodOptions};

/// The fields of `BEFT`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BeftOptions {
    /// The modules that got a bias. PEFT's default for Qwen2: `v_proj`.
    pub target_modules: TargetModules,
    /// Whether the biases started at zero. PEFT's default: true.
    pub init_weights: bool,
}

/// PEFT's `target_modules`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "neither a list of module names nor a regular expression"
)]
pub enum TargetModules {
    /// Paths of modules, or ends of paths.
    Names(Vec<String>),
    /// A regular expression over paths. It is kept and not evaluated: which modules it found, the
    /// names of the tensors say.
    Pattern(String),
}

impl BeftOptions {
    /// With PEFT's defaults for Qwen2.
    pub fn new() -> Self {
        Self {
            target_modules: TargetModules::Names(vec!["v_proj".into()]),
            init_weights: true,
        }
    }

    /// On the three projections that have a bias in Qwen2: together the function BitFit trains.
    pub fn bitfit() -> Self {
        let names = [LayerModule::QProj, LayerModule::KProj, LayerModule::VProj];
        Self {
            target_modules: TargetModules::Names(names.map(|kind| kind.name().into()).into()),
            ..Self::new()
        }
    }

    /// On the biases of `kinds` in `layers`, of a base with `num_layers` of them.
    pub fn on(
        kinds: &[LayerModule],
        layers: impl IntoIterator<Item = usize>,
        num_layers: usize,
    ) -> Self {
        let biases = layers
            .into_iter()
            .flat_map(|layer| kinds.iter().map(move |&kind| (layer, kind)))
            .collect();
        Self {
            target_modules: TargetModules::Names(target_modules(&biases, num_layers)),
            ..Self::new()
        }
    }

    pub(crate) fn read(fields: &mut Fields<'_>) -> Result<Self, Error> {
        let default = Self::new();
        Ok(Self {
            target_modules: fields.or("target_modules", default.target_modules)?,
            init_weights: fields.or("init_weights", default.init_weights)?,
        })
    }

    /// The kinds among the targets that PEFT's BEFT does not have: the norms, for it knows only
    /// linear layers. PEFT 0.21 refuses the whole folder because of one of them.
    pub fn beyond_peft(&self) -> Vec<LayerModule> {
        let TargetModules::Names(names) = &self.target_modules else {
            return Vec::new();
        };
        let named = |kind: &LayerModule| {
            let last = |name: &String| name.rsplit('.').next() == Some(kind.name());
            names.iter().any(last)
        };
        LayerModule::ALL
            .into_iter()
            .filter(|kind| kind.is_norm())
            .filter(named)
            .collect()
    }
}

impl Default for BeftOptions {
    fn default() -> Self {
        Self::new()
    }
}

/// PEFT's name of the bias that BEFT adds to a module; its shape is `[1, out]`.
pub fn beft_bias_name(layer: usize, kind: LayerModule) -> String {
    format!("base_model.model.{}.beft_bias", kind.module_path(layer))
}

/// The layer and the kind of the bias that has this name.
pub fn parse_beft_bias_name(name: &str) -> Option<(usize, LayerModule)> {
    let rest = name.strip_prefix("base_model.model.model.layers.")?;
    let layer = rest.split_once('.')?.0.parse().ok()?;
    LayerModule::ALL
        .into_iter()
        .find(|&kind| beft_bias_name(layer, kind) == name)
        .map(|kind| (layer, kind))
}

/// PEFT's `target_modules` for exactly these biases: a kind that every layer has by its name alone,
/// any other by full paths.
pub fn target_modules(biases: &BTreeSet<(usize, LayerModule)>, num_layers: usize) -> Vec<String> {
    let mut names = Vec::new();
    for kind in LayerModule::ALL {
        let layers = || biases.iter().filter(|bias| bias.1 == kind);
        if layers().count() == num_layers {
            names.push(kind.name().to_owned());
        } else {
            names.extend(layers().map(|&(layer, kind)| kind.module_path(layer)));
        }
    }
    names
}

/// How far training moved one bias.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct BiasMovement {
    /// The decoder layer.
    pub layer: usize,
    /// The module in it.
    pub kind: LayerModule,
    /// Mean of the absolute changes, `‖Δb‖₁ / dim(b)` (Ben Zaken et al. 2022, §3.3).
    pub mean_abs_change: f64,
}

impl AdapterFolder {
    /// The biases of a BEFT folder, as changes to the base's, by layer and kind; empty for every
    /// other method.
    pub fn biases(&self) -> Vec<(usize, LayerModule, &[f32])> {
        if !matches!(self.config.method, MethodOptions::Beft(_)) {
            return Vec::new();
        }
        let mut biases: Vec<_> = self
            .tensors
            .iter()
            .filter_map(|(name, tensor)| {
                let (layer, kind) = parse_beft_bias_name(name)?;
                Some((layer, kind, tensor.values()))
            })
            .collect();
        biases.sort_by_key(|&(layer, kind, _)| (layer, kind));
        biases
    }

    /// How far each bias of a BEFT folder moved, by layer and kind; empty for every other method.
    ///
    /// A bias that the base does not have is measured from zero.
    pub fn bias_movement(&self) -> Vec<BiasMovement> {
        let mean_abs = |values: &[f32]| {
            let sum: f64 = values.iter().map(|value| f64::from(value.abs())).sum();
            sum / values.len().max(1) as f64
        };
        self.biases()
            .into_iter()
            .map(|(layer, kind, values)| BiasMovement {
                layer,
                kind,
                mean_abs_change: mean_abs(values),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AdapterConfig, AdapterTensor, AdapterTensors};

    fn names(options: &BeftOptions) -> Vec<&str> {
        match &options.target_modules {
            TargetModules::Names(names) => names.iter().map(String::as_str).collect(),
            TargetModules::Pattern(pattern) => panic!("{pattern}"),
        }
    }

    #[test]
    fn a_name_leads_back_to_its_layer_and_kind() {
        for kind in LayerModule::ALL {
            for layer in [0, 1, 27] {
                let name = beft_bias_name(layer, kind);
                assert_eq!(parse_beft_bias_name(&name), Some((layer, kind)));
            }
        }
        // As PEFT 0.21.2 wrote them.
        for (name, expected) in [
            (
                "base_model.model.model.layers.2.mlp.down_proj.beft_bias",
                Some((2, LayerModule::DownProj)),
            ),
            (
                "base_model.model.model.layers.10.self_attn.o_proj.beft_bias",
                Some((10, LayerModule::OProj)),
            ),
            ("base_model.model.lm_head.beft_bias", None),
            (
                "base_model.model.model.layers.2.self_attn.down_proj.beft_bias",
                None,
            ),
            (
                "base_model.model.model.layers.02.mlp.down_proj.beft_bias",
                None,
            ),
            (
                "base_model.model.model.layers.+2.mlp.down_proj.beft_bias",
                None,
            ),
            ("base_model.model.model.layers.2.mlp.down_proj", None),
        ] {
            assert_eq!(parse_beft_bias_name(name), expected, "{name}");
        }
    }

    #[test]
    fn targets_are_names_where_all_layers_have_the_kind_and_paths_elsewhere() {
        let kinds = [LayerModule::VProj, LayerModule::GateProj];
        assert_eq!(
            names(&BeftOptions::on(&kinds, 0..3, 3)),
            ["v_proj", "gate_proj"]
        );
        assert_eq!(
            names(&BeftOptions::on(&kinds, 1..3, 3)),
            [
                "model.layers.1.self_attn.v_proj",
                "model.layers.2.self_attn.v_proj",
                "model.layers.1.mlp.gate_proj",
                "model.layers.2.mlp.gate_proj",
            ]
        );
        let mixed = BTreeSet::from([
            (0, LayerModule::VProj),
            (1, LayerModule::VProj),
            (1, LayerModule::KProj),
        ]);
        assert_eq!(
            target_modules(&mixed, 2),
            ["model.layers.1.self_attn.k_proj", "v_proj"]
        );
    }

    #[test]
    fn only_norms_are_beyond_peft() {
        assert!(
            BeftOptions::on(&LayerModule::ALL[..7], 0..2, 4)
                .beyond_peft()
                .is_empty()
        );
        let norm = LayerModule::PostAttentionLayernorm;
        for layers in [0..2, 0..1] {
            let options = BeftOptions::on(&[LayerModule::QProj, norm], layers, 2);
            assert_eq!(options.beyond_peft(), [norm], "{options:?}");
        }
    }

    #[test]
    fn movement_is_the_mean_absolute_change() {
        let mut tensors = AdapterTensors::new();
        for (layer, kind, values) in [
            (1, LayerModule::QProj, vec![1.0, -3.0]),
            (0, LayerModule::VProj, vec![0.5, 0.0, -0.25, 0.25]),
            (0, LayerModule::QProj, vec![0.0, 0.0]),
        ] {
            let tensor = AdapterTensor::new([1, values.len()], values);
            tensors.insert(beft_bias_name(layer, kind), tensor);
        }
        let method = MethodOptions::Beft(BeftOptions::bitfit());
        let folder = AdapterFolder {
            config: AdapterConfig::new(method, None),
            tensors,
        };
        let found: Vec<_> = folder
            .bias_movement()
            .into_iter()
            .map(|moved| (moved.layer, moved.kind, moved.mean_abs_change))
            .collect();
        assert_eq!(
            found,
            [
                (0, LayerModule::QProj, 0.0),
                (0, LayerModule::VProj, 0.25),
                (1, LayerModule::QProj, 2.0),
            ]
        );
    }
}
