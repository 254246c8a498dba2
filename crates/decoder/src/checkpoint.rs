//! From a Hugging Face folder to frozen tensors, through a memory map.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use burn::tensor::{DType, Tensor};
use burn_peft_ops::Ops;
use safetensors::{Dtype, tensor::TensorInfo};
use serde::Deserialize;

use crate::{Decoder, DecoderConfig, Error, GenerationConfig, weights, weights::TensorSource};

mod copy;
mod file;

pub use copy::Copied;
use file::{Bytes, WeightsFile};

/// The configuration.
const CONFIG_FILE: &str = "config.json";
/// The weights of a checkpoint that is not sharded.
const SINGLE_FILE: &str = "model.safetensors";
/// Which shard each tensor is in.
const INDEX_FILE: &str = "model.safetensors.index.json";

/// A checkpoint whose configuration was read and whose tensors' names and shapes were checked; the
/// weights themselves are read by [`load`](Self::load).
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    config: DecoderConfig,
    generation: GenerationConfig,
    files: Vec<WeightsFile>,
}

/// `model.safetensors.index.json`.
#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl Checkpoint {
    /// Opens a folder in Hugging Face layout: `config.json`, `generation_config.json` where there
    /// is one, and `model.safetensors` or the shards of `model.safetensors.index.json`.
    ///
    /// # Errors
    /// A missing or unreadable file, an unsupported configuration, a truncated weights file, and
    /// all missing, unexpected or misshapen tensors at once.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self, Error> {
        let folder = folder.as_ref();
        let config = Self::read_config(folder)?;
        let generation_path = folder.join("generation_config.json");
        let generation = if generation_path.exists() {
            GenerationConfig::parse(&read_text(&generation_path)?, generation_path)?
        } else {
            GenerationConfig::default()
        };
        let files = weights_paths(folder)?
            .into_iter()
            .map(WeightsFile::map)
            .collect::<Result<_, _>>()?;
        Self::checked(folder.to_owned(), config, generation, files)
    }

    /// The architecture of a folder in Hugging Face layout; nothing else in it is looked at.
    ///
    /// # Errors
    /// A missing or unreadable `config.json`, or an unsupported architecture.
    pub fn read_config(folder: impl AsRef<Path>) -> Result<DecoderConfig, Error> {
        let path = folder.as_ref().join(CONFIG_FILE);
        DecoderConfig::parse(&read_text(&path)?, path)
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
        let file = WeightsFile::new(Path::new(label), Bytes::Embedded(safetensors))?;
        Self::checked(label.into(), config, generation, vec![file])
    }

    fn checked(
        path: PathBuf,
        config: DecoderConfig,
        generation: GenerationConfig,
        files: Vec<WeightsFile>,
    ) -> Result<Self, Error> {
        let checkpoint = Self {
            path,
            config,
            generation,
            files,
        };
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

    /// The architecture.
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
        self.files
            .iter()
            .map(|file| file.bytes.as_slice().len() as u64)
            .sum()
    }

    /// Reads the weights to `device` as `dtype`, one tensor at a time: beside the model itself,
    /// only the tensor being read is in memory. `progress` is called with the bytes read and all.
    ///
    /// # Errors
    /// A type that the backend cannot hold.
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
        Ok(Decoder::assemble(self.config.clone(), &mut reader))
    }

    /// Every way in which the tensors differ from what the configuration asks, a sentence each.
    fn differences(&self) -> Vec<String> {
        let found: BTreeMap<String, &TensorInfo> = self
            .files
            .iter()
            .flat_map(|file| file.metadata.tensors())
            .collect();
        let expected: BTreeMap<String, Vec<usize>> =
            self.config.tensor_shapes().into_iter().collect();
        let mut differences = Vec::new();
        for (name, shape) in &expected {
            match found.get(name) {
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
        for name in found.keys() {
            // As transformers does: some tied checkpoints carry the head all the same, and older Llama checkpoints
            // the rotary frequencies, which follow from the configuration.
            let redundant = (self.config.tie_word_embeddings && name == weights::LM_HEAD)
                || name.ends_with(".rotary_emb.inv_freq");
            if !expected.contains_key(name) && !redundant {
                differences.push(format!("tensor `{name}` is unexpected"));
            }
        }
        differences
    }

    fn find(&self, name: &str) -> (&WeightsFile, &TensorInfo) {
        self.files
            .iter()
            .find_map(|file| Some((file, file.metadata.info(name)?)))
            .unwrap_or_else(|| panic!("`{name}` was found when the checkpoint was opened"))
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

    fn tensor<const D: usize>(&mut self, name: &str) -> Tensor<B, D> {
        let (file, info) = self.checkpoint.find(name);
        let data = file.read(info, self.dtype);
        let options = (&self.device, self.dtype);
        // Weights live as long as the program: a page of their own size each, not a slice of a
        // pool's larger page.
        let tensor = B::memory_persistent_allocations(&self.device, data, move |data| {
            Tensor::from_data(data, options)
        });
        self.read += (info.data_offsets.1 - info.data_offsets.0) as u64;
        (self.progress)(self.read, self.checkpoint.size());
        tensor
    }
}

fn read_text(path: &Path) -> Result<String, Error> {
    std::fs::read_to_string(path).map_err(|source| Error::Io {
        path: path.to_owned(),
        source,
    })
}

fn weights_paths(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let single = folder.join(SINGLE_FILE);
    if single.exists() {
        return Ok(vec![single]);
    }
    let index_path = folder.join(INDEX_FILE);
    if !index_path.exists() {
        return Err(Error::NoWeights {
            folder: folder.to_owned(),
        });
    }
    let index: Index =
        serde_json::from_str(&read_text(&index_path)?).map_err(|source| Error::Json {
            path: index_path,
            source,
        })?;
    let shards: BTreeSet<_> = index.weight_map.into_values().collect();
    Ok(shards.into_iter().map(|name| folder.join(name)).collect())
}
