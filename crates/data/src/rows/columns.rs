//! The keys by which a format is recognised, in the spellings of common data sets.

use std::fmt;

use serde_json::{Map, Value};

use crate::row::RowFormat;
use crate::task::Task;

/// The keys of what a row is read from, in one spelling.
type Keys = &'static [&'static str];

/// All formats, in the order in which they are looked for: one with more keys before one with fewer of them.
const FORMATS: [RowFormat; 10] = [
    RowFormat::PromptCompletion,
    RowFormat::Instruction,
    RowFormat::Messages,
    RowFormat::Questions,
    RowFormat::Tagging,
    RowFormat::Tokenized,
    RowFormat::TaggingIds,
    RowFormat::ClassificationIds,
    RowFormat::Classification,
    RowFormat::Text,
];

/// What rows are read for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To learn from, or to be compared with: each has what is learned.
    Learning,
    /// To be predicted. What a row of this task has for a label is not read.
    Predicting(Task),
}

impl Purpose {
    /// Whether rows of a task are read.
    pub(super) fn reads(self, task: Task) -> bool {
        self == Self::Learning || self == Self::Predicting(task)
    }
}

/// The keys of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Columns {
    pub(super) format: RowFormat,
    /// The keys of what the model is given; of texts, conversations and token ids to write, also of what it learns.
    pub(super) given: Keys,
    /// The key of the label or the answer, where every row must have it.
    pub(super) label: Option<&'static str>,
    /// Whether other spellings of the label are passed over.
    unlabelled: bool,
}

impl Columns {
    /// Recognises a format by the keys of a row.
    pub(super) fn detect(object: &Map<String, Value>, purpose: Purpose) -> Option<Self> {
        let has = |key: &&str| object.contains_key(*key);
        let is_wanted = |format: &RowFormat| purpose.reads(format.task());
        let found = |format: RowFormat, unlabelled: bool| {
            let mut spellings = given(format).iter();
            let given = *spellings.find(|given| given.iter().all(has))?;
            let label = labels(format).iter().copied().find(has);
            let is_complete = unlabelled || label.is_some() || labels(format).is_empty();
            is_complete.then_some((format, given, label))
        };
        let formats = || FORMATS.into_iter().filter(is_wanted);
        let unlabelled = purpose != Purpose::Learning;
        // A row that could be learned is of the format that it would have then.
        let learned = formats().find_map(|format| found(format, false));
        let either = || formats().find_map(|format| found(format, unlabelled));
        let (format, given, label) = learned.or_else(either)?;
        let unlabelled = unlabelled && !labels(format).is_empty();
        Some(Self {
            format,
            given,
            label: label.filter(|_| !unlabelled),
            unlabelled,
        })
    }

    /// The keys that every row must have.
    pub(super) fn required(&self) -> impl Iterator<Item = &'static str> {
        self.given.iter().copied().chain(self.label)
    }

    /// Whether a row may have `key`.
    pub(super) fn knows(&self, key: &str) -> bool {
        let optional: Keys = match self.format {
            RowFormat::Instruction => &["input", "system", "history"],
            RowFormat::Messages => &["tools", "documents", "chat_template_kwargs"],
            RowFormat::Questions => &["id", "title", "is_impossible", "plausible_answers"],
            _ => &[],
        };
        self.required().any(|known| known == key)
            || optional.contains(&key)
            || self.pair() == Some(key)
            || self.unlabelled && labels(self.format).contains(&key)
    }

    /// The key of the second text of a row to classify, whether or not each row has it.
    pub(super) fn pair(&self) -> Option<&'static str> {
        match (self.format, self.given) {
            (RowFormat::Classification, [_, pair]) => Some(*pair),
            (RowFormat::Classification, ["text"]) => Some("text_pair"),
            _ => None,
        }
    }
}

/// The keys of the file itself, where these can be spelled in several ways.
impl fmt::Display for Columns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.format.task() == Task::CausalLm && !self.unlabelled {
            return self.format.fmt(f);
        }
        let keys: Vec<String> = self.required().map(|key| format!("{key:?}")).collect();
        write!(f, "{{{}}}", keys.join(","))
    }
}

/// The formats, or those of a task, for error messages.
pub(super) fn names(purpose: Purpose) -> String {
    let formats = FORMATS
        .into_iter()
        .filter(|format| purpose.reads(format.task()));
    let names: Vec<String> = formats.map(|format| format.to_string()).collect();
    names.join(", ")
}

/// The spellings of what a row gives, those with more keys first.
fn given(format: RowFormat) -> &'static [Keys] {
    match format {
        RowFormat::PromptCompletion => &[&["prompt"]],
        RowFormat::Instruction => &[&["instruction"]],
        RowFormat::Messages => &[&["messages"]],
        RowFormat::Tokenized => &[&["input_ids", "labels"]],
        RowFormat::Text => &[&["text"]],
        RowFormat::Classification => &[
            &["sentence1", "sentence2"],
            &["premise", "hypothesis"],
            &["question1", "question2"],
            &["question", "sentence"],
            &["text"],
            &["sentence"],
        ],
        RowFormat::ClassificationIds | RowFormat::TaggingIds => &[&["input_ids"]],
        RowFormat::Tagging => &[&["tokens"], &["words"]],
        RowFormat::Questions => &[&["context", "question"]],
    }
}

/// The spellings of what is learned, where it has a key of its own and a row to be predicted need not have it.
fn labels(format: RowFormat) -> Keys {
    match format {
        RowFormat::PromptCompletion => &["completion"],
        RowFormat::Instruction => &["output"],
        RowFormat::Classification => &["label", "labels"],
        RowFormat::ClassificationIds => &["label"],
        RowFormat::Tagging => &["tags", "ner_tags", "labels"],
        RowFormat::TaggingIds => &["tags", "ner_tags"],
        RowFormat::Questions => &["answers"],
        _ => &[],
    }
}
