//! The claims this project makes about all of its crates together, one module each.
//!
//! What the numbers are compared with was made by `transformers` and `peft` and is committed under
//! `tests/fixtures`, with the script that made it.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

#[macro_use]
mod backends;
mod base_parity;
mod cases;
mod command_line;
mod documentation;
mod fixture;
mod gradients;
mod head_cases;
mod head_parity;
mod heads;
#[cfg(target_os = "linux")]
mod memory;
mod operations;
mod peft_parity;
mod placement;
mod round_trips;
mod sessions;
mod training;
