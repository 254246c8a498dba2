//! `--to gguf`: what `--to checkpoint` makes, as one file.

use std::path::{Path, PathBuf};

use anyhow::Result;
use burn_peft_export::{GgufOptions, GgufType, check_gguf, save_gguf};
use burn_peft_files::ScratchFolder;
use burn_peft_format::{AdapterFolder, Landing};

use super::{Args, Outtype, checkpoint, prompt::refuse_full};
use crate::{commands::shared::display, output, progress::Progress};

/// The file in an output folder.
const FILE: &str = "model.gguf";

pub(super) fn run(args: &Args, folder: &AdapterFolder) -> Result<()> {
    let is_prompt = matches!(folder.config.method.landing(), Landing::Prompt(_));
    match is_prompt {
        true => checkpoint::check(args, folder)?,
        false => folder.check_mergeable(&args.adapter)?,
    }
    let base = args.base(folder)?;
    check_gguf(&base.checkpoint, &base.folder)?;
    let file = output_file(args)?;
    // On the output's own disk, where there is room for a model.
    let scratch = ScratchFolder::beside(&args.output)?;
    let plain = scratch.path().join("checkpoint");
    let mut text = format!("{}: ", display(&file));
    let mut virtual_tokens_first = false;
    match is_prompt {
        true => {
            let written = checkpoint::write_checkpoint(args, folder, &base, &plain)?;
            text += &written.tokens();
            text += match written.checkpoint.in_chat_template {
                true => "the chat template puts them in front of a conversation\n",
                false => "",
            };
            text += &written.probability();
            virtual_tokens_first = written.checkpoint.come_first;
        }
        false => {
            args.write_merged(folder, &base, &plain)?;
            text += &format!("the model with {} biases changed\n", folder.biases().len());
        }
    }
    let mut bar = Progress::bytes("writing");
    let written = save_gguf(
        &plain,
        &file,
        GgufOptions {
            name: &model_name(base.name()),
            outtype: args.outtype(),
            virtual_tokens_first,
        },
        &base.folder,
        &mut |done, total| bar.set(done, total),
    )?;
    drop(bar);
    for note in &written.notes {
        output::warn(note);
    }
    if written.not_quantised > 0 {
        text += &format!(
            "{} of {} tensors are F16, because q8_0 has rows of a multiple of 32 numbers\n",
            written.not_quantised, written.tensors
        );
    }
    output::print(&text)
}

/// The file, which must be one that nothing is lost by.
fn output_file(args: &Args) -> Result<PathBuf> {
    match args.output.extension() {
        Some(ending) if ending == "gguf" => Ok(args.output.clone()),
        _ => {
            refuse_full(args)?;
            Ok(args.output_file(FILE))
        }
    }
}

/// The last part of the base's name.
fn model_name(base: &str) -> String {
    let name = Path::new(base).file_name();
    name.map_or_else(
        || base.to_owned(),
        |name| name.to_string_lossy().into_owned(),
    )
}

impl Args {
    fn outtype(&self) -> GgufType {
        match self.outtype {
            None | Some(Outtype::F16) => GgufType::F16,
            Some(Outtype::F32) => GgufType::F32,
            Some(Outtype::Bf16) => GgufType::Bf16,
            Some(Outtype::Q8_0) => GgufType::Q8_0,
        }
    }
}
