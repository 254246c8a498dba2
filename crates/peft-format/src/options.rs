//! The fields of each `peft_type`, with PEFT's defaults, and what they say.

use burn_peft::LayerModule;
pub use burn_peft::{EncoderReparameterizationType, PromptTuningInit};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::beft::TargetModules;
use crate::fields::fields;
use crate::peft_type::{Landing, PeftType};
use crate::virtual_tokens::VirtualTokenOptions;

fields! {
    /// The fields of `PROMPT_TUNING`.
    pub struct PromptTuningOptions with virtual_tokens: VirtualTokenOptions {
        /// How the table was initialised.
        pub prompt_tuning_init: PromptTuningInit = PromptTuningInit::Random,
        /// The text of `TEXT`. PEFT refuses to load `TEXT` without it.
        pub prompt_tuning_init_text: Option<String> = None,
        /// The tokenizer of `TEXT`. PEFT refuses to load `TEXT` without it.
        pub tokenizer_name_or_path: Option<String> = None,
        /// Arguments of that tokenizer. Kept, not used.
        pub tokenizer_kwargs: Option<Value> = None,
    }
}

impl PromptTuningOptions {
    /// A new adapter's, with PEFT's defaults.
    pub fn new(virtual_tokens: VirtualTokenOptions) -> Self {
        Self::defaults(virtual_tokens)
    }
}

impl PeftType for PromptTuningOptions {
    fn name(&self) -> &'static str {
        "prompt-tuning"
    }

    fn class(&self) -> &'static str {
        "PromptEmbedding"
    }

    fn landing(&self) -> Landing<'_> {
        Landing::Prompt(&self.virtual_tokens)
    }

    /// PEFT asks for text and tokenizer of `TEXT` even for inference, where nothing is initialised.
    fn missing_field(&self) -> Option<&'static str> {
        let needed = [
            ("prompt_tuning_init_text", &self.prompt_tuning_init_text),
            ("tokenizer_name_or_path", &self.tokenizer_name_or_path),
        ];
        if self.prompt_tuning_init != PromptTuningInit::Text {
            return None;
        }
        let missing = needed.into_iter().find(|(_, value)| value.is_none());
        missing.map(|(field, _)| field)
    }
}

fields! {
    /// The fields of `P_TUNING`.
    pub struct PTuningOptions with virtual_tokens: VirtualTokenOptions {
        /// The encoder's kind.
        pub encoder_reparameterization_type: EncoderReparameterizationType =
            EncoderReparameterizationType::Mlp,
        /// The encoder's width. For a new adapter PEFT fills in `token_dim`.
        pub encoder_hidden_size: Option<usize> = None,
        /// Layers of the LSTM.
        pub encoder_num_layers: usize = 2,
        /// Dropout between the layers of the LSTM.
        pub encoder_dropout: f64 = 0.0,
    }
}

impl PTuningOptions {
    /// A new adapter's, with PEFT's defaults.
    pub fn new(virtual_tokens: VirtualTokenOptions) -> Self {
        Self {
            encoder_hidden_size: virtual_tokens.token_dim,
            ..Self::defaults(virtual_tokens)
        }
    }
}

impl PeftType for PTuningOptions {
    fn name(&self) -> &'static str {
        "p-tuning"
    }

    fn class(&self) -> &'static str {
        "PromptEncoder"
    }

    fn landing(&self) -> Landing<'_> {
        Landing::Prompt(&self.virtual_tokens)
    }
}

fields! {
    /// The fields of `PREFIX_TUNING`; without projection that is P-Tuning v2.
    pub struct PrefixTuningOptions with virtual_tokens: VirtualTokenOptions {
        /// Whether an MLP made the prefix.
        pub prefix_projection: bool = false,
        /// That MLP's width. For a new adapter PEFT fills in `token_dim`, with an MLP or without.
        pub encoder_hidden_size: Option<usize> = None,
        /// How the weights were initialised; absent: at random.
        pub init_weights: Option<PrefixInit> = None,
    }
}

/// How a prefix starts, other than at random.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PrefixInit {
    /// All keys and values zero.
    Zero,
}

impl PrefixTuningOptions {
    /// A new adapter's, with PEFT's defaults.
    pub fn new(virtual_tokens: VirtualTokenOptions) -> Self {
        Self {
            encoder_hidden_size: virtual_tokens.token_dim,
            ..Self::defaults(virtual_tokens)
        }
    }
}

impl PeftType for PrefixTuningOptions {
    fn name(&self) -> &'static str {
        match self.prefix_projection {
            true => "prefix-tuning",
            false => "p-tuning-v2",
        }
    }

    fn class(&self) -> &'static str {
        "PrefixEncoder"
    }

    fn landing(&self) -> Landing<'_> {
        Landing::Prefix(&self.virtual_tokens)
    }
}

fields! {
    /// The fields of `BEFT`: biases added to the outputs of modules, the form that BitFit takes in PEFT.
    pub struct BeftOptions {
        /// The modules that got a bias. The default is PEFT's for Qwen2.
        [strict] pub target_modules: TargetModules = TargetModules::Names(vec!["v_proj".into()]),
        /// Whether the biases started at zero.
        pub init_weights: bool = true,
    }
}

impl BeftOptions {
    /// A new adapter's, with PEFT's defaults.
    pub fn new(target_modules: TargetModules) -> Self {
        Self {
            target_modules,
            ..Self::defaults()
        }
    }
}

impl Default for BeftOptions {
    fn default() -> Self {
        Self::defaults()
    }
}

impl PeftType for BeftOptions {
    fn name(&self) -> &'static str {
        "bitfit"
    }

    fn class(&self) -> &'static str {
        "BitFit"
    }

    fn landing(&self) -> Landing<'_> {
        Landing::Biases(&self.target_modules)
    }

    /// The norms: PEFT's BEFT knows linear layers only, and PEFT 0.21 refuses a folder with any other.
    fn beyond_peft(&self) -> Vec<LayerModule> {
        let named = self.target_modules.named().into_iter();
        named.filter(|module| module.is_norm()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_norms_are_beyond_peft() {
        let beyond = |modules: &[LayerModule]| {
            let names = modules.iter().map(|module| module.module_path(0));
            BeftOptions::new(TargetModules::Names(names.collect())).beyond_peft()
        };
        assert!(beyond(&LayerModule::ALL[..7]).is_empty());
        let norm = LayerModule::PostAttentionLayernorm;
        assert_eq!(beyond(&[LayerModule::QProj, norm]), [norm]);
    }
}
