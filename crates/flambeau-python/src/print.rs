//! `repr` of tensors: the text comes from the core.

use crate::error::*;
use crate::raw::*;
use crate::tensor::*;

/// The text of a tensor.
///
/// # Safety
/// The interpreter is attached and `o` is a tensor.
pub unsafe fn repr(o: Obj) -> Obj {
    match flambeau::print::repr(tensor_of(o)) {
        Ok(text) => str_object(&text),
        Err(e) => raise(e),
    }
}
