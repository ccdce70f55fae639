//! Expressions over tensors that carry their error along, so that a derivative in the table reads like mathematics.

use crate::ops::elementwise as e;
use crate::tensor::{Tensor, Value};
use flambeau_core::{Number, Result, ScalarFn};

/// A tensor, a number, or the error of computing it.
#[derive(Clone)]
pub struct Expr(pub(crate) Result<Val>);
#[derive(Clone)]
pub(crate) enum Val {
    T(Tensor),
    N(Number),
}

impl Val {
    fn value(&self) -> Value<'_> {
        match self {
            Val::T(t) => Value::Tensor(t),
            Val::N(n) => Value::Number(*n),
        }
    }
}

impl From<&Expr> for Expr {
    fn from(x: &Expr) -> Self {
        x.clone()
    }
}
impl From<f64> for Expr {
    fn from(x: f64) -> Self {
        Expr(Ok(Val::N(Number::Float(x))))
    }
}
impl From<Tensor> for Expr {
    fn from(t: Tensor) -> Self {
        Expr(Ok(Val::T(t)))
    }
}
impl From<Result<Tensor>> for Expr {
    fn from(t: Result<Tensor>) -> Self {
        Expr(t.map(Val::T))
    }
}

impl Expr {
    pub(crate) fn number(n: Number) -> Expr {
        Expr(Ok(Val::N(n)))
    }
    /// The tensor; a number becomes a 0-dim tensor.
    ///
    /// # Errors
    /// That of computing it.
    pub fn tensor(self) -> Result<Tensor> {
        match self.0? {
            Val::T(t) => Ok(t),
            Val::N(n) => e::number_tensor(n),
        }
    }
    fn apply(f: ScalarFn, args: &[Expr]) -> Expr {
        let run = || -> Result<Tensor> {
            let first;
            let mut values: smallvec::SmallVec<[Value; 4]> = smallvec::SmallVec::new();
            for a in args {
                values.push(a.0.as_ref().map_err(Clone::clone)?.value());
            }
            if let (Value::Number(n), true) = (values[0], values.iter().all(|v| matches!(v, Value::Number(_)))) {
                first = e::number_tensor(n)?;
                values[0] = Value::Tensor(&first);
            }
            e::map(f, &values, crate::apply::Dest::New)
        };
        run().into()
    }
    fn arithmetic(f: ScalarFn, a: Expr, b: Expr, real: fn(f64, f64) -> f64) -> Expr {
        if let (Ok(Val::N(x)), Ok(Val::N(y))) = (&a.0, &b.0) {
            if x.category() < flambeau_core::Category::Complex && y.category() < flambeau_core::Category::Complex {
                return real(x.to_f64(), y.to_f64()).into();
            }
        }
        Self::apply(f, &[a, b])
    }
    /// The conjugate; the same value when it is real.
    pub fn conj(&self) -> Expr {
        match &self.0 {
            Ok(Val::T(t)) if t.dtype().is_complex() => Self::apply(ScalarFn::Conj, std::slice::from_ref(self)),
            Ok(Val::N(Number::Complex(c))) => Self::number(Number::Complex(c.conj())),
            _ => self.clone(),
        }
    }
    /// [`Expr::conj`], for gradients with respect to a saved output.
    pub fn conj_if_complex(&self) -> Expr {
        self.conj()
    }
    /// The error of a derivative that does not exist.
    pub fn not_implemented(&self, what: &str) -> Expr {
        Expr(Err(flambeau_core::err!(NotImplemented, "the derivative for '{what}' is not implemented.")))
    }
    /// Zeros of the same sizes.
    pub fn zero(&self) -> Expr {
        match &self.0 {
            Ok(Val::T(t)) => crate::ops::factory::zeros_like(t).into(),
            _ => 0.0.into(),
        }
    }
    /// `if_true` where this is not zero, else `if_false`.
    pub fn select(&self, if_true: impl Into<Expr>, if_false: impl Into<Expr>) -> Expr {
        Self::apply(ScalarFn::Where, &[self.clone(), if_true.into(), if_false.into()])
    }
    /// Whether the real part is at least `x`.
    pub fn re_ge(&self, x: f64) -> Expr {
        match &self.0 {
            Ok(Val::N(n)) => (if n.to_f64() >= x { 1.0 } else { 0.0 }).into(),
            Ok(Val::T(t)) if t.dtype().is_complex() => crate::ops::view::real(t).and_then(|re| e::ge(&re, x)).into(),
            _ => self.ge(x),
        }
    }
    /// The gradient of `sgn`: zero for real values, the tangential part for complex ones.
    pub fn sgn_grad(&self, a: &Expr, out: &Expr) -> Expr {
        match &a.0 {
            Ok(Val::T(t)) if t.dtype().is_complex() => {
                let radius = a.abs();
                let along = (self * out.conj()).real_part();
                radius.eq(0.0).select(0.0, (self - out * along) / radius)
            }
            _ => self.zero(),
        }
    }
    /// The gradient of `angle`.
    pub fn angle_grad(&self, a: &Expr) -> Expr {
        match &a.0 {
            Ok(Val::T(t)) if t.dtype().is_complex() => {
                let i = Self::number(Number::Complex(flambeau_core::Complex64::new(0.0, 1.0)));
                let radius = a.abs();
                radius.eq(0.0).select(0.0, self * i * a / (&radius * &radius))
            }
            _ => self.zero(),
        }
    }
    /// The gradient of `acosh`. The product of two roots holds on both sides of a complex function's cut; the one root of
    /// a real function also has a value below -1.
    pub fn acosh_grad(&self, a: &Expr) -> Expr {
        match &a.0 {
            Ok(Val::T(t)) if t.dtype().is_complex() => self * ((a - 1.0).rsqrt() * (a + 1.0).rsqrt()).conj(),
            _ => self * (a * a - 1.0).rsqrt(),
        }
    }
    fn real_part(&self) -> Expr {
        match &self.0 {
            Ok(Val::T(t)) if t.dtype().is_complex() => crate::ops::view::real(t).into(),
            _ => self.clone(),
        }
    }
}

macro_rules! methods {
    ($($name:ident($($arg:ident),*) $Row:ident;)*) => {
        // One expansion for rows of one and of several arguments.
        #[allow(clippy::cloned_ref_to_slice_refs)]
        impl Expr { $(
            #[doc = concat!("The table's `", stringify!($Row), "`.")]
            pub fn $name(&self $(, $arg: impl Into<Expr>)*) -> Expr { Self::apply(ScalarFn::$Row, &[self.clone() $(, $arg.into())*]) }
        )* }
    };
}
methods! {
    exp() Exp; exp2() Exp2; log() Log; log1p() Log1p; sin() Sin; cos() Cos; sinh() Sinh; cosh() Cosh; tanh() Tanh; sqrt() Sqrt; rsqrt() Rsqrt;
    sigmoid() Sigmoid; abs() Abs; sgn() Sgn; isnan() IsNan; isfinite() IsFinite; digamma() Digamma; i0() I0; i1() I1; special_i0e() I0e; special_i1e() I1e;
    special_erfcx() Erfcx; lgamma() Lgamma; frexp_exponent() FrexpExponent; special_zeta(q) Zeta;
    pow(b) Pow; copysign(b) Copysign; floor_divide(b) FloorDiv; trunc_divide(b) TruncDiv; polygamma(n) Polygamma;
    eq(b) Eq; lt(b) Lt; le(b) Le; gt(b) Gt; ge(b) Ge; logical_and(b) LogicalAnd; logical_or(b) LogicalOr;
    softplus(beta, t) Softplus; relu_grad(out) ReluGrad; gelu_grad(x) GeluGrad; sigmoid_grad(out) SigmoidGrad; tanh_grad(out) TanhGrad;
}

/// `d gelu_tanh(a) / da`
pub fn gelu_tanh_derivative(a: &Expr) -> Expr {
    const K: f64 = 0.797_884_560_802_865_4; // sqrt(2/π)
    let square = a * a;
    let t = (a * (1.0 + &square * 0.044715) * K).tanh();
    let inner = (1.0 + square * (3.0 * 0.044715)) * K;
    0.5 * (1.0 + &t) + 0.5 * (a * (1.0 - &t * &t) * inner)
}

macro_rules! operators {
    ($($Trait:ident $method:ident $Row:ident $op:tt;)*) => { $(
        impl<T: Into<Expr>> std::ops::$Trait<T> for Expr {
            type Output = Expr;
            fn $method(self, other: T) -> Expr { Expr::arithmetic(ScalarFn::$Row, self, other.into(), |a, b| a $op b) }
        }
        impl<T: Into<Expr>> std::ops::$Trait<T> for &Expr {
            type Output = Expr;
            fn $method(self, other: T) -> Expr { Expr::arithmetic(ScalarFn::$Row, self.clone(), other.into(), |a, b| a $op b) }
        }
        impl std::ops::$Trait<Expr> for f64 {
            type Output = Expr;
            fn $method(self, other: Expr) -> Expr { Expr::arithmetic(ScalarFn::$Row, self.into(), other, |a, b| a $op b) }
        }
        impl std::ops::$Trait<&Expr> for f64 {
            type Output = Expr;
            fn $method(self, other: &Expr) -> Expr { Expr::arithmetic(ScalarFn::$Row, self.into(), other.clone(), |a, b| a $op b) }
        }
    )* };
}
operators! { Add add Add +; Sub sub Sub -; Mul mul Mul *; Div div Div /; }

impl std::ops::Neg for Expr {
    type Output = Expr;
    fn neg(self) -> Expr {
        match &self.0 {
            Ok(Val::N(n)) if n.category() < flambeau_core::Category::Complex => (-n.to_f64()).into(),
            _ => Expr::apply(ScalarFn::Neg, &[self]),
        }
    }
}
impl std::ops::Neg for &Expr {
    type Output = Expr;
    fn neg(self) -> Expr {
        -self.clone()
    }
}
