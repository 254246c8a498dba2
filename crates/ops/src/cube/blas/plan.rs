//! What cuBLASLt needs to compute a product, and the choice of its algorithm.

use std::{ffi::c_void, mem::size_of_val, ptr};

use cudarc::cublaslt::{result as lt, sys as lt_sys};

use super::problem::{Element, Layout, Problem};

/// Scratch memory that an algorithm may use. NVIDIA advises 32 MiB for Hopper.
pub(super) const WORKSPACE_BYTES: usize = 32 << 20;

/// `CUBLASLT_REDUCTION_SCHEME_INPLACE` and `_COMPUTE_TYPE`: parts of a sum are added in f32, never in the
/// output's type.
const WIDE_REDUCTIONS: u32 = 1 | 2;

/// `CUBLAS_OP_T`.
const TRANSPOSED: i32 = 1;

/// What cuBLASLt needs for a problem; kept for the next of its kind.
pub(super) struct Plan {
    pub(super) operation: lt_sys::cublasLtMatmulDesc_t,
    pub(super) lhs: lt_sys::cublasLtMatrixLayout_t,
    pub(super) rhs: lt_sys::cublasLtMatrixLayout_t,
    pub(super) output: lt_sys::cublasLtMatrixLayout_t,
    pub(super) algorithm: lt_sys::cublasLtMatmulAlgo_t,
}

impl Plan {
    #[expect(
        unsafe_code,
        reason = "calls of cuBLASLt and of the driver, which are C"
    )]
    pub(super) fn new(
        handle: lt_sys::cublasLtHandle_t,
        problem: Problem,
        alignment: u64,
    ) -> Result<Self, lt::CublasError> {
        use lt_sys::{
            cublasComputeType_t::CUBLAS_COMPUTE_32F, cublasLtEpilogue_t::CUBLASLT_EPILOGUE_BIAS,
            cublasLtMatmulDescAttributes_t as Attribute,
            cublasLtMatmulPreferenceAttributes_t as Preference, cudaDataType_t::CUDA_R_32F,
        };
        let Problem { m, n, k, .. } = problem;
        let matrix = |rows, columns, layout: Layout, element: Element| {
            let (rows, columns) = if layout.transposed {
                (columns, rows)
            } else {
                (rows, columns)
            };
            matrix_layout(rows, columns, layout, problem.batch, element)
        };
        let whole = Layout {
            leading: n as i64,
            batch_stride: (m * n) as i64,
            transposed: false,
        };
        let mut plan = Self {
            operation: lt::create_matmul_desc(CUBLAS_COMPUTE_32F, CUDA_R_32F)?,
            lhs: matrix(k, m, problem.lhs, problem.input)?,
            rhs: matrix(n, k, problem.rhs, problem.input)?,
            output: matrix(n, m, whole, problem.output)?,
            algorithm: lt_sys::cublasLtMatmulAlgo_t { data: [0; 8] },
        };
        if problem.rhs.transposed {
            plan.set(Attribute::CUBLASLT_MATMUL_DESC_TRANSA, &TRANSPOSED)?;
        }
        if problem.lhs.transposed {
            plan.set(Attribute::CUBLASLT_MATMUL_DESC_TRANSB, &TRANSPOSED)?;
        }
        if problem.bias {
            plan.set(
                Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE,
                &CUBLASLT_EPILOGUE_BIAS,
            )?;
        }
        let preference = lt::create_matmul_pref()?;
        // SAFETY: the preference lives until it is destroyed below, and each value has the size that its
        // attribute is documented with.
        unsafe {
            let set = |attribute, value: *const c_void, size| {
                lt::set_matmul_pref_attribute(preference, attribute, value, size)
            };
            let bytes = WORKSPACE_BYTES;
            set(
                Preference::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                ptr::from_ref(&bytes).cast(),
                size_of_val(&bytes),
            )?;
            let schemes = WIDE_REDUCTIONS;
            set(
                Preference::CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
                ptr::from_ref(&schemes).cast(),
                size_of_val(&schemes),
            )?;
            let alignment = alignment as u32;
            for attribute in [
                Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
                Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
                Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
                Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES,
            ] {
                let size = size_of_val(&alignment);
                set(attribute, ptr::from_ref(&alignment).cast(), size)?;
            }
            let found = lt::get_matmul_algo_heuristic(
                handle,
                plan.operation,
                plan.rhs,
                plan.lhs,
                plan.output,
                plan.output,
                preference,
            );
            lt::destroy_matmul_pref(preference)?;
            plan.algorithm = found?.algo;
        }
        Ok(plan)
    }

    #[expect(
        unsafe_code,
        reason = "calls of cuBLASLt and of the driver, which are C"
    )]
    pub(super) fn set<T>(
        &self,
        attribute: lt_sys::cublasLtMatmulDescAttributes_t,
        value: &T,
    ) -> Result<(), lt::CublasError> {
        // SAFETY: the descriptor lives as long as the plan; callers give each attribute the type that it
        // is documented with.
        unsafe {
            let (value, size) = (ptr::from_ref(value).cast(), size_of_val(value));
            lt::set_matmul_desc_attribute(self.operation, attribute, value, size)
        }
    }
}

#[expect(
    unsafe_code,
    reason = "calls of cuBLASLt and of the driver, which are C"
)]
fn matrix_layout(
    rows: u64,
    columns: u64,
    layout: Layout,
    batch: u64,
    element: Element,
) -> Result<lt_sys::cublasLtMatrixLayout_t, lt::CublasError> {
    use lt_sys::cublasLtMatrixLayoutAttribute_t as Attribute;
    let matrix = lt::create_matrix_layout(element.data_type(), rows, columns, layout.leading)?;
    let batch = batch as i32;
    // SAFETY: the layout was just made, and each value has the size that its attribute is documented
    // with.
    unsafe {
        lt::set_matrix_layout_attribute(
            matrix,
            Attribute::CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT,
            ptr::from_ref(&batch).cast(),
            size_of_val(&batch),
        )?;
        lt::set_matrix_layout_attribute(
            matrix,
            Attribute::CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET,
            ptr::from_ref(&layout.batch_stride).cast(),
            size_of_val(&layout.batch_stride),
        )?;
    }
    Ok(matrix)
}
