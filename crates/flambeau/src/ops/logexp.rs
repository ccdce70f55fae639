//! Logarithms of sums of exponentials, of complex numbers too: what is largest by its real part is taken out first.

use crate::apply::Dest;
use crate::ops::{elementwise as e, join, reduction, scan, view};
use crate::tensor::Tensor;
use flambeau_core::*;

/// `ln(eᵃ + eᵇ)`
///
/// # Errors
/// Shapes that do not broadcast; `NotImplemented` for integers.
pub fn logaddexp(a: &Tensor, b: &Tensor, dest: Dest) -> Result<Tensor> {
    if !a.dtype().is_complex() && !b.dtype().is_complex() {
        return e::binary(ScalarFn::LogAddExp, a, b, dest);
    }
    crate::apply::store("logaddexp", complex_logaddexp(a, b)?, dest)
}

fn complex_logaddexp(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let dtype = promote_types(a.dtype(), b.dtype());
    let (a, b) = (e::to_dtype(a, dtype)?, e::to_dtype(b, dtype)?);
    let first = e::ge(&view::real(&a.detach())?, &view::real(&b.detach())?)?;
    let (high, low) = (e::where_(&first, &a, &b)?, e::where_(&first, &b, &a)?);
    let nothing = e::eq(&view::real(&high.detach())?, f64::NEG_INFINITY)?;
    let gap = e::where_(&nothing, 0.0, &e::sub(&low, &high)?)?;
    let sum = e::add(&high, &e::log(&e::add(&e::exp(&gap)?, 1.0)?)?)?;
    e::where_(&nothing, &high, &sum)
}

/// `ln Σ eˣ` over dimensions.
///
/// # Errors
/// Dimensions out of range.
pub fn logsumexp(t: &Tensor, dims: &[i64], keepdim: bool) -> Result<Tensor> {
    if !t.dtype().is_complex() || t.numel() == 0 {
        return reduction::logsumexp(t, dims, keepdim);
    }
    let top = reduction::amax(&view::real(&t.detach())?, dims, true, Dest::New)?;
    let top = e::where_(&e::isfinite(&top)?, &top, 0.0)?;
    let s = e::log(&reduction::sum(&e::exp(&e::sub(t, &top)?)?, dims, true)?)?;
    let out = e::add(&s, &top)?;
    if keepdim {
        return Ok(out);
    }
    let sizes = reduction::sum(&view::real(&t.detach())?, dims, false)?.sizes();
    view::reshape(&out, &sizes)
}

/// Up to here complex numbers are added one after the other, in the order in which PyTorch adds them: the imaginary part of a
/// logarithm is known up to turns only, and how many there are depends on the order.
const IN_TURN: i64 = 256;

/// Running `ln Σ eˣ` along a dimension. Complex numbers by doubling: after k steps each place holds its last 2ᵏ numbers.
///
/// # Errors
/// A dimension out of range.
pub fn logcumsumexp(t: &Tensor, dim: i64) -> Result<Tensor> {
    if !t.dtype().is_complex() {
        return scan::logcumsumexp(t, dim);
    }
    let at = wrap_dim(dim, t.dim())? as i64;
    if t.dim() == 0 || t.numel() == 0 {
        return view::clone(t);
    }
    let n = t.size(at)?;
    if n <= IN_TURN {
        let mut sums = vec![view::narrow(t, at, 0, 1)?];
        for i in 1..n {
            let last = &sums[i as usize - 1];
            sums.push(complex_logaddexp(last, &view::narrow(t, at, i, 1)?)?);
        }
        return join::cat(&sums, at);
    }
    let mut y = t.clone();
    let mut reach = 1;
    while reach < n {
        let later = complex_logaddexp(&view::narrow(&y, at, reach, n - reach)?, &view::narrow(&y, at, 0, n - reach)?)?;
        y = join::cat(&[view::narrow(&y, at, 0, reach)?, later], at)?;
        reach *= 2;
    }
    if reach == 1 {
        return view::clone(&y);
    }
    Ok(y)
}
