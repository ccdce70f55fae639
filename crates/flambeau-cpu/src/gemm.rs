//! Matrix products. Operands are packed into panels (which takes any stride, converts halves, and lets convolutions
//! read their windows in place), and tiles of C are computed in registers. Every element of C is summed over K in one
//! order that depends on K alone, so tiles may go to any number of threads.

use crate::element::{Element, Number, Ptr, Scratch};
use crate::finish::Finish;
use crate::gemm_kernels::{Micro, NearFn, Put, Scalar, STREAM};
use crate::isa::{dispatch, Isa, Kernel};
use crate::pool;
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
/// Numbers of C up to which slices of K are products of their own, and how many slices.
const SMALL: usize = 1 << 15;
const SLICES: usize = 64;
/// Rows or columns of such a C.
const WIDEST: usize = 1024;
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
        if parallel && (2..=SLICES).contains(&slices) && m * n <= SMALL && m.max(n) <= WIDEST && threads > 1 {
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
