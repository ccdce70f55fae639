//! The steps of an LSTM layer and their gradient. What depends on the inputs alone is a product over all steps and made
//! elsewhere; here is what goes from step to step. Rows of the batch do not see each other, so that a group of them goes
//! through all steps without waiting for another; the recurrent weight is packed once for all.

use crate::element::{not_implemented, Ptr, Scratch};
use crate::gemm::{depth, split, Panels, Strided};
use crate::gemm_kernels::{Micro, Scalar};
use crate::isa::{dispatch, Isa, Kernel};
use crate::math::Math;
use crate::rows::{slice, slice_mut};
use flambeau_core::{ensure, DType, Operand, Result, Shape};

/// The activations of gates, vectorisable.
trait Gate: Scalar {
    fn sigmoid<I: Isa>(self) -> Self;
    fn tanh<I: Isa>(self) -> Self;
}
impl Gate for f32 {
    #[inline(always)]
    fn sigmoid<I: Isa>(self) -> f32 {
        Math::<I, f32>::new().sigmoid(self)
    }
    #[inline(always)]
    fn tanh<I: Isa>(self) -> f32 {
        Math::<I, f32>::new().tanh(self)
    }
}
impl Gate for f64 {
    #[inline(always)]
    fn sigmoid<I: Isa>(self) -> f64 {
        Math::<I, f64>::new().sigmoid(self)
    }
    #[inline(always)]
    fn tanh<I: Isa>(self) -> f64 {
        Math::<I, f64>::new().tanh(self)
    }
}

/// Rows of the batch that go through the steps together; more of them where the weight does not stay in the second-level
/// cache between steps.
const ROWS: usize = 8;
const MANY_ROWS: usize = 48;
const NEAR: usize = 1 << 20;

/// A matrix of k steps of n columns in panels, for many products with few rows.
struct Packed<S: Scalar> {
    micro: Micro<S>,
    k: usize,
    n: usize,
    /// Where the panels are, and what keeps them.
    at: Ptr<S>,
    _panels: Scratch<S>,
}
impl<S: Scalar> Packed<S> {
    /// # Safety
    /// `b` has k steps of n lanes.
    unsafe fn new(b: &Strided<S>, k: usize, n: usize) -> Self {
        let micro = S::micro();
        let nr = micro.nr;
        let count = n.div_ceil(nr);
        let mut panels = Scratch::<S>::new(k * count * nr);
        let at = Ptr(panels.ptr());
        let kc = depth(k);
        split(k * n >= 1 << 15, count, 1, |lo, hi| {
            for j in lo..hi {
                for pc in (0..k).step_by(kc) {
                    let kb = kc.min(k - pc);
                    // SAFETY: panels lie one after another within a chunk of steps, and tasks write their own.
                    unsafe {
                        b.pack(at.get().add(pc * count * nr + j * nr * kb), nr, j * nr, nr.min(n - j * nr), pc, kb)
                    };
                }
            }
        });
        Packed { micro, k, n, at, _panels: panels }
    }
    /// Rows of a register tile for a group of `rows`.
    fn tile(&self, rows: usize) -> usize {
        rows.div_ceil(rows.div_ceil(self.micro.mr))
    }
    /// `C += A · B` for rows of A `stride` apart. `left` has room for `rows · k` numbers in tiles.
    ///
    /// # Safety
    /// A and C hold `rows` rows of k and n numbers, C apart from the rest and written by nobody else.
    #[allow(clippy::too_many_arguments)]
    unsafe fn multiply(
        &self,
        a: *const S,
        stride: isize,
        rows: usize,
        left: *mut S,
        c: *mut S,
        ldc: isize,
        parallel: bool,
    ) {
        let Micro { mr, nr, run, .. } = self.micro;
        let (tile, count, kc) = (self.tile(rows), self.n.div_ceil(nr), depth(self.k));
        let (left, c) = (Ptr(left), Ptr(c));
        for pc in (0..self.k).step_by(kc) {
            let kb = kc.min(self.k - pc);
            for (t, i) in (0..rows).step_by(tile).enumerate() {
                S::transpose(
                    left.get().add(t * mr * kb),
                    mr,
                    a.offset(i as isize * stride).add(pc),
                    stride,
                    tile.min(rows - i),
                    kb,
                );
            }
            split(parallel, count, ((1 << 17) / (rows * kb * nr)).max(1), |lo, hi| {
                for j in lo..hi {
                    let b = self.at.get().wrapping_add(pc * count * nr + j * nr * kb);
                    for (t, i) in (0..rows).step_by(tile).enumerate() {
                        // SAFETY: `multiply`'s contract; tasks write disjoint columns.
                        unsafe {
                            let to = c.at(i as isize * ldc).add(j * nr);
                            let (m, n) = (tile.min(rows - i), nr.min(self.n - j * nr));
                            let a = left.get().add(t * mr * kb);
                            run(kb, a, b, nr, to, ldc, m, n, true.into(), a);
                        }
                    }
                }
            });
        }
    }
    /// Numbers that `multiply` packs A into.
    fn left(&self, rows: usize) -> usize {
        rows.div_ceil(self.tile(rows)) * self.micro.mr * depth(self.k)
    }
}

/// A sequence: (steps, rows, n) with adjacent numbers.
#[derive(Clone, Copy)]
struct Sequence<S> {
    at: Ptr<S>,
    step: isize,
    row: isize,
}
impl<S> Sequence<S> {
    fn new(x: &Operand) -> Self {
        Sequence { at: Ptr(x.ptr as *mut S), step: x.strides[0] as isize, row: x.strides[1] as isize }
    }
    /// # Safety
    /// Step and row lie in the operand.
    unsafe fn at(&self, step: usize, row: usize) -> *mut S {
        self.at.at(step as isize * self.step + row as isize * self.row)
    }
}

/// Numbers taken together: they are read before any is written, so that nothing need be known of what lies where.
const WIDTH: usize = 16;
#[inline(always)]
fn some<S: Scalar>(from: &[S], at: usize, n: usize) -> [S; WIDTH] {
    // Apart, because an array that is written by a variable length is kept in memory and not in registers.
    #[inline(never)]
    fn part<S: Scalar>(from: &[S]) -> [S; WIDTH] {
        let mut out = [S::default(); WIDTH];
        out[..from.len()].copy_from_slice(from);
        out
    }
    match from[at..at + n].first_chunk() {
        Some(whole) => *whole,
        None => part(&from[at..at + n]),
    }
}
#[inline(always)]
fn put<S: Scalar>(from: [S; WIDTH], to: &mut [S], at: usize, n: usize) {
    #[inline(never)]
    fn part<S: Scalar>(from: [S; WIDTH], to: &mut [S]) {
        let n = to.len();
        to.copy_from_slice(&from[..n]);
    }
    match to[at..at + n].first_chunk_mut() {
        Some(whole) => *whole = from,
        None => part(from, &mut to[at..at + n]),
    }
}

/// One row of one step: the gates become their activations, then the new cell and hidden state.
struct Forward<'a, S> {
    gates: &'a mut [S],
    before: &'a [S],
    cell: &'a mut [S],
    hidden: &'a mut [S],
}
impl<S: Gate> Kernel for Forward<'_, S> {
    type Out = ();
    #[inline(always)]
    fn run<I: Isa>(self) {
        let h = self.before.len();
        for at in (0..h).step_by(WIDTH) {
            let n = WIDTH.min(h - at);
            let mut i = some(self.gates, at, n);
            let mut f = some(self.gates, h + at, n);
            let mut g = some(self.gates, 2 * h + at, n);
            let mut o = some(self.gates, 3 * h + at, n);
            let mut c = some(self.before, at, n);
            i.iter_mut().for_each(|x| *x = x.sigmoid::<I>());
            f.iter_mut().for_each(|x| *x = x.sigmoid::<I>());
            g.iter_mut().for_each(|x| *x = Gate::tanh::<I>(*x));
            o.iter_mut().for_each(|x| *x = x.sigmoid::<I>());
            let mut y = [S::default(); WIDTH];
            for j in 0..WIDTH {
                c[j] = f[j].mul(c[j]).add(i[j].mul(g[j]));
            }
            for j in 0..WIDTH {
                y[j] = o[j].mul(Gate::tanh::<I>(c[j]));
            }
            for (k, x) in [i, f, g, o].into_iter().enumerate() {
                put(x, self.gates, k * h + at, n);
            }
            put(c, self.cell, at, n);
            put(y, self.hidden, at, n);
        }
    }
}

/// One row of one step backwards: the gradient of the gates before their activation, and of the cell before.
struct Backward<'a, S> {
    gates: &'a [S],
    before: &'a [S],
    cell: &'a [S],
    /// Gradients of the hidden state from outside and from the next step.
    g: &'a [S],
    next: &'a [S],
    /// In: of the cell; out: of the cell before.
    g_cell: &'a mut [S],
    g_gates: &'a mut [S],
}
impl<S: Gate> Kernel for Backward<'_, S> {
    type Out = ();
    #[inline(always)]
    fn run<I: Isa>(self) {
        let h = self.before.len();
        let one = S::of(1.0);
        for at in (0..h).step_by(WIDTH) {
            let n = WIDTH.min(h - at);
            let i = some(self.gates, at, n);
            let f = some(self.gates, h + at, n);
            let g = some(self.gates, 2 * h + at, n);
            let o = some(self.gates, 3 * h + at, n);
            let (c0, mut c) = (some(self.before, at, n), some(self.cell, at, n));
            let (a, b, mut gc) = (some(self.g, at, n), some(self.next, at, n), some(self.g_cell, at, n));
            c.iter_mut().for_each(|x| *x = Gate::tanh::<I>(*x));
            let mut out = [[S::default(); WIDTH]; 4];
            for j in 0..WIDTH {
                let gh = a[j].add(b[j]);
                let cell = gc[j].add(gh.mul(o[j]).mul(one.sub(c[j].mul(c[j]))));
                out[0][j] = cell.mul(g[j]).mul(i[j].mul(one.sub(i[j])));
                out[1][j] = cell.mul(c0[j]).mul(f[j].mul(one.sub(f[j])));
                out[2][j] = cell.mul(i[j]).mul(one.sub(g[j].mul(g[j])));
                out[3][j] = gh.mul(c[j]).mul(o[j].mul(one.sub(o[j])));
                gc[j] = cell.mul(f[j]);
            }
            for (k, x) in out.into_iter().enumerate() {
                put(x, self.g_gates, k * h + at, n);
            }
            put(gc, self.g_cell, at, n);
        }
    }
}

/// Sizes of a layer, checked.
struct Layer {
    steps: usize,
    rows: usize,
    h: usize,
}
fn layer(name: &str, gates: &Operand, w: &Operand, states: &[&Operand], sequences: &[&Operand]) -> Result<Layer> {
    ensure!(
        gates.sizes.len() == 3 && w.sizes.len() == 2 && w.sizes[0] == 4 * w.sizes[1] && gates.sizes[2] == w.sizes[0],
        Runtime,
        "{name}: expected gates (steps, batch, 4 hidden) and a weight (4 hidden, hidden), but got sizes {} and {}",
        Shape(gates.sizes),
        Shape(w.sizes)
    );
    let (steps, rows, h) = (gates.sizes[0], gates.sizes[1], w.sizes[1]);
    for x in states {
        ensure!(
            *x.sizes == [rows, h] && x.is_contiguous() && x.dtype == gates.dtype,
            Runtime,
            "{name}: a state of sizes {} and dtype {} does not fit gates of sizes {}",
            Shape(x.sizes),
            x.dtype,
            Shape(gates.sizes)
        );
    }
    for x in sequences {
        ensure!(
            x.sizes.len() == 3
                && x.sizes[..2] == [steps, rows]
                && (x.sizes[2] == h || x.sizes[2] == 4 * h)
                && (x.strides[2] == 1 || x.sizes[2] == 1)
                && x.dtype == gates.dtype,
            Runtime,
            "{name}: a sequence of sizes {} and dtype {} does not fit gates of sizes {}",
            Shape(x.sizes),
            x.dtype,
            Shape(gates.sizes)
        );
    }
    Ok(Layer { steps: steps as usize, rows: rows as usize, h: h as usize })
}
impl Layer {
    /// `f(first row, rows, whether it has to find parallel work itself)` over groups of rows.
    fn groups(&self, bytes: usize, f: impl Fn(usize, usize, bool) + Sync) {
        let group = if bytes <= NEAR { ROWS } else { MANY_ROWS };
        let count = self.rows.div_ceil(group);
        let group = self.rows.div_ceil(count.max(1)).max(1);
        let parallel = 4 * self.h * self.h * self.rows >= 1 << 16;
        if count < 2 {
            return f(0, self.rows, parallel);
        }
        split(parallel, self.rows, group, |lo, hi| f(lo, hi - lo, false));
    }
    /// The step that is taken as number `i`.
    fn step(&self, i: usize, reverse: bool) -> usize {
        if reverse {
            self.steps - 1 - i
        } else {
            i
        }
    }
}

fn forward<S: Gate>(p: &Layer, x: [&Operand; 4], reverse: bool, out: [&Operand; 4]) {
    let Layer { steps, rows: _, h } = *p;
    let [gates, h0, c0, w] = x;
    let (gates, h0, c0) = (Sequence::<S>::new(gates), Ptr(h0.ptr as *mut S), Ptr(c0.ptr as *mut S));
    let (hidden, last) = (Sequence::<S>::new(out[0]), Ptr(out[1].ptr as *mut S));
    let (cells, active) = (Sequence::<S>::new(out[2]), Sequence::<S>::new(out[3]));
    let weight = Strided { ptr: Ptr(w.ptr as *mut S), lane: w.strides[0] as isize, step: w.strides[1] as isize };
    // SAFETY (the whole function): the operands describe memory of the layer's sizes, outputs overlap nothing else, and
    // groups of rows are disjoint.
    let weight = unsafe { Packed::new(&weight, h, 4 * h) };
    p.groups(h * 4 * h * std::mem::size_of::<S>(), |row, rows, parallel| unsafe {
        let mut left = Scratch::<S>::new(weight.left(rows));
        for i in 0..steps {
            let t = p.step(i, reverse);
            for r in row..row + rows {
                std::ptr::copy_nonoverlapping(gates.at(t, r), active.at(t, r), 4 * h);
            }
            let (from, stride) = match i {
                0 => (h0.get().add(row * h) as *const S, h as isize),
                _ => (hidden.at(p.step(i - 1, reverse), row) as *const S, hidden.row),
            };
            weight.multiply(from, stride, rows, left.ptr(), active.at(t, row), active.row, parallel);
            split(parallel && rows * h >= 1 << 12, rows, 1, |lo, hi| {
                for r in row + lo..row + hi {
                    let before = match i {
                        0 => c0.get().add(r * h),
                        _ => cells.at(p.step(i - 1, reverse), r),
                    };
                    dispatch(Forward {
                        gates: slice_mut(active.at(t, r), 4 * h),
                        before: slice(before, h),
                        cell: slice_mut(cells.at(t, r), h),
                        hidden: slice_mut(hidden.at(t, r), h),
                    });
                }
            });
        }
        for r in row..row + rows {
            let from = if steps == 0 { c0.get().add(r * h) } else { cells.at(p.step(steps - 1, reverse), r) };
            std::ptr::copy_nonoverlapping(from, last.get().add(r * h), h);
        }
    });
}

/// See [`flambeau_core::Backend::lstm`].
pub fn lstm(
    gates: &Operand,
    h0: &Operand,
    c0: &Operand,
    w: &Operand,
    reverse: bool,
    out: &Operand,
    last: &Operand,
    cells: &Operand,
    active: &Operand,
) -> Result<()> {
    let p = layer("lstm", gates, w, &[h0, c0, last], &[gates, out, cells, active])?;
    match gates.dtype {
        DType::F32 => forward::<f32>(&p, [gates, h0, c0, w], reverse, [out, last, cells, active]),
        DType::F64 => forward::<f64>(&p, [gates, h0, c0, w], reverse, [out, last, cells, active]),
        other => return Err(not_implemented("lstm", other)),
    }
    Ok(())
}

fn backward<S: Gate>(p: &Layer, x: [&Operand; 6], reverse: bool, out: [&Operand; 3]) {
    let Layer { steps, rows: _, h } = *p;
    let [g, g_last, active, cells, c0, w] = x;
    let (g, active, cells) = (Sequence::<S>::new(g), Sequence::<S>::new(active), Sequence::<S>::new(cells));
    let (g_last, c0) = (Ptr(g_last.ptr as *mut S), Ptr(c0.ptr as *mut S));
    let g_gates = Sequence::<S>::new(out[0]);
    let (g_h0, g_c0) = (Ptr(out[1].ptr as *mut S), Ptr(out[2].ptr as *mut S));
    let weight = Strided { ptr: Ptr(w.ptr as *mut S), lane: w.strides[1] as isize, step: w.strides[0] as isize };
    // SAFETY (the whole function): as in `forward`.
    let weight = unsafe { Packed::new(&weight, 4 * h, h) };
    p.groups(h * 4 * h * std::mem::size_of::<S>(), |row, rows, parallel| unsafe {
        let mut left = Scratch::<S>::new(weight.left(rows));
        // The gradients of the states are kept where those of the initial ones go.
        let next = g_h0.get().add(row * h);
        std::ptr::write_bytes(next, 0, rows * h);
        std::ptr::copy_nonoverlapping(g_last.get().add(row * h), g_c0.get().add(row * h), rows * h);
        for i in (0..steps).rev() {
            let t = p.step(i, reverse);
            split(parallel && rows * h >= 1 << 12, rows, 1, |lo, hi| {
                for r in row + lo..row + hi {
                    let before = match i {
                        0 => c0.get().add(r * h),
                        _ => cells.at(p.step(i - 1, reverse), r),
                    };
                    dispatch(Backward {
                        gates: slice(active.at(t, r), 4 * h),
                        before: slice(before, h),
                        cell: slice(cells.at(t, r), h),
                        g: slice(g.at(t, r), h),
                        next: slice(g_h0.get().add(r * h), h),
                        g_cell: slice_mut(g_c0.get().add(r * h), h),
                        g_gates: slice_mut(g_gates.at(t, r), 4 * h),
                    });
                }
            });
            std::ptr::write_bytes(next, 0, rows * h);
            weight.multiply(g_gates.at(t, row), g_gates.row, rows, left.ptr(), next, h as isize, parallel);
        }
    });
}

/// See [`flambeau_core::Backend::lstm_grad`].
pub fn lstm_grad(
    g: &Operand,
    g_last: &Operand,
    active: &Operand,
    cells: &Operand,
    c0: &Operand,
    w: &Operand,
    reverse: bool,
    g_gates: &Operand,
    g_h0: &Operand,
    g_c0: &Operand,
) -> Result<()> {
    let p = layer("lstm_backward", active, w, &[g_last, c0, g_h0, g_c0], &[g, active, cells, g_gates])?;
    match g.dtype {
        DType::F32 => backward::<f32>(&p, [g, g_last, active, cells, c0, w], reverse, [g_gates, g_h0, g_c0]),
        DType::F64 => backward::<f64>(&p, [g, g_last, active, cells, c0, w], reverse, [g_gates, g_h0, g_c0]),
        other => return Err(not_implemented("lstm_backward", other)),
    }
    Ok(())
}
