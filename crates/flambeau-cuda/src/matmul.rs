//! Matrix products: cuBLAS where it is there and takes the operands, else our own tiled kernel.

use crate::args::{Args, Walk};
use crate::backend::CudaBackend;
use crate::codegen::{self, Library, Unit};
use crate::driver::{Address, Extent, Gemm, Matrix};
use flambeau_core::*;

const TILE: i64 = 32;
const DEPTH: usize = 16;

/// The kernel for operands of one dtype and a result of another.
pub(crate) fn unit(key: &[u8], class: Class, code: i32, out: i32) -> Unit {
    let room = 2 * DEPTH * (TILE as usize + 1) * class.size();
    codegen::instances(
        Library::Matmul,
        &codegen::kernel_name("k", key),
        class,
        &[code, out],
        &[("matmul", "MatmulArgs", None, room)],
    )
}

/// See [`Backend::matmul`].
pub(crate) fn matmul(b: &CudaBackend, x: &Operand, y: &Operand, out: &Operand, epilogue: Epilogue) -> Result<()> {
    product(b, x, y, out, epilogue)?;
    epilogue.then.map_or(Ok(()), |then| b.map(then.program, then.x, then.out))
}

/// The product; `out` may have a wider dtype of the same class.
pub(crate) fn product(b: &CudaBackend, x: &Operand, y: &Operand, out: &Operand, epilogue: Epilogue) -> Result<()> {
    let rank = out.sizes.len();
    if out.numel() == 0 {
        return Ok(());
    }
    let batch = rank - 2;
    let walk = Walk::collapse(&out.sizes[..batch], &[&x.strides[..batch], &y.strides[..batch], &out.strides[..batch]]);
    if !walk.fits() {
        return unsupported("matmul over more than 8 batch dimensions");
    }
    let (m, n, k) = (out.sizes[rank - 2], out.sizes[rank - 1], x.sizes[rank - 1]);
    if x.dtype == out.dtype && k > 0 && vendor(b, &walk, [m, n, k], x, y, out, &epilogue)? {
        return Ok(());
    }
    let class = x.dtype.class();
    let (code, out_code) = (codegen::dtype_code(x.dtype, b.generic()), codegen::dtype_code(out.dtype, b.generic()));
    let key = [b'g', class as u8, code as u8, out_code as u8];
    let kernels = b.kernels(&key, || Ok(unit(&key, class, code, out_code)))?;
    let mut args = Args::new();
    args.walk(&walk.sizes);
    args.operand(x, &walk.strides[0]).operand(y, &walk.strides[1]).operand(out, &walk.strides[2]);
    args.i64(m).i64(n).i64(k);
    for o in [x, y, out] {
        args.i64(o.strides[rank - 2]).i64(o.strides[rank - 1]);
    }
    args.ptr(epilogue.bias.map_or(std::ptr::null_mut(), |o| o.ptr));
    args.i64(epilogue.bias.and_then(|o| o.strides.first().copied()).unwrap_or(0)).i64(epilogue.accumulate as i64);
    let tiles = ((m + TILE - 1) / TILE) * ((n + TILE - 1) / TILE) * walk.numel();
    b.launch(kernels[0], Extent::blocks(tiles, 256), &mut args)
}

/// A matrix whose rows or columns lie one after another, as cuBLAS takes it.
fn matrix(x: &Operand, walk_stride: i64) -> Option<Matrix> {
    let rank = x.sizes.len();
    let (rows, columns) = (x.sizes[rank - 2], x.sizes[rank - 1]);
    let (row, column) = (x.strides[rank - 2], x.strides[rank - 1]);
    let address = x.ptr as Address;
    let fits = |ld: i64| ld <= i32::MAX as i64;
    if (column == 1 || columns == 1) && (row >= columns || rows == 1) {
        let ld = if rows == 1 { columns } else { row };
        return (fits(ld) && ld >= 1).then_some(Matrix { address, ld, batch_stride: walk_stride, transposed: false });
    }
    if (row == 1 || rows == 1) && (column >= rows || columns == 1) {
        let ld = if columns == 1 { rows } else { column };
        return (fits(ld) && ld >= 1).then_some(Matrix { address, ld, batch_stride: walk_stride, transposed: true });
    }
    None
}

fn vendor(
    b: &CudaBackend,
    walk: &Walk,
    [m, n, k]: [i64; 3],
    x: &Operand,
    y: &Operand,
    out: &Operand,
    epilogue: &Epilogue,
) -> Result<bool> {
    let fits = |v: i64| v <= i32::MAX as i64;
    let taken = matches!(x.dtype, DType::F32 | DType::F64 | DType::F16 | DType::BF16);
    if b.generic() || !taken || walk.sizes.len() != 1 || ![m, n, k, walk.sizes[0]].into_iter().all(fits) {
        return Ok(false);
    }
    let (Some(ma), Some(mb), Some(mc)) =
        (matrix(x, walk.strides[0][0]), matrix(y, walk.strides[1][0]), matrix(out, walk.strides[2][0]))
    else {
        return Ok(false);
    };
    if mc.transposed {
        return Ok(false);
    }
    let mut accumulate = epilogue.accumulate;
    if let Some(bias) = &epilogue.bias {
        if accumulate {
            return Ok(false);
        }
        // The bias first, in every row; the product is added to it and rounded once.
        let mut strides: Dims = SmallVec::from_elem(0, out.sizes.len());
        if let (Some(last), Some(step)) = (strides.last_mut(), bias.strides.first()) {
            *last = *step;
        }
        b.copy(&b.over(bias.ptr, bias.dtype, out.sizes, &strides), out)?;
        accumulate = true;
    }
    let gemm = Gemm {
        dtype: x.dtype,
        m: m as i32,
        n: n as i32,
        k: k as i32,
        batch: walk.sizes[0] as i32,
        a: ma,
        b: mb,
        c: mc,
        accumulate,
    };
    // SAFETY: the operands are valid memory of these sizes (the trait's contract).
    unsafe { b.driver.gemm(&gemm) }
}
