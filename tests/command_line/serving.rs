//! `serve`: a server as its clients meet it, over HTTP.

mod client;
mod load;
mod refusals;
mod texts;
