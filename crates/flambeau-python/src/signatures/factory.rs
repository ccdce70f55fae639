//! Signatures of new tensors.

use crate::types::MemoryFormat;
use flambeau::{DType, Device, Number, Result, Tensor};

fn place(d: Option<Device>) -> Device {
    d.or_else(crate::types::default_device_if_set).unwrap_or(Device::Cpu)
}
fn kind(d: Option<DType>) -> DType {
    d.unwrap_or_else(flambeau::mode::default_dtype)
}
fn like(t: &Tensor, dtype: Option<DType>, device: Option<Device>, format: Option<MemoryFormat>) -> Result<Tensor> {
    if dtype.is_none_or(|d| d == t.dtype()) && device.is_none_or(|d| d == t.device()) && format.is_none_or(|f| f == MemoryFormat::Preserve) {
        return factory::empty_like(t);
    }
    let (dtype, device) = (dtype.unwrap_or(t.dtype()), device.unwrap_or(t.device()));
    let strides = match format {
        Some(MemoryFormat::Contiguous) => flambeau::core::contiguous_strides(&t.sizes()),
        Some(MemoryFormat::ChannelsLast | MemoryFormat::ChannelsLast3d) => flambeau::core::channels_last_strides(&t.sizes()),
        _ => flambeau::core::preserve_strides(&t.sizes(), &t.strides()),
    };
    factory::empty_strided(&t.sizes(), &strides, dtype, device)
}
fn filled(t: Tensor, value: Number) -> Result<Tensor> {
    elementwise::fill_(&t, value)
}

operators! { FACTORY;
    "empty(int[*] size, *, dtype? dtype=None, device? device=None, memory_format? memory_format=None)" [function factory out] => |s: &[i64], d: Option<DType>, v: Option<Device>, _f: Option<MemoryFormat>| factory::empty(s, kind(d), place(v));
    "zeros(int[*] size, *, dtype? dtype=None, device? device=None)" [function factory out] => |s: &[i64], d: Option<DType>, v: Option<Device>| factory::zeros(s, kind(d), place(v));
    "ones(int[*] size, *, dtype? dtype=None, device? device=None)" [function factory out] => |s: &[i64], d: Option<DType>, v: Option<Device>| factory::ones(s, kind(d), place(v));
    "full(int[] size, Number fill_value, *, dtype? dtype=None, device? device=None)" [function factory out] => |s: &[i64], x: Number, d: Option<DType>, v: Option<Device>| factory::full(s, x, d.unwrap_or(x.default_dtype(flambeau::mode::default_dtype())), place(v));
    "empty_strided(int[] size, int[] stride, *, dtype? dtype=None, device? device=None)" [function factory] => |s: &[i64], t: &[i64], d: Option<DType>, v: Option<Device>| factory::empty_strided(s, t, kind(d), place(v));
    "empty_like(Tensor input, *, dtype? dtype=None, device? device=None, memory_format? memory_format=None)" [function factory] => like;
    "zeros_like(Tensor input, *, dtype? dtype=None, device? device=None, memory_format? memory_format=None)" [function factory] => |t: &Tensor, d: Option<DType>, v: Option<Device>, f: Option<MemoryFormat>| filled(like(t, d, v, f)?, Number::Int(0));
    "ones_like(Tensor input, *, dtype? dtype=None, device? device=None, memory_format? memory_format=None)" [function factory] => |t: &Tensor, d: Option<DType>, v: Option<Device>, f: Option<MemoryFormat>| filled(like(t, d, v, f)?, Number::Int(1));
    "full_like(Tensor input, Number fill_value, *, dtype? dtype=None, device? device=None, memory_format? memory_format=None)" [function factory] => |t: &Tensor, x: Number, d: Option<DType>, v: Option<Device>, f: Option<MemoryFormat>| filled(like(t, d, v, f)?, x);
    "arange(Number end, *, dtype? dtype=None, device? device=None)" [function factory out] => |e: Number, d: Option<DType>, v: Option<Device>| factory::arange(Number::Int(0), e, Number::Int(1), d, place(v));
    "arange(Number start, Number end, Number step=1, *, dtype? dtype=None, device? device=None)" [function factory out] => |a: Number, e: Number, s: Number, d: Option<DType>, v: Option<Device>| factory::arange(a, e, s, d, place(v));
    "linspace(Number start, Number end, int steps, *, dtype? dtype=None, device? device=None)" [function factory out] => |a: Number, b: Number, n: i64, d: Option<DType>, v: Option<Device>| factory::linspace(a, b, n, d, place(v));
    "logspace(Number start, Number end, int steps, float base=10.0, *, dtype? dtype=None, device? device=None)" [function factory out] => |a: Number, b: Number, n: i64, base: f64, d: Option<DType>, v: Option<Device>| factory::logspace(a, b, n, base, d, place(v));
    "eye(int n, int? m=None, *, dtype? dtype=None, device? device=None)" [function factory out] => |n: i64, m: Option<i64>, d: Option<DType>, v: Option<Device>| factory::eye(n, m.unwrap_or(n), kind(d), place(v));
}
