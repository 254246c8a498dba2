//! Products through NVIDIA's cuBLASLt, loaded when the first is asked for: Burn's own kernels do not use the
//! matrix instructions of the newest GPUs. Where the library or a driver that can order it is missing,
//! Burn's kernels serve.

use std::{
    collections::HashMap,
    ffi::c_void,
    mem::size_of_val,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    ptr,
    sync::{Mutex, MutexGuard, PoisonError},
};

use burn::tensor::{DType, Shape};
use burn_cubecl::{cubecl::Runtime, tensor::CubeTensor};
use cudarc::{
    cublaslt::{result as lt, sys as lt_sys},
    driver::{result as driver, sys as driver_sys},
};

use super::{launch::empty, runtime::GpuRuntime};

/// The runtime of burn-cuda.
type Cuda = burn_cubecl::cubecl::cuda::CudaRuntime;

/// Scratch memory that an algorithm may use. NVIDIA advises 32 MiB for Hopper.
const WORKSPACE_BYTES: usize = 32 << 20;

/// The alignment of what the GPU allocates; more is not asked for.
const MAX_ALIGNMENT: u64 = 256;

/// `cuCtxRecordEvent` and `cuCtxWaitEvent` came with this driver interface (CUDA 12.5).
const OLDEST_DRIVER: i32 = 12_050;

/// `CUBLASLT_REDUCTION_SCHEME_INPLACE` and `_COMPUTE_TYPE`: parts of a sum are added in f32, never in the
/// output's type.
const WIDE_REDUCTIONS: u32 = 1 | 2;

/// `CUBLAS_OP_T`.
const TRANSPOSED: i32 = 1;

impl GpuRuntime for Cuda {
    /// On the thread that serves the device, which else every operation would be sent to.
    fn run_step<T: Send>(device: &Self::Device, step: impl FnOnce() -> T + Send) -> T {
        let mut outcome = None;
        let ran = Self::client(device).exclusive(|| {
            // A panic belongs to the caller's thread.
            outcome = Some(catch_unwind(AssertUnwindSafe(step)));
        });
        match (ran, outcome) {
            (_, Some(Ok(value))) => value,
            (_, Some(Err(panic))) => resume_unwind(panic),
            (ran, None) => panic!("the thread of the device is gone: {ran:?}"),
        }
    }

    fn library_product(
        lhs: &CubeTensor<Self>,
        rhs: &CubeTensor<Self>,
        bias: Option<&CubeTensor<Self>>,
        dtype: DType,
    ) -> Option<CubeTensor<Self>> {
        let library = library(lhs.device.index)?;
        let problem = Problem::new(lhs, rhs, bias, dtype)?;
        let [batch, m, n] = [problem.batch, problem.m, problem.n].map(|size| size as usize);
        let shape = match lhs.meta.shape().num_dims() {
            2 => Shape::new([m, n]),
            _ => Shape::new([batch, m, n]),
        };
        let output = empty(lhs, shape, dtype);
        let done = lhs.client.exclusive(|| {
            let address = |tensor: &CubeTensor<Self>| {
                let memory = lhs.client.get_resource(tensor.handle.clone()).ok()?;
                Some(memory.resource().ptr)
            };
            let pointers = Pointers {
                lhs: address(lhs)?,
                rhs: address(rhs)?,
                output: address(&output)?,
                bias: match bias {
                    Some(bias) => Some(address(bias)?),
                    None => None,
                },
            };
            locked(library).multiply(problem, &pointers).ok()
        });
        done.ok().flatten().map(|()| output)
    }
}

/// A matrix in memory, as cuBLAS sees it: column-major.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Layout {
    /// Elements between two columns.
    leading: i64,
    /// Elements between two matrices.
    batch_stride: i64,
    /// Whether it is the transpose of the operand.
    transposed: bool,
}

impl Layout {
    /// Of a row-major view, whose transpose is column-major; `None` where neither dimension is without
    /// gaps.
    fn of(matrix: &CubeTensor<Cuda>) -> Option<Self> {
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
struct Problem {
    batch: u64,
    m: u64,
    n: u64,
    k: u64,
    lhs: Layout,
    rhs: Layout,
    input: Element,
    output: Element,
    bias: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Element {
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

    fn data_type(self) -> lt_sys::cudaDataType {
        match self {
            Self::F32 => lt_sys::cudaDataType_t::CUDA_R_32F,
            Self::Bf16 => lt_sys::cudaDataType_t::CUDA_R_16BF,
        }
    }
}

impl Problem {
    fn new(
        lhs: &CubeTensor<Cuda>,
        rhs: &CubeTensor<Cuda>,
        bias: Option<&CubeTensor<Cuda>>,
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

/// Where the matrices are on the device.
struct Pointers {
    lhs: u64,
    rhs: u64,
    output: u64,
    bias: Option<u64>,
}

impl Pointers {
    /// The alignment that all of them have.
    fn alignment(&self) -> u64 {
        let all = self.lhs | self.rhs | self.output | MAX_ALIGNMENT;
        1 << all.trailing_zeros()
    }
}

/// What cuBLASLt needs for a problem; kept for the next of its kind.
struct Plan {
    operation: lt_sys::cublasLtMatmulDesc_t,
    lhs: lt_sys::cublasLtMatrixLayout_t,
    rhs: lt_sys::cublasLtMatrixLayout_t,
    output: lt_sys::cublasLtMatrixLayout_t,
    algorithm: lt_sys::cublasLtMatmulAlgo_t,
}

/// cuBLASLt on one device.
struct Library {
    handle: lt_sys::cublasLtHandle_t,
    context: driver_sys::CUcontext,
    stream: driver_sys::CUstream,
    /// Recorded when all that was asked of the device before a product is done; and when the product is.
    before: driver_sys::CUevent,
    after: driver_sys::CUevent,
    workspace: driver_sys::CUdeviceptr,
    plans: HashMap<(Problem, u64), Plan>,
}

// SAFETY: handles of the driver and of cuBLASLt belong to a context, not to a thread, and the mutex in
// `library` lets one thread at them at a time.
#[allow(unsafe_code)]
unsafe impl Send for Library {}

/// By the device's number; `None` where it cannot be had.
type Libraries = HashMap<usize, Option<&'static Mutex<Library>>>;

/// The library on device `index`, made at the first call.
fn library(index: usize) -> Option<&'static Mutex<Library>> {
    static LIBRARIES: Mutex<Option<Libraries>> = Mutex::new(None);
    // Kept to the end of the process, as the backend keeps its device.
    let kept = |library| &*Box::leak(Box::new(Mutex::new(library)));
    *locked(&LIBRARIES)
        .get_or_insert_default()
        .entry(index)
        .or_insert_with(|| Library::load(index).map(kept))
}

/// A panic between two calls of the library leaves nothing half-done.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Library {
    #[allow(unsafe_code)]
    fn load(index: usize) -> Option<Self> {
        // SAFETY: looks for a file, and calls nothing of it.
        if !unsafe { lt_sys::is_culib_present() } {
            return None;
        }
        let mut version = 0;
        // SAFETY: the driver is loaded, since the backend runs on it; it writes one number.
        let known = unsafe { driver_sys::cuDriverGetVersion(&mut version) }.result();
        known.ok().filter(|()| version >= OLDEST_DRIVER)?;
        let device = driver::device::get(index as i32).ok()?;
        // SAFETY: the device exists. Its primary context is the one that the backend uses, and is made
        // current for this thread while the pieces are made in it.
        unsafe {
            let context = driver::primary_ctx::retain(device).ok()?;
            driver::ctx::set_current(context).ok()?;
            let event = || {
                let flags = driver_sys::CUevent_flags::CU_EVENT_DISABLE_TIMING;
                driver::event::create(flags).ok()
            };
            Some(Self {
                handle: lt::create_handle().ok()?,
                context,
                stream: driver::stream::create(driver::stream::StreamKind::NonBlocking).ok()?,
                before: event()?,
                after: event()?,
                workspace: driver::malloc_sync(WORKSPACE_BYTES).ok()?,
                plans: HashMap::new(),
            })
        }
    }

    /// Asks the device for the product, behind everything that it was asked for before; what it is asked
    /// for later waits. Must run on the thread that serves the device, where nothing else can be asked
    /// between.
    #[allow(unsafe_code)]
    fn multiply(&mut self, problem: Problem, pointers: &Pointers) -> Result<(), lt::CublasError> {
        let key = (problem, pointers.alignment());
        if !self.plans.contains_key(&key) {
            let plan = Plan::new(self.handle, problem, key.1)?;
            self.plans.insert(key, plan);
        }
        let plan = &self.plans[&key];
        if let Some(bias) = pointers.bias {
            let attribute =
                lt_sys::cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_BIAS_POINTER;
            plan.set(attribute, &bias)?;
        }
        let (one, zero) = (1.0_f32, 0.0_f32);
        // SAFETY: the plan was made for matrices of these sizes, which the backend keeps allocated; memory
        // that it frees later it hands out to work that waits for `after`. In column-major terms the
        // operands change places. The events order this stream and all of the backend's.
        unsafe {
            let ordered = |result: driver_sys::CUresult| {
                let failed =
                    lt::CublasError(lt_sys::cublasStatus_t::CUBLAS_STATUS_EXECUTION_FAILED);
                result.result().map_err(|_| failed)
            };
            ordered(driver_sys::cuCtxRecordEvent(self.context, self.before))?;
            ordered(driver_sys::cuStreamWaitEvent(self.stream, self.before, 0))?;
            let product = lt::matmul(
                self.handle,
                plan.operation,
                ptr::from_ref(&one).cast(),
                ptr::from_ref(&zero).cast(),
                pointers.rhs as *const c_void,
                plan.rhs,
                pointers.lhs as *const c_void,
                plan.lhs,
                pointers.output as *const c_void,
                plan.output,
                pointers.output as *mut c_void,
                plan.output,
                &plan.algorithm,
                self.workspace as *mut c_void,
                WORKSPACE_BYTES,
                self.stream.cast(),
            );
            ordered(driver_sys::cuEventRecord(self.after, self.stream))?;
            ordered(driver_sys::cuCtxWaitEvent(self.context, self.after))?;
            product
        }
    }
}

impl Plan {
    #[allow(unsafe_code)]
    fn new(
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

    #[allow(unsafe_code)]
    fn set<T>(
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

#[allow(unsafe_code)]
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
