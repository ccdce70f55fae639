//! Convolutions of few channels: register tiles over a copied band of the image, in which the positions of every
//! tap lie beside each other, so that no windows are packed. Sums are those of the matrix product, in its order.

#![allow(clippy::needless_range_loop)] // Rows and vectors are indices: several arrays move together.

use crate::conv::Correlation;
use crate::conv_windows::Windows;
use crate::direct::{Band, LANES};
use crate::element::{Element, Ptr, Scratch};
use crate::gemm::{depth, same, SERIAL};
use crate::isa::{dispatch, Isa, Kernel};
use crate::pool;
use crate::vector::{mask, Vector};

/// Numbers of a band that pays: half of a second-level cache.
const MOST: usize = 1 << 15;

/// A correlation of float32 whose windows are read from bands.
pub(crate) struct Bands<'a, 'b, E: Element>(pub &'a Correlation<'b, E>);

impl<E: Element> Bands<'_, '_, E> {
    fn channels(&self) -> usize {
        self.0.windows.taps.len() / self.0.windows.cycle
    }
    /// Whether this is the way to compute it.
    pub(crate) fn pays(&self) -> bool {
        let windows = self.0.windows;
        same::<E, f32>()
            && crate::isa::level() > 1
            && windows.cycle > 1
            && windows.area() > 0
            && self.0.out_position[2] == 1
            && windows.extent[2] >= 16
            && Band::new(windows, self.channels()).len(self.channels()) <= MOST
    }

    pub(crate) fn run(&self) {
        let (windows, k) = (self.0.windows, self.0.weight_steps.len());
        let [e0, e1, e2] = windows.extent;
        let channels = self.channels();
        let band = Band::new(windows, channels);
        let offsets: Vec<usize> =
            windows.taps.iter().enumerate().map(|(i, t)| band.offset(i / windows.cycle, t.shift)).collect();
        // Rows of a tile: those for which fewest multiplications and loads of the image are left over.
        let sizes: &[usize] = if crate::isa::level() == 3 { &[8, 4] } else { &[6, 4] };
        let cost = |m: &&usize| self.0.rows.div_ceil(**m) * (**m + 2);
        let height = *sizes.iter().min_by_key(cost).expect("some size");
        let tiles = self.0.rows.div_ceil(height);
        let mut weights = Scratch::<f32>::new(tiles * height * k);
        for (i, w) in weights.slice().iter_mut().enumerate() {
            let (tile, step, row) = (i / (height * k), i / height % k, i % height);
            let at =
                (tile * height + row).min(self.0.rows - 1) as isize * self.0.weight_row + self.0.weight_steps[step];
            // SAFETY: the weight holds `k` steps a row, of float32.
            *w = unsafe { *(self.0.weight.at(at) as *const f32) };
        }
        let weights = Ptr(weights.ptr());
        let bands = e1.div_ceil(band.rows);
        let task = |i: usize| {
            let (first, slice, sample) = (i % bands * band.rows, i / bands % e0, i / (bands * e0));
            let mut copy = Scratch::<f32>::new(band.len(channels));
            let rows = band.rows.min(e1 - first);
            let copy = copy.ptr();
            dispatch(Fill { windows: self.0.windows, band, channels, at: (sample, slice, first), copy });
            let out = sample as isize * self.0.out_sample
                + slice as isize * self.0.out_position[0]
                + first as isize * self.0.out_position[1];
            let out = Ptr(self.0.out.get().wrapping_offset(out) as *mut f32);
            let bias = self.0.bias.map(|b| b.get() as *const f32);
            let deep = depth(k);
            for (tile, from) in (0..tiles).flat_map(|tile| (0..k).step_by(deep).map(move |from| (tile, from))) {
                let row = tile * height;
                let end = (from + deep).min(k);
                dispatch(Tile {
                    offsets: &offsets[from..end],
                    weights: weights.get().wrapping_add(row * k + from * height),
                    add: from > 0,
                    height,
                    rows: height.min(self.0.rows - row),
                    image: copy,
                    width: band.width,
                    lines: rows,
                    columns: e2,
                    to: out.get().wrapping_offset(row as isize * self.0.out_row),
                    to_row: self.0.out_row,
                    to_line: self.0.out_position[1],
                    bias: bias.filter(|_| end == k).map_or(std::ptr::null(), |b| b.wrapping_add(row)),
                });
            }
        };
        let tasks = windows.samples * e0 * bands;
        if windows.samples * windows.area() * self.0.rows * k < SERIAL {
            (0..tasks).for_each(task);
        } else {
            pool::parallel(tasks, task);
        }
    }
}

/// Copies a band of a sample and slice.
struct Fill<'a, 'b, E> {
    windows: &'a Windows<'b, E>,
    band: Band,
    channels: usize,
    at: (usize, usize, usize),
    copy: *mut f32,
}
impl<E: Element> Kernel for Fill<'_, '_, E> {
    type Out = ();
    #[inline(always)]
    fn run<I: Isa>(self) {
        let (sample, slice, first) = self.at;
        let windows = self.windows;
        // SAFETY: the operand describes its memory, whose elements are float32; the copy holds a band.
        unsafe {
            let image = windows.image.at(sample as isize * windows.sample);
            self.band.fill::<I, E>(windows, image, self.channels, (slice, first), self.copy as *mut E::Acc);
        }
    }
}

/// Some rows of results over a band.
struct Tile<'a> {
    offsets: &'a [usize],
    /// `height` numbers a step.
    weights: *const f32,
    height: usize,
    rows: usize,
    /// Whether results hold the sums over steps before these.
    add: bool,
    image: *const f32,
    /// The band's numbers a line, lines of results, and results in each.
    width: usize,
    lines: usize,
    columns: usize,
    to: *mut f32,
    to_row: isize,
    to_line: isize,
    bias: *const f32,
}
/// Where a vector of positions is read from and goes to, and its lanes.
type Place = (*const f32, *mut f32, u32);
impl Tile<'_> {
    /// The sums of `M` rows at `V` places.
    #[inline(always)]
    unsafe fn sums<I: Isa, const M: usize, const V: usize>(&self, places: [Place; V]) {
        // The results are written when the sums are there: their lines come near meanwhile.
        for r in 0..M.min(self.rows) {
            for (_, to, _) in places {
                crate::isa::prefetch(to.wrapping_offset(r as isize * self.to_row) as *const u8);
            }
        }
        let mut acc = [[I::F32::zero(); V]; M];
        let mut w = self.weights;
        for &at in self.offsets {
            let x: [I::F32; V] = std::array::from_fn(|v| I::F32::load(places[v].0.add(at)));
            for m in 0..M {
                let w = I::F32::splat(*w.add(m));
                for v in 0..V {
                    acc[m][v] = w.mul_add(x[v], acc[m][v]);
                }
            }
            w = w.add(M);
        }
        let whole = u32::MAX >> (32 - I::F32::N);
        for (m, acc) in acc.iter().enumerate() {
            if m >= self.rows {
                break;
            }
            let bias = if self.bias.is_null() { None } else { Some(I::F32::splat(*self.bias.add(m))) };
            for v in 0..V {
                let (_, to, lanes) = places[v];
                let to = to.offset(m as isize * self.to_row);
                let sum = match (self.add, lanes == whole) {
                    (false, _) => acc[v],
                    (true, true) => acc[v].add(I::F32::load(to)),
                    (true, false) => acc[v].add(I::F32::zero().fill(to, lanes)),
                };
                let sum = if let Some(bias) = bias { sum.add(bias) } else { sum };
                if lanes == whole {
                    sum.store(to);
                } else {
                    sum.store_some(to, lanes);
                }
            }
        }
    }
    #[inline(always)]
    unsafe fn all<I: Isa, const M: usize, const V: usize>(&self) {
        let n = I::F32::N;
        let vectors = self.columns.div_ceil(n);
        let count = self.lines * vectors;
        let place = |i: usize| -> Place {
            let (line, column) = (i / vectors, i % vectors * n);
            let from = self.image.add(line * self.width + column);
            let to = self.to.offset(line as isize * self.to_line).add(column);
            (from, to, mask(0, (self.columns - column) as isize, n))
        };
        // Several at a time, which may lie in different lines.
        let whole = count / V * V;
        for i in (0..whole).step_by(V) {
            self.sums::<I, M, V>(std::array::from_fn(|v| place(i + v)));
        }
        let two = if V == 3 && count - whole == 2 { 2 } else { 0 };
        if two == 2 {
            self.sums::<I, M, 2>([place(whole), place(whole + 1)]);
        }
        for i in whole + two..count {
            self.sums::<I, M, 1>([place(i)]);
        }
    }
}
impl Kernel for Tile<'_> {
    type Out = ();
    #[inline(always)]
    fn run<I: Isa>(self) {
        const { assert!(LANES >= 16) };
        // SAFETY: whoever makes a tile answers for its memory; the band has numbers to read behind its last result.
        unsafe {
            match self.height {
                8 if I::F32::N == 16 => self.all::<I, 8, 3>(),
                6 if I::F32::N == 8 => self.all::<I, 6, 2>(),
                _ => self.all::<I, 4, 2>(),
            }
        }
    }
}
