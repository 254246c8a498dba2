//! Requests to rows of the engine.

use std::{
    future::poll_fn,
    sync::Arc,
    task::Poll,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::{error::ApiError, fields::expected, sampling::Sampling};
use crate::{
    engine::{Engine, Event, Ids, Request, Submitted},
    models::{Model, Models},
    server::Server,
};

/// What is asked of the engine, once the texts are ids.
#[derive(Debug)]
pub(crate) struct Asked<'a> {
    pub(crate) model: &'a Model,
    /// The field that the prompts are of.
    pub(crate) param: &'static str,
    pub(crate) sampling: &'a Sampling,
    /// New tokens where the request does not say.
    pub(crate) default_tokens: usize,
    pub(crate) logprobs: Option<usize>,
    pub(crate) prompt_logprobs: Option<usize>,
    /// Whether the adapter's head is asked, and not for a text.
    pub(crate) head: bool,
}

/// Turns texts to ids where nobody waits for it: a tokenizer takes its time.
pub(crate) async fn on_text_thread<T: Send + 'static>(
    server: &Arc<Server>,
    work: impl FnOnce(&Models) -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    let server = Arc::clone(server);
    let done = tokio::task::spawn_blocking(move || work(server.models())).await;
    done.unwrap_or_else(|error| Err(ApiError::internal(error.to_string())))
}

/// Rows that run, in the order of a response's choices.
#[derive(Debug)]
pub(crate) struct Rows {
    /// `None` behind the end of a row.
    events: Vec<Option<UnboundedReceiver<Event>>>,
    pub(crate) began: Instant,
    /// Whether a token came.
    pub(crate) has_token: bool,
    /// Seconds since 1970.
    pub(crate) created: u64,
    /// What responses are known by.
    pub(crate) number: u128,
}

impl Rows {
    /// Hands all rows of a request in: `n` for each prompt.
    pub(crate) fn start(
        server: &Server,
        asked: &Asked<'_>,
        prompts: &[Ids],
    ) -> Result<Self, ApiError> {
        let engine = server.engine();
        let rows = prompts.len().saturating_mul(asked.sampling.n);
        let most = engine.limits().max_queue;
        if rows > most {
            let what =
                format!("such that prompts times `n` is {most} at most, the places of the queue");
            let param = if prompts.len() > 1 { asked.param } else { "n" };
            return Err(expected(param, &what));
        }
        // All of them first: nothing is started for a request that is refused.
        let counts: Result<Vec<usize>, ApiError> = prompts
            .iter()
            .map(|prompt| new_tokens(server.models(), asked, prompt))
            .collect();
        let began = Instant::now();
        let seed = asked.sampling.seed.unwrap_or_else(rand::random);
        let mut started = Self {
            events: Vec::with_capacity(rows),
            began,
            has_token: false,
            created: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| since.as_secs()),
            number: rand::random(),
        };
        for (prompt, max_new_tokens) in prompts.iter().zip(counts?) {
            for choice in 0..asked.sampling.n {
                let (events, received) = unbounded_channel();
                let seed = seed.wrapping_add(choice as u64);
                let defaults = &server.models().base.options;
                // The rows that were handed in end when their receivers are dropped.
                submit(
                    engine,
                    Request {
                        adapter: asked.model.id,
                        prompt: prompt.clone(),
                        options: asked.sampling.options(defaults, max_new_tokens, seed),
                        logprobs: asked.logprobs,
                        // The same for all answers to a prompt.
                        prompt_logprobs: asked.prompt_logprobs,
                        head: asked.head,
                        deadline: Some(began + server.request_timeout()),
                        events,
                    },
                )?;
                started.events.push(Some(received));
            }
        }
        Ok(started)
    }

    /// What happens next, and to which row; `None` when all ended.
    pub(crate) async fn next(&mut self) -> Option<(usize, Event)> {
        poll_fn(|cx| {
            let mut is_over = true;
            for (index, row) in self.events.iter_mut().enumerate() {
                let Some(events) = row else { continue };
                is_over = false;
                if let Poll::Ready(event) = events.poll_recv(cx) {
                    let event = event.unwrap_or(Event::Gone);
                    if matches!(event, Event::Done(_) | Event::TimedOut | Event::Gone) {
                        *row = None;
                    }
                    return Poll::Ready(Some((index, event)));
                }
            }
            match is_over {
                true => Poll::Ready(None),
                false => Poll::Pending,
            }
        })
        .await
    }

    /// Ends a row whose text is complete.
    pub(crate) fn end(&mut self, index: usize) {
        self.events[index] = None;
    }
}

fn new_tokens(models: &Models, asked: &Asked<'_>, prompt: &Ids) -> Result<usize, ApiError> {
    let tokens = asked.sampling.max_tokens;
    models.new_tokens(
        asked.model,
        asked.param,
        prompt,
        tokens,
        asked.default_tokens,
    )
}

fn submit(engine: &Engine, request: Request) -> Result<(), ApiError> {
    match engine.submit(request) {
        Submitted::Accepted => Ok(()),
        Submitted::Full => Err(ApiError::busy()),
        Submitted::Stopping => Err(ApiError::stopping()),
    }
}
