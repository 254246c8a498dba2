//! The network of P-Tuning: PEFT's `PromptEncoder`.

use burn::{
    module::{Module, Param},
    tensor::{Tensor, activation, backend::Backend},
};

use crate::{
    Adapter, EncoderInit, Injection, ModuleListing, VirtualTokens,
    least_norm::least_norm_layer,
    linear::Linear,
    lstm::{BiLstm, BiLstmSize},
    param::{Init, Source, Start},
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
    /// What a new encoder's virtual tokens are at first.
    pub(crate) init: EncoderInit,
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
        let mut encoder = PTuning {
            embedding,
            lstm_head,
            mlp_head: Vec::new(),
        };
        for (index, size) in self.linears.iter().enumerate() {
            let target = source.start().filter(|_| index + 1 == self.linears.len());
            let target = target.and_then(|start| self.target(start));
            let solved = target.map(|target| {
                let features = activation::relu(encoder.states()).into_data();
                let features: Vec<f64> = features.iter::<f64>().collect();
                least_norm_layer(&features, &target, self.table[0])
            });
            let init = match &solved {
                Some([weight, bias]) => [Init::Values(weight), Init::Values(bias)],
                None => [Init::Uniform(size[0]); 2],
            };
            // The odd places of PEFT's `Sequential` are the ReLUs.
            let name = format!("mlp_head.{}", 2 * index);
            let linear = Linear::starting(&name, *size, init, &mut source, device);
            encoder.mlp_head.push(linear);
        }
        encoder
    }

    /// The virtual tokens that a new encoder is to make; `None` where it makes random ones.
    fn target(&self, start: &Start<'_>) -> Option<Vec<f32>> {
        match self.init {
            EncoderInit::Random => None,
            EncoderInit::SampleVocab => {
                let vocab = start.base.config().vocab_size;
                let random = &mut start.fresh_random();
                let ids = start.tokens.sample(self.table[0], vocab, random);
                Some(start.base.embeddings(&ids))
            }
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

impl<B: Backend> PTuning<B> {
    /// What the network makes of the table, as far as it has layers.
    fn states(&self) -> Tensor<B, 2> {
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
        states
    }
}

impl<B: Backend> Adapter<B> for PTuning<B> {
    fn inject(&self) -> Injection<B> {
        Injection::Prompt(VirtualTokens {
            embeddings: self.states(),
        })
    }
}
