//! JSON lines to typed rows.
//!
//! | keys | [`RowFormat`] |
//! |---|---|
//! | `prompt`, `completion` | [`PromptCompletion`](RowFormat::PromptCompletion) |
//! | `instruction`, `input` (optional), `output` | [`Instruction`](RowFormat::Instruction) |
//! | `messages`: a list of `{role, content}` | [`Messages`](RowFormat::Messages) |
//! | `input_ids`, `labels` | [`Tokenized`](RowFormat::Tokenized) |
//! | `text` | [`Text`](RowFormat::Text) |
//!
//! The format is decided once, by the keys of the first row, looking down this table (so that a file
//! with `instruction`, `output` and a rendered `text` is read as instructions). Every row must then
//! have that format's keys with the right types; other keys are ignored. `{text, label}` and
//! `{tokens, tags}` are classification formats, recognised in order to be refused in plain words.

use std::fmt;
use std::path::Path;

use crate::chat::Message;
use crate::error::{Error, Result};
use crate::parse::parse;

/// What the rows of a file look like.
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
    pub const ALL: [Self; 5] = [
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

/// One row, before tokenisation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Row {
    /// A prompt that is given, and a completion that is learned.
    PromptCompletion {
        /// What the model is given.
        prompt: String,
        /// What it learns to write.
        completion: String,
    },
    /// An instruction, perhaps with an input; the output is learned.
    Instruction {
        /// What is to be done.
        instruction: String,
        /// What it is to be done with. Absent, null and empty are the same.
        input: Option<String>,
        /// What the model learns to write.
        output: String,
    },
    /// A conversation; the assistant's turns are learned.
    Messages(
        /// The turns, in order. Never empty.
        Vec<Message>,
    ),
    /// Ids that are used as they are.
    Tokenized {
        /// Token ids `[seq]`.
        input_ids: Vec<u32>,
        /// Labels `[seq]`: the id at the same position, or [`IGNORE_INDEX`](crate::IGNORE_INDEX).
        labels: Vec<i64>,
    },
    /// Plain text, all of it learned.
    Text(
        /// The text.
        String,
    ),
}

impl Row {
    /// Which format the row has.
    pub fn format(&self) -> RowFormat {
        match self {
            Self::PromptCompletion { .. } => RowFormat::PromptCompletion,
            Self::Instruction { .. } => RowFormat::Instruction,
            Self::Messages(_) => RowFormat::Messages,
            Self::Tokenized { .. } => RowFormat::Tokenized,
            Self::Text(_) => RowFormat::Text,
        }
    }
}

/// The rows of one file, with the file's name and their lines for messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rows {
    path: String,
    rows: Vec<(usize, Row)>,
}

impl Rows {
    /// Rows made in memory. `path` is what messages call them, `rows` pairs each with its line (from 1).
    pub fn new(path: impl Into<String>, rows: Vec<(usize, Row)>) -> Self {
        Self {
            path: path.into(),
            rows,
        }
    }

    /// What messages call these rows: the path of the file.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The rows with their lines, which count from 1.
    pub fn rows(&self) -> &[(usize, Row)] {
        &self.rows
    }

    /// The number of rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Keeps the first `count` rows, for a quick look or a smoke run.
    pub fn truncate(&mut self, count: usize) {
        self.rows.truncate(count);
    }
}

impl IntoIterator for Rows {
    type Item = (usize, Row);
    type IntoIter = std::vec::IntoIter<(usize, Row)>;

    fn into_iter(self) -> Self::IntoIter {
        self.rows.into_iter()
    }
}

/// Reads a JSON-lines file. Blank lines, a byte-order mark and `\r\n` are tolerated.
///
/// # Errors
/// The file cannot be read, has no rows, or a line of it is not UTF-8, not JSON, or not of the
/// first row's format.
pub fn read_rows(path: &Path) -> Result<Rows> {
    let bytes = std::fs::read(path).map_err(|source| Error::Read {
        path: path.to_owned(),
        source,
    })?;
    parse(&path.display().to_string(), &bytes)
}

/// Reads JSON lines that are already in memory; `path` is what messages call them.
///
/// # Errors
/// As [`read_rows`].
pub fn parse_rows(path: &str, text: &str) -> Result<Rows> {
    parse(path, text.as_bytes())
}
