//! A whole run: from a checkpoint and rows to an adapter folder, with scores before and after.

mod folder;
mod model;
mod options;
mod resolve;
mod rows;

use std::{path::PathBuf, sync::Arc};

use burn::{
    module::AutodiffModule,
    tensor::backend::{AutodiffBackend, Backend},
};
use burn_peft::{NoAdapter, PeftModel, parameter_line};
use burn_peft_data::Template;
use burn_peft_decoder::Decoder;
use burn_peft_format::{AdapterFolder, ModelCard};
use burn_peft_ops::Ops;

pub use self::options::{RunInputs, RunOptions};
use self::resolve::{Known, identity, resolve};
pub(crate) use self::{
    model::new_model,
    rows::{Machine, RunRows, step_loader},
};
use crate::{
    Checkpoint, Error, FitOptions, FitSummary, GradientCheckpointing, HeldOut, HeldOutRows, Method,
    RunConfig, Stage, TaskSetup, Texts, Trainee,
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
    if config.data.validation_split.is_some() && inputs.valid.is_none() {
        return Err(Error::BadValue {
            place: String::new(),
            key: "data.validation_split".into(),
            message: "the inputs have no validation rows; `RunConfig::hold_out` takes them out"
                .into(),
        });
    }
    let folder = folder::claim(config.output.dir.as_deref(), method.name(), resume)?;
    stop.claimed(&folder);
    let output_dir = folder.path().to_owned();
    let mut damaged = |error: &Error| {
        notes(&format!("warning: {error}; an older checkpoint is taken"));
    };
    let resume = resume
        .then(|| Checkpoint::latest(&output_dir, &mut damaged))
        .transpose()?;
    let rows = RunRows::read(
        method,
        config,
        inputs,
        Machine { dtype, memory },
        &mut progress,
        &mut notes,
    )?;
    let known = Known {
        dtype,
        base: inputs.checkpoint.config(),
        learning_rate: rows.learning_rate,
        head: rows.task.head_kind().is_some(),
        plan: rows.plan,
        recompute: rows.recompute,
        train: &rows.train,
        mix: &rows.mix,
        valid: rows.valid.as_deref(),
    };
    let asked_checkpointing = config.train.gradient_checkpointing;
    let mut config = resolve(config, method, known);
    config.task = rows.task.config.clone();
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
            .check_run(&identity, &rows.plan)?
            .iter()
            .for_each(|note| notes(note));
    }

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
    });
    let texts = match config.train.predict_with_generate {
        true => Texts::Scored,
        false => Texts::Samples,
    };
    let before = match (&held_out, &resume) {
        (Some(rows), None) => {
            let d_model = base.config().hidden_size;
            let head = task.init_head(d_model, config.train.seed, device);
            let bare = PeftModel::new(base.clone(), NoAdapter::default()).with_head(head);
            Some(rows.score(&bare, texts, &mut progress)?)
        }
        _ => None,
    };

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
    let loader = step_loader(config, train, mix, padding, plan, device)?.starting_at(start);
    let batch_size = config.train.per_device_eval_batch_size;
    let valid = valid.map(|valid| eval_loader(valid, batch_size, padding, device));
    let valid = valid.transpose()?;
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
    let (adapter, head) = (model.adapter(), model.head());
    let mut folder = AdapterFolder::from_model(adapter, head, base, base_name, describe)?;
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
