//! Gradients of views, joins and indexed operators against central differences, in float64.

use flambeau::ops::{elementwise, indexing, join, reduction, scatter, view};
use flambeau::{Dest, Number, Result, Tensor, Value};

/// Distinct values without zeros or ties, from a fixed quadratic residue.
fn values(n: usize, k: usize) -> Vec<f64> {
    (0..n).map(|i| ((7 * i * i + 13 * i + 5 * k + 3) % 101) as f64 / 25.0 - 1.97).collect()
}
fn tensor(sizes: &[i64], k: usize) -> Tensor {
    Tensor::from_slice(&values(sizes.iter().product::<i64>() as usize, k), sizes).expect("a small tensor")
}
fn index(data: &[i64], sizes: &[i64]) -> Tensor {
    Tensor::from_slice(data, sizes).expect("a small index")
}
/// A weighted sum, so that no two outputs have the same cotangent.
fn scalar(y: &Tensor) -> Result<Tensor> {
    let w = tensor(&y.sizes(), 4);
    reduction::sum(&elementwise::mul(y, &w)?, &[], false)
}
/// Compares the gradients of `f` at inputs of the given sizes with central differences.
fn check(name: &str, sizes: &[&[i64]], f: impl Fn(&[Tensor]) -> Result<Tensor>) {
    let run = || -> Result<()> {
        let inputs: Vec<Tensor> = sizes.iter().enumerate().map(|(k, s)| tensor(s, k)).collect();
        for t in &inputs {
            t.set_requires_grad(true)?;
        }
        scalar(&f(&inputs)?)?.backward()?;
        for (k, t) in inputs.iter().enumerate() {
            let grad = match t.grad() {
                Some(g) => g.to_vec::<f64>()?,
                None => vec![0.0; t.numel() as usize],
            };
            for (i, found) in grad.iter().enumerate() {
                let at = |step: f64| -> Result<f64> {
                    let mut moved: Vec<Tensor> = inputs.iter().map(Tensor::detach).collect();
                    let mut data = moved[k].to_vec::<f64>()?;
                    data[i] += step;
                    moved[k] = Tensor::from_slice(&data, &t.sizes())?;
                    Ok(scalar(&f(&moved)?)?.item()?.to_f64())
                };
                let expected = (at(1e-5)? - at(-1e-5)?) / 2e-5;
                assert!(
                    (found - expected).abs() <= 1e-6 * (1.0 + expected.abs()),
                    "{name}: input {k}, element {i}: {found}, by differences {expected}"
                );
            }
        }
        Ok(())
    };
    if let Err(e) = run() {
        panic!("{name}: {e}");
    }
}

#[test]
fn views() {
    check("view", &[&[2, 6]], |x| view::view(&x[0], &[3, 4]));
    check("expand", &[&[3, 1]], |x| view::expand(&x[0], &[2, 3, 4]));
    check("permute", &[&[2, 3, 4]], |x| view::permute(&x[0], &[2, 0, 1]));
    check("select", &[&[3, 4]], |x| view::select(&x[0], 1, -1));
    check("slice", &[&[7, 2]], |x| view::slice(&x[0], 0, 1, 7, 2));
    check("squeeze", &[&[1, 3, 1]], |x| view::squeeze(&x[0], None));
    check("unsqueeze", &[&[3]], |x| view::unsqueeze(&x[0], -1));
    check("diagonal", &[&[3, 4, 2]], |x| view::diagonal(&x[0], 1, 0, 1));
    check("unfold", &[&[6, 2]], |x| view::unfold(&x[0], 0, 3, 1));
    check("as_strided", &[&[12]], |x| view::as_strided(&x[0], &[3, 3], &[2, 1], Some(1)));
    check("as_strided of a slice", &[&[4, 3]], |x| {
        view::as_strided(&view::slice(&x[0], 0, 1, 4, 1)?, &[2, 2], &[3, 1], Some(4))
    });
    check("as_strided of a transpose", &[&[4, 3]], |x| {
        view::as_strided(&view::transpose(&x[0], 0, 1)?, &[2, 3], &[1, 3], Some(0))
    });
    check("unbind", &[&[3, 2]], |x| elementwise::mul(&view::unbind(&x[0], 0)?[0], &view::unbind(&x[0], 0)?[2]));
    check("split", &[&[5, 2]], |x| Ok(view::split(&x[0], 2, 0)?.swap_remove(1)));
    check("flip", &[&[2, 3]], |x| view::flip(&x[0], &[0, 1]));
    check("roll", &[&[2, 3]], |x| view::roll(&x[0], &[1, -1], &[0, 1]));
    check("repeat", &[&[2, 3]], |x| view::repeat(&x[0], &[2, 1, 2]));
}

#[test]
fn joins() {
    check("cat", &[&[2, 3], &[1, 3]], |x| join::cat(x, 0));
    check("stack", &[&[2, 3], &[2, 3]], |x| join::stack(x, 1));
    check("pad", &[&[2, 3]], |x| join::constant_pad_nd(&x[0], &[1, 2, 0, -1], Number::Float(0.5)));
    check("block_diag", &[&[2, 2], &[3]], join::block_diag);
    check("cartesian_prod", &[&[2], &[3]], scatter::cartesian_prod);
    check("combinations", &[&[4]], |x| scatter::combinations(&x[0], 2, true));
    check("complex", &[&[3], &[3]], |x| view::imag(&scatter::polar(&x[0], &x[1])?));
}

#[test]
fn indexed() {
    let i = index(&[2, 0, 2], &[3]);
    let m = index(&[0, 2, 1, 1, 0, 0], &[2, 3]);
    check("index_select", &[&[3, 2]], |x| indexing::index_select(&x[0], 0, &i));
    check("gather", &[&[3, 3]], |x| indexing::gather(&x[0], 1, &m));
    check("take", &[&[3, 3]], |x| indexing::take(&x[0], &m));
    check("index", &[&[3, 2, 3]], |x| indexing::index(&x[0], &[Some(i.clone()), None, Some(index(&[-1, 0, 1], &[3]))]));
    check("scatter_add", &[&[3, 3], &[2, 3]], |x| indexing::scatter_add(&x[0], 0, &m, &x[1]));
    check("scatter", &[&[3, 3], &[3, 3]], |x| {
        indexing::scatter(&x[0], 1, &index(&[0, 2, 1], &[3, 1]), &x[1], Dest::New)
    });
    check("index_add", &[&[3, 2], &[3, 2]], |x| indexing::index_add(&x[0], 0, &i, &x[1]));
    check("index_put", &[&[3, 2], &[2]], |x| {
        indexing::index_put(&x[0], &[Some(index(&[0, 2], &[2])), None], &x[1], false)
    });
    check("put", &[&[3, 2], &[3]], |x| scatter::put(&x[0], &index(&[5, 0, 5], &[3]), &x[1], true));
    let mask = Tensor::from_slice(&[true, false, true], &[3]).expect("a mask");
    check("masked_fill", &[&[2, 3]], |x| {
        indexing::masked_fill(&x[0], &mask, Value::Number(Number::Float(2.0)), Dest::New)
    });
    check("masked_select", &[&[2, 3]], |x| indexing::masked_select(&x[0], &mask));
    check("masked_scatter", &[&[2, 3], &[4]], |x| indexing::masked_scatter(&x[0], &mask, &x[1], Dest::New));
}

#[test]
fn reduced() {
    let m = index(&[0, 2, 1, 0, 2, 0], &[2, 3]);
    let i = index(&[2, 0, 2], &[3]);
    for include_self in [true, false] {
        for how in ["sum", "prod", "mean", "amax", "amin"] {
            let name = format!("scatter_reduce {how}, include_self {include_self}");
            check(&name, &[&[3, 3], &[2, 3]], |x| scatter::scatter_reduce(&x[0], 0, &m, &x[1], how, include_self));
        }
        for how in ["prod", "mean", "amax", "amin"] {
            let name = format!("index_reduce {how}, include_self {include_self}");
            check(&name, &[&[3, 2], &[3, 2]], |x| scatter::index_reduce(&x[0], 0, &i, &x[1], how, include_self));
        }
    }
    // A product with zeros among its factors.
    check("scatter_reduce with zeros", &[&[2], &[4]], |x| {
        let zeroed = elementwise::mul(&x[1], &Tensor::from_slice(&[1.0, 0.0, 1.0, 1.0], &[4])?)?;
        scatter::scatter_reduce(&x[0], 0, &index(&[0, 0, 0, 1], &[4]), &zeroed, "prod", true)
    });
    check("select_scatter", &[&[3, 2], &[3]], |x| scatter::select_scatter(&x[0], &x[1], 1, 0));
    check("slice_scatter", &[&[4, 2], &[2, 2]], |x| scatter::slice_scatter(&x[0], &x[1], 0, Some(1), None, 2));
    check("diagonal_scatter", &[&[3, 3], &[2]], |x| scatter::diagonal_scatter(&x[0], &x[1], 1, 0, 1));
    // The part alone: the tensor's gradient is PyTorch's, which is not the derivative (see its `vjp`).
    check("as_strided_scatter", &[&[2, 2]], |x| {
        scatter::as_strided_scatter(&tensor(&[3, 4], 5), &x[0], &[2, 2], &[4, 1], Some(1))
    });
}

#[test]
fn in_place_views() -> Result<()> {
    // A view operator in place is a step of the graph like any other.
    let x = tensor(&[2, 3], 0);
    x.set_requires_grad(true)?;
    let y = elementwise::mul(&x, 2.0)?;
    view::transpose_(&y, 0, 1)?;
    assert_eq!(&y.sizes()[..], &[3, 2]);
    let w = tensor(&[3, 2], 1);
    reduction::sum(&elementwise::mul(&y, &w)?, &[], false)?.backward()?;
    let grad = x.grad().map(|g| g.to_vec::<f64>()).transpose()?.unwrap_or_default();
    let w = w.to_vec::<f64>()?;
    for r in 0..2 {
        for c in 0..3 {
            assert_eq!(grad[r * 3 + c], 2.0 * w[c * 2 + r]);
        }
    }
    Ok(())
}
