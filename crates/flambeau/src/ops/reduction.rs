//! Reductions over dimensions.

use crate::apply::{apply, apply1, Dest};
use crate::autograd::node::{constant_of, differentiated_as, formally_saves, Vjp};
use crate::mode;
use crate::ops::elementwise as e;
use crate::ops::{factory, view};
use crate::primitive::*;
use crate::tensor::{Meta, Tensor};
use flambeau_core::*;
use smallvec::smallvec;
use std::sync::Arc;

/// A reduction over a set of dimensions.
#[derive(Clone, Debug)]
pub struct Reduce {
    pub how: Reduction,
    /// Bit d: dimension d is reduced.
    pub dims: u64,
    pub keepdim: bool,
    /// Dtype of the (first) result.
    pub dtype: DType,
}

impl Reduce {
    fn sizes(&self, x: &[i64]) -> Dims {
        let mut out = Dims::new();
        for (d, &n) in x.iter().enumerate() {
            if self.dims >> d & 1 == 0 {
                out.push(n);
            } else if self.keepdim {
                out.push(1);
            }
        }
        out
    }
    /// Runs over the values of a program instead of a stored operand.
    pub(crate) fn run_program(
        &self,
        on: &dyn Backend,
        program: &Program,
        sizes: &[i64],
        x: &[Operand],
        out: &[Operand],
    ) -> Result<()> {
        // Outputs in full rank, with size 1 where reduced.
        let mut full: Dims = sizes.into();
        let mut strides: SmallVec<[Dims; 2]> = SmallVec::new();
        for o in out {
            let mut s = Dims::new();
            let mut k = 0;
            for d in 0..sizes.len() {
                if self.dims >> d & 1 == 1 {
                    s.push(0);
                    k += usize::from(self.keepdim);
                } else {
                    s.push(o.strides[k]);
                    k += 1;
                }
            }
            strides.push(s);
        }
        for (d, n) in full.iter_mut().enumerate() {
            if self.dims >> d & 1 == 1 {
                *n = 1;
            }
        }
        let outs: SmallVec<[Operand; 2]> =
            out.iter().zip(&strides).map(|(o, s)| Operand { sizes: &full, strides: s, ..*o }).collect();
        on.reduce(self.how, program, x, self.dims, &outs)
    }
    fn class(&self, x: DType) -> Class {
        match self.how {
            // Sums are computed in the result's class when that is wider.
            Reduction::Sum | Reduction::ScaledSum(_) | Reduction::Prod
                if self.dtype.category() > x.category() || self.dtype.class().size() > x.class().size() =>
            {
                self.dtype.class()
            }
            _ => x.class(),
        }
    }
}

impl Primitive for Reduce {
    fn name(&self) -> &'static str {
        match self.how {
            Reduction::Sum => "sum",
            Reduction::ScaledSum(_) => "mean",
            Reduction::Prod => "prod",
            Reduction::Max => "amax",
            Reduction::Min => "amin",
            Reduction::ArgMax => "argmax",
            Reduction::ArgMin => "argmin",
            Reduction::MaxIndex => "max",
            Reduction::MinIndex => "min",
            Reduction::Any => "any",
            Reduction::All => "all",
            Reduction::VarMean { .. } => "var_mean",
        }
    }
    fn infer(&self, x: &[&Meta], out: &mut Draft) -> Result<()> {
        let sizes = self.sizes(&x[0].sizes);
        match self.how {
            Reduction::ArgMax | Reduction::ArgMin => out.push_constant(sizes, DType::I64),
            Reduction::Any | Reduction::All => out.push_constant(sizes, self.dtype),
            Reduction::MaxIndex | Reduction::MinIndex => {
                out.push(sizes.clone(), self.dtype);
                out.push_constant(sizes, DType::I64);
            }
            Reduction::VarMean { .. } => {
                out.push(sizes.clone(), self.dtype);
                out.push(sizes, self.dtype);
            }
            _ => out.push(sizes, self.dtype),
        }
        Ok(())
    }
    fn run(&self, on: &dyn Backend, x: &[Operand], out: &[Operand]) -> Result<()> {
        if matches!(self.how, Reduction::VarMean { .. }) && x[0].numel() == 0 {
            // Of nothing there is neither.
            return out.iter().try_for_each(|o| on.fill(o, Number::Float(f64::NAN)));
        }
        let inputs = [Input::Operand(self.class(x[0].dtype))];
        let program = Program { inputs: &inputs, steps: &[], results: &[0] };
        self.run_program(on, &program, x[0].sizes, x, out)
    }
    fn gradient_compares(&self) -> bool {
        matches!(self.how, Reduction::Max | Reduction::Min)
    }
    fn saves(&self, _: Mask) -> Mask {
        match self.how {
            Reduction::Prod | Reduction::Max | Reduction::Min => 1 | output_bit(0),
            Reduction::MaxIndex | Reduction::MinIndex => output_bit(1),
            Reduction::VarMean { .. } => 1 | output_bit(1),
            _ => 0,
        }
    }
    fn differentiable(&self) -> bool {
        !matches!(self.how, Reduction::ArgMax | Reduction::ArgMin | Reduction::Any | Reduction::All)
    }
    fn vjp(&self, cx: &Vjp, g: &[Option<Tensor>]) -> Result<Gradients> {
        let sizes = copy_dims(&cx.info(0).sizes);
        let wide = |t: &Tensor| self.widen(t, &sizes);
        let none = || Ok(SmallVec::from_iter([None]));
        let out = match self.how {
            Reduction::Sum => match &g[0] {
                Some(g) => wide(g)?,
                None => return none(),
            },
            Reduction::ScaledSum(k) => match &g[0] {
                Some(g) => wide(&e::mul(g, k)?)?,
                None => return none(),
            },
            Reduction::Prod => match &g[0] {
                Some(g) => self.prod_grad(&cx.input(0)?, &cx.output(0)?, g)?,
                None => return none(),
            },
            Reduction::Max | Reduction::Min => match &g[0] {
                // Shared evenly among equals.
                Some(g) => {
                    let x = cx.input(0)?;
                    let mask = e::to_dtype(&e::eq(&x.detach(), &wide(&cx.output(0)?.detach())?)?, g.dtype())?;
                    let dims = self.list();
                    let count = sum(&mask, &dims, true)?;
                    let g = self.keep(g, &sizes)?;
                    e::mul(&mask, &e::div(&g, &count)?)?
                }
                None => return none(),
            },
            Reduction::MaxIndex | Reduction::MinIndex => match &g[0] {
                Some(g) => {
                    let zeros = factory::zeros(&sizes, g.dtype(), g.device())?;
                    if sizes.is_empty() {
                        return Ok(SmallVec::from_iter([Some(g.clone())]));
                    }
                    let d = self.dims.trailing_zeros() as i64;
                    let index = self.keep(&cx.output(1)?, &sizes)?;
                    crate::ops::indexing::scatter_add(&zeros, d, &index, &self.keep(g, &sizes)?)?
                }
                None => return none(),
            },
            Reduction::VarMean { correction } => {
                let x = cx.input(0)?;
                let n: i64 = self.list().iter().map(|d| sizes[*d as usize]).product();
                let mut out = None;
                if let Some(g) = &g[0] {
                    let mean = wide(&mean(&x, &self.list(), self.keepdim)?)?;
                    let k = 2.0 / (n as f64 - correction).max(0.0);
                    out = Some(e::mul(&e::mul(&wide(g)?, k)?, &e::sub(&x, &mean)?)?);
                }
                if let Some(g) = &g[1] {
                    let part = wide(&e::mul(g, 1.0 / n as f64)?)?;
                    out = Some(match out {
                        Some(o) => e::add(&o, &part)?,
                        None => part,
                    });
                }
                return Ok(SmallVec::from_iter([out]));
            }
            _ => return none(),
        };
        Ok(SmallVec::from_iter([Some(out)]))
    }
    fn key(&self, key: &mut PlanKey) {
        let (kind, number) = match self.how {
            Reduction::Sum => (0, 0),
            Reduction::ScaledSum(k) => (1, k.to_bits()),
            Reduction::Prod => (2, 0),
            Reduction::Max => (3, 0),
            Reduction::Min => (4, 0),
            Reduction::ArgMax => (5, 0),
            Reduction::ArgMin => (6, 0),
            Reduction::MaxIndex => (7, 0),
            Reduction::MinIndex => (8, 0),
            Reduction::Any => (9, 0),
            Reduction::All => (10, 0),
            Reduction::VarMean { correction } => (11, correction.to_bits()),
        };
        key.word(kind).word(number).word(self.dims).word(self.keepdim as u64).word(self.dtype as u64);
    }
    fn as_reduce(&self) -> Option<&Reduce> {
        Some(self)
    }
    fn batch(&self, x: &[(Tensor, Option<usize>)], _level: u32) -> Option<Result<SmallVec<[(Tensor, usize); 2]>>> {
        let (t, dim) = &x[0];
        let dim = (*dim)?;
        // Examples without dimensions are reduced over none, which gradients take for a case of its own.
        if self.dims == 0 || t.dim() > 63 {
            return None;
        }
        let op = Reduce { dims: self.dims << 1, ..self.clone() };
        Some((|| {
            let t = view::movedim(t, &[dim as i64], &[0])?;
            Ok(apply(op, &[&t], Dest::New)?.into_iter().map(|t| (t, 0)).collect())
        })())
    }
    fn sparse(&self, x: &[&Tensor]) -> Option<Result<Tensor>> {
        crate::ops::sparse::reduce(self, x[0])
    }
    crate::shareable!();
}

impl Reduce {
    fn list(&self) -> Vec<i64> {
        (0..64).filter(|d| self.dims >> d & 1 == 1).collect()
    }
    /// A result with its reduced dimensions back, of size 1.
    fn keep(&self, t: &Tensor, sizes: &[i64]) -> Result<Tensor> {
        if self.keepdim || sizes.is_empty() {
            return Ok(t.clone());
        }
        let mut t = t.clone();
        for d in 0..sizes.len() {
            if self.dims >> d & 1 == 1 {
                t = view::unsqueeze(&t, d as i64)?;
            }
        }
        Ok(t)
    }
    /// A result spread over the sizes that were reduced.
    fn widen(&self, t: &Tensor, sizes: &[i64]) -> Result<Tensor> {
        // What is missing at the left comes back by itself.
        if !self.keepdim && self.dims & self.dims.wrapping_add(1) == 0 {
            return view::expand(t, sizes);
        }
        view::expand(&self.keep(t, sizes)?, sizes)
    }
    /// The product of all the others, zeros included: exclusive running products from both ends.
    fn prod_grad(&self, x: &Tensor, out: &Tensor, g: &Tensor) -> Result<Tensor> {
        let sizes = x.sizes();
        if sizes.is_empty() {
            return Ok(g.clone());
        }
        let _ = out;
        let dims = self.list();
        // Reduced dimensions last and flat.
        let n = sizes.len() as i64;
        let kept: Vec<i64> = (0..n).filter(|d| !dims.contains(d)).collect();
        let order: Vec<i64> = kept.iter().chain(&dims).copied().collect();
        let moved = view::permute(x, &order)?;
        let mut flat: Vec<i64> = kept.iter().map(|d| sizes[*d as usize]).collect();
        flat.push(-1);
        if x.numel() == 0 {
            return factory::zeros_like(x);
        }
        let y = view::reshape(&moved, &flat)?;
        let r = y.size(-1)?;
        let mut ones = y.sizes();
        let last = ones.len() - 1;
        ones[last] = 1;
        let one = factory::ones(&ones, x.dtype(), x.device())?;
        let before = crate::ops::scan::cumprod(
            &crate::ops::join::cat(&[one.clone(), view::narrow(&y, -1, 0, r - 1)?], -1)?,
            -1,
        )?;
        let reversed = view::flip(&y, &[-1])?;
        let after = view::flip(
            &crate::ops::scan::cumprod(
                &crate::ops::join::cat(&[one, view::narrow(&reversed, -1, 0, r - 1)?], -1)?,
                -1,
            )?,
            &[-1],
        )?;
        let others = e::mul(&before, &after)?;
        let others = if others.dtype().is_complex() { e::conj_physical(&others)? } else { others };
        let mut shape: Vec<i64> = kept.iter().map(|d| sizes[*d as usize]).collect();
        shape.push(1);
        let g = view::reshape(&self.keep(g, &sizes).and_then(|g| view::permute(&g, &order))?, &shape)?;
        let flat = e::mul(&g, &others)?;
        let moved_sizes: Vec<i64> = order.iter().map(|d| sizes[*d as usize]).collect();
        let mut back = vec![0i64; order.len()];
        order.iter().enumerate().for_each(|(i, d)| back[*d as usize] = i as i64);
        view::permute(&view::reshape(&flat, &moved_sizes)?, &back)
    }
}

/// The dimensions as a mask; all of them for an empty list.
///
/// # Errors
/// `Index` for one out of range, `Runtime` for a repeated one.
pub fn dim_mask(dims: &[i64], n: usize) -> Result<u64> {
    ensure!(n <= 64, Runtime, "tensors with more than 64 dimensions are not supported in reductions");
    if dims.is_empty() {
        return Ok(if n == 64 { u64::MAX } else { (1 << n) - 1 });
    }
    let mut mask = 0u64;
    for &d in dims {
        let d = wrap_dim(d, n)?;
        ensure!(mask >> d & 1 == 0, Runtime, "dim {d} appears multiple times in the list of dims");
        mask |= 1 << d;
    }
    Ok(if n == 0 { 0 } else { mask })
}
fn reduced_count(t: &Tensor, mask: u64) -> i64 {
    t.sizes().iter().enumerate().filter(|(d, _)| mask >> d & 1 == 1).map(|(_, n)| n).product()
}
fn reduce(t: &Tensor, how: Reduction, mask: u64, keepdim: bool, dtype: DType, dest: Dest) -> Result<Tensor> {
    apply1(Reduce { how, dims: mask, keepdim, dtype }, &[t], dest)
}
fn sum_type(t: &Tensor, dtype: Option<DType>) -> DType {
    dtype.unwrap_or(if t.dtype().is_integral(true) { DType::I64 } else { t.dtype() })
}
/// Input of a reduction in the dtype asked for, when that narrows or changes what is read.
fn cast_first(t: &Tensor, dtype: Option<DType>) -> Result<Tensor> {
    match dtype {
        Some(d) if d != t.dtype() => e::to_dtype(t, d),
        _ => Ok(t.clone()),
    }
}

/// Sum over dimensions (all for an empty list).
///
/// # Errors
/// `Index` for a dimension out of range.
pub fn sum(t: &Tensor, dims: &[i64], keepdim: bool) -> Result<Tensor> {
    sum_to(t, dims, keepdim, None, Dest::New)
}
/// [`sum`] with a result dtype and destination.
///
/// # Errors
/// As [`sum`].
pub fn sum_to(t: &Tensor, dims: &[i64], keepdim: bool, dtype: Option<DType>, dest: Dest) -> Result<Tensor> {
    let cast;
    let x = match dtype {
        Some(d) if d != t.dtype() => {
            cast = e::to_dtype(t, d)?;
            &cast
        }
        _ => t,
    };
    let mask = dim_mask(dims, x.dim())?;
    reduce(x, Reduction::Sum, mask, keepdim, sum_type(x, dtype), dest)
}
/// Mean over dimensions (all for an empty list).
///
/// # Errors
/// `Runtime` for integers.
pub fn mean(t: &Tensor, dims: &[i64], keepdim: bool) -> Result<Tensor> {
    mean_to(t, dims, keepdim, None, Dest::New)
}
/// [`mean`] with a result dtype and destination.
///
/// # Errors
/// As [`mean`].
pub fn mean_to(t: &Tensor, dims: &[i64], keepdim: bool, dtype: Option<DType>, dest: Dest) -> Result<Tensor> {
    let x = cast_first(t, dtype)?;
    ensure!(
        x.dtype().is_differentiable(),
        Runtime,
        "mean(): could not infer output dtype. Input dtype must be either a floating point or complex dtype. Got: {}",
        x.dtype().title()
    );
    let mask = dim_mask(dims, x.dim())?;
    let n = reduced_count(&x, mask);
    let to = x.dtype();
    reduce(&x, Reduction::ScaledSum(1.0 / n as f64), mask, keepdim, to, dest)
}
/// Product over one dimension, or all.
///
/// # Errors
/// `Index` for a dimension out of range.
pub fn prod(t: &Tensor, dim: Option<i64>, keepdim: bool, dtype: Option<DType>, dest: Dest) -> Result<Tensor> {
    let x = cast_first(t, dtype)?;
    let mask = match dim {
        Some(d) => dim_mask(&[d], x.dim())?,
        None => dim_mask(&[], x.dim())?,
    };
    let to = sum_type(&x, dtype);
    reduce(&x, Reduction::Prod, mask, keepdim, to, dest)
}
/// Sums a broadcast gradient back to `sizes`.
///
/// # Errors
/// `Runtime` when `sizes` does not broadcast to the tensor's.
pub fn sum_to_size(t: &Tensor, sizes: &[i64]) -> Result<Tensor> {
    let have = t.sizes();
    if have[..] == *sizes {
        return Ok(t.clone());
    }
    let lead = have.len() as i64 - sizes.len() as i64;
    let fits = lead >= 0 && sizes.iter().zip(&have[lead.max(0) as usize..]).all(|(a, b)| a == b || *a == 1);
    ensure!(fits, Runtime, "size {{{}}} is not expandable to size {{{}}}.", Shape(sizes), Shape(&have));
    let lead = lead as usize;
    let dims: Vec<i64> =
        (0..have.len()).filter(|&d| d < lead || (sizes[d - lead] == 1 && have[d] != 1)).map(|d| d as i64).collect();
    let summed = if dims.is_empty() { t.clone() } else { sum_keep_dtype(t, &dims)? };
    if lead == 0 {
        return Ok(summed);
    }
    view::reshape(&summed, sizes)
}
fn sum_keep_dtype(t: &Tensor, dims: &[i64]) -> Result<Tensor> {
    let mask = dim_mask(dims, t.dim())?;
    reduce(t, Reduction::Sum, mask, true, t.dtype(), Dest::New)
}

fn refuse_empty(t: &Tensor, mask: u64, name: &str, dims: &[i64]) -> Result<()> {
    if reduced_count(t, mask) == 0 && t.dim() > 0 {
        if dims.is_empty() {
            bail!(
                Runtime,
                "{name}(): Expected reduction dim to be specified for input.numel() == 0. Specify the reduction dim with the \
                 'dim' argument."
            );
        }
        let d = t.sizes().iter().enumerate().position(|(d, n)| mask >> d & 1 == 1 && *n == 0).unwrap_or(0);
        bail!(Index, "{name}(): Expected reduction dim {d} to have non-zero size.");
    }
    Ok(())
}
fn refuse_complex(t: &Tensor, name: &str) -> Result<()> {
    ensure!(
        !t.dtype().is_complex(),
        NotImplemented,
        "{name}(): \"{name}\" not implemented for '{}'",
        t.dtype().title()
    );
    Ok(())
}
fn extreme(t: &Tensor, how: Reduction, dims: &[i64], keepdim: bool, dest: Dest) -> Result<Tensor> {
    let name = if how == Reduction::Max { "amax" } else { "amin" };
    refuse_complex(t, name)?;
    let mask = dim_mask(dims, t.dim())?;
    refuse_empty(t, mask, name, dims)?;
    reduce(t, how, mask, keepdim, t.dtype(), dest)
}
/// Largest value over dimensions; gradients are shared among equals.
///
/// # Errors
/// For nothing to reduce, and complex numbers.
pub fn amax(t: &Tensor, dims: &[i64], keepdim: bool, dest: Dest) -> Result<Tensor> {
    extreme(t, Reduction::Max, dims, keepdim, dest)
}
/// Smallest value over dimensions.
///
/// # Errors
/// As [`amax`].
pub fn amin(t: &Tensor, dims: &[i64], keepdim: bool, dest: Dest) -> Result<Tensor> {
    extreme(t, Reduction::Min, dims, keepdim, dest)
}
/// Largest value of all.
///
/// # Errors
/// For an empty tensor.
pub fn max_all(t: &Tensor) -> Result<Tensor> {
    ensure!(
        t.numel() > 0,
        Runtime,
        "max(): Expected reduction dim to be specified for input.numel() == 0. Specify the reduction dim with the 'dim' argument."
    );
    amax(t, &[], false, Dest::New)
}
/// Smallest value of all.
///
/// # Errors
/// For an empty tensor.
pub fn min_all(t: &Tensor) -> Result<Tensor> {
    ensure!(
        t.numel() > 0,
        Runtime,
        "min(): Expected reduction dim to be specified for input.numel() == 0. Specify the reduction dim with the 'dim' argument."
    );
    amin(t, &[], false, Dest::New)
}
fn indexed(t: &Tensor, how: Reduction, dim: i64, keepdim: bool, name: &str) -> Result<(Tensor, Tensor)> {
    refuse_complex(t, name)?;
    let mask = dim_mask(&[dim], t.dim())?;
    refuse_empty(t, mask, name, &[dim])?;
    let mut out = apply(Reduce { how, dims: mask, keepdim, dtype: t.dtype() }, &[t], Dest::New)?;
    let second = out.pop().ok_or_else(|| err!(Runtime, "{name}: missing result"))?;
    let first = out.pop().ok_or_else(|| err!(Runtime, "{name}: missing result"))?;
    Ok((first, second))
}
/// Largest values along a dimension, and where they are.
///
/// # Errors
/// For an empty dimension, and complex numbers.
pub fn max_dim(t: &Tensor, dim: i64, keepdim: bool) -> Result<(Tensor, Tensor)> {
    indexed(t, Reduction::MaxIndex, dim, keepdim, "max")
}
/// Smallest values along a dimension, and where they are.
///
/// # Errors
/// As [`max_dim`].
pub fn min_dim(t: &Tensor, dim: i64, keepdim: bool) -> Result<(Tensor, Tensor)> {
    indexed(t, Reduction::MinIndex, dim, keepdim, "min")
}
fn arg(t: &Tensor, how: Reduction, dim: Option<i64>, keepdim: bool) -> Result<Tensor> {
    let name = if how == Reduction::ArgMax { "argmax" } else { "argmin" };
    refuse_complex(t, name)?;
    match dim {
        Some(d) => {
            let mask = dim_mask(&[d], t.dim())?;
            refuse_empty(t, mask, name, &[d])?;
            reduce(t, how, mask, keepdim, DType::I64, Dest::New)
        }
        None => {
            ensure!(t.numel() > 0, Index, "{name}(): Expected reduction dim to be specified for input.numel() == 0.");
            let mask = dim_mask(&[], t.dim())?;
            reduce(t, how, mask, keepdim, DType::I64, Dest::New)
        }
    }
}
/// Where the largest value is: along a dimension, or in the flattened tensor.
///
/// # Errors
/// As [`max_dim`].
pub fn argmax(t: &Tensor, dim: Option<i64>, keepdim: bool) -> Result<Tensor> {
    arg(t, Reduction::ArgMax, dim, keepdim)
}
/// Where the smallest value is.
///
/// # Errors
/// As [`max_dim`].
pub fn argmin(t: &Tensor, dim: Option<i64>, keepdim: bool) -> Result<Tensor> {
    arg(t, Reduction::ArgMin, dim, keepdim)
}
fn truth_type(t: &Tensor) -> DType {
    if t.dtype() == DType::U8 {
        DType::U8
    } else {
        DType::Bool
    }
}
/// Whether any value is not zero, over dimensions (all for an empty list).
///
/// # Errors
/// `Index` for a dimension out of range.
pub fn any(t: &Tensor, dims: &[i64], keepdim: bool, dest: Dest) -> Result<Tensor> {
    reduce(t, Reduction::Any, dim_mask(dims, t.dim())?, keepdim, truth_type(t), dest)
}
/// Whether no value is zero.
///
/// # Errors
/// `Index` for a dimension out of range.
pub fn all(t: &Tensor, dims: &[i64], keepdim: bool, dest: Dest) -> Result<Tensor> {
    reduce(t, Reduction::All, dim_mask(dims, t.dim())?, keepdim, truth_type(t), dest)
}
/// Variance and mean over dimensions; the divisor is `n - correction`.
///
/// # Errors
/// `Runtime` for integers.
pub fn var_mean(t: &Tensor, dims: &[i64], correction: f64, keepdim: bool) -> Result<(Tensor, Tensor)> {
    if t.dtype().is_complex() {
        let (re, im) = (view::real(t)?, view::imag(t)?);
        let v = e::add(&var_mean(&re, dims, correction, keepdim)?.0, &var_mean(&im, dims, correction, keepdim)?.0)?;
        return Ok((v, mean(t, dims, keepdim)?));
    }
    ensure!(t.dtype().is_float(), Runtime, "std and var only support floating point and complex dtypes");
    let mask = dim_mask(dims, t.dim())?;
    let mut out = apply(
        Reduce { how: Reduction::VarMean { correction }, dims: mask, keepdim, dtype: t.dtype() },
        &[t],
        Dest::New,
    )?;
    let mean = out.pop().ok_or_else(|| err!(Runtime, "var_mean: missing result"))?;
    let var = out.pop().ok_or_else(|| err!(Runtime, "var_mean: missing result"))?;
    Ok((var, mean))
}
/// Variance over dimensions.
///
/// # Errors
/// As [`var_mean`].
pub fn var(t: &Tensor, dims: &[i64], correction: f64, keepdim: bool) -> Result<Tensor> {
    Ok(var_mean(t, dims, correction, keepdim)?.0)
}
/// Standard deviation over dimensions.
///
/// # Errors
/// As [`var_mean`].
pub fn std(t: &Tensor, dims: &[i64], correction: f64, keepdim: bool) -> Result<Tensor> {
    root(&var(t, dims, correction, keepdim)?)
}
/// The root of a variance; its gradient is 0 where the variance is, as PyTorch has it.
///
/// # Errors
/// None in practice.
pub fn root(variance: &Tensor) -> Result<Tensor> {
    if !(variance.requires_grad() && crate::mode::grad_enabled()) {
        return e::sqrt(variance);
    }
    // Neither pass may meet the root's infinite slope, not even to multiply it by zero.
    let nothing = e::eq(&variance.detach(), 0)?;
    e::where_(&nothing, 0.0, &e::sqrt(&e::where_(&nothing, 1.0, variance)?)?)
}

fn floats(t: &Tensor) -> Result<Tensor> {
    if t.dtype().is_differentiable() {
        Ok(t.clone())
    } else {
        e::to_dtype(t, crate::mode::default_dtype())
    }
}
/// Logarithm of the sum of exponentials over dimensions, without overflow.
///
/// # Errors
/// `Index` for a dimension out of range.
pub fn logsumexp(t: &Tensor, dims: &[i64], keepdim: bool) -> Result<Tensor> {
    let x = floats(t)?;
    formally_saves(log_sum_exp(&x, dims, keepdim)?, &[&x], true, "logsumexp")
}
fn log_sum_exp(x: &Tensor, dims: &[i64], keepdim: bool) -> Result<Tensor> {
    let mask = dim_mask(dims, x.dim())?;
    if reduced_count(x, mask) == 0 {
        return e::log(&sum(&e::exp(x)?, dims, keepdim)?);
    }
    // The largest value, finite, as a constant: it cancels in the gradient.
    let top = amax(&x.detach(), dims, true, Dest::New)?;
    let top = e::where_(&e::isfinite(&top)?, &top, 0.0)?;
    let s = e::log(&sum(&e::exp(&e::sub(x, &top)?)?, dims, true)?)?;
    let out = e::add(&s, &top)?;
    if keepdim {
        return Ok(out);
    }
    let list: Vec<i64> = (0..x.dim() as i64).filter(|d| mask >> d & 1 == 1).collect();
    view::squeeze(&out, Some(&list))
}
/// The p-norm of all elements over dimensions.
///
/// # Errors
/// `Runtime` for integers, and for an infinite norm of nothing.
pub fn vector_norm(t: &Tensor, ord: f64, dims: &[i64], keepdim: bool, dtype: Option<DType>) -> Result<Tensor> {
    let x = cast_first(t, dtype)?;
    ensure!(
        x.dtype().is_differentiable(),
        Runtime,
        "linalg.vector_norm: Expected a floating point or complex tensor as input. Got {}",
        x.dtype().title()
    );
    if ord == 0.0 {
        return constant_of(p_norm(&x, ord, dims, keepdim)?, &x);
    }
    let compute = || {
        // Powers of halves leave their range long before the norm does.
        if x.dtype().is_reduced() {
            e::to_dtype(&p_norm(&e::to_dtype(&x, DType::F32)?, ord, dims, keepdim)?, x.dtype())
        } else {
            p_norm(&x, ord, dims, keepdim)
        }
    };
    if ord == 1.0 || ord.is_infinite() || !x.requires_grad() || !mode::grad_enabled() || x.as_batched().is_some() {
        return formally_saves(compute()?, &[&x], true, "linalg_vector_norm");
    }
    let y = {
        let _off = mode::no_grad();
        compute()?
    };
    let mask = if keepdim { 0 } else { dim_mask(dims, x.dim())? };
    let gone = (0..x.dim() as i64).filter(|d| mask >> d & 1 == 1).collect();
    differentiated_as(y, &x, Arc::new(NormGradient { ord, gone }))
}
/// The derivative of a p-norm, which stands in graphs only. The norm's own formula would have a 0/0 where PyTorch's gradient is 0.
#[derive(Clone)]
struct NormGradient {
    ord: f64,
    /// Dimensions that the norm has lost.
    gone: Vec<i64>,
}
impl Primitive for NormGradient {
    fn name(&self) -> &'static str {
        "linalg_vector_norm"
    }
    fn infer(&self, _: &[&Meta], _: &mut Draft) -> Result<()> {
        bail!(Runtime, "{}: stands in graphs only", self.name())
    }
    fn run(&self, _: &dyn Backend, _: &[Operand], _: &[Operand]) -> Result<()> {
        bail!(Runtime, "{}: stands in graphs only", self.name())
    }
    /// d‖x‖/dx = sgn(x) |x|^(p-1) / ‖x‖^(p-1), and 0 where that is 0/0: at zero norm, and for p < 1 at zero elements.
    fn vjp(&self, cx: &Vjp, g: &[Option<Tensor>]) -> Result<Gradients> {
        let Some(g) = &g[0] else { return Ok(smallvec![None]) };
        let (x, p) = (cx.input(0)?, self.ord);
        let widen = |t: &Tensor| self.gone.iter().try_fold(t.clone(), |t, d| view::unsqueeze(&t, *d));
        let (norm, g) = (widen(&cx.output(0)?)?, widen(g)?);
        let zero_norm = || e::eq(&norm.detach(), 0.0);
        Ok(smallvec![Some(if p == 2.0 {
            e::mul(&g, &e::where_(&zero_norm()?, 0.0, &e::div(&x, &norm)?)?)?
        } else if p < 1.0 {
            let size = e::abs(&x)?;
            let power = e::where_(&e::eq(&size.detach(), 0.0)?, 0.0, &e::pow(&size, p - 1.0)?)?;
            e::mul(&e::mul(&e::mul(&e::sgn(&x)?, &power)?, &g)?, &e::pow(&norm, 1.0 - p)?)?
        } else {
            let slope = if p < 2.0 {
                e::mul(&e::sgn(&x)?, &e::pow(&e::abs(&x)?, p - 1.0)?)?
            } else {
                e::mul(&x, &e::pow(&e::abs(&x)?, p - 2.0)?)?
            };
            let scale = e::div(&g, &e::pow(&norm, p - 1.0)?)?;
            e::mul(&slope, &e::where_(&zero_norm()?, 0.0, &scale)?)?
        })])
    }
    fn key(&self, _: &mut PlanKey) {}
    crate::shareable!();
}
fn p_norm(x: &Tensor, ord: f64, dims: &[i64], keepdim: bool) -> Result<Tensor> {
    let mask = dim_mask(dims, x.dim())?;
    let empty = reduced_count(x, mask) == 0;
    let magnitude = |x: &Tensor| e::abs(x);
    if ord == 0.0 {
        return sum(&e::to_dtype(&e::ne(x, 0.0)?, x.dtype().to_real())?, dims, keepdim);
    }
    if ord.is_infinite() {
        ensure!(!empty || x.dim() == 0, Runtime, "linalg.vector_norm cannot compute the {ord} norm on an empty dimension because the operation does not have an identity");
        let a = magnitude(x)?;
        return if ord > 0.0 { amax(&a, dims, keepdim, Dest::New) } else { amin(&a, dims, keepdim, Dest::New) };
    }
    if ord == 1.0 {
        return sum(&magnitude(x)?, dims, keepdim);
    }
    if ord == 2.0 {
        return two_norm(x, dims, keepdim);
    }
    let mut a = magnitude(x)?;
    if ord > 0.0 && ord < 1.0 {
        // The power's slope is infinite at 0, where PyTorch's norm has gradient 0: there the power is of a constant.
        let zero = e::eq(&a.detach(), 0.0)?;
        a = e::pow(&e::where_(&zero, 1.0, &a)?, ord)?;
        return e::pow(&sum(&e::where_(&zero, 0.0, &a)?, dims, keepdim)?, 1.0 / ord);
    }
    a = e::pow(&a, ord)?;
    e::pow(&sum(&a, dims, keepdim)?, 1.0 / ord)
}
/// Square root of the sum of squares; its gradient at 0 is 0.
fn two_norm(x: &Tensor, dims: &[i64], keepdim: bool) -> Result<Tensor> {
    let a = if x.dtype().is_complex() { e::abs(x)? } else { x.clone() };
    let s = sum(&e::square(&a)?, dims, keepdim)?;
    let zero = e::eq(&s.detach(), 0.0)?;
    // sqrt' is infinite at 0, where PyTorch's norm has gradient 0: there the root is of a constant.
    let safe = e::where_(&zero, 1.0, &s)?;
    e::where_(&zero, 0.0, &e::sqrt(&safe)?)
}
/// How many values are not zero.
///
/// # Errors
/// `Index` for a dimension out of range.
pub fn count_nonzero(t: &Tensor, dims: &[i64]) -> Result<Tensor> {
    sum(&e::ne(t, 0)?, dims, false)
}
/// Sum that takes NaN as 0.
///
/// # Errors
/// `Index` for a dimension out of range.
pub fn nansum(t: &Tensor, dims: &[i64], keepdim: bool, dtype: Option<DType>) -> Result<Tensor> {
    if t.dtype().is_integral(true) {
        return sum_to(t, dims, keepdim, dtype, Dest::New);
    }
    sum_to(&e::where_(&e::isnan(t)?, 0.0, t)?, dims, keepdim, dtype, Dest::New)
}
/// Mean of the values that are not NaN.
///
/// # Errors
/// `Runtime` for integers.
pub fn nanmean(t: &Tensor, dims: &[i64], keepdim: bool, dtype: Option<DType>) -> Result<Tensor> {
    ensure!(
        t.dtype().is_differentiable(),
        Runtime,
        "nanmean(): expected input to have floating point or complex dtype but got {}",
        t.dtype().title()
    );
    let count = sum(&e::logical_not(&e::isnan(&t.detach())?)?, dims, keepdim)?;
    e::div(&nansum(t, dims, keepdim, dtype)?, &count)
}
/// Smallest and largest value.
///
/// # Errors
/// As [`amax`].
pub fn aminmax(t: &Tensor, dim: Option<i64>, keepdim: bool) -> Result<(Tensor, Tensor)> {
    let dims: SmallVec<[i64; 1]> = dim.into_iter().collect();
    Ok((amin(t, &dims, keepdim, Dest::New)?, amax(t, &dims, keepdim, Dest::New)?))
}
/// Whether two tensors have the same sizes and elements.
///
/// # Errors
/// The failure of a pending computation.
pub fn equal(a: &Tensor, b: &Tensor) -> Result<bool> {
    if a.sizes() != b.sizes() {
        return Ok(false);
    }
    Ok(all(&e::eq(a, b)?, &[], false, Dest::New)?.item()?.to_bool())
}
/// Elementwise closeness: `|a - b| <= atol + rtol |b|`.
///
/// # Errors
/// `Runtime` for negative tolerances or different dtypes.
pub fn isclose(a: &Tensor, b: &Tensor, rtol: f64, atol: f64, equal_nan: bool) -> Result<Tensor> {
    ensure!(a.dtype() == b.dtype(), Runtime, "{} did not match {}", a.dtype().title(), b.dtype().title());
    ensure!(rtol >= 0.0, Runtime, "rtol must be greater than or equal to zero, but got {rtol}");
    ensure!(atol >= 0.0, Runtime, "atol must be greater than or equal to zero, but got {atol}");
    let mut close = e::eq(a, b)?;
    if equal_nan && a.dtype().is_differentiable() {
        close = e::logical_or(&close, &e::logical_and(&e::isnan(a)?, &e::isnan(b)?)?)?;
    }
    let (x, y) = if a.dtype().is_differentiable() {
        (a.clone(), b.clone())
    } else {
        (e::to_dtype(a, DType::F64)?, e::to_dtype(b, DType::F64)?)
    };
    let error = e::abs(&e::sub(&x, &y)?)?;
    let allowed = e::add(&e::mul(&e::abs(&y)?, rtol)?, atol)?;
    e::logical_or(&close, &e::logical_and(&e::isfinite(&error)?, &e::le(&error, &allowed)?)?)
}
/// [`isclose`] of every element.
///
/// # Errors
/// As [`isclose`].
pub fn allclose(a: &Tensor, b: &Tensor, rtol: f64, atol: f64, equal_nan: bool) -> Result<bool> {
    Ok(all(&isclose(a, b, rtol, atol, equal_nan)?, &[], false, Dest::New)?.item()?.to_bool())
}
