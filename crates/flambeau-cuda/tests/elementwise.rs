//! Maps, reductions, scans and indexing on the emulated device, against plain loops on the host. Skipped, with a line
//! that says so, where there is no C++ compiler.

mod common;

use common::*;
use flambeau_core::*;
use flambeau_cuda::Extent;

#[test]
fn map_runs_a_fused_program_over_strided_and_broadcast_operands() {
    let Some(b) = device() else { return };
    let (m, n) = (37, 53);
    let (x, y) = (values(m * n, 1), values(n, 2));
    let tx = Tensor::f32(b, &[n as i64, m as i64], &x).view(&[m as i64, n as i64], &[1, m as i64], 0);
    let ty = Tensor::f32(b, &[n as i64], &y).view(&[m as i64, n as i64], &[0, 1], 0);
    let out = Tensor::empty(b, DType::F32, &[m as i64, n as i64]);
    let twice = Tensor::empty(b, DType::BF16, &[m as i64, n as i64]);
    // exp(x * y + 0.5), rounded through bfloat16 and taken times 2.
    let steps = [
        apply(ScalarFn::Mul, Class::F32, [0, 1, 0, 0]),
        apply(ScalarFn::Add, Class::F32, [3, 2, 0, 0]),
        apply(ScalarFn::Exp, Class::F32, [4, 0, 0, 0]),
        Step { op: StepOp::Convert(DType::BF16, Class::F32), class: Class::F32, args: [5, 0, 0, 0] },
        apply(ScalarFn::Add, Class::F32, [6, 6, 0, 0]),
    ];
    let program =
        Program { inputs: &[F, F, Input::Number(Number::Float(0.5), Class::F32)], steps: &steps, results: &[5, 7] };
    b.map(&program, &[tx.op(), ty.op()], &[out.op(), twice.op()]).unwrap();
    let got = out.to_f32(b);
    let raw = twice.raw(b);
    for i in 0..m {
        for j in 0..n {
            let want = (x[j * m + i] * y[j] + 0.5).exp();
            let g = got[i * n + j];
            assert!((g - want).abs() <= 1e-6 * want, "{g} {want}");
            let h = bf16::from_le_bytes(raw[2 * (i * n + j)..][..2].try_into().unwrap());
            assert_eq!(h.to_f32(), bf16::from_f32(g).to_f32() * 2.0);
        }
    }
}

#[test]
fn conversions_between_dtypes_are_those_of_the_host() {
    let Some(b) = device() else { return };
    let x: Vec<f32> = values(500, 3)
        .iter()
        .enumerate()
        .map(|(i, v)| v * (2f32).powi(i as i32 % 60 - 30))
        .chain([0.0, -0.0, f32::INFINITY, f32::NAN, 65504.0, 65519.0, 65520.0, 448.0, 1e-7, 6e-8])
        .collect();
    let n = x.len() as i64;
    let tx = Tensor::f32(b, &[n], &x);
    let copy = |dtype: DType| {
        let out = Tensor::empty(b, dtype, &[n]);
        b.map(&Program { inputs: &[F], steps: &[], results: &[0] }, &[tx.op()], &[out.op()]).unwrap();
        let back = Tensor::empty(b, DType::F32, &[n]);
        b.map(&Program { inputs: &[F], steps: &[], results: &[0] }, &[out.op()], &[back.op()]).unwrap();
        (out.raw(b), back.to_f32(b))
    };
    let (raw, back) = copy(DType::F16);
    for (i, v) in x.iter().enumerate() {
        let h = f16::from_le_bytes(raw[2 * i..][..2].try_into().unwrap());
        assert!(h.to_bits() == f16::from_f32(*v).to_bits() || v.is_nan(), "{v}");
        assert!(back[i].to_bits() == h.to_f32().to_bits() || v.is_nan(), "{v}");
    }
    let (raw, _) = copy(DType::BF16);
    for (i, v) in x.iter().enumerate() {
        let h = bf16::from_le_bytes(raw[2 * i..][..2].try_into().unwrap());
        assert!(h.to_bits() == bf16::from_f32(*v).to_bits() || v.is_nan(), "{v}");
    }
    let (raw, _) = copy(DType::I32);
    for (i, v) in x.iter().enumerate() {
        let h = i32::from_le_bytes(raw[4 * i..][..4].try_into().unwrap());
        assert_eq!(h, *v as i64 as i32, "{v}");
    }
    let (raw, _) = copy(DType::Bool);
    assert!(x.iter().zip(&raw).all(|(v, r)| *r == (*v != 0.0) as u8));
    // Every float8 value comes back as itself.
    for dtype in [DType::F8E4M3, DType::F8E5M2] {
        let all: Vec<u8> = (0..=255).collect();
        let t = Tensor::bytes(b, dtype, &[256], &all);
        let (wide, again) = (Tensor::empty(b, DType::F32, &[256]), Tensor::empty(b, dtype, &[256]));
        let program = Program { inputs: &[F], steps: &[], results: &[0] };
        b.map(&program, &[t.op()], &[wide.op()]).unwrap();
        b.map(&program, &[wide.op()], &[again.op()]).unwrap();
        let (wide, again) = (wide.to_f32(b), again.raw(b));
        for i in 0..256 {
            assert!(again[i] == all[i] || wide[i].is_nan(), "{dtype} {i:x} {}", wide[i]);
        }
        assert_eq!(wide[if dtype == DType::F8E4M3 { 0x38 } else { 0x3c }], 1.0);
    }
}

#[test]
fn special_functions_agree_with_known_values() {
    let Some(b) = device() else { return };
    // (function, argument, value): Abramowitz & Stegun's tables and closed forms.
    let cases = [
        (ScalarFn::Erfinv, 0.5, 0.476_936_276_204_469_9),
        (ScalarFn::Erfinv, -0.999, -2.326_753_765_513_525),
        (ScalarFn::Ndtri, 0.975, 1.959_963_984_540_054),
        (ScalarFn::Ndtri, 1e-10, -6.361_340_902_404_056),
        (ScalarFn::Digamma, 1.0, -0.577_215_664_901_532_9),
        (ScalarFn::Digamma, -0.5, 0.036_489_973_978_576_52),
        (ScalarFn::I0, 1.0, 1.266_065_877_752_008_4),
        (ScalarFn::I1, 1.0, 0.565_159_103_992_485),
        (ScalarFn::I0e, 100.0, 0.039_944_379_299_096_68),
        (ScalarFn::Lgamma, 10.0, 12.801_827_480_081_469),
        (ScalarFn::Gelu, 1.0, 0.841_344_746_068_542_9),
    ];
    for (f, a, want) in cases {
        let (x, out) = (Tensor::f64(b, &[1], &[a]), Tensor::empty(b, DType::F64, &[1]));
        let steps = [apply(f, Class::F64, [0; 4])];
        b.map(&Program { inputs: &identity(Class::F64), steps: &steps, results: &[1] }, &[x.op()], &[out.op()])
            .unwrap();
        let got = out.to_f64(b)[0];
        assert!((got - want).abs() <= 1e-12 * want.abs(), "{f:?}({a}) = {got}, not {want}");
    }
    let (x, n, out) = (Tensor::f64(b, &[1], &[1.0]), Number::Int(1), Tensor::empty(b, DType::F64, &[1]));
    let steps = [apply(ScalarFn::Polygamma, Class::F64, [0, 1, 0, 0])];
    let inputs = [Input::Operand(Class::F64), Input::Number(n, Class::F64)];
    b.map(&Program { inputs: &inputs, steps: &steps, results: &[2] }, &[x.op()], &[out.op()]).unwrap();
    assert!((out.to_f64(b)[0] - std::f64::consts::PI.powi(2) / 6.0).abs() < 1e-14);
}

/// One fused program of many functions, so that there is one kernel to compile.
#[test]
fn complex_functions_agree_with_the_host() {
    let Some(b) = device() else { return };
    type Function = (ScalarFn, fn(Complex64) -> Complex64);
    let functions: [Function; 17] = [
        (ScalarFn::Exp, |z| z.exp()),
        (ScalarFn::Log, |z| z.ln()),
        (ScalarFn::Log1p, |z| (z + 1.0).ln()),
        (ScalarFn::Expm1, |z| z.exp() - 1.0),
        (ScalarFn::Sqrt, |z| z.sqrt()),
        (ScalarFn::Sin, |z| z.sin()),
        (ScalarFn::Cos, |z| z.cos()),
        (ScalarFn::Tan, |z| z.tan()),
        (ScalarFn::Asin, |z| z.asin()),
        (ScalarFn::Acos, |z| z.acos()),
        (ScalarFn::Atan, |z| z.atan()),
        (ScalarFn::Sinh, |z| z.sinh()),
        (ScalarFn::Cosh, |z| z.cosh()),
        (ScalarFn::Tanh, |z| z.tanh()),
        (ScalarFn::Asinh, |z| z.asinh()),
        (ScalarFn::Acosh, |z| z.acosh()),
        (ScalarFn::Atanh, |z| z.atanh()),
    ];
    let re = values(200, 30);
    let im = values(200, 31);
    let mut x: Vec<Complex64> =
        re.iter().zip(&im).map(|(a, b)| Complex64::new(3.0 * *a as f64, 3.0 * *b as f64)).collect();
    // Near the ends of atanh, where it has few digits to lose.
    (x[0], x[1]) = (Complex64::new(-1.0 + 1e-5, 1e-5), Complex64::new(1.0 - 1e-5, -1e-5));
    let bytes: Vec<u8> = x.iter().flat_map(|z| [z.re.to_le_bytes(), z.im.to_le_bytes()].concat()).collect();
    let t = Tensor::bytes(b, DType::C128, &[200], &bytes);
    let steps: Vec<Step> = functions.iter().map(|(f, _)| apply(*f, Class::C64, [0; 4])).collect();
    let results: Vec<u16> = (1..=functions.len() as u16).collect();
    let outs: Vec<Tensor> = functions.iter().map(|_| Tensor::empty(b, DType::C128, &[200])).collect();
    let program = Program { inputs: &identity(Class::C64), steps: &steps, results: &results };
    b.map(&program, &[t.op()], &outs.iter().map(|o| o.op()).collect::<Vec<_>>()).unwrap();
    for ((f, host), out) in functions.iter().zip(&outs) {
        let raw = out.raw(b);
        for (i, z) in x.iter().enumerate() {
            let part = |k: usize| f64::from_le_bytes(raw[16 * i + 8 * k..][..8].try_into().unwrap());
            let (got, want) = (Complex64::new(part(0), part(1)), host(*z));
            assert!((got - want).norm() <= 1e-12 * (1.0 + want.norm()), "{f:?}({z}) = {got}, not {want}");
        }
    }
}

#[test]
fn reductions_agree_with_loops_for_every_cut() {
    let Some(b) = device() else { return };
    // Sizes that take the thread form, the block form, and parts that are merged more than once.
    for (outer, n) in [(3usize, 5usize), (2, 1000), (1, 40_000), (1, 0)] {
        let x = values(outer * n, 4);
        for transposed in [false, true] {
            let t = if transposed {
                let mut y = vec![0f32; outer * n];
                (0..outer).for_each(|i| (0..n).for_each(|j| y[j * outer + i] = x[i * n + j]));
                Tensor::f32(b, &[n as i64, outer as i64], &y).view(&[outer as i64, n as i64], &[1, outer as i64], 0)
            } else {
                Tensor::f32(b, &[outer as i64, n as i64], &x)
            };
            let square = [apply(ScalarFn::Mul, Class::F32, [0, 0, 0, 0])];
            let program = Program { inputs: &[F], steps: &square, results: &[1] };
            let out = Tensor::empty(b, DType::F32, &[outer as i64, 1]);
            b.reduce(Reduction::Sum, &program, &[t.op()], 2, &[out.op()]).unwrap();
            let want: Vec<f64> =
                (0..outer).map(|i| x[i * n..][..n].iter().map(|v| (*v as f64).powi(2)).sum()).collect();
            close(&out.to_f32(b), &want, 1e-5);
            if n == 0 {
                continue;
            }
            let plain = Program { inputs: &[F], steps: &[], results: &[0] };
            let mean = Tensor::empty(b, DType::F32, &[outer as i64, 1]);
            b.reduce(Reduction::VarMean { correction: 1.0 }, &plain, &[t.op()], 2, &[out.op(), mean.op()]).unwrap();
            let means: Vec<f64> =
                (0..outer).map(|i| x[i * n..][..n].iter().map(|v| *v as f64).sum::<f64>() / n as f64).collect();
            let variances: Vec<f64> = (0..outer)
                .map(|i| x[i * n..][..n].iter().map(|v| (*v as f64 - means[i]).powi(2)).sum::<f64>() / (n - 1) as f64)
                .collect();
            close(&out.to_f32(b), &variances, 1e-5);
            close(&mean.to_f32(b), &means, 1e-5);
            let index = Tensor::empty(b, DType::I64, &[outer as i64, 1]);
            b.reduce(Reduction::MaxIndex, &plain, &[t.op()], 2, &[out.op(), index.op()]).unwrap();
            for (i, (v, k)) in out.to_f32(b).iter().zip(index.to_i64(b)).enumerate() {
                let row = &x[i * n..][..n];
                let best = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                assert_eq!((*v, k as usize), (best, row.iter().position(|v| *v == best).unwrap()));
            }
        }
    }
    // NaN wins, the first of equals stays.
    let t = Tensor::f32(b, &[6], &[1.0, 3.0, f32::NAN, 3.0, f32::NAN, 9.0]);
    let index = Tensor::empty(b, DType::I64, &[1]);
    b.reduce(Reduction::ArgMax, &Program { inputs: &[F], steps: &[], results: &[0] }, &[t.op()], 1, &[index.op()])
        .unwrap();
    assert_eq!(index.to_i64(b), [2]);
}

#[test]
fn scans_agree_with_loops() {
    let Some(b) = device() else { return };
    let (rows, n) = (3usize, 1300usize);
    let x = values(rows * n, 5);
    let t = Tensor::f32(b, &[rows as i64, n as i64], &x);
    let out = Tensor::empty(b, DType::F32, &[rows as i64, n as i64]);
    let index = Tensor::empty(b, DType::I64, &[rows as i64, n as i64]);
    b.scan(Scan::Sum, &t.op(), 1, &[out.op()]).unwrap();
    let mut want = vec![0f64; rows * n];
    for i in 0..rows * n {
        want[i] = x[i] as f64 + if i % n == 0 { 0.0 } else { want[i - 1] };
    }
    close(&out.to_f32(b), &want, 1e-5);
    b.scan(Scan::Max, &t.op(), 1, &[out.op(), index.op()]).unwrap();
    let (got, at) = (out.to_f32(b), index.to_i64(b));
    for i in 0..rows * n {
        let row = &x[i / n * n..=i];
        assert_eq!(got[i], row.iter().copied().fold(f32::NEG_INFINITY, f32::max));
        assert_eq!(x[i / n * n + at[i] as usize], got[i]);
    }
    b.scan(Scan::LogSumExp, &t.op(), 1, &[out.op()]).unwrap();
    let mut sum = 0f64;
    for i in 0..rows * n {
        sum = if i % n == 0 { 0.0 } else { sum } + (x[i] as f64).exp();
        want[i] = sum.ln();
    }
    close(&out.to_f32(b), &want, 1e-5);
}

#[test]
fn indexed_reads_and_writes() {
    let Some(b) = device() else { return };
    let table: Vec<f32> = (0..20).map(|i| i as f32).collect();
    let t = Tensor::f32(b, &[5, 4], &table);
    let rows = Tensor::i64(b, &[3], &[4, -5, 4]);
    let wide = rows.view(&[3, 4], &[1, 0], 0);
    let index = |wrap| [Index { values: wide.op(), size: 5, stride: 4, dim: 0, wrap }];
    let source = t.view(&[3, 4], &[0, 1], 0);
    let out = Tensor::empty(b, DType::F32, &[3, 4]);
    b.index_read(&source.op(), &index(true), &out.op()).unwrap();
    assert_eq!(out.to_f32(b), [16., 17., 18., 19., 0., 1., 2., 3., 16., 17., 18., 19.]);
    let error = b.index_read(&source.op(), &index(false), &out.op()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Index);
    assert!(error.message().contains("-5") && error.message().contains("size 5"), "{error}");

    let add = Tensor::f32(b, &[3, 4], &(0..12).map(|i| 100.0 * i as f32).collect::<Vec<_>>());
    b.index_write(&source.op(), &index(true), &add.op(), Write::Add).unwrap();
    let got = t.to_f32(b);
    assert_eq!(got[16..], [816., 1017., 1218., 1419.]);
    assert_eq!(got[..5], [400., 501., 602., 703., 4.]);
    // Of several replacements the last stays.
    b.index_write(&source.op(), &index(true), &add.op(), Write::Set).unwrap();
    let got = t.to_f32(b);
    assert_eq!(got[16..], [800., 900., 1000., 1100.]);
    assert_eq!(got[..5], [400., 500., 600., 700., 4.]);
}

#[test]
fn choosing_by_mask() {
    let Some(b) = device() else { return };
    let n = 1500usize;
    let x: Vec<f32> = values(n, 6).iter().map(|v| if *v > 0.2 { *v } else { 0.0 }).collect();
    let t = Tensor::f32(b, &[30, 50], &x);
    let chosen: Vec<usize> = (0..n).filter(|i| x[*i] != 0.0).collect();
    assert_eq!(b.count_nonzero(&t.op()).unwrap(), chosen.len() as i64);
    let out = Tensor::empty(b, DType::I64, &[chosen.len() as i64, 2]);
    b.nonzero(&t.op(), &out.op()).unwrap();
    assert_eq!(out.to_i64(b), chosen.iter().flat_map(|i| [(i / 50) as i64, (i % 50) as i64]).collect::<Vec<_>>());
    let mask: Vec<u8> = x.iter().map(|v| (*v != 0.0) as u8).collect();
    let mask = Tensor::bytes(b, DType::Bool, &[30, 50], &mask);
    let picked = Tensor::empty(b, DType::F32, &[chosen.len() as i64]);
    b.masked_select(&t.op(), &mask.op(), &picked.op()).unwrap();
    assert_eq!(picked.to_f32(b), chosen.iter().map(|i| x[*i]).collect::<Vec<_>>());
}

#[test]
fn sorting_is_stable_and_puts_nan_last() {
    let Some(b) = device() else { return };
    let (rows, n) = (3usize, 301usize);
    // Few distinct values, so that stability shows.
    let mut x: Vec<f32> = values(rows * n, 25).iter().map(|v| (v * 20.0).round()).collect();
    x[17] = f32::NAN;
    let t = Tensor::f32(b, &[rows as i64, n as i64], &x);
    let (v, i) = (
        Tensor::empty(b, DType::F32, &[rows as i64, n as i64]),
        Tensor::empty(b, DType::I64, &[rows as i64, n as i64]),
    );
    let (top, at) = (Tensor::empty(b, DType::F32, &[rows as i64, 5]), Tensor::empty(b, DType::I64, &[rows as i64, 5]));
    for descending in [false, true] {
        b.sort(&t.op(), 1, descending, &v.op(), &i.op()).unwrap();
        b.topk(&t.op(), 1, descending, &top.op(), &at.op()).unwrap();
        let (got, places) = (v.to_f32(b), i.to_i64(b));
        for r in 0..rows {
            let row = &x[r * n..][..n];
            let mut order: Vec<usize> = (0..n).collect();
            let key = |i: usize| {
                if row[i].is_nan() {
                    f32::INFINITY
                } else {
                    row[i]
                }
            };
            order.sort_by(|a, b| if descending { key(*b).total_cmp(&key(*a)) } else { key(*a).total_cmp(&key(*b)) });
            // -0 and 0 are equal: compared as numbers, by position among equals.
            for (k, o) in order.iter().enumerate() {
                let (g, w) = (got[r * n + k], row[*o]);
                assert!(g == w || (g.is_nan() && w.is_nan()), "{r} {k}: {g} {w}");
                assert!(k == 0 || got[r * n + k - 1] != g || places[r * n + k - 1] < places[r * n + k]);
                assert!(k >= 5 || at.to_i64(b)[r * 5 + k] == places[r * n + k]);
            }
        }
    }
}

#[test]
fn a_missing_barrier_and_a_bad_launch_are_reported() {
    let Some(_) = device() else { return };
    let driver = flambeau_cuda::driver(0).unwrap();
    // Half of the threads wait at a barrier, the others at a shuffle: on a GPU this hangs.
    let text = "struct Args { int *p; };\n\
        extern \"C\" __global__ void divergent(const Args a) {\n\
          if (threadIdx.x < 7) __syncthreads();\n\
          a.p[0] = __shfl_xor_sync(0xffffffffu, 1, 1);\n\
        }\n\
        extern \"C\" __global__ void unordered(const Args a) {\n\
          __shared__ int room[64];\n\
          room[threadIdx.x] = threadIdx.x;\n\
          a.p[threadIdx.x] = room[63 - threadIdx.x];\n\
        }\n";
    let functions = driver.load(text, &["divergent".to_owned(), "unordered".to_owned()]).unwrap();
    let mut values = [0i32; 64];
    let mut argument = values.as_mut_ptr() as u64;
    let extent = |threads: u32| Extent { grid: [1, 1, 1], block: [threads, 1, 1], shared: 0 };
    let mut launch = |f, threads| {
        // SAFETY: on the emulated device the host's array is device memory as well; it has 64 elements.
        unsafe { driver.launch(f, extent(threads), (&raw mut argument).cast()) }
    };
    let error = launch(functions[0], 64).unwrap_err();
    assert!(error.message().contains("deadlock"), "{error}");
    let error = launch(functions[0], 2048).unwrap_err();
    assert!(error.message().contains("invalid launch"), "{error}");
    // Without the barrier some threads read what has not been written: poison, not the right numbers.
    launch(functions[1], 64).unwrap();
    assert!((0..64).any(|i| values[i] != 63 - i as i32));
}

#[test]
fn memory_that_cannot_be_had() {
    let Some(b) = device() else { return };
    let error = b.alloc(1 << 45).err().expect("no device has so much memory");
    assert_eq!(error.kind(), ErrorKind::OutOfMemory);
    assert!(error.message().contains("32768.00 GiB"), "{error}");
    let before = b.memory_stats().allocated.current;
    let memory = b.alloc(10_000).unwrap();
    assert!(b.memory_stats().allocated.current >= before + 10_000 || before > 0);
    drop(memory);
    b.trim();
}
