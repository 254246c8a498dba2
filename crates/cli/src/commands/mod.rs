//! One module a command: its arguments, and what it does.

mod adapter;
pub(crate) mod bench;
pub(crate) mod biases;
pub(crate) mod chat;
pub(crate) mod doctor;
pub(crate) mod evaluate;
pub(crate) mod export;
pub(crate) mod generate;
pub(crate) mod inspect;
mod method_help;
pub(crate) mod predict;
mod sampling;
pub(crate) mod serve;
pub(crate) mod shared;
pub(crate) mod train;
