//! `L D Lᵀ` (`L D Lᴴ`) of symmetric (Hermitian) indefinite matrices: Bunch and Kaufman's diagonal pivoting, in the packed
//! format of LAPACK's `sytrf` and `hetrf` for the lower triangle.

use crate::decomposition::Field;
use faer::Mat;
use flambeau_core::*;

fn swap<T: Field>(a: &mut Mat<T>, p: (usize, usize), q: (usize, usize)) {
    let t = a[p];
    a[p] = a[q];
    a[q] = t;
}

/// Factors the lower triangle in place. Pivots are LAPACK's (from 1, negative pairs for blocks of two); the info is the
/// 1-based position of the first block that is exactly singular, or 0.
pub(crate) fn factor<T: Field>(a: &mut Mat<T>, hermitian: bool) -> (Vec<i32>, i32) {
    // Bounds the growth of elements over one and over two steps alike.
    let alpha = (1.0 + 17f64.sqrt()) / 8.0;
    let hermitian = hermitian && T::COMPLEX;
    let op = |x: T| if hermitian { x.conjugate() } else { x };
    let n = a.nrows();
    let (mut pivots, mut info) = (vec![0i32; n], 0);
    let diagonal = |a: &Mat<T>, k: usize| if hermitian { a[(k, k)].re().abs() } else { a[(k, k)].size1() };
    let largest = |items: &mut dyn Iterator<Item = (usize, f64)>| {
        items.fold((0, 0.0), |best, item| if item.1 > best.1 { item } else { best })
    };
    let mut k = 0;
    while k < n {
        if hermitian {
            a[(k, k)] = T::real(a[(k, k)].re());
        }
        let own = diagonal(a, k);
        let (imax, colmax) = largest(&mut (k + 1..n).map(|i| (i, a[(i, k)].size1())));
        let (mut kp, mut step) = (k, 1);
        if own.max(colmax) == 0.0 || own.is_nan() {
            if info == 0 {
                info = k as i32 + 1;
            }
            pivots[k] = k as i32 + 1;
            k += 1;
            continue;
        }
        if own < alpha * colmax {
            let left = largest(&mut (k..imax).map(|j| (j, a[(imax, j)].size1()))).1;
            let below = largest(&mut (imax + 1..n).map(|i| (i, a[(i, imax)].size1()))).1;
            let rowmax = left.max(below);
            if own < alpha * colmax * (colmax / rowmax) {
                kp = imax;
                if diagonal(a, imax) < alpha * rowmax {
                    step = 2;
                }
            }
        }
        let kk = k + step - 1;
        if kp != kk {
            for i in kp + 1..n {
                swap(a, (i, kk), (i, kp));
            }
            for j in kk + 1..kp {
                let t = op(a[(j, kk)]);
                a[(j, kk)] = op(a[(kp, j)]);
                a[(kp, j)] = t;
            }
            a[(kp, kk)] = op(a[(kp, kk)]);
            swap(a, (kk, kk), (kp, kp));
            if step == 2 {
                swap(a, (k + 1, k), (kp, k));
            }
        }
        if hermitian {
            for i in [k, kk, kp] {
                a[(i, i)] = T::real(a[(i, i)].re());
            }
        }
        if step == 1 {
            let r = T::real(1.0) / a[(k, k)];
            for j in k + 1..n {
                let f = r * op(a[(j, k)]);
                for i in j..n {
                    let d = a[(i, k)] * f;
                    a[(i, j)] -= d;
                }
                if hermitian {
                    a[(j, j)] = T::real(a[(j, j)].re());
                }
            }
            for i in k + 1..n {
                a[(i, k)] *= r;
            }
            pivots[k] = kp as i32 + 1;
        } else {
            // The block's inverse, scaled by its off-diagonal element.
            let e = a[(k + 1, k)];
            let scale = if hermitian { T::real(e.norm2().sqrt()) } else { e };
            let (d11, d22) = (a[(k + 1, k + 1)] / scale, a[(k, k)] / scale);
            let unit = e / scale;
            let f = T::real(1.0) / (d11 * d22 - T::real(1.0)) / scale;
            for j in k + 2..n {
                let (x, y) = (a[(j, k)], a[(j, k + 1)]);
                let wk = f * (d11 * x - unit * y);
                let wl = f * (d22 * y - op(unit) * x);
                for i in j..n {
                    let mut d = a[(i, k)] * op(wk);
                    d += a[(i, k + 1)] * op(wl);
                    a[(i, j)] -= d;
                }
                a[(j, k)] = wk;
                a[(j, k + 1)] = wl;
                if hermitian {
                    a[(j, j)] = T::real(a[(j, j)].re());
                }
            }
            pivots[k] = -(kp as i32 + 1);
            pivots[k + 1] = pivots[k];
        }
        k += step;
    }
    (pivots, info)
}

/// Solves `A X = B` in place from [`factor`]'s result.
///
/// # Errors
/// `Runtime` for pivots that no factorisation gives.
pub(crate) fn solve<T: Field>(a: &Mat<T>, pivots: &[i32], b: &mut Mat<T>, hermitian: bool) -> Result<()> {
    let op = |x: T| if hermitian && T::COMPLEX { x.conjugate() } else { x };
    let n = a.nrows();
    let row = |k: usize| -> Result<usize> {
        let p = pivots[k].unsigned_abs() as usize;
        ensure!(
            p >= 1 && p <= n,
            Runtime,
            "linalg.ldl_solve: pivot {} is out of range for a matrix of {n} rows",
            pivots[k]
        );
        Ok(p - 1)
    };
    let exchange = |b: &mut Mat<T>, i: usize, p: usize| {
        if i != p {
            for c in 0..b.ncols() {
                swap(b, (i, c), (p, c));
            }
        }
    };
    let mut k = 0;
    while k < n {
        let p = row(k)?;
        if pivots[k] > 0 {
            exchange(b, k, p);
            for c in 0..b.ncols() {
                let x = b[(k, c)];
                for i in k + 1..n {
                    let d = a[(i, k)] * x;
                    b[(i, c)] -= d;
                }
                b[(k, c)] /= a[(k, k)];
            }
            k += 1;
            continue;
        }
        ensure!(k + 1 < n, Runtime, "linalg.ldl_solve: the pivots end within a block of two");
        exchange(b, k + 1, p);
        let e = a[(k + 1, k)];
        let (d0, d1) = (a[(k, k)] / op(e), a[(k + 1, k + 1)] / e);
        let denominator = d0 * d1 - T::real(1.0);
        for c in 0..b.ncols() {
            let (x, y) = (b[(k, c)], b[(k + 1, c)]);
            for i in k + 2..n {
                let mut d = a[(i, k)] * x;
                d += a[(i, k + 1)] * y;
                b[(i, c)] -= d;
            }
            let (x, y) = (x / op(e), y / e);
            b[(k, c)] = (d1 * x - y) / denominator;
            b[(k + 1, c)] = (d0 * y - x) / denominator;
        }
        k += 2;
    }
    let mut k = n;
    while k > 0 {
        let last = k - 1;
        let size = if pivots[last] > 0 || last == 0 { 1 } else { 2 };
        for c in 0..b.ncols() {
            for j in k - size..k {
                for i in k..n {
                    let d = op(a[(i, j)]) * b[(i, c)];
                    b[(j, c)] -= d;
                }
            }
        }
        exchange(b, last, row(last)?);
        k -= size;
    }
    Ok(())
}
