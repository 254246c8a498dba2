//! What is in a data file, and whether it is packed.

use std::borrow::Cow;
use std::io::Read;
use std::path::Path;

use flate2::read::MultiGzDecoder;

use super::columns::Purpose;
use super::names::ColumnNames;
use super::{conll, table, values};
use crate::error::{Error, Result};

/// What a text file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Words and tags in columns.
    Conll,
    /// A header and rows, with this character between the cells.
    Table(u8),
    /// One JSON document.
    Document,
    /// A JSON object a line.
    Lines,
}

/// How files begin that are not read, and what to do about each.
const UNREAD: [(&[u8], &str); 6] = [
    (
        b"PK\x03\x04",
        "a zip archive or a spreadsheet; unpack it, or save it as CSV",
    ),
    (
        b"\x28\xb5\x2f\xfd",
        "packed with zstd; unpack it (`zstd -d FILE`), or pack it with gzip",
    ),
    (
        b"BZh",
        "packed with bzip2; unpack it (`bunzip2 FILE`), or pack it with gzip",
    ),
    (
        b"\xfd7zXZ\x00",
        "packed with xz; unpack it (`unxz FILE`), or pack it with gzip",
    ),
    (
        b"ARROW1",
        "an Arrow file; write it as Parquet or JSON lines (`Dataset.to_parquet`, `Dataset.to_json`)",
    ),
    (
        b"version https://git-lfs",
        "the pointer to a file that Git LFS has not fetched; run `git lfs pull`",
    ),
];

/// The bytes of a file.
pub(super) fn read(path: &Path) -> Result<Vec<u8>> {
    burn_peft_files::read(path).map_err(|error| {
        let is_missing = error.source.kind() == std::io::ErrorKind::NotFound;
        let name = path.display().to_string();
        if is_missing && is_hub_id(&name) {
            return Error::HubData { name };
        }
        if path.is_dir() {
            return Error::File {
                path: name,
                reason: "it is a folder; give one of its files".to_owned(),
            };
        }
        Error::Read {
            path: error.path,
            source: error.source,
        }
    })
}

/// Whether a path looks like the id of a data set on the Hub: an owner and a name, and no end of a file's name.
fn is_hub_id(path: &str) -> bool {
    let is_name = |name: &str| {
        !name.is_empty()
            && name
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
            && !name.starts_with('.')
    };
    let ends = ["json", "jsonl", "csv", "tsv", "parquet", "gz", "txt"];
    let end = path.rsplit_once('.').map_or("", |(_, end)| end);
    !ends.contains(&end)
        && path
            .split_once('/')
            .is_some_and(|(owner, name)| is_name(owner) && is_name(name))
}

/// The bytes of a file, out of gzip if they are in it, and the name without what says so.
pub(super) fn unpacked<'a, 'b>(
    path: &'a str,
    bytes: Cow<'b, [u8]>,
) -> Result<(&'a str, Cow<'b, [u8]>)> {
    let bad = |reason: String| Error::File {
        path: path.to_owned(),
        reason,
    };
    let is_packed = bytes.starts_with(b"\x1f\x8b");
    let (name, bytes) = match is_packed {
        false => (path, bytes),
        true => {
            let mut unpacked = Vec::new();
            let read = MultiGzDecoder::new(&*bytes).read_to_end(&mut unpacked);
            read.map_err(|error| bad(format!("it is packed with gzip and damaged: {error}")))?;
            let name = path.strip_suffix(".gz").unwrap_or(path);
            (name, Cow::Owned(unpacked))
        }
    };
    match UNREAD.iter().find(|(begin, _)| bytes.starts_with(begin)) {
        Some((_, what)) => Err(bad(format!("it is {what}"))),
        None => Ok((name, bytes)),
    }
}

/// Whether a file is a Parquet table.
pub(super) fn is_parquet(bytes: &[u8]) -> bool {
    bytes.starts_with(b"PAR1")
}

/// The text of a file, without a byte-order mark.
pub(super) fn text<'a>(path: &str, bytes: &'a [u8]) -> Result<&'a str> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    std::str::from_utf8(bytes).map_err(|error| {
        let before = &bytes[..error.valid_up_to()];
        Error::NotUtf8 {
            path: path.to_owned(),
            line: 1 + before.iter().filter(|&&byte| byte == b'\n').count(),
        }
    })
}

/// What a text file is, by its name and by how it begins.
pub(super) fn kind(name: &str, text: &str, purpose: Purpose, names: Option<&ColumnNames>) -> Kind {
    if let Some(delimiter) = table::delimiter(name, text, purpose, names) {
        return Kind::Table(delimiter);
    }
    if conll::is_conll(name, text, purpose) {
        return Kind::Conll;
    }
    match values::is_document(text) {
        true => Kind::Document,
        false => Kind::Lines,
    }
}
