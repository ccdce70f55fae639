//! Tensor's attributes: a getter, and a setter where PyTorch has one.

use crate::autograd::node_object;
use crate::error::*;
use crate::overrides;
use crate::raw::*;
use crate::tensor::*;
use crate::types;
use flambeau::core::{bail, err};
use flambeau::tensor::TensorLayout;
use flambeau::{Device, Result, Tensor};
use pyo3::ffi::*;
use std::ffi::{c_int, c_void, CStr};
use std::ptr::null_mut;

type Get = fn(&Tensor) -> Result<Obj>;
type Set = unsafe fn(&Tensor, Obj) -> Result<()>;

/// One attribute: its name, help, getter and setter.
struct Attribute {
    name: &'static CStr,
    doc: &'static CStr,
    get: Get,
    set: Option<Set>,
}

unsafe extern "C" fn get(o: Obj, a: *mut c_void) -> Obj {
    let a = &*(a as *const Attribute);
    if !is_exact(o) && overrides::enabled() && overrides::of_type(Py_TYPE(o)) == overrides::Kind::Custom {
        return overridden(o, a);
    }
    guard(null_mut(), || match (a.get)(tensor_of(o)) {
        Ok(v) => v,
        Err(e) => raise(e),
    })
}
/// Asks `__torch_function__` for `Tensor.NAME.__get__(o)`.
#[cold]
unsafe fn overridden(o: Obj, a: &Attribute) -> Obj {
    let descriptor = PyObject_GetAttrString(TENSOR.get(), a.name.as_ptr());
    if descriptor.is_null() {
        return descriptor;
    }
    let func = PyObject_GetAttrString(descriptor, c"__get__".as_ptr());
    Py_DECREF(descriptor);
    let args = tuple_from(&[new_ref(o)]);
    let kwargs = PyDict_New();
    let r = overrides::ask(func, "Tensor.__get__", &[o], args, kwargs);
    Py_XDECREF(func);
    Py_DECREF(args);
    Py_DECREF(kwargs);
    r
}
unsafe extern "C" fn set(o: Obj, v: Obj, a: *mut c_void) -> c_int {
    let a = &*(a as *const Attribute);
    guard(-1, || {
        let r = match a.set {
            Some(f) => f(tensor_of(o), v),
            None => Err(err!(Type, "attribute '{}' of tensors cannot be set", a.name.to_string_lossy())),
        };
        match r {
            Ok(()) => 0,
            Err(e) => {
                raise(e);
                -1
            }
        }
    })
}

fn boolean(b: bool) -> Result<Obj> {
    // SAFETY: getters run attached.
    Ok(unsafe { bool_object(b) })
}
fn integer(i: i64) -> Result<Obj> {
    // SAFETY: getters run attached.
    Ok(unsafe { PyLong_FromLongLong(i) })
}
fn optional(t: Option<Tensor>) -> Result<Obj> {
    // SAFETY: getters run attached.
    unsafe { Ok(t.map_or_else(|| none(), |t| wrap(t))) }
}

unsafe fn set_requires_grad(t: &Tensor, v: Obj) -> Result<()> {
    if v != Py_True() && v != Py_False() {
        bail!(Runtime, "requires_grad must be a bool");
    }
    t.set_requires_grad(v == Py_True())
}
unsafe fn set_grad(t: &Tensor, v: Obj) -> Result<()> {
    if v.is_null() || v == Py_None() {
        return t.set_grad(None);
    }
    if !is_tensor(v) {
        bail!(Type, "assigned grad expected to be a Tensor or None but got grad of type {}", type_name(v));
    }
    let g = tensor_of(v);
    if g.is_same(t) {
        bail!(Runtime, "can't assign Variable as its own grad");
    }
    t.set_grad(Some(g.clone()))
}
unsafe fn set_data(t: &Tensor, v: Obj) -> Result<()> {
    if v.is_null() || !is_tensor(v) {
        bail!(
            Type,
            "Variable data has to be a tensor, but got {}",
            if v.is_null() { "NULL".into() } else { type_name(v) }
        );
    }
    t.set_data(tensor_of(v))
}

fn is_cuda(t: &Tensor) -> bool {
    matches!(t.device(), Device::Cuda(_))
}
fn nbytes(t: &Tensor) -> i64 {
    t.numel() * t.dtype().size() as i64
}

macro_rules! attributes {
    ($($name:literal $doc:literal |$t:ident| $get:expr $(, set $set:expr)?;)*) => {
        /// A null-terminated table for `Py_tp_getset`, kept for ever.
        pub fn table() -> *mut PyGetSetDef {
            let list: Vec<Attribute> = vec![$(Attribute {
                name: leak_cstr($name),
                doc: leak_cstr($doc),
                get: |$t| $get,
                set: attributes!(@set $($set)?),
            }),*];
            let list: &'static [Attribute] = Box::leak(list.into_boxed_slice());
            let mut defs: Vec<PyGetSetDef> = list.iter().map(|a| PyGetSetDef {
                name: a.name.as_ptr(),
                get: Some(get),
                set: a.set.map(|_| set as setter),
                doc: a.doc.as_ptr(),
                closure: a as *const Attribute as *mut c_void,
            }).collect();
            defs.push(PyGetSetDef {
                name: c"__dict__".as_ptr(),
                get: Some(PyObject_GenericGetDict),
                set: Some(PyObject_GenericSetDict),
                doc: std::ptr::null(),
                closure: null_mut(),
            });
            // SAFETY: all-zero is the table's end mark.
            defs.push(unsafe { std::mem::zeroed() });
            Box::leak(defs.into_boxed_slice()).as_mut_ptr()
        }
        /// Names, for stubs.
        pub const NAMES: &[(&str, &str)] = &[$(($name, $doc)),*];
    };
    (@set) => { None };
    (@set $set:expr) => { Some($set as Set) };
}

attributes! {
    "shape" "The sizes." |t| Ok(unsafe { types::size_object(&t.meta().sizes) });
    "dtype" "The type of the elements." |t| Ok(unsafe { types::dtype_object(t.dtype()) });
    "device" "Where the memory is." |t| Ok(unsafe { types::device_object(t.device()) });
    "layout" "How values are kept." |t| Ok(unsafe { types::layout_object(t.layout()) });
    "ndim" "The number of dimensions." |t| integer(t.dim() as i64);
    "itemsize" "Bytes of one element." |t| integer(t.dtype().size() as i64);
    "nbytes" "Bytes of all elements." |t| {
        if t.is_sparse() {
            bail!(Runtime, "nbytes is not defined for sparse tensors. Add the nbytes of the indices and values, or take numel() * \
                            element_size() for those of the dense tensor.");
        }
        integer(nbytes(t))
    };
    "requires_grad" "Whether gradients flow to or through this tensor." |t| boolean(t.requires_grad()), set set_requires_grad;
    "grad" "The accumulated gradient, or None." |t| optional(t.grad()), set set_grad;
    "_grad" "The accumulated gradient, or None." |t| optional(t.grad()), set set_grad;
    "grad_fn" "The node that computed this tensor, None for a leaf." |t| match t.grad_fn()? {
        Some(edge) => node_object(edge.node),
        None => Ok(unsafe { none() }),
    };
    "is_leaf" "Whether no recorded operator computed this tensor." |t| boolean(t.is_leaf());
    "data" "The same memory outside the graph." |t| optional(Some(t.data())), set set_data;
    "retains_grad" "Whether a non-leaf keeps its gradient." |t| boolean(t.retains_grad());
    "output_nr" "Which output of its node this tensor is." |t| integer(t.output_nr() as i64);
    "_version" "How many times the memory was written in place." |t| {
        if t.is_inference() {
            bail!(Runtime, "Inference tensors do not track version counter.");
        }
        integer(t.version() as i64)
    };
    "_base" "The tensor that this one is a view of, or None." |t| optional(t.base());
    "is_cuda" "Whether the memory is on a CUDA device." |t| boolean(is_cuda(t));
    "is_cpu" "Whether the memory is on the host." |t| boolean(t.device() == Device::Cpu);
    "is_meta" "Whether there is no memory." |t| boolean(t.device() == Device::Meta);
    "is_sparse" "Whether the layout is that of coordinates." |t| boolean(t.is_sparse() && t.layout() == TensorLayout::SparseCoo);
    "is_sparse_csr" "Whether the layout is that of compressed rows." |t| boolean(t.is_sparse() && t.layout() == TensorLayout::SparseCsr);
    "is_quantized" "Whether the elements are quantised." |_t| boolean(false);
    "is_mkldnn" "False." |_t| boolean(false);
    "is_mps" "False." |_t| boolean(false);
    "is_xpu" "False." |_t| boolean(false);
    "is_nested" "False." |_t| boolean(false);
    "names" "One None a dimension: dimensions have no names." |t| Ok(unsafe {
        let items: Vec<Obj> = (0..t.dim()).map(|_| none()).collect();
        tuple_from(&items)
    });
    "name" "None." |_t| Ok(unsafe { none() });
    "_backward_hooks" "None: hooks are kept in the core." |_t| Ok(unsafe { none() });
}
