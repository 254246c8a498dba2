//! Checks of one row of a data file. Every error names the file and the line.

use serde_json::{Map, Value};

use super::columns::{self, Columns, Purpose};
use super::names::Renaming;
use super::questions::Found;
use crate::error::{Error, Result};
use crate::row::{Row, RowFormat};

/// The most keys of a row that an error names.
const SHOWN_KEYS: usize = 40;

/// What is said of rows that are not learned from here.
const PREFERENCE: &str = "\"chosen\" and \"rejected\" are answers to be compared (DPO, reward models), which no method here \
     learns from; to learn to write the chosen answers, say so in run.toml: \
     data.columns = { prompt = \"prompt\", completion = \"chosen\" }";

/// The place of a line, which every error of this module names.
pub(super) struct Line<'a> {
    pub(super) path: &'a str,
    /// The number of the line, from 1.
    pub(super) number: usize,
}

impl Line<'_> {
    pub(super) fn bad(&self, reason: String) -> Error {
        Error::BadRow {
            path: self.path.to_owned(),
            line: self.number,
            reason,
        }
    }

    pub(super) fn not_json(&self, error: &serde_json::Error, column: usize) -> Error {
        // The parser's own " at line 1 column 9" would mislead.
        let message = error.to_string();
        let reason = message.rsplit_once(" at line ");
        let reason = reason.map_or(message.as_str(), |(reason, _)| reason);
        if error.is_data() {
            return self.bad(format!("{reason} (column {column})"));
        }
        Error::NotJson {
            path: self.path.to_owned(),
            line: self.number,
            column,
            reason: reason.to_owned(),
        }
    }

    pub(super) fn expect_object(&self, value: Value) -> Result<Map<String, Value>> {
        match value {
            Value::Object(object) => Ok(object),
            other => Err(self.bad(format!(
                "expected a JSON object, found {}; write one object a line, or one list of objects in the file",
                kind(&other)
            ))),
        }
    }

    /// Recognises the format of a file by the keys of its first row.
    pub(super) fn detect(
        &self,
        object: &Map<String, Value>,
        renaming: &mut Renaming<'_>,
        purpose: Purpose,
    ) -> Result<Columns> {
        let columns = renaming.detect(object, purpose);
        let is_preference = ["chosen", "rejected"]
            .iter()
            .all(|key| object.contains_key(*key));
        let is_conversation = |columns: &Columns| columns.given[0].starts_with("conversation");
        match columns {
            None if is_preference => return Err(self.bad(PREFERENCE.to_owned())),
            Some(found) if is_preference && is_conversation(&found) => {
                return Err(self.bad(PREFERENCE.to_owned()));
            }
            Some(columns) => return Ok(columns),
            None => {}
        }
        let path = self.path.to_owned();
        let line = self.number;
        if let (Purpose::Predicting(task), Some(found)) =
            (purpose, Columns::detect(object, Purpose::Learning))
        {
            return Err(Error::OtherTask {
                path,
                line,
                format: found.to_string(),
                found: found.format.task(),
                task,
            });
        }
        Err(Error::UnknownFormat {
            path,
            line,
            keys: shown_keys(object),
            formats: columns::names(purpose),
        })
    }

    /// Reads a row with the keys that row `first_line` has set.
    pub(super) fn row(
        &self,
        mut object: Map<String, Value>,
        columns: &Columns,
        first_line: usize,
        found: &mut Found,
    ) -> Result<Row> {
        let is_missing = |key: &&str| !object.contains_key(*key);
        if let Some(key) = columns.required().find(is_missing) {
            return Err(self.bad(format!(
                "no \"{key}\"; the first row (line {first_line}) is {columns}, and every row must be"
            )));
        }
        Ok(match columns.format {
            RowFormat::PromptCompletion => Row::PromptCompletion {
                prompt: self.string(&mut object, "prompt")?,
                completion: self.answer(&mut object, columns)?,
            },
            RowFormat::Instruction => Row::Instruction {
                system: self.system(&mut object)?,
                history: self.history(object.get("history"))?,
                input: match columns.input(&object) {
                    Some(key) => self.optional_string(&mut object, key)?,
                    None => None,
                },
                instruction: self.string(&mut object, columns.given[0])?,
                output: self.answer(&mut object, columns)?,
            },
            RowFormat::Messages => Row::Messages(self.conversation(object, columns)?),
            RowFormat::Tokenized => self.tokenized(&object)?,
            RowFormat::Text => Row::Text(self.string(&mut object, "text")?),
            RowFormat::Classification => self.classification(&mut object, columns)?,
            RowFormat::ClassificationIds => self.classification_ids(&object, columns)?,
            RowFormat::Tagging => self.tagging(&object, columns)?,
            RowFormat::TaggingIds => self.tagging_ids(&object, columns)?,
            RowFormat::Questions => self.question(&mut object, columns, found)?,
        })
    }

    pub(super) fn string(&self, object: &mut Map<String, Value>, key: &str) -> Result<String> {
        match object.get_mut(key).map(Value::take) {
            Some(Value::String(text)) => Ok(text),
            other => Err(self.bad(format!(
                "\"{key}\" must be a string, found {}",
                other.as_ref().map_or("nothing", kind)
            ))),
        }
    }

    /// A text to be written: empty in a row that is to be predicted and does not have it.
    fn answer(&self, object: &mut Map<String, Value>, columns: &Columns) -> Result<String> {
        match (columns.label, columns.answer(object)) {
            (Some(key), _) => self.string(object, key),
            (None, Some(key)) => Ok(self.optional_string(object, key)?.unwrap_or_default()),
            (None, None) => Ok(String::new()),
        }
    }

    /// The system text that stands beside the turns of a row. `None` if it is absent, null or empty.
    pub(super) fn system(&self, object: &mut Map<String, Value>) -> Result<Option<String>> {
        match Columns::system(object) {
            Some(key) => self.optional_string(object, key),
            None => Ok(None),
        }
    }

    /// `None` if the text is absent, null or empty.
    pub(super) fn optional_string(
        &self,
        object: &mut Map<String, Value>,
        key: &str,
    ) -> Result<Option<String>> {
        match object.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(_) => Ok(Some(self.string(object, key)?).filter(|text| !text.is_empty())),
        }
    }

    /// The earlier instructions and answers of a row, as LLaMA-Factory's Alpaca format has them.
    fn history(&self, value: Option<&Value>) -> Result<Vec<(String, String)>> {
        let pair = |(index, pair): (usize, &Value)| match pair.as_array().map(Vec::as_slice) {
            Some([Value::String(asked), Value::String(answered)]) => {
                Ok((asked.clone(), answered.clone()))
            }
            _ => Err(self.bad(format!(
                "history[{index}] must be a pair of strings, an earlier instruction and its answer"
            ))),
        };
        match value {
            None | Some(Value::Null) => Ok(Vec::new()),
            Some(Value::String(text)) if text.is_empty() => Ok(Vec::new()),
            Some(list) => {
                let list = self.list(list, "history")?;
                list.iter().enumerate().map(pair).collect()
            }
        }
    }

    pub(super) fn list<'v>(&self, value: &'v Value, key: &str) -> Result<&'v Vec<Value>> {
        value
            .as_array()
            .ok_or_else(|| self.bad(format!("\"{key}\" must be a list, found {}", kind(value))))
    }
}

/// The keys of a row, for error messages.
pub(super) fn shown_keys(object: &Map<String, Value>) -> String {
    let keys = object.keys().take(SHOWN_KEYS);
    format!("{:?}", keys.collect::<Vec<_>>())
}

pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(number) if number.is_f64() => "a fraction",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
