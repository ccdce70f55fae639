//! Matrix decompositions as primitives, and their gradients.
//!
//! A decomposition runs as a primitive without a gradient (`Decompose`); its results then pass through `Implicit`, which
//! links them to the matrices they come from. What is differentiated is thereby the equation that the results satisfy, and
//! every gradient is made of differentiable operators over the linked results, so that it can be differentiated again.
//! Sources of the formulas: M. Giles, "An extended collection of matrix derivative results" (2008); Z. Wan and S. Zhang,
//! "Automatic differentiation for complex valued SVD" (2019); J. Townsend, "Differentiating the singular value
//! decomposition" (2016); G. Golub and V. Pereyra, "The differentiation of pseudo-inverses" (1973).

use crate::apply::{apply, Dest};
use crate::autograd::node::Vjp;
use crate::ops::linalg::matmul;
use crate::ops::solve::{solve_values, triangular_values};
use crate::ops::{elementwise as e, factory, linalg, view};
use crate::primitive::*;
use crate::tensor::{Meta, Tensor};
use flambeau_core::*;

/// A kernel of [`Backend::decompose`] without a gradient.
#[derive(Clone)]
pub(crate) struct Decompose {
    pub how: Decomposition,
    /// Eigenvectors, singular vectors: whether they are wanted; for `Svd` whether all of them.
    pub vectors: bool,
    pub full: bool,
    /// `Permutation`: rows of P, and its dtype.
    pub rows: i64,
    pub dtype: DType,
}
impl Primitive for Decompose {
    fn name(&self) -> &'static str {
        use Decomposition as D;
        match self.how {
            D::Cholesky { .. } => "linalg_cholesky",
            D::Lu { .. } => "linalg_lu_factor",
            D::LuSolve { .. } => "linalg_lu_solve",
            D::Permutation => "lu_unpack",
            D::Qr => "geqrf",
            D::HouseholderProduct => "linalg_householder_product",
            D::SolveTriangular { .. } => "linalg_solve_triangular",
            D::Ldl { .. } => "linalg_ldl_factor",
            D::LdlSolve { .. } => "linalg_ldl_solve",
            D::Eigh => "linalg_eigh",
            D::Eig => "linalg_eig",
            D::Svd => "linalg_svd",
        }
    }
    fn infer(&self, x: &[&Meta], out: &mut Draft) -> Result<()> {
        use Decomposition as D;
        let (sizes, dtype) = (&x[0].sizes, x[0].dtype);
        let r = sizes.len();
        let with = |lead: &[i64], tail: &[i64]| -> Dims { lead.iter().chain(tail).copied().collect() };
        if matches!(self.how, D::Permutation) {
            out.push_constant(with(&sizes[..r - 1], &[self.rows, self.rows]), self.dtype);
            return Ok(());
        }
        let (lead, m, n) = (&sizes[..r - 2], sizes[r - 2], sizes[r - 1]);
        let k = m.min(n);
        match self.how {
            D::Cholesky { .. } => {
                out.push_constant(sizes.clone(), dtype);
                out.push_constant(lead, DType::I32);
            }
            D::Lu { .. } | D::Ldl { .. } => {
                out.push_constant(sizes.clone(), dtype);
                out.push_constant(with(lead, &[k]), DType::I32);
                out.push_constant(lead, DType::I32);
            }
            D::Qr => {
                out.push_constant(sizes.clone(), dtype);
                out.push_constant(with(lead, &[k]), dtype);
            }
            D::HouseholderProduct => out.push_constant(sizes.clone(), dtype),
            D::LuSolve { .. } | D::LdlSolve { .. } => out.push_constant(copy_dims(&x[2].sizes), dtype),
            D::SolveTriangular { .. } => out.push_constant(copy_dims(&x[1].sizes), dtype),
            D::Eigh | D::Eig => {
                let dtype = if self.how == D::Eig { dtype.to_complex() } else { dtype };
                out.push_constant(with(lead, &[n]), if self.how == D::Eig { dtype } else { dtype.to_real() });
                if self.vectors {
                    out.push_constant(sizes.clone(), dtype);
                }
            }
            D::Svd => {
                if !self.vectors {
                    out.push_constant(with(lead, &[k]), dtype.to_real());
                    return Ok(());
                }
                let (a, b) = if self.full { (m, n) } else { (k, k) };
                out.push_constant(with(lead, &[m, a]), dtype);
                out.push_constant(with(lead, &[k]), dtype.to_real());
                out.push_constant(with(lead, &[b, n]), dtype);
            }
            D::Permutation => {}
        }
        Ok(())
    }
    fn run(&self, on: &dyn Backend, x: &[Operand], out: &[Operand]) -> Result<()> {
        on.decompose(self.how, x, out)
    }
    fn differentiable(&self) -> bool {
        false
    }
    fn vjp(&self, cx: &Vjp, _: &[Option<Tensor>]) -> Result<Gradients> {
        Ok(SmallVec::from_elem(None, cx.len()))
    }
    fn key(&self, key: &mut PlanKey) {
        use std::hash::{Hash, Hasher};
        // Every variant with its flags; the hash of so small a value is only a number for it.
        let mut h = std::collections::hash_map::DefaultHasher::new();
        self.how.hash(&mut h);
        key.word(h.finish()).word(self.vectors as u64).word(self.full as u64).word(self.rows as u64);
        key.word(self.dtype as u64);
    }
    crate::shareable!();
}
/// Runs a decomposition of constants.
pub(crate) fn decompose(how: Decomposition, x: &[&Tensor], vectors: bool, full: bool) -> Result<Vec<Tensor>> {
    let x: Vec<Tensor> = x.iter().map(|t| t.detach()).collect();
    let x: Vec<&Tensor> = x.iter().collect();
    let op = Decompose { how, vectors, full, rows: 0, dtype: DType::F32 };
    Ok(apply(op, &x, Dest::New)?.into_iter().collect())
}
/// P with `A = P L U` from pivots, for matrices of `rows` rows.
pub(crate) fn permutation(pivots: &Tensor, rows: i64, dtype: DType) -> Result<Tensor> {
    let op = Decompose { how: Decomposition::Permutation, vectors: false, full: false, rows, dtype };
    Ok(apply(op, &[pivots], Dest::New)?.swap_remove(0))
}

/// Which equation ties results to inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Rule {
    /// `A = L Lᴴ`
    Cholesky,
    /// `A = Q R`, R square
    Qr,
    /// `A = V diag(w) Vᴴ`
    Eigh,
    /// `A = V diag(w) V⁻¹`
    Eig,
    /// `A = U diag(S) Vᴴ`, reduced
    Svd,
    /// `A X = B`
    Solve,
    /// `A X = B`, A triangular
    Triangular { upper: bool, unit: bool },
    /// `L Lᴴ X = B` (`Uᴴ U X = B`); the gradient multiplies by the whole of L's operand, as PyTorch's does
    CholeskySolve { upper: bool },
    /// `A P = 1`
    Inverse,
    /// Moore and Penrose's four
    Pinv,
    /// `A = L U`, packed, A square and pivoted already
    Lu,
}

/// Results given as constants, with the gradient of the equation they satisfy. Operands: the inputs, then the results.
#[derive(Clone)]
struct Implicit {
    rule: Rule,
    inputs: usize,
    name: &'static str,
}
/// Links `values` to the `inputs` from which they were computed.
pub(crate) fn implicit(rule: Rule, name: &'static str, inputs: &[&Tensor], values: &[Tensor]) -> Result<Vec<Tensor>> {
    let values: Vec<Tensor> = values.iter().map(|v| v.detach()).collect();
    let x: Vec<&Tensor> = inputs.iter().copied().chain(values.iter()).collect();
    Ok(apply(Implicit { rule, inputs: inputs.len(), name }, &x, Dest::New)?.into_iter().collect())
}

/// `1 - eye/2` in the shape (n, n): halves a diagonal.
fn half_diagonal(x: &Tensor) -> Result<Tensor> {
    let n = x.size(-1)?;
    let eye = factory::eye(n, n, x.dtype(), x.device())?;
    e::mul(x, &e::sub(1.0, &e::mul(&eye, 0.5)?)?)
}
/// A vector as a diagonal matrix.
pub(crate) fn diag(v: &Tensor) -> Result<Tensor> {
    let n = v.size(-1)?;
    e::mul(&view::unsqueeze(v, -2)?, &factory::eye(n, n, v.dtype(), v.device())?)
}
/// `x` with zeros on its diagonal.
fn off_diagonal(x: &Tensor) -> Result<Tensor> {
    let n = x.size(-1)?;
    e::mul(x, &e::sub(1.0, &factory::eye(n, n, x.dtype(), x.device())?)?)
}
/// `w_j - w_i`, 1 on the diagonal.
fn differences(w: &Tensor) -> Result<Tensor> {
    let n = w.size(-1)?;
    let d = e::sub(&view::unsqueeze(w, -2)?, &view::unsqueeze(w, -1)?)?;
    e::add(&d, &factory::eye(n, n, w.dtype(), w.device())?)
}
fn add(a: Option<Tensor>, b: Tensor) -> Result<Option<Tensor>> {
    Ok(Some(match a {
        Some(a) => e::add(&a, &b)?,
        None => b,
    }))
}
fn tril(t: &Tensor, k: i64) -> Result<Tensor> {
    linalg::tril(t, k, Dest::New)
}
fn triu(t: &Tensor, k: i64) -> Result<Tensor> {
    linalg::triu(t, k, Dest::New)
}

impl Primitive for Implicit {
    fn name(&self) -> &'static str {
        self.name
    }
    fn infer(&self, x: &[&Meta], out: &mut Draft) -> Result<()> {
        for v in &x[self.inputs..] {
            out.push(copy_dims(&v.sizes), v.dtype);
        }
        Ok(())
    }
    fn run(&self, on: &dyn Backend, x: &[Operand], out: &[Operand]) -> Result<()> {
        for (v, o) in x[self.inputs..].iter().zip(out) {
            let program = Program { inputs: &[Input::Operand(v.dtype.class())], steps: &[], results: &[0] };
            if o.numel() > 0 {
                on.map(&program, &[*v], &[*o])?;
            }
        }
        Ok(())
    }
    fn saves(&self, _: Mask) -> Mask {
        let outputs = match self.rule {
            Rule::Qr | Rule::Eigh | Rule::Eig => 2,
            Rule::Svd => 3,
            _ => 1,
        };
        let inputs = match self.rule {
            Rule::Solve | Rule::Triangular { .. } | Rule::CholeskySolve { .. } | Rule::Pinv => 1,
            _ => 0,
        };
        (0..outputs).map(output_bit).sum::<Mask>() | inputs
    }
    fn vjp(&self, cx: &Vjp, g: &[Option<Tensor>]) -> Result<Gradients> {
        let mut grads: Gradients = SmallVec::from_elem(None, cx.len());
        let mh = view::mh;
        let first = cx.output(0)?;
        let out = |i: usize| cx.output(i);
        match (self.rule, &g[0]) {
            (Rule::Cholesky, Some(g)) => {
                let l = &first;
                let p = tril(&matmul(&mh(l)?, g)?, 0)?;
                let s = half_diagonal(&e::mul(&e::add(&p, &mh(&p)?)?, 0.5)?)?;
                // L⁻ᴴ S L⁻¹, as two solves with Lᴴ.
                let lh = mh(l)?;
                let half = triangular_values(&lh, &s, true, false)?;
                grads[0] = Some(mh(&triangular_values(&lh, &mh(&half)?, true, false)?)?);
            }
            (Rule::Inverse, Some(g)) => {
                let p = mh(&first)?;
                grads[0] = Some(e::neg(&matmul(&p, &matmul(g, &p)?)?)?);
            }
            (Rule::Solve, Some(g)) => {
                let gb = solve_values(&mh(&cx.input(0)?)?, g)?;
                if cx.needs(0) {
                    grads[0] = Some(e::neg(&matmul(&gb, &mh(&first)?)?)?);
                }
                grads[1] = Some(gb);
            }
            (Rule::Triangular { upper, unit }, Some(g)) => {
                let gb = triangular_values(&mh(&cx.input(0)?)?, g, !upper, unit)?;
                if cx.needs(0) {
                    let ga = e::neg(&matmul(&gb, &mh(&first)?)?)?;
                    grads[0] = Some(if upper { triu(&ga, unit as i64)? } else { tril(&ga, -(unit as i64))? });
                }
                grads[1] = Some(gb);
            }
            (Rule::CholeskySolve { upper }, Some(g)) => {
                let l = cx.input(0)?;
                let gb = crate::ops::solve::cholesky_solve(g, &l, upper)?;
                if cx.needs(0) {
                    let p = matmul(&gb, &mh(&first)?)?;
                    let p = e::add(&p, &mh(&p)?)?;
                    grads[0] = Some(e::neg(&if upper { matmul(&l, &p)? } else { matmul(&p, &l)? })?);
                }
                grads[1] = Some(gb);
            }
            (Rule::Pinv, Some(g)) => {
                let (a, p) = (cx.input(0)?, &first);
                let (ph, gh) = (mh(p)?, mh(g)?);
                // dP = -P dA P + P Pᴴ dAᴴ (1 - A P) + (1 - P A) dAᴴ Pᴴ P
                let one = e::neg(&matmul(&ph, &matmul(g, &ph)?)?)?;
                let right = matmul(&gh, &matmul(p, &ph)?)?;
                let right = e::sub(&right, &matmul(&a, &matmul(p, &right)?)?)?;
                let left = matmul(&matmul(&ph, p)?, &gh)?;
                let left = e::sub(&left, &matmul(&matmul(&left, p)?, &a)?)?;
                grads[0] = Some(e::add(&one, &e::add(&right, &left)?)?);
            }
            (Rule::Lu, Some(g)) => {
                let lu = &first;
                let n = lu.size(-1)?;
                let l = e::add(&tril(lu, -1)?, &factory::eye(n, n, lu.dtype(), lu.device())?)?;
                let u = triu(lu, 0)?;
                let left = tril(&matmul(&mh(&l)?, &tril(g, -1)?)?, -1)?;
                let right = triu(&matmul(&triu(g, 0)?, &mh(&u)?)?, 0)?;
                let inner = triangular_values(&mh(&l)?, &e::add(&left, &right)?, true, true)?;
                // M U⁻ᴴ = (U⁻¹ Mᴴ)ᴴ
                grads[0] = Some(mh(&triangular_values(&u, &mh(&inner)?, true, false)?)?);
            }
            (Rule::Qr, _) => {
                let (q, r) = (first, out(1)?);
                let mut m = None;
                if let Some(gr) = &g[1] {
                    m = add(m, matmul(gr, &mh(&r)?)?)?;
                }
                if let Some(gq) = &g[0] {
                    m = add(m, e::neg(&matmul(&mh(&q)?, gq)?)?)?;
                }
                let Some(m) = m else { return Ok(grads) };
                let m = triu(&m, 0)?;
                let mut ga = matmul(&q, &half_diagonal(&e::add(&m, &mh(&m)?)?)?)?;
                if let Some(gq) = &g[0] {
                    ga = e::add(&ga, gq)?;
                }
                // ga R⁻ᴴ = (R⁻¹ gaᴴ)ᴴ
                grads[0] = Some(mh(&triangular_values(&r, &mh(&ga)?, true, false)?)?);
            }
            (Rule::Eigh, gw) => {
                let (w, v) = (first, out(1)?);
                let mut inner = None;
                if let Some(gw) = gw {
                    inner = add(inner, diag(&e::to_dtype(gw, v.dtype())?)?)?;
                }
                if let Some(gv) = &g[1] {
                    // Only the skew part moves V along unitary matrices; what is left is Hermitian, as A is.
                    let p = off_diagonal(&matmul(&mh(&v)?, gv)?)?;
                    let p = e::mul(&e::sub(&p, &mh(&p)?)?, 0.5)?;
                    inner = add(inner, e::div(&p, &differences(&w)?)?)?;
                }
                let Some(inner) = inner else { return Ok(grads) };
                grads[0] = Some(matmul(&v, &matmul(&inner, &mh(&v)?)?)?);
            }
            (Rule::Eig, gw) => {
                let (w, v) = (first, out(1)?);
                let vh = mh(&v)?;
                let mut inner = None;
                if let Some(gw) = gw {
                    inner = add(inner, diag(gw)?)?;
                }
                if let Some(gv) = &g[1] {
                    let p = matmul(&vh, gv)?;
                    let d = e::to_dtype(&view::real(&view::diagonal(&p, 0, -2, -1)?)?, v.dtype())?;
                    let p = e::sub(&p, &e::mul(&matmul(&vh, &v)?, &view::unsqueeze(&d, -2)?)?)?;
                    inner = add(inner, e::div(&off_diagonal(&p)?, &e::conj_physical(&differences(&w)?)?)?)?;
                }
                let Some(inner) = inner else { return Ok(grads) };
                let ga = solve_values(&vh, &matmul(&inner, &vh)?)?;
                grads[0] = Some(e::convert_gradient(&ga, cx.info(0).dtype)?);
            }
            (Rule::Svd, gu) => {
                let (u, s, vh) = (first, out(1)?, out(2)?);
                let dtype = u.dtype();
                let sc = e::to_dtype(&s, dtype)?;
                let (row, column) = (view::unsqueeze(&sc, -2)?, view::unsqueeze(&sc, -1)?);
                let skew = |x: &Tensor| -> Result<Tensor> { e::sub(x, &mh(x)?) };
                let gaps = e::to_dtype(&differences(&e::square(&s)?)?, dtype)?;
                let mut inner = None;
                if let Some(gs) = &g[1] {
                    inner = add(inner, diag(&e::to_dtype(gs, dtype)?)?)?;
                }
                if let Some(gu) = gu {
                    let x = skew(&matmul(&mh(&u)?, gu)?)?;
                    inner = add(inner, e::mul(&e::div(&off_diagonal(&x)?, &gaps)?, &row)?)?;
                    if dtype.is_complex() {
                        let d = view::diagonal(&x, 0, -2, -1)?;
                        inner = add(inner, diag(&e::div(&d, &e::mul(&sc, 2.0)?)?)?)?;
                    }
                }
                if let Some(gvh) = &g[2] {
                    let y = skew(&matmul(&vh, &mh(gvh)?)?)?;
                    inner = add(inner, e::mul(&column, &e::div(&off_diagonal(&y)?, &gaps)?)?)?;
                }
                let Some(inner) = inner else { return Ok(grads) };
                let mut ga = matmul(&u, &matmul(&inner, &vh)?)?;
                let (m, n, k) = (u.size(-2)?, vh.size(-1)?, s.size(-1)?);
                if let (Some(gu), true) = (gu, m > k) {
                    let x = e::div(gu, &row)?;
                    let x = e::sub(&x, &matmul(&u, &matmul(&mh(&u)?, &x)?)?)?;
                    ga = e::add(&ga, &matmul(&x, &vh)?)?;
                }
                if let (Some(gvh), true) = (&g[2], n > k) {
                    let y = e::div(gvh, &column)?;
                    let y = e::sub(&y, &matmul(&matmul(&y, &mh(&vh)?)?, &vh)?)?;
                    ga = e::add(&ga, &matmul(&u, &y)?)?;
                }
                grads[0] = Some(ga);
            }
            (_, None) => {}
        }
        Ok(grads)
    }
    fn key(&self, key: &mut PlanKey) {
        let rule = match self.rule {
            Rule::Cholesky => 0,
            Rule::Qr => 1,
            Rule::Eigh => 2,
            Rule::Eig => 3,
            Rule::Svd => 4,
            Rule::Solve => 5,
            Rule::Triangular { upper, unit } => 16 + 2 * upper as u64 + unit as u64,
            Rule::Inverse => 7,
            Rule::Pinv => 8,
            Rule::Lu => 9,
            Rule::CholeskySolve { upper } => 20 + upper as u64,
        };
        key.word(rule).word(self.inputs as u64);
    }
    crate::shareable!();
}
