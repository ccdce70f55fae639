//! Attention by tiles: scores never exist as a whole. Forward keeps each row's maximum and sum while it walks the keys;
//! backward computes the scores again from the saved logarithm of the sums.
//!
//! After Dao et al., "FlashAttention: Fast and Memory-Efficient Exact Attention with IO-Awareness", 2022.

use crate::element::{with_float, Element, Float, Number, Ptr, Scratch};
use crate::gemm::{split, Bias, Product, Store, Strided, SERIAL};
use crate::gemm_kernels::Scalar;
use crate::isa::{dispatch, Isa, Kernel};
use crate::pool;
use crate::rows::sum;
use flambeau_core::{bail, ensure, Attention, DType, Operand, Result, Shape};
use half::{bf16, f16};

/// Queries and keys in a tile: whole register tiles, and scores that stay in the second-level cache.
const QUERIES: usize = 112;
const KEYS: usize = 256;

/// One head's matrix: rows and columns with strides.
#[derive(Clone, Copy)]
struct Head<E> {
    ptr: Ptr<E>,
    row: isize,
    column: isize,
}
impl<E: Element> Head<E> {
    /// Head `i` (of all samples) of an operand (n, h, rows, columns).
    fn new(x: &Operand, i: usize) -> Self {
        let at = (i / x.sizes[1] as usize) as i64 * x.strides[0] + (i % x.sizes[1] as usize) as i64 * x.strides[1];
        let ptr = Ptr((x.ptr as *mut E).wrapping_offset(at as isize));
        Head { ptr, row: x.strides[2] as isize, column: x.strides[3] as isize }
    }
    /// Rows from `i` on as lanes, columns as steps.
    fn rows(&self, i: usize) -> Strided<E> {
        Strided { ptr: Ptr(self.ptr.get().wrapping_offset(i as isize * self.row)), lane: self.row, step: self.column }
    }
    /// Columns as lanes, rows from `i` on as steps.
    fn columns(&self, i: usize) -> Strided<E> {
        let Strided { ptr, lane, step } = self.rows(i);
        Strided { ptr, lane: step, step: lane }
    }
    /// Stores rows of `n` numbers from row `i` on.
    unsafe fn store(&self, i: usize, rows: usize, n: usize, from: *const E::Acc) {
        for r in 0..rows {
            let (to, from) = (self.ptr.at((i + r) as isize * self.row), from.add(r * n));
            if self.column == 1 {
                dispatch(Store::<E>(from, to, n, false));
            } else {
                for j in 0..n {
                    *to.offset(j as isize * self.column) = E::store(*from.add(j));
                }
            }
        }
    }
}

/// Sizes, and how scores are scaled and masked.
struct Problem<'a> {
    heads: usize,
    l: usize,
    s: usize,
    e: usize,
    f: usize,
    scale: f64,
    causal: bool,
    mask: Option<Operand<'a>>,
    /// The mask's strides over (n, h, l, s).
    strides: [isize; 4],
    per_sample: usize,
}

impl Problem<'_> {
    fn new<'a>(
        name: &str,
        q: &Operand,
        k: &Operand,
        v: &Operand,
        out: &Operand,
        lse: &Operand,
        p: &Attention<'a>,
    ) -> Result<Problem<'a>> {
        ensure!(
            [q, k, v, out].iter().all(|x| x.sizes.len() == 4 && x.sizes[..2] == q.sizes[..2] && x.dtype == q.dtype)
                && k.sizes[3] == q.sizes[3]
                && k.sizes[2] == v.sizes[2]
                && out.sizes[2] == q.sizes[2]
                && out.sizes[3] == v.sizes[3]
                && lse.sizes == &q.sizes[..3]
                && matches!(lse.dtype, DType::F32 | DType::F64),
            Runtime,
            "{name}: query {}, key {}, value {} and output {} do not fit",
            Shape(q.sizes),
            Shape(k.sizes),
            Shape(v.sizes),
            Shape(out.sizes)
        );
        let full = [q.sizes[0], q.sizes[1], q.sizes[2], k.sizes[2]];
        let mut strides = [0; 4];
        if let Some(m) = &p.mask {
            let r = m.sizes.len();
            ensure!(
                r <= 4 && (0..r).all(|d| m.sizes[d] == 1 || m.sizes[d] == full[d + 4 - r]),
                Runtime,
                "{name}: a mask of sizes {} does not broadcast to {}",
                Shape(m.sizes),
                Shape(&full)
            );
            if !matches!(m.dtype, DType::Bool | DType::F32 | DType::F64 | DType::F16 | DType::BF16) {
                bail!(Runtime, "{name}: expected a mask of bool or float dtype, but got {}", m.dtype);
            }
            for d in 0..r {
                strides[d + 4 - r] = if m.sizes[d] == 1 { 0 } else { m.strides[d] as isize };
            }
        }
        Ok(Problem {
            heads: (q.sizes[0] * q.sizes[1]) as usize,
            l: q.sizes[2] as usize,
            s: k.sizes[2] as usize,
            e: q.sizes[3] as usize,
            f: v.sizes[3] as usize,
            scale: p.scale,
            causal: p.causal,
            mask: p.mask,
            strides,
            per_sample: q.sizes[1] as usize,
        })
    }
    /// How many of the keys `from..to` query `i` sees.
    fn visible(&self, i: usize, from: usize, to: usize) -> usize {
        if self.causal {
            (i + 1).clamp(from, to) - from
        } else {
            to - from
        }
    }
    /// What the mask adds to the scores of query `i` with keys from `j` on.
    fn mask<S: Float>(&self, head: usize, i: usize, j: usize, to: &mut [S]) -> bool {
        let Some(m) = &self.mask else { return false };
        let [sn, sh, sl, ss] = self.strides;
        let at = (head / self.per_sample) as isize * sn
            + (head % self.per_sample) as isize * sh
            + i as isize * sl
            + j as isize * ss;
        // SAFETY: `new` has checked the mask's sizes.
        unsafe {
            macro_rules! load {
                ($T:ty, $x:ident => $value:expr) => {
                    for (c, to) in to.iter_mut().enumerate() {
                        let $x = *(m.ptr as *const $T).offset(at + c as isize * ss);
                        *to = $value;
                    }
                };
            }
            match m.dtype {
                DType::Bool => load!(u8, x => if x != 0 { S::default() } else { S::NEG_INFINITY }),
                DType::F64 => load!(f64, x => S::of(x)),
                DType::F16 => load!(f16, x => S::of(x.load() as f64)),
                DType::BF16 => load!(bf16, x => S::of(x.load() as f64)),
                _ => load!(f32, x => S::of(x as f64)),
            }
        }
        true
    }
}

/// Scores lie in rows of whole vectors, so that no row ends with single numbers.
const WIDTH: usize = 16;

/// `f` over all numbers of a row, by lanes and then over the lanes in a tree.
#[inline(always)]
fn folded<S: Float>(x: &[[S; WIDTH]], first: S, f: impl Fn(S, S) -> S) -> S {
    let mut acc = [first; WIDTH];
    for x in x {
        for l in 0..WIDTH {
            acc[l] = f(acc[l], x[l]);
        }
    }

    let a: [S; 8] = std::array::from_fn(|l| f(acc[l], acc[l + 8]));
    let b: [S; 4] = std::array::from_fn(|l| f(a[l], a[l + 4]));
    f(f(b[0], b[2]), f(b[1], b[3]))
}

/// A row's last vector with `rest` behind its numbers; written whole, since vectors are read from it again at once.
#[inline(always)]
fn end_with<S: Float>(x: &mut [[S; WIDTH]], numbers: usize, rest: S) {
    let count = numbers % WIDTH;
    if let (Some(last), true) = (x.last_mut(), count > 0) {
        *last = std::array::from_fn(|l| if l < count { last[l] } else { rest });
    }
}

/// Scores of one query become weights: returns the new maximum and the tile's sum, and rescales what was summed so far.
struct WeightRow<'a, S> {
    /// Whole vectors.
    scores: &'a mut [S],
    mask: Option<&'a [S]>,
    visible: usize,
    scale: S,
    max: S,
    sum: S,
    out: &'a mut [S],
}
impl<S: Float> Kernel for WeightRow<'_, S> {
    type Out = (S, S);
    #[inline(always)]
    fn run<I: Isa>(self) -> (S, S) {
        let visible = self.visible;
        let row = &mut self.scores[..visible.next_multiple_of(WIDTH)];
        let (x, _) = row.as_chunks_mut::<WIDTH>();
        // A positive scale is left to the exponential's argument.
        let scale = match self.mask {
            Some(m) => {
                for (x, m) in x.iter_mut().zip(m.as_chunks::<WIDTH>().0) {
                    for l in 0..WIDTH {
                        x[l] = S::fma::<I>(x[l], self.scale, m[l]);
                    }
                }
                S::ONE
            }
            None if self.scale > S::default() => self.scale,
            None => {
                for x in x.as_flattened_mut() {
                    *x = x.mul(self.scale);
                }
                S::ONE
            }
        };
        end_with(x, visible, S::NEG_INFINITY);
        let top = folded(x, S::NEG_INFINITY, |a, b| if b > a { b } else { a }).mul(scale);
        let max = if top > self.max { top } else { self.max };
        if max == S::NEG_INFINITY {
            // Nothing is seen so far, but NaN stays NaN.
            for x in x.as_flattened_mut() {
                *x = if *x == S::NEG_INFINITY { S::default() } else { *x };
            }
        } else {
            let below = S::default().sub(max);
            for x in &mut *x {
                for x in x {
                    *x = S::fma::<I>(*x, scale, below).exp::<I>();
                }
            }
        }
        end_with(x, visible, S::default());
        let tile = folded(x, S::default(), S::add);
        self.scores[visible.next_multiple_of(WIDTH)..].fill(S::default());
        if max == self.max {
            return (max, self.sum.add(tile));
        }
        let factor = self.max.sub(max).exp::<I>();
        for o in self.out {
            *o = o.mul(factor);
        }
        (max, S::fma::<I>(self.sum, factor, tile))
    }
}

/// See [`flambeau_core::Backend::attention`].
pub fn attention(q: &Operand, k: &Operand, v: &Operand, p: &Attention, out: &Operand, lse: &Operand) -> Result<()> {
    let problem = Problem::new("attention", q, k, v, out, lse, p)?;
    if problem.heads * problem.l == 0 {
        return Ok(());
    }
    with_float!(q.dtype, "attention", E => forward::<E>(&problem, q, k, v, out, lse));
    Ok(())
}

/// Reads and writes the (n, h, l) operand of logarithms.
unsafe fn lse_at(lse: &Operand, head: usize, i: usize) -> *mut u8 {
    let h = lse.sizes[1] as usize;
    let at = (head / h) as i64 * lse.strides[0] + (head % h) as i64 * lse.strides[1] + i as i64 * lse.strides[2];
    lse.ptr.offset(at as isize * lse.dtype.size() as isize)
}

fn forward<E: Element>(p: &Problem, q: &Operand, k: &Operand, v: &Operand, out: &Operand, lse: &Operand)
where
    E::Acc: Scalar,
{
    let tiles = p.l.div_ceil(QUERIES);
    let task = |task: usize| {
        let (head, first) = (task / tiles, task % tiles * QUERIES);
        let rows = QUERIES.min(p.l - first);
        let (hq, hk, hv, ho) =
            (Head::<E>::new(q, head), Head::<E>::new(k, head), Head::<E>::new(v, head), Head::<E>::new(out, head));
        let mut scores = Scratch::<E::Acc>::new(rows * KEYS.min(p.s.next_multiple_of(WIDTH)));
        let mut sums = Scratch::<E::Acc>::new(rows * p.f);
        let mut mask = Scratch::<E::Acc>::new(KEYS);
        let (mut max, mut total) = ([E::Acc::NEG_INFINITY; QUERIES], [E::Acc::default(); QUERIES]);
        sums.slice().fill(E::Acc::default());
        let end = if p.causal { p.s.min(first + rows) } else { p.s };
        for j in (0..end).step_by(KEYS) {
            let n = KEYS.min(end - j);
            let wide = n.next_multiple_of(WIDTH);
            let c = scores.ptr();
            // SAFETY: the operands describe their memory; every task writes its own rows.
            unsafe {
                Product {
                    m: rows,
                    n,
                    k: p.e,
                    a: &hq.rows(first),
                    b: &hk.rows(j),
                    c,
                    ldc: wide as isize,
                    accumulate: false,
                    bias: Bias::None,
                }
                .run(false);
                for r in 0..rows {
                    let masked = p.mask(head, first + r, j, &mut mask.slice()[..n]);
                    let row = WeightRow {
                        scores: std::slice::from_raw_parts_mut(c.add(r * wide), wide),
                        mask: masked.then(|| &*mask.slice()),
                        visible: p.visible(first + r, j, j + n),
                        scale: <E::Acc as Float>::of(p.scale),
                        max: max[r],
                        sum: total[r],
                        out: std::slice::from_raw_parts_mut(sums.ptr().add(r * p.f), p.f),
                    };
                    (max[r], total[r]) = dispatch(row);
                }
                let weights = Strided { ptr: Ptr(c), lane: wide as isize, step: 1 };
                Product {
                    m: rows,
                    n: p.f,
                    k: n,
                    a: &weights,
                    b: &hv.columns(j),
                    c: sums.ptr(),
                    ldc: p.f as isize,
                    accumulate: true,
                    bias: Bias::None,
                }
                .run(false);
            }
        }
        for r in 0..rows {
            let (m, t) = (max[r], total[r]);
            let zero = t == E::Acc::default();
            if !zero {
                for o in &mut sums.slice()[r * p.f..(r + 1) * p.f] {
                    *o = Float::div(*o, t);
                }
            }
            let log = if zero { f64::NEG_INFINITY } else { Float::to_f64(m.add(Float::ln(t))) };
            // SAFETY: as above.
            unsafe {
                let to = lse_at(lse, head, first + r);
                if lse.dtype == DType::F64 {
                    *(to as *mut f64) = log;
                } else {
                    *(to as *mut f32) = log as f32;
                }
            }
        }
        // SAFETY: as above.
        unsafe { ho.store(first, rows, p.f, sums.ptr()) };
    };
    if p.heads * p.l * p.s * (p.e + p.f) < SERIAL {
        (0..p.heads * tiles).for_each(task);
    } else {
        pool::parallel(p.heads * tiles, task);
    }
}

/// Scores and the gradients of weights of one query become weights and the gradients of scores.
struct GradRow<'a, S> {
    scores: &'a mut [S],
    grads: &'a mut [S],
    mask: Option<&'a [S]>,
    visible: usize,
    scale: S,
    lse: S,
    /// `Σ g out` of the row.
    delta: S,
}
impl<S: Float> Kernel for GradRow<'_, S> {
    type Out = ();
    #[inline(always)]
    fn run<I: Isa>(self) {
        let visible = if self.lse == S::NEG_INFINITY { 0 } else { self.visible };
        let whole = visible.next_multiple_of(WIDTH);
        let (x, _) = self.scores[..whole].as_chunks_mut::<WIDTH>();
        let (g, _) = self.grads[..whole].as_chunks_mut::<WIDTH>();
        let below = S::default().sub(self.lse);
        match self.mask {
            Some(m) => {
                for (x, m) in x.iter_mut().zip(m.as_chunks::<WIDTH>().0) {
                    for l in 0..WIDTH {
                        x[l] = S::fma::<I>(x[l], self.scale, m[l]).add(below).exp::<I>();
                    }
                }
            }
            None => {
                for x in &mut *x {
                    for x in x {
                        *x = S::fma::<I>(*x, self.scale, below).exp::<I>();
                    }
                }
            }
        }
        end_with(x, visible, S::default());
        end_with(g, visible, S::default());
        for (g, x) in g.iter_mut().zip(x) {
            for l in 0..WIDTH {
                g[l] = x[l].mul(g[l].sub(self.delta)).mul(self.scale);
            }
        }
        self.scores[whole..].fill(S::default());
        self.grads[whole..].fill(S::default());
    }
}

/// See [`flambeau_core::Backend::attention_grad`].
#[allow(clippy::too_many_arguments)]
pub fn attention_grad(
    g: &Operand,
    q: &Operand,
    k: &Operand,
    v: &Operand,
    out: &Operand,
    lse: &Operand,
    p: &Attention,
    gq: &Operand,
    gk: &Operand,
    gv: &Operand,
) -> Result<()> {
    let name = "attention_backward";
    let problem = Problem::new(name, q, k, v, out, lse, p)?;
    for (a, b) in [(g, out), (gq, q), (gk, k), (gv, v)] {
        ensure!(
            a.sizes == b.sizes && a.dtype == b.dtype,
            Runtime,
            "{name}: a gradient of {} {} does not match {} {}",
            a.dtype,
            Shape(a.sizes),
            b.dtype,
            Shape(b.sizes)
        );
    }
    with_float!(q.dtype, name, E => Backward::<E> { p: &problem, x: [g, q, k, v, out], lse, to: [gq, gk, gv], _e: std::marker::PhantomData }.run());
    Ok(())
}

struct Backward<'a, E> {
    p: &'a Problem<'a>,
    /// g, q, k, v, out.
    x: [&'a Operand<'a>; 5],
    lse: &'a Operand<'a>,
    /// gq, gk, gv.
    to: [&'a Operand<'a>; 3],
    _e: std::marker::PhantomData<fn() -> E>,
}

impl<E: Element> Backward<'_, E>
where
    E::Acc: Scalar,
{
    fn run(&self) {
        let p = self.p;
        let (queries, keys) = (p.l.div_ceil(QUERIES), p.s.div_ceil(KEYS));
        let mut delta = Scratch::<E::Acc>::new(p.heads * p.l);
        let to = Ptr(delta.ptr());
        split(p.heads * p.l * p.f >= 1 << 15, p.heads, 1, |lo, hi| {
            for head in lo..hi {
                let (g, out) = (Head::<E>::new(self.x[0], head), Head::<E>::new(self.x[4], head));
                for i in 0..p.l {
                    // SAFETY: the operands describe their memory; heads are disjoint.
                    unsafe {
                        let (g, o) = (g.ptr.at(i as isize * g.row), out.ptr.at(i as isize * out.row));
                        let (sg, so) = (self.x[0].strides[3] as isize, self.x[4].strides[3] as isize);
                        *to.get().add(head * p.l + i) =
                            sum(p.f, |j| (*g.offset(j as isize * sg)).load().mul((*o.offset(j as isize * so)).load()));
                    }
                }
            }
        });
        let delta = Ptr(delta.ptr());
        let work = p.heads * p.l * p.s * (p.e + p.f);
        let each = |n: usize, f: &(dyn Fn(usize) + Sync)| {
            if work < SERIAL {
                (0..n).for_each(f)
            } else {
                pool::parallel(n, f)
            }
        };
        if p.heads >= 16 || keys * queries <= 2 {
            each(p.heads, &|i| self.part(i, 0..keys.max(1), 0..queries, true, true, delta));
        } else {
            // Few heads: keys and queries apart, at the price of computing the scores once more.
            let k = keys.max(1);
            each(p.heads * k, &|i| self.part(i / k, i % k..i % k + 1, 0..queries, true, false, delta));
            each(p.heads * queries, &|i| {
                self.part(i / queries, 0..keys, i % queries..i % queries + 1, false, true, delta)
            });
        }
    }

    /// Gradients of some keys and values summed over some queries, and the other way round.
    fn part(
        &self,
        head: usize,
        keys: std::ops::Range<usize>,
        queries: std::ops::Range<usize>,
        want_kv: bool,
        want_q: bool,
        delta: Ptr<E::Acc>,
    ) {
        let p = self.p;
        let [g, q, k, v, _] = self.x.map(|x| Head::<E>::new(x, head));
        let [gq, gk, gv] = self.to.map(|x| Head::<E>::new(x, head));
        let first = queries.start * QUERIES;
        let last = (queries.end * QUERIES).min(p.l);
        let (tq, tk) = (QUERIES.min(p.l), KEYS.min(p.s.next_multiple_of(WIDTH)));
        let (mut scores, mut grads) = (Scratch::<E::Acc>::new(tq * tk), Scratch::<E::Acc>::new(tq * tk));
        let mut sum_q = Scratch::<E::Acc>::new(if want_q { (last - first) * p.e } else { 0 });
        let (mut sum_k, mut sum_v) = (Scratch::<E::Acc>::new(tk * p.e), Scratch::<E::Acc>::new(tk * p.f));
        let mut mask = Scratch::<E::Acc>::new(KEYS);
        sum_q.slice().fill(E::Acc::default());
        let (x, y) = (scores.ptr(), grads.ptr());
        for kt in keys {
            let j = kt * KEYS;
            let there = KEYS.min(p.s - j.min(p.s));
            sum_k.slice().fill(E::Acc::default());
            sum_v.slice().fill(E::Acc::default());
            for qt in queries.clone() {
                let i = qt * QUERIES;
                let m = QUERIES.min(p.l - i);
                // Keys that the last of these queries sees.
                let n = if p.causal { there.min((i + m).saturating_sub(j)) } else { there };
                if n == 0 {
                    continue;
                }
                let wide = n.next_multiple_of(WIDTH);
                let product = |a: &Strided<E>, b: &Strided<E>, depth: usize, c: *mut E::Acc| {
                    // SAFETY: the operands describe their memory, and `c` has m rows of n.
                    unsafe {
                        Product { m, n, k: depth, a, b, c, ldc: wide as isize, accumulate: false, bias: Bias::None }
                            .run(false)
                    }
                };
                product(&q.rows(i), &k.rows(j), p.e, x);
                product(&g.rows(i), &v.rows(j), p.f, y);
                for r in 0..m {
                    let masked = p.mask(head, i + r, j, &mut mask.slice()[..n]);
                    // SAFETY: rows of the two tiles, and values of (n, h, l) operands.
                    unsafe {
                        let lse = lse_at(self.lse, head, i + r);
                        let lse = if self.lse.dtype == DType::F64 {
                            *(lse as *const f64)
                        } else {
                            *(lse as *const f32) as f64
                        };
                        dispatch(GradRow {
                            scores: std::slice::from_raw_parts_mut(x.add(r * wide), wide),
                            grads: std::slice::from_raw_parts_mut(y.add(r * wide), wide),
                            mask: masked.then(|| &*mask.slice()),
                            visible: p.visible(i + r, j, j + n),
                            scale: <E::Acc as Float>::of(p.scale),
                            lse: <E::Acc as Float>::of(lse),
                            delta: *delta.get().add(head * p.l + i + r),
                        });
                    }
                }
                let bias = Bias::None;
                // Keys as rows: the tiles read down their columns.
                let (weights, slopes) = (
                    Strided { ptr: Ptr(x), lane: 1, step: wide as isize },
                    Strided { ptr: Ptr(y), lane: 1, step: wide as isize },
                );
                // SAFETY: as above; the sums have room for n rows of f, n of e, and all queries' rows of e.
                unsafe {
                    if want_kv {
                        let c = sum_v.ptr();
                        Product {
                            m: n,
                            n: p.f,
                            k: m,
                            a: &weights,
                            b: &g.columns(i),
                            c,
                            ldc: p.f as isize,
                            accumulate: true,
                            bias,
                        }
                        .run(false);
                        let c = sum_k.ptr();
                        Product {
                            m: n,
                            n: p.e,
                            k: m,
                            a: &slopes,
                            b: &q.columns(i),
                            c,
                            ldc: p.e as isize,
                            accumulate: true,
                            bias,
                        }
                        .run(false);
                    }
                    if want_q {
                        let slopes = Strided { ptr: Ptr(y), lane: wide as isize, step: 1 };
                        let c = sum_q.ptr().add((i - first) * p.e);
                        Product {
                            m,
                            n: p.e,
                            k: n,
                            a: &slopes,
                            b: &k.columns(j),
                            c,
                            ldc: p.e as isize,
                            accumulate: true,
                            bias,
                        }
                        .run(false);
                    }
                }
            }
            if want_kv {
                // SAFETY: every part owns its keys.
                unsafe {
                    gk.store(j, there, p.e, sum_k.ptr());
                    gv.store(j, there, p.f, sum_v.ptr());
                }
            }
        }
        if want_q {
            // SAFETY: every part owns its queries.
            unsafe { gq.store(first, last - first, p.e, sum_q.ptr()) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{compare, Case};

    #[test]
    fn against_the_definition() {
        for dtype in [DType::F32, DType::F64, DType::BF16] {
            let acc = if dtype == DType::F64 { DType::F64 } else { DType::F32 };
            for (n, h, l, s, e, f) in [
                (2, 3, 5, 7, 4, 6),
                (1, 2, 150, 300, 16, 20),
                (1, 17, 130, 9, 8, 8),
                (1, 1, 3, 0, 4, 4),
                (1, 1, 1, 600, 8, 8),
            ] {
                for kind in 0..4 {
                    let transposed = kind % 2 == 1;
                    let make = |sizes: [i64; 4], seed| {
                        // (n, l, h, e) in memory, as a projection leaves it.
                        let mut c = Case::random(dtype, &sizes, false, seed);
                        if transposed {
                            c.strides = vec![sizes[1] * sizes[2] * sizes[3], sizes[3], sizes[1] * sizes[3], 1];
                        }
                        c
                    };
                    let (q, k, v) = (make([n, h, l, e], 1), make([n, h, s, e], 2), make([n, h, s, f], 3));
                    let (out, g) = (make([n, h, l, f], 4), make([n, h, l, f], 5));
                    let (gq, gk, gv) = (make([n, h, l, e], 6), make([n, h, s, e], 7), make([n, h, s, f], 8));
                    let lse = Case::random(acc, &[n, h, l], false, 9);
                    let mask = if kind == 2 {
                        let bits: Vec<f64> =
                            (0..l * s).map(|i| (i * 7 % 5 != 0 && i / s.max(1) != 1) as u8 as f64).collect();
                        Some(Case::real(DType::Bool, &[l, s], &bits))
                    } else if kind == 3 {
                        Some(Case::random(DType::F32, &[n, 1, l, s], false, 10))
                    } else {
                        None
                    };
                    let causal = kind == 1;
                    let p = Attention { scale: 0.3, causal, mask: mask.as_ref().map(|m| m.operand()) };
                    let mut bits: Option<[Vec<u8>; 4]> = None;
                    for threads in [1, 2, 8] {
                        pool::set_num_threads(threads);
                        attention(&q.operand(), &k.operand(), &v.operand(), &p, &out.operand(), &lse.operand())
                            .unwrap();
                        attention_grad(
                            &g.operand(),
                            &q.operand(),
                            &k.operand(),
                            &v.operand(),
                            &out.operand(),
                            &lse.operand(),
                            &p,
                            &gq.operand(),
                            &gk.operand(),
                            &gv.operand(),
                        )
                        .unwrap();
                        let now = [out.bytes.clone(), gq.bytes.clone(), gk.bytes.clone(), gv.bytes.clone()];
                        assert!(*bits.get_or_insert(now.clone()) == now);
                    }
                    let (qv, kv, vv, gr) = (q.reals(), k.reals(), v.reals(), g.reals());
                    let ov = out.reals();
                    let mv = mask.as_ref().map(|m| m.reals());
                    let (mut wo, mut wq, mut wk, mut wv) =
                        (vec![0.0; ov.len()], vec![0.0; qv.len()], vec![0.0; kv.len()], vec![0.0; vv.len()]);
                    let [n, h, l, s, e, f] = [n, h, l, s, e, f].map(|x| x as usize);
                    for b in 0..n * h {
                        for i in 0..l {
                            let row = b * l + i;
                            let score: Vec<f64> = (0..s)
                                .map(|j| {
                                    let dot: f64 = (0..e).map(|c| qv[row * e + c] * kv[(b * s + j) * e + c]).sum();
                                    let m = match (&mv, kind) {
                                        (Some(m), 2) => {
                                            if m[i * s + j] != 0.0 {
                                                0.0
                                            } else {
                                                f64::NEG_INFINITY
                                            }
                                        }
                                        (Some(m), _) => m[((b / h) * l + i) * s + j],
                                        _ => 0.0,
                                    };
                                    if causal && j > i {
                                        f64::NEG_INFINITY
                                    } else {
                                        dot * 0.3 + m
                                    }
                                })
                                .collect();
                            let total: f64 = score.iter().map(|x| x.exp()).sum();
                            if total == 0.0 {
                                continue;
                            }
                            let delta: f64 = (0..f).map(|c| gr[row * f + c] * ov[row * f + c]).sum();
                            for j in 0..s {
                                let w = score[j].exp() / total;
                                let mut dw = 0.0;
                                for c in 0..f {
                                    wo[row * f + c] += w * vv[(b * s + j) * f + c];
                                    wv[(b * s + j) * f + c] += w * gr[row * f + c];
                                    dw += gr[row * f + c] * vv[(b * s + j) * f + c];
                                }
                                let ds = w * (dw - delta) * 0.3;
                                for c in 0..e {
                                    wq[row * e + c] += ds * kv[(b * s + j) * e + c];
                                    wk[(b * s + j) * e + c] += ds * qv[row * e + c];
                                }
                            }
                        }
                    }
                    let c = |x: Vec<f64>| x.into_iter().map(|v| v.into()).collect::<Vec<_>>();
                    compare(&out, &c(wo), 20.0, "attention");
                    compare(&gq, &c(wq), 40.0, "gq");
                    compare(&gk, &c(wk), 40.0, "gk");
                    compare(&gv, &c(wv), 40.0, "gv");
                }
            }
        }
    }
}
