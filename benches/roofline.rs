//! How near kernels come to what the machine can do: multiply-adds a second and memory bandwidth are measured first, then
//! each kernel is given as a fraction of the bound that its shape meets.
//!
//!     cargo run --release -p flambeau-benches --example roofline [threads]

use flambeau_benches::{apply, Matrix};
use flambeau_core::*;
use flambeau_cpu::isa::{dispatch, Isa, Kernel};
use flambeau_cpu::vector::Vector;
use flambeau_cpu::{cpu, pool};
use std::time::Instant;

/// The least time of a call, among those of a third of a second.
fn least(mut f: impl FnMut()) -> f64 {
    f();
    let (begin, mut best) = (Instant::now(), f64::INFINITY);
    while begin.elapsed().as_secs_f64() < 0.3 {
        let t = Instant::now();
        f();
        best = best.min(t.elapsed().as_secs_f64());
    }
    best
}

/// Multiply-adds in registers: as many chains of the widest vectors as hide the latency of one.
struct Peak(usize);
impl Kernel for Peak {
    type Out = f32;
    // Iterators of vectors are not inlined into code of a level.
    #[allow(clippy::needless_range_loop)]
    #[inline(always)]
    fn run<I: Isa>(self) -> f32 {
        const CHAINS: usize = 12;
        let (a, b) = (I::F32::splat(std::hint::black_box(0.999)), I::F32::splat(std::hint::black_box(0.001)));
        let mut chains = [I::F32::splat(1.0); CHAINS];
        for _ in 0..self.0 {
            for chain in 0..CHAINS {
                chains[chain] = chains[chain].mul_add(a, b);
            }
        }
        let mut total = chains[0];
        for chain in 1..CHAINS {
            total = total.add(chains[chain]);
        }
        let mut lanes = [0f32; 16];
        // SAFETY: no level's vector has more lanes.
        unsafe { total.store(lanes.as_mut_ptr()) };
        lanes[0]
    }
}
/// Two floating-point operations for each lane of each chain and turn.
const PEAK_OPERATIONS: usize = 2 * 12;

fn main() {
    if let Some(n) = std::env::args().nth(1).and_then(|n| n.parse().ok()) {
        flambeau_cpu::set_num_threads(n);
    }
    let threads = flambeau_cpu::num_threads();
    let lanes = match flambeau_cpu::level() {
        "avx512" => 16,
        "avx2" => 8,
        _ => 4,
    };
    const TURNS: usize = 1 << 20;
    let t = least(|| {
        pool::parallel(threads, |_| {
            std::hint::black_box(dispatch(Peak(TURNS)));
        })
    });
    let flops = (threads * TURNS * PEAK_OPERATIONS * lanes) as f64 / t;

    let (big, out) = (Matrix::new(&[4096, 8192]), Matrix::new(&[4096, 8192]));
    let program = Program { inputs: &[Input::Operand(Class::F32)], steps: &[], results: &[0] };
    let one = Matrix::new(&[1, 1]);
    let column = Matrix::new(&[4096, 1]);
    let row = Matrix::new(&[1, 8192]);
    let sum = |dims: u64, to: &Matrix| {
        cpu().reduce(Reduction::Sum, &program, &[big.operand()], dims, &[to.operand()]).expect("the kernel runs")
    };
    let copy = least(|| cpu().map(&program, &[big.operand()], &[out.operand()]).expect("the kernel runs"));
    let read = least(|| sum(3, &one));
    let bandwidth = (big.bytes() / read).max(2.0 * big.bytes() / copy);
    println!("{} on {threads} threads: {:.0} GFLOP/s, {:.1} GB/s", flambeau_cpu::level(), flops / 1e9, bandwidth / 1e9);

    let report = |name: &str, bytes: f64, operations: f64, t: f64| {
        let bound = (bytes / bandwidth).max(operations / flops);
        let which = if bytes / bandwidth > operations / flops { "memory" } else { "arithmetic" };
        println!("{name:28} {:9.1} us   {:5.1} % of {which}", t * 1e6, 100.0 * bound / t);
    };
    let b = big.bytes();
    report("copy", 2.0 * b, 0.0, copy);
    report("sum", b, 0.0, read);
    report("sum over rows", b, 0.0, least(|| sum(1, &row)));
    report("sum over columns", b, 0.0, least(|| sum(2, &column)));
    report("add", 3.0 * b, 0.0, least(|| apply(ScalarFn::Add, &[big.operand(), big.operand()], &out.operand())));
    report("exp", 2.0 * b, 0.0, least(|| apply(ScalarFn::Exp, &[big.operand()], &out.operand())));
    report(
        "softmax",
        2.0 * b,
        0.0,
        least(|| cpu().softmax(&big.operand(), 1, false, &out.operand()).expect("the kernel runs")),
    );
    let (mean, rstd) = (Matrix::new(&[4096]), Matrix::new(&[4096]));
    report(
        "layer_norm",
        2.0 * b,
        0.0,
        least(|| {
            let (m, r) = (mean.operand(), rstd.operand());
            cpu().layer_norm(&big.operand(), None, None, 1e-5, &out.operand(), &m, &r).expect("the kernel runs")
        }),
    );
    for n in [128i64, 512, 1024, 2048] {
        let (x, y, z) = (Matrix::new(&[n, n]), Matrix::new(&[n, n]), Matrix::new(&[n, n]));
        let t = least(|| {
            cpu().matmul(&x.operand(), &y.operand(), &z.operand(), Epilogue::default()).expect("the kernel runs")
        });
        let operations = 2.0 * (n * n * n) as f64;
        report(&format!("matmul {n}"), 3.0 * x.bytes(), operations, t);
        let (x, y, z) = (x.operand_of(DType::I8), y.operand_of(DType::I8), z.operand_of(DType::I32));
        let t = least(|| cpu().matmul(&x, &y, &z, Epilogue::default()).expect("the kernel runs"));
        // Against multiply-adds of float32: four times as many are the bound where there is VNNI.
        report(&format!("matmul {n} of int8"), 0.0, operations, t);
    }
}
