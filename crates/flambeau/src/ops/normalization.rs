//! Layer and batch normalisation.

use crate::apply::{apply, Dest};
use crate::autograd::node::Vjp;
use crate::ops::elementwise as e;
use crate::ops::{reduction, view};
use crate::primitive::*;
use crate::tensor::{Meta, Tensor};
use flambeau_core::*;

/// Rows normalised: x (rows, n), then weight and bias (n) where there are any. Outputs: result, mean, 1/σ.
#[derive(Clone)]
struct LayerNorm {
    eps: f64,
    weight: bool,
    bias: bool,
}
fn statistics_type(d: DType) -> DType {
    if d == DType::F64 {
        DType::F64
    } else {
        DType::F32
    }
}
impl Primitive for LayerNorm {
    fn name(&self) -> &'static str {
        "native_layer_norm"
    }
    fn infer(&self, x: &[&Meta], out: &mut Draft) -> Result<()> {
        let m = x[0];
        ensure!(
            m.dtype.is_float(),
            NotImplemented,
            "\"LayerNormKernelImpl\" not implemented for '{}'",
            m.dtype.title()
        );
        out.push(m.sizes.clone(), m.dtype);
        out.push_constant([m.sizes[0]].as_slice(), statistics_type(m.dtype));
        out.push_constant([m.sizes[0]].as_slice(), statistics_type(m.dtype));
        Ok(())
    }
    fn run(&self, on: &dyn Backend, x: &[Operand], out: &[Operand]) -> Result<()> {
        let w = if self.weight { Some(&x[1]) } else { None };
        let b = if self.bias { Some(&x[1 + usize::from(self.weight)]) } else { None };
        on.layer_norm(&x[0], w, b, self.eps, &out[0], &out[1], &out[2])
    }
    fn saves(&self, _: Mask) -> Mask {
        1 | if self.weight { 2 } else { 0 } | output_bit(1) | output_bit(2)
    }
    fn vjp(&self, cx: &Vjp, g: &[Option<Tensor>]) -> Result<Gradients> {
        let mut grads: Gradients = SmallVec::from_elem(None, cx.len());
        let Some(g) = &g[0] else { return Ok(grads) };
        let x = cx.input(0)?;
        let w = if self.weight { Some(cx.input(1)?) } else { None };
        if crate::mode::grad_enabled() {
            // To be differentiated again: composed of differentiable operators.
            let mean = reduction::mean(&x, &[1], true)?;
            let centered = e::sub(&x, &mean)?;
            let var = reduction::mean(&e::square(&centered)?, &[1], true)?;
            let rstd = e::rsqrt(&e::add(&var, self.eps)?)?;
            let hat = e::mul(&centered, &rstd)?;
            if cx.needs(0) {
                let gw = match &w {
                    Some(w) => e::mul(g, w)?,
                    None => g.clone(),
                };
                let a = reduction::mean(&gw, &[1], true)?;
                let b = reduction::mean(&e::mul(&gw, &hat)?, &[1], true)?;
                grads[0] = Some(e::mul(&rstd, &e::sub(&e::sub(&gw, &a)?, &e::mul(&hat, &b)?)?)?);
            }
            if self.weight && cx.needs(1) {
                grads[1] = Some(reduction::sum(&e::mul(g, &hat)?, &[0], false)?);
            }
            let k = 1 + usize::from(self.weight);
            if self.bias && cx.needs(k) {
                grads[k] = Some(reduction::sum(g, &[0], false)?);
            }
            return Ok(grads);
        }
        let (mean, rstd) = (cx.output(1)?, cx.output(2)?);
        let k = 1 + usize::from(self.weight);
        let op = LayerNormGrad {
            weight: self.weight,
            gx: cx.needs(0),
            gw: self.weight && cx.needs(1),
            gb: self.bias && cx.needs(k),
        };
        let mut operands: SmallVec<[&Tensor; 5]> = SmallVec::from_iter([g, &x, &mean, &rstd]);
        if let Some(w) = &w {
            operands.push(w);
        }
        let mut out = apply(op.clone(), &operands, Dest::New)?.into_iter();
        if op.gx {
            grads[0] = out.next();
        }
        if op.gw {
            grads[1] = out.next();
        }
        if op.gb {
            grads[k] = out.next();
        }
        Ok(grads)
    }
    fn key(&self, key: &mut PlanKey) {
        key.word(self.eps.to_bits()).word(self.weight as u64).word(self.bias as u64);
    }
    crate::shareable!();
}
#[derive(Clone)]
struct LayerNormGrad {
    weight: bool,
    gx: bool,
    gw: bool,
    gb: bool,
}
impl Primitive for LayerNormGrad {
    fn name(&self) -> &'static str {
        "native_layer_norm_backward"
    }
    fn infer(&self, x: &[&Meta], out: &mut Draft) -> Result<()> {
        let m = x[1];
        if self.gx {
            out.push(m.sizes.clone(), m.dtype);
        }
        for wanted in [self.gw, self.gb] {
            if wanted {
                out.push([m.sizes[1]].as_slice(), m.dtype);
            }
        }
        Ok(())
    }
    fn run(&self, on: &dyn Backend, x: &[Operand], out: &[Operand]) -> Result<()> {
        let mut next = out.iter();
        let mut take = |wanted: bool| if wanted { next.next() } else { None };
        let (gx, gw, gb) = (take(self.gx), take(self.gw), take(self.gb));
        on.layer_norm_grad(&x[0], &x[1], &x[2], &x[3], if self.weight { Some(&x[4]) } else { None }, gx, gw, gb)
    }
    fn differentiable(&self) -> bool {
        false
    }
    fn vjp(&self, cx: &Vjp, _: &[Option<Tensor>]) -> Result<Gradients> {
        Ok(SmallVec::from_elem(None, cx.len()))
    }
    fn key(&self, key: &mut PlanKey) {
        key.word(self.weight as u64 | (self.gx as u64) << 1 | (self.gw as u64) << 2 | (self.gb as u64) << 3);
    }
    crate::shareable!();
}

/// Normalises the last dimensions to mean 0 and variance 1, then scales and shifts (Ba, Kiros & Hinton 2016).
///
/// # Errors
/// `Runtime` when `shape` is not how the input's sizes end, or weight and bias differ from it.
pub fn layer_norm(
    x: &Tensor,
    shape: &[i64],
    weight: Option<&Tensor>,
    bias: Option<&Tensor>,
    eps: f64,
) -> Result<Tensor> {
    let sizes = x.sizes();
    ensure!(
        !shape.is_empty(),
        Runtime,
        "Expected normalized_shape to be at least 1-dimensional, i.e., containing at least one element, but got normalized_shape = {}",
        Shape(shape)
    );
    ensure!(
        sizes.len() >= shape.len() && sizes[sizes.len() - shape.len()..] == *shape,
        Runtime,
        "Given normalized_shape={}, expected input with shape [*, {}], but got input of size{}",
        Shape(shape),
        shape.iter().map(|n| n.to_string()).collect::<Vec<_>>().join(", "),
        Shape(&sizes)
    );
    for (what, p) in [("weight", weight), ("bias", bias)] {
        if let Some(p) = p {
            ensure!(
                p.sizes()[..] == *shape,
                Runtime,
                "Expected {what} to be of same shape as normalized_shape, but got {what} of shape {} and normalized_shape = {}",
                Shape(&p.sizes()),
                Shape(shape)
            );
        }
    }
    let n = numel(shape);
    let rows = if n == 0 { 0 } else { x.numel() / n };
    if rows == 0 || n == 0 {
        return view::clone(x);
    }
    let flat = view::reshape(x, &[rows, n])?;
    let vector = |p: Option<&Tensor>| p.map(|p| view::reshape(p, &[n])).transpose();
    let (w, b) = (vector(weight)?, vector(bias)?);
    let mut operands: SmallVec<[&Tensor; 3]> = SmallVec::from_iter([&flat]);
    operands.extend(w.iter());
    operands.extend(b.iter());
    let mut out = apply(LayerNorm { eps, weight: w.is_some(), bias: b.is_some() }, &operands, Dest::New)?;
    view::reshape(&out.swap_remove(0), &sizes)
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
    let n = x.numel() / c.max(1);
    if training {
        ensure!(
            n > 1,
            Value,
            "Expected more than 1 value per channel when training, got input size torch.Size({})",
            Shape(&sizes)
        );
    }
    let mut shape: Dims = SmallVec::from_elem(1, sizes.len());
    shape[1] = c;
    let wide = |t: &Tensor| view::reshape(t, &shape);
    let dims: Vec<i64> = (0..sizes.len() as i64).filter(|d| *d != 1).collect();
    let (mean, var) = if training {
        let (var, mean) = reduction::var_mean(x, &dims, 0.0, true)?;
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

/// Divides by the root mean square over the last dimensions (Zhang & Sennrich 2019); half precisions are computed in float32.
/// `eps` is the dtype's own when it is not given.
///
/// # Errors
/// `Runtime` when `shape` is not how the input's sizes end.
pub fn rms_norm(x: &Tensor, shape: &[i64], weight: Option<&Tensor>, eps: Option<f64>) -> Result<Tensor> {
    let sizes = x.sizes();
    ensure!(
        !shape.is_empty(),
        Runtime,
        "Expected normalized_shape to be at least 1-dimensional, i.e., containing at least one element, but got normalized_shape = {}",
        Shape(shape)
    );
    ensure!(
        sizes.len() >= shape.len() && sizes[sizes.len() - shape.len()..] == *shape,
        Runtime,
        "Given normalized_shape={}, expected input with shape [*, {}], but got input of size{}",
        Shape(shape),
        shape.iter().map(i64::to_string).collect::<Vec<_>>().join(", "),
        Shape(&sizes)
    );
    let eps = eps.unwrap_or(match x.dtype() {
        DType::F64 | DType::C128 => f64::EPSILON,
        DType::F16 => 9.765625e-4,
        DType::BF16 => 7.8125e-3,
        _ => f32::EPSILON as f64,
    });
    let half = matches!(x.dtype(), DType::F16 | DType::BF16);
    let wide = if half { e::to_dtype(x, DType::F32)? } else { x.clone() };
    let dims: Vec<i64> = (1..=shape.len() as i64).map(|d| -d).collect();
    let scale = e::rsqrt(&e::add(&reduction::mean(&e::mul(&wide, &wide)?, &dims, true)?, eps)?)?;
    let mut y = e::mul(&wide, &scale)?;
    if let Some(w) = weight {
        y = e::mul(&y, w)?;
    }
    e::to_dtype(&y, x.dtype())
}
