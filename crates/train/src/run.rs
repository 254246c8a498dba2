//! A whole run: from a checkpoint and rows to an adapter folder, with scores before and after.

mod base_scores;
mod card;
mod folder;
mod model;
mod options;
mod ready;
mod resolve;
mod rows;
mod scores;
mod validation;

use std::{path::PathBuf, sync::Arc};

use burn::{
    module::AutodiffModule,
    tensor::backend::{AutodiffBackend, Backend},
};
use burn_peft::{PeftModel, parameter_line};
use burn_peft_data::Template;
use burn_peft_decoder::Decoder;
use burn_peft_format::AdapterFolder;
use burn_peft_ops::{Kernels, Ops};

pub use self::options::{RunInputs, RunOptions};
use self::{
    base_scores::BaseScores,
    card::card,
    folder::Place,
    scores::{SCORES_FILE, Scores},
    validation::{ValidationRows, check_has_rows, scores_predictions},
};
pub(crate) use self::{
    folder::look,
    model::new_model,
    ready::Ready,
    rows::{Cut, Machine, RunRows, step_loader, tokenize_options},
};
use crate::{
    Error, FitOptions, FitSummary, GradientCheckpointing, HeldOut, HeldOutRows, Method, RunConfig,
    Stage, StepSeed, TaskSetup, Texts, Trainee, Validation,
    evaluate::eval_loader,
    fit,
    memory::resident,
    start::{check_init_from, settled},
    stop_ids,
};

/// Name of the resolved configuration in a run's folder.
pub const RUN_FILE: &str = "run.toml";

/// The result of a run.
#[derive(Debug, Clone)]
pub struct RunReport {
    /// The frozen base on the held-out rows.
    pub before: Option<HeldOut>,
    /// The base with the adapter.
    pub after: Option<HeldOut>,
    /// The training itself.
    pub summary: FitSummary,
    /// The adapter folder.
    pub output_dir: PathBuf,
    /// Parameters trained.
    pub trainable_params: usize,
    /// Steps of the run, those that were not done included.
    pub total_steps: usize,
}

/// Trains an adapter of the method that `config` names, and writes its folder.
///
/// # Errors
/// See [`Error`]. A run that is refused leaves its folder as it was.
pub fn run<B>(
    config: &RunConfig,
    inputs: &RunInputs,
    options: RunOptions,
    device: &B::Device,
) -> Result<RunReport, Error>
where
    B: AutodiffBackend<InnerBackend: Ops> + Ops,
{
    let mut options = options.quiet_unless_first();
    let config = settled(config, &inputs.tokenizer)?;
    for warning in check_init_from(&config, inputs)? {
        (options.notes)(&format!("warning: {warning}"));
    }
    run_method::<B, _>(&config.method, &config, inputs, options, device)
}

/// Trains an adapter of any method as `config` says, and writes its folder. `[method]` of `config` does not count.
///
/// The folder holds what the adapter injects, and so works in every program that knows PEFT's format. The module
/// itself is in the checkpoints: [`Checkpoint::load_adapter`](crate::Checkpoint::load_adapter).
///
/// # Errors
/// See [`Error`]. A run that is refused leaves its folder as it was.
pub fn run_method<B, M>(
    method: &M,
    config: &RunConfig,
    inputs: &RunInputs,
    options: RunOptions,
    device: &B::Device,
) -> Result<RunReport, Error>
where
    B: AutodiffBackend<InnerBackend: Ops> + Ops,
    M: Method,
    M::Adapter<B>: AutodiffModule<B, InnerModule = M::Adapter<B::InnerBackend>>,
{
    let RunOptions {
        dtype,
        memory,
        resume,
        renderer,
        observers,
        stop,
        ranks,
        mut progress,
        mut notes,
    } = options.quiet_unless_first();
    let is_first = ranks.is_first();
    if config.data.validation_split.is_some() && inputs.valid.is_none() {
        return Err(Error::BadValue {
            place: String::new(),
            key: "data.validation_split".into(),
            message: "the inputs have no validation rows; `RunConfig::hold_out` takes them out"
                .into(),
        });
    }
    check_has_rows(config, inputs.valid.as_ref())?;
    let mut damaged = |error: &Error| {
        notes(&format!("warning: {error}; an older checkpoint is taken"));
    };
    let place = Place::find(config, method.name(), resume, &ranks, &stop, &mut damaged)?;
    let (output_dir, resume) = (place.dir.clone(), place.resume.clone());
    // What is decided by memory is to be the same on all machines.
    let memory = ranks.gather(&memory).into_iter().flatten().min();
    let asked_checkpointing = config.train.gradient_checkpointing;
    let Ready {
        config,
        identity,
        rows,
    } = Ready::new::<B::InnerBackend>(
        method,
        config,
        inputs,
        &output_dir,
        resume.as_ref(),
        Machine {
            dtype,
            memory,
            ranks: ranks.size(),
        },
        device,
        &mut progress,
        &mut notes,
    )?;
    identity.check_ranks(&ranks, rows.test.as_deref())?;
    let config = &config;

    let base = inputs
        .checkpoint
        .load::<B::InnerBackend>(dtype, device, &mut |done, all| {
            progress(Stage::Loading, done, all);
        })?;
    let held_out = rows.held_out();
    let RunRows {
        task,
        tokenizer,
        train,
        mix,
        valid,
        padding,
        plan,
        recompute,
        ..
    } = rows;
    let held_out_rows = inputs.test.as_ref().or(inputs.valid.as_ref());
    let held_out = held_out_rows.zip(held_out);
    let held_out = held_out.map(|(rows, examples)| HeldOutRows {
        rows,
        examples,
        task: &task,
        template: config.data.template.as_ref(),
        tokenizer: &tokenizer,
        stop_ids: stop_ids(&inputs.checkpoint, &tokenizer),
        batch_size: config.train.per_device_eval_batch_size,
        max_length: Some(config.data.max_length),
        ranks: ranks.clone(),
    });
    let texts = match config.train.predict_with_generate {
        true => Texts::Scored,
        false => Texts::Samples,
    };
    let base_scores = match (&held_out, &resume) {
        (None, _) => BaseScores::default(),
        (Some(rows), Some(_)) => BaseScores {
            held_out: Scores::before(&output_dir, &rows.examples, &mut notes)?,
            ..BaseScores::default()
        },
        (Some(rows), None) => BaseScores::compute(
            &base,
            inputs,
            rows,
            valid.as_deref(),
            texts,
            config.train.seed,
            &mut progress,
        )?,
    };
    let before = base_scores.held_out;

    let base = Decoder::<B>::from_inner(base);
    let model = new_model(method, base, &task, &tokenizer, config.train.seed)?;
    let trainable_params = model.num_trainable();
    let all_params = inputs.checkpoint.config().num_parameters() + trainable_params;
    notes(&parameter_line(trainable_params, all_params));
    if recompute && asked_checkpointing == GradientCheckpointing::Auto {
        notes("layers are computed again in the backward pass: a step would not fit the memory");
    }
    let start = resume
        .as_ref()
        .map_or(0, |checkpoint| checkpoint.state.step);
    let loader = step_loader(config, train, mix, padding, plan, &ranks, device)?;
    let loader = loader.starting_at(start);
    let valid = match inputs.valid.as_ref().zip(valid) {
        None => None,
        Some((rows, examples)) if scores_predictions(config, &task, rows) => {
            let rows = ValidationRows {
                rows: rows.clone(),
                examples,
                task: task.clone(),
                template: config.data.template.clone(),
                tokenizer: tokenizer.clone(),
                stop_ids: stop_ids(&inputs.checkpoint, &tokenizer),
                batch_size: config.train.per_device_eval_batch_size,
                max_length: Some(config.data.max_length),
                ranks: ranks.clone(),
            };
            Some(Validation::Scores(Box::new(rows)))
        }
        Some((_, examples)) => {
            let batch_size = config.train.per_device_eval_batch_size;
            let loader = eval_loader(examples, batch_size, padding, device)?;
            Some(Validation::Losses(Arc::new(loader) as _))
        }
    };
    let step_seed = StepSeed::default();
    let trainee = Trainee::new(model)
        .recomputing(recompute)
        .seeded(step_seed.clone())
        .among(ranks.clone());
    if let Some(saved) = &resume {
        saved.check_parameters::<B, _>(&trainee)?;
    }
    let (begins, dir, run_file) = (stop.clone(), output_dir.clone(), identity.config.clone());
    let held_out_examples = held_out.as_ref().map(|rows| rows.examples.as_slice());
    let scores = Scores::of(held_out_examples, before.as_ref(), None).to_bytes();
    let before_first_step = move || {
        begins.training_begins();
        if !is_first {
            return Ok(());
        }
        for folder in [dir.clone(), dir.join("checkpoints")] {
            burn_peft_files::remove_leftovers(&folder)?;
        }
        burn_peft_files::write(&dir.join(SCORES_FILE), &scores)?;
        Ok(burn_peft_files::write(
            &dir.join(RUN_FILE),
            run_file.as_bytes(),
        )?)
    };
    let memory_of = device.clone();
    let memory = move || <B as Ops>::Plain::reserved_memory(&memory_of).or_else(resident);
    let (trained, summary) = fit(
        trainee,
        Arc::new(loader),
        valid,
        device,
        FitOptions {
            resume,
            renderer,
            observers,
            run: identity,
            interrupter: stop.interrupter(),
            base_eval: base_scores.eval,
            closing_seconds: base_scores.seconds,
            memory: Box::new(memory),
            ranks: ranks.clone(),
            step_seed,
            before_first_step: Box::new(before_first_step),
            ..FitOptions::new(config, plan)
        },
    )?;
    if summary.steps == 0 {
        return Err(Error::NotBegun);
    }
    if !ranks.is_alone() {
        notes(&format!(
            "gradients took {:.1} s on their way among the ranks, with what rank 0 waited for others",
            ranks.reducing_seconds()
        ));
    }
    if config.train.load_best_model_at_end && summary.best_eval.is_none() {
        notes(
            "warning: no evaluation has a value of the metric: the adapter is the last one, not the best",
        );
    }
    let model = trained.into_model();
    let saved = match is_first {
        true => Some(save::<B::InnerBackend, M>(
            method, config, inputs, &task, &model, &summary,
        )?),
        false => None,
    };
    let asked = ranks.any(stop.saved());
    if asked && !summary.interrupted {
        notes("stopped; the scores after training are left out");
    }
    let after = match &held_out {
        Some(rows) if !summary.interrupted && !asked => {
            Some(rows.score(&model, texts, &mut progress)?)
        }
        _ => None,
    };
    if let Some(saved) = &saved {
        let scores = Scores::of(held_out_examples, before.as_ref(), after.as_ref());
        burn_peft_files::write(&output_dir.join(SCORES_FILE), &scores.to_bytes())?;
        if let Some(after) = &after {
            let scores = Some((before.as_ref(), after));
            let card = card(method, config, inputs, saved, &summary, scores)?;
            saved.save_card(&output_dir, &card)?;
        }
    }
    Ok(RunReport {
        before,
        after,
        summary,
        output_dir,
        trainable_params,
        total_steps: plan.total_steps,
    })
}

fn save<B: Backend, M: Method>(
    method: &M,
    config: &RunConfig,
    inputs: &RunInputs,
    task: &TaskSetup,
    model: &PeftModel<B, M::Adapter<B>>,
    summary: &FitSummary,
) -> Result<AdapterFolder, Error> {
    let (base, base_name) = (inputs.checkpoint.config(), inputs.base_name.as_deref());
    let describe = |landing: burn_peft_format::Landing<'_>| method.describe(landing, base_name);
    let (adapter, head) = (model.adapter(), model.head());
    let mut folder = AdapterFolder::from_model(adapter, head, base, base_name, describe)?;
    folder.config.task = task.folder_options();
    let dir = config.output_dir();
    folder.check(base, &dir)?;
    folder.config.template = config.data.template.as_ref().map(Template::to_string);
    folder.config.revision = config.model.revision.clone();
    folder.config.base_fingerprint = Some(inputs.checkpoint.fingerprint()?);
    folder.save(&dir, &card(method, config, inputs, &folder, summary, None)?)?;
    Ok(folder)
}
