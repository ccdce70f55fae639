//! Softmax and its logarithm.

use crate::apply::{apply1, Dest};
use crate::autograd::node::Vjp;
use crate::ops::elementwise as e;
use crate::ops::reduction::sum;
use crate::primitive::*;
use crate::tensor::{Meta, Tensor};
use flambeau_core::*;

#[derive(Clone)]
struct Softmax {
    dim: usize,
    log: bool,
}
impl Primitive for Softmax {
    fn name(&self) -> &'static str {
        if self.log {
            "log_softmax"
        } else {
            "softmax"
        }
    }
    fn infer(&self, x: &[&Meta], out: &mut Draft) -> Result<()> {
        ensure!(
            x[0].dtype.is_float(),
            NotImplemented,
            "\"{}_lastdim_kernel_impl\" not implemented for '{}'",
            self.name(),
            x[0].dtype.title()
        );
        out.push(copy_dims(&x[0].sizes), x[0].dtype);
        Ok(())
    }
    fn run(&self, on: &dyn Backend, x: &[Operand], out: &[Operand]) -> Result<()> {
        on.softmax(&x[0], self.dim, self.log, &out[0])
    }
    fn saves(&self, _: Mask) -> Mask {
        output_bit(0)
    }
    fn vjp(&self, cx: &Vjp, g: &[Option<Tensor>]) -> Result<Gradients> {
        let Some(g) = &g[0] else { return Ok(SmallVec::from_iter([None])) };
        let y = cx.output(0)?;
        Ok(SmallVec::from_iter([Some(apply1(SoftmaxGrad { dim: self.dim, log: self.log }, &[g, &y], Dest::New)?)]))
    }
    fn key(&self, key: &mut PlanKey) {
        key.word(self.dim as u64).word(self.log as u64);
    }
    crate::shareable!();
}

/// The gradient from the output; its own gradient is composed.
#[derive(Clone)]
struct SoftmaxGrad {
    dim: usize,
    log: bool,
}
impl Primitive for SoftmaxGrad {
    fn name(&self) -> &'static str {
        "softmax_backward_data"
    }
    fn infer(&self, x: &[&Meta], out: &mut Draft) -> Result<()> {
        out.push(copy_dims(&x[0].sizes), x[1].dtype);
        Ok(())
    }
    fn run(&self, on: &dyn Backend, x: &[Operand], out: &[Operand]) -> Result<()> {
        on.softmax_grad(&x[0], &x[1], self.dim, self.log, &out[0])
    }
    fn saves(&self, _: Mask) -> Mask {
        3
    }
    fn vjp(&self, cx: &Vjp, h: &[Option<Tensor>]) -> Result<Gradients> {
        let mut grads: Gradients = SmallVec::from_elem(None, 2);
        let Some(h) = &h[0] else { return Ok(grads) };
        let (g, y, d) = (cx.input(0)?, cx.input(1)?, [self.dim as i64]);
        if self.log {
            // f = g - exp(y) Σ g
            let p = e::exp(&y)?;
            let hp = sum(&e::mul(h, &p)?, &d, true)?;
            if cx.needs(0) {
                grads[0] = Some(e::sub(h, &hp)?);
            }
            if cx.needs(1) {
                grads[1] = Some(e::neg(&e::mul(&e::mul(h, &p)?, &sum(&g, &d, true)?)?)?);
            }
        } else {
            // f = y (g - Σ g y)
            let gy = sum(&e::mul(&g, &y)?, &d, true)?;
            let hy = sum(&e::mul(h, &y)?, &d, true)?;
            if cx.needs(0) {
                grads[0] = Some(e::mul(&y, &e::sub(h, &hy)?)?);
            }
            if cx.needs(1) {
                let a = e::mul(h, &e::sub(&g, &gy)?)?;
                grads[1] = Some(e::sub(&a, &e::mul(&g, &hy)?)?);
            }
        }
        Ok(grads)
    }
    fn key(&self, key: &mut PlanKey) {
        key.word(self.dim as u64).word(self.log as u64);
    }
    crate::shareable!();
}

fn run(t: &Tensor, dim: i64, dtype: Option<DType>, log: bool) -> Result<Tensor> {
    let x = match dtype {
        Some(d) => e::to_dtype(t, d)?,
        None => t.clone(),
    };
    let dim = wrap_dim(dim, x.dim())?;
    if x.dim() == 0 {
        let wide = crate::ops::view::unsqueeze(&x, 0)?;
        return crate::ops::view::reshape(&apply1(Softmax { dim: 0, log }, &[&wide], Dest::New)?, &[]);
    }
    apply1(Softmax { dim, log }, &[&x], Dest::New)
}
/// `exp(x) / Σ exp(x)` along a dimension.
///
/// # Errors
/// `Index` for a dimension out of range, `NotImplemented` for integers.
pub fn softmax(t: &Tensor, dim: i64, dtype: Option<DType>) -> Result<Tensor> {
    run(t, dim, dtype, false)
}
/// The logarithm of [`softmax`].
///
/// # Errors
/// As [`softmax`].
pub fn log_softmax(t: &Tensor, dim: i64, dtype: Option<DType>) -> Result<Tensor> {
    run(t, dim, dtype, true)
}

/// `x` above zero, `weight x` below, with one weight for all or one for each channel.
///
/// # Errors
/// `Runtime` for weights that are neither.
pub fn prelu(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    ensure!(
        x.dtype() == weight.dtype(),
        Runtime,
        "prelu: Type promoting not supported. Got {} and {}",
        x.dtype().name(),
        weight.dtype().name()
    );
    ensure!(
        weight.dim() <= 1,
        Runtime,
        "prelu: Expected `weight` to be a scalar or 1D tensor, but got: ndim = {}",
        weight.dim()
    );
    let sizes = x.sizes();
    let mut slope = weight.clone();
    if weight.numel() != 1 {
        ensure!(!sizes.is_empty(), Runtime, "Not allow zero-dim input tensor.");
        let channels = if sizes.len() > 1 { sizes[1] } else { 1 };
        ensure!(
            channels == weight.numel(),
            Runtime,
            "Mismatch of parameter numbers and input channel size. Found parameter numbers = {} and channel size = {channels}.",
            weight.numel()
        );
        let mut shape: Dims = SmallVec::from_elem(1, sizes.len());
        shape[1] = channels;
        slope = crate::ops::view::reshape(&slope, &shape)?;
    } else {
        slope = crate::ops::view::reshape(&slope, &[])?;
    }
    let out = e::where_(&e::gt(x, 0)?, x, &e::mul(&slope, x)?)?;
    crate::autograd::node::formally_reads(out, &[x], "prelu_kernel")
}
/// Leaky ReLU whose slopes are drawn uniformly from `[lower, upper)` in training, for elements that are not positive (Xu et al.
/// 2015); else their mean.
///
/// # Errors
/// `Runtime` for bounds out of order.
pub fn rrelu(x: &Tensor, lower: f64, upper: f64, training: bool, inplace: bool) -> Result<Tensor> {
    ensure!(lower <= upper, Runtime, "Lower bound should be less than or equal to the upper bound");
    let dest = if inplace { Dest::Inplace(x) } else { Dest::New };
    if !training {
        return e::binary(ScalarFn::LeakyRelu, x, (lower + upper) / 2.0, dest);
    }
    let slopes = crate::ops::random::slopes(x, lower, upper)?;
    let out = e::binary(ScalarFn::Mul, x, &slopes, dest)?;
    if inplace {
        return Ok(out);
    }
    crate::autograd::node::formally_reads(out, &[x], "rrelu_with_noise")
}
