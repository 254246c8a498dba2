//! Writes files and folders whole or not at all, and reads them with errors that name them.
//!
//! [`write()`] replaces one file, and [`StagedFile`] writes one piece by piece. [`StagedFiles`] replaces several, and the
//! last of them is the commit point.
//! [`StagedFolder`] writes a folder, and [`remove_folder`] removes one. [`Checksums`] tell whether files are still
//! as they were written, and a [`ClaimedFolder`] keeps other processes out.
//!
//! The one design decision: everything is written in full under a temporary name *in the folder where it will
//! stand* (a rename across file systems would be a copy), synced to the disk, renamed into its place, and the
//! folder's list of names is synced after that. So a crash or a power failure leaves the old or the new, and
//! never half of either.
//!
//! It knows nothing of what the files hold.
//!
//! ```
//! # fn main() -> Result<(), burn_peft_files::Error> {
//! # let root = tempfile::tempdir().unwrap();
//! # let dir = root.path().join("run");
//! let mut files = burn_peft_files::StagedFiles::new(&dir)?;
//! files.add("weights", b"1 2 3")?;
//! files.add("config", b"three numbers")?;
//! assert!(!dir.join("weights").exists());
//! files.commit()?;
//! assert!(dir.join("weights").exists() && dir.join("config").exists());
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]

mod checksums;
mod claim;
mod files;
mod folder;

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

pub use checksums::{CHECKSUMS_FILE, Checksum, Checksums};
pub use claim::{ClaimedFolder, LOCK_FILE};
pub use files::{StagedFile, StagedFiles, write};
pub use folder::{ScratchFolder, StagedFolder, remove_folder, remove_leftovers, restore_replaced};

/// What the file system refused, and where.
#[derive(Debug, thiserror::Error)]
#[error("{}: cannot {action}: {source}", path.display())]
pub struct Error {
    /// What was tried: `read`, `write`, `create`, `remove`, ….
    pub action: &'static str,
    /// The file or folder.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

impl Error {
    /// A file that is not what was once written.
    pub fn damaged(path: &Path, reason: String) -> Self {
        Self::to("use", path)(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("it is damaged: {reason}"),
        ))
    }

    /// Makes an error of what the system says of `action` on `path`; for `map_err`.
    pub fn to(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self {
            action,
            path,
            source,
        }
    }
}

/// Opens a file for reading.
///
/// # Errors
/// If it cannot be opened, or is not a regular file: reading a pipe or a device may never end.
pub fn open(path: &Path) -> Result<File, Error> {
    let regular = |data: fs::Metadata| match (data.is_file(), data.is_dir()) {
        (true, _) => Ok(()),
        (false, true) => Err(io::ErrorKind::IsADirectory.into()),
        (false, false) => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is not a regular file",
        )),
    };
    // Before it is opened: that alone would wait for a pipe's other end.
    fs::metadata(path)
        .and_then(regular)
        .and_then(|()| File::open(path))
        .map_err(Error::to("read", path))
}

/// The bytes of a file.
///
/// # Errors
/// As [`open`].
pub fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    match open(path)?.read_to_end(&mut bytes) {
        Ok(_) => Ok(bytes),
        Err(error) => Err(Error::to("read", path)(error)),
    }
}

/// The text of a file.
///
/// # Errors
/// As [`open`], and if it is not UTF-8.
pub fn read_to_string(path: &Path) -> Result<String, Error> {
    let mut text = String::new();
    match open(path)?.read_to_string(&mut text) {
        Ok(_) => Ok(text),
        Err(error) => Err(Error::to("read", path)(error)),
    }
}

/// The value, or `None` where the file or folder does not exist.
///
/// # Errors
/// Any other error is handed on.
pub fn if_exists<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Creates a folder, and those above it, where they do not exist.
///
/// # Errors
/// If one cannot be created.
pub fn create_folder(path: &Path) -> Result<(), Error> {
    fs::create_dir_all(path).map_err(Error::to("create", path))
}

/// Waits until the names in a folder are on the disk.
fn sync_folder(path: &Path) -> Result<(), Error> {
    // Elsewhere a folder cannot be opened, and a rename is durable by itself or not at all.
    if !cfg!(unix) {
        return Ok(());
    }
    match File::open(path).and_then(|folder| folder.sync_all()) {
        // Some network file systems cannot do it for folders.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported
            ) =>
        {
            Ok(())
        }
        other => other.map_err(Error::to("write", path)),
    }
}

/// The folder in which a file or folder stands.
fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_where_and_what_and_keeps_its_source() {
        let missing = Path::new("no/such/file");
        let error = read(missing).unwrap_err();
        assert!(error.to_string().starts_with("no/such/file: cannot read: "));
        assert_eq!(error.source.kind(), io::ErrorKind::NotFound);
        assert!(if_exists(fs::read(missing)).unwrap().is_none());
    }

    #[cfg(unix)]
    #[test]
    fn a_pipe_is_refused_instead_of_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&path).status();
        assert!(made.unwrap().success());
        for error in [
            read(&path).unwrap_err(),
            read_to_string(&path).unwrap_err(),
            Checksum::of_file(&path).unwrap_err(),
        ] {
            assert!(error.to_string().contains("not a regular file"), "{error}");
        }
        let error = read(folder.path()).unwrap_err();
        assert_eq!(error.source.kind(), io::ErrorKind::IsADirectory);
    }

    #[test]
    fn a_name_alone_stands_in_the_current_folder() {
        assert_eq!(parent(Path::new("a")), Path::new("."));
        assert_eq!(parent(Path::new("a/b")), Path::new("a"));
    }
}
