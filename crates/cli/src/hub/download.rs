//! Files of the hub in the cache that `huggingface_hub` has: `blobs` with the contents, by etag; `snapshots` with
//! links to them, by commit; `refs` with the commit of each branch.
//!
//! A part of a file stays where an interruption left it, under the etag's name, and the next try goes on from there.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, anyhow, bail};
use burn_peft_files::Error as FileError;
use indicatif::HumanBytes;
use ring::digest;

use super::{
    WEIGHTS_ENDING,
    client::{Client, Sending, Sibling},
    name::is_plain_name,
    retry::Failure,
};
use crate::{output, progress::Progress};

/// Bytes that are written at a time.
const PIECE: usize = 1 << 17;

/// Fetches files of one commit into the cache.
pub(super) struct Download<'a> {
    pub(super) client: &'a Client,
    /// The folder of the repository in the cache.
    pub(super) folder: &'a Path,
    pub(super) commit: &'a str,
    bar: Progress,
    /// Bytes of the files that are there, and of all.
    before: u64,
    all: u64,
}

/// The beginning of a file, and what checks it.
struct Part {
    path: PathBuf,
    file: File,
    done: u64,
    digest: Option<digest::Context>,
}

impl<'a> Download<'a> {
    pub(super) fn new(client: &'a Client, folder: &'a Path, commit: &'a str) -> Self {
        Self {
            client,
            folder,
            commit,
            bar: Progress::download(),
            before: 0,
            all: 0,
        }
    }

    /// The folder of the commit.
    pub(super) fn snapshot(&self) -> PathBuf {
        self.folder.join("snapshots").join(self.commit)
    }

    /// Fetches these files of the repository `id`.
    pub(super) fn fetch(&mut self, id: &str, files: &[&Sibling]) -> Result<()> {
        let missing = |file: &&&Sibling| !self.snapshot().join(&file.name).exists();
        let missing: Vec<&Sibling> = files.iter().filter(missing).copied().collect();
        self.all = missing.iter().filter_map(|file| file.size).sum();
        if self.all > 1 << 20 {
            let (bytes, folder) = (HumanBytes(self.all), self.folder.display());
            output::say(&format!("fetching {id} ({bytes}) to {folder}"));
        }
        for file in missing {
            self.fetch_file(file).with_context(|| file.name.clone())?;
            self.before += file.size.unwrap_or(0);
        }
        Ok(())
    }

    fn fetch_file(&mut self, file: &Sibling) -> Result<()> {
        let (client, bar) = (self.client, &self.bar);
        self.bar.name(&file.name);
        let sending = client.retries.run(&mut |line| bar.say(line), || {
            client.open(self.commit, &file.name, 0)
        })?;
        let blob = self.folder.join("blobs").join(&sending.etag);
        if !blob.exists() {
            self.fetch_blob(sending, &file.name, &blob)?;
        }
        let snapshot = self.snapshot();
        link(&blob, &snapshot, &file.name)
            .with_context(|| format!("cannot write {}", snapshot.join(&file.name).display()))
    }

    /// Puts what is being sent into `blob`, by way of a part beside it.
    fn fetch_blob(&mut self, sending: Sending, name: &str, blob: &Path) -> Result<()> {
        let most = self.most_bytes(name, sending.size)?;
        burn_peft_files::create_folder(blob.parent().unwrap_or(self.folder))?;
        let path = blob.with_file_name(format!("{}.part", sending.etag));
        let Some(mut part) = Part::open(path, &sending, &self.bar)? else {
            return Ok(());
        };
        if blob.exists() {
            // Another process was here first.
            fs::remove_file(&part.path).ok();
            return Ok(());
        }
        self.complete(sending, name, &mut part, most)?;
        part.check(blob)?;
        part.file
            .sync_all()
            .map_err(FileError::to("write", &part.path))?;
        Ok(fs::rename(&part.path, blob).map_err(FileError::to("create", blob))?)
    }

    /// Receives what `part` lacks, by as many requests as it takes.
    fn complete(&mut self, first: Sending, name: &str, part: &mut Part, most: u64) -> Result<()> {
        let (client, etag, size) = (self.client, first.etag.clone(), first.size);
        let mut first = Some(first);
        let mut failed = 0;
        loop {
            let before = part.done;
            let mut attempt = || {
                if size.is_some_and(|size| part.done > size) {
                    // It is not the beginning of this file.
                    part.clear()?;
                }
                if part.done > 0 && Some(part.done) == size {
                    return Ok(());
                }
                let mut sending = match (first.take(), part.done) {
                    (Some(sending), 0) => sending,
                    (_, done) => client.open(self.commit, name, done)?,
                };
                if sending.etag != etag {
                    return Err(anyhow!("it was changed meanwhile; try again").into());
                }
                if part.done > 0 && !continues(&sending, part.done) {
                    part.clear()?;
                    if sending.response.status() == 206 {
                        sending = client.open(self.commit, name, 0)?;
                    }
                }
                self.receive(sending, part, most)
            };
            match attempt() {
                Ok(()) => break,
                Err(failure) => {
                    if part.done > before {
                        failed = 0;
                    }
                    let mut note = |line: &str| self.bar.say(&format!("{name}: {line}"));
                    failed = client.retries.wait(failed, failure, &mut note)?;
                }
            }
        }
        match size {
            Some(size) if size != part.done => {
                bail!("the hub sent {} of {size} bytes", part.done)
            }
            _ => Ok(()),
        }
    }

    /// Writes what is sent behind what is there.
    fn receive(&mut self, sending: Sending, part: &mut Part, most: u64) -> Result<(), Failure> {
        self.bar.start_at(self.before + part.done);
        // One more byte says that there are too many.
        let rest = (most - part.done).saturating_add(1);
        let mut body = sending.response.into_reader().take(rest);
        let mut piece = vec![0; PIECE];
        loop {
            let read = match body.read(&mut piece) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.client.broken(&error)),
            };
            part.write(&piece[..read])?;
            let all = self.all.max(sending.size.unwrap_or(0));
            self.bar.set(self.before + part.done, all);
        }
        if part.done > most {
            part.clear()?;
            let error = anyhow!("the hub sent more than the {most} bytes that it may have");
            return Err(error.into());
        }
        Ok(())
    }

    /// The bytes that are taken of a file whose size is `size`, where the hub says it.
    fn most_bytes(&self, name: &str, size: Option<u64>) -> Result<u64> {
        let is_small = !name.ends_with(WEIGHTS_ENDING);
        let most = self.client.longest_small;
        match size {
            Some(size) if is_small && size > most => {
                bail!("it has {size} bytes; a file of its kind may have {most}")
            }
            Some(size) => Ok(size),
            None if is_small => Ok(most),
            None => bail!("the hub does not say how long it is"),
        }
    }
}

/// Whether what is sent begins where `done` bytes end.
fn continues(sending: &Sending, done: u64) -> bool {
    let range = sending.response.header("content-range");
    sending.response.status() == 206
        && range.is_some_and(|range| range.starts_with(&format!("bytes {done}-")))
}

impl Part {
    /// Opens it for this process alone. `None` where another process has meanwhile fetched the whole file.
    fn open(path: PathBuf, sending: &Sending, bar: &Progress) -> Result<Option<Self>> {
        let open = || OpenOptions::new().append(true).create(true).open(&path);
        let file = open().map_err(FileError::to("create", &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                bar.say("another process is fetching it; waiting for that");
                file.lock().map_err(FileError::to("lock", &path))?;
                if path.with_file_name(&sending.etag).exists() {
                    return Ok(None);
                }
            }
            // Some file systems have no locks.
            Err(TryLockError::Error(_)) => {}
        }
        let mut part = Self {
            digest: (sending.etag_is_sha256).then(|| digest::Context::new(&digest::SHA256)),
            done: 0,
            path,
            file,
        };
        let data = part.file.metadata();
        part.done = data.map_err(FileError::to("read", &part.path))?.len();
        if let Some(digest) = &mut part.digest
            && part.done > 0
        {
            let mut found = burn_peft_files::open(&part.path)?;
            let mut piece = vec![0; PIECE];
            loop {
                let read = found.read(&mut piece);
                match read.map_err(FileError::to("read", &part.path))? {
                    0 => break,
                    read => digest.update(&piece[..read]),
                }
            }
        }
        Ok(Some(part))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let written = self.file.write_all(bytes);
        written.map_err(|error| {
            let full = error.kind() == io::ErrorKind::StorageFull;
            let error = anyhow!(FileError::to("write", &self.path)(error));
            match full {
                true => anyhow!(
                    "{error}; make room, and the next try goes on from the {} that are there",
                    HumanBytes(self.done)
                ),
                false => error,
            }
        })?;
        self.done += bytes.len() as u64;
        if let Some(digest) = &mut self.digest {
            digest.update(bytes);
        }
        Ok(())
    }

    /// Begins anew.
    fn clear(&mut self) -> Result<(), Failure> {
        self.file
            .set_len(0)
            .map_err(FileError::to("write", &self.path))?;
        self.done = 0;
        if let Some(digest) = &mut self.digest {
            *digest = digest::Context::new(&digest::SHA256);
        }
        Ok(())
    }

    /// Refuses a whole file whose content is not what its name says.
    fn check(&mut self, blob: &Path) -> Result<()> {
        let Some(digest) = self.digest.take() else {
            return Ok(());
        };
        let found: String = digest
            .finish()
            .as_ref()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let named = blob.file_name().unwrap_or_default().to_string_lossy();
        if !named.eq_ignore_ascii_case(&found) {
            fs::remove_file(&self.path).ok();
            bail!("its SHA-256 is {found}, and the hub says {named}; try again");
        }
        Ok(())
    }
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

/// Notes which commit a revision is. A commit needs no note.
pub(super) fn note_revision(folder: &Path, revision: &str, commit: &str) -> Result<()> {
    if revision == commit {
        return Ok(());
    }
    let path = folder.join("refs").join(revision);
    Ok(burn_peft_files::write(&path, commit.as_bytes())?)
}

/// The folder in which the cache of the repository has this revision, if it knows it.
pub(super) fn cached(folder: &Path, revision: &str) -> Option<PathBuf> {
    let snapshots = folder.join("snapshots");
    let noted = folder.join("refs").join(revision);
    let commit = match burn_peft_files::read_to_string(&noted) {
        Ok(commit) => commit.trim().to_owned(),
        // A commit has no note.
        Err(_) => revision.to_owned(),
    };
    let snapshot = is_plain_name(&commit).then(|| snapshots.join(commit))?;
    snapshot.is_dir().then_some(snapshot)
}
