//! Files that are there whole or not at all.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::Error;

pub(crate) fn read(path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(io("read", path))
}

/// Puts `bytes` into a file, in place of what was there, whole or not at all. Folders above it are
/// created if need be.
///
/// # Errors
/// If it cannot be written; the old file is then still there.
pub fn write_whole(file: &Path, bytes: &[u8]) -> Result<(), Error> {
    let dir = match file.parent() {
        Some(dir) if dir != Path::new("") => dir,
        _ => Path::new("."),
    };
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let mut staged = Staged::new(dir)?;
    staged.add(&name, bytes)?;
    staged.commit()
}

pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.to_path_buf();
    move |source| Error::Io {
        action,
        path,
        source,
    }
}

/// Files written in full beside their destinations, and not yet in their place.
///
/// Dropping it leaves everything as it was.
#[derive(Debug)]
pub(crate) struct Staged<'a> {
    dir: &'a Path,
    files: Vec<(NamedTempFile, PathBuf)>,
}

impl<'a> Staged<'a> {
    /// Into `dir`, which is created if it is not there.
    pub(crate) fn new(dir: &'a Path) -> Result<Self, Error> {
        std::fs::create_dir_all(dir).map_err(io("create", dir))?;
        Ok(Self {
            dir,
            files: Vec::new(),
        })
    }

    /// Writes a file, through to the disk, under a temporary name in the same directory.
    pub(crate) fn add(&mut self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        let path = self.dir.join(name);
        let mut builder = tempfile::Builder::new();
        builder.prefix(".adapter-");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            // A temporary file is private by default; an adapter is as readable as any file the user makes.
            builder.permissions(std::fs::Permissions::from_mode(0o666));
        }
        let mut file = builder
            .tempfile_in(self.dir)
            .map_err(io("write to", self.dir))?;
        file.write_all(bytes)
            .and_then(|()| file.as_file().sync_all())
            .map_err(io("write", &path))?;
        self.files.push((file, path));
        Ok(())
    }

    /// Moves the files into their places, in the order they were added.
    pub(crate) fn commit(self) -> Result<(), Error> {
        for (file, path) in self.files {
            file.persist(&path)
                .map_err(|error| error.error)
                .map_err(io("write", &path))?;
        }
        // So that the names, too, outlive a power failure. Not every system can open a directory.
        if let Ok(dir) = File::open(self.dir) {
            let _ = dir.sync_all();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> = std::fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn nothing_is_visible_before_commit_and_nothing_is_left_without_it() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a"), "old").unwrap();
        let mut staged = Staged::new(dir.path()).unwrap();
        staged.add("a", b"new").unwrap();
        assert_eq!(std::fs::read(dir.path().join("a")).unwrap(), b"old");
        drop(staged);
        assert_eq!(names(dir.path()), ["a"]);
        let mut staged = Staged::new(dir.path()).unwrap();
        staged.add("a", b"new").unwrap();
        staged.commit().unwrap();
        assert_eq!(names(dir.path()), ["a"]);
        assert_eq!(std::fs::read(dir.path().join("a")).unwrap(), b"new");
    }

    #[cfg(unix)]
    #[test]
    fn files_are_as_readable_as_any_other() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("plain"), "").unwrap();
        let mut staged = Staged::new(dir.path()).unwrap();
        staged.add("staged", b"").unwrap();
        staged.commit().unwrap();
        let mode = |name| {
            std::fs::metadata(dir.path().join(name))
                .unwrap()
                .permissions()
                .mode()
        };
        assert_eq!(mode("staged"), mode("plain"));
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, "").unwrap();
        let message = Staged::new(&path.join("sub")).unwrap_err().to_string();
        assert!(
            message.starts_with(&format!("{}: cannot create: ", path.join("sub").display())),
            "{message}"
        );
    }
}
