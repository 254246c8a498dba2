//! The fields of a request's JSON object, taken out one by one. What is left in the end is refused by name.

use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use super::error::{ApiError, shortened};

/// The fields that nobody took yet.
#[derive(Debug)]
pub(crate) struct Fields(Map<String, Value>);

impl Fields {
    /// Reads a body.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, ApiError> {
        match serde_json::from_slice(body) {
            Ok(Value::Object(fields)) => Ok(Self(fields)),
            Ok(_) => Err(ApiError::bad("the body has to be a JSON object")),
            Err(error) => Err(ApiError::bad(format!("the body is not JSON: {error}"))),
        }
    }

    /// Takes a field out; null is as good as none.
    pub(crate) fn take(&mut self, name: &str) -> Option<Value> {
        self.0.shift_remove(name).filter(|value| !value.is_null())
    }

    pub(crate) fn text(&mut self, name: &str) -> Result<Option<String>, ApiError> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(expected(name, "a string")),
        }
    }

    pub(crate) fn required_text(&mut self, name: &str) -> Result<String, ApiError> {
        self.text(name)?.ok_or_else(|| missing(name))
    }

    pub(crate) fn flag(&mut self, name: &str) -> Result<bool, ApiError> {
        match self.take(name) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(flag),
            Some(_) => Err(expected(name, "true or false")),
        }
    }

    pub(crate) fn number(
        &mut self,
        name: &str,
        range: RangeInclusive<f64>,
    ) -> Result<Option<f64>, ApiError> {
        let Some(value) = self.take(name) else {
            return Ok(None);
        };
        let number = value.as_f64().filter(|number| range.contains(number));
        let what = || format!("a number from {} to {}", range.start(), range.end());
        number.map(Some).ok_or_else(|| expected(name, &what()))
    }

    pub(crate) fn whole(
        &mut self,
        name: &str,
        range: RangeInclusive<i64>,
    ) -> Result<Option<i64>, ApiError> {
        let Some(value) = self.take(name) else {
            return Ok(None);
        };
        let number = value.as_i64().filter(|number| range.contains(number));
        let what = || match *range.end() {
            i64::MAX => format!("a whole number from {}", range.start()),
            end => format!("a whole number from {} to {end}", range.start()),
        };
        number.map(Some).ok_or_else(|| expected(name, &what()))
    }

    /// Refuses what is left, unless it asks for nothing.
    pub(crate) fn finish(self) -> Result<(), ApiError> {
        let asks = |(name, value): &(&String, &Value)| !value.is_null() && !is_neutral(name, value);
        match self.0.iter().find(asks) {
            None => Ok(()),
            Some((name, _)) => Err(ApiError::unsupported(&shortened(name))),
        }
    }
}

/// A field that has to be there.
pub(crate) fn missing(name: &str) -> ApiError {
    let mut error = ApiError::field(name, format!("`{name}` is missing"));
    error.code = Some("missing_required_parameter");
    error
}

/// A field of the wrong type or out of its range.
pub(crate) fn expected(name: &str, what: &str) -> ApiError {
    ApiError::field(name, format!("`{name}` has to be {what}"))
}

/// Whether a field that is not supported has a value that asks for nothing.
fn is_neutral(name: &str, value: &Value) -> bool {
    let is_text = |texts: &[&str]| value.as_str().is_some_and(|text| texts.contains(&text));
    match name {
        // Notes of the client's own.
        "user"
        | "safety_identifier"
        | "prompt_cache_key"
        | "prompt_cache_retention"
        | "metadata" => true,
        "tools" | "functions" => value.as_array().is_some_and(Vec::is_empty),
        "tool_choice" | "function_call" => is_text(&["none", "auto"]),
        "parallel_tool_calls" => value.is_boolean(),
        "response_format" => {
            let format = value.as_object();
            format.is_some_and(|format| {
                format.len() == 1 && format.get("type") == Some(&"text".into())
            })
        }
        "logit_bias" | "chat_template_kwargs" => value.as_object().is_some_and(Map::is_empty),
        "modalities" => *value == Value::from(vec!["text"]),
        "service_tier" => is_text(&["auto", "default"]),
        "suffix" => is_text(&[""]),
        "frequency_penalty" | "presence_penalty" | "min_p" | "min_tokens" => {
            value.as_f64() == Some(0.0)
        }
        "store"
        | "use_beam_search"
        | "continue_final_message"
        | "echo"
        | "include_stop_str_in_output" => *value == Value::Bool(false),
        "skip_special_tokens" | "add_generation_prompt" => *value == Value::Bool(true),
        _ => false,
    }
}
