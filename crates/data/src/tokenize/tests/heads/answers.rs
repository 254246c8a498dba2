//! Questions.

use super::*;

pub(super) const ANSWERS: Targets<'_> = Targets::Answers {
    doc_stride: 2,
    no_answer: false,
    every_window: false,
};

/// Answers with the eos as the choice "no answer".
const OR_NONE: Targets<'_> = Targets::Answers {
    doc_stride: 2,
    no_answer: true,
    every_window: false,
};

fn question(context: &str, answer: Option<(&str, usize)>) -> Rows {
    let answers = match answer {
        Some((text, start)) => format!(r#"[{{"text":"{text}","answer_start":{start}}}]"#),
        None => "[]".to_owned(),
    };
    let row = format!(r#"{{"context":"{context}","question":" q?","answers":{answers}}}"#);
    parse_rows("train.jsonl", &row).expect("a good row")
}

#[test]
fn windows_without_the_answer_teach_only_that_there_is_none() {
    let rows = question("abcdefghij", Some(("gh", 6)));
    // Two tokens of question and four of context.
    let tokenized = run(&rows, options(ANSWERS, Some(6))).expect("a good row");
    let spans: Vec<_> = tokenized
        .examples
        .iter()
        .map(|example| example.row_label.clone())
        .collect();
    let span = |start, end| Some(RowLabel::Span { start, end });
    assert_eq!(spans, [span(4, 5), span(2, 3)]);
    assert_eq!(tokenized.examples[0].input_ids, ids("q?efgh"));
    assert!(tokenized.examples.iter().all(|example| example.row == 0));

    let tokenized = run(&rows, options(OR_NONE, Some(7))).expect("a good row");
    let spans: Vec<_> = tokenized
        .examples
        .iter()
        .map(|example| example.row_label.clone())
        .collect();
    assert_eq!(spans, [span(6, 6), span(6, 6), span(4, 5), span(2, 3)]);
    for example in &tokenized.examples {
        assert_eq!(example.input_ids[6], EOS);
        assert!(
            matches!(&example.parts, Parts::Context { tokens, no_answer: Some(6), .. } if *tokens == (2..6))
        );
    }

    let every = Targets::Answers {
        doc_stride: 2,
        no_answer: false,
        every_window: true,
    };
    let tokenized = run(&rows, options(every, Some(6))).expect("a good row");
    assert_eq!(tokenized.examples.len(), 4);
    assert_eq!(tokenized.examples[0].row_label, Some(RowLabel::Unknown));
}

#[test]
fn the_characters_of_a_window_are_those_of_the_row() {
    let rows = question("日 ab 🦀c", Some(("🦀", 5)));
    let tokenized = run(&rows, options(ANSWERS, None)).expect("a good row");
    let example = &tokenized.examples[0];
    let Parts::Context {
        tokens, characters, ..
    } = &example.parts
    else {
        panic!("{:?}", example.parts)
    };
    // Three bytes, a space, two letters, a space, four bytes, a letter.
    assert_eq!(*tokens, 2..14);
    let expected = [
        0..1,
        0..1,
        0..1,
        2..2,
        2..3,
        3..4,
        5..5,
        5..6,
        5..6,
        5..6,
        5..6,
        6..7,
    ];
    assert_eq!(characters[..], expected);
    assert_eq!(
        example.row_label,
        Some(RowLabel::Span { start: 9, end: 12 })
    );
}

#[test]
fn a_row_without_an_answer_is_learned_as_such_or_left_out() {
    let rows = question("abc", None);
    let example = run(&rows, options(OR_NONE, None))
        .expect("a good row")
        .examples
        .remove(0);
    assert_eq!(example.row_label, Some(RowLabel::Span { start: 5, end: 5 }));
    let error = run(&rows, options(ANSWERS, None)).expect_err("nothing is left");
    assert!(
        error
            .to_string()
            .contains("no window of a context has an answer"),
        "{error}"
    );
    let both = r#"{"context":"abc","question":"q","answers":[{"text":"b","answer_start":1}]}
{"context":"abc","question":"q","answers":[]}"#;
    let both = parse_rows("train.jsonl", both).expect("good rows");
    let tokenized = run(&both, options(ANSWERS, None)).expect("one is left");
    assert_eq!((tokenized.examples.len(), tokenized.dropped), (1, 1));
    assert!(
        tokenized.notes[0].starts_with("train.jsonl: 1 row without an answer"),
        "{:?}",
        tokenized.notes
    );
}

#[test]
fn an_answer_that_fits_no_window_is_said() {
    let rows = question("abcdefghij", Some(("cdefgh", 2)));
    let tokenized = run(&rows, options(OR_NONE, Some(7))).expect("a good row");
    assert!(
        tokenized.notes[0].contains("in 1 row the answer is in no window as a whole"),
        "{:?}",
        tokenized.notes
    );
}

#[test]
fn a_question_that_leaves_no_room_is_refused_with_its_line() {
    let rows = question("abcdefghij", Some(("a", 0)));
    let error = run(&rows, options(ANSWERS, Some(4)))
        .expect_err("no room")
        .to_string();
    assert!(
        error.starts_with("train.jsonl:1: the question has 2 tokens, which leave room for 2"),
        "{error}"
    );
    // A context that fits as it is needs no windows.
    assert!(run(&question("ab", Some(("a", 0))), options(ANSWERS, Some(4))).is_ok());
}

#[test]
fn questions_to_be_predicted_have_all_windows() {
    let rows = parse_rows_for(
        "p.jsonl",
        r#"{"context":"abcdefghij","question":"q?"}"#,
        Task::Qa,
    );
    let rows = rows.expect("a good row");
    for (targets, max_length) in [(ANSWERS, 6), (OR_NONE, 7)] {
        let tokenized = run(&rows, options(targets, Some(max_length))).expect("a good row");
        let labels: Vec<_> = tokenized
            .examples
            .into_iter()
            .map(|example| example.row_label)
            .collect();
        assert_eq!(labels, vec![Some(RowLabel::Unknown); 4]);
    }
}

#[test]
fn no_answer_needs_an_eos() {
    let tokenizer =
        TextTokenizer::from_bytes(tokenizer_json().as_bytes(), b"{}", None).expect("a tokenizer");
    let error = tokenize_rows(
        &question("abc", None),
        &tokenizer,
        options(OR_NONE, None),
        &mut |_, _| {},
    );
    assert!(matches!(error, Err(Error::NoEosForNoAnswer)));
}

#[test]
fn tags_and_questions_take_no_template() {
    let labels = labels(&["O", "X"]);
    let template = Template::parse("{prompt:1}{text}").expect("a good template");
    for (rows, targets) in [
        (
            rows(&[r#"{"tokens":["a"],"tags":["O"]}"#]),
            tagging(&labels, false),
        ),
        (question("abc", None), OR_NONE),
    ] {
        let options = TokenizeOptions {
            template: Some(&template),
            ..options(targets, None)
        };
        let error = run(&rows, options).expect_err("no template").to_string();
        assert!(
            error.starts_with("template \"{prompt:1}{text}\" is for texts"),
            "{error}"
        );
    }
}
