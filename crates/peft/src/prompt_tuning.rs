//! Prompt Tuning: virtual tokens in front of the input, learned directly (Lester et al. 2021).

use burn::{
    module::{Module, Param},
    tensor::{Int, Tensor, TensorData, backend::Backend},
};
use burn_qwen2::Qwen2;
use rand::{Rng, SeedableRng, rngs::StdRng};
use rand_distr::{Distribution, Normal};
use serde::{Deserialize, Serialize};

use crate::{Adapter, Error, InitTokens, Injection, VirtualTokens, param::trainable};

/// Options of Prompt Tuning, under PEFT's names.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PromptTuningConfig {
    /// Length of the prompt, in virtual tokens.
    pub num_virtual_tokens: usize,
    /// What the prompt starts as.
    pub prompt_tuning_init: PromptTuningInit,
    /// The text to start from, with `TEXT`.
    pub prompt_tuning_init_text: Option<String>,
    /// Spread of `RANDOM`.
    pub random_init: RandomInit,
}

/// PEFT's `prompt_tuning_init`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum PromptTuningInit {
    /// Random numbers, see [`RandomInit`].
    Random,
    /// The embeddings of a text, cut or repeated to the length of the prompt.
    Text,
    /// Embeddings of random tokens (Lester et al. 2021, §3.2 "sampled vocabulary").
    SampleVocab,
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
            // Lester et al. 2021, §3.2: beyond 20 tokens only small gains.
            num_virtual_tokens: 20,
            // Lester et al. 2021, figure 3b: ahead of random at every size but the largest.
            prompt_tuning_init: PromptTuningInit::SampleVocab,
            prompt_tuning_init_text: None,
            random_init: RandomInit::Scaled,
        }
    }
}

impl PromptTuningConfig {
    /// The learning rate for AdamW where none is given.
    pub(crate) fn default_learning_rate(&self) -> f64 {
        // PEFT's comparison on MetaMathQA: 1e-3 trains prompts that 1e-4 does not (peft#2815).
        1e-3
    }

    /// Checks what the types leave open.
    ///
    /// # Errors
    /// No virtual tokens, or a `TEXT` initialisation without its text.
    pub(crate) fn validate(&self) -> Result<(), Error> {
        if self.num_virtual_tokens == 0 {
            return Err(Error::Option {
                name: "num_virtual_tokens",
                reason: "it must be at least 1".into(),
            });
        }
        let text = self.prompt_tuning_init_text.as_deref().unwrap_or_default();
        if self.prompt_tuning_init == PromptTuningInit::Text && text.is_empty() {
            return Err(Error::Option {
                name: "prompt_tuning_init_text",
                reason: "`prompt_tuning_init = \"TEXT\"` needs a text".into(),
            });
        }
        Ok(())
    }

    /// See [`MethodConfig::init`](crate::MethodConfig::init).
    pub(crate) fn init<B: Backend>(
        &self,
        base: &Qwen2<B>,
        tokens: InitTokens<'_>,
        seed: u64,
    ) -> Result<PromptTuning<B>, Error> {
        let mut random = StdRng::seed_from_u64(seed);
        let count = self.num_virtual_tokens;
        let rows = match self.prompt_tuning_init {
            PromptTuningInit::Random => {
                let deviation = match self.random_init {
                    RandomInit::Normal => 1.0,
                    RandomInit::Scaled => embedding_spread(base),
                };
                let width = base.config().hidden_size;
                let value = normal_values(count * width, deviation, &mut random);
                let value = TensorData::new(value, [count, width]);
                return Ok(PromptTuning::from_data(value, &base.device()));
            }
            PromptTuningInit::SampleVocab => {
                let known = tokens.known_ids.min(base.config().vocab_size) as u32;
                (0..count).map(|_| random.random_range(0..known)).collect()
            }
            PromptTuningInit::Text => {
                if tokens.text_ids.is_empty() {
                    return Err(Error::Option {
                        name: "prompt_tuning_init_text",
                        reason: "the tokenizer makes no token of it".into(),
                    });
                }
                tokens
                    .text_ids
                    .iter()
                    .copied()
                    .cycle()
                    .take(count)
                    .collect()
            }
        };
        Ok(PromptTuning::from_data(
            embeddings_of(base, rows),
            &base.device(),
        ))
    }
}

/// Virtual tokens as they are, in front of the input.
#[derive(Module, Debug)]
pub struct PromptTuning<B: Backend> {
    /// `[num_virtual_tokens, d_model]`, f32.
    prompt_embeddings: Param<Tensor<B, 2>>,
}

impl<B: Backend> PromptTuning<B> {
    /// An adapter from given embeddings, `[num_virtual_tokens, d_model]`.
    #[must_use]
    pub fn from_data(embeddings: TensorData, device: &B::Device) -> Self {
        Self {
            prompt_embeddings: trainable("prompt_embeddings", embeddings, device),
        }
    }

    /// The virtual tokens, `[num_virtual_tokens, d_model]`.
    #[must_use]
    pub fn prompt_embeddings(&self) -> Tensor<B, 2> {
        self.prompt_embeddings.val()
    }
}

impl<B: Backend> Adapter<B> for PromptTuning<B> {
    fn inject(&self) -> Injection<B> {
        Injection::Prompt(VirtualTokens {
            embeddings: self.prompt_embeddings.val(),
        })
    }
}

/// `count` draws from N(0, deviation²).
fn normal_values(count: usize, deviation: f64, random: &mut StdRng) -> Vec<f32> {
    let normal = Normal::new(0.0, deviation).expect("a deviation is finite and not negative");
    (0..count).map(|_| normal.sample(random) as f32).collect()
}

/// Root mean square of the embedding table, from at most 4,096 of its rows, evenly spread.
fn embedding_spread<B: Backend>(base: &Qwen2<B>) -> f64 {
    let vocab = base.config().vocab_size;
    let rows: Vec<u32> = (0..vocab as u32).step_by(vocab.div_ceil(4096)).collect();
    let values = embeddings_of(base, rows);
    let values: Vec<f64> = values.iter::<f64>().collect();
    (values.iter().map(|value| value * value).sum::<f64>() / values.len() as f64).sqrt()
}

/// Rows of the embedding table, on the host and in f32.
fn embeddings_of<B: Backend>(base: &Qwen2<B>, ids: Vec<u32>) -> TensorData {
    let ids: Vec<i64> = ids.into_iter().map(i64::from).collect();
    let count = ids.len();
    let ids = Tensor::<B, 1, Int>::from_data(TensorData::new(ids, [count]), &base.device());
    let rows = base.embedding_table().select(0, ids).into_data();
    rows.convert::<f32>()
}
