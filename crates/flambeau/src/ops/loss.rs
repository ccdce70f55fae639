//! Cross-entropy in one pass over the logits.

use crate::apply::{apply, apply1, Dest};
use crate::autograd::node::Vjp;
use crate::ops::elementwise as e;
use crate::ops::{activation, indexing, reduction, view};
use crate::primitive::*;
use crate::tensor::{Meta, Tensor};
use flambeau_core::*;

/// logits (rows, classes), target (rows) → loss of each row, and log Σ exp.
#[derive(Clone)]
struct CrossEntropy(i64);
impl Primitive for CrossEntropy {
    fn name(&self) -> &'static str {
        "cross_entropy_loss"
    }
    fn infer(&self, x: &[&Meta], out: &mut Draft) -> Result<()> {
        out.push([x[0].sizes[0]].as_slice(), x[0].dtype);
        out.push_constant([x[0].sizes[0]].as_slice(), if x[0].dtype == DType::F64 { DType::F64 } else { DType::F32 });
        Ok(())
    }
    fn run(&self, on: &dyn Backend, x: &[Operand], out: &[Operand]) -> Result<()> {
        on.cross_entropy(&x[0], &x[1], self.0, &out[0], &out[1])
    }
    fn saves(&self, _: Mask) -> Mask {
        3 | output_bit(1)
    }
    fn vjp(&self, cx: &Vjp, g: &[Option<Tensor>]) -> Result<Gradients> {
        let mut grads: Gradients = SmallVec::from_elem(None, 2);
        let Some(g) = &g[0] else { return Ok(grads) };
        let (x, t) = (cx.input(0)?, cx.input(1)?);
        if crate::mode::grad_enabled() {
            // To be differentiated again: softmax minus one at the target.
            let p = activation::softmax(&x, 1, None)?;
            let kept = e::to_dtype(&e::ne(&t, self.0)?, x.dtype())?;
            let safe = e::where_(&e::ne(&t, self.0)?, &t, 0)?;
            let hot = e::to_dtype(&indexing::one_hot(&safe, x.sizes()[1])?, x.dtype())?;
            let scale = view::unsqueeze(&e::mul(g, &kept)?, 1)?;
            grads[0] = Some(e::mul(&e::sub(&p, &hot)?, &scale)?);
            return Ok(grads);
        }
        grads[0] = Some(apply1(CrossEntropyGrad(self.0), &[g, &x, &t, &cx.output(1)?], Dest::New)?);
        Ok(grads)
    }
    fn key(&self, key: &mut PlanKey) {
        key.word(self.0 as u64);
    }
    crate::shareable!();
}
#[derive(Clone)]
struct CrossEntropyGrad(i64);
impl Primitive for CrossEntropyGrad {
    fn name(&self) -> &'static str {
        "cross_entropy_loss_backward"
    }
    fn infer(&self, x: &[&Meta], out: &mut Draft) -> Result<()> {
        out.push(x[1].sizes.clone(), x[1].dtype);
        Ok(())
    }
    fn run(&self, on: &dyn Backend, x: &[Operand], out: &[Operand]) -> Result<()> {
        on.cross_entropy_grad(&x[0], &x[1], &x[2], &x[3], self.0, &out[0])
    }
    fn differentiable(&self) -> bool {
        false
    }
    fn vjp(&self, cx: &Vjp, _: &[Option<Tensor>]) -> Result<Gradients> {
        Ok(SmallVec::from_elem(None, cx.len()))
    }
    fn key(&self, key: &mut PlanKey) {
        key.word(self.0 as u64);
    }
    crate::shareable!();
}

/// Loss of each row of logits (rows, classes) for class indices (rows), 0 where the target is `ignore`.
///
/// # Errors
/// `Index` for a target outside the classes, `Runtime` for shapes that do not fit.
pub fn cross_entropy_rows(logits: &Tensor, target: &Tensor, ignore: i64) -> Result<Tensor> {
    let (xs, ts) = (logits.sizes(), target.sizes());
    ensure!(
        xs.len() == 2 && ts.len() == 1 && xs[0] == ts[0],
        Value,
        "Expected input batch_size ({}) to match target batch_size ({}).",
        xs.first().unwrap_or(&0),
        ts.first().unwrap_or(&0)
    );
    ensure!(target.dtype() == DType::I64, Runtime, "expected scalar type Long but found {}", target.dtype().title());
    ensure!(
        logits.dtype().is_float(),
        NotImplemented,
        "\"cross_entropy_loss\" not implemented for '{}'",
        logits.dtype().title()
    );
    Ok(apply(CrossEntropy(ignore), &[logits, target], Dest::New)?.swap_remove(0))
}
/// The mean of [`cross_entropy_rows`] over targets that are not ignored.
///
/// # Errors
/// As [`cross_entropy_rows`].
pub fn cross_entropy(logits: &Tensor, target: &Tensor, ignore: i64) -> Result<Tensor> {
    let rows = cross_entropy_rows(logits, target, ignore)?;
    let count = reduction::sum(&e::ne(target, ignore)?, &[], false)?;
    e::div(&reduction::sum(&rows, &[], false)?, &e::to_dtype(&count, rows.dtype())?)
}
