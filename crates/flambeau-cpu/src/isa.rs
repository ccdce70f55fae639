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

/// Copies bytes with stores that pass the caches by, where there are such stores.
///
/// # Safety
/// As `copy_nonoverlapping`.
pub(crate) unsafe fn stream(from: *const u8, to: *mut u8, n: usize) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_mm_loadu_si128, _mm_sfence, _mm_stream_si128};
        // Whole cache lines; the ends in the ordinary way.
        let head = to.align_offset(64).min(n);
        std::ptr::copy_nonoverlapping(from, to, head);
        let lines = (n - head) / 64;
        for line in 0..lines {
            let at = head + line * 64;
            for part in (0..64).step_by(16) {
                let v = _mm_loadu_si128(from.add(at + part) as *const _);
                _mm_stream_si128(to.add(at + part) as *mut _, v);
            }
        }
        let done = head + lines * 64;
        std::ptr::copy_nonoverlapping(from.add(done), to.add(done), n - done);
        // Other threads are told of the data by ordinary stores, which these would otherwise not keep to.
        _mm_sfence();
    }
    #[cfg(not(target_arch = "x86_64"))]
    std::ptr::copy_nonoverlapping(from, to, n);
}

/// Writes a pattern again and again, from its beginning, with stores that pass the caches by, where there are such stores.
///
/// # Safety
/// `n` bytes are writable at `to`, which is aligned to 16.
pub(crate) unsafe fn stream_pattern(pattern: &[u8; 16], to: *mut u8, n: usize) {
    let whole = n / 16;
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_mm_loadu_si128, _mm_sfence, _mm_stream_si128};
        let v = _mm_loadu_si128(pattern.as_ptr() as *const _);
        for i in 0..whole {
            _mm_stream_si128(to.add(i * 16) as *mut _, v);
        }
        // As in `stream`.
        _mm_sfence();
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
