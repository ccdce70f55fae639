//! Sorting and selection. Each value becomes an unsigned key whose order is the wanted one (NaN largest, both zeros
//! equal), with its position in the low bits: distinct words, so any sort of them is stable. Selection, which is not, compares
//! keys alone (see `order`).

use crate::element::{extent_of, not_implemented, unravel, without, Element, Ptr, Scratch};
use crate::isa::{dispatch, prefetch, Isa, Kernel};
use crate::{order, pool};
use flambeau_core::{ensure, DType, Operand, Pick, Result, Shape};
use half::{bf16, f16};

/// A dtype with an order.
trait Key: Copy + Send + Sync + 'static {
    /// Whether the key fits 32 bits.
    const NARROW: bool;
    /// The key of NaN.
    const NAN: Option<u64>;
    fn key(self) -> u64;
    /// The value of a key; none where several have it, so that the operand must be asked.
    fn value(key: u64) -> Option<Self>;
    /// The value of a key from [`Key::directed`].
    #[inline(always)]
    fn undirected(key: u64, reverse: bool) -> Option<Self> {
        match (reverse, Self::NARROW) {
            (false, _) => Self::value(key),
            (true, true) => Self::value(!(key as u32) as u64),
            (true, false) => Self::value(!key),
        }
    }
    /// The key whose order is downwards when `reverse` says so.
    #[inline(always)]
    fn directed(self, reverse: bool) -> u64 {
        match (reverse, Self::NARROW) {
            (false, _) => self.key(),
            (true, true) => !(self.key() as u32) as u64,
            (true, false) => !self.key(),
        }
    }
}
macro_rules! keys {
    ($($T:ty, $narrow:literal, $nan:expr, $x:ident => $key:expr, $k:ident => $value:expr;)*) => { $(
        impl Key for $T {
            const NARROW: bool = $narrow;
            const NAN: Option<u64> = $nan;
            #[inline(always)]
            fn key(self) -> u64 { let $x = self; $key }
            #[inline(always)]
            fn value($k: u64) -> Option<Self> { $value }
        }
    )* };
}
/// Bits of an f32 in order: negative numbers reversed, NaN last, -0 as 0.
#[inline(always)]
fn key32(x: f32) -> u64 {
    let b = (x + 0.0).to_bits();
    let ordered = b ^ (((b as i32 >> 31) as u32) | 0x8000_0000);
    (if x.is_nan() { u32::MAX } else { ordered }) as u64
}
#[inline(always)]
fn key64(x: f64) -> u64 {
    let b = (x + 0.0).to_bits();
    let ordered = b ^ (((b as i64 >> 63) as u64) | 1 << 63);
    if x.is_nan() {
        u64::MAX
    } else {
        ordered
    }
}
/// The inverse of [`key32`], but for zeros and NaN.
#[inline(always)]
fn value32(k: u64) -> Option<f32> {
    let k = k as u32;
    let bits = k ^ (!((k as i32 >> 31) as u32) | 0x8000_0000);
    (k != u32::MAX && k != 0x8000_0000).then_some(f32::from_bits(bits))
}
#[inline(always)]
fn value64(k: u64) -> Option<f64> {
    let bits = k ^ (!((k as i64 >> 63) as u64) | 1 << 63);
    (k != u64::MAX && k != 1 << 63).then_some(f64::from_bits(bits))
}
keys! {
    u8, true, None, x => x as u64, k => Some(k as u8);
    u16, true, None, x => x as u64, k => Some(k as u16);
    u32, true, None, x => x as u64, k => Some(k as u32);
    u64, false, None, x => x, k => Some(k);
    i8, true, None, x => (x as i32 ^ i32::MIN) as u32 as u64, k => Some((k as u32 as i32 ^ i32::MIN) as i8);
    i16, true, None, x => (x as i32 ^ i32::MIN) as u32 as u64, k => Some((k as u32 as i32 ^ i32::MIN) as i16);
    i32, true, None, x => (x ^ i32::MIN) as u32 as u64, k => Some(k as u32 as i32 ^ i32::MIN);
    i64, false, None, x => (x ^ i64::MIN) as u64, k => Some(k as i64 ^ i64::MIN);
    f16, true, Some(u32::MAX as u64), x => key32(x.load()), k => value32(k).map(f16::store);
    bf16, true, Some(u32::MAX as u64), x => key32(x.load()), k => value32(k).map(bf16::store);
    f32, true, Some(u32::MAX as u64), x => key32(x), k => value32(k);
    f64, false, Some(u64::MAX), x => key64(x), k => value64(k);
}

macro_rules! with_key {
    ($dtype:expr, $name:expr, $T:ident => $body:expr) => {
        match $dtype {
            DType::Bool | DType::U8 => {
                type $T = u8;
                $body
            }
            DType::I8 => {
                type $T = i8;
                $body
            }
            DType::I16 => {
                type $T = i16;
                $body
            }
            DType::I32 => {
                type $T = i32;
                $body
            }
            DType::I64 => {
                type $T = i64;
                $body
            }
            DType::U16 => {
                type $T = u16;
                $body
            }
            DType::U32 => {
                type $T = u32;
                $body
            }
            DType::U64 => {
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
            other => return Err(not_implemented($name, other)),
        }
    };
}

/// A key above a position.
trait Word: Copy + Ord + Default + Send + Sync + 'static {
    /// Bits of the key.
    const BITS: u32;
    fn join(key: u64, position: usize) -> Self;
    fn position(self) -> usize;
    fn key(self) -> u64;
    /// `width` bits of the key from bit `from` on.
    fn digit(self, from: u32, width: u32) -> usize;
}
impl Word for u64 {
    const BITS: u32 = 32;
    #[inline(always)]
    fn join(key: u64, position: usize) -> u64 {
        key << 32 | position as u64
    }
    #[inline(always)]
    fn position(self) -> usize {
        self as u32 as usize
    }
    #[inline(always)]
    fn key(self) -> u64 {
        self >> 32
    }
    #[inline(always)]
    fn digit(self, from: u32, width: u32) -> usize {
        (self >> (32 + from)) as usize & ((1 << width) - 1)
    }
}
impl Word for u128 {
    const BITS: u32 = 64;
    #[inline(always)]
    fn join(key: u64, position: usize) -> u128 {
        (key as u128) << 64 | position as u128
    }
    #[inline(always)]
    fn position(self) -> usize {
        self as usize
    }
    #[inline(always)]
    fn key(self) -> u64 {
        (self >> 64) as u64
    }
    #[inline(always)]
    fn digit(self, from: u32, width: u32) -> usize {
        (self >> (64 + from)) as usize & ((1 << width) - 1)
    }
}

/// Below this, comparisons are quicker than counting digits.
const RADIX: usize = 2048;
/// Below this, they are where most of the key is known.
const RADIX_BUCKET: usize = 96;
/// From here on digits are wide, so that they are fewer.
const WIDE: usize = 1 << 13;
/// Rows above this are sorted by all threads together.
const LONG: usize = 1 << 16;
/// Ranges of keys that a long row is parted into, at most.
const BUCKETS: usize = 1 << 12;
/// A bucket beyond this is parted again.
const LARGE: usize = 1 << 17;
/// Words that a thread fills at once in such a row, at least.
const BLOCK: usize = 1 << 15;

/// Sorts words that are in order of position and agree in their keys from bit `bits` on: by digits from the lowest, each pass
/// stable. `other` has the same length. Whether the result is there.
fn radix<W: Word>(words: &mut [W], other: &mut [W], bits: u32) -> bool {
    if words.len() > u32::MAX as usize {
        words.sort_unstable();
        return false;
    }
    if bits == 0 {
        return false;
    }
    if words.len() >= WIDE {
        radix_by::<W, 11>(words, other, bits)
    } else {
        radix_by::<W, 8>(words, other, bits)
    }
}
fn radix_by<W: Word, const WIDTH: u32>(words: &mut [W], other: &mut [W], bits: u32) -> bool {
    let (passes, size) = (bits.div_ceil(WIDTH), 1 << WIDTH);
    let mut room = Scratch::<u32>::new(passes as usize * size);
    let counts = room.slice();
    counts.fill(0);
    for w in words.iter() {
        for i in 0..passes {
            counts[i as usize * size + w.digit(i * WIDTH, WIDTH)] += 1;
        }
    }
    let (mut from, mut to, mut moved) = (words, other, false);
    for (i, c) in counts.chunks_exact_mut(size).enumerate() {
        // A digit that all keys share sorts nothing.
        if c.contains(&(from.len() as u32)) {
            continue;
        }
        let mut start = 0;
        for c in c.iter_mut() {
            start += std::mem::replace(c, start);
        }
        for &w in from.iter() {
            let at = &mut c[w.digit(i as u32 * WIDTH, WIDTH)];
            to[*at as usize] = w;
            *at += 1;
        }
        std::mem::swap(&mut from, &mut to);
        moved = !moved;
    }
    moved
}

/// The sorted words, in one of the two; as [`radix`].
fn sort_piece<'a, W: Word>(words: &'a mut [W], other: &'a mut [W], bits: u32, least: usize) -> &'a [W] {
    if words.len() < least {
        words.sort_unstable();
        words
    } else if radix(words, other, bits) {
        other
    } else {
        words
    }
}

/// Sorts a long row with all threads and calls `done(first, words)` for its pieces: the keys' range is parted into buckets, blocks of
/// words count what they have for each, which gives them their places, and move it; a bucket then lies in the cache, where it
/// is sorted. `first` is the place of the first word.
fn sort_long<W: Word>(words: &mut [W], other: &mut [W], first: usize, done: &(impl Fn(usize, &[W]) + Sync)) {
    let n = words.len();
    let threads = pool::num_threads();
    // The blocks change no result: the order is that of the words, which are distinct.
    let block = n.div_ceil(4 * threads).max(BLOCK);
    let blocks = n.div_ceil(block);
    let (from, to) = (Ptr(words.as_mut_ptr()), Ptr(other.as_mut_ptr()));
    // SAFETY (of all uses): blocks are disjoint parts of the words.
    let part = |b: usize| unsafe {
        std::slice::from_raw_parts(from.get().add(b * block) as *const W, block.min(n - b * block))
    };
    let mut ends = vec![(u64::MAX, 0); blocks];
    let at = Ptr(ends.as_mut_ptr());
    pool::parallel(blocks, |b| {
        let range = part(b).iter().fold((u64::MAX, 0), |(lo, hi), w| (w.key().min(lo), w.key().max(hi)));
        // SAFETY: one place a block.
        unsafe { *at.get().add(b) = range };
    });
    let (lo, hi) = ends.iter().fold((u64::MAX, 0), |a, b| (a.0.min(b.0), a.1.max(b.1)));
    if lo == hi {
        return done(first, words);
    }
    let mut shift = (64 - (hi - lo).leading_zeros()).saturating_sub(BUCKETS.trailing_zeros());
    if (hi >> shift) - (lo >> shift) >= BUCKETS as u64 {
        shift += 1;
    }
    let bucket = |w: &W| ((w.key() >> shift) - (lo >> shift)) as usize;
    let buckets = ((hi >> shift) - (lo >> shift)) as usize + 1;
    let mut counts = vec![0usize; blocks * buckets];
    let places = Ptr(counts.as_mut_ptr());
    // SAFETY: each block has counts of its own.
    let places = |b: usize| unsafe { std::slice::from_raw_parts_mut(places.get().add(b * buckets), buckets) };
    pool::parallel(blocks, |b| {
        let counts = places(b);
        part(b).iter().for_each(|w| counts[bucket(w)] += 1);
    });
    let mut starts = Vec::with_capacity(buckets + 1);
    let mut start = 0;
    for d in 0..buckets {
        starts.push(start);
        for b in 0..blocks {
            start += std::mem::replace(&mut counts[b * buckets + d], start);
        }
    }
    starts.push(n);
    pool::parallel(blocks, |b| {
        let places = places(b);
        for &w in part(b) {
            let at = &mut places[bucket(&w)];
            // SAFETY: the places of all blocks and buckets are disjoint ranges that make up `0..n`.
            unsafe { *to.get().add(*at) = w };
            *at += 1;
        }
    });
    // SAFETY: buckets are disjoint ranges of both.
    let pair = |d: usize| unsafe {
        let (at, n) = (starts[d], starts[d + 1] - starts[d]);
        (std::slice::from_raw_parts_mut(to.get().add(at), n), std::slice::from_raw_parts_mut(from.get().add(at), n))
    };
    pool::chunks(buckets, buckets.div_ceil(64 * threads), |lo, hi| {
        for (d, start) in (lo..hi).zip(&starts[lo..hi]) {
            let (words, other) = pair(d);
            if !words.is_empty() && words.len() <= LARGE {
                done(first + start, sort_piece(words, other, shift, RADIX_BUCKET));
            }
        }
    });
    for d in (0..buckets).filter(|d| starts[d + 1] - starts[*d] > LARGE) {
        let (words, other) = pair(d);
        sort_long(words, other, first + starts[d], done);
    }
}

/// Candidates for the `k` smallest keys of a contiguous row: a superset of them in order of position, at the start of `words`, with
/// every element whose key equals the last of them. The row is cut into `n / chunk ≥ k` chunks; the k-th smallest of their
/// minima bounds the k-th smallest key, and chunks whose minimum is beyond it hold nothing. Returns how many there are, or nothing
/// where they exceed `words`.
struct Few<'a, T, W> {
    x: &'a [T],
    words: &'a mut [W],
    /// Room for the chunks' minima, twice.
    minima: &'a mut [u64],
    chunk: usize,
    k: usize,
    reverse: bool,
}
impl<T: Key, W: Word> Kernel for Few<'_, T, W> {
    type Out = Option<usize>;
    #[inline(always)]
    fn run<I: Isa>(self) -> Option<usize> {
        let Few { x, words, minima, chunk, k, reverse } = self;
        let key = |x: T| x.directed(reverse);
        let chunks = x.len().div_ceil(chunk);
        let (minima, order) = minima.split_at_mut(chunks);
        for (c, m) in x.chunks(chunk).zip(minima.iter_mut()) {
            // The processor fetches ahead within a page of 4 KiB only.
            for line in (0..chunk * std::mem::size_of::<T>()).step_by(64) {
                prefetch((c.as_ptr() as *const u8).wrapping_add(4096 + line));
            }
            *m = if T::NARROW {
                c.iter().fold(u32::MAX, |m, &x| m.min(key(x) as u32)) as u64
            } else {
                c.iter().fold(u64::MAX, |m, &x| m.min(key(x)))
            };
        }
        order[..chunks].copy_from_slice(minima);
        let bound = *order[..chunks].select_nth_unstable(k - 1).1;
        let mut held = 0;
        for (i, (c, m)) in x.chunks(chunk).zip(minima.iter()).enumerate() {
            if *m > bound {
                continue;
            }
            if held + chunk > words.len() {
                return None;
            }
            // Without a branch that the numbers could mislead.
            for (j, &x) in c.iter().enumerate() {
                let key = key(x);
                words[held] = W::join(key, i * chunk + j);
                held += (key <= bound) as usize;
            }
        }
        Some(held)
    }
}

/// What is wanted of each row.
#[derive(Clone, Copy)]
enum What {
    Sort,
    Top,
    One(Pick),
}

/// The first `k` in order to the front, sorted; of equal keys those that C++'s library would leave there, as PyTorch uses it:
/// a heap for few of many.
fn top<W: Word>(words: &mut [W], k: usize) {
    let less = |a: W, b: W| a.key() < b.key();
    if k * 64 <= words.len() {
        order::partial_sort(words, k, &less);
    } else {
        order::nth_element(words, k - 1, &less);
        order::sort(&mut words[..k - 1], &less);
    }
}
/// Where the wanted element is after the words have been rearranged; `nan` is the key of NaN.
fn one_of<W: Word>(words: &mut [W], which: Pick, nan: Option<u64>) -> usize {
    let is_nan = |w: &W| Some(w.key()) == nan;
    let median = |n: usize| n.saturating_sub(1) / 2;
    let k = match which {
        Pick::Kth(k) => {
            order::quick_select(words, k, &|a: W, b: W| a.key() < b.key());
            return k;
        }
        Pick::Median => match words.iter().position(is_nan) {
            Some(first) => return first,
            None => median(words.len()),
        },
        Pick::Mode => {
            order::sort(words, &|a: W, b: W| a.key() < b.key());
            let (mut end, mut longest, mut start) = (0, 0, 0);
            for i in 0..words.len() {
                if i + 1 < words.len() && words[i + 1].key() == words[i].key() {
                    continue;
                }
                if i + 1 - start > longest {
                    (end, longest) = (i, i + 1 - start);
                }
                start = i + 1;
            }
            return end;
        }
        Pick::NanMedian => median(words.iter().filter(|w| !is_nan(w)).count()),
    };
    // Of equals by place.
    words.select_nth_unstable(k);
    k
}

/// The rows of the three operands along the sorted dimension.
struct Task<'a, T> {
    x: Ptr<T>,
    values: Ptr<T>,
    indices: Ptr<i64>,
    dim: usize,
    operands: [&'a Operand<'a>; 3],
    /// Sorts keys downwards.
    reverse: bool,
    what: What,
    n: usize,
    k: usize,
}

impl<T: Key> Task<'_, T> {
    fn run(&self) {
        // The position takes 32 bits beside a narrow key.
        if T::NARROW && self.n <= u32::MAX as usize {
            self.rows::<u64>();
        } else {
            self.rows::<u128>();
        }
    }
    fn sorts(&self) -> bool {
        matches!(self.what, What::Sort)
    }
    fn rows<W: Word>(&self) {
        let sizes = without(self.operands[0].sizes, self.dim);
        let rows = sizes.iter().product::<i64>() as usize;
        let strides = self.operands.map(|o| without(o.strides, self.dim));
        let [sx, sv, si] = self.operands.map(|o| extent_of(o, self.dim).1);
        let (n, k) = (self.n, self.k);
        let one = |row: usize, alone: bool| {
            let [ox, ov, oi] = [0, 1, 2].map(|i| unravel(row, &sizes, &strides[i]));
            let store = |first: usize, words: &[W]| {
                for (j, w) in (first..).zip(words) {
                    let p = w.position();
                    // SAFETY: positions are within the row; each row's outputs are written by one task.
                    unsafe {
                        let value = T::undirected(w.key(), self.reverse);
                        *self.values.at(ov + j as isize * sv) =
                            value.unwrap_or_else(|| *self.x.at(ox + p as isize * sx));
                        *self.indices.at(oi + j as isize * si) = p as i64;
                    }
                }
            };
            // Few of many: without a word for each. Equals, here or elsewhere, have to be looked at in order.
            let chunk = [64, 32, 16].into_iter().find(|c| n / c >= 2 * k);
            if let (What::Top, 1, Some(chunk)) = (self.what, sx, chunk) {
                let (mut few, mut minima) =
                    (Scratch::<W>::new(k * 2 * chunk), Scratch::<u64>::new(2 * n.div_ceil(chunk)));
                let words = few.slice();
                // SAFETY: a contiguous row of the operand.
                let x = unsafe { std::slice::from_raw_parts(self.x.at(ox) as *const T, n) };
                let held =
                    dispatch(Few { x, words: &mut *words, minima: minima.slice(), chunk, k, reverse: self.reverse });
                if let Some(held) = held {
                    let words = &mut words[..held];
                    if held > 4 * k {
                        words.select_nth_unstable(k - 1);
                        words[..k].sort_unstable();
                    } else {
                        words.sort_unstable();
                    }
                    let last = words[k - 1].key();
                    if words[..k].windows(2).all(|w| w[0].key() != w[1].key())
                        && words[k..].iter().all(|w| w.key() != last)
                    {
                        return store(0, &words[..k]);
                    }
                }
            }
            let (mut a, mut b) =
                (Scratch::<W>::new(n), Scratch::<W>::new(if n < RADIX || !self.sorts() { 0 } else { n }));
            let words = a.slice();
            let fill = |first: usize, words: &mut [W]| {
                for (j, w) in (first..).zip(words) {
                    // SAFETY: an element of the row.
                    let x = unsafe { *self.x.at(ox + j as isize * sx) };
                    *w = W::join(x.directed(self.reverse), j);
                }
            };
            if self.sorts() && alone && n > LONG {
                let (p, other) = (Ptr(words.as_mut_ptr()), b.slice());
                // SAFETY: pieces are disjoint parts of the words.
                pool::chunks(n, BLOCK, |lo, hi| unsafe {
                    fill(lo, std::slice::from_raw_parts_mut(p.get().add(lo), hi - lo))
                });
                return sort_long(words, other, 0, &store);
            }
            fill(0, words);
            match self.what {
                What::Top => top(words, k),
                What::One(which) => {
                    let at = one_of(words, which, T::NAN);
                    words.swap(0, at);
                }
                What::Sort => return store(0, sort_piece(words, b.slice(), W::BITS, RADIX)),
            }
            store(0, &words[..k]);
        };
        let grain = (2048 / n.max(1)).max(1);
        if rows <= grain || n > LONG {
            (0..rows).for_each(|row| one(row, true));
        } else {
            pool::chunks(rows, grain, |lo, hi| (lo..hi).for_each(|row| one(row, false)));
        }
    }
}

fn run(
    name: &str,
    x: &Operand,
    dim: usize,
    reverse: bool,
    what: What,
    values: &Operand,
    indices: &Operand,
) -> Result<()> {
    let rank = x.sizes.len();
    ensure!(
        values.sizes == indices.sizes
            && values.sizes.len() == rank
            && (0..rank).all(|d| d == dim || values.sizes[d] == x.sizes[d])
            && values.dtype == x.dtype
            && indices.dtype == DType::I64,
        Runtime,
        "{name}: operand {} {}, values {} {} and indices {} {} do not match",
        x.dtype,
        Shape(x.sizes),
        values.dtype,
        Shape(values.sizes),
        indices.dtype,
        Shape(indices.sizes)
    );
    let (n, k) = (extent_of(x, dim).0, extent_of(values, dim).0);
    ensure!(k <= n, Runtime, "selected index k out of range");
    if values.numel() == 0 {
        return Ok(());
    }
    with_key!(x.dtype, name, T => Task::<T> {
        x: Ptr(x.ptr as *mut T),
        values: Ptr(values.ptr as *mut T),
        indices: Ptr(indices.ptr as *mut i64),
        dim,
        operands: [x, values, indices],
        reverse,
        what,
        n,
        k,
    }
    .run());
    Ok(())
}

/// See [`flambeau_core::Backend::sort`].
pub fn sort(x: &Operand, dim: usize, descending: bool, values: &Operand, indices: &Operand) -> Result<()> {
    run("sort", x, dim, descending, What::Sort, values, indices)
}

/// See [`flambeau_core::Backend::topk`].
pub fn topk(x: &Operand, dim: usize, largest: bool, values: &Operand, indices: &Operand) -> Result<()> {
    run("topk", x, dim, largest, What::Top, values, indices)
}

/// See [`flambeau_core::Backend::pick`].
pub fn pick(x: &Operand, dim: usize, which: Pick, values: &Operand, indices: &Operand) -> Result<()> {
    let n = extent_of(x, dim).0;
    let inside = if let Pick::Kth(k) = which { k < n } else { n > 0 };
    ensure!(
        values.numel() == 0 || (inside && extent_of(values, dim).0 == 1),
        Runtime,
        "pick: there is no {which:?} of {n} elements"
    );
    run("pick", x, dim, false, What::One(which), values, indices)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Case;
    use std::cmp::Ordering;

    fn order(a: f64, b: f64) -> Ordering {
        match (a.is_nan(), b.is_nan()) {
            (false, false) => a.partial_cmp(&b).unwrap(),
            (x, y) => x.cmp(&y),
        }
    }

    #[test]
    fn stable_with_nan_last() {
        for dtype in [DType::F32, DType::F64, DType::F16, DType::I64, DType::I8, DType::U8, DType::Bool] {
            for (sizes, dim) in
                [(vec![3i64, 50], 1), (vec![50, 3], 0), (vec![2, 5000], 1), (vec![], 0), (vec![300_000], 0)]
            {
                let n: usize = sizes.iter().product::<i64>() as usize;
                let mut values: Vec<f64> = (0..n).map(|i| ((i * 7919 % 1013) as f64 - 500.0) * 0.25).collect();
                if dtype.is_integral(true) {
                    values
                        .iter_mut()
                        .for_each(|v| *v = v.trunc().clamp(if dtype.is_signed() { -100.0 } else { 0.0 }, 100.0));
                } else if n > 10 {
                    (values[3], values[7], values[8], values[9]) = (f64::NAN, -0.0, 0.0, f64::NEG_INFINITY);
                    values[n - 2] = f64::NAN;
                }
                let x = Case::real(dtype, &sizes, &values);
                let xv = x.reals();
                let m = if sizes.is_empty() { 1 } else { sizes[dim] as usize };
                for descending in [false, true] {
                    for k in [m, 7.min(m)] {
                        let mut s = sizes.clone();
                        if !s.is_empty() {
                            s[dim] = k as i64;
                        }
                        let (v, i) = (Case::random(dtype, &s, true, 1), Case::random(DType::I64, &s, false, 1));
                        let mut bits: Option<Vec<u8>> = None;
                        for threads in [1, 2, 8] {
                            pool::set_num_threads(threads);
                            if k == m {
                                sort(&x.operand(), dim, descending, &v.operand(), &i.operand()).unwrap();
                            } else {
                                topk(&x.operand(), dim, descending, &v.operand(), &i.operand()).unwrap();
                            }
                            assert_eq!(*bits.get_or_insert(i.bytes.clone()), i.bytes);
                        }
                        let (vv, iv) = (v.reals(), i.reals());
                        let (inner, rows) = (if dim == 0 { n / m } else { 1 }, n / m);
                        for row in 0..rows {
                            let at = |j: usize, m: usize| if dim == 0 { j * inner + row } else { row * m + j };
                            let mut want: Vec<usize> = (0..m).collect();
                            want.sort_by(|&a, &b| {
                                let c = order(xv[at(a, m)], xv[at(b, m)]);
                                if descending {
                                    c.reverse()
                                } else {
                                    c
                                }
                            });
                            let mut taken = std::collections::HashSet::new();
                            for j in 0..k {
                                let found = iv[at(j, k)] as usize;
                                assert!(taken.insert(found), "{dtype} {sizes:?}: {found} twice");
                                // Which of several equals `topk` takes is C++'s choice (`order`).
                                if k == m {
                                    assert_eq!(found, want[j], "{dtype} {sizes:?} {j}");
                                }
                                for (a, b) in [(vv[at(j, k)], xv[at(want[j], m)]), (vv[at(j, k)], xv[at(found, m)])] {
                                    assert!(a == b || a.is_nan() && b.is_nan(), "{dtype} {sizes:?} {j}: {a}, not {b}");
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}
