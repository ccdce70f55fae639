//! Sorting and selecting.

use crate::apply::{apply, Dest};
use crate::autograd::node::Vjp;
use crate::ops::{elementwise as e, factory, indexing, reduction, view};
use crate::primitive::*;
use crate::tensor::{Meta, Tensor};
use flambeau_core::*;

#[derive(Clone)]
enum Order {
    Sort { dim: usize, descending: bool },
    TopK { dim: usize, k: i64, largest: bool },
    One { dim: usize, which: Pick },
}
impl Order {
    fn dim(&self) -> usize {
        match self {
            Order::Sort { dim, .. } | Order::TopK { dim, .. } | Order::One { dim, .. } => *dim,
        }
    }
}
impl Primitive for Order {
    fn name(&self) -> &'static str {
        match self {
            Order::Sort { .. } => "sort",
            Order::TopK { .. } => "topk",
            Order::One { which: Pick::Kth(_), .. } => "kthvalue",
            Order::One { which: Pick::Median, .. } => "median",
            Order::One { which: Pick::NanMedian, .. } => "nanmedian",
            Order::One { which: Pick::Mode, .. } => "mode",
        }
    }
    fn infer(&self, x: &[&Meta], out: &mut Draft) -> Result<()> {
        ensure!(!x[0].dtype.is_complex(), Runtime, "{}(): complex numbers have no order", self.name());
        let mut sizes = copy_dims(&x[0].sizes);
        match (self, sizes.get_mut(self.dim())) {
            (Order::TopK { k, .. }, Some(n)) => *n = *k,
            (Order::One { .. }, Some(n)) => *n = 1,
            _ => {}
        }
        out.push(sizes.clone(), x[0].dtype);
        out.push_constant(sizes, DType::I64);
        Ok(())
    }
    fn run(&self, on: &dyn Backend, x: &[Operand], out: &[Operand]) -> Result<()> {
        match *self {
            Order::Sort { dim, descending } => on.sort(&x[0], dim, descending, &out[0], &out[1]),
            Order::TopK { dim, largest, .. } => on.topk(&x[0], dim, largest, &out[0], &out[1]),
            Order::One { dim, which } => on.pick(&x[0], dim, which, &out[0], &out[1]),
        }
    }
    fn saves(&self, _: Mask) -> Mask {
        output_bit(1)
    }
    fn vjp(&self, cx: &Vjp, g: &[Option<Tensor>]) -> Result<Gradients> {
        let Some(g) = &g[0] else { return Ok(SmallVec::from_iter([None])) };
        let zeros = factory::zeros(&cx.info(0).sizes, g.dtype(), g.device())?;
        Ok(SmallVec::from_iter([Some(indexing::scatter_add(&zeros, self.dim() as i64, &cx.output(1)?, g)?)]))
    }
    fn key(&self, key: &mut PlanKey) {
        match self {
            Order::Sort { dim, descending } => key.word(0).word(*dim as u64).word(*descending as u64),
            Order::TopK { dim, k, largest } => key.word(1).word(*dim as u64).word(*k as u64).word(*largest as u64),
            Order::One { dim, which } => {
                let (rule, k) = match which {
                    Pick::Kth(k) => (0, *k as u64),
                    Pick::Median => (1, 0),
                    Pick::NanMedian => (2, 0),
                    Pick::Mode => (3, 0),
                };
                key.word(2).word(*dim as u64).word(rule).word(k)
            }
        };
    }
    crate::shareable!();
}
fn two(op: Order, t: &Tensor) -> Result<(Tensor, Tensor)> {
    if t.dim() == 0 {
        let (v, i) = two(op, &view::unsqueeze(t, 0)?)?;
        return Ok((view::reshape(&v, &[])?, view::reshape(&i, &[])?));
    }
    let mut out = apply(op, &[t], Dest::New)?;
    let i = out.pop().ok_or_else(|| err!(Runtime, "sort: missing result"))?;
    Ok((out.swap_remove(0), i))
}
/// Values in order along a dimension, and where they were; always stable.
///
/// # Errors
/// `Index` for a dimension out of range, `Runtime` for complex numbers.
pub fn sort(t: &Tensor, dim: i64, descending: bool) -> Result<(Tensor, Tensor)> {
    two(Order::Sort { dim: wrap_dim(dim, t.dim())?, descending }, t)
}
/// Positions in order along a dimension.
///
/// # Errors
/// As [`sort`].
pub fn argsort(t: &Tensor, dim: i64, descending: bool) -> Result<Tensor> {
    Ok(sort(t, dim, descending)?.1)
}
/// The `k` largest or smallest along a dimension.
///
/// # Errors
/// `Runtime` for more than there are.
pub fn topk(t: &Tensor, k: i64, dim: i64, largest: bool) -> Result<(Tensor, Tensor)> {
    let d = wrap_dim(dim, t.dim())?;
    let n = t.sizes().get(d).copied().unwrap_or(1);
    ensure!(k >= 0 && k <= n, Runtime, "selected index k out of range");
    two(Order::TopK { dim: d, k, largest }, t)
}
/// The `k`-th smallest along a dimension (from 1), and where it is.
///
/// # Errors
/// `Runtime` for a rank that is not there.
pub fn kthvalue(t: &Tensor, k: i64, dim: i64, keepdim: bool) -> Result<(Tensor, Tensor)> {
    let d = wrap_dim(dim, t.dim())?;
    let n = t.sizes().get(d).copied().unwrap_or(1);
    ensure!(k >= 1 && k <= n, Runtime, "kthvalue(): selected number k out of range for dimension {d}");
    one(t, dim, keepdim, Pick::Kth(k as usize - 1))
}
fn one(t: &Tensor, dim: i64, keepdim: bool, which: Pick) -> Result<(Tensor, Tensor)> {
    let (v, i) = two(Order::One { dim: wrap_dim(dim, t.dim())?, which }, t)?;
    if t.dim() == 0 || keepdim {
        return Ok((v, i));
    }
    Ok((view::squeeze(&v, Some(&[dim]))?, view::squeeze(&i, Some(&[dim]))?))
}
/// The lower median along a dimension, and where it is; NaN wins.
///
/// # Errors
/// `Index` for an empty dimension.
pub fn median_dim(t: &Tensor, dim: i64, keepdim: bool) -> Result<(Tensor, Tensor)> {
    let n = if t.dim() == 0 { 1 } else { t.size(dim)? };
    ensure!(n > 0, Index, "median(): Expected reduction dim {dim} to have non-zero size.");
    one(t, dim, keepdim, Pick::Median)
}
/// The lower median along a dimension leaving NaN out, and where it is; NaN where there is nothing else.
///
/// # Errors
/// `Index` for an empty dimension.
pub fn nanmedian_dim(t: &Tensor, dim: i64, keepdim: bool) -> Result<(Tensor, Tensor)> {
    let n = if t.dim() == 0 { 1 } else { t.size(dim)? };
    ensure!(n > 0, Index, "nanmedian(): Expected reduction dim {dim} to have non-zero size.");
    one(t, dim, keepdim, Pick::NanMedian)
}
/// The commonest value along a dimension (the smallest of equals), and a place where it is.
///
/// # Errors
/// `Index` for an empty dimension.
pub fn mode_dim(t: &Tensor, dim: i64, keepdim: bool) -> Result<(Tensor, Tensor)> {
    let n = if t.dim() == 0 { 1 } else { t.size(dim)? };
    ensure!(n > 0, Index, "mode(): Expected reduction dim {dim} to have non-zero size.");
    one(t, dim, keepdim, Pick::Mode)
}
/// The lower median of all elements.
///
/// # Errors
/// As [`median_dim`].
pub fn median(t: &Tensor) -> Result<Tensor> {
    of_all(t, median_dim)
}
/// As [`median`], leaving NaN out.
///
/// # Errors
/// As [`median_dim`].
pub fn nanmedian(t: &Tensor) -> Result<Tensor> {
    of_all(t, nanmedian_dim)
}
/// One element of all, NaN where there is none. Its gradient is shared evenly among the elements that equal it.
fn of_all(t: &Tensor, pick: fn(&Tensor, i64, bool) -> Result<(Tensor, Tensor)>) -> Result<Tensor> {
    if t.numel() == 0 && t.dtype().is_float() {
        return factory::full(&[], Number::Float(f64::NAN), t.dtype(), t.device());
    }
    ensure!(t.numel() > 0, Runtime, "median(): the input has no elements");
    let flat = view::reshape(t, &[-1])?;
    if !(crate::mode::grad_enabled() && t.requires_grad()) {
        return Ok(pick(&flat, 0, false)?.0);
    }
    let held = flat.detach();
    let value = pick(&held, 0, false)?.0;
    let equal = e::logical_or(&e::eq(&held, &value)?, &e::logical_and(&e::isnan(&held)?, &e::isnan(&value)?)?)?;
    let count = e::to_dtype(&reduction::sum(&equal, &[0], false)?, t.dtype())?;
    // The difference is zero; it carries the gradient.
    let carrier = e::where_(&e::logical_and(&equal, &e::isfinite(&held)?)?, &e::sub(&flat, &held)?, 0.0)?;
    e::add(&value, &e::div(&reduction::sum(&carrier, &[0], false)?, &count)?)
}
