//! The signature table: every operator that Python sees is one row here, in a file named for its room.
//!
//! ```text
//! operators! { ROOM;
//!     "add(Tensor input, Tensor|Number other, *, Number alpha=1)" [function method inplace out] => elementwise::add_scaled;
//! }
//! ```
//!
//! A row is a signature, the forms in which Python sees it, and the function behind it. The function's argument types must
//! be those of the signature (a `Dest` may follow); a mismatch does not compile.
//!
//! Forms: `function` (module level; dotted names belong to their module), `method`, `inplace` (adds `NAME_` as a method),
//! `inplace_function` (`NAME_` as a function too), `out` (takes `out=`), `apart` (what `out=` writes may share no memory with
//! the operands), `property`, `factory` (also takes `layout`, of
//! which it refuses all but strided unless the row names it, `pin_memory` and `requires_grad`), `alias(a, b)` (the same under other names).
//!
//! Overloads are rows with the same name, tried in order.

use crate::binder::{self, Operator, Overload};
use crate::call::{Arguments, Returned};
use crate::raw::*;
use crate::signature::{self, Signature, Type};
use crate::tensor::TENSOR;
use flambeau::{Dest, Tensor};
use pyo3::ffi::*;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use std::collections::HashMap;
use std::ffi::c_void;
use std::ptr::null_mut;

/// A row's function behind a uniform pointer.
pub type RowFn = for<'a> unsafe fn(&'a Arguments<'a>) -> flambeau::Result<Returned>;

/// A row's function of one tensor, from that tensor to a Python object.
pub type BareFn = for<'a> unsafe fn(&'a Tensor, Dest<'a>) -> flambeau::Result<Obj>;

/// A form in which Python sees a row.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum Form {
    Function = 1,
    Method = 2,
    Inplace = 4,
    InplaceFunction = 8,
    Out = 16,
    Property = 32,
    Factory = 64,
    /// Not a form of its own: `out=` may share no memory with the operands.
    Apart = 128,
}
const FORM_NAMES: [(&str, u16); 8] = [
    ("function", 1),
    ("method", 2),
    ("inplace", 4),
    ("inplace_function", 8),
    ("out", 16),
    ("property", 32),
    ("factory", 64),
    ("apart", 128),
];

/// One line of the table.
pub struct Row {
    pub text: &'static str,
    pub forms: u16,
    /// The forms as written, for the aliases.
    pub written: &'static str,
    pub call: RowFn,
    /// The same for a function that takes nothing but a tensor (and a destination): nothing has to be bound.
    pub bare: Option<BareFn>,
    /// Whether the function writes in place and into `out=` itself.
    pub takes_dest: bool,
    /// Whether it may run without the interpreter.
    pub detachable: bool,
    /// The result as stubs write it.
    pub stub: &'static str,
}

/// The bits of a list of forms.
pub const fn form_bits(text: &str) -> u16 {
    let b = text.as_bytes();
    let mut bits = 0;
    let mut i = 0;
    while i < b.len() {
        while i < b.len() && (b[i] == b' ' || b[i] == b'\n') {
            i += 1;
        }
        let start = i;
        while i < b.len() && b[i] != b' ' && b[i] != b'\n' && b[i] != b'(' {
            i += 1;
        }
        let mut k = 0;
        let mut known = start == i;
        while k < FORM_NAMES.len() {
            let name = FORM_NAMES[k].0.as_bytes();
            if name.len() == i - start {
                let mut same = true;
                let mut j = 0;
                while j < name.len() {
                    same &= name[j] == b[start + j];
                    j += 1;
                }
                if same {
                    bits |= FORM_NAMES[k].1;
                    known = true;
                }
            }
            k += 1;
        }
        // `alias(…)`, read at import.
        let mut j = i;
        while j < b.len() && b[j] == b' ' {
            j += 1;
        }
        if j < b.len() && b[j] == b'(' {
            known = true;
            while j < b.len() && b[j] != b')' {
                j += 1;
            }
            i = j + 1;
        }
        assert!(known, "an unknown form in a row of the signature table");
    }
    bits
}
/// Whether the last argument is a destination.
pub const fn has_dest(types: &[(Type, bool)]) -> bool {
    !types.is_empty() && matches!(types[types.len() - 1].0, Type::Dest)
}
/// Whether a tensor is all that a function takes, and perhaps a destination.
pub const fn is_bare(types: &[(Type, bool)]) -> bool {
    (types.len() == 1 || types.len() == 2 && has_dest(types)) && matches!(types[0], (Type::Tensor, false))
}
/// Whether no argument is a Python object.
pub const fn is_detachable(types: &[(Type, bool)]) -> bool {
    let mut i = 0;
    while i < types.len() {
        if matches!(types[i].0, Type::Object) {
            return false;
        }
        i += 1;
    }
    true
}

/// Writes a room's rows; see the module.
macro_rules! operators {
    ($room:ident; $( $text:literal [$($form:tt)*] => $f:expr; )*) => {
        #[allow(unused_imports)]
        use flambeau::ops::*;
        $(
            const _: () = assert!(
                $crate::signature::matches($text, $crate::call::types_of(&$f)),
                concat!("the signature does not say what its function takes: ", $text)
            );
        )*
        #[doc = concat!("The rows of the room ", stringify!($room), ".")]
        pub static ROWS: &[$crate::signatures::Row] = &[$(
            $crate::signatures::Row {
                text: $text,
                forms: $crate::signatures::form_bits(stringify!($($form)*)),
                written: stringify!($($form)*),
                call: |args| {
                    let f = $f;
                    // SAFETY: the binder fills `args` by this row's signature, which the assertion above compared.
                    unsafe { $crate::call::invoke(f, args) }
                },
                bare: if $crate::signatures::is_bare($crate::call::types_of(&$f)) {
                    Some(|t, dest| {
                        let f = $f;
                        // SAFETY: called while attached.
                        unsafe { $crate::call::invoke_bare(f, t, dest) }
                    })
                } else {
                    None
                },
                takes_dest: $crate::signatures::has_dest($crate::call::types_of(&$f)),
                detachable: $crate::signatures::is_detachable($crate::call::types_of(&$f)),
                stub: $crate::call::stub_of(&$f),
            }
        ),*];
    };
}

pub mod construction;
pub mod elementwise;
pub mod factory;
pub mod fft;
pub mod indexing;
pub mod join;
pub mod linalg;
pub mod nn;
pub mod random;
pub mod reduction;
pub mod sorting;
pub mod sparse;
pub mod special;
pub mod statistics;
pub mod tensor;
pub mod view;

/// Every room.
pub static ROOMS: &[&[Row]] = &[
    elementwise::ROWS,
    construction::ROWS,
    tensor::ROWS,
    factory::ROWS,
    view::ROWS,
    reduction::ROWS,
    linalg::ROWS,
    sorting::ROWS,
    statistics::ROWS,
    join::ROWS,
    indexing::ROWS,
    nn::ROWS,
    random::ROWS,
    fft::ROWS,
    special::ROWS,
    sparse::ROWS,
];

/// Calls `visit` for every row.
pub fn rows(mut visit: impl FnMut(&'static Row)) {
    for room in ROOMS {
        for row in room.iter() {
            visit(row);
        }
    }
}

/// The names in a row's `alias(…)`.
pub fn aliases(row: &'static Row) -> impl Iterator<Item = &'static str> {
    row.written
        .split_once("alias")
        .and_then(|(_, rest)| rest.trim_start().strip_prefix('('))
        .and_then(|rest| rest.split_once(')'))
        .map_or("", |(names, _)| names)
        .split(',')
        .map(str::trim)
        .filter(|s| !s.is_empty())
}

/// The dotted name of a row.
pub fn path_of(row: &'static Row) -> &'static str {
    &row.text[..row.text.find('(').unwrap_or(0)]
}

static mut NAMED: Vec<(&'static str, *mut PyTypeObject)> = Vec::new();

/// The structure sequence type `return_types.NAME`.
unsafe fn named_tuple(name: &'static str, fields: &[&'static str]) -> *mut PyTypeObject {
    let list = &mut NAMED;
    if let Some((_, ty)) = list.iter().find(|(n, _)| *n == name) {
        return *ty;
    }
    let mut table: Vec<PyStructSequence_Field> =
        fields.iter().map(|f| PyStructSequence_Field { name: leak_cstr(f).as_ptr(), doc: std::ptr::null() }).collect();
    table.push(PyStructSequence_Field { name: std::ptr::null(), doc: std::ptr::null() });
    let mut desc = PyStructSequence_Desc {
        name: leak_cstr(&format!("torch.return_types.{}", name.rsplit('.').next().unwrap_or(name))).as_ptr(),
        doc: c"".as_ptr(),
        fields: Box::leak(table.into_boxed_slice()).as_mut_ptr(),
        n_in_sequence: fields.len() as i32,
    };
    let ty = PyStructSequence_NewType(&mut desc);
    if ty.is_null() {
        PyErr_Clear();
        return ty;
    }
    let repr = PyDescr_NewMethod(ty, method_def("__repr__", "", named_repr));
    PyObject_SetAttrString(ty.cast(), c"__repr__".as_ptr(), repr);
    Py_XDECREF(repr);
    list.push((name, ty));
    ty
}
/// As PyTorch shows its named tuples: a field a line.
unsafe extern "C" fn named_repr(o: Obj, _: *const Obj, _: Py_ssize_t, _: Obj) -> Obj {
    let fields = PyObject_GetAttrString(Py_TYPE(o).cast(), c"__match_args__".as_ptr());
    if fields.is_null() {
        return fields;
    }
    let parts: Vec<String> = (0..PyTuple_Size(o))
        .map(|i| format!("{}={}", str_of(PyTuple_GetItem(fields, i)), repr_of(PyTuple_GetItem(o, i))))
        .collect();
    Py_DECREF(fields);
    str_object(&format!(
        "torch.return_types.{}(\n{})",
        type_name(o).rsplit('.').next().unwrap_or(""),
        parts.join(",\n")
    ))
}

/// The parameters that a row's forms add to its signature.
pub fn extra_parameters(row: &Row, inplace: bool) -> &'static str {
    let own_layout = row.text.contains("layout? layout");
    match (binder::has(row, Form::Factory), binder::has(row, Form::Out) && !inplace) {
        (true, true) if own_layout => "*, Tensor? out=None, bool? pin_memory=None, bool requires_grad=False",
        (true, false) if own_layout => "*, bool? pin_memory=None, bool requires_grad=False",
        (true, true) => "*, Tensor? out=None, layout? layout=None, bool? pin_memory=None, bool requires_grad=False",
        (true, false) => "*, layout? layout=None, bool? pin_memory=None, bool requires_grad=False",
        (false, true) => "*, Tensor? out=None",
        (false, false) => "",
    }
}

unsafe fn overload(row: &'static Row, inplace: bool) -> Overload {
    let factory = binder::has(row, Form::Factory);
    let out = binder::has(row, Form::Out) && !inplace;
    let s: Signature = signature::parse(row.text, extra_parameters(row, inplace));
    let named = match &s.returns {
        Some((name, fields)) if !inplace => named_tuple(name, fields),
        _ => null_mut(),
    };
    let find = |name: &str| s.params.iter().position(|p| p.name == name);
    let out = if out { find("out") } else { None };
    let requires_grad = if factory { find("requires_grad") } else { None };
    let layout = if factory && !row.text.contains("layout? layout") { find("layout") } else { None };
    let bare = s.params.first().is_some_and(|p| p.ty == Type::Tensor) && s.required & !1 == 0 && !s.is_factory;
    let direct = row.bare.filter(|_| bare && named.is_null() && (row.takes_dest || !inplace));
    Overload { row, named, bare, direct, out, requires_grad, layout, signature: s }
}

/// `__doc__` from the signatures, with `__text_signature__` at its head where one signature says everything: an operator with
/// overloads, or with a parameter that has two names, has none.
fn doc(op: &Operator, is_method: bool) -> String {
    let s = &op.overloads[0].signature;
    if op.overloads.len() > 1 || s.params.iter().any(|p| binder::has_alias(p.name)) {
        let texts: Vec<&str> = op.overloads.iter().map(|o| o.signature.text).collect();
        return texts.join("\n");
    }
    let mut parts: Vec<String> = Vec::new();
    for (i, p) in s.params.iter().enumerate() {
        if i == s.positional && i > 0 {
            parts.push("*".into());
        }
        let value = match &p.default {
            signature::Default::Required => None,
            signature::Default::None => Some("None".to_string()),
            signature::Default::Bool(b) => Some(if *b { "True" } else { "False" }.into()),
            signature::Default::Int(i) => Some(i.to_string()),
            signature::Default::Float(f) if f.is_finite() => Some(format!("{f:?}")),
            signature::Default::Float(_) => Some("None".into()),
            signature::Default::Str(s) => Some(format!("'{s}'")),
            signature::Default::Ints(l) => Some(format!("{l:?}")),
        };
        let name = if i == 0 && is_method { "$self".into() } else { crate::stub::identifier(p.name) };
        parts.push(value.map_or(name.clone(), |v| format!("{name}={v}")));
    }
    let texts: Vec<&str> = op.overloads.iter().map(|o| o.signature.text).collect();
    format!("{}({})\n--\n\n{}", op.name, parts.join(", "), texts.join("\n"))
}

struct Installer<'py> {
    py: Python<'py>,
    next: usize,
    operators: Bound<'py, PyDict>,
}

impl Installer<'_> {
    /// Makes one operator of `rows` and gives it to Python.
    unsafe fn install(
        &mut self,
        path: &'static str,
        rows: &[&'static Row],
        inplace: bool,
        function: bool,
        method: bool,
    ) -> PyResult<()> {
        if rows.is_empty() {
            return Ok(());
        }
        let name = path.rsplit('.').next().unwrap_or(path);
        let overloads: Vec<Overload> = rows.iter().map(|r| overload(r, inplace)).collect();
        for o in &overloads {
            assert!(o.signature.params.len() <= crate::call::MAX_PARAMS, "{}: too many parameters", o.signature.text);
        }
        let operator =
            Box::new(Operator { name, path, inplace, overloads, function: Global::new(), method: Global::new() });
        let (op, as_function, as_method) = binder::install(self.next, operator);
        self.next += 1;
        if function {
            let f = PyCFunction_NewEx(method_def(name, &doc(op, false), as_function), null_mut(), null_mut());
            let f = Bound::from_owned_ptr_or_err(self.py, f)?;
            op.function.set(f.clone().into_ptr());
            self.operators.set_item(path, f)?;
        }
        if method {
            let d = PyDescr_NewMethod(TENSOR.ty(), method_def(name, &doc(op, true), as_method));
            let d = Bound::from_owned_ptr_or_err(self.py, d)?;
            op.method.set(d.clone().into_ptr());
            if PyObject_SetAttrString(TENSOR.get(), leak_cstr(name).as_ptr(), d.as_ptr()) < 0 {
                return Err(PyErr::fetch(self.py));
            }
        }
        Ok(())
    }
    unsafe fn property(&mut self, name: &'static str, row: &'static Row) -> PyResult<()> {
        let operator = Box::new(Operator {
            name,
            path: name,
            inplace: false,
            overloads: vec![overload(row, false)],
            function: Global::new(),
            method: Global::new(),
        });
        let (op, ..) = binder::install(self.next, operator);
        self.next += 1;
        let def = Box::leak(Box::new(PyGetSetDef {
            name: leak_cstr(name).as_ptr(),
            get: Some(get_property),
            set: None,
            doc: leak_cstr(row.text).as_ptr(),
            closure: op as *const Operator as *mut c_void,
        }));
        let d = Bound::from_owned_ptr_or_err(self.py, PyDescr_NewGetSet(TENSOR.ty(), def))?;
        if PyObject_SetAttrString(TENSOR.get(), def.name, d.as_ptr()) < 0 {
            return Err(PyErr::fetch(self.py));
        }
        Ok(())
    }
}
unsafe extern "C" fn get_property(this: Obj, op: *mut c_void) -> Obj {
    binder::dispatch(&*(op as *const Operator), this, std::ptr::null(), 0, null_mut())
}

/// Makes every operator.
pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = m.py();
    // Group the rows by name, in the table's order.
    let mut order: Vec<&'static str> = Vec::new();
    let mut groups: HashMap<&'static str, Vec<&'static Row>> = HashMap::new();
    rows(|row| {
        let path = path_of(row);
        let prefix = path.rfind('.').map_or("", |i| &path[..=i]);
        let mut add = |name: &'static str| {
            groups.entry(name).or_insert_with(|| {
                order.push(name);
                Vec::new()
            });
            if let Some(g) = groups.get_mut(name) {
                g.push(row);
            }
        };
        add(path);
        for alias in aliases(row) {
            // An alias without dots lives beside its operator.
            add(if alias.contains('.') || prefix.is_empty() {
                alias
            } else {
                Box::leak(format!("{prefix}{alias}").into_boxed_str())
            });
        }
    });
    let mut installer = Installer { py, next: 0, operators: PyDict::new(py) };
    for path in order {
        let Some(rows) = groups.get(path) else { continue };
        let with =
            |form: Form| -> Vec<&'static Row> { rows.iter().copied().filter(|r| binder::has(r, form)).collect() };
        let (functions, methods) = (with(Form::Function), with(Form::Method));
        // SAFETY: `m` shows that the interpreter is attached.
        unsafe {
            if functions.len() == methods.len() && functions.iter().zip(&methods).all(|(a, b)| std::ptr::eq(*a, *b)) {
                installer.install(path, &functions, false, true, true)?;
            } else {
                installer.install(path, &functions, false, true, false)?;
                installer.install(path, &methods, false, false, true)?;
            }
            let inplace = with(Form::Inplace);
            let inplace_function = with(Form::InplaceFunction);
            if !inplace.is_empty() || !inplace_function.is_empty() {
                let underscored: &'static str = Box::leak(format!("{path}_").into_boxed_str());
                let both = if inplace.is_empty() { &inplace_function } else { &inplace };
                installer.install(underscored, both, true, !inplace_function.is_empty(), !inplace.is_empty())?;
            }
            for row in with(Form::Property) {
                installer.property(path, row)?;
            }
        }
    }
    let types = PyModule::new(py, "flambeau.return_types")?;
    // SAFETY: attached; nothing else touches the list.
    unsafe {
        for (name, ty) in &NAMED {
            types.add(*name, Bound::from_borrowed_ptr(py, (*ty).cast()))?;
        }
    }
    m.add("return_types", types)?;
    for (name, f) in installer.operators.iter() {
        let name: String = name.extract()?;
        if !name.contains('.') && !m.hasattr(name.as_str())? {
            m.add(name.as_str(), f)?;
        }
    }
    m.add("operators", installer.operators)
}
