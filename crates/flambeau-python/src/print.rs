//! `repr` of tensors, and its options.

use crate::error::*;
use crate::raw::*;
use crate::tensor::*;
use flambeau::print::{options, set_options, PrintOptions};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

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

#[pyfunction]
#[pyo3(signature = (precision=None, threshold=None, edgeitems=None, linewidth=None, profile=None, sci_mode=None))]
fn set_printoptions(
    precision: Option<usize>,
    threshold: Option<f64>,
    edgeitems: Option<usize>,
    linewidth: Option<usize>,
    profile: Option<&str>,
    sci_mode: Option<bool>,
) -> PyResult<()> {
    let mut o = match profile {
        None => options(),
        Some("default") => PrintOptions::DEFAULT,
        Some("short") => PrintOptions { precision: 2, edgeitems: 2, ..PrintOptions::DEFAULT },
        Some("full") => PrintOptions { threshold: usize::MAX, ..PrintOptions::DEFAULT },
        Some(other) => return Err(PyValueError::new_err(format!("set_printoptions(): unknown profile '{other}'"))),
    };
    o.precision = precision.unwrap_or(o.precision);
    if let Some(t) = threshold {
        o.threshold = if t.is_finite() { t.max(0.0) as usize } else { usize::MAX };
    }
    o.edgeitems = edgeitems.unwrap_or(o.edgeitems);
    o.linewidth = linewidth.unwrap_or(o.linewidth);
    // As PyTorch: the mode is what this call says, none included.
    o.sci_mode = sci_mode;
    set_options(o);
    Ok(())
}

/// Adds the printing functions to the module.
pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_function(wrap_pyfunction!(set_printoptions, m)?)
}
