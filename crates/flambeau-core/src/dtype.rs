//! Data types: one table, from which names, sizes, categories and classes are read.

use std::fmt;

/// What kind of number a dtype holds; promotion goes up this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Category {
    Bool,
    Integer,
    Float,
    Complex,
}

/// What a kernel computes in. Other dtypes are converted when they are loaded and stored: halves and float8 compute
/// in `F32`, every integer and bool in `I64` (whose wrapping arithmetic gives each narrower type its own result).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Class {
    F32,
    F64,
    I64,
    C32,
    C64,
}

impl Class {
    /// Bytes of one element.
    #[inline]
    pub const fn size(self) -> usize {
        match self {
            Class::F32 => 4,
            Class::F64 | Class::I64 | Class::C32 => 8,
            Class::C64 => 16,
        }
    }
    /// The dtype whose memory has this class's form.
    #[inline]
    pub const fn dtype(self) -> DType {
        match self {
            Class::F32 => DType::F32,
            Class::F64 => DType::F64,
            Class::I64 => DType::I64,
            Class::C32 => DType::C64,
            Class::C64 => DType::C128,
        }
    }
    /// Every class, in order.
    pub const ALL: [Class; 5] = [Class::F32, Class::F64, Class::I64, Class::C32, Class::C64];
}

macro_rules! dtypes {
    ($($Name:ident $text:literal $title:literal $size:literal $category:ident $class:ident $short:literal;)*) => {
        /// The type of a tensor's elements.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum DType { $($Name),* }
        impl DType {
            /// Every dtype, in declaration order.
            pub const ALL: &'static [DType] = &[$(DType::$Name),*];
            /// PyTorch's name: `"float32"`.
            pub const fn name(self) -> &'static str { match self { $(DType::$Name => $text),* } }
            /// The name that PyTorch's messages use: `"Float"`, `"Long"`.
            #[inline]
            pub const fn title(self) -> &'static str { match self { $(DType::$Name => $title),* } }
            /// Bytes of one element.
            #[inline]
            pub const fn size(self) -> usize { match self { $(DType::$Name => $size),* } }
            /// Bool, integer, float or complex.
            #[inline]
            pub const fn category(self) -> Category { match self { $(DType::$Name => Category::$category),* } }
            /// What kernels compute this dtype in.
            #[inline]
            pub const fn class(self) -> Class { match self { $(DType::$Name => Class::$class),* } }
            /// safetensors' name, empty where the format has none.
            pub const fn safetensors_name(self) -> &'static str { match self { $(DType::$Name => $short),* } }
        }
    };
}

dtypes! {
    Bool "bool" "Bool" 1 Bool I64 "BOOL";
    U8 "uint8" "Byte" 1 Integer I64 "U8";
    I8 "int8" "Char" 1 Integer I64 "I8";
    I16 "int16" "Short" 2 Integer I64 "I16";
    I32 "int32" "Int" 4 Integer I64 "I32";
    I64 "int64" "Long" 8 Integer I64 "I64";
    U16 "uint16" "UInt16" 2 Integer I64 "U16";
    U32 "uint32" "UInt32" 4 Integer I64 "U32";
    U64 "uint64" "UInt64" 8 Integer I64 "U64";
    F16 "float16" "Half" 2 Float F32 "F16";
    BF16 "bfloat16" "BFloat16" 2 Float F32 "BF16";
    F32 "float32" "Float" 4 Float F32 "F32";
    F64 "float64" "Double" 8 Float F64 "F64";
    C64 "complex64" "ComplexFloat" 8 Complex C32 "C64";
    C128 "complex128" "ComplexDouble" 16 Complex C64 "";
    F8E4M3 "float8_e4m3fn" "Float8_e4m3fn" 1 Float F32 "F8_E4M3";
    F8E5M2 "float8_e5m2" "Float8_e5m2" 1 Float F32 "F8_E5M2";
    C32 "complex32" "ComplexHalf" 4 Complex C32 "";
}

impl DType {
    /// float16 … float64, bfloat16, float8.
    #[inline]
    pub const fn is_float(self) -> bool {
        matches!(self.category(), Category::Float)
    }
    /// complex32, complex64 and complex128.
    #[inline]
    pub const fn is_complex(self) -> bool {
        matches!(self.category(), Category::Complex)
    }
    /// Any integer dtype, and bool when `include_bool`.
    #[inline]
    pub const fn is_integral(self, include_bool: bool) -> bool {
        match self.category() {
            Category::Integer => true,
            Category::Bool => include_bool,
            _ => false,
        }
    }
    /// Whether gradients can flow through it.
    #[inline]
    pub const fn is_differentiable(self) -> bool {
        self.is_float() || self.is_complex()
    }
    /// A signed integer, float or complex dtype.
    #[inline]
    pub const fn is_signed(self) -> bool {
        !matches!(self, DType::Bool | DType::U8 | DType::U16 | DType::U32 | DType::U64)
    }
    /// float16, bfloat16 and the float8s: computed in float32 and rounded when stored.
    #[inline]
    pub const fn is_reduced(self) -> bool {
        self.is_float() && self.size() < 4
    }
    /// The dtype of a complex number's parts; itself for any other dtype.
    #[inline]
    pub const fn to_real(self) -> DType {
        match self {
            DType::C32 => DType::F16,
            DType::C64 => DType::F32,
            DType::C128 => DType::F64,
            other => other,
        }
    }
    /// The complex dtype whose parts have this dtype (bfloat16 gives complex64).
    #[inline]
    pub const fn to_complex(self) -> DType {
        match self {
            DType::F64 | DType::C128 => DType::C128,
            DType::F16 | DType::C32 => DType::C32,
            _ => DType::C64,
        }
    }
    /// The dtype with PyTorch's `name`.
    pub fn parse(name: &str) -> Option<DType> {
        DType::ALL.iter().copied().find(|d| d.name() == name)
    }
    /// The smallest and largest value of an integer or bool dtype; none for others.
    pub const fn integer_range(self) -> Option<(i64, u64)> {
        Some(match self {
            DType::Bool => (0, 1),
            DType::U8 => (0, u8::MAX as u64),
            DType::I8 => (i8::MIN as i64, i8::MAX as u64),
            DType::I16 => (i16::MIN as i64, i16::MAX as u64),
            DType::I32 => (i32::MIN as i64, i32::MAX as u64),
            DType::I64 => (i64::MIN, i64::MAX as u64),
            DType::U16 => (0, u16::MAX as u64),
            DType::U32 => (0, u32::MAX as u64),
            DType::U64 => (0, u64::MAX),
            _ => return None,
        })
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "torch.{}", self.name())
    }
}

/// The dtype that holds both operands, by PyTorch's lattice (tensor with tensor, no weak operands).
pub fn promote_types(a: DType, b: DType) -> DType {
    use Category as K;
    use DType::*;
    if a == b {
        return a;
    }
    let (lo, hi) = if a.category() <= b.category() { (a, b) } else { (b, a) };
    match (lo.category(), hi.category()) {
        (K::Complex, K::Complex) if lo == C128 || hi == C128 => C128,
        (K::Complex, K::Complex) => C64,
        (K::Float, K::Complex) => match (lo, hi) {
            (F64, _) => C128,
            (F16, _) => hi,
            (_, C32) => C64,
            _ => hi,
        },
        (K::Float, K::Float) => match (lo, hi) {
            (F64, _) | (_, F64) => F64,
            // Two different reduced types, or one with float32: neither holds the other.
            _ => F32,
        },
        (K::Integer, K::Integer) => {
            let (a, b) = (lo, hi);
            if a.is_signed() == b.is_signed() {
                if a.size() >= b.size() {
                    a
                } else {
                    b
                }
            } else {
                let (u, s) = if a.is_signed() { (b, a) } else { (a, b) };
                if s.size() > u.size() {
                    s
                } else {
                    match u.size() {
                        1 => I16,
                        2 => I32,
                        _ => I64,
                    }
                }
            }
        }
        _ => hi,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn promotion_is_symmetric_and_idempotent() {
        for &a in DType::ALL {
            for &b in DType::ALL {
                assert_eq!(promote_types(a, b), promote_types(b, a), "{a} {b}");
            }
            assert_eq!(promote_types(a, a), a);
        }
        assert_eq!(promote_types(DType::F16, DType::BF16), DType::F32);
        assert_eq!(promote_types(DType::U8, DType::I8), DType::I16);
        assert_eq!(promote_types(DType::I64, DType::F16), DType::F16);
        assert_eq!(promote_types(DType::F64, DType::C64), DType::C128);
        assert_eq!(promote_types(DType::F16, DType::C32), DType::C32);
        assert_eq!(promote_types(DType::F32, DType::C32), DType::C64);
        assert_eq!(promote_types(DType::C32, DType::C64), DType::C64);
    }
}
