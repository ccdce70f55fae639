//! Tensors to and from other libraries by DLPack: capsules that hold the layout and lend the memory.

use crate::error::*;
use crate::raw::*;
use crate::tensor::*;
use flambeau::core::storage::{Memory, Release};
use flambeau::core::{bail, ensure, Storage};
use flambeau::{DType, Device, Result, Tensor};
use pyo3::exceptions::*;
use pyo3::ffi::*;
use pyo3::prelude::*;
use std::ffi::{c_void, CStr};

// The structures of DLPack 1.1, as its header gives them.
#[repr(C)]
struct DlDevice {
    kind: i32,
    index: i32,
}
#[repr(C)]
struct DlType {
    code: u8,
    bits: u8,
    lanes: u16,
}
#[repr(C)]
struct DlTensor {
    data: *mut c_void,
    device: DlDevice,
    ndim: i32,
    dtype: DlType,
    shape: *mut i64,
    strides: *mut i64,
    byte_offset: u64,
}
#[repr(C)]
struct Managed {
    tensor: DlTensor,
    context: *mut c_void,
    deleter: Option<unsafe extern "C" fn(*mut Managed)>,
}
#[repr(C)]
struct Versioned {
    major: u32,
    minor: u32,
    context: *mut c_void,
    deleter: Option<unsafe extern "C" fn(*mut Versioned)>,
    flags: u64,
    tensor: DlTensor,
}

const PLAIN: &CStr = c"dltensor";
const PLAIN_USED: &CStr = c"used_dltensor";
const VERSIONED: &CStr = c"dltensor_versioned";
const VERSIONED_USED: &CStr = c"used_dltensor_versioned";
const IS_COPIED: u64 = 2;

const CPU: i32 = 1;
const CUDA: i32 = 2;
const CUDA_HOST: i32 = 3;

fn code(dtype: DType) -> (u8, u8) {
    let bits = dtype.size() as u8 * 8;
    let code = match dtype {
        DType::I8 | DType::I16 | DType::I32 | DType::I64 => 0,
        DType::U8 | DType::U16 | DType::U32 | DType::U64 => 1,
        DType::F16 | DType::F32 | DType::F64 => 2,
        DType::BF16 => 4,
        DType::C32 | DType::C64 | DType::C128 => 5,
        DType::Bool => 6,
        DType::F8E4M3 => 10,
        DType::F8E5M2 => 12,
    };
    (code, bits)
}
fn dtype(t: &DlType) -> Result<DType> {
    ensure!(t.lanes == 1, Runtime, "Unsupported lanes {} in DLPack: elements must be scalars", t.lanes);
    Ok(match (t.code, t.bits) {
        (0, 8) => DType::I8,
        (0, 16) => DType::I16,
        (0, 32) => DType::I32,
        (0, 64) => DType::I64,
        (1, 8) => DType::U8,
        (1, 16) => DType::U16,
        (1, 32) => DType::U32,
        (1, 64) => DType::U64,
        (2, 16) => DType::F16,
        (2, 32) => DType::F32,
        (2, 64) => DType::F64,
        (4, 16) => DType::BF16,
        (5, 32) => DType::C32,
        (5, 64) => DType::C64,
        (5, 128) => DType::C128,
        (6, 8) => DType::Bool,
        (10, 8) => DType::F8E4M3,
        (12, 8) => DType::F8E5M2,
        (code, bits) => bail!(Runtime, "Unsupported DLPack type: code {code}, {bits} bits"),
    })
}

/// What an exported capsule points into, all of it alive until the consumer calls the deleter.
struct Export<M> {
    managed: M,
    _tensor: Tensor,
    _sizes: Vec<i64>,
    _strides: Vec<i64>,
}

fn describe(t: &Tensor, sizes: &mut [i64], strides: &mut [i64]) -> Result<DlTensor> {
    ensure!(
        t.lazy() == 0,
        Runtime,
        "Can't export tensors with the conjugate or negative bit set; use resolve_conj() and resolve_neg()"
    );
    let (code, bits) = code(t.dtype());
    let device = match t.device() {
        Device::Cpu => DlDevice { kind: CPU, index: 0 },
        Device::Cuda(index) => DlDevice { kind: CUDA, index: i32::from(index) },
        other => bail!(Runtime, "Cannot pack tensors on {other}"),
    };
    let data = if t.numel() == 0 { std::ptr::null_mut() } else { t.data_ptr()?.cast::<c_void>() };
    t.storage().set_escaped();
    Ok(DlTensor {
        data,
        device,
        ndim: sizes.len() as i32,
        dtype: DlType { code, bits, lanes: 1 },
        shape: sizes.as_mut_ptr(),
        strides: strides.as_mut_ptr(),
        byte_offset: 0,
    })
}

unsafe extern "C" fn release_plain(m: *mut Managed) {
    if !m.is_null() {
        // SAFETY: `context` is the box that `_to_dlpack` leaked, and a deleter is called once.
        drop(unsafe { Box::from_raw((*m).context.cast::<Export<Managed>>()) });
    }
}
unsafe extern "C" fn release_versioned(m: *mut Versioned) {
    if !m.is_null() {
        // SAFETY: as in `release_plain`.
        drop(unsafe { Box::from_raw((*m).context.cast::<Export<Versioned>>()) });
    }
}
/// A capsule that nobody consumed frees what it holds; one that was consumed has another name.
unsafe extern "C" fn capsule_dies(capsule: Obj) {
    // SAFETY: called by the interpreter on a capsule of this module; the name says what the pointer is.
    unsafe {
        if PyCapsule_IsValid(capsule, PLAIN.as_ptr()) != 0 {
            let m = PyCapsule_GetPointer(capsule, PLAIN.as_ptr()).cast::<Managed>();
            if let Some(f) = (*m).deleter {
                f(m);
            }
        } else if PyCapsule_IsValid(capsule, VERSIONED.as_ptr()) != 0 {
            let m = PyCapsule_GetPointer(capsule, VERSIONED.as_ptr()).cast::<Versioned>();
            if let Some(f) = (*m).deleter {
                f(m);
            }
        }
    }
}

/// A capsule over the tensor's memory, in the versioned form or the older one.
#[pyfunction]
fn _to_dlpack<'py>(t: &Bound<'py, PyAny>, versioned: bool, copied: bool) -> PyResult<Bound<'py, PyAny>> {
    let py = t.py();
    let t = extract(t).ok_or_else(|| PyTypeError::new_err("to_dlpack: expected a Tensor"))?.detach();
    let (mut sizes, mut strides) = (t.sizes().to_vec(), t.strides().to_vec());
    // Strides of dimensions of one element mean nothing; consumers like those of a contiguous tensor.
    for (size, stride) in sizes.iter().zip(&mut strides) {
        if *size <= 1 {
            *stride = 1;
        }
    }
    let tensor = describe(&t, &mut sizes, &mut strides).py()?;
    let capsule = if versioned {
        let managed = Versioned {
            major: 1,
            minor: 1,
            context: std::ptr::null_mut(),
            deleter: Some(release_versioned),
            flags: if copied { IS_COPIED } else { 0 },
            tensor,
        };
        let p = Box::into_raw(Box::new(Export { managed, _tensor: t, _sizes: sizes, _strides: strides }));
        // SAFETY: `p` was just leaked; its vectors' memory has not moved with it. A new capsule over it.
        unsafe {
            (*p).managed.context = p.cast();
            PyCapsule_New((&raw mut (*p).managed).cast(), VERSIONED.as_ptr(), Some(capsule_dies))
        }
    } else {
        let managed = Managed { tensor, context: std::ptr::null_mut(), deleter: Some(release_plain) };
        let p = Box::into_raw(Box::new(Export { managed, _tensor: t, _sizes: sizes, _strides: strides }));
        // SAFETY: as above.
        unsafe {
            (*p).managed.context = p.cast();
            PyCapsule_New((&raw mut (*p).managed).cast(), PLAIN.as_ptr(), Some(capsule_dies))
        }
    };
    // SAFETY: attached; a new reference or null with an exception set.
    unsafe { Bound::from_owned_ptr_or_err(py, capsule) }
}

/// Gives imported memory back to who lent it.
enum Lender {
    Plain(*mut Managed),
    Versioned(*mut Versioned),
}
// SAFETY: the pointer is used once, to call the lender's deleter, which DLPack allows from any thread.
unsafe impl Send for Lender {}
// SAFETY: as above; nothing is reachable through a shared reference.
unsafe impl Sync for Lender {}
impl Drop for Lender {
    fn drop(&mut self) {
        let call = || {
            // SAFETY: the structure is the lender's and alive until this call, its only one.
            unsafe {
                match *self {
                    Lender::Plain(m) => {
                        if let Some(f) = (*m).deleter {
                            f(m);
                        }
                    }
                    Lender::Versioned(m) => {
                        if let Some(f) = (*m).deleter {
                            f(m);
                        }
                    }
                }
            }
        };
        // A lender may own Python objects: attached while the interpreter lives, else the memory goes with the process.
        let _ = Python::try_attach(|_| call());
    }
}

/// A tensor over the memory that a capsule lends; the capsule is used up.
#[pyfunction]
fn _from_dlpack<'py>(capsule: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let py = capsule.py();
    let o = capsule.as_ptr();
    // SAFETY: attached; the capsule's name says what its pointer is, and renaming it makes this the one consumer.
    let (lender, tensor) = unsafe {
        if PyCapsule_IsValid(o, VERSIONED.as_ptr()) != 0 {
            let m = PyCapsule_GetPointer(o, VERSIONED.as_ptr()).cast::<Versioned>();
            if (*m).major > 1 {
                return Err(PyBufferError::new_err(format!(
                    "from_dlpack: DLPack version {}.{} is newer than 1.x, which is what is understood",
                    (*m).major,
                    (*m).minor
                )));
            }
            PyCapsule_SetName(o, VERSIONED_USED.as_ptr());
            (Lender::Versioned(m), &(*m).tensor)
        } else if PyCapsule_IsValid(o, PLAIN.as_ptr()) != 0 {
            let m = PyCapsule_GetPointer(o, PLAIN.as_ptr()).cast::<Managed>();
            PyCapsule_SetName(o, PLAIN_USED.as_ptr());
            (Lender::Plain(m), &(*m).tensor)
        } else {
            return Err(PyRuntimeError::new_err(
                "from_dlpack received an invalid capsule. Note that DLTensor capsules can be consumed only once, so you might \
                 have already constructed a tensor from it once.",
            ));
        }
    };
    wrap_bound(py, adopt(lender, tensor).py()?)
}

fn adopt(lender: Lender, t: &DlTensor) -> Result<Tensor> {
    let device = match t.device.kind {
        CPU | CUDA_HOST => Device::Cpu,
        CUDA => Device::Cuda(t.device.index.clamp(0, i32::from(u16::MAX)) as u16),
        other => bail!(Runtime, "Unsupported device_type: {other}"),
    };
    let dtype = dtype(&t.dtype)?;
    let rank = usize::try_from(t.ndim).unwrap_or(0);
    // SAFETY: DLPack promises `ndim` sizes, and as many strides unless their pointer is null.
    let (sizes, strides) = unsafe {
        let sizes = if rank == 0 { Vec::new() } else { std::slice::from_raw_parts(t.shape, rank).to_vec() };
        let strides = if rank == 0 || t.strides.is_null() {
            flambeau::core::contiguous_strides(&sizes).to_vec()
        } else {
            std::slice::from_raw_parts(t.strides, rank).to_vec()
        };
        (sizes, strides)
    };
    ensure!(
        sizes.iter().all(|&s| s >= 0) && sizes.iter().zip(&strides).all(|(&n, &s)| s >= 0 || n <= 1),
        Value,
        "from_dlpack: tensors with negative strides are not supported (sizes {sizes:?}, strides {strides:?})"
    );
    let strides: Vec<i64> = strides.iter().map(|&s| s.max(0)).collect();
    let nbytes = flambeau::core::extent(&sizes, &strides) as usize * dtype.size();
    // SAFETY: the lender's memory is valid for the layout's extent from here until its deleter is called.
    let memory = unsafe {
        let data = if nbytes == 0 { t.data.cast() } else { t.data.cast::<u8>().add(t.byte_offset as usize) };
        Memory::new(data, nbytes, Release::Owner(Box::new(lender)))
    };
    let storage = Storage::new(memory, device);
    storage.set_escaped();
    Ok(Tensor::from_storage(storage, dtype, &sizes, &strides, 0))
}

/// Adds the functions of this module.
pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_function(wrap_pyfunction!(_to_dlpack, m)?)?;
    m.add_function(wrap_pyfunction!(_from_dlpack, m)?)
}
