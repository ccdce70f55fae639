//! A sparse matrix, given by its rows, applied along a dimension of a dense tensor.

use crate::apply::{apply1, Dest};
use crate::autograd::node::Vjp;
use crate::ops::view;
use crate::primitive::*;
use crate::tensor::{Meta, Tensor};
use flambeau_core::*;

/// Operands: values, and the matrix's starts of rows, columns and weights. `rows` is the size of the result along `dim`.
#[derive(Clone)]
struct Weave {
    dim: usize,
    rows: i64,
    transposed: bool,
}
impl Primitive for Weave {
    fn name(&self) -> &'static str {
        "weave"
    }
    fn infer(&self, x: &[&Meta], out: &mut Draft) -> Result<()> {
        let mut sizes = copy_dims(&x[0].sizes);
        sizes[self.dim] = self.rows;
        out.push(sizes, x[0].dtype);
        Ok(())
    }
    fn run(&self, on: &dyn Backend, x: &[Operand], out: &[Operand]) -> Result<()> {
        on.weave(&x[0], &x[1], &x[2], &x[3], self.dim, self.transposed, &out[0])
    }
    fn saves(&self, _: Mask) -> Mask {
        0b1110
    }
    fn vjp(&self, cx: &Vjp, g: &[Option<Tensor>]) -> Result<Gradients> {
        let mut grads: Gradients = SmallVec::from_elem(None, 4);
        if let (Some(g), true) = (&g[0], cx.needs(0)) {
            let back = Weave { dim: self.dim, rows: cx.info(0).sizes[self.dim], transposed: !self.transposed };
            let g = view::contiguous(g)?;
            grads[0] = Some(apply1(back, &[&g, &cx.input(1)?, &cx.input(2)?, &cx.input(3)?], Dest::New)?);
        }
        Ok(grads)
    }
    fn key(&self, key: &mut PlanKey) {
        key.word(self.dim as u64).word(self.rows as u64).word(self.transposed as u64);
    }
    crate::shareable!();
}

/// `out[j] = Σ weight[k] x[index[k]]` along `dim`, over `k` in `starts[j]..starts[j + 1]`. The matrix is a constant.
///
/// # Errors
/// `Index` for an index out of range, `Runtime` for operands that do not fit.
pub fn weave(x: &Tensor, starts: &Tensor, index: &Tensor, weight: &Tensor, dim: i64) -> Result<Tensor> {
    let d = wrap_dim(dim, x.dim())?;
    ensure!(
        x.dim() > 0 && starts.numel() > 0,
        Runtime,
        "weave: a matrix without rows, or an operand without dimensions"
    );
    let [x, starts, index, weight] =
        [&x.clone(), &starts.detach(), &index.detach(), &weight.detach()].map(view::contiguous);
    let rows = Weave { dim: d, rows: starts.as_ref().map_or(0, |s| s.numel() - 1), transposed: false };
    apply1(rows, &[&x?, &starts?, &index?, &weight?], Dest::New)
}
