//! Convolutions over one to three spatial dimensions, and transposed ones. Each gradient is itself a convolution, so
//! derivatives of any order are.

use crate::apply::{apply1, Dest};
use crate::autograd::node::Vjp;
use crate::ops::elementwise as e;
use crate::ops::{reduction, view};
use crate::primitive::*;
use crate::tensor::{Meta, Tensor};
use flambeau_core::*;

#[derive(Clone)]
enum Convolution {
    /// x, w, and a bias where there is one.
    Forward(Conv),
    /// g, w → the input's gradient, of the given spatial sizes.
    Input(Conv, Dims),
    /// g, x → the weight's gradient, of the given kernel sizes.
    Weight(Conv, Dims),
}
fn words(key: &mut PlanKey, c: &Conv) {
    key.words(&c.stride).words(&c.padding).words(&c.dilation).word(c.groups as u64);
}
impl Primitive for Convolution {
    fn name(&self) -> &'static str {
        match self {
            Convolution::Forward(_) => "convolution",
            Convolution::Input(..) => "convolution_input_grad",
            Convolution::Weight(..) => "convolution_weight_grad",
        }
    }
    fn infer(&self, x: &[&Meta], out: &mut Draft) -> Result<()> {
        let (a, b) = (x[0], x[1]);
        ensure!(
            a.dtype == b.dtype && x.get(2).is_none_or(|m| m.dtype == a.dtype),
            Runtime,
            "Input type ({}) and weight type ({}) should be the same",
            a.dtype.title(),
            b.dtype.title()
        );
        match self {
            Convolution::Forward(c) => {
                let mut sizes = Dims::from_slice(&[a.sizes[0], b.sizes[0]]);
                for i in 0..c.stride.len() {
                    let span = c.dilation[i] * (b.sizes[i + 2] - 1) + 1;
                    sizes.push((a.sizes[i + 2] + 2 * c.padding[i] - span) / c.stride[i] + 1);
                }
                out.push(sizes, a.dtype);
            }
            Convolution::Input(c, spatial) => {
                let mut sizes = Dims::from_slice(&[a.sizes[0], b.sizes[1] * c.groups]);
                sizes.extend_from_slice(spatial);
                out.push(sizes, a.dtype);
            }
            Convolution::Weight(c, kernel) => {
                let mut sizes = Dims::from_slice(&[a.sizes[1], b.sizes[1] / c.groups]);
                sizes.extend_from_slice(kernel);
                out.push(sizes, a.dtype);
            }
        }
        Ok(())
    }
    fn run(&self, on: &dyn Backend, x: &[Operand], out: &[Operand]) -> Result<()> {
        match self {
            Convolution::Forward(c) => on.conv(&x[0], &x[1], x.get(2), c, &out[0]),
            Convolution::Input(c, _) => on.conv_input_grad(&x[0], &x[1], c, &out[0]),
            Convolution::Weight(c, _) => on.conv_weight_grad(&x[0], &x[1], c, &out[0]),
        }
    }
    fn saves(&self, needs: Mask) -> Mask {
        (if needs & 1 != 0 { 2 } else { 0 }) | (if needs & 2 != 0 { 1 } else { 0 })
    }
    fn vjp(&self, cx: &Vjp, h: &[Option<Tensor>]) -> Result<Gradients> {
        let mut grads: Gradients = SmallVec::from_elem(None, cx.len());
        let Some(h) = &h[0] else { return Ok(grads) };
        let spatial = |i: usize| -> Dims { cx.info(i).sizes[2..].into() };
        let one = |op: Convolution, a: &Tensor, b: &Tensor| apply1(op, &[a, b], Dest::New).map(Some);
        // Strides can leave a rest of an input that the original windows did not reach, but windows of this forward do.
        let forward = |c: &Conv, a: &Tensor, b: &Tensor, sizes: &[i64]| -> Result<Option<Tensor>> {
            let mut y = apply1(Convolution::Forward(c.clone()), &[a, b], Dest::New)?;
            for (d, &n) in sizes.iter().enumerate().skip(2) {
                if y.sizes()[d] > n {
                    y = view::narrow(&y, d as i64, 0, n)?;
                }
            }
            Ok(Some(y))
        };
        // What a gradient is multiplied by: of complex numbers the conjugate.
        let operand = |i: usize| -> Result<Tensor> {
            let t = cx.input(i)?;
            if t.dtype().is_complex() {
                e::conj_physical(&t)
            } else {
                Ok(t)
            }
        };
        match self {
            Convolution::Forward(c) => {
                if cx.needs(0) {
                    grads[0] = one(Convolution::Input(c.clone(), spatial(0)), h, &operand(1)?)?;
                }
                if cx.needs(1) {
                    grads[1] = one(Convolution::Weight(c.clone(), spatial(1)), h, &operand(0)?)?;
                }
                if cx.len() > 2 && cx.needs(2) {
                    let dims: Vec<i64> = (0..h.dim() as i64).filter(|d| *d != 1).collect();
                    grads[2] = Some(reduction::sum(h, &dims, false)?);
                }
            }
            // Both are bilinear: gradients with respect to each operand are again convolutions.
            Convolution::Input(c, _) => {
                if cx.needs(0) {
                    grads[0] = forward(c, h, &operand(1)?, &cx.info(0).sizes)?;
                }
                if cx.needs(1) {
                    grads[1] = one(Convolution::Weight(c.clone(), spatial(1)), &operand(0)?, h)?;
                }
            }
            Convolution::Weight(c, _) => {
                if cx.needs(0) {
                    grads[0] = forward(c, &operand(1)?, h, &cx.info(0).sizes)?;
                }
                if cx.needs(1) {
                    grads[1] = one(Convolution::Input(c.clone(), spatial(1)), &operand(0)?, h)?;
                }
            }
        }
        Ok(grads)
    }
    fn key(&self, key: &mut PlanKey) {
        match self {
            Convolution::Forward(c) => words(key.word(0), c),
            Convolution::Input(c, s) => words(key.word(1).words(s), c),
            Convolution::Weight(c, s) => words(key.word(2).words(s), c),
        }
    }
    crate::shareable!();
}

fn fill(name: &str, what: &str, v: &[i64], n: usize) -> Result<Vec<i64>> {
    if v.len() == 1 {
        return Ok(vec![v[0]; n]);
    }
    ensure!(v.len() == n, Runtime, "{name}: expected {what} to be a single integer value or a list of {n} values to match the convolution dimensions, but got {what}={}", Shape(v));
    Ok(v.to_vec())
}

/// Convolution of x (batch, channels, spatial…) with weight (out, channels/groups, kernel…); a missing batch is added.
///
/// # Errors
/// `Runtime` for shapes that do not fit, as PyTorch words it.
#[allow(clippy::too_many_arguments)]
pub fn conv(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    stride: &[i64],
    padding: &[i64],
    dilation: &[i64],
    groups: i64,
    n: usize,
) -> Result<Tensor> {
    let name = ["conv1d", "conv2d", "conv3d"][n - 1];
    if x.dim() == n + 1 && weight.dim() == n + 2 {
        return view::squeeze(
            &conv(&view::unsqueeze(x, 0)?, weight, bias, stride, padding, dilation, groups, n)?,
            Some(&[0]),
        );
    }
    let (xs, ws) = (x.sizes(), weight.sizes());
    ensure!(
        xs.len() == n + 2,
        Runtime,
        "Expected {}D (unbatched) or {}D (batched) input to {name}, but got input of size: {}",
        n + 1,
        n + 2,
        Shape(&xs)
    );
    ensure!(
        ws.len() == n + 2,
        Runtime,
        "expected {}-dimensional weight for {name}, but got weight of size {}",
        n + 2,
        Shape(&ws)
    );
    let c = Conv {
        stride: fill(name, "stride", stride, n)?,
        padding: fill(name, "padding", padding, n)?,
        dilation: fill(name, "dilation", dilation, n)?,
        groups,
    };
    check(name, &c, &ws)?;
    ensure!(
        xs[1] == ws[1] * groups,
        Runtime,
        "Given groups={groups}, weight of size {}, expected input{} to have {} channels, but got {} channels instead",
        Shape(&ws),
        Shape(&xs),
        ws[1] * groups,
        xs[1]
    );
    check_bias(bias, ws[0], &ws)?;
    for i in 0..n {
        let span = c.dilation[i] * (ws[i + 2] - 1) + 1;
        ensure!(
            xs[i + 2] + 2 * c.padding[i] >= span,
            Runtime,
            "Calculated padded input size per channel: {}. Kernel size: {}. Kernel size can't be greater than actual input size",
            Shape(&(0..n).map(|i| xs[i + 2] + 2 * c.padding[i]).collect::<Vec<_>>()),
            Shape(&ws[2..])
        );
    }
    if ws[1] == 0 {
        // Without channels the result has none, whatever the weight says; gradients are of nothing.
        let mut sizes = Dims::from_slice(&[xs[0], 0]);
        sizes.extend(
            (0..n).map(|i| (xs[i + 2] + 2 * c.padding[i] - c.dilation[i] * (ws[i + 2] - 1) - 1) / c.stride[i] + 1),
        );
        let y = e::add(&view::reshape(x, &sizes)?, &view::reshape(weight, &sizes)?)?;
        return match bias {
            Some(b) => e::add(&y, &view::reshape(&view::narrow(b, 0, 0, 0)?, &sizes)?),
            None => Ok(y),
        };
    }
    match bias {
        Some(b) => apply1(Convolution::Forward(c), &[x, weight, b], Dest::New),
        None => apply1(Convolution::Forward(c), &[x, weight], Dest::New),
    }
}
fn check(name: &str, c: &Conv, ws: &[i64]) -> Result<()> {
    ensure!(c.groups > 0, Runtime, "{name}: non-positive groups is not supported, got {}", c.groups);
    ensure!(
        c.stride.iter().all(|s| *s > 0),
        Runtime,
        "{name}: non-positive stride is not supported, got {}",
        Shape(&c.stride)
    );
    ensure!(
        c.dilation.iter().all(|s| *s > 0),
        Runtime,
        "{name}: dilation should be greater than zero, got {}",
        Shape(&c.dilation)
    );
    ensure!(
        c.padding.iter().all(|s| *s >= 0),
        Runtime,
        "{name}: negative padding is not supported, got {}",
        Shape(&c.padding)
    );
    ensure!(
        ws[2..].iter().all(|s| *s > 0),
        Runtime,
        "{name}: kernel size should be greater than zero, got weight of size {}",
        Shape(ws)
    );
    ensure!(
        ws[0] % c.groups == 0 && ws[0] >= c.groups,
        Runtime,
        "Given groups={}, expected weight to be at least {} at dimension 0 and divisible by it, but got weight of size {} instead",
        c.groups,
        c.groups,
        Shape(ws)
    );
    Ok(())
}
fn check_bias(bias: Option<&Tensor>, n: i64, ws: &[i64]) -> Result<()> {
    if let Some(b) = bias {
        ensure!(
            b.sizes()[..] == [n],
            Runtime,
            "Given weight of size {}, expected bias to be 1-dimensional with {n} elements, but got bias of size {} instead",
            Shape(ws),
            Shape(&b.sizes())
        );
    }
    Ok(())
}
/// [`conv`] with padding `"same"` or `"valid"`.
///
/// # Errors
/// As [`conv`]; strided convolutions cannot keep the size.
pub fn conv_named(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    stride: &[i64],
    padding: &str,
    dilation: &[i64],
    groups: i64,
    n: usize,
) -> Result<Tensor> {
    match padding {
        "valid" => conv(x, weight, bias, stride, &[0], dilation, groups, n),
        "same" => {
            ensure!(
                stride.iter().all(|s| *s == 1),
                Runtime,
                "padding='same' is not supported for strided convolutions"
            );
            let name = ["conv1d", "conv2d", "conv3d"][n - 1];
            let d = fill(name, "dilation", dilation, n)?;
            let ws = weight.sizes();
            ensure!(
                ws.len() == n + 2,
                Runtime,
                "expected {}-dimensional weight for {name}, but got weight of size {}",
                n + 2,
                Shape(&ws)
            );
            let total: Vec<i64> = (0..n).map(|i| d[i] * (ws[i + 2] - 1)).collect();
            if total.iter().all(|t| t % 2 == 0) {
                let half: Vec<i64> = total.iter().map(|t| t / 2).collect();
                return conv(x, weight, bias, stride, &half, dilation, groups, n);
            }
            // An odd total: one more on the right.
            let pad: Vec<i64> = total.iter().rev().flat_map(|t| [t / 2, t - t / 2]).collect();
            conv(
                &crate::ops::join::constant_pad_nd(x, &pad, Number::Int(0))?,
                weight,
                bias,
                stride,
                &[0],
                dilation,
                groups,
                n,
            )
        }
        _ => Err(err!(Runtime, "Invalid padding string: '{padding}'")),
    }
}
/// Transposed convolution: the gradient of a convolution with respect to its input, as an operator of its own. Weight is
/// (channels, out/groups, kernel…).
///
/// # Errors
/// `Runtime` for shapes that do not fit.
#[allow(clippy::too_many_arguments)]
pub fn conv_transpose(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    stride: &[i64],
    padding: &[i64],
    output_padding: &[i64],
    groups: i64,
    dilation: &[i64],
    n: usize,
) -> Result<Tensor> {
    let name = ["conv_transpose1d", "conv_transpose2d", "conv_transpose3d"][n - 1];
    if x.dim() == n + 1 && weight.dim() == n + 2 {
        let y = conv_transpose(
            &view::unsqueeze(x, 0)?,
            weight,
            bias,
            stride,
            padding,
            output_padding,
            groups,
            dilation,
            n,
        )?;
        return view::squeeze(&y, Some(&[0]));
    }
    let (xs, ws) = (x.sizes(), weight.sizes());
    ensure!(
        xs.len() == n + 2 && ws.len() == n + 2,
        Runtime,
        "Expected {}D (unbatched) or {}D (batched) input to {name}, but got input of size: {}",
        n + 1,
        n + 2,
        Shape(&xs)
    );
    let c = Conv {
        stride: fill(name, "stride", stride, n)?,
        padding: fill(name, "padding", padding, n)?,
        dilation: fill(name, "dilation", dilation, n)?,
        groups,
    };
    check(name, &c, &ws)?;
    let extra = fill(name, "output_padding", output_padding, n)?;
    ensure!(
        xs[1] == ws[0],
        Runtime,
        "Given transposed=1, weight of size {}, expected input{} to have {} channels, but got {} channels instead",
        Shape(&ws),
        Shape(&xs),
        ws[0],
        xs[1]
    );
    check_bias(bias, ws[1] * groups, &ws)?;
    let mut spatial = Dims::new();
    for i in 0..n {
        ensure!(
            extra[i] < c.stride[i] || extra[i] < c.dilation[i],
            Runtime,
            "output padding must be smaller than either stride or dilation, but got output_padding {} stride {} dilation {}",
            extra[i],
            c.stride[i],
            c.dilation[i]
        );
        let size = (xs[i + 2] - 1) * c.stride[i] - 2 * c.padding[i] + c.dilation[i] * (ws[i + 2] - 1) + extra[i] + 1;
        ensure!(
            size > 0,
            Runtime,
            "Given input size per channel: {}. Calculated output size per channel is not positive",
            Shape(&xs[2..])
        );
        spatial.push(size);
    }
    let y = apply1(Convolution::Input(c, spatial), &[x, weight], Dest::New)?;
    match bias {
        Some(b) => {
            let mut shape: Dims = SmallVec::from_elem(1, n + 2);
            shape[1] = b.numel();
            e::add(&y, &view::reshape(b, &shape)?)
        }
        None => Ok(y),
    }
}
