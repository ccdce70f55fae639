//! Operands made from random numbers, and comparison with reference values, for unit tests.

use flambeau_core::{contiguous_strides, numel, Complex32, Complex64, DType, Device, Operand};
use half::{bf16, f16};

/// A tensor of a test: its memory, sizes and strides.
pub(crate) struct Case {
    pub bytes: Vec<u8>,
    pub dtype: DType,
    pub sizes: Vec<i64>,
    pub strides: Vec<i64>,
}

fn random(state: &mut u64) -> f64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    (*state >> 11) as f64 / (1u64 << 53) as f64 * 2.0 - 1.0
}

impl Case {
    /// Numbers in -1..1 (integers in -9..9); `reversed` stores the dimensions the other way round.
    pub(crate) fn random(dtype: DType, sizes: &[i64], reversed: bool, seed: u64) -> Case {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        (0..20).for_each(|_| _ = random(&mut state));
        let n = numel(sizes) as usize;
        let values: Vec<Complex64> = (0..n)
            .map(|_| Complex64::new(random(&mut state), if dtype.is_complex() { random(&mut state) } else { 0.0 }))
            .collect();
        let mut case = Case::of(
            dtype,
            sizes,
            &values
                .iter()
                .map(|v| if dtype.is_integral(true) { (v * 9.0).re.trunc().into() } else { *v })
                .collect::<Vec<_>>(),
        );
        if reversed {
            let turned: Vec<i64> = sizes.iter().rev().copied().collect();
            case.strides = contiguous_strides(&turned).iter().rev().copied().collect();
        }
        case
    }
    /// These numbers, row-major.
    pub(crate) fn of(dtype: DType, sizes: &[i64], values: &[Complex64]) -> Case {
        let mut bytes = Vec::with_capacity(values.len() * dtype.size() + 64);
        for v in values {
            let x = v.re;
            match dtype {
                DType::Bool => bytes.push((x != 0.0) as u8),
                DType::U8 => bytes.push(x as i64 as u8),
                DType::I8 => bytes.push(x as i8 as u8),
                DType::I16 => bytes.extend((x as i16).to_ne_bytes()),
                DType::U16 => bytes.extend((x as i64 as u16).to_ne_bytes()),
                DType::I32 => bytes.extend((x as i32).to_ne_bytes()),
                DType::U32 => bytes.extend((x as i64 as u32).to_ne_bytes()),
                DType::I64 => bytes.extend((x as i64).to_ne_bytes()),
                DType::U64 => bytes.extend((x as i64 as u64).to_ne_bytes()),
                DType::F16 => bytes.extend(f16::from_f64(x).to_ne_bytes()),
                DType::BF16 => bytes.extend(bf16::from_f64(x).to_ne_bytes()),
                DType::F32 => bytes.extend((x as f32).to_ne_bytes()),
                DType::F64 => bytes.extend(x.to_ne_bytes()),
                DType::C64 => {
                    bytes.extend((v.re as f32).to_ne_bytes());
                    bytes.extend((v.im as f32).to_ne_bytes());
                }
                DType::C128 => {
                    bytes.extend(v.re.to_ne_bytes());
                    bytes.extend(v.im.to_ne_bytes());
                }
                DType::C32 => {
                    bytes.extend(f16::from_f64(v.re).to_ne_bytes());
                    bytes.extend(f16::from_f64(v.im).to_ne_bytes());
                }
                DType::F8E4M3 | DType::F8E5M2 => unimplemented!("float8 in tests"),
            }
        }
        Case { bytes, dtype, sizes: sizes.to_vec(), strides: contiguous_strides(sizes).to_vec() }
    }
    /// Real numbers, row-major.
    pub(crate) fn real(dtype: DType, sizes: &[i64], values: &[f64]) -> Case {
        Case::of(dtype, sizes, &values.iter().map(|&v| v.into()).collect::<Vec<_>>())
    }
    pub(crate) fn operand(&self) -> Operand<'_> {
        Operand {
            ptr: self.bytes.as_ptr() as *mut u8,
            dtype: self.dtype,
            sizes: &self.sizes,
            strides: &self.strides,
            device: Device::Cpu,
        }
    }
    /// The values in row-major order of the indices.
    pub(crate) fn values(&self) -> Vec<Complex64> {
        (0..numel(&self.sizes) as usize)
            .map(|i| {
                let at = crate::element::unravel(i, &self.sizes, &self.strides) as usize * self.dtype.size();
                // SAFETY: tests make strides that stay within the memory; reads need no alignment.
                unsafe {
                    let p = self.bytes.as_ptr().add(at);
                    macro_rules! get {
                        ($T:ty) => {
                            (p as *const $T).read_unaligned()
                        };
                    }
                    let x = match self.dtype {
                        DType::Bool | DType::U8 => get!(u8) as f64,
                        DType::I8 => get!(i8) as f64,
                        DType::I16 => get!(i16) as f64,
                        DType::U16 => get!(u16) as f64,
                        DType::I32 => get!(i32) as f64,
                        DType::U32 => get!(u32) as f64,
                        DType::I64 => get!(i64) as f64,
                        DType::U64 => get!(u64) as f64,
                        DType::F16 => get!(f16).to_f64(),
                        DType::BF16 => get!(bf16).to_f64(),
                        DType::F32 => get!(f32) as f64,
                        DType::F64 => get!(f64),
                        DType::C64 => {
                            let c = get!(Complex32);
                            return Complex64::new(c.re as f64, c.im as f64);
                        }
                        DType::C128 => return get!(Complex64),
                        DType::C32 => {
                            let c = get!([f16; 2]);
                            return Complex64::new(c[0].to_f64(), c[1].to_f64());
                        }
                        DType::F8E4M3 | DType::F8E5M2 => unimplemented!("float8 in tests"),
                    };
                    x.into()
                }
            })
            .collect()
    }
    /// The real parts of the values.
    pub(crate) fn reals(&self) -> Vec<f64> {
        self.values().iter().map(|v| v.re).collect()
    }
}

/// Asserts that `got` equals `want` within `factor` units of the dtype's precision (integers exactly, modulo their width).
pub(crate) fn compare(got: &Case, want: &[Complex64], factor: f64, what: &str) {
    let eps = match got.dtype {
        DType::F16 | DType::C32 => 1e-3,
        DType::BF16 => 8e-3,
        DType::F32 | DType::C64 => 2.4e-7,
        _ => 4.5e-16,
    };
    let values = got.values();
    assert_eq!(values.len(), want.len(), "{what}");
    for (i, (g, w)) in values.iter().zip(want).enumerate() {
        if got.dtype.is_integral(true) {
            let bits = (got.dtype.size() * 8) as u32;
            let mask = if bits == 64 { u64::MAX } else { (1u64 << bits) - 1 };
            let as_bits = |v: f64| if v < 0.0 { v as i64 as u64 } else { v as u64 } & mask;
            assert_eq!(as_bits(g.re), as_bits(w.re), "{what}: element {i}");
        } else if w.re.is_nan() || w.re.is_infinite() {
            assert!(g.re.is_nan() == w.re.is_nan() && (w.re.is_nan() || g.re == w.re), "{what}: element {i}: {g} {w}");
        } else {
            assert!((g - w).norm() <= eps * factor * (1.0 + w.norm()), "{what}: element {i}: {g} {w}");
        }
    }
}
