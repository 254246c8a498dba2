//! `doctor`, and `train --dry-run`: a run, checked before an hour is spent. Nothing on the disk is changed.

mod lengths;
mod model;
mod page;
mod paint;
mod report;
mod rows;
mod tokens;

use std::{collections::HashSet, path::PathBuf};

use anyhow::{Result, anyhow, bail};
use burn::tensor::{DType, backend::AutodiffBackend};
use burn_peft_data::Rows;
use burn_peft_ops::Ops;
use burn_peft_train::{CheckOptions, RunCheck, RunConfig, RunInputs, check_parts, check_run};
use serde::Serialize;

use self::{
    model::{ModelFacts, TokenizerFacts},
    paint::Paint,
};
use super::train;
use crate::{backend::Job, memory, output, progress::stage_bars, source::ModelSource};

/// Arguments of `doctor`: those of `train`, and what is shown.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    train: train::Args,
    #[command(flatten)]
    shown: Shown,
}

/// What a check shows.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct Shown {
    /// Number of training rows to show.
    #[arg(long, value_name = "N", default_value_t = 3, help_heading = "Check")]
    rows: usize,
    /// Do not read the weights, and do not measure steps.
    #[arg(long, help_heading = "Check")]
    no_steps: bool,
}

impl Default for Shown {
    fn default() -> Self {
        Self {
            rows: 3,
            no_steps: false,
        }
    }
}

pub(crate) fn run(args: Args) -> Result<()> {
    check(&args.train, args.shown)
}

/// Checks the run that `train` would make of these arguments, and fails where it would not start.
pub(crate) fn check(args: &train::Args, shown: Shown) -> Result<()> {
    if args.finds_lr() {
        bail!(
            "--find-lr: there is nothing to check; the search trains for a short time and writes nothing"
        );
    }
    args.compute().start_threads()?;
    let config = args.load_config()?;
    let report = Report::of(args, shown, config);
    match args.json() {
        true => output::print_json(&report)?,
        false => output::print(&report.to_text(&Paint::of_stdout()))?,
    }
    report.outcome()
}

/// All that a check found.
#[derive(Debug, Serialize)]
struct Report {
    /// Whether the run would start.
    ok: bool,
    errors: Vec<String>,
    warnings: Vec<String>,
    config: Option<PathBuf>,
    backend: String,
    dtype: &'static str,
    model: Option<ModelFacts>,
    tokenizer: Option<TokenizerFacts>,
    #[serde(flatten)]
    run: RunCheck,
    machine: Machine,
}

/// What the machine has left.
#[derive(Debug, Default, Serialize)]
struct Machine {
    /// Bytes of memory that are free.
    free_memory: Option<u64>,
    /// The largest part of memory that the process had while it was checking.
    peak_memory: Option<u64>,
    /// Bytes that are free where the run would write.
    free_disk: Option<u64>,
}

/// The parts of a run, as far as they could be opened.
struct Parts {
    source: Option<ModelSource>,
    checkpoint: Option<burn_peft_decoder::Checkpoint>,
    tokenizer: Option<burn_peft_data::TextTokenizer>,
    rows: [Option<Rows>; 3],
    errors: Vec<anyhow::Error>,
}

impl Parts {
    fn open(config: &RunConfig) -> Self {
        let mut errors = Vec::new();
        let source = ModelSource::resolve(
            config.model.path.as_deref(),
            config.model.revision.as_deref(),
        );
        let source = kept(source, &mut errors);
        let checkpoint = source.as_ref().map(model::open);
        let checkpoint = checkpoint.and_then(|opened| kept(opened, &mut errors));
        let tokenizer = source.as_ref().map(ModelSource::tokenizer);
        let tokenizer = tokenizer.and_then(|opened| kept(opened, &mut errors));
        let mut rows = train::Split::ALL.map(|split| {
            let rows = train::rows(config, split);
            kept(rows, &mut errors).flatten()
        });
        if let [train @ Some(_), valid, _] = &mut rows {
            let held_out = train.take().map(|train| config.hold_out(train));
            let held_out = held_out.and_then(|parts| kept(parts.map_err(Into::into), &mut errors));
            if let Some((left, held_out)) = held_out {
                *train = Some(left);
                *valid = held_out.or(valid.take());
            }
        }
        Self {
            source,
            checkpoint,
            tokenizer,
            rows,
            errors,
        }
    }
}

/// The value; an error is kept.
fn kept<T>(result: Result<T>, errors: &mut Vec<anyhow::Error>) -> Option<T> {
    result.map_err(|error| errors.push(error)).ok()
}

impl Report {
    fn of(args: &train::Args, shown: Shown, config: RunConfig) -> Self {
        let compute = args.compute();
        let dtype = compute.dtype(config.model.dtype);
        let parts = Parts::open(&config);
        let mut errors = parts.errors;
        let model = parts.source.as_ref();
        let model = model.map(|source| ModelFacts::of(source, parts.checkpoint.as_ref()));
        let rows = parts.rows.each_ref().map(Option::as_ref);
        let tokenizer = parts.tokenizer.as_ref();
        let needs_template = rows[0].map(Rows::format);
        let tokenizer = tokenizer.map(|tokenizer| {
            TokenizerFacts::of(tokenizer, parts.checkpoint.as_ref(), needs_template)
        });
        let mut warnings: Vec<String> = Vec::new();
        if let Some(checkpoint) = &parts.checkpoint {
            warnings.extend(checkpoint.notes().iter().cloned());
        }
        warnings.extend(tokenizer.iter().flat_map(TokenizerFacts::warnings));

        let mut run = RunCheck::default();
        match (parts.checkpoint, parts.tokenizer, parts.rows) {
            (Some(checkpoint), Some(tokenizer), [Some(train), valid, test])
                if errors.is_empty() =>
            {
                let inputs = RunInputs {
                    checkpoint,
                    tokenizer,
                    base_name: parts.source.as_ref().and_then(ModelSource::name),
                    train,
                    valid,
                    test,
                };
                let job = Check {
                    config: &config,
                    inputs: &inputs,
                    options: CheckOptions {
                        dtype: DType::from(dtype),
                        memory: compute.backend.memory(),
                        resume: args.resumes(),
                        rows: shown.rows,
                        measure: !shown.no_steps,
                        progress: Box::new(stage_bars()),
                    },
                    found: &mut run,
                };
                kept(compute.backend.run(job), &mut errors);
            }
            (checkpoint, tokenizer, rows) => {
                let tokenizer = tokenizer.map(|tokenizer| match &checkpoint {
                    Some(checkpoint) => tokenizer.for_table(checkpoint.config().vocab_size),
                    None => tokenizer,
                });
                let splits = ["train", "valid", "test"].into_iter().zip(&rows);
                let files = splits.filter_map(|(split, rows)| Some((split, rows.as_ref()?)));
                let files: Vec<_> = files.collect();
                let (tokenizer, resumes) = (tokenizer.as_ref(), args.resumes());
                run = check_parts(&config, tokenizer, &files, resumes, shown.rows);
            }
        }
        let mut errors: Vec<String> = errors.iter().map(output::one_line).collect();
        let found = run.errors.drain(..).map(|error| anyhow!(error));
        errors.extend(found.map(|error| output::one_line(&error)));
        warnings.append(&mut run.warnings);
        // Two files may have the same name.
        let mut said = HashSet::new();
        warnings.retain(|warning| said.insert(warning.clone()));
        Self {
            ok: errors.is_empty(),
            errors,
            warnings,
            config: args.config_path().map(PathBuf::from),
            backend: compute.backend.to_string(),
            dtype: dtype.name(),
            model,
            tokenizer,
            machine: Machine {
                free_memory: compute.backend.memory().map(|_| memory::free()),
                peak_memory: run.rehearsal.as_ref().and_then(|_| memory::peak_resident()),
                free_disk: run.output_dir.as_deref().and_then(memory::free_disk),
            },
            run,
        }
    }

    /// The error of a run that would not start, on one line.
    fn outcome(&self) -> Result<()> {
        match &self.errors[..] {
            [] => Ok(()),
            [error] => bail!("{error}"),
            [error, others @ ..] => bail!("{error} (and {} more)", others.len()),
        }
    }
}

struct Check<'a> {
    config: &'a RunConfig,
    inputs: &'a RunInputs,
    options: CheckOptions,
    found: &'a mut RunCheck,
}

impl Job for Check<'_> {
    fn run<B>(self, device: B::Device) -> Result<()>
    where
        B: AutodiffBackend<InnerBackend: Ops> + Ops,
    {
        *self.found = check_run::<B>(self.config, self.inputs, self.options, &device);
        Ok(())
    }
}
