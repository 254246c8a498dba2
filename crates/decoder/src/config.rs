//! `config.json`, as transformers 4 and transformers 5 write it.

use std::path::PathBuf;

use burn::tensor::DType;

use crate::{Error, Family, LayerModule};

mod raw;
#[cfg(test)]
mod tests;

/// The architecture of one checkpoint. Field names are those of `config.json`.
#[derive(Debug, Clone, PartialEq)]
pub struct DecoderConfig {
    /// The model family, `model_type` in the file.
    pub family: Family,
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
    /// How the rotary frequencies are stretched for long contexts, if they are.
    pub rope_scaling: Option<RopeScaling>,
    /// Longest sequence, in tokens.
    pub max_position_embeddings: usize,
    /// Whether the output head is the embedding table.
    pub tie_word_embeddings: bool,
    /// The modules of each layer that have a bias.
    pub biases: Vec<LayerModule>,
    /// The type the checkpoint says it is stored in; each tensor's own header decides.
    pub dtype: Option<DType>,
}

/// The scaling of rotary frequencies that Llama 3.1 introduced, `rope_type: "llama3"`: wavelengths beyond
/// `original_max_position_embeddings / low_freq_factor` are multiplied by `factor`, those below
/// `original_max_position_embeddings / high_freq_factor` stay, and those between are interpolated.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RopeScaling {
    /// Stretches the longest wavelengths.
    pub factor: f64,
    /// Where stretching is complete.
    pub low_freq_factor: f64,
    /// Where stretching begins.
    pub high_freq_factor: f64,
    /// The context that the model was first trained on, in tokens.
    pub original_max_position_embeddings: usize,
}

impl RopeScaling {
    /// The frequency, in radians a token, that takes the place of `frequency`.
    #[must_use]
    pub fn stretch(&self, frequency: f64) -> f64 {
        let wavelength = 2.0 * std::f64::consts::PI / frequency;
        let original = self.original_max_position_embeddings as f64;
        if wavelength < original / self.high_freq_factor {
            return frequency;
        }
        if wavelength > original / self.low_freq_factor {
            return frequency / self.factor;
        }
        let smooth = (original / wavelength - self.low_freq_factor)
            / (self.high_freq_factor - self.low_freq_factor);
        (1.0 - smooth) * frequency / self.factor + smooth * frequency
    }
}

impl DecoderConfig {
    /// Reads the text of a `config.json`; `path` is named in errors.
    ///
    /// # Errors
    /// Text that is not a model's configuration, and everything this crate does not compute:
    /// other families, other rope scalings, sliding windows, other activations, quantised weights.
    pub fn parse(text: &str, path: impl Into<PathBuf>) -> Result<Self, Error> {
        raw::parse(text, path.into())
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
            family: Family::Qwen2,
            vocab_size: vocab,
            hidden_size: hidden,
            intermediate_size: inner,
            num_hidden_layers: layers,
            num_attention_heads: heads,
            num_key_value_heads: kv_heads,
            head_dim: hidden / heads,
            rms_norm_eps: 1e-6,
            rope_theta: 1e6,
            rope_scaling: None,
            max_position_embeddings: positions,
            tie_word_embeddings: tied,
            biases: Family::Qwen2.biases(&[]),
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

    /// Positions that are left for a row's own tokens beside `virtual_tokens`, each of which takes one.
    #[must_use]
    pub fn positions_left(&self, virtual_tokens: usize) -> usize {
        self.max_position_embeddings.saturating_sub(virtual_tokens)
    }
}
