//! Data files to typed rows.

mod columns;
mod conll;
mod files;
mod keys;
mod labelled;
mod line;
mod messages;
mod questions;
mod strict;
#[cfg(test)]
mod tests;
mod values;

use std::path::Path;

use crate::error::{Error, Result};
use crate::row::{Row, RowFormat};
use crate::task::Task;
use columns::{Columns, Purpose};
pub use files::RowsOfFile;
use files::SourceFile;
pub(crate) use keys::{UnknownKeys, rows_of};
use line::Line;
use questions::Found;
use serde_json::{Map, Value};

/// The rows of a file, each with its line number, and the name of the file for error messages; or those of several
/// files for one task ([`join`](Self::join)). There is at least one row.
#[derive(Debug, Clone, PartialEq)]
pub struct Rows {
    path: String,
    rows: Vec<(usize, Row)>,
    /// The files that the rows are from, in their order. None of them is empty.
    files: Vec<SourceFile>,
    notes: Vec<String>,
}

impl Rows {
    /// One row that stands in no file; messages use `path` as the name of one.
    pub fn single(path: &str, row: Row) -> Self {
        Self::of_file(path.to_owned(), vec![(1, row)], Vec::new())
    }

    fn of_file(path: String, rows: Vec<(usize, Row)>, notes: Vec<String>) -> Self {
        let files = vec![SourceFile::new(&path, rows.len())];
        Self {
            path,
            rows,
            files,
            notes,
        }
    }

    /// Some of the rows, by their indices.
    ///
    /// # Panics
    /// If there are no such rows.
    pub fn part(&self, range: std::ops::Range<usize>) -> Self {
        Self {
            path: self.path.clone(),
            files: self.files_of(&range),
            rows: self.rows[range].to_vec(),
            notes: Vec::new(),
        }
    }

    /// The path of the file, or the name that [`parse_rows`] was given; of several files, a name for all.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The rows with their line numbers, which start at 1. In a list that stands on one line, the numbers are those
    /// of the rows.
    pub fn rows(&self) -> &[(usize, Row)] {
        &self.rows
    }

    /// The format of all rows; of several files, that of the first.
    pub fn format(&self) -> RowFormat {
        self.rows[0].1.format()
    }

    /// The task that the rows are for.
    pub fn task(&self) -> Task {
        self.format().task()
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
/// | `context`, `question`, `answers`; optional: `id`, `title`, `is_impossible` | [`Questions`](RowFormat::Questions) |
/// | `tokens` or `words`, `tags`, `ner_tags` or `labels` | [`Tagging`](RowFormat::Tagging) |
/// | `input_ids`, `labels` | [`Tokenized`](RowFormat::Tokenized) |
/// | `input_ids`, `tags` or `ner_tags` | [`TaggingIds`](RowFormat::TaggingIds) |
/// | `input_ids`, `label` | [`ClassificationIds`](RowFormat::ClassificationIds) |
/// | `text` or `sentence`, `label` or `labels`; optional: `text_pair`; or the keys of a pair in GLUE | [`Classification`](RowFormat::Classification) |
/// | `text` | [`Text`](RowFormat::Text) |
///
/// The keys of the first row decide the format of the file. The formats are tried in the order of this
/// table, so a file with `instruction`, `output` and a rendered `text` holds instructions. Every row must
/// have the keys of that format with the right types. Other keys are not used, and [`Rows::notes`] names them.
///
/// Two kinds of files are read as they are: words and tags in columns, as in the CoNLL tasks, and the articles of SQuAD.
/// docs/data.md says how they are recognised.
///
/// # Errors
/// The file cannot be read, it has no rows, or a line is not UTF-8, not JSON, or not of the format of
/// the first row.
pub fn read_rows(path: &Path) -> Result<Rows> {
    read(path, Purpose::Learning)
}

/// Reads rows from memory. Error messages use `path` as the name of the file.
///
/// # Errors
/// See [`read_rows`].
pub fn parse_rows(path: &str, text: &str) -> Result<Rows> {
    parse(path, text.as_bytes(), Purpose::Learning)
}

/// Reads rows that are to be predicted: those of [`read_rows`] for `task`, with or without label, tags or answers,
/// which are not read. Of [`Task::CausalLm`], a `completion` or `output` that a row does not have is empty.
///
/// # Errors
/// See [`read_rows`]. The rows are for another task.
pub fn read_rows_for(path: &Path, task: Task) -> Result<Rows> {
    read(path, Purpose::Predicting(task))
}

/// Reads rows that are to be predicted from memory. Error messages use `path` as the name of the file.
///
/// # Errors
/// See [`read_rows_for`].
pub fn parse_rows_for(path: &str, text: &str, task: Task) -> Result<Rows> {
    parse(path, text.as_bytes(), Purpose::Predicting(task))
}

fn read(path: &Path, purpose: Purpose) -> Result<Rows> {
    let bytes = burn_peft_files::read(path).map_err(|error| Error::Read {
        path: error.path,
        source: error.source,
    })?;
    parse(&path.display().to_string(), &bytes, purpose)
}

fn parse(path: &str, bytes: &[u8], purpose: Purpose) -> Result<Rows> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let before = &bytes[..error.valid_up_to()];
        Error::NotUtf8 {
            path: path.to_owned(),
            line: 1 + before.iter().filter(|&&byte| byte == b'\n').count(),
        }
    })?;
    let mut reader = Reader::new(path, purpose);
    if conll::is_conll(path, text, purpose) {
        reader.rows = conll::parse(path, text, purpose)?;
    } else if values::is_document(text) {
        let document = values::Document::parse(path, text)?;
        reader.is_on_one_line = document.is_on_one_line;
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
    purpose: Purpose,
    /// The line of the first row, and the keys that it has set.
    first: Option<(usize, Columns)>,
    /// Whether a document stands on one line: the numbers are then those of the rows.
    is_on_one_line: bool,
    unknown: UnknownKeys,
    found: Found,
    notes: Vec<String>,
}

impl<'a> Reader<'a> {
    fn new(path: &'a str, purpose: Purpose) -> Self {
        Self {
            path,
            purpose,
            rows: Vec::new(),
            first: None,
            is_on_one_line: false,
            unknown: UnknownKeys::default(),
            found: Found::default(),
            notes: Vec::new(),
        }
    }

    fn push(&mut self, number: usize, object: Map<String, Value>) -> Result<()> {
        let path = self.path;
        let line = Line { path, number };
        let is_article = object.get("paragraphs").is_some_and(Value::is_array)
            && Columns::detect(&object, Purpose::Learning).is_none();
        if let (true, Purpose::Predicting(task)) = (is_article, self.purpose)
            && task != Task::Qa
        {
            return Err(Error::OtherTask {
                path: path.to_owned(),
                line: number,
                format: "an article of SQuAD".to_owned(),
                found: Task::Qa,
                task,
            });
        }
        if is_article {
            let is_labelled = self.purpose == Purpose::Learning;
            let rows = line.article(object, is_labelled, &mut self.found)?;
            for row in rows {
                let number = match self.is_on_one_line {
                    true => self.rows.len() + 1,
                    false => number,
                };
                self.rows.push((number, row));
            }
            return Ok(());
        }
        let (first_line, columns) = match self.first {
            Some(known) => known,
            None => {
                let columns = line.detect(&object, self.purpose)?;
                *self.first.insert((number, columns))
            }
        };
        let unknown = object
            .iter()
            .filter(|(key, value)| !columns.knows(key) && !value.is_null());
        self.unknown.count(unknown.map(|(key, _)| key.as_str()));
        self.rows.push((
            number,
            line.row(object, &columns, first_line, &mut self.found)?,
        ));
        Ok(())
    }

    fn finish(mut self) -> Result<Rows> {
        let path = self.path.to_owned();
        if self.rows.is_empty() {
            return Err(Error::NoRows { path });
        }
        labelled::mark_flags(&mut self.rows);
        let mut notes = self.notes;
        notes.extend(self.unknown.notes(&path, "is not used"));
        notes.extend(match self.found.moved {
            0 => None,
            1 => Some(format!(
                "{path}: 1 answer does not begin where answer_start says and was found at another place"
            )),
            moved => Some(format!(
                "{path}: {moved} answers do not begin where answer_start says and were found at other places"
            )),
        });
        Ok(Rows::of_file(path, self.rows, notes))
    }
}
