//! The fields that both endpoints have: how to go on, and what to send of it.

use burn_peft_decoder::GenerationOptions;
use serde_json::Value;

use super::{
    error::ApiError,
    fields::{Fields, expected},
};

/// Answers to one prompt, at most.
const MOST_CHOICES: i64 = 128;
/// Stop strings of a request, at most, and their length in bytes.
const MOST_STOPS: usize = 4;
const LONGEST_STOP: usize = 512;
/// Log-probabilities at one place, at most.
pub(crate) const MOST_LOGPROBS: i64 = 20;

/// How a text goes on.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sampling {
    /// Answers to each prompt.
    pub(crate) n: usize,
    pub(crate) max_tokens: Option<usize>,
    pub(crate) stop: Vec<String>,
    /// `None` is for one that is drawn.
    pub(crate) seed: Option<u64>,
    pub(crate) stream: bool,
    pub(crate) include_usage: bool,
    ignore_eos: bool,
    temperature: Option<f64>,
    top_p: Option<f64>,
    top_k: Option<usize>,
    repetition_penalty: Option<f64>,
}

impl Sampling {
    /// For what is only read: no token is new.
    pub(crate) fn none() -> Self {
        Self {
            n: 1,
            max_tokens: Some(0),
            stop: Vec::new(),
            seed: Some(0),
            stream: false,
            include_usage: false,
            ignore_eos: true,
            temperature: None,
            top_p: None,
            top_k: None,
            repetition_penalty: None,
        }
    }

    /// Takes them out. `least` is the smallest number of new tokens that may be asked for.
    pub(crate) fn take(fields: &mut Fields, least: i64) -> Result<Self, ApiError> {
        let n = fields.whole("n", 1..=MOST_CHOICES)?.unwrap_or(1) as usize;
        // The older and the newer name.
        let old = fields.whole("max_tokens", least..=i64::MAX)?;
        let new = fields.whole("max_completion_tokens", least..=i64::MAX)?;
        let stream = fields.flag("stream")?;
        Ok(Self {
            n,
            max_tokens: new
                .or(old)
                .map(|count| usize::try_from(count).unwrap_or(usize::MAX)),
            stop: stops(fields.take("stop"))?,
            seed: fields
                .whole("seed", i64::MIN..=i64::MAX)?
                .map(i64::cast_unsigned),
            include_usage: include_usage(fields.take("stream_options"), stream)?,
            stream,
            ignore_eos: fields.flag("ignore_eos")?,
            temperature: fields.number("temperature", 0.0..=2.0)?,
            top_p: top_p(fields)?,
            // vLLM's name for all of them is -1.
            top_k: fields
                .whole("top_k", -1..=i64::MAX)?
                .map(|count| count.max(0) as usize),
            repetition_penalty: fields.number("repetition_penalty", 0.01..=10.0)?,
        })
    }

    /// The ids that end a text.
    pub(crate) fn stop_ids(&self, defaults: &GenerationOptions) -> Vec<u32> {
        match self.ignore_eos {
            true => Vec::new(),
            false => defaults.stop_ids.clone(),
        }
    }

    /// The options of one row; `defaults` are the server's.
    pub(crate) fn options(
        &self,
        defaults: &GenerationOptions,
        max_new_tokens: usize,
        seed: u64,
    ) -> GenerationOptions {
        GenerationOptions {
            max_new_tokens,
            stop_ids: self.stop_ids(defaults),
            temperature: self.temperature.unwrap_or(defaults.temperature),
            top_k: self.top_k.unwrap_or(defaults.top_k),
            top_p: self.top_p.unwrap_or(defaults.top_p),
            repetition_penalty: self
                .repetition_penalty
                .unwrap_or(defaults.repetition_penalty),
            seed,
        }
    }
}

fn top_p(fields: &mut Fields) -> Result<Option<f64>, ApiError> {
    match fields.number("top_p", 0.0..=1.0)? {
        // The likeliest token is always kept, as with transformers.
        Some(0.0) => Ok(Some(f64::MIN_POSITIVE)),
        found => Ok(found),
    }
}

fn stops(value: Option<Value>) -> Result<Vec<String>, ApiError> {
    let wrong = || expected("stop", &format!("a string, or up to {MOST_STOPS} of them"));
    let stops = match value {
        None => Vec::new(),
        Some(Value::String(stop)) => vec![stop],
        Some(Value::Array(stops)) if stops.len() <= MOST_STOPS => {
            let text = |stop| match stop {
                Value::String(stop) => Ok(stop),
                _ => Err(wrong()),
            };
            stops.into_iter().map(text).collect::<Result<_, _>>()?
        }
        Some(_) => return Err(wrong()),
    };
    match stops
        .iter()
        .all(|stop| (1..=LONGEST_STOP).contains(&stop.len()))
    {
        true => Ok(stops),
        false => Err(expected(
            "stop",
            &format!("of 1 to {LONGEST_STOP} bytes each"),
        )),
    }
}

fn include_usage(value: Option<Value>, stream: bool) -> Result<bool, ApiError> {
    const NAME: &str = "stream_options";
    match value {
        None => Ok(false),
        Some(_) if !stream => Err(ApiError::field(
            NAME,
            "`stream_options` is for `stream` only",
        )),
        Some(Value::Object(options)) => {
            for (name, value) in &options {
                match (name.as_str(), value) {
                    ("include_usage", Value::Bool(_)) => {}
                    // Padding against observers of the network, which there is none of here.
                    ("include_obfuscation" | "continuous_usage_stats", Value::Bool(false)) => {}
                    (_, Value::Null) => {}
                    _ => {
                        let what = "an object with `include_usage`, true or false";
                        return Err(expected(NAME, what));
                    }
                }
            }
            Ok(options.get("include_usage") == Some(&Value::Bool(true)))
        }
        Some(_) => Err(expected(NAME, "an object")),
    }
}
