//! Responses, whole or as a stream of server-sent events.

use std::sync::Arc;

use axum::response::Response;
use burn_peft_decoder::FinishReason;
use hyper::body::Bytes;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::{
    chat, completions,
    error::{ApiError, json_response},
    logprobs::TokenTexts,
    sampling::Sampling,
    start::Rows,
};
use crate::{
    engine::Event,
    http::sse,
    server::{Busy, Server},
    text::{Answer, Failure, Part},
};

/// Parts of a stream that wait for a slow client; then the stream's task waits, too.
const PARTS_AHEAD: usize = 16;

/// The endpoint that a response is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Endpoint {
    Chat,
    Completions,
}

/// What a response needs to know of its request.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) endpoint: Endpoint,
    /// The name that it has for the model.
    pub(crate) model: String,
    pub(crate) n: usize,
    pub(crate) stop: Vec<String>,
    pub(crate) stop_ids: Vec<u32>,
    pub(crate) logprobs: bool,
    pub(crate) include_usage: bool,
    /// The tokens of each prompt, and what an echo repeats of it.
    pub(crate) prompts: Vec<AskedPrompt>,
}

/// A prompt, as far as a response needs it.
#[derive(Debug)]
pub(crate) struct AskedPrompt {
    pub(crate) tokens: usize,
    /// Its text, and its ids where they are scored.
    pub(crate) echo: Option<(String, Option<Vec<u32>>)>,
}

impl Reply {
    /// The response to a request for text.
    pub(crate) fn new(
        server: &Server,
        endpoint: Endpoint,
        model: String,
        sampling: &Sampling,
        logprobs: bool,
        prompts: Vec<AskedPrompt>,
    ) -> Self {
        Self {
            endpoint,
            model,
            n: sampling.n,
            stop_ids: sampling.stop_ids(&server.models().base.options),
            stop: sampling.stop.clone(),
            logprobs,
            include_usage: sampling.include_usage,
            prompts,
        }
    }

    /// The answer to begin with, for each row.
    fn answers<'a>(&'a self, server: &'a Server) -> Vec<Answer<'a>> {
        let tokenizer = &server.models().base.tokenizer;
        let rows = self
            .prompts
            .iter()
            .flat_map(|prompt| std::iter::repeat_n(prompt, self.n));
        rows.map(|prompt| {
            let echo = prompt.echo.as_ref();
            let echo = echo.map(|(text, ids)| (text.as_str(), ids.as_deref()));
            Answer::new(tokenizer, self.stop.clone(), &self.stop_ids, echo)
        })
        .collect()
    }

    fn token_texts<'a>(&self, server: &'a Server, rows: usize) -> Vec<TokenTexts<'a>> {
        let tokenizer = &server.models().base.tokenizer;
        (0..rows).map(|_| TokenTexts::new(tokenizer)).collect()
    }

    /// A prompt counts once, however many answers it gets.
    fn usage(&self, answers: &[Answer<'_>]) -> Value {
        let prompt_tokens: usize = self.prompts.iter().map(|prompt| prompt.tokens).sum();
        let completion_tokens: usize = answers.iter().map(|answer| answer.tokens).sum();
        let cached = answers.iter().step_by(self.n);
        let cached_tokens: usize = cached.map(|answer| answer.cached_tokens).sum();
        json!({
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": prompt_tokens + completion_tokens,
            "prompt_tokens_details": {"cached_tokens": cached_tokens},
        })
    }

    /// What every object of a response begins with.
    fn object(&self, rows: &Rows, is_chunk: bool, choices: Vec<Value>) -> Value {
        let (prefix, object) = match (self.endpoint, is_chunk) {
            (Endpoint::Chat, false) => ("chatcmpl", "chat.completion"),
            (Endpoint::Chat, true) => ("chatcmpl", "chat.completion.chunk"),
            (Endpoint::Completions, _) => ("cmpl", "text_completion"),
        };
        json!({
            "id": format!("{prefix}-{:032x}", rows.number),
            "object": object,
            "created": rows.created,
            "model": self.model,
            "choices": choices,
        })
    }

    /// What an object says of one answer.
    fn choice(
        &self,
        (index, is_chunk): (usize, bool),
        part: &Part,
        finish: Option<FinishReason>,
        texts: &mut TokenTexts<'_>,
    ) -> Value {
        let finish = finish.map(finish_reason);
        let scored = self.logprobs;
        match (self.endpoint, is_chunk) {
            (Endpoint::Chat, false) => chat::choice(index, part, finish, scored, texts),
            (Endpoint::Chat, true) => chat::chunk(index, part, finish, scored, texts),
            (Endpoint::Completions, _) => completions::choice(index, part, finish, scored, texts),
        }
    }
}

fn finish_reason(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
    }
}

/// Waits for all answers.
pub(crate) async fn whole(
    server: &Server,
    reply: &Reply,
    mut rows: Rows,
) -> Result<Response, ApiError> {
    let mut answers = reply.answers(server);
    let mut parts: Vec<Part> = answers.iter().map(|_| Part::default()).collect();
    while let Some((index, event)) = rows.next().await {
        observe(server, &mut rows, &event);
        let part = take(&mut answers, &mut rows, index, event)?;
        parts[index].text += &part.text;
        parts[index].scored.extend(part.scored);
    }
    let mut texts = reply.token_texts(server, parts.len());
    let choices = parts.iter().zip(&answers).zip(&mut texts).enumerate();
    let choices = choices.map(|(index, ((part, answer), texts))| {
        reply.choice((index, false), part, answer.finish, texts)
    });
    let choices = choices.collect();
    let mut object = reply.object(&rows, false, choices);
    object["usage"] = reply.usage(&answers);
    Ok(json_response(&object))
}

/// Sends answers as they come. The rows end when the client is gone.
pub(crate) fn stream(server: Arc<Server>, reply: Reply, rows: Rows, busy: Busy) -> Response {
    let (parts, body) = mpsc::channel(PARTS_AHEAD);
    tokio::spawn(async move {
        // Where the client is gone, nobody waits for the end.
        let _ = write(&server, &reply, rows, &parts).await;
        drop(busy);
    });
    sse::response(body)
}

/// The client is gone.
struct ClientGone;

async fn write(
    server: &Server,
    reply: &Reply,
    mut rows: Rows,
    parts: &mpsc::Sender<Bytes>,
) -> Result<(), ClientGone> {
    let mut answers = reply.answers(server);
    let mut texts = reply.token_texts(server, answers.len());
    let with_usage = |mut object: Value| {
        if reply.include_usage {
            object["usage"] = Value::Null;
        }
        object
    };
    if reply.endpoint == Endpoint::Chat {
        for index in 0..answers.len() {
            let choices = vec![chat::first_chunk(index)];
            send(parts, &with_usage(reply.object(&rows, true, choices))).await?;
        }
    }
    loop {
        let next = tokio::select! {
            next = rows.next() => next,
            () = parts.closed() => return Err(ClientGone),
        };
        let Some((index, event)) = next else { break };
        observe(server, &mut rows, &event);
        let part = match take(&mut answers, &mut rows, index, event) {
            Ok(part) => part,
            Err(error) => {
                send(parts, &error.object()).await?;
                return parts.send(sse::done()).await.map_err(|_| ClientGone);
            }
        };
        let finish = answers[index].finish;
        if part == Part::default() && finish.is_none() {
            continue;
        }
        let choices = vec![reply.choice((index, true), &part, finish, &mut texts[index])];
        send(parts, &with_usage(reply.object(&rows, true, choices))).await?;
    }
    if reply.include_usage {
        let mut object = reply.object(&rows, true, Vec::new());
        object["usage"] = reply.usage(&answers);
        send(parts, &object).await?;
    }
    parts.send(sse::done()).await.map_err(|_| ClientGone)
}

async fn send(parts: &mpsc::Sender<Bytes>, value: &Value) -> Result<(), ClientGone> {
    let event = sse::event(&value.to_string());
    parts.send(event).await.map_err(|_| ClientGone)
}

/// Gives an answer its next event, and ends its row where the text is complete.
fn take(
    answers: &mut [Answer<'_>],
    rows: &mut Rows,
    index: usize,
    event: Event,
) -> Result<Part, ApiError> {
    let part = answers[index]
        .take(event)
        .map_err(|failure| match failure {
            Failure::TimedOut => ApiError::timed_out(),
            Failure::Gone => ApiError::gone(),
        })?;
    if answers[index].finish.is_some() {
        rows.end(index);
    }
    Ok(part)
}

/// Notes how long a request waited for its first token.
fn observe(server: &Server, rows: &mut Rows, event: &Event) {
    if !rows.has_token && matches!(event, Event::Token { .. }) {
        rows.has_token = true;
        server.metrics().first_token(rows.began.elapsed());
    }
}
