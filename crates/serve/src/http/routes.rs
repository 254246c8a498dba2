//! What stands at which path.

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    extract::{Path, Request, State, rejection::PathRejection},
    http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header},
    middleware,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde_json::json;

use super::{body, guard, page};
use crate::{
    api::{self, ApiError, json_response},
    server::Server,
};

pub(super) const HEALTH: &str = "/health";
pub(super) const LOAD_ADAPTER: &str = "/v1/load_lora_adapter";
pub(super) const UNLOAD_ADAPTER: &str = "/v1/unload_lora_adapter";
const METRICS: &str = "/metrics";
const MODELS: &str = "/v1/models";
const COMPLETIONS: &str = "/v1/completions";
const CHAT: &str = "/v1/chat/completions";
/// vLLM's path, and one beside OpenAI's.
const CLASSIFY: [&str; 2] = ["/classify", "/v1/classifications"];

type Shared = State<Arc<Server>>;
type Answered = Result<Response, ApiError>;

/// The name of a path in figures, which clients cannot make more of.
pub(super) fn known(path: &str) -> &'static str {
    let paths = [
        HEALTH,
        METRICS,
        COMPLETIONS,
        CHAT,
        LOAD_ADAPTER,
        UNLOAD_ADAPTER,
    ];
    let known = paths
        .into_iter()
        .chain(CLASSIFY)
        .find(|known| *known == path);
    known.unwrap_or(match () {
        () if page::has(path) => "/",
        () if path.starts_with(MODELS) => MODELS,
        () => "other",
    })
}

/// Everything that is served.
pub(crate) fn router(server: Arc<Server>) -> Router {
    let mut router = page::routes(Router::new())
        .route(HEALTH, get(health))
        .route(METRICS, get(metrics))
        .route(MODELS, get(models))
        .route("/v1/models/{*name}", get(model))
        .route(COMPLETIONS, post(completions))
        .route(CHAT, post(chat));
    for path in CLASSIFY {
        router = router.route(path, post(classify));
    }
    if server.admin_keys().is_some() {
        router = router
            .route(LOAD_ADAPTER, post(load))
            .route(UNLOAD_ADAPTER, post(unload));
    }
    router
        .fallback(nothing)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn_with_state(
            Arc::clone(&server),
            guard::guard,
        ))
        .with_state(server)
}

async fn nothing(uri: Uri) -> ApiError {
    ApiError::no_such_path(uri.path())
}

async fn wrong_method(method: Method, uri: Uri) -> ApiError {
    ApiError::method(method.as_str(), uri.path())
}

async fn health(State(server): Shared) -> Response {
    match server.is_stopping() {
        false => json_response(&json!({"status": "ok"})),
        true => {
            let mut response = json_response(&json!({"status": "stopping"}));
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            response
        }
    }
}

async fn metrics(State(server): Shared) -> Response {
    let text = server.metrics().text(server.engine().counters());
    let mut response = Response::new(Body::from(text));
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

async fn models(State(server): Shared) -> Response {
    json_response(&api::models::list(&server))
}

async fn model(
    State(server): Shared,
    name: Result<Path<String>, PathRejection>,
    uri: Uri,
) -> Answered {
    // What is not UTF-8 is the name of nothing.
    let Path(name) = name.map_err(|_| ApiError::no_such_path(uri.path()))?;
    Ok(json_response(&api::models::one(&server, &name)?))
}

async fn completions(State(server): Shared, headers: HeaderMap, request: Request) -> Answered {
    let busy = server.enter()?;
    let fields = body::fields(&headers, request.into_body()).await?;
    api::completions::answer(server, fields, busy).await
}

async fn chat(State(server): Shared, headers: HeaderMap, request: Request) -> Answered {
    let busy = server.enter()?;
    let fields = body::fields(&headers, request.into_body()).await?;
    api::chat::answer(server, fields, busy).await
}

async fn classify(State(server): Shared, headers: HeaderMap, request: Request) -> Answered {
    let _busy = server.enter()?;
    let fields = body::fields(&headers, request.into_body()).await?;
    api::classify::answer(&server, fields).await
}

async fn load(State(server): Shared, headers: HeaderMap, request: Request) -> Answered {
    let _busy = server.enter()?;
    let fields = body::fields(&headers, request.into_body()).await?;
    api::admin::load(server, fields).await
}

async fn unload(State(server): Shared, headers: HeaderMap, request: Request) -> Response {
    let fields = body::fields(&headers, request.into_body()).await;
    fields
        .and_then(|fields| api::admin::unload(&server, fields))
        .into_response()
}
