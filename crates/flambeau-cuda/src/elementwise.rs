//! `map` and `fill`: one generated kernel for each structure of program.

use crate::args::{Args, Walk};
use crate::backend::CudaBackend;
use crate::codegen;
use crate::driver::Extent;
use flambeau_core::*;

/// The key under which a map kernel is kept.
pub(crate) fn key(program: &Program, x: &[Operand], out: &[Operand], generic: bool) -> Vec<u8> {
    let mut key = Vec::with_capacity(64);
    key.push(b'm');
    codegen::program_key(&mut key, program, x, generic);
    out.iter().for_each(|o| key.push(codegen::dtype_code(o.dtype, generic) as u8));
    key
}

/// See [`Backend::map`].
pub(crate) fn map(b: &CudaBackend, program: &Program, x: &[Operand], out: &[Operand]) -> Result<()> {
    let Some(first) = out.first() else {
        return Ok(());
    };
    if first.numel() == 0 {
        return Ok(());
    }
    // In the order of the output's memory: elements are independent, and a channels_last tensor becomes one run.
    let mut order: SmallVec<[usize; 8]> = (0..first.sizes.len()).collect();
    order.sort_by_key(|&d| std::cmp::Reverse(first.strides[d].unsigned_abs()));
    let pick = |v: &[i64]| -> Dims { order.iter().map(|&d| v[d]).collect() };
    let strides: SmallVec<[Dims; 6]> = x.iter().chain(out).map(|o| pick(o.strides)).collect();
    let slices: SmallVec<[&[i64]; 6]> = strides.iter().map(|s| &s[..]).collect();
    let walk = Walk::collapse(&pick(first.sizes), &slices);
    if !walk.fits() {
        return unsupported("map over more than 8 dimensions");
    }
    let generic = b.generic();
    let key = key(program, x, out, generic);
    let kernels = b.kernels(&key, || codegen::map(&codegen::kernel_name("map", &key), program, x, out, generic))?;
    let mut args = Args::new();
    args.walk(&walk.sizes);
    for (operand, strides) in x.iter().zip(&walk.strides) {
        args.operand(operand, strides);
    }
    if x.is_empty() {
        args.no_operand();
    }
    for (operand, strides) in out.iter().zip(&walk.strides[x.len()..]) {
        args.operand(operand, strides);
    }
    numbers(&mut args, program);
    b.launch(kernels[0], Extent::linear(walk.numel()), &mut args)
}

/// A program's numbers, at least one.
pub(crate) fn numbers(args: &mut Args, program: &Program) {
    let mut any = false;
    for input in program.inputs {
        if let Input::Number(x, class) = input {
            args.number(*x, *class);
            any = true;
        }
    }
    if !any {
        args.i64(0).i64(0);
    }
}

/// See [`Backend::fill`].
pub(crate) fn fill(b: &CudaBackend, out: &Operand, value: Number) -> Result<()> {
    let zero = match value {
        Number::Float(f) => f.to_bits() == 0,
        Number::Complex(c) => c.re.to_bits() == 0 && c.im.to_bits() == 0,
        other => !other.to_bool(),
    };
    if zero && out.is_contiguous() {
        return b.fill_bytes(out.ptr, 0, out.numel() as usize * out.dtype.size());
    }
    let class = match value {
        Number::Float(_) if out.dtype == DType::Bool => Class::F64,
        Number::Complex(_) if out.dtype == DType::Bool => Class::C64,
        _ => out.dtype.class(),
    };
    let program = Program { inputs: &[Input::Number(value, class)], steps: &[], results: &[0] };
    map(b, &program, &[], &[*out])
}
