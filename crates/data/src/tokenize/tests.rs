//! Rows of each format, tokenised and labelled.

mod excess;
mod heads;
mod parity;
mod reach;
mod refusals;
mod supervise;
mod templates;
mod trl;
mod words;

use super::*;
use crate::example::IGNORE_INDEX;
use crate::layout::instruction_prompt;
use crate::rows::parse_rows;
use crate::test_support::{CONFIG, EOS, IM_START, tokenizer, tokenizer_json};

fn tokenize(text: &str, max_length: Option<usize>) -> Result<Tokenized> {
    tokenize_rows(
        &parse_rows("train.jsonl", text)?,
        &tokenizer(),
        TokenizeOptions {
            max_length,
            ..TokenizeOptions::default()
        },
        &mut |_, _| {},
    )
}

fn only(text: &str) -> Example {
    let mut tokenized = tokenize(text, None).expect("a good row");
    assert_eq!(tokenized.examples.len(), 1);
    tokenized.examples.remove(0)
}

fn ids(text: &str) -> Vec<u32> {
    tokenizer().encode(text).expect("byte-level")
}

/// Labels that hide the first `hidden` ids.
fn hiding(hidden: usize, ids: &[u32]) -> Vec<i64> {
    let label = |(index, &id): (usize, &u32)| {
        if index < hidden {
            IGNORE_INDEX
        } else {
            i64::from(id)
        }
    };
    ids.iter().enumerate().map(label).collect()
}

fn full_message(error: &Error) -> String {
    let mut message = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        message += &format!(": {error}");
        source = error.source();
    }
    message
}

#[test]
fn a_completion_is_supervised_and_ends_with_eos() {
    let example = only(r#"{"prompt":"say ","completion":"hello"}"#);
    let expected = [ids("say "), ids("hello"), vec![EOS]].concat();
    assert_eq!(example.input_ids, expected);
    assert_eq!(example.labels, hiding(4, &expected));
}

#[test]
fn no_token_straddles_prompt_and_completion() {
    // "he" is one token, but not when its letters are in different fields.
    let example = only(r#"{"prompt":"h","completion":"e"}"#);
    assert_eq!(example.input_ids, [ids("h"), ids("e"), vec![EOS]].concat());
    assert_ne!(example.input_ids[..2], ids("he"));
}

#[test]
fn an_empty_completion_still_teaches_to_stop() {
    let example = only(r#"{"prompt":"ab","completion":""}"#);
    assert_eq!(example.labels, [IGNORE_INDEX, IGNORE_INDEX, i64::from(EOS)]);
}

#[test]
fn text_is_supervised_throughout() {
    let example = only(r#"{"text":"hello"}"#);
    assert_eq!(example.input_ids, [ids("hello"), vec![EOS]].concat());
    assert_eq!(example.labels, hiding(0, &example.input_ids));
}

#[test]
fn an_instruction_is_the_documented_prompt_and_its_output() {
    for (row, input) in [
        (
            r#"{"instruction":"Add.","input":"1 2","output":"3"}"#,
            Some("1 2"),
        ),
        (r#"{"instruction":"Add.","output":"3"}"#, None),
    ] {
        let prompt = ids(&instruction_prompt("Add.", input));
        let expected = [prompt.clone(), ids("3"), vec![EOS]].concat();
        let example = only(row);
        assert_eq!(example.input_ids, expected);
        assert_eq!(example.labels, hiding(prompt.len(), &expected));
    }
    assert!(!instruction_prompt("Add.", None).contains("### Input"));
}

#[test]
fn a_chat_row_is_the_rendered_conversation_with_the_answer_supervised() {
    let example = only(
        r#"{"messages":[{"role":"user","content":"hi"},{"role":"assistant","content":"hello"}]}"#,
    );
    let given = ids(
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n",
    );
    let answer = ids("hello<|im_end|>");
    let expected = [given.clone(), answer, ids("\n")].concat();
    let mut labels = hiding(given.len(), &expected);
    *labels.last_mut().expect("not empty") = IGNORE_INDEX;
    assert_eq!(example.input_ids, expected);
    assert_eq!(example.labels, labels);
}

#[test]
fn given_ids_are_used_as_they_are() {
    let example = only(r#"{"input_ids":[1,2,3],"labels":[-100,-100,9]}"#);
    assert_eq!(
        (example.input_ids, example.labels),
        (vec![1, 2, 3], vec![-100, -100, 9])
    );
}

#[test]
fn long_rows_lose_their_end_and_are_counted() {
    let rows = [
        r#"{"prompt":"ab","completion":"cd"}"#,
        r#"{"prompt":"ab","completion":"c"}"#,
        r#"{"prompt":"abcd","completion":"e"}"#,
    ];
    let tokenized = tokenize(&rows.join("\n"), Some(4)).expect("two rows are left");
    assert_eq!((tokenized.truncated, tokenized.dropped), (1, 1));
    assert_eq!(tokenized.examples[0].input_ids, ids("abcd"));
    assert_eq!(tokenized.examples[0].labels, hiding(2, &ids("abcd")));
    assert_eq!(
        tokenized.examples[1].input_ids,
        [ids("abc"), vec![EOS]].concat()
    );
    assert_eq!(
        tokenized
            .examples
            .iter()
            .map(|example| example.line)
            .collect::<Vec<_>>(),
        [1, 2]
    );
}

#[test]
fn a_text_that_ends_with_the_eos_gets_no_second_one() {
    for row in [
        r#"{"prompt":"a","completion":"b<|endoftext|>"}"#,
        r#"{"text":"ab<|endoftext|>"}"#,
    ] {
        let ends = only(row).input_ids;
        assert_eq!(ends, [ids("ab"), vec![EOS]].concat(), "{row}");
    }
}

#[test]
fn several_files_are_tokenised_one_after_the_other_and_named_in_errors() {
    let good = parse_rows("a.jsonl", r#"{"text":"abc"}"#).expect("a good row");
    let chat = r#"{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]}"#;
    let chat = parse_rows("b.jsonl", &format!("\n{chat}\n{chat}")).expect("good rows");
    let run = |other: Rows, max_length| {
        let joined = Rows::join([(good.clone(), 1.0), (other, 1.0)]).expect("one task");
        let options = TokenizeOptions {
            max_length,
            ..TokenizeOptions::default()
        };
        let mut reports = Vec::new();
        let tokenized = tokenize_rows(&joined, &tokenizer(), options, &mut |done, all| {
            reports.push((done, all));
        });
        (tokenized, reports)
    };
    let (tokenized, reports) = run(chat.clone(), None);
    let tokenized = tokenized.expect("good rows");
    assert_eq!(reports, [(1, 3), (3, 3)]);
    let places = tokenized.examples.iter();
    let places: Vec<_> = places.map(|example| (example.row, example.line)).collect();
    assert_eq!(places, [(0, 1), (1, 2), (2, 3)]);
    let counts: Vec<_> = tokenized.files.iter().map(|file| file.examples).collect();
    assert_eq!(counts, [1, 2]);

    let error = run(chat, Some(4)).0.expect_err("no conversation is left");
    assert!(error.to_string().starts_with("b.jsonl: "), "{error}");
    let empty = r#"{"messages":[{"role":"user","content":"a"}]}"#;
    let empty = parse_rows("c.jsonl", empty).expect("a good row");
    let error = run(empty, None).0.expect_err("nothing to learn");
    assert!(error.to_string().starts_with("c.jsonl:1: "), "{error}");
}

#[test]
fn progress_ends_with_all_rows_and_chunks_keep_file_order() {
    let text: String = (0..600)
        .map(|index| format!("{{\"text\":\"row {index}\"}}\n"))
        .collect();
    let rows = parse_rows("train.jsonl", &text).expect("good rows");
    let mut reports = Vec::new();
    let tokenized = tokenize_rows(
        &rows,
        &tokenizer(),
        TokenizeOptions::default(),
        &mut |done, all| reports.push((done, all)),
    );
    assert_eq!(reports, [(256, 600), (512, 600), (600, 600)]);
    let examples = tokenized.expect("good rows").examples;
    assert_eq!(
        examples[599].input_ids,
        [ids("row 599"), vec![EOS]].concat()
    );
    assert!(
        examples
            .iter()
            .enumerate()
            .all(|(index, example)| example.line == index + 1)
    );
}

#[test]
fn a_row_that_is_cut_keeps_its_virtual_tokens_and_they_do_not_count() {
    let template = Template::parse("{prompt:9}{prompt}{prompt:1}{completion}{prompt:2}");
    let template = template.expect("a good template");
    let rows = r#"{"prompt":"ab","completion":"cd"}"#;
    let rows = parse_rows("train.jsonl", rows).expect("a good row");
    for (max_length, behind, truncated) in [(5, 5, 0), (4, 4, 1), (3, 3, 1)] {
        let options = TokenizeOptions {
            max_length: Some(max_length),
            template: Some(&template),
            ..TokenizeOptions::default()
        };
        let tokenized = tokenize_rows(&rows, &tokenizer(), options, &mut |_, _| {});
        let tokenized = tokenized.expect("something is left");
        let example = &tokenized.examples[0];
        assert_eq!(
            (example.len(), tokenized.truncated),
            (max_length, truncated)
        );
        let expected = [vec![0; 9], vec![2], vec![behind; 2]].concat();
        assert_eq!(example.placement, Some(expected));
    }
}

/// A tokenizer that adds a BOS and an EOS by itself, as Llama's adds its BOS.
fn tokenizer_with_bos() -> TextTokenizer {
    let mut json: serde_json::Value = serde_json::from_str(&tokenizer_json()).expect("JSON");
    let special = |text: &str| serde_json::json!({"SpecialToken": {"id": text, "type_id": 0}});
    let token =
        |text: &str, id: u32| serde_json::json!({"id": text, "ids": [id], "tokens": [text]});
    let text = serde_json::json!({"Sequence": {"id": "A", "type_id": 0}});
    json["post_processor"] = serde_json::json!({
        "type": "TemplateProcessing",
        "single": [special("<|im_start|>"), text, special("<|endoftext|>")],
        "pair": [],
        "special_tokens": {
            "<|im_start|>": token("<|im_start|>", IM_START),
            "<|endoftext|>": token("<|endoftext|>", EOS),
        },
    });
    TextTokenizer::from_bytes(json.to_string().as_bytes(), CONFIG.as_bytes(), None)
        .expect("the tokenizer is good")
}

#[test]
fn a_bos_that_the_tokenizer_adds_starts_each_row_once() {
    let tokenizer = tokenizer_with_bos();
    let tokenize = |row: &str, template: Option<&Template>| {
        let rows = parse_rows("train.jsonl", row).expect("a good row");
        let options = TokenizeOptions {
            max_length: None,
            template,
            ..TokenizeOptions::default()
        };
        let tokenized = tokenize_rows(&rows, &tokenizer, options, &mut |_, _| {});
        tokenized.expect("a good row").examples.remove(0)
    };
    let row = r#"{"prompt":"say ","completion":"hello"}"#;
    let expected = [vec![IM_START], ids("say "), ids("hello"), vec![EOS]].concat();
    let example = tokenize(row, None);
    assert_eq!(example.input_ids, expected);
    assert_eq!(example.labels, hiding(5, &expected));
    // Virtual tokens in front of the first text are in front of its BOS.
    let template = Template::parse("{prompt:2}{prompt}{completion}").expect("a template");
    let placed = tokenize(row, Some(&template));
    assert_eq!(
        (placed.input_ids, placed.placement),
        (expected, Some(vec![0, 0]))
    );
    // The first token of a bare text is learned, from the BOS.
    let expected = [vec![IM_START], ids("hello"), vec![EOS]].concat();
    let example = tokenize(r#"{"text":"hello"}"#, None);
    assert_eq!(example.input_ids, expected);
    assert_eq!(example.labels, hiding(1, &expected));
    // One that is written already is not added again.
    let written = tokenizer
        .encode_start("<|im_start|>hello")
        .expect("byte-level");
    assert_eq!(written, [vec![IM_START], ids("hello")].concat());
}
