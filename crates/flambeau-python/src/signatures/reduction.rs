//! Signatures of reductions and scans.

use flambeau::core::err;
use flambeau::{DType, Dest, Device, Number, Result, Tensor};

/// The product over several dimensions, one after the other from the last; over all of them for an empty list.
fn prod_over(t: &Tensor, dims: Option<&[i64]>, keepdim: bool, dtype: Option<DType>) -> Result<Tensor> {
    let mut wrapped: Vec<usize> = match dims {
        Some(dims) => dims.iter().map(|&d| flambeau::core::wrap_dim(d, t.dim())).collect::<Result<_>>()?,
        None => (0..t.dim()).collect(),
    };
    wrapped.sort_unstable();
    let before = wrapped.len();
    wrapped.dedup();
    if wrapped.len() < before {
        return Err(err!(Runtime, "prod: a dimension appears multiple times in the list of dims"));
    }
    let Some((&last, rest)) = wrapped.split_last() else {
        return match dtype {
            Some(d) => elementwise::to_dtype(t, d),
            None => Ok(t.clone()),
        };
    };
    let mut out = reduction::prod(t, Some(last as i64), keepdim, dtype, Dest::New)?;
    for &d in rest.iter().rev() {
        out = reduction::prod(&out, Some(d as i64), keepdim, dtype, Dest::New)?;
    }
    Ok(out)
}
fn list(dims: Option<&[i64]>) -> &[i64] {
    dims.unwrap_or(&[])
}
fn correction(unbiased: bool) -> f64 {
    if unbiased {
        1.0
    } else {
        0.0
    }
}
fn or_one(c: Option<Number>) -> f64 {
    c.map_or(1.0, Number::to_f64)
}
fn norm(t: &Tensor, p: Option<Number>, dims: Option<&[i64]>, keepdim: bool, dtype: Option<DType>) -> Result<Tensor> {
    reduction::vector_norm(t, p.map_or(2.0, Number::to_f64), list(dims), keepdim, dtype)
}
fn norm_named(t: &Tensor, p: &str, dims: Option<&[i64]>, keepdim: bool, dtype: Option<DType>) -> Result<Tensor> {
    match p {
        "fro" => reduction::vector_norm(t, 2.0, list(dims), keepdim, dtype),
        "nuc" => {
            let x = match dtype {
                Some(d) => elementwise::to_dtype(t, d)?,
                None => t.clone(),
            };
            solve::spectral_norm(&x, None, dims.unwrap_or(&[-2, -1]), keepdim)
        }
        _ => Err(err!(Runtime, "norm: the order '{p}' is not supported; expected 'fro', 'nuc' or a number")),
    }
}
pub(super) fn matrix_norm(t: &Tensor, ord: f64, dim: &[i64], keepdim: bool, dtype: Option<DType>) -> Result<Tensor> {
    if dim.len() != 2 {
        return Err(err!(Runtime, "linalg.matrix_norm: dim must be a 2-tuple of ints, got {} of them", dim.len()));
    }
    let x = match dtype {
        Some(d) => elementwise::to_dtype(t, d)?,
        None => t.clone(),
    };
    let n = x.dim();
    let (a, b) = (flambeau::core::wrap_dim(dim[0], n)? as i64, flambeau::core::wrap_dim(dim[1], n)? as i64);
    let (sum_over, best_over) = match ord.abs() {
        1.0 => (a, b),
        x if x.is_infinite() => (b, a),
        2.0 => return solve::spectral_norm(&x, Some(ord), dim, keepdim),
        _ => return Err(err!(Runtime, "linalg.matrix_norm: Order {ord} not supported.")),
    };
    let sums = reduction::sum(&elementwise::abs(&x)?, &[sum_over], true)?;
    let best = if ord > 0.0 && sums.size(best_over)? == 0 {
        // The largest of no sums is 0, as is their sum; the smallest is refused.
        reduction::sum(&sums, &[best_over], true)?
    } else if ord > 0.0 {
        reduction::amax(&sums, &[best_over], true, Dest::New)?
    } else {
        reduction::amin(&sums, &[best_over], true, Dest::New)?
    };
    if keepdim {
        return Ok(best);
    }
    view::squeeze(&best, Some(&[a, b]))
}

operators! { REDUCTION;
    "sum(Tensor input, *, dtype? dtype=None)" [function method out] => |t: &Tensor, d: Option<DType>| reduction::sum_to(t, &[], false, d, Dest::New);
    "sum(Tensor input, int[]? dim, bool keepdim=False, *, dtype? dtype=None)" [function method out] => |t: &Tensor, dims: Option<&[i64]>, k: bool, d: Option<DType>| reduction::sum_to(t, list(dims), k, d, Dest::New);
    "mean(Tensor input, *, dtype? dtype=None)" [function method out] => |t: &Tensor, d: Option<DType>| reduction::mean_to(t, &[], false, d, Dest::New);
    "mean(Tensor input, int[]? dim, bool keepdim=False, *, dtype? dtype=None)" [function method out] => |t: &Tensor, dims: Option<&[i64]>, k: bool, d: Option<DType>| reduction::mean_to(t, list(dims), k, d, Dest::New);
    "prod(Tensor input, *, dtype? dtype=None)" [function method out] => |t: &Tensor, d: Option<DType>| reduction::prod(t, None, false, d, Dest::New);
    "prod(Tensor input, int dim, bool keepdim=False, *, dtype? dtype=None)" [function method out] => |t: &Tensor, dim: i64, k: bool, d: Option<DType>| reduction::prod(t, Some(dim), k, d, Dest::New);
    "prod(Tensor input, int[]? dim, bool keepdim=False, *, dtype? dtype=None)" [function method] => prod_over;
    "sum_to_size(Tensor input, int[*] size)" [method] => |t: &Tensor, s: &[i64]| -> Result<Tensor> {
        // A sum of integers is int64, as everywhere; sizes that are there already are no sum.
        if t.dtype().is_integral(true) && (s.is_empty() || t.sizes()[..] != *s) {
            return reduction::sum_to_size(&elementwise::to_dtype(t, DType::I64)?, s);
        }
        reduction::sum_to_size(t, s)
    };
    "amax(Tensor input, int[] dim=[], bool keepdim=False)" [function method out] => |t: &Tensor, d: &[i64], k: bool| reduction::amax(t, d, k, Dest::New);
    "amin(Tensor input, int[] dim=[], bool keepdim=False)" [function method out] => |t: &Tensor, d: &[i64], k: bool| reduction::amin(t, d, k, Dest::New);
    "aminmax(Tensor input, *, int? dim=None, bool keepdim=False) -> aminmax(min, max)" [function method out] => reduction::aminmax;
    "max(Tensor input)" [function method out] => reduction::max_all;
    "max(Tensor input, int dim, bool keepdim=False) -> max(values, indices)" [function method out apart] => reduction::max_dim;
    "max(Tensor input, Tensor other)" [function method out] => |a: &Tensor, b: &Tensor| elementwise::maximum(a, b);
    "min(Tensor input)" [function method out] => reduction::min_all;
    "min(Tensor input, int dim, bool keepdim=False) -> min(values, indices)" [function method out apart] => reduction::min_dim;
    "min(Tensor input, Tensor other)" [function method out] => |a: &Tensor, b: &Tensor| elementwise::minimum(a, b);
    "argmax(Tensor input, int? dim=None, bool keepdim=False)" [function method out] => reduction::argmax;
    "argmin(Tensor input, int? dim=None, bool keepdim=False)" [function method out] => reduction::argmin;
    "any(Tensor input)" [function method out] => |t: &Tensor| reduction::any(t, &[], false, Dest::New);
    "any(Tensor input, int[]? dim, bool keepdim=False)" [function method out] => |t: &Tensor, d: Option<&[i64]>, k: bool| reduction::any(t, list(d), k, Dest::New);
    "any(bool input)" [function] => |b: bool| flambeau::ops::factory::full(&[], Number::Bool(b), DType::Bool, Device::Cpu);
    "all(Tensor input)" [function method out] => |t: &Tensor| reduction::all(t, &[], false, Dest::New);
    "all(Tensor input, int[]? dim, bool keepdim=False)" [function method out] => |t: &Tensor, d: Option<&[i64]>, k: bool| reduction::all(t, list(d), k, Dest::New);
    // A Python bool is what `equal` answers; the array API asks whether all of it holds.
    "all(bool input)" [function] => |b: bool| flambeau::ops::factory::full(&[], Number::Bool(b), DType::Bool, Device::Cpu);
    "var(Tensor input, bool unbiased)" [function method] => |t: &Tensor, u: bool| reduction::var(t, &[], correction(u), false);
    "var(Tensor input, int[]? dim, bool unbiased, bool keepdim=False)" [function method out] => |t: &Tensor, d: Option<&[i64]>, u: bool, k: bool| reduction::var(t, list(d), correction(u), k);
    "var(Tensor input, int[]? dim=None, *, Number? correction=None, bool keepdim=False)" [function method out] => |t: &Tensor, d: Option<&[i64]>, c: Option<Number>, k: bool| reduction::var(t, list(d), or_one(c), k);
    "var(Tensor input, int[]? dim=None, bool unbiased=True, bool keepdim=False)" [function method] => |t: &Tensor, d: Option<&[i64]>, u: bool, k: bool| reduction::var(t, list(d), correction(u), k);
    "std(Tensor input, bool unbiased)" [function method] => |t: &Tensor, u: bool| reduction::std(t, &[], correction(u), false);
    "std(Tensor input, int[]? dim, bool unbiased, bool keepdim=False)" [function method out] => |t: &Tensor, d: Option<&[i64]>, u: bool, k: bool| reduction::std(t, list(d), correction(u), k);
    "std(Tensor input, int[]? dim=None, *, Number? correction=None, bool keepdim=False)" [function method out] => |t: &Tensor, d: Option<&[i64]>, c: Option<Number>, k: bool| reduction::std(t, list(d), or_one(c), k);
    "std(Tensor input, int[]? dim=None, bool unbiased=True, bool keepdim=False)" [function method] => |t: &Tensor, d: Option<&[i64]>, u: bool, k: bool| reduction::std(t, list(d), correction(u), k);
    "var_mean(Tensor input, bool unbiased)" [function] => |t: &Tensor, u: bool| reduction::var_mean(t, &[], correction(u), false);
    "var_mean(Tensor input, int[]? dim=None, *, Number? correction=None, bool keepdim=False)" [function] => |t: &Tensor, d: Option<&[i64]>, c: Option<Number>, k: bool| reduction::var_mean(t, list(d), or_one(c), k);
    "var_mean(Tensor input, int[]? dim=None, bool unbiased=True, bool keepdim=False)" [function] => |t: &Tensor, d: Option<&[i64]>, u: bool, k: bool| reduction::var_mean(t, list(d), correction(u), k);
    "std_mean(Tensor input, bool unbiased)" [function] => |t: &Tensor, u: bool| -> Result<(Tensor, Tensor)> { let (v, m) = reduction::var_mean(t, &[], correction(u), false)?; Ok((reduction::root(&v)?, m)) };
    "std_mean(Tensor input, int[]? dim=None, *, Number? correction=None, bool keepdim=False)" [function] => |t: &Tensor, d: Option<&[i64]>, c: Option<Number>, k: bool| -> Result<(Tensor, Tensor)> { let (v, m) = reduction::var_mean(t, list(d), or_one(c), k)?; Ok((reduction::root(&v)?, m)) };
    "std_mean(Tensor input, int[]? dim=None, bool unbiased=True, bool keepdim=False)" [function] => |t: &Tensor, d: Option<&[i64]>, u: bool, k: bool| -> Result<(Tensor, Tensor)> { let (v, m) = reduction::var_mean(t, list(d), correction(u), k)?; Ok((reduction::root(&v)?, m)) };
    "logsumexp(Tensor input, int[] dim, bool keepdim=False)" [function method out alias(special.logsumexp)] => |t: &Tensor, d: &[i64], k: bool| logexp::logsumexp(t, d, k);
    "norm(Tensor input, Number? p=2, int[]? dim=None, bool keepdim=False, *, dtype? dtype=None)" [function method out] => norm;
    "norm(Tensor input, str p, int[]? dim=None, bool keepdim=False, *, dtype? dtype=None)" [function method out] => norm_named;
    "linalg.norm(Tensor A, Number? ord=None, int[]? dim=None, bool keepdim=False, *, dtype? dtype=None)" [function out] => |t: &Tensor, p: Option<Number>, d: Option<&[i64]>, k: bool, dt: Option<DType>| match (p, d) {
        (Some(p), Some(d)) if d.len() == 2 => matrix_norm(t, p.to_f64(), d, k, dt),
        (Some(p), None) if t.dim() == 2 => matrix_norm(t, p.to_f64(), &[0, 1], k, dt),
        _ => norm(t, p, d, k, dt),
    };
    "linalg.norm(Tensor A, str ord, int[]? dim=None, bool keepdim=False, *, dtype? dtype=None)" [function out] => norm_named;
    "linalg.vector_norm(Tensor x, Number ord=2, int[]? dim=None, bool keepdim=False, *, dtype? dtype=None)" [function out] => |t: &Tensor, p: Number, d: Option<&[i64]>, k: bool, dt: Option<DType>| reduction::vector_norm(t, p.to_f64(), list(d), k, dt);
    "linalg.matrix_norm(Tensor A, Number ord, int[] dim=[-2, -1], bool keepdim=False, *, dtype? dtype=None)" [function out] => |t: &Tensor, p: Number, d: &[i64], k: bool, dt: Option<DType>| matrix_norm(t, p.to_f64(), d, k, dt);
    "linalg.matrix_norm(Tensor A, str ord='fro', int[] dim=[-2, -1], bool keepdim=False, *, dtype? dtype=None)" [function out] => |t: &Tensor, p: &str, d: &[i64], k: bool, dt: Option<DType>| norm_named(t, p, Some(d), k, dt);
    "count_nonzero(Tensor input, int[] dim)" [function method] => |t: &Tensor, d: &[i64]| reduction::count_nonzero(t, d);
    "count_nonzero(Tensor input, int[]? dim=None)" [function method] => |t: &Tensor, d: Option<&[i64]>| reduction::count_nonzero(t, list(d));
    "count_nonzero(Tensor input, int[]? dim=None, *, bool keepdim)" [function] => |t: &Tensor, d: Option<&[i64]>, k: bool| reduction::sum(&elementwise::to_dtype(t, DType::Bool)?, list(d), k);
    "nansum(Tensor input, int[]? dim=None, bool keepdim=False, *, dtype? dtype=None)" [function method out] => |t: &Tensor, d: Option<&[i64]>, k: bool, dt: Option<DType>| reduction::nansum(t, list(d), k, dt);
    "nanmean(Tensor input, int[]? dim=None, bool keepdim=False, *, dtype? dtype=None)" [function method out] => |t: &Tensor, d: Option<&[i64]>, k: bool, dt: Option<DType>| reduction::nanmean(t, list(d), k, dt);
    "equal(Tensor input, Tensor other)" [function method] => reduction::equal;
    "isclose(Tensor input, Tensor other, float rtol=1e-05, float atol=1e-08, bool equal_nan=False)" [function method] => reduction::isclose;
    "allclose(Tensor input, Tensor other, float rtol=1e-05, float atol=1e-08, bool equal_nan=False)" [function method] => reduction::allclose;
    "dist(Tensor input, Tensor other, Number p=2)" [function method] => |a: &Tensor, b: &Tensor, p: Number| reduction::vector_norm(&elementwise::sub(a, b)?, p.to_f64(), &[], false, None);
    "cumsum(Tensor input, int dim, *, dtype? dtype=None)" [function method inplace out] => |t: &Tensor, d: i64, dt: Option<DType>| scan::cumsum_to(t, d, dt, Dest::New);
    "cumprod(Tensor input, int dim, *, dtype? dtype=None)" [function method inplace out] => |t: &Tensor, d: i64, dt: Option<DType>| scan::cumprod_to(t, d, dt, Dest::New);
    "logcumsumexp(Tensor input, int dim)" [function method out] => logexp::logcumsumexp;
    "cummax(Tensor input, int dim) -> cummax(values, indices)" [function method out] => scan::cummax;
    "cummin(Tensor input, int dim) -> cummin(values, indices)" [function method out] => scan::cummin;
}
