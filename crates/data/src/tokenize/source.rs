//! The file whose rows are tokenised, and what all of its rows share.

use tokenizers::Encoding;

use super::supervise::Supervise;
use crate::error::{Error, Result};
use crate::example::Example;
use crate::row::Row;
use crate::template::Template;
use crate::tokenizer::TextTokenizer;

/// Rows with their line numbers.
pub(super) type Numbered = (usize, Row);

/// A file and how its rows are tokenised.
#[derive(Debug, Clone, Copy)]
pub(super) struct Source<'a> {
    /// The name of the file in errors.
    pub(super) path: &'a str,
    pub(super) tokenizer: &'a TextTokenizer,
    pub(super) template: Option<&'a Template>,
    /// The largest number of tokens in a row.
    pub(super) limit: usize,
    /// What is learned of a text to write.
    pub(super) supervise: Supervise,
}

/// The examples of one row.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// None, if nothing is left to learn of the row.
    pub(super) examples: Vec<Example>,
    /// What is known of a row that is longer than the limit.
    pub(super) too_long: Option<TooLong>,
}

/// A row that is longer than the limit.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct TooLong {
    /// Its tokens, where all of them are counted.
    pub(super) tokens: Option<usize>,
}

impl Source<'_> {
    /// The error of a row that is well formed and cannot be used.
    pub(super) fn bad(&self, line: usize, reason: String) -> Error {
        Error::BadRow {
            path: self.path.to_owned(),
            line,
            reason,
        }
    }

    /// The error of a row of which the cut leaves no token of `what`.
    pub(super) fn no_room(&self, line: usize, what: &str) -> Error {
        self.bad(
            line,
            format!(
                "max_length = {} leaves no room for a token of {what}; raise max_length",
                self.limit
            ),
        )
    }

    /// Says in which line an error arose, unless it concerns the model and not one row.
    pub(super) fn at(&self, line: usize, error: Error) -> Error {
        match error {
            Error::NoEos | Error::NoChatTemplate | Error::TemplateUse { .. } => error,
            error => Error::Row {
                path: self.path.to_owned(),
                line,
                source: Box::new(error),
            },
        }
    }

    /// Encodes the texts of rows, given with their lines, with byte offsets. Returns the encodings of each row.
    pub(super) fn encode(&self, rows: &[(usize, Vec<&str>)]) -> Result<Vec<Vec<Encoding>>> {
        self.encode_with(rows, TextTokenizer::encode_batch)
    }

    /// The same, with offsets in characters.
    pub(super) fn encode_by_character(
        &self,
        rows: &[(usize, Vec<&str>)],
    ) -> Result<Vec<Vec<Encoding>>> {
        self.encode_with(rows, TextTokenizer::encode_batch_by_character)
    }

    fn encode_with(
        &self,
        rows: &[(usize, Vec<&str>)],
        encode: impl Fn(&TextTokenizer, Vec<&str>) -> Result<Vec<Encoding>>,
    ) -> Result<Vec<Vec<Encoding>>> {
        let texts = rows.iter().flat_map(|(_, texts)| texts.iter().copied());
        let encodings = encode(self.tokenizer, texts.collect()).map_err(|error| {
            // The error does not name the text that failed, so encode them again one at a time.
            let fails = |text: &&str| self.tokenizer.encode(text).is_err();
            let mut lines = rows.iter();
            let line = lines.find(|(_, texts)| texts.iter().any(fails));
            self.at(line.map_or(rows[0].0, |(line, _)| *line), error)
        })?;
        let mut encodings = encodings.into_iter();
        let own = |(_, texts): &(usize, Vec<&str>)| encodings.by_ref().take(texts.len()).collect();
        Ok(rows.iter().map(own).collect())
    }

    /// Checks that the ids of a row are in the model's table.
    pub(super) fn check(&self, line: usize, ids: &[u32]) -> Result<()> {
        let checked = self.tokenizer.check_ids(ids);
        checked.map_err(|error| self.at(line, error))
    }

    /// Checks that ids of a file are in the vocabulary.
    pub(super) fn check_given(&self, line: usize, ids: &[u32]) -> Result<()> {
        let vocab = self.tokenizer.vocab_size();
        match ids.iter().position(|&id| id as usize >= vocab) {
            None => Ok(()),
            Some(index) => Err(self.bad(
                line,
                format!(
                    "input_ids[{index}] is {}, and the vocabulary has {vocab} ids",
                    ids[index]
                ),
            )),
        }
    }
}
