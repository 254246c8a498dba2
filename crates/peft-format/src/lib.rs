//! Reads and writes the adapter folders of Hugging Face PEFT.
//!
//! A folder is `adapter_config.json`, `adapter_model.safetensors` and `README.md`. What this crate writes, PEFT
//! loads (but for prefixes of [attention width](burn_peft::PrefixHeads::Attention) and biases of norms). What PEFT wrote for the methods below,
//! this crate reads, and would write again byte for byte: its tests hold it to that, on folders PEFT made.
//!
//! | `peft_type` | tensors |
//! |---|---|
//! | `PROMPT_TUNING`, `P_TUNING` | `prompt_embeddings` `[tokens, d_model]` |
//! | `PREFIX_TUNING` | `prompt_embeddings` `[tokens, layers · 2 · kv_width]` |
//! | `BEFT` | `base_model.model.model.layers.{i}.{module}.beft_bias` `[1, out]` |
//!
//! A BEFT folder may hold a bias for any of the nine modules of a layer that
//! [`LayerModule`](burn_peft::LayerModule) lists. Qwen2 itself has biases in `q_proj`, `k_proj` and `v_proj`; PEFT adds
//! them to any linear layer, so to `o_proj`, `gate_proj`, `up_proj` and `down_proj` too, and refuses norms
//! ([`BeftOptions::beyond_peft`]).
//!
//! # What it is not
//!
//! It trains nothing and knows no checkpoint of a run in progress: a PEFT folder holds what an adapter *injects*
//! (for P-Tuning and projected prefixes the encoder's output), not the encoder that made it.
//!
//! # The one decision
//!
//! A folder is a value, [`AdapterFolder`]: a typed configuration and named `f32` tensors on the host. Reading
//! yields the value, [`AdapterFolder::check`] says whether it fits a base, and only then does anything become a
//! module on a device. So files can be inspected, compared, converted and tested without a backend, and a wrong
//! folder is refused with everything that is wrong with it before a device is touched.
//!
//! # Example
//!
//! ```
//! use burn_peft_format::{
//!     AdapterConfig, AdapterFolder, AdapterTensor, AdapterTensors, BaseDims, MethodOptions, ModelCard,
//!     PROMPT_EMBEDDINGS, PromptTuningOptions, VirtualTokenOptions,
//! };
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let dims = BaseDims {
//!     hidden_size: 8, intermediate_size: 16, num_layers: 2, num_heads: 2, num_kv_heads: 1, head_dim: 4,
//!     vocab_size: 32,
//! };
//! let method = MethodOptions::PromptTuning(PromptTuningOptions::new(VirtualTokenOptions::prompt(3, &dims)));
//! let mut tensors = AdapterTensors::new();
//! tensors.insert(PROMPT_EMBEDDINGS, AdapterTensor::new([3, 8], vec![0.5; 24]));
//! let folder = AdapterFolder { config: AdapterConfig::new(method, Some("Qwen/Qwen2.5-0.5B")), tensors };
//!
//! let dir = tempfile::tempdir()?;
//! folder.save(dir.path(), &ModelCard::default())?;
//! let again = AdapterFolder::load(dir.path())?;
//! again.check(&dims, dir.path())?;
//! assert_eq!(again, folder);
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]

mod atomic;
mod beft;
mod card;
mod config;
mod convert;
mod error;
mod export;
mod fields;
mod fit;
mod folder;
mod listing;
mod method;
mod options;
mod tensors;

pub use atomic::write_whole;
pub use beft::{
    BeftOptions, BiasMovement, TargetModules, beft_bias_name, parse_beft_bias_name, target_modules,
};
pub use card::ModelCard;
pub use config::{AdapterConfig, PEFT_VERSION, TaskType};
pub use convert::{adapter_from_folder, folder_from_adapter};
pub use error::{Error, Problem};
pub use export::PROMPT_EMBEDS_FILE;
pub use fit::BaseDims;
pub use folder::{AdapterFolder, CARD_FILE, CONFIG_FILE, WEIGHTS_FILE};
pub use method::{MethodOptions, VirtualTokenOptions};
pub use options::{
    EncoderReparameterizationType, PTuningOptions, PrefixInit, PrefixTuningOptions,
    PromptTuningInit, PromptTuningOptions,
};
pub use tensors::{AdapterTensor, AdapterTensors, PROMPT_EMBEDDINGS};
