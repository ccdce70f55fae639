//! Fourier transforms over one or several dimensions, as `torch.fft` has them.

use crate::apply::{apply1, Dest};
use crate::autograd::node::Vjp;
use crate::ops::{elementwise as e, factory, join, view};
use crate::primitive::*;
use crate::tensor::{Meta, Tensor};
use flambeau_core::*;

/// A transform over `dims`, of which the last is the real one of the kinds that have one.
#[derive(Clone, Debug)]
struct Transform {
    kind: Fft,
    dims: SmallVec<[usize; 4]>,
    scale: f64,
    /// Elements of the last dimension in real space (`FromReal`, `ToReal`).
    n: i64,
}

impl Primitive for Transform {
    fn name(&self) -> &'static str {
        match self.kind {
            Fft::Complex { .. } => "fft_c2c",
            Fft::FromReal => "fft_r2c",
            Fft::ToReal => "fft_c2r",
        }
    }
    fn infer(&self, x: &[&Meta], out: &mut Draft) -> Result<()> {
        let mut sizes = copy_dims(&x[0].sizes);
        let dtype = x[0].dtype;
        let last = self.dims[self.dims.len() - 1];
        let dtype = match self.kind {
            Fft::Complex { .. } => dtype,
            Fft::FromReal => {
                sizes[last] = self.n / 2 + 1;
                dtype.to_complex()
            }
            Fft::ToReal => {
                sizes[last] = self.n;
                dtype.to_real()
            }
        };
        // The transformed dimensions lie innermost, each group in the order of the input's memory.
        let mut order: SmallVec<[usize; 6]> = (0..sizes.len()).collect();
        order.sort_by_key(|d| (self.dims.contains(d), std::cmp::Reverse(x[0].strides[*d])));
        let mut strides: Dims = SmallVec::from_elem(1, sizes.len());
        let mut step = 1;
        for &d in order.iter().rev() {
            strides[d] = step;
            step *= sizes[d].max(1);
        }
        out.push_strided(sizes, strides, dtype);
        Ok(())
    }
    fn run(&self, on: &dyn Backend, x: &[Operand], out: &[Operand]) -> Result<()> {
        // The plan and its scratch are three complex numbers a point; kernels cannot say that there is no room for them.
        let points = self.dims.iter().map(|&d| x[0].sizes[d].max(out[0].sizes[d])).max().unwrap_or(0);
        if points > 1 << 26 && Vec::<u8>::new().try_reserve_exact(points as usize * 48).is_err() {
            bail!(OutOfMemory, "{}: can't allocate memory for a transform of {points} points", self.name());
        }
        on.fft(self.kind, &x[0], &self.dims, self.scale, &out[0])
    }
    fn vjp(&self, _: &Vjp, g: &[Option<Tensor>]) -> Result<Gradients> {
        let Some(g) = &g[0] else { return Ok(SmallVec::from_iter([None])) };
        let last = self.dims[self.dims.len() - 1] as i64;
        let gx = match self.kind {
            // The transform is symmetric, so its adjoint is the one with the other sign.
            Fft::Complex { inverse } => {
                apply1(Transform { kind: Fft::Complex { inverse: !inverse }, ..self.clone() }, &[g], Dest::New)?
            }
            // The real part of the adjoint, with nothing in the half of the spectrum that was not kept.
            Fft::FromReal => {
                let full = resize(g, &[last], &[self.n])?;
                view::real(&apply1(
                    Transform { kind: Fft::Complex { inverse: true }, ..self.clone() },
                    &[&full],
                    Dest::New,
                )?)?
            }
            // Frequencies that stand for themselves and their mirror image count twice.
            Fft::ToReal => {
                let half = apply1(Transform { kind: Fft::FromReal, ..self.clone() }, &[g], Dest::New)?;
                let size = half.size(last)?;
                let twice = factory::listed("irfft", size, |k| if k == 0 || 2 * k == self.n { 1.0 } else { 2.0 })?;
                let mut shape = vec![1; half.dim()];
                shape[last as usize] = size;
                let weight = crate::ops::device::to_device(&Tensor::from_slice(&twice, &shape)?, half.device())?;
                e::mul(&half, &e::to_dtype(&weight, half.dtype().to_real())?)?
            }
        };
        Ok(SmallVec::from_iter([Some(gx)]))
    }
    fn key(&self, key: &mut PlanKey) {
        let kind = match self.kind {
            Fft::Complex { inverse } => inverse as u64,
            Fft::FromReal => 2,
            Fft::ToReal => 3,
        };
        key.word(kind).word(self.scale.to_bits()).word(self.n as u64);
        key.word(self.dims.len() as u64);
        self.dims.iter().for_each(|d| {
            key.word(*d as u64);
        });
    }
    fn batch(&self, x: &[(Tensor, Option<usize>)], _: u32) -> Option<Result<SmallVec<[(Tensor, usize); 2]>>> {
        let (t, Some(b)) = &x[0] else { return None };
        let run = || {
            let t = view::movedim(t, &[*b as i64], &[0])?;
            let op = Transform { dims: self.dims.iter().map(|d| d + 1).collect(), ..self.clone() };
            Ok(SmallVec::from_iter([(apply1(op, &[&t], Dest::New)?, 0)]))
        };
        Some(run())
    }
    crate::shareable!();
}

/// Brings dimensions to sizes, by cutting off the end or by zeros after it.
fn resize(t: &Tensor, dims: &[i64], sizes: &[i64]) -> Result<Tensor> {
    let mut out = t.clone();
    let mut pad = vec![0i64; 2 * t.dim()];
    let mut padded = false;
    for (&d, &n) in dims.iter().zip(sizes) {
        let have = out.size(d)?;
        if n < have {
            out = view::narrow(&out, d, 0, n)?;
        } else if n > have {
            pad[2 * (t.dim() - 1 - d as usize) + 1] = n - have;
            padded = true;
        }
    }
    if padded {
        join::constant_pad_nd(&out, &pad, Number::Int(0))
    } else {
        Ok(out)
    }
}

/// What a normalisation mode multiplies a transform of `n` points with.
fn factor(norm: Option<&str>, forward: bool, n: f64) -> Result<f64> {
    match norm {
        None | Some("backward") => Ok(if forward { 1.0 } else { 1.0 / n }),
        Some("forward") => Ok(if forward { 1.0 / n } else { 1.0 }),
        Some("ortho") => Ok(1.0 / n.sqrt()),
        Some(other) => Err(err!(Runtime, "Invalid normalization mode: \"{other}\"")),
    }
}

/// The input in the dtype that is transformed: float32, float64 or complex.
fn promote(t: &Tensor, complex: bool) -> Result<Tensor> {
    let mut dtype = t.dtype();
    if dtype.is_integral(true) {
        dtype = crate::mode::default_dtype();
    }
    ensure!(!dtype.is_reduced(), Runtime, "Unsupported dtype {}", dtype.title());
    if complex {
        dtype = dtype.to_complex();
    }
    e::to_dtype(t, dtype)
}

fn points(n: i64) -> Result<i64> {
    ensure!(n >= 1, Runtime, "Invalid number of data points ({n}) specified");
    Ok(n)
}
fn wrap(dim: i64, t: &Tensor) -> Result<i64> {
    ensure!(t.dim() > 0, Index, "Dimension specified as {dim} but tensor has no dimensions");
    Ok(wrap_dim(dim, t.dim())? as i64)
}

fn transform(kind: Fft, t: &Tensor, dims: &[i64], n: i64, scale: f64) -> Result<Tensor> {
    if dims.is_empty() {
        return Ok(t.clone());
    }
    apply1(Transform { kind, dims: dims.iter().map(|d| *d as usize).collect(), scale, n }, &[t], Dest::New)
}

/// The one-dimensional transform: `forward` for `fft`, otherwise `ifft`.
///
/// # Errors
/// `Index` for a dimension out of range; `Runtime` for fewer than one point, an unknown norm, or a half dtype.
pub fn fft(t: &Tensor, n: Option<i64>, dim: i64, norm: Option<&str>, forward: bool) -> Result<Tensor> {
    let x = promote(t, true)?;
    let dim = wrap(dim, t)?;
    let n = points(match n {
        Some(n) => n,
        None => x.size(dim)?,
    })?;
    let x = resize(&x, &[dim], &[n])?;
    transform(Fft::Complex { inverse: !forward }, &x, &[dim], n, factor(norm, forward, n as f64)?)
}
/// Real values to half a spectrum: `rfft`, or (not `forward`) `ihfft`, its conjugate.
///
/// # Errors
/// As [`fft`], and `Runtime` for complex input.
pub fn rfft(name: &str, t: &Tensor, n: Option<i64>, dim: i64, norm: Option<&str>, forward: bool) -> Result<Tensor> {
    ensure!(!t.dtype().is_complex(), Runtime, "{name} expects a real input tensor, but got {}", t.dtype().title());
    let x = promote(t, false)?;
    let dim = wrap(dim, t)?;
    let n = points(match n {
        Some(n) => n,
        None => x.size(dim)?,
    })?;
    let x = resize(&x, &[dim], &[n])?;
    let y = transform(Fft::FromReal, &x, &[dim], n, factor(norm, forward, n as f64)?)?;
    if forward {
        Ok(y)
    } else {
        e::conj_physical(&y)
    }
}
/// Half a Hermitian spectrum to real values: `irfft`, or (`forward`) `hfft`.
///
/// # Errors
/// As [`fft`].
pub fn irfft(t: &Tensor, n: Option<i64>, dim: i64, norm: Option<&str>, forward: bool) -> Result<Tensor> {
    let x = promote(t, true)?;
    let dim = wrap(dim, t)?;
    let n = points(match n {
        Some(n) => n,
        None => 2 * (x.size(dim)? - 1),
    })?;
    let x = resize(&x, &[dim], &[n / 2 + 1])?;
    let x = if forward { e::conj_physical(&x)? } else { x };
    transform(Fft::ToReal, &x, &[dim], n, factor(norm, forward, n as f64)?)
}

/// Sizes and dimensions of a transform over several, with PyTorch's rules for the absent ones.
struct Several {
    dims: Vec<i64>,
    sizes: Vec<i64>,
}
fn several(t: &Tensor, s: Option<&[i64]>, dim: Option<&[i64]>) -> Result<Several> {
    let rank = t.dim();
    let dims: Vec<i64> = match (dim, s) {
        (Some(d), _) => {
            let dims: Vec<i64> = d.iter().map(|&d| wrap(d, t)).collect::<Result<_>>()?;
            for (i, d) in dims.iter().enumerate() {
                ensure!(!dims[..i].contains(d), Runtime, "FFT dims must be unique");
            }
            dims
        }
        (None, Some(s)) => {
            ensure!(
                s.len() <= rank,
                Runtime,
                "Got shape with {} values but input tensor only has {rank} dimensions.",
                s.len()
            );
            ((rank - s.len()) as i64..rank as i64).collect()
        }
        (None, None) => (0..rank as i64).collect(),
    };
    let sizes = match s {
        Some(s) => {
            ensure!(s.len() == dims.len(), Runtime, "When given, dim and shape arguments must have the same length");
            s.iter().zip(&dims).map(|(&n, &d)| if n == -1 { t.size(d) } else { Ok(n) }).collect::<Result<_>>()?
        }
        None => dims.iter().map(|&d| t.size(d)).collect::<Result<Vec<i64>>>()?,
    };
    for n in &sizes {
        points(*n)?;
    }
    Ok(Several { dims, sizes })
}
fn product(sizes: &[i64]) -> f64 {
    sizes.iter().map(|n| *n as f64).product()
}
fn sorted(dims: &[i64]) -> Vec<i64> {
    let mut dims = dims.to_vec();
    dims.sort_unstable();
    dims
}

/// `fftn`, or (not `forward`) `ifftn`.
///
/// # Errors
/// As [`fft`], and `Runtime` for repeated dimensions or sizes that do not match them.
pub fn fftn(t: &Tensor, s: Option<&[i64]>, dim: Option<&[i64]>, norm: Option<&str>, forward: bool) -> Result<Tensor> {
    let Several { dims, sizes } = several(t, s, dim)?;
    let x = promote(t, true)?;
    let x = resize(&x, &dims, &sizes)?;
    let scale = factor(norm, forward, product(&sizes))?;
    transform(Fft::Complex { inverse: !forward }, &x, &sorted(&dims), 0, scale)
}
/// `rfftn`.
///
/// # Errors
/// As [`fftn`], and `Runtime` for complex input or no dimension.
pub fn rfftn(t: &Tensor, s: Option<&[i64]>, dim: Option<&[i64]>, norm: Option<&str>) -> Result<Tensor> {
    ensure!(
        !t.dtype().is_complex(),
        Runtime,
        "rfftn expects a real-valued input tensor, but got {}",
        t.dtype().title()
    );
    let Several { dims, sizes } = several(t, s, dim)?;
    let x = promote(t, false)?;
    ensure!(!dims.is_empty(), Runtime, "rfftn must transform at least one axis");
    let x = resize(&x, &dims, &sizes)?;
    let scale = factor(norm, true, product(&sizes))?;
    transform(Fft::FromReal, &x, &dims, sizes[sizes.len() - 1], scale)
}
/// Sizes of a transform to real values: the last one is that of the real output.
fn to_real_sizes(name: &str, t: &Tensor, s: Option<&[i64]>, dim: Option<&[i64]>) -> Result<(Several, i64)> {
    let mut all = several(t, s, dim)?;
    let k = all.dims.len();
    ensure!(k > 0, Runtime, "{name} must transform at least one axis");
    let given = s.and_then(|s| s.last()).copied().filter(|n| *n != -1);
    let n = points(match given {
        Some(n) => n,
        None => 2 * (t.size(all.dims[k - 1])? - 1),
    })?;
    all.sizes[k - 1] = n / 2 + 1;
    Ok((all, n))
}
/// `irfftn`.
///
/// # Errors
/// As [`fftn`], and `Runtime` for no dimension.
pub fn irfftn(t: &Tensor, s: Option<&[i64]>, dim: Option<&[i64]>, norm: Option<&str>) -> Result<Tensor> {
    let (Several { dims, sizes }, n) = to_real_sizes("irfftn", t, s, dim)?;
    let x = promote(t, true)?;
    let x = resize(&x, &dims, &sizes)?;
    let scale = factor(norm, false, product(&sizes[..sizes.len() - 1]) * n as f64)?;
    transform(Fft::ToReal, &x, &dims, n, scale)
}
/// `hfftn`: a forward transform over all dimensions but the last, and the Hermitian one over that.
///
/// # Errors
/// As [`irfftn`].
pub fn hfftn(t: &Tensor, s: Option<&[i64]>, dim: Option<&[i64]>, norm: Option<&str>) -> Result<Tensor> {
    let (Several { dims, sizes }, n) = to_real_sizes("hfftn", t, s, dim)?;
    let x = promote(t, true)?;
    let x = resize(&x, &dims, &sizes)?;
    let scale = factor(norm, true, product(&sizes[..sizes.len() - 1]) * n as f64)?;
    // The forward transform of all dimensions is the conjugate of the inverse one of the conjugate.
    transform(Fft::ToReal, &e::conj_physical(&x)?, &dims, n, scale)
}
/// `ihfftn`.
///
/// # Errors
/// As [`rfftn`].
pub fn ihfftn(t: &Tensor, s: Option<&[i64]>, dim: Option<&[i64]>, norm: Option<&str>) -> Result<Tensor> {
    let Several { dims, sizes } = several(t, s, dim)?;
    ensure!(!dims.is_empty(), Runtime, "ihfftn must transform at least one axis");
    let scale = factor(norm, false, product(&sizes))?;
    ensure!(!t.dtype().is_complex(), Runtime, "Only supports floating-point dtypes, but found: {}", t.dtype().title());
    let x = resize(&promote(t, false)?, &dims, &sizes)?;
    e::conj_physical(&transform(Fft::FromReal, &x, &dims, sizes[sizes.len() - 1], scale)?)
}

/// Rolls the zero frequency to the middle of each dimension (all of them by default), or (`inverse`) back.
///
/// # Errors
/// `Index` for a dimension out of range.
pub fn fftshift(t: &Tensor, dim: Option<&[i64]>, inverse: bool) -> Result<Tensor> {
    let all: Vec<i64> = (0..t.dim() as i64).collect();
    let dims = dim.unwrap_or(&all);
    let shift = |&d: &i64| -> Result<i64> {
        let n = t.size(d)?;
        Ok(if inverse { (n + 1) / 2 } else { n / 2 })
    };
    let shifts = dims.iter().map(shift).collect::<Result<Vec<_>>>()?;
    if dims.is_empty() {
        return view::clone(t);
    }
    view::roll(t, &shifts, dims)
}
/// The frequencies of a transform of `n` points `d` apart; only those of `rfft` when `half`.
///
/// # Errors
/// `Runtime` for a negative size or an integer dtype.
pub fn frequencies(n: i64, d: f64, half: bool, dtype: DType, device: Device) -> Result<Tensor> {
    let name = if half { "rfftfreq" } else { "fftfreq" };
    ensure!(dtype.is_differentiable(), Runtime, "{name} requires a floating point or complex dtype");
    ensure!(!dtype.is_complex(), NotImplemented, "\"arange_cpu\" not implemented for '{}'", dtype.title());
    ensure!(n >= 0, Runtime, "Trying to create tensor with negative dimension {n}: [{n}]");
    let count = if half { n / 2 + 1 } else { n };
    let index = |i: i64| if half || i < n - n / 2 { i as f64 } else { (i - n) as f64 };
    let k = factory::listed(name, count, index)?;
    let k = e::to_dtype(&Tensor::from_slice(&k, &[count])?, dtype)?;
    crate::ops::device::to_device(&e::mul(&k, 1.0 / (n as f64 * d))?, device)
}
