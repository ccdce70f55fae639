//! Tensors and the world outside: numbers, lists, NumPy arrays, buffers. NumPy is imported when first needed; memory is
//! shared through its array interface, never through its C API.

use crate::call::number_object;
use crate::error::*;
use crate::raw::*;
use crate::tensor::*;
use flambeau::core::storage::{Memory, Release};
use flambeau::core::{bail, ensure, err, Number, Storage};
use flambeau::ops::{device, view};
use flambeau::tensor::{CONJ, NEG};
use flambeau::{DType, Device, Result, Tensor};
use pyo3::exceptions::*;
use pyo3::ffi::*;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

/// NumPy's type string of a dtype, `None` where it has none.
pub fn typestr(d: DType) -> Option<&'static str> {
    Some(match d {
        DType::Bool => "|b1",
        DType::U8 => "|u1",
        DType::I8 => "|i1",
        DType::I16 => "<i2",
        DType::I32 => "<i4",
        DType::I64 => "<i8",
        DType::U16 => "<u2",
        DType::U32 => "<u4",
        DType::U64 => "<u8",
        DType::F16 => "<f2",
        DType::F32 => "<f4",
        DType::F64 => "<f8",
        DType::C64 => "<c8",
        DType::C128 => "<c16",
        DType::BF16 | DType::C32 | DType::F8E4M3 | DType::F8E5M2 => return None,
    })
}

/// The plain number inside one of NumPy's scalars (anything with a `dtype` and an `item` that gives a number).
///
/// # Safety
/// The interpreter is attached.
pub unsafe fn numpy_scalar(o: Obj) -> Option<Number> {
    if PyType_Check(o) != 0 || PyUnicode_Check(o) != 0 || is_sequence(o) || o == Py_None() {
        return None;
    }
    if PyObject_HasAttrString(o, c"dtype".as_ptr()) == 0 || PyObject_HasAttrString(o, c"item".as_ptr()) == 0 {
        return None;
    }
    if PyObject_HasAttrString(o, c"__len__".as_ptr()) != 0 {
        return None; // an array
    }
    let item = PyObject_CallMethodObjArgs(o, intern("item"), std::ptr::null_mut::<PyObject>());
    if item.is_null() {
        PyErr_Clear();
        return None;
    }
    let ty = Py_TYPE(item);
    let plain = ty == &raw mut PyFloat_Type
        || ty == &raw mut PyLong_Type
        || ty == &raw mut PyBool_Type
        || ty == &raw mut PyComplex_Type;
    // A longdouble's item() is itself: Python has no such number.
    let wide = !plain && PyFloat_Check(item) == 0 && PyObject_HasAttrString(item, c"as_integer_ratio".as_ptr()) != 0;
    let n = if plain {
        crate::binder::number(item)
    } else if wide {
        let f = PyFloat_AsDouble(item);
        if f == -1.0 && !PyErr_Occurred().is_null() {
            PyErr_Clear();
            None
        } else {
            Some(Number::Float(f))
        }
    } else {
        None
    };
    Py_DECREF(item);
    n
}

/// Keeps a Python object alive from inside the core.
struct Owner(Option<Py<PyAny>>);
impl Drop for Owner {
    fn drop(&mut self) {
        if let Some(o) = self.0.take() {
            // While the interpreter ends, nothing can or need be released.
            if Python::try_attach(|py| o.clone_ref(py)).is_some() {
                Python::attach(|_| drop(o));
            } else {
                std::mem::forget(o);
            }
        }
    }
}

/// A tensor over an array's own memory, if the object has the array interface.
///
/// # Errors
/// `Type` for element types that tensors lack, `Value` for layouts they cannot have.
///
/// # Safety
/// The interpreter is attached.
pub unsafe fn array_like(o: Obj) -> Result<Option<Tensor>> {
    let ty = Py_TYPE(o);
    if ty == &raw mut PyFloat_Type
        || ty == &raw mut PyLong_Type
        || ty == &raw mut PyBool_Type
        || is_sequence(o)
        || o == Py_None()
    {
        return Ok(None);
    }
    if PyUnicode_Check(o) != 0 || PyType_Check(o) != 0 || is_tensor(o) {
        return Ok(None);
    }
    if PyObject_HasAttrString(o, c"__array_interface__".as_ptr()) == 0 {
        if PyObject_HasAttrString(o, c"__array__".as_ptr()) == 0 {
            return Ok(None);
        }
        return Python::attach(|py| {
            let array = Bound::from_borrowed_ptr(py, o).call_method0("__array__").core()?;
            from_interface(&array).map(Some)
        });
    }
    Python::attach(|py| from_interface(&Bound::from_borrowed_ptr(py, o)).map(Some))
}

/// A tensor that shares the memory of an object with the array interface.
///
/// # Errors
/// See [`array_like`].
pub fn from_interface(o: &Bound<'_, PyAny>) -> Result<Tensor> {
    let interface = o.getattr("__array_interface__").core()?;
    let interface = interface.cast::<PyDict>().map_err(|_| err!(Type, "__array_interface__ is not a dict"))?;
    let get = |k: &str| interface.get_item(k).core();
    let typestr: String = match get("typestr")? {
        Some(s) => s.extract::<String>().core()?,
        None => bail!(Type, "__array_interface__ has no typestr"),
    };
    let dtype = match typestr.trim_start_matches(['<', '|', '=']) {
        "b1" => DType::Bool,
        "u1" => DType::U8,
        "i1" => DType::I8,
        "i2" => DType::I16,
        "i4" => DType::I32,
        "i8" => DType::I64,
        "u2" => DType::U16,
        "u4" => DType::U32,
        "u8" => DType::U64,
        "f2" => DType::F16,
        "f4" => DType::F32,
        "f8" => DType::F64,
        "c8" => DType::C64,
        "c16" => DType::C128,
        other if other.starts_with('>') => bail!(
            Value,
            "given numpy array has byte order different from the native byte order. Conversion between byte orders is currently \
             not supported."
        ),
        _ => bail!(
            Type,
            "can't convert np.ndarray of type {}. The only supported types are: float64, float32, float16, complex64, complex128, \
             int64, int32, int16, int8, uint64, uint32, uint16, uint8, and bool.",
            o.getattr("dtype").and_then(|d| d.getattr("type")).map(|t| t.to_string()).unwrap_or(typestr.clone())
        ),
    };
    let sizes: Vec<i64> = match get("shape")? {
        Some(s) => s.extract().core()?,
        None => Vec::new(),
    };
    let size = dtype.size() as i64;
    let strides: Vec<i64> = match get("strides")? {
        Some(s) if !s.is_none() => {
            let bytes: Vec<i64> = s.extract().core()?;
            for b in &bytes {
                ensure!(
                    *b >= 0,
                    Value,
                    "At least one stride in the given numpy array is negative, and tensors with negative strides are not currently \
                     supported. (You can probably work around this by making a copy of your array  with array.copy().)"
                );
                ensure!(
                    b % size == 0,
                    Value,
                    "given numpy array strides not a multiple of the element byte size. Copy the numpy array to reallocate the memory."
                );
            }
            bytes.iter().map(|b| b / size).collect()
        }
        _ => flambeau::core::contiguous_strides(&sizes).to_vec(),
    };
    let address: usize = match get("data")? {
        Some(d) => d.get_item(0).and_then(|p| p.extract()).core()?,
        None => bail!(Type, "__array_interface__ has no data"),
    };
    let nbytes = (flambeau::core::extent(&sizes, &strides) * size) as usize;
    let owner = Owner(Some(o.clone().unbind()));
    // SAFETY: the array's memory is valid for its extent while the array lives, and `owner` keeps it alive.
    let memory = unsafe { Memory::new(address as *mut u8, nbytes, Release::Owner(Box::new(owner))) };
    let storage = Storage::new(memory, Device::Cpu);
    storage.set_escaped();
    Ok(Tensor::from_storage(storage, dtype, &sizes, &strides, 0))
}

/// Shows a tensor's memory to NumPy; holds the tensor.
#[pyclass(frozen, module = "flambeau")]
struct ArrayView {
    tensor: Tensor,
}
#[pymethods]
impl ArrayView {
    #[getter]
    fn __array_interface__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let t = &self.tensor;
        let d = PyDict::new(py);
        let size = t.dtype().size() as i64;
        d.set_item("version", 3)?;
        d.set_item("typestr", typestr(t.dtype()))?;
        d.set_item("shape", PyTuple::new(py, t.sizes())?)?;
        d.set_item("strides", PyTuple::new(py, t.strides().iter().map(|s| s * size))?)?;
        d.set_item("data", (t.data_ptr().py()? as usize, false))?;
        Ok(d)
    }
}

/// A NumPy array over the tensor's memory.
///
/// # Errors
/// As PyTorch's for tensors that require grad, are elsewhere, or have a dtype that NumPy lacks.
pub fn to_numpy(py: Python<'_>, t: &Tensor, force: bool) -> Result<Py<PyAny>> {
    let t = if force { device::to_device(&view::resolve(&t.detach())?, Device::Cpu)? } else { t.clone() };
    ensure!(
        t.device() == Device::Cpu,
        Type,
        "can't convert {} device type tensor to numpy. Use Tensor.cpu() to copy the tensor to host memory first.",
        t.device()
    );
    ensure!(
        !t.requires_grad(),
        Runtime,
        "Can't call numpy() on Tensor that requires grad. Use tensor.detach().numpy() instead."
    );
    ensure!(t.as_batched().is_none(), Runtime, "Cannot access data pointer of Tensor inside vmap");
    for (bit, kind, name) in [(CONJ, "conjugate", "conj"), (NEG, "negative", "neg")] {
        ensure!(
            t.lazy() & bit == 0,
            Runtime,
            "Can't call numpy() on Tensor that has {kind} bit set. Use tensor.resolve_{name}().numpy() instead."
        );
    }
    ensure!(typestr(t.dtype()).is_some(), Type, "Got unsupported ScalarType {}", t.dtype().title());
    t.data_ptr()?;
    t.storage().set_escaped();
    let body = || -> PyResult<Py<PyAny>> {
        let view = Bound::new(py, ArrayView { tensor: t.detach() })?;
        Ok(py.import("numpy")?.call_method1("asarray", (view,))?.unbind())
    };
    body().map_err(|e| from_python(py, e))
}

/// Calls `f` for every element, row-major.
///
/// # Errors
/// The failure of a pending computation.
pub fn for_each(t: &Tensor, mut f: impl FnMut(Number)) -> Result<()> {
    let t = device::to_cpu_contiguous(&t.detach())?;
    let size = t.dtype().size();
    let n = t.numel() as usize;
    let p = t.data_ptr()?;
    for i in 0..n {
        // SAFETY: `t` is contiguous with `n` elements of `size` bytes in host memory.
        let bytes = unsafe { std::slice::from_raw_parts(p.add(i * size), size) };
        f(device::decode(t.dtype(), bytes));
    }
    Ok(())
}

/// Nested lists of the elements; a plain number for a 0-dim tensor.
///
/// # Errors
/// The failure of a pending computation.
pub fn to_list(py: Python<'_>, t: &Tensor) -> Result<Py<PyAny>> {
    let t = device::to_cpu_contiguous(&t.detach())?;
    let p = t.data_ptr()?;
    let (sizes, dtype) = (t.sizes(), t.dtype());
    // SAFETY: attached; `t` is contiguous host memory of these sizes.
    unsafe fn level(p: *const u8, sizes: &[i64], dtype: DType) -> Obj {
        let Some((&n, rest)) = sizes.split_first() else {
            let bytes = std::slice::from_raw_parts(p, dtype.size());
            if dtype == DType::U64 {
                return PyLong_FromUnsignedLongLong(u64::from_le_bytes(bytes.try_into().unwrap_or_default()));
            }
            return number_object(device::decode(dtype, bytes));
        };
        let list = PyList_New(n as Py_ssize_t);
        let step = rest.iter().product::<i64>() as usize * dtype.size();
        for i in 0..n {
            PyList_SetItem(list, i as Py_ssize_t, level(p.add(i as usize * step), rest, dtype));
        }
        list
    }
    // SAFETY: as above.
    unsafe { Ok(Bound::from_owned_ptr(py, level(p, &sizes, dtype)).unbind()) }
}

/// A buffer that an object lends; given back on drop.
struct Lent(Box<Py_buffer>);
// SAFETY: the buffer is plain data; it is released while attached to the interpreter.
unsafe impl Send for Lent {}
// SAFETY: as above.
unsafe impl Sync for Lent {}
impl Lent {
    fn of(o: &Bound<'_, PyAny>) -> Result<Lent> {
        let mut view = Box::new(Py_buffer::new());
        // SAFETY: attached; `view` stays where it is until it is released.
        unsafe {
            if PyObject_GetBuffer(o.as_ptr(), &mut *view, PyBUF_WRITABLE) < 0 {
                PyErr_Clear();
                // Memory that must not be written: PyTorch takes it with a warning, and so do we.
                if PyObject_GetBuffer(o.as_ptr(), &mut *view, PyBUF_SIMPLE) < 0 {
                    PyErr_Clear();
                    bail!(
                        Type,
                        "a bytes-like object is required, not '{}'",
                        o.get_type().name().map(|n| n.to_string()).core()?
                    );
                }
                let text = c"frombuffer(): the given buffer is not writable, so the tensor must not be written to; copy the buffer first to write to it";
                if PyErr_WarnEx(PyExc_UserWarning, text.as_ptr(), 1) < 0 {
                    let failure = PyErr::fetch(o.py());
                    PyBuffer_Release(&mut *view);
                    return Err(from_python(o.py(), failure));
                }
            }
        }
        Ok(Lent(view))
    }
}
impl Drop for Lent {
    fn drop(&mut self) {
        // While the interpreter ends, nothing can or need be released.
        let _ = Python::try_attach(|_| {
            // SAFETY: attached, and released once.
            unsafe { PyBuffer_Release(&mut *self.0) }
        });
    }
}

/// A 1-d tensor over a buffer's memory.
///
/// # Errors
/// `Value` for offsets and counts that do not fit the buffer.
pub fn from_buffer(o: &Bound<'_, PyAny>, dtype: DType, count: i64, offset: i64) -> Result<Tensor> {
    let size = dtype.size() as i64;
    let lent = Lent::of(o)?;
    let total = lent.0.len as i64;
    ensure!(total > 0 && count != 0, Value, "both buffer length ({total}) and count ({count}) must not be 0");
    ensure!(
        offset >= 0 && offset < total,
        Value,
        "offset ({offset} bytes) must be non-negative and no greater than buffer length ({total} bytes) minus 1"
    );
    ensure!(
        count > 0 || (total - offset) % size == 0,
        Value,
        "buffer length ({} bytes) after offset ({offset} bytes) must be a multiple of element size ({size})",
        total - offset
    );
    let n = if count < 0 { (total - offset) / size } else { count };
    ensure!(
        offset + n * size <= total,
        Value,
        "requested buffer length ({count} * {size} bytes) after offset ({offset} bytes) must not be greater than actual buffer \
         length ({total} bytes)"
    );
    // SAFETY: `n` elements from `offset` lie inside the buffer, whose memory stays while the storage holds it.
    let memory = unsafe {
        let first = (lent.0.buf as *mut u8).add(offset as usize);
        Memory::new(first, (n * size) as usize, Release::Owner(Box::new(lent)))
    };
    let storage = Storage::new(memory, Device::Cpu);
    storage.set_escaped();
    Ok(Tensor::from_storage(storage, dtype, &[n], &[1], 0))
}

/// Adds the classes of this module.
pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    let _ = PyValueError::new_err::<()>;
    let _ = m.py().get_type::<ArrayView>();
    Ok(())
}
