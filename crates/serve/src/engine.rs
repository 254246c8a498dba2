//! The thread that computes.

mod adapters;
mod admission;
mod batch;
mod handle;
mod logprobs;
mod row;
mod steps;
#[cfg(test)]
mod tests;

pub use self::{
    adapters::{AdapterId, AdapterValues, BASE},
    handle::{Counters, Engine, EngineLimits, Submitted},
    row::{Event, Ids, Request, TokenLogprob},
};
