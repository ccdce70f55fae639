//! Sums and softmax over sparse tensors.

use super::convert::add_up;
use super::*;
use crate::ops::reduction::{self, Reduce};
use crate::ops::{activation, scatter};
use std::collections::HashMap;

/// The rule of [`Reduce`]: sums, and `any` over everything.
pub fn reduce(op: &Reduce, t: &Tensor) -> Option<Result<Tensor>> {
    let n = t.dim();
    let dims: Vec<i64> = (0..n as i64).filter(|d| op.dims >> d & 1 == 1).collect();
    match op.how {
        Reduction::Sum => Some(sum(t, &dims, op.keepdim, Some(op.dtype))),
        Reduction::Any if dims.len() == n && !op.keepdim => {
            Some(coalesce_any(t).and_then(|s| reduction::any(&s.values, &[], false, Dest::New)))
        }
        _ => None,
    }
}
/// Parts with every position once.
fn coalesce_any(t: &Tensor) -> Result<Arc<Sparse>> {
    if t.layout().is_compressed() {
        return parts("any", t);
    }
    parts("any", &coalesce(t)?)
}
/// Sum over dimensions, all for an empty list: dense when no sparse dimension is left, otherwise sparse.
///
/// # Errors
/// `Index` for a dimension out of range; `Runtime` for compressed tensors without `keepdim`.
pub fn sum(t: &Tensor, dims: &[i64], keepdim: bool, dtype: Option<DType>) -> Result<Tensor> {
    let s = parts("sum", t)?;
    let n = t.dim();
    let mask = reduction::dim_mask(dims, n)?;
    let gone = |d: usize| mask >> d & 1 == 1;
    let split = s.sparse_dims();
    let all = (0..n).all(gone);
    if s.layout.is_compressed() && !all {
        ensure!(keepdim, Runtime, "reduction operations on CSR tensors with keepdim=False is unsupported");
        return sum(&to_coo(t)?, dims, true, dtype).and_then(|total| to_form(&total, &s));
    }
    let values = match dtype {
        Some(d) => e::to_dtype(&s.flat_values()?, d)?,
        None => s.flat_values()?,
    };
    let inner: Vec<i64> = (split..n).filter(|&d| gone(d)).map(|d| (d - split + 1) as i64).collect();
    let values = if inner.is_empty() { values } else { reduction::sum(&values, &inner, keepdim)? };
    let kept: Vec<usize> = (0..split).filter(|&d| !gone(d)).collect();
    let sizes: Dims = t
        .sizes()
        .iter()
        .enumerate()
        .filter(|&(d, _)| keepdim || !gone(d))
        .map(|(d, &n)| if gone(d) { 1 } else { n })
        .collect();
    if kept.is_empty() {
        let total = reduction::sum(&values, &[0], false)?;
        return if keepdim { dense_view::reshape(&total, &sizes) } else { Ok(total) };
    }
    if kept.len() == split {
        return Ok(coo(s.coordinates()?, values, &sizes, s.coalesced));
    }
    let at = s.coordinates()?;
    let rows: Vec<Tensor> = (0..split)
        .filter(|&d| keepdim || !gone(d))
        .map(|d| {
            let row = dense_view::select(&at, 0, d as i64)?;
            if gone(d) {
                factory::zeros_like(&row)
            } else {
                Ok(row)
            }
        })
        .collect::<Result<_>>()?;
    coalesce(&coo(crate::ops::join::stack(&rows, 0)?, values, &sizes, false))
}
/// Softmax over the entries that are there, along a dimension; their logarithms with `log`.
///
/// # Errors
/// `Index` for a dimension out of range.
pub fn softmax(t: &Tensor, dim: i64, dtype: Option<DType>, log: bool) -> Result<Tensor> {
    let form = parts("softmax", t)?;
    let x = coalesce(&to_coo(t)?)?;
    let s = coo_parts("softmax", &x)?;
    let d = wrap_dim(dim, t.dim())?;
    let values = match dtype {
        Some(to) => e::to_dtype(&s.values, to)?,
        None => s.values.clone(),
    };
    let split = s.sparse_dims();
    let out = if d >= split {
        let dim = (d - split + 1) as i64;
        if log {
            activation::log_softmax(&values, dim, None)?
        } else {
            activation::softmax(&values, dim, None)?
        }
    } else {
        // Entries that differ in this dimension alone are one group.
        let mut rows = host_rows(&s.indices)?;
        rows.remove(d);
        let mut sizes = t.sizes();
        sizes.remove(d);
        let mut groups: HashMap<i128, i64> = HashMap::new();
        let mut of = Vec::new();
        for key in host_keys(&rows, &sizes, s.nnz() as usize) {
            let next = groups.len() as i64;
            of.push(*groups.entry(key).or_insert(next));
        }
        let of = host_list(&of, values.device())?;
        let count = groups.len() as i64;
        let mut shape = values.sizes();
        shape[0] = count;
        let largest = {
            let _off = crate::mode::no_grad();
            let zeros = factory::zeros(&shape, values.dtype(), values.device())?;
            let m = scatter::index_reduce(&zeros, 0, &of, &values.detach(), "amax", false)?;
            indexing::index_select(&m, 0, &of)?
        };
        let shifted = e::sub(&values, &largest)?;
        let terms = e::exp(&shifted)?;
        let totals = indexing::index_select(&add_up(&terms, &of, count)?, 0, &of)?;
        if log {
            e::sub(&shifted, &e::log(&totals)?)?
        } else {
            e::div(&terms, &totals)?
        }
    };
    to_form(&with_values(&t.sizes(), &s, out), &form)
}
