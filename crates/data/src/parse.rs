//! The reading of a data file: every check of a line, and the message where it fails.

use serde_json::{Map, Value};

use crate::chat::Message;
use crate::error::{Error, Result};
use crate::rows::{Row, RowFormat, Rows};

/// Reads JSON lines; `path` is what messages call them.
pub(crate) fn parse(path: &str, bytes: &[u8]) -> Result<Rows> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut rows = Vec::new();
    let mut first: Option<(usize, RowFormat)> = None;
    for (index, bytes) in bytes.split(|&byte| byte == b'\n').enumerate() {
        let at = At {
            path,
            line: index + 1,
        };
        let text = std::str::from_utf8(bytes).map_err(|_| at.not_utf8())?;
        if text.trim().is_empty() {
            continue;
        }
        let object = at.object(text)?;
        let (first_line, format) = match first {
            Some(known) => known,
            None => *first.insert((at.line, at.detect(&object)?)),
        };
        if let Some(key) = format
            .required_keys()
            .iter()
            .find(|key| !object.contains_key(**key))
        {
            return Err(at.bad(format!(
                "no \"{key}\"; the first row (line {first_line}) is {format}, and every row must be"
            )));
        }
        rows.push((at.line, at.row(object, format)?));
    }
    if rows.is_empty() {
        return Err(Error::NoRows {
            path: path.to_owned(),
        });
    }
    Ok(Rows::new(path, rows))
}

/// A line of a file: the place every message of this module names.
struct At<'a> {
    path: &'a str,
    line: usize,
}

impl At<'_> {
    fn not_utf8(&self) -> Error {
        Error::NotUtf8 {
            path: self.path.to_owned(),
            line: self.line,
        }
    }

    fn bad(&self, reason: String) -> Error {
        Error::BadRow {
            path: self.path.to_owned(),
            line: self.line,
            reason,
        }
    }

    fn object(&self, text: &str) -> Result<Map<String, Value>> {
        let value = serde_json::from_str(text).map_err(|error| {
            // The parser counts lines of this one row; its own " at line 1 column 9" would mislead.
            let message = error.to_string();
            let reason = message.split(" at line ").next().unwrap_or(&message);
            Error::NotJson {
                path: self.path.to_owned(),
                line: self.line,
                column: error.column(),
                reason: reason.to_owned(),
            }
        })?;
        match value {
            Value::Object(object) => Ok(object),
            other => Err(self.bad(format!(
                "expected a JSON object, found {}; write one object a line, without a surrounding list",
                kind(&other)
            ))),
        }
    }

    fn detect(&self, object: &Map<String, Value>) -> Result<RowFormat> {
        let has = |keys: &[&str]| keys.iter().all(|key| object.contains_key(*key));
        let classification = if has(&["text", "label"]) {
            Some(r#"{"text","label"}"#)
        } else if has(&["tokens", "tags"]) {
            Some(r#"{"tokens","tags"}"#)
        } else {
            None
        };
        let found = RowFormat::ALL
            .into_iter()
            .find(|format| has(format.required_keys()));
        match (found, classification) {
            (None | Some(RowFormat::Text), Some(format)) => Err(Error::Classification {
                path: self.path.to_owned(),
                line: self.line,
                format,
            }),
            (Some(format), _) => Ok(format),
            (None, None) => Err(Error::UnknownFormat {
                path: self.path.to_owned(),
                line: self.line,
                keys: format!("{:?}", object.keys().collect::<Vec<_>>()),
                formats: RowFormat::ALL.map(|format| format.to_string()).join(", "),
            }),
        }
    }

    fn row(&self, mut object: Map<String, Value>, format: RowFormat) -> Result<Row> {
        Ok(match format {
            RowFormat::PromptCompletion => Row::PromptCompletion {
                prompt: self.string(&mut object, "prompt")?,
                completion: self.string(&mut object, "completion")?,
            },
            RowFormat::Instruction => Row::Instruction {
                instruction: self.string(&mut object, "instruction")?,
                input: match object.get("input") {
                    None | Some(Value::Null) => None,
                    Some(_) => {
                        Some(self.string(&mut object, "input")?).filter(|input| !input.is_empty())
                    }
                },
                output: self.string(&mut object, "output")?,
            },
            RowFormat::Messages => Row::Messages(self.messages(&object["messages"])?),
            RowFormat::Tokenized => self.tokenized(&object)?,
            RowFormat::Text => Row::Text(self.string(&mut object, "text")?),
        })
    }

    fn string(&self, object: &mut Map<String, Value>, key: &str) -> Result<String> {
        match object.get_mut(key).map(Value::take) {
            Some(Value::String(text)) => Ok(text),
            other => Err(self.bad(format!(
                "\"{key}\" must be a string, found {}",
                other.as_ref().map_or("nothing", kind)
            ))),
        }
    }

    fn messages(&self, value: &Value) -> Result<Vec<Message>> {
        let list = self.list(value, "messages")?;
        if list.is_empty() {
            return Err(self.bad("\"messages\" is empty; it needs at least one turn".to_owned()));
        }
        let field = |index: usize, message: &Value, key: &str| match message.get(key) {
            Some(Value::String(text)) => Ok(text.clone()),
            other => Err(self.bad(format!(
                "messages[{index}].{key} must be a string, found {}",
                other.map_or("nothing", kind)
            ))),
        };
        let turn = |(index, message): (usize, &Value)| {
            Ok(Message {
                role: field(index, message, "role")?,
                content: field(index, message, "content")?,
            })
        };
        list.iter().enumerate().map(turn).collect()
    }

    fn tokenized(&self, object: &Map<String, Value>) -> Result<Row> {
        let numbers = |key: &str| -> Result<Vec<i64>> {
            let number = |(index, value): (usize, &Value)| {
                value.as_i64().ok_or_else(|| {
                    self.bad(format!(
                        "{key}[{index}] must be a whole number, found {}",
                        kind(value)
                    ))
                })
            };
            self.list(&object[key], key)?
                .iter()
                .enumerate()
                .map(number)
                .collect()
        };
        let input_ids = numbers("input_ids")?
            .into_iter()
            .enumerate()
            .map(|(index, id)| {
                u32::try_from(id).map_err(|_| {
                    self.bad(format!(
                        "input_ids[{index}] is {id}, which is not a token id"
                    ))
                })
            })
            .collect::<Result<Vec<_>>>()?;
        let labels = numbers("labels")?;
        if input_ids.len() != labels.len() {
            return Err(self.bad(format!(
                "{} input_ids and {} labels; a row needs one label for each id",
                input_ids.len(),
                labels.len()
            )));
        }
        Ok(Row::Tokenized { input_ids, labels })
    }

    fn list<'v>(&self, value: &'v Value, key: &str) -> Result<&'v Vec<Value>> {
        value
            .as_array()
            .ok_or_else(|| self.bad(format!("\"{key}\" must be a list, found {}", kind(value))))
    }
}

fn kind(value: &Value) -> &'static str {
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::rows::{parse_rows, read_rows};

    fn message_of(text: &str) -> String {
        parse_rows("train.jsonl", text)
            .expect_err("these rows are bad")
            .to_string()
    }

    fn only(text: &str) -> Row {
        let rows = parse_rows("train.jsonl", text).expect("this row is good");
        assert_eq!(rows.len(), 1);
        rows.rows()[0].1.clone()
    }

    #[test]
    fn each_format_is_recognised_by_its_keys() {
        assert!(matches!(
            only(r#"{"prompt":"a","completion":"b"}"#),
            Row::PromptCompletion { .. }
        ));
        assert!(matches!(only(r#"{"text":"a"}"#), Row::Text(text) if text == "a"));
        assert!(
            matches!(only(r#"{"messages":[{"role":"user","content":"a"}]}"#), Row::Messages(m) if m.len() == 1)
        );
        assert!(matches!(
            only(r#"{"input_ids":[1,2],"labels":[-100,2]}"#),
            Row::Tokenized { .. }
        ));
        assert!(matches!(
            only(r#"{"instruction":"a","input":"","output":"b"}"#),
            Row::Instruction { input: None, .. }
        ));
    }

    #[test]
    fn extra_keys_are_ignored_and_a_rendered_text_beside_them_does_not_win() {
        assert!(matches!(
            only(r#"{"id":7,"text":"rendered","instruction":"a","input":null,"output":"b"}"#),
            Row::Instruction { input: None, .. }
        ));
    }

    #[test]
    fn classification_formats_are_refused_in_plain_words() {
        for row in [
            r#"{"text":"a","label":1}"#,
            r#"{"tokens":["a"],"tags":["O"]}"#,
        ] {
            let message = message_of(row);
            assert!(message.starts_with("train.jsonl:1: "), "{message}");
            assert!(message.contains("not supported yet"), "{message}");
        }
    }

    #[test]
    fn unknown_keys_list_what_was_found_and_what_there_is() {
        let message = message_of(r#"{"question":"a","answer":"b"}"#);
        assert!(message.contains(r#"["question", "answer"]"#), "{message}");
        assert!(message.contains(r#"{"prompt","completion"}"#), "{message}");
    }

    #[test]
    fn a_bad_row_names_its_file_its_line_and_the_key() {
        let good = "{\"prompt\":\"a\",\"completion\":\"b\"}\n";
        let cases = [
            (
                "{\"prompt\":\"a\"}",
                "no \"completion\"; the first row (line 1)",
            ),
            (
                "{\"prompt\":3,\"completion\":\"b\"}",
                "\"prompt\" must be a string, found a number",
            ),
            ("[1]", "expected a JSON object, found a list"),
            ("{\"prompt\":\"a\",", "not JSON"),
        ];
        for (row, expected) in cases {
            let message = message_of(&format!("{good}\n{row}\n{good}"));
            assert!(message.starts_with("train.jsonl:3: "), "{message}");
            assert!(message.contains(expected), "{message}");
            assert!(!message.contains("at line 1 column"), "{message}");
        }
    }

    #[test]
    fn nested_values_are_named_by_index() {
        let cases = [
            (r#"{"messages":[]}"#, "\"messages\" is empty"),
            (
                r#"{"messages":[{"role":"user","content":null}]}"#,
                "messages[0].content must be a string, found null",
            ),
            (
                r#"{"messages":["hi"]}"#,
                "messages[0].role must be a string, found nothing",
            ),
            (
                r#"{"input_ids":[1,-2],"labels":[1,2]}"#,
                "input_ids[1] is -2",
            ),
            (
                r#"{"input_ids":[1,2.5],"labels":[1,2]}"#,
                "input_ids[1] must be a whole number, found a fraction",
            ),
            (
                r#"{"input_ids":[1,2],"labels":[1]}"#,
                "2 input_ids and 1 labels",
            ),
        ];
        for (row, expected) in cases {
            let message = message_of(row);
            assert!(message.contains(expected), "{message}");
        }
    }

    #[test]
    fn a_file_without_rows_is_an_error() {
        for text in ["", "\n", "  \n\r\n\n"] {
            assert!(
                message_of(text).contains("train.jsonl: no rows"),
                "{text:?}"
            );
        }
    }

    #[test]
    fn invalid_utf8_names_its_line() {
        let mut bytes = b"{\"text\":\"a\"}\n".to_vec();
        bytes.extend(b"{\"text\":\"\xff\"}\n");
        let error = parse("train.jsonl", &bytes).expect_err("0xff is no UTF-8");
        assert!(matches!(error, Error::NotUtf8 { line: 2, .. }), "{error}");
    }

    #[test]
    fn a_byte_order_mark_and_windows_line_ends_are_tolerated() {
        let rows = parse_rows(
            "train.jsonl",
            "\u{feff}{\"text\":\"a\"}\r\n\r\n{\"text\":\"b\"}\r\n",
        )
        .expect("good rows");
        let lines: Vec<usize> = rows.into_iter().map(|(line, _)| line).collect();
        assert_eq!(lines, [1, 3]);
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = read_rows(Path::new("no/such/rows.jsonl")).expect_err("there is no such file");
        assert!(error.to_string().contains("no/such/rows.jsonl"), "{error}");
    }
}
