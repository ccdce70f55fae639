//! Loading any dtype into the class that computes it, and storing it back: per dtype one loop into its own class, per
//! pair of classes one loop between them.

use crate::isa::{dispatch, Isa, Kernel};
use flambeau_core::{Class, Complex32, Complex64, DType, Number};

/// Rounds to an 8-bit float with `EBITS` exponent and `M` mantissa bits (the OCP 8-bit formats). E4M3 has no infinity and
/// saturates, as PyTorch's conversion does; E5M2 overflows to infinity.
fn to_float8<const EBITS: u32, const M: u32>(x: f32) -> u8 {
    let ieee = EBITS == 5;
    let sign = ((x.to_bits() >> 24) & 0x80) as u8;
    if x.is_nan() {
        return sign | 0x7f;
    }
    let bias = (1i32 << (EBITS - 1)) - 1;
    let (largest, overflow): (i64, u8) = if ieee { (0x7b, 0x7c) } else { (0x7e, 0x7e) };
    let a = x.abs();
    if a == 0.0 || a == f32::INFINITY {
        return sign | if a == 0.0 { 0 } else { overflow };
    }
    // The exponent, not below the smallest normal one: denormals share its step.
    let e = ((a.to_bits() >> 23) as i32 - 127).max(1 - bias);
    let m = (a as f64 * 2f64.powi(M as i32 - e)).round_ties_even() as i64;
    // A mantissa that rounds up to the next power of two carries into the exponent by itself.
    let code = (((e + bias - 1) as i64) << M) + m;
    sign | if code > largest { overflow } else { code as u8 }
}
fn from_float8<const EBITS: u32, const M: u32>(x: u8) -> f32 {
    let ieee = EBITS == 5;
    let bias = (1i32 << (EBITS - 1)) - 1;
    let sign = if x & 0x80 != 0 { -1.0f32 } else { 1.0 };
    let e = (x >> M) as i32 & ((1 << EBITS) - 1);
    let m = (x & ((1 << M) - 1)) as f32 / (1 << M) as f32;
    if ieee && e == (1 << EBITS) - 1 {
        return if m == 0.0 { sign * f32::INFINITY } else { f32::NAN };
    }
    if !ieee && x & 0x7f == 0x7f {
        return f32::NAN;
    }
    if e == 0 {
        sign * m * 2f32.powi(1 - bias)
    } else {
        sign * (1.0 + m) * 2f32.powi(e - bias)
    }
}

/// binary16 to f32 by shifting and one multiplication, which vectorises and handles denormals.
#[inline(always)]
fn half_to_single(h: u16) -> f32 {
    let shifted = (h as u32 & 0x7fff) << 13;
    let scaled = f32::from_bits(shifted) * f32::from_bits(0x7780_0000); // 2^112
    let special = if h & 0x7c00 == 0x7c00 { 0x7f80_0000 | shifted } else { scaled.to_bits() };
    f32::from_bits(special | (h as u32 & 0x8000) << 16)
}

/// f32 to binary16, to nearest even, without branches. Below the smallest normal, adding 0.5 (whose last place is the
/// denormals' step) rounds.
#[inline(always)]
fn half_from_single(x: f32) -> u16 {
    let b = x.to_bits();
    let a = b & 0x7fff_ffff;
    let normal = (a.wrapping_add(0xfff + ((a >> 13) & 1)).wrapping_sub(112 << 23)) >> 13;
    let denormal = (f32::from_bits(a) + 0.5).to_bits().wrapping_sub(0x3f00_0000);
    let finite = if a < 0x3880_0000 { denormal } else { normal };
    let special = if a > 0x7f80_0000 { 0x7e00 | ((a >> 13) & 0x3ff) } else { 0x7c00 };
    (if a >= 0x4780_0000 { special } else { finite }) as u16 | ((b >> 16) & 0x8000) as u16
}

/// C's conversion as x86 does it: what does not fit gives the smallest integer.
#[inline(always)]
fn to_i64(x: f64) -> i64 {
    let fits = (-9.223_372_036_854_775_8e18..9.223_372_036_854_775_8e18).contains(&x);
    // SAFETY: the number is in range. Both choices are between numbers, which vectors make.
    let whole = unsafe { (if fits { x } else { 0.0 }).to_int_unchecked::<i64>() };
    if fits {
        whole
    } else {
        i64::MIN
    }
}
/// As [`to_i64`], for the types up to 32 bits: they go through a 32-bit integer.
#[inline(always)]
fn to_i32(x: f64) -> i32 {
    if x > -2_147_483_649.0 && x < 2_147_483_648.0 {
        x as i32
    } else {
        i32::MIN
    }
}
/// Unsigned 64-bit: negative numbers wrap.
#[inline(always)]
fn to_u64(x: f64) -> u64 {
    if x < 9.223_372_036_854_775_8e18 {
        to_i64(x) as u64
    } else {
        x as u64
    }
}

#[inline(always)]
fn bf16_from_single(x: f32) -> u16 {
    let b = x.to_bits();
    // NaN is not rounded, which could make it infinite, but made quiet. In 32 bits to the end: of a choice between two results in
    // 16 the compiler makes twice the work.
    let nan = u32::from(x.is_nan()).wrapping_neg();
    let round = (0x7fff + ((b >> 16) & 1)) & !nan;
    ((b.wrapping_add(round) | (nan & 0x40_0000)) >> 16) as u16
}

/// # Safety
/// `src` has `n` elements `stride` apart, `dst` has `n`.
#[inline(always)]
unsafe fn each<S: Copy, D>(src: *const u8, stride: isize, n: usize, dst: *mut u8, f: impl Fn(S) -> D) {
    let (src, dst) = (src as *const S, dst as *mut D);
    if stride == 1 {
        for i in 0..n {
            dst.add(i).write(f(src.add(i).read()));
        }
    } else {
        for i in 0..n {
            dst.add(i).write(f(src.offset(i as isize * stride).read()));
        }
    }
}
/// # Safety
/// `src` has `n` elements, `dst` has `n` places `stride` apart.
#[inline(always)]
unsafe fn scatter<S: Copy, D>(src: *const u8, n: usize, dst: *mut u8, stride: isize, f: impl Fn(S) -> D) {
    let (src, dst) = (src as *const S, dst as *mut D);
    if stride == 1 {
        for i in 0..n {
            dst.add(i).write(f(src.add(i).read()));
        }
    } else {
        for i in 0..n {
            dst.offset(i as isize * stride).write(f(src.add(i).read()));
        }
    }
}

/// Loads `n` elements of `dtype`, `stride` apart, into `dst` in the dtype's own class.
///
/// # Safety
/// `src` has `n` elements `stride` apart, `dst` room for `n` of the class.
#[inline(always)]
unsafe fn load_own(dtype: DType, src: *const u8, stride: isize, n: usize, dst: *mut u8) {
    match dtype {
        DType::Bool => each(src, stride, n, dst, |x: u8| (x != 0) as i64),
        DType::U8 => each(src, stride, n, dst, |x: u8| x as i64),
        DType::I8 => each(src, stride, n, dst, |x: i8| x as i64),
        DType::I16 => each(src, stride, n, dst, |x: i16| x as i64),
        DType::I32 => each(src, stride, n, dst, |x: i32| x as i64),
        DType::I64 | DType::U64 => each(src, stride, n, dst, |x: i64| x),
        DType::U16 => each(src, stride, n, dst, |x: u16| x as i64),
        DType::U32 => each(src, stride, n, dst, |x: u32| x as i64),
        DType::F16 => each(src, stride, n, dst, half_to_single),
        DType::BF16 => each(src, stride, n, dst, |x: u16| f32::from_bits((x as u32) << 16)),
        DType::F32 => each(src, stride, n, dst, |x: u32| x),
        DType::F64 => each(src, stride, n, dst, |x: u64| x),
        DType::C64 => each(src, stride, n, dst, |x: Complex32| x),
        DType::C128 => each(src, stride, n, dst, |x: Complex64| x),
        DType::F8E4M3 => each(src, stride, n, dst, from_float8::<4, 3>),
        DType::F8E5M2 => each(src, stride, n, dst, from_float8::<5, 2>),
        DType::C32 => {
            each(src, stride, n, dst, |x: [u16; 2]| Complex32::new(half_to_single(x[0]), half_to_single(x[1])))
        }
    }
}

/// Converts `n` numbers from one class to another.
///
/// # Safety
/// `src` and `dst` hold `n` numbers of their classes and do not overlap.
#[inline(always)]
unsafe fn between(from: Class, to: Class, n: usize, src: *const u8, dst: *mut u8) {
    use Class::*;
    match (from, to) {
        (F32, F64) => each(src, 1, n, dst, |x: f32| x as f64),
        (F32, I64) => each(src, 1, n, dst, |x: f32| to_i64(x as f64)),
        (F32, C32) => each(src, 1, n, dst, |x: f32| Complex32::new(x, 0.0)),
        (F32, C64) => each(src, 1, n, dst, |x: f32| Complex64::new(x as f64, 0.0)),
        (F64, F32) => each(src, 1, n, dst, |x: f64| x as f32),
        (F64, I64) => each(src, 1, n, dst, to_i64),
        (F64, C32) => each(src, 1, n, dst, |x: f64| Complex32::new(x as f32, 0.0)),
        (F64, C64) => each(src, 1, n, dst, |x: f64| Complex64::new(x, 0.0)),
        (I64, F32) => each(src, 1, n, dst, |x: i64| x as f32),
        (I64, F64) => each(src, 1, n, dst, |x: i64| x as f64),
        (I64, C32) => each(src, 1, n, dst, |x: i64| Complex32::new(x as f32, 0.0)),
        (I64, C64) => each(src, 1, n, dst, |x: i64| Complex64::new(x as f64, 0.0)),
        (C32, F32) => each(src, 1, n, dst, |x: Complex32| x.re),
        (C32, F64) => each(src, 1, n, dst, |x: Complex32| x.re as f64),
        (C32, I64) => each(src, 1, n, dst, |x: Complex32| to_i64(x.re as f64)),
        (C32, C64) => each(src, 1, n, dst, |x: Complex32| Complex64::new(x.re as f64, x.im as f64)),
        (C64, F32) => each(src, 1, n, dst, |x: Complex64| x.re as f32),
        (C64, F64) => each(src, 1, n, dst, |x: Complex64| x.re),
        (C64, I64) => each(src, 1, n, dst, |x: Complex64| to_i64(x.re)),
        (C64, C32) => each(src, 1, n, dst, |x: Complex64| Complex32::new(x.re as f32, x.im as f32)),
        (F32, F32) | (F64, F64) | (I64, I64) | (C32, C32) | (C64, C64) => {
            std::ptr::copy_nonoverlapping(src, dst, n * from.size());
        }
    }
}

/// Numbers that one call converts at most, so that a second step fits in a buffer on the stack.
pub const CHUNK: usize = 256;

/// Room for a chunk of any class.
type Buffer = [u128; CHUNK];

/// Loads elements of any dtype as numbers of `class`.
///
/// # Safety
/// `src` has `n` elements `stride` apart, `dst` room for `n` of the class; they do not overlap.
pub unsafe fn load(dtype: DType, class: Class, src: *const u8, stride: isize, n: usize, dst: *mut u8) {
    if stride == 1 && dtype == class.dtype() {
        return std::ptr::copy_nonoverlapping(src, dst, n * dtype.size());
    }
    dispatch(Load { dtype, class, src, stride, n, dst })
}

struct Load {
    dtype: DType,
    class: Class,
    src: *const u8,
    stride: isize,
    n: usize,
    dst: *mut u8,
}
impl Kernel for Load {
    type Out = ();
    #[inline(always)]
    fn run<I: Isa>(self) {
        let Load { dtype, class, src, stride, n, dst } = self;
        let own = dtype.class();
        // SAFETY: `load`'s contract; the buffer holds `CHUNK` numbers of any class.
        unsafe {
            if own == class {
                return load_own(dtype, src, stride, n, dst);
            }
            // Conditions, straight to the numbers they are beside.
            match (dtype, class) {
                (DType::Bool, Class::F32) => return each(src, stride, n, dst, |x: u8| (x != 0) as u8 as f32),
                (DType::Bool, Class::F64) => return each(src, stride, n, dst, |x: u8| (x != 0) as u8 as f64),
                _ => {}
            }
            if dtype == DType::U64 && matches!(class, Class::F32 | Class::F64) {
                return match class {
                    Class::F32 => each(src, stride, n, dst, |x: u64| x as f32),
                    _ => each(src, stride, n, dst, |x: u64| x as f64),
                };
            }
            let mut buffer = std::mem::MaybeUninit::<Buffer>::uninit();
            let buffer = buffer.as_mut_ptr() as *mut u8;
            let mut done = 0;
            while done < n {
                let k = (n - done).min(CHUNK);
                load_own(dtype, src.offset(done as isize * stride * dtype.size() as isize), stride, k, buffer);
                between(own, class, k, buffer, dst.add(done * class.size()));
                done += k;
            }
        }
    }
}

/// # Safety
/// `src` has `n` numbers of the dtype's own class, `dst` room for `n` elements `stride` apart.
#[inline(always)]
unsafe fn store_own(dtype: DType, src: *const u8, n: usize, dst: *mut u8, stride: isize) {
    match dtype {
        DType::Bool => scatter(src, n, dst, stride, |x: i64| (x != 0) as u8),
        DType::U8 => scatter(src, n, dst, stride, |x: i64| x as u8),
        DType::I8 => scatter(src, n, dst, stride, |x: i64| x as i8),
        DType::I16 => scatter(src, n, dst, stride, |x: i64| x as i16),
        DType::I32 => scatter(src, n, dst, stride, |x: i64| x as i32),
        DType::I64 | DType::U64 => scatter(src, n, dst, stride, |x: i64| x),
        DType::U16 => scatter(src, n, dst, stride, |x: i64| x as u16),
        DType::U32 => scatter(src, n, dst, stride, |x: i64| x as u32),
        DType::F16 => scatter(src, n, dst, stride, half_from_single),
        DType::BF16 => scatter(src, n, dst, stride, bf16_from_single),
        DType::F32 => scatter(src, n, dst, stride, |x: u32| x),
        DType::F64 => scatter(src, n, dst, stride, |x: u64| x),
        DType::C64 => scatter(src, n, dst, stride, |x: Complex32| x),
        DType::C128 => scatter(src, n, dst, stride, |x: Complex64| x),
        DType::F8E4M3 => scatter(src, n, dst, stride, to_float8::<4, 3>),
        DType::F8E5M2 => scatter(src, n, dst, stride, to_float8::<5, 2>),
        DType::C32 => scatter(src, n, dst, stride, |x: Complex32| [half_from_single(x.re), half_from_single(x.im)]),
    }
}

/// Stores numbers of `class` as elements of any dtype.
///
/// # Safety
/// `src` has `n` numbers, `dst` room for `n` elements `stride` apart; they do not overlap.
pub unsafe fn store(dtype: DType, class: Class, src: *const u8, n: usize, dst: *mut u8, stride: isize) {
    if dtype == class.dtype() && (stride == 1 || n == 1) {
        return std::ptr::copy_nonoverlapping(src, dst, n * dtype.size());
    }
    dispatch(Store { dtype, class, src, n, dst, stride })
}

struct Store {
    dtype: DType,
    class: Class,
    src: *const u8,
    n: usize,
    dst: *mut u8,
    stride: isize,
}
impl Kernel for Store {
    type Out = ();
    #[inline(always)]
    fn run<I: Isa>(self) {
        let Store { dtype, class, src, n, dst, stride } = self;
        let own = dtype.class();
        macro_rules! from_float {
            ($T:ty) => {
                match dtype {
                    DType::U8 => return scatter(src, n, dst, stride, |x: $T| to_i32(x as f64) as u8),
                    DType::I8 => return scatter(src, n, dst, stride, |x: $T| to_i32(x as f64) as i8),
                    DType::I16 => return scatter(src, n, dst, stride, |x: $T| to_i32(x as f64) as i16),
                    DType::U16 => return scatter(src, n, dst, stride, |x: $T| to_i32(x as f64) as u16),
                    DType::I32 => return scatter(src, n, dst, stride, |x: $T| to_i32(x as f64)),
                    DType::U64 => return scatter(src, n, dst, stride, |x: $T| to_u64(x as f64)),
                    DType::Bool => return scatter(src, n, dst, stride, |x: $T| (x != 0.0) as u8),
                    _ => {}
                }
            };
        }
        // SAFETY: `store`'s contract; the buffer holds `CHUNK` numbers of any class.
        unsafe {
            if own == class {
                return store_own(dtype, src, n, dst, stride);
            }
            match class {
                Class::F32 => from_float!(f32),
                Class::F64 => from_float!(f64),
                // Anything but zero is true; converting to an integer first would lose 0.5.
                Class::C32 if dtype == DType::Bool => {
                    return scatter(src, n, dst, stride, |x: Complex32| (x.re != 0.0 || x.im != 0.0) as u8)
                }
                Class::C64 if dtype == DType::Bool => {
                    return scatter(src, n, dst, stride, |x: Complex64| (x.re != 0.0 || x.im != 0.0) as u8)
                }
                _ => {}
            }
            let mut buffer = std::mem::MaybeUninit::<Buffer>::uninit();
            let buffer = buffer.as_mut_ptr() as *mut u8;
            let mut done = 0;
            while done < n {
                let k = (n - done).min(CHUNK);
                between(class, own, k, src.add(done * class.size()), buffer);
                store_own(dtype, buffer, k, dst.offset(done as isize * stride * dtype.size() as isize), stride);
                done += k;
            }
        }
    }
}

/// Rounds numbers of `from` to `dtype` and brings them into class `to`: what storing and loading would do.
///
/// # Safety
/// `src` has `n` numbers of `from`, `dst` room for `n` of `to`; they do not overlap.
pub unsafe fn round_trip(dtype: DType, from: Class, to: Class, n: usize, src: *const u8, dst: *mut u8) {
    if dtype == from.dtype() {
        return load(dtype, to, src, 1, n, dst);
    }
    if dtype == to.dtype() {
        return store(dtype, from, src, n, dst, 1);
    }
    let mut buffer = std::mem::MaybeUninit::<Buffer>::uninit();
    let buffer = buffer.as_mut_ptr() as *mut u8;
    let mut done = 0;
    while done < n {
        let k = (n - done).min(CHUNK);
        store(dtype, from, src.add(done * from.size()), k, buffer, 1);
        load(dtype, to, buffer, 1, k, dst.add(done * to.size()));
        done += k;
    }
}

/// Writes `n` copies of a number in a class.
///
/// # Safety
/// `dst` has room for `n` numbers of the class.
pub unsafe fn fill(class: Class, value: Number, n: usize, dst: *mut u8) {
    match class {
        Class::F32 => std::slice::from_raw_parts_mut(dst as *mut f32, n).fill(value.to_f64() as f32),
        Class::F64 => std::slice::from_raw_parts_mut(dst as *mut f64, n).fill(value.to_f64()),
        Class::I64 => std::slice::from_raw_parts_mut(dst as *mut i64, n).fill(value.to_i64()),
        Class::C32 => {
            let c = value.to_complex();
            std::slice::from_raw_parts_mut(dst as *mut Complex32, n).fill(Complex32::new(c.re as f32, c.im as f32));
        }
        Class::C64 => std::slice::from_raw_parts_mut(dst as *mut Complex64, n).fill(value.to_complex()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flambeau_core::{bf16, f16};

    #[test]
    fn halves_match_the_library() {
        for h in 0..=u16::MAX {
            let (a, b) = (half_to_single(h), f16::from_bits(h).to_f32());
            assert!(a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan()), "{h:#x}: {a} {b}");
        }
        for x in [0.1f32, -3.0e38, f32::NAN, f32::INFINITY, 1.00390625] {
            let (a, b) = (bf16::from_bits(bf16_from_single(x)), bf16::from_f32(x));
            assert!(a == b || (a.is_nan() && b.is_nan()));
        }
        for i in 0..1u32 << 20 {
            let x = f32::from_bits(i << 12 | (i & 0xfff));
            let (a, b) = (half_from_single(x), f16::from_f32(x).to_bits());
            assert!(a == b || (x.is_nan() && f16::from_bits(a).is_nan()), "{x}: {a:#x} {b:#x}");
        }
    }
    #[test]
    fn numbers_that_do_not_fit() {
        let x = [f32::NAN, f32::INFINITY, 1e20, 3e9, 300.0, -1.0, -300.5];
        let mut out = [0i32; 7];
        // SAFETY: both arrays hold seven elements.
        unsafe { store(DType::I32, Class::F32, x.as_ptr() as *const u8, 7, out.as_mut_ptr() as *mut u8, 1) };
        assert_eq!(out, [i32::MIN, i32::MIN, i32::MIN, i32::MIN, 300, -1, -300]);
        let mut out = [0u8; 7];
        // SAFETY: as above.
        unsafe { store(DType::U8, Class::F32, x.as_ptr() as *const u8, 7, out.as_mut_ptr(), 1) };
        assert_eq!(out, [0, 0, 0, 0, 44, 255, 212]);
        let mut out = [0i64; 7];
        // SAFETY: as above.
        unsafe { store(DType::I64, Class::F32, x.as_ptr() as *const u8, 7, out.as_mut_ptr() as *mut u8, 1) };
        assert_eq!(out, [i64::MIN, i64::MIN, i64::MIN, 3_000_000_000, 300, -1, -300]);
    }
    #[test]
    fn float8_round_trips() {
        for x in 0..=u8::MAX {
            let y = from_float8::<4, 3>(x);
            assert!(y.is_nan() || to_float8::<4, 3>(y) == x, "{x:#x} {y}");
            let y = from_float8::<5, 2>(x);
            assert!(y.is_nan() || to_float8::<5, 2>(y) == x, "{x:#x} {y}");
        }
        for (x, y) in [(1e5, 448.0), (464.0, 448.0), (f32::INFINITY, 448.0), (-1e9, -448.0), (0.3, 0.3125), (1e-9, 0.0)]
        {
            assert_eq!(from_float8::<4, 3>(to_float8::<4, 3>(x)), y);
        }
        for (x, y) in [(61439.0, 57344.0), (61440.0, f32::INFINITY), (0.3, 0.3125)] {
            assert_eq!(from_float8::<5, 2>(to_float8::<5, 2>(x)), y);
        }
    }
}
