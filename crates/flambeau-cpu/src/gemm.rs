//! Matrix products. Operands are packed into panels (which takes any stride, converts halves, and lets convolutions
//! read their windows in place), and tiles of C are computed in registers. Every element of C is summed over K in one
//! order that depends on K alone, so tiles may go to any number of threads.

use crate::element::{not_implemented, unravel, with_float, Element, Number, Ptr, Scratch};
use crate::finish::Finish;
use crate::gemm_bf16::Pairs;
use crate::gemm_kernels::{bf16_micro, Micro, NearFn, Put, Scalar, STREAM};
use crate::gemv::{Vectors, VECTORS};
use crate::isa::{dispatch, Isa, Kernel};
use crate::pool;
use flambeau_core::{ensure, Category, DType, Epilogue, Operand, Result, Shape};
use std::any::TypeId;

/// One side of a product: K steps of lanes (rows of A, columns of B).
pub(crate) trait Panels<S: 'static>: Sync {
    /// Writes `dst[p · width + l]` for the lanes `lane + l`, `l < lanes ≤ width`, and steps `k + p`, `p < kb`; lanes past
    /// `lanes` may hold anything.
    ///
    /// # Safety
    /// `dst` is writable for `kb · width` values; lanes and steps lie within the operand.
    unsafe fn pack(&self, dst: *mut S, width: usize, lane: usize, lanes: usize, k: usize, kb: usize);
    /// Address and distance between steps, when lanes lie one after another as S: such a panel need not be packed.
    fn direct(&self) -> Option<(*const S, isize)> {
        None
    }
    /// Address and distances between lanes and between steps, when the operand lies in memory as S.
    fn view(&self) -> Option<(*const S, [isize; 2])> {
        None
    }
    /// The tile that multiplies such panels, where it is not the machine's tile of S.
    fn micro(&self) -> Option<Micro<S>> {
        None
    }
}

/// A matrix in memory.
#[derive(Clone, Copy)]
pub(crate) struct Strided<E> {
    pub ptr: Ptr<E>,
    /// Elements between lanes and between steps of K.
    pub lane: isize,
    pub step: isize,
}

struct PackLanes<E: Element> {
    src: *const E,
    step: isize,
    dst: *mut E::Acc,
    width: usize,
    lanes: usize,
    k: usize,
}
impl<E: Element> Kernel for PackLanes<E> {
    type Out = ();
    #[inline(always)]
    fn run<I: Isa>(self) {
        for p in 0..self.k {
            // SAFETY: `Panels::pack`'s contract; lanes are adjacent.
            let (s, d) = unsafe {
                (
                    std::slice::from_raw_parts(self.src.offset(p as isize * self.step), self.lanes),
                    std::slice::from_raw_parts_mut(self.dst.add(p * self.width), self.lanes),
                )
            };
            for (d, s) in d.iter_mut().zip(s) {
                *d = s.load();
            }
        }
    }
}

/// Rows of a panel as they are. Lanes past `lanes` may be read, but not behind the last row.
struct CopyLanes<S> {
    src: *const S,
    step: isize,
    dst: *mut S,
    width: usize,
    lanes: usize,
    k: usize,
}
impl<S: Copy> CopyLanes<S> {
    /// For a width that the compiler knows; a row takes whole vectors of `V` numbers, whose last ones the next row writes over.
    #[inline(always)]
    fn of<const W: usize, const V: usize>(&self) {
        let whole = if self.lanes == V { self.k } else { self.k.saturating_sub(1) };
        for p in 0..whole {
            // SAFETY: `Panels::pack`'s contract; what is behind the lanes lies before the next row's end, in the source and here.
            unsafe {
                let s = self.src.offset(p as isize * self.step);
                crate::isa::prefetch(s.wrapping_offset(16 * self.step) as *const u8);
                *(self.dst.add(p * W) as *mut [S; V]) = *(s as *const [S; V]);
            }
        }
        for p in whole..self.k {
            // SAFETY: `Panels::pack`'s contract.
            unsafe {
                let s = self.src.offset(p as isize * self.step);
                std::ptr::copy_nonoverlapping(s, self.dst.add(p * W), self.lanes);
            }
        }
    }
}
impl<S: Copy> Kernel for CopyLanes<S> {
    type Out = ();
    #[inline(always)]
    fn run<I: Isa>(self) {
        match self.width {
            32 => self.of::<32, 32>(),
            16 => self.of::<16, 16>(),
            14 => self.of::<14, 16>(),
            8 => self.of::<8, 8>(),
            6 => self.of::<6, 8>(),
            width => {
                for p in 0..self.k {
                    // SAFETY: `Panels::pack`'s contract.
                    unsafe {
                        let s = self.src.offset(p as isize * self.step);
                        std::ptr::copy_nonoverlapping(s, self.dst.add(p * width), self.lanes);
                    }
                }
            }
        }
    }
}

/// Converts `n` adjacent elements.
pub(crate) struct Load<E: Element>(pub *const E, pub *mut E::Acc, pub usize);
impl<E: Element> Kernel for Load<E> {
    type Out = ();
    #[inline(always)]
    fn run<I: Isa>(self) {
        // SAFETY: whoever makes a `Load` answers for `n` elements on both sides, which do not overlap.
        let (s, d) =
            unsafe { (std::slice::from_raw_parts(self.0, self.2), std::slice::from_raw_parts_mut(self.1, self.2)) };
        for (d, s) in d.iter_mut().zip(s) {
            *d = s.load();
        }
    }
}

/// Rounds `n` adjacent numbers, adding what is there when the flag is set.
pub(crate) struct Store<E: Element>(pub *const E::Acc, pub *mut E, pub usize, pub bool);
impl<E: Element> Kernel for Store<E> {
    type Out = ();
    #[inline(always)]
    fn run<I: Isa>(self) {
        // SAFETY: as `Load`.
        let (s, d) =
            unsafe { (std::slice::from_raw_parts(self.0, self.2), std::slice::from_raw_parts_mut(self.1, self.2)) };
        if self.3 {
            for (d, s) in d.iter_mut().zip(s) {
                *d = E::store(d.load().add(*s));
            }
        } else {
            for (d, s) in d.iter_mut().zip(s) {
                *d = E::store(*s);
            }
        }
    }
}

#[inline(always)]
pub(crate) fn same<A: 'static, B: 'static>() -> bool {
    TypeId::of::<A>() == TypeId::of::<B>()
}

impl<S: Scalar, E: Element<Acc = S>> Panels<S> for Strided<E> {
    unsafe fn pack(&self, dst: *mut S, width: usize, lane: usize, lanes: usize, k: usize, kb: usize) {
        let src = self.ptr.at(lane as isize * self.lane + k as isize * self.step) as *const E;
        // Vectors of the widest tile have two lanes more than it has rows.
        if self.lane == 1 && same::<E, S>() && self.step >= (width + 2 - lanes) as isize {
            dispatch(CopyLanes { src: src as *const S, step: self.step, dst, width, lanes, k: kb });
        } else if self.lane == 1 {
            dispatch(PackLanes { src, step: self.step, dst, width, lanes, k: kb });
        } else if self.step == 1 && same::<E, S>() {
            S::transpose(dst, width, src as *const S, self.lane, lanes, kb);
        } else if self.step == 1 {
            const BLOCK: usize = 128;
            let mut rows = Scratch::<S>::new(lanes * BLOCK);
            let r = rows.ptr();
            for p in (0..kb).step_by(BLOCK) {
                let n = BLOCK.min(kb - p);
                for l in 0..lanes {
                    dispatch(Load(src.offset(l as isize * self.lane + p as isize), r.add(l * BLOCK), n));
                }
                S::transpose(dst.add(p * width), width, r, BLOCK as isize, lanes, n);
            }
        } else {
            for p in 0..kb {
                for l in 0..lanes {
                    *dst.add(p * width + l) = (*src.offset(l as isize * self.lane + p as isize * self.step)).load();
                }
            }
        }
    }
    fn direct(&self) -> Option<(*const S, isize)> {
        (self.lane == 1 && self.step >= 0 && same::<E, S>()).then_some((self.ptr.get() as *const S, self.step))
    }
    fn view(&self) -> Option<(*const S, [isize; 2])> {
        same::<E, S>().then_some((self.ptr.get() as *const S, [self.lane, self.step]))
    }
}

/// `C (+)= A · B (+ bias)` over rows of C whose elements are adjacent.
pub(crate) struct Product<'a, S, A, B> {
    pub m: usize,
    pub n: usize,
    pub k: usize,
    pub a: &'a A,
    pub b: &'a B,
    pub c: *mut S,
    /// Elements between rows of C.
    pub ldc: isize,
    pub accumulate: bool,
    pub bias: Bias<S>,
}

// SAFETY: addresses of memory whose use `run` describes; tasks write disjoint parts of C.
unsafe impl<S, A: Sync, B: Sync> Sync for Product<'_, S, A, B> {}

/// Memory that the next product will read: addresses, which need not be valid, and bytes.
#[derive(Clone, Copy)]
pub(crate) struct Ahead<S>(pub [(*const S, usize); 3]);
// SAFETY: the addresses are fetched from, which cannot fault, and not read.
unsafe impl<S> Sync for Ahead<S> {}
impl<S> Ahead<S> {
    /// The address `offset` bytes into them, one after the other.
    fn at(&self, mut offset: usize) -> Option<*const S> {
        for (from, size) in self.0 {
            if offset < size {
                return Some(from.wrapping_byte_add(offset));
            }
            offset -= size;
        }
        None
    }
}

/// What is added to every element of a product.
#[derive(Clone, Copy)]
pub(crate) enum Bias<S> {
    None,
    /// One value a row of C.
    Rows(*const S),
    /// One value a column of C.
    Columns(*const S),
}

/// Rows of C in one task.
const ROWS: usize = 168;
/// Bytes of packed B held at once.
const PACKED: usize = 6 << 20;
/// Steps of K in a task that packs.
const SLICE: usize = 128;
/// Bytes of A up to which it is not cut into blocks: about half of a second-level cache.
const BLOCK: usize = 1 << 20;
/// Bytes of B up to which it is packed whole and A a tile at a time.
const STRIPS: usize = 1 << 20;
/// Panels of B up to which A is not packed.
const NEAR_PANELS: usize = 16;
/// Bytes of an A with adjacent rows up to which it is not packed.
const NEAR_BYTES: usize = 128 << 10;
/// Sums of a thread that wait to be rounded to half types, and steps of K up to which they do.
const ROUNDED: usize = 1 << 17;
const SHORT: usize = 128;
/// Bytes of C from which the rest of an epilogue follows block by block.
const FAR: usize = if cfg!(test) { 0 } else { 16 << 20 };
/// Numbers of C up to which slices of K are products of their own, and how many slices.
const SMALL: usize = 1 << 15;
const SLICES: usize = 64;
/// Multiplications below which threads do not pay.
pub(crate) const SERIAL: usize = 1 << 19;

/// Steps of K summed in registers before they are added to C: by K alone.
pub(crate) fn depth(k: usize) -> usize {
    const MOST: usize = 512;
    if k <= MOST + MOST / 3 {
        k.max(1)
    } else {
        k.div_ceil(k.div_ceil(MOST))
    }
}

/// `to += from`
struct AddRow<'a, S>(&'a [S], &'a mut [S]);
impl<S: Scalar> Kernel for AddRow<'_, S> {
    type Out = ();
    #[inline(always)]
    fn run<I: Isa>(self) {
        for (to, from) in self.1.iter_mut().zip(self.0) {
            *to = from.add(*to);
        }
    }
}

/// An operand from some step of K on.
struct After<'a, S>(&'a dyn Panels<S>, usize);
impl<S: 'static> Panels<S> for After<'_, S> {
    unsafe fn pack(&self, dst: *mut S, width: usize, lane: usize, lanes: usize, k: usize, kb: usize) {
        self.0.pack(dst, width, lane, lanes, self.1 + k, kb)
    }
    fn direct(&self) -> Option<(*const S, isize)> {
        self.0.direct().map(|(p, step)| (p.wrapping_offset(self.1 as isize * step), step))
    }
    fn view(&self) -> Option<(*const S, [isize; 2])> {
        self.0.view().map(|(p, steps)| (p.wrapping_offset(self.1 as isize * steps[1]), steps))
    }
    fn micro(&self) -> Option<Micro<S>> {
        self.0.micro()
    }
}

/// Adds one value to each row of a block.
struct AddBias<S> {
    c: *mut S,
    ldc: isize,
    rows: usize,
    columns: usize,
    bias: *const S,
}
impl<S: Scalar> Kernel for AddBias<S> {
    type Out = ();
    #[inline(always)]
    fn run<I: Isa>(self) {
        for i in 0..self.rows {
            // SAFETY: the block lies in C, which the product may write; the bias has one value a row.
            unsafe {
                let b = *self.bias.add(i);
                for c in std::slice::from_raw_parts_mut(self.c.offset(i as isize * self.ldc), self.columns) {
                    *c = c.add(b);
                }
            }
        }
    }
}

impl<S: Scalar, A: Panels<S>, B: Panels<S>> Product<'_, S, A, B> {
    /// What a tile of columns from `j` adds to its sums over `kb` steps from `pc`; a bias of columns comes with the last ones.
    fn put(&self, j: usize, pc: usize, kb: usize) -> Put<S> {
        let bias = match self.bias {
            Bias::Columns(p) if pc + kb == self.k => p.wrapping_add(j),
            _ => std::ptr::null(),
        };
        Put { add: self.accumulate || pc > 0, bias }
    }
    /// Adds a bias of rows to a block whose sums are complete, and does what follows.
    #[inline]
    unsafe fn finish(&self, then: Option<&Finish>, i: usize, rows: usize, j: usize, columns: usize) {
        if let Bias::Rows(bias) = self.bias {
            let (c, bias) = (self.c.offset(i as isize * self.ldc).add(j), bias.add(i));
            dispatch(AddBias { c, ldc: self.ldc, rows, columns, bias });
        }
        if let Some(then) = then {
            then.block(i, rows, j, columns);
        }
    }

    /// Computes the product, on the pool's threads when `parallel`.
    ///
    /// # Safety
    /// A and B hold m × k and k × n elements, C is writable for m rows of n at `ldc` and overlaps neither; nobody else
    /// reads or writes C meanwhile.
    pub(crate) unsafe fn run(&self, parallel: bool) {
        self.run_with(parallel, Ahead([(std::ptr::null(), 0); 3]), None);
    }
    /// [`run`](Self::run), while what another product will read is fetched, and then the rest of the epilogue.
    ///
    /// # Safety
    /// As [`run`](Self::run).
    pub(crate) unsafe fn run_with(&self, parallel: bool, ahead: Ahead<S>, then: Option<&Finish>) {
        let (m, n, k) = (self.m, self.n, self.k);
        if m == 0 || n == 0 {
            return;
        }
        if k == 0 {
            for i in 0..m {
                let row = std::slice::from_raw_parts_mut(self.c.offset(i as isize * self.ldc), n);
                if !self.accumulate {
                    row.fill(S::default());
                }
                if let Bias::Columns(bias) = self.bias {
                    row.iter_mut().zip(std::slice::from_raw_parts(bias, n)).for_each(|(c, b)| *c = c.add(*b));
                }
            }
            return self.finish(then, 0, m, 0, n);
        }
        let micro = self.a.micro().unwrap_or_else(S::micro);
        let parallel = parallel && m * n * k >= SERIAL;
        let kc = depth(k);
        let (slices, threads) = (k.div_ceil(kc), pool::num_threads());
        if parallel && (2..=SLICES).contains(&slices) && m * n <= SMALL && threads > 1 {
            // Slices that the threads can share out evenly.
            if slices >= 4 * threads || slices.is_multiple_of(threads) {
                return self.by_slices(kc, then);
            }
        }
        let near = if m * kc * std::mem::size_of::<S>() > BLOCK { None } else { self.near(&micro) };
        let few = n <= NEAR_PANELS * micro.nr && n.next_multiple_of(micro.nr) * k * std::mem::size_of::<S>() <= STRIPS;
        if near.is_none() && m > 4 * micro.mr && few {
            return self.strips(&micro, parallel, then);
        }
        if m > ROWS && m * kc * std::mem::size_of::<S>() > BLOCK {
            return self.slabs(&micro, parallel, then);
        }
        let mut packed = Scratch::<S>::new(if near.is_none() { m.div_ceil(micro.mr) * micro.mr * kc } else { 0 });
        let at = Ptr(packed.ptr());
        for pc in (0..k).step_by(kc) {
            self.block(&micro, near, at, (pc, kc.min(k - pc)), parallel, ahead, then);
        }
    }

    /// A small result of long sums: every slice of K is a product of its own, which nobody waits for, and then they are added, in
    /// the order in which one thread would.
    unsafe fn by_slices(&self, kc: usize, then: Option<&Finish>) {
        let (m, n, k) = (self.m, self.n, self.k);
        let slices = k.div_ceil(kc);
        let mut room = Scratch::<S>::new((slices - 1) * m * n);
        let room = Ptr(room.ptr());
        let c = Ptr(self.c);
        split(true, slices, 1, |lo, hi| {
            for slice in lo..hi {
                let pc = slice * kc;
                let (a, b) = (&After(self.a, pc), &After(self.b, pc));
                // SAFETY: `run`'s contract; every slice has memory of its own.
                unsafe {
                    let (c, ldc, accumulate) = match slice {
                        0 => (c.get(), self.ldc, self.accumulate),
                        _ => (room.get().add((slice - 1) * m * n), n as isize, false),
                    };
                    let bias = if pc + kc >= k { self.bias } else { Bias::None };
                    let bias = if let Bias::Columns(_) = bias { bias } else { Bias::None };
                    Product { m, n, k: kc.min(k - pc), a, b, c, ldc, accumulate, bias }.run(false);
                }
            }
        });
        split(m * n >= 1 << 14, m, ((1 << 13) / n).max(1), |lo, hi| {
            for i in lo..hi {
                for slice in 0..slices - 1 {
                    // SAFETY: as above; tasks write disjoint rows.
                    unsafe {
                        let (to, from) = (c.at(i as isize * self.ldc), room.get().add((slice * m + i) * n));
                        dispatch(AddRow(std::slice::from_raw_parts(from, n), std::slice::from_raw_parts_mut(to, n)));
                    }
                }
            }
        });
        self.finish(then, 0, m, 0, n);
    }

    /// A where it lies, when packing would cost more than it gains: it is read for few panels, stays in a cache near the threads,
    /// and its rows do not fall on the same sets of it.
    fn near(&self, micro: &Micro<S>) -> Option<(NearFn<S>, Ptr<S>, [isize; 2])> {
        let size = std::mem::size_of::<S>();
        let (near, (a, at)) = (micro.near?, self.a.view()?);
        let apart = !(at[0].unsigned_abs() * size).is_multiple_of(4096);
        // Where rows are adjacent, a tile takes a little of many cache lines, which have to be near.
        let lines = at[1] == 1 || at[0] == 1 && self.m * depth(self.k) * size <= NEAR_BYTES;
        (apart && lines && self.n <= NEAR_PANELS * micro.nr).then_some((near, Ptr(a as *mut S), at))
    }

    /// `kb` steps of K from `pc`, with few rows: A is packed once or read where it lies, and every panel of B is packed by
    /// whoever uses it, or read as well. What one thread has written another reads slowly.
    #[allow(clippy::too_many_arguments)]
    unsafe fn block(
        &self,
        micro: &Micro<S>,
        near: Option<(NearFn<S>, Ptr<S>, [isize; 2])>,
        ap: Ptr<S>,
        (pc, kb): (usize, usize),
        parallel: bool,
        ahead: Ahead<S>,
        then: Option<&Finish>,
    ) {
        let (m, n, c) = (self.m, self.n, Ptr(self.c));
        let Micro { mr, nr, run, .. } = *micro;
        let tiles = Tiles { rows: m, count: m.div_ceil(mr) };
        // Packing costs about as much as three rows of tiles gain from it.
        let direct = if tiles.count <= 3 { self.b.direct() } else { None };
        let direct = direct.map(|(p, step)| (Ptr(p as *mut S), step));
        if near.is_none() {
            // Where rows of A are adjacent, some tiles are packed together, which read along them.
            let (wide, deep) = if self.a.direct().is_some() { (8, 16) } else { (1, kb) };
            split(
                parallel && m * kb >= 1 << 15,
                tiles.count.div_ceil(wide),
                ((1 << 12) / (wide * mr * kb)).max(1),
                |lo, hi| {
                    for p in (0..kb).step_by(deep) {
                        let steps = deep.min(kb - p);
                        for t in lo * wide..(hi * wide).min(tiles.count) {
                            let (i, rows) = tiles.at(t);
                            // SAFETY: `run`'s contract; tasks write disjoint tiles.
                            unsafe { self.a.pack(ap.get().add((t * kb + p) * mr), mr, i, rows, pc + p, steps) };
                        }
                    }
                },
            );
        }
        let panels = n.div_ceil(nr);
        // Where there are few panels for the threads, their tiles are shared out as well.
        let groups = if parallel { (2 * pool::num_threads()).div_ceil(panels).min(tiles.count.div_ceil(4)) } else { 1 };
        let groups = Tiles { rows: tiles.count, count: groups };
        // Enough panels a task for about 2^18 multiplications.
        let grain = if parallel { ((1 << 18) * groups.count / (m * kb * nr)).clamp(1, 64) } else { panels };
        split(parallel, panels * groups.count, grain, |lo, hi| {
            let mut buffer = Scratch::<S>::new(nr * kb);
            let bp = buffer.ptr();
            let mut far = 0;
            for unit in lo..hi {
                let j = unit / groups.count;
                let (first, count) = groups.at(unit % groups.count);
                let columns = nr.min(n - j * nr);
                // SAFETY: `run`'s contract; tasks write disjoint parts of C.
                unsafe {
                    let (b, ldb) = match direct {
                        Some((b, step)) if columns.is_multiple_of(nr / 2) => {
                            (b.at(pc as isize * step).add(j * nr) as *const S, step as usize)
                        }
                        _ => {
                            self.b.pack(bp, nr, j * nr, columns, pc, kb);
                            (bp as *const S, nr)
                        }
                    };
                    let put = self.put(j * nr, pc, kb);
                    for t in first..first + count {
                        let (i, rows) = tiles.at(t);
                        let to = c.at(i as isize * self.ldc).add(j * nr);
                        if let Some((near, a, at)) = near {
                            let a = a.at(i as isize * at[0] + pc as isize * at[1]);
                            near(kb, a, at, b, ldb, to, self.ldc, rows, columns, put, ahead.at(far).unwrap_or(a));
                            far += kb * 64;
                        } else {
                            let a = ap.get().add(t * mr * kb);
                            run(kb, a, b, ldb, to, self.ldc, rows, columns, put, a.wrapping_add(mr * kb));
                        }
                        if pc + kb == self.k {
                            self.finish(None, i, rows, j * nr, columns);
                        }
                    }
                    if let Some(then) = then.filter(|_| pc + kb == self.k) {
                        let (i, (end, rows)) = (tiles.at(first).0, tiles.at(first + count - 1));
                        then.block(i, end + rows - i, j * nr, columns);
                    }
                }
            }
        });
    }

    /// Packs `kb` steps of K from `pc` of `nb` columns of B from `jc`, in panels of `nr`, for whoever will read them.
    ///
    /// # Safety
    /// Of [`run`](Self::run); `to` is writable for whole panels, and nobody else uses it meanwhile.
    unsafe fn pack_panels(
        &self,
        nr: usize,
        to: Ptr<S>,
        (jc, nb): (usize, usize),
        (pc, kb): (usize, usize),
        parallel: bool,
    ) {
        let panels = nb.div_ceil(nr);
        // Panels in slices of K, since there may be few panels.
        let slices = kb.div_ceil(SLICE);
        // Where rows of B are adjacent, a few panels are packed together, which read along them.
        let (wide, deep) = if self.b.direct().is_some() { (4, 16) } else { (1, SLICE) };
        split(parallel, panels.div_ceil(wide) * slices, 1, |lo, hi| {
            for unit in lo..hi {
                let (j, p) = (unit / slices * wide, unit % slices * SLICE);
                let end = (p + SLICE).min(kb);
                for p in (p..end).step_by(deep) {
                    for j in j..(j + wide).min(panels) {
                        // SAFETY: `run`'s contract; tasks write disjoint parts of panels.
                        unsafe {
                            let to = to.get().add(j * nr * kb + p * nr);
                            self.b.pack(to, nr, jc + j * nr, nr.min(nb - j * nr), pc + p, deep.min(end - p));
                        }
                    }
                }
            }
        });
    }

    /// Few columns: B is packed for all, then whoever computes a tile's rows of C packs the tile of A just before, into the nearest
    /// cache, and nobody else reads it.
    unsafe fn strips(&self, micro: &Micro<S>, parallel: bool, then: Option<&Finish>) {
        let (m, n, k) = (self.m, self.n, self.k);
        let Micro { mr, nr, run, .. } = *micro;
        let (kc, panels) = (depth(k), n.div_ceil(nr));
        let mut packed = Scratch::<S>::new(panels * nr * k);
        let bp = Ptr(packed.ptr());
        let c = Ptr(self.c);
        // The panels of one slice of K are behind those of the slices before.
        for pc in (0..k).step_by(kc) {
            let to = Ptr(bp.get().add(pc * panels * nr));
            self.pack_panels(nr, to, (0, n), (pc, kc.min(k - pc)), parallel && n * k >= 1 << 15);
        }
        let tiles = Tiles { rows: m, count: m.div_ceil(mr) };
        // As many groups of them for each thread.
        let of = Tiles { rows: tiles.count, count: (4 * pool::num_threads()).min(tiles.count) };
        split(parallel, of.count, 1, |group, end| {
            let (lo, (last, count)) = (of.at(group).0, of.at(end - 1));
            let hi = last + count;
            let mut packed = Scratch::<S>::new(mr * kc);
            let ap = packed.ptr();
            for pc in (0..k).step_by(kc) {
                let kb = kc.min(k - pc);
                for t in lo..hi {
                    let (i, rows) = tiles.at(t);
                    // SAFETY: `run`'s contract; tasks write disjoint rows of C.
                    unsafe {
                        self.a.pack(ap, mr, i, rows, pc, kb);
                        let b = bp.get().add(pc * panels * nr) as *const S;
                        for j in 0..panels {
                            let to = c.at(i as isize * self.ldc).add(j * nr);
                            let b = b.add(j * nr * kb);
                            let put = self.put(j * nr, pc, kb);
                            run(kb, ap, b, nr, to, self.ldc, rows, nr.min(n - j * nr), put, b.add(nr * kb));
                        }
                        if pc + kb == k {
                            self.finish(then, i, rows, 0, n);
                        }
                    }
                }
            }
        });
    }

    /// Many rows: a slab of B is packed for all, then whoever computes some rows of C packs their block of A, which stays in the
    /// second-level cache and which nobody else reads.
    unsafe fn slabs(&self, micro: &Micro<S>, parallel: bool, then: Option<&Finish>) {
        let (m, n, k) = (self.m, self.n, self.k);
        let Micro { mr, nr, run, .. } = *micro;
        let (kc, size) = (depth(k), std::mem::size_of::<S>());
        let nc = (PACKED / (kc * size) / nr).max(8) * nr;
        let mut packed = Scratch::<S>::new(kc * nc.min(n.div_ceil(nr) * nr));
        let bp = Ptr(packed.ptr());
        let c = Ptr(self.c);
        let tiles = Tiles { rows: m, count: m.div_ceil(mr) };
        // Few blocks are shared out evenly.
        let threads = if parallel { pool::num_threads() } else { 1 };
        let blocks = tiles.count.div_ceil(ROWS / mr);
        let blocks = if blocks < 8 * threads { blocks.next_multiple_of(threads).min(tiles.count) } else { blocks };
        let of = Tiles { rows: tiles.count, count: blocks };
        for jc in (0..n).step_by(nc) {
            let nb = nc.min(n - jc);
            let panels = nb.div_ceil(nr);
            for pc in (0..k).step_by(kc) {
                let kb = kc.min(k - pc);
                self.pack_panels(nr, bp, (jc, nb), (pc, kb), parallel);
                let (wide, deep) = if self.a.direct().is_some() { (8, 16) } else { (1, kb) };
                split(parallel, blocks, 1, |lo, hi| {
                    for block in lo..hi {
                        let (first, count) = of.at(block);
                        let mut packed = Scratch::<S>::new(count * mr * kb);
                        let ap = packed.ptr();
                        // SAFETY: `run`'s contract; tasks write disjoint rows of C.
                        unsafe {
                            for t0 in (0..count).step_by(wide) {
                                for p in (0..kb).step_by(deep) {
                                    for t in t0..(t0 + wide).min(count) {
                                        let (i, rows) = tiles.at(first + t);
                                        self.a.pack(ap.add((t * kb + p) * mr), mr, i, rows, pc + p, deep.min(kb - p));
                                    }
                                }
                            }
                            for j in 0..panels {
                                let columns = nr.min(nb - j * nr);
                                let b = bp.get().add(j * nr * kb);
                                let put = self.put(jc + j * nr, pc, kb);
                                for t in 0..count {
                                    let (i, rows) = tiles.at(first + t);
                                    let to = c.at(i as isize * self.ldc).add(jc + j * nr);
                                    // The next panel was perhaps packed by another thread.
                                    let next = b.add(if j + 1 < panels { nr * kb } else { 0 }) as *const S;
                                    let next = next.wrapping_byte_add(t.min(nr * size / STREAM - 1) * kb * STREAM);
                                    let a = ap.add(t * mr * kb);
                                    run(kb, a, b, nr, to, self.ldc, rows, columns, put, next);
                                }
                            }
                            if pc + kb == k {
                                let (i, (end, rows)) = (tiles.at(first).0, tiles.at(first + count - 1));
                                self.finish(then, i, end + rows - i, jc, nb);
                            }
                        }
                    }
                });
            }
        }
    }
}

/// Rows shared out evenly among tiles.
#[derive(Clone, Copy)]
pub(crate) struct Tiles {
    pub rows: usize,
    pub count: usize,
}
impl Tiles {
    /// The first row of a tile, and how many there are.
    #[inline(always)]
    pub(crate) fn at(self, tile: usize) -> (usize, usize) {
        let first = tile * self.rows / self.count;
        (first, (tile + 1) * self.rows / self.count - first)
    }
}

/// `f` over chunks of `0..n`, on the pool's threads or here.
#[inline]
pub(crate) fn split(parallel: bool, n: usize, grain: usize, f: impl Fn(usize, usize) + Sync) {
    if parallel && n > grain {
        pool::chunks(n, grain, f);
    } else {
        let grain = grain.max(1);
        let mut lo = 0;
        while lo < n {
            let hi = (lo + grain).min(n);
            f(lo, hi);
            lo = hi;
        }
    }
}

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
    // Small products go whole to threads, large ones are split themselves.
    if p.batches > 1 && (work < 1 << 22 || p.batches >= 32) {
        let parallel = work * p.batches >= SERIAL;
        let grain = ((1 << 18) / work).max(p.batches / (8 * pool::num_threads())).max(1);
        split(parallel, p.batches, grain, |lo, hi| (lo..hi).for_each(|i| one(i, hi, false)));
    } else {
        (0..p.batches).for_each(|i| one(i, 0, true));
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
    if own && (out.cs == 1 || n == 1) {
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
