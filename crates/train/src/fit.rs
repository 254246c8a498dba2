//! The entry point: joins model, data, optimizer, schedule, checkpoints and renderer in burn-train's
//! `SupervisedTraining` and runs it.

mod no_data;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use burn::data::dataloader::DataLoader;
use burn::module::AutodiffModule;
use burn::tensor::Device;
use burn::tensor::backend::AutodiffBackend;
use burn_train::logger::MetricLogger;
use burn_train::metric::store::{EpochSummary, MetricsUpdate, Split};
use burn_train::metric::{LearningRateMetric, MetricDefinition, NumericEntry};
use burn_train::{
    InferenceStep, Interrupter, Learner, LearningComponentsMarker, SupervisedTraining, TrainStep,
    TrainingStrategy,
};

use self::no_data::NoData;
use crate::checkpoint::{Checkpoint, StepCheckpointer};
use crate::identity::RunIdentity;
use crate::memory::resident;
use crate::metrics::{ScalarMetric, TimeLeftMetric};
use crate::record::{EvalRecord, Observer, Observers, open_metrics};
use crate::render::{PlainRenderer, RendererChoice, dashboard, terminal_is_closed};
use crate::strategy::{BestRule, FitSummary, Session, Settings, StepStrategy};
use crate::tensorboard::EventFile;
use crate::{
    Error, LmOutput, Plan, Ranks, RunConfig, RunOptimizer, Schedule, StepSeed, TrainConfig,
    init_optimizer,
};

/// The training rows: an item holds all the micro-batches of one step.
pub type TrainData<B, M> = Arc<dyn DataLoader<B, <M as TrainStep>::Input>>;

/// The validation rows, in batches.
pub type ValidData<B, M> = Arc<
    dyn DataLoader<
            <B as AutodiffBackend>::InnerBackend,
            <<M as AutodiffModule<B>>::InnerModule as InferenceStep>::Input,
        >,
>;

/// Scores a model on the validation rows.
pub trait Scorer<M>: Send {
    /// The scores of all rows; `None` where `stop` said so before they were all scored.
    ///
    /// # Errors
    /// Whatever keeps the rows from being scored. It ends the run.
    fn score(&mut self, model: &M, stop: &dyn Fn() -> bool) -> Result<Option<EvalScores>, Error>;
}

/// What an evaluation says of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct EvalScores {
    /// Mean over all labels, in nats.
    pub loss: f64,
    /// Supervised tokens; with a head, labels.
    pub label_tokens: usize,
    /// Tokens of the rows.
    pub tokens: usize,
    /// Other scores, by their names in `metrics.jsonl`, as `eval_accuracy`.
    pub metrics: BTreeMap<String, f64>,
}

/// How a run is evaluated.
pub enum Validation<B: AutodiffBackend, M: AutodiffModule<B>>
where
    M::InnerModule: InferenceStep<Output = LmOutput>,
{
    /// By the loss of these batches.
    Losses(ValidData<B, M>),
    /// By these scores.
    Scores(Box<dyn Scorer<M::InnerModule>>),
}

impl<B: AutodiffBackend, M: AutodiffModule<B>> std::fmt::Debug for Validation<B, M>
where
    M::InnerModule: InferenceStep<Output = LmOutput>,
{
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Losses(_) => "Losses(..)",
            Self::Scores(_) => "Scores(..)",
        })
    }
}

/// What [`fit`] needs besides model and data.
pub struct FitOptions {
    /// `[train]`.
    pub train: TrainConfig,
    /// The highest learning rate.
    pub learning_rate: f64,
    /// The steps of the run.
    pub plan: Plan,
    /// Where `checkpoints/` and `metrics.jsonl` go. Made if it is not there.
    pub output_dir: PathBuf,
    /// Which run this is. Its checkpoints remember it, and going on as another is refused.
    pub run: RunIdentity,
    /// The checkpoint to go on from. The training data must begin with the step after it.
    pub resume: Option<Checkpoint>,
    /// How progress is shown.
    pub renderer: RendererChoice,
    /// Told each record, after `metrics.jsonl`.
    pub observers: Vec<Box<dyn Observer>>,
    /// Stops the run after the step under way; the run saves a checkpoint first.
    pub interrupter: Interrupter,
    /// The base's own loss on the validation rows: a new run logs it as step 0.
    pub base_eval: Option<EvalRecord>,
    /// Seconds that will pass between the last step and the end of the run; what is said of the time left counts them.
    pub closing_seconds: f64,
    /// Bytes of memory in use, where that is known.
    pub memory: Box<dyn FnMut() -> Option<u64> + Send>,
    /// The processes that share each step. The first one writes, shows and tells; all come to the same model.
    pub ranks: Ranks,
    /// Told the seed of each step, for what is random in its micro-batches.
    pub step_seed: StepSeed,
    /// Called once, right before the first step, or before a finished run ends. An error ends the run.
    pub before_first_step: Box<dyn FnMut() -> Result<(), Error> + Send>,
}

impl FitOptions {
    /// The options that a run configuration gives: no resume, plain lines, nobody else told.
    pub fn new(config: &RunConfig, plan: Plan) -> Self {
        Self {
            train: config.train.clone(),
            learning_rate: config.train.learning_rate.unwrap_or(1e-3),
            plan,
            run: RunIdentity {
                config: config.to_toml().unwrap_or_default(),
                ..RunIdentity::default()
            },
            output_dir: config.output_dir(),
            resume: None,
            renderer: RendererChoice::Plain,
            observers: Vec::new(),
            interrupter: Interrupter::new(),
            base_eval: None,
            closing_seconds: 0.0,
            memory: Box::new(resident),
            ranks: Ranks::alone(),
            step_seed: StepSeed::default(),
            before_first_step: Box::new(|| Ok(())),
        }
    }

    /// Steps done before this process: where the training data must begin.
    pub fn start_step(&self) -> usize {
        self.resume
            .as_ref()
            .map_or(0, |checkpoint| checkpoint.state.step)
    }
}

impl std::fmt::Debug for FitOptions {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("FitOptions")
            .field("train", &self.train)
            .field("plan", &self.plan)
            .field("output_dir", &self.output_dir)
            .field("resume", &self.resume)
            .field("renderer", &self.renderer)
            .finish_non_exhaustive()
    }
}

/// The types of a run, as burn-train wants them.
type Components<B, M> = LearningComponentsMarker<B, Schedule, M, RunOptimizer<M, B>>;

/// Trains `model` and returns it without autodiff, with a summary.
///
/// The model must stand on `device`. Its `TrainStep` gets all the micro-batches of one step and
/// returns gradients averaged over the step's supervised tokens; its `InferenceStep` evaluates one
/// batch. Only what the model exposes as `Param` is trained, saved and restored.
///
/// # Errors
/// [`Error::OutputInUse`] where the folder holds another run's checkpoints; [`Error::NotFinite`]
/// where the loss or the gradients diverge; [`Error::ResumeMismatch`] where the checkpoint belongs
/// to another run; and whatever keeps files from being written. An interrupted run is no error.
///
/// # Panics
/// Where the model's own step does.
pub fn fit<B, M>(
    model: M,
    train: TrainData<B, M>,
    valid: Option<Validation<B, M>>,
    device: &Device<B>,
    options: FitOptions,
) -> Result<(M::InnerModule, FitSummary), Error>
where
    B: AutodiffBackend,
    M: TrainStep<Output = LmOutput> + AutodiffModule<B> + Display + 'static,
    M::InnerModule: InferenceStep<Output = LmOutput>,
{
    let FitOptions {
        train: config,
        learning_rate,
        plan,
        run,
        output_dir,
        resume,
        ranks,
        ..
    } = options;
    let is_first = ranks.is_first();
    if is_first {
        if resume.is_none() {
            Checkpoint::none_in(&output_dir)?;
        }
        burn_peft_files::create_folder(&output_dir)?;
    }

    let schedule = Schedule::new(
        config.lr_scheduler_type,
        learning_rate,
        plan.warmup_steps,
        plan.total_steps,
    )
    .with(config.lr_scheduler_kwargs.clone().unwrap_or_default());
    let mut learner = Learner::<Components<B, M>>::new(model, init_optimizer(&config), schedule);
    if let Some(checkpoint) = &resume {
        checkpoint.check_run(&run, &plan)?;
        checkpoint.restore(&mut learner, device)?;
        // Now, and not after the rest of the run.
        if let Some(best) = checkpoint
            .best_before()
            .filter(|_| config.load_best_model_at_end)
        {
            Checkpoint::best(&output_dir, best)?;
        }
    }
    let (dir, state) = (
        output_dir.clone(),
        resume.as_ref().map(|saved| saved.state.clone()),
    );
    let mut before = options.before_first_step;
    let report_to = config.report_to;
    let begin = move || {
        before()?;
        if !is_first {
            return Ok(Observers::new());
        }
        let mut own: Observers = vec![Box::new(open_metrics(&dir, state.as_ref())?)];
        if report_to.tensorboard {
            own.push(Box::new(EventFile::create(
                &dir,
                state.as_ref().map(|state| state.step),
            )?));
        }
        Ok(own)
    };
    let mut memory = options.memory;
    let memory_is_known = memory().is_some();

    let outcome = Arc::new(Mutex::new(None));
    let (rule, evaluates) = (BestRule::new(&config), valid.is_some());
    let (valid, scorer): (ValidData<B, M>, _) = match valid {
        None => (Arc::new(NoData), None),
        Some(Validation::Losses(rows)) => (rows, None),
        Some(Validation::Scores(scorer)) => (Arc::new(NoData), Some(scorer)),
    };
    let strategy = StepStrategy::<Components<B, M>> {
        device: device.clone(),
        session: Mutex::new(Session {
            observers: match is_first {
                true => options.observers,
                false => Observers::new(),
            },
            begin: Box::new(begin),
            memory,
            checkpointer: StepCheckpointer::new(&output_dir, config.save_total_limit),
            scorer,
        }),
        outcome: outcome.clone(),
        settings: Settings {
            train: config,
            plan,
            run,
            resumed: resume,
            evaluates,
            output_dir: output_dir.clone(),
            base_eval: options.base_eval,
            closing_seconds: options.closing_seconds,
            ranks,
            step_seed: options.step_seed,
        },
    };
    let training = SupervisedTraining::new(&output_dir, train, valid)
        // Burn's would install a tracing subscriber for the whole process.
        .with_application_logger(None)
        // Burn's would write a file per metric and epoch.
        .with_metric_logger(NoLogger)
        .with_interrupter(options.interrupter.clone())
        .num_epochs(plan.epochs())
        .metric_train_numeric(ScalarMetric::loss())
        .metric_train_numeric(LearningRateMetric::new())
        .metric_train_numeric(ScalarMetric::grad_norm())
        .metric_train_numeric(ScalarMetric::tokens_per_second())
        .metric_train(TimeLeftMetric)
        .metric_valid_numeric(ScalarMetric::loss())
        .with_training_strategy(TrainingStrategy::Custom(Arc::new(strategy)));
    let training = match memory_is_known {
        true => training.metric_train_numeric(ScalarMetric::memory()),
        false => training,
    };
    let training = match rule.metric() {
        "loss" => training,
        _ => training.metric_valid_numeric(ScalarMetric::deciding(&rule)),
    };
    let total = plan.total_steps;
    let renderer = match is_first {
        true => options.renderer,
        false => RendererChoice::Silent,
    };
    let training = match renderer {
        RendererChoice::Tui => training.renderer(dashboard(options.interrupter)),
        RendererChoice::Plain => training.renderer(PlainRenderer::new(std::io::stderr(), total)),
        RendererChoice::Silent => training.renderer(PlainRenderer::new(std::io::sink(), total)),
    };
    let result = training.launch(learner);
    // The dashboard leaves the terminal when it is dropped; only then may errors be printed.
    match terminal_is_closed() {
        // It waits for its thread, which in a terminal that was closed never comes back from looking for a key.
        true => std::mem::forget(result.renderer),
        false => drop(result.renderer),
    }

    let outcome = outcome
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
    let summary = outcome.unwrap_or_else(|| unreachable!("launch runs the strategy to its end"))?;
    Ok((result.model, summary))
}

/// The run is logged by its observers.
struct NoLogger;

impl MetricLogger for NoLogger {
    fn log(&mut self, _update: MetricsUpdate, _epoch: usize, _split: &Split) {}

    fn read_numeric(
        &mut self,
        _name: &str,
        _epoch: usize,
        _split: &Split,
    ) -> Result<Vec<NumericEntry>, String> {
        Ok(Vec::new())
    }

    fn log_metric_definition(&mut self, _definition: MetricDefinition) {}

    fn log_epoch_summary(&mut self, _summary: EpochSummary) {}
}

#[cfg(test)]
mod index_loader;
#[cfg(test)]
mod tests;
