//! Reductions, scans and optimizer steps against sums in double precision, and their determinism.

mod common;
use common::{noise, Array};
use flambeau_core::*;

const LOAD: Program = Program { inputs: &[Input::Operand(Class::F32)], steps: &[], results: &[0] };

fn reduce(how: Reduction, x: &Array, dims: &[usize], out: &[&Array]) {
    let mask = dims.iter().fold(0u64, |m, d| m | 1 << d);
    let outs: Vec<Operand> = out.iter().map(|o| o.operand()).collect();
    flambeau_cpu::cpu().reduce(how, &LOAD, &[x.operand()], mask, &outs).unwrap();
}
fn kept(sizes: &[i64], dims: &[usize]) -> Vec<i64> {
    sizes.iter().enumerate().map(|(d, n)| if dims.contains(&d) { 1 } else { *n }).collect()
}
/// The elements that each output gathers, in logical order.
fn groups(x: &Array, dims: &[usize]) -> Vec<Vec<f64>> {
    let out = kept(&x.sizes, dims);
    let mut all = vec![Vec::new(); numel(&out) as usize];
    for (i, v) in x.values().into_iter().enumerate() {
        let (mut rest, mut at, mut scale) = (i as i64, 0, 1);
        for d in (0..x.sizes.len()).rev() {
            let k = rest % x.sizes[d];
            rest /= x.sizes[d];
            if !dims.contains(&d) {
                at += k * scale;
                scale *= x.sizes[d];
            }
        }
        all[at as usize].push(v);
    }
    all
}

type Layout = (Vec<i64>, Vec<i64>, Vec<usize>);
fn layouts() -> Vec<Layout> {
    vec![
        (vec![5, 1000], vec![1000, 1], vec![1]),
        (vec![1000, 40], vec![40, 1], vec![0]),
        (vec![3000, 5], vec![5, 1], vec![0]),
        (vec![40, 1000], vec![1, 40], vec![1]),
        (vec![6, 50, 70], vec![3500, 70, 1], vec![1]),
        (vec![6, 50, 70], vec![3500, 70, 1], vec![0, 2]),
        (vec![300_000], vec![1], vec![0]),
        (vec![700, 9], vec![9, 1], vec![1]),
        (vec![4, 3], vec![0, 1], vec![0, 1]),
        (vec![], vec![], vec![]),
        (vec![8, 0], vec![1, 1], vec![1]),
    ]
}

#[test]
fn sums_means_extremes_and_variances() {
    for (sizes, strides, dims) in layouts() {
        let x = Array::with(DType::F32, &sizes, &strides, noise);
        let shape = kept(&sizes, &dims);
        let all = groups(&x, &dims);
        let out = Array::zeros(DType::F32, &shape);
        let index = Array::zeros(DType::I64, &shape);
        let near = |got: Vec<f64>, want: Vec<f64>, what: &str| {
            for (g, w) in got.iter().zip(&want) {
                assert!(
                    (g - w).abs() <= 2e-6 * w.abs().max(1.0) || g.is_nan() && w.is_nan(),
                    "{what} {sizes:?} {dims:?}: {g} {w}"
                );
            }
        };
        reduce(Reduction::Sum, &x, &dims, &[&out]);
        let scale = (all[0].len() as f64).sqrt().max(1.0);
        near(
            out.values().iter().map(|v| v / scale).collect(),
            all.iter().map(|v| v.iter().sum::<f64>() / scale).collect(),
            "sum",
        );
        if all[0].is_empty() {
            continue;
        }
        let n = all[0].len() as f64;
        reduce(Reduction::ScaledSum(1.0 / n), &x, &dims, &[&out]);
        near(out.values(), all.iter().map(|v| v.iter().sum::<f64>() / n).collect(), "mean");
        reduce(Reduction::MaxIndex, &x, &dims, &[&out, &index]);
        let best = |v: &Vec<f64>| v.iter().enumerate().fold((0, v[0]), |b, (i, &x)| if x > b.1 { (i, x) } else { b });
        assert_eq!(out.values(), all.iter().map(|v| best(v).1).collect::<Vec<_>>());
        assert_eq!(index.values(), all.iter().map(|v| best(v).0 as f64).collect::<Vec<_>>());
        reduce(Reduction::Min, &x, &dims, &[&out]);
        assert_eq!(
            out.values(),
            all.iter().map(|v| v.iter().copied().fold(f64::INFINITY, f64::min)).collect::<Vec<_>>()
        );
        let mean = Array::zeros(DType::F32, &shape);
        reduce(Reduction::VarMean { correction: 1.0 }, &x, &dims, &[&out, &mean]);
        let variance = |v: &Vec<f64>| {
            let m = v.iter().sum::<f64>() / n;
            v.iter().map(|x| (x - m) * (x - m)).sum::<f64>() / (n - 1.0)
        };
        near(out.values(), all.iter().map(variance).collect(), "variance");
    }
}

#[test]
fn nan_wins_and_the_first_of_equals() {
    let x = Array::with(DType::F32, &[2, 300], &[300, 1], |i| if i == 407 { f64::NAN } else { (i % 50) as f64 });
    let (out, index) = (Array::zeros(DType::F32, &[2, 1]), Array::zeros(DType::I64, &[2, 1]));
    reduce(Reduction::MaxIndex, &x, &[1], &[&out, &index]);
    assert_eq!(index.values(), [49.0, 107.0]);
    assert!(out.values()[0] == 49.0 && out.values()[1].is_nan());
    reduce(Reduction::Max, &x, &[1], &[&out]);
    assert!(out.values()[1].is_nan());
}

#[test]
fn the_same_bits_at_any_thread_count() {
    for (sizes, strides, dims) in [
        (vec![2_000_000], vec![1], vec![0]),
        (vec![3000, 700], vec![700, 1], vec![0]),
        (vec![3000, 700], vec![700, 1], vec![1]),
        (vec![300_001, 3], vec![3, 1], vec![0]),
    ] {
        let x = Array::with(DType::F32, &sizes, &strides, noise);
        let shape = kept(&sizes, &dims);
        let mut first: Option<Vec<f64>> = None;
        for threads in [1, 2, 8] {
            flambeau_cpu::set_num_threads(threads);
            let out = Array::zeros(DType::F32, &shape);
            reduce(Reduction::Sum, &x, &dims, &[&out]);
            let got = out.values();
            assert_eq!(*first.get_or_insert_with(|| got.clone()), got, "{sizes:?} at {threads} threads");
        }
    }
}

#[test]
fn strides_do_not_change_the_bits() {
    let a = Array::with(DType::F32, &[500, 90], &[90, 1], noise);
    let values = a.values();
    let b = Array::with(DType::F32, &[500, 90], &[1, 500], |i| values[i % 500 * 90 + i / 500]);
    for dims in [vec![0], vec![1], vec![0, 1]] {
        let shape = kept(&[500, 90], &dims);
        let (x, y) = (Array::zeros(DType::F32, &shape), Array::zeros(DType::F32, &shape));
        reduce(Reduction::Sum, &a, &dims, &[&x]);
        reduce(Reduction::Sum, &b, &dims, &[&y]);
        assert_eq!(x.values(), y.values(), "{dims:?}");
    }
}

#[test]
fn scans() {
    let x = Array::with(DType::F32, &[40, 30], &[30, 1], |i| if i == 65 { f64::NAN } else { (i * 7 % 13) as f64 });
    let cpu = flambeau_cpu::cpu();
    let (out, index) = (Array::zeros(DType::F32, &[40, 30]), Array::zeros(DType::I64, &[40, 30]));
    cpu.scan(Scan::Max, &x.operand(), 0, &[out.operand(), index.operand()]).unwrap();
    let (v, o, k) = (x.values(), out.values(), index.values());
    for c in 0..30 {
        let (mut best, mut at) = (v[c], 0);
        for r in 0..40 {
            let y = v[r * 30 + c];
            if y.is_nan() || (!best.is_nan() && y >= best) {
                (best, at) = (y, r);
            }
            assert!(o[r * 30 + c] == best || best.is_nan() && o[r * 30 + c].is_nan());
            assert_eq!(k[r * 30 + c], at as f64);
        }
    }
    cpu.scan(Scan::Sum, &x.operand(), 1, &[out.operand()]).unwrap();
    assert_eq!(out.values()[29], v[..30].iter().sum::<f64>());
}

#[test]
fn adam_follows_its_formula() {
    let n = 20_000i64;
    let make = |k: usize| Array::with(DType::F32, &[n], &[1], move |i| noise(i * 5 + k));
    let (p, g) = (make(0), make(1));
    let (m, v) = (Array::zeros(DType::F32, &[n]), Array::zeros(DType::F32, &[n]));
    let before = p.values();
    let step = OptimizerStep::Adam {
        lr: 1e-2,
        beta1: 0.9,
        beta2: 0.999,
        eps: 1e-8,
        weight_decay: 0.1,
        decoupled: true,
        amsgrad: false,
        maximize: false,
        step: 1.0,
    };
    let cpu = flambeau_cpu::cpu();
    let lists: [&[Operand]; 4] = [&[p.operand()], &[g.operand()], &[m.operand()], &[v.operand()]];
    cpu.optimizer(&step, &lists).unwrap();
    for ((p, q), g) in p.values().into_iter().zip(before).zip(g.values()) {
        // At the first step the corrected moments are the gradient and its square.
        let want = q * (1.0 - 1e-3) - 1e-2 * g / (g.abs() + 1e-8);
        assert!((p - want).abs() < 1e-6, "{p} {want}");
    }
    assert!(cpu.optimizer(&step, &lists[..2]).is_err());
}
