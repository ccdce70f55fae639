//! `__torch_function__`: types that answer for operators themselves, and subclasses whose type results take.

use crate::binder::Operator;
use crate::raw::*;
use crate::tensor::*;
use pyo3::exceptions::PyTypeError;
use pyo3::ffi::*;
use pyo3::prelude::*;
use smallvec::SmallVec;
use std::cell::Cell;
use std::ptr::null_mut;

/// What a type says about `__torch_function__`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Nothing: not a tensor and no override.
    None,
    /// A tensor's subclass that switched it off (parameters): plain results.
    Disabled,
    /// A tensor's subclass that inherits the default: results take its type.
    Inherit,
    /// It answers itself.
    Custom,
}

static NAME: Global = Global::new();
static DISABLED: Global = Global::new();
/// A few types known to be `Disabled`, held for ever: parameters are met at every step.
static KNOWN: [Global; 4] = [const { Global::new() }; 4];

thread_local! {
    static OFF: Cell<bool> = const { Cell::new(false) };
}

/// Whether overrides are looked at in this thread.
pub fn enabled() -> bool {
    !OFF.with(Cell::get)
}

/// Sets whether overrides are ignored; returns the old value.
#[pyfunction]
fn _set_torch_function_disabled(off: bool) -> bool {
    OFF.with(|c| c.replace(off))
}

/// What `ty` says.
///
/// # Safety
/// The interpreter is attached.
pub unsafe fn of_type(ty: *mut PyTypeObject) -> Kind {
    if KNOWN.iter().any(|k| k.ty() == ty) {
        return Kind::Disabled;
    }
    // Plain objects that cannot override: the usual mistake of passing one must stay cheap.
    if ty == Py_TYPE(Py_None())
        || ty == &raw mut PyUnicode_Type
        || ty == &raw mut PyTuple_Type
        || ty == &raw mut PyList_Type
        || ty == &raw mut PyDict_Type
    {
        return Kind::None;
    }
    if ty == TENSOR.ty() {
        return Kind::None;
    }
    let f = optional_attr(ty.cast(), NAME.get());
    if f.is_null() {
        return Kind::None;
    }
    let kind = if f == DISABLED.get() {
        if let Some(free) = KNOWN.iter().find(|k| k.get().is_null()) {
            free.set(new_ref(ty.cast()));
        }
        Kind::Disabled
    } else if PyCFunction_Check(f) != 0
        && PyCFunction_GetFunction(f).map(|p| p as usize) == Some(default_function as *const () as usize)
    {
        Kind::Inherit
    } else {
        Kind::Custom
    };
    Py_DECREF(f);
    kind
}

/// Asks the overriding arguments, subclasses first, for the result of an operator.
///
/// # Safety
/// The interpreter is attached; `given` and `kw` are a vectorcall's arguments.
pub unsafe fn call(op: &Operator, overriders: &[Obj], this: Obj, given: *const Obj, n: usize, kw: Obj) -> Obj {
    let func = if this.is_null() || op.method.get().is_null() { op.function.get() } else { op.method.get() };
    let mut items: SmallVec<[Obj; 8]> = SmallVec::new();
    if !this.is_null() {
        items.push(new_ref(this));
    }
    for i in 0..n {
        items.push(new_ref(*given.add(i)));
    }
    let args = tuple_from(&items);
    let kwargs = PyDict_New();
    if !kw.is_null() {
        for k in 0..PyTuple_Size(kw) {
            PyDict_SetItem(kwargs, PyTuple_GetItem(kw, k), *given.add(n + k as usize));
        }
    }
    let r = ask(func, op.path, overriders, args, kwargs);
    Py_DECREF(args);
    Py_DECREF(kwargs);
    r
}

/// [`call`] with the arguments as a tuple and a dict.
///
/// # Safety
/// The interpreter is attached.
pub unsafe fn ask(func: Obj, name: &str, overriders: &[Obj], args: Obj, kwargs: Obj) -> Obj {
    // One of each type; a subclass before its bases.
    let mut order: SmallVec<[Obj; 4]> = SmallVec::new();
    for &o in overriders {
        if order.iter().any(|&p| Py_TYPE(p) == Py_TYPE(o)) {
            continue;
        }
        let at = order.iter().position(|&p| PyType_IsSubtype(Py_TYPE(o), Py_TYPE(p)) != 0).unwrap_or(order.len());
        order.insert(at, o);
    }
    let types: SmallVec<[Obj; 4]> = order.iter().map(|&o| new_ref(Py_TYPE(o).cast())).collect();
    let types = tuple_from(&types);
    let mut result = null_mut();
    for &o in &order {
        let f = PyObject_GetAttr(o, NAME.get());
        if f.is_null() {
            break;
        }
        result = PyObject_CallFunctionObjArgs(f, func, types, args, kwargs, null_mut::<PyObject>());
        Py_DECREF(f);
        if result != Py_NotImplemented() {
            break;
        }
        Py_DECREF(result);
        result = null_mut();
    }
    Py_DECREF(types);
    if result.is_null() && PyErr_Occurred().is_null() {
        let names: Vec<String> = order.iter().map(|&o| repr_of(Py_TYPE(o).cast())).collect();
        Python::attach(|py| {
            PyTypeError::new_err(format!(
                "no implementation found for 'torch.{name}' on types that implement __torch_function__: [{}]",
                names.join(", ")
            ))
            .restore(py)
        });
    }
    result
}

/// Gives a result, or the tensors in a tuple or list, the type `subclass`. Takes and gives a reference.
///
/// # Safety
/// The interpreter is attached and `subclass` is a subtype of `Tensor`.
pub unsafe fn convert(o: Obj, subclass: *mut PyTypeObject) -> Obj {
    if o.is_null() || subclass.is_null() || subclass == TENSOR.ty() {
        return o;
    }
    if is_tensor(o) {
        if PyType_IsSubtype(Py_TYPE(o), subclass) != 0 || !is_exact(o) {
            return o;
        }
        let t = tensor_of(o).clone();
        if Py_REFCNT(o) == 1 {
            // Fresh: nobody knows the plain wrapper yet.
            t.set_wrapper(null_mut());
            Py_DECREF(o);
            return wrap_as(subclass, t);
        }
        let alias = flambeau::ops::view::view(&t, &t.sizes());
        Py_DECREF(o);
        return match alias {
            Ok(t) => wrap_as(subclass, t),
            Err(e) => crate::error::raise(e),
        };
    }
    if Py_TYPE(o) == &raw mut PyTuple_Type || Py_TYPE(o) == &raw mut PyList_Type {
        let items: SmallVec<[Obj; 4]> =
            (0..sequence_len(o)).map(|i| convert(new_ref(sequence_item(o, i)), subclass)).collect();
        let tuple = tuple_from(&items);
        let list = Py_TYPE(o) == &raw mut PyList_Type;
        Py_DECREF(o);
        if list && !tuple.is_null() {
            let l = PySequence_List(tuple);
            Py_DECREF(tuple);
            return l;
        }
        return tuple;
    }
    o
}

/// `Tensor.__torch_function__(func, types, args=(), kwargs=None)`: the operator itself, its results in the subclass.
unsafe extern "C" fn default_function(cls: Obj, given: *const Obj, n: Py_ssize_t, kw: Obj) -> Obj {
    crate::error::guard(null_mut(), || {
        let named = |name: &str, i: usize| -> Obj {
            if (i as Py_ssize_t) < n {
                return *given.add(i);
            }
            if !kw.is_null() {
                for k in 0..PyTuple_Size(kw) {
                    if str_of(PyTuple_GetItem(kw, k)) == name {
                        return *given.offset(n + k);
                    }
                }
            }
            null_mut()
        };
        let (func, types, args, kwargs) = (named("func", 0), named("types", 1), named("args", 2), named("kwargs", 3));
        if func.is_null() || types.is_null() {
            return crate::error::raise_py(PyTypeError::new_err(
                "__torch_function__() takes func, types, args and kwargs",
            ));
        }
        if is_sequence(types) {
            for i in 0..sequence_len(types) {
                let r = PyObject_IsSubclass(cls, sequence_item(types, i));
                if r < 0 {
                    return null_mut();
                }
                if r == 0 {
                    return not_implemented();
                }
            }
        }
        let empty = PyTuple_New(0);
        let args = if args.is_null() { new_ref(empty) } else { PySequence_Tuple(args) };
        let kwargs = if kwargs.is_null() || kwargs == Py_None() { null_mut() } else { kwargs };
        let before = OFF.with(|c| c.replace(true));
        let r = if args.is_null() { null_mut() } else { PyObject_Call(func, args, kwargs) };
        OFF.with(|c| c.set(before));
        Py_XDECREF(args);
        Py_DECREF(empty);
        convert(r, cls.cast())
    })
}

/// `_disabled_torch_function_impl(func, types, args, kwargs)`: the operator itself.
unsafe extern "C" fn disabled_function(_: Obj, given: *const Obj, n: Py_ssize_t, _: Obj) -> Obj {
    crate::error::guard(null_mut(), || {
        let n = n as usize;
        if n < 1 {
            return crate::error::raise_py(PyTypeError::new_err(
                "_disabled_torch_function_impl() takes func, types, args and kwargs",
            ));
        }
        let args = if n > 2 { PySequence_Tuple(*given.add(2)) } else { PyTuple_New(0) };
        let kwargs = if n > 3 && *given.add(3) != Py_None() { *given.add(3) } else { null_mut() };
        let before = OFF.with(|c| c.replace(true));
        let r = if args.is_null() { null_mut() } else { PyObject_Call(*given, args, kwargs) };
        OFF.with(|c| c.set(before));
        Py_XDECREF(args);
        r
    })
}

/// Adds the default implementation to `Tensor` and the disabled one to the module.
pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = m.py();
    // SAFETY: attached; the method tables live for ever.
    unsafe {
        NAME.set(intern("__torch_function__"));
        let disabled = PyCFunction_NewEx(
            method_def("_disabled_torch_function_impl", "", disabled_function),
            null_mut(),
            null_mut(),
        );
        let disabled = Bound::from_owned_ptr_or_err(py, disabled)?;
        DISABLED.set(disabled.clone().into_ptr());
        m.add("_disabled_torch_function_impl", disabled)?;
        let def =
            method_def("__torch_function__", "Runs an operator and gives its results this class.", default_function);
        (*def).ml_flags |= METH_CLASS;
        let descr = Bound::from_owned_ptr_or_err(py, PyDescr_NewClassMethod(TENSOR.ty(), def))?;
        m.getattr("Tensor")?.setattr("__torch_function__", descr)?;
    }
    m.add_function(wrap_pyfunction!(_set_torch_function_disabled, m)?)
}
