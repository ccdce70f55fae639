//! A sparse matrix applied along a dimension: resizing, and sums over bags of embeddings. What is summed is read in place and in the
//! order of a row's entries.

use crate::element::{not_implemented, Float, Ptr};
use crate::isa::{dispatch, Isa, Kernel};
use crate::pool;
use flambeau_core::{ensure, DType, Operand, Result, Shape};

/// Multiplications that a thread should at least do.
const GRAIN: usize = 32_768;

/// Rows of a sparse matrix.
struct Rows<E> {
    starts: Vec<usize>,
    columns: Vec<u32>,
    weights: Vec<E>,
}

/// The matrix, or its transpose, checked to have `n` columns (rows, for the transpose) of `count` rows.
///
/// # Safety
/// The operands describe their memory.
unsafe fn rows<E: Float>(
    starts: &Operand,
    index: &Operand,
    weight: &Operand,
    n: usize,
    transposed: bool,
) -> Result<Rows<E>> {
    let starts = std::slice::from_raw_parts(starts.ptr as *const i64, starts.numel() as usize);
    let index = std::slice::from_raw_parts(index.ptr as *const i64, index.numel() as usize);
    let weight = std::slice::from_raw_parts(weight.ptr as *const E, index.len());
    ensure!(
        starts.first() == Some(&0)
            && starts.last() == Some(&(index.len() as i64))
            && starts.windows(2).all(|w| w[0] <= w[1]),
        Runtime,
        "rows must begin at 0, follow each other and end at {}",
        index.len()
    );
    if let Some(bad) = index.iter().find(|&&i| i as u64 >= n as u64) {
        flambeau_core::bail!(Index, "index {bad} is out of bounds for dimension 0 with size {n}");
    }
    if !transposed {
        return Ok(Rows {
            starts: starts.iter().map(|&s| s as usize).collect(),
            columns: index.iter().map(|&i| i as u32).collect(),
            weights: weight.to_vec(),
        });
    }
    let mut begin = vec![0usize; n + 1];
    index.iter().for_each(|&i| begin[i as usize + 1] += 1);
    (0..n).for_each(|i| begin[i + 1] += begin[i]);
    let (mut next, mut columns, mut weights) = (begin.clone(), vec![0u32; index.len()], weight.to_vec());
    for (row, w) in starts.windows(2).enumerate() {
        for k in w[0] as usize..w[1] as usize {
            let at = &mut next[index[k] as usize];
            (columns[*at], weights[*at]) = (row as u32, weight[k]);
            *at += 1;
        }
    }
    Ok(Rows { starts: begin, columns, weights })
}

/// Results `lo..hi` of (planes, m), each of `b` numbers, from `x` (planes, n, b).
struct Weave<'a, E> {
    x: *const E,
    out: *mut E,
    rows: &'a Rows<E>,
    n: usize,
    b: usize,
    lo: usize,
    hi: usize,
}
impl<E: Float> Weave<'_, E> {
    /// `N` blocks of 16 columns from column `c` of result `r`, which is row `j` of a plane at `x`.
    ///
    /// # Safety
    /// They lie within the operands.
    #[inline(always)]
    unsafe fn block<I: Isa, const N: usize>(&self, x: *const E, j: usize, to: *mut E) {
        let mut sums = [[E::of(0.0); 16]; N];
        for k in self.rows.starts[j]..self.rows.starts[j + 1] {
            let (w, from) = (*self.rows.weights.get_unchecked(k), *self.rows.columns.get_unchecked(k) as usize);
            let from = x.add(from * self.b) as *const [[E; 16]; N];
            for (q, sums) in sums.iter_mut().enumerate() {
                for (l, sum) in sums.iter_mut().enumerate() {
                    *sum = E::fma::<I>(w, (*from)[q][l], *sum);
                }
            }
        }
        (to as *mut [[E; 16]; N]).write(sums);
    }
}
impl<E: Float> Kernel for Weave<'_, E> {
    type Out = ();
    #[inline(always)]
    fn run<I: Isa>(self) {
        let (m, b) = (self.rows.starts.len() - 1, self.b);
        // SAFETY: rows and columns have been checked; columns of a block end within the `b` of a row.
        unsafe {
            if b < 16 {
                for r in self.lo..self.hi {
                    let (x, j) = (self.x.add(r / m * self.n * b), r % m);
                    for c in 0..b {
                        let mut sum = E::of(0.0);
                        for k in self.rows.starts[j]..self.rows.starts[j + 1] {
                            let from = *self.rows.columns.get_unchecked(k) as usize;
                            sum = E::fma::<I>(*self.rows.weights.get_unchecked(k), *x.add(from * b + c), sum);
                        }
                        *self.out.add(r * b + c) = sum;
                    }
                }
                return;
            }
            // Some columns of all rows, whose sources then stay in the cache.
            let mut c = 0;
            while c < b {
                let wide = c + 64 <= b;
                // The last block may overlap the one before.
                let at = if wide { c } else { c.min(b - 16) };
                for r in self.lo..self.hi {
                    let (x, j) = (self.x.add(r / m * self.n * b + at), r % m);
                    let to = self.out.add(r * b + at);
                    if wide {
                        self.block::<I, 4>(x, j, to);
                    } else {
                        self.block::<I, 1>(x, j, to);
                    }
                }
                c = at + if wide { 64 } else { 16 };
            }
        }
    }
}

/// See [`flambeau_core::Backend::weave`].
pub fn weave(
    x: &Operand,
    starts: &Operand,
    index: &Operand,
    weight: &Operand,
    dim: usize,
    transposed: bool,
    out: &Operand,
) -> Result<()> {
    let m = out.sizes[dim] as usize;
    ensure!(
        [x, starts, index, weight, out].iter().all(|o| o.is_contiguous())
            && starts.dtype == DType::I64
            && index.dtype == DType::I64
            && weight.dtype == x.dtype
            && out.dtype == x.dtype
            && weight.numel() == index.numel()
            && x.sizes.iter().zip(out.sizes).enumerate().all(|(d, (a, b))| d == dim || a == b)
            && starts.numel() == 1 + if transposed { x.sizes[dim] } else { m as i64 },
        Runtime,
        "a sparse matrix of {} entries does not lead from {} to {}",
        index.numel(),
        Shape(x.sizes),
        Shape(out.sizes)
    );
    // Rows and columns are numbered in 32 bits.
    let most = x.sizes[dim].max(out.sizes[dim]);
    ensure!(most <= u32::MAX as i64, Runtime, "weave: expected at most 2^32 - 1 rows and columns, got {most}");
    match x.dtype {
        DType::F32 => of::<f32>(x, starts, index, weight, dim, transposed, out),
        DType::F64 => of::<f64>(x, starts, index, weight, dim, transposed, out),
        other => Err(not_implemented("weave", other)),
    }
}
fn of<E: Float>(
    x: &Operand,
    starts: &Operand,
    index: &Operand,
    weight: &Operand,
    dim: usize,
    transposed: bool,
    out: &Operand,
) -> Result<()> {
    let (n, m) = (x.sizes[dim] as usize, out.sizes[dim] as usize);
    // SAFETY: contiguous operands of these dtypes.
    let rows = unsafe { rows::<E>(starts, index, weight, if transposed { m } else { n }, transposed)? };
    let b = x.sizes[dim + 1..].iter().product::<i64>() as usize;
    let total = out.sizes[..=dim].iter().product::<i64>() as usize;
    let (from, to, rows) = (Ptr(x.ptr as *mut E), Ptr(out.ptr as *mut E), &rows);
    let each = (rows.columns.len() / m.max(1) + 1) * b;
    pool::chunks(total, (GRAIN / each.max(1)).max(8), |lo, hi| {
        dispatch(Weave { x: from.get(), out: to.get(), rows, n, b, lo, hi });
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Case;

    #[test]
    fn the_matrix_and_its_transpose() {
        let (n, m) = (30i64, 40i64);
        let per = |j: i64| j % 4;
        let starts: Vec<f64> = (0..=m).map(|j| (0..j).map(per).sum::<i64>() as f64).collect();
        let entries = starts[m as usize] as usize;
        let at: Vec<f64> = (0..entries).map(|k| (k * 7 % n as usize) as f64).collect();
        for dtype in [DType::F32, DType::F64] {
            for (a, b) in [(3i64, 1i64), (2, 5), (50, 16), (2, 100), (40, 57)] {
                let weight = Case::random(dtype, &[entries as i64], false, 2);
                let (s, i) =
                    (Case::real(DType::I64, &[m + 1], &starts), Case::real(DType::I64, &[entries as i64], &at));
                for transposed in [false, true] {
                    let (from, to) = if transposed { (m, n) } else { (n, m) };
                    let x = Case::random(dtype, &[a, from, b], false, 1);
                    let (xv, wv) = (x.reals(), weight.reals());
                    let mut want = vec![0.0; (a * to * b) as usize];
                    for p in 0..a as usize {
                        for j in 0..m as usize {
                            for k in starts[j] as usize..starts[j + 1] as usize {
                                let (r, c) = if transposed { (at[k] as usize, j) } else { (j, at[k] as usize) };
                                for l in 0..b as usize {
                                    want[(p * to as usize + r) * b as usize + l] +=
                                        wv[k] * xv[(p * from as usize + c) * b as usize + l];
                                }
                            }
                        }
                    }
                    let mut bits: Option<Vec<u8>> = None;
                    for threads in [1, 2, 8] {
                        pool::set_num_threads(threads);
                        let out = Case::random(dtype, &[a, to, b], false, 3);
                        weave(
                            &x.operand(),
                            &s.operand(),
                            &i.operand(),
                            &weight.operand(),
                            1,
                            transposed,
                            &out.operand(),
                        )
                        .unwrap();
                        for (got, want) in out.reals().iter().zip(&want) {
                            assert!((got - want).abs() <= 1e-5 * (1.0 + want.abs()), "{got} {want}");
                        }
                        assert_eq!(*bits.get_or_insert(out.bytes.clone()), out.bytes);
                    }
                }
            }
        }
    }
}
