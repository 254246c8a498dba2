//! Which tokens are learned.

use super::*;

const CHAT: &str = r#"{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"},
    {"role":"user","content":"c"},{"role":"assistant","content":"d"},{"role":"user","content":"e"}]}"#;

/// With marks around each turn of the assistant, its header included.
const MARKED: &str = "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}<|im_start|>assistant\n\
    {{ m.content }}<|im_end|>{% endgeneration %}\n{% else %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n\
    {% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

fn marked() -> TextTokenizer {
    let (json, config) = (tokenizer_json(), CONFIG.as_bytes());
    TextTokenizer::from_bytes(json.as_bytes(), config, Some(MARKED)).expect("a tokenizer")
}

fn example(text: &str, tokenizer: &TextTokenizer, supervise: Supervise) -> Result<Example> {
    let rows = parse_rows("train.jsonl", &text.replace('\n', "")).expect("a good row");
    let options = TokenizeOptions {
        supervise,
        ..TokenizeOptions::default()
    };
    let tokenized = tokenize_rows(&rows, tokenizer, options, &mut |_, _| {});
    tokenized.map(|mut tokenized| tokenized.examples.remove(0))
}

/// The text of the tokens that are learned.
fn learned(text: &str, tokenizer: &TextTokenizer, supervise: Supervise) -> String {
    let example = example(text, tokenizer, supervise).expect("a good row");
    let labels = example.labels.iter();
    let ids: Vec<u32> = labels.filter_map(|&id| u32::try_from(id).ok()).collect();
    tokenizer.decode(&ids, false).expect("byte-level")
}

#[test]
fn of_a_conversation_the_turns_of_the_assistant_the_last_or_all_is_learned() {
    let tokenizer = tokenizer();
    for (supervise, expected) in [
        (Supervise::Assistant, "b<|im_end|>d<|im_end|>"),
        (Supervise::Last, "d<|im_end|>"),
    ] {
        assert_eq!(learned(CHAT, &tokenizer, supervise), expected);
    }
    let all = example(CHAT, &tokenizer, Supervise::All).expect("a good row");
    assert_eq!(all.labels, hiding(0, &all.input_ids));
}

#[test]
fn marks_decide_what_of_the_assistant_is_learned() {
    let tokenizer = marked();
    let turn = |text: &str| format!("<|im_start|>assistant\n{text}<|im_end|>");
    let both = turn("b") + &turn("d");
    assert_eq!(learned(CHAT, &tokenizer, Supervise::Assistant), both);
    assert_eq!(learned(CHAT, &tokenizer, Supervise::Last), turn("d"));
    let all = example(CHAT, &tokenizer, Supervise::All).expect("a good row");
    assert_eq!(all.labels, hiding(0, &all.input_ids));
}

#[test]
fn a_turn_that_a_flag_takes_out_is_learned_under_no_choice() {
    let without = |content: &str| {
        let turn = format!(r#""content":"{content}""#);
        CHAT.replace(&turn, &format!(r#"{turn},"weight":0"#))
    };
    for tokenizer in [tokenizer(), marked()] {
        // The last turn that is learned, not the last turn.
        let last = learned(&without("d"), &tokenizer, Supervise::Last);
        let assistant = learned(CHAT, &tokenizer, Supervise::Assistant);
        assert_eq!(last, assistant[..assistant.len() / 2]);
        let all = learned(&without("b"), &tokenizer, Supervise::All);
        assert!(all.contains("assistant\nd<|im_end|>"), "{all}");
        assert!(all.contains("a<|im_end|>") && all.contains("e<|im_end|>"));
        assert!(!all.contains("b<|im_end|>"), "{all}");
        // Its header stays: under every choice it is what a prompt ends with.
        assert_eq!(all.matches("<|im_start|>assistant\n").count(), 2, "{all}");
    }
}

#[test]
fn of_a_prompt_and_a_completion_all_is_learned_or_the_completion() {
    let tokenizer = tokenizer();
    for row in [
        r#"{"prompt":"ab","completion":"c"}"#.to_owned(),
        r#"{"instruction":"ab","output":"c"}"#.to_owned(),
    ] {
        for supervise in [Supervise::Assistant, Supervise::Last] {
            assert_eq!(learned(&row, &tokenizer, supervise), "c<|endoftext|>");
        }
        let all = example(&row, &tokenizer, Supervise::All).expect("a good row");
        assert_eq!(all.labels, hiding(0, &all.input_ids));
        assert_eq!(all.input_ids, only(&row).input_ids);
    }
}

#[test]
fn texts_and_given_labels_are_the_same_under_each_choice() {
    let tokenizer = tokenizer();
    for row in [
        r#"{"text":"ab"}"#,
        r#"{"input_ids":[1,2,3],"labels":[-100,-100,3]}"#,
    ] {
        for supervise in [Supervise::Last, Supervise::All] {
            let found = example(row, &tokenizer, supervise).expect("a good row");
            assert_eq!(found, only(row), "{supervise:?}");
        }
    }
}

#[test]
fn a_template_of_the_run_has_its_words_learned_too() {
    let template =
        Template::parse("{prompt:2} {prompt} -> {prompt:1} {completion}").expect("a good template");
    let rows = parse_rows("train.jsonl", r#"{"prompt":"ab","completion":"c"}"#).expect("a row");
    let options = TokenizeOptions {
        template: Some(&template),
        supervise: Supervise::All,
        ..TokenizeOptions::default()
    };
    let tokenized = tokenize_rows(&rows, &tokenizer(), options, &mut |_, _| {});
    let example = tokenized.expect("a good row").examples.remove(0);
    assert_eq!(example.labels, hiding(0, &example.input_ids));
    assert_eq!(example.placement, Some(vec![0, 0, 5]));
}

#[test]
fn a_bos_in_front_is_given() {
    let mut json: serde_json::Value = serde_json::from_str(&tokenizer_json()).expect("JSON");
    let bos = "<|im_start|>";
    json["post_processor"] = serde_json::json!({
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": bos, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": {bos: {"id": bos, "ids": [IM_START], "tokens": [bos]}},
    });
    let json = json.to_string();
    let chat =
        "{% for m in messages %}{{ '<|im_start|>' if loop.first }}{{ m.content }}{% endfor %}";
    let tokenizer = TextTokenizer::from_bytes(json.as_bytes(), CONFIG.as_bytes(), Some(chat))
        .expect("a tokenizer");
    let chat = r#"{"messages":[{"role":"user","content":"ab"}]}"#;
    for row in [r#"{"prompt":"ab","completion":"c"}"#, chat] {
        let example = example(row, &tokenizer, Supervise::All).expect("a good row");
        assert_eq!(example.input_ids[0], IM_START);
        assert_eq!(example.labels, hiding(1, &example.input_ids), "{row}");
    }
}
