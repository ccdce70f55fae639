//! Flambeau's extension module `_flambeau`: the signature table, the binder, Tensor's slots, conversions. No mathematics.
//!
//! What is called at every operator is written against the raw C API (`raw`, `binder`, `tensor`, `slots`); what is cold is
//! ordinary PyO3.

#![allow(static_mut_refs)]

mod attributes;
mod autocast;
mod autograd;
mod binder;
mod call;
mod construct;
mod convert;
mod dlpack;
mod error;
mod indexing;
mod memory;
mod modules;
mod overrides;
mod print;
mod profile;
mod raw;
mod runtime;
mod signature;
#[macro_use]
mod signatures;
mod slots;
mod storage;
mod stub;
mod tensor;
mod types;

use pyo3::prelude::*;

#[global_allocator]
static MEMORY: memory::Caching = memory::Caching;

#[pymodule]
fn _flambeau(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add("__version__", env!("CARGO_PKG_VERSION"))?;
    error::register(m)?;
    types::register(m)?;
    tensor::register(m)?;
    overrides::register(m)?;
    convert::register(m)?;
    dlpack::register(m)?;
    autocast::register(m)?;
    autograd::register(m)?;
    runtime::register(m)?;
    storage::register(m)?;
    modules::register(m)?;
    print::register(m)?;
    profile::register(m)?;
    signatures::register(m)?;
    stub::register(m)
}
