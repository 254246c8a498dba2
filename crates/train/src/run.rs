//! A whole run: from a checkpoint and rows to an adapter folder, with scores before and after.

mod options;
mod rows;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use burn::{
    module::{AutodiffModule, Module},
    tensor::backend::{AutodiffBackend, Backend},
};
use burn_peft::{Adapter, NoAdapter, PeftModel, parameter_line, room_for_rows};
use burn_peft_data::{
    IGNORE_INDEX, Padding, Rows, Template, TokenizeOptions, Tokenized, tokenize_rows,
};
use burn_peft_decoder::{Decoder, DecoderConfig};
use burn_peft_format::{AdapterFolder, ModelCard};
use burn_peft_ops::Ops;

pub use self::options::{RunInputs, RunOptions};
use self::rows::{describe, longest, step_loader};
use crate::{
    Checkpoint, Error, FitOptions, FitSummary, GradientCheckpointing, HeldOut, HeldOutRows, Method,
    Plan, RunConfig, Stage, Start, StepSize, Texts, Trainee, evaluate::eval_loader, fit,
    start::settled, stop_ids,
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
/// See [`Error`]. The output folder is made and written to before anything is computed.
pub fn run<B>(
    config: &RunConfig,
    inputs: &RunInputs,
    options: RunOptions,
    device: &B::Device,
) -> Result<RunReport, Error>
where
    B: AutodiffBackend<InnerBackend: Ops> + Ops,
{
    let config = settled(config, &inputs.tokenizer)?;
    run_method::<B, _>(&config.method, &config, inputs, options, device)
}

/// Trains an adapter of any method as `config` says, and writes its folder. `[method]` of `config` does not count.
///
/// The folder holds what the adapter injects, and so works in every program that knows PEFT's format. The module
/// itself is in the checkpoints: [`Checkpoint::load_adapter`].
///
/// # Errors
/// See [`Error`]. The output folder is made and written to before anything is computed.
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
        interrupter,
        mut progress,
        mut notes,
    } = options;
    let config = &with_defaults_of(method, config);
    let output_dir = config.output_dir();
    let resume = resume
        .then(|| Checkpoint::latest(&output_dir))
        .transpose()?;
    if resume.is_none() {
        Checkpoint::none_in(&output_dir)?;
    }
    let limit = longest_row(method, config, inputs.checkpoint.config())?;
    let table = inputs.checkpoint.config().vocab_size;
    let tokenizer = &inputs.tokenizer.clone().for_table(table);
    for warning in method.warnings(config.learning_rate()) {
        notes(&format!("warning: {warning}"));
    }
    burn_peft_files::write(
        &output_dir.join(RUN_FILE),
        config.to_toml_of(&method.settings())?.as_bytes(),
    )?;

    let mut tokenise = |rows: &Rows| -> Result<Tokenized, Error> {
        let tokenize = TokenizeOptions {
            max_length: Some(config.data.max_length.min(limit)),
            template: config.data.template.as_ref(),
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
    let mut held_out = test.as_ref().or(valid.as_ref()).map(|t| t.examples.clone());
    for example in held_out.iter_mut().flatten() {
        // Only an adapter with virtual tokens in front predicts the first token of a row. Before and after are to be
        // scores of the same tokens.
        example.labels[0] = IGNORE_INDEX;
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
        template: config.data.template.as_ref(),
        tokenizer,
        stop_ids: stop_ids(&inputs.checkpoint, tokenizer),
        batch_size: config.train.per_device_eval_batch_size,
    });
    let texts = match config.train.predict_with_generate {
        true => Texts::Scored,
        false => Texts::Samples,
    };
    let before = match (&held_out, &resume) {
        (Some(rows), None) => {
            let bare = PeftModel::new(base.clone(), NoAdapter::default());
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
    let (said, injected) = (
        method.num_virtual_tokens(),
        adapter.inject().num_virtual_tokens(),
    );
    if said != injected {
        let (name, reason) = (
            "num_virtual_tokens",
            format!(
                "{} says {said}, and its adapter injects {injected}",
                method.name()
            ),
        );
        return Err(burn_peft::Error::Option { name, reason }.into());
    }
    let trainable_params = adapter.num_params();
    let all_params = inputs.checkpoint.config().num_parameters() + trainable_params;
    notes(&parameter_line(trainable_params, all_params));

    let size = StepSize {
        dtype,
        batch: config.train.per_device_train_batch_size.min(train.len()),
        seq: longest(&train) + method.num_virtual_tokens(),
    };
    let checkpointing = config.train.gradient_checkpointing;
    let recompute = checkpointing.decide(size, base.config(), memory);
    if recompute && checkpointing == GradientCheckpointing::Auto {
        notes("layers are computed again in the backward pass: a step would not fit the memory");
    }
    let plan = Plan::new(&config.train, train.len());
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
    let (trained, summary) = fit(
        Trainee::new(PeftModel::new(base, adapter)).recomputing(recompute),
        Arc::new(loader),
        valid.map(|loader| Arc::new(loader) as _),
        device,
        FitOptions {
            resume,
            renderer,
            observers,
            interrupter,
            ..FitOptions::new(config, plan)
        },
    )?;
    let model = trained.into_model();
    save(method, config, inputs, model.adapter(), &summary)?;
    let after = match &held_out {
        Some(rows) if !summary.interrupted => Some(rows.score(&model, texts, &mut progress)?),
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

/// The configuration with what the method decides where it leaves that open.
fn with_defaults_of(method: &impl Method, config: &RunConfig) -> RunConfig {
    let mut config = config.clone();
    let rate = &mut config.train.learning_rate;
    rate.get_or_insert_with(|| method.default_learning_rate());
    let dir = &mut config.output.dir;
    dir.get_or_insert_with(|| Path::new("runs").join(method.name()));
    config
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

fn save<B: Backend, M: Method>(
    method: &M,
    config: &RunConfig,
    inputs: &RunInputs,
    adapter: &M::Adapter<B>,
    summary: &FitSummary,
) -> Result<(), Error> {
    let (base, base_name) = (inputs.checkpoint.config(), inputs.base_name.as_deref());
    let describe = |landing: burn_peft_format::Landing<'_>| method.describe(landing, base_name);
    let mut folder = AdapterFolder::from_adapter(adapter, base, base_name, describe)?;
    let dir = config.output_dir();
    folder.check(base, &dir)?;
    folder.config.template = config.data.template.as_ref().map(Template::to_string);
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
    Ok(folder.save(&dir, &ModelCard { title: None, facts })?)
}
