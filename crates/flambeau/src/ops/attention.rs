//! Scaled dot-product attention.

use crate::apply::{apply, Dest};
use crate::autograd::node::Vjp;
use crate::ops::elementwise as e;
use crate::ops::{activation, factory, linalg, view};
use crate::primitive::*;
use crate::tensor::{Meta, Tensor};
use flambeau_core::*;

/// q, k, v and a mask where there is one → result and the rows' log Σ exp.
#[derive(Clone)]
struct Sdpa {
    scale: f64,
    causal: bool,
    mask: bool,
}
impl Primitive for Sdpa {
    fn name(&self) -> &'static str {
        "scaled_dot_product_attention"
    }
    fn infer(&self, x: &[&Meta], out: &mut Draft) -> Result<()> {
        let (q, v) = (x[0], x[2]);
        let mut sizes = copy_dims(&q.sizes);
        sizes[3] = v.sizes[3];
        // The memory order that the heads' merge needs next: (n, l, h, e).
        let (n, h, l, f) = (sizes[0], sizes[1], sizes[2], sizes[3]);
        let _ = n;
        let strides = Dims::from_slice(&[h * l * f, f, h * f, 1]);
        out.push_strided(sizes, strides, q.dtype);
        out.push_constant(Dims::from_slice(&q.sizes[..3]), if q.dtype == DType::F64 { DType::F64 } else { DType::F32 });
        Ok(())
    }
    fn run(&self, on: &dyn Backend, x: &[Operand], out: &[Operand]) -> Result<()> {
        let p = Attention { scale: self.scale, causal: self.causal, mask: x.get(3).copied() };
        on.attention(&x[0], &x[1], &x[2], &p, &out[0], &out[1])
    }
    fn saves(&self, _: Mask) -> Mask {
        7 | if self.mask { 8 } else { 0 } | output_bit(0) | output_bit(1)
    }
    fn vjp(&self, cx: &Vjp, g: &[Option<Tensor>]) -> Result<Gradients> {
        let mut grads: Gradients = SmallVec::from_elem(None, cx.len());
        let Some(g) = &g[0] else { return Ok(grads) };
        let (q, k, v) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
        let mask = if self.mask { Some(cx.input(3)?) } else { None };
        if crate::mode::grad_enabled() {
            // To be differentiated again: through the definition.
            let p = probabilities(&q, &k, mask.as_ref(), self.causal, self.scale)?;
            let gp = linalg::matmul(g, &view::mt(&v)?)?;
            let inner = crate::ops::reduction::sum(&e::mul(&gp, &p)?, &[-1], true)?;
            let gs = e::mul(&p, &e::sub(&gp, &inner)?)?;
            grads[0] = Some(e::mul(&linalg::matmul(&gs, &k)?, self.scale)?);
            grads[1] = Some(e::mul(&linalg::matmul(&view::mt(&gs)?, &q)?, self.scale)?);
            grads[2] = Some(linalg::matmul(&view::mt(&p)?, g)?);
            return Ok(grads);
        }
        let (out, lse) = (cx.output(0)?, cx.output(1)?);
        let mut operands: SmallVec<[&Tensor; 7]> = SmallVec::from_iter([g, &q, &k, &v, &out, &lse]);
        operands.extend(mask.iter());
        for (slot, t) in grads.iter_mut().zip(apply(SdpaGrad(self.clone()), &operands, Dest::New)?) {
            *slot = Some(t);
        }
        Ok(grads)
    }
    fn key(&self, key: &mut PlanKey) {
        key.word(self.scale.to_bits()).word(self.causal as u64).word(self.mask as u64);
    }
    crate::shareable!();
}
#[derive(Clone)]
struct SdpaGrad(Sdpa);
impl Primitive for SdpaGrad {
    fn name(&self) -> &'static str {
        "scaled_dot_product_attention_backward"
    }
    fn infer(&self, x: &[&Meta], out: &mut Draft) -> Result<()> {
        for m in &x[1..4] {
            out.push_strided(copy_dims(&m.sizes), preserve_strides(&m.sizes, &m.strides), m.dtype);
        }
        Ok(())
    }
    fn run(&self, on: &dyn Backend, x: &[Operand], out: &[Operand]) -> Result<()> {
        let p = Attention { scale: self.0.scale, causal: self.0.causal, mask: x.get(6).copied() };
        on.attention_grad(&x[0], &x[1], &x[2], &x[3], &x[4], &x[5], &p, &out[0], &out[1], &out[2])
    }
    fn differentiable(&self) -> bool {
        false
    }
    fn vjp(&self, cx: &Vjp, _: &[Option<Tensor>]) -> Result<Gradients> {
        Ok(SmallVec::from_elem(None, cx.len()))
    }
    fn key(&self, key: &mut PlanKey) {
        self.0.key(key);
    }
    crate::shareable!();
}

/// `softmax(q kᵀ scale + mask)`
fn probabilities(q: &Tensor, k: &Tensor, mask: Option<&Tensor>, causal: bool, scale: f64) -> Result<Tensor> {
    let mut scores = e::mul(&linalg::matmul(q, &view::mt(k)?)?, scale)?;
    if causal {
        let s = scores.sizes();
        let (l, m) = (s[s.len() - 2], s[s.len() - 1]);
        let seen = linalg::tril(&factory::ones(&[l, m], DType::Bool, q.device())?, 0, Dest::New)?;
        scores = e::where_(&seen, &scores, f64::NEG_INFINITY)?;
    }
    let blocked = match mask {
        Some(m) if m.dtype() == DType::Bool => {
            scores = e::where_(m, &scores, f64::NEG_INFINITY)?;
            true
        }
        Some(m) => {
            scores = e::add(&scores, m)?;
            true
        }
        None => false,
    };
    let p = activation::softmax(&scores, -1, None)?;
    if !blocked {
        return Ok(p);
    }
    // A row that may attend to nothing gives zeros.
    let nothing = crate::ops::reduction::all(&e::eq(&scores.detach(), f64::NEG_INFINITY)?, &[-1], true, Dest::New)?;
    e::where_(&nothing, 0.0, &p)
}

/// `softmax(q kᵀ scale + mask) v` for q (…, l, e), k (…, s, e), v (…, s, f).
///
/// # Errors
/// `Runtime` for shapes that do not fit, or a mask beside `is_causal`.
#[allow(clippy::too_many_arguments)]
pub fn scaled_dot_product_attention(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    mask: Option<&Tensor>,
    dropout: f64,
    causal: bool,
    scale: Option<f64>,
    gqa: bool,
) -> Result<Tensor> {
    let (qs, ks, vs) = (q.sizes(), k.sizes(), v.sizes());
    ensure!(
        qs.len() >= 2 && ks.len() >= 2 && vs.len() >= 2,
        Runtime,
        "scaled_dot_product_attention: Expected query, key, and value to all be  at least 2 dimensional, but got query.dim(): {}, \
         key.dim(): {} and value.dim(): {} instead.",
        qs.len(),
        ks.len(),
        vs.len()
    );
    ensure!(
        q.dtype() == k.dtype() && k.dtype() == v.dtype(),
        Runtime,
        "Expected query, key, and value to have the same dtype, but got query.dtype: {} key.dtype: {} and value.dtype: {} instead.",
        q.dtype(),
        k.dtype(),
        v.dtype()
    );
    ensure!(
        !(causal && mask.is_some()),
        Runtime,
        "scaled_dot_product_attention: Explicit attn_mask should not be set when is_causal=True"
    );
    ensure!(
        !gqa || [&qs, &ks, &vs].iter().all(|s| s.len() >= 3),
        Index,
        "scaled_dot_product_attention: enable_gqa repeats heads, dimension -3, but query, key and value are of sizes {}, {} and {}",
        Shape(&qs),
        Shape(&ks),
        Shape(&vs)
    );
    if gqa && qs[qs.len() - 3] != ks[ks.len() - 3] {
        let times = |t: &Tensor, have: i64| -> Result<Tensor> {
            let want = qs[qs.len() - 3];
            ensure!(have > 0 && want % have == 0, Runtime, "scaled_dot_product_attention: the number of query heads ({want}) must be a multiple of the key and value heads ({have})");
            let d = t.dim() as i64 - 3;
            let mut s = t.sizes();
            s.insert(d as usize + 1, want / have);
            let wide = view::expand(&view::unsqueeze(t, d + 1)?, &s)?;
            view::flatten(&wide, d, d + 1)
        };
        let (k, v) = (times(k, ks[ks.len() - 3])?, times(v, vs[vs.len() - 3])?);
        return scaled_dot_product_attention(q, &k, &v, mask, dropout, causal, scale, false);
    }
    let width = *qs.last().unwrap_or(&1);
    let scale = scale.unwrap_or(1.0 / (width as f64).sqrt());
    let learned = mask.is_some_and(|m| m.requires_grad());
    let batched = [Some(q), Some(k), Some(v), mask].into_iter().flatten().any(|t| t.as_batched().is_some());
    let fits = qs.len() == 4
        && ks.len() == 4
        && vs.len() == 4
        && qs[..2] == ks[..2]
        && ks[..3] == vs[..3]
        && qs[3] == ks[3]
        && q.dtype().is_float()
        && qs.iter().chain(&ks).chain(&vs).all(|n| *n > 0);
    if fits && dropout == 0.0 && !learned && !batched {
        let wide = match mask {
            Some(m) => Some(view::expand(
                &if m.dtype() == DType::Bool { m.clone() } else { e::to_dtype(m, q.dtype())? },
                &[qs[0], qs[1], qs[2], ks[2]],
            )?),
            None => None,
        };
        let mut operands: SmallVec<[&Tensor; 4]> = SmallVec::from_iter([q, k, v]);
        operands.extend(wide.iter());
        return Ok(apply(Sdpa { scale, causal, mask: wide.is_some() }, &operands, Dest::New)?.swap_remove(0));
    }
    // Step by step, half precisions are computed in single and rounded once, as the kernel does.
    let dtype = q.dtype();
    let wide = |t: &Tensor| e::to_dtype(t, if dtype.is_reduced() { DType::F32 } else { t.dtype() });
    let mut p = probabilities(&wide(q)?, &wide(k)?, mask, causal, scale)?;
    if dropout > 0.0 {
        p = crate::ops::dropout::dropout(&p, dropout, true)?;
    }
    e::to_dtype(&linalg::matmul(&p, &wide(v)?)?, dtype)
}
