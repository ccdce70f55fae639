//! `repr` of tensors.

use crate::convert;
use crate::error::*;
use crate::raw::*;
use crate::tensor::*;
use flambeau::Result;
use pyo3::prelude::*;

/// The text of a tensor.
///
/// # Safety
/// The interpreter is attached and `o` is a tensor.
pub unsafe fn repr(o: Obj) -> Obj {
    match text(o) {
        Ok(text) => str_object(&text),
        Err(e) => raise(e),
    }
}
unsafe fn text(o: Obj) -> Result<String> {
    let t = tensor_of(o);
    let values = Python::attach(|py| convert::to_list(py, t).map(|l| repr_of(l.as_ptr())))?;
    let grad = match t.grad_fn()? {
        Some(e) => format!(", grad_fn=<{}>", e.node.name()),
        None if t.requires_grad() => ", requires_grad=True".into(),
        None => String::new(),
    };
    Ok(format!("tensor({values}, dtype={}{grad})", t.dtype()))
}
