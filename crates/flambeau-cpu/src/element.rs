//! Element types as the kernels of products, windows, rows and indices see them: how each dtype is read into the number
//! it computes in and rounded back, and a few helpers over strided operands.

use crate::isa::Isa;
use crate::math;
use flambeau_core::{Complex32, Complex64, DType, Error, ErrorKind, Operand, SmallVec};
use half::{bf16, f16};
use std::cell::RefCell;

/// What kernels compute in: f32, f64, i64 (wrapping) and the complex numbers.
pub(crate) trait Number: Copy + Default + Send + Sync + PartialEq + 'static {
    const ONE: Self;
    fn add(self, other: Self) -> Self;
    fn mul(self, other: Self) -> Self;
}

/// One stored element of a dtype.
pub(crate) trait Element: Copy + Default + Send + Sync + 'static {
    /// What it computes in.
    type Acc: Number;
    fn load(self) -> Self::Acc;
    /// Rounds to nearest even; integers wrap.
    fn store(x: Self::Acc) -> Self;
}

macro_rules! numbers {
    ($($T:ty, $one:expr, $a:ident $b:ident, $add:expr, $mul:expr;)*) => { $(
        impl Number for $T {
            const ONE: Self = $one;
            #[inline(always)]
            fn add(self, other: Self) -> Self { let ($a, $b) = (self, other); $add }
            #[inline(always)]
            fn mul(self, other: Self) -> Self { let ($a, $b) = (self, other); $mul }
        }
        impl Element for $T {
            type Acc = $T;
            #[inline(always)]
            fn load(self) -> $T { self }
            #[inline(always)]
            fn store(x: $T) -> $T { x }
        }
    )* };
}
numbers! {
    f32, 1.0, a b, a + b, a * b;
    f64, 1.0, a b, a + b, a * b;
    i64, 1, a b, a.wrapping_add(b), a.wrapping_mul(b);
    Complex32, Complex32::new(1.0, 0.0), a b, a + b, a * b;
    Complex64, Complex64::new(1.0, 0.0), a b, a + b, a * b;
}

macro_rules! integers {
    ($($T:ty)*) => { $(
        impl Element for $T {
            type Acc = i64;
            #[inline(always)]
            fn load(self) -> i64 { self as i64 }
            #[inline(always)]
            fn store(x: i64) -> $T { x as $T }
        }
    )* };
}
integers! { u8 i8 i16 i32 u16 u32 u64 }

/// A stored bool: any byte but 0 is true.
#[derive(Clone, Copy, Default)]
pub(crate) struct Bool(pub u8);
impl Element for Bool {
    type Acc = i64;
    #[inline(always)]
    fn load(self) -> i64 {
        (self.0 != 0) as i64
    }
    #[inline(always)]
    fn store(x: i64) -> Bool {
        Bool((x != 0) as u8)
    }
}

impl Element for bf16 {
    type Acc = f32;
    #[inline(always)]
    fn load(self) -> f32 {
        f32::from_bits((self.to_bits() as u32) << 16)
    }
    #[inline(always)]
    fn store(x: f32) -> bf16 {
        let b = x.to_bits();
        let rounded = b.wrapping_add(0x7fff + ((b >> 16) & 1)) >> 16;
        bf16::from_bits(if b & 0x7fff_ffff > 0x7f80_0000 { (b >> 16) | 0x40 } else { rounded } as u16)
    }
}

impl Element for f16 {
    type Acc = f32;
    // Written with selects so that loops over it vectorise at every level.
    #[inline(always)]
    fn load(self) -> f32 {
        let h = self.to_bits() as u32;
        let sign = (h & 0x8000) << 16;
        // The exponent's bias differs by 112; the product also normalises subnormals.
        let scaled = (f32::from_bits((h & 0x7fff) << 13) * f32::from_bits(0x7780_0000)).to_bits();
        let special = if h & 0x7c00 == 0x7c00 { 0x7f80_0000 } else { 0 };
        f32::from_bits(scaled | special | sign)
    }
    #[inline(always)]
    fn store(x: f32) -> f16 {
        let b = x.to_bits();
        let sign = b & 0x8000_0000;
        let a = b ^ sign;
        let special = if a > 0x7f80_0000 { 0x7e00 } else { 0x7c00 };
        // Adding 0.5 aligns a subnormal's last bit with the last bit of the sum, which rounds it.
        let subnormal = (f32::from_bits(a) + 0.5).to_bits().wrapping_sub(0x3f00_0000);
        let normal = a.wrapping_add(0xc800_0fff).wrapping_add((a >> 13) & 1) >> 13;
        let r = if a >= 0x4780_0000 {
            special
        } else if a < 0x3880_0000 {
            subnormal
        } else {
            normal
        };
        f16::from_bits((r | (sign >> 16)) as u16)
    }
}

/// A real number that rows, windows and attention compute in.
pub(crate) trait Float: Number + Element<Acc = Self> + PartialOrd {
    const NEG_INFINITY: Self;
    fn of(x: f64) -> Self;
    fn to_f64(self) -> f64;
    fn sub(self, other: Self) -> Self;
    fn div(self, other: Self) -> Self;
    fn sqrt(self) -> Self;
    fn ln(self) -> Self;
    /// `a b + c`, fused where the level has it.
    fn fma<I: Isa>(a: Self, b: Self, c: Self) -> Self;
    /// The exponential, vectorisable; 0 below the range and infinity above it, NaN stays.
    fn exp<I: Isa>(self) -> Self;
    /// The same for numbers up to 70, in fewer steps.
    #[inline(always)]
    fn exp_below<I: Isa>(self) -> Self {
        self.exp::<I>()
    }
}

/// Rounds to an integer when added and taken away again: `1.5 · 2^52`.
const ROUND_F64: f64 = 6_755_399_441_055_744.0;

impl Float for f32 {
    const NEG_INFINITY: f32 = f32::NEG_INFINITY;
    #[inline(always)]
    fn of(x: f64) -> f32 {
        x as f32
    }
    #[inline(always)]
    fn to_f64(self) -> f64 {
        self as f64
    }
    #[inline(always)]
    fn sub(self, other: f32) -> f32 {
        self - other
    }
    #[inline(always)]
    fn div(self, other: f32) -> f32 {
        self / other
    }
    #[inline(always)]
    fn sqrt(self) -> f32 {
        f32::sqrt(self)
    }
    #[inline(always)]
    fn ln(self) -> f32 {
        f32::ln(self)
    }
    #[inline(always)]
    fn fma<I: Isa>(a: f32, b: f32, c: f32) -> f32 {
        if I::FMA {
            a.mul_add(b, c)
        } else {
            a * b + c
        }
    }
    #[inline(always)]
    fn exp<I: Isa>(self) -> f32 {
        let x = if self > 89.0 { 89.0 } else { self };
        // Nothing is computed where the result is 0, as of a masked score: numbers below the normal ones are slow.
        let zero = x < -104.0;
        let (p, t) = math::exp_parts::<I>(if zero { 0.0 } else { x });
        let y = math::scale(p, t);
        if zero {
            0.0
        } else {
            y
        }
    }
    // With a scaling of which one factor is always 2^-24; the bits of `t` that the shift leaves are those of n.
    #[inline(always)]
    fn exp_below<I: Isa>(self) -> f32 {
        let (p, t) = math::exp_parts::<I>(if self < -104.0 { -104.0 } else { self });
        let scale = f32::from_bits((t.to_bits() << 23).wrapping_add((127 + 24) << 23));
        p * (1.0 / (1 << 24) as f32) * scale
    }
}

impl Float for f64 {
    const NEG_INFINITY: f64 = f64::NEG_INFINITY;
    #[inline(always)]
    fn of(x: f64) -> f64 {
        x
    }
    #[inline(always)]
    fn to_f64(self) -> f64 {
        self
    }
    #[inline(always)]
    fn sub(self, other: f64) -> f64 {
        self - other
    }
    #[inline(always)]
    fn div(self, other: f64) -> f64 {
        self / other
    }
    #[inline(always)]
    fn sqrt(self) -> f64 {
        f64::sqrt(self)
    }
    #[inline(always)]
    fn ln(self) -> f64 {
        f64::ln(self)
    }
    #[inline(always)]
    fn fma<I: Isa>(a: f64, b: f64, c: f64) -> f64 {
        if I::FMA {
            a.mul_add(b, c)
        } else {
            a * b + c
        }
    }
    // Reduction by ln 2 in two parts, then the Taylor series to degree 13: its remainder on |r| ≤ ln 2 / 2 is below 2^-56.
    #[inline(always)]
    fn exp<I: Isa>(self) -> f64 {
        let x = if self > 710.0 { 710.0 } else { self };
        // As for float32.
        let zero = x < -746.0;
        let x = if zero { 0.0 } else { x };
        let t = Self::fma::<I>(x, std::f64::consts::LOG2_E, ROUND_F64);
        let n = t - ROUND_F64;
        let ni = (t.to_bits() as i64).wrapping_sub(ROUND_F64.to_bits() as i64);
        let r = Self::fma::<I>(n, -6.931_471_803_691_238e-1, x);
        let r = Self::fma::<I>(n, -1.908_214_929_270_587_7e-10, r);
        const C: [f64; 12] = [
            1.0 / 6_227_020_800.0,
            1.0 / 479_001_600.0,
            1.0 / 39_916_800.0,
            1.0 / 3_628_800.0,
            1.0 / 362_880.0,
            1.0 / 40_320.0,
            1.0 / 5_040.0,
            1.0 / 720.0,
            1.0 / 120.0,
            1.0 / 24.0,
            1.0 / 6.0,
            0.5,
        ];
        let mut p = C[0];
        let mut i = 1;
        while i < 12 {
            p = Self::fma::<I>(p, r, C[i]);
            i += 1;
        }
        p = Self::fma::<I>(p, r * r, r) + 1.0;
        let half = ni >> 1;
        let scale = |e: i64| f64::from_bits((e.wrapping_add(1023) << 52) as u64);
        let y = p * scale(half) * scale(ni.wrapping_sub(half));
        if zero {
            0.0
        } else {
            y
        }
    }
}

/// Runs `$body` with `$T` the element type of a float dtype; anything else returns `NotImplemented` that names `$name`.
macro_rules! with_float {
    ($dtype:expr, $name:expr, $T:ident => $body:expr) => {
        match $dtype {
            flambeau_core::DType::F32 => {
                type $T = f32;
                $body
            }
            flambeau_core::DType::F64 => {
                type $T = f64;
                $body
            }
            flambeau_core::DType::BF16 => {
                type $T = half::bf16;
                $body
            }
            flambeau_core::DType::F16 => {
                type $T = half::f16;
                $body
            }
            other => return Err($crate::element::not_implemented($name, other)),
        }
    };
}
/// As `with_float`, for every dtype but bool, complex and float8.
macro_rules! with_real {
    ($dtype:expr, $name:expr, $T:ident => $body:expr) => {
        match $dtype {
            flambeau_core::DType::U8 => { type $T = u8; $body }
            flambeau_core::DType::I8 => { type $T = i8; $body }
            flambeau_core::DType::I16 => { type $T = i16; $body }
            flambeau_core::DType::I32 => { type $T = i32; $body }
            flambeau_core::DType::I64 => { type $T = i64; $body }
            flambeau_core::DType::U16 => { type $T = u16; $body }
            flambeau_core::DType::U32 => { type $T = u32; $body }
            flambeau_core::DType::U64 => { type $T = u64; $body }
            other => $crate::element::with_float!(other, $name, $T => $body),
        }
    };
}
/// As `with_float`, for every dtype but float8.
macro_rules! with_element {
    ($dtype:expr, $name:expr, $T:ident => $body:expr) => {
        match $dtype {
            flambeau_core::DType::Bool => { type $T = $crate::element::Bool; $body }
            flambeau_core::DType::C64 => { type $T = flambeau_core::Complex32; $body }
            flambeau_core::DType::C128 => { type $T = flambeau_core::Complex64; $body }
            other => $crate::element::with_real!(other, $name, $T => $body),
        }
    };
}
pub(crate) use {with_element, with_float, with_real};

/// The error of a dtype for which a kernel makes no sense, as PyTorch words it.
#[cold]
pub(crate) fn not_implemented(name: &str, dtype: DType) -> Error {
    Error::new(ErrorKind::NotImplemented, format!("\"{name}\" not implemented for '{}'", dtype.title()))
}

/// An address that tasks share; whoever dereferences it answers for the access.
pub(crate) struct Ptr<T>(pub *mut T);
impl<T> Clone for Ptr<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Ptr<T> {}
// SAFETY: an address; see the type.
unsafe impl<T> Send for Ptr<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Ptr<T> {}
impl<T> Ptr<T> {
    /// The address (a method, so that closures capture the wrapper and not the bare pointer).
    #[inline(always)]
    pub(crate) fn get(self) -> *mut T {
        self.0
    }
    /// `self + i` elements.
    ///
    /// # Safety
    /// As `pointer::offset`.
    #[inline(always)]
    pub(crate) unsafe fn at(self, i: isize) -> *mut T {
        self.0.offset(i)
    }
}

/// The position, in elements, of the `i`-th (row-major) index of `sizes`.
#[inline]
pub(crate) fn unravel(mut i: usize, sizes: &[i64], strides: &[i64]) -> isize {
    let mut offset = 0i64;
    for d in (0..sizes.len()).rev() {
        let n = sizes[d] as usize;
        if n > 1 {
            offset += (i % n) as i64 * strides[d];
            i /= n;
        }
    }
    offset as isize
}

/// Sizes and strides without dimension `dim`.
pub(crate) fn without(values: &[i64], dim: usize) -> SmallVec<[i64; 5]> {
    values.iter().enumerate().filter(|(d, _)| *d != dim).map(|(_, v)| *v).collect()
}

/// Size and stride of dimension `dim`; (1, 1) for a 0-dim operand.
pub(crate) fn extent_of(x: &Operand, dim: usize) -> (usize, isize) {
    if x.sizes.is_empty() {
        (1, 1)
    } else {
        (x.sizes[dim] as usize, x.strides[dim] as isize)
    }
}

/// Zeroed-or-stale memory from a stack that the thread keeps: no allocation once warm, and safe to nest.
pub(crate) struct Scratch<T: Copy> {
    buffer: Vec<u64>,
    len: usize,
    _type: std::marker::PhantomData<T>,
}
thread_local! { static STACK: RefCell<Vec<Vec<u64>>> = const { RefCell::new(Vec::new()) }; }
/// Buffers beyond this are given back to the system rather than kept.
const KEEP_BYTES: usize = 64 << 20;

impl<T: Copy> Scratch<T> {
    /// Room for `len` values whose contents are unspecified (but initialised).
    pub(crate) fn new(len: usize) -> Self {
        if len == 0 {
            return Scratch { buffer: Vec::new(), len, _type: std::marker::PhantomData };
        }
        let words = (len * std::mem::size_of::<T>()).div_ceil(8) + 8;
        let mut buffer = STACK.with_borrow_mut(|s| s.pop()).unwrap_or_default();
        if buffer.len() < words {
            // The old one is freed first.
            drop(buffer);
            buffer = vec![0u64; words.next_power_of_two()];
            crate::alloc::advise_huge(buffer.as_mut_ptr() as *mut u8, buffer.len() * 8);
        }
        Scratch { buffer, len, _type: std::marker::PhantomData }
    }
    /// The first value, aligned to 64 bytes.
    #[inline]
    pub(crate) fn ptr(&mut self) -> *mut T {
        if self.buffer.is_empty() {
            return std::ptr::NonNull::dangling().as_ptr();
        }
        let p = self.buffer.as_mut_ptr() as *mut u8;
        // SAFETY: the buffer has 64 bytes more than the values need.
        unsafe { p.add(p.align_offset(64)) as *mut T }
    }
    /// All values.
    #[inline]
    pub(crate) fn slice(&mut self) -> &mut [T] {
        let (p, n) = (self.ptr(), self.len);
        // SAFETY: `ptr` leads to `len` initialised values (plain numbers, any bit pattern) that this guard owns.
        unsafe { std::slice::from_raw_parts_mut(p, n) }
    }
}
impl<T: Copy> Drop for Scratch<T> {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.buffer);
        if !buffer.is_empty() && buffer.len() * 8 <= KEEP_BYTES {
            // The thread may be ending: then the buffer is simply freed.
            let _ = STACK.try_with(|s| s.borrow_mut().push(buffer));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::{dispatch, Kernel};

    #[test]
    fn halves_convert_as_the_half_crate_does() {
        for b in 0..=u16::MAX {
            let h = f16::from_bits(b);
            assert!(h.load().to_bits() == h.to_f32().to_bits() || h.is_nan() && h.load().is_nan(), "{b:x}");
        }
        for i in 0..2_000_000u32 {
            let x = f32::from_bits(i.wrapping_mul(2_147_483));
            let (a, b) = (<f16 as Element>::store(x), f16::from_f32(x));
            assert!(a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan(), "{x} {a} {b}");
            let (a, b) = (<bf16 as Element>::store(x), bf16::from_f32(x));
            assert!(a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan(), "{x} {a} {b}");
        }
    }

    #[test]
    fn exponentials() {
        struct All;
        impl Kernel for All {
            type Out = (f64, f64);
            fn run<I: Isa>(self) -> (f64, f64) {
                let (mut e32, mut e64) = (0f64, 0f64);
                for i in 0..200_000 {
                    let x = -87.0 + i as f64 * 175.0 / 200_000.0;
                    let want = (x as f32 as f64).exp();
                    e32 = e32.max((Float::exp::<I>(x as f32) as f64 - want).abs() / want);
                    let x = x * 8.0;
                    e64 = e64.max((Float::exp::<I>(x) - x.exp()).abs() / x.exp());
                }
                assert!(Float::exp::<I>(f32::NAN).is_nan() && Float::exp::<I>(f64::NAN).is_nan());
                assert_eq!(Float::exp::<I>(f32::NEG_INFINITY), 0.0);
                assert_eq!(Float::exp::<I>(f64::NEG_INFINITY), 0.0);
                assert_eq!(Float::exp::<I>(f32::INFINITY), f32::INFINITY);
                assert_eq!(Float::exp::<I>(f64::INFINITY), f64::INFINITY);
                assert_eq!(Float::exp::<I>(0f32), 1.0);
                for i in 0..=400_000 {
                    let x = 70.0 - i as f32 / 2000.0;
                    assert_eq!(Float::exp_below::<I>(x), Float::exp::<I>(x), "{x}");
                }
                assert!(Float::exp_below::<I>(f32::NAN).is_nan() && Float::exp_below::<I>(f32::NEG_INFINITY) == 0.0);
                (e32, e64)
            }
        }
        let (e32, e64) = dispatch(All);
        assert!(e32 < 1.5e-7 && e64 < 4e-16, "{e32} {e64}");
    }
}
