//! The `Tensor` type: object layout, identity, lifetime.
//!
//! A wrapper holds one reference to its core tensor, and the core tensor remembers its wrapper, so that the same tensor is
//! always the same object while that object lives. A wrapper that carries something of its own (a subclass, a filled
//! `__dict__`) must also outlive its last Python reference while the core holds the tensor (a saved parameter, a `.grad`):
//! when such a wrapper dies it hands itself over to the core, which releases it once it is the only one to know the tensor.

use crate::error::*;
use crate::raw::*;
use flambeau::Tensor;
use pyo3::ffi::*;
use pyo3::prelude::*;
use std::ffi::{c_int, c_void};
use std::mem::MaybeUninit;
use std::ptr::null_mut;

/// The object behind a Python tensor.
#[repr(C)]
pub struct TensorObject {
    base: PyObject,
    /// Null until `__new__` has filled it in.
    tensor: MaybeUninit<Option<Tensor>>,
    dict: Obj,
    weak: Obj,
}

/// The type `flambeau.Tensor`.
pub static TENSOR: Global = Global::new();

/// Whether `o` is a tensor or of a subclass.
///
/// # Safety
/// The interpreter is attached.
#[inline(always)]
pub unsafe fn is_tensor(o: Obj) -> bool {
    Py_TYPE(o) == TENSOR.ty() || PyType_IsSubtype(Py_TYPE(o), TENSOR.ty()) != 0
}
/// Whether `o` is a tensor and not of a subclass.
///
/// # Safety
/// The interpreter is attached.
#[inline(always)]
pub unsafe fn is_exact(o: Obj) -> bool {
    Py_TYPE(o) == TENSOR.ty()
}
/// The core tensor of a wrapper.
///
/// # Safety
/// `is_tensor(o)`, and the object outlives the result.
#[inline(always)]
pub unsafe fn tensor_of<'a>(o: Obj) -> &'a Tensor {
    match (*(o as *mut TensorObject)).tensor.assume_init_ref() {
        Some(t) => t,
        // `__new__` fills every object before anybody sees it.
        None => unreachable!("a tensor object without a tensor"),
    }
}

/// The wrapper of a tensor: the one it has, or a new one.
///
/// # Safety
/// The interpreter is attached.
#[inline]
pub unsafe fn wrap(t: Tensor) -> Obj {
    let existing = t.wrapper() as Obj;
    if !existing.is_null() {
        return new_ref(existing);
    }
    wrap_as(TENSOR.ty(), t)
}

/// A new wrapper of type `ty` for a tensor that has none.
///
/// # Safety
/// The interpreter is attached and `ty` is `Tensor` or a subclass.
#[inline]
pub unsafe fn wrap_as(ty: *mut PyTypeObject, t: Tensor) -> Obj {
    let o = PyType_GenericAlloc(ty, 0);
    if o.is_null() {
        return o;
    }
    t.set_wrapper(o as *mut u8);
    (*(o as *mut TensorObject)).tensor.write(Some(t));
    o
}

/// Wraps for PyO3 code.
pub fn wrap_bound(py: Python<'_>, t: Tensor) -> PyResult<Bound<'_, PyAny>> {
    // SAFETY: `py` shows that the interpreter is attached.
    unsafe { Bound::from_owned_ptr_or_err(py, wrap(t)) }
}
/// The core tensor of a PyO3 object, if it is one.
pub fn extract<'a>(o: &'a Bound<'_, PyAny>) -> Option<&'a Tensor> {
    // SAFETY: a `Bound` shows that the interpreter is attached, and keeps the object alive.
    unsafe { is_tensor(o.as_ptr()).then(|| tensor_of(o.as_ptr())) }
}

/// Hands a dying wrapper to the core when the core still holds the tensor; true when it lives on.
unsafe fn hand_over(o: Obj) -> bool {
    let object = &*(o as *mut TensorObject);
    let Some(t) = object.tensor.assume_init_ref() else { return false };
    let special = Py_TYPE(o) != TENSOR.ty() || (!object.dict.is_null() && PyDict_Size(object.dict) > 0);
    special && t.wrapper() == o as *mut u8 && t.own_wrapper()
}

/// Runs before a subclass's instance is taken apart.
unsafe extern "C" fn finalize(o: Obj) {
    if Py_TYPE(o) != TENSOR.ty() && hand_over(o) {
        // The reference that the core now owns.
        Py_INCREF(o);
    }
}

unsafe extern "C" fn dealloc(o: Obj) {
    let ty = Py_TYPE(o);
    let object = o as *mut TensorObject;
    if ty == TENSOR.ty() && !(*object).dict.is_null() && hand_over(o) {
        // From no references to the core's one: the object lives on, untouched.
        Py_INCREF(o);
        return;
    }
    PyObject_GC_UnTrack(o.cast());
    let tensor = (*object).tensor.assume_init_mut().take();
    if let Some(t) = &tensor {
        if t.wrapper() == o as *mut u8 {
            t.set_wrapper(null_mut());
        }
    }
    if !(*object).weak.is_null() {
        PyObject_ClearWeakRefs(o);
    }
    let dict = std::mem::replace(&mut (*object).dict, null_mut());
    Py_XDECREF(dict);
    drop(tensor);
    if ty == TENSOR.ty() {
        // What the slot below holds for a type that gives none.
        PyObject_GC_Del(o.cast());
    } else {
        let free: unsafe extern "C" fn(*mut c_void) = std::mem::transmute(PyType_GetSlot(ty, Py_tp_free));
        free(o.cast());
    }
    Py_DECREF(ty.cast());
}

unsafe extern "C" fn traverse(o: Obj, visit: visitproc, arg: *mut c_void) -> c_int {
    let object = o as *mut TensorObject;
    if !(*object).dict.is_null() {
        let r = visit((*object).dict, arg);
        if r != 0 {
            return r;
        }
    }
    visit(Py_TYPE(o).cast(), arg)
}

unsafe extern "C" fn clear(o: Obj) -> c_int {
    let object = o as *mut TensorObject;
    let dict = std::mem::replace(&mut (*object).dict, null_mut());
    Py_XDECREF(dict);
    0
}

/// Called by the core when it lets go of a wrapper that it kept alive.
fn release_wrapper(wrapper: *mut u8) {
    if wrapper.is_null() {
        return;
    }
    // The thread may hold the interpreter or not (an engine worker); attaching covers both, and while the interpreter
    // shuts down nothing needs to be released any more.
    let _ = Python::try_attach(|_| {
        // SAFETY: the core owned one reference to the wrapper and gives it up here.
        unsafe { Py_DECREF(wrapper as Obj) }
    });
}

/// `Tensor.__new__`: the legacy constructor, and the one that subclasses call.
unsafe extern "C" fn new(ty: *mut PyTypeObject, args: Obj, kwargs: Obj) -> Obj {
    guard(null_mut(), || match crate::construct::legacy(args, kwargs) {
        Ok(t) => {
            if t.wrapper().is_null() {
                wrap_as(ty, t)
            } else {
                wrap_as(ty, t.detach())
            }
        }
        Err(e) => raise(e),
    })
}

/// Makes the type. `base_slots` are the dunders and attributes of other modules.
pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    // SAFETY: `m` shows that the interpreter is attached; the tables given to `PyType_FromSpec` live for ever, and every slot's
    // function has the signature that its number calls for.
    unsafe {
        let members = Box::leak(Box::new([
            PyMemberDef {
                name: c"__dictoffset__".as_ptr(),
                type_code: Py_T_PYSSIZET,
                offset: std::mem::offset_of!(TensorObject, dict) as Py_ssize_t,
                flags: Py_READONLY,
                doc: std::ptr::null(),
            },
            PyMemberDef {
                name: c"__weaklistoffset__".as_ptr(),
                type_code: Py_T_PYSSIZET,
                offset: std::mem::offset_of!(TensorObject, weak) as Py_ssize_t,
                flags: Py_READONLY,
                doc: std::ptr::null(),
            },
            std::mem::zeroed(),
        ]));
        let mut slots = vec![
            slot(Py_tp_dealloc, dealloc as *mut c_void),
            slot(Py_tp_finalize, finalize as *mut c_void),
            slot(Py_tp_traverse, traverse as *mut c_void),
            slot(Py_tp_clear, clear as *mut c_void),
            slot(Py_tp_new, new as *mut c_void),
            slot(Py_tp_members, members.as_mut_ptr().cast()),
            slot(Py_tp_getset, crate::attributes::table().cast()),
            slot(
                Py_tp_doc,
                c"A multi-dimensional array with a dtype, a device and a place in the autograd graph.".as_ptr()
                    as *mut c_void,
            ),
        ];
        slots.extend(crate::slots::table());
        slots.push(slot(0, null_mut()));
        let slots = Box::leak(slots.into_boxed_slice());
        let mut spec = PyType_Spec {
            name: c"flambeau.Tensor".as_ptr(),
            basicsize: std::mem::size_of::<TensorObject>() as c_int,
            itemsize: 0,
            flags: (Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC) as _,
            slots: slots.as_mut_ptr(),
        };
        let ty = PyType_FromSpec(&mut spec);
        let ty = Bound::from_owned_ptr_or_err(m.py(), ty)?;
        TENSOR.set(ty.clone().into_ptr());
        Tensor::on_release_wrapper(release_wrapper);
        ty.setattr("__array_priority__", 1000)?;
        m.add("Tensor", ty)?;
    }
    Ok(())
}
