//! Arguments and steps that several commands have.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use burn::tensor::DType;
use burn_peft::{AnyAdapter, MethodConfig, NoAdapter, PeftModel};
use burn_peft_data::{
    ColumnNames, Prompt, RowReader, Rows, Task, Template, TextTokenizer, TokenizeOptions,
    Tokenized, tokenize_rows,
};
use burn_peft_decoder::Checkpoint;
use burn_peft_ops::Ops;
use burn_peft_train::{
    BaseDtype, GradientCheckpointing, HeldOutRows, Override, RunConfig, TaskSetup,
};
use clap::{
    ValueEnum,
    builder::{PossibleValuesParser, TypedValueParser},
};

use super::adapter::{AdapterFiles, OpenAdapter};
use crate::{
    backend::BackendChoice,
    output,
    progress::Progress,
    ranks,
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
    /// Number of CPU threads, up to 1024 [default: one per core, shared by the ranks of a machine].
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
        let shared = ranks::threads();
        let threads = match (self.threads.map(std::num::NonZero::get), shared) {
            (Some(threads), _) => Some(threads),
            (None, Some((threads, line))) => {
                output::say(&line);
                Some(threads)
            }
            (None, None) => None,
        };
        if let Some(threads) = threads {
            if threads > MOST_THREADS {
                bail!("--threads is {threads}, expected at most {MOST_THREADS}");
            }
            rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build_global()
                .context("the threads could not be started")?;
        }
        Ok(())
    }
}

/// Which model.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct BaseArgs {
    /// Base model: a folder in Hugging Face layout or a hub id [default: the built-in model].
    #[arg(long)]
    model: Option<String>,
    /// Branch, tag or commit of the model's hub id.
    #[arg(long)]
    revision: Option<String>,
}

/// Which model, and which adapter on it.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ModelArgs {
    #[command(flatten)]
    base: BaseArgs,
    /// Adapter: a folder that PEFT or `train` wrote, or a hub id (owner/name, owner/name@revision).
    #[arg(long, value_name = "DIR|ID")]
    adapter: Option<PathBuf>,
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
    /// Columns of the file that have names of their own, as data.columns of run.toml:
    /// prompt=frage,completion=antwort.
    #[arg(long, value_name = "FIELD=COLUMN,…")]
    columns: Option<ColumnNames>,
}

impl RowArgs {
    /// What reads the rows of a file: to be predicted, if there is a task.
    pub(crate) fn reader(&self, task: Option<Task>) -> RowReader<'_> {
        RowReader {
            columns: self.columns.as_ref(),
            task,
        }
    }

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
            template: open.template(),
            targets: task.targets(true),
            ..TokenizeOptions::default()
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

/// A base that was found and checked, its weights not yet read.
pub(crate) struct OpenBase {
    pub(crate) source: ModelSource,
    pub(crate) revision: Option<String>,
    pub(crate) checkpoint: Checkpoint,
    pub(crate) tokenizer: TextTokenizer,
}

/// A model that was found and checked, its weights not yet read.
pub(crate) struct OpenModel {
    pub(crate) checkpoint: Checkpoint,
    pub(crate) tokenizer: TextTokenizer,
    adapter: Option<OpenAdapter>,
}

impl BaseArgs {
    /// Finds and checks everything that needs no computing.
    pub(crate) fn open(&self) -> Result<OpenBase> {
        let source = ModelSource::resolve(self.model.as_deref(), self.revision.as_deref())?;
        let checkpoint = source.checkpoint()?;
        let rows = checkpoint.config().vocab_size;
        Ok(OpenBase {
            tokenizer: source.tokenizer()?.for_table(rows),
            source,
            revision: self.revision.clone(),
            checkpoint,
        })
    }
}

impl ModelArgs {
    /// Finds and checks everything that needs no computing.
    pub(crate) fn open(&self) -> Result<OpenModel> {
        // Before the base: that may have to be fetched.
        let folder = self.adapter.as_deref().map(AdapterFiles::read);
        let folder = folder.transpose()?;
        let base = self.base.open()?;
        let adapter = folder.map(|folder| folder.on(&base)).transpose()?;
        Ok(OpenModel {
            checkpoint: base.checkpoint,
            tokenizer: base.tokenizer,
            adapter,
        })
    }
}

impl OpenBase {
    /// Ids that end a text: the generation config's, and the tokenizer's eos.
    pub(crate) fn stop_ids(&self) -> Vec<u32> {
        burn_peft_train::stop_ids(&self.checkpoint, &self.tokenizer)
    }
}

impl OpenModel {
    /// What the adapter was trained for; to write text without one.
    pub(crate) fn task(&self) -> TaskSetup {
        match &self.adapter {
            Some(adapter) => adapter.task(),
            None => TaskSetup::text(),
        }
    }

    /// Refuses an adapter that writes no text.
    pub(crate) fn check_writes_text(&self) -> Result<()> {
        let adapter = self.adapter.as_ref();
        adapter.map_or(Ok(()), OpenAdapter::check_writes_text)
    }

    /// What the adapter was trained with.
    pub(crate) fn template(&self) -> Option<&Template> {
        self.adapter.as_ref()?.template()
    }

    /// Tokens a row may have: the model's positions, less those that the adapter's virtual tokens take.
    pub(crate) fn longest_row(&self) -> usize {
        let adapter = self.adapter.as_ref();
        let tokens = adapter.map_or(0, OpenAdapter::num_virtual_tokens);
        self.checkpoint.config().positions_left(tokens)
    }

    /// Whether the adapter puts virtual tokens among the embeddings.
    pub(crate) fn has_prompt(&self) -> bool {
        self.adapter.as_ref().is_some_and(OpenAdapter::has_prompt)
    }

    /// Reads the weights.
    pub(crate) fn load<B: Ops>(
        &self,
        dtype: DType,
        device: &B::Device,
    ) -> Result<PeftModel<B, AnyAdapter<B>>> {
        let base = source::load::<B>(&self.checkpoint, dtype, device)?;
        match &self.adapter {
            Some(adapter) => adapter.put_on(base),
            None => Ok(PeftModel::new(base, AnyAdapter::None(NoAdapter::default()))),
        }
    }

    /// Ids that end a text: the generation config's, and the tokenizer's eos.
    pub(crate) fn stop_ids(&self) -> Vec<u32> {
        burn_peft_train::stop_ids(&self.checkpoint, &self.tokenizer)
    }

    /// Refuses to compute rows where another rank has others, or another model.
    pub(crate) fn check_ranks(&self, rows: &HeldOutRows<'_>) -> Result<()> {
        if rows.ranks.is_alone() {
            return Ok(());
        }
        let adapter = self.adapter.as_ref().map(OpenAdapter::checksum);
        rows.ranks.check_same(&[
            ("the version of burn-peft", env!("CARGO_PKG_VERSION").into()),
            ("the base", self.checkpoint.fingerprint()?.to_string()),
            ("the adapter", adapter.unwrap_or_default()),
            ("the rows", rows.checksum()),
            ("--batch-size", rows.batch_size.to_string()),
        ])?;
        Ok(())
    }
}

/// What the model is given of a text: in the field of the adapter's template, where there is one. A text that a chat
/// template `rendered` has its own BOS, if there is one.
pub(crate) fn prompt_ids(
    text: &str,
    rendered: bool,
    tokenizer: &TextTokenizer,
    template: Option<&Template>,
) -> burn_peft_data::Result<Prompt> {
    Ok(match template {
        Some(template) => template.prompt_ids_of_text(text, tokenizer)?,
        None if rendered => tokenizer.encode(text)?.into(),
        None => tokenizer.encode_start(text)?.into(),
    })
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
