//! The backend of one device: its driver, its allocator, its loaded kernels, and the [`Backend`] trait by families.

use crate::allocator::Allocator;
use crate::args::Args;
use crate::codegen::Unit;
use crate::driver::{Address, Driver, Extent, Function};
use crate::{attention, elementwise, index, matmul, optimizer, reduce, rows, sort, window};
use flambeau_core::storage::{Memory, Release};
use flambeau_core::*;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;

/// CUDA's limit on a kernel's parameter.
const MAX_ARGUMENT_BYTES: usize = 4096;

/// Loaded kernels by what their text depends on.
type Kernels = HashMap<Box<[u8]>, Arc<[Function]>>;

/// One device.
pub struct CudaBackend {
    pub(crate) index: u16,
    pub(crate) driver: Box<dyn Driver>,
    allocator: Allocator,
    kernels: Mutex<Kernels>,
    /// Four words in which kernels report a bad index: flag, value, dimension, size.
    error: Address,
    /// Whether every indexed kernel waits for its report. Otherwise the report is read at the next synchronisation, as the work
    /// itself is not waited for.
    blocking: bool,
}

/// Temporary device memory, given back on drop (work in the stream comes before whatever uses it next).
pub(crate) struct Scratch<'a> {
    backend: &'a CudaBackend,
    address: Address,
}
impl Scratch<'_> {
    pub(crate) fn ptr(&self) -> *mut u8 {
        self.address as *mut u8
    }
}
impl Drop for Scratch<'_> {
    fn drop(&mut self) {
        self.backend.allocator.free(self.address);
    }
}

/// Gives a block back to the device whose index is `tag`.
unsafe fn release(ptr: *mut u8, _nbytes: usize, tag: u64) {
    if let Ok(backend) = crate::device(tag as u16) {
        backend.allocator.free(ptr as Address);
    }
}

impl CudaBackend {
    /// A backend over an open driver.
    ///
    /// # Errors
    /// `OutOfMemory` or `Runtime` when the device cannot give a few bytes.
    pub(crate) fn new(index: u16, driver: Box<dyn Driver>) -> Result<CudaBackend> {
        let allocator = Allocator::default();
        let error = allocator.alloc(&*driver, index, 32)?;
        // SAFETY: 32 bytes that were just allocated.
        unsafe { driver.memset(error, 0, 32)? };
        let blocking = driver.is_emulated() || std::env::var_os("FLAMBEAU_CUDA_BLOCKING").is_some_and(|v| v != "0");
        Ok(CudaBackend { index, driver, allocator, kernels: Mutex::new(HashMap::new()), error, blocking })
    }
    /// Whether kernels look at dtypes at run time.
    pub(crate) fn generic(&self) -> bool {
        self.driver.is_emulated()
    }
    pub(crate) fn scratch(&self, nbytes: usize) -> Result<Scratch<'_>> {
        Ok(Scratch { backend: self, address: self.allocator.alloc(&*self.driver, self.index, nbytes)? })
    }
    /// The kernels of `key`, built by `make` the first time.
    pub(crate) fn kernels(&self, key: &[u8], make: impl FnOnce() -> Result<Unit>) -> Result<Arc<[Function]>> {
        if let Some(found) = self.kernels.lock().get(key) {
            return Ok(found.clone());
        }
        let unit = make()?;
        // Compiled outside the lock; a second thread that wants the same kernel finds it in the cache on disk.
        let loaded: Arc<[Function]> = self.driver.load(&unit.source(), &unit.names)?.into();
        Ok(self.kernels.lock().entry(key.into()).or_insert(loaded).clone())
    }
    /// Starts a kernel.
    ///
    /// # Errors
    /// `Unsupported` when the parameter is larger than CUDA allows; the driver's errors.
    pub(crate) fn launch(&self, kernel: Function, extent: Extent, args: &mut Args) -> Result<()> {
        if args.nbytes() > MAX_ARGUMENT_BYTES {
            return unsupported("more operands than a kernel takes");
        }
        // SAFETY: `args` was laid out for this kernel by the family that generated it, from operands whose memory the caller
        // vouches for (the trait's contract).
        unsafe { self.driver.launch(kernel, extent, args.as_mut_ptr()) }
    }
    /// Where kernels report a bad index.
    pub(crate) fn error_address(&self) -> *const u8 {
        self.error as *const u8
    }
    /// Reads the report of bad indices, now or (on a real device that is not blocking) at the next synchronisation.
    ///
    /// # Errors
    /// `Index` that names the value, the dimension and its size.
    pub(crate) fn check_index(&self) -> Result<()> {
        if self.blocking {
            self.read_report()
        } else {
            Ok(())
        }
    }
    fn read_report(&self) -> Result<()> {
        let mut words = [0i64; 4];
        // SAFETY: 32 bytes on both sides.
        unsafe { self.driver.d2h(words.as_mut_ptr().cast(), self.error, 32)? };
        if words[0] == 0 {
            return Ok(());
        }
        // SAFETY: as above.
        unsafe { self.driver.memset(self.error, 0, 32)? };
        let [_, value, dim, size] = words;
        if dim < 0 {
            bail!(Index, "Target {value} is out of bounds.");
        }
        bail!(Index, "index {value} is out of bounds for dimension {dim} with size {size}")
    }
    /// An operand over scratch memory.
    pub(crate) fn over<'a>(&self, ptr: *mut u8, dtype: DType, sizes: &'a [i64], strides: &'a [i64]) -> Operand<'a> {
        Operand { ptr, dtype, sizes, strides, device: Device::Cuda(self.index) }
    }
    /// Copies with conversion and any layouts.
    pub(crate) fn copy(&self, x: &Operand, out: &Operand) -> Result<()> {
        let class = out.dtype.class();
        // Through the source's class where the destination is narrower in kind, so that truth and truncation are right.
        let class =
            if x.dtype.category() > out.dtype.category() || out.dtype == DType::Bool { x.dtype.class() } else { class };
        let program = Program { inputs: &[Input::Operand(class)], steps: &[], results: &[0] };
        elementwise::map(self, &program, &[*x], &[*out])
    }
}

impl Backend for CudaBackend {
    fn device(&self) -> Device {
        Device::Cuda(self.index)
    }
    fn alloc(&self, nbytes: usize) -> Result<Memory> {
        if nbytes == 0 {
            return Ok(Memory::empty());
        }
        let address = self.allocator.alloc(&*self.driver, self.index, nbytes)?;
        // SAFETY: the block is this memory's until `release` gives it back to the same allocator.
        Ok(unsafe { Memory::new(address as *mut u8, nbytes, Release::Allocator(release, self.index as u64)) })
    }
    fn fill_bytes(&self, ptr: *mut u8, value: u8, nbytes: usize) -> Result<()> {
        if nbytes == 0 {
            return Ok(());
        }
        // SAFETY: the caller's: `nbytes` of this device at `ptr`.
        unsafe { self.driver.memset(ptr as Address, value, nbytes) }
    }
    fn upload(&self, from: *const u8, to: *mut u8, nbytes: usize) -> Result<()> {
        if nbytes == 0 {
            return Ok(());
        }
        // SAFETY: the caller's: both ranges are valid.
        unsafe { self.driver.h2d(to as Address, from, nbytes) }
    }
    fn download(&self, from: *const u8, to: *mut u8, nbytes: usize) -> Result<()> {
        if nbytes == 0 {
            return Ok(());
        }
        // SAFETY: the caller's: both ranges are valid.
        unsafe { self.driver.d2h(to, from as Address, nbytes)? };
        if self.blocking {
            Ok(())
        } else {
            self.read_report()
        }
    }
    fn copy_bytes(&self, from: *const u8, to: *mut u8, nbytes: usize) -> Result<()> {
        if nbytes == 0 {
            return Ok(());
        }
        // SAFETY: the caller's: both ranges are valid.
        unsafe { self.driver.d2d(to as Address, from as Address, nbytes) }
    }
    fn synchronize(&self) -> Result<()> {
        self.driver.synchronize()?;
        self.read_report()
    }
    fn map(&self, program: &Program, x: &[Operand], out: &[Operand]) -> Result<()> {
        elementwise::map(self, program, x, out)
    }
    fn reduce(&self, how: Reduction, program: &Program, x: &[Operand], dims: u64, out: &[Operand]) -> Result<()> {
        reduce::reduce(self, how, program, x, dims, out)
    }
    fn scan(&self, how: Scan, x: &Operand, dim: usize, out: &[Operand]) -> Result<()> {
        reduce::scan(self, how, x, dim, out)
    }
    fn index_read(&self, x: &Operand, index: &[Index], out: &Operand) -> Result<()> {
        index::read(self, x, index, out)
    }
    fn index_write(&self, x: &Operand, index: &[Index], values: &Operand, how: Write) -> Result<()> {
        index::write(self, x, index, values, how)
    }
    fn count_nonzero(&self, x: &Operand) -> Result<i64> {
        index::count_nonzero(self, x)
    }
    fn nonzero(&self, x: &Operand, out: &Operand) -> Result<()> {
        index::nonzero(self, x, out)
    }
    fn masked_select(&self, x: &Operand, mask: &Operand, out: &Operand) -> Result<()> {
        index::masked_select(self, x, mask, out)
    }
    fn sort(&self, x: &Operand, dim: usize, descending: bool, values: &Operand, indices: &Operand) -> Result<()> {
        sort::sort(self, x, dim, descending, values, indices)
    }
    fn topk(&self, x: &Operand, dim: usize, largest: bool, values: &Operand, indices: &Operand) -> Result<()> {
        sort::sort(self, x, dim, largest, values, indices)
    }
    fn matmul(&self, a: &Operand, b: &Operand, out: &Operand, epilogue: Epilogue) -> Result<()> {
        matmul::matmul(self, a, b, out, epilogue)
    }
    fn conv(&self, x: &Operand, w: &Operand, bias: Option<&Operand>, geometry: &Conv, out: &Operand) -> Result<()> {
        window::conv(self, x, w, bias, geometry, out)
    }
    fn conv_input_grad(&self, g: &Operand, w: &Operand, geometry: &Conv, gx: &Operand) -> Result<()> {
        window::conv_input_grad(self, g, w, geometry, gx)
    }
    fn conv_weight_grad(&self, g: &Operand, x: &Operand, geometry: &Conv, gw: &Operand) -> Result<()> {
        window::conv_weight_grad(self, g, x, geometry, gw)
    }
    fn max_pool(&self, x: &Operand, geometry: &Pool, out: &Operand, indices: Option<&Operand>) -> Result<()> {
        window::max_pool(self, x, geometry, out, indices)
    }
    fn avg_pool(&self, x: &Operand, geometry: &Pool, out: &Operand) -> Result<()> {
        window::avg_pool(self, x, geometry, out)
    }
    fn avg_pool_grad(&self, g: &Operand, geometry: &Pool, gx: &Operand) -> Result<()> {
        window::avg_pool_grad(self, g, geometry, gx)
    }
    fn softmax(&self, x: &Operand, dim: usize, log: bool, out: &Operand) -> Result<()> {
        rows::softmax(self, x, dim, log, out)
    }
    fn softmax_grad(&self, g: &Operand, y: &Operand, dim: usize, log: bool, gx: &Operand) -> Result<()> {
        rows::softmax_grad(self, g, y, dim, log, gx)
    }
    fn layer_norm(
        &self,
        x: &Operand,
        weight: Option<&Operand>,
        bias: Option<&Operand>,
        eps: f64,
        out: &Operand,
        mean: &Operand,
        rstd: &Operand,
    ) -> Result<()> {
        rows::layer_norm(self, x, weight, bias, eps, out, mean, rstd)
    }
    fn layer_norm_grad(
        &self,
        g: &Operand,
        x: &Operand,
        mean: &Operand,
        rstd: &Operand,
        weight: Option<&Operand>,
        gx: Option<&Operand>,
        gw: Option<&Operand>,
        gb: Option<&Operand>,
    ) -> Result<()> {
        rows::layer_norm_grad(self, [g, x, mean, rstd], weight, gx, gw, gb)
    }
    fn cross_entropy(
        &self,
        logits: &Operand,
        target: &Operand,
        ignore: i64,
        loss: &Operand,
        lse: &Operand,
    ) -> Result<()> {
        rows::cross_entropy(self, logits, target, ignore, loss, lse)
    }
    fn cross_entropy_grad(
        &self,
        g: &Operand,
        logits: &Operand,
        target: &Operand,
        lse: &Operand,
        ignore: i64,
        gx: &Operand,
    ) -> Result<()> {
        rows::cross_entropy_grad(self, g, logits, target, lse, ignore, gx)
    }
    fn attention(
        &self,
        q: &Operand,
        k: &Operand,
        v: &Operand,
        p: &Attention,
        out: &Operand,
        lse: &Operand,
    ) -> Result<()> {
        attention::attention(self, [q, k, v], p, out, lse)
    }
    fn attention_grad(
        &self,
        g: &Operand,
        q: &Operand,
        k: &Operand,
        v: &Operand,
        out: &Operand,
        lse: &Operand,
        p: &Attention,
        gq: &Operand,
        gk: &Operand,
        gv: &Operand,
    ) -> Result<()> {
        attention::attention_grad(self, g, [q, k, v], p, out, lse, [gq, gk, gv])
    }
    fn optimizer(&self, step: &OptimizerStep, lists: &[&[Operand]]) -> Result<()> {
        optimizer::step(self, step, lists)
    }
    fn memory_stats(&self) -> MemoryStats {
        self.allocator.stats()
    }
    fn reset_peak_memory_stats(&self) {
        self.allocator.reset_peaks()
    }
    fn trim(&self) {
        self.allocator.trim(&*self.driver);
    }
    fn fill(&self, out: &Operand, value: Number) -> Result<()> {
        elementwise::fill(self, out, value)
    }
}
