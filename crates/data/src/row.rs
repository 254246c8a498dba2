//! One row of a data file, before tokenisation.

use std::borrow::Cow;
use std::fmt;

use crate::conversation::Conversation;
use crate::layout::instruction_text;

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

    /// Whether a row of this format may have `key`.
    pub(crate) fn knows(self, key: &str) -> bool {
        let optional: &[&str] = match self {
            Self::Instruction => &["input", "system", "history"],
            Self::Messages => &["tools", "documents", "chat_template_kwargs"],
            Self::PromptCompletion | Self::Tokenized | Self::Text => &[],
        };
        self.required_keys().contains(&key) || optional.contains(&key)
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
            Self::Messages(_) | Self::Tokenized { .. } | Self::Text(_) => None,
        }
    }
}
