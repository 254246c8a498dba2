//! Rows whose labels a head learns: texts here, tagged words and questions beside them.

mod answers;
mod tags;

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

fn tagging(labels: &Labels, label_all_tokens: bool) -> Targets<'_> {
    Targets::Tags {
        labels,
        label_all_tokens,
    }
}

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
            answers::ANSWERS,
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
    // A field may be empty, and stand anywhere.
    let alone = rows(&[r#"{"text":"xxxx","label":"a"}"#]);
    for (source, text) in [
        ("Q {text} A {text_pair}", "Q x A "),
        ("{text_pair}A {text}", "A xxxx"),
    ] {
        let template = Template::parse(source).expect("a good template");
        let options = TokenizeOptions {
            template: Some(&template),
            ..options(Targets::Class(&labels), Some(6))
        };
        let example = run(&alone, options).expect("a good row").examples.remove(0);
        assert_eq!(example.input_ids, ids(text), "{source}");
    }
    for (source, expected) in [
        (
            "{text}{prompt:1}{label}",
            "has `{label}`, which a head learns without words",
        ),
        ("{input}{completion}", "has `{input}`, but"),
        (
            "{prompt:2}A {text_pair}",
            "has no `{text}`, the text whose label is learned",
        ),
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
fn a_cut_that_leaves_no_token_of_what_is_judged_is_refused_with_its_line() {
    let labels = labels(&["a", "b"]);
    let texts = rows(&[r#"{"text":"","label":"a"}"#, r#"{"text":"xy","label":"a"}"#]);
    let ids = rows(&[r#"{"input_ids":[1,2],"label":"a"}"#]);
    let tags = rows(&[r#"{"tokens":["x","y"],"tags":["a","b"]}"#]);
    let template = Template::parse("{text}\nSo:").expect("a good template");
    let head = Targets::Class(&labels);
    let tag = tagging(&labels, false);
    for (rows, targets, template, limit, line, what) in [
        (&texts, head, Some(&template), 4, 2, "the text"),
        (&texts, head, Some(&template), 3, 1, "the text"),
        (&ids, head, None, 0, 1, "the text"),
        (&tags, tag, None, 0, 1, "the words"),
    ] {
        let options = TokenizeOptions {
            template,
            ..options(targets, Some(limit))
        };
        let error = run(rows, options).expect_err(what).to_string();
        let expected = format!(
            "train.jsonl:{line}: max_length = {limit} leaves no room for a token of {what}; raise max_length"
        );
        assert_eq!(error, expected);
    }
    // The special tokens around a text are not a part of it.
    for (rows, targets) in [
        (&rows(&[r#"{"text":"x","label":"a"}"#]), head),
        (&tags, tag),
    ] {
        for limit in 0..4 {
            let options = options(targets, Some(limit));
            let done = tokenize_rows(rows, &tokenizer_with_bos(), options, &mut |_, _| {});
            assert_eq!(done.is_ok(), limit == 3, "{limit}");
        }
    }
}
