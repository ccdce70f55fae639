//! The call of a layer (`nn.Module`): straight to `forward` unless a hook was ever registered. Every layer of every step comes
//! through here, and a call written in Python costs as much as a small operator.

use crate::raw::*;
use pyo3::ffi::*;
use pyo3::prelude::*;
use std::ffi::{c_int, c_void};
use std::mem::size_of;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, Ordering};

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

/// Adds the type, a base without fields.
pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    // SAFETY: `m` shows that the interpreter is attached; the slots live for ever, and each function has the signature that its
    // number calls for.
    unsafe {
        FORWARD.set(intern("forward"));
        WITH_HOOKS.set(intern("_call_with_hooks"));
        HOOKED.set(intern("_hooked"));
        let slots = Box::leak(Box::new([slot(Py_tp_call, call as *mut c_void), slot(0, null_mut())]));
        let mut spec = PyType_Spec {
            name: c"flambeau._ModuleCall".as_ptr(),
            basicsize: size_of::<PyObject>() as c_int,
            itemsize: 0,
            flags: (Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE) as _,
            slots: slots.as_mut_ptr(),
        };
        let ty = Bound::from_owned_ptr_or_err(m.py(), PyType_FromSpec(&mut spec))?;
        m.add("_ModuleCall", ty)?;
    }
    m.add_function(wrap_pyfunction!(_module_hooks_everywhere, m)?)?;
    m.add_function(wrap_pyfunction!(_module_failures, m)?)
}
