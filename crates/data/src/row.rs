//! One row of a data file, before tokenisation.

use std::fmt;

use serde::Serialize;

/// The format of the rows of a file. [`read_rows`](crate::read_rows) says how it is recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowFormat {
    /// `{"prompt", "completion"}`
    PromptCompletion,
    /// `{"instruction", "input"?, "output"}`
    Instruction,
    /// `{"messages": [{"role", "content"}]}`
    Messages,
    /// `{"input_ids", "labels"}`
    Tokenized,
    /// `{"text"}`
    Text,
}

impl RowFormat {
    /// All formats, in the order in which they are looked for.
    pub(crate) const ALL: [Self; 5] = [
        Self::PromptCompletion,
        Self::Instruction,
        Self::Messages,
        Self::Tokenized,
        Self::Text,
    ];

    pub(crate) fn required_keys(self) -> &'static [&'static str] {
        match self {
            Self::PromptCompletion => &["prompt", "completion"],
            Self::Instruction => &["instruction", "output"],
            Self::Messages => &["messages"],
            Self::Tokenized => &["input_ids", "labels"],
            Self::Text => &["text"],
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
        })
    }
}

/// One row. A value that was read from a file has passed every check that needs no tokenizer.
#[derive(Debug, Clone, PartialEq, Eq)]
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
        /// The task.
        instruction: String,
        /// The data that the task is about. `None` if the row's input is absent, null or empty.
        input: Option<String>,
        /// The text that the model learns to write.
        output: String,
    },
    /// A conversation. The model learns the assistant's turns.
    Messages(
        /// The turns in order, at least one.
        Vec<Message>,
    ),
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
}

impl Row {
    pub(crate) fn format(&self) -> RowFormat {
        match self {
            Self::PromptCompletion { .. } => RowFormat::PromptCompletion,
            Self::Instruction { .. } => RowFormat::Instruction,
            Self::Messages(_) => RowFormat::Messages,
            Self::Tokenized { .. } => RowFormat::Tokenized,
            Self::Text(_) => RowFormat::Text,
        }
    }
}

/// One turn of a conversation. Chat templates see these two fields.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Message {
    /// The speaker: `system`, `user`, `assistant`, or another role that the chat template handles.
    pub role: String,
    /// The text of the turn.
    pub content: String,
}

impl Message {
    /// Makes a turn of `role` with the text `content`.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self {
            role: role.into(),
            content: content.into(),
        }
    }
}
