//! Whether an adapter fits a base model.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use burn_peft::{LayerModule, PrefixHeads};

use crate::beft::{BeftOptions, TargetModules, beft_bias_name};
use crate::folder::AdapterFolder;
use crate::method::{MethodOptions, VirtualTokenOptions};
use crate::tensors::PROMPT_EMBEDDINGS;
use crate::{Error, Problem};

/// The sizes of a base model that an adapter's shapes depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BaseDims {
    /// Width of the hidden states, `d_model`.
    pub hidden_size: usize,
    /// Width of the gated feed-forward layer.
    pub intermediate_size: usize,
    /// Decoder layers.
    pub num_layers: usize,
    /// Query heads.
    pub num_heads: usize,
    /// Key/value heads.
    pub num_kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Rows of the embedding table.
    pub vocab_size: usize,
}

impl BaseDims {
    /// A configuration of these sizes.
    pub(crate) fn config(&self) -> burn_peft_decoder::DecoderConfig {
        burn_peft_decoder::DecoderConfig {
            vocab_size: self.vocab_size,
            hidden_size: self.hidden_size,
            intermediate_size: self.intermediate_size,
            num_hidden_layers: self.num_layers,
            num_attention_heads: self.num_heads,
            num_key_value_heads: self.num_kv_heads,
            head_dim: self.head_dim,
            ..burn_peft_decoder::DecoderConfig::named("qwen2.5-0.5b").expect("a known name")
        }
    }
}

impl BaseDims {
    /// Columns of a prefix: a key and a value of every layer.
    pub fn prefix_width(&self, heads: PrefixHeads) -> usize {
        let heads = match heads {
            PrefixHeads::Kv => self.num_kv_heads,
            PrefixHeads::Attention => self.num_heads,
        };
        self.num_layers * 2 * heads * self.head_dim
    }
}

impl AdapterFolder {
    /// Checks names and shapes of the tensors, and the sizes in the configuration, against a base model.
    ///
    /// `path` is for the message.
    ///
    /// # Errors
    /// [`Error::DoesNotFit`] with everything that is wrong, at once.
    pub fn check(&self, dims: &BaseDims, path: &Path) -> Result<(), Error> {
        let mut problems = Vec::new();
        let expected = match &self.config.method {
            MethodOptions::PromptTuning(_) | MethodOptions::PTuning(_) => {
                self.prompt_shapes(&[(dims.hidden_size, dims.hidden_size)], dims, &mut problems)
            }
            MethodOptions::PrefixTuning(options) => {
                let widths =
                    [PrefixHeads::Kv, PrefixHeads::Attention].map(|heads| dims.prefix_width(heads));
                // The same for both where every query head has its own key: then one shape is enough.
                let mut layouts = widths
                    .map(|width| (width / (2 * dims.num_layers).max(1), width))
                    .to_vec();
                layouts.dedup();
                let token_dim = options.virtual_tokens.token_dim;
                heads_problem(&options.virtual_tokens, dims, &mut problems);
                if let Some(layout) = layouts.iter().find(|layout| Some(layout.0) == token_dim) {
                    layouts = vec![*layout];
                }
                self.prompt_shapes(&layouts, dims, &mut problems)
            }
            MethodOptions::Beft(options) => self.bias_shapes(options, dims, &mut problems),
        };
        self.compare_tensors(expected, &mut problems);
        if problems.is_empty() {
            Ok(())
        } else {
            Err(Error::DoesNotFit {
                path: path.into(),
                problems,
            })
        }
    }

    /// How many heads the keys of this prefix have, by the width of its tensor.
    ///
    /// None if it is no prefix or fits neither way; where the base's heads are not grouped, both are the same.
    pub fn prefix_heads(&self, dims: &BaseDims) -> Option<PrefixHeads> {
        let MethodOptions::PrefixTuning(_) = &self.config.method else {
            return None;
        };
        let width = *self.tensors.get(PROMPT_EMBEDDINGS)?.shape().get(1)?;
        [PrefixHeads::Kv, PrefixHeads::Attention]
            .into_iter()
            .find(|&heads| dims.prefix_width(heads) == width)
    }

    /// The shapes `prompt_embeddings` may have, of layouts `(token_dim, columns)`, and what of the virtual tokens'
    /// fields contradicts them.
    fn prompt_shapes(
        &self,
        layouts: &[(usize, usize)],
        dims: &BaseDims,
        problems: &mut Vec<Problem>,
    ) -> Shapes {
        let Some(tokens) = self.config.method.virtual_tokens() else {
            return Shapes::new();
        };
        let mut differs = |field, found: usize, expected: String| {
            problems.push(Problem::Field {
                field,
                found: found.to_string(),
                expected,
            });
        };
        if tokens.num_virtual_tokens == 0 {
            differs("num_virtual_tokens", 0, "at least 1".into());
        }
        if let Some(found) = tokens
            .num_transformer_submodules
            .filter(|&found| found != 1)
        {
            differs("num_transformer_submodules", found, "1".into());
        }
        if let Some(found) = tokens.num_layers.filter(|&found| found != dims.num_layers) {
            differs("num_layers", found, dims.num_layers.to_string());
        }
        if let Some(found) = tokens
            .token_dim
            .filter(|found| layouts.iter().all(|layout| layout.0 != *found))
        {
            let expected: Vec<_> = layouts.iter().map(|layout| layout.0.to_string()).collect();
            differs("token_dim", found, expected.join(" or "));
        }
        let shapes = layouts
            .iter()
            .map(|layout| vec![tokens.num_virtual_tokens, layout.1])
            .collect();
        Shapes::from([(PROMPT_EMBEDDINGS.to_string(), shapes)])
    }

    /// One bias for every module that `target_modules` names: by its path, or by the end of it, as PEFT matches.
    fn bias_shapes(
        &self,
        options: &BeftOptions,
        dims: &BaseDims,
        problems: &mut Vec<Problem>,
    ) -> Shapes {
        let every: Vec<_> = (0..dims.num_layers)
            .flat_map(|layer| LayerModule::ALL.map(|kind| (layer, kind)))
            .collect();
        let unmatched = |target: &str| Problem::Field {
            field: "target_modules",
            found: format!("`{target}`"),
            expected: format!(
                "any of {} in layers 0 to {}",
                LayerModule::ALL.map(LayerModule::name).join(", "),
                dims.num_layers.saturating_sub(1)
            ),
        };
        let mut biases = BTreeSet::new();
        let mut expect = |target: &str, named: &dyn Fn(&(usize, LayerModule)) -> bool| {
            let matched: Vec<_> = every.iter().copied().filter(named).collect();
            if matched.is_empty() {
                problems.push(unmatched(target));
            }
            biases.extend(matched);
        };
        match &options.target_modules {
            TargetModules::Names(names) => {
                for target in names {
                    let end = format!(".{target}");
                    expect(target, &|(layer, kind)| {
                        let path = kind.module_path(*layer);
                        path == *target || path.ends_with(&end)
                    });
                }
            }
            // What it found is what the file holds.
            TargetModules::Pattern(pattern) => expect(pattern, &|&(layer, kind)| {
                self.tensors.get(&beft_bias_name(layer, kind)).is_some()
            }),
        }
        biases
            .into_iter()
            .map(|(layer, kind)| {
                let shape = vec![1, kind.width(&dims.config())];
                (beft_bias_name(layer, kind), vec![shape])
            })
            .collect()
    }

    fn compare_tensors(&self, mut expected: Shapes, problems: &mut Vec<Problem>) {
        for (name, tensor) in self.tensors.iter() {
            let (name, found) = (name.to_string(), tensor.shape().to_vec());
            match expected.remove(&name) {
                None => problems.push(Problem::Unexpected { name, found }),
                Some(shapes) if !shapes.contains(&found) => {
                    problems.push(Problem::Shape {
                        name,
                        found,
                        expected: shapes,
                    });
                }
                Some(_) => {}
            }
        }
        problems.extend(
            expected
                .into_iter()
                .map(|(name, expected)| Problem::Missing { name, expected }),
        );
    }
}

/// Tensor name → the shapes it may have.
type Shapes = BTreeMap<String, Vec<Vec<usize>>>;

/// PEFT splits a prefix's `token_dim` into `num_attention_heads`; another split is another head width.
fn heads_problem(tokens: &VirtualTokenOptions, dims: &BaseDims, problems: &mut Vec<Problem>) {
    if let (Some(width), Some(heads)) = (tokens.token_dim, tokens.num_attention_heads)
        && [dims.num_kv_heads, dims.num_heads]
            .map(|heads| heads * dims.head_dim)
            .contains(&width)
        && heads.checked_mul(dims.head_dim) != Some(width)
    {
        let expected = (width / dims.head_dim.max(1)).to_string();
        problems.push(Problem::Field {
            field: "num_attention_heads",
            found: heads.to_string(),
            expected,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        AdapterConfig, AdapterTensor, AdapterTensors, PTuningOptions, PrefixTuningOptions,
        PromptTuningOptions,
    };

    const DIMS: BaseDims = BaseDims {
        hidden_size: 24,
        intermediate_size: 40,
        num_layers: 2,
        num_heads: 4,
        num_kv_heads: 2,
        head_dim: 6,
        vocab_size: 32,
    };

    fn folder(method: MethodOptions, tensors: &[(&str, &[usize])]) -> AdapterFolder {
        let mut map = AdapterTensors::new();
        for (name, shape) in tensors {
            map.insert(
                *name,
                AdapterTensor::new(shape.to_vec(), vec![0.0; shape.iter().product()]),
            );
        }
        AdapterFolder {
            config: AdapterConfig::new(method, None),
            tensors: map,
        }
    }

    fn prompt(tensors: &[(&str, &[usize])]) -> AdapterFolder {
        let tokens = VirtualTokenOptions::prompt(3, &DIMS);
        folder(
            MethodOptions::PromptTuning(PromptTuningOptions::new(tokens)),
            tensors,
        )
    }

    fn prefix(tokens: VirtualTokenOptions, columns: usize) -> AdapterFolder {
        let method = MethodOptions::PrefixTuning(PrefixTuningOptions::new(tokens));
        folder(method, &[(PROMPT_EMBEDDINGS, &[3, columns])])
    }

    fn problems(folder: &AdapterFolder) -> Vec<String> {
        match folder.check(&DIMS, Path::new("a")) {
            Ok(()) => Vec::new(),
            Err(Error::DoesNotFit { problems, .. }) => {
                problems.iter().map(Problem::to_string).collect()
            }
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn prompts_are_as_wide_as_the_hidden_states() {
        assert!(problems(&prompt(&[(PROMPT_EMBEDDINGS, &[3, 24])])).is_empty());
        let options = PTuningOptions::new(VirtualTokenOptions::prompt(3, &DIMS));
        assert!(
            problems(&folder(
                MethodOptions::PTuning(options),
                &[(PROMPT_EMBEDDINGS, &[3, 24])]
            ))
            .is_empty()
        );
        assert_eq!(
            problems(&prompt(&[(PROMPT_EMBEDDINGS, &[4, 24])])),
            ["tensor `prompt_embeddings` has shape [4, 24], expected [3, 24]"]
        );
    }

    #[test]
    fn every_problem_is_reported_at_once() {
        let mut wrong = prompt(&[("extra", &[1]), ("prompt_embedding", &[3, 24])]);
        if let MethodOptions::PromptTuning(options) = &mut wrong.config.method {
            options.virtual_tokens.num_layers = Some(28);
            options.virtual_tokens.token_dim = Some(1536);
            options.virtual_tokens.num_transformer_submodules = Some(2);
        }
        let error = wrong.check(&DIMS, Path::new("a")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "a: the adapter does not fit the base model: `num_transformer_submodules` is 2, expected 1; \
             `num_layers` is 28, expected 2; `token_dim` is 1536, expected 24; tensor `extra` [1] is unexpected; \
             tensor `prompt_embedding` [3, 24] is unexpected; \
             tensor `prompt_embeddings` is missing, expected with shape [3, 24]"
        );
    }

    #[test]
    fn a_prefix_may_have_either_number_of_heads() {
        let grouped = prefix(VirtualTokenOptions::prefix(3, &DIMS), 48);
        assert!(problems(&grouped).is_empty());
        assert_eq!(grouped.prefix_heads(&DIMS), Some(PrefixHeads::Kv));
        let full = prefix(VirtualTokenOptions::attention_prefix(3, &DIMS), 96);
        assert!(problems(&full).is_empty());
        assert_eq!(full.prefix_heads(&DIMS), Some(PrefixHeads::Attention));
    }

    #[test]
    fn a_prefix_must_be_as_wide_as_its_configuration_says() {
        let found = problems(&prefix(VirtualTokenOptions::prefix(3, &DIMS), 96));
        assert_eq!(
            found,
            ["tensor `prompt_embeddings` has shape [3, 96], expected [3, 48]"]
        );
        let unsaid = VirtualTokenOptions {
            token_dim: None,
            ..VirtualTokenOptions::prefix(3, &DIMS)
        };
        assert!(problems(&prefix(unsaid.clone(), 96)).is_empty());
        assert_eq!(
            problems(&prefix(unsaid, 95)),
            ["tensor `prompt_embeddings` has shape [3, 95], expected [3, 48] or [3, 96]"]
        );
    }

    #[test]
    fn a_prefix_split_into_other_heads_is_refused() {
        let tokens = VirtualTokenOptions {
            num_attention_heads: Some(4),
            ..VirtualTokenOptions::prefix(3, &DIMS)
        };
        assert_eq!(
            problems(&prefix(tokens, 48)),
            ["`num_attention_heads` is 4, expected 2"]
        );
    }

    /// A BEFT folder of these targets that holds these biases, each of this width.
    fn beft(targets: &[&str], held: &[(usize, LayerModule, usize)]) -> AdapterFolder {
        let target_modules = targets.iter().map(|target| target.to_string()).collect();
        beft_with(TargetModules::Names(target_modules), held)
    }

    fn beft_with(
        target_modules: TargetModules,
        held: &[(usize, LayerModule, usize)],
    ) -> AdapterFolder {
        let method = MethodOptions::Beft(BeftOptions {
            target_modules,
            init_weights: true,
        });
        let mut folder = folder(method, &[]);
        for &(layer, kind, width) in held {
            let tensor = AdapterTensor::new([1, width], vec![0.0; width]);
            folder.tensors.insert(beft_bias_name(layer, kind), tensor);
        }
        folder
    }

    #[test]
    fn every_kind_of_bias_fits_under_its_name_and_under_its_paths() {
        for (kind, width) in LayerModule::ALL
            .into_iter()
            .zip([24, 12, 12, 24, 40, 40, 24, 24, 24])
        {
            let both = [(0, kind, width), (1, kind, width)];
            assert!(problems(&beft(&[kind.name()], &both)).is_empty(), "{kind}");
            let last = kind.module_path(1);
            assert!(problems(&beft(&[&last], &both[1..])).is_empty(), "{kind}");
            let unexpected = problems(&beft(&[&last], &both));
            assert_eq!(unexpected.len(), 1, "{kind}: {unexpected:?}");
            let missing = problems(&beft(&[kind.name()], &both[1..]));
            let name = beft_bias_name(0, kind);
            assert_eq!(
                missing,
                [format!(
                    "tensor `{name}` is missing, expected with shape [1, {width}]"
                )]
            );
        }
    }

    #[test]
    fn targets_are_ends_of_paths() {
        let both = [(0, LayerModule::KProj, 12), (1, LayerModule::KProj, 12)];
        for targets in [
            &["k_proj"][..],
            &["self_attn.k_proj"],
            &["layers.0.self_attn.k_proj", "1.self_attn.k_proj"],
            &["k_proj", "k_proj", "model.layers.1.self_attn.k_proj"],
        ] {
            assert!(problems(&beft(targets, &both)).is_empty(), "{targets:?}");
        }
        // Not an end at a dot, and a layer that is not there.
        for target in ["proj", "layers.2.self_attn.k_proj", "lm_head"] {
            let found = problems(&beft(&["k_proj", target], &both));
            assert_eq!(
                found,
                [format!(
                    "`target_modules` is `{target}`, expected any of q_proj, k_proj, v_proj, \
                     o_proj, gate_proj, up_proj, down_proj, input_layernorm, \
                     post_attention_layernorm in layers 0 to 1"
                )]
            );
        }
    }

    #[test]
    fn every_problem_of_biases_is_reported_at_once() {
        let held = [
            (0, LayerModule::QProj, 12),
            (1, LayerModule::QProj, 24),
            (2, LayerModule::UpProj, 40),
        ];
        let found = problems(&beft(&["q_proj", "up_proj", "bias"], &held));
        let named = |part: &str| found.iter().filter(|line| line.contains(part)).count();
        assert_eq!(found.len(), 5, "{found:?}");
        assert_eq!(named("has shape [1, 12], expected [1, 24]"), 1, "{found:?}");
        assert_eq!(
            named("layers.2.mlp.up_proj.beft_bias` [1, 40] is unexpected"),
            1
        );
        assert_eq!(named("up_proj.beft_bias` is missing"), 2, "{found:?}");
        assert_eq!(named("`target_modules` is `bias`"), 1, "{found:?}");
    }

    #[test]
    fn what_a_pattern_found_the_file_says() {
        let pattern = TargetModules::Pattern(r".*layers\.1\.self_attn\.(q|k)_proj".into());
        let held = [(1, LayerModule::QProj, 24), (1, LayerModule::KProj, 12)];
        assert!(problems(&beft_with(pattern.clone(), &held)).is_empty());
        let wrong = [(1, LayerModule::QProj, 12), (2, LayerModule::KProj, 12)];
        assert_eq!(problems(&beft_with(pattern.clone(), &wrong)).len(), 2);
        assert_eq!(
            problems(&beft_with(pattern, &[])).len(),
            1,
            "no bias at all"
        );
    }
}
