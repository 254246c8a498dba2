//! The best evaluation of a run, and whether the run goes on after it, as transformers decides both.

use serde::{Deserialize, Serialize};

use crate::TrainConfig;
use crate::checkpoint::BestEval;
use crate::record::EvalRecord;

/// The metric that is taken where none is named.
const DEFAULT_METRIC: &str = "loss";

/// What makes an evaluation the best of a run, and when there were enough that are not.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct BestRule {
    /// Under the name it has in a record, without `eval_`.
    metric: String,
    greater_is_better: bool,
    patience: Option<usize>,
    threshold: f64,
}

/// What a run knows of its evaluations so far.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct BestSoFar {
    /// The best one.
    pub(crate) best: Option<BestEval>,
    /// Evaluations in a row that were not better, by transformers' name.
    pub(crate) early_stopping_patience_counter: usize,
}

impl BestRule {
    /// What `[train]` says.
    pub(crate) fn new(train: &TrainConfig) -> Self {
        let metric = metric_of(train);
        Self {
            greater_is_better: train
                .greater_is_better
                .unwrap_or_else(|| greater_is_better(metric)),
            metric: metric.to_owned(),
            patience: train.early_stopping_patience,
            threshold: train.early_stopping_threshold,
        }
    }

    /// The name of the metric, without `eval_`.
    pub(crate) fn metric(&self) -> &str {
        &self.metric
    }

    /// Whether more of it is better.
    pub(crate) fn greater_is_better(&self) -> bool {
        self.greater_is_better
    }

    /// Takes an evaluation into account. Returns whether it is the best so far.
    ///
    /// The counter is `EarlyStoppingCallback`'s: an evaluation that is better by no more than the threshold counts as
    /// one that is not better, and is the best so far all the same. A metric that is not defined is not better.
    pub(crate) fn judge(&self, so_far: &mut BestSoFar, record: &EvalRecord) -> bool {
        let value = record.metric(&self.metric).unwrap_or(f64::NAN);
        let best = so_far.best.as_ref().map(|best| best.value);
        let better = |than: f64| match self.greater_is_better {
            true => value > than,
            false => value < than,
        };
        let improved =
            best.is_none_or(|best| better(best) && (value - best).abs() > self.threshold);
        so_far.early_stopping_patience_counter = match improved {
            true => 0,
            false => so_far.early_stopping_patience_counter + 1,
        };
        let is_best = best.map_or(!value.is_nan(), better);
        if is_best {
            so_far.best = Some(BestEval {
                step: record.step,
                metric: format!("eval_{}", self.metric),
                value,
            });
        }
        is_best
    }

    /// Whether the run ends here.
    pub(crate) fn is_enough(&self, so_far: &BestSoFar) -> bool {
        self.patience
            .is_some_and(|patience| so_far.early_stopping_patience_counter >= patience)
    }
}

/// The name of the metric that decides, without `eval_`.
pub(crate) fn metric_of(train: &TrainConfig) -> &str {
    let name = train.metric_for_best_model.as_deref();
    let name = name.unwrap_or(DEFAULT_METRIC);
    name.strip_prefix("eval_").unwrap_or(name)
}

/// transformers asks for the ending alone. Perplexity is `exp(loss)`.
fn greater_is_better(metric: &str) -> bool {
    !metric.ends_with("loss") && !["perplexity", "empty_texts"].contains(&metric)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Override, RunConfig};

    fn rule(set: &[&str]) -> BestRule {
        let overrides: Vec<_> = set.iter().map(|s| Override::parse(s).unwrap()).collect();
        BestRule::new(&RunConfig::load(None, &overrides).unwrap().train)
    }

    /// A row of tests/fixtures/trainer/early_stopping.json, which make_early_stopping.py made with `EarlyStoppingCallback`.
    #[derive(Deserialize)]
    struct Case {
        greater_is_better: bool,
        patience: usize,
        threshold: f64,
        values: Vec<f64>,
        /// The counter after each evaluation up to the one that ended the run.
        counters: Vec<usize>,
        /// The evaluation, counted from 1, that was the best then.
        best: usize,
        stopped: bool,
    }

    #[test]
    fn the_counter_is_transformers() {
        let text = include_str!("../../../../tests/fixtures/trainer/early_stopping.json");
        let cases: Vec<Case> = serde_json::from_str(text).unwrap();
        assert!(cases.len() > 50);
        for (number, case) in cases.iter().enumerate() {
            let rule = rule(&[
                &format!("train.greater_is_better={}", case.greater_is_better),
                &format!("train.early_stopping_patience={}", case.patience),
                &format!("train.early_stopping_threshold={}", case.threshold),
            ]);
            let (mut so_far, mut counters) = (BestSoFar::default(), Vec::new());
            for (step, value) in (1..).zip(&case.values) {
                rule.judge(&mut so_far, &EvalRecord::of_loss(step, *value));
                counters.push(so_far.early_stopping_patience_counter);
                if rule.is_enough(&so_far) {
                    break;
                }
            }
            assert_eq!(counters, case.counters, "case {number}");
            assert_eq!(
                so_far.best.as_ref().unwrap().step,
                case.best,
                "case {number}"
            );
            assert_eq!(rule.is_enough(&so_far), case.stopped, "case {number}");
        }
    }

    #[test]
    fn what_is_better_follows_from_the_name() {
        for (set, metric, greater) in [
            (&[][..], "loss", false),
            (&["train.metric_for_best_model=eval_loss"], "loss", false),
            (
                &["train.metric_for_best_model=perplexity"],
                "perplexity",
                false,
            ),
            (&["train.metric_for_best_model=accuracy"], "accuracy", true),
            (&["train.metric_for_best_model=eval_f1"], "f1", true),
            (
                &[
                    "train.metric_for_best_model=f1",
                    "train.greater_is_better=false",
                ],
                "f1",
                false,
            ),
        ] {
            let rule = rule(set);
            assert_eq!(
                (rule.metric(), rule.greater_is_better()),
                (metric, greater),
                "{set:?}"
            );
        }
    }

    #[test]
    fn a_metric_that_is_not_defined_is_no_better_one() {
        let rule = rule(&["train.metric_for_best_model=pearson"]);
        let mut so_far = BestSoFar::default();
        let record = |step, pearson: Option<f64>| EvalRecord {
            metrics: pearson
                .map(|value| ("eval_pearson".to_owned(), value))
                .into_iter()
                .collect(),
            ..EvalRecord::of_loss(step, 1.0)
        };
        assert!(!rule.judge(&mut so_far, &record(1, None)));
        assert!(rule.judge(&mut so_far, &record(2, Some(0.1))));
        assert!(!rule.judge(&mut so_far, &record(3, None)));
        assert_eq!(
            (
                so_far.best.unwrap().step,
                so_far.early_stopping_patience_counter
            ),
            (2, 1)
        );
    }
}
