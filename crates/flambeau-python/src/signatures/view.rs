//! Signatures of views and of what rearranges elements.

use crate::types::MemoryFormat;
use flambeau::core::{err, Dims};
use flambeau::{DType, Result, Tensor};

fn to_core(f: MemoryFormat) -> view::MemoryFormat {
    f
}
fn copy_of(t: Result<Tensor>) -> Result<Tensor> {
    view::clone_as(&t?, view::MemoryFormat::Contiguous)
}
fn repeat_interleave(t: &Tensor, n: i64, dim: Option<i64>) -> Result<Tensor> {
    let (t, dim) = match dim {
        Some(d) => (t.clone(), d),
        None => (view::ravel(t)?, 0),
    };
    let d = flambeau::core::wrap_dim(dim, t.dim())? as i64;
    if n < 0 {
        return Err(err!(Runtime, "repeats can not be negative"));
    }
    let wide = view::unsqueeze(&t, d + 1)?;
    let mut sizes: Dims = wide.sizes();
    sizes[d as usize + 1] = n;
    view::flatten(&view::clone(&view::expand(&wide, &sizes)?)?, d, d + 1)
}
fn repeat_by(t: &Tensor, repeats: &Tensor, dim: Option<i64>) -> Result<Tensor> {
    let (t, dim) = match dim {
        Some(d) => (t.clone(), d),
        None => (view::ravel(t)?, 0),
    };
    if repeats.numel() == 1 {
        return repeat_interleave(&t, repeats.item()?.to_i64(), Some(dim));
    }
    let counts = repeats.to_vec::<i64>()?;
    if counts.len() as i64 != t.size(dim)? {
        return Err(err!(Runtime, "repeats must have the same size as input along dim, but got repeats.size(0) = {} and input.size({dim}) = {}", counts.len(), t.size(dim)?));
    }
    if counts.iter().any(|c| *c < 0) {
        return Err(err!(Runtime, "repeats can not be negative"));
    }
    let places: Vec<i64> =
        counts.iter().enumerate().flat_map(|(i, &c)| std::iter::repeat_n(i as i64, c as usize)).collect();
    let places = Tensor::from_slice(&places, &[places.len() as i64])?;
    indexing::index_select(&t, dim, &flambeau::ops::device::to_device(&places, t.device())?)
}
fn rot90(t: &Tensor, k: i64, dims: &[i64]) -> Result<Tensor> {
    if dims.len() != 2 {
        return Err(err!(Runtime, "expected total rotation dims == 2, but got dims = {}", dims.len()));
    }
    let n = t.dim();
    if n < 2 {
        return Err(err!(Runtime, "expected total dims >= 2, but got total dims = {n}"));
    }
    let (a, b) = (flambeau::core::wrap_dim(dims[0], n)? as i64, flambeau::core::wrap_dim(dims[1], n)? as i64);
    if a == b {
        return Err(err!(
            Runtime,
            "expected rotation dims to be different, but got dim0 = {} and dim1 = {}",
            dims[0],
            dims[1]
        ));
    }
    match k.rem_euclid(4) {
        1 => view::transpose(&view::flip(t, &[b])?, a, b),
        2 => view::flip(t, &[a, b]),
        3 => view::transpose(&view::flip(t, &[a])?, a, b),
        _ => view::clone(t),
    }
}
fn nsplit(t: &Tensor, n: i64, dim: i64, least: usize, name: &str) -> Result<Vec<Tensor>> {
    if t.dim() < least {
        return Err(err!(
            Runtime,
            "torch.{name} requires a tensor with at least {least} dimension, but got a tensor with {} dimensions!",
            t.dim()
        ));
    }
    let dim = if name == "hsplit" && t.dim() == 1 { 0 } else { dim };
    if n <= 0 || t.size(dim)? % n != 0 {
        return Err(err!(Runtime, "torch.{name} attempted to split along dimension {dim}, but the size of the dimension {} is not divisible by the split_size {n}!", t.size(dim)?));
    }
    view::tensor_split(t, n, dim)
}
fn nsplit_at(t: &Tensor, at: &[i64], dim: i64, least: usize, name: &str) -> Result<Vec<Tensor>> {
    if t.dim() < least {
        return Err(err!(
            Runtime,
            "torch.{name} requires a tensor with at least {least} dimension, but got a tensor with {} dimensions!",
            t.dim()
        ));
    }
    view::tensor_split_at(t, at, if name == "hsplit" && t.dim() == 1 { 0 } else { dim })
}
fn fill_diagonal_(t: &Tensor, value: flambeau::Number, wrap: bool) -> Result<Tensor> {
    let s = t.sizes();
    if s.len() < 2 {
        return Err(err!(Runtime, "dimensions must larger than 1"));
    }
    if s.len() > 2 && s.iter().any(|n| *n != s[0]) {
        return Err(err!(Runtime, "all dimensions of input must be of equal length"));
    }
    let st = t.strides();
    let step: i64 = st.iter().sum();
    let mut n = *s.iter().min().unwrap_or(&0);
    if wrap && s.len() == 2 && s[0] > s[1] + 1 {
        n = (s[0] * s[1] + s[1]) / (s[1] + 1);
        n = n.min((s[0] * s[1] - 1) / (s[1] + 1) + 1);
    }
    elementwise::fill_(&view::as_strided(t, &[n], &[step], Some(t.offset()))?, value)?;
    Ok(t.clone())
}
fn diag(t: &Tensor, k: i64) -> Result<Tensor> {
    match t.dim() {
        1 => diag_embed(t, k, 0, 1),
        2 => view::clone(&view::diagonal(t, k, 0, 1)?),
        n => Err(err!(Runtime, "diag(): Supports 1D or 2D tensors. Got {n}D")),
    }
}
fn diag_embed(t: &Tensor, k: i64, a: i64, b: i64) -> Result<Tensor> {
    let n = t.dim() + 1;
    let (a, b) = (flambeau::core::wrap_dim(a, n)?, flambeau::core::wrap_dim(b, n)?);
    if a == b {
        return Err(err!(Runtime, "diagonal dimensions cannot be identical {a}, {b}"));
    }
    let mut sizes = t.sizes();
    let size = sizes.pop().unwrap_or(1) + k.abs();
    for d in [a.min(b), a.max(b)] {
        sizes.insert(d, size);
    }
    let out = factory::zeros(&sizes, t.dtype(), t.device())?;
    elementwise::copy_(&view::diagonal(&out, k, a as i64, b as i64)?, t)?;
    Ok(out)
}

operators! { VIEW;
    "view(Tensor input, dtype dtype)" [method] => |t: &Tensor, d: DType| view::view_dtype(t, d);
    "view(Tensor input, int[*] size)" [method] => |t: &Tensor, s: &[i64]| view::view(t, s);
    "view_copy(Tensor input, int[*] size)" [function out] => |t: &Tensor, s: &[i64]| copy_of(view::view(t, s));
    "reshape(Tensor input, int[*] shape)" [function method] => |t: &Tensor, s: &[i64]| view::reshape(t, s);
    "view_as(Tensor input, Tensor other)" [method] => view::view_as;
    "reshape_as(Tensor input, Tensor other)" [method] => view::reshape_as;
    "expand(Tensor input, int[*] size, *, bool implicit=False)" [method] => |t: &Tensor, s: &[i64], _i: bool| view::expand(t, s);
    "expand_copy(Tensor input, int[*] size, *, bool implicit=False)" [function out] => |t: &Tensor, s: &[i64], _i: bool| copy_of(view::expand(t, s));
    "expand_as(Tensor input, Tensor other)" [method] => view::expand_as;
    "broadcast_to(Tensor input, int[*] size)" [function method] => |t: &Tensor, s: &[i64]| view::expand(t, s);
    "permute(Tensor input, int[*] dims)" [function method] => |t: &Tensor, d: &[i64]| view::permute(t, d);
    "permute_copy(Tensor input, int[*] dims)" [function out] => |t: &Tensor, d: &[i64]| copy_of(view::permute(t, d));
    "transpose(Tensor input, int dim0, int dim1)" [function method alias(swapaxes, swapdims)] => view::transpose;
    "transpose_copy(Tensor input, int dim0, int dim1)" [function out] => |t: &Tensor, a: i64, b: i64| copy_of(view::transpose(t, a, b));
    "transpose_(Tensor input, int dim0, int dim1)" [method alias(swapaxes_, swapdims_)] => view::transpose_;
    "t(Tensor input)" [function method] => view::t;
    "t_copy(Tensor input)" [function out] => |t: &Tensor| copy_of(view::t(t));
    "t_(Tensor input)" [method] => view::t_;
    "adjoint(Tensor input)" [function method] => view::mh;
    "T(Tensor input)" [property] => view::numpy_t;
    "mT(Tensor input)" [property] => view::mt;
    "mH(Tensor input)" [property] => view::mh;
    "H(Tensor input)" [property] => |t: &Tensor| {
        if t.dim() != 2 && t.dim() != 0 {
            return Err(err!(Runtime, "tensor.H is only supported on matrices (2-D tensors). Got {}-D tensor.", t.dim()));
        }
        view::mh(t)
    };
    "real(Tensor input)" [function property] => view::real;
    "imag(Tensor input)" [function property] => view::imag;
    "view_as_real(Tensor input)" [function method] => view::view_as_real;
    "view_as_complex(Tensor input)" [function method] => view::view_as_complex;
    "select(Tensor input, int dim, int index)" [function method] => view::select;
    "narrow(Tensor input, int dim, int start, int length)" [function method] => view::narrow;
    "narrow(Tensor input, int dim, Tensor start, int length)" [function method] => |t: &Tensor, d: i64, s: &Tensor, n: i64| {
        if s.dim() != 0 || !s.dtype().is_integral(false) {
            return Err(err!(Runtime, "start must be an 0-dim integral Tensor."));
        }
        view::narrow(t, d, s.item()?.to_i64(), n)
    };
    "narrow_copy(Tensor input, int dim, int start, int length)" [function method out] => |t: &Tensor, d: i64, s: i64, n: i64| {
        let rank = t.dim() as i64;
        if rank > 0 && d >= rank {
            return Err(err!(Runtime, "narrow_copy: dim {d} is out of range for a tensor of {rank} dimensions"));
        }
        copy_of(view::narrow(t, d, s, n))
    };
    "squeeze(Tensor input)" [function method] => |t: &Tensor| view::squeeze(t, None);
    "squeeze(Tensor input, int[] dim)" [function method] => |t: &Tensor, d: &[i64]| view::squeeze(t, Some(d));
    "squeeze_copy(Tensor input)" [function out] => |t: &Tensor| copy_of(view::squeeze(t, None));
    "squeeze_copy(Tensor input, int[] dim)" [function out] => |t: &Tensor, d: &[i64]| copy_of(view::squeeze(t, Some(d)));
    "squeeze_(Tensor input)" [method] => |t: &Tensor| view::squeeze_(t, None);
    "squeeze_(Tensor input, int[] dim)" [method] => |t: &Tensor, d: &[i64]| view::squeeze_(t, Some(d));
    "unsqueeze(Tensor input, int dim)" [function method] => view::unsqueeze;
    "unsqueeze_copy(Tensor input, int dim)" [function out] => |t: &Tensor, d: i64| copy_of(view::unsqueeze(t, d));
    "unsqueeze_(Tensor input, int dim)" [method] => view::unsqueeze_;
    "diagonal(Tensor input, int offset=0, int dim1=0, int dim2=1)" [function method] => view::diagonal;
    "diagonal_copy(Tensor input, int offset=0, int dim1=0, int dim2=1)" [function out] => |t: &Tensor, o: i64, a: i64, b: i64| copy_of(view::diagonal(t, o, a, b));
    "linalg.diagonal(Tensor A, *, int offset=0, int dim1=-2, int dim2=-1)" [function] => view::diagonal;
    "unfold(Tensor input, int dimension, int size, int step)" [method] => view::unfold;
    "unfold_copy(Tensor input, int dimension, int size, int step)" [function out] => |t: &Tensor, d: i64, s: i64, k: i64| copy_of(view::unfold(t, d, s, k));
    "as_strided(Tensor input, int[*] size, int[*] stride, int? storage_offset=None)" [function method] => view::as_strided;
    "as_strided_(Tensor input, int[*] size, int[*] stride, int? storage_offset=None)" [function method] => view::as_strided_;
    "as_strided_copy(Tensor input, int[*] size, int[*] stride, int? storage_offset=None)" [function out] => |t: &Tensor, s: &[i64], k: &[i64], o: Option<i64>| copy_of(view::as_strided(t, s, k, o));
    "alias_copy(Tensor input)" [function out] => view::clone;
    "flatten(Tensor input, int start_dim=0, int end_dim=-1)" [function method] => view::flatten;
    "ravel(Tensor input)" [function method] => view::ravel;
    "unflatten(Tensor input, int dim, int[*] sizes)" [function method] => view::unflatten;
    "movedim(Tensor input, int[] source, int[] destination)" [function method alias(moveaxis)] => view::movedim;
    "split(Tensor input, int split_size, int dim=0)" [function method] => view::split;
    "split(Tensor input, int[] split_size, int dim=0)" [function method] => view::split_with_sizes;
    "split(Tensor tensor, int split_size_or_sections, int dim=0)" [function] => view::split;
    "split(Tensor tensor, int[] split_size_or_sections, int dim=0)" [function] => view::split_with_sizes;
    "unsafe_split(Tensor input, int split_size, int dim=0)" [function method] => view::split;
    "split_with_sizes(Tensor input, int[] split_sizes, int dim=0)" [function method] => view::split_with_sizes;
    "split_with_sizes_copy(Tensor input, int[] split_sizes, int dim=0)" [function out] => |t: &Tensor, s: &[i64], d: i64| -> Result<Vec<Tensor>> { view::split_with_sizes(t, s, d)?.iter().map(view::clone).collect() };
    "chunk(Tensor input, int chunks, int dim=0)" [function method alias(unsafe_chunk)] => view::chunk;
    "tensor_split(Tensor input, int sections, int dim=0)" [function method] => view::tensor_split;
    "tensor_split(Tensor input, int[] indices, int dim=0)" [function method] => view::tensor_split_at;
    "tensor_split(Tensor input, Tensor tensor_indices_or_sections, int dim=0)" [function method] => |t: &Tensor, i: &Tensor, d: i64| if i.dim() == 0 { view::tensor_split(t, i.item()?.to_i64(), d) } else { view::tensor_split_at(t, &i.to_vec::<i64>()?, d) };
    "hsplit(Tensor input, int sections)" [function method] => |t: &Tensor, n: i64| nsplit(t, n, 1, 1, "hsplit");
    "hsplit(Tensor input, int[] indices)" [function method] => |t: &Tensor, n: &[i64]| nsplit_at(t, n, 1, 1, "hsplit");
    "vsplit(Tensor input, int sections)" [function method] => |t: &Tensor, n: i64| nsplit(t, n, 0, 2, "vsplit");
    "vsplit(Tensor input, int[] indices)" [function method] => |t: &Tensor, n: &[i64]| nsplit_at(t, n, 0, 2, "vsplit");
    "dsplit(Tensor input, int sections)" [function method] => |t: &Tensor, n: i64| nsplit(t, n, 2, 3, "dsplit");
    "dsplit(Tensor input, int[] indices)" [function method] => |t: &Tensor, n: &[i64]| nsplit_at(t, n, 2, 3, "dsplit");
    "unbind(Tensor input, int dim=0)" [function method] => view::unbind;
    "unbind_copy(Tensor input, int dim=0)" [function out] => |t: &Tensor, d: i64| -> Result<Vec<Tensor>> { view::unbind(t, d)?.iter().map(view::clone).collect() };
    "clone(Tensor input, *, memory_format? memory_format=None)" [function method] => |t: &Tensor, f: Option<MemoryFormat>| view::clone_as(t, f.map_or(view::MemoryFormat::Preserve, to_core));
    "contiguous(Tensor input, memory_format? memory_format=None)" [method] => |t: &Tensor, f: Option<MemoryFormat>| view::contiguous_as(t, f.map_or(view::MemoryFormat::Contiguous, to_core));
    "resize_(Tensor input, int[*] size, *, memory_format? memory_format=None)" [method] => |t: &Tensor, s: &[i64], _f: Option<MemoryFormat>| view::resize_(t, s);
    "resize_as_(Tensor input, Tensor the_template, *, memory_format? memory_format=None)" [function method] => |t: &Tensor, o: &Tensor, _f: Option<MemoryFormat>| view::resize_as_(t, o);
    "flip(Tensor input, *, int[]? dims=None)" [function] => |t: &Tensor, d: Option<&[i64]>| match d {
        Some(d) => view::flip(t, d),
        None => view::flip(t, &(0..t.dim() as i64).collect::<Vec<_>>()),
    };
    "flip(Tensor input, int[*] dims)" [function method] => |t: &Tensor, d: &[i64]| view::flip(t, d);
    "fliplr(Tensor input)" [function method] => |t: &Tensor| if t.dim() < 2 { Err(err!(Runtime, "Input must be >= 2-d.")) } else { view::flip(t, &[1]) };
    "flipud(Tensor input)" [function method] => |t: &Tensor| if t.dim() < 1 { Err(err!(Runtime, "Input must be >= 1-d.")) } else { view::flip(t, &[0]) };
    "roll(Tensor input, int[] shifts, int[]? dims=None)" [function method] => |t: &Tensor, s: &[i64], d: Option<&[i64]>| view::roll(t, s, d.unwrap_or(&[]));
    "rot90(Tensor input, int k=1, int[*] dims=[0, 1])" [function method] => rot90;
    "repeat(Tensor input, int[*] repeats)" [method] => |t: &Tensor, r: &[i64]| view::repeat(t, r);
    "tile(Tensor input, int[*] dims)" [function method] => |t: &Tensor, r: &[i64]| view::tile(t, r);
    "repeat_interleave(Tensor input, int repeats, int? dim=None, *, int? output_size=None)" [function method] => |t: &Tensor, n: i64, d: Option<i64>, _o: Option<i64>| repeat_interleave(t, n, d);
    "repeat_interleave(Tensor input, Tensor repeats, int? dim=None, *, int? output_size=None)" [function method] => |t: &Tensor, n: &Tensor, d: Option<i64>, _o: Option<i64>| repeat_by(t, n, d);
    "repeat_interleave(Tensor repeats, *, int? output_size=None)" [function] => |r: &Tensor, _o: Option<i64>| repeat_by(&factory::arange_to(r.numel(), r.device())?, r, Some(0));
    "fill_diagonal_(Tensor input, Number fill_value, bool wrap=False)" [method] => fill_diagonal_;
    "diag(Tensor input, int diagonal=0)" [function method out] => diag;
    "diag_embed(Tensor input, int offset=0, int dim1=-2, int dim2=-1)" [function method] => diag_embed;
    "diagflat(Tensor input, int offset=0)" [function method] => |t: &Tensor, k: i64| diag_embed(&view::ravel(t)?, k, 0, 1);
}
