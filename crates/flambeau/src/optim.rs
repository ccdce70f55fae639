//! Optimizers for Rust programs. Each step is one pass over all parameters; formulas and defaults are PyTorch's.
//!
//! ```
//! use flambeau::optim::{AdamW, Optimizer};
//! use flambeau::{ops, Tensor};
//! # fn main() -> flambeau::Result<()> {
//! let x = Tensor::from_slice(&[3.0f32, -2.0], &[2])?;
//! x.set_requires_grad(true)?;
//! let mut optimizer = AdamW::new(vec![x.clone()], 0.1);
//! for _ in 0..200 {
//!     optimizer.zero_grad()?;
//!     ops::reduction::sum(&(&x * &x)?, &[], false)?.backward()?;
//!     optimizer.step()?;
//! }
//! assert!(x.to_vec::<f32>()?.iter().all(|v| v.abs() < 0.01));
//! # Ok(())
//! # }
//! ```

use crate::ops::{factory, optimizer};
use crate::tensor::Tensor;
use flambeau_core::{OptimizerStep, Result};

/// What optimizers have in common.
pub trait Optimizer {
    /// The parameters, in the order given.
    fn parameters(&self) -> &[Tensor];
    /// Updates every parameter that has a gradient.
    ///
    /// # Errors
    /// `Runtime` when a gradient's size or device is not its parameter's.
    fn step(&mut self) -> Result<()>;
    /// Forgets the gradients.
    ///
    /// # Errors
    /// None that a leaf can raise.
    fn zero_grad(&self) -> Result<()> {
        self.parameters().iter().try_for_each(|p| p.set_grad(None))
    }
}

/// A parameter's own state, made when its first gradient comes.
struct State {
    buffers: Vec<Tensor>,
    steps: u64,
}

/// Runs one fused step over the parameters that have gradients, those with equally many steps behind them together.
fn run(
    params: &[Tensor],
    states: &mut [Option<State>],
    buffers: usize,
    step_of: impl Fn(u64) -> OptimizerStep,
) -> Result<()> {
    let mut todo: Vec<(u64, Vec<Vec<Tensor>>)> = Vec::new();
    for (p, state) in params.iter().zip(states.iter_mut()) {
        let Some(g) = p.grad() else { continue };
        if state.is_none() {
            let fresh = (0..buffers).map(|_| factory::zeros_like(&p.detach())).collect::<Result<_>>()?;
            *state = Some(State { buffers: fresh, steps: 0 });
        }
        let Some(state) = state else { continue };
        state.steps += 1;
        let at = match todo.iter().position(|(n, _)| *n == state.steps) {
            Some(at) => at,
            None => {
                todo.push((state.steps, vec![Vec::new(); 2 + buffers]));
                todo.len() - 1
            }
        };
        let lists = &mut todo[at].1;
        lists[0].push(p.detach());
        lists[1].push(g.detach());
        for (list, buffer) in lists[2..].iter_mut().zip(&state.buffers) {
            list.push(buffer.clone());
        }
    }
    todo.iter().try_for_each(|(steps, lists)| optimizer::step(&step_of(*steps), lists))
}

/// Stochastic gradient descent with momentum (Sutskever et al., 2013).
pub struct Sgd {
    params: Vec<Tensor>,
    states: Vec<Option<State>>,
    /// Learning rate; may be changed between steps, as may the others.
    pub lr: f64,
    pub momentum: f64,
    pub dampening: f64,
    pub weight_decay: f64,
    pub nesterov: bool,
}
impl Sgd {
    /// Plain descent; set the fields for momentum and weight decay.
    pub fn new(params: Vec<Tensor>, lr: f64) -> Sgd {
        let states = params.iter().map(|_| None).collect();
        Sgd { params, states, lr, momentum: 0.0, dampening: 0.0, weight_decay: 0.0, nesterov: false }
    }
}
impl Optimizer for Sgd {
    fn parameters(&self) -> &[Tensor] {
        &self.params
    }
    fn step(&mut self) -> Result<()> {
        let Sgd { lr, momentum, dampening, weight_decay, nesterov, .. } = *self;
        let buffers = usize::from(momentum != 0.0);
        run(&self.params, &mut self.states, buffers, |steps| OptimizerStep::Sgd {
            lr,
            momentum,
            dampening,
            weight_decay,
            nesterov,
            maximize: false,
            first: steps == 1,
        })
    }
}

/// Adam with decoupled weight decay (Loshchilov and Hutter, 2019).
pub struct AdamW {
    params: Vec<Tensor>,
    states: Vec<Option<State>>,
    /// Learning rate; may be changed between steps, as may the others.
    pub lr: f64,
    pub betas: (f64, f64),
    pub eps: f64,
    pub weight_decay: f64,
}
impl AdamW {
    /// With PyTorch's defaults: betas 0.9 and 0.999, eps 1e-8, weight decay 0.01.
    pub fn new(params: Vec<Tensor>, lr: f64) -> AdamW {
        let states = params.iter().map(|_| None).collect();
        AdamW { params, states, lr, betas: (0.9, 0.999), eps: 1e-8, weight_decay: 0.01 }
    }
}
impl Optimizer for AdamW {
    fn parameters(&self) -> &[Tensor] {
        &self.params
    }
    fn step(&mut self) -> Result<()> {
        let AdamW { lr, betas, eps, weight_decay, .. } = *self;
        run(&self.params, &mut self.states, 2, |steps| OptimizerStep::Adam {
            lr,
            beta1: betas.0,
            beta2: betas.1,
            eps,
            weight_decay,
            decoupled: true,
            amsgrad: false,
            maximize: false,
            step: steps as f64,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::reduction;

    fn leaf(values: &[f32]) -> Tensor {
        let t = Tensor::from_slice(values, &[values.len() as i64]).unwrap();
        t.set_requires_grad(true).unwrap();
        t
    }

    #[test]
    fn sgd_with_momentum_follows_its_formula() {
        let (x, unused) = (leaf(&[1.0, -2.0]), leaf(&[5.0]));
        let mut optimizer = Sgd { momentum: 0.9, ..Sgd::new(vec![x.clone(), unused.clone()], 0.1) };
        let (mut want, mut buffer) = ([1.0f32, -2.0], [0.0f32; 2]);
        for _ in 0..4 {
            optimizer.zero_grad().unwrap();
            reduction::sum(&(&x * &x).unwrap(), &[], false).unwrap().backward().unwrap();
            optimizer.step().unwrap();
            for i in 0..2 {
                buffer[i] = 0.9 * buffer[i] + 2.0 * want[i];
                want[i] -= 0.1 * buffer[i];
            }
        }
        for (a, b) in x.to_vec::<f32>().unwrap().iter().zip(want) {
            assert!((a - b).abs() < 1e-6, "{a} {b}");
        }
        assert_eq!(unused.to_vec::<f32>().unwrap(), [5.0]);
    }
}
