//! Scalar functions: the enum and what can be known of a row without computing anything. The rows are in
//! `scalar_table.rs`.

use crate::{Category, Class, DType};

/// How a scalar function's result dtype follows from its operands'.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DTypeRule {
    /// The promoted dtype of the operands.
    Promote,
    /// The promoted dtype; integers and bool become the default float dtype.
    Float,
    /// As `Float`, but float16 and bfloat16 are refused.
    Wide,
    /// Bool; operands are promoted together for the computation.
    Predicate,
    /// The promoted dtype, its real counterpart when complex.
    Real,
    /// The first operand is a condition (any dtype, tested against zero) and takes no part in promotion.
    Select,
}

const FLOAT_FAMILY: u8 = 1;
const INT_FAMILY: u8 = 2;
const COMPLEX_FAMILY: u8 = 4;
const fn family_bit(name: &str) -> u8 {
    match name.as_bytes()[0] {
        b'f' => FLOAT_FAMILY,
        b'i' => INT_FAMILY,
        _ => COMPLEX_FAMILY,
    }
}

macro_rules! define {
    (names ($($names:ident)*);
     $( $(#[$doc:meta])* $Name:ident $name:literal ($($arg:ident)*) $rule:ident
        [$($class:ident $formula:tt)*] cuda [$($cclass:ident $cuda:literal)*] saves [$($saved:ident)*] grad $grad:tt; )*) => {
        /// A row of the table of scalar functions.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum ScalarFn { $( $(#[$doc])* $Name ),* }

        impl ScalarFn {
            /// Every row, in table order.
            pub const ALL: &'static [ScalarFn] = &[$(ScalarFn::$Name),*];
            /// The row's name: `"add"`.
            pub const fn name(self) -> &'static str { match self { $(ScalarFn::$Name => $name),* } }
            /// Number of operands, 1 to 4.
            #[inline]
            pub const fn arity(self) -> usize { Self::ARITIES[self as usize] as usize }
            /// How the result's dtype is found.
            #[inline]
            pub const fn rule(self) -> DTypeRule { Self::RULES[self as usize] }
            /// The families of classes that have a formula: bits of [`family_bit`], row by row.
            const FAMILIES: &'static [u8] = &[$( 0 $(| family_bit(stringify!($class)))* ),*];
            const RULES: &'static [DTypeRule] = &[$(DTypeRule::$rule),*];
            const ARITIES: &'static [u8] = &[$([$(stringify!($arg)),*].len() as u8),*];
            /// Which operands (by position) and whether the output are kept for the gradient: bits 0–3 and bit 7.
            pub fn saves(self) -> u8 {
                match self { $(ScalarFn::$Name => {
                    let args: &[&str] = &[$(stringify!($arg)),*];
                    let saved: &[&str] = &[$(stringify!($saved)),*];
                    let mut mask = 0u8;
                    for s in saved {
                        match args.iter().position(|a| a == s) { Some(i) => mask |= 1 << i, None => mask |= 0x80 }
                    }
                    mask
                }),* }
            }
            /// CUDA C expressions: (`"float"` | `"int"` | `"complex"`, text with the row's argument names).
            pub const fn cuda(self) -> &'static [(&'static str, &'static str)] {
                match self { $(ScalarFn::$Name => &[$((stringify!($cclass), $cuda)),*]),* }
            }
            /// The names of the arguments in the formulas.
            pub const fn args(self) -> &'static [&'static str] { match self { $(ScalarFn::$Name => &[$(stringify!($arg)),*]),* } }
        }
    };
}
crate::for_each_scalar_function!(define);

impl ScalarFn {
    /// Whether the row takes numbers of `dtype`.
    pub fn takes(self, dtype: DType) -> bool {
        self.supports(dtype.class()) && !(self.rule() == DTypeRule::Wide && dtype.is_reduced())
    }
    /// Whether the row has a formula for numbers of `class`.
    #[inline]
    pub const fn supports(self, class: Class) -> bool {
        let want = match class {
            Class::F32 | Class::F64 => FLOAT_FAMILY,
            Class::I64 => INT_FAMILY,
            Class::C32 | Class::C64 => COMPLEX_FAMILY,
        };
        Self::FAMILIES[self as usize] & want != 0
    }
    /// The dtype in which the row computes when its promoted operand dtype is `dtype`: `Float` rows (and rows with no
    /// integer formula) take integers in `float`.
    #[inline]
    pub fn compute_dtype(self, dtype: DType, float: DType) -> DType {
        if dtype.category() <= Category::Integer && matches!(self.rule(), DTypeRule::Float | DTypeRule::Wide) {
            float
        } else {
            dtype
        }
    }
    /// The result's dtype for a computation in `compute`.
    #[inline]
    pub fn result_dtype(self, compute: DType) -> DType {
        match self.rule() {
            DTypeRule::Promote | DTypeRule::Float | DTypeRule::Wide | DTypeRule::Select => compute,
            DTypeRule::Predicate => DType::Bool,
            DTypeRule::Real => compute.to_real(),
        }
    }
}
