//! Softmax, layer normalisation and cross entropy.

use crate::args::{Args, Walk};
use crate::backend::CudaBackend;
use crate::codegen::{self, Library, Unit};
use crate::driver::{Extent, Function};
use crate::reduce;
use flambeau_core::*;
use std::sync::Arc;

/// Rows up to this length, and rows that do not lie in one piece, go to one thread each.
const SHORT: i64 = 32;
const THREADS: u32 = 128;

/// `(function, parameter)`; each in two forms, by thread and by block, but the last.
const KERNELS: [(&str, &str); 5] = [
    ("softmax", "RowArgs"),
    ("softmax_grad", "RowArgs"),
    ("layer_norm", "NormArgs"),
    ("layer_norm_grad", "NormArgs"),
    ("cross_entropy", "LossArgs"),
];

/// The kernels for one float dtype.
pub(crate) fn unit(key: &[u8], class: Class, code: i32) -> Unit {
    let mut list: Vec<(&str, &str, Option<u32>, usize)> = Vec::new();
    for (function, parameter) in KERNELS {
        list.push((function, parameter, Some(1), 0));
        list.push((function, parameter, Some(THREADS), THREADS as usize * 8));
    }
    list.push(("cross_entropy_grad", "LossArgs", None, 0));
    codegen::instances(Library::Rows, &codegen::kernel_name("k", key), class, &[code], &list)
}

fn kernels(b: &CudaBackend, name: &str, dtype: DType) -> Result<Arc<[Function]>> {
    ensure!(dtype.is_float(), NotImplemented, "\"{name}\" not implemented for '{}'", dtype.title());
    let (class, code) = (dtype.class(), codegen::dtype_code(dtype, b.generic()));
    let key = [b'o', class as u8, code as u8];
    b.kernels(&key, || Ok(unit(&key, class, code)))
}

/// Which of a kernel's two forms, and how it is launched.
fn form(rows: i64, n: i64, along: i64) -> (usize, Extent) {
    if n <= SHORT || (along != 1 && rows >= SHORT) {
        (0, Extent::linear(rows))
    } else {
        (1, Extent::blocks(rows, THREADS))
    }
}

#[allow(clippy::too_many_arguments)]
fn run_rows(
    b: &CudaBackend,
    which: usize,
    name: &str,
    x: &Operand,
    y: Option<&Operand>,
    out: &Operand,
    dim: usize,
    log: bool,
) -> Result<()> {
    if out.numel() == 0 {
        return Ok(());
    }
    let without = |v: &[i64]| -> Dims { v.iter().enumerate().filter(|(d, _)| *d != dim).map(|(_, v)| *v).collect() };
    let y = y.unwrap_or(x);
    let strides = [without(x.strides), without(y.strides), without(out.strides)];
    let walk = Walk::collapse(&without(x.sizes), &[&strides[0], &strides[1], &strides[2]]);
    if !walk.fits() {
        return unsupported("rows in more than 8 dimensions");
    }
    let along = |o: &Operand| o.strides.get(dim).copied().unwrap_or(0);
    let n = x.sizes.get(dim).copied().unwrap_or(1);
    let kernels = kernels(b, name, x.dtype)?;
    let (kind, extent) = form(walk.numel(), n, along(x));
    let mut args = Args::new();
    args.walk(&walk.sizes).i64(n).i64(along(x)).i64(along(y)).i64(along(out)).i64(log as i64);
    for (o, s) in [x, y, out].into_iter().zip(&walk.strides) {
        args.operand(o, s);
    }
    b.launch(kernels[2 * which + kind], extent, &mut args)
}

/// See [`Backend::softmax`].
pub(crate) fn softmax(b: &CudaBackend, x: &Operand, dim: usize, log: bool, out: &Operand) -> Result<()> {
    run_rows(b, 0, "softmax", x, None, out, dim, log)
}

/// See [`Backend::softmax_grad`].
pub(crate) fn softmax_grad(
    b: &CudaBackend,
    g: &Operand,
    y: &Operand,
    dim: usize,
    log: bool,
    gx: &Operand,
) -> Result<()> {
    if g.dtype != y.dtype {
        return unsupported("softmax_grad of mixed dtypes");
    }
    run_rows(b, 1, "softmax_grad", g, Some(y), gx, dim, log)
}

/// Row and column strides of a matrix.
fn matrix(args: &mut Args, x: Option<&Operand>) {
    args.matrix(x, x.map_or(0, |x| x.strides[0]), x.and_then(|x| x.strides.get(1).copied()).unwrap_or(0));
}
/// A vector along the rows.
fn column(args: &mut Args, x: Option<&Operand>) {
    args.matrix(x, x.and_then(|x| x.strides.first().copied()).unwrap_or(0), 0);
}
/// A vector along the columns.
fn row(args: &mut Args, x: Option<&Operand>) {
    args.matrix(x, 0, x.and_then(|x| x.strides.first().copied()).unwrap_or(0));
}

/// See [`Backend::layer_norm`].
#[allow(clippy::too_many_arguments)]
pub(crate) fn layer_norm(
    b: &CudaBackend,
    x: &Operand,
    weight: Option<&Operand>,
    bias: Option<&Operand>,
    eps: f64,
    out: &Operand,
    mean: &Operand,
    rstd: &Operand,
) -> Result<()> {
    let (rows, n) = (x.sizes[0], x.sizes[1]);
    if rows == 0 {
        return Ok(());
    }
    let kernels = kernels(b, "layer_norm", x.dtype)?;
    let (kind, extent) = form(rows, n, x.strides[1]);
    let mut args = Args::new();
    args.i64(rows).i64(n).f64(eps);
    matrix(&mut args, Some(x));
    matrix(&mut args, None);
    matrix(&mut args, Some(out));
    column(&mut args, Some(mean));
    column(&mut args, Some(rstd));
    row(&mut args, weight);
    row(&mut args, bias);
    b.launch(kernels[4 + kind], extent, &mut args)
}

/// See [`Backend::layer_norm_grad`]; the first operands are gradient, input, mean and reciprocal deviation.
pub(crate) fn layer_norm_grad(
    b: &CudaBackend,
    [g, x, mean, rstd]: [&Operand; 4],
    weight: Option<&Operand>,
    gx: Option<&Operand>,
    gw: Option<&Operand>,
    gb: Option<&Operand>,
) -> Result<()> {
    let (rows, n) = (x.sizes[0], x.sizes[1]);
    if let Some(gx) = gx.filter(|gx| gx.numel() > 0) {
        if g.dtype != x.dtype {
            return unsupported("layer_norm_grad of mixed dtypes");
        }
        let kernels = kernels(b, "layer_norm_grad", x.dtype)?;
        let (kind, extent) = form(rows, n, x.strides[1]);
        let mut args = Args::new();
        args.i64(rows).i64(n).f64(0.0);
        matrix(&mut args, Some(x));
        matrix(&mut args, Some(g));
        matrix(&mut args, Some(gx));
        column(&mut args, Some(mean));
        column(&mut args, Some(rstd));
        row(&mut args, weight);
        row(&mut args, None);
        b.launch(kernels[6 + kind], extent, &mut args)?;
    }
    // Sums over the rows: reductions of small programs.
    let class = x.dtype.class();
    let spread = [mean.strides.first().copied().unwrap_or(0), 0];
    let rstd_spread = [rstd.strides.first().copied().unwrap_or(0), 0];
    let mean = b.over(mean.ptr, mean.dtype, x.sizes, &spread);
    let rstd = b.over(rstd.ptr, rstd.dtype, x.sizes, &rstd_spread);
    let input = Input::Operand(class);
    let sizes = [1, n];
    if let Some(gw) = gw {
        let apply = |f, a, b| Step { op: StepOp::Apply(f), class, args: [a, b, 0, 0] };
        let steps = [apply(ScalarFn::Sub, 1, 2), apply(ScalarFn::Mul, 4, 3), apply(ScalarFn::Mul, 0, 5)];
        let program = Program { inputs: &[input; 4], steps: &steps, results: &[6] };
        let strides = [0, gw.strides[0]];
        reduce::reduce(
            b,
            Reduction::Sum,
            &program,
            &[*g, *x, mean, rstd],
            1,
            &[b.over(gw.ptr, gw.dtype, &sizes, &strides)],
        )?;
    }
    if let Some(gb) = gb {
        let program = Program { inputs: &[input], steps: &[], results: &[0] };
        let strides = [0, gb.strides[0]];
        reduce::reduce(b, Reduction::Sum, &program, &[*g], 1, &[b.over(gb.ptr, gb.dtype, &sizes, &strides)])?;
    }
    Ok(())
}

/// `LossArgs`
fn loss_args(b: &CudaBackend, x: &Operand, target: &Operand, ignore: i64, others: [Option<&Operand>; 4]) -> Args {
    let [loss, lse, g, out] = others;
    let mut args = Args::new();
    args.i64(x.sizes[0]).i64(x.sizes[1]).i64(ignore);
    matrix(&mut args, Some(x));
    column(&mut args, Some(target));
    column(&mut args, loss);
    column(&mut args, lse);
    column(&mut args, g);
    matrix(&mut args, out);
    args.ptr(b.error_address());
    args
}

/// See [`Backend::cross_entropy`].
pub(crate) fn cross_entropy(
    b: &CudaBackend,
    x: &Operand,
    target: &Operand,
    ignore: i64,
    loss: &Operand,
    lse: &Operand,
) -> Result<()> {
    if x.sizes[0] == 0 {
        return Ok(());
    }
    let kernels = kernels(b, "cross_entropy", x.dtype)?;
    let (kind, extent) = form(x.sizes[0], x.sizes[1], x.strides[1]);
    let mut args = loss_args(b, x, target, ignore, [Some(loss), Some(lse), None, None]);
    b.launch(kernels[8 + kind], extent, &mut args)?;
    b.check_index()
}

/// See [`Backend::cross_entropy_grad`].
pub(crate) fn cross_entropy_grad(
    b: &CudaBackend,
    g: &Operand,
    x: &Operand,
    target: &Operand,
    lse: &Operand,
    ignore: i64,
    gx: &Operand,
) -> Result<()> {
    if gx.numel() == 0 {
        return Ok(());
    }
    if gx.dtype != x.dtype {
        let room = b.scratch(gx.numel() as usize * x.dtype.size())?;
        let strides = contiguous_strides(gx.sizes);
        let middle = b.over(room.ptr(), x.dtype, gx.sizes, &strides);
        cross_entropy_grad(b, g, x, target, lse, ignore, &middle)?;
        return b.copy(&middle, gx);
    }
    let kernels = kernels(b, "cross_entropy_grad", x.dtype)?;
    let mut args = loss_args(b, x, target, ignore, [None, Some(lse), Some(g), Some(gx)]);
    b.launch(kernels[10], Extent::linear(gx.numel()), &mut args)
}
