//! The values that a mask selects, as a primitive: their number is found first, so that the result has its size.

use crate::apply::{apply1, Dest};
use crate::autograd::node::Vjp;
use crate::ops::{factory, indexing};
use crate::primitive::*;
use crate::tensor::{Meta, Tensor};
use flambeau_core::*;

/// Operands: the values, and a bool mask of the same sizes that holds `count` times.
#[derive(Clone)]
struct MaskedSelect {
    count: i64,
    /// PyTorch's name of what was called: indexing by a mask, or `masked_select`.
    name: &'static str,
}
impl Primitive for MaskedSelect {
    fn name(&self) -> &'static str {
        self.name
    }
    fn infer(&self, x: &[&Meta], out: &mut Draft) -> Result<()> {
        out.push([self.count].as_slice(), x[0].dtype);
        Ok(())
    }
    fn run(&self, on: &dyn Backend, x: &[Operand], out: &[Operand]) -> Result<()> {
        on.masked_select(&x[0], &x[1], &out[0])
    }
    fn saves(&self, _: Mask) -> Mask {
        2
    }
    fn vjp(&self, cx: &Vjp, g: &[Option<Tensor>]) -> Result<Gradients> {
        let mut grads: Gradients = SmallVec::from_elem(None, cx.len());
        if let (Some(g), true) = (&g[0], cx.needs(0)) {
            let zeros = factory::zeros(&cx.info(0).sizes, g.dtype(), g.device())?;
            grads[0] = Some(indexing::masked_scatter(&zeros, &cx.input(1)?, g, Dest::New)?);
        }
        Ok(grads)
    }
    fn key(&self, key: &mut PlanKey) {
        key.word(self.count as u64).word(self.name.len() as u64);
    }
    crate::shareable!();
}

/// The values of `x` where `mask`, a bool tensor of the same sizes, holds; `None` where the general rule for indexing has
/// to do it: on devices, and inside `vmap`.
///
/// # Errors
/// The failure of a pending computation.
pub(super) fn select(x: &Tensor, mask: &Tensor, name: &'static str) -> Result<Option<Tensor>> {
    let here = |t: &Tensor| t.device() == Device::Cpu && t.as_batched().is_none();
    if mask.dtype() != DType::Bool || !here(x) || !here(mask) || x.dim() == 0 || x.sizes() != mask.sizes() {
        return Ok(None);
    }
    let count = crate::apply::backend(Device::Cpu)?.count_nonzero(&mask.detach().meta().operand()?)?;
    apply1(MaskedSelect { count, name }, &[x, mask], Dest::New).map(Some)
}
