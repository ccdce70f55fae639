//! Signatures of sparse tensors: making them, their parts, other layouts, and `torch.sparse`.

use super::construction::as_tensor;
use crate::call::Object;
use crate::types::Layout;
use flambeau::core::{bail, ensure, err};
use flambeau::ops::{sparse, view};
use flambeau::tensor::{Sparse, TensorLayout};
use flambeau::{DType, Device, Number, Result, Tensor};
use std::sync::Arc;

fn with_grad(t: Tensor, requires_grad: bool) -> Result<Tensor> {
    if requires_grad {
        t.set_requires_grad(true)?;
    }
    Ok(t)
}
/// Values as given, in a dtype and on a device; a lone number is one value.
fn values_of(data: Object, dtype: Option<DType>, device: Option<Device>) -> Result<Tensor> {
    let t = as_tensor(data, dtype, device)?;
    if t.dim() == 0 {
        return view::unsqueeze(&t, 0);
    }
    Ok(t)
}
/// Indices on the device of the values.
fn indices_of(data: Object, values: &Tensor) -> Result<Tensor> {
    let t = as_tensor(data, None, Some(values.device()))?;
    // An empty list is of the default floating-point dtype.
    if t.dtype().is_float() {
        return elementwise::to_dtype(&t, DType::I64);
    }
    Ok(t)
}
#[allow(clippy::too_many_arguments)]
fn coo(
    indices: Object,
    values: Object,
    size: Option<&[i64]>,
    dtype: Option<DType>,
    device: Option<Device>,
    requires_grad: bool,
    coalesced: Option<bool>,
) -> Result<Tensor> {
    let values = values_of(values, dtype, device)?;
    let indices = indices_of(indices, &values)?;
    with_grad(sparse::sparse_coo_tensor(&indices, &values, size, coalesced)?, requires_grad)
}
fn coo_of_nothing(size: &[i64], dtype: Option<DType>, device: Option<Device>, requires_grad: bool) -> Result<Tensor> {
    let dtype = dtype.unwrap_or_else(flambeau::mode::default_dtype);
    let device = device.or_else(crate::types::default_device_if_set).unwrap_or(Device::Cpu);
    flambeau::core::check_sizes(size, dtype)?;
    with_grad(sparse::empty(TensorLayout::SparseCoo, size, 0, dtype, device)?, requires_grad)
}
#[allow(clippy::too_many_arguments)]
fn compressed(
    layout: TensorLayout,
    pointers: Object,
    indices: Object,
    values: Object,
    size: Option<&[i64]>,
    dtype: Option<DType>,
    device: Option<Device>,
    requires_grad: bool,
    check: Option<bool>,
) -> Result<Tensor> {
    let values = values_of(values, dtype, device)?;
    let (pointers, indices) = (indices_of(pointers, &values)?, indices_of(indices, &values)?);
    let check = check.unwrap_or_else(sparse::check_invariants);
    with_grad(sparse::sparse_compressed_tensor(layout, &pointers, &indices, &values, size, check)?, requires_grad)
}
/// The layout of `sparse_compressed_tensor`.
fn compressed_layout(layout: Option<Layout>) -> Result<TensorLayout> {
    let Some(layout) = layout else {
        bail!(Runtime, "sparse_compressed_tensor expected sparse compressed tensor layout but got none: give layout=");
    };
    let found = layout.core()?;
    ensure!(
        found.is_compressed(),
        Runtime,
        "sparse_compressed_tensor expected sparse compressed tensor layout but got {}",
        found.title()
    );
    Ok(found)
}
/// The parts that an operator of the sparse backends alone looks at.
fn inner(name: &str, t: &Tensor, coo_only: bool) -> Result<Arc<Sparse>> {
    match t.as_sparse() {
        Some(s) if !coo_only || s.layout == TensorLayout::SparseCoo => Ok(s),
        Some(s) => Err(sparse::refused(name, s.layout, t.device())),
        None => bail!(
            NotImplemented,
            "Could not run 'aten::{name}' with arguments from the 'CPU' backend: it is for sparse tensors, and this one is strided."
        ),
    }
}
fn coalesced_parts(name: &str, t: &Tensor) -> Result<Arc<Sparse>> {
    let s = sparse::coo_parts(name, t)?;
    ensure!(s.coalesced, Runtime, "Cannot get {name} on an uncoalesced tensor, please call .coalesce() first");
    Ok(s)
}
fn values(t: &Tensor) -> Result<Tensor> {
    match t.as_sparse() {
        None => bail!(Runtime, "values expected sparse tensor layout but got Strided"),
        Some(s) if s.layout == TensorLayout::SparseCoo => view::alias(&coalesced_parts("values", t)?.values),
        Some(s) => view::alias(&s.values),
    }
}
/// A compressed tensor's pointers, or its other indices.
fn compressed_part(name: &str, t: &Tensor, by_row: bool, pointers: bool) -> Result<Tensor> {
    let kind = if by_row { "row" } else { "column" };
    match t.as_sparse() {
        Some(s) if s.layout.is_compressed() && s.layout.by_row() == by_row => Ok(match (&s.pointers, pointers) {
            (Some(p), true) => p.clone(),
            _ => s.indices.clone(),
        }),
        _ => bail!(Runtime, "{name} expected sparse {kind} compressed tensor layout but got {}", t.layout().title()),
    }
}
fn dims_of(t: &Tensor) -> (i64, i64) {
    let n = t.dim() as i64;
    let Some(s) = t.as_sparse() else { return (0, n) };
    let dense = n - s.sparse_dims() as i64;
    // Batches count as neither.
    (if s.layout.is_compressed() { 2 } else { n - dense }, dense)
}
fn to_sparse(t: &Tensor, layout: Option<Layout>, block: Option<&[i64]>, dense_dim: Option<i64>) -> Result<Tensor> {
    let layout = layout.map_or(Ok(TensorLayout::SparseCoo), Layout::core)?;
    ensure!(
        layout != TensorLayout::Strided,
        Runtime,
        "to_sparse: conversion from {} to Strided is not supported; use to_dense()",
        t.layout().title()
    );
    if layout.is_compressed() {
        return to_compressed(t, layout, block, dense_dim);
    }
    ensure!(block.is_none(), Runtime, "to_sparse: blocksize is not supported for the layout torch.{}", layout.name());
    match dense_dim {
        Some(d) if !t.is_sparse() => {
            let n = t.dim() as i64;
            ensure!((0..=n).contains(&d), Runtime, "to_sparse: dense_dim must be in [0, {n}], got {d}");
            sparse::to_sparse(t, Some(n - d))
        }
        _ => sparse::to_layout(t, layout),
    }
}
fn to_compressed(t: &Tensor, layout: TensorLayout, block: Option<&[i64]>, dense_dim: Option<i64>) -> Result<Tensor> {
    let own = t.as_sparse();
    let block = match block {
        Some(&[height, width]) => Some([height, width]),
        Some(other) => bail!(Runtime, "to_{}: blocksize takes two numbers, got {}", layout.name(), other.len()),
        None if layout.is_blocked() => own.as_ref().and_then(|s| s.block()),
        None => None,
    };
    ensure!(
        layout.is_blocked() || block.is_none(),
        Runtime,
        "to_sparse: blocksize is not supported for the layout torch.{}",
        layout.name()
    );
    ensure!(
        !layout.is_blocked() || block.is_some(),
        Runtime,
        "to_sparse: a blocksize is needed for the layout torch.{}",
        layout.name()
    );
    let has = own.as_ref().map(|s| t.dim() - s.sparse_dims());
    let dense = match (dense_dim, has) {
        (Some(d), None) => {
            let n = t.dim() as i64;
            ensure!(
                d >= 0 && d <= n - 2,
                Runtime,
                "to_{}: dense_dim must be in [0, {}], got {d}",
                layout.name(),
                n - 2
            );
            d as usize
        }
        (Some(_), Some(_)) => {
            bail!(Runtime, "to_{}: dense_dim is for strided tensors; this one is sparse", layout.name())
        }
        (None, has) => has.unwrap_or(0),
    };
    if own.as_ref().is_some_and(|s| s.layout == layout && s.block() == block) {
        return Ok(t.clone());
    }
    sparse::compress(t, layout, block, dense)
}
fn addmm(input: &Tensor, a: &Tensor, b: &Tensor, beta: Number, alpha: Number) -> Result<Tensor> {
    ensure!(
        a.is_sparse() || b.is_sparse() || input.is_sparse(),
        Runtime,
        "sparse.addmm: at least one of the operands must be sparse"
    );
    linalg::addmm(input, a, b, beta, alpha)
}
fn sum(t: &Tensor, dims: Option<&[i64]>, dtype: Option<DType>) -> Result<Tensor> {
    ensure!(t.is_sparse(), Runtime, "sparse.sum: input must be a sparse tensor, got the layout torch.strided");
    sparse::sum(t, dims.unwrap_or(&[]), false, dtype)
}
fn softmax(t: &Tensor, dim: i64, dtype: Option<DType>, log: bool) -> Result<Tensor> {
    if !t.is_sparse() {
        let name = if log { "_sparse_log_softmax" } else { "_sparse_softmax" };
        return Err(err!(
            NotImplemented,
            "Could not run 'aten::{name}' with arguments from the 'CPU' backend: it is for sparse tensors, and this one is strided."
        ));
    }
    sparse::softmax(t, dim, dtype, log)
}
fn mm(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    ensure!(
        a.is_sparse() || b.is_sparse(),
        Runtime,
        "sparse.mm: one of the matrices must be sparse; use mm() for two strided ones"
    );
    linalg::mm(a, b)
}

operators! { SPARSE;
    "sparse_coo_tensor(object indices, object values, int[]? size=None, *, dtype? dtype=None, device? device=None, bool? pin_memory=None, bool requires_grad=False, bool? check_invariants=None, bool? is_coalesced=None)" [function] =>
        |i: Object, v: Object, s: Option<&[i64]>, d: Option<DType>, p: Option<Device>, _pin: Option<bool>, g: bool, _check: Option<bool>, c: Option<bool>| coo(i, v, s, d, p, g, c);
    "sparse_coo_tensor(int[*] size, *, dtype? dtype=None, device? device=None, bool? pin_memory=None, bool requires_grad=False, bool? check_invariants=None, bool? is_coalesced=None)" [function] =>
        |s: &[i64], d: Option<DType>, p: Option<Device>, _pin: Option<bool>, g: bool, _check: Option<bool>, _c: Option<bool>| coo_of_nothing(s, d, p, g);
    "_sparse_coo_tensor_unsafe(object indices, object values, int[]? size=None, *, dtype? dtype=None, device? device=None, bool requires_grad=False, bool? is_coalesced=None)" [function] => coo;
    "sparse_csr_tensor(object crow_indices, object col_indices, object values, int[]? size=None, *, dtype? dtype=None, device? device=None, bool? pin_memory=None, bool requires_grad=False, bool? check_invariants=None)" [function] =>
        |a: Object, b: Object, v: Object, s: Option<&[i64]>, d: Option<DType>, p: Option<Device>, _pin: Option<bool>, g: bool, c: Option<bool>| compressed(TensorLayout::SparseCsr, a, b, v, s, d, p, g, c);
    "sparse_csc_tensor(object ccol_indices, object row_indices, object values, int[]? size=None, *, dtype? dtype=None, device? device=None, bool? pin_memory=None, bool requires_grad=False, bool? check_invariants=None)" [function] =>
        |a: Object, b: Object, v: Object, s: Option<&[i64]>, d: Option<DType>, p: Option<Device>, _pin: Option<bool>, g: bool, c: Option<bool>| compressed(TensorLayout::SparseCsc, a, b, v, s, d, p, g, c);
    "sparse_compressed_tensor(object compressed_indices, object plain_indices, object values, int[]? size=None, *, dtype? dtype=None, layout? layout=None, device? device=None, bool? pin_memory=None, bool requires_grad=False, bool? check_invariants=None)" [function] =>
        |a: Object, b: Object, v: Object, s: Option<&[i64]>, d: Option<DType>, l: Option<Layout>, p: Option<Device>, _pin: Option<bool>, g: bool, c: Option<bool>| compressed(compressed_layout(l)?, a, b, v, s, d, p, g, c);
    "sparse_bsr_tensor(object crow_indices, object col_indices, object values, int[]? size=None, *, dtype? dtype=None, device? device=None, bool? pin_memory=None, bool requires_grad=False, bool? check_invariants=None)" [function] =>
        |a: Object, b: Object, v: Object, s: Option<&[i64]>, d: Option<DType>, p: Option<Device>, _pin: Option<bool>, g: bool, c: Option<bool>| compressed(TensorLayout::SparseBsr, a, b, v, s, d, p, g, c);
    "sparse_bsc_tensor(object ccol_indices, object row_indices, object values, int[]? size=None, *, dtype? dtype=None, device? device=None, bool? pin_memory=None, bool requires_grad=False, bool? check_invariants=None)" [function] =>
        |a: Object, b: Object, v: Object, s: Option<&[i64]>, d: Option<DType>, p: Option<Device>, _pin: Option<bool>, g: bool, c: Option<bool>| compressed(TensorLayout::SparseBsc, a, b, v, s, d, p, g, c);
    "_check_sparse_invariants(bool? enable=None)" [function] => |on: Option<bool>| -> Result<bool> { let old = sparse::check_invariants(); if let Some(on) = on { sparse::set_check_invariants(on); } Ok(old) };
    "indices(Tensor input)" [method] => |t: &Tensor| Ok(coalesced_parts("indices", t)?.indices.clone());
    "values(Tensor input)" [method] => values;
    "_indices(Tensor input)" [method] => |t: &Tensor| Ok(inner("_indices", t, true)?.indices.clone());
    "_values(Tensor input)" [method] => |t: &Tensor| Ok(inner("_values", t, true)?.values.detach());
    "crow_indices(Tensor input)" [method] => |t: &Tensor| compressed_part("crow_indices", t, true, true);
    "col_indices(Tensor input)" [method] => |t: &Tensor| compressed_part("col_indices", t, true, false);
    "ccol_indices(Tensor input)" [method] => |t: &Tensor| compressed_part("ccol_indices", t, false, true);
    "row_indices(Tensor input)" [method] => |t: &Tensor| compressed_part("row_indices", t, false, false);
    "_nnz(Tensor input)" [method] => |t: &Tensor| Ok(inner("_nnz", t, false)?.nnz());
    "is_coalesced(Tensor input)" [method] => |t: &Tensor| Ok(sparse::coo_parts("is_coalesced", t)?.coalesced);
    "coalesce(Tensor input)" [method] => sparse::coalesce;
    "_coalesced_(Tensor input, bool coalesced)" [method] => sparse::set_coalesced;
    "sparse_dim(Tensor input)" [method] => |t: &Tensor| Ok(dims_of(t).0);
    "dense_dim(Tensor input)" [method] => |t: &Tensor| Ok(dims_of(t).1);
    "to_sparse(Tensor input, int sparse_dim)" [method] => |t: &Tensor, d: i64| sparse::to_sparse(t, Some(d));
    "to_sparse(Tensor input, *, layout? layout=None, int[2]? blocksize=None, int? dense_dim=None)" [method] => to_sparse;
    "to_sparse_coo(Tensor input)" [method] => sparse::to_coo;
    "to_sparse_csr(Tensor input, int? dense_dim=None)" [method] => |t: &Tensor, d: Option<i64>| to_compressed(t, TensorLayout::SparseCsr, None, d);
    "to_sparse_csc(Tensor input, int? dense_dim=None)" [method] => |t: &Tensor, d: Option<i64>| to_compressed(t, TensorLayout::SparseCsc, None, d);
    "to_sparse_bsr(Tensor input, int[2] blocksize, int? dense_dim=None)" [method] => |t: &Tensor, b: &[i64], d: Option<i64>| to_compressed(t, TensorLayout::SparseBsr, Some(b), d);
    "to_sparse_bsc(Tensor input, int[2] blocksize, int? dense_dim=None)" [method] => |t: &Tensor, b: &[i64], d: Option<i64>| to_compressed(t, TensorLayout::SparseBsc, Some(b), d);
    "to_dense(Tensor input, dtype? dtype=None, *, bool? masked_grad=None)" [method] => |t: &Tensor, d: Option<DType>, _m: Option<bool>| sparse::to_dense(t, d);
    "sparse_mask(Tensor input, Tensor mask)" [method] => sparse::sparse_mask;
    "sparse_resize_(Tensor input, int[*] size, int sparse_dim, int dense_dim)" [method] => |t: &Tensor, s: &[i64], a: i64, b: i64| sparse::resize_(t, s, a, b, false);
    "sparse_resize_and_clear_(Tensor input, int[*] size, int sparse_dim, int dense_dim)" [method] => |t: &Tensor, s: &[i64], a: i64, b: i64| sparse::resize_(t, s, a, b, true);
    "sparse.mm(Tensor sparse, Tensor dense)" [function out] => mm;
    "sparse.mm(Tensor sparse, Tensor dense, str reduce)" [function] => sparse::mm_reduce;
    "spmm(Tensor input, Tensor mat2)" [function] => mm;
    "hspmm(Tensor mat1, Tensor mat2)" [function out] => sparse::hspmm;
    "smm(Tensor input, Tensor mat2)" [function method] => sparse::smm;
    "sspaddmm(Tensor input, Tensor mat1, Tensor mat2, *, Number beta=1, Number alpha=1)" [function method out] => sparse::sspaddmm;
    "sparse.addmm(Tensor input, Tensor mat1, Tensor mat2, *, Number beta=1, Number alpha=1)" [function out] => addmm;
    "sparse.sampled_addmm(Tensor input, Tensor mat1, Tensor mat2, *, Number beta=1, Number alpha=1)" [function out] => sparse::sampled_addmm;
    "sparse.sum(Tensor input, int[]? dim=None, dtype? dtype=None)" [function] => sum;
    "sparse.softmax(Tensor input, int dim, dtype? dtype=None)" [function] => |t: &Tensor, d: i64, to: Option<DType>| softmax(t, d, to, false);
    "sparse.log_softmax(Tensor input, int dim, dtype? dtype=None)" [function] => |t: &Tensor, d: i64, to: Option<DType>| softmax(t, d, to, true);
    "sparse.spdiags(Tensor diagonals, Tensor offsets, int[] shape, layout? layout=None)" [function] => |d: &Tensor, o: &Tensor, s: &[i64], l: Option<Layout>| sparse::spdiags(d, o, s, l.map_or(Ok(TensorLayout::SparseCoo), Layout::core)?);
}
