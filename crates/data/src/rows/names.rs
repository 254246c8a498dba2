//! Names that the columns of a file have, other than the ones that are recognised.

use std::collections::BTreeMap;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::columns::{Columns, Purpose};

/// The fields that a column can be read as.
const FIELDS: [&str; 24] = [
    "answers",
    "assistant_masks",
    "attention_mask",
    "completion",
    "completion_mask",
    "context",
    "documents",
    "history",
    "id",
    "input",
    "input_ids",
    "instruction",
    "label",
    "labels",
    "messages",
    "output",
    "prompt",
    "question",
    "system",
    "tags",
    "text",
    "text_pair",
    "tokens",
    "tools",
];

/// Which column of a file is which field of a row, as `{ prompt = "frage", completion = "antwort" }`. A dot leads into
/// a column of objects: `data.turns`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(
    try_from = "BTreeMap<String, String>",
    into = "BTreeMap<String, String>"
)]
pub struct ColumnNames(Vec<(&'static str, String)>);

impl TryFrom<BTreeMap<String, String>> for ColumnNames {
    type Error = String;

    /// # Errors
    /// A key is no field of a row.
    fn try_from(names: BTreeMap<String, String>) -> Result<Self, String> {
        let known = |(field, column): (String, String)| {
            let mut fields = FIELDS.into_iter();
            match fields.find(|known| *known == field) {
                Some(field) => Ok((field, column)),
                None => Err(format!(
                    "rows have no field `{field}`; write the field first and then the column of the file, as in \
                     {{ prompt = {field:?} }}; the fields are {}",
                    FIELDS.join(", ")
                )),
            }
        };
        let names: Result<Vec<_>, _> = names.into_iter().map(known).collect();
        names.map(Self)
    }
}

impl FromStr for ColumnNames {
    type Err = String;

    /// Reads `prompt=frage,completion=antwort`.
    ///
    /// # Errors
    /// A part has no `=`, or what stands in front of it is no field of a row.
    fn from_str(text: &str) -> Result<Self, String> {
        let pair = |part: &str| match part.split_once('=') {
            Some((field, column)) => Ok((field.trim().to_owned(), column.trim().to_owned())),
            None => Err(format!("{part:?} is not FIELD=COLUMN, as in prompt=frage")),
        };
        let pairs: Result<BTreeMap<_, _>, _> = text.split(',').map(pair).collect();
        Self::try_from(pairs?)
    }
}

impl From<ColumnNames> for BTreeMap<String, String> {
    fn from(names: ColumnNames) -> Self {
        let names = names.0.into_iter();
        names
            .map(|(field, column)| (field.to_owned(), column))
            .collect()
    }
}

impl ColumnNames {
    /// The field that a column of the file is.
    pub(super) fn field(&self, column: &str) -> Option<&'static str> {
        let mut names = self.0.iter();
        names
            .find(|(_, name)| name == column)
            .map(|(field, _)| *field)
    }

    /// Whether a key of a row is a column, or leads to one.
    fn uses(&self, key: &str) -> bool {
        let leads = |column: &str| {
            column
                .strip_prefix(key)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        self.0.iter().any(|(_, column)| leads(column))
    }

    /// The columns by number, for [`Seen`].
    pub(super) fn columns(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(_, column)| column.as_str())
    }
}

/// How the keys of a file become those that are recognised.
#[derive(Debug, Clone, Default)]
pub(super) struct Renaming<'a> {
    names: Option<&'a ColumnNames>,
    /// Keys that are known ones but for upper case and spaces, and what they are.
    respelled: Vec<(String, String)>,
}

/// Of each column that was named, whether a row has it.
pub(super) type Seen = u32;

impl<'a> Renaming<'a> {
    pub(super) fn new(names: Option<&'a ColumnNames>) -> Self {
        Self {
            names,
            respelled: Vec::new(),
        }
    }

    pub(super) fn names(&self) -> Option<&'a ColumnNames> {
        self.names
    }

    /// Recognises a format by the keys of a row, in upper or lower case.
    pub(super) fn detect(
        &mut self,
        object: &Map<String, Value>,
        purpose: Purpose,
    ) -> Option<Columns> {
        if let Some(columns) = Columns::detect(object, purpose) {
            return Some(columns);
        }
        let usual = |key: &String| key.trim().to_lowercase();
        let mut lower = Map::new();
        for (key, value) in object {
            lower.entry(usual(key)).or_insert_with(|| value.clone());
        }
        let columns = Columns::detect(&lower, purpose)?;
        let others = object.keys().filter(|key| usual(key) != **key);
        let known = others.filter(|key| columns.knows(&lower, &usual(key)));
        self.respelled = known.map(|key| (key.clone(), usual(key))).collect();
        Some(columns)
    }

    /// Gives the columns that were named the names of their fields.
    pub(super) fn apply_names(&self, object: &mut Map<String, Value>) -> Seen {
        let Some(names) = self.names else {
            return 0;
        };
        let mut seen = 0;
        let mut fields = Vec::with_capacity(names.0.len());
        for (index, (field, column)) in names.0.iter().enumerate() {
            let value = object.get(column).or_else(|| within(object, column));
            if let Some(value) = value {
                seen |= 1 << index;
                fields.push((*field, value.clone()));
            }
        }
        // A column has the one name that it was given.
        for (field, column) in &names.0 {
            object.shift_remove(column);
            object.shift_remove(*field);
        }
        for (field, value) in fields {
            object.insert(field.to_owned(), value);
        }
        seen
    }

    /// Gives keys in other letters their usual ones.
    pub(super) fn apply_spelling(&self, object: &mut Map<String, Value>) {
        for (key, usual) in &self.respelled {
            if !object.contains_key(usual)
                && let Some(value) = object.shift_remove(key)
            {
                object.insert(usual.clone(), value);
            }
        }
    }

    /// Whether a key leads to a column that was named.
    pub(super) fn uses(&self, key: &str) -> bool {
        self.names.is_some_and(|names| names.uses(key))
    }

    /// The columns that were named and that no row has.
    pub(super) fn unseen(&self, seen: Seen) -> Vec<&'a str> {
        let columns = self.names.into_iter().flat_map(ColumnNames::columns);
        let columns = columns.enumerate();
        columns
            .filter(|(index, _)| seen & (1 << index) == 0)
            .map(|(_, column)| column)
            .collect()
    }
}

/// The value to which a path of keys with dots between them leads.
fn within<'a>(object: &'a Map<String, Value>, path: &str) -> Option<&'a Value> {
    let (first, rest) = path.split_once('.')?;
    let Value::Object(inner) = object.get(first)? else {
        return None;
    };
    inner.get(rest).or_else(|| within(inner, rest))
}
