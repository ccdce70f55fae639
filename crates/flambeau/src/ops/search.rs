//! Searching, distinct values, counting and histograms.

use crate::apply::{apply1, Dest};
use crate::autograd::node::Vjp;
use crate::ops::{elementwise as e, factory, indexing, join, reduction, scan, sorting, view};
use crate::primitive::*;
use crate::tensor::{Meta, Tensor, Value};
use flambeau_core::*;

/// Where values belong in sorted rows: sorted (…, n), values (…, m) → int64 (…, m). Both in one class's own dtype.
#[derive(Clone)]
struct Search {
    right: bool,
}
impl Primitive for Search {
    fn name(&self) -> &'static str {
        "searchsorted"
    }
    fn infer(&self, x: &[&Meta], out: &mut Draft) -> Result<()> {
        out.push_constant(copy_dims(&x[1].sizes), DType::I64);
        Ok(())
    }
    fn run(&self, on: &dyn Backend, x: &[Operand], out: &[Operand]) -> Result<()> {
        on.search(&x[0], &x[1], self.right, &out[0])
    }
    fn differentiable(&self) -> bool {
        false
    }
    fn vjp(&self, cx: &Vjp, _: &[Option<Tensor>]) -> Result<Gradients> {
        Ok(SmallVec::from_elem(None, cx.len()))
    }
    fn key(&self, key: &mut PlanKey) {
        key.word(self.right as u64);
    }
    crate::shareable!();
}

/// A tensor in the own dtype of the class that holds both dtypes, contiguous.
fn comparable(t: &Tensor, class: Class) -> Result<Tensor> {
    view::contiguous(&e::to_dtype(&t.detach(), class.dtype())?)
}
fn tensor_of(v: Value, like: Option<&Tensor>) -> Result<Tensor> {
    match v {
        Value::Tensor(t) => Ok(t.clone()),
        Value::Number(n) => {
            let device = like.map_or(Device::Cpu, Tensor::device);
            factory::full(&[], n, n.default_dtype(crate::mode::default_dtype()), device)
        }
    }
}
/// Positions at which values keep the last dimension of `sorted` in order: before equals, or after them (`right`). `sorted` is
/// 1-d, or agrees with the values in all but the last dimension. `sorter` puts unsorted rows in order.
///
/// # Errors
/// `Runtime` for shapes and dtypes that do not fit.
pub fn searchsorted(
    sorted: &Tensor,
    values: Value,
    out_int32: bool,
    right: bool,
    sorter: Option<&Tensor>,
) -> Result<Tensor> {
    let name = "torch.searchsorted()";
    let number = matches!(values, Value::Number(_));
    ensure!(
        !number || sorted.dim() == 1,
        Runtime,
        "{name}: input value can be a scalar only when boundaries tensor dimension is 1, but we got boundaries tensor dim({})",
        sorted.dim()
    );
    let given = tensor_of(values, Some(sorted))?;
    ensure!(
        sorted.dim() > 0,
        Runtime,
        "{name}: sorted_sequence should have at least one dimension, but got 0 dimensions"
    );
    if sorted.dim() > 1 {
        let (a, b) = (sorted.sizes(), given.sizes());
        ensure!(
            a.len() == b.len() && a[..a.len() - 1] == b[..b.len() - 1],
            Runtime,
            "{name}: boundaries tensor should be 1 dimension or the first N-1 dimensions of boundaries tensor and input value \
             tensor must match, but we got boundaries tensor {} and input value tensor {}",
            Shape(&a),
            Shape(&b)
        );
    }
    ensure!(
        number || given.dtype() == sorted.dtype(),
        Runtime,
        "{name}: boundary tensor and input value tensor should have same dtype, but got boundary tensor dtype {} and input \
         value tensor dtype {}",
        sorted.dtype().title(),
        given.dtype().title()
    );
    ensure!(
        !sorted.dtype().is_complex(),
        Runtime,
        "{name}: not implemented for '{}': complex numbers have no order",
        sorted.dtype().title()
    );
    let ordered;
    let sorted = match sorter {
        Some(s) => {
            ensure!(
                s.sizes() == sorted.sizes(),
                Runtime,
                "{name}: boundary and sorter must have the same size, but got boundary tensor {} and got sorter tensor {}",
                Shape(&sorted.sizes()),
                Shape(&s.sizes())
            );
            ensure!(
                s.dtype() == DType::I64,
                Runtime,
                "{name}: sorter must be a tensor of long dtype but got dtype {}",
                s.dtype().title()
            );
            if s.numel() > 0 {
                let low = reduction::amin(s, &[], false, Dest::New)?.item()?.to_i64();
                let high = reduction::amax(s, &[], false, Dest::New)?.item()?.to_i64();
                ensure!(
                    low >= 0 && high < sorted.size(-1)?,
                    Runtime,
                    "{name}: sorter index out of range, expected values in [0, {}), got {low} to {high}",
                    sorted.size(-1)?
                );
            }
            ordered = indexing::gather(&sorted.detach(), -1, s)?;
            &ordered
        }
        None => sorted,
    };
    let class = match (sorted.dtype().class(), given.dtype().class()) {
        (a, b) if a == b => a,
        _ => Class::F64,
    };
    let out = apply1(Search { right }, &[&comparable(sorted, class)?, &comparable(&given, class)?], Dest::New)?;
    if out_int32 {
        return e::to_dtype(&out, DType::I32);
    }
    Ok(out)
}
/// The bucket of each value between sorted 1-d `boundaries`.
///
/// # Errors
/// As [`searchsorted`].
pub fn bucketize(values: Value, boundaries: &Tensor, out_int32: bool, right: bool) -> Result<Tensor> {
    ensure!(boundaries.dim() == 1, Runtime, "boundaries tensor must be 1 dimension, but got dim({})", boundaries.dim());
    let widest = |a: DType, b: DType| if a == b { a } else { promote_types(a, b) };
    match values {
        Value::Tensor(v) => {
            // The values may be of another dtype here.
            let dtype = widest(v.dtype(), boundaries.dtype());
            let (v, b) = (e::to_dtype(&v.detach(), dtype)?, e::to_dtype(&boundaries.detach(), dtype)?);
            searchsorted(&b, Value::Tensor(&v), out_int32, right, None)
        }
        number => searchsorted(boundaries, number, out_int32, right, None),
    }
}

/// Distinct values in order (of all elements, or sub-tensors along `dim`), each element's place among them, and how often
/// each occurs.
///
/// # Errors
/// `Runtime` for complex numbers and empty dimensions beside `dim`.
pub fn unique(
    t: &Tensor,
    inverse: bool,
    counts: bool,
    dim: Option<i64>,
) -> Result<(Tensor, Option<Tensor>, Option<Tensor>)> {
    let t = &t.detach();
    let Some(dim) = dim else {
        let flat = view::reshape(t, &[-1])?;
        let (sorted, order) = sorting::sort(&flat, 0, false)?;
        let fresh = starts(&sorted)?;
        return runs(&sorted, &fresh, Some(&order), 0, &t.sizes(), inverse, counts);
    };
    let d = wrap_dim(dim, t.dim())? as i64;
    let rows = rows_along(t, d, "unique")?;
    // Rows in lexicographic order: stable sorts by column, the least significant first.
    let n = rows.size(0)?;
    let mut order = factory::arange_to(n, t.device())?;
    for column in (0..rows.size(1)?).rev() {
        let keys = indexing::index_select(&view::select(&rows, 1, column)?, 0, &order)?;
        order = indexing::index_select(&order, 0, &sorting::argsort(&keys, 0, false)?)?;
    }
    let sorted = indexing::index_select(&rows, 0, &order)?;
    let fresh = starts(&sorted)?;
    let ordered = indexing::index_select(t, d, &order)?;
    runs(&ordered, &fresh, Some(&order), d, &[n], inverse, counts)
}
/// [`unique`] of runs of equal neighbours, without sorting.
///
/// # Errors
/// As [`unique`].
pub fn unique_consecutive(
    t: &Tensor,
    inverse: bool,
    counts: bool,
    dim: Option<i64>,
) -> Result<(Tensor, Option<Tensor>, Option<Tensor>)> {
    let t = &t.detach();
    let Some(dim) = dim else {
        let flat = view::reshape(t, &[-1])?;
        let fresh = starts(&flat)?;
        return runs(&flat, &fresh, None, 0, &t.sizes(), inverse, counts);
    };
    let d = wrap_dim(dim, t.dim())? as i64;
    let rows = rows_along(t, d, "unique_consecutive")?;
    let n = rows.size(0)?;
    runs(t, &starts(&rows)?, None, d, &[n], inverse, counts)
}
/// Sub-tensors along `d` as rows.
fn rows_along(t: &Tensor, d: i64, name: &str) -> Result<Tensor> {
    let n = t.size(d)?;
    let zeros = t.sizes().iter().enumerate().filter(|(i, s)| **s == 0 && *i as i64 != d).count();
    ensure!(
        n != 0 || zeros == 0,
        Runtime,
        "{name}: There are 0 sized dimensions, and they aren't selected, so {name} cannot be applied"
    );
    ensure!(
        zeros == 0,
        Runtime,
        "{name}: There are 0 sized dimensions, and they aren't selected, so {name} cannot be applied"
    );
    let columns: i64 = t.sizes().iter().enumerate().filter(|(i, _)| *i as i64 != d).map(|(_, s)| s).product();
    view::reshape(&view::movedim(t, &[d], &[0])?, &[n, columns])
}
/// Where a row differs from the one before it; the first always does.
fn starts(rows: &Tensor) -> Result<Tensor> {
    let n = rows.size(0)?;
    let first = factory::ones(&[n.min(1)], DType::Bool, rows.device())?;
    if n <= 1 {
        return Ok(first);
    }
    let mut differ = e::ne(&view::narrow(rows, 0, 1, n - 1)?, &view::narrow(rows, 0, 0, n - 1)?)?;
    if rows.dim() > 1 {
        differ = reduction::any(&differ, &[1], false, Dest::New)?;
    }
    join::cat(&[first, differ], 0)
}
/// The first of each run along `d`, each element's run, and the runs' lengths. `order`: where each element was before sorting.
fn runs(
    x: &Tensor,
    fresh: &Tensor,
    order: Option<&Tensor>,
    d: i64,
    sizes: &[i64],
    inverse: bool,
    counts: bool,
) -> Result<(Tensor, Option<Tensor>, Option<Tensor>)> {
    let n = fresh.numel();
    let places = view::reshape(&indexing::nonzero(fresh)?, &[-1])?;
    let values = indexing::index_select(x, d, &places)?;
    let inverse = match inverse {
        false => None,
        true => {
            let run = e::sub(&scan::cumsum(&e::to_dtype(fresh, DType::I64)?, 0)?, 1)?;
            let run = match order {
                Some(order) => indexing::scatter(&factory::zeros_like(&run)?, 0, order, &run, Dest::New)?,
                None => run,
            };
            Some(view::reshape(&run, sizes)?)
        }
    };
    let counts = match counts {
        false => None,
        true => {
            let end = factory::full(&[1], Number::Int(n), DType::I64, x.device())?;
            Some(super::statistics::diff(&join::cat(&[places, end], 0)?, 1, 0, None, None)?)
        }
    };
    Ok((values, inverse, counts))
}

/// Whether each element is among `tests`.
///
/// # Errors
/// `Runtime` for complex numbers.
pub fn isin(elements: Value, tests: Value, invert: bool) -> Result<Tensor> {
    let like = match (elements, tests) {
        (Value::Tensor(t), _) | (_, Value::Tensor(t)) => Some(t),
        _ => None,
    };
    let (x, tests) = (tensor_of(elements, like)?.detach(), tensor_of(tests, like)?.detach());
    for t in [&x, &tests] {
        ensure!(
            !t.dtype().is_complex() && t.dtype() != DType::Bool,
            Runtime,
            "Unsupported input type encountered for isin(): {}",
            t.dtype().title()
        );
    }
    let answer = |found: Tensor| if invert { e::logical_not(&found) } else { Ok(found) };
    if tests.numel() == 0 {
        return answer(factory::zeros(&x.sizes(), DType::Bool, x.device())?);
    }
    let (sorted, _) = sorting::sort(&view::reshape(&tests, &[-1])?, 0, false)?;
    let class = match (x.dtype().class(), sorted.dtype().class()) {
        (a, b) if a == b => a,
        _ => Class::F64,
    };
    let (sorted, keys) = (comparable(&sorted, class)?, comparable(&x, class)?);
    let at = apply1(Search { right: false }, &[&sorted, &keys], Dest::New)?;
    let at = e::binary(ScalarFn::ClampMax, &at, sorted.numel() - 1, Dest::New)?;
    answer(e::eq(&indexing::take(&sorted, &at)?, &keys)?)
}

/// Bins up to which every piece of the data has counts of its own.
const FEW: usize = 1 << 14;
/// Whether values may be looked at where they lie: in host memory, outside `vmap`.
fn counts_here(t: &Tensor) -> bool {
    t.device() == Device::Cpu && t.as_batched().is_none() && !t.is_sparse() && t.numel() > 0
}
/// How often each whole number from 0 occurs in a 1-d tensor, or the sums of their weights.
///
/// # Errors
/// `Runtime` for negative numbers, other ranks and weights of another length.
pub fn bincount(t: &Tensor, weights: Option<&Tensor>, minlength: i64) -> Result<Tensor> {
    ensure!(minlength >= 0, Runtime, "minlength should be >= 0, but got {minlength}");
    ensure!(
        t.dim() == 1 && t.dtype().is_integral(false),
        Runtime,
        "bincount only supports 1-d non-negative integral inputs, got {} of sizes {}",
        t.dtype().name(),
        Shape(&t.sizes())
    );
    let t = &t.detach();
    if t.numel() == 0 {
        return factory::zeros(&[minlength], DType::I64, t.device());
    }
    let low = reduction::amin(t, &[], false, Dest::New)?.item()?.to_i64();
    ensure!(low >= 0, Runtime, "bincount only supports 1-d non-negative integral inputs, got {low}");
    let n = (reduction::amax(t, &[], false, Dest::New)?.item()?.to_i64() + 1).max(minlength);
    if let (None, true) = (weights, counts_here(t) && n as usize <= FEW) {
        let t = view::contiguous(&e::to_dtype(t, DType::I64)?)?;
        // SAFETY: whole numbers in host memory, all of them below `n`.
        let values = unsafe { std::slice::from_raw_parts(t.data_ptr()? as *const i64, t.numel() as usize) };
        let counts = flambeau_cpu::select::count(values, n as usize, |&v| v as usize);
        return Tensor::from_slice(&counts, &[n]);
    }
    let source = match weights {
        None => factory::ones(&t.sizes(), DType::I64, t.device())?,
        Some(w) => {
            ensure!(
                w.dim() == 1 && w.numel() == t.numel(),
                Runtime,
                "weights should be 1-d and have the same length as input, got {} for {}",
                Shape(&w.sizes()),
                Shape(&t.sizes())
            );
            e::to_dtype(&w.detach(), if w.dtype() == DType::F32 { DType::F32 } else { DType::F64 })?
        }
    };
    let zeros = factory::zeros(&[n], source.dtype(), t.device())?;
    indexing::scatter_add(&zeros, 0, &e::to_dtype(t, DType::I64)?, &source)
}

/// Checked outer edges: of the data when both are equal, `around` on either side of a single value.
fn range_of(name: &str, t: &Tensor, range: Option<(f64, f64)>, around: f64) -> Result<(f64, f64)> {
    let (mut low, mut high) = range.unwrap_or(if t.numel() == 0 { (0.0, 1.0) } else { (0.0, 0.0) });
    if range.is_none() && t.numel() > 0 {
        low = reduction::amin(t, &[], false, Dest::New)?.item()?.to_f64();
        high = reduction::amax(t, &[], false, Dest::New)?.item()?.to_f64();
    }
    if low == high {
        low -= around;
        high += around;
    }
    ensure!(low.is_finite() && high.is_finite(), Runtime, "{name}: range of [{low}, {high}] is not finite");
    ensure!(low < high, Runtime, "{name}: max must be larger than min, got [{low}, {high}]");
    Ok((low, high))
}
fn check_float(name: &str, t: &Tensor) -> Result<()> {
    ensure!(t.dtype().is_float(), NotImplemented, "\"{name}_cpu\" not implemented for '{}'", t.dtype().title());
    Ok(())
}
/// Counts of elements in `bins` equal bins between `low` and `high` (the data's own when equal).
///
/// # Errors
/// `Runtime` for a range that is no range, `NotImplemented` for dtypes other than float.
pub fn histc(t: &Tensor, bins: i64, low: f64, high: f64) -> Result<Tensor> {
    check_float("histogram", t)?;
    ensure!(bins > 0, Runtime, "bins must be > 0, but got {bins} for dimension 0");
    let t = &t.detach();
    let (low, high) = range_of("torch.histc", t, (low != high || t.numel() == 0).then_some((low, high)), 1.0)?;
    let x = view::reshape(t, &[-1])?;
    if t.dtype() == DType::F32 && counts_here(t) && bins as usize <= FEW {
        let x = view::contiguous(&x)?;
        let (first, last, scale, span, end) =
            (low as f32, high as f32, bins as f32, (high - low) as f32, bins as usize - 1);
        // SAFETY: float32 numbers in host memory. A number outside the range counts for one bin more, which nobody asked for.
        let values = unsafe { std::slice::from_raw_parts(x.data_ptr()? as *const f32, x.numel() as usize) };
        let place = |&v: &f32| {
            let bin = ((v - first) * scale / span) as i32;
            if v >= first && v <= last {
                (bin as usize).min(end)
            } else {
                end + 1
            }
        };
        let counts = flambeau_cpu::select::count(values, bins as usize + 1, place);
        let counts: Vec<f32> = counts[..=end].iter().map(|&c| c as f32).collect();
        return Tensor::from_slice(&counts, &[bins]);
    }
    let keep = e::logical_and(&e::ge(&x, low)?, &e::le(&x, high)?)?;
    let x = indexing::masked_select(&x, &keep)?;
    let place = e::div(&e::mul(&e::sub(&x, low)?, bins)?, high - low)?;
    let place = e::binary(ScalarFn::ClampMax, &e::to_dtype(&place, DType::I64)?, bins - 1, Dest::New)?;
    let zeros = factory::zeros(&[bins], t.dtype(), t.device())?;
    indexing::scatter_add(&zeros, 0, &place, &factory::ones_like(&x)?)
}
/// Edges of `bins` equal bins for each column of `t` (…, dimensions), within `range` (low and high for each) or the data's own.
///
/// # Errors
/// `Runtime` for ranges that are no ranges.
pub fn bin_edges(t: &Tensor, bins: &[i64], range: Option<&[f64]>) -> Result<Vec<Tensor>> {
    let name = "torch.histogramdd";
    check_float("histogramdd", t)?;
    ensure!(t.dim() >= 2, Runtime, "{name}: input tensor should have at least 2 dimensions, but got {}", t.dim());
    let d = t.size(-1)?;
    ensure!(
        bins.len() as i64 == d,
        Runtime,
        "{name}: The size of bins must be equal to the innermost dimension of the input, got {} for {d}",
        bins.len()
    );
    if let Some(r) = range {
        ensure!(
            r.len() as i64 == 2 * d,
            Runtime,
            "{name}: for a {d}-dimensional histogram range should have {} elements, but got {}",
            2 * d,
            r.len()
        );
    }
    let rows = view::reshape(&t.detach(), &[-1, d])?;
    let mut out = Vec::new();
    for (i, &n) in bins.iter().enumerate() {
        ensure!(n > 0, Runtime, "{name}: bins must be > 0, but got {n} for dimension {i}");
        let given = range.map(|r| (r[2 * i], r[2 * i + 1]));
        let (low, high) = range_of(name, &view::select(&rows, 1, i as i64)?, given, 0.5)?;
        out.push(factory::linspace(
            Number::Float(low),
            Number::Float(high),
            n.saturating_add(1),
            Some(t.dtype()),
            t.device(),
        )?);
    }
    Ok(out)
}
/// The histogram of points (…, dimensions) over given sorted edges; the last edge of each dimension belongs to its last bin.
/// With `density`, the integral is 1.
///
/// # Errors
/// `Runtime` for edges and weights that do not fit.
pub fn histogramdd_at(t: &Tensor, edges: &[Tensor], weight: Option<&Tensor>, density: bool) -> Result<Tensor> {
    let name = "torch.histogramdd";
    check_float("histogramdd", t)?;
    ensure!(t.dim() >= 2, Runtime, "{name}: input tensor should have at least 2 dimensions, but got {}", t.dim());
    let d = t.size(-1)?;
    ensure!(
        edges.len() as i64 == d,
        Runtime,
        "{name}: expected {d} sequences of bin edges for a {d}-dimensional histogram but got {}",
        edges.len()
    );
    let rows = view::contiguous(&view::reshape(&t.detach(), &[-1, d])?)?;
    let n = rows.size(0)?;
    let mut cell: Option<Tensor> = None;
    let mut keep: Option<Tensor> = None;
    let mut sizes: Dims = SmallVec::new();
    for (i, edge) in edges.iter().enumerate() {
        ensure!(
            edge.dim() == 1 && edge.numel() > 0,
            Runtime,
            "{name}: bins tensor should have one dimension, but got {} dimensions in the bins tensor for dimension {i}",
            edge.dim()
        );
        ensure!(
            edge.dtype() == t.dtype(),
            Runtime,
            "{name}: input tensor and bins tensors should have the same dtype, but got input with dtype {} and bins for \
             dimension {i} with dtype {}",
            t.dtype().title(),
            edge.dtype().title()
        );
        let bins = edge.numel() - 1;
        let x = view::contiguous(&view::select(&rows, 1, i as i64)?)?;
        let at = e::sub(&searchsorted(edge, Value::Tensor(&x), false, true, None)?, 1)?;
        let top = view::select(&edge.detach(), 0, bins)?;
        let at = e::where_(&e::eq(&x, &top)?, bins - 1, &at)?;
        let inside = e::logical_and(&e::ge(&at, 0)?, &e::lt(&at, bins)?)?;
        // Edges out of order hold nothing outside the first and the last.
        let reach = e::logical_and(&e::ge(&x, &view::select(&edge.detach(), 0, 0)?)?, &e::le(&x, &top)?)?;
        let inside = e::logical_and(&inside, &reach)?;
        cell = Some(match cell {
            Some(c) => e::add(&e::mul(&c, bins)?, &at)?,
            None => at,
        });
        keep = Some(match keep {
            Some(k) => e::logical_and(&k, &inside)?,
            None => inside,
        });
        sizes.push(bins);
    }
    let (Some(cell), Some(keep)) = (cell, keep) else { bail!(Runtime, "{name}: no dimensions") };
    let weights = match weight {
        Some(w) => {
            ensure!(
                w.dtype() == t.dtype() && w.numel() == n,
                Runtime,
                "{name}: if weight tensor is provided it should have the same shape as the input tensor excluding its innermost \
                 dimension and its dtype, but got input with shape {} and weight with shape {}",
                Shape(&t.sizes()),
                Shape(&w.sizes())
            );
            view::reshape(&w.detach(), &[-1])?
        }
        None => factory::ones(&[n], t.dtype(), t.device())?,
    };
    let (cell, weights) = (indexing::masked_select(&cell, &keep)?, indexing::masked_select(&weights, &keep)?);
    let zeros = factory::zeros(&[numel(&sizes)], t.dtype(), t.device())?;
    let mut hist = view::reshape(&indexing::scatter_add(&zeros, 0, &cell, &weights)?, &sizes)?;
    if density {
        hist = e::div(&hist, &reduction::sum(&hist, &[], false)?)?;
        for (i, edge) in edges.iter().enumerate() {
            let mut shape: Dims = SmallVec::from_elem(1, sizes.len());
            shape[i] = sizes[i];
            let widths = super::statistics::diff(&edge.detach(), 1, 0, None, None)?;
            hist = e::div(&hist, &view::reshape(&widths, &shape)?)?;
        }
    }
    Ok(hist)
}
/// The histogram of all elements over given edges; and the edges.
///
/// # Errors
/// As [`histogramdd_at`].
pub fn histogram_at(t: &Tensor, bins: &Tensor, weight: Option<&Tensor>, density: bool) -> Result<(Tensor, Tensor)> {
    let column = view::reshape(t, &[-1, 1])?;
    let weight = match weight {
        Some(w) => {
            ensure!(
                w.sizes() == t.sizes(),
                Runtime,
                "torch.histogram(): if weight tensor is provided it should have the same shape as the input tensor, but got \
                 input with shape {} and weight with shape {}",
                Shape(&t.sizes()),
                Shape(&w.sizes())
            );
            Some(view::reshape(w, &[-1])?)
        }
        None => None,
    };
    let hist = histogramdd_at(&column, std::slice::from_ref(bins), weight.as_ref(), density)?;
    Ok((hist, bins.clone()))
}
/// The histogram of all elements in equal bins; and their edges.
///
/// # Errors
/// As [`histogramdd_at`] and [`bin_edges`].
pub fn histogram(
    t: &Tensor,
    bins: i64,
    range: Option<&[f64]>,
    weight: Option<&Tensor>,
    density: bool,
) -> Result<(Tensor, Tensor)> {
    let edges = bin_edges(&view::reshape(t, &[-1, 1])?, &[bins], range)?;
    histogram_at(t, &edges[0], weight, density)
}
