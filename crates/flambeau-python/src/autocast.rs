//! Autocast: which precision an operator called from Python computes in. The binder asks here between binding and calling,
//! and only while the mode bit is on; a class belongs to an operator and a kind of device.

use crate::call::{Arg, Arguments};
use crate::types;
use flambeau::ops::elementwise::to_dtype;
use flambeau::{mode, DType, Device, Result, Tensor};
use pyo3::prelude::*;
use std::cell::RefCell;
use std::collections::HashMap;

/// How an operator's floating-point operands are cast.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Class {
    /// To the region's half type: products, which gain from it.
    Lower,
    /// To float32: what loses in half types.
    Single,
    /// To the widest among the operands.
    Widest,
}

/// One device kind's settings in this thread.
#[derive(Clone, Copy)]
struct Region {
    on: bool,
    dtype: DType,
}
struct State {
    cpu: Region,
    cuda: Region,
    caching: bool,
    /// Half-precision copies of leaves, by the leaf's identity, which the kept leaf holds on to.
    cache: HashMap<(usize, u8), (Tensor, Tensor)>,
}
thread_local! {
    static STATE: RefCell<State> = RefCell::new(State {
        cpu: Region { on: false, dtype: DType::BF16 },
        cuda: Region { on: false, dtype: DType::F16 },
        caching: true,
        cache: HashMap::new(),
    });
}

fn class(path: &str, cuda: bool) -> Option<Class> {
    let name = path.strip_prefix("nn.functional.").unwrap_or(path);
    Some(match name {
        "conv1d"
        | "conv2d"
        | "conv3d"
        | "conv_transpose1d"
        | "conv_transpose2d"
        | "conv_transpose3d"
        | "conv_tbc"
        | "bmm"
        | "mm"
        | "baddbmm"
        | "addmm"
        | "addbmm"
        | "linear"
        | "matmul"
        | "linalg.matmul"
        | "linalg.vecdot"
        | "linalg.multi_dot"
        | "chain_matmul"
        | "einsum"
        | "scaled_dot_product_attention" => Class::Lower,
        "addmv" | "addr" | "mv" | "prelu" | "gru_cell" | "lstm_cell" | "rnn_tanh_cell" | "rnn_relu_cell" if cuda => {
            Class::Lower
        }
        "cat" | "concat" | "concatenate" | "stack" | "index_copy" => Class::Widest,
        "addcdiv" | "addcmul" | "atan2" | "arctan2" | "bilinear" | "cross" | "linalg.cross" | "dot" | "vdot"
        | "grid_sampler" | "grid_sampler_2d" | "grid_sampler_3d" | "index_put" | "tensordot" | "scatter_add"
            if cuda =>
        {
            Class::Widest
        }
        "prod"
        | "quantile"
        | "nanquantile"
        | "cdist"
        | "pinverse"
        | "cholesky"
        | "cholesky_inverse"
        | "cholesky_solve"
        | "inverse"
        | "lu_solve"
        | "geqrf"
        | "orgqr"
        | "ormqr"
        | "triangular_solve"
        | "mse_loss"
        | "l1_loss"
        | "smooth_l1_loss"
        | "huber_loss"
        | "nll_loss"
        | "cross_entropy"
        | "kl_div"
        | "ctc_loss"
        | "cosine_embedding_loss"
        | "hinge_embedding_loss"
        | "poisson_nll_loss"
        | "margin_ranking_loss"
        | "soft_margin_loss"
        | "triplet_margin_loss"
        | "multi_margin_loss"
        | "multilabel_margin_loss"
        | "binary_cross_entropy_with_logits" => Class::Single,
        "avg_pool3d"
        | "adaptive_avg_pool3d"
        | "adaptive_max_pool3d"
        | "fractional_max_pool2d"
        | "fractional_max_pool3d"
        | "max_unpool2d"
        | "max_unpool3d"
        | "binary_cross_entropy"
        | "grid_sample"
        | "grid_sampler"
        | "grid_sampler_2d"
        | "grid_sampler_3d"
        | "polar"
        | "stft"
        | "trace"
        | "view_as_complex"
            if !cuda =>
        {
            Class::Single
        }
        "acos" | "arccos" | "asin" | "arcsin" | "cosh" | "erfinv" | "exp" | "expm1" | "log" | "log10" | "log2"
        | "log1p" | "reciprocal" | "rsqrt" | "sinh" | "tan" | "pow" | "softplus" | "layer_norm" | "group_norm"
        | "cosine_similarity" | "dist" | "pdist" | "renorm" | "logsumexp" | "softmax" | "log_softmax" | "softmin"
        | "cumprod" | "cumsum" | "sum" | "norm" | "interpolate" | "rms_norm" | "instance_norm"
            if cuda =>
        {
            Class::Single
        }
        _ if !cuda && (name.starts_with("fft.") || name.starts_with("linalg.")) => match name {
            "fft.fftfreq" | "fft.rfftfreq" | "fft.fftshift" | "fft.ifftshift" => return None,
            "linalg.norm"
            | "linalg.vector_norm"
            | "linalg.matrix_norm"
            | "linalg.cross"
            | "linalg.diagonal"
            | "linalg.det"
            | "linalg.slogdet"
            | "linalg.vander"
            | "linalg.matrix_power"
            | "linalg.matrix_exp" => return None,
            _ => Class::Single,
        },
        _ => return None,
    })
}

/// Whether autocast may change this operand: float64 and integers stay.
fn eligible(t: &Tensor, cuda: bool) -> bool {
    matches!(t.device(), Device::Cuda(_)) == cuda && matches!(t.dtype(), DType::F32 | DType::F16 | DType::BF16)
}

fn to(t: &Tensor, dtype: DType) -> Result<Tensor> {
    let caching = STATE.with(|s| s.borrow().caching);
    if caching && t.dtype() == DType::F32 && dtype != DType::F32 && t.requires_grad() && t.is_leaf() {
        let key = (t.id(), dtype as u8);
        if let Some(kept) = STATE.with(|s| s.borrow().cache.get(&key).map(|(_, c)| c.clone())) {
            return Ok(kept);
        }
        let cast = plain_cast(t, dtype)?;
        STATE.with(|s| s.borrow_mut().cache.insert(key, (t.clone(), cast.clone())));
        return Ok(cast);
    }
    plain_cast(t, dtype)
}
fn plain_cast(t: &Tensor, dtype: DType) -> Result<Tensor> {
    let _off = mode::Guard::new(mode::AUTOCAST, false);
    to_dtype(t, dtype)
}

/// Casts the bound operands of operator `path` in place. Gives what the new arguments borrow from; `None` where the operator
/// has no class on its device, or the region is off for it.
///
/// # Safety
/// The first `count` slots were filled by the binder, and the result outlives every use of `args`.
#[allow(clippy::vec_box)] // their addresses must not move as the list grows
pub unsafe fn cast(path: &str, count: usize, args: &mut Arguments<'_>) -> Result<Option<Vec<Box<Tensor>>>> {
    let first = (0..count).find_map(|i| match args.get(i) {
        Arg::Tensor(t) => Some(t.device()),
        Arg::Tensors(from, n) if n > 0 => args
            .tensors
            .get(from as usize)
            .or(args.optional.get(from as usize).and_then(Option::as_ref))
            .map(|t| t.device()),
        _ => None,
    });
    let cuda = match first {
        Some(Device::Cpu) => false,
        Some(Device::Cuda(_)) => true,
        _ => return Ok(None),
    };
    let region = STATE.with(|s| if cuda { s.borrow().cuda } else { s.borrow().cpu });
    let Some(class) = class(path, cuda).filter(|_| region.on) else { return Ok(None) };
    let target = match class {
        Class::Lower => region.dtype,
        Class::Single => DType::F32,
        Class::Widest => {
            let single = |t: &Tensor| eligible(t, cuda) && t.dtype() == DType::F32;
            let any = (0..count).any(|i| matches!(args.get(i), Arg::Tensor(t) if single(t)))
                || args.tensors.iter().any(single);
            if any {
                DType::F32
            } else {
                region.dtype
            }
        }
    };
    let mut kept = Vec::new();
    for i in 0..count {
        if let Arg::Tensor(t) = args.get(i) {
            if eligible(t, cuda) && t.dtype() != target {
                let owned = Box::new(to(t, target)?);
                // SAFETY: the box is returned to the caller, who keeps it for as long as `args` is used.
                let borrowed: &Tensor = &*std::ptr::from_ref::<Tensor>(&owned);
                args.slots[i].write(Arg::Tensor(borrowed));
                kept.push(owned);
            }
        }
    }
    for t in args.tensors.iter_mut().chain(args.optional.iter_mut().flatten()) {
        if eligible(t, cuda) && t.dtype() != target {
            *t = to(t, target)?;
        }
    }
    Ok(Some(kept))
}

fn with_region<T>(device: &str, f: impl FnOnce(&mut Region) -> T) -> PyResult<T> {
    STATE.with(|s| {
        let mut s = s.borrow_mut();
        match device {
            "cpu" => Ok(f(&mut s.cpu)),
            "cuda" => Ok(f(&mut s.cuda)),
            other => Err(pyo3::exceptions::PyRuntimeError::new_err(format!(
                "User specified an unsupported autocast device_type '{other}'"
            ))),
        }
    })
}
/// Turns autocast for a device kind on or off in this thread.
#[pyfunction]
fn _set_autocast_enabled(device: &str, on: bool) -> PyResult<()> {
    with_region(device, |r| r.on = on)?;
    let any = STATE.with(|s| s.borrow().cpu.on || s.borrow().cuda.on);
    mode::set(mode::AUTOCAST, any);
    Ok(())
}
#[pyfunction]
fn _is_autocast_enabled(device: &str) -> PyResult<bool> {
    with_region(device, |r| r.on)
}
/// Whether autocast is on for any device kind.
#[pyfunction]
fn _autocast_on() -> bool {
    mode::current() & mode::AUTOCAST != 0
}
#[pyfunction]
fn _set_autocast_dtype(device: &str, dtype: &Bound<'_, PyAny>) -> PyResult<()> {
    // SAFETY: the interpreter is attached and the object lives during the call.
    let dtype = unsafe { types::dtype_of(dtype.as_ptr()) }
        .ok_or_else(|| pyo3::exceptions::PyTypeError::new_err("autocast: dtype must be a torch.dtype"))?;
    with_region(device, |r| r.dtype = dtype)
}
#[pyfunction]
fn _get_autocast_dtype(py: Python<'_>, device: &str) -> PyResult<Py<PyAny>> {
    let dtype = with_region(device, |r| r.dtype)?;
    // SAFETY: `dtype_object` gives a new reference, and the interpreter is attached.
    Ok(unsafe { Bound::from_owned_ptr(py, types::dtype_object(dtype)) }.unbind())
}
/// Drops the half-precision copies of leaves.
#[pyfunction]
fn clear_autocast_cache() {
    let old = STATE.with(|s| std::mem::take(&mut s.borrow_mut().cache));
    drop(old);
}
#[pyfunction]
fn set_autocast_cache_enabled(on: bool) {
    STATE.with(|s| s.borrow_mut().caching = on);
}
/// Whether casts of leaves are kept until the outermost region ends.
#[pyfunction]
fn is_autocast_cache_enabled() -> bool {
    STATE.with(|s| s.borrow().caching)
}

/// Adds everything here to the module.
pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    macro_rules! functions {
        ($($f:ident)*) => { $( m.add_function(wrap_pyfunction!($f, m)?)?; )* };
    }
    functions!(_set_autocast_enabled _is_autocast_enabled _autocast_on _set_autocast_dtype _get_autocast_dtype
        clear_autocast_cache set_autocast_cache_enabled is_autocast_cache_enabled);
    Ok(())
}
