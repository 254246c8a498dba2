//! What of a row reaches the model, and what is named because it does not.

use serde_json::{Value, json};

use super::{full_message, ids};
use crate::error::{Error, Result};
use crate::rows::parse_rows;
use crate::template::Template;
use crate::test_support::{CONFIG, EOS, IM_END, tokenizer, tokenizer_json};
use crate::tokenize::{TokenizeOptions, Tokenized, tokenize_rows};
use crate::tokenizer::TextTokenizer;

/// A template that writes tools and tool calls, and no other role than these four.
const TEMPLATE: &str = "{% if tools %}{{ tools | tojson }}{% endif %}{% for m in messages %}\
    {% if m.role in ['system', 'user', 'assistant', 'tool'] %}<|im_start|>{{ m.role }}\n{{ m.content }}\
    {% if m.tool_calls %}{{ m.tool_calls | tojson }}{% endif %}<|im_end|>\n{% endif %}{% endfor %}\
    {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

fn with_template(template: &str) -> TextTokenizer {
    let (json, config) = (tokenizer_json(), CONFIG.as_bytes());
    TextTokenizer::from_bytes(json.as_bytes(), config, Some(template)).expect("a tokenizer")
}

fn tokenize(tokenizer: &TextTokenizer, rows: &[Value]) -> Result<Tokenized> {
    let lines: Vec<String> = rows.iter().map(Value::to_string).collect();
    let rows = parse_rows("chat.jsonl", &lines.join("\n"))?;
    tokenize_rows(&rows, tokenizer, TokenizeOptions::default(), &mut |_, _| {})
}

fn text(tokenizer: &TextTokenizer, row: &Value) -> String {
    let tokenized = tokenize(tokenizer, std::slice::from_ref(row)).expect("a good row");
    let ids = &tokenized.examples[0].input_ids;
    tokenizer.decode(ids, false).expect("byte-level")
}

fn chat(extra: Value) -> Value {
    let mut answer = json!({"role": "assistant", "content": "b"});
    let fields = answer.as_object_mut().expect("an object");
    fields.extend(extra.as_object().expect("an object").clone());
    json!({"messages": [{"role": "user", "content": "a"}, answer]})
}

#[test]
fn tools_and_tool_calls_are_written_and_a_missing_content_is_no_content() {
    let tokenizer = with_template(TEMPLATE);
    let calls = json!([{"type": "function", "function": {"name": "f", "arguments": "{\"n\": 1}"}}]);
    let mut row = chat(json!({"content": "", "tool_calls": calls}));
    row["tools"] = json!([{"name": "f"}]);
    let expected = text(&tokenizer, &row);
    assert!(expected.starts_with(r#"[{"name": "f"}]"#), "{expected}");
    assert!(
        expected.contains(r#""arguments": "{\"n\": 1}""#),
        "{expected}"
    );
    row["messages"][1]["content"] = Value::Null;
    assert_eq!(text(&tokenizer, &row), expected);
}

#[test]
fn a_turn_that_the_template_leaves_out_is_refused_with_its_role() {
    let tokenizer = with_template(TEMPLATE);
    let mut row = chat(json!({}));
    // Its text stands elsewhere, too.
    row["messages"][0] = json!({"role": "oracle", "content": "b"});
    let error = tokenize(&tokenizer, &[chat(json!({})), row]).expect_err("a turn is left out");
    let message = full_message(&error);
    assert!(message.starts_with("chat.jsonl:2: "), "{message}");
    assert!(
        message.contains(r#"messages[0], whose role is "oracle""#),
        "{message}"
    );
}

#[test]
fn tool_calls_that_the_template_leaves_out_are_refused() {
    let tokenizer = with_template(&TEMPLATE.replace("m.tool_calls", "m.other"));
    let row = chat(json!({"tool_calls": [{"function": {"name": "f"}}]}));
    let error = tokenize(&tokenizer, &[row]).expect_err("they are left out");
    let message = full_message(&error);
    assert!(
        message.contains("does not render `tool_calls`"),
        "{message}"
    );
}

#[test]
fn keys_that_the_template_does_not_read_are_named_once_with_their_rows() {
    let tokenizer = with_template(TEMPLATE);
    let mut with_variable = chat(json!({"name": "n"}));
    with_variable["chat_template_kwargs"] = json!({"thinks": true});
    with_variable["id"] = json!(1);
    let tokenized = tokenize(&tokenizer, &[chat(json!({"name": "n"})), with_variable]);
    assert_eq!(
        tokenized.expect("good rows").notes,
        [
            r#"chat.jsonl: key "id" in 1 row is not used"#,
            r#"chat.jsonl: key "messages[].name" in 2 rows is not used by the model's chat template"#,
            r#"chat.jsonl: key "thinks" in 1 row is not used by the model's chat template"#,
        ]
    );
    // A key that says something in one row is used, whatever it says in the others.
    let reads =
        with_template(&TEMPLATE.replace("{{ m.content }}", "{{ m.content }}{{ m.name or '' }}"));
    let rows = [chat(json!({"name": ""})), chat(json!({"name": "n"}))];
    assert!(tokenize(&reads, &rows).expect("good rows").notes.is_empty());
}

#[test]
fn a_turn_that_is_written_in_part_is_counted() {
    let tokenizer =
        with_template(&TEMPLATE.replace("{{ m.content }}", "{{ m.content.split('!')[-1] }}"));
    let rows = [chat(json!({})), chat(json!({"content": "no!yes"}))];
    let notes = tokenize(&tokenizer, &rows).expect("good rows").notes;
    assert_eq!(
        notes,
        [
            "chat.jsonl: in 1 row the model's chat template leaves out or changes a part of a turn's text"
        ]
    );
}

#[test]
fn system_and_history_are_named_where_a_template_has_no_place_for_them() {
    let row = r#"{"instruction":"a","output":"b","system":"s","history":[["c","d"]]}"#;
    let rows = parse_rows("train.jsonl", row).expect("a good row");
    let template = Template::parse("{instruction}{output}").expect("a template");
    let notes = |template| {
        let options = TokenizeOptions {
            template,
            ..TokenizeOptions::default()
        };
        let tokenized = tokenize_rows(&rows, &tokenizer(), options, &mut |_, _| {});
        tokenized.expect("a good row").notes
    };
    assert!(notes(None).is_empty());
    assert_eq!(
        notes(Some(&template)),
        [
            r#"train.jsonl: key "system" in 1 row is not used: the template has no place for it"#,
            r#"train.jsonl: key "history" in 1 row is not used: the template has no place for it"#,
        ]
    );
}

#[test]
fn a_history_is_given_and_not_learned() {
    let row = r#"{"instruction":"a","output":"b","history":[["c","d"]]}"#;
    let rows = parse_rows("train.jsonl", row).expect("a good row");
    let tokenized = tokenize_rows(
        &rows,
        &tokenizer(),
        TokenizeOptions::default(),
        &mut |_, _| {},
    );
    let example = &tokenized.expect("a good row").examples[0];
    let learned: Vec<i64> = example
        .labels
        .iter()
        .copied()
        .filter(|label| *label >= 0)
        .collect();
    let expected = [ids("b"), vec![EOS]].concat();
    assert_eq!(
        learned,
        expected.into_iter().map(i64::from).collect::<Vec<_>>()
    );
}

#[test]
fn a_token_that_the_table_lacks_is_refused_with_its_line() {
    // The last special token has no row.
    let tokenizer = tokenizer().for_table(IM_END as usize);
    let fits = json!({"prompt": "a", "completion": "b"});
    for row in [
        json!({"prompt": "a<|im_end|>", "completion": "b"}),
        json!({"prompt": "a", "completion": "<|im_end|>"}),
    ] {
        let error = tokenize(&tokenizer, &[fits.clone(), row]).expect_err("it has no row");
        let message = full_message(&error);
        assert!(message.starts_with("chat.jsonl:2: "), "{message}");
        assert!(
            message.contains(r#""<|im_end|>" has the id 260"#),
            "{message}"
        );
    }
    assert!(tokenize(&tokenizer, &[fits]).is_ok());
    let ids = json!({"input_ids": [1, IM_END], "labels": [1, 2]});
    let message = full_message(&tokenize(&tokenizer, &[ids]).expect_err("it has no row"));
    assert!(message.contains("input_ids[1] is 260"), "{message}");
    // An eos without a row ends no text.
    let tokenizer = tokenizer.for_table(EOS as usize);
    let error = tokenize(&tokenizer, &[json!({"text": "a"})]).expect_err("there is no eos");
    assert!(matches!(error, Error::Row { line: 1, .. }), "{error}");
}
