//! A whole folder.

use std::cell::RefCell;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::checksums::Summed;
use crate::{CHECKSUMS_FILE, Checksums, Error, create_folder, if_exists, parent, sync_folder};

/// Begins and ends the names of what is not whole yet or not wanted any more, so that nobody else's are taken for it.
const BEGIN: &str = ".burn-peft-";
const PARTIAL: &str = ".partial";
/// A folder that is not wanted any more, in the one in which it goes.
const OLD: &str = "old";

/// A folder that is written under a name of its own beside its place.
///
/// Dropping it removes what was written and changes nothing. A crash can leave the partial folder, which
/// [`remove_leftovers`] removes.
#[derive(Debug)]
pub struct StagedFolder {
    path: PathBuf,
    partial: TempDir,
    replaces: bool,
    checksums: RefCell<Checksums>,
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
        create_folder(parent(path))?;
        Ok(Self {
            path: path.to_owned(),
            partial: beside(path).map_err(Error::to("create", path))?,
            replaces,
            checksums: RefCell::default(),
        })
    }

    /// Writes a file of the folder through to the disk.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        self.write_with(name, |file| file.write_all(bytes))
    }

    /// Writes a file of the folder piece by piece, and waits until it is on the disk. A slash in its name puts it into
    /// a subfolder.
    ///
    /// # Errors
    /// If it cannot be created or written.
    pub fn write_with(
        &self,
        name: &str,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<(), Error> {
        let path = self.partial.path().join(name);
        let subfolder = parent(&path);
        let create = || {
            fs::create_dir_all(subfolder)?;
            let mut file = Summed::new(File::create_new(&path)?);
            write(&mut file)?;
            let (file, checksum) = file.finish();
            file.sync_all()?;
            Ok(checksum)
        };
        // The name that the file will have.
        let checksum = create().map_err(Error::to("write", &self.path.join(name)))?;
        self.checksums.borrow_mut().insert(name, checksum);
        match subfolder == self.partial.path() {
            // Where it gets its name.
            true => Ok(()),
            false => sync_folder(subfolder),
        }
    }

    /// Writes [`CHECKSUMS_FILE`] over all files that were written so far.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write_checksums(&self) -> Result<(), Error> {
        let text = self.checksums.borrow().to_text();
        self.write(CHECKSUMS_FILE, text.as_bytes())
    }

    /// Gives the folder its name. When it replaces another, that one is renamed first and removed last: after a crash
    /// between the two renames, [`restore_replaced`] gives the old one its name again.
    ///
    /// # Errors
    /// If what is in its place cannot be removed, or the folder cannot be renamed.
    pub fn commit(self) -> Result<(), Error> {
        sync_folder(self.partial.path())?;
        let mut old = None;
        if self.path.exists() {
            match self.replaces {
                true => {
                    let aside = set_aside(&self.path);
                    old = Some(aside.map_err(Error::to("write to", &self.path))?);
                }
                // Refused by the system if somebody has put a file there in the meantime.
                false => {
                    let removed = fs::remove_dir(&self.path);
                    removed.map_err(Error::to("write to", &self.path))?;
                }
            }
        }
        if let Err(error) = fs::rename(self.partial.path(), &self.path) {
            if let Some(old) = old.map(TempDir::keep) {
                // Where this fails, too, the old folder stays where it is, to be restored.
                fs::rename(old.join(OLD), &self.path).ok();
                fs::remove_dir(old).ok();
            }
            return Err(Error::to("write", &self.path)(error));
        }
        // It has another name now.
        let _ = self.partial.keep();
        sync_folder(parent(&self.path))?;
        // The new folder is in its place. What is left of the old one does no harm.
        drop(old);
        Ok(())
    }
}

/// A folder for what is needed on the way to something else. Dropping it removes it with all that is in it.
#[derive(Debug)]
pub struct ScratchFolder(TempDir);

impl ScratchFolder {
    /// A folder beside `path`, on its disk. Creates the folders above it.
    ///
    /// # Errors
    /// If it cannot be created.
    pub fn beside(path: &Path) -> Result<Self, Error> {
        create_folder(parent(path))?;
        Ok(Self(beside(path).map_err(Error::to("create", path))?))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

/// Removes a folder with all that is in it. It is renamed first, so that half of it is never taken for the whole.
///
/// # Errors
/// If it cannot be renamed or removed.
pub fn remove_folder(path: &Path) -> Result<(), Error> {
    set_aside(path)
        .and_then(TempDir::close)
        .map_err(Error::to("remove", path))
}

/// Gives folders back the names that they had when a crash came between the two renames of a
/// [commit](StagedFolder::commit). Only for a folder that no other process writes to.
///
/// # Errors
/// If `folder` cannot be read or one cannot be renamed.
pub fn restore_replaced(folder: &Path) -> Result<(), Error> {
    for (name, path) in leftovers(folder)? {
        // `.burn-peft-NAME.RANDOM.partial`
        let replaced = name
            .strip_prefix(BEGIN)
            .and_then(|name| name.strip_suffix(PARTIAL));
        let replaced = replaced.and_then(|name| Some(folder.join(name.rsplit_once('.')?.0)));
        let old = path.join(OLD);
        if let Some(replaced) = replaced.filter(|place| old.is_dir() && !place.exists()) {
            fs::rename(&old, &replaced).map_err(Error::to("write", &replaced))?;
        }
    }
    Ok(())
}

/// Removes what a crash left half-written in a folder, if there is such a folder. Only for a folder that no other
/// process writes to.
///
/// # Errors
/// If it cannot be read.
pub fn remove_leftovers(folder: &Path) -> Result<(), Error> {
    for (_, path) in leftovers(folder)? {
        // What cannot be removed does no harm.
        match path.is_dir() && !path.is_symlink() {
            true => fs::remove_dir_all(path).ok(),
            false => fs::remove_file(path).ok(),
        };
    }
    Ok(())
}

/// Names and paths of what is not whole yet, or not wanted any more.
fn leftovers(folder: &Path) -> Result<Vec<(String, PathBuf)>, Error> {
    let entries = if_exists(fs::read_dir(folder)).map_err(Error::to("read", folder))?;
    let mut found = Vec::new();
    for entry in entries.into_iter().flatten() {
        let entry = entry.map_err(Error::to("read", folder))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with(BEGIN) && name.ends_with(PARTIAL) {
            found.push((name, entry.path()));
        }
    }
    Ok(found)
}

/// A new folder beside `path`, with a name of its own.
fn beside(path: &Path) -> io::Result<TempDir> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let mut builder = staged();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // A temporary folder is private by default. This one is to be as open as any other.
        builder.permissions(fs::Permissions::from_mode(0o777));
    }
    builder
        .prefix(&format!("{BEGIN}{name}."))
        .tempdir_in(parent(path))
}

/// The names of what is not whole yet.
pub(crate) fn staged<'a, 'b>() -> tempfile::Builder<'a, 'b> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(BEGIN).suffix(PARTIAL);
    builder
}

/// Puts a folder into a temporary one, with which it goes.
fn set_aside(path: &Path) -> io::Result<TempDir> {
    let aside = beside(path)?;
    fs::rename(path, aside.path().join(OLD))?;
    Ok(aside)
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
    fn a_scratch_folder_goes_with_what_is_in_it() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("new/file");
        let scratch = ScratchFolder::beside(&path).unwrap();
        assert_eq!(scratch.path().parent(), path.parent());
        fs::write(scratch.path().join("a"), "").unwrap();
        drop(scratch);
        assert!(names(path.parent().unwrap()).is_empty());
    }

    #[test]
    fn two_of_the_same_name_do_not_meet() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("folder");
        let one = StagedFolder::new(&path).unwrap();
        let two = StagedFolder::new(&path).unwrap();
        one.write("a", b"1").unwrap();
        two.write("b", b"2").unwrap();
        two.commit().unwrap();
        let error = one.commit().unwrap_err();
        assert_eq!(error.source.kind(), io::ErrorKind::DirectoryNotEmpty);
        assert_eq!(names(&path), ["b"]);
        remove_folder(&path).unwrap();
        assert!(names(root.path()).is_empty());
    }

    #[test]
    fn a_crash_between_the_two_renames_loses_neither_folder() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("step.1");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("old"), "").unwrap();
        let staged = StagedFolder::replacing(&path).unwrap();
        staged.write("new", b"").unwrap();
        std::mem::forget(staged);
        std::mem::forget(set_aside(&path).unwrap());
        assert!(!path.exists());
        restore_replaced(root.path()).unwrap();
        assert_eq!(names(&path), ["old"]);
        remove_leftovers(root.path()).unwrap();
        assert_eq!(names(root.path()), ["step.1"]);
    }

    #[test]
    fn only_names_of_our_own_are_removed() {
        let root = tempfile::tempdir().unwrap();
        let mine = [".download.partial", ".gitignore", "sub"];
        fs::create_dir(root.path().join("sub")).unwrap();
        for file in [
            ".download.partial",
            ".gitignore",
            "sub/.burn-peft-a.partial",
        ] {
            fs::write(root.path().join(file), "").unwrap();
        }
        fs::write(root.path().join(".burn-peft-abc123.partial"), "").unwrap();
        remove_leftovers(root.path()).unwrap();
        assert_eq!(names(root.path()), mine);
        assert_eq!(names(&root.path().join("sub")), [".burn-peft-a.partial"]);
        remove_leftovers(&root.path().join("absent")).unwrap();
    }

    #[test]
    fn its_checksums_are_those_of_its_files() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("folder");
        let staged = StagedFolder::new(&path).unwrap();
        staged.write("a", b"1").unwrap();
        let pieces =
            |file: &mut dyn Write| file.write_all(b"2").and_then(|()| file.write_all(b"3"));
        staged.write_with("b", pieces).unwrap();
        staged.write_checksums().unwrap();
        staged.commit().unwrap();
        Checksums::read(&path)
            .unwrap()
            .unwrap()
            .verify(&path)
            .unwrap();
        fs::write(path.join("b"), "24").unwrap();
        let found = Checksums::read(&path).unwrap().unwrap().verify(&path);
        assert!(found.unwrap_err().path.ends_with("b"));
    }

    #[cfg(unix)]
    #[test]
    fn a_folder_is_as_open_as_any_other() {
        use std::os::unix::fs::PermissionsExt;
        let root = tempfile::tempdir().unwrap();
        let (plain, path) = (root.path().join("plain"), root.path().join("staged"));
        fs::create_dir(&plain).unwrap();
        StagedFolder::new(&path).unwrap().commit().unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(&path), mode(&plain));
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
