//! The table's rows as loops over contiguous memory: one function for each row, class and level.
//!
//! A kernel's output may be exactly its first argument's memory and overlaps no other input; `map` sees to that by staging
//! through a tile.

use crate::isa::{level, Isa};
use crate::math::Math;
use flambeau_core::{Class, Complex32, Complex64, DirectKernel, ScalarFn};
use std::sync::OnceLock;

macro_rules! kernels {
    (names ($m:ident $g:ident $out:ident);
     $( $(#[$doc:meta])* $Name:ident $name:literal $args:tt $rule:ident
        [$($class:ident $formula:tt)*] cuda [$($cuda:tt)*] saves [$($saved:ident)*] grad $grad:tt; )*) => {
        $(
            // A module a row, so that rows spread over codegen units.
            #[allow(non_snake_case)]
            mod $Name {
                use super::*;
                $( kernels!(@class $class $m $args $formula); )*
                pub(super) fn find(class: Class) -> Option<[DirectKernel; 3]> {
                    $( if let Some(k) = kernels!(@find $class class) { return Some(k); } )*
                    None
                }
            }
        )*
        /// The three levels' kernels of a row in a class.
        fn find(f: ScalarFn, class: Class) -> Option<[DirectKernel; 3]> {
            match f { $(ScalarFn::$Name => $Name::find(class)),* }
        }
    };
    (@class float $m:ident $args:tt $formula:tt) => {
        kernels!(@type f32 single $m $args $formula);
        kernels!(@type f64 double $m $args $formula);
    };
    (@class int $m:ident $args:tt $formula:tt) => { kernels!(@type i64 integer $m $args $formula); };
    (@class complex $m:ident $args:tt $formula:tt) => {
        kernels!(@type Complex32 complex_single $m $args $formula);
        kernels!(@type Complex64 complex_double $m $args $formula);
    };
    (@type $T:ident $mod:ident $m:ident ($first:ident $($arg:ident)*) $formula:tt) => {
        mod $mod {
            use super::*;
            #[allow(unused_imports)]
            use crate::isa::{Avx2, Avx512, Baseline};
            #[allow(unused_variables, clippy::all)]
            #[inline(always)]
            fn formula<I: Isa>($m: Math<I, $T>, $first: $T, $($arg: $T),*) -> $T {
                #[allow(dead_code)]
                type T = $T;
                $formula
            }
            /// # Safety
            /// Every used pointer has `n` elements; `out` is the first input or overlaps it nowhere, and overlaps no other.
            #[allow(unused_assignments, unused_mut, unused_variables)]
            #[inline(always)]
            unsafe fn body<I: Isa>(n: usize, x: [*const u8; 4], out: *mut u8) {
                let in_place = x[0] == out as *const u8;
                let out = std::slice::from_raw_parts_mut(out as *mut $T, n);
                let mut k = 1;
                $(
                    let $arg = std::slice::from_raw_parts(x[k] as *const $T, n);
                    k += 1;
                )*
                if in_place {
                    for i in 0..n {
                        out[i] = formula::<I>(Math::new(), out[i], $($arg[i]),*);
                    }
                } else {
                    let first = std::slice::from_raw_parts(x[0] as *const $T, n);
                    for i in 0..n {
                        out[i] = formula::<I>(Math::new(), first[i], $($arg[i]),*);
                    }
                }
            }
            /// # Safety
            /// As `body`.
            unsafe fn baseline(n: usize, a: *const u8, b: *const u8, c: *const u8, d: *const u8, out: *mut u8) {
                body::<Baseline>(n, [a, b, c, d], out)
            }
            /// # Safety
            /// As `body`, on a machine with AVX2 and FMA.
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c,bmi1,bmi2,lzcnt,popcnt")]
            unsafe fn avx2(n: usize, a: *const u8, b: *const u8, c: *const u8, d: *const u8, out: *mut u8) {
                body::<Avx2>(n, [a, b, c, d], out)
            }
            /// # Safety
            /// As `body`, on a machine with AVX-512.
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx2,fma,f16c,bmi1,bmi2,lzcnt,popcnt")]
            unsafe fn avx512(n: usize, a: *const u8, b: *const u8, c: *const u8, d: *const u8, out: *mut u8) {
                body::<Avx512>(n, [a, b, c, d], out)
            }
            #[cfg(target_arch = "x86_64")]
            pub(super) const LEVELS: [DirectKernel; 3] = [baseline, avx2, avx512];
            #[cfg(not(target_arch = "x86_64"))]
            pub(super) const LEVELS: [DirectKernel; 3] = [baseline, baseline, baseline];
        }
    };
    (@find float $c:ident) => {
        match $c { Class::F32 => Some(single::LEVELS), Class::F64 => Some(double::LEVELS), _ => None }
    };
    (@find int $c:ident) => { match $c { Class::I64 => Some(integer::LEVELS), _ => None } };
    (@find complex $c:ident) => {
        match $c { Class::C32 => Some(complex_single::LEVELS), Class::C64 => Some(complex_double::LEVELS), _ => None }
    };
}
flambeau_core::for_each_scalar_function!(kernels);

/// The kernel of a row in a class, for this machine; `None` when the row has no formula there.
#[inline]
pub fn kernel(f: ScalarFn, class: Class) -> Option<DirectKernel> {
    static TABLE: OnceLock<Vec<[Option<DirectKernel>; Class::ALL.len()]>> = OnceLock::new();
    TABLE.get_or_init(table)[f as usize][class as usize]
}
#[cold]
fn table() -> Vec<[Option<DirectKernel>; Class::ALL.len()]> {
    let level = level() as usize - 1;
    #[allow(unused_mut)]
    let mut table: Vec<_> =
        ScalarFn::ALL.iter().map(|&f| Class::ALL.map(|class| find(f, class).map(|levels| levels[level]))).collect();
    #[cfg(target_arch = "x86_64")]
    if level > 0 {
        for (f, row) in ScalarFn::ALL.iter().zip(&mut table) {
            for (class, kernel) in Class::ALL.iter().zip(row) {
                *kernel = crate::usual::kernel(*f, *class, level as u8 + 1).or(*kernel);
            }
        }
    }
    #[cfg(target_arch = "x86_64")]
    if level == 2 {
        table[ScalarFn::Tanh as usize][Class::F32 as usize] = Some(crate::pieces::tanh as DirectKernel);
    }
    table
}
