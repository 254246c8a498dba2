//! One frozen base and any number of adapters, served together over OpenAI's HTTP interface.
//!
//! - [`Engine`] computes. It is a thread that owns the model and takes one step after the other, each over all rows that
//!   run, whatever their adapters are (continuous batching; Yu et al. 2022, "Orca").
//! - [`serve()`] is the HTTP side: it turns requests to rows of the engine, and their tokens to answers.
//!
//! The one design decision: only the engine is generic over the backend. What goes between the two is ids and events,
//! so everything else is compiled once. A row ends when the receiver of its events is dropped, and so a client that
//! hangs up, a stop string and a failure elsewhere all take the same way.
//!
//! It knows nothing of adapter folders: whoever starts it says how they are read.

#![forbid(unsafe_code)]

mod api;
mod engine;
mod http;
mod keys;
mod models;
mod server;
mod text;

pub use engine::{
    AdapterId, AdapterValues, BASE, Counters, Engine, EngineLimits, Event, Ids, Request, Submitted,
    TokenLogprob,
};
pub use keys::Keys;
pub use models::{AdapterTexts, BASE_NAME, BaseModel, check_name};
pub use server::{Inspect, ServerOptions, StopServer, serve};
