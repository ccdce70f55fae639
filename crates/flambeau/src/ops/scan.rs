//! Running combinations along a dimension.

use crate::apply::{apply, apply1, Dest};
use crate::autograd::node::Vjp;
use crate::ops::elementwise as e;
use crate::ops::{factory, linalg, reduction, view};
use crate::primitive::*;
use crate::tensor::{Meta, Tensor};
use flambeau_core::*;

/// A scan along a dimension.
#[derive(Clone, Debug)]
struct Running {
    how: Scan,
    dim: usize,
    dtype: DType,
}

impl Primitive for Running {
    fn name(&self) -> &'static str {
        match self.how {
            Scan::Sum => "cumsum",
            Scan::Prod => "cumprod",
            Scan::Max => "cummax",
            Scan::Min => "cummin",
            Scan::LogSumExp => "logcumsumexp",
        }
    }
    fn infer(&self, x: &[&Meta], out: &mut Draft) -> Result<()> {
        out.push(copy_dims(&x[0].sizes), self.dtype);
        if matches!(self.how, Scan::Max | Scan::Min) {
            out.push_constant(copy_dims(&x[0].sizes), DType::I64);
        }
        Ok(())
    }
    fn run(&self, on: &dyn Backend, x: &[Operand], out: &[Operand]) -> Result<()> {
        on.scan(self.how, &x[0], self.dim, out)
    }
    fn saves(&self, _: Mask) -> Mask {
        match self.how {
            Scan::Sum => 0,
            Scan::Prod => 1 | output_bit(0),
            Scan::LogSumExp => 1 | output_bit(0),
            Scan::Max | Scan::Min => output_bit(1),
        }
    }
    fn vjp(&self, cx: &Vjp, g: &[Option<Tensor>]) -> Result<Gradients> {
        let Some(g) = &g[0] else { return Ok(SmallVec::from_iter([None])) };
        let d = self.dim as i64;
        if g.dim() == 0 || g.numel() == 0 {
            return Ok(SmallVec::from_iter([Some(g.clone())]));
        }
        let out = match self.how {
            Scan::Sum => reverse_sum(g, d)?,
            Scan::LogSumExp => {
                // Σ_{j ≥ i} g_j exp(x_i - y_j), with signs kept apart so that logarithms can be summed.
                let (x, y) = (cx.input(0)?, cx.output(0)?);
                if crate::mode::grad_enabled() && x.sizes()[self.dim] <= 512 {
                    return Ok(SmallVec::from_iter([Some(logcumsumexp_grad(&x, &y, g, d)?)]));
                }
                // The logarithm of what is not there stays finite, and so do derivatives of all this.
                let lowest = match g.dtype() {
                    DType::F64 => f64::MIN,
                    DType::F16 => -65504.0,
                    _ => f32::MIN as f64,
                };
                let size = e::log(&e::abs(g)?)?;
                let side = |there: &Tensor| -> Result<Tensor> {
                    let terms = e::sub(&e::where_(there, &size, lowest)?, &y)?;
                    let sums = view::flip(&logcumsumexp(&view::flip(&terms, &[d])?, d)?, &[d])?;
                    e::exp(&e::add(&sums, &x)?)
                };
                let held = g.detach();
                let positive = side(&e::gt(&held, 0.0)?)?;
                let negative = side(&e::lt(&held, 0.0)?)?;
                e::sub(&positive, &negative)?
            }
            Scan::Prod => cumprod_grad(&cx.input(0)?, &cx.output(0)?, g, d)?,
            Scan::Max | Scan::Min => {
                let zeros = factory::zeros_like(g)?;
                crate::ops::indexing::scatter_add(&zeros, d, &cx.output(1)?, g)?
            }
        };
        Ok(SmallVec::from_iter([Some(out)]))
    }
    fn key(&self, key: &mut PlanKey) {
        key.word(self.how as u64).word(self.dim as u64).word(self.dtype as u64);
    }
    crate::shareable!();
}

/// `Σ_{j ≥ i} g_j exp(x_i - y_j)` by its definition, which can be differentiated again where `g` is zero.
fn logcumsumexp_grad(x: &Tensor, y: &Tensor, g: &Tensor, d: i64) -> Result<Tensor> {
    let last = |t: &Tensor| view::transpose(t, d, -1);
    let exponents = e::sub(&view::unsqueeze(&last(x)?, -1)?, &view::unsqueeze(&last(y)?, -2)?)?;
    let n = x.size(d)?;
    let later = linalg::triu(&factory::ones(&[n, n], DType::Bool, x.device())?, 0, Dest::New)?;
    let weights = e::exp(&e::where_(&later, &exponents, f64::NEG_INFINITY)?)?;
    let sums = reduction::sum(&e::mul(&weights, &view::unsqueeze(&last(g)?, -2)?)?, &[-1], false)?;
    view::transpose(&sums, d, -1)
}
/// `Σ_{j ≥ i} g_j` along a dimension.
fn reverse_sum(g: &Tensor, dim: i64) -> Result<Tensor> {
    view::flip(&cumsum(&view::flip(g, &[dim])?, dim)?, &[dim])
}

/// Without zeros `Σ_{j ≥ i} g_j y_j / x_i`; with zeros, column by column as products of the others.
fn cumprod_grad(x: &Tensor, y: &Tensor, g: &Tensor, d: i64) -> Result<Tensor> {
    let conj = |t: &Tensor| if t.dtype().is_complex() { e::conj_physical(t) } else { Ok(t.clone()) };
    let zeros = x.as_batched().is_some()
        || e::eq(&x.detach(), 0.0)
            .and_then(|z| crate::ops::reduction::any(&z, &[], false, Dest::New))?
            .item()?
            .to_bool();
    if !zeros && !crate::mode::grad_enabled() {
        return e::div(&reverse_sum(&e::mul(g, &conj(y)?)?, d)?, &conj(x)?);
    }
    let n = x.size(d)?;
    let mut columns = Vec::new();
    for i in 0..n {
        // d y_j / d x_i for j ≥ i: the product of all up to j without x_i.
        let tail = view::narrow(x, d, i + 1, n - i - 1)?;
        let head = if i == 0 {
            factory::ones_like(&view::narrow(x, d, 0, 1)?)?
        } else {
            view::unsqueeze(
                &crate::ops::reduction::prod(&view::narrow(x, d, 0, i)?, Some(d), false, None, Dest::New)?,
                d,
            )?
        };
        let others = cumprod(&crate::ops::join::cat(&[head, tail], d)?, d)?;
        let part = e::mul(&view::narrow(g, d, i, n - i)?, &conj(&others)?)?;
        columns.push(crate::ops::reduction::sum(&part, &[d], true)?);
    }
    crate::ops::join::cat(&columns, d)
}

fn running(t: &Tensor, how: Scan, dim: i64, dtype: Option<DType>, dest: Dest) -> Result<Tensor> {
    let to = dtype.unwrap_or(if t.dtype().is_integral(true) && matches!(how, Scan::Sum | Scan::Prod) {
        DType::I64
    } else {
        t.dtype()
    });
    let x = if dtype.is_some_and(|d| d != t.dtype()) { e::to_dtype(t, to)? } else { t.clone() };
    let dim = wrap_dim(dim, x.dim())?;
    let dest = if x.is_same(t) {
        dest
    } else {
        match dest {
            Dest::Inplace(_) => Dest::New,
            d => d,
        }
    };
    apply1(Running { how, dim, dtype: to }, &[&x], dest)
}
/// Running sum.
///
/// # Errors
/// `Index` for a dimension out of range.
pub fn cumsum(t: &Tensor, dim: i64) -> Result<Tensor> {
    running(t, Scan::Sum, dim, None, Dest::New)
}
/// [`cumsum`] with dtype and destination.
///
/// # Errors
/// As [`cumsum`].
pub fn cumsum_to(t: &Tensor, dim: i64, dtype: Option<DType>, dest: Dest) -> Result<Tensor> {
    let dtype = if matches!(dest, Dest::Inplace(_)) { Some(t.dtype()) } else { dtype };
    running(t, Scan::Sum, dim, dtype, dest)
}
/// Running product.
///
/// # Errors
/// As [`cumsum`].
pub fn cumprod(t: &Tensor, dim: i64) -> Result<Tensor> {
    running(t, Scan::Prod, dim, None, Dest::New)
}
/// [`cumprod`] with dtype and destination.
///
/// # Errors
/// As [`cumsum`].
pub fn cumprod_to(t: &Tensor, dim: i64, dtype: Option<DType>, dest: Dest) -> Result<Tensor> {
    let dtype = if matches!(dest, Dest::Inplace(_)) { Some(t.dtype()) } else { dtype };
    running(t, Scan::Prod, dim, dtype, dest)
}
/// Running logarithm of the sum of exponentials.
///
/// # Errors
/// As [`cumsum`].
pub fn logcumsumexp(t: &Tensor, dim: i64) -> Result<Tensor> {
    running(t, Scan::LogSumExp, dim, None, Dest::New)
}
fn extreme(t: &Tensor, how: Scan, dim: i64) -> Result<(Tensor, Tensor)> {
    let dim = wrap_dim(dim, t.dim())?;
    let mut out = apply(Running { how, dim, dtype: t.dtype() }, &[t], Dest::New)?;
    let second = out.pop().ok_or_else(|| err!(Runtime, "cummax: missing result"))?;
    let first = out.pop().ok_or_else(|| err!(Runtime, "cummax: missing result"))?;
    Ok((first, second))
}
/// Running maximum and its position.
///
/// # Errors
/// As [`cumsum`]; complex numbers have no order.
pub fn cummax(t: &Tensor, dim: i64) -> Result<(Tensor, Tensor)> {
    extreme(t, Scan::Max, dim)
}
/// Running minimum and its position.
///
/// # Errors
/// As [`cummax`].
pub fn cummin(t: &Tensor, dim: i64) -> Result<(Tensor, Tensor)> {
    extreme(t, Scan::Min, dim)
}
