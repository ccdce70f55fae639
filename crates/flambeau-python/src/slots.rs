//! Tensor's operators as type slots: arithmetic, comparison, conversion, length, iteration. The usual operands (plain tensors
//! and numbers) go straight to the core; everything else through the operator's row, which knows `__torch_function__`.

use crate::binder::{self, dispatch, number, Operator};
use crate::error::*;
use crate::raw::*;
use crate::signatures::elementwise as rows;
use crate::tensor::*;
use flambeau::core::{err, ErrorKind, ScalarFn};
use flambeau::ops::elementwise;
use flambeau::{Dest, Number, Result, Tensor, Value};
use pyo3::ffi::*;
use std::ffi::{c_int, c_void};
use std::ptr::null_mut;
use std::sync::OnceLock;

/// A row of the table by its name, looked up once.
struct Row(&'static str, OnceLock<Option<(&'static Operator, &'static Operator)>>);
impl Row {
    /// The function and the method.
    #[inline]
    fn get(&self) -> Option<(&'static Operator, &'static Operator)> {
        *self.1.get_or_init(|| binder::named(self.0))
    }
}
macro_rules! row {
    ($name:literal) => {{
        static ROW: Row = Row($name, OnceLock::new());
        &ROW
    }};
}

type Function = fn(Value<'_>, Value<'_>, Dest<'_>) -> Result<Tensor>;

/// A plain tensor or number.
#[inline(always)]
unsafe fn value<'a>(o: Obj) -> Option<Value<'a>> {
    if is_exact(o) {
        return Some(Value::Tensor(tensor_of(o)));
    }
    number(o).map(Value::Number)
}

#[inline(always)]
unsafe fn done(r: Result<Tensor>) -> Obj {
    match r {
        Ok(t) => wrap(t),
        Err(e) => raise(e),
    }
}

/// `a OP b`, where either is a tensor. `name` is the row for operands that are not plain.
#[inline(always)]
unsafe fn binary(a: Obj, b: Obj, name: &'static str, f: Function) -> Obj {
    if is_exact(a) && is_exact(b) {
        // Apart from numbers: values that are moved right after they were written in parts are waited for.
        return guard(null_mut(), || {
            let (x, y) = (tensor_of(a), tensor_of(b));
            if x.is_large() || y.is_large() {
                detached(|| f(Value::Tensor(x), Value::Tensor(y), Dest::New))
            } else {
                done(f(Value::Tensor(x), Value::Tensor(y), Dest::New))
            }
        });
    }
    if let (Some(x), Some(y)) = (value(a), value(b)) {
        return guard(null_mut(), || {
            if large(x) || large(y) {
                detached(|| f(x, y, Dest::New))
            } else {
                done(f(x, y, Dest::New))
            }
        });
    }
    binary_slow(a, b, name)
}
#[inline(always)]
fn large(v: Value<'_>) -> bool {
    matches!(v, Value::Tensor(t) if t.is_large())
}
/// Runs a computation while other Python threads may run.
#[inline(never)]
unsafe fn detached(body: impl FnOnce() -> Result<Tensor>) -> Obj {
    struct Sendable<F>(F);
    // SAFETY: the closure runs on this very thread and touches no Python object.
    unsafe impl<F> Send for Sendable<F> {}
    impl<F: FnOnce() -> Result<Tensor>> Sendable<F> {
        fn call(self) -> Result<Tensor> {
            (self.0)()
        }
    }
    let body = Sendable(body);
    let r = pyo3::Python::assume_attached().detach(move || body.call());
    done(r)
}
#[inline(never)]
unsafe fn binary_slow(a: Obj, b: Obj, name: &'static str) -> Obj {
    if !PyErr_Occurred().is_null() {
        return overflow();
    }
    if !acceptable(a) || !acceptable(b) {
        return not_implemented();
    }
    let Some((function, method)) = binder::named(name) else { return not_implemented() };
    if is_tensor(a) {
        dispatch(method, a, &b, 1, null_mut())
    } else {
        dispatch(function, null_mut(), [a, b].as_ptr(), 2, null_mut())
    }
}
/// Whether an operator could take this operand.
unsafe fn acceptable(o: Obj) -> bool {
    is_tensor(o) || number(o).is_some() || crate::overrides::of_type(Py_TYPE(o)) == crate::overrides::Kind::Custom
}
#[cold]
unsafe fn overflow() -> Obj {
    PyErr_Clear();
    raise(err!(Runtime, "Overflow when unpacking long: an integer operand is beyond 64 bits"))
}

/// `a OP= b`.
#[inline(always)]
unsafe fn inplace(a: Obj, b: Obj, name: &'static str, f: Function) -> Obj {
    if is_exact(a) {
        if let Some(y) = value(b) {
            let t = tensor_of(a);
            return guard(null_mut(), || match f(Value::Tensor(t), y, Dest::Inplace(t)) {
                Ok(_) => new_ref(a),
                Err(e) => raise(e),
            });
        }
    }
    if !PyErr_Occurred().is_null() {
        return overflow();
    }
    if !acceptable(b) {
        return not_implemented();
    }
    match binder::named(name) {
        Some((_, method)) => dispatch(method, a, &b, 1, null_mut()),
        None => not_implemented(),
    }
}

macro_rules! table_function {
    ($name:ident $Row:ident) => {
        fn $name(a: Value<'_>, b: Value<'_>, dest: Dest<'_>) -> Result<Tensor> {
            elementwise::binary(ScalarFn::$Row, a, b, dest)
        }
    };
}
table_function!(mul Mul);
table_function!(truediv Div);
table_function!(floordiv FloorDiv);
table_function!(remainder Remainder);
table_function!(and BitAnd);
table_function!(or BitOr);
table_function!(xor BitXor);
table_function!(lshift ShiftLeft);
table_function!(rshift ShiftRight);
table_function!(add Add);
fn sub(a: Value<'_>, b: Value<'_>, dest: Dest<'_>) -> Result<Tensor> {
    rows::sub_values(a, b, Number::Int(1), dest)
}
fn pow(a: Value<'_>, b: Value<'_>, dest: Dest<'_>) -> Result<Tensor> {
    rows::pow(a, b, dest)
}

macro_rules! binary_slots {
    ($($slot:ident $islot:ident $name:literal $iname:literal $f:ident;)*) => { $(
        unsafe extern "C" fn $slot(a: Obj, b: Obj) -> Obj { binary(a, b, $name, $f) }
        unsafe extern "C" fn $islot(a: Obj, b: Obj) -> Obj { inplace(a, b, $iname, $f) }
    )* };
}
binary_slots! {
    nb_add nb_iadd "add" "add_" add;
    nb_sub nb_isub "sub" "sub_" sub;
    nb_mul nb_imul "mul" "mul_" mul;
    nb_div nb_idiv "div" "div_" truediv;
    nb_floordiv nb_ifloordiv "floor_divide" "floor_divide_" floordiv;
    nb_mod nb_imod "remainder" "remainder_" remainder;
    nb_and nb_iand "bitwise_and" "bitwise_and_" and;
    nb_or nb_ior "bitwise_or" "bitwise_or_" or;
    nb_xor nb_ixor "bitwise_xor" "bitwise_xor_" xor;
    nb_lshift nb_ilshift "bitwise_left_shift" "bitwise_left_shift_" lshift;
    nb_rshift nb_irshift "bitwise_right_shift" "bitwise_right_shift_" rshift;
}
unsafe extern "C" fn nb_pow(a: Obj, b: Obj, _: Obj) -> Obj {
    binary(a, b, "pow", pow)
}
unsafe extern "C" fn nb_ipow(a: Obj, b: Obj, _: Obj) -> Obj {
    inplace(a, b, "pow_", pow)
}
unsafe extern "C" fn nb_matmul(a: Obj, b: Obj) -> Obj {
    if !acceptable(a) || !acceptable(b) {
        return not_implemented();
    }
    match row!("matmul").get() {
        Some((_, method)) if is_tensor(a) => dispatch(method, a, &b, 1, null_mut()),
        Some((function, _)) => dispatch(function, null_mut(), [a, b].as_ptr(), 2, null_mut()),
        None => not_implemented(),
    }
}

/// A method without arguments, by its row.
unsafe fn by_row(o: Obj, row: &Row) -> Obj {
    match row.get() {
        Some((_, method)) => dispatch(method, o, std::ptr::null(), 0, null_mut()),
        None => raise(err!(NotImplemented, "no operator named {}", row.0)),
    }
}
unsafe extern "C" fn nb_neg(o: Obj) -> Obj {
    by_row(o, row!("neg"))
}
unsafe extern "C" fn nb_pos(o: Obj) -> Obj {
    by_row(o, row!("positive"))
}
unsafe extern "C" fn nb_abs(o: Obj) -> Obj {
    by_row(o, row!("abs"))
}
unsafe extern "C" fn nb_invert(o: Obj) -> Obj {
    if is_tensor(o) && !tensor_of(o).dtype().is_integral(true) {
        return raise(err!(Type, "~ (operator.invert) is only implemented on integer and Boolean-type tensors"));
    }
    by_row(o, row!("bitwise_not"))
}

unsafe extern "C" fn richcompare(a: Obj, b: Obj, op: c_int) -> Obj {
    // Py_LT … Py_GE are 0 … 5, in this order.
    const OPERATORS: [(ScalarFn, &str); 6] = [
        (ScalarFn::Lt, "lt"),
        (ScalarFn::Le, "le"),
        (ScalarFn::Eq, "eq"),
        (ScalarFn::Ne, "ne"),
        (ScalarFn::Gt, "gt"),
        (ScalarFn::Ge, "ge"),
    ];
    let (f, name) = OPERATORS[op as usize % 6];
    if let (Some(x), Some(y)) = (value(a), value(b)) {
        return guard(null_mut(), || done(elementwise::binary(f, x, y, Dest::New)));
    }
    if f == ScalarFn::Eq && is_tensor(a) && PyErr_Occurred().is_null() && !acceptable(b) {
        // An array is compared as the tensor of its memory; one without a tensor's dtype is some other object.
        return guard(null_mut(), || match crate::convert::array_like(b) {
            Ok(Some(array)) => done(elementwise::binary(f, tensor_of(a), &array, Dest::New)),
            Err(e) if e.kind() != ErrorKind::Type => raise(e),
            _ => {
                PyErr_Clear();
                not_implemented()
            }
        });
    }
    binary_slow(a, b, name)
}

/// The value of a one-element tensor, for the conversions.
unsafe fn item(o: Obj) -> Result<Number> {
    tensor_of(o).item()
}
unsafe extern "C" fn nb_bool(o: Obj) -> c_int {
    guard(-1, || {
        let n = tensor_of(o).numel();
        let r = match n {
            0 => Err(err!(Runtime, "Boolean value of Tensor with no values is ambiguous")),
            1 => item(o).map(Number::to_bool),
            _ => Err(err!(Runtime, "Boolean value of Tensor with more than one value is ambiguous")),
        };
        match r {
            Ok(b) => b as c_int,
            Err(e) => {
                raise(e);
                -1
            }
        }
    })
}
unsafe extern "C" fn nb_int(o: Obj) -> Obj {
    guard(null_mut(), || match item(o) {
        Ok(Number::Float(f)) => PyLong_FromDouble(f),
        Ok(Number::Complex(_)) => raise(err!(Runtime, "value cannot be converted to type int64_t without overflow")),
        Ok(n) => whole(o, n),
        Err(e) => raise(e),
    })
}
/// A whole number as Python's int; one of uint64 may lie beyond int64, whose bits the number has.
unsafe fn whole(o: Obj, n: Number) -> Obj {
    match tensor_of(o).dtype() {
        flambeau::DType::U64 => PyLong_FromUnsignedLongLong(n.to_i64() as u64),
        _ => PyLong_FromLongLong(n.to_i64()),
    }
}
unsafe extern "C" fn nb_float(o: Obj) -> Obj {
    guard(null_mut(), || match item(o) {
        Ok(Number::Complex(c)) if c.im != 0.0 => {
            raise(err!(Runtime, "value cannot be converted to type double without overflow"))
        }
        Ok(n) if tensor_of(o).dtype() == flambeau::DType::U64 => PyFloat_FromDouble(n.to_i64() as u64 as f64),
        Ok(n) => PyFloat_FromDouble(n.to_f64()),
        Err(e) => raise(e),
    })
}
unsafe extern "C" fn nb_index(o: Obj) -> Obj {
    guard(null_mut(), || {
        let t = tensor_of(o);
        if t.numel() != 1 || !t.dtype().is_integral(true) {
            return raise(err!(Type, "only integer tensors of a single element can be converted to an index"));
        }
        match item(o) {
            Ok(n) => whole(o, n),
            Err(e) => raise(e),
        }
    })
}

unsafe extern "C" fn length(o: Obj) -> Py_ssize_t {
    guard(-1, || match tensor_of(o).sizes().first() {
        Some(&n) => n as Py_ssize_t,
        None => {
            raise(err!(Type, "len() of a 0-d tensor"));
            -1
        }
    })
}
unsafe extern "C" fn iterate(o: Obj) -> Obj {
    guard(null_mut(), || {
        if tensor_of(o).dim() == 0 {
            return raise(err!(Type, "iteration over a 0-d tensor"));
        }
        let parts = by_row(o, row!("unbind"));
        if parts.is_null() {
            return parts;
        }
        let it = PyObject_GetIter(parts);
        Py_DECREF(parts);
        it
    })
}
unsafe extern "C" fn contains(o: Obj, element: Obj) -> c_int {
    guard(-1, || {
        if !is_tensor(element) && number(element).is_none() {
            PyErr_Clear();
            raise(err!(
                Runtime,
                "Tensor.__contains__ only supports Tensor or scalar, but you passed in a {}.",
                repr_of(Py_TYPE(element).cast())
            ));
            return -1;
        }
        let equal = PyObject_RichCompare(o, element, Py_EQ);
        if equal.is_null() {
            return -1;
        }
        let any = by_row(equal, row!("any"));
        Py_DECREF(equal);
        if any.is_null() {
            return -1;
        }
        let r = PyObject_IsTrue(any);
        Py_DECREF(any);
        r
    })
}
unsafe extern "C" fn hash(o: Obj) -> Py_hash_t {
    // Identity, as for any object without an equality of its own: tensors' `==` is element by element.
    ((o as usize) >> 4) as Py_hash_t
}
unsafe extern "C" fn repr(o: Obj) -> Obj {
    guard(null_mut(), || {
        // A subclass that answers for `repr` itself.
        crate::print::repr(o)
    })
}

/// The slots of this module.
pub fn table() -> Vec<PyType_Slot> {
    macro_rules! slots {
        ($($id:ident $f:expr;)*) => { vec![$(slot($id, $f as *mut c_void)),*] };
    }
    slots! {
        Py_nb_add nb_add; Py_nb_inplace_add nb_iadd; Py_nb_subtract nb_sub; Py_nb_inplace_subtract nb_isub;
        Py_nb_multiply nb_mul; Py_nb_inplace_multiply nb_imul; Py_nb_true_divide nb_div; Py_nb_inplace_true_divide nb_idiv;
        Py_nb_floor_divide nb_floordiv; Py_nb_inplace_floor_divide nb_ifloordiv; Py_nb_remainder nb_mod;
        Py_nb_inplace_remainder nb_imod; Py_nb_and nb_and; Py_nb_inplace_and nb_iand; Py_nb_or nb_or; Py_nb_inplace_or nb_ior;
        Py_nb_xor nb_xor; Py_nb_inplace_xor nb_ixor; Py_nb_lshift nb_lshift; Py_nb_inplace_lshift nb_ilshift;
        Py_nb_rshift nb_rshift; Py_nb_inplace_rshift nb_irshift; Py_nb_power nb_pow; Py_nb_inplace_power nb_ipow;
        Py_nb_matrix_multiply nb_matmul; Py_nb_negative nb_neg; Py_nb_positive nb_pos; Py_nb_absolute nb_abs;
        Py_nb_invert nb_invert; Py_nb_bool nb_bool; Py_nb_int nb_int; Py_nb_float nb_float; Py_nb_index nb_index;
        Py_tp_richcompare richcompare; Py_tp_hash hash; Py_tp_repr repr; Py_tp_iter iterate;
        Py_mp_length length; Py_mp_subscript crate::indexing::get; Py_mp_ass_subscript crate::indexing::set;
        Py_sq_contains contains; Py_sq_length length;
    }
}
