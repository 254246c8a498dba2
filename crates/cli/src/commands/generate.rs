//! `generate`: one completion.

use std::ops::ControlFlow;

use anyhow::{Context, Result, bail};
use burn::tensor::backend::AutodiffBackend;
use burn_peft_data::{Message, Prompt, StreamDecoder};
use burn_peft_decoder::FinishReason;
use burn_peft_ops::Ops;
use burn_peft_train::left_padded;
use serde::Serialize;

use super::{
    sampling::SamplingArgs,
    shared::{ComputeArgs, ModelArgs, OpenModel, prompt_ids},
};
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
    #[command(flatten)]
    sampling: SamplingArgs,
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
    args.sampling.check()?;
    let open = args.model.open()?;
    open.check_writes_text()?;
    let prompt = match args.chat {
        true => open
            .tokenizer
            .render_chat(&[Message::new("user", args.prompt.as_str())], true)?,
        false => args.prompt.clone(),
    };
    let prompt = prompt_ids(&prompt, args.chat, &open.tokenizer, open.template());
    let prompt = prompt.context("--prompt")?;
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
        let sampling = &args.sampling;
        let options = sampling.options(&open.checkpoint, open.stop_ids(), args.max_new_tokens)?;
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
