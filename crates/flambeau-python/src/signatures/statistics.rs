//! Signatures of statistics, searching and histograms.

use crate::call::{with_py, Object, Returned};
use crate::tensor::extract;
use flambeau::core::{bail, ensure};
use flambeau::ops::statistics::Spacing;
use flambeau::{Number, Result, Tensor, Value};
use pyo3::prelude::*;

fn quantile_of(t: &Tensor, q: f64) -> Result<Tensor> {
    flambeau::ops::factory::full(&[], Number::Float(q), t.dtype(), t.device())
}
/// `gradient` with its spacings as Python gives them: nothing, a number, numbers, or coordinates.
fn gradient(t: &Tensor, spacing: Option<Object>, dim: Option<&[i64]>, edge_order: i64) -> Result<Vec<Tensor>> {
    let every: Vec<i64> = (0..t.dim() as i64).collect();
    let dims = dim.unwrap_or(&every);
    let one = |n: Number| dims.iter().map(|_| Spacing::Step(n)).collect::<Vec<_>>();
    let spacing: Vec<Spacing> = match spacing {
        None => one(Number::Int(1)),
        Some(given) => with_py(|py| {
            let given = given.bind(py);
            let number = |o: &Bound<'_, PyAny>| -> PyResult<Number> {
                // SAFETY: a `Bound` shows that the interpreter is attached.
                unsafe { crate::binder::number(o.as_ptr()) }.ok_or_else(|| {
                    pyo3::exceptions::PyTypeError::new_err("gradient(): argument 'spacing' must be numbers or Tensors")
                })
            };
            if extract(&given).is_none() {
                if let Ok(n) = number(&given) {
                    return Ok(one(n));
                }
            }
            let mut list = Vec::new();
            for item in given.try_iter()? {
                let item = item?;
                list.push(match extract(&item) {
                    Some(t) => Spacing::At(t.clone()),
                    None => Spacing::Step(number(&item)?),
                });
            }
            Ok(list)
        })?,
    };
    statistics::gradient(t, &spacing, dims, edge_order)
}
/// The results that were asked for, as `unique` returns them.
fn unique_result(parts: (Tensor, Option<Tensor>, Option<Tensor>)) -> Result<Returned> {
    let (values, inverse, counts) = parts;
    if inverse.is_none() && counts.is_none() {
        return Ok(Returned::Tensor(values));
    }
    let rest = [inverse, counts].into_iter().flatten();
    Ok(Returned::Tuple(std::iter::once(values).chain(rest).map(Returned::Tensor).collect()))
}
fn side(right: bool, side: Option<&str>) -> Result<bool> {
    match side {
        None => Ok(right),
        Some("left") => {
            ensure!(
                !right,
                Runtime,
                "torch.searchsorted(): side and right can't be set to opposites, got side of left while right was True"
            );
            Ok(false)
        }
        Some("right") => Ok(true),
        Some(other) => {
            bail!(Runtime, "torch.searchsorted(): side can only be 'left' or 'right' but got {other}")
        }
    }
}
fn edges(bins: Object) -> Result<Vec<Tensor>> {
    with_py(|py| {
        let mut list = Vec::new();
        for item in bins.bind(py).try_iter()? {
            match extract(&item?) {
                Some(t) => list.push(t.clone()),
                None => return Ok(Vec::new()),
            }
        }
        Ok(list)
    })
}

operators! { STATISTICS;
    "diff(Tensor input, int n=1, int dim=-1, Tensor? prepend=None, Tensor? append=None)" [function method out] => statistics::diff;
    "gradient(Tensor input, *, object? spacing=None, int[]? dim=None, int edge_order=1)" [function] => gradient;
    "trapezoid(Tensor y, Tensor x, *, int dim=-1)" [function alias(trapz)] => |y: &Tensor, x: &Tensor, d: i64| statistics::trapezoid(y, Some(x), Number::Int(1), d);
    "trapezoid(Tensor y, *, Number dx=1, int dim=-1)" [function alias(trapz)] => |y: &Tensor, dx: Number, d: i64| statistics::trapezoid(y, None, dx, d);
    "cumulative_trapezoid(Tensor y, Tensor x, *, int dim=-1)" [function] => |y: &Tensor, x: &Tensor, d: i64| statistics::cumulative_trapezoid(y, Some(x), Number::Int(1), d);
    "cumulative_trapezoid(Tensor y, *, Number dx=1, int dim=-1)" [function] => |y: &Tensor, dx: Number, d: i64| statistics::cumulative_trapezoid(y, None, dx, d);
    "cov(Tensor input, *, int correction=1, Tensor? fweights=None, Tensor? aweights=None)" [function method] => statistics::cov;
    "corrcoef(Tensor input)" [function method] => statistics::corrcoef;
    "quantile(Tensor input, Tensor q, int? dim=None, bool keepdim=False, *, str interpolation='linear')" [function method out] => |t: &Tensor, q: &Tensor, d: Option<i64>, k: bool, how: &str| statistics::quantile(t, q, d, k, how, false);
    "quantile(Tensor input, float q, int? dim=None, bool keepdim=False, *, str interpolation='linear')" [function method out] => |t: &Tensor, q: f64, d: Option<i64>, k: bool, how: &str| statistics::quantile(t, &quantile_of(t, q)?, d, k, how, false);
    "nanquantile(Tensor input, Tensor q, int? dim=None, bool keepdim=False, *, str interpolation='linear')" [function method out] => |t: &Tensor, q: &Tensor, d: Option<i64>, k: bool, how: &str| statistics::quantile(t, q, d, k, how, true);
    "nanquantile(Tensor input, float q, int? dim=None, bool keepdim=False, *, str interpolation='linear')" [function method out] => |t: &Tensor, q: f64, d: Option<i64>, k: bool, how: &str| statistics::quantile(t, &quantile_of(t, q)?, d, k, how, true);
    "nanmedian(Tensor input)" [function method] => sorting::nanmedian;
    "nanmedian(Tensor input, int dim, bool keepdim=False) -> nanmedian(values, indices)" [function method out] => sorting::nanmedian_dim;
    "mode(Tensor input, int dim=-1, bool keepdim=False) -> mode(values, indices)" [function method out apart] => sorting::mode_dim;
    "renorm(Tensor input, Number p, int dim, Number maxnorm)" [function method inplace out] => |t: &Tensor, p: Number, d: i64, m: Number| statistics::renorm(t, p.to_f64(), d, m.to_f64());
    "cross(Tensor input, Tensor other, int? dim=None)" [function method out apart] => statistics::cross_default;
    "linalg.cross(Tensor input, Tensor other, *, int dim=-1)" [function out apart] => |a: &Tensor, b: &Tensor, d: i64| statistics::cross("linalg.cross", a, b, d);
    "searchsorted(Tensor sorted_sequence, Tensor|Number input, *, bool out_int32=False, bool right=False, str? side=None, Tensor? sorter=None)" [function out] => |s: &Tensor, v: Value<'_>, narrow: bool, r: bool, sd: Option<&str>, sorter: Option<&Tensor>| search::searchsorted(s, v, narrow, side(r, sd)?, sorter);
    "bucketize(Tensor|Number input, Tensor boundaries, *, bool out_int32=False, bool right=False)" [function out] => |v: Value<'_>, b: &Tensor, narrow: bool, r: bool| search::bucketize(v, b, narrow, r);
    "unique(Tensor input, bool sorted=True, bool return_inverse=False, bool return_counts=False, int? dim=None)" [function method] => |t: &Tensor, _s: bool, i: bool, c: bool, d: Option<i64>| unique_result(search::unique(t, i, c, d)?);
    "unique_consecutive(Tensor input, bool return_inverse=False, bool return_counts=False, int? dim=None)" [function method] => |t: &Tensor, i: bool, c: bool, d: Option<i64>| unique_result(search::unique_consecutive(t, i, c, d)?);
    "hash_tensor(Tensor input, int[] dim=[], *, bool keepdim=False, int mode=0)" [function method out] => statistics::hash_tensor;
    "isin(Tensor|Number elements, Tensor|Number test_elements, *, bool assume_unique=False, bool invert=False)" [function out] => |a: Value<'_>, b: Value<'_>, _u: bool, inv: bool| search::isin(a, b, inv);
    "bincount(Tensor input, Tensor? weights=None, int minlength=0)" [function method] => search::bincount;
    "histc(Tensor input, int bins=100, Number min=0, Number max=0)" [function method out] => |t: &Tensor, b: i64, lo: Number, hi: Number| search::histc(t, b, lo.to_f64(), hi.to_f64());
    "histogram(Tensor input, Tensor bins, *, Tensor? weight=None, bool density=False) -> histogram(hist, bin_edges)" [function method out] => search::histogram_at;
    "histogram(Tensor input, int bins=100, *, float[]? range=None, Tensor? weight=None, bool density=False) -> histogram(hist, bin_edges)" [function method out] => |t: &Tensor, b: i64, r: Option<&[f64]>, w: Option<&Tensor>, d: bool| search::histogram(t, b, r, w, d);
    "_histogramdd_at(Tensor input, object bins, Tensor? weight=None, bool density=False)" [function] => |t: &Tensor, b: Object, w: Option<&Tensor>, d: bool| search::histogramdd_at(t, &edges(b)?, w, d);
    "_histogramdd_edges(Tensor input, int[] bins, float[]? range=None)" [function] => |t: &Tensor, b: &[i64], r: Option<&[f64]>| search::bin_edges(t, b, r);
}
