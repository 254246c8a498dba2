//! A whole folder.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::{Error, create_folder, if_exists, parent, sync_folder};

/// A folder that is written under the name `.NAME.partial` beside its place.
///
/// Dropping it removes what was written and changes nothing. A crash can leave the partial folder, which the next
/// one for the same place removes.
#[derive(Debug)]
pub struct StagedFolder {
    path: PathBuf,
    partial: PathBuf,
    replaces: bool,
}

impl StagedFolder {
    /// Begins a folder where there is none, or an empty one.
    ///
    /// # Errors
    /// If the folder exists and is not empty (the source's kind is then
    /// [`DirectoryNotEmpty`](io::ErrorKind::DirectoryNotEmpty)), or cannot be created.
    pub fn new(path: &Path) -> Result<Self, Error> {
        let entries = if_exists(fs::read_dir(path)).map_err(Error::to("read", path))?;
        if entries.is_some_and(|mut entries| entries.next().is_some()) {
            let kind = io::ErrorKind::DirectoryNotEmpty;
            return Err(Error::to("write to", path)(kind.into()));
        }
        Self::begin(path, false)
    }

    /// Begins a folder that takes the place of the one at `path`, if there is one.
    ///
    /// # Errors
    /// If it cannot be created.
    pub fn replacing(path: &Path) -> Result<Self, Error> {
        Self::begin(path, true)
    }

    fn begin(path: &Path, replaces: bool) -> Result<Self, Error> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let partial = path.with_file_name(format!(".{name}.partial"));
        create_folder(parent(path))?;
        if_exists(fs::remove_dir_all(&partial)).map_err(Error::to("remove", &partial))?;
        create_folder(&partial)?;
        Ok(Self {
            path: path.to_owned(),
            partial,
            replaces,
        })
    }

    /// Writes a file of the folder through to the disk.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        self.write_with(name, |file| file.write_all(bytes))
    }

    /// Writes a file of the folder piece by piece, and waits until it is on the disk.
    ///
    /// # Errors
    /// If it cannot be created or written.
    pub fn write_with(
        &self,
        name: &str,
        write: impl FnOnce(&mut File) -> io::Result<()>,
    ) -> Result<(), Error> {
        File::create(self.partial.join(name))
            .and_then(|mut file| write(&mut file).and_then(|()| file.sync_all()))
            // The name that the file will have.
            .map_err(Error::to("write", &self.path.join(name)))
    }

    /// Gives the folder its name. When it replaces another, that one is renamed first and removed last: a crash
    /// between the two renames leaves the old folder as `.NAME.removed` and the new one as `.NAME.partial`.
    ///
    /// # Errors
    /// If what is in its place cannot be removed, or the folder cannot be renamed.
    pub fn commit(self) -> Result<(), Error> {
        sync_folder(&self.partial)?;
        if self.path.exists() {
            match self.replaces {
                true => set_aside(&self.path).map_err(Error::to("write to", &self.path))?,
                // Refused by the system if somebody has put a file there in the meantime.
                false => fs::remove_dir(&self.path).map_err(Error::to("write to", &self.path))?,
            }
        }
        fs::rename(&self.partial, &self.path).map_err(Error::to("write", &self.path))?;
        sync_folder(parent(&self.path))?;
        // The new folder is in its place. What is left of the old one does no harm, and the next removal takes it.
        fs::remove_dir_all(aside(&self.path)).ok();
        Ok(())
    }
}

impl Drop for StagedFolder {
    fn drop(&mut self) {
        // After a commit there is nothing under this name. The first error is the one to report, not this.
        fs::remove_dir_all(&self.partial).ok();
    }
}

/// Removes a folder with all that is in it. It is renamed first, so that half of it is never taken for the whole.
///
/// # Errors
/// If it cannot be renamed or removed.
pub fn remove_folder(path: &Path) -> Result<(), Error> {
    set_aside(path)
        .and_then(|()| fs::remove_dir_all(aside(path)))
        .map_err(Error::to("remove", path))
}

/// Where a folder goes before it is removed.
fn aside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.removed"))
}

fn set_aside(path: &Path) -> io::Result<()> {
    let aside = aside(path);
    if_exists(fs::remove_dir_all(&aside))?;
    fs::rename(path, aside)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let name = |entry: io::Result<fs::DirEntry>| entry.unwrap().file_name();
        let mut names: Vec<_> = entries.map(|e| name(e).into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_folder_has_its_name_when_it_is_whole() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("new/folder");
        let staged = StagedFolder::new(&path).unwrap();
        staged.write("a", b"1").unwrap();
        staged.write_with("b", |file| file.write_all(b"2")).unwrap();
        assert!(!path.exists());
        staged.commit().unwrap();
        assert_eq!(names(&path), ["a", "b"]);
        assert_eq!(names(path.parent().unwrap()), ["folder"]);
    }

    #[test]
    fn without_a_commit_nothing_is_left_and_the_old_folder_stays() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("folder");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("old"), "").unwrap();
        let staged = StagedFolder::replacing(&path).unwrap();
        staged.write("new", b"").unwrap();
        drop(staged);
        assert_eq!(
            (names(root.path()), names(&path)),
            (vec!["folder".into()], vec!["old".into()])
        );

        let staged = StagedFolder::replacing(&path).unwrap();
        staged.write("new", b"").unwrap();
        staged.commit().unwrap();
        assert_eq!(
            (names(root.path()), names(&path)),
            (vec!["folder".into()], vec!["new".into()])
        );
    }

    #[test]
    fn what_a_crash_left_is_removed() {
        let root = tempfile::tempdir().unwrap();
        for left in [".folder.partial", ".folder.removed"] {
            fs::create_dir(root.path().join(left)).unwrap();
            fs::write(root.path().join(left).join("half"), "").unwrap();
        }
        let path = root.path().join("folder");
        StagedFolder::new(&path).unwrap().commit().unwrap();
        assert!(names(&path).is_empty());
        remove_folder(&path).unwrap();
        assert!(names(root.path()).is_empty());
    }

    #[test]
    fn only_an_empty_folder_is_taken_where_nothing_may_be_replaced() {
        let root = tempfile::tempdir().unwrap();
        StagedFolder::new(root.path()).unwrap();
        fs::write(root.path().join("mine"), "").unwrap();
        let error = StagedFolder::new(root.path()).unwrap_err();
        assert_eq!(error.source.kind(), io::ErrorKind::DirectoryNotEmpty);
        assert_eq!(names(root.path()), ["mine"]);
        let file = root.path().join("mine");
        let message = StagedFolder::new(&file).unwrap_err().to_string();
        assert!(message.starts_with(file.to_str().unwrap()), "{message}");
    }
}
