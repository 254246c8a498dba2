//! A folder that one process at a time writes to.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

use crate::{Error, parent};

/// Name of the file that is locked while a process writes to the folder, and that names the process.
pub const LOCK_FILE: &str = "run.lock";

/// A folder that this process alone writes to, as long as this value lives.
///
/// The lock is the system's: it ends with the process, however that ends. Dropping it removes the lock's file, and
/// the folder where it was made for this claim and nothing was put into it.
#[derive(Debug)]
pub struct ClaimedFolder {
    path: PathBuf,
    /// Locked. `None` where the file system has no locks.
    lock: Option<File>,
    /// The folders that were made for it, the outermost first.
    made: Vec<PathBuf>,
}

impl ClaimedFolder {
    /// Claims a folder, which is made if it does not exist.
    ///
    /// # Errors
    /// If another process has claimed it (the source's kind is then [`ResourceBusy`](io::ErrorKind::ResourceBusy)),
    /// or if it cannot be made or written to.
    pub fn claim(path: &Path) -> Result<Self, Error> {
        let mut made = Vec::new();
        make_folders(path, &mut made).map_err(Error::to("create", path))?;
        Self::lock(path, made)
    }

    /// Claims a folder that does not exist yet; `None` where it does.
    ///
    /// # Errors
    /// As [`claim`](Self::claim).
    pub fn claim_new(path: &Path) -> Result<Option<Self>, Error> {
        let mut made = Vec::new();
        make_folders(parent(path), &mut made).map_err(Error::to("create", path))?;
        match fs::create_dir(path) {
            Ok(()) => made.push(path.to_owned()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(None),
            Err(error) => return Err(Error::to("create", path)(error)),
        }
        Self::lock(path, made).map(Some)
    }

    /// Checks that a folder can be claimed, and neither makes nor changes anything.
    ///
    /// # Errors
    /// As [`claim`](Self::claim).
    pub fn check(path: &Path) -> Result<(), Error> {
        let mut nearest = path;
        while !nearest.exists() && parent(nearest) != nearest {
            nearest = parent(nearest);
        }
        if !nearest.is_dir() {
            let reason = format!("{} is a file", nearest.display());
            let error = io::Error::new(io::ErrorKind::NotADirectory, reason);
            return Err(Error::to("create", path)(error));
        }
        let action = if nearest == path {
            "write to"
        } else {
            "create"
        };
        check_writable(nearest).map_err(Error::to(action, path))?;
        let lock = path.join(LOCK_FILE);
        if is_shared(&lock) {
            return Ok(());
        }
        match File::open(&lock) {
            Ok(mut file) => match file.try_lock() {
                Err(TryLockError::WouldBlock) => Err(Error::to("write to", path)(held(&mut file))),
                // Some network file systems have no locks.
                Ok(()) | Err(TryLockError::Error(_)) => Ok(()),
            },
            Err(_) => Ok(()),
        }
    }

    fn lock(path: &Path, made: Vec<PathBuf>) -> Result<Self, Error> {
        Ok(Self {
            path: path.to_owned(),
            lock: lock_file(path)?,
            made,
        })
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Gives the folder up from another thread than the one that holds it, before the process ends: as dropping it.
    pub fn abandon(path: &Path, made: &[PathBuf]) {
        fs::remove_file(path.join(LOCK_FILE)).ok();
        for folder in made.iter().rev() {
            // Fails where something is in it, which is then to stay.
            if fs::remove_dir(folder).is_err() {
                break;
            }
        }
    }

    /// The folders that were made for this claim, the outermost first.
    #[must_use]
    pub fn made(&self) -> &[PathBuf] {
        &self.made
    }
}

impl Drop for ClaimedFolder {
    fn drop(&mut self) {
        // While it is still locked, so that nobody else's file is removed.
        if self.lock.is_some() {
            Self::abandon(&self.path, &self.made);
        }
    }
}

fn make_folders(path: &Path, made: &mut Vec<PathBuf>) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if parent(path) != path {
        make_folders(parent(path), made)?;
    }
    match fs::create_dir(path) {
        Ok(()) => made.push(path.to_owned()),
        // By another process in the meantime.
        Err(_) if path.is_dir() => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let reason = format!("{} is a file", path.display());
            return Err(io::Error::new(io::ErrorKind::NotADirectory, reason));
        }
        Err(error) => return Err(error),
    }
    Ok(())
}

/// The locked file of a folder.
fn lock_file(folder: &Path) -> Result<Option<File>, Error> {
    let path = folder.join(LOCK_FILE);
    let refused = |error| Error::to("write to", folder)(error);
    loop {
        if is_shared(&path) {
            // Whatever it points to is not ours to write to.
            fs::remove_file(&path).map_err(refused)?;
        }
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let mut file = options.open(&path).map_err(refused)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(refused(held(&mut file)));
            }
            // Some network file systems have no locks.
            Err(TryLockError::Error(_)) => return Ok(None),
        }
        // The process that had it may have removed the name between the two calls.
        if is_at(&file, &path) {
            let text = format!("process {}{}\n", std::process::id(), on_host());
            file.set_len(0)
                .and_then(|()| file.rewind())
                .and_then(|()| file.write_all(text.as_bytes()))
                .map_err(refused)?;
            return Ok(Some(file));
        }
    }
}

/// Who has locked the file.
fn held(file: &mut File) -> io::Error {
    let mut holder = String::new();
    file.read_to_string(&mut holder).ok();
    let holder = match holder.trim() {
        "" => "another process",
        named => named,
    };
    let reason = format!("{holder} is writing to it");
    io::Error::new(io::ErrorKind::ResourceBusy, reason)
}

/// Whether this process may make files in a folder.
fn check_writable(folder: &Path) -> io::Result<()> {
    #[cfg(unix)]
    {
        use nix::unistd::{AccessFlags, access};
        Ok(access(folder, AccessFlags::W_OK | AccessFlags::X_OK)?)
    }
    #[cfg(not(unix))]
    match fs::metadata(folder)?.permissions().readonly() {
        true => Err(io::ErrorKind::PermissionDenied.into()),
        false => Ok(()),
    }
}

/// Whether the name is a link to a file that has other names too.
fn is_shared(path: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        if fs::symlink_metadata(path).is_ok_and(|data| data.nlink() > 1) {
            return true;
        }
    }
    path.is_symlink()
}

/// Whether the open file still has this name.
#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let id = |data: fs::Metadata| (data.dev(), data.ino());
    let found = fs::symlink_metadata(path).map(id).ok();
    found.is_some() && file.metadata().map(id).ok() == found
}

/// Elsewhere a file cannot be removed while it is open.
#[cfg(not(unix))]
fn is_at(_file: &File, _path: &Path) -> bool {
    true
}

/// Folders are shared between machines, and a number is one machine's.
fn on_host() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match name.trim() {
        "" => String::new(),
        name => format!(" on {name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_claimed_once_and_the_holder_is_named() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("runs/a");
        let claimed = ClaimedFolder::claim(&path).unwrap();
        let error = ClaimedFolder::claim(&path).unwrap_err();
        assert_eq!(error.source.kind(), io::ErrorKind::ResourceBusy);
        let holder = format!("process {}", std::process::id());
        assert!(error.to_string().contains(&holder), "{error}");
        drop(claimed);
        ClaimedFolder::claim(&path).unwrap();
    }

    #[test]
    fn an_unused_claim_leaves_nothing_and_a_used_one_leaves_the_folder() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("runs/a");
        drop(ClaimedFolder::claim(&path).unwrap());
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
        let claimed = ClaimedFolder::claim(&path).unwrap();
        fs::write(path.join("mine"), "").unwrap();
        drop(claimed);
        let names: Vec<_> = fs::read_dir(&path).unwrap().collect();
        assert_eq!(names.len(), 1);
        assert_eq!(names[0].as_ref().unwrap().file_name(), "mine");
    }

    #[test]
    fn a_check_makes_nothing_and_refuses_what_a_claim_would() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("runs/a");
        ClaimedFolder::check(&path).unwrap();
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);

        let claimed = ClaimedFolder::claim(&path).unwrap();
        let refused = ClaimedFolder::check(&path).unwrap_err().to_string();
        let expected = ClaimedFolder::claim(&path).unwrap_err().to_string();
        assert_eq!(refused, expected);
        drop(claimed);

        let file = root.path().join("file");
        fs::write(&file, "").unwrap();
        for path in [file.clone(), file.join("a/b")] {
            let refused = ClaimedFolder::check(&path).unwrap_err().to_string();
            let expected = ClaimedFolder::claim(&path).unwrap_err().to_string();
            assert_eq!(refused, expected);
        }
    }

    #[test]
    fn a_folder_that_was_there_stays() {
        let root = tempfile::tempdir().unwrap();
        drop(ClaimedFolder::claim(root.path()).unwrap());
        assert!(root.path().is_dir());
        assert!(ClaimedFolder::claim_new(root.path()).unwrap().is_none());
        let new = root.path().join("new");
        assert!(ClaimedFolder::claim_new(&new).unwrap().is_some());
    }

    #[cfg(unix)]
    #[test]
    fn a_link_in_the_locks_place_is_not_followed() {
        let root = tempfile::tempdir().unwrap();
        let outside = root.path().join("outside");
        fs::write(&outside, "precious").unwrap();
        let folder = root.path().join("run");
        fs::create_dir(&folder).unwrap();
        let lock = folder.join(LOCK_FILE);
        std::os::unix::fs::symlink(&outside, &lock).unwrap();
        drop(ClaimedFolder::claim(&folder).unwrap());
        fs::hard_link(&outside, &lock).unwrap();
        drop(ClaimedFolder::claim(&folder).unwrap());
        assert_eq!(fs::read_to_string(&outside).unwrap(), "precious");
    }
}
