//! Functions of float32 computed in double precision: what is lost on the way is far below a float32's last bit, so that
//! results are within 0.51 ulp (the pole of the tangent at large arguments within 0.6), without a branch that would keep the
//! loops around them from being vectorised. Polynomials are near-minimax fits (Lawson's algorithm) unless said otherwise.

use crate::isa::Isa;
use std::f64::consts::{FRAC_PI_2, LN_2, LOG10_E, LOG2_E, PI};

/// 1.5 · 2⁵²: adding it to a small number rounds to an integer in the low bits.
const MAGIC: f64 = 6_755_399_441_055_744.0;

#[inline(always)]
fn fma<I: Isa>(a: f64, b: f64, c: f64) -> f64 {
    if I::FMA {
        a.mul_add(b, c)
    } else {
        a * b + c
    }
}
/// Horner's scheme, the highest coefficient last.
#[inline(always)]
fn polynomial<I: Isa, const N: usize>(x: f64, c: [f64; N]) -> f64 {
    let mut p = c[N - 1];
    for k in (0..N - 1).rev() {
        p = fma::<I>(p, x, c[k]);
    }
    p
}

/// `(e^r - 1, 2^n)` with `x = n ln 2 + r`, |r| ≤ ln 2 / 2. Beyond ±200, where float32 has long been 0 or infinite, as there.
#[inline(always)]
fn exp_parts<I: Isa>(x: f64) -> (f64, f64) {
    let x = if x > 200.0 { 200.0 } else { x };
    let x = if x < -200.0 { -200.0 } else { x };
    let t = fma::<I>(x, LOG2_E, MAGIC);
    let r = fma::<I>(t - MAGIC, -LN_2, x);
    const C: [f64; 7] = [
        0.499_999_999_997_362_5,
        0.166_666_667_544_988_74,
        0.041_666_666_955_074_86,
        0.008_333_288_971_489_727,
        0.001_388_880_932_254_027,
        0.000_199_049_488_011_468_9,
        2.488_249_127_477_714e-5,
    ];
    let q = fma::<I>(r * r, polynomial::<I, 7>(r, C), r);
    // The sum's low bits are n; in the exponent's place they wrap as they should.
    (q, f64::from_bits((t.to_bits() << 52).wrapping_add(1023 << 52)))
}
#[inline(always)]
fn exp<I: Isa>(x: f64) -> f64 {
    let (q, scale) = exp_parts::<I>(x);
    fma::<I>(q, scale, scale)
}
/// `e^x - 1`, also where that is small.
#[inline(always)]
fn expm1_wide<I: Isa>(x: f64) -> f64 {
    let (q, scale) = exp_parts::<I>(x);
    fma::<I>(q, scale, scale - 1.0)
}

/// `ln x` of a number that is not subnormal: `x = 2^e m` with m in [√½, √2), and `ln m = 2 artanh((m - 1) / (m + 1))`.
#[inline(always)]
fn ln<I: Isa>(x: f64) -> f64 {
    const ROOT_HALF: u64 = 0x3fe6_a09e_667f_3bcd;
    let bits = x.to_bits();
    // The exponent is kept positive, because AVX2 shifts 64-bit numbers without their sign only.
    let shifted = bits.wrapping_sub(ROOT_HALF).wrapping_add(1024 << 52);
    let e = f64::from_bits((shifted >> 52) | 0x4330_0000_0000_0000) - (4_503_599_627_370_496.0 + 1024.0);
    let m = f64::from_bits((shifted & 0x000f_ffff_ffff_ffff) + ROOT_HALF);
    let s = (m - 1.0) / (m + 1.0);
    let z = s * s;
    const C: [f64; 5] = [
        0.666_666_666_758_045_3,
        0.399_999_956_208_083_7,
        0.285_721_092_528_611_7,
        0.221_761_852_311_807_3,
        0.195_841_957_931_569_44,
    ];
    let y = fma::<I>(e, LN_2, fma::<I>(s * z, polynomial::<I, 5>(z, C), s + s));
    // One unsigned test finds 0, negative numbers, infinity and NaN.
    let special = bits.wrapping_sub(1) >= 0x7fef_ffff_ffff_ffff;
    let negative = ((bits as i64) >> 63) as u64 & 0x7ff8_0000_0000_0000;
    let value = if bits << 1 == 0 { 0xfff0_0000_0000_0000 } else { bits | negative };
    if special {
        f64::from_bits(value)
    } else {
        y
    }
}

/// `arctan r` for r in [0, 1].
#[inline(always)]
fn atan_unit<I: Isa>(r: f64) -> f64 {
    const C: [f64; 11] = [
        0.999_999_999_667_176_1,
        -0.333_333_247_182_967,
        0.199_996_305_850_367_82,
        -0.142_794_928_981_654_94,
        0.110_566_734_899_982_05,
        -0.088_069_009_582_435_1,
        0.067_346_193_801_999_42,
        -0.044_618_331_305_865_81,
        0.022_496_397_733_039_35,
        -0.007_304_011_789_588_553,
        0.001_112_060_620_166_013_8,
    ];
    r * polynomial::<I, 11>(r * r, C)
}
/// The angle in [0, π/2] of a point with coordinates `x, y ≥ 0`, not both 0 and not both infinite.
#[inline(always)]
fn angle<I: Isa>(y: f64, x: f64) -> f64 {
    let steep = y > x;
    let r = if steep { x / y } else { y / x };
    let p = atan_unit::<I>(r);
    if steep {
        FRAC_PI_2 - p
    } else {
        p
    }
}

/// `sin r` for |r| ≤ π/2.
#[inline(always)]
fn sin_half<I: Isa>(r: f64) -> f64 {
    let s = r * r;
    const C: [f64; 6] = [
        -0.166_666_666_665_285_7,
        0.008_333_333_322_436_718,
        -0.000_198_412_669_778_181_73,
        2.755_697_307_970_928e-6,
        -2.503_092_799_283_912_2e-8,
        1.541_950_173_016_690_8e-10,
    ];
    fma::<I>(r * s, polynomial::<I, 6>(s, C), r)
}

/// 1/π in pieces of 28 bits: the product of a piece with a float32 is exact in double precision.
const FRAC_1_PI_PIECES: [f64; 7] = [
    0.31830988451838493,
    1.665405729989189e-09,
    8.076898901962902e-18,
    3.8483524236783526e-26,
    8.341433828509763e-35,
    5.794356641444275e-44,
    3.5269795374180254e-52,
];
/// x/π modulo 2, exactly, as a leading part, the rest, and what adding up the rest has lost.
#[inline(always)]
fn turns(x: f64) -> (f64, f64, f64) {
    let modulo_2 = |t: f64| t - 2.0 * (t * 0.5).round_ties_even();
    let lead = modulo_2(x * FRAC_1_PI_PIECES[0]);
    let (mut tail, mut lost) = (modulo_2(x * FRAC_1_PI_PIECES[6]), 0.0);
    for k in (1..6).rev() {
        // Knuth's sum of two numbers and its error.
        let piece = modulo_2(x * FRAC_1_PI_PIECES[k]);
        let sum = tail + piece;
        let part = sum - tail;
        lost += (tail - (sum - part)) + (piece - part);
        tail = sum;
    }
    (lead, tail, lost)
}

/// `sin x` for every finite x.
#[inline(always)]
pub(crate) fn sin<I: Isa>(x: f32) -> f32 {
    let y = sine::<I>(x, 0.0);
    // The sine of -0 is -0.
    if x == 0.0 {
        x
    } else {
        y
    }
}
/// `cos x` for every finite x.
#[inline(always)]
pub(crate) fn cos<I: Isa>(x: f32) -> f32 {
    // cos(πt) = sin(π(t + ½)); the half goes to the integer so that the difference stays exact.
    sine::<I>(x, 0.5)
}
#[inline(always)]
fn sine<I: Isa>(x: f32, half: f64) -> f32 {
    let (lead, tail, _) = turns(x as f64);
    let n = (lead + tail + half).round_ties_even();
    let y = sin_half::<I>(((lead - (n - half)) + tail) * PI);
    // Odd multiples of π change the sign: the integer's last bit.
    f64::from_bits(y.to_bits() ^ ((n + MAGIC).to_bits() << 63)) as f32
}
/// `tan x` for every finite x.
#[inline(always)]
pub(crate) fn tan<I: Isa>(x: f32) -> f32 {
    let (lead, tail, lost) = turns(x as f64);
    let n = (lead + tail).round_ties_even();
    let lead = lead - n;
    let t = lead + tail;
    // Half a turn less |t|, from the exact parts: near the pole nothing else is left.
    let sign = 1f64.copysign(t);
    let rest = ((0.5 - sign * lead) - sign * tail) - sign * lost;
    let y = (sin_half::<I>((lead + (tail + lost)) * PI) / sin_half::<I>(rest * PI)) as f32;
    if x == 0.0 {
        x
    } else {
        y
    }
}

/// `e^x - 1`
#[inline(always)]
pub(crate) fn expm1<I: Isa>(x: f32) -> f32 {
    (expm1_wide::<I>(x as f64) as f32).copysign(x)
}
/// `ln (1 + x)`
#[inline(always)]
pub(crate) fn log1p<I: Isa>(x: f32) -> f32 {
    let w = x as f64;
    let small = fma::<I>(w * w, -0.5, w);
    (if w.abs() < 9.5e-7 { small } else { ln::<I>(1.0 + w) }) as f32
}
/// `log₂ x`
#[inline(always)]
pub(crate) fn log2<I: Isa>(x: f32) -> f32 {
    (ln::<I>(x as f64) * LOG2_E) as f32
}
/// `log₁₀ x`
#[inline(always)]
pub(crate) fn log10<I: Isa>(x: f32) -> f32 {
    (ln::<I>(x as f64) * LOG10_E) as f32
}
/// `(e^x - e^-x) / 2`
#[inline(always)]
pub(crate) fn sinh<I: Isa>(x: f32) -> f32 {
    let u = expm1_wide::<I>((x as f64).abs());
    (((u + u / (u + 1.0)) * 0.5) as f32).copysign(x)
}
/// `(e^x + e^-x) / 2`
#[inline(always)]
pub(crate) fn cosh<I: Isa>(x: f32) -> f32 {
    let e = exp::<I>(x as f64);
    ((e + 1.0 / e) * 0.5) as f32
}
/// The inverse of `sinh`: `ln (x + √(x² + 1))`.
#[inline(always)]
pub(crate) fn asinh<I: Isa>(x: f32) -> f32 {
    let a = (x as f64).abs();
    let s = a * a;
    let y = ln::<I>(1.0 + (a + (fma::<I>(a, a, 1.0).sqrt() - 1.0)));
    let small = fma::<I>(s * a, -1.0 / 6.0, a);
    ((if a < 2.4e-4 { small } else { y }) as f32).copysign(x)
}
/// The inverse of `cosh`: `ln (x + √(x² - 1))`, NaN below 1.
#[inline(always)]
pub(crate) fn acosh<I: Isa>(x: f32) -> f32 {
    let t = x as f64 - 1.0;
    let y = ln::<I>(1.0 + (t + (t * (t + 2.0)).sqrt()));
    (if t < 0.0 { f64::NAN } else { y }) as f32
}
/// The inverse of `tanh`: `½ ln ((1 + x) / (1 - x))`.
#[inline(always)]
pub(crate) fn atanh<I: Isa>(x: f32) -> f32 {
    let w = x as f64;
    let y = 0.5 * ln::<I>((1.0 + w) / (1.0 - w));
    let small = fma::<I>(w * w * w, 1.0 / 3.0, w);
    (if w.abs() < 2.4e-4 { small } else { y }) as f32
}
/// The angle whose sine is x.
#[inline(always)]
pub(crate) fn asin<I: Isa>(x: f32) -> f32 {
    let a = (x as f64).abs();
    (angle::<I>(a, ((1.0 - a) * (1.0 + a)).sqrt()) as f32).copysign(x)
}
/// The angle whose cosine is x.
#[inline(always)]
pub(crate) fn acos<I: Isa>(x: f32) -> f32 {
    let w = x as f64;
    let a = w.abs();
    let p = angle::<I>(((1.0 - a) * (1.0 + a)).sqrt(), a);
    (if w < 0.0 { PI - p } else { p }) as f32
}
/// The angle whose tangent is x.
#[inline(always)]
pub(crate) fn atan<I: Isa>(x: f32) -> f32 {
    (angle::<I>((x as f64).abs(), 1.0) as f32).copysign(x)
}
/// The angle of the point with coordinates x and y, in (-π, π].
#[inline(always)]
pub(crate) fn atan2<I: Isa>(y: f32, x: f32) -> f32 {
    let (a, b) = ((y as f64).abs(), (x as f64).abs());
    // Points at the origin lie on the axis, points at both infinities on the diagonal.
    let (a, b) = if a + b == 0.0 { (0.0, 1.0) } else { (a, b) };
    let (a, b) = if a == f64::INFINITY && b == f64::INFINITY { (1.0, 1.0) } else { (a, b) };
    let p = angle::<I>(a, b);
    ((if x.is_sign_negative() { PI - p } else { p }) as f32).copysign(y)
}
/// `x^y` with the special cases of IEEE 754.
#[inline(always)]
pub(crate) fn pow<I: Isa>(x: f32, y: f32) -> f32 {
    let (w, v) = ((x as f64).abs(), y as f64);
    let l = ln::<I>(w);
    let p = exp::<I>(v * l) as f32;
    let whole = y.trunc() == y;
    let odd = whole && (y * 0.5).trunc() != y * 0.5;
    let p = if odd { p.copysign(x) } else { p };
    // A negative number has powers at integers only.
    let p = if x < 0.0 && x > f32::NEG_INFINITY && !whole { f32::NAN } else { p };
    // One to any power, also an infinite one; and -1 to those.
    let p = if w == 1.0 && (x > 0.0 || y.abs() == f32::INFINITY) { 1.0 } else { p };
    let p = if y == 0.0 { 1.0 } else { p };
    if y == 2.0 {
        x * x
    } else if y == 0.5 && x >= 0.0 {
        x.sqrt()
    } else {
        p
    }
}
