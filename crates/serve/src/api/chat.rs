//! `/v1/chat/completions`.

use std::sync::Arc;

use axum::response::Response;
use burn_peft_data::Message;
use serde_json::{Map, Value, json};

use super::{
    error::{ApiError, shortened},
    fields::{Fields, expected, missing},
    logprobs::TokenTexts,
    reply::{self, AskedPrompt, Endpoint, Reply},
    sampling::{MOST_LOGPROBS, Sampling},
    start::{Asked, Rows, on_text_thread},
};
use crate::{
    server::{Busy, Server},
    text::Part,
};

/// Answers a request.
pub(crate) async fn answer(
    server: Arc<Server>,
    fields: Fields,
    busy: Busy,
) -> Result<Response, ApiError> {
    let Request {
        model: name,
        messages,
        sampling,
        logprobs,
    } = Request::parse(fields)?;
    let model = server.models().of_request(&name)?;
    let of_model = model.clone();
    let ids = on_text_thread(&server, move |models| models.chat_ids(&of_model, &messages)).await?;
    let asked = Asked {
        model: &model,
        param: "messages",
        sampling: &sampling,
        // As many as there is room for.
        default_tokens: usize::MAX,
        logprobs,
        prompt_logprobs: None,
        head: false,
    };
    let rows = Rows::start(&server, &asked, std::slice::from_ref(&ids))?;
    let prompt = AskedPrompt {
        tokens: ids.input_ids.len(),
        echo: None,
    };
    let (endpoint, scored) = (Endpoint::Chat, logprobs.is_some());
    let reply = Reply::new(&server, endpoint, name, &sampling, scored, vec![prompt]);
    match sampling.stream {
        true => Ok(reply::stream(server, reply, rows, busy)),
        false => reply::whole(&server, &reply, rows).await,
    }
}

/// A request.
#[derive(Debug)]
pub(super) struct Request {
    model: String,
    messages: Vec<Message>,
    sampling: Sampling,
    /// How many likeliest tokens are asked for at each place.
    logprobs: Option<usize>,
}

impl Request {
    pub(super) fn parse(mut fields: Fields) -> Result<Self, ApiError> {
        let model = fields.required_text("model")?;
        let messages = messages(fields.take("messages").ok_or_else(|| missing("messages"))?)?;
        let sampling = Sampling::take(&mut fields, 1)?;
        let wanted = fields.flag("logprobs")?;
        let count = fields.whole("top_logprobs", 0..=MOST_LOGPROBS)?;
        if count.is_some_and(|count| count > 0) && !wanted {
            let message = "`top_logprobs` is for `logprobs` only; set that to true";
            return Err(ApiError::field("top_logprobs", message));
        }
        fields.finish()?;
        Ok(Self {
            model,
            messages,
            sampling,
            logprobs: wanted.then(|| count.unwrap_or(0) as usize),
        })
    }
}

fn messages(value: Value) -> Result<Vec<Message>, ApiError> {
    let Value::Array(messages) = value else {
        return Err(expected("messages", "a list of messages"));
    };
    if messages.is_empty() {
        return Err(expected("messages", "a list with a message at least"));
    }
    let messages = messages.into_iter().enumerate();
    messages
        .map(|(index, message)| {
            let at = format!("messages[{index}]");
            match message {
                Value::Object(fields) => turn(fields, &at),
                _ => Err(expected(&at, "an object with `role` and `content`")),
            }
        })
        .collect()
}

fn turn(mut fields: Map<String, Value>, at: &str) -> Result<Message, ApiError> {
    let role = match fields.shift_remove("role") {
        Some(Value::String(role)) => role,
        _ => return Err(expected(&format!("{at}.role"), "a string")),
    };
    let role = match role.as_str() {
        "system" | "user" | "assistant" => role,
        // OpenAI's newer name; templates know the older one.
        "developer" => "system".to_owned(),
        _ => {
            let what = "`system`, `developer`, `user` or `assistant`";
            return Err(expected(&format!("{at}.role"), what));
        }
    };
    let content = content(fields.shift_remove("content"), &format!("{at}.content"))?;
    let asks = |value: &Value| !matches!(value, Value::Null) && *value != json!([]);
    match fields.iter().find(|(_, value)| asks(value)) {
        None => Ok(Message::new(role, content)),
        Some((name, _)) => Err(ApiError::unsupported(&format!("{at}.{}", shortened(name)))),
    }
}

/// A text, or parts that are texts: a line each, as vLLM joins them.
fn content(value: Option<Value>, at: &str) -> Result<String, ApiError> {
    let part = |(index, part): (usize, Value)| {
        let at = format!("{at}[{index}]");
        let kind = part.get("type").and_then(Value::as_str).unwrap_or_default();
        if kind != "text" {
            let what = "a text part: `{\"type\": \"text\", \"text\": \"…\"}`";
            return Err(expected(&at, what));
        }
        match part.get("text") {
            Some(Value::String(text)) => Ok(text.clone()),
            _ => Err(expected(&format!("{at}.text"), "a string")),
        }
    };
    match value {
        Some(Value::String(text)) => Ok(text),
        Some(Value::Array(parts)) => {
            let parts: Result<Vec<String>, _> = parts.into_iter().enumerate().map(part).collect();
            Ok(parts?.join("\n"))
        }
        _ => Err(expected(at, "a string, or a list of text parts")),
    }
}

/// A whole answer.
pub(crate) fn choice(
    index: usize,
    part: &Part,
    finish: Option<&str>,
    logprobs: bool,
    texts: &TokenTexts<'_>,
) -> Value {
    json!({
        "index": index,
        "message": {"role": "assistant", "content": part.text, "refusal": null},
        "logprobs": logprobs.then(|| texts.chat(&part.scored)),
        "finish_reason": finish,
    })
}

/// The begin of a streamed answer.
pub(crate) fn first_chunk(index: usize) -> Value {
    json!({
        "index": index,
        "delta": {"role": "assistant", "content": ""},
        "logprobs": null,
        "finish_reason": null,
    })
}

/// A part of a streamed answer.
pub(crate) fn chunk(
    index: usize,
    part: &Part,
    finish: Option<&str>,
    logprobs: bool,
    texts: &TokenTexts<'_>,
) -> Value {
    let delta = match part.text.is_empty() {
        true => json!({}),
        false => json!({"content": part.text}),
    };
    let has_scores = logprobs && !part.scored.is_empty();
    json!({
        "index": index,
        "delta": delta,
        "logprobs": has_scores.then(|| texts.chat(&part.scored)),
        "finish_reason": finish,
    })
}
