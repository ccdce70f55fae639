//! Times of the CPU's kernels, through criterion: each run is compared with the one before.
//!
//!     cargo bench -p flambeau-benches [-- FILTER]

use criterion::{criterion_group, criterion_main, BenchmarkId, Criterion, Throughput};
use flambeau_benches::{apply, Matrix};
use flambeau_core::*;
use flambeau_cpu::cpu;

/// Element-wise functions over 1 MB, which the cache holds, and 64 MB, which it does not; bytes read and written.
fn elementwise(c: &mut Criterion) {
    let mut group = c.benchmark_group("elementwise");
    for rows in [256i64, 16384] {
        let (x, out) = (Matrix::new(&[rows, 1024]), Matrix::new(&[rows, 1024]));
        for (f, operands) in [(ScalarFn::Add, 2), (ScalarFn::Exp, 1), (ScalarFn::Tanh, 1)] {
            group.throughput(Throughput::Bytes((x.bytes() as u64) * (operands + 1)));
            let inputs: Vec<Operand> = (0..operands).map(|_| x.operand()).collect();
            group.bench_function(BenchmarkId::new(format!("{f:?}"), rows * 1024), |b| {
                b.iter(|| apply(f, &inputs, &out.operand()))
            });
        }
    }
    group.finish();
}

/// Sums over all, over rows and over columns; bytes read.
fn reductions(c: &mut Criterion) {
    let mut group = c.benchmark_group("sum");
    let x = Matrix::new(&[4096, 1024]);
    let program = Program { inputs: &[Input::Operand(Class::F32)], steps: &[], results: &[0] };
    group.throughput(Throughput::Bytes(x.bytes() as u64));
    for (name, dims, sizes) in [("all", 3, [1, 1]), ("rows", 1, [1, 1024]), ("columns", 2, [4096, 1])] {
        let to = Matrix::new(&sizes);
        group.bench_function(name, |b| {
            b.iter(|| cpu().reduce(Reduction::Sum, &program, &[x.operand()], dims, &[to.operand()]))
        });
    }
    group.finish();
}

/// Row kernels; bytes read and written.
fn rows(c: &mut Criterion) {
    let mut group = c.benchmark_group("rows");
    let (x, out) = (Matrix::new(&[4096, 1024]), Matrix::new(&[4096, 1024]));
    let (mean, rstd) = (Matrix::new(&[4096]), Matrix::new(&[4096]));
    group.throughput(Throughput::Bytes(2 * x.bytes() as u64));
    group.bench_function("softmax", |b| b.iter(|| cpu().softmax(&x.operand(), 1, false, &out.operand())));
    group.bench_function("layer_norm", |b| {
        let (m, r) = (mean.operand(), rstd.operand());
        b.iter(|| cpu().layer_norm(&x.operand(), None, None, 1e-5, &out.operand(), &m, &r))
    });
    group.finish();
}

/// Products of square matrices; multiply-adds.
fn matmul(c: &mut Criterion) {
    let mut group = c.benchmark_group("matmul");
    for n in [32i64, 128, 512, 1024] {
        let (x, y, z) = (Matrix::new(&[n, n]), Matrix::new(&[n, n]), Matrix::new(&[n, n]));
        group.throughput(Throughput::Elements((n * n * n) as u64));
        group.bench_function(BenchmarkId::from_parameter(n), |b| {
            b.iter(|| cpu().matmul(&x.operand(), &y.operand(), &z.operand(), Epilogue::default()))
        });
        group.bench_function(BenchmarkId::new("int8", n), |b| {
            let (x, y, z) = (x.operand_of(DType::I8), y.operand_of(DType::I8), z.operand_of(DType::I32));
            b.iter(|| cpu().matmul(&x, &y, &z, Epilogue::default()))
        });
        // An activation in the epilogue, and after the product.
        let (input, gelu) = (Input::Operand(Class::F32), StepOp::Apply(ScalarFn::Gelu));
        let steps = [Step { op: gelu, class: Class::F32, args: [0; 4] }];
        let program = Program { inputs: &[input], steps: &steps, results: &[1] };
        let out = [z.operand()];
        let then = Then { program: &program, x: &out, out: &out };
        group.bench_function(BenchmarkId::new("gelu within", n), |b| {
            let epilogue = Epilogue { then: Some(then), ..Default::default() };
            b.iter(|| cpu().matmul(&x.operand(), &y.operand(), &z.operand(), epilogue))
        });
        group.bench_function(BenchmarkId::new("gelu afterwards", n), |b| {
            b.iter(|| {
                cpu().matmul(&x.operand(), &y.operand(), &z.operand(), Epilogue::default())?;
                cpu().map(&program, &out, &out)
            })
        });
    }
    group.finish();
}

/// Convolutions of a residual network, forward; multiply-adds of the direct sum.
fn convolution(c: &mut Criterion) {
    let mut group = c.benchmark_group("conv2d");
    for (channels, outputs, size, kernel, stride) in [
        (3i64, 64i64, 64i64, 7i64, 2i64),
        (64, 64, 56, 3, 1),
        (128, 128, 28, 3, 1),
        (128, 256, 28, 3, 2),
        (256, 256, 14, 1, 1),
        (512, 512, 2, 3, 1),
    ] {
        let padding = kernel / 2;
        let to = (size + 2 * padding - kernel) / stride + 1;
        let x = Matrix::new(&[8, channels, size, size]);
        let w = Matrix::new(&[outputs, channels, kernel, kernel]);
        let out = Matrix::new(&[8, outputs, to, to]);
        let geometry = Conv { stride: vec![stride; 2], padding: vec![padding; 2], dilation: vec![1; 2], groups: 1 };
        group.throughput(Throughput::Elements((8 * outputs * to * to * channels * kernel * kernel) as u64));
        group.bench_function(format!("{channels} to {outputs}, {kernel} x {kernel} / {stride}, {size}"), |b| {
            b.iter(|| cpu().conv(&x.operand(), &w.operand(), None, &geometry, &out.operand()))
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).measurement_time(std::time::Duration::from_secs(1));
    targets = elementwise, reductions, rows, matmul, convolution
}
criterion_main!(benches);
