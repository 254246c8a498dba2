//! What an adapter is for: PEFT's `task_type`, and what PEFT has no key for.

use burn_peft::HeadKind;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};

use crate::fields::Fields;
use crate::{Error, Problem};

/// The key of [`AdapterConfig::task`](crate::AdapterConfig::task).
pub(crate) const TASK: &str = "burn_peft_task";

/// What a base model is adapted to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TaskType {
    /// `CAUSAL_LM`: language modelling.
    CausalLm,
    /// `SEQ_2_SEQ_LM`: language modelling with an encoder and a decoder.
    Seq2SeqLm,
    /// `SEQ_CLS`: one class for a text.
    SeqCls,
    /// `TOKEN_CLS`: one class for each token.
    TokenCls,
    /// `QUESTION_ANS`: the place of an answer in a text.
    QuestionAns,
    /// `FEATURE_EXTRACTION`: the hidden states.
    FeatureExtraction,
}

/// The head that transformers' model class of a task has in place of the language-model head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HeadLayout {
    /// What it reads and gives.
    pub(crate) kind: HeadKind,
    /// The name of the linear layer.
    pub(crate) module: &'static str,
    /// The number of its rows where the task says it.
    pub(crate) outputs: Option<usize>,
    /// The modules that PEFT saves whole for the task, whichever of them a model has.
    pub(crate) modules_to_save: &'static [&'static str],
    /// The name under which the class of transformers holds the decoder.
    pub(crate) backbone: &'static str,
    /// The class.
    pub(crate) class: &'static str,
    /// The hub's name of the task.
    pub(crate) pipeline: &'static str,
}

/// The name of the decoder in a causal model, and so in a checkpoint.
pub(crate) const CAUSAL_BACKBONE: &str = "model";
/// The name of the decoder in a model for questions.
pub(crate) const QUESTION_BACKBONE: &str = "transformer";

impl TaskType {
    pub(crate) const ALL: [Self; 6] = [
        Self::CausalLm,
        Self::Seq2SeqLm,
        Self::SeqCls,
        Self::TokenCls,
        Self::QuestionAns,
        Self::FeatureExtraction,
    ];

    /// PEFT's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::CausalLm => "CAUSAL_LM",
            Self::Seq2SeqLm => "SEQ_2_SEQ_LM",
            Self::SeqCls => "SEQ_CLS",
            Self::TokenCls => "TOKEN_CLS",
            Self::QuestionAns => "QUESTION_ANS",
            Self::FeatureExtraction => "FEATURE_EXTRACTION",
        }
    }

    /// The task of a head.
    pub fn of(head: HeadKind) -> Self {
        match head {
            HeadKind::Sequence => Self::SeqCls,
            HeadKind::Token => Self::TokenCls,
            HeadKind::Span => Self::QuestionAns,
        }
    }

    /// The head of the task; `None` where the language-model head serves.
    pub fn head_kind(self) -> Option<HeadKind> {
        self.head().map(|head| head.kind)
    }

    /// The head of the task, as transformers 5 and PEFT 0.21 have it for Qwen2, Llama and Qwen3.
    pub(crate) fn head(self) -> Option<HeadLayout> {
        let classes = HeadLayout {
            kind: HeadKind::Sequence,
            module: "score",
            outputs: None,
            modules_to_save: &["classifier", "score"],
            backbone: CAUSAL_BACKBONE,
            class: "AutoModelForSequenceClassification",
            pipeline: "text-classification",
        };
        match self {
            Self::SeqCls => Some(classes),
            Self::TokenCls => Some(HeadLayout {
                kind: HeadKind::Token,
                class: "AutoModelForTokenClassification",
                pipeline: "token-classification",
                ..classes
            }),
            Self::QuestionAns => Some(HeadLayout {
                kind: HeadKind::Span,
                module: "qa_outputs",
                outputs: Some(2),
                modules_to_save: &["qa_outputs"],
                backbone: QUESTION_BACKBONE,
                class: "AutoModelForQuestionAnswering",
                pipeline: "question-answering",
            }),
            Self::CausalLm | Self::Seq2SeqLm | Self::FeatureExtraction => None,
        }
    }
}

/// What the label of a text is; the names are those of transformers' `problem_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProblemType {
    /// One class of several.
    SingleLabelClassification,
    /// Any number of classes at once.
    MultiLabelClassification,
    /// Numbers.
    Regression,
}

/// What burn-peft knows of a task and PEFT has no key for. Everything is optional: the default is what holds for a
/// folder that PEFT wrote.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct TaskOptions {
    /// The names of the classes, in the order of the head's outputs or of the verbalizer's texts. Empty: they have
    /// numbers only ([`AdapterFolder::labels`](crate::AdapterFolder::labels)).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
    /// What a label is, for `SEQ_CLS`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem_type: Option<ProblemType>,
    /// Whether all tokens of a word had its label in training, not the first alone; for `TOKEN_CLS`.
    #[serde(skip_serializing_if = "is_false")]
    pub label_all_tokens: bool,
    /// Whether there may be no answer, for `QUESTION_ANS`. Then an end token ends each row, and choosing it
    /// is to say so.
    #[serde(skip_serializing_if = "is_false")]
    pub no_answer: bool,
    /// By how much "no answer" may be ahead of the best answer, which is given all the same. It is written as
    /// precisely as a score is computed, in f32.
    #[serde(
        skip_serializing_if = "Option::is_none",
        serialize_with = "in_few_digits"
    )]
    pub null_score_diff_threshold: Option<f64>,
    /// The most tokens of an answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_answer_length: Option<usize>,
    /// The tokens that two windows of a long context share.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub doc_stride: Option<usize>,
    /// The texts that stand for the classes, one for each label. The language-model head chooses among them, so
    /// the task is `CAUSAL_LM`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub verbalizer: Vec<String>,
    /// Whether the score of a text where there is nothing to classify is subtracted from its score.
    #[serde(skip_serializing_if = "is_false")]
    pub calibrate: bool,
}

fn is_false(value: &bool) -> bool {
    !value
}

/// The shortest decimal of the number in f32. serde_json reads a number of so few digits exactly; of
/// more it may miss the last one, and the checksum of the file would be another.
fn in_few_digits<S: Serializer>(value: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
    let short = |value: f64| (value as f32).to_string().parse().unwrap_or(value);
    value.map(short).serialize(serializer)
}

impl TaskOptions {
    /// The object under [`TASK`], if there is one.
    pub(crate) fn read(fields: &mut Fields<'_>) -> Result<Option<Self>, Error> {
        if !fields.open(TASK)? {
            return Ok(None);
        }
        Ok(Some(Self {
            labels: fields.strict("burn_peft_task.labels", Vec::new())?,
            problem_type: fields.optional("burn_peft_task.problem_type")?,
            label_all_tokens: fields.strict("burn_peft_task.label_all_tokens", false)?,
            no_answer: fields.strict("burn_peft_task.no_answer", false)?,
            null_score_diff_threshold: fields
                .optional("burn_peft_task.null_score_diff_threshold")?,
            max_answer_length: fields.optional("burn_peft_task.max_answer_length")?,
            doc_stride: fields.optional("burn_peft_task.doc_stride")?,
            verbalizer: fields.strict("burn_peft_task.verbalizer", Vec::new())?,
            calibrate: fields.strict("burn_peft_task.calibrate", false)?,
        }))
    }

    pub(crate) fn to_map(&self) -> Map<String, Value> {
        match serde_json::to_value(self) {
            Ok(Value::Object(map)) => map,
            other => unreachable!("plain structs always become JSON objects, not {other:?}"),
        }
    }

    /// What does not agree: with itself, and with a head of this number of outputs.
    pub(crate) fn problems(&self, outputs: Option<usize>) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut problem = |field, found: String, expected: String| {
            problems.push(Problem::Field {
                field,
                found,
                expected,
            });
        };
        let labels = self.labels.len();
        let twice = (1..labels).find(|&at| self.labels[..at].contains(&self.labels[at]));
        if let Some(at) = twice {
            let name = crate::fields::shortened(&self.labels[at]);
            let field = "burn_peft_task.labels";
            problem(
                field,
                format!("a list with `{name}` twice"),
                "each name once".into(),
            );
        }
        match outputs {
            Some(outputs) if labels > 0 && labels != outputs => problem(
                "burn_peft_task.labels",
                format!("a list of {labels}"),
                format!("{outputs}, one for each output of the head"),
            ),
            _ => {}
        }
        let texts = self.verbalizer.len();
        if texts > 0 && outputs.is_some() {
            let expected = "none beside a head".into();
            problem(
                "burn_peft_task.verbalizer",
                format!("a list of {texts}"),
                expected,
            );
        } else if texts > 0 && texts != labels {
            problem(
                "burn_peft_task.verbalizer",
                format!("a list of {texts}"),
                format!("{labels}, one for each label"),
            );
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::test_support::folder;
    use crate::{AdapterConfig, AdapterFolder, BeftOptions, MethodOptions, ModelCard};

    fn parse(task: &str) -> Result<AdapterConfig, Error> {
        let text = format!(r#"{{"peft_type": "BEFT", "burn_peft_task": {task}}}"#);
        AdapterConfig::parse(text.as_bytes(), Path::new("a"))
    }

    fn full() -> TaskOptions {
        TaskOptions {
            labels: vec!["ja".into(), "n\u{e9}in".into()],
            problem_type: Some(ProblemType::MultiLabelClassification),
            label_all_tokens: true,
            no_answer: true,
            null_score_diff_threshold: Some(-0.25),
            max_answer_length: Some(7),
            doc_stride: Some(16),
            verbalizer: vec![" yes".into(), " no".into()],
            calibrate: true,
        }
    }

    #[test]
    fn what_is_written_of_a_task_is_read() {
        assert_eq!(parse("null").unwrap().task, None);
        for task in [TaskOptions::default(), full()] {
            let mut config = parse("null").unwrap();
            config.task = Some(task);
            let text = config.to_json();
            let again = AdapterConfig::parse(text.as_bytes(), Path::new("a")).unwrap();
            assert_eq!(again, config);
            assert!(again.notes().is_empty(), "{:?}", again.notes());
        }
        let text = parse("{}").unwrap().to_json();
        assert!(text.contains("\"burn_peft_task\": {}"), "{text}");
    }

    #[test]
    fn a_threshold_of_any_digits_leaves_a_folder_whole() {
        let dir = tempfile::tempdir().unwrap();
        for number in 1..300 {
            let method = MethodOptions::Beft(BeftOptions::default());
            let mut folder = folder(method, &[]);
            let threshold = f64::from(number).sqrt() - 9.7;
            folder.config.task = Some(TaskOptions {
                null_score_diff_threshold: Some(threshold),
                ..TaskOptions::default()
            });
            folder.save(dir.path(), &ModelCard::default()).unwrap();
            let task = AdapterFolder::load(dir.path()).unwrap().config.task;
            let read = task.unwrap().null_score_diff_threshold.unwrap();
            assert!((read / threshold - 1.0).abs() < 1e-7, "{read} {threshold}");
        }
    }

    #[test]
    fn problem_types_have_transformers_names() {
        for (name, expected) in [
            (
                "single_label_classification",
                ProblemType::SingleLabelClassification,
            ),
            (
                "multi_label_classification",
                ProblemType::MultiLabelClassification,
            ),
            ("regression", ProblemType::Regression),
        ] {
            let config = parse(&format!(r#"{{"problem_type": "{name}"}}"#)).unwrap();
            assert_eq!(config.task.unwrap().problem_type, Some(expected));
        }
    }

    #[test]
    fn wrong_types_in_a_task_name_their_key() {
        for (task, expected) in [
            ("3", "`burn_peft_task` is 3, expected an object"),
            (
                r#"{"labels": ["a", 1]}"#,
                r#"`burn_peft_task.labels` is ["a",1], expected a list of strings"#,
            ),
            (
                r#"{"problem_type": "ranking"}"#,
                r#"`burn_peft_task.problem_type` is "ranking", expected single_label_classification, multi_label_classification or regression"#,
            ),
            (
                r#"{"no_answer": 1}"#,
                "`burn_peft_task.no_answer` is 1, expected true or false",
            ),
            (
                r#"{"label_all_tokens": "no"}"#,
                r#"`burn_peft_task.label_all_tokens` is "no", expected true or false"#,
            ),
            (
                r#"{"null_score_diff_threshold": "0"}"#,
                r#"`burn_peft_task.null_score_diff_threshold` is "0", expected a number"#,
            ),
            (
                r#"{"verbalizer": {}}"#,
                "`burn_peft_task.verbalizer` is {}, expected a list of strings",
            ),
            (
                r#"{"calibrate": 1}"#,
                "`burn_peft_task.calibrate` is 1, expected true or false",
            ),
        ] {
            let message = parse(task).unwrap_err().to_string();
            assert_eq!(message, format!("a: {expected}"));
        }
    }

    #[test]
    fn unknown_keys_of_a_task_are_named() {
        let config = parse(r#"{"labels": ["a"], "from_the_future": 1}"#).unwrap();
        assert_eq!(config.unknown_keys, ["burn_peft_task.from_the_future"]);
        assert!(!config.to_json().contains("from_the_future"));
    }

    #[test]
    fn lists_of_other_lengths_are_problems() {
        let problems = |task: &TaskOptions, outputs| {
            let problems = task.problems(outputs);
            problems.iter().map(Problem::to_string).collect::<Vec<_>>()
        };
        assert!(problems(&full(), None).is_empty());
        let headed = TaskOptions {
            verbalizer: Vec::new(),
            calibrate: false,
            ..full()
        };
        assert!(problems(&headed, Some(2)).is_empty());
        assert_eq!(
            problems(&headed, Some(3)),
            ["`burn_peft_task.labels` is a list of 2, expected 3, one for each output of the head"]
        );
        assert_eq!(
            problems(&full(), Some(2)),
            ["`burn_peft_task.verbalizer` is a list of 2, expected none beside a head"]
        );
        let shorter = TaskOptions {
            labels: vec!["a".into(), "b".into(), "a".into()],
            ..full()
        };
        assert_eq!(
            problems(&shorter, None),
            [
                "`burn_peft_task.labels` is a list with `a` twice, expected each name once",
                "`burn_peft_task.verbalizer` is a list of 2, expected 3, one for each label",
            ]
        );
    }
}
