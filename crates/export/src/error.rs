//! What can go wrong.

use std::path::PathBuf;

/// Why nothing was exported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file that is not what it should be.
    #[error("{}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// What the adapter does has no place there.
    #[error("{}: {reason}", path.display())]
    CannotExport {
        /// The adapter's folder.
        path: PathBuf,
        /// Why not, and what does.
        reason: String,
    },
    /// Reading or writing.
    #[error(transparent)]
    Files(#[from] burn_peft_files::Error),
    /// The checkpoint.
    #[error(transparent)]
    Decoder(#[from] burn_peft_decoder::Error),
    /// The tokenizer.
    #[error(transparent)]
    Data(#[from] burn_peft_data::Error),
    /// The adapter.
    #[error(transparent)]
    Format(#[from] burn_peft_format::Error),
}
