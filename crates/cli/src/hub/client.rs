//! The requests to a hub.
//!
//! The crate hf-hub has a client too. It waits for ever for a server that says nothing, gives up at the first fault, and takes
//! names of files in the cache from the server's headers as they are.

use std::{cell::Cell, io, io::Read, time::Duration};

use anyhow::{Result, anyhow, bail};
use serde::Deserialize;
use ureq::{Agent, ErrorKind, Response};

use super::{
    environment::{Environment, NoProxy},
    name::{HubName, is_plain_name},
    retry::{Failure, Retries},
};
use crate::output;

/// Bytes of the longest list of a repository's files.
const LONGEST_LIST: u64 = 1 << 26;
/// Bytes of the longest file that is not one of weights.
const LONGEST_SMALL: u64 = 256 << 20;
/// More than any hub sends.
const MOST_REDIRECTS: usize = 8;
/// What ureq itself does not tell from a whole body's end.
const SAYS_NOTHING: [io::ErrorKind; 2] = [io::ErrorKind::TimedOut, io::ErrorKind::WouldBlock];

/// A repository at a hub.
pub(super) struct Client {
    /// Through the proxy of the environment, where it has one.
    agent: Agent,
    direct: Agent,
    no_proxy: NoProxy,
    endpoint: String,
    token: Option<String>,
    timeout: Duration,
    /// `owner/name`.
    id: String,
    revision: String,
    pub(super) retries: Retries,
    /// Bytes that a file without weights may have.
    pub(super) longest_small: u64,
    /// Whether the hub has answered anything yet. A hub that never did is asked once.
    reached: Cell<bool>,
}

/// What a hub says of a repository.
#[derive(Deserialize)]
pub(super) struct RepoInfo {
    /// The commit.
    sha: String,
    siblings: Vec<Sibling>,
}

/// A file of a repository.
#[derive(Deserialize)]
pub(super) struct Sibling {
    /// Its path in the repository.
    #[serde(rename = "rfilename")]
    pub(super) name: String,
    /// Bytes, where the hub says so.
    #[serde(default)]
    pub(super) size: Option<u64>,
}

impl RepoInfo {
    /// The commit that the revision is.
    ///
    /// # Errors
    /// One that is no name of a folder.
    pub(super) fn commit(&self) -> Result<&str> {
        match is_plain_name(&self.sha) {
            true => Ok(&self.sha),
            false => bail!(
                "the hub's commit is {:?}, which is no name of a file",
                self.sha
            ),
        }
    }

    /// The repository's files.
    ///
    /// # Errors
    /// A name that leads out of a folder.
    pub(super) fn files(&self) -> Result<&[Sibling]> {
        let inside = |file: &&Sibling| {
            let mut parts = file.name.split('/');
            parts.all(|part| !["", ".", ".."].contains(&part)) && !file.name.contains(['\\', '\0'])
        };
        match self.siblings.iter().find(|file| !inside(file)) {
            Some(Sibling { name, .. }) => {
                bail!("it lists a file {name:?}, which is outside of the repository")
            }
            None => Ok(&self.siblings),
        }
    }
}

/// A file that is being sent.
pub(super) struct Sending {
    pub(super) response: Response,
    /// The name that its content has.
    pub(super) etag: String,
    /// Whether that name is the content's SHA-256.
    pub(super) etag_is_sha256: bool,
    /// Bytes of the whole file, where the hub says so.
    pub(super) size: Option<u64>,
}

/// What the answers on the way to a file say of it.
#[derive(Default)]
struct Headers {
    commit: Option<String>,
    linked_etag: Option<String>,
    linked_size: Option<u64>,
}

impl Headers {
    /// Notes what an answer says. What the hub itself says goes before what the server says that it sends us to.
    fn note(&mut self, response: &Response) {
        let header = |name| response.header(name).map(str::to_owned);
        self.commit = self.commit.take().or_else(|| header("x-repo-commit"));
        self.linked_etag = self.linked_etag.take().or_else(|| header("x-linked-etag"));
        let size = || header("x-linked-size")?.parse().ok();
        self.linked_size = self.linked_size.or_else(size);
    }
}

impl Client {
    pub(super) fn new(environment: &Environment, name: &HubName, revision: &str) -> Self {
        let timeout = environment.timeout;
        let agent = |proxied| {
            ureq::builder()
                .try_proxy_from_env(proxied)
                .redirects(0)
                .timeout_connect(timeout)
                .timeout_read(timeout)
                .timeout_write(timeout)
                .user_agent(concat!("burn-peft/", env!("CARGO_PKG_VERSION")))
                .build()
        };
        Self {
            agent: agent(true),
            direct: agent(false),
            no_proxy: environment.no_proxy.clone(),
            endpoint: environment.endpoint.clone(),
            token: environment.token.clone(),
            timeout,
            id: name.id.clone(),
            revision: revision.to_owned(),
            retries: Retries::default(),
            longest_small: LONGEST_SMALL,
            reached: Cell::new(false),
        }
    }

    /// What the hub says of the repository. With `once`, a hub that does not answer is not asked again.
    pub(super) fn info(&self, once: bool) -> Result<RepoInfo> {
        let revision = self.revision.replace('/', "%2F");
        let (endpoint, id) = (&self.endpoint, &self.id);
        // With the sizes of the files.
        let url = format!("{endpoint}/api/models/{id}/revision/{revision}?blobs=true");
        let ask = || {
            let (response, _) = self.get(&url, None)?;
            let mut text = Vec::new();
            let mut body = response.into_reader().take(LONGEST_LIST);
            body.read_to_end(&mut text).map_err(|e| self.broken(&e))?;
            Ok(text)
        };
        let text = match once {
            true => ask().map_err(Failure::into_error)?,
            false => self.retries.run(&mut output::say, ask)?,
        };
        serde_json::from_slice(&text)
            .map_err(|_| anyhow!("what {url} sent is no list of a repository's files"))
    }

    /// Asks for a file of `commit` from byte `start` on.
    pub(super) fn open(&self, commit: &str, file: &str, start: u64) -> Result<Sending, Failure> {
        let url = format!("{}/{}/resolve/{commit}/{file}", self.endpoint, self.id);
        let range = (start > 0).then(|| format!("bytes={start}-"));
        let (response, headers) = self.get(&url, range.as_deref())?;
        if headers.commit.is_some_and(|found| found != commit) {
            return Err(anyhow!("the hub sent another commit than {commit}").into());
        }
        let own_etag = || response.header("etag").map(str::to_owned);
        let linked = headers.linked_etag.is_some();
        let etag = headers.linked_etag.or_else(own_etag);
        let etag = etag.map(|etag| {
            let quoted = etag.strip_prefix("W/").unwrap_or(&etag);
            quoted.trim_matches('"').to_owned()
        });
        let etag = match etag {
            Some(etag) if is_plain_name(&etag) => etag,
            Some(etag) => {
                return Err(
                    anyhow!("the hub's etag is {etag:?}, which is no name of a file").into(),
                );
            }
            None => return Err(anyhow!("the hub sent no etag").into()),
        };
        let is_sha256 = etag.len() == 64 && etag.bytes().all(|byte| byte.is_ascii_hexdigit());
        let length = || response.header("content-length")?.parse().ok();
        let size = match response.status() {
            206 => whole_size(&response),
            _ => headers.linked_size.or_else(length),
        };
        Ok(Sending {
            etag_is_sha256: linked && is_sha256,
            response,
            etag,
            size,
        })
    }

    /// Sends a request and follows redirections.
    fn get(&self, url: &str, range: Option<&str>) -> Result<(Response, Headers), Failure> {
        let mut url = url.to_owned();
        let mut headers = Headers::default();
        for _ in 0..MOST_REDIRECTS {
            // Lengths and ranges are those of the file itself.
            let agent = match self.no_proxy.covers(origin(&url)) {
                true => &self.direct,
                false => &self.agent,
            };
            let mut request = agent.get(&url).set("Accept-Encoding", "identity");
            if let Some(range) = range {
                request = request.set("Range", range);
            }
            // Whom the hub sends us to is not told it.
            let own = origin(&url) == origin(&self.endpoint);
            if let Some(token) = self.token.as_ref().filter(|_| own) {
                request = request.set("Authorization", &format!("Bearer {token}"));
            }
            let response = request.call().map_err(|error| self.failed(&url, error))?;
            self.reached.set(true);
            headers.note(&response);
            if !(300..400).contains(&response.status()) {
                return Ok((response, headers));
            }
            let Some(location) = response.header("location") else {
                return Err(anyhow!("{url} sends us elsewhere without saying where").into());
            };
            url = match location.split_once("://") {
                Some(_) => location.to_owned(),
                None if location.starts_with('/') => format!("{}{location}", origin(&url)),
                None => {
                    let no_address = anyhow!("{url} sends us to {location:?}, which is no address");
                    return Err(no_address.into());
                }
            };
        }
        Err(anyhow!("{url} was not the last of {MOST_REDIRECTS} redirections").into())
    }

    fn failed(&self, url: &str, error: ureq::Error) -> Failure {
        match error {
            ureq::Error::Status(status, response) => {
                self.reached.set(true);
                self.refused(url, status, &response)
            }
            ureq::Error::Transport(error) => {
                let source = std::error::Error::source(&error);
                let source = source.and_then(|source| source.downcast_ref::<io::Error>());
                let host = origin(url);
                match (error.kind(), source) {
                    (ErrorKind::Dns, _) => self.passing(format!("{host} is not found")),
                    (ErrorKind::ConnectionFailed, Some(source))
                        if !SAYS_NOTHING.contains(&source.kind()) =>
                    {
                        self.passing(format!("there is no connection to {host}: {source}"))
                    }
                    (_, Some(source)) => self.broken(source),
                    _ => anyhow!("{error}").into(),
                }
            }
        }
    }

    /// What a status other than success means.
    fn refused(&self, url: &str, status: u16, response: &Response) -> Failure {
        let reason = response.header("x-error-code").unwrap_or_default();
        let message = response.header("x-error-message").unwrap_or_default();
        let page = format!("{}/{}", self.endpoint, self.id);
        let says = match (status, reason, &self.token) {
            (_, "GatedRepo", None) => format!(
                "it is gated: accept its conditions on {page}, and set HF_TOKEN to a token of yours"
            ),
            (_, "GatedRepo", Some(_)) => format!(
                "it is gated, and the owner of the token has no access to it; ask for it on {page}"
            ),
            (_, "RevisionNotFound", _) => format!("it has no revision `{}`", self.revision),
            (401, _, None) => "the hub has no public repository of that name; for a private one set HF_TOKEN, or \
                 log in with `hf auth login`"
                .into(),
            (401, _, Some(_)) if message.contains("Invalid credentials") => {
                "the hub does not accept the token; look at HF_TOKEN, or log in again with `hf auth login`".into()
            }
            (401, _, Some(_)) => "the hub has no repository of that name that the token may read".into(),
            (403, ..) => "the hub does not allow it to us; a token that may read it helps (HF_TOKEN)".into(),
            (404, "EntryNotFound", _) => format!("the hub does not have {url}"),
            (404, ..) => "the hub does not have it".into(),
            (429 | 500 | 502..=504, ..) => {
                return Failure::Passing {
                    reason: match status {
                        429 => "the hub gets too many requests (status 429)".into(),
                        _ => format!("the hub answers with status {status}"),
                    },
                    wait: response
                        .header("retry-after")
                        .and_then(|seconds| seconds.trim().parse().ok())
                        .map(Duration::from_secs),
                };
            }
            _ => format!("{url} answers with status {status}"),
        };
        anyhow!(says).into()
    }

    /// What a connection that broke says.
    pub(super) fn broken(&self, error: &io::Error) -> Failure {
        match error.kind() {
            kind if SAYS_NOTHING.contains(&kind) => Failure::Passing {
                reason: format!("the hub said nothing for {:?}", self.timeout),
                wait: None,
            },
            // A certificate that is no good stays so.
            io::ErrorKind::InvalidData => anyhow!("the connection is refused: {error}").into(),
            _ => self.passing(format!("the connection broke: {error}")),
        }
    }

    /// A fault that may pass, if there was any connection yet.
    fn passing(&self, reason: String) -> Failure {
        match self.reached.get() {
            true => Failure::Passing { reason, wait: None },
            false => anyhow!(reason).into(),
        }
    }
}

/// Scheme and host of an address.
fn origin(url: &str) -> &str {
    let host = url.find("://").map_or(0, |at| at + 3);
    let end = url[host..].find('/').map_or(url.len(), |at| host + at);
    &url[..end]
}

/// Bytes of the whole file, of which a part is sent.
fn whole_size(response: &Response) -> Option<u64> {
    let (_, size) = response.header("content-range")?.rsplit_once('/')?;
    size.parse().ok()
}
