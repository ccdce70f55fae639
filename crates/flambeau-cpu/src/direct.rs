//! Convolutions with few weights a result, such as depthwise ones: the taps are summed in registers, without a matrix
//! product. Lanes are positions of a copy of the image with its zeros around it, or channels where these lie together.

#![allow(clippy::needless_range_loop)] // Lanes are indices: several arrays move together.

use crate::conv_windows::{Images, Windows};
use crate::element::{Element, Float, Number, Ptr, Scratch};
use crate::gemm::same;
use crate::isa::{dispatch, Isa, Kernel};
use crate::pool;
use crate::vector::{mask, Vector};

/// Results that are summed at once.
pub(crate) const LANES: usize = 32;
/// Numbers of a copied band, which stays in the first cache beside its results.
const BAND: usize = 6 << 10;
/// Multiplications of a task.
const WORK: usize = 1 << 17;

/// Whether a result has few weights: `rows` results and `channels` image channels a group.
pub(crate) fn pays(rows: usize, channels: usize, taps: usize) -> bool {
    rows <= 4 && rows * channels * taps <= 64 || taps > 1 && channels * taps <= 16
}

/// A band of rows of an image with zeros around it, split by the phases of the stride, so that positions beside each other
/// lie beside each other for every tap. Rows follow each other without gaps: a run of lanes may go on into the next row.
#[derive(Clone, Copy)]
pub(crate) struct Band {
    /// Where the first tap reads, relative to `position · step`.
    low: [isize; 3],
    step: [usize; 3],
    /// Slices of the image that a window spans, rows of results, and height and width of one phase.
    slices: usize,
    pub rows: usize,
    height: usize,
    pub width: usize,
}

impl Band {
    pub(crate) fn new<E>(windows: &Windows<E>, channels: usize) -> Band {
        let (mut low, mut high) = ([0; 3], [0; 3]);
        for d in 0..3 {
            low[d] = windows.taps.iter().map(|t| t.shift[d]).min().unwrap_or(0);
            high[d] = windows.taps.iter().map(|t| t.shift[d]).max().unwrap_or(0);
        }
        let span: [usize; 3] = std::array::from_fn(|d| (high[d] - low[d]) as usize);
        let step = windows.step;
        let (slices, width) = (span[0] + 1, windows.extent[2] + span[2] / step[2]);
        let more = span[1] / step[1];
        let fit = BAND / (channels * slices * step[1] * step[2] * width);
        let rows = fit.saturating_sub(more).max(4).min(windows.extent[1]);
        // Bands of one size.
        let rows = windows.extent[1].div_ceil(windows.extent[1].div_ceil(rows));
        Band { low, step, slices, rows, height: rows + more, width }
    }
    fn phases(&self) -> usize {
        self.step[1] * self.step[2]
    }
    /// Numbers of the copy, with room for the lanes past the last.
    pub(crate) fn len(&self, channels: usize) -> usize {
        channels * self.slices * self.phases() * self.height * self.width + LANES
    }
    /// Where a tap of a channel reads for the band's first result.
    pub(crate) fn offset(&self, channel: usize, shift: [isize; 3]) -> usize {
        let [a, b, c]: [usize; 3] = std::array::from_fn(|d| (shift[d] - self.low[d]) as usize);
        let [_, s1, s2] = self.step;
        let phase = ((channel * self.slices + a) * s1 + b % s1) * s2 + c % s2;
        (phase * self.height + b / s1) * self.width + c / s2
    }

    /// Copies what the results of rows `first..` in slice `slice` read.
    ///
    /// # Safety
    /// `image` leads to `channels` channels of an image as `windows` describes it, `dst` to `len` numbers.
    #[inline(always)]
    pub(crate) unsafe fn fill<I: Isa, E: Element>(
        &self,
        windows: &Windows<E>,
        image: *const E,
        channels: usize,
        (slice, first): (usize, usize),
        dst: *mut E::Acc,
    ) {
        let zero = E::Acc::default();
        let [s0, s1, s2] = self.step;
        let size = windows.size.map(|v| v as isize);
        let mut to = dst;
        for channel in 0..channels {
            for a in 0..self.slices {
                let u = (slice * s0 + a) as isize + self.low[0];
                for (p1, p2) in (0..s1).flat_map(|p1| (0..s2).map(move |p2| (p1, p2))) {
                    let start = self.low[2] + p2 as isize;
                    let s = s2 as isize;
                    // Columns lo..hi lie in the image.
                    let lo = ((s - 1 - start).div_euclid(s)).clamp(0, self.width as isize);
                    let hi = ((size[2] - start + s - 1).div_euclid(s)).clamp(lo, self.width as isize);
                    let by = s * windows.stride[2];
                    for z in 0..self.height {
                        let row = std::slice::from_raw_parts_mut(to, self.width);
                        to = to.add(self.width);
                        let v = ((first + z) * s1 + p1) as isize + self.low[1];
                        if u < 0 || u >= size[0] || v < 0 || v >= size[1] {
                            row.fill(zero);
                            continue;
                        }
                        let from = image.wrapping_offset(
                            channel as isize * windows.channel
                                + u * windows.stride[0]
                                + v * windows.stride[1]
                                + start * windows.stride[2],
                        );
                        let (lo, hi) = (lo as usize, hi as usize);
                        for x in &mut row[..lo] {
                            *x = zero;
                        }
                        for x in &mut row[hi..] {
                            *x = zero;
                        }
                        if by == 1 && hi > lo {
                            let from = std::slice::from_raw_parts(from.add(lo), hi - lo);
                            for (to, from) in row[lo..hi].iter_mut().zip(from) {
                                *to = from.load();
                            }
                        } else if by == 2 && same::<E, f32>() && hi >= lo + I::F32::N {
                            let n = I::F32::N;
                            let (from, to) = (from as *const f32, row.as_mut_ptr() as *mut f32);
                            // Vectors of every second number, the last overlapping those before and without the number behind it.
                            let mut j = lo;
                            loop {
                                let last = j + n >= hi;
                                let (low, high) = (I::F32::load(from.add(2 * j)), from.add(2 * j + n));
                                let high = if last {
                                    I::F32::zero().fill(high, mask(0, n as isize - 1, n))
                                } else {
                                    I::F32::load(high)
                                };
                                low.split(high).0.store(to.add(j));
                                if last {
                                    break;
                                }
                                j = (j + n).min(hi - n);
                            }
                        } else {
                            for j in lo..hi {
                                row[j] = (*from.offset(j as isize * by)).load();
                            }
                        }
                    }
                }
            }
        }
        std::slice::from_raw_parts_mut(to, LANES).fill(zero);
    }
}

/// `out[n, g, r, t] = bias[g, r] + Σ_k w[g, r, k] · window_k(n, g, t)`.
pub(crate) struct Direct<'a, E: Element> {
    /// The windows of the first group, a channel's taps together.
    pub windows: &'a Windows<'a, E>,
    pub groups: usize,
    /// Image channels and results of a group.
    pub channels: usize,
    pub rows: usize,
    /// Elements between groups and rows of the weight, and the offset of each step of K.
    pub weight: Ptr<E>,
    pub weight_group: isize,
    pub weight_row: isize,
    pub weight_steps: &'a [isize],
    /// The result's memory: samples, channels, positions.
    pub out: Ptr<E>,
    pub out_sample: isize,
    pub out_row: isize,
    pub out_position: [isize; 3],
    pub bias: Option<Ptr<E::Acc>>,
}

impl<E: Element> Direct<'_, E>
where
    E::Acc: Float,
{
    pub(crate) fn run(&self) {
        let windows = self.windows;
        let (k, outputs) = (self.weight_steps.len(), self.groups * self.rows);
        if windows.area() * windows.samples * outputs == 0 {
            return;
        }
        let beside = windows.channel == 1 && self.out_row == 1 && self.channels == 1 && self.rows == 1 && outputs >= 8;
        // Weights without gaps: by result, or by tap where lanes are channels.
        let mut weights = Scratch::<E::Acc>::new(outputs * k);
        for (i, w) in weights.slice().iter_mut().enumerate() {
            let (o, t) = if beside { (i % outputs, i / outputs) } else { (i / k, i % k) };
            let at = (o / self.rows) as isize * self.weight_group + (o % self.rows) as isize * self.weight_row;
            // SAFETY: the weight holds `k` steps a result.
            *w = unsafe { (*self.weight.at(at + self.weight_steps[t])).load() };
        }
        let weights = Ptr(weights.ptr());
        let [e0, e1, e2] = windows.extent;
        if beside {
            let work = outputs * k.max(1) * e2;
            pool::chunks(windows.samples * e0 * e1, (WORK / work).max(1), |lo, hi| {
                dispatch(Beside { direct: self, weights: weights.get(), lo, hi });
            });
        } else {
            self.bands(weights);
        }
    }

    fn bands(&self, weights: Ptr<E::Acc>) {
        let (windows, k) = (self.windows, self.weight_steps.len());
        let band = Band::new(windows, self.channels);
        let taps = k / self.channels;
        let offsets: Vec<usize> =
            windows.taps.iter().enumerate().map(|(i, t)| band.offset(i / taps, t.shift)).collect();
        let bands = windows.extent[1].div_ceil(band.rows);
        let tasks = windows.samples * self.groups * windows.extent[0] * bands;
        let work = band.rows * band.width * self.rows * k.max(1);
        pool::chunks(tasks, (WORK / work.max(1)).max(1), |lo, hi| {
            let mut copy = Scratch::<E::Acc>::new(band.len(self.channels));
            let mut sums = Scratch::<E::Acc>::new(band.rows * band.width + LANES);
            let (copy, sums) = (copy.ptr(), sums.ptr());
            dispatch(Bands { direct: self, band, offsets: &offsets, weights: weights.get(), copy, sums, lo, hi });
        });
    }

    fn bias(&self, output: usize) -> E::Acc {
        // SAFETY: a bias has one value an output.
        self.bias.map_or(E::Acc::default(), |b| unsafe { *b.get().add(output) })
    }
}

/// Bands `lo..hi` of all samples, groups and slices.
struct Bands<'a, 'b, E: Element> {
    direct: &'a Direct<'b, E>,
    band: Band,
    offsets: &'a [usize],
    weights: *const E::Acc,
    copy: *mut E::Acc,
    sums: *mut E::Acc,
    lo: usize,
    hi: usize,
}

impl<E: Element> Kernel for Bands<'_, '_, E>
where
    E::Acc: Float,
{
    type Out = ();
    #[inline(always)]
    fn run<I: Isa>(self) {
        let Bands { direct: d, band, offsets, weights, copy, sums, lo, hi } = self;
        let windows = d.windows;
        let [e0, e1, e2] = windows.extent;
        let (bands, k) = (e1.div_ceil(band.rows), offsets.len());
        for i in lo..hi {
            let (first, slice) = (i % bands * band.rows, i / bands % e0);
            let (group, sample) = (i / (bands * e0) % d.groups, i / (bands * e0 * d.groups));
            let rows = band.rows.min(e1 - first);
            // SAFETY: the operands describe their memory; tasks write disjoint rows; `copy` and `sums` hold a band.
            unsafe {
                let image = (group * d.channels) as isize * windows.channel + sample as isize * windows.sample;
                band.fill::<I, E>(windows, windows.image.at(image), d.channels, (slice, first), copy);
                for r in 0..d.rows {
                    let output = group * d.rows + r;
                    let weights = std::slice::from_raw_parts(weights.add(output * k), k);
                    flat::<I, E::Acc>(copy, offsets, weights, d.bias(output), sums, rows * band.width);
                    let to = sample as isize * d.out_sample
                        + output as isize * d.out_row
                        + slice as isize * d.out_position[0];
                    for b in 0..rows {
                        let from = std::slice::from_raw_parts(sums.add(b * band.width), e2);
                        let to = d.out.at(to + (first + b) as isize * d.out_position[1]);
                        if d.out_position[2] == 1 {
                            let to = std::slice::from_raw_parts_mut(to, e2);
                            for (to, from) in to.iter_mut().zip(from) {
                                *to = E::store(*from);
                            }
                        } else {
                            for (j, v) in from.iter().enumerate() {
                                *to.offset(j as isize * d.out_position[2]) = E::store(*v);
                            }
                        }
                    }
                }
            }
        }
    }
}

/// `to[q] = bias + Σ_k weights[k] · from[q + offsets[k]]` for `q < n`, and for lanes past that.
///
/// # Safety
/// `from` and `to` hold `LANES` numbers more than the sums read and write.
#[inline(always)]
unsafe fn flat<I: Isa, A: Float>(from: *const A, offsets: &[usize], weights: &[A], bias: A, to: *mut A, n: usize) {
    for q in (0..n).step_by(LANES) {
        let mut sum = [bias; LANES];
        for (&at, &w) in offsets.iter().zip(weights) {
            let x = &*(from.add(q + at) as *const [A; LANES]);
            for l in 0..LANES {
                sum[l] = A::fma::<I>(x[l], w, sum[l]);
            }
        }
        *(to.add(q) as *mut [A; LANES]) = sum;
    }
}

/// Rows `lo..hi` of results whose channels lie beside each other, one image channel each.
struct Beside<'a, 'b, E: Element> {
    direct: &'a Direct<'b, E>,
    weights: *const E::Acc,
    lo: usize,
    hi: usize,
}

impl<E: Element> Kernel for Beside<'_, '_, E>
where
    E::Acc: Float,
{
    type Out = ();
    #[inline(always)]
    fn run<I: Isa>(self) {
        let Beside { direct: d, weights, lo, hi } = self;
        let windows = d.windows;
        let [e0, e1, e2] = windows.extent;
        let mut taps: Vec<(*const E, *const E::Acc)> = Vec::with_capacity(windows.taps.len());
        for i in lo..hi {
            let (b, a, sample) = (i % e1, i / e1 % e0, i / (e1 * e0));
            for c in 0..e2 {
                let t = [a, b, c];
                taps.clear();
                // SAFETY: taps inside the image are addresses of it; weights hold a row of channels a tap.
                unsafe {
                    for (k, tap) in windows.taps.iter().enumerate() {
                        let at: [isize; 3] = std::array::from_fn(|d| (t[d] * windows.step[d]) as isize + tap.shift[d]);
                        if (0..3).all(|d| at[d] >= 0 && at[d] < windows.size[d] as isize) {
                            let from = sample as isize * windows.sample
                                + (0..3).map(|d| at[d] * windows.stride[d]).sum::<isize>();
                            taps.push((windows.image.at(from), weights.add(k * d.groups)));
                        }
                    }
                    let to = sample as isize * d.out_sample
                        + (0..3).map(|j| t[j] as isize * d.out_position[j]).sum::<isize>();
                    let to = d.out.at(to);
                    let mut g = 0;
                    while g + LANES <= d.groups {
                        let mut sum = [E::Acc::default(); LANES];
                        if d.bias.is_some() {
                            for l in 0..LANES {
                                sum[l] = d.bias(g + l);
                            }
                        }
                        for &(x, w) in &taps {
                            let (x, w) = (&*(x.add(g) as *const [E; LANES]), &*(w.add(g) as *const [E::Acc; LANES]));
                            for l in 0..LANES {
                                sum[l] = E::Acc::fma::<I>(x[l].load(), w[l], sum[l]);
                            }
                        }
                        let to = &mut *(to.add(g) as *mut [E; LANES]);
                        for l in 0..LANES {
                            to[l] = E::store(sum[l]);
                        }
                        g += LANES;
                    }
                    // The last channels.
                    let n = d.groups - g;
                    let mut sum = [E::Acc::default(); LANES];
                    for l in 0..n {
                        sum[l] = d.bias(g + l);
                    }
                    for &(x, w) in &taps {
                        for l in 0..n {
                            sum[l] = E::Acc::fma::<I>((*x.add(g + l)).load(), *w.add(g + l), sum[l]);
                        }
                    }
                    for l in 0..n {
                        *to.add(g + l) = E::store(sum[l]);
                    }
                }
            }
        }
    }
}

// ---- the gradient of the weight ------------------------------------------------------------------------------------------

/// Sums of one tap, and taps that are summed together.
const PART: usize = 16;
const TOGETHER: usize = 4;

/// `w[g, r, k] = Σ_n Σ_t y[n, g, r, t] · window_k(n, g, t)`, a task a group.
pub(crate) struct DirectGrad<'a, E: Element> {
    /// The windows of the first group, a channel's taps together.
    pub windows: &'a Windows<'a, E>,
    pub gradient: &'a Images<E>,
    pub groups: usize,
    pub channels: usize,
    pub rows: usize,
    /// The results' memory, as for [`Direct`].
    pub weight: Ptr<E>,
    pub weight_row: isize,
    pub weight_steps: &'a [isize],
}

impl<E: Element> DirectGrad<'_, E>
where
    E::Acc: Float,
{
    pub(crate) fn run(&self) {
        let (windows, k) = (self.windows, self.weight_steps.len());
        let band = Band::new(windows, self.channels);
        let taps = (k / self.channels).max(1);
        let offsets: Vec<usize> =
            windows.taps.iter().enumerate().map(|(i, t)| band.offset(i / taps, t.shift)).collect();
        let work = windows.samples * windows.area() * self.rows * k;
        pool::chunks(self.groups, (WORK / work.max(1)).max(1), |lo, hi| {
            let mut copy = Scratch::<E::Acc>::new(band.len(self.channels));
            let mut row = Scratch::<E::Acc>::new(windows.extent[2].next_multiple_of(PART) * band.rows);
            let mut sums = Scratch::<E::Acc>::new(self.rows * k * PART);
            let (copy, row, sums) = (copy.ptr(), row.ptr(), sums.slice());
            dispatch(GradBands { grad: self, band, offsets: &offsets, copy, row, sums, lo, hi });
        });
    }
}

/// Groups `lo..hi`.
struct GradBands<'a, 'b, E: Element> {
    grad: &'a DirectGrad<'b, E>,
    band: Band,
    offsets: &'a [usize],
    copy: *mut E::Acc,
    row: *mut E::Acc,
    sums: &'a mut [E::Acc],
    lo: usize,
    hi: usize,
}

impl<E: Element> Kernel for GradBands<'_, '_, E>
where
    E::Acc: Float,
{
    type Out = ();
    #[inline(always)]
    fn run<I: Isa>(self) {
        let GradBands { grad: d, band, offsets, copy, row, sums, lo, hi } = self;
        let (windows, y, k) = (d.windows, d.gradient, offsets.len());
        let [e0, e1, e2] = windows.extent;
        let padded = e2.next_multiple_of(PART);
        for group in lo..hi {
            sums.fill(E::Acc::default());
            for sample in 0..windows.samples {
                for (slice, first) in (0..e0).flat_map(|a| (0..e1).step_by(band.rows).map(move |b| (a, b))) {
                    let rows = band.rows.min(e1 - first);
                    // SAFETY: the operands describe their memory; the scratch holds a band of each.
                    unsafe {
                        let image = (group * d.channels) as isize * windows.channel + sample as isize * windows.sample;
                        band.fill::<I, E>(windows, windows.image.at(image), d.channels, (slice, first), copy);
                        for r in 0..d.rows {
                            for b in 0..rows {
                                let from = y.at(sample, group * d.rows + r, [slice, first + b, 0]) as *const E;
                                let to = std::slice::from_raw_parts_mut(row.add(b * padded), padded);
                                for x in &mut to[e2..] {
                                    *x = E::Acc::default();
                                }
                                if y.stride[2] == 1 {
                                    let from = std::slice::from_raw_parts(from, e2);
                                    for (to, from) in to.iter_mut().zip(from) {
                                        *to = from.load();
                                    }
                                } else {
                                    for (j, to) in to[..e2].iter_mut().enumerate() {
                                        *to = (*from.offset(j as isize * y.stride[2])).load();
                                    }
                                }
                            }
                            for t in (0..k).step_by(TOGETHER) {
                                let mut at = [0; TOGETHER];
                                for (at, &offset) in at.iter_mut().zip(&offsets[t..]) {
                                    *at = offset;
                                }
                                let part = products::<I, E::Acc>(row, copy, at, (rows, e2), (padded, band.width));
                                let all = &mut sums[(r * k + t) * PART..];
                                for (j, part) in part.iter().enumerate().take(k - t) {
                                    for l in 0..PART {
                                        all[j * PART + l] = all[j * PART + l].add(part[l]);
                                    }
                                }
                            }
                        }
                    }
                }
            }
            for (i, lanes) in sums.chunks_exact_mut(PART).enumerate() {
                let mut half = PART / 2;
                while half > 0 {
                    for l in 0..half {
                        lanes[l] = lanes[l].add(lanes[l + half]);
                    }
                    half /= 2;
                }
                let at = (group * d.rows + i / k) as isize * d.weight_row + d.weight_steps[i % k];
                // SAFETY: an element of the weight, which only this task writes.
                unsafe { *d.weight.at(at) = E::store(lanes[0]) };
            }
        }
    }
}

/// Sums by lane of the products of `y`'s rows with `x`'s from each of some offsets. Lanes past a row count as nothing, whatever
/// `x` holds there.
///
/// # Safety
/// `y` leads to `rows` rows of `padded` numbers, `x` to as many of `width`, and to a vector more.
#[inline(always)]
unsafe fn products<I: Isa, A: Float>(
    y: *const A,
    x: *const A,
    at: [usize; TOGETHER],
    (rows, columns): (usize, usize),
    (padded, width): (usize, usize),
) -> [[A; PART]; TOGETHER] {
    let mut sums = [[A::default(); PART]; TOGETHER];
    for b in 0..rows {
        let mut j = 0;
        while j + PART <= columns {
            let g = &*(y.add(b * padded + j) as *const [A; PART]);
            for t in 0..TOGETHER {
                let v = &*(x.add(at[t] + b * width + j) as *const [A; PART]);
                for l in 0..PART {
                    sums[t][l] = A::fma::<I>(g[l], v[l], sums[t][l]);
                }
            }
            j += PART;
        }
        if j < columns {
            let n = columns - j;
            let g = &*(y.add(b * padded + j) as *const [A; PART]);
            for t in 0..TOGETHER {
                let v = &*(x.add(at[t] + b * width + j) as *const [A; PART]);
                for l in 0..PART {
                    let v = if l < n { v[l] } else { A::default() };
                    sums[t][l] = A::fma::<I>(g[l], v, sums[t][l]);
                }
            }
        }
    }
    sums
}
