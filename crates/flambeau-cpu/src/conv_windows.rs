//! How convolutions read images: windows as the panels of a matrix product.

use crate::element::{Element, Ptr, Scratch};
use crate::gemm::{same, Panels};
use crate::gemm_kernels::Scalar;
use crate::isa::{dispatch, Isa, Kernel};
use crate::vector::{mask, Vector};
use flambeau_core::Operand;
use std::sync::atomic::{AtomicU64, Ordering};

/// A tensor (n, c, spatial…) with three spatial dimensions, the missing ones of size 1 in front.
pub(crate) struct Images<E> {
    pub ptr: Ptr<E>,
    pub samples: usize,
    pub channels: usize,
    pub size: [usize; 3],
    /// Elements between samples, channels, and positions.
    pub sample: isize,
    pub channel: isize,
    pub stride: [isize; 3],
}

impl<E> Images<E> {
    pub(crate) fn new(x: &Operand) -> Self {
        let r = x.sizes.len();
        let (mut size, mut stride) = ([1; 3], [0; 3]);
        for d in 2..r {
            size[d + 3 - r] = x.sizes[d] as usize;
            stride[d + 3 - r] = x.strides[d] as isize;
        }
        Images {
            ptr: Ptr(x.ptr as *mut E),
            samples: x.sizes[0] as usize,
            channels: x.sizes[1] as usize,
            size,
            sample: x.strides[0] as isize,
            channel: x.strides[1] as isize,
            stride,
        }
    }
    pub(crate) fn area(&self) -> usize {
        self.size.iter().product()
    }
    /// Address of one element.
    ///
    /// # Safety
    /// The indices lie within the sizes.
    pub(crate) unsafe fn at(&self, n: usize, c: usize, v: [usize; 3]) -> *mut E {
        let spatial: isize = (0..3).map(|d| v[d] as isize * self.stride[d]).sum();
        self.ptr.at(n as isize * self.sample + c as isize * self.channel + spatial)
    }
}

/// One step of K: a channel (as an offset) and where its window reads, relative to a position's start.
#[derive(Clone, Copy)]
pub(crate) struct Tap {
    pub offset: isize,
    pub shift: [isize; 3],
}

/// A matrix whose lanes are positions (of all samples, row-major) and whose steps are taps: the value is the image at
/// `position · step + shift`, 0 outside.
#[derive(Clone, Copy)]
pub(crate) struct Windows<'a, E> {
    pub image: Ptr<E>,
    pub samples: usize,
    pub sample: isize,
    /// Elements between channels.
    pub channel: isize,
    /// The image's size and strides.
    pub size: [usize; 3],
    pub stride: [isize; 3],
    /// Positions in each dimension, and image elements between them.
    pub extent: [usize; 3],
    pub step: [usize; 3],
    pub taps: &'a [Tap],
    /// Taps of one channel, when the taps are those of the channels one after another; else 0.
    pub cycle: usize,
    /// Names the geometry and the taps (see `name`): windows of one name differ in their images' addresses alone.
    pub name: u64,
    /// The position that lane 0 is.
    pub first: usize,
    /// One tap that reads every position once, without padding.
    pub plain: bool,
}

impl<'a, E> Windows<'a, E> {
    pub(crate) fn area(&self) -> usize {
        self.extent.iter().product()
    }
    /// The same windows from another position on.
    pub(crate) fn from(&self, first: usize) -> Windows<'a, E> {
        Windows { first, ..*self }
    }
    /// Calls `f(index of the first, length, sample, position)` for the runs along the last dimension that make up the
    /// positions `lo..hi`.
    #[inline(always)]
    pub(crate) fn segments(&self, lo: usize, hi: usize, mut f: impl FnMut(usize, usize, usize, [usize; 3])) {
        let [_, e1, e2] = self.extent;
        let area = self.area();
        let mut i = lo;
        while i < hi {
            let (s, p) = (i / area, i % area);
            let t = [p / (e1 * e2), p / e2 % e1, p % e2];
            let len = (e2 - t[2]).min(hi - i);
            f(i - lo, len, s, t);
            i += len;
        }
    }
}

/// A run of positions in one row of one sample.
#[derive(Clone, Copy, Default)]
struct Run {
    at: usize,
    len: usize,
    sample: usize,
    t: [usize; 3],
}

impl<E: Element> Windows<'_, E> {
    /// The values of one tap at consecutive positions.
    #[inline(always)]
    unsafe fn fill(&self, dst: *mut E::Acc, tap: &Tap, runs: &[Run]) {
        for run in runs {
            let d = std::slice::from_raw_parts_mut(dst.add(run.at), run.len);
            let y = (run.t[0] * self.step[0]) as isize + tap.shift[0];
            let z = (run.t[1] * self.step[1]) as isize + tap.shift[1];
            if y as usize >= self.size[0] || z as usize >= self.size[1] {
                d.fill(E::Acc::default());
                continue;
            }
            let step = self.step[2] as isize;
            let start = run.t[2] as isize * step + tap.shift[2];
            let width = self.size[2] as isize;
            // Positions lo..hi of the run lie in the row.
            let (lo, hi) = if step == 1 {
                ((-start).max(0), (width - start).min(run.len as isize))
            } else {
                (((step - 1 - start) / step).max(0), ((width - start + step - 1) / step).min(run.len as isize))
            };
            let (lo, hi) = (lo.min(run.len as isize) as usize, hi.max(lo.min(run.len as isize)) as usize);
            // Runs are short: plain loops, not calls.
            for v in &mut d[..lo] {
                *v = E::Acc::default();
            }
            for v in &mut d[hi..] {
                *v = E::Acc::default();
            }
            let row = run.sample as isize * self.sample + tap.offset + y * self.stride[0] + z * self.stride[1];
            let by = step * self.stride[2];
            let src = self.image.at(row + start * self.stride[2]) as *const E;
            if by == 1 && hi - lo >= 8 {
                // Eight at a time, the last eight overlapping those before.
                let mut i = lo;
                loop {
                    let from = &*(src.add(i) as *const [E; 8]);
                    let to = &mut *(d.as_mut_ptr().add(i) as *mut [E::Acc; 8]);
                    for l in 0..8 {
                        to[l] = from[l].load();
                    }
                    if i + 8 >= hi {
                        break;
                    }
                    i = (i + 8).min(hi - 8);
                }
            } else if by == 2 && hi - lo >= 8 {
                // The same where every second element is read.
                let mut i = lo;
                loop {
                    let from = &*(src.add(2 * i) as *const [E; 15]);
                    let to = &mut *(d.as_mut_ptr().add(i) as *mut [E::Acc; 8]);
                    for l in 0..8 {
                        to[l] = from[2 * l].load();
                    }
                    if i + 8 >= hi {
                        break;
                    }
                    i = (i + 8).min(hi - 8);
                }
            } else {
                for i in lo..hi {
                    *d.get_unchecked_mut(i) = (*src.offset(i as isize * by)).load();
                }
            }
        }
    }

    /// The runs of positions `lo..hi`, at most 64 of them at a time in `runs`.
    fn runs(&self, lo: usize, hi: usize, runs: &mut Vec<Run>) {
        runs.clear();
        self.segments(lo, hi, |at, len, sample, t| runs.push(Run { at, len, sample, t }));
    }
}

thread_local! { static RUNS: std::cell::RefCell<Vec<Run>> = const { std::cell::RefCell::new(Vec::new()) }; }

struct PackWindows<'a, 'b, E: Element> {
    windows: &'a Windows<'b, E>,
    dst: *mut E::Acc,
    width: usize,
    taps: &'a [Tap],
    runs: &'a [Run],
}
impl<E: Element> Kernel for PackWindows<'_, '_, E> {
    type Out = ();
    #[inline(always)]
    fn run<I: Isa>(self) {
        for (p, tap) in self.taps.iter().enumerate() {
            // SAFETY: `Panels::pack`'s contract.
            unsafe { self.windows.fill(self.dst.add(p * self.width), tap, self.runs) };
        }
    }
}

/// A name for windows that has not been given before.
pub(crate) fn name() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Where the lanes of vectors of positions lie in a channel, for every tap of one: the same for all channels, and for all
/// positions whose rows lie to each other in the same way, from the place of the first row on.
#[derive(Default)]
struct Places {
    /// What this has been made from.
    key: Vec<isize>,
    /// Offsets at which lane 0 of a vector would lie, and lanes that lie so.
    list: Vec<(isize, u32)>,
    /// Where the list ends for each tap and vector.
    ends: Vec<u32>,
}

/// Places made lately.
const LATELY: usize = 8;

thread_local! {
    static PLACES: std::cell::RefCell<[Places; LATELY]> = std::cell::RefCell::default();
    static KEY: std::cell::RefCell<Vec<isize>> = const { std::cell::RefCell::new(Vec::new()) };
}

impl Places {
    /// Vectors of `n` numbers for the `lanes` positions of the runs, from `start` on.
    fn make<E>(&mut self, windows: &Windows<'_, E>, lanes: usize, n: usize, runs: &[Run], start: isize) {
        self.list.clear();
        self.ends.clear();
        let step = windows.step[2];
        // Vectors of memory that the lanes span.
        let vectors = lanes.div_ceil(n) * step;
        for tap in &windows.taps[..windows.cycle] {
            let mut next = 0;
            for v in 0..vectors {
                let (first, last) = (v * n, (v + 1) * n);
                let before = self.list.len();
                while next < runs.len() && (runs[next].at + runs[next].len) * step <= first {
                    next += 1;
                }
                for run in &runs[next..] {
                    if run.at * step >= last {
                        break;
                    }
                    let y = (run.t[0] * windows.step[0]) as isize + tap.shift[0];
                    let z = (run.t[1] * windows.step[1]) as isize + tap.shift[1];
                    if y as usize >= windows.size[0] || z as usize >= windows.size[1] {
                        continue;
                    }
                    let away = (run.at * step) as isize - first as isize;
                    let column = (run.t[2] * step) as isize + tap.shift[2] - away;
                    let (lo, hi) = (away, away + (run.len * step) as isize);
                    let mask = mask(lo.max(-column), hi.min(windows.size[2] as isize - column), n);
                    if mask != 0 {
                        let row = run.sample as isize * windows.sample + y * windows.stride[0] + z * windows.stride[1];
                        self.list.push((row + column - start, mask));
                    }
                }
                // One place at least, so that vectors of one place each can be read without looking at the ends.
                if self.list.len() == before {
                    self.list.push((0, 0));
                }
                self.ends.push(self.list.len() as u32);
            }
        }
    }
}

impl<E: Element> Windows<'_, E> {
    /// Whether positions beside each other can be read as vectors.
    fn has_places(&self) -> bool {
        same::<E, f32>() && self.cycle > 0 && self.stride[2] == 1 && self.step[2] <= 2
    }
    /// Calls `f` with the places of `lanes` positions from `lo` on, and what to add to their offsets. Positions that are
    /// `used_again`, with other taps, are looked up by themselves, others by how their rows lie.
    fn with_places(&self, lo: usize, lanes: usize, n: usize, used_again: bool, f: impl FnOnce(&Places, isize)) {
        if used_again {
            let key = [self.name as isize, lanes as isize, n as isize, lo as isize];
            return PLACES.with_borrow_mut(|all| {
                let places = &mut all[(lo / lanes.max(1) + self.name as usize % 2 * (LATELY / 2)) % LATELY];
                if places.key != key {
                    RUNS.with_borrow_mut(|runs| {
                        self.runs(lo, lo + lanes, runs);
                        places.make(self, lanes, n, runs, 0);
                    });
                    places.key.clear();
                    places.key.extend(key);
                }
                f(places, 0);
            });
        }
        RUNS.with_borrow_mut(|runs| {
            self.runs(lo, lo + lanes, runs);
            let row = |run: &Run| {
                run.sample as isize * self.sample
                    + (run.t[0] * self.step[0]) as isize * self.stride[0]
                    + (run.t[1] * self.step[1]) as isize * self.stride[1]
            };
            let start = runs.first().map_or(0, row);
            let shifts = &self.taps[..self.cycle];
            KEY.with_borrow_mut(|key| {
                key.clear();
                key.extend([self.name as isize, lanes as isize, n as isize]);
                for run in runs.iter() {
                    key.extend([run.len as isize, run.t[2] as isize, row(run) - start]);
                    // Rows that no tap takes beyond the image are alike.
                    for d in 0..2 {
                        let at = (run.t[d] * self.step[d]) as isize;
                        let (first, last) = (shifts[0].shift[d], shifts[self.cycle - 1].shift[d]);
                        let inside = at + first.min(last) >= 0 && at + first.max(last) < self.size[d] as isize;
                        key.push(if inside { -1 } else { run.t[d] as isize });
                    }
                }
                PLACES.with_borrow_mut(|all| {
                    let places = &mut all[runs.first().map_or(0, |run| run.t[2]) / 16 % LATELY];
                    if places.key != *key {
                        places.make(self, lanes, n, runs, start);
                        std::mem::swap(&mut places.key, key);
                    }
                    f(places, start);
                });
            });
        });
    }
    /// Writes `dst[p · width + l]` for the taps `k + p` at the positions `lo + l`.
    ///
    /// # Safety
    /// As `Panels::pack`.
    #[allow(clippy::too_many_arguments)]
    unsafe fn pack(
        &self,
        dst: *mut E::Acc,
        width: usize,
        lo: usize,
        lanes: usize,
        k: usize,
        kb: usize,
        used_again: bool,
    ) {
        if self.has_places() {
            return dispatch(PackPlaces { windows: self, dst: dst as *mut f32, width, lo, lanes, k, kb, used_again });
        }
        RUNS.with_borrow_mut(|runs| {
            self.runs(lo, lo + lanes, runs);
            dispatch(PackWindows { windows: self, dst, width, taps: &self.taps[k..k + kb], runs });
        });
    }
}

struct PackPlaces<'a, 'b, E> {
    windows: &'a Windows<'b, E>,
    dst: *mut f32,
    width: usize,
    lo: usize,
    lanes: usize,
    k: usize,
    kb: usize,
    used_again: bool,
}
impl<E: Element> Kernel for PackPlaces<'_, '_, E> {
    type Out = ();
    #[inline(always)]
    fn run<I: Isa>(self) {
        let PackPlaces { windows, dst, width, lo, lanes, k, kb, used_again } = self;
        let n = I::F32::N;
        windows.with_places(lo, lanes, n, used_again, |places, start| {
            let vectors = lanes.div_ceil(n);
            if windows.step[2] == 2 {
                dispatch(PackFrom::<E, 2> { places, start, windows, dst, width, vectors, k, kb });
            } else {
                dispatch(PackFrom::<E, 1> { places, start, windows, dst, width, vectors, k, kb });
            }
        });
    }
}
/// `STEP` is the distance of positions in a row.
struct PackFrom<'a, 'b, E, const STEP: usize> {
    places: &'a Places,
    start: isize,
    windows: &'a Windows<'b, E>,
    dst: *mut f32,
    width: usize,
    vectors: usize,
    k: usize,
    kb: usize,
}
impl<E: Element, const STEP: usize> Kernel for PackFrom<'_, '_, E, STEP> {
    type Out = ();
    #[inline(always)]
    fn run<I: Isa>(self) {
        let PackFrom { places, start, windows, dst, width, vectors, k, kb } = self;
        let (n, cycle) = (I::F32::N, windows.cycle);
        let mut tap = k % cycle;
        let list = places.list.as_ptr();
        let single = places.list.len() == places.ends.len();
        for (p, of) in windows.taps[k..k + kb].iter().enumerate() {
            let base = windows.image.get().wrapping_offset(of.offset + start) as *const f32;
            let first = tap * vectors * STEP;
            if single && width == vectors * n {
                for v in 0..vectors {
                    // SAFETY: as below; every vector has one place.
                    unsafe {
                        let part = |half: usize| {
                            let (from, mask) = *list.add(first + v * STEP + half);
                            I::F32::zero().fill(base.wrapping_offset(from), mask)
                        };
                        let value = if STEP == 2 { part(0).split(part(1)).0 } else { part(0) };
                        value.store(dst.add(p * width + v * n));
                    }
                }
                tap = if tap + 1 == cycle { 0 } else { tap + 1 };
                continue;
            }
            let mut at = if tap == 0 { 0 } else { places.ends[first - 1] as usize };
            let ends = &places.ends[first..first + vectors * STEP];
            for v in 0..vectors {
                // SAFETY: the ends lie in the list, and its places in the image; `Panels::pack`'s contract.
                unsafe {
                    let (mut low, mut high) = (I::F32::zero(), I::F32::zero());
                    let end = *ends.get_unchecked(v * STEP) as usize;
                    while at < end {
                        let (from, mask) = *list.add(at);
                        low = low.fill(base.wrapping_offset(from), mask);
                        at += 1;
                    }
                    if STEP == 2 {
                        let end = *ends.get_unchecked(v * STEP + 1) as usize;
                        while at < end {
                            let (from, mask) = *list.add(at);
                            high = high.fill(base.wrapping_offset(from), mask);
                            at += 1;
                        }
                        low = low.split(high).0;
                    }
                    let to = dst.add(p * width + v * n);
                    if (v + 1) * n <= width {
                        low.store(to);
                    } else {
                        low.store_some(to, mask(0, (width - v * n) as isize, n));
                    }
                }
            }
            tap = if tap + 1 == cycle { 0 } else { tap + 1 };
        }
    }
}

impl<S: Scalar, E: Element<Acc = S>> Panels<S> for Windows<'_, E> {
    unsafe fn pack(&self, dst: *mut S, width: usize, lane: usize, lanes: usize, k: usize, kb: usize) {
        self.pack(dst, width, self.first + lane, lanes, k, kb, false);
    }
}

/// The same matrix with taps as lanes and positions as steps.
#[derive(Clone, Copy)]
pub(crate) struct Transposed<'a, E>(pub Windows<'a, E>);

impl<S: Scalar, E: Element<Acc = S>> Panels<S> for Transposed<'_, E> {
    unsafe fn pack(&self, dst: *mut S, width: usize, lane: usize, lanes: usize, k: usize, kb: usize) {
        const BLOCK: usize = 128;
        // Rows a little apart, since those of a power of two meet in the same sets of the cache.
        const ROW: usize = BLOCK + 16;
        let mut rows = Scratch::<S>::new(lanes * ROW);
        let buffer = rows.ptr();
        for p in (0..kb).step_by(BLOCK) {
            let n = BLOCK.min(kb - p);
            self.0.pack(buffer, ROW, self.0.first + k + p, n, lane, lanes, true);
            S::transpose(dst.add(p * width), width, buffer, ROW as isize, lanes, n);
        }
    }
}

/// A matrix whose steps lie at any offsets.
pub(crate) struct Rows<'a, E> {
    pub ptr: Ptr<E>,
    pub lane: isize,
    pub steps: &'a [isize],
}

impl<S: Scalar, E: Element<Acc = S>> Panels<S> for Rows<'_, E> {
    unsafe fn pack(&self, dst: *mut S, width: usize, lane: usize, lanes: usize, k: usize, kb: usize) {
        let src = self.ptr.at(lane as isize * self.lane);
        let steps = &self.steps[k..k + kb];
        let mut next = 0;
        while next < kb {
            let (p, at) = (next, steps[next]);
            next += 1;
            // Steps beside each other are a small matrix to transpose.
            while same::<E, S>() && next < kb && steps[next] - at == (next - p) as isize {
                next += 1;
            }
            if next - p >= 8 {
                S::transpose(dst.add(p * width), width, src.offset(at) as *const S, self.lane, lanes, next - p);
                continue;
            }
            next = p + 1;
            for l in 0..lanes {
                *dst.add(p * width + l) = (*src.offset(l as isize * self.lane + at)).load();
            }
        }
    }
}
