//! Products through NVIDIA's cuBLASLt, loaded when the first is asked for: Burn's own kernels do not use the
//! matrix instructions of the newest GPUs. Where the library or a driver that can order it is missing,
//! Burn's kernels serve.

mod plan;
mod problem;

use std::{
    collections::HashMap,
    ffi::c_void,
    ptr,
    sync::{Mutex, MutexGuard, PoisonError},
};

use burn::tensor::{DType, Shape};
use burn_cubecl::{cubecl::cuda::CudaRuntime, tensor::CubeTensor};
use cudarc::{
    cublaslt::{result as lt, sys as lt_sys},
    driver::{result as driver, sys as driver_sys},
};

use self::{
    plan::{Plan, WORKSPACE_BYTES},
    problem::Problem,
};
use super::launch::empty;

/// The alignment of what the GPU allocates; more is not asked for.
const MAX_ALIGNMENT: u64 = 256;

/// `cuCtxRecordEvent` and `cuCtxWaitEvent` came with this driver interface (CUDA 12.5).
const OLDEST_DRIVER: i32 = 12_050;

/// See [`GpuRuntime::library_product`](super::runtime::GpuRuntime::library_product).
pub(super) fn product(
    lhs: &CubeTensor<CudaRuntime>,
    rhs: &CubeTensor<CudaRuntime>,
    bias: Option<&CubeTensor<CudaRuntime>>,
    dtype: DType,
) -> Option<CubeTensor<CudaRuntime>> {
    let library = library(lhs.device.index)?;
    let problem = Problem::new(lhs, rhs, bias, dtype)?;
    let [batch, m, n] = [problem.batch, problem.m, problem.n].map(|size| size as usize);
    let shape = match lhs.meta.shape().num_dims() {
        2 => Shape::new([m, n]),
        _ => Shape::new([batch, m, n]),
    };
    let output = empty(lhs, shape, dtype);
    let done = lhs.client.exclusive(|| {
        let address = |tensor: &CubeTensor<CudaRuntime>| {
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
#[expect(
    unsafe_code,
    reason = "calls of cuBLASLt and of the driver, which are C"
)]
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
    #[expect(
        unsafe_code,
        reason = "calls of cuBLASLt and of the driver, which are C"
    )]
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
    #[expect(
        unsafe_code,
        reason = "calls of cuBLASLt and of the driver, which are C"
    )]
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
