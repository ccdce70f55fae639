//! The binder: one function, generic in nothing, walks a parsed signature and fills in arguments. Trampolines with a
//! constant index lead CPython's calls here.

use crate::call::{Arg, Arguments};
use crate::convert;
use crate::error::*;
use crate::overrides;
use crate::raw::*;
use crate::signature::{Default, Param, Signature, Type};
use crate::signatures::{BareFn, Form, Row};
use crate::tensor::{is_exact, is_tensor, tensor_of};
use crate::types;
use flambeau::core::Number;
use flambeau::{Dest, Error, ErrorKind, Tensor};
use pyo3::ffi::*;
use pyo3::prelude::*;
use smallvec::SmallVec;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, Ordering};

/// A row as one overload of an operator.
pub struct Overload {
    pub row: &'static Row,
    pub signature: Signature,
    /// The named tuple that its results become; null for none.
    pub named: *mut PyTypeObject,
    /// Whether a tensor alone will do: a method called without arguments has nothing to bind.
    pub bare: bool,
    /// The function for a tensor alone, where that is all it takes: no arguments are built for it.
    pub direct: Option<BareFn>,
    /// Index of the `out` parameter, if it takes one.
    pub out: Option<usize>,
    /// Index of `requires_grad`, for factories.
    pub requires_grad: Option<usize>,
    /// Index of `layout`, for factories of dense tensors alone.
    pub layout: Option<usize>,
}

// SAFETY: `named` is a type that lives for ever and is only used while attached.
unsafe impl Sync for Overload {}
// SAFETY: as above.
unsafe impl Send for Overload {}

/// Everything that is called by one name.
pub struct Operator {
    /// The last part: `"relu"` of `nn.functional.relu`, with its `_` for in-place forms.
    pub name: &'static str,
    /// The dotted name.
    pub path: &'static str,
    pub inplace: bool,
    pub overloads: Vec<Overload>,
    /// The callables that users see, given to `__torch_function__`: function, method.
    pub function: Global,
    pub method: Global,
}

/// How many operators (names, in-place forms counted apart) there can be.
pub const CAPACITY: usize = 2048;
static OPERATORS: [AtomicPtr<Operator>; CAPACITY] = [const { AtomicPtr::new(null_mut()) }; CAPACITY];

unsafe extern "C" fn function<const I: usize>(_: Obj, args: *const Obj, n: Py_ssize_t, kw: Obj) -> Obj {
    dispatch_bound(&*OPERATORS[I].load(Ordering::Relaxed), null_mut(), args, n as usize & !(1 << 63), kw)
}
unsafe extern "C" fn method<const I: usize>(this: Obj, args: *const Obj, n: Py_ssize_t, kw: Obj) -> Obj {
    dispatch_method(&*OPERATORS[I].load(Ordering::Relaxed), this, args, n as usize & !(1 << 63), kw)
}
// Out of line: there are two thousand trampolines.
#[inline(never)]
unsafe fn dispatch_method(op: &'static Operator, this: Obj, args: *const Obj, n: usize, kw: Obj) -> Obj {
    dispatch(op, this, args, n, kw)
}

type Trampoline = PyCFunctionFastWithKeywords;
macro_rules! trampolines {
    ($kind:ident) => { trampolines!(@a $kind 0 256 512 768 1024 1280 1536 1792) };
    (@a $kind:ident $($i:literal)*) => { [$( trampolines!(@b $kind, $i) ),*] };
    (@b $kind:ident, $i:expr) => { trampolines!(@c $kind, $i, 0 16 32 48 64 80 96 112 128 144 160 176 192 208 224 240) };
    (@c $kind:ident, $i:expr, $($j:literal)*) => { [$( trampolines!(@d $kind, $i + $j) ),*] };
    (@d $kind:ident, $i:expr) => { trampolines!(@e $kind, $i, 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15) };
    (@e $kind:ident, $i:expr, $($j:literal)*) => { [$( $kind::<{ $i + $j }> as Trampoline ),*] };
}
static FUNCTIONS: [[[Trampoline; 16]; 16]; 8] = trampolines!(function);
static METHODS: [[[Trampoline; 16]; 16]; 8] = trampolines!(method);

/// Registers an operator under an index; gives back its function and method trampolines.
pub fn install(index: usize, operator: Box<Operator>) -> (&'static Operator, Trampoline, Trampoline) {
    let operator: &'static mut Operator = Box::leak(operator);
    OPERATORS[index].store(operator, Ordering::Relaxed);
    let (a, b, c) = (index >> 8, index >> 4 & 15, index & 15);
    (operator, FUNCTIONS[a][b][c], METHODS[a][b][c])
}

/// Why an overload does not fit.
pub enum Fail {
    TooMany,
    Unknown(Obj),
    Duplicate(usize),
    Missing(usize),
    /// Parameter and what was given.
    Bad(usize, Obj),
    /// An exception is set.
    Raised,
}

/// The number behind a Python object that is exactly a number or an index.
#[inline(always)]
pub unsafe fn number(o: Obj) -> Option<Number> {
    let ty = Py_TYPE(o);
    if ty == &raw mut PyFloat_Type {
        Some(Number::Float(PyFloat_AsDouble(o)))
    } else if ty == &raw mut PyLong_Type {
        let i = PyLong_AsLongLong(o);
        if i == -1 && !PyErr_Occurred().is_null() {
            return None;
        }
        Some(Number::Int(i))
    } else {
        number_slow(o)
    }
}
#[cold]
#[inline(never)]
unsafe fn number_slow(o: Obj) -> Option<Number> {
    if o == Py_True() || o == Py_False() {
        return Some(Number::Bool(o == Py_True()));
    }
    if PyFloat_Check(o) != 0 {
        return Some(Number::Float(PyFloat_AsDouble(o)));
    }
    if PyComplex_Check(o) != 0 {
        let (re, im) = (PyComplex_RealAsDouble(o), PyComplex_ImagAsDouble(o));
        return Some(Number::Complex(flambeau::core::Complex64::new(re, im)));
    }
    if PyLong_Check(o) != 0 {
        let i = PyLong_AsLongLong(o);
        return if i == -1 && !PyErr_Occurred().is_null() { None } else { Some(Number::Int(i)) };
    }
    if is_tensor(o) {
        return None;
    }
    // NumPy's scalars: anything with a dtype and an item() that gives a plain number.
    convert::numpy_scalar(o)
}

/// An int, from an int or index that is no bool, or a 0-dim integer tensor.
#[inline(always)]
unsafe fn int(o: Obj, lenient: bool) -> Option<i64> {
    if Py_TYPE(o) == &raw mut PyLong_Type {
        let i = PyLong_AsLongLong(o);
        return if i == -1 && !PyErr_Occurred().is_null() { None } else { Some(i) };
    }
    int_slow(o, lenient)
}
#[inline(never)]
unsafe fn int_slow(o: Obj, lenient: bool) -> Option<i64> {
    if PyBool_Check(o) != 0 {
        return None;
    }
    if is_tensor(o) {
        let t = tensor_of(o);
        if !lenient || t.dim() != 0 || !t.dtype().is_integral(false) {
            return None;
        }
    } else if PyIndex_Check(o) == 0 {
        return None;
    }
    let i = PyNumber_AsSsize_t(o, PyExc_OverflowError);
    if i == -1 && !PyErr_Occurred().is_null() {
        return None;
    }
    Some(i as i64)
}

/// The scalar of a 0-dim tensor that needs no gradient.
unsafe fn tensor_number(o: Obj) -> Option<Number> {
    if !is_tensor(o) {
        return None;
    }
    let t = tensor_of(o);
    if t.dim() != 0 || t.requires_grad() {
        return None;
    }
    t.item().ok()
}

struct Binding<'b, 'a> {
    args: &'b mut Arguments<'a>,
    /// The first argument whose type overrides `__torch_function__`.
    overrides: SmallVec<[Obj; 2]>,
    /// The subclass whose type results take.
    subclass: *mut PyTypeObject,
    /// Whether 0-dim tensors may stand for numbers. With several overloads they do so only when no overload takes them as
    /// tensors.
    lenient: bool,
}

impl<'a> Binding<'_, 'a> {
    #[inline(always)]
    unsafe fn tensor(&mut self, o: Obj) -> Option<&'a Tensor> {
        if is_exact(o) {
            return Some(tensor_of(o));
        }
        self.tensor_slow(o)
    }
    #[inline(never)]
    unsafe fn tensor_slow(&mut self, o: Obj) -> Option<&'a Tensor> {
        match overrides::of_type(Py_TYPE(o)) {
            overrides::Kind::Custom => self.overrides.push(o),
            overrides::Kind::Inherit => {
                if self.subclass.is_null() || PyType_IsSubtype(Py_TYPE(o), self.subclass) != 0 {
                    self.subclass = Py_TYPE(o);
                }
            }
            overrides::Kind::Disabled | overrides::Kind::None => {}
        }
        if is_tensor(o) {
            return Some(tensor_of(o));
        }
        None
    }
    unsafe fn custom(&self, o: Obj) -> bool {
        self.overrides.last() == Some(&o)
    }

    /// Binds `o` to parameter `j`; false when it does not fit. Written where it stays: what is moved as a whole right after it was
    /// written in parts waits for these.
    #[inline(always)]
    unsafe fn bind(&mut self, j: usize, p: &Param, o: Obj) -> bool {
        let found = match p.ty {
            Type::Tensor => {
                if is_exact(o) {
                    self.args.slots[j].write(Arg::Tensor(tensor_of(o)));
                    return true;
                }
                match self.tensor_slow(o) {
                    Some(t) => Some(Arg::Tensor(t)),
                    None if self.custom(o) => Some(Arg::None),
                    None => self.fallback(p, o),
                }
            }
            Type::TensorOrNumber => {
                if is_exact(o) {
                    self.args.slots[j].write(Arg::Tensor(tensor_of(o)));
                    return true;
                }
                self.tensor_or_number(p, o)
            }
            Type::Bool if o == Py_True() || o == Py_False() => {
                self.args.slots[j].write(Arg::Bool(o == Py_True()));
                return true;
            }
            Type::Int => {
                if let Some(i) = int(o, self.lenient) {
                    self.args.slots[j].write(Arg::Int(i));
                    return true;
                }
                self.fallback(p, o)
            }
            Type::Ints => {
                if let Some((from, n)) = self.ints(p, o) {
                    self.args.slots[j].write(Arg::Ints(from, n));
                    return true;
                }
                self.fallback(p, o)
            }
            _ => self.convert_slow(p, o),
        };
        match found {
            Some(arg) => {
                self.args.slots[j].write(arg);
                true
            }
            None => false,
        }
    }
    #[inline(never)]
    unsafe fn tensor_or_number(&mut self, p: &Param, o: Obj) -> Option<Arg<'a>> {
        if let Some(n) = number(o) {
            return Some(Arg::Number(n));
        }
        if !PyErr_Occurred().is_null() {
            return None;
        }
        match self.tensor_slow(o) {
            Some(t) => Some(Arg::Tensor(t)),
            None if self.custom(o) => Some(Arg::None),
            None => self.fallback(p, o),
        }
    }
    #[inline(always)]
    unsafe fn ints(&mut self, p: &Param, o: Obj) -> Option<(u16, u16)> {
        let from = self.args.ints.len();
        let ty = Py_TYPE(o);
        if ty == &raw mut PyTuple_Type || ty == &raw mut PyList_Type || is_sequence(o) {
            let n = sequence_len(o);
            for i in 0..n {
                match int(sequence_item(o, i), true) {
                    Some(x) => self.args.ints.push(x),
                    None => {
                        self.args.ints.truncate(from);
                        return None;
                    }
                }
            }
            // A list of one stands for all, like a single int.
            if p.length > 1 && n == 1 {
                let x = self.args.ints[from];
                for _ in 1..p.length {
                    self.args.ints.push(x);
                }
            }
        } else {
            if p.variadic {
                return None;
            }
            let x = int(o, self.lenient)?;
            for _ in 0..p.length.max(1) {
                self.args.ints.push(x);
            }
        }
        Some((from as u16, (self.args.ints.len() - from) as u16))
    }
    /// A number, or the value of a 0-dim tensor.
    unsafe fn scalar(&mut self, o: Obj) -> Option<Number> {
        match number(o) {
            None if self.lenient && PyErr_Occurred().is_null() => tensor_number(o),
            found => found,
        }
    }
    unsafe fn fallback(&mut self, p: &Param, o: Obj) -> Option<Arg<'a>> {
        (p.optional && o == Py_None()).then_some(Arg::None)
    }
    #[inline(never)]
    unsafe fn convert_slow(&mut self, p: &Param, o: Obj) -> Option<Arg<'a>> {
        if p.optional && o == Py_None() {
            return Some(Arg::None);
        }
        match p.ty {
            Type::Number => self.scalar(o).map(Arg::Number),
            Type::Float => {
                let n = if PyComplex_Check(o) != 0 { None } else { self.scalar(o) }?;
                Some(Arg::Float(n.to_f64()))
            }
            Type::Bool => match convert::numpy_scalar(o) {
                Some(Number::Bool(b)) => Some(Arg::Bool(b)),
                _ => None,
            },
            Type::Floats => {
                let from = self.args.floats.len();
                if is_sequence(o) {
                    for i in 0..sequence_len(o) {
                        let item = sequence_item(o, i);
                        let x = self.scalar(item)?.to_f64();
                        self.args.floats.push(x);
                    }
                } else {
                    let x = number(o)?.to_f64();
                    for _ in 0..p.length.max(1) {
                        self.args.floats.push(x);
                    }
                }
                Some(Arg::Floats(from as u16, (self.args.floats.len() - from) as u16))
            }
            Type::Bools => {
                let from = self.args.ints.len();
                if !is_sequence(o) {
                    return None;
                }
                for i in 0..sequence_len(o) {
                    self.args.ints.push((sequence_item(o, i) == Py_True()) as i64);
                }
                Some(Arg::Ints(from as u16, (self.args.ints.len() - from) as u16))
            }
            Type::Tensors => {
                if !is_sequence(o) {
                    return None;
                }
                let from = self.args.tensors.len();
                for i in 0..sequence_len(o) {
                    let item = sequence_item(o, i);
                    match self.tensor(item) {
                        Some(t) => self.args.tensors.push(t.clone()),
                        None if self.custom(item) => {}
                        None => return None,
                    }
                }
                Some(Arg::Tensors(from as u32, (self.args.tensors.len() - from) as u32))
            }
            Type::OptionalTensors => {
                if !is_sequence(o) {
                    return None;
                }
                let from = self.args.optional.len();
                for i in 0..sequence_len(o) {
                    let item = sequence_item(o, i);
                    let t = if item == Py_None() { None } else { Some(self.tensor(item)?.clone()) };
                    self.args.optional.push(t);
                }
                Some(Arg::Tensors(from as u32, (self.args.optional.len() - from) as u32))
            }
            Type::Str => (PyUnicode_Check(o) != 0).then(|| Arg::Str(str_of(o))),
            Type::DType => types::dtype_of(o).map(Arg::DType),
            Type::Device => types::device_of(o).map(Arg::Device),
            Type::MemoryFormat => types::memory_format_of(o).map(Arg::MemoryFormat),
            Type::Layout => types::layout_of(o).map(Arg::Layout),
            Type::Generator => types::generator_of(o).map(Arg::Generator),
            Type::Object => {
                // Containers and strangers alike may override.
                if Py_TYPE(o) != &raw mut PyTuple_Type && Py_TYPE(o) != &raw mut PyList_Type {
                    self.tensor(o);
                }
                Some(Arg::Object(o))
            }
            _ => None,
        }
    }
}

unsafe fn default_arg<'a>(p: &'a Param, args: &mut Arguments<'a>) -> Arg<'a> {
    match &p.default {
        Default::Required | Default::None => Arg::None,
        Default::Bool(b) => match p.ty {
            Type::Number | Type::TensorOrNumber => Arg::Number(Number::Bool(*b)),
            Type::Object => Arg::Object(if *b { Py_True() } else { Py_False() }),
            _ => Arg::Bool(*b),
        },
        Default::Int(i) => match p.ty {
            Type::Int => Arg::Int(*i),
            Type::Float => Arg::Float(*i as f64),
            Type::Ints => {
                let from = args.ints.len();
                for _ in 0..p.length.max(1) {
                    args.ints.push(*i);
                }
                Arg::Ints(from as u16, (args.ints.len() - from) as u16)
            }
            Type::Floats => {
                let from = args.floats.len();
                for _ in 0..p.length.max(1) {
                    args.floats.push(*i as f64);
                }
                Arg::Floats(from as u16, (args.floats.len() - from) as u16)
            }
            _ => Arg::Number(Number::Int(*i)),
        },
        Default::Float(f) => match p.ty {
            Type::Float => Arg::Float(*f),
            _ => Arg::Number(Number::Float(*f)),
        },
        Default::Str(s) => Arg::Str(s),
        Default::Ints(list) => {
            let from = args.ints.len();
            args.ints.extend_from_slice(list);
            Arg::Ints(from as u16, list.len() as u16)
        }
    }
}

/// Other names of parameters that every operator takes: NumPy's, and those of the array API's standard.
pub fn aliases(name: &str) -> &'static [&'static str] {
    match name {
        "axis" => &["dim", "dims"],
        "axes" => &["dims", "dim"],
        "keepdims" => &["keepdim"],
        "x" | "a" | "x1" | "self" => &["input"],
        "x2" => &["other"],
        "shape" => &["size"],
        "stop" => &["end"],
        "num" => &["steps"],
        "shift" => &["shifts"],
        "k" => &["diagonal"],
        _ => &[],
    }
}
/// Whether a parameter goes by another name too that programs give as a keyword.
pub fn has_alias(name: &str) -> bool {
    matches!(name, "dim" | "dims" | "keepdim" | "size" | "end" | "steps" | "shifts" | "diagonal")
}

/// Binds one overload. `this` is the first argument of a method, null for a function.
#[inline(always)]
unsafe fn bind<'a>(
    s: &'a Signature,
    this: Obj,
    given: *const Obj,
    n: usize,
    kw: Obj,
    b: &mut Binding<'_, 'a>,
) -> Result<(), Fail> {
    let params = &s.params[..];
    let bad = |j: usize, o: Obj| if PyErr_Occurred().is_null() { Fail::Bad(j, o) } else { Fail::Raised };
    let mut seen = 0u64;
    let mut next = 0;
    if !this.is_null() {
        let Some(p) = params.first() else { return Err(Fail::TooMany) };
        if !b.bind(0, p, this) {
            return Err(bad(0, this));
        }
        seen = 1;
        next = 1;
    }
    let mut i = 0;
    while i < n {
        let o = *given.add(i);
        if next >= s.positional {
            return Err(Fail::TooMany);
        }
        let p = &params[next];
        if p.collects
            && (n - i > 1 || !is_sequence(o))
            && (next == 0 || !this.is_null() || p.ty == Type::Tensors)
            && !(n - i == 1 && o == Py_None() && p.optional)
        {
            // The rest of the positional arguments are the list.
            if p.ty == Type::Tensors {
                let from = b.args.tensors.len();
                while i < n {
                    let o = *given.add(i);
                    match b.tensor(o) {
                        Some(t) => b.args.tensors.push(t.clone()),
                        None if b.custom(o) => {}
                        None => return Err(bad(next, o)),
                    }
                    i += 1;
                }
                b.args.slots[next].write(Arg::Tensors(from as u32, (b.args.tensors.len() - from) as u32));
                seen |= 1 << next;
                next += 1;
                continue;
            }
            let from = b.args.ints.len();
            let mut rest = 0;
            while i < n {
                let o = *given.add(i);
                if rest > 0 && next + 1 < s.positional && int(o, true).is_none() {
                    PyErr_Clear();
                    break;
                }
                let Some(x) = int(o, true) else { return Err(bad(next, o)) };
                b.args.ints.push(x);
                rest += 1;
                i += 1;
            }
            b.args.slots[next].write(Arg::Ints(from as u16, rest));
        } else {
            if !b.bind(next, p, o) {
                return Err(bad(next, o));
            }
            i += 1;
        }
        seen |= 1 << next;
        next += 1;
    }
    if !kw.is_null() {
        for k in 0..PyTuple_Size(kw) {
            let name = PyTuple_GetItem(kw, k);
            let o = *given.add(n + k as usize);
            let j = match params.iter().position(|p| p.key == name) {
                Some(j) => j,
                None => {
                    let text = str_of(name);
                    let found = params.iter().position(|p| p.name == text);
                    let other = || aliases(text).iter().find_map(|a| params.iter().position(|p| p.name == *a));
                    match found.or_else(other) {
                        Some(j) => j,
                        None => return Err(Fail::Unknown(name)),
                    }
                }
            };
            if seen & (1 << j) != 0 {
                return Err(Fail::Duplicate(j));
            }
            if !b.bind(j, &params[j], o) {
                return Err(bad(j, o));
            }
            seen |= 1 << j;
        }
    }
    let missing = s.required & !seen;
    if missing != 0 {
        return Err(Fail::Missing(missing.trailing_zeros() as usize));
    }
    let mut rest = !seen & ((1u64 << params.len()) - 1);
    while rest != 0 {
        let j = rest.trailing_zeros() as usize;
        rest &= rest - 1;
        let mut v = default_arg(&params[j], b.args);
        if s.is_factory && params[j].ty == Type::Device {
            if let Some(d) = types::default_device_if_set() {
                v = Arg::Device(d);
            }
        }
        b.args.slots[j].write(v);
    }
    Ok(())
}

/// Runs an operator: binds the first overload that fits and calls its function.
#[inline]
pub unsafe fn dispatch(op: &'static Operator, this: Obj, given: *const Obj, n: usize, kw: Obj) -> Obj {
    if n == 0 && kw.is_null() && !this.is_null() && is_exact(this) {
        return dispatch_alone(op, this, given);
    }
    dispatch_bound(op, this, given, n, kw)
}
/// [`dispatch`] of a method called without arguments on a plain tensor. A function of a tensor alone has nothing to bind.
unsafe fn dispatch_alone(op: &'static Operator, this: Obj, given: *const Obj) -> Obj {
    let first = &op.overloads[0];
    let t = tensor_of(this);
    match first.direct {
        Some(direct)
            if flambeau::mode::current() & (flambeau::mode::AUTOCAST | flambeau::mode::PROFILE) == 0
                && !(first.row.detachable && t.is_large()) =>
        {
            let dest = if op.inplace { Dest::Inplace(t) } else { Dest::New };
            guard(null_mut(), || match direct(t, dest) {
                Ok(o) => o,
                Err(e) => refused_alone(op, first, t, dest, e),
            })
        }
        _ => dispatch_bound(op, this, given, 0, null_mut()),
    }
}
#[cold]
unsafe fn refused_alone(op: &Operator, overload: &Overload, t: &Tensor, dest: Dest<'_>, e: Error) -> Obj {
    if e.kind() != ErrorKind::Batch {
        return raise(e);
    }
    let mut args = Arguments::new();
    args.slots[0].write(Arg::Tensor(t));
    for (j, p) in overload.signature.params.iter().enumerate().skip(1) {
        let v = default_arg(p, &mut args);
        args.slots[j].write(v);
    }
    args.dest = dest;
    match by_example(op, overload, &args, e) {
        Ok(r) => r.into_object(overload.named),
        Err(e) => raise(e),
    }
}
#[inline(never)]
unsafe fn dispatch_bound(op: &'static Operator, this: Obj, given: *const Obj, n: usize, kw: Obj) -> Obj {
    let first = &op.overloads[0];
    let alone = op.overloads.len() == 1;
    let mut args = Arguments::new();
    if n == 0 && kw.is_null() && first.bare && !this.is_null() && is_exact(this) {
        args.slots[0].write(Arg::Tensor(tensor_of(this)));
        for (j, p) in first.signature.params.iter().enumerate().skip(1) {
            let v = default_arg(p, &mut args);
            args.slots[j].write(v);
        }
        return run(op, first, &mut args);
    }
    let mut binding = Binding { args: &mut args, overrides: SmallVec::new(), subclass: null_mut(), lenient: alone };
    match bind(&first.signature, this, given, n, kw, &mut binding) {
        Ok(()) => {
            if (!binding.overrides.is_empty() || !binding.subclass.is_null()) && overrides::enabled() {
                if !binding.overrides.is_empty() {
                    return overrides::call(op, &binding.overrides, this, given, n, kw);
                }
                let subclass = binding.subclass;
                return overrides::convert(run(op, first, &mut args), subclass);
            }
            run(op, first, &mut args)
        }
        Err(f) => dispatch_on(op, this, given, n, kw, f),
    }
}
/// [`dispatch`] after the first overload did not fit.
#[inline(never)]
unsafe fn dispatch_on(op: &'static Operator, this: Obj, given: *const Obj, n: usize, kw: Obj, first: Fail) -> Obj {
    if matches!(first, Fail::Raised) {
        return raised(op);
    }
    let mut failures: SmallVec<[Fail; 2]> = SmallVec::from_iter([first]);
    let count = op.overloads.len();
    // Strict first, then lenient; one overload needs no strict pass.
    for k in if count == 1 { 0..0 } else { 1..2 * count } {
        let (overload, lenient) = (&op.overloads[k % count], k >= count);
        if k == count {
            failures.clear();
        }
        let mut args = Arguments::new();
        let mut binding = Binding { args: &mut args, overrides: SmallVec::new(), subclass: null_mut(), lenient };
        match bind(&overload.signature, this, given, n, kw, &mut binding) {
            Ok(()) => {
                let (overriders, subclass) = (binding.overrides, binding.subclass);
                if (!overriders.is_empty() || !subclass.is_null()) && overrides::enabled() {
                    if !overriders.is_empty() {
                        return overrides::call(op, &overriders, this, given, n, kw);
                    }
                    return overrides::convert(run(op, overload, &mut args), subclass);
                }
                return run(op, overload, &mut args);
            }
            Err(Fail::Raised) => return raised(op),
            Err(f) => failures.push(f),
        }
    }
    explain(op, this, given, n, kw, &failures)
}

/// While an argument was read an exception was set: by an int that does not fit, or by an `__index__` that failed.
#[cold]
unsafe fn raised(op: &Operator) -> Obj {
    if PyErr_ExceptionMatches(PyExc_OverflowError) != 0 {
        PyErr_Clear();
        return raise(Error::new(
            ErrorKind::Runtime,
            format!("{}(): Overflow when unpacking long: an integer argument is beyond 64 bits", op.name),
        ));
    }
    null_mut()
}

/// Calls an overload's function, after the casts that autocast asks for.
#[inline(always)]
unsafe fn run(op: &Operator, overload: &Overload, args: &mut Arguments<'_>) -> Obj {
    let mode = flambeau::mode::current();
    if mode & (flambeau::mode::AUTOCAST | flambeau::mode::PROFILE) != 0 {
        return run_watched(op, overload, args, mode);
    }
    run_bound(op, overload, args)
}
#[cold]
unsafe fn run_watched(op: &Operator, overload: &Overload, args: &mut Arguments<'_>, mode: u8) -> Obj {
    // The engine tells of its nodes itself.
    let _span = if op.name == "backward" {
        None
    } else {
        flambeau::profile::enter(op.name, flambeau::profile::Kind::Operator, || {
            crate::profile::inputs(overload.signature.params.len(), args)
        })
    };
    if mode & flambeau::mode::AUTOCAST != 0 {
        return run_cast(op, overload, args);
    }
    run_bound(op, overload, args)
}
unsafe fn run_cast(op: &Operator, overload: &Overload, args: &mut Arguments<'_>) -> Obj {
    let written = overload.out.is_some_and(|i| !matches!(args.get(i), Arg::None));
    if op.inplace || written {
        return run_bound(op, overload, args);
    }
    // The casts live as long as the call that reads them.
    let casts = match crate::autocast::cast(op.path, overload.signature.params.len(), args) {
        Ok(casts) => casts,
        Err(e) => return raise(e),
    };
    // What an operator is built of keeps the precision chosen for the whole.
    let _off = flambeau::mode::Guard::new(flambeau::mode::AUTOCAST, casts.is_none());
    run_bound(op, overload, args)
}

/// Calls an overload's function in the form that the call asks for.
#[inline(always)]
unsafe fn run_bound(op: &Operator, overload: &Overload, args: &mut Arguments<'_>) -> Obj {
    match overload.out {
        Some(i) if !matches!(args.get(i), Arg::None) => run_out(op, overload, args),
        _ => run_to(op, overload, args, &[]),
    }
}
#[inline(never)]
unsafe fn run_out(op: &Operator, overload: &Overload, args: &mut Arguments<'_>) -> Obj {
    // The arguments outlive the call: destinations borrow from them.
    let out: SmallVec<[&Tensor; 2]> = match overload.out.map(|i| args.get(i)) {
        None | Some(Arg::None) => SmallVec::new(),
        Some(Arg::Tensor(t)) => SmallVec::from_iter([t]),
        Some(Arg::Object(o)) => match out_tensors(op, o) {
            Ok(list) => list,
            Err(e) => return raise(e),
        },
        Some(_) => SmallVec::new(),
    };
    if let (Some(_), [t, ..]) = (overload.requires_grad, &out[..]) {
        if let Err(e) = take_dtype_of(t, overload, args) {
            return raise(e);
        }
    }
    run_to(op, overload, args, &out)
}
/// Calls an overload's function; `out` is what the call gave as `out=`.
unsafe fn run_to(op: &Operator, overload: &Overload, args: &mut Arguments<'_>, out: &[&Tensor]) -> Obj {
    let target = if op.inplace {
        match args.get(0) {
            Arg::Tensor(t) => Some(t),
            _ => None,
        }
    } else {
        None
    };
    // SAFETY (lifetime): `out` and `target` outlive the call below, which is the only use of `dest`.
    let row = overload.row;
    if row.takes_dest {
        args.dest = match target {
            Some(t) => Dest::Inplace(t),
            None if !out.is_empty() => Dest::Out(std::mem::transmute::<&[&Tensor], &[&Tensor]>(out)),
            None => Dest::New,
        };
    }
    let large = row.detachable
        && (0..overload.signature.params.len().min(3)).any(|i| match args.get(i) {
            Arg::Tensor(t) => t.is_large(),
            Arg::Tensors(..) => args.tensors.iter().any(|t| t.is_large()),
            _ => false,
        });
    let call = row.call;
    let args: &Arguments<'_> = args;
    // What most calls need nothing more of becomes an object where it was returned.
    let plain = overload.requires_grad.is_none() && (row.takes_dest || (target.is_none() && out.is_empty()));
    // SAFETY: the binder filled `args` by the row's own signature.
    guard(null_mut(), || {
        let result = if large {
            let sendable = Detached(args, call);
            Python::assume_attached().detach(move || {
                let d = sendable;
                d.run()
            })
        } else {
            call(args)
        };
        match result {
            Ok(r) if plain => r.into_object(overload.named),
            other => settle(op, overload, other, target, out, args),
        }
    })
}
/// The object of a result that has yet to be stored somewhere, or the exception.
#[inline(never)]
unsafe fn settle(
    op: &Operator,
    overload: &Overload,
    result: flambeau::Result<crate::call::Returned>,
    target: Option<&Tensor>,
    out: &[&Tensor],
    args: &Arguments<'_>,
) -> Obj {
    match result.and_then(|r| finish(op, overload, r, target, out, args)) {
        Ok(r) => r.into_object(overload.named),
        Err(e) if e.kind() == ErrorKind::Batch && out.is_empty() => match by_example(op, overload, args, e) {
            Ok(r) => r.into_object(overload.named),
            Err(e) => raise(e),
        },
        Err(e) => raise(e),
    }
}

/// Calls an overload that has no rule for batches for every example of the innermost `vmap`, and stacks the results.
///
/// # Errors
/// `refusal`, why the operator could not run on the batch, where no `vmap` is open or what is written has no examples; the
/// operator's own; those of stacking results of different sizes.
#[cold]
unsafe fn by_example(
    op: &Operator,
    overload: &Overload,
    args: &Arguments<'_>,
    refusal: Error,
) -> flambeau::Result<crate::call::Returned> {
    use crate::call::Returned;
    use flambeau::batch;
    let Some((level, size)) = batch::innermost() else { return Err(refusal) };
    let params = overload.signature.params.len();
    // Forms in place, and operators that only exist in place.
    let writes = op.inplace || (op.name.ends_with('_') && !op.name.ends_with("__"));
    let written = match args.get(0) {
        Arg::Tensor(t) if writes => Some(t),
        _ => None,
    };
    let has_examples = written.is_none_or(|t| t.as_batched().is_some_and(|b| b.level == level));
    if size == 0 || !has_examples {
        return Err(refusal);
    }
    let _suspended = batch::suspend();
    let mut results = Vec::new();
    for i in 0..size {
        // Reserved in full, so that references to what is pushed stay valid.
        let mut parts: Vec<Tensor> = Vec::with_capacity(params);
        let mut each = Arguments::new();
        each.ints.extend_from_slice(&args.ints);
        each.floats.extend_from_slice(&args.floats);
        for t in &args.tensors {
            each.tensors.push(batch::example(t, level, i)?);
        }
        for t in &args.optional {
            each.optional.push(t.as_ref().map(|t| batch::example(t, level, i)).transpose()?);
        }
        for k in 0..params {
            let arg = match args.get(k) {
                Arg::Tensor(t) => {
                    parts.push(batch::example(t, level, i)?);
                    // SAFETY: `parts` never reallocates and outlives `each`'s use below.
                    Arg::Tensor(&*std::ptr::from_ref(&parts[parts.len() - 1]))
                }
                other => other,
            };
            each.slots[k].write(arg);
        }
        let target = match each.get(0) {
            Arg::Tensor(t) if op.inplace => Some(t),
            _ => None,
        };
        if let (true, Some(t)) = (overload.row.takes_dest, target) {
            each.dest = Dest::Inplace(t);
        }
        // SAFETY: every slot is filled, by the row's own signature.
        let result = (overload.row.call)(&each).and_then(|r| finish(op, overload, r, target, &[], &each));
        results.push(match result {
            Err(e) if e.kind() == ErrorKind::Batch => by_example(op, overload, &each, e)?,
            other => other?,
        });
    }
    match written {
        Some(t) => Ok(Returned::Tensor(t.clone())),
        None => Returned::stack(results, |examples| batch::collect(examples, level)).map_err(|_| refusal),
    }
}

struct Detached<'a, 'b>(&'b Arguments<'a>, crate::signatures::RowFn);
// SAFETY: the closure runs on this very thread; `detachable` rows hold no Python objects.
unsafe impl Send for Detached<'_, '_> {}
impl Detached<'_, '_> {
    fn run(self) -> flambeau::Result<crate::call::Returned> {
        // SAFETY: as in `run`.
        unsafe { (self.1)(self.0) }
    }
}

/// A factory makes what `out` holds: a dtype that was not given is `out`'s, and one that was has to be the same.
#[cold]
unsafe fn take_dtype_of(out: &Tensor, overload: &Overload, args: &mut Arguments<'_>) -> flambeau::Result<()> {
    let Some(i) = overload.signature.params.iter().position(|p| p.name == "dtype" && p.ty == Type::DType) else {
        return Ok(());
    };
    match args.get(i) {
        Arg::DType(d) if d != out.dtype() => Err(Error::new(
            ErrorKind::Runtime,
            format!("dtype {} does not match dtype of out parameter ({})", d.title(), out.dtype().title()),
        )),
        Arg::DType(_) => Ok(()),
        _ => {
            args.slots[i].write(Arg::DType(out.dtype()));
            Ok(())
        }
    }
}

/// In-place forms whose operands may not share memory with what is written.
const ORDERED_WRITES: [&str; 7] =
    ["index_add_", "index_copy_", "index_reduce_", "scatter_", "scatter_add_", "scatter_reduce_", "put_"];

/// Forms that the function itself does not know: in place and `out=` of composites, `requires_grad=` of factories.
#[inline(always)]
unsafe fn finish(
    op: &Operator,
    overload: &Overload,
    r: crate::call::Returned,
    target: Option<&Tensor>,
    out: &[&Tensor],
    args: &Arguments<'_>,
) -> flambeau::Result<crate::call::Returned> {
    if overload.row.takes_dest && overload.requires_grad.is_none() {
        return Ok(r);
    }
    if target.is_none() && out.is_empty() && overload.requires_grad.is_none() {
        return Ok(r);
    }
    finish_slow(op, overload, r, target, out, args)
}
#[inline(never)]
unsafe fn finish_slow(
    op: &Operator,
    overload: &Overload,
    r: crate::call::Returned,
    target: Option<&Tensor>,
    out: &[&Tensor],
    args: &Arguments<'_>,
) -> flambeau::Result<crate::call::Returned> {
    use crate::call::Returned;
    if !overload.row.takes_dest {
        if let (Some(t), Returned::Tensor(y)) = (target, &r) {
            if !y.is_same(t) {
                if t.sizes() != y.sizes() {
                    return Err(Error::new(
                        ErrorKind::Runtime,
                        format!(
                            "{}: output with shape {} doesn't match the broadcast shape {}",
                            op.name,
                            flambeau::core::Shape(&t.sizes()),
                            flambeau::core::Shape(&y.sizes())
                        ),
                    ));
                }
                if t.dtype().category() < y.dtype().category() {
                    return Err(Error::new(
                        ErrorKind::Runtime,
                        format!(
                            "result type {} can't be cast to the desired output type {}",
                            y.dtype().title(),
                            t.dtype().title()
                        ),
                    ));
                }
                if ORDERED_WRITES.contains(&op.name) {
                    for i in 1..overload.signature.params.len() {
                        if let Arg::Tensor(x) = args.get(i) {
                            flambeau::apply::check_overlap(t, x)?;
                        }
                    }
                }
                flambeau::ops::elementwise::copy_(t, y)?;
            }
            return Ok(Returned::Tensor(t.clone()));
        }
        if !out.is_empty() {
            let r = match (&r, overload.requires_grad) {
                // A factory makes what `out` can hold.
                (Returned::Tensor(t), Some(_)) if t.dtype() != out[0].dtype() => {
                    Returned::Tensor(flambeau::ops::elementwise::to_dtype(t, out[0].dtype())?)
                }
                _ => r,
            };
            return write_outs(op, overload, r, out, args);
        }
    }
    if let Some(Arg::Layout(l)) = overload.layout.map(|i| args.get(i)) {
        if l.name() != "strided" {
            return Err(flambeau::ops::sparse::refused(op.name, l.core()?, flambeau::Device::Cpu));
        }
    }
    if let Some(i) = overload.requires_grad {
        if let (Arg::Bool(true), Returned::Tensor(t)) = (args.get(i), &r) {
            t.set_requires_grad(true)?;
        }
    }
    Ok(r)
}

/// Stores a composite's results in `out=`.
unsafe fn write_outs(
    op: &Operator,
    overload: &Overload,
    r: crate::call::Returned,
    out: &[&Tensor],
    args: &Arguments<'_>,
) -> flambeau::Result<crate::call::Returned> {
    use crate::call::Returned;
    let results: SmallVec<[Tensor; 3]> = match r {
        Returned::Tensor(t) => SmallVec::from_iter([t]),
        Returned::Tensors(ts) => ts,
        Returned::List(ts) => SmallVec::from_vec(ts),
        other => return Ok(other),
    };
    if results.len() != out.len() {
        return Err(Error::new(
            ErrorKind::Type,
            format!("{}(): out= takes {} tensors, got {}", op.name, results.len(), out.len()),
        ));
    }
    if has(overload.row, Form::Apart) {
        // What also works in place may write onto its first operand.
        let first = has(overload.row, Form::Inplace) as usize;
        let given = (first..overload.signature.params.len()).filter_map(|i| match args.get(i) {
            Arg::Tensor(t) => Some(t),
            _ => None,
        });
        let operands: SmallVec<[&Tensor; 4]> = given.chain(args.tensors.iter()).collect();
        out.iter().zip(&results).try_for_each(|(t, r)| flambeau::apply::refuse_shared(t, &r.sizes(), &operands))?;
    }
    // Values with their indices, and the extremes, want results of their very dtypes; decompositions are cast.
    let exactly = results.len() == 2 && results[1].dtype() == flambeau::DType::I64 || op.name == "aminmax";
    for (t, r) in out.iter().zip(&results) {
        if exactly && t.dtype() != r.dtype() {
            let message = format!(
                "Expected out tensor to have dtype {}, but got {} instead",
                r.dtype().title(),
                t.dtype().title()
            );
            return Err(Error::new(ErrorKind::Runtime, message));
        }
        if r.requires_grad() || (t.requires_grad() && flambeau::mode::grad_enabled()) {
            return Err(Error::new(
                ErrorKind::Runtime,
                format!(
                    "{}(): functions with out=... arguments don't support automatic differentiation, but one of the arguments \
                     requires grad.",
                    op.name
                ),
            ));
        }
        flambeau::apply::write_out(t, r)?;
    }
    let outs: SmallVec<[Tensor; 3]> = out.iter().map(|t| (*t).clone()).collect();
    Ok(if outs.len() == 1 { Returned::Tensor(outs[0].clone()) } else { Returned::Tensors(outs) })
}

unsafe fn out_tensors<'a>(op: &Operator, o: Obj) -> flambeau::Result<SmallVec<[&'a Tensor; 2]>> {
    if o == Py_None() {
        return Ok(SmallVec::new());
    }
    if is_tensor(o) {
        return Ok(SmallVec::from_iter([tensor_of(o)]));
    }
    if is_sequence(o) {
        let items: SmallVec<[Obj; 2]> = (0..sequence_len(o)).map(|i| sequence_item(o, i)).collect();
        if items.iter().all(|&t| is_tensor(t)) {
            return Ok(items.iter().map(|&t| tensor_of(t)).collect());
        }
    }
    Err(Error::new(
        ErrorKind::Type,
        format!("{}(): argument 'out' must be Tensor or a tuple of Tensors, not {}", op.name, type_name(o)),
    ))
}

/// The `TypeError` of a call that no overload takes.
#[cold]
#[inline(never)]
unsafe fn explain(op: &Operator, this: Obj, given: *const Obj, n: usize, kw: Obj, failures: &[Fail]) -> Obj {
    let is_method = !this.is_null();
    let shown = |s: &Signature| -> String {
        let parts: Vec<String> = s
            .params
            .iter()
            .enumerate()
            .skip(is_method as usize)
            .map(|(i, p)| {
                let star = if i == s.positional { "*, " } else { "" };
                let ty = p
                    .spelling
                    .trim_end_matches('?')
                    .replace("int[*]", "tuple of ints")
                    .replace("Tensor[]", "tuple of Tensors");
                let ty = if ty.starts_with("int[") { "tuple of ints".into() } else { ty };
                match &p.default {
                    Default::Required => format!("{star}{ty} {}", p.name),
                    Default::None => format!("{star}{ty} {} = None", p.name),
                    Default::Bool(b) => format!("{star}{ty} {} = {}", p.name, if *b { "True" } else { "False" }),
                    Default::Int(i) => format!("{star}{ty} {} = {i}", p.name),
                    Default::Float(f) => format!("{star}{ty} {} = {f}", p.name),
                    Default::Str(t) => format!("{star}{ty} {} = '{t}'", p.name),
                    Default::Ints(l) => format!("{star}{ty} {} = {l:?}", p.name),
                }
            })
            .collect();
        format!("({})", parts.join(", "))
    };
    let describe = |o: Obj| -> String {
        if is_sequence(o) && sequence_len(o) > 0 {
            let first = type_name(sequence_item(o, 0));
            format!("{} of ({first}{})", type_name(o), if sequence_len(o) > 1 { ", ..." } else { "" })
        } else {
            type_name(o)
        }
    };
    let message = if let [overload] = &op.overloads[..] {
        let s = &overload.signature;
        match &failures[0] {
            Fail::TooMany => format!(
                "{}() takes {} positional argument{} but {} were given",
                op.name,
                s.positional - is_method as usize,
                if s.positional - is_method as usize == 1 { "" } else { "s" },
                n
            ),
            Fail::Unknown(k) => format!("{}() got an unexpected keyword argument '{}'", op.name, str_of(*k)),
            Fail::Duplicate(j) => format!("{}() got multiple values for argument '{}'", op.name, s.params[*j].name),
            Fail::Missing(j) => {
                format!("{}() missing 1 required positional arguments: \"{}\"", op.name, s.params[*j].name)
            }
            Fail::Bad(j, o) => format!(
                "{}(): argument '{}' (position {}) must be {}, not {}",
                op.name,
                s.params[*j].name,
                j + 1 - (is_method as usize).min(*j),
                s.params[*j]
                    .spelling
                    .trim_end_matches('?')
                    .replace("int[*]", "tuple of ints")
                    .replace("Tensor[]", "tuple of Tensors"),
                describe(*o)
            ),
            Fail::Raised => String::new(),
        }
    } else {
        let mut given_text: Vec<String> = (0..n).map(|i| describe(*given.add(i))).collect();
        if !kw.is_null() {
            for k in 0..PyTuple_Size(kw) {
                given_text.push(format!("{}={}", str_of(PyTuple_GetItem(kw, k)), describe(*given.add(n + k as usize))));
            }
        }
        let mut text = format!(
            "{}() received an invalid combination of arguments - got ({}), but expected one of:",
            op.name,
            given_text.join(", ")
        );
        for (overload, failure) in op.overloads.iter().zip(failures) {
            text.push_str("\n * ");
            text.push_str(&shown(&overload.signature));
            let s = &overload.signature;
            match failure {
                Fail::Bad(j, o) => {
                    text.push_str(&format!("\n      (argument '{}' cannot be {})", s.params[*j].name, describe(*o)));
                }
                Fail::Unknown(k) => text.push_str(&format!("\n      (unexpected keyword argument '{}')", str_of(*k))),
                Fail::Missing(j) => text.push_str(&format!("\n      (argument '{}' is missing)", s.params[*j].name)),
                _ => {}
            }
        }
        text
    };
    raise(Error::new(ErrorKind::Type, message))
}

/// Which forms an overload contributes to; see [`Form`].
pub fn has(row: &Row, form: Form) -> bool {
    row.forms & form as u16 != 0
}

static NAMES: std::sync::OnceLock<std::collections::HashMap<&'static str, (&'static Operator, &'static Operator)>> =
    std::sync::OnceLock::new();

/// The operators (function, method) of a top-level name, for slots that fall back on rows.
pub fn named(name: &str) -> Option<(&'static Operator, &'static Operator)> {
    let map = NAMES.get_or_init(|| {
        let mut map = std::collections::HashMap::new();
        for p in &OPERATORS {
            // SAFETY: entries are leaked boxes, written once while the module is made.
            let Some(op) = (unsafe { p.load(Ordering::Relaxed).as_ref() }) else { break };
            let op: &'static Operator = op;
            let entry = map.entry(op.path).or_insert((op, op));
            if !op.function.get().is_null() {
                entry.0 = op;
            }
            if !op.method.get().is_null() {
                entry.1 = op;
            }
        }
        map
    });
    map.get(name).copied()
}
