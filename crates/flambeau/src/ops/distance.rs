//! Distances between rows: `cdist`, `pdist`.

use crate::apply::Dest;
use crate::autograd::node::constant_of;
use crate::ops::{elementwise as e, factory, indexing, linalg, reduction, view};
use crate::tensor::Tensor;
use flambeau_core::*;

/// Elements of the table of differences above which `cdist` goes through it a part at a time.
const PART: i64 = 1 << 22;

/// The p-norm over the last dimension of `d`, with the gradient that distances have: the limit of p-norms is the largest
/// component, and every component that attains it gets the whole gradient.
fn norm(d: &Tensor, p: f64) -> Result<Tensor> {
    if p == 0.0 {
        let count = reduction::sum(&e::to_dtype(&e::ne(d, 0.0)?, d.dtype())?, &[-1], false)?;
        return constant_of(count, d);
    }
    if p.is_infinite() {
        let a = e::abs(d)?;
        let top = reduction::amax(&a.detach(), &[-1], true, Dest::New)?;
        if !a.requires_grad() {
            return view::squeeze(&top, Some(&[-1]));
        }
        // `a - a` with one side constant: zero, with derivative one where the component is the largest.
        let at_top = e::to_dtype(&e::eq(&a.detach(), &top)?, d.dtype())?;
        let slope = reduction::sum(&e::mul(&e::sub(&a, &a.detach())?, &at_top)?, &[-1], false)?;
        return e::add(&view::squeeze(&top, Some(&[-1]))?, &slope);
    }
    if p == 1.0 && d.requires_grad() {
        // The gradient of a component that is not a number is none either.
        let still = d.detach();
        let slope = e::where_(&e::isnan(&still)?, &still, &e::sgn(&still)?)?;
        return reduction::sum(&e::mul(d, &slope)?, &[-1], false);
    }
    reduction::vector_norm(d, p, &[-1], false, None)
}

/// `√(|x|² + |y|² - 2 x·y)`: a matrix product instead of all differences; less exact for points close together.
fn euclidean_by_product(x: &Tensor, y: &Tensor) -> Result<Tensor> {
    let square = |t: &Tensor| reduction::sum(&e::square(t)?, &[-1], true);
    let cross = linalg::matmul(x, &view::mt(y)?)?;
    let d = e::sub(&e::add(&square(x)?, &view::mt(&square(y)?)?)?, &e::mul(&cross, 2.0)?)?;
    let d = e::map(ScalarFn::ClampMin, &[(&d).into(), 0.0.into()], Dest::New)?;
    // The root's slope at 0 is infinite; a distance of 0 has gradient 0.
    let zero = e::eq(&d.detach(), 0.0)?;
    e::where_(&zero, 0.0, &e::sqrt(&e::where_(&zero, 1.0, &d)?)?)
}

/// Distances between every row of `x` (…, P, M) and every row of `y` (…, R, M), as (…, P, R).
///
/// # Errors
/// `Runtime` for integers, fewer than two dimensions, rows of different lengths or a negative `p`.
pub fn cdist(x: &Tensor, y: &Tensor, p: f64, mode: Option<&str>) -> Result<Tensor> {
    for (name, t) in [("X1", x), ("X2", y)] {
        ensure!(
            t.dtype().is_float(),
            Runtime,
            "cdist only supports floating-point dtypes, {name} got: {}",
            t.dtype().title()
        );
        ensure!(t.dim() >= 2, Runtime, "cdist only supports at least 2D tensors, {name} got: {}D", t.dim());
    }
    let (rows, columns, m) = (x.size(-2)?, y.size(-2)?, x.size(-1)?);
    ensure!(m == y.size(-1)?, Runtime, "X1 and X2 must have the same number of columns. X1: {m} X2: {}", y.size(-1)?);
    ensure!(p >= 0.0, Runtime, "cdist only supports non-negative p values");
    let product = match mode {
        None | Some("use_mm_for_euclid_dist_if_necessary") => rows > 25 || columns > 25,
        Some("use_mm_for_euclid_dist") => true,
        Some("donot_use_mm_for_euclid_dist") => false,
        Some(other) => bail!(Value, "{other} is not a valid value for compute_mode"),
    };
    let batch = broadcast_shapes(&x.sizes()[..x.dim() - 2], &y.sizes()[..y.dim() - 2])?;
    if m == 0 || rows == 0 || columns == 0 || numel(&batch) == 0 {
        let mut sizes: Dims = batch.clone();
        sizes.extend_from_slice(&[rows, columns]);
        let zeros = factory::zeros(&sizes, promote_types(x.dtype(), y.dtype()), x.device())?;
        return if x.requires_grad() { constant_of(zeros, x) } else { constant_of(zeros, y) };
    }
    if p == 2.0 && product {
        return euclidean_by_product(x, y);
    }
    let all = |x: &Tensor| norm(&e::sub(&view::unsqueeze(x, -2)?, &view::unsqueeze(y, -3)?)?, p);
    let step = (PART / (numel(&batch) * columns * m).max(1)).max(1);
    if step >= rows {
        return all(x);
    }
    let mut parts = Vec::new();
    let mut at = 0;
    while at < rows {
        let n = step.min(rows - at);
        parts.push(all(&view::narrow(x, -2, at, n)?)?);
        at += n;
    }
    crate::ops::join::cat(&parts, -2)
}

/// Distances between every pair of rows of an N × M matrix: `N(N-1)/2` of them, in the order (0, 1), (0, 2), …
///
/// # Errors
/// `Runtime` for integers, other ranks or a negative `p`.
pub fn pdist(x: &Tensor, p: f64) -> Result<Tensor> {
    ensure!(x.dim() == 2, Runtime, "pdist only supports 2D tensors, got: {}D", x.dim());
    ensure!(x.dtype().is_float(), Runtime, "pdist only supports floating-point dtypes");
    ensure!(p >= 0.0, Runtime, "pdist only supports non-negative p values");
    let (n, m) = (x.size(0)?, x.size(1)?);
    let pairs = n * (n - 1).max(0) / 2;
    if pairs == 0 || m == 0 {
        return constant_of(factory::zeros(&[pairs], x.dtype(), x.device())?, x);
    }
    let (mut i, mut j) = (Vec::new(), Vec::new());
    for a in 0..n {
        for b in a + 1..n {
            i.push(a);
            j.push(b);
        }
    }
    let row = |list: &[i64]| -> Result<Tensor> {
        let at = crate::ops::device::to_device(&Tensor::from_slice(list, &[pairs])?, x.device())?;
        indexing::index_select(x, 0, &at)
    };
    norm(&e::sub(&row(&i)?, &row(&j)?)?, p)
}
