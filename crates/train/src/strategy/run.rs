//! The loop over the steps of a run.

use std::time::Instant;

use burn::data::dataloader::Progress;
use burn::module::AutodiffModule;
use burn::tensor::Device;
use burn::tensor::backend::Backend;
use burn_train::metric::store::EventStoreClient;
use burn_train::{
    EventProcessorTraining, InferenceStep, Interrupter, Learner, LearnerEvent,
    LearningComponentsTypes, SupervisedTrainingEventProcessor, TrainLoader, TrainStep,
    TrainingBackend, TrainingItem, ValidLoader,
};

use super::tally::Tally;
use super::{FitSummary, Session, Settings};
use crate::checkpoint::{BestEval, TrainerState, parameter_shapes};
use crate::metrics::{TokenMean, Window};
use crate::record::{EvalRecord, LogRecord, TrainRecord};
use crate::{Error, LmOutput, clip_grad_norm};

/// One run of the loop.
pub(super) struct Run<'a, LC: LearningComponentsTypes> {
    pub(super) settings: &'a Settings,
    pub(super) device: &'a Device<TrainingBackend<LC>>,
    pub(super) session: &'a mut Session<LC>,
    pub(super) learner: &'a mut Learner<LC>,
    pub(super) valid: ValidLoader<LC>,
    pub(super) processor: &'a mut SupervisedTrainingEventProcessor<LC>,
    pub(super) store: &'a EventStoreClient,
    pub(super) interrupter: &'a Interrupter,
    /// The steps since the last log.
    pub(super) window: Window,
    pub(super) tally: Tally,
}

impl<LC> Run<'_, LC>
where
    LC: LearningComponentsTypes,
    LC::TrainingModel: TrainStep<Output = LmOutput>,
    LC::InferenceModel: InferenceStep<Output = LmOutput>,
{
    /// Runs to the last step, to the interrupter's stop or to the first error.
    pub(super) fn run(mut self, train: &TrainLoader<LC>) -> Result<FitSummary, Error> {
        let (config, plan) = (&self.settings.train, self.settings.plan);
        let eval_steps = config.eval_steps.unwrap_or(plan.steps_per_epoch);
        let started = Instant::now();
        let done = self.settings.start();
        let mut begun = false;
        if done > 0 && (done.is_multiple_of(eval_steps) || done == plan.total_steps) {
            self.begin(&mut begun)?;
            // The stop came before this evaluation was at its end.
            self.evaluate()?;
            self.save()?;
        }
        let mut items = train.iter();
        for step in done + 1..=plan.total_steps {
            if self.interrupter.should_stop() {
                self.tally.summary.interrupted = true;
                break;
            }
            self.begin(&mut begun)?;
            let began = Instant::now();
            let item = items.next().ok_or(Error::DataExhausted {
                step,
                total_steps: plan.total_steps,
            })?;
            self.step(step, item, began)?;
            let is_last = step == plan.total_steps;
            if is_last || step.is_multiple_of(config.logging_steps) {
                self.log()?;
            }
            if is_last || step.is_multiple_of(eval_steps) {
                self.evaluate()?;
            }
            // Behind the others, so that a checkpoint knows of all that its step has to show.
            if is_last || step.is_multiple_of(config.save_steps) {
                self.save()?;
            }
            self.end_epoch(step);
        }
        if self.tally.summary.interrupted && self.tally.summary.steps > 0 {
            // The steps since the last log are in it, and logged with those that follow.
            self.save()?;
        }
        Ok(self.tally.finish(started.elapsed().as_secs_f64()))
    }

    /// The first time: from here on, the run writes to its folder.
    fn begin(&mut self, begun: &mut bool) -> Result<(), Error> {
        if std::mem::replace(begun, true) {
            return Ok(());
        }
        let metrics = (self.session.begin)()?;
        self.session.observers.insert(0, Box::new(metrics));
        Ok(())
    }

    /// Step `step`, counted from 1: forward, backward, clip, update.
    fn step(
        &mut self,
        step: usize,
        item: <LC::TrainingModel as TrainStep>::Input,
        began: Instant,
    ) -> Result<(), Error> {
        // A resumed run then draws the same dropout masks as an uninterrupted one, without any
        // generator's state in the checkpoint.
        <TrainingBackend<LC> as Backend>::seed(
            self.device,
            step_seed(self.settings.train.seed, step),
        );
        self.learner.lr_step();
        self.tally.learning_rate = self.learner.lr_current();
        let output = self.learner.train_step(item);
        if output.item.label_tokens == 0 {
            // Its mean is 0/0, and there is nothing to learn from: only the rate moves on.
            self.tally.push(step, &output.item);
            return Ok(());
        }
        let loss = output.item.loss;
        if !loss.is_finite() {
            return Err(self.not_finite("loss", loss, step));
        }
        let max_norm = self.settings.train.max_grad_norm;
        let (grads, norm) = clip_grad_norm(&self.learner.model(), output.grads, max_norm);
        if let Some(norm) = norm.filter(|norm| !norm.is_finite()) {
            return Err(self.not_finite("gradient norm", norm, step));
        }
        self.learner.optimizer_step(grads);

        self.window
            .push(&output.item, norm, began.elapsed().as_secs_f64());
        self.tally.push(step, &output.item);
        Ok(())
    }

    fn not_finite(&self, what: &'static str, value: f64, step: usize) -> Error {
        let checkpoint = match &self.tally.summary.checkpoint {
            Some(path) => format!("the last good checkpoint is {}", path.display()),
            None => "there is no checkpoint yet".into(),
        };
        Error::NotFinite {
            what,
            value,
            step,
            learning_rate: self.learner.lr_current(),
            advice: advice(step),
            checkpoint,
        }
    }

    /// Reports the steps since the last log, if there are any.
    fn log(&mut self) -> Result<(), Error> {
        let Some(mean) = self.window.take() else {
            return Ok(());
        };
        let step = self.tally.summary.steps;
        let record = LogRecord::Train(TrainRecord {
            step,
            epoch: self.settings.plan.epochs_after(step),
            loss: mean.loss,
            learning_rate: self.tally.learning_rate,
            grad_norm: mean.grad_norm,
            tokens_per_second: mean.tokens_per_second().unwrap_or_default(),
        });
        let item = self.item(mean);
        self.processor
            .process_train(LearnerEvent::ProcessedItem(item));
        self.tell(&record)
    }

    /// Evaluates the current model on all validation rows, once per step at most.
    fn evaluate(&mut self) -> Result<(), Error> {
        let step = self.tally.summary.steps;
        if !self.settings.evaluates || self.tally.evaluated_at == Some(step) {
            return Ok(());
        }
        let began = Instant::now();
        // Without autodiff: an evaluation on the tracked model would leave its graph behind.
        let model = self.learner.model().valid();
        let mut mean = TokenMean::default();
        for item in self.valid.iter() {
            if self.interrupter.should_stop() {
                // Part of the rows would give another number than all of them.
                self.tally.summary.interrupted = true;
                return Ok(());
            }
            mean.push(&model.step(item));
        }
        self.tally.evaluated_at = Some(step);
        // What the checkpoint of this step knows is now out of date.
        self.tally.saved_at = None;
        let seconds = began.elapsed().as_secs_f64();
        let output = mean.output(seconds).ok_or(Error::NothingToEvaluate)?;
        if !output.loss.is_finite() {
            return Err(self.not_finite("evaluation loss", output.loss, step));
        }
        let record = EvalRecord {
            step,
            epoch: self.settings.plan.epochs_after(step),
            eval_loss: output.loss,
            eval_label_tokens: output.label_tokens,
            eval_seconds: seconds,
        };
        if self
            .tally
            .summary
            .best_eval
            .is_none_or(|best| record.eval_loss < best.eval_loss)
        {
            self.tally.summary.best_eval = Some(BestEval {
                step,
                eval_loss: record.eval_loss,
            });
        }
        self.tally.summary.eval = Some(record.clone());
        let item = self.item(output);
        // One event for all rows, so that the dashboard draws a point an evaluation.
        self.processor
            .process_valid(LearnerEvent::ProcessedItem(item));
        self.processor
            .process_valid(LearnerEvent::EndEpoch(self.epoch(step)));
        self.tell(&LogRecord::Eval(record))
    }

    /// Saves a checkpoint, once per step at most.
    fn save(&mut self) -> Result<(), Error> {
        let (step, plan) = (self.tally.summary.steps, self.settings.plan);
        if self.tally.saved_at == Some(step) {
            return Ok(());
        }
        let state = TrainerState {
            step,
            total_steps: plan.total_steps,
            steps_per_epoch: plan.steps_per_epoch,
            epoch: plan.epochs_after(step),
            seed: self.settings.train.seed,
            best_eval: self.tally.summary.best_eval,
            learning_rate: self.tally.learning_rate,
            eval: self.tally.summary.eval.clone(),
            window: self.window.clone(),
            totals: self.tally.totals,
            parameters: parameter_shapes::<TrainingBackend<LC>, _>(&self.learner.model()),
            run: self.settings.run.clone(),
        };
        let path = self
            .session
            .checkpointer
            .save(self.learner, &state, self.store)?;
        self.tally.summary.checkpoint = Some(path);
        self.tally.saved_at = Some(step);
        Ok(())
    }

    fn tell(&mut self, record: &LogRecord) -> Result<(), Error> {
        self.session
            .observers
            .iter_mut()
            .try_for_each(|observer| observer.record(record))
    }

    /// The epoch of a step counted from 1, counted from 1.
    fn epoch(&self, step: usize) -> usize {
        self.settings.plan.position(step.saturating_sub(1)).0 + 1
    }

    fn end_epoch(&mut self, step: usize) {
        let plan = self.settings.plan;
        if step.is_multiple_of(plan.steps_per_epoch) || step == plan.total_steps {
            self.processor
                .process_train(LearnerEvent::EndEpoch(self.epoch(step)));
        }
    }

    fn item(&self, output: LmOutput) -> TrainingItem<LmOutput> {
        let (step, plan) = (self.tally.summary.steps, self.settings.plan);
        let done = plan.position(step.saturating_sub(1)).1 + 1;
        let progress = Progress::new(done, plan.steps_per_epoch.min(plan.total_steps));
        let epochs = Progress::new(self.epoch(step), plan.epochs());
        TrainingItem::new(
            output,
            progress,
            epochs,
            Some(step),
            Some(self.learner.lr_current()),
        )
    }
}

/// What to do about numbers that are not finite at a step, counted from 1.
pub(crate) fn advice(step: usize) -> &'static str {
    match step {
        // Nothing was learned yet, so nothing diverged.
        1 => {
            "the base, or the adapter that it starts from, gives no finite numbers in this type; \
             try --dtype f32, or other weights"
        }
        _ => "lower train.learning_rate or raise train.warmup_steps",
    }
}

/// A seed of its own for each step: the golden-ratio increments of SplitMix64 (Steele et al. 2014).
pub(crate) fn step_seed(seed: u64, step: usize) -> u64 {
    seed.wrapping_add((step as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}
