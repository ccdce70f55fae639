//! Nodes of the backward graph.

use super::meta::{GradSlot, Hook};
use super::view::Chain;
use super::watch;
use crate::primitive::{output_bit, Mask, Primitive};
use crate::tensor::{Meta, Tensor, BATCHED, INFERENCE_TENSOR, REQUIRES_GRAD, VIEW};
use flambeau_core::*;
use parking_lot::{Mutex, MutexGuard};
use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;

/// An output of a node: where a gradient is sent.
#[derive(Clone)]
pub struct Edge {
    pub node: Arc<Node>,
    /// Which output of the forward operator.
    pub nr: u32,
}

/// What is always kept of an input or output: enough to undo broadcasting and conversions.
#[derive(Clone)]
pub struct InputInfo {
    pub sizes: Dims,
    pub dtype: DType,
    pub device: Device,
}
impl InputInfo {
    #[inline]
    pub fn of(meta: &Meta) -> Self {
        InputInfo { sizes: copy_dims(&meta.sizes), dtype: meta.dtype, device: meta.device() }
    }
}

/// A backward function outside the table of primitives: Python's and Rust's custom functions.
pub trait Backward: Send + Sync {
    /// The node's name, `"MyFunctionBackward"`.
    fn name(&self) -> String;
    /// Gradients for the inputs from the outputs' gradients.
    fn apply(&self, g: Vec<Option<Tensor>>, needs: Mask) -> Result<Vec<Option<Tensor>>>;
    /// Lets saved values go after a backward without `retain_graph`.
    fn release(&self) {}
    /// The custom function's own object, for the binding.
    fn as_any(&self) -> &dyn std::any::Any;
}

pub(crate) enum Function {
    /// A primitive's vjp.
    Op {
        op: Arc<dyn Primitive>,
        needs: Mask,
    },
    /// Adds to a leaf's gradient.
    Accumulate(Tensor),
    /// An in-place write through a view, seen from the base.
    CopySlices(Box<CopySlices>),
    Custom {
        function: Box<dyn Backward>,
        needs: Mask,
    },
}

pub(crate) struct CopySlices {
    chain: Chain,
    function: Arc<Node>,
    self_index: Option<usize>,
}

pub(crate) enum Saved {
    Kept(SmallVec<[SavedTensor; 2]>),
    Released,
}

pub(crate) struct SavedTensor {
    /// Bit in the operator's save mask.
    bit: Mask,
    tensor: Tensor,
    version: u32,
    /// What hooks on saved tensors keep instead of the tensor.
    packed: Option<watch::Unpack>,
}

/// A hook on a node before it runs: sees the gradients of its outputs, and may replace them.
pub type PreHook = Arc<dyn Fn(&[Option<Tensor>]) -> Result<Option<Vec<Option<Tensor>>>> + Send + Sync>;
/// A hook on a node after it ran: sees the gradients of its inputs and of its outputs, and may replace the former.
pub type PostNodeHook =
    Arc<dyn Fn(&[Option<Tensor>], &[Option<Tensor>]) -> Result<Option<Vec<Option<Tensor>>>> + Send + Sync>;
/// What somebody keeps with a node.
pub type Attachment = Arc<dyn std::any::Any + Send + Sync>;

/// A recorded operator: how to send gradients from its outputs to its inputs.
pub struct Node {
    /// Order of creation in the thread; the engine runs later nodes first.
    pub(crate) seq: u64,
    pub(crate) function: Function,
    /// Of an operator's operands; empty for other functions.
    inputs: SmallVec<[InputInfo; 2]>,
    pub(crate) edges: SmallVec<[Option<Edge>; 2]>,
    pub(crate) outputs: SmallVec<[InputInfo; 1]>,
    saved: Mutex<Saved>,
    hooks: Mutex<Option<Box<NodeHooks>>>,
    /// Whether anybody ever asked for `hooks`: most nodes never get any, and are spared the lock.
    hooked: AtomicBool,
    /// Which backward pass is at this node and under which number; see the engine.
    pub(crate) mark: AtomicU64,
}

/// The parts of a node that are filled while it is made, in place.
pub(crate) struct Parts<'a> {
    pub inputs: &'a mut SmallVec<[InputInfo; 2]>,
    pub edges: &'a mut SmallVec<[Option<Edge>; 2]>,
    pub outputs: &'a mut SmallVec<[InputInfo; 1]>,
    pub saved: &'a mut SmallVec<[SavedTensor; 2]>,
}

#[derive(Default)]
struct NodeHooks {
    tensor: Vec<(u32, u64, Hook)>,
    retained: Vec<(u32, GradSlot)>,
    pre: Vec<(u64, PreHook)>,
    post: Vec<(u64, PostNodeHook)>,
    attachment: Option<Attachment>,
    trace: Option<String>,
}

thread_local! {
    static SEQ: Cell<u64> = const { Cell::new(0) };
    static DROPPING: Cell<bool> = const { Cell::new(false) };
    // What nodes let go of, dropped one after the other: a chain of a million nodes must not recurse.
    static DROPS: RefCell<Vec<Debris>> = const { RefCell::new(Vec::new()) };
}
#[allow(dead_code)] // held only to be dropped later
enum Debris {
    Node(Arc<Node>),
    Saved(Tensor),
}

fn next_seq() -> u64 {
    SEQ.with(|s| {
        s.set(s.get() + 1);
        s.get()
    })
}

/// What a primitive's `vjp` can see.
pub struct Vjp<'a> {
    pub(crate) values: SmallVec<[(Mask, Tensor); 3]>,
    pub(crate) inputs: &'a [InputInfo],
    pub(crate) outputs: &'a [InputInfo],
    pub(crate) needs: Mask,
}
impl Vjp<'_> {
    /// A saved input.
    pub fn input(&self, i: usize) -> Result<Tensor> {
        self.find(1 << i)
    }
    /// A saved output.
    pub fn output(&self, i: usize) -> Result<Tensor> {
        self.find(output_bit(i as u32))
    }
    fn find(&self, bit: Mask) -> Result<Tensor> {
        match self.values.iter().find(|(b, _)| *b == bit) {
            Some((_, t)) => Ok(t.clone()),
            None => Err(err!(Runtime, "a gradient formula reads a value that its operator did not save")),
        }
    }
    /// Whether input `i` wants a gradient.
    pub fn needs(&self, i: usize) -> bool {
        self.needs & (1 << i) != 0
    }
    /// The whole mask of wanted gradients.
    pub fn needs_mask(&self) -> Mask {
        self.needs
    }
    /// Sizes, dtype and device of input `i`.
    pub fn info(&self, i: usize) -> &InputInfo {
        &self.inputs[i]
    }
    /// Number of inputs.
    pub fn len(&self) -> usize {
        self.inputs.len()
    }
    /// Whether there are no inputs.
    pub fn is_empty(&self) -> bool {
        self.inputs.is_empty()
    }
    /// Sizes, dtype and device of output `i`.
    pub fn output_info(&self, i: usize) -> &InputInfo {
        &self.outputs[i]
    }
}

impl Node {
    /// A node of `function` whose parts `fill` writes where they will stay: nodes are made by the million, and moving
    /// their metadata about would cost as much as computing it.
    fn build(function: Function, seq: u64, fill: impl FnOnce(Parts) -> Result<()>) -> Result<Arc<Node>> {
        let mut node = Arc::<Node>::new_uninit();
        let Some(slot) = Arc::get_mut(&mut node) else { unreachable!("a node that nobody else has seen") };
        let p = slot.as_mut_ptr();
        // SAFETY: `p` points to memory for a `Node` that nobody else knows; every field is written before any is read.
        let node = unsafe {
            (&raw mut (*p).seq).write(seq);
            (&raw mut (*p).function).write(function);
            (&raw mut (*p).inputs).write(SmallVec::new());
            (&raw mut (*p).edges).write(SmallVec::new());
            (&raw mut (*p).outputs).write(SmallVec::new());
            (&raw mut (*p).saved).write(Mutex::new(Saved::Kept(SmallVec::new())));
            (&raw mut (*p).hooks).write(Mutex::new(None));
            (&raw mut (*p).hooked).write(AtomicBool::new(false));
            (&raw mut (*p).mark).write(AtomicU64::new(0));
            let node = node.assume_init();
            let Node { inputs, edges, outputs, saved, .. } = &mut *p;
            if let Saved::Kept(saved) = saved.get_mut() {
                fill(Parts { inputs, edges, outputs, saved })?;
            }
            node
        };
        Ok(node)
    }
    fn new(
        function: Function,
        edges: SmallVec<[Option<Edge>; 2]>,
        outputs: SmallVec<[InputInfo; 1]>,
        seq: u64,
    ) -> Arc<Node> {
        Arc::new(Node {
            seq,
            function,
            inputs: SmallVec::new(),
            edges,
            outputs,
            saved: Mutex::new(Saved::Kept(SmallVec::new())),
            hooks: Mutex::new(None),
            hooked: AtomicBool::new(false),
            mark: AtomicU64::new(0),
        })
    }
    pub(crate) fn accumulate(variable: Tensor, info: InputInfo) -> Arc<Node> {
        // Leaves first: their gradients are complete as soon as they arrive, and can be let go.
        Node::new(Function::Accumulate(variable), SmallVec::new(), SmallVec::from_buf([info]), u64::MAX)
    }
    /// The node of a primitive.
    ///
    /// # Errors
    /// Those of `fill`.
    #[inline]
    pub(crate) fn op(op: Arc<dyn Primitive>, needs: Mask, fill: impl FnOnce(Parts) -> Result<()>) -> Result<Arc<Node>> {
        let mut node = Node::build(Function::Op { op, needs }, next_seq(), fill)?;
        if crate::mode::current() & crate::mode::WATCHED != 0 {
            if let Some(node) = Arc::get_mut(&mut node) {
                node.watch()?;
            }
        }
        Ok(node)
    }
    /// Lets hooks pack what a node has saved, and remembers where it was made.
    #[cold]
    fn watch(&mut self) -> Result<()> {
        if let Saved::Kept(list) = self.saved.get_mut() {
            for s in list.iter_mut() {
                if let Some(packed) = watch::pack(&s.tensor)? {
                    s.tensor = crate::ops::factory::empty(&[0], s.tensor.dtype(), Device::Cpu)?;
                    s.packed = Some(packed);
                }
            }
        }
        self.remember_trace();
        Ok(())
    }
    fn remember_trace(&mut self) {
        if let Some(trace) = watch::trace() {
            *self.hooked.get_mut() = true;
            self.hooks.get_mut().get_or_insert_with(Default::default).trace = Some(trace);
        }
    }
    /// The stack at which this node was made, in anomaly mode.
    pub(crate) fn trace(&self) -> Option<String> {
        self.hooks.lock().as_ref().and_then(|h| h.trace.clone())
    }
    /// Adds a hook that runs before this node; returns its number.
    pub fn add_pre_hook(&self, hook: PreHook) -> u64 {
        let id = super::meta::next_hook_id();
        self.hooks_mut().get_or_insert_with(Default::default).pre.push((id, hook));
        id
    }
    /// Adds a hook that runs after this node; returns its number.
    pub fn add_post_hook(&self, hook: PostNodeHook) -> u64 {
        let id = super::meta::next_hook_id();
        self.hooks_mut().get_or_insert_with(Default::default).post.push((id, hook));
        id
    }
    /// What is kept with this node under the binding's care, made by `make` when there is nothing yet.
    pub fn attachment(&self, make: impl FnOnce() -> Attachment) -> Attachment {
        self.hooks_mut().get_or_insert_with(Default::default).attachment.get_or_insert_with(make).clone()
    }
    fn hooks_mut(&self) -> MutexGuard<'_, Option<Box<NodeHooks>>> {
        let guard = self.hooks.lock();
        self.hooked.store(true, Ordering::Release);
        guard
    }
    /// The hooks before and after this node.
    fn call_hooks(&self) -> (Vec<PreHook>, Vec<PostNodeHook>) {
        if !self.hooked.load(Ordering::Acquire) {
            return (Vec::new(), Vec::new());
        }
        match self.hooks.lock().as_ref() {
            Some(h) => (h.pre.iter().map(|h| h.1.clone()).collect(), h.post.iter().map(|h| h.1.clone()).collect()),
            None => (Vec::new(), Vec::new()),
        }
    }
    /// Sends gradients through this node: its own hooks before and after, anomalies found.
    pub(crate) fn call(
        self: &Arc<Self>,
        mut g: SmallVec<[Option<Tensor>; 1]>,
        retain: bool,
    ) -> Result<SmallVec<[Option<Tensor>; 4]>> {
        let (pre, post) = self.call_hooks();
        for hook in pre {
            if let Some(new) = hook(&g)? {
                replace(&mut g, new, "prehook")?;
            }
        }
        let arrived = if post.is_empty() { SmallVec::new() } else { g.clone() };
        let sent = self.apply(g, retain).and_then(|sent| watch::check_nan(self, &sent).map(|()| sent));
        let mut sent = sent.inspect_err(|_| watch::failed(self))?;
        for hook in post {
            sent.resize(self.edges.len().max(sent.len()), None);
            if let Some(new) = hook(&sent, &arrived)? {
                replace(&mut sent, new, "hook")?;
            }
        }
        Ok(sent)
    }
    /// Accumulates into a leaf, the node's own hooks before and after.
    pub(crate) fn call_leaf(
        &self,
        mut g: SmallVec<[Option<Tensor>; 1]>,
        accumulate: impl FnOnce(Tensor) -> Result<()>,
    ) -> Result<()> {
        let (pre, post) = self.call_hooks();
        for hook in pre {
            if let Some(new) = hook(&g)? {
                replace(&mut g, new, "prehook")?;
            }
        }
        let arrived = if post.is_empty() { SmallVec::new() } else { g.clone() };
        if let Some(g) = g.first_mut().and_then(Option::take) {
            accumulate(g)?;
        }
        for hook in post {
            hook(&[], &arrived)?;
        }
        Ok(())
    }
    /// A tensor that this node saved, by its bit in the operator's mask; `None` when it saved no such thing.
    ///
    /// # Errors
    /// As reading it in a backward pass: written since, or freed.
    pub fn saved(self: &Arc<Self>, bit: Mask) -> Result<Option<Tensor>> {
        let Function::Op { op, .. } = &self.function else { return Ok(None) };
        let mut values = SmallVec::new();
        self.unpack(&**op, true, true, &mut values)?;
        Ok(values.into_iter().find(|(b, _)| *b == bit).map(|(_, t)| t))
    }
    /// The node of a primitive with one operand and one output that saves nothing.
    pub(crate) fn unary(op: Arc<dyn Primitive>, input: InputInfo, edge: Edge, output: InputInfo) -> Arc<Node> {
        let mut node = Node::new(
            Function::Op { op, needs: 1 },
            SmallVec::from_iter([Some(edge)]),
            SmallVec::from_buf([output]),
            next_seq(),
        );
        if let Some(node) = Arc::get_mut(&mut node) {
            node.inputs.push(input);
        }
        node
    }
    pub(crate) fn copy_slices(
        base: InputInfo,
        edges: SmallVec<[Option<Edge>; 2]>,
        chain: Chain,
        function: Arc<Node>,
        self_index: Option<usize>,
    ) -> Arc<Node> {
        let seq = function.seq;
        let function = Function::CopySlices(Box::new(CopySlices { chain, function, self_index }));
        Node::new(function, edges, SmallVec::from_buf([base]), seq)
    }
    /// A node for a custom function whose outputs have the given metadata.
    pub fn custom(
        function: Box<dyn Backward>,
        needs: Mask,
        edges: SmallVec<[Option<Edge>; 2]>,
        outputs: SmallVec<[InputInfo; 1]>,
    ) -> Arc<Node> {
        let mut node = Node::new(Function::Custom { function, needs }, edges, outputs, next_seq());
        if crate::mode::current() & crate::mode::WATCHED != 0 {
            if let Some(node) = Arc::get_mut(&mut node) {
                node.remember_trace();
            }
        }
        node
    }
    /// The custom function behind this node.
    pub fn custom_function(&self) -> Option<&dyn Backward> {
        match &self.function {
            Function::Custom { function, .. } => Some(&**function),
            _ => None,
        }
    }
    /// The leaf behind an accumulation node.
    pub fn variable(&self) -> Option<&Tensor> {
        match &self.function {
            Function::Accumulate(t) => Some(t),
            _ => None,
        }
    }
    /// `"AddBackward0"`, `"AccumulateGrad"`.
    pub fn name(&self) -> String {
        match &self.function {
            Function::Op { op, .. } => {
                let mut out = String::new();
                let name = match op.name() {
                    "bmm" if self.inputs.first().is_some_and(|x| x.sizes.len() == 2) => "mm",
                    "square" => "pow",
                    "log1p" => "log1_p",
                    other => other,
                };
                for part in name.split(['_', '.']).filter(|p| !p.is_empty()) {
                    let mut chars = part.chars();
                    out.extend(chars.next().map(|c| c.to_ascii_uppercase()));
                    out.push_str(chars.as_str());
                }
                out + "Backward0"
            }
            Function::Accumulate(_) => "AccumulateGrad".into(),
            Function::CopySlices(_) => "CopySlices".into(),
            Function::Custom { function, .. } => function.name(),
        }
    }
    /// Sizes, dtype and device of each output.
    pub fn outputs(&self) -> &[InputInfo] {
        &self.outputs
    }
    /// The edges to the inputs' nodes.
    pub fn next_functions(&self) -> &[Option<Edge>] {
        &self.edges
    }
    pub(crate) fn add_hook(&self, nr: u32, id: u64, hook: Hook) {
        self.hooks_mut().get_or_insert_with(Default::default).tensor.push((nr, id, hook));
    }
    /// Removes a hook by its number; unknown numbers are ignored.
    pub fn remove_hook(&self, id: u64) {
        if let Some(h) = self.hooks.lock().as_mut() {
            h.tensor.retain(|(_, i, _)| *i != id);
            h.pre.retain(|(i, _)| *i != id);
            h.post.retain(|(i, _)| *i != id);
        }
    }
    pub(crate) fn retain(&self, nr: u32, slot: GradSlot) {
        self.hooks_mut().get_or_insert_with(Default::default).retained.push((nr, slot));
    }
    pub(crate) fn move_retained(&self, slot: &GradSlot, to: &Arc<Node>, nr: u32) {
        if let Some(h) = self.hooks.lock().as_mut() {
            h.retained.retain(|(_, s)| !Arc::ptr_eq(s, slot));
        }
        to.retain(nr, slot.clone());
    }
    /// Runs the hooks on the gradients that arrived.
    pub(crate) fn run_hooks(&self, g: &mut [Option<Tensor>]) -> Result<()> {
        if let Function::Accumulate(leaf) = &self.function {
            let hooks: Vec<Hook> = match leaf.autograd().graph.as_ref() {
                Some(m) if !m.hooks.is_empty() => m.hooks.iter().map(|(_, h)| h.clone()).collect(),
                _ => return Ok(()),
            };
            for hook in hooks {
                call_hook(&hook, &mut g[0])?;
            }
            return Ok(());
        }
        if !self.hooked.load(Ordering::Acquire) {
            return Ok(());
        }
        let (tensor, retained) = match self.hooks.lock().as_ref() {
            Some(h) => (h.tensor.clone(), h.retained.clone()),
            None => return Ok(()),
        };
        for (nr, _, hook) in tensor {
            call_hook(&hook, &mut g[nr as usize])?;
        }
        for (nr, slot) in retained {
            if let Some(g) = &g[nr as usize] {
                let mut slot = slot.lock();
                *slot = Some(match slot.take() {
                    Some(old) => crate::ops::elementwise::add(&old, g)?,
                    None => g.clone(),
                });
            }
        }
        Ok(())
    }
    /// Sends gradients through this node.
    pub(crate) fn apply(
        self: &Arc<Self>,
        g: SmallVec<[Option<Tensor>; 1]>,
        retain: bool,
    ) -> Result<SmallVec<[Option<Tensor>; 4]>> {
        match &self.function {
            Function::Op { op, needs } => {
                let mut cx =
                    Vjp { values: SmallVec::new(), inputs: &self.inputs, outputs: &self.outputs, needs: *needs };
                let recording = crate::mode::grad_enabled();
                self.unpack(&**op, retain, recording, &mut cx.values)?;
                if g.iter().all(Option::is_none) {
                    return Ok(SmallVec::from_elem(None, self.inputs.len()));
                }
                let tied = recording
                    && (op.gradient_reads_operands()
                        || (!op.gradient_compares()
                            && cx.values.iter().any(|(bit, t)| {
                                t.dtype().is_differentiable()
                                    && self.edges.get(bit.trailing_zeros() as usize).is_none_or(Option::is_some)
                            })));
                let mut grads = op.vjp(&cx, &g)?;
                if tied {
                    for g in grads.iter_mut().flatten() {
                        if !g.requires_grad() && g.dtype().is_differentiable() {
                            *g = self.tie(g)?;
                        }
                    }
                }
                Ok(grads)
            }
            Function::Accumulate(_) => Ok(SmallVec::new()),
            Function::CopySlices(copy) => {
                let Some(Some(g)) = g.into_iter().next() else {
                    return Ok(SmallVec::from_elem(None, self.edges.len()));
                };
                super::view::copy_slices_backward(&copy.chain, &copy.function, copy.self_index, &g, retain)
            }
            Function::Custom { function, needs } => {
                let out = function.apply(g.into_iter().collect(), *needs)?;
                if !retain {
                    function.release();
                }
                Ok(out.into_iter().collect())
            }
        }
    }
    /// A gradient that was computed from operands without depending on them (a step function's), made to lead to them with
    /// derivative zero: under `create_graph` whether a gradient requires grad is told by what its formula reads.
    fn tie(&self, g: &Tensor) -> Result<Tensor> {
        let node = Node::op(Arc::new(ZeroDerivative), u32::MAX, |node| {
            for (info, edge) in self.inputs.iter().zip(&self.edges) {
                if info.dtype.is_differentiable() && edge.is_some() {
                    node.inputs.push(info.clone());
                    node.edges.push(edge.clone());
                }
            }
            node.outputs.push(InputInfo::of(&g.meta()));
            Ok(())
        })?;
        if node.edges.is_empty() {
            return Ok(g.clone());
        }
        let alias = Tensor::from_meta(g.meta().clone(), 0, None);
        alias.set_edge(Edge { node, nr: 0 });
        Ok(alias)
    }
    /// What a hook gave back for a saved tensor, in the saved tensor's place in the graph.
    fn unpacked(self: &Arc<Self>, bit: Mask, t: &Tensor) -> Tensor {
        let alias = Tensor::from_meta(t.detach().meta().clone(), 0, None);
        let edge = if bit >> 16 != 0 {
            Some(Edge { node: self.clone(), nr: bit.trailing_zeros() - 16 })
        } else {
            self.edges.get(bit.trailing_zeros() as usize).cloned().flatten()
        };
        if let (Some(edge), true) = (edge, t.dtype().is_differentiable()) {
            alias.set_edge(edge);
        }
        alias
    }
    /// Adds what the node saved to `values`, where it stays. `link` asks for outputs with their place in the graph.
    fn unpack(
        self: &Arc<Self>,
        op: &dyn Primitive,
        retain: bool,
        link: bool,
        values: &mut SmallVec<[(Mask, Tensor); 3]>,
    ) -> Result<()> {
        let mut guard = self.saved.lock();
        let list = match &mut *guard {
            Saved::Kept(list) => list,
            Saved::Released => bail!(
                Runtime,
                "Trying to backward through the graph a second time (or directly access saved tensors after they have \
                 already been freed). Saved intermediate values of the graph are freed when you call .backward() or \
                 autograd.grad(). Specify retain_graph=True if you need to backward through the graph a second time or if \
                 you need to access saved tensors after calling backward."
            ),
        };
        for s in list.iter().filter(|s| s.packed.is_none()) {
            self.check_version(s)?;
        }
        // A product with a number has saved that number, as PyTorch sees it.
        let release = !retain && (!list.is_empty() || op.as_map().is_some_and(|m| m.keeps_numbers()));
        if release && list.iter().all(|s| s.packed.is_none()) {
            for s in list.drain(..) {
                values.push((s.bit, self.linked(s.bit, s.tensor, link)));
            }
        } else {
            for s in list.iter() {
                values.push(match &s.packed {
                    Some(packed) => (s.bit, self.unpacked(s.bit, &packed()?)),
                    None => (s.bit, self.linked(s.bit, s.tensor.clone(), link)),
                });
            }
        }
        if release {
            *guard = Saved::Released;
        }
        Ok(())
    }
    /// A saved output with its place in the graph, which nobody can see while nothing is recorded; an input has its own.
    fn linked(self: &Arc<Self>, bit: Mask, t: Tensor, link: bool) -> Tensor {
        let output = bit >> 16 != 0;
        if !link
            || !output
            || t.requires_grad()
            || !self.outputs[(bit.trailing_zeros() - 16) as usize].dtype.is_differentiable()
        {
            return t;
        }
        let alias = Tensor::like(&t.meta());
        alias.set_edge(Edge { node: self.clone(), nr: bit.trailing_zeros() - 16 });
        alias
    }
    /// Refuses a saved value that was written in place since.
    fn check_version(&self, s: &SavedTensor) -> Result<()> {
        let now = s.tensor.version();
        if now == s.version {
            return Ok(());
        }
        let m = s.tensor.meta();
        let origin = match s.tensor.autograd().graph.as_ref().and_then(|a| a.edge.as_ref()) {
            Some(e) => format!(", which is output {} of {},", e.nr, e.node.name()),
            None if s.bit >> 16 != 0 => {
                format!(", which is output {} of {},", s.bit.trailing_zeros() - 16, self.name())
            }
            None => String::new(),
        };
        bail!(
            Runtime,
            "one of the variables needed for gradient computation has been modified by an inplace operation: \
             [torch.{}Tensor {}]{origin} is at version {now}; expected version {} instead. Hint: enable anomaly \
             detection to find the operation that failed to compute its gradient, with \
             torch.autograd.set_detect_anomaly(True).",
            m.dtype.title(),
            Shape(&m.sizes),
            s.version
        )
    }
}

/// Makes the gradient of a composite formally read `operands`, as [`Primitive::gradient_reads_operands`] says for a primitive;
/// `name` is the node's. The value is the same; results that need no gradient are returned as they are.
///
/// # Errors
/// Those of finding the operands' nodes.
pub fn formally_reads(out: Tensor, operands: &[&Tensor], name: &'static str) -> Result<Tensor> {
    if !crate::mode::grad_enabled() || out.flags() & (VIEW | BATCHED) != 0 {
        return Ok(out);
    }
    let Some(edge) = out.grad_fn()? else { return Ok(out) };
    let node = Node::op(Arc::new(Formal(name)), 1, |node| {
        node.inputs.push(InputInfo::of(&out.meta()));
        node.outputs.push(InputInfo::of(&out.meta()));
        node.edges.push(Some(edge));
        for t in operands {
            node.inputs.push(InputInfo::of(&t.meta()));
            node.edges.push(t.gradient_edge()?);
        }
        Ok(())
    })?;
    let alias = Tensor::from_meta(out.meta().clone(), 0, None);
    alias.set_edge(Edge { node, nr: 0 });
    Ok(alias)
}

/// [`formally_reads`] for a composite whose gradient, in PyTorch, is computed from its operands' and its result's values: a
/// write to any of them between forward and backward is refused, although the composite's own steps kept other values.
///
/// # Errors
/// Those of finding the operands' nodes, and for operands that cannot be saved.
pub fn formally_saves(out: Tensor, operands: &[&Tensor], result: bool, name: &'static str) -> Result<Tensor> {
    if !crate::mode::grad_enabled() || out.flags() & BATCHED != 0 {
        return Ok(out);
    }
    let Some(edge) = out.grad_fn()? else { return Ok(out) };
    let alias = Tensor::from_meta(out.meta().clone(), 0, None);
    let node = Node::op(Arc::new(Formal(name)), 1, |node| {
        node.inputs.push(InputInfo::of(&out.meta()));
        node.outputs.push(InputInfo::of(&out.meta()));
        node.edges.push(Some(edge));
        for (i, t) in operands.iter().enumerate() {
            node.inputs.push(InputInfo::of(&t.meta()));
            node.edges.push(t.gradient_edge()?);
            node.saved.push(SavedTensor::input(i + 1, t, &t.meta())?);
        }
        if result {
            node.saved.push(SavedTensor::output(0, &alias.meta()));
        }
        Ok(())
    })?;
    alias.set_edge(Edge { node, nr: 0 });
    Ok(alias)
}

/// `out`, which was computed from `x` in steps that no graph shows, as the result of an operator whose gradient is `op`'s: it
/// sees `x` and `out` as its first input and output.
///
/// # Errors
/// Those of finding `x`'s node, and for an `x` that cannot be saved.
pub fn differentiated_as(out: Tensor, x: &Tensor, op: Arc<dyn Primitive>) -> Result<Tensor> {
    let Some(edge) = x.gradient_edge()? else { return Ok(out) };
    let alias = Tensor::from_meta(out.meta().clone(), 0, None);
    let node = Node::op(op, 1, |node| {
        node.inputs.push(InputInfo::of(&x.meta()));
        node.outputs.push(InputInfo::of(&alias.meta()));
        node.edges.push(Some(edge));
        node.saved.push(SavedTensor::input(0, x, &x.meta())?);
        node.saved.push(SavedTensor::output(0, &alias.meta()));
        Ok(())
    })?;
    alias.set_edge(Edge { node, nr: 0 });
    Ok(alias)
}

/// `out`, which was computed from `x` in steps that no graph shows (a random draw), as a function of it with derivative zero.
///
/// # Errors
/// Those of finding `x`'s node.
pub fn constant_of(out: Tensor, x: &Tensor) -> Result<Tensor> {
    if crate::mode::grad_enabled() && out.dtype().is_differentiable() {
        if let Some(edge) = x.gradient_edge()? {
            let (input, output) = (InputInfo::of(&x.meta()), InputInfo::of(&out.meta()));
            out.set_edge(Edge { node: Node::unary(Arc::new(ZeroDerivative), input, edge, output), nr: 0 });
        }
    }
    Ok(out)
}

/// The node of [`formally_reads`].
#[derive(Clone)]
struct Formal(&'static str);
impl Primitive for Formal {
    fn name(&self) -> &'static str {
        self.0
    }
    fn infer(&self, _: &[&Meta], _: &mut crate::primitive::Draft) -> Result<()> {
        bail!(Runtime, "{}: stands in graphs only", self.name())
    }
    fn run(&self, _: &dyn Backend, _: &[Operand], _: &[Operand]) -> Result<()> {
        bail!(Runtime, "{}: stands in graphs only", self.name())
    }
    fn gradient_reads_operands(&self) -> bool {
        true
    }
    fn vjp(&self, cx: &Vjp, g: &[Option<Tensor>]) -> Result<crate::primitive::Gradients> {
        let mut grads = crate::primitive::Gradients::from_elem(None, cx.len());
        grads[0] = g[0].clone();
        Ok(grads)
    }
    fn key(&self, _: &mut crate::primitive::PlanKey) {}
    crate::shareable!();
}

/// The gradient of a gradient that is constant where it has one.
#[derive(Clone)]
struct ZeroDerivative;
impl Primitive for ZeroDerivative {
    fn name(&self) -> &'static str {
        "zero_derivative"
    }
    fn infer(&self, _: &[&Meta], _: &mut crate::primitive::Draft) -> Result<()> {
        bail!(Runtime, "{}: stands in graphs only", self.name())
    }
    fn run(&self, _: &dyn Backend, _: &[Operand], _: &[Operand]) -> Result<()> {
        bail!(Runtime, "{}: stands in graphs only", self.name())
    }
    fn vjp(&self, cx: &Vjp, g: &[Option<Tensor>]) -> Result<crate::primitive::Gradients> {
        let mut grads = crate::primitive::Gradients::new();
        for i in 0..cx.len() {
            let want = cx.info(i);
            grads.push(match &g[0] {
                Some(_) => Some(crate::ops::factory::full(&want.sizes, Number::Int(0), want.dtype, want.device)?),
                None => None,
            });
        }
        Ok(grads)
    }
    fn key(&self, _: &mut crate::primitive::PlanKey) {}
    crate::shareable!();
}

/// Puts a hook's answer in the place of gradients.
fn replace<A: smallvec::Array<Item = Option<Tensor>>>(
    g: &mut smallvec::SmallVec<A>,
    new: Vec<Option<Tensor>>,
    what: &str,
) -> Result<()> {
    ensure!(
        new.len() == g.len(),
        Runtime,
        "{what} has returned an incorrect number of values (got {}, but expected {})",
        new.len(),
        g.len()
    );
    g.clear();
    g.extend(new);
    Ok(())
}

fn call_hook(hook: &Hook, g: &mut Option<Tensor>) -> Result<()> {
    if let Some(t) = g {
        if let Some(new) = hook(t)? {
            *g = Some(new);
        }
    }
    Ok(())
}

impl SavedTensor {
    /// Keeps an input of an operator; `meta` is its metadata.
    pub(crate) fn input(i: usize, t: &Tensor, meta: &Meta) -> Result<SavedTensor> {
        if t.flags() & INFERENCE_TENSOR != 0 {
            bail!(
                Runtime,
                "Inference tensors cannot be saved for backward. To work around you can make a clone to get a normal \
                 tensor and use it in autograd."
            );
        }
        Ok(SavedTensor { bit: 1 << i, version: meta.version(), tensor: t.clone(), packed: None })
    }
    /// The version before the in-place write of which this input was an operand.
    pub(crate) fn before_write(mut self) -> SavedTensor {
        self.version = self.version.wrapping_sub(1);
        self
    }
    /// Keeps an output without its node, so that no reference cycle forms.
    pub(crate) fn output(i: usize, meta: &Meta) -> SavedTensor {
        let tensor = Tensor::like(meta);
        SavedTensor { bit: output_bit(i as u32), version: meta.version(), tensor, packed: None }
    }
    /// Keeps a copy of an input that is about to be overwritten.
    pub(crate) fn original(i: usize, copy: Tensor) -> SavedTensor {
        SavedTensor { bit: 1 << i, version: copy.version(), tensor: copy, packed: None }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let mut deferred = false;
        // The thread may be ending, its queue already gone: then dropping directly is all that is left.
        let _ = DROPS.try_with(|queue| {
            let mut queue = queue.borrow_mut();
            let before = queue.len();
            for slot in &mut self.edges {
                // A node that others hold, or that ends the graph, drops without going deeper.
                if slot.as_ref().is_some_and(|e| Arc::strong_count(&e.node) == 1 && !e.node.edges.is_empty()) {
                    if let Some(edge) = slot.take() {
                        queue.push(Debris::Node(edge.node));
                    }
                }
            }
            if let Saved::Kept(list) = self.saved.get_mut() {
                if list.iter().any(|s| s.tensor.flags() & REQUIRES_GRAD != 0) {
                    queue.extend(list.drain(..).map(|s| Debris::Saved(s.tensor)));
                }
            }
            if let Function::CopySlices(copy) = &self.function {
                queue.push(Debris::Node(copy.function.clone()));
            }
            deferred = queue.len() > before;
        });
        if !deferred || DROPPING.try_with(|d| d.replace(true)).unwrap_or(true) {
            return;
        }
        while let Some(next) = DROPS.with(|q| q.borrow_mut().pop()) {
            drop(next);
        }
        DROPPING.with(|d| d.set(false));
    }
}
