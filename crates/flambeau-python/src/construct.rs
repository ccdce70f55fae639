//! Tensors from Python data: numbers, nested sequences, arrays.

use crate::binder::number;
use crate::convert;
use crate::error::*;
use crate::raw::*;
use crate::tensor::*;
use crate::types;
use flambeau::core::{bail, bf16, ensure, err, f16, promote_types, Complex32, Complex64};
use flambeau::ops::{device::to_device, elementwise, factory, view};
use flambeau::{DType, Device, Number, Result, Tensor};
use pyo3::ffi::*;

/// Numbers gathered from nested sequences, with the shape and dtype that they ask for.
struct Gathered {
    sizes: Vec<i64>,
    numbers: Vec<Number>,
    /// Integers beyond int64, as their bits; only uint64 can hold them.
    unsigned: bool,
    dtype: Option<DType>,
}

/// A tensor with a copy of `data`, as `torch.tensor` makes it: dtype and device are found from the data unless given.
///
/// # Errors
/// `Value` for ragged sequences, `Type` or `Runtime` for things that are no numbers.
///
/// # Safety
/// The interpreter is attached.
pub unsafe fn tensor_from(data: Obj, dtype: Option<DType>, device: Option<Device>) -> Result<Tensor> {
    let _off = flambeau::mode::Guard::new(flambeau::mode::NO_GRAD, true);
    if is_tensor(data) {
        let t = tensor_of(data).detach();
        return place(view::clone(&t)?, dtype, device);
    }
    if let Some(t) = convert::array_like(data)? {
        return place(view::clone(&t)?, dtype, device);
    }
    let mut g = Gathered { sizes: Vec::new(), numbers: Vec::new(), unsigned: false, dtype: None };
    shape_of(data, &mut g.sizes)?;
    gather(data, 0, &mut g)?;
    let inferred = g.dtype.unwrap_or_else(flambeau::mode::default_dtype);
    let dtype = dtype.unwrap_or(inferred);
    ensure!(
        !g.unsigned || dtype == DType::U64 || dtype.is_differentiable(),
        Runtime,
        "Overflow when unpacking long long"
    );
    let t = from_numbers(&g.numbers, &g.sizes, dtype)?;
    let device = device.or_else(types::default_device_if_set);
    place(t, None, device)
}

fn place(t: Tensor, dtype: Option<DType>, device: Option<Device>) -> Result<Tensor> {
    let t = match dtype {
        Some(d) => elementwise::to_dtype(&t, d)?,
        None => t,
    };
    match device {
        Some(d) => to_device(&t, d),
        None => Ok(t),
    }
}

/// Whether an object is a sequence of elements (and not a string).
unsafe fn is_nested(o: Obj) -> bool {
    if is_sequence(o) {
        return true;
    }
    if PyUnicode_Check(o) != 0 || PyBytes_Check(o) != 0 || PyDict_Check(o) != 0 || number(o).is_some() {
        return false;
    }
    PyErr_Clear();
    !is_tensor(o) && PySequence_Check(o) != 0
}

unsafe fn shape_of(data: Obj, sizes: &mut Vec<i64>) -> Result<()> {
    let mut o = data;
    let mut held: Vec<Obj> = Vec::new();
    loop {
        if is_tensor(o) {
            sizes.extend(tensor_of(o).sizes());
            break;
        }
        if !is_nested(o) {
            if let Some(t) = convert::array_like(o)? {
                sizes.extend(t.sizes());
            }
            break;
        }
        let n = PySequence_Size(o);
        if n < 0 {
            held.iter().for_each(|&o| Py_DECREF(o));
            return Err(from_raised());
        }
        sizes.push(n as i64);
        if sizes.len() > 128 {
            held.iter().for_each(|&o| Py_DECREF(o));
            bail!(Value, "too many dimensions '{}'", type_name(data));
        }
        if n == 0 {
            break;
        }
        let first = PySequence_GetItem(o, 0);
        if first.is_null() {
            held.iter().for_each(|&o| Py_DECREF(o));
            return Err(from_raised());
        }
        held.push(first);
        o = first;
    }
    held.iter().for_each(|&o| Py_DECREF(o));
    Ok(())
}

impl Gathered {
    fn meet(&mut self, dtype: DType) {
        self.dtype = Some(self.dtype.map_or(dtype, |d| promote_types(d, dtype)));
    }
}

unsafe fn gather(o: Obj, depth: usize, g: &mut Gathered) -> Result<()> {
    if depth == g.sizes.len() {
        if let Some(n) = element(o, g)? {
            g.numbers.push(n);
        }
        return Ok(());
    }
    if is_tensor(o) {
        return gather_tensor(tensor_of(o), depth, g);
    }
    if !is_nested(o) {
        if let Some(t) = convert::array_like(o)? {
            return gather_tensor(&t, depth, g);
        }
        bail!(Type, "not a sequence");
    }
    let n = PySequence_Size(o);
    if n as i64 != g.sizes[depth] {
        bail!(Value, "expected sequence of length {} at dim {depth} (got {n})", g.sizes[depth]);
    }
    for i in 0..n {
        let item = PySequence_GetItem(o, i);
        if item.is_null() {
            return Err(from_raised());
        }
        let r = gather(item, depth + 1, g);
        Py_DECREF(item);
        r?;
    }
    Ok(())
}

fn gather_tensor(t: &Tensor, depth: usize, g: &mut Gathered) -> Result<()> {
    let sizes = t.sizes();
    if sizes[..] != g.sizes[depth..] {
        bail!(
            Value,
            "expected sequence of length {} at dim {depth} (got {})",
            g.sizes.get(depth).copied().unwrap_or(0),
            sizes.first().copied().unwrap_or(0)
        );
    }
    g.meet(t.dtype());
    convert::for_each(t, |n| g.numbers.push(n))
}

/// One number, and what it means for the dtype.
unsafe fn element(o: Obj, g: &mut Gathered) -> Result<Option<Number>> {
    let plain = Py_TYPE(o) == &raw mut PyFloat_Type || Py_TYPE(o) == &raw mut PyLong_Type || PyBool_Check(o) != 0;
    if !plain {
        // NumPy's scalars say their own dtype.
        if let Some(t) = convert::array_like(o)? {
            g.meet(t.dtype());
            return Ok(Some(t.item()?));
        }
    }
    if let Some(n) = number(o) {
        g.meet(n.default_dtype(flambeau::mode::default_dtype()));
        return Ok(Some(n));
    }
    if !PyErr_Occurred().is_null() {
        PyErr_Clear();
        let bits = PyLong_AsUnsignedLongLong(o);
        if bits == u64::MAX && !PyErr_Occurred().is_null() {
            PyErr_Clear();
            bail!(Runtime, "Overflow when unpacking long long");
        }
        g.unsigned = true;
        g.meet(DType::I64);
        return Ok(Some(Number::Int(bits as i64)));
    }
    if is_tensor(o) {
        let t = tensor_of(o);
        ensure!(t.numel() == 1, Value, "only one element tensors can be converted to Python scalars");
        g.meet(t.dtype());
        return Ok(Some(t.item()?));
    }
    if o == Py_None() {
        bail!(Runtime, "Could not infer dtype of NoneType");
    }
    if PyUnicode_Check(o) != 0 {
        if g.sizes.is_empty() {
            bail!(Type, "new(): invalid data type 'str'");
        }
        bail!(Value, "too many dimensions 'str'");
    }
    if is_nested(o) {
        bail!(Type, "expected a number at the innermost level, got a {}", type_name(o));
    }
    if PyIndex_Check(o) != 0 {
        let i = PyNumber_AsSsize_t(o, PyExc_OverflowError);
        if i == -1 && !PyErr_Occurred().is_null() {
            return Err(from_raised());
        }
        g.meet(DType::I64);
        return Ok(Some(Number::Int(i as i64)));
    }
    bail!(Runtime, "Could not infer dtype of {}", type_name(o))
}

/// A CPU tensor of these numbers.
///
/// # Errors
/// `Runtime` for a number outside an integer dtype, `Type` for a complex number in a real one.
pub fn from_numbers(numbers: &[Number], sizes: &[i64], dtype: DType) -> Result<Tensor> {
    if !dtype.is_complex() && numbers.iter().any(|n| matches!(n, Number::Complex(_))) {
        bail!(Type, "can't convert complex to float");
    }
    if dtype.is_integral(false) && dtype.size() < 8 {
        for n in numbers {
            n.check_fits(dtype)?;
        }
    }
    macro_rules! build {
        ($t:ty, $n:ident => $e:expr) => {
            Tensor::from_slice(&numbers.iter().map(|&$n| $e).collect::<Vec<$t>>(), sizes)
        };
    }
    match dtype {
        DType::Bool => build!(bool, n => n.to_bool()),
        DType::U8 => build!(u8, n => n.to_i64() as u8),
        DType::I8 => build!(i8, n => n.to_i64() as i8),
        DType::I16 => build!(i16, n => n.to_i64() as i16),
        DType::I32 => build!(i32, n => n.to_i64() as i32),
        DType::I64 => build!(i64, n => n.to_i64()),
        DType::U16 => build!(u16, n => n.to_i64() as u16),
        DType::U32 => build!(u32, n => n.to_i64() as u32),
        DType::U64 => build!(u64, n => n.to_i64() as u64),
        DType::F16 => build!(f16, n => f16::from_f64(n.to_f64())),
        DType::BF16 => build!(bf16, n => bf16::from_f64(n.to_f64())),
        DType::F32 => build!(f32, n => n.to_f64() as f32),
        DType::F64 => build!(f64, n => n.to_f64()),
        DType::C64 => build!(Complex32, n => {
            let c = n.to_complex();
            Complex32::new(c.re as f32, c.im as f32)
        }),
        DType::C128 => build!(Complex64, n => n.to_complex()),
        DType::C32 => elementwise::to_dtype(&from_numbers(numbers, sizes, DType::C64)?, dtype),
        DType::F8E4M3 | DType::F8E5M2 => elementwise::to_dtype(&from_numbers(numbers, sizes, DType::F32)?, dtype),
    }
}

/// `Tensor(...)`: sizes give uninitialised float memory, data a float copy, a tensor an alias.
///
/// # Safety
/// The interpreter is attached; `args` is a tuple.
pub unsafe fn legacy(args: Obj, kwargs: Obj) -> Result<Tensor> {
    let _ = kwargs;
    let n = PyTuple_Size(args);
    let float = flambeau::mode::default_dtype();
    if n == 0 {
        return factory::empty(&[0], float, Device::Cpu);
    }
    let first = PyTuple_GetItem(args, 0);
    if n == 1 {
        if is_tensor(first) {
            return Ok(tensor_of(first).detach());
        }
        if PyLong_Check(first) == 0 {
            // A `Size` is sizes, any other sequence data.
            if type_name(first) == "Size" {
                let sizes: Vec<i64> =
                    (0..sequence_len(first)).map(|i| PyLong_AsLongLong(sequence_item(first, i))).collect();
                return factory::empty(&sizes, float, Device::Cpu);
            }
            if is_sequence(first) || convert::array_like(first)?.is_some() {
                return tensor_from(first, Some(float), None);
            }
            bail!(Type, "new(): data must be a sequence (got {})", type_name(first));
        }
    }
    let mut sizes = Vec::new();
    for i in 0..n {
        let o = PyTuple_GetItem(args, i);
        if PyLong_Check(o) == 0 {
            return Err(err!(
                Type,
                "new() received an invalid combination of arguments: argument {} must be int, not {}",
                i + 1,
                type_name(o)
            ));
        }
        sizes.push(PyLong_AsLongLong(o));
    }
    factory::empty(&sizes, float, Device::Cpu)
}
