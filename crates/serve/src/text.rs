//! Tokens of the engine to texts of an answer.

mod answer;
mod stop;

pub(crate) use answer::{Answer, Failure, Part, Scored};
