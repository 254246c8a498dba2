//! The file as it stands, before anything in it is believed.

use std::path::PathBuf;

use burn::tensor::DType;
use serde::Deserialize;

use super::{DecoderConfig, RopeScaling};
use crate::{Error, Family};

#[derive(Deserialize)]
struct RawConfig {
    model_type: Option<String>,
    #[serde(default)]
    architectures: Option<Vec<String>>,
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    rms_norm_eps: Option<f64>,
    max_position_embeddings: Option<usize>,
    #[serde(default)]
    tie_word_embeddings: bool,
    hidden_act: Option<String>,
    #[serde(default)]
    attention_bias: bool,
    #[serde(default)]
    mlp_bias: bool,
    rope_theta: Option<f64>,
    rope_scaling: Option<RopeParameters>,
    rope_parameters: Option<RopeParameters>,
    partial_rotary_factor: Option<f64>,
    original_max_position_embeddings: Option<usize>,
    #[serde(default)]
    use_sliding_window: bool,
    #[serde(default)]
    layer_types: Option<Vec<String>>,
    torch_dtype: Option<String>,
    dtype: Option<String>,
    #[serde(default)]
    quantization_config: Option<serde_json::Value>,
}

/// transformers 5's `rope_parameters`, and transformers 4's `rope_scaling`. Files may have both `type` and
/// `rope_type`: transformers reads the latter.
#[derive(Deserialize)]
struct RopeParameters {
    rope_theta: Option<f64>,
    rope_type: Option<String>,
    #[serde(rename = "type")]
    older_type: Option<String>,
    factor: Option<f64>,
    low_freq_factor: Option<f64>,
    high_freq_factor: Option<f64>,
    original_max_position_embeddings: Option<usize>,
    partial_rotary_factor: Option<f64>,
    /// transformers 5 nests the parameters for models whose layers differ.
    full_attention: Option<serde_json::Value>,
    sliding_attention: Option<serde_json::Value>,
}

/// transformers' default `rope_theta`.
const DEFAULT_ROPE_THETA: f64 = 10_000.0;
/// More than any model has. Beyond it a number is a mistake, and would only fill the memory.
const MOST_LAYERS: usize = 4096;
/// transformers' default `rms_norm_eps`.
const DEFAULT_RMS_NORM_EPS: f64 = 1e-6;

fn positive(key: &str, value: f64) -> Result<(), String> {
    match value.is_finite() && value > 0.0 {
        true => Ok(()),
        false => Err(format!("{key} {value}: it must be above 0")),
    }
}

pub(super) fn parse(text: &str, path: PathBuf) -> Result<DecoderConfig, Error> {
    let raw: RawConfig = Error::json(&path, text, "a model's configuration")?;
    raw.check()
        .map_err(|what| Error::Unsupported { path, what })
}

impl RawConfig {
    /// The configuration, or what in it is not supported.
    fn check(self) -> Result<DecoderConfig, String> {
        let family = self.family()?;
        self.refuse_what_is_not_computed()?;
        // As in transformers: the older key, where it is set, goes before the newer one.
        let rope = self.rope_scaling.as_ref().or(self.rope_parameters.as_ref());
        let partial = rope.and_then(|rope| rope.partial_rotary_factor);
        if let Some(factor) = partial.or(self.partial_rotary_factor).filter(|f| *f != 1.0) {
            return Err(format!("partial_rotary_factor {factor}; supported: 1"));
        }
        let rope_theta = rope
            .and_then(|rope| rope.rope_theta)
            .or(self.rope_theta)
            .unwrap_or(DEFAULT_ROPE_THETA);
        positive("rope_theta", rope_theta)?;
        let rms_norm_eps = self.rms_norm_eps.unwrap_or(DEFAULT_RMS_NORM_EPS);
        positive("rms_norm_eps", rms_norm_eps)?;
        let positions = self
            .max_position_embeddings
            .unwrap_or(family.default_positions());
        let n_heads = self.num_attention_heads;
        // Older files leave the key/value heads out: every query head has its own.
        let n_kv_heads = self.num_key_value_heads.unwrap_or(n_heads);
        if n_heads == 0 || n_kv_heads == 0 || !n_heads.is_multiple_of(n_kv_heads) {
            return Err(format!(
                "{n_heads} attention heads cannot share {n_kv_heads} key/value heads"
            ));
        }
        let head_dim = self.head_dim.or(family.default_head_dim());
        let head_dim = head_dim.unwrap_or(self.hidden_size / n_heads);
        if head_dim == 0 || !head_dim.is_multiple_of(2) {
            return Err(format!(
                "head_dim {head_dim}: rotary embedding needs an even one"
            ));
        }
        Ok(DecoderConfig {
            family,
            vocab_size: self.vocab_size,
            hidden_size: self.hidden_size,
            intermediate_size: self.intermediate_size,
            num_hidden_layers: self.num_hidden_layers,
            num_attention_heads: n_heads,
            num_key_value_heads: n_kv_heads,
            head_dim,
            rms_norm_eps,
            rope_theta,
            rope_scaling: match rope {
                Some(rope) => rope.scaling(self.original_max_position_embeddings, positions)?,
                None => None,
            },
            max_position_embeddings: positions,
            tie_word_embeddings: self.tie_word_embeddings,
            biases: family.biases(&self.bias_keys()),
            dtype: self.stored_dtype()?,
        })
    }

    fn refuse_what_is_not_computed(&self) -> Result<(), String> {
        let hidden_act = self.hidden_act.as_deref().unwrap_or("silu");
        // Two names of one function.
        if !["silu", "swish"].contains(&hidden_act) {
            return Err(format!("hidden_act `{hidden_act}`; supported: `silu`"));
        }
        let layers = self.num_hidden_layers;
        if !(1..=MOST_LAYERS).contains(&layers) {
            return Err(format!("num_hidden_layers {layers}"));
        }
        if self.use_sliding_window {
            return Err("sliding-window attention (`use_sliding_window: true`)".into());
        }
        if let Some(kinds) = &self.layer_types {
            if let Some(kind) = kinds.iter().find(|kind| *kind != "full_attention") {
                return Err(format!("layers of type `{kind}` (`layer_types`)"));
            }
            if kinds.len() != layers {
                return Err(format!("{} layer_types for {layers} layers", kinds.len()));
            }
        }
        match self.quantization_config {
            Some(_) => Err("quantised weights (`quantization_config`)".into()),
            None => Ok(()),
        }
    }

    fn family(&self) -> Result<Family, String> {
        let supported = Family::ALL.map(|family| format!("`{}`", family.model_type()));
        let supported = supported.join(", ");
        let Some(model_type) = self.model_type.as_deref() else {
            return Err(format!("it has no `model_type`; supported: {supported}"));
        };
        let Some(family) = Family::of_model_type(model_type) else {
            return Err(format!("model type `{model_type}`; supported: {supported}"));
        };
        let architecture = family.architecture();
        let mut named = self.architectures.iter().flatten();
        match named.find(|name| **name != architecture) {
            Some(other) => Err(format!(
                "architecture `{other}`; supported: `{architecture}`"
            )),
            None => Ok(family),
        }
    }

    /// The keys that ask for biases.
    fn bias_keys(&self) -> Vec<&'static str> {
        let keys = [
            ("attention_bias", self.attention_bias),
            ("mlp_bias", self.mlp_bias),
        ];
        let set = keys.into_iter().filter(|(_, set)| *set);
        set.map(|(key, _)| key).collect()
    }

    fn stored_dtype(&self) -> Result<Option<DType>, String> {
        let name = self.dtype.as_ref().or(self.torch_dtype.as_ref());
        Ok(match name.map(String::as_str) {
            None | Some("auto") => None,
            Some("float32") => Some(DType::F32),
            Some("bfloat16") => Some(DType::BF16),
            Some("float16") => Some(DType::F16),
            Some(other) => return Err(format!("weights of type `{other}`")),
        })
    }
}

impl RopeParameters {
    /// The scaling; `original` is the context's length from outside this object, and `positions` the model's, which
    /// stands in where nothing else does.
    fn scaling(
        &self,
        original: Option<usize>,
        positions: usize,
    ) -> Result<Option<RopeScaling>, String> {
        if self.full_attention.is_some() || self.sliding_attention.is_some() {
            return Err("rope parameters of each type of layer".into());
        }
        match self.rope_type.as_ref().or(self.older_type.as_ref()) {
            None => Ok(None),
            Some(kind) if kind == "default" => Ok(None),
            Some(kind) if kind == "llama3" => self.llama3(original, positions).map(Some),
            Some(kind) => Err(format!(
                "rope scaling of kind `{kind}`; supported: `default`, `llama3`"
            )),
        }
    }

    fn llama3(&self, original: Option<usize>, positions: usize) -> Result<RopeScaling, String> {
        let given = |key, value: Option<f64>| {
            let value =
                value.ok_or_else(|| format!("rope scaling of kind `llama3` without `{key}`"))?;
            positive(key, value)?;
            Ok::<_, String>(value)
        };
        let scaling = RopeScaling {
            factor: given("factor", self.factor)?,
            low_freq_factor: given("low_freq_factor", self.low_freq_factor)?,
            high_freq_factor: given("high_freq_factor", self.high_freq_factor)?,
            original_max_position_embeddings: original
                .or(self.original_max_position_embeddings)
                .unwrap_or(positions),
        };
        match scaling.high_freq_factor > scaling.low_freq_factor {
            true => Ok(scaling),
            false => Err("a high_freq_factor that is not above low_freq_factor".into()),
        }
    }
}
