//! The keys by which a format is recognised, in the spellings of common data sets.

use std::fmt;

use serde_json::{Map, Value};

use crate::row::RowFormat::{self, *};
use crate::task::Task;

/// The keys of what a row is read from, in one spelling.
type Keys = &'static [&'static str];

/// All formats, in the order in which error messages list them.
const FORMATS: [RowFormat; 10] = [
    PromptCompletion,
    Instruction,
    Messages,
    Questions,
    Tagging,
    Tokenized,
    TaggingIds,
    ClassificationIds,
    Classification,
    Text,
];

/// A format, the keys of what the model is given (of texts, conversations and token ids to write, also of what it
/// learns), and the keys of what is learned, where that has a key of its own and a row to be predicted need not have
/// it. A row has one of these.
type Spelling = (RowFormat, Keys, Keys);

const CLASS: Keys = &["label", "labels"];
const TAGS: Keys = &["tags", "ner_tags", "labels"];

/// All spellings, in the order in which they are looked for: one with more keys before one with fewer of them, and the
/// keys of a format itself before the names that others have for them.
const SPELLINGS: [Spelling; 25] = [
    (PromptCompletion, &["prompt"], &["completion"]),
    // TRL's form for conversations: both are lists of turns.
    (Messages, &["prompt"], &["completion"]),
    (Instruction, &["instruction"], &["output"]),
    (Messages, &["messages"], &[]),
    (Messages, &["conversations"], &[]),
    (Messages, &["conversation"], &[]),
    (Questions, &["context", "question"], &["answers"]),
    (Tagging, &["tokens"], TAGS),
    (Tagging, &["words"], TAGS),
    (Tokenized, &["input_ids", "labels"], &[]),
    (TaggingIds, &["input_ids"], &["tags", "ner_tags"]),
    (ClassificationIds, &["input_ids"], &["label"]),
    (Tokenized, &["input_ids"], &[]),
    (Classification, &["sentence1", "sentence2"], CLASS),
    (Classification, &["premise", "hypothesis"], CLASS),
    (Classification, &["question1", "question2"], CLASS),
    (Classification, &["question", "sentence"], CLASS),
    (Classification, &["text"], CLASS),
    (Classification, &["sentence"], CLASS),
    (Instruction, &["instruction"], &["response", "answer"]),
    (
        PromptCompletion,
        &["prompt"],
        &["response", "answer", "output"],
    ),
    (Instruction, &["query"], &["response", "answer", "output"]),
    (
        Instruction,
        &["question"],
        &["answer", "response", "output"],
    ),
    (Instruction, &["input"], &["output", "response", "answer"]),
    (Text, &["text"], &[]),
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
    /// The names that the label or the answer may have.
    labels: Keys,
    /// Whether other spellings of the label are passed over.
    unlabelled: bool,
}

impl Columns {
    /// Recognises a format by the keys of a row.
    pub(super) fn detect(object: &Map<String, Value>, purpose: Purpose) -> Option<Self> {
        let has = |key: &&str| object.contains_key(*key);
        let are_turns = |key: &str| object.get(key).is_some_and(Value::is_array);
        let fits = |(format, given, _): &&Spelling| {
            purpose.reads(format.task())
                && given.iter().all(has)
                && match (format, given) {
                    (Messages, ["prompt"]) => are_turns("prompt"),
                    (PromptCompletion, _) => !are_turns("prompt"),
                    _ => true,
                }
        };
        let is_labelled = |(_, _, labels): &&Spelling| labels.is_empty() || labels.iter().any(has);
        let unlabelled = purpose != Purpose::Learning;
        // A row that could be learned is of the format that it would have then.
        let learned = SPELLINGS.iter().filter(fits).find(is_labelled);
        let either = || SPELLINGS.iter().find(fits).filter(|_| unlabelled);
        let &(format, given, labels) = learned.or_else(either)?;
        let unlabelled = unlabelled && !labels.is_empty();
        Some(Self {
            format,
            given,
            label: labels.iter().copied().find(has).filter(|_| !unlabelled),
            labels,
            unlabelled,
        })
    }

    /// The keys that every row must have.
    pub(super) fn required(&self) -> impl Iterator<Item = &'static str> {
        self.given.iter().copied().chain(self.label)
    }

    /// The key of what is to be written, in a row that may lack it.
    pub(super) fn answer(&self, object: &Map<String, Value>) -> Option<&'static str> {
        let has = |key: &&str| object.contains_key(*key);
        self.label.or_else(|| self.labels.iter().copied().find(has))
    }

    /// The key of the text that an instruction is about, if a row has one.
    pub(super) fn input(&self, object: &Map<String, Value>) -> Option<&'static str> {
        let mut keys = ["input", "context"].into_iter();
        keys.find(|key| object.contains_key(*key) && !self.given.contains(key))
    }

    /// The key of a system text, if a row has one.
    pub(super) fn system(object: &Map<String, Value>) -> Option<&'static str> {
        let mut keys = ["system", "system_prompt"].into_iter();
        keys.find(|key| object.contains_key(*key))
    }

    /// Whether a row may have `key`.
    pub(super) fn knows(&self, object: &Map<String, Value>, key: &str) -> bool {
        let is_optional = match self.format {
            Instruction => {
                key == "history"
                    || self.input(object) == Some(key)
                    || Self::system(object) == Some(key)
            }
            Messages => {
                let keys = ["tools", "documents", "chat_template_kwargs", "functions"];
                keys.contains(&key) || Self::system(object) == Some(key)
            }
            Questions => ["id", "title", "is_impossible", "plausible_answers"].contains(&key),
            Tokenized => ["attention_mask", "completion_mask", "assistant_masks"].contains(&key),
            ClassificationIds | TaggingIds => key == "attention_mask",
            _ => false,
        };
        is_optional
            || self.required().any(|known| known == key)
            || self.pair() == Some(key)
            || self.unlabelled && self.labels.contains(&key)
    }

    /// The key of the second text of a row to classify, whether or not each row has it.
    pub(super) fn pair(&self) -> Option<&'static str> {
        match (self.format, self.given) {
            (Classification, [_, pair]) => Some(*pair),
            (Classification, ["text"]) => Some("text_pair"),
            _ => None,
        }
    }
}

/// The keys of the file itself, where these can be spelled in several ways.
impl fmt::Display for Columns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.format, self.given) {
            (Instruction, ["instruction"]) if self.label == Some("output") => self.format.fmt(f),
            (Messages, ["messages"]) => self.format.fmt(f),
            _ => {
                let keys: Vec<String> = self.required().map(|key| format!("{key:?}")).collect();
                write!(f, "{{{}}}", keys.join(","))
            }
        }
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
