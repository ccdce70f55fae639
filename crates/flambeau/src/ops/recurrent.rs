//! Recurrent layers.

use crate::apply::{apply, Dest};
use crate::autograd::node::Vjp;
use crate::ops::elementwise as e;
use crate::ops::{factory, join, linalg, view};
use crate::primitive::*;
use crate::tensor::{Meta, Tensor};
use flambeau_core::*;

/// Gates (steps, n, 4h), hidden state and cell (n, h), weight (4h, h) → hidden states (steps, n, h), last cell, and for the
/// gradient all cells and the gates' activations.
#[derive(Clone)]
struct Lstm {
    reverse: bool,
}
impl Primitive for Lstm {
    fn name(&self) -> &'static str {
        "lstm"
    }
    fn infer(&self, x: &[&Meta], out: &mut Draft) -> Result<()> {
        let [gates, h0, c0, w] = x else { return Err(err!(Runtime, "lstm: expected four operands, got {}", x.len())) };
        ensure!(
            gates.dtype == DType::F32 || gates.dtype == DType::F64,
            NotImplemented,
            "\"lstm\" not implemented for '{}'",
            gates.dtype.title()
        );
        ensure!(
            gates.sizes.len() == 3
                && w.sizes.len() == 2
                && gates.sizes[2] == w.sizes[0]
                && w.sizes[0] == 4 * w.sizes[1],
            Runtime,
            "lstm: expected gates (steps, batch, 4 * hidden) and a weight (4 * hidden, hidden), got sizes {} and {}",
            Shape(&gates.sizes),
            Shape(&w.sizes)
        );
        let (steps, n, h) = (gates.sizes[0], gates.sizes[1], w.sizes[1]);
        for (what, state) in [("hidden state", h0), ("cell", c0)] {
            ensure!(
                state.sizes[..] == [n, h],
                Runtime,
                "lstm: expected a {what} of size {}, got {}",
                Shape(&[n, h]),
                Shape(&state.sizes)
            );
        }
        for operand in [h0, c0, w] {
            ensure!(
                operand.dtype == gates.dtype,
                Runtime,
                "lstm: expected operands of one dtype, got {} and {}",
                gates.dtype,
                operand.dtype
            );
        }
        // Sequences lie as the gates do, so that batch-first layers stay batch-first in memory.
        let along = |width: i64| {
            if gates.strides[0] < gates.strides[1] {
                [width, steps * width, 1]
            } else {
                [n * width, width, 1]
            }
        };
        out.push_strided([steps, n, h].as_slice(), along(h).as_slice(), gates.dtype);
        out.push([n, h].as_slice(), gates.dtype);
        for width in [h, 4 * h] {
            out.push_strided([steps, n, width].as_slice(), along(width).as_slice(), gates.dtype);
            if let Some(o) = out.outputs.last_mut() {
                o.differentiable = false;
            }
        }
        Ok(())
    }
    fn run(&self, on: &dyn Backend, x: &[Operand], out: &[Operand]) -> Result<()> {
        on.lstm(&x[0], &x[1], &x[2], &x[3], self.reverse, &out[0], &out[1], &out[2], &out[3])
    }
    fn saves(&self, _: Mask) -> Mask {
        0b1111 | output_bit(0) | output_bit(2) | output_bit(3)
    }
    fn vjp(&self, cx: &Vjp, g: &[Option<Tensor>]) -> Result<Gradients> {
        let mut grads: Gradients = SmallVec::from_elem(None, cx.len());
        if g[0].is_none() && g[1].is_none() {
            return Ok(grads);
        }
        let (gates, h0, c0, w) = (cx.input(0)?, cx.input(1)?, cx.input(2)?, cx.input(3)?);
        let cotangent = |i: usize| match &g[i] {
            Some(g) => Ok(g.clone()),
            None => {
                let o = cx.output_info(i);
                factory::zeros(&o.sizes, o.dtype, o.device)
            }
        };
        let (g_out, g_last) = (cotangent(0)?, cotangent(1)?);
        if crate::mode::grad_enabled() {
            return self.differentiable_vjp([&gates, &h0, &c0, &w], &g_out, &g_last);
        }
        let (out, cells, active) = (cx.output(0)?, cx.output(2)?, cx.output(3)?);
        let (g_out, g_last) = (rows_adjacent(&g_out)?, view::contiguous(&g_last)?);
        let operands = [&g_out, &g_last, &active, &cells, &c0, &w];
        let mut found = apply(LstmGrad { reverse: self.reverse }, &operands, Dest::New)?.into_iter();
        let (g_gates, g_h0, g_c0) = (found.next(), found.next(), found.next());
        if let (true, Some(g_gates)) = (cx.needs(3), &g_gates) {
            // One product over all steps, with the hidden state that each step began with.
            let steps = out.sizes()[0];
            let h0 = view::unsqueeze(&h0, 0)?;
            let before = if self.reverse {
                [view::narrow(&out, 0, 1, steps - 1)?, h0]
            } else {
                [h0, view::narrow(&out, 0, 0, steps - 1)?]
            };
            let m = gates.meta();
            let batch_first = m.strides[0] < m.strides[1];
            drop(m);
            let swap = |t: &Tensor| if batch_first { view::transpose(t, 0, 1) } else { Ok(t.clone()) };
            let before = join::cat(&[swap(&before[0])?, swap(&before[1])?], i64::from(batch_first))?;
            let sizes = w.sizes();
            let rows = view::reshape(&swap(g_gates)?, &[-1, sizes[0]])?;
            grads[3] = Some(linalg::mm(&view::t(&rows)?, &view::reshape(&before, &[-1, sizes[1]])?)?);
        }
        for (slot, value) in grads.iter_mut().zip([g_gates, g_h0, g_c0]) {
            *slot = value;
        }
        Ok(grads)
    }
    fn key(&self, key: &mut PlanKey) {
        key.word(self.reverse as u64);
    }
    crate::shareable!();
}

impl Lstm {
    /// The gradients composed of differentiable operators, step by step, to be differentiated again.
    fn differentiable_vjp(&self, x: [&Tensor; 4], g_out: &Tensor, g_last: &Tensor) -> Result<Gradients> {
        let [gates, h0, c0, w] = x;
        let steps = gates.sizes()[0];
        let order: Vec<i64> = if self.reverse { (0..steps).rev().collect() } else { (0..steps).collect() };
        struct Step {
            active: Vec<Tensor>,
            before: (Tensor, Tensor),
            tanh: Tensor,
        }
        let (mut h, mut c, mut made) = (h0.clone(), c0.clone(), Vec::new());
        for &t in &order {
            let z = e::add(&view::select(gates, 0, t)?, &linalg::mm(&h, &view::t(w)?)?)?;
            let z = view::chunk(&z, 4, 1)?;
            let active = vec![e::sigmoid(&z[0])?, e::sigmoid(&z[1])?, e::tanh(&z[2])?, e::sigmoid(&z[3])?];
            let next = e::add(&e::mul(&active[1], &c)?, &e::mul(&active[0], &active[2])?)?;
            let tanh = e::tanh(&next)?;
            let hidden = e::mul(&active[3], &tanh)?;
            made.push(Step { active, before: (h, c), tanh });
            (h, c) = (hidden, next);
        }
        let slope = |y: &Tensor| e::mul(y, &e::sub(1.0, y)?);
        let bend = |y: &Tensor| e::sub(1.0, &e::mul(y, y)?);
        let (mut gh, mut gc) = (factory::zeros_like(h0)?, g_last.clone());
        let mut parts = vec![None; steps as usize];
        let mut gw: Option<Tensor> = None;
        for (&t, step) in order.iter().zip(&made).rev() {
            let [i, f, g, o] = &step.active[..] else { return Err(err!(Runtime, "lstm: four gates")) };
            gh = e::add(&gh, &view::select(g_out, 0, t)?)?;
            gc = e::add(&gc, &e::mul(&e::mul(&gh, o)?, &bend(&step.tanh)?)?)?;
            let z = [
                e::mul(&e::mul(&gc, g)?, &slope(i)?)?,
                e::mul(&e::mul(&gc, &step.before.1)?, &slope(f)?)?,
                e::mul(&e::mul(&gc, i)?, &bend(g)?)?,
                e::mul(&e::mul(&gh, &step.tanh)?, &slope(o)?)?,
            ];
            let z = join::cat(&z, 1)?;
            gc = e::mul(&gc, f)?;
            gh = linalg::mm(&z, w)?;
            let part = linalg::mm(&view::t(&z)?, &step.before.0)?;
            gw = Some(match gw {
                Some(sum) => e::add(&sum, &part)?,
                None => part,
            });
            parts[t as usize] = Some(z);
        }
        let parts: Vec<Tensor> = parts.into_iter().flatten().collect();
        Ok(SmallVec::from_iter([Some(join::stack(&parts, 0)?), Some(gh), Some(gc), gw]))
    }
}

#[derive(Clone)]
struct LstmGrad {
    reverse: bool,
}
impl Primitive for LstmGrad {
    fn name(&self) -> &'static str {
        "lstm_backward"
    }
    fn infer(&self, x: &[&Meta], out: &mut Draft) -> Result<()> {
        let (active, c0) = (x[2], x[4]);
        out.push_strided(copy_dims(&active.sizes), copy_dims(&active.strides), active.dtype);
        out.push(copy_dims(&c0.sizes), c0.dtype);
        out.push(copy_dims(&c0.sizes), c0.dtype);
        Ok(())
    }
    fn run(&self, on: &dyn Backend, x: &[Operand], out: &[Operand]) -> Result<()> {
        on.lstm_grad(&x[0], &x[1], &x[2], &x[3], &x[4], &x[5], self.reverse, &out[0], &out[1], &out[2])
    }
    fn differentiable(&self) -> bool {
        false
    }
    fn vjp(&self, cx: &Vjp, _: &[Option<Tensor>]) -> Result<Gradients> {
        Ok(SmallVec::from_elem(None, cx.len()))
    }
    fn key(&self, key: &mut PlanKey) {
        key.word(self.reverse as u64);
    }
    crate::shareable!();
}

/// A tensor whose last dimension is adjacent in memory.
fn rows_adjacent(t: &Tensor) -> Result<Tensor> {
    let adjacent = {
        let m = t.meta();
        m.strides.last().is_none_or(|&s| s == 1)
    };
    if adjacent {
        Ok(t.clone())
    } else {
        view::contiguous(t)
    }
}

/// The steps of an LSTM layer (Hochreiter & Schmidhuber 1997, with a forget gate): `gates` (steps, batch, 4 · hidden) is the inputs'
/// part of the gates with all biases, in the order input, forget, cell, output; `hidden` and `cell` (batch, hidden) are the
/// initial states, `weight` (4 · hidden, hidden) is the recurrent one. Gives the hidden states of all steps and the last cell;
/// `reverse` begins at the last step. float32 and float64.
///
/// # Errors
/// `Runtime` for sizes or dtypes that do not fit, `NotImplemented` for another dtype.
pub fn lstm(
    gates: &Tensor,
    hidden: &Tensor,
    cell: &Tensor,
    weight: &Tensor,
    reverse: bool,
) -> Result<(Tensor, Tensor)> {
    ensure!(gates.dim() == 3 && gates.sizes()[0] > 0, Runtime, "lstm: expected at least one step of gates");
    let operands =
        [&rows_adjacent(gates)?, &view::contiguous(hidden)?, &view::contiguous(cell)?, &view::contiguous(weight)?];
    let mut out = apply(Lstm { reverse }, &operands, Dest::New)?.into_iter();
    match (out.next(), out.next()) {
        (Some(states), Some(last)) => Ok((states, last)),
        _ => Err(err!(Runtime, "lstm: two outputs")),
    }
}
