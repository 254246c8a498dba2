//! Takes the rows of a file one after the other, and reads them in parallel.

use csv::StringRecord;
use rayon::prelude::*;
use serde_json::{Map, Value};

use super::columns::{Columns, Purpose};
use super::keys::UnknownKeys;
use super::line::{Line, shown_keys};
use super::names::{ColumnNames, Renaming, Seen};
use super::questions::Found;
use super::strict::Strict;
use super::table::Header;
use super::{Rows, labelled};
use crate::error::{Error, Result};
use crate::row::Row;
use crate::task::Task;

/// The rows that are read at a time. What a row is before that is larger than the row itself.
const WINDOW: usize = 4096;
/// The rows that one thread reads at a time.
const CHUNK: usize = 128;

/// A row as it stands in a file.
#[derive(Debug)]
pub(super) enum Item<'a> {
    /// JSON, with the line on which it begins and the bytes in front of it on that line.
    Json {
        text: &'a str,
        line: usize,
        column: usize,
    },
    /// The cells of a table.
    Record(StringRecord),
    /// Values of a table that has types.
    Object(Map<String, Value>),
}

impl<'a> Item<'a> {
    /// JSON that stands on a line by itself.
    pub(super) fn line(line: usize, text: &'a str) -> Self {
        let column = 0;
        Self::Json { text, line, column }
    }
}

/// A row and its number, for messages.
type Numbered<'a> = (usize, Item<'a>);

/// Takes the rows of a file.
pub(super) struct Reader<'a> {
    pub(super) path: &'a str,
    pub(super) purpose: Purpose,
    /// What the first row has set.
    first: Option<First>,
    renaming: Renaming<'a>,
    /// The columns of a table.
    pub(super) header: Option<Header>,
    /// Whether a document stands on one line: the numbers are then those of the rows.
    pub(super) is_on_one_line: bool,
    waiting: Vec<Numbered<'a>>,
    read: Read,
    pub(super) notes: Vec<String>,
}

/// The format of a file, and the number of the row that says so.
#[derive(Debug, Clone, Copy)]
struct First {
    number: usize,
    columns: Columns,
}

/// What was read of some rows.
#[derive(Debug, Default)]
struct Read {
    rows: Vec<(usize, Row)>,
    unknown: UnknownKeys,
    found: Found,
    seen: Seen,
}

impl<'a> Reader<'a> {
    pub(super) fn new(path: &'a str, purpose: Purpose, names: Option<&'a ColumnNames>) -> Self {
        Self {
            path,
            purpose,
            first: None,
            renaming: Renaming::new(names),
            header: None,
            is_on_one_line: false,
            waiting: Vec::new(),
            read: Read::default(),
            notes: Vec::new(),
        }
    }

    pub(super) fn names(&self) -> Option<&'a ColumnNames> {
        self.renaming.names()
    }

    /// Takes rows that need no more reading.
    pub(super) fn add(&mut self, rows: Vec<(usize, Row)>) {
        self.read.rows = rows;
    }

    /// Takes a row.
    pub(super) fn take(&mut self, number: usize, item: Item<'a>) -> Result<()> {
        if self.first.is_none() {
            return self.detect(number, item);
        }
        self.waiting.push((number, item));
        match self.waiting.len() < WINDOW {
            true => Ok(()),
            false => self.read_waiting(),
        }
    }

    /// Reads a row of a file whose format is not known yet.
    fn detect(&mut self, number: usize, item: Item<'a>) -> Result<()> {
        let line = self.line(number);
        let mut object = self.object(number, item)?;
        if is_article(&object) {
            let mut read = std::mem::take(&mut self.read);
            let rows = line.article(object, self.purpose, &mut read.found)?;
            for row in rows {
                let number = match self.is_on_one_line {
                    true => read.rows.len() + 1,
                    false => number,
                };
                read.rows.push((number, row));
            }
            self.read = read;
            return Ok(());
        }
        let keys = shown_keys(&object);
        let seen = self.renaming.apply_names(&mut object);
        let detected = line.detect(&object, &mut self.renaming, self.purpose);
        let columns = detected.map_err(|error| match self.renaming.unseen(seen)[..] {
            [] => error,
            [column, ..] => line.bad(format!(
                "data.columns names the column {column:?}, and there is none; there are {keys}"
            )),
        })?;
        self.first = Some(First { number, columns });
        let mut read = std::mem::take(&mut self.read);
        self.row(number, object, seen, &mut read)?;
        self.read = read;
        Ok(())
    }

    fn line(&self, number: usize) -> Line<'a> {
        Line {
            path: self.path,
            number,
        }
    }

    fn read_waiting(&mut self) -> Result<()> {
        let waiting = std::mem::take(&mut self.waiting);
        let read = |items: Vec<Numbered<'a>>| {
            let mut read = Read::default();
            for (number, item) in items {
                let mut object = self.object(number, item)?;
                if is_article(&object) {
                    let line = self.line(number);
                    let rows = line.article(object, self.purpose, &mut read.found)?;
                    read.rows.extend(rows.into_iter().map(|row| (number, row)));
                    continue;
                }
                let seen = self.renaming.apply_names(&mut object);
                self.row(number, object, seen, &mut read)?;
            }
            Ok(read)
        };
        let chunks: Vec<Result<Read>> = waiting.into_par_iter().chunks(CHUNK).map(read).collect();
        for chunk in chunks {
            self.read.add(chunk?);
        }
        Ok(())
    }

    /// The keys and values of a row.
    fn object(&self, number: usize, item: Item<'a>) -> Result<Map<String, Value>> {
        let line = self.line(number);
        match item {
            Item::Json {
                text,
                line: begins,
                column,
            } => {
                let Strict(value) = serde_json::from_str(text).map_err(|error| {
                    let before = if error.line() == 1 { column } else { 0 };
                    let line = self.line(begins + error.line() - 1);
                    line.not_json(&error, before + error.column())
                })?;
                line.expect_object(value)
            }
            Item::Record(record) => {
                let header = self.header.as_ref().expect("a table has a header");
                header.object(&record).map_err(|reason| line.bad(reason))
            }
            Item::Object(object) => Ok(object),
        }
    }

    /// Reads a row with the keys that the first one has set.
    fn row(
        &self,
        number: usize,
        mut object: Map<String, Value>,
        seen: Seen,
        read: &mut Read,
    ) -> Result<()> {
        let first = self.first.as_ref().expect("the first row was read");
        let columns = &first.columns;
        self.renaming.apply_spelling(&mut object);
        let unknown = object.iter().filter(|(key, value)| {
            !value.is_null() && !columns.knows(&object, key) && !self.renaming.uses(key)
        });
        read.unknown.count(unknown.map(|(key, _)| key.as_str()));
        read.seen |= seen;
        let line = self.line(number);
        let row = line.row(object, columns, first.number, &mut read.found)?;
        read.rows.push((number, row));
        Ok(())
    }

    /// The rows of the file.
    pub(super) fn finish(mut self) -> Result<Rows> {
        self.read_waiting()?;
        let path = self.path.to_owned();
        if self.read.rows.is_empty() {
            return Err(Error::NoRows { path });
        }
        if let (Purpose::Learning, Some(first)) = (self.purpose, self.first)
            && let [column, ..] = self.renaming.unseen(self.read.seen)[..]
        {
            let line = self.line(first.number);
            return Err(line.bad(format!(
                "data.columns names the column {column:?}, and no row of the file has it"
            )));
        }
        labelled::mark_flags(&mut self.read.rows);
        let mut notes = self.notes;
        notes.extend(self.read.unknown.notes(&path, "is not used"));
        notes.extend(match self.read.found.moved {
            0 => None,
            1 => Some(format!(
                "{path}: 1 answer does not begin where answer_start says and was found at another place"
            )),
            moved => Some(format!(
                "{path}: {moved} answers do not begin where answer_start says and were found at other places"
            )),
        });
        Ok(Rows::of_file(path, self.read.rows, notes))
    }
}

impl Read {
    /// Adds what was read of the rows behind these.
    fn add(&mut self, mut behind: Self) {
        self.rows.append(&mut behind.rows);
        self.unknown.merge(behind.unknown);
        self.found.moved += behind.found.moved;
        self.seen |= behind.seen;
    }
}

/// Whether an object is an article of SQuAD.
fn is_article(object: &Map<String, Value>) -> bool {
    object.get("paragraphs").is_some_and(Value::is_array)
        && Columns::detect(object, Purpose::Learning).is_none()
}

impl Line<'_> {
    /// Reads an article of SQuAD, unless other rows are to be predicted.
    fn article(
        &self,
        object: Map<String, Value>,
        purpose: Purpose,
        found: &mut Found,
    ) -> Result<Vec<Row>> {
        match purpose {
            Purpose::Predicting(task) if task != Task::Qa => Err(Error::OtherTask {
                path: self.path.to_owned(),
                line: self.number,
                format: "an article of SQuAD".to_owned(),
                found: Task::Qa,
                task,
            }),
            purpose => self.questions(object, purpose == Purpose::Learning, found),
        }
    }
}
