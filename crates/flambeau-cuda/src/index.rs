//! Indexed reads and writes, and what is chosen by a mask.

use crate::args::{Args, Walk, MAX_RANK};
use crate::backend::CudaBackend;
use crate::codegen::{Library, Unit};
use crate::driver::{Extent, Function};
use crate::{elementwise, reduce};
use flambeau_core::*;
use std::sync::Arc;

/// Index tensors that a kernel takes (`MAX_INDICES` in the kernels).
const MAX_INDICES: usize = 8;

const NAMES: &[&str] = &[
    "index_read",
    "index_write_f32",
    "index_write_f64",
    "index_write_i64",
    "index_write_c32",
    "index_write_c64",
    "index_winner",
    "compact",
];

/// The kernels, which are the same for every dtype.
pub(crate) fn unit() -> Unit {
    Unit { library: Some(Library::Index), body: String::new(), names: NAMES.iter().map(|s| s.to_string()).collect() }
}

fn kernels(b: &CudaBackend) -> Result<Arc<[Function]>> {
    b.kernels(b"index", || Ok(unit()))
}

/// Operands in the order in which a walk's strides are: x, values, then the indices.
fn strides<'a>(x: &Operand<'a>, values: &Operand<'a>, index: &[Index<'a>]) -> SmallVec<[&'a [i64]; 10]> {
    [x.strides, values.strides].into_iter().chain(index.iter().map(|i| i.values.strides)).collect()
}

/// `IndexArgs`
fn arguments(
    b: &CudaBackend,
    w: &Walk,
    serial: &Walk,
    x: &Operand,
    values: &Operand,
    index: &[Index],
    how: i64,
) -> Args {
    let mut args = Args::new();
    args.walk(&w.sizes).walk(&serial.sizes);
    args.operand(x, &w.strides[0]).operand(values, &w.strides[1]);
    args.array(&serial.strides[0], MAX_RANK).array(&serial.strides[1], MAX_RANK);
    for k in 0..MAX_INDICES {
        args.array(serial.strides.get(2 + k).map_or(&[], |s| &s[..]), MAX_RANK);
    }
    args.i64(x.dtype.size() as i64).i64(index.len() as i64).i64(how).ptr(b.error_address());
    for k in 0..MAX_INDICES {
        match index.get(k) {
            Some(i) => {
                args.ptr(i.values.ptr).i64((i.values.dtype == DType::I32) as i64).i64(i.size).i64(i.stride);
                args.i64(i.wrap as i64).i64(i.dim as i64).array(&w.strides[2 + k], MAX_RANK)
            }
            None => args.array(&[], 6 + MAX_RANK),
        };
    }
    args
}

/// A walk over one element.
fn nothing(operands: usize) -> Walk {
    let zeros: Dims = SmallVec::new();
    let list: SmallVec<[&[i64]; 10]> = (0..operands).map(|_| &zeros[..]).collect();
    Walk::collapse(&[], &list)
}

fn check(index: &[Index], walk: &Walk) -> Result<()> {
    if index.len() > MAX_INDICES || !walk.fits() {
        return unsupported("more dimensions than an indexing kernel takes");
    }
    if index.iter().any(|i| !matches!(i.values.dtype, DType::I64 | DType::I32)) {
        bail!(Index, "tensors used as indices must be long or int tensors");
    }
    Ok(())
}

/// See [`Backend::index_read`].
pub(crate) fn read(b: &CudaBackend, x: &Operand, index: &[Index], out: &Operand) -> Result<()> {
    if out.numel() == 0 {
        return Ok(());
    }
    let walk = Walk::collapse(out.sizes, &strides(x, out, index));
    check(index, &walk)?;
    let kernels = kernels(b)?;
    let mut args = arguments(b, &walk, &nothing(2 + index.len()), x, out, index, 0);
    b.launch(kernels[0], Extent::linear(walk.numel()), &mut args)?;
    b.check_index()
}

/// See [`Backend::index_write`].
pub(crate) fn write(b: &CudaBackend, x: &Operand, index: &[Index], values: &Operand, how: Write) -> Result<()> {
    if values.numel() == 0 {
        return Ok(());
    }
    let all = strides(x, values, index);
    let kernels = kernels(b)?;
    // The last of several replacements: found in parallel when that pays. Values of another dtype are converted on the way, which
    // the kernel in order does.
    let walk = Walk::collapse(values.sizes, &all);
    check(index, &walk)?;
    if how == Write::Set && x.dtype == values.dtype {
        let (low, extent) = reach(x, index, values.sizes);
        let winner = b.scratch(extent as usize * 8)?;
        b.fill_bytes(winner.ptr(), 0, extent as usize * 8)?;
        for phase in 0..2 {
            let mut args = arguments(b, &walk, &nothing(2 + index.len()), x, values, index, 0);
            args.ptr(winner.ptr()).i64(low).i64(phase);
            b.launch(kernels[6], Extent::linear(walk.numel()), &mut args)?;
        }
        return b.check_index();
    }
    // Dimensions along which the destination itself advances never meet; the others are gone through in order.
    let apart = |d: usize| x.strides[d] != 0;
    let pick = |v: &[i64], want: bool| -> Dims { (0..v.len()).filter(|d| apart(*d) == want).map(|d| v[d]).collect() };
    let split = |want: bool| -> Walk {
        let owned: SmallVec<[Dims; 10]> = all.iter().map(|s| pick(s, want)).collect();
        let list: Vec<&[i64]> = owned.iter().map(|s| &s[..]).collect();
        Walk::collapse(&pick(values.sizes, want), &list)
    };
    let (outer, serial) = (split(true), split(false));
    check(index, &outer)?;
    check(index, &serial)?;
    let kernel = match x.dtype.class() {
        Class::F32 => kernels[1],
        Class::F64 => kernels[2],
        Class::I64 => kernels[3],
        Class::C32 => kernels[4],
        Class::C64 => kernels[5],
    };
    let mut args = arguments(b, &outer, &serial, x, values, index, how as i64);
    b.launch(kernel, Extent::linear(outer.numel()), &mut args)?;
    b.check_index()
}

/// The lowest place (in elements from the operand's first) that writes can reach, and how many places there are from it.
fn reach(x: &Operand, index: &[Index], sizes: &[i64]) -> (i64, i64) {
    let (mut low, mut high) = (0i64, 0i64);
    let spans = sizes.iter().zip(x.strides).map(|(n, s)| (n - 1) * s);
    for span in spans.chain(index.iter().map(|i| (i.size - 1).max(0) * i.stride)) {
        if span < 0 {
            low += span;
        } else {
            high += span;
        }
    }
    (low, high - low + 1)
}

/// 1 where `x` is not zero, as bool.
fn truth(class: Class) -> [Step; 1] {
    [Step { op: StepOp::Convert(DType::Bool, Class::I64), class, args: [0; 4] }]
}

/// See [`Backend::count_nonzero`].
pub(crate) fn count_nonzero(b: &CudaBackend, x: &Operand) -> Result<i64> {
    if x.numel() == 0 {
        return Ok(0);
    }
    let steps = truth(x.dtype.class());
    let program = Program { inputs: &[Input::Operand(x.dtype.class())], steps: &steps, results: &[1] };
    let total = b.scratch(8)?;
    let sizes: Dims = SmallVec::from_elem(1, x.sizes.len());
    let out = b.over(total.ptr(), DType::I64, &sizes, &sizes);
    let dims = (1u64 << x.sizes.len()) - 1;
    reduce::reduce(b, Reduction::Sum, &program, &[*x], dims, &[out])?;
    let mut count = 0i64;
    b.download(total.ptr(), (&raw mut count).cast(), 8)?;
    Ok(count)
}

/// Flags (bool, row-major) and running counts of the elements of `x` that are not zero, then the kernel that uses them.
fn compact(b: &CudaBackend, mask: &Operand, x: Option<&Operand>, out: &Operand) -> Result<()> {
    let n = mask.numel();
    if n == 0 || out.numel() == 0 {
        return Ok(());
    }
    let (flags, counts) = (b.scratch(n as usize)?, b.scratch(n as usize * 8)?);
    let dense = contiguous_strides(mask.sizes);
    let steps = truth(mask.dtype.class());
    let program = Program { inputs: &[Input::Operand(mask.dtype.class())], steps: &steps, results: &[1] };
    elementwise::map(b, &program, &[*mask], &[b.over(flags.ptr(), DType::Bool, mask.sizes, &dense)])?;
    let (sizes, strides) = ([n], [1]);
    let flat = b.over(flags.ptr(), DType::Bool, &sizes, &strides);
    reduce::scan(b, Scan::Sum, &flat, 0, &[b.over(counts.ptr(), DType::I64, &sizes, &strides)])?;
    let kernels = kernels(b)?;
    let source = x.unwrap_or(mask);
    // Coordinates are those of the dimensions as they are; elements may be walked collapsed.
    let walk = if x.is_some() {
        Walk::collapse(source.sizes, &[source.strides])
    } else {
        Walk {
            sizes: source.sizes.iter().rev().copied().collect(),
            strides: std::iter::once(source.strides.iter().rev().copied().collect()).collect(),
        }
    };
    if !walk.fits() {
        return unsupported("more dimensions than a kernel takes");
    }
    let mut args = Args::new();
    args.walk(&walk.sizes).operand(source, &walk.strides[0]).operand(&flat, &[1]);
    args.ptr(counts.ptr()).ptr(out.ptr).i64(out.strides[0]).i64(out.strides.get(1).copied().unwrap_or(0));
    args.i64(source.dtype.size() as i64).i64(x.is_none() as i64);
    b.launch(kernels[7], Extent::linear(n), &mut args)
}

/// See [`Backend::nonzero`].
pub(crate) fn nonzero(b: &CudaBackend, x: &Operand, out: &Operand) -> Result<()> {
    compact(b, x, None, out)
}

/// See [`Backend::masked_select`].
pub(crate) fn masked_select(b: &CudaBackend, x: &Operand, mask: &Operand, out: &Operand) -> Result<()> {
    compact(b, mask, Some(x), out)
}
