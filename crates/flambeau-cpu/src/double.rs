//! Exponentials and logarithms of float64 without branches, so that the loops around them are vectorised; within 1 ulp, the
//! hyperbolic functions within 2.

use crate::isa::Isa;
use std::f64::consts::{LN_2, LOG2_E};

/// 1.5 · 2⁵²: adding it to a small number rounds to an integer in the low bits.
const MAGIC: f64 = 6_755_399_441_055_744.0;
/// ln 2 in two parts, of which the first has room for a factor of 20 bits (fdlibm).
const LN2_HIGH: f64 = 6.931_471_803_691_238_164_90e-1;
const LN2_LOW: f64 = 1.908_214_929_270_587_700_02e-10;

#[inline(always)]
fn fma<I: Isa>(a: f64, b: f64, c: f64) -> f64 {
    if I::FMA {
        a.mul_add(b, c)
    } else {
        a * b + c
    }
}

/// `(e^(r + low) - 1 - r - low) / r²` to first order in `low`: Taylor's series, whose remainder on |r| ≤ ln 2 / 2 is below 2⁻⁵⁶.
#[inline(always)]
fn tail<I: Isa>(r: f64) -> f64 {
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
    for c in &C[1..] {
        p = fma::<I>(p, r, *c);
    }
    p
}
/// `2^n` for the integer in the low bits of `MAGIC + n`, |n| < 1023.
#[inline(always)]
fn power(n: u64) -> f64 {
    f64::from_bits((n << 52).wrapping_add(1023 << 52))
}
/// `y 2^n` in two steps, so that subnormal results come out.
#[inline(always)]
fn scale(y: f64, t: f64) -> f64 {
    // n is shifted while it is positive: AVX2 has no arithmetic shift of 64 bits.
    let n = t.to_bits().wrapping_sub(MAGIC.to_bits());
    let half = (n.wrapping_add(4096) >> 1).wrapping_sub(2048);
    y * power(half) * power(n.wrapping_sub(half))
}

/// `e^x`
#[inline(always)]
pub(crate) fn exp<I: Isa>(x: f64) -> f64 {
    let x = if x > 710.0 { 710.0 } else { x };
    let x = if x < -746.0 { -746.0 } else { x };
    let t = fma::<I>(x, LOG2_E, MAGIC);
    let n = t - MAGIC;
    let r = fma::<I>(n, -LN2_LOW, fma::<I>(n, -LN2_HIGH, x));
    scale(fma::<I>(tail::<I>(r), r * r, r) + 1.0, t)
}
/// `2^x`
#[inline(always)]
pub(crate) fn exp2<I: Isa>(x: f64) -> f64 {
    let x = if x > 1025.0 { 1025.0 } else { x };
    let x = if x < -1076.0 { -1076.0 } else { x };
    let t = x + MAGIC;
    let f = x - (t - MAGIC);
    let r = f * LN_2;
    // What the product has lost, and the rest of ln 2.
    let low = if I::FMA { f.mul_add(LN_2, -r) } else { 0.0 };
    let low = fma::<I>(f, 2.319_046_813_846_299_6e-17, low);
    scale(fma::<I>(tail::<I>(r), r * r, low) + r + 1.0, t)
}
/// `e^x - 1`
#[inline(always)]
pub(crate) fn expm1<I: Isa>(x0: f64) -> f64 {
    let x = if x0 > 710.0 { 710.0 } else { x0 };
    let x = if x < -50.0 { -50.0 } else { x };
    let t = fma::<I>(x, LOG2_E, MAGIC);
    let n = t - MAGIC;
    let r = fma::<I>(n, -LN2_LOW, fma::<I>(n, -LN2_HIGH, x));
    let rest = tail::<I>(r) * (r * r);
    // 2ⁿ (1 + r + rest) - 1 over half the power, which does not overflow; the first sum is exact in two parts.
    let half = power(t.to_bits().wrapping_sub(MAGIC.to_bits()).wrapping_sub(1));
    let (a, b) = (half - 0.5, half * r);
    let sum = a + b;
    let lost = (a - sum) + b;
    let y = (sum + fma::<I>(half, rest, lost)) * 2.0;
    // Around 0 the series alone, with the sign of a zero.
    let small = (r + rest).copysign(x0);
    if n == 0.0 {
        small
    } else {
        y
    }
}

/// `x = 2^k (1 + f)` with 1 + f in [√½, √2): k and f.
#[inline(always)]
fn split(x0: f64) -> (f64, f64) {
    let tiny = x0 < f64::MIN_POSITIVE;
    let x = if tiny { x0 * 18_014_398_509_481_984.0 } else { x0 };
    const ROOT_HALF: u64 = 0x3fe6_a09e_667f_3bcd;
    let shifted = x.to_bits().wrapping_sub(ROOT_HALF).wrapping_add(1024 << 52);
    let k = f64::from_bits((shifted >> 52) | 0x4330_0000_0000_0000) - (4_503_599_627_370_496.0 + 1024.0);
    let m = f64::from_bits((shifted & 0x000f_ffff_ffff_ffff) + ROOT_HALF);
    (if tiny { k - 54.0 } else { k }, m - 1.0)
}
/// The logarithm's value at 0, negative numbers, infinity and NaN, or `y` elsewhere; found by one unsigned test.
#[inline(always)]
fn special(x: f64, y: f64) -> f64 {
    let bits = x.to_bits();
    let negative = ((bits as i64) >> 63) as u64 & 0x7ff8_0000_0000_0000;
    let value = if bits << 1 == 0 { 0xfff0_0000_0000_0000 } else { bits | negative };
    if bits.wrapping_sub(1) >= 0x7fef_ffff_ffff_ffff {
        f64::from_bits(value)
    } else {
        y
    }
}
/// `(s (f²/2 + R), f²/2)` of fdlibm's logarithm, with its coefficients: `ln (1 + f) = f - (f²/2 - s (f²/2 + R))`.
#[inline(always)]
fn logarithm<I: Isa>(f: f64) -> (f64, f64) {
    let s = f / (2.0 + f);
    let z = s * s;
    let w = z * z;
    let even = fma::<I>(
        fma::<I>(
            fma::<I>(w, 1.531_383_769_920_937_332e-1, 2.222_219_843_214_978_396e-1),
            w,
            3.999_999_999_940_941_908e-1,
        ),
        w,
        0.0,
    );
    let odd = fma::<I>(
        fma::<I>(
            fma::<I>(w, 1.479_819_860_511_658_591e-1, 1.818_357_216_161_805_012e-1),
            w,
            2.857_142_874_366_239_149e-1,
        ),
        w,
        6.666_666_666_666_735_130e-1,
    ) * z;
    let half = 0.5 * f * f;
    (s * (half + (odd + even)), half)
}
/// `ln x`
#[inline(always)]
pub(crate) fn log<I: Isa>(x: f64) -> f64 {
    let (k, f) = split(x);
    let (r, half) = logarithm::<I>(f);
    special(x, k * LN2_HIGH - ((half - fma::<I>(k, LN2_LOW, r)) - f))
}
/// `ln (1 + x)`
#[inline(always)]
pub(crate) fn log1p<I: Isa>(x: f64) -> f64 {
    let u = 1.0 + x;
    let (k, f) = split(u);
    // What rounding the sum has lost, over the sum; nothing where the sum need not be formed.
    let lost = if x > 1.0 { 1.0 - (u - x) } else { x - (u - 1.0) };
    let (f, c) = if k == 0.0 { (x, 0.0) } else { (f, lost / u) };
    let (r, half) = logarithm::<I>(f);
    let y = special(u, k * LN2_HIGH - ((half - (r + fma::<I>(k, LN2_LOW, c))) - f));
    if x == 0.0 {
        x
    } else {
        y
    }
}
/// `ln (1 + f)` in two parts, the first with 21 bits to spare.
#[inline(always)]
fn two_parts<I: Isa>(f: f64) -> (f64, f64) {
    let (r, half) = logarithm::<I>(f);
    let high = f64::from_bits((f - half).to_bits() & 0xffff_ffff_0000_0000);
    (high, ((f - high) - half) + r)
}
/// `log₂ x`
#[inline(always)]
pub(crate) fn log2<I: Isa>(x: f64) -> f64 {
    const HIGH: f64 = 1.442_695_040_721_446_275_71;
    const LOW: f64 = 1.675_171_316_488_651_183_53e-10;
    let (k, f) = split(x);
    let (high, low) = two_parts::<I>(f);
    let first = high * HIGH;
    let rest = (low + high) * LOW + low * HIGH;
    let sum = k + first;
    special(x, (rest + ((k - sum) + first)) + sum)
}
/// `log₁₀ x`
#[inline(always)]
pub(crate) fn log10<I: Isa>(x: f64) -> f64 {
    const HIGH: f64 = 4.342_944_818_781_688_809_39e-1;
    const LOW: f64 = 2.508_294_671_164_527_522_98e-11;
    const LOG2_HIGH: f64 = 3.010_299_956_636_117_713_06e-1;
    const LOG2_LOW: f64 = 3.694_239_077_158_930_786_16e-13;
    let (k, f) = split(x);
    let (high, low) = two_parts::<I>(f);
    let first = high * HIGH;
    let whole = k * LOG2_HIGH;
    let rest = k * LOG2_LOW + ((low + high) * LOW + low * HIGH);
    let sum = whole + first;
    special(x, (rest + ((whole - sum) + first)) + sum)
}

/// `(e^x - e^-x) / 2`
#[inline(always)]
pub(crate) fn sinh<I: Isa>(x: f64) -> f64 {
    let a = x.abs();
    // Beyond the range of the exponential, half of it as a square.
    let far = exp::<I>(0.5 * a);
    let u = expm1::<I>(a);
    let y = if a > 709.0 { (0.5 * far) * far } else { 0.5 * (u + u / (u + 1.0)) };
    y.copysign(x)
}
/// `(e^x + e^-x) / 2`
#[inline(always)]
pub(crate) fn cosh<I: Isa>(x: f64) -> f64 {
    let a = x.abs();
    let far = exp::<I>(0.5 * a);
    let e = exp::<I>(a);
    if a > 709.0 {
        (0.5 * far) * far
    } else {
        0.5 * e + 0.5 / e
    }
}
/// `(e^2x - 1) / (e^2x + 1)`
#[inline(always)]
pub(crate) fn tanh<I: Isa>(x: f64) -> f64 {
    let a = x.abs();
    let a = if a > 22.0 { 22.0 } else { a };
    let u = expm1::<I>(2.0 * a);
    (u / (u + 2.0)).copysign(x)
}
