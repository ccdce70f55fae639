//! Functions of float32 computed in double precision: what is lost on the way is far below a float32's last bit, so that
//! results are within 0.52 ulp (the tangent within 0.6), without a branch that would keep the
//! loops around them from being vectorised. Polynomials are near-minimax fits (Lawson's algorithm, or interpolation at Chebyshev's
//! nodes) unless said otherwise.

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

/// `a / b` within 2⁻⁴⁰ or so, for b in the range of float32: a reciprocal of single precision, which takes a third of the time,
/// and Newton's step.
#[inline(always)]
fn quotient<I: Isa>(a: f64, b: f64) -> f64 {
    let r = (1.0 / b as f32) as f64;
    a * fma::<I>(fma::<I>(-b, r, 1.0), r, r)
}
/// `√x` as accurately, for 0 and x > 0 in the range of float32.
#[inline(always)]
fn root_near<I: Isa>(x: f64) -> f64 {
    let y = (x as f32).max(1e-38).sqrt();
    let half = (0.5 / y) as f64;
    let y = y as f64;
    let root = fma::<I>(fma::<I>(-y, y, x), half, y);
    if x > 0.0 {
        root
    } else {
        0.0
    }
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

/// `ln x` of a positive, finite number that is not subnormal: `x = 2^e m` with m in [√½, √2), and `ln m = 2 artanh((m - 1) / (m + 1))`.
#[inline(always)]
fn ln_finite<I: Isa>(x: f64) -> f64 {
    const ROOT_HALF: u64 = 0x3fe6_a09e_667f_3bcd;
    let bits = x.to_bits();
    // The exponent is kept positive, because AVX2 shifts 64-bit numbers without their sign only.
    let shifted = bits.wrapping_sub(ROOT_HALF).wrapping_add(1024 << 52);
    let e = f64::from_bits((shifted >> 52) | 0x4330_0000_0000_0000) - (4_503_599_627_370_496.0 + 1024.0);
    let m = f64::from_bits((shifted & 0x000f_ffff_ffff_ffff) + ROOT_HALF);
    let s = quotient::<I>(m - 1.0, m + 1.0);
    let z = s * s;
    const C: [f64; 5] = [
        0.666_666_666_758_045_3,
        0.399_999_956_208_083_7,
        0.285_721_092_528_611_7,
        0.221_761_852_311_807_3,
        0.195_841_957_931_569_44,
    ];
    fma::<I>(e, LN_2, fma::<I>(s * z, polynomial::<I, 5>(z, C), s + s))
}
/// `ln x` of a number that is not subnormal.
#[inline(always)]
fn ln<I: Isa>(x: f64) -> f64 {
    let bits = x.to_bits();
    let y = ln_finite::<I>(x);
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

/// π in two parts.
const PI_HIGH: f64 = PI;
const PI_LOW: f64 = 1.224_646_799_147_353_2e-16;

/// `sin x` for |x| ≤ 10⁵.
#[inline(always)]
pub(crate) fn sin_near<I: Isa>(x: f32) -> f32 {
    let w = x as f64;
    let t = fma::<I>(w, std::f64::consts::FRAC_1_PI, MAGIC);
    let y = sine_near::<I>(w, t - MAGIC, t);
    if x == 0.0 {
        x
    } else {
        y
    }
}
/// `cos x` for |x| ≤ 10⁵.
#[inline(always)]
pub(crate) fn cos_near<I: Isa>(x: f32) -> f32 {
    let w = x as f64;
    // cos x = sin (x + π/2): from the nearest odd multiple of π/2.
    let t = fma::<I>(w, std::f64::consts::FRAC_1_PI, 0.5) + MAGIC;
    sine_near::<I>(w, t - MAGIC - 0.5, t)
}
/// `±sin (x - n π)`; the sign is the last bit of `t`.
#[inline(always)]
fn sine_near<I: Isa>(x: f64, n: f64, t: f64) -> f32 {
    let r = fma::<I>(n, -PI_LOW, fma::<I>(n, -PI_HIGH, x));
    let s = r * r;
    const C: [f64; 5] = [
        -0.166_666_666_638_635_58,
        0.008_333_332_765_892_838,
        -0.000_198_410_858_668_201_67,
        2.753_641_107_243_41e-6,
        -2.407_897_609_276_595e-8,
    ];
    let y = fma::<I>(r * s, polynomial::<I, 5>(s, C), r);
    f64::from_bits(y.to_bits() ^ (t.to_bits() << 63)) as f32
}
/// `tan x` for |x| ≤ 10⁵: of the distance from the nearest multiple of π/2, or -1 over it.
#[inline(always)]
pub(crate) fn tan_near<I: Isa>(x: f32) -> f32 {
    let w = x as f64;
    let t = fma::<I>(w, std::f64::consts::FRAC_2_PI, MAGIC);
    let n = t - MAGIC;
    let r = fma::<I>(n, -0.5 * PI_LOW, fma::<I>(n, -0.5 * PI_HIGH, w));
    let s = r * r;
    const C: [f64; 7] = [
        0.333_333_339_928_869_2,
        0.133_332_290_826_180_28,
        0.053_994_872_670_010_116,
        0.021_617_919_811_611_083,
        0.009_973_381_294_628_88,
        0.001_167_397_248_192_228_4,
        0.003_853_762_288_487_384_7,
    ];
    let y = fma::<I>(r * s, polynomial::<I, 7>(s, C), r);
    let pole = quotient::<I>(-1.0, y);
    let y = (if t.to_bits() << 63 != 0 { pole } else { y }) as f32;
    if x == 0.0 {
        x
    } else {
        y
    }
}

/// `erf⁻¹ x` for |x| ≤ 0.9966: x times a polynomial in `ln (1 - x²)`, which M. Giles ("Approximating the erfinv function", 2011)
/// found to be the variable that makes it short.
#[inline(always)]
pub(crate) fn erfinv_middle<I: Isa>(x: f32) -> f32 {
    let w = x as f64;
    let u = -ln_finite::<I>(fma::<I>(-w, w, 1.0)) - 2.5;
    const C: [f64; 12] = [
        1.501_409_351_748_176_4,
        0.246_640_276_748_584_24,
        -0.004_177_325_080_457_763,
        -0.001_252_707_957_355_770_2,
        0.000_218_264_125_215_522_6,
        -4.996_000_110_143_956e-6,
        -3.426_266_209_734_268e-6,
        4.786_897_084_558_858e-7,
        1.650_364_404_121_373e-8,
        -1.086_176_127_159_434_3e-8,
        4.340_626_803_853_993e-10,
        1.234_657_711_450_257_3e-10,
    ];
    (w * polynomial::<I, 12>(u, C)) as f32
}
/// `erf⁻¹ x` beyond that: the polynomial is one in the logarithm's root.
#[inline(always)]
pub(crate) fn erfinv_end<I: Isa>(x: f32) -> f32 {
    let w = x as f64;
    let u = (-ln::<I>(fma::<I>(-w, w, 1.0))).sqrt() - 3.16;
    const C: [f64; 13] = [
        2.993_458_716_351_978,
        1.004_193_200_046_720_9,
        0.006_518_118_891_054_862_5,
        -0.004_799_769_572_456_251,
        0.003_376_045_150_135_598_2,
        -0.002_262_172_526_989_623,
        0.001_177_844_254_387_200_3,
        -0.000_354_578_009_484_576_6,
        -5.048_065_431_422_518e-5,
        0.000_128_892_459_865_084_32,
        -5.702_594_372_218_083e-5,
        -6.796_879_391_873_861e-6,
        9.633_150_929_590_887e-6,
    ];
    let y = (w * polynomial::<I, 13>(u, C)) as f32;
    let a = x.abs();
    let y = if a == 1.0 { f32::INFINITY.copysign(x) } else { y };
    if a > 1.0 {
        f32::NAN
    } else {
        y
    }
}
/// `1 - erf x`: of |x|, `e^-x²` times a polynomial in `(|x| - 4) / (|x| + 4)`.
#[inline(always)]
pub(crate) fn erfc<I: Isa>(x: f32) -> f32 {
    let a = (x as f64).abs();
    // From here on the result is 0 or 2.
    let a = if a > 10.5 { 10.5 } else { a };
    let t = quotient::<I>(a - 4.0, a + 4.0);
    const C: [f64; 12] = [
        0.136_999_457_625_929_72,
        -0.259_068_049_454_758_8,
        0.218_719_680_377_534_64,
        -0.164_257_779_494_488_58,
        0.108_963_118_695_696_61,
        -0.063_108_415_697_090_84,
        0.031_299_603_436_696_154,
        -0.012_839_519_825_644_989,
        0.004_059_381_157_002_968,
        -0.000_815_051_154_796_033,
        -2.886_146_304_207_519_3e-5,
        0.000_101_195_604_196_142_12,
    ];
    let (q, scale) = exp_parts::<I>(-a * a);
    let y = polynomial::<I, 12>(t, C) * fma::<I>(q, scale, scale);
    (if x < 0.0 { 2.0 - y } else { y }) as f32
}
/// `√(x² + y²)`, infinite where either is.
#[inline(always)]
pub(crate) fn hypot<I: Isa>(x: f32, y: f32) -> f32 {
    let (a, b) = (x as f64, y as f64);
    let r = fma::<I>(a, a, b * b).sqrt() as f32;
    if x.abs() == f32::INFINITY || y.abs() == f32::INFINITY {
        f32::INFINITY
    } else {
        r
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
/// `log₂ x` and `log₁₀ x` of positive, finite numbers.
#[inline(always)]
pub(crate) fn log2_finite<I: Isa>(x: f32) -> f32 {
    (ln_finite::<I>(x as f64) * LOG2_E) as f32
}
#[inline(always)]
pub(crate) fn log10_finite<I: Isa>(x: f32) -> f32 {
    (ln_finite::<I>(x as f64) * LOG10_E) as f32
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
/// `(asin r, √(1 - r²) > r)` of r in [0, ½], or, beyond, of `√((1 - r) / 2)`: the angle is then `π/2` less twice that.
#[inline(always)]
fn arcsine<I: Isa>(a: f64) -> (f64, bool) {
    let far = a > 0.5;
    let half = fma::<I>(a, -0.5, 0.5);
    let s = if far { half } else { a * a };
    let r = if far { root_near::<I>(half) } else { a };
    const C: [f64; 6] = [
        0.166_666_663_374_309_08,
        0.075_000_945_434_974_24,
        0.044_599_401_528_512_18,
        0.031_100_662_735_494_57,
        0.017_149_238_357_677_253,
        0.033_690_847_202_830_12,
    ];
    (fma::<I>(r * s, polynomial::<I, 6>(s, C), r), far)
}
/// The angle whose sine is x.
#[inline(always)]
pub(crate) fn asin<I: Isa>(x: f32) -> f32 {
    let (p, far) = arcsine::<I>((x as f64).abs());
    let y = if far { fma::<I>(p, -2.0, FRAC_PI_2) } else { p } as f32;
    if x.abs() > 1.0 {
        f32::NAN
    } else {
        y.copysign(x)
    }
}
/// The angle whose cosine is x.
#[inline(always)]
pub(crate) fn acos<I: Isa>(x: f32) -> f32 {
    let w = x as f64;
    let (p, far) = arcsine::<I>(w.abs());
    // π/2 - asin x; near ±1 twice the half-angle, or π less that.
    let p = p.copysign(w);
    let near = FRAC_PI_2 - p;
    let end = if w < 0.0 { PI } else { 0.0 } + p + p;
    let y = if far { end } else { near } as f32;
    if x.abs() > 1.0 {
        f32::NAN
    } else {
        y
    }
}
/// The angle whose tangent is x.
#[inline(always)]
pub(crate) fn atan<I: Isa>(x: f32) -> f32 {
    let a = (x as f64).abs();
    // What is larger has the same angle.
    let a = if a > 1e30 { 1e30 } else { a };
    let steep = a > 1.0;
    let r = if steep { quotient::<I>(1.0, a) } else { a };
    let p = atan_unit::<I>(r);
    (if steep { FRAC_PI_2 - p } else { p } as f32).copysign(x)
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
    let p = pow_other::<I>(x, y);
    let p = if y == 3.0 { cube(x) } else { p };
    let p = if y == 0.5 { root(x) } else { p };
    if y == 2.0 {
        x * x
    } else {
        p
    }
}
/// [`pow`] but for the exponents 2, 3 and ½.
#[inline(always)]
pub(crate) fn pow_other<I: Isa>(x: f32, y: f32) -> f32 {
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
    if y == 0.0 {
        1.0
    } else {
        p
    }
}
/// `x³`
#[inline(always)]
pub(crate) fn cube(x: f32) -> f32 {
    let w = x as f64;
    (w * w * w) as f32
}
/// `x^½`: the square root but of -∞.
#[inline(always)]
pub(crate) fn root(x: f32) -> f32 {
    if x == f32::NEG_INFINITY {
        f32::INFINITY
    } else {
        x.sqrt()
    }
}
