//! A product, as cuBLASLt wants it described.

use burn::tensor::DType;
use burn_cubecl::{cubecl::cuda::CudaRuntime, tensor::CubeTensor};
use cudarc::cublaslt::sys as lt_sys;

/// A matrix in memory, as cuBLAS sees it: column-major.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Layout {
    /// Elements between two columns.
    pub(super) leading: i64,
    /// Elements between two matrices.
    pub(super) batch_stride: i64,
    /// Whether it is the transpose of the operand.
    pub(super) transposed: bool,
}

impl Layout {
    /// Of a row-major view, whose transpose is column-major; `None` where neither dimension is without
    /// gaps.
    fn of(matrix: &CubeTensor<CudaRuntime>) -> Option<Self> {
        let (shape, strides) = (matrix.meta.shape(), matrix.meta.strides());
        let rank = shape.num_dims();
        let (rows, columns) = (shape[rank - 2], shape[rank - 1]);
        let (row_stride, column_stride) = (strides[rank - 2], strides[rank - 1]);
        let batch_stride = if rank == 3 { strides[0] } else { 0 };
        let (leading, transposed) = if column_stride == 1 || columns == 1 {
            (row_stride.max(columns), false)
        } else if row_stride == 1 || rows == 1 {
            (column_stride.max(rows), true)
        } else {
            return None;
        };
        Some(Self {
            leading: leading as i64,
            batch_stride: batch_stride as i64,
            transposed,
        })
    }
}

/// What an algorithm is chosen for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Problem {
    pub(super) batch: u64,
    pub(super) m: u64,
    pub(super) n: u64,
    pub(super) k: u64,
    pub(super) lhs: Layout,
    pub(super) rhs: Layout,
    pub(super) input: Element,
    pub(super) output: Element,
    pub(super) bias: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Element {
    F32,
    Bf16,
}

impl Element {
    fn of(dtype: DType) -> Option<Self> {
        match dtype {
            DType::F32 => Some(Self::F32),
            DType::BF16 => Some(Self::Bf16),
            _ => None,
        }
    }

    pub(super) fn data_type(self) -> lt_sys::cudaDataType {
        match self {
            Self::F32 => lt_sys::cudaDataType_t::CUDA_R_32F,
            Self::Bf16 => lt_sys::cudaDataType_t::CUDA_R_16BF,
        }
    }
}

impl Problem {
    pub(super) fn new(
        lhs: &CubeTensor<CudaRuntime>,
        rhs: &CubeTensor<CudaRuntime>,
        bias: Option<&CubeTensor<CudaRuntime>>,
        dtype: DType,
    ) -> Option<Self> {
        let (rank, shape) = (lhs.meta.shape().num_dims(), lhs.meta.shape());
        Some(Self {
            batch: if rank == 3 { shape[0] as u64 } else { 1 },
            m: shape[rank - 2] as u64,
            k: shape[rank - 1] as u64,
            n: rhs.meta.shape()[rank - 1] as u64,
            lhs: Layout::of(lhs)?,
            rhs: Layout::of(rhs)?,
            input: Element::of(lhs.dtype)?,
            output: Element::of(dtype)?,
            bias: bias.is_some(),
        })
    }
}
