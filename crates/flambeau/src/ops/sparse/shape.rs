//! Shapes of sparse tensors: reordered, cut, joined.

use super::*;
use crate::ops::view::View;

/// The rule of [`View`]. The result has indices of its own: writes do not reach the operand.
pub fn view(op: &View, t: &Tensor) -> Option<Result<Tensor>> {
    if let Some(s) = t.as_sparse().filter(|s| s.layout.is_compressed()) {
        let batch = s.batch_dims();
        return match op {
            View::Alias => Some(Ok(t.detach_keeping_graph())),
            View::Permute(order) => {
                let fixed = |d: usize| order[d] == d;
                if (0..order.len()).all(fixed) {
                    return Some(Ok(t.detach_keeping_graph()));
                }
                let exchanged = order[batch] == batch + 1 && order[batch + 1] == batch;
                let others = (0..order.len()).all(|d| d == batch || d == batch + 1 || fixed(d));
                (exchanged && others).then(|| compressed::flipped(t))
            }
            View::Select(d, i) if *d < batch => Some(compressed::select_batch(t, *d, *i)),
            View::Select(..) => Some(to_coo(t).and_then(|c| view(op, &c).unwrap_or_else(|| Ok(c)))),
            _ => None,
        };
    }
    Some(match op {
        View::Alias => Ok(t.detach_keeping_graph()),
        View::Permute(order) => permute(t, order),
        View::Select(d, i) => select(t, *d, *i),
        View::Slice(d, start, end, step) => slice(t, *d, *start, *end, *step),
        View::Unsqueeze(d) => unsqueeze(t, *d),
        View::Squeeze(dims) => squeeze(t, dims),
        _ => return None,
    })
}
/// [`view`] that changes the tensor itself.
///
/// # Errors
/// `NotImplemented` for a view without a rule, or one to another layout.
pub(crate) fn view_in_place(op: &View, t: &Tensor) -> Result<Tensor> {
    let Some(result) = view(op, t) else { return Err(refused(op.name(), t.layout(), t.device())) };
    let result = result?;
    if result.layout() != t.layout() {
        return Err(refused(op.name(), t.layout(), t.device()));
    }
    if let Some(values) = t.carrier() {
        check_inplace(&values, values.requires_grad())?;
    }
    replace(op.name(), t, &result)?;
    Ok(t.clone())
}
impl Tensor {
    /// Another tensor of the same parts.
    fn detach_keeping_graph(&self) -> Tensor {
        match self.as_sparse() {
            Some(s) => Tensor::from_sparse(&self.sizes(), (*s).clone()),
            None => self.clone(),
        }
    }
}
fn permute(t: &Tensor, order: &[usize]) -> Result<Tensor> {
    let s = coo_parts("permute", t)?;
    let split = s.sparse_dims();
    ensure!(
        order.iter().take(split).all(|&d| d < split),
        Runtime,
        "transpose(sparse): a sparse and a dense dimension cannot be exchanged (sparse_dim = {split}, order {order:?})"
    );
    let old = t.sizes();
    let sizes: Dims = order.iter().map(|&d| old[d]).collect();
    let rows: Vec<i64> = order[..split].iter().map(|&d| d as i64).collect();
    let unchanged = rows.iter().enumerate().all(|(i, &d)| d == i as i64);
    let indices = if unchanged {
        s.indices.clone()
    } else {
        indexing::index_select(&s.indices, 0, &host_list(&rows, s.values.device())?)?
    };
    let inner: Vec<i64> = std::iter::once(0).chain(order[split..].iter().map(|&d| (d - split + 1) as i64)).collect();
    let values = if inner.len() > 2 { dense_view::permute(&s.values, &inner)? } else { s.values.clone() };
    Ok(coo(indices, values, &sizes, s.coalesced && unchanged))
}
/// The entries whose index in a sparse dimension `keep` maps to a new one.
fn filtered(s: &Sparse, d: usize, keep: impl Fn(i64) -> Option<i64>) -> Result<(Vec<Vec<i64>>, Tensor)> {
    let rows = host_rows(&s.indices)?;
    let mut kept: Vec<Vec<i64>> = vec![Vec::new(); rows.len()];
    let mut from = Vec::new();
    for n in 0..s.nnz() as usize {
        if let Some(new) = keep(rows[d][n]) {
            from.push(n as i64);
            for (k, row) in rows.iter().enumerate() {
                kept[k].push(if k == d { new } else { row[n] });
            }
        }
    }
    let values = indexing::index_select(&s.values, 0, &host_list(&from, s.values.device())?)?;
    Ok((kept, values))
}
fn select(t: &Tensor, d: usize, index: i64) -> Result<Tensor> {
    let s = coo_parts("select", t)?;
    let split = s.sparse_dims();
    let mut sizes = t.sizes();
    sizes.remove(d);
    if d >= split {
        let values = dense_view::select(&s.values, (d - split + 1) as i64, index)?;
        return Ok(coo(s.indices.clone(), values, &sizes, s.coalesced));
    }
    let (mut rows, values) = filtered(&s, d, |i| (i == index).then_some(0))?;
    if split == 1 {
        // Nothing sparse is left: what is there, added up.
        return crate::ops::reduction::sum(&values, &[0], false).and_then(|v| e::to_dtype(&v, t.dtype()));
    }
    rows.remove(d);
    let n = values.sizes()[0];
    Ok(coo(host_indices(&rows, n, values.device())?, values, &sizes, s.coalesced))
}
fn slice(t: &Tensor, d: usize, start: i64, end: i64, step: i64) -> Result<Tensor> {
    let s = coo_parts("slice", t)?;
    let split = s.sparse_dims();
    let mut sizes = t.sizes();
    sizes[d] = ((end - start).max(0) + step - 1) / step;
    if d >= split {
        let values = dense_view::slice(&s.values, (d - split + 1) as i64, start, end, step)?;
        return Ok(coo(s.indices.clone(), values, &sizes, s.coalesced));
    }
    let (rows, values) =
        filtered(&s, d, |i| (i >= start && i < end && (i - start) % step == 0).then_some((i - start) / step))?;
    let n = values.sizes()[0];
    Ok(coo(host_indices(&rows, n, values.device())?, values, &sizes, s.coalesced))
}
/// `length` indices of a dimension from `start` on.
///
/// # Errors
/// As [`crate::ops::view::narrow`].
pub fn narrow(t: &Tensor, dim: i64, start: i64, length: i64) -> Result<Tensor> {
    dense_view::narrow(t, dim, start, length)
}
fn unsqueeze(t: &Tensor, d: usize) -> Result<Tensor> {
    let s = coo_parts("unsqueeze", t)?;
    let split = s.sparse_dims();
    let mut sizes = t.sizes();
    sizes.insert(d, 1);
    if d > split {
        let values = dense_view::unsqueeze(&s.values, (d - split + 1) as i64)?;
        return Ok(coo(s.indices.clone(), values, &sizes, s.coalesced));
    }
    let mut rows = host_rows(&s.indices)?;
    rows.insert(d, vec![0; s.nnz() as usize]);
    Ok(coo(host_indices(&rows, s.nnz(), s.values.device())?, s.values.clone(), &sizes, s.coalesced))
}
fn squeeze(t: &Tensor, dims: &[usize]) -> Result<Tensor> {
    let s = coo_parts("squeeze", t)?;
    let split = s.sparse_dims();
    let old = t.sizes();
    let sizes: Dims = (0..old.len()).filter(|d| !dims.contains(d)).map(|d| old[d]).collect();
    let rows = host_rows(&s.indices)?;
    let kept: Vec<Vec<i64>> =
        rows.into_iter().enumerate().filter(|(d, _)| !dims.contains(d)).map(|(_, row)| row).collect();
    let inner: Vec<i64> = dims.iter().filter(|&&d| d >= split).map(|&d| (d - split + 1) as i64).collect();
    let values = if inner.is_empty() { s.values.clone() } else { dense_view::squeeze(&s.values, Some(&inner))? };
    Ok(coo(host_indices(&kept, s.nnz(), values.device())?, values, &sizes, s.coalesced))
}

/// Slices at `index` along a dimension, in the index's order.
///
/// # Errors
/// `Index` for positions out of range.
pub fn index_select(t: &Tensor, d: usize, index: &Tensor) -> Result<Tensor> {
    let form = parts("index_select", t)?;
    let x = to_coo(t)?;
    let s = coo_parts("index_select", &x)?;
    let split = s.sparse_dims();
    let mut sizes = t.sizes();
    let wanted = index.to_vec::<i64>()?;
    let n = sizes[d];
    if let Some(bad) = wanted.iter().find(|i| !(-n..n).contains(*i)) {
        bail!(
            Index,
            "index_select(): index contains {bad} that is out of range for tensor of size {} at dimension {d}",
            Shape(&sizes)
        );
    }
    sizes[d] = wanted.len() as i64;
    if d >= split {
        let values = indexing::index_select(&s.values, (d - split + 1) as i64, index)?;
        return Ok(coo(s.indices.clone(), values, &sizes, s.coalesced));
    }
    let rows = host_rows(&s.indices)?;
    let mut of: std::collections::HashMap<i64, Vec<usize>> = std::collections::HashMap::new();
    rows[d].iter().enumerate().for_each(|(k, &i)| of.entry(i).or_default().push(k));
    let mut kept: Vec<Vec<i64>> = vec![Vec::new(); rows.len()];
    let mut from = Vec::new();
    for (new, &i) in wanted.iter().enumerate() {
        for &k in of.get(&(if i < 0 { i + n } else { i })).map_or(&[][..], |list| &list[..]) {
            from.push(k as i64);
            for (r, row) in rows.iter().enumerate() {
                kept[r].push(if r == d { new as i64 } else { row[k] });
            }
        }
    }
    let device = s.values.device();
    let values = indexing::index_select(&s.values, 0, &host_list(&from, device)?)?;
    let out =
        coo(host_indices(&kept, from.len() as i64, device)?, values, &sizes, s.coalesced && d == 0 && s.nnz() < 2);
    to_form(&out, &form)
}
/// Joins along a dimension.
///
/// # Errors
/// `Runtime` for a dense operand or sizes that differ elsewhere.
pub fn cat(tensors: &[&Tensor], d: usize) -> Result<Tensor> {
    if let Some(i) = tensors.iter().position(|t| !t.is_sparse()) {
        bail!(Runtime, "Concatenating sparse tensors, but a dense tensor was found at position {i}.");
    }
    let form = parts("cat", tensors[0])?;
    let list: Vec<Tensor> = tensors.iter().map(|t| to_coo(t)).collect::<Result<_>>()?;
    let all: Vec<Arc<Sparse>> = list.iter().map(|t| coo_parts("cat", t)).collect::<Result<_>>()?;
    let split = all[0].sparse_dims();
    let mut sizes = list[0].sizes();
    let mut dtype = list[0].dtype();
    for (i, (t, s)) in list.iter().zip(&all).enumerate().skip(1) {
        let other = t.sizes();
        ensure!(
            s.sparse_dims() == split && other.len() == sizes.len(),
            Runtime,
            "All tensors must have the same number of sparse and dense dimensions: {split} and {} of tensor 0, {} and {} of tensor {i}",
            sizes.len() - split,
            s.sparse_dims(),
            other.len() - s.sparse_dims()
        );
        for k in 0..sizes.len() {
            ensure!(
                k == d || other[k] == sizes[k],
                Runtime,
                "Sizes of tensors must match except in dimension {d}. Expected size {} but got size {} for tensor number {i} in the \
                 list.",
                sizes[k],
                other[k]
            );
        }
        sizes[d] += other[d];
        dtype = promote_types(dtype, t.dtype());
    }
    let mut start = 0;
    let (mut indices, mut values) = (Vec::new(), Vec::new());
    for (t, s) in list.iter().zip(&all) {
        let n = t.sizes()[d];
        if d < split {
            let mut rows = host_rows(&s.indices)?;
            rows[d].iter_mut().for_each(|i| *i += start);
            indices.push(host_indices(&rows, s.nnz(), s.values.device())?);
            values.push(e::to_dtype(&s.values, dtype)?);
        } else {
            // Along a dense dimension: every entry's values lie among zeros.
            let after = sizes[d] - start - n;
            let from_last = t.dim() - 1 - d;
            let mut pad = vec![0; 2 * from_last];
            pad.extend([start, after]);
            indices.push(s.indices.clone());
            values.push(crate::ops::join::constant_pad_nd(&e::to_dtype(&s.values, dtype)?, &pad, Number::Int(0))?);
        }
        start += n;
    }
    let out = coo(crate::ops::join::cat(&indices, 1)?, crate::ops::join::cat(&values, 0)?, &sizes, false);
    let out = if d == 0 && split > 0 && all.iter().all(|s| s.coalesced) { mark_coalesced(&out)? } else { out };
    to_form(&out, &form)
}
fn mark_coalesced(t: &Tensor) -> Result<Tensor> {
    let s = parts("cat", t)?;
    Ok(Tensor::from_sparse(&t.sizes(), Sparse { coalesced: true, ..(*s).clone() }))
}
/// Other sizes in place; entries stay unless `clear`.
///
/// # Errors
/// `Runtime` for sizes in which the entries have no place.
pub fn resize_(t: &Tensor, sizes: &[i64], sparse_dims: i64, dense_dims: i64, clear: bool) -> Result<Tensor> {
    let s = coo_parts("sparse_resize_", t)?;
    ensure!(
        sparse_dims >= 0 && dense_dims >= 0 && sparse_dims + dense_dims == sizes.len() as i64,
        Runtime,
        "'len(size) == sparse_dim + dense_dim' is not satisfied: len(size) = {}, sparse_dim = {sparse_dims}, dense_dim = {dense_dims}",
        sizes.len()
    );
    ensure!(!t.requires_grad(), Runtime, "sparse_resize_: cannot resize a tensor that requires grad");
    check_sizes(sizes, DType::Bool)?;
    if clear || s.nnz() == 0 {
        let none = empty(TensorLayout::SparseCoo, sizes, dense_dims as usize, t.dtype(), t.device())?;
        return replace("sparse_resize_", t, &none).map(|()| t.clone());
    }
    let split = s.sparse_dims();
    ensure!(
        sparse_dims as usize == split,
        Runtime,
        "changing the number of sparse dimensions (from {split} to {sparse_dims}) on a non-empty sparse tensor is not supported."
    );
    let old = t.sizes();
    ensure!(
        sizes.iter().zip(&old).all(|(new, old)| new >= old) && sizes.len() == old.len(),
        Runtime,
        "shrinking the size of dimensions (from {} to {}) on a non-empty sparse tensor is not supported.",
        Shape(&old),
        Shape(sizes)
    );
    let mut pad = Vec::new();
    for d in (split..sizes.len()).rev() {
        pad.extend([0, sizes[d] - old[d]]);
    }
    let values = crate::ops::join::constant_pad_nd(&s.values, &pad, Number::Int(0))?;
    let out = coo(s.indices.clone(), values, sizes, s.coalesced);
    replace("sparse_resize_", t, &out).map(|()| t.clone())
}
/// A matrix whose diagonals at `offsets` are the rows of `diagonals`.
///
/// # Errors
/// `Runtime` for parts that do not fit each other.
pub fn spdiags(diagonals: &Tensor, offsets: &Tensor, shape: &[i64], layout: TensorLayout) -> Result<Tensor> {
    let d = if diagonals.dim() == 1 { dense_view::unsqueeze(diagonals, 0)? } else { diagonals.clone() };
    let o = if offsets.dim() == 0 { dense_view::unsqueeze(offsets, 0)? } else { offsets.clone() };
    ensure!(d.dim() == 2, Runtime, "Diagonals must be vector or matrix");
    ensure!(shape.len() == 2, Runtime, "Output shape must be 2d");
    ensure!(o.dim() == 1, Runtime, "Offsets must be scalar or vector");
    ensure!(o.dtype() == DType::I64, Runtime, "Offset Tensor must have dtype Long but got {}", o.dtype().title());
    let offsets = o.to_vec::<i64>()?;
    ensure!(
        d.sizes()[0] == offsets.len() as i64,
        Runtime,
        "Number of diagonals ({}) does not match the number of offsets ({})",
        d.sizes()[0],
        offsets.len()
    );
    ensure!(
        offsets.iter().enumerate().all(|(i, o)| !offsets[..i].contains(o)),
        Runtime,
        "Offset tensor contains duplicate values"
    );
    let width = d.sizes()[1];
    let (mut rows, mut columns, mut from) = (Vec::new(), Vec::new(), Vec::new());
    for (k, &offset) in offsets.iter().enumerate() {
        // Column j of a diagonal holds the element of the matrix's column j.
        for j in 0..width.min(shape[1]) {
            let i = j - offset;
            if (0..shape[0]).contains(&i) {
                rows.push(i);
                columns.push(j);
                from.push(k as i64 * width + j);
            }
        }
    }
    let device = d.device();
    let values = indexing::index_select(&dense_view::reshape(&d, &[-1])?, 0, &host_list(&from, device)?)?;
    let out = coo(host_indices(&[rows, columns], from.len() as i64, device)?, values, shape, false);
    to_layout(&out, layout)
}
