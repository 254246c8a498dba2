//! Bodies of requests, bounded in size and time.

use std::time::Duration;

use axum::{body::Body, http::HeaderMap};
use http_body_util::BodyExt;
use hyper::{body::Body as _, header};

use crate::api::{ApiError, Fields};

/// The longest body, in bytes.
const LONGEST: usize = 2 << 20;

/// The longest body that is read before it is refused.
const LONGEST_READ: u64 = 64 << 20;

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
    if body.size_hint().lower() > LONGEST_READ {
        return Err(ApiError::too_large(LONGEST));
    }
    let read = tokio::time::timeout(PATIENCE, read(body)).await;
    Fields::parse(&read.map_err(|_| ApiError::slow_body())??)
}

/// The bytes of a body. One that is too long is read to its end and forgotten: a client that still writes would not see
/// the answer.
async fn read(mut body: Body) -> Result<Vec<u8>, ApiError> {
    let mut bytes = Vec::new();
    let mut is_too_long = false;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| ApiError::bad("the body could not be read"))?;
        let Ok(part) = frame.into_data() else {
            continue;
        };
        is_too_long |= bytes.len() + part.len() > LONGEST;
        match is_too_long {
            true => bytes = Vec::new(),
            false => bytes.extend_from_slice(&part),
        }
    }
    match is_too_long {
        true => Err(ApiError::too_large(LONGEST)),
        false => Ok(bytes),
    }
}
