//! `train`: an adapter from rows.

mod inputs;
mod page;
mod reader;
mod report;

use std::{
    cell::RefCell,
    path::{Path, PathBuf},
    rc::Rc,
};

use anyhow::{Context, Result};
use burn::tensor::{DType, backend::AutodiffBackend};
use burn_peft_ops::Ops;
use burn_peft_train::{
    Error, Observer, Override, RUN_FILE, RendererChoice, RunConfig, RunInputs, RunOptions,
    RunReport, Stop, find_lr, run as run_training,
};
use serde_json::json;

pub(super) use self::inputs::rows;
use self::{inputs::open, reader::Reader};
use super::{
    adapter, doctor,
    shared::{ComputeArgs, Recompute, display},
};
pub(super) use crate::builtin::Split;
use crate::{
    backend::Job, builtin, output, progress::stage_bars, ranks, signals, source::ModelSource,
};

/// Arguments of `train`. All of them can be set in run.toml; the command line takes precedence.
#[derive(Debug, clap::Args)]
#[command(after_long_help = super::method_help::options())]
pub(crate) struct Args {
    /// Configuration file (run.toml).
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Base model: a folder in Hugging Face layout or a hub id [default: the built-in model].
    #[arg(long)]
    model: Option<String>,
    /// Branch, tag or commit of a hub id.
    #[arg(long)]
    revision: Option<String>,
    /// Fine-tuning method: bitfit, prompt-tuning, p-tuning, prefix-tuning, p-tuning-v2, or linear-probe for the head of a
    /// task alone [default: prompt-tuning].
    #[arg(long, value_name = "M")]
    method: Option<String>,
    /// Task: causal-lm, seq-cls, token-cls or qa [default: what the rows are made for].
    #[arg(long, value_name = "TASK")]
    task: Option<String>,
    /// Training rows. May be repeated: the rows of all files [default: the built-in rows of the task].
    #[arg(long, value_name = "FILE")]
    data: Vec<String>,
    /// Validation rows.
    #[arg(long, value_name = "FILE")]
    valid: Option<String>,
    /// Output folder [default: runs/METHOD, or the first free of runs/METHOD-2, …].
    #[arg(long, value_name = "DIR")]
    output: Option<String>,
    /// Set one key of run.toml, as in --set train.learning_rate=5e-3.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Continue from the newest checkpoint in the output folder.
    #[arg(long)]
    resume: bool,
    /// Number of optimizer steps, instead of epochs.
    #[arg(long, value_name = "N")]
    max_steps: Option<i64>,
    /// Random seed.
    #[arg(long)]
    seed: Option<i64>,
    /// Recompute each layer in the backward pass instead of keeping its states: less memory, more time
    /// [default: auto, if a step would not fit in memory].
    #[arg(long, value_name = "WHEN", num_args = 0..=1, default_missing_value = "always")]
    recompute: Option<Recompute>,
    /// Train briefly at a rising learning rate and print which one to take, instead of the run.
    #[arg(long, conflicts_with = "resume")]
    find_lr: bool,
    /// Check the run as doctor does, instead of starting it.
    #[arg(long, conflicts_with = "find_lr")]
    dry_run: bool,
    /// Print plain lines instead of the dashboard.
    #[arg(long)]
    no_tui: bool,
    /// Print one JSON object per logged step to stdout, and a last one with the adapter's path; of a check, one object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    compute: ComputeArgs,
}

pub(crate) fn run(args: Args) -> Result<()> {
    if args.dry_run {
        return doctor::check(&args, doctor::Shown::default());
    }
    args.compute.start_threads()?;
    let config = args.load_config()?;
    let source = ModelSource::resolve(
        config.model.path.as_deref(),
        config.model.revision.as_deref(),
    )?;
    let inputs = open(&config, &source)?;
    let dtype = args.compute.dtype(config.model.dtype).into();
    args.compute.backend.run(Train {
        args: &args,
        config,
        inputs,
        dtype,
    })
}

impl Args {
    pub(super) fn compute(&self) -> &ComputeArgs {
        &self.compute
    }

    pub(super) fn config_path(&self) -> Option<&Path> {
        self.config.as_deref()
    }

    /// What of it is one process.
    pub(crate) fn alone(&self) -> Option<&'static str> {
        match (self.find_lr, self.dry_run) {
            (true, _) => Some("train --find-lr"),
            (_, true) => Some("train --dry-run"),
            _ => None,
        }
    }

    pub(super) fn finds_lr(&self) -> bool {
        self.find_lr
    }

    pub(super) fn resumes(&self) -> bool {
        self.resume
    }

    pub(super) fn json(&self) -> bool {
        self.json
    }

    /// How to go on with a run that was stopped.
    fn resume_command(&self, report: &RunReport) -> Option<String> {
        let summary = &report.summary;
        let config = display(&report.output_dir.join(RUN_FILE));
        let config = match config.starts_with('-') {
            true => format!("./{config}"),
            false => config,
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=,".contains(c);
        let config = match config.chars().all(plain) {
            true => config,
            false => format!("'{}'", config.replace('\'', r"'\''")),
        };
        let ranks = match ranks::all().size() {
            1 => String::new(),
            size => format!("mpirun -n {size} "),
        };
        let backend = match self.compute.backend.to_string().as_str() {
            "flex" => String::new(),
            other => format!(" --backend {other}"),
        };
        summary.interrupted.then(|| {
            format!(
                "stopped at step {}; go on with `{ranks}burn-peft train --config {config} --resume{backend}`",
                summary.steps
            )
        })
    }

    /// The configuration, with the folder of the adapter to start from.
    pub(super) fn load_config(&self) -> Result<RunConfig> {
        let mut config = self.read_config()?;
        if let Some(start) = config.method.init_from_mut() {
            let folder = adapter::locate(start.name()).context("method.init_from")?;
            let folder = folder.into_owned();
            start.found_in(folder);
        }
        Ok(config)
    }

    fn read_config(&self) -> Result<RunConfig> {
        let flags = [
            ("model", "path", &self.model, "--model"),
            ("model", "revision", &self.revision, "--revision"),
            ("method", "type", &self.method, "--method"),
            ("task", "type", &self.task, "--task"),
            ("data", "valid", &self.valid, "--valid"),
            ("output", "dir", &self.output, "--output"),
        ];
        let mut overrides: Vec<Override> = flags
            .into_iter()
            .filter_map(|(section, key, value, place)| {
                Some(Override::new(section, key, value.as_deref()?, place))
            })
            .collect();
        match self.data.as_slice() {
            [] => {}
            [file] => overrides.push(Override::new("data", "train", file.as_str(), "--data")),
            files => overrides.push(Override::new("data", "train", files.to_vec(), "--data")),
        }
        for (key, value, place) in [
            ("max_steps", self.max_steps, "--max-steps"),
            ("seed", self.seed, "--seed"),
        ] {
            overrides.extend(value.map(|value| Override::new("train", key, value, place)));
        }
        if let Some(when) = self.recompute {
            let key = "gradient_checkpointing";
            overrides.push(match when {
                Recompute::Always => Override::new("train", key, true, "--recompute"),
                Recompute::Never => Override::new("train", key, false, "--recompute"),
                Recompute::Auto => Override::new("train", key, "auto", "--recompute"),
            });
        }
        for text in &self.set {
            overrides.push(Override::parse(text)?);
        }
        let all_built_in = self.config.is_none() && self.model.is_none() && self.data.is_empty();
        if !all_built_in {
            return Ok(RunConfig::load(self.config.as_deref(), &overrides)?);
        }
        Ok(RunConfig::parse(
            builtin::RUN_TOML,
            "built-in run.toml",
            &overrides,
        )?)
    }
}

struct Train<'a> {
    args: &'a Args,
    config: RunConfig,
    inputs: RunInputs,
    dtype: DType,
}

impl Job for Train<'_> {
    fn run<B>(self, device: B::Device) -> Result<()>
    where
        B: AutodiffBackend<InnerBackend: Ops> + Ops,
    {
        let Self {
            args,
            config,
            inputs,
            dtype,
        } = self;
        let stop = Stop::new();
        signals::stop_run(stop.clone(), "step", args.json)?;
        let mut observers: Vec<Box<dyn Observer>> = Vec::new();
        let reader = Reader::default();
        if args.json {
            observers.push(Box::new(reader.observer(stop.clone())));
        }
        let said = Rc::new(RefCell::new(Vec::new()));
        let notes = said.clone();
        let options = RunOptions {
            dtype,
            memory: args.compute.backend.memory(),
            resume: args.resume,
            // A launcher gives its processes a terminal of its own, which nobody sees.
            renderer: RendererChoice::for_terminal(
                args.no_tui || !ranks::all().is_alone(),
                args.json,
            ),
            observers,
            stop,
            ranks: ranks::all(),
            progress: Box::new(stage_bars()),
            notes: Box::new(move |note| {
                notes.borrow_mut().push(note.to_owned());
                output::say(note);
            }),
        };
        if args.find_lr {
            let curve = find_lr::<B>(&config, inputs, options, &device)?;
            return report::print_curve(&curve, args.json);
        }
        let report = match run_training::<B>(&config, &inputs, options, &device) {
            Err(error @ Error::NotBegun) => {
                output::say(&error.to_string());
                signals::leave(signals::INTERRUPTED);
            }
            report => report?,
        };
        if !ranks::is_first() {
            return Ok(());
        }
        let page = page::write(&page::Run {
            report: &report,
            config: &config,
            inputs: &inputs,
            notes: &said.borrow(),
        });
        // The adapter is there: a page that is not is no reason to fail.
        if let Err(error) = page {
            output::warn(&format!("no report.html: {}", output::one_line(&error)));
        }
        let again = args.resume_command(&report);
        if let Some(gone) = reader.error() {
            again.iter().for_each(|line| output::say(line));
            return Err(gone.into());
        }
        let printed = match args.json {
            true => {
                again.iter().for_each(|line| output::say(line));
                print_done(&report)
            }
            false => output::print(&report::to_text(&report, &inputs, again)),
        };
        match report.summary.interrupted {
            // What stopped it may have taken the terminal, too.
            true => {
                drop(printed);
                Ok(())
            }
            false => printed,
        }
    }
}

fn print_done(report: &RunReport) -> Result<()> {
    let best = report.summary.best_eval.as_ref();
    output::print_json(&json!({
        "event": "done",
        "adapter": report.output_dir,
        "steps": report.summary.steps,
        "interrupted": report.summary.interrupted,
        "stopped_early": report.summary.stopped_early,
        "adapter_step": report.summary.adapter_step,
        "metric_for_best_model": best.map(|best| &best.metric),
        "best_metric": best.map(|best| best.value),
        "best_global_step": best.map(|best| best.step),
        "trainable_params": report.trainable_params,
        "train_loss": report.summary.train_loss,
        "before": report.before,
        "after": report.after,
    }))
}
