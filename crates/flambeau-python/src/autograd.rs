//! Autograd as Python sees it: nodes, hooks, the engine's entry, custom functions.

use crate::error::*;
use crate::raw::*;
use crate::tensor::*;
use flambeau::autograd::custom::{self, CustomOutput};
use flambeau::autograd::meta::PostHook;
use flambeau::autograd::node::InputInfo;
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
    metadata: Py<PyDict>,
}

/// A node's object.
pub fn node_object(node: Arc<Node>) -> Result<Obj> {
    Python::attach(|py| {
        // The node of a custom function is its context.
        if let Some(f) = node.custom_function().and_then(|f| f.as_any().downcast_ref::<PythonFunction>()) {
            let o = f.node.lock();
            if let Some(o) = o.as_ref() {
                return Ok(o.bind(py).clone().into_ptr());
            }
        }
        let object =
            Bound::new(py, PyNode { node, metadata: PyDict::new(py).unbind() }).map_err(|e| from_python(py, e))?;
        Ok(object.into_any().into_ptr())
    })
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
    fn metadata(&self, py: Python<'_>) -> Py<PyDict> {
        self.metadata.clone_ref(py)
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

// ---- custom functions ---------------------------------------------------------------------------------------------------

/// A value that a custom function saved.
struct SavedValue {
    tensor: Tensor,
    version: u32,
    /// An output of the function itself is kept without its node, so that no cycle forms.
    output: Option<u32>,
}

/// A custom function in the graph.
pub struct PythonFunction {
    name: String,
    class: Held,
    context: Held,
    saved: Mutex<Option<Vec<Option<SavedValue>>>>,
    outputs: Vec<InputInfo>,
    materialize: bool,
    /// For each argument of `forward`, its index among the tensors.
    tensors: Vec<Option<usize>>,
    /// The Python object of this node, once made.
    node: Mutex<Option<Py<PyAny>>>,
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
            for g in &g {
                args.push(optional_object(py, g)?);
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
                SavedValue {
                    version: t.version(),
                    tensor: if nr.is_some() { t.detach() } else { t },
                    output: nr.map(|n| n as u32),
                }
            })
        })
        .collect();
    let has_dirty = !dirty.is_empty();
    let mut kept = Some(kept);
    let (results, node) = custom::link(&refs, &outputs, |infos| {
        Box::new(PythonFunction {
            name,
            class: Held::new(cls),
            context: Held::new(&context),
            saved: Mutex::new(kept.take()),
            outputs: infos.to_vec(),
            materialize,
            tensors: positions.clone(),
            node: Mutex::new(None),
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
    m.add_function(wrap_pyfunction!(_engine_backward, m)?)?;
    let _ = err!(Runtime, "");
    m.add_function(wrap_pyfunction!(_function_apply, m)?)
}
