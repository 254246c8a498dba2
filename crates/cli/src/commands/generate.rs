//! `generate`: one completion.

use std::ops::ControlFlow;

use anyhow::{Context, Result, bail};
use burn::tensor::backend::AutodiffBackend;
use burn_peft_data::{Message, Prompt, StreamDecoder};
use burn_peft_decoder::{FinishReason, GenerationOptions};
use burn_peft_ops::Ops;
use burn_peft_train::left_padded;
use serde::Serialize;

use super::shared::{ComputeArgs, ModelArgs, OpenModel};
use crate::{backend::Job, output};

/// Arguments of `generate`. Sampling options that are not given are taken from the model's
/// generation_config.json; without that file, decoding is greedy.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Text to continue. If the adapter was trained with a template, the text fills its field.
    #[arg(long)]
    prompt: String,
    /// Render the prompt with the model's chat template, as a user's turn.
    #[arg(long)]
    chat: bool,
    /// Maximum number of new tokens.
    #[arg(long, value_name = "N", default_value_t = 256)]
    max_new_tokens: usize,
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
    /// Print one JSON object to stdout: prompt_ids, token_ids, text, finish_reason.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    compute: ComputeArgs,
}

#[derive(Serialize)]
struct Completion<'a> {
    prompt_ids: &'a [u32],
    token_ids: &'a [u32],
    text: &'a str,
    finish_reason: FinishReason,
}

pub(crate) fn run(args: Args) -> Result<()> {
    args.compute.start_threads()?;
    let options_error = args.options_error();
    if let Some(error) = options_error {
        bail!(error);
    }
    let open = args.model.open()?;
    let task = open.task();
    if task.head_kind().is_some() {
        bail!(
            "--adapter: its head is for {}, and writes no text; use predict",
            task.task
        );
    }
    let prompt = match args.chat {
        true => open
            .tokenizer
            .render_chat(&[Message::new("user", args.prompt.as_str())], true)?,
        false => args.prompt.clone(),
    };
    let prompt = match &open.template {
        Some(template) => template
            .prompt_ids_of_text(&prompt, &open.tokenizer)
            .context("--prompt")?,
        // A chat template writes its own BOS, if there is one.
        None if args.chat => open.tokenizer.encode(&prompt)?.into(),
        None => open.tokenizer.encode_start(&prompt)?.into(),
    };
    // Virtual tokens of a prompt predict a first token by themselves; keys and values do not.
    if prompt.input_ids.is_empty() && !open.has_prompt() {
        bail!("--prompt: there is no token in it; give the model something to continue");
    }
    let longest = open.longest_row();
    if prompt.input_ids.len() >= longest {
        bail!(
            "--prompt: it has {} tokens, and the model has room for {longest}, new ones included",
            prompt.input_ids.len()
        );
    }
    args.compute.backend.run(Generate {
        args: &args,
        open,
        prompt,
    })
}

impl Args {
    fn options_error(&self) -> Option<String> {
        let out_of = |name: &str, value: Option<f64>, fits: fn(f64) -> bool, range: &str| {
            value
                .filter(|value| !fits(*value))
                .map(|value| format!("--{name} is {value}, expected {range}"))
        };
        out_of(
            "temperature",
            self.temperature,
            |t| t >= 0.0 && t.is_finite(),
            "0 or more",
        )
        .or_else(|| {
            out_of(
                "top-p",
                self.top_p,
                |p| p > 0.0 && p <= 1.0,
                "above 0, up to 1",
            )
        })
        .or_else(|| {
            let fits = |r: f64| r > 0.0 && r.is_finite();
            out_of(
                "repetition-penalty",
                self.repetition_penalty,
                fits,
                "above 0",
            )
        })
    }

    fn options(&self, open: &OpenModel) -> Result<GenerationOptions> {
        let config = open.checkpoint.generation_config();
        let mut options = GenerationOptions::from_config(config, self.max_new_tokens)?;
        options.stop_ids = open.stop_ids();
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

struct Generate<'a> {
    args: &'a Args,
    open: OpenModel,
    prompt: Prompt,
}

impl Job for Generate<'_> {
    fn run<B>(self, device: B::Device) -> Result<()>
    where
        B: AutodiffBackend<InnerBackend: Ops> + Ops,
    {
        let Self { args, open, prompt } = self;
        let options = args.options(&open)?;
        let model = open.load::<B::InnerBackend>(args.compute.dtype(None).into(), &device)?;
        let inputs = left_padded(std::slice::from_ref(&prompt), &device);
        let mut stream = StreamDecoder::new(&open.tokenizer);
        let mut text = String::new();
        let mut shown = Ok(());
        let generated = model.generate(inputs, &options, &mut |_, id| {
            if let Some(part) = stream.push(id) {
                text.push_str(&part);
                if !args.json {
                    shown = output::print(&part);
                }
            }
            match shown.is_ok() {
                true => ControlFlow::Continue(()),
                false => ControlFlow::Break(()),
            }
        });
        shown?;
        let rest = stream.finish().unwrap_or_default();
        text.push_str(&rest);
        let row = generated.first().context("one prompt gives one row")?;
        if args.json {
            output::print_json(&Completion {
                prompt_ids: &prompt.input_ids,
                token_ids: &row.token_ids,
                text: &text,
                finish_reason: row.finish_reason,
            })
        } else {
            output::print(&format!("{rest}\n"))
        }
    }
}
