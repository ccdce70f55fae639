//! The elements that a condition selects: how many, where, and their values.

use crate::element::{unravel, Ptr};
use crate::indexed::{by_size, Inner};
use crate::isa::{dispatch, Isa, Kernel};
use crate::pool;
use crate::vector::Vector as _;
use flambeau_core::{ensure, DType, Operand, Result, Shape};
use half::{bf16, f16};
use std::ops::Range;

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
/// complex32: neither part anything but a sign bit.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct ComplexHalf(u32);
truths! {
    u8, x => x != 0; u16, x => x != 0; u32, x => x != 0; u64, x => x != 0;
    f16, x => x.to_bits() & 0x7fff != 0; bf16, x => x.to_bits() & 0x7fff != 0;
    f32, x => x != 0.0; f64, x => x != 0.0; Float8, x => x.0 & 0x7f != 0;
    ComplexHalf, x => x.0 & 0x7fff_7fff != 0;
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
            DType::C32 => {
                type $T = ComplexHalf;
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

/// Elements whose positions are found at once.
const FOUND: usize = 1024;

/// The positions of the true elements, without a branch that their pattern could mislead.
struct Find<'a, T>(&'a [T], &'a mut [u32; FOUND]);
impl<T: Truth> Kernel for Find<'_, T> {
    type Out = usize;
    #[inline(always)]
    fn run<I: Isa>(self) -> usize {
        let mut k = 0;
        for (j, x) in self.0.iter().enumerate().take(FOUND) {
            // `k` is at most `j`, which is below the length.
            self.1[k & (FOUND - 1)] = j as u32;
            k += x.truth() as usize;
        }
        k
    }
}

/// The ranks at which blocks start, and the total.
fn starts(found: &[usize]) -> (Vec<usize>, usize) {
    let mut total = 0;
    let mut starts = Vec::with_capacity(found.len());
    for c in found {
        starts.push(total);
        total += c;
    }
    (starts, total)
}

/// Calls `f(ranks of its true elements, first element, end)` for blocks of the condition, in parallel. Nothing is called when there
/// are more than `limit` true elements. Returns how many there are.
fn each_block<T: Truth>(x: &Operand, limit: usize, f: impl Fn(Range<usize>, usize, usize) + Sync) -> usize {
    let n = x.numel() as usize;
    let found = counts::<T>(x);
    let (starts, total) = starts(&found);
    if total > limit {
        return total;
    }
    let block = |b: usize| f(starts[b]..starts[b] + found[b], b * COUNTED, ((b + 1) * COUNTED).min(n));
    if found.len() <= 1 {
        (0..found.len()).for_each(block);
    } else {
        pool::parallel(found.len(), block);
    }
    total
}

/// Calls `f(rank of the first, row-major position of the stretch, found)` for stretches of the condition, blocks in
/// parallel; `found` are the true elements' positions in the stretch. Nothing is called when there are more than `limit`.
fn each_true<T: Truth>(x: &Operand, limit: usize, f: impl Fn(usize, usize, &[u32]) + Sync) -> usize {
    let whole = Inner::new(x.sizes, x.strides, x.strides);
    let p = Ptr(x.ptr as *mut T);
    each_block::<T>(x, limit, |ranks, lo, hi| {
        let (mut rank, mut i) = (ranks.start, lo);
        let mut positions = [0u32; FOUND];
        whole.runs(lo, hi, |w, o, s, _, _| {
            for j in (0..w).step_by(FOUND) {
                let w = FOUND.min(w - j);
                let k = if s == 1 {
                    // SAFETY: the operand describes its memory.
                    dispatch(Find(
                        unsafe { std::slice::from_raw_parts(p.at(o + j as isize) as *const T, w) },
                        &mut positions,
                    ))
                } else {
                    let mut k = 0;
                    for l in 0..w {
                        positions[k] = l as u32;
                        // SAFETY: as above.
                        k += unsafe { (*p.at(o + (j + l) as isize * s)).truth() } as usize;
                    }
                    k
                };
                if k > 0 {
                    f(rank, i, &positions[..k]);
                }
                rank += k;
                i += w;
            }
        });
    })
}

/// For every byte of bits, each bit twice.
static TWICE: [u16; 256] = {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        let mut l = 0;
        while l < 8 {
            table[i] |= ((i >> l & 1) as u16 * 3) << (2 * l);
            l += 1;
        }
        i += 1;
    }
    table
};

/// Which of eight bytes are not 0, a bit each.
#[inline(always)]
fn bits(bytes: [u8; 8]) -> u32 {
    const LOW: u64 = 0x7f7f_7f7f_7f7f_7f7f;
    let x = u64::from_le_bytes(bytes);
    // The top bit of each byte that is not 0; the product gathers them.
    let top = (((x & LOW) + LOW) | x) & !LOW;
    ((top >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56) as u32
}

/// Moves the selected ones of `mask.len()` elements of `S` float32 each to `to`, which has room for `room` elements: those that
/// the mask selects.
struct Squeeze<'a, const S: usize> {
    from: *const f32,
    mask: &'a [u8],
    to: *mut f32,
    room: usize,
}
impl<const S: usize> Kernel for Squeeze<'_, S> {
    type Out = ();
    #[inline(always)]
    fn run<I: Isa>(self) {
        let Squeeze { from, mask, to, room } = self;
        let lanes = I::F32::N;
        let (groups, _) = mask.as_chunks::<16>();
        // `k` counts float32 numbers.
        let (mut k, mut done) = (0, 0);
        for m in groups {
            // Whole vectors are written, so the last ones of a block would reach into the next.
            if k + 32 * S > room * S {
                break;
            }
            let halves: [[u8; 8]; 2] = std::array::from_fn(|h| std::array::from_fn(|j| m[8 * h + j]));
            let [low, high] = halves.map(|h| {
                let bits = bits(h);
                if S == 2 {
                    TWICE[bits as usize] as u32
                } else {
                    bits
                }
            });
            let bits = high << (8 * S) | low;
            for v in (0..16 * S).step_by(lanes) {
                let some = bits >> v & ((1 << lanes) - 1);
                // SAFETY: sixteen elements lie at `from` plus `done`; of the room for 32 more, the vectors of this round take
                // those of 16 and one vector.
                unsafe { I::F32::load(from.add(done * S + v)).squeeze(some).store(to.add(k)) };
                k += some.count_ones() as usize;
            }
            done += 16;
        }
        for (i, &m) in mask.iter().enumerate().skip(done) {
            if m != 0 {
                // SAFETY: an element of `from`; the mask selects `room` elements, which `k` has not passed.
                unsafe { std::ptr::copy_nonoverlapping(from.add(i * S), to.add(k), S) };
                k += S;
            }
        }
    }
}

/// [`masked_select`] of contiguous elements of `S` float32 each under a contiguous mask.
fn squeeze<const S: usize>(x: &Operand, mask: &Operand, out: &Operand, limit: usize) -> usize {
    let (from, to, bytes) = (Ptr(x.ptr as *mut f32), Ptr(out.ptr as *mut f32), Ptr(mask.ptr));
    each_block::<u8>(mask, limit, |ranks, lo, hi| {
        // SAFETY: the operands describe their memory; blocks write the places of their own ranks.
        unsafe {
            dispatch(Squeeze::<S> {
                from: from.get().add(lo * S),
                mask: std::slice::from_raw_parts(bytes.get().add(lo), hi - lo),
                to: to.get().add(ranks.start * S),
                room: ranks.len(),
            })
        }
    })
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
    let last = x.sizes.last().map_or(1, |&n| n as usize);
    let total = with_truth!(x.dtype, T => each_true::<T>(x, rows, |first, i, found| {
        // Coordinates but the last change only where a row ends.
        let mut row = (i + found[0] as usize) / last;
        let mut k = 0;
        while k < found.len() {
            let start = row * last;
            let until = found[k..].iter().position(|&j| i + j as usize >= start + last).map_or(found.len(), |m| k + m);
            // SAFETY: ranks are distinct and below the number of rows.
            unsafe {
                for (r, &j) in found.iter().enumerate().take(until).skip(k) {
                    if rank > 0 {
                        *to.at((first + r) as isize * s0 + (rank as isize - 1) * s1) = (i + j as usize - start) as i64;
                    }
                }
                let mut rest = row;
                for d in (0..rank.saturating_sub(1)).rev() {
                    let n = x.sizes[d] as usize;
                    for r in k..until {
                        *to.at((first + r) as isize * s0 + d as isize * s1) = (rest % n) as i64;
                    }
                    rest /= n;
                }
            }
            k = until;
            if k < found.len() {
                row = (i + found[k] as usize) / last;
            }
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
    let plain = contiguous && step == 1 && mask.is_contiguous();
    let total = match x.dtype.size() {
        4 if plain => squeeze::<1>(x, mask, out, n),
        8 if plain => squeeze::<2>(x, mask, out, n),
        _ => by_size!(x.dtype, T => {
        let (from, to) = (Ptr(x.ptr as *mut T), Ptr(out.ptr as *mut T));
        each_true::<u8>(mask, n, |rank, i, found| {
            // SAFETY: ranks are below the output's size, and positions below the number of elements.
            unsafe {
                let to = to.at(rank as isize * step);
                if contiguous && step == 1 {
                    let from = from.at(i as isize);
                    for (r, &j) in found.iter().enumerate() {
                        *to.add(r) = *from.add(j as usize);
                    }
                } else {
                    for (r, &j) in found.iter().enumerate() {
                        let i = i + j as usize;
                        let at = if contiguous { i as isize } else { unravel(i, x.sizes, x.strides) };
                        *to.offset(r as isize * step) = *from.at(at);
                    }
                }
            }
        })
        }),
    };
    ensure!(total == n, Runtime, "masked_select: the mask selects {total} elements, but the output holds {n}");
    Ok(())
}

/// How many values have each place below `bins`.
///
/// # Panics
/// For a place beyond.
pub fn count<T: Sync>(values: &[T], bins: usize, place: impl Fn(&T) -> usize + Sync) -> Vec<i64> {
    let total = parking_lot::Mutex::new(vec![0i64; bins]);
    // Few pieces of many values, beside which adding up their counts is little.
    pool::chunks(values.len(), (1usize << 16).max(4 * bins), |lo, hi| {
        // Values in turn count in tables of their own: equal neighbours would wait for each other.
        let mut tables = vec![0u32; 2 * bins];
        let (even, odd) = tables.split_at_mut(bins);
        for part in values[lo..hi].chunks(1 << 30) {
            for pair in part.chunks(2) {
                even[place(&pair[0])] += 1;
                if let Some(v) = pair.get(1) {
                    odd[place(v)] += 1;
                }
            }
            let mut total = total.lock();
            for (to, (a, b)) in total.iter_mut().zip(even.iter_mut().zip(odd.iter_mut())) {
                *to += i64::from(std::mem::take(a)) + i64::from(std::mem::take(b));
            }
        }
    });
    total.into_inner()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Case;

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
