//! Rows of which nothing can be learned.

use super::*;

#[test]
fn given_ids_outside_the_vocabulary_name_their_line() {
    let good = r#"{"input_ids":[1,2],"labels":[1,2]}"#;
    for (row, expected) in [
        (
            r#"{"input_ids":[1,9999],"labels":[1,2]}"#,
            "input_ids[1] is 9999",
        ),
        (r#"{"input_ids":[1,2],"labels":[1,-1]}"#, "labels[1] is -1"),
    ] {
        let message = tokenize(&format!("{good}\n{row}"), None)
            .expect_err("a bad row")
            .to_string();
        assert!(
            message.starts_with("train.jsonl:2: ") && message.contains(expected),
            "{message}"
        );
    }
}

#[test]
fn a_row_with_nothing_to_learn_names_its_line() {
    for row in [
        r#"{"input_ids":[1,2],"labels":[1,-100]}"#,
        r#"{"text":""}"#,
        r#"{"messages":[{"role":"user","content":"hi"}]}"#,
    ] {
        let error = tokenize(&format!("\n{row}"), None).expect_err("nothing is supervised");
        assert!(
            matches!(error, Error::NothingSupervised { line: 2, .. }),
            "{error}"
        );
    }
}

#[test]
fn a_conversation_with_nothing_to_learn_says_why() {
    // This template writes any role.
    let template =
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}";
    let tokenizer = TextTokenizer::from_bytes(
        tokenizer_json().as_bytes(),
        CONFIG.as_bytes(),
        Some(template),
    )
    .expect("a tokenizer");
    for (row, expected) in [
        (
            r#"{"messages":[{"role":"user","content":"a"},{"role":"oracle","content":"b"},{"role":"user","content":"c"}]}"#,
            r#"no turn of the assistant; the roles are "user", "oracle""#,
        ),
        (
            r#"{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b","weight":0}]}"#,
            "`weight` says of every turn of the assistant that it is not learned",
        ),
    ] {
        let rows = parse_rows("train.jsonl", row).expect("a good row");
        let options = TokenizeOptions::default();
        let error = tokenize_rows(&rows, &tokenizer, options, &mut |_, _| {});
        let message = error.expect_err("nothing is learned").to_string();
        assert!(
            message.starts_with("train.jsonl:1: ") && message.contains(expected),
            "{message}"
        );
    }
}

#[test]
fn a_conversation_the_template_refuses_names_its_line_and_the_reason() {
    let error = tokenize(r#"{"messages":[{"role":"oracle","content":"x"}]}"#, None)
        .expect_err("no such role");
    let message = full_message(&error);
    assert!(
        message.starts_with("train.jsonl:1: ") && message.contains("unknown role oracle"),
        "{message}"
    );
}

#[test]
fn a_limit_that_drops_every_row_is_an_error() {
    let error =
        tokenize(r#"{"prompt":"abcd","completion":"e"}"#, Some(3)).expect_err("nothing is left");
    assert!(error.to_string().contains("max_length = 3"), "{error}");
}

#[test]
fn without_an_eos_no_row_is_silently_left_open() {
    let tokenizer =
        TextTokenizer::from_bytes(tokenizer_json().as_bytes(), b"{}", None).expect("a tokenizer");
    let rows = parse_rows("train.jsonl", r#"{"text":"a"}"#).expect("a good row");
    let error = tokenize_rows(
        &rows,
        &tokenizer,
        TokenizeOptions::default(),
        &mut |_, _| {},
    );
    assert!(matches!(error, Err(Error::NoEos)));
}

#[test]
fn chat_rows_need_a_template() {
    let tokenizer = TextTokenizer::from_bytes(tokenizer_json().as_bytes(), CONFIG.as_bytes(), None)
        .expect("a tokenizer");
    let rows = parse_rows(
        "train.jsonl",
        r#"{"messages":[{"role":"user","content":"a"}]}"#,
    )
    .expect("a good row");
    let error = tokenize_rows(
        &rows,
        &tokenizer,
        TokenizeOptions::default(),
        &mut |_, _| {},
    );
    assert!(matches!(error, Err(Error::NoChatTemplate)));
}
