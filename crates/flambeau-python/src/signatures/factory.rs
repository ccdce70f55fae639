//! Signatures of new tensors.

use crate::types::{Layout, MemoryFormat};
use flambeau::ops::windows::Window;
use flambeau::tensor::TensorLayout;
use flambeau::{DType, Device, Error, ErrorKind, Number, Result, Tensor, Value};

fn place(d: Option<Device>) -> Device {
    d.or_else(crate::types::default_device_if_set).unwrap_or(Device::Cpu)
}
fn kind(d: Option<DType>) -> DType {
    d.unwrap_or_else(flambeau::mode::default_dtype)
}
/// No entries of a layout that was asked for; `None` where the dense tensor was.
fn sparse_of(s: &[i64], layout: Option<Layout>, dtype: DType, device: Device) -> Result<Option<Tensor>> {
    let layout = layout.map_or(Ok(TensorLayout::Strided), Layout::core)?;
    if layout == TensorLayout::Strided {
        return Ok(None);
    }
    flambeau::core::check_sizes(s, dtype)?;
    flambeau::ops::sparse::empty(layout, s, 0, dtype, device).map(Some)
}
/// [`like`] with a layout of its own.
fn like_in(
    t: &Tensor,
    dtype: Option<DType>,
    device: Option<Device>,
    format: Option<MemoryFormat>,
    layout: Option<Layout>,
) -> Result<Tensor> {
    let (kind, place) = (dtype.unwrap_or(t.dtype()), device.unwrap_or(t.device()));
    let layout = layout.map_or(Ok(t.layout()), Layout::core)?;
    if layout == t.layout() {
        return like(t, dtype, device, format);
    }
    if layout == TensorLayout::Strided {
        return factory::empty(&t.sizes(), kind, place);
    }
    flambeau::ops::sparse::empty(layout, &t.sizes(), 0, kind, place)
}
fn like(t: &Tensor, dtype: Option<DType>, device: Option<Device>, format: Option<MemoryFormat>) -> Result<Tensor> {
    if dtype.is_none_or(|d| d == t.dtype())
        && device.is_none_or(|d| d == t.device())
        && format.is_none_or(|f| f == MemoryFormat::Preserve)
    {
        return factory::empty_like(t);
    }
    let (dtype, device) = (dtype.unwrap_or(t.dtype()), device.unwrap_or(t.device()));
    if t.is_sparse() {
        let none = elementwise::to_dtype(&factory::empty_like(t)?, dtype)?;
        return flambeau::ops::device::to_device(&none, device);
    }
    let strides = match format {
        Some(MemoryFormat::Contiguous) => flambeau::core::contiguous_strides(&t.sizes()),
        Some(kind @ (MemoryFormat::ChannelsLast | MemoryFormat::ChannelsLast3d)) => {
            let rank = if matches!(kind, MemoryFormat::ChannelsLast) { 4 } else { 5 };
            if t.dim() != rank {
                let name = if rank == 4 { "channels_last" } else { "channels_last_3d" };
                return Err(Error::new(
                    ErrorKind::Runtime,
                    format!("required rank {rank} tensor to use {name} format, but got {} dimensions", t.dim()),
                ));
            }
            flambeau::core::channels_last_strides(&t.sizes())
        }
        _ => flambeau::core::preserve_strides(&t.sizes(), &t.strides()),
    };
    factory::empty_strided(&t.sizes(), &strides, dtype, device)
}
fn filled(t: Tensor, value: Number) -> Result<Tensor> {
    elementwise::fill_(&t, value)
}

/// Both ends of `linspace` and `logspace` as numbers: given as such, or as tensors without dimensions.
fn ends(name: &str, start: Value<'_>, end: Value<'_>) -> Result<(Number, Number)> {
    let dims = |v: &Value<'_>| match v {
        Value::Tensor(t) => Some(t.dim()),
        Value::Number(_) => None,
    };
    let (a, b) = (dims(&start), dims(&end));
    if a.unwrap_or(0) > 0 || b.unwrap_or(0) > 0 {
        let told = [("start", a), ("end", b)];
        let told: Vec<String> =
            told.iter().filter_map(|(n, d)| d.map(|d| format!("{n} with {d} dimension(s)"))).collect();
        return Err(Error::new(
            ErrorKind::Runtime,
            format!("{name} only supports 0-dimensional start and end tensors, but got {}.", told.join(" and ")),
        ));
    }
    let number = |v: Value<'_>| match v {
        Value::Tensor(t) => t.detach().item(),
        Value::Number(n) => Ok(n),
    };
    Ok((number(start)?, number(end)?))
}
/// `linspace` with or without its end, as the array API has it.
fn linspace_open(a: Number, b: Number, n: i64, endpoint: bool, d: Option<DType>, v: Option<Device>) -> Result<Tensor> {
    if endpoint || n < 1 {
        return factory::linspace(a, b, n, d, place(v));
    }
    flambeau::ops::view::narrow(&factory::linspace(a, b, n + 1, d, place(v))?, 0, 0, n)
}
/// `eye` with its ones on diagonal `k`, as the array API has it.
fn eye_at(n: i64, m: Option<i64>, k: i64, d: Option<DType>, v: Option<Device>) -> Result<Tensor> {
    let m = m.unwrap_or(n);
    let t = factory::zeros(&[n, m], kind(d), place(v))?;
    if -n < k && k < m {
        filled(flambeau::ops::view::diagonal(&t, k, 0, 1)?, Number::Int(1))?;
    }
    Ok(t)
}

operators! { FACTORY;
    "empty(int[*] size, *, dtype? dtype=None, device? device=None, memory_format? memory_format=None, layout? layout=None)" [function factory out] => |s: &[i64], d: Option<DType>, v: Option<Device>, _f: Option<MemoryFormat>, l: Option<Layout>| match sparse_of(s, l, kind(d), place(v))? {
        Some(t) => Ok(t),
        None => factory::empty(s, kind(d), place(v)),
    };
    "zeros(int[*] size, *, dtype? dtype=None, device? device=None, layout? layout=None)" [function factory out] => |s: &[i64], d: Option<DType>, v: Option<Device>, l: Option<Layout>| match sparse_of(s, l, kind(d), place(v))? {
        Some(t) => Ok(t),
        None => factory::zeros(s, kind(d), place(v)),
    };
    "ones(int[*] size, *, dtype? dtype=None, device? device=None)" [function factory out] => |s: &[i64], d: Option<DType>, v: Option<Device>| factory::ones(s, kind(d), place(v));
    "full(int[*] size, Number fill_value, *, dtype? dtype=None, device? device=None)" [function factory out] => |s: &[i64], x: Number, d: Option<DType>, v: Option<Device>| factory::full(s, x, d.unwrap_or(x.default_dtype(flambeau::mode::default_dtype())), place(v));
    "empty_permuted(int[*] size, int[*] physical_layout, *, dtype? dtype=None, device? device=None)" [function factory] => |s: &[i64], l: &[i64], d: Option<DType>, v: Option<Device>| factory::empty_permuted(s, l, kind(d), place(v));
    "empty_strided(int[*] size, int[*] stride, *, dtype? dtype=None, device? device=None)" [function factory] => |s: &[i64], t: &[i64], d: Option<DType>, v: Option<Device>| factory::empty_strided(s, t, kind(d), place(v));
    "empty_like(Tensor input, *, dtype? dtype=None, device? device=None, memory_format? memory_format=None, layout? layout=None)" [function factory] => like_in;
    "zeros_like(Tensor input, *, dtype? dtype=None, device? device=None, memory_format? memory_format=None, layout? layout=None)" [function factory] => |t: &Tensor, d: Option<DType>, v: Option<Device>, f: Option<MemoryFormat>, l: Option<Layout>| filled(like_in(t, d, v, f, l)?, Number::Int(0));
    "ones_like(Tensor input, *, dtype? dtype=None, device? device=None, memory_format? memory_format=None)" [function factory] => |t: &Tensor, d: Option<DType>, v: Option<Device>, f: Option<MemoryFormat>| filled(like(t, d, v, f)?, Number::Int(1));
    "full_like(Tensor input, Number fill_value, *, dtype? dtype=None, device? device=None, memory_format? memory_format=None)" [function factory] => |t: &Tensor, x: Number, d: Option<DType>, v: Option<Device>, f: Option<MemoryFormat>| filled(like(t, d, v, f)?, x);
    "arange(Number end, *, dtype? dtype=None, device? device=None)" [function factory out] => |e: Number, d: Option<DType>, v: Option<Device>| factory::arange(Number::Int(0), e, Number::Int(1), d, place(v));
    "arange(Number start, Number end, Number step=1, *, dtype? dtype=None, device? device=None)" [function factory out] => |a: Number, e: Number, s: Number, d: Option<DType>, v: Option<Device>| factory::arange(a, e, s, d, place(v));
    "linspace(Tensor|Number start, Tensor|Number end, int steps, *, dtype? dtype=None, device? device=None)" [function factory out] => |a: Value<'_>, b: Value<'_>, n: i64, d: Option<DType>, v: Option<Device>| {
        let (a, b) = ends("linspace", a, b)?;
        factory::linspace(a, b, n, d, place(v))
    };
    "logspace(Tensor|Number start, Tensor|Number end, int steps, float base=10.0, *, dtype? dtype=None, device? device=None)" [function factory out] => |a: Value<'_>, b: Value<'_>, n: i64, base: f64, d: Option<DType>, v: Option<Device>| {
        let (a, b) = ends("logspace", a, b)?;
        factory::logspace(a, b, n, base, d, place(v))
    };
    "linspace(Number start, Number end, int steps, *, bool endpoint, dtype? dtype=None, device? device=None)" [function factory] => linspace_open;
    "eye(int n, int? m=None, *, int k, dtype? dtype=None, device? device=None)" [function factory] => eye_at;
    "eye(int n, int? m=None, *, dtype? dtype=None, device? device=None)" [function factory out] => |n: i64, m: Option<i64>, d: Option<DType>, v: Option<Device>| factory::eye(n, m.unwrap_or(n), kind(d), place(v));
    "tril_indices(int row, int col, int offset=0, *, dtype? dtype=None, device? device=None)" [function factory] => |r: i64, c: i64, o: i64, d: Option<DType>, v: Option<Device>| scatter::triangle_indices(r, c, o, true, d.unwrap_or(DType::I64), place(v));
    "triu_indices(int row, int col, int offset=0, *, dtype? dtype=None, device? device=None)" [function factory] => |r: i64, c: i64, o: i64, d: Option<DType>, v: Option<Device>| scatter::triangle_indices(r, c, o, false, d.unwrap_or(DType::I64), place(v));
    "signal.windows.bartlett(int M, *, bool sym=True, dtype? dtype=None, device? device=None)" [function factory] => |n: i64, s: bool, d: Option<DType>, v: Option<Device>| windows::signal("bartlett", Window::Bartlett, n, s, kind(d), place(v));
    "signal.windows.blackman(int M, *, bool sym=True, dtype? dtype=None, device? device=None)" [function factory] => |n: i64, s: bool, d: Option<DType>, v: Option<Device>| windows::signal("blackman", Window::GeneralCosine(&[0.42, 0.5, 0.08]), n, s, kind(d), place(v));
    "signal.windows.cosine(int M, *, bool sym=True, dtype? dtype=None, device? device=None)" [function factory] => |n: i64, s: bool, d: Option<DType>, v: Option<Device>| windows::signal("cosine", Window::Cosine, n, s, kind(d), place(v));
    "signal.windows.exponential(int M, *, float? center=None, float tau=1.0, bool sym=True, dtype? dtype=None, device? device=None)" [function factory] => |n: i64, c: Option<f64>, t: f64, s: bool, d: Option<DType>, v: Option<Device>| windows::signal("exponential", Window::Exponential(c, t), n, s, kind(d), place(v));
    "signal.windows.gaussian(int M, *, float std=1.0, bool sym=True, dtype? dtype=None, device? device=None)" [function factory] => |n: i64, x: f64, s: bool, d: Option<DType>, v: Option<Device>| windows::signal("gaussian", Window::Gaussian(x), n, s, kind(d), place(v));
    "signal.windows.general_cosine(int M, *, float[] a, bool sym=True, dtype? dtype=None, device? device=None)" [function factory] => |n: i64, a: &[f64], s: bool, d: Option<DType>, v: Option<Device>| windows::signal("general_cosine", Window::GeneralCosine(a), n, s, kind(d), place(v));
    "signal.windows.general_hamming(int M, *, float alpha=0.54, bool sym=True, dtype? dtype=None, device? device=None)" [function factory] => |n: i64, a: f64, s: bool, d: Option<DType>, v: Option<Device>| windows::signal("general_cosine", Window::GeneralCosine(&[a, 1.0 - a]), n, s, kind(d), place(v));
    "signal.windows.hamming(int M, *, bool sym=True, dtype? dtype=None, device? device=None)" [function factory] => |n: i64, s: bool, d: Option<DType>, v: Option<Device>| windows::signal("general_cosine", Window::GeneralCosine(&[0.54, 0.46]), n, s, kind(d), place(v));
    "signal.windows.hann(int M, *, bool sym=True, dtype? dtype=None, device? device=None)" [function factory] => |n: i64, s: bool, d: Option<DType>, v: Option<Device>| windows::signal("general_cosine", Window::GeneralCosine(&[0.5, 0.5]), n, s, kind(d), place(v));
    "signal.windows.kaiser(int M, *, float beta=12.0, bool sym=True, dtype? dtype=None, device? device=None)" [function factory] => |n: i64, b: f64, s: bool, d: Option<DType>, v: Option<Device>| windows::signal("kaiser", Window::Kaiser(b), n, s, kind(d), place(v));
    "signal.windows.nuttall(int M, *, bool sym=True, dtype? dtype=None, device? device=None)" [function factory] => |n: i64, s: bool, d: Option<DType>, v: Option<Device>| windows::signal("general_cosine", Window::GeneralCosine(&[0.3635819, 0.4891775, 0.1365995, 0.0106411]), n, s, kind(d), place(v));
    "hann_window(int window_length, bool periodic=True, *, dtype? dtype=None, device? device=None)" [function factory] => |n: i64, p: bool, d: Option<DType>, v: Option<Device>| windows::window(Window::GeneralCosine(&[0.5, 0.5]), n, !p, kind(d), place(v));
    "hamming_window(int window_length, bool periodic=True, float alpha=0.54, float beta=0.46, *, dtype? dtype=None, device? device=None)" [function factory] => |n: i64, p: bool, a: f64, b: f64, d: Option<DType>, v: Option<Device>| windows::window(Window::GeneralCosine(&[a, b]), n, !p, kind(d), place(v));
    "blackman_window(int window_length, bool periodic=True, *, dtype? dtype=None, device? device=None)" [function factory] => |n: i64, p: bool, d: Option<DType>, v: Option<Device>| windows::window(Window::GeneralCosine(&[0.42, 0.5, 0.08]), n, !p, kind(d), place(v));
    "bartlett_window(int window_length, bool periodic=True, *, dtype? dtype=None, device? device=None)" [function factory] => |n: i64, p: bool, d: Option<DType>, v: Option<Device>| windows::window(Window::Bartlett, n, !p, kind(d), place(v));
    "kaiser_window(int window_length, bool periodic=True, float beta=12.0, *, dtype? dtype=None, device? device=None)" [function factory] => |n: i64, p: bool, b: f64, d: Option<DType>, v: Option<Device>| windows::window(Window::Kaiser(b), n, !p, kind(d), place(v));
}
