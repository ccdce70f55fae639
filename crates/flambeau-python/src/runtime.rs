//! Process and thread settings: gradient modes, vmap levels, recording, threads, CUDA, files.

use crate::error::*;
use crate::tensor::*;
use flambeau::core::OptimizerStep;
use flambeau::{batch, graph, mode, Device, Tensor};
use pyo3::exceptions::*;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use std::collections::HashMap;
use std::path::PathBuf;

#[pyfunction]
fn _set_grad_enabled(on: bool) {
    mode::set(mode::NO_GRAD, !on);
}
/// Whether operators record gradients.
#[pyfunction]
fn is_grad_enabled() -> bool {
    mode::current() & mode::NO_GRAD == 0
}
#[pyfunction]
fn _set_inference_mode(on: bool) {
    mode::set(mode::INFERENCE, on);
}
/// Whether `inference_mode` is on.
#[pyfunction]
fn is_inference_mode_enabled() -> bool {
    mode::inference()
}

fn tensor_arg<'a>(o: &'a Bound<'_, PyAny>) -> PyResult<&'a Tensor> {
    extract(o).ok_or_else(|| PyTypeError::new_err(format!("expected Tensor, got {}", o.get_type())))
}

#[pyfunction]
#[pyo3(signature = (batch_size, randomness="error"))]
fn _vmap_enter(batch_size: i64, randomness: &str) -> PyResult<u32> {
    let randomness = match randomness {
        "error" => batch::Randomness::Error,
        "different" => batch::Randomness::Different,
        "same" => batch::Randomness::Same,
        _ => {
            return Err(PyRuntimeError::new_err(format!(
                "Only allowed values for randomness are 'error', 'different', or 'same'. Got {randomness}"
            )))
        }
    };
    Ok(batch::enter(batch_size, randomness))
}
#[pyfunction]
fn _vmap_exit(level: u32) {
    batch::exit(level);
}
#[pyfunction]
fn _add_batch_dim<'py>(t: &Bound<'py, PyAny>, dim: i64, level: u32) -> PyResult<Bound<'py, PyAny>> {
    wrap_bound(t.py(), batch::add_batch_dim(tensor_arg(t)?, dim, level).py()?)
}
#[pyfunction]
fn _remove_batch_dim<'py>(
    t: &Bound<'py, PyAny>,
    level: u32,
    batch_size: i64,
    out_dim: i64,
) -> PyResult<Bound<'py, PyAny>> {
    wrap_bound(t.py(), batch::remove_batch_dim(tensor_arg(t)?, level, batch_size, out_dim).py()?)
}
#[pyfunction]
fn _vmap_lift<'py>(t: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    wrap_bound(t.py(), batch::lift(tensor_arg(t)?).py()?)
}
#[pyfunction]
fn _is_batched_at(t: &Bound<'_, PyAny>, level: u32) -> PyResult<bool> {
    Ok(tensor_arg(t)?.as_batched().is_some_and(|b| b.level == level))
}
/// The tensor with the dimension of the batch.
#[pyfunction]
fn _behind_batch<'py>(t: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let inner = tensor_arg(t)?;
    wrap_bound(t.py(), inner.as_batched().map_or_else(|| inner.clone(), |b| b.value.clone()))
}
#[pyfunction]
fn _is_batched(t: &Bound<'_, PyAny>) -> PyResult<bool> {
    Ok(tensor_arg(t)?.as_batched().is_some())
}

#[pyfunction]
fn _record_enter() {
    graph::enter();
}
#[pyfunction]
fn _record_exit(py: Python<'_>) -> PyResult<()> {
    py.detach(graph::exit).py()
}
#[pyfunction]
fn _record_flush(py: Python<'_>) -> PyResult<()> {
    py.detach(graph::flush).py()
}
#[pyfunction]
fn _plan_stats(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let s = graph::stats();
    let d = PyDict::new(py);
    d.set_item("plans", s.plans)?;
    d.set_item("hits", s.hits)?;
    d.set_item("misses", s.misses)?;
    d.set_item("fused", s.fused)?;
    Ok(d)
}

/// Sets how many threads operators use; results do not depend on it.
#[pyfunction]
fn set_num_threads(n: i64) -> PyResult<()> {
    if n < 1 {
        return Err(PyRuntimeError::new_err("set_num_threads expects a positive integer"));
    }
    flambeau::cpu::set_num_threads(n as usize);
    Ok(())
}
/// How many threads operators use.
#[pyfunction]
fn get_num_threads() -> usize {
    flambeau::cpu::num_threads()
}
#[pyfunction]
fn get_num_interop_threads() -> usize {
    1
}
#[pyfunction]
fn set_num_interop_threads(_n: i64) {}

#[pyfunction]
fn _cuda_is_available() -> bool {
    flambeau::cuda::is_available()
}
#[pyfunction]
fn _cuda_device_count() -> usize {
    flambeau::cuda::device_count()
}
#[pyfunction]
#[pyo3(signature = (index=0))]
fn _cuda_synchronize(py: Python<'_>, index: u16) -> PyResult<()> {
    py.detach(|| flambeau::apply::backend(Device::Cuda(index)).and_then(|b| b.synchronize())).py()
}
/// Where memory is asked about: the CPU, or a CUDA device by its index.
fn place(index: Option<u16>) -> Device {
    index.map_or(Device::Cpu, Device::Cuda)
}
/// Bytes allocated now and at most, bytes reserved now and at most. `None` is the CPU.
#[pyfunction]
fn _memory_stats(index: Option<u16>) -> PyResult<(usize, usize, usize, usize)> {
    let stats = flambeau::apply::backend(place(index)).py()?.memory_stats();
    Ok((stats.allocated.current, stats.allocated.peak, stats.reserved.current, stats.reserved.peak))
}
#[pyfunction]
fn _reset_peak_memory_stats(index: Option<u16>) -> PyResult<()> {
    flambeau::apply::backend(place(index)).py()?.reset_peak_memory_stats();
    Ok(())
}
#[pyfunction]
fn _empty_cache(index: Option<u16>) -> PyResult<()> {
    flambeau::apply::backend(place(index)).py()?.trim();
    Ok(())
}
/// Bytes free on a CUDA device, and bytes that it has.
#[pyfunction]
fn _cuda_memory_info(index: u16) -> PyResult<(usize, usize)> {
    flambeau::cuda::memory_info(index).py()
}

#[pyfunction]
fn _cuda_device_name(index: u16) -> PyResult<String> {
    flambeau::cuda::device_name(index).py()
}
#[pyfunction]
fn _cuda_device_capability(index: u16) -> PyResult<(i32, i32)> {
    flambeau::cuda::device_capability(index).py()
}
// ---- optimizer steps ----------------------------------------------------------------------------------------------------

/// One optimizer step over lists of tensors. `kind` is "sgd" or "adam"; `numbers` are the step's fields by name.
#[pyfunction]
fn _optimizer_step(
    py: Python<'_>,
    kind: &str,
    lists: Vec<Bound<'_, PyList>>,
    numbers: &Bound<'_, PyDict>,
) -> PyResult<()> {
    let lists: Vec<Vec<Tensor>> = lists
        .iter()
        .map(|l| l.iter().map(|t| tensor_arg(&t).cloned()).collect::<PyResult<_>>())
        .collect::<PyResult<_>>()?;
    macro_rules! get {
        ($name:literal) => {
            match numbers.get_item(intern!(py, $name))? {
                Some(x) => x.extract::<f64>()?,
                None => return Err(PyTypeError::new_err(concat!("optimizer step: '", $name, "' is missing"))),
            }
        };
    }
    macro_rules! flag {
        ($name:literal) => {
            match numbers.get_item(intern!(py, $name))? {
                Some(x) => x.is_truthy()?,
                None => false,
            }
        };
    }
    let step = match kind {
        "sgd" => OptimizerStep::Sgd {
            lr: get!("lr"),
            momentum: get!("momentum"),
            dampening: get!("dampening"),
            weight_decay: get!("weight_decay"),
            nesterov: flag!("nesterov"),
            maximize: flag!("maximize"),
            first: flag!("first"),
        },
        "adam" => OptimizerStep::Adam {
            lr: get!("lr"),
            beta1: get!("beta1"),
            beta2: get!("beta2"),
            eps: get!("eps"),
            weight_decay: get!("weight_decay"),
            decoupled: flag!("decoupled"),
            amsgrad: flag!("amsgrad"),
            maximize: flag!("maximize"),
            step: get!("step"),
        },
        _ => return Err(PyValueError::new_err(format!("no optimizer step named '{kind}'"))),
    };
    // Letting other threads run costs more than the step of a few small parameters.
    if lists.first().is_some_and(|params| params.iter().any(Tensor::is_large)) {
        py.detach(|| flambeau::ops::optimizer::step(&step, &lists)).py()
    } else {
        flambeau::ops::optimizer::step(&step, &lists).py()
    }
}
/// The parameters that have a gradient, and the gradients.
#[pyfunction]
fn _gradients<'py>(py: Python<'py>, params: &Bound<'py, PyAny>) -> PyResult<(Bound<'py, PyList>, Bound<'py, PyList>)> {
    let (with, grads) = (PyList::empty(py), PyList::empty(py));
    for p in params.try_iter()? {
        let p = p?;
        if let Some(g) = tensor_arg(&p)?.grad() {
            with.append(p)?;
            grads.append(wrap_bound(py, g)?)?;
        }
    }
    Ok((with, grads))
}
/// Whether any of the tensors is sparse.
#[pyfunction]
fn _any_sparse(tensors: &Bound<'_, PyList>) -> PyResult<bool> {
    for t in tensors {
        if tensor_arg(&t)?.layout() == flambeau::tensor::TensorLayout::SparseCoo {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether any of the tensors is complex.
#[pyfunction]
fn _any_complex(tensors: &Bound<'_, PyList>) -> PyResult<bool> {
    for t in tensors {
        if tensor_arg(&t)?.dtype().is_complex() {
            return Ok(true);
        }
    }
    Ok(false)
}

// ---- files --------------------------------------------------------------------------------------------------------------

/// Writes a dict of tensors to a safetensors file.
#[pyfunction]
#[pyo3(signature = (tensors, path, metadata=None))]
fn _safetensors_save(
    py: Python<'_>,
    tensors: &Bound<'_, PyDict>,
    path: PathBuf,
    metadata: Option<HashMap<String, String>>,
) -> PyResult<()> {
    let list: Vec<(String, Tensor)> =
        tensors.iter().map(|(k, v)| Ok((k.extract::<String>()?, tensor_arg(&v)?.clone()))).collect::<PyResult<_>>()?;
    py.detach(|| flambeau::io::save_safetensors(&path, &list, metadata)).py()
}
/// The tensors of a safetensors file, by name.
#[pyfunction]
fn _safetensors_load(py: Python<'_>, path: PathBuf) -> PyResult<Bound<'_, PyDict>> {
    let list = py.detach(|| flambeau::io::load_safetensors(&path)).py()?;
    let d = PyDict::new(py);
    for (name, t) in list {
        d.set_item(name, wrap_bound(py, t)?)?;
    }
    Ok(d)
}

/// Adds everything here to the module.
pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    macro_rules! functions {
        ($($f:ident)*) => { $( m.add_function(wrap_pyfunction!($f, m)?)?; )* };
    }
    functions!(_set_grad_enabled is_grad_enabled _set_inference_mode is_inference_mode_enabled _vmap_enter _vmap_exit
        _add_batch_dim _remove_batch_dim _vmap_lift _is_batched _is_batched_at _behind_batch _record_enter _record_exit _record_flush _plan_stats
        set_num_threads get_num_threads get_num_interop_threads set_num_interop_threads
        _cuda_is_available _cuda_device_count _cuda_synchronize _memory_stats _reset_peak_memory_stats _empty_cache _cuda_memory_info
        _cuda_device_name _cuda_device_capability _optimizer_step _gradients _any_sparse _any_complex _safetensors_save _safetensors_load);
    let make = wrap_pyfunction!(crate::signatures::tensor::make_subclass, m)?;
    let descriptor = m.py().import("builtins")?.getattr("staticmethod")?.call1((make,))?;
    m.getattr("Tensor")?.setattr("_make_subclass", descriptor)?;
    m.add_function(wrap_pyfunction!(crate::signatures::tensor::_rebuild_tensor, m)?)
}
