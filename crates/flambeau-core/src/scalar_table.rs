//! The table of scalar functions: every element-by-element operator is said here, once.
//!
//! A row is
//!
//! ```text
//! Name "name" (arguments) Rule [class {formula} …] cuda [class "expression" …] saves [names] grad { argument: derivative, … };
//! ```
//!
//! * The *rule* is a [`DTypeRule`](crate::DTypeRule).
//! * A *formula* is Rust over the arguments. `float` formulas are compiled for f32 and f64, `int` for i64 (every integer
//!   dtype and bool), `complex` for both complex types. `m` offers the functions that the language lacks (`m.exp(a)`),
//!   at the level of the machine's vector unit; `m.bool(x)` is 1 or 0.
//! * The *CUDA expression* uses the same names; `T` is the class's type, `m_exp` … come from the prelude; `any` is every class
//!   that has a formula.
//! * *saves* names what the derivative reads: arguments, or `out` for the result.
//! * *grad* gives, for each argument that has one, the gradient from the cotangent `g`, as an expression over tensors
//!   (`autograd::Expr`), so that it is differentiable itself. Broadcasting and dtypes are undone by the caller. `{}` marks a result that
//!   is not differentiable. For holomorphic functions the derivative is conjugated (PyTorch's convention).
//!
//! Adding a function: add its row here and its signature line in the Python crate.

/// Calls `$callback!` with every row of the table; each crate expands the columns that it needs. The leading
/// `names (m g out)` hands over the identifiers that the formulas use, since macro hygiene hides a callback's own.
#[macro_export]
macro_rules! for_each_scalar_function {
    (with_names $callback:ident) => { $crate::for_each_scalar_function! { $callback } };
    ($callback:ident) => { $callback! { names (m g out);

// ---- arithmetic -------------------------------------------------------------------------------------------------------
/// The value itself: copies and conversions.
Identity "identity" (a) Promote [float { a } int { a } complex { a }] cuda [any "a"] saves [] grad { a: g };
Add "add" (a b) Promote [float { a + b } int { a.wrapping_add(b) } complex { a + b }] cuda [any "a + b"] saves [] grad { a: g, b: g };
/// `a + alpha b`
AddScaled "add_scaled" (a b alpha) Promote [float { a + b * alpha } int { a.wrapping_add(b.wrapping_mul(alpha)) } complex { a + b * alpha }]
    cuda [any "a + b * alpha"] saves [alpha] grad { a: g, b: g * alpha.conj() };
Sub "sub" (a b) Promote [float { a - b } int { a.wrapping_sub(b) } complex { a - b }] cuda [any "a - b"] saves [] grad { a: g, b: -g };
Mul "mul" (a b) Promote [float { a * b } int { a.wrapping_mul(b) } complex { a * b }] cuda [any "a * b"] saves [a b] grad { a: g * b.conj(), b: g * a.conj() };
Div "div" (a b) Float [float { a / b } complex { m.div(a, b) }] cuda [float "a / b" complex "m_div(a, b)"] saves [a b]
    grad { a: g / b.conj(), b: -(g * (a / b / b).conj()) };
FloorDiv "floor_divide" (a b) Promote [float { m.floor_div(a, b) } int { m.floor_div(a, b) }] cuda [any "m_floor_div(a, b)"] saves [] grad { a: g.zero(), b: g.zero() };
TruncDiv "trunc_divide" (a b) Promote [float { m.trunc(a / b) } int { m.trunc_div(a, b) }] cuda [any "m_trunc_div(a, b)"] saves [] grad { a: g.zero(), b: g.zero() };
/// Remainder with the divisor's sign (Python's `%`).
Remainder "remainder" (a b) Promote [float { m.remainder(a, b) } int { m.remainder(a, b) }] cuda [any "m_remainder(a, b)"] saves [a b]
    grad { a: g, b: -(g * a.floor_divide(b)) };
/// Remainder with the dividend's sign (C's `fmod`).
Fmod "fmod" (a b) Promote [float { m.fmod(a, b) } int { m.fmod(a, b) }] cuda [any "m_fmod(a, b)"] saves [a b]
    grad { a: g, b: -(g * a.trunc_divide(b)) };
Pow "pow" (a b) Promote [float { m.pow(a, b) } int { m.pow(a, b) } complex { m.pow(a, b) }] cuda [any "m_pow(a, b)"] saves [a b out]
    grad { a: b.eq(0.0).select(0.0, g * (b * a.pow(b - 1.0)).conj()), b: (a.eq(0.0).logical_and(b.re_ge(0.0))).select(0.0, g * (out * a.log()).conj()) };
Neg "neg" (a) Promote [float { -a } int { a.wrapping_neg() } complex { -a }] cuda [any "-a"] saves [] grad { a: -g };
Abs "abs" (a) Real [float { m.abs(a) } int { a.wrapping_abs() } complex { m.abs(a) }] cuda [any "m_abs(a)"] saves [a] grad { a: g * a.sgn() };
Reciprocal "reciprocal" (a) Float [float { 1.0 / a } complex { m.div(m.lit(1.0), a) }] cuda [float "T(1) / a" complex "m_div(T(1), a)"] saves [out] grad { a: -(g * (out * out).conj()) };
Sqrt "sqrt" (a) Float [float { m.sqrt(a) } complex { m.sqrt(a) }] cuda [any "m_sqrt(a)"] saves [out] grad { a: g / (out.conj() * 2.0) };
Rsqrt "rsqrt" (a) Float [float { 1.0 / m.sqrt(a) } complex { m.div(m.lit(1.0), m.sqrt(a)) }] cuda [float "T(1) / m_sqrt(a)" complex "m_div(T(1), m_sqrt(a))"] saves [out] grad { a: g * (out * out * out).conj() * -0.5 };
Square "square" (a) Promote [float { a * a } int { a.wrapping_mul(a) } complex { a * a }] cuda [any "a * a"] saves [a] grad { a: g * a.conj() * 2.0 };
/// -1, 0 or 1; NaN stays NaN.
Sign "sign" (a) Promote [float { m.sign(a) } int { a.signum() }] cuda [any "m_sign(a)"] saves [] grad { a: g.zero() };
/// `a / |a|`, 0 at 0.
Sgn "sgn" (a) Promote [float { m.sign(a) } int { a.signum() } complex { m.sgn(a) }] cuda [any "m_sgn(a)"] saves [a out] grad { a: g.sgn_grad(a, out) };
Maximum "maximum" (a b) Promote [float { m.max(a, b) } int { a.max(b) }] cuda [any "m_max(a, b)"] saves [a b]
    grad { a: a.eq(b).select(g * 0.5, a.lt(b).select(0.0, g)), b: a.eq(b).select(g * 0.5, a.gt(b).select(0.0, g)) };
Minimum "minimum" (a b) Promote [float { m.min(a, b) } int { a.min(b) }] cuda [any "m_min(a, b)"] saves [a b]
    grad { a: a.eq(b).select(g * 0.5, a.gt(b).select(0.0, g)), b: a.eq(b).select(g * 0.5, a.lt(b).select(0.0, g)) };
/// Maximum that ignores a NaN.
Fmax "fmax" (a b) Promote [float { m.fmax(a, b) } int { a.max(b) }] cuda [any "m_fmax(a, b)"] saves [a b]
    grad { a: a.ge(b).logical_or(b.isnan()).select(g, 0.0), b: a.ge(b).logical_or(b.isnan()).select(0.0, g) };
Fmin "fmin" (a b) Promote [float { m.fmin(a, b) } int { a.min(b) }] cuda [any "m_fmin(a, b)"] saves [a b]
    grad { a: a.le(b).logical_or(b.isnan()).select(g, 0.0), b: a.le(b).logical_or(b.isnan()).select(0.0, g) };
/// `max(a, lo)` then `min(_, hi)`
Clamp "clamp" (a lo hi) Promote [float { m.min(m.max(a, lo), hi) } int { a.max(lo).min(hi) }] cuda [any "m_min(m_max(a, lo), hi)"] saves [a lo hi]
    grad { a: a.ge(lo).logical_and(a.le(hi)).select(g, 0.0), lo: a.lt(lo).logical_and(lo.lt(hi)).select(g, 0.0), hi: a.gt(hi).logical_or(lo.gt(hi)).select(g, 0.0) };
ClampMin "clamp_min" (a lo) Promote [float { m.max(a, lo) } int { a.max(lo) }] cuda [any "m_max(a, lo)"] saves [a lo]
    grad { a: a.ge(lo).select(g, 0.0), lo: a.lt(lo).select(g, 0.0) };
ClampMax "clamp_max" (a hi) Promote [float { m.min(a, hi) } int { a.min(hi) }] cuda [any "m_min(a, hi)"] saves [a hi]
    grad { a: a.le(hi).select(g, 0.0), hi: a.gt(hi).select(g, 0.0) };
/// `a + v b c`
Addcmul "addcmul" (a b c v) Promote [float { a + v * b * c } int { a.wrapping_add(v.wrapping_mul(b).wrapping_mul(c)) } complex { a + v * b * c }] cuda [any "a + v * b * c"] saves [b c v]
    grad { a: g, b: g * (v * c).conj(), c: g * (v * b).conj() };
/// `a + v b / c`
Addcdiv "addcdiv" (a b c v) Promote [float { a + v * (b / c) } complex { a + v * m.div(b, c) }] cuda [float "a + v * (b / c)" complex "a + v * m_div(b, c)"] saves [b c v]
    grad { a: g, b: g * (v / c).conj(), c: -(g * (v * b / (c * c)).conj()) };
/// `a + w (b - a)`, computed from the nearer end.
Lerp "lerp" (a b w) Promote [float { if m.abs(w) < 0.5 { a + w * (b - a) } else { b - (b - a) * (1.0 - w) } } complex { if m.norm(w) < 0.5 { a + w * (b - a) } else { b - (b - a) * (m.lit(1.0) - w) } }]
    cuda [float "m_abs(w) < T(0.5) ? a + w * (b - a) : b - (b - a) * (T(1) - w)" complex "m_abs_real(w) < 0.5f ? a + w * (b - a) : b - (b - a) * (T(1) - w)"] saves [a b w]
    grad { a: g * (1.0 - w).conj(), b: g * w.conj(), w: g * (b - a).conj() };
Hypot "hypot" (a b) Promote [float { m.hypot(a, b) }] cuda [float "m_hypot(a, b)"] saves [a b out] grad { a: g * (a / out), b: g * (b / out) };
Atan2 "atan2" (a b) Float [float { m.atan2(a, b) }] cuda [float "m_atan2(a, b)"] saves [a b]
    grad { a: g * (a * a + b * b).eq(0.0).select(0.0, b / (a * a + b * b)), b: g * (a * a + b * b).eq(0.0).select(0.0, -(a / (a * a + b * b))) };
Copysign "copysign" (a b) Float [float { m.copysign(a, b) }] cuda [float "m_copysign(a, b)"] saves [a out]
    grad { a: g * a.eq(0.0).select(0.0, out / a), b: g.zero() };
Nextafter "nextafter" (a b) Promote [float { m.nextafter(a, b) }] cuda [float "m_nextafter(a, b)"] saves [a b] grad { a: a.eq(b).select(0.0, g), b: g.zero() };
/// 0 below zero, 1 above, `b` at zero.
Heaviside "heaviside" (a b) Promote [float { if m.is_nan(a) { a } else if a == 0.0 { b } else { m.bool(a > 0.0) } } int { if a == 0 { b } else { m.bool(a > 0) } }]
    cuda [any "a != a ? a : (a == T(0) ? b : T(a > T(0)))"] saves [] grad {};
LogAddExp "logaddexp" (a b) Float [float { m.logaddexp(a, b) }] cuda [float "m_logaddexp(a, b)"] saves [a b]
    grad { a: g / ((b - a).exp() + 1.0), b: g / ((a - b).exp() + 1.0) };
LogAddExp2 "logaddexp2" (a b) Float [float { m.logaddexp2(a, b) }] cuda [float "m_logaddexp2(a, b)"] saves [a b]
    grad { a: g / ((b - a).exp2() + 1.0), b: g / ((a - b).exp2() + 1.0) };
/// `a log b`, 0 where `a` is 0.
Xlogy "xlogy" (a b) Float [float { if m.is_nan(b) { b } else if a == 0.0 { 0.0 } else { a * m.log(b) } }] cuda [float "b != b ? b : (a == T(0) ? T(0) : a * m_log(b))"] saves [a b]
    grad { a: g * a.eq(0.0).logical_and(b.le(0.0)).select(0.0, b.log()), b: g * a / b };
Xlog1py "xlog1py" (a b) Float [float { if m.is_nan(b) { b } else if a == 0.0 { 0.0 } else { a * m.log1p(b) } }] cuda [float "b != b ? b : (a == T(0) ? T(0) : a * m_log1p(b))"] saves [a b]
    grad { a: g * a.eq(0.0).logical_and(b.le(-1.0)).select(0.0, b.log1p()), b: g * a / (b + 1.0) };
Gcd "gcd" (a b) Promote [int { m.gcd(a, b) }] cuda [int "m_gcd(a, b)"] saves [] grad {};
Lcm "lcm" (a b) Promote [int { m.lcm(a, b) }] cuda [int "m_lcm(a, b)"] saves [] grad {};

// ---- comparison and logic ---------------------------------------------------------------------------------------------
Eq "eq" (a b) Predicate [float { m.bool(a == b) } int { m.bool(a == b) } complex { m.bool(a == b) }] cuda [any "T(a == b)"] saves [] grad {};
Ne "ne" (a b) Predicate [float { m.bool(a != b) } int { m.bool(a != b) } complex { m.bool(a != b) }] cuda [any "T(a != b)"] saves [] grad {};
Lt "lt" (a b) Predicate [float { m.bool(a < b) } int { m.bool(a < b) }] cuda [any "T(a < b)"] saves [] grad {};
Le "le" (a b) Predicate [float { m.bool(a <= b) } int { m.bool(a <= b) }] cuda [any "T(a <= b)"] saves [] grad {};
Gt "gt" (a b) Predicate [float { m.bool(a > b) } int { m.bool(a > b) }] cuda [any "T(a > b)"] saves [] grad {};
Ge "ge" (a b) Predicate [float { m.bool(a >= b) } int { m.bool(a >= b) }] cuda [any "T(a >= b)"] saves [] grad {};
LogicalAnd "logical_and" (a b) Predicate [float { m.bool(a != 0.0 && b != 0.0) } int { m.bool(a != 0 && b != 0) } complex { m.bool(m.truth(a) && m.truth(b)) }] cuda [any "T(a != T(0) && b != T(0))"] saves [] grad {};
LogicalOr "logical_or" (a b) Predicate [float { m.bool(a != 0.0 || b != 0.0) } int { m.bool(a != 0 || b != 0) } complex { m.bool(m.truth(a) || m.truth(b)) }] cuda [any "T(a != T(0) || b != T(0))"] saves [] grad {};
LogicalXor "logical_xor" (a b) Predicate [float { m.bool((a != 0.0) != (b != 0.0)) } int { m.bool((a != 0) != (b != 0)) } complex { m.bool(m.truth(a) != m.truth(b)) }] cuda [any "T((a != T(0)) != (b != T(0)))"] saves [] grad {};
LogicalNot "logical_not" (a) Predicate [float { m.bool(a == 0.0) } int { m.bool(a == 0) } complex { m.bool(!m.truth(a)) }] cuda [any "T(a == T(0))"] saves [] grad {};
IsNan "isnan" (a) Predicate [float { m.bool(m.is_nan(a)) } int { a & 0 } complex { m.bool(m.is_nan(a)) }] cuda [float "T(a != a)" int "T(0)" complex "T(a != a)"] saves [] grad {};
IsInf "isinf" (a) Predicate [float { m.bool(m.is_inf(a)) } int { a & 0 } complex { m.bool(m.is_inf(a)) }] cuda [any "T(m_isinf(a))"] saves [] grad {};
IsFinite "isfinite" (a) Predicate [float { m.bool(m.is_finite(a)) } int { a | !a | 1 } complex { m.bool(m.is_finite(a)) }] cuda [any "T(m_isfinite(a))"] saves [] grad {};
IsPosInf "isposinf" (a) Predicate [float { m.bool(m.is_inf(a) && a > 0.0) } int { a & 0 }] cuda [any "T(m_isinf(a) && a > T(0))"] saves [] grad {};
IsNegInf "isneginf" (a) Predicate [float { m.bool(m.is_inf(a) && a < 0.0) } int { a & 0 }] cuda [any "T(m_isinf(a) && a < T(0))"] saves [] grad {};
Signbit "signbit" (a) Predicate [float { m.bool(m.signbit(a)) } int { m.bool(a < 0) }] cuda [any "T(m_signbit(a))"] saves [] grad {};
/// `a` where the condition holds, else `b`.
Where "where" (c a b) Select [float { m.select(c != 0.0, a, b) } int { m.select(c != 0, a, b) } complex { if m.truth(c) { a } else { b } }] cuda [any "c != T(0) ? a : b"] saves [c]
    grad { a: c.select(g, 0.0), b: c.select(0.0, g) };

// ---- bits -------------------------------------------------------------------------------------------------------------
BitAnd "bitwise_and" (a b) Promote [int { a & b }] cuda [int "a & b"] saves [] grad {};
BitOr "bitwise_or" (a b) Promote [int { a | b }] cuda [int "a | b"] saves [] grad {};
BitXor "bitwise_xor" (a b) Promote [int { a ^ b }] cuda [int "a ^ b"] saves [] grad {};
BitNot "bitwise_not" (a) Promote [int { !a }] cuda [int "~a"] saves [] grad {};
ShiftLeft "bitwise_left_shift" (a b) Promote [int { m.shl(a, b) }] cuda [int "m_shl(a, b)"] saves [] grad {};
ShiftRight "bitwise_right_shift" (a b) Promote [int { m.shr(a, b) }] cuda [int "m_shr(a, b)"] saves [] grad {};

// ---- rounding ---------------------------------------------------------------------------------------------------------
Floor "floor" (a) Promote [float { m.floor(a) } int { a }] cuda [float "m_floor(a)" int "a"] saves [] grad { a: g.zero() };
Ceil "ceil" (a) Promote [float { m.ceil(a) } int { a }] cuda [float "m_ceil(a)" int "a"] saves [] grad { a: g.zero() };
Trunc "trunc" (a) Promote [float { m.trunc(a) } int { a }] cuda [float "m_trunc(a)" int "a"] saves [] grad { a: g.zero() };
/// To the nearest integer, halves to even.
Round "round" (a) Promote [float { m.round(a) } int { a }] cuda [float "m_round(a)" int "a"] saves [] grad { a: g.zero() };
/// To `d` decimals, where `s` is 10^|d| and `d` its sign's carrier.
RoundDecimals "round_decimals" (a d s) Promote [float { if d < 0.0 { m.round(a / s) * s } else { m.round(a * s) / s } } int { a }] cuda [float "d < T(0) ? m_round(a / s) * s : m_round(a * s) / s" int "a"] saves [] grad { a: g.zero() };
Frac "frac" (a) Promote [float { a - m.trunc(a) }] cuda [float "a - m_trunc(a)"] saves [] grad { a: g };

// ---- exponential and logarithm ----------------------------------------------------------------------------------------
Exp "exp" (a) Float [float { m.exp(a) } complex { m.exp(a) }] cuda [any "m_exp(a)"] saves [out] grad { a: g * out.conj() };
Exp2 "exp2" (a) Float [float { m.exp2(a) } complex { m.exp2(a) }] cuda [any "m_exp2(a)"] saves [out] grad { a: g * out.conj() * std::f64::consts::LN_2 };
Expm1 "expm1" (a) Float [float { m.expm1(a) } complex { m.expm1(a) }] cuda [any "m_expm1(a)"] saves [out] grad { a: g * (out.conj() + 1.0) };
Log "log" (a) Float [float { m.log(a) } complex { m.log(a) }] cuda [any "m_log(a)"] saves [a] grad { a: g / a.conj() };
Log2 "log2" (a) Float [float { m.log2(a) } complex { m.log2(a) }] cuda [any "m_log2(a)"] saves [a] grad { a: g / (a.conj() * std::f64::consts::LN_2) };
Log10 "log10" (a) Float [float { m.log10(a) } complex { m.log10(a) }] cuda [any "m_log10(a)"] saves [a] grad { a: g / (a.conj() * std::f64::consts::LN_10) };
Log1p "log1p" (a) Float [float { m.log1p(a) } complex { m.log1p(a) }] cuda [any "m_log1p(a)"] saves [a] grad { a: g / (a.conj() + 1.0) };
/// `log(a / (1 - a))`
Logit "logit" (a) Float [float { m.log(a / (1.0 - a)) }] cuda [float "m_log(a / (T(1) - a))"] saves [a] grad { a: a.ge(0.0).logical_and(a.le(1.0)).select(g / (a * (1.0 - a)), f64::NAN) };

// ---- trigonometric and hyperbolic -------------------------------------------------------------------------------------
Sin "sin" (a) Float [float { m.sin(a) } complex { m.sin(a) }] cuda [any "m_sin(a)"] saves [a] grad { a: g * a.cos().conj() };
Cos "cos" (a) Float [float { m.cos(a) } complex { m.cos(a) }] cuda [any "m_cos(a)"] saves [a] grad { a: -(g * a.sin().conj()) };
Tan "tan" (a) Float [float { m.tan(a) } complex { m.tan(a) }] cuda [any "m_tan(a)"] saves [out] grad { a: g * (out * out + 1.0).conj() };
Asin "asin" (a) Float [float { m.asin(a) } complex { m.asin(a) }] cuda [any "m_asin(a)"] saves [a] grad { a: g * (1.0 - a * a).rsqrt().conj() };
Acos "acos" (a) Float [float { m.acos(a) } complex { m.acos(a) }] cuda [any "m_acos(a)"] saves [a] grad { a: -(g * (1.0 - a * a).rsqrt().conj()) };
Atan "atan" (a) Float [float { m.atan(a) } complex { m.atan(a) }] cuda [any "m_atan(a)"] saves [a] grad { a: g / (a * a + 1.0).conj() };
Sinh "sinh" (a) Float [float { m.sinh(a) } complex { m.sinh(a) }] cuda [any "m_sinh(a)"] saves [a] grad { a: g * a.cosh().conj() };
Cosh "cosh" (a) Float [float { m.cosh(a) } complex { m.cosh(a) }] cuda [any "m_cosh(a)"] saves [a] grad { a: g * a.sinh().conj() };
Tanh "tanh" (a) Float [float { m.tanh(a) } complex { m.tanh(a) }] cuda [any "m_tanh(a)"] saves [out] grad { a: g.tanh_grad(out) };
Asinh "asinh" (a) Float [float { m.asinh(a) } complex { m.asinh(a) }] cuda [any "m_asinh(a)"] saves [a] grad { a: g * (a * a + 1.0).rsqrt().conj() };
Acosh "acosh" (a) Float [float { m.acosh(a) } complex { m.acosh(a) }] cuda [any "m_acosh(a)"] saves [a] grad { a: g.acosh_grad(a) };
Atanh "atanh" (a) Float [float { m.atanh(a) } complex { m.atanh(a) }] cuda [any "m_atanh(a)"] saves [a] grad { a: g / (1.0 - a * a).conj() };
/// `sin(πa) / (πa)`, 1 at 0.
Sinc "sinc" (a) Float [float { m.sinc(a) } complex { m.sinc(a) }] cuda [any "m_sinc(a)"] saves [a out]
    grad { a: a.eq(0.0).select(0.0, g * (((a * std::f64::consts::PI).cos() - out) / a).conj()) };

// ---- special ----------------------------------------------------------------------------------------------------------
Erf "erf" (a) Float [float { m.erf(a) }] cuda [float "m_erf(a)"] saves [a] grad { a: g * (-(a * a)).exp() * std::f64::consts::FRAC_2_SQRT_PI };
Erfc "erfc" (a) Float [float { m.erfc(a) }] cuda [float "m_erfc(a)"] saves [a] grad { a: g * (-(a * a)).exp() * -std::f64::consts::FRAC_2_SQRT_PI };
Erfinv "erfinv" (a) Float [float { m.erfinv(a) }] cuda [float "m_erfinv(a)"] saves [out] grad { a: g * (out * out).exp() * (1.0 / std::f64::consts::FRAC_2_SQRT_PI) };
Lgamma "lgamma" (a) Float [float { m.lgamma(a) }] cuda [float "m_lgamma(a)"] saves [a] grad { a: g * a.digamma() };
Digamma "digamma" (a) Float [float { m.digamma(a) }] cuda [float "m_digamma(a)"] saves [a] grad { a: g * a.polygamma(1.0) };
/// The derivative of order `n` of digamma; `n` is a number.
Polygamma "polygamma" (a n) Float [float { m.polygamma(n, a) }] cuda [float "m_polygamma(n, a)"] saves [a n] grad { a: g * a.polygamma(n + 1.0) };
/// Modified Bessel functions of the first kind, orders 0 and 1, plain and scaled by `exp(-|a|)`.
I0 "i0" (a) Float [float { m.i0(a) }] cuda [float "m_i0(a)"] saves [a] grad { a: g * a.i1() };
I0e "special_i0e" (a) Float [float { m.i0e(a) }] cuda [float "m_i0e(a)"] saves [a out] grad { a: g * (a.special_i1e() - a.sgn() * out) };
I1 "special_i1" (a) Float [float { m.i1(a) }] cuda [float "m_i1(a)"] saves [a out] grad { a: g * a.abs().gt(0.0).select(a.i0() - out / a.eq(0.0).select(1.0, a), 0.5) };
I1e "special_i1e" (a) Float [float { m.i1e(a) }] cuda [float "m_i1e(a)"] saves [a out] grad { a: g * a.abs().gt(0.0).select(a.special_i0e() - out * (a.sgn() + 1.0 / a.eq(0.0).select(1.0, a)), 0.5) };
/// The quantile of the standard normal distribution.
Ndtri "special_ndtri" (a) Wide [float { m.ndtri(a) }] cuda [float "m_ndtri(a)"] saves [out] grad { a: g * (out * out * 0.5).exp() * 2.5066282746310002 };
/// `-a log a`, -∞ below 0.
Entr "special_entr" (a) Float [float { if m.is_nan(a) { a } else if a > 0.0 { -a * m.log(a) } else if a == 0.0 { 0.0 } else { m.lit(f64::NEG_INFINITY) } }] cuda [float "a > T(0) ? -a * m_log(a) : (a == T(0) ? T(0) : (a != a ? a : -Limits<T>::infinity()))"] saves [a] grad { a: g * (-1.0 - a.log()) };
/// The distribution function of the standard normal distribution, and its logarithm.
Ndtr "special_ndtr" (a) Float [float { m.ndtr(a) }] cuda [float "sf_ndtr(a)"] saves [a] grad { a: g * (a * a * -0.5).exp() * 0.3989422804014327 };
LogNdtr "special_log_ndtr" (a) Wide [float { m.log_ndtr(a) }] cuda [float "sf_log_ndtr(a)"] saves [a] grad { a: g / (a * -std::f64::consts::FRAC_1_SQRT_2).special_erfcx() * 0.7978845608028654 };
/// `exp(a²) erfc(a)`
Erfcx "special_erfcx" (a) Wide [float { m.erfcx(a) }] cuda [float "sf_erfcx(a)"] saves [a out] grad { a: g * (a * out * 2.0 - std::f64::consts::FRAC_2_SQRT_PI) };
/// Hurwitz's zeta.
Zeta "special_zeta" (a b) Wide [float { m.zeta(a, b) }] cuda [float "sf_zeta(a, b)"] saves [a b] grad { a: g.not_implemented("zeta"), b: g * -a * (a + 1.0).special_zeta(b) };
/// The regularised incomplete gamma functions, lower and upper.
Igamma "igamma" (a b) Promote [float { m.incomplete_gamma(a, b, false) }] cuda [float "sf_incomplete_gamma(a, b, false)"] saves [a b] grad { a: g.not_implemented("igamma: input"), b: g * ((a - 1.0) * b.log() - b - a.lgamma()).exp() };
Igammac "igammac" (a b) Promote [float { m.incomplete_gamma(a, b, true) }] cuda [float "sf_incomplete_gamma(a, b, true)"] saves [a b] grad { a: g.not_implemented("igammac: input"), b: -(g * ((a - 1.0) * b.log() - b - a.lgamma()).exp()) };
/// Airy's function Ai.
AiryAi "special_airy_ai" (a) Wide [float { m.airy_ai(a) }] cuda [float "sf_airy_ai(a)"] saves [] grad {};
/// Bessel functions.
BesselJ0 "special_bessel_j0" (a) Wide [float { m.bessel_j0(a) }] cuda [float "sf_bessel_j0(a)"] saves [] grad {};
BesselJ1 "special_bessel_j1" (a) Wide [float { m.bessel_j1(a) }] cuda [float "sf_bessel_j1(a)"] saves [] grad {};
BesselY0 "special_bessel_y0" (a) Wide [float { m.bessel_y0(a) }] cuda [float "sf_bessel_y0(a)"] saves [] grad {};
BesselY1 "special_bessel_y1" (a) Wide [float { m.bessel_y1(a) }] cuda [float "sf_bessel_y1(a)"] saves [] grad {};
SphericalBesselJ0 "special_spherical_bessel_j0" (a) Wide [float { m.spherical_bessel_j0(a) }] cuda [float "sf_spherical_bessel_j0(a)"] saves [] grad {};
/// Modified Bessel functions.
ModifiedBesselI0 "special_modified_bessel_i0" (a) Wide [float { m.i0(a) }] cuda [float "m_i0(a)"] saves [] grad {};
ModifiedBesselI1 "special_modified_bessel_i1" (a) Wide [float { m.i1(a) }] cuda [float "m_i1(a)"] saves [] grad {};
ModifiedBesselK0 "special_modified_bessel_k0" (a) Wide [float { m.bessel_k(0, a, false) }] cuda [float "sf_bessel_k(0, a, false)"] saves [] grad {};
ModifiedBesselK1 "special_modified_bessel_k1" (a) Wide [float { m.bessel_k(1, a, false) }] cuda [float "sf_bessel_k(1, a, false)"] saves [] grad {};
ScaledModifiedBesselK0 "special_scaled_modified_bessel_k0" (a) Wide [float { m.bessel_k(0, a, true) }] cuda [float "sf_bessel_k(0, a, true)"] saves [] grad {};
ScaledModifiedBesselK1 "special_scaled_modified_bessel_k1" (a) Wide [float { m.bessel_k(1, a, true) }] cuda [float "sf_bessel_k(1, a, true)"] saves [] grad {};
/// Orthogonal polynomials of degree `n`.
ChebyshevT "special_chebyshev_polynomial_t" (a n) Wide [float { m.chebyshev('t', a, n) }] cuda [float "sf_chebyshev('t', a, n)"] saves [] grad {};
ChebyshevU "special_chebyshev_polynomial_u" (a n) Wide [float { m.chebyshev('u', a, n) }] cuda [float "sf_chebyshev('u', a, n)"] saves [] grad {};
ChebyshevV "special_chebyshev_polynomial_v" (a n) Wide [float { m.chebyshev('v', a, n) }] cuda [float "sf_chebyshev('v', a, n)"] saves [] grad {};
ChebyshevW "special_chebyshev_polynomial_w" (a n) Wide [float { m.chebyshev('w', a, n) }] cuda [float "sf_chebyshev('w', a, n)"] saves [] grad {};
ShiftedChebyshevT "special_shifted_chebyshev_polynomial_t" (a n) Wide [float { m.shifted_chebyshev('t', a, n) }] cuda [float "sf_shifted_chebyshev('t', a, n)"] saves [] grad {};
ShiftedChebyshevU "special_shifted_chebyshev_polynomial_u" (a n) Wide [float { m.shifted_chebyshev('u', a, n) }] cuda [float "sf_shifted_chebyshev('u', a, n)"] saves [] grad {};
ShiftedChebyshevV "special_shifted_chebyshev_polynomial_v" (a n) Wide [float { m.shifted_chebyshev('v', a, n) }] cuda [float "sf_shifted_chebyshev('v', a, n)"] saves [] grad {};
ShiftedChebyshevW "special_shifted_chebyshev_polynomial_w" (a n) Wide [float { m.shifted_chebyshev('w', a, n) }] cuda [float "sf_shifted_chebyshev('w', a, n)"] saves [] grad {};
HermiteH "special_hermite_polynomial_h" (a n) Wide [float { m.hermite_h(a, n) }] cuda [float "sf_hermite_h(a, n)"] saves [] grad {};
HermiteHe "special_hermite_polynomial_he" (a n) Wide [float { m.hermite_he(a, n) }] cuda [float "sf_hermite_he(a, n)"] saves [] grad {};
LaguerreL "special_laguerre_polynomial_l" (a n) Wide [float { m.laguerre_l(a, n) }] cuda [float "sf_laguerre_l(a, n)"] saves [] grad {};
LegendreP "special_legendre_polynomial_p" (a n) Wide [float { m.legendre_p(a, n) }] cuda [float "sf_legendre_p(a, n)"] saves [] grad {};
/// Mantissa in [½, 1) and exponent of 2.
FrexpMantissa "frexp" (a) Promote [float { m.frexp_mantissa(a) }] cuda [float "sf_frexp_mantissa(a)"] saves [a] grad { a: g * (-a.frexp_exponent()).exp2() };
FrexpExponent "frexp_exponent" (a) Promote [float { m.frexp_exponent(a) }] cuda [float "sf_frexp_exponent(a)"] saves [] grad {};

// ---- activations ------------------------------------------------------------------------------------------------------
Relu "relu" (a) Promote [float { if a <= 0.0 { 0.0 } else { a } } int { a.max(0) }] cuda [any "a <= T(0) ? T(0) : a"] saves [out] grad { a: g.relu_grad(out) };
/// `g` where the output is positive, or NaN.
ReluGrad "relu_grad" (a out) Promote [float { if out <= 0.0 { 0.0 } else { a } }] cuda [float "out <= T(0) ? T(0) : a"] saves [out] grad { a: g.relu_grad(out), out: g.zero() };
LeakyRelu "leaky_relu" (a s) Promote [float { if a > 0.0 { a } else { a * s } }] cuda [float "a > T(0) ? a : a * s"] saves [a s] grad { a: a.gt(0.0).select(g, g * s), s: a.gt(0.0).select(0.0, g * a) };
/// `scale a` above zero, `scale alpha (exp(k a) - 1)` below.
Elu "elu" (a alpha scale k) Promote [float { if a > 0.0 { a * scale } else { m.expm1(a * k) * alpha * scale } }] cuda [float "a > T(0) ? a * scale : m_expm1(a * k) * alpha * scale"] saves [a alpha scale k]
    grad { a: a.gt(0.0).select(g * scale, g * (a.gt(0.0).select(0.0, a) * k).exp() * (alpha * scale * k)) };
Gelu "gelu" (a) Promote [float { m.gelu(a) }] cuda [float "m_gelu(a)"] saves [a] grad { a: g.gelu_grad(a) };
/// `g` times the derivative of gelu at `x`: `Φ(x) + x φ(x)`.
GeluGrad "gelu_grad" (a x) Promote [float { m.gelu_grad(a, x) }] cuda [float "m_gelu_grad(a, x)"] saves [a x]
    grad { a: g.gelu_grad(x), x: g * a * (x * x * -0.5).exp() * (2.0 - x * x) * 0.3989422804014327 };
/// gelu by tanh.
GeluTanh "gelu_tanh" (a) Promote [float { m.gelu_tanh(a) }] cuda [float "m_gelu_tanh(a)"] saves [a]
    grad { a: g * gelu_tanh_derivative(a) };
Silu "silu" (a) Promote [float { a / (1.0 + m.exp(-a)) } complex { m.div(a, m.lit(1.0) + m.exp(-a)) }] cuda [float "a / (T(1) + m_exp(-a))" complex "m_div(a, T(1) + m_exp(-a))"] saves [a]
    grad { a: g * (a.sigmoid() * (1.0 + a * (1.0 - a.sigmoid()))).conj() };
Mish "mish" (a) Promote [float { a * m.tanh(m.softplus(a)) }] cuda [float "a * m_tanh(m_softplus(a))"] saves [a]
    grad { a: g * (a.softplus(1.0, 20.0).tanh() + a * a.sigmoid() * (1.0 - a.softplus(1.0, 20.0).tanh() * a.softplus(1.0, 20.0).tanh())) };
Sigmoid "sigmoid" (a) Float [float { m.sigmoid(a) } complex { m.div(m.lit(1.0), m.lit(1.0) + m.exp(-a)) }] cuda [float "T(1) / (T(1) + m_exp(-a))" complex "m_div(T(1), T(1) + m_exp(-a))"] saves [out] grad { a: g.sigmoid_grad(out) };
/// `g conj(out (1 - out))`
SigmoidGrad "sigmoid_grad" (a out) Promote [float { a * ((1.0 - out) * out) } complex { a * ((m.lit(1.0) - out) * out).conj() }] cuda [float "a * ((T(1) - out) * out)" complex "a * m_conj((T(1) - out) * out)"] saves [a out]
    grad { a: g.sigmoid_grad(out.conj()), out: (g * a.conj() * (1.0 - out * 2.0)).conj_if_complex() };
/// `g conj(1 - out²)`
TanhGrad "tanh_grad" (a out) Promote [float { a * (1.0 - out * out) } complex { a * (m.lit(1.0) - out * out).conj() }] cuda [float "a * (T(1) - out * out)" complex "a * m_conj(T(1) - out * out)"] saves [a out]
    grad { a: g.tanh_grad(out.conj()), out: (g * a.conj() * out * -2.0).conj_if_complex() };
LogSigmoid "log_sigmoid" (a) Promote [float { m.min(a, 0.0) - m.log1p(m.exp(-m.abs(a))) }] cuda [float "m_min(a, T(0)) - m_log1p(m_exp(-m_abs(a)))"] saves [a] grad { a: g * (-a).sigmoid() };
/// `log(1 + exp(beta a)) / beta`, `a` beyond the threshold.
Softplus "softplus" (a beta t) Promote [float { if a * beta > t { a } else { m.log1p(m.exp(a * beta)) / beta } }] cuda [float "a * beta > t ? a : m_log1p(m_exp(a * beta)) / beta"] saves [a beta t]
    grad { a: (a * beta).gt(t).select(g, g * (a * beta).sigmoid()) };
Hardshrink "hardshrink" (a l) Promote [float { if a >= -l && a <= l { 0.0 } else { a } }] cuda [float "a >= -l && a <= l ? T(0) : a"] saves [a l] grad { a: a.abs().gt(l).select(g, 0.0) };
Softshrink "softshrink" (a l) Promote [float { if a > l { a - l } else if a < -l { a + l } else { a * 0.0 } }] cuda [float "a > l ? a - l : (a < -l ? a + l : a * T(0))"] saves [a l] grad { a: a.abs().gt(l).select(g, 0.0) };
/// `a` above the threshold, else `v`.
Threshold "threshold" (a t v) Promote [float { if a <= t { v } else { a } } int { if a <= t { v } else { a } }] cuda [any "a <= t ? v : a"] saves [a t] grad { a: a.le(t).select(0.0, g) };
Hardsigmoid "hardsigmoid" (a) Promote [float { m.min(m.max(a + 3.0, 0.0), 6.0) / 6.0 }] cuda [float "m_min(m_max(a + T(3), T(0)), T(6)) / T(6)"] saves [a]
    grad { a: a.gt(-3.0).logical_and(a.lt(3.0)).select(g * (1.0 / 6.0), 0.0) };
Hardswish "hardswish" (a) Promote [float { a * m.min(m.max(a + 3.0, 0.0), 6.0) / 6.0 }] cuda [float "a * m_min(m_max(a + T(3), T(0)), T(6)) / T(6)"] saves [a]
    grad { a: a.le(-3.0).select(0.0, a.lt(3.0).select(g * (a / 3.0 + 0.5), g)) };
Hardtanh "hardtanh" (a lo hi) Promote [float { m.min(m.max(a, lo), hi) } int { a.max(lo).min(hi) }] cuda [any "m_min(m_max(a, lo), hi)"] saves [a lo hi]
    grad { a: a.gt(lo).logical_and(a.lt(hi)).select(g, 0.0) };
/// Of a difference: quadratic below `beta`, linear above, in the loss's own scale.
SmoothL1 "smooth_l1" (a beta) Promote [float { if m.abs(a) < beta { 0.5 * a * a / beta } else { m.abs(a) - 0.5 * beta } }] cuda [float "m_abs(a) < beta ? T(0.5) * a * a / beta : m_abs(a) - T(0.5) * beta"] saves [a beta]
    grad { a: a.abs().lt(beta).select(g * a / beta, g * a.sgn()) };
Huber "huber" (a d) Promote [float { if m.abs(a) <= d { 0.5 * a * a } else { d * (m.abs(a) - 0.5 * d) } }] cuda [float "m_abs(a) <= d ? T(0.5) * a * a : d * (m_abs(a) - T(0.5) * d)"] saves [a d]
    grad { a: a.abs().le(d).select(g * a, g * a.sgn() * d) };
/// NaN, +∞ and −∞ replaced by numbers.
NanToNum "nan_to_num" (a n p q) Promote [float { if m.is_nan(a) { n } else if m.is_inf(a) { if a > 0.0 { p } else { q } } else { a } } int { a }] cuda [float "a != a ? n : (m_isinf(a) ? (a > T(0) ? p : q) : a)" int "a"] saves [a]
    grad { a: a.isfinite().select(g, 0.0) };

// ---- complex ----------------------------------------------------------------------------------------------------------
Conj "conj_physical" (a) Promote [float { a } int { a } complex { a.conj() }] cuda [float "a" int "a" complex "m_conj(a)"] saves [] grad { a: g.conj() };
Angle "angle" (a) Real [float { if m.is_nan(a) { a } else if a < 0.0 { std::f64::consts::PI as T } else { 0.0 } } complex { m.angle(a) }] cuda [float "a != a ? a : (a < T(0) ? T(3.14159265358979323846) : T(0))" complex "m_angle(a)"] saves [a]
    grad { a: g.angle_grad(a) };

    } };
}
