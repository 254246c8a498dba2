//! Rows of text as TRL's trainer and transformers make them (`fixtures/make_text_rows.py`).

use serde_json::{Value, json};

use super::*;

const FOUND: &str = include_str!("../../../fixtures/text_rows.json");
const MODEL: [&str; 3] = [
    include_str!("../../../../../assets/model/tokenizer.json"),
    include_str!("../../../../../assets/model/tokenizer_config.json"),
    include_str!("../../../../../assets/model/chat_template.jinja"),
];

/// A row, and what was made of it.
struct Case {
    tokenizer: TextTokenizer,
    value: Value,
}

/// The cases of a kind, on the built-in tokenizer and on Qwen3's.
fn cases(kind: &str) -> Vec<Case> {
    let all: Value = serde_json::from_str(FOUND).expect("JSON");
    let mut cases = Vec::new();
    for (name, found) in all.as_object().expect("an object") {
        let own = match name.as_str() {
            "built-in" => MODEL.map(str::to_owned),
            _ => [
                found["tokenizer"].to_string(),
                found["config"].to_string(),
                text_of(&found["chat_template"]),
            ],
        };
        for value in found["cases"].as_array().expect("a list") {
            if value["kind"] != kind {
                continue;
            }
            let template = value.get("template").map_or(own[2].clone(), text_of);
            let (json, config) = (own[0].as_bytes(), own[1].as_bytes());
            let tokenizer = TextTokenizer::from_bytes(json, config, Some(&template));
            cases.push(Case {
                tokenizer: tokenizer.expect("a good tokenizer"),
                value: value.clone(),
            });
        }
    }
    assert!(cases.len() >= 4, "{kind} has cases on both");
    cases
}

fn text_of(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

impl Case {
    fn tokenized(&self) -> Example {
        let rows = parse_rows("rows.jsonl", &self.value["row"].to_string()).expect("a good row");
        let supervise = match self.value["supervise"].as_str() {
            Some("all") => Supervise::All,
            Some("last") => Supervise::Last,
            _ => Supervise::Assistant,
        };
        let max_length = self.value["max_length"].as_u64().expect("a number");
        let options = TokenizeOptions {
            max_length: Some(max_length as usize),
            supervise,
            ..TokenizeOptions::default()
        };
        let tokenized = tokenize_rows(&rows, &self.tokenizer, options, &mut |_, _| {});
        tokenized.expect("a good row").examples.remove(0)
    }

    fn expected(&self) -> (Value, Value) {
        let Self { value, .. } = self;
        (value["input_ids"].clone(), value["labels"].clone())
    }

    #[track_caller]
    fn is_equal(&self) {
        let found = self.tokenized();
        let found = (json!(found.input_ids), json!(found.labels));
        assert_eq!(found, self.expected(), "{}", self.value["row"]);
    }
}

#[test]
fn prompts_and_completions_have_the_ids_and_labels_of_trl() {
    cases("prompt").iter().for_each(Case::is_equal);
}

#[test]
fn texts_have_the_ids_and_labels_of_trl() {
    cases("text").iter().for_each(Case::is_equal);
}

/// The whole conversation, and what a template marks: TRL's labels, and the masks of transformers.
#[test]
fn conversations_have_the_ids_and_labels_of_trl() {
    cases("chat").iter().for_each(Case::is_equal);
}

/// What docs/data.md says of it: TRL learns the line break behind the end of the turn, too.
#[test]
fn prompts_and_completions_of_turns_have_the_ids_of_trl_and_its_labels_through_the_end_of_the_turn()
{
    for case in cases("spoken") {
        let mut found = case.tokenized();
        let last = found.labels.len() - 1;
        assert_eq!(found.labels[last], IGNORE_INDEX);
        let line_break = case.tokenizer.encode("\n").expect("a text");
        assert_eq!(found.input_ids[last..], line_break);
        found.labels[last] = i64::from(line_break[0]);
        let found = (json!(found.input_ids), json!(found.labels));
        assert_eq!(found, case.expected(), "{}", case.value["row"]);
    }
}

/// What docs/data.md says of it: TRL tokenises both as one text.
#[test]
fn no_token_is_a_part_of_prompt_and_completion_where_trl_has_such_a_token() {
    for case in cases("joined") {
        let found = case.tokenized();
        assert_ne!(json!(found.input_ids), case.expected().0);
        let encode = |key: &str| {
            let text = text_of(&case.value["row"][key]);
            case.tokenizer.encode(&text).expect("a text")
        };
        let eos = case.tokenizer.eos_id().expect("an eos");
        let (prompt, completion) = (encode("prompt"), encode("completion"));
        assert_eq!(found.labels, hiding(prompt.len(), &found.input_ids));
        assert_eq!(found.input_ids, [prompt, completion, vec![eos]].concat());
    }
}
