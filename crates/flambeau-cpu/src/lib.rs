//! The CPU backend: kernels at the machine's vector level, a thread pool, and a caching allocator.
//!
//! Results do not depend on the number of threads: work is split by size, and sums are fixed trees.

pub mod alloc;
pub mod attention;
mod attention_rows;
pub mod batch_norm;
pub mod conv;
mod conv_bands;
mod conv_planes;
mod conv_windows;
pub mod convert;
pub mod decomposition;
mod direct;
mod double;
mod element;
pub mod fft;
mod finish;
mod gemm;
mod gemm_bf16;
mod gemm_int8;
mod gemm_kernels;
mod gemv;
pub mod indexed;
pub mod isa;
pub mod kernels;
mod lanes;
mod ldl;
pub mod map;
pub mod math;
pub mod matmul;
pub mod optimizer;
mod order;
mod pieces;
pub mod pool;
pub mod pooling;
pub mod recurrent;
pub mod reduce;
pub mod rows;
pub mod scan;
pub mod scatter;
pub mod search;
pub mod select;
pub mod sort;
pub mod special;
#[cfg(test)]
mod testing;
pub mod tile;
#[cfg(target_arch = "x86_64")]
mod usual;
pub mod vector;
pub mod weave;
mod wide;
mod winograd;

pub use pool::{num_threads, set_num_threads};

use flambeau_core::storage::Memory;
use flambeau_core::*;

/// The level of vector instructions in use: `"baseline"`, `"avx2"` or `"avx512"`.
pub fn level() -> &'static str {
    isa::level_name()
}

/// The CPU as a [`Backend`].
pub struct Cpu;
static CPU: Cpu = Cpu;
/// The one CPU backend.
pub fn cpu() -> &'static Cpu {
    &CPU
}

/// Writes `n` copies of the first bytes of `one`.
///
/// # Safety
/// `at` has room for `n` elements.
unsafe fn fill_with<const S: usize>(at: *mut [u8; S], n: usize, one: &[u8; 16]) {
    let value = std::array::from_fn::<u8, S, _>(|i| one[i]);
    std::slice::from_raw_parts_mut(at, n).fill(value);
}

/// Delegates families to the module functions of the same signature.
macro_rules! families {
    ($($module:ident :: $name:ident ( $($arg:ident : $type:ty),* $(,)? ) -> $out:ty;)*) => {
        $( fn $name(&self, $($arg: $type),*) -> $out { $module::$name($($arg),*) } )*
    };
}

impl Backend for Cpu {
    fn device(&self) -> Device {
        Device::Cpu
    }
    #[inline]
    fn alloc(&self, nbytes: usize) -> Result<Memory> {
        alloc::alloc(nbytes)
    }
    fn fill_bytes(&self, ptr: *mut u8, value: u8, nbytes: usize) -> Result<()> {
        // SAFETY: the trait's contract: `ptr` has `nbytes`.
        unsafe { std::ptr::write_bytes(ptr, value, nbytes) };
        Ok(())
    }
    fn upload(&self, from: *const u8, to: *mut u8, nbytes: usize) -> Result<()> {
        self.copy_bytes(from, to, nbytes)
    }
    fn download(&self, from: *const u8, to: *mut u8, nbytes: usize) -> Result<()> {
        self.copy_bytes(from, to, nbytes)
    }
    fn copy_bytes(&self, from: *const u8, to: *mut u8, nbytes: usize) -> Result<()> {
        // SAFETY: the trait's contract: both have `nbytes`; they may overlap.
        unsafe { std::ptr::copy(from, to, nbytes) };
        Ok(())
    }
    fn synchronize(&self) -> Result<()> {
        Ok(())
    }
    #[inline]
    fn direct(&self, f: ScalarFn, dtype: DType, _n: usize) -> Option<DirectKernel> {
        kernels::kernel(f, dtype.class())
    }
    fn search(&self, sorted: &Operand, values: &Operand, right: bool, out: &Operand) -> Result<()> {
        search::search(sorted, values, right, out)
    }
    fn memory_stats(&self) -> MemoryStats {
        alloc::stats()
    }
    fn reset_peak_memory_stats(&self) {
        alloc::reset_peaks()
    }
    fn trim(&self) {
        alloc::trim()
    }
    fn fill(&self, out: &Operand, value: Number) -> Result<()> {
        let n = out.numel() as usize;
        let size = out.dtype.size();
        let mut one = [0u8; 16];
        let class = match value {
            Number::Complex(_) => Class::C64,
            Number::Float(_) => Class::F64,
            _ => Class::I64,
        };
        let mut wide = [0u64; 2];
        // SAFETY: one number of a class fits in 16 bytes aligned to 8, one element in `one`.
        unsafe {
            convert::fill(class, value, 1, wide.as_mut_ptr() as *mut u8);
            convert::store(out.dtype, class, wide.as_ptr() as *const u8, 1, one.as_mut_ptr(), 1);
        }
        let pattern: [u8; 16] = std::array::from_fn(|i| one[i % size]);
        let stream = n * size >= map::STREAM && (out.ptr as usize).is_multiple_of(16);
        struct Ptr(*mut u8);
        // SAFETY: pieces write disjoint parts.
        unsafe impl Sync for Ptr {}
        let dst = Ptr(out.ptr);
        pool::chunks(n, 64 * 1024, |lo, hi| {
            let dst = &dst;
            let at = dst.0.wrapping_add(lo * size);
            // SAFETY: the operand is dense, so elements lo..hi are contiguous from `at`.
            unsafe {
                if stream {
                    isa::stream_pattern(&pattern, at, (hi - lo) * size);
                } else if one[..size].iter().all(|b| *b == one[0]) {
                    std::ptr::write_bytes(at, one[0], (hi - lo) * size);
                } else {
                    let n = hi - lo;
                    match size {
                        2 => fill_with(at as *mut [u8; 2], n, &one),
                        4 => fill_with(at as *mut [u8; 4], n, &one),
                        8 => fill_with(at as *mut [u8; 8], n, &one),
                        _ => fill_with(at as *mut [u8; 16], n, &one),
                    }
                }
            }
        });
        Ok(())
    }

    families! {
        map::map(program: &Program, x: &[Operand], out: &[Operand]) -> Result<()>;
        reduce::reduce(how: Reduction, program: &Program, x: &[Operand], dims: u64, out: &[Operand]) -> Result<()>;
        scan::scan(how: Scan, x: &Operand, dim: usize, out: &[Operand]) -> Result<()>;
        indexed::index_read(x: &Operand, index: &[Index], out: &Operand) -> Result<()>;
        scatter::index_write(x: &Operand, index: &[Index], values: &Operand, how: Write) -> Result<()>;
        select::count_nonzero(x: &Operand) -> Result<i64>;
        select::nonzero(x: &Operand, out: &Operand) -> Result<()>;
        select::masked_select(x: &Operand, mask: &Operand, out: &Operand) -> Result<()>;
        sort::sort(x: &Operand, dim: usize, descending: bool, values: &Operand, indices: &Operand) -> Result<()>;
        sort::topk(x: &Operand, dim: usize, largest: bool, values: &Operand, indices: &Operand) -> Result<()>;
        sort::pick(x: &Operand, dim: usize, which: Pick, values: &Operand, indices: &Operand) -> Result<()>;
        matmul::matmul(a: &Operand, b: &Operand, out: &Operand, epilogue: Epilogue) -> Result<()>;
        conv::conv(x: &Operand, w: &Operand, bias: Option<&Operand>, geometry: &Conv, out: &Operand) -> Result<()>;
        conv::conv_input_grad(g: &Operand, w: &Operand, geometry: &Conv, gx: &Operand) -> Result<()>;
        conv::conv_weight_grad(g: &Operand, x: &Operand, geometry: &Conv, gw: &Operand) -> Result<()>;
        attention::attention(q: &Operand, k: &Operand, v: &Operand, p: &Attention, out: &Operand, lse: &Operand) -> Result<()>;
        attention::attention_grad(g: &Operand, q: &Operand, k: &Operand, v: &Operand, out: &Operand, lse: &Operand, p: &Attention,
            gq: &Operand, gk: &Operand, gv: &Operand) -> Result<()>;
        decomposition::decompose(how: Decomposition, x: &[Operand], out: &[Operand]) -> Result<()>;
        fft::fft(kind: Fft, x: &Operand, dims: &[usize], scale: f64, out: &Operand) -> Result<()>;
        pooling::max_pool(x: &Operand, geometry: &Pool, out: &Operand, indices: Option<&Operand>) -> Result<()>;
        pooling::avg_pool(x: &Operand, geometry: &Pool, out: &Operand) -> Result<()>;
        pooling::avg_pool_grad(g: &Operand, geometry: &Pool, gx: &Operand) -> Result<()>;
        rows::softmax(x: &Operand, dim: usize, log: bool, out: &Operand) -> Result<()>;
        rows::softmax_grad(g: &Operand, y: &Operand, dim: usize, log: bool, gx: &Operand) -> Result<()>;
        rows::layer_norm(x: &Operand, weight: Option<&Operand>, bias: Option<&Operand>, eps: f64, out: &Operand, mean: &Operand,
            rstd: &Operand) -> Result<()>;
        rows::layer_norm_grad(g: &Operand, x: &Operand, mean: &Operand, rstd: &Operand, weight: Option<&Operand>,
            gx: Option<&Operand>, gw: Option<&Operand>, gb: Option<&Operand>) -> Result<()>;
        batch_norm::batch_norm(x: &Operand, weight: Option<&Operand>, bias: Option<&Operand>, eps: f64, out: &Operand, mean: &Operand,
            var: &Operand) -> Result<()>;
        batch_norm::batch_norm_grad(g: &Operand, x: &Operand, mean: &Operand, var: &Operand, weight: Option<&Operand>, eps: f64,
            gx: Option<&Operand>, gw: Option<&Operand>, gb: Option<&Operand>) -> Result<()>;
        rows::cross_entropy(logits: &Operand, target: &Operand, ignore: i64, loss: &Operand, lse: &Operand) -> Result<()>;
        rows::cross_entropy_grad(g: &Operand, logits: &Operand, target: &Operand, lse: &Operand, ignore: i64, gx: &Operand) -> Result<()>;
        recurrent::lstm(gates: &Operand, h0: &Operand, c0: &Operand, w: &Operand, reverse: bool, out: &Operand, last: &Operand,
            cells: &Operand, active: &Operand) -> Result<()>;
        recurrent::lstm_grad(g: &Operand, g_last: &Operand, active: &Operand, cells: &Operand, c0: &Operand, w: &Operand,
            reverse: bool, g_gates: &Operand, g_h0: &Operand, g_c0: &Operand) -> Result<()>;
        weave::weave(x: &Operand, starts: &Operand, index: &Operand, weight: &Operand, dim: usize, transposed: bool, out: &Operand)
            -> Result<()>;
        optimizer::optimizer(step: &OptimizerStep, lists: &[&[Operand]]) -> Result<()>;
    }
}
