//! Data files to typed rows.

mod keys;
mod line;
mod messages;
mod strict;
#[cfg(test)]
mod tests;
mod values;

use std::path::Path;

use crate::error::{Error, Result};
use crate::row::{Row, RowFormat};
pub(crate) use keys::{UnknownKeys, rows_of};
use line::Line;
use serde_json::{Map, Value};

/// The rows of one file, each with its line number, and the name of the file for error messages.
/// There is at least one row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rows {
    path: String,
    rows: Vec<(usize, Row)>,
    notes: Vec<String>,
}

impl Rows {
    /// The path of the file, or the name that [`parse_rows`] was given.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The rows with their line numbers, which start at 1. In a list that stands on one line, the numbers are those
    /// of the rows.
    pub fn rows(&self) -> &[(usize, Row)] {
        &self.rows
    }

    /// What the file has and nothing reads, a sentence for each key. [`Tokenized::notes`](crate::Tokenized::notes)
    /// has these too.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }
}

/// Reads a data file: one JSON object a line, or a JSON document that holds a list of them, alone or as the `data` of
/// an object. Blank lines, a byte-order mark and `\r\n` are accepted.
///
/// | keys | [`RowFormat`] |
/// |---|---|
/// | `prompt`, `completion` | [`PromptCompletion`](RowFormat::PromptCompletion) |
/// | `instruction`, `output`; optional: `input`, `system`, `history` | [`Instruction`](RowFormat::Instruction) |
/// | `messages`: a list of `{role, content, …}`; optional: `tools`, `documents`, `chat_template_kwargs` | [`Messages`](RowFormat::Messages) |
/// | `input_ids`, `labels` | [`Tokenized`](RowFormat::Tokenized) |
/// | `text` | [`Text`](RowFormat::Text) |
///
/// The keys of the first row decide the format of the file. The formats are tried in the order of this
/// table, so a file with `instruction`, `output` and a rendered `text` holds instructions. Every row must
/// have the keys of that format with the right types. Other keys are not used, and [`Rows::notes`] names them. The
/// classification formats `{text, label}` and `{tokens, tags}` are recognised and refused by name.
///
/// # Errors
/// The file cannot be read, it has no rows, or a line is not UTF-8, not JSON, or not of the format of
/// the first row.
pub fn read_rows(path: &Path) -> Result<Rows> {
    let bytes = burn_peft_files::read(path).map_err(|error| Error::Read {
        path: error.path,
        source: error.source,
    })?;
    parse(&path.display().to_string(), &bytes)
}

/// Reads rows from memory. Error messages use `path` as the name of the file.
///
/// # Errors
/// See [`read_rows`].
pub fn parse_rows(path: &str, text: &str) -> Result<Rows> {
    parse(path, text.as_bytes())
}

fn parse(path: &str, bytes: &[u8]) -> Result<Rows> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let before = &bytes[..error.valid_up_to()];
        Error::NotUtf8 {
            path: path.to_owned(),
            line: 1 + before.iter().filter(|&&byte| byte == b'\n').count(),
        }
    })?;
    let mut reader = Reader::new(path);
    if values::is_document(text) {
        let document = values::Document::parse(path, text)?;
        reader.notes = document.notes(path);
        for (number, value) in document.rows {
            let object = Line { path, number }.expect_object(value)?;
            reader.push(number, object)?;
        }
    } else {
        for (index, text) in text.split('\n').enumerate() {
            let number = index + 1;
            let line = Line { path, number };
            if !text.trim().is_empty() {
                reader.push(number, line.object(text)?)?;
            }
        }
    }
    reader.finish()
}

/// Takes the rows of a file one after the other.
struct Reader<'a> {
    path: &'a str,
    rows: Vec<(usize, Row)>,
    /// The line of the first row, and the format that it has set.
    first: Option<(usize, RowFormat)>,
    unknown: UnknownKeys,
    notes: Vec<String>,
}

impl<'a> Reader<'a> {
    fn new(path: &'a str) -> Self {
        Self {
            path,
            rows: Vec::new(),
            first: None,
            unknown: UnknownKeys::default(),
            notes: Vec::new(),
        }
    }

    fn push(&mut self, number: usize, object: Map<String, Value>) -> Result<()> {
        let path = self.path;
        let line = Line { path, number };
        let (first_line, format) = match self.first {
            Some(known) => known,
            None => *self.first.insert((number, line.detect(&object)?)),
        };
        let unknown = object
            .iter()
            .filter(|(key, value)| !format.knows(key) && !value.is_null());
        self.unknown.count(unknown.map(|(key, _)| key.as_str()));
        self.rows
            .push((number, line.row(object, format, first_line)?));
        Ok(())
    }

    fn finish(self) -> Result<Rows> {
        let path = self.path.to_owned();
        if self.rows.is_empty() {
            return Err(Error::NoRows { path });
        }
        let mut notes = self.notes;
        notes.extend(self.unknown.notes(&path, "is not used"));
        Ok(Rows {
            notes,
            path,
            rows: self.rows,
        })
    }
}
