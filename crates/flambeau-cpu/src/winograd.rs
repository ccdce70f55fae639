//! Convolutions of 3 × 3 windows with stride 1 by Winograd's minimal filtering: a tile of M × M results costs (M + 2)²
//! multiplications a channel instead of 9 M². Image, weight and result pass through small linear transforms, and between
//! them stand (M + 2)² independent matrix products over the channels.
//!
//! Winograd, "Arithmetic complexity of computations" (1980); Lavin and Gray, "Fast algorithms for convolutional neural
//! networks" (2016), whose notation F(m × m, r × r) and names of the matrices (Bᵀ, G, Aᵀ) are used here.

#![allow(clippy::needless_range_loop)] // Lanes are indices: several arrays move together.

use crate::conv_windows::Images;
use crate::element::{Ptr, Scratch};
use crate::gemm::split;
use crate::gemm_kernels::{Micro, Scalar};
use crate::isa::{dispatch, Isa, Kernel};
use crate::pool;
use crate::vector::{mask, Vector};

/// Results of a tile in each direction, and numbers of its transform: F(2 × 2, 3 × 3), whose transforms only add and halve, so
/// that the rounding error is that of the direct sum.
const M: usize = 2;
const SPAN: usize = M + 2;
const POINTS: usize = SPAN * SPAN;
/// The widest panel of any level.
const LANES: usize = 32;
/// Numbers between the matrices of two points in a buffer, beside what they hold (see `point_step`).
const CHUNK: usize = 16;

/// A vector of tiles for each place of a tile.
type Tile<V> = [[V; SPAN]; SPAN];
/// Bᵀ d B
#[inline(always)]
fn data<V: Vector>(d: &mut Tile<V>) {
    let step = |[a, b, c, e]: [V; SPAN]| [a.sub(c), b.add(c), c.sub(b), b.sub(e)];
    for s in 0..SPAN {
        [d[0][s], d[1][s], d[2][s], d[3][s]] = step([d[0][s], d[1][s], d[2][s], d[3][s]]);
    }
    for r in 0..SPAN {
        d[r] = step(d[r]);
    }
}
/// Aᵀ m A, in the places of the first M rows and columns.
#[inline(always)]
fn result<V: Vector>(m: &mut Tile<V>) {
    let step = |[a, b, c, e]: [V; SPAN]| (a.add(b).add(c), b.sub(c).sub(e));
    for s in 0..SPAN {
        (m[0][s], m[1][s]) = step([m[0][s], m[1][s], m[2][s], m[3][s]]);
    }
    for r in 0..M {
        (m[r][0], m[r][1]) = step(m[r]);
    }
}
/// A y Aᵀ of the first M rows and columns.
#[inline(always)]
fn gradient<V: Vector>(y: &mut Tile<V>) {
    let step = |a: V, b: V| (a.add(b), a.sub(b), V::zero().sub(b));
    for s in 0..M {
        (y[1][s], y[2][s], y[3][s]) = step(y[0][s], y[1][s]);
    }
    for r in 0..SPAN {
        (y[r][1], y[r][2], y[r][3]) = step(y[r][0], y[r][1]);
    }
}
/// G w
#[inline(always)]
fn filter<V: Vector>(w: [V; 3]) -> [V; SPAN] {
    let half = V::splat(0.5);
    let (even, odd) = (w[0].add(w[2]).mul(half), w[1].mul(half));
    [w[0], even.add(odd), even.sub(odd), w[2]]
}
/// G w Gᵀ of the windows that `tap(i, j)` reads. (Loops, because closures of arrays' methods are not inlined into code of a
/// level.)
#[inline(always)]
fn filters<V: Vector>(tap: impl Fn(isize, isize) -> V) -> Tile<V> {
    let mut u = [[V::zero(); SPAN]; SPAN];
    for j in 0..3 {
        let column = filter([tap(0, j as isize), tap(1, j as isize), tap(2, j as isize)]);
        for i in 0..SPAN {
            u[i][j] = column[i];
        }
    }
    for i in 0..SPAN {
        u[i] = filter([u[i][0], u[i][1], u[i][2]]);
    }
    u
}

/// Gᵀ u
#[inline(always)]
fn filter_gradient<V: Vector>(u: [V; SPAN]) -> [V; 3] {
    let half = V::splat(0.5);
    let (even, odd) = (u[1].add(u[2]).mul(half), u[1].sub(u[2]).mul(half));
    [u[0].add(even), odd, even.add(u[3])]
}

/// Numbers between the matrices of two points, which hold `n` rows of a panel: not a power of two, since a transform reads or
/// writes all points of a row, which would meet in one set of the cache.
fn point_step(n: usize, nr: usize) -> usize {
    n * nr + LANES
}

/// Where a weight of 3 × 3 windows lies: the element of result channel 0, image channel 0, tap (0, 0), and the distances to the
/// next of each (negative ones turn the window around).
#[derive(Clone, Copy)]
pub(crate) struct Weight {
    pub ptr: Ptr<f32>,
    pub row: isize,
    pub channel: isize,
    pub taps: [isize; 2],
}

impl Weight {
    /// Every window turned around.
    pub(crate) fn turned(self) -> Weight {
        let last = 2 * (self.taps[0] + self.taps[1]);
        Weight { ptr: Ptr(self.ptr.get().wrapping_offset(last)), taps: [-self.taps[0], -self.taps[1]], ..self }
    }
}
/// Images from channel `first` on, whose elements the caller knows to be f32.
pub(crate) fn group<E>(x: &Images<E>, first: usize) -> Images<f32> {
    Images {
        ptr: Ptr(x.ptr.get().wrapping_offset(first as isize * x.channel) as *mut f32),
        samples: x.samples,
        channels: x.channels - first,
        size: x.size,
        sample: x.sample,
        channel: x.channel,
        stride: x.stride,
    }
}
/// Whether this is faster than the direct sum: the products saved must pay for the transforms of every tile and of the
/// weights.
pub(crate) fn pays<E>(x: &Images<E>, y: &Images<E>, channels: usize, rows: usize) -> bool {
    let tiles = y.samples * y.size[1].div_ceil(M) * y.size[2].div_ceil(M);
    let plain = x.stride[2] == 1 && y.stride[2] == 1 && x.size[0] == 1 && y.size[0] == 1;
    // In units of a multiplication in a product: what a transformed number of the image, the result and the weight costs.
    let saved = tiles * channels * rows * (9 * M * M - POINTS);
    let spent = POINTS * (10 * tiles * (channels + rows) + 40 * channels * rows);
    plain && channels <= 1024 && y.size[2] >= 2 * M && saved > spent
}

/// One convolution: `y[n, o] = Σ_c window(x[n, c]) · w[o, c]`, images with `padding` zeros around them.
pub(crate) struct Winograd<'a> {
    pub x: &'a Images<f32>,
    pub y: &'a Images<f32>,
    /// Channels in use (of a group), from the images' own addresses on.
    pub channels: usize,
    pub rows: usize,
    pub weight: Weight,
    pub padding: [isize; 2],
    pub bias: Option<Ptr<f32>>,
}

/// Tiles that lie beside each other in one row of one sample: `len` of them, the first at lane `at`.
#[derive(Clone, Copy, Default)]
struct Run {
    at: usize,
    len: usize,
    sample: usize,
    /// Row and column of the first, in tiles.
    tile: [usize; 2],
}

/// The tiles of a panel of `nr` lanes, and how many runs they are.
fn runs(panel: usize, nr: usize, tiles: usize, [down, across]: [usize; 2]) -> ([Run; LANES], usize) {
    let mut runs = [Run::default(); LANES];
    let (mut count, mut at) = (0, 0);
    let lanes = nr.min(tiles - panel * nr);
    while at < lanes {
        let tile = panel * nr + at;
        let (sample, row, column) = (tile / (down * across), tile / across % down, tile % across);
        let len = (across - column).min(lanes - at);
        runs[count] = Run { at, len, sample, tile: [row, column] };
        count += 1;
        at += len;
    }
    (runs, count)
}

impl Winograd<'_> {
    pub(crate) fn run(&self) {
        let micro = f32::micro();
        let (c, o) = (self.channels, self.rows);
        let groups = o.div_ceil(micro.mr);
        let mut weights = Scratch::<f32>::new(POINTS * groups * micro.mr * c);
        let u = Ptr(weights.ptr());
        pool::chunks(groups, ((1 << 12) / (micro.mr * c)).max(1), |lo, hi| {
            for group in lo..hi {
                // SAFETY: the weight holds rows × channels windows; groups write disjoint panels.
                dispatch(Filters { of: self, to: u.get(), groups, group, mr: micro.mr });
            }
        });
        let (down, across) = (self.y.size[1].div_ceil(M), self.y.size[2].div_ceil(M));
        let tiles = self.y.samples * down * across;
        let panels = tiles.div_ceil(micro.nr);
        // A few panels together use a group of weights while it is near.
        let together = ((256 << 10) / ((c + o) * POINTS * micro.nr)).clamp(1, 4);
        // SAFETY: images and weights describe their memory; panels are disjoint tiles of the result.
        let task = |lo, hi, inside| unsafe {
            self.panels(&micro, u.get(), groups, lo, hi, tiles, [down, across], inside);
        };
        if panels.div_ceil(together) < 4 {
            split(false, panels, together, |lo, hi| task(lo, hi, true));
        } else {
            pool::chunks(panels, together, |lo, hi| task(lo, hi, false));
        }
    }

    /// Panels `lo..hi` of tiles, each step of them on the pool's threads when `parallel`.
    #[allow(clippy::too_many_arguments)]
    unsafe fn panels(
        &self,
        micro: &Micro<f32>,
        u: *const f32,
        groups: usize,
        lo: usize,
        hi: usize,
        tiles: usize,
        [down, across]: [usize; 2],
        parallel: bool,
    ) {
        let Micro { mr, nr, run, .. } = *micro;
        let (c, o, n) = (self.channels, self.rows, hi - lo);
        let (image, product) = (point_step(c, nr), point_step(o, nr));
        let (mut images, mut products) =
            (Scratch::<f32>::new(n * POINTS * image), Scratch::<f32>::new(n * POINTS * product));
        let (v, m, u) = (Ptr(images.ptr()), Ptr(products.ptr()), Ptr(u as *mut f32));
        // Channels of a panel in one task.
        let slice = if parallel { 64 } else { c.max(o) };
        let (slices, results) = (c.div_ceil(slice), o.div_ceil(slice));
        split(parallel, n * slices, 1, |unit, _| {
            let (p, first) = (unit / slices, unit % slices * slice);
            let (runs, count) = runs(lo + p, nr, tiles, [down, across]);
            let to = v.get().wrapping_add(p * POINTS * image);
            dispatch(Data { of: self, runs: &runs[..count], nr, to, channels: (first, c.min(first + slice)) });
        });
        split(parallel, POINTS, 1, |point, _| {
            for group in 0..groups {
                let rows = mr.min(o - group * mr);
                for p in 0..n {
                    // SAFETY: the panels hold every point; points are apart.
                    unsafe {
                        let a = u.get().add((point * groups + group) * c * mr);
                        let b = v.get().add((p * POINTS + point) * image);
                        let to = m.get().add((p * POINTS + point) * product + group * mr * nr);
                        run(c, a, b, nr, to, nr as isize, rows, nr, false.into(), a);
                    }
                }
            }
        });
        split(parallel, n * results, 1, |unit, _| {
            let (p, first) = (unit / results, unit % results * slice);
            let (runs, count) = runs(lo + p, nr, tiles, [down, across]);
            let from = m.get().wrapping_add(p * POINTS * product);
            dispatch(Results { of: self, runs: &runs[..count], nr, from, rows: (first, o.min(first + slice)) });
        });
    }
}

/// Transformed weights of a group of `mr` rows: `to[point][group][channel][row]`.
struct Filters<'a, 'b> {
    of: &'a Winograd<'b>,
    to: *mut f32,
    groups: usize,
    group: usize,
    mr: usize,
}
impl Kernel for Filters<'_, '_> {
    type Out = ();
    #[inline(always)]
    fn run<I: Isa>(self) {
        let Filters { of, to, groups, group, mr } = self;
        let (w, c, n) = (&of.weight, of.channels, I::F32::N);
        let first = group * mr;
        let rows = mr.min(of.rows - first);
        // Several channels at once, then channels beside rows.
        let blocks = if w.channel.unsigned_abs() * n < 1 << 31 { c / n } else { 0 };
        let step = mr * n + CHUNK;
        let mut room = Scratch::<f32>::new(POINTS * step);
        let buffer = room.ptr();
        for channel in (0..blocks * n).step_by(n) {
            for l in 0..rows {
                let at = (first + l) as isize * w.row + channel as isize * w.channel;
                // SAFETY: the weight holds rows × channels windows; the buffer has room for every point, row and channel of
                // the block.
                unsafe {
                    let u = filters(|i, j| I::F32::strided(w.ptr.at(at + i * w.taps[0] + j * w.taps[1]), w.channel));
                    for i in 0..SPAN {
                        for j in 0..SPAN {
                            u[i][j].store(buffer.add((i * SPAN + j) * step + l * n));
                        }
                    }
                }
            }
            for point in 0..POINTS {
                // SAFETY: `n` channels of `rows` numbers, from what has been written above; groups are apart.
                unsafe {
                    let dst = to.add(((point * groups + group) * c + channel) * mr);
                    f32::transpose(dst, mr, buffer.add(point * step), n as isize, rows, n);
                }
            }
        }
        for channel in blocks * n..c {
            for l in 0..rows {
                let at = (first + l) as isize * w.row + channel as isize * w.channel;
                let mut lanes = [0f32; LANES];
                // SAFETY: as above.
                unsafe {
                    let u = filters(|i, j| I::F32::splat(*w.ptr.at(at + i * w.taps[0] + j * w.taps[1])));
                    for i in 0..SPAN {
                        for j in 0..SPAN {
                            u[i][j].store(lanes.as_mut_ptr());
                            *to.add((((i * SPAN + j) * groups + group) * c + channel) * mr + l) = lanes[0];
                        }
                    }
                }
            }
        }
    }
}

/// Where the lanes of half a vector of tiles lie in a row of the images, two numbers a tile: at `from` the first two columns of
/// the windows, two numbers on the next two.
#[derive(Clone, Copy)]
struct Place {
    from: isize,
    masks: [u32; 2],
}
/// Where the windows of a panel's tiles lie, for each vector of tiles, row of the window, and half of the vector.
struct Places {
    list: Vec<Place>,
    ends: [[[u32; 2]; SPAN]; 2],
}
impl Places {
    /// Windows of S × S numbers, M apart, over images with `padding` zeros around them; two vectors of `n` tiles.
    fn new<const S: usize>(x: &Images<f32>, padding: [isize; 2], runs: &[Run], n: usize) -> Places {
        let (height, width) = (x.size[1] as isize, x.size[2] as isize);
        let mut list = Vec::with_capacity(4 * S + 2 * runs.len() * S);
        let mut ends = [[[0; 2]; SPAN]; 2];
        for (v, ends) in ends.iter_mut().enumerate() {
            for (r, ends) in ends[..S].iter_mut().enumerate() {
                for (half, end) in ends.iter_mut().enumerate() {
                    let lane = v * n + half * n / 2;
                    for run in runs {
                        let row = (run.tile[0] * M + r) as isize - padding[0];
                        if run.at >= lane + n / 2 || run.at + run.len <= lane || row < 0 || row >= height {
                            continue;
                        }
                        let away = run.at as isize - lane as isize;
                        let column = (run.tile[1] as isize - away) * M as isize - padding[1];
                        let (lo, hi) = (away * M as isize, (away + run.len as isize) * M as isize);
                        let mask = |column: isize| mask(lo.max(-column), hi.min(width - column), n);
                        list.push(Place {
                            from: run.sample as isize * x.sample + row * x.stride[1] + column,
                            masks: [mask(column), if S > M { mask(column + M as isize) } else { 0 }],
                        });
                    }
                    *end = list.len() as u32;
                }
            }
        }
        Places { list, ends }
    }
    /// The places of each row of a vector of tiles: `f(row, half, place)`.
    #[inline(always)]
    fn each(&self, v: usize, rows: usize, mut f: impl FnMut(usize, usize, &Place)) {
        let mut at = if v == 0 { 0 } else { self.ends[0][rows - 1][1] as usize };
        for r in 0..rows {
            for half in 0..2 {
                let end = self.ends[v][r][half] as usize;
                for place in &self.list[at..end] {
                    f(r, half, place);
                }
                at = end;
            }
        }
    }
    /// The first S rows and columns of the windows of one channel, whose image begins at `base`. Lanes of no tile are 0.
    ///
    /// # Safety
    /// The images are readable.
    #[inline(always)]
    unsafe fn load<const S: usize, V: Vector>(&self, base: *const f32, v: usize) -> Tile<V> {
        let mut d = [[V::zero(); SPAN]; SPAN];
        let mut at = if v == 0 { 0 } else { self.ends[0][S - 1][1] as usize };
        for r in 0..S {
            let mut pairs = [[V::zero(); 2]; 2];
            for half in 0..2 {
                let end = self.ends[v][r][half] as usize;
                for place in &self.list[at..end] {
                    let from = base.wrapping_offset(place.from);
                    pairs[0][half] = pairs[0][half].fill(from, place.masks[0]);
                    if S > M {
                        pairs[1][half] = pairs[1][half].fill(from.wrapping_add(M), place.masks[1]);
                    }
                }
                at = end;
            }
            for j in 0..S / M {
                (d[r][M * j], d[r][M * j + 1]) = pairs[j][0].split(pairs[j][1]);
            }
        }
        d
    }
}

/// Bᵀ d B of every channel's tiles: `to[point][channel][lane]`.
struct Data<'a, 'b> {
    of: &'a Winograd<'b>,
    runs: &'a [Run],
    nr: usize,
    to: *mut f32,
    channels: (usize, usize),
}
impl Kernel for Data<'_, '_> {
    type Out = ();
    #[inline(always)]
    fn run<I: Isa>(self) {
        let Data { of, runs, nr, to, channels } = self;
        let (x, c, n) = (of.x, of.channels, I::F32::N);
        let places = Places::new::<SPAN>(x, of.padding, runs, n);
        let step = point_step(c, nr);
        for channel in channels.0..channels.1 {
            for v in 0..2 {
                // SAFETY: the images describe their memory; the panel has room for every point, channel and lane.
                unsafe {
                    let mut d = places.load::<SPAN, I::F32>(x.ptr.at(channel as isize * x.channel), v);
                    data(&mut d);
                    let to = to.add(channel * nr + v * n);
                    for r in 0..SPAN {
                        for s in 0..SPAN {
                            d[r][s].store(to.add((r * SPAN + s) * step));
                        }
                    }
                }
            }
        }
    }
}

/// Aᵀ m A of every result channel, written to the images.
struct Results<'a, 'b> {
    of: &'a Winograd<'b>,
    runs: &'a [Run],
    nr: usize,
    from: *const f32,
    rows: (usize, usize),
}
impl Kernel for Results<'_, '_> {
    type Out = ();
    #[inline(always)]
    fn run<I: Isa>(self) {
        let Results { of, runs, nr, from, rows } = self;
        let (y, o, n) = (of.y, of.rows, I::F32::N);
        let places = Places::new::<M>(y, [0; 2], runs, n);
        let step = point_step(o, nr);
        for row in rows.0..rows.1 {
            // SAFETY: a bias has one value a row.
            let bias = I::F32::splat(of.bias.map_or(0.0, |b| unsafe { *b.get().add(row) }));
            for v in 0..2 {
                // SAFETY: the products hold every point, row and lane; the places are the result's.
                unsafe {
                    let from = from.add(row * nr + v * n);
                    let mut m = [[I::F32::zero(); SPAN]; SPAN];
                    for r in 0..SPAN {
                        for s in 0..SPAN {
                            m[r][s] = I::F32::load(from.add((r * SPAN + s) * step));
                        }
                    }
                    result(&mut m);
                    let to = y.ptr.at(row as isize * y.channel);
                    let (a, b) = (m[0][0].add(bias).join(m[0][1].add(bias)), m[1][0].add(bias).join(m[1][1].add(bias)));
                    places.each(v, M, |r, half, place| {
                        let (low, high) = if r == 0 { a } else { b };
                        let value = if half == 0 { low } else { high };
                        value.store_some(to.wrapping_offset(place.from), place.masks[0]);
                    });
                }
            }
        }
    }
}

/// The weight's gradient of a convolution: `gw[o, c] = Gᵀ (Σ_tiles (A g Aᵀ) ⊙ (Bᵀ x B)) G`, where `g` is the result's
/// gradient. The sums over tiles are (M + 2)² products, whose depth goes in pieces that the cache holds, one after another.
pub(crate) struct WinogradGrad<'a> {
    pub x: &'a Images<f32>,
    pub g: &'a Images<f32>,
    /// Channels in use (of a group), from the images' own addresses on.
    pub channels: usize,
    pub rows: usize,
    /// Where the gradient goes.
    pub weight: Weight,
    pub padding: [isize; 2],
}

/// Bytes of transformed numbers at once, and panels of tiles in such a piece.
const PIECE: usize = 8 << 20;
const DEEP: usize = 16;

impl WinogradGrad<'_> {
    pub(crate) fn run(&self) {
        let Micro { mr, nr, run, .. } = f32::micro();
        let (c, o) = (self.channels, self.rows);
        let (down, across) = (self.g.size[1].div_ceil(M), self.g.size[2].div_ceil(M));
        let tiles = self.g.samples * down * across;
        let panels = tiles.div_ceil(nr);
        let (wide, high) = (c.div_ceil(nr), o.div_ceil(mr));
        let per = (PIECE / (POINTS * nr * (wide * nr + high * mr) * 4)).clamp(1, DEEP);
        let mut images = Scratch::<f32>::new(POINTS * wide * per * nr * nr);
        let mut gradients = Scratch::<f32>::new(POINTS * high * per * nr * mr);
        let mut sums = Scratch::<f32>::new(POINTS * o * wide * nr);
        let (v, m, u) = (Ptr(images.ptr()), Ptr(gradients.ptr()), Ptr(sums.ptr()));
        for first in (0..panels).step_by(per) {
            let n = per.min(panels - first);
            let depth = n * nr;
            pool::chunks(n, 1, |lo, hi| {
                for p in lo..hi {
                    let (runs, count) = runs(first + p, nr, tiles, [down, across]);
                    let runs = &runs[..count];
                    let panel = |width| Panel { runs, nr, width, depth, at: p * nr };
                    let (x, g) = (self.x, self.g);
                    // SAFETY (of the writes inside): the panels have room for every point, and panels of tiles are apart.
                    dispatch(Transposed::<SPAN> {
                        of: x,
                        channels: c,
                        padding: self.padding,
                        panel: panel(nr),
                        to: v.get(),
                    });
                    dispatch(Transposed::<M> { of: g, channels: o, padding: [0; 2], panel: panel(mr), to: m.get() });
                }
            });
            pool::chunks(POINTS * high, (1 << 18) / (depth * mr * c) + 1, |lo, hi| {
                for unit in lo..hi {
                    let (point, group) = (unit / high, unit % high);
                    // SAFETY: both panels hold `depth` steps; units write disjoint rows of the sums.
                    unsafe {
                        let a = m.get().add(unit * depth * mr);
                        for side in 0..wide {
                            let b = v.get().add((point * wide + side) * depth * nr);
                            let to = u.get().add(((point * o + group * mr) * wide + side) * nr);
                            run(
                                depth,
                                a,
                                b,
                                nr,
                                to,
                                (wide * nr) as isize,
                                mr.min(o - group * mr),
                                nr,
                                (first > 0).into(),
                                a,
                            );
                        }
                    }
                }
            });
        }
        pool::chunks(o, ((1 << 10) / c).max(1), |lo, hi| {
            for row in lo..hi {
                dispatch(Windows { of: self, from: u.get(), row, line: wide * nr });
            }
        });
    }
}

/// Gᵀ u G of one row's channels, written to the weight: `from[point][row][channel]` with `line` numbers a row.
struct Windows<'a, 'b> {
    of: &'a WinogradGrad<'b>,
    from: *const f32,
    row: usize,
    line: usize,
}
impl Kernel for Windows<'_, '_> {
    type Out = ();
    #[inline(always)]
    fn run<I: Isa>(self) {
        let Windows { of, from, row, line } = self;
        let (w, c, n) = (&of.weight, of.channels, I::F32::N);
        let mut buffer = [0f32; 9 * LANES];
        let plain = w.channel == 9 && w.taps == [3, 1];
        for channel in (0..c).step_by(n) {
            let count = n.min(c - channel);
            // SAFETY: the sums have every point and row, and whole vectors of channels; the weight's windows are disjoint.
            unsafe {
                let mut half = [[I::F32::zero(); 3]; SPAN];
                for i in 0..SPAN {
                    let mut u = [I::F32::zero(); SPAN];
                    for j in 0..SPAN {
                        u[j] = I::F32::load(from.add(((i * SPAN + j) * of.rows + row) * line + channel));
                    }
                    half[i] = filter_gradient(u);
                }
                for j in 0..3 {
                    let column = filter_gradient([half[0][j], half[1][j], half[2][j], half[3][j]]);
                    for i in 0..3 {
                        column[i].store(buffer.as_mut_ptr().add((3 * i + j) * n));
                    }
                }
                let to = w.ptr.at(row as isize * w.row + channel as isize * w.channel);
                if plain {
                    f32::transpose(to, 9, buffer.as_ptr(), n as isize, 9, count);
                } else {
                    for l in 0..count {
                        for i in 0..3 {
                            for j in 0..3 {
                                let tap = i as isize * w.taps[0] + j as isize * w.taps[1];
                                *to.offset(l as isize * w.channel + tap) = buffer[(3 * i + j) * n + l];
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Where a panel of `nr` tiles goes: steps `at..at + nr` of `depth`, in panels `width` channels wide.
#[derive(Clone, Copy)]
struct Panel<'a> {
    runs: &'a [Run],
    nr: usize,
    width: usize,
    depth: usize,
    at: usize,
}
/// Transformed windows with channels side by side: `to[point][channel / width][tile][channel % width]`.
struct Transposed<'a, const S: usize> {
    of: &'a Images<f32>,
    channels: usize,
    padding: [isize; 2],
    panel: Panel<'a>,
    to: *mut f32,
}
impl<const S: usize> Kernel for Transposed<'_, S> {
    type Out = ();
    #[inline(always)]
    fn run<I: Isa>(self) {
        let Transposed { of, channels, padding, panel: Panel { runs, nr, width, depth, at }, to } = self;
        let n = I::F32::N;
        let places = Places::new::<S>(of, padding, runs, n);
        let step = width * nr + CHUNK;
        let mut room = Scratch::<f32>::new(POINTS * step);
        let buffer = room.ptr();
        let groups = channels.div_ceil(width);
        for group in 0..groups {
            let count = width.min(channels - group * width);
            for l in 0..count {
                for v in 0..2 {
                    // SAFETY: the images describe their memory; the buffer has room for every point, channel of the group
                    // and lane.
                    unsafe {
                        let mut d = places.load::<S, I::F32>(of.ptr.at((group * width + l) as isize * of.channel), v);
                        if S == SPAN {
                            data(&mut d);
                        } else {
                            gradient(&mut d);
                        }
                        let to = buffer.add(l * nr + v * n);
                        for r in 0..SPAN {
                            for s in 0..SPAN {
                                d[r][s].store(to.add((r * SPAN + s) * step));
                            }
                        }
                    }
                }
            }
            for point in 0..POINTS {
                // SAFETY: `nr` steps of a panel, `width` numbers each, from what has been written above.
                unsafe {
                    let dst = to.add(((point * groups + group) * depth + at) * width);
                    f32::transpose(dst, width, buffer.add(point * step), nr as isize, count, nr);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Case;
    use flambeau_core::DType;

    #[test]
    fn it_pays_where_products_are_large() {
        let images = |sizes: &[i64]| Images::<f32>::new(&Case::random(DType::F32, sizes, false, 1).operand());
        let pays = |sizes: &[i64], rows: i64| {
            let out = [sizes[0], rows, sizes[2], sizes[3]];
            pays(&images(sizes), &images(&out), sizes[1] as usize, rows as usize)
        };
        assert!(pays(&[4, 40, 10, 9], 40) && pays(&[8, 64, 56, 56], 64));
        assert!(!pays(&[8, 3, 56, 56], 64) && !pays(&[1, 64, 2, 2], 64) && !pays(&[1, 512, 4, 4], 512));
    }
}
