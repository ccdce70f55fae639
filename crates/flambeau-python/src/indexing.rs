//! `tensor[index]` and `tensor[index] = value`, with every form of index that Python can write.

use crate::binder::number;
use crate::construct;
use crate::error::*;
use crate::overrides;
use crate::raw::*;
use crate::tensor::*;
use flambeau::core::{bail, ensure, err};
use flambeau::ops::{elementwise, indexing, view};
use flambeau::{DType, Number, Result, Tensor};
use pyo3::ffi::*;
use smallvec::SmallVec;
use std::ffi::c_int;
use std::ptr::null_mut;

/// Index tensors by dimension, `None` where a dimension is taken whole. A mask of k dimensions is one entry for k
/// dimensions.
type Indices = Vec<Option<Tensor>>;

/// What one item of an index is.
enum Item {
    Int(i64),
    Slice(Obj),
    Ellipsis,
    NewAxis,
    Bool(bool),
    Tensor(Tensor),
}

/// Whether a list is a tuple of indices (as NumPy once read it) rather than an index array.
unsafe fn list_is_tuple(o: Obj) -> bool {
    (0..sequence_len(o)).any(|i| {
        let item = sequence_item(o, i);
        PySlice_Check(item) != 0 || item == Py_Ellipsis() || item == Py_None()
    })
}

unsafe fn classify(o: Obj, device: flambeau::Device) -> Result<Item> {
    if Py_TYPE(o) == &raw mut PyLong_Type {
        let i = PyLong_AsLongLong(o);
        if i == -1 && !PyErr_Occurred().is_null() {
            return Err(from_raised());
        }
        return Ok(Item::Int(i));
    }
    if PySlice_Check(o) != 0 {
        return Ok(Item::Slice(o));
    }
    if o == Py_None() {
        return Ok(Item::NewAxis);
    }
    if o == Py_Ellipsis() {
        return Ok(Item::Ellipsis);
    }
    if o == Py_True() || o == Py_False() {
        return Ok(Item::Bool(o == Py_True()));
    }
    if is_tensor(o) {
        return Ok(Item::Tensor(tensor_of(o).clone()));
    }
    if !is_sequence(o) {
        if type_name(o) == "ndarray" {
            return Ok(Item::Tensor(construct::tensor_from(o, None, Some(device))?));
        }
        if type_name(o) == "bool" || type_name(o) == "bool_" {
            return Ok(Item::Bool(PyObject_IsTrue(o) == 1));
        }
        if PyIndex_Check(o) != 0 {
            let i = PyNumber_AsSsize_t(o, PyExc_IndexError);
            if i == -1 && !PyErr_Occurred().is_null() {
                return Err(from_raised());
            }
            return Ok(Item::Int(i as i64));
        }
    }
    if PySequence_Check(o) != 0 && PyUnicode_Check(o) == 0 {
        if is_sequence(o) && sequence_len(o) == 0 {
            return Ok(Item::Tensor(flambeau::ops::factory::zeros(&[0], DType::I64, device)?));
        }
        let t = construct::tensor_from(o, None, Some(device))?;
        return Ok(Item::Tensor(t));
    }
    Err(err!(
        Index,
        "only integers, slices (`:`), ellipsis (`...`), None and long or byte Variables are valid indices (got {})",
        type_name(o)
    ))
}

/// `t[index]` without its index tensors, and those.
unsafe fn apply_basic(t: &Tensor, index: Obj) -> Result<(Tensor, Indices)> {
    let mut items: SmallVec<[Item; 4]> = SmallVec::new();
    let device = t.device();
    if PyTuple_Check(index) != 0 || (PyList_Check(index) != 0 && list_is_tuple(index)) {
        for i in 0..sequence_len(index) {
            items.push(classify(sequence_item(index, i), device)?);
        }
    } else {
        items.push(classify(index, device)?);
    }
    // How many dimensions the items name.
    let mask_dims = |t: &Tensor| if matches!(t.dtype(), DType::Bool | DType::U8) { t.dim() } else { 1 };
    let named: usize = items
        .iter()
        .map(|item| match item {
            Item::Int(_) | Item::Slice(_) => 1,
            Item::Tensor(t) => mask_dims(t),
            _ => 0,
        })
        .sum();
    let rank = t.dim();
    ensure!(named <= rank, Index, "too many indices for tensor of dimension {rank}");
    ensure!(
        items.iter().filter(|i| matches!(i, Item::Ellipsis)).count() <= 1,
        Index,
        "an index can only have a single ellipsis ('...')"
    );
    let mut result = t.clone();
    let mut dim = 0usize;
    let mut indices: Indices = Vec::new();
    let mut covered = 0usize;
    let mut record = |dim: usize, index: Tensor, covers: usize| {
        while covered < dim {
            indices.push(None);
            covered += 1;
        }
        indices.push(Some(index));
        covered += covers;
    };
    for item in items {
        match item {
            Item::Int(i) => result = select(&result, dim, i)?,
            Item::Slice(s) => {
                result = slice(&result, dim, s)?;
                dim += 1;
            }
            Item::Ellipsis => dim += rank - named,
            Item::NewAxis => {
                result = view::unsqueeze(&result, dim as i64)?;
                dim += 1;
            }
            Item::Bool(b) => {
                result = view::unsqueeze(&result, dim as i64)?;
                record(dim, flambeau::ops::factory::zeros(&[b as i64], DType::I64, device)?, 1);
                dim += 1;
            }
            Item::Tensor(index) => {
                let dtype = index.dtype();
                if index.dim() == 0 && dtype.is_integral(true) && index.as_batched().is_none() {
                    let n = index.item()?;
                    if matches!(dtype, DType::Bool | DType::U8) {
                        result = view::unsqueeze(&result, dim as i64)?;
                        record(dim, flambeau::ops::factory::zeros(&[n.to_bool() as i64], DType::I64, device)?, 1);
                        dim += 1;
                    } else {
                        result = select(&result, dim, n.to_i64())?;
                    }
                    continue;
                }
                ensure!(
                    matches!(dtype, DType::I64 | DType::I32 | DType::U8 | DType::Bool | DType::I16 | DType::I8),
                    Index,
                    "tensors used as indices must be long, int, byte or bool tensors"
                );
                let covers = mask_dims(&index);
                record(dim, index, covers);
                dim += covers;
            }
        }
    }
    Ok((result, indices))
}

fn select(t: &Tensor, dim: usize, i: i64) -> Result<Tensor> {
    let sizes = t.sizes();
    if sizes.is_empty() {
        bail!(
            Index,
            "invalid index of a 0-dim tensor. Use `tensor.item()` in Python or `tensor.item<T>()` in C++ to convert a 0-dim \
             tensor to a number"
        );
    }
    let n = sizes[dim];
    if i < -n || i >= n {
        bail!(Index, "index {i} is out of bounds for dimension {dim} with size {n}");
    }
    view::select(t, dim as i64, i)
}

unsafe fn slice(t: &Tensor, dim: usize, s: Obj) -> Result<Tensor> {
    let (mut start, mut stop, mut step) = (0, 0, 0);
    if PySlice_Unpack(s, &mut start, &mut stop, &mut step) < 0 {
        return Err(from_raised());
    }
    if step <= 0 {
        bail!(Value, "step must be greater than zero");
    }
    let sizes = t.sizes();
    if sizes.is_empty() {
        bail!(Index, "slice() cannot be applied to a 0-dim tensor.");
    }
    let n = sizes[dim];
    PySlice_AdjustIndices(n as Py_ssize_t, &mut start, &mut stop, step);
    if start == 0 && stop as i64 >= n && step == 1 {
        return Ok(t.clone());
    }
    view::slice(t, dim as i64, start as i64, (stop as i64).max(start as i64), step as i64)
}

/// A tensor over the same memory that is not the same object.
fn alias(t: &Tensor) -> Result<Tensor> {
    view::alias(t)
}

/// Whether an operand's type answers for `__getitem__` itself, or its subclass is to be kept.
unsafe fn overridden(o: Obj) -> overrides::Kind {
    if is_exact(o) || !overrides::enabled() {
        return overrides::Kind::None;
    }
    overrides::of_type(Py_TYPE(o))
}

/// `o[index]`.
///
/// # Safety
/// A mapping slot: the interpreter is attached and `o` is a tensor.
pub unsafe extern "C" fn get(o: Obj, index: Obj) -> Obj {
    guard(null_mut(), || {
        let kind = overridden(o);
        if kind == overrides::Kind::Custom {
            let args = tuple_from(&[new_ref(o), new_ref(index)]);
            let func = PyObject_GetAttrString(TENSOR.get(), c"__getitem__".as_ptr());
            let kwargs = PyDict_New();
            let r = overrides::ask(func, "Tensor.__getitem__", &[o], args, kwargs);
            Py_DECREF(args);
            Py_XDECREF(func);
            Py_DECREF(kwargs);
            return r;
        }
        let t = tensor_of(o);
        let result = (|| -> Result<Tensor> {
            if Py_TYPE(index) == &raw mut PyLong_Type {
                let i = PyLong_AsLongLong(index);
                if i == -1 && !PyErr_Occurred().is_null() {
                    return Err(from_raised());
                }
                return select(t, 0, i);
            }
            let (basic, indices) = apply_basic(t, index)?;
            if indices.is_empty() {
                if !basic.is_same(t) {
                    return Ok(basic);
                }
                // The whole of a dimension is a slice all the same.
                let slice = PySlice_Check(index) != 0;
                return if slice { view::slice(t, 0, 0, i64::MAX, 1) } else { alias(t) };
            }
            indexing::index(&basic, &indices)
        })();
        let r = match result {
            Ok(t) => wrap(t),
            Err(e) => raise(e),
        };
        if kind == overrides::Kind::Inherit {
            return overrides::convert(r, Py_TYPE(o));
        }
        r
    })
}

/// `o[index] = v`.
///
/// # Safety
/// A mapping slot: the interpreter is attached and `o` is a tensor.
pub unsafe extern "C" fn set(o: Obj, index: Obj, v: Obj) -> c_int {
    guard(-1, || {
        if v.is_null() {
            raise(err!(Type, "Tensor does not support deleting items"));
            return -1;
        }
        if overridden(o) == overrides::Kind::Custom {
            let args = tuple_from(&[new_ref(o), new_ref(index), new_ref(v)]);
            let func = PyObject_GetAttrString(TENSOR.get(), c"__setitem__".as_ptr());
            let kwargs = PyDict_New();
            let r = overrides::ask(func, "Tensor.__setitem__", &[o], args, kwargs);
            Py_DECREF(args);
            Py_XDECREF(func);
            Py_DECREF(kwargs);
            Py_XDECREF(r);
            return if r.is_null() { -1 } else { 0 };
        }
        let t = tensor_of(o);
        let result = (|| -> Result<()> {
            let (basic, indices) = apply_basic(t, index)?;
            if is_tensor(v) {
                let v = tensor_of(v);
                if indices.is_empty() {
                    elementwise::copy_(&basic, v)?;
                } else {
                    put(&basic, &indices, v)?;
                }
                return Ok(());
            }
            let Some(n) = number(v) else {
                if !PyErr_Occurred().is_null() {
                    return Err(from_raised());
                }
                bail!(Type, "can't assign a {} to a torch.{}Tensor", type_name(v), t.dtype().title());
            };
            if matches!(n, Number::Complex(_)) && !t.dtype().is_complex() {
                bail!(Runtime, "value cannot be converted to type {} without overflow", t.dtype().name());
            }
            if indices.is_empty() {
                elementwise::fill_(&basic, n)?;
            } else {
                let value = flambeau::ops::factory::full(&[], n, t.dtype(), t.device())?;
                put(&basic, &indices, &value)?;
            }
            Ok(())
        })();
        match result {
            Ok(()) => 0,
            Err(e) => {
                raise(e);
                -1
            }
        }
    })
}

fn put(t: &Tensor, indices: &[Option<Tensor>], value: &Tensor) -> Result<()> {
    let value = elementwise::to_dtype(value, t.dtype())?;
    let value = flambeau::ops::device::to_device(&value, t.device())?;
    indexing::index_put_(t, indices, &value, false)?;
    Ok(())
}
