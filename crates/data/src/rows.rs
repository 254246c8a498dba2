//! JSON lines to typed rows.

mod line;

use std::path::Path;

use crate::error::{Error, Result};
use crate::row::{Row, RowFormat};
use line::Line;

/// The rows of one file, each with its line number, and the name of the file for error messages.
/// There is at least one row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rows {
    path: String,
    rows: Vec<(usize, Row)>,
}

impl Rows {
    /// The path of the file, or the name that [`parse_rows`] was given.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The rows with their line numbers, which start at 1.
    pub fn rows(&self) -> &[(usize, Row)] {
        &self.rows
    }
}

/// Reads a JSON-lines file. Blank lines, a byte-order mark and `\r\n` are accepted.
///
/// | keys | [`RowFormat`] |
/// |---|---|
/// | `prompt`, `completion` | [`PromptCompletion`](RowFormat::PromptCompletion) |
/// | `instruction`, `input` (optional), `output` | [`Instruction`](RowFormat::Instruction) |
/// | `messages`: a list of `{role, content}` | [`Messages`](RowFormat::Messages) |
/// | `input_ids`, `labels` | [`Tokenized`](RowFormat::Tokenized) |
/// | `text` | [`Text`](RowFormat::Text) |
///
/// The keys of the first row decide the format of the file. The formats are tried in the order of this
/// table, so a file with `instruction`, `output` and a rendered `text` holds instructions. Every row must
/// have the keys of that format with the right types. Other keys are ignored. The classification formats
/// `{text, label}` and `{tokens, tags}` are recognised and refused by name.
///
/// # Errors
/// The file cannot be read, it has no rows, or a line is not UTF-8, not JSON, or not of the format of
/// the first row.
pub fn read_rows(path: &Path) -> Result<Rows> {
    let bytes = std::fs::read(path).map_err(|source| Error::Read {
        path: path.to_owned(),
        source,
    })?;
    parse(&path.display().to_string(), &bytes)
}

/// Reads JSON lines from memory. Error messages use `path` as the name of the file.
///
/// # Errors
/// See [`read_rows`].
pub fn parse_rows(path: &str, text: &str) -> Result<Rows> {
    parse(path, text.as_bytes())
}

fn parse(path: &str, bytes: &[u8]) -> Result<Rows> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut rows = Vec::new();
    let mut first: Option<(usize, RowFormat)> = None;
    for (index, bytes) in bytes.split(|&byte| byte == b'\n').enumerate() {
        let number = index + 1;
        let line = Line { path, number };
        let text = line.text(bytes)?;
        if text.trim().is_empty() {
            continue;
        }
        let object = line.object(text)?;
        let (first_line, format) = match first {
            Some(known) => known,
            None => *first.insert((number, line.detect(&object)?)),
        };
        rows.push((number, line.row(object, format, first_line)?));
    }
    if rows.is_empty() {
        return Err(Error::NoRows {
            path: path.to_owned(),
        });
    }
    Ok(Rows {
        path: path.to_owned(),
        rows,
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn message_of(text: &str) -> String {
        parse_rows("train.jsonl", text)
            .expect_err("these rows are bad")
            .to_string()
    }

    fn only(text: &str) -> Row {
        let rows = parse_rows("train.jsonl", text).expect("this row is good");
        assert_eq!(rows.rows().len(), 1);
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
        let lines: Vec<usize> = rows.rows().iter().map(|(line, _)| *line).collect();
        assert_eq!(lines, [1, 3]);
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = read_rows(Path::new("no/such/rows.jsonl")).expect_err("there is no such file");
        assert!(error.to_string().contains("no/such/rows.jsonl"), "{error}");
    }
}
