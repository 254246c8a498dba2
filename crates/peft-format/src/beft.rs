//! The tensors of `BEFT`: which biases a folder holds, and under which names.

use std::collections::BTreeSet;

use burn_peft::LayerModule;
use fancy_regex::Regex;
use serde::{Deserialize, Serialize};

use crate::folder::AdapterFolder;
use crate::method::MethodOptions;
use crate::task::{CAUSAL_BACKBONE, QUESTION_BACKBONE};

/// PEFT's `target_modules`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "neither a list of module names nor a regular expression"
)]
pub enum TargetModules {
    /// Paths of modules, or ends of paths.
    Names(Vec<String>),
    /// A regular expression over whole paths, or `all-linear`.
    Pattern(String),
}

/// Layers and modules.
pub(crate) type Biases = BTreeSet<(usize, LayerModule)>;

/// PEFT's word for all linear layers but the head.
const ALL_LINEAR: &str = "all-linear";

impl TargetModules {
    /// The names of exactly these biases: a module of which every layer has one by its name alone, any other by
    /// full paths.
    pub(crate) fn of(biases: &Biases, num_layers: usize) -> Self {
        let mut names = Vec::new();
        for module in LayerModule::ALL {
            let layers = || biases.iter().filter(|bias| bias.1 == module);
            if layers().count() == num_layers {
                names.push(module.name().to_owned());
            } else {
                names.extend(layers().map(|&(layer, module)| module.module_path(layer)));
            }
        }
        Self::Names(names)
    }

    /// Those of `modules` that are targeted, in a model that holds the decoder under the name `backbone`, and the
    /// targets that name none of them. As PEFT matches: a name is a path or the end of one, and a pattern is
    /// the whole of a path.
    ///
    /// # Errors
    /// Why the pattern cannot be used.
    pub(crate) fn among(
        &self,
        modules: &[(usize, LayerModule)],
        backbone: &str,
    ) -> Result<(Biases, Vec<&str>), String> {
        let (mut found, mut naming_none) = (Biases::new(), Vec::new());
        let mut add = |target, named: Vec<(usize, LayerModule)>| {
            if named.is_empty() {
                naming_none.push(target);
            }
            found.extend(named);
        };
        match self {
            Self::Names(names) => {
                for name in names {
                    let end = format!(".{name}");
                    let is_named = |(layer, module): &&(usize, LayerModule)| {
                        let path = module_path(backbone, *layer, *module);
                        path == *name || path.ends_with(&end)
                    };
                    add(
                        name.as_str(),
                        modules.iter().filter(is_named).copied().collect(),
                    );
                }
            }
            Self::Pattern(pattern) if pattern.eq_ignore_ascii_case(ALL_LINEAR) => {
                let linear = modules.iter().filter(|(_, module)| !module.is_norm());
                add(pattern.as_str(), linear.copied().collect());
            }
            Self::Pattern(pattern) => add(pattern.as_str(), matched(pattern, modules, backbone)?),
        }
        Ok((found, naming_none))
    }

    /// The modules that some name ends in. A pattern names none.
    pub(crate) fn named(&self) -> Vec<LayerModule> {
        let Self::Names(names) = self else {
            return Vec::new();
        };
        let is_named = |module: &LayerModule| {
            let ends_in = |name: &String| name.rsplit('.').next() == Some(module.name());
            names.iter().any(ends_in)
        };
        LayerModule::ALL.into_iter().filter(is_named).collect()
    }
}

/// The modules whose whole path matches, as `re.fullmatch` of Python has it.
fn matched(
    pattern: &str,
    modules: &[(usize, LayerModule)],
    backbone: &str,
) -> Result<Vec<(usize, LayerModule)>, String> {
    // Most errors of the library have several lines, with the pattern and a mark below it.
    let reason = |error: fancy_regex::Error| {
        let text = error.to_string();
        text.lines().last().unwrap_or_default().trim().to_owned()
    };
    // What it opens, it closes: `a)(b` is none, although it would be one in parentheses.
    Regex::new(pattern).map_err(reason)?;
    let whole = Regex::new(&format!(r"\A(?:{pattern})\z")).map_err(reason)?;
    let mut found = Vec::new();
    for (layer, module) in modules {
        if whole
            .is_match(&module_path(backbone, *layer, *module))
            .map_err(reason)?
        {
            found.push((*layer, *module));
        }
    }
    Ok(found)
}

/// The path of a module in a model that holds the decoder under the name `backbone`.
fn module_path(backbone: &str, layer: usize, module: LayerModule) -> String {
    in_backbone(&module.module_path(layer), backbone).unwrap_or_default()
}

/// A path of a causal model in one that holds the decoder under another name.
fn in_backbone(path: &str, backbone: &str) -> Option<String> {
    let rest = path.strip_prefix(CAUSAL_BACKBONE)?;
    rest.starts_with('.').then(|| format!("{backbone}{rest}"))
}

/// PEFT's name of the bias that BEFT adds to a module; its shape is `[1, d_out]`.
pub(crate) fn beft_bias_name(backbone: &str, layer: usize, module: LayerModule) -> String {
    let path = module_path(backbone, layer, module);
    format!("base_model.model.{path}.beft_bias")
}

/// The layer and the module of the bias that has this name, whatever the task.
pub fn parse_beft_bias_name(name: &str) -> Option<(usize, LayerModule)> {
    let (backbone, rest) = name.strip_prefix("base_model.model.")?.split_once('.')?;
    if ![CAUSAL_BACKBONE, QUESTION_BACKBONE].contains(&backbone) {
        return None;
    }
    let layer = rest.strip_prefix("layers.")?.split_once('.')?.0;
    let layer = layer.parse().ok()?;
    LayerModule::ALL
        .into_iter()
        .find(|&module| beft_bias_name(backbone, layer, module) == name)
        .map(|module| (layer, module))
}

/// Gives the biases of a causal model, and the paths that target them, their names in a model that holds the
/// decoder under the name `backbone`.
pub(crate) fn rename_backbone(folder: &mut AdapterFolder, backbone: &str) {
    let MethodOptions::Beft(options) = &mut folder.config.method else {
        return;
    };
    if let TargetModules::Names(names) = &mut options.target_modules {
        for name in names {
            if let Some(renamed) = in_backbone(name, backbone) {
                *name = renamed;
            }
        }
    }
    folder.tensors.rename(|name| {
        let (layer, module) = parse_beft_bias_name(name)?;
        Some(beft_bias_name(backbone, layer, module))
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_leads_back_to_its_layer_and_module() {
        for module in LayerModule::ALL {
            for layer in [0, 1, 27] {
                for backbone in [CAUSAL_BACKBONE, QUESTION_BACKBONE] {
                    let name = beft_bias_name(backbone, layer, module);
                    assert_eq!(parse_beft_bias_name(&name), Some((layer, module)));
                }
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
            (
                "base_model.model.transformer.layers.0.self_attn.q_proj.beft_bias",
                Some((0, LayerModule::QProj)),
            ),
            (
                "base_model.model.decoder.layers.0.self_attn.q_proj.beft_bias",
                None,
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
    fn targets_are_names_where_all_layers_have_the_module_and_paths_elsewhere() {
        use LayerModule::{GateProj, KProj, VProj};
        let all = |layers: std::ops::Range<usize>| {
            let of_layer = |layer| [(layer, VProj), (layer, GateProj)];
            layers.flat_map(of_layer).collect()
        };
        let names = |biases, num_layers| match TargetModules::of(&biases, num_layers) {
            TargetModules::Names(names) => names,
            TargetModules::Pattern(pattern) => panic!("{pattern}"),
        };
        assert_eq!(names(all(0..3), 3), ["v_proj", "gate_proj"]);
        assert_eq!(
            names(all(1..3), 3),
            [
                "model.layers.1.self_attn.v_proj",
                "model.layers.2.self_attn.v_proj",
                "model.layers.1.mlp.gate_proj",
                "model.layers.2.mlp.gate_proj",
            ]
        );
        let mixed = BTreeSet::from([(0, VProj), (1, VProj), (1, KProj)]);
        assert_eq!(
            names(mixed, 2),
            ["model.layers.1.self_attn.k_proj", "v_proj"]
        );
    }

    #[test]
    fn targets_name_modules_alone_and_in_paths() {
        let norm = LayerModule::PostAttentionLayernorm;
        for layers in [0..2, 0..1] {
            let biases = layers.flat_map(|layer| [(layer, LayerModule::QProj), (layer, norm)]);
            let targets = TargetModules::of(&biases.collect(), 2);
            assert_eq!(targets.named(), [LayerModule::QProj, norm], "{targets:?}");
        }
        assert!(TargetModules::Pattern("q_proj".into()).named().is_empty());
    }

    #[test]
    fn a_pattern_is_the_whole_of_a_path() {
        use LayerModule::{KProj, QProj, VProj};
        let of_layer = |layer| LayerModule::ALL.map(|module| (layer, module));
        let all: Vec<_> = (0..2).flat_map(of_layer).collect();
        let among = |pattern: &str| {
            let targets = TargetModules::Pattern(pattern.into());
            let (found, none) = targets.among(&all, CAUSAL_BACKBONE).expect(pattern);
            assert_eq!(found.is_empty(), !none.is_empty(), "{pattern}");
            Vec::from_iter(found)
        };
        let keys = [(0, KProj), (1, KProj)];
        // What Python's re.fullmatch finds.
        for (pattern, expected) in [
            (r".*k_proj", &keys[..]),
            (r".*\.k_proj", &keys),
            (r"model\.layers\.\d+\.self_attn\.(k_proj)", &keys),
            (r".*layers\.1\..*(q|v)_proj", &[(1, QProj), (1, VProj)]),
            (r".*(?<!\.1)\.self_attn\.k_proj", &keys[..1]),
            (r"(?i).*K_PROJ", &keys),
            ("k_proj", &[]),
            (r".*k_pro", &[]),
            (r".*k_pro|.*k_proj", &keys),
            ("^.*k_proj$", &keys),
        ] {
            assert_eq!(among(pattern), expected, "{pattern}");
        }
        assert_eq!(among("all-linear").len(), 14);
        for broken in ["(", "a)(b", "*", "[k", r"(?P<a"] {
            let targets = TargetModules::Pattern(broken.into());
            let reason = targets.among(&all, CAUSAL_BACKBONE).expect_err(broken);
            assert!(!reason.is_empty() && !reason.contains('\n'), "{reason:?}");
        }
    }
}
