// The functions sf_* of the table of scalar functions: special functions, computed in double for both widths. Formulas by
// section of the NIST Digital Library of Mathematical Functions (DLMF); flambeau-cpu's special.rs says the same in Rust.
#define EULER_ 0.57721566490153286061
#define SPECIAL2(name) \
    __device__ inline float name(float a, float b) { return (float)name((double)a, (double)b); }
#define NAN_ double_of_bits(0x7ff8000000000000ULL)

__device__ inline double sf_bessel_j0(double x) { return m_isinf(x) ? NAN_ : j0(x); }
__device__ inline double sf_bessel_j1(double x) { return m_isinf(x) ? NAN_ : j1(x); }
__device__ inline double sf_bessel_y0(double x) { return x < 0.0 || m_isinf(x) ? NAN_ : y0(x); }
__device__ inline double sf_bessel_y1(double x) { return x < 0.0 || m_isinf(x) ? NAN_ : y1(x); }
SPECIAL(sf_bessel_j0)
SPECIAL(sf_bessel_j1)
SPECIAL(sf_bessel_y0)
SPECIAL(sf_bessel_y1)
__device__ inline double sf_spherical_bessel_j0(double x) {
    if (m_isinf(x)) return 0.0;
    if (m_abs(x) >= 0.1) return m_sin(x) / x;
    double s = x * x;
    return 1.0 - s / 6.0 * (1.0 - s / 20.0 * (1.0 - s / 42.0 * (1.0 - s / 72.0)));
}
SPECIAL(sf_spherical_bessel_j0)

// K_v for v = 0 and 1: the series 10.31 up to 2, beyond it the integral 10.32.9 by the trapezoidal rule.
__device__ inline double sf_bessel_k(int order, double x, bool scaled) {
    if (x == 0.0) return Limits<double>::infinity();
    if (!(x > 0.0)) return NAN_;
    if (m_isinf(x)) return 0.0;
    if (x <= 2.0) {
        double q = 0.25 * x * x, log = m_log(0.5 * x), harmonic = 0.0, term, sum;
        if (order == 0) {
            term = 1.0;
            sum = -(log + EULER_);
            for (int k = 1; k < 40; k++) {
                term *= q / ((double)k * k);
                harmonic += 1.0 / k;
                double next = term * (harmonic - log - EULER_);
                sum += next;
                if (m_abs(next) < m_abs(sum) * 1e-18) break;
            }
        } else {
            term = 0.5 * x;
            sum = 0.0;
            for (int k = 0; k < 40; k++) {
                double next = term * (log - (harmonic - EULER_ + 0.5 / (k + 1.0)));
                sum += next;
                if (k > 2 && m_abs(next) < m_abs(sum) * 1e-18) break;
                harmonic += 1.0 / (k + 1.0);
                term *= q / ((k + 1.0) * (k + 2.0));
            }
            sum += 1.0 / x;
        }
        return scaled ? sum * m_exp(x) : sum;
    }
    double h = 0.25 / m_sqrt(m_max(x / 4.0, 1.0)), sum = 0.5;
    for (int k = 1; k < 1000; k++) {
        double s = m_sinh(0.5 * k * h), rise = 2.0 * s * s;
        double term = m_exp(-x * rise) * (order == 0 ? 1.0 : 1.0 + rise);
        sum += term;
        if (term < sum * 1e-18) break;
    }
    return scaled ? sum * h : sum * h * m_exp(-x);
}
__device__ inline float sf_bessel_k(int order, float x, bool scaled) { return (float)sf_bessel_k(order, (double)x, scaled); }

// Ai: Taylor series of y'' = x y around the nearest integer; 9.7.5 and 9.7.9 beyond 9.5.
__device__ inline double sf_airy_ai(double x) {
    const double airy[19][2] = {
        {-0.022133721547341403, -0.9756639809263316}, {-0.0527050503563862, 0.9355609381983065},
        {0.18428083525050565, -0.7710081684101265},   {-0.3291451736298231, 0.3459354872813429},
        {0.35076100902411433, 0.32719281855444315},   {-0.07026553294928951, -0.7906285753685813},
        {-0.37881429367765806, 0.3145837692165988},   {0.22740742820168558, 0.618259020741691},
        {0.5355608832923521, -0.01016056711664521},   {0.3550280538878172, -0.2588194037928068},
        {0.13529241631288141, -0.1591474412967932},   {0.03492413042327438, -0.05309038443365363},
        {0.006591139357460719, -0.011912976705951319}, {0.0009515638512048018, -0.001958640950204179},
        {0.00010834442813607442, -0.0002474138908684625}, {9.947694360252889e-06, -2.4765200397034955e-05},
        {7.492128863997167e-07, -2.008150894738792e-06}, {4.6922076160992316e-08, -1.3414392979067865e-07},
        {2.47116843087249e-09, -7.480641389658946e-09}};
    if (!m_isfinite(x)) return NAN_;
    if (m_abs(x) <= 9.5) {
        double anchor = m_floor(x + 0.5);
        anchor = m_min(m_max(anchor, -9.0), 9.0);
        double a = airy[(int)anchor + 9][0], b = airy[(int)anchor + 9][1], h = x - anchor;
        double before = 0.0, sum = a + b * h, power = h;
        for (int k = 0; k < 60; k++) {
            double next = (anchor * a + before) / ((k + 1.0) * (k + 2.0));
            power *= h;
            sum += next * power;
            before = a;
            a = b;
            b = next;
            if (k > 4 && m_abs(power) * (m_abs(a) + m_abs(b)) < m_abs(sum) * 1e-19) break;
        }
        return sum;
    }
    double z = m_abs(x), zeta = 2.0 / 3.0 * z * m_sqrt(z), u = 1.0, even = 1.0, odd = 0.0, sign = x > 0.0 ? 1.0 : -1.0;
    for (int k = 1; k < 40; k++) {
        double next = u * (6.0 * k - 5.0) * (6.0 * k - 3.0) * (6.0 * k - 1.0) / (216.0 * k * (2.0 * k - 1.0) * zeta);
        if (next > u || next < 1e-18) break;
        u = next;
        double s = k % 4 < 2 ? 1.0 : sign;
        if (k % 2 == 0) even += s * u;
        else odd += s * u;
    }
    double root = m_sqrt(m_sqrt(z)) * m_sqrt(PI_);
    if (x > 0.0) return m_exp(-zeta) * (even - odd) / (2.0 * root);
    double t = zeta - 0.25 * PI_;
    return (m_cos(t) * even + m_sin(t) * odd) / root;
}
SPECIAL(sf_airy_ai)

// exp(x^2) erfc(x); the continued fraction of 7.9 beyond 2.
__device__ inline double sf_exp_square(double x) {
    double hi = x * x, lo = fma(x, x, -hi), e = m_exp(hi);
    return m_isfinite(e) ? e + e * lo : e;
}
__device__ inline double sf_erfcx(double x) {
    if (x != x) return x;
    double z = m_abs(x), f;
    if (x < -26.7) return Limits<double>::infinity();
    if (z < 2.0) {
        f = sf_exp_square(z) * m_erfc(z);
    } else if (z > 1e8) {
        f = 1.0 / (m_sqrt(PI_) * z);
    } else {
        f = z;
        for (int k = 14 + (int)(200.0 / (z * z)); k >= 1; k--) f = z + 0.5 * k / f;
        f = 1.0 / (m_sqrt(PI_) * f);
    }
    return x < 0.0 ? 2.0 * sf_exp_square(z) - f : f;
}
SPECIAL(sf_erfcx)
__device__ inline double sf_ndtr(double x) { return 0.5 * m_erfc(-x * 0.70710678118654752440); }
SPECIAL(sf_ndtr)
__device__ inline double sf_log_ndtr(double x) {
    double t = x * 0.70710678118654752440;
    return x < -1.0 ? m_log(0.5 * sf_erfcx(-t)) - t * t : m_log1p(-0.5 * m_erfc(t));
}
SPECIAL(sf_log_ndtr)

__device__ inline double sf_zeta(double s, double q) {
    if (s != s || q != q) return NAN_;
    if (s == 1.0) return Limits<double>::infinity();
    if (s < 1.0) return NAN_;
    if (q <= 0.0) {
        if (q == m_floor(q)) return Limits<double>::infinity();
        if (s != m_floor(s)) return NAN_;
    }
    return hurwitz_zeta(s, q);
}
SPECIAL2(sf_zeta)

// ln(1 + u) - u.
__device__ inline double sf_log1p_minus(double u) {
    if (m_abs(u) > 0.3) return m_log1p(u) - u;
    double r = u / (2.0 + u), s = r * r, power = 2.0 * r * s, sum = 0.0;
    for (double k = 3.0; m_abs(power) > 1e-19 * m_abs(sum) + 1e-300; k += 2.0) {
        sum += power / k;
        power *= s;
    }
    return sum - u * r;
}
// x^a e^-x / Gamma(a + 1), by Stirling's series 5.11.1 for large a.
__device__ inline double sf_gamma_prefix(double a, double x) {
    if (a < 20.0) return m_exp(a * m_log(x) - x - m_lgamma(a + 1.0));
    double s = 1.0 / (a * a);
    double stirling = (1.0 / 12.0 - s * (1.0 / 360.0 - s * (1.0 / 1260.0 - s * (1.0 / 1680.0 - s * (1.0 / 1188.0 - s * 691.0 / 360360.0))))) / a;
    return m_exp(a * sf_log1p_minus((x - a) / a) - stirling) / m_sqrt(2.0 * PI_ * a);
}
// The regularised incomplete gamma functions: 8.11.4 below a, 8.9.2 above, 8.7.1 for Q of small arguments.
__device__ inline double sf_incomplete_gamma(double a, double x, bool upper) {
    double whole = upper ? 0.0 : 1.0;
    if (a != a || x != x || x < 0.0 || a < 0.0) return NAN_;
    if (a == 0.0) return x > 0.0 ? whole : NAN_;
    if (x == 0.0) return 1.0 - whole;
    if (m_isinf(a)) return m_isinf(x) ? NAN_ : 1.0 - whole;
    if (m_isinf(x)) return whole;
    if (upper && x < 1.1 && a < 1.0) {
        double term = 1.0, sum = 0.0;
        for (double k = 1.0; k < 200.0; k += 1.0) {
            term *= -x / k;
            double next = term / (a + k);
            sum += next;
            if (m_abs(next) <= m_abs(sum) * 1e-18) break;
        }
        double log = a * m_log(x);
        if (a > 0.5) {
            log -= m_lgamma(1.0 + a);
        } else {
            // ln Gamma(1 + a) by 5.7.3, with zeta(k) - 1 for the coefficients.
            double power = -a, tail = 0.0;
            for (int k = 2; k < 60; k++) {
                power *= -a;
                double next = (hurwitz_zeta(k, 1.0) - 1.0) * power / k;
                tail += next;
                if (m_abs(next) < 1e-19) break;
            }
            log -= tail - EULER_ * a - sf_log1p_minus(a);
        }
        return -m_expm1(log) - m_exp(log) * a * sum;
    }
    double steps = 2000.0 + 40.0 * m_sqrt(m_max(a, x));
    if (x < a + 1.0) {
        double term = 1.0, sum = 1.0;
        for (double k = 1.0; k < steps; k += 1.0) {
            term *= x / (a + k);
            sum += term;
            if (term < sum * 1e-17) break;
        }
        double p = sf_gamma_prefix(a, x) * sum;
        return upper ? 1.0 - p : p;
    }
    double b = x + 1.0 - a, c = 1e300, d = 1.0 / (b == 0.0 ? 1e-300 : b), f = d;
    for (double k = 1.0; k < steps; k += 1.0) {
        double n = k * (a - k);
        b += 2.0;
        d = n * d + b;
        d = 1.0 / (d == 0.0 ? 1e-300 : d);
        c = b + n / c;
        if (c == 0.0) c = 1e-300;
        f *= c * d;
        if (m_abs(c * d - 1.0) < 1e-16) break;
    }
    double q = sf_gamma_prefix(a, x) * a * f;
    return upper ? q : 1.0 - q;
}
__device__ inline float sf_incomplete_gamma(float a, float x, bool upper) { return (float)sf_incomplete_gamma((double)a, (double)x, upper); }

// ---- orthogonal polynomials by their recurrences (18.9) ----------------------------------------------------------------
__device__ inline i64 sf_degree(double n) { return m_abs(n) < 9.2e18 ? (i64)n : -1; }
__device__ inline double sf_parity(i64 n) { return n % 2 == 0 ? 1.0 : -1.0; }
__device__ inline double sf_chebyshev(char kind, double x, double degree) {
    i64 n = sf_degree(degree);
    if (n < 0) return 0.0;
    double m = (double)n;
    if (m_abs(x) == 1.0) {
        double sign = x > 0.0 ? 1.0 : sf_parity(n);
        if (kind == 'u') return sign * (m + 1.0);
        bool large = kind == 'v' ? x < 0.0 : kind == 'w' && x > 0.0;
        return large ? sign * (2.0 * m + 1.0) : sign;
    }
    if (n > 6 && m_abs(x) < 1.0) {
        double t = m_acos(x);
        if (kind == 't') return m_cos(m * t);
        if (kind == 'u') return m_sin((m + 1.0) * t) / m_sin(t);
        return kind == 'v' ? m_cos((m + 0.5) * t) / m_cos(0.5 * t) : m_sin((m + 0.5) * t) / m_sin(0.5 * t);
    }
    double q = 1.0, p = kind == 't' ? x : 2.0 * x + (kind == 'v' ? -1.0 : kind == 'w' ? 1.0 : 0.0);
    if (n == 0) return q;
    for (i64 k = 1; k < n && p == p; k++) {
        double next = 2.0 * x * p - q;
        q = p;
        p = next;
    }
    return p;
}
__device__ inline float sf_chebyshev(char kind, float x, float n) { return (float)sf_chebyshev(kind, (double)x, (double)n); }
template <class T> __device__ inline T sf_shifted_chebyshev(char kind, T x, T n) {
    return (T)sf_chebyshev(kind, 2.0 * (double)x - 1.0, (double)n);
}
// The physicists' (scale 2) and the probabilists' (scale 1) Hermite polynomials.
__device__ inline double sf_hermite(double x, double degree, double scale, i64 limit) {
    i64 n = sf_degree(degree);
    if (n < 0) return 0.0;
    if (n > limit) return NAN_;
    double q = 1.0, p = scale * x;
    if (n == 0) return q;
    for (i64 k = 1; k < n && p == p; k++) {
        double next = scale * (x * p - (double)k * q);
        q = p;
        p = next;
    }
    return p;
}
__device__ inline double sf_hermite_h(double x, double n) { return sf_hermite(x, n, 2.0, 512); }
__device__ inline float sf_hermite_h(float x, float n) { return (float)sf_hermite(x, n, 2.0, 128); }
__device__ inline double sf_hermite_he(double x, double n) { return sf_hermite(x, n, 1.0, 512); }
__device__ inline float sf_hermite_he(float x, float n) { return (float)sf_hermite(x, n, 1.0, 128); }
__device__ inline double sf_laguerre_l(double x, double degree) {
    i64 n = sf_degree(degree);
    if (n < 0) return 0.0;
    if (n == 0 || x == 0.0) return 1.0;
    double q = 1.0, p = 1.0 - x;
    for (i64 k = 1; k < n && p == p; k++) {
        double next = ((2.0 * k + 1.0 - x) * p - k * q) / (k + 1.0);
        q = p;
        p = next;
    }
    return p;
}
SPECIAL2(sf_laguerre_l)
__device__ inline double sf_legendre_p(double x, double degree) {
    i64 n = sf_degree(degree);
    if (n < 0) return 0.0;
    if (m_abs(x) == 1.0) return x > 0.0 ? 1.0 : sf_parity(n);
    double q = 1.0, p = x;
    if (n == 0) return q;
    for (i64 k = 1; k < n && p == p; k++) {
        double next = ((2.0 * k + 1.0) * x * p - k * q) / (k + 1.0);
        q = p;
        p = next;
    }
    return p;
}
SPECIAL2(sf_legendre_p)

template <class T> __device__ inline T sf_frexp_mantissa(T a) {
    int e = 0;
    return a == T(0) || !m_isfinite(a) ? a : (T)frexp((double)a, &e);
}
template <class T> __device__ inline T sf_frexp_exponent(T a) {
    int e = 0;
    if (a == T(0) || !m_isfinite(a)) return T(0);
    frexp((double)a, &e);
    return T(e);
}
