//! A list of checksums beside the files that it covers.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::str::FromStr;

use xxhash_rust::xxh3::{Xxh3, xxh3_128};

use crate::{Error, if_exists, open, read_to_string};

/// Name of the list in a folder, in the format of `xxh128sum`: `cd FOLDER && xxh128sum -c checksums.xxh128`.
pub const CHECKSUMS_FILE: &str = "checksums.xxh128";

/// The XXH3 checksum of some bytes, 128 bits wide. It finds damage; it is no proof against a forger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Checksum(u128);

impl Checksum {
    /// The checksum of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(xxh3_128(bytes))
    }

    /// The checksum of a file, which is read piece by piece.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn of_file(path: &Path) -> Result<Self, Error> {
        let mut file = open(path)?;
        let mut hasher = Xxh3::new();
        let mut piece = vec![0; 1 << 20];
        loop {
            let length = match file.read(&mut piece) {
                Ok(0) => return Ok(Self(hasher.digest128())),
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Error::to("read", path)(error)),
            };
            hasher.update(&piece[..length]);
        }
    }
}

/// 32 hexadecimal digits.
impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl FromStr for Checksum {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_hex = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        match u128::from_str_radix(text, 16) {
            Ok(value) if is_hex => Ok(Self(value)),
            _ => Err("a checksum has 32 hexadecimal digits"),
        }
    }
}

/// A file whose checksum is taken while it is written.
pub(crate) struct Summed {
    file: File,
    hasher: Xxh3,
}

impl Summed {
    pub(crate) fn new(file: File) -> Self {
        let hasher = Xxh3::new();
        Self { file, hasher }
    }

    pub(crate) fn finish(self) -> (File, Checksum) {
        (self.file, Checksum(self.hasher.digest128()))
    }
}

impl Write for Summed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// The checksums of some files of one folder, by the files' names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checksums {
    of: BTreeMap<String, Checksum>,
}

impl Checksums {
    /// No checksums.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds that of the file `name`.
    pub fn insert(&mut self, name: &str, checksum: Checksum) {
        self.of.insert(name.to_owned(), checksum);
    }

    /// That of the file `name`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Checksum> {
        self.of.get(name).copied()
    }

    /// The text of [`CHECKSUMS_FILE`].
    #[must_use]
    pub fn to_text(&self) -> String {
        let line = |(name, checksum): (&String, &Checksum)| format!("{checksum}  {name}\n");
        self.of.iter().map(line).collect()
    }

    /// The list of `folder`; `None` where it has none.
    ///
    /// # Errors
    /// If it cannot be read, or is damaged itself.
    pub fn read(folder: &Path) -> Result<Option<Self>, Error> {
        let path = folder.join(CHECKSUMS_FILE);
        if if_exists(path.symlink_metadata())
            .map_err(Error::to("read", &path))?
            .is_none()
        {
            return Ok(None);
        }
        let mut found = Self::new();
        for (index, line) in read_to_string(&path)?.lines().enumerate() {
            let parts = line.split_once("  ");
            let entry = parts.and_then(|(checksum, name)| Some((name, checksum.parse().ok()?)));
            let Some((name, checksum)) = entry else {
                let reason = format!("line {} is no checksum with a file's name", index + 1);
                return Err(Error::damaged(&path, reason));
            };
            found.insert(name, checksum);
        }
        Ok(Some(found))
    }

    /// Makes sure that every file of the list is in `folder` as it was.
    ///
    /// # Errors
    /// If one cannot be read, or is another: the error names the file.
    pub fn verify(&self, folder: &Path) -> Result<(), Error> {
        for name in self.of.keys() {
            let path = folder.join(name);
            let found = Checksum::of_file(&path)?;
            self.check(name, found, &path)?;
        }
        Ok(())
    }

    /// Makes sure that `found` is the checksum of the file `name`, where the list has it; `path` is for the error.
    ///
    /// # Errors
    /// If it is another.
    pub fn check(&self, name: &str, found: Checksum, path: &Path) -> Result<(), Error> {
        match self.get(name) {
            Some(expected) if expected != found => Err(Error::damaged(
                path,
                format!("its checksum is {found}, and {CHECKSUMS_FILE} has {expected}"),
            )),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_checksum_is_that_of_the_reference_implementation() {
        // What xxhash 0.8's xxh128sum prints for empty input.
        let empty = "99aa06d3014798d86001c324468d497f";
        assert_eq!(Checksum::of(b"").to_string(), empty);
        assert_eq!(empty.parse(), Ok(Checksum::of(b"")));
        for text in ["", "99aa", "+9aa06d3014798d86001c324468d497f"] {
            assert!(text.parse::<Checksum>().is_err(), "{text}");
        }
    }

    #[test]
    fn every_flipped_bit_of_a_file_or_of_the_list_is_noticed_or_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let bytes = b"some weights".to_vec();
        let mut sums = Checksums::new();
        sums.insert("weights", Checksum::of(&bytes));
        let list = sums.to_text().into_bytes();
        let put = |name: &str, bytes: &[u8]| fs::write(folder.path().join(name), bytes).unwrap();
        let verify = || match Checksums::read(folder.path())? {
            Some(found) => found.verify(folder.path()),
            None => Ok(()),
        };
        put("weights", &bytes);
        assert_eq!(Checksums::read(folder.path()).unwrap(), None);
        put(CHECKSUMS_FILE, &list);
        verify().unwrap();
        for bit in 0..8 * bytes.len() {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            put("weights", &flipped);
            let message = verify().unwrap_err().to_string();
            assert!(message.contains("weights"), "{message}");
        }
        put("weights", &bytes);
        for bit in 0..8 * list.len() {
            let mut flipped = list.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            put(CHECKSUMS_FILE, &flipped);
            let Err(error) = verify() else {
                // Another case of a digit.
                assert_eq!(Checksums::read(folder.path()).unwrap(), Some(sums.clone()));
                continue;
            };
            let folder = folder.path().to_str().unwrap();
            assert!(error.to_string().starts_with(folder), "{error}");
        }
    }
}
