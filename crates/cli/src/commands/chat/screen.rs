//! How answers are shown.

use std::io::{self, IsTerminal};

use anyhow::Result;
use serde::Serialize;

use crate::output;

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum FinishReason {
    /// The model ended its turn.
    Stop,
    /// `--max-new-tokens`, or the model's longest sequence.
    Length,
    /// A signal stopped it.
    Interrupted,
}

/// An answer, as `--json` gives it.
#[derive(Debug, Serialize)]
pub(super) struct Answer<'a> {
    pub(super) role: &'static str,
    pub(super) content: &'a str,
    pub(super) finish_reason: FinishReason,
    /// The name of the adapter; null is the base alone.
    pub(super) adapter: Option<&'a str>,
    pub(super) usage: Usage,
}

/// Counts of tokens.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Usage {
    pub(super) prompt_tokens: usize,
    /// Those of the prompt that were computed for an earlier turn.
    pub(super) cached_tokens: usize,
    pub(super) completion_tokens: usize,
}

/// Standard output, as answers go there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Screen {
    json: bool,
    /// Whether it is a terminal, which must not be steered by what a model writes.
    is_terminal: bool,
    /// Whether somebody reads along, for whom answers stand apart.
    spaced: bool,
}

impl Screen {
    /// `spaced` is for somebody who types.
    pub(super) fn new(json: bool, spaced: bool) -> Self {
        Self {
            json,
            is_terminal: io::stdout().is_terminal(),
            spaced,
        }
    }

    /// A part of an answer.
    pub(super) fn part(self, text: &str) -> Result<()> {
        match self {
            Self { json: true, .. } => Ok(()),
            Self {
                is_terminal: true, ..
            } => output::print_harmless(text),
            _ => output::print(text),
        }
    }

    /// The end of an answer.
    pub(super) fn end(self, answer: &Answer<'_>) -> Result<()> {
        match self {
            Self { json: true, .. } => output::print_json(answer),
            Self { spaced: true, .. } => output::print("\n\n"),
            _ => output::print("\n"),
        }
    }

    /// A turn that gets no answer.
    pub(super) fn failed(self, error: &anyhow::Error) -> Result<()> {
        let line = output::one_line(error);
        output::say(&format!("error: {line}"));
        match self.json {
            true => output::print_json(&serde_json::json!({"error": line})),
            false => Ok(()),
        }
    }
}
