//! How the next token is chosen.

use anyhow::{Result, bail};
use burn_peft_decoder::{Checkpoint, GenerationOptions};

use crate::output;

/// How the next token is chosen. What is not given is taken from the model's generation_config.json.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct SamplingArgs {
    /// Sampling temperature; 0 is greedy.
    #[arg(long, value_name = "T")]
    temperature: Option<f64>,
    /// Sample from the likeliest tokens that together have this probability.
    #[arg(long, value_name = "P")]
    top_p: Option<f64>,
    /// Sample from this many of the likeliest tokens; 0 means all.
    #[arg(long, value_name = "K")]
    top_k: Option<usize>,
    /// Penalty on tokens that already occurred; 1 means none.
    #[arg(long, value_name = "R")]
    repetition_penalty: Option<f64>,
    /// Random seed.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

impl SamplingArgs {
    /// Refuses numbers that nothing can be generated with.
    pub(crate) fn check(&self) -> Result<()> {
        let check = |name: &str, value: Option<f64>, fits: fn(f64) -> bool, range: &str| match value
        {
            Some(value) if !fits(value) => bail!("--{name} is {value}, expected {range}"),
            _ => Ok(()),
        };
        let temperature = |t: f64| t >= 0.0 && t.is_finite();
        check("temperature", self.temperature, temperature, "0 or more")?;
        let top_p = |p: f64| p > 0.0 && p <= 1.0;
        check("top-p", self.top_p, top_p, "above 0, up to 1")?;
        let penalty = |r: f64| r > 0.0 && r.is_finite();
        check(
            "repetition-penalty",
            self.repetition_penalty,
            penalty,
            "above 0",
        )
    }

    /// The options for a model, with a warning of what its files ask for and is not computed.
    pub(crate) fn options(
        &self,
        checkpoint: &Checkpoint,
        stop_ids: Vec<u32>,
        max_new_tokens: usize,
    ) -> Result<GenerationOptions> {
        let config = checkpoint.generation_config();
        let mut options = GenerationOptions::from_config(config, max_new_tokens)?;
        options.stop_ids = stop_ids;
        options.seed = self.seed;
        let given = self.top_p.is_some() || self.top_k.is_some();
        if let Some(temperature) = self.temperature {
            options.temperature = temperature;
        } else if given && options.temperature == 0.0 {
            // top-p or top-k without a temperature means sampling.
            options.temperature = 1.0;
        }
        options.top_p = self.top_p.unwrap_or(options.top_p);
        options.top_k = self.top_k.unwrap_or(options.top_k);
        for note in config.not_computed(options.temperature > 0.0) {
            output::warn(note);
        }
        let penalty = self.repetition_penalty;
        options.repetition_penalty = penalty.unwrap_or(options.repetition_penalty);
        Ok(options)
    }
}
