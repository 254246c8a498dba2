//! From a Hugging Face folder to frozen tensors, a piece at a time.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::OnceLock,
};

use burn::tensor::{DType, Tensor};
use burn_peft_files::{Checksum, Checksums};
use burn_peft_ops::Ops;
use safetensors::{Dtype, tensor::TensorInfo};

use crate::{Decoder, DecoderConfig, Error, GenerationConfig, weights, weights::TensorSource};

mod convert;
mod copy;
mod file;
mod fingerprint;
mod folder;
#[cfg(test)]
mod tests;

pub use copy::Copied;
use file::{PIECE, WeightsFile};
use folder::{CONFIG_FILE, GENERATION_FILE, INDEX_FILE, SINGLE_FILE, read_text};

/// A checkpoint whose configuration was read and whose tensors' names and shapes were checked; the
/// weights themselves are read by [`load`](Self::load).
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    config: DecoderConfig,
    generation: GenerationConfig,
    files: Vec<WeightsFile>,
    fingerprint: OnceLock<Checksum>,
}

impl Checkpoint {
    /// Opens a folder in Hugging Face layout: `config.json`, `generation_config.json` where there
    /// is one, and `model.safetensors` or the shards of `model.safetensors.index.json`. Where the folder has a
    /// list of checksums ([`burn_peft_files::CHECKSUMS_FILE`]), all files of the list are checked first.
    ///
    /// # Errors
    /// A missing or unreadable file, or one that is not what the list says; an unsupported configuration, a
    /// truncated weights file, and missing, unexpected or misshapen tensors, several at once.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self, Error> {
        let folder = folder.as_ref();
        if let Some(checksums) = Checksums::read(folder)? {
            checksums.verify(folder).map_err(Error::changed)?;
        }
        let path = folder.join(CONFIG_FILE);
        let text = read_text(&path)?;
        let generation_path = folder.join(GENERATION_FILE);
        let generation = match generation_path.exists() {
            true => GenerationConfig::parse(&read_text(&generation_path)?, generation_path)?,
            false => GenerationConfig::of_model_config(&text, &path)?,
        };
        let config = DecoderConfig::parse(&text, path)?;
        let paths = folder::weights_paths(folder)?.into_iter();
        let files = paths.map(WeightsFile::open).collect::<Result<_, _>>()?;
        Self::checked(folder.to_owned(), config, generation, files)
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
            checked.map_err(Error::changed)?;
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
        Self::checked(label.into(), config, generation, vec![file])
    }

    fn checked(
        path: PathBuf,
        config: DecoderConfig,
        generation: GenerationConfig,
        files: Vec<WeightsFile>,
    ) -> Result<Self, Error> {
        let mut checkpoint = Self {
            path,
            config,
            generation,
            files,
            fingerprint: OnceLock::new(),
        };
        if checkpoint.config.tie_word_embeddings && checkpoint.has_its_own_head()? {
            checkpoint.config.tie_word_embeddings = false;
        }
        let differences = checkpoint.differences();
        if differences.is_empty() {
            Ok(checkpoint)
        } else {
            Err(Error::Mismatch {
                path: checkpoint.path,
                differences,
            })
        }
    }

    /// Whether a head is stored that is not the embedding table. As in transformers 5, it is the head then,
    /// whatever the configuration says.
    fn has_its_own_head(&self) -> Result<bool, Error> {
        let [head, table] = [weights::LM_HEAD, weights::EMBED_TOKENS].map(|name| self.stored(name));
        let (Some((head_file, head)), Some((table_file, table))) = (head, table) else {
            return Ok(false);
        };
        if (head.dtype, &head.shape) != (table.dtype, &table.shape) {
            return Ok(true);
        }
        let (head, table) = (head_file.range(head), table_file.range(table));
        let mut buffers = [vec![0; PIECE], vec![0; PIECE]];
        for start in (0..head.len()).step_by(PIECE) {
            let len = PIECE.min(head.len() - start);
            let [a, b] = buffers.each_mut().map(|buffer| &mut buffer[..len]);
            head_file.read_at(a, (head.start + start) as u64)?;
            table_file.read_at(b, (table.start + start) as u64)?;
            if a != b {
                return Ok(true);
            }
        }
        Ok(false)
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

    /// Every way in which the tensors differ from what the configuration asks, a sentence each.
    fn differences(&self) -> Vec<String> {
        let files = self.files.iter();
        let found: BTreeSet<String> = files.flat_map(|file| file.metadata.offset_keys()).collect();
        let expected: BTreeMap<String, Vec<usize>> =
            self.config.tensor_shapes().into_iter().collect();
        let mut differences = Vec::new();
        for (name, shape) in &expected {
            match self.held(name).map(|(_, info)| info) {
                None => differences.push(format!("tensor `{name}` is missing")),
                Some(info) if info.shape != *shape => differences.push(format!(
                    "tensor `{name}` has shape {:?}, expected {shape:?}",
                    info.shape
                )),
                Some(info) if !matches!(info.dtype, Dtype::F32 | Dtype::BF16 | Dtype::F16) => {
                    differences.push(format!(
                        "tensor `{name}` is stored as {:?}; F32, BF16 and F16 can be read",
                        info.dtype
                    ));
                }
                Some(_) => {}
            }
        }
        for name in &found {
            // As transformers does: some tied checkpoints carry the same table again as the head, and older Llama
            // checkpoints the rotary frequencies, which follow from the configuration.
            let redundant = (self.config.tie_word_embeddings && name == weights::LM_HEAD)
                || name.ends_with(".rotary_emb.inv_freq");
            if !expected.contains_key(name) && !redundant {
                differences.push(format!("tensor `{name}` is unexpected"));
            }
        }
        differences
    }

    /// A tensor that [`differences`](Self::differences) did not miss.
    fn find(&self, name: &str) -> (&WeightsFile, &TensorInfo) {
        self.held(name)
            .unwrap_or_else(|| panic!("`{name}` was found when the checkpoint was opened"))
    }

    /// The tensor that the model has under this name: of a tied table and head, either may be stored.
    fn held(&self, name: &str) -> Option<(&WeightsFile, &TensorInfo)> {
        let is_tied_table = name == weights::EMBED_TOKENS && self.config.tie_word_embeddings;
        let other = || {
            is_tied_table
                .then(|| self.stored(weights::LM_HEAD))
                .flatten()
        };
        self.stored(name).or_else(other)
    }

    fn stored(&self, name: &str) -> Option<(&WeightsFile, &TensorInfo)> {
        self.files
            .iter()
            .find_map(|file| Some((file, file.metadata.info(name)?)))
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
