//! P-Tuning v2: keys and values of every layer, learned directly (Liu et al. 2022). PEFT calls it Prefix Tuning
//! without projection.

use burn::tensor::backend::Backend;
use burn_peft_decoder::DecoderConfig;

use crate::{
    AdapterPath, Error, LayerRange, ModuleListing, Prefix, PrefixHeads, PrefixInit,
    method::{Method, RateBasis, StartsFrom, without_effect},
    param::Source,
    prefix::PrefixSpec,
    prefix_shape::PrefixShape,
    virtual_tokens::{DEFAULT_TOKENS, check_at_least_1, check_dropout},
};

crate::options! {
    /// Options of P-Tuning v2.
    pub struct PTuningV2Config {
        /// Length of the prompt, in virtual tokens.
        pub num_virtual_tokens: Option<usize> = None,
            shown as "the template's, else the text's with `\"text\"`, else 20",
            source "Liu et al. 2022: under 20 for simple classification, about 100 for sequence labelling";
        /// First and last layer that get a prompt, counted from 0. The others get keys and values of zero.
        // So PEFT, which knows no range, computes the same.
        pub layers: Option<LayerRange> = None,
            shown as "all",
            source "Liu et al. 2022";
        /// Heads of the keys and values.
        pub prefix_heads: PrefixHeads = PrefixHeads::Kv,
            source "PEFT";
        /// What the keys and values start as.
        pub init_weights: PrefixInit = PrefixInit::SampleVocab,
            source "Li and Liang 2021, §7.4: real words, even unrelated ones, start better than random numbers. \
                    PEFT's comparison: from a text 41.6 %, zero 35.8 %, random 18.6 %";
        /// The text of `"text"`: its first tokens, repeated if there are too few.
        pub prefix_init_text: Option<String> = None;
        /// Dropout on the keys and values while training.
        pub prefix_dropout: f64 = 0.0,
            source "PEFT has none; Liu et al. used 0.1 to 0.2";
        /// An adapter to start from (`PREFIX_TUNING`), in place of `init_weights`: its folder, or a hub id.
        pub init_from: Option<AdapterPath> = None;
    }
}

impl Method for PTuningV2Config {
    fn default_learning_rate(&self, base: RateBasis<'_>) -> f64 {
        // docs/results.md: with 30 layers 3e-2 is best, with 5 layers 3e-1. Liu et al. 2022, appendix: 5e-3 to 6e-2.
        1.0 / base.layers()
    }

    fn validate(&self) -> Result<(), Error> {
        check_at_least_1("num_virtual_tokens", self.num_virtual_tokens)?;
        check_dropout("prefix_dropout", self.prefix_dropout)?;
        let text = self.prefix_init_text.as_deref().unwrap_or_default();
        if self.init_weights == PrefixInit::Text && text.is_empty() && self.init_from.is_none() {
            let reason = "`init_weights = \"text\"` needs a text";
            return Err(Error::option("prefix_init_text", reason));
        }
        Ok(())
    }

    fn check_base(&self, base: &DecoderConfig) -> Result<(), Error> {
        self.layers.map_or(Ok(()), |range| range.check(base))
    }

    fn modules(&self, base: &DecoderConfig) -> ModuleListing {
        self.spec(base).modules()
    }

    fn num_virtual_tokens(&self) -> usize {
        self.num_virtual_tokens.unwrap_or(DEFAULT_TOKENS)
    }

    fn num_virtual_tokens_mut(&mut self) -> Option<&mut Option<usize>> {
        Some(&mut self.num_virtual_tokens)
    }

    fn fill_in(&mut self, base: &DecoderConfig) {
        if self.init_from.is_none() {
            self.layers.get_or_insert(LayerRange::all(base));
        }
    }

    fn init_from_mut(&mut self) -> Option<&mut AdapterPath> {
        self.init_from.as_mut()
    }

    fn starts_from(&self) -> StartsFrom<'_> {
        let uses_text = self.init_weights == PrefixInit::Text;
        StartsFrom::text_if(uses_text, self.prefix_init_text.as_deref())
            .or_folder(self.init_from.as_ref())
    }

    fn decided_by_folder(&self) -> Vec<&'static str> {
        let heads = (self.prefix_heads != PrefixHeads::Kv).then_some("prefix_heads");
        let layers = self.layers.map(|_| "layers");
        layers.into_iter().chain(heads).collect()
    }

    fn warnings(&self) -> Vec<String> {
        let uses_text = self.init_weights == PrefixInit::Text && self.init_from.is_none();
        let unused = self.prefix_init_text.is_some() && !uses_text;
        let unused = without_effect("prefix_init_text", unused, "init_weights = \"text\"");
        let warning = match self.init_weights {
            _ if self.init_from.is_some() => None,
            // PEFT's comparison on MetaMathQA: 18.6 % from random, 35.8 % from zero, 41.6 % from a text.
            PrefixInit::Random => Some(
                "a random prefix is known to train badly; `init_weights = \"sample_vocab\"` or `\"text\"` \
                 starts from real keys and values",
            ),
            // Equal tokens get equal gradients. Only dropout tells them apart.
            PrefixInit::Zero if self.prefix_dropout == 0.0 => Some(
                "virtual tokens that all start at zero stay the same as each other, and act as one; \
                 `init_weights = \"sample_vocab\"` or some `prefix_dropout` sets them apart",
            ),
            _ => None,
        };
        unused
            .into_iter()
            .chain(warning.map(str::to_owned))
            .collect()
    }
}

impl PTuningV2Config {
    pub(crate) fn spec(&self, base: &DecoderConfig) -> PrefixSpec {
        let tokens = self.num_virtual_tokens();
        PrefixSpec {
            shape: PrefixShape::new(tokens, self.prefix_heads, self.layers, base),
            hidden_size: None,
            init: self.init_weights,
            dropout: self.prefix_dropout,
        }
    }

    pub(crate) fn build<B: Backend>(
        &self,
        base: &DecoderConfig,
        source: Source<'_>,
        device: &B::Device,
    ) -> Result<Prefix<B>, Error> {
        self.spec(base).build(source, device)
    }
}
