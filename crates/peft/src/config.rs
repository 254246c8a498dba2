//! `[method]`: which method, and its options.

use burn::tensor::backend::Backend;
use burn_qwen2::{Qwen2, Qwen2Config};
use serde::{Deserialize, Serialize};

use crate::{AnyAdapter, Error, PromptTuningConfig};

/// A method and its options. In run.toml the key `type` selects the method.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum MethodConfig {
    /// Virtual tokens in front of the input (Lester et al. 2021).
    PromptTuning(PromptTuningConfig),
}

/// The line that PEFT's `print_trainable_parameters` prints.
#[must_use]
pub fn parameter_line(trainable: usize, all: usize) -> String {
    let share = 100.0 * trainable as f64 / all as f64;
    format!(
        "trainable params: {} || all params: {} || trainable%: {share:.4}",
        with_commas(trainable),
        with_commas(all)
    )
}

/// Digits in groups of three.
fn with_commas(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// What an adapter may need of a tokenizer to start from.
#[derive(Debug, Clone, Copy, Default)]
pub struct InitTokens<'a> {
    /// Ids of the text that the options name, where they name one.
    pub text_ids: &'a [u32],
    /// Ids that the tokenizer has. Embedding tables are padded beyond them.
    pub known_ids: usize,
}

impl Default for MethodConfig {
    fn default() -> Self {
        Self::PromptTuning(PromptTuningConfig::default())
    }
}

impl MethodConfig {
    /// The names `type` can take.
    pub const NAMES: &'static [&'static str] = &["prompt-tuning"];

    /// Names of methods that are planned and not there yet.
    pub const PLANNED: &'static [&'static str] =
        &["bitfit", "p-tuning", "prefix-tuning", "p-tuning-v2"];

    /// The name under which `type` selects this method.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::PromptTuning(_) => "prompt-tuning",
        }
    }

    /// The learning rate for AdamW where none is given.
    #[must_use]
    pub fn default_learning_rate(&self) -> f64 {
        match self {
            Self::PromptTuning(config) => config.default_learning_rate(),
        }
    }

    /// The text whose tokens the adapter starts from, where there is one.
    #[must_use]
    pub fn init_text(&self) -> Option<&str> {
        match self {
            Self::PromptTuning(config) => config.prompt_tuning_init_text.as_deref(),
        }
    }

    /// Checks what the types leave open.
    ///
    /// # Errors
    /// An option that cannot work, by name.
    pub fn validate(&self) -> Result<(), Error> {
        match self {
            Self::PromptTuning(config) => config.validate(),
        }
    }

    /// How many parameters an adapter of this kind trains on a base of this size.
    #[must_use]
    pub fn num_trainable(&self, base: &Qwen2Config) -> usize {
        match self {
            Self::PromptTuning(config) => config.num_virtual_tokens * base.hidden_size,
        }
    }

    /// A new adapter for `base`. Random choices follow from `seed` and come from the host, so that
    /// every backend starts from the same numbers.
    ///
    /// # Errors
    /// As [`validate`](Self::validate), and a text without tokens.
    pub fn init<B: Backend>(
        &self,
        base: &Qwen2<B>,
        tokens: InitTokens<'_>,
        seed: u64,
    ) -> Result<AnyAdapter<B>, Error> {
        self.validate()?;
        match self {
            Self::PromptTuning(config) => config
                .init(base, tokens, seed)
                .map(AnyAdapter::PromptTuning),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::parameter_line;

    #[test]
    fn the_parameter_line_is_pefts() {
        assert_eq!(
            parameter_line(15_360, 1_543_729_664),
            "trainable params: 15,360 || all params: 1,543,729,664 || trainable%: 0.0010"
        );
    }
}
