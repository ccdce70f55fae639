//! dtype, device, Size, layout, memory_format, Generator and the numeric limits as Python objects.

use crate::error::*;
use crate::raw::*;
pub use flambeau::core::MemoryFormat;
use flambeau::core::{err, Dims};
use flambeau::random::Generator;
use flambeau::tensor::TensorLayout;
use flambeau::{DType, Device};
use parking_lot::{Mutex, RwLock};
use pyo3::exceptions::*;
use pyo3::ffi::*;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple, PyType};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, Ordering};

// ---- dtype --------------------------------------------------------------------------------------------------------------

/// A tensor's element type.
#[pyclass(frozen, name = "dtype", module = "flambeau")]
pub struct PyDType(pub DType);

static DTYPES: [Global; DType::ALL.len()] = [const { Global::new() }; DType::ALL.len()];

#[pymethods]
impl PyDType {
    fn __repr__(&self) -> String {
        format!("torch.{}", self.0.name())
    }
    fn __reduce__(&self) -> &'static str {
        self.0.name()
    }
    #[getter]
    fn is_floating_point(&self) -> bool {
        self.0.is_float()
    }
    #[getter]
    fn is_complex(&self) -> bool {
        self.0.is_complex()
    }
    #[getter]
    fn is_signed(&self) -> bool {
        self.0.is_signed()
    }
    #[getter]
    fn itemsize(&self) -> usize {
        self.0.size()
    }
    /// The dtype of a complex number's parts.
    fn to_real(&self, py: Python<'_>) -> Py<PyAny> {
        dtype_py(py, self.0.to_real())
    }
    /// The complex dtype whose parts have this dtype.
    fn to_complex(&self, py: Python<'_>) -> Py<PyAny> {
        dtype_py(py, self.0.to_complex())
    }
}

/// A new reference to a dtype's one object.
///
/// # Safety
/// The interpreter is attached.
pub unsafe fn dtype_object(d: DType) -> Obj {
    new_ref(DTYPES[d as usize].get())
}
/// The same for PyO3 code.
pub fn dtype_py(py: Python<'_>, d: DType) -> Py<PyAny> {
    // SAFETY: attached; the objects live for ever.
    unsafe { Bound::from_owned_ptr(py, dtype_object(d)).unbind() }
}
/// The dtype that an object is; Python's `float`, `int`, `bool` and `complex` count.
///
/// # Safety
/// The interpreter is attached.
pub unsafe fn dtype_of(o: Obj) -> Option<DType> {
    if let Some(i) = DTYPES.iter().position(|d| d.get() == o) {
        return Some(DType::ALL[i]);
    }
    if o == (&raw mut PyFloat_Type).cast() {
        return Some(flambeau::mode::default_dtype());
    }
    if o == (&raw mut PyLong_Type).cast() {
        return Some(DType::I64);
    }
    if o == (&raw mut PyBool_Type).cast() {
        return Some(DType::Bool);
    }
    if o == (&raw mut PyComplex_Type).cast() {
        return Some(flambeau::mode::default_dtype().to_complex());
    }
    None
}

// ---- device -------------------------------------------------------------------------------------------------------------

/// Where a tensor's memory is: `device('cuda', 0)`, `device('cuda:0')`. As a context manager, the default device of
/// factories inside.
#[pyclass(frozen, name = "device", module = "flambeau")]
pub struct PyDevice {
    pub device: Device,
    /// Whether an index was given: `device('cuda')` shows none.
    indexed: bool,
    before: Mutex<Vec<Option<Device>>>,
}

static DEVICE_TYPE: Global = Global::new();
static CPU_DEVICE: Global = Global::new();

impl PyDevice {
    fn new_from(device: Device, indexed: bool) -> PyDevice {
        PyDevice { device, indexed, before: Mutex::new(Vec::new()) }
    }
}

#[pymethods]
impl PyDevice {
    #[new]
    #[pyo3(signature = (r#type, index=None))]
    fn new(r#type: &Bound<'_, PyAny>, index: Option<i64>) -> PyResult<PyDevice> {
        if let Ok(d) = r#type.cast::<PyDevice>() {
            let d = d.get();
            return Ok(PyDevice::new_from(d.device, d.indexed));
        }
        if let Ok(i) = r#type.extract::<u16>() {
            return Ok(PyDevice::new_from(Device::Cuda(i), true));
        }
        let text: String = r#type.extract()?;
        if let Some(i) = index {
            if text.contains(':') {
                return Err(PyRuntimeError::new_err(format!(
                    "type (string) must not include an index because index was passed explicitly: {text}"
                )));
            }
            if i < 0 {
                return Err(PyRuntimeError::new_err("Device index must not be negative"));
            }
            let device = Device::parse(&format!("{text}:{i}")).py()?;
            return Ok(PyDevice::new_from(device, true));
        }
        Ok(PyDevice::new_from(Device::parse(&text).py()?, text.contains(':')))
    }
    #[getter]
    fn r#type(&self) -> &'static str {
        self.device.kind()
    }
    #[getter]
    fn index(&self) -> Option<u16> {
        match self.device {
            Device::Cuda(i) if self.indexed => Some(i),
            _ if self.indexed => Some(0),
            _ => None,
        }
    }
    fn __repr__(&self) -> String {
        match self.index() {
            Some(i) => format!("device(type='{}', index={i})", self.device.kind()),
            None => format!("device(type='{}')", self.device.kind()),
        }
    }
    fn __str__(&self) -> String {
        match self.index() {
            Some(i) => format!("{}:{i}", self.device.kind()),
            None => self.device.kind().into(),
        }
    }
    fn __eq__(&self, other: &Bound<'_, PyAny>) -> bool {
        other.cast::<PyDevice>().is_ok_and(|o| o.get().device == self.device && o.get().index() == self.index())
    }
    fn __ne__(&self, other: &Bound<'_, PyAny>) -> bool {
        !self.__eq__(other)
    }
    fn __hash__(&self) -> u64 {
        let kind = match self.device {
            Device::Cpu => 1,
            Device::Meta => 2,
            Device::Cuda(_) => 3,
        };
        kind << 20 | self.index().map_or(0xffff, u64::from)
    }
    fn __reduce__(slf: &Bound<'_, Self>) -> PyResult<(Py<PyAny>, (String,))> {
        Ok((slf.get_type().unbind().into_any(), (slf.get().__str__(),)))
    }
    fn __enter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        let mut default = DEFAULT_DEVICE.write();
        slf.get().before.lock().push(*default);
        *default = Some(slf.get().device);
        HAS_DEFAULT_DEVICE.store(true, Ordering::Relaxed);
        drop(default);
        slf
    }
    #[pyo3(signature = (*_exc))]
    fn __exit__(&self, _exc: &Bound<'_, PyTuple>) {
        let before = self.before.lock().pop().flatten();
        *DEFAULT_DEVICE.write() = before;
        HAS_DEFAULT_DEVICE.store(before.is_some(), Ordering::Relaxed);
    }
}

/// A device object.
///
/// # Safety
/// The interpreter is attached.
pub unsafe fn device_object(d: Device) -> Obj {
    if d == Device::Cpu {
        return new_ref(CPU_DEVICE.get());
    }
    Python::attach(|py| match Bound::new(py, PyDevice::new_from(d, d.index().is_some())) {
        Ok(b) => b.into_ptr(),
        Err(e) => raise_py(e),
    })
}
/// The device that an object names: a device, a string, a CUDA index. A malformed string leaves an exception set.
///
/// # Safety
/// The interpreter is attached.
pub unsafe fn device_of(o: Obj) -> Option<Device> {
    if Py_TYPE(o) == DEVICE_TYPE.ty() {
        return Python::attach(|py| {
            Some(Bound::from_borrowed_ptr(py, o).cast_into_unchecked::<PyDevice>().get().device)
        });
    }
    if PyUnicode_Check(o) != 0 {
        return match Device::parse(str_of(o)) {
            Ok(d) => Some(d),
            Err(e) => {
                raise(e);
                None
            }
        };
    }
    if Py_TYPE(o) == &raw mut PyLong_Type {
        return u16::try_from(PyLong_AsLongLong(o)).ok().map(Device::Cuda);
    }
    None
}

static DEFAULT_DEVICE: RwLock<Option<Device>> = RwLock::new(None);
static HAS_DEFAULT_DEVICE: AtomicBool = AtomicBool::new(false);

/// The device of factories when one was set.
#[inline]
pub fn default_device_if_set() -> Option<Device> {
    if HAS_DEFAULT_DEVICE.load(Ordering::Relaxed) {
        *DEFAULT_DEVICE.read()
    } else {
        None
    }
}
/// Sets the device of new tensors that name none.
#[pyfunction]
#[pyo3(signature = (device=None))]
fn set_default_device(device: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
    let d = match device {
        None => None,
        // SAFETY: `device` shows that the interpreter is attached.
        Some(o) => match unsafe { device_of(o.as_ptr()) } {
            Some(d) => Some(d),
            None => {
                return Err(
                    PyErr::take(o.py()).unwrap_or_else(|| PyTypeError::new_err("set_default_device(): not a device"))
                )
            }
        },
    };
    *DEFAULT_DEVICE.write() = d;
    HAS_DEFAULT_DEVICE.store(d.is_some(), Ordering::Relaxed);
    Ok(())
}
/// The device of new tensors that name none.
#[pyfunction]
fn get_default_device(py: Python<'_>) -> Py<PyAny> {
    // SAFETY: attached.
    unsafe { Bound::from_owned_ptr(py, device_object(default_device_if_set().unwrap_or(Device::Cpu))).unbind() }
}

// ---- layout and memory format -------------------------------------------------------------------------------------------

/// How a tensor's values are kept.
#[pyclass(frozen, name = "layout", module = "flambeau")]
#[derive(Clone, Copy)]
pub struct Layout(&'static str);
impl Layout {
    /// The layout that tensors of the core have.
    ///
    /// # Errors
    /// `NotImplemented` for one that they lack.
    pub fn core(self) -> flambeau::Result<TensorLayout> {
        LAYOUTS.iter().find(|l| l.name() == self.0).copied().ok_or_else(|| {
            err!(NotImplemented, "tensors of layout torch.{} are not supported; there are strided, sparse_coo, sparse_csr, sparse_csc, sparse_bsr and sparse_bsc", self.0)
        })
    }
    /// Its name, "sparse_coo".
    pub fn name(self) -> &'static str {
        self.0
    }
}
const LAYOUTS: [TensorLayout; 6] = [
    TensorLayout::Strided,
    TensorLayout::SparseCoo,
    TensorLayout::SparseCsr,
    TensorLayout::SparseCsc,
    TensorLayout::SparseBsr,
    TensorLayout::SparseBsc,
];
static LAYOUT_OBJECTS: [Global; 6] = [const { Global::new() }; 6];
#[pymethods]
impl Layout {
    fn __repr__(&self) -> String {
        format!("torch.{}", self.0)
    }
    fn __reduce__(&self) -> &'static str {
        self.0
    }
}

/// A new reference to a layout's object.
///
/// # Safety
/// The interpreter is attached.
pub unsafe fn layout_object(layout: TensorLayout) -> Obj {
    new_ref(LAYOUT_OBJECTS[layout as usize].get())
}
/// The layout that an object is.
///
/// # Safety
/// The interpreter is attached.
pub unsafe fn layout_of(o: Obj) -> Option<Layout> {
    if o == LAYOUT_OBJECTS[0].get() {
        return Some(Layout("strided"));
    }
    if Py_TYPE(o) != Py_TYPE(LAYOUT_OBJECTS[0].get()) {
        return None;
    }
    Bound::from_borrowed_ptr(Python::assume_attached(), o).cast::<Layout>().ok().map(|l| *l.get())
}

/// The order of dimensions in memory.
#[pyclass(frozen, name = "memory_format", module = "flambeau")]
pub struct PyMemoryFormat(MemoryFormat);
const FORMATS: [(MemoryFormat, &str); 4] = [
    (MemoryFormat::Contiguous, "contiguous_format"),
    (MemoryFormat::Preserve, "preserve_format"),
    (MemoryFormat::ChannelsLast, "channels_last"),
    (MemoryFormat::ChannelsLast3d, "channels_last_3d"),
];
static FORMAT_OBJECTS: [Global; 4] = [const { Global::new() }; 4];
#[pymethods]
impl PyMemoryFormat {
    fn __repr__(&self) -> String {
        format!("torch.{}", self.__reduce__())
    }
    fn __reduce__(&self) -> &'static str {
        FORMATS.iter().find(|f| f.0 == self.0).map_or("", |f| f.1)
    }
}
/// The memory format that an object is.
///
/// # Safety
/// The interpreter is attached.
pub unsafe fn memory_format_of(o: Obj) -> Option<MemoryFormat> {
    FORMAT_OBJECTS.iter().position(|f| f.get() == o).map(|i| FORMATS[i].0)
}

// ---- Size ---------------------------------------------------------------------------------------------------------------

static SIZE: Global = Global::new();

/// A `Size`.
///
/// # Safety
/// The interpreter is attached.
pub unsafe fn size_object(sizes: &[i64]) -> Obj {
    let t = PyType_GenericAlloc(SIZE.ty(), sizes.len() as Py_ssize_t);
    if !t.is_null() {
        for (i, &n) in sizes.iter().enumerate() {
            PyTuple_SetItem(t, i as Py_ssize_t, PyLong_FromLongLong(n));
        }
    }
    t
}
/// A tuple as a `Size`; takes a reference and gives one.
unsafe fn size_from_tuple(t: Obj) -> Obj {
    if t.is_null() || PyTuple_Check(t) == 0 {
        return t;
    }
    let n = PyTuple_Size(t);
    let s = PyType_GenericAlloc(SIZE.ty(), n);
    if !s.is_null() {
        for i in 0..n {
            PyTuple_SetItem(s, i, new_ref(PyTuple_GetItem(t, i)));
        }
    }
    Py_DECREF(t);
    s
}
unsafe extern "C" fn size_new(ty: *mut PyTypeObject, args: Obj, kwargs: Obj) -> Obj {
    let new: newfunc = std::mem::transmute(PyType_GetSlot(&raw mut PyTuple_Type, Py_tp_new));
    let made = new(ty, args, kwargs);
    if made.is_null() {
        return made;
    }
    for i in 0..PyTuple_Size(made) {
        let item = PyTuple_GetItem(made, i);
        if PyLong_Check(item) == 0 {
            let index = PyNumber_Index(item);
            if index.is_null() {
                PyErr_Clear();
                let text = format!("torch.Size() takes an iterable of 'int' (item {i} is '{}')", type_name(item));
                Py_DECREF(made);
                return raise_py(PyTypeError::new_err(text));
            }
            PyTuple_SetItem(made, i, index);
        }
    }
    made
}
unsafe extern "C" fn size_repr(o: Obj) -> Obj {
    let items: Vec<String> = (0..PyTuple_Size(o)).map(|i| repr_of(PyTuple_GetItem(o, i))).collect();
    str_object(&format!("torch.Size([{}])", items.join(", ")))
}
unsafe extern "C" fn size_concat(a: Obj, b: Obj) -> Obj {
    let f: binaryfunc = std::mem::transmute(PyType_GetSlot(&raw mut PyTuple_Type, Py_sq_concat));
    size_from_tuple(f(a, b))
}
unsafe extern "C" fn size_add(a: Obj, b: Obj) -> Obj {
    if PyTuple_Check(a) == 0 || PyTuple_Check(b) == 0 {
        return not_implemented();
    }
    size_concat(a, b)
}
unsafe extern "C" fn size_repeat(a: Obj, n: Py_ssize_t) -> Obj {
    let f: ssizeargfunc = std::mem::transmute(PyType_GetSlot(&raw mut PyTuple_Type, Py_sq_repeat));
    size_from_tuple(f(a, n))
}
unsafe extern "C" fn size_subscript(a: Obj, i: Obj) -> Obj {
    let f: binaryfunc = std::mem::transmute(PyType_GetSlot(&raw mut PyTuple_Type, Py_mp_subscript));
    size_from_tuple(f(a, i))
}
unsafe extern "C" fn size_numel(o: Obj, _: *const Obj, _: Py_ssize_t, _: Obj) -> Obj {
    let product: i64 = (0..PyTuple_Size(o)).map(|i| PyLong_AsLongLong(PyTuple_GetItem(o, i))).product();
    PyLong_FromLongLong(product)
}
unsafe extern "C" fn size_reduce(o: Obj, _: *const Obj, _: Py_ssize_t, _: Obj) -> Obj {
    let list = PySequence_Tuple(o);
    let plain = PyTuple_New(PyTuple_Size(list));
    for i in 0..PyTuple_Size(list) {
        PyTuple_SetItem(plain, i, new_ref(PyTuple_GetItem(list, i)));
    }
    Py_DECREF(list);
    tuple_from(&[new_ref(SIZE.get()), tuple_from(&[plain])])
}

fn register_size(m: &Bound<'_, PyModule>) -> PyResult<()> {
    // SAFETY: attached; the tables live for ever and every function has its slot's signature.
    unsafe {
        let slots = Box::leak(Box::new([
            slot(Py_tp_new, size_new as *mut _),
            slot(Py_tp_repr, size_repr as *mut _),
            slot(Py_sq_concat, size_concat as *mut _),
            slot(Py_sq_repeat, size_repeat as *mut _),
            slot(Py_nb_add, size_add as *mut _),
            slot(Py_mp_subscript, size_subscript as *mut _),
            slot(Py_tp_doc, c"The sizes of a tensor: a tuple of ints.".as_ptr() as *mut _),
            slot(0, null_mut()),
        ]));
        let mut spec = PyType_Spec {
            name: c"flambeau.Size".as_ptr(),
            basicsize: 0,
            itemsize: 0,
            flags: (Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE) as _,
            slots: slots.as_mut_ptr(),
        };
        let bases = tuple_from(&[new_ref((&raw mut PyTuple_Type).cast())]);
        let ty = PyType_FromSpecWithBases(&mut spec, bases);
        Py_DECREF(bases);
        let ty = Bound::from_owned_ptr_or_err(m.py(), ty)?;
        SIZE.set(ty.clone().into_ptr());
        for (name, doc, f) in [
            ("numel", "The number of elements.", size_numel as PyCFunctionFastWithKeywords),
            ("__reduce__", "", size_reduce),
        ] {
            let d = Bound::from_owned_ptr_or_err(m.py(), PyDescr_NewMethod(SIZE.ty(), method_def(name, doc, f)))?;
            ty.setattr(name, d)?;
        }
        m.add("Size", ty)
    }
}

// ---- Generator ----------------------------------------------------------------------------------------------------------

/// A stream of random numbers.
#[pyclass(frozen, name = "Generator", module = "flambeau")]
pub struct PyGenerator(pub Generator, Device);
static GENERATOR_TYPE: Global = Global::new();

#[pymethods]
impl PyGenerator {
    #[new]
    #[pyo3(signature = (device=None))]
    fn new(device: Option<&Bound<'_, PyAny>>) -> PyResult<PyGenerator> {
        let d = match device {
            None => Device::Cpu,
            // SAFETY: attached.
            Some(o) => unsafe { device_of(o.as_ptr()) }.ok_or_else(|| {
                PyErr::take(o.py()).unwrap_or_else(|| PyTypeError::new_err("Generator(): not a device"))
            })?,
        };
        Ok(PyGenerator(Generator::new(67280421310721), d))
    }
    #[getter]
    fn device(&self, py: Python<'_>) -> Py<PyAny> {
        // SAFETY: attached.
        unsafe { Bound::from_owned_ptr(py, device_object(self.1)).unbind() }
    }
    /// Starts the stream that belongs to a seed.
    fn manual_seed<'py>(slf: Bound<'py, Self>, seed: &Bound<'py, PyAny>) -> PyResult<Bound<'py, Self>> {
        slf.get().0.manual_seed(seed_of(seed)?);
        Ok(slf)
    }
    /// The seed that the stream was started with.
    fn initial_seed(&self) -> u64 {
        self.0.initial_seed()
    }
    /// Starts an unpredictable stream and returns its seed.
    fn seed(&self) -> u64 {
        let s = fresh_seed();
        self.0.manual_seed(s);
        s
    }
    /// The state as a tensor of bytes.
    fn get_state(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let t = flambeau::Tensor::from_slice(&self.0.state(), &[self.0.state().len() as i64]).py()?;
        Ok(crate::tensor::wrap_bound(py, t)?.unbind())
    }
    /// Sets the state that `get_state` gave.
    fn set_state<'py>(slf: Bound<'py, Self>, new_state: &Bound<'py, PyAny>) -> PyResult<Bound<'py, Self>> {
        let t = crate::tensor::extract(new_state)
            .ok_or_else(|| PyTypeError::new_err("RNG state must be a torch.ByteTensor"))?;
        if t.dtype() != DType::U8 {
            return Err(PyTypeError::new_err("RNG state must be a torch.ByteTensor"));
        }
        slf.get().0.set_state(&t.to_vec::<u8>().py()?).py()?;
        Ok(slf)
    }
    /// A generator in the same state.
    fn clone_state(&self) -> PyResult<PyGenerator> {
        let g = Generator::new(self.0.initial_seed());
        g.set_state(&self.0.state()).py()?;
        Ok(PyGenerator(g, self.1))
    }
}

/// The generator that an object is.
///
/// # Safety
/// The interpreter is attached and the object outlives the result.
pub unsafe fn generator_of<'a>(o: Obj) -> Option<&'a Generator> {
    if Py_TYPE(o) != GENERATOR_TYPE.ty() {
        return None;
    }
    Python::attach(|py| {
        let b = Bound::from_borrowed_ptr(py, o).cast_into_unchecked::<PyGenerator>();
        Some(&*(&b.get().0 as *const Generator))
    })
}

fn seed_of(seed: &Bound<'_, PyAny>) -> PyResult<u64> {
    if let Ok(s) = seed.extract::<u64>() {
        return Ok(s);
    }
    match seed.extract::<i64>() {
        // A negative seed counts down from the top, as PyTorch reads it.
        Ok(s) => Ok(s as u64),
        Err(_) => match seed.call_method0("__int__") {
            Ok(s) => s
                .extract::<i64>()
                .map(|s| s as u64)
                .map_err(|_| PyRuntimeError::new_err("Overflow when unpacking long: a seed is a 64-bit integer")),
            Err(_) => Err(PyTypeError::new_err("manual_seed expected a long, but got something else")),
        },
    }
}

fn fresh_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    // The standard library seeds its hasher from the operating system's randomness.
    RandomState::new().hash_one(std::time::SystemTime::now()) & ((1 << 53) - 1)
}

/// Starts the default generator's stream that belongs to a seed.
#[pyfunction]
fn manual_seed(py: Python<'_>, seed: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
    flambeau::random::default_generator().manual_seed(seed_of(seed)?);
    Ok(DEFAULT_GENERATOR.get_or_init(py).clone_ref(py).into_any())
}

struct DefaultGenerator(std::sync::OnceLock<Py<PyGenerator>>);
static DEFAULT_GENERATOR: DefaultGenerator = DefaultGenerator(std::sync::OnceLock::new());
impl DefaultGenerator {
    fn get_or_init(&self, py: Python<'_>) -> &Py<PyGenerator> {
        self.0.get_or_init(|| {
            #[allow(clippy::expect_used)] // allocating one small object while the module is made
            Py::new(py, PyGenerator(flambeau::random::default_generator().clone(), Device::Cpu))
                .expect("the default generator")
        })
    }
}

// ---- finfo, iinfo -------------------------------------------------------------------------------------------------------

/// A dtype, or that of a tensor, as the array API has it.
unsafe fn dtype_or_tensors(o: Obj) -> Option<DType> {
    dtype_of(o).or_else(|| crate::tensor::is_tensor(o).then(|| crate::tensor::tensor_of(o).dtype()))
}

/// Limits of a floating-point dtype.
#[pyclass(frozen, name = "finfo", module = "flambeau")]
pub struct FInfo(DType);
impl FInfo {
    /// Digits of the significand after the point, and the smallest and largest exponents of normal numbers.
    fn form(&self) -> (i32, i32, f64) {
        match self.0.to_real() {
            DType::F16 => (10, -14, 65504.0),
            DType::BF16 => (7, -126, 3.3895313892515355e38),
            DType::F32 => (23, -126, f32::MAX as f64),
            DType::F8E4M3 => (3, -6, 448.0),
            DType::F8E5M2 => (2, -14, 57344.0),
            _ => (52, -1022, f64::MAX),
        }
    }
}
#[pymethods]
impl FInfo {
    #[new]
    #[pyo3(signature = (r#type=None))]
    fn new(r#type: Option<&Bound<'_, PyAny>>) -> PyResult<FInfo> {
        let d = match r#type {
            None => flambeau::mode::default_dtype(),
            // SAFETY: attached.
            Some(o) => unsafe { dtype_or_tensors(o.as_ptr()) }
                .ok_or_else(|| PyTypeError::new_err("finfo(): argument 'type' must be torch.dtype"))?,
        };
        if !d.is_differentiable() {
            return Err(PyTypeError::new_err(
                "torch.finfo() requires a floating point input type. Use torch.iinfo to handle 'torch.finfo'",
            ));
        }
        Ok(FInfo(d))
    }
    #[getter]
    fn bits(&self) -> usize {
        self.0.to_real().size() * 8
    }
    #[getter]
    fn eps(&self) -> f64 {
        2f64.powi(-self.form().0)
    }
    #[getter]
    fn max(&self) -> f64 {
        self.form().2
    }
    #[getter]
    fn min(&self) -> f64 {
        -self.form().2
    }
    #[getter]
    fn tiny(&self) -> f64 {
        2f64.powi(self.form().1)
    }
    #[getter]
    fn smallest_normal(&self) -> f64 {
        self.tiny()
    }
    #[getter]
    fn resolution(&self) -> f64 {
        let digits = (self.form().0 as f64 * std::f64::consts::LOG10_2).floor() as i32;
        format!("1e-{digits}").parse().unwrap_or(0.0)
    }
    #[getter]
    fn dtype(&self) -> &'static str {
        self.0.to_real().name()
    }
    fn __eq__(&self, other: &FInfo) -> bool {
        self.0 == other.0
    }
    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let show = |x: f64| six_digits(x, py);
        Ok(format!(
            "finfo(resolution={}, min={}, max={}, eps={}, smallest_normal={}, tiny={}, dtype={})",
            show(self.resolution())?,
            show(self.min())?,
            show(self.max())?,
            show(self.eps())?,
            show(self.tiny())?,
            show(self.tiny())?,
            self.dtype()
        ))
    }
}

/// A limit as PyTorch prints it.
fn six_digits(x: f64, py: Python<'_>) -> PyResult<String> {
    x.into_pyobject(py)?.call_method1("__format__", ("g",))?.extract::<String>()
}

/// Limits of an integer dtype.
#[pyclass(frozen, name = "iinfo", module = "flambeau")]
pub struct IInfo(DType);
#[pymethods]
impl IInfo {
    #[new]
    fn new(r#type: &Bound<'_, PyAny>) -> PyResult<IInfo> {
        // SAFETY: attached.
        let d = unsafe { dtype_or_tensors(r#type.as_ptr()) }
            .ok_or_else(|| PyTypeError::new_err("iinfo(): argument 'type' must be torch.dtype"))?;
        if !d.is_integral(false) {
            return Err(PyTypeError::new_err(
                "torch.iinfo() requires an integer input type. Use torch.finfo to handle 'torch.iinfo'",
            ));
        }
        Ok(IInfo(d))
    }
    #[getter]
    fn bits(&self) -> usize {
        self.0.size() * 8
    }
    #[getter]
    fn min(&self) -> i64 {
        self.0.integer_range().map_or(0, |r| r.0)
    }
    #[getter]
    fn max(&self) -> u64 {
        self.0.integer_range().map_or(0, |r| r.1)
    }
    #[getter]
    fn dtype(&self) -> &'static str {
        self.0.name()
    }
    fn __eq__(&self, other: &IInfo) -> bool {
        self.0 == other.0
    }
    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let (min, max) = (six_digits(self.min() as f64, py)?, six_digits(self.max() as f64, py)?);
        Ok(format!("iinfo(min={min}, max={max}, dtype={})", self.dtype()))
    }
}

/// Sets the dtype of new floating-point tensors.
#[pyfunction]
fn set_default_dtype(d: &Bound<'_, PyAny>) -> PyResult<()> {
    // SAFETY: attached.
    match unsafe { dtype_of(d.as_ptr()) } {
        Some(d) if d.is_float() => {
            flambeau::mode::set_default_dtype(d);
            Ok(())
        }
        Some(_) => Err(PyTypeError::new_err("only floating-point types are supported as the default type")),
        None => Err(PyTypeError::new_err(
            "invalid dtype object: only floating-point types are supported as the default type",
        )),
    }
}
/// The dtype of new floating-point tensors.
#[pyfunction]
fn get_default_dtype(py: Python<'_>) -> Py<PyAny> {
    dtype_py(py, flambeau::mode::default_dtype())
}

/// Adds everything here to the module.
pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = m.py();
    m.add_class::<PyDType>()?;
    for &d in DType::ALL {
        let o = Bound::new(py, PyDType(d))?;
        DTYPES[d as usize].set(o.clone().into_ptr());
        m.add(d.name(), o)?;
    }
    for (alias, d) in [
        ("half", DType::F16),
        ("float", DType::F32),
        ("double", DType::F64),
        ("short", DType::I16),
        ("int", DType::I32),
        ("long", DType::I64),
        ("chalf", DType::C32),
        ("cfloat", DType::C64),
        ("cdouble", DType::C128),
    ] {
        m.add(alias, dtype_py(py, d))?;
    }
    DEVICE_TYPE.set(py.get_type::<PyDevice>().into_ptr());
    CPU_DEVICE.set(Bound::new(py, PyDevice::new_from(Device::Cpu, false))?.into_ptr());
    m.add_class::<PyDevice>()?;
    m.add_class::<Layout>()?;
    for layout in LAYOUTS {
        let o = Bound::new(py, Layout(layout.name()))?;
        LAYOUT_OBJECTS[layout as usize].set(o.clone().into_ptr());
        m.add(layout.name(), o)?;
    }
    m.add("jagged", Bound::new(py, Layout("jagged"))?)?;
    m.add_class::<PyMemoryFormat>()?;
    for (i, (f, name)) in FORMATS.iter().enumerate() {
        let o = Bound::new(py, PyMemoryFormat(*f))?;
        FORMAT_OBJECTS[i].set(o.clone().into_ptr());
        if *f == MemoryFormat::Contiguous {
            m.add("legacy_contiguous_format", o.clone())?;
        }
        m.add(*name, o)?;
    }
    register_size(m)?;
    m.add_class::<PyGenerator>()?;
    GENERATOR_TYPE.set(py.get_type::<PyGenerator>().into_ptr());
    m.add("default_generator", DEFAULT_GENERATOR.get_or_init(py).clone_ref(py))?;
    m.add_class::<FInfo>()?;
    m.add_class::<IInfo>()?;
    m.add_function(wrap_pyfunction!(set_default_device, m)?)?;
    m.add_function(wrap_pyfunction!(get_default_device, m)?)?;
    m.add_function(wrap_pyfunction!(set_default_dtype, m)?)?;
    m.add_function(wrap_pyfunction!(get_default_dtype, m)?)?;
    m.add_function(wrap_pyfunction!(manual_seed, m)?)?;
    let _ = std::marker::PhantomData::<(PyDict, PyType, Dims)>;
    Ok(())
}
