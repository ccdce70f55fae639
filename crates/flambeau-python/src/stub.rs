//! The stub file's text, made from the table: `python/flambeau/_flambeau.pyi` is checked in, and a test compares it.

use crate::binder;
use crate::signature::{self, Default, Param, Type};
use crate::signatures::{self, Form, Row};
use pyo3::prelude::*;
use std::collections::BTreeMap;
use std::fmt::Write;

fn annotation(p: &Param) -> String {
    let base = match p.ty {
        Type::Tensor => "Tensor",
        Type::TensorOrNumber => "Tensor | Number",
        Type::Number => "Number",
        Type::Int => "_int",
        Type::Float => "_float",
        Type::Bool => "_bool",
        Type::Ints => "_int | Sequence[_int]",
        Type::Floats => "_float | Sequence[_float]",
        Type::Bools => "Sequence[_bool]",
        Type::Tensors => "Sequence[Tensor]",
        Type::OptionalTensors => "Sequence[Tensor | None]",
        Type::Str => "str",
        Type::DType => "_dtype",
        Type::Device => "_device | str | _int",
        Type::Layout => "_layout",
        Type::MemoryFormat => "_memory_format",
        Type::Generator => "Generator",
        Type::Object if p.name == "out" => "Tensor | tuple[Tensor, ...]",
        _ => "Any",
    };
    if p.optional && base != "Any" {
        format!("{base} | None")
    } else {
        base.into()
    }
}

/// A parameter's name where Python's grammar allows it: some of PyTorch's are keywords.
pub fn identifier(name: &str) -> String {
    if matches!(name, "from" | "in" | "is" | "lambda" | "class" | "def" | "global" | "None" | "True" | "False") {
        format!("{name}_")
    } else {
        name.to_string()
    }
}

fn parameters(row: &'static Row, method: bool, inplace: bool) -> String {
    let extra = crate::signatures::extra_parameters(row, inplace);
    // SAFETY: called from Python, attached.
    let s = unsafe { signature::parse(row.text, extra) };
    let mut parts: Vec<String> = Vec::new();
    let mut defaults_begun = false;
    for (i, p) in s.params.iter().enumerate() {
        if method && i == 0 {
            parts.push("self".into());
            continue;
        }
        if i == s.positional {
            parts.push("*".into());
            defaults_begun = false;
        }
        if p.collects && p.variadic && i + 1 >= s.positional {
            parts.push(format!("*{}: Any", p.name));
            // What follows can only be given by name.
            for p in &s.params[i + 1..] {
                let value = if p.default == Default::Required { "" } else { " = ..." };
                parts.push(format!("{}: {}{value}", p.name, annotation(p)));
            }
            break;
        }
        defaults_begun |= p.default != Default::Required;
        let value = if defaults_begun && p.default != Default::Required { " = ..." } else { "" };
        parts.push(format!("{}: {}{value}", identifier(p.name), annotation(p)));
    }
    parts.join(", ")
}

/// A result type, under the names that no method hides.
fn result(row: &'static Row) -> &'static str {
    match row.stub {
        "int" => "_int",
        "float" => "_float",
        "bool" => "_bool",
        "dtype" => "_dtype",
        "device" => "_device",
        other => other,
    }
}

/// The text of the stub file.
#[pyfunction]
fn _stub_text() -> String {
    let mut functions: BTreeMap<&'static str, Vec<&'static Row>> = BTreeMap::new();
    let mut namespaces: BTreeMap<(&'static str, &'static str), Vec<&'static Row>> = BTreeMap::new();
    let mut methods: BTreeMap<String, Vec<(&'static Row, bool)>> = BTreeMap::new();
    let mut properties: BTreeMap<&'static str, &'static Row> = BTreeMap::new();
    signatures::rows(|row| {
        let path = signatures::path_of(row);
        for name in std::iter::once(path).chain(signatures::aliases(row)) {
            if binder::has(row, Form::Function) {
                match name.rsplit_once('.') {
                    None => functions.entry(name).or_default().push(row),
                    Some(place) => namespaces.entry(place).or_default().push(row),
                }
            }
            let last = name.rsplit('.').next().unwrap_or(name);
            if binder::has(row, Form::Method) {
                methods.entry(last.into()).or_default().push((row, false));
            }
            if binder::has(row, Form::Inplace) {
                methods.entry(format!("{last}_")).or_default().push((row, true));
            }
            if binder::has(row, Form::Property) {
                properties.insert(last, row);
            }
        }
    });
    let mut out = String::from(
        "# Written from the signature table by `flambeau._flambeau._stub_text()`; do not edit.\n\
         from collections.abc import Callable, Sequence\n\
         from typing import Any, TypeAlias, overload\n\n\
         _int: TypeAlias = int\n_float: TypeAlias = float\n_bool: TypeAlias = bool\n\
         Number: TypeAlias = _int | _float | _bool | complex\n\n\
         operators: dict[str, Callable[..., Any]]\n\
         def __getattr__(name: str) -> Any: ...\n\n\
         class dtype:\n    itemsize: _int\n    is_floating_point: _bool\n    is_complex: _bool\n    is_signed: _bool\n\
         \x20   def to_real(self) -> dtype: ...\n    def to_complex(self) -> dtype: ...\n\n\
         class device:\n    type: str\n    index: _int | None\n    def __init__(self, type: Any, index: _int | None = ...) -> None: ...\n\
         \x20   def __enter__(self) -> device: ...\n    def __exit__(self, *exc: Any) -> None: ...\n\n\
         class layout: ...\n\nclass memory_format: ...\n\n\
         class Size(tuple[_int, ...]):\n    def numel(self) -> _int: ...\n\n\
         class Generator:\n    device: Any\n    def __init__(self, device: Any = ...) -> None: ...\n\
         \x20   def manual_seed(self, seed: _int) -> Generator: ...\n    def initial_seed(self) -> _int: ...\n\
         \x20   def seed(self) -> _int: ...\n    def get_state(self) -> Tensor: ...\n    def set_state(self, new_state: Tensor) -> Generator: ...\n\n\
         _dtype: TypeAlias = dtype\n_device: TypeAlias = device\n_layout: TypeAlias = layout\n_memory_format: TypeAlias = memory_format\n\n\
         class OutOfMemoryError(RuntimeError): ...\nclass LinAlgError(RuntimeError): ...\n\n",
    );
    for &d in flambeau::DType::ALL {
        let _ = writeln!(out, "{}: dtype", d.name());
    }
    out.push_str("\nclass Tensor:\n    def __init__(self, *args: Any, **kwargs: Any) -> None: ...\n");
    for (name, _) in crate::attributes::NAMES {
        let ty = match *name {
            "shape" => "Size",
            "dtype" => "_dtype",
            "device" => "_device",
            "layout" => "_layout",
            "data" => "Tensor",
            "grad" | "_grad" | "_base" => "Tensor | None",
            "ndim" | "itemsize" | "nbytes" | "output_nr" | "_version" => "_int",
            n if n.starts_with("is_") || n == "requires_grad" || n == "retains_grad" => "_bool",
            _ => "Any",
        };
        let _ = writeln!(out, "    {name}: {ty}");
    }
    for name in properties.keys() {
        let _ = writeln!(out, "    @property\n    def {name}(self) -> Tensor: ...");
    }
    for op in
        ["add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and", "or", "xor", "lshift", "rshift"]
    {
        for form in ["", "r", "i"] {
            let _ = writeln!(out, "    def __{form}{op}__(self, other: Any) -> Tensor: ...");
        }
    }
    for op in ["lt", "le", "gt", "ge"] {
        let _ = writeln!(out, "    def __{op}__(self, other: Any) -> Tensor: ...");
    }
    for op in ["eq", "ne"] {
        let _ = writeln!(out, "    def __{op}__(self, other: Any) -> Tensor: ...  # type: ignore[override]");
    }
    for op in ["neg", "pos", "abs", "invert"] {
        let _ = writeln!(out, "    def __{op}__(self) -> Tensor: ...");
    }
    for (op, ty) in
        [("bool", "_bool"), ("int", "_int"), ("float", "_float"), ("index", "_int"), ("len", "_int"), ("hash", "_int")]
    {
        let _ = writeln!(out, "    def __{op}__(self) -> {ty}: ...");
    }
    out.push_str(
        "    def __contains__(self, element: Any) -> _bool: ...\n    def __iter__(self) -> Any: ...\n\
         \x20   def __getitem__(self, index: Any) -> Tensor: ...\n    def __setitem__(self, index: Any, value: Any) -> None: ...\n",
    );
    for (name, rows) in &methods {
        for (row, inplace) in rows {
            if rows.len() > 1 {
                out.push_str("    @overload\n");
            }
            let ret = if *inplace { "Tensor" } else { result(row) };
            let _ = writeln!(out, "    def {name}({}) -> {ret}: ...", parameters(row, true, *inplace));
        }
    }
    out.push('\n');
    for (name, rows) in &functions {
        for row in rows {
            if rows.len() > 1 {
                out.push_str("@overload\n");
            }
            let _ = writeln!(out, "def {name}({}) -> {}: ...", parameters(row, false, false), result(row));
        }
    }
    // What stands in a namespace, as static methods of a class that the namespace's module is declared to be.
    let mut current = "";
    for ((namespace, name), rows) in &namespaces {
        if *namespace != current {
            current = namespace;
            let _ = writeln!(out, "\nclass _{}:", namespace.replace('.', "_"));
        }
        for row in rows {
            if rows.len() > 1 {
                out.push_str("    @overload\n");
            }
            let _ = writeln!(
                out,
                "    @staticmethod\n    def {name}({}) -> {}: ...",
                parameters(row, false, false),
                result(row)
            );
        }
    }
    out
}

/// Every row of the table: name, signature, forms.
#[pyfunction]
fn _signature_rows() -> Vec<(&'static str, &'static str, &'static str)> {
    let mut out = Vec::new();
    signatures::rows(|row| out.push((signatures::path_of(row), row.text, row.written)));
    out
}

/// Adds the functions to the module.
pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_function(wrap_pyfunction!(_stub_text, m)?)?;
    m.add_function(wrap_pyfunction!(_signature_rows, m)?)
}
