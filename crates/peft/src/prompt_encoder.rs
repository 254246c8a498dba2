//! The network of P-Tuning: PEFT's `PromptEncoder`.

use burn::{
    module::{Module, Param},
    tensor::{Tensor, activation, backend::Backend},
};

use crate::{
    Adapter, Injection, ModuleListing, VirtualTokens,
    linear::Linear,
    lstm::{BiLstm, BiLstmSize},
    param::{Init, Source},
};

/// The sizes of an encoder's parts.
pub(crate) struct PromptEncoderSpec {
    /// Virtual tokens, and inputs of the network.
    pub(crate) table: [usize; 2],
    pub(crate) lstm: Option<BiLstmSize>,
    /// Between the layers of the LSTM.
    pub(crate) dropout: f64,
    /// Inputs and outputs of each linear layer.
    pub(crate) linears: Vec<[usize; 2]>,
}

impl PromptEncoderSpec {
    /// The listing of PEFT's `PromptEncoder`.
    pub(crate) fn modules(&self) -> ModuleListing {
        let mut encoder = ModuleListing::new("PromptEncoder")
            .child("embedding", ModuleListing::embedding(self.table));
        if let Some(size) = self.lstm {
            encoder = encoder.child("lstm_head", size.listing(self.dropout));
        }
        let mut mlp = Vec::new();
        for size in &self.linears {
            if !mlp.is_empty() {
                mlp.push(ModuleListing::new("ReLU"));
            }
            mlp.push(ModuleListing::linear(*size, true));
        }
        encoder.child("mlp_head", ModuleListing::sequence("Sequential", mlp))
    }

    pub(crate) fn build<B: Backend>(
        &self,
        mut source: Source<'_>,
        device: &B::Device,
    ) -> PTuning<B> {
        // As PyTorch starts an embedding. The network brings the numbers to their size.
        let embedding = source.param("embedding.weight", self.table, Init::Normal(1.0), device);
        let lstm_head = self
            .lstm
            .map(|size| BiLstm::new("lstm_head", size, self.dropout, &mut source, device));
        let linears = self.linears.iter().enumerate();
        PTuning {
            embedding,
            lstm_head,
            mlp_head: linears
                // The odd places of PEFT's `Sequential` are the ReLUs.
                .map(|(i, size)| {
                    Linear::new(&format!("mlp_head.{}", 2 * i), *size, &mut source, device)
                })
                .collect(),
        }
    }
}

/// A table of vectors and the network that makes virtual tokens of them. An adapter folder holds the virtual
/// tokens only.
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
