//! Optimizer steps: all parameters of a group in one pass over memory, without gradients.

use crate::apply::backend;
use crate::mode;
use crate::tensor::{Meta, Tensor};
use flambeau_core::*;
use parking_lot::RwLockReadGuard;

/// Runs one step over lists of tensors (parameters, gradients, then the step's own buffers; see [`OptimizerStep`]). Everything
/// but the gradients is written in place.
///
/// # Errors
/// `Runtime` when the lists do not match in length, sizes or device.
pub fn step(step: &OptimizerStep, lists: &[Vec<Tensor>]) -> Result<()> {
    let Some(params) = lists.first() else { return Ok(()) };
    if params.is_empty() {
        return Ok(());
    }
    for list in &lists[1..] {
        ensure!(
            list.is_empty() || list.len() == params.len(),
            Runtime,
            "optimizer: a list of {} tensors for {} parameters",
            list.len(),
            params.len()
        );
    }
    let _off = mode::no_grad();
    if mode::current() & mode::RECORD != 0 {
        // The step reads and writes memory at once: what is recorded must be there.
        crate::graph::flush()?;
    }
    if !step_in_place(step, lists)? {
        step_in_copies(step, lists)?;
    }
    for (l, list) in lists.iter().enumerate() {
        if l != 1 {
            list.iter().for_each(Tensor::bump_version);
        }
    }
    Ok(())
}

/// Refuses a state or gradient `t` that does not belong to the parameter `p`.
fn matches(p: &Meta, t: &Meta) -> Result<()> {
    ensure!(
        p.sizes == t.sizes,
        Runtime,
        "optimizer: sizes {} of a state or gradient do not match its parameter's {}",
        Shape(&t.sizes),
        Shape(&p.sizes)
    );
    ensure!(
        p.device() == t.device(),
        Runtime,
        "optimizer: a state or gradient on {} for a parameter on {}",
        t.device(),
        p.device()
    );
    Ok(())
}

/// The usual step: all on one device, every tensor dense in its parameter's own order and of its dtype (kernels walk memory
/// linearly). Returns false, with nothing done, where that is not so.
fn step_in_place(step: &OptimizerStep, lists: &[Vec<Tensor>]) -> Result<bool> {
    let guards: SmallVec<[RwLockReadGuard<'_, Meta>; 16]> = lists.iter().flatten().map(Tensor::meta).collect();
    let n = lists[0].len();
    let (params, states) = guards.split_at(n);
    let device = params[0].device();
    for (i, t) in states.iter().enumerate() {
        let p = &params[i % n];
        matches(p, t)?;
        if t.strides != p.strides || t.dtype != p.dtype {
            return Ok(false);
        }
    }
    if params.iter().any(|p| p.device() != device || !is_non_overlapping_and_dense(&p.sizes, &p.strides)) {
        return Ok(false);
    }
    let operands: SmallVec<[Operand<'_>; 16]> = guards.iter().map(|m| m.operand()).collect::<Result<_>>()?;
    let mut rest = &operands[..];
    let views: SmallVec<[&[Operand<'_>]; 6]> = lists
        .iter()
        .map(|list| {
            let (own, others) = rest.split_at(list.len());
            rest = others;
            own
        })
        .collect();
    backend(device)?.optimizer(step, &views)?;
    Ok(true)
}

/// The same where some tensors must be copied into their parameter's order or dtype and back, or lie on several devices.
fn step_in_copies(step: &OptimizerStep, lists: &[Vec<Tensor>]) -> Result<()> {
    let params = &lists[0];
    let mut own: Vec<Vec<Tensor>> = Vec::with_capacity(lists.len());
    let mut copies: Vec<(Tensor, Tensor)> = Vec::new();
    for (l, list) in lists.iter().enumerate() {
        let mut dense = Vec::with_capacity(list.len());
        for (p, t) in params.iter().zip(list) {
            let fits = {
                let (pm, tm) = (p.meta(), t.meta());
                matches(&pm, &tm)?;
                tm.strides == pm.strides && is_non_overlapping_and_dense(&pm.sizes, &pm.strides) && tm.dtype == pm.dtype
            };
            if fits {
                dense.push(t.clone());
            } else {
                let target = target_like(p)?;
                crate::ops::elementwise::copy_(&target, t)?;
                if l != 1 {
                    copies.push((t.clone(), target.clone()));
                }
                dense.push(target);
            }
        }
        own.push(dense);
    }
    // A parameter without dense memory was itself copied: then all its tensors were, into the same order.
    for device in devices(params) {
        let pick: Vec<usize> = (0..params.len()).filter(|&i| params[i].device() == device).collect();
        let guards: Vec<Vec<RwLockReadGuard<'_, Meta>>> =
            own.iter().map(|l| pick.iter().filter_map(|&i| l.get(i)).map(Tensor::meta).collect()).collect();
        let operands: Vec<Vec<Operand<'_>>> =
            guards.iter().map(|l| l.iter().map(|m| m.operand()).collect::<Result<_>>()).collect::<Result<_>>()?;
        let views: Vec<&[Operand<'_>]> = operands.iter().map(Vec::as_slice).collect();
        backend(device)?.optimizer(step, &views)?;
    }
    for (original, copy) in copies {
        crate::ops::elementwise::copy_(&original, &copy)?;
    }
    Ok(())
}

/// Dense memory in the order that a copy of this parameter has.
fn target_like(p: &Tensor) -> Result<Tensor> {
    let (strides, sizes, dtype, device) = {
        let m = p.meta();
        let dense = is_non_overlapping_and_dense(&m.sizes, &m.strides);
        let strides = if dense { copy_dims(&m.strides) } else { contiguous_strides(&m.sizes) };
        (strides, copy_dims(&m.sizes), m.dtype, m.device())
    };
    let storage = crate::apply::allocate(numel(&sizes) as usize * dtype.size(), device)?;
    Ok(Tensor::from_storage(storage, dtype, &sizes, &strides, 0))
}

fn devices(params: &[Tensor]) -> Vec<Device> {
    let mut out: Vec<Device> = Vec::new();
    for p in params {
        if !out.contains(&p.device()) {
            out.push(p.device());
        }
    }
    out
}
