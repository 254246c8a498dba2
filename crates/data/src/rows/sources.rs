//! The files that rows are from: several at once, and rows that are held out.

use std::ops::Range;

use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::index;

use super::{Rows, labelled};
use crate::error::{Error, Result};
use crate::row::{Row, RowFormat};

/// A file, the number of its rows, and how often an epoch has each of them.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct SourceFile {
    path: String,
    rows: usize,
    weight: f64,
}

impl SourceFile {
    pub(super) fn new(path: &str, rows: usize) -> Self {
        Self {
            path: path.to_owned(),
            rows,
            weight: 1.0,
        }
    }
}

/// The rows of one file.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RowsOfFile<'a> {
    /// The path of the file.
    pub path: &'a str,
    /// Its rows with their line numbers.
    pub rows: &'a [(usize, Row)],
    /// How often an epoch has each row, on average.
    pub weight: f64,
}

impl Rows {
    /// The rows of several files, one file after the other, each with its weight: how often an epoch has each of its
    /// rows, on average ([`Mix`](crate::Mix)). The files may have different formats.
    ///
    /// # Errors
    /// Two files are for different tasks.
    ///
    /// # Panics
    /// If there is no file.
    pub fn join(files: impl IntoIterator<Item = (Self, f64)>) -> Result<Self> {
        let weighted = |(mut rows, weight): (Self, f64)| {
            rows.files.iter_mut().for_each(|file| file.weight *= weight);
            rows
        };
        let mut files = files.into_iter().map(weighted);
        let mut all = files.next().expect("at least one file");
        for mut other in files {
            if all.task() != other.task() {
                return Err(Error::OtherTask {
                    path: other.path.clone(),
                    line: other.rows[0].0,
                    format: other.format().to_string(),
                    found: other.task(),
                    task: all.task(),
                });
            }
            all.rows.append(&mut other.rows);
            all.files.append(&mut other.files);
            all.notes.append(&mut other.notes);
        }
        all.path = match all.files.as_slice() {
            [_] => all.path,
            [first, second] => format!("{} and {}", first.path, second.path),
            [first, others @ ..] => format!("{} and {} other files", first.path, others.len()),
            [] => unreachable!("a file has a row"),
        };
        // Lists are flags only if those of all files are.
        labelled::unmark_flags(&mut all.rows);
        labelled::mark_flags(&mut all.rows);
        Ok(all)
    }

    /// Takes `count` rows out, which the seed chooses, and returns the rows that stay and those, both in their order.
    /// The same seed takes the same rows.
    ///
    /// # Panics
    /// If `count` is 0, or no row stays.
    pub fn hold_out(self, count: usize, seed: u64) -> (Self, Self) {
        assert!(
            (1..self.rows.len()).contains(&count),
            "both parts need a row"
        );
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        key[16..].copy_from_slice(b"burn-peft split\0");
        let mut is_taken = vec![false; self.rows.len()];
        for index in index::sample(&mut StdRng::from_seed(key), self.rows.len(), count) {
            is_taken[index] = true;
        }
        let name = format!("{} (held out)", self.path);
        let [mut kept, mut taken] = [(self.path, self.notes), (name, Vec::new())].map(|part| {
            let (path, notes) = part;
            Self {
                path,
                rows: Vec::new(),
                files: Vec::new(),
                notes,
            }
        });
        let mut rows = self.rows.into_iter().zip(is_taken);
        for file in self.files {
            let count = file.rows;
            let none = SourceFile { rows: 0, ..file };
            // Rows that are evaluated are so once each.
            taken.files.push(SourceFile {
                weight: 1.0,
                ..none.clone()
            });
            kept.files.push(none);
            for (row, is_taken) in rows.by_ref().take(count) {
                let part = if is_taken { &mut taken } else { &mut kept };
                part.rows.push(row);
                part.files.last_mut().expect("one was added").rows += 1;
            }
        }
        for part in [&mut kept, &mut taken] {
            part.files.retain(|file| file.rows > 0);
        }
        (kept, taken)
    }

    /// The formats of the files, each once.
    pub fn formats(&self) -> Vec<RowFormat> {
        let mut formats = Vec::new();
        for format in self.files().map(|file| file.rows[0].1.format()) {
            if !formats.contains(&format) {
                formats.push(format);
            }
        }
        formats
    }

    /// The rows of each file, in order.
    pub fn files(&self) -> impl Iterator<Item = RowsOfFile<'_>> {
        let mut rest = self.rows.as_slice();
        self.files.iter().map(move |file| {
            let (rows, behind) = rest.split_at(file.rows);
            rest = behind;
            RowsOfFile {
                path: &file.path,
                rows,
                weight: file.weight,
            }
        })
    }

    /// The error of a row, by its index.
    pub(crate) fn bad(&self, index: usize, reason: String) -> Error {
        let (path, line) = self.place(index);
        Error::BadRow {
            path: path.to_owned(),
            line,
            reason,
        }
    }

    /// The file and the line of a row, by its index.
    fn place(&self, index: usize) -> (&str, usize) {
        let mut first = 0;
        for file in self.files() {
            if index < first + file.rows.len() {
                return (file.path, file.rows[index - first].0);
            }
            first += file.rows.len();
        }
        (&self.path, self.rows[index].0)
    }

    /// Where a row stands, for a message about another row: "line 3", with the file if it is another one.
    pub(crate) fn place_beside(&self, index: usize, other: usize) -> String {
        let ((path, line), (of_other, _)) = (self.place(index), self.place(other));
        match path == of_other {
            true => format!("line {line}"),
            false => format!("{path}:{line}"),
        }
    }

    /// The files of a part of the rows.
    pub(super) fn files_of(&self, range: &Range<usize>) -> Vec<SourceFile> {
        let mut first = 0;
        let part = |file: &SourceFile| {
            let (start, end) = (first, first + file.rows);
            first = end;
            let rows = range.end.min(end).saturating_sub(range.start.max(start));
            SourceFile {
                rows,
                ..file.clone()
            }
        };
        let files = self.files.iter().map(part);
        files.filter(|file| file.rows > 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::Label;
    use crate::rows::parse_rows;

    fn texts(path: &str, count: usize) -> Rows {
        let lines: Vec<String> = (0..count)
            .map(|index| format!(r#"{{"text":"{path} {index}"}}"#))
            .collect();
        parse_rows(path, &lines.join("\n")).expect("good rows")
    }

    fn lines(rows: &Rows) -> Vec<(&str, Vec<usize>)> {
        let lines = |file: RowsOfFile<'_>| file.rows.iter().map(|(line, _)| *line).collect();
        rows.files().map(|file| (file.path, lines(file))).collect()
    }

    #[test]
    fn files_of_different_formats_for_one_task_are_joined_and_keep_their_lines() {
        let chat =
            r#"{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]}"#;
        let chat = parse_rows("chat.jsonl", chat).expect("a good row");
        let joined = Rows::join([(texts("a", 2), 0.5), (chat, 2.0)]).expect("one task");
        assert_eq!(joined.path(), "a and chat.jsonl");
        assert_eq!(lines(&joined), [("a", vec![1, 2]), ("chat.jsonl", vec![1])]);
        let weights: Vec<f64> = joined.files().map(|file| file.weight).collect();
        assert_eq!(weights, [0.5, 2.0]);
        assert_eq!(joined.format(), RowFormat::Text);
        assert_eq!(joined.formats(), [RowFormat::Text, RowFormat::Messages]);
        assert_eq!(joined.place(2), ("chat.jsonl", 1));
        assert_eq!(joined.place_beside(1, 0), "line 2");
        assert_eq!(joined.place_beside(1, 2), "a:2");
        assert_eq!(
            lines(&joined.part(1..3)),
            [("a", vec![2]), ("chat.jsonl", vec![1])]
        );
    }

    #[test]
    fn files_for_different_tasks_are_refused_by_name() {
        let labelled = parse_rows("b.jsonl", r#"{"text":"a","label":"x"}"#).expect("a good row");
        let error = Rows::join([(texts("a", 2), 1.0), (labelled, 1.0)]).expect_err("two tasks");
        let message = error.to_string();
        assert!(
            message.starts_with("b.jsonl:1: ") && message.contains("seq-cls"),
            "{message}"
        );
    }

    #[test]
    fn lists_of_zeros_and_ones_are_flags_only_if_those_of_all_files_are() {
        let labelled = |path: &str, label: &str| {
            let row = format!(r#"{{"text":"a","label":{label}}}"#);
            parse_rows(path, &row).expect("a good row")
        };
        let kinds = |other: &str| {
            let files = [labelled("a", "[0,1]"), labelled("b", other)];
            let joined = Rows::join(files.map(|file| (file, 1.0))).expect("one task");
            let is_flags = |(_, row): &(usize, Row)| matches!(row.label(), Some(Label::Flags(_)));
            joined.rows().iter().map(is_flags).collect::<Vec<_>>()
        };
        assert_eq!(kinds("[1,1]"), [true, true]);
        assert_eq!(kinds("[0,3]"), [false, false]);
    }

    #[test]
    fn held_out_rows_are_those_of_the_seed_and_no_other() {
        let joined = || Rows::join([(texts("a", 6), 0.5), (texts("b", 4), 0.5)]).expect("one task");
        let (kept, taken) = joined().hold_out(3, 42);
        assert!(kept.files().all(|file| file.weight == 0.5));
        assert!(taken.files().all(|file| file.weight == 1.0));
        assert_eq!((kept.rows().len(), taken.rows().len()), (7, 3));
        assert_eq!(joined().hold_out(3, 42), (kept.clone(), taken.clone()));
        assert_ne!(joined().hold_out(3, 43).1, taken);
        let mut all = [kept.rows(), taken.rows()].concat();
        let text = |(_, row): &(usize, Row)| format!("{row:?}");
        all.sort_by_key(text);
        assert_eq!(all, joined().rows());
        assert_eq!(taken.path(), "a and b (held out)");
        // A later build that resumes a run must hold out the same rows. This fails if `rand` changes them.
        assert_eq!(lines(&taken), [("a", vec![1]), ("b", vec![3, 4])]);
    }

    #[test]
    fn a_file_whose_rows_are_all_held_out_is_no_file_to_train_on() {
        let joined = Rows::join([(texts("a", 1), 1.0), (texts("b", 1), 1.0)]).expect("one task");
        let (kept, taken) = joined.hold_out(1, 0);
        assert_eq!((kept.files().count(), taken.files().count()), (1, 1));
    }
}
