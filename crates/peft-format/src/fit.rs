//! Whether an adapter fits a base model.

use std::collections::BTreeMap;
use std::path::Path;

use crate::folder::AdapterFolder;
use crate::method::{MethodOptions, VirtualTokenOptions};
use crate::options::BeftOptions;
use crate::tensors::PROMPT_EMBEDDINGS;
use crate::{Error, Problem};

/// The sizes of a base model that an adapter's shapes depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BaseDims {
    /// Width of the hidden states, `d_model`.
    pub hidden_size: usize,
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

/// How many heads a prefix's keys and values have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PrefixHeads {
    /// As many as the base has key/value heads.
    KeyValue,
    /// As many as it has query heads: what PEFT wrote before it knew grouped queries.
    /// PEFT 0.21 no longer loads it where the two numbers differ.
    Attention,
}

const PROJECTIONS: [&str; 3] = ["q_proj", "k_proj", "v_proj"];

/// PEFT's name of the bias that BEFT adds to a layer's `q_proj`, `k_proj` or `v_proj`; its shape is `[1, out]`.
pub fn beft_bias_name(layer: usize, projection: &str) -> String {
    format!(
        "base_model.model.{}.beft_bias",
        module_path(layer, projection)
    )
}

fn module_path(layer: usize, projection: &str) -> String {
    format!("model.layers.{layer}.self_attn.{projection}")
}

impl BaseDims {
    /// Output width of a layer's `q_proj`, `k_proj` or `v_proj`.
    fn projection_width(&self, projection: &str) -> usize {
        let heads = if projection == "q_proj" {
            self.num_heads
        } else {
            self.num_kv_heads
        };
        heads * self.head_dim
    }

    /// Columns of a prefix: a key and a value of every layer.
    pub fn prefix_width(&self, heads: PrefixHeads) -> usize {
        let heads = match heads {
            PrefixHeads::KeyValue => self.num_kv_heads,
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
                let widths = [PrefixHeads::KeyValue, PrefixHeads::Attention]
                    .map(|heads| dims.prefix_width(heads));
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
            MethodOptions::Beft(options) => bias_shapes(options, dims, &mut problems),
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
        [PrefixHeads::KeyValue, PrefixHeads::Attention]
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

/// One bias for every projection that `target_modules` names: by its path, or by the end of it, as PEFT matches.
fn bias_shapes(options: &BeftOptions, dims: &BaseDims, problems: &mut Vec<Problem>) -> Shapes {
    let mut shapes = Shapes::new();
    for target in &options.target_modules {
        let end = format!(".{target}");
        let mut matched = false;
        for layer in 0..dims.num_layers {
            for projection in PROJECTIONS {
                let path = module_path(layer, projection);
                if path == *target || path.ends_with(&end) {
                    matched = true;
                    let shape = vec![1, dims.projection_width(projection)];
                    shapes.insert(beft_bias_name(layer, projection), vec![shape]);
                }
            }
        }
        if !matched {
            let expected = format!(
                "any of {} in layers 0 to {}",
                PROJECTIONS.join(", "),
                dims.num_layers.saturating_sub(1)
            );
            problems.push(Problem::Field {
                field: "target_modules",
                found: format!("`{target}`"),
                expected,
            });
        }
    }
    shapes
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
        assert_eq!(grouped.prefix_heads(&DIMS), Some(PrefixHeads::KeyValue));
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

    #[test]
    fn biases_follow_their_target_modules() {
        let name = |layer| beft_bias_name(layer, "k_proj");
        let (first, second) = (name(0), name(1));
        let method = |targets: &[&str]| {
            let target_modules = targets.iter().map(|target| target.to_string()).collect();
            MethodOptions::Beft(BeftOptions {
                target_modules,
                init_weights: true,
            })
        };
        let both: [(&str, &[usize]); 2] = [(&first, &[1, 12]), (&second, &[1, 12])];
        for targets in [
            &["k_proj"][..],
            &["self_attn.k_proj"],
            &["layers.0.self_attn.k_proj", "1.self_attn.k_proj"],
        ] {
            assert!(
                problems(&folder(method(targets), &both)).is_empty(),
                "{targets:?}"
            );
        }
        assert_eq!(
            problems(&folder(method(&["model.layers.1.self_attn.k_proj"]), &both)).len(),
            1
        );
        assert_eq!(
            problems(&folder(method(&["k_proj", "o_proj", "proj"]), &both)),
            [
                "`target_modules` is `o_proj`, expected any of q_proj, k_proj, v_proj in layers 0 to 1",
                "`target_modules` is `proj`, expected any of q_proj, k_proj, v_proj in layers 0 to 1",
            ]
        );
        let missing = problems(&folder(method(&["q_proj"]), &[]));
        assert_eq!(missing.len(), 2);
        assert!(missing[0].ends_with(
            "layers.0.self_attn.q_proj.beft_bias` is missing, expected with shape [1, 24]"
        ));
    }
}
