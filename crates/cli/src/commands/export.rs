//! `export`: an adapter in forms that need no adapter support.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use burn_peft_decoder::{Checkpoint, Copied};
use burn_peft_format::{AdapterFolder, Landing, PROMPT_EMBEDS_FILE};
use clap::ValueEnum;
use tempfile::TempDir;

use super::{
    adapter,
    shared::{ComputeArgs, display},
};
use crate::{builtin, output, progress::Progress, source::ModelSource};

mod checkpoint;
mod gguf;
mod prompt;

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
    /// Output folder, new or empty. `gguf` may also be a file whose name ends in .gguf, and `prompt-embeds` one whose name
    /// ends in .safetensors.
    #[arg(long, value_name = "DIR|FILE")]
    output: PathBuf,
    /// With `vllm`: a text to put behind the virtual tokens, so that the file is the whole input of a completion.
    #[arg(long, value_name = "TEXT")]
    prompt: Option<String>,
    /// With `checkpoint`, for virtual tokens: round them to the checkpoint's own type, instead of storing the embedding
    /// table as F32 where that type does not hold them.
    #[arg(long)]
    round: bool,
    /// With `checkpoint`, for virtual tokens: let the tokenizer put them in front of every text (a post-processor).
    #[arg(long)]
    post_processor: bool,
    /// With `gguf`: the number type of matrices [default: f16].
    #[arg(long, value_name = "TYPE")]
    outtype: Option<Outtype>,
    /// With `mlx-cache`: the layout that mlx-lm up to 0.31.3 reads.
    #[arg(long)]
    old_layout: bool,
    #[command(flatten)]
    compute: ComputeArgs,
}

/// `--to`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    /// A plain Hugging Face checkpoint. BitFit's biases are added to the model's own; the virtual tokens of Prompt Tuning
    /// and P-Tuning become tokens of the vocabulary.
    #[value(alias = "merged")]
    Checkpoint,
    /// The virtual tokens of Prompt Tuning or P-Tuning as the file that vLLM takes as `prompt_embeds`, and a request.
    Vllm,
    /// That checkpoint as one GGUF file, for llama.cpp and programs that are built on it.
    Gguf,
    /// Keys and values of virtual tokens as a prompt cache of mlx-lm.
    MlxCache,
    /// The virtual tokens of Prompt Tuning or P-Tuning as one tensor, `[tokens, d_model]`, in safetensors.
    PromptEmbeds,
}

/// `--outtype`, in the words of llama.cpp's converter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Outtype {
    /// 32-bit floats.
    F32,
    /// 16-bit floats.
    F16,
    /// bfloat16.
    Bf16,
    /// 8-bit whole numbers with a scale for every 32 of them.
    #[value(name = "q8_0")]
    Q8_0,
}

/// A base that lies in a folder.
struct Base {
    source: ModelSource,
    folder: PathBuf,
    checkpoint: Checkpoint,
    /// Where the built-in model was unpacked.
    _unpacked: Option<TempDir>,
}

impl Base {
    /// The name that it was asked for by.
    fn name(&self) -> &str {
        match &self.source {
            ModelSource::BuiltIn => builtin::MODEL_NAME,
            ModelSource::Folder { name, .. } => name,
        }
    }
}

pub(crate) fn run(args: Args) -> Result<()> {
    args.compute.start_threads()?;
    let folder = adapter::load(&args.adapter)?;
    folder.check_values(&args.adapter)?;
    for (given, name, form) in [
        (args.prompt.is_some(), "--prompt", Form::Vllm),
        (args.round, "--round", Form::Checkpoint),
        (args.post_processor, "--post-processor", Form::Checkpoint),
        (args.outtype.is_some(), "--outtype", Form::Gguf),
        (args.old_layout, "--old-layout", Form::MlxCache),
    ] {
        if given && args.to != form {
            let value = form.to_possible_value();
            let value = value.as_ref().map_or("", |value| value.get_name());
            bail!("{name} belongs to --to {value}");
        }
    }
    let landing = folder.config.method.landing();
    for (given, name) in [
        (args.round, "--round"),
        (args.post_processor, "--post-processor"),
    ] {
        if given && matches!(landing, Landing::Biases(_)) {
            bail!(
                "{}: {name} is for virtual tokens, and {} has none",
                display(&args.adapter),
                folder.config.method.peft_type()
            );
        }
    }
    match (args.to, landing) {
        (Form::Checkpoint, Landing::Prompt(_)) => checkpoint::run(&args, &folder),
        (Form::Checkpoint, _) => args.merge(&folder),
        (Form::Gguf, _) => gguf::run(&args, &folder),
        (Form::Vllm, _) => prompt::vllm(&args, folder),
        (Form::MlxCache, _) => prompt::mlx_cache(&args, folder),
        (Form::PromptEmbeds, _) => args.prompt_embeds(&folder),
    }
}

impl Args {
    /// The base, which is the adapter's. The built-in model has no folder, so it gets one.
    fn base(&self, folder: &AdapterFolder) -> Result<Base> {
        let source = ModelSource::resolve(self.model.as_deref(), self.revision.as_deref())?;
        let (path, unpacked) = match &source {
            ModelSource::BuiltIn => {
                let unpacked = tempfile::tempdir().context("no temporary folder could be made")?;
                builtin::unpack(unpacked.path())?;
                (unpacked.path().to_owned(), Some(unpacked))
            }
            ModelSource::Folder { folder, .. } => (folder.clone(), None),
        };
        let checkpoint = match &source {
            ModelSource::BuiltIn => Checkpoint::open(&path)?,
            ModelSource::Folder { .. } => source.checkpoint()?,
        };
        let revision = self.revision.as_deref();
        adapter::check_base(folder, &self.adapter, &source, revision, &checkpoint)?;
        Ok(Base {
            source,
            folder: path,
            checkpoint,
            _unpacked: unpacked,
        })
    }

    /// The file `name` in the output folder.
    fn output_file(&self, name: &str) -> PathBuf {
        self.output.join(name)
    }

    fn merge(&self, folder: &AdapterFolder) -> Result<()> {
        // Whether it can be merged at all is asked first.
        folder.check_mergeable(&self.adapter)?;
        let base = self.base(folder)?;
        let copied = self.write_merged(folder, &base, &self.output)?;
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

    /// Writes the checkpoint with its biases changed to the folder `output`.
    fn write_merged(&self, folder: &AdapterFolder, base: &Base, output: &Path) -> Result<Copied> {
        let mut bar = Progress::bytes("writing");
        Ok(folder.merge_into(
            &base.checkpoint,
            output,
            &self.adapter,
            &mut |done, total| bar.set(done, total),
        )?)
    }

    fn prompt_embeds(&self, folder: &AdapterFolder) -> Result<()> {
        // A prompt needs no base. Where one is named, it must be the right one.
        if self.model.is_some() {
            self.base(folder)?;
        }
        let file = match self.output.extension() {
            Some(ending) if ending == "safetensors" => self.output.clone(),
            _ => self.output_file(PROMPT_EMBEDS_FILE),
        };
        let shape = folder.save_prompt_embeds(&file, &self.adapter)?;
        output::print(&format!("{}: prompt_embeds {shape:?}\n", display(&file)))
    }
}

/// Says what was written.
fn report(file: &Path, what: &str) -> Result<()> {
    output::print(&format!("{}: {what}\n", display(file)))
}
