//! One row of a data file, before tokenisation.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use crate::conversation::Conversation;
use crate::layout::instruction_text;
use crate::task::Task;

/// The format of the rows of a file. [`read_rows`](crate::read_rows) says how it is recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowFormat {
    /// `{"prompt", "completion"}`
    PromptCompletion,
    /// `{"instruction", "input"?, "output", "system"?, "history"?}`
    Instruction,
    /// `{"messages": [{"role", "content"}], "tools"?}`
    Messages,
    /// `{"input_ids", "labels"}`
    Tokenized,
    /// `{"text"}`
    Text,
    /// `{"text", "text_pair"?, "label"}`
    Classification,
    /// `{"input_ids", "label"}`
    ClassificationIds,
    /// `{"tokens", "tags"}`, or a word and its tag on each line
    Tagging,
    /// `{"input_ids", "tags"}`
    TaggingIds,
    /// `{"context", "question", "answers"}`
    Questions,
}

impl RowFormat {
    /// The task that rows of this format are for.
    pub fn task(self) -> Task {
        match self {
            Self::PromptCompletion
            | Self::Instruction
            | Self::Messages
            | Self::Tokenized
            | Self::Text => Task::CausalLm,
            Self::Classification | Self::ClassificationIds => Task::SeqCls,
            Self::Tagging | Self::TaggingIds => Task::TokenCls,
            Self::Questions => Task::Qa,
        }
    }
}

impl fmt::Display for RowFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PromptCompletion => r#"{"prompt","completion"}"#,
            Self::Instruction => r#"{"instruction","input","output"}"#,
            Self::Messages => r#"{"messages":[{"role","content"}]}"#,
            Self::Tokenized => r#"{"input_ids","labels"}"#,
            Self::Text => r#"{"text"}"#,
            Self::Classification => r#"{"text","label"}"#,
            Self::ClassificationIds => r#"{"input_ids","label"}"#,
            Self::Tagging => r#"{"tokens","tags"}"#,
            Self::TaggingIds => r#"{"input_ids","tags"}"#,
            Self::Questions => r#"{"context","question","answers"}"#,
        })
    }
}

/// One row. A value that was read from a file has passed every check that needs no tokenizer and no list of classes.
#[derive(Debug, Clone, PartialEq)]
pub enum Row {
    /// A given prompt and a completion to learn.
    PromptCompletion {
        /// The text that the model is given.
        prompt: String,
        /// The text that the model learns to write.
        completion: String,
    },
    /// An instruction, perhaps with an input, and an output to learn.
    Instruction {
        /// The text that stands in place of the first sentence of the prompt. `None` if it is absent, null or empty.
        system: Option<String>,
        /// Earlier instructions and the answers to them, in order. They are given, not learned.
        history: Vec<(String, String)>,
        /// The task.
        instruction: String,
        /// The data that the task is about. `None` if the row's input is absent, null or empty.
        input: Option<String>,
        /// The text that the model learns to write.
        output: String,
    },
    /// A conversation. The model learns the assistant's turns.
    Messages(Conversation),
    /// Token ids that are used unchanged.
    Tokenized {
        /// Token ids `[seq]`.
        input_ids: Vec<u32>,
        /// Labels `[seq]`: the id at the same position, or [`IGNORE_INDEX`](crate::IGNORE_INDEX).
        labels: Vec<i64>,
    },
    /// Plain text. The model learns all of it.
    Text(
        /// The text.
        String,
    ),
    /// A text, or two, of a class.
    Classification {
        /// The text.
        text: String,
        /// The second text of a pair.
        text_pair: Option<String>,
        /// The label. `None` in a row that is to be predicted.
        label: Option<Label>,
    },
    /// Token ids, used unchanged, of a class.
    ClassificationIds {
        /// Token ids `[seq]`.
        input_ids: Vec<u32>,
        /// The label. `None` in a row that is to be predicted.
        label: Option<Label>,
    },
    /// Words, each with a tag.
    Tagging {
        /// The words `[words]`.
        words: Vec<String>,
        /// Their tags `[words]`, names or numbers of classes. `None` in a row that is to be predicted.
        tags: Option<Vec<LabelValue>>,
    },
    /// Token ids, used unchanged, each with a tag.
    TaggingIds {
        /// Token ids `[seq]`.
        input_ids: Vec<u32>,
        /// Their tags `[seq]`, names or numbers of classes, or −100 for no tag. `None` in a row that is to be
        /// predicted.
        tags: Option<Vec<LabelValue>>,
    },
    /// A question about a text that has its answer.
    Question(Question),
}

/// The label of a text, as its row gives it. [`Labels`](crate::Labels) gives it its meaning.
#[derive(Debug, Clone, PartialEq)]
pub enum Label {
    /// One value.
    One(LabelValue),
    /// A list of values.
    Several(Vec<LabelValue>),
    /// A list in a file all of whose labels are lists of one length, two or more, of zeros and ones: a flag for each
    /// class, where there are as many classes.
    Flags(Vec<LabelValue>),
}

/// One value of a label.
#[derive(Debug, Clone, PartialEq)]
pub enum LabelValue {
    /// The name of a class.
    Name(String),
    /// A whole number: the number of a class, or one of the numbers of a regression.
    Number(i64),
    /// A number with a fraction part or an exponent.
    Fraction(f64),
}

impl LabelValue {
    /// The flag that a zero or a one is.
    pub(crate) fn flag(&self) -> Option<bool> {
        match self {
            Self::Number(0) | Self::Fraction(0.0) => Some(false),
            Self::Number(1) | Self::Fraction(1.0) => Some(true),
            _ => None,
        }
    }
}

/// A question about a text.
#[derive(Debug, Clone, PartialEq)]
pub struct Question {
    /// The id of the question in its file.
    pub id: Option<String>,
    /// The text. Questions of one SQuAD paragraph share it.
    pub context: Arc<str>,
    /// The question.
    pub question: String,
    /// The answers, each of them right; none where the text does not say. `None` in a row that is to be predicted.
    pub answers: Option<Vec<Answer>>,
}

/// A part of a context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Its text.
    pub text: String,
    /// The index of its first character in the context, in Unicode scalar values, from 0.
    pub start: usize,
}

impl Row {
    pub(crate) fn format(&self) -> RowFormat {
        match self {
            Self::PromptCompletion { .. } => RowFormat::PromptCompletion,
            Self::Instruction { .. } => RowFormat::Instruction,
            Self::Messages(_) => RowFormat::Messages,
            Self::Tokenized { .. } => RowFormat::Tokenized,
            Self::Text(_) => RowFormat::Text,
            Self::Classification { .. } => RowFormat::Classification,
            Self::ClassificationIds { .. } => RowFormat::ClassificationIds,
            Self::Tagging { .. } => RowFormat::Tagging,
            Self::TaggingIds { .. } => RowFormat::TaggingIds,
            Self::Question(_) => RowFormat::Questions,
        }
    }

    /// The text of a row to classify, and the second text of a pair.
    pub fn text(&self) -> Option<(&str, Option<&str>)> {
        match self {
            Self::Classification {
                text, text_pair, ..
            } => Some((text, text_pair.as_deref())),
            _ => None,
        }
    }

    /// The label of a row to classify, if the row has one.
    pub fn label(&self) -> Option<&Label> {
        match self {
            Self::Classification { label, .. } | Self::ClassificationIds { label, .. } => {
                label.as_ref()
            }
            _ => None,
        }
    }

    /// The words of a row to tag, `[words]`.
    pub fn words(&self) -> Option<&[String]> {
        match self {
            Self::Tagging { words, .. } => Some(words),
            _ => None,
        }
    }

    /// The tags of a row, if it has them, `[words]`, or `[seq]` of token ids.
    pub fn tags(&self) -> Option<&[LabelValue]> {
        match self {
            Self::Tagging { tags, .. } | Self::TaggingIds { tags, .. } => tags.as_deref(),
            _ => None,
        }
    }

    /// The question of a row that has one.
    pub fn question(&self) -> Option<&Question> {
        match self {
            Self::Question(question) => Some(question),
            _ => None,
        }
    }

    /// Returns the prompt and the text that should follow it, of a row that has them where no [`Template`] says
    /// otherwise: a prompt/completion or an instruction row.
    ///
    /// [`Template`]: crate::Template
    pub fn prompt_and_answer(&self) -> Option<(Cow<'_, str>, &str)> {
        match self {
            Self::PromptCompletion { prompt, completion } => {
                Some((Cow::Borrowed(prompt), completion))
            }
            Self::Instruction {
                system,
                history,
                instruction,
                input,
                output,
            } => {
                let (system, input) = (system.as_deref(), input.as_deref());
                let prompt = instruction_text(system, history, instruction, input);
                Some((Cow::Owned(prompt), output))
            }
            _ => None,
        }
    }
}
