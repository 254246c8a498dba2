//! Rows that a template lays out, tokenised and labelled.

use super::{hiding, ids};
use crate::error::{Error, Result};
use crate::example::Example;
use crate::row::Row;
use crate::rows::parse_rows;
use crate::template::Template;
use crate::test_support::{EOS, tokenizer};
use crate::tokenize::{TokenizeOptions, tokenize_rows};

fn template(source: &str) -> Template {
    Template::parse(source).expect("a good template")
}

fn tokenize(source: &str, row: &str) -> Result<Example> {
    let template = template(source);
    let options = TokenizeOptions {
        template: Some(&template),
        ..TokenizeOptions::default()
    };
    let rows = parse_rows("train.jsonl", row).expect("a good row");
    let tokenized = tokenize_rows(&rows, &tokenizer(), options, &mut |_, _| {})?;
    Ok(tokenized.examples[0].clone())
}

fn row(text: &str) -> Row {
    let rows = parse_rows("train.jsonl", text).expect("a good row");
    rows.rows()[0].1.clone()
}

/// Labels of a row whose last `learned` ids are learned, the eos included.
fn labels(input_ids: &[u32], learned: usize) -> Vec<i64> {
    hiding(input_ids.len() - learned, input_ids)
}

const ROW: &str = r#"{"prompt":"abc","completion":"de"}"#;
const INSTRUCTION: &str = r#"{"instruction":"add","input":"12","output":"3"}"#;

#[test]
fn virtual_tokens_stand_before_between_and_behind_the_fields() {
    let source = "{prompt:3} {input} {prompt:2} {completion} {prompt:1}";
    let example = tokenize(source, ROW).expect("it fits");
    let expected = [ids("abc"), ids("de"), vec![EOS]].concat();
    assert_eq!(example.labels, labels(&expected, 3));
    assert_eq!(example.input_ids, expected);
    assert_eq!(example.placement, Some(vec![0, 0, 0, 3, 3, 6]));
    assert_eq!(template(source).num_virtual_tokens(), 6);
}

#[test]
fn virtual_tokens_in_front_of_a_bare_row_leave_ids_and_labels_as_they_are() {
    let example = tokenize("{prompt:5}{prompt}{completion}", ROW).expect("it fits");
    let rows = parse_rows("train.jsonl", ROW).expect("a good row");
    let options = TokenizeOptions::default();
    let plain = tokenize_rows(&rows, &tokenizer(), options, &mut |_, _| {});
    let plain = &plain.expect("good rows").examples[0];
    assert_eq!(example.input_ids, plain.input_ids);
    assert_eq!(example.labels, plain.labels);
    assert_eq!(example.placement, Some(vec![0; 5]));
    assert_eq!(plain.placement, None);
}

#[test]
fn a_template_without_virtual_tokens_leaves_them_in_front() {
    let example = tokenize("{prompt}{completion}", ROW).expect("it fits");
    assert_eq!(example.placement, None);
    assert_eq!(template("{prompt}{completion}").num_virtual_tokens(), 0);
}

#[test]
fn given_text_is_one_text_between_virtual_tokens_and_the_learned_one_is_apart() {
    // "he" is one token where its letters touch, and two where something parts them.
    let he = r#"{"prompt":"e","completion":"e"}"#;
    let joined = tokenize("h{prompt}h{completion}", he).expect("it fits");
    let expected = [ids("heh"), ids("e"), vec![EOS]].concat();
    assert_eq!(joined.input_ids, expected);
    let parted = tokenize("h{prompt:1}{prompt}h{completion}", he).expect("it fits");
    let expected = [ids("h"), ids("e"), ids("h"), ids("e"), vec![EOS]].concat();
    assert_eq!(parted.input_ids, expected);
    assert_eq!(parted.placement, Some(vec![1]));
    assert_ne!(joined.input_ids.len(), parted.input_ids.len());
}

#[test]
fn spaces_beside_virtual_tokens_are_layout_and_all_else_is_text() {
    for (source, given) in [
        ("a  {prompt:1}  b{completion}", "ab"),
        ("  {prompt:1} {completion}", ""),
        ("{prompt:1} {prompt:1}b {completion}", "b "),
        (" {prompt:1}\n {prompt} {completion}", "\n abc "),
        ("a\t{prompt:1}\u{a0}b{completion}", "a\t\u{a0}b"),
        ("{{{prompt:1}}}{{prompt:1}} {completion}", "{}{prompt:1} "),
    ] {
        let example = tokenize(source, ROW).expect("it fits");
        let given = [ids(given), ids("de"), vec![EOS]].concat();
        assert_eq!(example.input_ids, given, "{source:?}");
    }
}

/// The last rows of the table in `docs/data.md`.
#[test]
fn the_documented_examples_are_laid_out_as_documented() {
    let row = r#"{"prompt":"name: Aromi","completion":" A café."}"#;
    for (source, given, placement) in [
        (
            "{prompt:2} {input} {prompt:1} {completion}",
            "name: Aromi",
            Some(vec![0, 0, 11]),
        ),
        ("{prompt} ->{completion}", "name: Aromi ->", None),
        (
            "Table: {prompt:2} {prompt}\n{prompt:1} {completion} {prompt:1}",
            "Table:name: Aromi\n",
            // A byte is a token, and é has two.
            Some(vec![6, 6, 18, 28]),
        ),
    ] {
        let example = tokenize(source, row).expect("it fits");
        let expected = [ids(given), ids(" A café."), vec![EOS]].concat();
        assert_eq!(example.labels, labels(&expected, 10), "{source:?}");
        assert_eq!(example.input_ids, expected, "{source:?}");
        assert_eq!(example.placement, placement, "{source:?}");
    }
}

#[test]
fn given_fields_may_be_repeated_or_left_out() {
    let source = "{prompt}{prompt:1}{input}{completion}";
    let twice = tokenize(source, ROW).expect("it fits");
    assert_eq!(twice.input_ids[..6], ids("abcabc"));
    assert_eq!(twice.placement, Some(vec![3]));
    let without = tokenize("{prompt:2}{completion}", ROW).expect("it fits");
    assert_eq!(without.input_ids, [ids("de"), vec![EOS]].concat());
}

#[test]
fn instruction_rows_have_their_fields_and_no_layout_of_their_own() {
    for (source, row, given) in [
        ("{instruction}: {input}\n{output}", INSTRUCTION, "add: 12\n"),
        ("{instruction}{completion}", INSTRUCTION, "add"),
        (
            "{instruction}[{input}]{output}",
            r#"{"instruction":"add","output":"3"}"#,
            "add[]",
        ),
    ] {
        let example = tokenize(source, row).expect("it fits");
        let expected = [ids(given), ids("3"), vec![EOS]].concat();
        assert_eq!(example.labels, labels(&expected, 2), "{source:?}");
        assert_eq!(example.input_ids, expected, "{source:?}");
    }
}

#[test]
fn text_rows_are_learned_whole_behind_what_the_template_says() {
    let example = tokenize("say {prompt:2}{text}", r#"{"text":"abc"}"#).expect("it fits");
    let expected = [ids("say"), ids("abc"), vec![EOS]].concat();
    assert_eq!(example.labels, labels(&expected, 4));
    assert_eq!(example.input_ids, expected);
    assert_eq!(example.placement, Some(vec![3, 3]));
}

#[test]
fn a_field_that_the_rows_do_not_have_is_named_with_those_they_have() {
    let messages = r#"{"messages":[{"role":"user","content":"a"}]}"#;
    let tokenized = r#"{"input_ids":[1,2],"labels":[1,2]}"#;
    for (source, row, expected) in [
        (
            "{instruction}{completion}",
            ROW,
            r#"has `{instruction}`, but {"prompt","completion"} rows have `{prompt}` (or `{input}`) and `{completion}`"#,
        ),
        ("{prompt}{output}", ROW, "has `{output}`"),
        ("{prompt}{text}", ROW, "has `{text}`"),
        (
            "{prompt}{output}",
            INSTRUCTION,
            "rows have `{instruction}`, `{input}` and `{output}` (or `{completion}`)",
        ),
        (
            "{prompt:1}{completion}",
            r#"{"text":"a"}"#,
            r#"{"text"} rows have `{text}`"#,
        ),
        ("{prompt}{completion}", messages, "rows take no template"),
        (
            "{text}",
            tokenized,
            r#"{"input_ids","labels"} rows take no template; write prompt/completion rows"#,
        ),
    ] {
        let error = tokenize(source, row).expect_err("it does not fit");
        let Error::Row { path, line, source } = error else {
            panic!("{error}")
        };
        assert_eq!((path.as_str(), line), ("train.jsonl", 1));
        let message = source.to_string();
        assert!(message.contains(expected), "{message}");
        assert!(!message.contains('\n'), "{message}");
    }
}

#[test]
fn a_prompt_is_all_that_stands_before_the_learned_field() {
    let source = "{prompt:1}x{prompt:2}{prompt}{prompt:1}{completion}{prompt:4}";
    let prompt = template(source).prompt_ids(&row(ROW), &tokenizer());
    let prompt = prompt.expect("it fits");
    assert_eq!(prompt.input_ids, ids("xabc"));
    assert_eq!(prompt.placement, Some(vec![0, 1, 1, 4]));
    let example = tokenize(source, ROW).expect("it fits");
    assert_eq!(example.input_ids[..4], prompt.input_ids);
    assert_eq!(example.placement.expect("placed")[..4], [0, 1, 1, 4]);
}
