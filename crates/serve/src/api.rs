//! What OpenAI's clients send, and what they are sent.

pub(crate) mod admin;
pub(crate) mod chat;
pub(crate) mod classify;
pub(crate) mod completions;
mod error;
mod fields;
mod logprobs;
pub(crate) mod models;
mod reply;
mod sampling;
mod start;
#[cfg(test)]
mod tests;

pub(crate) use error::{ApiError, json_response};
pub(crate) use fields::Fields;
