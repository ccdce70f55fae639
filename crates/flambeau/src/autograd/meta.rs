//! What autograd keeps on a tensor, and the tensor's autograd methods.

use super::node::{Edge, Node};
use super::view::ViewInfo;
use crate::tensor::{Sparse, Tensor, INFERENCE_TENSOR, REQUIRES_GRAD, VIEW};
use flambeau_core::*;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

/// A hook on a gradient: sees it, and may replace it.
pub type Hook = Arc<dyn Fn(&Tensor) -> Result<Option<Tensor>> + Send + Sync>;
/// A hook that runs after a leaf's gradient was accumulated.
pub type PostHook = Arc<dyn Fn(&Tensor) -> Result<()> + Send + Sync>;
/// Where `retain_grad` puts a non-leaf's gradient.
pub type GradSlot = Arc<Mutex<Option<Tensor>>>;

/// A tensor's place in the graph.
#[derive(Default)]
pub struct AutogradMeta {
    /// Set on leaves only.
    pub requires_grad: bool,
    pub grad: Option<Tensor>,
    /// The node that computed this tensor.
    pub edge: Option<Edge>,
    /// The leaf's accumulation node while the graph holds one.
    pub accumulator: Weak<Node>,
    pub hooks: Vec<(u64, Hook)>,
    pub post_hooks: Vec<(u64, PostHook)>,
    pub retained: Option<GradSlot>,
}

impl AutogradMeta {
    #[inline]
    fn post_hooks(&self) -> Vec<PostHook> {
        self.post_hooks.iter().map(|(_, h)| h.clone()).collect()
    }
}

/// What autograd keeps on a tensor. Views stand beside the graph, in the tensor's own allocation: most have no gradient, and
/// programs make them by the million.
#[derive(Default)]
pub struct Place {
    /// Where a view comes from.
    pub view: Option<ViewInfo>,
    pub graph: Option<Box<AutogradMeta>>,
}

static NEXT_HOOK: AtomicU64 = AtomicU64::new(1);
/// A fresh hook number.
pub fn next_hook_id() -> u64 {
    NEXT_HOOK.fetch_add(1, Ordering::Relaxed)
}

impl Tensor {
    /// Whether gradients flow to or through this tensor.
    #[inline]
    pub fn requires_grad(&self) -> bool {
        let flags = self.flags();
        if flags & REQUIRES_GRAD != 0 {
            return true;
        }
        if let Some(b) = self.as_batched() {
            return b.value.requires_grad();
        }
        if let Some(values) = self.carrier() {
            return values.requires_grad();
        }
        if flags & VIEW != 0 {
            return self.autograd().view.as_ref().is_some_and(|v| v.base.requires_grad());
        }
        false
    }
    /// A tensor that no recorded operator computed.
    pub fn is_leaf(&self) -> bool {
        if let Some(b) = self.as_batched() {
            return b.value.is_leaf();
        }
        if let Some(values) = self.carrier() {
            return values.is_leaf();
        }
        if !self.requires_grad() {
            return true;
        }
        matches!(self.grad_fn(), Ok(None))
    }
    /// Turns gradients of a leaf on or off.
    ///
    /// # Errors
    /// `Runtime` for a non-leaf, for dtypes without gradients, and for inference tensors outside inference mode.
    pub fn set_requires_grad(&self, on: bool) -> Result<()> {
        if let Some(b) = self.as_batched() {
            return b.value.set_requires_grad(on);
        }
        if let Some(values) = self.carrier() {
            return values.set_requires_grad(on);
        }
        if on && !self.dtype().is_differentiable() {
            bail!(Runtime, "only Tensors of floating point and complex dtype can require gradients");
        }
        if on && self.flags() & INFERENCE_TENSOR != 0 && !crate::mode::inference() {
            bail!(Runtime, "Setting requires_grad=True on inference tensor outside InferenceMode is not allowed.");
        }
        if !self.is_leaf() {
            if on {
                return Ok(());
            }
            bail!(
                Runtime,
                "you can only change requires_grad flags of leaf variables. If you want to use a computed variable in a \
                 subgraph that doesn't require differentiation use var_no_grad = var.detach()."
            );
        }
        let mut place = self.autograd();
        if on || place.graph.is_some() {
            place.graph.get_or_insert_with(Default::default).requires_grad = on;
        }
        drop(place);
        self.set_flag(REQUIRES_GRAD, on);
        Ok(())
    }
    /// The accumulated gradient of a leaf, or of a tensor that retains its gradient.
    pub fn grad(&self) -> Option<Tensor> {
        if let Some(s) = self.as_sparse() {
            let values = s.values.grad()?;
            // One object as long as the values are the same, so that what is written to it stays.
            let mut place = self.autograd();
            let meta = place.graph.get_or_insert_with(Default::default);
            if let Some(g) = &meta.grad {
                if g.as_sparse().is_some_and(|g| g.values.is_same(&values)) {
                    return Some(g.clone());
                }
            }
            let made = crate::ops::sparse::gradient(&self.sizes(), &s, values).ok();
            meta.grad.clone_from(&made);
            return made;
        }
        let place = self.autograd();
        let meta = place.graph.as_ref()?;
        match (&meta.grad, &meta.retained) {
            (Some(g), _) => Some(g.clone()),
            (None, Some(slot)) => slot.lock().clone(),
            _ => None,
        }
    }
    /// Replaces the gradient.
    ///
    /// # Errors
    /// `Runtime` when sizes, dtype or device differ from the tensor's.
    pub fn set_grad(&self, grad: Option<Tensor>) -> Result<()> {
        self.take_grad(grad).map(|_| ())
    }
    /// [`Tensor::set_grad`]; gives back the hooks that run after a gradient was accumulated.
    pub(crate) fn take_grad(&self, grad: Option<Tensor>) -> Result<Vec<PostHook>> {
        if let Some(g) = &grad {
            let (a, b) = (self.meta(), g.meta());
            ensure!(
                a.sizes == b.sizes,
                Runtime,
                "assigned grad has data of a different size: expected {}, got {}",
                Shape(&a.sizes),
                Shape(&b.sizes)
            );
            ensure!(
                a.dtype == b.dtype,
                Runtime,
                "assigned grad has data of a different type: expected {}, got {}",
                a.dtype,
                b.dtype
            );
            ensure!(
                a.device() == b.device(),
                Runtime,
                "assigned grad has data located on a different device: expected {}, got {}",
                a.device(),
                b.device()
            );
        }
        if self.is_sparse() {
            crate::ops::sparse::set_gradient(self, grad)?;
            let place = self.autograd();
            return Ok(place.graph.as_ref().map_or_else(Vec::new, |m| m.post_hooks()));
        }
        let mut place = self.autograd();
        if grad.is_none() && place.graph.is_none() {
            return Ok(Vec::new());
        }
        let meta = place.graph.get_or_insert_with(Default::default);
        if let Some(slot) = &meta.retained {
            *slot.lock() = None;
        }
        let old = std::mem::replace(&mut meta.grad, grad);
        let hooks = meta.post_hooks();
        drop(place);
        drop(old);
        Ok(hooks)
    }
    /// The node that computed this tensor, `None` for a leaf. A view whose base was written since is given its node
    /// anew.
    ///
    /// # Errors
    /// `Runtime` when the view was made in a way that forbids writes to its base.
    pub fn grad_fn(&self) -> Result<Option<Edge>> {
        if let Some(values) = self.carrier() {
            return values.grad_fn();
        }
        if self.flags() & VIEW != 0 {
            return super::view::grad_fn(self);
        }
        if self.flags() & REQUIRES_GRAD == 0 {
            return Ok(None);
        }
        Ok(self.autograd().graph.as_ref().and_then(|m| m.edge.clone()))
    }
    /// Where this tensor's gradient goes: its node, or a leaf's accumulator; `None` when it requires none.
    pub fn gradient_edge(&self) -> Result<Option<Edge>> {
        if !self.requires_grad() {
            return Ok(None);
        }
        if let Some(values) = self.carrier() {
            return values.gradient_edge();
        }
        if self.flags() & VIEW != 0 {
            if let Some(edge) = self.grad_fn()? {
                return Ok(Some(edge));
            }
        }
        let mut guard = self.autograd();
        let Place { view, graph } = &mut *guard;
        let meta = graph.get_or_insert_with(Default::default);
        if let (Some(edge), None) = (&meta.edge, &view) {
            return Ok(Some(edge.clone()));
        }
        if let Some(node) = meta.accumulator.upgrade() {
            return Ok(Some(Edge { node, nr: 0 }));
        }
        if view.is_some() && !meta.requires_grad {
            // Made without recording, of a base that requires grad: it counts as requiring one and collects none.
            return Ok(None);
        }
        let info = super::node::InputInfo::of(&self.meta());
        let node = Node::accumulate(self.clone(), info);
        meta.accumulator = Arc::downgrade(&node);
        Ok(Some(Edge { node, nr: 0 }))
    }
    /// [`Tensor::set_edge`] for a tensor that has just been made: without a lock when it has no metadata yet.
    pub(crate) fn set_first_edge(&self, edge: Edge) {
        // SAFETY: the caller alone has this tensor.
        let slot = unsafe { &mut self.unshared_autograd().graph };
        match slot {
            None => {
                *slot = Some(Box::new(AutogradMeta { edge: Some(edge), ..Default::default() }));
                self.set_flags_unshared(self.flags() | REQUIRES_GRAD);
            }
            Some(_) => self.set_edge(edge),
        }
    }
    /// Makes this tensor the output `edge.nr` of `edge.node`.
    pub(crate) fn set_edge(&self, edge: Edge) {
        let mut guard = self.autograd();
        let meta = guard.graph.get_or_insert_with(Default::default);
        if let (Some(slot), node) = (&meta.retained, &edge.node) {
            // `retain_grad` follows the tensor to its new node.
            if let Some(old) = &meta.edge {
                old.node.move_retained(slot, node, edge.nr);
            }
        }
        meta.edge = Some(edge);
        meta.requires_grad = false;
        drop(guard);
        self.set_flag(REQUIRES_GRAD, true);
    }
    /// Adds a hook on this tensor's gradient; returns its number.
    ///
    /// # Errors
    /// `Runtime` when the tensor does not require grad.
    pub fn register_hook(&self, hook: Hook) -> Result<u64> {
        ensure!(self.requires_grad(), Runtime, "cannot register a hook on a tensor that doesn't require gradient");
        if let Some(s) = self.as_sparse() {
            return s.values.register_hook(crate::ops::sparse::hook_on_values(self, &s, hook));
        }
        let id = next_hook_id();
        match self.grad_fn()? {
            Some(edge) => edge.node.add_hook(edge.nr, id, hook),
            None => self.autograd().graph.get_or_insert_with(Default::default).hooks.push((id, hook)),
        }
        Ok(id)
    }
    /// Adds a hook that runs after this leaf's gradient was accumulated.
    ///
    /// # Errors
    /// `Runtime` for a non-leaf or a tensor that does not require grad.
    pub fn register_post_accumulate_grad_hook(&self, hook: PostHook) -> Result<u64> {
        ensure!(self.requires_grad(), Runtime, "cannot register a hook on a tensor that doesn't require gradient");
        ensure!(self.is_leaf(), Runtime, "post accumulate grad hooks cannot be registered on non-leaf tensors");
        if let Some(values) = self.carrier() {
            let this = self.clone();
            return values.register_post_accumulate_grad_hook(Arc::new(move |_| hook(&this)));
        }
        let id = next_hook_id();
        self.autograd().graph.get_or_insert_with(Default::default).post_hooks.push((id, hook));
        Ok(id)
    }
    /// Removes a hook by its number; unknown numbers are ignored.
    pub fn remove_hook(&self, id: u64) {
        if let Some(values) = self.carrier() {
            return values.remove_hook(id);
        }
        if let Some(meta) = self.autograd().graph.as_mut() {
            meta.hooks.retain(|(i, _)| *i != id);
            meta.post_hooks.retain(|(i, _)| *i != id);
            if let Some(edge) = &meta.edge {
                edge.node.remove_hook(id);
            }
        }
    }
    /// Keeps the gradient of a non-leaf in `.grad`.
    ///
    /// # Errors
    /// `Runtime` when the tensor does not require grad.
    pub fn retain_grad(&self) -> Result<()> {
        ensure!(self.requires_grad(), Runtime, "can't retain_grad on Tensor that has requires_grad=False");
        if let Some(values) = self.carrier() {
            return values.retain_grad();
        }
        let Some(edge) = self.grad_fn()? else { return Ok(()) };
        let mut guard = self.autograd();
        let meta = guard.graph.get_or_insert_with(Default::default);
        if meta.retained.is_none() {
            let slot: GradSlot = Arc::default();
            meta.retained = Some(slot.clone());
            edge.node.retain(edge.nr, slot);
        }
        Ok(())
    }
    /// Whether a non-leaf keeps its gradient.
    pub fn retains_grad(&self) -> bool {
        if let Some(values) = self.carrier() {
            return values.retains_grad();
        }
        self.autograd().graph.as_ref().is_some_and(|m| m.retained.is_some())
    }
    /// The tensor that this one is a view of.
    pub fn base(&self) -> Option<Tensor> {
        self.autograd().view.as_ref().map(|v| v.base.clone())
    }
    /// The same memory outside the graph; shares the version counter.
    pub fn detach(&self) -> Tensor {
        if let Some(b) = self.as_batched() {
            return Tensor::batched(&b.value.detach(), b.dim, b.level);
        }
        if let Some(s) = self.as_sparse() {
            return crate::ops::sparse::with_values(&self.sizes(), &s, s.values.detach());
        }
        let meta = self.meta().clone();
        let inference = self.flags() & INFERENCE_TENSOR;
        Tensor::from_meta(meta, inference, None)
    }
    /// Leaves the graph in place.
    ///
    /// # Errors
    /// `Runtime` for a view.
    pub fn detach_in_place(&self) -> Result<()> {
        if let Some(s) = self.as_sparse() {
            self.set_sparse(&self.sizes(), Sparse { values: s.values.detach(), ..(*s).clone() });
            return Ok(());
        }
        if self.flags() & VIEW != 0 && self.base().is_some() {
            bail!(
                Runtime,
                "Can't detach views in-place. Use detach() instead. If you are using DistributedDataParallel (DDP) for \
                 training, and gradient_as_bucket_view is set as True, gradients are views of DDP buckets, and hence \
                 detach_() cannot be called on these gradients. To fix this error, please refer to the \
                 Optimizer.zero_grad() function in torch/optim/optimizer.py as a solution."
            );
        }
        if let Some(meta) = self.autograd().graph.as_mut() {
            meta.edge = None;
            meta.requires_grad = false;
            meta.retained = None;
        }
        self.set_flag(REQUIRES_GRAD, false);
        Ok(())
    }
}
