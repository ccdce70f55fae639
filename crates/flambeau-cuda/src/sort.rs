//! Sorting, and the largest or smallest few.

use crate::args::{Args, Walk};
use crate::backend::CudaBackend;
use crate::codegen::{self, Library, Unit};
use crate::driver::Extent;
use flambeau_core::*;

/// The kernel for one dtype that has an order.
pub(crate) fn unit(key: &[u8], class: Class, code: i32) -> Unit {
    codegen::instances(Library::Sort, &codegen::kernel_name("k", key), class, &[code], &[("sort", "SortArgs", None, 0)])
}

/// See [`Backend::sort`] and [`Backend::topk`]: the outputs' size along `dim` says how many are written.
pub(crate) fn sort(
    b: &CudaBackend,
    x: &Operand,
    dim: usize,
    descending: bool,
    values: &Operand,
    indices: &Operand,
) -> Result<()> {
    if values.numel() == 0 {
        return Ok(());
    }
    let class = x.dtype.class();
    // Unsigned 64-bit numbers are computed as signed ones, which have another order.
    if x.dtype.is_complex() || x.dtype == DType::U64 || values.dtype != x.dtype {
        return unsupported("sort of such numbers");
    }
    let without = |v: &[i64]| -> Dims { v.iter().enumerate().filter(|(d, _)| *d != dim).map(|(_, v)| *v).collect() };
    let strides = [without(x.strides), without(values.strides), without(indices.strides)];
    let walk = Walk::collapse(&without(x.sizes), &[&strides[0], &strides[1], &strides[2]]);
    if !walk.fits() {
        return unsupported("sort in more than 8 dimensions");
    }
    let size = |o: &Operand| o.sizes.get(dim).copied().unwrap_or(1);
    let along = |o: &Operand| o.strides.get(dim).copied().unwrap_or(0);
    let (n, take, rows) = (size(x), size(values), walk.numel());
    let code = codegen::dtype_code(x.dtype, b.generic());
    let key = [b'q', class as u8, code as u8];
    let kernels = b.kernels(&key, || Ok(unit(&key, class, code)))?;
    let total = (rows * n) as usize;
    let rooms = [b.scratch(total * class.size())?, b.scratch(total * class.size())?];
    let places = [b.scratch(total * 8)?, b.scratch(total * 8)?];
    let run = |phase: i64, width: i64, from: usize| {
        let mut args = Args::new();
        args.walk(&walk.sizes).i64(n).i64(take).i64(width).i64(phase).i64(descending as i64);
        args.i64(along(x)).i64(along(values)).i64(along(indices));
        for (o, s) in [x, values, indices].into_iter().zip(&walk.strides) {
            args.operand(o, s);
        }
        args.ptr(rooms[from].ptr()).ptr(rooms[1 - from].ptr()).ptr(places[from].ptr()).ptr(places[1 - from].ptr());
        b.launch(kernels[0], Extent::linear(rows * if phase == 2 { take } else { n }), &mut args)
    };
    let mut from = 1;
    run(0, 0, from)?;
    let mut width = 1;
    loop {
        from = 1 - from;
        if width >= n {
            break;
        }
        run(1, width, from)?;
        width *= 2;
    }
    run(2, 0, from)
}
