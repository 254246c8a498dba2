//! Files of each format, good and bad.

mod files;
mod spellings;
mod targets;

use std::path::Path;

use super::*;
use crate::error::Error;
use crate::row::{Label, LabelValue};

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
        matches!(only(r#"{"messages":[{"role":"user","content":"a"}]}"#), Row::Messages(chat) if chat.messages.len() == 1)
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
fn a_rendered_text_beside_the_keys_of_a_format_does_not_win() {
    assert!(matches!(
        only(r#"{"id":7,"text":"rendered","instruction":"a","input":null,"output":"b"}"#),
        Row::Instruction { input: None, .. }
    ));
}

#[test]
fn unknown_keys_list_what_was_found_and_what_there_is() {
    let message = message_of(r#"{"frage":"a","antwort":"b"}"#);
    assert!(message.contains(r#"["frage", "antwort"]"#), "{message}");
    assert!(message.contains("data.columns = {"), "{message}");
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
        ("3", "expected a JSON object, found a number"),
        (
            "{\"prompt\":\"a\",\"prompt\":\"b\",\"completion\":\"c\"}",
            "an object has the key \"prompt\" twice (column",
        ),
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
            "messages[0].content must be a string, found nothing",
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
    let error = RowReader::default().parse("train.jsonl", &bytes);
    let error = error.expect_err("0xff is no UTF-8");
    assert!(matches!(error, Error::NotUtf8 { line: 2, .. }), "{error}");
    let document = b"[\n{\"text\":\"a\"},\n{\"text\":\"\xff\"}]";
    let error = RowReader::default().parse("train.json", document);
    let error = error.expect_err("0xff is no UTF-8");
    assert!(matches!(error, Error::NotUtf8 { line: 3, .. }), "{error}");
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

fn notes(text: &str) -> Vec<String> {
    let rows = parse_rows("train.jsonl", text).expect("good rows");
    rows.notes().to_vec()
}

#[test]
fn a_key_that_the_format_does_not_have_is_named_once_with_its_count() {
    let rows = concat!(
        r#"{"prompt":"a","completion":"b","id":7,"note":null}"#,
        "\n",
        r#"{"prompt":"a","completion":"b"}"#,
        "\n",
        r#"{"prompt":"a","completion":"b","id":8,"weight":0}"#,
    );
    assert_eq!(
        notes(rows),
        [
            r#"train.jsonl: key "id" in 2 rows is not used"#,
            r#"train.jsonl: key "weight" in 1 row is not used"#,
        ]
    );
    assert!(notes(r#"{"instruction":"a","output":"b","system":"c","history":[]}"#).is_empty());
    assert!(notes(r#"{"messages":[{"role":"user","content":"a"}],"tools":[]}"#).is_empty());
}

#[test]
fn an_instruction_has_its_system_text_and_its_history() {
    let row =
        only(r#"{"instruction":"a","output":"b","system":"s","history":[["c","d"],["e","f"]]}"#);
    let (prompt, answer) = row.prompt_and_answer().expect("an instruction");
    let turn = |asked: &str, answered: &str| {
        format!("\n\n### Instruction:\n{asked}\n\n### Response:\n{answered}")
    };
    let turns = [turn("c", "d"), turn("e", "f"), turn("a", "")].concat();
    assert_eq!(
        (prompt.as_ref(), answer),
        (format!("s{turns}").as_str(), "b")
    );
    let empty = only(r#"{"instruction":"a","output":"b","input":"","system":"","history":null}"#);
    let (prompt, _) = empty.prompt_and_answer().expect("an instruction");
    assert_eq!(prompt, crate::layout::instruction_prompt("a", None));
    let message = message_of(r#"{"instruction":"a","output":"b","history":[["c"]]}"#);
    assert!(message.contains("history[0] must be a pair"), "{message}");
}

#[test]
fn common_spellings_of_labels_and_tags_are_read() {
    for (row, text, pair) in [
        (r#"{"text":"a","label":1}"#, "a", None),
        (r#"{"text":"a","text_pair":"b","label":1}"#, "a", Some("b")),
        (r#"{"text":"a","text_pair":null,"label":1}"#, "a", None),
        (r#"{"sentence":"a","label":1}"#, "a", None),
        (
            r#"{"sentence1":"a","sentence2":"b","label":1}"#,
            "a",
            Some("b"),
        ),
        (
            r#"{"premise":"a","hypothesis":"b","label":1}"#,
            "a",
            Some("b"),
        ),
        (
            r#"{"question1":"a","question2":"b","label":1}"#,
            "a",
            Some("b"),
        ),
        (
            r#"{"question":"a","sentence":"b","label":1}"#,
            "a",
            Some("b"),
        ),
        (r#"{"text":"a","labels":1}"#, "a", None),
    ] {
        let row = only(row);
        assert_eq!(row.text(), Some((text, pair)));
        assert_eq!(row.label(), Some(&Label::One(LabelValue::Number(1))));
        assert_eq!(row.format().task(), Task::SeqCls);
    }
    for row in [
        r#"{"tokens":["a"],"tags":["O"]}"#,
        r#"{"tokens":["a"],"ner_tags":["O"]}"#,
        r#"{"words":["a"],"labels":["O"]}"#,
        // What transformers' scripts add to tagged words.
        r#"{"tokens":["a"],"ner_tags":["O"],"input_ids":[1],"labels":[0]}"#,
    ] {
        let row = only(row);
        assert_eq!(row.words(), Some(&["a".to_owned()][..]));
        assert_eq!(row.tags(), Some(&[LabelValue::Name("O".into())][..]));
    }
    assert!(matches!(
        only(r#"{"input_ids":[1],"label":0.5}"#),
        Row::ClassificationIds {
            label: Some(Label::One(LabelValue::Fraction(_))),
            ..
        }
    ));
    assert!(matches!(
        only(r#"{"input_ids":[1],"tags":[-100]}"#),
        Row::TaggingIds { .. }
    ));
    // Keys of a text to write come first.
    for row in [
        r#"{"prompt":"a","completion":"b","label":true}"#,
        r#"{"messages":[{"role":"user","content":"a"}],"label":1}"#,
        r#"{"input_ids":[1],"labels":[1]}"#,
    ] {
        assert_eq!(only(row).format().task(), Task::CausalLm, "{row}");
    }
}

#[test]
fn a_bad_label_names_its_place() {
    for (row, expected) in [
        (
            r#"{"text":"a","label":true}"#,
            "\"label\" must be a name, a number, or a list of one of these, found a boolean",
        ),
        (r#"{"text":"a","label":null}"#, "found null"),
        (r#"{"text":"a","label":" "}"#, "\"label\" is empty"),
        (
            r#"{"text":"a","label":["b",{}]}"#,
            "label[1] must be a name",
        ),
        (r#"{"text":3,"label":"a"}"#, "\"text\" must be a string"),
        (
            r#"{"text":"a","text_pair":[],"label":"a"}"#,
            "\"text_pair\" must be a string",
        ),
        (r#"{"input_ids":[],"label":"a"}"#, "\"input_ids\" is empty"),
        (
            r#"{"input_ids":[-1],"label":"a"}"#,
            "which is not a token id",
        ),
        (
            r#"{"tokens":["a","b"],"tags":["O"]}"#,
            "2 tokens and 1 tags; a row needs a tag for each",
        ),
        (
            r#"{"tokens":["a"],"tags":[0.5]}"#,
            "tags[0] is 0.5; a tag is the name or the number",
        ),
        (
            r#"{"tokens":["a"],"tags":[-1]}"#,
            "tags[0] is -1, which is no class",
        ),
        (
            r#"{"tokens":["a"],"tags":[-100]}"#,
            "tags[0] is -100, which is no class",
        ),
        (r#"{"tokens":["a"],"tags":"O"}"#, "\"tags\" must be a list"),
        (
            r#"{"tokens":"a","tags":["O"]}"#,
            "\"tokens\" must be a list",
        ),
        (
            r#"{"tokens":[1],"tags":["O"]}"#,
            "tokens[0] must be a string",
        ),
        (r#"{"tokens":[],"tags":[]}"#, "\"tokens\" is empty"),
    ] {
        let message = message_of(&format!("\n{row}"));
        assert!(message.starts_with("train.jsonl:2: "), "{message}");
        assert!(message.contains(expected), "{message}");
    }
    let rows =
        "{\"sentence1\":\"a\",\"sentence2\":\"b\",\"label\":1}\n{\"sentence1\":\"a\",\"label\":1}";
    let message = message_of(rows);
    assert!(
        message.contains(
            r#"no "sentence2"; the first row (line 1) is {"sentence1","sentence2","label"}"#
        ),
        "{message}"
    );
}

#[test]
fn rows_to_be_predicted_may_have_a_label_that_is_not_read() {
    for (row, task) in [
        (r#"{"text":"a"}"#, Task::SeqCls),
        (r#"{"text":"a","label":[{}]}"#, Task::SeqCls),
        (r#"{"input_ids":[1],"labels":[1]}"#, Task::SeqCls),
        (r#"{"tokens":["a"]}"#, Task::TokenCls),
        (r#"{"tokens":["a"],"ner_tags":[-1,-1]}"#, Task::TokenCls),
        (r#"{"context":"a","question":"b"}"#, Task::Qa),
        (r#"{"context":"a","question":"b","answers":3}"#, Task::Qa),
    ] {
        let rows = parse_rows_for("p.jsonl", row, task).expect("a good row");
        let (_, found) = &rows.rows()[0];
        assert_eq!(rows.task(), task);
        assert!(found.label().is_none() && found.tags().is_none());
        assert!(
            found
                .question()
                .is_none_or(|question| question.answers.is_none())
        );
        assert!(
            rows.notes()
                .iter()
                .all(|note| row.contains("\"labels\"") && note.contains("labels")),
            "{:?}",
            rows.notes()
        );
    }
    let error = parse_rows_for(
        "p.jsonl",
        r#"{"context":"a","question":"b","answers":[]}"#,
        Task::SeqCls,
    );
    let error = error.expect_err("another task").to_string();
    assert!(
        error.contains(r#"({"context","question","answers"}) is for the task qa"#),
        "{error}"
    );
    let error = parse_rows_for("p.jsonl", r#"{"a":1}"#, Task::TokenCls).expect_err("no row");
    let error = error.to_string();
    assert!(
        error.contains(r#"the formats are {"tokens","tags"}, {"input_ids","tags"}"#),
        "{error}"
    );
}
