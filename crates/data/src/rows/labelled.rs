//! The labels and tags of a row.

use serde_json::{Map, Value};

use super::columns::Columns;
use super::line::{Line, kind};
use crate::error::Result;
use crate::example::IGNORE_INDEX;
use crate::row::{Label, LabelValue, Row};

/// A number of this magnitude is no label: 2^63, the first number that no `i64` has.
const TOO_LARGE: f64 = 9_223_372_036_854_775_808.0;

impl Line<'_> {
    /// Reads a text, or two, with a label.
    pub(super) fn classification(
        &self,
        object: &mut Map<String, Value>,
        columns: &Columns,
    ) -> Result<Row> {
        let text_pair = match columns.pair() {
            Some(key) => self.optional_string(object, key)?,
            None => None,
        };
        Ok(Row::Classification {
            text: self.string(object, columns.given[0])?,
            text_pair,
            label: self.label(object, columns)?,
        })
    }

    /// Reads token ids with a label.
    pub(super) fn classification_ids(
        &self,
        object: &Map<String, Value>,
        columns: &Columns,
    ) -> Result<Row> {
        let input_ids = self.unpadded_ids(object)?;
        Ok(Row::ClassificationIds {
            input_ids,
            label: self.label(object, columns)?,
        })
    }

    /// Reads words, each with a tag.
    pub(super) fn tagging(&self, object: &Map<String, Value>, columns: &Columns) -> Result<Row> {
        let key = columns.given[0];
        let word = |(index, value): (usize, &Value)| match value {
            Value::String(word) => Ok(word.clone()),
            other => Err(self.bad(format!(
                "{key}[{index}] must be a string, found {}",
                kind(other)
            ))),
        };
        let words = self.list(&object[key], key)?;
        let words: Vec<String> = words.iter().enumerate().map(word).collect::<Result<_>>()?;
        if words.is_empty() {
            return Err(self.bad(format!("\"{key}\" is empty; a row needs a word")));
        }
        let tags = self.tags(object, columns, (key, words.len()))?;
        Ok(Row::Tagging { words, tags })
    }

    /// Reads token ids, each with a tag.
    pub(super) fn tagging_ids(
        &self,
        object: &Map<String, Value>,
        columns: &Columns,
    ) -> Result<Row> {
        let input_ids = self.unpadded_ids(object)?;
        let tags = self.tags(object, columns, ("input_ids", input_ids.len()))?;
        Ok(Row::TaggingIds { input_ids, tags })
    }

    fn label(&self, object: &Map<String, Value>, columns: &Columns) -> Result<Option<Label>> {
        let Some(key) = columns.label else {
            return Ok(None);
        };
        Ok(Some(match &object[key] {
            Value::Array(values) => {
                let value = |(index, value)| self.label_value(value, &format!("{key}[{index}]"));
                Label::Several(
                    values
                        .iter()
                        .enumerate()
                        .map(value)
                        .collect::<Result<_>>()?,
                )
            }
            value => Label::One(self.label_value(value, &format!("\"{key}\""))?),
        }))
    }

    fn tags(
        &self,
        object: &Map<String, Value>,
        columns: &Columns,
        (tagged, count): (&str, usize),
    ) -> Result<Option<Vec<LabelValue>>> {
        let Some(key) = columns.label else {
            return Ok(None);
        };
        let tag = |(index, value)| {
            let place = format!("{key}[{index}]");
            match self.label_value(value, &place)? {
                LabelValue::Fraction(number) => Err(self.bad(format!(
                    "{place} is {number}; a tag is the name or the number of a class"
                ))),
                LabelValue::Number(number)
                    if number < 0 && (tagged, number) != ("input_ids", IGNORE_INDEX) =>
                {
                    Err(self.bad(format!("{place} is {number}, which is no class")))
                }
                tag => Ok(tag),
            }
        };
        let tags = self.list(&object[key], key)?;
        if tags.len() != count {
            return Err(self.bad(format!(
                "{count} {tagged} and {} {key}; a row needs a tag for each",
                tags.len()
            )));
        }
        tags.iter()
            .enumerate()
            .map(tag)
            .collect::<Result<_>>()
            .map(Some)
    }

    fn label_value(&self, value: &Value, place: &str) -> Result<LabelValue> {
        match value {
            Value::String(name) if name.trim().is_empty() => {
                Err(self.bad(format!("{place} is empty; write the name of a class")))
            }
            Value::String(name) => Ok(LabelValue::Name(name.clone())),
            Value::Number(number) => match (number.as_i64(), number.as_f64()) {
                (Some(number), _) => Ok(LabelValue::Number(number)),
                // The parser makes a fraction of a whole number that is too large.
                (None, Some(number)) if number.abs() < TOO_LARGE => {
                    Ok(LabelValue::Fraction(number))
                }
                _ => {
                    let is_negative = number.as_f64().is_some_and(f64::is_sign_negative);
                    let (beyond, bound) = match is_negative {
                        true => ("below", i64::MIN),
                        false => ("above", i64::MAX),
                    };
                    Err(self.bad(format!(
                        "{place} is {number}, which is {beyond} {bound}, the last number that a label can be"
                    )))
                }
            },
            other => Err(self.bad(format!(
                "{place} must be a name, a number, or a list of one of these, found {}",
                kind(other)
            ))),
        }
    }
}

/// Takes back what [`mark_flags`] has marked in some of the rows.
pub(super) fn unmark_flags(rows: &mut [(usize, Row)]) {
    for (_, row) in rows {
        if let Row::Classification { label, .. } | Row::ClassificationIds { label, .. } = row
            && let Some(Label::Flags(values)) = label
        {
            *label = Some(Label::Several(std::mem::take(values)));
        }
    }
}

/// Marks the labels of a file as flags, if all are lists of one length, two or more, of zeros and ones.
pub(super) fn mark_flags(rows: &mut [(usize, Row)]) {
    let mut labels = rows.iter().map(|(_, row)| row.label());
    let Some(Some(Label::Several(first))) = labels.next() else {
        return;
    };
    let width = first.len();
    let are_flags = |label: Option<&Label>| match label {
        Some(Label::Several(values)) => {
            values.len() == width && values.iter().all(|value| value.flag().is_some())
        }
        _ => false,
    };
    if width < 2 || !are_flags(rows[0].1.label()) || !labels.all(are_flags) {
        return;
    }
    for (_, row) in rows {
        if let Row::Classification { label, .. } | Row::ClassificationIds { label, .. } = row
            && let Some(Label::Several(values)) = label
        {
            *label = Some(Label::Flags(std::mem::take(values)));
        }
    }
}
