//! Fourier transforms: lines along one dimension at a time, through rustfft and realfft.
//!
//! Lines are gathered into a buffer a few at a time, transformed there and written back, so that any stride costs one pass
//! over memory. Every line is transformed by itself: the bits do not depend on how lines are shared between threads.

use crate::pool;
use crate::tile::Space;
use flambeau_core::*;
use num_complex::Complex;
use parking_lot::Mutex;
use realfft::RealFftPlanner;
use rustfft::{FftDirection, FftNum, FftPlanner};
use std::sync::LazyLock;

/// Elements that a piece of work gathers at once.
const PIECE: usize = 16 * 1024;

/// A real type that can be transformed, with its plans (kept for the life of the process).
trait Real: FftNum + std::ops::MulAssign {
    fn narrow(x: f64) -> Self;
    fn plans() -> &'static Mutex<(FftPlanner<Self>, RealFftPlanner<Self>)>;
}
macro_rules! reals {
    ($($t:ty)*) => { $(
        impl Real for $t {
            fn narrow(x: f64) -> Self {
                x as $t
            }
            fn plans() -> &'static Mutex<(FftPlanner<Self>, RealFftPlanner<Self>)> {
                static PLANS: LazyLock<Mutex<(FftPlanner<$t>, RealFftPlanner<$t>)>> =
                    LazyLock::new(|| Mutex::new((FftPlanner::new(), RealFftPlanner::new())));
                &PLANS
            }
        }
    )* };
}
reals!(f32 f64);

/// The lines of two operands along one dimension.
struct Lines<'a> {
    x: &'a Operand<'a>,
    out: &'a Operand<'a>,
    dim: usize,
    space: Space,
    count: usize,
}
impl<'a> Lines<'a> {
    /// The lines in the order of the output's memory.
    fn new(x: &'a Operand<'a>, out: &'a Operand<'a>, dim: usize) -> Self {
        let mut order: SmallVec<[usize; 6]> = (0..x.sizes.len()).filter(|&d| d != dim).collect();
        order.sort_by_key(|&d| std::cmp::Reverse(out.strides[d]));
        let space = Space::new(x.sizes, &[x.strides, out.strides], &order, &[]);
        let count = order.iter().map(|&d| x.sizes[d] as usize).product();
        Lines { x, out, dim, space, count }
    }
    /// Calls `f(first element of x, first element of out)` for the lines `lo..hi`.
    fn each<A, B>(&self, lo: usize, hi: usize, mut f: impl FnMut(usize, *mut A, *mut B)) {
        for row in lo..hi {
            let a = (self.x.ptr as *mut A).wrapping_offset(self.space.offset(0, row));
            let b = (self.out.ptr as *mut B).wrapping_offset(self.space.offset(1, row));
            f(row - lo, a, b);
        }
    }
    /// Runs `work(lo, hi)` over fixed pieces of the lines.
    fn pieces(&self, n: usize, work: impl Fn(usize, usize) + Sync) {
        pool::chunks(self.count, (PIECE / n.max(1)).max(1), work);
    }
    fn strides(&self) -> (isize, isize) {
        (self.x.strides[self.dim] as isize, self.out.strides[self.dim] as isize)
    }
}

/// Copies elements `step` apart into contiguous memory: `to[k n + i] = from_k[i]`, element by element over all lines, so that
/// neighbouring lines share cache lines.
///
/// # Safety
/// Every `from` has `n` readable elements `step` apart.
unsafe fn gather<T: Copy>(from: &[*mut T], step: isize, n: usize, to: &mut [T]) {
    if step == 1 {
        for (k, f) in from.iter().enumerate() {
            to[k * n..(k + 1) * n].copy_from_slice(std::slice::from_raw_parts(*f, n));
        }
        return;
    }
    for i in 0..n {
        for (k, f) in from.iter().enumerate() {
            to[k * n + i] = *f.offset(i as isize * step);
        }
    }
}
/// The reverse of [`gather`], through `f`.
///
/// # Safety
/// Every `to` has `n` writable elements `step` apart.
unsafe fn scatter<T: Copy>(from: &[T], n: usize, to: &[*mut T], step: isize, f: impl Fn(T) -> T) {
    for i in 0..n {
        for (k, t) in to.iter().enumerate() {
            *t.offset(i as isize * step) = f(from[k * n + i]);
        }
    }
}

/// Complex lines of `x` (which may be `out` itself) into `out`.
fn complex<T: Real>(x: &Operand, out: &Operand, dim: usize, inverse: bool, scale: T) {
    let n = x.sizes[dim] as usize;
    let direction = if inverse { FftDirection::Inverse } else { FftDirection::Forward };
    let plan = T::plans().lock().0.plan_fft(n, direction);
    let lines = Lines::new(x, out, dim);
    let (sx, so) = lines.strides();
    lines.pieces(n, |lo, hi| {
        let mut buffer = vec![Complex::<T>::new(T::zero(), T::zero()); n * (hi - lo)];
        let mut scratch = vec![Complex::<T>::new(T::zero(), T::zero()); plan.get_inplace_scratch_len()];
        let (mut from, mut to) = (Vec::with_capacity(hi - lo), Vec::with_capacity(hi - lo));
        lines.each(lo, hi, |_, a: *mut Complex<T>, b: *mut Complex<T>| {
            from.push(a);
            to.push(b);
        });
        // SAFETY: each line has `n` elements `sx` apart in x and `so` apart in out; pieces hold different lines, and a line is
        // read before it is written.
        unsafe {
            gather(&from, sx, n, &mut buffer);
            plan.process_with_scratch(&mut buffer, &mut scratch);
            scatter(&buffer, n, &to, so, |v| v * scale);
        }
    });
}

/// Real lines to half spectra.
fn from_real<T: Real>(x: &Operand, out: &Operand, dim: usize, scale: T) {
    let (n, m) = (x.sizes[dim] as usize, out.sizes[dim] as usize);
    let plan = T::plans().lock().1.plan_fft_forward(n);
    let lines = Lines::new(x, out, dim);
    let (sx, so) = lines.strides();
    lines.pieces(n, |lo, hi| {
        let mut buffer = vec![T::zero(); n * (hi - lo)];
        let mut spectrum = vec![Complex::new(T::zero(), T::zero()); m * (hi - lo)];
        let mut scratch = plan.make_scratch_vec();
        let (mut from, mut to) = (Vec::with_capacity(hi - lo), Vec::with_capacity(hi - lo));
        lines.each(lo, hi, |_, a: *mut T, b: *mut Complex<T>| {
            from.push(a);
            to.push(b);
        });
        // SAFETY: each line has `n` real elements `sx` apart in x and `m` complex ones `so` apart in out; pieces hold different
        // lines.
        unsafe {
            gather(&from, sx, n, &mut buffer);
            for (a, b) in buffer.chunks_exact_mut(n).zip(spectrum.chunks_exact_mut(m)) {
                // Fails only for buffers of another length.
                let _ = plan.process_with_scratch(a, b, &mut scratch);
            }
            scatter(&spectrum, m, &to, so, |v| v * scale);
        }
    });
}

/// Half spectra to real lines.
fn to_real<T: Real>(x: &Operand, out: &Operand, dim: usize, scale: T) {
    let (m, n) = (x.sizes[dim] as usize, out.sizes[dim] as usize);
    let plan = T::plans().lock().1.plan_fft_inverse(n);
    let lines = Lines::new(x, out, dim);
    let (sx, so) = lines.strides();
    lines.pieces(n, |lo, hi| {
        let mut spectrum = vec![Complex::new(T::zero(), T::zero()); m * (hi - lo)];
        let mut buffer = vec![T::zero(); n * (hi - lo)];
        let mut scratch = plan.make_scratch_vec();
        let (mut from, mut to) = (Vec::with_capacity(hi - lo), Vec::with_capacity(hi - lo));
        lines.each(lo, hi, |_, a: *mut Complex<T>, b: *mut T| {
            from.push(a);
            to.push(b);
        });
        // SAFETY: each line has `m` complex elements `sx` apart in x and `n` real ones `so` apart in out; pieces hold different
        // lines.
        unsafe {
            gather(&from, sx, m, &mut spectrum);
            for (a, b) in spectrum.chunks_exact_mut(m).zip(buffer.chunks_exact_mut(n)) {
                // A Hermitian spectrum is real at frequency 0 and, for even n, at n / 2.
                a[0].im = T::zero();
                if n % 2 == 0 {
                    a[m - 1].im = T::zero();
                }
                // Fails only for buffers of another length.
                let _ = plan.process_with_scratch(a, b, &mut scratch);
            }
            scatter(&buffer, n, &to, so, |v| v * scale);
        }
    });
}

fn transform<T: Real>(kind: Fft, x: &Operand, dims: &[usize], scale: f64, out: &Operand) {
    let (one, scale) = (T::one(), T::narrow(scale));
    let Some((&last, others)) = dims.split_last() else { return };
    match kind {
        Fft::Complex { inverse } => {
            complex(x, out, last, inverse, if others.is_empty() { scale } else { one });
            for (k, &d) in others.iter().enumerate() {
                complex(out, out, d, inverse, if k + 1 == others.len() { scale } else { one });
            }
        }
        Fft::FromReal => {
            from_real(x, out, last, if others.is_empty() { scale } else { one });
            for (k, &d) in others.iter().enumerate() {
                complex(out, out, d, false, if k + 1 == others.len() { scale } else { one });
            }
        }
        Fft::ToReal if others.is_empty() => to_real(x, out, last, scale),
        Fft::ToReal => {
            let total = x.numel() as usize;
            let mut memory = vec![Complex::new(T::zero(), T::zero()); total];
            let strides = contiguous_strides(x.sizes);
            let between = Operand { ptr: memory.as_mut_ptr() as *mut u8, strides: &strides, ..*x };
            complex::<T>(x, &between, others[0], true, one);
            for &d in &others[1..] {
                complex(&between, &between, d, true, one);
            }
            to_real(&between, out, last, scale);
        }
    }
}

/// See [`Backend::fft`].
///
/// # Errors
/// `NotImplemented` for a dtype that is neither float32, float64 nor their complex counterpart.
pub fn fft(kind: Fft, x: &Operand, dims: &[usize], scale: f64, out: &Operand) -> Result<()> {
    if x.numel() == 0 || out.numel() == 0 {
        return Ok(());
    }
    match x.dtype.to_real() {
        DType::F32 => transform::<f32>(kind, x, dims, scale, out),
        DType::F64 => transform::<f64>(kind, x, dims, scale, out),
        other => bail!(NotImplemented, "\"fft\" not implemented for '{}'", other.title()),
    }
    Ok(())
}
