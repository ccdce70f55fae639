//! Convolutions of 3 × 3 windows with stride 1 by Winograd's minimal filtering: a tile of M × M results costs (M + 2)²
//! multiplications a channel instead of 9 M². Image, weight and result pass through small linear transforms, and between
//! them stand (M + 2)² independent matrix products over the channels.
//!
//! Winograd, "Arithmetic complexity of computations" (1980); Lavin and Gray, "Fast algorithms for convolutional neural
//! networks" (2016), whose notation F(m × m, r × r) and names of the matrices (Bᵀ, G, Aᵀ) are used here.

#![allow(clippy::needless_range_loop)] // Lanes are indices: several arrays move together.

use crate::conv_windows::Images;
use crate::element::{Ptr, Scratch};
use crate::gemm_kernels::{Micro, Scalar};
use crate::isa::{dispatch, Isa, Kernel};
use crate::pool;

/// Results of a tile in each direction, and numbers of its transform: F(2 × 2, 3 × 3), whose transforms only add and halve, so
/// that the rounding error is that of the direct sum.
const M: usize = 2;
const SPAN: usize = M + 2;
const POINTS: usize = SPAN * SPAN;
/// The widest panel of any level, lanes that are moved at once, and room for such a chunk past the last lane.
const LANES: usize = 32;
const CHUNK: usize = 16;
const ROOM: usize = LANES + CHUNK;

/// A number of every lane for each place of a tile. Transforms work in place and lane by lane with all sizes constant: what
/// goes through iterators or closures here ends up in memory a vector at a time.
type Tile = [[[f32; ROOM]; SPAN]; SPAN];
/// Bᵀ d B
#[inline(always)]
fn data(d: &mut Tile) {
    for s in 0..SPAN {
        for l in 0..LANES {
            let (a, b, c, e) = (d[0][s][l], d[1][s][l], d[2][s][l], d[3][s][l]);
            (d[0][s][l], d[1][s][l], d[2][s][l], d[3][s][l]) = (a - c, b + c, c - b, b - e);
        }
    }
    for row in d {
        for l in 0..LANES {
            let (a, b, c, e) = (row[0][l], row[1][l], row[2][l], row[3][l]);
            (row[0][l], row[1][l], row[2][l], row[3][l]) = (a - c, b + c, c - b, b - e);
        }
    }
}
/// Aᵀ m A, in the places of the first M rows and columns.
#[inline(always)]
fn result(m: &mut Tile) {
    for s in 0..SPAN {
        for l in 0..LANES {
            let (a, b, c, e) = (m[0][s][l], m[1][s][l], m[2][s][l], m[3][s][l]);
            (m[0][s][l], m[1][s][l]) = (a + b + c, b - c - e);
        }
    }
    for row in &mut m[..M] {
        for l in 0..LANES {
            let (a, b, c, e) = (row[0][l], row[1][l], row[2][l], row[3][l]);
            (row[0][l], row[1][l]) = (a + b + c, b - c - e);
        }
    }
}
/// A y Aᵀ of the first M rows and columns.
#[inline(always)]
fn gradient(y: &mut Tile) {
    for s in 0..M {
        for l in 0..LANES {
            let (a, b) = (y[0][s][l], y[1][s][l]);
            (y[1][s][l], y[2][s][l], y[3][s][l]) = (a + b, a - b, -b);
        }
    }
    for row in y {
        for l in 0..LANES {
            let (a, b) = (row[0][l], row[1][l]);
            (row[1][l], row[2][l], row[3][l]) = (a + b, a - b, -b);
        }
    }
}
/// G w
#[inline(always)]
fn filter(w: [f32; 3]) -> [f32; SPAN] {
    let (even, odd) = (0.5 * (w[0] + w[2]), 0.5 * w[1]);
    [w[0], even + odd, even - odd, w[2]]
}

/// Gᵀ u
#[inline(always)]
fn filter_gradient(u: [f32; SPAN]) -> [f32; 3] {
    let (even, odd) = (0.5 * (u[1] + u[2]), 0.5 * (u[1] - u[2]));
    [u[0] + even, odd, even + u[3]]
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
    // In units of a multiplication in a product; a transformed number costs about 16.
    let saved = tiles * channels * rows * (9 * M * M - POINTS);
    let spent = 16 * POINTS * (tiles * (channels + rows) + channels * rows);
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
                unsafe { self.filters(u.get(), groups, group, micro.mr) };
            }
        });
        let (down, across) = (self.y.size[1].div_ceil(M), self.y.size[2].div_ceil(M));
        let tiles = self.y.samples * down * across;
        let panels = tiles.div_ceil(micro.nr);
        // A few panels together use a group of weights while it is near.
        let together = ((256 << 10) / ((c + o) * POINTS * micro.nr)).clamp(1, 4);
        pool::chunks(panels, together, |lo, hi| {
            // SAFETY: images and weights describe their memory; panels are disjoint tiles of the result.
            unsafe { self.panels(&micro, u.get(), groups, lo, hi, tiles, [down, across]) };
        });
    }

    /// Transformed weights of `mr` rows: `u[point][group][channel][row]`.
    unsafe fn filters(&self, u: *mut f32, groups: usize, group: usize, mr: usize) {
        let w = &self.weight;
        let c = self.channels;
        for l in 0..mr.min(self.rows - group * mr) {
            for channel in 0..c {
                let at = (group * mr + l) as isize * w.row + channel as isize * w.channel;
                let tap = |i: isize, j: isize| *w.ptr.at(at + i * w.taps[0] + j * w.taps[1]);
                // G w Gᵀ
                let half: [[f32; 3]; SPAN] = {
                    let columns: [[f32; SPAN]; 3] =
                        std::array::from_fn(|j| filter(std::array::from_fn(|i| tap(i as isize, j as isize))));
                    std::array::from_fn(|i| std::array::from_fn(|j| columns[j][i]))
                };
                for (i, row) in half.into_iter().enumerate() {
                    for (j, value) in filter(row).into_iter().enumerate() {
                        *u.add((((i * SPAN + j) * groups + group) * c + channel) * mr + l) = value;
                    }
                }
            }
        }
    }

    /// Panels `lo..hi` of tiles.
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
    ) {
        let Micro { mr, nr, run } = *micro;
        let (c, o, n) = (self.channels, self.rows, hi - lo);
        let (image, product) = (point_step(c, nr), point_step(o, nr));
        let (mut images, mut products) =
            (Scratch::<f32>::new(n * POINTS * image), Scratch::<f32>::new(n * POINTS * product));
        let (v, m) = (images.ptr(), products.ptr());
        for p in 0..n {
            let (runs, count) = runs(lo + p, nr, tiles, [down, across]);
            dispatch(Data { of: self, runs: &runs[..count], nr, to: v.add(p * POINTS * image) });
        }
        for point in 0..POINTS {
            for group in 0..groups {
                let a = u.add((point * groups + group) * c * mr);
                let rows = mr.min(o - group * mr);
                for p in 0..n {
                    let b = v.add((p * POINTS + point) * image);
                    let to = m.add((p * POINTS + point) * product + group * mr * nr);
                    run(c, a, b, nr, to, nr as isize, rows, nr, false);
                }
            }
        }
        for p in 0..n {
            let (runs, count) = runs(lo + p, nr, tiles, [down, across]);
            dispatch(Results { of: self, runs: &runs[..count], nr, from: m.add(p * POINTS * product) });
        }
    }
}

/// Windows of S × S numbers, M apart, of one channel: lane by lane in the first S rows and columns of `d`. Lanes of no tile
/// are 0.
#[inline(always)]
fn windows<const S: usize>(
    d: &mut Tile,
    x: &Images<f32>,
    channel: usize,
    padding: [isize; 2],
    runs: &[Run],
    line: &mut [f32; ROOM * M + SPAN],
) {
    let (height, width) = (x.size[1] as isize, x.size[2] as isize);
    for run in runs {
        let left = (run.tile[1] * M) as isize - padding[1];
        let wanted = (run.len * M + S - M) as isize;
        // What of the line lies in the image.
        let (lo, hi) = ((-left).clamp(0, wanted), (width - left).clamp(0, wanted));
        for (r, row) in d[..S].iter_mut().enumerate() {
            let i = (run.tile[0] * M + r) as isize - padding[0];
            if i < 0 || i >= height {
                for lanes in row[..S].iter_mut() {
                    lanes[run.at..run.at + run.len].fill(0.0);
                }
                continue;
            }
            // SAFETY: `lo..hi` of the line are in row `i` of the image.
            let from = unsafe {
                let at = run.sample as isize * x.sample + channel as isize * x.channel + i * x.stride[1];
                std::slice::from_raw_parts(x.ptr.at(at + left + lo), (hi - lo).max(0) as usize)
            };
            line[..lo as usize].fill(0.0);
            copy(from, &mut line[lo as usize..]);
            line[lo as usize + from.len()..wanted as usize].fill(0.0);
            for i in (0..run.len).step_by(CHUNK) {
                for half in 0..S / 2 {
                    let pairs: &[f32; CHUNK * 2] = line[i * M + 2 * half..].first_chunk().expect("room");
                    let (even, odd) = split(pairs);
                    row[2 * half][run.at + i..run.at + i + CHUNK].copy_from_slice(&even);
                    row[2 * half + 1][run.at + i..run.at + i + CHUNK].copy_from_slice(&odd);
                }
            }
        }
    }
    // Chunks reach past the last tile, with numbers of other places.
    let used = runs.last().map_or(0, |r| r.at + r.len);
    if used < LANES {
        for lanes in d[..S].iter_mut().flat_map(|row| &mut row[..S]) {
            lanes[used..LANES].fill(0.0);
        }
    }
}

/// Bᵀ d B of every channel's tiles: `to[point][channel][lane]`.
struct Data<'a, 'b> {
    of: &'a Winograd<'b>,
    runs: &'a [Run],
    nr: usize,
    to: *mut f32,
}
impl Kernel for Data<'_, '_> {
    type Out = ();
    #[inline(always)]
    fn run<I: Isa>(self) {
        let Data { of, runs, nr, to } = self;
        let (x, c) = (of.x, of.channels);
        let mut d: Tile = [[[0.0; ROOM]; SPAN]; SPAN];
        // Lanes of the last chunk read past the line's values.
        let mut line = [0f32; ROOM * M + SPAN];
        for channel in 0..c {
            windows::<SPAN>(&mut d, x, channel, of.padding, runs, &mut line);
            data(&mut d);
            for (point, lanes) in d.iter().flatten().enumerate() {
                // SAFETY: the panel has room for every point, channel and lane.
                copy(&lanes[..nr], unsafe {
                    std::slice::from_raw_parts_mut(to.add(point * point_step(c, nr) + channel * nr), nr)
                });
            }
        }
    }
}

/// Numbers at even and at odd places. (A pair as one integer, because that is what compiles to vectors.)
#[inline(always)]
fn split(pairs: &[f32; CHUNK * 2]) -> ([f32; CHUNK], [f32; CHUNK]) {
    let (mut even, mut odd) = ([0.0; CHUNK], [0.0; CHUNK]);
    for l in 0..CHUNK {
        // SAFETY: pair `l` lies in the array.
        let pair = u64::from_le(unsafe { (pairs.as_ptr() as *const u64).add(l).read_unaligned() });
        (even[l], odd[l]) = (f32::from_bits(pair as u32), f32::from_bits((pair >> 32) as u32));
    }
    (even, odd)
}
/// The reverse, with a number added to each.
#[inline(always)]
fn join(even: &[f32; CHUNK], odd: &[f32; CHUNK], bias: f32) -> [f32; CHUNK * 2] {
    let mut pairs = [0.0f32; CHUNK * 2];
    for l in 0..CHUNK {
        let pair = (even[l] + bias).to_bits() as u64 | ((odd[l] + bias).to_bits() as u64) << 32;
        // SAFETY: pair `l` lies in the array.
        unsafe { (pairs.as_mut_ptr() as *mut u64).add(l).write_unaligned(pair.to_le()) };
    }
    pairs
}

/// Copies to the front of `to`, without a call.
#[inline(always)]
fn copy(from: &[f32], to: &mut [f32]) {
    let to = &mut to[..from.len()];
    let (blocks, rest) = from.as_chunks::<8>();
    let (blocks_to, rest_to) = to.as_chunks_mut::<8>();
    for (b, a) in blocks_to.iter_mut().zip(blocks) {
        *b = *a;
    }
    for (b, a) in rest_to.iter_mut().zip(rest) {
        *b = *a;
    }
}

/// Aᵀ m A of every result channel, written to the images.
struct Results<'a, 'b> {
    of: &'a Winograd<'b>,
    runs: &'a [Run],
    nr: usize,
    from: *const f32,
}
impl Kernel for Results<'_, '_> {
    type Out = ();
    #[inline(always)]
    fn run<I: Isa>(self) {
        let Results { of, runs, nr, from } = self;
        let (y, o) = (of.y, of.rows);
        let mut m: Tile = [[[0.0; ROOM]; SPAN]; SPAN];
        let mut line = [0f32; ROOM * M];
        for row in 0..o {
            // SAFETY: a bias has one value a row.
            let bias = of.bias.map_or(0.0, |b| unsafe { *b.get().add(row) });
            for (point, lanes) in m.iter_mut().flatten().enumerate() {
                // SAFETY: the products hold every point, row and lane.
                copy(unsafe { std::slice::from_raw_parts(from.add(point * point_step(o, nr) + row * nr), nr) }, lanes);
            }
            result(&mut m);
            for run in runs {
                let left = run.tile[1] * M;
                let count = (run.len * M).min(y.size[2] - left);
                for (i, tile) in m[..M].iter().enumerate() {
                    let line_of = run.tile[0] * M + i;
                    if line_of >= y.size[1] {
                        break;
                    }
                    for k in (0..run.len).step_by(CHUNK) {
                        let both: &mut [f32; CHUNK * M] = line[k * M..].first_chunk_mut().expect("room");
                        let (a, b): (&[f32; CHUNK], &[f32; CHUNK]) = (
                            tile[0][run.at + k..].first_chunk().expect("room"),
                            tile[1][run.at + k..].first_chunk().expect("room"),
                        );
                        *both = join(a, b, bias);
                    }
                    // SAFETY: the row has `count` elements from `left` on.
                    let to =
                        unsafe { std::slice::from_raw_parts_mut(y.at(run.sample, row, [0, line_of, left]), count) };
                    copy(&line[..count], to);
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
        let Micro { mr, nr, run } = f32::micro();
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
                            run(depth, a, b, nr, to, (wide * nr) as isize, mr.min(o - group * mr), nr, first > 0);
                        }
                    }
                }
            });
        }
        pool::chunks(o, ((1 << 12) / c).max(1), |lo, hi| {
            for row in lo..hi {
                for channel in 0..c {
                    // SAFETY: the sums have every point, row and channel; the weight's windows are disjoint.
                    unsafe {
                        let at = |i: usize, j: usize| *u.get().add(((i * SPAN + j) * o + row) * wide * nr + channel);
                        let half: [[f32; 3]; SPAN] =
                            std::array::from_fn(|i| filter_gradient(std::array::from_fn(|j| at(i, j))));
                        let first = row as isize * self.weight.row + channel as isize * self.weight.channel;
                        for j in 0..3 {
                            let column = filter_gradient(std::array::from_fn(|i| half[i][j]));
                            for (i, value) in column.into_iter().enumerate() {
                                let tap = i as isize * self.weight.taps[0] + j as isize * self.weight.taps[1];
                                *self.weight.ptr.at(first + tap) = value;
                            }
                        }
                    }
                }
            }
        });
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
        let mut d: Tile = [[[0.0; ROOM]; SPAN]; SPAN];
        let mut line = [0f32; ROOM * M + SPAN];
        let step = width * nr + CHUNK;
        let mut room = Scratch::<f32>::new(POINTS * step);
        let buffer = room.ptr();
        let groups = channels.div_ceil(width);
        for group in 0..groups {
            let count = width.min(channels - group * width);
            for l in 0..count {
                windows::<S>(&mut d, of, group * width + l, padding, runs, &mut line);
                if S == SPAN {
                    data(&mut d);
                } else {
                    gradient(&mut d);
                }
                for (point, lanes) in d.iter().flatten().enumerate() {
                    // SAFETY: the buffer has room for every point, channel of the group and lane.
                    copy(&lanes[..nr], unsafe {
                        std::slice::from_raw_parts_mut(buffer.add(point * step + l * nr), nr)
                    });
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
        assert!(pays(&[2, 40, 10, 9], 40) && pays(&[8, 64, 56, 56], 64));
        assert!(!pays(&[8, 3, 56, 56], 64) && !pays(&[1, 64, 2, 2], 64) && !pays(&[1, 512, 4, 4], 512));
    }
}
