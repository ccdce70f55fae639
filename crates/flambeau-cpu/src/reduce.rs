//! Reductions as fixed trees: 64 lanes, blocks of 4,096 elements, pairwise over blocks. The tree follows from the logical
//! sizes alone, so threads, strides and fusion do not change a bit.

use crate::convert;
use crate::isa::{dispatch, prefetch, Isa, Kernel};
use crate::lanes::{fold, LANES};
use crate::pool;
use crate::tile::{Evaluator, Prepared, Space, TILE};
use flambeau_core::*;

const BLOCK: usize = 4096;
/// Elements of one parallel piece: a power of two of blocks, so that pieces are whole subtrees.
const PIECE: usize = 16 * BLOCK;
/// Rows of one block when columns are reduced side by side.
const ROW_BLOCK: usize = 64;
/// Lanes that the end of a row fills at once.
const PART: usize = 16;

/// How elements of type `T` combine into a state.
trait Fold<T: Copy>: Copy + Sync {
    type State: Copy + Send + Sync;
    fn start(self) -> Self::State;
    /// Takes in one element, at logical position `i` among those reduced.
    fn push(self, s: Self::State, x: T, i: usize) -> Self::State;
    /// Joins two neighbours, the earlier first.
    fn join(self, a: Self::State, b: Self::State) -> Self::State;
    /// The state of contiguous elements whose first is at logical position `at`, where that is found in a better way than
    /// lane by lane.
    #[inline(always)]
    fn whole(self, _x: &[T], _at: usize) -> Option<Self::State> {
        None
    }
    /// Whether [`Fold::whole`] finds it.
    const WHOLE: bool = false;
}

macro_rules! simple_fold {
    ($Name:ident, $T:ty, $start:expr, |$a:ident, $x:ident| $body:expr) => {
        #[derive(Clone, Copy)]
        pub struct $Name;
        impl Fold<$T> for $Name {
            type State = $T;
            #[inline(always)]
            fn start(self) -> $T {
                $start
            }
            #[inline(always)]
            fn push(self, $a: $T, $x: $T, _: usize) -> $T {
                $body
            }
            #[inline(always)]
            fn join(self, $a: $T, $x: $T) -> $T {
                $body
            }
        }
    };
}

macro_rules! real_folds {
    ($mod:ident $T:ident $lowest:expr, $highest:expr, $nan:expr, $or_nan:expr, $add:expr, $mul:expr) => {
        mod $mod {
            use super::*;
            simple_fold!(Sum, $T, 0 as $T, |a, x| $add(a, x));
            simple_fold!(Prod, $T, 1 as $T, |a, x| $mul(a, x));
            // NaN stays, because nothing is larger or smaller. It comes in by arithmetic: a choice to keep what is there would
            // become a store under a condition, and the lanes would stay in memory.
            simple_fold!(Max, $T, $lowest, |a, x| $or_nan(if x > a { x } else { a }, x));
            simple_fold!(Min, $T, $highest, |a, x| $or_nan(if x < a { x } else { a }, x));
            simple_fold!(Any, $T, 0 as $T, |a, x| (a != 0 as $T || x != 0 as $T) as u8 as $T);
            simple_fold!(All, $T, 1 as $T, |a, x| (a != 0 as $T && x != 0 as $T) as u8 as $T);
            /// The extreme value and where it is: first of equals, NaN wins.
            #[derive(Clone, Copy)]
            pub struct Extreme {
                pub largest: bool,
            }
            impl Extreme {
                #[inline(always)]
                fn beats(self, x: $T, best: $T) -> bool {
                    ($nan(x) && !$nan(best)) || if self.largest { x > best } else { x < best }
                }
            }
            impl Fold<$T> for Extreme {
                type State = ($T, usize);
                #[inline(always)]
                fn start(self) -> ($T, usize) {
                    (0 as $T, usize::MAX)
                }
                #[inline(always)]
                fn push(self, s: ($T, usize), x: $T, i: usize) -> ($T, usize) {
                    if s.1 == usize::MAX || self.beats(x, s.0) {
                        (x, i)
                    } else {
                        s
                    }
                }
                const WHOLE: bool = true;
                // The extreme first, then where it is: two vectorised passes over what the cache holds.
                #[inline(always)]
                fn whole(self, x: &[$T], at: usize) -> Option<($T, usize)> {
                    let best = if self.largest {
                        extreme(x, $lowest, |best, x| $or_nan(if x > best { x } else { best }, x))
                    } else {
                        extreme(x, $highest, |best, x| $or_nan(if x < best { x } else { best }, x))
                    };
                    let mut top = best[0];
                    for &b in &best[1..] {
                        top = if self.beats(b, top) { b } else { top };
                    }
                    let i = if $nan(top) { first(x, |x| $nan(x)) } else { first(x, |x| x == top) }?;
                    Some((x[i], at + i))
                }
                #[inline(always)]
                fn join(self, a: ($T, usize), b: ($T, usize)) -> ($T, usize) {
                    if a.1 == usize::MAX {
                        b
                    } else if b.1 == usize::MAX {
                        a
                    } else if self.beats(b.0, a.0) || (!self.beats(a.0, b.0) && b.1 < a.1) {
                        b
                    } else {
                        a
                    }
                }
            }
        }
    };
}
macro_rules! deviation {
    ($Name:ident $T:ident) => {
        /// Sum of squared distances from a known mean.
        #[derive(Clone, Copy)]
        struct $Name($T);
        impl Fold<$T> for $Name {
            type State = $T;
            #[inline(always)]
            fn start(self) -> $T {
                0.0
            }
            #[inline(always)]
            fn push(self, s: $T, x: $T, _: usize) -> $T {
                let d = x - self.0;
                s + d * d
            }
            #[inline(always)]
            fn join(self, a: $T, b: $T) -> $T {
                a + b
            }
        }
    };
}
deviation!(DeviationSingle f32);
deviation!(DeviationDouble f64);
/// `best`, or NaN where `x` is.
#[inline(always)]
fn or_nan_single(best: f32, x: f32) -> f32 {
    f32::from_bits(best.to_bits() | 0u32.wrapping_sub(x.is_nan() as u32))
}
#[inline(always)]
fn or_nan_double(best: f64, x: f64) -> f64 {
    f64::from_bits(best.to_bits() | 0u64.wrapping_sub(x.is_nan() as u64))
}
real_folds!(
    single f32 f32::NEG_INFINITY,
    f32::INFINITY,
    |x: f32| x.is_nan(),
    or_nan_single,
    |a: f32, b: f32| a + b,
    |a: f32, b: f32| a * b
);
real_folds!(
    double f64 f64::NEG_INFINITY,
    f64::INFINITY,
    |x: f64| x.is_nan(),
    or_nan_double,
    |a: f64, b: f64| a + b,
    |a: f64, b: f64| a * b
);
real_folds!(
    integer i64 i64::MIN,
    i64::MAX,
    |_: i64| false,
    |best: i64, _: i64| best,
    |a: i64, b: i64| a.wrapping_add(b),
    |a: i64, b: i64| a.wrapping_mul(b)
);

macro_rules! complex_folds {
    ($mod:ident $C:ident) => {
        mod $mod {
            use super::*;
            simple_fold!(Sum, $C, $C::new(0.0, 0.0), |a, x| a + x);
            simple_fold!(Prod, $C, $C::new(1.0, 0.0), |a, x| a * x);
            simple_fold!(Any, $C, $C::new(0.0, 0.0), |a, x| $C::new(
                (a != $C::new(0.0, 0.0) || x != $C::new(0.0, 0.0)) as u8 as _,
                0.0
            ));
            simple_fold!(All, $C, $C::new(1.0, 0.0), |a, x| $C::new(
                (a != $C::new(0.0, 0.0) && x != $C::new(0.0, 0.0)) as u8 as _,
                0.0
            ));
        }
    };
}
complex_folds!(complex_single Complex32);
complex_folds!(complex_double Complex64);

/// Joins states like a binary counter: a balanced tree over their positions.
struct Tree<S> {
    levels: SmallVec<[Option<S>; 24]>,
}
impl<S: Copy> Tree<S> {
    fn new() -> Self {
        Tree { levels: SmallVec::new() }
    }
    fn push(&mut self, mut s: S, join: impl Fn(S, S) -> S) {
        for level in self.levels.iter_mut() {
            match level.take() {
                Some(left) => s = join(left, s),
                None => {
                    *level = Some(s);
                    return;
                }
            }
        }
        self.levels.push(Some(s));
    }
    fn finish(self, join: impl Fn(S, S) -> S) -> Option<S> {
        let mut out: Option<S> = None;
        for s in self.levels.into_iter().flatten() {
            out = Some(match out {
                Some(right) => join(s, right),
                None => s,
            });
        }
        out
    }
}

/// One pass of lanes over at most a tile of contiguous values.
struct Lanes<'l, T: Copy, F: Fold<T>> {
    f: F,
    x: &'l [T],
    /// Position of `x[0]` within its block is a multiple of the lanes; its logical index.
    at: usize,
    lanes: &'l mut [F::State; LANES],
}
impl<T: Copy, F: Fold<T>> Kernel for Lanes<'_, T, F> {
    type Out = ();
    #[inline(always)]
    fn run<I: Isa>(self) {
        let mut i = self.at;
        let mut lanes = *self.lanes;
        let (rows, rest) = self.x.as_chunks::<LANES>();
        for row in rows {
            // Indexed on purpose: this is the form that vectorises.
            #[allow(clippy::needless_range_loop)]
            for j in 0..LANES {
                lanes[j] = self.f.push(lanes[j], row[j], i + j);
            }
            i += LANES;
        }
        *self.lanes = lanes;
        for (j, &x) in rest.iter().enumerate() {
            self.lanes[j] = self.f.push(self.lanes[j], x, i + j);
        }
    }
}

/// The iteration: outer kept dimensions, reduced ones, and inner kept columns.
struct Shape {
    outer: usize,
    reduced: usize,
    columns: usize,
}

/// Reduces; `emit(output index, state)` gets each result once. `fold(outer index)` may depend on the output.
fn run<T: Copy + Send + Sync, F: Fold<T>>(
    p: &Prepared,
    space: &Space,
    shape: &Shape,
    value: u16,
    fold: impl Fn(usize) -> F + Sync,
    emit: impl Fn(usize, F::State) + Sync,
) {
    let r = shape.reduced;
    if shape.columns == 1 {
        if r > PIECE && shape.outer < 64 {
            // Few long rows: in pieces that are whole subtrees.
            let pieces = r.div_ceil(PIECE);
            for o in 0..shape.outer {
                let f = fold(o);
                let states = Slots::new(pieces, f.start());
                pool::parallel(pieces, |k| {
                    let mut e = Evaluator::new(p, space);
                    let (lo, hi) = (k * PIECE, ((k + 1) * PIECE).min(r));
                    // SAFETY: each piece writes its own slot.
                    unsafe { states.set(k, row::<T, F>(&mut e, f, value, o * r, lo, hi)) };
                });
                let mut tree = Tree::new();
                states.values.into_iter().for_each(|s| tree.push(s.into_inner(), |a, b| f.join(a, b)));
                emit(o, tree.finish(|a, b| f.join(a, b)).unwrap_or(f.start()));
            }
            return;
        }
        each_row::<T>(p, space, shape, value, |e, o, x| {
            let f = fold(o);
            let state = match x {
                Some(x) => short(f, x),
                None => long::<T, F>(e, f, value, o * r, r),
            };
            emit(o, state);
        });
        return;
    }
    // Columns side by side: a band of columns for each (outer, band), rows in blocks joined pairwise. Pieces of rows are a
    // power of two of blocks, so that neither they nor the bands' width show in the results.
    const MOST_BLOCKS: usize = 4;
    const BAND: usize = 2048;
    let direct = Evaluator::new(p, space).span(value, 0, 1).is_some();
    let width = if direct { BAND } else { TILE };
    let bands = shape.columns.div_ceil(width);
    let mut piece_rows = ROW_BLOCK * MOST_BLOCKS;
    while piece_rows > ROW_BLOCK && shape.outer * bands * r.div_ceil(piece_rows) < 4 * pool::num_threads() {
        piece_rows /= 2;
    }
    let row_pieces = if shape.outer * bands >= 64 { 1 } else { r.div_ceil(piece_rows).max(1) };
    let piece_rows = if row_pieces == 1 { usize::MAX } else { piece_rows };
    let states: Slots<Vec<F::State>> = Slots::new(shape.outer * bands * row_pieces, Vec::new());
    // Elements from row to row, where the reduced dimensions are one.
    let mut below = 1;
    let place = (0..space.sizes.len()).rev().find(|&d| {
        let found = below == shape.columns && space.sizes[d] == r;
        below *= space.sizes[d];
        found
    });
    let unit = |u: usize| {
        let (ob, piece) = (u / row_pieces, u % row_pieces);
        let (o, band) = (ob / bands, ob % bands);
        let f = fold(o);
        let c0 = band * width;
        let w = width.min(shape.columns - c0);
        let mut e = Evaluator::new(p, space);
        let (lo, hi) =
            (piece.saturating_mul(piece_rows).min(r), piece.saturating_add(1).saturating_mul(piece_rows).min(r));
        let step = place.and_then(|d| e.step(value, d));
        let mut tree: Tree2<F::State> = Tree2::new();
        let mut at = lo;
        while at < hi {
            let end = (at + ROW_BLOCK).min(hi);
            let mut acc = vec![f.start(); w];
            let mut i = at;
            if let (Some(step), Some(p)) = (step, e.span(value, (o * r + at) * shape.columns + c0, w)) {
                dispatch(Rows { f, x: p as *const T, step, rows: end - at, i: at, acc: &mut acc });
                i = end;
            }
            while i < end {
                let start = |i: usize| (o * r + i) * shape.columns + c0;
                // SAFETY (here and below): a span has `w` numbers of the value's class, which is `T`.
                let row = |e: &Evaluator, i| {
                    e.span(value, start(i), w).map(|p| unsafe { std::slice::from_raw_parts(p as *const T, w) })
                };
                if let Some(x) = row(&e, i) {
                    dispatch(Columns { f, x, i, acc: &mut acc });
                } else {
                    for c in (0..w).step_by(TILE) {
                        let w = TILE.min(w - c);
                        e.tile(start(i) + c, w, None);
                        // SAFETY: the tile's value has `w` numbers of class `T`, valid until the next tile.
                        let x = unsafe { std::slice::from_raw_parts(e.value(value) as *const T, w) };
                        dispatch(Columns { f, x, i, acc: &mut acc[c..c + w] });
                    }
                }
                i += 1;
            }
            tree.push(acc, &|a, b| f.join(a, b));
            at = end;
        }
        let state = tree.finish(&|a, b| f.join(a, b)).unwrap_or_else(|| vec![f.start(); w]);
        // SAFETY: each unit writes its own slot.
        unsafe { states.set(u, state) };
    };
    let units = shape.outer * bands * row_pieces;
    if r * shape.columns * shape.outer < PIECE {
        (0..units).for_each(unit);
    } else {
        pool::parallel(units, unit);
    }
    let mut values = states.values.into_iter().map(|c| c.into_inner());
    for ob in 0..shape.outer * bands {
        let (o, band) = (ob / bands, ob % bands);
        let f = fold(o);
        // Joining pieces pairwise continues the same tree.
        let mut tree = Tree2::new();
        for _ in 0..row_pieces {
            if let Some(s) = values.next() {
                tree.push(s, &|a, b| f.join(a, b));
            }
        }
        if let Some(state) = tree.finish(&|a, b| f.join(a, b)) {
            for (k, s) in state.into_iter().enumerate() {
                emit(o * shape.columns + band * width + k, s);
            }
        }
    }
}

/// Calls `f(evaluator, row, its values)` for every row of `shape.reduced` elements, rows in parallel; the values of short rows,
/// several of which make a tile, come along.
fn each_row<T: Copy>(
    p: &Prepared,
    space: &Space,
    shape: &Shape,
    value: u16,
    f: impl Fn(&mut Evaluator, usize, Option<&[T]>) + Sync,
) {
    let r = shape.reduced;
    let rows_in_tile = (TILE / r.max(1)).max(1);
    let grain = (PIECE / 2 / r.max(1)).max(1).next_multiple_of(rows_in_tile);
    pool::chunks(shape.outer, grain, |lo, hi| {
        let mut e = Evaluator::new(p, space);
        if r >= TILE || r == 0 {
            (lo..hi).for_each(|o| f(&mut e, o, None));
            return;
        }
        if e.span(value, lo * r, r).is_some() {
            for o in lo..hi {
                // Rows are alike: what holds for the first does for all of them.
                let Some(p) = e.span(value, o * r, r) else { continue };
                // SAFETY: a span has `r` numbers of the value's class, which is `T`.
                f(&mut e, o, Some(unsafe { std::slice::from_raw_parts(p as *const T, r) }));
            }
            return;
        }
        for o in (lo..hi).step_by(rows_in_tile) {
            let rows = rows_in_tile.min(hi - o);
            e.tile(o * r, rows * r, None);
            // SAFETY: a tile's value has `n` numbers of class `T`, valid until the next tile.
            let x = unsafe { std::slice::from_raw_parts(e.value(value) as *const T, rows * r) };
            x.chunks_exact(r).enumerate().for_each(|(k, x)| f(&mut e, o + k, Some(x)));
        }
    });
}

/// A row's state: pieces that are whole subtrees, joined in order.
fn long<T: Copy, F: Fold<T>>(e: &mut Evaluator, f: F, value: u16, base: usize, r: usize) -> F::State {
    if r <= PIECE {
        return row::<T, F>(e, f, value, base, 0, r);
    }
    let mut tree = Tree::new();
    for lo in (0..r).step_by(PIECE) {
        tree.push(row::<T, F>(e, f, value, base, lo, (lo + PIECE).min(r)), |a, b| f.join(a, b));
    }
    tree.finish(|a, b| f.join(a, b)).unwrap_or(f.start())
}

/// A row of columns taken in.
struct Columns<'l, T: Copy, F: Fold<T>> {
    f: F,
    x: &'l [T],
    i: usize,
    acc: &'l mut [F::State],
}
impl<T: Copy, F: Fold<T>> Kernel for Columns<'_, T, F> {
    type Out = ();
    #[inline(always)]
    fn run<I: Isa>(self) {
        for (s, &x) in self.acc.iter_mut().zip(self.x) {
            *s = self.f.push(*s, x, self.i);
        }
    }
}

/// Rows that lie `step` apart taken in, one after another in each column, four a pass.
struct Rows<'l, T: Copy, F: Fold<T>> {
    f: F,
    x: *const T,
    step: isize,
    rows: usize,
    i: usize,
    acc: &'l mut [F::State],
}
impl<T: Copy, F: Fold<T>> Kernel for Rows<'_, T, F> {
    type Out = ();
    #[inline(always)]
    fn run<I: Isa>(self) {
        let Rows { f, x, step, rows, i, acc } = self;
        let n = acc.len();
        // SAFETY: whoever makes it answers for rows of `n` elements.
        let row = |r: usize| unsafe { std::slice::from_raw_parts(x.offset(r as isize * step), n) };
        let mut r = 0;
        while r + 4 <= rows {
            let (a, b, c, d) = (row(r), row(r + 1), row(r + 2), row(r + 3));
            for j in 0..n {
                let s = f.push(f.push(acc[j], a[j], i + r), b[j], i + r + 1);
                acc[j] = f.push(f.push(s, c[j], i + r + 2), d[j], i + r + 3);
            }
            r += 4;
        }
        while r < rows {
            for (s, &x) in acc.iter_mut().zip(row(r)) {
                *s = f.push(*s, x, i + r);
            }
            r += 1;
        }
    }
}

/// [`Tree`] over bands of columns.
struct Tree2<S> {
    levels: Vec<Option<Vec<S>>>,
}
impl<S: Copy> Tree2<S> {
    fn new() -> Self {
        Tree2 { levels: Vec::new() }
    }
    fn push(&mut self, mut s: Vec<S>, join: &dyn Fn(S, S) -> S) {
        for level in self.levels.iter_mut() {
            match level.take() {
                Some(left) => s.iter_mut().zip(left).for_each(|(b, a)| *b = join(a, *b)),
                None => {
                    *level = Some(s);
                    return;
                }
            }
        }
        self.levels.push(Some(s));
    }
    fn finish(self, join: &dyn Fn(S, S) -> S) -> Option<Vec<S>> {
        let mut out: Option<Vec<S>> = None;
        for s in self.levels.into_iter().flatten() {
            out = Some(match out {
                Some(mut right) => {
                    right.iter_mut().zip(s).for_each(|(b, a)| *b = join(a, *b));
                    right
                }
                None => s,
            });
        }
        out
    }
}

/// A row shorter than a tile, by the same tree as longer ones.
fn short<T: Copy, F: Fold<T>>(f: F, x: &[T]) -> F::State {
    if x.len() <= 8 {
        return x.iter().enumerate().fold(f.start(), |s, (i, &x)| f.push(s, x, i));
    }
    dispatch(Block { f, x, at: 0 })
}

/// The lanes' extremes; `take(best, x)` gives NaN where either is.
#[inline(always)]
fn extreme<T: Copy>(x: &[T], start: T, take: impl Fn(T, T) -> T) -> [T; LANES] {
    let mut best = [start; LANES];
    let (rows, rest) = x.as_chunks::<LANES>();
    for row in rows {
        for j in 0..LANES {
            best[j] = take(best[j], row[j]);
        }
    }
    // Of a copy, so that the lanes above stay in registers.
    let mut best: [T; LANES] = std::array::from_fn(|j| best[j]);
    rest.iter().zip(&mut best).for_each(|(&x, b)| *b = take(*b, x));
    best
}

/// The first element that `is` so. Blocks without one are passed over at once.
#[inline(always)]
fn first<T: Copy>(x: &[T], is: impl Fn(T) -> bool) -> Option<usize> {
    let (blocks, _) = x.as_chunks::<LANES>();
    let whole =
        blocks.iter().position(|b| b.iter().fold(0, |found, &x| found | is(x) as u32) != 0).unwrap_or(blocks.len());
    x[whole * LANES..].iter().position(|&x| is(x)).map(|i| whole * LANES + i)
}

/// The state of at most a block of contiguous values, by the same tree as tile by tile.
struct Block<'l, T: Copy, F: Fold<T>> {
    f: F,
    x: &'l [T],
    at: usize,
}
impl<T: Copy, F: Fold<T>> Kernel for Block<'_, T, F> {
    type Out = F::State;
    #[inline(always)]
    fn run<I: Isa>(self) -> F::State {
        let Block { f, x, at } = self;
        if F::WHOLE {
            return f.whole(x, at).unwrap_or(f.start());
        }
        let mut lanes = [f.start(); LANES];
        let mut i = at;
        let (rows, rest) = x.as_chunks::<LANES>();
        for row in rows {
            // The processor fetches ahead within a page of 4 KiB only.
            for line in (0..LANES * std::mem::size_of::<T>()).step_by(64) {
                prefetch((row.as_ptr() as *const u8).wrapping_add(2048 + line));
            }
            for j in 0..LANES {
                lanes[j] = f.push(lanes[j], row[j], i + j);
            }
            i += LANES;
        }
        if rest.is_empty() {
            return fold(&lanes, |a, b| f.join(a, b));
        }
        let mut lanes: [F::State; LANES] = std::array::from_fn(|j| lanes[j]);
        let (parts, last) = rest.as_chunks::<PART>();
        for (lanes, part) in lanes.as_chunks_mut::<PART>().0.iter_mut().zip(parts) {
            let sums: [F::State; PART] = std::array::from_fn(|j| f.push(lanes[j], part[j], i + j));
            *lanes = sums;
            i += PART;
        }
        let done = parts.len() * PART;
        for (j, &x) in last.iter().enumerate() {
            lanes[done + j] = f.push(lanes[done + j], x, i + j);
        }
        fold(&lanes, |a, b| f.join(a, b))
    }
}

/// A small contiguous tensor summed whole, in its own dtype: the tree of [`short`] without anything around it. False when the
/// reduction is another.
fn direct(how: Reduction, program: &Program, x: &Operand, dims: u64, out: &Operand) -> bool {
    let scale = match how {
        Reduction::Sum => None,
        Reduction::ScaledSum(k) => Some(k),
        _ => return false,
    };
    let n = x.numel() as usize;
    let class = x.dtype.class();
    if n == 0
        || n >= TILE
        || dims.count_ones() as usize != x.sizes.len()
        || !program.steps.is_empty()
        || class.dtype() != x.dtype
        || out.dtype != x.dtype
        || !matches!(program.inputs, [Input::Operand(c)] if *c == class)
        || !x.is_contiguous()
    {
        return false;
    }
    // SAFETY: `x` holds `n` elements in a row, `out` one, both of the class's own dtype.
    unsafe {
        match class {
            Class::F32 => {
                let sum = short(single::Sum, std::slice::from_raw_parts(x.ptr as *const f32, n));
                *(out.ptr as *mut f32) = scale.map_or(sum, |k| sum * k as f32);
            }
            Class::F64 => {
                let sum = short(double::Sum, std::slice::from_raw_parts(x.ptr as *const f64, n));
                *(out.ptr as *mut f64) = scale.map_or(sum, |k| sum * k);
            }
            Class::I64 if scale.is_none() => {
                let sum = short(integer::Sum, std::slice::from_raw_parts(x.ptr as *const i64, n));
                *(out.ptr as *mut i64) = sum;
            }
            _ => return false,
        }
    }
    true
}

/// Elements `lo..hi` of the row that starts at `base`; `lo` is a multiple of a block.
fn row<T: Copy, F: Fold<T>>(e: &mut Evaluator, f: F, value: u16, base: usize, lo: usize, hi: usize) -> F::State {
    if lo >= hi {
        return f.start();
    }
    if hi - lo <= BLOCK {
        if let Some(p) = e.span(value, base + lo, hi - lo) {
            // SAFETY: `span` leads to that many numbers of the value's class, which is `T`.
            let x = unsafe { std::slice::from_raw_parts(p as *const T, hi - lo) };
            return dispatch(Block { f, x, at: lo });
        }
    }
    let mut tree = Tree::new();
    let mut at = lo;
    while at < hi {
        let end = (at + BLOCK).min(hi);
        if let Some(p) = e.span(value, base + at, end - at) {
            // SAFETY: `span` leads to that many numbers of the value's class, which is `T`.
            let x = unsafe { std::slice::from_raw_parts(p as *const T, end - at) };
            tree.push(dispatch(Block { f, x, at }), |a, b| f.join(a, b));
            at = end;
            continue;
        }
        let mut lanes = [f.start(); LANES];
        let mut whole = f.start();
        while at < end {
            let n = (end - at).min(TILE);
            e.tile(base + at, n, None);
            // SAFETY: the tile's value has `n` numbers of class `T`, valid until the next tile.
            let x = unsafe { std::slice::from_raw_parts(e.value(value) as *const T, n) };
            if F::WHOLE {
                whole = f.join(whole, dispatch(Block { f, x, at }));
            } else {
                dispatch(Lanes { f, x, at, lanes: &mut lanes });
            }
            at += n;
        }
        tree.push(if F::WHOLE { whole } else { fold(&lanes, |a, b| f.join(a, b)) }, |a, b| f.join(a, b));
    }
    tree.finish(|a, b| f.join(a, b)).unwrap_or(f.start())
}

/// Results that parallel units write, each its own.
struct Slots<S> {
    values: Vec<std::cell::UnsafeCell<S>>,
}
// SAFETY: `set`'s contract gives each slot one writer.
unsafe impl<S: Send> Sync for Slots<S> {}
impl<S: Clone> Slots<S> {
    fn new(n: usize, start: S) -> Self {
        Slots { values: (0..n).map(|_| std::cell::UnsafeCell::new(start.clone())).collect() }
    }
    /// # Safety
    /// No two calls at the same time for one `i`.
    unsafe fn set(&self, i: usize, s: S) {
        *self.values[i].get() = s;
    }
}

/// Writes results, converted, into an output.
struct Sink<'o> {
    out: &'o Operand<'o>,
    space: Space,
    class: Class,
}
impl<'o> Sink<'o> {
    fn new(out: &'o Operand<'o>, kept: &[usize], sizes: &[i64], class: Class) -> Self {
        Sink { out, space: Space::new(sizes, &[out.strides], kept, &[]), class }
    }
    fn put<T: Copy>(&self, i: usize, x: T) {
        let at = self.space.offset(0, i) * self.out.dtype.size() as isize;
        // SAFETY: output `i` lies in the operand's memory, is written once, and `x` is a number of `class`.
        unsafe {
            convert::store(
                self.out.dtype,
                self.class,
                &x as *const T as *const u8,
                1,
                self.out.ptr.wrapping_offset(at),
                1,
            )
        }
    }
}

/// See [`Backend::reduce`].
///
/// # Errors
/// `NotImplemented` for combinations without an order (the largest complex number).
pub fn reduce(how: Reduction, program: &Program, x: &[Operand], dims: u64, out: &[Operand]) -> Result<()> {
    let Some(first) = x.first() else { return unsupported("reduce without operands") };
    if direct(how, program, first, dims, &out[0]) {
        return Ok(());
    }
    let sizes = first.sizes;
    let reduced: SmallVec<[usize; 6]> = (0..sizes.len()).filter(|d| dims >> d & 1 == 1).collect();
    let kept: SmallVec<[usize; 6]> = (0..sizes.len()).filter(|d| dims >> d & 1 == 0).collect();
    let product = |ds: &[usize]| ds.iter().map(|&d| sizes[d] as usize).product::<usize>();
    let (outputs, r) = (product(&kept), product(&reduced));
    if outputs == 0 {
        return Ok(());
    }
    // Kept dimensions inside the last reduced one are columns, when they are wide enough to be worth it.
    let last = reduced.last().copied().unwrap_or(0);
    let inner: SmallVec<[usize; 6]> = kept.iter().copied().filter(|&d| d > last).collect();
    let mut columns = if reduced.is_empty() { 1 } else { product(&inner) };
    // Nothing to reduce has no rows to walk.
    if columns < 16 || r == 0 {
        columns = 1;
    }
    let mut order: SmallVec<[usize; 6]> = SmallVec::new();
    let barriers: [usize; 2];
    if columns > 1 {
        order.extend(kept.iter().copied().filter(|&d| d < last));
        let a = order.len();
        order.extend(reduced.iter().copied());
        barriers = [a, order.len()];
        order.extend(inner.iter().copied());
    } else {
        order.extend(kept.iter().copied());
        barriers = [order.len(), usize::MAX];
        order.extend(reduced.iter().copied());
    }
    let strides: SmallVec<[&[i64]; 12]> = x.iter().map(|o| o.strides).collect();
    let space = Space::new(sizes, &strides, &order, &barriers);
    let shape = Shape { outer: outputs / columns, reduced: r, columns };
    let p = Prepared::new(program, x)?;
    let value = program.results[0];
    let class = p.class(value);
    let sinks: SmallVec<[Sink; 2]> = out.iter().map(|o| Sink::new(o, &kept, sizes, class)).collect();
    let index = Sink::new(out.last().unwrap_or(&out[0]), &kept, sizes, Class::I64);

    macro_rules! go {
        ($T:ident, $fold:expr, $emit:expr) => {{
            run::<$T, _>(&p, &space, &shape, value, |_| $fold, $emit);
            return Ok(());
        }};
    }
    macro_rules! values {
        ($T:ident $mod:ident) => {
            match how {
                Reduction::Sum => go!($T, $mod::Sum, |i, s| sinks[0].put(i, s)),
                Reduction::Prod => go!($T, $mod::Prod, |i, s| sinks[0].put(i, s)),
                Reduction::Any => go!($T, $mod::Any, |i, s| sinks[0].put(i, s)),
                Reduction::All => go!($T, $mod::All, |i, s| sinks[0].put(i, s)),
                _ => {}
            }
        };
    }
    macro_rules! ordered {
        ($T:ident $mod:ident) => {
            match how {
                Reduction::Max => go!($T, $mod::Max, |i, s| sinks[0].put(i, s)),
                Reduction::Min => go!($T, $mod::Min, |i, s| sinks[0].put(i, s)),
                Reduction::ArgMax | Reduction::ArgMin => {
                    go!($T, $mod::Extreme { largest: how == Reduction::ArgMax }, |i, s: ($T, usize)| index
                        .put(i, s.1 as i64))
                }
                Reduction::MaxIndex | Reduction::MinIndex => {
                    go!($T, $mod::Extreme { largest: how == Reduction::MaxIndex }, |i, s: ($T, usize)| {
                        sinks[0].put(i, s.0);
                        index.put(i, s.1 as i64);
                    })
                }
                _ => {}
            }
        };
    }
    macro_rules! moments {
        ($T:ident $mod:ident $Deviation:ident) => {
            match how {
                Reduction::ScaledSum(k) => go!($T, $mod::Sum, |i, s: $T| sinks[0].put(i, s * k as $T)),
                Reduction::VarMean { correction } => {
                    // Two passes: the mean, then the squared distances from it.
                    let divisor = (r as f64 - correction).max(0.0) as $T;
                    if columns == 1 && r <= PIECE {
                        // Both over a row while the cache holds it.
                        each_row::<$T>(&p, &space, &shape, value, |e, o, x| {
                            let mean = match x {
                                Some(x) => short($mod::Sum, x),
                                None => row::<$T, _>(e, $mod::Sum, value, o * r, 0, r),
                            } / r as $T;
                            let deviation = match x {
                                Some(x) => short($Deviation(mean), x),
                                None => row::<$T, _>(e, $Deviation(mean), value, o * r, 0, r),
                            };
                            sinks[0].put(o, deviation / divisor);
                            if let Some(means) = sinks.get(1) {
                                means.put(o, mean);
                            }
                        });
                        return Ok(());
                    }
                    let means = Slots::new(outputs, 0 as $T);
                    run::<$T, _>(
                        &p,
                        &space,
                        &shape,
                        value,
                        |_| $mod::Sum,
                        |i, s: $T| {
                            // SAFETY: each output is emitted once.
                            unsafe { means.set(i, s / r as $T) }
                        },
                    );
                    let means: Vec<$T> = means.values.into_iter().map(|c| c.into_inner()).collect();
                    if columns == 1 {
                        run::<$T, _>(
                            &p,
                            &space,
                            &shape,
                            value,
                            |o| $Deviation(means[o]),
                            |i, s: $T| sinks[0].put(i, s / divisor),
                        );
                    } else {
                        // A mean for each column: subtract it before folding.
                        variance_columns::<$T>(
                            &p,
                            &space,
                            &shape,
                            value,
                            &means,
                            |i, s| sinks[0].put(i, s / divisor),
                            |x, m| {
                                let d = x - m;
                                d * d
                            },
                        );
                    }
                    if sinks.len() > 1 {
                        means.iter().enumerate().for_each(|(i, &m)| sinks[1].put(i, m));
                    }
                    return Ok(());
                }
                _ => {}
            }
        };
    }
    match class {
        Class::F32 => {
            values!(f32 single);
            ordered!(f32 single);
            moments!(f32 single DeviationSingle);
        }
        Class::F64 => {
            values!(f64 double);
            ordered!(f64 double);
            moments!(f64 double DeviationDouble);
        }
        Class::I64 => {
            values!(i64 integer);
            ordered!(i64 integer);
        }
        Class::C32 => {
            values!(Complex32 complex_single);
            if let Reduction::ScaledSum(k) = how {
                go!(Complex32, complex_single::Sum, |i, s: Complex32| sinks[0].put(i, s * k as f32))
            }
        }
        Class::C64 => {
            values!(Complex64 complex_double);
            if let Reduction::ScaledSum(k) = how {
                go!(Complex64, complex_double::Sum, |i, s: Complex64| sinks[0].put(i, s * k))
            }
        }
    }
    Err(err!(NotImplemented, "reduction {how:?} is not implemented for {}", first.dtype.title()))
}

/// Column-wise sums of `term(x, mean of the column)`, by the same row blocks as `run`.
fn variance_columns<T: Copy + Default + Send + Sync + std::ops::Add<Output = T>>(
    p: &Prepared,
    space: &Space,
    shape: &Shape,
    value: u16,
    means: &[T],
    emit: impl Fn(usize, T) + Sync,
    term: impl Fn(T, T) -> T + Sync,
) {
    let bands = shape.columns.div_ceil(TILE);
    pool::parallel(shape.outer * bands, |ob| {
        let (o, band) = (ob / bands, ob % bands);
        let c0 = band * TILE;
        let w = TILE.min(shape.columns - c0);
        let mut e = Evaluator::new(p, space);
        let mut tree = Tree2::new();
        let mean = &means[o * shape.columns + c0..][..w];
        let mut at = 0;
        while at < shape.reduced {
            let end = (at + ROW_BLOCK).min(shape.reduced);
            let mut acc = vec![T::default(); w];
            for i in at..end {
                e.tile((o * shape.reduced + i) * shape.columns + c0, w, None);
                // SAFETY: the tile's value has `w` numbers of class `T`, valid until the next tile.
                let x = unsafe { std::slice::from_raw_parts(e.value(value) as *const T, w) };
                for k in 0..w {
                    acc[k] = acc[k] + term(x[k], mean[k]);
                }
            }
            tree.push(acc, &|a, b| a + b);
            at = end;
        }
        let sums = tree.finish(&|a, b| a + b).unwrap_or_else(|| vec![T::default(); w]);
        sums.into_iter().enumerate().for_each(|(k, s)| emit(o * shape.columns + c0 + k, s));
    });
}
