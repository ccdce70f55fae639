//! Reductions and scans.

use crate::args::{Args, Walk, MAX_RANK};
use crate::backend::CudaBackend;
use crate::codegen::{self, Library, Unit};
use crate::driver::Extent;
use crate::elementwise;
use flambeau_core::*;

/// Elements that one thread combines by itself.
const THREAD_PART: i64 = 256;
/// Elements that one block of 256 threads combines.
const BLOCK_PART: i64 = 8192;
/// Parts that one thread merges.
const MERGE_PART: i64 = 64;
/// Extents up to this go to one thread an output.
const SHORT: i64 = 32;
/// Elements of a scan that one thread runs over by itself.
const SCAN_PART: i64 = 512;

/// The accumulator's type and its size in bytes.
pub(crate) fn accumulator(how: Reduction, class: Class) -> Result<(String, usize)> {
    let c = codegen::class_name(class);
    let size = class.size();
    let complex = matches!(class, Class::C32 | Class::C64);
    let float = matches!(class, Class::F32 | Class::F64);
    let extreme = |largest: bool, output: u8| {
        if complex {
            return unsupported("extreme of complex numbers");
        }
        Ok((format!("ExtremeOf<{c}, {largest}, {output}>"), 16))
    };
    match how {
        Reduction::Sum => Ok((format!("SumOf<{c}>"), size)),
        Reduction::ScaledSum(_) => Ok((format!("ScaledSumOf<{c}>"), size)),
        Reduction::Prod => Ok((format!("ProdOf<{c}>"), size)),
        Reduction::Any => Ok((format!("TruthOf<{c}, true>"), 8)),
        Reduction::All => Ok((format!("TruthOf<{c}, false>"), 8)),
        Reduction::Max => extreme(true, 0),
        Reduction::Min => extreme(false, 0),
        Reduction::ArgMax => extreme(true, 1),
        Reduction::ArgMin => extreme(false, 1),
        Reduction::MaxIndex => extreme(true, 2),
        Reduction::MinIndex => extreme(false, 2),
        Reduction::VarMean { .. } if float => Ok((format!("VarianceOf<{c}>"), 3 * size)),
        Reduction::VarMean { .. } => unsupported("variance of numbers that are not real"),
    }
}

/// The kernels of a reduction.
pub(crate) fn unit(
    key: &[u8],
    how: Reduction,
    program: &Program,
    x: &[Operand],
    out: DType,
    generic: bool,
) -> Result<Unit> {
    let (acc, _) = accumulator(how, program.class_of(program.results[0]))?;
    codegen::reduce(&codegen::kernel_name("reduce", key), program, &acc, x, out, generic)
}

/// The key under which a reduction's kernels are kept.
pub(crate) fn key(how: Reduction, program: &Program, x: &[Operand], out: DType, generic: bool) -> Result<Vec<u8>> {
    let mut key = vec![b'r'];
    codegen::program_key(&mut key, program, x, generic);
    key.push(codegen::dtype_code(out, generic) as u8);
    key.extend(accumulator(how, program.class_of(program.results[0]))?.0.bytes());
    Ok(key)
}

/// See [`Backend::reduce`].
pub(crate) fn reduce(
    b: &CudaBackend,
    how: Reduction,
    program: &Program,
    x: &[Operand],
    dims: u64,
    out: &[Operand],
) -> Result<()> {
    let (_, acc_size) = accumulator(how, program.class_of(program.results[0]))?;
    let Some(first) = x.first() else {
        return unsupported("reduce without operands");
    };
    if out[0].numel() == 0 {
        return Ok(());
    }
    let reduced = |d: usize| dims >> d & 1 == 1;
    let pick = |v: &[i64], want: bool| -> Dims { (0..v.len()).filter(|d| reduced(*d) == want).map(|d| v[d]).collect() };
    let outer_strides: SmallVec<[Dims; 6]> = x.iter().chain(out).map(|o| pick(o.strides, false)).collect();
    let inner_strides: SmallVec<[Dims; 6]> = x.iter().map(|o| pick(o.strides, true)).collect();
    let outer = Walk::collapse(
        &pick(first.sizes, false),
        &outer_strides.iter().map(|s| &s[..]).collect::<SmallVec<[&[i64]; 6]>>(),
    );
    let inner = Walk::collapse(
        &pick(first.sizes, true),
        &inner_strides.iter().map(|s| &s[..]).collect::<SmallVec<[&[i64]; 6]>>(),
    );
    if !outer.fits() || !inner.fits() {
        return unsupported("reduce over more than 8 dimensions");
    }
    let (n, outputs) = (inner.numel(), outer.numel());
    // By thread where neighbouring outputs lie closer together than neighbouring inputs.
    let closest = |w: &Walk| {
        w.strides[0]
            .iter()
            .zip(&w.sizes)
            .filter(|(s, n)| **s != 0 && **n > 1)
            .map(|(s, _)| s.abs())
            .min()
            .unwrap_or(i64::MAX)
    };
    let by_thread = n <= SHORT || (outputs >= SHORT && closest(&outer) < closest(&inner));
    let generic = b.generic();
    let key = key(how, program, x, out[0].dtype, generic)?;
    let kernels = b.kernels(&key, || unit(&key, how, program, x, out[0].dtype, generic))?;
    let parameter = match how {
        Reduction::ScaledSum(s) => s,
        Reduction::VarMean { correction } => correction,
        _ => 0.0,
    };

    let mut part = if by_thread { THREAD_PART } else { BLOCK_PART };
    let mut parts = (n.max(1) as u64).div_ceil(part as u64) as i64;
    let mut count = n;
    let mut from: Option<crate::backend::Scratch> = None;
    for round in 0.. {
        let room = if parts > 1 { Some(b.scratch(parts as usize * outputs as usize * acc_size)?) } else { None };
        let mut args = Args::new();
        args.walk(&outer.sizes);
        if round == 0 {
            args.walk(&inner.sizes);
        } else {
            args.walk(&[count]);
        }
        args.i64(part).i64(parts).f64(parameter);
        args.ptr(room.as_ref().map_or(std::ptr::null_mut(), |r| r.ptr()));
        args.ptr(from.as_ref().map_or(std::ptr::null_mut(), |r| r.ptr()));
        for k in 0..2 {
            match out.get(k) {
                Some(o) => args.operand(o, &outer.strides[x.len() + k]),
                None => args.no_operand(),
            };
        }
        for (k, operand) in x.iter().enumerate() {
            args.operand(operand, &outer.strides[k]).array(&inner.strides[k], MAX_RANK);
        }
        elementwise::numbers(&mut args, program);
        let (kernel, extent) = match (round, by_thread) {
            (0, true) => (kernels[0], Extent::linear(outputs * parts)),
            (0, false) => (kernels[1], Extent::blocks(outputs.saturating_mul(parts), 256)),
            _ => (kernels[2], Extent::linear(outputs * parts)),
        };
        b.launch(kernel, extent, &mut args)?;
        if parts == 1 {
            break;
        }
        from = room;
        count = parts;
        part = MERGE_PART;
        parts = (count as u64).div_ceil(part as u64) as i64;
    }
    Ok(())
}

/// The kernel of a scan.
pub(crate) fn scan_unit(key: &[u8], how: Scan, class: Class, code: i32) -> Result<Unit> {
    let c = codegen::class_name(class);
    let acc = match how {
        Scan::Sum => format!("ScanSum<{c}>"),
        Scan::Prod => format!("ScanProd<{c}>"),
        Scan::Max => format!("ScanExtreme<{c}, true>"),
        Scan::Min => format!("ScanExtreme<{c}, false>"),
        Scan::LogSumExp => format!("ScanLogSumExp<{c}>"),
    };
    let name = codegen::kernel_name("scan", key);
    let body =
        format!("extern \"C\" __global__ void {name}(const ScanArgs args_) {{ scan<{acc}, {c}, {code}>(args_); }}\n");
    Ok(Unit { library: Some(Library::Scan), body, names: vec![name] })
}

/// See [`Backend::scan`].
pub(crate) fn scan(b: &CudaBackend, how: Scan, x: &Operand, dim: usize, out: &[Operand]) -> Result<()> {
    if x.numel() == 0 {
        return Ok(());
    }
    // Computed in the output's class, into which elements are read.
    let class = out[0].dtype.class();
    let complex = matches!(class, Class::C32 | Class::C64);
    if (complex && !matches!(how, Scan::Sum | Scan::Prod)) || (how == Scan::LogSumExp && class == Class::I64) {
        return unsupported("scan of such numbers");
    }
    let without = |v: &[i64]| -> Dims { v.iter().enumerate().filter(|(d, _)| *d != dim).map(|(_, v)| *v).collect() };
    let strides: SmallVec<[Dims; 3]> = std::iter::once(x).chain(out).map(|o| without(o.strides)).collect();
    let outer = Walk::collapse(&without(x.sizes), &strides.iter().map(|s| &s[..]).collect::<SmallVec<[&[i64]; 3]>>());
    if !outer.fits() {
        return unsupported("scan over more than 8 dimensions");
    }
    let along = |o: &Operand| o.strides.get(dim).copied().unwrap_or(0);
    let n = x.sizes.get(dim).copied().unwrap_or(1);
    let code = codegen::dtype_code(x.dtype, b.generic());
    let key = [b's', how as u8, class as u8, code as u8];
    let kernels = b.kernels(&key, || scan_unit(&key, how, class, code))?;
    let parts = (n as u64).div_ceil(SCAN_PART as u64) as i64;
    let outputs = outer.numel();
    // No accumulator is larger than 32 bytes.
    let partial = if parts > 1 { Some(b.scratch(parts as usize * outputs as usize * 32)?) } else { None };
    for phase in if parts > 1 { 0..3 } else { 2..3 } {
        let mut args = Args::new();
        args.walk(&outer.sizes).i64(n).i64(SCAN_PART).i64(parts).i64(phase);
        args.ptr(partial.as_ref().map_or(std::ptr::null_mut(), |p| p.ptr()));
        args.i64(along(x)).i64(along(&out[0])).i64(out.get(1).map_or(0, along));
        args.operand(x, &outer.strides[0]).operand(&out[0], &outer.strides[1]);
        match out.get(1) {
            Some(o) => args.operand(o, &outer.strides[2]),
            None => args.no_operand(),
        };
        let work = if phase == 1 { outputs } else { outputs * parts };
        b.launch(kernels[0], Extent::linear(work), &mut args)?;
    }
    Ok(())
}
