//! Reads and writes the adapter folders of Hugging Face PEFT.
//!
//! A folder is `adapter_config.json`, `adapter_model.safetensors` and `README.md`. What this crate writes, PEFT
//! loads (but for prefixes of [attention width](burn_peft::PrefixHeads::Attention) and biases of norms). What PEFT wrote for the methods below,
//! this crate reads, heads included, and would write again byte for byte, but for the checksums that it adds: its
//! tests hold it to that, on folders PEFT made.
//!
//! # Keys of our own
//!
//! `adapter_config.json` may have four keys that PEFT does not know, ignores with a warning, and drops when it saves
//! the folder: `burn_peft_template` ([`AdapterConfig::template`]), `burn_peft_base_fingerprint`
//! ([`AdapterConfig::base_fingerprint`]), `burn_peft_task` ([`TaskOptions`]) and `burn_peft_checksums`. The last is an
//! object with the XXH3 checksum (128 bits, hexadecimal) of `adapter_model.safetensors`, and one of the configuration itself: of its compact JSON with
//! sorted keys and ASCII only, without that one checksum. Where it is there, a folder that is not as it was written
//! is refused, and the error names the file. A folder without it loads as PEFT's do.
//!
//! | `peft_type` | tensors |
//! |---|---|
//! | `PROMPT_TUNING`, `P_TUNING` | `prompt_embeddings` `[tokens, d_model]` |
//! | `PREFIX_TUNING` | `prompt_embeddings` `[tokens, layers · 2 · kv_width]` |
//! | `BEFT` | `base_model.model.model.layers.{i}.{module}.beft_bias` `[1, out]` |
//!
//! An adapter for classification or questions has a [head](HeadTensors) besides, a linear layer over the hidden states.
//! In front of its name stands `base_model.`, of a BEFT adapter `base_model.model.`:
//!
//! | `task_type` | tensors |
//! |---|---|
//! | `SEQ_CLS` | `score.weight` `[classes, d_model]` |
//! | `TOKEN_CLS` | `score.weight`, `score.bias` `[classes]` |
//! | `QUESTION_ANS` | `qa_outputs.weight` `[2, d_model]`, `qa_outputs.bias` `[2]` |
//!
//! The model class for `QUESTION_ANS` calls the decoder `transformer`, so BEFT's names there begin
//! `base_model.model.transformer.layers`.
//!
//! A BEFT folder may hold a bias for any of the nine modules of a layer that
//! [`LayerModule`](burn_peft::LayerModule) lists, whether the base has one there or not. PEFT adds them to any
//! linear layer, and refuses a folder with biases of norms.
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
//! use burn_peft_decoder::DecoderConfig;
//! use burn_peft_format::{
//!     AdapterConfig, AdapterFolder, AdapterTensor, AdapterTensors, MethodOptions, ModelCard, PROMPT_EMBEDDINGS,
//!     PromptTuningOptions, VirtualTokenOptions,
//! };
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let base = DecoderConfig::named("qwen2.5-0.5b").expect("a known name");
//! let tokens = VirtualTokenOptions::prompt(3, &base);
//! let method = MethodOptions::PromptTuning(PromptTuningOptions::new(tokens));
//! let mut tensors = AdapterTensors::new();
//! tensors.insert(PROMPT_EMBEDDINGS, AdapterTensor::new([3, 896], vec![0.5; 3 * 896]));
//! let folder = AdapterFolder { config: AdapterConfig::new(method, Some("Qwen/Qwen2.5-0.5B")), tensors };
//!
//! let dir = tempfile::tempdir()?;
//! folder.save(dir.path(), &ModelCard::default())?;
//! let again = AdapterFolder::load(dir.path())?;
//! again.check(&base, dir.path())?;
//! assert_eq!(again, folder);
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]

mod base_identity;
mod beft;
mod card;
mod config;
mod describe;
mod error;
mod export;
mod fields;
mod folder;
mod head;
mod hub_id;
mod integrity;
mod landing;
mod method;
mod movement;
mod options;
mod peft_type;
mod task;
mod tensors;
#[cfg(test)]
mod test_support;
mod virtual_tokens;

pub use base_identity::BaseIdentity;
pub use beft::{TargetModules, parse_beft_bias_name};
pub use card::{CardData, CardScore, ModelCard};
pub use config::{AdapterConfig, PEFT_VERSION};
pub use describe::{folder_from_adapter, method_options};
pub use error::{Error, Problem};
pub use export::PROMPT_EMBEDS_FILE;
pub use folder::{AdapterFolder, CARD_FILE, CONFIG_FILE, WEIGHTS_FILE};
pub use head::{HeadTensors, head_from_folder};
pub use hub_id::is_hub_id;
pub use landing::adapter_from_folder;
pub use method::MethodOptions;
pub use movement::BiasMovement;
pub use options::{
    BeftOptions, EncoderReparameterizationType, PTuningOptions, PrefixInit, PrefixTuningOptions,
    PromptTuningInit, PromptTuningOptions,
};
pub use peft_type::Landing;
pub use task::{ProblemType, TaskOptions, TaskType};
pub use tensors::{AdapterTensor, AdapterTensors, PROMPT_EMBEDDINGS};
pub use virtual_tokens::VirtualTokenOptions;
