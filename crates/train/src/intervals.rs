//! At which steps a run logs, evaluates and saves.

use crate::{IntervalStrategy, Plan, SaveStrategy, Steps, TrainConfig};

/// Steps between two checkpoints where nothing else decides, as in transformers.
const SAVE_STEPS: usize = 500;

/// At which steps a run logs, evaluates and saves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Intervals {
    /// Steps between two of each; `None` for never.
    log: Option<usize>,
    eval: Option<usize>,
    save: Option<usize>,
    logs_first: bool,
    /// The first step that may be evaluated after.
    eval_from: usize,
    total_steps: usize,
    /// Whether the checkpoint of each evaluation that is the best so far is saved and kept.
    pub(crate) keeps_best: bool,
    /// Whether the end of the run has a checkpoint.
    saves_last: bool,
}

impl Intervals {
    /// What `[train]` says of a run with this plan.
    pub(crate) fn new(train: &TrainConfig, plan: &Plan) -> Self {
        let (epoch, total_steps) = (plan.steps_per_epoch, plan.total_steps);
        let count = |steps: Steps| steps.of(total_steps).max(1);
        let log_steps = count(train.logging_steps);
        let of = |strategy, steps| match strategy {
            IntervalStrategy::No => None,
            IntervalStrategy::Steps => Some(steps),
            IntervalStrategy::Epoch => Some(epoch),
        };
        let best = train.load_best_model_at_end;
        // One of the two is enough to have the evaluations where the checkpoints are.
        let paired = train.save_steps.filter(|_| {
            best && train.eval_strategy.is_none() && train.save_strategy == SaveStrategy::Steps
        });
        let eval_steps = train.eval_steps.or(paired);
        let eval_strategy = train.eval_strategy.unwrap_or(match eval_steps {
            Some(_) => IntervalStrategy::Steps,
            None => IntervalStrategy::Epoch,
        });
        let eval = of(eval_strategy, eval_steps.map_or(log_steps, count));
        let save_steps = train.save_steps.map(count);
        let save_steps = save_steps.or(eval.filter(|_| best)).unwrap_or(SAVE_STEPS);
        let delay = match eval_strategy {
            IntervalStrategy::Epoch => train.eval_delay * epoch as f64,
            _ => train.eval_delay,
        };
        Self {
            log: of(train.logging_strategy, log_steps),
            eval,
            save: match train.save_strategy {
                SaveStrategy::No | SaveStrategy::Best => None,
                SaveStrategy::Steps => Some(save_steps),
                SaveStrategy::Epoch => Some(epoch),
            },
            logs_first: train.logging_first_step,
            eval_from: delay.ceil() as usize,
            total_steps,
            keeps_best: best || train.save_strategy == SaveStrategy::Best,
            saves_last: matches!(
                train.save_strategy,
                SaveStrategy::Steps | SaveStrategy::Epoch
            ),
        }
    }

    /// Steps between two evaluations, and between two checkpoints, where numbers of steps decide.
    pub(crate) fn eval_and_save_steps(&self) -> [Option<usize>; 2] {
        [self.eval, self.save]
    }

    /// Whether the steps up to `step` are logged. The end of the run is a step like any other here.
    pub(crate) fn logs(&self, step: usize) -> bool {
        self.falls_on(self.log, step) || (self.logs_first && step == 1)
    }

    /// Whether the end of the run is logged.
    pub(crate) fn logs_last(&self) -> bool {
        self.log.is_some()
    }

    /// Whether the validation rows are evaluated after `step`.
    pub(crate) fn evaluates(&self, step: usize) -> bool {
        step >= self.eval_from && self.falls_on(self.eval, step)
    }

    /// Whether a checkpoint is saved after `step`, whatever its evaluation says.
    pub(crate) fn saves(&self, step: usize) -> bool {
        self.save
            .is_some_and(|interval| step.is_multiple_of(interval))
            || (self.saves_last && step == self.total_steps)
    }

    /// Whether the end of a run that ends early has a checkpoint.
    pub(crate) fn saves_last(&self) -> bool {
        self.saves_last
    }

    fn falls_on(&self, interval: Option<usize>, step: usize) -> bool {
        interval.is_some_and(|interval| step.is_multiple_of(interval) || step == self.total_steps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RunConfig;

    /// The steps of a run of 20 that it logs, evaluates and saves after. An epoch has 8.
    fn steps(settings: &str) -> [Vec<usize>; 3] {
        let text = format!("[train]\nmax_steps = 20\n{settings}");
        let train = RunConfig::parse(&text, "test", &[]).unwrap().train;
        let plan = Plan::with_steps_per_epoch(&train, 8);
        let intervals = Intervals::new(&train, &plan);
        let all = |holds: &dyn Fn(usize) -> bool| (1..=20).filter(|step| holds(*step)).collect();
        [
            all(&|step| intervals.logs(step)),
            all(&|step| intervals.evaluates(step)),
            all(&|step| intervals.saves(step)),
        ]
    }

    #[test]
    fn by_default_each_epoch_is_evaluated() {
        assert_eq!(steps(""), [vec![10, 20], vec![8, 16, 20], vec![20]]);
        assert_eq!(steps("save_steps = 6")[2], [6, 12, 18, 20]);
        assert_eq!(steps("eval_steps = 6")[1], [6, 12, 18, 20]);
    }

    #[test]
    fn with_the_best_to_be_kept_evaluations_and_checkpoints_fall_together() {
        let both = |settings: &str| {
            let [_, evaluated, saved] =
                steps(&format!("load_best_model_at_end = true\n{settings}"));
            assert_eq!(evaluated, saved, "{settings}");
            saved
        };
        assert_eq!(both(""), [8, 16, 20]);
        assert_eq!(both("eval_steps = 5"), [5, 10, 15, 20]);
        assert_eq!(both("save_steps = 5"), [5, 10, 15, 20]);
        assert_eq!(both("eval_strategy = \"steps\""), [10, 20]);
        assert_eq!(
            both("eval_strategy = \"epoch\"\nsave_strategy = \"epoch\""),
            [8, 16, 20]
        );
    }

    #[test]
    fn a_share_is_one_of_all_steps() {
        let found = steps("logging_steps = 0.25\neval_steps = 0.5\nsave_steps = 0.26");
        assert_eq!(
            found,
            [vec![5, 10, 15, 20], vec![10, 20], vec![6, 12, 18, 20]]
        );
    }

    #[test]
    fn strategies_go_before_numbers_of_steps_as_in_transformers() {
        let given = "logging_steps = 3\neval_steps = 3\nsave_steps = 3\n";
        for (strategy, expected) in [
            (
                "logging_strategy = \"no\"\neval_strategy = \"no\"\nsave_strategy = \"no\"",
                [vec![], vec![], vec![]],
            ),
            (
                "logging_strategy = \"epoch\"\neval_strategy = \"epoch\"\nsave_strategy = \"epoch\"",
                [vec![8, 16, 20], vec![8, 16, 20], vec![8, 16, 20]],
            ),
        ] {
            assert_eq!(steps(&format!("{given}{strategy}")), expected, "{strategy}");
        }
        // What is saved then depends on the evaluations.
        assert_eq!(steps("save_strategy = \"best\"")[2], [0; 0]);
        assert_eq!(
            steps("eval_strategy = \"steps\"\nlogging_steps = 7")[1],
            [7, 14, 20]
        );
    }

    #[test]
    fn the_first_record_and_the_first_evaluation_have_keys_of_their_own() {
        assert_eq!(steps("logging_first_step = true")[0], [1, 10, 20]);
        assert_eq!(steps("eval_delay = 1.5")[1], [16, 20]);
        assert_eq!(steps("eval_steps = 4\neval_delay = 9")[1], [12, 16, 20]);
        assert_eq!(
            steps("eval_strategy = \"epoch\"\neval_delay = 1.5")[1],
            [16, 20]
        );
    }
}
