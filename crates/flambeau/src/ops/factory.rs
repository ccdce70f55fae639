//! New tensors.

use crate::apply::{allocate, backend};
use crate::mode;
use crate::ops::elementwise as e;
use crate::tensor::Tensor;
use flambeau_core::*;

/// Uninitialised memory, row-major.
///
/// # Errors
/// `Runtime` for negative or overflowing sizes, `OutOfMemory` when there is no memory.
pub fn empty(sizes: &[i64], dtype: DType, device: Device) -> Result<Tensor> {
    empty_strided(sizes, &contiguous_strides(sizes), dtype, device)
}
/// Uninitialised memory with the given strides.
///
/// # Errors
/// As [`empty`].
pub fn empty_strided(sizes: &[i64], strides: &[i64], dtype: DType, device: Device) -> Result<Tensor> {
    ensure!(
        sizes.len() == strides.len(),
        Runtime,
        "dimensionality of sizes ({}) must match dimensionality of strides ({})",
        sizes.len(),
        strides.len()
    );
    check_sizes(sizes, dtype)?;
    let nbytes = crate::ops::view::wide_extent(sizes, strides) * dtype.size() as i128;
    ensure!(
        (0..=i64::MAX as i128).contains(&nbytes),
        Runtime,
        "sizes {} and strides {} reach further than memory can",
        Shape(sizes),
        Shape(strides)
    );
    let storage = allocate(nbytes as usize, device)?;
    Ok(Tensor::from_storage(storage, dtype, sizes, strides, 0))
}
/// Uninitialised memory without gaps whose dimensions lie in the order of `layout`, the outermost first.
///
/// # Errors
/// `Runtime` unless `layout` is a permutation of the dimensions; as [`empty`].
pub fn empty_permuted(sizes: &[i64], layout: &[i64], dtype: DType, device: Device) -> Result<Tensor> {
    ensure!(
        sizes.len() == layout.len(),
        Runtime,
        "Number of dimensions in size does not match the length of the physical_layout; i.e. len(size) = {} is not equal to \
         len(physical_layout) = {}",
        sizes.len(),
        layout.len()
    );
    let mut strides = vec![0; sizes.len()];
    let (mut seen, mut next) = (vec![false; sizes.len()], 1i64);
    for &d in layout.iter().rev() {
        ensure!(
            (0..sizes.len() as i64).contains(&d),
            Runtime,
            "Dimension out of range (expected to be between 0 and {}, but got {d}). NB: negative dims not currently supported",
            sizes.len() as i64 - 1
        );
        ensure!(!std::mem::replace(&mut seen[d as usize], true), Runtime, "Duplicate dim not allowed");
        strides[d as usize] = next;
        next = next.saturating_mul(sizes[d as usize].max(1));
    }
    empty_strided(sizes, &strides, dtype, device)
}
/// Every element `value`.
///
/// # Errors
/// As [`empty`], and when the value does not fit the dtype.
pub fn full(sizes: &[i64], value: Number, dtype: DType, device: Device) -> Result<Tensor> {
    value.check_fits(dtype)?;
    let t = empty(sizes, dtype, device)?;
    fill_fresh(&t, value)?;
    Ok(t)
}
fn fill_fresh(t: &Tensor, value: Number) -> Result<()> {
    let m = t.meta();
    if m.numel() == 0 || m.device() == Device::Meta {
        return Ok(());
    }
    backend(m.device())?.fill(&m.operand()?, value)
}
/// Every element 0.
///
/// # Errors
/// As [`empty`].
pub fn zeros(sizes: &[i64], dtype: DType, device: Device) -> Result<Tensor> {
    full(sizes, Number::Int(0), dtype, device)
}
/// Every element 1.
///
/// # Errors
/// As [`empty`].
pub fn ones(sizes: &[i64], dtype: DType, device: Device) -> Result<Tensor> {
    full(sizes, Number::Int(1), dtype, device)
}
/// Like `t` in sizes, order of memory, dtype and device, uninitialised.
///
/// # Errors
/// As [`empty`].
pub fn empty_like(t: &Tensor) -> Result<Tensor> {
    if let Some(b) = t.as_batched() {
        return Ok(Tensor::batched(&empty_like(&b.value)?, b.dim, b.level));
    }
    if let Some(s) = t.as_sparse() {
        let sizes = t.sizes();
        return crate::ops::sparse::empty(s.layout, &sizes, sizes.len() - s.sparse_dims(), t.dtype(), t.device());
    }
    let m = t.meta();
    empty_strided(&m.sizes, &preserve_strides(&m.sizes, &m.strides), m.dtype, m.device())
}
/// Like `t`, every element `value`.
///
/// # Errors
/// As [`full`].
pub fn full_like(t: &Tensor, value: Number) -> Result<Tensor> {
    value.check_fits(t.dtype())?;
    let out = empty_like(t)?;
    if out.is_sparse() {
        return e::fill_(&out, value);
    }
    let mut inner = out.clone();
    while let Some(b) = inner.clone().as_batched() {
        inner = b.value.clone();
    }
    fill_fresh(&inner, value)?;
    Ok(out)
}
/// Like `t`, every element 0.
///
/// # Errors
/// As [`empty`].
pub fn zeros_like(t: &Tensor) -> Result<Tensor> {
    full_like(t, Number::Int(0))
}
/// Like `t`, every element 1.
///
/// # Errors
/// As [`empty`].
pub fn ones_like(t: &Tensor) -> Result<Tensor> {
    full_like(t, Number::Int(1))
}
/// int64 numbers `0..n`.
///
/// # Errors
/// As [`empty`].
pub fn arange_to(n: i64, device: Device) -> Result<Tensor> {
    arange(Number::Int(0), Number::Int(n), Number::Int(1), Some(DType::I64), device)
}
/// Numbers from `start` to `end` (exclusive) by `step`.
///
/// # Errors
/// `Runtime` for a zero step, or bounds that the step does not lead between.
pub fn arange(start: Number, end: Number, step: Number, dtype: Option<DType>, device: Device) -> Result<Tensor> {
    let float = [start, end, step].iter().any(|n| n.category() == Category::Float);
    let dtype = dtype.unwrap_or(if float { mode::default_dtype() } else { DType::I64 });
    ensure!(
        [start, end, step].iter().all(|n| n.category() < Category::Complex),
        Runtime,
        "value cannot be converted to type double without overflow"
    );
    ensure!(
        dtype != DType::Bool && !dtype.is_complex(),
        NotImplemented,
        "\"arange_cpu\" not implemented for '{}'",
        dtype.title()
    );
    let (a, b, s) = (start.to_f64(), end.to_f64(), step.to_f64());
    ensure!(s != 0.0 && !s.is_nan(), Runtime, "step must be nonzero");
    ensure!(a.is_finite() && b.is_finite(), Runtime, "unsupported range: {a} -> {b}");
    ensure!(
        (s > 0.0 && b >= a) || (s < 0.0 && b <= a),
        Runtime,
        "upper bound and lower bound inconsistent with step sign"
    );
    // Whole numbers step by the whole part of the step, as many times as the real step would.
    ensure!(dtype != DType::I64 || step.to_i64() != 0, Value, "step must be nonzero");
    let n = if float && dtype != DType::I64 {
        ((b - a) / s).ceil() as i64
    } else {
        let (a, b, s) = (start.to_i64(), end.to_i64(), step.to_i64());
        let span = b as i128 - a as i128;
        ((span + s as i128 - (s as i128).signum()) / s as i128) as i64
    };
    check_sizes(&[n], dtype)?;
    let (whole, by) = (start.to_i64(), step.to_i64());
    let t = if dtype == DType::I64 && n < MANY {
        series(n, dtype, |i| whole.wrapping_add(i.wrapping_mul(by)))?
    } else if dtype == DType::F32 && n < MANY {
        series(n, dtype, |i| (a + number(i) * s) as f32)?
    } else if dtype.is_integral(true) {
        let (a, s) = (whole, by);
        let values = listed("arange", n, |i| a.wrapping_add(i.wrapping_mul(s)))?;
        Tensor::from_slice(&values, &[n])?
    } else {
        let values = listed("arange", n, |i| a + i as f64 * s)?;
        Tensor::from_slice(&values, &[n])?
    };
    finish(t, dtype, device)
}
/// `n` numbers, as many as the caller asks for.
///
/// # Errors
/// `OutOfMemory` when they do not fit.
pub(crate) fn listed<T>(name: &str, n: i64, value: impl FnMut(i64) -> T) -> Result<Vec<T>> {
    let mut values = Vec::new();
    values
        .try_reserve_exact(n as usize)
        .map_err(|_| err!(OutOfMemory, "{name}: can't allocate memory for {n} numbers in double precision"))?;
    values.extend((0..n).map(value));
    Ok(values)
}
/// Numbers that no host has memory for: asking for them is refused in the words of [`listed`].
const MANY: i64 = 1 << 48;
/// `i`, which is below 2^53, as a double: through 32 bits, which vectors convert at every level.
#[inline(always)]
fn number(i: i64) -> f64 {
    (i >> 31) as i32 as f64 * 2_147_483_648.0 + (i & 0x7fff_ffff) as i32 as f64
}
/// `n` numbers of `dtype`, whose type is `T`, each made of its position, straight into host memory.
fn series<T: Copy + Send>(n: i64, dtype: DType, value: impl Fn(i64) -> T + Sync) -> Result<Tensor> {
    let t = empty(&[n], dtype, Device::Cpu)?;
    let to = t.data_ptr()? as usize;
    flambeau_cpu::pool::chunks(n as usize, 1 << 16, |lo, hi| {
        // SAFETY: fresh host memory of `n` elements of `T`; pieces write disjoint parts.
        unsafe {
            for i in lo..hi {
                (to as *mut T).add(i).write(value(i as i64));
            }
        }
    });
    Ok(t)
}
fn finish(t: Tensor, dtype: DType, device: Device) -> Result<Tensor> {
    let t = e::to_dtype(&t, dtype)?;
    crate::ops::device::to_device(&t, device)
}
/// `steps` numbers from `start` to `end`, both included.
///
/// # Errors
/// `Runtime` for a negative count.
pub fn linspace(start: Number, end: Number, steps: i64, dtype: Option<DType>, device: Device) -> Result<Tensor> {
    ensure!(steps >= 0, Runtime, "number of steps must be non-negative");
    let complex = [start, end].iter().any(|n| n.category() == Category::Complex);
    check_spaced("linspace", dtype, complex, steps)?;
    let dtype = dtype.unwrap_or(if complex { mode::default_dtype().to_complex() } else { mode::default_dtype() });
    let end_of = |n: Number| if dtype.is_integral(false) { Number::Int(n.to_i64()) } else { n }.to_complex();
    let (a, b) = (end_of(start), end_of(end));
    // From both ends, so that the last value is exact.
    let step = if steps > 1 { (b - a) / (steps - 1) as f64 } else { Complex64::new(0.0, 0.0) };
    let value = |i: i64| {
        if i < steps / 2 || steps == 1 {
            a + step * i as f64
        } else {
            b - step * (steps - 1 - i) as f64
        }
    };
    let t = if dtype == DType::F32 && steps < MANY {
        let (a, b, step, half) = (a.re, b.re, step.re, if steps == 1 { 1 } else { steps / 2 });
        let both = |i: i64| (a + step * number(i), b - step * number(steps - 1 - i));
        series(steps, dtype, |i| if i < half { both(i).0 as f32 } else { both(i).1 as f32 })?
    } else if dtype.is_complex() {
        Tensor::from_slice(&listed("linspace", steps, value)?, &[steps])?
    } else {
        Tensor::from_slice(&listed("linspace", steps, |i| value(i).re)?, &[steps])?
    };
    finish(t, dtype, device)
}
/// The dtypes that `linspace` and `logspace` refuse.
fn check_spaced(name: &str, dtype: Option<DType>, complex: bool, steps: i64) -> Result<()> {
    let Some(dtype) = dtype else { return Ok(()) };
    ensure!(
        !complex || dtype.is_complex(),
        Runtime,
        "torch.{name}(): inferred dtype c10::complex<float> can't be safely cast to passed dtype {}",
        dtype.title()
    );
    ensure!(dtype != DType::Bool || steps <= 1, NotImplemented, "\"{name}_cpu\" not implemented for 'Bool'");
    Ok(())
}
/// Powers of `base` from `base^start` to `base^end`.
///
/// # Errors
/// As [`linspace`].
pub fn logspace(
    start: Number,
    end: Number,
    steps: i64,
    base: f64,
    dtype: Option<DType>,
    device: Device,
) -> Result<Tensor> {
    ensure!(steps >= 0, Runtime, "number of steps must be non-negative");
    let complex = [start, end].iter().any(|n| n.category() == Category::Complex);
    check_spaced("logspace", dtype, complex, steps)?;
    let dtype = dtype.unwrap_or(if complex { mode::default_dtype().to_complex() } else { mode::default_dtype() });
    let end_of = |n: Number| if dtype.is_integral(false) { Number::Int(n.to_i64()) } else { n };
    let t = linspace(
        end_of(start),
        end_of(end),
        steps,
        Some(if dtype.is_complex() { DType::C128 } else { DType::F64 }),
        Device::Cpu,
    )?;
    finish(e::pow(base, &t)?, dtype, device)
}
/// Ones on the diagonal.
///
/// # Errors
/// `Runtime` for negative sizes.
pub fn eye(n: i64, m: i64, dtype: DType, device: Device) -> Result<Tensor> {
    ensure!(n >= 0, Runtime, "n must be greater or equal to 0, got {n}");
    ensure!(m >= 0, Runtime, "m must be greater or equal to 0, got {m}");
    let t = zeros(&[n, m], dtype, device)?;
    if n > 0 && m > 0 {
        e::fill_(&crate::ops::view::diagonal(&t, 0, 0, 1)?.detach(), Number::Int(1))?;
    }
    Ok(t)
}
