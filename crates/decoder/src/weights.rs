//! Where a model's tensors come from, and the names of those outside its layers.

use burn::tensor::Tensor;
use burn_peft_ops::{FrozenWeight, Ops};

use crate::Error;

/// Gives a model its tensors, by the names they have in a checkpoint.
pub(crate) trait TensorSource<B: Ops> {
    /// Where they are made.
    fn device(&self) -> &B::Device;

    /// The tensor of this name; each is asked for once.
    ///
    /// # Errors
    /// If it cannot be read.
    fn tensor<const D: usize>(&mut self, name: &str) -> Result<Tensor<B, D>, Error>;

    /// The matrix of this name, in the form that the backend holds.
    ///
    /// # Errors
    /// As [`tensor`](Self::tensor).
    fn weight(&mut self, name: &str) -> Result<FrozenWeight<B>, Error> {
        Ok(B::freeze(self.tensor(name)?))
    }
}

/// Name of the embedding table in a checkpoint.
pub(crate) const EMBED_TOKENS: &str = "model.embed_tokens.weight";
/// Name of the last norm in a checkpoint.
pub(crate) const NORM: &str = "model.norm.weight";
/// Name of an untied output head in a checkpoint.
pub(crate) const LM_HEAD: &str = "lm_head.weight";
