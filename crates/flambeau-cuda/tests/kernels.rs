//! Products, windows, rows and optimizers on the emulated device, against plain loops on the host. Skipped, with a line
//! that says so, where there is no C++ compiler.

mod common;

use common::*;
use flambeau_core::*;

#[test]
fn products_over_any_strides() {
    let Some(b) = device() else { return };
    let (batch, m, n, k) = (2usize, 37usize, 41usize, 50usize);
    let (x, y, z) = (values(batch * m * k, 7), values(k * n, 8), values(n, 9));
    let a = Tensor::f32(b, &[batch as i64, m as i64, k as i64], &x);
    // The second factor is transposed and the same for each of the batch.
    let c = Tensor::f32(b, &[n as i64, k as i64], &y).view(&[batch as i64, k as i64, n as i64], &[0, 1, k as i64], 0);
    let bias = Tensor::f32(b, &[n as i64], &z);
    let out = Tensor::empty(b, DType::F32, &[batch as i64, m as i64, n as i64]);
    let mut want = vec![0f64; batch * m * n];
    for (i, w) in want.iter_mut().enumerate() {
        let (p, q, r) = (i / (m * n), i / n % m, i % n);
        *w = z[r] as f64 + (0..k).map(|d| x[(p * m + q) * k + d] as f64 * y[r * k + d] as f64).sum::<f64>();
    }
    b.matmul(&a.op(), &c.op(), &out.op(), Epilogue { bias: Some(bias.op()), ..Default::default() }).unwrap();
    close(&out.to_f32(b), &want, 1e-5);
    b.matmul(&a.op(), &c.op(), &out.op(), Epilogue { accumulate: true, ..Default::default() }).unwrap();
    let twice: Vec<f64> = want.iter().enumerate().map(|(i, w)| 2.0 * w - z[i % n] as f64).collect();
    close(&out.to_f32(b), &twice, 1e-5);
    let (p, q) = (Tensor::i64(b, &[2, 2], &[1, 2, 3, i64::MAX]), Tensor::i64(b, &[2, 2], &[5, 6, 7, 2]));
    let out = Tensor::empty(b, DType::I64, &[2, 2]);
    b.matmul(&p.op(), &q.op(), &out.op(), Epilogue::default()).unwrap();
    assert_eq!(
        out.to_i64(b),
        [19, 10, 15i64.wrapping_add(i64::MAX.wrapping_mul(7)), 18i64.wrapping_add(i64::MAX.wrapping_mul(2))]
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
    for (groups, stride, padding, dilation, kernel) in
        [(1usize, 1usize, 0usize, 1usize, 1usize), (2, 2, 1, 1, 3), (1, 1, 2, 2, 3)]
    {
        let (images, channels, outputs, h, w) = (3usize, 4usize, 6usize, 9usize, 8usize);
        let (oh, ow) = (
            (h + 2 * padding - dilation * (kernel - 1) - 1) / stride + 1,
            (w + 2 * padding - dilation * (kernel - 1) - 1) / stride + 1,
        );
        let xs = [images, channels, h, w];
        let ws = [outputs, channels / groups, kernel, kernel];
        let os = [images, outputs, oh, ow];
        let (x, wt, g) =
            (values(xs.iter().product(), 10), values(ws.iter().product(), 11), values(os.iter().product(), 12));
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
                                    let (y, z) = (i * stride + u * dilation, j * stride + v * dilation);
                                    if y < padding || z < padding || y - padding >= h || z - padding >= w {
                                        continue;
                                    }
                                    let ic = o / (outputs / groups) * (channels / groups) + c;
                                    let (ix, iw) = (at4(xs, [p, ic, y - padding, z - padding]), at4(ws, [o, c, u, v]));
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
        let (tx, tw, tg) =
            (Tensor::f32(b, &size(xs), &x), Tensor::f32(b, &size(ws), &wt), Tensor::f32(b, &size(os), &g));
        let tb = Tensor::f32(b, &[outputs as i64], &bias);
        let to = Tensor::empty(b, DType::F32, &size(os));
        b.conv(&tx.op(), &tw.op(), Some(&tb.op()), &geometry, &to.op()).unwrap();
        close(&to.to_f32(b), &out, 1e-5);
        let (tgx, tgw) = (Tensor::empty(b, DType::F32, &size(xs)), Tensor::empty(b, DType::F32, &size(ws)));
        b.conv_input_grad(&tg.op(), &tw.op(), &geometry, &tgx.op()).unwrap();
        close(&tgx.to_f32(b), &gx, 1e-5);
        b.conv_weight_grad(&tg.op(), &tx.op(), &geometry, &tgw.op()).unwrap();
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
    let (best, index) = (Tensor::empty(b, DType::F32, &[1, 2, 4, 4]), Tensor::empty(b, DType::I64, &[1, 2, 4, 4]));
    let average = Tensor::empty(b, DType::F32, &[1, 2, 4, 4]);
    b.max_pool(&t.op(), &pool, &best.op(), Some(&index.op())).unwrap();
    b.avg_pool(&t.op(), &pool, &average.op()).unwrap();
    let g = values(2 * oh * ow, 15);
    let (tg, gx) = (Tensor::f32(b, &[1, 2, 4, 4], &g), Tensor::empty(b, DType::F32, &[1, 2, h as i64, w as i64]));
    b.avg_pool_grad(&tg.op(), &pool, &gx.op()).unwrap();
    let (mut want_best, mut want_index, mut want_mean, mut want_gx) = (vec![], vec![], vec![], vec![0f64; x.len()]);
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
                    .reduce(|a, p| if x[c * h * w + p] > x[c * h * w + a] { p } else { a })
                    .unwrap();
                want_best.push(x[c * h * w + top] as f64);
                want_index.push(top as i64);
                want_mean.push(places.iter().map(|p| x[c * h * w + p] as f64).sum::<f64>() / places.len() as f64);
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
        let (y, gx) = (Tensor::empty(b, DType::F32, &size), Tensor::empty(b, DType::F32, &size));
        for log in [false, true] {
            b.softmax(&tx.op(), 1, log, &y.op()).unwrap();
            b.softmax_grad(&tg.op(), &y.op(), 1, log, &gx.op()).unwrap();
            let (mut want, mut want_gx) = (vec![], vec![]);
            for r in 0..rows {
                let sum: f64 = x[r * n..][..n].iter().map(|v| (*v as f64).exp()).sum();
                let p: Vec<f64> = x[r * n..][..n].iter().map(|v| (*v as f64).exp() / sum).collect();
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
    let (x, g, w, c) = (values(rows * n, 18), values(rows * n, 19), values(n, 20), values(n, 21));
    let size = [rows as i64, n as i64];
    let (tx, tg) = (Tensor::f32(b, &size, &x), Tensor::f32(b, &size, &g));
    let (tw, tc) = (Tensor::f32(b, &[n as i64], &w), Tensor::f32(b, &[n as i64], &c));
    let (out, gx) = (Tensor::empty(b, DType::F32, &size), Tensor::empty(b, DType::F32, &size));
    let (mean, rstd) = (Tensor::empty(b, DType::F32, &[rows as i64]), Tensor::empty(b, DType::F32, &[rows as i64]));
    let (gw, gb) = (Tensor::empty(b, DType::F32, &[n as i64]), Tensor::empty(b, DType::F32, &[n as i64]));
    b.layer_norm(&tx.op(), Some(&tw.op()), Some(&tc.op()), 1e-5, &out.op(), &mean.op(), &rstd.op()).unwrap();
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
    let (mut want, mut want_gx, mut want_gw, mut want_gb) = (vec![], vec![], vec![0f64; n], vec![0f64; n]);
    for r in 0..rows {
        let row: Vec<f64> = x[r * n..][..n].iter().map(|v| *v as f64).collect();
        let m = row.iter().sum::<f64>() / n as f64;
        let s = 1.0 / (row.iter().map(|v| (v - m).powi(2)).sum::<f64>() / n as f64 + 1e-5).sqrt();
        let z: Vec<f64> = row.iter().map(|v| (v - m) * s).collect();
        let h: Vec<f64> = (0..n).map(|i| g[r * n + i] as f64 * w[i] as f64).collect();
        let (a, d) = (h.iter().sum::<f64>() / n as f64, h.iter().zip(&z).map(|(h, z)| h * z).sum::<f64>() / n as f64);
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
    let (loss, lse) = (Tensor::empty(b, DType::F32, &[rows as i64]), Tensor::empty(b, DType::F32, &[rows as i64]));
    b.cross_entropy(&tx.op(), &target.op(), -100, &loss.op(), &lse.op()).unwrap();
    let (g, gx) = (
        Tensor::f32(b, &[1], &[0.5]).view(&[rows as i64], &[0], 0),
        Tensor::empty(b, DType::F32, &[rows as i64, n as i64]),
    );
    b.cross_entropy_grad(&g.op(), &tx.op(), &target.op(), &lse.op(), -100, &gx.op()).unwrap();
    let (mut want, mut want_gx) = (vec![], vec![]);
    for (r, t) in [7i64, -100, 49].into_iter().enumerate() {
        let sum: f64 = x[r * n..][..n].iter().map(|v| (*v as f64).exp()).sum();
        want.push(if t < 0 { 0.0 } else { sum.ln() - x[r * n + t as usize] as f64 });
        for i in 0..n {
            let p = (x[r * n + i] as f64).exp() / sum;
            want_gx.push(if t < 0 { 0.0 } else { 0.5 * (p - (i as i64 == t) as u8 as f64) });
        }
    }
    close(&loss.to_f32(b), &want, 1e-5);
    close(&gx.to_f32(b), &want_gx, 1e-6);
    let bad = Tensor::i64(b, &[rows as i64], &[0, 50, 1]);
    let error = b.cross_entropy(&tx.op(), &bad.op(), -100, &loss.op(), &lse.op()).unwrap_err();
    assert_eq!((error.kind(), error.message()), (ErrorKind::Index, "Target 50 is out of bounds."));
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
    b.optimizer(&step, &[&[tp.op()], &[tg.op()], &[tm.op()], &[tv.op()]]).unwrap();
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
fn attention_and_its_gradients() {
    let Some(b) = device() else { return };
    // More keys and queries than a block has threads; a head's features beyond a block's threads; a causal row and a mask.
    for (l, s, e, f, causal, masked) in
        [(3, 5, 4, 6, false, false), (4, 3, 2, 140, true, false), (140, 150, 3, 2, false, true)]
    {
        let (n, h) = (1usize, 2usize);
        let (lq, lk, lv) = (n * h * l * e, n * h * s * e, n * h * s * f);
        let (q, k, v, g) = (values(lq, 1), values(lk, 2), values(lv, 3), values(n * h * l * f, 4));
        // Query 0 sees nothing.
        let mask: Vec<u8> = (0..l * s).map(|i| (i >= s && i % 3 != 0) as u8).collect();
        let size = |rows: usize, columns: usize| [n as i64, h as i64, rows as i64, columns as i64];
        let (tq, tk, tv) =
            (Tensor::f32(b, &size(l, e), &q), Tensor::f32(b, &size(s, e), &k), Tensor::f32(b, &size(s, f), &v));
        let tg = Tensor::f32(b, &size(l, f), &g);
        let tm = Tensor::bytes(b, DType::Bool, &[l as i64, s as i64], &mask);
        let empty = |sizes: &[i64]| Tensor::empty(b, DType::F32, sizes);
        let (out, lse) = (empty(&size(l, f)), empty(&size(l, e)[..3]));
        let (gq, gk, gv) = (empty(&size(l, e)), empty(&size(s, e)), empty(&size(s, f)));
        let p = Attention { scale: 0.7, causal, mask: masked.then(|| tm.op()) };
        b.attention(&tq.op(), &tk.op(), &tv.op(), &p, &out.op(), &lse.op()).unwrap();
        b.attention_grad(
            &tg.op(),
            &tq.op(),
            &tk.op(),
            &tv.op(),
            &out.op(),
            &lse.op(),
            &p,
            &gq.op(),
            &gk.op(),
            &gv.op(),
        )
        .unwrap();
        let mut want = vec![0.0; n * h * l * f];
        let (mut want_q, mut want_k, mut want_v) = (vec![0.0; lq], vec![0.0; lk], vec![0.0; lv]);
        for (head, i) in (0..n * h).flat_map(|head| (0..l).map(move |i| (head, i))) {
            let at = |x: &[f32], rows: usize, row: usize, columns: usize, c: usize| {
                x[(head * rows + row) * columns + c] as f64
            };
            let weights: Vec<f64> = (0..s)
                .map(|j| {
                    let dot: f64 = (0..e).map(|c| at(&q, l, i, e, c) * at(&k, s, j, e, c)).sum();
                    let seen = (!causal || j <= i) && (!masked || mask[i * s + j] != 0);
                    if seen {
                        (0.7 * dot).exp()
                    } else {
                        0.0
                    }
                })
                .collect();
            let sum: f64 = weights.iter().sum();
            let weights: Vec<f64> = weights.iter().map(|w| if sum == 0.0 { 0.0 } else { w / sum }).collect();
            let slopes: Vec<f64> =
                (0..s).map(|j| (0..f).map(|c| at(&g, l, i, f, c) * at(&v, s, j, f, c)).sum()).collect();
            let mean: f64 = weights.iter().zip(&slopes).map(|(w, x)| w * x).sum();
            for j in 0..s {
                for c in 0..f {
                    want[(head * l + i) * f + c] += weights[j] * at(&v, s, j, f, c);
                    want_v[(head * s + j) * f + c] += weights[j] * at(&g, l, i, f, c);
                }
                let slope = 0.7 * weights[j] * (slopes[j] - mean);
                for c in 0..e {
                    want_q[(head * l + i) * e + c] += slope * at(&k, s, j, e, c);
                    want_k[(head * s + j) * e + c] += slope * at(&q, l, i, e, c);
                }
            }
        }
        close(&out.to_f32(b), &want, 1e-5);
        close(&gq.to_f32(b), &want_q, 2e-5);
        close(&gk.to_f32(b), &want_k, 2e-5);
        close(&gv.to_f32(b), &want_v, 2e-5);
    }
}
