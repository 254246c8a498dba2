//! Prefix Tuning: keys and values of every layer, made by an MLP that is dropped after training (Li and
//! Liang 2021).

use burn::tensor::backend::Backend;
use burn_peft_decoder::DecoderConfig;

use crate::{
    Error, ModuleListing, PTuningV2Config, Prefix, PrefixHeads, PrefixInit,
    method::{Method, RateBasis, StartsFrom, without_effect},
    param::Source,
    prefix::PrefixSpec,
    virtual_tokens::check_at_least_1,
};

crate::options! {
    /// Options of Prefix Tuning, under PEFT's names.
    pub struct PrefixTuningConfig {
        /// Length of the prefix, in virtual tokens.
        pub num_virtual_tokens: Option<usize> = None,
            shown as "the template's, else the text's with `\"text\"`, else 20",
            source "between Li and Liang's 10 (table-to-text) and 200 (summaries)";
        /// Whether an MLP makes the keys and values. Without it they are trained directly, as with `p-tuning-v2`.
        pub prefix_projection: bool = true,
            source "Li and Liang 2021, §4.3: training is unstable without it. PEFT has `false`";
        /// Width of the MLP.
        pub encoder_hidden_size: Option<usize> = None,
            shown as "the width of one layer's keys",
            source "PEFT (`token_dim`). Li and Liang: 512 for table-to-text, 800 for summaries";
        /// Heads of the keys and values.
        pub prefix_heads: PrefixHeads = PrefixHeads::Kv,
            source "PEFT";
        /// What the keys and values start as. The MLP's last layer is solved for so that it gives those of tokens.
        pub init_weights: PrefixInit = PTuningV2Config::default().init_weights,
            source "as for `p-tuning-v2`";
        /// The text of `"text"`: its first tokens, repeated if there are too few.
        pub prefix_init_text: Option<String> = None;
        /// Dropout on the keys and values while training.
        pub prefix_dropout: f64 = 0.0,
            source "PEFT has none; Li and Liang's code has it";
    }
}

impl Method for PrefixTuningConfig {
    fn default_learning_rate(&self, base: RateBasis<'_>) -> f64 {
        let direct = self.without_projection().default_learning_rate(base);
        // AdamW moves every weight of the MLP's last layer by the rate, and so a key or a value by the rate times the sum of
        // what the layer reads: the tanh of numbers with a variance of 1/3, 0.4 each. docs/results.md: with 30 layers and a
        // width of 192, 3e-4 is best and 8e-4 fails on one task of three. Li and Liang 2021 have 5e-5, over many epochs.
        let step = |hidden: usize| 0.4 * hidden as f64;
        direct / self.spec(base.config).hidden_size.map_or(1.0, step)
    }

    fn validate(&self) -> Result<(), Error> {
        check_at_least_1("encoder_hidden_size", self.encoder_hidden_size)?;
        self.without_projection().validate()
    }

    fn modules(&self, base: &DecoderConfig) -> ModuleListing {
        self.spec(base).modules()
    }

    fn num_virtual_tokens(&self) -> usize {
        self.without_projection().num_virtual_tokens()
    }

    fn sizes(&self) -> Vec<(&'static str, usize)> {
        vec![
            ("num_virtual_tokens", self.num_virtual_tokens()),
            ("encoder_hidden_size", self.encoder_hidden_size.unwrap_or(0)),
        ]
    }

    fn num_virtual_tokens_mut(&mut self) -> Option<&mut Option<usize>> {
        Some(&mut self.num_virtual_tokens)
    }

    fn fill_in(&mut self, base: &DecoderConfig) {
        if self.prefix_projection {
            let width = self.without_projection().spec(base).shape.token_dim();
            self.encoder_hidden_size.get_or_insert(width);
        }
    }

    fn starts_from(&self) -> StartsFrom<'_> {
        let uses_text = self.init_weights == PrefixInit::Text;
        StartsFrom::text_if(uses_text, self.prefix_init_text.as_deref())
    }

    fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if !self.prefix_projection {
            warnings.extend(self.without_projection().warnings());
            if self.encoder_hidden_size.is_some() {
                warnings.push("method.encoder_hidden_size has no effect without the MLP".into());
            }
        } else {
            let unused = self.prefix_init_text.is_some() && self.init_weights != PrefixInit::Text;
            warnings.extend(without_effect(
                "prefix_init_text",
                unused,
                "init_weights = \"text\"",
            ));
        }
        warnings
    }
}

impl PrefixTuningConfig {
    /// The same options for a table without an MLP.
    fn without_projection(&self) -> PTuningV2Config {
        PTuningV2Config {
            num_virtual_tokens: self.num_virtual_tokens,
            prefix_heads: self.prefix_heads,
            init_weights: self.init_weights,
            prefix_init_text: self.prefix_init_text.clone(),
            prefix_dropout: self.prefix_dropout,
            ..PTuningV2Config::default()
        }
    }

    fn spec(&self, base: &DecoderConfig) -> PrefixSpec {
        let direct = self.without_projection().spec(base);
        let hidden = self.encoder_hidden_size.unwrap_or(direct.shape.token_dim());
        PrefixSpec {
            hidden_size: self.prefix_projection.then_some(hidden),
            ..direct
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
