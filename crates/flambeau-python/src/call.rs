//! From bound arguments to a Rust function's arguments, and from its result to a Python object. The types are checked when
//! the crate is compiled: a row whose signature does not say what its function takes does not build.

use crate::error::*;
use crate::raw::*;
use crate::signature::Type;
use crate::tensor::wrap;
use crate::types::{self, Layout, MemoryFormat};
use flambeau::core::{Dims, Number};
use flambeau::random::Generator;
use flambeau::{DType, Dest, Device, Result, Tensor, Value};
use pyo3::ffi::*;
use pyo3::prelude::*;
use smallvec::SmallVec;
use std::mem::MaybeUninit;

/// The most parameters a signature may have.
pub const MAX_PARAMS: usize = 24;

/// One bound argument. Lists are ranges of [`Arguments`]' buffers.
#[derive(Clone, Copy)]
pub enum Arg<'a> {
    None,
    Tensor(&'a Tensor),
    Number(Number),
    Int(i64),
    Float(f64),
    Bool(bool),
    Ints(u16, u16),
    Floats(u16, u16),
    Tensors(u32, u32),
    Str(&'a str),
    DType(DType),
    Device(Device),
    Layout(Layout),
    MemoryFormat(MemoryFormat),
    Generator(&'a Generator),
    Object(Obj),
}

/// The arguments of one call, in the signature's order.
pub struct Arguments<'a> {
    pub slots: [MaybeUninit<Arg<'a>>; MAX_PARAMS],
    pub ints: SmallVec<[i64; 12]>,
    pub floats: SmallVec<[f64; 2]>,
    pub tensors: SmallVec<[Tensor; 2]>,
    pub optional: Vec<Option<Tensor>>,
    pub dest: Dest<'a>,
}

impl<'a> Arguments<'a> {
    /// No arguments yet.
    #[inline]
    pub fn new() -> Self {
        Arguments {
            slots: [const { MaybeUninit::uninit() }; MAX_PARAMS],
            ints: SmallVec::new(),
            floats: SmallVec::new(),
            tensors: SmallVec::new(),
            optional: Vec::new(),
            dest: Dest::New,
        }
    }
    /// Argument `i`.
    ///
    /// # Safety
    /// Slot `i` was filled by the binder.
    #[inline(always)]
    pub unsafe fn get(&self, i: usize) -> Arg<'a> {
        self.slots[i].assume_init()
    }
}

/// A borrowed Python object, for rows that take one as it is. Valid during the call, while attached.
#[derive(Clone, Copy)]
pub struct Object(pub Obj);
// SAFETY: rows that take objects never run detached (see the binder).
unsafe impl Send for Object {}
impl Object {
    /// As PyO3 sees it.
    pub fn bind<'py>(&self, py: Python<'py>) -> Bound<'py, PyAny> {
        // SAFETY: the binder keeps the argument alive during the call.
        unsafe { Bound::from_borrowed_ptr(py, self.0) }
    }
}

/// A Rust argument type of operator functions.
pub trait FromArg<'a>: Sized {
    /// What the signature must say, and whether with `?`.
    const TYPE: (Type, bool);
    /// Reads bound argument `i`.
    ///
    /// # Safety
    /// Slot `i` was bound with a parameter of `TYPE`.
    unsafe fn from_arg(args: &'a Arguments<'a>, i: usize) -> Self;
    /// Reads an argument of a function that takes one tensor, and perhaps a destination; see [`Invoke::invoke_bare`].
    #[inline(always)]
    fn from_bare(_: &'a Tensor, _: Dest<'a>) -> Self {
        unreachable!("an argument that is no tensor")
    }
}

macro_rules! from_arg {
    ($($t:ty, $kind:ident, $args:ident $i:ident, $pattern:pat => $value:expr;)*) => { $(
        impl<'a> FromArg<'a> for $t {
            const TYPE: (Type, bool) = (Type::$kind, false);
            #[inline(always)]
            unsafe fn from_arg($args: &'a Arguments<'a>, $i: usize) -> Self {
                match $args.get($i) { $pattern => $value, _ => std::hint::unreachable_unchecked() }
            }
        }
        impl<'a> FromArg<'a> for Option<$t> {
            const TYPE: (Type, bool) = (Type::$kind, true);
            #[inline(always)]
            unsafe fn from_arg($args: &'a Arguments<'a>, $i: usize) -> Self {
                match $args.get($i) { $pattern => Some($value), _ => None }
            }
        }
    )* };
}
impl<'a> FromArg<'a> for &'a Tensor {
    const TYPE: (Type, bool) = (Type::Tensor, false);
    #[inline(always)]
    unsafe fn from_arg(args: &'a Arguments<'a>, i: usize) -> Self {
        match args.get(i) {
            Arg::Tensor(t) => t,
            _ => std::hint::unreachable_unchecked(),
        }
    }
    #[inline(always)]
    fn from_bare(t: &'a Tensor, _: Dest<'a>) -> Self {
        t
    }
}
impl<'a> FromArg<'a> for Option<&'a Tensor> {
    const TYPE: (Type, bool) = (Type::Tensor, true);
    #[inline(always)]
    unsafe fn from_arg(args: &'a Arguments<'a>, i: usize) -> Self {
        match args.get(i) {
            Arg::Tensor(t) => Some(t),
            _ => None,
        }
    }
}
from_arg! {
    Number, Number, args i, Arg::Number(n) => n;
    i64, Int, args i, Arg::Int(n) => n;
    f64, Float, args i, Arg::Float(n) => n;
    bool, Bool, args i, Arg::Bool(b) => b;
    &'a [i64], Ints, args i, Arg::Ints(from, n) => &args.ints[from as usize..(from + n) as usize];
    &'a [f64], Floats, args i, Arg::Floats(from, n) => &args.floats[from as usize..(from + n) as usize];
    &'a [Tensor], Tensors, args i, Arg::Tensors(from, n) => &args.tensors[from as usize..(from + n) as usize];
    &'a [Option<Tensor>], OptionalTensors, args i, Arg::Tensors(from, n) => &args.optional[from as usize..(from + n) as usize];
    &'a str, Str, args i, Arg::Str(s) => s;
    DType, DType, args i, Arg::DType(d) => d;
    Device, Device, args i, Arg::Device(d) => d;
    Layout, Layout, args i, Arg::Layout(l) => l;
    MemoryFormat, MemoryFormat, args i, Arg::MemoryFormat(f) => f;
    &'a Generator, Generator, args i, Arg::Generator(g) => g;
}
impl<'a> FromArg<'a> for Value<'a> {
    const TYPE: (Type, bool) = (Type::TensorOrNumber, false);
    #[inline(always)]
    unsafe fn from_arg(args: &'a Arguments<'a>, i: usize) -> Self {
        match args.get(i) {
            Arg::Tensor(t) => Value::Tensor(t),
            Arg::Number(n) => Value::Number(n),
            _ => std::hint::unreachable_unchecked(),
        }
    }
}
impl<'a> FromArg<'a> for Option<Value<'a>> {
    const TYPE: (Type, bool) = (Type::TensorOrNumber, true);
    #[inline(always)]
    unsafe fn from_arg(args: &'a Arguments<'a>, i: usize) -> Self {
        match args.get(i) {
            Arg::Tensor(t) => Some(Value::Tensor(t)),
            Arg::Number(n) => Some(Value::Number(n)),
            _ => None,
        }
    }
}
impl<'a> FromArg<'a> for Object {
    const TYPE: (Type, bool) = (Type::Object, false);
    #[inline(always)]
    unsafe fn from_arg(args: &'a Arguments<'a>, i: usize) -> Self {
        match args.get(i) {
            Arg::Object(o) => Object(o),
            _ => Object(Py_None()),
        }
    }
}
impl<'a> FromArg<'a> for Option<Object> {
    const TYPE: (Type, bool) = (Type::Object, true);
    #[inline(always)]
    unsafe fn from_arg(args: &'a Arguments<'a>, i: usize) -> Self {
        match args.get(i) {
            Arg::Object(o) if o != Py_None() => Some(Object(o)),
            _ => None,
        }
    }
}
impl<'a> FromArg<'a> for Dest<'a> {
    const TYPE: (Type, bool) = (Type::Dest, false);
    #[inline(always)]
    unsafe fn from_arg(args: &'a Arguments<'a>, _: usize) -> Self {
        args.dest
    }
    #[inline(always)]
    fn from_bare(_: &'a Tensor, dest: Dest<'a>) -> Self {
        dest
    }
}

/// What an operator function returned, before it is a Python object.
pub enum Returned {
    Tensor(Tensor),
    /// A fixed number of tensors: a tuple, or a named tuple where the signature says so.
    Tensors(SmallVec<[Tensor; 3]>),
    /// Parts of a tuple that are not all tensors.
    Tuple(Vec<Returned>),
    List(Vec<Tensor>),
    Bool(bool),
    Int(i64),
    Float(f64),
    Number(Number),
    Dims(Dims),
    Str(String),
    DType(DType),
    Device(Device),
    None,
    /// A new reference.
    Object(Py<PyAny>),
}

/// A Rust result type of operator functions.
pub trait Return {
    /// How stubs write it.
    const STUB: &'static str;
    fn returned(self) -> Returned;
    /// The Python object. What calls give back most goes there by itself: every move of a [`Returned`] waits for its parts to be
    /// written.
    ///
    /// # Safety
    /// The interpreter is attached.
    #[inline(always)]
    unsafe fn object(self) -> Obj
    where
        Self: Sized,
    {
        self.returned().into_object(std::ptr::null_mut())
    }
}
macro_rules! returns {
    ($($t:ty, $stub:literal, $x:ident => $e:expr $(, object $o:expr)?;)*) => { $(
        impl Return for $t {
            const STUB: &'static str = $stub;
            #[inline(always)]
            fn returned(self) -> Returned { let $x = self; $e }
            $(
                #[inline(always)]
                unsafe fn object(self) -> Obj { let $x = self; $o }
            )?
        }
    )* };
}
returns! {
    Tensor, "Tensor", x => Returned::Tensor(x), object wrap(x);
    (Tensor, Tensor), "tuple[Tensor, Tensor]", x => Returned::Tensors(SmallVec::from_iter([x.0, x.1]));
    (Tensor, Tensor, Tensor), "tuple[Tensor, Tensor, Tensor]", x => Returned::Tensors(SmallVec::from_iter([x.0, x.1, x.2]));
    (Tensor, Tensor, Tensor, Tensor), "tuple[Tensor, Tensor, Tensor, Tensor]", x => Returned::Tensors(SmallVec::from_iter([x.0, x.1, x.2, x.3]));
    Vec<Tensor>, "tuple[Tensor, ...]", x => Returned::List(x);
    SmallVec<[Tensor; 2]>, "tuple[Tensor, ...]", x => Returned::Tensors(x.into_iter().collect());
    bool, "bool", x => Returned::Bool(x), object bool_object(x);
    i64, "int", x => Returned::Int(x), object PyLong_FromLongLong(x);
    f64, "float", x => Returned::Float(x), object PyFloat_FromDouble(x);
    Number, "Number", x => Returned::Number(x);
    Dims, "Size", x => Returned::Dims(x);
    Vec<i64>, "Size", x => Returned::Dims(Dims::from_vec(x));
    String, "str", x => Returned::Str(x);
    &'static str, "str", x => Returned::Str(x.to_owned());
    DType, "dtype", x => Returned::DType(x);
    Device, "device", x => Returned::Device(x);
    (), "None", _x => Returned::None;
    Py<PyAny>, "Any", x => Returned::Object(x), object x.into_ptr();
    Returned, "Any", x => x;
}
impl<T: Return> Return for Option<T> {
    const STUB: &'static str = T::STUB;
    fn returned(self) -> Returned {
        self.map_or(Returned::None, Return::returned)
    }
}
impl Return for (Tensor, Vec<Tensor>) {
    const STUB: &'static str = "tuple[Tensor, tuple[Tensor, ...]]";
    fn returned(self) -> Returned {
        Returned::Tuple(vec![Returned::Tensor(self.0), Returned::List(self.1)])
    }
}
impl Return for (Tensor, Option<Tensor>) {
    const STUB: &'static str = "tuple[Tensor, Tensor | None]";
    fn returned(self) -> Returned {
        Returned::Tuple(vec![Returned::Tensor(self.0), self.1.returned()])
    }
}

impl Returned {
    /// One result from those of several calls: `join` makes one tensor of the tensors at each place.
    ///
    /// # Errors
    /// Those of `join`; `Batch` where the results are no tensors, or not equally many.
    pub fn stack(results: Vec<Returned>, join: impl Fn(&[Tensor]) -> Result<Tensor> + Copy) -> Result<Returned> {
        let unequal = || flambeau::core::err!(Batch, "vmap: the results of the examples cannot be stacked");
        let columns = |rows: Vec<Vec<Tensor>>| -> Result<Vec<Tensor>> {
            let n = rows.first().map_or(0, Vec::len);
            if rows.iter().any(|r| r.len() != n) {
                return Err(unequal());
            }
            (0..n).map(|k| join(&rows.iter().map(|r| r[k].clone()).collect::<Vec<_>>())).collect()
        };
        let first = results.first().ok_or_else(unequal)?;
        if let Returned::Tuple(parts) = first {
            let n = parts.len();
            let mut places: Vec<Vec<Returned>> = (0..n).map(|_| Vec::new()).collect();
            for r in results {
                let Returned::Tuple(parts) = r else { return Err(unequal()) };
                places.iter_mut().zip(parts).for_each(|(place, part)| place.push(part));
            }
            return Ok(Returned::Tuple(places.into_iter().map(|p| Self::stack(p, join)).collect::<Result<_>>()?));
        }
        let (single, list) = (matches!(first, Returned::Tensor(_)), matches!(first, Returned::List(_)));
        if results.iter().all(|r| matches!(r, Returned::None)) {
            return Ok(Returned::None);
        }
        let rows = results
            .into_iter()
            .map(|r| match r {
                Returned::Tensor(t) => Ok(vec![t]),
                Returned::Tensors(ts) => Ok(ts.into_iter().collect()),
                Returned::List(ts) => Ok(ts),
                _ => Err(unequal()),
            })
            .collect::<Result<Vec<_>>>()?;
        let mut found = columns(rows)?;
        Ok(match (single, list) {
            (true, _) => Returned::Tensor(found.swap_remove(0)),
            (_, true) => Returned::List(found),
            _ => Returned::Tensors(found.into_iter().collect()),
        })
    }
    /// The Python object. A tuple of tensors takes the type `named` if there is one.
    ///
    /// # Safety
    /// The interpreter is attached.
    #[inline]
    pub unsafe fn into_object(self, named: *mut PyTypeObject) -> Obj {
        match self {
            Returned::Tensor(t) => wrap(t),
            other => other.into_object_slow(named),
        }
    }
    unsafe fn into_object_slow(self, named: *mut PyTypeObject) -> Obj {
        match self {
            Returned::Tensor(t) => wrap(t),
            Returned::Tensors(ts) => {
                let items: SmallVec<[Obj; 4]> = ts.into_iter().map(|t| wrap(t)).collect();
                if named.is_null() {
                    return tuple_from(&items);
                }
                let o = PyStructSequence_New(named);
                for (i, item) in items.into_iter().enumerate() {
                    PyStructSequence_SetItem(o, i as Py_ssize_t, item);
                }
                o
            }
            Returned::Tuple(parts) => {
                let items: SmallVec<[Obj; 4]> =
                    parts.into_iter().map(|r| r.into_object(std::ptr::null_mut())).collect();
                tuple_from(&items)
            }
            Returned::List(ts) => {
                let items: Vec<Obj> = ts.into_iter().map(|t| wrap(t)).collect();
                tuple_from(&items)
            }
            Returned::Bool(b) => bool_object(b),
            Returned::Int(i) => PyLong_FromLongLong(i),
            Returned::Float(f) => PyFloat_FromDouble(f),
            Returned::Number(n) => number_object(n),
            Returned::Dims(d) => types::size_object(&d),
            Returned::Str(s) => str_object(&s),
            Returned::DType(d) => types::dtype_object(d),
            Returned::Device(d) => types::device_object(d),
            Returned::None => none(),
            Returned::Object(o) => o.into_ptr(),
        }
    }
}

/// A Python number.
///
/// # Safety
/// The interpreter is attached.
#[inline]
pub unsafe fn number_object(n: Number) -> Obj {
    match n {
        Number::Bool(b) => bool_object(b),
        Number::Int(i) => PyLong_FromLongLong(i),
        Number::Float(f) => PyFloat_FromDouble(f),
        Number::Complex(c) => PyComplex_FromDoubles(c.re, c.im),
    }
}

/// A function that can stand behind a row. `M` is the tuple of its argument and result types.
pub trait Invoke<'a, M> {
    /// The argument types.
    const TYPES: &'static [(Type, bool)];
    /// How stubs write the result.
    const STUB: &'static str;
    /// Calls it.
    ///
    /// # Safety
    /// `args` was bound by a signature with these types.
    unsafe fn invoke(&self, args: &'a Arguments<'a>) -> Result<Returned>;
    /// Calls one whose arguments are a tensor and perhaps a destination, without binding any.
    ///
    /// # Errors
    /// The function's.
    ///
    /// # Safety
    /// The interpreter is attached.
    unsafe fn invoke_bare(&self, t: &'a Tensor, dest: Dest<'a>) -> Result<Obj>;
}
macro_rules! invoke {
    ($($A:ident $i:tt),*) => {
        impl<'a, F, R: Return, $($A: FromArg<'a>),*> Invoke<'a, (R, $($A,)*)> for F where F: Fn($($A),*) -> Result<R> {
            const TYPES: &'static [(Type, bool)] = &[$($A::TYPE),*];
            const STUB: &'static str = R::STUB;
            #[inline(always)]
            #[allow(unused_variables)]
            unsafe fn invoke(&self, args: &'a Arguments<'a>) -> Result<Returned> {
                Ok(self($($A::from_arg(args, $i)),*)?.returned())
            }
            #[inline(always)]
            #[allow(unused_variables)]
            unsafe fn invoke_bare(&self, t: &'a Tensor, dest: Dest<'a>) -> Result<Obj> {
                Ok(self($($A::from_bare(t, dest)),*)?.object())
            }
        }
    };
}
invoke!();
invoke!(A 0);
invoke!(A 0, B 1);
invoke!(A 0, B 1, C 2);
invoke!(A 0, B 1, C 2, D 3);
invoke!(A 0, B 1, C 2, D 3, E 4);
invoke!(A 0, B 1, C 2, D 3, E 4, G 5);
invoke!(A 0, B 1, C 2, D 3, E 4, G 5, H 6);
invoke!(A 0, B 1, C 2, D 3, E 4, G 5, H 6, I 7);
invoke!(A 0, B 1, C 2, D 3, E 4, G 5, H 6, I 7, J 8);
invoke!(A 0, B 1, C 2, D 3, E 4, G 5, H 6, I 7, J 8, K 9);
invoke!(A 0, B 1, C 2, D 3, E 4, G 5, H 6, I 7, J 8, K 9, L 10);
invoke!(A 0, B 1, C 2, D 3, E 4, G 5, H 6, I 7, J 8, K 9, L 10, N 11);
invoke!(A 0, B 1, C 2, D 3, E 4, G 5, H 6, I 7, J 8, K 9, L 10, N 11, O 12);
invoke!(A 0, B 1, C 2, D 3, E 4, G 5, H 6, I 7, J 8, K 9, L 10, N 11, O 12, P 13);

/// The argument types of a function, for a row's const assertion.
pub const fn types_of<'a, M, F: Invoke<'a, M>>(_: &F) -> &'static [(Type, bool)] {
    F::TYPES
}
/// How stubs write a function's result.
pub const fn stub_of<'a, M, F: Invoke<'a, M>>(_: &F) -> &'static str {
    F::STUB
}
/// Calls a function with bound arguments.
///
/// # Safety
/// See [`Invoke::invoke`].
#[inline(always)]
pub unsafe fn invoke<'a, M, F: Invoke<'a, M>>(f: F, args: &'a Arguments<'a>) -> Result<Returned> {
    f.invoke(args)
}

/// [`invoke`] for a function that takes one tensor and perhaps a destination: the result is at once a Python object.
///
/// # Errors
/// The function's.
///
/// # Safety
/// The interpreter is attached.
#[inline(always)]
pub unsafe fn invoke_bare<'a, M, F: Invoke<'a, M>>(f: F, t: &'a Tensor, dest: Dest<'a>) -> Result<Obj> {
    f.invoke_bare(t, dest)
}

/// Runs PyO3 code inside a row.
pub fn with_py<T>(body: impl FnOnce(Python<'_>) -> PyResult<T>) -> Result<T> {
    Python::attach(|py| body(py).map_err(|e| from_python(py, e)))
}
