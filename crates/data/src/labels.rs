//! The classes of a task, by name.

mod collect;
#[cfg(test)]
mod tests;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::example::{IGNORE_INDEX, RowLabel};
use crate::row::{Label, LabelValue, Row};
use crate::rows::Rows;

/// What a label of a text is; the names are those of transformers' `problem_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum ProblemType {
    /// One class of several.
    #[default]
    #[serde(rename = "single_label_classification")]
    SingleLabel,
    /// Any number of classes at once.
    #[serde(rename = "multi_label_classification")]
    MultiLabel,
    /// Numbers.
    #[serde(rename = "regression")]
    Regression,
}

impl ProblemType {
    /// All types.
    pub const ALL: [Self; 3] = [Self::SingleLabel, Self::MultiLabel, Self::Regression];

    /// The name in transformers.
    pub fn name(self) -> &'static str {
        match self {
            Self::SingleLabel => "single_label_classification",
            Self::MultiLabel => "multi_label_classification",
            Self::Regression => "regression",
        }
    }
}

impl fmt::Display for ProblemType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The classes that a head tells apart, in the order of its outputs. Of a regression, the numbers that it gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Labels {
    /// What a label is.
    pub problem_type: ProblemType,
    /// The names, each of them once.
    pub names: Vec<String>,
}

impl Labels {
    /// Classes that have numbers only: `LABEL_0`, `LABEL_1` and so on, as in transformers.
    pub fn numbered(count: usize, problem_type: ProblemType) -> Self {
        Self {
            problem_type,
            names: numbered(count),
        }
    }

    /// The classes that rows name: of their labels, or of their tags.
    ///
    /// Names are sorted by their code points, as in transformers' `run_glue.py` and `run_ner.py`. Where all are
    /// numbers of classes, there are as many classes as the largest number says, called `LABEL_0` and so on; beside
    /// names in digits, such as `"3"`, a number is such a name. A list means that a row can have several classes;
    /// [flags](Label::Flags) say it of each class. If any label is another fraction, all labels are numbers to be
    /// predicted, as many as a row has.
    ///
    /// # Errors
    /// The rows are not of [`Task::SeqCls`](crate::Task::SeqCls) or [`Task::TokenCls`](crate::Task::TokenCls), none
    /// has a label, there is only one class, or a row does not fit the others.
    pub fn of(rows: &Rows) -> Result<Self> {
        Self::of_type(rows, None)
    }

    /// [`of`](Self::of), with labels of this type, if one is given: of [`ProblemType::Regression`], whole numbers are
    /// numbers to be predicted; of the other types, numbers of classes. Tags have no type.
    ///
    /// # Errors
    /// Those of [`of`](Self::of), and a label that is not of this type.
    pub fn of_type(rows: &Rows, problem_type: Option<ProblemType>) -> Result<Self> {
        collect::labels_of(rows, problem_type)
    }

    /// The class of a name.
    pub fn class(&self, name: &str) -> Option<usize> {
        self.names.iter().position(|known| known == name)
    }

    /// Checks that every label and tag of `rows` is one of these.
    ///
    /// # Errors
    /// The first that is not, with its file and line and the name that is nearest to it.
    pub fn check(&self, rows: &Rows) -> Result<()> {
        for (index, (_, row)) in rows.rows().iter().enumerate() {
            let checked = match (row.label(), row.tags()) {
                (Some(label), _) => self.row_label(label).map(drop),
                (None, Some(tags)) => self.tag_classes(tags).map(drop),
                (None, None) => Ok(()),
            };
            checked.map_err(|reason| rows.bad(index, reason))?;
        }
        Ok(())
    }

    /// What a row's label says in terms of these classes: [`RowLabel::Unknown`] of a row without one.
    ///
    /// # Errors
    /// What is wrong with the label, as a phrase: it is no class, or not of this [`problem_type`](Self::problem_type).
    pub fn gold(&self, row: &Row) -> Result<RowLabel, String> {
        let label = row.label().map(|label| self.row_label(label));
        label.unwrap_or(Ok(RowLabel::Unknown))
    }

    /// The classes of a row's tags, or [`IGNORE_INDEX`] for a token without a tag. `None` of a row without tags.
    ///
    /// # Errors
    /// What is wrong with a tag, as a phrase.
    pub fn gold_tags(&self, row: &Row) -> Result<Option<Vec<i64>>, String> {
        row.tags().map(|tags| self.tag_classes(tags)).transpose()
    }

    fn row_label(&self, label: &Label) -> Result<RowLabel, String> {
        let values = match label {
            Label::One(value) => std::slice::from_ref(value),
            Label::Several(values) | Label::Flags(values) => values,
        };
        if let (ProblemType::MultiLabel, Label::Flags(flags)) = (self.problem_type, label) {
            if flags.len() == self.len() {
                let flags = flags.iter().map(|flag| flag.flag() == Some(true));
                return Ok(RowLabel::Classes(flags.collect()));
            }
            // Two values may be the numbers of two classes; of more, some would be there twice.
            if flags.len() > 2 {
                return Err(format!(
                    "the label has {} flags, and there are {} classes; give a flag for each class, or list the row's \
                     classes",
                    flags.len(),
                    self.len()
                ));
            }
        }
        match (self.problem_type, values) {
            (ProblemType::SingleLabel, [value]) => {
                Ok(RowLabel::Class(self.class_of(value, "label")?))
            }
            (ProblemType::SingleLabel, values) => Err(format!(
                "the label is a list of {}, and here a row has one class",
                values.len()
            )),
            (ProblemType::MultiLabel, values) => {
                let mut classes = vec![false; self.len()];
                for value in values {
                    let class = self.class_of(value, "label")?;
                    if std::mem::replace(&mut classes[class], true) {
                        return Err(format!(
                            "the class {:?} is there twice; a list of labels names the row's classes",
                            self.names[class]
                        ));
                    }
                }
                Ok(RowLabel::Classes(classes))
            }
            (ProblemType::Regression, values) if values.len() == self.len() => {
                let values: Result<_, _> = values.iter().map(number).collect();
                Ok(RowLabel::Values(values?))
            }
            (ProblemType::Regression, values) => Err(format!(
                "the label has {}, and there are {}",
                counted(values.len(), "number"),
                counted(self.len(), "output")
            )),
        }
    }

    fn tag_classes(&self, tags: &[LabelValue]) -> Result<Vec<i64>, String> {
        let class = |tag: &LabelValue| match tag {
            LabelValue::Number(IGNORE_INDEX) => Ok(IGNORE_INDEX),
            tag => self.class_of(tag, "tag").map(|class| class as i64),
        };
        tags.iter().map(class).collect()
    }

    /// The class that a number means: that of this name or, unless names are such numbers, the one with this index.
    fn class_of_number(&self, number: i64) -> Option<usize> {
        let is_index = |number: i64| usize::try_from(number).is_ok_and(|index| index < self.len());
        self.class(&number.to_string()).or_else(|| {
            let mut numerals = self.names.iter().filter_map(|name| numeral(name));
            (is_index(number) && !numerals.any(is_index)).then_some(number as usize)
        })
    }

    fn class_of(&self, value: &LabelValue, what: &str) -> Result<usize, String> {
        match value {
            LabelValue::Name(name) => self.class(name).ok_or_else(|| {
                let near = self.nearest(name);
                let near =
                    near.map_or_else(String::new, |near| format!("; did you mean {near:?}?"));
                format!(
                    "the {what} {name:?} is none of the {} classes{near}",
                    self.len()
                )
            }),
            LabelValue::Number(number) => self.class_of_number(*number).ok_or_else(|| {
                match self.names.iter().any(|name| numeral(name).is_some()) {
                    true => format!(
                        "the {what} {number} is none of the {} classes, whose names are numbers",
                        self.len()
                    ),
                    false => format!(
                        "the {what} {number} is the number of no class; there are {}, from 0",
                        self.len()
                    ),
                }
            }),
            LabelValue::Fraction(number) => Err(format!(
                "the {what} {number} is a fraction, and here a {what} is a class"
            )),
        }
    }

    /// The name to which a wrong one is near: at most a third of its characters are wrong, or one.
    fn nearest(&self, wrong: &str) -> Option<&str> {
        let most = (wrong.chars().count() / 3).max(1);
        let is_near_in_length = |name: &&String| name.len().abs_diff(wrong.len()) <= 4 * most;
        let folded = wrong.to_lowercase();
        let near = self.names.iter().filter(is_near_in_length).map(|name| {
            let changes = strsim::damerau_levenshtein(&folded, &name.to_lowercase());
            (changes, name.as_str())
        });
        let (changes, name) = near.min_by_key(|(changes, _)| *changes)?;
        (changes <= most).then_some(name)
    }

    /// The number of classes.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }
}

/// A number of things, in words.
fn counted(count: usize, what: &str) -> String {
    match count {
        1 => format!("1 {what}"),
        count => format!("{count} {what}s"),
    }
}

/// The names of classes that have numbers only.
fn numbered(count: usize) -> Vec<String> {
    (0..count).map(|class| format!("LABEL_{class}")).collect()
}

/// The number that a name is, written as JSON writes it.
fn numeral(name: &str) -> Option<i64> {
    let number = name.parse::<i64>().ok()?;
    (number.to_string() == name).then_some(number)
}

/// One number of a regression.
fn number(value: &LabelValue) -> Result<f32, String> {
    let number = match value {
        LabelValue::Fraction(number) => *number as f32,
        LabelValue::Number(number) => *number as f32,
        LabelValue::Name(name) => {
            return Err(format!(
                "the label is {name:?}, and here labels are numbers"
            ));
        }
    };
    match number.is_finite() {
        true => Ok(number),
        false => Err("the label is too large for a number of 32 bits".to_owned()),
    }
}
