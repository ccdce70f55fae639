//! Positions computed from index tensors, and reading at them. Bytes are moved by element size, whatever the dtype.

use crate::element::{unravel, Ptr};
use crate::isa::{dispatch, prefetch, Isa, Kernel};
use crate::pool;
use crate::tile::Space;
use flambeau_core::{bail, contiguous_strides, ensure, err, DType, Error, Index, Operand, Result, Shape, SmallVec};
use parking_lot::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Elements that a thread should at least move.
pub(crate) const GRAIN: usize = 16_384;

/// The failure at the lowest position, whichever thread finds it first.
pub(crate) struct Failure {
    lowest: AtomicUsize,
    error: Mutex<Option<Error>>,
}
impl Failure {
    pub(crate) fn new() -> Self {
        Failure { lowest: AtomicUsize::new(usize::MAX), error: Mutex::new(None) }
    }
    #[cold]
    pub(crate) fn report(&self, position: usize, value: i64, index: &Index) {
        let mut error = self.error.lock();
        if position < self.lowest.load(Ordering::Relaxed) {
            self.lowest.store(position, Ordering::Relaxed);
            *error = Some(err!(
                Index,
                "index {value} is out of bounds for dimension {} with size {}",
                index.dim,
                index.size
            ));
        }
    }
    /// Fails as `other` did.
    fn take(&self, other: Failure) {
        *self.error.lock() = other.error.into_inner();
    }
    pub(crate) fn result(self) -> Result<()> {
        self.error.into_inner().map_or(Ok(()), Err)
    }
}

/// Sum of the index tensors' contributions to a position.
pub(crate) struct Positions<'a> {
    pub(crate) index: &'a [Index<'a>],
    pub(crate) failure: Failure,
}

impl Positions<'_> {
    /// Contribution of index tensor `k` at `offset` of its values; none (and a report) when out of range.
    #[inline(always)]
    pub(crate) unsafe fn one(&self, k: usize, offset: isize, position: usize) -> Option<isize> {
        let index = &self.index[k];
        let value = if index.values.dtype == DType::I64 {
            *(index.values.ptr as *const i64).offset(offset)
        } else {
            *(index.values.ptr as *const i32).offset(offset) as i64
        };
        let wrapped = if value < 0 && index.wrap { value + index.size } else { value };
        if (wrapped as u64) < index.size as u64 {
            Some((wrapped * index.stride) as isize)
        } else {
            self.failure.report(position, value, index);
            None
        }
    }
    /// The total at element `i` of the iteration over the leading `d` dimensions (the others at 0).
    #[inline(always)]
    pub(crate) unsafe fn total(&self, i: usize, d: usize, position: usize) -> Option<isize> {
        let mut at = 0;
        for (k, index) in self.index.iter().enumerate() {
            let v = &index.values;
            at += self.one(k, unravel(i, &v.sizes[..d], &v.strides[..d]), position)?;
        }
        Some(at)
    }
}

pub(crate) fn check(name: &str, x: &Operand, index: &[Index], other: &Operand) -> Result<()> {
    ensure!(
        x.strides.len() == other.sizes.len() && x.dtype == other.dtype,
        Runtime,
        "{name}: operands {} {} and {} {} do not match",
        x.dtype,
        Shape(x.sizes),
        other.dtype,
        Shape(other.sizes)
    );
    for i in index {
        ensure!(
            i.values.sizes == other.sizes,
            Runtime,
            "{name}: an index of sizes {} does not match the iteration {}",
            Shape(i.values.sizes),
            Shape(other.sizes)
        );
        if !matches!(i.values.dtype, DType::I64 | DType::I32) {
            bail!(Index, "tensors used as indices must be long or int, but got {}", i.values.dtype);
        }
    }
    Ok(())
}

/// How many leading dimensions any index tensor varies over; the rest is one inner block for each index.
pub(crate) fn leading(index: &[Index]) -> usize {
    index
        .iter()
        .map(|i| {
            (0..i.values.sizes.len())
                .rev()
                .find(|&d| i.values.strides[d] != 0 && i.values.sizes[d] != 1)
                .map_or(0, |d| d + 1)
        })
        .max()
        .unwrap_or(0)
}

/// Calls `f(size in bytes)` with a constant type of that many bytes.
macro_rules! by_size {
    ($dtype:expr, $T:ident => $body:expr) => {
        match $dtype.size() {
            1 => {
                type $T = u8;
                $body
            }
            2 => {
                type $T = u16;
                $body
            }
            4 => {
                type $T = u32;
                $body
            }
            8 => {
                type $T = u64;
                $body
            }
            _ => {
                type $T = flambeau_core::Complex64;
                $body
            }
        }
    };
}

pub(crate) use by_size;

/// An inner block: sizes and the strides of its two sides, collapsed as far as they agree.
pub(crate) struct Inner {
    pub(crate) sizes: SmallVec<[i64; 5]>,
    pub(crate) a: SmallVec<[i64; 5]>,
    pub(crate) b: SmallVec<[i64; 5]>,
}
impl Inner {
    pub(crate) fn new(sizes: &[i64], a: &[i64], b: &[i64]) -> Inner {
        let mut inner = Inner { sizes: SmallVec::new(), a: SmallVec::new(), b: SmallVec::new() };
        for d in 0..sizes.len() {
            if sizes[d] == 1 {
                continue;
            }
            match inner.sizes.len().checked_sub(1) {
                Some(l) if inner.a[l] == a[d] * sizes[d] && inner.b[l] == b[d] * sizes[d] => {
                    inner.sizes[l] *= sizes[d];
                    inner.a[l] = a[d];
                    inner.b[l] = b[d];
                }
                _ => {
                    inner.sizes.push(sizes[d]);
                    inner.a.push(a[d]);
                    inner.b.push(b[d]);
                }
            }
        }
        if inner.sizes.is_empty() {
            inner.sizes.push(1);
            inner.a.push(1);
            inner.b.push(1);
        }
        inner
    }
    pub(crate) fn numel(&self) -> usize {
        self.sizes.iter().product::<i64>() as usize
    }
    /// `f(length, offset a, step a, offset b, step b)` for the runs that make up elements `lo..hi`.
    #[inline(always)]
    pub(crate) fn runs(&self, lo: usize, hi: usize, mut f: impl FnMut(usize, isize, isize, isize, isize)) {
        let l = self.sizes.len() - 1;
        let (n, sa, sb) = (self.sizes[l] as usize, self.a[l] as isize, self.b[l] as isize);
        let mut i = lo;
        while i < hi {
            let (row, at) = (i / n, i % n);
            let w = (n - at).min(hi - i);
            let (oa, ob) = if l == 0 {
                (0, 0)
            } else {
                (unravel(row, &self.sizes[..l], &self.a[..l]), unravel(row, &self.sizes[..l], &self.b[..l]))
            };
            f(w, oa + at as isize * sa, sa, ob + at as isize * sb, sb);
            i += w;
        }
    }
}

#[inline(always)]
pub(crate) unsafe fn copy_run<T: Copy>(from: *const T, sf: isize, to: *mut T, st: isize, n: usize) {
    if sf == 1 && st == 1 {
        // Short rows are not worth a call.
        if n <= 8 {
            for i in 0..n {
                *to.add(i) = *from.add(i);
            }
        } else {
            std::ptr::copy_nonoverlapping(from, to, n);
        }
    } else {
        for i in 0..n as isize {
            *to.offset(i * st) = *from.offset(i * sf);
        }
    }
}

/// Every element of an iteration with a position of its own: the sizes with the strides of one operand, of the indexed
/// tensor, of the logical position, and of every index tensor, in this order.
pub(crate) fn element_space(sizes: &[i64], other: &[i64], x: &[i64], logical: &[i64], index: &[Index]) -> Space {
    let mut strides: SmallVec<[&[i64]; 6]> = SmallVec::from_iter([other, x, logical]);
    strides.extend(index.iter().map(|i| i.values.strides));
    let order: SmallVec<[usize; 6]> = (0..sizes.len()).collect();
    Space::new(sizes, &strides, &order, &[])
}

impl Positions<'_> {
    /// Calls `f(element of the other operand, element of the indexed tensor)` for elements `j0..j1` of a row of
    /// [`element_space`] that starts at `at`.
    ///
    /// # Safety
    /// The space describes the index tensors; `f` gets offsets within the operands that the space describes.
    #[inline(always)]
    pub(crate) unsafe fn each(
        &self,
        space: &Space,
        at: &[isize],
        j0: usize,
        j1: usize,
        mut f: impl FnMut(isize, isize),
    ) {
        let (so, sx, sp) = (space.inner_stride(0), space.inner_stride(1), space.inner_stride(2));
        if let ([index], 1, DType::I64) = (self.index, so, self.index[0].values.dtype) {
            // One index tensor of int64, the rule.
            let (values, step) = ((index.values.ptr as *const i64).offset(at[3]), space.inner_stride(3));
            // In registers: what `f` writes could otherwise be any of these.
            let (a0, a1, a2) = (at[0], at[1], at[2]);
            let (size, stride, wrap) = (index.size, index.stride, index.wrap);
            if step == 1 && sx == 1 && !wrap {
                // Adjacent elements of everything, as gathers and scatters over rows have them.
                for j in j0..j1 {
                    let value = *values.add(j);
                    let j = j as isize;
                    if (value as u64) < size as u64 {
                        f(a0 + j, a1 + j + (value * stride) as isize);
                    } else {
                        self.failure.report((a2 + j * sp) as usize, value, index);
                    }
                }
                return;
            }
            let mut one = |j: usize, value: i64| {
                let wrapped = if wrap && value < 0 { value + size } else { value };
                if (wrapped as u64) < size as u64 {
                    f(a0 + j as isize, a1 + j as isize * sx + (wrapped * stride) as isize);
                } else {
                    self.failure.report((a2 + j as isize * sp) as usize, value, index);
                }
            };
            if step == 1 {
                (j0..j1).for_each(|j| one(j, *values.add(j)));
            } else {
                (j0..j1).for_each(|j| one(j, *values.offset(j as isize * step)));
            }
            return;
        }
        'element: for j in j0..j1 {
            let k = j as isize;
            let mut place = at[1] + k * sx;
            for i in 0..self.index.len() {
                match self.one(i, at[3 + i] + k * space.inner_stride(3 + i), (at[2] + k * sp) as usize) {
                    Some(offset) => place += offset,
                    None => continue 'element,
                }
            }
            f(at[0] + k * so, place);
        }
    }
}

/// Values of a block of indices that are checked, and then read at, together.
const CHECKED: usize = 1024;

/// `to[j] = from[values[j] · stride + j · step]`; false, before anything of that block is read, when a value is not below `size`.
struct ReadRow<'a, T> {
    values: &'a [i64],
    from: *const T,
    step: isize,
    stride: isize,
    size: i64,
    to: *mut T,
}
impl<T: Copy> Kernel for ReadRow<'_, T> {
    type Out = bool;
    #[inline(always)]
    fn run<I: Isa>(self) -> bool {
        let ReadRow { values, from, step, stride, size, to } = self;
        for (k, values) in values.chunks(CHECKED).enumerate() {
            // Negative when one of them is not within 0..size.
            let signs = values.iter().fold(0i64, |signs, &v| signs | v | (size - 1 - v));
            if signs < 0 {
                return false;
            }
            // SAFETY: checked against the size of what is indexed; the caller's rows are disjoint.
            unsafe {
                let first = k * CHECKED;
                let (from, to) = (from.offset(first as isize * step), to.add(first));
                if stride == 1 && step == 0 {
                    for (j, &v) in values.iter().enumerate() {
                        *to.add(j) = *from.offset(v as isize);
                    }
                } else {
                    for (j, &v) in values.iter().enumerate() {
                        *to.add(j) = *from.offset(v as isize * stride + j as isize * step);
                    }
                }
            }
        }
        true
    }
}

/// Adjacent places of a row, read in one way.
#[derive(Clone, Copy)]
enum Stretch {
    /// Forwards from an offset, as many.
    Along(isize, usize),
    /// Backwards.
    Back(isize, usize),
    /// Each at an offset of its own: positions from, to.
    Each(usize, usize),
}
/// Runs of adjacent offsets shorter than this are read one by one.
const RUN: usize = 8;
fn stretches(offsets: &[isize]) -> Vec<Stretch> {
    let mut out: Vec<Stretch> = Vec::new();
    let mut i = 0;
    while i < offsets.len() {
        let run = |by: isize| 1 + offsets[i..].windows(2).take_while(|w| w[1] - w[0] == by).count();
        let (ahead, back) = (run(1), run(-1));
        let n = ahead.max(back);
        if n < RUN {
            match out.last_mut() {
                Some(Stretch::Each(_, to)) => *to = i + n,
                _ => out.push(Stretch::Each(i, i + n)),
            }
        } else {
            out.push(if ahead >= back { Stretch::Along(offsets[i], n) } else { Stretch::Back(offsets[i], n) });
        }
        i += n;
    }
    out
}
/// Rows of which all read at the same offsets: `row(r)` says where row `r` begins on both sides.
struct ReadRows<'a, T, F> {
    offsets: &'a [isize],
    stretches: &'a [Stretch],
    rows: std::ops::Range<usize>,
    row: F,
    types: std::marker::PhantomData<T>,
}
impl<T: Copy, F: Fn(usize) -> (*const T, *mut T)> Kernel for ReadRows<'_, T, F> {
    type Out = ();
    #[inline(always)]
    fn run<I: Isa>(self) {
        for r in self.rows {
            let (from, mut to) = (self.row)(r);
            for s in self.stretches {
                // SAFETY: offsets are checked; stretches make up the row.
                unsafe {
                    let n = match *s {
                        Stretch::Along(at, n) => {
                            std::ptr::copy_nonoverlapping(from.offset(at), to, n);
                            n
                        }
                        Stretch::Back(at, n) => {
                            let from = std::slice::from_raw_parts(from.offset(at + 1 - n as isize), n);
                            let to = std::slice::from_raw_parts_mut(to, n);
                            to.iter_mut().zip(from.iter().rev()).for_each(|(to, from)| *to = *from);
                            n
                        }
                        Stretch::Each(lo, hi) => {
                            for (j, &at) in self.offsets[lo..hi].iter().enumerate() {
                                *to.add(j) = *from.offset(at);
                            }
                            hi - lo
                        }
                    };
                    to = to.add(n);
                }
            }
        }
    }
}

/// Reads where the one index tensor varies along dimension `d` alone, so that its values are looked at once: into dense `out`.
/// False when it is not that.
fn read_along(x: &Operand, index: &[Index], out: &Operand, failure: &Failure) -> bool {
    let [ix] = index else { return false };
    let varies = |d: &usize| ix.values.strides[*d] != 0 && ix.values.sizes[*d] != 1;
    let mut dims = (0..out.sizes.len()).filter(varies);
    let (Some(d), None) = (dims.next(), dims.next()) else { return false };
    let (m, inner) =
        (out.sizes[d] as usize, Inner::new(&out.sizes[d + 1..], &x.strides[d + 1..], &out.strides[d + 1..]));
    let rows = out.sizes[..d].iter().product::<i64>() as usize;
    let n = inner.numel();
    // One row alone has its places read once anyway.
    if rows < 2 || !out.is_contiguous() || inner.sizes.len() != 1 || (n > 1 && inner.a[0] != 1) {
        return false;
    }
    let positions = Positions { index, failure: Failure::new() };
    let mut offsets = Vec::with_capacity(m);
    for j in 0..m {
        // SAFETY: the operand describes its memory.
        match unsafe { positions.one(0, j as isize * ix.values.strides[d] as isize, j) } {
            Some(at) => offsets.push(at + j as isize * x.strides[d] as isize),
            None => {
                failure.take(positions.failure);
                return true;
            }
        }
    }
    let stretches = stretches(&offsets);
    by_size!(out.dtype, T => {
        let (from, to) = (Ptr(x.ptr as *mut T), Ptr(out.ptr as *mut T));
        let start = |r: usize| unravel(r, &out.sizes[..d], &x.strides[..d]);
        if n == 1 {
            let row = |r: usize| {
                // SAFETY: rows of the operands.
                unsafe { (from.at(start(r)) as *const T, to.at((r * m) as isize)) }
            };
            pool::chunks(rows, (GRAIN / m).max(1), |lo, hi| {
                let (offsets, stretches) = (&offsets[..], &stretches[..]);
                dispatch(ReadRows { offsets, stretches, rows: lo..hi, row, types: std::marker::PhantomData::<T> });
            });
        } else {
            pool::chunks(rows * m, (GRAIN / n).max(1), |lo, hi| {
                let (mut r, mut j) = (lo / m, lo % m);
                let mut base = start(r);
                for i in lo..hi {
                    // SAFETY: offsets are checked; every row is written by one task.
                    unsafe { copy_run(from.at(base + offsets[j]) as *const T, 1, to.at((i * n) as isize), 1, n) };
                    j += 1;
                    if j == m && i + 1 < hi {
                        (r, j) = (r + 1, 0);
                        base = start(r);
                    }
                }
            });
        }
    });
    true
}

/// Rows ahead that are fetched into the cache while one is copied.
const AHEAD: usize = 12;

/// See [`flambeau_core::Backend::index_read`].
pub fn index_read(x: &Operand, index: &[Index], out: &Operand) -> Result<()> {
    check("index", x, index, out)?;
    if out.numel() == 0 {
        return Ok(());
    }
    let failure = Failure::new();
    if read_along(x, index, out, &failure) {
        return failure.result();
    }
    let d = leading(index);
    let outer: usize = out.sizes[..d].iter().product::<i64>() as usize;
    let inner = Inner::new(&out.sizes[d..], &x.strides[d..], &out.strides[d..]);
    let n = inner.numel();
    let positions = Positions { index, failure: Failure::new() };
    by_size!(out.dtype, T => {
        let (from, to) = (Ptr(x.ptr as *mut T), Ptr(out.ptr as *mut T));
        if n == 1 {
            let space = element_space(out.sizes, out.strides, x.strides, &contiguous_strides(out.sizes), index);
            let work = |lo: usize, hi: usize| {
                space.rows(lo, hi, |at, j0, j1| {
                    if let ([ix], 1, DType::I64) = (index, space.inner_stride(0), index[0].values.dtype) {
                        if space.inner_stride(3) == 1 && !ix.wrap && j1 - j0 >= 16 {
                            // SAFETY: elements j0..j1 of a row of the space.
                            let whole = unsafe {
                                let values = (ix.values.ptr as *const i64).offset(at[3] + j0 as isize);
                                let step = space.inner_stride(1);
                                dispatch(ReadRow {
                                    values: std::slice::from_raw_parts(values, j1 - j0),
                                    from: from.at(at[1] + j0 as isize * step) as *const T,
                                    step,
                                    stride: ix.stride as isize,
                                    size: ix.size,
                                    to: to.at(at[0] + j0 as isize),
                                })
                            };
                            if whole {
                                return;
                            }
                        }
                    }
                    // SAFETY: positions are checked against the sizes of what is indexed; tasks write disjoint elements.
                    unsafe { positions.each(&space, at, j0, j1, |o, p| *to.at(o) = *from.at(p)) }
                });
            };
            if outer <= GRAIN {
                work(0, outer);
            } else {
                pool::chunks(outer, GRAIN, work);
            }
            return positions.failure.result();
        }
        // One run of adjacent index values over 1-d walks needs no unravelling.
        let simple = d == 1 || (d > 0 && out.sizes[..d - 1].iter().all(|&s| s == 1));
        let solid = inner.sizes.len() == 1 && inner.a[0] == 1 && inner.b[0] == 1;
        let rows = |lo: usize, hi: usize| {
            // SAFETY: positions are checked against the sizes of what is indexed; tasks write disjoint rows of `out`.
            // What is fetched ahead is an address only.
            unsafe {
                for i in lo..hi {
                    let (at, ox, oo) = if simple {
                        let mut at = Some(0);
                        for (k, ix) in index.iter().enumerate() {
                            let v = positions.one(k, i as isize * ix.values.strides[d - 1] as isize, i);
                            at = at.zip(v).map(|(a, b)| a + b);
                        }
                        (at, i as isize * x.strides[d - 1] as isize, i as isize * out.strides[d - 1] as isize)
                    } else {
                        let s = &out.sizes[..d];
                        (positions.total(i, d, i), unravel(i, s, &x.strides[..d]), unravel(i, s, &out.strides[..d]))
                    };
                    if let (true, true, [ix]) = (simple && solid, i + AHEAD < hi, index) {
                        if ix.values.dtype == DType::I64 {
                            let step = ix.values.strides[d - 1] as isize;
                            let v = *(ix.values.ptr as *const i64).offset((i + AHEAD) as isize * step);
                            let row = from.get().wrapping_offset((v.wrapping_mul(ix.stride)) as isize) as *const u8;
                            for line in (0..n * std::mem::size_of::<T>()).step_by(64).take(8) {
                                prefetch(row.wrapping_add(line));
                            }
                        }
                    }
                    let Some(at) = at else { continue };
                    let (p, q) = (from.at(at + ox) as *const T, to.at(oo));
                    if solid {
                        copy_run(p, 1, q, 1, n);
                    } else {
                        inner.runs(0, n, |w, a, sa, b, sb| copy_run(p.offset(a), sa, q.offset(b), sb, w));
                    }
                }
            }
        };
        if outer * n <= GRAIN {
            rows(0, outer);
        } else {
            pool::chunks(outer, (GRAIN / n).max(1), rows);
        }
    });
    positions.failure.result()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scatter::index_write;
    use crate::testing::Case;
    use flambeau_core::Write;

    fn index<'a>(values: Operand<'a>, size: i64, stride: i64, wrap: bool) -> Index<'a> {
        Index { values, size, stride, dim: 0, wrap }
    }
    /// `c` seen with other sizes and strides.
    fn view<'a>(c: &Case, sizes: &'a [i64], strides: &'a [i64]) -> Operand<'a> {
        Operand {
            sizes,
            strides,
            ..Operand {
                sizes,
                strides,
                ..{
                    let o = c.operand();
                    Operand { ptr: o.ptr, dtype: o.dtype, sizes, strides, device: o.device }
                }
            }
        }
    }

    #[test]
    fn rows_are_read_and_added() {
        for dtype in [DType::F32, DType::BF16, DType::I64, DType::C128, DType::Bool] {
            for (n, w) in [(5i64, 3i64), (300, 200), (70_000, 1)] {
                let size = 50i64;
                let x = Case::random(dtype, &[size, w], false, 1);
                let iv: Vec<f64> = (0..n).map(|i| (i * 37 % 100 - 50) as f64).collect();
                let ix = Case::real(DType::I64, &[n], &iv);
                let (sizes, across) = ([n, w], [1, 0]);
                let along = [0, 1];
                let values = Case::random(dtype, &[n, w], w > 1, 2);
                let out = Case::random(dtype, &[n, w], false, 3);
                let i = [index(view(&ix, &sizes, &across), size, w, true)];
                index_read(&view(&x, &sizes, &along), &i, &out.operand()).unwrap();
                let (xv, ov, vv) = (x.values(), out.values(), values.values());
                let at = |r: i64| (iv[r as usize] as i64 + size) % size;
                for r in 0..n {
                    for c in 0..w {
                        assert_eq!(ov[(r * w + c) as usize], xv[(at(r) * w + c) as usize]);
                    }
                }
                let mut bits: Option<Vec<u8>> = None;
                for threads in [1, 2, 8] {
                    pool::set_num_threads(threads);
                    let x = Case::random(dtype, &[size, w], false, 1);
                    index_write(&view(&x, &sizes, &along), &i, &values.operand(), Write::Add).unwrap();
                    assert_eq!(*bits.get_or_insert(x.bytes.clone()), x.bytes);
                    let set = Case::random(dtype, &[size, w], false, 1);
                    index_write(&view(&set, &sizes, &along), &i, &values.operand(), Write::Set).unwrap();
                    let mut want = xv.clone();
                    for r in 0..n {
                        for c in 0..w {
                            want[(at(r) * w + c) as usize] = vv[(r * w + c) as usize];
                        }
                    }
                    assert!(set.values() == want);
                }
                if dtype == DType::I64 {
                    let x = Case::random(dtype, &[size, w], false, 1);
                    index_write(&view(&x, &sizes, &along), &i, &values.operand(), Write::Max).unwrap();
                    let mut want = xv.clone();
                    for r in 0..n {
                        for c in 0..w {
                            let k = (at(r) * w + c) as usize;
                            want[k].re = want[k].re.max(vv[(r * w + c) as usize].re);
                        }
                    }
                    assert_eq!(x.values(), want);
                }
            }
        }
    }

    #[test]
    fn out_of_range() {
        let x = Case::random(DType::F32, &[4], false, 1);
        let out = Case::random(DType::F32, &[3], false, 1);
        let ix = Case::real(DType::I64, &[3], &[0.0, -5.0, 9.0]);
        for wrap in [true, false] {
            let i = [index(ix.operand(), 4, 1, wrap)];
            let e = index_read(&view(&x, &[3], &[0]), &i, &out.operand()).unwrap_err();
            assert_eq!(e.message(), "index -5 is out of bounds for dimension 0 with size 4");
            assert!(index_write(&view(&x, &[3], &[0]), &i, &out.operand(), Write::Add).is_err());
        }
    }

    #[test]
    fn every_element_is_added_at_a_place_of_its_own() {
        let (n, w, size) = (900i64, 70i64, 40i64);
        let values = Case::random(DType::F32, &[n, w], false, 2);
        let mut iv: Vec<f64> = (0..n * w).map(|i| (i * i % 97 % size) as f64).collect();
        let mut want = Case::random(DType::F32, &[size, w], false, 1).reals();
        for (i, v) in values.reals().iter().enumerate() {
            let at = iv[i] as usize * w as usize + i % w as usize;
            want[at] = (want[at] as f32 + *v as f32) as f64;
        }
        let (sizes, along) = ([n, w], [0, 1]);
        for threads in [1, 2, 8] {
            pool::set_num_threads(threads);
            let (x, ix) = (Case::random(DType::F32, &[size, w], false, 1), Case::real(DType::I64, &[n, w], &iv));
            let i = [index(ix.operand(), size, w, false)];
            index_write(&view(&x, &sizes, &along), &i, &values.operand(), Write::Add).unwrap();
            assert_eq!(x.reals(), want);
        }
        iv[5000] = size as f64;
        iv[6000] = -1.0;
        let ix = Case::real(DType::I64, &[n, w], &iv);
        let x = Case::random(DType::F32, &[size, w], false, 1);
        let i = [index(ix.operand(), size, w, false)];
        let e = index_write(&view(&x, &sizes, &along), &i, &values.operand(), Write::Add).unwrap_err();
        assert_eq!(e.message(), "index 40 is out of bounds for dimension 0 with size 40");
    }

    #[test]
    fn gather_along_the_last_dimension() {
        let x = Case::random(DType::F32, &[6, 10], false, 1);
        let iv: Vec<f64> = (0..24).map(|i| (i * 7 % 10) as f64).collect();
        let ix = Case::real(DType::I32, &[6, 4], &iv);
        let out = Case::random(DType::F32, &[6, 4], true, 1);
        index_read(&view(&x, &[6, 4], &[10, 0]), &[index(ix.operand(), 10, 1, false)], &out.operand()).unwrap();
        let (xv, ov) = (x.reals(), out.reals());
        (0..24).for_each(|i| assert_eq!(ov[i], xv[i / 4 * 10 + iv[i] as usize]));
    }
}
