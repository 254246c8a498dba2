//! `[method]`: which method, and its options.

use burn::tensor::{TensorData, backend::Backend};
use burn_peft_decoder::{Decoder, DecoderConfig};
use burn_peft_ops::Ops;
use serde::{Deserialize, Serialize};

use crate::{
    AnyAdapter, BitFitConfig, Error, InitTokens, ModuleListing, PTuningConfig, PTuningV2Config,
    PrefixTuningConfig, PromptTuning, PromptTuningConfig, method::Method, param::Source,
    virtual_tokens::DEFAULT_TOKENS,
};

/// A method and its options. In run.toml the key `type` selects the method.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type")]
pub enum MethodConfig {
    /// Biases (Ben Zaken et al. 2022).
    #[serde(rename = "bitfit")]
    BitFit(BitFitConfig),
    /// Virtual tokens among the input (Lester et al. 2021).
    #[serde(rename = "prompt-tuning")]
    PromptTuning(PromptTuningConfig),
    /// Virtual tokens that a small network makes (Liu et al. 2021).
    #[serde(rename = "p-tuning")]
    PTuning(PTuningConfig),
    /// Keys and values of every layer, made by an MLP (Li and Liang 2021).
    #[serde(rename = "prefix-tuning")]
    PrefixTuning(PrefixTuningConfig),
    /// Keys and values of every layer (Liu et al. 2022).
    #[serde(rename = "p-tuning-v2")]
    PTuningV2(PTuningV2Config),
}

impl Default for MethodConfig {
    fn default() -> Self {
        Self::PromptTuning(PromptTuningConfig::default())
    }
}

/// The virtual tokens that something other than the options asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TokenCounts {
    /// Those that the template places, where there is one that does.
    pub template: Option<usize>,
    /// Tokens of the text to start from, where there is one.
    pub text: Option<usize>,
}

impl MethodConfig {
    /// The names `type` can take.
    pub const NAMES: &'static [&'static str] = &[
        "bitfit",
        "prompt-tuning",
        "p-tuning",
        "prefix-tuning",
        "p-tuning-v2",
    ];

    fn method(&self) -> &dyn Method {
        match self {
            Self::BitFit(config) => config,
            Self::PromptTuning(config) => config,
            Self::PTuning(config) => config,
            Self::PrefixTuning(config) => config,
            Self::PTuningV2(config) => config,
        }
    }

    fn method_mut(&mut self) -> &mut dyn Method {
        match self {
            Self::BitFit(config) => config,
            Self::PromptTuning(config) => config,
            Self::PTuning(config) => config,
            Self::PrefixTuning(config) => config,
            Self::PTuningV2(config) => config,
        }
    }

    /// The name under which `type` selects this method.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.method().name()
    }

    /// The learning rate for AdamW where none is given.
    #[must_use]
    pub fn default_learning_rate(&self) -> f64 {
        self.method().default_learning_rate()
    }

    /// The text whose tokens the adapter starts from, where there is one.
    #[must_use]
    pub fn init_text(&self) -> Option<&str> {
        self.method().init_text()
    }

    /// The labels whose tokens the adapter starts from.
    #[must_use]
    pub fn init_labels(&self) -> &[String] {
        self.method().init_labels()
    }

    /// The adapter folder that the adapter starts from, where there is one.
    #[must_use]
    pub fn init_from(&self) -> Option<&str> {
        self.method().init_from()
    }

    /// What is known to train badly at this learning rate, or to have no effect, a line each.
    #[must_use]
    pub fn warnings(&self, learning_rate: f64) -> Vec<String> {
        self.method().warnings(learning_rate)
    }

    /// Checks what the types leave open.
    ///
    /// # Errors
    /// An option that cannot work, by name.
    pub fn validate(&self) -> Result<(), Error> {
        self.method().validate()
    }

    /// Checks what depends on the base.
    ///
    /// # Errors
    /// An option that does not fit it, by name.
    pub fn check_base(&self, base: &DecoderConfig) -> Result<(), Error> {
        let (tokens, positions) = (self.num_virtual_tokens(), base.max_position_embeddings);
        // A row of two tokens is the shortest that teaches anything.
        if tokens + 2 > positions {
            return Err(Error::option(
                "num_virtual_tokens",
                format!("{tokens} leave no room for rows; the base has {positions} positions"),
            ));
        }
        self.method().check_base(base)
    }

    /// Virtual tokens of an adapter of this kind, each of which takes a position of the base's; 0 for a
    /// method without.
    #[must_use]
    pub fn num_virtual_tokens(&self) -> usize {
        let tokens = self.method().num_virtual_tokens();
        tokens.map_or(0, |tokens| tokens.unwrap_or(DEFAULT_TOKENS))
    }

    /// Settles the number of virtual tokens where the options leave it open: the template's, else the
    /// text's, else the method's default, which stays open.
    ///
    /// # Errors
    /// A template that places another number of tokens than the options say, or any for a method without.
    pub fn settle_tokens(&mut self, counts: TokenCounts) -> Result<(), Error> {
        let name = self.name();
        let Some(own) = self.method_mut().num_virtual_tokens_mut() else {
            return match counts.template {
                None => Ok(()),
                Some(tokens) => Err(Error::option(
                    "type",
                    format!("{name} has no virtual tokens, and the template places {tokens}"),
                )),
            };
        };
        match (*own, counts.template) {
            (Some(own), Some(template)) if own != template => Err(Error::option(
                "num_virtual_tokens",
                format!("it is {own}, and the template places {template}"),
            )),
            (Some(_), _) => Ok(()),
            (None, template) => {
                *own = template.or(counts.text.filter(|tokens| *tokens > 0));
                Ok(())
            }
        }
    }

    /// How many parameters an adapter of this kind trains on a base of this size.
    #[must_use]
    pub fn num_trainable(&self, base: &DecoderConfig) -> usize {
        self.method().num_trainable(base)
    }

    /// The modules of an adapter of this kind for a base of this size, under PEFT's names.
    #[must_use]
    pub fn modules(&self, base: &DecoderConfig) -> ModuleListing {
        self.method().modules(base)
    }

    /// A new adapter for `base`. Random choices follow from `seed` and come from the host, so that
    /// every backend starts from the same numbers. `init_from` is not looked at: reading folders is not
    /// this crate's business.
    ///
    /// # Errors
    /// As [`validate`](Self::validate) and [`check_base`](Self::check_base), and a text without tokens.
    pub fn init<B: Ops>(
        &self,
        base: &Decoder<B>,
        tokens: &InitTokens,
        seed: u64,
    ) -> Result<AnyAdapter<B>, Error> {
        self.validate()?;
        self.check_base(base.config())?;
        let random = || Source::seeded(seed);
        let device = base.device();
        Ok(match self {
            Self::BitFit(config) => {
                AnyAdapter::BitFit(config.build(base.config(), random(), &device))
            }
            Self::PromptTuning(config) => {
                AnyAdapter::PromptTuning(config.init(base, tokens, seed)?)
            }
            Self::PTuning(config) => {
                AnyAdapter::PTuning(config.build(base.config(), random(), &device))
            }
            Self::PrefixTuning(config) if config.prefix_projection => {
                AnyAdapter::PrefixTuning(config.init(base, tokens, seed)?)
            }
            Self::PrefixTuning(config) => {
                AnyAdapter::PTuningV2(config.without_projection().init(base, tokens, seed)?)
            }
            Self::PTuningV2(config) => AnyAdapter::PTuningV2(config.init(base, tokens, seed)?),
        })
    }

    /// An adapter in a given state: `value` is asked for each parameter by the name it has in PEFT's module
    /// (`embedding.weight`, `mlp_head.0.weight`, `lstm_head.weight_ih_l0_reverse`, `transform.2.bias`; for
    /// BitFit, the change of each bias under the bias's name in a checkpoint). So a training state of PEFT
    /// can be taken over, encoder and all.
    ///
    /// # Panics
    /// If a value has another shape than the parameter.
    #[must_use]
    pub fn with_state<B: Backend>(
        &self,
        value: &dyn Fn(&str) -> TensorData,
        base: &DecoderConfig,
        device: &B::Device,
    ) -> AnyAdapter<B> {
        let given = Source::Given(value);
        let table = || value("embedding.weight");
        match self {
            Self::BitFit(config) => AnyAdapter::BitFit(config.build(base, given, device)),
            Self::PromptTuning(_) => {
                AnyAdapter::PromptTuning(PromptTuning::from_data(table(), device))
            }
            Self::PTuning(config) => AnyAdapter::PTuning(config.build(base, given, device)),
            Self::PrefixTuning(config) if config.prefix_projection => {
                AnyAdapter::PrefixTuning(config.build(base, given, device))
            }
            Self::PrefixTuning(config) => {
                let config = config.without_projection();
                AnyAdapter::PTuningV2(config.with_table(table(), base, device))
            }
            Self::PTuningV2(config) => {
                AnyAdapter::PTuningV2(config.with_table(table(), base, device))
            }
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parameter_line_is_pefts() {
        assert_eq!(
            parameter_line(15_360, 1_543_729_664),
            "trainable params: 15,360 || all params: 1,543,729,664 || trainable%: 0.0010"
        );
    }

    #[test]
    fn the_number_of_tokens_comes_from_options_then_template_then_text() {
        let counts = |template, text| TokenCounts { template, text };
        let settled = |own, counts| {
            let mut method = MethodConfig::PromptTuning(PromptTuningConfig {
                num_virtual_tokens: own,
                ..PromptTuningConfig::default()
            });
            method.settle_tokens(counts)?;
            Ok::<_, Error>(method.method().num_virtual_tokens().flatten())
        };
        assert_eq!(settled(Some(7), counts(None, Some(5))).unwrap(), Some(7));
        assert_eq!(settled(None, counts(Some(6), Some(5))).unwrap(), Some(6));
        assert_eq!(settled(None, counts(None, Some(5))).unwrap(), Some(5));
        assert_eq!(settled(None, counts(None, None)).unwrap(), None);
        let error = settled(Some(7), counts(Some(6), None)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "method.num_virtual_tokens: it is 7, and the template places 6"
        );
    }

    #[test]
    fn biases_have_no_place_in_a_template() {
        let mut method = MethodConfig::BitFit(BitFitConfig::default());
        let counts = |template| TokenCounts {
            template,
            text: None,
        };
        method.settle_tokens(counts(None)).unwrap();
        let error = method.settle_tokens(counts(Some(3))).unwrap_err();
        assert!(error.to_string().contains("no virtual tokens"), "{error}");
    }
}
