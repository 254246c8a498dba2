//! Rows that are longer than `max_length`.

use super::*;
use crate::labels::{Labels, ProblemType};

const CHAT: &str = r#"{"messages":[{"role":"user","content":"abc"},{"role":"assistant","content":"def"},{"role":"user","content":"ghi"},{"role":"assistant","content":"jkl"}]}"#;

fn run(
    row: &str,
    limit: usize,
    supervise: Supervise,
    template: Option<&Template>,
    excess_length: ExcessLength,
) -> Result<Tokenized> {
    let options = TokenizeOptions {
        max_length: Some(limit),
        supervise,
        template,
        excess_length,
        ..TokenizeOptions::default()
    };
    let rows = parse_rows("train.jsonl", row).expect("a good row");
    tokenize_rows(&rows, &tokenizer(), options, &mut |_, _| {})
}

/// A row is kept with its whole first prompt and a token of what answers it, or left out.
#[test]
fn no_cut_leaves_a_part_of_a_prompt_alone() {
    let template = Template::parse("{prompt:2} {prompt} -> {prompt:1}{completion}{prompt:1}")
        .expect("a good template");
    for (row, template) in [
        (r#"{"prompt":"abcd","completion":"efg"}"#, None),
        (r#"{"prompt":"abcd","completion":"efg"}"#, Some(&template)),
        (r#"{"instruction":"ab","input":"cd","output":"efg"}"#, None),
        (CHAT, None),
    ] {
        let whole = run(
            row,
            1000,
            Supervise::Assistant,
            template,
            ExcessLength::Truncate,
        )
        .expect("no limit")
        .examples
        .remove(0);
        let is_learned = |label: &i64| *label != IGNORE_INDEX;
        let first = whole.labels.iter().position(is_learned).expect("an answer");
        let last = whole
            .labels
            .iter()
            .rposition(is_learned)
            .expect("an answer");
        let last = last
            - whole.labels[..last]
                .iter()
                .rev()
                .take_while(|label| is_learned(label))
                .count();
        for supervise in [Supervise::Assistant, Supervise::Last, Supervise::All] {
            let needed = match supervise {
                Supervise::Last => last,
                _ => first,
            };
            for limit in 1..whole.len() {
                let cut = run(row, limit, supervise, template, ExcessLength::Truncate);
                let Ok(cut) = cut else {
                    assert!(limit <= needed, "{supervise:?} at {limit} of {row}");
                    continue;
                };
                assert!(limit > needed, "{supervise:?} at {limit} of {row}");
                let example = &cut.examples[0];
                assert_eq!(example.input_ids, whole.input_ids[..limit]);
                assert_eq!((cut.truncated, cut.dropped), (1, 0));
                assert_ne!(example.labels[needed], IGNORE_INDEX);
            }
        }
    }
}

#[test]
fn rows_that_are_too_long_are_left_out_where_that_is_asked_for() {
    let rows =
        "{\"prompt\":\"ab\",\"completion\":\"cd\"}\n{\"prompt\":\"ab\",\"completion\":\"cde\"}";
    let dropped = run(rows, 5, Supervise::All, None, ExcessLength::Drop).expect("a row is left");
    let lines: Vec<usize> = dropped.examples.iter().map(|row| row.line).collect();
    assert_eq!(lines, [1]);
    assert_eq!((dropped.truncated, dropped.dropped), (0, 1));
    assert_eq!(dropped.examples[0].len(), 5);
    let none = run(rows, 4, Supervise::All, None, ExcessLength::Drop).expect_err("none is left");
    assert_eq!(
        none.to_string(),
        "train.jsonl: every row has more than max_length = 4 tokens, and such rows are left out; raise max_length"
    );
}

#[test]
fn a_row_that_is_too_long_is_an_error_where_that_is_asked_for() {
    let row = r#"{"prompt":"ab","completion":"cde"}"#;
    let fits = run(row, 6, Supervise::All, None, ExcessLength::Fail);
    assert_eq!(fits.expect("it fits").examples.len(), 1);
    let error = run(row, 5, Supervise::All, None, ExcessLength::Fail).expect_err("6 tokens");
    let message = error.to_string();
    let expected = "train.jsonl:1: the row has 6 tokens, and max_length is 5";
    assert!(message.starts_with(expected), "{message}");
    // Also where nothing of an answer would be left.
    let error = run(row, 2, Supervise::Assistant, None, ExcessLength::Fail).expect_err("6 tokens");
    assert!(error.to_string().contains("6 tokens"), "{error}");
}

#[test]
fn texts_with_a_label_are_cut_left_out_or_refused() {
    let labels = Labels::numbered(2, ProblemType::SingleLabel);
    let rows = parse_rows(
        "t.jsonl",
        "{\"text\":\"ab\",\"label\":1}\n{\"text\":\"abcd\",\"label\":0}",
    );
    let rows = rows.expect("good rows");
    let lengths = |excess_length| {
        let options = TokenizeOptions {
            max_length: Some(3),
            targets: Targets::Class(&labels),
            excess_length,
            ..TokenizeOptions::default()
        };
        let tokenized = tokenize_rows(&rows, &tokenizer(), options, &mut |_, _| {});
        tokenized.map(|tokenized| {
            let examples = tokenized.examples.iter();
            examples.map(Example::len).collect::<Vec<_>>()
        })
    };
    assert_eq!(lengths(ExcessLength::Truncate).expect("cut"), [2, 3]);
    assert_eq!(lengths(ExcessLength::Drop).expect("left out"), [2]);
    let error = lengths(ExcessLength::Fail).expect_err("too long");
    assert!(error.to_string().starts_with("t.jsonl:2: "), "{error}");
}
