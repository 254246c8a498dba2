//! The model families and their differences.

use crate::LayerModule;

/// A family of decoder-only language models: the same architecture but for what this file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    /// Qwen2 and Qwen2.5: biases on queries, keys and values.
    Qwen2,
    /// Llama, and what has its architecture (SmolLM2 and others): no biases, unless its configuration asks
    /// for them; rotary frequencies may be scaled.
    Llama,
    /// Qwen3, dense: no biases, unless its configuration asks for them; queries and keys are normalised.
    Qwen3,
}

/// One line of the table.
struct Row {
    model_type: &'static str,
    /// What transformers' classes are called before `ForCausalLM`, `Attention` and so on.
    class: &'static str,
    /// transformers' default `max_position_embeddings`.
    positions: usize,
    /// transformers' default `head_dim`; `None`: `hidden_size / num_attention_heads`.
    head_dim: Option<usize>,
    /// Modules that have a bias whatever the configuration says.
    biases: &'static [LayerModule],
    /// Keys of `config.json` that ask for biases, and the part of a layer whose linear layers then have them.
    bias_keys: &'static [(&'static str, &'static str)],
    /// Whether each head's queries and keys are normalised before they are rotated.
    qk_norm: bool,
    /// Whether the configuration can ask for layers that see a window only.
    sliding_windows: bool,
}

const ATTENTION_BIAS: (&str, &str) = ("attention_bias", "self_attn");
const MLP_BIAS: (&str, &str) = ("mlp_bias", "mlp");

impl Family {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Qwen2, Self::Llama, Self::Qwen3];

    fn row(self) -> Row {
        match self {
            Self::Qwen2 => Row {
                model_type: "qwen2",
                class: "Qwen2",
                positions: 32_768,
                head_dim: None,
                biases: &LayerModule::QKV,
                bias_keys: &[],
                qk_norm: false,
                sliding_windows: true,
            },
            Self::Llama => Row {
                model_type: "llama",
                class: "Llama",
                positions: 2048,
                head_dim: None,
                biases: &[],
                bias_keys: &[ATTENTION_BIAS, MLP_BIAS],
                qk_norm: false,
                sliding_windows: false,
            },
            Self::Qwen3 => Row {
                model_type: "qwen3",
                class: "Qwen3",
                positions: 32_768,
                head_dim: Some(128),
                biases: &[],
                bias_keys: &[ATTENTION_BIAS],
                qk_norm: true,
                sliding_windows: true,
            },
        }
    }

    /// The family that `model_type` in a `config.json` names.
    #[must_use]
    pub fn of_model_type(model_type: &str) -> Option<Self> {
        let named = |family: &Self| family.model_type() == model_type;
        Self::ALL.into_iter().find(named)
    }

    /// `model_type` in a `config.json`.
    #[must_use]
    pub fn model_type(self) -> &'static str {
        self.row().model_type
    }

    /// What transformers' classes of the family are called before `ForCausalLM`, `Attention` and so on.
    #[must_use]
    pub fn class(self) -> &'static str {
        self.row().class
    }

    /// The class in `architectures`.
    #[must_use]
    pub fn architecture(self) -> String {
        format!("{}ForCausalLM", self.class())
    }

    /// transformers' `max_position_embeddings` where a file does not say.
    pub(crate) fn default_positions(self) -> usize {
        self.row().positions
    }

    /// transformers' `head_dim` where a file does not say; `None`: the hidden size over the query heads.
    pub(crate) fn default_head_dim(self) -> Option<usize> {
        self.row().head_dim
    }

    /// Whether each head's queries and keys are normalised before they are rotated: `q_norm` and `k_norm`.
    #[must_use]
    pub fn has_qk_norm(self) -> bool {
        self.row().qk_norm
    }

    /// The key of `config.json` that gives `module` a bias, where the family has one: `attention_bias` or
    /// `mlp_bias`. A key gives all linear layers of its part of a layer a bias.
    #[must_use]
    pub fn bias_key(self, module: LayerModule) -> Option<&'static str> {
        let (part, _) = module.path().split_once('.')?;
        let keys = self.row().bias_keys.iter();
        let mut of_part = keys.filter(|(_, its_part)| *its_part == part);
        of_part.next().map(|(key, _)| *key)
    }

    /// The keys of `config.json` that ask for biases.
    pub(crate) fn bias_keys(self) -> impl Iterator<Item = &'static str> {
        self.row().bias_keys.iter().map(|(key, _)| *key)
    }

    /// Whether `use_sliding_window` in a `config.json` means anything.
    pub(crate) fn has_sliding_windows(self) -> bool {
        self.row().sliding_windows
    }

    /// The modules that have a bias in a model whose `config.json` sets these keys.
    pub(crate) fn biases(self, keys: &[&str]) -> Vec<LayerModule> {
        let always = self.row().biases;
        let asked = |module| self.bias_key(module).is_some_and(|key| keys.contains(&key));
        LayerModule::ALL
            .into_iter()
            .filter(|module| always.contains(module) || asked(*module))
            .collect()
    }
}
