//! Signatures of the methods that ask a tensor about itself, take its values out, or place it in the graph.

use crate::autograd as py_autograd;
use crate::call::{with_py, Object, Returned};
use crate::convert;
use crate::error::*;
use crate::tensor::*;
use crate::types;
use flambeau::autograd::GradOptions;
use flambeau::core::{bail, ensure, err, Dims, MemoryFormat, Number};
use flambeau::ops::{device, elementwise, view};
use flambeau::{DType, Device, Result, Tensor};
use pyo3::ffi::*;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

fn backward(
    t: &Tensor,
    gradient: Option<&Tensor>,
    retain_graph: Option<bool>,
    create_graph: bool,
    inputs: Option<Object>,
) -> Result<()> {
    let inputs = match inputs {
        None => None,
        Some(o) => Some(with_py(|py| {
            let o = o.bind(py);
            let list: Vec<Tensor> = match extract(&o) {
                Some(t) => vec![t.clone()],
                None => o
                    .try_iter()?
                    .map(|i| {
                        let i = i?;
                        extract(&i)
                            .cloned()
                            .ok_or_else(|| pyo3::exceptions::PyTypeError::new_err("inputs must be tensors"))
                    })
                    .collect::<PyResult<_>>()?,
            };
            if list.is_empty() {
                return Err(pyo3::exceptions::PyRuntimeError::new_err(
                    "'inputs' argument to backward() cannot be empty.",
                ));
            }
            Ok(list)
        })?),
    };
    let options = GradOptions { retain_graph: retain_graph.unwrap_or(create_graph), create_graph, allow_unused: true };
    py_autograd::run_engine(vec![t.clone()], vec![gradient.cloned()], inputs, true, options)?;
    Ok(())
}
fn requires_grad_(t: &Tensor, on: bool) -> Result<Tensor> {
    t.set_requires_grad(on)?;
    Ok(t.clone())
}
fn detach_(t: &Tensor) -> Result<Tensor> {
    t.detach_in_place()?;
    Ok(t.clone())
}
fn data_ptr(t: &Tensor) -> Result<i64> {
    ensure!(
        t.as_batched().is_none(),
        Runtime,
        "Cannot access data pointer of Tensor that doesn't have storage (inside vmap)"
    );
    if t.device() == Device::Meta || t.numel() == 0 {
        return Ok(0);
    }
    t.storage().set_escaped();
    Ok(t.data_ptr()? as usize as i64)
}
fn numpy(t: &Tensor, force: bool) -> Result<Py<PyAny>> {
    ensure!(
        !t.is_sparse(),
        Type,
        "can't convert {} layout tensor to numpy. Use Tensor.to_dense() first.",
        t.layout().title()
    );
    Python::attach(|py| convert::to_numpy(py, t, force))
}
fn array(t: &Tensor, dtype: Option<Object>, copy: Option<bool>) -> Result<Py<PyAny>> {
    with_py(|py| {
        let a = convert::to_numpy(py, t, false).py()?;
        let a = match dtype {
            Some(d) => a.bind(py).call_method1("astype", (d.bind(py),))?.unbind(),
            None => a,
        };
        if copy == Some(true) {
            return Ok(a.bind(py).call_method0("copy")?.unbind());
        }
        Ok(a)
    })
}
fn tolist(t: &Tensor) -> Result<Py<PyAny>> {
    Python::attach(|py| convert::to_list(py, t))
}
fn complex(t: &Tensor) -> Result<Py<PyAny>> {
    let c = t.item()?.to_complex();
    // SAFETY: attached; a new reference.
    Python::attach(|py| unsafe { Ok(Bound::from_owned_ptr(py, PyComplex_FromDoubles(c.re, c.im)).unbind()) })
}
/// Compressed tensors refuse to say how their elements lie.
fn no_strides(t: &Tensor, what: &str) -> Result<()> {
    ensure!(!t.layout().is_compressed(), Runtime, "Sparse CSR tensors do not have {what}");
    Ok(())
}
/// The strides that Python sees: none of a sparse tensor's dimensions has one.
fn strides(t: &Tensor) -> Result<Dims> {
    if t.is_sparse() {
        no_strides(t, "strides")?;
        return Ok(t.sizes().iter().map(|_| 0).collect());
    }
    Ok(t.strides())
}
fn is_contiguous(t: &Tensor, format: Option<MemoryFormat>) -> Result<bool> {
    if t.is_sparse() {
        no_strides(t, "is_contiguous")?;
        return Ok(false);
    }
    Ok(match format {
        None | Some(MemoryFormat::Preserve) => t.is_contiguous(),
        Some(f) => view::is_contiguous_as(t, f),
    })
}
fn dim_order(t: &Tensor) -> Result<Dims> {
    let strides = t.strides();
    let mut order: Vec<i64> = (0..t.dim() as i64).collect();
    order.sort_by_key(|&d| std::cmp::Reverse(strides[d as usize]));
    Ok(order.into_iter().collect())
}
/// `Tensor._make_subclass(cls, data, require_grad)`: the data's memory as an object of a subclass.
#[pyfunction]
#[pyo3(signature = (cls, data, require_grad=false))]
pub fn make_subclass<'py>(
    cls: &Bound<'py, PyAny>,
    data: &Bound<'py, PyAny>,
    require_grad: bool,
) -> PyResult<Bound<'py, PyAny>> {
    let Some(t) = extract(data) else {
        return Err(pyo3::exceptions::PyTypeError::new_err("_make_subclass(): data must be a Tensor"));
    };
    // SAFETY: a `Bound` shows that the interpreter is attached.
    unsafe {
        if PyType_Check(cls.as_ptr()) == 0 || PyType_IsSubtype(cls.as_ptr().cast(), TENSOR.ty()) == 0 {
            return Err(pyo3::exceptions::PyTypeError::new_err("_make_subclass(): cls must be a subclass of Tensor"));
        }
        let alias = t.data();
        if require_grad {
            alias.set_requires_grad(true).py()?;
        }
        Bound::from_owned_ptr_or_err(cls.py(), wrap_as(cls.as_ptr().cast(), alias))
    }
}
/// `t.as_subclass(cls)`: the same values, and place in the graph, as an object of a subclass.
fn as_subclass(t: &Tensor, cls: Object) -> Result<Py<PyAny>> {
    // SAFETY: rows that take objects run attached.
    unsafe {
        if PyType_Check(cls.0) == 0 || PyType_IsSubtype(cls.0.cast(), TENSOR.ty()) == 0 {
            bail!(Type, "as_subclass(): cls must be a subclass of Tensor, not {}", crate::raw::repr_of(cls.0));
        }
        let alias = view::alias(t)?;
        let o = checked(wrap_as(cls.0.cast(), alias))?;
        Python::attach(|py| Ok(Bound::from_owned_ptr(py, o).unbind()))
    }
}
/// A copy of a leaf and of what its object carries.
fn deepcopy(t: &Tensor, memo: Object) -> Result<Py<PyAny>> {
    with_py(|py| {
        let memo = memo.bind(py);
        let this = wrap_bound(py, t.clone())?;
        let id = this.as_ptr() as usize;
        if let Ok(found) = memo.get_item(id) {
            return Ok(found.unbind());
        }
        if !t.is_leaf() {
            return Err(pyo3::exceptions::PyRuntimeError::new_err(
                "Only Tensors created explicitly by the user (graph leaves) support the deepcopy protocol at the moment. If you were \
                 attempting to deepcopy a module, this may be because of a torch.nn.utils.weight_norm usage, see \
                 https://github.com/pytorch/pytorch/pull/103001",
            ));
        }
        let copy = {
            let _off = flambeau::mode::no_grad();
            let copy = copy_of_storage(t, memo.as_any()).py()?;
            if t.requires_grad() {
                copy.set_requires_grad(true).py()?;
            }
            if let Some(g) = t.grad() {
                copy.set_grad(Some(view::clone(&g).py()?)).py()?;
            }
            copy
        };
        // SAFETY: attached.
        let out = unsafe { Bound::from_owned_ptr_or_err(py, wrap_as(Py_TYPE(this.as_ptr()), copy))? };
        memo.set_item(id, &out)?;
        let dict = this.getattr("__dict__")?;
        if dict.len()? > 0 {
            let copied = py.import("copy")?.call_method1("deepcopy", (dict, &memo))?;
            out.getattr("__dict__")?.call_method1("update", (copied,))?;
        }
        Ok(out.unbind())
    })
}
/// Tensors that share memory share it after a deep copy too: the memory is copied once, then viewed alike.
fn copy_of_storage(t: &Tensor, memo: &Bound<'_, PyAny>) -> Result<Tensor> {
    let key = format!("storage {:p}", std::sync::Arc::as_ptr(&t.storage()));
    let body = || -> PyResult<Tensor> {
        let size = t.dtype().size() as i64;
        let whole = Tensor::from_storage(t.storage(), DType::U8, &[t.storage().nbytes() as i64], &[1], 0);
        let bytes = match memo.get_item(&key) {
            Ok(found) => extract(&found).cloned(),
            Err(_) => None,
        };
        let bytes = match bytes {
            Some(b) => b,
            None => {
                let b = view::clone(&whole).py()?;
                memo.set_item(&key, wrap_bound(memo.py(), b.clone())?)?;
                b
            }
        };
        let _ = size;
        Ok(Tensor::from_storage(bytes.storage(), t.dtype(), &t.sizes(), &t.strides(), t.offset()))
    };
    if t.device() == Device::Meta || t.as_batched().is_some() || t.storage().nbytes() == 0 || t.lazy() != 0 {
        return view::clone(t);
    }
    body().core()
}
/// Pickles as a function that builds the tensor again from its bytes.
fn reduce(t: &Tensor, _protocol: Object) -> Result<Py<PyAny>> {
    with_py(|py| {
        let this = wrap_bound(py, t.clone())?;
        if t.is_sparse() {
            return Ok(py.import("flambeau._utils")?.call_method1("_reduce_sparse_tensor", (this,))?.unbind());
        }
        let host = device::to_cpu_contiguous(&t.detach()).py()?;
        let n = host.numel() as usize * host.dtype().size();
        // SAFETY: `host` is contiguous host memory of `n` bytes and lives during the copy.
        let bytes = unsafe { std::slice::from_raw_parts(host.data_ptr().py()?, n) };
        let rebuild = py.import("flambeau._flambeau")?.getattr("_rebuild_tensor")?;
        let dict = this.getattr("__dict__")?;
        let state = if dict.len()? > 0 { dict.call_method0("copy")? } else { py.None().into_bound(py) };
        let args = PyTuple::new(
            py,
            [
                this.get_type().into_any(),
                pyo3::types::PyBytes::new(py, bytes).into_any(),
                types::dtype_py(py, t.dtype()).into_bound(py),
                PyTuple::new(py, t.sizes())?.into_any(),
                t.device().to_string().into_pyobject(py)?.into_any(),
                t.requires_grad().into_pyobject(py)?.to_owned().into_any(),
                state,
            ],
        )?;
        Ok(PyTuple::new(py, [rebuild, args.into_any()])?.into_any().unbind())
    })
}
/// The inverse of `reduce`.
#[pyfunction]
#[pyo3(signature = (cls, bytes, dtype, sizes, device, requires_grad, state))]
pub fn _rebuild_tensor<'py>(
    py: Python<'py>,
    cls: &Bound<'py, PyAny>,
    bytes: &[u8],
    dtype: &Bound<'py, PyAny>,
    sizes: Vec<i64>,
    device: &str,
    requires_grad: bool,
    state: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    // SAFETY: attached.
    let d = unsafe { types::dtype_of(dtype.as_ptr()) }
        .ok_or_else(|| pyo3::exceptions::PyTypeError::new_err("not a dtype"))?;
    let want = sizes.iter().product::<i64>() as usize * d.size();
    if want != bytes.len() {
        return Err(pyo3::exceptions::PyValueError::new_err(format!(
            "{} bytes cannot be a tensor of sizes {sizes:?}",
            bytes.len()
        )));
    }
    let raw = Tensor::from_slice(bytes, &[bytes.len() as i64]).py()?;
    let strides = flambeau::core::contiguous_strides(&sizes);
    let t = Tensor::from_storage(raw.storage(), d, &sizes, &strides, 0);
    let t = device::to_device(&t, Device::parse(device).py()?).py()?;
    if requires_grad {
        t.set_requires_grad(true).py()?;
    }
    // SAFETY: attached; `cls` was a tensor's type when it was written, which is checked again.
    let out = unsafe {
        if PyType_Check(cls.as_ptr()) == 0 || PyType_IsSubtype(cls.as_ptr().cast(), TENSOR.ty()) == 0 {
            return Err(pyo3::exceptions::PyTypeError::new_err("not a tensor type"));
        }
        Bound::from_owned_ptr_or_err(py, wrap_as(cls.as_ptr().cast(), t))?
    };
    if !state.is_none() {
        out.getattr("__dict__")?.call_method1("update", (state,))?;
    }
    Ok(out)
}
fn format(t: &Tensor, spec: &str) -> Result<Py<PyAny>> {
    with_py(|py| {
        if t.dim() == 0 && t.device() != Device::Meta {
            // SAFETY: attached; a new reference.
            let n = unsafe { Bound::from_owned_ptr_or_err(py, crate::call::number_object(t.item().py()?))? };
            return Ok(n.call_method1("__format__", (spec,))?.unbind());
        }
        let this = wrap_bound(py, t.clone())?;
        if spec.is_empty() {
            return Ok(this.str()?.into_any().unbind());
        }
        Err(pyo3::exceptions::PyTypeError::new_err("unsupported format string passed to Tensor.__format__"))
    })
}
fn set_(t: &Tensor, source: Option<&Tensor>) -> Result<Tensor> {
    match source {
        Some(s) => t.set_data(s)?,
        None => t.set_data(&flambeau::ops::factory::empty(&[0], t.dtype(), t.device())?)?,
    }
    Ok(t.clone())
}
fn is_set_to(t: &Tensor, other: &Tensor) -> Result<bool> {
    let (a, b) = (t.meta(), other.meta());
    Ok(std::sync::Arc::ptr_eq(&a.storage, &b.storage)
        && a.offset == b.offset
        && a.sizes == b.sizes
        && a.strides == b.strides)
}
/// The value of a one-element tensor.
fn item(t: &Tensor) -> Result<Py<PyAny>> {
    // SAFETY: attached (only calls on large tensors are detached, and those end here): new references.
    unsafe {
        let o = match t.item()? {
            Number::Int(i) if t.dtype() == DType::U64 => PyLong_FromUnsignedLongLong(i as u64),
            n => crate::call::number_object(n),
        };
        Ok(Bound::from_owned_ptr(Python::assume_attached(), checked(o)?).unbind())
    }
}

operators! { TENSOR;
    "size(Tensor input)" [method] => |t: &Tensor| Ok(t.sizes());
    "size(Tensor input, int? dim=None)" [method] => |t: &Tensor, dim: Option<i64>| Ok(match dim {
        Some(d) => Returned::Int(t.size(d)?),
        None => Returned::Dims(t.sizes()),
    });
    "stride(Tensor input)" [method] => |t: &Tensor| Ok(Returned::Tuple(strides(t)?.iter().map(|&s| Returned::Int(s)).collect()));
    "stride(Tensor input, int? dim=None)" [method] => |t: &Tensor, dim: Option<i64>| {
        let s = strides(t)?;
        Ok(match dim {
            Some(d) => Returned::Int(s[flambeau::core::wrap_dim(d, s.len()).and_then(|d| if s.is_empty() {
                Err(err!(Index, "Dimension specified as {d} but tensor has no dimensions"))
            } else {
                Ok(d)
            })?]),
            None => Returned::Tuple(s.iter().map(|&s| Returned::Int(s)).collect()),
        })
    };
    "dim(Tensor input)" [method alias(ndimension)] => |t: &Tensor| Ok(t.dim() as i64);
    "numel(Tensor input)" [function method alias(nelement)] => |t: &Tensor| Ok(t.numel());
    "element_size(Tensor input)" [method] => |t: &Tensor| Ok(t.dtype().size() as i64);
    "storage_offset(Tensor input)" [method] => |t: &Tensor| Ok(t.offset());
    "data_ptr(Tensor input)" [method] => data_ptr;
    "get_device(Tensor input)" [method] => |t: &Tensor| Ok(t.device().index().map_or(-1, i64::from));
    "is_contiguous(Tensor input, *, memory_format? memory_format=None)" [method] => is_contiguous;
    "is_floating_point(Tensor input)" [function method] => |t: &Tensor| Ok(t.dtype().is_float());
    "is_complex(Tensor input)" [function method] => |t: &Tensor| Ok(t.dtype().is_complex());
    "is_signed(Tensor input)" [function method] => |t: &Tensor| Ok(t.dtype().is_signed());
    "is_nonzero(Tensor input)" [function method] => |t: &Tensor| {
        match t.numel() {
            0 => bail!(Runtime, "Boolean value of Tensor with no values is ambiguous"),
            1 => Ok(t.item()?.to_bool()),
            _ => bail!(Runtime, "Boolean value of Tensor with more than one value is ambiguous"),
        }
    };
    "is_inference(Tensor input)" [function method] => |t: &Tensor| Ok(t.is_inference());
    "is_conj(Tensor input)" [function method] => |t: &Tensor| Ok(t.lazy() & flambeau::tensor::CONJ != 0);
    "is_neg(Tensor input)" [function method] => |t: &Tensor| Ok(t.lazy() & flambeau::tensor::NEG != 0);
    "is_pinned(Tensor input, device? device=None)" [method] => |_t: &Tensor, _d: Option<Device>| Ok(false);
    "is_shared(Tensor input)" [method] => |_t: &Tensor| Ok(false);
    "is_set_to(Tensor input, Tensor tensor)" [method] => is_set_to;
    "is_same_size(Tensor input, Tensor other)" [function method] => |a: &Tensor, b: &Tensor| Ok(a.sizes() == b.sizes());
    "dim_order(Tensor input)" [method] => dim_order;
    "resolve_conj(Tensor input)" [function method] => |t: &Tensor| if t.lazy() & flambeau::tensor::CONJ != 0 { view::resolve(t) } else { Ok(t.clone()) };
    "resolve_neg(Tensor input)" [function method] => view::resolve_neg;
    "pin_memory(Tensor input, device? device=None)" [method] => |t: &Tensor, _d: Option<Device>| Ok(t.clone());
    "share_memory_(Tensor input)" [method] => |t: &Tensor| Ok(t.clone());
    "item(Tensor input)" [method] => item;
    "tolist(Tensor input)" [method] => tolist;
    "numpy(Tensor input, *, bool force=False)" [method] => numpy;
    "__array__(Tensor input, object? dtype=None, *, bool? copy=None)" [method] => array;
    "__complex__(Tensor input)" [method] => complex;
    "__format__(Tensor input, str format_spec)" [method] => format;
    "__deepcopy__(Tensor input, object memo)" [method] => deepcopy;
    "__reduce_ex__(Tensor input, object protocol)" [method] => reduce;
    "backward(Tensor input, Tensor? gradient=None, bool? retain_graph=None, bool create_graph=False, object? inputs=None)" [method] => backward;
    "detach(Tensor input)" [function method] => |t: &Tensor| Ok(t.detach());
    "detach_(Tensor input)" [function method] => detach_;
    "requires_grad_(Tensor input, bool requires_grad=True)" [method] => requires_grad_;
    "retain_grad(Tensor input)" [method] => |t: &Tensor| t.retain_grad();
    "register_hook(Tensor input, object hook)" [method] => |t: &Tensor, hook: Object| Python::attach(|py| py_autograd::register_hook(t, &hook.bind(py)));
    "register_post_accumulate_grad_hook(Tensor input, object hook)" [method] =>
        |t: &Tensor, hook: Object| Python::attach(|py| py_autograd::register_post_hook(t, &hook.bind(py)));
    "as_subclass(Tensor input, object cls)" [method] => as_subclass;
    "set_(Tensor input, Tensor? source=None)" [method] => set_;
    "_is_view(Tensor input)" [method] => |t: &Tensor| Ok(t.base().is_some());
    "_is_zerotensor(Tensor input)" [method] => |_t: &Tensor| Ok(false);
    "is_same_tensor(Tensor input, Tensor other)" [method] => |a: &Tensor, b: &Tensor| Ok(a.is_same(b));
    "apply_(Tensor input, object callable)" [method] => |t: &Tensor, f: Object| {
        ensure!(t.device() == Device::Cpu, Type, "apply_ is only implemented on CPU tensors");
        let mut values: Vec<Number> = Vec::new();
        let mut failure = None;
        convert::for_each(t, |n| {
            if failure.is_some() {
                return;
            }
            let r = with_py(|py| {
                // SAFETY: attached; new references.
                let x = unsafe { Bound::from_owned_ptr_or_err(py, crate::call::number_object(n))? };
                let y = f.bind(py).call1((x,))?;
                // SAFETY: attached.
                unsafe { crate::binder::number(y.as_ptr()) }.ok_or_else(|| pyo3::exceptions::PyTypeError::new_err("apply_: the function must return a number"))
            });
            match r {
                Ok(n) => values.push(n),
                Err(e) => failure = Some(e),
            }
        })?;
        if let Some(e) = failure {
            return Err(e);
        }
        elementwise::copy_(t, &crate::construct::from_numbers(&values, &t.sizes(), t.dtype())?)
    };
}
