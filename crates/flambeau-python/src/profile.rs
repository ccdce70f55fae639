//! The profiler's handles for Python: begin, end, named ranges. Tables and traces are made of the events in Python.

use crate::call::{Arg, Arguments};
use crate::error::*;
use crate::types;
use flambeau::profile::{self, Event, Input, Kind, Options};
use flambeau::{Device, Number};
use pyo3::prelude::*;
use pyo3::types::{PyList, PyTuple};

/// What an operator was called with, in the order of its signature, without the arguments at the end that hold nothing.
///
/// # Safety
/// The first `n` slots were filled by the binder.
pub unsafe fn inputs(n: usize, args: &Arguments<'_>) -> Vec<Input> {
    let shape = |t: &flambeau::Tensor| {
        let m = t.meta();
        (m.sizes.clone(), m.dtype)
    };
    let list = (0..n).map(|i| match args.get(i) {
        Arg::Tensor(t) => {
            let (sizes, dtype) = shape(t);
            Input::Tensor(sizes, dtype)
        }
        Arg::Tensors(from, count) => {
            let given = args.tensors.get(from as usize..(from + count) as usize).unwrap_or(&[]);
            Input::List(given.iter().map(shape).collect())
        }
        Arg::Number(x) => Input::Number(x),
        Arg::Int(x) => Input::Number(Number::Int(x)),
        Arg::Float(x) => Input::Number(Number::Float(x)),
        Arg::Bool(x) => Input::Number(Number::Bool(x)),
        _ => Input::Other,
    });
    list.collect()
}

/// `trace` returns a number for the place where the program is; `wait_for` is a device whose work is waited for.
#[pyfunction]
#[pyo3(signature = (shapes, memory, flops, trace=None, wait_for=None))]
fn _profile_start(
    shapes: bool,
    memory: bool,
    flops: bool,
    trace: Option<Py<PyAny>>,
    wait_for: Option<u16>,
) -> PyResult<()> {
    let trace = trace.map(|f| {
        Box::new(move || {
            Python::attach(|py| {
                // A place that cannot be had is no reason to stop the program.
                f.call0(py).and_then(|place| place.extract::<u64>(py)).unwrap_or(0)
            })
        }) as Box<dyn Fn() -> u64>
    });
    profile::start(Options { shapes, memory, flops, trace, wait_for: wait_for.map(Device::Cuda) }).py()
}

/// The events since [`_profile_start`]: `(name, kind, start, end, parent, sequence, inputs, place, memory, flops, device)`, times in
/// nanoseconds.
#[pyfunction]
fn _profile_stop(py: Python<'_>) -> PyResult<Bound<'_, PyList>> {
    let events = profile::stop();
    let list = PyList::empty(py);
    for e in &events {
        list.append(event(py, e)?)?;
    }
    Ok(list)
}
fn event<'py>(py: Python<'py>, e: &Event) -> PyResult<Bound<'py, PyTuple>> {
    let kind = match e.kind {
        Kind::Operator => "operator",
        Kind::Backward => "backward",
        Kind::User => "user",
        Kind::Graph => "graph",
        Kind::Memory => "memory",
    };
    let inputs = e.inputs.iter().map(|i| input(py, i)).collect::<PyResult<Vec<_>>>()?;
    let head = (e.name.as_ref(), kind, e.start, e.end, e.parent, e.sequence);
    let tail = (inputs, e.trace, e.memory, e.flops, e.device.to_string());
    let head = head.into_pyobject(py)?;
    let tail = tail.into_pyobject(py)?;
    let parts: Vec<Bound<'py, PyAny>> = head.iter().chain(tail.iter()).collect();
    PyTuple::new(py, parts)
}
/// A tensor as `(sizes, dtype)`, a list of tensors as a list of those, a number as itself, anything else as `None`.
fn input<'py>(py: Python<'py>, i: &Input) -> PyResult<Bound<'py, PyAny>> {
    let tensor = |sizes: &[i64], dtype| -> PyResult<Bound<'py, PyAny>> {
        Ok((PyList::new(py, sizes)?, types::dtype_py(py, dtype)).into_pyobject(py)?.into_any())
    };
    Ok(match i {
        Input::Tensor(sizes, dtype) => tensor(sizes, *dtype)?,
        Input::List(list) => {
            let parts = list.iter().map(|(sizes, dtype)| tensor(sizes, *dtype)).collect::<PyResult<Vec<_>>>()?;
            PyList::new(py, parts)?.into_any()
        }
        // SAFETY: attached, and the result is a new reference.
        Input::Number(n) => unsafe { Bound::from_owned_ptr(py, crate::call::number_object(*n)) },
        Input::Other => py.None().into_bound(py),
    })
}

/// Begins a named range; its number, or `None` when nothing is noted.
#[pyfunction]
fn _profile_enter(name: String) -> Option<usize> {
    profile::begin(name, Vec::new())
}
/// Ends the range of this number.
#[pyfunction]
fn _profile_exit(number: usize) {
    profile::exit(number);
}
/// Whether this thread's events are noted.
#[pyfunction]
fn _profile_on() -> bool {
    profile::on()
}

/// Adds everything here to the module.
pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    macro_rules! functions {
        ($($f:ident)*) => { $( m.add_function(wrap_pyfunction!($f, m)?)?; )* };
    }
    functions!(_profile_start _profile_stop _profile_enter _profile_exit _profile_on);
    Ok(())
}
