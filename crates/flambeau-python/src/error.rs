//! Errors of the core as Python exceptions, and exceptions of Python code on their way through the core.

use crate::raw::*;
use flambeau::core::{Error, ErrorKind};
use pyo3::exceptions::*;
use pyo3::prelude::*;
use pyo3::{create_exception, ffi};
use std::cell::RefCell;
use std::panic::{catch_unwind, AssertUnwindSafe};

create_exception!(flambeau, OutOfMemoryError, PyRuntimeError, "Raised when a device has no memory left.");
create_exception!(flambeau, LinAlgError, PyRuntimeError, "Raised when a decomposition or an inverse does not exist.");

thread_local! {
    // The exception behind an `ErrorKind::Foreign` that is passing through the core.
    static FOREIGN: RefCell<Option<PyErr>> = const { RefCell::new(None) };
}

/// The exception that an error becomes.
pub fn to_python(e: Error) -> PyErr {
    let message = || e.message().to_owned();
    match e.kind() {
        ErrorKind::Runtime | ErrorKind::Batch => PyRuntimeError::new_err(message()),
        ErrorKind::Value => PyValueError::new_err(message()),
        ErrorKind::Index => PyIndexError::new_err(message()),
        ErrorKind::Type => PyTypeError::new_err(message()),
        ErrorKind::NotImplemented | ErrorKind::Unsupported => PyNotImplementedError::new_err(message()),
        ErrorKind::OutOfMemory => OutOfMemoryError::new_err(message()),
        ErrorKind::LinAlg => LinAlgError::new_err(message()),
        ErrorKind::Foreign => match FOREIGN.with(|f| f.borrow_mut().take()) {
            Some(own) => own,
            None => PyRuntimeError::new_err(message()),
        },
    }
}

/// An error that stands for a Python exception; [`to_python`] gives the exception back.
pub fn from_python(py: Python<'_>, e: PyErr) -> Error {
    let message = e.value(py).to_string();
    FOREIGN.with(|f| *f.borrow_mut() = Some(e));
    Error::new(ErrorKind::Foreign, message)
}

/// The exception that the C API has just set, as an error.
pub fn from_raised() -> Error {
    Python::attach(|py| {
        let e = PyErr::take(py).unwrap_or_else(|| PyRuntimeError::new_err("a call failed without saying why"));
        from_python(py, e)
    })
}

/// Sets the exception for an error; null, for functions that return it.
#[cold]
pub fn raise(e: Error) -> Obj {
    Python::attach(|py| to_python(e).restore(py));
    std::ptr::null_mut()
}

/// Sets the exception; null.
#[cold]
pub fn raise_py(e: PyErr) -> Obj {
    Python::attach(|py| e.restore(py));
    std::ptr::null_mut()
}

/// The last line of defence: a panic in the core becomes a `RuntimeError`.
pub fn guard<T>(failed: T, body: impl FnOnce() -> T) -> T {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(x) => x,
        Err(payload) => {
            let text = payload
                .downcast_ref::<&str>()
                .map(|s| s.to_string())
                .or_else(|| payload.downcast_ref::<String>().cloned())
                .unwrap_or_else(|| "unknown cause".into());
            raise(Error::new(ErrorKind::Runtime, format!("internal error, please report it: {text}")));
            failed
        }
    }
}

/// `Result` of the core into PyO3's.
pub trait IntoPy2<T> {
    /// The same, with the error as an exception.
    fn py(self) -> PyResult<T>;
}
impl<T> IntoPy2<T> for flambeau::Result<T> {
    fn py(self) -> PyResult<T> {
        self.map_err(to_python)
    }
}

/// PyO3's `Result` into the core's, keeping the exception.
pub trait IntoCore<T> {
    /// The same, with the exception as an error.
    fn core(self) -> flambeau::Result<T>;
}
impl<T> IntoCore<T> for PyResult<T> {
    fn core(self) -> flambeau::Result<T> {
        self.map_err(|e| Python::attach(|py| from_python(py, e)))
    }
}

/// Checks a C API result.
///
/// # Safety
/// The interpreter is attached and `o` is a new reference or null with an exception set.
pub unsafe fn checked(o: Obj) -> flambeau::Result<Obj> {
    if o.is_null() {
        Err(from_raised())
    } else {
        Ok(o)
    }
}

/// Adds the exception classes to the module.
pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = m.py();
    m.add("OutOfMemoryError", py.get_type::<OutOfMemoryError>())?;
    m.add("LinAlgError", py.get_type::<LinAlgError>())?;
    m.add("_LinAlgError", py.get_type::<LinAlgError>())?;
    let _ = ffi::Py_None;
    Ok(())
}
