//! The real driver, through cudarc: the driver's library is opened at run time, cuBLAS and NVRTC too when they are there.

use crate::compiler;
use crate::driver::{Address, Driver, Event, Extent, Function, Gemm, Matrix};
use crate::libraries;
use cudarc::cublas::{result as blas, sys as blas_sys};
use cudarc::driver::{result as cu, sys, CudaContext, CudaStream};
use flambeau_core::{bail, err, DType, Error, Result};
use parking_lot::Mutex;
use std::ffi::{c_void, CString};
use std::sync::{Arc, OnceLock};

/// Whether the CUDA driver's library is on this machine and starts; asked once.
pub fn is_present() -> bool {
    static PRESENT: OnceLock<bool> = OnceLock::new();
    // SAFETY: asking for a library's presence opens and closes it.
    *PRESENT.get_or_init(|| unsafe { sys::is_culib_present() } && cu::init().is_ok())
}

type ElapsedTime = unsafe extern "C" fn(*mut f32, sys::CUevent, sys::CUevent) -> sys::CUresult;

/// The first version of the entry point, which cudarc leaves out at this level: drivers of CUDA 12 lack the second.
fn event_elapsed_time() -> Option<ElapsedTime> {
    static ENTRY: OnceLock<Option<ElapsedTime>> = OnceLock::new();
    *ENTRY.get_or_init(|| {
        let names = ["libcuda.so.1", "libcuda.so", "nvcuda.dll"];
        // SAFETY: the driver's library, which is loaded already; it stays so.
        let library = names.iter().find_map(|n| unsafe { libloading::Library::new(n) }.ok())?;
        // SAFETY: the symbol has this type in every version of the driver's interface.
        let entry = unsafe { library.get::<ElapsedTime>(b"cuEventElapsedTime") }.ok().map(|f| *f);
        std::mem::forget(library);
        entry
    })
}

/// How many devices the driver sees.
pub fn device_count() -> usize {
    if is_present() {
        cu::device::get_count().unwrap_or(0).max(0) as usize
    } else {
        0
    }
}

/// One device of the real driver, with its default stream.
pub struct Cuda {
    context: Arc<CudaContext>,
    stream: Arc<CudaStream>,
    capability: (i32, i32),
    /// cuBLAS's handle, opened at the first product; `None` when the library is missing.
    blas: OnceLock<Option<Blas>>,
}

struct Blas(Mutex<blas_sys::cublasHandle_t>);
// SAFETY: the handle is used under its lock only.
unsafe impl Send for Blas {}
// SAFETY: as above.
unsafe impl Sync for Blas {}

#[cold]
fn failure(e: cu::DriverError) -> Error {
    if e.0 == sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY {
        return err!(OutOfMemory, "CUDA out of memory");
    }
    let name = e.error_name().ok().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let text = e.error_string().ok().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    err!(Runtime, "CUDA error: {text} ({name})")
}

impl Cuda {
    /// Opens device `index`.
    ///
    /// # Errors
    /// `Runtime` when there is no driver, or no such device.
    pub fn open(index: usize) -> Result<Cuda> {
        if !is_present() {
            bail!(Runtime, "Found no NVIDIA driver on your system: CUDA is not available");
        }
        let count = device_count();
        if index >= count {
            bail!(Runtime, "CUDA error: invalid device ordinal: cuda:{index} of {count} devices");
        }
        let context = CudaContext::new(index).map_err(failure)?;
        let capability = context.compute_capability().map_err(failure)?;
        Ok(Cuda { stream: context.default_stream(), context, capability, blas: OnceLock::new() })
    }
    fn bind(&self) -> Result<()> {
        self.context.bind_to_thread().map_err(failure)
    }
    fn blas(&self) -> Option<&Blas> {
        self.blas
            .get_or_init(|| {
                libraries::open_first(&["libcublasLt", "libcublas", "cublasLt64", "cublas64"]);
                // SAFETY: asking for a library's presence opens and closes it.
                if !unsafe { blas_sys::is_culib_present() } {
                    return None;
                }
                let handle = blas::create_handle().ok()?;
                // SAFETY: both are valid for the life of this device.
                unsafe { blas::set_stream(handle, self.stream.cu_stream().cast()) }.ok()?;
                Some(Blas(Mutex::new(handle)))
            })
            .as_ref()
    }
}

impl Driver for Cuda {
    fn name(&self) -> String {
        self.context.name().unwrap_or_else(|_| "CUDA device".to_owned())
    }
    fn capability(&self) -> (i32, i32) {
        self.capability
    }
    fn is_emulated(&self) -> bool {
        false
    }
    fn alloc(&self, nbytes: usize) -> Result<Option<Address>> {
        self.bind()?;
        // SAFETY: the memory is given back by `free`.
        match unsafe { cu::malloc_sync(nbytes) } {
            Ok(p) => Ok(Some(p)),
            Err(e) if e.0 == sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => Ok(None),
            Err(e) => Err(failure(e)),
        }
    }
    unsafe fn free(&self, address: Address, _nbytes: usize) {
        // A failure here means that the driver is shutting down: then the memory is gone all the same.
        let _ = self.bind();
        let _ = cu::free_sync(address);
    }
    unsafe fn h2d(&self, to: Address, from: *const u8, nbytes: usize) -> Result<()> {
        self.bind()?;
        // The synchronous copy is ordered after the default stream's work.
        cu::memcpy_htod_sync(to, std::slice::from_raw_parts(from, nbytes)).map_err(failure)
    }
    unsafe fn d2h(&self, to: *mut u8, from: Address, nbytes: usize) -> Result<()> {
        self.bind()?;
        cu::memcpy_dtoh_sync(std::slice::from_raw_parts_mut(to, nbytes), from).map_err(failure)
    }
    unsafe fn d2d(&self, to: Address, from: Address, nbytes: usize) -> Result<()> {
        self.bind()?;
        cu::memcpy_dtod_async(to, from, nbytes, self.stream.cu_stream()).map_err(failure)
    }
    unsafe fn memset(&self, to: Address, value: u8, nbytes: usize) -> Result<()> {
        self.bind()?;
        cu::memset_d8_async(to, value, nbytes, self.stream.cu_stream()).map_err(failure)
    }
    fn load(&self, source: &str, names: &[String]) -> Result<Vec<Function>> {
        let (major, minor) = self.capability;
        let cubin = compiler::compile_cached(source, &format!("sm_{major}{minor}"))?;
        self.bind()?;
        // SAFETY: a cubin for this device; the module is never unloaded, so its functions stay valid.
        let module = unsafe { cu::module::load_data(cubin.as_ptr().cast()) }.map_err(failure)?;
        names
            .iter()
            .map(|name| {
                let name = CString::new(name.as_str()).map_err(|_| err!(Runtime, "a kernel's name has a zero byte"))?;
                // SAFETY: the module is loaded.
                let function = unsafe { cu::module::get_function(module, name) }.map_err(failure)?;
                Ok(Function(function as usize))
            })
            .collect()
    }
    unsafe fn launch(&self, function: Function, extent: Extent, arguments: *mut c_void) -> Result<()> {
        self.bind()?;
        let ([x, y, z], [tx, ty, tz]) = (extent.grid, extent.block);
        let mut list = [arguments];
        cu::launch_kernel(
            function.0 as sys::CUfunction,
            (x, y, z),
            (tx, ty, tz),
            extent.shared,
            self.stream.cu_stream(),
            &mut list,
        )
        .map_err(failure)
    }
    fn synchronize(&self) -> Result<()> {
        self.bind()?;
        self.stream.synchronize().map_err(failure)
    }
    fn record(&self) -> Result<Event> {
        self.bind()?;
        let event = cu::event::create(sys::CUevent_flags::CU_EVENT_DEFAULT).map_err(failure)?;
        // SAFETY: the event was just created, the stream lives as long as this device.
        unsafe { cu::event::record(event, self.stream.cu_stream()) }.map_err(failure)?;
        Ok(Event(event as usize))
    }
    fn elapsed(&self, from: Event, to: Event) -> Result<f32> {
        self.bind()?;
        // SAFETY: events of `record`, not yet destroyed.
        unsafe {
            cu::event::synchronize(from.0 as sys::CUevent).map_err(failure)?;
            cu::event::synchronize(to.0 as sys::CUevent).map_err(failure)?;
            let Some(elapsed) = event_elapsed_time() else {
                bail!(Runtime, "CUDA error: this driver cannot time events")
            };
            let mut milliseconds = 0f32;
            elapsed(&mut milliseconds, from.0 as sys::CUevent, to.0 as sys::CUevent).result().map_err(failure)?;
            Ok(milliseconds)
        }
    }
    fn destroy(&self, event: Event) {
        let _ = self.bind();
        // SAFETY: an event of `record`, destroyed once.
        let _ = unsafe { cu::event::destroy(event.0 as sys::CUevent) };
    }
    unsafe fn gemm(&self, g: &Gemm) -> Result<bool> {
        use blas_sys::{cublasComputeType_t as Compute, cublasOperation_t as Op, cudaDataType as Type};
        let (dtype, compute) = match g.dtype {
            DType::F32 => (Type::CUDA_R_32F, Compute::CUBLAS_COMPUTE_32F),
            DType::F64 => (Type::CUDA_R_64F, Compute::CUBLAS_COMPUTE_64F),
            DType::F16 => (Type::CUDA_R_16F, Compute::CUBLAS_COMPUTE_32F),
            DType::BF16 => (Type::CUDA_R_16BF, Compute::CUBLAS_COMPUTE_32F),
            _ => return Ok(false),
        };
        let Some(blas) = self.blas() else {
            return Ok(false);
        };
        self.bind()?;
        let (one32, beta32) = (1.0f32, g.accumulate as u8 as f32);
        let (one64, beta64) = (1.0f64, g.accumulate as u8 as f64);
        let (alpha, beta): (*const c_void, *const c_void) = if g.dtype == DType::F64 {
            ((&raw const one64).cast(), (&raw const beta64).cast())
        } else {
            ((&raw const one32).cast(), (&raw const beta32).cast())
        };
        let op = |m: &Matrix| {
            if m.transposed {
                Op::CUBLAS_OP_T
            } else {
                Op::CUBLAS_OP_N
            }
        };
        let p = |m: &Matrix| m.address as *mut c_void;
        let handle = blas.0.lock();
        // cuBLAS counts by columns: the transposed product, with the factors exchanged, is ours by rows.
        blas::gemm_strided_batched_ex(
            *handle,
            op(&g.b),
            op(&g.a),
            g.n,
            g.m,
            g.k,
            alpha,
            p(&g.b),
            dtype,
            g.b.ld as i32,
            g.b.batch_stride,
            p(&g.a),
            dtype,
            g.a.ld as i32,
            g.a.batch_stride,
            beta,
            p(&g.c),
            dtype,
            g.c.ld as i32,
            g.c.batch_stride,
            g.batch,
            compute,
            blas_sys::cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT,
        )
        .map_err(|e| err!(Runtime, "cuBLAS: {e:?}"))?;
        Ok(true)
    }
    fn memory(&self) -> (usize, usize) {
        self.context.mem_get_info().unwrap_or((0, 0))
    }
}
