//! The classes that the rows of a file name.

use std::collections::BTreeSet;

use super::{Labels, ProblemType};
use crate::error::{Error, Result};
use crate::example::IGNORE_INDEX;
use crate::row::{Label, LabelValue};
use crate::rows::Rows;
use crate::task::Task;

/// The largest number of a class. It guards against numbers that are no classes, such as ids of texts.
const LARGEST: i64 = 65_535;

/// What the labels of a file are, as far as they were read. Each place is the line of a first one.
#[derive(Default)]
struct Seen<'a> {
    names: BTreeSet<&'a str>,
    first_name: Option<usize>,
    /// The largest number, with its line.
    largest: Option<(i64, usize)>,
    /// The smallest number, with its line.
    smallest: Option<(i64, usize)>,
    first_fraction: Option<usize>,
    first_list: Option<usize>,
    /// The number of values of the first label.
    width: Option<usize>,
}

pub(super) fn labels_of(rows: &Rows) -> Result<Labels> {
    let none = |reason: &str| Error::NoClasses {
        path: rows.path().to_owned(),
        reason: reason.to_owned(),
    };
    if !matches!(rows.task(), Task::SeqCls | Task::TokenCls) {
        return Err(none("these rows have no classes"));
    }
    let bad = |line: usize, reason: String| Error::BadRow {
        path: rows.path().to_owned(),
        line,
        reason,
    };
    let mut seen = Seen::default();
    for (line, row) in rows.rows() {
        match (row.label(), row.tags()) {
            (Some(label), _) => seen.label(*line, label),
            (None, Some(tags)) => tags.iter().for_each(|tag| seen.value(*line, tag)),
            (None, None) => {}
        }
    }
    if let Some(fraction) = seen.first_fraction {
        if let Some(line) = seen.first_name {
            return Err(bad(
                line,
                format!(
                    "the label is a name, and that of line {fraction} is a fraction; labels are all numbers or all classes"
                ),
            ));
        }
        let outputs = seen.width.unwrap_or(1);
        let labels = Labels::numbered(outputs, ProblemType::Regression);
        labels.check(rows)?;
        return Ok(labels);
    }
    if let Some((number, line)) = seen.smallest.filter(|(number, _)| *number < 0) {
        return Err(bad(
            line,
            format!(
                "the label {number} is no class; numbers of classes begin at 0, and rows without a label are to be left out"
            ),
        ));
    }
    let problem_type = match seen.first_list {
        Some(_) => ProblemType::MultiLabel,
        None => ProblemType::SingleLabel,
    };
    let labels = match (seen.names.is_empty(), seen.largest) {
        (false, _) => Labels {
            problem_type,
            names: seen.names.iter().map(|name| (*name).to_owned()).collect(),
        },
        (true, Some((largest, line))) if largest > LARGEST => {
            return Err(bad(
                line,
                format!(
                    "the label {largest} is above {LARGEST}, the largest number of a class; write names"
                ),
            ));
        }
        (true, Some((largest, _))) => Labels::numbered(largest as usize + 1, problem_type),
        (true, None) => return Err(none("no row has a label")),
    };
    if problem_type == ProblemType::SingleLabel && labels.len() == 1 {
        return Err(none(&format!(
            "every row has the class {:?}, so there is nothing to tell apart; give rows of two classes",
            labels.names[0]
        )));
    }
    labels.check(rows)?;
    Ok(labels)
}

impl<'a> Seen<'a> {
    fn label(&mut self, line: usize, label: &'a Label) {
        match label {
            Label::One(value) => {
                self.width.get_or_insert(1);
                self.value(line, value);
            }
            Label::Several(values) => {
                if !values.is_empty() {
                    self.width.get_or_insert(values.len());
                }
                self.first_list.get_or_insert(line);
                values.iter().for_each(|value| self.value(line, value));
            }
        }
    }

    fn value(&mut self, line: usize, value: &'a LabelValue) {
        match value {
            LabelValue::Name(name) => {
                self.first_name.get_or_insert(line);
                self.names.insert(name);
            }
            LabelValue::Number(IGNORE_INDEX) => {}
            LabelValue::Number(number) => {
                let extreme = |kept: &mut Option<(i64, usize)>, is_beyond: fn(i64, i64) -> bool| {
                    if kept.is_none_or(|(kept, _)| is_beyond(*number, kept)) {
                        *kept = Some((*number, line));
                    }
                };
                extreme(&mut self.largest, |number, kept| number > kept);
                extreme(&mut self.smallest, |number, kept| number < kept);
            }
            LabelValue::Fraction(_) => {
                self.first_fraction.get_or_insert(line);
            }
        }
    }
}
