//! `export`: an adapter in forms that need no adapter support.

use std::path::PathBuf;

use anyhow::{Context, Result};
use burn_peft_decoder::Checkpoint;
use burn_peft_format::{AdapterFolder, PROMPT_EMBEDS_FILE};
use clap::ValueEnum;

use super::{adapter, shared::display};
use crate::{builtin, output, progress::Progress, source::ModelSource};

/// Arguments of `export`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Base model: a folder in Hugging Face layout or a hub id [default: the built-in model].
    #[arg(long)]
    model: Option<String>,
    /// Branch, tag or commit of a hub id.
    #[arg(long)]
    revision: Option<String>,
    /// Adapter: a folder that PEFT or `train` wrote, or a hub id (owner/name, owner/name@revision).
    #[arg(long, value_name = "DIR|ID")]
    adapter: PathBuf,
    /// What to write.
    #[arg(long, value_name = "FORM")]
    to: Form,
    /// Output path. A merged checkpoint needs a new or empty folder. A prompt is written to this file if
    /// its name ends in .safetensors, else to prompt_embeds.safetensors in this folder.
    #[arg(long, value_name = "DIR|FILE")]
    output: PathBuf,
}

/// `--to`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    /// The model with BitFit's biases added to its own: a full checkpoint.
    Merged,
    /// The virtual tokens of Prompt Tuning or P-Tuning as one tensor, `[tokens, d_model]`.
    PromptEmbeds,
}

pub(crate) fn run(args: Args) -> Result<()> {
    let folder = adapter::load(&args.adapter)?;
    folder.check_values(&args.adapter)?;
    match args.to {
        Form::Merged => args.merge(&folder),
        Form::PromptEmbeds => args.prompt_embeds(&folder),
    }
}

impl Args {
    fn merge(&self, folder: &AdapterFolder) -> Result<()> {
        let source = ModelSource::resolve(self.model.as_deref(), self.revision.as_deref())?;
        // The built-in model has no folder to copy.
        let unpacked = tempfile::tempdir().context("no temporary folder could be made")?;
        let checkpoint = match &source {
            ModelSource::BuiltIn => {
                builtin::unpack(unpacked.path())?;
                Checkpoint::open(unpacked.path())?
            }
            ModelSource::Folder { .. } => source.checkpoint()?,
        };
        // Whether it can be merged at all is asked first.
        if !folder.biases().is_empty() {
            let revision = self.revision.as_deref();
            adapter::check_base(folder, &self.adapter, &source, revision, &checkpoint)?;
        }
        let mut bar = Progress::bytes("writing");
        let copied = folder.merge_into(
            &checkpoint,
            &self.output,
            &self.adapter,
            &mut |done, total| bar.set(done, total),
        )?;
        drop(bar);
        let mut text = format!(
            "{}: the model with {} biases changed\n",
            display(&self.output),
            folder.biases().len()
        );
        if !copied.widened.is_empty() {
            text += &format!(
                "{} of them are stored as F32 now, because the checkpoint's type cannot hold the sums \
                 exactly\n",
                copied.widened.len()
            );
        }
        if !copied.added.is_empty() {
            text += &format!(
                "its config.json has {} set to true, so it has {} biases more; those that the adapter does not have \
                 are zero\n",
                copied.config_keys.join(" and "),
                copied.added.len()
            );
        }
        output::print(&text)
    }

    fn prompt_embeds(&self, folder: &AdapterFolder) -> Result<()> {
        // A prompt needs no base. Where one is named, it must be the right one.
        if let Some(name) = &self.model {
            let revision = self.revision.as_deref();
            let source = ModelSource::resolve(Some(name), revision)?;
            let checkpoint = source.checkpoint()?;
            adapter::check_base(folder, &self.adapter, &source, revision, &checkpoint)?;
        }
        let file = match self.output.extension() {
            Some(ending) if ending == "safetensors" => self.output.clone(),
            _ => self.output.join(PROMPT_EMBEDS_FILE),
        };
        let shape = folder.save_prompt_embeds(&file, &self.adapter)?;
        output::print(&format!("{}: prompt_embeds {shape:?}\n", display(&file)))
    }
}
