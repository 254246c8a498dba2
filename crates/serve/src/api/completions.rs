//! `/v1/completions`.

use std::sync::Arc;

use axum::response::Response;
use serde_json::{Value, json};

use super::{
    error::ApiError,
    fields::{Fields, expected, missing},
    logprobs::TokenTexts,
    reply::{self, AskedPrompt, Endpoint, Reply},
    sampling::{MOST_LOGPROBS, Sampling},
    start::{Asked, Rows, on_text_thread},
};
use crate::{
    engine::Ids,
    models::{Model, Models},
    server::{Busy, Server},
    text::Part,
};

/// New tokens where a request does not say, as with OpenAI.
const DEFAULT_TOKENS: usize = 16;

/// Answers a request.
pub(crate) async fn answer(
    server: Arc<Server>,
    fields: Fields,
    busy: Busy,
) -> Result<Response, ApiError> {
    let request = Request::parse(fields)?;
    let model = server.models().of_request(&request.model)?;
    let of_model = model.clone();
    let (request, prompts) = on_text_thread(&server, move |models| {
        let prompts = request.ids(models, &of_model)?;
        Ok((request, prompts))
    })
    .await?;
    let Request {
        sampling,
        logprobs,
        echo,
        ..
    } = request;
    let (ids, texts): (Vec<Ids>, Vec<String>) = prompts.into_iter().unzip();
    let asked = Asked {
        model: &model,
        param: "prompt",
        sampling: &sampling,
        default_tokens: DEFAULT_TOKENS,
        logprobs,
        prompt_logprobs: logprobs.filter(|_| echo),
        head: false,
    };
    let rows = Rows::start(&server, &asked, &ids)?;
    let prompts = ids.into_iter().zip(texts).map(|(ids, text)| AskedPrompt {
        tokens: ids.input_ids.len(),
        echo: echo.then(|| (text, logprobs.map(|_| ids.input_ids))),
    });
    let (endpoint, scored, prompts) =
        (Endpoint::Completions, logprobs.is_some(), prompts.collect());
    let reply = Reply::new(&server, endpoint, request.model, &sampling, scored, prompts);
    match sampling.stream {
        true => Ok(reply::stream(server, reply, rows, busy)),
        false => reply::whole(&server, &reply, rows).await,
    }
}

/// A request.
#[derive(Debug)]
pub(super) struct Request {
    model: String,
    prompts: Vec<PromptField>,
    sampling: Sampling,
    /// How many likeliest tokens are asked for at each place.
    logprobs: Option<usize>,
    /// Whether an answer begins with its prompt.
    echo: bool,
}

/// One prompt.
#[derive(Debug, PartialEq, Eq)]
enum PromptField {
    Text(String),
    Ids(Vec<u32>),
}

impl Request {
    pub(super) fn parse(mut fields: Fields) -> Result<Self, ApiError> {
        let model = fields.required_text("model")?;
        let prompts = prompts(fields.take("prompt").ok_or_else(|| missing("prompt"))?)?;
        let sampling = Sampling::take(&mut fields, 0)?;
        let logprobs = match fields.take("logprobs") {
            // Chat's way to ask for none.
            Some(Value::Bool(false)) | None => None,
            Some(value) => {
                let count = value
                    .as_i64()
                    .filter(|count| (0..=MOST_LOGPROBS).contains(count));
                let what = format!("a whole number from 0 to {MOST_LOGPROBS}");
                Some(count.ok_or_else(|| expected("logprobs", &what))? as usize)
            }
        };
        let echo = fields.flag("echo")?;
        let best_of = fields.whole("best_of", 1..=i64::MAX)?;
        if best_of.is_some_and(|best_of| best_of as usize != sampling.n) {
            return Err(ApiError::unsupported("best_of"));
        }
        fields.finish()?;
        Ok(Self {
            model,
            prompts,
            sampling,
            logprobs,
            echo,
        })
    }

    /// The ids of its prompts, and their texts for an echo. Takes as long as the tokenizer does.
    fn ids(&self, models: &Models, model: &Model) -> Result<Vec<(Ids, String)>, ApiError> {
        let prompts = self.prompts.iter();
        prompts
            .map(|prompt| match prompt {
                PromptField::Text(text) => Ok((models.text_ids(model, text)?, text.clone())),
                PromptField::Ids(ids) => {
                    let text = models.base.tokenizer.decode(ids, false);
                    let text =
                        text.map_err(|error| ApiError::field("prompt", error.to_string()))?;
                    Ok((models.given_ids(model, ids.clone())?, text))
                }
            })
            .collect()
    }
}

/// A text, texts, ids, or lists of ids.
fn prompts(value: Value) -> Result<Vec<PromptField>, ApiError> {
    let wrong = || {
        expected(
            "prompt",
            "a string, a list of token ids, or a list of either",
        )
    };
    let ids = |values: &[Value]| {
        let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
        let ids: Option<Vec<u32>> = values.iter().map(id).collect();
        ids.map(PromptField::Ids)
    };
    match value {
        Value::String(text) => Ok(vec![PromptField::Text(text)]),
        Value::Array(values) if values.is_empty() => Err(wrong()),
        Value::Array(values) if values[0].is_number() => Ok(vec![ids(&values).ok_or_else(wrong)?]),
        Value::Array(values) => {
            let prompt = |value| match value {
                Value::String(text) => Ok(PromptField::Text(text)),
                Value::Array(values) => ids(&values).ok_or_else(wrong),
                _ => Err(wrong()),
            };
            values.into_iter().map(prompt).collect()
        }
        _ => Err(wrong()),
    }
}

/// A part of an answer, or a whole one.
pub(crate) fn choice(
    index: usize,
    part: &Part,
    finish: Option<&str>,
    logprobs: bool,
    texts: &mut TokenTexts<'_>,
) -> Value {
    json!({
        "index": index,
        "text": part.text,
        "logprobs": logprobs.then(|| texts.completion(&part.scored)),
        "finish_reason": finish,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_are_texts_or_ids_one_or_many() {
        let text = |text: &str| PromptField::Text(text.to_owned());
        for (value, expected) in [
            (json!("a"), vec![text("a")]),
            (json!(["a", "b"]), vec![text("a"), text("b")]),
            (json!([1, 2]), vec![PromptField::Ids(vec![1, 2])]),
            (
                json!([[1], [2, 3], "c"]),
                vec![
                    PromptField::Ids(vec![1]),
                    PromptField::Ids(vec![2, 3]),
                    text("c"),
                ],
            ),
        ] {
            assert_eq!(
                prompts(value.clone()).expect("prompts"),
                expected,
                "{value}"
            );
        }
        for value in [
            json!([]),
            json!({}),
            json!(1),
            json!([1, "a"]),
            json!([-1]),
            json!([0.5]),
            json!([[1], [[2]]]),
            json!([4_294_967_296_u64]),
            json!([null]),
        ] {
            assert!(prompts(value.clone()).is_err(), "{value}");
        }
    }
}
