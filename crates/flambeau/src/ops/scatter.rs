//! Scattered reductions, and copies with one view of them replaced.

use crate::apply::Dest;
use crate::autograd::node::Vjp;
use crate::ops::elementwise as e;
use crate::ops::indexing::{check_along, check_index, same_dtype, write, Places};
use crate::ops::{factory, view};
use crate::primitive::*;
use crate::tensor::{Meta, Tensor};
use flambeau_core::*;

/// The value that leaves `how` unchanged, in a dtype.
fn neutral(how: &str, dtype: DType) -> Number {
    let bits = dtype.size() as u32 * 8;
    let unsigned = matches!(dtype, DType::U8 | DType::U16 | DType::U32 | DType::U64);
    match (how, dtype.category()) {
        ("prod", _) => Number::Int(1),
        ("amax", Category::Float) => Number::Float(f64::NEG_INFINITY),
        ("amin", Category::Float) => Number::Float(f64::INFINITY),
        ("amin", Category::Bool) => Number::Bool(true),
        ("amax", Category::Integer) if !unsigned => Number::Int(i64::MIN >> (64 - bits)),
        ("amin", Category::Integer) if unsigned => Number::Int(if bits == 64 { i64::MAX } else { (1 << bits) - 1 }),
        ("amin", Category::Integer) => Number::Int(i64::MAX >> (64 - bits)),
        _ => Number::Int(0),
    }
}

/// Combines `src` with what `x` holds at the given places. `src` has the sizes of the places.
fn reduce_at(
    x: &Tensor,
    places: Places,
    index: &[Tensor],
    src: &Tensor,
    reduce: &str,
    include_self: bool,
) -> Result<Tensor> {
    let whole = src.sizes();
    let constant = |n: Number| view::expand(&factory::full(&[], n, x.dtype(), x.device())?, &whole);
    let base = if include_self {
        x.clone()
    } else {
        write(x, places.clone(), index, &constant(neutral(reduce, x.dtype()))?, Write::Set, true)?
    };
    let how = match reduce {
        "prod" => Write::Mul,
        "amax" => Write::Max,
        "amin" => Write::Min,
        _ => Write::Add,
    };
    let out = write(&base, places.clone(), index, src, how, true)?;
    if reduce != "mean" {
        return Ok(out);
    }
    // Places that nothing was written to keep a count of one.
    let ones = factory::ones_like(x)?.detach();
    let start = if include_self {
        ones
    } else {
        write(&ones, places.clone(), index, &constant(Number::Int(0))?, Write::Set, true)?
    };
    let count = write(&start, places, index, &constant(Number::Int(1))?, Write::Add, true)?;
    if x.dtype().is_integral(true) {
        e::floor_divide(&out, &count)
    } else {
        e::div(&out, &count)
    }
}

/// Reduces the values of `src` that meet at one place of `x`, along a dimension: "sum", "prod", "mean", "amax" or "amin".
/// Without `include_self` the values of `x` at places that are written to take no part.
///
/// # Errors
/// `Runtime` for an unknown reduction, wrong dtypes, ranks or sizes, and positions out of range.
pub fn scatter_reduce(
    x: &Tensor,
    dim: i64,
    index: &Tensor,
    src: &Tensor,
    reduce: &str,
    include_self: bool,
) -> Result<Tensor> {
    ensure!(
        matches!(reduce, "sum" | "prod" | "mean" | "amax" | "amin"),
        Runtime,
        "reduce argument must be either sum, prod, mean, amax or amin, got {reduce}."
    );
    scatter_with(x, dim, index, src, reduce, include_self, "scatter_reduce")
}
/// `scatter` with `reduce` "add" or "multiply".
///
/// # Errors
/// As [`scatter_reduce`].
pub fn scatter_combine(x: &Tensor, dim: i64, index: &Tensor, src: &Tensor, reduce: &str) -> Result<Tensor> {
    let how = match reduce {
        "add" => "sum",
        "multiply" => "prod",
        _ => bail!(Runtime, "reduce argument must be either add or multiply."),
    };
    scatter_with(x, dim, index, src, how, true, "scatter")
}
/// [`scatter_combine`] with one number for every place.
///
/// # Errors
/// As [`scatter_reduce`].
pub fn scatter_combine_value(x: &Tensor, dim: i64, index: &Tensor, value: Number, reduce: &str) -> Result<Tensor> {
    let v = factory::full(&[], value, x.dtype(), x.device())?;
    scatter_combine(x, dim, index, &view::expand(&v, &index.sizes())?, reduce)
}
fn scatter_with(
    x: &Tensor,
    dim: i64,
    index: &Tensor,
    src: &Tensor,
    reduce: &str,
    include_self: bool,
    name: &str,
) -> Result<Tensor> {
    let index = check_index(name, index)?;
    same_dtype(name, x, src)?;
    let d = wrap_dim(dim, x.dim())?;
    if index.numel() == 0 {
        return view::clone(x);
    }
    check_along(name, d, &x.meta(), &index.meta())?;
    if x.dim() == 0 {
        let row = |t: &Tensor| view::reshape(t, &[-1]);
        return view::reshape(&scatter_with(&row(x)?, 0, &row(&index)?, &row(src)?, reduce, include_self, name)?, &[]);
    }
    let sizes = if index.dim() == 0 { Dims::from_elem(1, x.dim()) } else { index.sizes() };
    let index = view::reshape(&index, &sizes)?;
    let have = src.sizes();
    ensure!(
        have.len() == sizes.len() || have.is_empty(),
        Runtime,
        "Index tensor must have the same number of dimensions as src tensor"
    );
    let mut src = if have.is_empty() { view::reshape(src, &sizes)? } else { src.clone() };
    for (k, &n) in sizes.iter().enumerate() {
        let m = src.size(k as i64)?;
        ensure!(
            n <= m,
            Runtime,
            "Expected index {} to be no larger than self {} apart from dimension {d} and to be no larger size than src {}",
            Shape(&sizes),
            Shape(&x.sizes()),
            Shape(&have)
        );
        if n < m {
            src = view::narrow(&src, k as i64, 0, n)?;
        }
    }
    out_of_bounds(reduce_at(x, Places::Along(d), &[index], &src, reduce, include_self))
}
/// PyTorch's class for positions out of range in gather and scatter.
pub(super) fn out_of_bounds(r: Result<Tensor>) -> Result<Tensor> {
    r.map_err(|e| if e.kind() == ErrorKind::Index { err!(Runtime, "{}", e.message()) } else { e })
}
/// Reduces slices of `src` that meet at one index of a dimension of `x`: "prod", "mean", "amax" or "amin".
///
/// # Errors
/// As [`scatter_reduce`]; `Index` for positions out of range.
pub fn index_reduce(
    x: &Tensor,
    dim: i64,
    index: &Tensor,
    src: &Tensor,
    reduce: &str,
    include_self: bool,
) -> Result<Tensor> {
    ensure!(
        matches!(reduce, "prod" | "mean" | "amax" | "amin"),
        Runtime,
        "index_reduce(): Expected reduce to be one of prod, mean, amax or amin but got {reduce}."
    );
    ensure!(index.dim() <= 1, Index, "index_reduce(): Index is supposed to be a vector, but got dim: {}", index.dim());
    same_dtype("index_reduce", x, src)?;
    let index = view::reshape(&check_index("index_reduce", index)?, &[-1])?;
    let d = wrap_dim(dim, x.dim())?;
    if x.dim() == 0 {
        let y = index_reduce(&view::reshape(x, &[1])?, 0, &index, &view::reshape(src, &[-1])?, reduce, include_self)?;
        return view::reshape(&y, &[]);
    }
    let mut want = x.sizes();
    want[d] = index.numel();
    let src = if src.dim() == 0 && numel(&want) == 1 { view::reshape(src, &want)? } else { src.clone() };
    ensure!(
        src.sizes() == want,
        Runtime,
        "index_reduce(): source {} must have self's sizes {} except {} at dimension {d}",
        Shape(&src.sizes()),
        Shape(&x.sizes()),
        index.numel()
    );
    if index.numel() == 0 {
        return view::clone(x);
    }
    reduce_at(x, Places::Whole(d), &[index], &src, reduce, include_self)
}
/// Values of `source` at positions of the flattened tensor; repeated positions add up with `accumulate`.
///
/// # Errors
/// `Index` for positions out of range, `Runtime` for wrong dtypes or counts.
pub fn put(x: &Tensor, index: &Tensor, source: &Tensor, accumulate: bool) -> Result<Tensor> {
    ensure!(
        index.dtype() == DType::I64,
        Runtime,
        "put_(): Expected a long tensor for index, but got {}",
        index.dtype().title()
    );
    ensure!(
        x.dtype() == source.dtype(),
        Runtime,
        "put_(): self and source expected to have the same dtype, but got self.dtype = {} and source.dtype = {}",
        x.dtype().title(),
        source.dtype().title()
    );
    ensure!(
        index.numel() == source.numel(),
        Runtime,
        "put_(): Expected source and index to have the same number of elements, but got source.numel() = {}, index.numel() = {}",
        source.numel(),
        index.numel()
    );
    ensure!(!(x.numel() == 0 && index.numel() > 0), Index, "put_(): the tensor has no elements");
    if index.numel() == 0 {
        return view::clone(x);
    }
    let flat = view::reshape(x, &[-1])?;
    let values = view::reshape(source, &[-1])?;
    let how = if accumulate { Write::Add } else { Write::Set };
    let places = Places::Advanced { dims: SmallVec::from_iter([0]), at: 0 };
    view::reshape(&write(&flat, places, &[view::reshape(index, &[-1])?], &values, how, true)?, &x.sizes())
}
/// The first `size` rows of [`nonzero`](super::indexing::nonzero), missing ones filled with `fill`.
///
/// # Errors
/// `Runtime` for a negative size.
pub fn nonzero_static(x: &Tensor, size: i64, fill: i64) -> Result<Tensor> {
    ensure!(size >= 0, Runtime, "nonzero_static: 'size' must be an non-negative integer");
    let found = super::indexing::nonzero(x)?;
    let n = found.size(0)?;
    if n >= size {
        return view::clone(&view::narrow(&found, 0, 0, size)?);
    }
    let rest = factory::full(&[size - n, x.dim() as i64], Number::Int(fill), DType::I64, x.device())?;
    super::join::cat(&[found, rest], 0)
}

/// A copy of `x` in which the view `part` holds `src`.
fn with_part(x: &Tensor, src: &Tensor, name: &str, part: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
    let out = view::clone(x)?;
    let place = part(&out)?;
    ensure!(
        place.sizes() == src.sizes(),
        Runtime,
        "{name}: expected src to have a size equal to the slice of self. src size = {}, slice size = {}",
        Shape(&src.sizes()),
        Shape(&place.sizes())
    );
    e::copy_(&place, src)?;
    Ok(out)
}
/// A copy with one index of a dimension replaced.
///
/// # Errors
/// As [`view::select`]; `Runtime` for other sizes.
pub fn select_scatter(x: &Tensor, src: &Tensor, dim: i64, index: i64) -> Result<Tensor> {
    with_part(x, src, "select_scatter", |t| view::select(t, dim, index))
}
/// A copy with a slice replaced.
///
/// # Errors
/// As [`view::slice`]; `Runtime` for other sizes.
pub fn slice_scatter(
    x: &Tensor,
    src: &Tensor,
    dim: i64,
    start: Option<i64>,
    end: Option<i64>,
    step: i64,
) -> Result<Tensor> {
    with_part(x, src, "slice_scatter", |t| view::slice(t, dim, start.unwrap_or(0), end.unwrap_or(i64::MAX), step))
}
/// A copy with a diagonal replaced.
///
/// # Errors
/// As [`view::diagonal`]; `Runtime` for other sizes.
pub fn diagonal_scatter(x: &Tensor, src: &Tensor, offset: i64, dim1: i64, dim2: i64) -> Result<Tensor> {
    with_part(x, src, "diagonal_scatter", |t| view::diagonal(t, offset, dim1, dim2))
}
/// A copy with an `as_strided` view replaced.
///
/// # Errors
/// As [`view::as_strided`]; `Runtime` for other sizes.
pub fn as_strided_scatter(
    x: &Tensor,
    src: &Tensor,
    sizes: &[i64],
    strides: &[i64],
    offset: Option<i64>,
) -> Result<Tensor> {
    ensure!(
        x.is_contiguous() || !x.requires_grad(),
        Runtime,
        "as_strided_scatter: a gradient exists for contiguous tensors only"
    );
    // The bounds are those of the tensor that was given, not of its copy.
    let place = view::as_strided(&x.detach(), sizes, strides, offset)?;
    ensure!(
        place.sizes() == src.sizes(),
        Runtime,
        "as_strided_scatter: expected src to have a size equal to the slice of self. src size = {}, slice size = {}",
        Shape(&src.sizes()),
        Shape(&place.sizes())
    );
    let (extent, from) = (view::wide_extent(&x.sizes(), &x.strides()) as i64, x.meta().offset);
    if !x.is_contiguous() && !may_overlap_itself(&x.sizes(), &x.strides()) {
        // Places are those of the memory, so that a copy of all of it is written.
        let whole = view::clone(&view::as_strided(x, &[from + extent], &[1], Some(0))?)?;
        let op = AsStridedScatter { sizes: sizes.into(), strides: strides.into(), offset: offset.unwrap_or(from) };
        let written = crate::apply::apply1(op, &[&whole, src], Dest::New)?;
        return view::as_strided(&written, &x.sizes(), &x.strides(), Some(from));
    }
    let op = AsStridedScatter { sizes: sizes.into(), strides: strides.into(), offset: offset.unwrap_or(0) };
    crate::apply::apply1(op, &[x, src], Dest::New)
}
/// `as_strided_scatter`. Operands: the tensor and the values of the part.
#[derive(Clone)]
struct AsStridedScatter {
    sizes: Dims,
    strides: Dims,
    offset: i64,
}
impl AsStridedScatter {
    fn part(&self, t: &Tensor) -> Result<Tensor> {
        view::as_strided(t, &self.sizes, &self.strides, Some(self.offset))
    }
}
impl Primitive for AsStridedScatter {
    fn name(&self) -> &'static str {
        "as_strided_scatter"
    }
    fn infer(&self, x: &[&Meta], out: &mut Draft) -> Result<()> {
        let n = numel(&x[0].sizes);
        let end = i128::from(self.offset) + view::wide_extent(&self.sizes, &self.strides);
        ensure!(
            numel(&self.sizes) == 0 || (self.offset >= 0 && end <= i128::from(n)),
            Runtime,
            "as_strided_scatter: sizes {}, strides {} and storage offset {} reach beyond the {n} elements of self",
            Shape(&self.sizes),
            Shape(&self.strides),
            self.offset
        );
        out.push(copy_dims(&x[0].sizes), x[0].dtype);
        Ok(())
    }
    fn run(&self, on: &dyn Backend, x: &[Operand], out: &[Operand]) -> Result<()> {
        let copy = |from: &Operand, to: &Operand| {
            let inputs = [Input::Operand(from.dtype.class())];
            on.map(&Program { inputs: &inputs, steps: &[], results: &[0] }, &[*from], std::slice::from_ref(to))
        };
        copy(&x[0], &out[0])?;
        if numel(&self.sizes) == 0 {
            return Ok(());
        }
        let at = self.offset as usize * out[0].dtype.size();
        copy(&x[1], &Operand { sizes: &self.sizes, strides: &self.strides, ptr: out[0].ptr.wrapping_add(at), ..out[0] })
    }
    fn vjp(&self, cx: &Vjp, g: &[Option<Tensor>]) -> Result<Gradients> {
        let mut grads: Gradients = SmallVec::from_elem(None, 2);
        let Some(g) = &g[0] else { return Ok(grads) };
        let part = self.part(&view::contiguous(g)?)?;
        if cx.needs(0) {
            // PyTorch's formula: the tensor gets the gradient of the part that was written over, and none for the rest.
            let zeros = factory::zeros(&cx.info(0).sizes, g.dtype(), g.device())?;
            grads[0] = Some(with_part(&zeros, &part, self.name(), |t| self.part(t))?);
        }
        if cx.needs(1) {
            grads[1] = Some(part);
        }
        Ok(grads)
    }
    fn key(&self, key: &mut PlanKey) {
        key.words(&self.sizes).words(&self.strides).word(self.offset as u64);
    }
    crate::shareable!();
}
/// Coordinates, in a tensor of `shape`, of positions in the flattened tensor; one tensor a dimension.
///
/// # Errors
/// `Value` for a negative size or positions out of range.
pub fn unravel_index(indices: &Tensor, shape: &[i64]) -> Result<Vec<Tensor>> {
    ensure!(
        indices.dtype().is_integral(false),
        Type,
        "expected 'indices' to be integer dtype, but got {}",
        indices.dtype().name()
    );
    ensure!(shape.iter().all(|n| *n >= 0), Value, "'shape' cannot have negative values, but got {}", Shape(shape));
    let strides = contiguous_strides(shape);
    let indices = &e::to_dtype(indices, DType::I64)?;
    shape.iter().zip(&strides).map(|(&n, &s)| e::remainder(&e::floor_divide(indices, s)?, n.max(1))).collect()
}
/// Every choice of `r` elements of a 1-d tensor, in order, a row each.
///
/// # Errors
/// `Runtime` for another rank or a negative `r`.
pub fn combinations(x: &Tensor, r: i64, with_replacement: bool) -> Result<Tensor> {
    ensure!(x.dim() == 1, Runtime, "Expect a 1D vector, but got shape {}", Shape(&x.sizes()));
    ensure!(r >= 0, Runtime, "Expect a non-negative number, but got {r}");
    if r == 0 {
        return factory::empty(&[0], x.dtype(), x.device());
    }
    let n = x.numel();
    let least = if with_replacement { 1 } else { r };
    if n < least {
        // None, but the operand's gradient goes through them.
        let none = crate::ops::device::to_device(&Tensor::from_slice::<i64>(&[], &[0])?, x.device())?;
        return view::reshape(&super::indexing::index_select(x, 0, &none)?, &[0, r]);
    }
    // There are (m over r) of them; the product is cut off where no memory could hold it.
    let (m, r) = (if with_replacement { n.saturating_add(r - 1) } else { n } as u128, r as usize);
    let k = (r as u128).min(m - r as u128);
    let count = (0..k).try_fold(1u128, |c, i| Some(c * (m - i) / (i + 1)).filter(|c| *c < 1 << 62)).unwrap_or(1 << 62);
    let numbers = usize::try_from(count.saturating_mul(r as u128)).unwrap_or(usize::MAX);
    let mut rows: Vec<i64> = Vec::new();
    rows.try_reserve_exact(numbers).map_err(|_| {
        err!(OutOfMemory, "combinations: can't allocate memory for {count} combinations of {r} elements, as r asks for")
    })?;
    let mut pick: Vec<i64> = (0..r as i64).map(|i| if with_replacement { 0 } else { i }).collect();
    let last = |k: usize| if with_replacement { n - 1 } else { n - (r - k) as i64 };
    let mut more = true;
    while more {
        rows.extend_from_slice(&pick);
        more = false;
        for k in (0..r).rev() {
            if pick[k] < last(k) {
                pick[k] += 1;
                for j in k + 1..r {
                    pick[j] = if with_replacement { pick[k] } else { pick[j - 1] + 1 };
                }
                more = true;
                break;
            }
        }
    }
    let count = (rows.len() / r) as i64;
    let index = crate::ops::device::to_device(&Tensor::from_slice(&rows, &[rows.len() as i64])?, x.device())?;
    view::reshape(&super::indexing::index_select(x, 0, &index)?, &[count, r as i64])
}
/// Rows of every combination of one element of each 1-d tensor.
///
/// # Errors
/// `Runtime` for tensors of another rank.
pub fn cartesian_prod(tensors: &[Tensor]) -> Result<Tensor> {
    for t in tensors {
        ensure!(t.dim() == 1, Runtime, "Expect a 1D vector, but got shape {}", Shape(&t.sizes()));
    }
    if tensors.len() == 1 {
        return Ok(tensors[0].clone());
    }
    let columns: Vec<Tensor> = super::join::meshgrid(tensors, "ij")?.iter().map(view::ravel).collect::<Result<_>>()?;
    super::join::stack(&columns, 1)
}

/// Complex numbers from real and imaginary parts.
///
/// # Errors
/// `Runtime` unless both are float32 or float64 alike.
pub fn complex(real: &Tensor, imag: &Tensor) -> Result<Tensor> {
    pair(real, imag)?;
    let sizes = broadcast_shapes(&real.sizes(), &imag.sizes())?;
    let parts = [view::expand(real, &sizes)?, view::expand(imag, &sizes)?];
    view::view_as_complex(&super::join::stack(&parts, -1)?)
}
/// Complex numbers from absolute value and angle.
///
/// # Errors
/// As [`complex`].
pub fn polar(abs: &Tensor, angle: &Tensor) -> Result<Tensor> {
    pair(abs, angle)?;
    complex(&e::mul(abs, &e::cos(angle)?)?, &e::mul(abs, &e::sin(angle)?)?)
}
fn pair(a: &Tensor, b: &Tensor) -> Result<()> {
    let float = |t: &Tensor| matches!(t.dtype(), DType::F32 | DType::F64 | DType::F16);
    ensure!(
        float(a) && float(b),
        Runtime,
        "Expected both inputs to be Half, Float or Double tensors but got {} and {}",
        a.dtype().title(),
        b.dtype().title()
    );
    ensure!(
        a.dtype() == b.dtype(),
        Runtime,
        "Expected object of scalar type {} but got scalar type {} for second argument",
        a.dtype().title(),
        b.dtype().title()
    );
    Ok(())
}
/// Row and column numbers of the lower triangle of a (rows, cols) matrix, up to the diagonal `offset`; or of the upper one.
///
/// # Errors
/// `Runtime` for negative sizes.
pub fn triangle_indices(
    rows: i64,
    cols: i64,
    offset: i64,
    lower: bool,
    dtype: DType,
    device: Device,
) -> Result<Tensor> {
    ensure!(rows >= 0, Runtime, "row must be non-negative, got{rows}");
    ensure!(cols >= 0, Runtime, "col must be non-negative, got{cols}");
    // In the lower triangle row i has i + offset + 1 elements, from `first` on at least one and from `full` on all; the upper one
    // is what the lower one of the offset before leaves.
    let below = |offset: i64| -> (i64, i64, i128) {
        let first = offset.saturating_neg().clamp(0, rows);
        let full = cols.saturating_sub(offset).saturating_sub(1).clamp(first, rows);
        let (a, b, o) = (first as i128, full as i128, offset as i128);
        (first, full, (b - a) * (a + b + 1 + 2 * o) / 2 + (rows as i128 - b) * cols as i128)
    };
    let (visited, n) = if lower {
        let (first, _, n) = below(offset);
        (first..rows, n)
    } else {
        let (_, full, n) = below(offset.saturating_sub(1));
        (0..full, rows as i128 * cols as i128 - n)
    };
    let n = usize::try_from(n).unwrap_or(usize::MAX);
    let mut out: Vec<i64> = Vec::new();
    out.try_reserve_exact(n.saturating_mul(2)).map_err(|_| {
        err!(
            OutOfMemory,
            "{}_indices: can't allocate memory for {n} pairs of indices",
            if lower { "tril" } else { "triu" }
        )
    })?;
    let columns = |i: i64| {
        let edge = i.saturating_add(offset);
        if lower {
            0..edge.saturating_add(1).clamp(0, cols)
        } else {
            edge.clamp(0, cols)..cols
        }
    };
    if n > 0 {
        out.extend(visited.clone().flat_map(|i| columns(i).map(move |_| i)));
        out.extend(visited.flat_map(columns));
    }
    crate::ops::device::to_device(&e::to_dtype(&Tensor::from_slice(&out, &[2, n as i64])?, dtype)?, device)
}
