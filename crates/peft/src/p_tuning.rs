//! P-Tuning: virtual tokens that a small network makes (Liu et al. 2021, "GPT Understands, Too").

use burn::{
    module::{Module, Param},
    tensor::{Tensor, activation, backend::Backend},
};
use burn_peft_decoder::DecoderConfig;
use serde::{Deserialize, Serialize};

use crate::{
    Adapter, Error, Injection, ModuleListing, VirtualTokens,
    linear::{self, Linear},
    lstm::{BiLstm, BiLstmSize},
    method::Method,
    param::{Init, Source},
    virtual_tokens::{DEFAULT_TOKENS, check_count, check_dropout},
};

/// Options of P-Tuning, under PEFT's names.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PTuningConfig {
    /// Number of virtual tokens; absent: the template's, else 20.
    pub num_virtual_tokens: Option<usize>,
    /// The network.
    pub encoder_reparameterization_type: EncoderReparameterizationType,
    /// Its width; absent: that of the hidden states, as in PEFT.
    pub encoder_hidden_size: Option<usize>,
    /// Layers of the LSTM. The MLP always has three linear layers.
    pub encoder_num_layers: usize,
    /// Dropout between layers of the LSTM. The MLP has none.
    pub encoder_dropout: f64,
    /// Gives each direction of the LSTM half of `encoder_hidden_size`, as the paper's code does; in
    /// PEFT each has all of it.
    pub lstm_half_width: bool,
}

/// PEFT's `encoder_reparameterization_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum EncoderReparameterizationType {
    /// Three linear layers with ReLU between them.
    Mlp,
    /// A bidirectional LSTM, and two linear layers with ReLU between them.
    Lstm,
}

impl Default for PTuningConfig {
    fn default() -> Self {
        Self {
            num_virtual_tokens: None,
            // PEFT's defaults.
            encoder_reparameterization_type: EncoderReparameterizationType::Mlp,
            encoder_hidden_size: None,
            encoder_num_layers: DEFAULT_LAYERS,
            encoder_dropout: 0.0,
            lstm_half_width: false,
        }
    }
}

/// PEFT's `encoder_num_layers`.
const DEFAULT_LAYERS: usize = 2;

impl Method for PTuningConfig {
    fn name(&self) -> &'static str {
        "p-tuning"
    }

    fn default_learning_rate(&self) -> f64 {
        // Ten times Liu et al. 2021's 1e-4, which is for many thousands of steps; the built-in task
        // is trained at 3e-3.
        1e-3
    }

    fn validate(&self) -> Result<(), Error> {
        check_count(self.num_virtual_tokens)?;
        check_dropout("encoder_dropout", self.encoder_dropout)?;
        if self.encoder_hidden_size == Some(0) {
            return Err(Error::option(
                "encoder_hidden_size",
                "it must be at least 1",
            ));
        }
        if self.encoder_num_layers == 0 {
            return Err(Error::option("encoder_num_layers", "it must be at least 1"));
        }
        if self.lstm_half_width && self.encoder_hidden_size.is_some_and(|h| h % 2 == 1) {
            return Err(Error::option(
                "encoder_hidden_size",
                "`lstm_half_width` needs an even number",
            ));
        }
        Ok(())
    }

    fn num_trainable(&self, base: &DecoderConfig) -> usize {
        let sizes = self.sizes(base);
        let lstm = sizes.lstm.map_or(0, |size| size.count());
        let linears = sizes.linears.iter().map(|size| linear::count(*size));
        sizes.table[0] * sizes.table[1] + lstm + linears.sum::<usize>()
    }

    fn modules(&self, base: &DecoderConfig) -> ModuleListing {
        let sizes = self.sizes(base);
        let mut encoder = ModuleListing::new("PromptEncoder")
            .child("embedding", ModuleListing::embedding(sizes.table));
        if let Some(size) = sizes.lstm {
            encoder = encoder.child("lstm_head", size.listing(self.encoder_dropout));
        }
        let mut mlp = Vec::new();
        for size in sizes.linears {
            if !mlp.is_empty() {
                mlp.push(ModuleListing::new("ReLU"));
            }
            mlp.push(ModuleListing::linear(size, true));
        }
        encoder.child("mlp_head", ModuleListing::sequence("Sequential", mlp))
    }

    fn num_virtual_tokens(&self) -> Option<Option<usize>> {
        Some(self.num_virtual_tokens)
    }

    fn num_virtual_tokens_mut(&mut self) -> Option<&mut Option<usize>> {
        Some(&mut self.num_virtual_tokens)
    }

    fn warnings(&self, learning_rate: f64) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.encoder_reparameterization_type == EncoderReparameterizationType::Mlp {
            for (option, is_set) in [
                (
                    "encoder_num_layers",
                    self.encoder_num_layers != DEFAULT_LAYERS,
                ),
                ("encoder_dropout", self.encoder_dropout != 0.0),
                ("lstm_half_width", self.lstm_half_width),
            ] {
                if is_set {
                    warnings.push(format!("method.{option} has no effect on the MLP"));
                }
            }
        }
        if learning_rate > 0.1 {
            warnings.push(format!(
                "a learning rate of {learning_rate:e} suits bare prompts; the network of P-Tuning \
                 diverges at such rates"
            ));
        }
        warnings
    }
}

/// The sizes of an encoder's parts.
struct Sizes {
    /// Tokens, and inputs of the network.
    table: [usize; 2],
    lstm: Option<BiLstmSize>,
    /// Inputs and outputs of each linear layer.
    linears: Vec<[usize; 2]>,
}

impl PTuningConfig {
    /// Virtual tokens, once options and template have been heard.
    pub(crate) fn count(&self) -> usize {
        self.num_virtual_tokens.unwrap_or(DEFAULT_TOKENS)
    }

    /// The width of the network.
    pub(crate) fn hidden_size(&self, base: &DecoderConfig) -> usize {
        self.encoder_hidden_size.unwrap_or(base.hidden_size)
    }

    fn sizes(&self, base: &DecoderConfig) -> Sizes {
        let (width, hidden) = (base.hidden_size, self.hidden_size(base));
        let table = [self.count(), width];
        match self.encoder_reparameterization_type {
            EncoderReparameterizationType::Mlp => Sizes {
                table,
                lstm: None,
                linears: vec![[width, hidden], [hidden, hidden], [hidden, width]],
            },
            EncoderReparameterizationType::Lstm => {
                let units = if self.lstm_half_width {
                    hidden / 2
                } else {
                    hidden
                };
                Sizes {
                    table,
                    lstm: Some(BiLstmSize {
                        d_in: width,
                        units,
                        layers: self.encoder_num_layers,
                    }),
                    linears: vec![[2 * units, 2 * units], [2 * units, width]],
                }
            }
        }
    }

    pub(crate) fn build<B: Backend>(
        &self,
        base: &DecoderConfig,
        mut source: Source<'_>,
        device: &B::Device,
    ) -> PTuning<B> {
        let Sizes {
            table,
            lstm,
            linears,
        } = self.sizes(base);
        PTuning {
            // As PyTorch starts an embedding. The network brings the numbers to their size.
            embedding: source.param("embedding.weight", table, Init::Normal(1.0), device),
            lstm_head: lstm.map(|size| {
                BiLstm::new("lstm_head", size, self.encoder_dropout, &mut source, device)
            }),
            mlp_head: linears
                .into_iter()
                .enumerate()
                // The odd places of PEFT's `Sequential` are the ReLUs.
                .map(|(i, size)| {
                    Linear::new(&format!("mlp_head.{}", 2 * i), size, &mut source, device)
                })
                .collect(),
        }
    }
}

/// A table of vectors and the network that makes virtual tokens of them. Only what comes out is saved in
/// an adapter folder.
#[derive(Module, Debug)]
pub struct PTuning<B: Backend> {
    /// `[num_virtual_tokens, d_model]`.
    embedding: Param<Tensor<B, 2>>,
    lstm_head: Option<BiLstm<B>>,
    mlp_head: Vec<Linear<B>>,
}

impl<B: Backend> Adapter<B> for PTuning<B> {
    fn inject(&self) -> Injection<B> {
        let mut states = self.embedding.val();
        if let Some(lstm) = &self.lstm_head {
            states = lstm.forward(states);
        }
        for (index, linear) in self.mlp_head.iter().enumerate() {
            if index > 0 {
                states = activation::relu(states);
            }
            states = linear.forward(states);
        }
        Injection::Prompt(VirtualTokens { embeddings: states })
    }
}
