//! Reading and writing at computed positions, and the elements that a condition selects.
//!
//! Bytes are moved by element size, whatever the dtype. Writes to one place happen in index order: threads own disjoint
//! destinations (ranges of inner columns, or of positions), never ranges of the index.

use crate::element::{unravel, with_element, Element, Number, Ptr};
use crate::isa::{dispatch, Isa, Kernel};
use crate::pool;
use flambeau_core::{bail, ensure, err, DType, Error, Index, Operand, Result, Shape, SmallVec, Write};
use half::{bf16, f16};
use parking_lot::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Elements that a thread should at least move.
const GRAIN: usize = 16_384;

/// The failure at the lowest position, whichever thread finds it first.
struct Failure {
    lowest: AtomicUsize,
    error: Mutex<Option<Error>>,
}
impl Failure {
    fn new() -> Self {
        Failure { lowest: AtomicUsize::new(usize::MAX), error: Mutex::new(None) }
    }
    #[cold]
    fn report(&self, position: usize, value: i64, index: &Index) {
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
    fn result(self) -> Result<()> {
        self.error.into_inner().map_or(Ok(()), Err)
    }
}

/// Sum of the index tensors' contributions to a position.
struct Positions<'a> {
    index: &'a [Index<'a>],
    failure: Failure,
}

impl Positions<'_> {
    /// Contribution of index tensor `k` at `offset` of its values; none (and a report) when out of range.
    #[inline(always)]
    unsafe fn one(&self, k: usize, offset: isize, position: usize) -> Option<isize> {
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
    unsafe fn total(&self, i: usize, d: usize, position: usize) -> Option<isize> {
        let mut at = 0;
        for (k, index) in self.index.iter().enumerate() {
            let v = &index.values;
            at += self.one(k, unravel(i, &v.sizes[..d], &v.strides[..d]), position)?;
        }
        Some(at)
    }
}

fn check(name: &str, x: &Operand, index: &[Index], other: &Operand) -> Result<()> {
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
fn leading(index: &[Index]) -> usize {
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

/// An inner block: sizes and the strides of its two sides, collapsed as far as they agree.
struct Inner {
    sizes: SmallVec<[i64; 5]>,
    a: SmallVec<[i64; 5]>,
    b: SmallVec<[i64; 5]>,
}
impl Inner {
    fn new(sizes: &[i64], a: &[i64], b: &[i64]) -> Inner {
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
    fn numel(&self) -> usize {
        self.sizes.iter().product::<i64>() as usize
    }
    /// `f(length, offset a, step a, offset b, step b)` for the runs that make up elements `lo..hi`.
    #[inline(always)]
    fn runs(&self, lo: usize, hi: usize, mut f: impl FnMut(usize, isize, isize, isize, isize)) {
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
unsafe fn copy_run<T: Copy>(from: *const T, sf: isize, to: *mut T, st: isize, n: usize) {
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

/// See [`flambeau_core::Backend::index_read`].
pub fn index_read(x: &Operand, index: &[Index], out: &Operand) -> Result<()> {
    check("index", x, index, out)?;
    if out.numel() == 0 {
        return Ok(());
    }
    let d = leading(index);
    let outer: usize = out.sizes[..d].iter().product::<i64>() as usize;
    let inner = Inner::new(&out.sizes[d..], &x.strides[d..], &out.strides[d..]);
    let n = inner.numel();
    let positions = Positions { index, failure: Failure::new() };
    by_size!(out.dtype, T => {
        let (from, to) = (Ptr(x.ptr as *mut T), Ptr(out.ptr as *mut T));
        // The common case, one run of adjacent index values over 1-d walks, needs no unravelling.
        let simple = d == 1 || (d > 0 && out.sizes[..d - 1].iter().all(|&s| s == 1));
        let rows = |lo: usize, hi: usize| {
            // SAFETY: positions are checked against the sizes of what is indexed; tasks write disjoint rows of `out`.
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
                    let Some(at) = at else { continue };
                    let (p, q) = (from.at(at + ox) as *const T, to.at(oo));
                    if n == 1 {
                        *q = *p;
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

/// What one write does to the value that is there.
trait Combine: Copy + Sync {
    fn combine<E: Element>(self, old: E, new: E) -> E
    where
        E::Acc: Order;
}
/// Numbers with a maximum; NaN wins. Complex numbers have none and keep the old value.
trait Order: Number {
    fn max(self, other: Self) -> Self;
    fn min(self, other: Self) -> Self;
}
macro_rules! order {
    ($($T:ty)*) => { $(
        impl Order for $T {
            #[inline(always)]
            fn max(self, o: Self) -> Self { #[allow(clippy::eq_op)] if o > self || o != o { o } else { self } }
            #[inline(always)]
            fn min(self, o: Self) -> Self { #[allow(clippy::eq_op)] if o < self || o != o { o } else { self } }
        }
    )* };
}
order! { f32 f64 i64 }
macro_rules! unordered {
    ($($T:ty)*) => { $(
        impl Order for $T {
            fn max(self, _: Self) -> Self { self }
            fn min(self, _: Self) -> Self { self }
        }
    )* };
}
unordered! { flambeau_core::Complex32 flambeau_core::Complex64 }

#[derive(Clone, Copy)]
struct AddTo;
#[derive(Clone, Copy)]
struct MulTo;
/// Largest or smallest; the flag says whether unsigned 64-bit values must be compared as such.
#[derive(Clone, Copy)]
struct MaxOf(bool);
#[derive(Clone, Copy)]
struct MinOf(bool);
impl Combine for AddTo {
    #[inline(always)]
    fn combine<E: Element>(self, old: E, new: E) -> E
    where
        E::Acc: Order,
    {
        E::store(old.load().add(new.load()))
    }
}
impl Combine for MulTo {
    #[inline(always)]
    fn combine<E: Element>(self, old: E, new: E) -> E
    where
        E::Acc: Order,
    {
        E::store(old.load().mul(new.load()))
    }
}
/// Flips the sign bit of u64 values held as i64, so that their order is that of the unsigned numbers.
#[inline(always)]
fn choose<E: Element>(old: E, new: E, unsigned: bool, greater: bool) -> E
where
    E::Acc: Order,
{
    let (a, b) = (old.load(), new.load());
    if unsigned {
        // SAFETY: `unsigned` is set for u64 alone, whose computing type is i64.
        let (x, y) =
            unsafe { (std::mem::transmute_copy::<E::Acc, u64>(&a), std::mem::transmute_copy::<E::Acc, u64>(&b)) };
        return if (y > x) == greater { new } else { old };
    }
    E::store(if greater { a.max(b) } else { a.min(b) })
}
impl Combine for MaxOf {
    #[inline(always)]
    fn combine<E: Element>(self, old: E, new: E) -> E
    where
        E::Acc: Order,
    {
        choose(old, new, self.0, true)
    }
}
impl Combine for MinOf {
    #[inline(always)]
    fn combine<E: Element>(self, old: E, new: E) -> E
    where
        E::Acc: Order,
    {
        choose(old, new, self.0, false)
    }
}

struct CombineRun<E, C> {
    to: *mut E,
    st: isize,
    from: *const E,
    sf: isize,
    n: usize,
    how: C,
}
impl<E: Element, C: Combine> Kernel for CombineRun<E, C>
where
    E::Acc: Order,
{
    type Out = ();
    #[inline(always)]
    fn run<I: Isa>(self) {
        // SAFETY: `write_with` has checked the positions.
        unsafe {
            if self.st == 1 && self.sf == 1 {
                let to = std::slice::from_raw_parts_mut(self.to, self.n);
                for (t, f) in to.iter_mut().zip(std::slice::from_raw_parts(self.from, self.n)) {
                    *t = self.how.combine(*t, *f);
                }
            } else {
                for i in 0..self.n as isize {
                    let t = self.to.offset(i * self.st);
                    *t = self.how.combine(*t, *self.from.offset(i * self.sf));
                }
            }
        }
    }
}

/// Writes in index order with `run(to, step, from, step, n)`.
unsafe fn write_with<T: Copy>(
    x: &Operand,
    index: &[Index],
    values: &Operand,
    run: impl Fn(*mut T, isize, *const T, isize, usize) + Sync,
) -> Result<()> {
    let d = leading(index);
    let outer: usize = values.sizes[..d].iter().product::<i64>() as usize;
    let inner = Inner::new(&values.sizes[d..], &x.strides[d..], &values.strides[d..]);
    let n = inner.numel();
    let positions = Positions { index, failure: Failure::new() };
    let (to, from) = (Ptr(x.ptr as *mut T), Ptr(values.ptr as *mut T));
    // Where each index writes, once for all threads.
    let mut places = vec![isize::MIN; outer];
    let at = Ptr(places.as_mut_ptr());
    let s = &values.sizes[..d];
    let find = |lo: usize, hi: usize| {
        for i in lo..hi {
            // SAFETY: `index_write`'s contract; tasks fill disjoint places.
            unsafe {
                if let Some(p) = positions.total(i, d, i) {
                    *at.get().add(i) = p + unravel(i, s, &x.strides[..d]);
                }
            }
        }
    };
    if outer <= GRAIN {
        find(0, outer);
    } else {
        pool::chunks(outer, GRAIN, find);
    }
    let write = |i: usize, lo: usize, hi: usize| {
        // SAFETY: places are in range, or marked.
        unsafe {
            let place = places[i];
            if place == isize::MIN {
                return;
            }
            let (p, q) = (to.at(place), from.at(unravel(i, s, &values.strides[..d])) as *const T);
            inner.runs(lo, hi, |w, a, sa, b, sb| run(p.offset(a), sa, q.offset(b), sb, w));
        }
    };
    let apart = !flambeau_core::may_overlap_itself(&inner.sizes, &inner.a);
    const COLUMNS: usize = 64;
    if outer * n <= 2 * GRAIN || !apart {
        (0..outer).for_each(|i| write(i, 0, n));
    } else if n >= 2 * COLUMNS {
        // Threads own columns of the inner block. Positions of different indices that meet must meet column by column,
        // which holds when the indexed strides step over whole blocks or stay off them.
        let span: i64 = 1 + inner.sizes.iter().zip(&inner.a).map(|(n, s)| (n - 1) * s.abs()).sum::<i64>();
        if index.iter().all(|i| i.stride.abs() >= span)
            && (0..d).all(|k| x.strides[k] == 0 || x.strides[k].abs() >= span)
        {
            pool::chunks(n, n.div_ceil(64).max(COLUMNS), |lo, hi| (0..outer).for_each(|i| write(i, lo, hi)));
        } else {
            (0..outer).for_each(|i| write(i, 0, n));
        }
    } else if n == 1 {
        // Threads own ranges of places; each walks the whole index, which is small beside scattered writes.
        let live = || places.iter().copied().filter(|&p| p != isize::MIN);
        if let (Some(min), Some(max)) = (live().min(), live().max()) {
            let ranges = 16;
            let width = (max - min) / ranges as isize + 1;
            pool::parallel(ranges, |r| {
                let lo = min + r as isize * width;
                for (i, &p) in places.iter().enumerate() {
                    if p >= lo && p < lo + width {
                        write(i, 0, 1);
                    }
                }
            });
        }
    } else {
        (0..outer).for_each(|i| write(i, 0, n));
    }
    positions.failure.result()
}

/// See [`flambeau_core::Backend::index_write`].
pub fn index_write(x: &Operand, index: &[Index], values: &Operand, how: Write) -> Result<()> {
    check("index_put_", x, index, values)?;
    if values.numel() == 0 {
        return Ok(());
    }
    if matches!(how, Write::Max | Write::Min) && x.dtype.is_complex() {
        bail!(Runtime, "scatter(): Expected reduce operations on real numbers, but got {}", x.dtype);
    }
    if how == Write::Set {
        by_size!(x.dtype, T => {
            // SAFETY: the operands describe their memory, and positions are checked before use.
            unsafe { write_with::<T>(x, index, values, |to, st, from, sf, n| copy_run(from, sf, to, st, n)) }
        })
    } else {
        with_element!(x.dtype, "index_put", E => {
            macro_rules! with {
                ($how:expr) => {
                    // SAFETY: as above.
                    unsafe {
                        write_with::<E>(x, index, values, |to, st, from, sf, n| {
                            if n < 8 {
                                for i in 0..n as isize {
                                    let t = to.offset(i * st);
                                    *t = Combine::combine($how, *t, *from.offset(i * sf));
                                }
                            } else {
                                dispatch(CombineRun { to, st, from, sf, n, how: $how })
                            }
                        })
                    }
                };
            }
            let unsigned = x.dtype == DType::U64;
            match how {
                Write::Mul => with!(MulTo),
                Write::Max => with!(MaxOf(unsigned)),
                Write::Min => with!(MinOf(unsigned)),
                _ => with!(AddTo),
            }
        })
    }
}

// ---- conditions --------------------------------------------------------------------------------------------------------

/// A stored element that is zero or not.
trait Truth: Copy + Send + Sync {
    fn truth(self) -> bool;
}
macro_rules! truths {
    ($($T:ty, $x:ident => $test:expr;)*) => { $(
        impl Truth for $T { #[inline(always)] fn truth(self) -> bool { let $x = self; $test } }
    )* };
}
/// float8: anything but the sign bit.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Float8(u8);
truths! {
    u8, x => x != 0; u16, x => x != 0; u32, x => x != 0; u64, x => x != 0;
    f16, x => x.to_bits() & 0x7fff != 0; bf16, x => x.to_bits() & 0x7fff != 0;
    f32, x => x != 0.0; f64, x => x != 0.0; Float8, x => x.0 & 0x7f != 0;
    flambeau_core::Complex32, x => x.re != 0.0 || x.im != 0.0;
    flambeau_core::Complex64, x => x.re != 0.0 || x.im != 0.0;
}
macro_rules! with_truth {
    ($dtype:expr, $T:ident => $body:expr) => {
        match $dtype {
            DType::Bool | DType::U8 | DType::I8 => {
                type $T = u8;
                $body
            }
            DType::I16 | DType::U16 => {
                type $T = u16;
                $body
            }
            DType::I32 | DType::U32 => {
                type $T = u32;
                $body
            }
            DType::I64 | DType::U64 => {
                type $T = u64;
                $body
            }
            DType::F16 => {
                type $T = f16;
                $body
            }
            DType::BF16 => {
                type $T = bf16;
                $body
            }
            DType::F32 => {
                type $T = f32;
                $body
            }
            DType::F64 => {
                type $T = f64;
                $body
            }
            DType::C64 => {
                type $T = flambeau_core::Complex32;
                $body
            }
            DType::C128 => {
                type $T = flambeau_core::Complex64;
                $body
            }
            DType::F8E4M3 | DType::F8E5M2 => {
                type $T = Float8;
                $body
            }
        }
    };
}

struct CountTrue<'a, T>(&'a [T]);
impl<T: Truth> Kernel for CountTrue<'_, T> {
    type Out = usize;
    #[inline(always)]
    fn run<I: Isa>(self) -> usize {
        // Narrow counters inside short blocks, so that bytes are counted as bytes.
        self.0.chunks(128).map(|c| c.iter().map(|x| x.truth() as u8).sum::<u8>() as usize).sum()
    }
}

/// Elements of a block when counting and selecting.
const COUNTED: usize = 1 << 15;

/// The number of true elements in each block of `COUNTED`, row-major.
fn counts<T: Truth>(x: &Operand) -> Vec<usize> {
    let n = x.numel() as usize;
    let whole = Inner::new(x.sizes, x.strides, x.strides);
    let mut found = vec![0usize; n.div_ceil(COUNTED)];
    let (p, to) = (Ptr(x.ptr as *mut T), Ptr(found.as_mut_ptr()));
    let block = |b: usize| {
        let mut count = 0;
        whole.runs(b * COUNTED, ((b + 1) * COUNTED).min(n), |w, o, s, _, _| {
            // SAFETY: the operand describes its memory.
            unsafe {
                if s == 1 {
                    count += dispatch(CountTrue(std::slice::from_raw_parts(p.at(o) as *const T, w)));
                } else {
                    count += (0..w as isize).filter(|i| (*p.at(o + i * s)).truth()).count();
                }
            }
        });
        // SAFETY: one place a block.
        unsafe { *to.get().add(b) = count };
    };
    if found.len() <= 1 {
        (0..found.len()).for_each(block);
    } else {
        pool::parallel(found.len(), block);
    }
    found
}

/// See [`flambeau_core::Backend::count_nonzero`].
pub fn count_nonzero(x: &Operand) -> Result<i64> {
    if x.numel() == 0 {
        return Ok(0);
    }
    Ok(with_truth!(x.dtype, T => counts::<T>(x)).iter().sum::<usize>() as i64)
}

/// Calls `f(rank among the true elements, row-major position, offset in x)` for each true element, blocks in parallel.
fn each_true<T: Truth>(x: &Operand, limit: usize, f: impl Fn(usize, usize, isize) + Sync) -> usize {
    let n = x.numel() as usize;
    let found = counts::<T>(x);
    let mut starts = Vec::with_capacity(found.len());
    let mut total = 0;
    for c in &found {
        starts.push(total);
        total += c;
    }
    if total > limit {
        return total;
    }
    let whole = Inner::new(x.sizes, x.strides, x.strides);
    let p = Ptr(x.ptr as *mut T);
    let block = |b: usize| {
        let (mut rank, mut i) = (starts[b], b * COUNTED);
        whole.runs(i, ((b + 1) * COUNTED).min(n), |w, o, s, _, _| {
            for j in 0..w as isize {
                let offset = o + j * s;
                // SAFETY: the operand describes its memory.
                if unsafe { (*p.at(offset)).truth() } {
                    f(rank, i, offset);
                    rank += 1;
                }
                i += 1;
            }
        });
    };
    if found.len() <= 1 {
        (0..found.len()).for_each(block);
    } else {
        pool::parallel(found.len(), block);
    }
    total
}

/// See [`flambeau_core::Backend::nonzero`].
pub fn nonzero(x: &Operand, out: &Operand) -> Result<()> {
    let rank = x.sizes.len();
    ensure!(
        out.dtype == DType::I64 && out.sizes.len() == 2 && out.sizes[1] as usize == rank,
        Runtime,
        "nonzero: expected int64 coordinates of sizes [n, {rank}], but got {} {}",
        out.dtype,
        Shape(out.sizes)
    );
    if x.numel() == 0 {
        return Ok(());
    }
    let (to, rows, s0, s1) =
        (Ptr(out.ptr as *mut i64), out.sizes[0] as usize, out.strides[0] as isize, out.strides[1] as isize);
    let total = with_truth!(x.dtype, T => each_true::<T>(x, rows, |row, mut i, _| {
        for d in (0..rank).rev() {
            let n = x.sizes[d] as usize;
            // SAFETY: `row` is below the number of rows, and ranks are distinct.
            unsafe { *to.at(row as isize * s0 + d as isize * s1) = (i % n) as i64 };
            i /= n;
        }
    }));
    ensure!(total == rows, Runtime, "nonzero: {total} elements are not zero, but the output holds {rows}");
    Ok(())
}

/// See [`flambeau_core::Backend::masked_select`].
pub fn masked_select(x: &Operand, mask: &Operand, out: &Operand) -> Result<()> {
    ensure!(
        mask.sizes == x.sizes && x.dtype == out.dtype && out.sizes.len() == 1,
        Runtime,
        "masked_select: operands {} {}, mask {} and output {} {} do not match",
        x.dtype,
        Shape(x.sizes),
        Shape(mask.sizes),
        out.dtype,
        Shape(out.sizes)
    );
    ensure!(
        matches!(mask.dtype, DType::Bool | DType::U8),
        Runtime,
        "masked_select: expected BoolTensor for mask, but got {}",
        mask.dtype
    );
    if x.numel() == 0 {
        return Ok(());
    }
    let (n, step) = (out.sizes[0] as usize, out.strides[0] as isize);
    let contiguous = x.is_contiguous();
    let total = by_size!(x.dtype, T => {
        let (from, to) = (Ptr(x.ptr as *mut T), Ptr(out.ptr as *mut T));
        each_true::<u8>(mask, n, |rank, i, _| {
            let at = if contiguous { i as isize } else { unravel(i, x.sizes, x.strides) };
            // SAFETY: `rank` is below the output's size, and `i` below the number of elements.
            unsafe { *to.at(rank as isize * step) = *from.at(at) };
        })
    });
    ensure!(total == n, Runtime, "masked_select: the mask selects {total} elements, but the output holds {n}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Case;

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
    fn gather_along_the_last_dimension() {
        let x = Case::random(DType::F32, &[6, 10], false, 1);
        let iv: Vec<f64> = (0..24).map(|i| (i * 7 % 10) as f64).collect();
        let ix = Case::real(DType::I32, &[6, 4], &iv);
        let out = Case::random(DType::F32, &[6, 4], true, 1);
        index_read(&view(&x, &[6, 4], &[10, 0]), &[index(ix.operand(), 10, 1, false)], &out.operand()).unwrap();
        let (xv, ov) = (x.reals(), out.reals());
        (0..24).for_each(|i| assert_eq!(ov[i], xv[i / 4 * 10 + iv[i] as usize]));
    }

    #[test]
    fn conditions() {
        for dtype in [DType::Bool, DType::F32, DType::F16, DType::I32, DType::C64] {
            for (sizes, reversed) in
                [(vec![100i64, 900], false), (vec![7, 5, 3], true), (vec![], false), (vec![0, 3], false)]
            {
                let n: i64 = sizes.iter().product();
                let bits: Vec<f64> =
                    (0..n).map(|i| if i * 7 % 5 < 2 { 0.0 } else { -0.5 * (i % 2) as f64 - 1.0 }).collect();
                let mut x = Case::real(dtype, &sizes, &bits);
                if reversed {
                    x.strides.reverse();
                    x.sizes.reverse();
                }
                let v = x.values();
                let want: Vec<usize> = (0..n as usize).filter(|&i| v[i].norm() != 0.0).collect();
                assert_eq!(count_nonzero(&x.operand()).unwrap() as usize, want.len());
                let rank = sizes.len();
                let out = Case::random(DType::I64, &[want.len() as i64, rank as i64], false, 1);
                nonzero(&x.operand(), &out.operand()).unwrap();
                let o = out.reals();
                for (r, &i) in want.iter().enumerate() {
                    let mut flat = 0;
                    for d in 0..rank {
                        flat = flat * x.sizes[d] as usize + o[r * rank + d] as usize;
                    }
                    assert_eq!(flat, i);
                }
                if dtype == DType::Bool {
                    let mut data = Case::random(DType::F64, &x.sizes, true, 5);
                    data.sizes = x.sizes.clone();
                    let picked = Case::random(DType::F64, &[want.len() as i64], false, 1);
                    masked_select(&data.operand(), &x.operand(), &picked.operand()).unwrap();
                    let all = data.reals();
                    assert_eq!(picked.reals(), want.iter().map(|&i| all[i]).collect::<Vec<_>>());
                }
            }
        }
    }
}
