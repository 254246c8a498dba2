//! `config.json`, as transformers 4 and transformers 5 write it.

use std::path::PathBuf;

use burn::tensor::DType;
use serde::Deserialize;

use crate::Error;

/// The architecture of one Qwen2 or Qwen2.5 checkpoint. Field names are those of `config.json`.
#[derive(Debug, Clone, PartialEq)]
pub struct Qwen2Config {
    /// Rows of the embedding table.
    pub vocab_size: usize,
    /// Width of the residual stream, `d_model`.
    pub hidden_size: usize,
    /// Width of the gated feed-forward layer.
    pub intermediate_size: usize,
    /// Number of decoder layers.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key/value heads; query heads share them in equal groups.
    pub num_key_value_heads: usize,
    /// Width of one head.
    pub head_dim: usize,
    /// Added to the mean square in RMSNorm.
    pub rms_norm_eps: f64,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Longest sequence, in tokens.
    pub max_position_embeddings: usize,
    /// Whether the output head is the embedding table.
    pub tie_word_embeddings: bool,
    /// The type the checkpoint says it is stored in; each tensor's own header decides.
    pub dtype: Option<DType>,
}

/// The file as it stands, before anything in it is believed.
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
    // transformers' Qwen2Config: 1e-6, 32768, false, "silu".
    #[serde(default = "default_rms_norm_eps")]
    rms_norm_eps: f64,
    #[serde(default = "default_max_position_embeddings")]
    max_position_embeddings: usize,
    #[serde(default)]
    tie_word_embeddings: bool,
    #[serde(default = "default_hidden_act")]
    hidden_act: String,
    rope_theta: Option<f64>,
    rope_scaling: Option<RopeParameters>,
    rope_parameters: Option<RopeParameters>,
    #[serde(default)]
    use_sliding_window: bool,
    #[serde(default)]
    layer_types: Option<Vec<String>>,
    torch_dtype: Option<String>,
    dtype: Option<String>,
    #[serde(default)]
    quantization_config: Option<serde_json::Value>,
}

/// transformers 5's `rope_parameters`, and transformers 4's `rope_scaling`.
#[derive(Deserialize)]
struct RopeParameters {
    rope_theta: Option<f64>,
    #[serde(alias = "type")]
    rope_type: Option<String>,
}

fn default_rms_norm_eps() -> f64 {
    1e-6
}

fn default_max_position_embeddings() -> usize {
    32_768
}

fn default_hidden_act() -> String {
    "silu".into()
}

/// transformers' Qwen2Config: `rope_theta` where the file does not say.
const DEFAULT_ROPE_THETA: f64 = 10_000.0;

impl Qwen2Config {
    /// Reads the text of a `config.json`; `path` is named in errors.
    ///
    /// # Errors
    /// Text that is not a model's configuration, and everything this crate does not compute:
    /// other architectures, rope scaling, sliding windows, other activations, quantised weights.
    pub fn parse(text: &str, path: impl Into<PathBuf>) -> Result<Self, Error> {
        let path = path.into();
        let raw: RawConfig = serde_json::from_str(text).map_err(|source| Error::Json {
            path: path.clone(),
            source,
        })?;
        let config = raw.check().map_err(|what| Error::Unsupported {
            path: path.clone(),
            what,
        })?;
        Ok(config)
    }

    /// The names that [`named`](Self::named) knows.
    pub const NAMES: [&'static str; 4] =
        ["qwen2.5-0.5b", "qwen2.5-1.5b", "qwen2.5-3b", "qwen2.5-7b"];

    /// The architecture of a published Qwen2.5 base model, by its name in lower case.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        // hidden, intermediate, layers, query heads, key/value heads, vocabulary, tied head, positions
        let (hidden, inner, layers, heads, kv_heads, vocab, tied, positions) = match name {
            "qwen2.5-0.5b" => (896, 4864, 24, 14, 2, 151_936, true, 32_768),
            "qwen2.5-1.5b" => (1536, 8960, 28, 12, 2, 151_936, true, 131_072),
            "qwen2.5-3b" => (2048, 11_008, 36, 16, 2, 151_936, true, 32_768),
            "qwen2.5-7b" => (3584, 18_944, 28, 28, 4, 152_064, false, 131_072),
            _ => return None,
        };
        Some(Self {
            vocab_size: vocab,
            hidden_size: hidden,
            intermediate_size: inner,
            num_hidden_layers: layers,
            num_attention_heads: heads,
            num_key_value_heads: kv_heads,
            head_dim: hidden / heads,
            rms_norm_eps: 1e-6,
            rope_theta: 1e6,
            max_position_embeddings: positions,
            tie_word_embeddings: tied,
            dtype: Some(DType::BF16),
        })
    }

    /// Rows of `q_proj`: `num_attention_heads · head_dim`.
    #[must_use]
    pub fn query_width(&self) -> usize {
        self.num_attention_heads * self.head_dim
    }

    /// Rows of `k_proj` and of `v_proj`: `num_key_value_heads · head_dim`.
    #[must_use]
    pub fn kv_width(&self) -> usize {
        self.num_key_value_heads * self.head_dim
    }

    /// Every tensor of a checkpoint of this architecture with its shape, in the order of a forward
    /// pass.
    #[must_use]
    pub fn tensor_shapes(&self) -> Vec<(String, Vec<usize>)> {
        crate::weights::expected_tensors(self)
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

impl RawConfig {
    fn check(self) -> Result<Qwen2Config, String> {
        match self.model_type.as_deref() {
            Some("qwen2") => {}
            Some(other) => return Err(format!("model type `{other}`; supported: `qwen2`")),
            None => return Err("it has no `model_type`; supported: `qwen2`".into()),
        }
        if let Some(other) = self
            .architectures
            .iter()
            .flatten()
            .find(|name| *name != "Qwen2ForCausalLM")
        {
            return Err(format!(
                "architecture `{other}`; supported: `Qwen2ForCausalLM`"
            ));
        }
        if self.hidden_act != "silu" {
            return Err(format!(
                "hidden_act `{}`; supported: `silu`",
                self.hidden_act
            ));
        }
        if self.use_sliding_window
            || self
                .layer_types
                .iter()
                .flatten()
                .any(|kind| kind != "full_attention")
        {
            return Err("sliding-window attention (`use_sliding_window: true`)".into());
        }
        if self.quantization_config.is_some() {
            return Err("quantised weights (`quantization_config`)".into());
        }
        let ropes = [&self.rope_parameters, &self.rope_scaling];
        for rope in ropes.into_iter().flatten() {
            match rope.rope_type.as_deref() {
                None | Some("default") => {}
                Some(kind) => return Err(format!("rope scaling of kind `{kind}`")),
            }
        }
        let rope_theta = self
            .rope_parameters
            .as_ref()
            .and_then(|rope| rope.rope_theta)
            .or(self.rope_theta)
            .unwrap_or(DEFAULT_ROPE_THETA);
        let n_heads = self.num_attention_heads;
        // Older files leave the key/value heads out: every query head has its own.
        let n_kv_heads = self.num_key_value_heads.unwrap_or(n_heads);
        if n_heads == 0 || n_kv_heads == 0 || !n_heads.is_multiple_of(n_kv_heads) {
            return Err(format!(
                "{n_heads} attention heads cannot share {n_kv_heads} key/value heads"
            ));
        }
        let head_dim = self.head_dim.unwrap_or(self.hidden_size / n_heads);
        if head_dim == 0 || !head_dim.is_multiple_of(2) {
            return Err(format!(
                "head_dim {head_dim}: rotary embedding needs an even one"
            ));
        }
        let dtype = match self.dtype.or(self.torch_dtype).as_deref() {
            None | Some("auto") => None,
            Some("float32") => Some(DType::F32),
            Some("bfloat16") => Some(DType::BF16),
            Some("float16") => Some(DType::F16),
            Some(other) => return Err(format!("weights of type `{other}`")),
        };
        Ok(Qwen2Config {
            vocab_size: self.vocab_size,
            hidden_size: self.hidden_size,
            intermediate_size: self.intermediate_size,
            num_hidden_layers: self.num_hidden_layers,
            num_attention_heads: n_heads,
            num_key_value_heads: n_kv_heads,
            head_dim,
            rms_norm_eps: self.rms_norm_eps,
            rope_theta,
            max_position_embeddings: self.max_position_embeddings,
            tie_word_embeddings: self.tie_word_embeddings,
            dtype,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// Qwen2.5-1.5B's numbers.
    fn v4() -> Value {
        json!({
            "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2",
            "hidden_act": "silu", "hidden_size": 1536, "intermediate_size": 8960,
            "num_hidden_layers": 28, "num_attention_heads": 12, "num_key_value_heads": 2,
            "max_position_embeddings": 131072, "max_window_layers": 28, "rms_norm_eps": 1e-6,
            "rope_theta": 1000000.0, "sliding_window": 131072, "use_sliding_window": false,
            "tie_word_embeddings": true, "torch_dtype": "bfloat16", "vocab_size": 151936,
        })
    }

    fn with(mut config: Value, key: &str, value: Value) -> Value {
        config[key] = value;
        config
    }

    fn parse(config: &Value) -> Result<Qwen2Config, Error> {
        Qwen2Config::parse(&config.to_string(), "config.json")
    }

    #[test]
    fn transformers_4_and_5_say_the_same() {
        let mut v5 = v4();
        let map = v5.as_object_mut().expect("an object");
        map.remove("rope_theta");
        map.remove("torch_dtype");
        map.insert("dtype".into(), json!("bfloat16"));
        map.insert(
            "rope_parameters".into(),
            json!({"rope_theta": 1000000.0, "rope_type": "default"}),
        );
        map.insert("layer_types".into(), json!(["full_attention"]));
        let v4 = parse(&v4()).expect("v4 parses");
        assert_eq!(v4, parse(&v5).expect("v5 parses"));
        assert_eq!(v4.rope_theta, 1e6);
        assert_eq!(v4.head_dim, 128);
    }

    /// As the model cards give them.
    #[test]
    fn parameters_of_the_published_sizes() {
        let parameters = Qwen2Config::NAMES.map(|name| {
            Qwen2Config::named(name)
                .expect("a known name")
                .num_parameters()
        });
        assert_eq!(
            parameters,
            [494_032_768, 1_543_714_304, 3_085_938_688, 7_615_616_512]
        );
        assert_eq!(
            parse(&v4()).expect("parses"),
            Qwen2Config::named("qwen2.5-1.5b").expect("a known name")
        );
    }

    #[test]
    fn what_is_not_supported_is_refused_by_name() {
        for (key, value, named) in [
            ("model_type", json!("llama"), "llama"),
            (
                "architectures",
                json!(["Qwen2ForSequenceClassification"]),
                "SequenceClassification",
            ),
            (
                "rope_scaling",
                json!({"type": "yarn", "factor": 4.0}),
                "yarn",
            ),
            (
                "rope_parameters",
                json!({"rope_type": "dynamic"}),
                "dynamic",
            ),
            ("use_sliding_window", json!(true), "use_sliding_window"),
            ("layer_types", json!(["sliding_attention"]), "sliding"),
            ("hidden_act", json!("gelu"), "gelu"),
            (
                "quantization_config",
                json!({"bits": 4}),
                "quantization_config",
            ),
            ("num_key_value_heads", json!(5), "5 key/value heads"),
            ("torch_dtype", json!("int8"), "int8"),
        ] {
            let error = parse(&with(v4(), key, value)).expect_err(key).to_string();
            assert!(error.contains(named), "{key}: {error}");
        }
    }
}
