//! What is learned of a row, and rows to be predicted, which need not have it.

use super::*;

#[test]
fn lists_of_zeros_and_ones_are_flags_if_all_labels_of_the_file_are() {
    let are_flags = |labels: &[&str]| {
        let line = |label: &&str| format!(r#"{{"text":"a","label":{label}}}"#);
        let lines: Vec<String> = labels.iter().map(line).collect();
        let rows = parse_rows("a.jsonl", &lines.join("\n")).expect("good rows");
        let is_flags = |(_, row): &(usize, Row)| matches!(row.label(), Some(Label::Flags(_)));
        let flags = rows.rows().iter().filter(|row| is_flags(row)).count();
        assert!(flags == 0 || flags == labels.len(), "{labels:?}");
        flags > 0
    };
    assert!(are_flags(&["[0,1]"]));
    assert!(are_flags(&["[1,0,0]", "[0,0,0]"]));
    assert!(are_flags(&["[0.0,1.0]", "[1,1]"]));
    for others in [
        &["[0,1]", "[0]"][..],
        &["[0,1]", "[0,2]"],
        &["[0.5,1.0]", "[0.0,1.0]"],
        &["[0,1]", "[]"],
        &["[1]", "[0]"],
        &["[0,1]", "1"],
        &["1", "[0,1]"],
        &[r#"["0","1"]"#],
        &["[]"],
    ] {
        assert!(!are_flags(others), "{others:?}");
    }
}

#[test]
fn a_label_that_no_number_of_64_bits_has_is_refused() {
    for (row, expected) in [
        (
            r#"{"text":"a","label":99999999999999999999999}"#,
            "a.jsonl:1: \"label\" is 1e+23, which is above 9223372036854775807, the last number",
        ),
        (
            r#"{"text":"a","label":9223372036854775808}"#,
            "a.jsonl:1: \"label\" is 9223372036854775808, which is above",
        ),
        (
            r#"{"text":"a","label":[0.5,-1e300]}"#,
            "a.jsonl:1: label[1] is -1e+300, which is below -9223372036854775808",
        ),
        (
            r#"{"tokens":["a"],"tags":[1e19]}"#,
            "a.jsonl:1: tags[0] is 1e+19, which is above",
        ),
        (r#"{"text":"a","label":1e400}"#, "a.jsonl:1: not JSON"),
        (r#"{"text":"a","label":NaN}"#, "a.jsonl:1: not JSON"),
    ] {
        let error = parse_rows("a.jsonl", row).expect_err(row).to_string();
        assert!(error.starts_with(expected), "{error}");
    }
    assert!(parse_rows("a.jsonl", r#"{"text":"a","label":9223372036854775807}"#).is_ok());
}

#[test]
fn rows_without_their_labels_are_rows_to_be_predicted() {
    for (row, task) in [
        (r#"{"text":"a","label":"b"}"#, Task::SeqCls),
        (r#"{"input_ids":[1],"label":"b"}"#, Task::SeqCls),
        (r#"{"tokens":["a"],"tags":["O"]}"#, Task::TokenCls),
        (r#"{"input_ids":[1],"tags":["O"]}"#, Task::TokenCls),
        (
            r#"{"context":"a","question":"b","answers":[{"text":"a","answer_start":0}]}"#,
            Task::Qa,
        ),
    ] {
        let rows = parse_rows_for("p.jsonl", row, task).expect("a good row");
        let row = &rows.rows()[0].1;
        assert_eq!((row.label(), row.tags()), (None, None), "{row:?}");
        let question = row.question();
        assert!(
            question.is_none_or(|question| question.answers.is_none()),
            "{row:?}"
        );
    }
}

#[test]
fn a_prompt_alone_is_a_row_to_be_predicted() {
    let read = |text: &str| parse_rows_for("p.jsonl", text, Task::CausalLm);
    let pairs = |text: &str| -> Vec<(String, String)> {
        let rows = read(text).expect("good rows");
        let pair = |(_, row): &(usize, Row)| {
            let (prompt, answer) = row.prompt_and_answer().expect("a prompt");
            (prompt.into_owned(), answer.to_owned())
        };
        assert!(rows.notes().is_empty(), "{:?}", rows.notes());
        rows.rows().iter().map(pair).collect()
    };
    let owned = |prompt: &str, answer: &str| (prompt.to_owned(), answer.to_owned());
    let some = "{\"prompt\":\"a\"}\n{\"prompt\":\"b\",\"completion\":\"c\"}\n{\"prompt\":\"d\",\"completion\":null}";
    let expected = [owned("a", ""), owned("b", "c"), owned("d", "")];
    assert_eq!(pairs(some), expected);
    let asked = pairs(r#"{"instruction":"add","input":"1 2"}"#);
    let learned = only(r#"{"instruction":"add","input":"1 2","output":"3"}"#);
    let (prompt, _) = learned.prompt_and_answer().expect("a prompt");
    assert_eq!(asked, [(prompt.into_owned(), String::new())]);
    // A row that could be learned keeps its format.
    let rows = read(
        r#"{"prompt":"a","messages":[{"role":"user","content":"b"},{"role":"assistant","content":"c"}]}"#,
    );
    assert_eq!(rows.expect("a good row").format(), RowFormat::Messages);
    for (text, expected) in [
        (
            "{\"prompt\":\"a\"}\n{\"completion\":\"b\"}",
            r#"p.jsonl:2: no "prompt"; the first row (line 1) is {"prompt"}"#,
        ),
        (
            r#"{"prompt":"a","completion":1}"#,
            r#"p.jsonl:1: "completion" must be a string"#,
        ),
        (r#"{"completion":"a"}"#, "p.jsonl:1: no known format"),
    ] {
        let error = read(text).expect_err(text).to_string();
        assert!(error.starts_with(expected), "{error}");
    }
    // To be learned, it needs its answer.
    assert!(message_of(r#"{"prompt":"a"}"#).contains("no known format has the keys"));
    let second = "{\"prompt\":\"a\",\"completion\":\"b\"}\n{\"prompt\":\"a\"}";
    assert!(message_of(second).starts_with("train.jsonl:2: no \"completion\""));
}
