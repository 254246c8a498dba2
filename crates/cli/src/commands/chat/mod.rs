//! `chat`: a conversation.

mod adapters;
mod command;
mod history;
mod input;
mod model;
mod screen;
mod talk;

use anyhow::{Result, bail};
use burn::tensor::backend::AutodiffBackend;
use burn_peft_ops::Ops;

use self::{
    adapters::{Adapters, Current, Named},
    history::{Form, History},
    input::Input,
    model::Model,
    talk::Talk,
};
use super::{
    sampling::SamplingArgs,
    shared::{BaseArgs, ComputeArgs, OpenBase},
};
use crate::{
    backend::Job,
    output,
    signals::{self, Answering},
    source,
};

/// Arguments of `chat`. Sampling options that are not given are taken from the model's
/// generation_config.json; without that file, decoding is greedy.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Commands of the conversation: /adapter NAME|DIR|none, /adapters, /system TEXT, \
    /undo, /reset, /save FILE, /help, /exit. Ctrl-C stops an answer, Ctrl-D leaves."
)]
pub(crate) struct Args {
    #[command(flatten)]
    base: BaseArgs,
    /// Adapter, by its folder or hub id, with a name for /adapter if you like. The first one answers, the others are loaded
    /// when they are switched to.
    #[arg(long, value_name = "[NAME=]DIR|ID")]
    adapter: Vec<String>,
    /// System turn of the conversation.
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// Give the model each turn as it is, alone, as `generate` does without --chat. So it is in any case if the model
    /// has no chat template.
    #[arg(long)]
    no_chat_template: bool,
    /// Maximum number of tokens of an answer. The oldest turns are left out to keep room for them
    /// [default: 1024, and at most half of the model's context].
    #[arg(long, value_name = "N")]
    max_new_tokens: Option<usize>,
    #[command(flatten)]
    sampling: SamplingArgs,
    /// Print one JSON object a turn to stdout: role, content, finish_reason, adapter, usage.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    compute: ComputeArgs,
}

pub(crate) fn run(args: Args) -> Result<()> {
    args.compute.start_threads()?;
    args.sampling.check()?;
    let adapters = Adapters::parse(&args.adapter)?;
    let first = adapters.all().first().cloned();
    let first = first.map(Named::read).transpose()?;
    let base = args.base.open()?;
    let current = first.map(|first| first.on(&base)).transpose()?;
    let positions = base.checkpoint.config().max_position_embeddings;
    if args.max_new_tokens == Some(0) {
        bail!("--max-new-tokens is 0, expected 1 or more");
    }
    if let Some(asked) = args.max_new_tokens.filter(|asked| *asked >= positions) {
        bail!(
            "--max-new-tokens is {asked}, and the model has room for {positions} tokens, those of the prompt included"
        );
    }
    let form = match base.tokenizer.has_chat_template() && !args.no_chat_template {
        true => Form::Chat,
        false => Form::Plain,
    };
    if form == Form::Plain && args.system.is_some() {
        bail!("--system: without a chat template there is no system turn");
    }
    if form == Form::Plain && !args.no_chat_template {
        output::say(
            "the model has no chat template: it continues each turn by itself, as `generate` does",
        );
    }
    args.compute.backend.run(Chat {
        args: &args,
        base,
        adapters,
        current,
        form,
    })
}

struct Chat<'a> {
    args: &'a Args,
    base: OpenBase,
    adapters: Adapters,
    current: Option<Current>,
    form: Form,
}

impl Job for Chat<'_> {
    fn run<B>(self, device: B::Device) -> Result<()>
    where
        B: AutodiffBackend<InnerBackend: Ops> + Ops,
    {
        let Self {
            args,
            base,
            adapters,
            current,
            form,
        } = self;
        let most = base.checkpoint.config().max_position_embeddings / 2;
        let most = args.max_new_tokens.unwrap_or(most.clamp(1, 1024));
        let options = args
            .sampling
            .options(&base.checkpoint, base.stop_ids(), most)?;
        let dtype = args.compute.dtype(None).into();
        let decoder = source::load::<B::InnerBackend>(&base.checkpoint, dtype, &device)?;
        let input = Input::open()?;
        let answering = Answering::default();
        signals::stop_answers(answering.clone())?;
        let mut talk = Talk::new(
            &base,
            Box::new(Model::new(decoder)),
            History::new(form, args.system.clone()),
            options,
        );
        talk.set_adapters(adapters, current)?;
        talk.run(input, args.json, &answering)
    }
}
