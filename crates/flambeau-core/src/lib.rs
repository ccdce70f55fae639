//! Flambeau's vocabulary, without computation: data types, numbers, layouts, devices, storage, errors, the table of
//! scalar functions and the [`Backend`] trait that devices implement.
//!
//! Everything here is shared by the CPU backend, the CUDA backend and the tensor crate; nothing here knows what a
//! tensor or an operator is.

pub mod backend;
pub mod device;
pub mod dtype;
pub mod error;
pub mod layout;
pub mod number;
pub mod program;
pub mod scalar;
mod scalar_table;
pub mod storage;

pub use backend::*;
pub use device::Device;
pub use dtype::{promote_types, Category, Class, DType};
pub use error::{Error, ErrorKind, Result};
pub use layout::*;
pub use number::Number;
pub use program::{Input, Program, Step, StepOp};
pub use scalar::{DTypeRule, ScalarFn};
pub use storage::{Pending, Storage};

pub use half::{bf16, f16};
pub use num_complex::{Complex32, Complex64};
pub use smallvec::{smallvec, SmallVec};
