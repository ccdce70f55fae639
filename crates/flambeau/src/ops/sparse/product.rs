//! Matrix products with sparse factors.

use super::convert::add_up;
use super::*;
use crate::ops::{linalg, reduction, scatter, view as v};

fn check(a: &Tensor, b: &Tensor) -> Result<()> {
    ensure!(
        a.dim() == 2 && b.dim() == 2,
        NotImplemented,
        "sparse matrix products are of matrices: batches are not supported, got {} and {}",
        Shape(&a.sizes()),
        Shape(&b.sizes())
    );
    ensure!(
        a.dtype() == b.dtype(),
        Runtime,
        "expected m1 and m2 to have the same dtype, but got: {} != {}",
        a.dtype().title(),
        b.dtype().title()
    );
    let (x, y) = (a.sizes(), b.sizes());
    ensure!(
        x[1] == y[0],
        Runtime,
        "mat1 and mat2 shapes cannot be multiplied ({}x{} and {}x{})",
        x[0],
        x[1],
        y[0],
        y[1]
    );
    Ok(())
}
/// Rows, columns and values of a sparse matrix.
fn entries(t: &Tensor) -> Result<(Tensor, Tensor, Tensor)> {
    let s = parts("mm", t)?;
    let values = s.flat_values()?;
    ensure!(values.dim() == 1, Runtime, "mm: a sparse matrix with dense dimensions is not supported");
    let at = s.coordinates()?;
    Ok((v::select(&at, 0, 0)?, v::select(&at, 0, 1)?, values))
}
/// The product of two matrices of which at least one is sparse: dense with a dense factor, sparse without.
///
/// # Errors
/// `Runtime` for sizes or dtypes that do not fit.
pub fn matmul(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    ensure!(
        a.is_sparse() || b.is_sparse(),
        Runtime,
        "sparse matrix products need a sparse factor, but both are dense, of sizes {} and {}; use mm, matmul or bmm",
        Shape(&a.sizes()),
        Shape(&b.sizes())
    );
    if a.dim() == 3 && b.dim() == 3 {
        return batches(a, b);
    }
    check(a, b)?;
    match (a.is_sparse(), b.is_sparse()) {
        (true, true) => sparse_by_sparse(a, b),
        (true, false) => {
            let (rows, columns, values) = entries(a)?;
            let terms = e::mul(&v::unsqueeze(&values, 1)?, &indexing::index_select(b, 0, &columns)?)?;
            add_up(&terms, &rows, a.sizes()[0])
        }
        (false, _) => {
            let (rows, columns, values) = entries(b)?;
            let terms = e::mul(&indexing::index_select(a, 1, &rows)?, &values)?;
            let zeros = factory::zeros(&[a.sizes()[0], b.sizes()[1]], a.dtype(), a.device())?;
            indexing::index_add(&zeros, 1, &columns, &terms)
        }
    }
}
/// [`matmul`] of batches of matrices, one of them dense: dense.
fn batches(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let (x, y) = (a.sizes(), b.sizes());
    ensure!(
        x[0] == y[0] && x[2] == y[1],
        Runtime,
        "bmm: batches of matrices of sizes {} and {} cannot be multiplied",
        Shape(&x),
        Shape(&y)
    );
    ensure!(
        a.dtype() == b.dtype(),
        Runtime,
        "expected m1 and m2 to have the same dtype, but got: {} != {}",
        a.dtype().title(),
        b.dtype().title()
    );
    if !a.is_sparse() {
        return v::transpose(&batches(&v::transpose(b, 1, 2)?, &v::transpose(a, 1, 2)?)?, 1, 2);
    }
    ensure!(!b.is_sparse(), NotImplemented, "bmm_sparse: Tensor 'mat2' must be dense");
    let c = to_coo(a)?;
    let s = coo_parts("bmm", &c)?;
    ensure!(s.values.dim() == 1, Runtime, "bmm: batches of sparse matrices with dense dimensions are not supported");
    let index = |d: i64| v::select(&s.indices, 0, d);
    // Row `r` of matrix `m` is row `m n + r` of all rows together.
    let among = |d: i64, n: i64| -> Result<Tensor> { e::add(&e::mul(&index(0)?, n)?, &index(d)?) };
    let rows = v::reshape(b, &[y[0] * y[1], y[2]])?;
    let terms = e::mul(&v::unsqueeze(&s.values, 1)?, &indexing::index_select(&rows, 0, &among(2, y[1])?)?)?;
    v::reshape(&add_up(&terms, &among(1, x[1])?, x[0] * x[1])?, &[x[0], x[1], y[2]])
}
/// Every entry of `a` meets the entries of the row of `b` that its column names.
fn sparse_by_sparse(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let sizes = [a.sizes()[0], b.sizes()[1]];
    let (x, y) = (coalesce(&to_coo(a)?)?, to_csr(b)?);
    let (p, q) = (coo_parts("mm", &x)?, parts("mm", &y)?);
    ensure!(p.values.dim() == 1, Runtime, "mm: a sparse matrix with dense dimensions is not supported");
    let rows = host_rows(&p.indices)?;
    let (Some(pointers), inner) = (&q.pointers, q.indices.to_vec::<i64>()?) else {
        bail!(Runtime, "mm: a compressed tensor without pointers");
    };
    let at = pointers.to_vec::<i64>()?;
    let (mut left, mut right) = (Vec::new(), Vec::new());
    let (mut i, mut j) = (Vec::new(), Vec::new());
    for (n, (&row, &column)) in rows[0].iter().zip(&rows[1]).enumerate() {
        for m in at[column as usize]..at[column as usize + 1] {
            left.push(n as i64);
            right.push(m);
            i.push(row);
            j.push(inner[m as usize]);
        }
    }
    let device = p.values.device();
    let values = e::mul(
        &indexing::index_select(&p.values, 0, &host_list(&left, device)?)?,
        &indexing::index_select(&q.values, 0, &host_list(&right, device)?)?,
    )?;
    let n = i.len() as i64;
    let out = coalesce(&coo(host_indices(&[i, j], n, device)?, values, &sizes, false))?;
    to_form(&out, &*parts("mm", a)?)
}
/// The product of a sparse and a dense matrix with the rows that are there: one sparse dimension, one dense.
///
/// # Errors
/// As [`matmul`].
pub fn hspmm(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    to_sparse(&matmul(a, b)?, Some(1))
}
/// The product of a sparse and a dense matrix, sparse.
///
/// # Errors
/// As [`matmul`].
pub fn smm(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    to_sparse(&to_dense(&matmul(a, b)?, None)?, None)
}
/// `beta input + alpha a b` with a sparse `input`, sparse.
///
/// # Errors
/// As [`matmul`].
pub fn sspaddmm(input: &Tensor, a: &Tensor, b: &Tensor, beta: Number, alpha: Number) -> Result<Tensor> {
    ensure!(input.is_sparse(), Runtime, "sspaddmm: expected 'self' to be sparse, but got dense");
    let product = e::mul(&smm(a, b)?, alpha)?;
    coalesce(&to_coo(&e::add(&e::mul(input, beta)?, &product)?)?)
}
/// `x Wᵀ + b` with a sparse `x` or `W`.
///
/// # Errors
/// As [`matmul`].
pub fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let rows: i64 = x.sizes()[..x.dim().saturating_sub(1)].iter().product();
    let flat = if x.dim() == 2 { x.clone() } else { v::reshape(x, &[rows, x.sizes()[x.dim() - 1]])? };
    let mut sizes = x.sizes();
    if let Some(last) = sizes.last_mut() {
        *last = weight.sizes()[0];
    }
    let y = linalg::mm(&flat, &v::t(weight)?)?;
    let y = if x.dim() == 2 { y } else { v::reshape(&y, &sizes)? };
    match bias {
        Some(b) => e::add(&y, b),
        None => Ok(y),
    }
}
/// `beta input + alpha a b`.
///
/// # Errors
/// As [`matmul`].
pub fn addmm(input: &Tensor, a: &Tensor, b: &Tensor, beta: Number, alpha: Number) -> Result<Tensor> {
    let one = |n: Number| matches!(n, Number::Int(1));
    let product = linalg::mm(a, b)?;
    let product = if one(alpha) { product } else { e::mul(&product, alpha)? };
    if beta.to_f64() == 0.0 && !input.is_sparse() {
        return Ok(product);
    }
    let input = if one(beta) { input.clone() } else { e::mul(input, beta)? };
    e::add(&input, &product)
}
/// [`matmul`] of a sparse and a dense matrix that combines terms by `sum`, `mean`, `amax` or `amin` over the entries of a row.
///
/// # Errors
/// As [`matmul`]; `Value` for another way of combining.
pub fn mm_reduce(a: &Tensor, b: &Tensor, reduce: &str) -> Result<Tensor> {
    check(a, b)?;
    ensure!(a.is_sparse() && !b.is_sparse(), Runtime, "sparse.mm: reduce= takes a sparse and a dense matrix");
    if reduce == "sum" {
        return matmul(a, b);
    }
    ensure!(
        matches!(reduce, "mean" | "amax" | "amin"),
        Value,
        "sparse.mm: reduce argument must be either sum, mean, amax or amin, got {reduce}"
    );
    let (rows, columns, values) = entries(a)?;
    let terms = e::mul(&v::unsqueeze(&values, 1)?, &indexing::index_select(b, 0, &columns)?)?;
    let zeros = factory::zeros(&[a.sizes()[0], b.sizes()[1]], a.dtype(), a.device())?;
    scatter::index_reduce(&zeros, 0, &rows, &terms, reduce, false)
}
/// `beta input + alpha (a b)` at the entries of `input` alone.
///
/// # Errors
/// `Runtime` for a dense `input`, sparse factors or sizes that do not fit.
pub fn sampled_addmm(input: &Tensor, a: &Tensor, b: &Tensor, beta: Number, alpha: Number) -> Result<Tensor> {
    ensure!(
        input.layout() == TensorLayout::SparseCsr,
        Runtime,
        "sampled_addmm: Expected self to have sparse csr layout, but got {}",
        input.layout().title()
    );
    ensure!(
        !a.is_sparse() && !b.is_sparse(),
        Runtime,
        "sampled_addmm: Expected mat1 and mat2 to have strided layout, but got {} and {}",
        a.layout().title(),
        b.layout().title()
    );
    check(a, b)?;
    let sizes = input.sizes();
    ensure!(
        sizes[0] == a.sizes()[0] && sizes[1] == b.sizes()[1],
        Runtime,
        "sampled_addmm: self has sizes {}, expected [{}, {}] of the product",
        Shape(&sizes),
        a.sizes()[0],
        b.sizes()[1]
    );
    let s = parts("sampled_addmm", input)?;
    ensure!(s.is_matrix(), NotImplemented, "sampled_addmm: batches of matrices are not supported");
    let (rows, columns, values) = entries(input)?;
    let left = indexing::index_select(a, 0, &rows)?;
    let right = v::transpose(&indexing::index_select(b, 1, &columns)?, 0, 1)?;
    let products = reduction::sum(&e::mul(&left, &right)?, &[1], false)?;
    let scaled = e::mul(&products, alpha)?;
    let out = if beta.to_f64() == 0.0 { scaled } else { e::add(&e::mul(&values, beta)?, &scaled)? };
    Ok(with_values(&sizes, &s, out))
}
