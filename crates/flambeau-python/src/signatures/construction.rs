//! Signatures of what makes tensors from Python data, and of conversions between dtypes and devices.

use crate::call::{with_py, Object};
use crate::construct::tensor_from;
use crate::convert;
use crate::error::*;
use crate::tensor::{extract, is_tensor, tensor_of};
use crate::types::default_device_if_set;
use flambeau::core::{ensure, err, MemoryFormat};
use flambeau::ops::device::to_device;
use flambeau::ops::{elementwise, factory, view};
use flambeau::{DType, Device, Number, Result, Tensor};
use pyo3::prelude::*;

fn tensor(
    data: Object,
    dtype: Option<DType>,
    device: Option<Device>,
    requires_grad: bool,
    _pin: bool,
) -> Result<Tensor> {
    // SAFETY: rows that take objects run attached.
    let t = unsafe { tensor_from(data.0, dtype, device)? };
    if requires_grad {
        t.set_requires_grad(true)?;
    }
    Ok(t)
}
/// Shares memory where it can.
pub(super) fn as_tensor(data: Object, dtype: Option<DType>, device: Option<Device>) -> Result<Tensor> {
    // SAFETY: as in `tensor`.
    unsafe {
        let t = if is_tensor(data.0) {
            tensor_of(data.0).clone()
        } else {
            match convert::array_like(data.0)? {
                Some(t) => t,
                None => return tensor_from(data.0, dtype, device),
            }
        };
        convert_to(
            &t,
            device.or_else(|| if is_tensor(data.0) { None } else { default_device_if_set() }),
            dtype,
            false,
            None,
        )
    }
}
fn asarray(
    data: Object,
    dtype: Option<DType>,
    device: Option<Device>,
    copy: Option<bool>,
    requires_grad: bool,
) -> Result<Tensor> {
    // SAFETY: as in `tensor`.
    let buffer = unsafe { pyo3::ffi::PyBytes_Check(data.0) != 0 || pyo3::ffi::PyByteArray_Check(data.0) != 0 };
    let t = if copy == Some(true) {
        // SAFETY: as in `tensor`.
        unsafe { tensor_from(data.0, dtype, device)? }
    } else if buffer {
        let d = dtype.unwrap_or_else(flambeau::mode::default_dtype);
        Python::attach(|py| convert::from_buffer(&data.bind(py), d, -1, 0))?
    } else {
        let t = as_tensor(data, dtype, device)?;
        // SAFETY: as in `tensor`.
        let shares = unsafe {
            match () {
                _ if is_tensor(data.0) => std::sync::Arc::ptr_eq(&tensor_of(data.0).storage(), &t.storage()),
                _ => match convert::array_like(data.0)? {
                    Some(original) => original.data_ptr()? == t.data_ptr()?,
                    None => false,
                },
            }
        };
        ensure!(copy != Some(false) || shares, Value, "can't alias arbitrary sequence into a tensor.");
        t
    };
    if requires_grad && !t.requires_grad() {
        t.set_requires_grad(true)?;
    }
    Ok(t)
}
fn from_numpy(array: Object) -> Result<Tensor> {
    with_py(|py| {
        let o = array.bind(py);
        // SAFETY: attached.
        let name = unsafe { crate::raw::type_name(array.0) };
        if extract(&o).is_some() || !o.hasattr("__array_interface__")? || !o.hasattr("__len__")? {
            return Err(pyo3::exceptions::PyTypeError::new_err(format!("expected np.ndarray (got {name})")));
        }
        let t = convert::from_interface(&o).py()?;
        static WARNED: std::sync::Once = std::sync::Once::new();
        if !o.getattr("flags").and_then(|f| f.getattr("writeable")?.is_truthy()).unwrap_or(true)
            && !WARNED.is_completed()
        {
            WARNED.call_once(|| {});
            let text = c"from_numpy(): the given array is not writable, but nothing keeps the tensor from being written to, which \
                         is undefined. Copy the array first, or make it writable. This is said once.";
            PyErr::warn(py, &py.get_type::<pyo3::exceptions::PyUserWarning>(), text, 1)?;
        }
        Ok(t)
    })
}
fn frombuffer(buffer: Object, dtype: DType, count: i64, offset: i64, requires_grad: bool) -> Result<Tensor> {
    let t = Python::attach(|py| convert::from_buffer(&buffer.bind(py), dtype, count, offset))?;
    if requires_grad {
        t.set_requires_grad(true)?;
    }
    Ok(t)
}

/// `t` elsewhere, in another dtype, in another order of memory; `t` itself when nothing changes and no copy is asked for.
pub fn convert_to(
    t: &Tensor,
    device: Option<Device>,
    dtype: Option<DType>,
    copy: bool,
    format: Option<MemoryFormat>,
) -> Result<Tensor> {
    let mut out = t.clone();
    if let Some(d) = dtype {
        // Convert on the side where the bytes are fewer to move.
        out = elementwise::to_dtype(&out, d)?;
    }
    if let Some(d) = device {
        out = to_device(&out, d)?;
    }
    if let Some(f) = format {
        if f != MemoryFormat::Preserve && !view::is_contiguous_as(&out, f) {
            out = view::clone_as(&out, f)?;
        }
    }
    if copy && out.is_same(t) {
        out = match format {
            Some(f) => view::clone_as(&out, f)?,
            None => view::clone(&out)?,
        };
    }
    Ok(out)
}
fn to_dtype(t: &Tensor, dtype: DType, _: bool, copy: bool, format: Option<MemoryFormat>) -> Result<Tensor> {
    convert_to(t, None, Some(dtype), copy, format)
}
fn to_device_dtype(
    t: &Tensor,
    device: Option<Device>,
    dtype: Option<DType>,
    _: bool,
    copy: bool,
    format: Option<MemoryFormat>,
) -> Result<Tensor> {
    convert_to(t, device, dtype, copy, format)
}
fn to_other(t: &Tensor, other: &Tensor, _: bool, copy: bool, format: Option<MemoryFormat>) -> Result<Tensor> {
    convert_to(t, Some(other.device()), Some(other.dtype()), copy, format)
}
/// A method that converts to one dtype.
macro_rules! cast {
    ($D:ident) => {
        |t: &Tensor, format: Option<MemoryFormat>| convert_to(t, None, Some(DType::$D), false, format)
    };
}
fn to_type(t: &Tensor, dtype: Option<Object>, _: bool) -> Result<crate::call::Returned> {
    use crate::call::{Return, Returned};
    let Some(dtype) = dtype else {
        return Ok(Returned::Str(match t.device() {
            Device::Cuda(_) if t.is_sparse() => format!("torch.cuda.sparse.{}Tensor", t.dtype().title()),
            Device::Cuda(_) => format!("torch.cuda.{}Tensor", t.dtype().title()),
            _ if t.is_sparse() => format!("torch.sparse.{}Tensor", t.dtype().title()),
            _ => format!("torch.{}Tensor", t.dtype().title()),
        }));
    };
    // SAFETY: rows that take objects run attached.
    let d = unsafe {
        match crate::types::dtype_of(dtype.0) {
            Some(d) => d,
            None => {
                let name = if pyo3::ffi::PyUnicode_Check(dtype.0) != 0 {
                    crate::raw::str_of(dtype.0).to_owned()
                } else {
                    crate::raw::repr_of(dtype.0)
                };
                let found = DType::ALL.iter().find(|d| name.contains(&format!(".{}Tensor", d.title())));
                *found.ok_or_else(|| err!(Type, "invalid type: '{name}'"))?
            }
        }
    };
    Ok(elementwise::to_dtype(t, d)?.returned())
}
fn new_tensor(
    t: &Tensor,
    data: Object,
    dtype: Option<DType>,
    device: Option<Device>,
    requires_grad: bool,
) -> Result<Tensor> {
    tensor(data, dtype.or(Some(t.dtype())), device.or(Some(t.device())), requires_grad, false)
}
fn new_full(
    t: &Tensor,
    sizes: &[i64],
    value: Number,
    dtype: Option<DType>,
    device: Option<Device>,
    requires_grad: bool,
) -> Result<Tensor> {
    if t.is_sparse() {
        // Zeros are no entries; any other number has no sparse form.
        let out = new_empty(t, sizes, dtype, device, requires_grad)?;
        return elementwise::fill_(&out, value);
    }
    let out = factory::full(sizes, value, dtype.unwrap_or(t.dtype()), device.unwrap_or(t.device()))?;
    if requires_grad {
        out.set_requires_grad(true)?;
    }
    Ok(out)
}
fn new_empty(
    t: &Tensor,
    sizes: &[i64],
    dtype: Option<DType>,
    device: Option<Device>,
    requires_grad: bool,
) -> Result<Tensor> {
    let (dtype, device) = (dtype.unwrap_or(t.dtype()), device.unwrap_or(t.device()));
    let out = if t.is_sparse() {
        flambeau::core::check_sizes(sizes, dtype)?;
        flambeau::ops::sparse::empty(t.layout(), sizes, 0, dtype, device)?
    } else {
        factory::empty(sizes, dtype, device)?
    };
    if requires_grad {
        out.set_requires_grad(true)?;
    }
    Ok(out)
}
fn new_empty_strided(
    t: &Tensor,
    sizes: &[i64],
    strides: &[i64],
    dtype: Option<DType>,
    device: Option<Device>,
    requires_grad: bool,
) -> Result<Tensor> {
    let out = factory::empty_strided(sizes, strides, dtype.unwrap_or(t.dtype()), device.unwrap_or(t.device()))?;
    if requires_grad {
        out.set_requires_grad(true)?;
    }
    Ok(out)
}

operators! { CONSTRUCTION;
    "tensor(object data, *, dtype? dtype=None, device? device=None, bool requires_grad=False, bool pin_memory=False)" [function] => tensor;
    "as_tensor(object data, dtype? dtype=None, device? device=None)" [function] => as_tensor;
    "asarray(object obj, *, dtype? dtype=None, device? device=None, bool? copy=None, bool requires_grad=False)" [function] => asarray;
    "from_numpy(object ndarray)" [function] => from_numpy;
    "frombuffer(object buffer, *, dtype dtype, int count=-1, int offset=0, bool requires_grad=False)" [function] => frombuffer;
    "scalar_tensor(Number s, *, dtype? dtype=None, device? device=None)" [function factory] => |s: Number, dtype: Option<DType>, device: Option<Device>| {
        factory::full(&[], s, dtype.unwrap_or_else(flambeau::mode::default_dtype), device.unwrap_or_default())
    };
    "to(Tensor input, dtype dtype, bool non_blocking=False, bool copy=False, *, memory_format? memory_format=None)" [method] => to_dtype;
    "to(Tensor input, device? device=None, dtype? dtype=None, bool non_blocking=False, bool copy=False, *, memory_format? memory_format=None)" [method] => to_device_dtype;
    "to(Tensor input, Tensor other, bool non_blocking=False, bool copy=False, *, memory_format? memory_format=None)" [method] => to_other;
    "type(Tensor input, object? dtype=None, bool non_blocking=False)" [method] => to_type;
    "type_as(Tensor input, Tensor other)" [method] => |t: &Tensor, other: &Tensor| convert_to(t, Some(other.device()), Some(other.dtype()), false, None);
    "cpu(Tensor input, *, memory_format? memory_format=None)" [method] => |t: &Tensor, f: Option<MemoryFormat>| convert_to(t, Some(Device::Cpu), None, false, f);
    "cuda(Tensor input, device? device=None, bool non_blocking=False, *, memory_format? memory_format=None)" [method] =>
        |t: &Tensor, device: Option<Device>, _: bool, f: Option<MemoryFormat>| convert_to(t, Some(device.unwrap_or(Device::Cuda(0))), None, false, f);
    "float(Tensor input, *, memory_format? memory_format=None)" [method] => cast!(F32);
    "double(Tensor input, *, memory_format? memory_format=None)" [method] => cast!(F64);
    "half(Tensor input, *, memory_format? memory_format=None)" [method] => cast!(F16);
    "bfloat16(Tensor input, *, memory_format? memory_format=None)" [method] => cast!(BF16);
    "bool(Tensor input, *, memory_format? memory_format=None)" [method] => cast!(Bool);
    "byte(Tensor input, *, memory_format? memory_format=None)" [method] => cast!(U8);
    "char(Tensor input, *, memory_format? memory_format=None)" [method] => cast!(I8);
    "short(Tensor input, *, memory_format? memory_format=None)" [method] => cast!(I16);
    "int(Tensor input, *, memory_format? memory_format=None)" [method] => cast!(I32);
    "long(Tensor input, *, memory_format? memory_format=None)" [method] => cast!(I64);
    "chalf(Tensor input, *, memory_format? memory_format=None)" [method] => cast!(C32);
    "cfloat(Tensor input, *, memory_format? memory_format=None)" [method] => cast!(C64);
    "cdouble(Tensor input, *, memory_format? memory_format=None)" [method] => cast!(C128);
    "new_tensor(Tensor input, object data, *, dtype? dtype=None, device? device=None, bool requires_grad=False)" [method] => new_tensor;
    "new_full(Tensor input, int[*] size, Number fill_value, *, dtype? dtype=None, device? device=None, bool requires_grad=False)" [method] => new_full;
    "new_empty(Tensor input, int[*] size, *, dtype? dtype=None, device? device=None, bool requires_grad=False)" [method] => new_empty;
    "new_empty_strided(Tensor input, int[*] size, int[*] stride, *, dtype? dtype=None, device? device=None, bool requires_grad=False)" [method] => new_empty_strided;
    "new_zeros(Tensor input, int[*] size, *, dtype? dtype=None, device? device=None, bool requires_grad=False)" [method] =>
        |t: &Tensor, size: &[i64], dtype: Option<DType>, device: Option<Device>, rg: bool| new_full(t, size, Number::Int(0), dtype, device, rg);
    "new_ones(Tensor input, int[*] size, *, dtype? dtype=None, device? device=None, bool requires_grad=False)" [method] =>
        |t: &Tensor, size: &[i64], dtype: Option<DType>, device: Option<Device>, rg: bool| new_full(t, size, Number::Int(1), dtype, device, rg);
    "new(Tensor input, int[*] size=[])" [method] => |t: &Tensor, size: &[i64]| new_empty(t, if size.is_empty() { &[0] } else { size }, None, None, false);
    "result_type(Tensor|Number tensor1, Tensor|Number tensor2)" [function] => |a: flambeau::Value<'_>, b: flambeau::Value<'_>| {
        let mut p = elementwise::Promotion::default();
        for v in [a, b] {
            match v {
                flambeau::Value::Tensor(t) => p.tensor(t.dtype(), t.dim()),
                flambeau::Value::Number(n) => p.number(n),
            }
        }
        Ok(p.result())
    };
    "promote_types(dtype type1, dtype type2)" [function] => |a: DType, b: DType| Ok(flambeau::core::promote_types(a, b));
    "can_cast(dtype from_, dtype to)" [function] => |from: DType, to: DType| {
        use flambeau::core::Category;
        Ok(from.category() <= to.category() && !(to.category() == Category::Integer && from.is_signed() && from != DType::Bool && !to.is_signed()))
    };
}
