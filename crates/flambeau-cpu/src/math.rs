//! The functions that the table's formulas call on `m`. Branch-free polynomials that vectorise in the loop around them, for
//! f32 here and (in double precision) in `wide`, for f64 in `double`; the rest use the system's or the formulas cited.

use crate::double;
use crate::isa::Isa;
use crate::wide;
use flambeau_core::{Complex32, Complex64};
use std::f64::consts::{FRAC_1_SQRT_2, LN_2, PI};
use std::marker::PhantomData;

/// The functions of numbers of type `T` at level `I`.
#[derive(Clone, Copy)]
pub struct Math<I, T>(PhantomData<(I, T)>);
impl<I, T> Math<I, T> {
    #[inline(always)]
    pub fn new() -> Self {
        Math(PhantomData)
    }
}
impl<I, T> Default for Math<I, T> {
    fn default() -> Self {
        Self::new()
    }
}

/// 1.5 · 2²³: adding it to a small float rounds to an integer in the low bits.
const MAGIC: f32 = 12582912.0;

#[inline(always)]
fn fma<I: Isa>(a: f32, b: f32, c: f32) -> f32 {
    if I::FMA {
        a.mul_add(b, c)
    } else {
        a * b + c
    }
}
#[inline(always)]
fn bits(x: f32) -> i32 {
    x.to_bits() as i32
}
#[inline(always)]
fn float(x: i32) -> f32 {
    f32::from_bits(x as u32)
}

/// `(p, t)` with `e^x = 2^n p`, p between √½ and √2 and n in the low bits of t; for |x| ≤ 104. x = n ln 2 + r, and Cephes' minimax
/// polynomial for `e^r` by Horner's rule to the end: the sum with 1 is then the one rounding that counts.
#[inline(always)]
pub(crate) fn exp_parts<I: Isa>(x: f32) -> (f32, f32) {
    let t = fma::<I>(x, std::f32::consts::LOG2_E, MAGIC);
    let n = t - MAGIC;
    let r = fma::<I>(n, -0.693_359_4, x);
    let r = fma::<I>(n, 2.121_944_4e-4, r);
    let mut p = fma::<I>(1.987_569_1e-4, r, 1.398_2e-3);
    p = fma::<I>(p, r, 8.333_452e-3);
    p = fma::<I>(p, r, 4.166_579_6e-2);
    p = fma::<I>(p, r, 1.666_666_5e-1);
    p = fma::<I>(p, r, 5e-1);
    p = fma::<I>(p, r, 1.0);
    (fma::<I>(p, r, 1.0), t)
}
/// `p 2^n` in two steps, so that subnormal numbers come out right; n as the low bits of `t`.
#[inline(always)]
pub(crate) fn scale(p: f32, t: f32) -> f32 {
    let n = bits(t).wrapping_sub(bits(MAGIC));
    let half = n >> 1;
    let rest = n.wrapping_sub(half);
    p * float(half.wrapping_add(127) << 23) * float(rest.wrapping_add(127) << 23)
}
/// `e^x`.
#[inline(always)]
pub fn exp_f32<I: Isa>(x0: f32) -> f32 {
    let x = if x0 > 89.0 { 89.0 } else { x0 };
    let x = if x < -104.0 { -104.0 } else { x };
    let (p, t) = exp_parts::<I>(x);
    scale(p, t)
}
/// `2^x`: a polynomial at the distance from the nearest integer, which is exact. Its coefficients are those of `exp_parts` times
/// powers of ln 2.
#[inline(always)]
pub fn exp2_f32<I: Isa>(x0: f32) -> f32 {
    let x = if x0 > 129.0 { 129.0 } else { x0 };
    let x = if x < -151.0 { -151.0 } else { x };
    let t = x + MAGIC;
    let r = x - (t - MAGIC);
    let mut p = fma::<I>(1.527_919_4e-5, r, 1.550_679_4e-4);
    p = fma::<I>(p, r, 1.333_374_8e-3);
    p = fma::<I>(p, r, 9.617_928e-3);
    p = fma::<I>(p, r, 5.550_410_6e-2);
    p = fma::<I>(p, r, 2.402_265e-1);
    p = fma::<I>(p, r, 6.931_472e-1);
    scale(fma::<I>(p, r, 1.0), t)
}
/// `ln x` (Cephes' polynomial on [√½, √2)).
#[inline(always)]
pub fn log_f32<I: Isa>(x0: f32) -> f32 {
    let tiny = x0 < f32::MIN_POSITIVE;
    let x = if tiny { x0 * 8388608.0 } else { x0 };
    let ix = bits(x).wrapping_sub(0x3f35_04f3);
    let e = ((ix >> 23) as f32) - if tiny { 23.0 } else { 0.0 };
    let m = float((ix & 0x7f_ffff) + 0x3f35_04f3) - 1.0;
    let z = m * m;
    let z2 = z * z;
    let a = fma::<I>(-2.499_999_4e-1, m, 3.333_333e-1);
    let b = fma::<I>(-1.666_805_8e-1, m, 2.000_071_5e-1);
    let c = fma::<I>(-1.242_014e-1, m, 1.424_932_3e-1);
    let d = fma::<I>(-1.151_461e-1, m, 1.167_699_9e-1);
    let lo = fma::<I>(b, z, a);
    let hi = fma::<I>(fma::<I>(7.037_683_6e-2, z, d), z, c);
    let p = fma::<I>(hi, z2, lo);
    let mut y = p * m * z;
    y = fma::<I>(e, -2.121_944_4e-4, y);
    y = fma::<I>(z, -0.5, y);
    let r = fma::<I>(e, 0.693_359_4, m + y);
    // One unsigned test for 0, negative, infinite and NaN keeps the loop vectorised.
    let special = bits(x0).wrapping_sub(1) as u32 >= 0x7f7f_ffff;
    let magnitude = bits(x0) & 0x7fff_ffff;
    let v = if magnitude == 0 { 0xff80_0000_u32 as i32 } else { bits(x0) | ((bits(x0) >> 31) & 0x7fc0_0000) };
    float(if special { v } else { bits(r) })
}
/// `tanh x`: an odd polynomial (a minimax fit) below 1, `1 - 2 / (e^2|x| + 1)` beyond.
#[inline(always)]
pub fn tanh_f32<I: Isa>(x: f32) -> f32 {
    let a = x.abs();
    let s = x * x;
    let mut p = fma::<I>(-3.584_356_5e-4, s, 2.301_338_8e-3);
    p = fma::<I>(p, s, -7.946_128e-3);
    p = fma::<I>(p, s, 2.148_672_6e-2);
    p = fma::<I>(p, s, -5.387_985_3e-2);
    p = fma::<I>(p, s, 1.333_234_6e-1);
    p = fma::<I>(p, s, -3.333_329_6e-1);
    let small = fma::<I>(p * s, x, x).copysign(x);
    let big = (1.0 - 2.0 / (exp_f32::<I>(2.0 * a) + 1.0)).copysign(x);
    if a < 1.0 {
        small
    } else {
        big
    }
}
/// `erf x`: `x + x Q(x²)` below 1, `1 - e^R(|x| - 1)` beyond, with R a fit of the logarithm of `erfc` (both minimax).
#[inline(always)]
pub fn erf_f32<I: Isa>(x: f32) -> f32 {
    let a = x.abs();
    let s = x * x;
    let mut q = fma::<I>(7.806_903_2e-5, s, -7.997_853e-4);
    q = fma::<I>(q, s, 5.187_162e-3);
    q = fma::<I>(q, s, -2.685_334_7e-2);
    q = fma::<I>(q, s, 1.128_357_9e-1);
    q = fma::<I>(q, s, -3.761_262_6e-1);
    q = fma::<I>(q, s, 1.283_791_7e-1);
    let small = fma::<I>(x, q, x);
    let t = if a > 4.0 { 3.0 } else { a - 1.0 };
    let mut r = fma::<I>(-2.146_717e-5, t, 2.883_775_2e-4);
    r = fma::<I>(r, t, -2.009_692_2e-3);
    r = fma::<I>(r, t, 1.004_431_5e-2);
    r = fma::<I>(r, t, -4.156_249_5e-2);
    r = fma::<I>(r, t, -8.431_073e-1);
    r = fma::<I>(r, t, -2.638_967_5);
    // The last sum with what its rounding leaves: e^(hi + lo) = e^hi + lo e^hi.
    const LAST: f32 = -1.849_605_5;
    let hi = fma::<I>(r, t, LAST);
    let lo = fma::<I>(r, t, LAST - hi);
    let e = exp_f32::<I>(hi);
    let big = (1.0 - fma::<I>(e, lo, e)).copysign(x);
    if a < 1.0 {
        small
    } else {
        big
    }
}
/// `erf x` as an odd rational function on [-4, 4] (the form used by Eigen), within 6 ulp: for formulas that add 1 to it.
#[inline(always)]
fn erf_rational<I: Isa>(x0: f32) -> f32 {
    let x = if x0 > 4.0 { 4.0 } else { x0 };
    let x = if x < -4.0 { -4.0 } else { x };
    let s = x * x;
    let mut a = fma::<I>(-2.726_142_3e-10, s, 2.770_681_4e-8);
    a = fma::<I>(a, s, -2.101_024e-6);
    a = fma::<I>(a, s, -5.692_506_4e-5);
    a = fma::<I>(a, s, -7.349_906_3e-4);
    a = fma::<I>(a, s, -2.954_6e-3);
    a = fma::<I>(a, s, -1.609_603_3e-2);
    let mut b = fma::<I>(-1.456_607_2e-5, s, -2.133_740_6e-4);
    b = fma::<I>(b, s, -1.682_827e-3);
    b = fma::<I>(b, s, -7.373_329e-3);
    b = fma::<I>(b, s, -1.426_473_9e-2);
    let y = x * a / b;
    if x0.abs() >= 4.0 {
        1f32.copysign(x0)
    } else {
        y
    }
}
/// The largest degree of Hermite polynomials for f32 and f64.
const HERMITE_LIMIT: [i64; 2] = [128, 512];

#[inline(always)]
fn chebyshev_kind(letter: char) -> crate::special::Chebyshev {
    use crate::special::Chebyshev;
    match letter {
        't' => Chebyshev::T,
        'u' => Chebyshev::U,
        'v' => Chebyshev::V,
        _ => Chebyshev::W,
    }
}

macro_rules! shared_float {
    // Functions of `crate::special`, which compute in double precision.
    (@double $T:ident $module:ident $($f:ident($($arg:ident),*))*) => { $(
        #[inline(always)]
        pub fn $f(self, $($arg: $T),*) -> $T {
            crate::$module::$f($($arg as f64),*) as $T
        }
    )* };
    ($T:ident $Bits:ident) => {
        #[inline(always)]
        pub fn lit(self, x: f64) -> $T {
            x as $T
        }
        #[inline(always)]
        pub fn bool(self, x: bool) -> $T {
            x as u8 as $T
        }
        #[inline(always)]
        pub fn abs(self, a: $T) -> $T {
            a.abs()
        }
        #[inline(always)]
        pub fn sqrt(self, a: $T) -> $T {
            a.sqrt()
        }
        #[inline(always)]
        pub fn floor(self, a: $T) -> $T {
            a.floor()
        }
        #[inline(always)]
        pub fn ceil(self, a: $T) -> $T {
            a.ceil()
        }
        #[inline(always)]
        pub fn trunc(self, a: $T) -> $T {
            a.trunc()
        }
        #[inline(always)]
        pub fn round(self, a: $T) -> $T {
            a.round_ties_even()
        }
        /// NaN wins.
        #[inline(always)]
        pub fn max(self, a: $T, b: $T) -> $T {
            if a > b || a != a {
                a
            } else {
                b
            }
        }
        /// NaN wins.
        #[inline(always)]
        pub fn min(self, a: $T, b: $T) -> $T {
            if a < b || a != a {
                a
            } else {
                b
            }
        }
        /// NaN loses.
        #[inline(always)]
        pub fn fmax(self, a: $T, b: $T) -> $T {
            if a >= b || b != b {
                a
            } else {
                b
            }
        }
        /// NaN loses.
        #[inline(always)]
        pub fn fmin(self, a: $T, b: $T) -> $T {
            if a <= b || b != b {
                a
            } else {
                b
            }
        }
        #[inline(always)]
        pub fn copysign(self, a: $T, b: $T) -> $T {
            a.copysign(b)
        }
        #[inline(always)]
        pub fn is_nan(self, a: $T) -> bool {
            a != a
        }
        #[inline(always)]
        pub fn is_inf(self, a: $T) -> bool {
            a.abs() == $T::INFINITY
        }
        #[inline(always)]
        pub fn is_finite(self, a: $T) -> bool {
            a.abs() < $T::INFINITY
        }
        #[inline(always)]
        pub fn signbit(self, a: $T) -> bool {
            a.is_sign_negative()
        }
        #[inline(always)]
        pub fn sign(self, a: $T) -> $T {
            if a > 0.0 {
                1.0
            } else if a < 0.0 {
                -1.0
            } else {
                // NaN and both zeros.
                0.0
            }
        }
        #[inline(always)]
        pub fn fmod(self, a: $T, b: $T) -> $T {
            a % b
        }
        /// Python's remainder: the divisor's sign.
        #[inline(always)]
        pub fn remainder(self, a: $T, b: $T) -> $T {
            let r = a % b;
            if r == 0.0 {
                r.copysign(b) // a zero with the divisor's sign, as Python and NumPy have it
            } else if (r < 0.0) != (b < 0.0) {
                r + b
            } else {
                r
            }
        }
        /// Python's floor division: the exact quotient's floor, from the remainder (CPython's `float_floor_div`).
        #[inline(always)]
        pub fn floor_div(self, a: $T, b: $T) -> $T {
            if b == 0.0 {
                return a / b;
            }
            let r = a % b;
            let mut q = (a - r) / b;
            if r != 0.0 && ((b < 0.0) != (r < 0.0)) {
                q -= 1.0;
            }
            if q == 0.0 {
                return (0.0 as $T).copysign(a / b);
            }
            let f = q.floor();
            if q - f > 0.5 {
                f + 1.0
            } else {
                f
            }
        }
        /// `a` or `b`, both of which are read: with a branch the compiler may choose among their addresses, and load one by one.
        #[inline(always)]
        pub fn select(self, condition: bool, a: $T, b: $T) -> $T {
            // All bits where the condition holds.
            let mask = <$Bits>::from(condition).wrapping_neg();
            <$T>::from_bits(a.to_bits() & mask | b.to_bits() & !mask)
        }
        #[inline(always)]
        pub fn softplus(self, a: $T) -> $T {
            if a > 20.0 {
                a
            } else {
                self.log1p(self.exp(a))
            }
        }
        #[inline(always)]
        pub fn logaddexp(self, a: $T, b: $T) -> $T {
            if a.is_infinite() && a == b {
                return a;
            }
            self.max(a, b) + self.log1p(self.exp(-(a - b).abs()))
        }
        #[inline(always)]
        pub fn logaddexp2(self, a: $T, b: $T) -> $T {
            if a.is_infinite() && a == b {
                return a;
            }
            self.max(a, b) + (1.0 + (-(a - b).abs()).exp2()).log2()
        }
        #[inline(always)]
        pub fn sinc(self, a: $T) -> $T {
            if a == 0.0 {
                1.0
            } else {
                let x = a as f64 * PI;
                (x.sin() / x) as $T
            }
        }
        #[inline(always)]
        pub fn erfinv(self, a: $T) -> $T {
            special::erfinv(a as f64) as $T
        }
        #[inline(always)]
        pub fn lgamma(self, a: $T) -> $T {
            special::lgamma(a as f64) as $T
        }
        #[inline(always)]
        pub fn digamma(self, a: $T) -> $T {
            special::digamma(a as f64) as $T
        }
        #[inline(always)]
        pub fn polygamma(self, n: $T, a: $T) -> $T {
            special::polygamma(n as f64, a as f64) as $T
        }
        #[inline(always)]
        pub fn i0(self, a: $T) -> $T {
            special::i0(a as f64) as $T
        }
        #[inline(always)]
        pub fn i0e(self, a: $T) -> $T {
            special::i0e(a as f64) as $T
        }
        #[inline(always)]
        pub fn i1(self, a: $T) -> $T {
            special::i1(a as f64) as $T
        }
        #[inline(always)]
        pub fn i1e(self, a: $T) -> $T {
            special::i1e(a as f64) as $T
        }
        #[inline(always)]
        pub fn ndtri(self, a: $T) -> $T {
            special::ndtri(a as f64) as $T
        }
        shared_float!(@double $T special
            erfcx(x) log_ndtr(x) ndtr(x) airy_ai(x) bessel_j0(x) bessel_j1(x) bessel_y0(x) bessel_y1(x) spherical_bessel_j0(x)
            legendre_p(x, n) laguerre_l(x, n));
        #[inline(always)]
        pub fn zeta(self, s: $T, q: $T) -> $T {
            special::zeta(s as f64, q as f64) as $T
        }
        #[inline(always)]
        pub fn bessel_k(self, order: u32, x: $T, scaled: bool) -> $T {
            crate::special::bessel_k(order, x as f64, scaled) as $T
        }
        #[inline(always)]
        pub fn incomplete_gamma(self, a: $T, x: $T, upper: bool) -> $T {
            crate::special::incomplete_gamma(a as f64, x as f64, upper) as $T
        }
        #[inline(always)]
        pub fn chebyshev(self, kind: char, x: $T, n: $T) -> $T {
            crate::special::chebyshev(chebyshev_kind(kind), x as f64, n as f64) as $T
        }
        #[inline(always)]
        pub fn shifted_chebyshev(self, kind: char, x: $T, n: $T) -> $T {
            crate::special::shifted_chebyshev(chebyshev_kind(kind), x as f64, n as f64) as $T
        }
        #[inline(always)]
        pub fn hermite_h(self, x: $T, n: $T) -> $T {
            crate::special::hermite_h(x as f64, n as f64, HERMITE_LIMIT[std::mem::size_of::<$T>() / 8]) as $T
        }
        #[inline(always)]
        pub fn hermite_he(self, x: $T, n: $T) -> $T {
            crate::special::hermite_he(x as f64, n as f64, HERMITE_LIMIT[std::mem::size_of::<$T>() / 8]) as $T
        }
        #[inline(always)]
        pub fn frexp_mantissa(self, x: $T) -> $T {
            crate::special::frexp(x as f64).0 as $T
        }
        #[inline(always)]
        pub fn frexp_exponent(self, x: $T) -> $T {
            crate::special::frexp(x as f64).1 as $T
        }
        /// `Φ(x) + x φ(x)`, times `g`.
        #[inline(always)]
        pub fn gelu_grad(self, g: $T, x: $T) -> $T {
            let cdf = 0.5 * (1.0 + self.erf_to_add(x * FRAC_1_SQRT_2 as $T));
            let pdf = self.exp(-0.5 * x * x) * 0.398_942_280_401_432_7;
            g * (cdf + x * pdf)
        }
        #[inline(always)]
        pub fn gelu(self, x: $T) -> $T {
            0.5 * x * (1.0 + self.erf_to_add(x * FRAC_1_SQRT_2 as $T))
        }
        #[inline(always)]
        pub fn gelu_tanh(self, x: $T) -> $T {
            let inner = 0.797_884_560_802_865_4 * (x + 0.044715 * x * x * x);
            0.5 * x * (1.0 + self.tanh(inner))
        }
    };
}

impl<I: Isa> Math<I, f32> {
    shared_float!(f32 u32);
    #[inline(always)]
    pub fn hypot(self, a: f32, b: f32) -> f32 {
        wide::hypot::<I>(a, b)
    }
    #[inline(always)]
    pub fn erfc(self, a: f32) -> f32 {
        wide::erfc::<I>(a)
    }
    #[inline(always)]
    pub fn exp2(self, a: f32) -> f32 {
        exp2_f32::<I>(a)
    }
    #[inline(always)]
    pub fn log2(self, a: f32) -> f32 {
        wide::log2::<I>(a)
    }
    #[inline(always)]
    pub fn log10(self, a: f32) -> f32 {
        wide::log10::<I>(a)
    }
    #[inline(always)]
    pub fn tan(self, a: f32) -> f32 {
        wide::tan::<I>(a)
    }
    #[inline(always)]
    pub fn asin(self, a: f32) -> f32 {
        wide::asin::<I>(a)
    }
    #[inline(always)]
    pub fn acos(self, a: f32) -> f32 {
        wide::acos::<I>(a)
    }
    #[inline(always)]
    pub fn atan(self, a: f32) -> f32 {
        wide::atan::<I>(a)
    }
    #[inline(always)]
    pub fn sinh(self, a: f32) -> f32 {
        wide::sinh::<I>(a)
    }
    #[inline(always)]
    pub fn cosh(self, a: f32) -> f32 {
        wide::cosh::<I>(a)
    }
    #[inline(always)]
    pub fn asinh(self, a: f32) -> f32 {
        wide::asinh::<I>(a)
    }
    #[inline(always)]
    pub fn acosh(self, a: f32) -> f32 {
        wide::acosh::<I>(a)
    }
    #[inline(always)]
    pub fn atanh(self, a: f32) -> f32 {
        wide::atanh::<I>(a)
    }
    #[inline(always)]
    pub fn pow(self, a: f32, b: f32) -> f32 {
        wide::pow::<I>(a, b)
    }
    #[inline(always)]
    pub fn atan2(self, a: f32, b: f32) -> f32 {
        wide::atan2::<I>(a, b)
    }
    #[inline(always)]
    pub fn exp(self, a: f32) -> f32 {
        exp_f32::<I>(a)
    }
    #[inline(always)]
    pub fn expm1(self, a: f32) -> f32 {
        wide::expm1::<I>(a)
    }
    #[inline(always)]
    pub fn log1p(self, a: f32) -> f32 {
        wide::log1p::<I>(a)
    }
    #[inline(always)]
    pub fn log(self, a: f32) -> f32 {
        log_f32::<I>(a)
    }
    #[inline(always)]
    pub fn sin(self, a: f32) -> f32 {
        wide::sin::<I>(a)
    }
    #[inline(always)]
    pub fn cos(self, a: f32) -> f32 {
        wide::cos::<I>(a)
    }
    #[inline(always)]
    pub fn tanh(self, a: f32) -> f32 {
        tanh_f32::<I>(a)
    }
    #[inline(always)]
    pub fn sigmoid(self, a: f32) -> f32 {
        1.0 / (1.0 + exp_f32::<I>(-a))
    }
    #[inline(always)]
    pub fn erf(self, a: f32) -> f32 {
        erf_f32::<I>(a)
    }
    /// `erf`, where adding 1 takes its last bits away anyhow.
    #[inline(always)]
    fn erf_to_add(self, a: f32) -> f32 {
        erf_rational::<I>(a)
    }
    #[inline(always)]
    pub fn nextafter(self, a: f32, b: f32) -> f32 {
        if a.is_nan() || b.is_nan() {
            f32::NAN
        } else if a == b {
            b
        } else if a < b {
            a.next_up()
        } else {
            a.next_down()
        }
    }
}
impl<I: Isa> Math<I, f64> {
    shared_float!(f64 u64);
    #[inline(always)]
    pub fn hypot(self, a: f64, b: f64) -> f64 {
        a.hypot(b)
    }
    #[inline(always)]
    pub fn erfc(self, a: f64) -> f64 {
        special::erfc(a)
    }
    #[inline(always)]
    pub fn exp2(self, a: f64) -> f64 {
        double::exp2::<I>(a)
    }
    #[inline(always)]
    pub fn log2(self, a: f64) -> f64 {
        double::log2::<I>(a)
    }
    #[inline(always)]
    pub fn log10(self, a: f64) -> f64 {
        double::log10::<I>(a)
    }
    #[inline(always)]
    pub fn tan(self, a: f64) -> f64 {
        a.tan()
    }
    #[inline(always)]
    pub fn asin(self, a: f64) -> f64 {
        a.asin()
    }
    #[inline(always)]
    pub fn acos(self, a: f64) -> f64 {
        a.acos()
    }
    #[inline(always)]
    pub fn atan(self, a: f64) -> f64 {
        a.atan()
    }
    #[inline(always)]
    pub fn sinh(self, a: f64) -> f64 {
        double::sinh::<I>(a)
    }
    #[inline(always)]
    pub fn cosh(self, a: f64) -> f64 {
        double::cosh::<I>(a)
    }
    #[inline(always)]
    pub fn asinh(self, a: f64) -> f64 {
        special::asinh(a)
    }
    #[inline(always)]
    pub fn acosh(self, a: f64) -> f64 {
        special::acosh(a)
    }
    #[inline(always)]
    pub fn atanh(self, a: f64) -> f64 {
        special::atanh(a)
    }
    #[inline(always)]
    pub fn atan2(self, a: f64, b: f64) -> f64 {
        a.atan2(b)
    }
    #[inline(always)]
    pub fn pow(self, a: f64, b: f64) -> f64 {
        if b == 2.0 {
            return a * a;
        }
        if b == 0.5 && a >= 0.0 {
            return a.sqrt();
        }
        a.powf(b)
    }
    #[inline(always)]
    pub fn exp(self, a: f64) -> f64 {
        double::exp::<I>(a)
    }
    #[inline(always)]
    pub fn expm1(self, a: f64) -> f64 {
        double::expm1::<I>(a)
    }
    #[inline(always)]
    pub fn log1p(self, a: f64) -> f64 {
        double::log1p::<I>(a)
    }
    #[inline(always)]
    pub fn log(self, a: f64) -> f64 {
        double::log::<I>(a)
    }
    #[inline(always)]
    pub fn sin(self, a: f64) -> f64 {
        a.sin()
    }
    #[inline(always)]
    pub fn cos(self, a: f64) -> f64 {
        a.cos()
    }
    #[inline(always)]
    pub fn tanh(self, a: f64) -> f64 {
        double::tanh::<I>(a)
    }
    #[inline(always)]
    pub fn sigmoid(self, a: f64) -> f64 {
        1.0 / (1.0 + double::exp::<I>(-a))
    }
    #[inline(always)]
    pub fn erf(self, a: f64) -> f64 {
        special::erf(a)
    }
    #[inline(always)]
    fn erf_to_add(self, a: f64) -> f64 {
        special::erf(a)
    }
    #[inline(always)]
    pub fn nextafter(self, a: f64, b: f64) -> f64 {
        if a.is_nan() || b.is_nan() {
            f64::NAN
        } else if a == b {
            b
        } else if a < b {
            a.next_up()
        } else {
            a.next_down()
        }
    }
}

impl<I: Isa> Math<I, i64> {
    /// `a` or `b`, both of which are read: with a branch the compiler may choose among their addresses, and load one by one.
    #[inline(always)]
    pub fn select(self, condition: bool, a: i64, b: i64) -> i64 {
        let mask = i64::from(condition).wrapping_neg();
        a & mask | b & !mask
    }
    #[inline(always)]
    pub fn lit(self, x: f64) -> i64 {
        x as i64
    }
    #[inline(always)]
    pub fn bool(self, x: bool) -> i64 {
        x as i64
    }
    /// Towards minus infinity; 0 for a zero divisor (the caller refuses it).
    #[inline(always)]
    pub fn floor_div(self, a: i64, b: i64) -> i64 {
        if b == 0 {
            return 0;
        }
        let q = a.wrapping_div(b);
        if a.wrapping_rem(b) != 0 && ((a < 0) != (b < 0)) {
            q - 1
        } else {
            q
        }
    }
    #[inline(always)]
    pub fn trunc_div(self, a: i64, b: i64) -> i64 {
        if b == 0 {
            0
        } else {
            a.wrapping_div(b)
        }
    }
    #[inline(always)]
    pub fn remainder(self, a: i64, b: i64) -> i64 {
        if b == 0 {
            return 0;
        }
        let r = a.wrapping_rem(b);
        if r != 0 && ((r < 0) != (b < 0)) {
            r + b
        } else {
            r
        }
    }
    #[inline(always)]
    pub fn fmod(self, a: i64, b: i64) -> i64 {
        if b == 0 {
            0
        } else {
            a.wrapping_rem(b)
        }
    }
    /// By squaring; a negative exponent gives 0, but 1 and -1 keep their powers.
    #[inline(always)]
    pub fn pow(self, a: i64, b: i64) -> i64 {
        if b < 0 {
            return match a {
                1 => 1,
                -1 => {
                    if b & 1 == 0 {
                        1
                    } else {
                        -1
                    }
                }
                _ => 0,
            };
        }
        let (mut base, mut e, mut out) = (a, b, 1i64);
        while e > 0 {
            if e & 1 == 1 {
                out = out.wrapping_mul(base);
            }
            base = base.wrapping_mul(base);
            e >>= 1;
        }
        out
    }
    #[inline(always)]
    pub fn gcd(self, a: i64, b: i64) -> i64 {
        let (mut a, mut b) = (a.unsigned_abs(), b.unsigned_abs());
        while b != 0 {
            (a, b) = (b, a % b);
        }
        a as i64
    }
    #[inline(always)]
    pub fn lcm(self, a: i64, b: i64) -> i64 {
        let g = self.gcd(a, b);
        if g == 0 {
            0
        } else {
            (a / g).wrapping_mul(b).wrapping_abs()
        }
    }
    #[inline(always)]
    pub fn shl(self, a: i64, b: i64) -> i64 {
        if (0..64).contains(&b) {
            a << b
        } else {
            0
        }
    }
    #[inline(always)]
    pub fn shr(self, a: i64, b: i64) -> i64 {
        if (0..64).contains(&b) {
            a >> b
        } else {
            a >> 63
        }
    }
}

macro_rules! complex_math {
    ($C:ident $T:ident) => {
        impl<I: Isa> Math<I, $C> {
            #[inline(always)]
            pub fn lit(self, x: f64) -> $C {
                $C::new(x as $T, 0.0)
            }
            #[inline(always)]
            pub fn bool(self, x: bool) -> $C {
                $C::new(x as u8 as $T, 0.0)
            }
            #[inline(always)]
            pub fn truth(self, a: $C) -> bool {
                a.re != 0.0 || a.im != 0.0
            }
            #[inline(always)]
            pub fn is_nan(self, a: $C) -> bool {
                a.re.is_nan() || a.im.is_nan()
            }
            #[inline(always)]
            pub fn is_inf(self, a: $C) -> bool {
                a.re.is_infinite() || a.im.is_infinite()
            }
            #[inline(always)]
            pub fn is_finite(self, a: $C) -> bool {
                a.re.is_finite() && a.im.is_finite()
            }
            #[inline(always)]
            pub fn norm(self, a: $C) -> $T {
                a.re.hypot(a.im)
            }
            #[inline(always)]
            pub fn abs(self, a: $C) -> $C {
                $C::new(a.re.hypot(a.im), 0.0)
            }
            #[inline(always)]
            pub fn angle(self, a: $C) -> $C {
                $C::new(a.im.atan2(a.re), 0.0)
            }
            #[inline(always)]
            pub fn sgn(self, a: $C) -> $C {
                let r = a.re.hypot(a.im);
                if r == 0.0 {
                    $C::new(0.0, 0.0)
                } else {
                    $C::new(a.re / r, a.im / r)
                }
            }
            /// Smith's division: scaled by the larger part of the divisor.
            #[inline(always)]
            pub fn div(self, a: $C, b: $C) -> $C {
                if b.re.abs() >= b.im.abs() {
                    if b.re == 0.0 && b.im == 0.0 {
                        return $C::new(a.re / b.re.abs(), a.im / b.im.abs());
                    }
                    let r = b.im / b.re;
                    let d = b.re + b.im * r;
                    $C::new((a.re + a.im * r) / d, (a.im - a.re * r) / d)
                } else {
                    let r = b.re / b.im;
                    let d = b.re * r + b.im;
                    $C::new((a.re * r + a.im) / d, (a.im * r - a.re) / d)
                }
            }
            #[inline(always)]
            pub fn pow(self, a: $C, b: $C) -> $C {
                if b.re == 0.0 && b.im == 0.0 {
                    return $C::new(1.0, 0.0);
                }
                if a.re == 0.0 && a.im == 0.0 {
                    return if b.re > 0.0 { $C::new(0.0, 0.0) } else { $C::new($T::NAN, $T::NAN) };
                }
                let (x, y) = (Complex64::new(a.re as f64, a.im as f64), Complex64::new(b.re as f64, b.im as f64));
                let z = (y * x.ln()).exp();
                $C::new(z.re as $T, z.im as $T)
            }
            #[inline(always)]
            pub fn expm1(self, a: $C) -> $C {
                // e^x cos y - 1 without cancellation: expm1(x) cos y + (cos y - 1).
                let (x, y) = (a.re as f64, a.im as f64);
                let h = (0.5 * y).sin();
                $C::new((x.exp_m1() * y.cos() - 2.0 * h * h) as $T, (x.exp() * y.sin()) as $T)
            }
            #[inline(always)]
            pub fn exp2(self, a: $C) -> $C {
                (a * LN_2 as $T).exp()
            }
            #[inline(always)]
            pub fn log1p(self, a: $C) -> $C {
                let (x, y) = (a.re as f64, a.im as f64);
                let re = 0.5 * (x * (2.0 + x) + y * y).ln_1p();
                $C::new(re as $T, y.atan2(1.0 + x) as $T)
            }
            #[inline(always)]
            pub fn log2(self, a: $C) -> $C {
                a.ln() / LN_2 as $T
            }
            #[inline(always)]
            pub fn log10(self, a: $C) -> $C {
                a.ln() / std::f64::consts::LN_10 as $T
            }
            #[inline(always)]
            pub fn sinc(self, a: $C) -> $C {
                if a.re == 0.0 && a.im == 0.0 {
                    return $C::new(1.0, 0.0);
                }
                let x = a * PI as $T;
                self.div(x.sin(), x)
            }
            complex_math!(@library $C $T csqrt:sqrt csin:sin ccos:cos ctan:tan csinh:sinh ccosh:cosh ctanh:tanh casin:asin cacos:acos catan:atan casinh:asinh cacosh:acosh catanh:atanh);
        }
    };
    (@library $C:ident $T:ident $($c:ident:$f:ident)*) => {
        #[inline(always)]
        pub fn exp(self, a: $C) -> $C { a.exp() }
        #[inline(always)]
        pub fn log(self, a: $C) -> $C { a.ln() }
        $(
            #[inline(always)]
            pub fn $f(self, a: $C) -> $C {
                // SAFETY: a pure function of the C library.
                let z = unsafe { library::$c(Complex64::new(a.re as f64, a.im as f64)) };
                $C::new(z.re as $T, z.im as $T)
            }
        )*
    };
}
/// The C library's complex functions, which keep C's rules at infinities, NaN and on both sides of branch cuts.
mod library {
    use super::Complex64;
    extern "C" {
        // A structure of two doubles is passed as a `double _Complex` is, on x86-64 and AArch64 alike.
        pub fn csqrt(z: Complex64) -> Complex64;
        pub fn csin(z: Complex64) -> Complex64;
        pub fn ccos(z: Complex64) -> Complex64;
        pub fn ctan(z: Complex64) -> Complex64;
        pub fn csinh(z: Complex64) -> Complex64;
        pub fn ccosh(z: Complex64) -> Complex64;
        pub fn ctanh(z: Complex64) -> Complex64;
        pub fn casin(z: Complex64) -> Complex64;
        pub fn cacos(z: Complex64) -> Complex64;
        pub fn catan(z: Complex64) -> Complex64;
        pub fn casinh(z: Complex64) -> Complex64;
        pub fn cacosh(z: Complex64) -> Complex64;
        pub fn catanh(z: Complex64) -> Complex64;
    }
}
complex_math!(Complex32 f32);
complex_math!(Complex64 f64);

/// Special functions in double precision.
pub mod special {
    use std::f64::consts::PI;

    extern "C" {
        #[link_name = "erf"]
        fn libm_erf(x: f64) -> f64;
        #[link_name = "erfc"]
        fn libm_erfc(x: f64) -> f64;
        fn lgamma_r(x: f64, sign: *mut i32) -> f64;
        #[link_name = "asinh"]
        fn libm_asinh(x: f64) -> f64;
        #[link_name = "acosh"]
        fn libm_acosh(x: f64) -> f64;
        #[link_name = "atanh"]
        fn libm_atanh(x: f64) -> f64;
    }
    // The standard library's own formulas overflow early and lose digits near -1.
    pub fn asinh(x: f64) -> f64 {
        // SAFETY: a pure function of the C library.
        unsafe { libm_asinh(x) }
    }
    pub fn acosh(x: f64) -> f64 {
        // SAFETY: as above.
        unsafe { libm_acosh(x) }
    }
    pub fn atanh(x: f64) -> f64 {
        // SAFETY: as above.
        unsafe { libm_atanh(x) }
    }
    pub fn erf(x: f64) -> f64 {
        // SAFETY: a pure function of the C library.
        unsafe { libm_erf(x) }
    }
    pub fn erfc(x: f64) -> f64 {
        // SAFETY: a pure function of the C library.
        unsafe { libm_erfc(x) }
    }
    /// Logarithm of |Γ(x)|.
    pub fn lgamma(x: f64) -> f64 {
        let mut sign = 0;
        // SAFETY: writes only the sign.
        unsafe { lgamma_r(x, &mut sign) }
    }
    /// Giles' approximation, refined by two Newton steps.
    pub fn erfinv(y: f64) -> f64 {
        if y.is_nan() || y.abs() > 1.0 {
            return f64::NAN;
        }
        if y.abs() == 1.0 {
            return y * f64::INFINITY;
        }
        let mut x = ndtri_start((y + 1.0) / 2.0) * std::f64::consts::FRAC_1_SQRT_2;
        for _ in 0..2 {
            let e = if y.abs() < 0.5 { erf(x) - y } else { (1.0 - y.abs() - erfc(x.abs())) * y.signum() };
            x -= e / (std::f64::consts::FRAC_2_SQRT_PI * (-x * x).exp());
        }
        x
    }
    /// Acklam's rational approximation of the normal quantile (relative error 1e-9).
    fn ndtri_start(p: f64) -> f64 {
        const A: [f64; 6] = [
            -3.969683028665376e1,
            2.209460984245205e2,
            -2.759285104469687e2,
            1.38357751867269e2,
            -3.066479806614716e1,
            2.506628277459239,
        ];
        const B: [f64; 5] = [
            -5.447609879822406e1,
            1.615858368580409e2,
            -1.556989798598866e2,
            6.680131188771972e1,
            -1.328068155288572e1,
        ];
        const C: [f64; 6] = [
            -7.784894002430293e-3,
            -3.223964580411365e-1,
            -2.400758277161838,
            -2.549732539343734,
            4.374664141464968,
            2.938163982698783,
        ];
        const D: [f64; 4] = [7.784695709041462e-3, 3.224671290700398e-1, 2.445134137142996, 3.754408661907416];
        let tail = |q: f64| {
            (((((C[0] * q + C[1]) * q + C[2]) * q + C[3]) * q + C[4]) * q + C[5])
                / ((((D[0] * q + D[1]) * q + D[2]) * q + D[3]) * q + 1.0)
        };
        if p < 0.02425 {
            tail((-2.0 * p.ln()).sqrt())
        } else if p > 1.0 - 0.02425 {
            -tail((-2.0 * (1.0 - p).ln()).sqrt())
        } else {
            let q = p - 0.5;
            let r = q * q;
            (((((A[0] * r + A[1]) * r + A[2]) * r + A[3]) * r + A[4]) * r + A[5]) * q
                / (((((B[0] * r + B[1]) * r + B[2]) * r + B[3]) * r + B[4]) * r + 1.0)
        }
    }
    /// The quantile of the standard normal distribution, refined by Halley steps on erfc.
    pub fn ndtri(p: f64) -> f64 {
        if p.is_nan() || !(0.0..=1.0).contains(&p) {
            return f64::NAN;
        }
        if p == 0.0 {
            return f64::NEG_INFINITY;
        }
        if p == 1.0 {
            return f64::INFINITY;
        }
        let mut x = ndtri_start(p);
        for _ in 0..2 {
            let e = 0.5 * erfc(-x * std::f64::consts::FRAC_1_SQRT_2) - p;
            let u = e * (2.0 * PI).sqrt() * (x * x / 2.0).exp();
            x -= u / (1.0 + x * u / 2.0);
        }
        x
    }
    /// Reflection, recurrence to 10, asymptotic series (Abramowitz & Stegun 6.3.18).
    pub fn digamma(x0: f64) -> f64 {
        if x0 == 0.0 {
            return f64::INFINITY.copysign(-x0);
        }
        let mut x = x0;
        let mut out = 0.0;
        if x < 0.0 {
            if x == x.floor() {
                return f64::NAN;
            }
            let r = x - x.floor();
            out -= PI / (PI * r).tan();
            x = 1.0 - x;
        }
        while x < 10.0 {
            out -= 1.0 / x;
            x += 1.0;
        }
        let z = 1.0 / (x * x);
        let series = z
            * (1.0 / 12.0
                - z * (1.0 / 120.0
                    - z * (1.0 / 252.0 - z * (1.0 / 240.0 - z * (1.0 / 132.0 - z * (691.0 / 32760.0 - z / 12.0))))));
        out + x.ln() - 0.5 / x - series
    }
    /// Hurwitz zeta by Euler–Maclaurin summation, s > 1.
    pub fn zeta(s: f64, q: f64) -> f64 {
        if s == 1.0 {
            return f64::INFINITY;
        }
        if s < 1.0 {
            return f64::NAN;
        }
        if q <= 0.0 {
            if q == q.floor() {
                return f64::INFINITY;
            }
            if s != s.floor() {
                return f64::NAN;
            }
        }
        const B: [f64; 12] = [
            12.0,
            -720.0,
            30240.0,
            -1209600.0,
            47900160.0,
            -1.8924375803183791606e9,
            7.47242496e10,
            -2.950130727918164224e12,
            1.1646782814350067249e14,
            -4.5979787224074726105e15,
            1.8152105401943546773e17,
            -7.1661652561756670113e18,
        ];
        let mut sum = q.powf(-s);
        let mut a = q;
        let mut term = 0.0;
        let mut i = 0;
        while i < 9 || a <= 9.0 {
            i += 1;
            a += 1.0;
            term = a.powf(-s);
            sum += term;
            if (term / sum).abs() < f64::EPSILON / 2.0 {
                return sum;
            }
        }
        let w = a;
        sum += term * w / (s - 1.0) - 0.5 * term;
        let mut factor = 1.0;
        let mut k = 0.0;
        for b in B {
            factor *= s + k;
            term /= w;
            let t = factor * term / b;
            sum += t;
            if (t / sum).abs() < f64::EPSILON / 2.0 {
                break;
            }
            k += 1.0;
            factor *= s + k;
            term /= w;
            k += 1.0;
        }
        sum
    }
    /// `(-1)^(n+1) n! ζ(n+1, x)`; digamma for n = 0.
    pub fn polygamma(n: f64, x: f64) -> f64 {
        if n == 0.0 {
            return digamma(x);
        }
        if n == 1.0 && x == f64::INFINITY {
            return 0.0;
        }
        if n == 1.0 && x < 0.5 {
            // ψ'(x) + ψ'(1 - x) = π² / sin²(πx), with the sine that PyTorch takes: a large number at the poles.
            let s = (PI * x).sin();
            return PI * PI / (s * s) - zeta(2.0, 1.0 - x);
        }
        let sign = if n as i64 % 2 == 0 { -1.0 } else { 1.0 };
        sign * lgamma(n + 1.0).exp() * zeta(n + 1.0, x)
    }
    /// Power series below 15 (Abramowitz & Stegun 9.6.10), asymptotic expansion beyond (9.7.1), scaled by `e^-|x|`.
    fn bessel_i(order: u32, x: f64) -> f64 {
        let a = x.abs();
        let nu = order as f64;
        let value = if a < 20.0 {
            let q = a * a / 4.0;
            let mut term = if order == 0 { 1.0 } else { a / 2.0 };
            let mut sum = term;
            let mut k = 1.0;
            while k < 200.0 {
                term *= q / (k * (k + nu));
                sum += term;
                if term < sum * 1e-17 {
                    break;
                }
                k += 1.0;
            }
            sum * (-a).exp()
        } else {
            let mu = 4.0 * nu * nu;
            let mut term = 1.0;
            let mut sum = 1.0;
            for k in 1..40 {
                let odd = (2 * k - 1) as f64;
                let next = -term * (mu - odd * odd) / (k as f64 * 8.0 * a);
                if next.abs() >= term.abs() {
                    break;
                }
                term = next;
                sum += term;
            }
            sum / (2.0 * PI * a).sqrt()
        };
        if order == 1 && x < 0.0 {
            -value
        } else {
            value
        }
    }
    pub fn i0e(x: f64) -> f64 {
        bessel_i(0, x)
    }
    pub fn i0(x: f64) -> f64 {
        bessel_i(0, x) * x.abs().exp()
    }
    pub fn i1e(x: f64) -> f64 {
        bessel_i(1, x)
    }
    pub fn i1(x: f64) -> f64 {
        bessel_i(1, x) * x.abs().exp()
    }
}
