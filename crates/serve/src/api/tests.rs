//! Requests that are refused, and fields that ask for nothing.

use serde_json::{Value, json};

use super::{chat, completions, error::ApiError, fields::Fields};

fn fields(value: &Value) -> Fields {
    Fields::parse(value.to_string().as_bytes()).expect("an object")
}

/// A request with these fields beside those that it needs.
fn with(needed: Value, more: &Value) -> Fields {
    let mut request = needed;
    let object = request.as_object_mut().expect("an object");
    object.extend(more.as_object().expect("an object").clone());
    fields(&request)
}

fn chat(more: &Value) -> Result<chat::Request, ApiError> {
    let needed = json!({"model": "m", "messages": [{"role": "user", "content": "hi"}]});
    chat::Request::parse(with(needed, more))
}

fn completion(more: &Value) -> Result<completions::Request, ApiError> {
    completions::Request::parse(with(json!({"model": "m", "prompt": "hi"}), more))
}

/// The field that an error is about.
fn param(error: &ApiError) -> &str {
    assert_eq!(error.status, 400, "{error:?}");
    error.param.as_deref().unwrap_or("")
}

#[test]
fn what_is_no_json_object_is_refused() {
    let deep = "[".repeat(100_000);
    for body in ["", "{", "[]", "1", "null", "{\"a\":}", "\u{0}", &deep] {
        let error = Fields::parse(body.as_bytes()).expect_err(body);
        assert_eq!(param(&error), "");
    }
    assert!(Fields::parse(b"{\"model\": \"\xff\"}").is_err());
}

#[test]
fn wrong_values_are_refused_with_the_field() {
    for (more, name) in [
        (json!({"model": null}), "model"),
        (json!({"model": 1}), "model"),
        (json!({"n": 0}), "n"),
        (json!({"n": 1.5}), "n"),
        (json!({"n": "1"}), "n"),
        (json!({"n": 129}), "n"),
        (json!({"max_tokens": -1}), "max_tokens"),
        (json!({"max_tokens": 1e3}), "max_tokens"),
        (
            json!({"max_completion_tokens": "all"}),
            "max_completion_tokens",
        ),
        (json!({"temperature": -0.1}), "temperature"),
        (json!({"temperature": 2.1}), "temperature"),
        (json!({"temperature": "hot"}), "temperature"),
        (json!({"top_p": 1.1}), "top_p"),
        (json!({"top_k": -2}), "top_k"),
        (json!({"repetition_penalty": 0}), "repetition_penalty"),
        (json!({"seed": 0.5}), "seed"),
        (json!({"stop": ""}), "stop"),
        (json!({"stop": ["a", 1]}), "stop"),
        (json!({"stop": ["a", "b", "c", "d", "e"]}), "stop"),
        (json!({"stop": "x".repeat(513)}), "stop"),
        (json!({"stream": "yes"}), "stream"),
        (
            json!({"stream_options": {"include_usage": true}}),
            "stream_options",
        ),
        (
            json!({"stream": true, "stream_options": []}),
            "stream_options",
        ),
        (
            json!({"stream": true, "stream_options": {"include_usage": 1}}),
            "stream_options",
        ),
        (
            json!({"stream": true, "stream_options": {"other": 1}}),
            "stream_options",
        ),
    ] {
        assert_eq!(param(&chat(&more).expect_err("chat")), name, "{more}");
        assert_eq!(
            param(&completion(&more).expect_err("completion")),
            name,
            "{more}"
        );
    }
    for (more, name) in [
        (json!({"max_tokens": 0}), "max_tokens"),
        (json!({"logprobs": 1}), "logprobs"),
        (
            json!({"logprobs": true, "top_logprobs": 21}),
            "top_logprobs",
        ),
        (json!({"top_logprobs": 1}), "top_logprobs"),
        (json!({"messages": null}), "messages"),
        (json!({"messages": []}), "messages"),
        (json!({"messages": "hi"}), "messages"),
        (json!({"messages": ["hi"]}), "messages[0]"),
        (json!({"messages": [{"content": "hi"}]}), "messages[0].role"),
        (
            json!({"messages": [{"role": "tool", "content": "hi"}]}),
            "messages[0].role",
        ),
        (
            json!({"messages": [{"role": "user"}]}),
            "messages[0].content",
        ),
        (
            json!({"messages": [{"role": "user", "content": 1}]}),
            "messages[0].content",
        ),
        (
            json!({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://a"}}]}]}),
            "messages[0].content[0]",
        ),
        (
            json!({"messages": [{"role": "user", "content": [{"type": "text", "text": 1}]}]}),
            "messages[0].content[0].text",
        ),
        (
            json!({"messages": [{"role": "user", "content": "a", "name": "b"}]}),
            "messages[0].name",
        ),
    ] {
        assert_eq!(param(&chat(&more).expect_err("chat")), name, "{more}");
    }
    for (more, name) in [
        (json!({"prompt": null}), "prompt"),
        (json!({"prompt": {}}), "prompt"),
        (json!({"logprobs": 21}), "logprobs"),
        (json!({"logprobs": true}), "logprobs"),
        (json!({"echo": 1}), "echo"),
        (json!({"best_of": 2}), "best_of"),
    ] {
        assert_eq!(
            param(&completion(&more).expect_err("completion")),
            name,
            "{more}"
        );
    }
}

#[test]
fn fields_that_are_not_supported_are_refused_by_name_unless_they_ask_for_nothing() {
    for (name, asking, neutral) in [
        ("tools", json!([{"type": "function"}]), json!([])),
        ("tool_choice", json!("required"), json!("auto")),
        ("functions", json!([{}]), json!([])),
        (
            "response_format",
            json!({"type": "json_object"}),
            json!({"type": "text"}),
        ),
        ("logit_bias", json!({"1": 5}), json!({})),
        ("frequency_penalty", json!(0.5), json!(0)),
        ("presence_penalty", json!(-1), json!(0.0)),
        ("min_p", json!(0.1), json!(0.0)),
        ("store", json!(true), json!(false)),
        ("service_tier", json!("flex"), json!("auto")),
        ("modalities", json!(["audio"]), json!(["text"])),
        ("chat_template_kwargs", json!({"a": 1}), json!({})),
        ("reasoning_effort", json!("low"), json!(null)),
        ("guided_json", json!({}), json!(null)),
        ("no_such_field", json!(0), json!(null)),
    ] {
        for (value, expected) in [
            (&asking, Some(name)),
            (&neutral, None),
            (&Value::Null, None),
        ] {
            let more = json!({name: value});
            let refused = [
                chat(&more).err().map(|error| param(&error).to_owned()),
                completion(&more)
                    .err()
                    .map(|error| param(&error).to_owned()),
            ];
            for refused in refused {
                assert_eq!(refused.as_deref(), expected, "{more}");
            }
        }
    }
    // Notes of the client's own.
    chat(&json!({"user": "me", "metadata": {"a": "b"}})).expect("a request");
}
