//! Signatures of the operators that networks are made of.

use crate::call::{with_py, Object, Returned};
use flambeau::core::{ensure, err};
use flambeau::mode;
use flambeau::{Dest, Result, Tensor};
use pyo3::prelude::*;

/// Values, with their positions when asked for.
fn maybe(both: Result<(Tensor, Tensor)>, indices: bool) -> Result<Returned> {
    let (values, at) = both?;
    Ok(if indices {
        Returned::Tuple(vec![Returned::Tensor(values), Returned::Tensor(at)])
    } else {
        Returned::Tensor(values)
    })
}

/// Maxima over windows of `n` dimensions; see [`maybe`].
#[allow(clippy::too_many_arguments)]
fn largest(
    x: &Tensor,
    kernel: &[i64],
    stride: Option<&[i64]>,
    padding: &[i64],
    dilation: &[i64],
    ceil: bool,
    n: usize,
    indices: bool,
) -> Result<Returned> {
    let stride = stride.unwrap_or(&[]);
    if indices {
        maybe(pooling::max_pool(x, kernel, stride, padding, dilation, ceil, n), true)
    } else {
        pooling::max_pool_values(x, kernel, stride, padding, dilation, ceil, n).map(Returned::Tensor)
    }
}

/// The output sizes of an adaptive pool: an int, or a sequence of ints and `None` (the input's own size).
fn output_sizes(x: &Tensor, sizes: Object) -> Result<Vec<i64>> {
    let given: Vec<Option<i64>> = with_py(|py| {
        let sizes = sizes.bind(py);
        match sizes.extract::<Option<i64>>() {
            Ok(one) => Ok(vec![one]),
            Err(_) => sizes.extract::<Vec<Option<i64>>>(),
        }
    })?;
    ensure!(
        given.len() == 1 || x.dim() > given.len(),
        Value,
        "Input dimension should be at least {}, got {}",
        given.len() + 1,
        x.dim()
    );
    Ok(given.into_iter().map(|n| n.unwrap_or(pooling::KEEP)).collect())
}

/// `input` with a gradient that formally reads `other`: see [`flambeau::autograd::node::formally_reads`].
fn reads(input: &Tensor, other: &Tensor, name: &str) -> Result<Tensor> {
    // The composites of the Python package that need it.
    let name = match name {
        "nll_loss" => "nll_loss",
        "reflection_pad" => "reflection_pad",
        "replication_pad" => "replication_pad",
        "fractional_max_pool" => "fractional_max_pool",
        "grid_sampler_2d" => "grid_sampler_2d",
        "grid_sampler_3d" => "grid_sampler_3d",
        other => return Err(err!(Value, "_formally_reads: no composite is called '{other}'")),
    };
    flambeau::autograd::node::formally_reads(input.clone(), &[other], name)
}

/// Rows of a table by index. `max_norm` scales the rows that are used down in place first; `scale_grad_by_freq` divides a row's
/// gradient by how often it was used.
#[allow(clippy::too_many_arguments)]
fn embedding(
    input: &Tensor,
    weight: &Tensor,
    padding_idx: Option<i64>,
    max_norm: Option<f64>,
    norm_type: f64,
    scale_grad_by_freq: bool,
    sparse: bool,
) -> Result<Tensor> {
    if max_norm.is_none() && !scale_grad_by_freq {
        if sparse {
            return indexing::embedding_sparse(input, weight, padding_idx, false);
        }
        return indexing::embedding(input, weight, padding_idx);
    }
    ensure!(weight.dim() == 2, Runtime, "'weight' must be 2-D");
    let rows = device::to_vec_i64(input)?;
    let count = weight.sizes()[0];
    if let Some(row) = rows.iter().find(|r| !(0..count).contains(*r)) {
        return Err(err!(Index, "index out of range in self: {row} of {count} rows"));
    }
    if let Some(max_norm) = max_norm {
        let _off = mode::no_grad();
        let mut used = rows.clone();
        used.sort_unstable();
        used.dedup();
        let used = device::to_device(&Tensor::from_slice(&used, &[used.len() as i64])?, weight.device())?;
        let table = weight.detach();
        let old = indexing::index_select(&table, 0, &used)?;
        let norms = reduction::vector_norm(&old, norm_type, &[1], true, None)?;
        let factor = elementwise::div(max_norm, &elementwise::add(&norms, 1e-7)?)?;
        let new = elementwise::where_(&elementwise::gt(&norms, max_norm)?, &elementwise::mul(&old, &factor)?, &old)?;
        indexing::index_copy(&table, 0, &used, &new, Dest::Inplace(&table))?;
    }
    if sparse && scale_grad_by_freq {
        return indexing::embedding_sparse(input, weight, padding_idx, true);
    }
    if !scale_grad_by_freq || !weight.requires_grad() {
        return if sparse {
            indexing::embedding_sparse(input, weight, padding_idx, false)
        } else {
            indexing::embedding(input, weight, padding_idx)
        };
    }
    let mut counts = vec![0f64; count as usize];
    rows.iter().for_each(|&r| counts[r as usize] += 1.0);
    counts.iter_mut().for_each(|n| *n = n.max(1.0));
    let counts = elementwise::to_dtype(&Tensor::from_slice(&counts, &[count, 1])?, weight.dtype())?;
    // The value is the table's; the gradient is divided.
    let fixed = weight.detach();
    let share = elementwise::div(&elementwise::sub(weight, &fixed)?, &device::to_device(&counts, weight.device())?)?;
    indexing::embedding(input, &elementwise::add(&fixed, &share)?, padding_idx)
}

/// [`normalization::batch_norm`] with the checks of the functional form: values a channel and `eps` before sizes and dtypes.
#[allow(clippy::too_many_arguments)]
fn batch_norm(
    x: &Tensor,
    running_mean: Option<&Tensor>,
    running_var: Option<&Tensor>,
    weight: Option<&Tensor>,
    bias: Option<&Tensor>,
    training: bool,
    momentum: f64,
    eps: f64,
) -> Result<Tensor> {
    if training {
        let sizes = x.sizes();
        ensure!(
            sizes.len() < 2 || x.numel() != sizes[1] || x.numel() == 0,
            Value,
            "Expected more than 1 value per channel when training, got input size torch.Size({})",
            flambeau::core::Shape(&sizes)
        );
        ensure!(eps > 0.0, Value, "batch_norm eps must be positive during training, but got {eps:?}");
    }
    ensure!(eps >= 0.0, Value, "batch_norm eps must be non-negative, but got {eps:?}");
    normalization::batch_norm(x, running_mean, running_var, weight, bias, training, momentum, eps)
}

operators! { NN;
    "softmax(Tensor input, int dim, dtype? dtype=None)" [function method out alias(special.softmax)] => activation::softmax;
    "log_softmax(Tensor input, int dim, dtype? dtype=None)" [function method out alias(special.log_softmax)] => activation::log_softmax;
    "layer_norm(Tensor input, int[] normalized_shape, Tensor? weight=None, Tensor? bias=None, float eps=1e-05, bool cudnn_enable=True)" [function] => |x: &Tensor, s: &[i64], w: Option<&Tensor>, b: Option<&Tensor>, e: f64, _c: bool| normalization::layer_norm(x, s, w, b, e);
    "nn.functional.layer_norm(Tensor input, int[] normalized_shape, Tensor? weight=None, Tensor? bias=None, float eps=1e-05)" [function] => normalization::layer_norm;
    "nn.functional.batch_norm(Tensor input, Tensor? running_mean, Tensor? running_var, Tensor? weight=None, Tensor? bias=None, bool training=False, float momentum=0.1, float eps=1e-05)" [function] => batch_norm;
    "batch_norm(Tensor input, Tensor? weight, Tensor? bias, Tensor? running_mean, Tensor? running_var, bool training, float momentum, float eps, bool cudnn_enabled)" [function] => |x: &Tensor, w: Option<&Tensor>, b: Option<&Tensor>, m: Option<&Tensor>, v: Option<&Tensor>, t: bool, k: f64, e: f64, _c: bool| normalization::batch_norm(x, m, v, w, b, t, k, e);
    "conv1d(Tensor input, Tensor weight, Tensor? bias=None, int[] stride=1, int[] padding=0, int[] dilation=1, int groups=1)" [function alias(nn.functional.conv1d)] => |x: &Tensor, w: &Tensor, b: Option<&Tensor>, s: &[i64], p: &[i64], d: &[i64], g: i64| convolution::conv(x, w, b, s, p, d, g, 1);
    "conv1d(Tensor input, Tensor weight, Tensor? bias=None, int[] stride=1, str padding='valid', int[] dilation=1, int groups=1)" [function alias(nn.functional.conv1d)] => |x: &Tensor, w: &Tensor, b: Option<&Tensor>, s: &[i64], p: &str, d: &[i64], g: i64| convolution::conv_named(x, w, b, s, p, d, g, 1);
    "conv2d(Tensor input, Tensor weight, Tensor? bias=None, int[] stride=1, int[] padding=0, int[] dilation=1, int groups=1)" [function alias(nn.functional.conv2d)] => |x: &Tensor, w: &Tensor, b: Option<&Tensor>, s: &[i64], p: &[i64], d: &[i64], g: i64| convolution::conv(x, w, b, s, p, d, g, 2);
    "conv2d(Tensor input, Tensor weight, Tensor? bias=None, int[] stride=1, str padding='valid', int[] dilation=1, int groups=1)" [function alias(nn.functional.conv2d)] => |x: &Tensor, w: &Tensor, b: Option<&Tensor>, s: &[i64], p: &str, d: &[i64], g: i64| convolution::conv_named(x, w, b, s, p, d, g, 2);
    "conv3d(Tensor input, Tensor weight, Tensor? bias=None, int[] stride=1, int[] padding=0, int[] dilation=1, int groups=1)" [function alias(nn.functional.conv3d)] => |x: &Tensor, w: &Tensor, b: Option<&Tensor>, s: &[i64], p: &[i64], d: &[i64], g: i64| convolution::conv(x, w, b, s, p, d, g, 3);
    "conv3d(Tensor input, Tensor weight, Tensor? bias=None, int[] stride=1, str padding='valid', int[] dilation=1, int groups=1)" [function alias(nn.functional.conv3d)] => |x: &Tensor, w: &Tensor, b: Option<&Tensor>, s: &[i64], p: &str, d: &[i64], g: i64| convolution::conv_named(x, w, b, s, p, d, g, 3);
    "conv_transpose1d(Tensor input, Tensor weight, Tensor? bias=None, int[] stride=1, int[] padding=0, int[] output_padding=0, int groups=1, int[] dilation=1)" [function alias(nn.functional.conv_transpose1d)] => |x: &Tensor, w: &Tensor, b: Option<&Tensor>, s: &[i64], p: &[i64], o: &[i64], g: i64, d: &[i64]| convolution::conv_transpose(x, w, b, s, p, o, g, d, 1);
    "conv_transpose2d(Tensor input, Tensor weight, Tensor? bias=None, int[] stride=1, int[] padding=0, int[] output_padding=0, int groups=1, int[] dilation=1)" [function alias(nn.functional.conv_transpose2d)] => |x: &Tensor, w: &Tensor, b: Option<&Tensor>, s: &[i64], p: &[i64], o: &[i64], g: i64, d: &[i64]| convolution::conv_transpose(x, w, b, s, p, o, g, d, 2);
    "conv_transpose3d(Tensor input, Tensor weight, Tensor? bias=None, int[] stride=1, int[] padding=0, int[] output_padding=0, int groups=1, int[] dilation=1)" [function alias(nn.functional.conv_transpose3d)] => |x: &Tensor, w: &Tensor, b: Option<&Tensor>, s: &[i64], p: &[i64], o: &[i64], g: i64, d: &[i64]| convolution::conv_transpose(x, w, b, s, p, o, g, d, 3);
    "max_pool1d_with_indices(Tensor input, int[] kernel_size, int[] stride=[], int[] padding=0, int[] dilation=1, bool ceil_mode=False)" [function] => |x: &Tensor, k: &[i64], s: &[i64], p: &[i64], d: &[i64], c: bool| pooling::max_pool(x, k, s, p, d, c, 1);
    "max_pool2d_with_indices(Tensor input, int[] kernel_size, int[] stride=[], int[] padding=0, int[] dilation=1, bool ceil_mode=False)" [function] => |x: &Tensor, k: &[i64], s: &[i64], p: &[i64], d: &[i64], c: bool| pooling::max_pool(x, k, s, p, d, c, 2);
    "max_pool3d_with_indices(Tensor input, int[] kernel_size, int[] stride=[], int[] padding=0, int[] dilation=1, bool ceil_mode=False)" [function] => |x: &Tensor, k: &[i64], s: &[i64], p: &[i64], d: &[i64], c: bool| pooling::max_pool(x, k, s, p, d, c, 3);
    "max_pool1d(Tensor input, int[] kernel_size, int[] stride=[], int[] padding=0, int[] dilation=1, bool ceil_mode=False)" [function] => |x: &Tensor, k: &[i64], s: &[i64], p: &[i64], d: &[i64], c: bool| pooling::max_pool_values(x, k, s, p, d, c, 1);
    "max_pool2d(Tensor input, int[] kernel_size, int[] stride=[], int[] padding=0, int[] dilation=1, bool ceil_mode=False)" [function] => |x: &Tensor, k: &[i64], s: &[i64], p: &[i64], d: &[i64], c: bool| pooling::max_pool_values(x, k, s, p, d, c, 2);
    "max_pool3d(Tensor input, int[] kernel_size, int[] stride=[], int[] padding=0, int[] dilation=1, bool ceil_mode=False)" [function] => |x: &Tensor, k: &[i64], s: &[i64], p: &[i64], d: &[i64], c: bool| pooling::max_pool_values(x, k, s, p, d, c, 3);
    "avg_pool1d(Tensor input, int[] kernel_size, int[] stride=[], int[] padding=0, bool ceil_mode=False, bool count_include_pad=True)" [function alias(nn.functional.avg_pool1d)] => |x: &Tensor, k: &[i64], s: &[i64], p: &[i64], c: bool, i: bool| pooling::avg_pool(x, k, s, p, c, i, None, 1);
    "nn.functional.avg_pool2d(Tensor input, int[] kernel_size, int[]? stride=None, int[] padding=0, bool ceil_mode=False, bool count_include_pad=True, int? divisor_override=None)" [function out] => |x: &Tensor, k: &[i64], s: Option<&[i64]>, p: &[i64], c: bool, i: bool, d: Option<i64>| pooling::avg_pool(x, k, s.unwrap_or(&[]), p, c, i, d, 2);
    "nn.functional.avg_pool3d(Tensor input, int[] kernel_size, int[]? stride=None, int[] padding=0, bool ceil_mode=False, bool count_include_pad=True, int? divisor_override=None)" [function out] => |x: &Tensor, k: &[i64], s: Option<&[i64]>, p: &[i64], c: bool, i: bool, d: Option<i64>| pooling::avg_pool(x, k, s.unwrap_or(&[]), p, c, i, d, 3);
    "adaptive_avg_pool1d(Tensor input, int[] output_size)" [function alias(nn.functional.adaptive_avg_pool1d)] => |x: &Tensor, s: &[i64]| pooling::adaptive_avg_pool(x, s, 1);
    "adaptive_max_pool1d(Tensor input, int[] output_size)" [function] => |x: &Tensor, s: &[i64]| pooling::adaptive_max_pool(x, s, 1);
    "nn.functional.max_pool1d(Tensor input, int[] kernel_size, int[]? stride=None, int[] padding=0, int[] dilation=1, bool ceil_mode=False, bool return_indices=False)" [function] => |x: &Tensor, k: &[i64], s: Option<&[i64]>, p: &[i64], d: &[i64], c: bool, i: bool| largest(x, k, s, p, d, c, 1, i);
    "nn.functional.adaptive_max_pool1d(Tensor input, int[] output_size, bool return_indices=False)" [function] => |x: &Tensor, s: &[i64], i: bool| maybe(pooling::adaptive_max_pool(x, s, 1), i);
    "nn.functional.max_pool2d(Tensor input, int[] kernel_size, int[]? stride=None, int[] padding=0, int[] dilation=1, bool ceil_mode=False, bool return_indices=False)" [function] => |x: &Tensor, k: &[i64], s: Option<&[i64]>, p: &[i64], d: &[i64], c: bool, i: bool| largest(x, k, s, p, d, c, 2, i);
    "nn.functional.adaptive_max_pool2d(Tensor input, object output_size, bool return_indices=False)" [function] => |x: &Tensor, s: Object, i: bool| maybe(pooling::adaptive_max_pool(x, &output_sizes(x, s)?, 2), i);
    "nn.functional.adaptive_avg_pool2d(Tensor input, object output_size)" [function] => |x: &Tensor, s: Object| pooling::adaptive_avg_pool(x, &output_sizes(x, s)?, 2);
    "nn.functional.max_pool3d(Tensor input, int[] kernel_size, int[]? stride=None, int[] padding=0, int[] dilation=1, bool ceil_mode=False, bool return_indices=False)" [function] => |x: &Tensor, k: &[i64], s: Option<&[i64]>, p: &[i64], d: &[i64], c: bool, i: bool| largest(x, k, s, p, d, c, 3, i);
    "nn.functional.adaptive_max_pool3d(Tensor input, object output_size, bool return_indices=False)" [function] => |x: &Tensor, s: Object, i: bool| maybe(pooling::adaptive_max_pool(x, &output_sizes(x, s)?, 3), i);
    "nn.functional.adaptive_avg_pool3d(Tensor input, object output_size)" [function] => |x: &Tensor, s: Object| pooling::adaptive_avg_pool(x, &output_sizes(x, s)?, 3);
    "_lstm(Tensor gates, Tensor hidden, Tensor cell, Tensor weight, bool reverse)" [function] => recurrent::lstm;
    "_formally_reads(Tensor input, Tensor other, str name)" [function] => reads;
    "_weave(Tensor input, Tensor starts, Tensor index, Tensor weight, int dim)" [function] => flambeau::ops::weave::weave;
    "_cross_entropy(Tensor input, Tensor target, int ignore_index=-100)" [function] => loss::cross_entropy;
    "_cross_entropy_rows(Tensor input, Tensor target, int ignore_index=-100)" [function] => loss::cross_entropy_rows;
    "nn.functional.scaled_dot_product_attention(Tensor query, Tensor key, Tensor value, Tensor? attn_mask=None, float dropout_p=0.0, bool is_causal=False, float? scale=None, bool enable_gqa=False)" [function] => attention::scaled_dot_product_attention;
    "nn.functional.embedding(Tensor input, Tensor weight, int? padding_idx=None, float? max_norm=None, float norm_type=2.0, bool scale_grad_by_freq=False, bool sparse=False)" [function] => embedding;
    "embedding(Tensor weight, Tensor indices, int padding_idx=-1, bool scale_grad_by_freq=False, bool sparse=False)" [function] => |weight: &Tensor, indices: &Tensor, padding: i64, scale: bool, sparse: bool| embedding(indices, weight, (padding >= 0).then_some(padding), None, 2.0, scale, sparse);
    "rms_norm(Tensor input, int[] normalized_shape, Tensor? weight=None, float? eps=None)" [function alias(nn.functional.rms_norm)] => normalization::rms_norm;
    "prelu(Tensor input, Tensor weight)" [function method alias(nn.functional.prelu)] => activation::prelu;
    "nn.functional.rrelu(Tensor input, float lower=0.125, float upper=0.3333333333333333, bool training=False, bool inplace=False)" [function] => activation::rrelu;
    "rrelu(Tensor input, float lower=0.125, float upper=0.3333333333333333, bool training=False)" [function] => |x: &Tensor, lower: f64, upper: f64, training: bool| activation::rrelu(x, lower, upper, training, false);
    "rrelu_(Tensor input, float lower=0.125, float upper=0.3333333333333333, bool training=False)" [function] => |x: &Tensor, lower: f64, upper: f64, training: bool| activation::rrelu(x, lower, upper, training, true);
    "nn.functional.one_hot(Tensor tensor, int num_classes=-1)" [function] => indexing::one_hot;
}
