//! Layer and root-mean-square normalisation; batch normalisation has a file of its own.

pub use crate::ops::batch_norm::batch_norm;

use crate::apply::{apply, Dest};
use crate::autograd::node::{formally_reads, Vjp};
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
/// Refuses parameters of another dtype than the input's; with half precisions they may be float32.
pub(super) fn same_types(x: &Tensor, params: &[Option<&Tensor>]) -> Result<()> {
    let half = matches!(x.dtype(), DType::F16 | DType::BF16);
    for p in params.iter().flatten() {
        ensure!(
            p.dtype() == x.dtype() || (half && p.dtype() == DType::F32),
            Runtime,
            "mixed dtype (CPU): all inputs must share same datatype, but got input of torch.{} and parameters of torch.{}",
            x.dtype().name(),
            p.dtype().name()
        );
    }
    Ok(())
}
pub(super) fn statistics_type(d: DType) -> DType {
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
        out.push(copy_dims(&m.sizes), m.dtype);
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
            out.push(copy_dims(&m.sizes), m.dtype);
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
    same_types(x, &[weight, bias])?;
    let n = numel(shape);
    let rows = if n == 0 { 0 } else { x.numel() / n };
    if rows == 0 || n == 0 {
        // Nothing to compute, but gradients reach all operands.
        let mut out = view::clone(x)?;
        for (f, p) in [(ScalarFn::Mul, weight), (ScalarFn::Add, bias)] {
            if let Some(p) = p {
                out = e::binary(f, &out, p, Dest::New)?;
            }
        }
        return formally_reads(out, &[x], "native_layer_norm");
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

/// Divides by the root mean square over the last dimensions (Zhang & Sennrich 2019); half precisions are computed in float32.
/// `eps` is the dtype's own when it is not given.
///
/// # Errors
/// `Value` for fewer dimensions than `shape` has, `Runtime` when it is not how the input's sizes end, `NotImplemented` for integers.
pub fn rms_norm(x: &Tensor, shape: &[i64], weight: Option<&Tensor>, eps: Option<f64>) -> Result<Tensor> {
    let sizes = x.sizes();
    ensure!(
        !shape.is_empty(),
        Runtime,
        "Expected normalized_shape to be at least 1-dimensional, i.e., containing at least one element, but got normalized_shape = {}",
        Shape(shape)
    );
    ensure!(
        sizes.len() >= shape.len(),
        Value,
        "Input tensor must have at least {} dimensions, but got {}",
        shape.len(),
        sizes.len()
    );
    ensure!(
        x.dtype().is_float() || x.dtype().is_complex(),
        NotImplemented,
        "\"rms_norm\" not implemented for '{}'",
        x.dtype().title()
    );
    ensure!(
        sizes[sizes.len() - shape.len()..] == *shape,
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
