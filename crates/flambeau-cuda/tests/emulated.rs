//! The families on the emulated device, against plain loops on the host. Skipped, with a line that says so, where there is no
//! C++ compiler.

use flambeau_core::*;
use flambeau_cuda::Extent;

/// The emulated device, or none where it cannot work.
fn device() -> Option<&'static dyn Backend> {
    static ONCE: std::sync::Once = std::sync::Once::new();
    // Set before anything of the crate looks at it; tests wait here for one another.
    ONCE.call_once(|| std::env::set_var("FLAMBEAU_CUDA", "emulated"));
    if !flambeau_cuda::is_available() {
        println!("skipped: no C++ compiler for the emulated CUDA device");
        return None;
    }
    Some(flambeau_cuda::backend(0).expect("the emulated device opens"))
}

/// A tensor on the device: memory, dtype and layout.
struct Tensor {
    storage: std::sync::Arc<Storage>,
    dtype: DType,
    sizes: Vec<i64>,
    strides: Vec<i64>,
    offset: i64,
}

impl Tensor {
    fn empty(b: &dyn Backend, dtype: DType, sizes: &[i64]) -> Tensor {
        let n = numel(sizes) as usize * dtype.size();
        let storage = Storage::new(b.alloc(n).unwrap(), b.device());
        Tensor {
            storage,
            dtype,
            sizes: sizes.to_vec(),
            strides: contiguous_strides(sizes).to_vec(),
            offset: 0,
        }
    }
    fn bytes(b: &dyn Backend, dtype: DType, sizes: &[i64], bytes: &[u8]) -> Tensor {
        let t = Tensor::empty(b, dtype, sizes);
        assert_eq!(bytes.len(), numel(sizes) as usize * dtype.size());
        b.upload(bytes.as_ptr(), t.storage.ptr().unwrap(), bytes.len())
            .unwrap();
        t
    }
    fn f32(b: &dyn Backend, sizes: &[i64], values: &[f32]) -> Tensor {
        Tensor::bytes(
            b,
            DType::F32,
            sizes,
            &values
                .iter()
                .flat_map(|v| v.to_le_bytes())
                .collect::<Vec<_>>(),
        )
    }
    fn f64(b: &dyn Backend, sizes: &[i64], values: &[f64]) -> Tensor {
        Tensor::bytes(
            b,
            DType::F64,
            sizes,
            &values
                .iter()
                .flat_map(|v| v.to_le_bytes())
                .collect::<Vec<_>>(),
        )
    }
    fn i64(b: &dyn Backend, sizes: &[i64], values: &[i64]) -> Tensor {
        Tensor::bytes(
            b,
            DType::I64,
            sizes,
            &values
                .iter()
                .flat_map(|v| v.to_le_bytes())
                .collect::<Vec<_>>(),
        )
    }
    fn view(&self, sizes: &[i64], strides: &[i64], offset: i64) -> Tensor {
        Tensor {
            storage: self.storage.clone(),
            dtype: self.dtype,
            sizes: sizes.to_vec(),
            strides: strides.to_vec(),
            offset,
        }
    }
    fn op(&self) -> Operand<'_> {
        Operand {
            ptr: self
                .storage
                .ptr()
                .unwrap()
                .wrapping_offset((self.offset * self.dtype.size() as i64) as isize),
            dtype: self.dtype,
            sizes: &self.sizes,
            strides: &self.strides,
            device: Device::Cuda(0),
        }
    }
    /// All bytes of the memory.
    fn raw(&self, b: &dyn Backend) -> Vec<u8> {
        let mut out = vec![0u8; self.storage.nbytes()];
        b.download(self.storage.ptr().unwrap(), out.as_mut_ptr(), out.len())
            .unwrap();
        out
    }
    fn to_f32(&self, b: &dyn Backend) -> Vec<f32> {
        assert_eq!(self.dtype, DType::F32);
        self.raw(b)
            .chunks(4)
            .map(|c| f32::from_le_bytes(c.try_into().unwrap()))
            .collect()
    }
    fn to_f64(&self, b: &dyn Backend) -> Vec<f64> {
        assert_eq!(self.dtype, DType::F64);
        self.raw(b)
            .chunks(8)
            .map(|c| f64::from_le_bytes(c.try_into().unwrap()))
            .collect()
    }
    fn to_i64(&self, b: &dyn Backend) -> Vec<i64> {
        assert_eq!(self.dtype, DType::I64);
        self.raw(b)
            .chunks(8)
            .map(|c| i64::from_le_bytes(c.try_into().unwrap()))
            .collect()
    }
}

/// Numbers in -1..1 that look random.
fn values(n: usize, seed: u64) -> Vec<f32> {
    let mut s = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..n)
        .map(|_| {
            s ^= s << 13;
            s ^= s >> 7;
            s ^= s << 17;
            (s >> 40) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect()
}

#[track_caller]
fn close(got: &[f32], want: &[f64], tolerance: f64) {
    assert_eq!(got.len(), want.len());
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        let error = (*g as f64 - w).abs();
        assert!(
            error <= tolerance * (1.0 + w.abs()) || (g.is_nan() && w.is_nan()),
            "at {i}: {g} instead of {w}"
        );
    }
}

const F: Input = Input::Operand(Class::F32);
fn apply(f: ScalarFn, class: Class, args: [u16; 4]) -> Step {
    Step {
        op: StepOp::Apply(f),
        class,
        args,
    }
}
/// A program that hands its operand on.
fn identity(class: Class) -> [Input; 1] {
    [Input::Operand(class)]
}

#[test]
fn map_runs_a_fused_program_over_strided_and_broadcast_operands() {
    let Some(b) = device() else { return };
    let (m, n) = (37, 53);
    let (x, y) = (values(m * n, 1), values(n, 2));
    let tx =
        Tensor::f32(b, &[n as i64, m as i64], &x).view(&[m as i64, n as i64], &[1, m as i64], 0);
    let ty = Tensor::f32(b, &[n as i64], &y).view(&[m as i64, n as i64], &[0, 1], 0);
    let out = Tensor::empty(b, DType::F32, &[m as i64, n as i64]);
    let twice = Tensor::empty(b, DType::BF16, &[m as i64, n as i64]);
    // exp(x * y + 0.5), rounded through bfloat16 and taken times 2.
    let steps = [
        apply(ScalarFn::Mul, Class::F32, [0, 1, 0, 0]),
        apply(ScalarFn::Add, Class::F32, [3, 2, 0, 0]),
        apply(ScalarFn::Exp, Class::F32, [4, 0, 0, 0]),
        Step {
            op: StepOp::Convert(DType::BF16, Class::F32),
            class: Class::F32,
            args: [5, 0, 0, 0],
        },
        apply(ScalarFn::Add, Class::F32, [6, 6, 0, 0]),
    ];
    let program = Program {
        inputs: &[F, F, Input::Number(Number::Float(0.5), Class::F32)],
        steps: &steps,
        results: &[5, 7],
    };
    b.map(&program, &[tx.op(), ty.op()], &[out.op(), twice.op()])
        .unwrap();
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
        .chain([
            0.0,
            -0.0,
            f32::INFINITY,
            f32::NAN,
            65504.0,
            65519.0,
            65520.0,
            448.0,
            1e-7,
            6e-8,
        ])
        .collect();
    let n = x.len() as i64;
    let tx = Tensor::f32(b, &[n], &x);
    let copy = |dtype: DType| {
        let out = Tensor::empty(b, dtype, &[n]);
        b.map(
            &Program {
                inputs: &[F],
                steps: &[],
                results: &[0],
            },
            &[tx.op()],
            &[out.op()],
        )
        .unwrap();
        let back = Tensor::empty(b, DType::F32, &[n]);
        b.map(
            &Program {
                inputs: &[F],
                steps: &[],
                results: &[0],
            },
            &[out.op()],
            &[back.op()],
        )
        .unwrap();
        (out.raw(b), back.to_f32(b))
    };
    let (raw, back) = copy(DType::F16);
    for (i, v) in x.iter().enumerate() {
        let h = f16::from_le_bytes(raw[2 * i..][..2].try_into().unwrap());
        assert!(
            h.to_bits() == f16::from_f32(*v).to_bits() || v.is_nan(),
            "{v}"
        );
        assert!(
            back[i].to_bits() == h.to_f32().to_bits() || v.is_nan(),
            "{v}"
        );
    }
    let (raw, _) = copy(DType::BF16);
    for (i, v) in x.iter().enumerate() {
        let h = bf16::from_le_bytes(raw[2 * i..][..2].try_into().unwrap());
        assert!(
            h.to_bits() == bf16::from_f32(*v).to_bits() || v.is_nan(),
            "{v}"
        );
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
        let (wide, again) = (
            Tensor::empty(b, DType::F32, &[256]),
            Tensor::empty(b, dtype, &[256]),
        );
        let program = Program {
            inputs: &[F],
            steps: &[],
            results: &[0],
        };
        b.map(&program, &[t.op()], &[wide.op()]).unwrap();
        b.map(&program, &[wide.op()], &[again.op()]).unwrap();
        let (wide, again) = (wide.to_f32(b), again.raw(b));
        for i in 0..256 {
            assert!(
                again[i] == all[i] || wide[i].is_nan(),
                "{dtype} {i:x} {}",
                wide[i]
            );
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
        let (x, out) = (
            Tensor::f64(b, &[1], &[a]),
            Tensor::empty(b, DType::F64, &[1]),
        );
        let steps = [apply(f, Class::F64, [0; 4])];
        b.map(
            &Program {
                inputs: &identity(Class::F64),
                steps: &steps,
                results: &[1],
            },
            &[x.op()],
            &[out.op()],
        )
        .unwrap();
        let got = out.to_f64(b)[0];
        assert!(
            (got - want).abs() <= 1e-12 * want.abs(),
            "{f:?}({a}) = {got}, not {want}"
        );
    }
    let (x, n, out) = (
        Tensor::f64(b, &[1], &[1.0]),
        Number::Int(1),
        Tensor::empty(b, DType::F64, &[1]),
    );
    let steps = [apply(ScalarFn::Polygamma, Class::F64, [0, 1, 0, 0])];
    let inputs = [Input::Operand(Class::F64), Input::Number(n, Class::F64)];
    b.map(
        &Program {
            inputs: &inputs,
            steps: &steps,
            results: &[2],
        },
        &[x.op()],
        &[out.op()],
    )
    .unwrap();
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
    let x: Vec<Complex64> = re
        .iter()
        .zip(&im)
        .map(|(a, b)| Complex64::new(3.0 * *a as f64, 3.0 * *b as f64))
        .collect();
    let bytes: Vec<u8> = x
        .iter()
        .flat_map(|z| [z.re.to_le_bytes(), z.im.to_le_bytes()].concat())
        .collect();
    let t = Tensor::bytes(b, DType::C128, &[200], &bytes);
    let steps: Vec<Step> = functions
        .iter()
        .map(|(f, _)| apply(*f, Class::C64, [0; 4]))
        .collect();
    let results: Vec<u16> = (1..=functions.len() as u16).collect();
    let outs: Vec<Tensor> = functions
        .iter()
        .map(|_| Tensor::empty(b, DType::C128, &[200]))
        .collect();
    let program = Program {
        inputs: &identity(Class::C64),
        steps: &steps,
        results: &results,
    };
    b.map(
        &program,
        &[t.op()],
        &outs.iter().map(|o| o.op()).collect::<Vec<_>>(),
    )
    .unwrap();
    for ((f, host), out) in functions.iter().zip(&outs) {
        let raw = out.raw(b);
        for (i, z) in x.iter().enumerate() {
            let part =
                |k: usize| f64::from_le_bytes(raw[16 * i + 8 * k..][..8].try_into().unwrap());
            let (got, want) = (Complex64::new(part(0), part(1)), host(*z));
            assert!(
                (got - want).norm() <= 1e-12 * (1.0 + want.norm()),
                "{f:?}({z}) = {got}, not {want}"
            );
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
                Tensor::f32(b, &[n as i64, outer as i64], &y).view(
                    &[outer as i64, n as i64],
                    &[1, outer as i64],
                    0,
                )
            } else {
                Tensor::f32(b, &[outer as i64, n as i64], &x)
            };
            let square = [apply(ScalarFn::Mul, Class::F32, [0, 0, 0, 0])];
            let program = Program {
                inputs: &[F],
                steps: &square,
                results: &[1],
            };
            let out = Tensor::empty(b, DType::F32, &[outer as i64, 1]);
            b.reduce(Reduction::Sum, &program, &[t.op()], 2, &[out.op()])
                .unwrap();
            let want: Vec<f64> = (0..outer)
                .map(|i| x[i * n..][..n].iter().map(|v| (*v as f64).powi(2)).sum())
                .collect();
            close(&out.to_f32(b), &want, 1e-5);
            if n == 0 {
                continue;
            }
            let plain = Program {
                inputs: &[F],
                steps: &[],
                results: &[0],
            };
            let mean = Tensor::empty(b, DType::F32, &[outer as i64, 1]);
            b.reduce(
                Reduction::VarMean { correction: 1.0 },
                &plain,
                &[t.op()],
                2,
                &[out.op(), mean.op()],
            )
            .unwrap();
            let means: Vec<f64> = (0..outer)
                .map(|i| x[i * n..][..n].iter().map(|v| *v as f64).sum::<f64>() / n as f64)
                .collect();
            let variances: Vec<f64> = (0..outer)
                .map(|i| {
                    x[i * n..][..n]
                        .iter()
                        .map(|v| (*v as f64 - means[i]).powi(2))
                        .sum::<f64>()
                        / (n - 1) as f64
                })
                .collect();
            close(&out.to_f32(b), &variances, 1e-5);
            close(&mean.to_f32(b), &means, 1e-5);
            let index = Tensor::empty(b, DType::I64, &[outer as i64, 1]);
            b.reduce(
                Reduction::MaxIndex,
                &plain,
                &[t.op()],
                2,
                &[out.op(), index.op()],
            )
            .unwrap();
            for (i, (v, k)) in out.to_f32(b).iter().zip(index.to_i64(b)).enumerate() {
                let row = &x[i * n..][..n];
                let best = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                assert_eq!(
                    (*v, k as usize),
                    (best, row.iter().position(|v| *v == best).unwrap())
                );
            }
        }
    }
    // NaN wins, the first of equals stays.
    let t = Tensor::f32(b, &[6], &[1.0, 3.0, f32::NAN, 3.0, f32::NAN, 9.0]);
    let index = Tensor::empty(b, DType::I64, &[1]);
    b.reduce(
        Reduction::ArgMax,
        &Program {
            inputs: &[F],
            steps: &[],
            results: &[0],
        },
        &[t.op()],
        1,
        &[index.op()],
    )
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
    b.scan(Scan::Max, &t.op(), 1, &[out.op(), index.op()])
        .unwrap();
    let (got, at) = (out.to_f32(b), index.to_i64(b));
    for i in 0..rows * n {
        let row = &x[i / n * n..=i];
        assert_eq!(
            got[i],
            row.iter().copied().fold(f32::NEG_INFINITY, f32::max)
        );
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
    let index = |wrap| {
        [Index {
            values: wide.op(),
            size: 5,
            stride: 4,
            dim: 0,
            wrap,
        }]
    };
    let source = t.view(&[3, 4], &[0, 1], 0);
    let out = Tensor::empty(b, DType::F32, &[3, 4]);
    b.index_read(&source.op(), &index(true), &out.op()).unwrap();
    assert_eq!(
        out.to_f32(b),
        [16., 17., 18., 19., 0., 1., 2., 3., 16., 17., 18., 19.]
    );
    let error = b
        .index_read(&source.op(), &index(false), &out.op())
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Index);
    assert!(
        error.message().contains("-5") && error.message().contains("size 5"),
        "{error}"
    );

    let add = Tensor::f32(
        b,
        &[3, 4],
        &(0..12).map(|i| 100.0 * i as f32).collect::<Vec<_>>(),
    );
    b.index_write(&source.op(), &index(true), &add.op(), Write::Add)
        .unwrap();
    let got = t.to_f32(b);
    assert_eq!(got[16..], [816., 1017., 1218., 1419.]);
    assert_eq!(got[..5], [400., 501., 602., 703., 4.]);
    // Of several replacements the last stays.
    b.index_write(&source.op(), &index(true), &add.op(), Write::Set)
        .unwrap();
    let got = t.to_f32(b);
    assert_eq!(got[16..], [800., 900., 1000., 1100.]);
    assert_eq!(got[..5], [400., 500., 600., 700., 4.]);
}

#[test]
fn choosing_by_mask() {
    let Some(b) = device() else { return };
    let n = 1500usize;
    let x: Vec<f32> = values(n, 6)
        .iter()
        .map(|v| if *v > 0.2 { *v } else { 0.0 })
        .collect();
    let t = Tensor::f32(b, &[30, 50], &x);
    let chosen: Vec<usize> = (0..n).filter(|i| x[*i] != 0.0).collect();
    assert_eq!(b.count_nonzero(&t.op()).unwrap(), chosen.len() as i64);
    let out = Tensor::empty(b, DType::I64, &[chosen.len() as i64, 2]);
    b.nonzero(&t.op(), &out.op()).unwrap();
    assert_eq!(
        out.to_i64(b),
        chosen
            .iter()
            .flat_map(|i| [(i / 50) as i64, (i % 50) as i64])
            .collect::<Vec<_>>()
    );
    let mask: Vec<u8> = x.iter().map(|v| (*v != 0.0) as u8).collect();
    let mask = Tensor::bytes(b, DType::Bool, &[30, 50], &mask);
    let picked = Tensor::empty(b, DType::F32, &[chosen.len() as i64]);
    b.masked_select(&t.op(), &mask.op(), &picked.op()).unwrap();
    assert_eq!(
        picked.to_f32(b),
        chosen.iter().map(|i| x[*i]).collect::<Vec<_>>()
    );
}

#[test]
fn sorting_is_stable_and_puts_nan_last() {
    let Some(b) = device() else { return };
    let (rows, n) = (3usize, 301usize);
    // Few distinct values, so that stability shows.
    let mut x: Vec<f32> = values(rows * n, 25)
        .iter()
        .map(|v| (v * 20.0).round())
        .collect();
    x[17] = f32::NAN;
    let t = Tensor::f32(b, &[rows as i64, n as i64], &x);
    let (v, i) = (
        Tensor::empty(b, DType::F32, &[rows as i64, n as i64]),
        Tensor::empty(b, DType::I64, &[rows as i64, n as i64]),
    );
    let (top, at) = (
        Tensor::empty(b, DType::F32, &[rows as i64, 5]),
        Tensor::empty(b, DType::I64, &[rows as i64, 5]),
    );
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
            order.sort_by(|a, b| {
                if descending {
                    key(*b).total_cmp(&key(*a))
                } else {
                    key(*a).total_cmp(&key(*b))
                }
            });
            // -0 and 0 are equal: compared as numbers, by position among equals.
            for (k, o) in order.iter().enumerate() {
                let (g, w) = (got[r * n + k], row[*o]);
                assert!(g == w || (g.is_nan() && w.is_nan()), "{r} {k}: {g} {w}");
                assert!(
                    k == 0 || got[r * n + k - 1] != g || places[r * n + k - 1] < places[r * n + k]
                );
                assert!(k >= 5 || at.to_i64(b)[r * 5 + k] == places[r * n + k]);
            }
        }
    }
}

#[test]
fn products_over_any_strides() {
    let Some(b) = device() else { return };
    let (batch, m, n, k) = (2usize, 37usize, 41usize, 50usize);
    let (x, y, z) = (values(batch * m * k, 7), values(k * n, 8), values(n, 9));
    let a = Tensor::f32(b, &[batch as i64, m as i64, k as i64], &x);
    // The second factor is transposed and the same for each of the batch.
    let c = Tensor::f32(b, &[n as i64, k as i64], &y).view(
        &[batch as i64, k as i64, n as i64],
        &[0, 1, k as i64],
        0,
    );
    let bias = Tensor::f32(b, &[n as i64], &z);
    let out = Tensor::empty(b, DType::F32, &[batch as i64, m as i64, n as i64]);
    let mut want = vec![0f64; batch * m * n];
    for (i, w) in want.iter_mut().enumerate() {
        let (p, q, r) = (i / (m * n), i / n % m, i % n);
        *w = z[r] as f64
            + (0..k)
                .map(|d| x[(p * m + q) * k + d] as f64 * y[r * k + d] as f64)
                .sum::<f64>();
    }
    b.matmul(
        &a.op(),
        &c.op(),
        &out.op(),
        Epilogue {
            bias: Some(bias.op()),
            accumulate: false,
        },
    )
    .unwrap();
    close(&out.to_f32(b), &want, 1e-5);
    b.matmul(
        &a.op(),
        &c.op(),
        &out.op(),
        Epilogue {
            bias: None,
            accumulate: true,
        },
    )
    .unwrap();
    let twice: Vec<f64> = want
        .iter()
        .enumerate()
        .map(|(i, w)| 2.0 * w - z[i % n] as f64)
        .collect();
    close(&out.to_f32(b), &twice, 1e-5);
    let (p, q) = (
        Tensor::i64(b, &[2, 2], &[1, 2, 3, i64::MAX]),
        Tensor::i64(b, &[2, 2], &[5, 6, 7, 2]),
    );
    let out = Tensor::empty(b, DType::I64, &[2, 2]);
    b.matmul(&p.op(), &q.op(), &out.op(), Epilogue::default())
        .unwrap();
    assert_eq!(
        out.to_i64(b),
        [
            19,
            10,
            15i64.wrapping_add(i64::MAX.wrapping_mul(7)),
            18i64.wrapping_add(i64::MAX.wrapping_mul(2))
        ]
    );
}

/// Offset of (n, c, h, w) in a contiguous tensor.
fn at4(s: [usize; 4], i: [usize; 4]) -> usize {
    ((i[0] * s[1] + i[1]) * s[2] + i[2]) * s[3] + i[3]
}

#[test]
// Loops over indices are the definition.
#[allow(clippy::needless_range_loop)]
fn convolution_and_its_gradients() {
    let Some(b) = device() else { return };
    for (groups, stride, padding, dilation, kernel) in [
        (1usize, 1usize, 0usize, 1usize, 1usize),
        (2, 2, 1, 1, 3),
        (1, 1, 2, 2, 3),
    ] {
        let (images, channels, outputs, h, w) = (3usize, 4usize, 6usize, 9usize, 8usize);
        let (oh, ow) = (
            (h + 2 * padding - dilation * (kernel - 1) - 1) / stride + 1,
            (w + 2 * padding - dilation * (kernel - 1) - 1) / stride + 1,
        );
        let xs = [images, channels, h, w];
        let ws = [outputs, channels / groups, kernel, kernel];
        let os = [images, outputs, oh, ow];
        let (x, wt, g) = (
            values(xs.iter().product(), 10),
            values(ws.iter().product(), 11),
            values(os.iter().product(), 12),
        );
        let bias = values(outputs, 13);
        let mut out = vec![0f64; g.len()];
        let (mut gx, mut gw) = (vec![0f64; x.len()], vec![0f64; wt.len()]);
        for p in 0..images {
            for o in 0..outputs {
                for i in 0..oh {
                    for j in 0..ow {
                        let io = at4(os, [p, o, i, j]);
                        out[io] = bias[o] as f64;
                        for c in 0..channels / groups {
                            for u in 0..kernel {
                                for v in 0..kernel {
                                    let (y, z) =
                                        (i * stride + u * dilation, j * stride + v * dilation);
                                    if y < padding
                                        || z < padding
                                        || y - padding >= h
                                        || z - padding >= w
                                    {
                                        continue;
                                    }
                                    let ic = o / (outputs / groups) * (channels / groups) + c;
                                    let (ix, iw) = (
                                        at4(xs, [p, ic, y - padding, z - padding]),
                                        at4(ws, [o, c, u, v]),
                                    );
                                    out[io] += x[ix] as f64 * wt[iw] as f64;
                                    gx[ix] += g[io] as f64 * wt[iw] as f64;
                                    gw[iw] += g[io] as f64 * x[ix] as f64;
                                }
                            }
                        }
                    }
                }
            }
        }
        let size = |s: [usize; 4]| s.map(|v| v as i64);
        let geometry = Conv {
            stride: vec![stride as i64; 2],
            padding: vec![padding as i64; 2],
            dilation: vec![dilation as i64; 2],
            groups: groups as i64,
        };
        let (tx, tw, tg) = (
            Tensor::f32(b, &size(xs), &x),
            Tensor::f32(b, &size(ws), &wt),
            Tensor::f32(b, &size(os), &g),
        );
        let tb = Tensor::f32(b, &[outputs as i64], &bias);
        let to = Tensor::empty(b, DType::F32, &size(os));
        b.conv(&tx.op(), &tw.op(), Some(&tb.op()), &geometry, &to.op())
            .unwrap();
        close(&to.to_f32(b), &out, 1e-5);
        let (tgx, tgw) = (
            Tensor::empty(b, DType::F32, &size(xs)),
            Tensor::empty(b, DType::F32, &size(ws)),
        );
        b.conv_input_grad(&tg.op(), &tw.op(), &geometry, &tgx.op())
            .unwrap();
        close(&tgx.to_f32(b), &gx, 1e-5);
        b.conv_weight_grad(&tg.op(), &tx.op(), &geometry, &tgw.op())
            .unwrap();
        close(&tgw.to_f32(b), &gw, 2e-5);
    }
}

#[test]
fn pooling() {
    let Some(b) = device() else { return };
    let (h, w) = (7usize, 6usize);
    let x = values(2 * h * w, 14);
    let t = Tensor::f32(b, &[1, 2, h as i64, w as i64], &x);
    let pool = Pool {
        kernel: vec![3, 2],
        stride: vec![2, 2],
        padding: vec![1, 1],
        dilation: vec![1, 1],
        count_include_pad: false,
        divisor: None,
    };
    let (oh, ow) = (4usize, 4usize);
    let (best, index) = (
        Tensor::empty(b, DType::F32, &[1, 2, 4, 4]),
        Tensor::empty(b, DType::I64, &[1, 2, 4, 4]),
    );
    let average = Tensor::empty(b, DType::F32, &[1, 2, 4, 4]);
    b.max_pool(&t.op(), &pool, &best.op(), &index.op()).unwrap();
    b.avg_pool(&t.op(), &pool, &average.op()).unwrap();
    let g = values(2 * oh * ow, 15);
    let (tg, gx) = (
        Tensor::f32(b, &[1, 2, 4, 4], &g),
        Tensor::empty(b, DType::F32, &[1, 2, h as i64, w as i64]),
    );
    b.avg_pool_grad(&tg.op(), &pool, &gx.op()).unwrap();
    let (mut want_best, mut want_index, mut want_mean, mut want_gx) =
        (vec![], vec![], vec![], vec![0f64; x.len()]);
    for c in 0..2 {
        for i in 0..oh {
            for j in 0..ow {
                let places: Vec<usize> = (0..3)
                    .flat_map(|u| (0..2).map(move |v| (2 * i + u, 2 * j + v)))
                    .filter(|(y, z)| *y >= 1 && *z >= 1 && y - 1 < h && z - 1 < w)
                    .map(|(y, z)| (y - 1) * w + z - 1)
                    .collect();
                let top = places
                    .iter()
                    .copied()
                    .reduce(|a, p| {
                        if x[c * h * w + p] > x[c * h * w + a] {
                            p
                        } else {
                            a
                        }
                    })
                    .unwrap();
                want_best.push(x[c * h * w + top] as f64);
                want_index.push(top as i64);
                want_mean.push(
                    places.iter().map(|p| x[c * h * w + p] as f64).sum::<f64>()
                        / places.len() as f64,
                );
                for p in &places {
                    want_gx[c * h * w + p] += g[(c * oh + i) * ow + j] as f64 / places.len() as f64;
                }
            }
        }
    }
    close(&best.to_f32(b), &want_best, 0.0);
    assert_eq!(index.to_i64(b), want_index);
    close(&average.to_f32(b), &want_mean, 1e-6);
    close(&gx.to_f32(b), &want_gx, 1e-6);
}

#[test]
fn softmax_and_its_gradient_by_thread_and_by_block() {
    let Some(b) = device() else { return };
    for (rows, n) in [(5usize, 7usize), (3, 300)] {
        let (x, g) = (values(rows * n, 16), values(rows * n, 17));
        let size = [rows as i64, n as i64];
        let (tx, tg) = (Tensor::f32(b, &size, &x), Tensor::f32(b, &size, &g));
        let (y, gx) = (
            Tensor::empty(b, DType::F32, &size),
            Tensor::empty(b, DType::F32, &size),
        );
        for log in [false, true] {
            b.softmax(&tx.op(), 1, log, &y.op()).unwrap();
            b.softmax_grad(&tg.op(), &y.op(), 1, log, &gx.op()).unwrap();
            let (mut want, mut want_gx) = (vec![], vec![]);
            for r in 0..rows {
                let sum: f64 = x[r * n..][..n].iter().map(|v| (*v as f64).exp()).sum();
                let p: Vec<f64> = x[r * n..][..n]
                    .iter()
                    .map(|v| (*v as f64).exp() / sum)
                    .collect();
                let weight = |i: usize| if log { 1.0 } else { p[i] };
                let dot: f64 = (0..n).map(|i| g[r * n + i] as f64 * weight(i)).sum();
                want.extend(p.iter().map(|p| if log { p.ln() } else { *p }));
                want_gx.extend((0..n).map(|i| {
                    if log {
                        g[r * n + i] as f64 - p[i] * dot
                    } else {
                        p[i] * (g[r * n + i] as f64 - dot)
                    }
                }));
            }
            close(&y.to_f32(b), &want, 1e-5);
            close(&gx.to_f32(b), &want_gx, 1e-5);
        }
    }
}

#[test]
fn layer_norm_and_its_gradients() {
    let Some(b) = device() else { return };
    let (rows, n) = (4usize, 100usize);
    let (x, g, w, c) = (
        values(rows * n, 18),
        values(rows * n, 19),
        values(n, 20),
        values(n, 21),
    );
    let size = [rows as i64, n as i64];
    let (tx, tg) = (Tensor::f32(b, &size, &x), Tensor::f32(b, &size, &g));
    let (tw, tc) = (
        Tensor::f32(b, &[n as i64], &w),
        Tensor::f32(b, &[n as i64], &c),
    );
    let (out, gx) = (
        Tensor::empty(b, DType::F32, &size),
        Tensor::empty(b, DType::F32, &size),
    );
    let (mean, rstd) = (
        Tensor::empty(b, DType::F32, &[rows as i64]),
        Tensor::empty(b, DType::F32, &[rows as i64]),
    );
    let (gw, gb) = (
        Tensor::empty(b, DType::F32, &[n as i64]),
        Tensor::empty(b, DType::F32, &[n as i64]),
    );
    b.layer_norm(
        &tx.op(),
        Some(&tw.op()),
        Some(&tc.op()),
        1e-5,
        &out.op(),
        &mean.op(),
        &rstd.op(),
    )
    .unwrap();
    b.layer_norm_grad(
        &tg.op(),
        &tx.op(),
        &mean.op(),
        &rstd.op(),
        Some(&tw.op()),
        Some(&gx.op()),
        Some(&gw.op()),
        Some(&gb.op()),
    )
    .unwrap();
    let (mut want, mut want_gx, mut want_gw, mut want_gb) =
        (vec![], vec![], vec![0f64; n], vec![0f64; n]);
    for r in 0..rows {
        let row: Vec<f64> = x[r * n..][..n].iter().map(|v| *v as f64).collect();
        let m = row.iter().sum::<f64>() / n as f64;
        let s = 1.0 / (row.iter().map(|v| (v - m).powi(2)).sum::<f64>() / n as f64 + 1e-5).sqrt();
        let z: Vec<f64> = row.iter().map(|v| (v - m) * s).collect();
        let h: Vec<f64> = (0..n).map(|i| g[r * n + i] as f64 * w[i] as f64).collect();
        let (a, d) = (
            h.iter().sum::<f64>() / n as f64,
            h.iter().zip(&z).map(|(h, z)| h * z).sum::<f64>() / n as f64,
        );
        for i in 0..n {
            want.push(z[i] * w[i] as f64 + c[i] as f64);
            want_gx.push(s * (h[i] - a - z[i] * d));
            want_gw[i] += g[r * n + i] as f64 * z[i];
            want_gb[i] += g[r * n + i] as f64;
        }
    }
    close(&out.to_f32(b), &want, 1e-5);
    close(&gx.to_f32(b), &want_gx, 1e-5);
    close(&gw.to_f32(b), &want_gw, 1e-5);
    close(&gb.to_f32(b), &want_gb, 1e-5);
}

#[test]
fn cross_entropy_and_its_gradient() {
    let Some(b) = device() else { return };
    let (rows, n) = (3usize, 50usize);
    let x = values(rows * n, 22);
    let tx = Tensor::f32(b, &[rows as i64, n as i64], &x);
    let target = Tensor::i64(b, &[rows as i64], &[7, -100, 49]);
    let (loss, lse) = (
        Tensor::empty(b, DType::F32, &[rows as i64]),
        Tensor::empty(b, DType::F32, &[rows as i64]),
    );
    b.cross_entropy(&tx.op(), &target.op(), -100, &loss.op(), &lse.op())
        .unwrap();
    let (g, gx) = (
        Tensor::f32(b, &[1], &[0.5]).view(&[rows as i64], &[0], 0),
        Tensor::empty(b, DType::F32, &[rows as i64, n as i64]),
    );
    b.cross_entropy_grad(&g.op(), &tx.op(), &target.op(), &lse.op(), -100, &gx.op())
        .unwrap();
    let (mut want, mut want_gx) = (vec![], vec![]);
    for (r, t) in [7i64, -100, 49].into_iter().enumerate() {
        let sum: f64 = x[r * n..][..n].iter().map(|v| (*v as f64).exp()).sum();
        want.push(if t < 0 {
            0.0
        } else {
            sum.ln() - x[r * n + t as usize] as f64
        });
        for i in 0..n {
            let p = (x[r * n + i] as f64).exp() / sum;
            want_gx.push(if t < 0 {
                0.0
            } else {
                0.5 * (p - (i as i64 == t) as u8 as f64)
            });
        }
    }
    close(&loss.to_f32(b), &want, 1e-5);
    close(&gx.to_f32(b), &want_gx, 1e-6);
    let bad = Tensor::i64(b, &[rows as i64], &[0, 50, 1]);
    let error = b
        .cross_entropy(&tx.op(), &bad.op(), -100, &loss.op(), &lse.op())
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.message()),
        (ErrorKind::Index, "Target 50 is out of bounds.")
    );
}

#[test]
fn an_adam_step() {
    let Some(b) = device() else { return };
    let n = 300usize;
    let (p, g) = (values(n, 23), values(n, 24));
    let zeros = vec![0f32; n];
    let make = |v: &[f32]| Tensor::f32(b, &[n as i64], v);
    let (tp, tg, tm, tv) = (make(&p), make(&g), make(&zeros), make(&zeros));
    let step = OptimizerStep::Adam {
        lr: 0.1,
        beta1: 0.9,
        beta2: 0.999,
        eps: 1e-8,
        weight_decay: 0.01,
        decoupled: true,
        amsgrad: false,
        maximize: false,
        step: 1.0,
    };
    b.optimizer(&step, &[&[tp.op()], &[tg.op()], &[tm.op()], &[tv.op()]])
        .unwrap();
    let want: Vec<f64> = (0..n)
        .map(|i| {
            let (p, g) = (p[i] as f64, g[i] as f64);
            let (m, v) = (0.1 * g / (1.0 - 0.9), 0.001 * g * g / (1.0 - 0.999));
            p * (1.0 - 0.1 * 0.01) - 0.1 * m / (v.sqrt() + 1e-8)
        })
        .collect();
    close(&tp.to_f32(b), &want, 1e-5);
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
    let functions = driver
        .load(text, &["divergent".to_owned(), "unordered".to_owned()])
        .unwrap();
    let mut values = [0i32; 64];
    let mut argument = values.as_mut_ptr() as u64;
    let extent = |threads: u32| Extent {
        grid: [1, 1, 1],
        block: [threads, 1, 1],
        shared: 0,
    };
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
    let error = b
        .alloc(1 << 45)
        .err()
        .expect("no device has so much memory");
    assert_eq!(error.kind(), ErrorKind::OutOfMemory);
    assert!(error.message().contains("32768.00 GiB"), "{error}");
    let before = b.memory_stats().0;
    let memory = b.alloc(10_000).unwrap();
    assert!(b.memory_stats().0 >= before + 10_000 || before > 0);
    drop(memory);
    b.trim();
}
