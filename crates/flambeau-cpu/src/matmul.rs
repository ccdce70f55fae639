//! The family of matrix products: what operands may be, batches, the way that a product's shape and dtype take, epilogues, and
//! products of numbers that have no register tiles.

use crate::element::{not_implemented, unravel, with_float, Element, Number, Ptr, Scratch};
use crate::finish::Finish;
use crate::gemm::{same, split, Ahead, Bias, Product, Store, Strided, SERIAL};
use crate::gemm_bf16::Pairs;
use crate::gemm_kernels::{bf16_micro, Scalar};
use crate::gemv::{Vectors, VECTORS};
use crate::isa::{dispatch, Isa, Kernel};
use crate::pool;
use flambeau_core::{ensure, Category, DType, Epilogue, Operand, Result, Shape};

/// Bytes of C from which the rest of an epilogue follows block by block.
const FAR: usize = if cfg!(test) { 1 } else { 16 << 20 };
/// Sums of a thread that wait to be rounded to half types, and steps of K up to which they do.
const ROUNDED: usize = 1 << 17;
const SHORT: usize = 128;

/// A matrix of an operand: address, size and distance of rows and of columns.
#[derive(Clone, Copy)]
struct Matrix<E> {
    ptr: Ptr<E>,
    rs: isize,
    cs: isize,
}

/// The distance between steps when the given dimensions can be walked as one, row-major.
pub(crate) fn merged(sizes: &[i64], strides: &[i64]) -> Option<i64> {
    let mut found: Option<(i64, i64)> = None;
    for d in (0..sizes.len()).rev() {
        if sizes[d] == 1 {
            continue;
        }
        match found {
            None => found = Some((strides[d], strides[d] * sizes[d])),
            Some((_, next)) if strides[d] != next => return None,
            Some((step, next)) => found = Some((step, next * sizes[d])),
        }
    }
    Some(found.map_or(0, |f| f.0))
}

/// See [`flambeau_core::Backend::matmul`].
pub fn matmul(a: &Operand, b: &Operand, out: &Operand, epilogue: Epilogue) -> Result<()> {
    let r = out.sizes.len();
    ensure!(
        r >= 2
            && a.sizes.len() == r
            && b.sizes.len() == r
            && a.sizes[..r - 2] == out.sizes[..r - 2]
            && b.sizes[..r - 2] == out.sizes[..r - 2]
            && a.sizes[r - 2] == out.sizes[r - 2]
            && b.sizes[r - 1] == out.sizes[r - 1]
            && a.sizes[r - 1] == b.sizes[r - 2],
        Runtime,
        "matmul: mat1 and mat2 shapes cannot be multiplied ({} and {} into {})",
        Shape(a.sizes),
        Shape(b.sizes),
        Shape(out.sizes)
    );
    // Products of 8-bit integers may be summed in 32 bits.
    let widening = matches!(a.dtype, DType::I8 | DType::U8) && b.dtype == DType::I8 && out.dtype == DType::I32;
    ensure!(
        (a.dtype == b.dtype && a.dtype == out.dtype || widening) && epilogue.bias.is_none_or(|x| x.dtype == out.dtype),
        Runtime,
        "matmul: expected operands of one dtype, but got {}, {} and {}",
        a.dtype,
        b.dtype,
        out.dtype
    );
    if let Some(bias) = &epilogue.bias {
        ensure!(
            bias.sizes.len() == 1 && bias.sizes[0] == out.sizes[r - 1],
            Runtime,
            "matmul: bias of sizes {} does not fit a product of sizes {}",
            Shape(bias.sizes),
            Shape(out.sizes)
        );
    }
    if out.numel() == 0 {
        return Ok(());
    }
    // A product that stays in the caches is as near afterwards, and read in longer stretches.
    let far = out.numel() as usize * out.dtype.size() >= FAR;
    let finish = match epilogue.then {
        Some(then) if far && in_rows(a, b, out) => {
            let n = out.sizes[r - 1] as usize;
            Finish::new(then, out.numel() as usize / n, n)?
        }
        _ => None,
    };
    match out.dtype.category() {
        Category::Float => {
            with_float!(out.dtype, "addmm_impl_cpu_", E => float::<E>(a, b, out, &epilogue, finish.as_ref()));
        }
        Category::Integer if widening => crate::gemm_int8::matmul(a, b, out, &epilogue),
        Category::Integer => with_integer(a, b, out, &epilogue),
        Category::Complex if out.dtype == DType::C64 => plain::<flambeau_core::Complex32>(a, b, out, &epilogue),
        Category::Complex if out.dtype == DType::C128 => plain::<flambeau_core::Complex64>(a, b, out, &epilogue),
        Category::Complex => return Err(not_implemented("addmm_impl_cpu_", out.dtype)),
        Category::Bool => return Err(not_implemented("addmm_impl_cpu_", DType::Bool)),
    }
    match epilogue.then {
        Some(then) if finish.is_none() => crate::map::map(then.program, then.x, then.out),
        _ => Ok(()),
    }
}

/// Whether a product goes, as one, by register tiles to rows of the output itself, so that its epilogue can follow by blocks.
fn in_rows(a: &Operand, b: &Operand, out: &Operand) -> bool {
    // The numbers' type matters to addresses alone.
    let p = batched::<f32>(a, b, out);
    matches!(out.dtype, DType::F32 | DType::F64) && p.batches == 1 && p.m.min(p.n) > VECTORS && p.out.cs == 1
}

fn with_integer(a: &Operand, b: &Operand, out: &Operand, epilogue: &Epilogue) {
    match out.dtype {
        DType::U8 => plain::<u8>(a, b, out, epilogue),
        DType::I8 => plain::<i8>(a, b, out, epilogue),
        DType::I16 => plain::<i16>(a, b, out, epilogue),
        DType::I32 => plain::<i32>(a, b, out, epilogue),
        DType::U16 => plain::<u16>(a, b, out, epilogue),
        DType::U32 => plain::<u32>(a, b, out, epilogue),
        DType::U64 => plain::<u64>(a, b, out, epilogue),
        _ => plain::<i64>(a, b, out, epilogue),
    }
}

/// The bias as adjacent numbers of the computing type.
fn bias_values<E: Element>(bias: Option<&Operand>, scratch: &mut Scratch<E::Acc>) -> Option<*const E::Acc> {
    let bias = bias?;
    let (p, stride) = (bias.ptr as *const E, bias.strides[0] as isize);
    for (i, v) in scratch.slice().iter_mut().enumerate() {
        // SAFETY: the operand describes `sizes[0]` elements, and the scratch has that many.
        *v = unsafe { (*p.offset(i as isize * stride)).load() };
    }
    Some(scratch.ptr())
}

/// Batches, with leading dimensions folded into rows where B is the same for all of them.
struct Batched<E> {
    a: Matrix<E>,
    b: Matrix<E>,
    out: Matrix<E>,
    m: usize,
    n: usize,
    k: usize,
    batches: usize,
}

fn batched<E: Element>(a: &Operand, b: &Operand, out: &Operand) -> Batched<E> {
    let r = out.sizes.len();
    let matrix = |x: &Operand| Matrix {
        ptr: Ptr(x.ptr as *mut E),
        rs: x.strides[r - 2] as isize,
        cs: x.strides[r - 1] as isize,
    };
    let mut p = Batched {
        a: matrix(a),
        b: matrix(b),
        out: matrix(out),
        m: out.sizes[r - 2] as usize,
        n: out.sizes[r - 1] as usize,
        k: a.sizes[r - 1] as usize,
        batches: out.sizes[..r - 2].iter().product::<i64>() as usize,
    };
    if p.batches > 1 && (0..r - 2).all(|d| b.sizes[d] == 1 || b.strides[d] == 0) {
        let rows = |x: &Operand| merged(&x.sizes[..r - 1], &x.strides[..r - 1]);
        if let (Some(ra), Some(ro)) = (rows(a), rows(out)) {
            p.a.rs = ra as isize;
            p.out.rs = ro as isize;
            p.m *= p.batches;
            p.batches = 1;
        }
    }
    p
}

impl<E: Element> Batched<E> {
    /// The three matrices of batch `i`.
    unsafe fn at(&self, i: usize, a: &Operand, b: &Operand, out: &Operand) -> (Matrix<E>, Matrix<E>, Matrix<E>) {
        if self.batches == 1 {
            return (self.a, self.b, self.out);
        }
        let r = out.sizes.len() - 2;
        let go =
            |x: &Operand, m: Matrix<E>| Matrix { ptr: Ptr(m.ptr.at(unravel(i, &x.sizes[..r], &x.strides[..r]))), ..m };
        (go(a, self.a), go(b, self.b), go(out, self.out))
    }
}

/// Floats, through register tiles.
fn float<E: Element>(a: &Operand, b: &Operand, out: &Operand, epilogue: &Epilogue, then: Option<&Finish>)
where
    E::Acc: Scalar,
{
    let p = batched::<E>(a, b, out);
    let mut scratch = Scratch::new(epilogue.bias.map_or(0, |x| x.numel() as usize));
    let bias = bias_values::<E>(epilogue.bias.as_ref(), &mut scratch).map(|b| Ptr(b as *mut E::Acc));
    let work = p.m * p.n * p.k.max(1);
    // Product `i`, after which the same thread computes those up to `end`.
    let one = |i: usize, end: usize, parallel: bool| {
        // SAFETY: the operands describe memory of these sizes, and batches of `out` do not overlap.
        unsafe {
            let (x, y, z) = p.at(i, a, b, out);
            let next = (i + 1 < end).then(|| p.at(i + 1, a, b, out));
            matrix(&p, x, y, z, epilogue.accumulate, bias.map(|b| b.get() as *const E::Acc), parallel, next, then);
        }
    };
    if same::<E, E::Acc>() && bias.is_none() && Tiny::<E::Acc>::fits(&p, out) {
        let strides = |x: &Operand| if x.sizes.len() == 3 { x.strides[0] as isize } else { 0 };
        let tiny = |lo: usize, hi: usize| Tiny {
            sizes: [p.m, p.n, p.k],
            a: (p.a.ptr.get() as *const E::Acc, [strides(a), p.a.rs, p.a.cs]),
            b: (p.b.ptr.get() as *const E::Acc, [strides(b), p.b.rs]),
            c: (p.out.ptr.get() as *mut E::Acc, [strides(out), p.out.rs]),
            batches: (lo, hi),
            accumulate: epilogue.accumulate,
        };
        let tiny = |lo, hi| dispatch(tiny(lo, hi));
        return split(p.batches * work >= 1 << 14, p.batches, (1 << 13) / work + 1, tiny);
    }
    // Small products go whole to threads, large ones are split themselves.
    if p.batches > 1 && (work < 1 << 22 || p.batches >= 32) {
        let parallel = work * p.batches >= SERIAL;
        let grain = ((1 << 18) / work).max(p.batches / (8 * pool::num_threads())).max(1);
        split(parallel, p.batches, grain, |lo, hi| (lo..hi).for_each(|i| one(i, hi, false)));
    } else {
        (0..p.batches).for_each(|i| one(i, 0, true));
    }
}

/// Many products that are too small for a tile and what leads to it: row by row, in the order of the tiles' sums.
struct Tiny<S> {
    sizes: [usize; 3],
    /// Addresses, and distances between products, rows and columns; columns of B and C are adjacent.
    a: (*const S, [isize; 3]),
    b: (*const S, [isize; 2]),
    c: (*mut S, [isize; 2]),
    batches: (usize, usize),
    accumulate: bool,
}
/// Columns that are summed at once.
const TINY: usize = 8;
impl<S: Scalar> Tiny<S> {
    fn fits<E: Element>(p: &Batched<E>, out: &Operand) -> bool {
        let small = p.m * p.n * p.k <= 8 * 8 * 8;
        out.sizes.len() == 3 && p.batches > 1 && small && p.b.cs == 1 && p.out.cs == 1 && p.m.min(p.n) > 1
    }
    /// Columns `j..j + N` of one product's row.
    ///
    /// # Safety
    /// The row's numbers, N columns of B and of C are there.
    #[inline(always)]
    unsafe fn part<I: Isa, const N: usize>(&self, a: *const S, b: *const S, c: *mut S) {
        let fma = S::fma::<I>;
        let mut sum = [S::default(); N];
        for q in 0..self.sizes[2] as isize {
            let x = *a.offset(q * self.a.1[2]);
            let b = &*(b.offset(q * self.b.1[1]) as *const [S; N]);
            for j in 0..N {
                sum[j] = fma(x, b[j], sum[j]);
            }
        }
        let c = &mut *(c as *mut [S; N]);
        for j in 0..N {
            c[j] = if self.accumulate { c[j].add(sum[j]) } else { sum[j] };
        }
    }
}
impl<S: Scalar> Kernel for Tiny<S> {
    type Out = ();
    #[inline(always)]
    fn run<I: Isa>(self) {
        let [m, n, _] = self.sizes;
        for i in self.batches.0..self.batches.1 {
            let i = i as isize;
            for r in 0..m as isize {
                // SAFETY: whoever makes it answers for the operands; tasks have products of their own.
                unsafe {
                    let a = self.a.0.offset(i * self.a.1[0] + r * self.a.1[1]);
                    let b = self.b.0.offset(i * self.b.1[0]);
                    let c = self.c.0.offset(i * self.c.1[0] + r * self.c.1[1]);
                    let mut j = 0;
                    while j < n {
                        let (b, c) = (b.add(j), c.add(j));
                        j += match n - j {
                            TINY.. => {
                                self.part::<I, TINY>(a, b, c);
                                TINY
                            }
                            4.. => {
                                self.part::<I, 4>(a, b, c);
                                4
                            }
                            3 => {
                                self.part::<I, 3>(a, b, c);
                                3
                            }
                            2 => {
                                self.part::<I, 2>(a, b, c);
                                2
                            }
                            _ => {
                                self.part::<I, 1>(a, b, c);
                                1
                            }
                        };
                    }
                }
            }
        }
    }
}

/// One product of floats into rows, into columns, or through a temporary.
#[allow(clippy::too_many_arguments)]
unsafe fn matrix<E: Element>(
    p: &Batched<E>,
    a: Matrix<E>,
    b: Matrix<E>,
    out: Matrix<E>,
    accumulate: bool,
    bias: Option<*const E::Acc>,
    parallel: bool,
    next: Option<(Matrix<E>, Matrix<E>, Matrix<E>)>,
    then: Option<&Finish>,
) where
    E::Acc: Scalar,
{
    let (m, n, k) = (p.m, p.n, p.k);
    let rows = Strided { ptr: a.ptr, lane: a.rs, step: a.cs };
    let columns = Strided { ptr: b.ptr, lane: b.cs, step: b.rs };
    if m.min(n) <= VECTORS {
        // The vectors are the side with fewer lanes; a bias has one value a column.
        let bias = bias.map(|b| Ptr(b as *mut E::Acc));
        let common = |vectors, n, x, b, out_steps, steps| {
            let bias = bias.map(|b| (b, steps));
            Vectors { vectors, n, k, x, b, out: out.ptr, out_steps, accumulate, bias }
        };
        let by_row = common(m, n, rows, columns, [out.rs, out.cs], [0, 1]);
        let by_column = common(n, m, columns, rows, [out.cs, out.rs], [1, 0]);
        let ways = if m <= n { [by_row, by_column] } else { [by_column, by_row] };
        if let Some(way) = ways.iter().find(|v| v.vectors <= VECTORS && v.fits()) {
            return way.run(parallel);
        }
    }
    let own = same::<E, E::Acc>();
    // A single column is computed as a row, whose other side is read where it lies.
    if own && (out.cs == 1 || n == 1) && !(n == 1 && out.rs == 1) {
        let c = out.ptr.get() as *mut E::Acc;
        let bias = bias.map_or(Bias::None, Bias::Columns);
        let size = std::mem::size_of::<E>();
        let ahead = next.map_or([(std::ptr::null(), 0); 3], |(a, b, c)| {
            [(b, k * n), (a, m * k), (c, m * n)].map(|(x, n)| (x.ptr.get() as *const E::Acc, n * size))
        });
        let product = Product { m, n, k, a: &rows, b: &columns, c, ldc: out.rs, accumulate, bias };
        product.run_with(parallel, Ahead(ahead), then);
    } else if own && (out.rs == 1 || m == 1) {
        let c = out.ptr.get() as *mut E::Acc;
        let bias = bias.map_or(Bias::None, Bias::Rows);
        Product { m: n, n: m, k, a: &columns, b: &rows, c, ldc: out.cs, accumulate, bias }.run(parallel);
    } else {
        let bias = bias.map(|b| Ptr(b as *mut E::Acc));
        // Of short sums whoever computes some rows rounds them as well, while they are near; long ones are worth more than a B packed
        // again for every few rows.
        let threads = if parallel && m * n * k >= SERIAL { pool::num_threads() } else { 1 };
        let high = (ROUNDED / n).clamp(64, 256);
        let own = threads > 1 && k <= SHORT && m >= 2 * threads * high;
        let (high, inside) = if own { (high, false) } else { (m, parallel) };
        split(own, m.div_ceil(high), 1, |lo, hi| {
            for i0 in (lo..hi).map(|i| i * high) {
                let m = high.min(m - i0);
                let mut whole = Scratch::<E::Acc>::new(m * n);
                let c = Ptr(whole.ptr());
                // SAFETY: of this function; tasks have rows of their own.
                unsafe {
                    let rows = Strided { ptr: Ptr(rows.ptr.at(i0 as isize * rows.lane)), ..rows };
                    let ldc = n as isize;
                    if same::<E, half::bf16>() && bf16_micro().is_some() {
                        let pairs =
                            |x: &Strided<E>| Pairs { at: Ptr(x.ptr.get() as *mut u16), lane: x.lane, step: x.step, k };
                        let (a, b) = (&pairs(&rows), &pairs(&columns));
                        let bias = bias.map_or(Bias::None, |b| Bias::Columns(b.get() as *const f32));
                        let c = c.get() as *mut f32;
                        Product { m, n, k: k.div_ceil(2), a, b, c, ldc, accumulate: false, bias }.run(inside);
                    } else {
                        let bias = bias.map_or(Bias::None, |b| Bias::Columns(b.get() as *const _));
                        Product { m, n, k, a: &rows, b: &columns, c: c.get(), ldc, accumulate: false, bias }
                            .run(inside);
                    }
                }
                split(inside && m * n >= 1 << 16, m, ((1 << 14) / n).max(1), |lo, hi| {
                    for i in lo..hi {
                        // SAFETY: rows of `out` do not overlap, and the temporary has m rows of n.
                        unsafe {
                            let (s, d) = (c.get().add(i * n), out.ptr.at((i0 + i) as isize * out.rs));
                            if out.cs == 1 {
                                dispatch(Store::<E>(s, d, n, accumulate));
                            } else {
                                for j in 0..n {
                                    let d = d.offset(j as isize * out.cs);
                                    let v = *s.add(j);
                                    *d = E::store(if accumulate { (*d).load().add(v) } else { v });
                                }
                            }
                        }
                    }
                });
            }
        });
    }
}

/// `acc[r] += Σ_p a[r][p] b[p]` for up to 4 rows.
struct PlainRows<'a, T> {
    rows: usize,
    a: &'a [T],
    b: &'a [T],
    n: usize,
    from: usize,
    acc: &'a mut [T],
}
impl<T: Number> Kernel for PlainRows<'_, T> {
    type Out = ();
    #[inline(always)]
    fn run<I: Isa>(self) {
        let w = self.acc.len() / self.rows;
        let k = self.a.len() / self.rows;
        for p in 0..k {
            let b = &self.b[p * self.n + self.from..][..w];
            for r in 0..self.rows {
                let x = self.a[r * k + p];
                for (c, y) in self.acc[r * w..(r + 1) * w].iter_mut().zip(b) {
                    *c = c.add(x.mul(*y));
                }
            }
        }
    }
}

/// Integers and complex numbers: four rows at a time over a B of adjacent rows.
pub(crate) fn plain<E: Element>(a: &Operand, b: &Operand, out: &Operand, epilogue: &Epilogue) {
    const WIDTH: usize = 256;
    let p = batched::<E>(a, b, out);
    let (m, n, k) = (p.m, p.n, p.k);
    let mut scratch = Scratch::new(epilogue.bias.map_or(0, |x| x.numel() as usize));
    let bias = bias_values::<E>(epilogue.bias.as_ref(), &mut scratch).map(|b| Ptr(b as *mut E::Acc));
    let mut copy = Scratch::<E::Acc>::new(k * n);
    let columns = Ptr(copy.ptr());
    let parallel = m * n * k >= 1 << 15;
    for i in 0..p.batches {
        // SAFETY: the operands describe memory of these sizes; tasks write disjoint rows.
        unsafe {
            let (a, b, out) = p.at(i, a, b, out);
            split(parallel, k, ((1 << 14) / n.max(1)).max(1), |lo, hi| {
                for q in lo..hi {
                    for j in 0..n {
                        *columns.get().add(q * n + j) = (*b.ptr.at(q as isize * b.rs + j as isize * b.cs)).load();
                    }
                }
            });
            let columns = std::slice::from_raw_parts(columns.get(), k * n);
            split(parallel, m.div_ceil(4), 1, |block, _| {
                let (i0, rows) = (block * 4, 4.min(m - block * 4));
                let (mut x, mut sums) = (Scratch::<E::Acc>::new(rows * k), Scratch::<E::Acc>::new(rows * WIDTH));
                for r in 0..rows {
                    for q in 0..k {
                        *x.ptr().add(r * k + q) = (*a.ptr.at((i0 + r) as isize * a.rs + q as isize * a.cs)).load();
                    }
                }
                for from in (0..n).step_by(WIDTH) {
                    let w = WIDTH.min(n - from);
                    let acc = &mut sums.slice()[..rows * w];
                    acc.fill(E::Acc::default());
                    if k > 0 {
                        dispatch(PlainRows { rows, a: x.slice(), b: columns, n, from, acc: &mut *acc });
                    }
                    for r in 0..rows {
                        for j in 0..w {
                            let d = out.ptr.at((i0 + r) as isize * out.rs + (from + j) as isize * out.cs);
                            let mut v = acc[r * w + j];
                            if let Some(bias) = bias {
                                v = v.add(*bias.get().add(from + j));
                            }
                            *d = E::store(if epilogue.accumulate { (*d).load().add(v) } else { v });
                        }
                    }
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{compare, Case};

    #[test]
    fn products_of_all_dtypes_and_layouts() {
        let mut seed = 1;
        for dtype in [
            DType::F32,
            DType::F64,
            DType::BF16,
            DType::F16,
            DType::I64,
            DType::I32,
            DType::U8,
            DType::C64,
            DType::C128,
        ] {
            for &(m, n, k) in &[
                (1, 1, 1),
                (3, 5, 7),
                (32, 64, 64),
                (1, 100, 70),
                (50, 1, 33),
                (200, 70, 600),
                (15, 33, 0),
                (29, 47, 16),
            ] {
                for layout in 0..8 {
                    seed += 1;
                    let a = Case::random(dtype, &[m, k], layout & 1 != 0, seed);
                    let b = Case::random(dtype, &[k, n], layout & 2 != 0, seed + 1000);
                    let bias = Case::random(dtype, &[n], false, seed + 2000);
                    let out = Case::random(dtype, &[m, n], layout & 4 != 0, seed + 3000);
                    let before = out.values();
                    let epilogue = Epilogue {
                        bias: (seed % 2 == 0).then(|| bias.operand()),
                        accumulate: seed % 3 == 0,
                        then: None,
                    };
                    matmul(&a.operand(), &b.operand(), &out.operand(), epilogue).unwrap();
                    let (x, y, z) = (a.values(), b.values(), bias.values());
                    let mut want = Vec::new();
                    for i in 0..m as usize {
                        for j in 0..n as usize {
                            let mut s = Default::default();
                            for q in 0..k as usize {
                                s += x[i * k as usize + q] * y[q * n as usize + j];
                            }
                            if epilogue.bias.is_some() {
                                s += z[j];
                            }
                            if epilogue.accumulate {
                                s += before[i * n as usize + j];
                            }
                            want.push(s);
                        }
                    }
                    compare(
                        &out,
                        &want,
                        (k as f64).sqrt() * 4.0 + 1.0,
                        &format!("{dtype} {m} {n} {k} layout {layout}"),
                    );
                }
            }
        }
    }

    #[test]
    fn batches_and_threads() {
        for (ba, bb) in [(vec![6, 40, 50], vec![6, 50, 30]), (vec![2, 3, 40, 50], vec![2, 3, 50, 30])] {
            let r = ba.len();
            let mut want: Option<Vec<u8>> = None;
            for broadcast in [false, true] {
                want = None.filter(|_| broadcast).or(want.filter(|_| !broadcast));
                for threads in [1, 2, 8] {
                    pool::set_num_threads(threads);
                    let a = Case::random(DType::F32, &ba, false, 1);
                    let mut b = Case::random(DType::F32, &bb, false, 2);
                    if broadcast {
                        b.strides[..r - 2].fill(0);
                    }
                    let mut so = ba.clone();
                    so[r - 1] = 30;
                    let out = Case::random(DType::F32, &so, false, 3);
                    matmul(&a.operand(), &b.operand(), &out.operand(), Epilogue::default()).unwrap();
                    let (x, y) = (a.values(), b.values());
                    let mut reference = Vec::new();
                    for i in 0..6 * 40 * 30usize {
                        let (g, row, col) = (i / 1200, i / 30 % 40, i % 30);
                        let mut s = Default::default();
                        for q in 0..50 {
                            s += x[(g * 40 + row) * 50 + q] * y[(g * 50 + q) * 30 + col];
                        }
                        reference.push(s);
                    }
                    compare(&out, &reference, 20.0, "batched");
                    let bytes = out.bytes.clone();
                    assert_eq!(*want.get_or_insert(bytes.clone()), bytes);
                }
            }
        }
        // Several to a thread, which fetches the next one meanwhile.
        let (m, k, n, batches) = (20usize, 40usize, 35usize, 200usize);
        let mut want: Option<Vec<u8>> = None;
        for threads in [1, 2, 8] {
            pool::set_num_threads(threads);
            let a = Case::random(DType::F32, &[batches as i64, m as i64, k as i64], false, 1);
            let b = Case::random(DType::F32, &[batches as i64, k as i64, n as i64], false, 2);
            let out = Case::random(DType::F32, &[batches as i64, m as i64, n as i64], false, 3);
            matmul(&a.operand(), &b.operand(), &out.operand(), Epilogue::default()).unwrap();
            let (x, y) = (a.values(), b.values());
            let at = |g: usize, i: usize, j: usize| {
                (0..k).map(|q| x[(g * m + i) * k + q] * y[(g * k + q) * n + j]).sum::<flambeau_core::Complex64>()
            };
            let reference: Vec<_> = (0..batches * m * n).map(|i| at(i / (m * n), i / n % m, i % n)).collect();
            compare(&out, &reference, 20.0, "many batches");
            assert_eq!(*want.get_or_insert(out.bytes.clone()), out.bytes);
        }
        // A in one piece and in slabs, packed and read where it lies, panels shared out by tiles.
        for (m, n, k) in [(400, 600, 700), (1000, 200, 700), (384, 128, 768), (200, 70, 512), (300, 100, 1100)] {
            for transposed in [false, true] {
                let mut want: Option<Vec<u8>> = None;
                for threads in [1, 2, 8] {
                    pool::set_num_threads(threads);
                    let a = Case::random(DType::F32, &[m, k], transposed, 1);
                    let b = Case::random(DType::F32, &[k, n], !transposed, 2);
                    let bias = Case::random(DType::F32, &[n], false, 4);
                    let out = Case::random(DType::F32, &[m, n], false, 3);
                    let epilogue = Epilogue { bias: Some(bias.operand()), ..Default::default() };
                    matmul(&a.operand(), &b.operand(), &out.operand(), epilogue).unwrap();
                    let (x, y, z, got) = (a.values(), b.values(), bias.values(), out.values());
                    for i in (0..m).step_by(37).chain([m - 1]) {
                        for j in (0..n).step_by(11).chain([n - 1]) {
                            let mut s = z[j as usize];
                            for q in 0..k {
                                s += x[(i * k + q) as usize] * y[(q * n + j) as usize];
                            }
                            assert!((got[(i * n + j) as usize] - s).norm() < 1e-3, "{m} {n} {k} at {i}, {j}");
                        }
                    }
                    assert_eq!(*want.get_or_insert(out.bytes.clone()), out.bytes);
                }
            }
        }
    }
}
