//! The backward engine: iterative, reentrant, in an order fixed by the graph.

use super::node::{Edge, Function, InputInfo, Node};
use crate::mode;
use crate::ops;
use crate::tensor::{Tensor, REQUIRES_GRAD, VIEW};
use flambeau_core::*;
use std::cell::RefCell;
use std::collections::{BinaryHeap, HashMap};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

/// Hashes a pointer: its bits, mixed once.
#[derive(Default)]
pub(crate) struct PointerHasher(u64);
impl Hasher for PointerHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for &b in bytes {
            self.0 = (self.0 ^ b as u64).wrapping_mul(0x100_0000_01b3);
        }
    }
    fn write_usize(&mut self, x: usize) {
        self.0 = (x as u64 >> 4).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}
pub(crate) type PointerMap<V> = HashMap<usize, V, BuildHasherDefault<PointerHasher>>;

/// How to run a backward pass.
#[derive(Clone, Copy, Debug, Default)]
pub struct GradOptions {
    /// Keep saved values for another pass.
    pub retain_graph: bool,
    /// Record the pass itself, for higher derivatives.
    pub create_graph: bool,
    /// With inputs: `None` for those that the outputs do not depend on, instead of an error.
    pub allow_unused: bool,
}

struct Task {
    /// Taken out while the pass is at the node, and put back.
    node: Option<Arc<Node>>,
    /// The node's.
    seq: u64,
    /// Edges that have not delivered yet.
    waiting: u32,
    /// Whether the node leads to a wanted input (always, without a list of inputs).
    needed: bool,
    /// Whether the node's mark is this pass's to take back.
    marked: bool,
    grads: SmallVec<[Option<Tensor>; 1]>,
}

/// The nodes that one backward pass goes through, numbered in the order in which they were found.
///
/// A node's number stands in the node itself, tagged with the pass, so that following an edge looks nothing up. A node that
/// another pass has marked meanwhile (another thread's, or one that a hook started) is found through a map instead.
struct Tasks {
    list: Vec<Task>,
    pass: u64,
    /// Whether the pass is profiled.
    profiled: bool,
    elsewhere: PointerMap<u32>,
}

impl Tasks {
    fn new() -> Tasks {
        static PASS: AtomicU64 = AtomicU64::new(0);
        // Numbers wrap after four thousand million passes; 0 stands for no pass.
        let pass = (PASS.fetch_add(1, Ordering::Relaxed) % u32::MAX as u64 + 1) << 32;
        Tasks {
            list: SCRATCH.with(|s| std::mem::take(&mut *s.borrow_mut())),
            pass,
            profiled: crate::profile::on(),
            elsewhere: PointerMap::default(),
        }
    }
    fn number(&self, node: &Arc<Node>) -> Option<usize> {
        let mark = node.mark.load(Ordering::Relaxed);
        if mark & !0xffff_ffff == self.pass {
            return Some(mark as u32 as usize);
        }
        if self.elsewhere.is_empty() {
            return None;
        }
        self.elsewhere.get(&key(node)).map(|&n| n as usize)
    }
    /// The number of a node, given to it now if it has none.
    fn visit(&mut self, node: &Arc<Node>) -> usize {
        if let Some(n) = self.number(node) {
            return n;
        }
        let n = self.list.len();
        let mark = self.pass | n as u64;
        let marked = node.mark.compare_exchange(0, mark, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if !marked {
            self.elsewhere.insert(key(node), n as u32);
        }
        let mut grads = SmallVec::new();
        for _ in 0..node.outputs.len() {
            grads.push(None);
        }
        self.list.push(Task { node: Some(node.clone()), seq: node.seq, waiting: 0, needed: false, marked, grads });
        n
    }
}
impl Drop for Tasks {
    fn drop(&mut self) {
        for task in &self.list {
            if let (true, Some(node)) = (task.marked, &task.node) {
                node.mark.store(0, Ordering::Relaxed);
            }
        }
        self.list.clear();
        if self.list.capacity() <= SCRATCH_CAPACITY {
            let list = std::mem::take(&mut self.list);
            let _ = SCRATCH.try_with(|s| *s.borrow_mut() = list);
        }
    }
}

/// Says which backward pass runs in this thread, for hooks that ask.
struct Running;
impl Running {
    fn enter(pass: u64) -> Running {
        PASSES.with(|p| p.borrow_mut().push(pass));
        Running
    }
}
impl Drop for Running {
    fn drop(&mut self) {
        let _ = PASSES.try_with(|p| p.borrow_mut().pop());
    }
}
/// The number of the innermost backward pass that runs in this thread.
pub fn current_pass() -> Option<u64> {
    PASSES.with(|p| p.borrow().last().map(|pass| pass >> 32))
}
/// Whether no backward pass runs in this thread, or one that accumulates into every leaf.
pub fn accumulates_everywhere() -> bool {
    PASSES.with(|p| p.borrow().last().is_none_or(|pass| pass & 1 != 0))
}
/// Whether the backward pass that runs in this thread goes through `node`.
pub fn reaches(node: &Node) -> bool {
    let pass = PASSES.with(|p| p.borrow().last().copied());
    pass.is_some_and(|pass| node.mark.load(Ordering::Relaxed) & !0xffff_ffff == pass & !0xffff_ffff)
}

/// A longer list of tasks than this is not kept for the next pass.
const SCRATCH_CAPACITY: usize = 4096;
thread_local! {
    static SCRATCH: RefCell<Vec<Task>> = const { RefCell::new(Vec::new()) };
    // The passes that run, innermost last; the lowest bit says whether a pass accumulates into every leaf.
    static PASSES: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
}

fn key(node: &Arc<Node>) -> usize {
    Arc::as_ptr(node) as usize
}

/// Accumulates gradients of `outputs` into the leaves' `.grad`.
///
/// # Errors
/// `Runtime` when an output needs an explicit gradient, does not require grad, or its graph was freed.
pub fn backward(outputs: &[Tensor], grads: &[Option<Tensor>], options: GradOptions) -> Result<()> {
    run(outputs, grads, None, options).map(|_| ())
}

/// Gradients of `outputs` with respect to `inputs`, without touching `.grad`.
///
/// # Errors
/// As [`backward`]; also for an input that is not used, unless allowed.
pub fn grad(
    outputs: &[Tensor],
    inputs: &[Tensor],
    grads: &[Option<Tensor>],
    options: GradOptions,
) -> Result<Vec<Option<Tensor>>> {
    run(outputs, grads, Some((inputs, false)), options)
}

/// The engine behind [`backward`] and [`grad`]. `inputs` are tensors to stop at, and whether to accumulate into their
/// `.grad` instead of returning the gradients.
///
/// # Errors
/// See [`backward`] and [`grad`].
pub fn run(
    outputs: &[Tensor],
    grads: &[Option<Tensor>],
    inputs: Option<(&[Tensor], bool)>,
    options: GradOptions,
) -> Result<Vec<Option<Tensor>>> {
    if let Some(result) = crate::batch::run_backward(outputs, grads, inputs, options) {
        return result;
    }
    if let Some(result) = ops::sparse::run_backward(outputs, grads, inputs, options) {
        return result;
    }
    // Gradients of the roots.
    let mut roots: SmallVec<[(Edge, Tensor); 1]> = SmallVec::new();
    for (i, t) in outputs.iter().enumerate() {
        let Some(edge) = t.gradient_edge()? else {
            bail!(Runtime, "element {i} of tensors does not require grad and does not have a grad_fn");
        };
        let g = match grads.get(i).and_then(Option::as_ref) {
            Some(g) => {
                let (m, gm) = (t.meta(), g.meta());
                if m.sizes != gm.sizes {
                    bail!(
                        Runtime,
                        "Mismatch in shape: grad_output[{i}] has a shape of {} and output[{i}] has a shape of {}.",
                        Shape(&gm.sizes),
                        Shape(&m.sizes)
                    );
                }
                ensure!(
                    m.dtype.is_complex() == gm.dtype.is_complex(),
                    Runtime,
                    "For complex Tensors, both grad_output and output are required to have the same dtype. Mismatch in dtype: \
                     grad_output[{i}] has a dtype of {} and output[{i}] has a dtype of {}.",
                    gm.dtype,
                    m.dtype
                );
                drop((m, gm));
                g.clone()
            }
            None => {
                ensure!(t.numel() == 1, Runtime, "grad can be implicitly created only for scalar outputs");
                ensure!(
                    t.dtype().is_float(),
                    Runtime,
                    "grad can be implicitly created only for real scalar outputs but got {}",
                    t.dtype()
                );
                ops::factory::ones_like(t)?
            }
        };
        roots.push((edge, g));
    }
    let mut targets: SmallVec<[Edge; 4]> = SmallVec::new();
    if let Some((inputs, _)) = inputs {
        for t in inputs {
            targets.push(match t.gradient_edge()? {
                Some(edge) => edge,
                None => {
                    // A view made without recording counts as requiring grad, and nothing leads to it.
                    ensure!(t.requires_grad(), Runtime, "One of the differentiated Tensors does not require grad");
                    Edge { node: Node::accumulate(t.clone(), InputInfo::of(&t.meta())), nr: 0 }
                }
            });
        }
    }
    let accumulates = inputs.is_some_and(|(_, accumulate)| accumulate);
    let forgiving = GradOptions { allow_unused: options.allow_unused || accumulates, ..options };
    let mut results = run_edges(roots, inputs.map(|_| &targets[..]), forgiving)?;
    if let (Some((inputs, _)), true) = (inputs, accumulates) {
        let _mode = mode::Guard::new(mode::NO_GRAD, !options.create_graph);
        for (t, g) in inputs.iter().zip(results.iter_mut()) {
            if let Some(g) = g.take() {
                accumulate(t, g, options.create_graph)?;
            }
        }
    }
    Ok(results)
}

/// The engine over places in the graph: gradients arrive at `roots`; those that reach `inputs` are returned, or without inputs
/// all leaves' gradients are accumulated.
///
/// # Errors
/// Those of the nodes; `Runtime` for an input that is not reached, unless allowed.
pub fn run_edges(
    roots: SmallVec<[(Edge, Tensor); 1]>,
    inputs: Option<&[Edge]>,
    options: GradOptions,
) -> Result<Vec<Option<Tensor>>> {
    let _mode = mode::Guard::new(mode::NO_GRAD, !options.create_graph);

    // Which gradients are wanted: (node, output) → positions in the result.
    let mut wanted: PointerMap<SmallVec<[(u32, usize); 1]>> = PointerMap::default();
    for (i, edge) in inputs.unwrap_or_default().iter().enumerate() {
        wanted.entry(key(&edge.node)).or_default().push((edge.nr, i));
    }

    // Count the edges into every reachable node, without recursion: the list of tasks is the queue of the search.
    let mut tasks = Tasks::new();
    let everything = inputs.is_none();
    let _running = Running::enter(tasks.pass | u64::from(everything));
    for (edge, _) in &roots {
        tasks.visit(&edge.node);
    }
    let mut next = 0;
    while next < tasks.list.len() {
        let node = tasks.list[next].node.take();
        for edge in node.iter().flat_map(|n| n.edges.iter().flatten()) {
            let n = tasks.visit(&edge.node);
            tasks.list[n].waiting += 1;
        }
        tasks.list[next].node = node;
        next += 1;
    }
    if everything {
        tasks.list.iter_mut().for_each(|t| t.needed = true);
    } else {
        mark_needed(&mut tasks, &wanted);
    }

    let mut results: Vec<Option<Tensor>> = vec![None; inputs.map_or(0, <[Edge]>::len)];
    for (edge, g) in roots {
        deliver(&mut tasks, &edge, g, options.create_graph)?;
    }
    // Latest first, and a later number first among equals (leaves), so that the order is the graph's alone.
    let mut ready: BinaryHeap<(u64, u32)> = BinaryHeap::new();
    for (n, task) in tasks.list.iter().enumerate() {
        if task.waiting == 0 {
            ready.push((task.seq, n as u32));
        }
    }

    while let Some((_, n)) = ready.pop() {
        let Some(node) = tasks.list[n as usize].node.take() else { continue };
        let captures = if everything { None } else { wanted.get(&key(&node)) };
        let visited = visit(&node, n as usize, &mut tasks, captures, &mut results, &mut ready, everything, options);
        tasks.list[n as usize].node = Some(node);
        visited?;
    }

    if inputs.is_some() && !options.allow_unused && results.iter().any(Option::is_none) {
        bail!(
            Runtime,
            "One of the differentiated Tensors appears to not have been used in the graph. Set allow_unused=True if this is the \
             desired behavior."
        );
    }
    Ok(results)
}

/// Sends the gradients that arrived at a node on to those that it leads to.
#[inline]
fn visit(
    node: &Arc<Node>,
    n: usize,
    tasks: &mut Tasks,
    captures: Option<&SmallVec<[(u32, usize); 1]>>,
    results: &mut [Option<Tensor>],
    ready: &mut BinaryHeap<(u64, u32)>,
    everything: bool,
    options: GradOptions,
) -> Result<()> {
    let retain = options.retain_graph || options.create_graph;
    let task = &mut tasks.list[n];
    let needed = task.needed;
    let mut g = std::mem::take(&mut task.grads);
    if needed && g.iter().any(Option::is_some) {
        node.run_hooks(&mut g)?;
    }
    let _span = if tasks.profiled { crate::profile::node(node) } else { None };
    for &(nr, i) in captures.into_iter().flatten() {
        results[i] = g[nr as usize].clone();
    }
    if let Function::Accumulate(leaf) = &node.function {
        if everything && g[0].is_some() {
            node.call_leaf(g, |g| accumulate(leaf, g, options.create_graph))?;
        }
        return Ok(());
    }
    let mut sent = if needed && leads_on(node, everything, tasks) { node.call(g, retain)? } else { SmallVec::new() };
    for (i, edge) in node.edges.iter().enumerate() {
        let Some(edge) = edge else { continue };
        if let Some(g) = sent.get_mut(i).and_then(Option::take) {
            let g = fit(g, &edge.node.outputs[edge.nr as usize], node, i)?;
            deliver(tasks, edge, g, options.create_graph)?;
        }
        if let Some(n) = tasks.number(&edge.node) {
            let task = &mut tasks.list[n];
            task.waiting -= 1;
            if task.waiting == 0 {
                ready.push((task.seq, n as u32));
            }
        }
    }
    Ok(())
}

/// Marks the nodes from which a wanted input can be reached, in reverse topological order.
fn mark_needed(tasks: &mut Tasks, wanted: &PointerMap<SmallVec<[(u32, usize); 1]>>) {
    // Kahn's order over a copy of the counts.
    let mut waiting: Vec<u32> = tasks.list.iter().map(|t| t.waiting).collect();
    let mut topological: Vec<usize> = (0..waiting.len()).filter(|&n| waiting[n] == 0).collect();
    let mut next = 0;
    while next < topological.len() {
        let node = &tasks.list[topological[next]].node;
        for n in node.iter().flat_map(|n| n.edges.iter().flatten()).filter_map(|e| tasks.number(&e.node)) {
            waiting[n] -= 1;
            if waiting[n] == 0 {
                topological.push(n);
            }
        }
        next += 1;
    }
    for n in topological.into_iter().rev() {
        let needed = |node: &Arc<Node>| wanted.contains_key(&key(node)) || leads_on(node, false, tasks);
        tasks.list[n].needed = tasks.list[n].node.as_ref().is_some_and(needed);
    }
}

/// Whether a node has anything to send on: with a list of inputs, only towards those.
fn leads_on(node: &Node, everything: bool, tasks: &Tasks) -> bool {
    everything || node.edges.iter().flatten().any(|e| tasks.number(&e.node).is_some_and(|n| tasks.list[n].needed))
}

fn deliver(tasks: &mut Tasks, edge: &Edge, g: Tensor, create_graph: bool) -> Result<()> {
    let Some(n) = tasks.number(&edge.node) else { return Ok(()) };
    let task = &mut tasks.list[n];
    if !task.needed {
        return Ok(());
    }
    let slot = &mut task.grads[edge.nr as usize];
    *slot = Some(match slot.take() {
        None => g,
        Some(old) if old.is_sparse() && !g.is_sparse() => ops::elementwise::add(&g, &old)?,
        Some(old) if !create_graph && owned(&old) => {
            ops::elementwise::add_(&old, &g).or_else(|_| ops::elementwise::add(&old, &g))?
        }
        Some(old) => ops::elementwise::add(&old, &g)?,
    });
    Ok(())
}

/// Whether nobody else can see this tensor or its memory; a view's base that only the view holds (a gradient in another
/// shape) is nobody else.
fn owned(t: &Tensor) -> bool {
    if t.ref_count() != 1 {
        return false;
    }
    // SAFETY: the engine alone has this tensor, by the count, and makes no other reference meanwhile.
    let (place, m) = unsafe { (&*t.unshared_autograd(), t.unshared_meta()) };
    let base_numel = match &place.view {
        Some(v) if v.base.ref_count() == 1 => Some(v.base.numel()),
        _ => None,
    };
    let holders = if base_numel == Some(numel(&m.sizes)) { 2 } else { 1 };
    Arc::strong_count(&m.storage) == holders && is_non_overlapping_and_dense(&m.sizes, &m.strides)
}

/// Brings a gradient to the shape and dtype of the value that it belongs to.
fn fit(g: Tensor, want: &InputInfo, node: &Node, i: usize) -> Result<Tensor> {
    let (same_shape, same_dtype) = {
        let m = g.meta();
        (same_dims(&m.sizes, &want.sizes), m.dtype == want.dtype)
    };
    let g = if same_shape {
        g
    } else {
        ops::reduction::sum_to_size(&g, &want.sizes).map_err(|_| {
            err!(
                Runtime,
                "Function {} returned an invalid gradient at index {i} - got {} but expected shape compatible with {}",
                node.name(),
                Shape(&g.sizes()),
                Shape(&want.sizes)
            )
        })?
    };
    if same_dtype {
        Ok(g)
    } else {
        ops::elementwise::convert_gradient(&g, want.dtype)
    }
}

fn accumulate(leaf: &Tensor, g: Tensor, create_graph: bool) -> Result<()> {
    if !leaf.requires_grad() {
        // Taken out of the graph since (`detach_`, `requires_grad_(False)`).
        return Ok(());
    }
    let old = leaf.grad();
    let new = match old {
        None if create_graph => g,
        None => {
            if owned(&g) {
                // With a place in the graph of its own, or among views, it is taken out of these.
                if g.flags() & (REQUIRES_GRAD | VIEW) == 0 {
                    g
                } else {
                    g.detach()
                }
            } else {
                ops::view::clone(&g.detach())?
            }
        }
        Some(old) if old.is_sparse() && !g.is_sparse() => ops::elementwise::add(&g, &old)?,
        Some(old) if !create_graph => {
            let _off = mode::no_grad();
            ops::elementwise::add_(&old, &g)?;
            old
        }
        Some(old) => ops::elementwise::add(&old, &g)?,
    };
    for hook in leaf.take_grad(Some(new))? {
        hook(leaf)?;
    }
    Ok(())
}
