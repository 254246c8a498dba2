//! The page at `/`. It is part of the program and talks to nothing but this server.

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    http::{HeaderValue, header},
    response::Response,
    routing::get,
};

use crate::server::Server;

/// The files of the page: path, type, text.
const FILES: [(&str, &str, &str); 3] = [
    ("/", "text/html", include_str!("../page/index.html")),
    ("/page.css", "text/css", include_str!("../page/page.css")),
    (
        "/page.js",
        "text/javascript",
        include_str!("../page/page.js"),
    ),
];

/// What the page may load, and who may show it in a frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Whether a path is one of the page's, which nobody needs a key for.
pub(super) fn has(path: &str) -> bool {
    FILES.iter().any(|(own, ..)| *own == path)
}

/// Adds the page's files.
pub(super) fn routes(mut router: Router<Arc<Server>>) -> Router<Arc<Server>> {
    for (path, kind, text) in FILES {
        router = router.route(path, get(move || std::future::ready(file(kind, text))));
    }
    router
}

fn file(kind: &str, text: &'static str) -> Response {
    let mut response = Response::new(Body::from(text));
    let kind = HeaderValue::from_str(&format!("{kind}; charset=utf-8"));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, kind.expect("a type in ASCII"));
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-cache"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}
