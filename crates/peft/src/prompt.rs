//! Virtual tokens that are trained directly, and what they start as.

use burn::{
    module::{Module, Param},
    tensor::{Tensor, TensorData, backend::Backend},
};
use burn_peft_decoder::DecoderConfig;

use crate::{
    Adapter, Error, Injection, PromptTuningConfig, PromptTuningInit, RandomInit, VirtualTokens,
    method::Method,
    param::{Init, Source, Start, draw},
    virtual_tokens::{cut_or_repeat, embedding_spread, mean_embedding},
};

impl PromptTuningConfig {
    pub(crate) fn build<B: Backend>(
        &self,
        base: &DecoderConfig,
        source: Source<'_>,
        device: &B::Device,
    ) -> Result<PromptTuning<B>, Error> {
        let start = source.start().map(|start| self.start(start)).transpose()?;
        let init = start.as_deref().map_or(Init::Zeros, Init::Values);
        let table = [self.num_virtual_tokens(), base.hidden_size];
        Ok(PromptTuning::new(table, init, source, device))
    }

    /// The embeddings that a new prompt starts as, row-major `[num_virtual_tokens, d_model]`.
    fn start(&self, start: &Start<'_>) -> Result<Vec<f32>, Error> {
        let Start { base, tokens, .. } = start;
        let (count, random) = (self.num_virtual_tokens(), &mut start.fresh_random());
        let mut sample = |count| tokens.sample(count, base.config().vocab_size, random);
        Ok(match self.prompt_tuning_init {
            PromptTuningInit::Random => {
                let deviation = match self.random_init {
                    RandomInit::Normal => 1.0,
                    RandomInit::Scaled => embedding_spread(*base),
                };
                let size = count * base.config().hidden_size;
                draw(size, Init::Normal(deviation), &mut start.fresh_random())
            }
            PromptTuningInit::SampleVocab => base.embeddings(&sample(count)),
            PromptTuningInit::Text => {
                let option = "prompt_tuning_init_text";
                base.embeddings(&cut_or_repeat(&tokens.text_ids, count, option)?)
            }
            PromptTuningInit::ClassLabels => {
                let option = "prompt_tuning_init_labels";
                let of_label = |ids: &Vec<u32>| mean_embedding(*base, ids, option);
                let labels: Result<Vec<_>, _> = tokens.label_ids.iter().map(of_label).collect();
                let rest = base.embeddings(&sample(count - tokens.label_ids.len()));
                [labels?.concat(), rest].concat()
            }
        })
    }
}

/// Virtual tokens as they are, in front of the input.
#[derive(Module, Debug)]
pub struct PromptTuning<B: Backend> {
    /// `[num_virtual_tokens, d_model]`, f32.
    embedding: Param<Tensor<B, 2>>,
}

impl<B: Backend> PromptTuning<B> {
    /// An adapter from given embeddings, `[num_virtual_tokens, d_model]`.
    #[must_use]
    pub fn from_data(embeddings: TensorData, device: &B::Device) -> Self {
        let table = [embeddings.shape[0], embeddings.shape[1]];
        let given = Source::Given(&|_| embeddings.clone());
        Self::new(table, Init::Zeros, given, device)
    }

    fn new(table: [usize; 2], init: Init<'_>, mut source: Source<'_>, device: &B::Device) -> Self {
        Self {
            embedding: source.param("embedding.weight", table, init, device),
        }
    }
}

impl<B: Backend> Adapter<B> for PromptTuning<B> {
    fn inject(&self) -> Injection<B> {
        Injection::Prompt(VirtualTokens {
            embeddings: self.embedding.val(),
        })
    }
}
