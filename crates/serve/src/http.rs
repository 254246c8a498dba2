//! The HTTP side: connections, who may come in, and what stands at which path.

mod body;
mod connections;
mod guard;
mod metrics;
mod page;
mod routes;
pub(crate) mod sse;

pub(crate) use connections::accept;
pub(crate) use guard::Hosts;
pub(crate) use metrics::Metrics;
pub(crate) use routes::router;
