//! A matrix of the frozen base.

use std::{any::Any, marker::PhantomData, sync::Arc};

use burn::{
    backend::{Autodiff, autodiff::checkpoint::strategy::CheckpointStrategy},
    module::{
        AutodiffModule, Content, Devices, EmptyRecord, Module, ModuleDisplay, ModuleDisplayDefault,
        ModuleMapper, ModuleVisitor,
    },
    tensor::{
        DType, Int, Tensor,
        backend::{AutodiffBackend, Backend},
    },
};

use crate::Kernels;

/// How a backend holds a matrix of the frozen base; see [`Kernels::Weight`].
pub trait HeldWeight<B: Backend>: std::fmt::Debug + Send + Sync + 'static {
    /// Takes a matrix in, once, while a checkpoint is loaded.
    ///
    /// # Shapes
    /// - matrix: `[d_out, d_in]`, of the type that the base computes in
    fn hold(matrix: Tensor<B, 2>) -> Self;

    /// The matrix as a tensor, `[d_out, d_in]`.
    fn dense(&self) -> Tensor<B, 2>;

    /// Rows of the matrix.
    ///
    /// # Shapes
    /// - indices: `[rows]`
    /// - output: `[rows, d_in]`
    fn rows(&self, indices: Tensor<B, 1, Int>) -> Tensor<B, 2> {
        self.dense().select(0, indices)
    }
}

/// A matrix held as the tensor that it is.
#[derive(Debug)]
pub struct DenseWeight<B: Backend>(Tensor<B, 2>);

impl<B: Backend> HeldWeight<B> for DenseWeight<B> {
    fn hold(matrix: Tensor<B, 2>) -> Self {
        Self(matrix)
    }

    fn dense(&self) -> Tensor<B, 2> {
        self.0.clone()
    }
}

/// A matrix of the frozen base, `[d_out, d_in]`: a constant that never has a gradient. Clones share it.
///
/// It is not a tensor: what it is in memory is chosen by the backend when it is loaded
/// ([`Kernels::Weight`]), and under autodiff it is the same object as below. The type behind it is erased
/// because Burn's `derive(Module)` cannot name an associated type of the backend.
#[derive(Clone)]
pub struct FrozenWeight<B: Backend> {
    dims: [usize; 2],
    dtype: DType,
    /// The `Weight` of the backend that computes.
    held: Arc<dyn Any + Send + Sync>,
    backend: PhantomData<fn(B)>,
}

impl<B: Kernels> FrozenWeight<B> {
    /// Takes a matrix in.
    ///
    /// # Shapes
    /// - matrix: `[d_out, d_in]`, of the type that the base computes in
    #[must_use]
    pub fn new(matrix: Tensor<B, 2>) -> Self {
        Self {
            dims: matrix.dims(),
            dtype: matrix.dtype(),
            held: Arc::new(B::Weight::hold(matrix)),
            backend: PhantomData,
        }
    }

    /// What the backend made of it.
    pub(crate) fn held(&self) -> &B::Weight {
        let held = self.held.downcast_ref();
        held.expect("a weight was taken in by the backend that reads it")
    }

    /// The matrix as a tensor, `[d_out, d_in]`.
    pub(crate) fn dense(&self) -> Tensor<B, 2> {
        self.held().dense()
    }
}

impl<B: Backend> FrozenWeight<B> {
    /// `[d_out, d_in]`.
    #[must_use]
    pub fn dims(&self) -> [usize; 2] {
        self.dims
    }

    /// The type that it computes in: that of the states that it multiplies.
    #[must_use]
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    fn relabelled<C: Backend>(&self) -> FrozenWeight<C> {
        FrozenWeight {
            dims: self.dims,
            dtype: self.dtype,
            held: self.held.clone(),
            backend: PhantomData,
        }
    }
}

impl<B: Kernels> FrozenWeight<B> {
    /// The same weight for this backend under autodiff.
    pub(crate) fn tracked<C: CheckpointStrategy>(&self) -> FrozenWeight<Autodiff<B, C>> {
        self.relabelled()
    }
}

impl<B: Backend, C: CheckpointStrategy> FrozenWeight<Autodiff<B, C>> {
    /// The same weight for the backend below.
    pub(crate) fn inner(&self) -> FrozenWeight<B> {
        self.relabelled()
    }
}

impl<B: Backend> std::fmt::Debug for FrozenWeight<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FrozenWeight")
            .field("dims", &self.dims)
            .field("dtype", &self.dtype)
            .finish_non_exhaustive()
    }
}

/// A constant: nothing to visit, to record, to optimise or to move.
impl<B: Backend> Module<B> for FrozenWeight<B> {
    type Record = EmptyRecord;

    fn collect_devices(&self, devices: Devices<B>) -> Devices<B> {
        devices
    }

    fn fork(self, _: &B::Device) -> Self {
        self
    }

    fn to_device(self, _: &B::Device) -> Self {
        self
    }

    fn visit<Visitor: ModuleVisitor<B>>(&self, _: &mut Visitor) {}

    fn map<Mapper: ModuleMapper<B>>(self, _: &mut Mapper) -> Self {
        self
    }

    fn load_record(self, _: Self::Record) -> Self {
        self
    }

    fn into_record(self) -> Self::Record {
        EmptyRecord::new()
    }
}

impl<B: AutodiffBackend> AutodiffModule<B> for FrozenWeight<B> {
    type InnerModule = FrozenWeight<B::InnerBackend>;

    fn valid(&self) -> Self::InnerModule {
        self.relabelled()
    }

    fn from_inner(module: Self::InnerModule) -> Self {
        module.relabelled()
    }
}

impl<B: Backend> ModuleDisplayDefault for FrozenWeight<B> {
    fn content(&self, content: Content) -> Option<Content> {
        content
            .set_top_level_type("FrozenWeight")
            .add_debug_attribute("dims", &self.dims)
            .optional()
    }
}

impl<B: Backend> ModuleDisplay for FrozenWeight<B> {}
