//! Between layouts.

use super::*;
use crate::ops::{reduction, view as v};

/// Entries in order, those of one position added up. The tensor itself when it is so already.
///
/// # Errors
/// `Runtime` for another layout than COO.
pub fn coalesce(t: &Tensor) -> Result<Tensor> {
    let s = coo_parts("coalesce", t)?;
    if s.coalesced {
        return Ok(t.clone());
    }
    let sizes = t.sizes();
    let rows = host_rows(&s.indices)?;
    let n = s.nnz() as usize;
    let device = s.values.device();
    let keys = host_keys(&rows, &sizes, n);
    if keys.windows(2).all(|w| w[0] < w[1]) {
        return Ok(coo(s.indices.clone(), s.values.clone(), &sizes, true));
    }
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by_key(|&i| keys[i]);
    // Which of the distinct positions an entry belongs to, and an entry of each.
    let mut group = vec![0i64; n];
    let mut first: Vec<usize> = Vec::new();
    for &i in &order {
        if first.last().is_none_or(|&f| keys[f] != keys[i]) {
            first.push(i);
        }
        group[i] = first.len() as i64 - 1;
    }
    let distinct = first.len() as i64;
    let kept: Vec<Vec<i64>> = rows.iter().map(|row| first.iter().map(|&i| row[i]).collect()).collect();
    let values = if distinct == n as i64 {
        let order: Vec<i64> = order.iter().map(|&i| i as i64).collect();
        indexing::index_select(&s.values, 0, &host_list(&order, device)?)?
    } else {
        add_up(&s.values, &host_list(&group, device)?, distinct)?
    };
    Ok(coo(host_indices(&kept, distinct, device)?, values, &sizes, true))
}
/// Values added up by group, of which there are `n`.
pub(super) fn add_up(values: &Tensor, group: &Tensor, n: i64) -> Result<Tensor> {
    let mut shape = values.sizes();
    shape[0] = n;
    let dtype = values.dtype();
    if dtype == DType::Bool {
        let sums = add_up(&e::to_dtype(values, DType::I64)?, group, n)?;
        return e::to_dtype(&sums, DType::Bool);
    }
    indexing::index_add(&factory::zeros(&shape, dtype, values.device())?, 0, group, values)
}

/// Every element in memory; the tensor itself when it is dense.
///
/// # Errors
/// `OutOfMemory` when it does not fit.
pub fn to_dense(t: &Tensor, dtype: Option<DType>) -> Result<Tensor> {
    let dense = match t.as_sparse() {
        None => t.clone(),
        Some(s) => {
            let sizes = t.sizes();
            let split = s.sparse_dims();
            check_sizes(&sizes, t.dtype())?;
            let at = row_major(&s.coordinates()?, &sizes[..split])?;
            v::reshape(&add_up(&s.flat_values()?, &at, numel(&sizes[..split]))?, &sizes)?
        }
    };
    match dtype {
        Some(d) => e::to_dtype(&dense, d),
        None => Ok(dense),
    }
}
/// COO with the entries that are not zero; the last dimensions beyond `sparse_dims` (all, unless given) stay dense.
///
/// # Errors
/// `Runtime` for more sparse dimensions than there are.
pub fn to_sparse(t: &Tensor, sparse_dims: Option<i64>) -> Result<Tensor> {
    if t.is_sparse() {
        let coo = to_coo(t)?;
        if let (Some(want), Some(s)) = (sparse_dims, coo.as_sparse()) {
            ensure!(
                want == s.sparse_dims() as i64,
                Runtime,
                "to_sparse: conversion from {} to Sparse with sparse_dim argument !=self.sparse_dim() is not supported",
                t.layout().title()
            );
        }
        return Ok(coo);
    }
    let n = t.dim() as i64;
    let dims = sparse_dims.unwrap_or(n);
    ensure!(
        dims <= n && dims >= n.min(1),
        Runtime,
        "sparse_dim must be in [{}, {n}] for a tensor of {n} dimensions, but got {dims}",
        n.min(1)
    );
    let sizes = t.sizes();
    let there = e::ne(&t.detach(), 0)?;
    let there =
        if dims < n { reduction::any(&there, &(dims..n).collect::<Vec<_>>(), false, Dest::New)? } else { there };
    if n == 0 {
        let some = !matches!(crate::ops::device::item(&there)?, Number::Bool(false));
        let indices = factory::empty(&[0, i64::from(some)], DType::I64, t.device())?;
        let values = v::unsqueeze(t, 0)?;
        let values = if some { v::clone(&values)? } else { v::narrow(&values, 0, 0, 0)? };
        return Ok(coo(indices, values, &sizes, true));
    }
    let indices = v::contiguous(&v::transpose(&indexing::nonzero(&there)?, 0, 1)?)?;
    let values = values_at(t, &indices)?;
    Ok(coo(indices, values, &sizes, true))
}
/// The same values in another layout; the tensor itself when it has that layout.
///
/// # Errors
/// `Runtime` for what cannot be compressed.
pub fn to_layout(t: &Tensor, layout: TensorLayout) -> Result<Tensor> {
    if t.layout() == layout {
        return Ok(t.clone());
    }
    match layout {
        TensorLayout::Strided => to_dense(t, None),
        TensorLayout::SparseCoo => to_coo(t),
        TensorLayout::SparseCsr => to_csr(t),
        TensorLayout::SparseCsc => to_csc(t),
        TensorLayout::SparseBsr | TensorLayout::SparseBsc => {
            // Blocks of the size that there are already.
            let block = t.as_sparse().and_then(|s| s.block());
            let dense = t.as_sparse().map_or(0, |s| t.dim() - s.sparse_dims());
            ensure!(
                block.is_some(),
                Runtime,
                "to_sparse: a blocksize is needed for the layout torch.{}",
                layout.name()
            );
            compress(t, layout, block, dense)
        }
    }
}
/// In coordinates.
///
/// # Errors
/// As [`to_sparse`].
pub fn to_coo(t: &Tensor) -> Result<Tensor> {
    match t.as_sparse() {
        None => to_sparse(t, None),
        Some(s) if s.layout == TensorLayout::SparseCoo => Ok(t.clone()),
        Some(s) => {
            let ordered = s.layout == TensorLayout::SparseCsr;
            let out = coo(s.coordinates()?, s.flat_values()?, &t.sizes(), ordered);
            coalesce(&out)
        }
    }
}
/// In compressed rows; dimensions that are dense stay so.
///
/// # Errors
/// As [`compress`].
pub fn to_csr(t: &Tensor) -> Result<Tensor> {
    to_compressed(t, TensorLayout::SparseCsr)
}
/// In compressed columns.
///
/// # Errors
/// As [`compress`].
pub fn to_csc(t: &Tensor) -> Result<Tensor> {
    to_compressed(t, TensorLayout::SparseCsc)
}
fn to_compressed(t: &Tensor, layout: TensorLayout) -> Result<Tensor> {
    if t.layout() == layout {
        return Ok(t.clone());
    }
    let dense = t.as_sparse().map_or(0, |s| t.dim() - s.sparse_dims());
    compress(t, layout, None, dense)
}
