//! Adapters in the forms of programs that know no adapters.
//!
//! - [`save_prompt_checkpoint`]: virtual tokens as tokens of a plain Hugging Face checkpoint, which every engine loads.
//! - [`save_gguf`]: a checkpoint as the file of llama.cpp.
//! - [`save_prompt_embeds`]: the embeddings of a prompt as the file that vLLM takes.
//! - [`save_prompt_cache`]: keys and values as the prompt cache of mlx-lm.
//!
//! What is merged into weights (BitFit) is in `burn-peft-format`, beside the folders that it comes from.

#![forbid(unsafe_code)]

mod checkpoint;
mod error;
mod gguf;
mod prompt_cache;
mod prompt_embeds;
mod tokenizer;
mod unlikely;

pub use checkpoint::{PromptCheckpoint, PromptCheckpointOptions, save_prompt_checkpoint};
pub use error::Error;
pub use gguf::{GgufFile, GgufOptions, GgufType, check_gguf, save_gguf};
pub use prompt_cache::{CacheLayout, save_prompt_cache};
pub use prompt_embeds::{TorchType, save_prompt_embeds};
pub use tokenizer::virtual_token;
pub use unlikely::{UnlikelyRow, unlikely_row};
