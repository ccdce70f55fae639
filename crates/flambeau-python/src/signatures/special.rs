//! Signatures of the special functions that have no other home.

use flambeau::core::{err, ScalarFn};
use flambeau::{DType, Dest, Number, Result, Tensor, Value};

/// A row of one argument.
macro_rules! unary {
    ($Row:ident) => {
        |input: &Tensor, dest: Dest<'_>| elementwise::unary(ScalarFn::$Row, input, dest)
    };
}
/// A row of two arguments.
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
}
/// Mantissa and exponent.
fn frexp(input: &Tensor) -> Result<(Tensor, Tensor)> {
    if !input.dtype().is_float() {
        return Err(err!(Runtime, "torch.frexp() only supports floating-point dtypes"));
    }
    let mantissa = elementwise::unary(ScalarFn::FrexpMantissa, input, Dest::New)?;
    let exponent = elementwise::unary(ScalarFn::FrexpExponent, &input.detach(), Dest::New)?;
    Ok((mantissa, elementwise::to_dtype(&exponent, DType::I32)?))
}

operators! { SPECIAL;
    "special.airy_ai(Tensor x)" [function out] => unary!(AiryAi);
    "special.bessel_j0(Tensor input)" [function out] => unary!(BesselJ0);
    "special.bessel_j1(Tensor input)" [function out] => unary!(BesselJ1);
    "special.bessel_y0(Tensor input)" [function out] => unary!(BesselY0);
    "special.bessel_y1(Tensor input)" [function out] => unary!(BesselY1);
    "special.spherical_bessel_j0(Tensor x)" [function out] => unary!(SphericalBesselJ0);
    "special.modified_bessel_i0(Tensor input)" [function out] => unary!(ModifiedBesselI0);
    "special.modified_bessel_i1(Tensor input)" [function out] => unary!(ModifiedBesselI1);
    "special.modified_bessel_k0(Tensor input)" [function out] => unary!(ModifiedBesselK0);
    "special.modified_bessel_k1(Tensor input)" [function out] => unary!(ModifiedBesselK1);
    "special.scaled_modified_bessel_k0(Tensor x)" [function out] => unary!(ScaledModifiedBesselK0);
    "special.scaled_modified_bessel_k1(Tensor x)" [function out] => unary!(ScaledModifiedBesselK1);
    "special.entr(Tensor input)" [function out] => unary!(Entr);
    "special.erfcx(Tensor input)" [function out] => unary!(Erfcx);
    "special.ndtr(Tensor input)" [function out] => unary!(Ndtr);
    "special.log_ndtr(Tensor input)" [function out] => unary!(LogNdtr);
    "special.chebyshev_polynomial_t(Tensor x, Tensor|Number n)" [function out] => binary!(ChebyshevT tensor value);
    "special.chebyshev_polynomial_t(Number x, Tensor n)" [function out] => binary!(ChebyshevT number tensor);
    "special.chebyshev_polynomial_u(Tensor x, Tensor|Number n)" [function out] => binary!(ChebyshevU tensor value);
    "special.chebyshev_polynomial_u(Number x, Tensor n)" [function out] => binary!(ChebyshevU number tensor);
    "special.chebyshev_polynomial_v(Tensor x, Tensor|Number n)" [function out] => binary!(ChebyshevV tensor value);
    "special.chebyshev_polynomial_v(Number x, Tensor n)" [function out] => binary!(ChebyshevV number tensor);
    "special.chebyshev_polynomial_w(Tensor x, Tensor|Number n)" [function out] => binary!(ChebyshevW tensor value);
    "special.chebyshev_polynomial_w(Number x, Tensor n)" [function out] => binary!(ChebyshevW number tensor);
    "special.shifted_chebyshev_polynomial_t(Tensor x, Tensor|Number n)" [function out] => binary!(ShiftedChebyshevT tensor value);
    "special.shifted_chebyshev_polynomial_t(Number x, Tensor n)" [function out] => binary!(ShiftedChebyshevT number tensor);
    "special.shifted_chebyshev_polynomial_u(Tensor x, Tensor|Number n)" [function out] => binary!(ShiftedChebyshevU tensor value);
    "special.shifted_chebyshev_polynomial_u(Number x, Tensor n)" [function out] => binary!(ShiftedChebyshevU number tensor);
    "special.shifted_chebyshev_polynomial_v(Tensor x, Tensor|Number n)" [function out] => binary!(ShiftedChebyshevV tensor value);
    "special.shifted_chebyshev_polynomial_v(Number x, Tensor n)" [function out] => binary!(ShiftedChebyshevV number tensor);
    "special.shifted_chebyshev_polynomial_w(Tensor x, Tensor|Number n)" [function out] => binary!(ShiftedChebyshevW tensor value);
    "special.shifted_chebyshev_polynomial_w(Number x, Tensor n)" [function out] => binary!(ShiftedChebyshevW number tensor);
    "special.hermite_polynomial_h(Tensor x, Tensor|Number n)" [function out] => binary!(HermiteH tensor value);
    "special.hermite_polynomial_h(Number x, Tensor n)" [function out] => binary!(HermiteH number tensor);
    "special.hermite_polynomial_he(Tensor x, Tensor|Number n)" [function out] => binary!(HermiteHe tensor value);
    "special.hermite_polynomial_he(Number x, Tensor n)" [function out] => binary!(HermiteHe number tensor);
    "special.laguerre_polynomial_l(Tensor x, Tensor|Number n)" [function out] => binary!(LaguerreL tensor value);
    "special.laguerre_polynomial_l(Number x, Tensor n)" [function out] => binary!(LaguerreL number tensor);
    "special.legendre_polynomial_p(Tensor x, Tensor|Number n)" [function out] => binary!(LegendreP tensor value);
    "special.legendre_polynomial_p(Number x, Tensor n)" [function out] => binary!(LegendreP number tensor);
    "special.zeta(Tensor input, Tensor|Number other)" [function out] => binary!(Zeta tensor value);
    "special.zeta(Number input, Tensor other)" [function out] => binary!(Zeta number tensor);
    "igamma(Tensor input, Tensor other)" [function method inplace out alias(special.gammainc)] => binary!(Igamma tensor tensor);
    "igammac(Tensor input, Tensor other)" [function method inplace out alias(special.gammaincc)] => binary!(Igammac tensor tensor);
    "frexp(Tensor input) -> frexp(mantissa, exponent)" [function method out] => frexp;
    "conj(Tensor input)" [function method] => view::conj;
    "_neg_view(Tensor input)" [function method] => view::neg_view;
}
