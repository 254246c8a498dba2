//! One file, or several at once.

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::folder::staged;
use crate::{Error, create_folder, if_exists, parent, sync_folder};

/// Puts `bytes` into a file, in place of what was there. Creates the folders above it.
///
/// # Errors
/// If it cannot be written. The old file is still there then.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let mut files = StagedFiles::new(parent(path))?;
    files.add_at(path.to_owned(), bytes)?;
    files.commit()
}

/// Files of one folder, written in full and not yet in their places.
///
/// Dropping it removes them and changes nothing.
#[derive(Debug)]
pub struct StagedFiles<'a> {
    folder: &'a Path,
    files: Vec<(NamedTempFile, PathBuf)>,
}

impl<'a> StagedFiles<'a> {
    /// Files for `folder`, which is created if it does not exist.
    ///
    /// # Errors
    /// If it cannot be created.
    pub fn new(folder: &'a Path) -> Result<Self, Error> {
        create_folder(folder)?;
        Ok(Self {
            folder,
            files: Vec::new(),
        })
    }

    /// Writes a file through to the disk, under a temporary name in the folder.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn add(&mut self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        self.add_at(self.folder.join(name), bytes)
    }

    fn add_at(&mut self, path: PathBuf, bytes: &[u8]) -> Result<(), Error> {
        let mut file = temporary(self.folder)?;
        file.write_all(bytes)
            .and_then(|()| file.as_file().sync_all())
            .map_err(Error::to("write", &path))?;
        self.files.push((file, path));
        Ok(())
    }

    /// Renames the files into their places, in the order in which they were added. Where the last one says that
    /// the others are there, an interruption leaves nothing that could be taken for the whole.
    ///
    /// # Errors
    /// If a file cannot be renamed. Those before it are in their places then.
    pub fn commit(self) -> Result<(), Error> {
        for (file, path) in self.files {
            file.persist(&path)
                .map_err(|error| Error::to("write", &path)(error.error))?;
        }
        sync_folder(self.folder)
    }
}

/// A file that is written piece by piece and gets its name when it is whole.
///
/// Dropping it removes it and changes nothing.
#[derive(Debug)]
pub struct StagedFile {
    file: BufWriter<NamedTempFile>,
    path: PathBuf,
}

impl StagedFile {
    /// A file for `path`. Creates the folders above it.
    ///
    /// # Errors
    /// If nothing can be written there.
    pub fn new(path: &Path) -> Result<Self, Error> {
        // The file that a link names is replaced, not the link.
        let path = match if_exists(path.canonicalize()).map_err(Error::to("write", path))? {
            Some(found) => found,
            None => path.to_owned(),
        };
        replaceable(&path)?;
        create_folder(parent(&path))?;
        Ok(Self {
            file: BufWriter::new(temporary(parent(&path))?),
            path,
        })
    }

    /// Adds to the file.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn add(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.file
            .write_all(bytes)
            .map_err(Error::to("write", &self.path))
    }

    /// Puts the file in its place, in place of what was there.
    ///
    /// # Errors
    /// If it cannot be written or renamed.
    pub fn commit(self) -> Result<(), Error> {
        let Self { file, path } = self;
        let file = file.into_inner().map_err(io::IntoInnerError::into_error);
        let file = file.map_err(Error::to("write", &path))?;
        file.as_file()
            .sync_all()
            .map_err(Error::to("write", &path))?;
        file.persist(&path)
            .map_err(|error| Error::to("write", &path)(error.error))?;
        sync_folder(parent(&path))
    }
}

/// Refuses what a rename would put a file in the place of: a device, a pipe or a folder.
fn replaceable(path: &Path) -> Result<(), Error> {
    match if_exists(path.symlink_metadata()).map_err(Error::to("write", path))? {
        Some(data) if !data.is_file() => Err(Error::to("write", path)(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is not a regular file",
        ))),
        _ => Ok(()),
    }
}

/// A file in `folder` without its name yet.
fn temporary(folder: &Path) -> Result<NamedTempFile, Error> {
    let mut builder = staged();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // A temporary file is private by default. This one is to be as readable as any other.
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    builder
        .tempfile_in(folder)
        .map_err(Error::to("write to", folder))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn nothing_is_visible_before_commit_and_nothing_is_left_without_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        fs::write(&path, "old").unwrap();
        let mut staged = StagedFiles::new(folder.path()).unwrap();
        staged.add("a", b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"old");
        drop(staged);
        assert_eq!(names(folder.path()), ["a"]);
        let mut staged = StagedFiles::new(folder.path()).unwrap();
        staged.add("a", b"new").unwrap();
        staged.commit().unwrap();
        assert_eq!(names(folder.path()), ["a"]);
        assert_eq!(fs::read(&path).unwrap(), b"new");
    }

    #[test]
    fn the_last_file_is_the_last_to_be_in_its_place() {
        let folder = tempfile::tempdir().unwrap();
        // In the way of the last rename.
        fs::create_dir_all(folder.path().join("last/x")).unwrap();
        let mut staged = StagedFiles::new(folder.path()).unwrap();
        staged.add("first", b"1").unwrap();
        staged.add("last", b"2").unwrap();
        let error = staged.commit().unwrap_err();
        assert!(error.path.ends_with("last"), "{error}");
        assert_eq!(names(folder.path()), ["first", "last"]);
    }

    #[test]
    fn one_file_is_replaced_and_its_folders_are_made() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/a");
        for text in ["one", "two"] {
            write(&path, text.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        assert_eq!(names(&folder.path().join("new")), ["a"]);
    }

    #[test]
    fn a_file_written_in_pieces_has_its_name_when_it_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/a");
        for committed in [false, true] {
            let mut file = StagedFile::new(&path).unwrap();
            for piece in ["one ", "two"] {
                file.add(piece.as_bytes()).unwrap();
            }
            assert!(!path.exists());
            if committed {
                file.commit().unwrap();
            }
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), "one two");
        assert_eq!(names(&folder.path().join("new")), ["a"]);
    }

    #[cfg(unix)]
    #[test]
    fn a_pipe_and_a_link_stay_what_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let [pipe, file, link] = ["pipe", "file", "link"].map(|name| folder.path().join(name));
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        assert!(made.unwrap().success());
        let error = StagedFile::new(&pipe).unwrap_err().to_string();
        assert!(error.ends_with("it is not a regular file"), "{error}");
        fs::write(&file, "old").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        let mut staged = StagedFile::new(&link).unwrap();
        staged.add(b"new").unwrap();
        staged.commit().unwrap();
        assert!(link.is_symlink());
        assert_eq!(fs::read_to_string(&file).unwrap(), "new");
    }

    #[cfg(unix)]
    #[test]
    fn files_are_as_readable_as_any_other() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("plain"), "").unwrap();
        write(&folder.path().join("staged"), b"").unwrap();
        let mode = |name| {
            let data = fs::metadata(folder.path().join(name)).unwrap();
            data.permissions().mode()
        };
        assert_eq!(mode("staged"), mode("plain"));
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "").unwrap();
        let sub = path.join("sub");
        let message = StagedFiles::new(&sub).unwrap_err().to_string();
        let expected = format!("{}: cannot create: ", sub.display());
        assert!(message.starts_with(&expected), "{message}");
    }
}
