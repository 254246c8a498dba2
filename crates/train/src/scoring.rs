//! Scores of what a model wrote, chose or found, as the field computes them.

mod answers;
mod classes;
mod confusion;
mod questions;
#[cfg(test)]
mod reference;
mod regression;
mod spans;
mod text;

use std::fmt;

use burn_peft_data::Labels;
use serde::Serialize;
use serde::de::{Deserialize, Deserializer, Error};

pub use answers::{Answer, AnswerOptions, AnswerWindow, best_answer};
pub use classes::{ClassScores, MultiLabelScores};
pub use confusion::ConfusionMatrix;
pub use questions::AnswerScores;
pub use regression::RegressionScores;
pub use spans::{SpanScore, SpanScores};
pub use text::{Scored, TextScores};

/// The scores of a task that a head does.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum TaskScores {
    /// One class a row.
    Classes(ClassScores),
    /// Any number of classes a row.
    MultiLabel(MultiLabelScores),
    /// Numbers.
    Regression(RegressionScores),
    /// Spans of tagged words.
    Spans(SpanScores),
    /// Answers to questions.
    Answers(AnswerScores),
}

impl TaskScores {
    /// Scores of one class a row, as scikit-learn computes them. Each class is below the number of `labels`.
    pub fn classes(gold: &[usize], predicted: &[usize], labels: &Labels) -> Self {
        Self::Classes(ClassScores::of(gold, predicted, labels))
    }

    /// Scores of several classes a row, as scikit-learn computes them. Each row says of each class whether it is one of
    /// the row's.
    pub fn multi_label<R: AsRef<[bool]>>(gold: &[R], predicted: &[R], labels: &Labels) -> Self {
        Self::MultiLabel(MultiLabelScores::of(gold, predicted, labels))
    }

    /// Scores of numbers, as SciPy computes them. A row has one number for each output of the head.
    pub fn regression<R: AsRef<[f32]>>(gold: &[R], predicted: &[R]) -> Self {
        Self::Regression(RegressionScores::of(gold, predicted))
    }

    /// Scores of tagged words, as seqeval computes them. A row has a tag for each word.
    pub fn spans<T: AsRef<str>>(gold: &[Vec<T>], predicted: &[Vec<T>]) -> Self {
        Self::Spans(SpanScores::of(gold, predicted))
    }

    /// Scores of answers by the definition of SQuAD 2.0. `gold` has all right answers of each question, and none where the
    /// text does not answer it; then the right prediction is an empty text.
    pub fn answers<T: AsRef<str>>(gold: &[Vec<T>], predicted: &[T]) -> Self {
        Self::Answers(AnswerScores::of(gold, predicted))
    }
}

/// Each kind is known by a key that no other has.
impl<'de> Deserialize<'de> for TaskScores {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        let has = |key| value.get(key).is_some();
        let read = if has("confusion_matrix") {
            Deserialize::deserialize(&value).map(Self::Classes)
        } else if has("types") {
            Deserialize::deserialize(&value).map(Self::Spans)
        } else if has("pearson") {
            Deserialize::deserialize(&value).map(Self::Regression)
        } else if has("f1_micro") {
            Deserialize::deserialize(&value).map(Self::MultiLabel)
        } else if has("exact_match") && has("f1") {
            Deserialize::deserialize(&value).map(Self::Answers)
        } else {
            return Err(D::Error::custom("no scores of a known task"));
        };
        read.map_err(D::Error::custom)
    }
}

impl TaskScores {
    /// The scores of one number each: names and values for a table.
    pub fn lines(&self) -> Vec<(&'static str, String)> {
        let share = |value: f64| format!("{:.1} %", 100.0 * value);
        let number = |value: f64| format!("{value:.3}");
        let defined = |value: Option<f64>| value.map_or("not defined".to_owned(), number);
        match self {
            Self::Classes(scores) => vec![
                ("accuracy", share(scores.accuracy)),
                ("macro F1", number(scores.f1_macro)),
                ("Matthews", number(scores.matthews)),
            ],
            Self::MultiLabel(scores) => vec![
                ("accuracy", share(scores.accuracy)),
                ("macro F1", number(scores.f1_macro)),
                ("micro F1", number(scores.f1_micro)),
            ],
            Self::Regression(scores) => vec![
                ("Pearson", defined(scores.pearson)),
                ("Spearman", defined(scores.spearman)),
            ],
            Self::Spans(scores) => vec![
                ("precision", number(scores.precision)),
                ("recall", number(scores.recall)),
                ("F1", number(scores.f1)),
                ("right tags", share(scores.accuracy)),
            ],
            Self::Answers(scores) => vec![
                ("exact match", share(scores.exact_match)),
                ("F1", number(scores.f1)),
            ],
        }
    }
}

impl fmt::Display for TaskScores {
    /// A line for each score, and what there is to say of each class.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in self.lines() {
            writeln!(f, "{name:12} {value}")?;
        }
        match self {
            Self::Classes(scores) => scores.confusion_matrix.fmt(f),
            Self::Spans(scores) => scores.fmt(f),
            Self::MultiLabel(_) | Self::Regression(_) | Self::Answers(_) => Ok(()),
        }
    }
}

/// The share of `part` in `whole`; 0 of nothing, as in scikit-learn and seqeval.
fn share(part: usize, whole: usize) -> f64 {
    match whole {
        0 => 0.0,
        _ => part as f64 / whole as f64,
    }
}

/// The mean; 0 of nothing.
fn mean(values: &[f64]) -> f64 {
    match values.len() {
        0 => 0.0,
        count => values.iter().sum::<f64>() / count as f64,
    }
}

/// The F1 of counts: how many are right, how many there are, and how many were predicted.
fn f1_of_counts(right: usize, gold: usize, predicted: usize) -> f64 {
    share(2 * right, gold + predicted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn_peft_data::ProblemType;

    fn keys(scores: &TaskScores) -> Vec<String> {
        let value = serde_json::to_value(scores).unwrap();
        value.as_object().unwrap().keys().cloned().collect()
    }

    #[test]
    fn each_task_has_the_keys_of_its_metrics() {
        let labels = Labels::numbered(2, ProblemType::SingleLabel);
        let classes = TaskScores::classes(&[0, 1, 1], &[0, 1, 0], &labels);
        assert_eq!(
            keys(&classes),
            [
                "accuracy",
                "f1_macro",
                "f1_micro",
                "matthews",
                "confusion_matrix"
            ]
        );
        let multi_label = TaskScores::multi_label(&[[true, false]], &[[true, true]], &labels);
        assert_eq!(keys(&multi_label), ["accuracy", "f1_macro", "f1_micro"]);
        let regression = TaskScores::regression(&[[1.0], [2.0]], &[[1.0], [3.0]]);
        assert_eq!(keys(&regression), ["pearson", "spearman"]);
        let spans = TaskScores::spans(&[vec!["B-X"]], &[vec!["O"]]);
        assert_eq!(
            keys(&spans),
            ["precision", "recall", "f1", "accuracy", "types"]
        );
        let answers = TaskScores::answers(&[vec!["town"]], &["town"]);
        assert_eq!(keys(&answers), ["exact_match", "f1"]);
    }

    #[test]
    fn scores_that_were_written_are_read_as_what_they_were() {
        let labels = Labels::numbered(2, ProblemType::SingleLabel);
        for scores in [
            TaskScores::classes(&[0, 1, 1], &[0, 1, 0], &labels),
            TaskScores::multi_label(&[[true, false]], &[[true, true]], &labels),
            TaskScores::regression(&[[1.0], [2.0]], &[[1.0], [1.0]]),
            TaskScores::spans(&[vec!["B-X"]], &[vec!["O"]]),
            TaskScores::answers(&[vec!["town"]], &["town"]),
        ] {
            let text = serde_json::to_string(&scores).unwrap();
            assert_eq!(serde_json::from_str::<TaskScores>(&text).unwrap(), scores);
        }
        assert!(serde_json::from_str::<TaskScores>(r#"{"loss": 1.0}"#).is_err());
    }

    #[test]
    fn scores_are_printed_a_line_each() {
        let labels = Labels::numbered(2, ProblemType::SingleLabel);
        let scores = TaskScores::classes(&[0, 1, 1, 1], &[0, 1, 1, 0], &labels);
        assert_eq!(
            scores.to_string(),
            "accuracy     75.0 %\n\
             macro F1     0.733\n\
             Matthews     0.577\n\
             gold \\ predicted  LABEL_0  LABEL_1\n\
             LABEL_0                 1        0\n\
             LABEL_1                 1        2\n"
        );
        let scores = TaskScores::regression(&[[1.0], [2.0]], &[[1.0], [1.0]]);
        assert_eq!(
            scores.to_string(),
            "Pearson      not defined\nSpearman     not defined\n"
        );
    }

    #[test]
    fn of_no_rows_scores_are_zero_and_numbers() {
        let labels = Labels::numbered(2, ProblemType::SingleLabel);
        let none: [Vec<String>; 0] = [];
        for scores in [
            TaskScores::classes(&[], &[], &labels),
            TaskScores::spans(&none, &none),
            TaskScores::answers::<String>(&none, &[]),
        ] {
            let text = serde_json::to_string(&scores).unwrap();
            assert!(!text.contains("null"), "{text}");
        }
    }
}
