//! The raw C API that the hot paths use: calls that PyO3's safe types would make slower or cannot express (heap types with
//! hand-written slots, vectorcall functions). Only calls of the stable ABI are used.
//!
//! Conventions: an [`Obj`] argument is borrowed, an [`Obj`] result is a new reference or null with an exception set. Every
//! function here needs the interpreter attached to the thread, which is the invariant of its `unsafe`.

use pyo3::ffi::*;
use std::ffi::{c_int, c_void, CStr, CString};
use std::sync::atomic::{AtomicPtr, Ordering};

/// A Python object.
pub type Obj = *mut PyObject;

/// A pointer set once while the module is made and read ever after.
pub struct Global(AtomicPtr<PyObject>);
impl Global {
    /// Unset.
    pub const fn new() -> Self {
        Global(AtomicPtr::new(std::ptr::null_mut()))
    }
    /// The object; null before the module was made.
    #[inline(always)]
    pub fn get(&self) -> Obj {
        self.0.load(Ordering::Relaxed)
    }
    /// The object as a type.
    #[inline(always)]
    pub fn ty(&self) -> *mut PyTypeObject {
        self.get() as *mut PyTypeObject
    }
    /// Sets it; the reference is kept for ever.
    pub fn set(&self, o: Obj) {
        self.0.store(o, Ordering::Relaxed);
    }
}

/// A C string that lives for ever, for method tables.
pub fn leak_cstr(text: &str) -> &'static CStr {
    let clean: Vec<u8> = text.bytes().filter(|&b| b != 0).collect();
    Box::leak(CString::new(clean).unwrap_or_default().into_boxed_c_str())
}

/// A new reference to `None`.
///
/// # Safety
/// See the module.
#[inline(always)]
pub unsafe fn none() -> Obj {
    new_ref(Py_None())
}
/// A new reference to `o`.
///
/// # Safety
/// See the module.
#[inline(always)]
pub unsafe fn new_ref(o: Obj) -> Obj {
    Py_INCREF(o);
    o
}
/// A new reference to `NotImplemented`.
///
/// # Safety
/// See the module.
pub unsafe fn not_implemented() -> Obj {
    new_ref(Py_NotImplemented())
}
/// A `bool`.
///
/// # Safety
/// See the module.
#[inline]
pub unsafe fn bool_object(x: bool) -> Obj {
    new_ref(if x { Py_True() } else { Py_False() })
}
/// A `str`.
///
/// # Safety
/// See the module.
pub unsafe fn str_object(s: &str) -> Obj {
    PyUnicode_FromStringAndSize(s.as_ptr().cast(), s.len() as Py_ssize_t)
}
/// An interned `str`, kept for ever.
///
/// # Safety
/// See the module.
pub unsafe fn intern(s: &str) -> Obj {
    let mut o = str_object(s);
    PyUnicode_InternInPlace(&mut o);
    o
}
/// The text of a `str`; empty (and no exception) when it cannot be had.
///
/// # Safety
/// `o` is a `str` that outlives the result.
pub unsafe fn str_of<'a>(o: Obj) -> &'a str {
    let mut n = 0;
    let p = PyUnicode_AsUTF8AndSize(o, &mut n);
    if p.is_null() {
        PyErr_Clear();
        return "";
    }
    std::str::from_utf8_unchecked(std::slice::from_raw_parts(p.cast(), n as usize))
}
/// The name of an object's type, for messages.
///
/// # Safety
/// See the module.
pub unsafe fn type_name(o: Obj) -> String {
    let name = PyObject_GetAttrString(Py_TYPE(o).cast(), c"__name__".as_ptr());
    if name.is_null() {
        PyErr_Clear();
        return "object".into();
    }
    let text = str_of(name).to_owned();
    Py_DECREF(name);
    text
}
/// `repr` or `str` of an object as text; empty when it fails.
///
/// # Safety
/// See the module.
pub unsafe fn repr_of(o: Obj) -> String {
    let r = PyObject_Repr(o);
    if r.is_null() {
        PyErr_Clear();
        return String::new();
    }
    let text = str_of(r).to_owned();
    Py_DECREF(r);
    text
}
/// Whether `o` is a list or a tuple (of any subclass).
///
/// # Safety
/// See the module.
#[inline]
pub unsafe fn is_sequence(o: Obj) -> bool {
    PyTuple_Check(o) != 0 || PyList_Check(o) != 0
}
/// The number of items of a list or tuple.
///
/// # Safety
/// `is_sequence(o)`.
#[inline]
pub unsafe fn sequence_len(o: Obj) -> usize {
    (if PyTuple_Check(o) != 0 { PyTuple_Size(o) } else { PyList_Size(o) }).max(0) as usize
}
/// An item of a list or tuple, borrowed.
///
/// # Safety
/// `is_sequence(o)` and `i < sequence_len(o)`.
#[inline]
pub unsafe fn sequence_item(o: Obj, i: usize) -> Obj {
    if PyTuple_Check(o) != 0 {
        PyTuple_GetItem(o, i as Py_ssize_t)
    } else {
        PyList_GetItem(o, i as Py_ssize_t)
    }
}
/// A tuple that takes the references in `items`; null (and releases them) when one of them is null.
///
/// # Safety
/// See the module.
pub unsafe fn tuple_from(items: &[Obj]) -> Obj {
    if items.iter().any(|o| o.is_null()) {
        items.iter().for_each(|&o| Py_XDECREF(o));
        return std::ptr::null_mut();
    }
    let t = PyTuple_New(items.len() as Py_ssize_t);
    for (i, &o) in items.iter().enumerate() {
        PyTuple_SetItem(t, i as Py_ssize_t, o);
    }
    t
}
/// An attribute, or null without an exception.
///
/// # Safety
/// See the module.
pub unsafe fn optional_attr(o: Obj, name: Obj) -> Obj {
    let v = PyObject_GetAttr(o, name);
    if v.is_null() {
        PyErr_Clear();
    }
    v
}

/// One entry of a slot table.
pub fn slot(slot: c_int, function: *mut c_void) -> PyType_Slot {
    PyType_Slot { slot, pfunc: function }
}

/// A method table entry that lives for ever.
pub fn method_def(name: &str, doc: &str, f: PyCFunctionFastWithKeywords) -> *mut PyMethodDef {
    Box::leak(Box::new(PyMethodDef {
        ml_name: leak_cstr(name).as_ptr(),
        ml_meth: PyMethodDefPointer { PyCFunctionFastWithKeywords: f },
        ml_flags: METH_FASTCALL | METH_KEYWORDS,
        ml_doc: leak_cstr(doc).as_ptr(),
    }))
}
