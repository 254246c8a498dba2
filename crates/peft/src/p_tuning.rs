//! P-Tuning: virtual tokens that a small network makes (Liu et al. 2021, "GPT Understands, Too").

use burn::tensor::backend::Backend;
use burn_peft_decoder::DecoderConfig;

use crate::{
    Error, ModuleListing, PTuning,
    lstm::BiLstmSize,
    method::{Method, RateBasis},
    param::Source,
    prompt_encoder::PromptEncoderSpec,
    virtual_tokens::{DEFAULT_TOKENS, check_at_least_1, check_dropout},
};

crate::options! {
    /// Options of P-Tuning, under PEFT's names.
    pub struct PTuningConfig {
        /// Number of virtual tokens.
        pub num_virtual_tokens: Option<usize> = None,
            shown as "the template's, else 20",
            source "PEFT's MetaMathQA run";
        /// The network that makes them.
        pub encoder_reparameterization_type: EncoderReparameterizationType =
            EncoderReparameterizationType::Mlp,
            source "PEFT";
        /// Width of the network.
        pub encoder_hidden_size: Option<usize> = None,
            shown as "the width of the hidden states",
            source "PEFT";
        /// Layers of the LSTM.
        pub encoder_num_layers: usize = DEFAULT_LAYERS,
            source "PEFT";
        /// Dropout between layers of the LSTM.
        pub encoder_dropout: f64 = 0.0,
            source "PEFT";
        /// What the virtual tokens are at first.
        pub encoder_init: EncoderInit = EncoderInit::SampleVocab,
            source "this project, docs/results.md. PEFT's are random";
        /// Whether each direction of the LSTM has half of `encoder_hidden_size`, as in the paper's code.
        pub lstm_half_width: bool = false,
            source "PEFT, where each direction has all of it";
    }
}

crate::options! {
    /// PEFT's `encoder_reparameterization_type`.
    pub enum EncoderReparameterizationType {
        /// Three linear layers with ReLU between them.
        Mlp = "MLP",
        /// A bidirectional LSTM, and two linear layers with ReLU between them.
        Lstm = "LSTM",
    }
}

crate::options! {
    /// What the virtual tokens of a new network are.
    pub enum EncoderInit {
        /// Embeddings of random tokens; the last layer of the network is solved for them.
        SampleVocab = "sample_vocab",
        /// What random weights make.
        Random = "random",
    }
}

/// PEFT's `encoder_num_layers`.
const DEFAULT_LAYERS: usize = 2;

/// More layers than any encoder has.
const MOST_LAYERS: usize = 1024;

impl Method for PTuningConfig {
    fn default_learning_rate(&self, _basis: RateBasis<'_>) -> f64 {
        // docs/results.md: the best for texts on models of two widths. Liu et al. 2021 have 1e-4, for many thousands of steps.
        3e-3
    }

    fn validate(&self) -> Result<(), Error> {
        check_at_least_1("num_virtual_tokens", self.num_virtual_tokens)?;
        check_dropout("encoder_dropout", self.encoder_dropout)?;
        check_at_least_1("encoder_hidden_size", self.encoder_hidden_size)?;
        check_at_least_1("encoder_num_layers", Some(self.encoder_num_layers))?;
        if self.encoder_num_layers > MOST_LAYERS {
            let reason = format!("it is {}; at most {MOST_LAYERS}", self.encoder_num_layers);
            return Err(Error::option("encoder_num_layers", reason));
        }
        if self.lstm_half_width && self.encoder_hidden_size.is_some_and(|h| h % 2 == 1) {
            let reason = "`lstm_half_width` needs an even number";
            return Err(Error::option("encoder_hidden_size", reason));
        }
        Ok(())
    }

    fn modules(&self, base: &DecoderConfig) -> ModuleListing {
        self.spec(base).modules()
    }

    fn num_virtual_tokens(&self) -> usize {
        self.num_virtual_tokens.unwrap_or(DEFAULT_TOKENS)
    }

    fn sizes(&self) -> Vec<(&'static str, usize)> {
        vec![
            ("num_virtual_tokens", self.num_virtual_tokens()),
            ("encoder_hidden_size", self.encoder_hidden_size.unwrap_or(0)),
            ("encoder_num_layers", self.encoder_num_layers),
        ]
    }

    fn num_virtual_tokens_mut(&mut self) -> Option<&mut Option<usize>> {
        Some(&mut self.num_virtual_tokens)
    }

    fn fill_in(&mut self, base: &DecoderConfig) {
        self.encoder_hidden_size.get_or_insert(base.hidden_size);
    }

    fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.encoder_reparameterization_type == EncoderReparameterizationType::Mlp {
            let layers = self.encoder_num_layers != DEFAULT_LAYERS;
            for (option, is_set) in [
                ("encoder_num_layers", layers),
                ("encoder_dropout", self.encoder_dropout != 0.0),
                ("lstm_half_width", self.lstm_half_width),
            ] {
                if is_set {
                    warnings.push(format!("method.{option} has no effect on the MLP"));
                }
            }
        }
        warnings
    }
}

impl PTuningConfig {
    fn spec(&self, base: &DecoderConfig) -> PromptEncoderSpec {
        let width = base.hidden_size;
        let hidden = self.encoder_hidden_size.unwrap_or(width);
        let units = match self.lstm_half_width {
            true => hidden / 2,
            false => hidden,
        };
        let lstm = BiLstmSize {
            d_in: width,
            units,
            layers: self.encoder_num_layers,
        };
        let (lstm, linears) = match self.encoder_reparameterization_type {
            EncoderReparameterizationType::Mlp => (
                None,
                vec![[width, hidden], [hidden, hidden], [hidden, width]],
            ),
            EncoderReparameterizationType::Lstm => {
                (Some(lstm), vec![[2 * units, 2 * units], [2 * units, width]])
            }
        };
        PromptEncoderSpec {
            table: [self.num_virtual_tokens(), width],
            lstm,
            dropout: self.encoder_dropout,
            linears,
            init: self.encoder_init,
        }
    }

    pub(crate) fn build<B: Backend>(
        &self,
        base: &DecoderConfig,
        source: Source<'_>,
        device: &B::Device,
    ) -> Result<PTuning<B>, Error> {
        Ok(self.spec(base).build(source, device))
    }
}
