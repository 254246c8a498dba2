//! A whole run: from a checkpoint and rows to an adapter folder, with scores before and after.

mod folder;
mod options;
mod resolve;
mod rows;

use std::{path::PathBuf, sync::Arc};

use burn::{
    module::AutodiffModule,
    tensor::backend::{AutodiffBackend, Backend},
};
use burn_peft::{Adapter, NoAdapter, PeftModel, parameter_line, room_for_rows};
use burn_peft_data::{Padding, Rows, Task, Template, TokenizeOptions, Tokenized, tokenize_rows};
use burn_peft_decoder::{Decoder, DecoderConfig};
use burn_peft_format::{AdapterFolder, ModelCard};
use burn_peft_ops::Ops;

pub use self::options::{RunInputs, RunOptions};
use self::resolve::{Known, identity, resolve};
use self::rows::{describe, longest, same_tokens, step_loader};
use crate::{
    Checkpoint, Error, FitOptions, FitSummary, GradientCheckpointing, HeldOut, HeldOutRows, Method,
    Plan, RunConfig, Stage, Start, StepSize, TaskSetup, Texts, Trainee,
    evaluate::eval_loader,
    fit,
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
}

/// Trains an adapter of the method that `config` names, and writes its folder.
///
/// # Errors
/// See [`Error`]. A run that is refused leaves its folder as it was.
pub fn run<B>(
    config: &RunConfig,
    inputs: &RunInputs,
    mut options: RunOptions,
    device: &B::Device,
) -> Result<RunReport, Error>
where
    B: AutodiffBackend<InnerBackend: Ops> + Ops,
{
    let config = settled(config, &inputs.tokenizer)?;
    for warning in check_init_from(&config, inputs)? {
        (options.notes)(&format!("warning: {warning}"));
    }
    run_method::<B, _>(&config.method, &config, inputs, options, device)
}

/// Trains an adapter of any method as `config` says, and writes its folder. `[method]` of `config` does not count.
///
/// The folder holds what the adapter injects, and so works in every program that knows PEFT's format. The module
/// itself is in the checkpoints: [`Checkpoint::load_adapter`].
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
        mut progress,
        mut notes,
    } = options;
    let folder = folder::claim(config.output.dir.as_deref(), method.name(), resume)?;
    stop.claimed(&folder);
    let output_dir = folder.path().to_owned();
    let mut damaged = |error: &Error| {
        notes(&format!("warning: {error}; an older checkpoint is taken"));
    };
    let resume = resume
        .then(|| Checkpoint::latest(&output_dir, &mut damaged))
        .transpose()?;
    let limit = longest_row(method, config, inputs.checkpoint.config())?;
    let table = inputs.checkpoint.config().vocab_size;
    let tokenizer = &inputs.tokenizer.clone().for_table(table);
    if let Some(memory) = memory {
        // What the base leaves.
        let base = inputs.checkpoint.config();
        let weights = base.num_parameters() * dtype.size();
        method.check_memory(base, memory.saturating_sub(weights as u64))?;
    }
    let rate = config.train.learning_rate;
    let rate = rate.unwrap_or_else(|| method.default_learning_rate());
    for warning in method.warnings(rate) {
        notes(&format!("warning: {warning}"));
    }
    let task = TaskSetup::settle(&config.task, &inputs.train)?;
    check_trains(method, &task, inputs.checkpoint.config())?;
    let mut tokenise = |rows: &Rows| -> Result<Tokenized, Error> {
        let tokenize = TokenizeOptions {
            max_length: Some(config.data.max_length.min(limit)),
            template: config.data.template.as_ref(),
            targets: task.targets(),
        };
        let tokenized = tokenize_rows(rows, tokenizer, tokenize, &mut |done, all| {
            progress(Stage::Tokenising, done as u64, all as u64);
        })?;
        notes(&describe(rows, &tokenized));
        for note in &tokenized.notes {
            notes(&format!("warning: {note}"));
        }
        Ok(tokenized)
    };
    let train = tokenise(&inputs.train)?.examples;
    let valid = inputs.valid.as_ref().map(&mut tokenise).transpose()?;
    let test = inputs.test.as_ref().map(&mut tokenise).transpose()?;
    let padding = Padding {
        multiple_of: config.data.pad_to_multiple_of,
        ..Padding::of(tokenizer)
    };
    let valid_rows = valid.as_ref().map_or(&[][..], |valid| &valid.examples);
    padding.check(longest(&train).max(longest(valid_rows)), limit)?;
    let held_out_rows = inputs.test.as_ref().or(inputs.valid.as_ref());
    let held_out = test.as_ref().or(valid.as_ref()).map(|t| match task.task {
        Task::CausalLm => same_tokens(&t.examples),
        _ => t.examples.clone(),
    });

    let plan = Plan::new(&config.train, train.len());
    let size = StepSize {
        dtype,
        batch: config.train.per_device_train_batch_size.min(train.len()),
        seq: longest(&train) + method.num_virtual_tokens(),
    };
    let checkpointing = config.train.gradient_checkpointing;
    let recompute = checkpointing.decide(size, inputs.checkpoint.config(), memory);
    let known = Known {
        dtype,
        plan,
        recompute,
        train: &train,
        valid: valid.as_ref().map(|valid| &valid.examples[..]),
    };
    let mut config = resolve(config, method, known);
    config.task = task.config.clone();
    config.output.dir = Some(output_dir.clone());
    let config = &config;
    let identity = identity::<B::InnerBackend>(config, method, inputs, known, device)?;
    if let Some(saved) = &resume {
        notes(&format!(
            "resuming at step {} of {}",
            saved.state.step,
            saved.path.display()
        ));
        saved
            .check_run(&identity, &plan)?
            .iter()
            .for_each(|note| notes(note));
    }

    let base = inputs
        .checkpoint
        .load::<B::InnerBackend>(dtype, device, &mut |done, all| {
            progress(Stage::Loading, done, all);
        })?;
    let held_out = held_out_rows.zip(held_out);
    let held_out = held_out.map(|(rows, examples)| HeldOutRows {
        rows,
        examples,
        task: &task,
        template: config.data.template.as_ref(),
        tokenizer,
        stop_ids: stop_ids(&inputs.checkpoint, tokenizer),
        batch_size: config.train.per_device_eval_batch_size,
    });
    let texts = match config.train.predict_with_generate {
        true => Texts::Scored,
        false => Texts::Samples,
    };
    let d_model = base.config().hidden_size;
    let before = match (&held_out, &resume) {
        (Some(rows), None) => {
            let head = task.init_head(d_model, config.train.seed, device);
            let bare = PeftModel::new(base.clone(), NoAdapter::default()).with_head(head);
            Some(rows.score(&bare, texts, &mut progress)?)
        }
        _ => None,
    };

    let base = Decoder::<B>::from_inner(base);
    B::seed(device, config.train.seed);
    let adapter = method.init(Start {
        base: &base,
        tokenizer,
        seed: config.train.seed,
    })?;
    check_tokens(method, &adapter)?;
    let head = task.init_head(d_model, config.train.seed, device);
    let model = PeftModel::new(base, adapter).with_head(head);
    let trainable_params = model.num_trainable();
    let all_params = inputs.checkpoint.config().num_parameters() + trainable_params;
    notes(&parameter_line(trainable_params, all_params));

    if recompute && checkpointing == GradientCheckpointing::Auto {
        notes("layers are computed again in the backward pass: a step would not fit the memory");
    }
    let start = resume
        .as_ref()
        .map_or(0, |checkpoint| checkpoint.state.step);
    let loader = step_loader(config, train, padding, plan, device)?.starting_at(start);
    let valid = match valid {
        Some(valid) => Some(eval_loader(
            valid.examples,
            config.train.per_device_eval_batch_size,
            padding,
            device,
        )?),
        None => None,
    };
    let trainee = Trainee::new(model).recomputing(recompute);
    if let Some(saved) = &resume {
        saved.check_parameters::<B, _>(&trainee)?;
    }
    let (begins, dir, run_file) = (stop.clone(), output_dir.clone(), identity.config.clone());
    let before_first_step = move || {
        begins.training_begins();
        for folder in [dir.clone(), dir.join("checkpoints")] {
            burn_peft_files::remove_leftovers(&folder)?;
        }
        Ok(burn_peft_files::write(
            &dir.join(RUN_FILE),
            run_file.as_bytes(),
        )?)
    };
    let (trained, summary) = fit(
        trainee,
        Arc::new(loader),
        valid.map(|loader| Arc::new(loader) as _),
        device,
        FitOptions {
            resume,
            renderer,
            observers,
            run: identity,
            interrupter: stop.interrupter(),
            before_first_step: Box::new(before_first_step),
            ..FitOptions::new(config, plan)
        },
    )?;
    if summary.steps == 0 {
        return Err(Error::NotBegun);
    }
    let model = trained.into_model();
    save::<B::InnerBackend, M>(method, config, inputs, &task, &model, &summary)?;
    let asked = stop.saved();
    if asked && !summary.interrupted {
        notes("stopped; the scores after training are left out");
    }
    let after = match &held_out {
        Some(rows) if !summary.interrupted && !asked => {
            Some(rows.score(&model, texts, &mut progress)?)
        }
        _ => None,
    };
    Ok(RunReport {
        before,
        after,
        summary,
        output_dir,
        trainable_params,
    })
}

/// The most tokens that a row can have: virtual tokens take positions too.
fn longest_row(
    method: &impl Method,
    config: &RunConfig,
    base: &DecoderConfig,
) -> Result<usize, Error> {
    method.check_base(base)?;
    let tokens = method.num_virtual_tokens();
    let placed = config.data.template.as_ref();
    let placed = placed.map_or(0, Template::num_virtual_tokens);
    if placed != 0 && placed != tokens {
        let (name, reason) = (
            "num_virtual_tokens",
            format!("it is {tokens}, and the template places {placed}"),
        );
        return Err(burn_peft::Error::Option { name, reason }.into());
    }
    Ok(room_for_rows(tokens, base)?)
}

/// Refuses a run in which nothing trains.
fn check_trains(method: &impl Method, task: &TaskSetup, base: &DecoderConfig) -> Result<(), Error> {
    if method.num_trainable(base) != Some(0) {
        return Ok(());
    }
    let why = match task.head_kind() {
        Some(_) if task.config.freeze_head => "task.freeze_head is true",
        Some(_) => return Ok(()),
        None if task.words.is_some() => "the language-model head tells the classes",
        None => "text is learned",
    };
    let method = method.name().to_owned();
    Err(Error::NothingTrains { method, why })
}

/// What the method says of its virtual tokens must be what its adapter injects.
fn check_tokens<B: Backend>(method: &impl Method, adapter: &impl Adapter<B>) -> Result<(), Error> {
    let (said, injected) = (
        method.num_virtual_tokens(),
        adapter.inject().num_virtual_tokens(),
    );
    if said == injected {
        return Ok(());
    }
    let name = "num_virtual_tokens";
    let reason = format!(
        "{} says {said}, and its adapter injects {injected}",
        method.name()
    );
    Err(burn_peft::Error::Option { name, reason }.into())
}

fn save<B: Backend, M: Method>(
    method: &M,
    config: &RunConfig,
    inputs: &RunInputs,
    task: &TaskSetup,
    model: &PeftModel<B, M::Adapter<B>>,
    summary: &FitSummary,
) -> Result<(), Error> {
    let (base, base_name) = (inputs.checkpoint.config(), inputs.base_name.as_deref());
    let describe = |landing: burn_peft_format::Landing<'_>| method.describe(landing, base_name);
    let head = task.task_type().zip(model.head());
    let mut folder = AdapterFolder::from_model(model.adapter(), head, base, base_name, describe)?;
    folder.config.task = task.folder_options();
    let dir = config.output_dir();
    folder.check(base, &dir)?;
    folder.config.template = config.data.template.as_ref().map(Template::to_string);
    folder.config.revision = config.model.revision.clone();
    folder.config.base_fingerprint = Some(inputs.checkpoint.fingerprint()?);
    let mut facts = Vec::new();
    if method.name() != folder.config.method.name() {
        facts.push(("trained as".to_owned(), method.name().to_owned()));
    }
    facts.push(("steps".to_owned(), summary.steps.to_string()));
    if let Some(loss) = summary.train_loss {
        facts.push(("mean training loss".to_owned(), format!("{loss:.4}")));
    }
    if let Some(eval) = &summary.eval {
        facts.push((
            "validation loss".to_owned(),
            format!("{:.4}", eval.eval_loss),
        ));
    }
    Ok(folder.save(
        &dir,
        &ModelCard {
            facts,
            refused_by_peft: folder.refused_by_peft(base),
            ..ModelCard::default()
        },
    )?)
}
