//! Signatures of the scalar functions: every operator that is a row of the core's table, or a few of them.

use flambeau::core::{err, Category, Class, ScalarFn};
use flambeau::ops::elementwise;
use flambeau::{DType, Dest, Number, Result, Tensor, Value};

/// A row of one argument.
macro_rules! unary {
    ($Row:ident) => {
        |input: &Tensor, dest: Dest<'_>| elementwise::unary(ScalarFn::$Row, input, dest)
    };
}
/// A row of two arguments, each a tensor, a number or either.
macro_rules! binary {
    ($Row:ident tensor tensor) => {
        |input: &Tensor, other: &Tensor, dest: Dest<'_>| elementwise::binary(ScalarFn::$Row, input, other, dest)
    };
    ($Row:ident tensor value) => {
        |input: &Tensor, other: Value<'_>, dest: Dest<'_>| elementwise::binary(ScalarFn::$Row, input, other, dest)
    };
    ($Row:ident number tensor) => {
        |input: Number, other: &Tensor, dest: Dest<'_>| elementwise::binary(ScalarFn::$Row, input, other, dest)
    };
    ($Row:ident number value) => {
        |input: Number, other: Value<'_>, dest: Dest<'_>| elementwise::binary(ScalarFn::$Row, input, other, dest)
    };
}

/// `input` itself as the destination of an activation with `inplace=True`.
fn onto(input: &Tensor, inplace: bool) -> Dest<'_> {
    if inplace {
        Dest::Inplace(input)
    } else {
        Dest::New
    }
}
fn is_bool(v: Value<'_>) -> bool {
    match v {
        Value::Tensor(t) => t.dtype() == DType::Bool,
        Value::Number(n) => n.category() == Category::Bool,
    }
}
fn category(v: Value<'_>) -> Category {
    match v {
        Value::Tensor(t) => t.dtype().category(),
        Value::Number(n) => n.category(),
    }
}
fn is_one(n: Number) -> bool {
    matches!(n, Number::Int(1)) || n == Number::Float(1.0)
}
/// `alpha` may not raise the category of what it multiplies.
fn check_alpha(a: Value<'_>, b: Value<'_>, alpha: Number) -> Result<()> {
    let result = category(a).max(category(b));
    if alpha.category() == Category::Bool && result != Category::Bool {
        return Err(err!(Runtime, "Boolean alpha only supported for Boolean results."));
    }
    if alpha.category() > result && result < Category::Float {
        return Err(err!(Runtime, "For integral input tensors, argument alpha must not be a floating point number."));
    }
    if alpha.category() == Category::Complex && result != Category::Complex {
        return Err(err!(Runtime, "For non-complex input tensors, argument alpha must not be a complex number."));
    }
    Ok(())
}

/// `a + alpha b`
pub fn add_values(a: Value<'_>, b: Value<'_>, alpha: Number, dest: Dest<'_>) -> Result<Tensor> {
    if is_one(alpha) {
        return elementwise::binary(ScalarFn::Add, a, b, dest);
    }
    check_alpha(a, b, alpha)?;
    elementwise::map(ScalarFn::AddScaled, &[a, b, alpha.into()], dest)
}
fn add(input: &Tensor, other: Value<'_>, alpha: Number, dest: Dest<'_>) -> Result<Tensor> {
    add_values(input.into(), other, alpha, dest)
}
/// `a - alpha b`
pub fn sub_values(a: Value<'_>, b: Value<'_>, alpha: Number, dest: Dest<'_>) -> Result<Tensor> {
    if is_bool(a) && is_bool(b) {
        return Err(err!(
            Runtime,
            "Subtraction, the `-` operator, with two bool tensors is not supported. Use the `^` or `logical_xor()` operator instead."
        ));
    }
    if is_bool(a) || is_bool(b) {
        return Err(err!(
            Runtime,
            "Subtraction, the `-` operator, with a bool tensor is not supported. If you are trying to invert a mask, use the \
             `~` or `logical_not()` operator instead."
        ));
    }
    if is_one(alpha) {
        return elementwise::binary(ScalarFn::Sub, a, b, dest);
    }
    check_alpha(a, b, alpha)?;
    let minus = match alpha {
        Number::Bool(x) => Number::Int(-(x as i64)),
        Number::Int(i) => Number::Int(i.wrapping_neg()),
        Number::Float(f) => Number::Float(-f),
        Number::Complex(c) => Number::Complex(-c),
    };
    elementwise::map(ScalarFn::AddScaled, &[a, b, minus.into()], dest)
}
fn sub(input: &Tensor, other: Value<'_>, alpha: Number, dest: Dest<'_>) -> Result<Tensor> {
    sub_values(input.into(), other, alpha, dest)
}
/// `a / b`, rounded as asked.
pub fn div_values(a: Value<'_>, b: Value<'_>, rounding: Option<&str>, dest: Dest<'_>) -> Result<Tensor> {
    let f = match rounding {
        None => ScalarFn::Div,
        Some("floor") => ScalarFn::FloorDiv,
        Some("trunc") => ScalarFn::TruncDiv,
        Some(other) => {
            return Err(err!(
                Runtime,
                "div expected rounding_mode to be one of None, 'trunc', or 'floor' but found '{other}'"
            ))
        }
    };
    let reduced = |v: Value<'_>| matches!(v, Value::Tensor(t) if t.dtype().is_reduced());
    if f == ScalarFn::TruncDiv && (reduced(a) || reduced(b)) {
        // A quotient of halves is rounded to a half before its fraction is cut off.
        let quotient = elementwise::binary(ScalarFn::Div, a, b, Dest::New)?;
        if quotient.dtype().is_reduced() {
            return flambeau::apply::store("div", elementwise::trunc(&quotient)?, dest);
        }
    }
    elementwise::binary(f, a, b, dest)
}
fn div(input: &Tensor, other: Value<'_>, rounding: Option<&str>, dest: Dest<'_>) -> Result<Tensor> {
    div_values(input.into(), other, rounding, dest)
}
/// `a ^ b`
pub fn pow(a: Value<'_>, b: Value<'_>, dest: Dest<'_>) -> Result<Tensor> {
    if let (Value::Tensor(t), Value::Number(Number::Int(e))) = (a, b) {
        if e < 0 && t.dtype().is_integral(true) {
            return Err(err!(Runtime, "Integers to negative integer powers are not allowed."));
        }
        if e == 2 && t.dtype() != DType::Bool {
            return elementwise::unary(ScalarFn::Square, t, dest);
        }
    }
    elementwise::binary(ScalarFn::Pow, a, b, dest)
}
fn float_power(a: Value<'_>, b: Value<'_>) -> Result<Tensor> {
    let complex = category(a) == Category::Complex || category(b) == Category::Complex;
    let dtype = if complex { DType::C128 } else { DType::F64 };
    let raise = |v: Value<'_>| -> Result<Tensor> {
        match v {
            Value::Tensor(t) => elementwise::to_dtype(t, dtype),
            Value::Number(n) => elementwise::to_dtype(&elementwise::number_tensor(n)?, dtype),
        }
    };
    elementwise::pow(&raise(a)?, &raise(b)?)
}
fn float_power_(input: &Tensor, exponent: Value<'_>) -> Result<Tensor> {
    let power = float_power(input.into(), exponent)?;
    if power.dtype() != input.dtype() {
        return Err(flambeau::core::err!(
            Runtime,
            "the base given to float_power_ has dtype {} but the operation's result requires dtype {}",
            input.dtype().title(),
            power.dtype().title()
        ));
    }
    if input.requires_grad() && flambeau::mode::grad_enabled() {
        // The power's gradient reads the base, which is about to be overwritten.
        let power = float_power((&flambeau::ops::view::clone(input)?).into(), exponent)?;
        return elementwise::copy_(input, &power);
    }
    elementwise::copy_(input, &power)
}
fn square(input: &Tensor, dest: Dest<'_>) -> Result<Tensor> {
    if input.dtype() == DType::Bool {
        return elementwise::binary(ScalarFn::Pow, input, 2, dest);
    }
    elementwise::unary(ScalarFn::Square, input, dest)
}
fn angle(input: &Tensor, dest: Dest<'_>) -> Result<Tensor> {
    if input.dtype().is_integral(true) {
        let real = elementwise::to_dtype(input, flambeau::mode::default_dtype())?;
        return elementwise::unary(ScalarFn::Angle, &real, dest);
    }
    elementwise::unary(ScalarFn::Angle, input, dest)
}
fn bitwise_not(input: &Tensor, dest: Dest<'_>) -> Result<Tensor> {
    let f = if input.dtype() == DType::Bool { ScalarFn::LogicalNot } else { ScalarFn::BitNot };
    elementwise::unary(f, input, dest)
}
fn neg(input: &Tensor, dest: Dest<'_>) -> Result<Tensor> {
    if input.dtype() == DType::Bool {
        return Err(err!(
            Runtime,
            "Negation, the `-` operator, on a bool tensor is not supported. If you are trying to invert a mask, use the `~` or \
             `logical_not()` operator instead."
        ));
    }
    elementwise::unary(ScalarFn::Neg, input, dest)
}
fn round(input: &Tensor, decimals: i64, dest: Dest<'_>) -> Result<Tensor> {
    if decimals == 0 {
        return elementwise::unary(ScalarFn::Round, input, dest);
    }
    let scale = 10f64.powi(decimals.unsigned_abs().min(400) as i32);
    elementwise::map(ScalarFn::RoundDecimals, &[input.into(), (decimals as f64).into(), scale.into()], dest)
}
fn logit(input: &Tensor, eps: Option<f64>, dest: Dest<'_>) -> Result<Tensor> {
    match eps {
        None => elementwise::unary(ScalarFn::Logit, input, dest),
        Some(e) => {
            let clamped = elementwise::map(ScalarFn::Clamp, &[input.into(), e.into(), (1.0 - e).into()], Dest::New)?;
            elementwise::unary(ScalarFn::Logit, &clamped, dest)
        }
    }
}
fn nan_to_num(
    input: &Tensor,
    nan: Option<f64>,
    posinf: Option<f64>,
    neginf: Option<f64>,
    dest: Dest<'_>,
) -> Result<Tensor> {
    let largest = match input.dtype().to_real() {
        DType::F16 => 65504.0,
        DType::BF16 => 3.3895313892515355e38,
        DType::F64 => f64::MAX,
        _ => f32::MAX as f64,
    };
    let numbers = [nan.unwrap_or(0.0), posinf.unwrap_or(largest), neginf.unwrap_or(-largest)];
    if input.dtype().is_complex() {
        let parts = flambeau::ops::view::view_as_real(input)?;
        let clean = elementwise::map(
            ScalarFn::NanToNum,
            &[(&parts).into(), numbers[0].into(), numbers[1].into(), numbers[2].into()],
            Dest::New,
        )?;
        return match dest {
            Dest::Inplace(t) => elementwise::copy_(t, &flambeau::ops::view::view_as_complex(&clean)?),
            _ => flambeau::ops::view::view_as_complex(&clean),
        };
    }
    if input.dtype().class() == Class::I64 {
        return elementwise::unary(ScalarFn::Identity, input, dest);
    }
    elementwise::map(ScalarFn::NanToNum, &[input.into(), numbers[0].into(), numbers[1].into(), numbers[2].into()], dest)
}
fn positive(input: &Tensor) -> Result<Tensor> {
    if input.dtype() == DType::Bool {
        return Err(err!(Runtime, "The `+` operator, on a bool tensor is not supported."));
    }
    Ok(input.clone())
}
fn polygamma(input: &Tensor, n: i64, dest: Dest<'_>) -> Result<Tensor> {
    match n {
        ..0 => Err(err!(Runtime, "polygamma(n, x) does not support negative n.")),
        0 => elementwise::unary(ScalarFn::Digamma, input, dest),
        _ => elementwise::binary(ScalarFn::Polygamma, input, n as f64, dest),
    }
}
/// `Σ_j lgamma(x - j/2) + p (p - 1) / 4 · log π`
fn mvlgamma(input: &Tensor, p: i64) -> Result<Tensor> {
    if p < 1 {
        return Err(err!(Runtime, "p has to be greater than or equal to 1"));
    }
    // As many terms are added up.
    if p > 1 << 20 {
        return Err(err!(Runtime, "mvlgamma: p is {p}, more than 2^20 dimensions are not supported"));
    }
    let mut sum =
        elementwise::add(&elementwise::lgamma(input)?, (p * (p - 1)) as f64 * 0.25 * std::f64::consts::PI.ln())?;
    for j in 1..p {
        sum = elementwise::add(&sum, &elementwise::lgamma(&elementwise::sub(input, j as f64 / 2.0)?)?)?;
    }
    Ok(sum)
}
fn scaled(input: &Tensor, factor: f64, dest: Dest<'_>) -> Result<Tensor> {
    if input.dtype().is_complex() {
        return Err(err!(Runtime, "rad2deg and deg2rad are not supported for complex tensors."));
    }
    elementwise::binary(ScalarFn::Mul, input, factor, dest)
}
fn isreal(input: &Tensor) -> Result<Tensor> {
    if input.dtype().is_complex() {
        return elementwise::eq(&flambeau::ops::view::imag(input)?, 0);
    }
    elementwise::eq(input, input).and_then(|t| elementwise::logical_or(&t, true))
}
fn ldexp(input: &Tensor, other: &Tensor, dest: Dest<'_>) -> Result<Tensor> {
    let power = elementwise::pow(2.0, other)?;
    elementwise::binary(ScalarFn::Mul, input, &power, dest)
}
fn addcdiv(input: &Tensor, a: &Tensor, b: &Tensor, value: Number, dest: Dest<'_>) -> Result<Tensor> {
    if a.dtype().is_integral(true) && b.dtype().is_integral(true) {
        return Err(err!(
            Runtime,
            "Integer division with addcdiv is no longer supported, and in a future release addcdiv will perform a true division \
             of tensor1 and tensor2. Use (input + value * torch.trunc(tensor1 / tensor2)).to(input.dtype) for the former."
        ));
    }
    elementwise::map(ScalarFn::Addcdiv, &[input.into(), a.into(), b.into(), value.into()], dest)
}
fn lerp(input: &Tensor, end: &Tensor, weight: Value<'_>, dest: Dest<'_>) -> Result<Tensor> {
    if input.dtype() != end.dtype() {
        return Err(err!(
            Runtime,
            "expected dtype {} for `end` but got dtype {}",
            input.dtype().name(),
            end.dtype().name()
        ));
    }
    if let Value::Tensor(w) = weight {
        if w.dtype() != input.dtype() && (w.dim() != 0) {
            return Err(err!(
                Runtime,
                "expected dtype {} for `weight` but got dtype {}",
                input.dtype().name(),
                w.dtype().name()
            ));
        }
    }
    elementwise::map(ScalarFn::Lerp, &[input.into(), end.into(), weight], dest)
}
fn clamp(input: &Tensor, min: Option<Value<'_>>, max: Option<Value<'_>>, dest: Dest<'_>) -> Result<Tensor> {
    if input.dtype().is_complex() {
        return Err(err!(NotImplemented, "\"clamp_scalar_cpu\" not implemented for '{}'", input.dtype().title()));
    }
    match (min, max) {
        (Some(lo), Some(hi)) => elementwise::map(ScalarFn::Clamp, &[input.into(), lo, hi], dest),
        (Some(lo), None) => elementwise::binary(ScalarFn::ClampMin, input, lo, dest),
        (None, Some(hi)) => elementwise::binary(ScalarFn::ClampMax, input, hi, dest),
        (None, None) => Err(err!(Runtime, "torch.clamp: At least one of 'min' or 'max' must not be None")),
    }
}
fn where_values(condition: &Tensor, a: Value<'_>, b: Value<'_>, dest: Dest<'_>) -> Result<Tensor> {
    if !matches!(condition.dtype(), DType::Bool | DType::U8) {
        return Err(err!(
            Runtime,
            "where expected condition to be a boolean tensor, but got a tensor with dtype {}",
            condition.dtype().title()
        ));
    }
    elementwise::map(ScalarFn::Where, &[condition.into(), a, b], dest)
}
/// Fills with a number or a 0-dim tensor.
pub fn fill_(input: &Tensor, value: Value<'_>) -> Result<Tensor> {
    match value {
        Value::Number(n) => elementwise::fill_(input, n),
        Value::Tensor(t) => {
            if t.dim() != 0 {
                return Err(err!(
                    Runtime,
                    "fill_ only supports 0-dimension value tensor but got tensor with {} dimensions.",
                    t.dim()
                ));
            }
            elementwise::copy_(input, t)
        }
    }
}
fn gelu(input: &Tensor, approximate: &str) -> Result<Tensor> {
    match approximate {
        "none" => elementwise::unary(ScalarFn::Gelu, input, Dest::New),
        "tanh" => elementwise::unary(ScalarFn::GeluTanh, input, Dest::New),
        _ => Err(err!(Runtime, "approximate argument must be either none or tanh.")),
    }
}
fn hardtanh(input: &Tensor, lo: f64, hi: f64, inplace: bool) -> Result<Tensor> {
    if lo > hi {
        return Err(err!(Value, "min_val cannot be greater than max_val"));
    }
    if input.dtype() == DType::Bool {
        return Err(err!(Runtime, "Bool inputs not supported for hardtanh"));
    }
    Number::Float(lo).check_fits(input.dtype())?;
    Number::Float(hi).check_fits(input.dtype())?;
    let number = |x: f64| if input.dtype().is_integral(false) { Number::Int(x as i64) } else { Number::Float(x) };
    elementwise::map(ScalarFn::Hardtanh, &[input.into(), number(lo).into(), number(hi).into()], onto(input, inplace))
}
fn leaky_relu(input: &Tensor, slope: f64, inplace: bool) -> Result<Tensor> {
    elementwise::binary(ScalarFn::LeakyRelu, input, slope, onto(input, inplace))
}
const SELU_ALPHA: f64 = 1.6732632423543772848170429916717;
const SELU_SCALE: f64 = 1.0507009873554804934193349852946;
fn elu(input: &Tensor, alpha: f64, scale: f64, k: f64, inplace: bool) -> Result<Tensor> {
    elementwise::map(ScalarFn::Elu, &[input.into(), alpha.into(), scale.into(), k.into()], onto(input, inplace))
}
fn celu(input: &Tensor, alpha: f64, inplace: bool) -> Result<Tensor> {
    if alpha == 0.0 {
        return Err(err!(Runtime, "ZeroDivisionError: alpha cannot be 0 for CELU"));
    }
    elu(input, alpha, 1.0, 1.0 / alpha, inplace)
}
fn softshrink(input: &Tensor, lambd: f64) -> Result<Tensor> {
    if lambd < 0.0 {
        return Err(err!(Runtime, "lambda must be greater or equal to 0, but found to be {lambd}."));
    }
    elementwise::binary(ScalarFn::Softshrink, input, lambd, Dest::New)
}
fn threshold(input: &Tensor, threshold: Number, value: Number, inplace: bool) -> Result<Tensor> {
    let dtype = input.dtype();
    if dtype == DType::Bool || dtype.is_complex() {
        return Err(err!(NotImplemented, "\"threshold_cpu\" not implemented for '{}'", dtype.title()));
    }
    threshold.check_fits(dtype)?;
    value.check_fits(dtype)?;
    // The result keeps the input's dtype.
    let number = |n: Number| if dtype.is_integral(false) { Number::Int(n.to_i64()) } else { n };
    let (threshold, value) = (number(threshold), number(value));
    elementwise::map(ScalarFn::Threshold, &[input.into(), threshold.into(), value.into()], onto(input, inplace))
}

operators! { ELEMENTWISE;
    // ---- one argument
    "abs(Tensor input)" [function method inplace inplace_function out alias(absolute)] => |input: &Tensor, dest: Dest<'_>| {
        flambeau_core::ensure!(
            !(matches!(dest, Dest::Inplace(_)) && input.dtype().is_complex()),
            Runtime,
            "In-place abs is not supported for complex tensors."
        );
        elementwise::unary(ScalarFn::Abs, input, dest)
    };
    "neg(Tensor input)" [function method inplace inplace_function out alias(negative)] => neg;
    "acos(Tensor input)" [function method inplace inplace_function out alias(arccos)] => unary!(Acos);
    "acosh(Tensor input)" [function method inplace inplace_function out alias(arccosh)] => unary!(Acosh);
    "asin(Tensor input)" [function method inplace inplace_function out alias(arcsin)] => unary!(Asin);
    "asinh(Tensor input)" [function method inplace inplace_function out alias(arcsinh)] => unary!(Asinh);
    "atan(Tensor input)" [function method inplace inplace_function out alias(arctan)] => unary!(Atan);
    "atanh(Tensor input)" [function method inplace inplace_function out alias(arctanh)] => unary!(Atanh);
    "ceil(Tensor input)" [function method inplace inplace_function out] => unary!(Ceil);
    "cos(Tensor input)" [function method inplace inplace_function out] => unary!(Cos);
    "cosh(Tensor input)" [function method inplace inplace_function out] => unary!(Cosh);
    "erf(Tensor input)" [function method inplace inplace_function out alias(special.erf)] => unary!(Erf);
    "erfc(Tensor input)" [function method inplace inplace_function out alias(special.erfc)] => unary!(Erfc);
    "erfinv(Tensor input)" [function method inplace inplace_function out alias(special.erfinv)] => unary!(Erfinv);
    "exp(Tensor input)" [function method inplace inplace_function out] => unary!(Exp);
    "exp2(Tensor input)" [function method inplace inplace_function out alias(special.exp2)] => unary!(Exp2);
    "expm1(Tensor input)" [function method inplace inplace_function out alias(special.expm1)] => unary!(Expm1);
    "floor(Tensor input)" [function method inplace inplace_function out] => unary!(Floor);
    "frac(Tensor input)" [function method inplace inplace_function out] => unary!(Frac);
    "lgamma(Tensor input)" [function method inplace inplace_function out alias(special.gammaln)] => unary!(Lgamma);
    "digamma(Tensor input)" [function method inplace inplace_function out alias(special.digamma, special.psi)] => unary!(Digamma);
    "log(Tensor input)" [function method inplace inplace_function out] => unary!(Log);
    "log2(Tensor input)" [function method inplace inplace_function out] => unary!(Log2);
    "log10(Tensor input)" [function method inplace inplace_function out] => unary!(Log10);
    "log1p(Tensor input)" [function method inplace inplace_function out alias(special.log1p)] => unary!(Log1p);
    "reciprocal(Tensor input)" [function method inplace inplace_function out] => unary!(Reciprocal);
    "rsqrt(Tensor input)" [function method inplace inplace_function out] => unary!(Rsqrt);
    "sqrt(Tensor input)" [function method inplace inplace_function out] => unary!(Sqrt);
    "sigmoid(Tensor input)" [function method inplace inplace_function out alias(special.expit)] => unary!(Sigmoid);
    "sign(Tensor input)" [function method inplace inplace_function out] => unary!(Sign);
    "sgn(Tensor input)" [function method inplace inplace_function out] => unary!(Sgn);
    "sin(Tensor input)" [function method inplace inplace_function out] => unary!(Sin);
    "sinc(Tensor input)" [function method inplace inplace_function out alias(special.sinc)] => unary!(Sinc);
    "sinh(Tensor input)" [function method inplace inplace_function out] => unary!(Sinh);
    "square(Tensor input)" [function method inplace inplace_function out] => square;
    "tan(Tensor input)" [function method inplace inplace_function out] => unary!(Tan);
    "tanh(Tensor input)" [function method inplace inplace_function out] => unary!(Tanh);
    "trunc(Tensor input)" [function method inplace inplace_function out alias(fix)] => unary!(Trunc);
    "i0(Tensor input)" [function method inplace inplace_function out alias(special.i0)] => unary!(I0);
    "bitwise_not(Tensor input)" [function method inplace inplace_function out] => bitwise_not;
    "logical_not(Tensor input)" [function method inplace inplace_function out] => unary!(LogicalNot);
    "conj_physical(Tensor input)" [function method inplace inplace_function out] => unary!(Conj);
    "special.i0e(Tensor input)" [function out] => unary!(I0e);
    "special.i1(Tensor input)" [function out] => unary!(I1);
    "special.i1e(Tensor input)" [function out] => unary!(I1e);
    "special.ndtri(Tensor input)" [function out] => unary!(Ndtri);
    "angle(Tensor input)" [function method out] => angle;
    "isnan(Tensor input)" [function method] => unary!(IsNan);
    "isinf(Tensor input)" [function method] => unary!(IsInf);
    "isfinite(Tensor input)" [function method] => unary!(IsFinite);
    "isposinf(Tensor input)" [function method out] => unary!(IsPosInf);
    "isneginf(Tensor input)" [function method out] => unary!(IsNegInf);
    "signbit(Tensor input)" [function method out] => unary!(Signbit);
    "round(Tensor input, *, int decimals=0)" [function method inplace inplace_function out alias(special.round)] => round;
    "logit(Tensor input, float? eps=None)" [function method inplace inplace_function out alias(special.logit)] => logit;
    "nan_to_num(Tensor input, float? nan=0.0, float? posinf=None, float? neginf=None)" [function method inplace inplace_function out] => nan_to_num;
    "positive(Tensor input)" [function method] => positive;
    "polygamma(int n, Tensor input)" [function out alias(special.polygamma)] => |n: i64, input: &Tensor, dest: Dest<'_>| polygamma(input, n, dest);
    "polygamma(Tensor input, int n)" [method inplace] => polygamma;
    "mvlgamma(Tensor input, int p)" [function method inplace out alias(special.multigammaln)] => mvlgamma;
    "rad2deg(Tensor input)" [function method inplace inplace_function out] => |input: &Tensor, dest: Dest<'_>| scaled(input, 180.0 / std::f64::consts::PI, dest);
    "deg2rad(Tensor input)" [function method inplace inplace_function out] => |input: &Tensor, dest: Dest<'_>| scaled(input, std::f64::consts::PI / 180.0, dest);
    "isreal(Tensor input)" [function method] => isreal;
    // ---- arithmetic of two
    "add(Tensor input, Tensor|Number other, *, Number alpha=1)" [function method inplace out] => add;
    "add(Number input, Tensor|Number other, *, Number alpha=1)" [function out] => |input: Number, other: Value<'_>, alpha: Number, dest: Dest<'_>| add_values(input.into(), other, alpha, dest);
    "sub(Tensor input, Tensor|Number other, *, Number alpha=1)" [function method inplace out alias(subtract)] => sub;
    "sub(Number input, Tensor|Number other, *, Number alpha=1)" [function out alias(subtract)] => |input: Number, other: Value<'_>, alpha: Number, dest: Dest<'_>| sub_values(input.into(), other, alpha, dest);
    "rsub(Tensor input, Tensor|Number other, *, Number alpha=1)" [function] => |input: &Tensor, other: Value<'_>, alpha: Number| sub_values(other, input.into(), alpha, Dest::New);
    "mul(Tensor input, Tensor|Number other)" [function method inplace out alias(multiply)] => binary!(Mul tensor value);
    "mul(Number input, Tensor|Number other)" [function out alias(multiply)] => binary!(Mul number value);
    "div(Tensor input, Tensor|Number other, *, str? rounding_mode=None)" [function method inplace out alias(divide)] => div;
    "div(Number input, Tensor|Number other, *, str? rounding_mode=None)" [function out alias(divide)] => |input: Number, other: Value<'_>, mode: Option<&str>, dest: Dest<'_>| div_values(input.into(), other, mode, dest);
    "true_divide(Tensor input, Tensor|Number other)" [function method inplace out] => binary!(Div tensor value);
    "true_divide(Number input, Tensor|Number other)" [function out] => binary!(Div number value);
    "floor_divide(Tensor input, Tensor|Number other)" [function method inplace out] => binary!(FloorDiv tensor value);
    "floor_divide(Number input, Tensor|Number other)" [function out] => binary!(FloorDiv number value);
    "remainder(Tensor input, Tensor|Number other)" [function method inplace out] => binary!(Remainder tensor value);
    "remainder(Number input, Tensor other)" [function out] => binary!(Remainder number tensor);
    "fmod(Tensor input, Tensor|Number other)" [function method inplace out] => binary!(Fmod tensor value);
    "pow(Tensor input, Tensor|Number exponent)" [function method inplace out] => |input: &Tensor, exponent: Value<'_>, dest: Dest<'_>| pow(input.into(), exponent, dest);
    "pow(Number input, Tensor exponent)" [function out] => |input: Number, exponent: &Tensor, dest: Dest<'_>| pow(input.into(), exponent.into(), dest);
    "float_power(Tensor input, Tensor|Number exponent)" [function method out] => |input: &Tensor, exponent: Value<'_>| float_power(input.into(), exponent);
    "float_power(Number input, Tensor exponent)" [function out] => |input: Number, exponent: &Tensor| float_power(input.into(), exponent.into());
    "float_power_(Tensor input, Tensor|Number exponent)" [method] => float_power_;
    "maximum(Tensor input, Tensor other)" [function method out] => binary!(Maximum tensor tensor);
    "minimum(Tensor input, Tensor other)" [function method out] => binary!(Minimum tensor tensor);
    "fmax(Tensor input, Tensor other)" [function method out] => binary!(Fmax tensor tensor);
    "fmin(Tensor input, Tensor other)" [function method out] => binary!(Fmin tensor tensor);
    "atan2(Tensor input, Tensor other)" [function method inplace out alias(arctan2)] => binary!(Atan2 tensor tensor);
    "hypot(Tensor input, Tensor other)" [function method inplace out] => binary!(Hypot tensor tensor);
    "nextafter(Tensor input, Tensor other)" [function method inplace out] => binary!(Nextafter tensor tensor);
    "copysign(Tensor input, Tensor|Number other)" [function method inplace out] => binary!(Copysign tensor value);
    "heaviside(Tensor input, Tensor values)" [function method inplace out] => binary!(Heaviside tensor tensor);
    "logaddexp(Tensor input, Tensor other)" [function method out] => logexp::logaddexp;
    "logaddexp2(Tensor input, Tensor other)" [function method out] => binary!(LogAddExp2 tensor tensor);
    "gcd(Tensor input, Tensor other)" [function method inplace out] => binary!(Gcd tensor tensor);
    "lcm(Tensor input, Tensor other)" [function method inplace out] => binary!(Lcm tensor tensor);
    "xlogy(Tensor input, Tensor|Number other)" [function method inplace out alias(special.xlogy)] => binary!(Xlogy tensor value);
    "xlogy(Number input, Tensor other)" [function out alias(special.xlogy)] => binary!(Xlogy number tensor);
    "special.xlog1py(Tensor input, Tensor|Number other)" [function out] => binary!(Xlog1py tensor value);
    "special.xlog1py(Number input, Tensor other)" [function out] => binary!(Xlog1py number tensor);
    "ldexp(Tensor input, Tensor other)" [function method inplace out] => ldexp;
    // ---- three and more
    "addcmul(Tensor input, Tensor tensor1, Tensor tensor2, *, Number value=1)" [function method inplace out] => |input: &Tensor, a: &Tensor, b: &Tensor, value: Number, dest: Dest<'_>| elementwise::map(ScalarFn::Addcmul, &[input.into(), a.into(), b.into(), value.into()], dest);
    "addcdiv(Tensor input, Tensor tensor1, Tensor tensor2, *, Number value=1)" [function method inplace out] => addcdiv;
    "lerp(Tensor input, Tensor end, Tensor|Number weight)" [function method inplace out] => lerp;
    "clamp(Tensor input, Tensor|Number? min=None, Tensor|Number? max=None)" [function method inplace inplace_function out alias(clip)] => clamp;
    "clamp_min(Tensor input, Tensor|Number min)" [function method inplace inplace_function out] => |input: &Tensor, min: Value<'_>, dest: Dest<'_>| elementwise::binary(ScalarFn::ClampMin, input, min, dest);
    "clamp_max(Tensor input, Tensor|Number max)" [function method inplace inplace_function out] => |input: &Tensor, max: Value<'_>, dest: Dest<'_>| elementwise::binary(ScalarFn::ClampMax, input, max, dest);
    "where(Tensor condition, Tensor|Number input, Tensor|Number other)" [function out] => where_values;
    "where(Tensor input, Tensor condition, Tensor|Number other)" [method] => |input: &Tensor, condition: &Tensor, other: Value<'_>, dest: Dest<'_>| where_values(condition, input.into(), other, dest);
    // ---- comparison, logic, bits
    "eq(Tensor input, Tensor|Number other)" [function method inplace out] => binary!(Eq tensor value);
    "ne(Tensor input, Tensor|Number other)" [function method inplace out alias(not_equal)] => binary!(Ne tensor value);
    "lt(Tensor input, Tensor|Number other)" [function method inplace out alias(less)] => binary!(Lt tensor value);
    "le(Tensor input, Tensor|Number other)" [function method inplace out alias(less_equal)] => binary!(Le tensor value);
    "gt(Tensor input, Tensor|Number other)" [function method inplace out alias(greater)] => binary!(Gt tensor value);
    "ge(Tensor input, Tensor|Number other)" [function method inplace out alias(greater_equal)] => binary!(Ge tensor value);
    "logical_and(Tensor input, Tensor other)" [function method inplace out] => binary!(LogicalAnd tensor tensor);
    "logical_or(Tensor input, Tensor other)" [function method inplace out] => binary!(LogicalOr tensor tensor);
    "logical_xor(Tensor input, Tensor other)" [function method inplace out] => binary!(LogicalXor tensor tensor);
    "bitwise_and(Tensor input, Tensor|Number other)" [function method inplace out] => binary!(BitAnd tensor value);
    "bitwise_and(Number input, Tensor other)" [function out] => binary!(BitAnd number tensor);
    "bitwise_or(Tensor input, Tensor|Number other)" [function method inplace out] => binary!(BitOr tensor value);
    "bitwise_or(Number input, Tensor other)" [function out] => binary!(BitOr number tensor);
    "bitwise_xor(Tensor input, Tensor|Number other)" [function method inplace out] => binary!(BitXor tensor value);
    "bitwise_xor(Number input, Tensor other)" [function out] => binary!(BitXor number tensor);
    "bitwise_left_shift(Tensor input, Tensor|Number other)" [function method inplace out] => binary!(ShiftLeft tensor value);
    "bitwise_left_shift(Number input, Tensor other)" [function out] => binary!(ShiftLeft number tensor);
    "bitwise_right_shift(Tensor input, Tensor|Number other)" [function method inplace out] => binary!(ShiftRight tensor value);
    "bitwise_right_shift(Number input, Tensor other)" [function out] => binary!(ShiftRight number tensor);
    "isclose(Tensor input, Tensor other, float rtol=1e-5, float atol=1e-8, bool equal_nan=False)" [function method] => reduction::isclose;
    // ---- writes
    "fill_(Tensor input, Tensor|Number value)" [method] => fill_;
    "fill(Tensor input, Tensor|Number value)" [function method] => |input: &Tensor, value: Value<'_>| fill_(&view::clone(input)?, value);
    "zero_(Tensor input)" [function method] => elementwise::zero_;
    "copy_(Tensor input, Tensor other, bool non_blocking=False)" [method] => |input: &Tensor, other: &Tensor, _: bool| elementwise::copy_(input, other);
    // ---- activations
    "relu(Tensor input)" [function method inplace inplace_function] => unary!(Relu);
    "nn.functional.relu(Tensor input, bool inplace=False)" [function] => |input: &Tensor, inplace: bool| elementwise::unary(ScalarFn::Relu, input, onto(input, inplace));
    "nn.functional.relu_(Tensor input)" [function] => |input: &Tensor| elementwise::unary(ScalarFn::Relu, input, Dest::Inplace(input));
    "nn.functional.sigmoid(Tensor input)" [function] => |input: &Tensor| elementwise::unary(ScalarFn::Sigmoid, input, Dest::New);
    "nn.functional.tanh(Tensor input)" [function] => |input: &Tensor| elementwise::unary(ScalarFn::Tanh, input, Dest::New);
    "nn.functional.silu(Tensor input, bool inplace=False)" [function] => |input: &Tensor, inplace: bool| elementwise::unary(ScalarFn::Silu, input, onto(input, inplace));
    "nn.functional.mish(Tensor input, bool inplace=False)" [function] => |input: &Tensor, inplace: bool| elementwise::unary(ScalarFn::Mish, input, onto(input, inplace));
    "nn.functional.hardsigmoid(Tensor input, bool inplace=False)" [function] => |input: &Tensor, inplace: bool| elementwise::unary(ScalarFn::Hardsigmoid, input, onto(input, inplace));
    "nn.functional.hardswish(Tensor input, bool inplace=False)" [function] => |input: &Tensor, inplace: bool| elementwise::unary(ScalarFn::Hardswish, input, onto(input, inplace));
    "nn.functional.logsigmoid(Tensor input)" [function out] => |input: &Tensor| elementwise::unary(ScalarFn::LogSigmoid, input, Dest::New);
    "nn.functional.gelu(Tensor input, *, str approximate='none')" [function out] => gelu;
    "nn.functional.hardtanh(Tensor input, float min_val=-1.0, float max_val=1.0, bool inplace=False)" [function] => hardtanh;
    "nn.functional.hardtanh_(Tensor input, float min_val=-1.0, float max_val=1.0)" [function] => |input: &Tensor, lo: f64, hi: f64| hardtanh(input, lo, hi, true);
    "nn.functional.relu6(Tensor input, bool inplace=False)" [function] => |input: &Tensor, inplace: bool| hardtanh(input, 0.0, 6.0, inplace);
    "nn.functional.leaky_relu(Tensor input, float negative_slope=0.01, bool inplace=False)" [function] => leaky_relu;
    "nn.functional.leaky_relu_(Tensor input, float negative_slope=0.01)" [function] => |input: &Tensor, slope: f64| leaky_relu(input, slope, true);
    "nn.functional.elu(Tensor input, float alpha=1.0, bool inplace=False)" [function] => |input: &Tensor, alpha: f64, inplace: bool| elu(input, alpha, 1.0, 1.0, inplace);
    "nn.functional.elu_(Tensor input, float alpha=1.0)" [function] => |input: &Tensor, alpha: f64| elu(input, alpha, 1.0, 1.0, true);
    "nn.functional.selu(Tensor input, bool inplace=False)" [function] => |input: &Tensor, inplace: bool| elu(input, SELU_ALPHA, SELU_SCALE, 1.0, inplace);
    "nn.functional.celu(Tensor input, float alpha=1.0, bool inplace=False)" [function] => celu;
    "selu(Tensor input)" [function] => |input: &Tensor| elu(input, SELU_ALPHA, SELU_SCALE, 1.0, false);
    "selu_(Tensor input)" [function] => |input: &Tensor| elu(input, SELU_ALPHA, SELU_SCALE, 1.0, true);
    "celu(Tensor input, float alpha=1.0)" [function] => |input: &Tensor, alpha: f64| celu(input, alpha, false);
    "celu_(Tensor input, float alpha=1.0)" [function] => |input: &Tensor, alpha: f64| celu(input, alpha, true);
    "nn.functional.softplus(Tensor input, float beta=1.0, float threshold=20.0)" [function out] => |input: &Tensor, beta: f64, threshold: f64| elementwise::map(ScalarFn::Softplus, &[input.into(), beta.into(), threshold.into()], Dest::New);
    "nn.functional.hardshrink(Tensor input, float lambd=0.5)" [function out] => |input: &Tensor, lambd: f64| elementwise::binary(ScalarFn::Hardshrink, input, lambd, Dest::New);
    "hardshrink(Tensor input, Number lambd=0.5)" [function method] => |input: &Tensor, lambd: Number| elementwise::binary(ScalarFn::Hardshrink, input, lambd, Dest::New);
    "nn.functional.softshrink(Tensor input, float lambd=0.5)" [function out] => softshrink;
    "nn.functional.tanhshrink(Tensor input)" [function] => |input: &Tensor| elementwise::sub(input, &elementwise::tanh(input)?);
    "nn.functional.softsign(Tensor input)" [function] => |input: &Tensor| elementwise::div(input, &elementwise::add(&elementwise::abs(input)?, 1)?);
    "nn.functional.threshold(Tensor input, Number threshold, Number value, bool inplace=False)" [function] => threshold;
    "threshold(Tensor input, Number threshold, Number value)" [function] => |input: &Tensor, t: Number, v: Number| threshold(input, t, v, false);
    "threshold_(Tensor input, Number threshold, Number value)" [function] => |input: &Tensor, t: Number, v: Number| threshold(input, t, v, true);
}
