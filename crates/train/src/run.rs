//! A whole run: from a checkpoint and rows to an adapter folder, with scores before and after.

use std::{path::PathBuf, sync::Arc};

use burn::{
    data::dataset::InMemDataset,
    module::AutodiffModule,
    tensor::{DType, backend::AutodiffBackend},
};
use burn_peft::{Adapter, AnyAdapter, NoAdapter, PeftModel, parameter_line};
use burn_peft_data::{
    BatchOrder, EvalLoader, Example, Padding, Rows, StepLoader, Template, TextTokenizer,
    TokenizeOptions, Tokenized, tokenize_rows,
};
use burn_peft_decoder::{Checkpoint as ModelCheckpoint, Decoder};
use burn_peft_format::{ModelCard, folder_from_adapter};
use burn_peft_ops::Ops;
use serde::Serialize;

use crate::{
    Checkpoint, Error, Evaluation, FitOptions, FitSummary, GradientCheckpointing, Interrupter,
    Observer, Plan, RendererChoice, RunConfig, Scored, StepSize, TextScores, Trainee, complete,
    evaluate, files, fit, prompts_and_references,
    start::{init_adapter, settled},
    stop_ids,
};

/// Name of the resolved configuration in a run's folder.
pub const RUN_FILE: &str = "run.toml";

/// Rows whose texts are shown before and after.
const SAMPLES: usize = 3;

/// What a run works on.
#[derive(Debug)]
pub struct RunInputs {
    /// The base, opened.
    pub checkpoint: ModelCheckpoint,
    /// Its tokenizer.
    pub tokenizer: TextTokenizer,
    /// The base's hub id or path, for the adapter folder; `None` for one that has neither.
    pub base_name: Option<String>,
    /// Rows to learn from.
    pub train: Rows,
    /// Rows to evaluate on while training.
    pub valid: Option<Rows>,
    /// Rows to score before and after; without them, `valid` is scored.
    pub test: Option<Rows>,
}

/// How a run goes about it.
pub struct RunOptions {
    /// Type of the frozen base.
    pub dtype: DType,
    /// Bytes of memory that the device has, where that is known; see [`GradientCheckpointing`].
    pub memory: Option<u64>,
    /// Go on from the newest checkpoint of the output folder.
    pub resume: bool,
    /// Who shows the run.
    pub renderer: RendererChoice,
    /// Told each logged record.
    pub observers: Vec<Box<dyn Observer>>,
    /// Stops the run at the next step.
    pub interrupter: Interrupter,
    /// Told of everything that takes a while: what, how much is done, and of how much.
    pub progress: Box<dyn FnMut(Stage, u64, u64)>,
    /// Told in plain words what the run is about to do.
    pub notes: Box<dyn FnMut(&str)>,
}

impl std::fmt::Debug for RunOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RunOptions")
            .field("dtype", &self.dtype)
            .field("resume", &self.resume)
            .field("renderer", &self.renderer)
            .finish_non_exhaustive()
    }
}

/// What takes a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Reading the base, in bytes.
    Loading,
    /// Tokenising, in rows.
    Tokenising,
    /// Scoring the held-out rows, in rows.
    Evaluating,
    /// Writing texts for the held-out rows, in rows.
    Generating,
}

/// Scores of the held-out rows.
#[derive(Debug, Clone, Serialize)]
pub struct HeldOut {
    /// How likely the rows are.
    #[serde(flatten)]
    pub evaluation: Evaluation,
    /// How good the texts are, where they were written.
    #[serde(flatten)]
    pub texts: Option<TextScores>,
    /// The first texts.
    #[serde(skip)]
    pub samples: Vec<Scored>,
}

/// What a run came to.
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

/// Trains an adapter as `config` says and writes its folder.
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
    let output_dir = config.output_dir();
    let resume = resume
        .then(|| Checkpoint::latest(&output_dir))
        .transpose()?;
    if resume.is_none() {
        Checkpoint::none_in(&output_dir)?;
    }
    let config = &settled(config, &inputs.tokenizer)?;
    config.method.check_base(inputs.checkpoint.config())?;
    for warning in config.method.warnings(config.learning_rate()) {
        notes(&format!("warning: {warning}"));
    }
    files::create_dir(&output_dir)?;
    files::replace_file(&output_dir.join(RUN_FILE), config.to_toml()?.as_bytes())?;

    let mut tokenise = |rows: &Rows| -> Result<Tokenized, Error> {
        // Virtual tokens take positions too; `check_base` has seen that some are left.
        let positions = inputs.checkpoint.config().max_position_embeddings;
        let limit = positions - config.method.num_virtual_tokens();
        let tokenize = TokenizeOptions {
            max_length: Some(config.data.max_length.min(limit)),
            template: config.data.template.as_ref(),
        };
        let tokenized = tokenize_rows(rows, &inputs.tokenizer, tokenize, &mut |done, all| {
            progress(Stage::Tokenising, done as u64, all as u64);
        })?;
        notes(&describe(rows, &tokenized));
        Ok(tokenized)
    };
    let train = tokenise(&inputs.train)?.examples;
    let valid = inputs.valid.as_ref().map(&mut tokenise).transpose()?;
    let test = inputs.test.as_ref().map(&mut tokenise).transpose()?;
    let held_out_rows = inputs.test.as_ref().or(inputs.valid.as_ref());
    let held_out = test.as_ref().or(valid.as_ref()).map(|t| t.examples.clone());

    let base = inputs
        .checkpoint
        .load::<B::InnerBackend>(dtype, device, &mut |done, all| {
            progress(Stage::Loading, done, all);
        })?;
    let mut scorer = held_out_rows.zip(held_out).map(|(rows, examples)| Scorer {
        config,
        inputs,
        rows,
        examples,
        progress: &mut progress,
    });
    let before = match (&mut scorer, &resume) {
        (Some(scorer), None) => {
            Some(scorer.score(&PeftModel::new(base.clone(), NoAdapter::default()))?)
        }
        _ => None,
    };

    let base = Decoder::<B>::from_inner(base);
    let adapter = init_adapter(config, &inputs.tokenizer, &base)?;
    let trainable_params = burn::module::Module::num_params(&adapter);
    let all_params = inputs.checkpoint.config().num_parameters() + trainable_params;
    notes(&parameter_line(trainable_params, all_params));

    let padding = Padding {
        multiple_of: config.data.pad_to_multiple_of,
        ..Padding::of(&inputs.tokenizer)
    };
    let size = StepSize {
        dtype,
        batch: config.train.per_device_train_batch_size,
        seq: longest(&train) + config.method.num_virtual_tokens(),
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
        Some(valid) => Some(eval_loader(config, valid.examples, padding, device)?),
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
    save(config, inputs, &model, &summary)?;
    let after = match &mut scorer {
        Some(scorer) if !summary.interrupted => Some(scorer.score(&model)?),
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

/// Tokens of the longest row.
fn longest(examples: &[Example]) -> usize {
    examples.iter().map(Example::len).max().unwrap_or(0)
}

/// What became of a file's rows.
fn describe(rows: &Rows, tokenized: &Tokenized) -> String {
    let lengths = tokenized.examples.iter().map(Example::len);
    let mut text = format!(
        "{}: {} rows, the longest of {} tokens",
        rows.path(),
        tokenized.examples.len(),
        lengths.max().unwrap_or(0),
    );
    if tokenized.truncated + tokenized.dropped > 0 {
        text += &format!(
            "; {} cut to data.max_length, {} left out because nothing supervised was left of them",
            tokenized.truncated, tokenized.dropped
        );
    }
    text
}

fn step_loader<B: AutodiffBackend>(
    config: &RunConfig,
    examples: Vec<Example>,
    padding: Padding,
    plan: Plan,
    device: &B::Device,
) -> Result<StepLoader<B>, Error> {
    let train = &config.train;
    let order = BatchOrder {
        group_by_length: train.group_by_length,
        ..BatchOrder::new(
            train.seed,
            train.per_device_train_batch_size,
            train.gradient_accumulation_steps,
        )
    };
    Ok(StepLoader::new(
        InMemDataset::new(examples),
        order,
        padding,
        plan.total_steps,
        device.clone(),
    )?)
}

fn eval_loader<B: Ops>(
    config: &RunConfig,
    examples: Vec<Example>,
    padding: Padding,
    device: &B::Device,
) -> Result<EvalLoader<B>, Error> {
    let batch_size = config.train.per_device_eval_batch_size;
    Ok(EvalLoader::new(
        InMemDataset::new(examples),
        batch_size,
        padding,
        device.clone(),
    )?)
}

fn save<B: Ops>(
    config: &RunConfig,
    inputs: &RunInputs,
    model: &PeftModel<B, AnyAdapter<B>>,
    summary: &FitSummary,
) -> Result<(), Error> {
    let mut folder = folder_from_adapter(
        model.adapter(),
        &config.method,
        inputs.checkpoint.config(),
        inputs.base_name.as_deref(),
    );
    folder.config.template = config.data.template.as_ref().map(Template::to_string);
    let mut facts = vec![("steps".to_owned(), summary.steps.to_string())];
    if let Some(loss) = summary.train_loss {
        facts.push(("mean training loss".to_owned(), format!("{loss:.4}")));
    }
    if let Some(eval) = &summary.eval {
        facts.push((
            "validation loss".to_owned(),
            format!("{:.4}", eval.eval_loss),
        ));
    }
    Ok(folder.save(&config.output_dir(), &ModelCard { title: None, facts })?)
}

/// Scores models on the held-out rows.
struct Scorer<'a> {
    config: &'a RunConfig,
    inputs: &'a RunInputs,
    rows: &'a Rows,
    examples: Vec<Example>,
    progress: &'a mut dyn FnMut(Stage, u64, u64),
}

impl Scorer<'_> {
    fn score<B: Ops, A: Adapter<B>>(&mut self, model: &PeftModel<B, A>) -> Result<HeldOut, Error> {
        let batch_size = self.config.train.per_device_eval_batch_size;
        let all = self.examples.len() as u64;
        let device = model.base().device();
        let padding = Padding::of(&self.inputs.tokenizer);
        let loader = eval_loader(self.config, self.examples.clone(), padding, &device)?;
        let evaluation = evaluate(model, &loader, &mut |done| {
            (self.progress)(Stage::Evaluating, done as u64, all);
        });
        let generate = self.config.train.predict_with_generate;
        let template = self.config.data.template.as_ref();
        let mut rows = prompts_and_references(self.rows, template).unwrap_or_default();
        if !generate {
            rows.truncate(SAMPLES);
        }
        let stop_ids = stop_ids(&self.inputs.checkpoint, &self.inputs.tokenizer);
        let all = rows.len() as u64;
        let mut samples = complete(
            model,
            &self.inputs.tokenizer,
            &rows,
            batch_size,
            &stop_ids,
            &mut |done| (self.progress)(Stage::Generating, done as u64, all),
        )?;
        let texts = generate.then(|| TextScores::of(&samples)).flatten();
        samples.truncate(SAMPLES);
        Ok(HeldOut {
            evaluation,
            texts,
            samples,
        })
    }
}
