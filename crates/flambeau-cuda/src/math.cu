// The functions m_* of the table of scalar functions, for float, double, i64 and both complex types.
#define PI_ 3.14159265358979323846
#define LN2_ 0.69314718055994530942

template <class R> struct Limits;
template <> struct Limits<float> {
    static __device__ inline float infinity() { return float_of_bits(0x7f800000u); }
};
template <> struct Limits<double> {
    static __device__ inline double infinity() { return double_of_bits(0x7ff0000000000000ULL); }
};

#define UNARY(name, f32, f64)                                  \
    __device__ inline float name(float a) { return f32(a); }   \
    __device__ inline double name(double a) { return f64(a); }
#define BINARY(name, f32, f64)                                                  \
    __device__ inline float name(float a, float b) { return f32(a, b); }        \
    __device__ inline double name(double a, double b) { return f64(a, b); }
UNARY(m_abs, fabsf, fabs)
UNARY(m_sqrt, sqrtf, sqrt)
UNARY(m_exp, expf, exp)
UNARY(m_exp2, exp2f, exp2)
UNARY(m_expm1, expm1f, expm1)
UNARY(m_log, logf, log)
UNARY(m_log2, log2f, log2)
UNARY(m_log10, log10f, log10)
UNARY(m_log1p, log1pf, log1p)
UNARY(m_sin, sinf, sin)
UNARY(m_cos, cosf, cos)
UNARY(m_tan, tanf, tan)
UNARY(m_asin, asinf, asin)
UNARY(m_acos, acosf, acos)
UNARY(m_atan, atanf, atan)
UNARY(m_sinh, sinhf, sinh)
UNARY(m_cosh, coshf, cosh)
UNARY(m_tanh, tanhf, tanh)
UNARY(m_asinh, asinhf, asinh)
UNARY(m_acosh, acoshf, acosh)
UNARY(m_atanh, atanhf, atanh)
UNARY(m_floor, floorf, floor)
UNARY(m_ceil, ceilf, ceil)
UNARY(m_trunc, truncf, trunc)
UNARY(m_round, rintf, rint)
UNARY(m_erf, erff, erf)
UNARY(m_erfc, erfcf, erfc)
UNARY(m_lgamma, lgammaf, lgamma)
BINARY(m_fmod, fmodf, fmod)
BINARY(m_hypot, hypotf, hypot)
BINARY(m_atan2, atan2f, atan2)
BINARY(m_copysign, copysignf, copysign)
BINARY(m_nextafter, nextafterf, nextafter)
BINARY(m_fmax, fmaxf, fmax)
BINARY(m_fmin, fminf, fmin)

__device__ inline float m_pow(float a, float b) { return b == 2.0f ? a * a : b == 0.5f && a >= 0.0f ? sqrtf(a) : powf(a, b); }
__device__ inline double m_pow(double a, double b) { return b == 2.0 ? a * a : b == 0.5 && a >= 0.0 ? sqrt(a) : pow(a, b); }

// ---- real numbers and integers -----------------------------------------------------------------------------------------
template <class T> __device__ inline T m_max(T a, T b) { return a != a ? a : (b != b ? b : (a > b ? a : b)); }
template <class T> __device__ inline T m_min(T a, T b) { return a != a ? a : (b != b ? b : (a < b ? a : b)); }
__device__ inline i64 m_fmax(i64 a, i64 b) { return a > b ? a : b; }
__device__ inline i64 m_fmin(i64 a, i64 b) { return a < b ? a : b; }
__device__ inline i64 m_abs(i64 a) { return a < 0 ? -a : a; }
__device__ inline i64 m_sign(i64 a) { return (a > 0) - (a < 0); }
__device__ inline i64 m_sgn(i64 a) { return m_sign(a); }
__device__ inline float m_sign(float a) { return a > 0 ? 1.0f : a < 0 ? -1.0f : 0.0f; }
__device__ inline double m_sign(double a) { return a > 0 ? 1.0 : a < 0 ? -1.0 : 0.0; }
__device__ inline float m_sgn(float a) { return m_sign(a); }
__device__ inline double m_sgn(double a) { return m_sign(a); }
__device__ inline float m_conj(float a) { return a; }
__device__ inline double m_conj(double a) { return a; }
__device__ inline bool m_isinf(i64) { return false; }
__device__ inline bool m_isfinite(i64) { return true; }
__device__ inline bool m_signbit(i64 a) { return a < 0; }
__device__ inline bool m_isinf(float a) { return m_abs(a) == Limits<float>::infinity(); }
__device__ inline bool m_isinf(double a) { return m_abs(a) == Limits<double>::infinity(); }
__device__ inline bool m_isfinite(float a) { return m_abs(a) < Limits<float>::infinity(); }
__device__ inline bool m_isfinite(double a) { return m_abs(a) < Limits<double>::infinity(); }
__device__ inline bool m_signbit(float a) { return m_copysign(1.0f, a) < 0; }
__device__ inline bool m_signbit(double a) { return m_copysign(1.0, a) < 0; }

__device__ inline i64 m_trunc_div(i64 a, i64 b) { return b == 0 ? 0 : (b == -1 ? (i64)(0 - (u64)a) : a / b); }
__device__ inline i64 m_fmod(i64 a, i64 b) { return b == 0 || b == -1 ? 0 : a % b; }
__device__ inline i64 m_remainder(i64 a, i64 b) {
    i64 r = m_fmod(a, b);
    return r != 0 && (r < 0) != (b < 0) ? r + b : r;
}
__device__ inline i64 m_floor_div(i64 a, i64 b) {
    i64 q = m_trunc_div(a, b), r = m_fmod(a, b);
    return r != 0 && (r < 0) != (b < 0) ? q - 1 : q;
}
template <class T> __device__ inline T m_trunc_div(T a, T b) { return m_trunc(a / b); }
template <class T> __device__ inline T m_remainder(T a, T b) {
    T r = m_fmod(a, b);
    if (r == T(0)) return m_copysign(r, b);
    return (r < T(0)) != (b < T(0)) ? r + b : r;
}
// The quotient of `a - remainder`, which is a whole number but for rounding.
template <class T> __device__ inline T m_floor_div(T a, T b) {
    if (b == T(0)) return a / b;
    T r = m_fmod(a, b), q = (a - r) / b;
    if (r != T(0) && (r < T(0)) != (b < T(0))) q = q - T(1);
    if (q == T(0)) return m_copysign(T(0), a / b);
    T f = m_floor(q);
    return q - f > T(0.5) ? f + T(1) : f;
}
// Wrapping; a negative exponent leaves only what 1 and -1 give.
__device__ inline i64 m_pow(i64 a, i64 b) {
    if (b < 0) return a == 1 ? 1 : (a == -1 ? (b & 1 ? -1 : 1) : 0);
    u64 r = 1, x = (u64)a;
    for (u64 e = (u64)b; e; e >>= 1) {
        if (e & 1) r *= x;
        x *= x;
    }
    return (i64)r;
}
__device__ inline i64 m_gcd(i64 a, i64 b) {
    u64 x = a < 0 ? 0 - (u64)a : (u64)a, y = b < 0 ? 0 - (u64)b : (u64)b;
    while (y) {
        u64 t = x % y;
        x = y;
        y = t;
    }
    return (i64)x;
}
__device__ inline i64 m_lcm(i64 a, i64 b) {
    i64 g = m_gcd(a, b);
    return g == 0 ? 0 : m_abs((i64)((u64)m_trunc_div(a, g) * (u64)b));
}
__device__ inline i64 m_shl(i64 a, i64 b) { return b < 0 || b > 63 ? 0 : (i64)((u64)a << b); }
__device__ inline i64 m_shr(i64 a, i64 b) { return b < 0 || b > 63 ? (a < 0 ? -1 : 0) : a >> b; }

template <class T> __device__ inline T m_logaddexp(T a, T b) {
    if (a == b && m_isinf(a)) return a;
    return m_max(a, b) + m_log1p(m_exp(-m_abs(a - b)));
}
template <class T> __device__ inline T m_logaddexp2(T a, T b) {
    if (a == b && m_isinf(a)) return a;
    return m_max(a, b) + m_log1p(m_exp2(-m_abs(a - b))) * T(1 / LN2_);
}
template <class T> __device__ inline T m_softplus(T a) { return a > T(20) ? a : m_log1p(m_exp(a)); }
template <class T> __device__ inline T m_sinc(T a) {
    double x = (double)a * PI_;
    return a == T(0) ? T(1) : T(m_sin(x) / x);
}
// a Φ(a)
template <class T> __device__ inline T m_gelu(T a) { return a * T(0.5) * (T(1) + m_erf(a * T(0.70710678118654752440))); }
template <class T> __device__ inline T m_gelu_grad(T g, T x) {
    T cdf = T(0.5) * (T(1) + m_erf(x * T(0.70710678118654752440)));
    return g * (cdf + x * (m_exp(x * x * T(-0.5)) * T(0.39894228040143267794)));
}
template <class T> __device__ inline T m_gelu_tanh(T a) {
    T inner = T(0.79788456080286535588) * (a + T(0.044715) * a * a * a);
    return T(0.5) * a * (T(1) + m_tanh(inner));
}

// ---- special functions, computed in double for both widths -------------------------------------------------------------
#define SPECIAL(name) __device__ inline float name(float a) { return (float)name((double)a); }

// The inverse of erf: M. Giles, "Approximating the erfinv function" (2010), as a start, then Newton's steps on erf or,
// near the ends, on erfc.
__device__ inline double m_erfinv(double x) {
    if (!(m_abs(x) < 1.0)) return m_abs(x) == 1.0 ? x * Limits<double>::infinity() : (x - x) / (x - x);
    double w = -m_log((1.0 - x) * (1.0 + x)), p;
    if (w < 5.0) {
        w -= 2.5;
        p = 2.81022636e-08;
        p = 3.43273939e-07 + p * w;
        p = -3.5233877e-06 + p * w;
        p = -4.39150654e-06 + p * w;
        p = 0.00021858087 + p * w;
        p = -0.00125372503 + p * w;
        p = -0.00417768164 + p * w;
        p = 0.246640727 + p * w;
        p = 1.50140941 + p * w;
    } else {
        w = m_sqrt(w) - 3.0;
        p = -0.000200214257;
        p = 0.000100950558 + p * w;
        p = 0.00134934322 + p * w;
        p = -0.00367342844 + p * w;
        p = 0.00573950773 + p * w;
        p = -0.0076224613 + p * w;
        p = 0.00943887047 + p * w;
        p = 1.00167406 + p * w;
        p = 2.83297682 + p * w;
    }
    double y = p * x, a = m_abs(x);
    for (int k = 0; k < 3; k++) {
        double z = m_abs(y), e = a < 0.5 ? m_erf(z) - a : (1.0 - a) - m_erfc(z);
        double d = e / (1.12837916709551257390 * m_exp(-z * z));
        y = m_copysign(z - d / (1.0 + z * d), x);
    }
    return y;
}
SPECIAL(m_erfinv)
// The quantile of the normal distribution: Halley steps on erfc, which keeps the precision of the tails.
__device__ inline double m_ndtri(double p) {
    if (!(p > 0.0 && p < 1.0)) return p == 0.0 ? -Limits<double>::infinity() : p == 1.0 ? Limits<double>::infinity() : (p - p) / (p - p);
    double q = p < 0.5 ? p : 1.0 - p, z;
    if (q > 0.02) {
        z = -m_erfinv(2.0 * q - 1.0);
    } else {
        double t = m_sqrt(-m_log(q));
        z = t - (m_log(t) + 1.2655121234846454) / (2.0 * t);
    }
    for (int k = 0; k < 4; k++) {
        double c = m_erfc(z);
        double d = (c - 2.0 * q) / (1.12837916709551257390 * m_exp(-z * z));
        z = z + d / (1.0 - z * d);
    }
    z = z * 1.41421356237309504880;
    return p < 0.5 ? -z : z;
}
SPECIAL(m_ndtri)
// Reflection below zero, the recurrence up to 10, then the asymptotic series (Abramowitz & Stegun 6.3.18).
__device__ inline double m_digamma(double x) {
    if (x == 0.0) return m_copysign(Limits<double>::infinity(), -x);
    double r = 0.0;
    if (x < 0.0) {
        double f = x - m_trunc(x);
        if (f == 0.0) return (x - x) / (x - x);
        r = -PI_ / m_tan(PI_ * f);
        x = 1.0 - x;
    }
    while (x < 10.0) {
        r -= 1.0 / x;
        x += 1.0;
    }
    double y = 1.0 / (x * x);
    double s = y * (1.0 / 12 - y * (1.0 / 120 - y * (1.0 / 252 - y * (1.0 / 240 - y * (1.0 / 132 - y * (691.0 / 32760 - y / 12))))));
    return r + m_log(x) - 0.5 / x - s;
}
SPECIAL(m_digamma)
// Hurwitz's zeta by Euler-Maclaurin: sum_{k>=0} (q + k)^-s.
__device__ inline double hurwitz_zeta(double s, double q) {
    double sum = 0.0;
    int k = 0;
    for (; k < 12 || (q < 9.0 && k < 64); k++) {
        sum += m_pow(q, -s);
        q += 1.0;
    }
    double p = m_pow(q, -s), term = s * p / q;
    sum += p * q / (s - 1.0) + 0.5 * p;
    // Bernoulli numbers over factorials, B_2j / (2j)!.
    const double b[8] = {1.0 / 12, -1.0 / 720, 1.0 / 30240, -1.0 / 1209600, 1.0 / 47900160, -691.0 / 1307674368000.0,
                         1.0 / 74724249600.0, -3617.0 / 10670622842880000.0};
    for (int j = 0; j < 8; j++) {
        sum += b[j] * term;
        term *= (s + 2 * j + 1) * (s + 2 * j + 2) / (q * q);
    }
    return sum;
}
__device__ inline double m_polygamma(double n, double x) {
    if (n == 0.0) return m_digamma(x);
    if (n == 1.0 && x == Limits<double>::infinity()) return 0.0;
    if (n == 1.0 && x < 0.5) {
        // As in flambeau-cpu's math.rs.
        double s = m_sin(3.14159265358979323846 * x);
        return 9.86960440108935861883 / (s * s) - hurwitz_zeta(2.0, 1.0 - x);
    }
    double factorial = 1.0;
    for (int k = 2; k <= (int)n; k++) factorial *= k;
    double sign = (int)n & 1 ? 1.0 : -1.0;
    if (x <= 0.0 && x == m_floor(x)) return (int)n & 1 ? Limits<double>::infinity() : (x - x) / (x - x);
    return sign * factorial * hurwitz_zeta(n + 1.0, x);
}
__device__ inline float m_polygamma(float n, float x) { return (float)m_polygamma((double)n, (double)x); }
// exp(-|x|) I_v(x): the power series, all of whose terms are positive, and the asymptotic series beyond 30 (Abramowitz &
// Stegun 9.6.10 and 9.7.1).
__device__ inline double bessel_i_scaled(int v, double x) {
    double a = m_abs(x), r;
    if (a <= 30.0) {
        double q = a * a * 0.25, term = v ? a * 0.5 : 1.0;
        r = term;
        for (int k = 1; k < 120 && term > r * 1e-18; k++) {
            term *= q / ((double)k * (k + v));
            r += term;
        }
        r *= m_exp(-a);
    } else {
        double mu = 4.0 * v * v, term = 1.0;
        r = 1.0;
        for (int k = 1; k < 24; k++) {
            double odd = 2.0 * k - 1.0;
            term *= -(mu - odd * odd) / (k * 8.0 * a);
            r += term;
        }
        r = m_isinf(a) ? 0.0 : r / m_sqrt(2.0 * PI_ * a);
    }
    return v && x < 0 ? -r : r;
}
__device__ inline double m_i0e(double x) { return bessel_i_scaled(0, x); }
__device__ inline double m_i1e(double x) { return bessel_i_scaled(1, x); }
__device__ inline double m_i0(double x) { return m_isinf(x) ? m_abs(x) : bessel_i_scaled(0, x) * m_exp(m_abs(x)); }
__device__ inline double m_i1(double x) { return m_isinf(x) ? x : bessel_i_scaled(1, x) * m_exp(m_abs(x)); }
SPECIAL(m_i0e)
SPECIAL(m_i1e)
SPECIAL(m_i0)
SPECIAL(m_i1)

// ---- complex numbers ---------------------------------------------------------------------------------------------------
template <class R> __device__ inline R m_abs_real(Complex<R> a) { return m_hypot(a.re, a.im); }
template <class R> __device__ inline Complex<R> m_abs(Complex<R> a) { return Complex<R>(m_hypot(a.re, a.im), R(0)); }
template <class R> __device__ inline Complex<R> m_conj(Complex<R> a) { return Complex<R>(a.re, -a.im); }
template <class R> __device__ inline Complex<R> m_angle(Complex<R> a) { return Complex<R>(m_atan2(a.im, a.re), R(0)); }
template <class R> __device__ inline bool m_isinf(Complex<R> a) { return m_isinf(a.re) || m_isinf(a.im); }
template <class R> __device__ inline bool m_isfinite(Complex<R> a) { return m_isfinite(a.re) && m_isfinite(a.im); }
// Scaled by the larger part (R. L. Smith, "Algorithm 116: Complex division", 1962).
template <class R> __device__ inline Complex<R> m_div(Complex<R> a, Complex<R> b) {
    if (m_abs(b.re) >= m_abs(b.im)) {
        if (b.re == R(0) && b.im == R(0)) return Complex<R>(a.re / m_abs(b.re), a.im / m_abs(b.im));
        R r = b.im / b.re, d = b.re + b.im * r;
        return Complex<R>((a.re + a.im * r) / d, (a.im - a.re * r) / d);
    }
    R r = b.re / b.im, d = b.re * r + b.im;
    return Complex<R>((a.re * r + a.im) / d, (a.im * r - a.re) / d);
}
template <class R> __device__ inline Complex<R> scaled(Complex<R> a, R s) { return Complex<R>(a.re * s, a.im * s); }
template <class R> __device__ inline Complex<R> m_sgn(Complex<R> a) {
    R n = m_hypot(a.re, a.im);
    return n == R(0) ? Complex<R>(R(0), R(0)) : Complex<R>(a.re / n, a.im / n);
}
template <class R> __device__ inline Complex<R> m_sqrt(Complex<R> a) {
    if (a.re == R(0) && a.im == R(0)) return Complex<R>(R(0), a.im);
    if (m_isinf(a.im)) return Complex<R>(m_abs(a.im), a.im);
    R t = m_sqrt((m_abs(a.re) + m_hypot(a.re, a.im)) * R(0.5));
    if (a.re >= R(0)) return Complex<R>(t, a.im / (R(2) * t));
    return Complex<R>(m_abs(a.im) / (R(2) * t), m_copysign(t, a.im));
}
template <class R> __device__ inline Complex<R> m_exp(Complex<R> a) {
    R e = m_exp(a.re);
    return a.im == R(0) ? Complex<R>(e, a.im) : Complex<R>(e * m_cos(a.im), e * m_sin(a.im));
}
template <class R> __device__ inline Complex<R> m_exp2(Complex<R> a) { return m_exp(scaled(a, R(LN2_))); }
template <class R> __device__ inline Complex<R> m_expm1(Complex<R> a) {
    R s = m_sin(a.im * R(0.5));
    return Complex<R>(m_expm1(a.re) * m_cos(a.im) - R(2) * s * s, m_exp(a.re) * m_sin(a.im));
}
template <class R> __device__ inline Complex<R> m_log(Complex<R> a) {
    return Complex<R>(m_log(m_hypot(a.re, a.im)), m_atan2(a.im, a.re));
}
template <class R> __device__ inline Complex<R> m_log2(Complex<R> a) { return scaled(m_log(a), R(1 / LN2_)); }
template <class R> __device__ inline Complex<R> m_log10(Complex<R> a) { return scaled(m_log(a), R(0.43429448190325182765)); }
template <class R> __device__ inline Complex<R> m_log1p(Complex<R> a) {
    R x = a.re, y = a.im;
    if (m_abs(x) < R(0.5) && m_abs(y) < R(0.5))
        return Complex<R>(R(0.5) * m_log1p(x * (R(2) + x) + y * y), m_atan2(y, R(1) + x));
    return m_log(Complex<R>(R(1) + x, y));
}
// In double, so that the logarithm's error does not grow with the exponent.
template <class R> __device__ inline Complex<R> m_pow(Complex<R> a, Complex<R> b) {
    if (b.re == R(0) && b.im == R(0)) return Complex<R>(R(1), R(0));
    if (a.re == R(0) && a.im == R(0)) {
        R v = b.re > R(0) ? R(0) : R(0) / R(0);
        return Complex<R>(v, v);
    }
    c64 z = m_exp(c64((double)b.re, (double)b.im) * m_log(c64((double)a.re, (double)a.im)));
    return Complex<R>((R)z.re, (R)z.im);
}
template <class R> __device__ inline Complex<R> m_sinh(Complex<R> a) {
    return Complex<R>(m_sinh(a.re) * m_cos(a.im), m_cosh(a.re) * m_sin(a.im));
}
template <class R> __device__ inline Complex<R> m_cosh(Complex<R> a) {
    return Complex<R>(m_cosh(a.re) * m_cos(a.im), m_sinh(a.re) * m_sin(a.im));
}
// W. Kahan, "Branch cuts for complex elementary functions" (1987), here and in the inverse functions below.
template <class R> __device__ inline Complex<R> m_tanh(Complex<R> a) {
    if (m_abs(a.re) > R(20)) return Complex<R>(m_copysign(R(1), a.re), m_copysign(R(0), m_sin(a.im + a.im)));
    R t = m_tan(a.im), s = m_sinh(a.re), rho = m_sqrt(R(1) + s * s), beta = R(1) + t * t, d = R(1) + beta * s * s;
    return Complex<R>(beta * rho * s / d, t / d);
}
template <class R> __device__ inline Complex<R> m_sin(Complex<R> a) {
    return Complex<R>(m_sin(a.re) * m_cosh(a.im), m_cos(a.re) * m_sinh(a.im));
}
template <class R> __device__ inline Complex<R> m_cos(Complex<R> a) {
    return Complex<R>(m_cos(a.re) * m_cosh(a.im), -(m_sin(a.re) * m_sinh(a.im)));
}
template <class R> __device__ inline Complex<R> m_tan(Complex<R> a) {
    Complex<R> t = m_tanh(Complex<R>(-a.im, a.re));
    return Complex<R>(t.im, -t.re);
}
template <class R> __device__ inline Complex<R> m_asin(Complex<R> z) {
    Complex<R> p = m_sqrt(Complex<R>(R(1) + z.re, z.im)), q = m_sqrt(Complex<R>(R(1) - z.re, -z.im));
    return Complex<R>(m_atan2(z.re, (q * p).re), m_asinh((m_conj(q) * p).im));
}
template <class R> __device__ inline Complex<R> m_acos(Complex<R> z) {
    Complex<R> p = m_sqrt(Complex<R>(R(1) + z.re, z.im)), q = m_sqrt(Complex<R>(R(1) - z.re, -z.im));
    return Complex<R>(R(2) * m_atan2(q.re, p.re), m_asinh((m_conj(p) * q).im));
}
template <class R> __device__ inline Complex<R> m_atanh(Complex<R> z) {
    // Of |x|, since the logarithm's argument would lose its digits near -1.
    R x = z.re, y = z.im, a = m_abs(x), below = (R(1) - a) * (R(1) - a) + y * y;
    return Complex<R>(m_copysign(R(0.25) * m_log1p(R(4) * a / below), x), R(0.5) * m_atan2(R(2) * y, (R(1) - x) * (R(1) + x) - y * y));
}
template <class R> __device__ inline Complex<R> m_asinh(Complex<R> z) {
    Complex<R> w = m_asin(Complex<R>(-z.im, z.re));
    return Complex<R>(w.im, -w.re);
}
template <class R> __device__ inline Complex<R> m_acosh(Complex<R> z) {
    Complex<R> p = m_sqrt(Complex<R>(z.re + R(1), z.im)), q = m_sqrt(Complex<R>(z.re - R(1), z.im));
    return Complex<R>(m_asinh((m_conj(q) * p).re), R(2) * m_atan2(q.im, p.re));
}
template <class R> __device__ inline Complex<R> m_atan(Complex<R> z) {
    Complex<R> w = m_atanh(Complex<R>(-z.im, z.re));
    return Complex<R>(w.im, -w.re);
}
template <class R> __device__ inline Complex<R> m_sinc(Complex<R> a) {
    Complex<R> x = scaled(a, R(PI_));
    return a.re == R(0) && a.im == R(0) ? Complex<R>(R(1), R(0)) : m_div(m_sin(x), x);
}
