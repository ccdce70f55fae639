//! The passes over a tile of scores between attention's products. A tile has the keys as rows and the queries as lanes, so that
//! maxima, sums and exponentials of 16 queries at a time need no step across the lanes of a vector.

use crate::element::{Element, Float, Number, Ptr};
use crate::isa::{Isa, Kernel};

/// Queries that a pass takes together; rows of scores are whole vectors of as many.
pub(crate) const WIDTH: usize = 16;
/// Rows whose maxima and sums are kept apart, since one addition waits for the other.
const APART: usize = 4;

/// Scores of `WIDTH` queries with some keys.
pub(crate) struct Lanes<S> {
    /// The first key's row, and the distance between rows.
    pub x: *mut S,
    pub ld: usize,
    /// Keys that any of the queries sees.
    pub keys: usize,
    /// Keys from which on query `l` does not see key `visible + l + 1`.
    pub visible: usize,
    /// Rows behind the keys that are read as zeros.
    pub zeros: usize,
    /// What the mask adds, in rows of `WIDTH`.
    pub mask: Option<*const S>,
    pub scale: S,
}
impl<S: Float> Lanes<S> {
    #[inline(always)]
    unsafe fn row<'a>(&self, x: *mut S, key: usize) -> &'a mut [S; WIDTH] {
        &mut *(x.add(key * self.ld) as *mut [S; WIDTH])
    }
    /// Replaces what queries do not see.
    #[inline(always)]
    unsafe fn hide(&self, x: *mut S, with: S) {
        for key in self.visible + 1..self.keys {
            let hidden = (key - self.visible) as u32;
            let row = self.row(x, key);
            *row = std::array::from_fn(|l| if (l as u32) < hidden { with } else { row[l] });
        }
    }
    #[inline(always)]
    unsafe fn clear(&self, x: *mut S) {
        for key in self.keys..self.keys + self.zeros {
            *self.row(x, key) = [S::default(); WIDTH];
        }
    }
    /// Scales and masks the scores where that cannot be left to the exponential's argument; the scale that is left.
    #[inline(always)]
    unsafe fn prepare<I: Isa>(&self) -> S {
        if let Some(mask) = self.mask {
            for key in 0..self.keys {
                let (row, m) = (self.row(self.x, key), &*(mask.add(key * WIDTH) as *const [S; WIDTH]));
                for l in 0..WIDTH {
                    row[l] = S::fma::<I>(row[l], self.scale, m[l]);
                }
            }
            return S::ONE;
        }
        if self.scale > S::default() {
            return self.scale;
        }
        for key in 0..self.keys {
            for x in self.row(self.x, key) {
                *x = x.mul(self.scale);
            }
        }
        S::ONE
    }
    /// `f(row, sums)` for some keys, whose sums are then added up by `add`.
    #[inline(always)]
    unsafe fn fold(
        &self,
        keys: std::ops::Range<usize>,
        first: S,
        mut f: impl FnMut(&mut [S; WIDTH], &mut [S; WIDTH]),
        add: impl Fn(S, S) -> S,
    ) -> [S; WIDTH] {
        let mut acc = [[first; WIDTH]; APART];
        let whole = keys.start + keys.len() / APART * APART;
        for key in (keys.start..whole).step_by(APART) {
            for (u, acc) in acc.iter_mut().enumerate() {
                f(self.row(self.x, key + u), acc);
            }
        }
        for key in whole..keys.end {
            f(self.row(self.x, key), &mut acc[0]);
        }
        std::array::from_fn(|l| add(add(acc[0][l], acc[2][l]), add(acc[1][l], acc[3][l])))
    }
}

/// Scores become weights; the maximum and sum of each query are brought up to date.
pub(crate) struct Weights<'a, S> {
    pub of: Lanes<S>,
    pub max: &'a mut [S; WIDTH],
    pub sum: &'a mut [S; WIDTH],
    /// By what the sums so far, of weights and of values, are to be multiplied.
    pub factor: &'a mut [S; WIDTH],
}
impl<S: Float> Kernel for Weights<'_, S> {
    type Out = ();
    #[inline(always)]
    fn run<I: Isa>(self) {
        let (of, zero) = (&self.of, S::default());
        // SAFETY: whoever makes `Lanes` answers for its rows, which nobody else uses meanwhile.
        unsafe {
            let scale = of.prepare::<I>();
            of.hide(of.x, S::NEG_INFINITY);
            let larger = |a: S, b: S| if b > a { b } else { a };
            let top = of.fold(
                0..of.keys,
                S::NEG_INFINITY,
                |x, acc| {
                    for l in 0..WIDTH {
                        acc[l] = larger(acc[l], x[l]);
                    }
                },
                larger,
            );
            let max: [S; WIDTH] = std::array::from_fn(|l| larger(self.max[l], top[l].mul(scale)));
            // A query that sees nothing so far has weights of 0, but NaN stays NaN.
            let below: [S; WIDTH] =
                std::array::from_fn(|l| if max[l] == S::NEG_INFINITY { zero } else { zero.sub(max[l]) });
            // Numbers below the normal ones are slow, which the shorter exponential makes of what is hidden.
            let whole = if of.mask.is_none() { of.keys.min(of.visible + 1) } else { 0 };
            let seen = of.fold(
                0..whole,
                zero,
                |x, acc| {
                    for l in 0..WIDTH {
                        x[l] = S::fma::<I>(x[l], scale, below[l]).exp_below::<I>();
                        acc[l] = acc[l].add(x[l]);
                    }
                },
                S::add,
            );
            let rest = of.fold(
                whole..of.keys,
                zero,
                |x, acc| {
                    for l in 0..WIDTH {
                        x[l] = S::fma::<I>(x[l], scale, below[l]).exp::<I>();
                        acc[l] = acc[l].add(x[l]);
                    }
                },
                S::add,
            );
            for l in 0..WIDTH {
                let factor = if max[l] == self.max[l] { S::ONE } else { self.max[l].add(below[l]).exp::<I>() };
                self.factor[l] = factor;
                self.sum[l] = S::fma::<I>(self.sum[l], factor, seen[l].add(rest[l]));
            }
            *self.max = max;
            of.clear(of.x);
        }
    }
}

/// Scores and the gradients of weights become weights and the gradients of scores.
pub(crate) struct Slopes<'a, S> {
    pub of: Lanes<S>,
    pub grads: *mut S,
    /// Each query's logarithm of the sum, and `Σ g out`.
    pub lse: &'a [S; WIDTH],
    pub delta: &'a [S; WIDTH],
}
impl<S: Float> Kernel for Slopes<'_, S> {
    type Out = ();
    #[inline(always)]
    fn run<I: Isa>(self) {
        let (of, zero) = (&self.of, S::default());
        let delta = *self.delta;
        // SAFETY: as `Weights`, for both tiles.
        unsafe {
            let scale = of.prepare::<I>();
            // A query that sees nothing has weights of 0.
            let below: [S; WIDTH] = std::array::from_fn(|l| {
                if self.lse[l] == S::NEG_INFINITY {
                    S::NEG_INFINITY
                } else {
                    zero.sub(self.lse[l])
                }
            });
            let slope = |x: S, g: S, l: usize| x.mul(g.sub(delta[l])).mul(of.scale);
            for key in 0..of.keys {
                let (x, g) = (of.row(of.x, key), of.row(self.grads, key));
                // As for the weights; what is hidden without a mask is an ordinary number until it is replaced.
                if of.mask.is_none() {
                    for l in 0..WIDTH {
                        x[l] = S::fma::<I>(x[l], scale, below[l]).exp_below::<I>();
                        g[l] = slope(x[l], g[l], l);
                    }
                } else {
                    for l in 0..WIDTH {
                        x[l] = S::fma::<I>(x[l], scale, below[l]).exp::<I>();
                        g[l] = slope(x[l], g[l], l);
                    }
                }
            }
            for x in [of.x, self.grads] {
                of.hide(x, zero);
                of.clear(x);
            }
        }
    }
}

/// Rows of `n` numbers times one number each.
pub(crate) struct ScaleRows<'a, S> {
    pub rows: *mut S,
    pub ld: isize,
    pub n: usize,
    pub by: &'a [S],
}
impl<S: Float> Kernel for ScaleRows<'_, S> {
    type Out = ();
    #[inline(always)]
    fn run<I: Isa>(self) {
        for (r, &by) in self.by.iter().enumerate() {
            // SAFETY: whoever makes it answers for as many rows as numbers.
            let row = unsafe { std::slice::from_raw_parts_mut(self.rows.offset(r as isize * self.ld), self.n) };
            for x in row {
                *x = x.mul(by);
            }
        }
    }
}

/// Copies a matrix between layouts, as numbers of the computing type on one side.
pub(crate) struct CopyRows<E: Element> {
    pub at: Ptr<E>,
    /// Distances between rows and between columns.
    pub by: [isize; 2],
    pub numbers: *mut E::Acc,
    pub ld: usize,
    pub rows: usize,
    pub n: usize,
    /// To the numbers, or from them.
    pub load: bool,
}
impl<E: Element> Kernel for CopyRows<E> {
    type Out = ();
    #[inline(always)]
    fn run<I: Isa>(self) {
        for r in 0..self.rows {
            // SAFETY: whoever makes it answers for rows of `n` elements on both sides, which do not overlap.
            unsafe {
                let (at, numbers) = (self.at.at(r as isize * self.by[0]), self.numbers.add(r * self.ld));
                let numbers = std::slice::from_raw_parts_mut(numbers, self.n);
                if self.by[1] == 1 {
                    let at = std::slice::from_raw_parts_mut(at, self.n);
                    if self.load {
                        numbers.iter_mut().zip(at).for_each(|(d, s)| *d = s.load());
                    } else {
                        at.iter_mut().zip(numbers).for_each(|(d, s)| *d = E::store(*s));
                    }
                } else {
                    for (j, x) in numbers.iter_mut().enumerate() {
                        let at = at.offset(j as isize * self.by[1]);
                        if self.load {
                            *x = (*at).load();
                        } else {
                            *at = E::store(*x);
                        }
                    }
                }
            }
        }
    }
}

/// `Σ g out` of rows, and their logarithms of the sums.
pub(crate) struct Dots<E: Element> {
    pub g: Ptr<E>,
    pub out: Ptr<E>,
    /// Distances between rows and between columns.
    pub by: [[isize; 2]; 2],
    pub n: usize,
    pub rows: usize,
    pub to: *mut E::Acc,
}
impl<E: Element> Kernel for Dots<E>
where
    E::Acc: Float,
{
    type Out = ();
    #[inline(always)]
    fn run<I: Isa>(self) {
        for r in 0..self.rows {
            // SAFETY: whoever makes it answers for rows of `n` elements, and a number for each.
            unsafe {
                let [g, out] = [(self.g, self.by[0]), (self.out, self.by[1])].map(|(p, by)| p.at(r as isize * by[0]));
                let [sg, so] = [self.by[0][1], self.by[1][1]];
                *self.to.add(r) = if sg == 1 && so == 1 {
                    let (g, out) = (std::slice::from_raw_parts(g, self.n), std::slice::from_raw_parts(out, self.n));
                    dot(g, out)
                } else {
                    crate::rows::sum(self.n, |j| {
                        (*g.offset(j as isize * sg)).load().mul((*out.offset(j as isize * so)).load())
                    })
                };
            }
        }
    }
}
/// By lanes, and then over the lanes in a tree.
#[inline(always)]
fn dot<E: Element>(a: &[E], b: &[E]) -> E::Acc {
    let mut acc = [E::Acc::default(); WIDTH];
    let ((a, rest_a), (b, rest_b)) = (a.as_chunks::<WIDTH>(), b.as_chunks::<WIDTH>());
    for (a, b) in a.iter().zip(b) {
        for l in 0..WIDTH {
            acc[l] = acc[l].add(a[l].load().mul(b[l].load()));
        }
    }
    for (acc, (a, b)) in acc.iter_mut().zip(rest_a.iter().zip(rest_b)) {
        *acc = acc.add(a.load().mul(b.load()));
    }
    let a: [E::Acc; 8] = std::array::from_fn(|l| acc[l].add(acc[l + 8]));
    let b: [E::Acc; 4] = std::array::from_fn(|l| a[l].add(a[l + 4]));
    b[0].add(b[2]).add(b[1].add(b[3]))
}
