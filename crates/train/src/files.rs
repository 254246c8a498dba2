//! Writing files so that a crash leaves either the old or the new, never half of one.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use crate::Error;

pub(crate) fn io_error(action: &'static str, path: &Path, source: io::Error) -> Error {
    Error::Io {
        action,
        path: path.into(),
        source,
    }
}

/// Writes a file and waits until it is on the disk.
pub(crate) fn write_synced(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    File::create(path)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .map_err(|source| io_error("cannot write", path, source))
}

/// Makes a folder and those above it, where they are not there.
pub(crate) fn create_dir(path: &Path) -> Result<(), Error> {
    fs::create_dir_all(path).map_err(|source| io_error("cannot create", path, source))
}

/// Puts `bytes` in the place of a file, through a file beside it.
pub(crate) fn replace_file(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let beside = path.with_extension("partial");
    write_synced(&beside, bytes)?;
    fs::rename(&beside, path).map_err(|source| io_error("cannot write", path, source))
}

/// Waits until the names in a folder are on the disk.
pub(crate) fn sync_dir(path: &Path) -> Result<(), Error> {
    // Only Unix can open a folder; elsewhere a rename is durable by itself or not at all.
    if cfg!(unix) {
        File::open(path)
            .and_then(|dir| dir.sync_all())
            .map_err(|source| io_error("cannot write", path, source))?;
    }
    Ok(())
}

/// Removes a folder under another name first, so that half of it is never taken for the whole.
pub(crate) fn remove_dir(path: &Path) -> Result<(), Error> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let aside = path.with_file_name(format!(".{name}.removed"));
    let removed = remove_if_there(&aside)
        .and_then(|()| fs::rename(path, &aside))
        .and_then(|()| fs::remove_dir_all(&aside));
    removed.map_err(|source| io_error("cannot remove", path, source))
}

/// Removes a folder that may not be there.
pub(crate) fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
