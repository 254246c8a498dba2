//! The loop over the steps of a run.

use std::time::Instant;

use burn::data::dataloader::Progress;
use burn::tensor::Device;
use burn::tensor::backend::Backend;
use burn_train::metric::store::EventStoreClient;
use burn_train::{
    EventProcessorTraining, InferenceStep, Interrupter, Learner, LearnerEvent,
    LearningComponentsTypes, SupervisedTrainingEventProcessor, TrainLoader, TrainStep,
    TrainingBackend, TrainingItem, ValidLoader,
};

use super::tally::Tally;
use super::time_left::{Done, Rhythm, TimeLeft};
use super::{BestRule, FitSummary, Session, Settings};
use crate::checkpoint::{TrainerState, parameter_shapes};
use crate::intervals::Intervals;
use crate::metrics::{Window, gib};
use crate::record::{LogRecord, TrainRecord};
use crate::{Error, LmOutput, clip_grad_norm};

/// One run of the loop.
pub(super) struct Run<'a, LC: LearningComponentsTypes> {
    pub(super) intervals: Intervals,
    pub(super) rule: BestRule,
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
    pub(super) time_left: TimeLeft,
}

impl<LC> Run<'_, LC>
where
    LC: LearningComponentsTypes,
    LC::TrainingModel: TrainStep<Output = LmOutput>,
    LC::InferenceModel: InferenceStep<Output = LmOutput>,
{
    /// Runs to the last step, to the interrupter's stop or to the first error.
    pub(super) fn run(mut self, train: &TrainLoader<LC>) -> Result<FitSummary, Error> {
        let plan = self.settings.plan;
        let started = Instant::now();
        let done = self.settings.start();
        let mut begun = false;
        if done > 0
            && (self.intervals.evaluates(done) || done == plan.total_steps || self.is_enough())
        {
            self.begin(&mut begun)?;
            if self.intervals.evaluates(done) {
                // The stop came before this evaluation was at its end.
                self.evaluate()?;
                self.log_the_end()?;
                self.save()?;
            }
        }
        let mut items = train.iter();
        for step in done + 1..=plan.total_steps {
            if self.is_enough() {
                break;
            }
            if self.settings.ranks.any(self.interrupter.should_stop()) {
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
            self.after(step)?;
        }
        if self.tally.summary.interrupted && self.tally.summary.steps > 0 {
            // The steps since the last log are in it, and logged with those that follow.
            self.save()?;
        }
        let summary = &mut self.tally.summary;
        summary.stopped_early = summary.steps < plan.total_steps && !summary.interrupted;
        self.load_best()?;
        Ok(self.tally.finish(started.elapsed().as_secs_f64()))
    }

    /// What is due after a step: a record, an evaluation, a checkpoint.
    fn after(&mut self, step: usize) -> Result<(), Error> {
        if self.intervals.logs(step) {
            self.log()?;
        }
        let is_best = self.intervals.evaluates(step) && self.evaluate()?;
        let ends_early = self.log_the_end()?;
        // Behind the others, so that a checkpoint knows of all that its step has to show.
        if self.intervals.saves(step)
            || (is_best && self.intervals.keeps_best)
            || (ends_early && self.intervals.saves_last())
        {
            self.save()?;
        }
        self.end_epoch(step, ends_early);
        Ok(())
    }

    /// Logs what is not logged yet where the run ends early. Returns whether it does.
    fn log_the_end(&mut self) -> Result<bool, Error> {
        let ends_early = self.is_enough();
        if ends_early && self.intervals.logs_last() {
            self.log()?;
        }
        Ok(ends_early)
    }

    /// The first time: from here on, the run writes to its folder.
    fn begin(&mut self, begun: &mut bool) -> Result<(), Error> {
        if std::mem::replace(begun, true) {
            return Ok(());
        }
        let own = (self.session.begin)()?;
        self.session.observers.splice(0..0, own);
        match &self.settings.base_eval {
            // A resumed run has it in its metrics.
            Some(base) if self.settings.start() == 0 => self.report_base(base.clone()),
            _ => Ok(()),
        }
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
        let seed = step_seed(self.settings.train.seed, step);
        <TrainingBackend<LC> as Backend>::seed(self.device, seed);
        self.settings.step_seed.set(seed);
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

        let seconds = began.elapsed().as_secs_f64();
        self.window.push(&output.item, norm, seconds);
        self.time_left.step(seconds);
        self.tally.push(step, &output.item);
        Ok(())
    }

    pub(super) fn not_finite(&self, what: &'static str, value: f64, step: usize) -> Error {
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
        let Some(mut mean) = self.window.take() else {
            return Ok(());
        };
        mean.memory = (self.session.memory)();
        mean.time_left = self.time_left();
        let step = self.tally.summary.steps;
        let record = LogRecord::Train(TrainRecord {
            step,
            epoch: self.settings.plan.epochs_after(step),
            loss: mean.loss,
            learning_rate: self.tally.learning_rate,
            grad_norm: mean.grad_norm,
            tokens_per_second: mean.tokens_per_second().unwrap_or_default(),
            memory_gib: mean.memory.map(gib),
        });
        let item = self.item(mean);
        self.processor
            .process_train(LearnerEvent::ProcessedItem(item));
        self.tell(&record)
    }

    fn time_left(&self) -> Option<f64> {
        let total = self.settings.plan.total_steps;
        let [eval_steps, save_steps] = self.intervals.eval_and_save_steps();
        let steps = self.tally.summary.steps;
        let rhythm = Rhythm {
            total,
            eval_steps: eval_steps.filter(|_| self.settings.evaluates),
            save_steps: save_steps.unwrap_or(total),
        };
        let done = Done {
            steps,
            evaluated: self.tally.evaluated_at == Some(steps),
            saved: self.tally.saved_at == Some(steps),
        };
        self.time_left.seconds(rhythm, done)
    }

    /// Saves a checkpoint, once per step at most. The first rank writes it.
    fn save(&mut self) -> Result<(), Error> {
        let (step, plan) = (self.tally.summary.steps, self.settings.plan);
        if self.tally.saved_at == Some(step) {
            return Ok(());
        }
        let began = Instant::now();
        if !self.settings.ranks.is_first() {
            self.tally.saved_at = Some(step);
            return Ok(());
        }
        let state = TrainerState {
            step,
            total_steps: plan.total_steps,
            steps_per_epoch: plan.steps_per_epoch,
            epoch: plan.epochs_after(step),
            seed: self.settings.train.seed,
            best: self.tally.best.clone(),
            learning_rate: self.tally.learning_rate,
            eval: self.tally.summary.eval.clone(),
            window: self.window.clone(),
            totals: self.tally.totals,
            parameters: parameter_shapes::<TrainingBackend<LC>, _>(&self.learner.model()),
            run: self.settings.run.clone(),
        };
        let best = state.best.best.as_ref().map(|best| best.step);
        let kept = best.filter(|_| self.intervals.keeps_best);
        let checkpointer = &mut self.session.checkpointer;
        let path = checkpointer.save(self.learner, &state, kept, self.store)?;
        self.tally.summary.checkpoint = Some(path);
        self.tally.saved_at = Some(step);
        self.time_left.save(began.elapsed().as_secs_f64());
        Ok(())
    }

    pub(super) fn tell(&mut self, record: &LogRecord) -> Result<(), Error> {
        self.session
            .observers
            .iter_mut()
            .try_for_each(|observer| observer.record(record))
    }

    /// The epoch of a step counted from 1, counted from 1.
    pub(super) fn epoch(&self, step: usize) -> usize {
        self.settings.plan.position(step.saturating_sub(1)).0 + 1
    }

    fn end_epoch(&mut self, step: usize, ends_early: bool) {
        let plan = self.settings.plan;
        if step.is_multiple_of(plan.steps_per_epoch) || step == plan.total_steps || ends_early {
            self.processor
                .process_train(LearnerEvent::EndEpoch(self.epoch(step)));
        }
    }

    pub(super) fn item(&self, output: LmOutput) -> TrainingItem<LmOutput> {
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
