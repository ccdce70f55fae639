//! Sparse tensors: coordinates (COO) or compressed rows and columns (CSR, CSC; of blocks BSR, BSC) with their values.
//!
//! A sparse tensor is indices and a tensor of values behind the usual `Tensor` (see [`Sparse`]). It has no memory of its own, so
//! whatever reads memory is refused. An operator that knows sparse operands says so in [`Primitive::sparse`]; `apply_sparse` is
//! where all others are refused. Rules are written with differentiable operators over the values, whose place in the autograd
//! graph is the sparse tensor's own: gradients of any order follow, and the gradient of a sparse tensor is one of its pattern.

mod arithmetic;
mod compressed;
mod convert;
mod product;
mod reduce;
mod shape;

pub use arithmetic::{map, sparse_mask};
use compressed::to_form;
pub use compressed::{compress, sparse_compressed_tensor};
pub use convert::{coalesce, to_coo, to_csc, to_csr, to_dense, to_layout, to_sparse};
pub use product::{addmm, hspmm, linear, matmul, mm_reduce, sampled_addmm, smm, sspaddmm};
pub use reduce::{reduce, softmax, sum};
pub(crate) use shape::view_in_place;
pub use shape::{cat, index_select, narrow, resize_, spdiags, view};

use crate::apply::{check_cast, check_inplace, write_out, Dest, Outputs};
use crate::autograd::{self, GradOptions, Hook};
use crate::ops::{elementwise as e, factory, indexing, view as dense_view};
use crate::primitive::Primitive;
use crate::tensor::{Sparse, Tensor, TensorLayout};
use flambeau_core::*;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

// ---- making them ----------------------------------------------------------------------------------------------------------

/// A COO tensor of parts that are known to fit.
pub fn coo(indices: Tensor, values: Tensor, sizes: &[i64], coalesced: bool) -> Tensor {
    Tensor::from_sparse(sizes, Sparse { layout: TensorLayout::SparseCoo, indices, pointers: None, values, coalesced })
}
/// A compressed tensor of parts that are known to fit.
pub(crate) fn compressed(
    layout: TensorLayout,
    pointers: Tensor,
    indices: Tensor,
    values: Tensor,
    sizes: &[i64],
) -> Tensor {
    Tensor::from_sparse(sizes, Sparse { layout, indices, pointers: Some(pointers), values, coalesced: true })
}
/// The pattern of `s` with other values.
pub(crate) fn with_values(sizes: &[i64], s: &Sparse, values: Tensor) -> Tensor {
    Tensor::from_sparse(sizes, Sparse { values, ..s.clone() })
}
/// No entries.
///
/// # Errors
/// `Runtime` for sizes that cannot be compressed.
pub fn empty(layout: TensorLayout, sizes: &[i64], dense_dims: usize, dtype: DType, device: Device) -> Result<Tensor> {
    let sparse_dims = sizes.len() - dense_dims;
    if layout.is_compressed() {
        ensure!(
            !layout.is_blocked(),
            Runtime,
            "empty: a tensor of blocks without entries has no block size; use torch.sparse_compressed_tensor"
        );
        ensure!(
            sparse_dims >= 2,
            Runtime,
            "compressed sparse tensors have at least two dimensions, got sizes {}",
            Shape(sizes)
        );
        let batch = &sizes[..sparse_dims - 2];
        let part = |more: &[i64]| -> Dims { batch.iter().chain(more).copied().collect() };
        let n = sizes[sparse_dims - if layout.by_row() { 2 } else { 1 }];
        let pointers = factory::zeros(&part(&[n + 1]), DType::I64, device)?;
        let indices = factory::empty(&part(&[0]), DType::I64, device)?;
        let mut shape = part(&[0]);
        shape.extend_from_slice(&sizes[sparse_dims..]);
        let values = factory::empty(&shape, dtype, device)?;
        return Ok(compressed(layout, pointers, indices, values, sizes));
    }
    let mut shape: Dims = SmallVec::from_elem(0, 1);
    shape.extend_from_slice(&sizes[sparse_dims..]);
    let values = factory::empty(&shape, dtype, device)?;
    Ok(coo(factory::empty(&[sparse_dims as i64, 0], DType::I64, device)?, values, sizes, true))
}

/// A COO tensor from indices (sparse dimensions, entries) and values (entries, dense dimensions…); sizes are found from the
/// largest indices unless given. The values keep their place in the graph.
///
/// # Errors
/// `Runtime` for parts that do not fit each other or indices outside the sizes.
pub fn sparse_coo_tensor(
    indices: &Tensor,
    values: &Tensor,
    sizes: Option<&[i64]>,
    coalesced: Option<bool>,
) -> Result<Tensor> {
    let indices = crate::ops::device::to_device(&e::to_dtype(&indices.detach(), DType::I64)?, values.device())?;
    let shape = indices.sizes();
    ensure!(
        !values.is_sparse() && values.dim() >= 1,
        Runtime,
        "values must be a strided tensor of at least one dimension (entries, dense dimensions...)"
    );
    let value_sizes = values.sizes();
    let sparse_dims = shape.first().copied().unwrap_or(0) as usize;
    let dense_dims = value_sizes.len() - 1;
    if let Some(sizes) = sizes {
        ensure!(
            sizes.len() == sparse_dims + dense_dims && !shape.is_empty(),
            Runtime,
            "'len(size) == sparse_dim + dense_dim' is not satisfied: len(size) = {}, sparse_dim = {sparse_dims}, dense_dim = \
             {dense_dims}",
            sizes.len()
        );
        check_sizes(sizes, DType::Bool)?;
    }
    ensure!(shape.len() == 2, Runtime, "indices must be sparse_dim x nnz, but got: {}", Shape(&shape));
    ensure!(
        shape[1] == value_sizes[0],
        Runtime,
        "indices and values must have same nnz, but got nnz from indices: {}, nnz from values: {}",
        shape[1],
        value_sizes[0]
    );
    let positions = indices.to_vec::<i64>()?;
    let n = shape[1] as usize;
    let mut found: Dims = Dims::new();
    for d in 0..sparse_dims {
        let row = &positions[d * n..(d + 1) * n];
        let (least, most) = row.iter().fold((0, -1), |(a, b), &i| (a.min(i), b.max(i)));
        ensure!(least >= 0, Runtime, "found negative index {least} for dim {d}");
        if let Some(sizes) = sizes {
            ensure!(
                most < sizes[d],
                Runtime,
                "size is inconsistent with indices: for dim {d}, size is {} but found index {most}",
                sizes[d]
            );
        }
        found.push(most + 1);
    }
    found.extend_from_slice(&value_sizes[1..]);
    if let Some(sizes) = sizes {
        ensure!(
            sizes[sparse_dims..] == value_sizes[1..],
            Runtime,
            "values has incorrect size, expected {}, got {}",
            Shape(&[&value_sizes[..1], &sizes[sparse_dims..]].concat()),
            Shape(&value_sizes)
        );
    }
    Ok(coo(indices, linked(values)?, sizes.unwrap_or(&found), coalesced.unwrap_or(false)))
}
/// Whether compressed tensors are also checked for the order of their indices where nothing else is said.
static CHECK_INVARIANTS: AtomicBool = AtomicBool::new(false);
/// Whether all invariants of compressed tensors are checked; those that keep reads inside memory always are.
pub fn check_invariants() -> bool {
    CHECK_INVARIANTS.load(Ordering::Relaxed)
}
/// Sets what [`check_invariants`] says.
pub fn set_check_invariants(on: bool) {
    CHECK_INVARIANTS.store(on, Ordering::Relaxed);
}
/// Values that others may hold too, as a sparse tensor's own.
fn linked(values: &Tensor) -> Result<Tensor> {
    if autograd_on(values) {
        dense_view::alias(values)
    } else {
        Ok(values.detach())
    }
}
fn autograd_on(values: &Tensor) -> bool {
    crate::mode::grad_enabled() && values.requires_grad()
}

// ---- looking at them --------------------------------------------------------------------------------------------------------

/// The parts of a sparse tensor.
///
/// # Errors
/// `Runtime` for a dense one.
pub fn parts(name: &str, t: &Tensor) -> Result<Arc<Sparse>> {
    t.as_sparse().ok_or_else(|| err!(Runtime, "{name} expected sparse tensor layout but got Strided"))
}
/// The parts of a COO tensor.
///
/// # Errors
/// `Runtime` for another layout.
pub fn coo_parts(name: &str, t: &Tensor) -> Result<Arc<Sparse>> {
    match t.as_sparse() {
        Some(s) if s.layout == TensorLayout::SparseCoo => Ok(s),
        _ => bail!(Runtime, "{name} expected sparse coordinate tensor layout but got {}", t.layout().title()),
    }
}
impl Sparse {
    /// Number of entries.
    pub fn nnz(&self) -> i64 {
        self.indices.sizes().last().copied().unwrap_or(0)
    }
    /// How many dimensions have indices; of a compressed tensor its batches too.
    pub fn sparse_dims(&self) -> usize {
        if self.layout.is_compressed() {
            self.batch_dims() + 2
        } else {
            self.indices.sizes()[0] as usize
        }
    }
}
/// Rows of indices made on the host, as a tensor (rows, entries).
fn host_indices(rows: &[Vec<i64>], n: i64, device: Device) -> Result<Tensor> {
    let t = Tensor::from_slice(&rows.concat(), &[rows.len() as i64, n])?;
    crate::ops::device::to_device(&t, device)
}
fn host_list(list: &[i64], device: Device) -> Result<Tensor> {
    crate::ops::device::to_device(&Tensor::from_slice(list, &[list.len() as i64])?, device)
}
/// The rows of a COO tensor's indices on the host.
fn host_rows(indices: &Tensor) -> Result<Vec<Vec<i64>>> {
    let shape = indices.sizes();
    let all = indices.to_vec::<i64>()?;
    let n = shape[1] as usize;
    Ok((0..shape[0] as usize).map(|d| all[d * n..(d + 1) * n].to_vec()).collect())
}
/// Positions as numbers in row-major order over `sizes`, on the indices' device.
fn row_major(indices: &Tensor, sizes: &[i64]) -> Result<Tensor> {
    let dims = indices.sizes();
    if dims[0] == 0 {
        return factory::zeros(&[dims[1]], DType::I64, indices.device());
    }
    let mut sum = dense_view::select(indices, 0, 0)?;
    for (d, &n) in sizes.iter().enumerate().take(dims[0] as usize).skip(1) {
        sum = e::add(&e::mul(&sum, n)?, &dense_view::select(indices, 0, d as i64)?)?;
    }
    Ok(sum)
}
/// [`row_major`] on the host, without overflow for any sizes.
fn host_keys(rows: &[Vec<i64>], sizes: &[i64], n: usize) -> Vec<i128> {
    let mut keys = vec![0i128; n];
    for (row, &size) in rows.iter().zip(sizes) {
        for (key, &i) in keys.iter_mut().zip(row) {
            *key = key.wrapping_mul(size as i128).wrapping_add(i as i128);
        }
    }
    keys
}
/// The values of a dense tensor at the entries' positions: (entries, dense dimensions…).
fn values_at(dense: &Tensor, coordinates: &Tensor) -> Result<Tensor> {
    let dims = coordinates.sizes();
    if dims[0] == 0 {
        let mut shape: Dims = SmallVec::from_elem(dims[1], 1);
        shape.extend_from_slice(&dense.sizes());
        return dense_view::expand(&dense_view::unsqueeze(dense, 0)?, &shape);
    }
    let index: Vec<Option<Tensor>> =
        (0..dims[0]).map(|d| dense_view::select(coordinates, 0, d).map(Some)).collect::<Result<_>>()?;
    indexing::index(dense, &index)
}
/// Says that the entries of a COO tensor are, or are not, in order and distinct.
///
/// # Errors
/// `Runtime` for another layout.
pub fn set_coalesced(t: &Tensor, coalesced: bool) -> Result<Tensor> {
    let s = coo_parts("_coalesced_", t)?;
    t.set_sparse(&t.sizes(), Sparse { coalesced, ..(*s).clone() });
    Ok(t.clone())
}
/// Whether two lists of indices are the same.
fn same_indices(a: &Tensor, b: &Tensor) -> Result<bool> {
    Ok(a.is_same(b) || (a.sizes() == b.sizes() && a.to_vec::<i64>()? == b.to_vec::<i64>()?))
}
/// Whether two tensors of one layout have the same entries.
fn same_pattern(a: &Sparse, b: &Sparse) -> Result<bool> {
    let pointers = match (&a.pointers, &b.pointers) {
        (Some(p), Some(q)) => same_indices(p, q)?,
        _ => true,
    };
    Ok(a.layout == b.layout && pointers && same_indices(&a.indices, &b.indices)?)
}
/// The values of `g` at the entries of `s`.
fn project(g: &Tensor, s: &Sparse) -> Result<Tensor> {
    if let Some(of) = g.as_sparse() {
        if of.coalesced && of.values.sizes() == s.values.sizes() && same_pattern(&of, s)? {
            return Ok(of.values.clone());
        }
    }
    s.shaped(&values_at(&to_dense(g, None)?, &s.coordinates()?)?)
}

// ---- the one place where operators meet sparse operands ---------------------------------------------------------------------

/// Runs a primitive with at least one sparse operand by its own rule.
///
/// # Errors
/// `NotImplemented` for an operator without a rule, and the rule's.
pub(crate) fn apply_sparse(op: &dyn Primitive, x: &[&Tensor], dest: Dest) -> Result<Outputs> {
    if let (Some(map), Dest::Inplace(target)) = (op.as_map(), dest) {
        if arithmetic::add_onto(map, x, target)? {
            return Ok(SmallVec::from_iter([target.clone()]));
        }
    }
    let Some(result) = op.sparse(x) else { return Err(refusal(op.name(), x, dest)) };
    let result = result?;
    let out = match dest {
        Dest::New => result,
        Dest::Inplace(target) => {
            store(op.name(), target, &result)?;
            target.clone()
        }
        Dest::Out(targets) => {
            let Some(&target) = targets.first() else { bail!(Runtime, "{}: out= takes one tensor", op.name()) };
            ensure!(
                !(crate::mode::grad_enabled() && (result.requires_grad() || target.requires_grad())),
                Runtime,
                "{}(): functions with out=... arguments don't support automatic differentiation, but one of the arguments requires \
                 grad.",
                op.name()
            );
            if target.is_sparse() {
                replace(op.name(), target, &result)?;
            } else {
                ensure!(!result.is_sparse(), Runtime, "{}: the result is sparse and out= is not", op.name());
                write_out(target, &result)?;
            }
            target.clone()
        }
    };
    Ok(SmallVec::from_iter([out]))
}
/// The error of an operator that does not know sparse operands.
pub fn refusal(name: &str, x: &[&Tensor], dest: Dest) -> Error {
    let target = if let Dest::Inplace(t) = dest { Some(t) } else { None };
    let sparse = x.iter().copied().chain(target).find(|t| t.is_sparse());
    let (layout, device) = sparse.map_or((TensorLayout::Strided, Device::Cpu), |t| (t.layout(), t.device()));
    refused(name, layout, device)
}
/// The error of an operator that does not know a layout.
pub fn refused(name: &str, layout: TensorLayout, device: Device) -> Error {
    let backend = match device {
        Device::Cpu => "CPU",
        Device::Cuda(_) => "CUDA",
        Device::Meta => "Meta",
    };
    let kind = if layout.is_compressed() { "SparseCsr" } else { "Sparse" };
    err!(
        NotImplemented,
        "Could not run 'aten::{name}' with arguments from the '{kind}{backend}' backend: the operator is not defined for the layout \
         torch.{}. Use .to_dense() first.",
        layout.name()
    )
}
/// An in-place result.
fn store(name: &str, target: &Tensor, result: &Tensor) -> Result<()> {
    if !target.is_sparse() {
        ensure!(!result.is_sparse(), Runtime, "{name}_: the result is sparse and the tensor to write is not");
        e::copy_(target, result)?;
        return Ok(());
    }
    if let Some(values) = target.carrier() {
        check_inplace(&values, values.requires_grad() || result.requires_grad())?;
    }
    ensure!(
        target.sizes() == result.sizes(),
        Runtime,
        "output with shape {} doesn't match the broadcast shape {}",
        Shape(&target.sizes()),
        Shape(&result.sizes())
    );
    check_cast(result.dtype(), target.dtype())?;
    replace(name, target, result)
}
fn replace(name: &str, target: &Tensor, result: &Tensor) -> Result<()> {
    let (Some(own), Some(s)) = (target.as_sparse(), result.as_sparse()) else {
        bail!(Runtime, "{name}: the result is dense and the tensor to write is sparse");
    };
    let s = if s.layout == target.layout() { s } else { parts(name, &to_form(result, &own)?)? };
    // The same pattern: the values are written where they are, for whoever else has them, as a leaf its gradient's.
    let tracked = own.values.requires_grad() || s.values.requires_grad();
    if !tracked && own.values.sizes() == s.values.sizes() && same_pattern(&own, &s)? {
        e::copy_(&own.values, &s.values)?;
        target.set_sparse(&result.sizes(), Sparse { coalesced: s.coalesced, ..(*own).clone() });
        target.bump_version();
        return Ok(());
    }
    if !tracked && s.nnz() == 0 {
        e::fill_(&own.values, Number::Int(0))?;
    }
    let values = e::to_dtype(&s.values, target.dtype())?;
    target.set_sparse(&result.sizes(), Sparse { values, ..(*s).clone() });
    target.bump_version();
    Ok(())
}

// ---- gradients ----------------------------------------------------------------------------------------------------------------

/// The gradient of a sparse tensor from that of its values. Entries of one position have one gradient, which is there once.
pub(crate) fn gradient(sizes: &[i64], s: &Sparse, g: Tensor) -> Result<Tensor> {
    if s.coalesced {
        return Ok(with_values(sizes, s, g));
    }
    let keys = host_keys(&host_rows(&s.indices)?, sizes, s.nnz() as usize);
    let mut first: Vec<i64> = (0..s.nnz()).collect();
    first.sort_by_key(|&i| keys[i as usize]);
    first.dedup_by_key(|i| keys[*i as usize]);
    let first = host_list(&first, s.values.device())?;
    Ok(coo(indexing::index_select(&s.indices, 1, &first)?, indexing::index_select(&g, 0, &first)?, sizes, true))
}
/// Replaces the gradient of a sparse leaf.
pub(crate) fn set_gradient(t: &Tensor, grad: Option<Tensor>) -> Result<()> {
    let s = parts("grad", t)?;
    let grad = grad.map(|g| project(&g, &s)).transpose()?;
    s.values.set_grad(grad)
}
/// A hook that is shown the sparse gradient of `t` where its values' arrives.
pub(crate) fn hook_on_values(t: &Tensor, s: &Arc<Sparse>, hook: Hook) -> Hook {
    let (sizes, s) = (t.sizes(), s.clone());
    Arc::new(move |g| match hook(&gradient(&sizes, &s, g.clone())?)? {
        Some(new) => Ok(Some(project(&new, &s)?)),
        None => Ok(None),
    })
}
/// A backward pass from or to sparse tensors, over their values. `None` when there are none.
pub(crate) fn run_backward(
    outputs: &[Tensor],
    grads: &[Option<Tensor>],
    inputs: Option<(&[Tensor], bool)>,
    options: GradOptions,
) -> Option<Result<Vec<Option<Tensor>>>> {
    let wanted = inputs.map_or(&[][..], |(i, _)| i);
    if !outputs.iter().chain(wanted).any(Tensor::is_sparse) {
        return None;
    }
    Some((|| {
        let mut roots = Vec::new();
        let mut cotangents = Vec::new();
        for (i, t) in outputs.iter().enumerate() {
            let given = grads.get(i).cloned().flatten();
            let Some(s) = t.as_sparse() else {
                roots.push(t.clone());
                cotangents.push(given);
                continue;
            };
            ensure!(
                given.is_some() || t.numel() == 1,
                Runtime,
                "grad can be implicitly created only for scalar outputs"
            );
            roots.push(s.values.clone());
            cotangents.push(Some(match given {
                Some(g) => project(&g, &s)?,
                None => factory::ones_like(&s.values)?,
            }));
        }
        let sources: Vec<Tensor> = wanted.iter().map(|t| t.carrier().unwrap_or_else(|| t.clone())).collect();
        let found = autograd::run(&roots, &cotangents, inputs.map(|(_, a)| (&sources[..], a)), options)?;
        found
            .into_iter()
            .zip(wanted)
            .map(|(g, t)| match (g, t.as_sparse()) {
                (Some(g), Some(s)) => gradient(&t.sizes(), &s, g).map(Some),
                (g, _) => Ok(g),
            })
            .collect::<Result<_>>()
    })())
}
