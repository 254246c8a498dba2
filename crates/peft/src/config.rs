//! `[method]`: which method, and its options.

use burn::tensor::{TensorData, backend::Backend};
use burn_peft_decoder::{Decoder, DecoderConfig};
use burn_peft_ops::Ops;
use serde::{Deserialize, Serialize};

use crate::{
    AdapterPath, AnyAdapter, BitFitConfig, Choice, Error, InitTokens, LinearProbeConfig,
    ModuleListing, OptionDoc, PTuningConfig, PTuningV2Config, PrefixTuningConfig,
    PromptTuningConfig,
    method::{Method, RateBasis, StartsFrom},
    one_of,
    param::Source,
    sizes::{MOST_BYTES, room_for_rows},
};

/// Declares [`MethodConfig`]. A row reads `"name" => Variant(Options) -> Adapter`, where `Adapter` is the variant
/// of [`AnyAdapter`] that trains.
macro_rules! methods {
    ($(
        $(#[doc = $doc:literal])+
        $name:literal => $variant:ident($options:ident) -> $adapter:ident
    ),* $(,)?) => {
        /// A method and its options. In run.toml the key `type` selects the method.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        #[serde(tag = "type")]
        pub enum MethodConfig {
            $( $(#[doc = $doc])+ #[serde(rename = $name)] $variant($options), )*
        }

        impl MethodConfig {
            /// The names that `type` accepts.
            pub const NAMES: &'static [&'static str] = &[$($name),*];

            /// Every method, with its default options.
            #[must_use]
            pub fn all() -> Vec<Self> {
                vec![$( Self::$variant($options::default()) ),*]
            }

            /// The name under which `type` selects this method.
            #[must_use]
            pub fn name(&self) -> &'static str {
                match self {
                    $( Self::$variant(_) => $name, )*
                }
            }

            /// What there is to say about each option of this method.
            #[must_use]
            pub fn options(&self) -> Vec<OptionDoc> {
                match self {
                    $( Self::$variant(_) => $options::options(), )*
                }
            }

            /// What there is to say about the option `type`, which selects the method.
            #[must_use]
            pub fn type_option() -> OptionDoc {
                let names = one_of(Self::NAMES.iter().copied());
                let choices = vec![$( Choice::new($name, &[$($doc),+]) ),*];
                let default = Self::default().name();
                OptionDoc::new("type", &["The method."], (names, choices), &default, ["", ""])
            }

            /// Whether `adapter` is of the kind that this method trains.
            #[must_use]
            pub fn trains<B: Backend>(&self, adapter: &AnyAdapter<B>) -> bool {
                match (self, adapter) {
                    $( (Self::$variant(_), AnyAdapter::$adapter(_)) => true, )*
                    _ => false,
                }
            }

            fn method(&self) -> &dyn Method {
                match self {
                    $( Self::$variant(options) => options, )*
                }
            }

            fn method_mut(&mut self) -> &mut dyn Method {
                match self {
                    $( Self::$variant(options) => options, )*
                }
            }

            fn build<B: Backend>(
                &self,
                base: &DecoderConfig,
                source: Source<'_>,
                device: &B::Device,
            ) -> Result<AnyAdapter<B>, Error> {
                Ok(match self {
                    $( Self::$variant(options) => {
                        AnyAdapter::$adapter(options.build(base, source, device)?)
                    } )*
                })
            }
        }
    };
}

methods! {
    /// Biases (Ben Zaken et al. 2022).
    "bitfit" => BitFit(BitFitConfig) -> BitFit,
    /// Virtual tokens among the input (Lester et al. 2021).
    "prompt-tuning" => PromptTuning(PromptTuningConfig) -> PromptTuning,
    /// Virtual tokens that a small network makes (Liu et al. 2021).
    "p-tuning" => PTuning(PTuningConfig) -> PTuning,
    /// Keys and values of every layer, made by an MLP (Li and Liang 2021).
    "prefix-tuning" => PrefixTuning(PrefixTuningConfig) -> Prefix,
    /// Keys and values of every layer (Liu et al. 2022).
    "p-tuning-v2" => PTuningV2(PTuningV2Config) -> Prefix,
    /// Nothing but the head of the task, on the base as it is.
    "linear-probe" => LinearProbe(LinearProbeConfig) -> None,
}

impl Default for MethodConfig {
    fn default() -> Self {
        Self::PromptTuning(PromptTuningConfig::default())
    }
}

/// The numbers of virtual tokens that other parts of a run ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TokenCounts {
    /// Virtual tokens that the template places, where it places some.
    pub template: Option<usize>,
    /// Tokens of the text to start from, where there is one.
    pub text: Option<usize>,
}

impl MethodConfig {
    /// The method that `type` selects by this name, with its default options.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::all().into_iter().find(|method| method.name() == name)
    }

    /// The learning rate for AdamW where none is given. The method's page has the law and its figures.
    #[must_use]
    pub fn default_learning_rate(&self, basis: RateBasis<'_>) -> f64 {
        let rate = self.method().default_learning_rate(basis);
        // docs/results.md: with a head, virtual tokens learn best at a third of the best rate for texts.
        match basis.with_head && self.num_virtual_tokens() > 0 {
            true => rate / 3.0,
            false => rate,
        }
    }

    /// The text whose tokens the adapter starts from, where there is one.
    #[must_use]
    pub fn init_text(&self) -> Option<&str> {
        match self.method().starts_from() {
            StartsFrom::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The labels whose tokens the adapter starts from.
    #[must_use]
    pub fn init_labels(&self) -> &[String] {
        match self.method().starts_from() {
            StartsFrom::Labels(labels) => labels,
            _ => &[],
        }
    }

    /// The adapter that the adapter starts from, where there is one.
    #[must_use]
    pub fn init_from(&self) -> Option<&AdapterPath> {
        match self.method().starts_from() {
            StartsFrom::Folder(folder) => Some(folder),
            _ => None,
        }
    }

    /// The same, to note where it lies.
    pub fn init_from_mut(&mut self) -> Option<&mut AdapterPath> {
        self.method_mut().init_from_mut()
    }

    /// Settings that are known to train badly at this learning rate, or to have no effect, a sentence each.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        self.method().warnings()
    }

    /// Checks the values of the options, as far as that is possible without a base.
    ///
    /// # Errors
    /// An option that cannot work, by name.
    pub fn validate(&self) -> Result<(), Error> {
        self.method().validate()
    }

    /// Checks what depends on the base.
    ///
    /// # Errors
    /// An option that does not fit it, by name, or asks for an adapter that no machine could train.
    pub fn check_base(&self, base: &DecoderConfig) -> Result<(), Error> {
        room_for_rows(self.num_virtual_tokens(), base)?;
        self.method().check_base(base)?;
        self.check_memory(base, MOST_BYTES)
    }

    /// The options that decide how large an adapter is, with their values.
    pub(crate) fn sizes(&self) -> Vec<(&'static str, usize)> {
        self.method().sizes()
    }

    /// Virtual tokens of an adapter of this kind, each of which takes a position of the base's; 0 for a
    /// method without.
    #[must_use]
    pub fn num_virtual_tokens(&self) -> usize {
        self.method().num_virtual_tokens()
    }

    /// Settles the number of virtual tokens where the options leave it open: the template's, else the
    /// text's, else the method's default, which stays open.
    ///
    /// # Errors
    /// A template that places another number of tokens than the options say, or any for a method without.
    pub fn settle_tokens(&mut self, counts: TokenCounts) -> Result<(), Error> {
        let name = self.name();
        match (self.method_mut().num_virtual_tokens_mut(), counts.template) {
            (None, Some(tokens)) => Err(Error::option(
                "type",
                format!("{name} has no virtual tokens, and the template places {tokens}"),
            )),
            (Some(Some(own)), Some(template)) if *own != template => Err(Error::option(
                "num_virtual_tokens",
                format!("it is {own}, and the template places {template}"),
            )),
            (Some(own @ None), template) => {
                *own = template.or(counts.text.filter(|tokens| *tokens > 0));
                Ok(())
            }
            (None, None) | (Some(Some(_)), _) => Ok(()),
        }
    }

    /// Options that were given although the folder to start from decides them: its adapter must be what they ask for.
    #[must_use]
    pub fn decided_by_folder(&self) -> Vec<&'static str> {
        self.method().decided_by_folder()
    }

    /// The same options with the values that they have on `base` where they were left out.
    #[must_use]
    pub fn filled_in(&self, base: &DecoderConfig) -> Self {
        let (mut filled, tokens) = (self.clone(), self.num_virtual_tokens());
        let method = filled.method_mut();
        if let Some(own) = method.num_virtual_tokens_mut() {
            own.get_or_insert(tokens);
        }
        method.fill_in(base);
        filled
    }

    /// The modules of an adapter of this kind for a base of this size, under PEFT's names.
    #[must_use]
    pub fn modules(&self, base: &DecoderConfig) -> ModuleListing {
        self.method().modules(base)
    }

    /// How many parameters an adapter of this kind trains on a base of this size.
    #[must_use]
    pub fn num_trainable(&self, base: &DecoderConfig) -> usize {
        self.modules(base).num_parameters()
    }

    /// A new adapter for `base`. Random choices follow from `seed` and come from the host, so that
    /// every backend starts from the same numbers. `init_from` is not looked at: this crate reads no folders.
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
        let source = Source::new_from(base, tokens, seed);
        self.build(base.config(), source, &base.device())
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
        self.build(base, Source::Given(value), device)
            .expect("given values start from no text")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_tokens_comes_from_options_then_template_then_text() {
        let counts = |template, text| TokenCounts { template, text };
        let settled = |own, counts| {
            let mut method = MethodConfig::PromptTuning(PromptTuningConfig {
                num_virtual_tokens: own,
                ..PromptTuningConfig::default()
            });
            method.settle_tokens(counts)?;
            Ok::<_, Error>(
                method
                    .method_mut()
                    .num_virtual_tokens_mut()
                    .copied()
                    .flatten(),
            )
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
