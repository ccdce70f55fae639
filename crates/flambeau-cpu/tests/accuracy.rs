//! How far float32 functions of one argument are from the exact result, in units of its last place (ulp). The reference is the
//! same row of the table in double precision. The quick test takes a sample of all bit patterns; all of them:
//!
//!     cargo test --release -p flambeau-cpu --test accuracy -- --ignored --nocapture
//!
//! takes 16 minutes of one core; `FUNCTIONS=exp,erf` before it picks some.

use flambeau_core::{Class, ScalarFn};
use flambeau_cpu::kernels::kernel;
use std::sync::atomic::{AtomicU64, Ordering};

/// The functions, with the largest error that is allowed.
const FUNCTIONS: [(ScalarFn, f64); 24] = [
    (ScalarFn::Exp, 1.0),
    (ScalarFn::Exp2, 1.0),
    (ScalarFn::Expm1, 1.0),
    (ScalarFn::Log, 1.0),
    (ScalarFn::Log2, 1.0),
    (ScalarFn::Log10, 1.0),
    (ScalarFn::Log1p, 1.0),
    (ScalarFn::Sqrt, 0.5),
    (ScalarFn::Rsqrt, 1.5),
    (ScalarFn::Sin, 1.0),
    (ScalarFn::Cos, 1.0),
    (ScalarFn::Tan, 1.0),
    (ScalarFn::Asin, 1.0),
    (ScalarFn::Acos, 1.0),
    (ScalarFn::Atan, 1.0),
    (ScalarFn::Sinh, 1.0),
    (ScalarFn::Cosh, 1.0),
    (ScalarFn::Tanh, 1.0),
    (ScalarFn::Asinh, 1.0),
    (ScalarFn::Acosh, 1.0),
    (ScalarFn::Atanh, 1.0),
    (ScalarFn::Erf, 1.0),
    (ScalarFn::Erfc, 1.0),
    (ScalarFn::Erfinv, 1.0),
];

/// The distance in ulp of a float32 from an exact value, with infinity where the next number would be.
fn distance(got: f32, want: f64) -> f64 {
    if got.is_nan() || want.is_nan() {
        return if got.is_nan() && want.is_nan() { 0.0 } else { f64::INFINITY };
    }
    const BEYOND: f64 = 3.402_823_669_209_384_6e38;
    let limit = |x: f64| x.clamp(-BEYOND, BEYOND);
    let (a, b) = (limit(got as f64), limit(want));
    if a == b {
        return 0.0;
    }
    // 1 / ulp is a power of two: its exponent is 23 less that of b (at least float32's smallest, -126).
    let exponent = (((b.to_bits() >> 52) & 0x7ff) as i64 - 1023).clamp(-126, 127);
    (a - b).abs() * f64::from_bits(((1023 + 23 - exponent) as u64) << 52)
}

/// The largest error of a function over every `stride`-th bit pattern, and where it is.
fn worst(f: ScalarFn, stride: u64) -> (f64, f32) {
    const BLOCK: u64 = 1 << 12;
    let (single, double) = (kernel(f, Class::F32).unwrap(), kernel(f, Class::F64).unwrap());
    let total = (1u64 << 32).div_ceil(stride);
    let next = AtomicU64::new(0);
    let search = || {
        let (mut most, mut at) = (0.0, 0.0);
        let (mut x, mut wide) = (Vec::new(), Vec::new());
        let (mut y, mut want) = (vec![0f32; BLOCK as usize], vec![0f64; BLOCK as usize]);
        loop {
            let from = next.fetch_add(BLOCK, Ordering::Relaxed);
            if from >= total {
                return (most, at);
            }
            x.clear();
            x.extend((from..(from + BLOCK).min(total)).map(|i| f32::from_bits((i * stride) as u32)));
            wide.clear();
            wide.extend(x.iter().map(|&x| x as f64));
            // SAFETY: every pointer has that many numbers of its class; unused arguments are not read.
            unsafe {
                let p = x.as_ptr() as *const u8;
                single(x.len(), p, p, p, p, y.as_mut_ptr() as *mut u8);
                let p = wide.as_ptr() as *const u8;
                double(x.len(), p, p, p, p, want.as_mut_ptr() as *mut u8);
            }
            for ((&x, &y), &want) in x.iter().zip(&y).zip(&want) {
                let e = distance(y, want);
                if e > most {
                    (most, at) = (e, x);
                }
            }
        }
    };
    std::thread::scope(|s| {
        let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
        let all: Vec<_> = (0..threads).map(|_| s.spawn(search)).collect();
        all.into_iter().map(|t| t.join().unwrap()).fold((0.0, 0.0), |a, b| if b.0 > a.0 { b } else { a })
    })
}

fn check(stride: u64) {
    println!("level {}", flambeau_cpu::level());
    let mut wrong = Vec::new();
    let only = std::env::var("FUNCTIONS").unwrap_or_default();
    for (f, limit) in FUNCTIONS {
        if !only.is_empty() && !only.split(',').any(|name| name == f.name()) {
            continue;
        }
        let (error, at) = worst(f, stride);
        println!("{f:?}: {error:.3} ulp at {at:e}");
        // Without fused multiply-adds the polynomials round twice as often.
        let limit = if flambeau_cpu::level() == "baseline" { 2.0 * limit } else { limit };
        if error > limit {
            wrong.push(format!("{f:?}: {error:.3} ulp at {at:e} ({:08x}), allowed {limit}", at.to_bits()));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_sample_of_inputs() {
    check(65_521);
}

#[test]
#[ignore = "16 minutes of one core: every float32"]
fn every_input() {
    check(1);
}

/// float64 against the system's library, whose own error counts too.
#[test]
fn double_precision() {
    type Reference = fn(f64) -> f64;
    let functions: [(ScalarFn, Reference, f64); 10] = [
        (ScalarFn::Exp, f64::exp, 1.6),
        (ScalarFn::Exp2, f64::exp2, 1.6),
        (ScalarFn::Expm1, f64::exp_m1, 2.0),
        (ScalarFn::Log, f64::ln, 1.6),
        (ScalarFn::Log2, f64::log2, 1.6),
        (ScalarFn::Log10, f64::log10, 2.5),
        (ScalarFn::Log1p, f64::ln_1p, 2.0),
        (ScalarFn::Sinh, f64::sinh, 4.0),
        (ScalarFn::Cosh, f64::cosh, 3.0),
        (ScalarFn::Tanh, f64::tanh, 4.0),
    ];
    let ends = [0.0, -0.0, 1.0, -1.0, 709.7, 710.4, -708.5, -745.0, 1e300, -1e300, 5e-324, 1e-310, f64::MAX];
    let rest = [f64::INFINITY, f64::NEG_INFINITY, f64::NAN, 1023.99, 1024.0, -1074.0, -1075.5, 0.346, 0.347, 22.0];
    let mut x: Vec<f64> = ends.into_iter().chain(rest).collect();
    let mut seed = 1u64;
    let mut random = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 11) as f64 / (1u64 << 53) as f64
    };
    for _ in 0..40_000 {
        let (u, v) = (random(), random());
        x.push((u - 0.5) * 2.0);
        x.push((u - 0.5) * 1500.0);
        x.push(2f64.powf((u - 0.5) * 2000.0) * if v < 0.5 { -1.0 } else { 1.0 });
        x.push(1.0 + (u - 0.5) * 2f64.powf(-40.0 * v));
    }
    for (f, reference, limit) in functions {
        let run = kernel(f, Class::F64).unwrap();
        let mut y = vec![0f64; x.len()];
        // SAFETY: as above.
        unsafe {
            let p = x.as_ptr() as *const u8;
            run(x.len(), p, p, p, p, y.as_mut_ptr() as *mut u8);
        }
        let mut worst = (0.0, 0.0);
        for (&x, &y) in x.iter().zip(&y) {
            let want = reference(x);
            if want.is_nan() || want.is_infinite() || want == 0.0 {
                assert!(
                    want.is_nan() && y.is_nan() || want.to_bits() == y.to_bits(),
                    "{f:?} of {x:e}: {y:e}, not {want:e}"
                );
                continue;
            }
            let ulp = want.abs() - want.abs().next_down();
            let error = ((y - want) / ulp).abs();
            if error.is_nan() || error > worst.0 {
                worst = (error, x);
            }
        }
        println!("{f:?} in double precision: {:.3} ulp at {:e}", worst.0, worst.1);
        let limit = if flambeau_cpu::level() == "baseline" { 2.0 * limit } else { limit };
        assert!(worst.0 <= limit, "{f:?}: {} ulp at {:e}, allowed {limit}", worst.0, worst.1);
    }
}
