//! Texts, pairs and questions as transformers encodes them (`fixtures/make_task_rows.py`).

use serde_json::{Value, json};

use super::*;
use crate::example::{Parts, RowLabel};
use crate::labels::{Labels, ProblemType};

const CASES: &str = include_str!("../../../fixtures/task_rows.json");
const TOKENIZER: &str = include_str!("../../../../../assets/model/tokenizer.json");

/// The built-in model's tokenizer, or the same with a BOS in front of every text, as Llama 3's.
fn tokenizer_of(name: &str) -> TextTokenizer {
    let mut json: Value = serde_json::from_str(TOKENIZER).expect("JSON");
    if name == "bos" {
        let bos = "<|endoftext|>";
        let special = json!({"SpecialToken": {"id": bos, "type_id": 0}});
        let text = |id: &str| json!({"Sequence": {"id": id, "type_id": 0}});
        json["post_processor"] = json!({
            "type": "TemplateProcessing",
            "single": [special, text("A")],
            "pair": [special, text("A"), special, text("B")],
            "special_tokens": {bos: {"id": bos, "ids": [2045], "tokens": [bos]}},
        });
    }
    TextTokenizer::from_bytes(json.to_string().as_bytes(), CONFIG.as_bytes(), None)
        .expect("the tokenizer is good")
}

fn cases(kind: &str) -> Vec<(TextTokenizer, Value)> {
    let all: Value = serde_json::from_str(CASES).expect("JSON");
    let all = all.as_object().expect("an object").iter();
    let cases = all.flat_map(|(name, cases)| {
        let cases = cases[kind].as_array().expect("a list").clone();
        let named = cases.into_iter().map(|case| (tokenizer_of(name), case));
        named.collect::<Vec<_>>()
    });
    cases.collect()
}

fn number(value: &Value) -> usize {
    value.as_u64().expect("a whole number") as usize
}

fn examples_of(
    row: &Value,
    case: &Value,
    tokenizer: &TextTokenizer,
    targets: Targets<'_>,
) -> Vec<Example> {
    let rows = parse_rows("rows.jsonl", &row.to_string()).expect("a good row");
    let options = TokenizeOptions {
        max_length: Some(number(&case["max_length"])),
        targets,
        ..TokenizeOptions::default()
    };
    let tokenized = tokenize_rows(&rows, tokenizer, options, &mut |_, _| {});
    tokenized.expect("a good row").examples
}

#[test]
fn texts_and_pairs_are_encoded_and_cut_as_by_transformers() {
    let labels = Labels::numbered(2, ProblemType::SingleLabel);
    for (tokenizer, case) in cases("texts") {
        let row = json!({"text": case["text"], "text_pair": case["text_pair"], "label": 1});
        let examples = examples_of(&row, &case, &tokenizer, Targets::Class(&labels));
        assert_eq!(json!(examples[0].input_ids), case["input_ids"], "{case}");
        assert_eq!(examples[0].row_label, Some(RowLabel::Class(1)));
    }
}

#[test]
fn windows_and_spans_are_those_of_run_qa() {
    for (tokenizer, case) in cases("questions") {
        let context = case["context"].as_str().expect("a text");
        let answer = case["answer"].as_str().expect("a text");
        let before = &context[..context.find(answer).expect("it is there")];
        let row = json!({
            "context": context, "question": case["question"],
            "answers": [{"text": answer, "answer_start": before.chars().count()}],
        });
        let targets = Targets::Answers {
            doc_stride: number(&case["doc_stride"]),
            no_answer: false,
            every_window: true,
        };
        let examples = examples_of(&row, &case, &tokenizer, targets);
        let windows = case["windows"].as_array().expect("a list");
        assert_eq!(examples.len(), windows.len(), "{case}");
        for (example, window) in examples.iter().zip(windows) {
            assert_eq!(json!(example.input_ids), window["input_ids"]);
            let Parts::Context {
                tokens,
                characters,
                no_answer: None,
            } = &example.parts
            else {
                panic!("{:?}", example.parts)
            };
            assert_eq!(json!([tokens.start, tokens.end]), window["tokens"]);
            let span = match example.row_label {
                Some(RowLabel::Span { start, end }) => json!([start, end]),
                Some(RowLabel::Unknown) => Value::Null,
                ref other => panic!("{other:?}"),
            };
            assert_eq!(span, window["span"], "{window}");
            // White space at the edges of a token is no part of it here.
            let offsets = window["offsets"].as_array().expect("a list");
            assert_eq!(characters.len(), offsets.len());
            for (range, offset) in characters.iter().zip(offsets) {
                let of = |start: usize, end: usize| -> String {
                    context.chars().skip(start).take(end - start).collect()
                };
                let expected = of(number(&offset[0]), number(&offset[1]));
                assert_eq!(of(range.start, range.end), expected.trim());
                assert!(number(&offset[0]) <= range.start && range.end <= number(&offset[1]));
            }
        }
    }
}
