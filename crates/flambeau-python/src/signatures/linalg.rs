//! Signatures of matrix products.

use flambeau::core::err;
use flambeau::ops::solve::Tolerance;
use flambeau::{DType, Number, Result, Tensor, Value};

/// A tolerance argument: nothing, a number or a tensor.
fn tolerance(v: Option<Value<'_>>) -> Option<Tolerance<'_>> {
    v.map(|v| match v {
        Value::Tensor(t) => Tolerance::Tensor(t),
        Value::Number(n) => Tolerance::Number(n.to_f64()),
    })
}
fn cond(a: &Tensor, p: Option<Number>) -> Result<Tensor> {
    let ord = p.map_or(2.0, Number::to_f64);
    if ord.abs() == 2.0 {
        return solve::cond(a, ord);
    }
    let norm = |t: &Tensor| super::reduction::matrix_norm(t, ord, &[-2, -1], false, None);
    elementwise::mul(&norm(a)?, &norm(&solve::inv_ex("linalg.inv", a, true)?.0)?)
}
fn cond_named(a: &Tensor, p: &str) -> Result<Tensor> {
    let inverse = || Ok::<_, flambeau::core::Error>(solve::inv_ex("linalg.inv", a, true)?.0);
    match p {
        "fro" => {
            let norm = |t: &Tensor| reduction::vector_norm(t, 2.0, &[-2, -1], false, None);
            elementwise::mul(&norm(a)?, &norm(&inverse()?)?)
        }
        "nuc" => {
            let norm = |t: &Tensor| solve::spectral_norm(t, None, &[-2, -1], false);
            elementwise::mul(&norm(a)?, &norm(&inverse()?)?)
        }
        _ => Err(err!(Runtime, "linalg.cond got an invalid norm type: {p}")),
    }
}

/// An operand of a product whose result has `out_dtype`: float32 for operands of a half dtype, else their own.
fn wider(name: &str, t: &Tensor, out_dtype: DType) -> Result<Tensor> {
    if t.dtype() != out_dtype && !(out_dtype == DType::F32 && matches!(t.dtype(), DType::F16 | DType::BF16)) {
        return Err(err!(
            Runtime,
            "{name}: out_dtype must be the operands' dtype, or float32 for float16 and bfloat16, but got {} for {}",
            out_dtype.name(),
            t.dtype().name()
        ));
    }
    elementwise::to_dtype(t, out_dtype)
}

operators! { LINALG;
    "matmul(Tensor input, Tensor other)" [function method out alias(linalg.matmul)] => linalg::matmul;
    "mm(Tensor input, Tensor mat2)" [function method out] => linalg::mm;
    "mm(Tensor input, Tensor mat2, dtype out_dtype)" [function method out] => |a: &Tensor, b: &Tensor, d: DType| { let (a, b) = (wider("mm", a, d)?, wider("mm", b, d)?); linalg::mm(&a, &b) };
    "bmm(Tensor input, Tensor mat2)" [function method out] => linalg::bmm;
    "bmm(Tensor input, Tensor mat2, dtype out_dtype)" [function method out] => |a: &Tensor, b: &Tensor, d: DType| { let (a, b) = (wider("bmm", a, d)?, wider("bmm", b, d)?); linalg::bmm(&a, &b) };
    "mv(Tensor input, Tensor vec)" [function method out] => linalg::mv;
    "dot(Tensor input, Tensor tensor)" [function method out] => linalg::dot;
    "vdot(Tensor input, Tensor other)" [function method out] => linalg::vdot;
    "outer(Tensor input, Tensor vec2)" [function method out apart alias(ger)] => linalg::outer;
    "kron(Tensor input, Tensor other)" [function method out] => linalg::kron;
    "inner(Tensor input, Tensor other)" [function method out] => linalg::inner;
    "addmm(Tensor input, Tensor mat1, Tensor mat2, *, Number beta=1, Number alpha=1)" [function method inplace out] => |i: &Tensor, a: &Tensor, b: &Tensor, beta: Number, alpha: Number| linalg::addmm(i, a, b, beta, alpha);
    "addmm(Tensor input, Tensor mat1, Tensor mat2, dtype out_dtype, *, Number beta=1, Number alpha=1)" [function method out] => |i: &Tensor, a: &Tensor, b: &Tensor, d: DType, beta: Number, alpha: Number| { let (i, a, b) = (wider("addmm", i, d)?, wider("addmm", a, d)?, wider("addmm", b, d)?); linalg::addmm(&i, &a, &b, beta, alpha) };
    "_addmm_activation(Tensor input, Tensor mat1, Tensor mat2, *, Number beta=1, Number alpha=1, bool use_gelu=False)" [function method out] => linalg::addmm_activation;
    "_int_mm(Tensor input, Tensor mat2)" [function out] => linalg::int_mm;
    "addmv(Tensor input, Tensor mat, Tensor vec, *, Number beta=1, Number alpha=1)" [function method inplace out] => |i: &Tensor, a: &Tensor, b: &Tensor, beta: Number, alpha: Number| linalg::addmv(i, a, b, beta, alpha);
    "addbmm(Tensor input, Tensor batch1, Tensor batch2, *, Number beta=1, Number alpha=1)" [function method inplace out] => linalg::addbmm;
    "baddbmm(Tensor input, Tensor batch1, Tensor batch2, *, Number beta=1, Number alpha=1)" [function method inplace out] => |i: &Tensor, a: &Tensor, b: &Tensor, beta: Number, alpha: Number| linalg::baddbmm(i, a, b, beta, alpha);
    "baddbmm(Tensor input, Tensor batch1, Tensor batch2, dtype out_dtype, *, Number beta=1, Number alpha=1)" [function method out] => |i: &Tensor, a: &Tensor, b: &Tensor, d: DType, beta: Number, alpha: Number| { let (i, a, b) = (wider("baddbmm", i, d)?, wider("baddbmm", a, d)?, wider("baddbmm", b, d)?); linalg::baddbmm(&i, &a, &b, beta, alpha) };
    "addr(Tensor input, Tensor vec1, Tensor vec2, *, Number beta=1, Number alpha=1)" [function method inplace out] => |i: &Tensor, a: &Tensor, b: &Tensor, beta: Number, alpha: Number| linalg::addr(i, a, b, beta, alpha);
    "nn.functional.linear(Tensor input, Tensor weight, Tensor? bias=None)" [function out] => linalg::linear;
    "einsum(str equation, Tensor[*] operands)" [function] => linalg::einsum;
    "_tensordot(Tensor a, Tensor b, int[] dims_a, int[] dims_b)" [function out] => linalg::tensordot;
    "cdist(Tensor x1, Tensor x2, float p=2.0, str? compute_mode='use_mm_for_euclid_dist_if_necessary')" [function] => distance::cdist;
    "pdist(Tensor input, float p=2.0)" [function alias(nn.functional.pdist)] => distance::pdist;
    "trace(Tensor input)" [function method] => linalg::trace;
    "tril(Tensor input, int diagonal=0)" [function method inplace out] => linalg::tril;
    "triu(Tensor input, int diagonal=0)" [function method inplace out] => linalg::triu;
    "linalg.vecdot(Tensor x, Tensor y, *, int dim=-1)" [function out] => |a: &Tensor, b: &Tensor, d: i64| reduction::sum(&elementwise::mul(&(if a.dtype().is_complex() { elementwise::conj_physical(a)? } else { a.clone() }), b)?, &[d], false);
    "linalg.cholesky(Tensor input, *, bool upper=False)" [function out] => |a: &Tensor, u: bool| Ok(solve::cholesky_ex("linalg.cholesky", a, u, true)?.0);
    "cholesky(Tensor input, bool upper=False)" [function method out] => |a: &Tensor, u: bool| Ok(solve::cholesky_ex("cholesky", a, u, true)?.0);
    "linalg.cholesky_ex(Tensor input, *, bool upper=False, bool check_errors=False) -> linalg_cholesky_ex(L, info)" [function out] => |a: &Tensor, u: bool, c: bool| solve::cholesky_ex("linalg.cholesky_ex", a, u, c);
    "cholesky_inverse(Tensor input, bool upper=False)" [function method out] => solve::cholesky_inverse;
    "cholesky_solve(Tensor input, Tensor input2, bool upper=False)" [function method out] => solve::cholesky_solve;
    "linalg.solve_triangular(Tensor input, Tensor B, *, bool upper, bool left=True, bool unitriangular=False)" [function out] => solve::solve_triangular;
    "triangular_solve(Tensor input, Tensor A, bool upper=True, bool transpose=False, bool unitriangular=False) -> triangular_solve(solution, cloned_coefficient)" [function method out] => solve::triangular_solve;
    "linalg.lu_factor(Tensor input, *, bool pivot=True) -> linalg_lu_factor(LU, pivots)" [function out] => |a: &Tensor, p: bool| { let (lu, p, _) = solve::lu_factor_ex(a, p, true)?; Ok((lu, p)) };
    "_lu_with_info(Tensor input, *, bool pivot=True, bool check_errors=True) -> _lu_with_info(LU, pivots, info)" [function] => solve::lu_factor_ex;
    "linalg.lu_factor_ex(Tensor input, *, bool pivot=True, bool check_errors=False) -> linalg_lu_factor_ex(LU, pivots, info)" [function out] => solve::lu_factor_ex;
    "linalg.lu(Tensor input, *, bool pivot=True) -> linalg_lu(P, L, U)" [function out] => solve::lu;
    "lu_unpack(Tensor LU_data, Tensor LU_pivots, bool unpack_data=True, bool unpack_pivots=True) -> lu_unpack(P, L, U)" [function out] => solve::lu_unpack;
    "linalg.lu_solve(Tensor LU, Tensor pivots, Tensor B, *, bool left=True, bool adjoint=False)" [function out] => solve::lu_solve;
    "lu_solve(Tensor input, Tensor LU_data, Tensor LU_pivots)" [function method out] => |b: &Tensor, lu: &Tensor, p: &Tensor| solve::lu_solve(lu, p, b, true, false);
    "linalg.solve(Tensor A, Tensor B, *, bool left=True)" [function out] => |a: &Tensor, b: &Tensor, l: bool| Ok(solve::solve_ex("linalg.solve", a, b, l, true)?.0);
    "linalg.solve_ex(Tensor A, Tensor B, *, bool left=True, bool check_errors=False) -> linalg_solve_ex(result, info)" [function out] => |a: &Tensor, b: &Tensor, l: bool, c: bool| solve::solve_ex("linalg.solve_ex", a, b, l, c);
    "linalg.inv(Tensor A)" [function out] => |a: &Tensor| Ok(solve::inv_ex("linalg.inv", a, true)?.0);
    "inverse(Tensor input)" [function method out] => |a: &Tensor| Ok(solve::inv_ex("linalg.inv", a, true)?.0);
    "linalg.inv_ex(Tensor A, *, bool check_errors=False) -> linalg_inv_ex(inverse, info)" [function out] => |a: &Tensor, c: bool| solve::inv_ex("linalg.inv_ex", a, c);
    "linalg.tensorsolve(Tensor input, Tensor other, int[]? dims=None)" [function out] => solve::tensorsolve;
    "linalg.tensorinv(Tensor input, int ind=2)" [function out] => solve::tensorinv;
    "geqrf(Tensor input) -> geqrf(a, tau)" [function method out] => solve::geqrf;
    "linalg.householder_product(Tensor input, Tensor tau)" [function out] => solve::householder_product;
    "orgqr(Tensor input, Tensor input2)" [function method out] => solve::householder_product;
    "ormqr(Tensor input, Tensor input2, Tensor input3, bool left=True, bool transpose=False)" [function method out] => solve::ormqr;
    "linalg.qr(Tensor A, str mode='reduced') -> linalg_qr(Q, R)" [function out] => solve::qr;
    "qr(Tensor input, bool some=True) -> qr(Q, R)" [function method out] => |a: &Tensor, some: bool| solve::qr(a, if some { "reduced" } else { "complete" });
    "linalg.ldl_factor(Tensor input, *, bool hermitian=False) -> linalg_ldl_factor(LD, pivots)" [function out] => |a: &Tensor, h: bool| { let (ld, p, _) = solve::ldl_factor_ex(a, h, true)?; Ok((ld, p)) };
    "linalg.ldl_factor_ex(Tensor input, *, bool hermitian=False, bool check_errors=False) -> linalg_ldl_factor_ex(LD, pivots, info)" [function out] => solve::ldl_factor_ex;
    "linalg.ldl_solve(Tensor LD, Tensor pivots, Tensor B, *, bool hermitian=False)" [function out] => solve::ldl_solve;
    "linalg.eigh(Tensor input, str UPLO='L') -> linalg_eigh(eigenvalues, eigenvectors)" [function out] => solve::eigh;
    "linalg.eigvalsh(Tensor input, str UPLO='L')" [function out] => solve::eigvalsh;
    "linalg.eig(Tensor input) -> linalg_eig(eigenvalues, eigenvectors)" [function out] => solve::eig;
    "linalg.eigvals(Tensor input)" [function out] => solve::eigvals;
    "linalg.svd(Tensor A, bool full_matrices=True, *, str? driver=None) -> linalg_svd(U, S, Vh)" [function out] => |a: &Tensor, full: bool, _: Option<&str>| solve::svd(a, full);
    "linalg.svdvals(Tensor A, *, str? driver=None)" [function out] => |a: &Tensor, _: Option<&str>| solve::svdvals(a);
    "svd(Tensor input, bool some=True, bool compute_uv=True) -> svd(U, S, V)" [function method out] => solve::svd_classic;
    "linalg.matrix_rank(Tensor input, *, Tensor|Number? atol=None, Tensor|Number? rtol=None, bool hermitian=False)" [function out] => |a: &Tensor, x: Option<Value<'_>>, r: Option<Value<'_>>, h: bool| solve::matrix_rank(a, tolerance(x), tolerance(r), h);
    "linalg.matrix_rank(Tensor input, Tensor|Number tol, bool hermitian=False)" [function out] => |a: &Tensor, t: Value<'_>, h: bool| solve::matrix_rank(a, tolerance(Some(t)), Some(Tolerance::Number(0.0)), h);
    "linalg.pinv(Tensor input, *, Tensor|Number? atol=None, Tensor|Number? rtol=None, bool hermitian=False)" [function out] => |a: &Tensor, x: Option<Value<'_>>, r: Option<Value<'_>>, h: bool| solve::pinv(a, tolerance(x), tolerance(r), h);
    "linalg.pinv(Tensor input, Tensor|Number rcond, bool hermitian=False)" [function out] => |a: &Tensor, r: Value<'_>, h: bool| solve::pinv(a, Some(Tolerance::Number(0.0)), tolerance(Some(r)), h);
    "pinverse(Tensor input, float rcond=1e-15)" [function method] => |a: &Tensor, r: f64| solve::pinv(a, Some(Tolerance::Number(0.0)), Some(Tolerance::Number(r)), false);
    "linalg.lstsq(Tensor input, Tensor b, float? rcond=None, *, str? driver=None) -> linalg_lstsq(solution, residuals, rank, singular_values)" [function out] => |a: &Tensor, b: &Tensor, r: Option<f64>, d: Option<&str>| solve::lstsq(a, b, r, d);
    "linalg.det(Tensor A)" [function out] => solve::det;
    "det(Tensor input)" [function method] => solve::det;
    "linalg.slogdet(Tensor A) -> linalg_slogdet(sign, logabsdet)" [function out] => solve::slogdet;
    "slogdet(Tensor input) -> slogdet(sign, logabsdet)" [function method out] => solve::slogdet;
    "logdet(Tensor input)" [function method] => solve::logdet;
    "linalg.matrix_power(Tensor A, int n)" [function out] => solve::matrix_power;
    "matrix_power(Tensor input, int n)" [function method out] => solve::matrix_power;
    "linalg.matrix_exp(Tensor A)" [function] => solve::matrix_exp;
    "matrix_exp(Tensor input)" [function method] => solve::matrix_exp;
    "linalg.cond(Tensor input, Number? p=None)" [function out] => cond;
    "linalg.cond(Tensor input, str p)" [function out] => cond_named;
    "linalg.multi_dot(Tensor[] tensors)" [function out] => solve::multi_dot;
    "chain_matmul(Tensor[*] matrices)" [function] => solve::multi_dot;
    "linalg.vander(Tensor x, *, int? N=None)" [function] => solve::vander;
}
