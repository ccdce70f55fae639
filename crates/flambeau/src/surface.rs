//! The tensor as Rust programs meet it: construction from slices, values back, operators on references.

use crate::apply::allocate;
use crate::autograd::{self, GradOptions};
use crate::ops::{device, elementwise};
use crate::tensor::Tensor;
use flambeau_core::*;

/// A Rust type that is a tensor element.
pub trait Element: Copy + 'static {
    /// Its dtype.
    const DTYPE: DType;
}
macro_rules! elements {
    ($($t:ty => $d:ident),* $(,)?) => { $(impl Element for $t { const DTYPE: DType = DType::$d; })* };
}
elements!(u8 => U8, i8 => I8, i16 => I16, i32 => I32, i64 => I64, u16 => U16, u32 => U32, u64 => U64, f16 => F16,
    bf16 => BF16, f32 => F32, f64 => F64, Complex32 => C64, Complex64 => C128, bool => Bool);

impl Tensor {
    /// A CPU tensor with a copy of `data`, row-major.
    ///
    /// # Errors
    /// `Runtime` when the sizes do not hold as many elements as `data`.
    pub fn from_slice<T: Element>(data: &[T], sizes: &[i64]) -> Result<Tensor> {
        check_sizes(sizes, T::DTYPE)?;
        ensure!(
            numel(sizes) as usize == data.len(),
            Runtime,
            "shape '{}' is invalid for input of size {}",
            Shape(sizes),
            data.len()
        );
        let storage = allocate(std::mem::size_of_val(data), Device::Cpu)?;
        // SAFETY: the storage is fresh, at least as large as `data`, and nobody else knows it yet.
        unsafe {
            std::ptr::copy_nonoverlapping(data.as_ptr() as *const u8, storage.ptr()?, std::mem::size_of_val(data))
        };
        Ok(Tensor::from_storage(storage, T::DTYPE, sizes, &contiguous_strides(sizes), 0))
    }
    /// The elements, row-major, converted to `T`.
    ///
    /// # Errors
    /// The failure of a pending computation, or a device error.
    pub fn to_vec<T: Element>(&self) -> Result<Vec<T>> {
        let t = device::to_cpu_contiguous(&elementwise::to_dtype(&self.detach(), T::DTYPE)?)?;
        let n = t.numel() as usize;
        let mut out: Vec<T> = Vec::with_capacity(n);
        let from = t.data_ptr()?;
        // SAFETY: `t` is contiguous with `n` elements of `T`'s dtype, and stays alive during the copy; every bit pattern that a
        // tensor of that dtype holds is a valid `T` (bools are stored as 0 and 1).
        unsafe {
            std::ptr::copy_nonoverlapping(from as *const T, out.as_mut_ptr(), n);
            out.set_len(n);
        }
        Ok(out)
    }
    /// The value of a one-element tensor.
    ///
    /// # Errors
    /// `Runtime` when there is not exactly one element.
    pub fn item(&self) -> Result<Number> {
        device::item(self)
    }
    /// Accumulates gradients of this one-element tensor into the leaves.
    ///
    /// # Errors
    /// See [`autograd::backward`].
    pub fn backward(&self) -> Result<()> {
        autograd::backward(std::slice::from_ref(self), &[None], GradOptions::default())
    }
}

macro_rules! operator {
    ($Trait:ident $method:ident $f:ident) => {
        impl std::ops::$Trait<&Tensor> for &Tensor {
            type Output = Result<Tensor>;
            fn $method(self, other: &Tensor) -> Result<Tensor> {
                elementwise::$f(self, other)
            }
        }
        impl std::ops::$Trait<f64> for &Tensor {
            type Output = Result<Tensor>;
            fn $method(self, other: f64) -> Result<Tensor> {
                elementwise::$f(self, other)
            }
        }
        impl std::ops::$Trait<&Tensor> for Result<Tensor> {
            type Output = Result<Tensor>;
            fn $method(self, other: &Tensor) -> Result<Tensor> {
                elementwise::$f(&self?, other)
            }
        }
        impl std::ops::$Trait<Tensor> for &Tensor {
            type Output = Result<Tensor>;
            fn $method(self, other: Tensor) -> Result<Tensor> {
                elementwise::$f(self, &other)
            }
        }
    };
}
operator!(Add add add);
operator!(Sub sub sub);
operator!(Mul mul mul);
operator!(Div div div);

impl std::ops::Neg for &Tensor {
    type Output = Result<Tensor>;
    fn neg(self) -> Result<Tensor> {
        elementwise::neg(self)
    }
}
