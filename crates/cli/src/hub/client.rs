//! The requests to a hub, and where what it sends is put.
//!
//! hf-hub has a client too. It waits for ever for a server that says nothing, and takes names of files in the cache
//! from the server's headers as they are. This one leaves a part of a file where an earlier run stopped, as that does.

use std::fs::{self, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use serde::Deserialize;
use ureq::{Agent, ErrorKind, Response};

use super::{WEIGHTS_ENDING, is_plain_name};
use crate::progress::Progress;

/// How long a server may say nothing.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes of the longest list of a repository's files.
const LONGEST_LIST: u64 = 1 << 26;
/// Bytes of the longest file that is not one of weights.
const LONGEST_SMALL: u64 = 256 << 20;
/// More than any hub sends.
const MOST_REDIRECTS: usize = 8;

/// A hub.
pub(super) struct Client {
    agent: Agent,
    /// Scheme, host and perhaps a path, without a slash at the end.
    endpoint: String,
    token: Option<String>,
    patience: Duration,
    /// Bytes that a file without weights may have.
    pub(super) longest_small: u64,
}

/// What a hub says of a repository.
#[derive(Deserialize)]
pub(super) struct RepoInfo {
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
}

impl RepoInfo {
    /// The repository's files.
    ///
    /// # Errors
    /// A name that leads out of a folder.
    pub(super) fn files(&self) -> Result<Vec<&str>> {
        let names = self.siblings.iter().map(|sibling| &sibling.rfilename[..]);
        let inside = |name: &str| {
            let mut parts = name.split('/');
            parts.all(|part| !["", ".", ".."].contains(&part)) && !name.contains(['\\', '\0'])
        };
        match names.clone().find(|name| !inside(name)) {
            Some(name) => bail!("it lists a file {name:?}, which is outside of the repository"),
            None => Ok(names.collect()),
        }
    }
}

/// A file that is being sent.
struct Sending {
    response: Response,
    commit: String,
    etag: String,
}

impl Client {
    pub(super) fn new(endpoint: &str, token: Option<String>, patience: Duration) -> Self {
        let agent = ureq::builder()
            .try_proxy_from_env(true)
            .redirects(0)
            .timeout_connect(patience)
            .timeout_read(patience)
            .timeout_write(patience)
            .user_agent(concat!("burn-peft/", env!("CARGO_PKG_VERSION")))
            .build();
        Self {
            agent,
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            token,
            patience,
            longest_small: LONGEST_SMALL,
        }
    }

    /// The files of a model, by its path and revision.
    pub(super) fn info(&self, model: &str, revision: &str) -> Result<RepoInfo> {
        let revision = revision.replace('/', "%2F");
        let url = format!("{}/api/models/{model}/revision/{revision}", self.endpoint);
        let response = self.get(&url, None, |_| Ok(()))?;
        let mut text = Vec::new();
        let mut body = response.into_reader().take(LONGEST_LIST);
        body.read_to_end(&mut text).map_err(|e| self.broken(&e))?;
        serde_json::from_slice(&text)
            .map_err(|_| anyhow!("what {url} sent is no list of a repository's files"))
    }

    /// Fetches a file of the repository whose cache is `repo`, and returns the commit it is of.
    pub(super) fn fetch(
        &self,
        model: &str,
        revision: &str,
        file: &str,
        info: &RepoInfo,
        repo: &Path,
    ) -> Result<String> {
        let revision = revision.replace('/', "%2F");
        let url = format!("{}/{model}/resolve/{revision}/{file}", self.endpoint);
        let sending = self.open(&url, 0, info)?;
        let (commit, etag) = (sending.commit.clone(), sending.etag.clone());
        let blob = repo.join("blobs").join(&etag);
        if !blob.exists() {
            fs::create_dir_all(repo.join("blobs"))?;
            let part = repo.join("blobs").join(format!("{etag}.part"));
            self.receive(sending, &url, file, info, &part)
                .with_context(|| file.to_owned())?;
            fs::rename(&part, &blob)?;
        }
        let snapshot = repo.join("snapshots").join(&commit);
        link(&blob, &snapshot, file)
            .with_context(|| format!("cannot write {}", snapshot.join(file).display()))?;
        Ok(commit)
    }

    /// Puts a file's bytes into `part`, behind those that are there.
    fn receive(
        &self,
        mut sending: Sending,
        url: &str,
        name: &str,
        info: &RepoInfo,
        part: &Path,
    ) -> Result<()> {
        let mut file = OpenOptions::new().append(true).create(true).open(part)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => bail!("another process is fetching it"),
            // Some file systems have no locks.
            Err(TryLockError::Error(_)) => {}
        }
        let mut done = file.metadata()?.len();
        let total = length(&sending.response);
        let most = self.most_bytes(name, total)?;
        if done > 0 {
            if Some(done) == total {
                return Ok(());
            }
            let mut continues = false;
            if total.is_some_and(|total| done < total) {
                let etag = sending.etag;
                sending = self.open(url, done, info)?;
                let range = sending.response.header("content-range").unwrap_or_default();
                continues = range.starts_with(&format!("bytes {done}-")) && sending.etag == etag;
                if !continues {
                    sending = self.open(url, 0, info)?;
                }
            }
            if !continues {
                file.set_len(0)?;
                done = 0;
            }
        }
        let mut bar = Progress::bytes(&format!("fetching {name}"));
        // One more byte says that there are too many.
        let mut body = sending
            .response
            .into_reader()
            .take((most - done).saturating_add(1));
        let mut piece = vec![0; 1 << 16];
        loop {
            let read = match body.read(&mut piece) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.broken(&error)),
            };
            file.write_all(&piece[..read])?;
            done += read as u64;
            bar.set(done, total.unwrap_or(done));
        }
        if done > most {
            // What is there is not the beginning of the file.
            file.set_len(0)?;
            bail!("the hub sent more than the {most} bytes that it may have");
        }
        match total {
            Some(total) if total != done => bail!("the hub sent {done} of {total} bytes"),
            _ => Ok(file.sync_all()?),
        }
    }

    /// The bytes that are taken of a file whose length is `total`, where the hub says it.
    fn most_bytes(&self, name: &str, total: Option<u64>) -> Result<u64> {
        let is_small = !name.ends_with(WEIGHTS_ENDING);
        let most = self.longest_small;
        match total {
            Some(total) if is_small && total > most => {
                bail!("it has {total} bytes; a file of its kind may have {most}")
            }
            Some(total) => Ok(total),
            None if is_small => Ok(most),
            None => bail!("the hub does not say how long it is"),
        }
    }

    /// Asks for a file from byte `start` on.
    fn open(&self, url: &str, start: u64, info: &RepoInfo) -> Result<Sending> {
        let (mut commit, mut etag) = (Some(info.sha.clone()), None);
        let range = (start > 0).then(|| format!("bytes={start}-"));
        let response = self.get(url, range.as_deref(), |response| {
            // What the hub itself says goes before what the server says that it sends us to.
            if let Some(found) = response.header("x-repo-commit") {
                commit = Some(found.to_owned());
            }
            let found = ["x-linked-etag", "etag"].into_iter();
            let found = found.filter_map(|name| response.header(name)).next();
            if let (None, Some(found)) = (&etag, found) {
                let quoted = found.strip_prefix("W/").unwrap_or(found);
                etag = Some(quoted.trim_matches('"').to_owned());
            }
            Ok(())
        })?;
        let plain = |name: &str, value: Option<String>| match value {
            Some(value) if is_plain_name(&value) => Ok(value),
            Some(value) => bail!("the hub's {name} is {value:?}, which is no name of a file"),
            None => bail!("the hub sent no {name}"),
        };
        Ok(Sending {
            response,
            commit: plain("commit", commit)?,
            etag: plain("etag", etag)?,
        })
    }

    /// Sends a request and follows redirections; `look` sees every answer on the way.
    fn get(
        &self,
        url: &str,
        range: Option<&str>,
        mut look: impl FnMut(&Response) -> Result<()>,
    ) -> Result<Response> {
        let mut url = url.to_owned();
        for _ in 0..MOST_REDIRECTS {
            // Lengths and ranges are those of the file itself.
            let mut request = self.agent.get(&url).set("Accept-Encoding", "identity");
            if let Some(range) = range {
                request = request.set("Range", range);
            }
            // Whom the hub sends us to is not told it.
            let own = origin(&url) == origin(&self.endpoint);
            if let Some(token) = self.token.as_ref().filter(|_| own) {
                request = request.set("Authorization", &format!("Bearer {token}"));
            }
            let response = request.call().map_err(|error| self.failed(&url, error))?;
            look(&response)?;
            if !(300..400).contains(&response.status()) {
                return Ok(response);
            }
            let Some(location) = response.header("location") else {
                bail!("{url} sends us elsewhere without saying where");
            };
            url = match location.split_once("://") {
                Some(_) => location.to_owned(),
                None if location.starts_with('/') => format!("{}{location}", origin(&url)),
                None => bail!("{url} sends us to {location:?}, which is no address"),
            };
        }
        bail!("{url} was not the last of {MOST_REDIRECTS} redirections")
    }

    fn failed(&self, url: &str, error: ureq::Error) -> anyhow::Error {
        match error {
            ureq::Error::Status(401 | 403, _) => {
                anyhow!("the hub does not let us have it; it may not exist, or need a token")
            }
            ureq::Error::Status(404, _) => anyhow!("the hub does not have it"),
            ureq::Error::Status(status, _) => anyhow!("{url} answers with status {status}"),
            ureq::Error::Transport(error) => {
                let source = std::error::Error::source(&error);
                let source = source.and_then(|source| source.downcast_ref::<io::Error>());
                match (error.kind(), source) {
                    (ErrorKind::Dns, _) => anyhow!("{} is not found", origin(url)),
                    (_, Some(source)) => self.broken(source),
                    _ => anyhow!("{error}"),
                }
            }
        }
    }

    /// What a connection that broke says.
    fn broken(&self, error: &io::Error) -> anyhow::Error {
        match error.kind() {
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => {
                anyhow!("the hub said nothing for {:?}", self.patience)
            }
            _ => anyhow!("the connection broke: {error}"),
        }
    }
}

/// Scheme and host of an address.
fn origin(url: &str) -> &str {
    let host = url.find("://").map_or(0, |at| at + 3);
    let end = url[host..].find('/').map_or(url.len(), |at| host + at);
    &url[..end]
}

/// Bytes of the whole file.
fn length(response: &Response) -> Option<u64> {
    response.header("content-length")?.parse().ok()
}

/// Makes the file `name` of a snapshot a link to `blob`, as the cache has it, or a copy where there are no links.
fn link(blob: &Path, snapshot: &Path, name: &str) -> io::Result<()> {
    let pointer = &snapshot.join(name);
    if pointer.exists() {
        return Ok(());
    }
    fs::create_dir_all(pointer.parent().unwrap_or(snapshot))?;
    // Blobs and snapshots are in folders of the repository's folder.
    let up = "../".repeat(2 + name.matches('/').count());
    let blobs = format!("{up}blobs");
    let target: PathBuf = [
        Path::new(&blobs),
        Path::new(blob.file_name().unwrap_or_default()),
    ]
    .iter()
    .collect();
    #[cfg(unix)]
    let linked = std::os::unix::fs::symlink(target, pointer);
    #[cfg(windows)]
    let linked = std::os::windows::fs::symlink_file(target, pointer);
    match linked {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && pointer.exists() => Ok(()),
        Err(_) if cfg!(windows) => fs::copy(blob, pointer).map(|_| ()),
        linked => linked,
    }
}

/// Notes which commit a revision is.
pub(super) fn note_revision(repo: &Path, revision: &str, commit: &str) -> Result<()> {
    let path = repo.join("refs").join(revision);
    Ok(burn_peft_files::write(&path, commit.as_bytes())?)
}
