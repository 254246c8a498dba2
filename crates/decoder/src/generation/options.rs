//! What a checkpoint and a caller ask of generation.

use std::path::PathBuf;

use serde::Deserialize;

use crate::Error;

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
    /// Keeps this many of the likeliest tokens.
    pub top_k: Option<usize>,
    /// Keeps the likeliest tokens that together have this probability.
    pub top_p: Option<f64>,
    /// Divides the score of tokens that already occurred (multiplies negative ones).
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
        Error::json(&path.into(), text, "a generation configuration")
    }
}

/// How to continue a text.
#[derive(Debug, Clone, PartialEq)]
pub struct GenerationOptions {
    /// Maximum number of tokens added to a row.
    pub max_new_tokens: usize,
    /// Ids that end a row.
    pub stop_ids: Vec<u32>,
    /// Divides the logits; 0 is greedy.
    pub temperature: f64,
    /// Keeps this many of the likeliest tokens; 0 keeps all.
    pub top_k: usize,
    /// Keeps the likeliest tokens that together have this probability; 1 keeps all.
    pub top_p: f64,
    /// Divides the score of tokens that already occurred; 1 changes nothing (Keskar et al. 2019).
    pub repetition_penalty: f64,
    /// Random seed. Each row draws from its own stream, so a row's text does not depend
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

#[cfg(test)]
mod tests {
    use super::*;

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
