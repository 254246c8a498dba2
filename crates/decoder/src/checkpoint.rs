//! From a Hugging Face folder to frozen tensors, a piece at a time.

use std::{
    path::{Path, PathBuf},
    sync::OnceLock,
};

use burn::tensor::{DType, Tensor};
use burn_peft_files::{Checksum, Checksums};
use burn_peft_ops::Ops;

use crate::{Decoder, DecoderConfig, Error, GenerationConfig, weights, weights::TensorSource};

mod check;
mod convert;
mod copy;
mod file;
mod fingerprint;
mod folder;
mod rows;
mod spread;
#[cfg(test)]
mod tests;

pub use copy::{Copied, NewTokens, SideFiles};
use file::{PIECE, WeightsFile};
use folder::{CONFIG_FILE, GENERATION_FILE, INDEX_FILE, SINGLE_FILE, TEMPLATES_FOLDER, read_text};

/// A checkpoint whose configuration was read and whose tensors' names and shapes were checked; the
/// weights themselves are read by [`load`](Self::load).
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    config: DecoderConfig,
    generation: GenerationConfig,
    files: Vec<WeightsFile>,
    fingerprint: OnceLock<Checksum>,
    notes: Vec<String>,
}

impl Checkpoint {
    /// Opens a folder in Hugging Face layout: `config.json`, `generation_config.json` where there
    /// is one, and `model.safetensors` or the shards of `model.safetensors.index.json`. Where the folder has a
    /// list of checksums ([`burn_peft_files::CHECKSUMS_FILE`]), all files of the list are checked first.
    ///
    /// # Errors
    /// A missing or unreadable file, or one that is not what the list says; an unsupported configuration, a
    /// truncated weights file, and missing or misshapen tensors, several at once. Tensors that the model does not have
    /// are in [`notes`](Self::notes).
    pub fn open(folder: impl AsRef<Path>) -> Result<Self, Error> {
        let folder = folder.as_ref();
        folder::check_checksums(folder)?;
        let path = folder.join(CONFIG_FILE);
        let text = read_text(&path)?;
        let mut notes = Vec::new();
        let generation = match folder::generation_text(folder, &mut notes)? {
            Some(text) => GenerationConfig::parse(&text, folder.join(GENERATION_FILE))?,
            None => GenerationConfig::of_model_config(&text, &path)?,
        };
        let config = DecoderConfig::parse(&text, path)?;
        let paths = folder::weights_paths(folder)?.into_iter();
        let files = paths.map(WeightsFile::open).collect::<Result<_, _>>()?;
        Self::checked(folder.to_owned(), config, generation, files, notes)
    }

    /// The architecture of a folder in Hugging Face layout; nothing else in it is looked at.
    ///
    /// # Errors
    /// A missing or unreadable `config.json`, or an unsupported architecture.
    pub fn read_config(folder: impl AsRef<Path>) -> Result<DecoderConfig, Error> {
        let path = folder.as_ref().join(CONFIG_FILE);
        let text = read_text(&path)?;
        if let Some(checksums) = Checksums::read(folder.as_ref())? {
            let found = Checksum::of(text.as_bytes());
            let checked = checksums.check(CONFIG_FILE, found, &path);
            checked.map_err(folder::changed(folder.as_ref()))?;
        }
        DecoderConfig::parse(&text, path)
    }

    /// Opens a checkpoint that is part of the program: the texts of `config.json` and
    /// `generation_config.json`, and the bytes of `model.safetensors`. `label` stands for the path
    /// in errors.
    ///
    /// # Errors
    /// As [`open`](Self::open), except for the reading.
    pub fn embedded(
        label: &str,
        config: &str,
        generation_config: &str,
        safetensors: &'static [u8],
    ) -> Result<Self, Error> {
        let config = DecoderConfig::parse(config, label)?;
        let generation = GenerationConfig::parse(generation_config, label)?;
        let file = WeightsFile::embedded(label, safetensors)?;
        Self::checked(label.into(), config, generation, vec![file], Vec::new())
    }

    fn checked(
        path: PathBuf,
        config: DecoderConfig,
        generation: GenerationConfig,
        files: Vec<WeightsFile>,
        notes: Vec<String>,
    ) -> Result<Self, Error> {
        let mut checkpoint = Self {
            path,
            config,
            generation,
            files,
            fingerprint: OnceLock::new(),
            notes,
        };
        if checkpoint.config.tie_word_embeddings && checkpoint.has_its_own_head()? {
            checkpoint.config.tie_word_embeddings = false;
            checkpoint.notes.push(format!(
                "{}: `{}` is not the embedding table, and so it is the head, although `tie_word_embeddings` is true",
                checkpoint.path.display(),
                weights::LM_HEAD
            ));
        }
        let differences = checkpoint.differences();
        if differences.is_empty() {
            let ignored = checkpoint.note_of_ignored();
            checkpoint.notes.extend(ignored);
            Ok(checkpoint)
        } else {
            Err(Error::Mismatch {
                path: checkpoint.path,
                differences,
            })
        }
    }

    /// The architecture. The head is untied where the weights have one of their own.
    #[must_use]
    pub fn config(&self) -> &DecoderConfig {
        &self.config
    }

    /// What the checkpoint asks of generation.
    #[must_use]
    pub fn generation_config(&self) -> &GenerationConfig {
        &self.generation
    }

    /// What was found and is not used, or used otherwise than the folder says; a sentence each, which names the file
    /// or folder. A program shows them as warnings.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Size of the weights on disk, in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.files.iter().map(|file| file.len).sum()
    }

    /// Reads the weights to `device` as `dtype`, one tensor at a time: beside the model itself,
    /// only the tensor being read is in memory. `progress` is called with the bytes read and all.
    ///
    /// # Errors
    /// A type that the backend cannot hold, weights that cannot be read, and numbers that are not finite in this
    /// type.
    pub fn load<B: Ops>(
        &self,
        dtype: DType,
        device: &B::Device,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Decoder<B>, Error> {
        if !B::supports_dtype(device, dtype) {
            return Err(Error::Dtype {
                backend: B::name(device),
                dtype,
            });
        }
        let mut reader = TensorReader {
            checkpoint: self,
            dtype,
            device: device.clone(),
            progress,
            read: 0,
        };
        Decoder::assemble(self.config.clone(), &mut reader)
    }
}

/// Hands out the tensors of a checkpoint by name.
struct TensorReader<'a, B: Ops> {
    checkpoint: &'a Checkpoint,
    dtype: DType,
    device: B::Device,
    progress: &'a mut dyn FnMut(u64, u64),
    read: u64,
}

impl<B: Ops> TensorSource<B> for TensorReader<'_, B> {
    fn device(&self) -> &B::Device {
        &self.device
    }

    fn tensor<const D: usize>(&mut self, name: &str) -> Result<Tensor<B, D>, Error> {
        let (file, info) = self.checkpoint.find(name);
        let data = file.read(name, info, self.dtype)?;
        let options = (&self.device, self.dtype);
        // Weights live as long as the program: a page of their own size each, not a slice of a
        // pool's larger page.
        let tensor = B::memory_persistent_allocations(&self.device, data, move |data| {
            Tensor::from_data(data, options)
        });
        self.read += file.range(info).len() as u64;
        (self.progress)(self.read, self.checkpoint.size());
        Ok(tensor)
    }
}
