//! Special functions in double precision: Bessel, Airy, incomplete gamma, scaled complementary error function and the
//! classical orthogonal polynomials. Formulas are those of the NIST Digital Library of Mathematical Functions (DLMF), by
//! section number.

use crate::math::special::{erfc, lgamma, zeta};
use std::f64::consts::{FRAC_1_SQRT_2, FRAC_PI_4, PI};

const EULER: f64 = 0.577_215_664_901_532_9;

extern "C" {
    fn j0(x: f64) -> f64;
    fn j1(x: f64) -> f64;
    fn y0(x: f64) -> f64;
    fn y1(x: f64) -> f64;
}

/// J₀; like the three below no number at infinity, as in PyTorch, where a limit of 0 would be possible.
pub fn bessel_j0(x: f64) -> f64 {
    if x.is_infinite() {
        return f64::NAN;
    }
    // SAFETY: a pure function of the C library.
    unsafe { j0(x) }
}
/// J₁.
pub fn bessel_j1(x: f64) -> f64 {
    if x.is_infinite() {
        return f64::NAN;
    }
    // SAFETY: a pure function of the C library.
    unsafe { j1(x) }
}
/// Y₀; -∞ at 0, NaN below.
pub fn bessel_y0(x: f64) -> f64 {
    if x < 0.0 || x.is_infinite() {
        return f64::NAN;
    }
    // SAFETY: a pure function of the C library.
    unsafe { y0(x) }
}
/// Y₁; -∞ at 0, NaN below.
pub fn bessel_y1(x: f64) -> f64 {
    if x < 0.0 || x.is_infinite() {
        return f64::NAN;
    }
    // SAFETY: a pure function of the C library.
    unsafe { y1(x) }
}
/// `sin x / x`, by its series near 0.
pub fn spherical_bessel_j0(x: f64) -> f64 {
    if x.is_infinite() {
        0.0
    } else if x.abs() < 0.1 {
        let s = x * x;
        1.0 - s / 6.0 * (1.0 - s / 20.0 * (1.0 - s / 42.0 * (1.0 - s / 72.0)))
    } else {
        x.sin() / x
    }
}

/// `e^x K_ν(x)` for ν = 0 and 1: ∫₀^∞ exp(-x (cosh t - 1)) cosh(νt) dt (DLMF 10.32.9) by the trapezoidal rule, which converges
/// geometrically here (Trefethen & Weideman, SIAM Review 56, 2014); every term is positive.
fn bessel_k_integral(order: u32, x: f64) -> f64 {
    let h = 0.25 / (x / 4.0).max(1.0).sqrt();
    let mut sum = 0.5;
    let mut k = 1.0;
    loop {
        let t = k * h;
        let s = (0.5 * t).sinh();
        let rise = 2.0 * s * s;
        let term = (-x * rise).exp() * if order == 0 { 1.0 } else { 1.0 + rise };
        sum += term;
        if term < sum * 1e-18 {
            return sum * h;
        }
        k += 1.0;
    }
}
/// K_ν by its series (DLMF 10.31.1, 10.31.2), for small x.
fn bessel_k_series(order: u32, x: f64) -> f64 {
    let q = 0.25 * x * x;
    let log = (0.5 * x).ln();
    let mut harmonic = 0.0;
    if order == 0 {
        let (mut term, mut sum) = (1.0, -(log + EULER));
        for k in 1..40 {
            let k = k as f64;
            term *= q / (k * k);
            harmonic += 1.0 / k;
            let next = term * (harmonic - log - EULER);
            sum += next;
            if next.abs() < sum.abs() * 1e-18 {
                break;
            }
        }
        sum
    } else {
        // Σ (x²/4)^k / (k! (k+1)!) (ln(x/2) - (ψ(k+1) + ψ(k+2)) / 2) · x/2 + 1/x
        let (mut term, mut sum) = (0.5 * x, 0.0);
        for k in 0..40 {
            let k = k as f64;
            let psi = harmonic - EULER + 0.5 / (k + 1.0);
            let next = term * (log - psi);
            sum += next;
            if k > 2.0 && next.abs() < sum.abs() * 1e-18 {
                break;
            }
            harmonic += 1.0 / (k + 1.0);
            term *= q / ((k + 1.0) * (k + 2.0));
        }
        1.0 / x + sum
    }
}
/// K_ν(x), times `e^x` when `scaled`; +∞ at 0, NaN below.
pub fn bessel_k(order: u32, x: f64, scaled: bool) -> f64 {
    if x == 0.0 {
        f64::INFINITY
    } else if x.is_nan() || x < 0.0 {
        f64::NAN
    } else if x.is_infinite() {
        0.0
    } else if x <= 2.0 {
        bessel_k_series(order, x) * if scaled { x.exp() } else { 1.0 }
    } else {
        bessel_k_integral(order, x) * if scaled { 1.0 } else { (-x).exp() }
    }
}

/// Ai and Ai' at -9, -8, …, 9.
const AIRY: [[f64; 2]; 19] = [
    [-0.022133721547341403, -0.9756639809263316],
    [-0.0527050503563862, 0.9355609381983065],
    [0.18428083525050565, -0.7710081684101265],
    [-0.3291451736298231, 0.3459354872813429],
    [0.35076100902411433, 0.32719281855444315],
    [-0.07026553294928951, -0.7906285753685813],
    [-0.37881429367765806, 0.3145837692165988],
    [0.22740742820168558, 0.618259020741691],
    [0.5355608832923521, -0.01016056711664521],
    [0.3550280538878172, -0.2588194037928068],
    [0.13529241631288141, -0.1591474412967932],
    [0.03492413042327438, -0.05309038443365363],
    [0.006591139357460719, -0.011912976705951319],
    [0.0009515638512048018, -0.001958640950204179],
    [0.00010834442813607442, -0.0002474138908684625],
    [9.947694360252889e-06, -2.4765200397034955e-05],
    [7.492128863997167e-07, -2.008150894738792e-06],
    [4.6922076160992316e-08, -1.3414392979067865e-07],
    [2.47116843087249e-09, -7.480641389658946e-09],
];
/// Ai: the solution of `y'' = x y` continued from the nearest integer by its Taylor series; asymptotic expansions beyond 9.5
/// (DLMF 9.7.5, 9.7.9).
pub fn airy_ai(x: f64) -> f64 {
    if !x.is_finite() {
        return f64::NAN;
    }
    if x.abs() <= 9.5 {
        let anchor = x.round().clamp(-9.0, 9.0);
        let [mut a, mut b] = AIRY[(anchor + 9.0) as usize];
        let h = x - anchor;
        // c_{k+2} = (anchor c_k + c_{k-1}) / ((k + 1)(k + 2))
        let mut before = 0.0;
        let (mut sum, mut power) = (a + b * h, h);
        for k in 0..60 {
            let next = (anchor * a + before) / ((k + 1) as f64 * (k + 2) as f64);
            power *= h;
            sum += next * power;
            (before, a, b) = (a, b, next);
            // Two in a row: at 0 every third coefficient is zero.
            if power.abs() * (a.abs() + b.abs()) < sum.abs() * 1e-19 && k > 4 {
                break;
            }
        }
        return sum;
    }
    let z = x.abs();
    let zeta = 2.0 / 3.0 * z * z.sqrt();
    // The sums over even and odd terms of u_k (∓ζ)^-k.
    let (mut u, mut even, mut odd) = (1.0, 1.0, 0.0);
    let sign = if x > 0.0 { 1.0 } else { -1.0 };
    for k in 1..40 {
        let j = k as f64;
        let next = u * (6.0 * j - 5.0) * (6.0 * j - 3.0) * (6.0 * j - 1.0) / (216.0 * j * (2.0 * j - 1.0) * zeta);
        if next > u || next < 1e-18 {
            break;
        }
        u = next;
        let s: f64 = if k % 4 < 2 { 1.0 } else { sign };
        if k % 2 == 0 {
            even += s * u;
        } else {
            odd += s * u;
        }
    }
    if x > 0.0 {
        (-zeta).exp() * (even - odd) / (2.0 * PI.sqrt() * z.sqrt().sqrt())
    } else {
        let (s, c) = (zeta - FRAC_PI_4).sin_cos();
        (c * even + s * odd) / (PI.sqrt() * z.sqrt().sqrt())
    }
}

/// `exp(x²)` with the square's rounding error put back.
fn exp_square(x: f64) -> f64 {
    let hi = x * x;
    let lo = x.mul_add(x, -hi);
    let e = hi.exp();
    if e.is_finite() {
        e + e * lo
    } else {
        e
    }
}
/// `exp(x²) erfc(x)`; beyond 2 by the continued fraction of DLMF 7.9.
pub fn erfcx(x: f64) -> f64 {
    if x.is_nan() {
        return x;
    }
    if x < 0.0 {
        return if x < -26.7 { f64::INFINITY } else { 2.0 * exp_square(x) - erfcx(-x) };
    }
    if x < 2.0 {
        return exp_square(x) * erfc(x);
    }
    if x > 1e8 {
        return 1.0 / (PI.sqrt() * x);
    }
    let terms = 14 + (200.0 / (x * x)) as i32;
    let mut f = x;
    for k in (1..=terms).rev() {
        f = x + 0.5 * k as f64 / f;
    }
    1.0 / (PI.sqrt() * f)
}
/// Φ, the distribution function of the standard normal distribution.
pub fn ndtr(x: f64) -> f64 {
    0.5 * erfc(-x * FRAC_1_SQRT_2)
}
/// `log Φ(x)`, without underflow.
pub fn log_ndtr(x: f64) -> f64 {
    if x < -1.0 {
        let t = x * FRAC_1_SQRT_2;
        (0.5 * erfcx(-t)).ln() - t * t
    } else {
        (-0.5 * erfc(x * FRAC_1_SQRT_2)).ln_1p()
    }
}

/// `ln(1 + u) - u` without cancellation, for u > -1.
fn log1p_minus(u: f64) -> f64 {
    if u.abs() > 0.3 {
        return u.ln_1p() - u;
    }
    // With r = u / (2 + u): ln(1 + u) = 2 Σ r^(2k+1) / (2k+1), and u - 2r = u r.
    let r = u / (2.0 + u);
    let s = r * r;
    let (mut power, mut sum) = (2.0 * r * s, 0.0f64);
    let mut k = 3.0;
    while power.abs() > 1e-19 * sum.abs() + 1e-300 {
        sum += power / k;
        power *= s;
        k += 2.0;
    }
    sum - u * r
}
/// `x^a e^-x / Γ(a + 1)`: directly for small a, from Stirling's series (DLMF 5.11.1) for large.
fn gamma_prefix(a: f64, x: f64) -> f64 {
    if a < 20.0 {
        return (a * x.ln() - x - lgamma(a + 1.0)).exp();
    }
    let s = 1.0 / (a * a);
    let stirling = (1.0 / 12.0
        - s * (1.0 / 360.0 - s * (1.0 / 1260.0 - s * (1.0 / 1680.0 - s * (1.0 / 1188.0 - s * 691.0 / 360360.0)))))
        / a;
    (a * log1p_minus((x - a) / a) - stirling).exp() / (2.0 * PI * a).sqrt()
}
/// The regularised incomplete gamma functions for large `a`: two terms of Temme's uniform expansion (DLMF 8.12.3), whose rest is
/// of the order a⁻² there, in a time that does not grow with `a`.
fn incomplete_gamma_of_large(a: f64, x: f64, upper: bool) -> f64 {
    let mu = (x - a) / a;
    // η²/2 = μ - ln(1 + μ)
    let half_square = -log1p_minus(mu);
    let eta = (2.0 * half_square).sqrt().copysign(mu);
    let c0 = if mu.abs() < 1e-3 { -1.0 / 3.0 + eta / 12.0 - 2.0 / 135.0 * eta * eta } else { 1.0 / mu - 1.0 / eta };
    // The next coefficient hardly moves where the exponential is not 0.
    let rest = (-a * half_square).exp() / (2.0 * PI * a).sqrt() * (c0 - 1.0 / (540.0 * a));
    let z = eta * (a / 2.0).sqrt();
    if upper {
        0.5 * erfc(z) + rest
    } else {
        0.5 * erfc(-z) - rest
    }
}

/// The regularised incomplete gamma functions P (`upper` false) and Q (true): the series of DLMF 8.11.4 below x = a, the
/// continued fraction 8.9.2 above, and for Q of small arguments the series 8.7.1 arranged so that nothing cancels.
pub fn incomplete_gamma(a: f64, x: f64, upper: bool) -> f64 {
    let one = |p: bool| if p != upper { 1.0 } else { 0.0 };
    if a.is_nan() || x.is_nan() || x < 0.0 || a < 0.0 {
        return f64::NAN;
    }
    if a == 0.0 {
        return if x > 0.0 { one(true) } else { f64::NAN };
    }
    if x == 0.0 {
        return one(false);
    }
    if a.is_infinite() {
        return if x.is_infinite() { f64::NAN } else { one(false) };
    }
    if x.is_infinite() {
        return one(true);
    }
    if upper && x < 1.1 && a < 1.0 {
        // Q = 1 - x^a / Γ(a+1) (1 + a Σ_{k≥1} (-x)^k / (k! (a + k)))
        let (mut term, mut sum, mut k) = (1.0, 0.0, 1.0);
        loop {
            term *= -x / k;
            let next = term / (a + k);
            sum += next;
            if next.abs() <= f64::abs(sum) * 1e-18 {
                break;
            }
            k += 1.0;
        }
        let log = a * x.ln() - lgamma_1p(a);
        return -log.exp_m1() - log.exp() * a * sum;
    }
    if a > 1e6 {
        return incomplete_gamma_of_large(a, x, upper);
    }
    let steps = 2000.0 + 40.0 * a.max(x).sqrt();
    if x < a + 1.0 {
        let (mut term, mut sum, mut k) = (1.0, 1.0, 1.0);
        while k < steps {
            term *= x / (a + k);
            sum += term;
            if term < sum * 1e-17 {
                break;
            }
            k += 1.0;
        }
        let p = gamma_prefix(a, x) * sum;
        return if upper { 1.0 - p } else { p };
    }
    // Lentz's evaluation of e^-x x^a / Γ(a) · 1/(x+1-a - 1(1-a)/(x+3-a - …)).
    let tiny = 1e-300;
    let mut b = x + 1.0 - a;
    let mut c = 1.0 / tiny;
    let mut d = 1.0 / if b == 0.0 { tiny } else { b };
    let mut f = d;
    let mut k = 1.0;
    while k < steps {
        let n = k * (a - k);
        b += 2.0;
        d = n * d + b;
        d = 1.0 / if d == 0.0 { tiny } else { d };
        c = b + n / c;
        if c == 0.0 {
            c = tiny;
        }
        f *= c * d;
        if (c * d - 1.0).abs() < 1e-16 {
            break;
        }
        k += 1.0;
    }
    let q = gamma_prefix(a, x) * a * f;
    if upper {
        q
    } else {
        1.0 - q
    }
}
/// `ln Γ(1 + a)` for 0 ≤ a ≤ 1, accurate near 0: `-γa + Σ_{k≥2} ζ(k) (-a)^k / k` (DLMF 5.7.3) below one half.
fn lgamma_1p(a: f64) -> f64 {
    if a > 0.5 {
        return lgamma(1.0 + a);
    }
    // Σ (ζ(k) - 1) (-a)^k / k converges twice as fast; the rest is a - ln(1 + a).
    let mut sum = 0.0;
    let mut power = -a;
    for k in 2..60 {
        power *= -a;
        let term = (zeta(k as f64, 1.0) - 1.0) * power / k as f64;
        sum += term;
        if term.abs() < 1e-19 {
            break;
        }
    }
    sum - EULER * a - log1p_minus(a)
}

/// The four Chebyshev polynomials.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Chebyshev {
    T,
    U,
    V,
    W,
}
/// A degree, cut off to an integer; negative where no integer has the value.
fn degree(n: f64) -> i64 {
    if n.abs() < 9.2e18 {
        n as i64
    } else {
        -1
    }
}
/// Parity of a degree as a sign.
fn parity(n: i64) -> f64 {
    if n % 2 == 0 {
        1.0
    } else {
        -1.0
    }
}
/// The recurrence `p_{k+1} = f(k, p_k, p_{k-1})` from degree 1 to n; stops at a NaN.
fn recurrence(n: i64, p0: f64, p1: f64, f: impl Fn(f64, f64, f64) -> f64) -> f64 {
    if n == 0 {
        return p0;
    }
    let (mut before, mut now) = (p0, p1);
    let mut k = 1;
    while k < n && !now.is_nan() {
        (before, now) = (now, f(k as f64, now, before));
        k += 1;
    }
    now
}
/// Chebyshev polynomials by recurrence (DLMF 18.9), inside (-1, 1) from degree 7 on by their trigonometric forms (18.5). A
/// negative degree gives 0; a degree that is no integer is cut off.
pub fn chebyshev(kind: Chebyshev, x: f64, n: f64) -> f64 {
    let n = degree(n);
    if n < 0 {
        return 0.0;
    }
    let m = n as f64;
    if x.abs() == 1.0 {
        let sign = if x > 0.0 { 1.0 } else { parity(n) };
        return match kind {
            Chebyshev::T => sign,
            Chebyshev::U => sign * (m + 1.0),
            Chebyshev::V => sign * if x > 0.0 { 1.0 } else { 2.0 * m + 1.0 },
            Chebyshev::W => sign * if x > 0.0 { 2.0 * m + 1.0 } else { 1.0 },
        };
    }
    if n > 6 && x.abs() < 1.0 {
        let t = x.acos();
        return match kind {
            Chebyshev::T => (m * t).cos(),
            Chebyshev::U => ((m + 1.0) * t).sin() / t.sin(),
            Chebyshev::V => ((m + 0.5) * t).cos() / (0.5 * t).cos(),
            Chebyshev::W => ((m + 0.5) * t).sin() / (0.5 * t).sin(),
        };
    }
    let first = match kind {
        Chebyshev::T => x,
        Chebyshev::U => 2.0 * x,
        Chebyshev::V => 2.0 * x - 1.0,
        Chebyshev::W => 2.0 * x + 1.0,
    };
    recurrence(n, 1.0, first, |_, p, q| 2.0 * x * p - q)
}
/// Chebyshev polynomials on [0, 1].
pub fn shifted_chebyshev(kind: Chebyshev, x: f64, n: f64) -> f64 {
    chebyshev(kind, 2.0 * x - 1.0, n)
}
/// The physicists' Hermite polynomial; NaN from the degree `limit` on, where its values leave the floating-point range.
pub fn hermite_h(x: f64, n: f64, limit: i64) -> f64 {
    let n = degree(n);
    match n {
        ..0 => 0.0,
        _ if n > limit => f64::NAN,
        _ => recurrence(n, 1.0, 2.0 * x, |k, p, q| 2.0 * (x * p - k * q)),
    }
}
/// The probabilists' Hermite polynomial; see [`hermite_h`].
pub fn hermite_he(x: f64, n: f64, limit: i64) -> f64 {
    let n = degree(n);
    match n {
        ..0 => 0.0,
        _ if n > limit => f64::NAN,
        _ => recurrence(n, 1.0, x, |k, p, q| x * p - k * q),
    }
}
/// The Laguerre polynomial.
pub fn laguerre_l(x: f64, n: f64) -> f64 {
    let n = degree(n);
    match n {
        ..0 => 0.0,
        _ if x == 0.0 => 1.0,
        _ => recurrence(n, 1.0, 1.0 - x, |k, p, q| ((2.0 * k + 1.0 - x) * p - k * q) / (k + 1.0)),
    }
}
/// The Legendre polynomial.
pub fn legendre_p(x: f64, n: f64) -> f64 {
    let n = degree(n);
    match n {
        ..0 => 0.0,
        _ if x.abs() == 1.0 => {
            if x > 0.0 {
                1.0
            } else {
                parity(n)
            }
        }
        _ => recurrence(n, 1.0, x, |k, p, q| ((2.0 * k + 1.0) * x * p - k * q) / (k + 1.0)),
    }
}

/// Mantissa in [½, 1) and exponent of 2; zeros, infinities and NaN are their own mantissa.
pub fn frexp(x: f64) -> (f64, i32) {
    if x == 0.0 || !x.is_finite() {
        return (x, 0);
    }
    // Subnormal numbers are scaled up first.
    let (y, shift) = if x.abs() < f64::MIN_POSITIVE { (x * 2f64.powi(64), 64) } else { (x, 0) };
    let exponent = ((y.to_bits() >> 52) & 0x7ff) as i32 - 1022;
    let mantissa = f64::from_bits((y.to_bits() & !(0x7ff << 52)) | (1022 << 52));
    (mantissa, exponent - shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(got: f64, want: f64, tolerance: f64) {
        assert!((got - want).abs() <= tolerance * want.abs().max(1e-300), "{got} is not {want}");
    }

    /// Values of DLMF's and Abramowitz & Stegun's tables, recomputed to 17 digits with arbitrary precision.
    #[test]
    fn known_values() {
        close(bessel_k(0, 1.0, false), 0.421_024_438_240_708_33, 4e-16);
        close(bessel_k(1, 2.0, false), 0.139_865_881_816_522_43, 4e-16);
        close(bessel_k(0, 2.5, false), 0.062_347_553_200_366_186, 8e-16);
        close(bessel_k(1, 50.0, true), 0.178_566_558_558_815_57, 8e-16);
        close(airy_ai(-9.7), 0.280_237_501_916_297_8, 1e-13);
        close(airy_ai(2.5), 0.015_725_923_380_470_49, 2e-15);
        close(airy_ai(12.0), 1.393_184_688_875_360_8e-13, 2e-14);
        close(erfcx(-3.0), 16_205.988_853_999_586, 4e-16);
        close(erfcx(5.0), 0.110_704_637_733_068_63, 4e-16);
        close(log_ndtr(-40.0), -804.608_442_013_753_8, 4e-16);
        close(incomplete_gamma(2.5, 1.5, false), 0.300_014_164_121_372_5, 4e-15);
        close(incomplete_gamma(1e4, 1e4, false), 0.501_329_808_339_955_2, 1e-13);
        close(incomplete_gamma(1e-3, 1e-4, true), 0.008_596_880_332_556_643, 1e-10);
        close(legendre_p(0.3, 5.0), 0.345_386_25, 4e-15);
        close(hermite_h(0.5, 4.0, 512), 1.0, 4e-15);
        assert_eq!(frexp(-3.0), (-0.75, 2));
        assert_eq!(frexp(5e-324), (0.5, -1073));
    }
    #[test]
    fn large_parameters_take_no_longer() {
        // By an implementation with more terms.
        close(incomplete_gamma(1e6 + 1.0, 1e6, false), 0.499_734_038_513_716_3, 1e-12);
        close(incomplete_gamma(1e30, 1e30, true), 0.5, 1e-14);
        assert_eq!(incomplete_gamma(1e30, 2e30, true), 0.0);
        assert_eq!(incomplete_gamma(1e30, 1e20, true), 1.0);
    }
    #[test]
    fn upper_and_lower_add_to_one() {
        for a in [1e-5, 0.3, 1.0, 7.5, 30.0, 1000.0] {
            for x in [1e-4, 0.5, 1.0, 5.0, 29.0, 31.0, 990.0, 1100.0] {
                let (p, q) = (incomplete_gamma(a, x, false), incomplete_gamma(a, x, true));
                assert!((p + q - 1.0).abs() < 4e-13, "{a} {x}: {p} {q}");
            }
        }
    }
}
