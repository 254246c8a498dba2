//! What the targets share: a scratch folder, the small model of `assets`, and files in their places.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// A folder that is made once a process, in memory where there is such a place.
pub fn scratch() -> TempDir {
    let memory = Path::new("/dev/shm");
    let made = match memory.is_dir() {
        true => tempfile::tempdir_in(memory),
        false => tempfile::tempdir(),
    };
    made.expect("a scratch folder")
}

/// A file of the smallest model among the test fixtures.
pub fn model(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/models/tied_gqa");
    folder.join(name)
}

/// Puts a file into a folder.
pub fn put(folder: &Path, name: &str, bytes: &[u8]) {
    fs::write(folder.join(name), bytes).expect("the scratch folder is writable");
}

/// The input in two parts: two bytes say how long the first one is.
pub fn two_parts(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = data.split_first_chunk::<2>()?;
    let length = usize::from(u16::from_le_bytes(*length)).min(rest.len());
    Some(rest.split_at(length))
}
