//! Questions, one a row and in files of SQuAD.

use super::*;
use crate::rows::{Rows, parse_rows, parse_rows_for};
use crate::task::Task;

fn questions(rows: &Rows) -> Vec<&Question> {
    let question = |(_, row): &'_ (usize, Row)| row.question().is_some();
    assert!(rows.rows().iter().all(question));
    let rows = rows.rows().iter();
    rows.filter_map(|(_, row)| row.question()).collect()
}

fn row(context: &str, rest: &str) -> String {
    format!(r#"{{"context":{context:?},"question":"q?",{rest}}}"#)
}

fn answers_of(rest: &str) -> Vec<(String, usize)> {
    let rows = parse_rows("qa.jsonl", &row("日本 is 🦀 Paris.", rest)).expect("a good row");
    let answers = questions(&rows)[0].answers.clone().expect("a labelled row");
    answers
        .into_iter()
        .map(|answer| (answer.text, answer.start))
        .collect()
}

fn message_of(text: &str) -> String {
    let error = parse_rows("qa.jsonl", text).expect_err("a bad row");
    error.to_string()
}

#[test]
fn answers_are_counted_in_characters_in_either_spelling() {
    let expected = [("🦀".to_owned(), 6), ("Paris".to_owned(), 8)];
    for rest in [
        r#""answers":{"text":["🦀","Paris"],"answer_start":[6,8]}"#,
        r#""answers":[{"text":"🦀","answer_start":6},{"answer_start":8,"text":"Paris"}]"#,
        r#""id":"x","title":"t","is_impossible":false,"answers":{"text":["🦀","Paris"],"answer_start":[6,8]}"#,
    ] {
        assert_eq!(answers_of(rest), expected, "{rest}");
    }
    for rest in [
        r#""answers":{"text":[],"answer_start":[]}"#,
        r#""answers":[]"#,
        r#""answers":[],"is_impossible":true"#,
    ] {
        assert_eq!(answers_of(rest), [], "{rest}");
    }
}

#[test]
fn white_space_is_no_part_of_an_answer_and_no_reason_for_a_note() {
    for (text, start) in [
        (" Paris", 7),
        (" Paris", 8),
        ("Paris ", 8),
        ("Paris\\n", 8),
        (" Paris ", 7),
        (" Paris ", 8),
        ("\\t Paris", 7),
    ] {
        let rest = format!(r#""answers":[{{"text":"{text}","answer_start":{start}}}]"#);
        assert_eq!(answers_of(&rest), [("Paris".to_owned(), 8)], "{rest}");
        let rows = parse_rows("qa.jsonl", &row("日本 is 🦀 Paris.", &rest)).expect("a good row");
        assert!(rows.notes().is_empty(), "{rest}: {:?}", rows.notes());
    }
}

#[test]
fn a_wrong_start_is_mended_where_the_answer_stands_once_and_said() {
    // The bytes of UTF-8, one too many, and one too few.
    for start in [15, 9, 7, -1, 999] {
        let text = row(
            "日本 is 🦀 Paris.",
            &format!(r#""answers":[{{"text":"Paris","answer_start":{start}}}]"#),
        );
        let rows = parse_rows("qa.jsonl", &text).expect("a good row");
        let answer = &questions(&rows)[0].answers.as_ref().expect("labelled")[0];
        assert_eq!(answer.start, 8);
        assert_eq!(
            rows.notes(),
            [
                "qa.jsonl: 1 answer does not begin where answer_start says and was found at another place"
            ]
        );
    }
    let message = message_of(&row(
        "a b a b",
        r#""answers":[{"text":"a","answer_start":2}]"#,
    ));
    assert!(
        message.starts_with(r#"qa.jsonl:1: answer 0, "a", does not stand at character 2 of the context, where "b" is"#),
        "{message}"
    );
}

#[test]
fn what_is_wrong_with_a_question_is_named_with_its_id() {
    for (rest, expected) in [
        (
            r#""answers":[{"text":"Rome","answer_start":0}]"#,
            r#"answer 0, "Rome", does not stand in the context"#,
        ),
        (
            r#""id":"x7","answers":[{"text":"Rome","answer_start":0}]"#,
            r#"question "x7": answer 0"#,
        ),
        (
            r#""answers":[{"text":"","answer_start":0}]"#,
            "is empty; a question without",
        ),
        (
            r#""answers":[{"text":"a"}]"#,
            r#"answers[0] needs "text" and "answer_start""#,
        ),
        (
            r#""answers":{"text":["a"],"answer_start":[]}"#,
            r#""answers" has 1 texts and 0 starts"#,
        ),
        (
            r#""answers":{"text":["a"]}"#,
            r#""answers" needs "answer_start", a list"#,
        ),
        (r#""answers":["a"]"#, "answers[0] needs"),
        (r#""answers":"a""#, r#""answers" must be lists"#),
        (r#""answers":null"#, "found null"),
        (
            r#""answers":[{"text":3,"answer_start":0}]"#,
            "must be a string, found a number",
        ),
        (
            r#""answers":[{"text":"a","answer_start":0.5}]"#,
            "must be a whole number, found a fraction",
        ),
        (
            r#""is_impossible":true,"answers":[{"text":"a","answer_start":0}]"#,
            "is_impossible\" is true, and there are answers",
        ),
        (r#""is_impossible":3,"answers":[]"#, "must be true or false"),
        (r#""id":[],"answers":[]"#, "\"id\" must be a string"),
    ] {
        let message = message_of(&format!("\n{}", row("a cat", rest)));
        assert!(message.starts_with("qa.jsonl:2: "), "{message}");
        assert!(message.contains(expected), "{message}");
    }
    let message = message_of(&row(" ", r#""answers":[]"#));
    assert!(message.contains(r#""context" is empty"#), "{message}");
    let message = message_of(r#"{"context":"a","question":"","answers":[]}"#);
    assert!(message.contains(r#""question" is empty"#), "{message}");
}

const SQUAD: &str = r#"{"version": "v2.0", "data": [
{"title": "A", "paragraphs": [{"context": "a cat sat", "qas": [
  {"id": "1", "question": "who?", "answers": [{"text": "a cat", "answer_start": 0}], "is_impossible": false},
  {"id": "2", "question": "why?", "answers": [], "is_impossible": true, "plausible_answers": [{"text": "sat", "answer_start": 6}]}]}]},
{"title": "B", "paragraphs": [{"context": "b", "qas": [
  {"id": "3", "question": "what?", "answers": [{"text": "b", "answer_start": 0}]}]}]}]}"#;

#[test]
fn a_squad_file_is_its_questions() {
    let on_one_line = SQUAD.replace('\n', " ");
    for (text, lines) in [(SQUAD, [2, 2, 5]), (&on_one_line, [1, 2, 3])] {
        let rows = parse_rows("dev-v2.0.json", text).expect("good rows");
        assert_eq!(rows.task(), Task::Qa);
        let numbers: Vec<usize> = rows.rows().iter().map(|(line, _)| *line).collect();
        assert_eq!(numbers, lines);
        let ids: Vec<_> = questions(&rows).iter().map(|q| q.id.clone()).collect();
        assert_eq!(ids, ["1", "2", "3"].map(|id| Some(id.to_owned())));
        assert_eq!(questions(&rows)[1].answers, Some(Vec::new()));
        assert!(rows.notes().is_empty(), "{:?}", rows.notes());
    }
    // Without answers, as the file of a hidden test set.
    let hidden =
        r#"{"data": [{"paragraphs": [{"context": "c", "qas": [{"id": 9, "question": "q"}]}]}]}"#;
    let rows = parse_rows_for("test.json", hidden, Task::Qa).expect("good rows");
    assert_eq!(questions(&rows)[0].answers, None);
    assert_eq!(questions(&rows)[0].id.as_deref(), Some("9"));
    let error = parse_rows_for("test.json", hidden, Task::SeqCls).expect_err("another task");
    assert!(
        error
            .to_string()
            .contains("is for the task qa, and the task is seq-cls"),
        "{error}"
    );
}

#[test]
fn what_is_wrong_in_a_squad_file_has_its_line() {
    for (from, to, expected) in [
        (
            r#""context": "b", "#,
            "",
            r#"dev.json:5: paragraphs[0] needs a "context""#,
        ),
        (
            r#""qas": [
  {"id": "3""#,
            r#""qa": [
  {"id": "3""#,
            r#"dev.json:5: paragraphs[0] needs "qas""#,
        ),
        (
            r#""text": "b""#,
            r#""text": "c""#,
            r#"dev.json:5: question "3": answer 0, "c", does not stand"#,
        ),
        (
            r#""question": "who?", "#,
            "",
            r#"dev.json:2: "question" must be a string, found nothing"#,
        ),
    ] {
        let text = SQUAD.replace(from, to);
        assert_ne!(text, SQUAD);
        let error = parse_rows("dev.json", &text)
            .expect_err("a bad file")
            .to_string();
        assert!(error.starts_with(expected), "{error}");
    }
}
