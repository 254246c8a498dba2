//! The learning strategy: burn-train's `Learner`, one optimizer step at a time.
//!
//! The stock strategies step the learning rate on every micro-batch, sum accumulated gradients in
//! place of averaging them, and save and resume by epoch. Here an item of the training loader holds
//! all the micro-batches of one step, the model's `TrainStep` returns their gradients already
//! averaged over tokens, and logging, evaluation, saving and resuming count steps.

mod best;
mod evaluation;
mod run;
mod tally;
mod time_left;

pub(crate) use self::best::{BestRule, BestSoFar, metric_of};
pub(crate) use self::run::{advice, step_seed};
pub use self::tally::FitSummary;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::Device;
use burn_train::{
    InferenceStep, Learner, LearningComponentsTypes, SupervisedLearningStrategy,
    SupervisedTrainingEventProcessor, TrainLoader, TrainStep, TrainingBackend, TrainingComponents,
    TrainingModel, ValidLoader,
};

use self::run::Run;
use self::tally::Tally;
use self::time_left::TimeLeft;
use crate::checkpoint::{Checkpoint, StepCheckpointer};
use crate::fit::Scorer;
use crate::identity::RunIdentity;
use crate::intervals::Intervals;
use crate::metrics::Window;
use crate::record::{EvalRecord, Observers};
use crate::{Error, LmOutput, Plan, Ranks, StepSeed, TrainConfig};

/// What the loop needs to know.
pub(crate) struct Settings {
    pub(crate) train: TrainConfig,
    pub(crate) plan: Plan,
    pub(crate) run: RunIdentity,
    /// The checkpoint that this process goes on from.
    pub(crate) resumed: Option<Checkpoint>,
    /// Whether there are validation rows.
    pub(crate) evaluates: bool,
    /// Where the run leaves its files.
    pub(crate) output_dir: PathBuf,
    /// The base's own loss on them.
    pub(crate) base_eval: Option<EvalRecord>,
    /// Seconds that the run takes after its last step.
    pub(crate) closing_seconds: f64,
    /// The processes that share each step.
    pub(crate) ranks: Ranks,
    pub(crate) step_seed: StepSeed,
}

impl Settings {
    /// Steps done before this process.
    pub(crate) fn start(&self) -> usize {
        self.resumed
            .as_ref()
            .map_or(0, |checkpoint| checkpoint.state.step)
    }

    /// What an evaluation took: the last one of the run, or that of the base.
    fn expected_eval_seconds(&self) -> Option<f64> {
        let resumed = self.resumed.as_ref();
        let last = resumed.and_then(|checkpoint| checkpoint.state.eval.as_ref());
        last.or(self.base_eval.as_ref())
            .map(|eval| eval.eval_seconds)
    }

    /// The steps since the last log.
    fn window(&self) -> Window {
        let resumed = self.resumed.as_ref();
        resumed.map_or_else(Window::default, |checkpoint| {
            checkpoint.state.window.clone()
        })
    }
}

/// Where the loop leaves its result: a strategy can only return a model.
pub(crate) type Outcome = Arc<Mutex<Option<Result<FitSummary, Error>>>>;

/// What the loop changes.
pub(crate) struct Session<LC: LearningComponentsTypes> {
    pub(crate) observers: Observers,
    /// Called once, before the first step: opens what the run writes its records to.
    pub(crate) begin: Box<dyn FnMut() -> Result<Observers, Error> + Send>,
    /// Bytes of memory in use.
    pub(crate) memory: Box<dyn FnMut() -> Option<u64> + Send>,
    pub(crate) checkpointer: StepCheckpointer<LC>,
    /// Evaluates in the place of the validation loader.
    pub(crate) scorer: Option<Box<dyn Scorer<LC::InferenceModel>>>,
}

pub(crate) struct StepStrategy<LC: LearningComponentsTypes> {
    pub(crate) settings: Settings,
    pub(crate) device: Device<TrainingBackend<LC>>,
    pub(crate) session: Mutex<Session<LC>>,
    pub(crate) outcome: Outcome,
}

impl<LC> SupervisedLearningStrategy<LC> for StepStrategy<LC>
where
    LC: LearningComponentsTypes,
    LC::TrainingModel: TrainStep<Output = LmOutput>,
    LC::InferenceModel: InferenceStep<Output = LmOutput>,
{
    fn fit(
        &self,
        components: TrainingComponents<LC>,
        mut learner: Learner<LC>,
        train: TrainLoader<LC>,
        valid: ValidLoader<LC>,
        _starting_epoch: usize,
    ) -> (TrainingModel<LC>, SupervisedTrainingEventProcessor<LC>) {
        let mut processor = components.event_processor;
        let mut session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        let run = Run {
            intervals: Intervals::new(&self.settings.train, &self.settings.plan),
            rule: BestRule::new(&self.settings.train),
            settings: &self.settings,
            device: &self.device,
            session: &mut session,
            learner: &mut learner,
            valid,
            processor: &mut processor,
            store: &components.event_store,
            interrupter: &components.interrupter,
            window: self.settings.window(),
            tally: Tally::new(self.settings.resumed.as_ref()),
            time_left: TimeLeft::new(
                self.settings.expected_eval_seconds(),
                self.settings.closing_seconds,
            ),
        };
        let outcome = run.run(&train);
        *self.outcome.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
        (learner.model(), processor)
    }
}
