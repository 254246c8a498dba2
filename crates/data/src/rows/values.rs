//! A data file that is one JSON document and not one object a line.

use serde_json::{Deserializer, Map, Value};

use super::line::Line;
use crate::error::{Error, Result};

/// A row and the number of its line.
type Numbered = (usize, Map<String, Value>);

/// Whether a file is one document: a list, or an object that does not end on its first line or holds a list of rows.
pub(super) fn is_document(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return false;
    };
    let text = text.trim();
    let first = text.lines().next().unwrap_or_default().trim_end();
    let goes_on = first.ends_with(['{', '[', ',']) && text.lines().nth(1).is_some();
    text.starts_with('[') || (text.starts_with('{') && (goes_on || is_wrapped(first)))
}

/// Whether a line is an object with the key `data` and no format of its own.
fn is_wrapped(line: &str) -> bool {
    line[1..].trim_start().starts_with("\"data\"")
        && serde_json::from_str(line).is_ok_and(|value: Value| value["data"].is_array())
}

/// The rows of a document. In a list on one line the numbers are those of the rows.
pub(super) fn objects(path: &str, bytes: &[u8]) -> Result<Vec<Numbered>> {
    let text = std::str::from_utf8(bytes).map_err(|_| Error::NotUtf8 {
        path: path.to_owned(),
        line: 1,
    })?;
    let mut cursor = Cursor {
        path,
        text,
        at: 0,
        line: 1,
    };
    let mut rows = Vec::new();
    cursor.skip_space();
    if cursor.rest().starts_with('[') {
        cursor.list(&mut rows)?;
        cursor.end()?;
    } else {
        while !cursor.rest().is_empty() {
            let (number, value) = cursor.value()?;
            let line = Line { path, number };
            let mut object = line.expect_object(value)?;
            match object.get_mut("data").map(Value::take) {
                Some(Value::Array(list)) => {
                    let object = |(index, value)| {
                        let number = index + 1;
                        Ok((number, Line { path, number }.expect_object(value)?))
                    };
                    let list: Result<Vec<_>> = list.into_iter().enumerate().map(object).collect();
                    rows.extend(list?);
                }
                Some(other) => {
                    object.insert("data".to_owned(), other);
                    rows.push((number, object));
                }
                None => rows.push((number, object)),
            }
            cursor.skip_space();
        }
    }
    if rows.len() > 1 && rows.iter().all(|(number, _)| *number == rows[0].0) {
        for (index, (number, _)) in rows.iter_mut().enumerate() {
            *number = index + 1;
        }
    }
    Ok(rows)
}

/// A place in the document.
struct Cursor<'a> {
    path: &'a str,
    text: &'a str,
    at: usize,
    /// The line of `at`, from 1.
    line: usize,
}

impl<'a> Cursor<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn advance(&mut self, bytes: usize) {
        let passed = &self.rest()[..bytes];
        self.line += passed.bytes().filter(|&byte| byte == b'\n').count();
        self.at += bytes;
    }

    fn skip_space(&mut self) {
        let space = self.rest().len() - self.rest().trim_start().len();
        self.advance(space);
    }

    /// Takes one value and returns the line on which it begins.
    fn value(&mut self) -> Result<(usize, Value)> {
        let begins = self.line;
        let mut values = Deserializer::from_str(self.rest()).into_iter::<Value>();
        let value = match values.next() {
            Some(Ok(value)) => value,
            Some(Err(error)) => {
                let line = Line {
                    path: self.path,
                    number: begins + error.line() - 1,
                };
                let first = self.text[..self.at].rfind('\n').map_or(0, |end| end + 1);
                let before = if error.line() == 1 {
                    self.at - first
                } else {
                    0
                };
                return Err(line.not_json(&error, before + error.column()));
            }
            None => return Err(self.expected("a JSON object")),
        };
        self.advance(values.byte_offset());
        Ok((begins, value))
    }

    /// Takes a list of objects.
    fn list(&mut self, rows: &mut Vec<Numbered>) -> Result<()> {
        self.advance(1);
        self.skip_space();
        if self.rest().starts_with(']') {
            self.advance(1);
            return Ok(());
        }
        loop {
            self.skip_space();
            let (number, value) = self.value()?;
            let path = self.path;
            rows.push((number, Line { path, number }.expect_object(value)?));
            self.skip_space();
            let next = self.rest().chars().next();
            match next {
                Some(',') => self.advance(1),
                Some(']') => {
                    self.advance(1);
                    return Ok(());
                }
                _ => return Err(self.expected("`,` or `]` after a row of the list")),
            }
        }
    }

    /// Checks that nothing follows.
    fn end(&mut self) -> Result<()> {
        self.skip_space();
        match self.rest().is_empty() {
            true => Ok(()),
            false => Err(self.expected("nothing after the list")),
        }
    }

    fn expected(&self, what: &str) -> Error {
        let (path, number) = (self.path, self.line);
        let found = match self.rest().chars().next() {
            Some(character) => format!("{character:?}"),
            None => "the end of the file".to_owned(),
        };
        Line { path, number }.bad(format!("expected {what}, found {found}"))
    }
}

#[cfg(test)]
mod tests {
    use crate::rows::parse_rows;

    fn lines(text: &str) -> Vec<usize> {
        let rows = parse_rows("rows.json", text).expect("good rows");
        rows.rows().iter().map(|(line, _)| *line).collect()
    }

    fn message_of(text: &str) -> String {
        let error = parse_rows("rows.json", text).expect_err("these rows are bad");
        error.to_string()
    }

    #[test]
    fn a_list_is_read_as_its_rows() {
        let pretty = "[\n  {\n    \"text\": \"a\"\n  },\n  {\n    \"text\": \"b\"\n  }\n]\n";
        assert_eq!(lines(pretty), [2, 5]);
        assert_eq!(
            lines("\u{feff}[{\"text\":\"a\"},\r\n{\"text\":\"b\"}]"),
            [1, 2]
        );
        // On one line, rows are counted and not lines.
        assert_eq!(
            lines(r#"[{"text":"a"}, {"text":"b"}, {"text":"c"}]"#),
            [1, 2, 3]
        );
    }

    #[test]
    fn an_object_over_several_lines_is_a_row_or_holds_the_rows() {
        assert_eq!(
            lines("{\n \"text\":\n \"a\"\n}\n{\n \"text\": \"b\"\n}"),
            [1, 5]
        );
        let rows = parse_rows(
            "rows.json",
            "{\n \"data\": [\n {\"text\":\"a\"}, {\"text\":\"b\"}]}",
        );
        assert_eq!(rows.expect("good rows").rows().len(), 2);
        assert_eq!(lines(r#"{"data": [{"text":"a"}], "version": 1}"#), [1]);
    }

    #[test]
    fn what_is_wrong_in_a_document_has_its_line() {
        for (text, expected) in [
            (
                "[\n{\"text\":\"a\"},\n{\"text\":}\n]",
                "rows.json:3: not JSON",
            ),
            (
                "[\n{\"text\":\"a\"}\n{\"text\":\"b\"}]",
                "rows.json:3: expected `,` or `]`",
            ),
            ("[\n{\"text\":\"a\"}\n", "rows.json:3: expected `,` or `]`"),
            (
                "[{\"text\":\"a\"}] x",
                "rows.json:1: expected nothing after the list",
            ),
            (
                "[\n{\"text\":\"a\"},\n3]",
                "rows.json:3: expected a JSON object, found a number",
            ),
            ("[]", "rows.json: no rows"),
            ("[", "rows.json:1: expected a JSON object, found the end"),
            ("{\n\"text\": \"a\"", "rows.json:2: not JSON"),
        ] {
            let message = message_of(text);
            assert!(message.starts_with(expected), "{message}");
        }
    }
}
