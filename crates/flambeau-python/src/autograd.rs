//! Autograd as Python sees it: nodes, hooks, the engine's entry, custom functions.

use crate::error::*;
use crate::raw::*;
use crate::tensor::*;
use flambeau::autograd::custom::{self, CustomOutput};
use flambeau::autograd::meta::PostHook;
use flambeau::autograd::node::{Edge, InputInfo, PostNodeHook, PreHook};
use flambeau::autograd::watch;
use flambeau::autograd::{self, Backward, GradOptions, Hook, Node};
use flambeau::core::{bail, ensure, err, Shape};
use flambeau::{Mask, Result, Tensor};
use parking_lot::Mutex;
use pyo3::exceptions::*;
use pyo3::ffi::*;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use std::sync::Arc;

/// A Python object held by the core: released with the interpreter attached, whatever thread lets it go.
pub struct Held(Option<Py<PyAny>>);
impl Held {
    /// Holds `o`.
    pub fn new(o: &Bound<'_, PyAny>) -> Held {
        Held(Some(o.clone().unbind()))
    }
    /// The object.
    pub fn bind<'py>(&self, py: Python<'py>) -> Bound<'py, PyAny> {
        match &self.0 {
            Some(o) => o.bind(py).clone(),
            None => py.None().into_bound(py),
        }
    }
}
impl Drop for Held {
    fn drop(&mut self) {
        if let Some(o) = self.0.take() {
            let mut slot = Some(o);
            if Python::try_attach(|_| drop(slot.take())).is_none() {
                // The interpreter is gone: nothing is left to release.
                std::mem::forget(slot.take());
            }
        }
    }
}

// ---- nodes --------------------------------------------------------------------------------------------------------------

/// A recorded operator.
#[pyclass(frozen, name = "Node", module = "flambeau.autograd", dict, weakref)]
pub struct PyNode {
    node: Arc<Node>,
}

/// What the binding keeps with a node: the user's dict, and the node's object while somebody holds it.
struct NodeData {
    metadata: Held,
    object: Mutex<Option<Held>>,
}
fn node_data(py: Python<'_>, node: &Node) -> Arc<NodeData> {
    let fresh = || Arc::new(NodeData { metadata: Held::new(PyDict::new(py).as_any()), object: Mutex::new(None) });
    node.attachment(|| fresh()).downcast::<NodeData>().unwrap_or_else(|_| fresh())
}

/// A node's object.
pub fn node_object(node: Arc<Node>) -> Result<Obj> {
    Python::attach(|py| {
        let data = node_data(py, &node);
        let known = data.object.lock().as_ref().map(|weak| weak.bind(py));
        if let Some(object) = known.and_then(|weak| weak.call0().ok()).filter(|o| !o.is_none()) {
            return Ok(object.into_ptr());
        }
        let body = || -> PyResult<Bound<'_, PyAny>> {
            let object = Bound::new(py, PyNode { node })?.into_any();
            let weak = py.import("weakref")?.getattr("ref")?.call1((&object,))?;
            *data.object.lock() = Some(Held::new(&weak));
            Ok(object)
        };
        body().map(Bound::into_ptr).map_err(|e| from_python(py, e))
    })
}

/// The gradients that a node's hook sees, as a tuple.
fn gradients_tuple<'py>(py: Python<'py>, g: &[Option<Tensor>]) -> PyResult<Bound<'py, PyTuple>> {
    let items: Vec<Py<PyAny>> = g.iter().map(|t| optional_object(py, t)).collect::<PyResult<_>>()?;
    PyTuple::new(py, items)
}
fn hook_answer(r: &Bound<'_, PyAny>) -> PyResult<Option<Vec<Option<Tensor>>>> {
    if r.is_none() {
        return Ok(None);
    }
    tensors_of(r).map(Some)
}

#[pymethods]
impl PyNode {
    /// The operator's name, `AddBackward0`.
    fn name(&self) -> String {
        self.node.name()
    }
    /// The nodes of the inputs, each with the number of its output.
    #[getter]
    fn next_functions<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let mut items: Vec<(Py<PyAny>, u32)> = Vec::new();
        for edge in self.node.next_functions() {
            items.push(match edge {
                Some(e) => {
                    let o = node_object(e.node.clone()).py()?;
                    // SAFETY: attached; a new reference.
                    (unsafe { Bound::from_owned_ptr(py, o).unbind() }, e.nr)
                }
                None => (py.None(), 0),
            });
        }
        PyTuple::new(py, items)
    }
    /// A dict of the user's own.
    #[getter]
    fn metadata<'py>(&self, py: Python<'py>) -> Bound<'py, PyAny> {
        node_data(py, &self.node).metadata.bind(py)
    }
    /// Calls `fn(grad_inputs, grad_outputs)` after this node ran; what it returns takes the place of `grad_inputs`.
    fn register_hook(&self, r#fn: &Bound<'_, PyAny>) -> NodeHookHandle {
        let held = Arc::new(Held::new(r#fn));
        let hook: PostNodeHook = Arc::new(move |inputs, outputs| {
            crate::call::with_py(|py| {
                let args = (gradients_tuple(py, inputs)?, gradients_tuple(py, outputs)?);
                hook_answer(&held.bind(py).call1(args)?)
            })
        });
        NodeHookHandle { id: self.node.add_post_hook(hook), node: Arc::downgrade(&self.node) }
    }
    /// Calls `fn(grad_outputs)` before this node runs; what it returns takes their place.
    fn register_prehook(&self, r#fn: &Bound<'_, PyAny>) -> NodeHookHandle {
        let held = Arc::new(Held::new(r#fn));
        let hook: PreHook = Arc::new(move |outputs| {
            crate::call::with_py(|py| hook_answer(&held.bind(py).call1((gradients_tuple(py, outputs)?,))?))
        });
        NodeHookHandle { id: self.node.add_pre_hook(hook), node: Arc::downgrade(&self.node) }
    }
    /// Sizes, dtype and device of each output, which gradients arriving here have.
    #[getter]
    fn _input_metadata<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let cls = py.import("flambeau.autograd.graph")?.getattr("_InputMetadata")?;
        let mut items = Vec::new();
        for info in self.node.outputs() {
            // SAFETY: attached; new references.
            let (size, dtype, device) = unsafe {
                (
                    Bound::from_owned_ptr(py, crate::types::size_object(&info.sizes)),
                    Bound::from_owned_ptr(py, crate::types::dtype_object(info.dtype)),
                    Bound::from_owned_ptr(py, crate::types::device_object(info.device)),
                )
            };
            items.push(cls.call1((size, dtype, device))?);
        }
        PyTuple::new(py, items)
    }
    /// Of an operator: the values that it saved. Of a custom function: what stands on its context.
    fn __getattr__<'py>(slf: &Bound<'py, Self>, name: &str) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let node = &slf.get().node;
        if let Some(f) = node.custom_function().and_then(|f| f.as_any().downcast_ref::<PythonFunction>()) {
            if name == "saved_tensors" {
                return gradients_tuple(py, &f.unpack().py()?).map(Bound::into_any);
            }
            return f.context.bind(py).getattr(name);
        }
        let bit = match name {
            "_saved_self" | "_saved_input" | "_saved_condition" => Some(1),
            "_saved_other" | "_saved_exponent" | "_saved_mat2" | "_saved_weight" | "_saved_target" => Some(2),
            "_saved_result" | "_saved_output" => Some(1 << 16),
            _ => None,
        };
        if let Some(t) = bit.map(|bit| node.saved(bit)).transpose().py()?.flatten() {
            return wrap_bound(py, t);
        }
        Err(PyAttributeError::new_err(format!("'{}' object has no attribute '{name}'", node.name())))
    }
    /// The leaf behind an accumulation node.
    #[getter]
    fn variable(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        match self.node.variable() {
            Some(t) => Ok(wrap_bound(py, t.clone())?.unbind()),
            None => {
                Err(PyAttributeError::new_err(format!("'{}' object has no attribute 'variable'", self.node.name())))
            }
        }
    }
    fn __eq__(&self, other: &Bound<'_, PyAny>) -> bool {
        other.cast::<PyNode>().is_ok_and(|o| Arc::ptr_eq(&o.get().node, &self.node))
    }
    fn __hash__(&self) -> usize {
        Arc::as_ptr(&self.node) as usize >> 4
    }
    fn __repr__(&self) -> String {
        format!("<{} object at {:#x}>", self.node.name(), Arc::as_ptr(&self.node) as usize)
    }
}

/// What `register_hook` of a node returns.
#[pyclass(frozen, module = "flambeau.autograd")]
pub struct NodeHookHandle {
    node: std::sync::Weak<Node>,
    id: u64,
}
#[pymethods]
impl NodeHookHandle {
    /// Takes the hook away; more than once does no harm.
    fn remove(&self) {
        if let Some(node) = self.node.upgrade() {
            node.remove_hook(self.id);
        }
    }
    #[getter]
    fn id(&self) -> u64 {
        self.id
    }
    fn __enter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }
    #[pyo3(signature = (*_exc))]
    fn __exit__(&self, _exc: &Bound<'_, PyTuple>) {
        self.remove();
    }
}

fn optional_object(py: Python<'_>, t: &Option<Tensor>) -> PyResult<Py<PyAny>> {
    match t {
        Some(t) => Ok(wrap_bound(py, t.clone())?.unbind()),
        None => Ok(py.None()),
    }
}

/// Tensors and Nones from one object, a tuple or a list.
fn tensors_of(o: &Bound<'_, PyAny>) -> PyResult<Vec<Option<Tensor>>> {
    let one = |o: &Bound<'_, PyAny>| -> PyResult<Option<Tensor>> {
        if o.is_none() {
            return Ok(None);
        }
        match extract(o) {
            Some(t) => Ok(Some(t.clone())),
            None => Err(PyTypeError::new_err(format!("expected Tensor or None, got {}", o.get_type().name()?))),
        }
    };
    // SAFETY: a `Bound` shows that the interpreter is attached.
    if unsafe { is_sequence(o.as_ptr()) } {
        o.try_iter()?.map(|i| one(&i?)).collect()
    } else {
        Ok(vec![one(o)?])
    }
}

// ---- hooks --------------------------------------------------------------------------------------------------------------

/// Takes a hook away again.
#[pyclass(frozen, name = "RemovableHandle", module = "flambeau.utils.hooks")]
pub struct RemovableHandle {
    tensor: Option<Tensor>,
    id: u64,
}
#[pymethods]
impl RemovableHandle {
    /// Takes the hook away; more than once does no harm.
    fn remove(&self) {
        if let Some(t) = &self.tensor {
            t.remove_hook(self.id);
        }
    }
    #[getter]
    fn id(&self) -> u64 {
        self.id
    }
    fn __enter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }
    #[pyo3(signature = (*_exc))]
    fn __exit__(&self, _exc: &Bound<'_, PyTuple>) {
        self.remove();
    }
}

/// `tensor.register_hook(hook)`
pub fn register_hook(t: &Tensor, hook: &Bound<'_, PyAny>) -> Result<Py<PyAny>> {
    let held = Arc::new(Held::new(hook));
    let f: Hook = Arc::new(move |g: &Tensor| {
        crate::call::with_py(|py| {
            let r = held.bind(py).call1((wrap_bound(py, g.clone())?,))?;
            if r.is_none() {
                return Ok(None);
            }
            match extract(&r) {
                Some(t) => Ok(Some(t.clone())),
                None => Err(PyTypeError::new_err(format!(
                    "hook must return a Tensor or None, not {}",
                    r.get_type().name()?
                ))),
            }
        })
    });
    let id = t.register_hook(f)?;
    handle(hook.py(), t, id)
}
/// `tensor.register_post_accumulate_grad_hook(hook)`
pub fn register_post_hook(t: &Tensor, hook: &Bound<'_, PyAny>) -> Result<Py<PyAny>> {
    let held = Arc::new(Held::new(hook));
    let f: PostHook = Arc::new(move |leaf: &Tensor| {
        crate::call::with_py(|py| held.bind(py).call1((wrap_bound(py, leaf.clone())?,)).map(|_| ()))
    });
    let id = t.register_post_accumulate_grad_hook(f)?;
    handle(hook.py(), t, id)
}
fn handle(py: Python<'_>, t: &Tensor, id: u64) -> Result<Py<PyAny>> {
    let h = RemovableHandle { tensor: Some(t.clone()), id };
    Bound::new(py, h).map(|h| h.into_any().unbind()).map_err(|e| from_python(py, e))
}

// ---- the engine ---------------------------------------------------------------------------------------------------------

/// Runs a backward pass; the interpreter is detached meanwhile.
pub fn run_engine(
    outputs: Vec<Tensor>,
    grads: Vec<Option<Tensor>>,
    inputs: Option<Vec<Tensor>>,
    accumulate: bool,
    options: GradOptions,
) -> Result<Vec<Option<Tensor>>> {
    Python::attach(|py| {
        py.detach(|| {
            let inputs = inputs.as_deref().map(|i| (i, accumulate));
            autograd::run(&outputs, &grads, inputs, options)
        })
    })
}

fn required(o: &Bound<'_, PyAny>, what: &str) -> PyResult<Vec<Tensor>> {
    tensors_of(o)?
        .into_iter()
        .map(|t| {
            t.ok_or_else(|| PyTypeError::new_err(format!("{what} can be a Tensor or a sequence of Tensors, not None")))
        })
        .collect()
}

/// The engine's entry for `flambeau.autograd`: gradients of `tensors`, into `.grad` or returned for `inputs`.
#[pyfunction]
#[pyo3(signature = (tensors, grads=None, retain_graph=None, create_graph=false, inputs=None, accumulate=true, allow_unused=false))]
fn _engine_backward(
    py: Python<'_>,
    tensors: &Bound<'_, PyAny>,
    grads: Option<&Bound<'_, PyAny>>,
    retain_graph: Option<bool>,
    create_graph: bool,
    inputs: Option<&Bound<'_, PyAny>>,
    accumulate: bool,
    allow_unused: bool,
) -> PyResult<Py<PyAny>> {
    let outputs = required(tensors, "outputs")?;
    let grads = match grads {
        Some(g) => tensors_of(g)?,
        None => vec![None; outputs.len()],
    };
    let inputs = inputs.map(|i| required(i, "inputs")).transpose()?;
    let returns = inputs.is_some() && !accumulate;
    let options = GradOptions { retain_graph: retain_graph.unwrap_or(create_graph), create_graph, allow_unused };
    let results = run_engine(outputs, grads, inputs, accumulate, options).py()?;
    if !returns {
        return Ok(py.None());
    }
    let items: Vec<Py<PyAny>> = results.iter().map(|t| optional_object(py, t)).collect::<PyResult<_>>()?;
    Ok(PyTuple::new(py, items)?.into_any().unbind())
}

/// The engine over places in the graph, each a pair of a node and the number of its output. Without `inputs` the leaves' `.grad`
/// are added to; otherwise the gradients that arrive there are returned.
#[pyfunction]
#[pyo3(signature = (roots, grads, inputs, retain_graph, create_graph, allow_unused))]
fn _engine_backward_edges(
    py: Python<'_>,
    roots: Vec<(Py<PyNode>, u32)>,
    grads: &Bound<'_, PyAny>,
    inputs: Option<Vec<(Py<PyNode>, u32)>>,
    retain_graph: bool,
    create_graph: bool,
    allow_unused: bool,
) -> PyResult<Py<PyAny>> {
    let edge = |(node, nr): (Py<PyNode>, u32)| Edge { node: node.get().node.clone(), nr };
    let grads = required(grads, "grad_outputs")?;
    if grads.len() != roots.len() {
        return Err(PyRuntimeError::new_err(format!("got {} roots and {} gradients", roots.len(), grads.len())));
    }
    let roots: Vec<(Edge, Tensor)> = roots.into_iter().map(edge).zip(grads).collect();
    let inputs: Option<Vec<Edge>> = inputs.map(|i| i.into_iter().map(edge).collect());
    for e in roots.iter().map(|(e, _)| e).chain(inputs.iter().flatten()) {
        if e.nr as usize >= e.node.outputs().len() {
            return Err(PyIndexError::new_err(format!(
                "{} has {} outputs, there is no output {}",
                e.node.name(),
                e.node.outputs().len(),
                e.nr
            )));
        }
    }
    let options = GradOptions { retain_graph, create_graph, allow_unused };
    let results = py.detach(|| autograd::run_edges(roots.into_iter().collect(), inputs.as_deref(), options)).py()?;
    if inputs.is_none() {
        return Ok(py.None());
    }
    gradients_tuple(py, &results).map(|t| t.into_any().unbind())
}

/// Where a tensor's gradient goes: its node and the number of its output.
#[pyfunction]
fn _gradient_edge(py: Python<'_>, t: &Bound<'_, PyAny>) -> PyResult<Option<(Py<PyAny>, u32)>> {
    let t = extract(t).ok_or_else(|| PyTypeError::new_err(format!("expected Tensor, got {}", t.get_type())))?;
    let Some(edge) = t.gradient_edge().py()? else { return Ok(None) };
    let o = node_object(edge.node).py()?;
    // SAFETY: attached; a new reference.
    Ok(Some((unsafe { Bound::from_owned_ptr(py, o).unbind() }, edge.nr)))
}

/// The number of the backward pass that runs now, -1 outside.
#[pyfunction]
fn _current_graph_task_id() -> i64 {
    autograd::engine::current_pass().map_or(-1, |p| p as i64)
}
/// Whether a backward pass may be started from within the one that runs now, for the sake of leaves that it does not know.
#[pyfunction]
fn _is_checkpoint_valid() -> bool {
    autograd::engine::accumulates_everywhere()
}
/// Whether the backward pass that runs now goes through a node.
#[pyfunction]
fn _will_engine_execute_node(node: &Bound<'_, PyNode>) -> bool {
    autograd::engine::reaches(&node.get().node)
}

// ---- hooks on saved tensors, anomaly mode ----------------------------------------------------------------------------------

/// From now on nodes keep what `pack` makes of their saved tensors, and `unpack` gives back.
#[pyfunction]
fn _push_saved_hooks(pack: &Bound<'_, PyAny>, unpack: &Bound<'_, PyAny>) {
    let (pack, unpack) = (Held::new(pack), Arc::new(Held::new(unpack)));
    watch::push_saved_hooks(Arc::new(move |t: &Tensor| {
        let packed = crate::call::with_py(|py| Ok(Held::new(&pack.bind(py).call1((wrap_bound(py, t.clone())?,))?)))?;
        let unpack = unpack.clone();
        Ok(Box::new(move || {
            crate::call::with_py(|py| {
                let r = unpack.bind(py).call1((packed.bind(py),))?;
                extract(&r)
                    .cloned()
                    .ok_or_else(|| PyTypeError::new_err("Output of saved tensor unpack_hook expected to be a Tensor"))
            })
        }) as watch::Unpack)
    }));
}
#[pyfunction]
fn _pop_saved_hooks() {
    watch::pop_saved_hooks();
}

fn call_stack() -> String {
    let body = |py: Python<'_>| -> PyResult<String> {
        let lines: Vec<String> = py.import("traceback")?.call_method0("format_stack")?.extract()?;
        Ok(lines.concat())
    };
    Python::attach(|py| body(py).unwrap_or_default())
}
fn warn_of_failure(name: &str, trace: Option<&str>) {
    let text = match trace {
        Some(trace) => format!("Error detected in {name}. Traceback of forward call that caused the error:\n{trace}"),
        None => format!(
            "Error detected in {name}. No forward pass information available. Enable detect anomaly during forward pass for more \
             information."
        ),
    };
    // A warning that the user has turned into an error must not hide the failure itself.
    Python::attach(|py| {
        let _ = py.import("warnings").and_then(|w| w.call_method1("warn", (text,)));
    });
}
/// Turns anomaly mode on (with its check for NaN or without) or off.
#[pyfunction]
#[pyo3(signature = (on, check_nan=true))]
fn _set_anomaly(on: bool, check_nan: bool) {
    watch::set_reporter(watch::Reporter { trace: call_stack, warn: warn_of_failure });
    watch::set_anomaly(on.then_some(check_nan));
}
/// Whether `set_detect_anomaly` is on.
#[pyfunction]
fn is_anomaly_enabled() -> bool {
    watch::anomaly().is_some()
}
/// Whether anomaly mode looks for NaN.
#[pyfunction]
fn is_anomaly_check_nan_enabled() -> bool {
    watch::anomaly().unwrap_or(true)
}
/// Moves the version of a tensor's memory on, as a write in place does.
#[pyfunction]
fn _increment_version(t: &Bound<'_, PyAny>) -> PyResult<()> {
    let t = extract(t).ok_or_else(|| PyTypeError::new_err(format!("expected Tensor, got {}", t.get_type())))?;
    if t.is_inference() {
        return Err(PyRuntimeError::new_err("Inference tensors do not track version counter."));
    }
    t.bump_version();
    Ok(())
}

// ---- custom functions ---------------------------------------------------------------------------------------------------

/// A value that a custom function saved.
struct SavedValue {
    tensor: Tensor,
    version: u32,
    /// An output of the function itself is kept without its node, so that no cycle forms.
    output: Option<u32>,
    /// What hooks on saved tensors keep instead of the tensor, and the tensor's place in the graph.
    packed: Option<(watch::Unpack, Option<Edge>)>,
}

/// A custom function in the graph.
pub struct PythonFunction {
    name: String,
    class: Held,
    context: Held,
    saved: Mutex<Option<Vec<Option<SavedValue>>>>,
    outputs: Vec<InputInfo>,
    /// For each value that `forward` returned, its index among the tensors.
    returned: Vec<Option<usize>>,
    materialize: bool,
    /// For each argument of `forward`, its index among the tensors.
    tensors: Vec<Option<usize>>,
    /// The node itself, to give saved outputs their place in the graph.
    own: Mutex<std::sync::Weak<Node>>,
}

impl PythonFunction {
    /// The saved tensors, checked against later writes.
    fn unpack(&self) -> Result<Vec<Option<Tensor>>> {
        let guard = self.saved.lock();
        let Some(list) = guard.as_ref() else {
            bail!(
                Runtime,
                "Trying to backward through the graph a second time (or directly access saved tensors after they have already been \
                 freed). Saved intermediate values of the graph are freed when you call .backward() or autograd.grad(). Specify \
                 retain_graph=True if you need to backward through the graph a second time or if you need to access saved tensors \
                 after calling backward."
            );
        };
        list.iter()
            .map(|s| {
                let Some(s) = s else { return Ok(None) };
                if let Some((unpack, edge)) = &s.packed {
                    let t = unpack()?;
                    let own = s.output.and_then(|nr| self.own.lock().upgrade().map(|node| Edge { node, nr }));
                    return Ok(Some(match own.or_else(|| edge.clone()) {
                        Some(e) => custom::with_node(&t, e.node, e.nr),
                        None => t.detach(),
                    }));
                }
                let now = s.tensor.version();
                ensure!(
                    now == s.version,
                    Runtime,
                    "one of the variables needed for gradient computation has been modified by an inplace operation: \
                     [torch.{}Tensor {}] is at version {now}; expected version {} instead. Hint: enable anomaly detection to find the \
                     operation that failed to compute its gradient, with torch.autograd.set_detect_anomaly(True).",
                    s.tensor.dtype().title(),
                    Shape(&s.tensor.sizes()),
                    s.version
                );
                Ok(Some(match (s.output, self.own.lock().upgrade()) {
                    (Some(nr), Some(node)) => custom::with_node(&s.tensor, node, nr),
                    _ => s.tensor.clone(),
                }))
            })
            .collect()
    }
}

impl Backward for PythonFunction {
    fn name(&self) -> String {
        format!("{}Backward", self.name)
    }
    fn apply(&self, mut g: Vec<Option<Tensor>>, needs: Mask) -> Result<Vec<Option<Tensor>>> {
        if self.materialize {
            for (g, info) in g.iter_mut().zip(&self.outputs) {
                if g.is_none() {
                    *g = Some(flambeau::ops::factory::zeros(&info.sizes, info.dtype, info.device)?);
                }
            }
        }
        let saved = self.unpack()?;
        let count = self.tensors.iter().flatten().count();
        let results = crate::call::with_py(|py| {
            let context = self.context.bind(py);
            let saved: Vec<Py<PyAny>> = saved.iter().map(|t| optional_object(py, t)).collect::<PyResult<_>>()?;
            context.setattr("saved_tensors", PyTuple::new(py, saved)?)?;
            let mut args: Vec<Py<PyAny>> = vec![context.clone().unbind()];
            // A value that is no tensor has a place in backward too.
            for k in &self.returned {
                args.push(optional_object(py, k.and_then(|k| g.get(k)).unwrap_or(&None))?);
            }
            let class = self.class.bind(py);
            let base = py.import("flambeau.autograd.function")?.getattr("Function")?;
            // `vjp` is the other name under which a backward may be written.
            let f = if class.getattr("backward")?.is(&base.getattr("backward")?) {
                class.getattr("vjp")?
            } else {
                class.getattr("backward")?
            };
            let r = f.call1(PyTuple::new(py, args)?);
            // The context must not keep what the graph releases.
            let _ = context.delattr("saved_tensors");
            tensors_or_error(&r?, &self.name)
        })?;
        if results.len() < self.tensors.len() || results[self.tensors.len()..].iter().any(Option::is_some) {
            bail!(
                Runtime,
                "function {}Backward returned an incorrect number of gradients (expected {}, got {})",
                self.name,
                self.tensors.len(),
                results.len()
            );
        }
        let mut out = vec![None; count];
        for (i, (g, tensor)) in results.into_iter().zip(&self.tensors).enumerate() {
            match (g, tensor) {
                (Some(g), Some(k))
                    if needs & (1 << (*k).min(15)) != 0 => {
                        out[*k] = Some(g);
                    }
                (Some(_), None) => bail!(
                    Runtime,
                    "function {}Backward returned a gradient different from None at position {}, but the corresponding forward input was \
                     not a Variable",
                    self.name,
                    i + 1
                ),
                _ => {}
            }
        }
        Ok(out)
    }
    fn release(&self) {
        *self.saved.lock() = None;
    }
    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}

fn tensors_or_error(r: &Bound<'_, PyAny>, name: &str) -> PyResult<Vec<Option<Tensor>>> {
    tensors_of(r).map_err(|_| {
        PyTypeError::new_err(format!(
            "{name}Backward: backward must return a Tensor, None, or a tuple of them, not {}",
            // SAFETY: attached.
            unsafe { type_name(r.as_ptr()) }
        ))
    })
}

/// Runs `cls.forward` on `args` and records it.
#[pyfunction]
fn _function_apply(py: Python<'_>, cls: &Bound<'_, PyAny>, args: &Bound<'_, PyTuple>) -> PyResult<Py<PyAny>> {
    let module = py.import("flambeau.autograd.function")?;
    let base = module.getattr("Function")?;
    let context = module.getattr("FunctionCtx")?.call0()?;
    let mut inputs: Vec<Tensor> = Vec::new();
    let mut positions: Vec<Option<usize>> = Vec::new();
    for a in args.iter() {
        positions.push(extract(&a).map(|t| {
            inputs.push(t.clone());
            inputs.len() - 1
        }));
    }
    let needs: Vec<bool> = args.iter().map(|a| extract(&a).is_some_and(Tensor::requires_grad)).collect();
    context.setattr("needs_input_grad", PyTuple::new(py, needs)?)?;
    let split = !cls.getattr("setup_context")?.is(&base.getattr("setup_context")?);
    let output = {
        let _off = flambeau::mode::no_grad();
        if split {
            let output = cls.getattr("forward")?.call1(args.clone())?;
            cls.getattr("setup_context")?.call1((&context, args, &output))?;
            output
        } else {
            let mut full: Vec<Bound<'_, PyAny>> = vec![context.clone()];
            full.extend(args.iter());
            cls.getattr("forward")?.call1(PyTuple::new(py, full)?)?
        }
    };
    // SAFETY: attached.
    let several = unsafe { PyTuple_Check(output.as_ptr()) != 0 };
    let items: Vec<Bound<'_, PyAny>> =
        if several { output.try_iter()?.collect::<PyResult<_>>()? } else { vec![output.clone()] };
    if !several && extract(&output).is_none() {
        return Err(PyTypeError::new_err(format!(
            "{}.forward: expected Tensor or tuple of Tensor (got {}) for return value 0",
            cls.getattr("__name__")?,
            output.get_type().name()?
        )));
    }
    let marked = |attribute: &str| -> PyResult<Vec<Tensor>> {
        Ok(tensors_of(&context.getattr(attribute)?)?.into_iter().flatten().collect())
    };
    let (dirty, constant) = (marked("_dirty")?, marked("_non_differentiable")?);
    let mut outputs: Vec<(Tensor, CustomOutput)> = Vec::new();
    let mut numbers: Vec<Option<usize>> = Vec::new();
    for o in &items {
        let Some(t) = extract(o) else {
            numbers.push(None);
            continue;
        };
        let kind = if constant.iter().any(|c| c.is_same(t)) || !t.dtype().is_differentiable() {
            CustomOutput::Constant
        } else if dirty.iter().any(|d| d.is_same(t)) {
            CustomOutput::Dirty
        } else if inputs.iter().any(|i| i.is_same(t)) {
            CustomOutput::Input
        } else {
            CustomOutput::Fresh
        };
        numbers.push(Some(outputs.len()));
        outputs.push((t.clone(), kind));
    }
    let saved = tensors_of(&context.getattr("_to_save")?)?;
    let refs: Vec<&Tensor> = inputs.iter().collect();
    let name: String = cls.getattr("__name__")?.extract()?;
    let materialize: bool = context.getattr("_materialize_grads")?.extract()?;
    let kept: Vec<Option<SavedValue>> = saved
        .into_iter()
        .map(|t| {
            t.map(|t| {
                let nr = outputs
                    .iter()
                    .position(|(o, k)| o.is_same(&t) && matches!(k, CustomOutput::Fresh | CustomOutput::Dirty));
                let mut saved = SavedValue {
                    version: t.version(),
                    tensor: if nr.is_some() { t.detach() } else { t },
                    output: nr.map(|n| n as u32),
                    packed: None,
                };
                if let Some(unpack) = watch::pack(&saved.tensor)? {
                    let edge = if nr.is_some() { None } else { saved.tensor.gradient_edge()? };
                    saved.tensor = flambeau::ops::factory::empty(&[0], saved.tensor.dtype(), flambeau::Device::Cpu)?;
                    saved.packed = Some((unpack, edge));
                }
                Ok(saved)
            })
            .transpose()
        })
        .collect::<Result<_>>()
        .py()?;
    let has_dirty = !dirty.is_empty();
    let mut kept = Some(kept);
    let (results, node) = custom::link(&refs, &outputs, |infos| {
        Box::new(PythonFunction {
            name,
            class: Held::new(cls),
            context: Held::new(&context),
            saved: Mutex::new(kept.take()),
            outputs: infos.to_vec(),
            returned: numbers.clone(),
            materialize,
            tensors: positions.clone(),
            own: Mutex::new(std::sync::Weak::new()),
        })
    })
    .py()?;
    if let Some(node) = &node {
        if let Some(f) = node.custom_function().and_then(|f| f.as_any().downcast_ref::<PythonFunction>()) {
            *f.own.lock() = Arc::downgrade(node);
            let _ = has_dirty;
        }
    }
    let wrapped: Vec<Py<PyAny>> = items
        .iter()
        .zip(&numbers)
        .map(|(o, n)| match n {
            Some(n) => Ok(wrap_bound(py, results[*n].clone())?.unbind()),
            None => Ok(o.clone().unbind()),
        })
        .collect::<PyResult<_>>()?;
    if several {
        return Ok(PyTuple::new(py, wrapped)?.into_any().unbind());
    }
    wrapped.into_iter().next().ok_or_else(|| PyRuntimeError::new_err("a custom function without outputs"))
}

/// Adds everything here to the module.
pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<PyNode>()?;
    m.add_class::<RemovableHandle>()?;
    macro_rules! functions {
        ($($f:ident)*) => { $( m.add_function(wrap_pyfunction!($f, m)?)?; )* };
    }
    functions!(_is_checkpoint_valid _current_graph_task_id _will_engine_execute_node _engine_backward_edges _gradient_edge _push_saved_hooks _pop_saved_hooks _set_anomaly is_anomaly_enabled
        is_anomaly_check_nan_enabled _increment_version);
    m.add_function(wrap_pyfunction!(_engine_backward, m)?)?;
    let _ = err!(Runtime, "");
    m.add_function(wrap_pyfunction!(_function_apply, m)?)
}
