//! Data files to typed rows.

mod columns;
mod conll;
mod files;
mod keys;
mod labelled;
mod line;
mod lines;
mod messages;
mod names;
mod parquet;
mod questions;
mod reader;
mod sources;
mod strict;
mod table;
#[cfg(test)]
mod tests;
mod tokenized;
mod tools;
mod values;

use std::borrow::Cow;
use std::path::Path;

use crate::error::Result;
use crate::row::{Row, RowFormat};
use crate::task::Task;
use columns::Purpose;
use files::Kind;
pub(crate) use keys::{UnknownKeys, rows_of};
pub use names::ColumnNames;
use reader::Reader;
pub use sources::RowsOfFile;
use sources::SourceFile;

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

    /// The rows with their line numbers, which start at 1. In a list that stands on one line and in a Parquet file, the
    /// numbers are those of the rows.
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

/// Reads data files. The default reads rows to learn from, by the names that their columns have.
///
/// ```
/// use burn_peft_data::{ColumnNames, RowReader};
///
/// let names = [("prompt", "frage"), ("completion", "antwort")];
/// let names = names.map(|(field, column)| (field.to_owned(), column.to_owned()));
/// let columns = ColumnNames::try_from(std::collections::BTreeMap::from(names))?;
/// let reader = RowReader { columns: Some(&columns), task: None };
/// let rows = reader.parse("rows.csv", b"frage,antwort\n2 + 2?,4\n")?;
/// assert_eq!(rows.rows()[0].1.prompt_and_answer().unwrap().1, "4");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct RowReader<'a> {
    /// Which column of a file is which field of a row, where they have names of their own.
    pub columns: Option<&'a ColumnNames>,
    /// The task of rows that are to be predicted: with or without label, tags or answers, which are not read. Of
    /// [`Task::CausalLm`], a completion that a row does not have is empty.
    pub task: Option<Task>,
}

/// Reads a data file of rows to learn from.
///
/// The file is one JSON object a line, a JSON document that holds a list of them (alone or as the `data` of an object),
/// a CSV table with a header, or a Parquet table; each of these may be packed with gzip. Blank lines, a byte-order mark
/// and `\r\n` are accepted.
///
/// | keys | [`RowFormat`] |
/// |---|---|
/// | `prompt`, `completion` | [`PromptCompletion`](RowFormat::PromptCompletion); of lists of turns [`Messages`](RowFormat::Messages) |
/// | `instruction`, `output`; optional: `input`, `system`, `history` | [`Instruction`](RowFormat::Instruction) |
/// | `messages`: a list of `{role, content, …}`; optional: `system`, `tools`, `documents`, `chat_template_kwargs` | [`Messages`](RowFormat::Messages) |
/// | `conversations` or `conversation`: a list of `{from, value, …}` | [`Messages`](RowFormat::Messages) |
/// | `context`, `question`, `answers`; optional: `id`, `title`, `is_impossible` | [`Questions`](RowFormat::Questions) |
/// | `tokens` or `words`, `tags`, `ner_tags` or `labels` | [`Tagging`](RowFormat::Tagging) |
/// | `input_ids`, `labels` | [`Tokenized`](RowFormat::Tokenized) |
/// | `input_ids`, `tags` or `ner_tags` | [`TaggingIds`](RowFormat::TaggingIds) |
/// | `input_ids`, `label` | [`ClassificationIds`](RowFormat::ClassificationIds) |
/// | `input_ids`; optional: `completion_mask`, `assistant_masks` | [`Tokenized`](RowFormat::Tokenized) |
/// | `text` or `sentence`, `label` or `labels`; optional: `text_pair`; or the keys of a pair in GLUE | [`Classification`](RowFormat::Classification) |
/// | `instruction`, `query`, `question` or `input`, and `response`, `answer` or `output` | [`Instruction`](RowFormat::Instruction) |
/// | `prompt`, and `response`, `answer` or `output` | [`PromptCompletion`](RowFormat::PromptCompletion) |
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
/// The file cannot be read or unpacked, it has no rows, or a line is not UTF-8, not JSON, or not of the format of
/// the first row.
pub fn read_rows(path: &Path) -> Result<Rows> {
    RowReader::default().read(path)
}

/// Reads rows from memory. Error messages use `path` as the name of the file.
///
/// # Errors
/// See [`read_rows`].
pub fn parse_rows(path: &str, text: &str) -> Result<Rows> {
    RowReader::default().parse(path, text.as_bytes())
}

/// Reads rows that are to be predicted: those of [`read_rows`] for `task`, with or without label, tags or answers,
/// which are not read. Of [`Task::CausalLm`], a `completion` or `output` that a row does not have is empty.
///
/// # Errors
/// See [`read_rows`]. The rows are for another task.
pub fn read_rows_for(path: &Path, task: Task) -> Result<Rows> {
    RowReader::predicting(task).read(path)
}

/// Reads rows that are to be predicted from memory. Error messages use `path` as the name of the file.
///
/// # Errors
/// See [`read_rows_for`].
pub fn parse_rows_for(path: &str, text: &str, task: Task) -> Result<Rows> {
    RowReader::predicting(task).parse(path, text.as_bytes())
}

impl RowReader<'_> {
    /// Reads rows that are to be predicted.
    pub fn predicting(task: Task) -> Self {
        Self {
            task: Some(task),
            ..Self::default()
        }
    }

    /// Reads a file.
    ///
    /// # Errors
    /// See [`read_rows`], and [`read_rows_for`] if there is a task. No row has a column that was named.
    pub fn read(&self, path: &Path) -> Result<Rows> {
        let bytes = files::read(path)?;
        self.parse_file(&path.display().to_string(), bytes.into())
    }

    /// Reads the bytes of a file. Error messages use `path` as its name, and its end says what is in it.
    ///
    /// # Errors
    /// See [`read`](Self::read).
    pub fn parse(&self, path: &str, bytes: &[u8]) -> Result<Rows> {
        self.parse_file(path, bytes.into())
    }

    fn parse_file(&self, path: &str, bytes: Cow<'_, [u8]>) -> Result<Rows> {
        let (name, bytes) = files::unpacked(path, bytes)?;
        let purpose = self.task.map_or(Purpose::Learning, Purpose::Predicting);
        let mut reader = Reader::new(path, purpose, self.columns);
        if files::is_parquet(&bytes) {
            parquet::read(bytes.into_owned(), &mut reader)?;
            return reader.finish();
        }
        let text = files::text(path, &bytes)?;
        match files::kind(name, text, purpose, self.columns) {
            Kind::Conll => reader.add(conll::parse(path, text, purpose)?),
            Kind::Table(delimiter) => table::read(text, delimiter, &mut reader)?,
            Kind::Document => values::read(text, &mut reader)?,
            Kind::Lines => lines::read(text, &mut reader)?,
        }
        reader.finish()
    }
}
