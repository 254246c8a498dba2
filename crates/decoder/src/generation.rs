//! Token by token: what to choose, and when to stop.

use std::{collections::HashSet, ops::ControlFlow, path::PathBuf};

use burn::tensor::{Int, Tensor, TensorData};
use burn_peft_ops::Ops;
use rand::{Rng, SeedableRng, rngs::StdRng};
use serde::{Deserialize, Serialize};

use crate::{AttentionMask, Decoder, Error, KvCache};

/// `generation_config.json`: how a checkpoint wants to be sampled.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
pub struct GenerationConfig {
    /// Ids that end a text.
    #[serde(default, rename = "eos_token_id")]
    pub stop_ids: StopIds,
    /// Whether to sample at all; greedy otherwise.
    #[serde(default)]
    pub do_sample: bool,
    /// Divides the logits.
    pub temperature: Option<f64>,
    /// Keeps so many of the likeliest tokens.
    pub top_k: Option<usize>,
    /// Keeps the likeliest tokens that together have this probability.
    pub top_p: Option<f64>,
    /// Divides the score of tokens already there (multiplies negative ones).
    pub repetition_penalty: Option<f64>,
}

/// One id or several, as `eos_token_id` is written.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum StopIds {
    /// `"eos_token_id": 1`
    One(u32),
    /// `"eos_token_id": [1, 2]`
    Many(Vec<u32>),
    /// `"eos_token_id": null`
    None(()),
}

impl Default for StopIds {
    fn default() -> Self {
        Self::None(())
    }
}

impl StopIds {
    /// The ids.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u32> {
        match self {
            Self::One(id) => vec![*id],
            Self::Many(ids) => ids.clone(),
            Self::None(()) => Vec::new(),
        }
    }
}

impl GenerationConfig {
    /// Reads the text of a `generation_config.json`; `path` is named in errors.
    ///
    /// # Errors
    /// Text that is not such a file.
    pub fn parse(text: &str, path: impl Into<PathBuf>) -> Result<Self, Error> {
        serde_json::from_str(text).map_err(|source| Error::Json {
            path: path.into(),
            source,
        })
    }
}

/// How to continue a text.
#[derive(Debug, Clone, PartialEq)]
pub struct GenerationOptions {
    /// Most tokens to add to a row.
    pub max_new_tokens: usize,
    /// Ids that end a row.
    pub stop_ids: Vec<u32>,
    /// Divides the logits; 0 is greedy.
    pub temperature: f64,
    /// Keeps so many of the likeliest tokens; 0 keeps all.
    pub top_k: usize,
    /// Keeps the likeliest tokens that together have this probability; 1 keeps all.
    pub top_p: f64,
    /// Divides the score of tokens already there; 1 changes nothing (Keskar et al. 2019).
    pub repetition_penalty: f64,
    /// Of the random choices. Each row draws from its own stream, so a row's text does not depend
    /// on its batch.
    pub seed: u64,
}

impl GenerationOptions {
    /// The likeliest token each time, until one of `stop_ids`.
    #[must_use]
    pub fn greedy(max_new_tokens: usize, stop_ids: Vec<u32>) -> Self {
        Self {
            max_new_tokens,
            stop_ids,
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            repetition_penalty: 1.0,
            seed: 0,
        }
    }

    /// What the checkpoint asks for, as transformers' `generate` takes it.
    #[must_use]
    pub fn from_config(config: &GenerationConfig, max_new_tokens: usize) -> Self {
        let greedy = Self {
            repetition_penalty: config.repetition_penalty.unwrap_or(1.0),
            ..Self::greedy(max_new_tokens, config.stop_ids.to_vec())
        };
        if !config.do_sample {
            return greedy;
        }
        Self {
            // transformers' GenerationConfig: 1.0, 50, 1.0.
            temperature: config.temperature.unwrap_or(1.0),
            top_k: config.top_k.unwrap_or(50),
            top_p: config.top_p.unwrap_or(1.0),
            ..greedy
        }
    }
}

/// Why a row ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FinishReason {
    /// At a stop id.
    Stop,
    /// At `max_new_tokens`, or at the model's longest sequence.
    Length,
}

/// What was added to one row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generated {
    /// The new tokens, the stop id included.
    pub token_ids: Vec<u32>,
    /// Why it ended.
    pub finish_reason: FinishReason,
}

/// Continues every row of a batch whose tokens are in `cache` already.
///
/// `last` are the hidden states of each row's last token, `[batch, d_model]`, as
/// [`Decoder::decode`] returns them; `prompt_ids` are the rows' ids, for the repetition penalty.
/// `on_token` is called with row and id as soon as they are known and may break off.
#[must_use]
pub fn generate<B: Ops>(
    model: &Decoder<B>,
    mut last: Tensor<B, 2>,
    mut cache: KvCache<B>,
    prompt_ids: &[Vec<u32>],
    options: &GenerationOptions,
    on_token: &mut dyn FnMut(usize, u32) -> ControlFlow<()>,
) -> Vec<Generated> {
    let batch = last.dims()[0];
    let device = last.device();
    let mut rows: Vec<Row> = (0..batch)
        .map(|row| Row::new(&prompt_ids[row], options.seed))
        .collect();
    let room = model
        .config()
        .max_position_embeddings
        .saturating_sub(cache.longest_row());
    let limit = options.max_new_tokens.min(room);
    // The last token is not run.
    cache.reserve(limit.saturating_sub(1));
    for step in 0..limit {
        let logits = model.logits(last).into_data();
        let logits: Vec<f32> = logits.iter::<f32>().collect();
        let vocab = logits.len() / batch;
        let mut ids = Vec::with_capacity(batch);
        for (index, row) in rows.iter_mut().enumerate() {
            if row.finished.is_some() {
                // A finished row goes on being computed with its batch; what it gets is not used.
                ids.push(0);
                continue;
            }
            let id = row.choose(&logits[index * vocab..(index + 1) * vocab], options);
            ids.push(i64::from(id));
            if on_token(index, id).is_break() {
                return rows.into_iter().map(Row::into_generated).collect();
            }
        }
        if step + 1 == limit || rows.iter().all(|row| row.finished.is_some()) {
            break;
        }
        let ids = Tensor::<B, 2, Int>::from_data(TensorData::new(ids, [batch, 1]), &device);
        let mask = AttentionMask::full(batch, 1);
        last = model.decode(model.embed(ids), &mask, &mut cache, None);
    }
    rows.into_iter().map(Row::into_generated).collect()
}

/// One row while it grows.
struct Row {
    new_ids: Vec<u32>,
    seen: HashSet<u32>,
    finished: Option<FinishReason>,
    random: StdRng,
}

impl Row {
    fn new(prompt_ids: &[u32], seed: u64) -> Self {
        Self {
            new_ids: Vec::new(),
            seen: prompt_ids.iter().copied().collect(),
            finished: None,
            random: StdRng::seed_from_u64(seed),
        }
    }

    fn choose(&mut self, logits: &[f32], options: &GenerationOptions) -> u32 {
        let mut scores = logits.to_vec();
        if options.repetition_penalty != 1.0 {
            let penalty = options.repetition_penalty as f32;
            for id in &self.seen {
                let score = &mut scores[*id as usize];
                *score = if *score > 0.0 {
                    *score / penalty
                } else {
                    *score * penalty
                };
            }
        }
        let id = if options.temperature <= 0.0 {
            likeliest(&scores)
        } else {
            sample(&scores, options, &mut self.random)
        };
        self.new_ids.push(id);
        self.seen.insert(id);
        if options.stop_ids.contains(&id) {
            self.finished = Some(FinishReason::Stop);
        }
        id
    }

    fn into_generated(self) -> Generated {
        Generated {
            token_ids: self.new_ids,
            finish_reason: self.finished.unwrap_or(FinishReason::Length),
        }
    }
}

/// The first of the largest scores, as `torch.argmax` chooses.
fn likeliest(scores: &[f32]) -> u32 {
    let mut best = 0;
    for (id, score) in scores.iter().enumerate() {
        if *score > scores[best] {
            best = id;
        }
    }
    best as u32
}

/// Temperature, then top-k, then top-p: transformers' order.
fn sample(scores: &[f32], options: &GenerationOptions, random: &mut StdRng) -> u32 {
    let mut candidates: Vec<(u32, f64)> = scores
        .iter()
        .enumerate()
        .map(|(id, score)| (id as u32, f64::from(*score) / options.temperature))
        .collect();
    candidates.sort_by(|a, b| b.1.total_cmp(&a.1));
    if options.top_k > 0 {
        candidates.truncate(options.top_k);
    }
    let largest = candidates[0].1;
    let mut total = 0.0;
    for (_, score) in &mut candidates {
        *score = (*score - largest).exp();
        total += *score;
    }
    // The nucleus: the fewest tokens that reach top_p, never none (Holtzman et al. 2020).
    let mut kept = 0.0;
    let mut nucleus = 0;
    for (_, weight) in &candidates {
        if nucleus > 0 && kept >= options.top_p * total {
            break;
        }
        kept += weight;
        nucleus += 1;
    }
    let mut draw = random.random::<f64>() * kept;
    for (id, weight) in &candidates[..nucleus] {
        draw -= weight;
        if draw < 0.0 {
            return *id;
        }
    }
    candidates[nucleus - 1].0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> GenerationOptions {
        GenerationOptions {
            temperature: 1.0,
            ..GenerationOptions::greedy(1, vec![])
        }
    }

    fn counts(scores: &[f32], options: &GenerationOptions) -> Vec<usize> {
        let mut random = StdRng::seed_from_u64(7);
        let mut counts = vec![0; scores.len()];
        for _ in 0..20_000 {
            counts[sample(scores, options, &mut random) as usize] += 1;
        }
        counts
    }

    #[test]
    fn sampling_follows_the_softmax_at_the_temperature() {
        // Probabilities 0.8 and 0.2 at temperature 1; odds 4 become 16 at temperature 1/2.
        let scores = [4.0_f32.ln(), 0.0];
        let expected = [(1.0, 0.2), (0.5, 1.0 / 17.0)];
        for (temperature, rare) in expected {
            let options = GenerationOptions {
                temperature,
                ..options()
            };
            let found = counts(&scores, &options)[1] as f64 / 20_000.0;
            // Four standard deviations of a binomial of 20,000 draws.
            let deviation = (rare * (1.0 - rare) / 20_000.0_f64).sqrt();
            assert!((found - rare).abs() < 4.0 * deviation, "{found} for {rare}");
        }
    }

    #[test]
    fn top_k_and_top_p_cut_the_tail() {
        let scores = [0.5_f32.ln(), 0.3_f32.ln(), 0.15_f32.ln(), 0.05_f32.ln()];
        let top_k = GenerationOptions {
            top_k: 2,
            ..options()
        };
        assert_eq!(counts(&scores, &top_k)[2..], [0, 0]);
        let top_p = GenerationOptions {
            top_p: 0.79,
            ..options()
        };
        assert_eq!(counts(&scores, &top_p)[2..], [0, 0]);
        let top_p = GenerationOptions {
            top_p: 0.81,
            ..options()
        };
        assert!(counts(&scores, &top_p)[2] > 0 && counts(&scores, &top_p)[3] == 0);
    }

    #[test]
    fn repetition_penalty_lowers_positive_and_negative_scores() {
        let options = GenerationOptions {
            repetition_penalty: 2.0,
            ..GenerationOptions::greedy(1, vec![])
        };
        assert_eq!(Row::new(&[0], 0).choose(&[1.5, 1.0], &options), 1);
        assert_eq!(Row::new(&[0], 0).choose(&[-0.6, -1.0], &options), 1);
    }

    #[test]
    fn generation_config_takes_one_stop_id_or_several() {
        let parse = |text| GenerationConfig::parse(text, "generation_config.json");
        let many = parse(r#"{"eos_token_id": [3, 4], "do_sample": true, "top_p": 0.8}"#);
        let options = GenerationOptions::from_config(&many.expect("parses"), 5);
        assert_eq!(
            (options.stop_ids, options.top_p, options.top_k),
            (vec![3, 4], 0.8, 50)
        );
        let one = parse(r#"{"eos_token_id": 3, "temperature": 0.7}"#).expect("parses");
        assert_eq!(GenerationOptions::from_config(&one, 5).temperature, 0.0);
    }
}
