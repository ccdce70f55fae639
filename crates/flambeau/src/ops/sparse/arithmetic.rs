//! Scalar functions over sparse operands: those that keep zero, sums, products with what is there.

use super::convert::add_up;
use super::*;
use crate::apply::apply1;
use crate::ops::elementwise::Map;
use std::collections::HashMap;

/// The rule of [`Map`]: `None` where the result would not be sparse.
pub fn map(op: &Map, x: &[&Tensor]) -> Option<Result<Tensor>> {
    use ScalarFn as F;
    match *x {
        [a] => match (op.f, op.numbers[0], op.numbers[1]) {
            (F::Add | F::AddScaled | F::Sub, ..) => Some(Err(order_of_sum())),
            (F::Pow, None, Some(n)) => Some(if n.to_f64() == 0.0 {
                Err(err!(
                    Runtime,
                    "pow: cannot raise to zeroth power on sparse tensor; it would make the result tensor dense"
                ))
            } else {
                over_values(op, a, false)
            }),
            (F::Mul, ..) => Some(over_values(op, a, true)),
            (F::Div, None, _) => Some(over_values(op, a, true)),
            (F::FloorDiv | F::TruncDiv | F::Remainder | F::Fmod, None, _) => Some(over_values(op, a, false)),
            (F::Identity | F::Neg | F::Conj, ..) => Some(over_values(op, a, true)),
            (f, ..) if keeps_zero(f) => Some(over_values(op, a, false)),
            _ => None,
        },
        [a, b] => match op.f {
            F::Add => Some(sum(a, b, Number::Int(1))),
            F::AddScaled => op.numbers[2].map(|alpha| sum(a, b, alpha)),
            F::Sub => Some(sum(a, b, Number::Int(-1))),
            F::Mul => Some(product(a, b)),
            F::Div | F::FloorDiv | F::TruncDiv => Some(quotient(op, a, b)),
            _ => None,
        },
        _ => None,
    }
}
/// Functions of one argument that are 0 at 0.
fn keeps_zero(f: ScalarFn) -> bool {
    use ScalarFn as F;
    matches!(
        f,
        F::Abs
            | F::Sqrt
            | F::Square
            | F::Sign
            | F::Sgn
            | F::Floor
            | F::Ceil
            | F::Trunc
            | F::Round
            | F::RoundDecimals
            | F::Frac
            | F::Expm1
            | F::Log1p
            | F::Sin
            | F::Tan
            | F::Asin
            | F::Atan
            | F::Sinh
            | F::Tanh
            | F::Asinh
            | F::Atanh
            | F::Erf
            | F::Erfinv
            | F::Relu
            | F::IsNan
            | F::IsInf
            | F::IsPosInf
            | F::IsNegInf
            | F::Signbit
            | F::Angle
            | F::NanToNum
            | F::ReluGrad
    )
}
fn order_of_sum() -> Error {
    err!(Runtime, "add(sparse, dense) is not supported. Use add(dense, sparse) instead.")
}
/// A function of every value; entries of one position are added up first unless the function is linear.
fn over_values(op: &Map, a: &Tensor, linear: bool) -> Result<Tensor> {
    let a = if linear || a.layout().is_compressed() { a.clone() } else { coalesce(a)? };
    let s = parts(op.f.name(), &a)?;
    Ok(with_values(&a.sizes(), &s, apply1(op.clone(), &[&s.values], Dest::New)?))
}

fn same_sizes(name: &str, a: &Tensor, b: &Tensor) -> Result<()> {
    ensure!(
        a.sizes() == b.sizes(),
        Runtime,
        "{name}: expected sizes of 'self' and 'other' to match, but {} != {}",
        Shape(&a.sizes()),
        Shape(&b.sizes())
    );
    Ok(())
}
/// `values · alpha` in `dtype`.
fn scaled(values: &Tensor, alpha: Number, dtype: DType) -> Result<Tensor> {
    let values = e::to_dtype(values, dtype)?;
    if matches!(alpha, Number::Int(1)) {
        return Ok(values);
    }
    e::to_dtype(&e::mul(&values, alpha)?, dtype)
}

/// `a + alpha b`.
fn sum(a: &Tensor, b: &Tensor, alpha: Number) -> Result<Tensor> {
    if !a.is_sparse() {
        return sum_with_dense(a, b, alpha);
    }
    if !b.is_sparse() {
        // Compressed rows may be the first operand too.
        if a.layout() == TensorLayout::SparseCsr {
            return sum_with_dense(&scaled(b, alpha, promote_types(a.dtype(), b.dtype()))?, a, Number::Int(1));
        }
        return Err(order_of_sum());
    }
    same_sizes("add", a, b)?;
    let (x, y) = (to_coo(a)?, to_coo(b)?);
    let (p, q) = (coo_parts("add", &x)?, coo_parts("add", &y)?);
    ensure!(
        p.sparse_dims() == q.sparse_dims(),
        Runtime,
        "add: expected 'self' and 'other' to have same number of sparse dimensions, but {} != {}",
        p.sparse_dims(),
        q.sparse_dims()
    );
    let dtype = promote_types(a.dtype(), b.dtype());
    let (left, right) = (e::to_dtype(&p.values, dtype)?, scaled(&q.values, alpha, dtype)?);
    let out = if same_indices(&p.indices, &q.indices)? {
        coo(p.indices.clone(), e::add(&left, &right)?, &a.sizes(), p.coalesced || q.coalesced)
    } else {
        let indices = crate::ops::join::cat(&[p.indices.clone(), q.indices.clone()], 1)?;
        let both = coo(indices, crate::ops::join::cat(&[left, right], 0)?, &a.sizes(), false);
        if p.coalesced && q.coalesced {
            coalesce(&both)?
        } else {
            both
        }
    };
    to_form(&out, &*parts("add", a)?)
}
fn sum_with_dense(dense: &Tensor, b: &Tensor, alpha: Number) -> Result<Tensor> {
    let s = parts("add", b)?;
    let sizes = b.sizes();
    ensure!(
        broadcast_shapes(&dense.sizes(), &sizes)? == sizes,
        Runtime,
        "add: expected 'self' to be broadcast to the sizes of the sparse 'other', {} cannot be to {}",
        Shape(&dense.sizes()),
        Shape(&sizes)
    );
    let dtype = promote_types(dense.dtype(), b.dtype());
    let dense = e::to_dtype(&dense_view::expand(dense, &sizes)?, dtype)?;
    if dtype == DType::Bool {
        return e::logical_or(&dense, &to_dense(b, None)?);
    }
    let split = s.sparse_dims();
    let mut flat: Dims = SmallVec::from_elem(numel(&sizes[..split]), 1);
    flat.extend_from_slice(&sizes[split..]);
    let at = row_major(&s.coordinates()?, &sizes[..split])?;
    let out =
        indexing::index_add(&dense_view::reshape(&dense, &flat)?, 0, &at, &scaled(&s.flat_values()?, alpha, dtype)?)?;
    dense_view::reshape(&out, &sizes)
}
/// `target += alpha x[1]` for a dense contiguous target: only what is there is written. False when it is none of that.
pub(super) fn add_onto(op: &Map, x: &[&Tensor], target: &Tensor) -> Result<bool> {
    let [a, b] = *x else { return Ok(false) };
    let alpha = match (op.f, op.numbers[2]) {
        (ScalarFn::Add, _) => Number::Int(1),
        (ScalarFn::Sub, _) => Number::Int(-1),
        (ScalarFn::AddScaled, Some(alpha)) => alpha,
        _ => return Ok(false),
    };
    let dtype = target.dtype();
    let fits = a.is_same(target)
        && !target.is_sparse()
        && target.is_contiguous()
        && dtype != DType::Bool
        && target.sizes() == b.sizes()
        && check_cast(promote_types(dtype, b.dtype()), dtype).is_ok();
    let Some(s) = b.as_sparse().filter(|_| fits) else { return Ok(false) };
    let sizes = target.sizes();
    let split = s.sparse_dims();
    let mut flat: Dims = SmallVec::from_elem(numel(&sizes[..split]), 1);
    flat.extend_from_slice(&sizes[split..]);
    // A view whose write is the target's own: refused, and recorded, as any.
    check_inplace(target, target.requires_grad() || b.requires_grad())?;
    let at = row_major(&s.coordinates()?, &sizes[..split])?;
    let rows = dense_view::view(target, &flat)?;
    indexing::index_add_to(
        &rows,
        0,
        &at,
        &scaled(&s.flat_values()?, alpha, dtype)?,
        Number::Int(1),
        Dest::Inplace(&rows),
    )?;
    Ok(true)
}

/// `a b` where both are there.
fn product(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let (s, dense) = match (a.as_sparse(), b.as_sparse()) {
        (Some(_), Some(_)) => return intersection(a, b),
        (Some(s), None) => ((a, s), b),
        (None, Some(s)) => ((b, s), a),
        (None, None) => return e::mul(a, b),
    };
    let (t, s) = s;
    let sizes = t.sizes();
    if dense.dim() == 0 {
        return Ok(with_values(&sizes, &s, e::mul(&s.values, dense)?));
    }
    ensure!(
        broadcast_shapes(&dense.sizes(), &sizes)? == sizes,
        Runtime,
        "mul: the dense operand's sizes {} cannot be broadcast to the sparse operand's {}",
        Shape(&dense.sizes()),
        Shape(&sizes)
    );
    let there = s.shaped(&values_at(&dense_view::expand(dense, &sizes)?, &s.coordinates()?)?)?;
    Ok(with_values(&sizes, &s, e::mul(&s.values, &there)?))
}
fn intersection(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    same_sizes("mul", a, b)?;
    let (x, y) = (coalesce(&to_coo(a)?)?, coalesce(&to_coo(b)?)?);
    let (p, q) = (coo_parts("mul", &x)?, coo_parts("mul", &y)?);
    let out = if same_indices(&p.indices, &q.indices)? {
        with_values(&a.sizes(), &p, e::mul(&p.values, &q.values)?)
    } else {
        let (mine, theirs) = matches(&p, &q, &a.sizes())?;
        let device = p.values.device();
        let (mine, theirs) = (host_list(&mine, device)?, host_list(&theirs, device)?);
        let values =
            e::mul(&indexing::index_select(&p.values, 0, &mine)?, &indexing::index_select(&q.values, 0, &theirs)?)?;
        coo(indexing::index_select(&p.indices, 1, &mine)?, values, &a.sizes(), true)
    };
    to_form(&out, &*parts("mul", a)?)
}
/// The entries of `p` that `q` has too, and which those of `q` are. Both are coalesced.
fn matches(p: &Sparse, q: &Sparse, sizes: &[i64]) -> Result<(Vec<i64>, Vec<i64>)> {
    ensure!(
        p.sparse_dims() == q.sparse_dims(),
        Runtime,
        "mul: expected 'self' and 'other' to have same number of sparse dimensions, but {} != {}",
        p.sparse_dims(),
        q.sparse_dims()
    );
    let keys = |s: &Sparse| -> Result<Vec<i128>> {
        let at = s.coordinates()?;
        Ok(host_keys(&host_rows(&at)?, sizes, at.sizes()[1] as usize))
    };
    let known: HashMap<i128, i64> = keys(q)?.into_iter().zip(0..).collect();
    let (mut mine, mut theirs) = (Vec::new(), Vec::new());
    for (i, key) in keys(p)?.into_iter().enumerate() {
        if let Some(&j) = known.get(&key) {
            mine.push(i as i64);
            theirs.push(j);
        }
    }
    Ok((mine, theirs))
}
/// `a / b` for a divisor of no dimensions.
fn quotient(op: &Map, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    ensure!(
        a.is_sparse() && !b.is_sparse() && b.dim() == 0,
        Runtime,
        "Sparse division requires a scalar or zero-dim dense tensor divisor (got shape {} for divisor)",
        Shape(&b.sizes())
    );
    let a = if op.f == ScalarFn::Div || a.layout().is_compressed() { a.clone() } else { coalesce(a)? };
    let s = parts("div", &a)?;
    Ok(with_values(&a.sizes(), &s, apply1(op.clone(), &[&s.values, b], Dest::New)?))
}

/// The values of `t` at the entries of `mask`, whose pattern the result has.
///
/// # Errors
/// `Runtime` for other sizes, or a dense mask.
pub fn sparse_mask(t: &Tensor, mask: &Tensor) -> Result<Tensor> {
    let Some(m) = mask.as_sparse() else {
        bail!(Runtime, "sparse_mask(): the mask is to be a sparse tensor, got the layout torch.strided");
    };
    ensure!(
        t.sizes() == mask.sizes(),
        Runtime,
        "sparse_mask(): operands have incompatible sizes; self has size {} but mask has size {}",
        Shape(&t.sizes()),
        Shape(&mask.sizes())
    );
    let Some(of) = t.as_sparse() else {
        return Ok(with_values(&mask.sizes(), &m, m.shaped(&values_at(t, &m.coordinates()?)?)?));
    };
    if of.values.sizes() == m.values.sizes() && same_pattern(&of, &m)? {
        return Ok(with_values(&mask.sizes(), &m, of.values.clone()));
    }
    // Entries that both have, at the mask's places; zero elsewhere.
    let x = coalesce(&to_coo(t)?)?;
    let p = coo_parts("sparse_mask", &x)?;
    let (at, from) = matches(&m, &p, &t.sizes())?;
    let device = p.values.device();
    let there = indexing::index_select(&p.values, 0, &host_list(&from, device)?)?;
    let n = m.coordinates()?.sizes()[1];
    Ok(with_values(&mask.sizes(), &m, m.shaped(&add_up(&there, &host_list(&at, device)?, n)?)?))
}
