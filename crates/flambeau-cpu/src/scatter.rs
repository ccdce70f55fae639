//! Writing at computed positions. Writes to one place happen in index order: threads own disjoint destinations (ranges of
//! a dimension that the index leaves alone, or of positions), never ranges of the index.

use crate::element::{unravel, with_element, Element, Number, Ptr, Scratch};
use crate::gemm_kernels::transpose_bits;
use crate::indexed::{by_size, check, copy_run, element_space, leading, Failure, Inner, Positions, GRAIN};
use crate::isa::{dispatch, prefetch, Isa, Kernel};
use crate::pool;
use flambeau_core::{bail, contiguous_strides, DType, Index, Operand, Result, SmallVec, Write};

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

/// The dimension to split among threads: the longest of those in which different coordinates write to different places.
/// There is none unless the destinations, as a layout over those dimensions and the indexed ones, are all distinct.
fn owned(x: &Operand, index: &[Index], sizes: &[i64]) -> Option<usize> {
    let dims: SmallVec<[usize; 6]> = (0..sizes.len()).filter(|&d| x.strides[d] != 0 && sizes[d] > 1).collect();
    let n: SmallVec<[i64; 8]> = dims.iter().map(|&d| sizes[d]).chain(index.iter().map(|i| i.size)).collect();
    let s: SmallVec<[i64; 8]> = dims.iter().map(|&d| x.strides[d]).chain(index.iter().map(|i| i.stride)).collect();
    if flambeau_core::may_overlap_itself(&n, &s) {
        return None;
    }
    // An outer dimension is split rather than an inner one of the same size.
    dims.iter().copied().rev().max_by_key(|&d| sizes[d])
}

/// Rows ahead that are fetched into the cache while one is written.
const AHEAD: isize = 8;

/// Numbers of a cache line of float32.
const LINE: usize = 16;
/// Columns that are taken apart together.
const TOGETHER: usize = 32;
/// Rows of them at a time, so that their places, values and destinations stay in the second cache.
const ROWS_TOGETHER: usize = 2048;
/// Rows ahead that are fetched while one is taken apart.
const PLACES_AHEAD: isize = 24;

/// Rows of adjacent elements, each of which goes to a row of its own in its column of `x`.
struct Columns<'a, T, P> {
    x: *mut T,
    /// From a destination to the next of the same column, and how many there are.
    step: isize,
    size: usize,
    places: *const i64,
    places_step: isize,
    values: *const T,
    values_step: isize,
    rows: usize,
    n: usize,
    put: &'a P,
}
impl<T: Copy, P: Fn(*mut T, T)> Columns<'_, T, P> {
    /// Whether writing column by column pays: a row's destinations are not in the nearest cache, a column's are in the second, and
    /// moving all destinations there and back is little beside the writes.
    fn pays(&self) -> bool {
        let bytes = std::mem::size_of::<T>();
        matches!(bytes, 4 | 8)
            && self.n >= LINE
            && self.step > 0
            && self.size * bytes * LINE > 1 << 16
            && self.size * bytes <= 1 << 17
            && self.rows >= 2 * self.size
    }
    /// `to[c · width + l] = from[l · stride + c]` for `l < lanes`, `c < k`.
    unsafe fn transpose(to: *mut T, width: usize, from: *const T, stride: isize, lanes: usize, k: usize) {
        transpose_bits(std::mem::size_of::<T>(), to as *mut u8, width, from as *const u8, stride, lanes, k)
    }
}
/// Writes what has a place; the second field, called with row, column and place, hears of the rest. In a column, rows come in order.
/// The fields describe memory of which nothing else touches these columns of `x`, and [`pays`](Columns::pays) holds.
struct WriteColumns<'a, T, P>(Columns<'a, T, P>, &'a dyn Fn(usize, usize, i64));
impl<T: Copy, P: Fn(*mut T, T)> Kernel for WriteColumns<'_, T, P> {
    type Out = ();
    #[inline(always)]
    fn run<I: Isa>(self) {
        let WriteColumns(w, bad) = self;
        // One destination more, for what has no place. Columns begin at different sets of the cache.
        let width = (w.size + 1).next_multiple_of(LINE) | LINE;
        const STEP: usize = ROWS_TOGETHER + LINE;
        let mut buffers = (
            Scratch::<T>::new(TOGETHER * width),
            Scratch::<T>::new(TOGETHER * STEP),
            Scratch::<u32>::new(TOGETHER * STEP),
        );
        let (targets, values, places) = (buffers.0.ptr(), buffers.1.ptr(), buffers.2.ptr());
        let mut staged = [0u32; LINE * TOGETHER];
        for c0 in (0..w.n).step_by(TOGETHER) {
            let columns = (w.n - c0).min(TOGETHER);
            // SAFETY: the rows and columns of `x`, of the values and of the places, as the fields describe them; places are replaced
            // where they are not below `size`, and `targets` has `size + 1` in each column.
            unsafe {
                let x = w.x.add(c0);
                Columns::<T, P>::transpose(targets, width, x, w.step, w.size, columns);
                for r0 in (0..w.rows).step_by(ROWS_TOGETHER) {
                    let rows = (w.rows - r0).min(ROWS_TOGETHER);
                    for r in (0..rows).step_by(LINE) {
                        let some = (rows - r).min(LINE);
                        for l in 0..some {
                            let row = (r0 + r + l) as isize;
                            let from = w.places.offset(row * w.places_step).add(c0);
                            let values = w.values.offset(row * w.values_step).add(c0);
                            for line in 0..(columns * 8).div_ceil(64) {
                                prefetch(
                                    (from.wrapping_offset(PLACES_AHEAD * w.places_step) as *const u8)
                                        .wrapping_add(line * 64),
                                );
                            }
                            for line in 0..(columns * std::mem::size_of::<T>()).div_ceil(64) {
                                prefetch(
                                    (values.wrapping_offset(PLACES_AHEAD * w.values_step) as *const u8)
                                        .wrapping_add(line * 64),
                                );
                            }
                            let to = &mut staged[l * TOGETHER..][..columns];
                            let last = w.size as i64 - 1;
                            let from = std::slice::from_raw_parts(from, columns);
                            // Negative when one of them is not within 0..=last.
                            let mut signs = 0i64;
                            for &place in from {
                                signs |= place | (last - place);
                            }
                            for (to, &place) in to.iter_mut().zip(from) {
                                *to = place as u32;
                            }
                            if signs < 0 {
                                for (c, (to, &place)) in to.iter_mut().zip(from).enumerate() {
                                    if !(0..=last).contains(&place) {
                                        *to = w.size as u32;
                                        bad(row as usize, c0 + c, place);
                                    }
                                }
                            }
                        }
                        let from = w.values.offset((r0 + r) as isize * w.values_step).add(c0);
                        Columns::<T, P>::transpose(values.add(r), STEP, from, w.values_step, some, columns);
                        let (to, from) = (places.add(r) as *mut u8, staged.as_ptr() as *const u8);
                        transpose_bits(4, to, STEP, from, TOGETHER as isize, some, columns);
                    }
                    for c in 0..columns {
                        let targets = targets.add(c * width);
                        let places = std::slice::from_raw_parts(places.add(c * STEP), rows);
                        let values = std::slice::from_raw_parts(values.add(c * STEP), rows);
                        for (&place, &value) in places.iter().zip(values) {
                            (w.put)(targets.add(place as usize), value);
                        }
                    }
                }
                Columns::<T, P>::transpose(x, w.step as usize, targets, width as isize, columns, w.size);
            }
        }
    }
}

/// Writes single elements, each with a position of its own.
///
/// # Safety
/// The operands describe their memory.
unsafe fn write_elements<T: Copy>(
    x: &Operand,
    index: &[Index],
    values: &Operand,
    put: impl Fn(*mut T, T) + Sync,
) -> Result<()> {
    let positions = Positions { index, failure: Failure::new() };
    let (to, from) = (Ptr(x.ptr as *mut T), Ptr(values.ptr as *mut T));
    let total = values.numel() as usize;
    let logical = contiguous_strides(values.sizes);
    // Coordinates lo..hi of dimension `c`, everything else whole and in order.
    let part = |c: usize, lo: usize, hi: usize| {
        let mut sizes: SmallVec<[i64; 6]> = values.sizes.into();
        let mut start: SmallVec<[isize; 6]> = SmallVec::from_elem(0, 3 + index.len());
        if !sizes.is_empty() {
            sizes[c] = (hi - lo) as i64;
            let strides = [values.strides[c], x.strides[c], logical[c]]
                .into_iter()
                .chain(index.iter().map(|i| i.values.strides[c]));
            start.iter_mut().zip(strides).for_each(|(o, s)| *o = lo as isize * s as isize);
        }
        let space = element_space(&sizes, values.strides, x.strides, &logical, index);
        let rows = sizes.iter().product::<i64>() as usize;
        // Parts of rows are no stream that the processor would see: what comes some rows later is fetched. Of the first index tensor
        // and of the values: address, operand of the space, bytes of an element, bytes to what comes then.
        let later = |k: usize| AHEAD * space.strides[k][space.sizes.len().saturating_sub(2)];
        let mut streams: SmallVec<[(*mut u8, usize, isize, isize); 2]> = SmallVec::new();
        let mut stream = |ptr, k, size: usize| streams.push((ptr, k, size as isize, later(k) * size as isize));
        stream(values.ptr, 0, std::mem::size_of::<T>());
        if let Some(i) = index.first() {
            stream(i.values.ptr, 3, i.values.dtype.size());
        }
        if let ([index], 1..=2) = (index, space.sizes.len()) {
            let last = space.sizes.len() - 1;
            let adjacent = [0, 1, 3].iter().all(|&k| space.strides[k][last] == 1);
            if adjacent && index.values.dtype == DType::I64 && !index.wrap {
                // The rule, rows of adjacent elements: without a step of the space for each row.
                let outer = |k: usize| if last == 0 { 0 } else { space.strides[k][0] };
                let [sv, sx, sp, si] = [0, 1, 2, 3].map(outer);
                let (size, stride, n) = (index.size as u64, index.stride as isize, space.sizes[last]);
                if sx == 0 {
                    let columns = Columns {
                        x: to.at(start[1]),
                        step: stride,
                        size: index.size as usize,
                        places: (index.values.ptr as *const i64).wrapping_offset(start[3]),
                        places_step: si,
                        values: from.at(start[0]),
                        values_step: sv,
                        rows: rows / n,
                        n,
                        put: &put,
                    };
                    if columns.pays() {
                        let bad = |r: usize, c: usize, place| {
                            let position = start[2] + r as isize * sp + c as isize * space.strides[2][last];
                            positions.failure.report(position as usize, place, index);
                        };
                        dispatch(WriteColumns(columns, &bad));
                        return;
                    }
                }
                for r in 0..(rows / n) as isize {
                    // SAFETY: as below, of row `r`.
                    unsafe {
                        let (x, v) = (to.at(start[1] + r * sx), from.at(start[0] + r * sv) as *const T);
                        let places = (index.values.ptr as *const i64).offset(start[3] + r * si);
                        for line in (0..n * 8).step_by(64).take(8) {
                            prefetch(places.wrapping_offset(AHEAD * si).cast::<u8>().wrapping_add(line));
                        }
                        for line in (0..n * std::mem::size_of::<T>()).step_by(64).take(8) {
                            prefetch(v.wrapping_offset(AHEAD * sv).cast::<u8>().wrapping_add(line));
                        }
                        for j in 0..n {
                            let place = *places.add(j);
                            if (place as u64) < size {
                                put(x.offset(j as isize + place as isize * stride), *v.add(j));
                            } else {
                                let position = start[2] + r * sp + j as isize * space.strides[2][last];
                                positions.failure.report(position as usize, place, index);
                            }
                        }
                    }
                }
                return;
            }
        }
        let mut at: SmallVec<[isize; 6]> = start.clone();
        space.rows(0, rows, |offsets, j0, j1| {
            at.iter_mut().zip(&start).zip(offsets).for_each(|((a, s), o)| *a = s + o);
            for &(ptr, k, size, later) in &streams {
                let first = ptr.wrapping_offset((at[k] + j0 as isize) * size + later);
                let lines = ((j1 - j0) * size as usize).div_ceil(64).min(8);
                (0..lines).for_each(|line| prefetch(first.wrapping_add(line * 64)));
            }
            // SAFETY: positions are checked against the sizes of what is indexed; parts write to different places.
            unsafe { positions.each(&space, &at, j0, j1, |v, p| put(to.at(p), *from.at(v))) };
        });
    };
    let split = if total > 2 * GRAIN { owned(x, index, values.sizes) } else { None };
    match split {
        Some(c) => {
            let n = values.sizes[c] as usize;
            // Whole cache lines of neighbours.
            let least = if x.strides[c].abs() == 1 { 64 / std::mem::size_of::<T>() } else { 1 };
            // How many parts there are changes no result: what meets at a place is in one of them, in order.
            pool::chunks(n, n.div_ceil(pool::num_threads()).max(least), |lo, hi| part(c, lo, hi));
        }
        None => part(0, 0, values.sizes.first().map_or(1, |&n| n as usize)),
    }
    positions.failure.result()
}

/// Places found to be in a thread's range at once.
const FOUND: usize = 1024;

/// Writes in index order with `run(to, step, from, step, n)`.
unsafe fn write_with<T: Copy>(
    x: &Operand,
    index: &[Index],
    values: &Operand,
    put: impl Fn(*mut T, T) + Sync,
    run: impl Fn(*mut T, isize, *const T, isize, usize) + Sync,
) -> Result<()> {
    let d = leading(index);
    let outer: usize = values.sizes[..d].iter().product::<i64>() as usize;
    let inner = Inner::new(&values.sizes[d..], &x.strides[d..], &values.strides[d..]);
    let n = inner.numel();
    let owned = owned(x, index, values.sizes);
    if n == 1 && (owned.is_some() || outer <= 2 * GRAIN) {
        return write_elements(x, index, values, put);
    }
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
    // Threads own columns of the inner block, a cache line of them at least, where there are few rows or long ones. Pieces of
    // many rows here and there would keep the memory from running on.
    const COLUMNS: usize = 16;
    const ROWS: usize = 256;
    const WIDE: usize = 4096;
    if outer * n <= 2 * GRAIN || !apart {
        (0..outer).for_each(|i| write(i, 0, n));
    } else if n >= 2 * COLUMNS && owned.is_some() && (outer < ROWS || n >= WIDE) {
        pool::chunks(n, n.div_ceil(8).max(COLUMNS), |lo, hi| (0..outer).for_each(|i| write(i, lo, hi)));
    } else if n == 1 || owned.is_some() {
        // Threads own ranges of places; each walks the whole index, which is small beside scattered writes. How many
        // ranges there are changes no result: what meets at a place stays in order.
        let live = || places.iter().copied().filter(|&p| p != isize::MIN);
        if let (Some(min), Some(max)) = (live().min(), live().max()) {
            let ranges = (pool::num_threads() * if n == 1 { 1 } else { 4 }).min(64);
            let width = (max - min) as usize / ranges + 1;
            // Rows soon written and read, as far as the processor does not see them coming.
            let soon = |i: usize| {
                let (to, from) = (to.get().wrapping_offset(places[i]), unravel(i, s, &values.strides[..d]));
                for line in (0..n * std::mem::size_of::<T>()).step_by(64).take(8) {
                    prefetch((to as *const u8).wrapping_add(line));
                    prefetch((values.ptr as *const T).wrapping_offset(from).cast::<u8>().wrapping_add(line));
                }
            };
            pool::parallel(ranges, |r| {
                let lo = min.wrapping_add((r * width) as isize);
                let mut found = [0u32; FOUND];
                for (b, block) in places.chunks(FOUND).enumerate() {
                    let mut k = 0;
                    for (j, p) in block.iter().enumerate() {
                        found[k & (FOUND - 1)] = j as u32;
                        k += ((p.wrapping_sub(lo) as usize) < width) as usize;
                    }
                    for (f, &j) in found[..k].iter().enumerate() {
                        if let (true, Some(&j)) = (n > 1, found[..k].get(f + 2)) {
                            soon(b * FOUND + j as usize);
                        }
                        write(b * FOUND + j as usize, 0, n);
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
            unsafe { write_with::<T>(x, index, values, |to, v| *to = v, |to, st, from, sf, n| copy_run(from, sf, to, st, n)) }
        })
    } else {
        with_element!(x.dtype, "index_put", E => {
            macro_rules! with {
                ($how:expr) => {
                    // SAFETY: as above.
                    unsafe {
                        write_with::<E>(x, index, values, |to, v| *to = Combine::combine($how, *to, v), |to, st, from, sf, n| {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Case;
    use flambeau_core::Index;

    /// Column by column and row by row: the same sums in the same order, whoever makes them.
    #[test]
    fn rows_of_places_are_written_in_order() {
        // Destinations, rows and columns: with and without a rest of 16 and of 32 columns and of 2,048 rows.
        for (size, rows, n) in [(1100usize, 2300usize, 70usize), (1100, 2048, 16), (2000, 4001, 33), (20, 3000, 40)] {
            for (dtype, how) in [
                (DType::F32, Write::Add),
                (DType::F64, Write::Add),
                (DType::F32, Write::Set),
                (DType::I64, Write::Max),
                (DType::BF16, Write::Add),
                (DType::C64, Write::Mul),
            ] {
                let values = Case::random(dtype, &[rows as i64, n as i64], false, 1);
                let places: Vec<f64> = (0..rows * n).map(|i| (i * 7919 % 104_729 * 31 % size) as f64).collect();
                let index = Case::real(DType::I64, &[rows as i64, n as i64], &places);
                let start = Case::random(dtype, &[size as i64, n as i64], false, 2);
                let mut first: Option<Vec<u8>> = None;
                for (threads, columns) in [(1, 0), (1, n), (2, n), (8, n)] {
                    pool::set_num_threads(threads);
                    let out = Case {
                        bytes: start.bytes.clone(),
                        sizes: start.sizes.clone(),
                        strides: start.strides.clone(),
                        dtype,
                    };
                    // One column at a time never goes by columns together.
                    let step = if columns == 0 { 1 } else { n };
                    for c in (0..n).step_by(step) {
                        let sizes = [rows as i64, step as i64];
                        let part = |x: &Case| x.operand().ptr.wrapping_add(c * x.dtype.size());
                        let (strides, to) = ([n as i64, 1], [0, 1]);
                        let at = Operand { ptr: part(&index), sizes: &sizes, strides: &strides, ..index.operand() };
                        let from = Operand { ptr: part(&values), sizes: &sizes, strides: &strides, ..values.operand() };
                        let x = Operand { ptr: part(&out), sizes: &sizes, strides: &to, ..out.operand() };
                        let index = [Index { values: at, size: size as i64, stride: n as i64, wrap: false, dim: 0 }];
                        index_write(&x, &index, &from, how).unwrap();
                    }
                    let bytes = out.bytes.clone();
                    assert!(
                        *first.get_or_insert(bytes.clone()) == bytes,
                        "{dtype} {size} {rows} {n} {threads} {columns}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_place_that_is_none_is_named() {
        let (size, rows, n) = (1100usize, 2300usize, 40usize);
        for (bad, place) in [(5 * n + 39, 1100.0), (2299 * n, -1.0)] {
            let mut places: Vec<f64> = (0..rows * n).map(|i| (i % size) as f64).collect();
            places[bad] = place;
            let index = Case::real(DType::I64, &[rows as i64, n as i64], &places);
            let values = Case::random(DType::F32, &[rows as i64, n as i64], false, 1);
            let out = Case::random(DType::F32, &[size as i64, n as i64], false, 2);
            let x = Operand { sizes: &values.sizes, strides: &[0, 1], ..out.operand() };
            let index = [Index { values: index.operand(), size: size as i64, stride: n as i64, wrap: false, dim: 0 }];
            let error = index_write(&x, &index, &values.operand(), Write::Add).unwrap_err();
            assert_eq!(error.to_string(), format!("index {place} is out of bounds for dimension 0 with size {size}"),);
        }
    }
}
