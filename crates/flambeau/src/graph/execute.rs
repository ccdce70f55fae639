//! Runs a record by its plan.

use super::plan::{self, Group, PlanStep, Source, Storages};
use super::Recorded;
use crate::apply::{backend, run_operands};
use crate::ops::elementwise::expand_strides;
use crate::profile::Kind;
use crate::tensor::Meta;
use flambeau_core::*;
use std::sync::Arc;

/// Computes what a record owes. On failure the values that could not be computed are poisoned.
pub(super) fn flush(ops: Vec<Recorded>) -> Result<()> {
    let storages = Storages::of(&ops);
    let plan = plan::find(&ops, &storages);
    // The storages that are looked at afterwards; held weakly in spirit: a dead one is let go as soon as its last step ran.
    let live: Vec<Arc<Storage>> = {
        let mut seen = std::collections::HashSet::new();
        ops.iter()
            .flat_map(|r| &r.outputs)
            .filter(|m| storages.live[storages.number(m)] && seen.insert(Arc::as_ptr(&m.storage)))
            .map(|m| m.storage.clone())
            .collect()
    };
    let mut ops: Vec<Option<Recorded>> = ops.into_iter().map(Some).collect();
    let mut failure = None;
    for step in &plan.steps {
        let done = match step {
            PlanStep::Single(i) => single(&ops, *i),
            PlanStep::Fused(group) => fused(&ops, group, None),
            PlanStep::Product { op, group, kept } => fused(&ops, group, Some((*op, *kept))),
        };
        if let Err(e) = done {
            failure = Some(e);
            break;
        }
        match step {
            PlanStep::Single(i) => ops[*i] = None,
            PlanStep::Fused(group) | PlanStep::Product { group, .. } => {
                if let PlanStep::Product { op, .. } = step {
                    ops[*op] = None;
                }
                group.ops.iter().for_each(|&i| ops[i] = None);
                if let Some((r, _)) = group.reduce {
                    ops[r] = None;
                }
            }
        }
    }
    if let Some(e) = &failure {
        for r in ops.iter().flatten() {
            for m in &r.outputs {
                if m.storage.unforced_ptr().is_null() {
                    m.storage.poison(e.clone());
                }
            }
        }
    }
    live.iter().for_each(|s| s.settle());
    failure.map_or(Ok(()), Err)
}

/// Memory for an output that has none yet.
fn prepare(m: &Meta) -> Result<()> {
    if m.storage.unforced_ptr().is_null() {
        m.storage.provide(backend(m.device())?.alloc(m.storage.nbytes())?);
    }
    Ok(())
}

/// A kernel's view of recorded memory, which is not forced.
fn operand(m: &Meta) -> Operand<'_> {
    Operand {
        ptr: m.storage.unforced_ptr().wrapping_offset(m.offset as isize * m.dtype.size() as isize),
        dtype: m.dtype,
        sizes: &m.sizes,
        strides: &m.strides,
        device: m.device(),
    }
}

fn get(ops: &[Option<Recorded>], i: usize) -> Result<&Recorded> {
    ops[i].as_ref().ok_or_else(|| err!(Runtime, "a plan runs a recorded operator twice"))
}

/// An operand as a profile shows it.
fn described(m: &Meta) -> crate::profile::Input {
    crate::profile::Input::Tensor(m.sizes.clone(), m.dtype)
}

fn single(ops: &[Option<Recorded>], i: usize) -> Result<()> {
    let r = get(ops, i)?;
    for m in &r.outputs {
        prepare(m)?;
    }
    let inputs: SmallVec<[Operand; 4]> = r.inputs.iter().map(operand).collect();
    let outputs: SmallVec<[Operand; 2]> = r.outputs.iter().map(operand).collect();
    let device = r.outputs.first().map_or(Device::Cpu, |m| m.device());
    let _span = crate::profile::enter(r.op.name(), Kind::Graph, || r.inputs.iter().map(described).collect());
    run_operands(&*r.op, device, &inputs, &outputs)
        .map_err(|e| e.context(format_args!("recorded operator {}", r.op.name())))
}

/// Runs a group, in the epilogue of `product` where there is one: its operator, and whether the product itself is to be kept.
fn fused(ops: &[Option<Recorded>], group: &Group, product: Option<(usize, bool)>) -> Result<()> {
    let _span = if crate::profile::on() {
        let reduced = group.reduce.map(|(r, _)| r);
        let first = product.map(|p| p.0);
        let members = first.into_iter().chain(group.ops.iter().copied()).chain(reduced).map(|i| get(ops, i));
        let members: Vec<&Recorded> = members.collect::<Result<_>>()?;
        let names: Vec<&str> = members.iter().map(|r| r.op.name()).collect();
        crate::profile::enter(format!("fused({})", names.join(", ")), Kind::Graph, || {
            members.iter().flat_map(|r| r.inputs.iter().map(described)).collect()
        })
    } else {
        None
    };
    let sizes = &get(ops, group.ops[0])?.outputs[0].sizes;
    let device = get(ops, group.ops[0])?.outputs[0].device();
    let mut inputs: SmallVec<[Input; 16]> = SmallVec::new();
    let mut metas: SmallVec<[&Meta; 16]> = SmallVec::new();
    for s in &group.sources {
        match *s {
            Source::Operand(i, k, class) => {
                metas.push(&get(ops, i)?.inputs[k]);
                inputs.push(Input::Operand(class));
            }
            Source::Number(i, position, class) => {
                let number = get(ops, i)?.op.as_map().and_then(|m| m.numbers[position]);
                let number = number.ok_or_else(|| err!(Runtime, "a plan's number is missing from the record"))?;
                inputs.push(Input::Number(number, class));
            }
        }
    }
    let mut strides: SmallVec<[Dims; 16]> = SmallVec::new();
    for m in &metas {
        strides.push(expand_strides(&m.sizes, &m.strides, sizes)?);
    }
    let operands = |product: Option<(&Meta, *mut u8)>| -> SmallVec<[Operand; 16]> {
        let at = |m: &Meta| match product {
            Some((p, ptr)) if Arc::ptr_eq(&p.storage, &m.storage) => ptr,
            _ => operand(m).ptr,
        };
        metas.iter().zip(&strides).map(|(m, s)| Operand { sizes, strides: s, ptr: at(m), ..operand(m) }).collect()
    };
    if let Some((r, value)) = group.reduce {
        let r = get(ops, r)?;
        for m in &r.outputs {
            prepare(m)?;
        }
        let out: SmallVec<[Operand; 2]> = r.outputs.iter().map(operand).collect();
        let program = Program { inputs: &inputs, steps: &group.steps, results: &[value] };
        let reduce = r.op.as_reduce().ok_or_else(|| err!(Runtime, "a plan's reduction is missing from the record"))?;
        return reduce.run_program(backend(device)?, &program, sizes, &operands(None), &out);
    }
    let mut results: SmallVec<[u16; 8]> = SmallVec::new();
    let mut outs: SmallVec<[&Meta; 8]> = SmallVec::new();
    for &(value, i) in &group.results {
        let m = &get(ops, i)?.outputs[0];
        prepare(m)?;
        results.push(value);
        outs.push(m);
    }
    if outs.is_empty() {
        return Ok(());
    }
    // An input may be memory that this very group was to allocate only if it also writes it first: never a load.
    let out: SmallVec<[Operand; 8]> = outs.iter().map(|m| operand(m)).collect();
    let program = Program { inputs: &inputs, steps: &group.steps, results: &results };
    let on = backend(device)?;
    let Some((i, kept)) = product else { return on.map(&program, &operands(None), &out) };
    let r = get(ops, i)?;
    let meta = &r.outputs[0];
    // A product that nobody else reads comes about where a result will replace it, which is not read for something else.
    let shares = |a: &Meta, b: &Meta| Arc::ptr_eq(&a.storage, &b.storage);
    let instead = outs.iter().filter(|m| !kept && m.dtype == meta.dtype && m.strides == meta.strides);
    let instead = instead.copied().find(|m| shares(m, meta) || !metas.iter().any(|x| shares(x, m)));
    if instead.is_none() {
        prepare(meta)?;
    }
    let place = Operand { ptr: instead.map_or(operand(meta), |m| operand(m)).ptr, ..operand(meta) };
    let x = operands(Some((meta, place.ptr)));
    let inputs: SmallVec<[Operand; 4]> = r.inputs.iter().map(operand).collect();
    let multiply = r.op.as_product().ok_or_else(|| err!(Runtime, "a plan's product is missing from the record"))?;
    multiply.run_then(on, &inputs, &[place], Some(Then { program: &program, x: &x, out: &out }))
}
