//! What an operator says of itself. See [`mod@crate::apply`] for the one way in.

use crate::autograd::node::Vjp;
use crate::tensor::{Meta, Tensor};
use flambeau_core::*;
use std::sync::Arc;

/// How a primitive treats memory; in-place and `out=` forms follow from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// May write its output onto an operand of the same layout.
    Elementwise,
    /// Writes fresh outputs; an output that overlaps an operand goes through a temporary.
    Fresh,
    /// Writes operand 0, which is its only output (index_put, copy). Applied with `Dest::Inplace(operand 0)`.
    Update,
    /// Metadata only: outputs share operand 0's storage.
    View,
}

/// Gradients with respect to the inputs, in order; `None` where there is none.
pub type Gradients = SmallVec<[Option<Tensor>; 4]>;

/// Layout of one output, drawn by `infer`.
#[derive(Clone, Debug)]
pub struct OutputMeta {
    pub sizes: Dims,
    pub strides: Dims,
    pub dtype: DType,
    /// Views: offset into operand 0's storage.
    pub offset: i64,
    /// Whether gradients can flow through this output (indices: no).
    pub differentiable: bool,
    /// Views: what the memory lacks of the values, where that is not what operand 0's lacks.
    pub lazy: Option<u8>,
}

/// Where `infer` draws the outputs.
#[derive(Default)]
pub struct Draft {
    pub outputs: SmallVec<[OutputMeta; 1]>,
}
impl Draft {
    /// A bit for each output that can have a gradient; bit 63 stands for all beyond.
    pub(crate) fn differentiable(&self) -> u64 {
        let mut bits = 0;
        for (i, o) in self.outputs.iter().enumerate() {
            bits |= u64::from(o.differentiable && o.dtype.is_differentiable()) << i.min(63);
        }
        bits
    }
    /// A row-major output.
    pub fn push(&mut self, sizes: impl Into<Dims>, dtype: DType) {
        let sizes = sizes.into();
        let strides = contiguous_strides(&sizes);
        self.push_strided(sizes, strides, dtype);
    }
    /// An output with given strides.
    pub fn push_strided(&mut self, sizes: impl Into<Dims>, strides: impl Into<Dims>, dtype: DType) {
        self.outputs.push(OutputMeta {
            sizes: sizes.into(),
            strides: strides.into(),
            dtype,
            offset: 0,
            differentiable: true,
            lazy: None,
        });
    }
    /// A view of operand 0.
    pub fn push_view(&mut self, sizes: impl Into<Dims>, strides: impl Into<Dims>, offset: i64, dtype: DType) {
        self.outputs.push(OutputMeta {
            sizes: sizes.into(),
            strides: strides.into(),
            dtype,
            offset,
            differentiable: true,
            lazy: None,
        });
    }
    /// A row-major output that is not differentiable, such as indices.
    pub fn push_constant(&mut self, sizes: impl Into<Dims>, dtype: DType) {
        self.push(sizes, dtype);
        if let Some(last) = self.outputs.last_mut() {
            last.differentiable = false;
        }
    }
}

/// Bit mask over inputs (bits 0–15) and outputs (bits 16–31).
pub type Mask = u32;
/// The bit of output `i` in a [`Mask`].
pub const fn output_bit(i: u32) -> Mask {
    1 << (16 + i)
}

/// The canonical form of an operator within a plan: what must be equal for a plan to be used again.
#[derive(Default, Clone, PartialEq, Eq, Hash, Debug)]
pub struct PlanKey(pub Vec<u64>);
impl PlanKey {
    pub fn word(&mut self, x: u64) -> &mut Self {
        self.0.push(x);
        self
    }
    pub fn words(&mut self, xs: &[i64]) -> &mut Self {
        self.0.push(xs.len() as u64);
        self.0.extend(xs.iter().map(|&x| x as u64));
        self
    }
}

/// A primitive operator: shapes, kernel and derivative in one place.
pub trait Primitive: Send + Sync + 'static {
    /// PyTorch's name: `"add"`. The node is `AddBackward0`.
    fn name(&self) -> &'static str;
    /// Draws the outputs; raises every error that metadata can show. Operands are already on one device.
    fn infer(&self, x: &[&Meta], out: &mut Draft) -> Result<()>;
    /// Runs the kernel. Not called for views, nor when every output is empty.
    fn run(&self, on: &dyn Backend, x: &[Operand], out: &[Operand]) -> Result<()>;
    /// How memory is treated.
    fn effect(&self) -> Effect {
        Effect::Fresh
    }
    /// Which inputs and outputs the gradient reads, when the inputs in `needs` require one.
    fn saves(&self, _needs: Mask) -> Mask {
        0
    }
    /// Whether the gradient formally reads the operands' values although [`Primitive::saves`] keeps none of them: as PyTorch's
    /// does for average pooling or padding. With `create_graph` such a gradient requires grad, with derivative zero.
    fn gradient_reads_operands(&self) -> bool {
        false
    }
    /// Whether the gradient only compares what was saved: with `create_graph` it then depends on the outputs' cotangents alone,
    /// and requires grad when they do.
    fn gradient_compares(&self) -> bool {
        false
    }
    /// Whether an operand may not share some, but not all, of its memory with what is written.
    fn refuses_overlap(&self) -> bool {
        self.effect() == Effect::Elementwise
    }
    /// Whether any output can have a gradient.
    fn differentiable(&self) -> bool {
        true
    }
    /// Gradients with respect to the inputs from the outputs' cotangents, built from differentiable operators.
    fn vjp(&self, cx: &Vjp, g: &[Option<Tensor>]) -> Result<Gradients>;
    /// Canonical form for plans: everything that changes the result except numbers that may vary from call to call.
    fn key(&self, key: &mut PlanKey);
    /// Writes the plan's varying numbers; the default has none.
    fn as_map(&self) -> Option<&crate::ops::elementwise::Map> {
        None
    }
    /// For fusion: this primitive as a reduction of its single operand.
    fn as_reduce(&self) -> Option<&crate::ops::reduction::Reduce> {
        None
    }
    /// For fusion: this primitive as a matrix product, whose epilogue takes what follows it element by element.
    fn as_product(&self) -> Option<&dyn Product> {
        None
    }
    /// Multi-output view (split, unbind), on whose outputs PyTorch refuses in-place writes.
    fn is_multi_output_view(&self) -> bool {
        false
    }
    /// Whether an in-place write may go to a tensor whose elements share memory (`expand`).
    fn writes_expanded(&self) -> bool {
        false
    }
    /// A CPU 0-dim operand may meet operands on another device.
    fn allows_cpu_scalars(&self) -> bool {
        false
    }
    /// An own rule for batched operands: `(tensor, batch dimension)` each. `None`: slice and stack.
    fn batch(&self, _x: &[(Tensor, Option<usize>)], _level: u32) -> Option<Result<SmallVec<[(Tensor, usize); 2]>>> {
        None
    }
    /// An own rule for operands of which some are sparse, to a new tensor. `None`: the operator is refused.
    fn sparse(&self, _x: &[&Tensor]) -> Option<Result<Tensor>> {
        None
    }
    /// A copy with the same parameters.
    fn share(&self) -> Arc<dyn Primitive>;
}

/// A primitive with one output, row-major, that is a matrix product.
pub trait Product {
    /// [`Primitive::run`] with the rest of an epilogue.
    fn run_then(&self, on: &dyn Backend, x: &[Operand], out: &[Operand], then: Option<Then>) -> Result<()>;
}

/// Writes `share` for a `Clone` primitive.
#[macro_export]
macro_rules! shareable {
    () => {
        fn share(&self) -> std::sync::Arc<dyn $crate::Primitive> {
            std::sync::Arc::new(self.clone())
        }
    };
}
