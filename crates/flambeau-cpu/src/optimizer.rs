//! Optimizer steps, all parameters in one call. Each is one pass over memory, in PyTorch's order of operations.

use crate::convert;
use crate::isa::{dispatch, Isa, Kernel};
use crate::pool;
use flambeau_core::*;

const GRAIN: usize = 8 * 1024;

/// See [`Backend::optimizer`]. Operands are dense, and all of one parameter's have the same layout.
///
/// # Errors
/// `NotImplemented` for parameters that are not real floats.
pub fn optimizer(step: &OptimizerStep, lists: &[&[Operand]]) -> Result<()> {
    let Some(&params) = lists.first() else { bail!(Runtime, "an optimizer step needs a list of parameters") };
    let needed = match step {
        OptimizerStep::Sgd { .. } => 2,
        OptimizerStep::Adam { amsgrad, .. } => 4 + usize::from(*amsgrad),
    };
    for (l, list) in lists.iter().enumerate() {
        let fits = list.len() == params.len() && list.iter().zip(params).all(|(o, p)| o.numel() == p.numel());
        ensure!(
            fits || (list.is_empty() && l >= needed),
            Runtime,
            "optimizer step: list {l} does not fit the parameters"
        );
    }
    ensure!(lists.len() >= needed, Runtime, "optimizer step: {} lists given, {needed} needed", lists.len());
    // One list of pieces over all parameters, so that many small ones share the threads.
    let mut pieces: Vec<(usize, usize, usize)> = Vec::new();
    for (k, p) in params.iter().enumerate() {
        if !p.dtype.is_float() {
            bail!(NotImplemented, "optimizer steps are not implemented for '{}'", p.dtype.title());
        }
        let n = p.numel() as usize;
        pieces.extend((0..n).step_by(GRAIN).map(|lo| (k, lo, (lo + GRAIN).min(n))));
    }
    let total: usize = pieces.iter().map(|(_, lo, hi)| hi - lo).sum();
    let work = |i: usize| {
        let (k, lo, hi) = pieces[i];
        let n = hi - lo;
        let class = params[k].dtype.class();
        if lists.iter().all(|l| l.is_empty() || l[k].dtype == class.dtype()) {
            let at =
                |l: usize| lists.get(l).filter(|l| !l.is_empty()).map(|l| l[k].ptr.wrapping_add(lo * class.size()));
            update(step, class, n, [at(0), at(1), at(2), at(3), at(4)]);
        } else {
            // Half precisions: through a tile in the class.
            let mut tiles = vec![0u64; 5 * n * class.size() / 8 + 8];
            let base = tiles.as_mut_ptr() as *mut u8;
            let mut at = [None; 5];
            for (l, list) in lists.iter().enumerate() {
                if list.is_empty() {
                    continue;
                }
                let o = &list[k];
                let tile = base.wrapping_add(l * n * class.size());
                // SAFETY: the operand is dense with at least `hi` elements; the tile has room for `n` numbers.
                unsafe { convert::load(o.dtype, class, o.ptr.wrapping_add(lo * o.dtype.size()), 1, n, tile) };
                at[l] = Some(tile);
            }
            update(step, class, n, at);
            for (l, list) in lists.iter().enumerate() {
                if let (true, Some(tile)) = (l != 1 && !list.is_empty(), at[l]) {
                    let o = &list[k];
                    // SAFETY: as above, the other way.
                    unsafe { convert::store(o.dtype, class, tile, n, o.ptr.wrapping_add(lo * o.dtype.size()), 1) };
                }
            }
        }
    };
    if total < 2 * GRAIN {
        (0..pieces.len()).for_each(work);
    } else {
        pool::parallel(pieces.len(), work);
    }
    Ok(())
}

fn update(step: &OptimizerStep, class: Class, n: usize, at: [Option<*mut u8>; 5]) {
    if class == Class::F64 {
        dispatch(Update::<f64> { step, n, at: at.map(|p| p.map(|p| p as *mut f64)) });
    } else {
        dispatch(Update::<f32> { step, n, at: at.map(|p| p.map(|p| p as *mut f32)) });
    }
}

struct Update<'s, T> {
    step: &'s OptimizerStep,
    n: usize,
    /// Parameters, gradients, and the state lists.
    at: [Option<*mut T>; 5],
}

macro_rules! update {
    ($T:ident) => {
        impl Kernel for Update<'_, $T> {
            type Out = ();
            #[inline(always)]
            fn run<I: Isa>(self) {
                // SAFETY: `optimizer` hands over `n` elements of each list, which do not overlap one another.
                let slice = |k: usize| self.at[k].map(|p| unsafe { std::slice::from_raw_parts_mut(p, self.n) });
                let (Some(p), Some(g)) = (slice(0), slice(1)) else { return };
                let (p, g) = (&mut p[..self.n], &g[..self.n]);
                // Without weight decay nothing is added: 0 times an infinite parameter would be NaN.
                let decay_with = |wd: $T| move |g: $T, p: $T| if wd != 0.0 { g + wd * p } else { g };
                match *self.step {
                    OptimizerStep::Sgd { lr, momentum, dampening, weight_decay, nesterov, maximize, first } => {
                        let (lr, mu, damp, wd) =
                            (lr as $T, momentum as $T, (1.0 - dampening) as $T, weight_decay as $T);
                        let sign: $T = if maximize { -1.0 } else { 1.0 };
                        let decayed = decay_with(wd);
                        match slice(2) {
                            None => {
                                for i in 0..p.len() {
                                    let d = decayed(sign * g[i], p[i]);
                                    p[i] -= lr * d;
                                }
                            }
                            Some(b) => {
                                let b = &mut b[..p.len()];
                                for i in 0..p.len() {
                                    let d = decayed(sign * g[i], p[i]);
                                    b[i] = if first { d } else { mu * b[i] + damp * d };
                                    let d = if nesterov { d + mu * b[i] } else { b[i] };
                                    p[i] -= lr * d;
                                }
                            }
                        }
                    }
                    OptimizerStep::Adam { lr, beta1, beta2, eps, weight_decay, decoupled, amsgrad, maximize, step } => {
                        let (Some(m), Some(v)) = (slice(2), slice(3)) else { return };
                        let (m, v) = (&mut m[..p.len()], &mut v[..p.len()]);
                        let c1 = 1.0 - beta1.powf(step);
                        let c2 = (1.0 - beta2.powf(step)).sqrt() as $T;
                        let size = (lr / c1) as $T;
                        let (k1, b2, k2) = ((1.0 - beta1) as $T, beta2 as $T, (1.0 - beta2) as $T);
                        let (eps, wd) = (eps as $T, weight_decay as $T);
                        let decay = if decoupled { (1.0 - lr * weight_decay) as $T } else { 1.0 };
                        let wd = if decoupled { 0.0 } else { wd };
                        let sign: $T = if maximize { -1.0 } else { 1.0 };
                        let decayed = decay_with(wd);
                        let top = if amsgrad { slice(4) } else { None };
                        // `x / c2`: the rounded quotient by way of the reciprocal and of the remainder, as a division unit is slow.
                        // An infinite `x` has no remainder.
                        let reciprocal = 1.0 / c2;
                        let whole = I::FMA && c2 > 1e-3;
                        let over_c2 = |x: $T| {
                            let q = x * reciprocal;
                            let corrected = (-q).mul_add(c2, x).mul_add(reciprocal, q);
                            if corrected.is_nan() {
                                q
                            } else {
                                corrected
                            }
                        };
                        // From the nearer end, as `lerp` is defined.
                        let near = k1.abs() < 0.5;
                        let lerp = |m: $T, d: $T| if near { m + k1 * (d - m) } else { d - (d - m) * (1.0 - k1) };
                        match top {
                            None if whole => {
                                for i in 0..p.len() {
                                    let x = p[i] * decay;
                                    let d = decayed(sign * g[i], x);
                                    m[i] = lerp(m[i], d);
                                    v[i] = b2 * v[i] + k2 * d * d;
                                    p[i] = x - (size * m[i]) / (over_c2(v[i].sqrt()) + eps);
                                }
                            }
                            None => {
                                for i in 0..p.len() {
                                    let x = p[i] * decay;
                                    let d = decayed(sign * g[i], x);
                                    m[i] = lerp(m[i], d);
                                    v[i] = b2 * v[i] + k2 * d * d;
                                    p[i] = x - (size * m[i]) / (v[i].sqrt() / c2 + eps);
                                }
                            }
                            Some(top) => {
                                let top = &mut top[..p.len()];
                                for i in 0..p.len() {
                                    let x = p[i] * decay;
                                    let d = decayed(sign * g[i], x);
                                    m[i] = lerp(m[i], d);
                                    v[i] = b2 * v[i] + k2 * d * d;
                                    top[i] = if v[i] > top[i] || v[i].is_nan() { v[i] } else { top[i] };
                                    p[i] = x - (size * m[i]) / (top[i].sqrt() / c2 + eps);
                                }
                            }
                        }
                    }
                }
            }
        }
    };
}
update!(f32);
update!(f64);
