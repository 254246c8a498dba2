//! One frozen base and any number of adapters, served together.
//!
//! - [`Engine`] computes. It is a thread that owns the model and takes one step after the other, each over all rows that
//!   run, whatever their adapters are (continuous batching; Yu et al. 2022, "Orca").

#![forbid(unsafe_code)]

mod engine;

pub use engine::{
    AdapterId, BASE, Counters, Engine, EngineLimits, Event, Ids, Injected, Request, Submitted,
    TokenLogprob,
};
