//! A vector, or a few, times a matrix, at the speed at which the matrix can be read: nothing is packed.

use crate::element::{Element, Float, Number, Ptr, Scratch};
use crate::gemm::{same, split, Strided};
use crate::gemm_kernels::Scalar;
use crate::isa::{dispatch, prefetch, Isa, Kernel};
use crate::lanes::{fold, LANES};
use crate::rows::padded;

/// Columns that one task sums at a time when rows of the matrix are adjacent.
const COLUMNS: usize = 1024;
/// Bytes ahead that are fetched: the matrix is read once, from memory, faster than the processor would ask for it by itself.
const AHEAD: usize = 4096;
/// Bytes of a matrix that is read once rather than packed for a few vectors.
const LARGE: usize = 512 << 10;

/// `acc[r][j] += Σ_p x[r][p] b[p][j]` for some vectors x, four rows of b a pass.
struct Combine<'a, E: Element> {
    /// Vectors one after another, `k` numbers each.
    x: &'a [E::Acc],
    k: usize,
    b: *const E,
    step: isize,
    /// As many rows of sums.
    acc: &'a mut [E::Acc],
}
impl<E: Element> Combine<'_, E>
where
    E::Acc: Float,
{
    /// Rows `p..p + ROWS` of b, added to the sums of `V` vectors.
    ///
    /// # Safety
    /// The matrix has those rows; `acc` has a row of `n` sums for every vector.
    #[inline(always)]
    unsafe fn pass<I: Isa, const ROWS: usize, const V: usize>(
        &self,
        first: usize,
        p: usize,
        acc: *mut E::Acc,
        n: usize,
    ) {
        let fma = <E::Acc as Float>::fma::<I>;
        let rows: [*const E; ROWS] = std::array::from_fn(|q| self.b.wrapping_offset((p + q) as isize * self.step));
        let x: [[E::Acc; ROWS]; V] =
            std::array::from_fn(|v| std::array::from_fn(|q| self.x[(first + v) * self.k + p + q]));
        for j in 0..n {
            let b: [E::Acc; ROWS] = std::array::from_fn(|q| (*rows[q].add(j)).load());
            for (v, x) in x.iter().enumerate() {
                let to = &mut *acc.add((first + v) * n + j);
                let mut sum = *to;
                for q in 0..ROWS {
                    sum = fma(x[q], b[q], sum);
                }
                *to = sum;
            }
        }
    }
}
impl<E: Element> Kernel for Combine<'_, E>
where
    E::Acc: Float,
{
    type Out = ();
    #[inline(always)]
    fn run<I: Isa>(self) {
        let vectors = self.x.len() / self.k;
        let (n, acc) = (self.acc.len() / vectors, self.acc.as_mut_ptr());
        // Rows that follow are fetched, some kilobytes ahead.
        let row = n * std::mem::size_of::<E>();
        let ahead = (AHEAD / row.max(1)).next_multiple_of(4).max(4);
        let mut p = 0;
        while p < self.k {
            let whole = p + 4 <= self.k;
            for q in p + ahead..p + ahead + 4 {
                let from = self.b.wrapping_offset(q as isize * self.step) as *const u8;
                (0..row).step_by(64).for_each(|at| prefetch(from.wrapping_add(at)));
            }
            let mut v = 0;
            while v < vectors {
                // SAFETY: the matrix has a row of `n` elements for every number of a vector.
                unsafe {
                    match (whole, vectors - v) {
                        (true, 1) => self.pass::<I, 4, 1>(v, p, acc, n),
                        (true, 2 | 3) => self.pass::<I, 4, 2>(v, p, acc, n),
                        (true, _) => self.pass::<I, 4, 4>(v, p, acc, n),
                        (false, 1) => self.pass::<I, 1, 1>(v, p, acc, n),
                        (false, 2 | 3) => self.pass::<I, 1, 2>(v, p, acc, n),
                        (false, _) => self.pass::<I, 1, 4>(v, p, acc, n),
                    }
                }
                v += match vectors - v {
                    1 => 1,
                    2 | 3 => 2,
                    _ => 4,
                };
            }
            p += if whole { 4 } else { 1 };
        }
    }
}

/// The dot product of a vector with adjacent elements: 64 lanes, folded in a tree.
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

/// The dot products of a few vectors with a few rows of adjacent elements, 16 lanes each.
struct Dots<'a, E: Element> {
    /// Vectors one after another, `k` numbers each.
    x: &'a [E::Acc],
    k: usize,
    /// Rows that lie `step` apart.
    b: *const E,
    step: isize,
    rows: usize,
    /// A row of results for every row.
    to: &'a mut [E::Acc],
}
/// Lanes of such a sum, and bytes of a vector that are gone through at a time, since the first cache holds as much of all.
const NARROW: usize = 16;
const DEEP: usize = 4096;
impl<E: Element> Dots<'_, E>
where
    E::Acc: Float,
{
    /// Steps `p..p + n` of `V` vectors and `J` rows, added to their sums; what lies `next` elements on is fetched.
    ///
    /// # Safety
    /// The rows are readable for `k` elements.
    #[inline(always)]
    unsafe fn of<I: Isa, const V: usize, const J: usize>(
        &self,
        (v, j): (usize, usize),
        (p, n): (usize, usize),
        next: isize,
        sums: &mut [[E::Acc; NARROW]],
    ) {
        let fma = <E::Acc as Float>::fma::<I>;
        let vectors = self.x.len() / self.k;
        let at = |j: usize, v: usize| j * vectors + v;
        let mut acc: [[[E::Acc; NARROW]; J]; V] =
            std::array::from_fn(|a| std::array::from_fn(|b| sums[at(j + b, v + a)]));
        let x: [&[E::Acc]; V] = std::array::from_fn(|a| &self.x[(v + a) * self.k + p..][..n]);
        let b: [&[E]; J] =
            std::array::from_fn(|b| std::slice::from_raw_parts(self.b.offset((j + b) as isize * self.step).add(p), n));
        let (xs, bs) = (x.map(|x| x.as_chunks::<NARROW>()), b.map(|b| b.as_chunks::<NARROW>()));
        for i in 0..n / NARROW {
            for (c, b) in bs.iter().enumerate() {
                let from = b.0[i].as_ptr();
                if (from as usize) % 64 < std::mem::size_of::<[E; NARROW]>() {
                    prefetch(from.wrapping_offset(next) as *const u8);
                }
                let b: [E::Acc; NARROW] = std::array::from_fn(|l| b.0[i][l].load());
                for (a, x) in xs.iter().enumerate() {
                    acc[a][c] = std::array::from_fn(|l| fma(x.0[i][l], b[l], acc[a][c][l]));
                }
            }
        }
        if !n.is_multiple_of(NARROW) {
            for (c, b) in bs.iter().enumerate() {
                let b: [E; NARROW] = padded(b.1, E::default());
                for (a, x) in xs.iter().enumerate() {
                    let x: [E::Acc; NARROW] = padded(x.1, E::Acc::default());
                    acc[a][c] = std::array::from_fn(|l| fma(x[l], b[l].load(), acc[a][c][l]));
                }
            }
        }
        for (a, acc) in acc.iter().enumerate() {
            for (c, acc) in acc.iter().enumerate() {
                sums[at(j + c, v + a)] = *acc;
            }
        }
    }
}
impl<E: Element> Kernel for Dots<'_, E>
where
    E::Acc: Float,
{
    type Out = ();
    #[inline(always)]
    fn run<I: Isa>(self) {
        let vectors = self.x.len() / self.k;
        let mut room = [[E::Acc::default(); NARROW]; VECTORS * ROWS];
        let sums = &mut room[..vectors * self.rows];
        // As many sums at once as registers hold.
        let size = std::mem::size_of::<E::Acc>();
        let (most, most_rows) = match (I::WIDTH, size) {
            (64, 4) => (4, 4),
            (64, _) => (2, 4),
            (_, 4) => (2, 2),
            _ => (2, 1),
        };
        let deep = DEEP / size;
        for p in (0..self.k).step_by(deep) {
            let steps = (p, deep.min(self.k - p));
            // What follows in the same rows, or the next rows.
            let next = if p + deep < self.k { deep as isize } else { ROWS as isize * self.step - p as isize };
            let mut j = 0;
            while j < self.rows {
                let high = if self.rows - j >= most_rows { most_rows } else { 1 };
                let mut v = 0;
                while v < vectors {
                    let wide = match vectors - v {
                        left if left >= most => most,
                        left => left.min(2),
                    };
                    // SAFETY: whoever makes a `Dots` answers for its rows.
                    unsafe {
                        let at = (v, j);
                        match (wide, high) {
                            (4, 4) => self.of::<I, 4, 4>(at, steps, next, sums),
                            (4, _) => self.of::<I, 4, 1>(at, steps, next, sums),
                            (2, 4) => self.of::<I, 2, 4>(at, steps, next, sums),
                            (2, 2) => self.of::<I, 2, 2>(at, steps, next, sums),
                            (2, _) => self.of::<I, 2, 1>(at, steps, next, sums),
                            (_, 4) => self.of::<I, 1, 4>(at, steps, next, sums),
                            (_, 2) => self.of::<I, 1, 2>(at, steps, next, sums),
                            _ => self.of::<I, 1, 1>(at, steps, next, sums),
                        }
                    }
                    v += wide;
                }
                j += high;
            }
        }
        for (to, sum) in self.to.iter_mut().zip(sums) {
            let mut n = NARROW / 2;
            while n > 0 {
                (0..n).for_each(|l| sum[l] = sum[l].add(sum[l + n]));
                n /= 2;
            }
            *to = sum[0];
        }
    }
}

/// Vectors that are multiplied at once, at most.
pub(crate) const VECTORS: usize = 8;
/// Rows of the matrix that are multiplied with several vectors at once.
const ROWS: usize = 4;

/// Operands of `out[r, j] (+)= Σ_p x[r, p] b[p, j] (+ bias[r, j])` for a few vectors.
pub(crate) struct Vectors<E: Element> {
    pub vectors: usize,
    pub n: usize,
    pub k: usize,
    pub x: Strided<E>,
    pub b: Strided<E>,
    pub out: Ptr<E>,
    /// Elements between vectors and between numbers of a result.
    pub out_steps: [isize; 2],
    pub accumulate: bool,
    /// Address and the same steps.
    pub bias: Option<(Ptr<E::Acc>, [isize; 2])>,
}

impl<E: Element> Vectors<E>
where
    E::Acc: Scalar,
{
    /// Whether reading the matrix where it lies is the best way: for one vector, if that can be read along its memory; for more
    /// while it is so large that reading it once is what takes the time, or results are so few that packing would.
    pub(crate) fn fits(&self) -> bool {
        let (size, own) = (std::mem::size_of::<E>(), same::<E, E::Acc>());
        let large = self.n * self.k * size >= LARGE;
        // Wide register tiles read float32 as well where columns are adjacent, and faster.
        let tiles = large && own && size == 4 && E::Acc::micro().nr >= 32;
        let across = self.b.lane == 1 && self.n > 1 && !tiles;
        if self.vectors == 1 {
            return across || self.b.step == 1;
        }
        let along = self.b.step == 1 && self.k > 1;
        // Of float64 registers hold too few sums to be worth more than two readings of the vectors.
        let most = if std::mem::size_of::<E::Acc>() == 8 && along { 2 } else { VECTORS };
        self.vectors <= most && if along { large || self.n <= VECTORS && self.k >= 64 } else { across && large }
    }

    /// # Safety
    /// The operands have these sizes, and nobody else uses `out` meanwhile.
    pub(crate) unsafe fn run(&self, parallel: bool) {
        let (vectors, n, k) = (self.vectors, self.n, self.k);
        let mut values = Scratch::<E::Acc>::new(vectors * k);
        if k > 0 {
            for (r, row) in values.slice().chunks_exact_mut(k).enumerate() {
                let from = self.x.ptr.at(r as isize * self.x.lane);
                for (p, v) in row.iter_mut().enumerate() {
                    *v = (*from.offset(p as isize * self.x.step)).load();
                }
            }
        }
        let x = &*values.slice();
        let put = |r: usize, j: usize, mut v: E::Acc| {
            let at = |steps: [isize; 2]| r as isize * steps[0] + j as isize * steps[1];
            if let Some((bias, steps)) = self.bias {
                // SAFETY: of `run`; tasks write disjoint outputs.
                v = v.add(unsafe { *bias.at(at(steps)) });
            }
            // SAFETY: as above.
            unsafe {
                let to = self.out.at(at(self.out_steps));
                *to = E::store(if self.accumulate { (*to).load().add(v) } else { v });
            }
        };
        let parallel = parallel && vectors * n * k >= 1 << 15;
        if self.b.step == 1 {
            let grain = ((1 << 14) / k.max(1)).max(1).next_multiple_of(if vectors > 1 { ROWS } else { 1 });
            split(parallel, n, grain, |lo, hi| {
                // SAFETY: of `run`.
                let row = |j: usize| unsafe { self.b.ptr.at(j as isize * self.b.lane) as *const E };
                if vectors == 1 || k == 0 {
                    for j in lo..hi {
                        // SAFETY: as above.
                        let b = unsafe { std::slice::from_raw_parts(row(j), k) };
                        (0..vectors).for_each(|r| put(r, j, dispatch(Dot { x, b })));
                    }
                    return;
                }
                let mut results = [E::Acc::default(); VECTORS * ROWS];
                for j0 in (lo..hi).step_by(ROWS) {
                    let rows = ROWS.min(hi - j0);
                    let to = &mut results[..vectors * rows];
                    dispatch(Dots { x, k, b: row(j0), step: self.b.lane, rows, to: &mut *to });
                    to.iter().enumerate().for_each(|(i, v)| put(i % vectors, j0 + i / vectors, *v));
                }
            });
        } else {
            split(parallel, n, COLUMNS, |lo, hi| {
                let mut sums = Scratch::<E::Acc>::new(vectors * (hi - lo));
                let acc = sums.slice();
                acc.fill(E::Acc::default());
                // SAFETY: of `run`.
                let b = unsafe { self.b.ptr.at(lo as isize) } as *const E;
                if k > 0 {
                    dispatch(Combine { x, k, b, step: self.b.step, acc: &mut *acc });
                }
                for (i, v) in acc.iter().enumerate() {
                    put(i / (hi - lo), lo + i % (hi - lo), *v);
                }
            });
        }
    }
}
