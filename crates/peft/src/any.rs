//! One type for the adapters of all methods.

use std::marker::PhantomData;

use burn::{module::Module, tensor::backend::Backend};

use crate::{Adapter, BitFit, Injection, PTuning, Prefix, PromptTuning};

/// No adapter: the frozen base alone.
#[derive(Module, Debug)]
pub struct NoAdapter<B: Backend> {
    backend: PhantomData<B>,
}

impl<B: Backend> Default for NoAdapter<B> {
    fn default() -> Self {
        Self {
            backend: PhantomData,
        }
    }
}

impl<B: Backend> Adapter<B> for NoAdapter<B> {
    fn inject(&self) -> Injection<B> {
        Injection::Nothing
    }
}

/// Any of the adapters of this crate, chosen at run time. (`Module` cannot be a trait object.)
#[derive(Module, Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "there is one of them, and a Box is no Module"
)]
pub enum AnyAdapter<B: Backend> {
    /// The base alone.
    None(NoAdapter<B>),
    /// Virtual tokens.
    PromptTuning(PromptTuning<B>),
    /// Virtual tokens that a network makes.
    PTuning(PTuning<B>),
    /// Keys and values of every layer: Prefix Tuning and P-Tuning v2.
    Prefix(Prefix<B>),
    /// Changes of biases.
    BitFit(BitFit<B>),
}

impl<B: Backend> Adapter<B> for AnyAdapter<B> {
    fn inject(&self) -> Injection<B> {
        match self {
            Self::None(adapter) => adapter.inject(),
            Self::PromptTuning(adapter) => adapter.inject(),
            Self::PTuning(adapter) => adapter.inject(),
            Self::Prefix(adapter) => adapter.inject(),
            Self::BitFit(adapter) => adapter.inject(),
        }
    }
}
