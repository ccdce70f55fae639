//! Matrix decompositions and the solvers that go with them, over batches: faer's where the result is LAPACK's, own loops where
//! the packed formats (pivots, reflectors) have to be LAPACK's.
//!
//! A matrix is copied into column-major scratch, decomposed by one thread, and written back; threads share out whole matrices,
//! so results do not depend on their number.

use crate::ldl;
use crate::pool;
use faer::linalg::matmul::matmul;
use faer::linalg::triangular_solve as triangular;
use faer::prelude::ReborrowMut;
use faer::{Accum, Mat, MatMut, MatRef, Par, Side};
use flambeau_core::*;
use num_complex::Complex;
use parking_lot::Mutex;
use std::ops::{AddAssign, Div, DivAssign, Mul, MulAssign, Neg, Sub, SubAssign};

/// Columns of a panel that is factored without blocking.
const PANEL: usize = 32;

/// A number that matrices are made of.
pub(crate) trait Field:
    faer::traits::ComplexField
    + Copy
    + PartialEq
    + Mul<Output = Self>
    + Sub<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + AddAssign
    + SubAssign
    + MulAssign
    + DivAssign
{
    /// The type of its parts.
    type Part: Copy + Into<f64>;
    const COMPLEX: bool;
    fn parts(re: f64, im: f64) -> Self;
    fn re(self) -> f64;
    fn im(self) -> f64;
    fn conjugate(self) -> Self;
    fn part(x: f64) -> Self::Part;
    fn from_part(x: &faer::traits::Real<Self>) -> f64;
    /// `|re| + |im|`, by which LAPACK chooses pivots.
    fn size1(self) -> f64 {
        self.re().abs() + self.im().abs()
    }
    fn real(x: f64) -> Self {
        Self::parts(x, 0.0)
    }
    fn norm2(self) -> f64 {
        self.re() * self.re() + self.im() * self.im()
    }
}
macro_rules! fields {
    ($($t:ident)*) => { $(
        impl Field for $t {
            type Part = $t;
            const COMPLEX: bool = false;
            fn parts(re: f64, _: f64) -> Self {
                re as $t
            }
            fn re(self) -> f64 {
                self as f64
            }
            fn im(self) -> f64 {
                0.0
            }
            fn conjugate(self) -> Self {
                self
            }
            fn part(x: f64) -> $t {
                x as $t
            }
            fn from_part(x: &$t) -> f64 {
                *x as f64
            }
        }
        impl Field for Complex<$t> {
            type Part = $t;
            const COMPLEX: bool = true;
            fn parts(re: f64, im: f64) -> Self {
                Complex::new(re as $t, im as $t)
            }
            fn re(self) -> f64 {
                self.re as f64
            }
            fn im(self) -> f64 {
                self.im as f64
            }
            fn conjugate(self) -> Self {
                self.conj()
            }
            fn part(x: f64) -> $t {
                x as $t
            }
            fn from_part(x: &$t) -> f64 {
                *x as f64
            }
        }
    )* };
}
fields!(f32 f64);

/// One matrix of a batch (a vector is one column, a number 1 by 1) in an operand's memory.
#[derive(Clone, Copy)]
pub(crate) struct Slot {
    ptr: *mut u8,
    pub(crate) m: usize,
    pub(crate) n: usize,
    rows: isize,
    cols: isize,
}
impl Slot {
    fn at<T>(&self, i: usize, j: usize) -> *mut T {
        (self.ptr as *mut T).wrapping_offset(i as isize * self.rows + j as isize * self.cols)
    }
    pub(crate) fn get<T: Copy>(&self, i: usize, j: usize) -> T {
        debug_assert!(i < self.m && j < self.n);
        // SAFETY: within the operand's layout, whose memory the caller of the backend vouches for.
        unsafe { *self.at(i, j) }
    }
    pub(crate) fn set<T>(&self, i: usize, j: usize, value: T) {
        debug_assert!(i < self.m && j < self.n);
        // SAFETY: as for `get`; threads hold different matrices of a batch.
        unsafe { *self.at(i, j) = value }
    }
    pub(crate) fn read<T: Field>(&self) -> Mat<T> {
        Mat::from_fn(self.m, self.n, |i, j| self.get(i, j))
    }
    pub(crate) fn write<T: Copy>(&self, f: impl Fn(usize, usize) -> T) {
        for j in 0..self.n {
            for i in 0..self.m {
                self.set(i, j, f(i, j));
            }
        }
    }
}

/// Calls `work` with the slots of every matrix of the batch; `ranks` says how many trailing dimensions of each operand are
/// the matrix's own.
fn each(operands: &[&Operand], ranks: &[usize], work: impl Fn(&[Slot]) -> Result<()> + Sync) -> Result<()> {
    struct Shared<'a>(&'a [&'a Operand<'a>]);
    // SAFETY: operands are addresses and layouts; pieces write different matrices.
    unsafe impl Sync for Shared<'_> {}
    let lead = operands[0].sizes.len() - ranks[0];
    let batch: SmallVec<[i64; 6]> = operands[0].sizes[..lead].into();
    let count: i64 = batch.iter().product();
    let cost: usize =
        operands.iter().zip(ranks).map(|(o, r)| o.sizes[o.sizes.len() - r..].iter().product::<i64>() as usize).sum();
    let failed: Mutex<Option<(usize, Error)>> = Mutex::new(None);
    let shared = Shared(operands);
    pool::chunks(count as usize, (512 / cost.max(1)).max(1), |lo, hi| {
        let shared = &shared;
        for index in lo..hi {
            let slots: SmallVec<[Slot; 6]> = shared
                .0
                .iter()
                .zip(ranks)
                .map(|(o, &r)| {
                    let (mut rest, mut offset) = (index as i64, 0);
                    for d in (0..lead).rev() {
                        offset += (rest % batch[d]) * o.strides[d];
                        rest /= batch[d];
                    }
                    let dim = |d: usize| {
                        if d < r {
                            (o.sizes[lead + d] as usize, o.strides[lead + d] as isize)
                        } else {
                            (1, 0)
                        }
                    };
                    let ((m, rows), (n, cols)) = (dim(0), dim(1));
                    Slot { ptr: o.ptr.wrapping_offset(offset as isize * o.dtype.size() as isize), m, n, rows, cols }
                })
                .collect();
            if let Err(e) = work(&slots) {
                let mut failed = failed.lock();
                if failed.as_ref().is_none_or(|(first, _)| index < *first) {
                    *failed = Some((index, if count > 1 { e.context(format!("(Batch element {index})")) } else { e }));
                }
            }
        }
    });
    failed.into_inner().map_or(Ok(()), |(_, e)| Err(e))
}

/// Runs a decomposition; see [`Decomposition`] for operands and results.
///
/// # Errors
/// `NotImplemented` for a dtype without matrices, `LinAlg` where an iteration does not converge.
pub fn decompose(how: Decomposition, x: &[Operand], out: &[Operand]) -> Result<()> {
    match x[0].dtype {
        DType::F32 => typed::<f32, f32>(how, x, out),
        DType::F64 => typed::<f64, f64>(how, x, out),
        DType::C64 => typed::<Complex<f32>, f32>(how, x, out),
        DType::C128 => typed::<Complex<f64>, f64>(how, x, out),
        DType::I32 => match how {
            Decomposition::Permutation => each(&[&x[0], &out[0]], &[1, 2], |s| {
                match out[0].dtype.size() {
                    4 => permutation(&s[0], &s[1], 1f32, 0f32),
                    8 if out[0].dtype == DType::C64 => {
                        permutation(&s[0], &s[1], Complex::new(1f32, 0.0), Complex::new(0f32, 0.0))
                    }
                    8 => permutation(&s[0], &s[1], 1f64, 0f64),
                    _ => permutation(&s[0], &s[1], Complex::new(1f64, 0.0), Complex::new(0f64, 0.0)),
                }
                Ok(())
            }),
            _ => bail!(NotImplemented, "a decomposition is not implemented for 'Int'"),
        },
        other => bail!(NotImplemented, "a decomposition is not implemented for '{}'", other.title()),
    }
}

fn typed<T: Field<Part = P> + Spectrum<P>, P: Copy + Into<f64> + 'static>(
    how: Decomposition,
    x: &[Operand],
    out: &[Operand],
) -> Result<()> {
    use Decomposition as D;
    let all: SmallVec<[&Operand; 6]> = x.iter().chain(out).collect();
    match how {
        D::Cholesky { upper } => each(&all, &[2, 2, 0], |s| {
            cholesky::<T>(upper, s);
            Ok(())
        }),
        D::Lu { pivot } => each(&all, &[2, 2, 1, 0], |s| {
            let mut a = s[0].read::<T>();
            let (pivots, info) = lu(&mut a, pivot);
            s[1].write(|i, j| a[(i, j)]);
            s[2].write(|i, _| pivots[i] as i32 + 1);
            s[3].set(0, 0, info);
            Ok(())
        }),
        D::LuSolve { adjoint } => each(&all, &[2, 1, 2, 2], |s| {
            lu_solve::<T>(adjoint, s);
            Ok(())
        }),
        D::Qr => each(&all, &[2, 2, 1], |s| {
            let mut a = s[0].read::<T>();
            let tau = qr(&mut a);
            s[1].write(|i, j| a[(i, j)]);
            s[2].write(|i, _| tau[i]);
            Ok(())
        }),
        D::HouseholderProduct => each(&all, &[2, 1, 2], |s| {
            let q = householder_product::<T>(&s[0], &s[1]);
            s[2].write(|i, j| q[(i, j)]);
            Ok(())
        }),
        D::SolveTriangular { upper, unitriangular } => each(&all, &[2, 2, 2], |s| {
            let (a, mut b) = (s[0].read::<T>(), s[1].read::<T>());
            solve_triangular(a.as_ref(), b.as_mut(), upper, unitriangular);
            s[2].write(|i, j| b[(i, j)]);
            Ok(())
        }),
        D::Ldl { hermitian } => each(&all, &[2, 2, 1, 0], |s| {
            let mut a = s[0].read::<T>();
            let (pivots, info) = ldl::factor(&mut a, hermitian);
            s[1].write(|i, j| if i >= j { a[(i, j)] } else { T::real(0.0) });
            s[2].write(|i, _| pivots[i]);
            s[3].set(0, 0, info);
            Ok(())
        }),
        D::LdlSolve { hermitian } => each(&all, &[2, 1, 2, 2], |s| {
            let (a, mut b) = (s[0].read::<T>(), s[2].read::<T>());
            let pivots: Vec<i32> = (0..s[1].m).map(|i| s[1].get(i, 0)).collect();
            ldl::solve(&a, &pivots, &mut b, hermitian)?;
            s[3].write(|i, j| b[(i, j)]);
            Ok(())
        }),
        D::Eigh => each(&all, if out.len() > 1 { &[2, 1, 2] } else { &[2, 1] }, |s| eigh::<T>(s)),
        D::Eig => each(&all, if out.len() > 1 { &[2, 1, 2] } else { &[2, 1] }, |s| T::eig(s)),
        D::Svd => each(&all, if out.len() > 1 { &[2, 2, 1, 2] } else { &[2, 1] }, |s| svd::<T>(s)),
        D::Permutation => bail!(Runtime, "pivots are int32"),
    }
}

/// Lower Cholesky factor of a matrix whose lower (upper) triangle is read; the other triangle of the result is 0. The info
/// is 0 or the order of the leading minor that is not positive.
fn cholesky<T: Field>(upper: bool, s: &[Slot]) {
    let n = s[0].n;
    let mut l = Mat::<T>::from_fn(n, n, |i, j| match i >= j {
        true if upper => s[0].get::<T>(j, i).conjugate(),
        true => s[0].get(i, j),
        false => T::real(0.0),
    });
    let mut info = 0;
    'panels: for start in (0..n).step_by(PANEL) {
        let end = (start + PANEL).min(n);
        // The panel, column by column from the left within itself.
        for j in start..end {
            for k in start..j {
                let f = l[(j, k)].conjugate();
                for i in j..n {
                    let d = l[(i, k)] * f;
                    l[(i, j)] -= d;
                }
            }
            let d = l[(j, j)].re();
            if d.is_nan() || d <= 0.0 {
                info = j as i32 + 1;
                l[(j, j)] = T::real(d);
                break 'panels;
            }
            let d = T::real(d.sqrt());
            l[(j, j)] = d;
            for i in j + 1..n {
                l[(i, j)] /= d;
            }
        }
        if end < n {
            let (left, mut right) = l.as_mut().split_at_col_mut(end);
            let below = left.as_ref().submatrix(end, start, n - end, end - start);
            let rest = right.rb_mut().submatrix_mut(end, 0, n - end, n - end);
            use faer::linalg::matmul::triangular::{self as tri, BlockStructure as B};
            tri::matmul(
                rest,
                B::TriangularLower,
                Accum::Add,
                below,
                B::Rectangular,
                below.adjoint(),
                B::Rectangular,
                T::real(-1.0),
                Par::Seq,
            );
        }
    }
    s[1].write(|i, j| if upper { l[(j, i)].conjugate() } else { l[(i, j)] });
    s[2].set(0, 0, info);
}

/// `P L U` in place, blocked, with LAPACK's choice of pivots. Rows exchanged (from 0), and the 1-based position of the first
/// zero on U's diagonal, or 0.
fn lu<T: Field>(a: &mut Mat<T>, pivot: bool) -> (Vec<usize>, i32) {
    let (m, n) = (a.nrows(), a.ncols());
    let k = m.min(n);
    let mut pivots: Vec<usize> = (0..k).collect();
    let mut info = 0;
    for start in (0..k).step_by(PANEL) {
        let end = (start + PANEL).min(k);
        for j in start..end {
            if pivot {
                let mut best = j;
                for i in j + 1..m {
                    if a[(i, j)].size1() > a[(best, j)].size1() {
                        best = i;
                    }
                }
                pivots[j] = best;
                if best != j {
                    for c in 0..n {
                        let t = a[(j, c)];
                        a[(j, c)] = a[(best, c)];
                        a[(best, c)] = t;
                    }
                }
            }
            let d = a[(j, j)];
            if d == T::real(0.0) {
                if info == 0 {
                    info = j as i32 + 1;
                }
                // LAPACK leaves such a column; without pivoting its factor is not finite.
                if pivot {
                    continue;
                }
            }
            for i in j + 1..m {
                a[(i, j)] /= d;
            }
            for c in j + 1..end {
                let f = a[(j, c)];
                for i in j + 1..m {
                    let d = a[(i, j)] * f;
                    a[(i, c)] -= d;
                }
            }
        }
        if end < n {
            let (left, right) = a.as_mut().split_at_col_mut(end);
            let left = left.as_ref();
            let (mut top, bottom) = right.submatrix_mut(start, 0, m - start, n - end).split_at_row_mut(end - start);
            let block = left.submatrix(start, start, end - start, end - start);
            triangular::solve_unit_lower_triangular_in_place(block, top.rb_mut(), Par::Seq);
            if end < m {
                let below = left.submatrix(end, start, m - end, end - start);
                matmul(bottom, Accum::Add, below, top.as_ref(), T::real(-1.0), Par::Seq);
            }
        }
    }
    (pivots, info)
}

/// `A X = B` (`Aᴴ X = B`) from `P L U`: slots LU, pivots, B, X.
fn lu_solve<T: Field>(adjoint: bool, s: &[Slot]) {
    let (lu, mut b) = (s[0].read::<T>(), s[2].read::<T>());
    let n = lu.nrows();
    let exchange = |b: &mut Mat<T>, i: usize| {
        let p = (s[1].get::<i32>(i, 0) as usize).saturating_sub(1).min(n - 1);
        if p != i {
            for c in 0..b.ncols() {
                let t = b[(i, c)];
                b[(i, c)] = b[(p, c)];
                b[(p, c)] = t;
            }
        }
    };
    if adjoint {
        let h = lu.adjoint().to_owned();
        triangular::solve_lower_triangular_in_place(h.as_ref(), b.as_mut(), Par::Seq);
        triangular::solve_unit_upper_triangular_in_place(h.as_ref(), b.as_mut(), Par::Seq);
        (0..n).rev().for_each(|i| exchange(&mut b, i));
    } else {
        (0..n).for_each(|i| exchange(&mut b, i));
        triangular::solve_unit_lower_triangular_in_place(lu.as_ref(), b.as_mut(), Par::Seq);
        triangular::solve_upper_triangular_in_place(lu.as_ref(), b.as_mut(), Par::Seq);
    }
    s[3].write(|i, j| b[(i, j)]);
}

fn solve_triangular<T: Field>(a: MatRef<T>, b: MatMut<T>, upper: bool, unit: bool) {
    match (upper, unit) {
        (true, true) => triangular::solve_unit_upper_triangular_in_place(a, b, Par::Seq),
        (true, false) => triangular::solve_upper_triangular_in_place(a, b, Par::Seq),
        (false, true) => triangular::solve_unit_lower_triangular_in_place(a, b, Par::Seq),
        (false, false) => triangular::solve_lower_triangular_in_place(a, b, Par::Seq),
    }
}

/// The power of two that brings a matrix to magnitudes whose squares neither overflow nor vanish, as LAPACK's drivers scale
/// theirs; 1 where none is needed.
fn balance<T: Field>(a: &mut Mat<T>) -> f64 {
    let (safe, most) = if size_of::<T::Part>() == 4 { (30, 120) } else { (300, 1000) };
    let mut largest = 0.0f64;
    for j in 0..a.ncols() {
        for i in 0..a.nrows() {
            let size = a[(i, j)].size1();
            if !size.is_finite() {
                return 1.0;
            }
            largest = largest.max(size);
        }
    }
    let limit = 2f64.powi(safe);
    if largest == 0.0 || (1.0 / limit..=limit).contains(&largest) {
        return 1.0;
    }
    let factor = 2f64.powi((-largest.log2().floor() as i32).clamp(-most, most));
    for j in 0..a.ncols() {
        for i in 0..a.nrows() {
            a[(i, j)] *= T::real(factor);
        }
    }
    factor
}

/// Householder reflectors below R, with LAPACK's sign (beta real, opposite to the head's real part); the factors tau.
fn qr<T: Field>(a: &mut Mat<T>) -> Vec<T> {
    let (m, n) = (a.nrows(), a.ncols());
    let factor = balance(a);
    let mut taus = Vec::with_capacity(m.min(n));
    for j in 0..m.min(n) {
        let head = a[(j, j)];
        let scale = (j..m).map(|i| a[(i, j)].size1()).fold(0.0, f64::max);
        let tail: f64 = if scale > 0.0 { (j + 1..m).map(|i| (a[(i, j)] / T::real(scale)).norm2()).sum() } else { 0.0 };
        if tail == 0.0 && head.im() == 0.0 {
            taus.push(T::real(0.0));
            continue;
        }
        let norm = scale * (tail + (head / T::real(scale)).norm2()).sqrt();
        let beta = if head.re() >= 0.0 { -norm } else { norm };
        let tau = T::parts((beta - head.re()) / beta, -head.im() / beta);
        let divisor = head - T::real(beta);
        for i in j + 1..m {
            a[(i, j)] /= divisor;
        }
        a[(j, j)] = T::real(beta);
        // The columns to the right: H^H = I - conj(tau) v v^H.
        for c in j + 1..n {
            let mut dot = a[(j, c)];
            for i in j + 1..m {
                dot += a[(i, j)].conjugate() * a[(i, c)];
            }
            let f = tau.conjugate() * dot;
            a[(j, c)] -= f;
            for i in j + 1..m {
                let d = a[(i, j)] * f;
                a[(i, c)] -= d;
            }
        }
        taus.push(tau);
    }
    if factor != 1.0 {
        for j in 0..n {
            for i in 0..m.min(j + 1) {
                a[(i, j)] *= T::real(1.0 / factor); // R alone has the matrix's scale
            }
        }
    }
    taus
}

/// The first `n` columns of `H₁ H₂ … H_k`, from the reflectors below the diagonal of `a` (m, n).
fn householder_product<T: Field>(a: &Slot, tau: &Slot) -> Mat<T> {
    let (m, n) = (a.m, a.n);
    let v = a.read::<T>();
    let mut q = Mat::<T>::from_fn(m, n, |i, j| T::real(if i == j { 1.0 } else { 0.0 }));
    for k in (0..tau.m).rev() {
        let t: T = tau.get(k, 0);
        for c in k..n {
            let mut dot = q[(k, c)];
            for i in k + 1..m {
                dot += v[(i, k)].conjugate() * q[(i, c)];
            }
            let f = t * dot;
            q[(k, c)] -= f;
            for i in k + 1..m {
                let d = v[(i, k)] * f;
                q[(i, c)] -= d;
            }
        }
    }
    q
}

fn permutation<T: Copy>(pivots: &Slot, out: &Slot, one: T, zero: T) {
    let m = out.m;
    let mut rows: Vec<usize> = (0..m).collect();
    for i in 0..pivots.m.min(m) {
        rows.swap(i, (pivots.get::<i32>(i, 0) as usize).saturating_sub(1).min(m - 1));
    }
    // A = P L U: row rows[i] of A is row i of L U.
    out.write(|i, j| if rows[j] == i { one } else { zero });
}

fn no_convergence(what: &str) -> Error {
    err!(LinAlg, "linalg.{what}: The algorithm failed to converge because the input matrix is ill-conditioned or contains values that are not finite.")
}

/// Eigenvalues in ascending order (and vectors) of the Hermitian matrix in the lower triangle.
fn eigh<T: Field>(s: &[Slot]) -> Result<()> {
    let mut a = s[0].read::<T>();
    let n = a.nrows();
    if n == 0 {
        return Ok(());
    }
    let mut finite = true;
    for j in 0..n {
        let d = a[(j, j)].re();
        a[(j, j)] = T::real(d);
        for i in j..n {
            finite &= a[(i, j)].re().is_finite() && a[(i, j)].im().is_finite();
            a[(j, i)] = a[(i, j)].conjugate();
        }
    }
    if !finite {
        return Err(no_convergence("eigh"));
    }
    let factor = balance(&mut a);
    let e = a.self_adjoint_eigen(Side::Lower).map_err(|_| no_convergence("eigh"))?;
    let w = e.S().column_vector();
    s[1].write(|i, _| T::part(w[i].re() / factor));
    if let Some(v) = s.get(2) {
        let u = e.U();
        v.write(|i, j| u[(i, j)]);
    }
    Ok(())
}

/// Singular values (slots A, S) or the whole decomposition (slots A, U, S, Vᴴ).
fn svd<T: Field>(s: &[Slot]) -> Result<()> {
    let mut a = s[0].read::<T>();
    let (m, n) = (a.nrows(), a.ncols());
    let vectors = s.len() > 2;
    if m.min(n) == 0 {
        let eye = |i: usize, j: usize| T::real(if i == j { 1.0 } else { 0.0 });
        if vectors {
            s[1].write(eye);
            s[3].write(eye);
        }
        return Ok(());
    }
    if !(0..n).all(|j| (0..m).all(|i| a[(i, j)].re().is_finite() && a[(i, j)].im().is_finite())) {
        return Err(no_convergence("svd"));
    }
    let factor = balance(&mut a);
    if !vectors {
        let values = a.singular_values().map_err(|_| no_convergence("svd"))?;
        s[1].write(|i, _| T::part(T::from_part(&values[i]) / factor));
        return Ok(());
    }
    let full = s[1].n == m && s[3].m == n;
    let d = if full { a.svd() } else { a.thin_svd() }.map_err(|_| no_convergence("svd"))?;
    let (u, v, w) = (d.U(), d.V(), d.S().column_vector());
    s[1].write(|i, j| u[(i, j)]);
    s[2].write(|i, _| T::part(w[i].re() / factor));
    s[3].write(|i, j| v[(j, i)].conjugate());
    Ok(())
}

/// The eigenvalues of general matrices; real matrices have complex ones.
pub(crate) trait Spectrum<P>: Field {
    /// Slots A, values, and vectors (columns of norm 1 whose largest element is real).
    fn eig(s: &[Slot]) -> Result<()>;
}
macro_rules! spectra {
    ($($p:ident)*) => { $(
        impl Spectrum<$p> for $p {
            fn eig(s: &[Slot]) -> Result<()> {
                let a = s[0].read::<$p>();
                let finite = (0..a.ncols()).all(|j| (0..a.nrows()).all(|i| a[(i, j)].is_finite()));
                general::<$p>(s, finite, || a.eigenvalues(), || a.eigen())
            }
        }
        impl Spectrum<$p> for Complex<$p> {
            fn eig(s: &[Slot]) -> Result<()> {
                let a = s[0].read::<Complex<$p>>();
                let finite = (0..a.ncols()).all(|j| (0..a.nrows()).all(|i| a[(i, j)].is_finite()));
                general::<$p>(s, finite, || a.eigenvalues(), || a.eigen())
            }
        }
        impl General for $p {}
    )* };
}
/// The real types, of whose complex numbers spectra consist.
trait General: faer::traits::RealField + Copy {}
spectra!(f32 f64);

type Failure = faer::linalg::evd::EvdError;
/// Writes what faer found: values, and vectors with LAPACK's normalisation.
fn general<P: General>(
    s: &[Slot],
    finite: bool,
    values: impl FnOnce() -> std::result::Result<Vec<Complex<P>>, Failure>,
    all: impl FnOnce() -> std::result::Result<faer::linalg::solvers::Eigen<P>, Failure>,
) -> Result<()>
where
    Complex<P>: Field,
{
    ensure!(finite, Runtime, "linalg.eig: input tensor should not contain infs or NaNs.");
    if s[1].m == 0 {
        return Ok(());
    }
    let Some(vectors) = s.get(2) else {
        let w = values().map_err(|_| no_convergence("eigvals"))?;
        s[1].write(|i, _| w[i]);
        return Ok(());
    };
    let e = all().map_err(|_| no_convergence("eig"))?;
    let (u, w) = (e.U(), e.S().column_vector());
    s[1].write(|i, _| w[i]);
    let n = vectors.m;
    for j in 0..n {
        let column: Vec<(f64, f64)> = (0..n).map(|i| (u[(i, j)].re(), u[(i, j)].im())).collect();
        let square = |c: &(f64, f64)| c.0 * c.0 + c.1 * c.1;
        let norm = column.iter().map(square).sum::<f64>().sqrt();
        let big = column.iter().fold((0.0, 0.0), |b, c| if square(c) > square(&b) { *c } else { b });
        let size = square(&big).sqrt();
        // A real vector keeps its sign; a complex one is turned until its largest element is real.
        let (re, im) = if column.iter().all(|c| c.1 == 0.0) || size == 0.0 {
            (1.0 / norm, 0.0)
        } else {
            (big.0 / size / norm, -big.1 / size / norm)
        };
        for (i, c) in column.iter().enumerate() {
            vectors.set(i, j, <Complex<P> as Field>::parts(c.0 * re - c.1 * im, c.0 * im + c.1 * re));
        }
    }
    Ok(())
}
