//! Trains a small convolutional network on the project's 8,000 digits and prints its accuracy on 2,000 others.
//!
//!     cargo run --release -p flambeau --example mnist [EPOCHS]

use flambeau::ops::{convolution::conv, elementwise, indexing, linalg, loss, pooling, random, reduction, view};
use flambeau::optim::{AdamW, Optimizer};
use flambeau::{mode, DType, Device, Number, Result, Tensor};
use std::io::{Read, Write};
use std::path::Path;

/// An IDX file (MNIST's own format) behind gzip: its sizes and bytes.
fn read_idx(name: &str) -> std::io::Result<(Vec<i64>, Vec<u8>)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/data/mnist").join(name);
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(std::fs::File::open(path)?).read_to_end(&mut bytes)?;
    let rank = bytes[3] as usize;
    let size =
        |i: usize| i64::from(u32::from_be_bytes([bytes[4 * i], bytes[4 * i + 1], bytes[4 * i + 2], bytes[4 * i + 3]]));
    let sizes = (1..=rank).map(size).collect();
    Ok((sizes, bytes.split_off(4 + 4 * rank)))
}

/// Images (n, 1, 28, 28) with mean 0 and variance 1, and their labels.
fn load(part: &str) -> std::result::Result<(Tensor, Tensor), Box<dyn std::error::Error>> {
    let (sizes, pixels) = read_idx(&format!("{part}-images-idx3-ubyte.gz"))?;
    let (_, labels) = read_idx(&format!("{part}-labels-idx1-ubyte.gz"))?;
    let images = elementwise::to_dtype(&Tensor::from_slice(&pixels, &[sizes[0], 1, 28, 28])?, DType::F32)?;
    let images = elementwise::div(&elementwise::sub(&elementwise::div(&images, 255.0)?, 0.1307)?, 0.3081)?;
    let labels: Vec<i64> = labels.into_iter().map(i64::from).collect();
    Ok((images, Tensor::from_slice(&labels, &[sizes[0]])?))
}

struct Net {
    weights: Vec<Tensor>,
}

impl Net {
    fn new() -> Result<Net> {
        let shapes: [&[i64]; 4] = [&[16, 1, 3, 3], &[32, 16, 3, 3], &[128, 32 * 5 * 5], &[10, 128]];
        let mut weights = Vec::new();
        for shape in shapes {
            // Uniform within 1/√fan-in, weights and biases alike.
            let bound = 1.0 / (shape[1..].iter().product::<i64>() as f64).sqrt();
            for sizes in [shape, &shape[..1]] {
                let t = flambeau::ops::factory::empty(sizes, DType::F32, Device::Cpu)?;
                random::uniform_(&t, -bound, bound, None)?;
                t.set_requires_grad(true)?;
                weights.push(t);
            }
        }
        Ok(Net { weights })
    }
    /// Logits (n, 10) of images (n, 1, 28, 28).
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let w = &self.weights;
        let layer = |x: &Tensor, weight: &Tensor, bias: &Tensor| -> Result<Tensor> {
            let x = elementwise::relu(&conv(x, weight, Some(bias), &[1], &[0], &[1], 1, 2)?)?;
            Ok(pooling::max_pool(&x, &[2], &[2], &[0], &[1], false, 2)?.0)
        };
        let x = layer(&layer(x, &w[0], &w[1])?, &w[2], &w[3])?;
        let x = elementwise::relu(&linalg::linear(&view::flatten(&x, 1, -1)?, &w[4], Some(&w[5]))?)?;
        linalg::linear(&x, &w[6], Some(&w[7]))
    }
}

fn accuracy(net: &Net, images: &Tensor, labels: &Tensor) -> Result<f64> {
    let _off = mode::no_grad();
    let guess = reduction::argmax(&net.forward(images)?, Some(1), false)?;
    let right = reduction::sum(&elementwise::eq(&guess, labels)?, &[], false)?;
    Ok(right.item()?.to_f64() / labels.numel() as f64)
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let epochs: usize = std::env::args().nth(1).map_or(Ok(6), |n| n.parse())?;
    flambeau::random::default_generator().manual_seed(0);
    let ((images, labels), test) = (load("train")?, load("t10k")?);
    let net = Net::new()?;
    let mut optimizer = AdamW::new(net.weights.clone(), 1e-3);
    let (n, batch) = (labels.numel(), 64);
    let start = std::time::Instant::now();
    for epoch in 0..epochs {
        optimizer.lr = 2e-3 * (1.0 - epoch as f64 / epochs as f64);
        let order = random::randperm(n, None, None, None)?;
        let mut total = 0.0;
        for i in (0..n).step_by(batch) {
            let rows = view::narrow(&order, 0, i, (batch as i64).min(n - i))?;
            let (x, y) = (indexing::index_select(&images, 0, &rows)?, indexing::index_select(&labels, 0, &rows)?);
            optimizer.zero_grad()?;
            let loss = loss::cross_entropy(&net.forward(&x)?, &y, -100)?;
            loss.backward()?;
            optimizer.step()?;
            total += loss.item().map(Number::to_f64)?;
        }
        print!(
            "\repoch {}/{epochs}  loss {:.4}  {:5.1} s",
            epoch + 1,
            total / (n as f64 / batch as f64),
            start.elapsed().as_secs_f64()
        );
        std::io::stdout().flush()?;
    }
    println!("\ntest accuracy: {:.2} %", 100.0 * accuracy(&net, &test.0, &test.1)?);
    Ok(())
}
