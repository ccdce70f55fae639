//! Dropout (Srivastava et al. 2014): elements, or whole channels, set to zero at random.

use crate::apply::Dest;
use crate::ops::{elementwise as e, factory, random};
use crate::tensor::Tensor;
use flambeau_core::*;

/// What one random number decides about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Each element by itself.
    Element,
    /// All of a channel: one number for each of the first two dimensions.
    Channel,
}

fn checked(p: f64) -> Result<()> {
    ensure!((0.0..=1.0).contains(&p), Runtime, "dropout probability has to be between 0 and 1, but got {p}");
    Ok(())
}
/// Ones with probability `1 - p`, in the shape that broadcasts over `x`.
fn noise(x: &Tensor, p: f64, unit: Unit) -> Result<Tensor> {
    let fresh = match unit {
        Unit::Element => random::empty_like(x)?,
        Unit::Channel => {
            let sizes = x.sizes();
            ensure!(
                sizes.len() >= 2,
                Runtime,
                "Feature dropout requires at least 2 dimensions in the input, got {}",
                Shape(&sizes)
            );
            let mut shape: Dims = SmallVec::from_elem(1, sizes.len());
            shape[..2].copy_from_slice(&sizes[..2]);
            crate::batch::random_empty(&shape, &contiguous_strides(&shape), x.dtype(), x.device())?
        }
    };
    random::bernoulli_(&fresh, 1.0 - p, None)
}
fn multiply(x: &Tensor, noise: &Tensor, inplace: bool) -> Result<Tensor> {
    e::binary(ScalarFn::Mul, x, noise, if inplace { Dest::Inplace(x) } else { Dest::New })
}

/// In training, zeroes with probability `p` and scales what stays by `1 / (1 - p)`.
///
/// # Errors
/// `Value` for a probability outside 0..=1; `Runtime` for inputs without channels where these are dropped.
pub fn apply_dropout(x: &Tensor, p: f64, training: bool, inplace: bool, unit: Unit) -> Result<Tensor> {
    checked(p)?;
    if !training || p == 0.0 || x.numel() == 0 {
        return Ok(x.clone());
    }
    if p == 1.0 {
        let zeros = factory::zeros(&[], x.dtype(), x.device())?;
        return multiply(x, &zeros, inplace);
    }
    let noise = noise(x, p, unit)?;
    multiply(x, &e::binary(ScalarFn::Div, &noise, 1.0 - p, Dest::Inplace(&noise))?, inplace)
}
/// [`apply_dropout`] of elements, as a new tensor.
///
/// # Errors
/// As [`apply_dropout`].
pub fn dropout(x: &Tensor, p: f64, training: bool) -> Result<Tensor> {
    apply_dropout(x, p, training, false, Unit::Element)
}

/// What is left of `x` after dropout, and which elements that are. Unless `train` is false.
///
/// # Errors
/// `Runtime` for a probability outside 0..=1, and for integers in training.
pub fn native_dropout(x: &Tensor, p: f64, train: Option<bool>) -> Result<(Tensor, Tensor)> {
    if x.numel() == 0 {
        return Ok((x.clone(), factory::empty_like(&x.detach())?));
    }
    let ones = factory::ones_like(&e::to_dtype(&x.detach(), DType::Bool)?)?;
    if train == Some(false) {
        return Ok((crate::ops::view::clone(x)?, ones));
    }
    let kept = random::bernoulli_(&ones, 1.0 - p, None)?;
    let scale = if p == 1.0 { 0.0 } else { 1.0 / (1.0 - p) };
    ensure!(
        x.dtype().is_differentiable(),
        Runtime,
        "result type Float can't be cast to the desired output type {}",
        x.dtype().title()
    );
    Ok((e::mul(&e::mul(x, &kept)?, scale)?, kept))
}

/// Dropout that keeps mean and variance of what SELU puts out (Klambauer et al. 2017): dropped elements become SELU's
/// lower limit, and an affine map restores the moments.
///
/// # Errors
/// As [`apply_dropout`].
pub fn alpha_dropout(x: &Tensor, p: f64, training: bool, inplace: bool, unit: Unit) -> Result<Tensor> {
    // scale · alpha of SELU.
    const LIMIT: f64 = 1.7580993408473766;
    checked(p)?;
    if !training || p == 0.0 || x.numel() == 0 {
        return Ok(x.clone());
    }
    if p == 1.0 {
        return apply_dropout(x, p, training, inplace, unit);
    }
    let noise = noise(x, p, unit)?;
    let a = 1.0 / ((LIMIT * LIMIT * p + 1.0) * (1.0 - p)).sqrt();
    let shift = e::add(&e::mul(&e::add(&noise, -1.0)?, LIMIT * a)?, LIMIT * a * p)?;
    let y = multiply(x, &e::mul(&noise, a)?, inplace)?;
    e::binary(ScalarFn::Add, &y, &shift, if inplace { Dest::Inplace(&y) } else { Dest::New })
}
