//! One safetensors file, read piece by piece.

use std::{
    borrow::Cow,
    fs::File,
    io,
    ops::Range,
    path::{Path, PathBuf},
};

use burn::tensor::DType;
use safetensors::{
    SafeTensorError, SafeTensors,
    tensor::{Metadata, TensorInfo},
};

use crate::Error;

/// Bytes read at once. They stay in the cache of a core while they are converted or hashed.
pub(super) const PIECE: usize = 1 << 20;
/// Bytes of the length that stands in front of a header.
const LENGTH: usize = size_of::<u64>();
/// The longest header, as the format's own reader has it.
const LONGEST_HEADER: u64 = 100_000_000;

/// One safetensors file: its bytes, and where in them the tensors are.
#[derive(Debug)]
pub(super) struct WeightsFile {
    /// Its name in the folder.
    pub(super) name: String,
    path: PathBuf,
    bytes: Bytes,
    /// Its length when it was opened.
    pub(super) len: u64,
    pub(super) metadata: Metadata,
    /// Where the tensors' bytes begin, behind the header.
    data_start: usize,
}

/// Bytes are read and not mapped: a file that is shortened while it is mapped kills the process.
#[derive(Debug)]
enum Bytes {
    Open(File),
    Embedded(&'static [u8]),
}

impl WeightsFile {
    /// Opens a file and reads its header.
    pub(super) fn open(path: PathBuf) -> Result<Self, Error> {
        let file = burn_peft_files::open(&path)?;
        let metadata = file.metadata().map_err(io_error(&path))?;
        Self::new(path, Bytes::Open(file), metadata.len())
    }

    /// A file that is part of the program.
    pub(super) fn embedded(label: &str, bytes: &'static [u8]) -> Result<Self, Error> {
        Self::new(label.into(), Bytes::Embedded(bytes), bytes.len() as u64)
    }

    fn new(path: PathBuf, bytes: Bytes, len: u64) -> Result<Self, Error> {
        let name = path.file_name().unwrap_or_default();
        let mut file = Self {
            name: name.to_string_lossy().into_owned(),
            path,
            bytes,
            len,
            metadata: Metadata::new(None, Vec::new()).expect("no tensors are well formed"),
            data_start: 0,
        };
        let mut header = vec![0; LENGTH.min(usize::try_from(len).unwrap_or(LENGTH))];
        file.read_at(&mut header, 0)?;
        let Some(length) = header.first_chunk().map(|first| u64::from_le_bytes(*first)) else {
            return Err(file.corrupt(format!("it has only {len} bytes")));
        };
        if length > LONGEST_HEADER {
            let reason = "its first 8 bytes are no length of a header";
            return Err(file.corrupt(reason.into()));
        }
        if length > len - LENGTH as u64 {
            return Err(file.corrupt("it ends within its header".into()));
        }
        header.resize(LENGTH + length as usize, 0);
        file.read_at(&mut header[LENGTH..], LENGTH as u64)?;
        file.metadata = parse_header(&header[LENGTH..]).map_err(|reason| file.corrupt(reason))?;
        file.data_start = header.len();
        let expected = file.data_start + file.metadata.data_len();
        match expected as u64 == len {
            true => Ok(file),
            false => Err(file.corrupt(format!("it has {len} bytes, its header says {expected}"))),
        }
    }

    fn corrupt(&self, reason: String) -> Error {
        Error::Corrupt {
            path: self.path.clone(),
            reason,
        }
    }

    /// A tensor of the file that is no use as `dtype`.
    pub(super) fn not_finite(&self, tensor: &str, dtype: DType) -> Error {
        Error::NotFinite {
            path: self.path.clone(),
            tensor: tensor.to_owned(),
            dtype,
        }
    }

    /// A tensor of the file that there is no memory for.
    pub(super) fn too_large(&self, tensor: &str) -> Error {
        Error::Memory {
            path: self.path.clone(),
            tensor: tensor.to_owned(),
        }
    }

    /// Where a tensor's bytes are in the file.
    pub(super) fn range(&self, info: &TensorInfo) -> Range<usize> {
        let (start, end) = info.data_offsets;
        self.data_start + start..self.data_start + end
    }

    /// Fills `buffer` with the bytes from `start` on.
    pub(super) fn read_at(&self, buffer: &mut [u8], start: u64) -> Result<(), Error> {
        let file = match &self.bytes {
            Bytes::Open(file) => file,
            Bytes::Embedded(bytes) => {
                let start = start as usize;
                buffer.copy_from_slice(&bytes[start..start + buffer.len()]);
                return Ok(());
            }
        };
        match read_exact_at(file, buffer, start) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Err(self.corrupt("it became shorter while it was read".into()))
            }
            other => other.map_err(io_error(&self.path)),
        }
    }

    /// Hands out the bytes of `range` in pieces. All but the last are [`PIECE`] long, or there is only one.
    pub(super) fn pieces<E: From<Error>>(
        &self,
        range: Range<usize>,
        mut take: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        if let Bytes::Embedded(bytes) = self.bytes {
            return take(&bytes[range]);
        }
        let mut buffer = vec![0; PIECE.min(range.len())];
        let mut start = range.start;
        while start < range.end {
            let piece = &mut buffer[..PIECE.min(range.end - start)];
            self.read_at(piece, start as u64)?;
            take(piece)?;
            start += piece.len();
        }
        Ok(())
    }

    /// The bytes of a tensor, all at once: for small ones.
    pub(super) fn tensor(&self, info: &TensorInfo) -> Result<Cow<'_, [u8]>, Error> {
        let range = self.range(info);
        if let Bytes::Embedded(bytes) = self.bytes {
            return Ok(Cow::Borrowed(&bytes[range]));
        }
        let mut bytes = vec![0; range.len()];
        self.read_at(&mut bytes, range.start as u64)?;
        Ok(Cow::Owned(bytes))
    }
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io { path, source }
}

/// The tensors that a header lists, or why it is none.
fn parse_header(text: &[u8]) -> Result<Metadata, String> {
    serde_json::from_slice(text).map_err(|_| {
        // The format's own reader knows the reason. It wants the length in front.
        let whole = [&(text.len() as u64).to_le_bytes()[..], text].concat();
        let error = SafeTensors::read_metadata(&whole).expect_err("the same header");
        plain(&error)
    })
}

/// What is wrong with a header, in words.
fn plain(error: &SafeTensorError) -> String {
    match error {
        SafeTensorError::InvalidHeader(_) => "its header is not text".into(),
        SafeTensorError::InvalidHeaderDeserialization(error) if !error.is_data() => format!(
            "its header is not JSON, at byte {}",
            size_of::<u64>() + error.column()
        ),
        SafeTensorError::InvalidOffset(name) => {
            format!("its header places the bytes of tensor `{name}` wrongly")
        }
        SafeTensorError::TensorInvalidInfo => {
            "in its header the shape of a tensor and its bytes do not agree".into()
        }
        SafeTensorError::ValidationOverflow => "its header has a shape that is too large".into(),
        _ => "its header does not describe tensors".into(),
    }
}

/// Fills `buffer` from `start` on, whatever the file's own position is.
#[cfg(unix)]
fn read_exact_at(file: &File, buffer: &mut [u8], start: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, buffer, start)
}

/// Fills `buffer` from `start` on.
#[cfg(windows)]
fn read_exact_at(file: &File, mut buffer: &mut [u8], mut start: u64) -> io::Result<()> {
    while !buffer.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, buffer, start)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => {
                buffer = &mut buffer[read..];
                start += read as u64;
            }
        }
    }
    Ok(())
}
