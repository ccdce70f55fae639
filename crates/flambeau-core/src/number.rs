//! A single number of any category: what Python's `bool`, `int`, `float` and `complex` become.

use crate::{bail, Category, Complex64, DType, Result};

/// A number that is not in a tensor. It is *weak* in promotion: it changes a tensor's category, never its width.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Number {
    Bool(bool),
    Int(i64),
    Float(f64),
    Complex(Complex64),
}

impl Number {
    /// The category it promotes to.
    pub fn category(self) -> Category {
        match self {
            Number::Bool(_) => Category::Bool,
            Number::Int(_) => Category::Integer,
            Number::Float(_) => Category::Float,
            Number::Complex(_) => Category::Complex,
        }
    }
    /// As a float; the real part of a complex number.
    pub fn to_f64(self) -> f64 {
        match self {
            Number::Bool(b) => b as u8 as f64,
            Number::Int(i) => i as f64,
            Number::Float(f) => f,
            Number::Complex(c) => c.re,
        }
    }
    /// As an integer, truncated towards zero.
    pub fn to_i64(self) -> i64 {
        match self {
            Number::Bool(b) => b as i64,
            Number::Int(i) => i,
            Number::Float(f) => f as i64,
            Number::Complex(c) => c.re as i64,
        }
    }
    /// As a complex number.
    pub fn to_complex(self) -> Complex64 {
        match self {
            Number::Complex(c) => c,
            other => Complex64::new(other.to_f64(), 0.0),
        }
    }
    /// Whether it is not zero (NaN counts as true).
    pub fn to_bool(self) -> bool {
        match self {
            Number::Bool(b) => b,
            Number::Int(i) => i != 0,
            Number::Float(f) => f != 0.0,
            Number::Complex(c) => c.re != 0.0 || c.im != 0.0,
        }
    }
    /// The dtype of a tensor made from this number alone, given the default float dtype.
    pub fn default_dtype(self, float: DType) -> DType {
        match self {
            Number::Bool(_) => DType::Bool,
            Number::Int(_) => DType::I64,
            Number::Float(_) => float,
            Number::Complex(_) => float.to_complex(),
        }
    }
    /// Whether the value can be stored in `dtype` at all. Negative integers may wrap around in unsigned dtypes.
    ///
    /// # Errors
    /// `Runtime`, as PyTorch words it, for a number outside the dtype's range.
    pub fn check_fits(self, dtype: DType) -> Result<()> {
        let fits = match (self, dtype.integer_range()) {
            _ if dtype == DType::Bool => true,
            (Number::Int(i), Some((lo, hi))) => i >= lo.min(-(hi as i128) as i64) && (i <= 0 || i as u64 <= hi),
            (Number::Float(f), Some((lo, hi))) => f >= lo as f64 && f <= hi as f64,
            (Number::Float(f), None) => {
                let largest = match dtype.to_real() {
                    DType::F16 => 65504.0,
                    DType::BF16 => f32::from_bits(0x7f7f_0000) as f64,
                    DType::F32 => f32::MAX as f64,
                    _ => f64::INFINITY,
                };
                !f.is_finite() || f.abs() <= largest
            }
            _ => true,
        };
        if !fits {
            bail!(Runtime, "value cannot be converted to type {} without overflow", dtype.name());
        }
        Ok(())
    }
}

impl From<bool> for Number {
    fn from(x: bool) -> Self {
        Number::Bool(x)
    }
}
impl From<i64> for Number {
    fn from(x: i64) -> Self {
        Number::Int(x)
    }
}
impl From<i32> for Number {
    fn from(x: i32) -> Self {
        Number::Int(x as i64)
    }
}
impl From<f64> for Number {
    fn from(x: f64) -> Self {
        Number::Float(x)
    }
}
impl From<f32> for Number {
    fn from(x: f32) -> Self {
        Number::Float(x as f64)
    }
}
impl From<Complex64> for Number {
    fn from(x: Complex64) -> Self {
        Number::Complex(x)
    }
}
