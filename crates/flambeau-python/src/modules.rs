//! The call of a layer (`nn.Module`): straight to `forward` unless a hook was ever registered. Every layer of every step comes
//! through here, and a call written in Python costs as much as a small operator.

use crate::raw::*;
use pyo3::ffi::*;
use pyo3::prelude::*;
use pyo3::types::PyType;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::OnceLock;

static FORWARD: Global = Global::new();
static WITH_HOOKS: Global = Global::new();
static HOOKED: Global = Global::new();
/// What is told of an exception that leaves a module: `(module, exception, args, kwargs)`.
static NOTE: Global = Global::new();
/// Whether hooks on all modules were ever registered.
static EVERY: AtomicBool = AtomicBool::new(false);

unsafe extern "C" fn call(module: Obj, args: Obj, kwargs: Obj) -> Obj {
    let hooked = EVERY.load(Ordering::Relaxed) || is_hooked(module);
    let function = PyObject_GetAttr(module, if hooked { WITH_HOOKS.get() } else { FORWARD.get() });
    let result = if function.is_null() { null_mut() } else { PyObject_Call(function, args, kwargs) };
    Py_XDECREF(function);
    if result.is_null() {
        note(module, args, kwargs);
    }
    result
}

/// Whether the module's own `__dict__` says that it has hooks.
unsafe fn is_hooked(module: Obj) -> bool {
    let dict = PyObject_GenericGetDict(module, null_mut());
    if dict.is_null() {
        PyErr_Clear();
        return false;
    }
    let hooked = PyDict_GetItemWithError(dict, HOOKED.get()) == Py_True();
    Py_DECREF(dict);
    hooked
}

/// Tells of the exception that is set, which stays set.
#[cold]
unsafe fn note(module: Obj, args: Obj, kwargs: Obj) {
    if NOTE.get().is_null() || PyErr_ExceptionMatches(PyExc_Exception) == 0 {
        return;
    }
    let (mut ty, mut failure, mut traceback) = (null_mut(), null_mut(), null_mut());
    PyErr_Fetch(&mut ty, &mut failure, &mut traceback);
    PyErr_NormalizeException(&mut ty, &mut failure, &mut traceback);
    let named = if kwargs.is_null() { PyDict_New() } else { new_ref(kwargs) };
    let all = tuple_from(&[new_ref(module), new_ref(failure), new_ref(args), named]);
    let said = PyObject_Call(NOTE.get(), all, null_mut());
    Py_XDECREF(all);
    Py_XDECREF(said);
    PyErr_Clear();
    PyErr_Restore(ty, failure, traceback);
}

/// From now on every module looks for hooks on all modules.
#[pyfunction]
fn _module_hooks_everywhere() {
    EVERY.store(true, Ordering::Relaxed);
}
/// Sets what is told of exceptions that leave a module.
#[pyfunction]
fn _module_failures(note: Bound<'_, PyAny>) {
    NOTE.set(note.into_ptr());
}

/// Makes `ty.__call__`. A method that is put into the class: a base type with the slot would be in the way of `__class__`
/// assignments between layers.
#[pyfunction]
fn _module_calls(ty: &Bound<'_, PyType>) -> PyResult<()> {
    static DEFINITION: OnceLock<Definition> = OnceLock::new();
    let definition = DEFINITION.get_or_init(|| {
        Definition(PyMethodDef {
            ml_name: c"__call__".as_ptr(),
            ml_meth: PyMethodDefPointer { PyCFunctionWithKeywords: call },
            ml_flags: METH_VARARGS | METH_KEYWORDS,
            ml_doc: c"__call__($self, /, *args, **kwargs)\n--\n\nCalls `forward`, with the hooks that were registered."
                .as_ptr(),
        })
    });
    // SAFETY: attached; the definition lives for ever, and CPython does not write to it.
    let descriptor = unsafe {
        let o = PyDescr_NewMethod(ty.as_ptr().cast(), std::ptr::from_ref(&definition.0).cast_mut());
        Bound::from_owned_ptr_or_err(ty.py(), o)?
    };
    ty.setattr("__call__", descriptor)
}
struct Definition(PyMethodDef);
// SAFETY: pointers to constants.
unsafe impl Send for Definition {}
// SAFETY: as above.
unsafe impl Sync for Definition {}

/// Adds the functions.
pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    // SAFETY: `m` shows that the interpreter is attached.
    unsafe {
        FORWARD.set(intern("forward"));
        WITH_HOOKS.set(intern("_call_with_hooks"));
        HOOKED.set(intern("_hooked"));
    }
    m.add_function(wrap_pyfunction!(_module_calls, m)?)?;
    m.add_function(wrap_pyfunction!(_module_hooks_everywhere, m)?)?;
    m.add_function(wrap_pyfunction!(_module_failures, m)?)
}
