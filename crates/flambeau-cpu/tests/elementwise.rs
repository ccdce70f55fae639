//! `map` against loops over numbers: dtypes, layouts, fused programs, accuracy of the functions.

mod common;
use common::{apply, noise, Array};
use flambeau_core::*;

const REAL: [DType; 13] = [
    DType::Bool,
    DType::U8,
    DType::I8,
    DType::I16,
    DType::I32,
    DType::I64,
    DType::U16,
    DType::U32,
    DType::U64,
    DType::F16,
    DType::BF16,
    DType::F32,
    DType::F64,
];

#[test]
fn additions_in_every_dtype_and_layout() {
    for dtype in REAL {
        let class = dtype.class();
        let whole = |i: usize| if dtype == DType::Bool { (i % 2) as f64 } else { (i % 50) as f64 };
        for (sizes, sa, sb) in [
            (vec![7, 300], vec![300, 1], vec![300, 1]),
            (vec![7, 300], vec![1, 7], vec![300, 1]),
            (vec![70, 90], vec![1, 70], vec![0, 1]),
            (vec![40, 30, 50], vec![1, 40, 1200], vec![1500, 50, 1]),
            (vec![64, 1, 33], vec![66, 0, 2], vec![0, 0, 0]),
            (vec![3, 5, 2], vec![0, 2, 1], vec![5, 1, 0]),
            (vec![], vec![], vec![]),
            (vec![0, 4], vec![4, 1], vec![4, 1]),
            (vec![200, 400], vec![400, 1], vec![1, 200]),
        ] {
            let a = Array::with(dtype, &sizes, &sa, whole);
            let b = Array::with(dtype, &sizes, &sb, |i| whole(i + 1));
            let out = Array::zeros(dtype, &sizes);
            apply(ScalarFn::Add, class, &[&a, &b], &out).unwrap();
            let want: Vec<f64> = a
                .values()
                .iter()
                .zip(b.values())
                .map(|(a, b)| if dtype == DType::Bool { (a + b).min(1.0) } else { a + b })
                .collect();
            assert_eq!(out.values(), want, "{dtype} {sizes:?} {sa:?} {sb:?}");
        }
    }
}

#[test]
fn outputs_may_be_inputs() {
    for n in [5i64, 1000, 100_000] {
        for both in [false, true] {
            let a = Array::with(DType::F32, &[n], &[1], |i| i as f64);
            let b = Array::with(DType::F32, &[n], &[1], |i| 2.0 * i as f64);
            let want: Vec<f64> = (0..n).map(|i| if both { 0.0 } else { -i as f64 }).collect();
            if both {
                apply(ScalarFn::Sub, Class::F32, &[&a, &a], &a).unwrap();
                assert_eq!(a.values(), want);
            } else {
                apply(ScalarFn::Sub, Class::F32, &[&a, &b], &b).unwrap();
                assert_eq!(b.values(), want);
            }
        }
    }
}

#[test]
fn copies_between_layouts_and_dtypes() {
    let program = Program { inputs: &[Input::Operand(Class::F32)], steps: &[], results: &[0] };
    for (sizes, strides) in
        [(vec![130, 170], vec![1, 130]), (vec![5, 40, 60], vec![1, 300, 5]), (vec![9, 9, 9, 9], vec![1, 9, 81, 729])]
    {
        let x = Array::with(DType::F32, &sizes, &strides, |i| i as f64);
        for dtype in [DType::F32, DType::F64, DType::I64] {
            let out = Array::zeros(dtype, &sizes);
            flambeau_cpu::cpu().map(&program, &[x.operand()], &[out.operand()]).unwrap();
            assert_eq!(out.values(), x.values());
        }
    }
}

#[test]
fn fused_programs_have_eager_bits() {
    // ((a + b) rounded to f16) * c, then exp.
    let sizes = [33i64, 65];
    let make = |k: usize| Array::with(DType::F16, &sizes, &[65, 1], move |i| noise(i * 7 + k));
    let (a, b, c) = (make(1), make(2), make(3));
    let (t, u, eager) =
        (Array::zeros(DType::F16, &sizes), Array::zeros(DType::F16, &sizes), Array::zeros(DType::F16, &sizes));
    apply(ScalarFn::Add, Class::F32, &[&a, &b], &t).unwrap();
    apply(ScalarFn::Mul, Class::F32, &[&t, &c], &u).unwrap();
    apply(ScalarFn::Exp, Class::F32, &[&u], &eager).unwrap();
    let step = |op, args| Step { op, class: Class::F32, args };
    let round = StepOp::Convert(DType::F16, Class::F32);
    let steps = [
        step(StepOp::Apply(ScalarFn::Add), [0, 1, 0, 0]),
        step(round, [3, 0, 0, 0]),
        step(StepOp::Apply(ScalarFn::Mul), [4, 2, 0, 0]),
        step(round, [5, 0, 0, 0]),
        step(StepOp::Apply(ScalarFn::Exp), [6, 0, 0, 0]),
    ];
    let out = Array::zeros(DType::F16, &sizes);
    flambeau_cpu::cpu()
        .map(
            &Program { inputs: &[Input::Operand(Class::F32); 3], steps: &steps, results: &[7] },
            &[a.operand(), b.operand(), c.operand()],
            &[out.operand()],
        )
        .unwrap();
    assert_eq!(out.values(), eager.values());
}

/// Distance from the true value in units of the last place of f32.
fn ulps(got: f64, want: f64) -> f64 {
    if got.is_nan() && want.is_nan() || got == want {
        return 0.0;
    }
    let rounded = want as f32;
    if rounded.is_infinite() || want.is_nan() || got.is_nan() {
        return if got as f32 == rounded { 0.0 } else { f64::INFINITY };
    }
    let step =
        (rounded.abs().next_up() as f64 - rounded.abs() as f64).max(f32::MIN_POSITIVE as f64 / (1u64 << 23) as f64);
    (got - want).abs() / step
}

#[test]
fn single_precision_functions_are_accurate() {
    type Case = (ScalarFn, fn(f64) -> f64, f64, f64, f64);
    let cases: [Case; 14] = [
        (ScalarFn::Exp, f64::exp, -110.0, 95.0, 1.5),
        (ScalarFn::Expm1, f64::exp_m1, -30.0, 95.0, 2.0),
        (ScalarFn::Expm1, f64::exp_m1, -0.6, 0.6, 2.0),
        (ScalarFn::Expm1, f64::exp_m1, -1e-6, 1e-6, 1.0),
        (ScalarFn::Log, f64::ln, 0.0, 4.0, 1.5),
        (ScalarFn::Log1p, f64::ln_1p, -1.0, 4.0, 2.0),
        (ScalarFn::Log1p, f64::ln_1p, -1e-5, 1e-5, 1.5),
        (ScalarFn::Log1p, f64::ln_1p, 1.0, 1e9, 2.0),
        (ScalarFn::Tanh, f64::tanh, -10.0, 10.0, 2.0),
        (ScalarFn::Sin, f64::sin, -100.0, 100.0, 2.0),
        (ScalarFn::Cos, f64::cos, -100.0, 100.0, 2.0),
        (ScalarFn::Sin, f64::sin, -1e30, 1e30, 2.0),
        (ScalarFn::Cos, f64::cos, -1e7, 1e7, 2.0),
        (ScalarFn::Sigmoid, |x| 1.0 / (1.0 + (-x).exp()), -80.0, 80.0, 2.5),
    ];
    for (f, exact, lo, hi, limit) in cases {
        let n = 60_000;
        let x = Array::with(DType::F32, &[n], &[1], |i| lo + (hi - lo) * (noise(i) * 0.5 + 0.5));
        let out = Array::zeros(DType::F32, &[n]);
        apply(f, Class::F32, &[&x], &out).unwrap();
        let (mut worst, mut at) = (0.0, 0.0);
        for (x, y) in x.values().into_iter().zip(out.values()) {
            let e = ulps(y, exact(x));
            if e > worst {
                (worst, at) = (e, x);
            }
        }
        assert!(worst <= limit, "{} is {worst} ulp off at {at}", f.name());
    }
    let special = [0.0, -0.0, 1.0, -1.0, f64::INFINITY, f64::NEG_INFINITY, f64::NAN, 1e-40, -1e-40, 3e38];
    let rows: [(ScalarFn, fn(f64) -> f64); 6] = [
        (ScalarFn::Exp, f64::exp),
        (ScalarFn::Expm1, f64::exp_m1),
        (ScalarFn::Log, f64::ln),
        (ScalarFn::Log1p, f64::ln_1p),
        (ScalarFn::Tanh, f64::tanh),
        (ScalarFn::Sin, f64::sin),
    ];
    for (f, exact) in rows {
        let x = Array::with(DType::F32, &[10], &[1], |i| special[i]);
        let out = Array::zeros(DType::F32, &[10]);
        apply(f, Class::F32, &[&x], &out).unwrap();
        for (x, y) in x.values().into_iter().zip(out.values()) {
            let want = exact(x);
            assert!(ulps(y, want) <= 2.0, "{}({x}) = {y}, not {want}", f.name());
            assert!(want != 0.0 || y.is_sign_negative() == want.is_sign_negative(), "{}({x}) = {y}", f.name());
        }
    }
}

#[test]
fn integer_division_never_traps() {
    let a = Array::with(DType::I64, &[4], &[1], |i| [i64::MIN as f64, 7.0, -7.0, 5.0][i]);
    let b = Array::with(DType::I64, &[4], &[1], |i| [-1.0, 0.0, 2.0, -3.0][i]);
    let out = Array::zeros(DType::I64, &[4]);
    for (f, want) in [
        (ScalarFn::FloorDiv, [0.0, -4.0, -2.0]),
        (ScalarFn::TruncDiv, [0.0, -3.0, -1.0]),
        (ScalarFn::Remainder, [0.0, 1.0, -1.0]),
    ] {
        apply(f, Class::I64, &[&a, &b], &out).unwrap();
        assert_eq!(out.values()[1..], want, "{}", f.name());
    }
}
