//! The short-time Fourier transform and its inverse.

use crate::ops::{elementwise as e, factory, fft, indexing, join, reduction, view};
use crate::tensor::Tensor;
use flambeau_core::*;
use std::fmt::Write;

/// The arguments that both directions share.
#[derive(Clone, Copy, Debug)]
pub struct Frames<'a> {
    pub n_fft: i64,
    /// Points from one frame to the next; a quarter of `n_fft` by default.
    pub hop_length: Option<i64>,
    /// Points of the window; `n_fft` by default.
    pub win_length: Option<i64>,
    pub window: Option<&'a Tensor>,
    pub center: bool,
    pub normalized: bool,
    pub onesided: Option<bool>,
}

impl Frames<'_> {
    fn hop(&self) -> i64 {
        self.hop_length.unwrap_or(self.n_fft / 4)
    }
    fn length(&self) -> i64 {
        self.win_length.unwrap_or(self.n_fft)
    }
    /// The window, or ones, with zeros on both sides up to `n_fft` points.
    fn padded_window(&self, dtype: DType, device: Device) -> Result<Option<Tensor>> {
        let (n, length) = (self.n_fft, self.length());
        let window = match self.window {
            Some(w) => w.clone(),
            None if length == n => return Ok(None),
            None => factory::ones(&[length], dtype, device)?,
        };
        if length == n {
            return Ok(Some(window));
        }
        let left = (n - length) / 2;
        join::constant_pad_nd(&window, &[left, n - length - left], Number::Int(0)).map(Some)
    }
    fn describe(&self, call: &str) -> String {
        let mut text =
            format!("{call}, n_fft={}, hop_length={}, win_length={}, window=", self.n_fft, self.hop(), self.length());
        let _ = match self.window {
            Some(w) => write!(text, "torch.{}Tensor{{{}}}", w.dtype().title(), Shape(&w.sizes())),
            None => write!(text, "None"),
        };
        text
    }
}
fn or_none(x: Option<bool>) -> String {
    x.map_or("None".into(), |b| (b as i32).to_string())
}

/// Pads the last dimension by `pad` points on both sides.
fn pad_ends(t: &Tensor, pad: i64, mode: &str) -> Result<Tensor> {
    let rank = t.dim().max(1);
    let n = if t.dim() == 0 { 1 } else { t.size(-1)? };
    if mode == "constant" {
        return join::constant_pad_nd(t, &[pad, pad], Number::Int(0));
    }
    let at = |i: i64| -> i64 {
        match mode {
            "reflect" if i < 0 => -i,
            "reflect" if i >= n => 2 * (n - 1) - i,
            "circular" => i.rem_euclid(n.max(1)),
            _ => i.clamp(0, n - 1),
        }
    };
    ensure!(matches!(mode, "reflect" | "replicate" | "circular"), NotImplemented, "Unrecognised padding mode {mode}");
    // PyTorch pads with the signal lifted to three dimensions and says so.
    let mut lifted = vec![1; 3usize.saturating_sub(t.dim())];
    lifted.extend_from_slice(&t.sizes());
    ensure!(
        mode != "reflect" || pad < n,
        Runtime,
        "Argument #4: Padding size should be less than the corresponding input dimension, but got: padding ({pad}, {pad}) at \
         dimension {} of input {}",
        lifted.len() - 1,
        Shape(&lifted)
    );
    ensure!(mode != "circular" || pad <= n, Runtime, "Padding value causes wrapping around more than once.");
    let index: Vec<i64> = (-pad..n + pad).map(at).collect();
    let index = crate::ops::device::to_device(&Tensor::from_slice(&index, &[n + 2 * pad])?, t.device())?;
    let padded = indexing::index_select(t, rank as i64 - 1, &index)?;
    match mode {
        "circular" => Ok(padded),
        _ => crate::autograd::node::formally_reads(padded, &[t], "reflection_pad"),
    }
}

/// Spectra of overlapping windows of a signal (or of each of a batch): (batch, frequencies, frames).
///
/// # Errors
/// `Runtime` for a signal that is not one- or two-dimensional, arguments out of range, a window of another size, or one-sided
/// output of complex values.
pub fn stft(
    input: &Tensor,
    frames: &Frames,
    pad_mode: &str,
    return_complex: Option<bool>,
    align_to_window: Option<bool>,
) -> Result<Tensor> {
    ensure!(
        !(frames.center && align_to_window.is_some()),
        Runtime,
        "stft align_to_window should only be set when center = false"
    );
    let signal = if frames.center { pad_ends(input, frames.n_fft / 2, pad_mode)? } else { input.clone() };
    let (n_fft, hop, length) = (frames.n_fft, frames.hop(), frames.length());
    let call = || {
        let flag = |b: bool| b as i32;
        format!(
            "{}, normalized={}, onesided={}, return_complex={}, align_to_window={}) ",
            frames.describe(&format!("stft(torch.{}Tensor{}", signal.dtype().title(), Shape(&signal.sizes()))),
            flag(frames.normalized),
            or_none(frames.onesided),
            or_none(return_complex),
            or_none(align_to_window)
        )
    };
    let complex_window = frames.window.is_some_and(|w| w.dtype().is_complex());
    let complex = signal.dtype().is_complex() || complex_window;
    ensure!(
        return_complex.is_some() || complex,
        Runtime,
        "stft requires the return_complex parameter be given for real inputs, and will further require that \
         return_complex=True in a future PyTorch release."
    );
    ensure!(
        signal.dtype().is_differentiable(),
        Runtime,
        "{}: expected a tensor of floating point or complex values",
        call()
    );
    ensure!((1..=2).contains(&signal.dim()), Runtime, "{}: expected a 1D or 2D tensor", call());
    let batched = signal.dim() == 2;
    let mut x = if batched { signal.clone() } else { view::unsqueeze(&signal, 0)? };
    let mut len = x.size(1)?;
    ensure!(n_fft > 0 && n_fft <= len, Runtime, "{}: expected 0 < n_fft < {len}, but got n_fft={n_fft}", call());
    ensure!(hop > 0, Runtime, "{}: expected hop_length > 0, but got hop_length={hop}", call());
    ensure!(
        length > 0 && length <= n_fft,
        Runtime,
        "{}: expected 0 < win_length <= n_fft, but got win_length={length}",
        call()
    );
    if let Some(w) = frames.window {
        ensure!(
            w.dim() == 1 && w.numel() == length,
            Runtime,
            "{}: expected a 1D window tensor of size equal to win_length={length}, but got window with size {}",
            call(),
            Shape(&w.sizes())
        );
    }
    if align_to_window == Some(true) && length < n_fft {
        let left = (n_fft - length) / 2;
        x = join::constant_pad_nd(&x, &[left, n_fft - length - left], Number::Int(0))?;
        len += n_fft - length;
    }
    let _ = len;
    let onesided = frames.onesided.unwrap_or(!complex);
    ensure!(!(onesided && complex), Runtime, "Cannot have onesided output if window or input is complex");
    let mut pieces = view::unfold(&x, 1, n_fft, hop)?;
    if let Some(w) = frames.padded_window(x.dtype(), x.device())? {
        pieces = e::mul(&pieces, &w)?;
    }
    ensure!(
        !pieces.dtype().is_reduced(),
        Runtime,
        "MKL FFT doesn't support tensors of type: {}",
        pieces.dtype().title()
    );
    let norm = if frames.normalized { Some("ortho") } else { None };
    let spectra = if onesided {
        fft::rfft("stft", &pieces, None, -1, norm, true)?
    } else {
        fft::fft(&pieces, None, -1, norm, true)?
    };
    let mut out = view::transpose(&spectra, 1, 2)?;
    if !batched {
        out = view::select(&out, 0, 0)?;
    }
    if return_complex.unwrap_or(complex) {
        Ok(out)
    } else {
        view::view_as_real(&out)
    }
}

/// The signal of which `input` is the short-time transform: frames are added up and divided by the windows' squares (Griffin &
/// Lim, 1984).
///
/// # Errors
/// `Runtime` for input that is not complex, sizes that do not fit, or windows whose squares add up to zero somewhere.
pub fn istft(input: &Tensor, frames: &Frames, length: Option<i64>, return_complex: bool) -> Result<Tensor> {
    let (n_fft, hop, win) = (frames.n_fft, frames.hop(), frames.length());
    let call = || {
        format!(
            "{}, center={}, normalized={}, onesided={}, length={}, return_complex={}) ",
            frames.describe(&format!("istft(CPU{}Type{}", input.dtype().title(), Shape(&input.sizes()))),
            frames.center as i32,
            frames.normalized as i32,
            or_none(frames.onesided),
            length.map_or("None".into(), |n| n.to_string()),
            return_complex as i32
        )
    };
    ensure!(
        input.dtype().is_complex(),
        Runtime,
        "istft requires a complex-valued input tensor matching the output from stft with return_complex=True."
    );
    // PyTorch counts the real and imaginary parts as a dimension.
    let rank = input.dim() + 1;
    ensure!(input.numel() != 0, Runtime, "{}: input tensor cannot be empty.", call());
    ensure!(rank == 3 || rank == 4, Runtime, "{}: expected a tensor with 3 or 4 dimensions, but got {rank}", call());
    let (size, count) = (input.size(-2)?, input.size(-1)?);
    let onesided = frames.onesided.unwrap_or(size != n_fft);
    if onesided {
        ensure!(
            n_fft / 2 + 1 == size,
            Runtime,
            "{}: expected the frequency dimension (3rd to the last) of the input tensor to match n_fft / 2 + 1 when \
             onesided=True, but got {size}",
            call()
        );
    } else {
        ensure!(
            n_fft == size,
            Runtime,
            "{}: expected the frequency dimension (3rd to the last) of the input tensor to match n_fft when onesided=False, \
             but got {size}",
            call()
        );
    }
    ensure!(hop > 0 && hop <= win, Runtime, "{}: expected 0 < hop_length <= win_length", call());
    ensure!(win > 0 && win <= n_fft, Runtime, "{}: expected 0 < win_length <= n_fft", call());
    if let Some(w) = frames.window {
        ensure!(
            w.dim() == 1 && w.numel() == win,
            Runtime,
            "{}: Invalid window shape. window has to be 1D and length of `win_length`",
            call()
        );
        ensure!(
            return_complex || !w.dtype().is_complex(),
            Runtime,
            "Complex windows are incompatible with return_complex=False"
        );
    }
    let real = input.dtype().to_real();
    let window = match frames.padded_window(real, input.device())? {
        Some(w) => w,
        None => factory::ones(&[n_fft], real, input.device())?,
    };
    let batched = rank == 4;
    let x = if batched { input.clone() } else { view::unsqueeze(input, 0)? };
    let x = view::transpose(&x, 1, 2)?;
    let norm = if frames.normalized { Some("ortho") } else { None };
    let pieces = if return_complex {
        ensure!(!onesided, Runtime, "Cannot have onesided output if window or input is complex");
        fft::fft(&x, None, -1, norm, false)?
    } else {
        let half = if onesided { x } else { view::narrow(&x, 2, 0, n_fft / 2 + 1)? };
        fft::irfft(&half, Some(n_fft), -1, norm, false)?
    };
    let pieces = e::mul(&pieces, &view::view(&window, &[1, 1, n_fft])?)?;
    // Every point of every frame is added where it belongs.
    let expected = n_fft + hop * (count - 1);
    let places: Vec<i64> = (0..count).flat_map(|f| (0..n_fft).map(move |i| f * hop + i)).collect();
    let places = crate::ops::device::to_device(&Tensor::from_slice(&places, &[count * n_fft])?, input.device())?;
    let overlap = |t: &Tensor, rows: i64| -> Result<Tensor> {
        let zeros = factory::zeros(&[rows, expected], t.dtype(), t.device())?;
        indexing::index_add(&zeros, 1, &places, &view::reshape(t, &[rows, -1])?)
    };
    let signal = overlap(&pieces, pieces.size(0)?)?;
    let squares = view::expand(&view::view(&e::square(&window)?, &[1, 1, n_fft])?, &[1, count, n_fft])?;
    let envelope = overlap(&squares, 1)?;
    let start = if frames.center { n_fft / 2 } else { 0 };
    let end = match length {
        Some(n) => start + n,
        None if frames.center => expected - n_fft / 2,
        None => expected,
    };
    let cut = |t: &Tensor| view::slice(t, 1, start, end.min(expected), 1);
    let (signal, envelope) = (cut(&signal)?, cut(&envelope)?);
    ensure!(
        envelope.numel() > 0,
        Runtime,
        "min(): Expected reduction dim to be specified for input.numel() == 0. Specify the reduction dim with the 'dim' argument."
    );
    let least = reduction::min_all(&e::abs(&envelope.detach())?)?.item()?.to_f64();
    ensure!(least > 1e-11, Runtime, "{}window overlap add min: 1\n[ CPUBoolType{{}} ]", call());
    let mut out = e::div(&signal, &envelope)?;
    if !batched {
        out = view::select(&out, 0, 0)?;
    }
    if end > expected {
        out = join::constant_pad_nd(&out, &[0, end - expected], Number::Int(0))?;
    }
    Ok(out)
}
