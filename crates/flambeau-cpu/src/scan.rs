//! Running combinations along one dimension.

use crate::convert;
use crate::gemm_kernels::Scalar as _;
use crate::isa::{dispatch, Isa, Kernel};
use crate::pool;
use crate::tile::Space;
use flambeau_core::*;
use std::sync::atomic::{AtomicBool, Ordering};

/// See [`Backend::scan`]. Sums and products run in order, those of
/// float32 (and of the halves) in double precision, so that each prefix is the rounded sum of what precedes it.
///
/// # Errors
/// `NotImplemented` for an order on complex numbers, `OutOfMemory` for rows whose numbers do not fit.
pub fn scan(how: Scan, x: &Operand, dim: usize, out: &[Operand]) -> Result<()> {
    let total = x.numel() as usize;
    if total == 0 {
        return Ok(());
    }
    let class = x.dtype.class();
    if matches!(class, Class::C32 | Class::C64) && matches!(how, Scan::Max | Scan::Min | Scan::LogSumExp) {
        bail!(NotImplemented, "\"{how:?} scan\" not implemented for '{}'", x.dtype.title());
    }
    if matches!(how, Scan::LogSumExp) && class == Class::I64 {
        bail!(NotImplemented, "\"logcumsumexp\" not implemented for '{}'", x.dtype.title());
    }
    let (n, sx) = if x.sizes.is_empty() { (1, 1) } else { (x.sizes[dim] as usize, x.strides[dim] as isize) };
    let others: SmallVec<[usize; 6]> = (0..x.sizes.len()).filter(|&d| d != dim).collect();
    let mut strides: SmallVec<[&[i64]; 3]> = SmallVec::from_iter([x.strides]);
    strides.extend(out.iter().map(|o| o.strides));
    let space = Space::new(x.sizes, &strides, &others, &[]);
    let along: SmallVec<[isize; 2]> =
        out.iter().map(|o| if o.sizes.is_empty() { 1 } else { o.strides[dim] as isize }).collect();
    let rows = total / n;
    let out_dtype = out[0].dtype;
    let compute = if out_dtype.category() > x.dtype.category() { out_dtype.class() } else { class };

    if how == Scan::Sum && x.dtype == DType::F32 && out_dtype == DType::F32 && sx == 1 && along[0] == 1 {
        // Several rows at once: one row alone waits for each of its additions.
        let row = |k: usize, base: *mut u8, row: usize| base.wrapping_offset(space.offset(k, row) * 4);
        pool::chunks(rows, (16 * 1024 / n).max(1).next_multiple_of(ROWS), |lo, hi| {
            for first in (lo..hi).step_by(ROWS) {
                let count = ROWS.min(hi - first);
                // SAFETY: rows of `n` adjacent numbers, each written by one task; an output apart from the operand.
                unsafe {
                    let from = |r: usize| std::slice::from_raw_parts(row(0, x.ptr, first + r) as *const f32, n);
                    let to = |r: usize| std::slice::from_raw_parts_mut(row(1, out[0].ptr, first + r) as *mut f32, n);
                    if count == ROWS {
                        let at = |k: usize, r: usize| space.offset(k, first + r);
                        let step = |k: usize| at(k, 1) - at(k, 0);
                        if (2..ROWS).all(|r| (0..2).all(|k| at(k, r) == at(k, 0) + r as isize * step(k)))
                            && step(1) >= 0
                        {
                            let (x, y) = (from(0).as_ptr(), to(0).as_mut_ptr());
                            dispatch(EvenRows { x, sx: step(0), y, sy: step(1) as usize, n });
                        } else {
                            prefix_sums(std::array::from_fn::<_, ROWS, _>(from), std::array::from_fn(to));
                        }
                    } else {
                        (0..count).for_each(|r| prefix_sums([from(r)], [to(r)]));
                    }
                }
            }
        });
        return Ok(());
    }
    let short = AtomicBool::new(false);
    pool::chunks(rows, (16 * 1024 / n).max(1), |lo, hi| {
        let room = (zeros(n * compute.size() / 8 + 2), zeros(if out.len() > 1 { n } else { 0 }));
        let (Some(mut values), Some(mut indices)) = room else { return short.store(true, Ordering::Relaxed) };
        let values: &mut [u64] = &mut values;
        let buffer = values.as_mut_ptr() as *mut u8;
        for row in lo..hi {
            let src = x.ptr.wrapping_offset(space.offset(0, row) * x.dtype.size() as isize);
            // SAFETY: the row has `n` elements `sx` apart in x; the buffer holds `n` numbers of the class and is aligned to 8,
            // which is what every class's parts need; outputs are walked by their own strides.
            unsafe {
                convert::load(x.dtype, compute, src, sx, n, buffer);
                macro_rules! slice {
                    ($t:ty) => {
                        std::slice::from_raw_parts_mut(buffer as *mut $t, n)
                    };
                }
                match compute {
                    Class::F32 if how == Scan::Sum => wide(slice!(f32), 0.0, |a, b| a + b),
                    Class::F32 if how == Scan::Prod => wide(slice!(f32), 1.0, |a, b| a * b),
                    Class::F32 => {
                        real(how, slice!(f32), &mut indices, |a, b| a + b, |a, b| a * b, |x| x.is_nan(), log_add_f32)
                    }
                    Class::F64 => {
                        real(how, slice!(f64), &mut indices, |a, b| a + b, |a, b| a * b, |x| x.is_nan(), log_add_f64)
                    }
                    Class::I64 => {
                        real(how, slice!(i64), &mut indices, i64::wrapping_add, i64::wrapping_mul, |_| false, |a, _| a)
                    }
                    Class::C32 => plain(how, slice!(Complex32)),
                    Class::C64 => plain(how, slice!(Complex64)),
                }
                let dst = out[0].ptr.wrapping_offset(space.offset(1, row) * out_dtype.size() as isize);
                convert::store(out_dtype, compute, buffer, n, dst, along[0]);
                if let Some(o) = out.get(1) {
                    let dst = o.ptr.wrapping_offset(space.offset(2, row) * o.dtype.size() as isize);
                    convert::store(o.dtype, Class::I64, indices.as_ptr() as *const u8, n, dst, along[1]);
                }
            }
        }
    });
    if short.into_inner() {
        bail!(OutOfMemory, "\"{how:?} scan\": can't allocate memory for a row of {n} numbers");
    }
    Ok(())
}
/// `n` zeros, if there is memory for them.
fn zeros<T: Copy + Default>(n: usize) -> Option<Vec<T>> {
    let mut values = Vec::new();
    values.try_reserve_exact(n).ok()?;
    values.resize(n, T::default());
    Some(values)
}

fn log_add_f64(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() {
        return f64::NAN;
    }
    let (hi, lo) = if a > b { (a, b) } else { (b, a) };
    if hi.is_infinite() {
        return hi;
    }
    hi + (lo - hi).exp().ln_1p()
}
fn log_add_f32(a: f32, b: f32) -> f32 {
    if a.is_nan() || b.is_nan() {
        return f32::NAN;
    }
    let (hi, lo) = if a > b { (a, b) } else { (b, a) };
    if hi.is_infinite() {
        return hi;
    }
    hi + (lo - hi).exp().ln_1p()
}

fn real<T: Copy + PartialOrd>(
    how: Scan,
    x: &mut [T],
    indices: &mut [i64],
    add: impl Fn(T, T) -> T,
    mul: impl Fn(T, T) -> T,
    nan: impl Fn(T) -> bool,
    log_add: impl Fn(T, T) -> T,
) {
    let mut s = x[0];
    match how {
        Scan::Sum => x[1..].iter_mut().for_each(|v| {
            s = add(s, *v);
            *v = s;
        }),
        Scan::Prod => x[1..].iter_mut().for_each(|v| {
            s = mul(s, *v);
            *v = s;
        }),
        Scan::LogSumExp => x[1..].iter_mut().for_each(|v| {
            s = log_add(s, *v);
            *v = s;
        }),
        Scan::Max | Scan::Min => {
            // The last of equals; NaN, once met, stays.
            let mut at = 0;
            for (i, v) in x.iter_mut().enumerate() {
                let takes = if how == Scan::Max { *v >= s } else { *v <= s };
                if nan(*v) || (!nan(s) && takes) {
                    s = *v;
                    at = i as i64;
                }
                *v = s;
                if let Some(k) = indices.get_mut(i) {
                    *k = at;
                }
            }
        }
    }
}
/// Rows whose sums run side by side: two vectors of f64 on the widest level.
const ROWS: usize = 16;
/// [`prefix_sums`] of rows that lie evenly apart, through tiles in which their columns are adjacent.
struct EvenRows {
    x: *const f32,
    sx: isize,
    y: *mut f32,
    sy: usize,
    n: usize,
}
impl Kernel for EvenRows {
    type Out = ();
    #[inline(always)]
    fn run<I: Isa>(self) {
        const COLUMNS: usize = 128;
        let (mut tile, mut sums) = ([[0f32; ROWS]; COLUMNS], [0f64; ROWS]);
        for c in (0..self.n).step_by(COLUMNS) {
            let w = COLUMNS.min(self.n - c);
            // SAFETY: the rows have `n` numbers each, columns `c..c + w` of them; the tile has room for that many columns.
            unsafe {
                f32::transpose(tile.as_mut_ptr() as *mut f32, ROWS, self.x.add(c), self.sx, ROWS, w);
                for column in &mut tile[..w] {
                    for (v, s) in column.iter_mut().zip(&mut sums) {
                        *s += *v as f64;
                        *v = *s as f32;
                    }
                }
                f32::transpose(self.y.add(c), self.sy, tile.as_ptr() as *const f32, ROWS as isize, w, ROWS);
            }
        }
    }
}
/// Rounded prefixes of sums in f64, of rows of equal length side by side.
fn prefix_sums<const R: usize>(x: [&[f32]; R], mut y: [&mut [f32]; R]) {
    let n = x[0].len();
    let x = x.map(|x| &x[..n]);
    y.iter_mut().for_each(|y| assert!(y.len() == n));
    let mut s = [0f64; R];
    for i in 0..n {
        for ((s, x), y) in s.iter_mut().zip(&x).zip(&mut y) {
            *s += x[i] as f64;
            // SAFETY: every row has `n` numbers.
            unsafe { *y.get_unchecked_mut(i) = *s as f32 };
        }
    }
}
/// Runs in f64 and rounds each prefix.
fn wide(x: &mut [f32], start: f64, f: impl Fn(f64, f64) -> f64) {
    let mut s = start;
    for v in x {
        s = f(s, *v as f64);
        *v = s as f32;
    }
}
fn plain<T: Copy + std::ops::Add<Output = T> + std::ops::Mul<Output = T>>(how: Scan, x: &mut [T]) {
    let mut s = x[0];
    for v in &mut x[1..] {
        s = if how == Scan::Prod { s * *v } else { s + *v };
        *v = s;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Case;

    #[test]
    fn sums_of_rows_are_rounded_prefixes() {
        for sizes in [[19i64, 300], [8, 4], [16, 129], [3, 1000]] {
            let (rows, n) = (sizes[0] as usize, sizes[1] as usize);
            let (x, y) = (Case::random(DType::F32, &sizes, false, 1), Case::random(DType::F32, &sizes, false, 2));
            for threads in [1, 2, 8] {
                pool::set_num_threads(threads);
                scan(Scan::Sum, &x.operand(), 1, &[y.operand()]).unwrap();
                let (x, y) = (x.reals(), y.reals());
                for r in 0..rows {
                    let mut s = 0f64;
                    for i in r * n..(r + 1) * n {
                        s += x[i];
                        assert_eq!(y[i], s as f32 as f64, "{sizes:?} {r} {i}");
                    }
                }
            }
        }
    }
}
