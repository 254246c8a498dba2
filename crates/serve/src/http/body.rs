//! Bodies of requests, bounded in size and time.

use std::time::Duration;

use axum::{body::Body, http::HeaderMap};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::{body::Body as _, header};

use crate::api::{ApiError, Fields};

/// The longest body, in bytes.
const LONGEST: usize = 2 << 20;

/// How long a body may take to arrive.
const PATIENCE: Duration = Duration::from_secs(30);

/// The fields of a body of JSON.
pub(crate) async fn fields(headers: &HeaderMap, body: Body) -> Result<Fields, ApiError> {
    let kind = headers.get(header::CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if !kind.eq_ignore_ascii_case("application/json") {
        return Err(ApiError::media_type());
    }
    if body.size_hint().lower() > LONGEST as u64 {
        return Err(ApiError::too_large(LONGEST));
    }
    let read = tokio::time::timeout(PATIENCE, Limited::new(body, LONGEST).collect()).await;
    let body = read.map_err(|_| ApiError::slow_body())?;
    let body = body.map_err(|error| match error.is::<LengthLimitError>() {
        true => ApiError::too_large(LONGEST),
        false => ApiError::bad("the body could not be read"),
    })?;
    Fields::parse(&body.to_bytes())
}
