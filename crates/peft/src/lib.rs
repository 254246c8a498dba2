//! Parameter-efficient fine-tuning of a frozen decoder: the methods, and the model that joins one to
//! its base.
//!
//! An [`Adapter`] owns every trainable parameter and yields an [`Injection`]: biases, virtual
//! tokens, or keys and values. [`PeftModel::prepare`] lets it land in the base. This crate does not
//! train, read files or tokenise.
//!
//! The one design decision: an adapter produces a *value*, and one function decides where the value
//! goes. Training, evaluation and generation all call that function and then the same
//! `decode`; none of them knows which method is at work, and a method of your own needs no change
//! here.
//!
//! ```
//! use burn::{module::{Module, Param}, tensor::{Tensor, backend::Backend}};
//! use burn_peft::{Adapter, Injection, VirtualTokens};
//!
//! /// Virtual tokens that all share one vector.
//! #[derive(Module, Debug)]
//! struct OneVector<B: Backend> {
//!     vector: Param<Tensor<B, 1>>,
//!     tokens: usize,
//! }
//!
//! impl<B: Backend> Adapter<B> for OneVector<B> {
//!     fn inject(&self) -> Injection<B> {
//!         let d_model = self.vector.dims()[0];
//!         let row = self.vector.val().unsqueeze::<2>();
//!         Injection::Prompt(VirtualTokens { embeddings: row.expand([self.tokens, d_model]) })
//!     }
//! }
//! ```

#![forbid(unsafe_code)]

mod adapter;
mod adapter_path;
mod any;
mod base_values;
mod bitfit;
mod config;
mod error;
mod head;
mod injected;
mod inputs;
mod layers;
mod lead;
mod least_norm;
mod linear;
mod linear_probe;
mod listing;
mod lstm;
mod method;
mod model;
mod options;
mod p_tuning;
mod p_tuning_v2;
mod param;
mod predictors;
mod prefix;
mod prefix_shape;
mod prefix_tuning;
mod prepared;
mod prompt;
mod prompt_encoder;
mod prompt_tuning;
mod session;
mod sizes;
mod virtual_tokens;

pub use adapter::{Adapter, Injection, VirtualTokens};
pub use adapter_path::AdapterPath;
pub use any::{AnyAdapter, NoAdapter};
pub use bitfit::{BitFit, BitFitConfig};
pub use burn_peft_decoder::LayerModule;
pub use config::{MethodConfig, TokenCounts};
pub use error::Error;
pub use head::{Head, HeadKind};
pub use injected::Injected;
pub use inputs::{Inputs, Placement};
pub use layers::LayerRange;
pub use linear_probe::LinearProbeConfig;
pub use listing::ModuleListing;
pub use method::RateBasis;
pub use model::PeftModel;
pub use options::{Choice, OptionDoc, OptionType, one_of};
pub use p_tuning::{EncoderInit, EncoderReparameterizationType, PTuningConfig};
pub use p_tuning_v2::PTuningV2Config;
pub use param::param_id;
pub use predictors::{Predictors, Recorded};
pub use prefix::{Prefix, PrefixInit};
pub use prefix_shape::{PrefixHeads, prefix_table};
pub use prefix_tuning::PrefixTuningConfig;
pub use prepared::Prepared;
pub use prompt::PromptTuning;
pub use prompt_encoder::PTuning;
pub use prompt_tuning::{PromptTuningConfig, PromptTuningInit, RandomInit};
pub use session::Session;
pub use sizes::{parameter_line, room_for_rows, with_commas};
pub use virtual_tokens::InitTokens;
