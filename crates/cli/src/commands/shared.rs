//! Arguments and steps that several commands have.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use burn::tensor::DType;
use burn_peft::{AnyAdapter, MethodConfig, NoAdapter, PeftModel};
use burn_peft_data::{Rows, Template, TextTokenizer, TokenizeOptions, Tokenized, tokenize_rows};
use burn_peft_decoder::Checkpoint;
use burn_peft_format::{
    AdapterFolder, CONFIG_FILE, Landing, adapter_from_folder, head_from_folder,
};
use burn_peft_ops::Ops;
use burn_peft_train::{BaseDtype, GradientCheckpointing, Override, RunConfig, TaskSetup};
use clap::{
    ValueEnum,
    builder::{PossibleValuesParser, TypedValueParser},
};

use super::adapter;
use crate::{
    backend::BackendChoice,
    output,
    progress::Progress,
    source::{self, ModelSource},
};

/// Where to compute, and in what type.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ComputeArgs {
    /// Where to compute: flex or ndarray (CPU), vulkan, metal or cuda. A GPU's number may follow, as in cuda:1.
    #[arg(
        long,
        value_name = "BACKEND[:INDEX]",
        default_value = "flex",
        help_heading = "Compute"
    )]
    pub(crate) backend: BackendChoice,
    /// Number type of the frozen base [default: f32; bf16 on cuda]. What trains is always f32.
    #[arg(long, value_parser = dtype_parser(), help_heading = "Compute")]
    dtype: Option<BaseDtype>,
    /// Number of CPU threads, up to 1024 [default: one per core].
    #[arg(long, value_name = "N", help_heading = "Compute")]
    threads: Option<std::num::NonZeroUsize>,
}

/// More threads than any machine has cores. Each one costs memory, and a hundred thousand never begin to compute.
const MOST_THREADS: usize = 1024;

/// `--recompute`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Recompute {
    /// Recompute in every step.
    Always,
    /// Never recompute.
    Never,
    /// Recompute if a step would not fit in memory.
    Auto,
}

impl From<Recompute> for GradientCheckpointing {
    fn from(when: Recompute) -> Self {
        match when {
            Recompute::Always => Self::Always,
            Recompute::Never => Self::Never,
            Recompute::Auto => Self::Auto,
        }
    }
}

/// Reads `--dtype`.
fn dtype_parser() -> impl TypedValueParser<Value = BaseDtype> {
    PossibleValuesParser::new(BaseDtype::ALL.map(BaseDtype::name)).try_map(|name| {
        let named = |dtype: &BaseDtype| dtype.name() == name;
        BaseDtype::ALL.into_iter().find(named).ok_or("no such type")
    })
}

impl ComputeArgs {
    /// The type of the base: as asked here, else as `configured`, else what suits the backend.
    pub(crate) fn dtype(&self, configured: Option<BaseDtype>) -> BaseDtype {
        let suited = || self.backend.default_dtype();
        self.dtype.or(configured).unwrap_or_else(suited)
    }

    /// Sets the number of threads; before anything computes.
    pub(crate) fn start_threads(&self) -> Result<()> {
        if let Some(threads) = self.threads {
            if threads.get() > MOST_THREADS {
                bail!("--threads is {threads}, expected at most {MOST_THREADS}");
            }
            rayon::ThreadPoolBuilder::new()
                .num_threads(threads.get())
                .build_global()
                .context("the threads could not be started")?;
        }
        Ok(())
    }
}

/// Which model, and which adapter on it.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ModelArgs {
    /// Base model: a folder in Hugging Face layout or a hub id [default: the built-in model].
    #[arg(long)]
    pub(crate) model: Option<String>,
    /// Branch, tag or commit of a hub id.
    #[arg(long)]
    revision: Option<String>,
    /// Adapter folder, as PEFT or `train` wrote it.
    #[arg(long, value_name = "DIR")]
    pub(crate) adapter: Option<PathBuf>,
}

/// How the rows of a file are computed.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct RowArgs {
    /// Number of rows per batch.
    #[arg(long, value_name = "N", default_value_t = 8)]
    pub(crate) batch_size: usize,
    /// Maximum tokens per row; longer rows are cut and counted, long contexts of questions are read in windows
    /// [default: the model's maximum].
    #[arg(long, value_name = "N")]
    pub(crate) max_length: Option<usize>,
}

impl RowArgs {
    /// Refuses numbers that nothing can be computed with.
    pub(crate) fn check(&self) -> Result<()> {
        if self.batch_size == 0 {
            bail!("--batch-size is 0, expected 1 or more");
        }
        if self.max_length == Some(0) {
            bail!("--max-length is 0, expected 1 or more");
        }
        Ok(())
    }

    /// Tokenises rows for what the adapter does, and says what of them does not reach the model.
    pub(crate) fn tokenize(
        &self,
        open: &OpenModel,
        task: &TaskSetup,
        rows: &Rows,
    ) -> Result<Tokenized> {
        let longest = open.longest_row();
        let options = TokenizeOptions {
            max_length: Some(self.max_length.unwrap_or(longest).min(longest)),
            template: open.template.as_ref(),
            targets: task.targets(true),
        };
        let mut bar = Progress::counting("tokenising");
        let tokenized = tokenize_rows(rows, &open.tokenizer, options, &mut |done, all| {
            bar.set(done as u64, all as u64);
        })?;
        drop(bar);
        for note in &tokenized.notes {
            output::warn(note);
        }
        Ok(tokenized)
    }
}

/// A model that was found and checked, its weights not yet read.
pub(crate) struct OpenModel {
    pub(crate) checkpoint: Checkpoint,
    pub(crate) tokenizer: TextTokenizer,
    /// What the adapter was trained with.
    pub(crate) template: Option<Template>,
    adapter: Option<(PathBuf, AdapterFolder)>,
}

impl ModelArgs {
    /// Finds and checks everything that needs no computing.
    pub(crate) fn open(&self) -> Result<OpenModel> {
        let adapter = match &self.adapter {
            Some(dir) => Some((dir.clone(), adapter::load(dir)?)),
            None => None,
        };
        let revision = self.revision.as_deref();
        let source = ModelSource::resolve(self.model.as_deref(), revision)?;
        let checkpoint = source.checkpoint()?;
        if let Some((dir, folder)) = &adapter {
            folder.check_values(dir)?;
            adapter::check_base(folder, dir, &source, revision, &checkpoint)?;
        }
        Ok(OpenModel {
            tokenizer: source
                .tokenizer()?
                .for_table(checkpoint.config().vocab_size),
            template: match &adapter {
                Some((dir, folder)) => template_of(dir, folder)?,
                None => None,
            },
            checkpoint,
            adapter,
        })
    }
}

/// The template of an adapter folder, whose virtual tokens must be the adapter's.
pub(crate) fn template_of(dir: &Path, folder: &AdapterFolder) -> Result<Option<Template>> {
    let path = dir.join(CONFIG_FILE);
    let Some(template) = &folder.config.template else {
        return Ok(None);
    };
    let template = Template::parse(template).with_context(|| display(&path))?;
    let placed = template.num_virtual_tokens();
    let tokens = folder.config.method.virtual_tokens();
    let own = tokens.map_or(0, |tokens| tokens.num_virtual_tokens);
    if placed != 0 && placed != own {
        bail!(
            "{}: `burn_peft_template` places {placed} virtual tokens, the adapter has {own}",
            display(&path)
        );
    }
    Ok(Some(template))
}

impl OpenModel {
    /// What the adapter was trained for; to write text without one.
    pub(crate) fn task(&self) -> TaskSetup {
        match &self.adapter {
            Some((_, folder)) => TaskSetup::of_folder(folder),
            None => TaskSetup::text(),
        }
    }

    /// Tokens a row may have: the model's positions, less those that the adapter's virtual tokens take.
    pub(crate) fn longest_row(&self) -> usize {
        let method = self
            .adapter
            .as_ref()
            .map(|(_, folder)| &folder.config.method);
        let tokens = method.and_then(|method| method.virtual_tokens());
        let tokens = tokens.map_or(0, |tokens| tokens.num_virtual_tokens);
        self.checkpoint.config().positions_left(tokens)
    }

    /// Whether the adapter puts virtual tokens among the embeddings.
    pub(crate) fn has_prompt(&self) -> bool {
        let adapter = self.adapter.as_ref();
        adapter
            .is_some_and(|(_, folder)| matches!(folder.config.method.landing(), Landing::Prompt(_)))
    }

    /// Reads the weights.
    pub(crate) fn load<B: Ops>(
        &self,
        dtype: DType,
        device: &B::Device,
    ) -> Result<PeftModel<B, AnyAdapter<B>>> {
        let base = source::load::<B>(&self.checkpoint, dtype, device)?;
        let Some((dir, folder)) = &self.adapter else {
            let none = AnyAdapter::None(NoAdapter::default());
            return Ok(PeftModel::new(base, none));
        };
        let adapter = adapter_from_folder(folder, base.config(), dir, device)?;
        let head = head_from_folder(folder, base.config(), dir, device)?;
        Ok(PeftModel::new(base, adapter).with_head(head))
    }

    /// Ids that end a text: the generation config's, and the tokenizer's eos.
    pub(crate) fn stop_ids(&self) -> Vec<u32> {
        burn_peft_train::stop_ids(&self.checkpoint, &self.tokenizer)
    }
}

/// The method that flags describe: its name, its virtual tokens with the flag's own name, and `--set`.
pub(crate) fn method_config(
    method: Option<&str>,
    tokens: Option<(usize, &'static str)>,
    set: &[String],
) -> Result<MethodConfig> {
    let mut overrides = Vec::new();
    if let Some(method) = method {
        overrides.push(Override::new("method", "type", method, "--method"));
    }
    if let Some((tokens, flag)) = tokens {
        let tokens = i64::try_from(tokens).with_context(|| format!("{flag} is too large"))?;
        overrides.push(Override::new("method", "num_virtual_tokens", tokens, flag));
    }
    for text in set {
        overrides.push(Override::parse(text)?);
        if !text.trim_start().starts_with("method.") {
            bail!(
                "--set {text}: only keys of [method] count here, as in --set method.num_virtual_tokens=10"
            );
        }
    }
    Ok(RunConfig::load(None, &overrides)?.method)
}

/// A path for messages.
pub(crate) fn display(path: &Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_threads_than_a_machine_can_have_are_refused() {
        let compute = ComputeArgs {
            backend: "flex".parse().unwrap(),
            dtype: None,
            threads: std::num::NonZeroUsize::new(MOST_THREADS + 1),
        };
        let error = compute.start_threads().unwrap_err().to_string();
        assert_eq!(error, "--threads is 1025, expected at most 1024");
    }
}
