//! `/v1/models`.

use serde_json::{Value, json};

use super::error::ApiError;
use crate::{models::BASE_NAME, server::Server};

/// All models: the bare base first.
pub(crate) fn list(server: &Server) -> Value {
    let names = server.models().adapters();
    let names = std::iter::once(BASE_NAME.to_owned()).chain(names);
    let models: Vec<Value> = names.map(|name| object(server, &name)).collect();
    json!({"object": "list", "data": models})
}

/// One model.
pub(crate) fn one(server: &Server, name: &str) -> Result<Value, ApiError> {
    match server.models().find(name) {
        Some(_) => Ok(object(server, name)),
        None => Err(ApiError::no_such_model(name)),
    }
}

/// A model as vLLM describes one: an adapter's parent is its base. `task` is what it can be asked for.
pub(crate) fn object(server: &Server, name: &str) -> Value {
    let models = server.models();
    let is_base = name == BASE_NAME || name == models.base.name;
    let has_head = models
        .find(name)
        .is_some_and(|model| model.labels().is_some());
    json!({
        "id": name,
        "object": "model",
        "created": server.started(),
        "owned_by": "burn-peft",
        "root": models.base.name,
        "parent": (!is_base).then_some(BASE_NAME),
        "max_model_len": models.max_context,
        "task": if has_head { "classify" } else { "generate" },
    })
}
