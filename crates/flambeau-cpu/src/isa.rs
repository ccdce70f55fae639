//! Which vector instructions the machine has, and the way into code compiled for them.
//!
//! A kernel is a generic body, inlined into one function a level that carries `#[target_feature]`. Three levels exist on
//! x86-64: baseline, AVX2 with FMA, and AVX-512; elsewhere the baseline alone (NEON is part of it on aarch64).

use crate::vector::Vector;
use std::sync::atomic::{AtomicU8, Ordering};

/// A level of vector instructions.
pub trait Isa: Copy + Send + Sync + 'static {
    /// Whether `mul_add` is one instruction.
    const FMA: bool;
    /// Vector width in bytes.
    const WIDTH: usize;
    /// A register of float32, for what plain loops do not express.
    type F32: Vector;
}
#[derive(Clone, Copy)]
pub struct Baseline;
#[derive(Clone, Copy)]
pub struct Avx2;
#[derive(Clone, Copy)]
pub struct Avx512;
impl Isa for Baseline {
    const FMA: bool = cfg!(target_arch = "aarch64");
    const WIDTH: usize = 16;
    type F32 = crate::vector::Plain;
}
impl Isa for Avx2 {
    const FMA: bool = true;
    const WIDTH: usize = 32;
    #[cfg(target_arch = "x86_64")]
    type F32 = crate::vector::x86::V256;
    #[cfg(not(target_arch = "x86_64"))]
    type F32 = crate::vector::Plain;
}
impl Isa for Avx512 {
    const FMA: bool = true;
    const WIDTH: usize = 64;
    #[cfg(target_arch = "x86_64")]
    type F32 = crate::vector::x86::V512;
    #[cfg(not(target_arch = "x86_64"))]
    type F32 = crate::vector::Plain;
}

/// Asks for the cache line at an address, which need not be valid.
#[inline(always)]
pub(crate) fn prefetch(p: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint; the instruction cannot fault.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(p as *const i8)
    };
    #[cfg(not(target_arch = "x86_64"))]
    let _ = p;
}

/// Bytes of a cache line.
pub(crate) const LINE: usize = 64;
/// How far ahead of a stream over memory that no cache holds its lines are asked for. The processor's own prefetching ends at pages,
/// and does not look further ahead when what is computed of a line takes long.
pub(crate) const STREAM_AHEAD: usize = 4 << 10;
/// Bytes of a stream that are computed before they are stored: few, so that the memory is busy all the time.
pub(crate) const STREAMED: usize = 1 << 10;

/// Copies bytes with stores that pass the caches by, where there are such stores: they neither read the line first nor wait. Other
/// threads see them after [`stream_end`]. As many bytes at each of `next` are asked for meanwhile, which spreads what the memory
/// has to do; they need not be valid.
///
/// # Safety
/// As `copy_nonoverlapping`.
#[inline(always)]
pub(crate) unsafe fn stream(from: *const u8, to: *mut u8, n: usize, next: &[*const u8]) {
    dispatch(Stream(from, to, n, next))
}
struct Stream<'a>(*const u8, *mut u8, usize, &'a [*const u8]);
impl Kernel for Stream<'_> {
    type Out = ();
    #[inline(always)]
    fn run<I: Isa>(self) {
        let Stream(from, to, n, next) = self;
        // Whole cache lines; the ends in the ordinary way.
        let head = to.align_offset(LINE).min(n);
        let done = head + (n - head) / LINE * LINE;
        // SAFETY: `n` bytes at both, by `stream`'s contract; vectors move bits as they are, to multiples of their size.
        unsafe {
            std::ptr::copy_nonoverlapping(from, to, head);
            for line in (head..done).step_by(LINE) {
                next.iter().for_each(|next| prefetch(next.wrapping_add(line)));
                for part in (line..line + LINE).step_by(I::WIDTH) {
                    I::F32::load(from.add(part) as *const f32).stream(to.add(part) as *mut f32);
                }
            }
            std::ptr::copy_nonoverlapping(from.add(done), to.add(done), n - done);
        }
    }
}
/// Ends a thread's [`stream`]s: ordinary stores, by which other threads are told of the data, would otherwise not wait for them.
#[inline(always)]
pub(crate) fn stream_end() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 processor has the instruction.
    unsafe {
        std::arch::x86_64::_mm_sfence()
    };
}

/// Writes a pattern again and again, from its beginning, with stores that pass the caches by, where there are such stores.
///
/// # Safety
/// `n` bytes are writable at `to`, which is aligned to 16.
pub(crate) unsafe fn stream_pattern(pattern: &[u8; 16], to: *mut u8, n: usize) {
    let whole = n / 16;
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_mm_loadu_si128, _mm_stream_si128};
        let v = _mm_loadu_si128(pattern.as_ptr() as *const _);
        for i in 0..whole {
            _mm_stream_si128(to.add(i * 16) as *mut _, v);
        }
        stream_end();
    }
    #[cfg(not(target_arch = "x86_64"))]
    std::slice::from_raw_parts_mut(to as *mut [u8; 16], whole).fill(*pattern);
    std::ptr::copy_nonoverlapping(pattern.as_ptr(), to.add(whole * 16), n % 16);
}

/// Code to run at the machine's level. `run` should be `#[inline(always)]`.
pub trait Kernel {
    type Out;
    fn run<I: Isa>(self) -> Self::Out;
}

/// 0 unknown, 1 baseline, 2 AVX2, 3 AVX-512.
static LEVEL: AtomicU8 = AtomicU8::new(0);

#[cold]
fn detect() -> u8 {
    let cap: u8 = match std::env::var("FLAMBEAU_CPU_LEVEL").as_deref() {
        Ok("baseline") => 1,
        Ok("avx2") => 2,
        _ => 3,
    };
    #[cfg(target_arch = "x86_64")]
    let found = if is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512cd")
        && is_x86_feature_detected!("f16c")
    {
        3
    } else if is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("f16c")
        && is_x86_feature_detected!("bmi2")
        && is_x86_feature_detected!("lzcnt")
        && is_x86_feature_detected!("popcnt")
    {
        2
    } else {
        1
    };
    #[cfg(not(target_arch = "x86_64"))]
    let found = 1;
    let level = found.min(cap);
    LEVEL.store(level, Ordering::Relaxed);
    level
}

/// Whether the processor is one of Intel's.
#[cfg(target_arch = "x86_64")]
pub(crate) fn intel() -> bool {
    let id = std::arch::x86_64::__cpuid(0);
    [id.ebx, id.edx, id.ecx].map(u32::to_le_bytes).concat() == b"GenuineIntel"
}

/// The level number: 1 baseline, 2 AVX2, 3 AVX-512. `FLAMBEAU_CPU_LEVEL` (`baseline`, `avx2`) lowers it.
#[inline(always)]
pub fn level() -> u8 {
    match LEVEL.load(Ordering::Relaxed) {
        0 => detect(),
        l => l,
    }
}
/// The level's name.
pub fn level_name() -> &'static str {
    match level() {
        3 => "avx512",
        2 => "avx2",
        _ => "baseline",
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c,bmi1,bmi2,lzcnt,popcnt")]
fn run_avx2<K: Kernel>(k: K) -> K::Out {
    k.run::<Avx2>()
}
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx2,fma,f16c,bmi1,bmi2,lzcnt,popcnt")]
fn run_avx512<K: Kernel>(k: K) -> K::Out {
    k.run::<Avx512>()
}

/// Runs a kernel at the machine's level.
#[inline(always)]
pub fn dispatch<K: Kernel>(k: K) -> K::Out {
    #[cfg(target_arch = "x86_64")]
    match level() {
        // SAFETY: `level` found these features on this machine.
        3 => return unsafe { run_avx512(k) },
        // SAFETY: as above.
        2 => return unsafe { run_avx2(k) },
        _ => {}
    }
    k.run::<Baseline>()
}
