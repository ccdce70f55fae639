//! Tensors with dynamic autograd and PyTorch's semantics, on CPU and CUDA.
//!
//! ```
//! use flambeau::{Tensor, ops};
//! # fn main() -> flambeau::Result<()> {
//! let a = Tensor::from_slice(&[1.0f32, 2.0, 3.0], &[3])?;
//! a.set_requires_grad(true)?;
//! let loss = ops::reduction::sum(&(&a * &a)?, &[], false)?;
//! loss.backward()?;
//! assert_eq!(a.grad().unwrap().to_vec::<f32>()?, [2.0, 4.0, 6.0]);
//! # Ok(())
//! # }
//! ```
//!
//! Operators are in [`ops`]; every one of them runs through [`apply::apply`]. Bad input is an [`Error`], never a panic.

pub mod apply;
pub mod autograd;
pub mod batch;
pub mod graph;
pub mod io;
pub mod mode;
pub mod ops;
pub mod optim;
pub mod primitive;
pub mod print;
pub mod profile;
pub mod random;
mod surface;
pub mod tensor;

pub use apply::{apply, apply1, Dest, Outputs};
pub use flambeau_core::{DType, Device, Error, ErrorKind, MemoryFormat, Number, Result};
pub use primitive::{Draft, Effect, Gradients, Mask, PlanKey, Primitive};
pub use surface::Element;
pub use tensor::{Tensor, Value};

/// The vocabulary crate: dtypes, layouts, backends.
pub use flambeau_core as core;
/// The CPU backend: thread count, memory statistics.
pub use flambeau_cpu as cpu;
/// The CUDA backend: devices, libraries.
pub use flambeau_cuda as cuda;
