//! Cross-entropy in one pass over the logits.

use crate::apply::{apply, apply1, Dest};
use crate::autograd::node::Vjp;
use crate::ops::elementwise as e;
use crate::ops::{activation, indexing, view};
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
        out.push(Dims::from_slice(&x[0].sizes[..1]), x[0].dtype);
        out.push_constant(
            Dims::from_slice(&x[0].sizes[..1]),
            if x[0].dtype == DType::F64 { DType::F64 } else { DType::F32 },
        );
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
        grads[0] = Some(logits_gradient(cx, g, 1, self.0)?);
        Ok(grads)
    }
    fn key(&self, key: &mut PlanKey) {
        key.word(self.0 as u64);
    }
    crate::shareable!();
}
/// The gradient of the logits (input 0) from that of the rows' losses; output `lse` of the node holds log Σ exp.
fn logits_gradient(cx: &Vjp, g: &Tensor, lse: usize, ignore: i64) -> Result<Tensor> {
    let (x, t) = (cx.input(0)?, cx.input(1)?);
    if !crate::mode::grad_enabled() {
        return apply1(CrossEntropyGrad(ignore), &[g, &x, &t, &cx.output(lse)?], Dest::New);
    }
    // To be differentiated again: softmax minus one at the target.
    let p = activation::softmax(&x, 1, None)?;
    let kept = e::to_dtype(&e::ne(&t, ignore)?, x.dtype())?;
    let safe = e::where_(&e::ne(&t, ignore)?, &t, 0)?;
    let hot = e::to_dtype(&indexing::one_hot(&safe, x.sizes()[1])?, x.dtype())?;
    let scale = view::unsqueeze(&e::mul(g, &kept)?, 1)?;
    e::mul(&e::sub(&p, &hot)?, &scale)
}

/// logits (rows, classes), target (rows) → the mean loss of the rows that are not ignored, how many these are, log Σ exp and
/// the loss of each row.
#[derive(Clone)]
struct MeanCrossEntropy(i64);
impl Primitive for MeanCrossEntropy {
    fn name(&self) -> &'static str {
        "cross_entropy_loss"
    }
    fn infer(&self, x: &[&Meta], out: &mut Draft) -> Result<()> {
        let rows = || Dims::from_slice(&x[0].sizes[..1]);
        out.push(Dims::new(), x[0].dtype);
        out.push_constant(Dims::new(), x[0].dtype);
        out.push_constant(rows(), if x[0].dtype == DType::F64 { DType::F64 } else { DType::F32 });
        out.push_constant(rows(), x[0].dtype);
        Ok(())
    }
    fn run(&self, on: &dyn Backend, x: &[Operand], out: &[Operand]) -> Result<()> {
        let [mean, count, lse, losses] = out else { unreachable!("four outputs") };
        on.cross_entropy(&x[0], &x[1], self.0, losses, lse)?;
        let total = |program: &Program, of: &Operand, to: &Operand| {
            let to = Operand { sizes: &[1], strides: &[0], ..*to };
            on.reduce(Reduction::Sum, program, &[*of], 1, &[to])
        };
        let class = mean.dtype.class();
        total(&Program { inputs: &[Input::Operand(class)], steps: &[], results: &[0] }, losses, mean)?;
        // Whether the target counts, as a double: exact however many there are.
        let steps = [
            Step { op: StepOp::Apply(ScalarFn::Ne), class: Class::I64, args: [0, 1, 0, 0] },
            Step { op: StepOp::Convert(DType::Bool, Class::F64), class: Class::I64, args: [2, 0, 0, 0] },
        ];
        let inputs = [Input::Operand(Class::I64), Input::Number(Number::Int(self.0), Class::I64)];
        total(&Program { inputs: &inputs, steps: &steps, results: &[3] }, &x[1], count)?;
        let step = [Step { op: StepOp::Apply(ScalarFn::Div), class, args: [0, 1, 0, 0] }];
        let inputs = [Input::Operand(class), Input::Operand(class)];
        on.map(&Program { inputs: &inputs, steps: &step, results: &[2] }, &[*mean, *count], &[*mean])
    }
    fn saves(&self, _: Mask) -> Mask {
        3 | output_bit(1) | output_bit(2)
    }
    fn vjp(&self, cx: &Vjp, g: &[Option<Tensor>]) -> Result<Gradients> {
        let mut grads: Gradients = SmallVec::from_elem(None, 2);
        let Some(g) = &g[0] else { return Ok(grads) };
        let each = view::expand(&e::div(g, &cx.output(1)?)?, &cx.input(1)?.sizes())?;
        grads[0] = Some(logits_gradient(cx, &each, 2, self.0)?);
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
        out.push(copy_dims(&x[1].sizes), x[1].dtype);
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

fn check(logits: &Tensor, target: &Tensor) -> Result<()> {
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
    Ok(())
}
/// Loss of each row of logits (rows, classes) for class indices (rows), 0 where the target is `ignore`.
///
/// # Errors
/// `Index` for a target outside the classes, `Runtime` for shapes that do not fit.
pub fn cross_entropy_rows(logits: &Tensor, target: &Tensor, ignore: i64) -> Result<Tensor> {
    check(logits, target)?;
    Ok(apply(CrossEntropy(ignore), &[logits, target], Dest::New)?.swap_remove(0))
}
/// The mean of [`cross_entropy_rows`] over targets that are not ignored.
///
/// # Errors
/// As [`cross_entropy_rows`].
pub fn cross_entropy(logits: &Tensor, target: &Tensor, ignore: i64) -> Result<Tensor> {
    check(logits, target)?;
    Ok(apply(MeanCrossEntropy(ignore), &[logits, target], Dest::New)?.swap_remove(0))
}
