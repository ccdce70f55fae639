//! Signatures of the Fourier transforms and what is made of them.

use flambeau::core::err;
use flambeau::mode::default_dtype;
use flambeau::ops::spectrogram::Frames;
use flambeau::{DType, Dest, Device, Result, Tensor};

/// Refuses an `out=` of the wrong kind, then writes.
fn into(name: &str, y: Tensor, dest: Dest<'_>) -> Result<Tensor> {
    let Dest::Out(&[out, ..]) = dest else { return Ok(y) };
    if y.dtype().is_complex() && !out.dtype().is_complex() {
        return Err(err!(Runtime, "{name} expects a complex output tensor, but got {}", out.dtype().title()));
    }
    if !y.dtype().is_complex() && !out.dtype().is_float() {
        return Err(err!(Runtime, "{name} expects a floating point output tensor, but got {}", out.dtype().title()));
    }
    flambeau::apply::write_out(out, &y)?;
    Ok(out.clone())
}

/// A transform of one dimension.
macro_rules! one {
    ($name:literal, |$x:ident, $n:ident, $d:ident, $norm:ident| $e:expr) => {
        |$x: &Tensor, $n: Option<i64>, $d: i64, $norm: Option<&str>, dest: Dest<'_>| into($name, $e?, dest)
    };
}
/// A transform of several dimensions.
macro_rules! many {
    ($name:literal, |$x:ident, $s:ident, $d:ident, $norm:ident| $e:expr) => {
        |$x: &Tensor, $s: Option<&[i64]>, $d: Option<&[i64]>, $norm: Option<&str>, dest: Dest<'_>| {
            into($name, $e?, dest)
        }
    };
}
/// A transform of two dimensions.
macro_rules! two {
    ($name:literal, |$x:ident, $s:ident, $d:ident, $norm:ident| $e:expr) => {
        |$x: &Tensor, $s: Option<&[i64]>, $d: &[i64], $norm: Option<&str>, dest: Dest<'_>| {
            let $d = Some($d);
            into($name, $e?, dest)
        }
    };
}
fn place(d: Option<Device>) -> Device {
    d.or_else(crate::types::default_device_if_set).unwrap_or(Device::Cpu)
}
#[allow(clippy::too_many_arguments)]
fn stft(
    input: &Tensor,
    n_fft: i64,
    hop_length: Option<i64>,
    win_length: Option<i64>,
    window: Option<&Tensor>,
    center: bool,
    pad_mode: &str,
    normalized: bool,
    onesided: Option<bool>,
    return_complex: Option<bool>,
    align_to_window: Option<bool>,
) -> Result<Tensor> {
    let frames = Frames { n_fft, hop_length, win_length, window, center, normalized, onesided };
    spectrogram::stft(input, &frames, pad_mode, return_complex, align_to_window)
}
#[allow(clippy::too_many_arguments)]
fn istft(
    input: &Tensor,
    n_fft: i64,
    hop_length: Option<i64>,
    win_length: Option<i64>,
    window: Option<&Tensor>,
    center: bool,
    normalized: bool,
    onesided: Option<bool>,
    length: Option<i64>,
    return_complex: bool,
) -> Result<Tensor> {
    let frames = Frames { n_fft, hop_length, win_length, window, center, normalized, onesided };
    spectrogram::istft(input, &frames, length, return_complex)
}
fn kind(dtype: Option<DType>) -> DType {
    dtype.unwrap_or_else(default_dtype)
}

operators! { FFT;
    "fft.fft(Tensor input, int? n=None, int dim=-1, str? norm=None)" [function out] => one!("fft", |x, n, d, norm| fft::fft(x, n, d, norm, true));
    "fft.ifft(Tensor input, int? n=None, int dim=-1, str? norm=None)" [function out] => one!("ifft", |x, n, d, norm| fft::fft(x, n, d, norm, false));
    "fft.rfft(Tensor input, int? n=None, int dim=-1, str? norm=None)" [function out] => one!("rfft", |x, n, d, norm| fft::rfft("rfft", x, n, d, norm, true));
    "fft.irfft(Tensor input, int? n=None, int dim=-1, str? norm=None)" [function out] => one!("irfft", |x, n, d, norm| fft::irfft(x, n, d, norm, false));
    "fft.hfft(Tensor input, int? n=None, int dim=-1, str? norm=None)" [function out] => one!("hfft", |x, n, d, norm| fft::irfft(x, n, d, norm, true));
    "fft.ihfft(Tensor input, int? n=None, int dim=-1, str? norm=None)" [function out] => one!("ihfft", |x, n, d, norm| fft::rfft("ihfft", x, n, d, norm, false));
    "fft.fftn(Tensor input, int[]? s=None, int[]? dim=None, str? norm=None)" [function out] => many!("fftn", |x, s, d, norm| fft::fftn(x, s, d, norm, true));
    "fft.ifftn(Tensor input, int[]? s=None, int[]? dim=None, str? norm=None)" [function out] => many!("ifftn", |x, s, d, norm| fft::fftn(x, s, d, norm, false));
    "fft.rfftn(Tensor input, int[]? s=None, int[]? dim=None, str? norm=None)" [function out] => many!("rfftn", |x, s, d, norm| fft::rfftn(x, s, d, norm));
    "fft.irfftn(Tensor input, int[]? s=None, int[]? dim=None, str? norm=None)" [function out] => many!("irfftn", |x, s, d, norm| fft::irfftn(x, s, d, norm));
    "fft.hfftn(Tensor input, int[]? s=None, int[]? dim=None, str? norm=None)" [function out] => many!("hfftn", |x, s, d, norm| fft::hfftn(x, s, d, norm));
    "fft.ihfftn(Tensor input, int[]? s=None, int[]? dim=None, str? norm=None)" [function out] => many!("ihfftn", |x, s, d, norm| fft::ihfftn(x, s, d, norm));
    "fft.fft2(Tensor input, int[]? s=None, int[] dim=[-2,-1], str? norm=None)" [function out] => two!("fftn", |x, s, d, norm| fft::fftn(x, s, d, norm, true));
    "fft.ifft2(Tensor input, int[]? s=None, int[] dim=[-2,-1], str? norm=None)" [function out] => two!("ifftn", |x, s, d, norm| fft::fftn(x, s, d, norm, false));
    "fft.rfft2(Tensor input, int[]? s=None, int[] dim=[-2,-1], str? norm=None)" [function out] => two!("rfftn", |x, s, d, norm| fft::rfftn(x, s, d, norm));
    "fft.irfft2(Tensor input, int[]? s=None, int[] dim=[-2,-1], str? norm=None)" [function out] => two!("irfftn", |x, s, d, norm| fft::irfftn(x, s, d, norm));
    "fft.hfft2(Tensor input, int[]? s=None, int[] dim=[-2,-1], str? norm=None)" [function out] => two!("hfftn", |x, s, d, norm| fft::hfftn(x, s, d, norm));
    "fft.ihfft2(Tensor input, int[]? s=None, int[] dim=[-2,-1], str? norm=None)" [function out] => two!("ihfftn", |x, s, d, norm| fft::ihfftn(x, s, d, norm));
    "fft.fftshift(Tensor input, int[]? dim=None)" [function] => |x: &Tensor, d: Option<&[i64]>| fft::fftshift(x, d, false);
    "fft.ifftshift(Tensor input, int[]? dim=None)" [function] => |x: &Tensor, d: Option<&[i64]>| fft::fftshift(x, d, true);
    "fft.fftfreq(int n, float d=1.0, *, dtype? dtype=None, device? device=None)" [function factory out] => |n: i64, d: f64, t: Option<DType>, v: Option<Device>| fft::frequencies(n, d, false, kind(t), place(v));
    "fft.rfftfreq(int n, float d=1.0, *, dtype? dtype=None, device? device=None)" [function factory out] => |n: i64, d: f64, t: Option<DType>, v: Option<Device>| fft::frequencies(n, d, true, kind(t), place(v));
    "stft(Tensor input, int n_fft, int? hop_length=None, int? win_length=None, Tensor? window=None, bool center=True, str pad_mode='reflect', bool normalized=False, bool? onesided=None, bool? return_complex=None, bool? align_to_window=None)" [function method] => stft;
    "istft(Tensor input, int n_fft, int? hop_length=None, int? win_length=None, Tensor? window=None, bool center=True, bool normalized=False, bool? onesided=None, int? length=None, bool return_complex=False)" [function method] => istft;
}
