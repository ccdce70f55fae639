//! Batch normalisation in training, forward and backward. Two layouts: planes (n, c, s) with adjacent s, where a channel
//! is read, summed and written while the cache holds it; and rows of adjacent channels, summed in blocks of rows that are
//! joined pairwise. Samples of small planes are rows whose channels have several columns. Either way the order of additions
//! follows from the sizes alone.

use crate::element::{with_float, Element, Float, Ptr, Scratch};
use crate::gemm::{Load, Store};
use crate::isa::{dispatch, Isa, Kernel};
use crate::pool;
use crate::rows::{put, slice, slice_mut, sum1, sum2, values, vector, AddTo, SUMMED};
use flambeau_core::{ensure, Operand, Result, Shape};
use std::any::TypeId;

/// Elements that a parallel piece has at least.
const GRAIN: usize = 16 * 1024;

/// Planes of fewer elements are not looked at one by one.
const PLANE: usize = 32;

/// (n, c, s) and how they lie.
struct Layout {
    n: usize,
    c: usize,
    s: usize,
    /// How many rows they are, and how many columns of a row each channel has.
    rows: Option<(usize, usize)>,
}

fn layout(name: &str, x: &Operand, others: &[&Operand]) -> Result<Layout> {
    ensure!(
        x.sizes.len() == 3,
        Runtime,
        "{name}: expected samples, channels and space, but got sizes {}",
        Shape(x.sizes)
    );
    let [n, c, s] = [x.sizes[0], x.sizes[1], x.sizes[2]];
    for o in others {
        ensure!(
            o.sizes == x.sizes && o.strides == x.strides && o.dtype == x.dtype,
            Runtime,
            "{name}: operands {} {} and {} {} do not match",
            x.dtype,
            Shape(x.sizes),
            o.dtype,
            Shape(o.sizes)
        );
    }
    let planes = x.strides == [c * s, s, 1];
    let rows = x.strides == [c * s, 1, c];
    ensure!(
        planes || rows,
        Runtime,
        "{name}: expected dense planes or dense rows of channels, but got strides {}",
        Shape(x.strides)
    );
    let (n, c, s) = (n as usize, c as usize, s as usize);
    let rows = if planes { (s < PLANE).then_some((n, s)) } else { Some((n * s, 1)) };
    Ok(Layout { n, c, s, rows })
}

fn check(name: &str, c: usize, vectors: &[(&str, Option<&Operand>)]) -> Result<()> {
    vectors.iter().try_for_each(|(what, v)| v.map_or(Ok(()), |v| vector(name, what, v, c)))
}

/// `n` elements as numbers of the computing type, where they lie or converted into `buffer`.
unsafe fn read<E: Element>(p: *const E, n: usize, buffer: *mut E::Acc) -> *const E::Acc {
    if TypeId::of::<E>() == TypeId::of::<E::Acc>() {
        return p as *const E::Acc;
    }
    dispatch(Load(p, buffer, n));
    buffer
}
/// Calls `f` with room for `n` numbers and stores them.
unsafe fn write<E: Element>(p: *mut E, n: usize, buffer: *mut E::Acc, f: impl FnOnce(&mut [E::Acc])) {
    if TypeId::of::<E>() == TypeId::of::<E::Acc>() {
        return f(slice_mut(p as *mut E::Acc, n));
    }
    f(slice_mut(buffer, n));
    dispatch(Store::<E>(buffer, p, n, false));
}

fn blocks(n: usize, grain: usize, f: impl Fn(usize, usize) + Sync) {
    if n <= grain {
        f(0, n);
    } else {
        pool::chunks(n, grain, f);
    }
}

// ---- one plane of a channel --------------------------------------------------------------------------------------------

struct Sum<'a, S>(&'a [S]);
impl<S: Float> Kernel for Sum<'_, S> {
    type Out = S;
    #[inline(always)]
    fn run<I: Isa>(self) -> S {
        sum1(self.0, |v| v)
    }
}
/// Sum of squared distances from the mean.
struct Deviation<'a, S>(&'a [S], S);
impl<S: Float> Kernel for Deviation<'_, S> {
    type Out = S;
    #[inline(always)]
    fn run<I: Isa>(self) -> S {
        sum1(self.0, |x| {
            let d = x.sub(self.1);
            d.mul(d)
        })
    }
}
/// `(x - mean) scale + shift`.
struct Apply<'a, S> {
    x: &'a [S],
    y: &'a mut [S],
    mean: S,
    scale: S,
    shift: S,
}
impl<S: Float> Kernel for Apply<'_, S> {
    type Out = ();
    #[inline(always)]
    fn run<I: Isa>(self) {
        for (y, x) in self.y.iter_mut().zip(self.x) {
            *y = x.sub(self.mean).mul(self.scale).add(self.shift);
        }
    }
}
/// Sums of the gradient, and of the gradient times the distance from the mean.
struct GradSums<'a, S>(&'a [S], &'a [S], S);
impl<S: Float> Kernel for GradSums<'_, S> {
    type Out = (S, S);
    #[inline(always)]
    fn run<I: Isa>(self) -> (S, S) {
        let GradSums(g, x, mean) = self;
        (sum1(g, |g| g), sum2(g, x, |g, x| g.mul(x.sub(mean))))
    }
}
/// `k (g - a - (x - mean) b)`.
struct GradApply<'a, S> {
    g: &'a [S],
    x: &'a [S],
    gx: &'a mut [S],
    mean: S,
    a: S,
    b: S,
    k: S,
}
impl<S: Float> Kernel for GradApply<'_, S> {
    type Out = ();
    #[inline(always)]
    fn run<I: Isa>(self) {
        let n = self.gx.len();
        let (g, x) = (&self.g[..n], &self.x[..n]);
        for i in 0..n {
            self.gx[i] = self.k.mul(g[i].sub(self.a).sub(x[i].sub(self.mean).mul(self.b)));
        }
    }
}

// ---- rows of channels --------------------------------------------------------------------------------------------------

/// Adds `f(row, channel)` of each row to sums by channel.
macro_rules! row_kernel {
    ($(#[$doc:meta])* $Name:ident { $($field:ident),* } $out:ident, $i:ident => $body:expr) => {
        $(#[$doc])*
        struct $Name<'a, S> { $($field: &'a [S],)* $out: &'a mut [S] }
        impl<S: Float> Kernel for $Name<'_, S> {
            type Out = ();
            #[inline(always)]
            fn run<I: Isa>(self) {
                let n = self.$out.len();
                $( let $field = &self.$field[..n]; )*
                let $out = self.$out;
                for $i in 0..n { $out[$i] = $body; }
            }
        }
    };
}
row_kernel!(SquareRow { x, mean } acc, i => {
    let d = x[i].sub(mean[i]);
    acc[i].add(d.mul(d))
});
row_kernel!(ProductRow { g, x, mean } acc, i => acc[i].add(g[i].mul(x[i].sub(mean[i]))));
row_kernel!(ApplyRow { x, mean, scale, shift } y, i => x[i].sub(mean[i]).mul(scale[i]).add(shift[i]));
row_kernel!(GradRow { g, x, mean, a, b, k } gx, i => k[i].mul(g[i].sub(a[i]).sub(x[i].sub(mean[i]).mul(b[i]))));

/// Sums by channel of `K` terms over `m` rows of `c`: rows of a block one after another, blocks in a tree.
/// `add(row, sums)` takes a row in.
fn column_sums<S: Float>(m: usize, c: usize, terms: usize, add: impl Fn(usize, &mut [S]) + Sync) -> Vec<S> {
    let width = terms * c;
    let count = m.div_ceil(SUMMED);
    let mut partial = Scratch::<S>::new(count * width);
    partial.slice().fill(S::default());
    let at = Ptr(partial.ptr());
    blocks(count, (GRAIN / (SUMMED * c)).max(1), |lo, hi| {
        for b in lo..hi {
            // SAFETY: every block has sums of its own.
            let sums = unsafe { slice_mut(at.get().add(b * width), width) };
            (b * SUMMED..((b + 1) * SUMMED).min(m)).for_each(|row| add(row, sums));
        }
    });
    let mut k = count;
    while k > 1 {
        let h = k.div_ceil(2);
        for b in 0..k - h {
            // SAFETY: two different blocks.
            unsafe {
                dispatch(AddTo(slice_mut(at.get().add(b * width), width), slice(at.get().add((b + h) * width), width)))
            };
        }
        k = h;
    }
    partial.slice()[..width].to_vec()
}

/// The sums of each channel's columns.
fn by_channel<S: Float>(sums: Vec<S>, each: usize) -> Vec<S> {
    if each == 1 {
        return sums;
    }
    sums.chunks_exact(each).map(|columns| columns.iter().fold(S::default(), |a, b| a.add(*b))).collect()
}
/// Every channel's value in each of its columns.
fn by_column<S: Float>(values: &[S], each: usize) -> Vec<S> {
    if each == 1 {
        return values.to_vec();
    }
    values.iter().flat_map(|v| std::iter::repeat_n(*v, each)).collect()
}

// ---- the two families --------------------------------------------------------------------------------------------------

fn rstd<S: Float>(var: S, eps: f64) -> S {
    S::ONE.div(var.add(S::of(eps)).sqrt())
}

/// See [`flambeau_core::Backend::batch_norm`].
pub fn batch_norm(
    x: &Operand,
    weight: Option<&Operand>,
    bias: Option<&Operand>,
    eps: f64,
    out: &Operand,
    mean: &Operand,
    var: &Operand,
) -> Result<()> {
    let name = "batch_norm";
    let l = layout(name, x, &[out])?;
    check(name, l.c, &[("a weight", weight), ("a bias", bias), ("a mean", Some(mean)), ("a variance", Some(var))])?;
    let (n, c, s) = (l.n, l.c, l.s);
    if n * c * s == 0 {
        return Ok(());
    }
    with_float!(x.dtype, name, E => {
        type S = <E as Element>::Acc;
        let (mut w, mut b) = (values::<S>(weight, c), values::<S>(bias, c));
        let (w, b) = (w.as_mut().map(|v| &*v.slice()), b.as_mut().map(|v| &*v.slice()));
        let count = <S as Float>::of((n * s) as f64);
        let (x, y) = (Ptr(x.ptr as *mut E), Ptr(out.ptr as *mut E));
        let scale = |ch: usize, var: S| {
            let r = rstd(var, eps);
            w.map_or(r, |w| r * w[ch])
        };
        let Some((m, each)) = l.rows else {
            blocks(c, (GRAIN / (n * s)).max(1), |lo, hi| {
                let mut buffer = Scratch::<S>::new(s);
                let buffer = buffer.ptr();
                for ch in lo..hi {
                    // SAFETY: the layout has been checked; every channel is written by one task.
                    unsafe {
                        let plane = |i: usize| slice(read(x.at(((i * c + ch) * s) as isize), s, buffer), s);
                        let m = (0..n).fold(S::default(), |t, i| t + dispatch(Sum(plane(i)))) / count;
                        let v = (0..n).fold(S::default(), |t, i| t + dispatch(Deviation(plane(i), m))) / count;
                        put(mean, ch, Float::to_f64(m));
                        put(var, ch, Float::to_f64(v));
                        let (scale, shift) = (scale(ch, v), b.map_or(S::default(), |b| b[ch]));
                        let mut staged = Scratch::<S>::new(s);
                        for i in 0..n {
                            let x = plane(i);
                            write(y.at(((i * c + ch) * s) as isize), s, staged.ptr(), |y| {
                                dispatch(Apply { x, y, mean: m, scale, shift });
                            });
                        }
                    }
                }
            });
            return Ok(());
        };
        let columns = c * each;
        // SAFETY (all three): rows of the checked layout, each written by one task.
        let means = column_sums::<S>(m, columns, 1, |row, sums| unsafe {
            let mut buffer = Scratch::<S>::new(columns);
            dispatch(AddTo(sums, slice(read(x.at((row * columns) as isize), columns, buffer.ptr()), columns)));
        });
        let mut means = by_channel(means, each);
        means.iter_mut().for_each(|v| *v /= count);
        let wide = by_column(&means, each);
        let vars = column_sums::<S>(m, columns, 1, |row, acc| unsafe {
            let mut buffer = Scratch::<S>::new(columns);
            dispatch(SquareRow { x: slice(read(x.at((row * columns) as isize), columns, buffer.ptr()), columns), mean: &wide, acc });
        });
        let mut vars = by_channel(vars, each);
        vars.iter_mut().for_each(|v| *v /= count);
        let scales: Vec<S> = (0..c).map(|ch| scale(ch, vars[ch])).collect();
        let shifts: Vec<S> = b.map_or(vec![S::default(); c], <[S]>::to_vec);
        for ch in 0..c {
            // SAFETY: the vectors have been checked.
            unsafe {
                put(mean, ch, Float::to_f64(means[ch]));
                put(var, ch, Float::to_f64(vars[ch]));
            }
        }
        let (scales, shifts) = (by_column(&scales, each), by_column(&shifts, each));
        blocks(m, (GRAIN / columns).max(1), |lo, hi| {
            let (mut from, mut to) = (Scratch::<S>::new(columns), Scratch::<S>::new(columns));
            for row in lo..hi {
                let at = (row * columns) as isize;
                unsafe {
                    let x = slice(read(x.at(at), columns, from.ptr()), columns);
                    write(y.at(at), columns, to.ptr(), |y| dispatch(ApplyRow { x, mean: &wide, scale: &scales, shift: &shifts, y }));
                }
            }
        });
    });
    Ok(())
}

/// See [`flambeau_core::Backend::batch_norm_grad`].
#[allow(clippy::too_many_arguments)]
pub fn batch_norm_grad(
    g: &Operand,
    x: &Operand,
    mean: &Operand,
    var: &Operand,
    weight: Option<&Operand>,
    eps: f64,
    gx: Option<&Operand>,
    gw: Option<&Operand>,
    gb: Option<&Operand>,
) -> Result<()> {
    let name = "batch_norm_backward";
    let l = match gx {
        Some(gx) => layout(name, x, &[g, gx])?,
        None => layout(name, x, &[g])?,
    };
    let vectors = [
        ("a weight", weight),
        ("a mean", Some(mean)),
        ("a variance", Some(var)),
        ("a weight gradient", gw),
        ("a bias gradient", gb),
    ];
    check(name, l.c, &vectors)?;
    let (n, c, s) = (l.n, l.c, l.s);
    if n * c * s == 0 {
        return Ok(());
    }
    with_float!(x.dtype, name, E => {
        type S = <E as Element>::Acc;
        let (mut w, mut mean, mut var) =
            (values::<S>(weight, c), values::<S>(Some(mean), c), values::<S>(Some(var), c));
        let w = w.as_mut().map(|v| &*v.slice());
        let (Some(mean), Some(var)) = (mean.as_mut().map(|v| &*v.slice()), var.as_mut().map(|v| &*v.slice())) else {
            return Ok(());
        };
        let count = <S as Float>::of((n * s) as f64);
        let (g, x) = (Ptr(g.ptr as *mut E), Ptr(x.ptr as *mut E));
        let to = gx.map(|gx| Ptr(gx.ptr as *mut E));
        // gx = w r (g - mean(g) - x̂ mean(g x̂)), with r = 1/σ and x̂ = (x - mean) r.
        let finish = |ch: usize, total: S, product: S| {
            let r = rstd(var[ch], eps);
            // SAFETY: the vectors have been checked, and every channel is written once.
            unsafe {
                if let Some(gw) = gw {
                    put(gw, ch, Float::to_f64(product * r));
                }
                if let Some(gb) = gb {
                    put(gb, ch, Float::to_f64(total));
                }
            }
            (total / count, product * r * r / count, w.map_or(r, |w| r * w[ch]))
        };
        let Some((m, each)) = l.rows else {
            blocks(c, (GRAIN / (n * s)).max(1), |lo, hi| {
                let (mut a, mut b, mut staged) = (Scratch::<S>::new(s), Scratch::<S>::new(s), Scratch::<S>::new(s));
                let (a, b) = (a.ptr(), b.ptr());
                for (ch, &center) in (lo..).zip(&mean[lo..hi]) {
                    // SAFETY: as forward.
                    unsafe {
                        let at = |i: usize| ((i * c + ch) * s) as isize;
                        let planes = |i: usize| (slice(read(g.at(at(i)), s, a), s), slice(read(x.at(at(i)), s, b), s));
                        let (mut total, mut product) = (S::default(), S::default());
                        for i in 0..n {
                            let (g, x) = planes(i);
                            let (t, p) = dispatch(GradSums(g, x, center));
                            total += t;
                            product += p;
                        }
                        let (a, b, k) = finish(ch, total, product);
                        let Some(to) = to else { continue };
                        for i in 0..n {
                            let (g, x) = planes(i);
                            write(to.at(at(i)), s, staged.ptr(), |gx| {
                                dispatch(GradApply { g, x, gx, mean: center, a, b, k });
                            });
                        }
                    }
                }
            });
            return Ok(());
        };
        let columns = c * each;
        // SAFETY (both): as forward.
        let wide = by_column(mean, each);
        let sums = column_sums::<S>(m, columns, 2, |row, sums| unsafe {
            let (mut p, mut q) = (Scratch::<S>::new(columns), Scratch::<S>::new(columns));
            let at = (row * columns) as isize;
            let (g, x) = (slice(read(g.at(at), columns, p.ptr()), columns), slice(read(x.at(at), columns, q.ptr()), columns));
            let (total, product) = sums.split_at_mut(columns);
            dispatch(AddTo(total, g));
            dispatch(ProductRow { g, x, mean: &wide, acc: product });
        });
        let sums = by_channel(sums, each);
        let (mut a, mut b, mut k) = (vec![S::default(); c], vec![S::default(); c], vec![S::default(); c]);
        for ch in 0..c {
            (a[ch], b[ch], k[ch]) = finish(ch, sums[ch], sums[c + ch]);
        }
        let Some(to) = to else { return Ok(()) };
        let (a, b, k) = (by_column(&a, each), by_column(&b, each), by_column(&k, each));
        blocks(m, (GRAIN / columns).max(1), |lo, hi| {
            let (mut p, mut q, mut staged) = (Scratch::<S>::new(columns), Scratch::<S>::new(columns), Scratch::<S>::new(columns));
            for row in lo..hi {
                let at = (row * columns) as isize;
                unsafe {
                    let (g, x) = (slice(read(g.at(at), columns, p.ptr()), columns), slice(read(x.at(at), columns, q.ptr()), columns));
                    write(to.at(at), columns, staged.ptr(), |gx| dispatch(GradRow { g, x, mean: &wide, a: &a, b: &b, k: &k, gx }));
                }
            }
        });
    });
    Ok(())
}
