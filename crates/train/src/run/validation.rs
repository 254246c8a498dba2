//! Evaluations in the middle of a run that score predictions as those before and after it do.

use std::collections::BTreeMap;

use burn_peft::Adapter;
use burn_peft_data::{Example, ProblemType, Rows, Task, Template, TextTokenizer};
use burn_peft_ops::Ops;
use serde::Serialize;
use serde_json::Value;

use crate::{
    Error, EvalScores, HeldOutRows, Ranks, RunConfig, Scorer, TaskSetup, Texts, Trainee,
    complete::prompts_of, strategy::metric_of,
};

/// The scores of texts.
const TEXT_METRICS: [&str; 4] = ["bleu", "exact_match", "slot_accuracy", "empty_texts"];

/// The validation rows of a run, with all that it takes to score them.
pub(super) struct ValidationRows {
    pub(super) rows: Rows,
    pub(super) examples: Vec<Example>,
    pub(super) task: TaskSetup,
    pub(super) template: Option<Template>,
    pub(super) tokenizer: TextTokenizer,
    pub(super) stop_ids: Vec<u32>,
    pub(super) batch_size: usize,
    pub(super) max_length: Option<usize>,
    pub(super) ranks: Ranks,
}

impl<B: Ops, A: Adapter<B>> Scorer<Trainee<B, A>> for ValidationRows {
    fn score(
        &mut self,
        model: &Trainee<B, A>,
        stop: &dyn Fn() -> bool,
    ) -> Result<Option<EvalScores>, Error> {
        let rows = HeldOutRows {
            rows: &self.rows,
            // Lent, since they are many.
            examples: std::mem::take(&mut self.examples),
            task: &self.task,
            template: self.template.as_ref(),
            tokenizer: &self.tokenizer,
            stop_ids: self.stop_ids.clone(),
            batch_size: self.batch_size,
            max_length: self.max_length,
            ranks: self.ranks.clone(),
        };
        let found = rows.score_until(model.model(), Texts::Scored, &mut |_, _, _| (), stop);
        self.examples = rows.examples;
        let Some(found) = found? else {
            return Ok(None);
        };
        let mut metrics = numbers(&found.scores);
        metrics.extend(numbers(&found.texts));
        Ok(Some(EvalScores {
            loss: found.evaluation.loss,
            label_tokens: found.evaluation.label_tokens,
            tokens: self.examples.iter().map(Example::len).sum(),
            metrics,
        }))
    }
}

/// The numbers at the top of some scores, as records have them.
pub(super) fn numbers(scores: &impl Serialize) -> BTreeMap<String, f64> {
    let Ok(Value::Object(scores)) = serde_json::to_value(scores) else {
        return BTreeMap::new();
    };
    let number = |(name, value): (String, Value)| Some((format!("eval_{name}"), value.as_f64()?));
    scores.into_iter().filter_map(number).collect()
}

/// Whether the evaluations of a run compute more than the loss. Texts are written only where one of their scores decides
/// which evaluation is the best: that takes far longer than the losses.
pub(super) fn scores_predictions(config: &RunConfig, task: &TaskSetup, rows: &Rows) -> bool {
    match task.task {
        Task::CausalLm => {
            writes_texts(config, rows)
                && config.train.needs_evaluations().is_some()
                && TEXT_METRICS.contains(&metric_of(&config.train))
        }
        Task::SeqCls | Task::TokenCls | Task::Qa => true,
    }
}

/// Whether there are scores of texts.
fn writes_texts(config: &RunConfig, rows: &Rows) -> bool {
    config.train.predict_with_generate && prompts_of(rows.rows(), None).is_some()
}

/// Refuses what needs evaluations where there is nothing to evaluate.
pub(super) fn check_has_rows(config: &RunConfig, valid: Option<&Rows>) -> Result<(), Error> {
    let needed = config.train.needs_evaluations();
    let asked = config.train.eval_strategy;
    let asked = asked.filter(|strategy| *strategy != crate::IntervalStrategy::No);
    let key = needed.or(asked.map(|_| "train.eval_strategy"));
    match (key, valid) {
        (Some(key), None) => Err(Error::NoValidation { key: key.into() }),
        _ => Ok(()),
    }
}

/// Refuses a metric that the evaluations of this run do not report.
pub(super) fn check_metric(config: &RunConfig, task: &TaskSetup, rows: &Rows) -> Result<(), Error> {
    if config.train.needs_evaluations().is_none() {
        return Ok(());
    }
    let predictions = task.task != Task::CausalLm || writes_texts(config, rows);
    let (metric, known) = (metric_of(&config.train), metrics_of(task, predictions));
    if known.contains(&metric) {
        return Ok(());
    }
    let generate = match task.task {
        Task::CausalLm if !config.train.predict_with_generate => {
            "; train.predict_with_generate adds the scores of texts"
        }
        _ => "",
    };
    Err(Error::OutOfRange {
        place: String::new(),
        key: "train.metric_for_best_model".into(),
        value: metric.into(),
        expected: format!(
            "one of those that the evaluations report: {}{generate}",
            known.join(", ")
        ),
    })
}

/// The metrics that evaluations report.
fn metrics_of(task: &TaskSetup, predictions: bool) -> Vec<&'static str> {
    let own: &[&str] = match (
        task.task,
        task.labels.as_ref().map(|labels| labels.problem_type),
    ) {
        (Task::CausalLm, _) => &TEXT_METRICS,
        (Task::SeqCls, Some(ProblemType::Regression)) => &["pearson", "spearman"],
        (Task::SeqCls, Some(ProblemType::MultiLabel)) => &["accuracy", "f1_macro", "f1_micro"],
        (Task::SeqCls, _) => &["accuracy", "f1_macro", "f1_micro", "matthews"],
        (Task::TokenCls, _) => &["precision", "recall", "f1", "accuracy"],
        (Task::Qa, _) => &["exact_match", "f1"],
    };
    let general: &[&str] = match task.head_kind() {
        None => &["loss", "perplexity"],
        Some(_) => &["loss"],
    };
    [general, if predictions { own } else { &[] }].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Scored, TaskScores, TextScores};
    use burn_peft_data::Labels;

    fn task(task: Task, problem_type: Option<ProblemType>) -> TaskSetup {
        TaskSetup {
            task,
            labels: problem_type.map(|problem_type| Labels::numbered(2, problem_type)),
            ..TaskSetup::text()
        }
    }

    /// The names of `scores` without `eval_`, sorted.
    fn names(scores: &impl Serialize) -> Vec<String> {
        let names = numbers(scores).into_keys();
        names
            .map(|name| name.strip_prefix("eval_").unwrap().to_owned())
            .collect()
    }

    #[test]
    fn the_metrics_are_the_numbers_of_the_scores() {
        let labels = Labels::numbered(2, ProblemType::SingleLabel);
        let of_words = ["B-X", "O"].map(String::from).to_vec();
        let scored = Scored {
            prompt: "name: Aromi, area: riverside".into(),
            reference: "Aromi".into(),
            text: "Aromi by the riverside".into(),
        };
        for (task, scores) in [
            (
                task(Task::SeqCls, Some(ProblemType::SingleLabel)),
                names(&TaskScores::classes(&[0, 1], &[0, 1], &labels)),
            ),
            (
                task(Task::SeqCls, Some(ProblemType::MultiLabel)),
                names(&TaskScores::multi_label(
                    &[[true, false]],
                    &[[true, true]],
                    &labels,
                )),
            ),
            (
                task(Task::SeqCls, Some(ProblemType::Regression)),
                names(&TaskScores::regression(&[[1.0], [2.0]], &[[1.0], [3.0]])),
            ),
            (
                task(Task::TokenCls, Some(ProblemType::SingleLabel)),
                names(&TaskScores::spans(
                    std::slice::from_ref(&of_words),
                    &[vec!["O".to_owned(), "O".into()]],
                )),
            ),
            (
                task(Task::Qa, None),
                names(&TaskScores::answers(&[vec!["a"]], &["a"])),
            ),
            (TaskSetup::text(), names(&TextScores::of(&[scored]))),
        ] {
            let mut known = metrics_of(&task, true);
            known.retain(|name| !["loss", "perplexity"].contains(name));
            known.sort();
            assert_eq!(scores, known, "{:?}", task.task);
        }
    }
}
