//! From `--model` to a checkpoint and its tokenizer.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use burn::tensor::DType;
use burn_peft_data::TextTokenizer;
use burn_peft_decoder::{Checkpoint, Decoder};
use burn_peft_ops::Ops;

use crate::{
    builtin,
    hub::{self, Contents},
    output,
    progress::Progress,
};

/// Where a model comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ModelSource {
    /// The small model in the program.
    BuiltIn,
    /// A folder in Hugging Face layout, and the name it was asked for by.
    Folder { name: String, folder: PathBuf },
}

impl ModelSource {
    /// A folder, a hub id, or where `model` is absent the built-in model.
    pub(crate) fn resolve(model: Option<&str>, revision: Option<&str>) -> Result<Self> {
        let Some(name) = model else {
            return Ok(Self::BuiltIn);
        };
        if name == builtin::MODEL_NAME && !Path::new(name).exists() {
            return Ok(Self::BuiltIn);
        }
        let folder = PathBuf::from(name);
        let folder = if folder.is_dir() {
            folder
        } else if folder.exists() {
            bail!("{name}: a model is a folder, this is a file");
        } else {
            hub::folder(name, revision, Contents::Model)?
        };
        Ok(Self::Folder {
            name: name.to_owned(),
            folder,
        })
    }

    /// The name that adapter folders have for it; `None` of the built-in model.
    pub(crate) fn name(&self) -> Option<String> {
        match self {
            Self::BuiltIn => None,
            Self::Folder { name, .. } => Some(name.clone()),
        }
    }

    pub(crate) fn checkpoint(&self) -> Result<Checkpoint> {
        match self {
            Self::BuiltIn => builtin::checkpoint(),
            Self::Folder { folder, .. } => open(folder),
        }
    }

    pub(crate) fn tokenizer(&self) -> Result<TextTokenizer> {
        match self {
            Self::BuiltIn => builtin::tokenizer(),
            Self::Folder { folder, .. } => Ok(TextTokenizer::load(folder)?),
        }
    }
}

/// Opens the checkpoint of a folder, and says what of it is not used.
pub(crate) fn open(folder: &Path) -> Result<Checkpoint> {
    let checkpoint = Checkpoint::open(folder)?;
    for note in checkpoint.notes() {
        output::warn(note);
    }
    Ok(checkpoint)
}

/// Reads the weights, with a progress bar.
pub(crate) fn load<B: Ops>(
    checkpoint: &Checkpoint,
    dtype: DType,
    device: &B::Device,
) -> Result<Decoder<B>> {
    let mut bar = Progress::bytes("loading");
    checkpoint
        .load::<B>(dtype, device, &mut |done, total| bar.set(done, total))
        .context("the model could not be loaded")
}
