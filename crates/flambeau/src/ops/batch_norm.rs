//! Batch normalisation. In training, on the CPU, one primitive each way; elsewhere, and for gradients of gradients, the
//! composite that defines it.

use crate::apply::{apply, Dest};
use crate::autograd::node::Vjp;
use crate::ops::elementwise as e;
use crate::ops::normalization::{same_types, statistics_type};
use crate::ops::{reduction, view};
use crate::primitive::*;
use crate::tensor::{Meta, Tensor};
use flambeau_core::*;

/// x (n, c, …), dense with channels second or last in memory, then weight and bias (c) where there are any. Outputs:
/// result, mean and biased variance (c).
#[derive(Clone)]
struct BatchNorm {
    eps: f64,
    weight: bool,
    bias: bool,
}
/// Samples, channels and the rest as one dimension, in the layout that the tensor has.
fn flat(o: &Operand, f: impl FnOnce(&Operand) -> Result<()>) -> Result<()> {
    let (n, c) = (o.sizes[0], o.sizes[1]);
    let s: i64 = o.sizes[2..].iter().product();
    let strides = if is_contiguous(o.sizes, o.strides) { [c * s, s, 1] } else { [c * s, 1, c] };
    f(&Operand { sizes: &[n, c, s], strides: &strides, ..*o })
}
/// The dimensions that a channel's statistics are taken over.
fn reduced(rank: usize) -> Vec<i64> {
    (0..rank as i64).filter(|d| *d != 1).collect()
}
/// A vector of channels, to be broadcast against a tensor of `rank` dimensions.
fn by_channel(t: &Tensor, rank: usize) -> Result<Tensor> {
    let mut shape: Dims = SmallVec::from_elem(1, rank);
    shape[1] = t.numel();
    view::reshape(t, &shape)
}
/// The tensor itself where it is dense with channels second or last, else a row-major copy.
fn dense(t: &Tensor) -> Result<Tensor> {
    let last = is_channels_last(&t.sizes(), &t.strides());
    if last {
        return Ok(t.clone());
    }
    view::contiguous(t)
}

impl Primitive for BatchNorm {
    fn name(&self) -> &'static str {
        "native_batch_norm"
    }
    fn infer(&self, x: &[&Meta], out: &mut Draft) -> Result<()> {
        let m = x[0];
        out.push_strided(copy_dims(&m.sizes), preserve_strides(&m.sizes, &m.strides), m.dtype);
        out.push_constant([m.sizes[1]].as_slice(), statistics_type(m.dtype));
        out.push_constant([m.sizes[1]].as_slice(), statistics_type(m.dtype));
        Ok(())
    }
    fn run(&self, on: &dyn Backend, x: &[Operand], out: &[Operand]) -> Result<()> {
        let w = if self.weight { Some(&x[1]) } else { None };
        let b = if self.bias { Some(&x[1 + usize::from(self.weight)]) } else { None };
        flat(&x[0], |x| flat(&out[0], |y| on.batch_norm(x, w, b, self.eps, y, &out[1], &out[2])))
    }
    fn saves(&self, _: Mask) -> Mask {
        1 | if self.weight { 2 } else { 0 } | output_bit(1) | output_bit(2)
    }
    fn vjp(&self, cx: &Vjp, g: &[Option<Tensor>]) -> Result<Gradients> {
        let mut grads: Gradients = SmallVec::from_elem(None, cx.len());
        let Some(g) = &g[0] else { return Ok(grads) };
        let x = cx.input(0)?;
        let w = if self.weight { Some(cx.input(1)?) } else { None };
        let k = 1 + usize::from(self.weight);
        if crate::mode::grad_enabled() {
            // To be differentiated again: composed of differentiable operators.
            let dims = reduced(x.dim());
            let centered = e::sub(&x, &reduction::mean(&x, &dims, true)?)?;
            let var = reduction::mean(&e::square(&centered)?, &dims, true)?;
            let rstd = e::rsqrt(&e::add(&var, self.eps)?)?;
            let hat = e::mul(&centered, &rstd)?;
            if cx.needs(0) {
                let gw = match &w {
                    Some(w) => e::mul(g, &by_channel(w, x.dim())?)?,
                    None => g.clone(),
                };
                let a = reduction::mean(&gw, &dims, true)?;
                let b = reduction::mean(&e::mul(&gw, &hat)?, &dims, true)?;
                let gx = e::mul(&rstd, &e::sub(&e::sub(&gw, &a)?, &e::mul(&hat, &b)?)?)?;
                grads[0] = Some(e::to_dtype(&gx, x.dtype())?);
            }
            if self.weight && cx.needs(1) {
                let gw = reduction::sum(&e::mul(g, &hat)?, &dims, false)?;
                grads[1] = Some(e::to_dtype(&gw, cx.info(1).dtype)?);
            }
            if self.bias && cx.needs(k) {
                grads[k] = Some(e::to_dtype(&reduction::sum(g, &dims, false)?, cx.info(k).dtype)?);
            }
            return Ok(grads);
        }
        let op = BatchNormGrad {
            eps: self.eps,
            weight: self.weight,
            gx: cx.needs(0),
            gw: (self.weight && cx.needs(1)).then(|| cx.info(1).dtype),
            gb: (self.bias && cx.needs(k)).then(|| cx.info(k).dtype),
        };
        let g = if is_channels_last(&x.sizes(), &x.strides()) && !x.is_contiguous() {
            view::contiguous_as(
                g,
                if x.dim() == 4 { MemoryFormat::ChannelsLast } else { MemoryFormat::ChannelsLast3d },
            )?
        } else {
            view::contiguous(g)?
        };
        let (mean, var) = (cx.output(1)?, cx.output(2)?);
        let mut operands: SmallVec<[&Tensor; 5]> = SmallVec::from_iter([&g, &x, &mean, &var]);
        operands.extend(w.iter());
        let mut out = apply(op.clone(), &operands, Dest::New)?.into_iter();
        if op.gx {
            grads[0] = out.next();
        }
        if op.gw.is_some() {
            grads[1] = out.next();
        }
        if op.gb.is_some() {
            grads[k] = out.next();
        }
        Ok(grads)
    }
    fn key(&self, key: &mut PlanKey) {
        key.word(self.eps.to_bits()).word(self.weight as u64).word(self.bias as u64);
    }
    crate::shareable!();
}

/// The gradient: g, x, mean, variance, then the weight where there is one. The dtypes are those of the parameters whose
/// gradients are asked for.
#[derive(Clone)]
struct BatchNormGrad {
    eps: f64,
    weight: bool,
    gx: bool,
    gw: Option<DType>,
    gb: Option<DType>,
}
impl Primitive for BatchNormGrad {
    fn name(&self) -> &'static str {
        "native_batch_norm_backward"
    }
    fn infer(&self, x: &[&Meta], out: &mut Draft) -> Result<()> {
        let m = x[1];
        if self.gx {
            out.push_strided(copy_dims(&m.sizes), preserve_strides(&m.sizes, &m.strides), m.dtype);
        }
        for dtype in [self.gw, self.gb].into_iter().flatten() {
            out.push([m.sizes[1]].as_slice(), dtype);
        }
        Ok(())
    }
    fn run(&self, on: &dyn Backend, x: &[Operand], out: &[Operand]) -> Result<()> {
        let mut next = out.iter();
        let mut take = |wanted: bool| if wanted { next.next() } else { None };
        let (gx, gw, gb) = (take(self.gx), take(self.gw.is_some()), take(self.gb.is_some()));
        let w = if self.weight { Some(&x[4]) } else { None };
        flat(&x[0], |g| {
            flat(&x[1], |y| match gx {
                Some(gx) => flat(gx, |gx| on.batch_norm_grad(g, y, &x[2], &x[3], w, self.eps, Some(gx), gw, gb)),
                None => on.batch_norm_grad(g, y, &x[2], &x[3], w, self.eps, None, gw, gb),
            })
        })
    }
    fn differentiable(&self) -> bool {
        false
    }
    fn vjp(&self, cx: &Vjp, _: &[Option<Tensor>]) -> Result<Gradients> {
        Ok(SmallVec::from_elem(None, cx.len()))
    }
    fn key(&self, key: &mut PlanKey) {
        let dtype = |d: Option<DType>| d.map_or(0, |d| 1 + d as u64);
        key.word(self.eps.to_bits()).word(self.weight as u64 | (self.gx as u64) << 1);
        key.word(dtype(self.gw)).word(dtype(self.gb));
    }
    crate::shareable!();
}

/// Normalises each channel over batch and space (Ioffe & Szegedy 2015); in training with the batch's own statistics, which
/// also move the running ones.
///
/// # Errors
/// `Runtime` for sizes that differ from the channels, `Value` for a single value a channel in training.
#[allow(clippy::too_many_arguments)]
pub fn batch_norm(
    x: &Tensor,
    running_mean: Option<&Tensor>,
    running_var: Option<&Tensor>,
    weight: Option<&Tensor>,
    bias: Option<&Tensor>,
    training: bool,
    momentum: f64,
    eps: f64,
) -> Result<Tensor> {
    let sizes = x.sizes();
    if x.numel() == 0 {
        // Nothing to normalise; the parameters stay in the graph.
        let mut y = view::clone(x)?;
        if let (Some(w), true) = (weight, weight.is_some_and(|w| w.numel() > 0)) {
            y = e::mul(&y, &view::select(w, 0, 0)?)?;
        }
        if let (Some(b), true) = (bias, bias.is_some_and(|b| b.numel() > 0)) {
            y = e::add(&y, &view::select(b, 0, 0)?)?;
        }
        return Ok(y);
    }
    ensure!(sizes.len() >= 2, Runtime, "batch_norm: expected input with at least 2 dimensions, got {}", Shape(&sizes));
    let c = sizes[1];
    for (what, p) in [("running_mean", running_mean), ("running_var", running_var), ("weight", weight), ("bias", bias)]
    {
        if let Some(p) = p {
            ensure!(p.numel() == c, Runtime, "{what} should contain {c} elements not {}", p.numel());
        }
    }
    ensure!(
        x.dtype().is_float() || x.dtype().is_complex(),
        NotImplemented,
        "\"batch_norm\" not implemented for '{}'",
        x.dtype().title()
    );
    same_types(x, &[weight, bias, running_mean, running_var])?;
    let n = x.numel() / c.max(1);
    if training {
        ensure!(
            n > 1,
            Value,
            "Expected more than 1 value per channel when training, got input size torch.Size({})",
            Shape(&sizes)
        );
    }
    let wide = |t: &Tensor| by_channel(t, sizes.len());
    let (mut normalised, mut mean_var) = (None, None);
    if training {
        let float = |t: &Tensor| t.dtype().is_float() && t.dtype().size() > 1;
        let params = weight.into_iter().chain(bias);
        if x.device() == Device::Cpu
            && x.as_batched().is_none()
            && float(x)
            && params.clone().all(|p| float(p) && p.as_batched().is_none())
        {
            let x = dense(x)?;
            let flat: SmallVec<[Tensor; 2]> = params.map(|p| view::reshape(p, &[c])).collect::<Result<_>>()?;
            let mut operands: SmallVec<[&Tensor; 3]> = SmallVec::from_iter([&x]);
            operands.extend(flat.iter());
            let op = BatchNorm { eps, weight: weight.is_some(), bias: bias.is_some() };
            let mut out = apply(op, &operands, Dest::New)?;
            mean_var = Some((out.swap_remove(1), out.swap_remove(1)));
            normalised = out.pop();
        } else {
            let (var, mean) = reduction::var_mean(x, &reduced(sizes.len()), 0.0, true)?;
            mean_var = Some((mean, var));
        }
    }
    let (mean, var) = if let Some((mean, var)) = mean_var {
        let _off = crate::mode::no_grad();
        let step = |running: Option<&Tensor>, now: &Tensor, factor: f64| -> Result<()> {
            if let Some(r) = running {
                let now = view::reshape(&e::mul(&now.detach(), factor * momentum)?, &[c])?;
                let new = e::add(&e::mul(r, 1.0 - momentum)?, &now)?;
                e::copy_(r, &new)?;
            }
            Ok(())
        };
        step(running_mean, &mean, 1.0)?;
        step(running_var, &var, n as f64 / (n as f64 - 1.0))?;
        (mean, var)
    } else {
        match (running_mean, running_var) {
            (Some(m), Some(v)) => (wide(m)?, wide(v)?),
            _ => bail!(Runtime, "Expected running_mean and running_var to be defined when training=False"),
        }
    };
    if let Some(y) = normalised {
        return Ok(y);
    }
    let mut scale = e::rsqrt(&e::add(&var, eps)?)?;
    if let Some(w) = weight {
        scale = e::mul(&scale, &wide(w)?)?;
    }
    let centered = e::sub(x, &mean)?;
    match bias {
        Some(b) => {
            e::map(ScalarFn::Addcmul, &[(&wide(b)?).into(), (&centered).into(), (&scale).into(), 1.0.into()], Dest::New)
        }
        None => e::mul(&centered, &scale),
    }
    .and_then(|y| e::to_dtype(&y, x.dtype()))
}
