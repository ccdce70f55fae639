//! Attention by tiles: scores never exist as a whole. Forward keeps each row's maximum and sum while it walks the keys;
//! backward computes the scores again from the saved logarithm of the sums.
//!
//! After Dao et al., "FlashAttention: Fast and Memory-Efficient Exact Attention with IO-Awareness", 2022.

use crate::attention_rows::{CopyRows, Dots, Lanes, ScaleRows, Slopes, Weights, WIDTH};
use crate::element::{with_float, Element, Float, Number, Ptr, Scratch};
use crate::gemm::{same, Panels, Strided, Tiles, SERIAL};
use crate::gemm_kernels::{Micro, Scalar};
use crate::isa::dispatch;
use crate::pool;
use flambeau_core::{bail, ensure, Attention, DType, Operand, Result, Shape};
use half::{bf16, f16};
use std::ops::Range;

/// Queries and keys in a tile of scores: whole vectors, and what stays in the nearest caches. Forward takes fewer queries, of which
/// fewer do not see a key that others do.
const QUERIES: usize = 64;
const FORWARD_QUERIES: usize = 32;
const KEYS: usize = 256;

/// One head's matrix: rows and columns with strides.
#[derive(Clone, Copy)]
struct Head<E> {
    ptr: Ptr<E>,
    row: isize,
    column: isize,
}
impl<E: Element> Head<E>
where
    E::Acc: Scalar,
{
    /// Head `i` (of all samples) of an operand (n, h, rows, columns).
    fn new(x: &Operand, i: usize) -> Self {
        let at = (i / x.sizes[1] as usize) as i64 * x.strides[0] + (i % x.sizes[1] as usize) as i64 * x.strides[1];
        let ptr = Ptr((x.ptr as *mut E).wrapping_offset(at as isize));
        Head { ptr, row: x.strides[2] as isize, column: x.strides[3] as isize }
    }
    fn copy(&self, from: usize, rows: usize, n: usize, numbers: *mut E::Acc, ld: usize, load: bool) {
        let at = Ptr(self.ptr.get().wrapping_offset(from as isize * self.row));
        dispatch(CopyRows { at, by: [self.row, self.column], numbers, ld, rows, n, load });
    }
    /// Rows of `n` numbers, where they lie or copied.
    fn rows(&self, from: usize, rows: usize, n: usize) -> Rows<E::Acc> {
        // Whole vectors are read, and rows that begin on the same sets of a cache would push each other out of it.
        let lies = same::<E, E::Acc>()
            && self.column == 1
            && self.row > 0
            && n.is_multiple_of(WIDTH)
            && !(self.row as usize * size_of::<E>()).is_multiple_of(1024);
        if lies {
            let ptr = self.ptr.get().wrapping_offset(from as isize * self.row) as *mut E::Acc;
            return Rows { ptr: Ptr(ptr), ld: self.row as usize, _copy: None };
        }
        let ld = n.next_multiple_of(WIDTH);
        let mut copy = Scratch::new(rows * ld);
        self.copy(from, rows, n, copy.ptr(), ld, true);
        Rows { ptr: Ptr(copy.ptr()), ld, _copy: Some(copy) }
    }
    /// Where rows of `n` numbers are summed up: where they are wanted, or apart.
    fn sums(&self, from: usize, rows: usize, n: usize) -> Rows<E::Acc> {
        if same::<E, E::Acc>() && self.column == 1 && self.row > 0 {
            let ptr = self.ptr.get().wrapping_offset(from as isize * self.row) as *mut E::Acc;
            return Rows { ptr: Ptr(ptr), ld: self.row as usize, _copy: None };
        }
        let mut copy = Scratch::new(rows * n);
        Rows { ptr: Ptr(copy.ptr()), ld: n, _copy: Some(copy) }
    }
    /// Stores what was summed up apart.
    fn store(&self, from: usize, rows: usize, n: usize, sums: &Rows<E::Acc>) {
        if sums._copy.is_some() {
            self.copy(from, rows, n, sums.ptr.get(), sums.ld, false);
        }
    }
}

/// Rows of adjacent numbers.
struct Rows<S: Copy> {
    ptr: Ptr<S>,
    ld: usize,
    _copy: Option<Scratch<S>>,
}
impl<S: Scalar> Rows<S> {
    fn at(&self, i: usize) -> *mut S {
        self.ptr.get().wrapping_add(i * self.ld)
    }
    /// Writes zeros.
    unsafe fn clear(&self, rows: Range<usize>, n: usize) {
        for r in rows {
            std::slice::from_raw_parts_mut(self.at(r), n).fill(S::default());
        }
    }
}

/// `C = A B` or `C += A B` of small matrices: distances between A's rows and steps, between B's steps and panels.
struct Small<S> {
    m: usize,
    n: usize,
    a: *const S,
    at: [isize; 2],
    b: *const S,
    ldb: usize,
    panel: usize,
    c: *mut S,
    ldc: usize,
}
/// What a product does for some rows.
struct Part {
    steps: Range<usize>,
    /// Columns before it are not wanted.
    column: usize,
    add: bool,
}

/// The machine's register tile, for products within one thread.
struct Tiler<S: Scalar> {
    micro: Micro<S>,
}
impl<S: Scalar> Tiler<S> {
    /// # Safety
    /// Operands are readable, B for whole vectors, and C is writable and nobody else's.
    unsafe fn run(&self, x: &Small<S>, part: impl Fn(usize, usize) -> Part) {
        let Micro { mr, nr, run, near } = self.micro;
        let tiles = Tiles { rows: x.m, count: x.m.div_ceil(mr) };
        for t in 0..tiles.count {
            let (i, rows) = tiles.at(t);
            let Part { steps, column, add } = part(i, rows);
            if steps.is_empty() {
                continue;
            }
            let k = steps.len();
            let a = x.a.wrapping_offset(i as isize * x.at[0] + steps.start as isize * x.at[1]);
            let mut packed = Scratch::<S>::new(if near.is_none() { mr * k } else { 0 });
            if near.is_none() {
                Strided { ptr: Ptr(a as *mut S), lane: x.at[0], step: x.at[1] }.pack(packed.ptr(), mr, 0, rows, 0, k);
            }
            for j in (0..x.n).step_by(nr) {
                let columns = nr.min(x.n - j);
                if column >= j + columns {
                    continue;
                }
                let skip = if column >= j + nr / 2 { nr / 2 } else { 0 };
                let b = x.b.wrapping_add(j / nr * x.panel + steps.start * x.ldb + skip);
                let c = x.c.wrapping_add(i * x.ldc + j + skip);
                let (ldc, columns, put) = (x.ldc as isize, columns - skip, add.into());
                match near {
                    Some(near) => near(k, a, x.at, b, x.ldb, c, ldc, rows, columns, put, a),
                    None => run(k, packed.ptr(), b, x.ldb, c, ldc, rows, columns, put, b),
                }
            }
        }
    }
    /// Rows as lanes, in panels.
    unsafe fn turned(&self, x: &Rows<S>, from: usize, rows: usize, n: usize, to: *mut S) {
        let nr = self.micro.nr;
        for r in (0..rows).step_by(nr) {
            S::transpose(to.add(r * n), nr, x.at(from + r), x.ld as isize, nr.min(rows - r), n);
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
    /// How many of `n` keys from `j` on any query before `i` sees.
    fn seen(&self, i: usize, j: usize, n: usize) -> usize {
        if self.causal {
            i.saturating_sub(j).min(n)
        } else {
            n
        }
    }
    /// The first of the queries from `i` on that see key `j`, counted from `i`.
    fn unseen(&self, i: usize, j: usize) -> usize {
        if self.causal {
            j.saturating_sub(i)
        } else {
            0
        }
    }
    /// Scores of the queries `i..i + WIDTH`, which lie at `x`, with `n` keys from `j` on.
    #[allow(clippy::too_many_arguments)]
    fn lanes<S: Scalar>(
        &self,
        head: usize,
        i: usize,
        j: usize,
        n: usize,
        x: *mut S,
        ld: usize,
        mask: &mut MaskTile<S>,
    ) -> Lanes<S> {
        let keys = self.seen(i + WIDTH, j, n);
        let visible = if self.causal { i.saturating_sub(j) } else { keys };
        let mask = self.mask.is_some().then(|| {
            let rows = WIDTH.min(self.l - i);
            for r in 0..rows {
                self.mask(head, i + r, j, &mut mask.rows.slice()[r * KEYS..][..keys]);
            }
            let to = mask.turned.ptr();
            // SAFETY: both have room for a tile of keys.
            unsafe { S::transpose(to, WIDTH, mask.rows.ptr(), KEYS as isize, rows, keys) };
            to as *const S
        });
        Lanes { x, ld, keys, visible, zeros: n - keys, mask, scale: S::of(self.scale) }
    }
    /// What the mask adds to the scores of query `i` with keys from `j` on.
    fn mask<S: Float>(&self, head: usize, i: usize, j: usize, to: &mut [S]) {
        let Some(m) = &self.mask else { return };
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
    }
}

/// What the mask adds to the scores of `WIDTH` queries: by queries, and by keys.
struct MaskTile<S: Copy> {
    rows: Scratch<S>,
    turned: Scratch<S>,
}
impl<S: Copy> MaskTile<S> {
    fn new(p: &Problem) -> Self {
        let n = if p.mask.is_some() { WIDTH * KEYS } else { 0 };
        MaskTile { rows: Scratch::new(n), turned: Scratch::new(n) }
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
    let blocks = p.l.div_ceil(FORWARD_QUERIES);
    let serial = p.heads * p.l * p.s * (p.e + p.f) < SERIAL;
    // What a task makes of the keys serves all of its queries.
    let threads = if serial { 1 } else { pool::num_threads() };
    let tasks = (8 * threads).div_ceil(p.heads).min(blocks);
    let shares = Tiles { rows: blocks, count: tasks };
    let task = |task: usize| {
        let (head, (block, count)) = (task / tasks, shares.at(task % tasks));
        let end = ((block + count) * FORWARD_QUERIES).min(p.l);
        let keys = p.seen(end, 0, p.s);
        let [q, k, v, out] = [q, k, v, out].map(|x| Head::<E>::new(x, head));
        let (k, v) = (k.rows(0, keys, p.e), v.rows(0, keys, p.f));
        for block in block..block + count {
            forward_block(p, head, block * FORWARD_QUERIES, &q, &k, &v, &out, lse);
        }
    };
    if serial {
        (0..p.heads * tasks).for_each(task);
    } else {
        pool::parallel(p.heads * tasks, task);
    }
}

/// A block of queries from `first` on.
#[allow(clippy::too_many_arguments)]
fn forward_block<E: Element>(
    p: &Problem,
    head: usize,
    first: usize,
    q: &Head<E>,
    k: &Rows<E::Acc>,
    v: &Rows<E::Acc>,
    out: &Head<E>,
    lse: &Operand,
) where
    E::Acc: Scalar,
{
    let tiler = Tiler { micro: E::Acc::micro() };
    let nr = tiler.micro.nr;
    let m = FORWARD_QUERIES.min(p.l - first);
    let wide = m.next_multiple_of(WIDTH);
    let end = p.seen(first + m, 0, p.s);
    let mut scores = Scratch::<E::Acc>::new(KEYS.min(end) * wide);
    let mut turned = Scratch::<E::Acc>::new(wide.next_multiple_of(nr) * p.e);
    let mut mask = MaskTile::new(p);
    let zero = E::Acc::default();
    let (mut max, mut total, mut factor) =
        ([E::Acc::NEG_INFINITY; FORWARD_QUERIES], [zero; FORWARD_QUERIES], [zero; FORWARD_QUERIES]);
    let sums = out.sums(first, m, p.f);
    let x = scores.ptr();
    // SAFETY: the operands describe their memory; every task writes its own rows.
    unsafe {
        tiler.turned(&q.rows(first, m, p.e), 0, m, p.e, turned.ptr());
        for j in (0..end).step_by(KEYS) {
            let n = KEYS.min(end - j);
            if p.e == 0 {
                scores.slice().fill(zero);
            }
            let (a, at) = (k.at(j), [k.ld as isize, 1]);
            tiler.run(
                &Small { m: n, n: wide, a, at, b: turned.ptr(), ldb: nr, panel: nr * p.e, c: x, ldc: wide },
                |key, _| Part { steps: 0..p.e, column: p.unseen(first, j + key), add: false },
            );
            for i in (0..m).step_by(WIDTH) {
                let of = p.lanes(head, first + i, j, n, x.add(i), wide, &mut mask);
                let [max, sum, factor] =
                    [&mut max, &mut total, &mut factor].map(|x| (&mut x[i..i + WIDTH]).try_into().expect("WIDTH long"));
                dispatch(Weights { of, max, sum, factor });
            }
            if j > 0 {
                dispatch(ScaleRows { rows: sums.at(0), ld: sums.ld as isize, n: p.f, by: &factor[..m] });
            }
            tiler.run(
                &Small {
                    m,
                    n: p.f,
                    a: x,
                    at: [1, wide as isize],
                    b: v.at(j),
                    ldb: v.ld,
                    panel: nr,
                    c: sums.at(0),
                    ldc: sums.ld,
                },
                |i, rows| Part { steps: 0..p.seen(first + i + rows, j, n), column: 0, add: j > 0 },
            );
        }
        if end == 0 {
            sums.clear(0..m, p.f);
        }
        for r in 0..m {
            let t = total[r];
            factor[r] = if t == zero { zero } else { Float::div(E::Acc::ONE, t) };
            let log = if t == zero { f64::NEG_INFINITY } else { Float::to_f64(max[r].add(Float::ln(t))) };
            let to = lse_at(lse, head, first + r);
            if lse.dtype == DType::F64 {
                *(to as *mut f64) = log;
            } else {
                *(to as *mut f32) = log as f32;
            }
        }
        dispatch(ScaleRows { rows: sums.at(0), ld: sums.ld as isize, n: p.f, by: &factor[..m] });
    }
    out.store(first, m, p.f, &sums);
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
        let work = p.heads * p.l * p.s * (p.e + p.f);
        let each = |n: usize, f: &(dyn Fn(usize) + Sync)| {
            if work < SERIAL {
                (0..n).for_each(f)
            } else {
                pool::parallel(n, f)
            }
        };
        if p.heads >= 16 || keys * queries <= 2 {
            each(p.heads, &|i| self.part(i, 0..keys.max(1), 0..queries, true, true));
        } else {
            // Few heads: keys and queries apart, at the price of computing the scores once more.
            let k = keys.max(1);
            each(p.heads * k, &|i| self.part(i / k, i % k..i % k + 1, 0..queries, true, false));
            each(p.heads * queries, &|i| self.part(i / queries, 0..keys, i % queries..i % queries + 1, false, true));
        }
    }

    /// Gradients of some keys and values summed over some queries, and the other way round.
    fn part(&self, head: usize, keys: Range<usize>, queries: Range<usize>, want_kv: bool, want_q: bool) {
        let p = self.p;
        let tiler = Tiler { micro: E::Acc::micro() };
        let nr = tiler.micro.nr;
        let [g, q, k, v, out] = self.x.map(|x| Head::<E>::new(x, head));
        let [gq, gk, gv] = self.to.map(|x| Head::<E>::new(x, head));
        let (first, last) = (queries.start * QUERIES, (queries.end * QUERIES).min(p.l));
        let wide = QUERIES.min(p.l.next_multiple_of(WIDTH));
        let count = (last - first).next_multiple_of(WIDTH);
        let (mut lse, mut delta) = (Scratch::<E::Acc>::new(count), Scratch::<E::Acc>::new(count));
        let by = [[g.row, g.column], [out.row, out.column]];
        let [pg, po] = [&g, &out].map(|x| Ptr(x.ptr.get().wrapping_offset(first as isize * x.row)));
        dispatch(Dots { g: pg, out: po, by, n: p.f, rows: last - first, to: delta.ptr() });
        // Lanes without a query compute too: what they hold should not be slow to compute with.
        lse.slice()[last - first..].fill(E::Acc::default());
        delta.slice()[last - first..].fill(E::Acc::default());
        for (r, to) in lse.slice()[..last - first].iter_mut().enumerate() {
            // SAFETY: a value of an (n, h, l) operand.
            unsafe {
                let at = lse_at(self.lse, head, first + r);
                let value = if self.lse.dtype == DType::F64 { *(at as *const f64) } else { *(at as *const f32) as f64 };
                *to = <E::Acc as Float>::of(value);
            }
        }
        let (q, g) = (q.rows(first, last - first, p.e), g.rows(first, last - first, p.f));
        let begin = keys.start * KEYS;
        let end = (keys.end * KEYS).min(p.seen(last, 0, p.s)).max(begin);
        let (k, v) = (k.rows(begin, end - begin, p.e), v.rows(begin, end - begin, p.f));
        let room = KEYS.min(p.s) * wide;
        let (mut scores, mut grads) = (Scratch::<E::Acc>::new(room), Scratch::<E::Acc>::new(room));
        let panels = wide.next_multiple_of(nr);
        let (mut turned_q, mut turned_g) = (Scratch::<E::Acc>::new(panels * p.e), Scratch::<E::Acc>::new(panels * p.f));
        let mut mask = MaskTile::new(p);
        let (x, y) = (scores.ptr(), grads.ptr());
        let to_q = want_q.then(|| gq.sums(first, last - first, p.e));
        for kt in keys {
            let j = kt * KEYS;
            let there = KEYS.min(p.s - j.min(p.s));
            let to_kv = want_kv.then(|| (gk.sums(j, there, p.e), gv.sums(j, there, p.f)));
            for qt in queries.clone() {
                let i = qt * QUERIES;
                let m = QUERIES.min(p.l - i);
                // Keys that the last of these queries sees.
                let n = p.seen(i + m, j, there);
                if n == 0 {
                    continue;
                }
                let wide = m.next_multiple_of(WIDTH);
                // SAFETY: the operands describe their memory; the tiles and sums have room for n keys and m queries, and nobody
                // else writes these gradients.
                unsafe {
                    for (rows, columns, n_e, turned, c) in
                        [(&k, &q, p.e, turned_q.ptr(), x), (&v, &g, p.f, turned_g.ptr(), y)]
                    {
                        if n_e == 0 {
                            std::slice::from_raw_parts_mut(c, n * wide).fill(E::Acc::default());
                        }
                        tiler.turned(columns, i - first, m, n_e, turned);
                        let (a, at) = (rows.at(j - begin), [rows.ld as isize, 1]);
                        tiler.run(
                            &Small { m: n, n: wide, a, at, b: turned, ldb: nr, panel: nr * n_e, c, ldc: wide },
                            |key, _| Part { steps: 0..n_e, column: p.unseen(i, j + key), add: false },
                        );
                    }
                    for c in (0..m).step_by(WIDTH) {
                        let mut of = p.lanes(head, i + c, j, n, x.add(c), wide, &mut mask);
                        // A product's rows may be more than these queries see.
                        of.zeros = (n + tiler.micro.mr).min(there) - of.keys;
                        let at = i - first + c;
                        let [lse, delta] =
                            [&mut lse, &mut delta].map(|x| &*(x.ptr().add(at) as *const [E::Acc; WIDTH]));
                        dispatch(Slopes { of, grads: y.add(c), lse, delta });
                    }
                    // Keys as rows, over the queries that see any of them.
                    for (weights, rows, to, n_e) in
                        to_kv.iter().flat_map(|(to_k, to_v)| [(x, &g, to_v, p.f), (y, &q, to_k, p.e)])
                    {
                        let b = rows.at(i - first);
                        tiler.run(
                            &Small {
                                m: there,
                                n: n_e,
                                a: weights,
                                at: [wide as isize, 1],
                                b,
                                ldb: rows.ld,
                                panel: nr,
                                c: to.at(0),
                                ldc: to.ld,
                            },
                            |key, _| {
                                let begin = p.unseen(i, j + key);
                                Part { steps: begin.min(m)..m, column: 0, add: p.unseen(0, j + key) / QUERIES < qt }
                            },
                        );
                    }
                    if let Some(to) = &to_q {
                        let (b, c) = (k.at(j - begin), to.at(i - first));
                        tiler.run(
                            &Small { m, n: p.e, a: y, at: [1, wide as isize], b, ldb: k.ld, panel: nr, c, ldc: to.ld },
                            |row, rows| Part { steps: 0..p.seen(i + row + rows, j, n), column: 0, add: j > 0 },
                        );
                    }
                }
            }
            if let Some((to_k, to_v)) = to_kv {
                // Whole register tiles of keys that no query sees were left out.
                let mr = tiler.micro.mr;
                let tiles = Tiles { rows: there, count: there.div_ceil(mr) };
                let left = (0..tiles.count).map(|t| tiles.at(t).0).find(|key| p.unseen(0, j + key) >= p.l);
                let left = left.unwrap_or(there)..there;
                // SAFETY: every part owns its keys.
                unsafe {
                    to_k.clear(left.clone(), p.e);
                    to_v.clear(left, p.f);
                }
                gk.store(j, there, p.e, &to_k);
                gv.store(j, there, p.f, &to_v);
            }
        }
        if let Some(to) = to_q {
            if p.s == 0 {
                // SAFETY: every part owns its queries.
                unsafe { to.clear(0..last - first, p.e) };
            }
            gq.store(first, last - first, p.e, &to);
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
                (1, 2, 70, 20, 0, 5),
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
