//! Random tensors. Numbers are drawn on the host in PyTorch's order, so that a seed gives the numbers that PyTorch's CPU
//! generator gives; tensors of other devices are drawn on the host too and uploaded.
//!
//! Draws happen at once, also while operators are being recorded: a stream's order must not depend on when values are needed.

use crate::apply::{allocate, check_inplace, Dest};
use crate::mode;
use crate::ops::{device, elementwise as e, factory, indexing, reduction, view};
use crate::random::{default_generator, Engine, Generator};
use crate::tensor::Tensor;
use flambeau_core::*;

/// An element that random numbers are stored as.
trait Store: Copy {
    /// Rounds once, from double.
    fn of(x: f64) -> Self;
}
macro_rules! store {
    ($($t:ty, $x:ident => $e:expr);* $(;)?) => { $(impl Store for $t { #[inline(always)] fn of($x: f64) -> Self { $e } })* };
}
store!(u8, x => x as i64 as u8; i8, x => x as i64 as i8; i16, x => x as i64 as i16; i32, x => x as i64 as i32; i64, x => x as i64;
    u16, x => x as i64 as u16; u32, x => x as i64 as u32; u64, x => x as u64; f32, x => x as f32; f64, x => x;
    f16, x => f16::from_f32(x as f32); bf16, x => bf16::from_f32(x as f32); bool, x => x != 0.0);

/// Runs `$body` with `$T` the Rust type of a dtype.
macro_rules! with_type {
    ($name:expr, $dtype:expr, $T:ident => $body:expr) => {
        match $dtype {
            DType::F16 => {
                type $T = f16;
                $body
            }
            DType::BF16 => {
                type $T = bf16;
                $body
            }
            DType::F32 => {
                type $T = f32;
                $body
            }
            DType::F64 => {
                type $T = f64;
                $body
            }
            DType::U8 => {
                type $T = u8;
                $body
            }
            DType::I8 => {
                type $T = i8;
                $body
            }
            DType::I16 => {
                type $T = i16;
                $body
            }
            DType::I32 => {
                type $T = i32;
                $body
            }
            DType::I64 => {
                type $T = i64;
                $body
            }
            DType::U16 => {
                type $T = u16;
                $body
            }
            DType::U32 => {
                type $T = u32;
                $body
            }
            DType::U64 => {
                type $T = u64;
                $body
            }
            DType::Bool => {
                type $T = bool;
                $body
            }
            other => Err(err!(NotImplemented, "\"{}\" not implemented for '{}'", $name, other.title())),
        }
    };
}
fn floating(name: &str, t: &Tensor) -> Result<()> {
    ensure!(t.dtype().is_float(), NotImplemented, "\"{name}\" not implemented for '{}'", t.dtype().title());
    Ok(())
}
/// As [`floating`], of an operator that asks for the dtype only where there is something to draw.
fn floating_unless_empty(name: &str, t: &Tensor) -> Result<()> {
    if t.numel() == 0 {
        return Ok(());
    }
    floating(name, t)
}
/// As [`floating`] of what is drawn in full precision only.
fn single_or_double(name: &str, t: &Tensor) -> Result<()> {
    let known = matches!(t.dtype(), DType::F32 | DType::F64);
    ensure!(known, NotImplemented, "\"{name}\" not implemented for '{}'", t.dtype().title());
    Ok(())
}

/// What is drawn does not depend on what was there: the gradient ends here.
fn forget(t: &Tensor) -> Result<()> {
    if mode::grad_enabled() && t.requires_grad() {
        e::fill_(t, Number::Int(0))?;
    }
    Ok(())
}
/// Fills `t` in the order of its memory with what `draw` writes.
fn fill<T: Copy>(
    t: &Tensor,
    generator: Option<&Generator>,
    draw: impl FnOnce(&mut Engine, &mut [T]),
) -> Result<Tensor> {
    forget(t)?;
    if crate::batch::innermost().is_some() || t.as_batched().is_some() {
        match crate::batch::random_target(t)? {
            Some(whole) if whole.is_same(t) => {}
            Some(whole) => {
                fill_memory(&whole, generator, draw)?;
                return Ok(t.clone());
            }
            None => {
                let sizes = t.sizes();
                let drawn = crate::batch::random_empty(&sizes, &contiguous_strides(&sizes), t.dtype(), t.device())?;
                let drawn = fill(&drawn, generator, draw)?;
                let _off = mode::no_grad();
                return e::copy_(t, &drawn);
            }
        }
    }
    fill_memory(t, generator, draw)
}
fn fill_memory<T: Copy>(
    t: &Tensor,
    generator: Option<&Generator>,
    draw: impl FnOnce(&mut Engine, &mut [T]),
) -> Result<Tensor> {
    check_inplace(t, t.requires_grad())?;
    let (sizes, strides) = (t.sizes(), t.strides());
    ensure!(
        !may_overlap_itself(&sizes, &strides),
        Runtime,
        "unsupported operation: more than one element of the written-to tensor refers to a single memory location. Please clone() the \
         tensor before performing the operation."
    );
    let n = numel(&sizes) as usize;
    if n == 0 || t.device() == Device::Meta {
        t.bump_version();
        return Ok(t.clone());
    }
    if mode::current() & mode::RECORD != 0 {
        // Recorded operators may still read the old values.
        crate::graph::flush()?;
    }
    let generator = generator.unwrap_or_else(|| default_generator());
    if t.device() == Device::Cpu && t.lazy() == 0 && is_non_overlapping_and_dense(&sizes, &strides) {
        let to = t.data_ptr()? as *mut T;
        // SAFETY: `t` is host memory of `n` elements of `T`'s dtype without gaps, kept alive by `t`. Bytes that were never written are
        // only written here: every `draw` assigns all elements before it reads any.
        let out = unsafe { std::slice::from_raw_parts_mut(to, n) };
        draw(&mut generator.lock(), out);
    } else {
        let storage = allocate(n * std::mem::size_of::<T>(), Device::Cpu)?;
        // SAFETY: fresh memory of `n` elements that nobody else knows; as above.
        let out = unsafe { std::slice::from_raw_parts_mut(storage.ptr()? as *mut T, n) };
        draw(&mut generator.lock(), out);
        let _off = mode::no_grad();
        let drawn = Tensor::from_storage(storage, t.dtype(), &sizes, &preserve_strides(&sizes, &strides), 0);
        return e::copy_(t, &device::to_device(&drawn, t.device())?);
    }
    t.bump_version();
    Ok(t.clone())
}
/// Fills with one number after the other.
fn fill_each(
    name: &str,
    t: &Tensor,
    generator: Option<&Generator>,
    mut next: impl FnMut(&mut Engine) -> f64,
) -> Result<Tensor> {
    if t.numel() == 0 {
        return Ok(t.clone());
    }
    with_type!(name, t.dtype(), T => fill::<T>(t, generator, |engine, out| out.iter_mut().for_each(|x| *x = T::of(next(engine)))))
}

// ---- uniform and normal ---------------------------------------------------------------------------------------------------

/// Uniform numbers of `[from, to)`, in place.
///
/// # Errors
/// `Runtime` for bounds out of order or out of the dtype's range, `NotImplemented` for integers.
pub fn uniform_(t: &Tensor, from: f64, to: f64, generator: Option<&Generator>) -> Result<Tensor> {
    if t.dtype().is_complex() {
        // Real and imaginary parts alike.
        forget(t)?;
        check_inplace(t, t.requires_grad())?;
        let parts = view::view_as_real(&t.detach())?;
        uniform_(&parts, from, to, generator)?;
        return Ok(t.clone());
    }
    floating("check_uniform_bounds", t)?;
    ensure!(from <= to, Runtime, "uniform_ expects to return a [from, to) range, but found from={from} > to={to}");
    let largest = match t.dtype() {
        DType::F16 => 65504.0,
        DType::BF16 => f32::from_bits(0x7f7f_0000) as f64,
        DType::F32 => f32::MAX as f64,
        _ => f64::MAX,
    };
    ensure!(
        from.abs() <= largest && to.abs() <= largest,
        Runtime,
        "uniform_: bounds {from} and {to} are out of range for {}",
        t.dtype()
    );
    ensure!(
        to - from <= largest,
        Runtime,
        "uniform_ expects to-from <= std::numeric_limits<{}>::max(), but found to={to} and from={from} which result in to-from to \
         exceed the limit",
        t.dtype().title()
    );
    // One rounding: the product and the sum are fused, as in PyTorch's kernels. What rounds up to the open end is the closed one.
    macro_rules! draw {
        ($T:ty, $A:ident, $unit:ident, $round:expr) => {{
            let (a, width) = (from as $A, to as $A - from as $A);
            let (first, end) = ($round(from as $A), $round(to as $A));
            fill::<$T>(t, generator, |g, out| {
                out.iter_mut().for_each(|x| {
                    let drawn = $round(g.$unit().mul_add(width, a));
                    *x = if drawn == end { first } else { drawn };
                })
            })
        }};
    }
    match t.dtype() {
        DType::F64 => draw!(f64, f64, unit_f64, std::convert::identity),
        DType::F32 => draw!(f32, f32, unit_f32, std::convert::identity),
        DType::F16 => draw!(f16, f32, unit_f32, f16::from_f32),
        _ => draw!(bf16, f32, unit_f32, bf16::from_f32),
    }
}

/// Normal numbers from uniform ones, 16 at a time (Box & Muller 1958): the first eight with the second eight.
macro_rules! normal_blocks {
    ($name:ident, $T:ident, $unit:ident) => {
        fn $name(g: &mut Engine, out: &mut [$T], mean: $T, std: $T, spare: bool) {
            fn block(x: &mut [$T], mean: $T, std: $T) {
                for j in 0..8 {
                    let radius = ((1.0 - x[j]).ln() * -2.0).sqrt();
                    let (sin, cos) = (x[j + 8] * (2.0 * std::f64::consts::PI as $T)).sin_cos();
                    x[j] = (radius * cos).mul_add(std, mean);
                    x[j + 8] = (radius * sin).mul_add(std, mean);
                }
            }
            let n = out.len();
            // The rest that makes no block is drawn and thrown away, except for half precisions.
            let drawn = if spare { n } else { n / 16 * 16 };
            out[..drawn].iter_mut().for_each(|x| *x = g.$unit());
            out.chunks_exact_mut(16).for_each(|x| block(x, mean, std));
            if n % 16 != 0 {
                // The last sixteen are drawn anew, over some that were done.
                let tail = &mut out[n - 16..];
                tail.iter_mut().for_each(|x| *x = g.$unit());
                block(tail, mean, std);
            }
        }
    };
}
normal_blocks!(normal_blocks_f32, f32, unit_f32);
normal_blocks!(normal_blocks_f64, f64, unit_f64);

/// Normal numbers in half precision: blocks of single precision, rounded. There are at least 16 of them.
fn normal_halves<T>(g: &mut Engine, out: &mut [T], mean: f32, std: f32, round: fn(f32) -> T) {
    let mut wide = [0f32; 16];
    let mut block = |x: &mut [T]| {
        normal_blocks_f32(g, &mut wide, mean, std, false);
        x.iter_mut().zip(wide).for_each(|(x, w)| *x = round(w));
    };
    out.chunks_exact_mut(16).for_each(&mut block);
    let n = out.len();
    if !n.is_multiple_of(16) {
        block(&mut out[n - 16..]);
    }
}

/// Normal numbers in place.
///
/// # Errors
/// `Runtime` for a negative deviation, `NotImplemented` for integers.
pub fn normal_(t: &Tensor, mean: f64, std: f64, generator: Option<&Generator>) -> Result<Tensor> {
    ensure!(std >= 0.0, Runtime, "normal expects std >= 0.0, but found std {std}");
    if t.dtype().is_complex() {
        // Real and imaginary parts share the variance, and each has the mean, as in PyTorch.
        forget(t)?;
        let parts = view::view_as_real(&t.detach())?;
        let std = std / std::f64::consts::SQRT_2;
        let _off = mode::no_grad();
        normal_(&parts, mean, std, generator)?;
        return Ok(t.clone());
    }
    floating_unless_empty("normal_kernel_cpu", t)?;
    if t.numel() >= 16 && t.is_contiguous() {
        let (m, s) = (mean as f32, std as f32);
        return match t.dtype() {
            DType::F32 => fill::<f32>(t, generator, |g, out| normal_blocks_f32(g, out, m, s, true)),
            DType::F64 => fill::<f64>(t, generator, |g, out| normal_blocks_f64(g, out, mean, std, true)),
            DType::F16 => fill::<f16>(t, generator, |g, out| normal_halves(g, out, m, s, f16::from_f32)),
            _ => fill::<bf16>(t, generator, |g, out| normal_halves(g, out, m, s, bf16::from_f32)),
        };
    }
    fill_each("normal_kernel_cpu", t, generator, |g| g.normal().mul_add(std, mean))
}
/// `exp` of normal numbers, in place.
///
/// # Errors
/// `Runtime` for a deviation that is not positive, `NotImplemented` for integers.
pub fn log_normal_(t: &Tensor, mean: f64, std: f64, generator: Option<&Generator>) -> Result<Tensor> {
    floating_unless_empty("log_normal_cpu", t)?;
    ensure!(std > 0.0, Runtime, "log_normal_ expects std > 0.0, but found std={std}");
    fill_each("log_normal_cpu", t, generator, |g| g.normal().mul_add(std, mean).exp())
}
/// Exponentially distributed numbers in place.
///
/// # Errors
/// `Runtime` for a rate that is not positive, `NotImplemented` for integers.
pub fn exponential_(t: &Tensor, lambda: f64, generator: Option<&Generator>) -> Result<Tensor> {
    ensure!(t.dtype().is_float() || t.numel() == 0, Runtime, "Exponential distribution is a continuous probability distribution. dtype must be a floating point but you specified {}", t.dtype().title());
    ensure!(lambda > 0.0, Runtime, "exponential_ expects lambda > 0.0, but found lambda={lambda}");
    fill_each("exponential_cpu", t, generator, |g| -1.0 / lambda * (-g.unit_f64()).ln_1p())
}
/// Cauchy-distributed numbers in place.
///
/// # Errors
/// `Runtime` for a scale that is not positive or an integer dtype.
pub fn cauchy_(t: &Tensor, median: f64, sigma: f64, generator: Option<&Generator>) -> Result<Tensor> {
    ensure!(t.dtype().is_float(), Runtime, "Cauchy distribution is a continuous probability distribution. dtype must be a floating point but you specified {}", t.dtype().title());
    ensure!(sigma > 0.0, Runtime, "cauchy_ expects sigma > 0.0, but found sigma={sigma}");
    fill_each("cauchy_cpu", t, generator, |g| {
        sigma.mul_add((std::f64::consts::PI * (g.unit_f64() - 0.5)).tan(), median)
    })
}
/// How many trials until the first success, in place.
///
/// # Errors
/// `Runtime` unless `0 < p < 1`.
pub fn geometric_(t: &Tensor, p: f64, generator: Option<&Generator>) -> Result<Tensor> {
    ensure!(p > 0.0 && p < 1.0, Runtime, "geometric_ expects p to be in (0, 1), but got p={p}");
    ensure!(t.dtype() != DType::Bool || t.numel() == 0, NotImplemented, "\"geometric_cpu\" not implemented for 'Bool'");
    fill_each("geometric_cpu", t, generator, |g| (g.unit_f64().ln() / (-p).ln_1p()).ceil())
}

// ---- integers -------------------------------------------------------------------------------------------------------------

/// The smallest and the largest integer of `random_`'s range: floats take those that they hold exactly.
fn integer_bounds(dtype: DType) -> (i64, u64) {
    match dtype {
        DType::F16 => (-2048, 2048),
        DType::BF16 => (-256, 256),
        DType::F32 => (-(1 << 24), 1 << 24),
        DType::F64 => (-(1 << 53), 1 << 53),
        DType::Bool => (0, 1),
        other => other.integer_range().unwrap_or((i64::MIN, i64::MAX as u64)),
    }
}
/// The end of `random_`'s range for a float dtype: no number below `to` may round to `to` itself, so that where the floats are
/// further apart than 1 the range ends one float earlier.
fn open_end(dtype: DType, to: i64) -> i64 {
    let digits = match dtype {
        DType::F16 => 11,
        DType::BF16 => 8,
        DType::F32 => 24,
        _ => 53,
    };
    let last = to.wrapping_sub(1);
    if last <= 0 {
        return to;
    }
    let exponent = 63 - last.leading_zeros();
    if exponent < digits {
        return to;
    }
    let step = 1i64 << (exponent + 1 - digits);
    // Halves go to the even neighbour, which lies above where the bits that are kept are odd.
    let (kept, rest) = (last / step, last % step);
    if rest > step / 2 || (rest == step / 2 && kept % 2 == 1) {
        to - step
    } else {
        to
    }
}
/// Integers of `[from, to)` in place; without `to` up to the dtype's largest, without both from 0.
///
/// # Errors
/// `Runtime` for an empty range or bounds out of the dtype's range.
pub fn random_(t: &Tensor, from: Option<i64>, to: Option<i64>, generator: Option<&Generator>) -> Result<Tensor> {
    let dtype = t.dtype();
    if t.numel() == 0 && to.is_none() {
        return Ok(t.clone());
    }
    ensure!(!dtype.is_complex(), NotImplemented, "\"random_\" not implemented for '{}'", dtype.title());
    let (lowest, largest) = integer_bounds(dtype);
    let (base, range) = match (from, to) {
        (from, Some(to)) => {
            let from = from.unwrap_or(0);
            ensure!(from < to, Runtime, "random_ expects 'from' to be less than 'to', but got from={from} >= to={to}");
            if !dtype.is_float() {
                ensure!(
                    from >= lowest && (from < 0 || from as u64 <= largest),
                    Runtime,
                    "from is out of bounds for {}",
                    dtype.title()
                );
                ensure!(
                    to > lowest && (to < 1 || (to - 1) as u64 <= largest),
                    Runtime,
                    "to - 1 is out of bounds for {}",
                    dtype.title()
                );
            }
            if dtype == DType::F16 {
                for (what, bound) in [("from", from), ("to - 1", to - 1)] {
                    ensure!(bound.unsigned_abs() <= 65504, Runtime, "{what} is out of bounds for {}", dtype.title());
                }
            }
            let to = if dtype.is_float() { open_end(dtype, to) } else { to };
            (from, (to as u64).wrapping_sub(from as u64))
        }
        // All of 2⁶⁴, from the lowest on.
        (Some(i64::MIN), None) if dtype == DType::I64 || (dtype.is_float() && dtype != DType::F16) => (i64::MIN, 0),
        (Some(i64::MIN), None) if matches!(dtype, DType::F16 | DType::Bool) => {
            bail!(NotImplemented, "\"random_full_64_bits_range_kernel_cpu\" not implemented for '{}'", dtype.title())
        }
        (Some(from), None) => {
            ensure!(
                from >= lowest && (from < 0 || from as u64 <= largest),
                Runtime,
                "from is out of bounds for {}",
                dtype.title()
            );
            // 0 stands for all of 2⁶⁴.
            (from, largest.wrapping_sub(from as u64).wrapping_add(1))
        }
        (None, None) => {
            let wide = matches!(dtype, DType::F64 | DType::I64 | DType::U64);
            let count = largest.wrapping_add(1);
            return integers(t, generator, move |g| {
                let raw = if wide { g.next_u64() } else { g.next_u32() as u64 };
                (if count == 0 { raw } else { raw % count }) as i64
            });
        }
    };
    integers(t, generator, move |g| {
        if range == 0 {
            return g.next_u64() as i64;
        }
        // From 2²⁸ on a remainder of 32 bits would be visibly uneven.
        let raw = if range >= 1 << 28 { g.next_u64() } else { g.next_u32() as u64 };
        (raw % range).wrapping_add(base as u64) as i64
    })
}
fn integers(t: &Tensor, generator: Option<&Generator>, mut next: impl FnMut(&mut Engine) -> i64) -> Result<Tensor> {
    match t.dtype() {
        DType::I64 | DType::U64 => fill::<i64>(t, generator, |g, out| out.iter_mut().for_each(|x| *x = next(g))),
        DType::F32 => fill::<f32>(t, generator, |g, out| out.iter_mut().for_each(|x| *x = next(g) as f32)),
        _ => fill_each("random_", t, generator, |g| next(g) as f64),
    }
}
/// A permutation of `0..n` (Fisher & Yates).
///
/// # Errors
/// `Runtime` for a negative count, or one that the dtype cannot hold.
pub fn randperm(n: i64, generator: Option<&Generator>, dtype: Option<DType>, device: Option<Device>) -> Result<Tensor> {
    ensure!(n >= 0, Runtime, "n must be non-negative, got {n}");
    let dtype = dtype.unwrap_or(DType::I64);
    ensure!(
        n as u64 <= integer_bounds(dtype).1.saturating_add(1),
        Runtime,
        "n is too large for result tensor type: '{}'",
        dtype.title()
    );
    let plain = factory::empty(&[n], DType::I64, Device::Cpu)?;
    fill::<i64>(&plain, generator, |g, out| {
        out.iter_mut().enumerate().for_each(|(i, x)| *x = i as i64);
        let wide = n >= (u32::MAX / 20) as i64;
        for i in 0..out.len().saturating_sub(1) {
            let left = (out.len() - i) as u64;
            let z = if wide { g.next_u64() % left } else { g.next_u32() as u64 % left };
            out.swap(i, i + z as usize);
        }
    })?;
    device::to_device(&e::to_dtype(&plain, dtype)?, device.unwrap_or(Device::Cpu))
}

// ---- choices --------------------------------------------------------------------------------------------------------------

/// Ones with probability `p`, in place.
///
/// # Errors
/// `Runtime` for a probability outside 0..=1.
pub fn bernoulli_(t: &Tensor, p: f64, generator: Option<&Generator>) -> Result<Tensor> {
    ensure!((0.0..=1.0).contains(&p), Runtime, "bernoulli_ expects p to be in [0, 1], but got p={p}");
    match t.dtype() {
        DType::F32 => fill::<f32>(t, generator, |g, out| out.iter_mut().for_each(|x| *x = f32::from(g.unit_f64() < p))),
        _ => fill_each("bernoulli_scalar_cpu_", t, generator, |g| f64::from(g.unit_f64() < p)),
    }
}
/// Ones with the probabilities in `p`, in place.
///
/// # Errors
/// `Runtime` for probabilities outside 0..=1 or of a dtype that is not floating.
pub fn bernoulli_tensor_(t: &Tensor, p: &Tensor, generator: Option<&Generator>) -> Result<Tensor> {
    ensure!(
        p.dtype().is_float(),
        Runtime,
        "expected probabilities tensor to have floating type, got {}",
        p.dtype().title()
    );
    let sizes = t.sizes();
    let double = p.dtype() == DType::F64;
    let probabilities = view::expand(&device::to_cpu_contiguous(p)?, &sizes)?;
    // In the order of the target's memory.
    let mut order: Vec<i64> = (0..sizes.len() as i64).collect();
    let strides = t.strides();
    order.sort_by_key(|&d| std::cmp::Reverse(strides[d as usize]));
    let probabilities = view::permute(&probabilities, &order)?.to_vec::<f64>()?;
    ensure!(
        probabilities.iter().all(|p| (0.0..=1.0).contains(p)),
        Runtime,
        "Expected p_in >= 0 && p_in <= 1 to be true, but got false."
    );
    let mut p = probabilities.into_iter();
    fill_each("bernoulli_tensor_cpu_self_", t, generator, |g| {
        let p = p.next().unwrap_or(0.0);
        f64::from(if double { g.unit_f64() < p } else { g.unit_f32() < p as f32 })
    })
}
/// Ones with the input's values as probabilities.
///
/// # Errors
/// As [`bernoulli_tensor_`].
pub fn bernoulli(t: &Tensor, generator: Option<&Generator>) -> Result<Tensor> {
    let drawn = bernoulli_tensor_(&contiguous_like(t)?, &t.detach(), generator)?;
    crate::autograd::node::constant_of(drawn, t)
}
/// Ones with probability `p` in the input's shape.
///
/// # Errors
/// As [`bernoulli_`].
pub fn bernoulli_p(t: &Tensor, p: f64, generator: Option<&Generator>) -> Result<Tensor> {
    bernoulli_(&contiguous_like(t)?, p, generator)
}
/// Indices drawn by weight from each row.
///
/// # Errors
/// `Runtime` for weights that are negative or not finite, rows without any, and more draws than there are categories.
pub fn multinomial(t: &Tensor, count: i64, replacement: bool, generator: Option<&Generator>) -> Result<Tensor> {
    let sizes = t.sizes();
    ensure!(sizes.len() == 1 || sizes.len() == 2, Runtime, "prob_dist must be 1 or 2 dim");
    ensure!(
        t.dtype().is_float(),
        Runtime,
        "multinomial only supports floating-point dtypes for input, got: {}",
        t.dtype().title()
    );
    ensure!(count > 0, Runtime, "cannot sample n_sample <= 0 samples");
    let classes = sizes[sizes.len() - 1];
    ensure!(classes > 0, Runtime, "number of categories must be positive");
    ensure!(
        replacement || count <= classes,
        Runtime,
        "cannot sample n_sample > prob_dist.size(-1) samples without replacement"
    );
    ensure!(classes <= 1 << 24, Runtime, "number of categories cannot exceed 2^24");
    let _off = mode::no_grad();
    let p = t.detach();
    let weights = p.to_vec::<f64>()?;
    ensure!(
        weights.iter().all(|w| w.is_finite() && *w >= 0.0),
        Runtime,
        "probability tensor contains either `inf`, `nan` or element < 0"
    );
    ensure!(
        weights.chunks_exact(classes as usize).all(|row| row.iter().sum::<f64>() > 0.0),
        Runtime,
        "invalid multinomial distribution (sum of probabilities <= 0)"
    );
    if !replacement || count == 1 {
        // The largest weights over exponential numbers are a draw without replacement (Efraimidis & Spirakis 2006).
        let q = exponential_(&factory::empty_like(&p)?, 1.0, generator)?;
        let keys = e::div(&p, &q)?;
        if count == 1 {
            return reduction::argmax(&keys, Some(-1), true);
        }
        return Ok(crate::ops::sorting::topk(&keys, count, -1, true)?.1);
    }
    let mut out_sizes = sizes.clone();
    if let Some(last) = out_sizes.last_mut() {
        *last = count;
    }
    let single = t.dtype() != DType::F64;
    let out = factory::empty(&out_sizes, DType::I64, Device::Cpu)?;
    fill::<i64>(&out, generator, |g, out| {
        for (row, out) in weights.chunks_exact(classes as usize).zip(out.chunks_exact_mut(count as usize)) {
            let cumulative = cumulative(row, single);
            for x in out {
                let u = g.unit_f64();
                *x = cumulative.partition_point(|c| *c < u) as i64;
            }
        }
    })?;
    device::to_device(&out, t.device())
}
/// Running sums over the total, in the weights' own precision; the last is 1.
fn cumulative(row: &[f64], single: bool) -> Vec<f64> {
    let mut out = Vec::with_capacity(row.len());
    if single {
        let mut sum = 0f32;
        let sums: Vec<f32> = row
            .iter()
            .map(|w| {
                sum += *w as f32;
                sum
            })
            .collect();
        out.extend(sums.iter().map(|s| (s / sum) as f64));
    } else {
        let mut sum = 0f64;
        let sums: Vec<f64> = row
            .iter()
            .map(|w| {
                sum += w;
                sum
            })
            .collect();
        out.extend(sums.iter().map(|s| s / sum));
    }
    if let Some(last) = out.last_mut() {
        *last = 1.0;
    }
    out
}
/// 1 where `x` is positive, else a number drawn from `[lower, upper)`.
pub(crate) fn slopes(x: &Tensor, lower: f64, upper: f64) -> Result<Tensor> {
    floating("rrelu_with_noise_out_cpu", x)?;
    ensure!(x.dtype() != DType::F16, NotImplemented, "\"rrelu_with_noise_out_cpu\" not implemented for 'Half'");
    let out = factory::empty(&x.sizes(), x.dtype(), Device::Cpu)?;
    let mut values = x.to_vec::<f64>()?.into_iter();
    fill_each("rrelu", &out, None, |g| match values.next() {
        Some(v) if v <= 0.0 => g.unit_f64().mul_add(upper - lower, lower),
        _ => 1.0,
    })?;
    device::to_device(&out, x.device())
}
/// Poisson-distributed counts with the input's values as rates.
///
/// # Errors
/// `Runtime` for a negative rate, `NotImplemented` for integers.
pub fn poisson(t: &Tensor, generator: Option<&Generator>) -> Result<Tensor> {
    floating("poisson_cpu", t)?;
    let rates = t.to_vec::<f64>()?;
    ensure!(rates.iter().all(|r| *r >= 0.0), Runtime, "invalid Poisson rate, expected rate to be non-negative");
    let out = factory::empty(&t.sizes(), t.dtype(), Device::Cpu)?;
    let mut rates = rates.into_iter();
    fill_each("poisson_cpu", &out, generator, |g| g.poisson(rates.next().unwrap_or(0.0)))?;
    device::to_device(&out, t.device())
}
/// How a gamma-distributed sample `x` moves with its shape `a` when its probability is held: `-(∂P/∂a) / (∂P/∂x)` with P the
/// regularised lower incomplete gamma function, by its series (DLMF 8.11.4) differentiated term by term.
fn gamma_sample_slope(a: f64, x: f64) -> f64 {
    use flambeau_cpu::math::special::digamma;
    if a > 1e5 {
        // The series grows long. With z fixed, x = a (1 - 1/(9a) + z/(3√a))³ (Wilson & Hilferty 1931); next order in 1/a is lost.
        let root = (x / a).cbrt();
        let slope_of_root = 1.0 / (9.0 * a * a) - (root - 1.0 + 1.0 / (9.0 * a)) / (2.0 * a);
        return root * root * root + 3.0 * a * root * root * slope_of_root;
    }
    let (mut term, mut slope) = (1.0, 0.0);
    let (mut sum, mut slopes) = (1.0, 0.0);
    let mut k = 1.0;
    while k < 1e5 {
        slope = (slope - term / (a + k)) * x / (a + k);
        term *= x / (a + k);
        sum += term;
        slopes += slope;
        if term < sum * 1e-17 && slope.abs() <= f64::abs(slopes) * 1e-17 {
            break;
        }
        k += 1.0;
    }
    // P = x^a e^-x / Γ(a + 1) Σ and ∂P/∂x = x^(a-1) e^-x / Γ(a).
    -(x / a) * (sum * (x.ln() - digamma(a + 1.0)) + slopes)
}
/// Gamma-distributed numbers of the given shapes and scale 1. Gradients flow to the shapes (once).
///
/// # Errors
/// `NotImplemented` for dtypes that are not floating.
pub fn standard_gamma(shape: &Tensor, generator: Option<&Generator>) -> Result<Tensor> {
    single_or_double("gamma_cpu", shape)?;
    let shapes = shape.detach().to_vec::<f64>()?;
    let smallest = match shape.dtype() {
        DType::F64 => f64::MIN_POSITIVE,
        DType::F16 => 6.103_515_625e-5,
        _ => f32::MIN_POSITIVE as f64,
    };
    let out = factory::empty(&shape.sizes(), shape.dtype(), Device::Cpu)?;
    let mut next = shapes.iter();
    fill_each("gamma_cpu", &out, generator, |g| g.gamma(next.next().copied().unwrap_or(1.0)).max(smallest))?;
    let out = device::to_device(&out, shape.device())?;
    if !(mode::grad_enabled() && shape.requires_grad()) {
        return Ok(out);
    }
    let drawn = out.to_vec::<f64>()?;
    let slopes: Vec<f64> = shapes.iter().zip(&drawn).map(|(a, x)| gamma_sample_slope(*a, *x)).collect();
    let slopes = e::to_dtype(&Tensor::from_slice(&slopes, &shape.sizes())?, shape.dtype())?;
    // The difference is zero; it carries the slope.
    e::add(&out, &e::mul(&e::sub(shape, &shape.detach())?, &device::to_device(&slopes, shape.device())?)?)
}
/// How one coordinate `x` of a Dirichlet-distributed point moves with its concentration `a` (the others summing to `b`) when its
/// probability is held, over `1 - x`: `-(∂I/∂a) / (∂I/∂x)` with I the regularised incomplete beta function, by the series of
/// positive terms (DLMF 8.17.8) in the tail where x lies, differentiated term by term.
fn dirichlet_sample_slope(x: f64, a: f64, b: f64) -> f64 {
    use flambeau_cpu::math::special::digamma;
    let total = a + b;
    let lower = x * total <= a;
    let (argument, edge) = if lower { (x, a) } else { (1.0 - x, b) };
    let (mut term, mut log_slope) = (1.0, 0.0);
    let (mut sum, mut slopes) = (1.0, 0.0);
    let mut k = 0.0;
    while k < 1e5 {
        term *= (total + k) * argument / (edge + 1.0 + k);
        log_slope += 1.0 / (total + k) - if lower { 1.0 / (a + 1.0 + k) } else { 0.0 };
        sum += term;
        slopes += term * log_slope;
        if term < sum * 1e-17 && f64::abs(term * log_slope) <= f64::abs(slopes) * 1e-17 {
            break;
        }
        k += 1.0;
    }
    let factor = x.ln() + digamma(total) - digamma(a);
    if lower {
        -x / a * (sum * (factor - 1.0 / a) + slopes)
    } else {
        x / b * (sum * factor + slopes)
    }
}
/// Points of a simplex with Dirichlet distribution: gamma-distributed numbers, normalised in double precision. Gradients flow
/// to the concentrations (once), by implicit reparameterisation of each coordinate against the rest (Figurnov et al. 2018).
///
/// # Errors
/// As [`standard_gamma`].
pub fn dirichlet(concentration: &Tensor, generator: Option<&Generator>) -> Result<Tensor> {
    single_or_double("dirichlet", concentration)?;
    let held = concentration.detach();
    let gamma = standard_gamma(&e::to_dtype(&held, DType::F64)?, generator)?;
    let point = e::div(&gamma, &reduction::sum(&gamma, &[-1], true)?)?;
    let out = e::to_dtype(&point, concentration.dtype())?;
    if !(mode::grad_enabled() && concentration.requires_grad()) {
        return Ok(out);
    }
    let rest = e::sub(&reduction::sum(&held, &[-1], true)?, &held)?;
    let (x, a, b) = (out.to_vec::<f64>()?, held.to_vec::<f64>()?, rest.to_vec::<f64>()?);
    let slopes: Vec<f64> = (0..x.len()).map(|i| dirichlet_sample_slope(x[i], a[i], b[i])).collect();
    let slopes = e::to_dtype(&Tensor::from_slice(&slopes, &held.sizes())?, concentration.dtype())?;
    let slopes = device::to_device(&slopes, concentration.device())?;
    // The difference is zero; it carries the slopes. A point stays on the simplex: what one coordinate gains all others lose in
    // proportion.
    let moved = e::mul(&e::sub(concentration, &held)?, &slopes)?;
    let lost = e::mul(&out, &reduction::sum(&moved, &[-1], true)?)?;
    e::add(&out, &e::sub(&moved, &lost)?)
}
/// Counts of successes in `count` trials of probability `prob`.
///
/// # Errors
/// `Runtime` for shapes that do not broadcast or differing dtypes.
pub fn binomial(count: &Tensor, prob: &Tensor, generator: Option<&Generator>) -> Result<Tensor> {
    ensure!(
        count.dtype() == prob.dtype(),
        Runtime,
        "Found dtype {} but expected {}",
        prob.dtype().title(),
        count.dtype().title()
    );
    single_or_double("binomial_cpu", count)?;
    let sizes = broadcast_shapes(&count.sizes(), &prob.sizes())?;
    let n = view::expand(&count.detach(), &sizes)?.to_vec::<f64>()?;
    let p = view::expand(&prob.detach(), &sizes)?.to_vec::<f64>()?;
    let out = factory::empty(&sizes, count.dtype(), Device::Cpu)?;
    let mut pairs = n.into_iter().zip(p);
    fill_each("binomial_cpu", &out, generator, |g| {
        let (n, p) = pairs.next().unwrap_or((0.0, 0.0));
        g.binomial(n, p)
    })?;
    device::to_device(&out, count.device())
}

// ---- new tensors ----------------------------------------------------------------------------------------------------------

fn fresh(sizes: &[i64], dtype: Option<DType>, device: Option<Device>) -> Result<Tensor> {
    let (dtype, device) = (dtype.unwrap_or_else(mode::default_dtype), device.unwrap_or(Device::Cpu));
    crate::batch::random_empty(sizes, &contiguous_strides(sizes), dtype, device)
}
fn fresh_like(t: &Tensor, dtype: Option<DType>, device: Option<Device>) -> Result<Tensor> {
    let (dtype, device) = (dtype.unwrap_or(t.dtype()), device.unwrap_or(t.device()));
    let (sizes, strides) = (t.sizes(), t.strides());
    crate::batch::random_empty(&sizes, &preserve_strides(&sizes, &strides), dtype, device)
}
/// A contiguous tensor of the same sizes: what PyTorch draws `bernoulli` and `normal` into, whatever the input's layout.
fn contiguous_like(t: &Tensor) -> Result<Tensor> {
    fresh(&t.sizes(), Some(t.dtype()), Some(t.device()))
}
/// [`fresh_like`] for other operators' random numbers.
///
/// # Errors
/// As [`crate::batch::random_empty`].
pub(crate) fn empty_like(t: &Tensor) -> Result<Tensor> {
    fresh_like(t, None, None)
}
/// Uniform numbers of `[0, 1)`.
///
/// # Errors
/// As [`uniform_`].
pub fn rand(
    sizes: &[i64],
    generator: Option<&Generator>,
    dtype: Option<DType>,
    device: Option<Device>,
) -> Result<Tensor> {
    uniform_(&fresh(sizes, dtype, device)?, 0.0, 1.0, generator)
}
/// Standard normal numbers.
///
/// # Errors
/// As [`normal_`].
pub fn randn(
    sizes: &[i64],
    generator: Option<&Generator>,
    dtype: Option<DType>,
    device: Option<Device>,
) -> Result<Tensor> {
    normal_(&fresh(sizes, dtype, device)?, 0.0, 1.0, generator)
}
/// Integers of `[low, high)`; int64 unless told otherwise.
///
/// # Errors
/// As [`random_`].
pub fn randint(
    low: i64,
    high: i64,
    sizes: &[i64],
    generator: Option<&Generator>,
    dtype: Option<DType>,
    device: Option<Device>,
) -> Result<Tensor> {
    random_(&fresh(sizes, Some(dtype.unwrap_or(DType::I64)), device)?, Some(low), Some(high), generator)
}
/// [`rand`] in another tensor's shape.
///
/// # Errors
/// As [`uniform_`].
pub fn rand_like(t: &Tensor, dtype: Option<DType>, device: Option<Device>) -> Result<Tensor> {
    uniform_(&fresh_like(t, dtype, device)?, 0.0, 1.0, None)
}
/// [`randn`] in another tensor's shape.
///
/// # Errors
/// As [`normal_`].
pub fn randn_like(t: &Tensor, dtype: Option<DType>, device: Option<Device>) -> Result<Tensor> {
    normal_(&fresh_like(t, dtype, device)?, 0.0, 1.0, None)
}
/// [`randint`] in another tensor's shape and dtype.
///
/// # Errors
/// As [`random_`].
pub fn randint_like(t: &Tensor, low: i64, high: i64, dtype: Option<DType>, device: Option<Device>) -> Result<Tensor> {
    random_(&fresh_like(t, dtype, device)?, Some(low), Some(high), None)
}
/// Normal numbers with one mean and deviation.
///
/// # Errors
/// As [`normal_`].
pub fn normal(
    mean: f64,
    std: f64,
    sizes: &[i64],
    generator: Option<&Generator>,
    dtype: Option<DType>,
    device: Option<Device>,
) -> Result<Tensor> {
    normal_(&fresh(sizes, dtype, device)?, mean, std, generator)
}
/// Normal numbers with means and deviations given by element (a number counts for all).
///
/// # Errors
/// `Runtime` for a negative deviation or shapes that do not broadcast.
pub fn normal_tensors(
    mean: crate::tensor::Value,
    std: crate::tensor::Value,
    generator: Option<&Generator>,
) -> Result<Tensor> {
    use crate::tensor::Value;
    let drawn = {
        let _off = mode::no_grad();
        draw_normal(mean, std, generator)?
    };
    // The draw has derivative zero with respect to both.
    for x in [mean, std] {
        if let Value::Tensor(x) = x {
            if x.requires_grad() {
                return crate::autograd::node::constant_of(drawn, x);
            }
        }
    }
    Ok(drawn)
}
fn draw_normal(mean: crate::tensor::Value, std: crate::tensor::Value, generator: Option<&Generator>) -> Result<Tensor> {
    use crate::tensor::Value;
    match (mean, std) {
        (Value::Tensor(m), Value::Number(s)) => e::add(&normal_(&contiguous_like(m)?, 0.0, s.to_f64(), generator)?, m),
        (Value::Number(m), Value::Tensor(s)) => {
            check_deviations(s)?;
            let z = normal_(&contiguous_like(s)?, 0.0, 1.0, generator)?;
            e::add(&e::mul(&z, s)?, m)
        }
        (Value::Tensor(m), Value::Tensor(s)) => {
            check_deviations(s)?;
            let sizes = broadcast_shapes(&m.sizes(), &s.sizes())?;
            let z = normal_(&factory::empty(&sizes, m.dtype(), m.device())?, 0.0, 1.0, generator)?;
            e::add(&e::mul(&z, s)?, m)
        }
        (Value::Number(m), Value::Number(s)) => normal(m.to_f64(), s.to_f64(), &[], generator, None, None),
    }
}
fn check_deviations(std: &Tensor) -> Result<()> {
    ensure!(!std.dtype().is_complex(), Runtime, "normal expects standard deviation to be non-complex");
    if std.numel() > 0 {
        let low = device::item(&reduction::amin(&std.detach(), &[], false, Dest::New)?)?.to_f64();
        ensure!(low >= 0.0, Runtime, "normal expects all elements of std >= 0.0");
    }
    Ok(())
}
/// Permutes rows at random: `x[randperm]`. Used by samplers in Rust.
///
/// # Errors
/// As [`indexing::index_select`].
pub fn shuffle_rows(x: &Tensor, generator: Option<&Generator>) -> Result<Tensor> {
    indexing::index_select(x, 0, &randperm(x.size(0)?, generator, None, Some(x.device()))?)
}
