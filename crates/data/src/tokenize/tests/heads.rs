//! Rows whose labels a head learns: texts, tagged words, questions.

use super::*;
use crate::example::{Parts, RowLabel};
use crate::labels::{Labels, ProblemType};
use crate::rows::parse_rows_for;
use crate::task::Task;
use crate::test_support::byte_id;

fn labels(names: &[&str]) -> Labels {
    Labels {
        problem_type: ProblemType::SingleLabel,
        names: names.iter().map(|name| (*name).to_owned()).collect(),
    }
}

fn options(targets: Targets<'_>, max_length: Option<usize>) -> TokenizeOptions<'_> {
    TokenizeOptions {
        max_length,
        targets,
        ..TokenizeOptions::default()
    }
}

fn run(rows: &Rows, options: TokenizeOptions<'_>) -> Result<Tokenized> {
    tokenize_rows(rows, &tokenizer(), options, &mut |_, _| {})
}

fn rows(lines: &[&str]) -> Rows {
    parse_rows("train.jsonl", &lines.join("\n")).expect("good rows")
}

fn tags(labels: &Labels, label_all_tokens: bool) -> Targets<'_> {
    Targets::Tags {
        labels,
        label_all_tokens,
    }
}

const ANSWERS: Targets<'_> = Targets::Answers {
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

#[test]
fn rows_of_another_task_are_refused_with_the_task_that_they_are_for() {
    let labels = labels(&["a", "b"]);
    for (row, targets, expected) in [
        (
            r#"{"text":"x","label":"a"}"#,
            Targets::Text,
            r#"train.jsonl:1: this row ({"text","label"}) is for the task seq-cls, and the task is causal-lm"#,
        ),
        (
            r#"{"tokens":["x"],"tags":["a"]}"#,
            Targets::Class(&labels),
            "is for the task token-cls, and the task is seq-cls",
        ),
        (
            r#"{"text":"x"}"#,
            ANSWERS,
            "is for the task causal-lm, and the task is qa",
        ),
    ] {
        let error = run(&rows(&[row]), options(targets, None)).expect_err("another task");
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[test]
fn a_text_has_its_label_beside_it_and_nothing_supervised_within() {
    let rows = rows(&[
        r#"{"text":"hello","label":"b"}"#,
        r#"{"text":"x","label":"a"}"#,
    ]);
    let labels = Labels::of(&rows).expect("labels");
    let tokenized = run(&rows, options(Targets::Class(&labels), None)).expect("good rows");
    let example = &tokenized.examples[0];
    assert_eq!(example.input_ids, ids("hello"));
    assert_eq!(example.labels, vec![IGNORE_INDEX; example.len()]);
    assert_eq!(example.row_label, Some(RowLabel::Class(1)));
    assert_eq!(
        (tokenized.examples[1].row, tokenized.examples[1].line),
        (1, 2)
    );
    let unknown = parse_rows_for("p.jsonl", r#"{"text":"x","label":3}"#, Task::SeqCls);
    let unknown = run(
        &unknown.expect("a good row"),
        options(Targets::Class(&labels), None),
    );
    let unknown = unknown.expect("a good row").examples.remove(0);
    assert_eq!(unknown.row_label, Some(RowLabel::Unknown));
}

#[test]
fn a_label_that_is_no_class_is_refused_with_its_line() {
    let labels = labels(&["good", "bad"]);
    let rows = rows(&[
        r#"{"text":"x","label":"good"}"#,
        r#"{"text":"x","label":"god"}"#,
    ]);
    let error = run(&rows, options(Targets::Class(&labels), None)).expect_err("no class");
    assert_eq!(
        error.to_string(),
        r#"train.jsonl:2: the label "god" is none of the 2 classes; did you mean "good"?"#
    );
}

#[test]
fn a_long_text_loses_its_end_and_a_pair_the_end_of_the_longer() {
    let labels = labels(&["a", "b"]);
    let lines = [
        r#"{"text":"abcdef","label":"a"}"#,
        r#"{"text":"ab","text_pair":"cdefg","label":"b"}"#,
        r#"{"text":"abc","label":"a"}"#,
    ];
    let tokenized = run(&rows(&lines), options(Targets::Class(&labels), Some(4)));
    let tokenized = tokenized.expect("good rows");
    assert_eq!((tokenized.truncated, tokenized.dropped), (2, 0));
    assert_eq!(tokenized.examples[0].input_ids, ids("abcd"));
    assert_eq!(
        tokenized.examples[1].input_ids,
        [ids("ab"), ids("cd")].concat()
    );
}

#[test]
fn a_template_places_virtual_tokens_around_a_text_and_is_never_cut() {
    let labels = labels(&["a", "b"]);
    let row = rows(&[r#"{"text":"xxxxxx","text_pair":"yy","label":"a"}"#]);
    for (source, max_length, text, placement) in [
        ("{prompt:2} {text}", None, "xxxxxx", Some(vec![0, 0])),
        ("{text}{prompt:1}", Some(4), "xxxx", Some(vec![4])),
        ("{text}\nSo:", Some(6), "xx\nSo:", None),
        (
            "Q {text} {prompt:1} A {text_pair}{prompt:2}",
            None,
            "Q xxxxxxA yy",
            Some(vec![8, 12, 12]),
        ),
        (
            "Q {text} {prompt:1} A {text_pair}{prompt:2}",
            Some(8),
            "Q xxA yy",
            Some(vec![4, 8, 8]),
        ),
    ] {
        let template = Template::parse(source).expect("a good template");
        let options = TokenizeOptions {
            template: Some(&template),
            ..options(Targets::Class(&labels), max_length)
        };
        let example = run(&row, options).expect("a good row").examples.remove(0);
        assert_eq!(example.input_ids, ids(text), "{source}");
        assert_eq!(example.placement, placement, "{source}");
        assert_eq!(example.row_label, Some(RowLabel::Class(0)));
    }
    for (source, expected) in [
        (
            "{text}{prompt:1}{label}",
            "has `{label}`, which a head learns without words",
        ),
        ("{input}{completion}", "has `{input}`, but"),
    ] {
        let template = Template::parse(source).expect("a good template");
        let options = TokenizeOptions {
            template: Some(&template),
            ..options(Targets::Class(&labels), None)
        };
        let error = full_message(&run(&row, options).expect_err(source));
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn a_template_with_virtual_tokens_in_front_is_the_row_without_one() {
    let labels = labels(&["a", "b"]);
    let row = rows(&[r#"{"text":"hello","label":"a"}"#]);
    let tokenizer = tokenizer_with_bos();
    let template = Template::parse("{prompt:3}{text}").expect("a good template");
    for (template, placement) in [(None, None), (Some(&template), Some(vec![0; 3]))] {
        let options = TokenizeOptions {
            template,
            ..options(Targets::Class(&labels), None)
        };
        let tokenized = tokenize_rows(&row, &tokenizer, options, &mut |_, _| {});
        let example = tokenized.expect("a good row").examples.remove(0);
        assert_eq!(
            example.input_ids,
            [vec![IM_START], ids("hello"), vec![EOS]].concat()
        );
        assert_eq!(example.placement, placement);
    }
}

#[test]
fn token_ids_are_used_as_they_are() {
    let labels = labels(&["a", "b"]);
    let good = rows(&[r#"{"input_ids":[1,2,3,4,5],"label":"b"}"#]);
    let example = run(&good, options(Targets::Class(&labels), Some(4)))
        .expect("a good row")
        .examples
        .remove(0);
    assert_eq!(
        (example.input_ids, example.row_label),
        (vec![1, 2, 3, 4], Some(RowLabel::Class(1)))
    );
    let bad = rows(&[r#"{"input_ids":[1,999],"label":"b"}"#]);
    let error = run(&bad, options(Targets::Class(&labels), None)).expect_err("no such id");
    assert!(
        error
            .to_string()
            .starts_with("train.jsonl:1: input_ids[1] is 999"),
        "{error}"
    );
}

#[test]
fn a_text_without_a_token_is_refused() {
    let labels = labels(&["a", "b"]);
    let empty = rows(&[r#"{"text":"x","label":"a"}"#, r#"{"text":"","label":"a"}"#]);
    let error = run(&empty, options(Targets::Class(&labels), None)).expect_err("no token");
    assert!(
        error
            .to_string()
            .starts_with("train.jsonl:2: the text has no token"),
        "{error}"
    );
}

#[test]
fn the_first_token_of_each_word_has_its_class() {
    let labels = labels(&["B-X", "I-X", "O"]);
    let row = rows(&[r#"{"tokens":["abc","de","日"],"tags":["B-X","O","I-X"]}"#]);
    let example = run(&row, options(tags(&labels, false), None))
        .expect("a good row")
        .examples
        .remove(0);
    assert_eq!(example.input_ids, ids("abc de日"));
    let none = IGNORE_INDEX;
    assert_eq!(
        example.labels,
        [0, none, none, 2, none, none, 1, none, none]
    );
    assert_eq!(example.parts, Parts::Words(vec![0, 3, 6]));
    assert_eq!(example.row_label, None);
    // On all pieces, one word is one span.
    let example = run(&row, options(tags(&labels, true), None))
        .expect("a good row")
        .examples
        .remove(0);
    assert_eq!(example.labels, [0, 1, 1, 2, 2, 2, 1, 1, 1]);
}

#[test]
fn no_token_spans_two_words() {
    // "he" is a token, but not where its letters are words.
    let labels = labels(&["O", "X"]);
    let row = rows(&[r#"{"tokens":["h","e","国"],"tags":["O","X","X"]}"#]);
    let example = run(&row, options(tags(&labels, false), None))
        .expect("a good row")
        .examples
        .remove(0);
    assert_eq!(example.input_ids[..2], [byte_id(b'h'), byte_id(b'e')]);
    assert_eq!(example.parts, Parts::Words(vec![0, 1, 2]));
}

#[test]
fn a_word_without_a_token_does_not_shift_the_others() {
    let labels = labels(&["A", "B", "C", "D"]);
    let row = rows(&[r#"{"tokens":["","x","","yz",""],"tags":["A","B","C","D","A"]}"#]);
    let example = run(&row, options(tags(&labels, false), None))
        .expect("a good row")
        .examples
        .remove(0);
    assert_eq!(example.input_ids, ids("x yz"));
    assert_eq!(example.labels, [1, 3, IGNORE_INDEX, IGNORE_INDEX]);
    assert_eq!(example.parts, Parts::Words(vec![0, 0, 1, 1, 3]));
    let none = rows(&[r#"{"tokens":["",""],"tags":["A","B"]}"#]);
    let error = run(&none, options(tags(&labels, false), None)).expect_err("no token");
    assert!(
        error
            .to_string()
            .starts_with("train.jsonl:1: the words have no token"),
        "{error}"
    );
}

#[test]
fn words_behind_the_cut_are_gone_and_the_row_counts_as_cut() {
    let labels = labels(&["O", "X"]);
    let lines = [
        r#"{"tokens":["abc","de","f"],"tags":["O","X","O"]}"#,
        r#"{"tokens":["a"],"tags":["O"]}"#,
    ];
    let tokenized = run(&rows(&lines), options(tags(&labels, false), Some(5))).expect("good rows");
    assert_eq!((tokenized.truncated, tokenized.dropped), (1, 0));
    let example = &tokenized.examples[0];
    assert_eq!(example.parts, Parts::Words(vec![0, 3]));
    assert_eq!((example.len(), example.labels[3]), (5, 1));
    // What the tokenizer puts around a text stays.
    let tokenizer = tokenizer_with_bos();
    let with_bos = tokenize_rows(
        &rows(&lines),
        &tokenizer,
        options(tags(&labels, false), Some(6)),
        &mut |_, _| {},
    );
    let example = with_bos.expect("good rows").examples.remove(0);
    let expected = [vec![IM_START], ids("abc "), vec![EOS]].concat();
    assert_eq!(example.input_ids, expected);
    assert_eq!(example.parts, Parts::Words(vec![1, 4]));
    assert_eq!(example.labels.last(), Some(&IGNORE_INDEX));
}

#[test]
fn each_token_of_given_ids_is_a_word() {
    let labels = labels(&["O", "X"]);
    let row = rows(&[r#"{"input_ids":[7,8,9],"tags":["X",-100,"O"]}"#]);
    let example = run(&row, options(tags(&labels, false), None))
        .expect("a good row")
        .examples
        .remove(0);
    assert_eq!(
        (example.input_ids, example.labels),
        (vec![7, 8, 9], vec![1, -100, 0])
    );
    assert_eq!(example.parts, Parts::Words(vec![0, 1, 2]));
}

#[test]
fn words_to_be_predicted_have_no_label() {
    let labels = labels(&["O", "X"]);
    let rows = parse_rows_for("p.jsonl", r#"{"words":["ab","c"]}"#, Task::TokenCls);
    let tokenized = run(
        &rows.expect("a good row"),
        options(tags(&labels, true), None),
    );
    let example = tokenized.expect("a good row").examples.remove(0);
    assert_eq!(example.labels, [IGNORE_INDEX; 4]);
    assert_eq!(example.row_label, Some(RowLabel::Unknown));
}

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
            tags(&labels, false),
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
