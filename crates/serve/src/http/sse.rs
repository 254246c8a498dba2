//! Server-sent events.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use axum::{
    body::Body,
    http::{HeaderValue, header},
    response::Response,
};
use hyper::body::{Body as HttpBody, Bytes, Frame};
use tokio::sync::mpsc;

/// An event with these data, which are one line.
pub(crate) fn event(data: &str) -> Bytes {
    Bytes::from(format!("data: {data}\n\n"))
}

/// OpenAI's mark behind the last event.
pub(crate) fn done() -> Bytes {
    event("[DONE]")
}

/// A response of events, which ends with their sender.
pub(crate) fn response(events: mpsc::Receiver<Bytes>) -> Response {
    let mut response = Response::new(Body::new(Events(events)));
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-cache"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// The events of a stream as a body.
struct Events(mpsc::Receiver<Bytes>);

impl HttpBody for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let next = self.0.poll_recv(cx);
        next.map(|event| event.map(|event| Ok(Frame::data(event))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_a_line_and_an_empty_one() {
        let text = serde_json::json!({"text": "a\nb\r\n\n"}).to_string();
        let event = event(&text);
        let event = std::str::from_utf8(&event).expect("UTF-8");
        let data = event
            .strip_prefix("data: ")
            .and_then(|rest| rest.strip_suffix("\n\n"));
        assert_eq!(data, Some(text.as_str()));
        assert!(!text.contains(['\n', '\r']));
        assert_eq!(done(), "data: [DONE]\n\n");
    }
}
