//! Window functions, as in "Harris, On the Use of Windows for Harmonic Analysis with the Discrete Fourier Transform" (1978).

use crate::ops::{device, elementwise as e, factory};
use crate::tensor::Tensor;
use flambeau_core::*;
use std::f64::consts::PI;

/// A window and its parameters.
#[derive(Clone, Copy, Debug)]
pub enum Window<'a> {
    Bartlett,
    Cosine,
    /// Center (the middle by default) and decay.
    Exponential(Option<f64>, f64),
    /// Standard deviation.
    Gaussian(f64),
    /// Coefficients of the cosines, with alternating signs.
    GeneralCosine(&'a [f64]),
    /// Shape parameter.
    Kaiser(f64),
}

/// The modified Bessel function of the first kind and order 0, by its power series: every term is positive.
fn i0(x: f64) -> f64 {
    let q = x * x / 4.0;
    let (mut term, mut sum, mut k) = (1.0, 1.0, 1.0);
    while term > sum * 1e-18 && f64::is_finite(sum) {
        term *= q / (k * k);
        sum += term;
        k += 1.0;
    }
    sum
}

/// A window of the namespace `signal.windows`, whose errors name the window.
///
/// # Errors
/// `Value` for a negative length, for a dtype other than float32 and float64, and for a parameter out of range.
pub fn signal(name: &str, kind: Window, n: i64, symmetric: bool, dtype: DType, place: Device) -> Result<Tensor> {
    ensure!(n >= 0, Value, "{name} requires non-negative window length, got M={n}");
    ensure!(matches!(dtype, DType::F32 | DType::F64), Value, "{name} expects float32 or float64 dtypes, got: {dtype}");
    window(kind, n, symmetric, dtype, place)
}

/// A window of `n` points; without `symmetric`, the first `n` of the symmetric window of `n + 1` points.
///
/// # Errors
/// `Runtime` for a negative length or a dtype that is not floating; `Value` for a parameter out of range.
pub fn window(kind: Window, n: i64, symmetric: bool, dtype: DType, place: Device) -> Result<Tensor> {
    ensure!(n >= 0, Runtime, "window requires non-negative window_length, got window_length={n}");
    ensure!(dtype.is_float(), Runtime, "window expects floating point dtypes, got: {}", dtype.name());
    match kind {
        Window::Exponential(center, tau) => {
            ensure!(tau > 0.0, Value, "Tau must be positive, got: {tau} instead.");
            ensure!(!(symmetric && center.is_some()), Value, "Center must be 'None' for symmetric windows");
        }
        Window::Gaussian(std) => ensure!(std > 0.0, Value, "Standard deviation must be positive, got: {std} instead."),
        Window::Kaiser(beta) => ensure!(beta >= 0.0, Value, "beta must be non-negative, got: {beta} instead."),
        Window::GeneralCosine(a) => ensure!(!a.is_empty(), Value, "Coefficients cannot be empty"),
        _ => {}
    }
    // The span of the symmetric window.
    let last = (if symmetric { n - 1 } else { n }) as f64;
    let value = |i: i64| -> f64 {
        let i = i as f64;
        if n == 1 {
            return 1.0;
        }
        match kind {
            Window::Bartlett => 1.0 - (2.0 * i / last - 1.0).abs(),
            Window::Cosine => (PI * (i + 0.5) / (last + 1.0)).sin(),
            Window::Exponential(center, tau) => (-(i - center.unwrap_or(last / 2.0)).abs() / tau).exp(),
            Window::Gaussian(std) => (-0.5 * ((i - last / 2.0) / std).powi(2)).exp(),
            Window::GeneralCosine(a) => {
                let sign = |k: usize| if k.is_multiple_of(2) { 1.0 } else { -1.0 };
                let term = |(k, a): (usize, &f64)| sign(k) * a * (2.0 * PI * k as f64 * i / last).cos();
                a.iter().enumerate().map(term).sum()
            }
            Window::Kaiser(beta) => {
                let r = 2.0 * i / last - 1.0;
                i0(beta * (1.0 - r * r).max(0.0).sqrt()) / i0(beta)
            }
        }
    };
    let values = factory::listed("window", n, value)?;
    device::to_device(&e::to_dtype(&Tensor::from_slice(&values, &[n])?, dtype)?, place)
}
