//! A vector times a matrix, at the speed at which the matrix can be read: nothing is packed.

use crate::element::{Element, Float, Number, Ptr, Scratch};
use crate::gemm::{split, Strided};
use crate::isa::{dispatch, prefetch, Isa, Kernel};
use crate::lanes::{fold, LANES};
use crate::rows::padded;

/// Columns that one task sums at a time when rows of the matrix are adjacent.
const COLUMNS: usize = 512;
/// Bytes ahead that are fetched: the matrix is read once, from memory, faster than the processor would ask for it by itself.
const AHEAD: usize = 4096;

/// `acc[j] += Σ_p x[p] b[p][j]`, four rows a pass.
struct Combine<'a, E: Element> {
    x: &'a [E::Acc],
    b: *const E,
    step: isize,
    acc: &'a mut [E::Acc],
}
impl<E: Element> Kernel for Combine<'_, E>
where
    E::Acc: Float,
{
    type Out = ();
    #[inline(always)]
    fn run<I: Isa>(self) {
        let n = self.acc.len();
        // SAFETY: the matrix has a row of `n` elements for every value of x.
        let row = |p: usize| unsafe { std::slice::from_raw_parts(self.b.offset(p as isize * self.step), n) };
        let fma = <E::Acc as Float>::fma::<I>;
        let mut p = 0;
        while p + 4 <= self.x.len() {
            let (b0, b1, b2, b3) = (row(p), row(p + 1), row(p + 2), row(p + 3));
            let (x0, x1, x2, x3) = (self.x[p], self.x[p + 1], self.x[p + 2], self.x[p + 3]);
            for (j, a) in self.acc.iter_mut().enumerate() {
                *a = fma(x3, b3[j].load(), fma(x2, b2[j].load(), fma(x1, b1[j].load(), fma(x0, b0[j].load(), *a))));
            }
            p += 4;
        }
        while p < self.x.len() {
            for (a, b) in self.acc.iter_mut().zip(row(p)) {
                *a = fma(self.x[p], b.load(), *a);
            }
            p += 1;
        }
    }
}

/// The dot product of x with adjacent elements: 64 lanes, folded in a tree.
struct Dot<'a, E: Element> {
    x: &'a [E::Acc],
    b: &'a [E],
}
impl<E: Element> Kernel for Dot<'_, E>
where
    E::Acc: Float,
{
    type Out = E::Acc;
    #[inline(always)]
    fn run<I: Isa>(self) -> E::Acc {
        let fma = <E::Acc as Float>::fma::<I>;
        let mut acc = [E::Acc::default(); LANES];
        let ((rows_x, x), (rows_b, b)) = (self.x.as_chunks::<LANES>(), self.b.as_chunks::<LANES>());
        for (x, b) in rows_x.iter().zip(rows_b) {
            for line in (0..std::mem::size_of::<[E; LANES]>()).step_by(64) {
                prefetch((b.as_ptr() as *const u8).wrapping_add(AHEAD + line));
            }
            acc = std::array::from_fn(|l| fma(x[l], b[l].load(), acc[l]));
        }
        if !x.is_empty() {
            let (x, b): ([E::Acc; LANES], [E; LANES]) = (padded(x, E::Acc::default()), padded(b, E::default()));
            acc = std::array::from_fn(|l| fma(x[l], b[l].load(), acc[l]));
        }
        fold(&acc, Number::add)
    }
}

/// Operands of `out[j] (+)= Σ_p x[p] b[p, j] (+ bias[j])`.
pub(crate) struct Vector<E: Element> {
    pub n: usize,
    pub k: usize,
    pub x: Ptr<E>,
    pub x_step: isize,
    pub b: Strided<E>,
    pub out: Ptr<E>,
    pub out_step: isize,
    pub accumulate: bool,
    /// Address and step.
    pub bias: Option<(Ptr<E::Acc>, isize)>,
}

impl<E: Element> Vector<E>
where
    E::Acc: Float,
{
    /// Whether the matrix can be read without packing.
    pub(crate) fn fits(&self) -> bool {
        (self.b.lane == 1 && self.n > 1) || self.b.step == 1
    }

    /// # Safety
    /// The operands have these sizes, and nobody else uses `out` meanwhile.
    pub(crate) unsafe fn run(&self, parallel: bool) {
        let (n, k) = (self.n, self.k);
        let mut values = Scratch::<E::Acc>::new(k);
        for (p, v) in values.slice().iter_mut().enumerate() {
            *v = (*self.x.at(p as isize * self.x_step)).load();
        }
        let x = &*values.slice();
        let put = |j: usize, mut v: E::Acc| {
            if let Some((bias, step)) = self.bias {
                // SAFETY: of `run`; tasks write disjoint outputs.
                v = v.add(unsafe { *bias.at(j as isize * step) });
            }
            // SAFETY: as above.
            unsafe {
                let to = self.out.at(j as isize * self.out_step);
                *to = E::store(if self.accumulate { (*to).load().add(v) } else { v });
            }
        };
        if self.b.step == 1 {
            split(parallel && n * k >= 1 << 15, n, ((1 << 14) / k.max(1)).max(1), |lo, hi| {
                for j in lo..hi {
                    // SAFETY: of `run`.
                    let b =
                        unsafe { std::slice::from_raw_parts(self.b.ptr.at(j as isize * self.b.lane) as *const E, k) };
                    put(j, dispatch(Dot { x, b }));
                }
            });
        } else {
            split(parallel && n * k >= 1 << 15, n, COLUMNS, |lo, hi| {
                let mut sums = Scratch::<E::Acc>::new(hi - lo);
                let acc = sums.slice();
                acc.fill(E::Acc::default());
                // SAFETY: of `run`.
                let b = unsafe { self.b.ptr.at(lo as isize) } as *const E;
                dispatch(Combine { x, b, step: self.b.step, acc: &mut *acc });
                for (j, v) in acc.iter().enumerate() {
                    put(lo + j, *v);
                }
            });
        }
    }
}
