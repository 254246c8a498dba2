//! The classes that the rows of a file name.

use std::collections::BTreeSet;

use super::{Labels, ProblemType, numbered, numeral};
use crate::error::{Error, Result};
use crate::example::IGNORE_INDEX;
use crate::row::{Label, LabelValue};
use crate::rows::Rows;
use crate::task::Task;

/// The largest number of a class. It guards against numbers that are no classes, such as ids of texts.
const LARGEST: i64 = 65_535;

/// What the labels of rows are, as far as they were read. Each place is the index of the first such row.
#[derive(Default)]
struct Seen<'a> {
    names: BTreeSet<&'a str>,
    first_name: Option<(&'a str, usize)>,
    /// The first name that is no number in digits.
    first_word: Option<(&'a str, usize)>,
    numbers: BTreeSet<i64>,
    first_number: Option<(i64, usize)>,
    /// The largest number, with its place.
    largest: Option<(i64, usize)>,
    /// The smallest number, with its place.
    smallest: Option<(i64, usize)>,
    first_fraction: Option<(f64, usize)>,
    first_list: Option<usize>,
    /// The number of values of the first label.
    width: Option<usize>,
    /// The number of flags in each label.
    flags: Option<usize>,
}

pub(super) fn labels_of(rows: &Rows, asked: Option<ProblemType>) -> Result<Labels> {
    let none = |reason: &str| Error::NoClasses {
        path: rows.path().to_owned(),
        reason: reason.to_owned(),
    };
    if !matches!(rows.task(), Task::SeqCls | Task::TokenCls) {
        return Err(none("these rows have no classes"));
    }
    let asked = asked.filter(|_| rows.task() == Task::SeqCls);
    let bad = |at: usize, reason: String| rows.bad(at, reason);
    let mut seen = Seen::default();
    for (at, (_, row)) in rows.rows().iter().enumerate() {
        match (row.label(), row.tags()) {
            (Some(Label::Flags(flags)), _) if asked != Some(ProblemType::Regression) => {
                seen.first_list.get_or_insert(at);
                seen.flags = Some(flags.len());
            }
            (Some(label), _) => seen.label(at, label),
            (None, Some(tags)) => tags.iter().for_each(|tag| seen.value(at, tag)),
            (None, None) => {}
        }
    }
    let problem_type = match (asked, seen.first_fraction) {
        (Some(asked), _) => asked,
        (None, Some(_)) => ProblemType::Regression,
        (None, None) if seen.first_list.is_some() => ProblemType::MultiLabel,
        (None, None) => ProblemType::SingleLabel,
    };
    let labels = match problem_type {
        ProblemType::Regression => {
            if let (None, Some((_, at)), Some((_, fraction))) =
                (asked, seen.first_name, seen.first_fraction)
            {
                let fraction = rows.place_beside(fraction, at);
                return Err(bad(
                    at,
                    format!(
                        "the label is a name, and that of {fraction} is a fraction; labels are all numbers or all classes"
                    ),
                ));
            }
            let outputs = seen.width.ok_or_else(|| none("no row has a label"))?;
            Labels::numbered(outputs, problem_type)
        }
        ProblemType::SingleLabel | ProblemType::MultiLabel => {
            if let Some((number, at)) = seen.first_fraction {
                return Err(bad(
                    at,
                    format!(
                        "the label {number} is a fraction, and labels of {problem_type} are classes"
                    ),
                ));
            }
            let names = seen.classes(rows).map_err(|(at, reason)| bad(at, reason))?;
            Labels {
                problem_type,
                names: names.ok_or_else(|| none("no row has a label"))?,
            }
        }
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
    fn label(&mut self, at: usize, label: &'a Label) {
        match label {
            Label::One(value) => {
                self.width.get_or_insert(1);
                self.value(at, value);
            }
            Label::Several(values) | Label::Flags(values) => {
                if !values.is_empty() {
                    self.width.get_or_insert(values.len());
                }
                self.first_list.get_or_insert(at);
                values.iter().for_each(|value| self.value(at, value));
            }
        }
    }

    fn value(&mut self, at: usize, value: &'a LabelValue) {
        match value {
            LabelValue::Name(name) => {
                self.first_name.get_or_insert((name, at));
                if numeral(name).is_none() {
                    self.first_word.get_or_insert((name, at));
                }
                self.names.insert(name);
            }
            LabelValue::Number(IGNORE_INDEX) => {}
            LabelValue::Number(number) => {
                self.first_number.get_or_insert((*number, at));
                self.numbers.insert(*number);
                let extreme = |kept: &mut Option<(i64, usize)>, is_beyond: fn(i64, i64) -> bool| {
                    if kept.is_none_or(|(kept, _)| is_beyond(*number, kept)) {
                        *kept = Some((*number, at));
                    }
                };
                extreme(&mut self.largest, |number, kept| number > kept);
                extreme(&mut self.smallest, |number, kept| number < kept);
            }
            LabelValue::Fraction(number) => {
                self.first_fraction.get_or_insert((*number, at));
            }
        }
    }

    /// The names of the classes; `None` if no row has one. The error has its place.
    fn classes(&self, rows: &Rows) -> Result<Option<Vec<String>>, (usize, String)> {
        if let (Some((name, of_name)), Some((number, at))) = (self.first_word, self.first_number) {
            let of_name = rows.place_beside(of_name, at);
            return Err((
                at,
                format!(
                    "the label {number} is a number, and that of {of_name} is the name {name:?}; write all \
                     labels as names, or all as numbers"
                ),
            ));
        }
        if let Some(flags) = self.flags {
            return Ok(Some(numbered(flags)));
        }
        if !self.names.is_empty() {
            // Names in digits, and perhaps numbers, which are the same names.
            let numbers = self.numbers.iter().map(i64::to_string);
            let names = self.names.iter().map(|name| (*name).to_owned());
            let names: BTreeSet<String> = names.chain(numbers).collect();
            return Ok(Some(names.into_iter().collect()));
        }
        if let Some((number, at)) = self.smallest.filter(|(number, _)| *number < 0) {
            return Err((
                at,
                format!(
                    "the label {number} is no class; numbers of classes begin at 0, and rows without a label are to be left out"
                ),
            ));
        }
        match self.largest {
            Some((largest, at)) if largest > LARGEST => Err((
                at,
                format!(
                    "the label {largest} is above {LARGEST}, the largest number of a class; write names"
                ),
            )),
            Some((largest, _)) => Ok(Some(numbered(largest as usize + 1))),
            None => Ok(None),
        }
    }
}
