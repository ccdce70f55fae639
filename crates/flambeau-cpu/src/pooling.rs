//! Maximum and average over windows. One to three spatial dimensions are computed as three, the missing ones of size 1.

use crate::element::{with_float, with_real, Element, Float, Number, Ptr, Scratch};
use crate::isa::{dispatch, prefetch, Isa, Kernel};
use crate::pool;
use flambeau_core::{ensure, DType, Operand, Pool, Result, Shape};

/// A tensor (n, c, d, h, w).
#[derive(Clone, Copy)]
struct Volume<E> {
    ptr: Ptr<E>,
    sizes: [usize; 5],
    strides: [isize; 5],
}

impl<E> Volume<E> {
    fn new(x: &Operand) -> Self {
        let r = x.sizes.len();
        let (mut sizes, mut strides) = ([1; 5], [0; 5]);
        for d in 0..r {
            let to = if d < 2 { d } else { d + 5 - r };
            sizes[to] = x.sizes[d] as usize;
            strides[to] = x.strides[d] as isize;
        }
        Volume { ptr: Ptr(x.ptr as *mut E), sizes, strides }
    }
    /// Address of channel `c` of sample `n`.
    unsafe fn plane(&self, n: usize, c: usize) -> *mut E {
        self.ptr.at(n as isize * self.strides[0] + c as isize * self.strides[1])
    }
}

/// A window in three dimensions.
struct Window {
    kernel: [usize; 3],
    stride: [usize; 3],
    padding: [usize; 3],
    dilation: [usize; 3],
}

impl Window {
    fn new(name: &str, x: &Operand, geometry: &Pool, out: &Operand) -> Result<Window> {
        let s = geometry.kernel.len();
        let lists = [&geometry.kernel, &geometry.stride, &geometry.padding, &geometry.dilation];
        ensure!(
            (1..=3).contains(&s)
                && lists.iter().all(|l| l.len() == s)
                && x.sizes.len() == s + 2
                && out.sizes.len() == s + 2,
            Runtime,
            "{name}: a window over {s} dimensions does not fit sizes {} and {}",
            Shape(x.sizes),
            Shape(out.sizes)
        );
        ensure!(
            x.sizes[..2] == out.sizes[..2]
                && geometry.kernel.iter().chain(&geometry.stride).chain(&geometry.dilation).all(|&v| v > 0)
                && geometry.padding.iter().all(|&v| v >= 0),
            Runtime,
            "{name}: kernel, stride and dilation must be positive, and sizes {} and {} agree in samples and channels",
            Shape(x.sizes),
            Shape(out.sizes)
        );
        let three = |v: &[i64], missing: usize| {
            let mut r = [missing; 3];
            for (d, &v) in v.iter().enumerate() {
                r[d + 3 - s] = v as usize;
            }
            r
        };
        Ok(Window {
            kernel: three(&geometry.kernel, 1),
            stride: three(&geometry.stride, 1),
            padding: three(&geometry.padding, 0),
            dilation: three(&geometry.dilation, 1),
        })
    }
    /// First and last-plus-one tap that lies inside `size` for output position `o` along `d`, and tap 0's position.
    #[inline(always)]
    fn taps(&self, d: usize, o: usize, size: usize) -> (usize, usize, isize) {
        let start = (o * self.stride[d]) as isize - self.padding[d] as isize;
        let step = self.dilation[d] as isize;
        let lo = if start < 0 { ((-start + step - 1) / step) as usize } else { 0 };
        let room = size as isize - start;
        let hi = if room <= 0 { 0 } else { ((room + step - 1) / step) as usize };
        (lo.min(self.kernel[d]), hi.min(self.kernel[d]).max(lo.min(self.kernel[d])), start)
    }
}

/// Numbers that a maximum is taken of.
trait Maximum: Number {
    const LOWEST: Self;
    /// Whether `self` replaces `best` when it comes later in the window.
    fn beats(self, best: Self) -> bool;
    /// The larger one; NaN if either is.
    fn larger(self, other: Self) -> Self;
}
impl Maximum for f32 {
    const LOWEST: f32 = f32::NEG_INFINITY;
    #[inline(always)]
    fn beats(self, best: f32) -> bool {
        self > best || f32::is_nan(self)
    }
    #[inline(always)]
    fn larger(self, other: f32) -> f32 {
        let best = if self > other { self } else { other };
        f32::from_bits(best.to_bits() | 0u32.wrapping_sub(self.is_nan() as u32))
    }
}
impl Maximum for f64 {
    const LOWEST: f64 = f64::NEG_INFINITY;
    #[inline(always)]
    fn beats(self, best: f64) -> bool {
        self > best || f64::is_nan(self)
    }
    #[inline(always)]
    fn larger(self, other: f64) -> f64 {
        let best = if self > other { self } else { other };
        f64::from_bits(best.to_bits() | 0u64.wrapping_sub(self.is_nan() as u64))
    }
}
impl Maximum for i64 {
    const LOWEST: i64 = i64::MIN;
    #[inline(always)]
    fn beats(self, best: i64) -> bool {
        self > best
    }
    #[inline(always)]
    fn larger(self, other: i64) -> i64 {
        Ord::max(self, other)
    }
}

/// Windows along a row are made up to a multiple of this, so that vectors have no rest.
const ABREAST: usize = 16;
/// Two vectors at once, where positions do not take the registers.
const TWICE: usize = 2 * ABREAST;
/// Rows ahead that are fetched into the cache while one is taken apart.
const ROWS_AHEAD: usize = 6;

/// One plane whose rows are adjacent elements. The rows that windows touch are taken apart by the windows' stride, so that each tap is
/// a slice for neighbouring windows; taps are walked in order, so that the first of equals and the last NaN stay. Positions are
/// found where `POSITIONS` says so.
struct MaxRows<'a, E: Element, const POSITIONS: bool> {
    x: *const E,
    y: *mut E,
    index: *mut i64,
    window: &'a Window,
    size: (usize, usize),
    out: (usize, usize),
    /// Elements between rows of x, of the output and of the indices.
    rows: (isize, isize, isize),
    /// For each window along a row, the first column inside the input, and the column of its tap 0.
    columns: (&'a [i32], &'a [i32]),
    /// As many rows of the input as a window reaches over, each with its padding: `stride` slices of `phase` numbers, of which slice
    /// `s` has columns `s`, `s + stride`, …. Row `r` of the input lies at `r` modulo their number.
    taken: &'a mut [E::Acc],
    phase: usize,
    /// The rows of the windows under way: where they begin in `taken`, and the position of their first column.
    under: &'a mut Vec<(usize, i32)>,
    /// Of each tap along a row, where it lies in a taken row for the first window, and its column.
    taps: &'a [(usize, i32)],
}
impl<E: Element, const POSITIONS: bool> MaxRows<'_, E, POSITIONS>
where
    E::Acc: Maximum,
{
    /// Windows `j0..j0 + N` of output row `o`, as far as there are so many; the first row that they see begins at position `top`.
    #[inline(always)]
    fn block<const N: usize>(&mut self, o: usize, top: i32, j0: usize) {
        let (mut best, mut at) = ([E::Acc::LOWEST; N], [0i32; N]);
        // SAFETY: `columns` have entries for whole blocks; as many numbers follow each tap's first; the outputs' rows have
        // `out.1` elements.
        unsafe {
            if POSITIONS {
                let first = &*(self.columns.0.as_ptr().add(j0) as *const [i32; N]);
                at = first.map(|f| top + f);
            }
            let zero = *(self.columns.1.as_ptr().add(j0) as *const [i32; N]);
            for &(slot, base) in self.under.iter() {
                let row = self.taken.as_ptr().add(slot + j0);
                for &(tap, column) in self.taps {
                    let tap = *(row.add(tap) as *const [E::Acc; N]);
                    let position = base + column;
                    for j in 0..N {
                        if POSITIONS {
                            let g = tap[j].beats(best[j]);
                            best[j] = if g { tap[j] } else { best[j] };
                            at[j] = if g { position + zero[j] } else { at[j] };
                        } else {
                            best[j] = tap[j].larger(best[j]);
                        }
                    }
                }
            }
            let y = self.y.offset(o as isize * self.rows.1).add(j0);
            let index = self.index.wrapping_offset(o as isize * self.rows.2).wrapping_add(j0);
            if self.out.1 >= N {
                *(y as *mut [E; N]) = best.map(E::store);
                if POSITIONS {
                    *(index as *mut [i64; N]) = at.map(|at| at as i64);
                }
            } else {
                for j in 0..self.out.1 {
                    *y.add(j) = E::store(best[j]);
                    if POSITIONS {
                        *index.add(j) = at[j] as i64;
                    }
                }
            }
        }
    }
    /// Takes the first pairs apart.
    #[inline(always)]
    fn part(pairs: &[[E; 2]], even: &mut [E::Acc], odd: &mut [E::Acc]) {
        let pairs: &[[E; 2]; ABREAST] = pairs[..ABREAST].try_into().expect("that many");
        let (a, b): ([E::Acc; ABREAST], [E::Acc; ABREAST]) =
            (std::array::from_fn(|j| pairs[j][0].load()), std::array::from_fn(|j| pairs[j][1].load()));
        even[..ABREAST].copy_from_slice(&a);
        odd[..ABREAST].copy_from_slice(&b);
    }
    /// Takes a row with `pad` columns of padding apart.
    #[inline(always)]
    fn take(from: &[E], pad: usize, step: usize, phase: usize, row: &mut [E::Acc]) {
        match step {
            1 => from.iter().zip(&mut row[pad..]).for_each(|(x, to)| *to = x.load()),
            2 => {
                let (even, odd) = row.split_at_mut(phase);
                let head = pad & 1;
                if head == 1 && !from.is_empty() {
                    odd[pad / 2] = from[0].load();
                }
                let (pairs, last) = from[head.min(from.len())..].as_chunks::<2>();
                let at = (pad + head) / 2;
                let (e, o) = (&mut even[at..][..pairs.len()], &mut odd[at..][..pairs.len()]);
                let n = pairs.len();
                for lo in (0..n - n % ABREAST).step_by(ABREAST) {
                    Self::part(&pairs[lo..], &mut e[lo..], &mut o[lo..]);
                }
                if n >= ABREAST {
                    // The last whole vector again, rather than a rest.
                    let lo = n - ABREAST;
                    Self::part(&pairs[lo..], &mut e[lo..], &mut o[lo..]);
                } else {
                    for ([a, b], (e, o)) in pairs.iter().zip(e.iter_mut().zip(o)) {
                        (*e, *o) = (a.load(), b.load());
                    }
                }
                if let [x] = last {
                    even[at + pairs.len()] = x.load();
                }
            }
            _ => {
                for (c, x) in from.iter().enumerate() {
                    row[(c + pad) % step * phase + (c + pad) / step] = x.load();
                }
            }
        }
    }
}
impl<E: Element, const POSITIONS: bool> Kernel for MaxRows<'_, E, POSITIONS>
where
    E::Acc: Maximum,
{
    type Out = ();
    #[inline(always)]
    fn run<I: Isa>(mut self) {
        let MaxRows { x, window, size: (h, w), out: (oh, ow), rows, phase, .. } = self;
        let (pad, step) = (window.padding[2], window.stride[2]);
        let held = (window.kernel[1] - 1) * window.dilation[1] + 1;
        // Padding never wins: what is there first is a number inside, and only a larger one or NaN takes its place.
        self.taken.fill(E::Acc::LOWEST);
        let mut next = 0;
        for o in 0..oh {
            let (lo, hi, start) = window.taps(1, o, h);
            self.under.clear();
            for k in lo..hi {
                let r = (start + (k * window.dilation[1]) as isize) as usize;
                let slot = r % held;
                let first = slot * (step * phase);
                if r >= next {
                    // SAFETY: row `r` lies in the plane, by `taps`.
                    let from = unsafe { std::slice::from_raw_parts(x.offset(r as isize * rows.0), w) };
                    Self::take(from, pad, step, phase, &mut self.taken[first..first + step * phase]);
                    next = r + 1;
                    for line in (0..w * std::mem::size_of::<E>()).step_by(64) {
                        prefetch(x.wrapping_offset((r + ROWS_AHEAD) as isize * rows.0).cast::<u8>().wrapping_add(line));
                    }
                }
                self.under.push((first, r as i32 * w as i32));
            }
            let top = (start + (lo * window.dilation[1]) as isize) as i32 * w as i32;
            // The last whole block again, rather than a rest.
            if POSITIONS || ow < TWICE {
                let last = ow.saturating_sub(ABREAST);
                (0..ow).step_by(ABREAST).for_each(|j| self.block::<ABREAST>(o, top, j.min(last)));
            } else {
                (0..ow).step_by(TWICE).for_each(|j| self.block::<TWICE>(o, top, j.min(ow - TWICE)));
            }
        }
    }
}

/// All channels of one position: the windows of channels_last tensors.
struct MaxChannels<'a, E: Element> {
    x: *const E,
    y: *mut E,
    /// Where positions go, if anywhere.
    index: Option<*mut i64>,
    taps: &'a [(isize, i64)],
    best: &'a mut [E::Acc],
    at: &'a mut [i64],
}
impl<E: Element> Kernel for MaxChannels<'_, E>
where
    E::Acc: Maximum,
{
    type Out = ();
    #[inline(always)]
    fn run<I: Isa>(self) {
        let n = self.best.len();
        let (best, at) = (self.best, &mut self.at[..n]);
        for (t, &(offset, position)) in self.taps.iter().enumerate() {
            // SAFETY: taps lie in the sample; its channels are adjacent.
            let x = unsafe { std::slice::from_raw_parts(self.x.offset(offset), n) };
            if t == 0 {
                for i in 0..n {
                    best[i] = x[i].load();
                    at[i] = position;
                }
            } else {
                for i in 0..n {
                    let v = x[i].load();
                    let g = v.beats(best[i]);
                    best[i] = if g { v } else { best[i] };
                    at[i] = if g { position } else { at[i] };
                }
            }
        }
        // SAFETY: the outputs' channels are adjacent too.
        unsafe {
            best.iter().enumerate().for_each(|(i, b)| *self.y.add(i) = E::store(*b));
            if let Some(index) = self.index {
                at.iter().enumerate().for_each(|(i, at)| *index.add(i) = *at);
            }
        }
    }
}

/// See [`flambeau_core::Backend::max_pool`].
pub fn max_pool(x: &Operand, geometry: &Pool, out: &Operand, indices: Option<&Operand>) -> Result<()> {
    let window = Window::new("max_pool", x, geometry, out)?;
    ensure!(
        x.dtype == out.dtype && indices.is_none_or(|i| i.dtype == DType::I64 && i.sizes == out.sizes),
        Runtime,
        "max_pool: operand {}, output {} {} and indices {} do not match",
        x.dtype,
        out.dtype,
        Shape(out.sizes),
        Shape(indices.map_or(&[], |i| i.sizes))
    );
    if out.numel() == 0 {
        return Ok(());
    }
    with_real!(x.dtype, "max_pool", E => max::<E>(x, &window, out, indices));
    Ok(())
}

/// The taps of one window that lie inside, in order: offset in the plane and flattened position.
fn taps_of<E>(window: &Window, x: &Volume<E>, o: [usize; 3], taps: &mut Vec<(isize, i64)>) {
    taps.clear();
    let [_, _, d, h, w] = x.sizes;
    let (a, b, c) = (window.taps(0, o[0], d), window.taps(1, o[1], h), window.taps(2, o[2], w));
    for i in a.0..a.1 {
        let z = a.2 + (i * window.dilation[0]) as isize;
        for j in b.0..b.1 {
            let y = b.2 + (j * window.dilation[1]) as isize;
            for k in c.0..c.1 {
                let v = c.2 + (k * window.dilation[2]) as isize;
                let offset = z * x.strides[2] + y * x.strides[3] + v * x.strides[4];
                taps.push((offset, ((z as i64 * h as i64) + y as i64) * w as i64 + v as i64));
            }
        }
    }
}

fn max<E: Element>(x: &Operand, window: &Window, out: &Operand, indices: Option<&Operand>)
where
    E::Acc: Maximum,
{
    let (x, y) = (Volume::<E>::new(x), Volume::<E>::new(out));
    let positions = indices.map(Volume::<i64>::new);
    let dense = |d: usize| positions.as_ref().is_none_or(|ix| ix.strides[d] == 1);
    let [n, c, d, h, w] = x.sizes;
    let [_, _, od, oh, ow] = y.sizes;
    let area = od * oh * ow;
    // SAFETY (all three walks): windows are clipped to the input, and each output is written by one task.
    if c > 1 && x.strides[1] == 1 && y.strides[1] == 1 && dense(1) {
        let rows = n * od * oh;
        pool::chunks(rows, (8192 / (ow * c)).max(1), |lo, hi| {
            let (mut best, mut at) = (Scratch::<E::Acc>::new(c), Scratch::<i64>::new(c));
            let mut taps = Vec::new();
            for row in lo..hi {
                let (s, z, r) = (row / (od * oh), row / oh % od, row % oh);
                for v in 0..ow {
                    taps_of(window, &x, [z, r, v], &mut taps);
                    unsafe {
                        let go = |t: &[isize; 5]| z as isize * t[2] + r as isize * t[3] + v as isize * t[4];
                        dispatch(MaxChannels {
                            x: x.plane(s, 0) as *const E,
                            y: y.plane(s, 0).offset(go(&y.strides)),
                            index: positions.as_ref().map(|ix| ix.plane(s, 0).offset(go(&ix.strides))),
                            taps: &taps,
                            best: best.slice(),
                            at: at.slice(),
                        });
                    }
                }
            }
        });
        return;
    }
    let fast = d == 1
        && od == 1
        && window.kernel[0] == 1
        && x.strides[4] == 1
        && y.strides[4] == 1
        && dense(4)
        && h * w < i32::MAX as usize
        // Every window reads columns that exist or are padding on either side.
        && (ow - 1) * window.stride[2] + (window.kernel[2] - 1) * window.dilation[2] < w + 2 * window.padding[2] + window.stride[2] + window.kernel[2] * window.dilation[2];
    pool::chunks(n * c, (8192 / (area * window.kernel.iter().product::<usize>())).max(1), |lo, hi| {
        // Room for whole vectors of windows, whose taps may reach beyond the padding.
        let (step, dilation, wide) = (window.stride[2], window.dilation[2], ow.next_multiple_of(ABREAST));
        let reach = (wide - 1) * step + (window.kernel[2] - 1) * dilation + 1;
        let phase = reach.max(w + window.padding[2]).div_ceil(step);
        let held = (window.kernel[1] - 1) * window.dilation[1] + 1;
        let mut taken = Scratch::<E::Acc>::new(if fast { phase * step * held } else { 0 });
        let tapped: Vec<(usize, i32)> =
            (0..window.kernel[2]).map(|t| t * dilation).map(|c| (c % step * phase + c / step, c as i32)).collect();
        let columns = |first: bool| -> Vec<i32> {
            (0..wide)
                .map(|j| {
                    let (lo, _, start) = window.taps(2, j, w);
                    start as i32 + if first { (lo * dilation) as i32 } else { 0 }
                })
                .collect()
        };
        let (first, zero) = (columns(true), columns(false));
        let (mut taps, mut under) = (Vec::new(), Vec::new());
        for p in lo..hi {
            let (s, ch) = (p / c, p % c);
            unsafe {
                let (px, py) = (x.plane(s, ch) as *const E, y.plane(s, ch));
                let pi = positions.as_ref().map(|ix| (ix.plane(s, ch), ix.strides));
                if fast {
                    macro_rules! rows {
                        ($positions:literal) => {
                            dispatch(MaxRows::<E, $positions> {
                                x: px,
                                y: py,
                                index: pi.map_or(std::ptr::null_mut(), |p| p.0),
                                window,
                                size: (h, w),
                                out: (oh, ow),
                                rows: (x.strides[3], y.strides[3], pi.map_or(0, |p| p.1[3])),
                                columns: (&first, &zero),
                                taken: taken.slice(),
                                phase,
                                taps: &tapped,
                                under: &mut under,
                            })
                        };
                    }
                    if pi.is_some() {
                        rows!(true)
                    } else {
                        rows!(false)
                    }
                    continue;
                }
                for o in 0..area {
                    let at = [o / (oh * ow), o / ow % oh, o % ow];
                    taps_of(window, &x, at, &mut taps);
                    let mut best = (E::Acc::LOWEST, 0);
                    for (t, &(offset, position)) in taps.iter().enumerate() {
                        let v = (*px.offset(offset)).load();
                        if t == 0 || v.beats(best.0) {
                            best = (v, position);
                        }
                    }
                    let go = |t: &[isize; 5]| (0..3).map(|d| at[d] as isize * t[d + 2]).sum::<isize>();
                    *py.offset(go(&y.strides)) = E::store(best.0);
                    if let Some((pi, strides)) = pi {
                        *pi.offset(go(&strides)) = best.1;
                    }
                }
            }
        }
    });
}

/// How many taps along `d` count for the divisor of position `o`.
fn counted(window: &Window, include_padding: bool, size: usize, d: usize, o: usize) -> f64 {
    let start = (o * window.stride[d]) as i64 - window.padding[d] as i64;
    // With padding counted, a window that hangs over even the padding is cut there.
    let (lo, hi) = if include_padding {
        (start, (start + window.kernel[d] as i64).min((size + window.padding[d]) as i64))
    } else {
        (start.max(0), (start + window.kernel[d] as i64).min(size as i64))
    };
    (hi - lo).max(0) as f64
}

fn check_average(name: &str, geometry: &Pool, small: &Operand, large: &Operand) -> Result<()> {
    ensure!(
        geometry.dilation.iter().all(|&d| d == 1) && small.dtype == large.dtype && geometry.divisor != Some(0),
        Runtime,
        "{name}: expected no dilation, a divisor other than 0 and one dtype, but got {} and {}",
        small.dtype,
        large.dtype
    );
    Ok(())
}

/// Adds a row of an image to sums of its columns.
struct AddRow<'a, E: Element> {
    sums: &'a mut [E::Acc],
    row: *const E,
    stride: isize,
}
impl<E: Element> Kernel for AddRow<'_, E> {
    type Out = ();
    #[inline(always)]
    fn run<I: Isa>(self) {
        // SAFETY: the row has as many elements as there are sums.
        unsafe {
            if self.stride == 1 {
                for (i, s) in self.sums.iter_mut().enumerate() {
                    *s = s.add((*self.row.add(i)).load());
                }
            } else {
                for (i, s) in self.sums.iter_mut().enumerate() {
                    *s = s.add((*self.row.offset(i as isize * self.stride)).load());
                }
            }
        }
    }
}

/// See [`flambeau_core::Backend::avg_pool`].
pub fn avg_pool(x: &Operand, geometry: &Pool, out: &Operand) -> Result<()> {
    let window = Window::new("avg_pool", x, geometry, out)?;
    check_average("avg_pool", geometry, x, out)?;
    if out.numel() == 0 {
        return Ok(());
    }
    with_float!(x.dtype, "avg_pool", E => {
        type S = <E as Element>::Acc;
        let (x, y) = (Volume::<E>::new(x), Volume::<E>::new(out));
        let [_, c, _, oh, ow] = y.sizes;
        let area = y.sizes[2] * oh * ow;
        let taps = window.kernel.iter().product::<usize>();
        // For every position along the last dimension: first column, columns, and columns that count.
        let columns: Vec<(usize, usize, S)> = (0..ow)
            .map(|k| {
                let t = window.taps(2, k, x.sizes[4]);
                let count = counted(&window, geometry.count_include_pad, x.sizes[4], 2, k);
                ((t.2 + t.0 as isize).max(0) as usize, t.1 - t.0, <S as Float>::of(count))
            })
            .collect();
        pool::chunks(x.sizes[0] * c, (16_384 / (area * taps)).max(1), |lo, hi| {
            let (mut row, mut sums) = (Scratch::<S>::new(x.sizes[4]), Scratch::<S>::new(ow));
            for p in lo..hi {
                // SAFETY: windows are clipped to the input; each task writes its own planes.
                unsafe {
                    let (px, py) = (x.plane(p / c, p % c), y.plane(p / c, p % c));
                    for r in 0..y.sizes[2] * oh {
                        let o = [r / oh, r % oh, 0];
                        let (z, v) = (window.taps(0, o[0], x.sizes[2]), window.taps(1, o[1], x.sizes[3]));
                        row.slice().fill(0.0);
                        for i in z.0..z.1 {
                            for j in v.0..v.1 {
                                let at = (z.2 + i as isize) * x.strides[2] + (v.2 + j as isize) * x.strides[3];
                                dispatch(AddRow { sums: row.slice(), row: px.offset(at) as *const E, stride: x.strides[4] });
                            }
                        }
                        let rows: f64 = (0..2).map(|d| counted(&window, geometry.count_include_pad, x.sizes[d + 2], d, o[d])).product();
                        let rows = <S as Float>::of(rows);
                        let row = &*row.slice();
                        for (s, &(from, len, count)) in sums.slice().iter_mut().zip(&columns) {
                            let total = row[from..from + len].iter().fold(0.0, |a, b| a + b);
                            *s = total / geometry.divisor.map_or(rows * count, |d| <S as Float>::of(d as f64));
                        }
                        let to = py.offset(o[0] as isize * y.strides[2] + o[1] as isize * y.strides[3]);
                        for (k, s) in sums.slice().iter().enumerate() {
                            *to.offset(k as isize * y.strides[4]) = E::store(*s);
                        }
                    }
                }
            }
        });
    });
    Ok(())
}

/// See [`flambeau_core::Backend::avg_pool_grad`].
pub fn avg_pool_grad(g: &Operand, geometry: &Pool, gx: &Operand) -> Result<()> {
    let window = Window::new("avg_pool_backward", gx, geometry, g)?;
    check_average("avg_pool_backward", geometry, g, gx)?;
    if gx.numel() == 0 {
        return Ok(());
    }
    with_float!(g.dtype, "avg_pool_backward", E => {
        let (g, x) = (Volume::<E>::new(g), Volume::<E>::new(gx));
        let [_, c, d, h, w] = x.sizes;
        let [_, _, od, oh, ow] = g.sizes;
        let steps: [Vec<_>; 3] =
            std::array::from_fn(|k| (0..g.sizes[k + 2]).map(|o| window.taps(k, o, x.sizes[k + 2])).collect());
        let counts: [Vec<f64>; 3] = std::array::from_fn(|k| {
            (0..g.sizes[k + 2]).map(|o| counted(&window, geometry.count_include_pad, x.sizes[k + 2], k, o)).collect()
        });
        let (steps, counts) = (&steps, &counts);
        pool::chunks(x.sizes[0] * c, (16_384 / (d * h * w)).max(1), |lo, hi| {
            dispatch(AverageGrad { g, x, dims: [od, oh, ow], steps, counts, fixed: geometry.divisor, stride: window.stride[2], lo, hi });
        });
    });
    Ok(())
}

/// Gradients of planes `lo..hi`.
struct AverageGrad<'a, E> {
    g: Volume<E>,
    x: Volume<E>,
    dims: [usize; 3],
    steps: &'a [Vec<(usize, usize, isize)>; 3],
    counts: &'a [Vec<f64>; 3],
    fixed: Option<i64>,
    stride: usize,
    lo: usize,
    hi: usize,
}
impl<E: Element> Kernel for AverageGrad<'_, E>
where
    E::Acc: Float,
{
    type Out = ();
    #[inline(always)]
    fn run<I: Isa>(self) {
        let AverageGrad { g, x, dims: [od, oh, ow], steps, counts, fixed, stride, lo, hi } = self;
        let [_, c, d, h, w] = x.sizes;
        let (mut plane, mut shares) = (Scratch::<E::Acc>::new(d * h * w), Scratch::<E::Acc>::new(ow));
        // Windows that lie within the row, to which the same taps go.
        let whole = {
            let widest = steps[2].iter().map(|t| t.1 - t.0).max().unwrap_or(0);
            let first = steps[2].iter().position(|t| t.1 - t.0 == widest).unwrap_or(0);
            let like = |t: &&(usize, usize, isize)| t.1 - t.0 == widest && t.0 == steps[2][first].0;
            first..first + steps[2][first.min(ow)..].iter().take_while(like).count()
        };
        for p in lo..hi {
            let sums = plane.slice();
            sums.fill(E::Acc::of(0.0));
            // SAFETY: windows are clipped to the input; each task writes its own planes.
            unsafe {
                let (pg, px) = (g.plane(p / c, p % c), x.plane(p / c, p % c));
                for o in 0..od * oh {
                    let (oz, oy) = (o / oh, o % oh);
                    let from = pg.offset(oz as isize * g.strides[2] + oy as isize * g.strides[3]);
                    let shares = shares.slice();
                    for (k, s) in shares.iter_mut().enumerate() {
                        let n = fixed.map_or(counts[0][oz] * counts[1][oy] * counts[2][k], |d| d as f64);
                        *s = (*from.offset(k as isize * g.strides[4])).load().div(E::Acc::of(n));
                    }
                    let (z, y) = (steps[0][oz], steps[1][oy]);
                    for i in z.0..z.1 {
                        for j in y.0..y.1 {
                            let row = ((z.2 + i as isize) as usize * h + (y.2 + j as isize) as usize) * w;
                            let row = &mut sums[row..row + w];
                            let mut edge = |k: usize| {
                                let t = steps[2][k];
                                let from = (t.2 + t.0 as isize) as usize;
                                row[from..from + (t.1 - t.0)].iter_mut().for_each(|s| *s = s.add(shares[k]));
                            };
                            (0..whole.start).for_each(&mut edge);
                            (whole.end..ow).for_each(&mut edge);
                            let Some(&t) = steps[2].get(whole.start) else { continue };
                            for tap in t.0..t.1 {
                                let first = (t.2 + tap as isize) as usize;
                                let shares = &shares[whole.clone()];
                                if stride == 1 {
                                    row[first..first + shares.len()]
                                        .iter_mut()
                                        .zip(shares)
                                        .for_each(|(s, v)| *s = s.add(*v));
                                } else {
                                    row[first..]
                                        .iter_mut()
                                        .step_by(stride)
                                        .zip(shares)
                                        .for_each(|(s, v)| *s = s.add(*v));
                                }
                            }
                        }
                    }
                }
                for (r, sums) in sums.chunks(w).enumerate() {
                    let to = px.offset((r / h) as isize * x.strides[2] + (r % h) as isize * x.strides[3]);
                    for (k, s) in sums.iter().enumerate() {
                        *to.offset(k as isize * x.strides[4]) = E::store(*s);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{compare, Case};
    use flambeau_core::channels_last_strides;

    fn output(x: &[i64], g: &Pool) -> Vec<i64> {
        let mut s = x.to_vec();
        for d in 0..g.kernel.len() {
            s[d + 2] = (x[d + 2] + 2 * g.padding[d] - g.dilation[d] * (g.kernel[d] - 1) - 1) / g.stride[d] + 1;
        }
        s
    }

    #[test]
    fn windows_against_naive_loops() {
        let pool = |k: &[i64], s: &[i64], p: &[i64], d: &[i64]| Pool {
            kernel: k.to_vec(),
            stride: s.to_vec(),
            padding: p.to_vec(),
            dilation: d.to_vec(),
            count_include_pad: k[0] == 3,
            divisor: (k[0] == 4).then_some(5),
        };
        let cases = [
            (vec![2, 3, 9, 11], pool(&[3, 3], &[2, 2], &[1, 1], &[1, 1])),
            (vec![2, 3, 9, 11], pool(&[2, 3], &[1, 2], &[1, 0], &[1, 1])),
            (vec![1, 2, 12, 12], pool(&[3, 2], &[2, 3], &[1, 1], &[2, 3])),
            (vec![2, 2, 20], pool(&[4], &[3], &[2], &[1])),
            (vec![2, 2, 5, 6, 7], pool(&[2, 3, 2], &[2, 1, 2], &[1, 1, 0], &[1, 1, 1])),
        ];
        for dtype in [DType::F32, DType::F64, DType::BF16, DType::I64] {
            for (sizes, g) in &cases {
                for layout in 0..2 {
                    let mut x = Case::random(dtype, sizes, false, 3);
                    if layout == 1 && sizes.len() > 3 {
                        x.strides = channels_last_strides(sizes).to_vec();
                    }
                    let so = output(sizes, g);
                    let (mut y, mut ix) = (Case::random(dtype, &so, false, 1), Case::random(DType::I64, &so, false, 1));
                    if layout == 1 && sizes.len() > 3 {
                        y.strides = channels_last_strides(&so).to_vec();
                        ix.strides = y.strides.clone();
                    }
                    max_pool(&x.operand(), g, &y.operand(), Some(&ix.operand())).unwrap();
                    let r = sizes.len() - 2;
                    let plane: usize = sizes[2..].iter().product::<i64>() as usize;
                    let area: usize = so[2..].iter().product::<i64>() as usize;
                    let xv = x.values();
                    let (mut want, mut at, mut mean) = (vec![], vec![], vec![]);
                    let mut scatter = vec![0.0; xv.len()];
                    let gv = Case::random(dtype, &so, false, 1).values();
                    for p in 0..xv.len() / plane {
                        for o in 0..area {
                            let taps: i64 = g.kernel.iter().product();
                            let (mut best, mut total, mut count) = (None::<(f64, usize)>, 0.0, 0);
                            let mut inside = vec![];
                            let mut padded = 0;
                            for t in 0..taps {
                                let (mut t, mut o, mut flat, mut ok, mut scale, mut near) =
                                    (t, o as i64, 0, true, 1, true);
                                for d in (0..r).rev() {
                                    let i =
                                        o % so[d + 2] * g.stride[d] - g.padding[d] + t % g.kernel[d] * g.dilation[d];
                                    o /= so[d + 2];
                                    t /= g.kernel[d];
                                    ok &= i >= 0 && i < sizes[d + 2];
                                    near &= i < sizes[d + 2] + g.padding[d];
                                    flat += i * scale;
                                    scale *= sizes[d + 2];
                                }
                                padded += near as i64;
                                if ok {
                                    let v = xv[p * plane + flat as usize].re;
                                    inside.push(p * plane + flat as usize);
                                    total += v;
                                    count += 1;
                                    if best.is_none_or(|b| v > b.0) {
                                        best = Some((v, flat as usize));
                                    }
                                }
                            }
                            let best = best.unwrap();
                            want.push(best.0.into());
                            at.push(best.1 as f64);
                            let div = g.divisor.unwrap_or(if g.count_include_pad { padded } else { count }) as f64;
                            mean.push((total / div).into());
                            inside.iter().for_each(|&i| scatter[i] += gv[p * area + o].re / div);
                        }
                    }
                    compare(&y, &want, 0.01, "max_pool");
                    assert_eq!(ix.reals(), at, "{sizes:?} {dtype} {layout}");
                    if dtype.is_float() && g.dilation.iter().all(|&d| d == 1) {
                        avg_pool(&x.operand(), g, &y.operand()).unwrap();
                        compare(&y, &mean, 8.0, "avg_pool");
                        let gr = Case::random(dtype, &so, false, 1);
                        avg_pool_grad(&gr.operand(), g, &x.operand()).unwrap();
                        compare(&x, &scatter.iter().map(|&v| v.into()).collect::<Vec<_>>(), 8.0, "avg_pool_grad");
                    }
                }
            }
        }
    }

    #[test]
    fn nan_and_infinities() {
        let n = f64::NEG_INFINITY;
        let x = Case::real(DType::F32, &[1, 1, 3, 4], &[n, n, 1.0, 1.0, n, n, 1.0, f64::NAN, n, n, 0.0, 2.0]);
        let g = Pool {
            kernel: vec![3, 2],
            stride: vec![3, 2],
            padding: vec![0, 0],
            dilation: vec![1, 1],
            count_include_pad: true,
            divisor: None,
        };
        let (y, ix) =
            (Case::random(DType::F32, &[1, 1, 1, 2], false, 1), Case::random(DType::I64, &[1, 1, 1, 2], false, 1));
        max_pool(&x.operand(), &g, &y.operand(), Some(&ix.operand())).unwrap();
        assert!(y.reals()[0] == n && y.reals()[1].is_nan());
        assert_eq!(ix.reals(), [0.0, 7.0]);
    }
}
