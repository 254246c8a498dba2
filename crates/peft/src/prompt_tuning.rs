//! Prompt Tuning: virtual tokens in front of the input, learned directly (Lester et al. 2021).

use burn::{
    module::{Module, Param},
    tensor::{Tensor, TensorData, backend::Backend},
};
use burn_peft_decoder::{Decoder, DecoderConfig};
use burn_peft_ops::Ops;
use rand::{SeedableRng, rngs::StdRng};
use serde::{Deserialize, Serialize};

use crate::{
    Adapter, Error, InitTokens, Injection, ModuleListing, VirtualTokens,
    method::Method,
    param::{Init, draw, trainable},
    virtual_tokens::{DEFAULT_TOKENS, check_count, cut_or_repeat, embedding_spread, embeddings_of},
};

/// Options of Prompt Tuning, under PEFT's names.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PromptTuningConfig {
    /// Length of the prompt, in virtual tokens; absent: the text's with `TEXT`, else 20.
    pub num_virtual_tokens: Option<usize>,
    /// What the prompt starts as.
    pub prompt_tuning_init: PromptTuningInit,
    /// The text to start from, with `TEXT`.
    pub prompt_tuning_init_text: Option<String>,
    /// The labels to start from, with `CLASS_LABELS`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub prompt_tuning_init_labels: Vec<String>,
    /// Spread of `RANDOM`.
    pub random_init: RandomInit,
    /// An adapter folder to start from, in place of `prompt_tuning_init`.
    pub init_from: Option<String>,
}

/// PEFT's `prompt_tuning_init`, and one more of Lester et al.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum PromptTuningInit {
    /// Random numbers, see [`RandomInit`].
    Random,
    /// The embeddings of a text, cut or repeated to the length of the prompt.
    Text,
    /// Embeddings of random tokens (Lester et al. 2021, §3.2 "sampled vocabulary").
    SampleVocab,
    /// One virtual token a label, the mean of the label's embeddings; the rest as `SAMPLE_VOCAB`
    /// (Lester et al. 2021, §3.2 "class label"). PEFT has no such start.
    ClassLabels,
}

/// The spread of random virtual tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RandomInit {
    /// A normal distribution with the embedding table's own mean square.
    Scaled,
    /// N(0, 1), as PEFT has it: some 50 times the spread of Qwen2's embeddings.
    Normal,
}

impl Default for PromptTuningConfig {
    fn default() -> Self {
        Self {
            num_virtual_tokens: None,
            // Lester et al. 2021, figure 3b: ahead of random at every size but the largest.
            prompt_tuning_init: PromptTuningInit::SampleVocab,
            prompt_tuning_init_text: None,
            prompt_tuning_init_labels: Vec::new(),
            random_init: RandomInit::Scaled,
            init_from: None,
        }
    }
}

impl Method for PromptTuningConfig {
    fn name(&self) -> &'static str {
        "prompt-tuning"
    }

    fn default_learning_rate(&self) -> f64 {
        // PEFT's comparison on MetaMathQA: 1e-3 trains prompts that 1e-4 does not (peft#2815).
        1e-3
    }

    fn validate(&self) -> Result<(), Error> {
        check_count(self.num_virtual_tokens)?;
        let text = self.prompt_tuning_init_text.as_deref().unwrap_or_default();
        if self.prompt_tuning_init == PromptTuningInit::Text && text.is_empty() {
            return Err(Error::option(
                "prompt_tuning_init_text",
                "`prompt_tuning_init = \"TEXT\"` needs a text",
            ));
        }
        let labels = self.prompt_tuning_init_labels.len();
        if self.prompt_tuning_init == PromptTuningInit::ClassLabels
            && !(1..=self.count()).contains(&labels)
        {
            let count = self.count();
            return Err(Error::option(
                "prompt_tuning_init_labels",
                format!("{labels} labels; `CLASS_LABELS` needs 1 to {count}, one a virtual token"),
            ));
        }
        Ok(())
    }

    fn num_trainable(&self, base: &DecoderConfig) -> usize {
        self.count() * base.hidden_size
    }

    fn modules(&self, base: &DecoderConfig) -> ModuleListing {
        let table = [self.count(), base.hidden_size];
        ModuleListing::new("PromptEmbedding").child("embedding", ModuleListing::embedding(table))
    }

    fn num_virtual_tokens(&self) -> Option<Option<usize>> {
        Some(self.num_virtual_tokens)
    }

    fn num_virtual_tokens_mut(&mut self) -> Option<&mut Option<usize>> {
        Some(&mut self.num_virtual_tokens)
    }

    fn init_text(&self) -> Option<&str> {
        let used = self.prompt_tuning_init == PromptTuningInit::Text && self.init_from.is_none();
        self.prompt_tuning_init_text.as_deref().filter(|_| used)
    }

    fn init_labels(&self) -> &[String] {
        match self.prompt_tuning_init {
            PromptTuningInit::ClassLabels => &self.prompt_tuning_init_labels,
            _ => &[],
        }
    }

    fn init_from(&self) -> Option<&str> {
        self.init_from.as_deref()
    }

    fn warnings(&self, learning_rate: f64) -> Vec<String> {
        let mut warnings = Vec::new();
        let from_init = self.init_from.is_none();
        if from_init
            && self.prompt_tuning_init == PromptTuningInit::Random
            && self.random_init == RandomInit::Normal
        {
            // PEFT's comparison on MetaMathQA: 23.4 % against 34.3 % with vocabulary rows.
            warnings.push(
                "prompts drawn from N(0, 1) are known to train badly; \
                 `prompt_tuning_init = \"SAMPLE_VOCAB\"` starts from embeddings"
                    .into(),
            );
        }
        if learning_rate <= 1e-4 {
            // The same: 5.7 % at 1e-4.
            warnings.push(format!(
                "a learning rate of {learning_rate:e} is known to be too low for prompts, which hardly \
                 move; 1e-3 and more train"
            ));
        }
        warnings
    }
}

impl PromptTuningConfig {
    /// Virtual tokens, once options, template and text have been heard.
    pub(crate) fn count(&self) -> usize {
        self.num_virtual_tokens.unwrap_or(DEFAULT_TOKENS)
    }

    /// See [`MethodConfig::init`](crate::MethodConfig::init).
    pub(crate) fn init<B: Ops>(
        &self,
        base: &Decoder<B>,
        tokens: &InitTokens,
        seed: u64,
    ) -> Result<PromptTuning<B>, Error> {
        let mut random = StdRng::seed_from_u64(seed);
        let (count, width) = (self.count(), base.config().hidden_size);
        let vocab = base.config().vocab_size;
        let values = match self.prompt_tuning_init {
            PromptTuningInit::Random => {
                let deviation = match self.random_init {
                    RandomInit::Normal => 1.0,
                    RandomInit::Scaled => embedding_spread(base),
                };
                draw(count * width, Init::Normal(deviation), &mut random)
            }
            PromptTuningInit::SampleVocab => {
                embeddings_of(base, &tokens.sample(count, vocab, &mut random))
            }
            PromptTuningInit::Text => {
                let option = "prompt_tuning_init_text";
                embeddings_of(base, &cut_or_repeat(&tokens.text_ids, count, option)?)
            }
            PromptTuningInit::ClassLabels => {
                let mut values = Vec::with_capacity(count * width);
                for ids in &tokens.label_ids {
                    values.extend(mean_embedding(base, ids)?);
                }
                let rest = count - tokens.label_ids.len();
                values.extend(embeddings_of(
                    base,
                    &tokens.sample(rest, vocab, &mut random),
                ));
                values
            }
        };
        let values = TensorData::new(values, [count, width]);
        Ok(PromptTuning::from_data(values, &base.device()))
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
        Self {
            embedding: trainable("embedding.weight", embeddings, device),
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

/// The mean of the embeddings of a label's tokens, `[d_model]`.
fn mean_embedding<B: Ops>(base: &Decoder<B>, ids: &[u32]) -> Result<Vec<f32>, Error> {
    if ids.is_empty() {
        return Err(Error::option(
            "prompt_tuning_init_labels",
            "the tokenizer makes no token of one of the labels",
        ));
    }
    let rows = embeddings_of(base, ids);
    let width = base.config().hidden_size;
    let sum = |column: usize| rows.iter().skip(column).step_by(width).sum::<f32>();
    Ok((0..width)
        .map(|column| sum(column) / ids.len() as f32)
        .collect())
}
