//! Scaled dot-product attention and its gradients.

use crate::args::Args;
use crate::backend::CudaBackend;
use crate::codegen::{self, Library, Unit};
use crate::driver::{Extent, Function};
use flambeau_core::*;
use std::sync::Arc;

const THREADS: u32 = 128;
/// Features of a head that a block holds: `FEATURES` of the kernels by thread.
const WIDEST: i64 = 4 * THREADS as i64;

/// The kernels for one float dtype: the result, the queries' gradient, the keys' and values' gradients.
pub(crate) fn unit(key: &[u8], class: Class, code: i32) -> Unit {
    let list = ["attention", "attention_query_grad", "attention_key_grad"]
        .map(|f| (f, "AttentionArgs", Some(THREADS), 2 * 8 * THREADS as usize));
    codegen::instances(Library::Attention, &codegen::kernel_name("k", key), class, &[code], &list)
}

fn kernels(b: &CudaBackend, dtype: DType) -> Result<Arc<[Function]>> {
    ensure!(dtype.is_float(), NotImplemented, "\"attention\" not implemented for '{}'", dtype.title());
    let (class, code) = (dtype.class(), codegen::dtype_code(dtype, b.generic()));
    let key = [b't', class as u8, code as u8];
    b.kernels(&key, || Ok(unit(&key, class, code)))
}

/// `Heads`: an operand broadcast to four dimensions.
fn heads(args: &mut Args, x: Option<&Operand>) {
    let Some(x) = x else {
        args.array(&[], 6);
        return;
    };
    let mut strides = [0; 4];
    let skipped = 4 - x.sizes.len();
    for (d, (&size, &stride)) in x.sizes.iter().zip(x.strides).enumerate() {
        strides[skipped + d] = if size == 1 { 0 } else { stride };
    }
    args.ptr(x.ptr).i64(x.dtype as i64).array(&strides, 4);
}

/// `AttentionArgs`; operands in the struct's order from `g` on, without the mask.
fn arguments(
    name: &str,
    [q, k, v]: [&Operand; 3],
    p: &Attention,
    [g, out, lse, gq, gk, gv]: [Option<&Operand>; 6],
) -> Result<Args> {
    let four = |x: &Operand| x.sizes.len() == 4 && x.sizes[..2] == q.sizes[..2] && x.dtype == q.dtype;
    ensure!(
        four(q) && four(k) && four(v) && q.sizes[3] == k.sizes[3] && k.sizes[2] == v.sizes[2],
        Runtime,
        "{name}: query {}, key {} and value {} do not fit",
        Shape(q.sizes),
        Shape(k.sizes),
        Shape(v.sizes)
    );
    let full = [q.sizes[0], q.sizes[1], q.sizes[2], k.sizes[2]];
    if let Some(m) = &p.mask {
        let r = m.sizes.len();
        ensure!(
            r <= 4 && m.sizes.iter().zip(&full[4 - r..]).all(|(&a, &b)| a == 1 || a == b),
            Runtime,
            "{name}: a mask of sizes {} does not broadcast to {}",
            Shape(m.sizes),
            Shape(&full)
        );
    }
    if q.sizes[3].max(v.sizes[3]) > WIDEST {
        return unsupported("attention over heads of more than 512 features");
    }
    let mut args = Args::new();
    args.array(&full, 4).i64(q.sizes[3]).i64(v.sizes[3]).i64(p.causal as i64).f64(p.scale);
    let lse = lse.map(|x| {
        let (sizes, strides) = ([x.sizes[0], x.sizes[1], x.sizes[2], 1], [x.strides[0], x.strides[1], x.strides[2], 0]);
        (x, sizes, strides)
    });
    for x in [Some(q), Some(k), Some(v), g, out, p.mask.as_ref()] {
        heads(&mut args, x);
    }
    match &lse {
        Some((x, sizes, strides)) => heads(&mut args, Some(&Operand { sizes, strides, ..**x })),
        None => heads(&mut args, None),
    }
    for x in [gq, gk, gv] {
        heads(&mut args, x);
    }
    Ok(args)
}

/// See [`Backend::attention`].
pub(crate) fn attention(b: &CudaBackend, x: [&Operand; 3], p: &Attention, out: &Operand, lse: &Operand) -> Result<()> {
    let mut args = arguments("attention", x, p, [None, Some(out), Some(lse), None, None, None])?;
    if lse.numel() == 0 {
        return Ok(());
    }
    b.launch(kernels(b, out.dtype)?[0], Extent::blocks(lse.numel(), THREADS), &mut args)
}

/// See [`Backend::attention_grad`]; `to` are the gradients of queries, keys and values.
pub(crate) fn attention_grad(
    b: &CudaBackend,
    g: &Operand,
    x: [&Operand; 3],
    p: &Attention,
    out: &Operand,
    lse: &Operand,
    [gq, gk, gv]: [&Operand; 3],
) -> Result<()> {
    let operands = [Some(g), Some(out), Some(lse), Some(gq), Some(gk), Some(gv)];
    let mut args = arguments("attention_backward", x, p, operands)?;
    let kernels = kernels(b, out.dtype)?;
    if lse.numel() > 0 {
        b.launch(kernels[1], Extent::blocks(lse.numel(), THREADS), &mut args)?;
    }
    let keys: i64 = gk.sizes[..3].iter().product();
    if keys > 0 {
        b.launch(kernels[2], Extent::blocks(keys, THREADS), &mut args)?;
    }
    Ok(())
}
