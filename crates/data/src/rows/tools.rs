//! Calls of functions in older spellings, as the tool calls that chat templates read.

use serde_json::{Value, json};

/// The calls that a text is: an object `{"name", "arguments"}` in JSON, or a list of them.
pub(super) fn of_text(text: &str) -> Result<Value, String> {
    let calls = match serde_json::from_str(text) {
        Ok(Value::Array(calls)) => calls,
        Ok(call) => vec![call],
        Err(error) => return Err(format!("calls a function, and is not JSON: {error}")),
    };
    calls.into_iter().map(of_call).collect::<Result<_, _>>()
}

/// The call that an object `{"name", "arguments"}` is. Arguments that are JSON as text become what they say: templates
/// write them as JSON.
pub(super) fn of_call(call: Value) -> Result<Value, String> {
    if call.get("function").is_some_and(Value::is_object) {
        return Ok(call);
    }
    let Value::Object(mut call) = call else {
        return Err(NO_CALL.to_owned());
    };
    if !call.get("name").is_some_and(Value::is_string) {
        return Err(NO_CALL.to_owned());
    }
    if let Some(Value::String(text)) = call.get("arguments")
        && let Ok(arguments @ Value::Object(_)) = serde_json::from_str(text)
    {
        call.insert("arguments".to_owned(), arguments);
    }
    Ok(json!({"type": "function", "function": call}))
}

const NO_CALL: &str = "calls a function, and has no \"name\"; write {\"name\", \"arguments\"}";

/// The tools that functions are: each with its name, its description and its parameters.
pub(super) fn of_functions(list: Value) -> Value {
    let tool = |function: Value| match function.get("name").is_some_and(Value::is_string)
        && function.get("function").is_none()
        && function.get("type").is_none_or(|kind| kind == "function")
    {
        true => json!({"type": "function", "function": function}),
        false => function,
    };
    match list {
        Value::Array(functions) => functions.into_iter().map(tool).collect(),
        other => other,
    }
}
