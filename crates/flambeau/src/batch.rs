//! `vmap`: operators over tensors that stand for one example of a batch. A primitive with a rule of its own handles the
//! whole batch at once; any other runs example by example and the results are stacked.

use crate::apply::{apply_shared, Dest, Outputs};
use crate::autograd::GradOptions;
use crate::ops::{join, view};
use crate::primitive::{Effect, Primitive};
use crate::tensor::Tensor;
use flambeau_core::*;
use std::cell::RefCell;
use std::sync::Arc;

/// What random operators do inside a level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Randomness {
    /// They raise an error.
    Error,
    /// Every example draws its own numbers.
    Different,
    /// All examples share what is drawn.
    Same,
}

/// An open level.
#[derive(Clone, Copy)]
struct Level {
    size: i64,
    randomness: Randomness,
}

thread_local! {
    // The levels that are open, innermost last; level k is at index k - 1.
    static LEVELS: RefCell<Vec<Level>> = const { RefCell::new(Vec::new()) };
}

/// Opens a level of `vmap` over `size` examples; returns its number, from 1.
pub fn enter(size: i64, randomness: Randomness) -> u32 {
    LEVELS.with(|l| {
        l.borrow_mut().push(Level { size, randomness });
        l.borrow().len() as u32
    })
}
/// The innermost level and its number of examples.
pub fn innermost() -> Option<(u32, i64)> {
    LEVELS.with(|l| l.borrow().last().map(|level| (l.borrow().len() as u32, level.size)))
}
/// Closes the innermost level until dropped, while its examples run one by one.
pub struct Suspended(Level);
/// [`Suspended`]; `None` outside `vmap`.
pub fn suspend() -> Option<Suspended> {
    LEVELS.with(|l| l.borrow_mut().pop().map(Suspended))
}
impl Drop for Suspended {
    fn drop(&mut self) {
        LEVELS.with(|l| l.borrow_mut().push(self.0));
    }
}
/// Example `i` of a tensor that is batched at `level`, any other as it is.
///
/// # Errors
/// `Index` when there is no such example.
pub fn example(t: &Tensor, level: u32, i: i64) -> Result<Tensor> {
    match t.as_batched() {
        Some(b) if b.level == level => view::select(&b.value, b.dim as i64, i),
        _ => Ok(t.clone()),
    }
}
/// The examples as one batch at `level`.
///
/// # Errors
/// Those of [`join::stack`]: examples of different sizes.
pub fn collect(examples: &[Tensor], level: u32) -> Result<Tensor> {
    Ok(Tensor::batched(&join::stack(examples, 0)?, 0, level))
}

const REFUSED: &str =
    "vmap: called random operation while in randomness error mode. Please either use the 'same' or 'different' \
                       randomness flags on vmap or perform the randomness operation out of vmap";

/// Empty memory in an example's size for random numbers: for all examples where each draws its own.
///
/// # Errors
/// `Runtime` where a level refuses random operators.
pub fn random_empty(sizes: &[i64], strides: &[i64], dtype: DType, device: Device) -> Result<Tensor> {
    let levels = LEVELS.with(|l| l.borrow().clone());
    ensure!(levels.iter().all(|l| l.randomness != Randomness::Error), Runtime, "{REFUSED}");
    if levels.iter().all(|l| l.randomness == Randomness::Same) {
        return crate::ops::factory::empty_strided(sizes, strides, dtype, device);
    }
    let own = || levels.iter().enumerate().filter(|(_, l)| l.randomness == Randomness::Different);
    let mut shape: Dims = own().map(|(_, l)| l.size).collect();
    shape.extend_from_slice(sizes);
    let mut t = crate::ops::factory::empty(&shape, dtype, device)?;
    for (k, _) in own() {
        t = Tensor::batched(&t, 0, k as u32 + 1);
    }
    Ok(t)
}
/// The memory behind `t` that a random operator fills in place; none where examples are to share what is drawn, which is then copied
/// into each.
///
/// # Errors
/// `Runtime` where a level refuses random operators, `Batch` where it would have to give examples that share memory different numbers.
pub(crate) fn random_target(t: &Tensor) -> Result<Option<Tensor>> {
    let levels = LEVELS.with(|l| l.borrow().clone());
    ensure!(levels.iter().all(|l| l.randomness != Randomness::Error), Runtime, "{REFUSED}");
    let mut t = t.clone();
    for (k, level) in levels.iter().enumerate().rev() {
        let (value, dim) = unwrap(&t, k as u32 + 1);
        if level.randomness == Randomness::Same {
            if dim.is_some() {
                return Ok(None);
            }
        } else {
            ensure!(
                dim.is_some(),
                Batch,
                "vmap: Cannot ask for different inplace randomness on an unbatched tensor. This will appear like same randomness: make \
                 the tensor from one that is mapped over, or draw the numbers out of place"
            );
        }
        t = value;
    }
    Ok(Some(t))
}
/// Closes a level and those inside it.
pub fn exit(level: u32) {
    LEVELS.with(|l| l.borrow_mut().truncate(level.saturating_sub(1) as usize));
}
/// A tensor as one example of dimension `dim`.
///
/// # Errors
/// `Index` when there is no such dimension.
pub fn add_batch_dim(t: &Tensor, dim: i64, level: u32) -> Result<Tensor> {
    let dim = wrap_dim(dim, t.dim())?;
    ensure!(t.dim() > 0, Value, "vmap: a tensor with no dimensions cannot be mapped over dimension {dim}");
    Ok(Tensor::batched(t, dim, level))
}
/// The whole batch behind an example, its batch dimension at `out_dim`; a tensor that does not depend on the batch is
/// repeated.
///
/// # Errors
/// `Index` when there is no such dimension.
pub fn remove_batch_dim(t: &Tensor, level: u32, size: i64, out_dim: i64) -> Result<Tensor> {
    let rank = t.dim() + 1;
    let out = wrap_dim(out_dim, rank)?;
    match t.as_batched() {
        Some(b) if b.level == level => view::movedim(&b.value, &[b.dim as i64], &[out as i64]),
        _ => {
            let mut sizes = t.sizes();
            sizes.insert(out, size);
            view::expand(&view::unsqueeze(t, out as i64)?, &sizes)
        }
    }
}
/// The tensor as an example at every open level, so that each example can have its own gradient.
///
/// # Errors
/// Those of expanding it.
pub fn lift(t: &Tensor) -> Result<Tensor> {
    let sizes: Vec<i64> = LEVELS.with(|l| l.borrow().iter().map(|l| l.size).collect());
    lift_to(t, &sizes)
}
fn lift_to(t: &Tensor, sizes: &[i64]) -> Result<Tensor> {
    let Some((&size, rest)) = sizes.split_last() else { return Ok(t.clone()) };
    let level = sizes.len() as u32;
    if let Some(b) = t.as_batched() {
        if b.level == level {
            return Ok(Tensor::batched(&lift_to(&b.value, rest)?, b.dim, level));
        }
    }
    let t = lift_to(t, rest)?;
    let mut shape = t.sizes();
    shape.insert(0, size);
    let value = view::clone(&view::expand(&view::unsqueeze(&t, 0)?, &shape)?)?;
    Ok(Tensor::batched(&value, 0, level))
}

fn level_of(t: &Tensor) -> u32 {
    t.as_batched().map_or(0, |b| b.level)
}
/// A tensor's whole batch at `level`, and where its batch dimension is.
fn unwrap(t: &Tensor, level: u32) -> (Tensor, Option<usize>) {
    match t.as_batched() {
        Some(b) if b.level == level => (b.value.clone(), Some(b.dim)),
        _ => (t.clone(), None),
    }
}

/// Runs a primitive with at least one batched operand.
pub(crate) fn apply_batched(op: Arc<dyn Primitive>, x: &[&Tensor], dest: Dest) -> Result<Outputs> {
    let mut level = x.iter().map(|t| level_of(t)).max().unwrap_or(0);
    if let Dest::Inplace(t) = dest {
        level = level.max(level_of(t));
    }
    let operands: SmallVec<[(Tensor, Option<usize>); 4]> = x.iter().map(|t| unwrap(t, level)).collect();
    let size = operands
        .iter()
        .find_map(|(t, b)| b.map(|b| t.sizes()[b]))
        .or_else(|| match dest {
            Dest::Inplace(t) => t.as_batched().map(|b| b.value.sizes()[b.dim]),
            _ => None,
        })
        .unwrap_or(0);
    match dest {
        Dest::New => {
            if let Some(result) = op.batch(&operands, level) {
                return Ok(result?.into_iter().map(|(t, dim)| Tensor::batched(&t, dim, level)).collect());
            }
            ensure!(size > 0, Runtime, "vmap: {} over a batch of size 0 is not supported", op.name());
            let mut columns: Vec<Vec<Tensor>> = Vec::new();
            for i in 0..size {
                let slices: SmallVec<[Tensor; 4]> = slices(&operands, i)?;
                let refs: SmallVec<[&Tensor; 4]> = slices.iter().collect();
                for (k, out) in apply_shared(op.clone(), &refs, Dest::New)?.into_iter().enumerate() {
                    if columns.len() <= k {
                        columns.push(Vec::new());
                    }
                    columns[k].push(out);
                }
            }
            columns.iter().map(|c| Ok(Tensor::batched(&join::stack(c, 0)?, 0, level))).collect()
        }
        Dest::Inplace(target) => {
            let (value, dim) = unwrap(target, level);
            let Some(dim) = dim else {
                bail!(
                    Batch,
                    "vmap: inplace arithmetic(self, *extra_args) is not possible because there exists a Tensor `other` in \
                     extra_args that has more elements than `self`. This happened due to `other` being vmapped over but `self` \
                     not being vmapped over at level {level} (operator {}). Please try to use out-of-place operators instead.",
                    op.name()
                );
            };
            // The whole batch at once, where the operator has a rule and its results fit.
            if op.effect() == Effect::Elementwise && !operands.iter().any(|(t, _)| t.requires_grad()) {
                if let Some(Ok(results)) = op.batch(&operands, level) {
                    if let [(y, from)] = &results[..] {
                        let whole = view::movedim(&value, &[dim as i64], &[0])?;
                        let y = view::movedim(y, &[*from as i64], &[0])?;
                        if y.sizes() == whole.sizes() && y.dtype() == whole.dtype() {
                            crate::ops::elementwise::copy_(&whole, &y)?;
                            return Ok(SmallVec::from_iter([target.clone()]));
                        }
                    }
                }
            }
            for i in 0..size {
                let part = view::select(&value, dim as i64, i)?;
                let mut parts: SmallVec<[Tensor; 4]> = SmallVec::new();
                for (t, (v, b)) in x.iter().zip(&operands) {
                    parts.push(if t.is_same(target) {
                        part.clone()
                    } else {
                        match b {
                            Some(b) => view::select(v, *b as i64, i)?,
                            None => v.clone(),
                        }
                    });
                }
                let refs: SmallVec<[&Tensor; 4]> = parts.iter().collect();
                apply_shared(op.clone(), &refs, Dest::Inplace(&part))?;
            }
            Ok(SmallVec::from_iter([target.clone()]))
        }
        Dest::Out(_) => Err(err!(Runtime, "vmap: {}(..., out=) is not supported inside vmap", op.name())),
    }
}

fn slices(operands: &[(Tensor, Option<usize>)], i: i64) -> Result<SmallVec<[Tensor; 4]>> {
    operands
        .iter()
        .map(|(t, b)| match b {
            Some(b) => view::select(t, *b as i64, i),
            None => Ok(t.clone()),
        })
        .collect()
}

/// A backward pass over examples: each example's gradient, computed for the batch at once. `None` when nothing is batched.
pub(crate) fn run_backward(
    outputs: &[Tensor],
    grads: &[Option<Tensor>],
    inputs: Option<(&[Tensor], bool)>,
    options: GradOptions,
) -> Option<Result<Vec<Option<Tensor>>>> {
    let wanted = inputs.map_or(&[][..], |(i, _)| i);
    let level = outputs.iter().chain(wanted).map(level_of).max().unwrap_or(0);
    if level == 0 {
        return None;
    }
    Some((|| {
        let mut values = Vec::new();
        let mut cotangents = Vec::new();
        for (i, t) in outputs.iter().enumerate() {
            let (value, dim) = unwrap(t, level);
            let given = grads.get(i).cloned().flatten();
            let cotangent = match (dim, given) {
                (None, g) => g,
                (Some(_), None) => {
                    ensure!(t.numel() == 1, Runtime, "grad can be implicitly created only for scalar outputs");
                    Some(crate::ops::factory::ones_like(&value)?)
                }
                (Some(dim), Some(g)) => Some(match unwrap(&g, level) {
                    (g, Some(d)) => view::movedim(&g, &[d as i64], &[dim as i64])?,
                    (g, None) => view::expand(&view::unsqueeze(&g, dim as i64)?, &value.sizes())?,
                }),
            };
            values.push(value);
            cotangents.push(cotangent);
        }
        let sources: Vec<(Tensor, Option<usize>)> = wanted.iter().map(|t| unwrap(t, level)).collect();
        let tensors: Vec<Tensor> = sources.iter().map(|(t, _)| t.clone()).collect();
        let found = crate::autograd::run(&values, &cotangents, inputs.map(|(_, a)| (&tensors[..], a)), options)?;
        Ok(found
            .into_iter()
            .zip(&sources)
            .map(|(g, (_, dim))| match (g, dim) {
                (Some(g), Some(dim)) => Some(Tensor::batched(&g, *dim, level)),
                (g, _) => g,
            })
            .collect())
    })())
}
