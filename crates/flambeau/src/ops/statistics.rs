//! Statistics as composites: differences, integrals, covariance, quantiles, the commonest value.

use crate::apply::Dest;
use crate::mode;
use crate::ops::{elementwise as e, factory, indexing, join, reduction, scan, sorting, view};
use crate::tensor::{Tensor, Value};
use flambeau_core::*;

/// Differences of neighbours along `dim`, `n` times over, with `prepend` and `append` joined on first. Bools are compared.
///
/// # Errors
/// `Runtime` for a 0-dim tensor, a negative `n`, and sizes that cannot be joined.
pub fn diff(t: &Tensor, n: i64, dim: i64, prepend: Option<&Tensor>, append: Option<&Tensor>) -> Result<Tensor> {
    ensure!(t.dim() > 0, Runtime, "diff expects input to be at least one-dimensional");
    ensure!(n >= 0, Runtime, "order must be non-negative but got {n}");
    let d = wrap_dim(dim, t.dim())? as i64;
    let mut parts: Vec<Tensor> = Vec::new();
    for (part, what) in [(prepend, "prepend"), (Some(t), ""), (append, "append")] {
        let Some(p) = part else { continue };
        ensure!(
            p.dim() == t.dim(),
            Runtime,
            "diff expects {what} to be the same dimension as input: got {} and {} dimensions",
            p.dim(),
            t.dim()
        );
        for i in 0..t.dim() {
            ensure!(
                i as i64 == d || p.sizes()[i] == t.sizes()[i],
                Runtime,
                "diff expects the shape of tensor to prepend or append to match that of input except along the differencing \
                 dimension; input.size({i}) = {}, but got tensor.size({i}) = {}",
                t.sizes()[i],
                p.sizes()[i]
            );
        }
        parts.push(p.clone());
    }
    let mut out = if n == 0 || parts.len() == 1 { parts[parts.len() / 2].clone() } else { join::cat(&parts, d)? };
    if n == 0 {
        return view::clone(t);
    }
    for _ in 0..n.min(out.size(d)?.max(1)) {
        let len = out.size(d)?;
        if len == 0 {
            break;
        }
        let (low, high) = (view::narrow(&out, d, 0, len - 1)?, view::narrow(&out, d, 1, len - 1)?);
        out = if out.dtype() == DType::Bool { e::logical_xor(&high, &low)? } else { e::sub(&high, &low)? };
    }
    Ok(out)
}

/// The derivative along each of `dims` by second-order differences: inside from both neighbours, at the ends from
/// `edge_order + 1` points. `spacing`: one step a dimension, or coordinates (1-d tensors).
///
/// # Errors
/// `Runtime` for too few points, repeated dimensions and spacings that do not fit.
pub fn gradient(t: &Tensor, spacing: &[Spacing], dims: &[i64], edge_order: i64) -> Result<Vec<Tensor>> {
    ensure!(edge_order == 1 || edge_order == 2, Runtime, "torch.gradient only supports edge_order=1 and edge_order=2.");
    reduction::dim_mask(dims, t.dim())?;
    ensure!(
        spacing.len() == dims.len(),
        Runtime,
        "torch.gradient expected spacing to be unspecified, a scalar or a list of length equal to the number of dimensions \
         ({}), but got a list of {}",
        dims.len(),
        spacing.len()
    );
    let mut out = Vec::new();
    for (&dim, step) in dims.iter().zip(spacing) {
        let d = wrap_dim(dim, t.dim())? as i64;
        let n = t.size(d)?;
        ensure!(
            n > edge_order,
            Runtime,
            "torch.gradient expected each dimension size to be at least edge_order+1, but dimension {d} has size {n}"
        );
        out.push(gradient_along(t, d, n, step, edge_order)?);
    }
    Ok(out)
}
/// Distances between the points of [`gradient`].
pub enum Spacing {
    Step(Number),
    /// Coordinates of the points.
    At(Tensor),
}
fn gradient_along(t: &Tensor, d: i64, n: i64, step: &Spacing, edge_order: i64) -> Result<Tensor> {
    let t = if t.dtype().is_integral(true) { e::to_dtype(t, mode::default_dtype())? } else { t.clone() };
    let part = |lo: i64, len: i64| view::narrow(&t, d, lo, len);
    let steps = match step {
        Spacing::Step(h) => {
            let h = *h;
            let double = Number::Float(2.0);
            let inner = e::div(&e::div(&e::sub(&part(2, n - 2)?, &part(0, n - 2)?)?, h)?, double)?;
            let edge = |a: i64, b: i64, c: i64, sign: f64| -> Result<Tensor> {
                if edge_order == 1 {
                    let (lo, hi) = if sign > 0.0 { (a, b) } else { (b, a) };
                    return e::div(&e::sub(&part(hi, 1)?, &part(lo, 1)?)?, h);
                }
                // −3/2, 2, −1/2 from the end inwards.
                let s = e::add(&e::mul(&part(a, 1)?, -1.5 * sign)?, &e::mul(&part(b, 1)?, 2.0 * sign)?)?;
                e::div(&e::add(&s, &e::mul(&part(c, 1)?, -0.5 * sign)?)?, h)
            };
            let first = edge(0, 1, 2.min(n - 1), 1.0)?;
            let last = edge(n - 1, n - 2, (n - 3).max(0), -1.0)?;
            return join::cat(&[first, inner, last], d);
        }
        Spacing::At(x) => {
            ensure!(
                x.dim() == 1 && x.numel() == n,
                Runtime,
                "torch.gradient expected each element of the spacing list to have one dimension and {n} coordinates, but got one \
                 of sizes {}",
                Shape(&x.sizes())
            );
            diff(x, 1, 0, None, None)?
        }
    };
    let mut shape: Dims = SmallVec::from_elem(1, t.dim());
    let mut h = |lo: i64, len: i64| -> Result<Tensor> {
        shape[d as usize] = len;
        view::reshape(&view::narrow(&steps, 0, lo, len)?, &shape)
    };
    let (left, right) = (h(0, n - 2)?, h(1, n - 2)?);
    let sum = e::add(&left, &right)?;
    // The parabola through three points at unequal distances, differentiated in the middle.
    let a = e::neg(&e::div(&right, &e::mul(&left, &sum)?)?)?;
    let b = e::div(&e::sub(&right, &left)?, &e::mul(&left, &right)?)?;
    let c = e::div(&left, &e::mul(&right, &sum)?)?;
    let inner = e::add(
        &e::add(&e::mul(&a, &part(0, n - 2)?)?, &e::mul(&b, &part(1, n - 2)?)?)?,
        &e::mul(&c, &part(2, n - 2)?)?,
    )?;
    let (first, last) = if edge_order == 1 {
        (
            e::div(&e::sub(&part(1, 1)?, &part(0, 1)?)?, &h(0, 1)?)?,
            e::div(&e::sub(&part(n - 1, 1)?, &part(n - 2, 1)?)?, &h(n - 2, 1)?)?,
        )
    } else {
        // One-sided: `near` is the step at the end, `far` the one after it, `sign` the direction.
        let mut end = |near: (i64, i64), at: [i64; 3], sign: f64| -> Result<Tensor> {
            let (x1, x2) = (h(near.0, 1)?, h(near.1, 1)?);
            let sum = e::add(&x1, &x2)?;
            let a = e::neg(&e::div(&e::add(&e::mul(&x1, 2.0)?, &x2)?, &e::mul(&x1, &sum)?)?)?;
            let b = e::div(&sum, &e::mul(&x1, &x2)?)?;
            let c = e::neg(&e::div(&x1, &e::mul(&sum, &x2)?)?)?;
            let v = e::add(
                &e::add(&e::mul(&a, &part(at[0], 1)?)?, &e::mul(&b, &part(at[1], 1)?)?)?,
                &e::mul(&c, &part(at[2], 1)?)?,
            )?;
            if sign > 0.0 {
                Ok(v)
            } else {
                e::neg(&v)
            }
        };
        (end((0, 1), [0, 1, 2], 1.0)?, end((n - 2, n - 3), [n - 1, n - 2, n - 3], -1.0)?)
    };
    join::cat(&[first, inner, last], d)
}

/// Twice the mean of neighbours along `dim`, and their distances when coordinates are given.
fn trapezoids(name: &str, y: &Tensor, x: Option<&Tensor>, dim: i64) -> Result<(Tensor, Option<Tensor>)> {
    let d = wrap_dim(dim, y.dim())? as i64;
    let n = if y.dim() == 0 { 1 } else { y.size(d)? };
    ensure!(y.dtype() != DType::Bool, Runtime, "{name}: received a bool input for `y`, but bool is not supported");
    if y.dim() == 0 {
        return Ok((factory::zeros(&[0], y.dtype(), y.device())?, None));
    }
    let len = (n - 1).max(0);
    let sums = e::add(&view::narrow(y, d, 1.min(n), len)?, &view::narrow(y, d, 0, len)?)?;
    let Some(x) = x else { return Ok((sums, None)) };
    ensure!(x.dtype() != DType::Bool, Runtime, "{name}: received a bool input for `x`, but bool is not supported");
    ensure!(x.dim() > 0, Runtime, "{name}: x must have at least one dimension");
    let steps = if x.dim() == 1 && y.dim() > 1 {
        ensure!(
            x.numel() == n,
            Runtime,
            "{name}: There must be one `x` value for each sample point: got {} for {n}",
            x.numel()
        );
        let mut shape: Dims = SmallVec::from_elem(1, y.dim());
        shape[d as usize] = len;
        view::reshape(&diff(x, 1, 0, None, None)?, &shape)?
    } else {
        let mut x = x.clone();
        while x.dim() < y.dim() {
            x = view::unsqueeze(&x, 0)?;
        }
        let xd = d + (x.dim() - y.dim()) as i64;
        let xn = x.size(xd)?;
        ensure!(
            xn == n || xn == 1,
            Runtime,
            "{name}: There must be one `x` value for each sample point: got {xn} for {n}"
        );
        diff(&x, 1, xd, None, None)?
    };
    Ok((sums, Some(steps)))
}
/// The integral along `dim` by the trapezoidal rule, over coordinates `x` or at steps of `dx`.
///
/// # Errors
/// `Runtime` for bools and coordinates that do not fit.
pub fn trapezoid(y: &Tensor, x: Option<&Tensor>, dx: Number, dim: i64) -> Result<Tensor> {
    let (sums, steps) = trapezoids("trapezoid", y, x, dim)?;
    if y.dim() == 0 {
        return factory::zeros(&[], y.dtype(), y.device());
    }
    let d = wrap_dim(dim, y.dim())? as i64 - y.dim() as i64;
    match steps {
        Some(h) => e::div(&reduction::sum(&e::mul(&sums, &h)?, &[d], false)?, 2),
        None => e::mul(&e::div(&reduction::sum(&sums, &[d], false)?, 2)?, dx),
    }
}
/// The running integral of [`trapezoid`].
///
/// # Errors
/// As [`trapezoid`].
pub fn cumulative_trapezoid(y: &Tensor, x: Option<&Tensor>, dx: Number, dim: i64) -> Result<Tensor> {
    let (sums, steps) = trapezoids("cumulative_trapezoid", y, x, dim)?;
    let d = if y.dim() == 0 { 0 } else { wrap_dim(dim, y.dim())? as i64 - y.dim() as i64 };
    match steps {
        Some(h) => e::div(&scan::cumsum(&e::mul(&sums, &h)?, d)?, 2),
        None => e::mul(&scan::cumsum(&sums, d)?, dx.to_f64() / 2.0),
    }
}

/// The covariance of variables (rows) over observations (columns), with whole-number and real weights of observations.
///
/// # Errors
/// `Runtime` for more than two dimensions and for weights that do not fit.
pub fn cov(t: &Tensor, correction: i64, fweights: Option<&Tensor>, aweights: Option<&Tensor>) -> Result<Tensor> {
    ensure!(
        t.dim() <= 2,
        Runtime,
        "cov(): expected input to have two or fewer dimensions but got an input with {} dimensions",
        t.dim()
    );
    ensure!(t.dtype() != DType::Bool, Runtime, "cov(): bool dtype is not supported for input");
    let x = if t.dim() < 2 { view::reshape(t, &[1, -1])? } else { t.clone() };
    let n = x.size(1)?;
    let mut weights: Option<Tensor> = None;
    for (w, name, integral) in [(fweights, "fweights", true), (aweights, "aweights", false)] {
        let Some(w) = w else { continue };
        ensure!(
            w.dim() <= 1,
            Runtime,
            "cov(): expected {name} to have one or fewer dimensions but got {name} with {} dimensions",
            w.dim()
        );
        ensure!(
            if integral { w.dtype().is_integral(false) } else { w.dtype().is_float() },
            Runtime,
            "cov(): expected {name} to have {} dtype but got {name} with {} dtype",
            if integral { "integral" } else { "floating point" },
            w.dtype().name()
        );
        ensure!(
            w.numel() == n,
            Runtime,
            "cov(): expected {name} to have the same numel as there are observations in the input but got {} != {n}",
            w.numel()
        );
        ensure!(
            n == 0 || reduction::amin(&w.detach(), &[], false, Dest::New)?.item()?.to_f64() >= 0.0,
            Runtime,
            "cov(): {name} cannot be negative"
        );
        let w = view::reshape(w, &[-1])?;
        weights = Some(match weights {
            Some(other) => e::mul(&other, &w)?,
            None => w,
        });
    }
    let weight_sum = match &weights {
        Some(w) => reduction::sum(w, &[], false)?,
        None => e::number_tensor(Number::Int(n))?,
    };
    ensure!(
        weights.is_none() || weight_sum.item()?.to_f64() != 0.0,
        Runtime,
        "cov(): weights sum to zero, can't be normalized"
    );
    let average = match &weights {
        Some(w) => e::div(&reduction::sum(&e::mul(&x, w)?, &[1], false)?, &weight_sum)?,
        None => e::div(&reduction::sum(&x, &[1], false)?, &weight_sum)?,
    };
    let norm = match (&weights, aweights) {
        (Some(w), Some(a)) if correction != 0 => {
            let spread = reduction::sum(&e::mul(w, &view::reshape(a, &[-1])?)?, &[], false)?;
            e::sub(&weight_sum, &e::mul(&e::div(&spread, &weight_sum)?, correction)?)?
        }
        _ => e::sub(&weight_sum, correction)?,
    };
    let norm = e::binary(ScalarFn::ClampMin, &norm, 0, Dest::New)?;
    let centred = e::sub(&x, &view::unsqueeze(&average, 1)?)?;
    let weighted = match &weights {
        Some(w) => e::mul(&centred, w)?,
        None => centred.clone(),
    };
    let transposed = view::transpose(&weighted, 0, 1)?;
    let transposed = if transposed.dtype().is_complex() { e::conj_physical(&transposed)? } else { transposed };
    let product = super::linalg::mm(&centred, &e::to_dtype(&transposed, centred.dtype())?)?;
    let out = e::div(&product, &norm)?;
    if t.dim() < 2 {
        return view::reshape(&out, &[]);
    }
    view::squeeze(&out, None)
}
/// The correlation matrix of variables (rows), clipped to [−1, 1].
///
/// # Errors
/// As [`cov`].
pub fn corrcoef(t: &Tensor) -> Result<Tensor> {
    ensure!(
        t.dim() <= 2,
        Runtime,
        "corrcoef(): expected input to have two or fewer dimensions but got an input with {} dimensions",
        t.dim()
    );
    let c = cov(t, 1, None, None)?;
    if c.dim() == 0 {
        return e::div(&c, &c);
    }
    let d = view::diagonal(&c, 0, 0, 1)?;
    let deviation = e::sqrt(&if d.dtype().is_complex() { view::real(&d)? } else { d })?;
    let out = e::div(&e::div(&c, &view::unsqueeze(&deviation, 1)?)?, &view::unsqueeze(&deviation, 0)?)?;
    let clip = |t: &Tensor| -> Result<Tensor> {
        e::binary(ScalarFn::ClampMax, &e::binary(ScalarFn::ClampMin, t, -1, Dest::New)?, 1, Dest::New)
    };
    if out.dtype().is_complex() {
        return super::scatter::complex(&clip(&view::real(&out)?)?, &clip(&view::imag(&out)?)?);
    }
    clip(&out)
}

/// Quantiles `q` (0-dim or 1-d, in [0, 1]) along `dim`, of all elements when `dim` is absent; `skip_nan` leaves NaN out.
/// `how` says what lies between two values: `linear`, `lower`, `higher`, `midpoint`, `nearest`.
///
/// # Errors
/// `Runtime` for dtypes, values of `q` and interpolations that are not allowed.
pub fn quantile(t: &Tensor, q: &Tensor, dim: Option<i64>, keepdim: bool, how: &str, skip_nan: bool) -> Result<Tensor> {
    let name = if skip_nan { "nanquantile" } else { "quantile" };
    ensure!(
        matches!(t.dtype(), DType::F32 | DType::F64),
        Runtime,
        "{name}() input tensor must be either float or double dtype"
    );
    ensure!(q.dim() <= 1, Runtime, "{name}() q must be a scalar or 1D tensor");
    ensure!(q.dtype() == t.dtype(), Runtime, "{name}() q tensor must be same dtype as the input tensor");
    ensure!(
        matches!(how, "linear" | "lower" | "higher" | "midpoint" | "nearest"),
        Runtime,
        "{name}() interpolation must be one of linear, lower, higher, midpoint or nearest, but got {how}"
    );
    ensure!(t.numel() > 0, Runtime, "{name}() input tensor must be non-empty");
    if q.numel() > 0 {
        let low = reduction::amin(&q.detach(), &[], false, Dest::New)?.item()?.to_f64();
        let high = reduction::amax(&q.detach(), &[], false, Dest::New)?.item()?.to_f64();
        ensure!(low >= 0.0 && high <= 1.0, Runtime, "{name}() q values must be in the range [0, 1]");
    }
    // The dimension last, sorted; then one more for the quantiles.
    let (x, place) = match dim {
        None => (view::reshape(t, &[-1])?, None),
        Some(d) => {
            let d = wrap_dim(d, t.dim())?;
            if t.dim() == 0 {
                (view::reshape(t, &[1])?, None)
            } else {
                (view::movedim(t, &[d as i64], &[-1])?, Some(d))
            }
        }
    };
    let n = x.size(-1)?;
    let (sorted, _) = sorting::sort(&x, -1, false)?;
    let nan = e::isnan(&sorted.detach())?;
    // The ranks between which each quantile lies: sizes (…, quantiles).
    let q1 = view::reshape(q, &[-1])?;
    let ranks = if skip_nan {
        let count = reduction::sum(&e::logical_not(&nan)?, &[-1], true)?;
        let last = e::binary(ScalarFn::ClampMin, &e::sub(&e::to_dtype(&count, t.dtype())?, 1)?, 0, Dest::New)?;
        e::mul(&q1, &last)?
    } else {
        let ranks = e::mul(&q1, (n - 1) as f64)?;
        let has_nan = reduction::any(&nan, &[-1], true, Dest::New)?;
        // A NaN sorts last: reading there gives NaN.
        e::where_(&has_nan, (n - 1) as f64, &ranks)?
    };
    let below = match how {
        "higher" => e::ceil(&ranks)?,
        "nearest" => e::round(&ranks)?,
        _ => e::floor(&ranks)?,
    };
    let mut shape = sorted.sizes();
    let last = shape.len() - 1;
    shape[last] = q1.numel();
    let at = |r: &Tensor| -> Result<Tensor> {
        let index = view::expand(&e::to_dtype(&r.detach(), DType::I64)?, &shape)?;
        indexing::gather(&sorted, -1, &index)
    };
    let mut out = at(&below)?;
    if matches!(how, "linear" | "midpoint") {
        let above = at(&e::ceil(&ranks)?)?;
        let weight: Tensor = if how == "linear" {
            e::sub(&ranks, &below)?
        } else {
            factory::full(&[], Number::Float(0.5), t.dtype(), t.device())?
        };
        out = crate::ops::elementwise::map(
            ScalarFn::Lerp,
            &[Value::Tensor(&out), Value::Tensor(&above), Value::Tensor(&weight)],
            Dest::New,
        )?;
    }
    // Quantiles first, then the sizes that are left.
    if q.dim() == 0 {
        out = view::squeeze(&out, Some(&[-1]))?;
        if keepdim {
            out = match place {
                Some(d) => view::unsqueeze(&out, d as i64)?,
                None => view::reshape(&out, &vec![1; t.dim()])?,
            };
        }
        return Ok(out);
    }
    let out = view::movedim(&out, &[-1], &[0])?;
    if !keepdim {
        return Ok(out);
    }
    match place {
        Some(d) => view::unsqueeze(&out, d as i64 + 1),
        None => {
            let mut sizes = vec![1; t.dim() + 1];
            sizes[0] = q1.numel();
            view::reshape(&out, &sizes)
        }
    }
}

/// Scales the sub-tensors along `dim` whose `p`-norm is above `maxnorm` down to it.
///
/// # Errors
/// `Runtime` for a `p` or `maxnorm` out of range, and fewer than two dimensions.
pub fn renorm(t: &Tensor, p: f64, dim: i64, maxnorm: f64) -> Result<Tensor> {
    ensure!(p > 0.0, Runtime, "renorm: non-positive-norm not supported");
    ensure!(maxnorm >= 0.0, Runtime, "renorm: expected maxnorm to be >= 0 but got {maxnorm}");
    ensure!(t.dim() > 1, Runtime, "renorm: input needs at least 2 dimensions, got {} dimensions", t.dim());
    let d = wrap_dim(dim, t.dim())? as i64;
    let others: Vec<i64> = (0..t.dim() as i64).filter(|i| *i != d).collect();
    // Halves are summed and scaled in float32.
    let wide = if t.dtype().is_reduced() { Some(DType::F32) } else { None };
    let norm = reduction::vector_norm(t, p, &others, true, wide)?;
    let scale = e::div(maxnorm, &e::add(&norm, 1e-7)?)?;
    let factor = e::where_(&e::gt(&norm, maxnorm)?, &scale, 1.0)?;
    e::to_dtype(&e::mul(t, &factor)?, t.dtype())
}

/// The vector product along a dimension of size 3, operands broadcast.
///
/// # Errors
/// `Runtime` when the dimension has another size.
pub fn cross(name: &str, a: &Tensor, b: &Tensor, dim: i64) -> Result<Tensor> {
    ensure!(
        a.dim() == b.dim(),
        Runtime,
        "{name}: inputs must have the same number of dimensions, but got {} and {}.",
        a.dim(),
        b.dim()
    );
    let d = wrap_dim(dim, a.dim())? as i64;
    ensure!(
        a.dim() > 0 && a.size(d)? == 3 && b.size(d)? == 3,
        Runtime,
        "{name}: inputs dimension {dim} must have length 3. Got {} and {}",
        Shape(&a.sizes()),
        Shape(&b.sizes())
    );
    let rolled = |t: &Tensor, by: i64| view::roll(t, &[by], &[d]);
    e::sub(&e::mul(&rolled(a, -1)?, &rolled(b, -2)?)?, &e::mul(&rolled(a, -2)?, &rolled(b, -1)?)?)
}
/// [`cross`] along the first dimension of size 3 when none is given.
///
/// # Errors
/// `Runtime` when there is no such dimension.
pub fn cross_default(a: &Tensor, b: &Tensor, dim: Option<i64>) -> Result<Tensor> {
    if let Some(d) = dim {
        return cross("linalg.cross", a, b, d);
    }
    match a.sizes().iter().position(|n| *n == 3) {
        Some(d) => cross("linalg.cross", a, b, d as i64),
        None => bail!(Runtime, "no dimension of size 3 in input"),
    }
}

/// A checksum of the values along some dimensions, or of all: the exclusive or of their bits, as double or 64-bit integers.
///
/// # Errors
/// `Runtime` for another mode than 0 and for complex values; those of the dimensions.
pub fn hash_tensor(t: &Tensor, dims: &[i64], keepdim: bool, mode: i64) -> Result<Tensor> {
    ensure!(mode == 0, Runtime, "hash_tensor: expected mode 0, the exclusive or of all bits, but got {mode}");
    ensure!(!t.dtype().is_complex(), Runtime, "hash_tensor: values of {} have no bits of one number", t.dtype().name());
    let t = t.detach();
    let wide = match t.dtype() {
        DType::I64 | DType::U64 => t,
        d if d.is_float() => e::to_dtype(&t, DType::F64)?,
        _ => e::to_dtype(&t, DType::I64)?,
    };
    let bits = view::view_dtype(&wide, DType::I64)?;
    let rank = bits.dim();
    let mut reduced = vec![dims.is_empty(); rank];
    for &d in dims {
        let d = wrap_dim(d, rank)?;
        ensure!(
            rank == 0 || !std::mem::replace(&mut reduced[d], true),
            Runtime,
            "hash_tensor: dim {d} appears multiple times in the list of dims"
        );
    }
    let sizes = bits.sizes();
    let order: Dims =
        (0..rank).filter(|&d| !reduced[d]).chain((0..rank).filter(|&d| reduced[d])).map(|d| d as i64).collect();
    let kept: Dims = (0..rank).filter(|&d| !reduced[d]).map(|d| sizes[d]).collect();
    let n: i64 = (0..rank).filter(|&d| reduced[d]).map(|d| sizes[d]).product();
    let shape: Dims =
        if keepdim { (0..rank).map(|d| if reduced[d] { 1 } else { sizes[d] }).collect() } else { kept.clone() };
    let hashed = if n == 0 {
        factory::zeros(&shape, DType::I64, bits.device())?
    } else {
        let mut flat = view::reshape(&view::permute(&bits, &order)?, &[numel(&kept), n])?;
        let mut n = n;
        while n > 1 {
            // The first half with the second; what is left over waits for the next round.
            let half = n / 2;
            let pairs = e::bitwise_xor(&view::narrow(&flat, 1, 0, half)?, &view::narrow(&flat, 1, half, half)?)?;
            flat = if n % 2 == 0 { pairs } else { join::cat(&[pairs, view::narrow(&flat, 1, n - 1, 1)?], 1)? };
            n = half + n % 2;
        }
        view::reshape(&flat, &shape)?
    };
    view::view_dtype(&view::contiguous(&hashed)?, DType::U64)
}
