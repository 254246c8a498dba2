//! Adapters that come and go while the server runs, under vLLM's names.

use std::{path::PathBuf, sync::Arc};

use axum::response::Response;
use serde_json::json;

use super::{
    error::{ApiError, json_response},
    fields::{Fields, expected},
    models,
};
use crate::{
    models::{Models, check_name},
    server::Server,
};

/// `/v1/load_lora_adapter`: reads a folder of this machine.
pub(crate) async fn load(server: Arc<Server>, mut fields: Fields) -> Result<Response, ApiError> {
    let name = fields.required_text("lora_name")?;
    let path = PathBuf::from(fields.required_text("lora_path")?);
    fields.finish()?;
    check_name(&name).map_err(|error| ApiError::field("lora_name", error))?;
    // One after the other, so that a name is free until it is taken.
    let _turn = server.loading().await;
    is_free(server.models(), &name)?;
    let wrong = |error: String| ApiError::field("lora_path", error);
    let (of_server, dir) = (Arc::clone(&server), path.clone());
    let texts = tokio::task::spawn_blocking(move || of_server.inspect(&dir)).await;
    let texts = texts.map_err(|error| ApiError::internal(error.to_string()))?;
    let texts = texts.map_err(wrong)?;
    let id = server.models().new_id();
    let loaded = server.engine().load(id, path).await;
    let tokens = loaded.map_err(|_| ApiError::stopping())?.map_err(wrong)?;
    if tokens != texts.virtual_tokens {
        server.engine().unload(id);
        return Err(wrong("the folder changed while it was read".to_owned()));
    }
    server.models().add(name.clone(), id, texts);
    Ok(json_response(&models::object(&server, &name)))
}

fn is_free(models: &Models, name: &str) -> Result<(), ApiError> {
    match models.find(name) {
        None => Ok(()),
        Some(_) => Err(expected("lora_name", "a name that no other model has")),
    }
}

/// `/v1/unload_lora_adapter`. Answers that are under way are finished.
pub(crate) fn unload(server: &Server, mut fields: Fields) -> Result<Response, ApiError> {
    let name = fields.required_text("lora_name")?;
    fields.finish()?;
    let Some(id) = server.models().remove(&name) else {
        let mut error = ApiError::no_such_model(&name);
        error.param = Some("lora_name".to_owned());
        return Err(error);
    };
    server.engine().unload(id);
    Ok(json_response(
        &json!({"id": name, "object": "model", "deleted": true}),
    ))
}
