//! Matrix products.

use crate::apply::{apply1, Dest};
use crate::autograd::node::Vjp;
use crate::ops::elementwise as e;
use crate::ops::{reduction, view};
use crate::primitive::*;
use crate::tensor::{Meta, Tensor, Value};
use flambeau_core::*;

/// Batched product of (b…, m, k) and (b…, k, n); equal batch sizes.
#[derive(Clone)]
struct Matmul;
impl Primitive for Matmul {
    fn name(&self) -> &'static str {
        "bmm"
    }
    fn infer(&self, x: &[&Meta], out: &mut Draft) -> Result<()> {
        let (a, b) = (x[0], x[1]);
        let n = a.dim();
        ensure!(
            a.dtype == b.dtype,
            Runtime,
            "expected m1 and m2 to have the same dtype, but got: {} != {}",
            a.dtype.title(),
            b.dtype.title()
        );
        ensure!(
            a.sizes[n - 1] == b.sizes[n - 2],
            Runtime,
            "mat1 and mat2 shapes cannot be multiplied ({}x{} and {}x{})",
            a.sizes[n - 2],
            a.sizes[n - 1],
            b.sizes[n - 2],
            b.sizes[n - 1]
        );
        let mut sizes = copy_dims(&a.sizes);
        sizes[n - 1] = b.sizes[n - 1];
        out.push(sizes, a.dtype);
        Ok(())
    }
    fn run(&self, on: &dyn Backend, x: &[Operand], out: &[Operand]) -> Result<()> {
        self.run_then(on, x, out, None)
    }
    fn as_product(&self) -> Option<&dyn Product> {
        Some(self)
    }
    fn saves(&self, needs: Mask) -> Mask {
        (if needs & 1 != 0 { 2 } else { 0 }) | (if needs & 2 != 0 { 1 } else { 0 })
    }
    fn vjp(&self, cx: &Vjp, g: &[Option<Tensor>]) -> Result<Gradients> {
        let mut grads: Gradients = SmallVec::from_elem(None, 2);
        let Some(g) = &g[0] else { return Ok(grads) };
        if cx.needs(0) {
            grads[0] = Some(apply1(Matmul, &[g, &view::mh(&cx.input(1)?)?], Dest::New)?);
        }
        if cx.needs(1) {
            grads[1] = Some(apply1(Matmul, &[&view::mh(&cx.input(0)?)?, g], Dest::New)?);
        }
        Ok(grads)
    }
    fn key(&self, _: &mut PlanKey) {}
    fn sparse(&self, x: &[&Tensor]) -> Option<Result<Tensor>> {
        Some(crate::ops::sparse::matmul(x[0], x[1]))
    }
    crate::shareable!();
    fn batch(&self, x: &[(Tensor, Option<usize>)], _level: u32) -> Option<Result<SmallVec<[(Tensor, usize); 2]>>> {
        let run = || {
            let size = x.iter().find_map(|(t, b)| b.map(|b| t.sizes()[b])).unwrap_or(1);
            let wide = |(t, b): &(Tensor, Option<usize>)| -> Result<Tensor> {
                match b {
                    Some(b) => view::movedim(t, &[*b as i64], &[0]),
                    None => {
                        let mut s = t.sizes();
                        s.insert(0, size);
                        view::expand(&view::unsqueeze(t, 0)?, &s)
                    }
                }
            };
            Ok(SmallVec::from_iter([(apply1(Matmul, &[&wide(&x[0])?, &wide(&x[1])?], Dest::New)?, 0)]))
        };
        Some(run())
    }
}
impl Product for Matmul {
    fn run_then(&self, on: &dyn Backend, x: &[Operand], out: &[Operand], then: Option<Then>) -> Result<()> {
        on.matmul(&x[0], &x[1], &out[0], Epilogue { then, ..Default::default() })
    }
}

/// `x Wᵀ + b` over the last dimension.
#[derive(Clone)]
struct Linear;
impl Product for Linear {
    fn run_then(&self, on: &dyn Backend, x: &[Operand], out: &[Operand], then: Option<Then>) -> Result<()> {
        let (a, w, o) = (&x[0], &x[1], &out[0]);
        let (k, n) = (w.sizes[1], w.sizes[0]);
        let m = o.numel() / n.max(1);
        let (sa, so, sw) = ([m, k], [m, n], [k, n]);
        // From row to row: the stride of the innermost dimension that has more than one; those of size 1 mean nothing.
        let rows = a.sizes.len().saturating_sub(1);
        let row = (0..rows).rev().find(|&d| a.sizes[d] != 1).map_or(k, |d| a.strides[d]);
        let ta = [row, *a.strides.last().unwrap_or(&1)];
        let to = [n, 1];
        let tw = [w.strides[1], w.strides[0]];
        on.matmul(
            &Operand { sizes: &sa, strides: &ta, ..*a },
            &Operand { sizes: &sw, strides: &tw, ..*w },
            &Operand { sizes: &so, strides: &to, ..*o },
            Epilogue { bias: x.get(2).copied(), then, ..Default::default() },
        )
    }
}
impl Primitive for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }
    fn infer(&self, x: &[&Meta], out: &mut Draft) -> Result<()> {
        let (a, w) = (x[0], x[1]);
        ensure!(
            a.dtype == w.dtype && x.get(2).is_none_or(|b| b.dtype == a.dtype),
            Runtime,
            "mat1 and mat2 must have the same dtype, but got {} and {}",
            a.dtype.title(),
            w.dtype.title()
        );
        let k = a.sizes.last().copied().unwrap_or(1);
        ensure!(
            k == w.sizes[1],
            Runtime,
            "mat1 and mat2 shapes cannot be multiplied ({}x{k} and {}x{})",
            a.numel() / k.max(1),
            w.sizes[1],
            w.sizes[0]
        );
        if let Some(b) = x.get(2) {
            ensure!(
                b.sizes[..] == [w.sizes[0]],
                Runtime,
                "linear: the bias has sizes {}, expected [{}]",
                Shape(&b.sizes),
                w.sizes[0]
            );
        }
        let mut sizes = copy_dims(&a.sizes);
        if let Some(last) = sizes.last_mut() {
            *last = w.sizes[0];
        }
        out.push(sizes, a.dtype);
        Ok(())
    }
    fn run(&self, on: &dyn Backend, x: &[Operand], out: &[Operand]) -> Result<()> {
        self.run_then(on, x, out, None)
    }
    fn as_product(&self) -> Option<&dyn Product> {
        Some(self)
    }
    fn saves(&self, needs: Mask) -> Mask {
        (if needs & 1 != 0 { 2 } else { 0 }) | (if needs & 2 != 0 { 1 } else { 0 })
    }
    fn vjp(&self, cx: &Vjp, g: &[Option<Tensor>]) -> Result<Gradients> {
        let mut grads: Gradients = SmallVec::from_elem(None, cx.len());
        let Some(g) = &g[0] else { return Ok(grads) };
        let n = cx.info(1).sizes[0];
        let k = cx.info(1).sizes[1];
        // Counted, since -1 says nothing where there are no outputs.
        let rows = numel(&cx.info(0).sizes[..g.dim() - 1]);
        let flat = view::reshape(g, &[rows, n])?;
        if cx.needs(0) {
            let gx = apply1(Matmul, &[&flat, &conj(&cx.input(1)?)?], Dest::New)?;
            grads[0] = Some(view::reshape(&gx, &cx.info(0).sizes)?);
        }
        if cx.needs(1) {
            let x = cx.input(0)?;
            let x = view::reshape(&x, &[rows, k])?;
            grads[1] = Some(apply1(Matmul, &[&view::transpose(&flat, 0, 1)?, &conj(&x)?], Dest::New)?);
        }
        if cx.len() > 2 && cx.needs(2) {
            grads[2] = Some(reduction::sum(&flat, &[0], false)?);
        }
        Ok(grads)
    }
    fn key(&self, _: &mut PlanKey) {}
    fn sparse(&self, x: &[&Tensor]) -> Option<Result<Tensor>> {
        Some(crate::ops::sparse::linear(x[0], x[1], x.get(2).copied()))
    }
    crate::shareable!();
}
fn conj(t: &Tensor) -> Result<Tensor> {
    if t.dtype().is_complex() {
        e::conj_physical(t)
    } else {
        Ok(t.clone())
    }
}

/// `x Wᵀ + b` over the last dimension: x (…, in), W (out, in), b (out).
///
/// # Errors
/// `Runtime` for shapes or dtypes that do not fit.
pub fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    if weight.dim() == 2 && x.dim() >= 1 && bias.is_none_or(|b| b.dim() == 1) {
        // The leading dimensions have to flatten into one.
        let dense = {
            let m = x.meta();
            m.dim() <= 2
                || view::view_strides(
                    &m.sizes,
                    &m.strides,
                    &[-1, *m.sizes.last().unwrap_or(&1)].map(|n| {
                        if n == -1 {
                            m.numel() / m.sizes.last().copied().unwrap_or(1).max(1)
                        } else {
                            n
                        }
                    }),
                )
                .is_some()
        };
        let x = if dense { x.clone() } else { view::contiguous(x)? };
        return match bias {
            Some(b) => apply1(Linear, &[&x, weight, b], Dest::New),
            None => apply1(Linear, &[&x, weight], Dest::New),
        };
    }
    let y = matmul(x, &if weight.dim() == 2 { view::t(weight)? } else { weight.clone() })?;
    match bias {
        Some(b) => e::add(&y, b),
        None => Ok(y),
    }
}
/// The matrix product in all of its ranks: vectors, matrices, broadcast batches.
///
/// # Errors
/// `Runtime` for 0-dim operands or sizes that do not fit.
pub fn matmul(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let (m, n) = (a.dim(), b.dim());
    ensure!(m > 0 && n > 0, Runtime, "both arguments to matmul need to be at least 1D, but they are {m}D and {n}D");
    if m == 1 && n == 1 {
        return dot(a, b);
    }
    let x = if m == 1 { view::unsqueeze(a, 0)? } else { a.clone() };
    let y = if n == 1 { view::unsqueeze(b, 1)? } else { b.clone() };
    let (xs, ys) = (x.sizes(), y.sizes());
    let out = if xs.len() > 2 && ys.len() == 2 {
        // One matrix for the whole batch: a single tall product.
        let k = xs[xs.len() - 1];
        ensure!(
            k == ys[0],
            Runtime,
            "mat1 and mat2 shapes cannot be multiplied ({}x{k} and {}x{})",
            numel(&xs) / k.max(1),
            ys[0],
            ys[1]
        );
        let mut sizes = xs.clone();
        let rows: i64 = xs[..xs.len() - 1].iter().product();
        let flat = view::reshape(&x, &[rows, k])?;
        let last = sizes.len() - 1;
        sizes[last] = ys[1];
        view::reshape(&apply1(Matmul, &[&flat, &y], Dest::New)?, &sizes)?
    } else {
        let batch = broadcast_shapes(&xs[..xs.len() - 2], &ys[..ys.len() - 2])?;
        let wide = |t: &Tensor, s: &[i64]| -> Result<Tensor> {
            let mut sizes = batch.clone();
            sizes.extend_from_slice(&s[s.len() - 2..]);
            if sizes[..] == *s {
                Ok(t.clone())
            } else {
                view::expand(t, &sizes)
            }
        };
        apply1(Matmul, &[&wide(&x, &xs)?, &wide(&y, &ys)?], Dest::New)?
    };
    let out = if m == 1 { view::squeeze(&out, Some(&[-2]))? } else { out };
    if n == 1 {
        view::squeeze(&out, Some(&[-1]))
    } else {
        Ok(out)
    }
}
/// Product of two matrices.
///
/// # Errors
/// `Runtime` for other ranks or sizes that do not fit.
pub fn mm(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    ensure!(a.dim() == 2, Runtime, "self must be a matrix");
    ensure!(b.dim() == 2, Runtime, "mat2 must be a matrix");
    apply1(Matmul, &[a, b], Dest::New)
}
/// Batched product of two 3-d tensors.
///
/// # Errors
/// As [`mm`].
pub fn bmm(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    ensure!(a.dim() == 3, Runtime, "batch1 must be a 3D tensor");
    ensure!(b.dim() == 3, Runtime, "batch2 must be a 3D tensor");
    let (x, y) = (a.sizes(), b.sizes());
    ensure!(
        x[0] == y[0] && x[2] == y[1],
        Runtime,
        "Expected size for first two dimensions of batch2 tensor to be: [{}, {}] but got: [{}, {}].",
        x[0],
        x[2],
        y[0],
        y[1]
    );
    apply1(Matmul, &[a, b], Dest::New)
}
/// Matrix times vector.
///
/// # Errors
/// As [`mm`].
pub fn mv(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    ensure!(a.dim() == 2 && b.dim() == 1, Runtime, "vector + matrix @ vector expected, got {}D, {}D", a.dim(), b.dim());
    matmul(a, b)
}
/// Inner product of two vectors.
///
/// # Errors
/// `Runtime` for other ranks, different sizes or dtypes.
pub fn dot(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    ensure!(
        a.dim() == 1 && b.dim() == 1,
        Runtime,
        "1D tensors expected, but got {}D and {}D tensors",
        a.dim(),
        b.dim()
    );
    ensure!(
        a.dtype() == b.dtype(),
        Runtime,
        "dot : expected both vectors to have same dtype, but found {} and {}",
        a.dtype().title(),
        b.dtype().title()
    );
    ensure!(
        a.numel() == b.numel(),
        Runtime,
        "inconsistent tensor size, expected tensor [{}] and src [{}] to have the same number of elements, but got {} and {} elements \
         respectively",
        a.numel(),
        b.numel(),
        a.numel(),
        b.numel()
    );
    let y = apply1(Matmul, &[&view::unsqueeze(a, 0)?, &view::unsqueeze(b, 1)?], Dest::New)?;
    view::reshape(&y, &[])
}
/// Inner product with the first vector conjugated.
///
/// # Errors
/// As [`dot`].
pub fn vdot(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    dot(&conj(a)?, b)
}
/// `beta input + alpha product`, as addmm and its kin.
///
/// # Errors
/// Those of the product, and of broadcasting `input`.
fn combine(input: &Tensor, product: &Tensor, beta: Number, alpha: Number) -> Result<Tensor> {
    // Integers are scaled by whole numbers.
    let whole = |x: Number| if product.dtype().is_integral(false) { Number::Int(x.to_i64()) } else { x };
    let (beta, alpha) = (whole(beta), whole(alpha));
    let scaled = if alpha == Number::Int(1) { product.clone() } else { e::mul(product, Value::Number(alpha))? };
    let sizes = product.sizes();
    if beta.to_complex() == Complex64::new(0.0, 0.0) {
        return Ok(scaled);
    }
    let input = view::expand(input, &sizes)?;
    let left = if beta == Number::Int(1) { input } else { e::mul(&input, Value::Number(beta))? };
    e::to_dtype(&e::add(&left, &scaled)?, product.dtype())
}
/// `beta input + alpha a b`
///
/// # Errors
/// As [`mm`].
pub fn addmm(input: &Tensor, a: &Tensor, b: &Tensor, beta: Number, alpha: Number) -> Result<Tensor> {
    ensure!(a.dim() == 2, Runtime, "mat1 must be a matrix, got {}-D tensor", a.dim());
    ensure!(b.dim() == 2, Runtime, "mat2 must be a matrix, got {}-D tensor", b.dim());
    let dtype = a.dtype();
    let vector =
        input.dim() == 1 && input.sizes()[0] == b.sizes()[1] && beta == Number::Int(1) && alpha == Number::Int(1);
    let alike = dtype.is_float() && [input, b].iter().all(|t| t.dtype() == dtype);
    if vector && alike && ![input, a, b].iter().any(|t| t.is_sparse()) {
        return apply1(Linear, &[a, &view::t(b)?, input], Dest::New);
    }
    combine(input, &mm(a, b)?, beta, alpha)
}
/// `max(0, beta input + alpha a b)`, or `gelu` of the sum.
///
/// # Errors
/// As [`mm`].
pub fn addmm_activation(
    input: &Tensor,
    a: &Tensor,
    b: &Tensor,
    beta: Number,
    alpha: Number,
    gelu: bool,
) -> Result<Tensor> {
    let y = addmm(input, a, b, beta, alpha)?;
    e::unary(if gelu { ScalarFn::Gelu } else { ScalarFn::Relu }, &y, Dest::New)
}

/// int8 (or uint8) times int8, summed in int32.
#[derive(Clone)]
struct IntMatmul;
impl Primitive for IntMatmul {
    fn name(&self) -> &'static str {
        "_int_mm"
    }
    fn infer(&self, x: &[&Meta], out: &mut Draft) -> Result<()> {
        let (a, b) = (x[0], x[1]);
        ensure!(a.dim() == 2, Runtime, "_int_mm: Expected self to be of dimension 2 but got {}", a.dim());
        ensure!(b.dim() == 2, Runtime, "_int_mm: Expected mat2 to be of dimension 2 but got {}", b.dim());
        let (n, k) = (a.sizes[1], b.sizes[0]);
        ensure!(n == k, Runtime, "_int_mm: self.size(1) needs to match mat2.size(0) but got {n} and {k}");
        ensure!(
            matches!(a.dtype, DType::I8 | DType::U8),
            Runtime,
            "_int_mm: Expected self dtype to be int8 or uint8 but got {}",
            a.dtype.title()
        );
        ensure!(
            b.dtype == DType::I8,
            Runtime,
            "_int_mm: Expected mat2 dtype to be of type int8 but got {}",
            b.dtype.title()
        );
        out.push_constant([a.sizes[0], b.sizes[1]].as_slice(), DType::I32);
        Ok(())
    }
    fn run(&self, on: &dyn Backend, x: &[Operand], out: &[Operand]) -> Result<()> {
        on.matmul(&x[0], &x[1], &out[0], Epilogue::default())
    }
    fn differentiable(&self) -> bool {
        false
    }
    fn vjp(&self, cx: &Vjp, _: &[Option<Tensor>]) -> Result<Gradients> {
        Ok(SmallVec::from_elem(None, cx.len()))
    }
    fn key(&self, _: &mut PlanKey) {}
    crate::shareable!();
}
/// The product of int8 or uint8 (m, k) and int8 (k, n), exact in int32.
///
/// # Errors
/// `Runtime` for other ranks, dtypes or sizes that do not fit; or an output that is not int32.
pub fn int_mm(a: &Tensor, b: &Tensor, dest: Dest) -> Result<Tensor> {
    if let Dest::Out([out]) = &dest {
        let dtype = out.dtype();
        ensure!(
            dtype == DType::I32,
            Runtime,
            "_int_mm: Expected result dtype to be of type kInt but got {}",
            dtype.title()
        );
    }
    apply1(IntMatmul, &[a, b], dest)
}
/// `beta input + alpha a v`
///
/// # Errors
/// As [`mm`].
pub fn addmv(input: &Tensor, a: &Tensor, v: &Tensor, beta: Number, alpha: Number) -> Result<Tensor> {
    combine(input, &mv(a, v)?, beta, alpha)
}
/// `beta input + alpha a b` over a batch.
///
/// # Errors
/// As [`bmm`].
pub fn baddbmm(input: &Tensor, a: &Tensor, b: &Tensor, beta: Number, alpha: Number) -> Result<Tensor> {
    combine(input, &bmm(a, b)?, beta, alpha)
}
/// `beta input + alpha Σ a b` over a batch.
///
/// # Errors
/// As [`bmm`].
pub fn addbmm(input: &Tensor, a: &Tensor, b: &Tensor, beta: Number, alpha: Number, dest: Dest) -> Result<Tensor> {
    let y = added_products(input, a, b, beta, alpha)?;
    if let Dest::Inplace(t) = dest {
        // Alone among its relatives the in-place form grows a smaller input to the result's sizes.
        if t.sizes() != y.sizes() {
            view::resize(t, &y.sizes())?;
        }
    }
    crate::apply::store("addbmm", y, dest)
}
fn added_products(input: &Tensor, a: &Tensor, b: &Tensor, beta: Number, alpha: Number) -> Result<Tensor> {
    combine(input, &reduction::sum_to(&bmm(a, b)?, &[0], false, Some(a.dtype()), Dest::New)?, beta, alpha)
}
/// Outer product of two vectors.
///
/// # Errors
/// `Runtime` for other ranks.
pub fn outer(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    ensure!(a.dim() == 1, Runtime, "outer: Expected 1-D argument self, but got {}-D", a.dim());
    ensure!(b.dim() == 1, Runtime, "outer: Expected 1-D argument vec2, but got {}-D", b.dim());
    e::mul(&view::unsqueeze(a, 1)?, b)
}
/// The Kronecker product: every element of `a` times the whole of `b`. The one with fewer dimensions gets leading ones.
///
/// # Errors
/// `Runtime` for a product that is too large.
pub fn kron(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let n = a.dim().max(b.dim());
    let padded = |t: &Tensor| -> Vec<i64> {
        let sizes = t.sizes();
        std::iter::repeat_n(1, n - sizes.len()).chain(sizes.iter().copied()).collect()
    };
    let (sa, sb) = (padded(a), padded(b));
    // [a0, 1, a1, 1, …] times [1, b0, 1, b1, …]
    let outer: Vec<i64> = sa.iter().flat_map(|&x| [x, 1]).collect();
    let inner: Vec<i64> = sb.iter().flat_map(|&x| [1, x]).collect();
    let joint: Vec<i64> = sa.iter().zip(&sb).map(|(x, y)| x * y).collect();
    view::reshape(&e::mul(&view::reshape(a, &outer)?, &view::reshape(b, &inner)?)?, &joint)
}
/// `beta input + alpha a bᵀ`
///
/// # Errors
/// As [`outer`].
pub fn addr(input: &Tensor, a: &Tensor, b: &Tensor, beta: Number, alpha: Number) -> Result<Tensor> {
    combine(input, &outer(a, b)?, beta, alpha)
}
/// Sum over the last dimensions of both.
///
/// # Errors
/// `Runtime` when those differ.
pub fn inner(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    if a.dim() == 0 || b.dim() == 0 {
        return e::mul(a, b);
    }
    let (x, y) = (a.sizes(), b.sizes());
    ensure!(
        x.last() == y.last(),
        Runtime,
        "inner() the last dimension must match on both input tensors but got shapes {} and {}",
        Shape(&x),
        Shape(&y)
    );
    tensordot(a, b, &[-1], &[-1])
}
/// Sum over pairs of dimensions.
///
/// # Errors
/// `Runtime` when their sizes differ.
pub fn tensordot(a: &Tensor, b: &Tensor, da: &[i64], db: &[i64]) -> Result<Tensor> {
    ensure!(da.len() == db.len(), Runtime, "both dimension lists should have same length");
    let wrap = |t: &Tensor, ds: &[i64]| ds.iter().map(|d| wrap_dim(*d, t.dim())).collect::<Result<Vec<usize>>>();
    let (da, db) = (wrap(a, da)?, wrap(b, db)?);
    // A dimension of size 1 stands for any size: its partner is summed.
    let (mut a, mut b) = (a.clone(), b.clone());
    for (i, j) in da.iter().zip(&db) {
        let (m, n) = (a.size(*i as i64)?, b.size(*j as i64)?);
        if m == 1 && n != 1 {
            b = reduction::sum_to(&b, &[*j as i64], true, Some(b.dtype()), Dest::New)?;
        } else if n == 1 && m != 1 {
            a = reduction::sum_to(&a, &[*i as i64], true, Some(a.dtype()), Dest::New)?;
        }
    }
    let (xs, ys) = (a.sizes(), b.sizes());
    for (i, j) in da.iter().zip(&db) {
        ensure!(
            xs[*i] == ys[*j],
            Runtime,
            "contracted dimensions need to match, but first has size {} in dim {i} and second has size {} in dim {j}",
            xs[*i],
            ys[*j]
        );
    }
    let fa: Vec<usize> = (0..xs.len()).filter(|d| !da.contains(d)).collect();
    let fb: Vec<usize> = (0..ys.len()).filter(|d| !db.contains(d)).collect();
    let k: i64 = da.iter().map(|d| xs[*d]).product();
    let order = |first: &[usize], second: &[usize]| first.iter().chain(second).map(|d| *d as i64).collect::<Vec<_>>();
    let m: i64 = fa.iter().map(|d| xs[*d]).product();
    let n: i64 = fb.iter().map(|d| ys[*d]).product();
    let x = view::reshape(&view::permute(&a, &order(&fa, &da))?, &[m, k])?;
    let y = view::reshape(&view::permute(&b, &order(&db, &fb))?, &[k, n])?;
    let sizes: Vec<i64> = fa.iter().map(|d| xs[*d]).chain(fb.iter().map(|d| ys[*d])).collect();
    view::reshape(&apply1(Matmul, &[&x, &y], Dest::New)?, &sizes)
}
/// Einstein summation; letters for dimensions, `...` for the rest.
///
/// # Errors
/// `Runtime` for a malformed equation or sizes that do not fit.
pub fn einsum(equation: &str, operands: &[Tensor]) -> Result<Tensor> {
    let text: String = equation.chars().filter(|c| !c.is_whitespace()).collect();
    let (left, right) = match text.split_once("->") {
        Some((l, r)) => (l.to_string(), Some(r.to_string())),
        None => (text.clone(), None),
    };
    let terms: Vec<&str> = left.split(',').collect();
    ensure!(
        terms.len() == operands.len(),
        Runtime,
        "einsum(): more operands were provided than specified in the equation, or fewer: {} terms, {} operands",
        terms.len(),
        operands.len()
    );
    // Broadcast dimensions of `...` are letters of their own, aligned at the right.
    let dots = |i: usize| -> u32 { (1 << 20) + i as u32 };
    let mut most = 0;
    let mut labels: Vec<Vec<u32>> = Vec::new();
    for (term, t) in terms.iter().zip(operands) {
        let named = term.replace("...", "").chars().count();
        ensure!(
            term.replace("...", "").chars().all(|c| c.is_ascii_alphabetic()),
            Runtime,
            "einsum(): invalid subscript given in {equation:?}, subscripts must be in [a-zA-Z]"
        );
        let rest = t.dim() as i64 - named as i64;
        ensure!(
            if term.contains("...") { rest >= 0 } else { rest == 0 },
            Runtime,
            "einsum(): the number of subscripts in the equation ({named}) does not match the number of dimensions ({}) for an operand",
            t.dim()
        );
        most = most.max(rest as usize);
        let mut list = Vec::new();
        if let Some((head, tail)) = term.split_once("...") {
            list.extend(head.chars().map(|c| c as u32));
            list.extend((0..rest as usize).map(|i| dots(rest as usize - 1 - i)));
            list.extend(tail.chars().map(|c| c as u32));
        } else {
            list.extend(term.chars().map(|c| c as u32));
        }
        labels.push(list);
    }
    let output: Vec<u32> = match right {
        Some(r) => {
            let mut out = Vec::new();
            let (head, tail, ellipsis) = match r.split_once("...") {
                Some((h, t)) => (h.to_string(), t.to_string(), true),
                None => (r.clone(), String::new(), false),
            };
            out.extend(head.chars().map(|c| c as u32));
            if ellipsis {
                out.extend((0..most).rev().map(dots));
            }
            out.extend(tail.chars().map(|c| c as u32));
            out
        }
        None => {
            let mut all: Vec<u32> = labels.iter().flatten().copied().filter(|l| *l < 1 << 20).collect();
            all.sort_unstable();
            let once: Vec<u32> = all.iter().copied().filter(|l| all.iter().filter(|m| *m == l).count() == 1).collect();
            (0..most).rev().map(dots).chain(once).collect()
        }
    };
    for (i, l) in output.iter().enumerate() {
        ensure!(!output[..i].contains(l), Runtime, "einsum(): output subscript appears more than once in the output");
        ensure!(
            labels.iter().any(|t| t.contains(l)),
            Runtime,
            "einsum(): output subscript does not appear in the equation for any input operand"
        );
    }
    // All letters: output first, then those summed.
    let mut order = output.clone();
    for l in labels.iter().flatten() {
        if !order.contains(l) {
            order.push(*l);
        }
    }
    let mut parts: Vec<Tensor> = Vec::new();
    for (list, t) in labels.iter().zip(operands) {
        let (mut list, mut t) = (list.clone(), t.clone());
        // Repeated letters: the diagonal.
        let mut i = 0;
        while i < list.len() {
            if let Some(j) = (i + 1..list.len()).find(|&j| list[j] == list[i]) {
                ensure!(
                    t.sizes()[i] == t.sizes()[j],
                    Runtime,
                    "einsum(): subscript is repeated for an operand but the sizes don't match"
                );
                t = view::diagonal(&t, 0, i as i64, j as i64)?;
                let l = list.remove(j);
                list.remove(i);
                list.push(l);
            } else {
                i += 1;
            }
        }
        let dims: Vec<i64> = order.iter().filter_map(|l| list.iter().position(|m| m == l)).map(|d| d as i64).collect();
        let mut y = view::permute(&t, &dims)?;
        for (k, l) in order.iter().enumerate() {
            if !list.contains(l) {
                y = view::unsqueeze(&y, k as i64)?;
            }
        }
        parts.push(y);
    }
    let free = output.len();
    let mut acc = parts[0].clone();
    for (i, y) in parts.iter().enumerate().skip(1) {
        acc = contract(&acc, y, free, &parts[i + 1..])?;
    }
    // What products summed is a dimension of size 1 by now; a sum over it would widen small integers.
    let (mut sum, mut done) = (Vec::new(), Vec::new());
    for d in free..acc.dim() {
        let list = if parts.len() > 1 && acc.sizes()[d] == 1 { &mut done } else { &mut sum };
        list.push(d as i64);
    }
    let acc = if sum.is_empty() { acc } else { reduction::sum_to(&acc, &sum, true, None, Dest::New)? };
    let gone: Vec<i64> = sum.into_iter().chain(done).collect();
    if gone.is_empty() {
        return Ok(acc);
    }
    view::squeeze(&acc, Some(&gone))
}
/// One product of an einsum: letters that no later operand has are summed now, as a batched matrix product.
fn contract(a: &Tensor, b: &Tensor, free: usize, later: &[Tensor]) -> Result<Tensor> {
    let rank = a.dim();
    let (xs, ys) = (a.sizes(), b.sizes());
    for d in 0..rank {
        ensure!(
            xs[d] == ys[d] || xs[d] == 1 || ys[d] == 1,
            Runtime,
            "einsum(): operands do not broadcast with remapped shapes: {} and {}",
            Shape(&xs),
            Shape(&ys)
        );
    }
    let summed: Vec<usize> =
        (free..rank).filter(|&d| xs[d] == ys[d] && xs[d] != 1 && later.iter().all(|t| t.sizes()[d] == 1)).collect();
    if summed.is_empty() {
        return e::mul(a, b);
    }
    let pick =
        |f: &dyn Fn(usize) -> bool| -> Vec<usize> { (0..rank).filter(|d| !summed.contains(d) && f(*d)).collect() };
    let batch = pick(&|d| xs[d] == ys[d]);
    let rows = pick(&|d| xs[d] != ys[d] && ys[d] == 1);
    let cols = pick(&|d| xs[d] != ys[d] && xs[d] == 1);
    let prod = |s: &[i64], ds: &[usize]| ds.iter().map(|d| s[*d]).product::<i64>();
    let perm = |ds: &[&[usize]]| ds.concat().iter().map(|d| *d as i64).collect::<Vec<i64>>();
    let x = view::reshape(
        &view::permute(a, &perm(&[&batch, &rows, &summed, &cols]))?,
        &[prod(&xs, &batch), prod(&xs, &rows), prod(&xs, &summed)],
    )?;
    let y = view::reshape(
        &view::permute(b, &perm(&[&batch, &summed, &cols, &rows]))?,
        &[prod(&ys, &batch), prod(&ys, &summed), prod(&ys, &cols)],
    )?;
    let z = apply1(Matmul, &[&x, &y], Dest::New)?;
    let mut sizes: Vec<i64> = batch.iter().chain(&rows).map(|d| xs[*d]).chain(cols.iter().map(|d| ys[*d])).collect();
    sizes.extend(summed.iter().map(|_| 1));
    let z = view::reshape(&z, &sizes)?;
    let from: Vec<usize> = [&batch[..], &rows, &cols, &summed].concat();
    let mut back = vec![0i64; rank];
    from.iter().enumerate().for_each(|(i, d)| back[*d] = i as i64);
    view::permute(&z, &back)
}
/// Sum of a matrix's diagonal.
///
/// # Errors
/// `Runtime` for other ranks.
pub fn trace(t: &Tensor) -> Result<Tensor> {
    ensure!(t.dim() == 2, Runtime, "trace: expected a matrix, but got tensor with dim {}", t.dim());
    reduction::sum(&view::diagonal(t, 0, 0, 1)?, &[], false)
}
fn triangle(t: &Tensor, k: i64, lower: bool, dest: Dest) -> Result<Tensor> {
    ensure!(
        t.dim() >= 2,
        Runtime,
        "{}: input tensor must have at least 2 dimensions",
        if lower { "tril" } else { "triu" }
    );
    let s = t.sizes();
    let (n, m) = (s[s.len() - 2], s[s.len() - 1]);
    let rows = view::unsqueeze(&crate::ops::factory::arange_to(n, t.device())?, 1)?;
    let cols = crate::ops::factory::arange_to(m, t.device())?;
    let edge = e::add(&rows, k)?;
    let keep = if lower { e::le(&cols, &edge)? } else { e::ge(&cols, &edge)? };
    match dest {
        Dest::Inplace(t) => e::copy_(t, &e::where_(&keep, t, 0)?),
        dest => e::map(
            ScalarFn::Where,
            &[
                Value::Tensor(&keep),
                Value::Tensor(t),
                Value::Number(if t.dtype() == DType::Bool { Number::Bool(false) } else { Number::Int(0) }),
            ],
            dest,
        ),
    }
}
/// The lower triangle, the rest 0.
///
/// # Errors
/// `Runtime` below two dimensions.
pub fn tril(t: &Tensor, k: i64, dest: Dest) -> Result<Tensor> {
    triangle(t, k, true, dest)
}
/// The upper triangle, the rest 0.
///
/// # Errors
/// `Runtime` below two dimensions.
pub fn triu(t: &Tensor, k: i64, dest: Dest) -> Result<Tensor> {
    triangle(t, k, false, dest)
}
