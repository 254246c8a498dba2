//! Who may come in.

use std::{net::IpAddr, sync::Arc, time::Instant};

use axum::{
    extract::{Request, State},
    http::{HeaderMap, Uri, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::{
    page,
    routes::{self, HEALTH, LOAD_ADAPTER, UNLOAD_ADAPTER},
};
use crate::{api::ApiError, server::Server};

/// The names by which a server is asked. One that listens on this machine alone can be reached by web pages through a
/// browser here, which says their address: it answers nobody who calls it by another name (DNS rebinding), nor pages
/// of another host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Hosts {
    /// Names of this machine, and the one that the server was given.
    ThisMachine(String),
    /// Any.
    All,
}

impl Hosts {
    fn has(&self, host: &str) -> bool {
        match self {
            Self::All => true,
            Self::ThisMachine(given) => {
                let name = without_port(host);
                let address = name.trim_start_matches('[').trim_end_matches(']');
                name.eq_ignore_ascii_case("localhost")
                    || name.eq_ignore_ascii_case(given)
                    || address
                        .parse()
                        .is_ok_and(|address: IpAddr| address.is_loopback())
            }
        }
    }

    fn check(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), ApiError> {
        let text = |name| {
            headers
                .get_all(name)
                .iter()
                .map(|value| value.to_str().unwrap_or("?"))
        };
        let hosts = text(header::HOST).chain(uri.authority().map(|authority| authority.as_str()));
        let hosts: Vec<&str> = hosts.collect();
        if *self != Self::All && (hosts.is_empty() || !hosts.iter().all(|host| self.has(host))) {
            return Err(ApiError::forbidden(
                "the `Host` header names another host; this server answers to names of this machine only",
            ));
        }
        let foreign = text(header::ORIGIN).find(|origin| {
            let host = origin.split_once("://").map(|(_, host)| host);
            !host.is_some_and(|host| match self {
                Self::ThisMachine(_) => self.has(host),
                Self::All => hosts.contains(&host),
            })
        });
        match foreign {
            None => Ok(()),
            Some(_) => Err(ApiError::forbidden(
                "the `Origin` header names another host; pages from elsewhere are not answered",
            )),
        }
    }
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

/// Checks a request before anything of it is looked at, and counts it.
pub(crate) async fn guard(
    State(server): State<Arc<Server>>,
    request: Request,
    next: Next,
) -> Response {
    let began = Instant::now();
    let path = routes::known(request.uri().path());
    let response = match admit(&server, &request) {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    };
    let metrics = server.metrics();
    metrics.request(path, response.status().as_u16(), began.elapsed());
    response
}

fn admit(server: &Server, request: &Request) -> Result<(), ApiError> {
    server.hosts().check(request.uri(), request.headers())?;
    let given = key(request.headers());
    let is_one_of = |keys: &Option<crate::Keys>| match (keys, given) {
        (Some(keys), Some(given)) => keys.has(given),
        _ => false,
    };
    let is_admin = is_one_of(server.admin_keys());
    let may = match request.uri().path() {
        HEALTH => true,
        path if page::has(path) => true,
        LOAD_ADAPTER | UNLOAD_ADAPTER => is_admin,
        _ => server.api_keys().is_none() || is_one_of(server.api_keys()) || is_admin,
    };
    match may {
        true => Ok(()),
        false => Err(ApiError::no_key()),
    }
}

/// The key of `Authorization: Bearer KEY`.
fn key(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(header::AUTHORIZATION)?.as_bytes();
    let (scheme, key) = value.split_at_checked("Bearer ".len())?;
    scheme
        .eq_ignore_ascii_case(b"bearer ")
        .then(|| key.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(hosts: &Hosts, host: Option<&str>, origin: Option<&str>) -> bool {
        let mut headers = HeaderMap::new();
        for (name, value) in [(header::HOST, host), (header::ORIGIN, origin)] {
            if let Some(value) = value {
                headers.insert(name, value.parse().expect("a value"));
            }
        }
        hosts
            .check(&Uri::from_static("/v1/models"), &headers)
            .is_ok()
    }

    #[test]
    fn a_server_of_this_machine_answers_to_its_names_and_to_no_foreign_page() {
        let here = Hosts::ThisMachine("my-pc".to_owned());
        for (host, origin, expected) in [
            (Some("localhost:8000"), None, true),
            (Some("LOCALHOST"), None, true),
            (Some("127.0.0.1:1"), None, true),
            (Some("127.1.2.3"), None, true),
            (Some("[::1]:8000"), None, true),
            (Some("my-pc:8000"), None, true),
            (None, None, false),
            (Some("example.com"), None, false),
            (Some("localhost.example.com"), None, false),
            (Some("127.0.0.1.example.com:80"), None, false),
            (Some("10.0.0.1:8000"), None, false),
            (Some("localhost:8000"), Some("http://localhost:3000"), true),
            (Some("localhost:8000"), Some("http://127.0.0.1:8000"), true),
            (Some("localhost:8000"), Some("https://example.com"), false),
            (Some("localhost:8000"), Some("null"), false),
            (Some("localhost:8000"), Some("file://"), false),
        ] {
            assert_eq!(check(&here, host, origin), expected, "{host:?} {origin:?}");
        }
    }

    #[test]
    fn an_open_server_answers_to_every_name_and_to_its_own_pages() {
        for (host, origin, expected) in [
            (Some("example.com"), None, true),
            (None, None, true),
            (Some("a.b:80"), Some("http://a.b:80"), true),
            (Some("a.b:80"), Some("http://c.d:80"), false),
        ] {
            assert_eq!(
                check(&Hosts::All, host, origin),
                expected,
                "{host:?} {origin:?}"
            );
        }
    }

    #[test]
    fn the_key_is_what_follows_bearer() {
        for (value, expected) in [
            ("Bearer abc", Some("abc")),
            ("bearer  abc ", Some("abc")),
            ("Basic abc", None),
            ("Bearer", None),
            ("abc", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, value.parse().expect("a value"));
            assert_eq!(key(&headers), expected.map(str::as_bytes), "{value}");
        }
    }
}
