//! What a checkpoint and a caller ask of generation.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::not_computed::NotComputed;
use crate::{
    Error,
    keys::{Keys, is_truthy, unexpected},
};

/// `generation_config.json`: how a checkpoint wants to be sampled.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub struct GenerationConfig {
    /// Ids that end a text.
    pub stop_ids: Vec<u32>,
    /// Whether to sample at all; greedy otherwise.
    pub do_sample: bool,
    /// Divides the logits.
    pub temperature: Option<f64>,
    /// Keeps this many of the likeliest tokens.
    pub top_k: Option<usize>,
    /// Keeps the likeliest tokens that together have this probability.
    pub top_p: Option<f64>,
    /// Divides the score of tokens that already occurred (multiplies negative ones).
    pub repetition_penalty: Option<f64>,
    /// The file, and what in it nothing can be generated with.
    unusable: Option<(PathBuf, String)>,
    not_computed: NotComputed,
}

impl GenerationConfig {
    /// Reads the text of a `generation_config.json`; `path` is named in errors.
    ///
    /// As in transformers, sampling is on where `do_sample` is anything that Python takes for true, what only
    /// sampling needs is not looked at where it is off, and values that nothing can be generated with are refused
    /// when that is tried ([`GenerationOptions::from_config`]).
    ///
    /// # Errors
    /// Text that is not such a file, and stop ids that are none.
    pub fn parse(text: &str, path: impl Into<PathBuf>) -> Result<Self, Error> {
        Self::read(text, path.into(), "a generation configuration")
    }

    /// What transformers makes of a `config.json` that has no `generation_config.json` beside it: it reads the same
    /// keys there.
    ///
    /// # Errors
    /// As [`parse`](Self::parse).
    pub(crate) fn of_model_config(text: &str, path: &Path) -> Result<Self, Error> {
        Self::read(text, path.to_owned(), "a model's configuration")
    }

    fn read(text: &str, path: PathBuf, expected: &str) -> Result<Self, Error> {
        let map: Map<String, Value> = Error::json(&path, text, expected)?;
        let keys = Keys(&map);
        let stop_ids = match stop_ids(keys) {
            Ok(ids) => ids,
            Err(reason) => return Err(Error::Json { path, reason }),
        };
        let mut config = Self {
            stop_ids,
            do_sample: keys.get("do_sample").is_some_and(is_truthy),
            not_computed: NotComputed::of(keys, &path),
            ..Self::default()
        };
        config.unusable = config.read_numbers(keys).err().map(|what| (path, what));
        Ok(config)
    }

    /// What the file asks for, changes the text, and is not computed here, a sentence each; more counts where a text
    /// is `sampled`.
    pub fn not_computed(&self, sampled: bool) -> impl Iterator<Item = &str> {
        self.not_computed.sentences(sampled)
    }

    fn read_numbers(&mut self, keys: Keys<'_>) -> Result<(), String> {
        let above_0 = |key| match keys.number(key)? {
            Some(value) if value <= 0.0 => Err(format!("`{key}` is {value}; expected above 0")),
            found => Ok(found),
        };
        self.repetition_penalty = above_0("repetition_penalty")?;
        if !self.do_sample {
            return Ok(());
        }
        self.temperature = match keys.get("temperature") {
            // Torch takes it for 1.
            Some(Value::Bool(true)) => None,
            _ => above_0("temperature")?,
        };
        self.top_k = keys.whole("top_k")?;
        self.top_p = match keys.number("top_p")? {
            Some(value) if value < 0.0 => {
                return Err(format!("`top_p` is {value}; expected 0 to 1"));
            }
            found => found,
        };
        Ok(())
    }
}

/// The ids of `eos_token_id`: none, one or several. Numbers that are no ids never occur, and so end nothing.
fn stop_ids(keys: Keys<'_>) -> Result<Vec<u32>, String> {
    let key = "eos_token_id";
    let number = |value: &Value| match value.as_f64() {
        Some(number) => Ok(Some(number)
            .filter(|number| number.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(number))
            .map(|number| number as u32)),
        None => Err(unexpected(key, value, "a token id or a list of them")),
    };
    let ids: Result<Vec<Option<u32>>, String> = match keys.get(key) {
        None => Ok(Vec::new()),
        Some(Value::Array(ids)) => ids.iter().map(number).collect(),
        Some(id) => number(id).map(|id| vec![id]),
    };
    Ok(ids?.into_iter().flatten().collect())
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
    ///
    /// # Errors
    /// A number that nothing can be generated with, such as a temperature of 0.
    pub fn from_config(config: &GenerationConfig, max_new_tokens: usize) -> Result<Self, Error> {
        if let Some((path, reason)) = config.unusable.clone() {
            return Err(Error::Json { path, reason });
        }
        let greedy = Self {
            repetition_penalty: config.repetition_penalty.unwrap_or(1.0),
            ..Self::greedy(max_new_tokens, config.stop_ids.clone())
        };
        if !config.do_sample {
            return Ok(greedy);
        }
        Ok(Self {
            // transformers' GenerationConfig: 1.0, 50, 1.0.
            temperature: config.temperature.unwrap_or(1.0),
            top_k: config.top_k.unwrap_or(50),
            top_p: config.top_p.unwrap_or(1.0),
            ..greedy
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<GenerationConfig, Error> {
        GenerationConfig::parse(text, "generation_config.json")
    }

    fn options(text: &str) -> Result<GenerationOptions, Error> {
        GenerationOptions::from_config(&parse(text)?, 5)
    }

    /// What transformers 5.23 does with each.
    #[test]
    fn stop_ids_are_none_one_or_several() {
        for (ids, expected) in [
            ("3", &[3][..]),
            ("[3, 4]", &[3, 4]),
            ("[]", &[]),
            ("null", &[]),
            ("3.0", &[3]),
            // Taken, and never met.
            ("-1", &[]),
            ("1000000000000", &[]),
            ("[3, -1, 0.5]", &[3]),
        ] {
            let found = parse(&format!(r#"{{"eos_token_id": {ids}}}"#)).expect(ids);
            assert_eq!(found.stop_ids, expected, "{ids}");
        }
        for ids in [r#""3""#, "{}", "[[3]]", r#"["3"]"#] {
            let error = parse(&format!(r#"{{"eos_token_id": {ids}}}"#)).expect_err(ids);
            let error = error.to_string();
            assert!(error.contains("`eos_token_id` is "), "{error}");
        }
    }

    #[test]
    fn sampling_is_as_transformers_reads_it() {
        let sampled = options(r#"{"do_sample": true, "top_p": 0.8}"#).expect("parses");
        assert_eq!(
            (sampled.temperature, sampled.top_p, sampled.top_k),
            (1.0, 0.8, 50)
        );
        for (text, expected) in [
            (r#"{"temperature": 0.7}"#, 0.0),
            (r#"{"do_sample": null, "temperature": 0.7}"#, 0.0),
            (r#"{"do_sample": 0, "temperature": "x", "top_k": 5.5}"#, 0.0),
            (r#"{"do_sample": 1, "temperature": null}"#, 1.0),
            (
                r#"{"do_sample": "true", "temperature": 2, "other": {}}"#,
                2.0,
            ),
            (
                r#"{"do_sample": true, "temperature": 0.5, "top_p": 1, "top_k": null}"#,
                0.5,
            ),
            ("{}", 0.0),
        ] {
            assert_eq!(options(text).expect(text).temperature, expected, "{text}");
        }
        let all = options(r#"{"do_sample": true, "top_k": 0}"#).expect("parses");
        assert_eq!(all.top_k, 0);
    }

    #[test]
    fn what_is_not_computed_is_named_with_its_file() {
        let text = r#"{"num_beams": 4, "min_p": 0.1}"#;
        let config = GenerationConfig::of_model_config(text, Path::new("config.json"));
        let config = config.expect("parses");
        let named = |sampled| config.not_computed(sampled).map(str::to_owned);
        let beams = "config.json: `num_beams` is 4, which is not computed here";
        assert_eq!(named(false).collect::<Vec<_>>(), [beams]);
        let min_p = "config.json: `min_p` is 0.1, which is not computed here";
        assert_eq!(named(true).collect::<Vec<_>>(), [beams, min_p]);
    }

    #[test]
    fn what_nothing_can_be_generated_with_is_refused_when_that_is_tried() {
        for (key, value) in [
            ("temperature", "0"),
            ("temperature", "-1.0"),
            ("temperature", r#""0.7""#),
            ("top_k", "-1"),
            ("top_k", "5.5"),
            ("top_p", "-0.5"),
            ("repetition_penalty", "0"),
        ] {
            let text = format!(r#"{{"do_sample": true, "{key}": {value}}}"#);
            parse(&text).expect("a model that is not asked to generate loads");
            let error = options(&text).expect_err(&text).to_string();
            assert!(error.contains(&format!("`{key}` is ")), "{error}");
            assert!(error.starts_with("generation_config.json: "), "{error}");
        }
        for text in ["[]", "3", "null", "", "{"] {
            let error = parse(text).expect_err(text).to_string();
            assert!(
                error.starts_with("generation_config.json: it is not "),
                "{error}"
            );
        }
    }
}
