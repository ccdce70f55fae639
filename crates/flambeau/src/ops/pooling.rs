//! Pooling over windows.

use crate::apply::{apply, apply1, Dest, Outputs};
use crate::autograd::node::{formally_reads, Vjp};
use crate::ops::{factory, indexing, view};
use crate::primitive::*;
use crate::tensor::{Meta, Tensor};
use flambeau_core::*;

#[derive(Clone)]
enum Pooling {
    /// x → maxima and, where asked for, their positions.
    Max {
        pool: Pool,
        sizes: Dims,
        positions: bool,
    },
    Avg(Pool, Dims),
    /// g → the input's gradient, of the given spatial sizes.
    AvgGrad(Pool, Dims),
}
impl Primitive for Pooling {
    fn name(&self) -> &'static str {
        match self {
            Pooling::Max { positions: true, .. } => "max_pool_with_indices",
            Pooling::Max { .. } => "max_pool",
            Pooling::Avg(..) => "avg_pool",
            Pooling::AvgGrad(..) => "avg_pool_backward",
        }
    }
    fn infer(&self, x: &[&Meta], out: &mut Draft) -> Result<()> {
        let (Pooling::Max { sizes: s, .. } | Pooling::Avg(_, s) | Pooling::AvgGrad(_, s)) = self;
        let mut sizes = Dims::from_slice(&x[0].sizes[..2]);
        sizes.extend_from_slice(s);
        out.push(sizes.clone(), x[0].dtype);
        if matches!(self, Pooling::Max { positions: true, .. }) {
            out.push_constant(sizes, DType::I64);
        }
        Ok(())
    }
    fn run(&self, on: &dyn Backend, x: &[Operand], out: &[Operand]) -> Result<()> {
        match self {
            Pooling::Max { pool, .. } => on.max_pool(&x[0], pool, &out[0], out.get(1)),
            Pooling::Avg(p, _) => on.avg_pool(&x[0], p, &out[0]),
            Pooling::AvgGrad(p, _) => on.avg_pool_grad(&x[0], p, &out[0]),
        }
    }
    fn saves(&self, _: Mask) -> Mask {
        if matches!(self, Pooling::Max { .. }) {
            output_bit(1)
        } else {
            0
        }
    }
    fn gradient_reads_operands(&self) -> bool {
        !matches!(self, Pooling::AvgGrad(..))
    }
    fn vjp(&self, cx: &Vjp, g: &[Option<Tensor>]) -> Result<Gradients> {
        let Some(g) = &g[0] else { return Ok(SmallVec::from_iter([None])) };
        let sizes = &cx.info(0).sizes;
        let spatial: Dims = sizes[2..].into();
        let out = match self {
            Pooling::Max { .. } => {
                let plane = [sizes[0], sizes[1], numel(&spatial)];
                let flat = [sizes[0], sizes[1], -1];
                let zeros = factory::zeros(&plane, g.dtype(), g.device())?;
                let windows = if g.numel() == 0 { [sizes[0], sizes[1], 0] } else { flat };
                let gx = indexing::scatter_add(
                    &zeros,
                    2,
                    &view::reshape(&cx.output(1)?, &windows)?,
                    &view::reshape(g, &windows)?,
                )?;
                view::reshape(&gx, sizes)?
            }
            Pooling::Avg(p, _) => apply1(Pooling::AvgGrad(p.clone(), spatial), &[g], Dest::New)?,
            Pooling::AvgGrad(p, _) => apply1(Pooling::Avg(p.clone(), spatial), &[g], Dest::New)?,
        };
        Ok(SmallVec::from_iter([Some(out)]))
    }
    fn key(&self, key: &mut PlanKey) {
        let (k, Pooling::Max { pool: p, sizes: s, .. } | Pooling::Avg(p, s) | Pooling::AvgGrad(p, s)) = (
            match self {
                Pooling::Max { positions: true, .. } => 0,
                Pooling::Max { .. } => 3,
                Pooling::Avg(..) => 1,
                Pooling::AvgGrad(..) => 2,
            },
            self,
        );
        key.word(k).words(s).words(&p.kernel).words(&p.stride).words(&p.padding).words(&p.dilation);
        key.word(p.count_include_pad as u64).word(p.divisor.unwrap_or(0) as u64);
    }
    crate::shareable!();
}

fn fill(name: &str, what: &str, v: &[i64], n: usize) -> Result<Vec<i64>> {
    match v.len() {
        1 => Ok(vec![v[0]; n]),
        l if l == n => Ok(v.to_vec()),
        _ => Err(err!(Runtime, "{name}: {what} must either be a single int, or a tuple of {n} ints")),
    }
}
/// Checks a window's geometry and works out the result's spatial sizes.
fn output_sizes(name: &str, xs: &[i64], p: &Pool, ceil: bool) -> Result<Dims> {
    let n = p.kernel.len();
    ensure!(
        xs.len() == n + 2,
        Runtime,
        "{name}(): Expected {}D or {}D (batch mode) tensor for input, but got sizes {}",
        n + 1,
        n + 2,
        Shape(xs)
    );
    ensure!(
        xs[1..].iter().all(|s| *s != 0),
        Runtime,
        "{name}(): Expected input to have non-zero size for non-batch dimensions, but got sizes {}",
        Shape(xs)
    );
    let mut out = Dims::new();
    for i in 0..n {
        ensure!(p.kernel[i] > 0, Runtime, "kernel size should be greater than zero, but got {}", Shape(&p.kernel));
        ensure!(p.stride[i] > 0, Runtime, "stride should not be zero, but got {}", Shape(&p.stride));
        ensure!(p.dilation[i] > 0, Runtime, "dilation should be greater than zero, but got {}", Shape(&p.dilation));
        ensure!(p.padding[i] >= 0, Runtime, "pad must be non-negative, but got pad: {}", p.padding[i]);
        ensure!(
            p.padding[i] * 2 <= (p.kernel[i] - 1) * p.dilation[i] + 1,
            Runtime,
            "pad should be at most half of effective kernel size, but got pad={}, kernel_size={} and dilation={}",
            p.padding[i],
            p.kernel[i],
            p.dilation[i]
        );
        let span = p.dilation[i] * (p.kernel[i] - 1) + 1;
        let room = xs[i + 2] + 2 * p.padding[i] - span;
        let mut size =
            if ceil { (room + p.stride[i] - 1).div_euclid(p.stride[i]) + 1 } else { room.div_euclid(p.stride[i]) + 1 };
        // A window that starts in the padding on the right does not count.
        if ceil && (size - 1) * p.stride[i] >= xs[i + 2] + p.padding[i] {
            size -= 1;
        }
        ensure!(
            size >= 1,
            Runtime,
            "Given input size: {}. Calculated output size is too small ({name})",
            Shape(&xs[1..])
        );
        out.push(size);
    }
    Ok(out)
}

/// Maxima over windows, and their positions in the flattened plane.
///
/// # Errors
/// `Runtime` for windows that do not fit.
#[allow(clippy::too_many_arguments)]
pub fn max_pool(
    x: &Tensor,
    kernel: &[i64],
    stride: &[i64],
    padding: &[i64],
    dilation: &[i64],
    ceil: bool,
    n: usize,
) -> Result<(Tensor, Tensor)> {
    let mut out = max_outputs(x, kernel, stride, padding, dilation, ceil, n, true)?;
    let i = out.pop().ok_or_else(|| err!(Runtime, "max_pool{n}d: missing result"))?;
    Ok((out.swap_remove(0), i))
}
/// Maxima over windows. Positions are found only where a gradient will need them.
///
/// # Errors
/// As [`max_pool`].
#[allow(clippy::too_many_arguments)]
pub fn max_pool_values(
    x: &Tensor,
    kernel: &[i64],
    stride: &[i64],
    padding: &[i64],
    dilation: &[i64],
    ceil: bool,
    n: usize,
) -> Result<Tensor> {
    let recorded = crate::mode::grad_enabled() && x.requires_grad();
    Ok(max_outputs(x, kernel, stride, padding, dilation, ceil, n, recorded)?.swap_remove(0))
}
#[allow(clippy::too_many_arguments)]
fn max_outputs(
    x: &Tensor,
    kernel: &[i64],
    stride: &[i64],
    padding: &[i64],
    dilation: &[i64],
    ceil: bool,
    n: usize,
    positions: bool,
) -> Result<Outputs> {
    let name = ["max_pool1d", "max_pool2d", "max_pool3d"][n - 1];
    if x.dim() == n + 1 {
        let out = max_outputs(&view::unsqueeze(x, 0)?, kernel, stride, padding, dilation, ceil, n, positions)?;
        return out.iter().map(|y| view::squeeze(y, Some(&[0]))).collect();
    }
    let kernel = fill(name, "kernel_size", kernel, n)?;
    let p = Pool {
        stride: if stride.is_empty() { kernel.clone() } else { fill(name, "stride", stride, n)? },
        padding: fill(name, "padding", padding, n)?,
        dilation: fill(name, "dilation", dilation, n)?,
        kernel,
        count_include_pad: true,
        divisor: None,
    };
    let sizes = output_sizes(name, &x.sizes(), &p, ceil)?;
    ensure!(
        !x.dtype().is_complex() && x.dtype() != DType::Bool,
        NotImplemented,
        "\"{name}\" not implemented for '{}'",
        x.dtype().title()
    );
    apply(Pooling::Max { pool: p, sizes, positions }, &[x], Dest::New)
}
/// Means over windows.
///
/// # Errors
/// `Runtime` for windows that do not fit.
#[allow(clippy::too_many_arguments)]
pub fn avg_pool(
    x: &Tensor,
    kernel: &[i64],
    stride: &[i64],
    padding: &[i64],
    ceil: bool,
    count_include_pad: bool,
    divisor: Option<i64>,
    n: usize,
) -> Result<Tensor> {
    let name = ["avg_pool1d", "avg_pool2d", "avg_pool3d"][n - 1];
    if x.dim() == n + 1 {
        return view::squeeze(
            &avg_pool(&view::unsqueeze(x, 0)?, kernel, stride, padding, ceil, count_include_pad, divisor, n)?,
            Some(&[0]),
        );
    }
    ensure!(divisor != Some(0), Runtime, "divisor must be not zero");
    if x.dtype() == DType::I64 {
        // Integer means are cut, as integer division is.
        let wide = crate::ops::elementwise::to_dtype(x, DType::F64)?;
        let mean = avg_pool(&wide, kernel, stride, padding, ceil, count_include_pad, divisor, n)?;
        return crate::ops::elementwise::to_dtype(&mean, DType::I64);
    }
    ensure!(x.dtype().is_float(), NotImplemented, "\"{name}\" not implemented for '{}'", x.dtype().title());
    let kernel = fill(name, "kernel_size", kernel, n)?;
    let p = Pool {
        stride: if stride.is_empty() { kernel.clone() } else { fill(name, "stride", stride, n)? },
        padding: fill(name, "padding", padding, n)?,
        dilation: vec![1; n],
        kernel,
        count_include_pad,
        divisor,
    };
    let sizes = output_sizes(name, &x.sizes(), &p, ceil)?;
    apply1(Pooling::Avg(p, sizes), &[x], Dest::New)
}
/// Means over as many windows as the result has places.
///
/// # Errors
/// `Runtime` for sizes that do not fit.
pub fn adaptive_avg_pool(x: &Tensor, size: &[i64], n: usize) -> Result<Tensor> {
    adaptive(x, size, n, "adaptive_avg_pool", &|part, dims| crate::ops::reduction::mean(part, dims, true))
}
/// Bounds of the windows along one dimension.
fn windows(n: i64, m: i64) -> Vec<(i64, i64)> {
    (0..m).map(|i| ((i * n) / m, ((i + 1) * n + m - 1) / m)).collect()
}
/// Stands for the input's own size in an adaptive pool's output sizes.
pub const KEEP: i64 = i64::MIN;
fn resolve(name: &str, n: usize, size: Vec<i64>, spatial: &[i64]) -> Result<Vec<i64>> {
    let size: Vec<i64> = size.iter().zip(spatial).map(|(s, x)| if *s == KEEP { *x } else { *s }).collect();
    ensure!(
        size.iter().all(|s| *s >= 0),
        Runtime,
        "{name}{n}d: elements of output_size must be greater than or equal to 0 but received {}",
        Shape(&size)
    );
    ensure!(
        size.iter().all(|s| *s <= 1 << 20),
        Runtime,
        "{name}{n}d: more than 2^20 windows along a dimension are not supported, output_size is {}",
        Shape(&size)
    );
    Ok(size)
}
fn adaptive(
    x: &Tensor,
    size: &[i64],
    n: usize,
    name: &str,
    of: &dyn Fn(&Tensor, &[i64]) -> Result<Tensor>,
) -> Result<Tensor> {
    let xs = x.sizes();
    let real = x.dtype().is_float() || x.dtype().is_complex();
    if size.iter().all(|s| *s == 1) && xs.len() >= n && (!real || (n > 1 && !(n + 1..=n + 2).contains(&xs.len()))) {
        // One window over everything is a mean, in any number of dimensions; it refuses integers itself.
        return of(x, &(1..=n as i64).map(|d| -d).collect::<Vec<_>>());
    }
    ensure!(
        xs.len() == n + 1 || xs.len() == n + 2,
        Runtime,
        "{name}{n}d(): Expected {}D or {}D tensor, but got {}",
        n + 1,
        n + 2,
        Shape(&xs)
    );
    let lead = xs.len() - n;
    let size = fill(name, "output_size", size, n)?;
    let size = resolve(name, n, size, &xs[lead..])?;
    ensure!(real, NotImplemented, "\"{name}{n}d\" not implemented for '{}'", x.dtype().title());
    for d in 1..xs.len() {
        ensure!(xs[d] > 0 || d < lead, Runtime, "{name}{n}d(): Expected input to have non-zero size for non-batch dimensions, but input has sizes {} with dimension {d} being empty", Shape(&xs));
    }
    if size.contains(&0) {
        let none = [&xs[..lead], &size].concat();
        return formally_reads(factory::empty(&none, x.dtype(), x.device())?, &[x], "adaptive_avg_pool");
    }
    if (0..n).all(|i| size[i] > 0 && xs[lead + i] % size[i] == 0) && name == "adaptive_avg_pool" {
        let kernel: Vec<i64> = (0..n).map(|i| xs[lead + i] / size[i]).collect();
        return avg_pool(x, &kernel, &kernel, &[0], false, true, None, n);
    }
    // Windows are products of intervals: one dimension after the other.
    let mut out = x.clone();
    for i in 0..n {
        let d = (lead + i) as i64;
        let parts: Vec<Tensor> = windows(xs[lead + i], size[i])
            .into_iter()
            .map(|(lo, hi)| of(&view::slice(&out, d, lo, hi, 1)?, &[d]))
            .collect::<Result<_>>()?;
        out = crate::ops::join::cat(&parts, d)?;
    }
    formally_reads(out, &[x], "adaptive_avg_pool")
}
/// Maxima over as many windows as the result has places, and their positions in the flattened plane.
///
/// # Errors
/// `Runtime` for sizes that do not fit.
pub fn adaptive_max_pool(x: &Tensor, size: &[i64], n: usize) -> Result<(Tensor, Tensor)> {
    let xs = x.sizes();
    ensure!(
        xs.len() == n + 1 || xs.len() == n + 2,
        Runtime,
        "adaptive_max_pool{n}d(): Expected {}D or {}D tensor, but got {}",
        n + 1,
        n + 2,
        Shape(&xs)
    );
    let lead = xs.len() - n;
    let size = fill("adaptive_max_pool", "output_size", size, n)?;
    let size = resolve("adaptive_max_pool", n, size, &xs[lead..])?;
    ensure!(xs[1..].iter().all(|s| *s > 0), Runtime, "adaptive_max_pool{n}d(): Expected input to have non-zero size for non-batch dimensions, but input has sizes {}", Shape(&xs));
    ensure!(
        x.dtype().is_float(),
        NotImplemented,
        "\"adaptive_max_pool{n}d\" not implemented for '{}'",
        x.dtype().title()
    );
    if size.contains(&0) {
        let sizes = [&xs[..lead], &size].concat();
        return Ok((factory::empty(&sizes, x.dtype(), x.device())?, factory::empty(&sizes, DType::I64, x.device())?));
    }
    // The position plane travels along: maxima of maxima, gathered.
    let plane = &xs[lead..];
    let mut positions = view::expand(&view::reshape(&factory::arange_to(numel(plane), x.device())?, plane)?, &xs)?;
    let mut values = x.clone();
    for i in (0..n).rev() {
        let d = (lead + i) as i64;
        let (mut vs, mut ps) = (Vec::new(), Vec::new());
        for (lo, hi) in windows(xs[lead + i], size[i]) {
            let (v, at) = crate::ops::reduction::max_dim(&view::slice(&values, d, lo, hi, 1)?, d, true)?;
            ps.push(indexing::gather(&view::slice(&positions, d, lo, hi, 1)?, d, &at)?);
            vs.push(v);
        }
        values = crate::ops::join::cat(&vs, d)?;
        positions = crate::ops::join::cat(&ps, d)?;
    }
    Ok((formally_reads(values, &[x], "adaptive_max_pool")?, positions))
}
