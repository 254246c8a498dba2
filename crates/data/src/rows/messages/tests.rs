//! The turns of rows, good and bad.

use serde_json::json;

use crate::conversation::Conversation;
use crate::row::Row;
use crate::rows::parse_rows;

fn conversation(row: &str) -> Conversation {
    let rows = parse_rows("chat.jsonl", row).expect("a good row");
    match &rows.rows()[0].1 {
        Row::Messages(conversation) => conversation.clone(),
        other => panic!("{other:?} is no conversation"),
    }
}

fn message_of(row: &str) -> String {
    let error = parse_rows("chat.jsonl", row).expect_err("a bad row");
    error.to_string()
}

#[test]
fn usual_spellings_of_a_role_are_one_role() {
    for (given, read) in [
        ("human", "user"),
        ("User", "user"),
        ("gpt", "assistant"),
        ("Assistant", "assistant"),
        ("model", "assistant"),
        ("SYSTEM", "system"),
        ("ipython", "ipython"),
        ("Oracle", "Oracle"),
    ] {
        let row = json!({"messages": [{"role": given, "content": "a"}]});
        assert_eq!(conversation(&row.to_string()).messages[0].role(), read);
    }
}

#[test]
fn what_a_turn_says_besides_its_text_is_kept_and_null_is_nothing() {
    let row = r#"{"tools":"[{\"type\":\"function\"}]","messages":[{"role":"assistant","content":null,
        "tool_calls":[{"function":{"name":"f","arguments":"{}"}}],"name":null}]}"#;
    let row = row.replace('\n', "");
    let conversation = conversation(&row);
    let fields: Vec<&String> = conversation.messages[0].fields.keys().collect();
    assert_eq!(fields, ["role", "tool_calls"]);
    assert_eq!(
        conversation.variables["tools"],
        json!([{"type": "function"}])
    );
}

#[test]
fn empty_lists_as_tables_have_them_are_absent() {
    let row = r#"{"tools":"","documents":[],"messages":[{"role":"user","content":"a","tool_calls":[]},
        {"role":"assistant","content":"b","tool_calls":""}]}"#;
    let conversation = conversation(&row.replace('\n', ""));
    assert!(conversation.variables.is_empty());
    for message in &conversation.messages {
        assert_eq!(message.fields.len(), 2, "{message:?}");
    }
}

#[test]
fn flags_of_each_spelling_say_whether_a_turn_is_learned() {
    for (flag, learned) in [
        (r#""weight":0"#, false),
        (r#""weight":1"#, true),
        (r#""weight":0.0"#, false),
        (r#""train":false"#, false),
        (r#""training":true"#, true),
        (r#""loss":false"#, false),
        (r#""weight":null"#, true),
    ] {
        let row = format!(r#"{{"messages":[{{"role":"gpt","content":"a",{flag}}}]}}"#);
        let message = &conversation(&row).messages[0];
        assert_eq!(message.is_learned(), learned, "{flag}");
        assert_eq!(message.fields.len(), 2, "templates do not see {flag}");
    }
    let row = r#"{"messages":[{"role":"gpt","content":"a","weight":0.5}]}"#;
    assert!(message_of(row).contains("messages[0].weight is 0.5"));
}

#[test]
fn what_is_not_text_is_refused_by_name() {
    for (row, expected) in [
        (
            r#"{"messages":[{"role":"user","content":[{"type":"image_url","image_url":"x"}]}]}"#,
            r#"messages[0].content[0] is of type "image_url""#,
        ),
        (
            r#"{"messages":[{"role":"user","content":{"a":1}}]}"#,
            "messages[0].content must be a string, found an object",
        ),
        (
            r#"{"messages":[{"role":"user","content":"a"}],"tools":"[}"}"#,
            "\"tools\" is text, and not JSON",
        ),
        (
            r#"{"messages":[{"role":"user","content":"a"}],"chat_template_kwargs":{"add_generation_prompt":true}}"#,
            "\"chat_template_kwargs\" has \"add_generation_prompt\"",
        ),
        (
            r#"{"messages":[{"role":"user","content":"a"}],"chat_template_kwargs":{"messages":[]}}"#,
            "\"chat_template_kwargs\" has \"messages\"",
        ),
        (
            r#"{"messages":[{"role":"user","content":"a"}],"tools":{}}"#,
            "\"tools\" must be a list, found an object",
        ),
    ] {
        let message = message_of(row);
        assert!(
            message.starts_with("chat.jsonl:1: ") && message.contains(expected),
            "{message}"
        );
    }
}
