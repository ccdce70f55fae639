//! What `torch.linalg` offers over the decompositions: factorisations with checks, linear systems, inverses, determinants,
//! ranks, powers and exponentials of batches of matrices.

use crate::apply::Dest;
use crate::autograd::node::constant_of;
use crate::mode;
use crate::ops::decomposition::{decompose, implicit, permutation, Rule};
use crate::ops::linalg::{self, matmul};
use crate::ops::{device, elementwise as e, factory, join, reduction, scan, view};
use crate::tensor::Tensor;
use flambeau_core::*;

fn tril(t: &Tensor, k: i64) -> Result<Tensor> {
    linalg::tril(t, k, Dest::New)
}
fn triu(t: &Tensor, k: i64) -> Result<Tensor> {
    linalg::triu(t, k, Dest::New)
}
fn tracked(t: &Tensor) -> bool {
    mode::grad_enabled() && t.requires_grad()
}
/// A matrix or a batch of them, of a dtype that has decompositions.
fn matrices(name: &str, a: &Tensor) -> Result<()> {
    ensure!(
        a.dim() >= 2,
        Runtime,
        "{name}: The input tensor A must have at least 2 dimensions, but got {} dimensions.",
        a.dim()
    );
    ensure!(
        a.dtype().is_differentiable(),
        Runtime,
        "{name}: Expected a floating point or complex tensor as input. Got {}",
        a.dtype().title()
    );
    ensure!(!a.dtype().is_reduced(), Runtime, "{name}: Low precision dtypes not supported. Got {}", a.dtype().title());
    Ok(())
}
fn square(name: &str, a: &Tensor) -> Result<()> {
    matrices(name, a)?;
    let (m, n) = (a.size(-2)?, a.size(-1)?);
    ensure!(m == n, Runtime, "{name}: A must be batches of square matrices, but they are {m} by {n} matrices");
    Ok(())
}
fn same_dtype(name: &str, a: &Tensor, b: &Tensor) -> Result<()> {
    ensure!(
        a.dtype() == b.dtype(),
        Runtime,
        "{name}: Expected A and B to have the same dtype, but found A of type {} and B of type {} instead",
        a.dtype().title(),
        b.dtype().title()
    );
    Ok(())
}
/// The first info that is not 0, with its place in the batch.
fn failure(info: &Tensor) -> Result<Option<(String, i64)>> {
    let batched = info.dim() > 0;
    for (i, x) in device::to_vec_i64(info)?.into_iter().enumerate() {
        if x != 0 {
            return Ok(Some((if batched { format!("(Batch element {i}): ") } else { String::new() }, x)));
        }
    }
    Ok(None)
}
fn check_singular(name: &str, info: &Tensor) -> Result<()> {
    match failure(info)? {
        Some((_, _)) if name == "linalg.solve" => {
            Err(err!(LinAlg, "{name}: The solver failed because the input matrix is singular."))
        }
        Some((at, i)) => Err(err!(
            LinAlg,
            "{name}: {at}The diagonal element {i} is zero, the inversion could not be completed because the input matrix is singular."
        )),
        None => Ok(()),
    }
}
/// Both operands with one batch shape.
fn broadcast(a: &Tensor, b: &Tensor) -> Result<(Tensor, Tensor)> {
    let (x, y) = (a.sizes(), b.sizes());
    let batch = broadcast_shapes(&x[..x.len() - 2], &y[..y.len() - 2])?;
    let wide = |t: &Tensor, s: &[i64]| -> Result<Tensor> {
        let mut sizes = batch.clone();
        sizes.extend_from_slice(&s[s.len() - 2..]);
        if sizes[..] == *s {
            Ok(t.clone())
        } else {
            view::expand(t, &sizes)
        }
    };
    Ok((wide(a, &x)?, wide(b, &y)?))
}
fn one<T>(mut list: Vec<T>) -> T {
    list.swap_remove(0)
}

/// `A = L Lᴴ` (`Uᴴ U`), and for each matrix 0 or the order of the minor that is not positive-definite.
///
/// # Errors
/// `Runtime` for anything but square matrices; with `check`, `LinAlg` for one that is not positive-definite.
pub fn cholesky_ex(name: &str, a: &Tensor, upper: bool, check: bool) -> Result<(Tensor, Tensor)> {
    square(name, a)?;
    let mut out = decompose(Decomposition::Cholesky { upper }, &[a], false, false)?;
    let info = out.swap_remove(1);
    if check {
        if let Some((at, i)) = failure(&info)? {
            bail!(
                LinAlg,
                "{name}: {at}The factorization could not be completed because the input is not positive-definite (the leading minor of order {i} is not positive-definite)."
            );
        }
    }
    if !tracked(a) {
        return Ok((one(out), info));
    }
    let l = one(out);
    let l = if upper { view::mh(&l)? } else { l };
    let l = one(implicit(Rule::Cholesky, "linalg_cholesky_ex", &[a], &[l])?);
    Ok((if upper { view::mh(&l)? } else { l }, info))
}
/// `A⁻¹` from its Cholesky factor.
///
/// # Errors
/// As [`cholesky_solve`].
pub fn cholesky_inverse(l: &Tensor, upper: bool) -> Result<Tensor> {
    square("cholesky_inverse", l)?;
    let eye = factory::eye(l.size(-1)?, l.size(-1)?, l.dtype(), l.device())?;
    cholesky_solve(&view::expand(&eye, &l.sizes())?, l, upper)
}
/// `A X = B` from A's Cholesky factor.
///
/// # Errors
/// `Runtime` for shapes that do not fit.
pub fn cholesky_solve(b: &Tensor, l: &Tensor, upper: bool) -> Result<Tensor> {
    ensure!(b.dim() >= 2, Runtime, "b should have at least 2 dimensions, but has {} dimensions instead", b.dim());
    ensure!(l.dim() >= 2, Runtime, "u should have at least 2 dimensions, but has {} dimensions instead", l.dim());
    square("cholesky_solve", l)?;
    let values = |b: &Tensor, l: &Tensor| -> Result<Tensor> {
        let l = if upper { view::mh(l)? } else { l.clone() };
        let y = solve_triangular(&l, b, false, true, false)?;
        solve_triangular(&view::mh(&l)?, &y, true, true, false)
    };
    if !tracked(b) && !tracked(l) {
        return values(b, l);
    }
    let (l, b) = broadcast(l, b)?;
    let x = values(&b.detach(), &l.detach())?;
    Ok(one(implicit(Rule::CholeskySolve { upper }, "cholesky_solve", &[&l, &b], &[x])?))
}

/// `A X = B` for a triangular A whose batch is B's.
pub(crate) fn triangular_values(a: &Tensor, b: &Tensor, upper: bool, unit: bool) -> Result<Tensor> {
    let (a, b) = broadcast(a, b)?;
    let how = Decomposition::SolveTriangular { upper, unitriangular: unit };
    let x = decompose(how, &[&a, &b], false, false)?;
    if !tracked(&a) && !tracked(&b) {
        return Ok(one(x));
    }
    Ok(one(implicit(Rule::Triangular { upper, unit }, "linalg_solve_triangular", &[&a, &b], &x)?))
}
/// `A X = B` (`X A = B` unless `left`) for triangular A, of which one triangle is read.
///
/// # Errors
/// `Runtime` for shapes or dtypes that do not fit.
pub fn solve_triangular(a: &Tensor, b: &Tensor, upper: bool, left: bool, unit: bool) -> Result<Tensor> {
    let name = "linalg.solve_triangular";
    square(name, a)?;
    matrices(name, b)?;
    same_dtype(name, a, b)?;
    let (n, rows) = (a.size(-1)?, b.size(if left { -2 } else { -1 })?);
    ensure!(
        n == rows,
        Runtime,
        "{name}: Incompatible shapes of A and B for the equation {} ({n}x{n} and {}x{})",
        if left { "AX = B" } else { "XA = B" },
        b.size(-2)?,
        b.size(-1)?
    );
    if left {
        return triangular_values(a, b, upper, unit);
    }
    view::mt(&triangular_values(&view::mt(a)?, &view::mt(b)?, !upper, unit)?)
}
/// The older `triangular_solve`: the solution, and a copy of A.
///
/// # Errors
/// As [`solve_triangular`].
pub fn triangular_solve(b: &Tensor, a: &Tensor, upper: bool, transpose: bool, unit: bool) -> Result<(Tensor, Tensor)> {
    let x = if transpose {
        solve_triangular(&view::mh(a)?, b, !upper, true, unit)?
    } else {
        solve_triangular(a, b, upper, true, unit)?
    };
    Ok((x, view::clone(a)?))
}

/// Packed `P L U`, pivots and infos.
///
/// # Errors
/// `Runtime` below two dimensions; with `check`, `LinAlg` for a zero pivot.
pub fn lu_factor_ex(a: &Tensor, pivot: bool, check: bool) -> Result<(Tensor, Tensor, Tensor)> {
    let name = "linalg.lu_factor_ex";
    matrices(name, a)?;
    let mut out = decompose(Decomposition::Lu { pivot }, &[a], false, false)?;
    let info = out.swap_remove(2);
    let pivots = out.swap_remove(1);
    let lu = one(out);
    if check {
        if let Some((at, i)) = failure(&info)? {
            bail!(LinAlg, "torch.linalg.lu_factor: {at}U[{i},{i}] is zero and using it on lu_solve would result in a division by zero. If you still want to perform the factorization, consider calling linalg.lu(A, pivot) or linalg.lu_factor_ex(A, pivot)");
        }
    }
    if !tracked(a) {
        return Ok((lu, pivots, info));
    }
    let (m, n) = (a.size(-2)?, a.size(-1)?);
    let k = m.min(n);
    // The square block is differentiated; what lies beside or below follows from it by triangular solves.
    let pa = matmul(&view::mh(&permutation(&pivots, m, a.dtype())?)?, a)?;
    let head = |t: &Tensor| view::narrow(&view::narrow(t, -2, 0, k)?, -1, 0, k);
    let core = one(implicit(Rule::Lu, "linalg_lu_factor_ex", &[&head(&pa)?], &[head(&lu)?])?);
    let packed = if n > k {
        let right = view::narrow(&pa, -1, k, n - k)?;
        join::cat(&[core.clone(), triangular_values(&core, &right, false, true)?], -1)?
    } else if m > k {
        let below = view::narrow(&pa, -2, k, m - k)?;
        let x = view::mt(&triangular_values(&view::mt(&core)?, &view::mt(&below)?, false, false)?)?;
        join::cat(&[core, x], -2)?
    } else {
        core
    };
    Ok((packed, pivots, info))
}
/// P, L and U of a packed factorisation; what is not wanted is empty.
///
/// # Errors
/// `Runtime` for pivots that are not int32.
pub fn lu_unpack(lu: &Tensor, pivots: &Tensor, data: bool, with_pivots: bool) -> Result<(Tensor, Tensor, Tensor)> {
    let (m, n) = (lu.size(-2)?, lu.size(-1)?);
    let k = m.min(n);
    ensure!(
        !with_pivots || pivots.dtype() == DType::I32,
        Runtime,
        "torch.lu_unpack: LU_pivots is expected to be a contiguous tensor of torch.int32 dtype. Note: this function is intended to be used with the output produced by torch.linalg.lu_factor"
    );
    let none = factory::empty(&[0], lu.dtype(), lu.device())?;
    let p = if with_pivots { permutation(pivots, m, lu.dtype())? } else { none.clone() };
    if !data {
        return Ok((p, none.clone(), none));
    }
    let eye = factory::eye(m, k, lu.dtype(), lu.device())?;
    let l = e::add(&tril(&view::narrow(lu, -1, 0, k)?, -1)?, &eye)?;
    Ok((p, l, triu(&view::narrow(lu, -2, 0, k)?, 0)?))
}
/// P, L and U with `A = P L U`.
///
/// # Errors
/// As [`lu_factor_ex`].
pub fn lu(a: &Tensor, pivot: bool) -> Result<(Tensor, Tensor, Tensor)> {
    matrices("linalg.lu", a)?;
    let (lu, pivots, _) = lu_factor_ex(a, pivot, false)?;
    let (p, l, u) = lu_unpack(&lu, &pivots, true, pivot)?;
    Ok((p, l, u))
}
/// `A X = B` from `lu_factor`'s result.
///
/// # Errors
/// `Runtime` for shapes or dtypes that do not fit.
pub fn lu_solve(lu: &Tensor, pivots: &Tensor, b: &Tensor, left: bool, adjoint: bool) -> Result<Tensor> {
    let name = "linalg.lu_solve";
    square(name, lu)?;
    matrices(name, b)?;
    same_dtype(name, lu, b)?;
    ensure!(pivots.dtype() == DType::I32, Runtime, "{name}: pivots should be a Tensor of scalar type torch.int32");
    ensure!(
        lu.size(-1)? == b.size(if left { -2 } else { -1 })?,
        Runtime,
        "{name}: Incompatible shapes of A and B for the equation {}",
        if left { "AX = B" } else { "XA = B" }
    );
    // X A = B is Aᴴ Xᴴ = Bᴴ.
    if !left {
        return view::mh(&lu_solve(lu, pivots, &view::mh(b)?, true, !adjoint)?);
    }
    let (_, l, u) = lu_unpack(lu, pivots, true, false)?;
    let p = permutation(pivots, lu.size(-1)?, lu.dtype())?;
    if adjoint {
        let y = solve_triangular(&view::mh(&u)?, b, false, true, false)?;
        matmul(&p, &solve_triangular(&view::mh(&l)?, &y, true, true, true)?)
    } else {
        let y = solve_triangular(&l, &matmul(&view::mh(&p)?, b)?, false, true, true)?;
        solve_triangular(&u, &y, true, true, false)
    }
}

fn solve_with_info(a: &Tensor, b: &Tensor) -> Result<(Tensor, Tensor, Tensor, Tensor)> {
    let mut f = decompose(Decomposition::Lu { pivot: true }, &[a], false, false)?;
    let (wide, b) = broadcast(a, b)?;
    let (lu, pivots) = if wide.sizes() == a.sizes() {
        (f[0].clone(), f[1].clone())
    } else {
        let mut s = wide.sizes();
        let lu = view::expand(&f[0], &s)?;
        s.pop();
        (lu, view::expand(&f[1], &s)?)
    };
    let x = decompose(Decomposition::LuSolve { adjoint: false }, &[&lu, &pivots, &b], false, false)?;
    let x = if tracked(a) || tracked(&b) {
        one(implicit(Rule::Solve, "linalg_solve_ex", &[&wide, &b], &x)?)
    } else {
        one(x)
    };
    let info = f.swap_remove(2);
    let pivots = f.swap_remove(1);
    Ok((x, one(f), pivots, info))
}
/// `A X = B` for square A, without checks.
pub(crate) fn solve_values(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    Ok(solve_with_info(a, b)?.0)
}
/// `A X = B` (`X A = B` unless `left`), and infos; B may be a batch of vectors.
///
/// # Errors
/// `Runtime` for shapes or dtypes that do not fit; with `check`, `LinAlg` for a singular matrix.
pub fn solve_ex(name: &str, a: &Tensor, b: &Tensor, left: bool, check: bool) -> Result<(Tensor, Tensor)> {
    square(name, a)?;
    same_dtype(name, a, b)?;
    let (x, y) = (a.sizes(), b.sizes());
    let vector = b.dim() == 1 || (b.dim() + 1 == a.dim() && y[..] == x[..x.len() - 1]);
    ensure!(left || !vector, Runtime, "linalg.solve: Vector broadcasting of the left hand side is not supported for left=False. In this case linalg.solve is equivalent to B / A.squeeze(-1)");
    ensure!(vector || b.dim() >= 2, Runtime, "{name}: B must be a vector or a batch of matrices");
    let b = if vector { view::unsqueeze(b, -1)? } else { b.clone() };
    let (n, rows) = (a.size(-1)?, b.size(if left { -2 } else { -1 })?);
    ensure!(
        n == rows,
        Runtime,
        "{name}: Incompatible shapes of A and B for the equation {} ({n}x{n} and {}x{})",
        if left { "AX = B" } else { "XA = B" },
        b.size(-2)?,
        b.size(-1)?
    );
    let (out, _, _, info) = if left {
        solve_with_info(a, &b)?
    } else {
        let (x, lu, p, i) = solve_with_info(&view::mt(a)?, &view::mt(&b)?)?;
        (view::mt(&x)?, lu, p, i)
    };
    if check {
        check_singular("linalg.solve", &info)?;
    }
    Ok((if vector { view::squeeze(&out, Some(&[-1]))? } else { out }, info))
}
/// The inverse, and infos.
///
/// # Errors
/// As [`solve_ex`].
pub fn inv_ex(name: &str, a: &Tensor, check: bool) -> Result<(Tensor, Tensor)> {
    square(name, a)?;
    let n = a.size(-1)?;
    let (x, _, _, info) = solve_with_info(&a.detach(), &factory::eye(n, n, a.dtype(), a.device())?)?;
    if check {
        check_singular(name, &info)?;
    }
    if !tracked(a) {
        return Ok((x, info));
    }
    Ok((one(implicit(Rule::Inverse, "linalg_inv_ex", &[a], &[x])?), info))
}
/// X of `tensordot(A, X, X.dim()) = B`.
///
/// # Errors
/// `Runtime` for shapes that make no square system.
pub fn tensorsolve(a: &Tensor, b: &Tensor, dims: Option<&[i64]>) -> Result<Tensor> {
    let a = match dims {
        Some(dims) => {
            let to: Vec<i64> = (a.dim() as i64 - dims.len() as i64..a.dim() as i64).collect();
            view::movedim(a, dims, &to)?
        }
        None => a.clone(),
    };
    let rest: Dims = a.sizes()[b.dim().min(a.dim())..].into();
    ensure!(
        numel(&rest) == b.numel(),
        Runtime,
        "Expected self to satisfy the requirement prod(self.shape[other.ndim:]) == prod(self.shape[:other.ndim]), but got {} != {}",
        numel(&rest),
        b.numel()
    );
    let n = b.numel();
    let x = solve_ex("linalg.solve", &view::reshape(&a, &[n, n])?, &view::reshape(b, &[n])?, true, true)?.0;
    view::reshape(&x, &rest)
}
/// The inverse of A as a map from its last dimensions to its first `ind`.
///
/// # Errors
/// `Runtime` for shapes that make no square system.
pub fn tensorinv(a: &Tensor, ind: i64) -> Result<Tensor> {
    ensure!(ind > 0, Runtime, "Expected a strictly positive integer for 'ind'");
    let s = a.sizes();
    let ind = (ind as usize).min(s.len());
    let (m, n) = (numel(&s[..ind]), numel(&s[ind..]));
    ensure!(
        m == n,
        Runtime,
        "Expected self to satisfy the requirement prod(self.shape[ind:]) == prod(self.shape[:ind]), but got {n} != {m}"
    );
    let x = inv_ex("linalg.inv", &view::reshape(a, &[m, n])?, true)?.0;
    view::reshape(&x, &[&s[ind..], &s[..ind]].concat())
}

/// Householder reflectors and their factors, as LAPACK packs them.
///
/// # Errors
/// `Runtime` below two dimensions.
pub fn geqrf(a: &Tensor) -> Result<(Tensor, Tensor)> {
    matrices("geqrf", a)?;
    let mut out = decompose(Decomposition::Qr, &[a], false, false)?;
    let tau = out.swap_remove(1);
    Ok((one(out), tau))
}
/// The first columns of the product of reflectors.
///
/// # Errors
/// `Runtime` for shapes that do not fit.
pub fn householder_product(a: &Tensor, tau: &Tensor) -> Result<Tensor> {
    let name = "torch.linalg.householder_product";
    matrices(name, a)?;
    let (m, n, k) = (a.size(-2)?, a.size(-1)?, tau.size(-1)?);
    ensure!(m >= n, Runtime, "{name}: input.shape[-2] must be greater than or equal to input.shape[-1]");
    ensure!(n >= k, Runtime, "{name}: input.shape[-1] must be greater than or equal to tau.shape[-1]");
    ensure!(
        a.dtype() == tau.dtype(),
        Runtime,
        "{name}: tau dtype {} does not match input dtype {}",
        tau.dtype().title(),
        a.dtype().title()
    );
    ensure!(
        tau.sizes()[..tau.dim() - 1] == a.sizes()[..a.dim() - 2],
        Runtime,
        "{name}: Expected batch dimensions of tau to be equal to input.shape[:-2], but got {}",
        Shape(&tau.sizes())
    );
    if !tracked(a) && !tracked(tau) {
        return Ok(one(decompose(Decomposition::HouseholderProduct, &[a, tau], false, false)?));
    }
    // Reflector by reflector, in differentiable operators.
    let mut q = factory::eye(m, n, a.dtype(), a.device())?;
    let low = e::add(&tril(a, -1)?, &factory::eye(m, n, a.dtype(), a.device())?)?;
    for i in (0..k).rev() {
        let v = view::narrow(&low, -1, i, 1)?;
        let t = view::unsqueeze(&view::narrow(tau, -1, i, 1)?, -1)?;
        q = e::sub(&q, &matmul(&e::mul(&v, &t)?, &matmul(&view::mh(&v)?, &q)?)?)?;
    }
    if k == 0 {
        return constant_of(view::clone(&view::expand(&q, &a.sizes())?)?, if tracked(a) { a } else { tau });
    }
    view::expand(&q, &a.sizes())
}
/// `Q C`, `Qᴴ C`, `C Q` or `C Qᴴ` with the whole Q of the reflectors.
///
/// # Errors
/// As [`householder_product`].
pub fn ormqr(a: &Tensor, tau: &Tensor, c: &Tensor, left: bool, transpose: bool) -> Result<Tensor> {
    ensure!(a.dim() >= 2, Runtime, "torch.ormqr: input must have at least 2 dimensions.");
    ensure!(c.dim() >= 2, Runtime, "torch.ormqr: other must have at least 2 dimensions.");
    let side = if left { -2 } else { -1 };
    ensure!(
        c.size(side)? >= tau.size(-1)?,
        Runtime,
        "torch.ormqr: other.shape[{side}] must be greater than or equal to tau.shape[-1]"
    );
    ensure!(c.size(side)? == a.size(-2)?, Runtime, "torch.ormqr: other.shape[{side}] must be equal to input.shape[-2]");
    ensure!(
        tau.size(-1)? == c.size(side)?.min(a.size(-1)?),
        Runtime,
        "torch.ormqr: tau.shape[-1] must be equal to min(other.shape[{side}], input.shape[-1])"
    );
    ensure!(
        a.dim() - tau.dim() == 1,
        Runtime,
        "torch.ormqr: Expected tau to have one dimension less than input, but got tau.ndim equal to {} and input.ndim is equal to {}",
        tau.dim(),
        a.dim()
    );
    ensure!(
        a.dim() == c.dim(),
        Runtime,
        "torch.ormqr: Expected other to have the same number of dimensions as input, but got other.ndim equal to {} and input.ndim is equal to {}",
        c.dim(),
        a.dim()
    );
    ensure!(
        tau.sizes()[..tau.dim() - 1] == a.sizes()[..a.dim() - 2] && c.sizes()[..c.dim() - 2] == a.sizes()[..a.dim() - 2],
        Runtime,
        "torch.ormqr: Expected batch dimensions of tau and other to be equal to input.shape[:-2], but got tau of {}, other of {} and input of {}",
        Shape(&tau.sizes()),
        Shape(&c.sizes()),
        Shape(&a.sizes())
    );
    ensure!(
        tau.dtype() == a.dtype() && c.dtype() == a.dtype(),
        Runtime,
        "torch.ormqr: Expected input, tau and other to have the same dtype, but they are {}, {} and {}",
        a.dtype().title(),
        tau.dtype().title(),
        c.dtype().title()
    );
    let (m, n) = (a.size(-2)?, tau.size(-1)?);
    let pad = m - n;
    let whole = if pad > 0 {
        let a = view::narrow(a, -1, 0, n)?;
        let mut s = a.sizes();
        let last = s.len() - 1;
        s[last] = pad;
        join::cat(&[a.clone(), factory::zeros(&s, a.dtype(), a.device())?], -1)?
    } else {
        view::narrow(a, -1, 0, n)?
    };
    let q = householder_product(&whole, tau)?;
    let q = if transpose { view::mh(&q)? } else { q };
    if left {
        matmul(&q, c)
    } else {
        matmul(c, &q)
    }
}
/// `A = Q R`; mode "reduced", "complete" or "r" (Q empty).
///
/// # Errors
/// `Runtime` for another mode, or a gradient that does not exist.
pub fn qr(a: &Tensor, mode: &str) -> Result<(Tensor, Tensor)> {
    matrices("linalg.qr", a)?;
    ensure!(
        matches!(mode, "reduced" | "complete" | "r"),
        Runtime,
        "qr received unrecognized mode '{mode}' but expected one of 'reduced' (default), 'r', or 'complete'"
    );
    let (m, n) = (a.size(-2)?, a.size(-1)?);
    let k = m.min(n);
    if tracked(a) && mode != "r" && (mode == "reduced" || m <= n) {
        if m < n {
            let (q, u) = qr(&view::narrow(a, -1, 0, m)?, "reduced")?;
            let v = matmul(&view::mh(&q)?, &view::narrow(a, -1, m, n - m)?)?;
            return Ok((q, join::cat(&[u, v], -1)?));
        }
        let (q, r) = qr(&a.detach(), "reduced")?;
        let mut out = implicit(Rule::Qr, "linalg_qr", &[a], &[q, r])?;
        let r = out.swap_remove(1);
        return Ok((one(out), r));
    }
    let a = &a.detach();
    let (packed, tau) = geqrf(a)?;
    let wide = if mode == "complete" { m } else { k };
    let mut r = triu(&view::narrow(&packed, -2, 0, k)?, 0)?;
    if mode == "r" {
        return Ok((factory::empty(&[0], a.dtype(), a.device())?, r));
    }
    let fill = |t: Tensor, dim: i64, n: i64| -> Result<Tensor> {
        let mut s = t.sizes();
        let d = s.len() - (-dim) as usize;
        s[d] = n;
        Ok(if n == 0 { t } else { join::cat(&[t.clone(), factory::zeros(&s, t.dtype(), t.device())?], dim)? })
    };
    let v = fill(view::narrow(&packed, -1, 0, k)?, -1, wide - k)?;
    if wide > k {
        r = fill(r, -2, wide - k)?;
    }
    Ok((one(decompose(Decomposition::HouseholderProduct, &[&v, &tau], false, false)?), r))
}

/// Packed `L D Lᵀ`, pivots and infos.
///
/// # Errors
/// `Runtime` for matrices that are not square; with `check`, `LinAlg` for a singular block.
pub fn ldl_factor_ex(a: &Tensor, hermitian: bool, check: bool) -> Result<(Tensor, Tensor, Tensor)> {
    square("torch.linalg.ldl_factor_ex", a)?;
    let mut out = decompose(Decomposition::Ldl { hermitian }, &[a], false, false)?;
    let info = out.swap_remove(2);
    let pivots = out.swap_remove(1);
    if check {
        if let Some((at, i)) = failure(&info)? {
            bail!(LinAlg, "torch.linalg.ldl_factor_ex: {at}D[{i},{i}] is zero and using it on ldl_solve would result in a division by zero.");
        }
    }
    Ok((one(out), pivots, info))
}
/// `A X = B` from `ldl_factor`'s result.
///
/// # Errors
/// `Runtime` for shapes or dtypes that do not fit.
pub fn ldl_solve(ld: &Tensor, pivots: &Tensor, b: &Tensor, hermitian: bool) -> Result<Tensor> {
    let name = "torch.linalg.ldl_solve";
    square(name, ld)?;
    matrices(name, b)?;
    same_dtype(name, ld, b)?;
    ensure!(
        pivots.dtype() == DType::I32,
        Runtime,
        "{name}: Expected pivots to be integers. Got {}",
        pivots.dtype().title()
    );
    ensure!(
        ld.size(-1)? == b.size(-2)?,
        Runtime,
        "{name}: Expected B to have as many rows as LD, but got {} and {}",
        b.size(-2)?,
        ld.size(-1)?
    );
    let (ld, b) = broadcast(ld, b)?;
    let mut s = ld.sizes();
    s.pop();
    let pivots = view::expand(pivots, &s)?;
    Ok(one(decompose(Decomposition::LdlSolve { hermitian }, &[&ld, &pivots, &b], false, false)?))
}

/// Eigenvalues (ascending) and vectors of Hermitian matrices, of which one triangle is read.
///
/// # Errors
/// `Runtime` for matrices that are not square; `LinAlg` without convergence.
pub fn eigh(a: &Tensor, uplo: &str) -> Result<(Tensor, Tensor)> {
    let (w, v) = eigh_parts("linalg.eigh", a, uplo, true)?;
    v.map(|v| (w, v)).ok_or_else(|| err!(Runtime, "linalg.eigh: missing vectors"))
}
fn eigh_parts(name: &str, a: &Tensor, uplo: &str, vectors: bool) -> Result<(Tensor, Option<Tensor>)> {
    square(name, a)?;
    let lower = match uplo.to_ascii_uppercase().as_str() {
        "L" => true,
        "U" => false,
        _ => bail!(Runtime, "Expected UPLO argument to be 'L' or 'U', but got {uplo}"),
    };
    let vectors = vectors || tracked(a);
    let x = if lower { a.clone() } else { view::mh(&a.detach())? };
    let mut out = decompose(Decomposition::Eigh, &[&x], vectors, false)?;
    if tracked(a) {
        out = implicit(Rule::Eigh, "linalg_eigh", &[a], &out)?;
    }
    let v = if vectors { out.pop() } else { None };
    Ok((one(out), v))
}
/// Eigenvalues of Hermitian matrices.
///
/// # Errors
/// As [`eigh`].
pub fn eigvalsh(a: &Tensor, uplo: &str) -> Result<Tensor> {
    Ok(eigh_parts("linalg.eigvalsh", a, uplo, false)?.0)
}
/// Eigenvalues and vectors of square matrices, complex.
///
/// # Errors
/// As [`eigh`]; `Runtime` for values that are not finite.
pub fn eig(a: &Tensor) -> Result<(Tensor, Tensor)> {
    square("linalg.eig", a)?;
    let mut out = decompose(Decomposition::Eig, &[a], true, false)?;
    if tracked(a) {
        out = implicit(Rule::Eig, "linalg_eig", &[a], &out)?;
    }
    let v = out.swap_remove(1);
    Ok((one(out), v))
}
/// Eigenvalues of square matrices.
///
/// # Errors
/// As [`eig`].
pub fn eigvals(a: &Tensor) -> Result<Tensor> {
    if tracked(a) {
        return Ok(eig(a)?.0);
    }
    square("linalg.eigvals", a)?;
    Ok(one(decompose(Decomposition::Eig, &[a], false, false)?))
}
/// `A = U diag(S) Vᴴ`.
///
/// # Errors
/// `Runtime` below two dimensions; `LinAlg` without convergence.
pub fn svd(a: &Tensor, full: bool) -> Result<(Tensor, Tensor, Tensor)> {
    matrices("linalg.svd", a)?;
    let (m, n) = (a.size(-2)?, a.size(-1)?);
    let mut out = decompose(Decomposition::Svd, &[a], true, full)?;
    if tracked(a) {
        let k = m.min(n);
        let (u, vh) = (out[0].clone(), out[2].clone());
        let reduced = [view::narrow(&u, -1, 0, k)?, out[1].clone(), view::narrow(&vh, -2, 0, k)?];
        out = implicit(Rule::Svd, "linalg_svd", &[a], &reduced)?;
        if full && m > k {
            out[0] = join::cat(&[out[0].clone(), view::narrow(&u, -1, k, m - k)?], -1)?;
        }
        if full && n > k {
            out[2] = join::cat(&[out[2].clone(), view::narrow(&vh, -2, k, n - k)?], -2)?;
        }
    }
    let vh = out.swap_remove(2);
    let s = out.swap_remove(1);
    Ok((one(out), s, vh))
}
/// Singular values, descending.
///
/// # Errors
/// As [`svd`].
pub fn svdvals(a: &Tensor) -> Result<Tensor> {
    if tracked(a) {
        return Ok(svd(a, false)?.1);
    }
    matrices("linalg.svdvals", a)?;
    Ok(one(decompose(Decomposition::Svd, &[a], false, false)?))
}

/// A tolerance: a number, or one for each matrix of the batch.
pub enum Tolerance<'a> {
    Number(f64),
    Tensor(&'a Tensor),
}
/// The threshold `max(atol, rtol · largest)` of PyTorch's rule for what is absent.
fn threshold(a: &Tensor, s: &Tensor, atol: Option<Tolerance>, rtol: Option<Tolerance>) -> Result<Tensor> {
    let dtype = a.dtype().to_real();
    let eps = if dtype == DType::F64 { f64::EPSILON } else { f32::EPSILON as f64 };
    let default = eps * a.size(-2)?.max(a.size(-1)?) as f64;
    let top = reduction::amax(s, &[-1], true, Dest::New)?;
    let value = |t: &Tolerance| -> Result<Tensor> {
        match t {
            Tolerance::Number(x) => factory::full(&[1], Number::Float(*x), dtype, a.device()),
            Tolerance::Tensor(t) => view::unsqueeze(&e::to_dtype(t, dtype)?, -1),
        }
    };
    let absolute = match &atol {
        Some(t) => value(t)?,
        None => value(&Tolerance::Number(0.0))?,
    };
    let relative = match (&rtol, &atol) {
        (Some(t), _) => value(t)?,
        (None, Some(Tolerance::Number(x))) => value(&Tolerance::Number(if *x > 0.0 { 0.0 } else { default }))?,
        (None, Some(_)) => e::where_(&e::gt(&absolute, 0.0)?, 0.0, &value(&Tolerance::Number(default))?)?,
        (None, None) => value(&Tolerance::Number(default))?,
    };
    e::maximum(&absolute, &e::mul(&relative, &top)?)
}
/// How many singular values (absolute eigenvalues where `hermitian`) lie above the tolerance.
///
/// # Errors
/// As [`svd`].
pub fn matrix_rank(a: &Tensor, atol: Option<Tolerance>, rtol: Option<Tolerance>, hermitian: bool) -> Result<Tensor> {
    let a = &a.detach();
    matrices("linalg.matrix_rank", a)?;
    let s = if hermitian { e::abs(&eigvalsh(a, "L")?)? } else { svdvals(a)? };
    if s.size(-1)? == 0 {
        return factory::zeros(&a.sizes()[..a.dim() - 2], DType::I64, a.device());
    }
    reduction::sum(&e::gt(&s, &threshold(a, &s, atol, rtol)?)?, &[-1], false)
}
/// The pseudo-inverse, from singular values (eigenvalues where `hermitian`) above the tolerance.
///
/// # Errors
/// As [`svd`].
pub fn pinv(a: &Tensor, atol: Option<Tolerance>, rtol: Option<Tolerance>, hermitian: bool) -> Result<Tensor> {
    matrices("linalg.pinv", a)?;
    let x = &a.detach();
    if a.numel() == 0 {
        // As large as the inverse, and its gradient is a function of `a` as well.
        return view::mh(&e::square(a)?);
    }
    let inverse = |s: &Tensor, size: &Tensor| -> Result<Tensor> {
        let keep = e::gt(size, &threshold(x, size, atol, rtol)?)?;
        e::to_dtype(&view::unsqueeze(&e::where_(&keep, &e::reciprocal(s)?, 0.0)?, -2)?, x.dtype())
    };
    let p = if hermitian {
        let (w, v) = eigh(x, "L")?;
        matmul(&e::mul(&v, &inverse(&w, &e::abs(&w)?)?)?, &view::mh(&v)?)?
    } else {
        let (u, s, vh) = svd(x, false)?;
        matmul(&e::mul(&view::mh(&vh)?, &inverse(&s, &s)?)?, &view::mh(&u)?)?
    };
    if !tracked(a) {
        return Ok(p);
    }
    Ok(one(implicit(Rule::Pinv, "linalg_pinv", &[a], &[p])?))
}
/// Least squares: solution, squared residuals, rank, singular values, as the driver gives them.
///
/// # Errors
/// `Runtime` for shapes or dtypes that do not fit, and for an unknown driver.
pub fn lstsq(
    a: &Tensor,
    b: &Tensor,
    rcond: Option<f64>,
    driver: Option<&str>,
) -> Result<(Tensor, Tensor, Tensor, Tensor)> {
    let name = "torch.linalg.lstsq";
    matrices(name, a)?;
    ensure!(b.dim() >= 1, Runtime, "{name}: other must have at least 1 dimension.");
    ensure!(
        a.dtype() == b.dtype(),
        Runtime,
        "{name}: Expected input and other to have the same dtype, but got input's dtype {} and other's dtype {}",
        a.dtype().title(),
        b.dtype().title()
    );
    let driver = driver.unwrap_or("gelsy");
    ensure!(
        matches!(driver, "gels" | "gelsy" | "gelsd" | "gelss"),
        Runtime,
        "{name}: parameter `driver` should be one of (gels, gelsy, gelsd, gelss)"
    );
    let vector = b.dim() + 1 == a.dim();
    let rhs = if vector { view::unsqueeze(b, -1)? } else { b.clone() };
    ensure!(
        rhs.dim() >= 2 && rhs.size(-2)? == a.size(-2)?,
        Runtime,
        "{name}: input.size(-2) should match other.size({})",
        if vector { -1 } else { -2 }
    );
    let (m, n) = (a.size(-2)?, a.size(-1)?);
    let eps = if a.dtype().to_real() == DType::F64 { f64::EPSILON } else { f32::EPSILON as f64 };
    let rcond = rcond.unwrap_or(eps * m.max(n) as f64);
    let x = matmul(&pinv(a, None, Some(Tolerance::Number(rcond)), false)?, &rhs)?;
    let device = a.device();
    let none = |dtype| factory::empty(&[0], dtype, device);
    let rank = match driver {
        "gels" => none(DType::I64)?,
        _ => matrix_rank(a, None, Some(Tolerance::Number(rcond)), false)?,
    };
    let full = m > n && driver != "gelsy" && (driver == "gels" || device::to_vec_i64(&rank)?.iter().all(|r| *r == n));
    let residuals = if full {
        if n == 0 {
            let s = x.sizes();
            factory::zeros(&[&s[..s.len() - 2], &s[s.len() - 1..]].concat(), a.dtype().to_real(), device)?
        } else {
            let d = e::sub(&matmul(a, &x)?, &rhs)?;
            reduction::sum(&e::square(&e::abs(&d)?)?, &[-2], false)?
        }
    } else {
        none(a.dtype().to_real())?
    };
    let s = if matches!(driver, "gelsd" | "gelss") { svdvals(&a.detach())? } else { none(a.dtype().to_real())? };
    Ok((if vector { view::squeeze(&x, Some(&[-1]))? } else { x }, residuals, rank, s))
}

/// Determinant's sign (phase) and the logarithm of its size.
///
/// # Errors
/// `Runtime` for matrices that are not square.
pub fn slogdet(a: &Tensor) -> Result<(Tensor, Tensor)> {
    square("linalg.slogdet", a)?;
    let (lu, pivots, _) = lu_factor_ex(a, true, false)?;
    let d = view::diagonal(&lu, 0, -2, -1)?;
    let sign = e::mul(&reduction::prod(&e::sgn(&d)?, Some(-1), false, None, Dest::New)?, &parity(&pivots, a.dtype())?)?;
    Ok((sign, reduction::sum(&e::log(&e::abs(&d)?)?, &[-1], false)?))
}
/// 1 or -1 by how many rows were exchanged.
fn parity(pivots: &Tensor, dtype: DType) -> Result<Tensor> {
    let own = e::add(&factory::arange_to(pivots.size(-1)?, pivots.device())?, 1)?;
    let moved = e::remainder(&reduction::sum(&e::ne(pivots, &own)?, &[-1], false)?, 2)?;
    e::to_dtype(&e::sub(1, &e::mul(&moved, 2)?)?, dtype)
}
/// Determinant.
///
/// # Errors
/// `Runtime` for matrices that are not square.
pub fn det(a: &Tensor) -> Result<Tensor> {
    square("linalg.det", a)?;
    let by_lu = |a: &Tensor| -> Result<Tensor> {
        let (lu, pivots, _) = lu_factor_ex(a, true, false)?;
        let d = reduction::prod(&view::diagonal(&lu, 0, -2, -1)?, Some(-1), false, None, Dest::New)?;
        e::mul(&d, &parity(&pivots, a.dtype())?)
    };
    if tracked(a) && a.numel() > 0 {
        let zero = reduction::any(&e::eq(&by_lu(&a.detach())?, 0)?, &[], false, Dest::New)?;
        if zero.item()?.to_bool() {
            // A singular matrix has no LU gradient; the product of singular values has one.
            let (u, s, vh) = svd(a, false)?;
            let turn = e::mul(&by_lu(&u)?, &by_lu(&vh)?)?;
            return e::mul(&turn, &e::to_dtype(&reduction::prod(&s, Some(-1), false, None, Dest::New)?, a.dtype())?);
        }
    }
    by_lu(a)
}
/// Logarithm of the determinant; NaN where that is negative.
///
/// # Errors
/// `Runtime` for matrices that are not square.
pub fn logdet(a: &Tensor) -> Result<Tensor> {
    square("logdet", a)?;
    let (sign, log) = slogdet(a)?;
    if a.dtype().is_complex() {
        return e::add(&e::log(&sign)?, &log);
    }
    e::where_(&e::eq(&sign, -1.0)?, f64::NAN, &log)
}

/// The `n`-th power, by squaring; negative powers are of the inverse.
///
/// # Errors
/// `Runtime` for matrices that are not square; `LinAlg` for a negative power of a singular one.
pub fn matrix_power(a: &Tensor, n: i64) -> Result<Tensor> {
    ensure!(
        a.dim() >= 2 && a.size(-1)? == a.size(-2)?,
        Runtime,
        "linalg.matrix_power: A must be batches of square matrices, but they are of sizes {}",
        Shape(&a.sizes())
    );
    if n == 0 {
        let eye = factory::eye(a.size(-1)?, a.size(-1)?, a.dtype(), a.device())?;
        return constant_of(view::clone(&view::expand(&eye, &a.sizes())?)?, a);
    }
    let mut base = if n < 0 { inv_ex("linalg.inv", a, true)?.0 } else { a.clone() };
    let mut rest = n.unsigned_abs();
    let mut out: Option<Tensor> = None;
    loop {
        if rest & 1 == 1 {
            out = Some(match out {
                Some(o) => matmul(&o, &base)?,
                None => base.clone(),
            });
        }
        rest >>= 1;
        if rest == 0 {
            break;
        }
        base = matmul(&base, &base)?;
    }
    let out = out.unwrap_or(base);
    if n == 1 {
        return view::clone(&out);
    }
    Ok(out)
}
/// The matrix exponential: Taylor's polynomial of degree 18 of the matrix scaled by a power of two, squared back.
///
/// # Errors
/// `Runtime` for matrices that are not square or not of floating point.
pub fn matrix_exp(a: &Tensor) -> Result<Tensor> {
    let dtype = a.dtype();
    // Of the matrix functions only this one takes half precisions.
    square("linalg.matrix_exp", &if dtype.is_reduced() { e::to_dtype(&a.detach(), DType::F32)? } else { a.clone() })?;
    if a.numel() == 0 {
        return view::clone(a);
    }
    let norms = reduction::sum(&e::abs(&a.detach())?, &[-2], false)?;
    let norm = reduction::amax(&norms, &[], false, Dest::New)?.item()?.to_f64();
    let squarings = if norm.is_finite() && norm > 1.0 { norm.log2().ceil() as i32 } else { 0 };
    let a = &if matches!(dtype, DType::F16 | DType::BF16) { e::to_dtype(a, DType::F32)? } else { a.clone() };
    let x = e::mul(a, 0.5f64.powi(squarings))?;
    let n = a.size(-1)?;
    let eye = factory::eye(n, n, a.dtype(), a.device())?;
    // Horner: 1 + x (1 + x/2 (1 + x/3 (…)))
    let mut y = eye.clone();
    for k in (1..=18).rev() {
        y = e::add(&eye, &e::mul(&matmul(&x, &y)?, 1.0 / k as f64)?)?;
    }
    for _ in 0..squarings {
        y = matmul(&y, &y)?;
    }
    e::to_dtype(&y, dtype)
}
/// Product of a chain of matrices, in the order of the fewest multiplications.
///
/// # Errors
/// `Runtime` for fewer than two, or shapes that do not fit.
pub fn multi_dot(list: &[Tensor]) -> Result<Tensor> {
    let n = list.len();
    ensure!(n >= 2, Runtime, "multi_dot(): expected at least 2 tensors but got {n}");
    let (first, last) = (list[0].dim() == 1, list[n - 1].dim() == 1);
    let mut t = list.to_vec();
    if first {
        t[0] = view::unsqueeze(&t[0], 0)?;
    }
    if last {
        t[n - 1] = view::unsqueeze(&t[n - 1], 1)?;
    }
    for (i, x) in t.iter().enumerate() {
        ensure!(x.dim() == 2, Runtime, "multi_dot(): tensor {i} must be 2D but got {}D", list[i].dim());
        ensure!(
            x.dtype() == t[0].dtype(),
            Runtime,
            "multi_dot(): all tensors must have be the same dtype but got {} and {}",
            t[0].dtype(),
            x.dtype()
        );
        ensure!(
            i == 0 || t[i - 1].size(1)? == x.size(0)?,
            Runtime,
            "multi_dot(): tensors {} and {i} with shapes {} and {} cannot be multiplied",
            i.saturating_sub(1),
            Shape(&t[i.saturating_sub(1)].sizes()),
            Shape(&x.sizes())
        );
    }
    let mut p = vec![t[0].size(0)? as f64];
    for x in &t {
        p.push(x.size(1)? as f64);
    }
    let (mut cost, mut split) = (vec![vec![0.0; n]; n], vec![vec![0usize; n]; n]);
    for length in 1..n {
        for i in 0..n - length {
            let j = i + length;
            cost[i][j] = f64::INFINITY;
            for k in i..j {
                let c = cost[i][k] + cost[k + 1][j] + p[i] * p[k + 1] * p[j + 1];
                if c < cost[i][j] {
                    cost[i][j] = c;
                    split[i][j] = k;
                }
            }
        }
    }
    fn chain(t: &[Tensor], split: &[Vec<usize>], i: usize, j: usize) -> Result<Tensor> {
        if i == j {
            return Ok(t[i].clone());
        }
        let k = split[i][j];
        matmul(&chain(t, split, i, k)?, &chain(t, split, k + 1, j)?)
    }
    let out = chain(&t, &split, 0, n - 1)?;
    let out = if first { view::squeeze(&out, Some(&[0]))? } else { out };
    if last {
        view::squeeze(&out, Some(&[-1]))
    } else {
        Ok(out)
    }
}
/// Powers `x⁰ … xⁿ⁻¹` along a new last dimension.
///
/// # Errors
/// `Runtime` for a 0-dim input or `n` below 2.
pub fn vander(x: &Tensor, n: Option<i64>) -> Result<Tensor> {
    let x = &if x.dim() == 0 { view::unsqueeze(x, 0)? } else { x.clone() };
    let n = match n {
        Some(n) => n,
        None => x.size(-1)?,
    };
    ensure!(n > 1, Runtime, "N must be greater than 1.");
    let dtype = if x.dtype().is_integral(true) { DType::I64 } else { x.dtype() };
    let x = e::to_dtype(x, dtype)?;
    let column = view::unsqueeze(&x, -1)?;
    let mut sizes = column.sizes();
    if let Some(last) = sizes.last_mut() {
        *last = n - 1;
    }
    let powers = scan::cumprod(&view::expand(&column, &sizes)?, -1)?;
    join::cat(&[factory::ones_like(&column)?, powers], -1)
}
/// Matrix norms of singular values: "nuc", 2 and -2.
///
/// # Errors
/// As [`svd`].
pub fn spectral_norm(a: &Tensor, ord: Option<f64>, dim: &[i64], keepdim: bool) -> Result<Tensor> {
    ensure!(dim.len() == 2, Runtime, "linalg.matrix_norm: dim must be a 2-tuple. Got {} dimensions", dim.len());
    let d: Vec<i64> = dim.iter().map(|d| Ok(wrap_dim(*d, a.dim())? as i64)).collect::<Result<_>>()?;
    ensure!(d[0] != d[1], Runtime, "linalg.matrix_norm: dims must be different. Got ({}, {})", dim[0], dim[1]);
    let s = svdvals(&view::movedim(a, &d, &[-2, -1])?)?;
    let mut out = match ord {
        None => reduction::sum(&s, &[-1], false)?,
        // The largest of no singular values is 0.
        Some(p) if p > 0.0 && s.size(-1)? == 0 => reduction::sum(&s, &[-1], false)?,
        Some(p) if p > 0.0 => reduction::amax(&s, &[-1], false, Dest::New)?,
        Some(_) => reduction::amin(&s, &[-1], false, Dest::New)?,
    };
    if keepdim {
        let mut order = d.clone();
        order.sort_unstable();
        for d in order {
            out = view::unsqueeze(&out, d)?;
        }
    }
    Ok(out)
}
/// The older `svd`: V instead of Vᴴ, reduced by default.
///
/// # Errors
/// As [`svd`].
pub fn svd_classic(a: &Tensor, some: bool, vectors: bool) -> Result<(Tensor, Tensor, Tensor)> {
    if !vectors {
        let s = svdvals(a)?;
        let zeros = |n: i64| -> Result<Tensor> {
            let mut z: Dims = a.sizes()[..a.dim() - 2].into();
            z.extend_from_slice(&[n, n]);
            factory::zeros(&z, a.dtype(), a.device())
        };
        return Ok((zeros(a.size(-2)?)?, s, zeros(a.size(-1)?)?));
    }
    let (u, s, vh) = svd(a, !some)?;
    Ok((u, s, view::mh(&vh)?))
}
/// A number of a singular value ratio: `cond` for the orders 2 and -2.
///
/// # Errors
/// As [`svd`].
pub fn cond(a: &Tensor, ord: f64) -> Result<Tensor> {
    let s = svdvals(a)?;
    if s.size(-1)? == 0 {
        return reduction::sum(&s, &[-1], false);
    }
    let (top, low) = (reduction::amax(&s, &[-1], false, Dest::New)?, reduction::amin(&s, &[-1], false, Dest::New)?);
    if ord > 0.0 {
        e::div(&top, &low)
    } else {
        e::div(&low, &top)
    }
}
