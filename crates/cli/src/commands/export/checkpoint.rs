//! Virtual tokens as tokens of a checkpoint.

use std::path::Path;

use anyhow::{Context, Result};
use burn::tensor::backend::AutodiffBackend;
use burn_peft::PeftModel;
use burn_peft_export::{
    PromptCheckpoint, PromptCheckpointOptions, UnlikelyRow, save_prompt_checkpoint, unlikely_row,
    virtual_token,
};
use burn_peft_format::{AdapterFolder, adapter_from_folder};
use burn_peft_ops::Ops;

use super::{Args, Base, prompt::refuse_full};
use crate::{backend::Job, commands::shared::display, output, progress::Progress, source};

/// A checkpoint with virtual tokens that was written, and what keeps the model from writing them.
pub(super) struct Written {
    pub(super) checkpoint: PromptCheckpoint,
    pub(super) unlikely: UnlikelyRow,
}

/// `--to checkpoint`, of virtual tokens.
pub(super) fn run(args: &Args, folder: &AdapterFolder) -> Result<()> {
    check(args, folder)?;
    let base = args.base(folder)?;
    refuse_full(args)?;
    let written = write_checkpoint(args, folder, &base, &args.output)?;
    let Written { checkpoint, .. } = &written;
    let mut text = format!("{}: {}", display(&args.output), written.tokens());
    text += &match checkpoint.rows_added {
        0 => "they take rows of the vocabulary that the tokenizer does not use\n".to_owned(),
        rows => format!("the vocabulary has {rows} rows more\n"),
    };
    if !checkpoint.copied.widened.is_empty() {
        text += "the embedding table is stored as F32 now, because the checkpoint's type cannot hold them exactly \
                 (--round rounds them)\n";
    }
    text += match checkpoint.in_chat_template {
        true => "the chat template puts them in front of a conversation\n",
        false => "README.md says where in a text they stand\n",
    };
    if args.post_processor {
        text += "the tokenizer puts them in front of every text\n";
    }
    text += &written.probability();
    output::print(&text)
}

/// Whether there are virtual tokens that can be tokens of a checkpoint.
pub(super) fn check(args: &Args, folder: &AdapterFolder) -> Result<()> {
    folder.prompt_table(&args.adapter)?;
    folder.refuse_head("a checkpoint", &args.adapter)?;
    Ok(args.prompt_options().check(folder, &args.adapter)?)
}

impl Args {
    fn prompt_options(&self) -> PromptCheckpointOptions {
        PromptCheckpointOptions {
            exact: !self.round,
            post_processor: self.post_processor,
        }
    }
}

/// Writes the checkpoint to the folder `output`.
pub(super) fn write_checkpoint(
    args: &Args,
    folder: &AdapterFolder,
    base: &Base,
    output: &Path,
) -> Result<Written> {
    let mut written = None;
    args.compute.backend.run(CheckpointJob {
        args,
        folder,
        base,
        output,
        written: &mut written,
    })?;
    written.context("nothing was written")
}

impl Written {
    /// Which tokens there are, as a line without its beginning.
    pub(super) fn tokens(&self) -> String {
        let (first, tokens) = (self.checkpoint.first_id, self.checkpoint.tokens);
        format!(
            "the model with {tokens} virtual tokens, {} to {} (ids {first} to {})\n",
            virtual_token(0),
            virtual_token(tokens - 1),
            first + tokens - 1,
        )
    }

    /// How likely the model is to write one of them, as a line.
    pub(super) fn probability(&self) -> String {
        format!(
            "the largest probability of writing one of them: 1e{:.0}, in {} states\n",
            self.unlikely.largest_log_probability / std::f64::consts::LN_10,
            self.unlikely.states
        )
    }
}

struct CheckpointJob<'a> {
    args: &'a Args,
    folder: &'a AdapterFolder,
    base: &'a Base,
    output: &'a Path,
    written: &'a mut Option<Written>,
}

impl Job for CheckpointJob<'_> {
    fn run<B>(self, device: B::Device) -> Result<()>
    where
        B: AutodiffBackend<InnerBackend: Ops> + Ops,
    {
        let Self { args, base, .. } = self;
        let dtype = args.compute.dtype(None).into();
        let decoder = source::load::<B::InnerBackend>(&base.checkpoint, dtype, &device)?;
        let adapter = adapter_from_folder(self.folder, decoder.config(), &args.adapter, &device)?;
        let unlikely = unlikely_row(&PeftModel::new(decoder, adapter), 0);
        let mut bar = Progress::bytes("writing");
        let checkpoint = save_prompt_checkpoint(
            &base.checkpoint,
            &base.folder,
            self.folder,
            &unlikely,
            args.prompt_options(),
            self.output,
            &args.adapter,
            &mut |done, total| bar.set(done, total),
        )?;
        *self.written = Some(Written {
            checkpoint,
            unlikely,
        });
        Ok(())
    }
}
