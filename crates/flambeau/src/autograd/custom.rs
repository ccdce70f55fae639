//! Custom functions: linking their outputs into the graph.

use super::node::{Backward, Edge, InputInfo, Node};
use super::view;
use crate::apply::check_inplace;
use crate::mode;
use crate::tensor::{Meta, Tensor};
use flambeau_core::*;
use std::sync::atomic::AtomicU32;
use std::sync::Arc;

/// What an output of a custom function is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CustomOutput {
    /// A tensor of its own.
    Fresh,
    /// An input that the function wrote in place.
    Dirty,
    /// An input returned as it is: becomes a view of itself.
    Input,
    /// Carries no gradient.
    Constant,
}

/// Makes a node for a custom function and links `outputs` to it. `function` is built with the outputs' metadata in hand.
/// Returns the outputs as the caller is to see them, and the node when gradients are recorded.
///
/// # Errors
/// `Runtime` for in-place writes that autograd refuses.
pub fn link(
    inputs: &[&Tensor],
    outputs: &[(Tensor, CustomOutput)],
    function: impl FnOnce(&[InputInfo]) -> Box<dyn Backward>,
) -> Result<(Vec<Tensor>, Option<Arc<Node>>)> {
    let records = mode::grad_enabled() && inputs.iter().any(|t| t.requires_grad());
    let mut results = Vec::with_capacity(outputs.len());
    for (t, kind) in outputs {
        results.push(match kind {
            CustomOutput::Input => {
                let _off = mode::no_grad();
                crate::ops::view::view(t, &t.sizes())?
            }
            CustomOutput::Dirty => {
                if records {
                    check_inplace(t, true)?;
                }
                t.clone()
            }
            CustomOutput::Constant | CustomOutput::Fresh => t.clone(),
        });
    }
    if !records {
        return Ok((results, None));
    }
    let mut edges: SmallVec<[Option<Edge>; 2]> = SmallVec::new();
    let mut needs = 0;
    for (i, t) in inputs.iter().enumerate() {
        edges.push(t.gradient_edge()?);
        if t.requires_grad() {
            needs |= 1 << i.min(15);
        }
    }
    let infos: SmallVec<[InputInfo; 1]> = results.iter().map(|t| InputInfo::of(&t.meta())).collect();
    let boxed = function(&infos);
    let node = Node::custom(boxed, needs, edges, infos);
    for (nr, (t, (_, kind))) in results.iter().zip(outputs).enumerate() {
        if !t.dtype().is_differentiable() {
            continue;
        }
        match kind {
            CustomOutput::Constant => {}
            CustomOutput::Dirty => {
                let own = inputs.iter().position(|i| i.is_same(t));
                if nr == 0 {
                    view::rebase(t, node.clone(), own)?;
                } else {
                    t.set_edge(Edge { node: node.clone(), nr: nr as u32 });
                }
            }
            CustomOutput::Input | CustomOutput::Fresh => {
                // Leaves made inside the forward must not pass as leaves any more.
                t.set_edge(Edge { node: node.clone(), nr: nr as u32 });
                if let Some(v) = t.autograd().view.as_mut() {
                    v.creation = view::Creation::CustomFunction;
                    v.version = t.version();
                }
            }
        }
    }
    Ok((results, Some(node)))
}

impl Tensor {
    /// The same memory outside the graph with a version counter of its own (`x.data`).
    pub fn data(&self) -> Tensor {
        let t = self.detach();
        if t.is_sparse() {
            return t;
        }
        t.set_meta(|m: &mut Meta| m.version = Some(Arc::new(AtomicU32::new(0))));
        t
    }
    /// Takes over another tensor's memory and layout (`x.data = y`); the place in the graph stays.
    ///
    /// # Errors
    /// `Runtime` when the other tensor's dtype cannot carry the gradient that this one requires.
    pub fn set_data(&self, other: &Tensor) -> Result<()> {
        ensure!(
            !self.requires_grad() || other.dtype().is_differentiable(),
            Runtime,
            "data set to a tensor that requires gradients must be floating point or complex dtype"
        );
        ensure!(
            self.is_sparse() == other.is_sparse(),
            Runtime,
            "Attempted to call `variable.set_data(tensor)`, but `variable` and `tensor` have incompatible tensor type."
        );
        if let (Some(mine), Some(theirs)) = (self.as_sparse(), other.as_sparse()) {
            let values = theirs.values.detach();
            if mine.values.requires_grad() {
                values.set_requires_grad(true)?;
            }
            self.set_sparse(&other.sizes(), crate::tensor::Sparse { values, ..(*theirs).clone() });
            return Ok(());
        }
        let new = other.meta().clone();
        let version = self.version();
        self.set_meta(|m| {
            *m = new;
            m.version = Some(Arc::new(AtomicU32::new(version)));
        });
        Ok(())
    }
    /// Which output of its node this tensor is.
    pub fn output_nr(&self) -> u32 {
        self.grad_fn().ok().flatten().map_or(0, |e| e.nr)
    }
}

/// A detached tensor seen as output `nr` of `node`: a saved output on its way to a custom backward.
pub fn with_node(t: &Tensor, node: Arc<Node>, nr: u32) -> Tensor {
    let out = t.detach();
    if out.dtype().is_differentiable() {
        out.set_edge(Edge { node, nr });
    }
    out
}
