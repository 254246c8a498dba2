//! What can go wrong between a folder and a model.

use std::path::PathBuf;

use burn::tensor::DType;

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
    /// A file is not the JSON it should be.
    #[error("{path}: {source}")]
    Json {
        /// The file.
        path: PathBuf,
        /// Why, with line and column.
        source: serde_json::Error,
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
    /// The weights do not fit the configuration. All differences at once.
    #[error("{path}: the weights do not fit config.json: {}", differences.join("; "))]
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

impl From<burn_peft_files::Error> for Error {
    fn from(error: burn_peft_files::Error) -> Self {
        match error.source.kind() {
            std::io::ErrorKind::DirectoryNotEmpty => Self::NotEmpty { folder: error.path },
            _ => Self::Io {
                path: error.path,
                source: error.source,
            },
        }
    }
}
