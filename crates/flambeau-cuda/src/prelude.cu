// Put before every kernel: number types, conversions, the functions that the table of scalar functions names (m_*), and
// the walk over strided operands.  It needs no CUDA header, so that it compiles with the NVRTC library alone.
typedef long long i64;
typedef unsigned long long u64;
typedef unsigned int u32;
typedef unsigned short u16;
typedef unsigned char u8;

// The multiply-add of products, the only place where two operations may round once.
template <class T> __device__ inline T FMA(T a, T b, T c) { return a * b + c; }
#ifndef FLAMBEAU_EMULATED
__device__ inline float FMA(float a, float b, float c) { return fmaf(a, b, c); }
__device__ inline double FMA(double a, double b, double c) { return fma(a, b, c); }
#endif

__device__ inline float float_of_bits(u32 u) { return __uint_as_float(u); }
__device__ inline u32 bits_of(float f) { return __float_as_uint(f); }

// ---- complex numbers ---------------------------------------------------------------------------------------------------
template <class R> struct Complex {
    typedef R Real;
    R re, im;
    Complex() = default;
    template <class U> __device__ inline Complex(U x) : re(R(x)), im(R(0)) {}
    __device__ inline Complex(R a, R b) : re(a), im(b) {}
    friend __device__ inline Complex operator+(Complex a, Complex b) { return Complex(a.re + b.re, a.im + b.im); }
    friend __device__ inline Complex operator-(Complex a, Complex b) { return Complex(a.re - b.re, a.im - b.im); }
    friend __device__ inline Complex operator*(Complex a, Complex b) {
        return Complex(a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re);
    }
    __device__ inline Complex operator-() const { return Complex(-re, -im); }
    friend __device__ inline bool operator==(Complex a, Complex b) { return a.re == b.re && a.im == b.im; }
    friend __device__ inline bool operator!=(Complex a, Complex b) { return a.re != b.re || a.im != b.im; }
};
typedef Complex<float> c32;
typedef Complex<double> c64;

// ---- small floats ------------------------------------------------------------------------------------------------------
// The magnitude of `f` rounded to nearest even, with M bits of mantissa and the exponent bias BIAS; too large values keep
// counting up.
template <int M, int BIAS> __device__ inline u32 narrow_float(float f) {
    u32 u = bits_of(f) & 0x7fffffffu;
    if (u < (u32)(128 - BIAS) << 23) {
        // Adding a number whose last bit is the target's last bit rounds a subnormal.
        float magic = float_of_bits((u32)(128 - BIAS - M + 23) << 23);
        return bits_of(float_of_bits(u) + magic) - bits_of(magic);
    }
    u += ((u32)(BIAS - 127) << 23) + (1u << (22 - M)) - 1 + ((u >> (23 - M)) & 1);
    return u >> (23 - M);
}
template <int M, int BIAS> __device__ inline float widen_float(u32 magnitude) {
    return float_of_bits(magnitude << (23 - M)) * float_of_bits((u32)(254 - BIAS) << 23);
}
__device__ inline float load_f16(u16 h) {
#ifdef FLAMBEAU_EMULATED
    u32 sign = (u32)(h & 0x8000) << 16, m = h & 0x7fff;
    u32 u = m >= 0x7c00 ? 0x7f800000u | (m & 0x3ff) << 13 : bits_of(widen_float<10, 15>(m));
    return float_of_bits(u | sign);
#else
    float f;
    asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(h));
    return f;
#endif
}
__device__ inline u16 store_f16(float f) {
#ifdef FLAMBEAU_EMULATED
    u32 sign = bits_of(f) >> 16 & 0x8000, u = bits_of(f) & 0x7fffffffu;
    return (u16)(sign | (u > 0x7f800000u ? 0x7e00 : u >= 0x47800000u ? 0x7c00 : narrow_float<10, 15>(f)));
#else
    u16 h;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(f));
    return h;
#endif
}
__device__ inline float load_bf16(u16 h) { return float_of_bits((u32)h << 16); }
__device__ inline u16 store_bf16(float f) {
    u32 u = bits_of(f);
    return (u & 0x7fffffffu) > 0x7f800000u ? (u16)(u >> 16 | 0x40) : (u16)((u + 0x7fff + ((u >> 16) & 1)) >> 16);
}
__device__ inline float load_e4m3(u8 b) {
    u32 sign = (u32)(b & 0x80) << 24, m = b & 0x7f;
    return float_of_bits((m == 0x7f ? 0x7fc00000u : bits_of(widen_float<3, 7>(m))) | sign);
}
// No infinity: what rounds beyond 448 becomes NaN.
__device__ inline u8 store_e4m3(float f) {
    u32 sign = bits_of(f) >> 24 & 0x80, u = bits_of(f) & 0x7fffffffu;
    u32 m = u >= 0x43f00000u ? 0x7f : narrow_float<3, 7>(f);
    return (u8)(sign | m);
}
__device__ inline float load_e5m2(u8 b) {
    u32 sign = (u32)(b & 0x80) << 24, m = b & 0x7f;
    u32 u = m > 0x7c ? 0x7fc00000u : m == 0x7c ? 0x7f800000u : bits_of(widen_float<2, 15>(m));
    return float_of_bits(u | sign);
}
__device__ inline u8 store_e5m2(float f) {
    u32 sign = bits_of(f) >> 24 & 0x80, u = bits_of(f) & 0x7fffffffu;
    return (u8)(sign | (u > 0x7f800000u ? 0x7f : u >= 0x47800000u ? 0x7c : narrow_float<2, 15>(f)));
}

// ---- conversions between classes ---------------------------------------------------------------------------------------
// Floats become integers truncated and saturated, NaN becomes 0; a complex number gives its real part.
template <class To> struct Cast {
    template <class U> static __device__ inline To of(U x) { return (To)x; }
    template <class R> static __device__ inline To of(Complex<R> x) { return (To)x.re; }
};
template <> struct Cast<i64> {
    static __device__ inline i64 of(i64 x) { return x; }
    static __device__ inline i64 of(u64 x) { return (i64)x; }
    static __device__ inline i64 of(float x) { return of((double)x); }
    static __device__ inline i64 of(double x) {
        if (x != x) return 0;
        if (x >= 9223372036854775808.0) return 0x7fffffffffffffffLL;
        if (x < -9223372036854775808.0) return -0x7fffffffffffffffLL - 1;
        return (i64)x;
    }
    template <class R> static __device__ inline i64 of(Complex<R> x) { return of(x.re); }
};
template <class R> struct Cast<Complex<R>> {
    template <class U> static __device__ inline Complex<R> of(U x) { return Complex<R>((R)x, R(0)); }
    template <class U> static __device__ inline Complex<R> of(Complex<U> x) { return Complex<R>((R)x.re, (R)x.im); }
};
template <class U> __device__ inline bool is_true(U x) { return x != U(0); }

// The numbering of dtypes is the Rust enum's.
enum { BOOL, U8, I8, I16, I32, I64, U16, U32, U64, F16, BF16, F32, F64, C64, C128, E4M3, E5M2, C32 };

// Element `i` (bytes from `p`, counted in elements) as a value of class C.  DT is the dtype, or -1 to look at `dtype`.
template <class C, int DT> __device__ inline C load_at(const char *p, i64 dtype, i64 i) {
    switch (DT < 0 ? (int)dtype : DT) {
    case BOOL: return Cast<C>::of((i64)(((const u8 *)p)[i] != 0));
    case U8: return Cast<C>::of((i64)((const u8 *)p)[i]);
    case I8: return Cast<C>::of((i64)((const signed char *)p)[i]);
    case I16: return Cast<C>::of((i64)((const short *)p)[i]);
    case I32: return Cast<C>::of((i64)((const int *)p)[i]);
    case I64: return Cast<C>::of(((const i64 *)p)[i]);
    case U16: return Cast<C>::of((i64)((const u16 *)p)[i]);
    case U32: return Cast<C>::of((i64)((const u32 *)p)[i]);
    case U64: return Cast<C>::of(((const u64 *)p)[i]);
    case F16: return Cast<C>::of(load_f16(((const u16 *)p)[i]));
    case BF16: return Cast<C>::of(load_bf16(((const u16 *)p)[i]));
    case F32: return Cast<C>::of(((const float *)p)[i]);
    case F64: return Cast<C>::of(((const double *)p)[i]);
    case C64: return Cast<C>::of(((const c32 *)p)[i]);
    case C128: return Cast<C>::of(((const c64 *)p)[i]);
    case E4M3: return Cast<C>::of(load_e4m3(((const u8 *)p)[i]));
    case E5M2: return Cast<C>::of(load_e5m2(((const u8 *)p)[i]));
    default: return Cast<C>::of(c32(load_f16(((const u16 *)p)[2 * i]), load_f16(((const u16 *)p)[2 * i + 1])));
    }
}
template <class C, int DT> __device__ inline void store_at(char *p, i64 dtype, i64 i, C x) {
    switch (DT < 0 ? (int)dtype : DT) {
    case BOOL: ((u8 *)p)[i] = is_true(x); break;
    case U8: case I8: ((u8 *)p)[i] = (u8)Cast<i64>::of(x); break;
    case I16: case U16: ((u16 *)p)[i] = (u16)Cast<i64>::of(x); break;
    case I32: case U32: ((u32 *)p)[i] = (u32)Cast<i64>::of(x); break;
    case I64: case U64: ((i64 *)p)[i] = Cast<i64>::of(x); break;
    case F16: ((u16 *)p)[i] = store_f16(Cast<float>::of(x)); break;
    case BF16: ((u16 *)p)[i] = store_bf16(Cast<float>::of(x)); break;
    case F32: ((float *)p)[i] = Cast<float>::of(x); break;
    case F64: ((double *)p)[i] = Cast<double>::of(x); break;
    case C64: ((c32 *)p)[i] = Cast<c32>::of(x); break;
    case C128: ((c64 *)p)[i] = Cast<c64>::of(x); break;
    case E4M3: ((u8 *)p)[i] = store_e4m3(Cast<float>::of(x)); break;
    case E5M2: ((u8 *)p)[i] = store_e5m2(Cast<float>::of(x)); break;
    default: {
        c32 z = Cast<c32>::of(x);
        ((u16 *)p)[2 * i] = store_f16(z.re);
        ((u16 *)p)[2 * i + 1] = store_f16(z.im);
    }
    }
}
// `x` rounded to a dtype and back to class To.
template <class To, int DT, class C> __device__ inline To convert(C x) {
    u64 room[2];
    store_at<C, DT>((char *)room, DT, 0, x);
    return load_at<To, DT>((const char *)room, DT, 0);
}

// ---- walks over strided operands ---------------------------------------------------------------------------------------
enum { MAX_RANK = 8 };
// Sizes, the innermost dimension first; `narrow` when the count fits in 32 bits.
struct Walk { i64 n; i64 rank, narrow; i64 size[MAX_RANK]; };
struct Operand { char *p; i64 dtype; i64 stride[MAX_RANK]; };
struct Coordinates { i64 at[MAX_RANK]; };
// A number: its real (or only) and imaginary parts, an integer in the first one's bits.
struct Num { u64 re, im; };

__device__ inline Coordinates unravel(const Walk &w, i64 i) {
    Coordinates c;
    if (w.rank <= 1) {
        c.at[0] = i;
    } else if (w.narrow) {
        u32 r = (u32)i;
#pragma unroll
        for (int d = 0; d < MAX_RANK; d++)
            if (d < w.rank) {
                u32 size = (u32)w.size[d], q = r / size;
                c.at[d] = r - q * size;
                r = q;
            }
    } else {
        u64 r = (u64)i;
#pragma unroll
        for (int d = 0; d < MAX_RANK; d++)
            if (d < w.rank) {
                u64 size = (u64)w.size[d], q = r / size;
                c.at[d] = (i64)(r - q * size);
                r = q;
            }
    }
    return c;
}
__device__ inline i64 offset(const Coordinates &c, const Walk &w, const i64 *stride) {
    i64 o = 0;
#pragma unroll
    for (int d = 0; d < MAX_RANK; d++)
        if (d < w.rank) o += c.at[d] * stride[d];
    return o;
}
__device__ inline i64 first_index() { return (i64)blockIdx.x * blockDim.x + threadIdx.x; }
__device__ inline i64 index_step() { return (i64)gridDim.x * blockDim.x; }

__device__ inline double double_of_bits(u64 u) {
    union { u64 u; double d; } x;
    x.u = u;
    return x.d;
}
template <class C> struct Number { static __device__ inline C of(Num n) { return C(double_of_bits(n.re)); } };
template <> struct Number<i64> { static __device__ inline i64 of(Num n) { return (i64)n.re; } };
template <class R> struct Number<Complex<R>> {
    static __device__ inline Complex<R> of(Num n) { return Complex<R>((R)double_of_bits(n.re), (R)double_of_bits(n.im)); }
};
