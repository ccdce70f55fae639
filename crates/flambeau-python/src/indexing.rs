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
    /// start, stop, step.
    Slice(i64, i64, i64),
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

unsafe fn classify(o: Obj, of: &Tensor) -> Result<Item> {
    if Py_TYPE(o) == &raw mut PyLong_Type {
        let i = PyLong_AsLongLong(o);
        if i == -1 && !PyErr_Occurred().is_null() {
            return Err(from_raised());
        }
        return Ok(Item::Int(i));
    }
    if PySlice_Check(o) != 0 {
        let (mut start, mut stop, mut step) = (0, 0, 0);
        if PySlice_Unpack(o, &mut start, &mut stop, &mut step) < 0 {
            return Err(from_raised());
        }
        return Ok(Item::Slice(start as i64, stop as i64, step as i64));
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
            return Ok(Item::Tensor(construct::tensor_from(o, None, Some(of.device()))?));
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
            return Ok(Item::Tensor(flambeau::ops::factory::zeros(&[0], DType::I64, of.device())?));
        }
        let t = construct::tensor_from(o, None, Some(of.device()))?;
        return Ok(Item::Tensor(t));
    }
    Err(err!(
        Index,
        "only integers, slices (`:`), ellipsis (`...`), None and long or byte Variables are valid indices (got {})",
        type_name(o)
    ))
}

/// `t[index]` without its index tensors, and those; no view where nothing else is indexed.
unsafe fn apply_basic(t: &Tensor, index: Obj) -> Result<(Option<Tensor>, Indices)> {
    let mut items: SmallVec<[Item; 4]> = SmallVec::new();
    if PyTuple_Check(index) != 0 || (PyList_Check(index) != 0 && list_is_tuple(index)) {
        for i in 0..sequence_len(index) {
            items.push(classify(sequence_item(index, i), t)?);
        }
    } else {
        items.push(classify(index, t)?);
    }
    // How many dimensions the items name.
    let mask_dims = |t: &Tensor| if matches!(t.dtype(), DType::Bool | DType::U8) { t.dim() } else { 1 };
    let (mut named, mut ellipses) = (0, 0);
    for item in &items {
        match item {
            Item::Int(_) | Item::Slice(..) => named += 1,
            Item::Tensor(t) => named += mask_dims(t),
            Item::Ellipsis => ellipses += 1,
            _ => {}
        }
    }
    let mut indexing = view::Indexing::new(t);
    let rank = indexing.rank();
    ensure!(named <= rank, Index, "too many indices for tensor of dimension {rank}");
    ensure!(ellipses <= 1, Index, "an index can only have a single ellipsis ('...')");
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
    let truth = |b: bool| flambeau::ops::factory::zeros(&[b as i64], DType::I64, t.device());
    for item in &items {
        match item {
            Item::Int(i) => indexing.select(*i)?,
            Item::Slice(start, stop, step) => indexing.slice(*start, *stop, *step)?,
            Item::Ellipsis => indexing.skip(rank - named),
            Item::NewAxis => indexing.unsqueeze(),
            Item::Bool(b) => {
                record(indexing.dim(), truth(*b)?, 1);
                indexing.unsqueeze();
            }
            Item::Tensor(index) => {
                let dtype = index.dtype();
                if index.dim() == 0 && dtype.is_integral(true) && index.as_batched().is_none() {
                    let n = index.item()?;
                    if matches!(dtype, DType::Bool | DType::U8) {
                        record(indexing.dim(), truth(n.to_bool())?, 1);
                        indexing.unsqueeze();
                    } else {
                        indexing.select(n.to_i64())?;
                    }
                    continue;
                }
                ensure!(
                    matches!(dtype, DType::I64 | DType::I32 | DType::U8 | DType::Bool | DType::I16 | DType::I8),
                    Index,
                    "tensors used as indices must be long, int, byte or bool tensors"
                );
                let covers = mask_dims(index);
                record(indexing.dim(), index.clone(), covers);
                indexing.skip(covers);
            }
        }
    }
    Ok((indexing.apply(t)?, indices))
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
                return view::index_one(t, i);
            }
            let (basic, indices) = apply_basic(t, index)?;
            match basic {
                Some(basic) if indices.is_empty() => Ok(basic),
                // Not the same object; the whole of a dimension is a slice all the same.
                None if indices.is_empty() && PySlice_Check(index) != 0 => view::slice(t, 0, 0, i64::MAX, 1),
                None if indices.is_empty() => view::alias(t),
                basic => indexing::index(basic.as_ref().unwrap_or(t), &indices),
            }
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
            let basic = basic.as_ref().unwrap_or(t);
            if is_tensor(v) {
                let v = tensor_of(v);
                if indices.is_empty() {
                    elementwise::copy_(basic, v)?;
                } else {
                    put(basic, &indices, v)?;
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
                elementwise::fill_(basic, n)?;
            } else {
                let value = flambeau::ops::factory::full(&[], n, t.dtype(), t.device())?;
                put(basic, &indices, &value)?;
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
