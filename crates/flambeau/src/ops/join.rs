//! Joining tensors.

use crate::apply::{apply1, Dest};
use crate::autograd::node::Vjp;
use crate::ops::elementwise as e;
use crate::ops::{factory, view};
use crate::primitive::*;
use crate::tensor::{Meta, Tensor};
use flambeau_core::*;

/// Tensors one after the other along a dimension.
#[derive(Clone)]
struct Cat(usize);
impl Primitive for Cat {
    fn name(&self) -> &'static str {
        "cat"
    }
    fn infer(&self, x: &[&Meta], out: &mut Draft) -> Result<()> {
        let d = self.0;
        let mut dtype = x[0].dtype;
        let mut sizes = copy_dims(&x[0].sizes);
        for (i, m) in x.iter().enumerate().skip(1) {
            dtype = promote_types(dtype, m.dtype);
            ensure!(
                m.dim() == sizes.len(),
                Runtime,
                "Tensors must have same number of dimensions: got {} and {}",
                sizes.len(),
                m.dim()
            );
            for k in 0..sizes.len() {
                ensure!(
                    k == d || m.sizes[k] == sizes[k],
                    Runtime,
                    "Sizes of tensors must match except in dimension {d}. Expected size {} but got size {} for tensor number {i} in \
                     the list.",
                    sizes[k],
                    m.sizes[k]
                );
            }
            sizes[d] += m.sizes[d];
        }
        let last = x.iter().all(|m| m.dim() == 4 && is_channels_last(&m.sizes, &m.strides) && !m.is_contiguous());
        if last {
            let strides = channels_last_strides(&sizes);
            out.push_strided(sizes, strides, dtype);
        } else {
            out.push(sizes, dtype);
        }
        Ok(())
    }
    fn run(&self, on: &dyn Backend, x: &[Operand], out: &[Operand]) -> Result<()> {
        let out = &out[0];
        let mut start = 0;
        for o in x {
            let n = o.sizes[self.0];
            let at = start * out.strides[self.0] * out.dtype.size() as i64;
            let part = Operand { ptr: out.ptr.wrapping_offset(at as isize), sizes: o.sizes, ..*out };
            if o.numel() > 0 {
                let inputs = [Input::Operand(o.dtype.class())];
                on.map(&Program { inputs: &inputs, steps: &[], results: &[0] }, &[*o], &[part])?;
            }
            start += n;
        }
        Ok(())
    }
    fn vjp(&self, cx: &Vjp, g: &[Option<Tensor>]) -> Result<Gradients> {
        let mut grads: Gradients = SmallVec::from_elem(None, cx.len());
        let Some(g) = &g[0] else { return Ok(grads) };
        let mut start = 0;
        for i in 0..cx.len() {
            let info = cx.info(i);
            let n = info.sizes[self.0];
            if cx.needs(i.min(15)) {
                grads[i] = Some(e::convert_gradient(&view::narrow(g, self.0 as i64, start, n)?, info.dtype)?);
            }
            start += n;
        }
        Ok(grads)
    }
    fn key(&self, key: &mut PlanKey) {
        key.word(self.0 as u64);
    }
    fn sparse(&self, x: &[&Tensor]) -> Option<Result<Tensor>> {
        Some(crate::ops::sparse::cat(x, self.0))
    }
    crate::shareable!();
}

/// Joins along an existing dimension.
///
/// # Errors
/// `Runtime` for an empty list or sizes that differ elsewhere.
pub fn cat(tensors: &[Tensor], dim: i64) -> Result<Tensor> {
    cat_to(tensors, dim, Dest::New)
}
/// [`cat`] with a destination.
///
/// # Errors
/// As [`cat`].
pub fn cat_to(tensors: &[Tensor], dim: i64, dest: Dest) -> Result<Tensor> {
    ensure!(!tensors.is_empty(), Value, "torch.cat(): expected a non-empty list of Tensors");
    for (i, t) in tensors.iter().enumerate() {
        ensure!(t.dim() > 0, Runtime, "zero-dimensional tensor (at position {i}) cannot be concatenated");
    }
    // Empty 1-d tensors join anything.
    let skip = |t: &&Tensor| !(t.dim() == 1 && t.numel() == 0 && tensors.iter().any(|o| o.dim() != 1));
    let kept: SmallVec<[&Tensor; 4]> = tensors.iter().filter(skip).collect();
    let d = wrap_dim(dim, kept[0].dim())?;
    apply1(Cat(d), &kept, dest)
}
/// Joins along a new dimension.
///
/// # Errors
/// `Runtime` for an empty list or sizes that differ.
pub fn stack(tensors: &[Tensor], dim: i64) -> Result<Tensor> {
    ensure!(!tensors.is_empty(), Runtime, "stack expects a non-empty TensorList");
    let sizes = tensors[0].sizes();
    let d = wrap_dim(dim, sizes.len() + 1)? as i64;
    let mut wide = Vec::with_capacity(tensors.len());
    for (i, t) in tensors.iter().enumerate() {
        let other = t.sizes();
        ensure!(
            other == sizes,
            Runtime,
            "stack expects each tensor to be equal size, but got {} at entry 0 and {} at entry {i}",
            Shape(&sizes),
            Shape(&other)
        );
        wide.push(view::unsqueeze(t, d)?);
    }
    cat(&wide, d)
}
/// Tensors of at least `n` dimensions, as NumPy's `atleast_*d`.
///
/// # Errors
/// None in practice.
pub fn atleast(t: &Tensor, n: usize) -> Result<Tensor> {
    let d = t.dim();
    match (n, d) {
        (1, 0) => view::reshape(t, &[1]),
        (2, 0) => view::reshape(t, &[1, 1]),
        (2, 1) => view::unsqueeze(t, 0),
        (3, 0) => view::reshape(t, &[1, 1, 1]),
        (3, 1) => view::unsqueeze(&view::unsqueeze(t, 0)?, -1),
        (3, 2) => view::unsqueeze(t, -1),
        _ => Ok(t.clone()),
    }
}
/// Joins along the first dimension of 1-d tensors, the second of others.
///
/// # Errors
/// As [`cat`].
pub fn hstack(tensors: &[Tensor]) -> Result<Tensor> {
    ensure!(!tensors.is_empty(), Runtime, "hstack expects a non-empty TensorList");
    let wide: Vec<Tensor> = tensors.iter().map(|t| atleast(t, 1)).collect::<Result<_>>()?;
    cat(&wide, if wide[0].dim() == 1 { 0 } else { 1 })
}
/// Joins as rows.
///
/// # Errors
/// As [`cat`].
pub fn vstack(tensors: &[Tensor]) -> Result<Tensor> {
    ensure!(!tensors.is_empty(), Runtime, "vstack expects a non-empty TensorList");
    cat(&tensors.iter().map(|t| atleast(t, 2)).collect::<Result<Vec<_>>>()?, 0)
}
/// Joins along the third dimension.
///
/// # Errors
/// As [`cat`].
pub fn dstack(tensors: &[Tensor]) -> Result<Tensor> {
    ensure!(!tensors.is_empty(), Runtime, "dstack expects a non-empty TensorList");
    cat(&tensors.iter().map(|t| atleast(t, 3)).collect::<Result<Vec<_>>>()?, 2)
}
/// 1-d tensors as columns.
///
/// # Errors
/// As [`cat`].
pub fn column_stack(tensors: &[Tensor]) -> Result<Tensor> {
    ensure!(!tensors.is_empty(), Runtime, "column_stack expects a non-empty TensorList");
    let wide = tensors
        .iter()
        .map(|t| if t.dim() <= 1 { view::reshape(t, &[t.numel(), 1]) } else { Ok(t.clone()) })
        .collect::<Result<Vec<_>>>()?;
    hstack(&wide)
}
/// All tensors at their common broadcast sizes.
///
/// # Errors
/// `Runtime` when they do not broadcast.
pub fn broadcast_tensors(tensors: &[Tensor]) -> Result<Vec<Tensor>> {
    let mut sizes = Dims::new();
    for t in tensors {
        sizes = broadcast_shapes(&sizes, &t.sizes())?;
    }
    // One that has the shape already is itself, as in PyTorch: a leaf stays a leaf.
    tensors.iter().map(|t| if t.sizes() == sizes { Ok(t.clone()) } else { view::expand(t, &sizes) }).collect()
}
/// Coordinate grids of 1-d tensors.
///
/// # Errors
/// `Runtime` for an unknown indexing.
pub fn meshgrid(tensors: &[Tensor], indexing: &str) -> Result<Vec<Tensor>> {
    ensure!(!tensors.is_empty(), Runtime, "meshgrid expects a non-empty TensorList");
    ensure!(
        matches!(indexing, "ij" | "xy"),
        Runtime,
        "torch.meshgrid: indexing must be one of \"xy\" or \"ij\", but received: {indexing}"
    );
    for t in tensors {
        ensure!(
            t.dim() <= 1,
            Runtime,
            "torch.meshgrid: Expected 0D or 1D tensor in the tensor list but got: {}",
            t.dim()
        );
    }
    let mut list: Vec<Tensor> = tensors.to_vec();
    let swap = indexing == "xy" && list.len() >= 2;
    if swap {
        list.swap(0, 1);
    }
    let sizes: Dims = list.iter().map(|t| t.numel()).collect();
    let mut out = Vec::new();
    for (i, t) in list.iter().enumerate() {
        let mut shape: Dims = SmallVec::from_elem(1, sizes.len());
        shape[i] = sizes[i];
        out.push(view::expand(&view::reshape(t, &shape)?, &sizes)?);
    }
    if swap {
        // The first two were exchanged: the grids already lie as "xy" wants them.
        out.swap(0, 1);
    }
    Ok(out)
}
/// Borders of a constant around the last dimensions: (left, right) pairs from the last dimension backwards; negative ones crop.
///
/// # Errors
/// `Runtime` for an odd or too long list.
pub fn constant_pad_nd(t: &Tensor, pad: &[i64], value: Number) -> Result<Tensor> {
    let n = t.dim();
    ensure!(pad.len().is_multiple_of(2), Runtime, "Length of pad must be even but instead it equals {}", pad.len());
    ensure!(pad.len() / 2 <= n, Runtime, "Length of pad should be no more than twice the number of dimensions of the input. Pad length is {} while the input has {n} dimensions.", pad.len());
    let mut inner = t.clone();
    let mut sizes = t.sizes();
    for (k, p) in pad.chunks_exact(2).enumerate() {
        let d = n - 1 - k;
        let size = sizes[d];
        ensure!(
            size + p[0] + p[1] >= 0,
            Runtime,
            "The input size {size}, plus negative padding {} and {} resulted in a negative output size, which is invalid. Check \
             dimension {d} of your input.",
            p[0],
            p[1]
        );
        sizes[d] = size + p[0] + p[1];
        let (lo, hi) = ((-p[0]).max(0), size - (-p[1]).max(0));
        inner = view::slice(&inner, d as i64, lo, hi, 1)?;
    }
    if pad.iter().all(|p| *p <= 0) {
        return view::clone(&inner);
    }
    let out = factory::full(&sizes, value, t.dtype(), t.device())?;
    let mut window = out.clone();
    for (k, p) in pad.chunks_exact(2).enumerate() {
        let d = (n - 1 - k) as i64;
        let end = window.size(d)? - p[1].max(0);
        window = view::slice(&window, d, p[0].max(0), end, 1)?;
    }
    if t.as_batched().is_some() {
        // Examples of a batch: join borders instead of writing into a shared tensor.
        let mut out = inner;
        for (k, p) in pad.chunks_exact(2).enumerate() {
            let d = (n - 1 - k) as i64;
            let mut parts = Vec::new();
            let border = |w: i64, out: &Tensor| -> Result<Tensor> {
                let mut s = out.sizes();
                s[d as usize] = w;
                factory::full(&s, value, t.dtype(), t.device())
            };
            if p[0] > 0 {
                parts.push(border(p[0], &out)?);
            }
            parts.push(out.clone());
            if p[1] > 0 {
                parts.push(border(p[1], &out)?);
            }
            out = cat(&parts, d)?;
        }
        return Ok(out);
    }
    e::copy_(&window, &inner)?;
    Ok(out)
}
/// Matrices along a diagonal.
///
/// # Errors
/// `Runtime` for tensors of more than two dimensions.
pub fn block_diag(tensors: &[Tensor]) -> Result<Tensor> {
    let blocks: Vec<Tensor> = tensors
        .iter()
        .map(|t| {
            ensure!(
                t.dim() <= 2,
                Runtime,
                "torch.block_diag: Input tensors must have 2 or fewer dimensions. Input has {} dimensions",
                t.dim()
            );
            atleast(t, 2)
        })
        .collect::<Result<_>>()?;
    let width: i64 = blocks.iter().map(|b| b.sizes()[1]).sum();
    let mut left = 0;
    let mut rows = Vec::new();
    for b in &blocks {
        let w = b.sizes()[1];
        rows.push(constant_pad_nd(b, &[left, width - left - w], Number::Int(0))?);
        left += w;
    }
    cat(&rows, 0)
}
