//! Functions most of whose arguments allow a shorter way than all do: a loop looks at a chunk first, and takes the long way where the
//! chunk has an argument that needs it. What an element becomes never depends on its neighbours: in such a chunk those that
//! allow it still take the short way. For levels with a fused multiply-add; see `kernels` for what holds of the pointers.

use crate::isa::{Avx2, Avx512, Isa};
use crate::math::Math;
use crate::wide;
use flambeau_core::{Class, DirectKernel, ScalarFn};

/// Numbers that are looked at together.
const CHUNK: usize = 64;

/// Runs a block on chunks of the arguments and on where their results go; what is left over has room of its own, filled up with ones.
/// The arguments are copies, so that the output may be their memory. A macro, because a closure that is not inlined is not
/// compiled for the level of the function around it.
macro_rules! chunks {
    ($n:ident, [$($a:ident = $x:expr),*], $out:ident => $to:ident, $body:block) => {
        let mut rooms = [$( { let _ = $x; [1f32; CHUNK] } ),*];
        let mut result = [1f32; CHUNK];
        let mut i = 0;
        while i < $n {
            let left = $n - i;
            let (mut from, mut to) = ([$($x.add(i)),*], $out.add(i));
            if left < CHUNK {
                for (room, from) in rooms.iter_mut().zip(&mut from) {
                    std::ptr::copy_nonoverlapping(*from, room.as_mut_ptr(), left);
                    *from = room.as_ptr();
                }
                to = result.as_mut_ptr();
            }
            let [$($a),*] = from.map(|x| (x as *const [f32; CHUNK]).read_unaligned());
            {
                let $to = &mut *(to as *mut [f32; CHUNK]);
                $body
            }
            if left < CHUNK {
                std::ptr::copy_nonoverlapping(result.as_ptr(), $out.add(i), left);
            }
            i += CHUNK;
        }
    };
}
/// Whether a test holds of some number; every number is tested.
#[inline(always)]
fn some(x: &[f32; CHUNK], test: impl Fn(f32) -> bool) -> bool {
    let mut some = 0u32;
    for &x in x {
        some |= test(x) as u32;
    }
    some != 0
}
/// `out = short(x)`, or `long(x)` where `rare(x)`.
///
/// # Safety
/// `x` and `out` have `n` numbers.
#[inline(always)]
unsafe fn unary(
    n: usize,
    x: *const u8,
    out: *mut u8,
    rare: impl Fn(f32) -> bool + Copy,
    short: impl Fn(f32) -> f32,
    long: impl Fn(f32) -> f32,
) {
    let (x, out) = (x as *const f32, out as *mut f32);
    chunks!(n, [a = x], out => to, {
        for j in 0..CHUNK {
            to[j] = short(a[j]);
        }
        if some(&a, rare) {
            for j in 0..CHUNK {
                let l = long(a[j]);
                to[j] = if rare(a[j]) { l } else { to[j] };
            }
        }
    });
}
/// `out = short(x, y)`, or `long(x, y)`, one by one, where `rare(x, y)`.
///
/// # Safety
/// As [`unary`].
#[inline(always)]
unsafe fn binary(
    n: usize,
    [x, y, ..]: [*const u8; 4],
    out: *mut u8,
    rare: impl Fn(f32, f32) -> bool,
    short: impl Fn(f32, f32) -> f32,
    long: impl Fn(f32, f32) -> f32,
) {
    let (x, y, out) = (x as *const f32, y as *const f32, out as *mut f32);
    chunks!(n, [a = x, b = y], out => to, {
        let mut some = 0u32;
        for j in 0..CHUNK {
            to[j] = short(a[j], b[j]);
            some |= rare(a[j], b[j]) as u32;
        }
        if some != 0 {
            for j in 0..CHUNK {
                if rare(a[j], b[j]) {
                    to[j] = long(a[j], b[j]);
                }
            }
        }
    });
}

/// Arguments of sine, cosine and tangent up to here are reduced by two products.
const REDUCED: f32 = 1e5;
#[inline(always)]
fn far(x: f32) -> bool {
    // Also where x is no number.
    x.to_bits() & 0x7fff_ffff > REDUCED.to_bits()
}
#[inline(always)]
unsafe fn sin<I: Isa>(n: usize, x: [*const u8; 4], out: *mut u8) {
    unary(n, x[0], out, far, wide::sin_near::<I>, wide::sin::<I>)
}
#[inline(always)]
unsafe fn cos<I: Isa>(n: usize, x: [*const u8; 4], out: *mut u8) {
    unary(n, x[0], out, far, wide::cos_near::<I>, wide::cos::<I>)
}
#[inline(always)]
unsafe fn tan<I: Isa>(n: usize, x: [*const u8; 4], out: *mut u8) {
    unary(n, x[0], out, far, wide::tan_near::<I>, wide::tan::<I>)
}
#[inline(always)]
fn near_one(x: f32) -> bool {
    x.to_bits() & 0x7fff_ffff > 0.9966f32.to_bits()
}
#[inline(always)]
unsafe fn erfinv<I: Isa>(n: usize, x: [*const u8; 4], out: *mut u8) {
    unary(n, x[0], out, near_one, wide::erfinv_middle::<I>, wide::erfinv_end::<I>)
}

#[inline(always)]
fn special(x: f32) -> bool {
    // 0, negative, infinite or no number.
    x.to_bits().wrapping_sub(1) >= 0x7f7f_ffff
}
#[inline(always)]
unsafe fn log2<I: Isa>(n: usize, x: [*const u8; 4], out: *mut u8) {
    unary(n, x[0], out, special, wide::log2_finite::<I>, wide::log2::<I>)
}
#[inline(always)]
unsafe fn log10<I: Isa>(n: usize, x: [*const u8; 4], out: *mut u8) {
    unary(n, x[0], out, special, wide::log10_finite::<I>, wide::log10::<I>)
}

/// Where the quotient is so large that it has no exact integer part in double precision, or is no number. The bound is far below,
/// so that the quotient in single precision finds the same floor.
#[inline(always)]
fn beyond(a: f32, b: f32) -> bool {
    // A false comparison is one with NaN as well.
    !((a / b).abs() < 1_048_576.0 && b.abs() < f32::INFINITY)
}
/// The quotient cut off, and the remainder, which is exact: no quotient of two float32 is as close to an integer as double precision
/// rounds.
#[inline(always)]
fn quotient_and_rest(a: f32, b: f32) -> (f64, f32) {
    let q = (a as f64 / b as f64).trunc();
    let r = a as f64 - q * b as f64;
    // A remainder of 0 has the dividend's sign.
    (q, (r as f32).copysign(a))
}
#[inline(always)]
unsafe fn fmod<I: Isa>(n: usize, x: [*const u8; 4], out: *mut u8) {
    let m = Math::<I, f32>::new();
    binary(n, x, out, beyond, |a, b| quotient_and_rest(a, b).1, |a, b| m.fmod(a, b))
}
#[inline(always)]
unsafe fn remainder<I: Isa>(n: usize, x: [*const u8; 4], out: *mut u8) {
    let m = Math::<I, f32>::new();
    let short = |a, b: f32| {
        let (_, r) = quotient_and_rest(a, b);
        let turned = if (r < 0.0) != (b < 0.0) { r + b } else { r };
        if r == 0.0 {
            r.copysign(b)
        } else {
            turned
        }
    };
    binary(n, x, out, beyond, short, |a, b| m.remainder(a, b))
}
#[inline(always)]
unsafe fn floor_div<I: Isa>(n: usize, x: [*const u8; 4], out: *mut u8) {
    let m = Math::<I, f32>::new();
    let short = |a: f32, b: f32| {
        let (q, r) = quotient_and_rest(a, b);
        let less = r != 0.0 && (r < 0.0) != (b < 0.0);
        let q = (if less { q - 1.0 } else { q }) as f32;
        // A zero has the quotient's sign.
        let zero = f32::from_bits((a.to_bits() ^ b.to_bits()) & 0x8000_0000);
        if q == 0.0 {
            zero
        } else {
            q
        }
    };
    binary(n, x, out, beyond, short, |a, b| m.floor_div(a, b))
}

#[inline(always)]
fn square(x: f32) -> f32 {
    x * x
}
/// Exponents whose powers are products or roots.
#[inline(always)]
fn direct(y: f32) -> bool {
    (y == 2.0) | (y == 3.0) | (y == 0.5)
}
/// Powers by one number everywhere, which is what `x ** 3` has, are products and roots.
#[inline(always)]
unsafe fn pow<I: Isa>(n: usize, x: [*const u8; 4], out: *mut u8) {
    let y = std::slice::from_raw_parts(x[1] as *const f32, n);
    let Some(&first) = y.first() else { return };
    let same = direct(first) && y.iter().fold(true, |same, &y| same & (y == first));
    let (x, out) = (x[0] as *const f32, out as *mut f32);
    // Loops of their own, each with one test before it.
    macro_rules! each {
        ($f:expr) => {
            if x == out as *const f32 {
                std::slice::from_raw_parts_mut(out, n).iter_mut().for_each(|x| *x = $f(*x));
            } else {
                let x = std::slice::from_raw_parts(x, n);
                std::slice::from_raw_parts_mut(out, n).iter_mut().zip(x).for_each(|(out, &x)| *out = $f(x));
            }
        };
    }
    if !same {
        macro_rules! both {
            ($f:expr) => {
                if x == out as *const f32 {
                    std::slice::from_raw_parts_mut(out, n).iter_mut().zip(y).for_each(|(x, &y)| *x = $f(*x, y));
                } else {
                    let x = std::slice::from_raw_parts(x, n);
                    let out = std::slice::from_raw_parts_mut(out, n);
                    out.iter_mut().zip(x).zip(y).for_each(|((out, &x), &y)| *out = $f(x, y));
                }
            };
        }
        if y.iter().fold(false, |some, &y| some | direct(y)) {
            both!(wide::pow::<I>);
        } else {
            both!(wide::pow_other::<I>);
        }
    } else if first == 2.0 {
        each!(square);
    } else if first == 3.0 {
        each!(wide::cube);
    } else {
        each!(wide::root);
    }
}

/// Above zero there is no exponential.
#[inline(always)]
unsafe fn elu<I: Isa>(n: usize, x: [*const u8; 4], out: *mut u8) {
    let m = Math::<I, f32>::new();
    let (x, out) = (x.map(|x| x as *const f32), out as *mut f32);
    chunks!(n, [a = x[0], alpha = x[1], scale = x[2], k = x[3]], out => to, {
        if some(&a, |a| a <= 0.0 || a.is_nan()) {
            for j in 0..CHUNK {
                let below = m.expm1(a[j] * k[j]) * alpha[j] * scale[j];
                to[j] = if a[j] > 0.0 { a[j] * scale[j] } else { below };
            }
        } else {
            for j in 0..CHUNK {
                to[j] = a[j] * scale[j];
            }
        }
    });
}

macro_rules! kernels {
    ($($Name:ident $f:ident;)*) => {
        $( mod $f {
            use super::*;
            /// # Safety
            /// As the kernels of `kernels`, on a machine with AVX2 and FMA.
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c,bmi1,bmi2,lzcnt,popcnt")]
            pub(super) unsafe fn avx2(n: usize, a: *const u8, b: *const u8, c: *const u8, d: *const u8, out: *mut u8) {
                super::$f::<Avx2>(n, [a, b, c, d], out)
            }
            /// # Safety
            /// As the kernels of `kernels`, on a machine with AVX-512.
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx2,fma,f16c,bmi1,bmi2,lzcnt,popcnt")]
            pub(super) unsafe fn avx512(n: usize, a: *const u8, b: *const u8, c: *const u8, d: *const u8, out: *mut u8) {
                super::$f::<Avx512>(n, [a, b, c, d], out)
            }
        } )*
        /// The kernel of a row that has one here, at a level of 2 (AVX2) or 3 (AVX-512).
        pub(crate) fn kernel(f: ScalarFn, class: Class, level: u8) -> Option<DirectKernel> {
            let at = |levels: [DirectKernel; 2]| Some(levels[level as usize - 2]);
            match (f, class) {
                $( (ScalarFn::$Name, Class::F32) => at([$f::avx2, $f::avx512]), )*
                _ => None,
            }
        }
    };
}
#[cfg(target_arch = "x86_64")]
kernels! {
    Sin sin;
    Cos cos;
    Tan tan;
    Erfinv erfinv;
    Log2 log2;
    Log10 log10;
    Fmod fmod;
    Remainder remainder;
    FloorDiv floor_div;
    Pow pow;
    Elu elu;
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;

    /// An element's result depends neither on its neighbours, rare or not, nor on its place, nor on where the result goes.
    #[test]
    fn an_element_is_the_same_anywhere() {
        let mut x: Vec<f32> =
            (0..500u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 8) as f32 / 8_388_608.0 - 1.0).collect();
        for (i, rare) in [1e6, -3e38, f32::NAN, f32::INFINITY, 0.999, -1.0, -0.0, 1e-40].into_iter().enumerate() {
            x[100 + 9 * i] = rare;
        }
        let y: Vec<f32> = x.iter().rev().map(|y| y * 3.0).collect();
        let functions = [
            ScalarFn::Sin,
            ScalarFn::Cos,
            ScalarFn::Tan,
            ScalarFn::Erfinv,
            ScalarFn::Log2,
            ScalarFn::Fmod,
            ScalarFn::Remainder,
        ];
        let functions = functions.into_iter().chain([ScalarFn::FloorDiv, ScalarFn::Pow, ScalarFn::Elu]);
        for (f, level) in functions.flat_map(|f| (2..=crate::isa::level()).map(move |level| (f, level))) {
            let kernel = kernel(f, Class::F32, level).unwrap();
            let run = |from: usize, n: usize, in_place: bool| {
                let mut out = if in_place { x[from..from + n].to_vec() } else { vec![0.0; n] };
                let a = if in_place { out.as_ptr() } else { x[from..].as_ptr() } as *const u8;
                let b = y[from..].as_ptr() as *const u8;
                // SAFETY: every pointer has `n` numbers, and the machine has the level.
                unsafe { kernel(n, a, b, b, b, out.as_mut_ptr() as *mut u8) };
                out.into_iter().map(f32::to_bits).collect::<Vec<_>>()
            };
            let all = run(0, x.len(), false);
            assert_eq!(run(0, x.len(), true), all, "{f:?}");
            for (from, n) in [(1, 64), (3, 63), (70, 200), (109, 1)] {
                assert_eq!(run(from, n, false), all[from..from + n], "{f:?} {from} {n}");
            }
        }
    }
    /// Remainders and floors are those of the operators that know no short way.
    #[test]
    fn divisions_agree_with_the_long_way() {
        let x: Vec<f32> = (0..4096u32).map(|i| f32::from_bits(i.wrapping_mul(2_654_435_761))).collect();
        let y: Vec<f32> =
            (0..4096u32).map(|i| f32::from_bits((i ^ 5).wrapping_mul(2_654_435_761) ^ (i << 20))).collect();
        let m = Math::<Avx2, f32>::new();
        for (f, long) in [
            (ScalarFn::Fmod, &(|a, b| m.fmod(a, b)) as &dyn Fn(f32, f32) -> f32),
            (ScalarFn::Remainder, &|a, b| m.remainder(a, b)),
            (ScalarFn::FloorDiv, &|a, b| m.floor_div(a, b)),
        ] {
            for level in 2..=crate::isa::level() {
                let mut out = vec![0f32; x.len()];
                let (a, b) = (x.as_ptr() as *const u8, y.as_ptr() as *const u8);
                // SAFETY: every pointer has as many numbers, and the machine has the level.
                unsafe { kernel(f, Class::F32, level).unwrap()(x.len(), a, b, b, b, out.as_mut_ptr() as *mut u8) };
                for ((&a, &b), &got) in x.iter().zip(&y).zip(&out) {
                    let want = long(a, b);
                    assert!(
                        got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan(),
                        "{f:?} {a:e} {b:e}: {got:e}, not {want:e}"
                    );
                }
            }
        }
    }
}
