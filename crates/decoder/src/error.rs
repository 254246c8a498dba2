//! What can go wrong between a folder and a model.

use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
};

use burn::tensor::DType;
use burn_peft_files::CHECKSUMS_FILE;
use serde::de::DeserializeOwned;
use serde_json::error::Category;

/// An error of this crate. Each says where it was met and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file is not the JSON it should be, or has a value in it that makes no sense.
    #[error("{path}: {reason}")]
    Json {
        /// The file.
        path: PathBuf,
        /// Why, in words.
        reason: String,
    },
    /// A file is not the one that the folder's list of checksums has.
    #[error("{path}: {source}; if it was changed on purpose, remove {CHECKSUMS_FILE} beside it")]
    Changed {
        /// The file.
        path: PathBuf,
        /// The two checksums.
        source: std::io::Error,
    },
    /// A folder's list of checksums and its files do not go together.
    #[error("{folder}: {CHECKSUMS_FILE} {what}; if that is on purpose, remove the list")]
    Listed {
        /// The folder.
        folder: PathBuf,
        /// What the list has or lacks.
        what: String,
    },
    /// The configuration asks for something this crate does not compute.
    #[error("{path}: not supported: {what}")]
    Unsupported {
        /// The configuration file.
        path: PathBuf,
        /// What it asks for.
        what: String,
    },
    /// The folder holds no weights.
    #[error(
        "{folder}: no `model.safetensors` and no `model.safetensors.index.json` there; \
         a checkpoint in Hugging Face layout is needed"
    )]
    NoWeights {
        /// The folder.
        folder: PathBuf,
    },
    /// A weights file cannot be read as safetensors; most often a download that broke off.
    #[error("{path}: not a whole safetensors file ({reason}); fetch it again")]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// An index names a file that is not one of its folder.
    #[error("{index}: it names `{name}`, and weights are files of its own folder")]
    OutsideFolder {
        /// The index.
        index: PathBuf,
        /// What it names.
        name: String,
    },
    /// A tensor cannot be computed with.
    #[error("{path}: tensor `{tensor}` holds NaN or infinity as {dtype:?}")]
    NotFinite {
        /// The file.
        path: PathBuf,
        /// The tensor's name.
        tensor: String,
        /// The type that it was read as.
        dtype: DType,
    },
    /// The machine has not the memory for a tensor.
    #[error("{path}: there is not enough memory for tensor `{tensor}`")]
    Memory {
        /// The file.
        path: PathBuf,
        /// The tensor's name.
        tensor: String,
    },
    /// The weights do not fit the configuration. All differences; the message has the first of them.
    #[error("{path}: the weights do not fit config.json: {}", several(differences))]
    Mismatch {
        /// The folder or file.
        path: PathBuf,
        /// One sentence a tensor.
        differences: Vec<String>,
    },
    /// The backend cannot compute in the asked type.
    #[error("the {backend} backend cannot hold the model as {dtype:?}; use --dtype f32")]
    Dtype {
        /// The backend's name.
        backend: String,
        /// The type asked for.
        dtype: DType,
    },
    /// A checkpoint is written to a folder of its own.
    #[error("{folder}: the folder is not empty; give one that is, or a new one")]
    NotEmpty {
        /// The folder.
        folder: PathBuf,
    },
}

/// As many differences as fit a message.
const SHOWN: usize = 4;

/// The first few, and how many more there are.
fn several(differences: &[String]) -> String {
    let mut text = differences[..differences.len().min(SHOWN)].join("; ");
    if let more @ 1.. = differences.len().saturating_sub(SHOWN) {
        text += &format!("; … and {more} more");
    }
    text
}

impl Error {
    /// Reads the text of a JSON file; `path` is named in errors, and `expected` is what it should be: a noun.
    pub(crate) fn json<T: DeserializeOwned>(
        path: &Path,
        text: &str,
        expected: &str,
    ) -> Result<T, Self> {
        serde_json::from_str(text).map_err(|error| Self::Json {
            path: path.to_owned(),
            reason: match error.classify() {
                Category::Data => format!("it is not {expected}"),
                Category::Eof => format!("it is not whole: it ends in line {}", error.line()),
                Category::Syntax | Category::Io => format!("it is not JSON: {error}"),
            },
        })
    }
}

/// For what is read while something else is written.
impl From<Error> for std::io::Error {
    fn from(error: Error) -> Self {
        Self::other(error)
    }
}

impl From<burn_peft_files::Error> for Error {
    fn from(error: burn_peft_files::Error) -> Self {
        match error.source.kind() {
            ErrorKind::DirectoryNotEmpty => Self::NotEmpty { folder: error.path },
            _ => Self::Io {
                path: error.path,
                source: error.source,
            },
        }
    }
}
