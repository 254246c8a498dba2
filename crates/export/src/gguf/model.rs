//! The architecture and its tensors, under llama.cpp's names.

use std::path::Path;

use burn_peft_decoder::{Checkpoint, DecoderConfig, Family, LayerModule, RopeScaling};

use super::{
    cannot,
    file::{Header, Value},
    numbers::GgufType,
};
use crate::Error;

/// Values of a tensor that are in memory at once.
const PIECE: usize = 1 << 18;

/// What each tensor of a layer is called there.
const OF_LAYER: [(&str, &str); 11] = [
    ("input_layernorm", "attn_norm"),
    ("self_attn.q_proj", Q_PROJ),
    ("self_attn.k_proj", K_PROJ),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.o_proj", O_PROJ),
    ("self_attn.q_norm", "attn_q_norm"),
    ("self_attn.k_norm", "attn_k_norm"),
    ("post_attention_layernorm", "ffn_norm"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
];
const Q_PROJ: &str = "attn_q";
const K_PROJ: &str = "attn_k";
const O_PROJ: &str = "attn_output";

/// A tensor of the file.
pub(super) struct Tensor {
    pub(super) name: String,
    pub(super) shape: Vec<usize>,
    pub(super) element: GgufType,
    source: Source,
}

/// Where its values come from.
enum Source {
    /// A tensor of the checkpoint.
    Rows(String),
    /// A tensor of the checkpoint whose rows are those of heads of this width, halves of which are turned against each other.
    /// llama.cpp's Llama turns neighbours, so the rows of a head are interleaved.
    Heads(String, usize),
    Values(Vec<f32>),
}

/// Writes the architecture to the header. `path` is for messages.
///
/// # Errors
/// What llama.cpp does not compute in this family.
pub(super) fn describe(
    config: &DecoderConfig,
    path: &Path,
    to: GgufType,
    header: &mut Header,
) -> Result<(), Error> {
    let refuse = |what: String| Err(cannot(path, &what));
    // What llama.cpp calls a family is its `model_type`, for these three.
    let family = config.family.model_type();
    if config.rope_scaling.is_some() && config.family != Family::Llama {
        return refuse(format!(
            "llama.cpp has no rotary scaling of Llama 3 in {family}"
        ));
    }
    if config.family == Family::Qwen2 && config.query_width() != config.hidden_size {
        return refuse(format!(
            "llama.cpp's {family} has queries as wide as the model, {}, and not {}",
            config.hidden_size,
            config.query_width()
        ));
    }
    header.set("general.architecture", Value::text(family));
    header.set("general.file_type", Value::U32(to.file_type()));
    header.set("general.quantization_version", Value::U32(2));
    let sizes = [
        ("block_count", config.num_hidden_layers),
        ("context_length", config.max_position_embeddings),
        ("embedding_length", config.hidden_size),
        ("feed_forward_length", config.intermediate_size),
        ("attention.head_count", config.num_attention_heads),
        ("attention.head_count_kv", config.num_key_value_heads),
        ("attention.key_length", config.head_dim),
        ("attention.value_length", config.head_dim),
        ("rope.dimension_count", config.head_dim),
        ("vocab_size", config.vocab_size),
    ];
    for (key, size) in sizes {
        header.set(&format!("{family}.{key}"), Value::size(size));
    }
    for (key, number) in [
        ("rope.freq_base", config.rope_theta),
        ("attention.layer_norm_rms_epsilon", config.rms_norm_eps),
    ] {
        header.set(&format!("{family}.{key}"), Value::F32(number as f32));
    }
    Ok(())
}

/// The tensors of the file, in its order. `path` is for messages.
///
/// # Errors
/// A bias that llama.cpp has no place for, unless it is zero, and what reading can meet.
pub(super) fn tensors(
    checkpoint: &Checkpoint,
    path: &Path,
    to: GgufType,
) -> Result<Vec<Tensor>, Error> {
    let config = checkpoint.config();
    let mut tensors = Vec::new();
    if let Some(scaling) = &config.rope_scaling {
        let values = rope_factors(config, scaling);
        tensors.push(Tensor {
            name: "rope_freqs.weight".to_owned(),
            shape: vec![values.len()],
            element: GgufType::F32,
            source: Source::Values(values),
        });
    }
    for (source, shape) in config.tensor_shapes() {
        let name = name_of(&source);
        let is = |module: &str, kind: &str| name.ends_with(&format!(".{module}.{kind}"));
        if config.family == Family::Qwen3 && is(O_PROJ, "bias") {
            // `attention_bias` asks for it beside the others, so it may be there for their sake.
            if checkpoint
                .read_rows(&source, 0..shape[0])?
                .iter()
                .any(|value| *value != 0.0)
            {
                let what = format!(
                    "llama.cpp's qwen3 has no place for biases of `{}`",
                    LayerModule::OProj
                );
                return Err(cannot(path, &what));
            }
            continue;
        }
        let is_turned = [Q_PROJ, K_PROJ]
            .iter()
            .any(|module| is(module, "weight") || is(module, "bias"));
        tensors.push(Tensor {
            element: to.of_tensor(&shape),
            shape,
            source: match config.family == Family::Llama && is_turned {
                true => Source::Heads(source, config.head_dim),
                false => Source::Rows(source),
            },
            name,
        });
    }
    Ok(tensors)
}

/// What a tensor of a checkpoint is called in the file.
fn name_of(source: &str) -> String {
    let of_layer = || {
        let rest = source.strip_prefix("model.layers.")?;
        let (layer, rest) = rest.split_once('.')?;
        let (path, kind) = rest.rsplit_once('.')?;
        let (_, name) = OF_LAYER.iter().find(|(known, _)| *known == path)?;
        Some(format!("blk.{layer}.{name}.{kind}"))
    };
    match source {
        "model.embed_tokens.weight" => "token_embd.weight".to_owned(),
        "model.norm.weight" => "output_norm.weight".to_owned(),
        "lm_head.weight" => "output.weight".to_owned(),
        _ => of_layer().unwrap_or_else(|| panic!("`{source}` is no tensor of these families")),
    }
}

/// What each rotary frequency is divided by, `[head_dim / 2]`.
fn rope_factors(config: &DecoderConfig, scaling: &RopeScaling) -> Vec<f32> {
    let pairs = 0..config.head_dim / 2;
    let factor = |pair: usize| {
        let exponent = -2.0 * pair as f64 / config.head_dim as f64;
        let frequency = config.rope_theta.powf(exponent);
        (frequency / scaling.stretch(frequency)) as f32
    };
    pairs.map(factor).collect()
}

impl Tensor {
    /// Hands out the bytes of the tensor in pieces. `path` is for messages.
    ///
    /// # Errors
    /// Those of reading, and a value that the type does not hold.
    pub(super) fn pieces(
        &self,
        checkpoint: &Checkpoint,
        path: &Path,
        take: &mut dyn FnMut(&[u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut put = |values: &[f32]| {
            let bytes = self.element.encode(values).ok_or_else(|| Error::CannotExport {
                path: path.to_owned(),
                reason: format!(
                    "{} has values that are too large for {:?}; --outtype f32 and bf16 hold more",
                    self.name, self.element
                ),
            })?;
            take(&bytes)
        };
        let (name, at_once) = match &self.source {
            Source::Values(values) => return put(values),
            Source::Heads(name, head_dim) => (name, *head_dim),
            Source::Rows(name) => {
                let width: usize = self.shape[1..].iter().product();
                (name, (PIECE / width).max(1))
            }
        };
        let rows = self.shape[0];
        for start in (0..rows).step_by(at_once) {
            let values = checkpoint.read_rows(name, start..rows.min(start + at_once))?;
            match self.source {
                Source::Heads(..) => put(&interleaved(&values, at_once))?,
                _ => put(&values)?,
            }
        }
        Ok(())
    }
}

/// The rows of a head, one of its first half and one of its second in turn.
fn interleaved(values: &[f32], rows: usize) -> Vec<f32> {
    let width = values.len() / rows;
    let row = |index: usize| &values[index * width..][..width];
    let half = rows / 2;
    (0..half)
        .flat_map(|index| [row(index), row(half + index)])
        .flatten()
        .copied()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_of_a_head_become_neighbours() {
        let rows = [0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5];
        assert_eq!(
            interleaved(&rows, 4),
            [0.0, 0.5, 2.0, 2.5, 1.0, 1.5, 3.0, 3.5]
        );
    }

    #[test]
    fn every_tensor_has_a_name_of_its_own() {
        for (family, keys) in [
            ("qwen2", ""),
            ("qwen3", r#", "attention_bias": true"#),
            ("llama", r#", "attention_bias": true, "mlp_bias": true"#),
        ] {
            let text = format!(
                r#"{{"model_type": "{family}", "vocab_size": 32, "hidden_size": 16, "intermediate_size": 40,
                    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 4{keys}}}"#
            );
            let config = DecoderConfig::parse(&text, "config.json").unwrap();
            let shapes = config.tensor_shapes();
            let mut names: Vec<_> = shapes.iter().map(|(name, _)| name_of(name)).collect();
            names.sort();
            names.dedup();
            assert_eq!(names.len(), shapes.len());
            assert!(names.contains(&"blk.1.ffn_down.weight".to_owned()));
        }
    }
}
