//! Which tokens of a row are learned, and what becomes of a row that is too long.

use super::source::{Outcome, Source, TooLong};
use crate::error::Result;
use crate::example::{Example, IGNORE_INDEX};
use crate::tokenizer::TextTokenizer;

/// What is learned of a text to write. Rows with `labels` of their own and plain texts are the same under each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Supervise {
    /// The assistant's turns of a conversation, and the completion of a prompt.
    #[default]
    Assistant,
    /// The last of the assistant's turns that are learned. Of a prompt, its completion.
    Last,
    /// Every token, prompts and the turns of others included. A turn of the assistant that a flag of the row takes out
    /// is not learned, nor is the bos in front of a row.
    All,
}

/// What becomes of a row that is longer than `max_length`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ExcessLength {
    /// It is cut. If no answer is left, the row is left out.
    #[default]
    Truncate,
    /// It is left out.
    Drop,
    /// It is an error.
    Fail,
}

/// A row before it is cut.
pub(super) struct Uncut {
    pub(super) example: Example,
    /// The first token of an answer. A cut in front of it leaves a part of a prompt alone.
    pub(super) first_answer: usize,
}

impl Uncut {
    /// Cuts the example to `limit`.
    pub(super) fn cut(self, limit: usize) -> Outcome {
        let Self {
            mut example,
            first_answer,
        } = self;
        let tokens = example.len();
        example.truncate(limit);
        let is_left = first_answer < example.len() && example.has_target();
        Outcome {
            examples: Vec::from_iter(is_left.then_some(example)),
            too_long: (tokens > limit).then_some(TooLong {
                tokens: Some(tokens),
            }),
        }
    }
}

impl ExcessLength {
    /// What becomes of the examples of a row.
    ///
    /// # Errors
    /// The row is too long, and that is an error.
    pub(super) fn apply(
        self,
        source: &Source<'_>,
        line: usize,
        outcome: &mut Outcome,
    ) -> Result<()> {
        let Some(TooLong { tokens }) = outcome.too_long else {
            return Ok(());
        };
        match self {
            Self::Truncate => Ok(()),
            Self::Drop => {
                outcome.examples.clear();
                Ok(())
            }
            Self::Fail => {
                let limit = source.limit;
                let has = match tokens {
                    Some(tokens) => {
                        format!("the row has {tokens} tokens, and max_length is {limit}")
                    }
                    None => format!("the row is longer than max_length = {limit}"),
                };
                let reason = format!(
                    "{has}; raise max_length, shorten the row, or set data.excess_length_strategy to \"truncate\" or \"drop\""
                );
                Err(source.bad(line, reason))
            }
        }
    }
}

/// Labels for every token but the bos in front.
pub(super) fn every_label(ids: &[u32], tokenizer: &TextTokenizer) -> Vec<i64> {
    let start = tokenizer.start_ids();
    let unlearned = match ids.starts_with(start) {
        true => start.len(),
        false => 0,
    };
    let label = |(position, &id): (usize, &u32)| match position < unlearned {
        true => IGNORE_INDEX,
        false => i64::from(id),
    };
    ids.iter().enumerate().map(label).collect()
}
