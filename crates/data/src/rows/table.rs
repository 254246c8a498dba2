//! Tables of text: a header, and cells with commas, semicolons or tabs between them (CSV, TSV).

use std::path::Path;

use csv::{ErrorKind, ReaderBuilder, StringRecord};
use serde_json::{Map, Value};

use super::columns::Purpose;
use super::line::Line;
use super::names::{ColumnNames, Renaming};
use super::reader::{Item, Reader};
use super::strict::Strict;
use crate::error::Result;

/// Fields that are no text. Their cells hold JSON.
const JSON: [&str; 19] = [
    "answers",
    "assistant_masks",
    "attention_mask",
    "chat_template_kwargs",
    "completion_mask",
    "conversation",
    "conversations",
    "documents",
    "functions",
    "history",
    "input_ids",
    "is_impossible",
    "messages",
    "ner_tags",
    "paragraphs",
    "tags",
    "tokens",
    "tools",
    "words",
];

/// Fields whose cells are names, numbers, or lists of these in JSON.
const LABELS: [&str; 2] = ["label", "labels"];

/// The character between the cells of a file, if it is a table: by its name; of a file named `.tsv`, also by its header,
/// because words and tags in columns are named so, too.
pub(super) fn delimiter(
    name: &str,
    text: &str,
    purpose: Purpose,
    names: Option<&ColumnNames>,
) -> Option<u8> {
    let extension = Path::new(name).extension().unwrap_or_default();
    let header = text
        .lines()
        .find(|line| !line.trim().is_empty())
        .unwrap_or_default();
    match extension.to_string_lossy().to_lowercase().as_str() {
        // Spreadsheets write semicolons where the comma stands in numbers.
        "csv" if header.contains(',') => Some(b','),
        "csv" => [b';', b'\t']
            .into_iter()
            .find(|&end| header.contains(char::from(end)))
            .or(Some(b',')),
        "tsv" => {
            let cells = header.split('\t').map(|cell| cell.trim().trim_matches('"'));
            let cells = cells.map(|cell| (cell.to_owned(), Value::Null));
            let mut object = Map::from_iter(cells);
            let mut renaming = Renaming::new(names);
            renaming.apply_names(&mut object);
            renaming.detect(&object, purpose).map(|_| b'\t')
        }
        _ => None,
    }
}

/// Hands the rows of a table on, with the lines on which they begin.
pub(super) fn read(text: &str, delimiter: u8, reader: &mut Reader<'_>) -> Result<()> {
    let path = reader.path;
    let mut table = ReaderBuilder::new()
        .delimiter(delimiter)
        .from_reader(text.as_bytes());
    let bad = |number: usize, reason: String| Line { path, number }.bad(reason);
    let header = table.headers().map_err(|error| bad(1, error.to_string()))?;
    let header = Header::new(header, reader.names()).map_err(|reason| bad(1, reason))?;
    let columns = header.0.len();
    reader.header = Some(header);
    let mut record = StringRecord::new();
    let mut line = 1;
    loop {
        let more = table.read_record(&mut record).map_err(|error| {
            let at = error.position().map_or(line, |position| position.line() as usize);
            match error.kind() {
                ErrorKind::UnequalLengths { len, .. } => bad(
                    at,
                    format!(
                        "{len} cells, and the header has {columns}; put quotes around a text with the separator in it"
                    ),
                ),
                _ => bad(at, error.to_string()),
            }
        })?;
        if !more {
            return Ok(());
        }
        line = record
            .position()
            .map_or(line, |position| position.line() as usize);
        reader.take(line, Item::Record(std::mem::take(&mut record)))?;
    }
}

/// The columns of a table, each with its name and with what its cells are.
#[derive(Debug)]
pub(super) struct Header(Vec<(String, Cell)>);

/// What a cell is.
#[derive(Debug, Clone, Copy)]
enum Cell {
    Text,
    Json,
    Label,
    /// Of a column without a name, which is the number of the row where pandas wrote it.
    Nothing,
}

impl Header {
    fn new(header: &StringRecord, names: Option<&ColumnNames>) -> Result<Self, String> {
        let mut columns: Vec<(String, Cell)> = Vec::with_capacity(header.len());
        for name in header {
            if !name.is_empty() && columns.iter().any(|(known, _)| known == name) {
                return Err(format!("two columns are called {name:?}"));
            }
            let usual = name.trim().to_lowercase();
            let field = names.and_then(|names| names.field(name));
            let cell = match field.unwrap_or(&usual) {
                "" => Cell::Nothing,
                field if JSON.contains(&field) => Cell::Json,
                field if LABELS.contains(&field) => Cell::Label,
                _ => Cell::Text,
            };
            columns.push((name.to_owned(), cell));
        }
        Ok(Self(columns))
    }

    /// The row that cells are, or what is wrong with one.
    pub(super) fn object(&self, record: &StringRecord) -> Result<Map<String, Value>, String> {
        let mut object = Map::new();
        for ((name, cell), text) in self.0.iter().zip(record) {
            let value = match cell {
                Cell::Nothing => continue,
                Cell::Text => Value::String(text.to_owned()),
                Cell::Label => label(text),
                Cell::Json => json(text).map_err(|reason| format!("{name:?} {reason}"))?,
            };
            object.insert(name.clone(), value);
        }
        Ok(object)
    }
}

/// A label: a list or a number in JSON, or else a name.
fn label(text: &str) -> Value {
    let is_value = |value: &Value| value.is_number() || value.is_array();
    match serde_json::from_str::<Strict>(text) {
        Ok(Strict(value)) if is_value(&value) => value,
        _ if text.trim().is_empty() => Value::Null,
        _ => Value::String(text.to_owned()),
    }
}

/// A value in JSON. A text that is no list and no object stays one, and an empty cell is nothing.
fn json(text: &str) -> Result<Value, String> {
    match (text.trim(), serde_json::from_str::<Strict>(text)) {
        ("", _) => Ok(Value::Null),
        ("true" | "True", _) => Ok(Value::Bool(true)),
        ("false" | "False", _) => Ok(Value::Bool(false)),
        (_, Ok(Strict(value))) => Ok(value),
        (text, Err(error)) if text.starts_with(['[', '{']) => Err(format!(
            "is a list or an object, and not JSON: {error}; write it with `json.dumps`"
        )),
        (text, Err(_)) => Ok(Value::String(text.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use crate::row::{Label, LabelValue, Row};
    use crate::rows::{Rows, parse_rows};

    fn rows(path: &str, text: &str) -> Rows {
        parse_rows(path, text).expect("good rows")
    }

    fn pairs(rows: &Rows) -> Vec<(usize, String, String)> {
        let pair = |(line, row): &(usize, Row)| {
            let (prompt, answer) = row.prompt_and_answer().expect("a prompt and an answer");
            (*line, prompt.into_owned(), answer.to_owned())
        };
        rows.rows().iter().map(pair).collect()
    }

    fn message_of(path: &str, text: &str) -> String {
        parse_rows(path, text).expect_err("bad rows").to_string()
    }

    #[test]
    fn cells_in_quotes_have_commas_quotes_and_lines_and_rows_have_their_lines() {
        let text = "\u{feff}prompt,completion\r\n\"a, \"\"b\"\"\",\"c\nd\"\r\n\r\ne,\r\n";
        let expected = [
            (2, "a, \"b\"".to_owned(), "c\nd".to_owned()),
            (5, "e".to_owned(), String::new()),
        ];
        assert_eq!(pairs(&rows("rows.csv", text)), expected);
    }

    #[test]
    fn semicolons_and_tabs_stand_between_cells_too() {
        for (path, text) in [
            ("a.csv", "completion;prompt\nb;a\n"),
            ("a.csv", "Completion\tPrompt\nb\ta\n"),
            ("a.TSV", "completion\tprompt\nb\ta\n"),
        ] {
            assert_eq!(
                pairs(&rows(path, text)),
                [(2, "a".to_owned(), "b".to_owned())]
            );
        }
    }

    #[test]
    fn labels_are_numbers_lists_or_names() {
        let text = "text,label\na,3\nb,0.5\nc,\"[1, 2]\"\nd,good\ne,007\n";
        let rows = rows("rows.csv", text);
        let labels: Vec<_> = rows
            .rows()
            .iter()
            .map(|(_, row)| row.label().cloned())
            .collect();
        let one = |value| Some(Label::One(value));
        let name = |name: &str| one(LabelValue::Name(name.to_owned()));
        let several = vec![LabelValue::Number(1), LabelValue::Number(2)];
        assert_eq!(
            labels,
            [
                one(LabelValue::Number(3)),
                one(LabelValue::Fraction(0.5)),
                Some(Label::Several(several)),
                name("good"),
                name("007"),
            ]
        );
    }

    #[test]
    fn lists_and_objects_are_json() {
        let turns =
            r#"[{""role"":""user"",""content"":""a""},{""role"":""assistant"",""content"":""b""}]"#;
        let rows = rows("rows.csv", &format!(",messages,tools\n0,\"{turns}\",\n"));
        assert!(matches!(&rows.rows()[0].1, Row::Messages(chat) if chat.messages.len() == 2));
        assert!(rows.notes().is_empty(), "{:?}", rows.notes());
        let message = message_of("rows.csv", "messages\n[{'role': 'user'}]\n");
        assert!(
            message.starts_with("rows.csv:2: \"messages\" is a list or an object, and not JSON"),
            "{message}"
        );
    }

    #[test]
    fn what_is_wrong_in_a_table_has_its_line() {
        for (text, expected) in [
            (
                "prompt,completion\na,b\n\"c\nd\"\n",
                "rows.csv:3: 1 cells, and the header has 2",
            ),
            (
                "prompt,prompt\na,b\n",
                "rows.csv:1: two columns are called \"prompt\"",
            ),
            ("prompt,completion\n", "rows.csv: no rows"),
            (
                "frage,antwort\na,b\n",
                "rows.csv:2: no known format has the keys [\"frage\", \"antwort\"]",
            ),
            ("text,label\na,\n", "rows.csv:2: \"label\" must be a name"),
        ] {
            let message = message_of("rows.csv", text);
            assert!(message.starts_with(expected), "{message}");
        }
    }
}
