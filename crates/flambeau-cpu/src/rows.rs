//! Row kernels: softmax, layer_norm and cross_entropy, forward and backward. A row is one walk along a dimension; rows
//! that do not lie as adjacent numbers of the computing type are staged through a small buffer, sixteen at a time.

use crate::element::{extent_of, unravel, with_float, without, Element, Float, Ptr, Scratch};
use crate::gemm::{Load, Store};
use crate::isa::{dispatch, prefetch, stream, stream_end, Isa, Kernel};
use crate::lanes::{fold, LANES};
use crate::map::STREAM;
use crate::pool;
use flambeau_core::{bail, ensure, DType, Error, Operand, Result, Shape, SmallVec};
use parking_lot::Mutex;
use std::any::TypeId;

// ---- sums --------------------------------------------------------------------------------------------------------------

const BLOCK: usize = 4096;

/// Sum of `f(i)` in a fixed tree: 64 lanes over blocks of 4,096, blocks one after another.
#[inline(always)]
pub(crate) fn sum<S: Float>(n: usize, f: impl Fn(usize) -> S) -> S {
    let mut total = S::default();
    let mut from = 0;
    while from < n {
        let to = (from + BLOCK).min(n);
        let mut acc = [S::default(); LANES];
        let mut i = from;
        while i + LANES <= to {
            for (l, a) in acc.iter_mut().enumerate() {
                *a = a.add(f(i + l));
            }
            i += LANES;
        }
        for (l, a) in acc.iter_mut().enumerate().take(to - i) {
            *a = a.add(f(i + l));
        }
        let mut w = LANES / 2;
        while w > 0 {
            for l in 0..w {
                acc[l] = acc[l].add(acc[l + w]);
            }
            w /= 2;
        }
        total = total.add(acc[0]);
        from = to;
    }
    total
}

/// What is left of a slice as a whole number of lanes (apart, for the same reason).
#[inline(never)]
pub(crate) fn padded<S: Copy, const N: usize>(x: &[S], rest: S) -> [S; N] {
    let mut out = [rest; N];
    out[..x.len()].copy_from_slice(x);
    out
}

/// Sums of `f(a, b, c)` and `g(a, b, c)` over slices of one length, each in the tree of [`sum`].
#[inline(always)]
pub(crate) fn sum3_pair<S: Float>(
    a: &[S],
    b: &[S],
    c: &[S],
    f: impl Fn(S, S, S) -> S,
    g: impl Fn(S, S, S) -> S,
) -> (S, S) {
    let mut total = (S::default(), S::default());
    for ((a, b), c) in a.chunks(BLOCK).zip(b.chunks(BLOCK)).zip(c.chunks(BLOCK)) {
        let (mut p, mut q) = ([S::default(); LANES], [S::default(); LANES]);
        let ((rows_a, a), (rows_b, b), (rows_c, c)) =
            (a.as_chunks::<LANES>(), b.as_chunks::<LANES>(), c.as_chunks::<LANES>());
        for ((a, b), c) in rows_a.iter().zip(rows_b).zip(rows_c) {
            for l in 0..LANES {
                p[l] = p[l].add(f(a[l], b[l], c[l]));
                q[l] = q[l].add(g(a[l], b[l], c[l]));
            }
        }
        let n = a.len();
        if n > 0 {
            let zero = S::default();
            let (a, b, c): ([S; LANES], [S; LANES], [S; LANES]) = (padded(a, zero), padded(b, zero), padded(c, zero));
            for l in 0..LANES {
                // Chosen before it is added: a lane that is stored under a condition would keep all of them in memory. A sum
                // from 0 is never -0, so adding 0 changes nothing.
                p[l] = p[l].add(if l < n { f(a[l], b[l], c[l]) } else { zero });
                q[l] = q[l].add(if l < n { g(a[l], b[l], c[l]) } else { zero });
            }
        }
        total = (total.0.add(fold(&p, S::add)), total.1.add(fold(&q, S::add)));
    }
    total
}
/// Sum of `f(a, b, c)` over slices of one length, in the tree of [`sum`].
#[inline(always)]
pub(crate) fn sum3<S: Float>(a: &[S], b: &[S], c: &[S], f: impl Fn(S, S, S) -> S) -> S {
    let zero = S::default();
    sum3_pair(a, b, c, f, |_, _, _| zero).0
}
/// [`sum3`] of one slice.
#[inline(always)]
pub(crate) fn sum1<S: Float>(a: &[S], f: impl Fn(S) -> S) -> S {
    sum3(a, a, a, |a, _, _| f(a))
}
/// [`sum3`] of two.
#[inline(always)]
pub(crate) fn sum2<S: Float>(a: &[S], b: &[S], f: impl Fn(S, S) -> S) -> S {
    sum3(a, b, b, |a, b, _| f(a, b))
}

/// Fetches as many numbers as follow a row, which the next one is in an operand that is used where it lies: several passes over a
/// row leave the memory idle, and the processor does not see the next row coming until they are done.
#[inline(always)]
fn fetch_next<S>(row: &[S]) {
    let bytes = std::mem::size_of_val(row);
    if bytes <= 16 << 10 {
        let next = row.as_ptr().wrapping_add(row.len()) as *const u8;
        (0..bytes).step_by(64).for_each(|line| prefetch(next.wrapping_add(line)));
    }
}

/// `y[i] = f(x[i])`, and the sum of the results in the tree of [`sum`]. The numbers that follow `x`, as the next row does, are
/// fetched meanwhile: the processor would not see them coming before the last of these are done.
#[inline(always)]
fn apply_sum<S: Float>(x: &[S], y: &mut [S], f: impl Fn(S) -> S) -> S {
    let (n, size) = (x.len(), std::mem::size_of::<S>());
    let mut total = S::default();
    for (x, y) in x.chunks(BLOCK).zip(y.chunks_mut(BLOCK)) {
        let mut acc = [S::default(); LANES];
        let ((rows_x, x), (rows_y, y)) = (x.as_chunks::<LANES>(), y.as_chunks_mut::<LANES>());
        for (x, y) in rows_x.iter().zip(rows_y) {
            for line in (0..LANES * size).step_by(64) {
                prefetch((x.as_ptr().wrapping_add(n) as *const u8).wrapping_add(line));
            }
            *y = std::array::from_fn(|l| f(x[l]));
            for l in 0..LANES {
                acc[l] = acc[l].add(y[l]);
            }
        }
        let rest = x.len();
        if rest > 0 {
            let zero = S::default();
            let x: [S; LANES] = padded(x, zero);
            let out: [S; LANES] = std::array::from_fn(|l| f(x[l]));
            for l in 0..LANES {
                acc[l] = acc[l].add(if l < rest { out[l] } else { zero });
            }
            y.copy_from_slice(&out[..rest]);
        }
        total = total.add(fold(&acc, S::add));
    }
    total
}

/// The largest value, -∞ for nothing. NaN may be passed over: callers' results become NaN through the sums.
#[inline(always)]
pub(crate) fn largest<S: Float>(x: &[S]) -> S {
    #[inline(always)]
    fn larger<S: Float>(a: S, b: S) -> S {
        if b > a {
            b
        } else {
            a
        }
    }
    let mut acc = [S::NEG_INFINITY; LANES];
    let (rows, rest) = x.as_chunks::<LANES>();
    for row in rows {
        // Made anew: lanes that are stored under a condition would stay in memory.
        acc = std::array::from_fn(|l| larger(acc[l], row[l]));
    }
    if !rest.is_empty() {
        let row: [S; LANES] = padded(rest, S::NEG_INFINITY);
        for l in 0..LANES {
            acc[l] = larger(acc[l], row[l]);
        }
    }
    fold(&acc, larger)
}

// ---- rows of an operand ------------------------------------------------------------------------------------------------

/// Rows of an operand along one dimension.
struct Rows<E> {
    ptr: Ptr<E>,
    n: usize,
    stride: isize,
    sizes: SmallVec<[i64; 5]>,
    strides: SmallVec<[i64; 5]>,
    /// Whether results are computed one row at a time in a buffer that the near caches hold, and stored past them from there.
    streamed: bool,
}

/// Rows staged at once when they cannot be used where they lie.
const STAGED: usize = 16;

impl<E: Element> Rows<E> {
    fn new(x: &Operand, dim: usize) -> Self {
        let (n, stride) = extent_of(x, dim);
        Rows {
            ptr: Ptr(x.ptr as *mut E),
            n,
            stride,
            sizes: without(x.sizes, dim),
            strides: without(x.strides, dim),
            streamed: false,
        }
    }
    fn count(&self) -> usize {
        self.sizes.iter().product::<i64>() as usize
    }
    /// Whether rows are slices of the computing type.
    fn direct(&self) -> bool {
        (self.stride == 1 || self.n == 1) && TypeId::of::<E>() == TypeId::of::<E::Acc>()
    }
    fn at(&self, i: usize) -> isize {
        unravel(i, &self.sizes, &self.strides)
    }
    /// Results of rows `x` that no cache will hold, in rows that are neither too short to be streamed nor too long for the near caches.
    fn of(out: &Operand, dim: usize, x: &[&Self]) -> Self {
        let mut y = Self::new(out, dim);
        let bytes = y.n * std::mem::size_of::<E>();
        y.streamed = (512..=256 << 10).contains(&bytes)
            && y.count() * bytes >= STREAM
            && y.direct()
            && x.iter().all(|x| x.direct() && x.ptr.get() != y.ptr.get());
        y
    }
    /// Room for `step` rows, of which none is needed where rows are used one by one as they lie.
    fn room(&self, step: usize) -> Scratch<E::Acc> {
        Scratch::new(if step == 1 && self.direct() && !self.streamed { 0 } else { step * self.n })
    }
    fn offsets(&self, i: usize, rows: usize) -> ([isize; STAGED], bool) {
        let mut offsets = [0; STAGED];
        for (r, o) in offsets.iter_mut().enumerate().take(rows) {
            *o = self.at(i + r);
        }
        let adjacent = (0..rows).all(|r| offsets[r] == offsets[0] + r as isize);
        (offsets, adjacent && self.stride != 1)
    }
    /// Address of rows `i..i + rows`, `n` numbers apart; copied into `buffer` unless they lie so already (one row).
    unsafe fn read(&self, i: usize, rows: usize, buffer: *mut E::Acc) -> *const E::Acc {
        if rows == 1 && self.direct() {
            return self.ptr.at(self.at(i)) as *const E::Acc;
        }
        let (offsets, adjacent) = self.offsets(i, rows);
        if adjacent {
            for j in 0..self.n {
                let p = self.ptr.at(offsets[0] + j as isize * self.stride);
                for r in 0..rows {
                    *buffer.add(r * self.n + j) = (*p.add(r)).load();
                }
            }
        } else {
            for (r, &at) in offsets[..rows].iter().enumerate() {
                let (p, to) = (self.ptr.at(at), buffer.add(r * self.n));
                if self.stride == 1 {
                    dispatch(Load(p as *const E, to, self.n));
                } else {
                    for j in 0..self.n {
                        *to.add(j) = (*p.offset(j as isize * self.stride)).load();
                    }
                }
            }
        }
        buffer
    }
    /// Where results of rows `i..` go before [`Rows::write`]: the rows themselves if `read` would use them in place.
    unsafe fn target(&self, i: usize, rows: usize, buffer: *mut E::Acc) -> *mut E::Acc {
        if rows == 1 && self.direct() && !self.streamed {
            self.ptr.at(self.at(i)) as *mut E::Acc
        } else {
            buffer
        }
    }
    /// Stores results of rows `i..` that are at `from`. Where they are streamed, what follows the rows `read` is fetched meanwhile.
    unsafe fn write(&self, i: usize, rows: usize, from: *const E::Acc, read: &[*const E::Acc]) {
        if self.streamed {
            let next: SmallVec<[*const u8; 4]> = read.iter().map(|x| x.wrapping_add(self.n) as *const u8).collect();
            let to = self.ptr.at(self.at(i)) as *mut u8;
            return stream(from as *const u8, to, self.n * std::mem::size_of::<E>(), &next);
        }
        if rows == 1 && self.direct() {
            return;
        }
        let (offsets, adjacent) = self.offsets(i, rows);
        if adjacent {
            for j in 0..self.n {
                let p = self.ptr.at(offsets[0] + j as isize * self.stride);
                for r in 0..rows {
                    *p.add(r) = E::store(*from.add(r * self.n + j));
                }
            }
        } else {
            for (r, &at) in offsets[..rows].iter().enumerate() {
                let (p, from) = (self.ptr.at(at), from.add(r * self.n));
                if self.stride == 1 {
                    dispatch(Store::<E>(from, p, self.n, false));
                } else {
                    for j in 0..self.n {
                        *p.offset(j as isize * self.stride) = E::store(*from.add(j));
                    }
                }
            }
        }
    }
}

/// `f(first, rows)` over blocks of `step` rows, in parallel from about 10 µs of work.
fn each_block(rows: usize, n: usize, step: usize, f: impl Fn(usize, usize) + Sync) {
    each_block_of(rows, n, step, false, f)
}
/// The same for an `f` that may stream what it stores: then in larger pieces, at whose ends others may see it.
fn each_block_of(rows: usize, n: usize, step: usize, streamed: bool, f: impl Fn(usize, usize) + Sync) {
    let work = if streamed { 1 << 18 } else { 1 << 14 };
    let grain = (work / n.max(1)).div_ceil(step).max(1);
    let blocks = rows.div_ceil(step);
    let run = |lo: usize, hi: usize| {
        for b in lo..hi {
            f(b * step, step.min(rows - b * step));
        }
        if streamed {
            stream_end();
        }
    };
    if blocks <= grain {
        run(0, blocks);
    } else {
        pool::chunks(blocks, grain, run);
    }
}

fn same_shape(name: &str, a: &Operand, b: &Operand) -> Result<()> {
    ensure!(
        a.sizes == b.sizes && a.dtype == b.dtype,
        Runtime,
        "{name}: operands {} {} and {} {} do not match",
        a.dtype,
        Shape(a.sizes),
        b.dtype,
        Shape(b.sizes)
    );
    Ok(())
}

pub(crate) unsafe fn slice<'a, S>(p: *const S, n: usize) -> &'a [S] {
    std::slice::from_raw_parts(p, n)
}
pub(crate) unsafe fn slice_mut<'a, S>(p: *mut S, n: usize) -> &'a mut [S] {
    std::slice::from_raw_parts_mut(p, n)
}

// ---- softmax -----------------------------------------------------------------------------------------------------------

/// `y / s` for finite `y`, where `r` is `1 / s`. A division unit is slow beside multiplications: with the remainder that a fused
/// multiply-add gives exactly, the quotient is corrected to the rounded one (Markstein).
#[inline(always)]
fn quotient<S: Float, I: Isa>(y: S, s: S, r: S) -> S {
    if I::FMA {
        let q = y.mul(r);
        let rest = S::fma::<I>(q, S::default().sub(s), y);
        S::fma::<I>(rest, r, q)
    } else {
        y.div(s)
    }
}

struct SoftmaxRow<'a, S> {
    x: &'a [S],
    y: &'a mut [S],
    log: bool,
}
impl<S: Float> Kernel for SoftmaxRow<'_, S> {
    type Out = ();
    #[inline(always)]
    fn run<I: Isa>(self) {
        let n = self.x.len();
        let (x, y) = (self.x, &mut self.y[..n]);
        let m = largest(x);
        let s = apply_sum(x, y, |x| x.sub(m).exp_below::<I>());
        if self.log {
            let s = s.ln();
            for i in 0..n {
                y[i] = x[i].sub(m).sub(s);
            }
        } else {
            let r = S::ONE.div(s);
            for v in y {
                *v = quotient::<S, I>(*v, s, r);
            }
        }
    }
}

/// See [`flambeau_core::Backend::softmax`].
pub fn softmax(x: &Operand, dim: usize, log: bool, out: &Operand) -> Result<()> {
    let name = if log { "log_softmax" } else { "softmax" };
    same_shape(name, x, out)?;
    if x.numel() == 0 {
        return Ok(());
    }
    with_float!(x.dtype, name, E => {
        let x = Rows::<E>::new(x, dim);
        let y = Rows::<E>::of(out, dim, &[&x]);
        let n = x.n;
        let step = if x.direct() && y.direct() { 1 } else { STAGED };
        each_block_of(x.count(), n * 4, step, y.streamed, |i, rows| {
            let (mut a, mut b) = (x.room(rows), y.room(rows));
            // SAFETY: rows of the operands; every block writes its own.
            unsafe {
                let (from, to) = (x.read(i, rows, a.ptr()), y.target(i, rows, b.ptr()));
                for r in 0..rows {
                    dispatch(SoftmaxRow { x: slice(from.add(r * n), n), y: slice_mut(to.add(r * n), n), log });
                }
                y.write(i, rows, to, &[]);
            }
        });
    });
    Ok(())
}

struct SoftmaxGradRow<'a, S> {
    g: &'a [S],
    y: &'a [S],
    gx: &'a mut [S],
    log: bool,
}
impl<S: Float> Kernel for SoftmaxGradRow<'_, S> {
    type Out = ();
    #[inline(always)]
    fn run<I: Isa>(self) {
        let n = self.g.len();
        let (g, y, gx) = (self.g, &self.y[..n], &mut self.gx[..n]);
        if self.log {
            let s = sum1(g, |v| v);
            for i in 0..n {
                gx[i] = g[i].sub(y[i].exp::<I>().mul(s));
            }
        } else {
            let s = sum2(g, y, |g, y| g.mul(y));
            for i in 0..n {
                gx[i] = y[i].mul(g[i].sub(s));
            }
        }
    }
}

/// See [`flambeau_core::Backend::softmax_grad`].
pub fn softmax_grad(g: &Operand, y: &Operand, dim: usize, log: bool, gx: &Operand) -> Result<()> {
    let name = if log { "log_softmax_backward" } else { "softmax_backward" };
    same_shape(name, g, y)?;
    same_shape(name, g, gx)?;
    if g.numel() == 0 {
        return Ok(());
    }
    with_float!(g.dtype, name, E => {
        let (g, y) = (Rows::<E>::new(g, dim), Rows::<E>::new(y, dim));
        let gx = Rows::<E>::of(gx, dim, &[&g, &y]);
        let n = g.n;
        let step = if g.direct() && y.direct() && gx.direct() { 1 } else { STAGED };
        each_block_of(g.count(), n * 2, step, gx.streamed, |i, rows| {
            let (mut a, mut b, mut c) = (g.room(rows), y.room(rows), gx.room(rows));
            // SAFETY: as in `softmax`.
            unsafe {
                let (p, q, to) = (g.read(i, rows, a.ptr()), y.read(i, rows, b.ptr()), gx.target(i, rows, c.ptr()));
                for r in 0..rows {
                    let o = r * n;
                    dispatch(SoftmaxGradRow { g: slice(p.add(o), n), y: slice(q.add(o), n), gx: slice_mut(to.add(o), n), log });
                }
                gx.write(i, rows, to, &[p, q]);
            }
        });
    });
    Ok(())
}

// ---- vectors of any float dtype ----------------------------------------------------------------------------------------

/// One element as f64 (float dtypes of 16 bits and more).
pub(crate) unsafe fn get(x: &Operand, i: usize) -> f64 {
    let stride = x.strides.last().copied().unwrap_or(1) as isize;
    let p = x.ptr.offset(i as isize * stride * x.dtype.size() as isize);
    match x.dtype {
        DType::F32 => *(p as *const f32) as f64,
        DType::F64 => *(p as *const f64),
        DType::F16 => (*(p as *const half::f16)).load() as f64,
        _ => (*(p as *const half::bf16)).load() as f64,
    }
}
/// Stores one element.
pub(crate) unsafe fn put(x: &Operand, i: usize, v: f64) {
    let stride = x.strides.last().copied().unwrap_or(1) as isize;
    let p = x.ptr.offset(i as isize * stride * x.dtype.size() as isize);
    match x.dtype {
        DType::F32 => *(p as *mut f32) = v as f32,
        DType::F64 => *(p as *mut f64) = v,
        DType::F16 => *(p as *mut half::f16) = Element::store(v as f32),
        _ => *(p as *mut half::bf16) = Element::store(v as f32),
    }
}

/// Checks that a side operand is a 1-d float vector of `n`.
pub(crate) fn vector(name: &str, what: &str, x: &Operand, n: usize) -> Result<()> {
    ensure!(
        x.sizes.len() == 1 && x.sizes[0] as usize == n,
        Runtime,
        "{name}: expected {what} of size {n}, but got sizes {}",
        Shape(x.sizes)
    );
    with_float!(x.dtype, name, E => {
        let _: Option<E> = None;
    });
    Ok(())
}

pub(crate) fn values<S: Float>(x: Option<&Operand>, n: usize) -> Option<Scratch<S>> {
    x.map(|x| {
        let mut v = Scratch::new(n);
        for (i, v) in v.slice().iter_mut().enumerate() {
            // SAFETY: `vector` has checked the operand.
            *v = S::of(unsafe { get(x, i) });
        }
        v
    })
}

fn two_dims(name: &str, x: &Operand) -> Result<(usize, usize)> {
    ensure!(x.sizes.len() == 2, Runtime, "{name}: expected rows and columns, but got sizes {}", Shape(x.sizes));
    Ok((x.sizes[0] as usize, x.sizes[1] as usize))
}

// ---- layer norm --------------------------------------------------------------------------------------------------------

struct NormRow<'a, S> {
    x: &'a [S],
    y: &'a mut [S],
    weight: Option<&'a [S]>,
    bias: Option<&'a [S]>,
    eps: f64,
    /// Whether to fetch the row that follows.
    fetch: bool,
}
impl<S: Float> Kernel for NormRow<'_, S> {
    type Out = (S, S);
    #[inline(always)]
    fn run<I: Isa>(self) -> (S, S) {
        let n = self.x.len();
        let (x, y) = (self.x, &mut self.y[..n]);
        let count = S::of(n as f64);
        let mean = sum1(x, |v| v).div(count);
        let square = |v: S| {
            let d = v.sub(mean);
            d.mul(d)
        };
        if self.fetch {
            fetch_next(x);
        }
        let rstd = S::ONE.div(sum1(x, square).div(count).add(S::of(self.eps)).sqrt());
        match (self.weight, self.bias) {
            (Some(w), Some(b)) => {
                let (w, b) = (&w[..n], &b[..n]);
                for (((y, x), w), b) in y.iter_mut().zip(x).zip(w).zip(b) {
                    *y = S::fma::<I>(x.sub(mean).mul(rstd), *w, *b);
                }
            }
            (Some(w), None) => {
                let w = &w[..n];
                for i in 0..n {
                    y[i] = x[i].sub(mean).mul(rstd).mul(w[i]);
                }
            }
            (None, b) => {
                for i in 0..n {
                    y[i] = x[i].sub(mean).mul(rstd);
                }
                if let Some(b) = b {
                    for (y, b) in y.iter_mut().zip(b) {
                        *y = y.add(*b);
                    }
                }
            }
        }
        (mean, rstd)
    }
}

/// See [`flambeau_core::Backend::layer_norm`].
pub fn layer_norm(
    x: &Operand,
    weight: Option<&Operand>,
    bias: Option<&Operand>,
    eps: f64,
    out: &Operand,
    mean: &Operand,
    rstd: &Operand,
) -> Result<()> {
    let name = "layer_norm";
    let (rows, n) = two_dims(name, x)?;
    same_shape(name, x, out)?;
    for (what, v) in [("a weight", weight), ("a bias", bias)] {
        if let Some(v) = v {
            vector(name, what, v, n)?;
        }
    }
    vector(name, "a mean", mean, rows)?;
    vector(name, "a reciprocal deviation", rstd, rows)?;
    if rows == 0 {
        return Ok(());
    }
    with_float!(x.dtype, name, E => {
        let x = Rows::<E>::new(x, 1);
        let y = Rows::<E>::of(out, 1, &[&x]);
        let (mut w, mut b) = (values::<<E as Element>::Acc>(weight, n), values::<<E as Element>::Acc>(bias, n));
        let (w, b) = (w.as_mut().map(|v| &*v.slice()), b.as_mut().map(|v| &*v.slice()));
        let step = if x.direct() && y.direct() { 1 } else { STAGED };
        each_block_of(rows, n * 2, step, y.streamed, |i, rows| {
            let (mut p, mut q) = (x.room(rows), y.room(rows));
            // SAFETY: as in `softmax`; the vectors have been checked.
            unsafe {
                let (from, to) = (x.read(i, rows, p.ptr()), y.target(i, rows, q.ptr()));
                for r in 0..rows {
                    let fetch = !y.streamed;
                    let (x, y) = (slice(from.add(r * n), n), slice_mut(to.add(r * n), n));
                    let (m, s) = dispatch(NormRow { x, y, weight: w, bias: b, eps, fetch });
                    put(mean, i + r, m.to_f64());
                    put(rstd, i + r, s.to_f64());
                }
                y.write(i, rows, to, &[from]);
            }
        });
    });
    Ok(())
}

struct NormGradRow<'a, S> {
    g: &'a [S],
    x: &'a [S],
    mean: S,
    rstd: S,
    weight: Option<&'a [S]>,
    gx: Option<&'a mut [S]>,
    gw: Option<&'a mut [S]>,
    gb: Option<&'a mut [S]>,
}
impl<S: Float> Kernel for NormGradRow<'_, S> {
    type Out = ();
    #[inline(always)]
    fn run<I: Isa>(self) {
        let n = self.g.len();
        let (g, x, mean, rstd) = (self.g, &self.x[..n], self.mean, self.rstd);
        let normal = |x: S| x.sub(mean).mul(rstd);
        match (self.gw, self.gb) {
            (Some(gw), Some(gb)) => {
                for (((gw, gb), g), x) in gw[..n].iter_mut().zip(&mut gb[..n]).zip(g).zip(x) {
                    *gw = gw.add(g.mul(normal(*x)));
                    *gb = gb.add(*g);
                }
            }
            (gw, gb) => {
                if let Some(gw) = gw {
                    for ((gw, g), x) in gw[..n].iter_mut().zip(g).zip(x) {
                        *gw = gw.add(g.mul(normal(*x)));
                    }
                }
                if let Some(gb) = gb {
                    for (gb, g) in gb[..n].iter_mut().zip(g) {
                        *gb = gb.add(*g);
                    }
                }
            }
        }
        let Some(gx) = self.gx else { return };
        let gx = &mut gx[..n];
        // gx = rstd (h - mean(h) - x̂ mean(h x̂)) with h = g w.
        let count = S::of(n as f64);
        match self.weight {
            Some(w) => {
                let w = &w[..n];
                let (a, b) = sum3_pair(g, w, x, |g, w, _| g.mul(w), |g, w, x| g.mul(w).mul(normal(x)));
                let (a, b) = (a.div(count), b.div(count));
                for (((gx, g), w), x) in gx.iter_mut().zip(g).zip(w).zip(x) {
                    *gx = rstd.mul(g.mul(*w).sub(a).sub(normal(*x).mul(b)));
                }
            }
            None => {
                let (a, b) = sum3_pair(g, x, x, |g, _, _| g, |g, x, _| g.mul(normal(x)));
                let (a, b) = (a.div(count), b.div(count));
                for ((gx, g), x) in gx.iter_mut().zip(g).zip(x) {
                    *gx = rstd.mul(g.sub(a).sub(normal(*x).mul(b)));
                }
            }
        }
    }
}

pub(crate) struct AddTo<'a, S>(pub &'a mut [S], pub &'a [S]);
impl<S: Float> Kernel for AddTo<'_, S> {
    type Out = ();
    #[inline(always)]
    fn run<I: Isa>(self) {
        for (a, b) in self.0.iter_mut().zip(self.1) {
            *a = a.add(*b);
        }
    }
}

/// Rows whose contributions to weight and bias are added one after another; such blocks are summed in a tree.
pub(crate) const SUMMED: usize = 64;

/// See [`flambeau_core::Backend::layer_norm_grad`].
#[allow(clippy::too_many_arguments)]
pub fn layer_norm_grad(
    g: &Operand,
    x: &Operand,
    mean: &Operand,
    rstd: &Operand,
    weight: Option<&Operand>,
    gx: Option<&Operand>,
    gw: Option<&Operand>,
    gb: Option<&Operand>,
) -> Result<()> {
    let name = "layer_norm_backward";
    let (rows, n) = two_dims(name, x)?;
    same_shape(name, x, g)?;
    if let Some(gx) = gx {
        same_shape(name, x, gx)?;
    }
    for (what, v) in [("a weight", weight), ("a weight gradient", gw), ("a bias gradient", gb)] {
        if let Some(v) = v {
            vector(name, what, v, n)?;
        }
    }
    vector(name, "a mean", mean, rows)?;
    vector(name, "a reciprocal deviation", rstd, rows)?;
    with_float!(x.dtype, name, E => {
        type S = <E as Element>::Acc;
        let (g, x) = (Rows::<E>::new(g, 1), Rows::<E>::new(x, 1));
        let gx = gx.map(|gx| Rows::<E>::of(gx, 1, &[&g, &x]));
        let mut w = values::<S>(weight, n);
        let w = w.as_mut().map(|v| &*v.slice());
        let step = if g.direct() && x.direct() && gx.as_ref().is_none_or(|gx| gx.direct()) { 1 } else { STAGED };
        // Partial sums: for each block, gradients of the weight, then of the bias.
        let blocks = rows.div_ceil(SUMMED);
        let columns = gw.is_some() || gb.is_some();
        let mut partial = Scratch::<S>::new(if columns { blocks * 2 * n } else { 0 });
        if columns {
            partial.slice().fill(0.0);
        }
        let sums = Ptr(partial.ptr());
        let streamed = gx.as_ref().is_some_and(|gx| gx.streamed);
        each_block_of(rows, n * 4, SUMMED, streamed, |first, count| {
            let (mut a, mut b) = (g.room(step), x.room(step));
            let mut c = gx.as_ref().map_or(Scratch::new(0), |gx| gx.room(step));
            for i in (first..first + count).step_by(step) {
                let rows = step.min(first + count - i);
                // SAFETY: as in `softmax`; every block has its own partial sums.
                unsafe {
                    let (p, q) = (g.read(i, rows, a.ptr()), x.read(i, rows, b.ptr()));
                    let to = gx.as_ref().map(|gx| gx.target(i, rows, c.ptr()));
                    let part = |wanted: bool, which: usize| {
                        wanted.then(|| slice_mut(sums.get().add((first / SUMMED * 2 + which) * n), n))
                    };
                    for r in 0..rows {
                        dispatch(NormGradRow {
                            g: slice(p.add(r * n), n),
                            x: slice(q.add(r * n), n),
                            mean: <S as Float>::of(get(mean, i + r)),
                            rstd: <S as Float>::of(get(rstd, i + r)),
                            weight: w,
                            gx: to.map(|to| slice_mut(to.add(r * n), n)),
                            gw: part(gw.is_some(), 0),
                            gb: part(gb.is_some(), 1),
                        });
                    }
                    if let (Some(gx), Some(to)) = (&gx, to) {
                        gx.write(i, rows, to, &[p, q]);
                    }
                }
            }
        });
        if columns {
            each_block(n.div_ceil(256), 256 * blocks * 2, 1, |block, _| {
                let (lo, hi) = (block * 256, (block * 256 + 256).min(n));
                for (which, out) in [gw, gb].into_iter().enumerate() {
                    let Some(out) = out else { continue };
                    // SAFETY: tasks use disjoint columns of the partial sums and of the outputs.
                    unsafe {
                        let at = |b: usize| sums.get().add((b * 2 + which) * n + lo);
                        let mut k = blocks;
                        while k > 1 {
                            let h = k.div_ceil(2);
                            for b in 0..k - h {
                                dispatch(AddTo(slice_mut(at(b), hi - lo), slice(at(b + h), hi - lo)));
                            }
                            k = h;
                        }
                        for j in lo..hi {
                            put(out, j, if blocks == 0 { 0.0 } else { (*at(0).add(j - lo)).to_f64() });
                        }
                    }
                }
            });
        }
    });
    Ok(())
}

// ---- cross entropy -----------------------------------------------------------------------------------------------------

struct LogSumExp<'a, S>(&'a [S]);
impl<S: Float> Kernel for LogSumExp<'_, S> {
    type Out = S;
    #[inline(always)]
    fn run<I: Isa>(self) -> S {
        let x = self.0;
        let m = largest(x);
        sum1(x, |x| x.sub(m).exp_below::<I>()).ln().add(m)
    }
}

unsafe fn target_at(target: &Operand, i: usize) -> i64 {
    let at = i as isize * target.strides.first().copied().unwrap_or(1) as isize;
    match target.dtype {
        DType::I64 => *(target.ptr as *const i64).offset(at),
        DType::I32 => *(target.ptr as *const i32).offset(at) as i64,
        _ => *target.ptr.offset(at) as i64,
    }
}

fn check_target(name: &str, target: &Operand, rows: usize) -> Result<()> {
    ensure!(
        target.sizes.len() == 1 && target.sizes[0] as usize == rows,
        Value,
        "Expected input batch_size ({rows}) to match target batch_size ({}).",
        target.sizes.first().copied().unwrap_or(0)
    );
    if !matches!(target.dtype, DType::I64 | DType::I32 | DType::U8) {
        bail!(Runtime, "{name}: expected an integer target, but got {}", target.dtype);
    }
    Ok(())
}

/// The failure of the lowest row, whichever thread finds it first.
struct First(Mutex<Option<(usize, Error)>>);
impl First {
    fn report(&self, at: usize, error: Error) {
        let mut first = self.0.lock();
        if first.as_ref().is_none_or(|(i, _)| at < *i) {
            *first = Some((at, error));
        }
    }
    fn result(self) -> Result<()> {
        self.0.into_inner().map_or(Ok(()), |(_, e)| Err(e))
    }
}

/// See [`flambeau_core::Backend::cross_entropy`].
pub fn cross_entropy(logits: &Operand, target: &Operand, ignore: i64, loss: &Operand, lse: &Operand) -> Result<()> {
    let name = "cross_entropy";
    let (rows, n) = two_dims(name, logits)?;
    check_target(name, target, rows)?;
    vector(name, "a loss", loss, rows)?;
    vector(name, "a log-sum-exp", lse, rows)?;
    let failure = First(Mutex::new(None));
    with_float!(logits.dtype, name, E => {
        let x = Rows::<E>::new(logits, 1);
        let step = if x.direct() { 1 } else { STAGED };
        each_block(rows, n * 4, step, |i, rows| {
            let mut a = Scratch::new(rows * n);
            // SAFETY: as in `softmax`; targets are checked before use.
            unsafe {
                let from = x.read(i, rows, a.ptr());
                for r in 0..rows {
                    let row = slice(from.add(r * n), n);
                    let total = dispatch(LogSumExp(row));
                    let t = target_at(target, i + r);
                    let value = if t == ignore {
                        0.0
                    } else if t < 0 || t as usize >= n {
                        failure.report(i + r, flambeau_core::err!(Index, "Target {t} is out of bounds."));
                        0.0
                    } else {
                        Float::to_f64(total.sub(row[t as usize]))
                    };
                    put(loss, i + r, value);
                    put(lse, i + r, Float::to_f64(total));
                }
            }
        });
    });
    failure.result()
}

struct EntropyGradRow<'a, S> {
    x: &'a [S],
    gx: &'a mut [S],
    lse: S,
    g: S,
}
impl<S: Float> Kernel for EntropyGradRow<'_, S> {
    type Out = ();
    #[inline(always)]
    fn run<I: Isa>(self) {
        for (gx, x) in self.gx.iter_mut().zip(self.x) {
            *gx = x.sub(self.lse).exp_below::<I>().mul(self.g);
        }
    }
}

/// See [`flambeau_core::Backend::cross_entropy_grad`].
pub fn cross_entropy_grad(
    g: &Operand,
    logits: &Operand,
    target: &Operand,
    lse: &Operand,
    ignore: i64,
    gx: &Operand,
) -> Result<()> {
    let name = "cross_entropy_backward";
    let (rows, n) = two_dims(name, logits)?;
    same_shape(name, logits, gx)?;
    check_target(name, target, rows)?;
    vector(name, "a gradient", g, rows)?;
    vector(name, "a log-sum-exp", lse, rows)?;
    let failure = First(Mutex::new(None));
    with_float!(logits.dtype, name, E => {
        type S = <E as Element>::Acc;
        let (x, y) = (Rows::<E>::new(logits, 1), Rows::<E>::new(gx, 1));
        let step = if x.direct() && y.direct() { 1 } else { STAGED };
        each_block(rows, n * 4, step, |i, rows| {
            let (mut a, mut b) = (x.room(rows), y.room(rows));
            // SAFETY: as in `cross_entropy`.
            unsafe {
                let (from, to) = (x.read(i, rows, a.ptr()), y.target(i, rows, b.ptr()));
                for r in 0..rows {
                    let (row, out) = (slice(from.add(r * n), n), slice_mut(to.add(r * n), n));
                    let t = target_at(target, i + r);
                    if t == ignore {
                        out.fill(0.0);
                    } else if t < 0 || t as usize >= n {
                        failure.report(i + r, flambeau_core::err!(Index, "Target {t} is out of bounds."));
                    } else {
                        let (g, lse) = (<S as Float>::of(get(g, i + r)), <S as Float>::of(get(lse, i + r)));
                        // (p - 1) g for the target, from the logit itself, which `out` may overlap.
                        let x = row[t as usize];
                        dispatch(EntropyGradRow { x: row, gx: &mut *out, lse, g });
                        struct One<S>(S, S);
                        impl<S: Float> Kernel for One<S> {
                            type Out = S;
                            #[inline(always)]
                            fn run<I: Isa>(self) -> S {
                                self.0.exp::<I>().sub(S::ONE).mul(self.1)
                            }
                        }
                        out[t as usize] = dispatch(One(x - lse, g));
                    }
                }
                y.write(i, rows, to, &[]);
            }
        });
    });
    failure.result()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{compare, Case};

    const DTYPES: [DType; 4] = [DType::F32, DType::F64, DType::BF16, DType::F16];

    fn real(v: Vec<f64>) -> Vec<flambeau_core::Complex64> {
        v.into_iter().map(Into::into).collect()
    }

    /// Index of element `i`'s row along `dim`, and its position in it.
    fn rows_of(sizes: &[i64], dim: usize) -> Vec<Vec<usize>> {
        let strides = flambeau_core::contiguous_strides(sizes);
        let (s, t) = (without(sizes, dim), without(&strides, dim));
        (0..s.iter().product::<i64>() as usize)
            .map(|i| {
                (0..sizes[dim] as usize).map(|j| unravel(i, &s, &t) as usize + j * strides[dim] as usize).collect()
            })
            .collect()
    }

    #[test]
    fn softmax_and_its_gradient() {
        for dtype in DTYPES {
            for (sizes, dim) in
                [(vec![5, 70], 1), (vec![5, 70], 0), (vec![3, 20, 7], 1), (vec![2, 9000], 1), (vec![4, 1], 1)]
            {
                for reversed in [false, true] {
                    for log in [false, true] {
                        let x = Case::random(dtype, &sizes, reversed, 1);
                        let g = Case::random(dtype, &sizes, !reversed, 2);
                        let y = Case::random(dtype, &sizes, false, 3);
                        let gx = Case::random(dtype, &sizes, reversed, 4);
                        softmax(&x.operand(), dim, log, &y.operand()).unwrap();
                        softmax_grad(&g.operand(), &y.operand(), dim, log, &gx.operand()).unwrap();
                        let (xv, gv, yv) = (x.reals(), g.reals(), y.reals());
                        let (mut want, mut wantg) = (vec![0.0; xv.len()], vec![0.0; xv.len()]);
                        for row in rows_of(&sizes, dim) {
                            let total: f64 = row.iter().map(|&i| xv[i].exp()).sum();
                            let dot: f64 = row.iter().map(|&i| if log { gv[i] } else { gv[i] * yv[i] }).sum();
                            for &i in &row {
                                want[i] = if log { xv[i] - total.ln() } else { xv[i].exp() / total };
                                wantg[i] = if log { gv[i] - yv[i].exp() * dot } else { yv[i] * (gv[i] - dot) };
                            }
                        }
                        compare(&y, &real(want), 4.0, "softmax");
                        compare(&gx, &real(wantg), 40.0, "softmax_grad");
                    }
                }
            }
        }
        let x = Case::real(DType::F32, &[2, 3], &[f64::NAN, 0.0, 1.0, f64::NEG_INFINITY, 0.0, 0.0]);
        let y = Case::random(DType::F32, &[2, 3], false, 1);
        softmax(&x.operand(), 1, false, &y.operand()).unwrap();
        assert!(y.reals()[..3].iter().all(|v| v.is_nan()) && y.reals()[3..] == [0.0, 0.5, 0.5]);
        assert!(softmax(
            &Case::real(DType::I64, &[1], &[1.0]).operand(),
            0,
            false,
            &Case::real(DType::I64, &[1], &[1.0]).operand()
        )
        .is_err());
    }

    #[test]
    fn layer_norm_and_its_gradient() {
        for dtype in DTYPES {
            let acc = if dtype == DType::F64 { DType::F64 } else { DType::F32 };
            for (rows, n) in [(3, 5), (200, 33), (1, 5000), (0, 4)] {
                for reversed in [false, true] {
                    let x = Case::random(dtype, &[rows, n], reversed, 1);
                    let g = Case::random(dtype, &[rows, n], false, 2);
                    let (w, b) = (Case::random(dtype, &[n], false, 3), Case::random(dtype, &[n], false, 4));
                    let (y, gx) =
                        (Case::random(dtype, &[rows, n], false, 5), Case::random(dtype, &[rows, n], reversed, 5));
                    let (gw, gb) = (Case::random(dtype, &[n], false, 5), Case::random(dtype, &[n], false, 5));
                    let (mean, rstd) = (Case::random(acc, &[rows], false, 6), Case::random(acc, &[rows], false, 6));
                    layer_norm(
                        &x.operand(),
                        Some(&w.operand()),
                        Some(&b.operand()),
                        1e-5,
                        &y.operand(),
                        &mean.operand(),
                        &rstd.operand(),
                    )
                    .unwrap();
                    let mut bits: Option<Vec<u8>> = None;
                    for threads in [1, 2, 8] {
                        pool::set_num_threads(threads);
                        layer_norm_grad(
                            &g.operand(),
                            &x.operand(),
                            &mean.operand(),
                            &rstd.operand(),
                            Some(&w.operand()),
                            Some(&gx.operand()),
                            Some(&gw.operand()),
                            Some(&gb.operand()),
                        )
                        .unwrap();
                        assert_eq!(*bits.get_or_insert(gw.bytes.clone()), gw.bytes);
                    }
                    let (xv, gv, wv, bv) = (x.reals(), g.reals(), w.reals(), b.reals());
                    let (rows, n) = (rows as usize, n as usize);
                    let (mut want, mut wgx, mut wgw, mut wgb) = (vec![], vec![], vec![0.0; n], vec![0.0; n]);
                    for i in 0..rows {
                        let row = &xv[i * n..(i + 1) * n];
                        let m = row.iter().sum::<f64>() / n as f64;
                        let r = 1.0 / (row.iter().map(|v| (v - m) * (v - m)).sum::<f64>() / n as f64 + 1e-5).sqrt();
                        let h = |j: usize| gv[i * n + j] * wv[j];
                        let a = (0..n).map(h).sum::<f64>() / n as f64;
                        let c = (0..n).map(|j| h(j) * (row[j] - m) * r).sum::<f64>() / n as f64;
                        for j in 0..n {
                            let xh = (row[j] - m) * r;
                            want.push(xh * wv[j] + bv[j]);
                            wgx.push(r * (h(j) - a - xh * c));
                            wgw[j] += gv[i * n + j] * xh;
                            wgb[j] += gv[i * n + j];
                        }
                    }
                    compare(&y, &real(want), 10.0, "layer_norm");
                    compare(&gx, &real(wgx), 20.0, "layer_norm gx");
                    compare(&gw, &real(wgw), 20.0, "layer_norm gw");
                    compare(&gb, &real(wgb), 20.0, "layer_norm gb");
                }
            }
        }
    }

    #[test]
    fn cross_entropy_and_its_gradient() {
        for dtype in DTYPES {
            let acc = if dtype == DType::F64 { DType::F64 } else { DType::F32 };
            for reversed in [false, true] {
                let (rows, n) = (40usize, 70usize);
                let x = Case::random(dtype, &[40, 70], reversed, 1);
                let t: Vec<f64> = (0..40).map(|i| if i == 7 { -100.0 } else { (i * 31 % 70) as f64 }).collect();
                let target = Case::real(DType::I64, &[40], &t);
                let (loss, lse) = (Case::random(dtype, &[40], false, 2), Case::random(acc, &[40], false, 2));
                cross_entropy(&x.operand(), &target.operand(), -100, &loss.operand(), &lse.operand()).unwrap();
                let mut g = Case::random(dtype, &[40], false, 3);
                g.strides[0] = 0;
                let gx = Case::random(dtype, &[40, 70], false, 4);
                cross_entropy_grad(&g.operand(), &x.operand(), &target.operand(), &lse.operand(), -100, &gx.operand())
                    .unwrap();
                let (xv, gv) = (x.reals(), g.reals());
                let (mut want, mut wgx) = (vec![], vec![]);
                for i in 0..rows {
                    let total = xv[i * n..(i + 1) * n].iter().map(|v| v.exp()).sum::<f64>().ln();
                    let on = i != 7;
                    want.push(if on { total - xv[i * n + t[i] as usize] } else { 0.0 });
                    for j in 0..n {
                        let p = (xv[i * n + j] - total).exp() - (j as f64 == t[i]) as u8 as f64;
                        wgx.push(if on { p * gv[0] } else { 0.0 });
                    }
                }
                compare(&loss, &real(want), 4.0, "loss");
                compare(&gx, &real(wgx), 4.0, "loss gradient");
                let bad = Case::real(DType::I64, &[40], &[70.0; 40]);
                let e = cross_entropy(&x.operand(), &bad.operand(), -100, &loss.operand(), &lse.operand()).unwrap_err();
                assert_eq!(e.message(), "Target 70 is out of bounds.");
            }
        }
    }

    /// Results that are stored past the caches, beside the same computed row by row.
    #[test]
    fn streamed_rows_are_the_same() {
        for dtype in [DType::F32, DType::F64] {
            for n in [300i64, 1024] {
                let rows = 90;
                let all = || [1, 2].map(|seed| Case::random(dtype, &[rows, n], false, seed));
                let ([x, g], [w, _]) = (all(), all());
                let run = |step: i64, threads| {
                    pool::set_num_threads(threads);
                    let outs: Vec<Case> = (0..6).map(|seed| Case::random(dtype, &[rows, n], false, seed)).collect();
                    for first in (0..rows).step_by(step as usize) {
                        let sizes = [step, n];
                        let part = |x: &Case| x.operand().ptr.wrapping_add((first * n) as usize * x.dtype.size());
                        fn at<'a>(x: &'a Case, ptr: *mut u8, sizes: &'a [i64]) -> Operand<'a> {
                            Operand { ptr, sizes, strides: &x.strides[2 - sizes.len()..], ..x.operand() }
                        }
                        let whole = |x| at(x, part(x), &sizes);
                        // A number of each row.
                        let beside = |x: &'_ Case| x.operand().ptr.wrapping_add(first as usize * x.dtype.size());
                        let weight = at(&w, w.operand().ptr, &sizes[1..]);
                        softmax(&whole(&x), 1, false, &whole(&outs[0])).unwrap();
                        softmax_grad(&whole(&g), &whole(&outs[0]), 1, false, &whole(&outs[1])).unwrap();
                        let [mean, rstd] = [2, 3].map(|k: usize| at(&outs[k], beside(&outs[k]), &sizes[..1]));
                        layer_norm(&whole(&x), Some(&weight), None, 1e-5, &whole(&outs[4]), &mean, &rstd).unwrap();
                        let gx = whole(&outs[5]);
                        layer_norm_grad(&whole(&g), &whole(&x), &mean, &rstd, Some(&weight), Some(&gx), None, None)
                            .unwrap();
                    }
                    outs.into_iter().map(|o| o.bytes).collect::<Vec<_>>()
                };
                let want = run(1, 1);
                for threads in [1, 2, 8] {
                    assert!(run(rows, threads) == want, "{dtype} {n} {threads}");
                }
            }
        }
    }
}
