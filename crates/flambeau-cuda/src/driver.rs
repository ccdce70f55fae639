//! What the backend needs of a CUDA driver. Two implementations: the real one and the emulated device.

use flambeau_core::{DType, Result};
use std::ffi::c_void;

/// A device address.
pub type Address = u64;

/// A kernel that is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Function(pub usize);

/// The extent of a launch: blocks, threads a block, bytes of dynamic shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub shared: u32,
}

impl Extent {
    /// Blocks of 256 threads for `n` threads of work; kernels loop when there are fewer threads than elements.
    pub fn linear(n: i64) -> Extent {
        Extent { grid: [(n.max(1) as u64).div_ceil(256).min(1 << 20) as u32, 1, 1], block: [256, 1, 1], shared: 0 }
    }
    /// `blocks` blocks of `threads` threads.
    pub fn blocks(blocks: i64, threads: u32) -> Extent {
        Extent { grid: [blocks.clamp(1, i32::MAX as i64) as u32, 1, 1], block: [threads, 1, 1], shared: 0 }
    }
}

/// A batched matrix product for the vendor's library, all sizes in elements. Row-major: `c[b] = a[b] b[b]`, where each matrix
/// is either row-major (`transposed` false, rows `ld` apart) or column-major.
#[derive(Clone, Copy, Debug)]
pub struct Gemm {
    pub dtype: DType,
    pub m: i32,
    pub n: i32,
    pub k: i32,
    pub batch: i32,
    pub a: Matrix,
    pub b: Matrix,
    pub c: Matrix,
    /// Add to what `c` holds.
    pub accumulate: bool,
}

/// One matrix of [`Gemm`].
#[derive(Clone, Copy, Debug)]
pub struct Matrix {
    pub address: Address,
    pub ld: i64,
    pub batch_stride: i64,
    pub transposed: bool,
}

/// An event's handle, for timing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event(pub usize);

/// A device. Work is put in one stream, in order; only `d2h` and `synchronize` wait.
pub trait Driver: Send + Sync {
    /// The device's name.
    fn name(&self) -> String;
    /// Compute capability.
    fn capability(&self) -> (i32, i32);
    /// Whether this is the emulated device: kernels are then generic over dtypes, to keep their number low.
    fn is_emulated(&self) -> bool;
    /// `nbytes` of device memory, aligned to 256; `None` when there is not enough.
    ///
    /// # Errors
    /// `Runtime` for a driver failure other than a lack of memory.
    fn alloc(&self, nbytes: usize) -> Result<Option<Address>>;
    /// Gives memory back.
    ///
    /// # Safety
    /// `address` came from `alloc` with `nbytes` and nothing uses it any more.
    unsafe fn free(&self, address: Address, nbytes: usize);
    /// Host to device; the host memory may be reused on return.
    ///
    /// # Safety
    /// Both ranges are valid for `nbytes`.
    unsafe fn h2d(&self, to: Address, from: *const u8, nbytes: usize) -> Result<()>;
    /// Device to host; complete on return.
    ///
    /// # Safety
    /// Both ranges are valid for `nbytes`.
    unsafe fn d2h(&self, to: *mut u8, from: Address, nbytes: usize) -> Result<()>;
    /// Within the device.
    ///
    /// # Safety
    /// Both ranges are valid for `nbytes` and do not overlap.
    unsafe fn d2d(&self, to: Address, from: Address, nbytes: usize) -> Result<()>;
    /// Sets bytes.
    ///
    /// # Safety
    /// The range is valid for `nbytes`.
    unsafe fn memset(&self, to: Address, value: u8, nbytes: usize) -> Result<()>;
    /// Compiles CUDA C and loads it; one function for each of `names`, `extern "C"` kernels of one by-value parameter.
    ///
    /// # Errors
    /// `Runtime` with the compiler's log.
    fn load(&self, source: &str, names: &[String]) -> Result<Vec<Function>>;
    /// Starts a kernel.
    ///
    /// # Safety
    /// `arguments` points to the kernel's parameter, whose addresses are valid for what the kernel does with them.
    unsafe fn launch(&self, function: Function, extent: Extent, arguments: *mut c_void) -> Result<()>;
    /// Waits for everything that was started.
    fn synchronize(&self) -> Result<()>;
    /// Records an event in the stream.
    fn record(&self) -> Result<Event>;
    /// Milliseconds from one event to a later one; waits for both, and destroys neither.
    fn elapsed(&self, from: Event, to: Event) -> Result<f32>;
    /// Gives an event back.
    fn destroy(&self, event: Event);
    /// The vendor's matrix product; `false` when there is none for this one.
    ///
    /// # Safety
    /// The matrices are valid memory of their sizes.
    unsafe fn gemm(&self, gemm: &Gemm) -> Result<bool>;
    /// Free and total bytes of the device.
    fn memory(&self) -> (usize, usize);
}
