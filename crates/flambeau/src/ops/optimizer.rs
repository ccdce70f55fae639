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
    // Kernels walk memory linearly, so every tensor of a parameter must be dense in the parameter's own order.
    let mut own: Vec<Vec<Tensor>> = Vec::with_capacity(lists.len());
    let mut copies: Vec<(Tensor, Tensor)> = Vec::new();
    for (l, list) in lists.iter().enumerate() {
        let mut dense = Vec::with_capacity(list.len());
        for (p, t) in params.iter().zip(list) {
            let fits = {
                let (pm, tm) = (p.meta(), t.meta());
                ensure!(
                    pm.sizes == tm.sizes,
                    Runtime,
                    "optimizer: sizes {} of a state or gradient do not match its parameter's {}",
                    Shape(&tm.sizes),
                    Shape(&pm.sizes)
                );
                ensure!(
                    pm.device() == tm.device(),
                    Runtime,
                    "optimizer: a state or gradient on {} for a parameter on {}",
                    tm.device(),
                    pm.device()
                );
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
    for (l, list) in lists.iter().enumerate() {
        if l != 1 {
            list.iter().for_each(Tensor::bump_version);
        }
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
        let strides = if dense { m.strides.clone() } else { contiguous_strides(&m.sizes) };
        (strides, m.sizes.clone(), m.dtype, m.device())
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
