//! Storages as Python sees them: all bytes of a storage as a tensor of uint8, tensors over such bytes, and host memory as a
//! buffer that files read into and write from.

use crate::error::*;
use crate::tensor::*;
use crate::types::dtype_of;
use flambeau::core::{Device, Dims};
use flambeau::{DType, Tensor};
use pyo3::exceptions::*;
use pyo3::ffi;
use pyo3::prelude::*;
use std::ffi::c_int;
use std::sync::Arc;

fn tensor_arg<'a>(o: &'a Bound<'_, PyAny>) -> PyResult<&'a Tensor> {
    extract(o).ok_or_else(|| PyTypeError::new_err(format!("expected Tensor, got {}", o.get_type())))
}

/// The whole storage behind a tensor, as a 1-d uint8 tensor that shares it.
#[pyfunction]
fn _storage_bytes<'py>(t: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let storage = tensor_arg(t)?.storage();
    storage.ptr().py()?;
    let n = storage.nbytes() as i64;
    wrap_bound(t.py(), Tensor::from_storage(storage, DType::U8, &[n], &[1], 0))
}

/// A number that two tensors have in common while they share a storage.
#[pyfunction]
fn _storage_key(t: &Bound<'_, PyAny>) -> PyResult<usize> {
    Ok(Arc::as_ptr(&tensor_arg(t)?.storage()) as usize)
}

/// A tensor over the storage of `bytes`, with offset and strides in elements.
///
/// # Errors
/// `RuntimeError` for an element outside the storage, `ValueError` for sizes and strides that do not go together.
#[pyfunction]
fn _storage_tensor<'py>(
    bytes: &Bound<'py, PyAny>,
    dtype: &Bound<'py, PyAny>,
    offset: i64,
    size: Vec<i64>,
    stride: Vec<i64>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = bytes.py();
    let storage = tensor_arg(bytes)?.storage();
    // SAFETY: attached.
    let dtype = unsafe { dtype_of(dtype.as_ptr()) };
    let dtype = dtype.ok_or_else(|| PyTypeError::new_err("a tensor over a storage: dtype must be a torch.dtype"))?;
    if size.len() != stride.len() {
        return Err(PyValueError::new_err(format!(
            "a tensor over a storage: {} sizes and {} strides must be as many",
            size.len(),
            stride.len()
        )));
    }
    let refused = |why: &str| {
        Err(PyRuntimeError::new_err(format!(
            "a tensor of size {size:?}, stride {stride:?} and offset {offset} over a storage of {} bytes of {}: {why}",
            storage.nbytes(),
            dtype.name()
        )))
    };
    if offset < 0 || size.iter().any(|n| *n < 0) || stride.iter().any(|s| *s < 0) {
        return refused("sizes, strides and offset must not be negative");
    }
    // One past the last element, in elements; nothing is read when there are no elements.
    let mut end: i128 = offset as i128 + 1;
    for (n, s) in size.iter().zip(&stride) {
        end += (*n as i128 - 1).max(0) * *s as i128;
    }
    let mut count: i128 = 1;
    for n in &size {
        count = count.saturating_mul(*n as i128);
    }
    if count > i64::MAX as i128 || end > i64::MAX as i128 {
        return refused("it has too many elements");
    }
    if count > 0 && end * dtype.size() as i128 > storage.nbytes() as i128 {
        return refused("it reaches beyond the storage");
    }
    let (size, stride) = (Dims::from_slice(&size), Dims::from_slice(&stride));
    wrap_bound(py, Tensor::from_storage(storage, dtype, &size, &stride, offset))
}

/// The memory of a contiguous tensor on the CPU, as bytes that can be read and written; holds the tensor.
#[pyclass(frozen, module = "flambeau")]
struct HostMemory {
    tensor: Tensor,
    nbytes: usize,
}
#[pymethods]
impl HostMemory {
    #[new]
    fn new(t: &Bound<'_, PyAny>) -> PyResult<Self> {
        let tensor = tensor_arg(t)?.detach();
        if tensor.device() != Device::Cpu || !tensor.is_contiguous() {
            return Err(PyValueError::new_err("HostMemory: the tensor must be contiguous and on the CPU"));
        }
        tensor.data_ptr().py()?;
        // Who holds the buffer sees every later write: none may be put off.
        tensor.storage().set_escaped();
        let nbytes = tensor.numel() as usize * tensor.dtype().size();
        Ok(HostMemory { tensor, nbytes })
    }
    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        let this = slf.get();
        let p = this.tensor.data_ptr().py()?;
        // SAFETY: `nbytes` bytes at `p` live as long as `slf`, of which the buffer keeps a reference; `view` is the caller's.
        if ffi::PyBuffer_FillInfo(view, slf.as_ptr(), p as *mut _, this.nbytes as isize, 0, flags) < 0 {
            return Err(PyErr::fetch(slf.py()));
        }
        Ok(())
    }
}

/// Adds the functions and classes of this module.
pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_function(wrap_pyfunction!(_storage_bytes, m)?)?;
    m.add_function(wrap_pyfunction!(_storage_key, m)?)?;
    m.add_function(wrap_pyfunction!(_storage_tensor, m)?)?;
    m.add_class::<HostMemory>()
}
