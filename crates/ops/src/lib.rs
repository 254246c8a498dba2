//! The operations of a frozen decoder, as extension traits over Burn's [`Backend`].
//!
//! A frozen language model needs few operations, and needs them to be cheap in memory as well as in
//! time: a linear layer whose weight never gets a gradient, RMSNorm, SwiGLU, rotary embedding,
//! attention over grouped heads, and a cross-entropy that never holds the logits of a batch.
//!
//! - [`Kernels`] is what a backend supplies: each operation and its gradient. Every one has a default composed of
//!   Burn's own tensor operations; a backend that can do better overrides it.
//! - [`Ops`] is what a model calls. A backend with [`Kernels`] has it, and so has
//!   [`Autodiff`](burn::backend::Autodiff) over it, which records each call as one node of its graph. The model's
//!   code is the same with and without gradients.
//! - [`FrozenWeight`] is a matrix of the base. What it is in memory is the backend's choice ([`HeldWeight`]).
//!
//! This crate knows no model, no adapter and no format. What else needs `unsafe` in this project is here as well,
//! because the other crates forbid it: the program's allocator.
//!
//! The one design decision: the operations are functions of the *backend*, chosen by type. There is no flag to
//! pass that says whether gradients are wanted or which processor computes.
//!
//! ```
//! use burn::tensor::Tensor;
//! use burn_flex::Flex;
//! use burn_peft_ops::Ops;
//!
//! let device = Default::default();
//! let hidden = Tensor::<Flex, 2>::from_floats([[3.0, 4.0]], &device);
//! let weight = Tensor::<Flex, 1>::ones([2], &device);
//! let normed = Flex::rms_norm(hidden, weight, 0.0);
//! // Root mean square of (3, 4) is sqrt(12.5).
//! assert!((normed.into_data().to_vec::<f32>().unwrap()[0] - 3.0 / 12.5_f32.sqrt()).abs() < 1e-6);
//! ```
//!
//! [`Backend`]: burn::tensor::backend::Backend

mod composed;
#[cfg(feature = "cube")]
mod cube;
mod dtype;
mod flex;
mod kernels;
mod mask;
mod memory;
mod ops;
mod shared_prompt;
#[cfg(test)]
mod tests;
mod tracked;
mod weight;

pub use dtype::accumulation_dtype;
pub use flex::{bf16_products, f32_lanes};
pub use kernels::{Kernels, LinearLayer};
pub use mask::{NO_TOKEN, ScoreMask, Visibility};
pub use memory::{Allocator, keep_freed_memory};
pub use ops::Ops;
pub use shared_prompt::SharedPrompt;
pub use weight::{DenseWeight, FrozenWeight, HeldWeight};
