//! The evaluations of a run, and what follows from the best of them.

use std::time::Instant;

use burn::module::AutodiffModule;
use burn_train::{
    EventProcessorTraining, InferenceStep, LearnerEvent, LearningComponentsTypes, TrainStep,
};

use super::run::Run;
use crate::checkpoint::Checkpoint;
use crate::fit::EvalScores;
use crate::metrics::TokenMean;
use crate::record::{EvalRecord, LogRecord};
use crate::{Error, LmOutput};

impl<LC> Run<'_, LC>
where
    LC: LearningComponentsTypes,
    LC::TrainingModel: TrainStep<Output = LmOutput>,
    LC::InferenceModel: InferenceStep<Output = LmOutput>,
{
    /// Whether the evaluations so far end the run.
    pub(super) fn is_enough(&self) -> bool {
        self.settings.evaluates && self.rule.is_enough(&self.tally.best)
    }

    /// Takes the parameters of the best evaluation, where the run is to end with them.
    pub(super) fn load_best(&mut self) -> Result<(), Error> {
        self.tally.summary.adapter_step = self.tally.summary.steps;
        let best = self.tally.best.best.as_ref();
        let best = best.filter(|best| {
            self.settings.train.load_best_model_at_end && best.step != self.tally.summary.steps
        });
        if let Some(best) = best {
            let checkpoint = Checkpoint::best(&self.settings.output_dir, best)?;
            checkpoint.restore_model(self.learner, self.device)?;
            self.tally.summary.adapter_step = best.step;
        }
        Ok(())
    }

    /// Shows the base's own loss, with which the others are to be compared.
    pub(super) fn report_base(&mut self, base: EvalRecord) -> Result<(), Error> {
        let mut output = LmOutput::new(base.eval_loss, base.eval_label_tokens, 0);
        output.seconds = Some(base.eval_seconds);
        output.metric = base.metric(self.rule.metric());
        self.show_evaluation(output);
        self.tell(&LogRecord::Eval(base))
    }

    /// One event for all rows, so that the dashboard draws a point an evaluation.
    fn show_evaluation(&mut self, output: LmOutput) {
        let item = self.item(output);
        self.processor
            .process_valid(LearnerEvent::ProcessedItem(item));
        let epoch = self.epoch(self.tally.summary.steps);
        self.processor.process_valid(LearnerEvent::EndEpoch(epoch));
    }

    /// Evaluates the current model on all validation rows, once per step at most. Returns whether it is the best so far.
    pub(super) fn evaluate(&mut self) -> Result<bool, Error> {
        let step = self.tally.summary.steps;
        if !self.settings.evaluates || self.tally.evaluated_at == Some(step) {
            return Ok(false);
        }
        let began = Instant::now();
        let Some(scored) = self.scored()? else {
            // Part of the rows would give another number than all of them.
            self.tally.summary.interrupted = true;
            return Ok(false);
        };
        self.tally.evaluated_at = Some(step);
        // What the checkpoint of this step knows is now out of date.
        self.tally.saved_at = None;
        let seconds = began.elapsed().as_secs_f64();
        self.time_left.evaluation(seconds);
        if scored.label_tokens == 0 {
            return Err(Error::NothingToEvaluate);
        }
        if !scored.loss.is_finite() {
            return Err(self.not_finite("evaluation loss", scored.loss, step));
        }
        let record = EvalRecord {
            step,
            epoch: self.settings.plan.epochs_after(step),
            eval_loss: scored.loss,
            eval_label_tokens: scored.label_tokens,
            eval_seconds: seconds,
            metrics: scored.metrics,
        };
        let is_best = self.rule.judge(&mut self.tally.best, &record);
        self.tally.summary.eval = Some(record.clone());
        let mut output = LmOutput::new(scored.loss, scored.label_tokens, scored.tokens);
        output.seconds = Some(seconds);
        output.metric = record.metric(self.rule.metric());
        self.show_evaluation(output);
        self.tell(&LogRecord::Eval(record))?;
        Ok(is_best)
    }

    /// What an evaluation says of the current model; `None` where it was stopped.
    fn scored(&mut self) -> Result<Option<EvalScores>, Error> {
        // Without autodiff: an evaluation on the tracked model would leave its graph behind.
        let model = self.learner.model().valid();
        let interrupter = self.interrupter;
        if let Some(scorer) = &mut self.session.scorer {
            return scorer.score(&model, &|| interrupter.should_stop());
        }
        let ranks = &self.settings.ranks;
        let (mut own, mut stopped) = (Vec::new(), false);
        for (batch, item) in self.valid.iter().enumerate() {
            stopped = interrupter.should_stop();
            if stopped {
                break;
            }
            if ranks.has(batch) {
                own.push(model.step(item));
            }
        }
        if ranks.any(stopped) {
            return Ok(None);
        }
        let mut mean = TokenMean::default();
        ranks.each(own).iter().for_each(|found| mean.push(found));
        Ok(Some(mean.scores()))
    }
}
