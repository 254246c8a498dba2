//! Decoder-only language models of the Qwen2, Llama and Qwen3 families as frozen [Burn](burn) tensors.
//!
//! The crate reads checkpoints in Hugging Face layout ([`Checkpoint`]), runs them forward over a key/value
//! cache ([`Decoder`], [`KvCache`]) and continues texts ([`generate`]). It does not train the model,
//! and it knows nothing of adapters or tokenizers. In what the families differ, [`Family`] says.
//!
//! The one design decision: the weights are *constants*, not Burn `Param`s. So nothing can visit,
//! record or optimise them, and what trains beside the model costs only itself. Changing the model means taking a changed copy
//! ([`Decoder::with_biases`]), which shares everything it does not change.
//!
//! ```no_run
//! use burn::tensor::{DType, Int, Tensor};
//! use burn_flex::Flex;
//! use burn_peft_decoder::{AttentionMask, Checkpoint, KvCache};
//!
//! # fn main() -> Result<(), burn_peft_decoder::Error> {
//! let device = Default::default();
//! let checkpoint = Checkpoint::open("Qwen2.5-0.5B")?;
//! let model = checkpoint.load::<Flex>(DType::F32, &device, &mut |_, _| {})?;
//! let ids = Tensor::<Flex, 2, Int>::from_ints([[9707, 11, 1879]], &device);
//! let mut cache = KvCache::empty(model.config().num_hidden_layers, 1);
//! let hidden = model.decode(model.embed(ids), &AttentionMask::full(1, 3), &mut cache, None);
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]

mod cache;
mod checkpoint;
mod config;
mod decode;
mod error;
mod family;
mod generation;
mod keys;
mod layer;
mod layer_biases;
mod layer_module;
mod mask;
mod model;
mod random;
mod recompute;
mod rope;
mod shapes;
mod slots;
mod token_biases;
mod weights;

pub use cache::{KvCache, LayerKv};
pub use checkpoint::{Checkpoint, Copied, NewTokens, SideFiles};
pub use config::{DecoderConfig, RopeScaling};
pub use decode::Past;
pub use error::Error;
pub use family::Family;
pub use generation::{
    FinishReason, Generated, GenerationConfig, GenerationOptions, Sampler, generate,
};
pub use layer_biases::LayerBiases;
pub use layer_module::LayerModule;
pub use mask::AttentionMask;
pub use model::Decoder;
pub use recompute::Recording;
pub use shapes::QK_NORMS;
pub use slots::{KvSlots, Piece};
pub use token_biases::BiasTables;
