//! A data file that is one JSON document and not one object a line.

use serde::de::IgnoredAny;
use serde_json::{Deserializer, Map, Value};

use super::columns::{Columns, Purpose};
use super::keys::UnknownKeys;
use super::line::Line;
use super::reader::{Item, Reader};
use crate::error::{Error, Result};

/// A value of the document, not parsed yet.
#[derive(Debug, Clone, Copy)]
struct Piece<'a> {
    text: &'a str,
    /// The line on which it begins, from 1.
    line: usize,
    /// The bytes in front of it on that line.
    column: usize,
}

/// Whether a file is one document: a list, or an object that does not end on its first line or holds a list of rows.
pub(super) fn is_document(text: &str) -> bool {
    let text = text.trim();
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let first = lines.next().unwrap_or_default();
    if !first.starts_with('{') {
        return first.starts_with('[');
    }
    match serde_json::from_str::<Value>(first) {
        Ok(value) => value.as_object().is_some_and(is_wrapper),
        Err(error) if !error.is_eof() => false,
        // The first line of a document goes on in the next. A line that was cut off has another row behind it.
        Err(_) => lines.next().is_some_and(|next| {
            first.ends_with(['{', '[', ',', ':'])
                || serde_json::from_str::<Map<_, _>>(next).is_err()
        }),
    }
}

/// Whether an object is no row and holds a list of them.
fn is_wrapper(object: &Map<String, Value>) -> bool {
    object.get("data").is_some_and(Value::is_array)
        && Columns::detect(object, Purpose::Learning).is_none()
}

/// Hands the rows of a file that is a document on. Where all stand on one line, their numbers are those of the rows.
pub(super) fn read<'a>(text: &'a str, reader: &mut Reader<'a>) -> Result<()> {
    let mut cursor = Cursor {
        path: reader.path,
        text,
        at: 0,
        line: 1,
    };
    let mut rows = Vec::new();
    let mut beside = UnknownKeys::default();
    cursor.skip_space();
    if cursor.rest().starts_with('[') {
        cursor.list(&mut rows)?;
        cursor.end()?;
    } else {
        while !cursor.rest().is_empty() {
            let begin = cursor;
            let piece = cursor.value()?;
            match piece.is_wrapper() {
                true => begin.wrapped(&mut rows, &mut beside)?,
                false => rows.push(piece),
            }
            cursor.skip_space();
        }
    }
    if rows.iter().any(|row| row.text.contains("\"paragraphs\"")) {
        // SQuAD's files say which of SQuAD they are.
        beside.forget(&["version".to_owned()]);
    }
    reader.is_on_one_line = !text.trim().contains('\n');
    reader.notes = beside.beside(reader.path);
    let is_one_line = rows.len() > 1 && rows.iter().all(|row| row.line == rows[0].line);
    for (index, piece) in rows.into_iter().enumerate() {
        let Piece { text, line, column } = piece;
        let number = if is_one_line { index + 1 } else { line };
        reader.take(number, Item::Json { text, line, column })?;
    }
    Ok(())
}

impl Piece<'_> {
    fn is_wrapper(&self) -> bool {
        let parsed = || serde_json::from_str::<Map<_, _>>(self.text);
        self.text.contains("\"data\"") && parsed().is_ok_and(|object| is_wrapper(&object))
    }
}

/// A place in the document.
#[derive(Clone, Copy)]
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

    /// Takes one value.
    fn value(&mut self) -> Result<Piece<'a>> {
        let (begin, line) = (self.at, self.line);
        let before = self.text[..begin].rfind('\n').map_or(0, |end| end + 1);
        let column = begin - before;
        let mut values = Deserializer::from_str(self.rest()).into_iter::<IgnoredAny>();
        match values.next() {
            Some(Ok(IgnoredAny)) => {}
            Some(Err(error)) => {
                let place = Line {
                    path: self.path,
                    number: line + error.line() - 1,
                };
                let before = if error.line() == 1 { column } else { 0 };
                return Err(place.not_json(&error, before + error.column()));
            }
            None => return Err(self.expected("a JSON object")),
        }
        self.advance(values.byte_offset());
        Ok(Piece {
            text: &self.text[begin..self.at],
            line,
            column,
        })
    }

    /// Takes an object that holds the rows as its `data`, with the lines on which they stand.
    fn wrapped(mut self, rows: &mut Vec<Piece<'a>>, beside: &mut UnknownKeys) -> Result<()> {
        loop {
            // Past the brace or the comma, to the key.
            self.advance(1);
            self.skip_space();
            let key: Option<String> = serde_json::from_str(self.value()?.text).ok();
            self.skip_space();
            // Past the colon.
            self.advance(1);
            self.skip_space();
            match key.as_deref() {
                Some("data") => self.list(rows)?,
                key => {
                    self.value()?;
                    beside.count(key);
                }
            }
            self.skip_space();
            if !self.rest().starts_with(',') {
                return Ok(());
            }
        }
    }

    /// Takes a list.
    fn list(&mut self, rows: &mut Vec<Piece<'a>>) -> Result<()> {
        self.advance(1);
        self.skip_space();
        if self.rest().starts_with(']') {
            self.advance(1);
            return Ok(());
        }
        loop {
            self.skip_space();
            rows.push(self.value()?);
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
    fn the_rows_of_an_object_have_their_lines_and_what_is_beside_them_is_named() {
        let over_lines = "{\"version\": {\"data\": []},\n\n\"data\": [\n{\"text\":\"a\"},\n{\"text\":\n\"b\"}],\n\"n\": 1}";
        assert_eq!(lines(over_lines), [4, 5]);
        let one_row = "{\"data\": [\n{\"text\":\"a\"}\n]}";
        assert_eq!(lines(one_row), [2]);
        let on_one = r#"{"version":1,"data":[{"text":"a"},{"text":"b"}]}"#;
        assert_eq!(lines(on_one), [1, 2]);
        for text in [over_lines, on_one] {
            let rows = parse_rows("rows.json", text).expect("good rows");
            assert_eq!(
                rows.notes()[0],
                r#"rows.json: key "version" beside "data" is not used"#
            );
        }
        let bad = over_lines.replace("\n\"b\"", "\n2");
        assert!(message_of(&bad).starts_with("rows.json:5: \"text\" must be a string"));
    }

    #[test]
    fn objects_of_any_layout_are_rows() {
        for text in [
            "{ \"text\": \"a\"\n, \"n\": 1 }\n{ \"text\": \"b\"\n, \"n\": 2 }",
            "{ \"text\":\n\"a\" } {\n\"text\": \"b\" }",
            "{\n\n\"text\": \"a\"}{\"text\": \"b\"}",
        ] {
            let rows = parse_rows("rows.json", text).expect("good rows");
            assert_eq!(rows.rows().len(), 2, "{text}");
        }
        // A row that was cut off is a bad row.
        let cut = "{\"text\": \"a\"\n{\"text\": \"b\"}\n";
        assert!(message_of(cut).starts_with("rows.json:1: not JSON"));
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
            (
                "[{\"text\":\"a\"}, 3, {\"text\":\"a\"}]",
                "rows.json:2: expected a JSON object, found a number",
            ),
            (
                "[\n{\"text\":\"a\"},\n{\"text\":\"a\",\n\"text\":\"b\"}]",
                "rows.json:4: an object has the key \"text\" twice",
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
