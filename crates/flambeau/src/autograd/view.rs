//! Views: each knows its base and how to be made from it again, so that a write through one is a write to all.

use super::node::{Edge, InputInfo, Node};
use crate::apply::{apply_shared, Dest};
use crate::primitive::{Draft, Primitive};
use crate::tensor::{Tensor, REQUIRES_GRAD};
use flambeau_core::*;
use std::sync::Arc;

/// One step from a base to a view: the operator, and which of its outputs.
#[derive(Clone)]
pub struct Link {
    pub op: Arc<dyn Primitive>,
    pub output: usize,
}

/// What a view was made under; decides which writes through it are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Creation {
    Default,
    /// One of several outputs of one operator (split, unbind).
    MultiOutput,
    NoGrad,
    Inference,
    /// Returned as a view by a custom function.
    CustomFunction,
}

/// The way from a base to a view; two steps without a heap allocation.
pub type Chain = SmallVec<[Link; 2]>;

/// Where a view comes from.
pub struct ViewInfo {
    pub base: Tensor,
    pub chain: Chain,
    pub creation: Creation,
    /// The version at which the view's node was last made.
    pub version: u32,
}

/// The error of writing through a view that forbids it, `None` for an ordinary view.
pub(crate) fn refusal(view: &ViewInfo, edge: Option<&Edge>, indirect: bool) -> Option<Error> {
    let what = match edge {
        Some(e) => format!("Output {} of {}", e.nr, e.node.name()),
        None => "A view".to_string(),
    };
    let (made, why) = match view.creation {
        Creation::Default => return None,
        Creation::MultiOutput => (
            "",
            "This view is the output of a function that returns multiple views. Such functions do not allow the output views \
             to be modified inplace. You should replace the inplace operation by an out-of-place one.",
        ),
        Creation::NoGrad => (
            " which was created in no_grad mode",
            "Given that this use case is ambiguous and error-prone, it is forbidden. You can clarify your code by moving both \
             the view and the inplace either both inside the no_grad block (if you don't want the inplace to be tracked) or \
             both outside (if you want the inplace to be tracked).",
        ),
        Creation::Inference => (
            " which was created in inference mode",
            "Given that this use case is ambiguous and error-prone, it is forbidden. You can clarify your code by moving both \
             the view and the inplace either both inside the inference_mode block (if you don't want the inplace to be \
             tracked) or both outside (if you want the inplace to be tracked).",
        ),
        Creation::CustomFunction => (
            "",
            "This view was created inside a custom Function (or because an input was returned as-is) and the autograd logic to \
             handle view+inplace would override the custom backward associated with the custom Function, leading to \
             incorrect gradients. This behavior is forbidden. You can fix this by cloning the output of the custom Function.",
        ),
    };
    let of = if indirect { " is a view of a view" } else { " is a view" };
    Some(err!(
        Runtime,
        "{what}{of}{made} and is being {}modified inplace{}. {why}",
        if indirect { "(or its base) " } else { "" },
        if made.is_empty() { "" } else { " with grad mode enabled" }
    ))
}

/// The node of a view, made anew when the family was written since.
pub(crate) fn grad_fn(t: &Tensor) -> Result<Option<Edge>> {
    let (base, chain, edge) = {
        let guard = t.autograd();
        let edge = guard.graph.as_ref().and_then(|m| m.edge.as_ref());
        let Some(view) = &guard.view else { return Ok(edge.cloned()) };
        let stale = view.version != t.version();
        if !stale {
            return Ok(edge.cloned());
        }
        if let Some(e) = refusal(view, edge, true) {
            if edge.is_some() || view.base.requires_grad() {
                return Err(e);
            }
        }
        (view.base.clone(), view.chain.clone(), edge.cloned())
    };
    // A base that has left the graph (`detach_`) leaves the view's node behind, leading nowhere.
    let mut edge_in = base.gradient_edge()?;
    if edge_in.is_none() && edge.is_none() {
        return Ok(None);
    }
    if edge.is_none() && t.autograd().graph.as_ref().is_some_and(|m| m.requires_grad) {
        // A leaf view made in no_grad mode with requires_grad set by hand.
        return Ok(None);
    }
    let mut meta = base.meta().clone();
    for link in &chain {
        let mut draft = Draft::default();
        link.op.infer(&[&meta], &mut draft)?;
        let node = Node::op(link.op.clone(), 1, |node| {
            node.inputs.push(InputInfo::of(&meta));
            node.edges.push(edge_in);
            for o in &draft.outputs {
                node.outputs.push(InputInfo { sizes: copy_dims(&o.sizes), dtype: o.dtype, device: meta.device() });
            }
            Ok(())
        })?;
        edge_in = Some(Edge { node, nr: link.output as u32 });
        let o = &draft.outputs[link.output];
        meta.sizes = copy_dims(&o.sizes);
        meta.strides = copy_dims(&o.strides);
        meta.offset = o.offset;
        meta.dtype = o.dtype;
        meta.lazy = o.lazy.unwrap_or(meta.lazy);
    }
    let Some(edge) = edge_in else { return Ok(edge) };
    t.set_edge(edge.clone());
    if let Some(v) = t.autograd().view.as_mut() {
        v.version = t.version();
    }
    Ok(Some(edge))
}

/// Notes that `t` was just written in place by `node`.
pub(crate) fn rebase(t: &Tensor, node: Arc<Node>, self_index: Option<usize>) -> Result<()> {
    let view = t.autograd().view.as_ref().map(|v| (v.base.clone(), v.chain.clone()));
    let Some((base, chain)) = view else {
        t.set_edge(Edge { node, nr: 0 });
        return Ok(());
    };
    let base_edge = base.gradient_edge()?;
    let mut edges: SmallVec<[Option<Edge>; 2]> = SmallVec::new();
    edges.push(base_edge);
    for (i, e) in node.edges.iter().enumerate() {
        if Some(i) != self_index {
            edges.push(e.clone());
        }
    }
    let info = InputInfo::of(&base.meta());
    let copy = Node::copy_slices(info, edges, chain, node, self_index);
    base.set_edge(Edge { node: copy, nr: 0 });
    t.set_flag(REQUIRES_GRAD, true);
    // Make the view's node anew over the base's new one, whatever was made of it while the write was recorded.
    if let Some(v) = t.autograd().view.as_mut() {
        v.version = v.version.wrapping_sub(1);
    }
    t.grad_fn()?;
    Ok(())
}

/// The view at the end of `chain`.
pub(crate) fn replay(chain: &[Link], base: &Tensor) -> Result<Tensor> {
    let mut t = base.clone();
    for link in chain {
        t = apply_shared(link.op.clone(), &[&t], Dest::New)?.swap_remove(link.output);
    }
    Ok(t)
}

/// The gradient through a write to a view, from the base's side: outside the view it passes on, inside it goes through
/// the write's own gradient.
pub(crate) fn copy_slices_backward(
    chain: &[Link],
    function: &Arc<Node>,
    self_index: Option<usize>,
    g: &Tensor,
    retain: bool,
) -> Result<SmallVec<[Option<Tensor>; 4]>> {
    use crate::ops;
    let result = ops::view::clone(g)?;
    let part = replay(chain, &result)?;
    let inner = function.apply(std::iter::once(Some(ops::view::clone(&part)?)).collect(), retain)?;
    let mut out: SmallVec<[Option<Tensor>; 4]> = SmallVec::new();
    out.push(None);
    let mut own = None;
    for (i, g) in inner.into_iter().enumerate() {
        if Some(i) == self_index {
            own = g;
        } else {
            out.push(g);
        }
    }
    match own {
        Some(own) => ops::elementwise::copy_(&part, &own)?,
        None => ops::elementwise::fill_(&part, Number::Int(0))?,
    };
    out[0] = Some(result);
    Ok(out)
}

/// Extends the chain of a view by one operator that changed its metadata in place (`unsqueeze_`).
pub(crate) fn extend_chain(t: &Tensor, link: Link) {
    let version = t.version();
    if let Some(v) = t.autograd().view.as_mut() {
        v.chain.push(link);
        v.version = version;
    }
}
