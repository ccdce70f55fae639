//! Views: metadata over shared memory. Each is a small primitive whose `infer` can be replayed on any base of the same
//! sizes, and whose gradient is the view's transpose.

use crate::apply::{apply, apply1, apply_view, check_inplace, make_view, Dest};
use crate::autograd::node::{Edge, InputInfo, Node, Vjp};
use crate::autograd::view::{extend_chain, Link};
use crate::ops::elementwise as e;
use crate::ops::factory;
use crate::primitive::*;
use crate::tensor::{Meta, Tensor, BATCHED, CONJ, NEG, SPARSE, VIEW};
use flambeau_core::*;
use std::sync::Arc;

/// Orders of memory that a caller can ask for; part of the core's vocabulary.
pub use flambeau_core::MemoryFormat;

/// A view operator with its parameters.
#[derive(Clone, Debug, PartialEq)]
pub enum View {
    /// New sizes over the same elements.
    Reshape(Dims),
    Expand(Dims),
    Permute(SmallVec<[usize; 5]>),
    /// One index of a dimension, which goes.
    Select(usize, i64),
    /// start, end (exclusive), step of a dimension; resolved.
    Slice(usize, i64, i64, i64),
    Squeeze(SmallVec<[usize; 5]>),
    Unsqueeze(usize),
    /// offset, dim1, dim2: the diagonal becomes the last dimension.
    Diagonal(i64, usize, usize),
    /// dim, size, step: windows become the last dimension.
    Unfold(usize, i64, i64),
    AsStrided(Box<Strided>),
    /// Several of the above that say of each dimension what is taken of it (`x[1:, None, 2]`), one after the other.
    Index(Vec<View>),
    /// The same layout.
    Alias,
    /// Complex numbers as pairs of reals in a last dimension of 2, and back.
    AsReal,
    AsComplex,
    /// Real (0) or imaginary (1) parts of complex numbers.
    Part(i64),
    /// Other dtype of the same bits.
    Bits(DType),
    /// The conjugates, or the negated values, of the same memory.
    Lazy(u8),
}

/// A layout over a tensor's storage, whatever the tensor's own.
#[derive(Clone, Debug, PartialEq)]
pub struct Strided {
    sizes: Dims,
    strides: Dims,
    offset: i64,
    /// Of the tensor's own layout, for the gradient.
    from_strides: Dims,
    from_offset: i64,
}

/// Strides for `sizes` over the elements of an existing layout, if that is possible without a copy.
pub fn view_strides(old_sizes: &[i64], old_strides: &[i64], sizes: &[i64]) -> Option<Dims> {
    if numel(old_sizes) == 0 {
        return Some(contiguous_strides(sizes));
    }
    let mut strides: Dims = SmallVec::from_elem(1, sizes.len());
    let mut d = sizes.len() as i64 - 1;
    let mut chunk = 1;
    let mut base = *old_strides.last().unwrap_or(&1);
    let mut view_numel = 1;
    let mut k = old_sizes.len();
    if k == 0 {
        return Some(strides);
    }
    while k > 0 {
        k -= 1;
        chunk *= old_sizes[k];
        if k == 0 || (old_sizes[k - 1] != 1 && old_strides[k - 1] != chunk * base) {
            while d >= 0 && (view_numel < chunk || sizes[d as usize] == 1) {
                strides[d as usize] = view_numel * base;
                view_numel *= sizes[d as usize];
                d -= 1;
            }
            if view_numel != chunk {
                return None;
            }
            if k > 0 {
                base = old_strides[k - 1];
                chunk = 1;
                view_numel = 1;
            }
        }
    }
    (d == -1).then_some(strides)
}

/// Sizes with one -1 worked out.
///
/// # Errors
/// `Runtime` when the sizes do not hold the elements.
pub fn infer_size(sizes: &[i64], n: i64) -> Result<Dims> {
    let mut out = Dims::from_slice(sizes);
    let mut known = 1i64;
    let mut hole = None;
    for (i, &s) in sizes.iter().enumerate() {
        if s == -1 {
            ensure!(hole.is_none(), Runtime, "only one dimension can be inferred");
            hole = Some(i);
        } else {
            ensure!(s >= 0, Runtime, "invalid shape dimension {s}");
            known = known
                .checked_mul(s)
                .ok_or_else(|| err!(Runtime, "shape '{}' is invalid for input of size {n}", Shape(sizes)))?;
        }
    }
    if let Some(i) = hole {
        ensure!(
            known != 0,
            Runtime,
            "cannot reshape tensor of 0 elements into shape {} because the unspecified dimension size -1 can be any value and \
             is ambiguous",
            Shape(sizes)
        );
        ensure!(n % known == 0, Runtime, "shape '{}' is invalid for input of size {n}", Shape(sizes));
        out[i] = n / known;
    } else {
        ensure!(known == n, Runtime, "shape '{}' is invalid for input of size {n}", Shape(sizes));
    }
    Ok(out)
}

impl Primitive for View {
    fn name(&self) -> &'static str {
        match self {
            View::Reshape(_) => "view",
            View::Expand(_) => "expand",
            View::Permute(_) => "permute",
            View::Select(..) => "select",
            View::Slice(..) => "slice",
            View::Squeeze(_) => "squeeze",
            View::Unsqueeze(_) => "unsqueeze",
            View::Diagonal(..) => "diagonal",
            View::Unfold(..) => "unfold",
            View::AsStrided(_) => "as_strided",
            // As if each step were a view of its own.
            View::Index(steps) => steps.last().map_or("alias", |step| step.name()),
            View::Alias => "alias",
            View::AsReal => "view_as_real",
            View::AsComplex => "view_as_complex",
            View::Part(0) => "real",
            View::Part(_) => "imag",
            View::Bits(_) => "view",
            View::Lazy(CONJ) => "conj",
            View::Lazy(_) => "neg_view",
        }
    }
    fn infer(&self, x: &[&Meta], out: &mut Draft) -> Result<()> {
        let mut m = x[0].clone();
        self.draw(&mut m)?;
        out.push_view(m.sizes, m.strides, m.offset, m.dtype);
        out.outputs[0].lazy = Some(m.lazy);
        Ok(())
    }
    fn run(&self, _: &dyn Backend, _: &[Operand], _: &[Operand]) -> Result<()> {
        Ok(())
    }
    fn effect(&self) -> Effect {
        Effect::View
    }
    fn differentiable(&self) -> bool {
        !matches!(self, View::Bits(_))
    }
    fn vjp(&self, cx: &Vjp, g: &[Option<Tensor>]) -> Result<Gradients> {
        let Some(g) = &g[0] else { return Ok(SmallVec::from_iter([None])) };
        let info = cx.info(0);
        let zeros = || factory::zeros(&info.sizes, g.dtype(), g.device());
        // Writes g into zeros through the same view.
        let embed = |view: &View| -> Result<Tensor> {
            let z = zeros()?;
            let part = apply1(view.clone(), &[&z], Dest::New)?;
            e::copy_(&part, g)?;
            Ok(z)
        };
        let out = match self {
            View::Reshape(_) => reshape(g, &info.sizes)?,
            View::Expand(_) => crate::ops::reduction::sum_to_size(g, &info.sizes)?,
            View::Permute(order) => {
                let mut back: SmallVec<[usize; 5]> = SmallVec::from_elem(0, order.len());
                order.iter().enumerate().for_each(|(i, &d)| back[d] = i);
                apply1(View::Permute(back), &[g], Dest::New)?
            }
            View::Squeeze(_) => reshape(g, &info.sizes)?,
            View::Unsqueeze(d) => apply1(View::Squeeze(SmallVec::from_iter([*d])), &[g], Dest::New)?,
            View::Alias => g.clone(),
            View::Select(..) | View::Slice(..) | View::Diagonal(..) | View::Index(_) => embed(self)?,
            View::Unfold(d, size, step) => {
                // Windows overlap: add one offset of the windows at a time.
                let z = zeros()?;
                let rank = info.sizes.len();
                if rank == 0 {
                    return Ok(SmallVec::from_iter([Some(reshape(g, &[])?)]));
                }
                let windows = (info.sizes[*d] - size) / step + 1;
                for k in 0..*size {
                    let places = slice(&z, *d as i64, k, k + (windows - 1) * step + 1, *step)?;
                    e::add_(&places, &select(g, -1, k)?)?;
                }
                z
            }
            View::AsStrided(to) => as_strided_grad(g, info, to)?,
            View::AsReal => apply1(View::AsComplex, &[&contiguous(g)?], Dest::New)?,
            View::AsComplex => apply1(View::AsReal, &[&resolve(g)?], Dest::New)?,
            // In memory of its own: the cotangent may be the caller's.
            View::Lazy(CONJ) => e::conj_physical(g)?,
            View::Lazy(_) => e::neg(g)?,
            View::Part(k) => {
                let z = factory::zeros(&info.sizes, info.dtype, g.device())?;
                e::copy_(&apply1(View::Part(*k), &[&z], Dest::New)?, g)?;
                z
            }
            View::Bits(_) => return Ok(SmallVec::from_iter([None])),
        };
        Ok(SmallVec::from_iter([Some(out)]))
    }
    fn batch(&self, x: &[(Tensor, Option<usize>)], _level: u32) -> Option<Result<SmallVec<[(Tensor, usize); 2]>>> {
        let (t, dim) = &x[0];
        Some(self.of_batch(t, (*dim)?).map(|t| SmallVec::from_iter([(t, 0)])))
    }
    fn key(&self, key: &mut PlanKey) {
        // Views are not recorded.
        key.word(0);
    }
    fn sparse(&self, x: &[&Tensor]) -> Option<Result<Tensor>> {
        crate::ops::sparse::view(self, x[0])
    }
    crate::shareable!();
}

impl View {
    /// Makes this view's layout of its operand's.
    ///
    /// # Errors
    /// `Runtime` where the layout does not allow the view.
    pub(crate) fn draw(&self, m: &mut Meta) -> Result<()> {
        if let View::Index(steps) = self {
            return steps.iter().try_for_each(|step| step.draw(m));
        }
        let Meta { sizes, strides, offset, dtype, storage, lazy, .. } = m;
        match self {
            View::Reshape(to) => {
                let Some(s) = view_strides(sizes, strides, to) else {
                    bail!(
                        Runtime,
                        "view size is not compatible with input tensor's size and stride (at least one dimension spans across \
                         two contiguous subspaces). Use .reshape(...) instead."
                    );
                };
                (*sizes, *strides) = (copy_dims(to), s);
            }
            View::Expand(to) => {
                let lead = to.len() - sizes.len();
                let mut expanded = Dims::from_elem(0, to.len());
                for d in 0..sizes.len() {
                    if sizes[d] == to[lead + d] {
                        expanded[lead + d] = strides[d];
                    }
                }
                (*sizes, *strides) = (copy_dims(to), expanded);
            }
            View::Permute(order) => {
                let (old_sizes, old_strides) = (copy_dims(sizes), copy_dims(strides));
                for (to, &from) in order.iter().enumerate() {
                    (sizes[to], strides[to]) = (old_sizes[from], old_strides[from]);
                }
            }
            View::Select(d, i) => {
                *offset += i * strides[*d];
                sizes.remove(*d);
                strides.remove(*d);
            }
            View::Slice(d, start, end, step) => {
                *offset += start * strides[*d];
                sizes[*d] = ((end - start).max(0) + step - 1) / step;
                strides[*d] *= step;
            }
            View::Squeeze(dims) => {
                for &d in dims.iter().rev() {
                    sizes.remove(d);
                    strides.remove(d);
                }
            }
            View::Unsqueeze(d) => {
                let stride = if *d < sizes.len() { sizes[*d] * strides[*d] } else { 1 };
                sizes.insert(*d, 1);
                strides.insert(*d, stride);
            }
            View::Diagonal(k, a, b) => {
                let n = if *k >= 0 { sizes[*a].min(sizes[*b] - k) } else { (sizes[*a] + k).min(sizes[*b]) }.max(0);
                if n > 0 {
                    *offset += if *k >= 0 { k * strides[*b] } else { -k * strides[*a] };
                }
                let stride = strides[*a] + strides[*b];
                for d in [a.max(b), a.min(b)] {
                    sizes.remove(*d);
                    strides.remove(*d);
                }
                sizes.push(n);
                strides.push(stride);
            }
            View::Unfold(d, size, step) => {
                let stride = strides.get(*d).copied().unwrap_or(1);
                if *d < sizes.len() {
                    sizes[*d] = (sizes[*d] - size) / step + 1;
                    strides[*d] *= step;
                }
                sizes.push(*size);
                strides.push(stride);
            }
            View::AsStrided(to) => {
                (*sizes, *strides, *offset) = (copy_dims(&to.sizes), copy_dims(&to.strides), to.offset);
                let o = to.offset;
                let end = (i128::from(o) + wide_extent(sizes, strides)) * dtype.size() as i128;
                ensure!(
                    end <= storage.nbytes() as i128,
                    Runtime,
                    "setStorage: sizes {}, strides {}, storage offset {o}, and itemsize {} requiring a storage size of {end} are \
                     out of bounds for storage of size {}",
                    Shape(sizes),
                    Shape(strides),
                    dtype.size(),
                    storage.nbytes()
                );
            }
            View::Alias | View::Index(_) => {}
            View::AsReal => {
                ensure!(
                    *lazy & CONJ == 0,
                    Runtime,
                    "view_as_real: the tensor is conjugated lazily, which pairs of reals cannot be; use resolve_conj() first (the \
                     result then has memory of its own)"
                );
                strides.iter_mut().for_each(|s| *s *= 2);
                *offset *= 2;
                sizes.push(2);
                strides.push(1);
                *dtype = dtype.to_real();
            }
            View::AsComplex => {
                ensure!(sizes.last() == Some(&2), Runtime, "Tensor must have a last dimension of size 2");
                ensure!(strides.last() == Some(&1), Runtime, "Tensor must have a last dimension with stride 1");
                sizes.pop();
                strides.pop();
                ensure!(
                    strides.iter().zip(sizes.iter()).all(|(s, n)| s % 2 == 0 || *n <= 1) && *offset % 2 == 0,
                    Runtime,
                    "Tensor must have a stride divisible by 2 for all but last dimension"
                );
                strides.iter_mut().for_each(|s| *s /= 2);
                *offset /= 2;
                *dtype = dtype.to_complex();
            }
            View::Part(k) => {
                strides.iter_mut().for_each(|s| *s *= 2);
                *offset = *offset * 2 + k;
                *dtype = dtype.to_real();
                // The imaginary part of a conjugate is negated.
                let negated = *k == 1 && *lazy & CONJ != 0;
                *lazy = (*lazy & NEG) ^ if negated { NEG } else { 0 };
            }
            View::Bits(to) => {
                ensure!(
                    *lazy == 0 || dtype == to,
                    Runtime,
                    "torch.Tensor.view is not supported for {} when converting to a different dtype.",
                    if *lazy & CONJ != 0 { "conjugate view tensors" } else { "tensors with negative bit set" }
                );
                let what = || format!("to view {} as {} (different element sizes)", dtype.title(), to.title());
                let (old, new) = (dtype.size() as i64, to.size() as i64);
                if old != new {
                    let Some(last) = sizes.len().checked_sub(1) else {
                        bail!(Runtime, "self.dim() cannot be 0 {}", what());
                    };
                    ensure!(
                        strides[last] == 1 || sizes[last] <= 1 && old > new,
                        Runtime,
                        "self.stride(-1) must be 1 {}, but got {}",
                        what(),
                        strides[last]
                    );
                    if old > new {
                        sizes[last] *= old / new;
                        strides.iter_mut().for_each(|s| *s *= old / new);
                        *offset *= old / new;
                    } else {
                        let ratio = new / old;
                        let fits = |x: i64| x % ratio == 0;
                        ensure!(
                            fits(sizes[last]) && fits(*offset),
                            Runtime,
                            "self.size(-1) and self.storage_offset() must be divisible by {ratio} {}, but got {} and {offset}",
                            what(),
                            sizes[last]
                        );
                        ensure!(
                            strides[..last].iter().zip(sizes.iter()).all(|(&s, &n)| fits(s) || n <= 1),
                            Runtime,
                            "self.stride(...) must be divisible by {ratio} {}, but got {}",
                            what(),
                            Shape(strides)
                        );
                        sizes[last] /= ratio;
                        strides.iter_mut().for_each(|s| *s /= ratio);
                        *offset /= ratio;
                    }
                    strides[last] = 1;
                }
                *dtype = *to;
            }
            View::Lazy(bits) => *lazy ^= bits,
        }
        Ok(())
    }
    /// The same view of every example: a view of the whole batch, whose first dimension is then the batch's. Writes to it are seen
    /// by the batch, as they are outside `vmap`.
    fn of_batch(&self, t: &Tensor, dim: usize) -> Result<Tensor> {
        let t = movedim(t, &[dim as i64], &[0])?;
        let (size, stride) = (t.sizes()[0], t.strides()[0]);
        let lead = |sizes: &Dims, first: i64| -> Dims { std::iter::once(first).chain(sizes.iter().copied()).collect() };
        let view = match self {
            View::Reshape(to) => View::Reshape(lead(to, size)),
            View::Expand(to) => {
                // New dimensions come between the batch's and the example's.
                let mut t = t.clone();
                for _ in t.dim()..to.len() + 1 {
                    t = unsqueeze(&t, 1)?;
                }
                return one(View::Expand(lead(to, size)), &t);
            }
            View::Permute(order) => View::Permute(std::iter::once(0).chain(order.iter().map(|d| d + 1)).collect()),
            View::Select(d, i) => View::Select(d + 1, *i),
            View::Slice(d, start, end, step) => View::Slice(d + 1, *start, *end, *step),
            View::Squeeze(dims) => View::Squeeze(dims.iter().map(|d| d + 1).collect()),
            View::Unsqueeze(d) => View::Unsqueeze(d + 1),
            View::Diagonal(k, a, b) => View::Diagonal(*k, a + 1, b + 1),
            View::Unfold(d, n, step) => View::Unfold(d + 1, *n, *step),
            View::AsStrided(to) => View::AsStrided(Box::new(Strided {
                sizes: lead(&to.sizes, size),
                strides: lead(&to.strides, stride),
                offset: to.offset,
                from_strides: t.strides(),
                from_offset: t.offset(),
            })),
            View::Index(steps) => {
                // Each step's result has the batch in front again.
                return steps.iter().try_fold(t, |t, step| step.of_batch(&t, 0));
            }
            View::Alias | View::AsReal | View::AsComplex | View::Part(_) | View::Bits(_) | View::Lazy(_) => {
                self.clone()
            }
        };
        one(view, &t)
    }
}

/// The gradient of `as_strided`: sums by memory position, read back through the input's own layout. Where several elements
/// of the input share a position they share its gradient evenly.
fn as_strided_grad(
    g: &Tensor,
    info: &InputInfo,
    Strided { sizes, strides, offset, from_strides, from_offset }: &Strided,
) -> Result<Tensor> {
    let offset = *offset;
    let start = offset.min(*from_offset);
    let (to, from) = (offset - start, from_offset - start);
    let n = (to + extent(sizes, strides)).max(from + extent(&info.sizes, from_strides)).max(0);
    let memory = factory::arange_to(n, g.device())?;
    let places =
        |sizes: &[i64], strides: &[i64], at: i64| reshape(&as_strided(&memory, sizes, strides, Some(at))?, &[-1]);
    let zeros = factory::zeros(&[n], g.dtype(), g.device())?;
    let mut sums = crate::ops::indexing::index_add(&zeros, 0, &places(sizes, strides, to)?, &reshape(g, &[-1])?)?;
    if may_overlap_itself(&info.sizes, from_strides) {
        let own = places(&info.sizes, from_strides, from)?;
        let one = factory::ones(&[own.numel()], g.dtype(), g.device())?;
        sums = e::div(&sums, &crate::ops::indexing::index_add(&zeros, 0, &own, &one)?)?;
    }
    clone(&as_strided(&sums, &info.sizes, from_strides, Some(from))?)
}

/// Several views of one tensor, made by one operator: PyTorch refuses in-place writes to them.
#[derive(Clone)]
pub enum MultiView {
    /// Pieces of given sizes along a dimension.
    Split(usize, SmallVec<[i64; 8]>),
    /// Every index of a dimension.
    Unbind(usize),
}
impl Primitive for MultiView {
    fn name(&self) -> &'static str {
        match self {
            MultiView::Split(..) => "split",
            MultiView::Unbind(_) => "unbind",
        }
    }
    fn infer(&self, x: &[&Meta], out: &mut Draft) -> Result<()> {
        let x = x[0];
        match self {
            MultiView::Split(d, pieces) => {
                let mut start = 0;
                for &n in pieces {
                    let mut sizes = copy_dims(&x.sizes);
                    sizes[*d] = n;
                    out.push_view(sizes, copy_dims(&x.strides), x.offset + start * x.strides[*d], x.dtype);
                    start += n;
                }
            }
            MultiView::Unbind(d) => {
                for i in 0..x.sizes[*d] {
                    let (mut sizes, mut strides) = (copy_dims(&x.sizes), copy_dims(&x.strides));
                    sizes.remove(*d);
                    let stride = strides.remove(*d);
                    out.push_view(sizes, strides, x.offset + i * stride, x.dtype);
                }
            }
        }
        Ok(())
    }
    fn run(&self, _: &dyn Backend, _: &[Operand], _: &[Operand]) -> Result<()> {
        Ok(())
    }
    fn effect(&self) -> Effect {
        Effect::View
    }
    fn is_multi_output_view(&self) -> bool {
        true
    }
    fn vjp(&self, cx: &Vjp, g: &[Option<Tensor>]) -> Result<Gradients> {
        let info = cx.info(0);
        let Some(some) = g.iter().flatten().next() else { return Ok(SmallVec::from_iter([None])) };
        let (dtype, device) = (some.dtype(), some.device());
        let parts: Vec<Tensor> = g
            .iter()
            .enumerate()
            .map(|(i, g)| match g {
                Some(g) => Ok(g.clone()),
                None => factory::zeros(&cx.output_info(i).sizes, dtype, device),
            })
            .collect::<Result<_>>()?;
        let out = match self {
            MultiView::Split(d, _) => crate::ops::join::cat(&parts, *d as i64)?,
            MultiView::Unbind(d) => crate::ops::join::stack(&parts, *d as i64)?,
        };
        let _ = info;
        Ok(SmallVec::from_iter([Some(out)]))
    }
    fn batch(&self, x: &[(Tensor, Option<usize>)], _level: u32) -> Option<Result<SmallVec<[(Tensor, usize); 2]>>> {
        let (t, dim) = &x[0];
        let dim = (*dim)?;
        let op = match self {
            MultiView::Split(d, pieces) => MultiView::Split(d + 1, pieces.clone()),
            MultiView::Unbind(d) => MultiView::Unbind(d + 1),
        };
        Some((|| {
            let t = movedim(t, &[dim as i64], &[0])?;
            Ok(apply(op, &[&t], Dest::New)?.into_iter().map(|t| (t, 0)).collect())
        })())
    }
    fn key(&self, key: &mut PlanKey) {
        key.word(0);
    }
    crate::shareable!();
}

fn one(v: View, t: &Tensor) -> Result<Tensor> {
    apply_view(t, |_| Ok(v))
}

/// New sizes over the same elements; one size may be -1.
///
/// # Errors
/// `Runtime` when the elements do not fit or the strides forbid it.
pub fn view(t: &Tensor, sizes: &[i64]) -> Result<Tensor> {
    apply_view(t, |m| Ok(View::Reshape(infer_size(sizes, m.numel())?)))
}
/// How many elements of memory lie between the first and one past the last, whatever the strides: a product of what a caller gives
/// may be beyond 64 bits.
pub(crate) fn wide_extent(sizes: &[i64], strides: &[i64]) -> i128 {
    if sizes.contains(&0) {
        return 0;
    }
    1 + sizes.iter().zip(strides).map(|(&n, &s)| (i128::from(n) - 1) * i128::from(s)).sum::<i128>()
}
/// The same bits as another dtype. Of another width the last dimension has more elements, or fewer.
///
/// # Errors
/// `Runtime` when the last dimension, the strides or the offset do not allow another width.
pub fn view_dtype(t: &Tensor, dtype: DType) -> Result<Tensor> {
    if t.dtype() == dtype {
        return one(View::Alias, t);
    }
    one(View::Bits(dtype), t)
}
/// As [`view`], copying when the strides demand it.
///
/// # Errors
/// `Runtime` when the elements do not fit.
pub fn reshape(t: &Tensor, sizes: &[i64]) -> Result<Tensor> {
    let m = t.meta();
    let to = infer_size(sizes, m.numel())?;
    if t.flags() & BATCHED != 0 {
        drop(m);
        // Whether the batch's memory allows it shows when it is tried.
        return match one(View::Reshape(copy_dims(&to)), t) {
            Ok(v) => Ok(v),
            Err(_) => one(View::Reshape(to), &clone_as(t, MemoryFormat::Contiguous)?),
        };
    }
    if view_strides(&m.sizes, &m.strides, &to).is_some() {
        return make_view(t, m, View::Reshape(to));
    }
    drop(m);
    apply1(ReshapedCopy(to), &[t], Dest::New)
}

/// New sizes over a row-major copy: what [`reshape`] makes where the layout allows no view.
#[derive(Clone)]
struct ReshapedCopy(Dims);
impl Primitive for ReshapedCopy {
    fn name(&self) -> &'static str {
        "_unsafe_view"
    }
    fn infer(&self, x: &[&Meta], out: &mut Draft) -> Result<()> {
        out.push(copy_dims(&self.0), x[0].dtype);
        Ok(())
    }
    fn run(&self, on: &dyn Backend, x: &[Operand], out: &[Operand]) -> Result<()> {
        // Both are row-major, so the result's memory has the operand's sizes too.
        let strides = contiguous_strides(x[0].sizes);
        e::Map::identity().run(on, x, &[Operand { sizes: x[0].sizes, strides: &strides, ..out[0] }])
    }
    fn vjp(&self, cx: &Vjp, g: &[Option<Tensor>]) -> Result<Gradients> {
        let g = g[0].as_ref().map(|g| reshape(g, &cx.info(0).sizes)).transpose()?;
        Ok(SmallVec::from_iter([g]))
    }
    fn key(&self, key: &mut PlanKey) {
        key.words(&self.0);
    }
    crate::shareable!();
}
/// Broadcasts to `sizes` without copying; -1 keeps a size.
///
/// # Errors
/// `Runtime`, as PyTorch words it.
pub fn expand(t: &Tensor, sizes: &[i64]) -> Result<Tensor> {
    apply_view(t, |m| {
        ensure!(
            sizes.len() >= m.dim(),
            Runtime,
            "expand(torch.{}Tensor{{{}}}, size={}): the number of sizes provided ({}) must be greater or equal to the number of \
             dimensions in the tensor ({})",
            m.dtype.title(),
            Shape(&m.sizes),
            Shape(sizes),
            sizes.len(),
            m.dim()
        );
        let lead = sizes.len() - m.dim();
        let mut to = Dims::from_slice(sizes);
        for (i, s) in to.iter_mut().enumerate() {
            if i < lead {
                ensure!(
                    *s >= 0,
                    Runtime,
                    "The expanded size of the tensor ({s}) isn't allowed in a leading, non-existing dimension {i}"
                );
                continue;
            }
            let old = m.sizes[i - lead];
            if *s == -1 {
                *s = old;
            }
            ensure!(*s >= 0, Runtime, "The expanded size of the tensor ({s}) is negative at dimension {i}");
            ensure!(
                *s == old || old == 1,
                Runtime,
                "The expanded size of the tensor ({s}) must match the existing size ({old}) at non-singleton dimension {i}. Target \
                 sizes: {}. Tensor sizes: {}",
                Shape(sizes),
                Shape(&m.sizes)
            );
        }
        ensure!(
            to.contains(&0) || to.iter().try_fold(1i64, |n, &s| n.checked_mul(s)).is_some(),
            Runtime,
            "expand: numel: integer multiplication overflow: a tensor of sizes {} has more than 2^63 - 1 elements",
            Shape(&to)
        );
        Ok(View::Expand(to))
    })
}
/// Dimensions in another order.
///
/// # Errors
/// `Runtime` unless every dimension is named once; `Index` for one out of range.
pub fn permute(t: &Tensor, dims: &[i64]) -> Result<Tensor> {
    apply_view(t, |m| {
        let n = m.dim();
        ensure!(
            dims.len() == n,
            Runtime,
            "permute(sparse_coo): number of dimensions in the tensor input does not match the length of the desired ordering of \
             dimensions i.e. input.dim() = {n} is not equal to len(dims) = {}",
            dims.len()
        );
        let mut order: SmallVec<[usize; 5]> = SmallVec::new();
        for &d in dims {
            let d = wrap_dim(d, n)?;
            ensure!(!order.contains(&d), Runtime, "permute(): duplicate dims are not allowed.");
            order.push(d);
        }
        Ok(View::Permute(order))
    })
}
/// Two dimensions exchanged.
///
/// # Errors
/// `Index` for a dimension out of range.
pub fn transpose(t: &Tensor, a: i64, b: i64) -> Result<Tensor> {
    apply_view(t, |m| exchanged(m.dim(), a, b))
}
/// The view of `n` dimensions that exchanges two.
fn exchanged(n: usize, a: i64, b: i64) -> Result<View> {
    let (a, b) = (wrap_dim(a, n)?, wrap_dim(b, n)?);
    let mut order: SmallVec<[usize; 5]> = SmallVec::new();
    for d in 0..n {
        order.push(d);
    }
    if n > 0 {
        order.swap(a, b);
    }
    Ok(View::Permute(order))
}
/// A matrix transposed; tensors of fewer dimensions as they are.
///
/// # Errors
/// `Runtime` beyond two dimensions.
pub fn t(x: &Tensor) -> Result<Tensor> {
    apply_view(x, |m| {
        ensure!(m.dim() <= 2, Runtime, "t() expects a tensor with <= 2 dimensions, but self is {}D", m.dim());
        if m.dim() < 2 {
            return Ok(View::Alias);
        }
        exchanged(2, 0, 1)
    })
}
/// The last two dimensions exchanged.
///
/// # Errors
/// `Runtime` below two dimensions.
pub fn mt(x: &Tensor) -> Result<Tensor> {
    if x.dim() == 0 {
        return Ok(x.clone());
    }
    apply_view(x, |m| {
        ensure!(
            m.dim() >= 2,
            Runtime,
            "tensor.mT is only supported on matrices or batches of matrices. Got {}-D tensor.",
            m.dim()
        );
        exchanged(m.dim(), -2, -1)
    })
}
/// All dimensions reversed.
///
/// # Errors
/// None in practice.
pub fn numpy_t(x: &Tensor) -> Result<Tensor> {
    one(View::Permute((0..x.dim()).rev().collect()), x)
}
/// The conjugate transpose of the last two dimensions.
///
/// # Errors
/// `Runtime` below two dimensions.
pub fn mh(x: &Tensor) -> Result<Tensor> {
    let y = mt(x)?;
    if y.dtype().is_complex() {
        conj(&y)
    } else {
        Ok(y)
    }
}
/// The conjugates over the same memory; a real tensor itself.
///
/// # Errors
/// None in practice.
pub fn conj(x: &Tensor) -> Result<Tensor> {
    if !x.dtype().is_complex() {
        return Ok(x.clone());
    }
    if x.is_sparse() {
        return e::conj_physical(x);
    }
    one(View::Lazy(CONJ), x)
}
/// The negated values over the same memory.
///
/// # Errors
/// None in practice.
pub fn neg_view(x: &Tensor) -> Result<Tensor> {
    one(View::Lazy(NEG), x)
}
/// The values in memory: the tensor itself unless it is conjugated or negated lazily.
///
/// # Errors
/// The failure of a pending computation.
pub fn resolve(x: &Tensor) -> Result<Tensor> {
    match x.lazy() {
        0 => Ok(x.clone()),
        bits if bits & CONJ != 0 => e::conj_physical(&conj(&resolve_neg(x)?)?),
        _ => resolve_neg(x),
    }
}
/// [`resolve`] for the sign alone.
///
/// # Errors
/// As [`resolve`].
pub fn resolve_neg(x: &Tensor) -> Result<Tensor> {
    if x.lazy() & NEG == 0 {
        return Ok(x.clone());
    }
    // What a conjugate lacks stays lacking.
    let bits = x.lazy() & CONJ;
    let memory = one(View::Lazy(x.lazy()), x)?;
    let negated = e::neg(&memory)?;
    if bits != 0 {
        one(View::Lazy(bits), &negated)
    } else {
        Ok(negated)
    }
}
/// The same memory without what it lacks: a view.
pub(crate) fn unlazied(x: &Tensor) -> Result<Tensor> {
    match x.lazy() {
        0 => Ok(x.clone()),
        bits => one(View::Lazy(bits), x),
    }
}
/// Writes `values` to a tensor that is conjugated or negated lazily.
pub(crate) fn write_lazy(target: &Tensor, values: &Tensor) -> Result<()> {
    let bits = target.lazy();
    let mut stored = values.clone();
    if bits & CONJ != 0 {
        stored = e::conj_physical(&stored)?;
    }
    if bits & NEG != 0 {
        stored = e::neg(&stored)?;
    }
    e::copy_(&unlazied(target)?, &stored)?;
    Ok(())
}
/// One index of a dimension.
///
/// # Errors
/// `Index` for an index out of range.
pub fn select(t: &Tensor, dim: i64, index: i64) -> Result<Tensor> {
    apply_view(t, |m| {
        ensure!(m.dim() > 0, Index, "select() cannot be applied to a 0-dim tensor.");
        let d = wrap_dim(dim, m.dim())?;
        let n = m.sizes[d];
        ensure!(
            index >= -n && index < n,
            Index,
            "select(): index {index} out of range for tensor of size {} at dimension {d}",
            Shape(&m.sizes)
        );
        Ok(View::Select(d, if index < 0 { index + n } else { index }))
    })
}
/// `start..end` by `step` along a dimension, clamped as Python's slices.
///
/// # Errors
/// `Value` for a step that is not positive.
pub fn slice(t: &Tensor, dim: i64, start: i64, end: i64, step: i64) -> Result<Tensor> {
    apply_view(t, |m| {
        ensure!(m.dim() > 0, Runtime, "slice() cannot be applied to a 0-dim tensor.");
        ensure!(step > 0, Value, "slice step must be positive");
        let d = wrap_dim(dim, m.dim())?;
        let n = m.sizes[d];
        let fix = |i: i64| (if i < 0 { i + n } else { i }).clamp(0, n);
        let (start, end) = (fix(start), fix(end));
        Ok(View::Slice(d, start, end.max(start), step))
    })
}
/// `length` indices from `start` on.
///
/// # Errors
/// `Runtime` or `Index` when they are not all there.
pub fn narrow(t: &Tensor, dim: i64, start: i64, length: i64) -> Result<Tensor> {
    apply_view(t, |m| {
        ensure!(m.dim() > 0, Runtime, "narrow() cannot be applied to a 0-dim tensor.");
        ensure!(length >= 0, Runtime, "narrow(): length must be non-negative.");
        let d = wrap_dim(dim, m.dim())?;
        let n = m.sizes[d];
        ensure!(
            start >= -n && start <= n,
            Index,
            "start out of range (expected to be in range of [{}, {n}], but got {start})",
            -n
        );
        let start = if start < 0 { start + n } else { start };
        ensure!(start <= n - length, Runtime, "start ({start}) + length ({length}) exceeds dimension size ({n}).");
        Ok(View::Slice(d, start, start + length, 1))
    })
}
/// Without its dimensions of size 1, or those among `dims`.
///
/// # Errors
/// `Index` for a dimension out of range.
pub fn squeeze(t: &Tensor, dims: Option<&[i64]>) -> Result<Tensor> {
    apply_view(t, |m| Ok(View::Squeeze(squeezed(m, dims)?)))
}
fn squeezed(m: &Meta, dims: Option<&[i64]>) -> Result<SmallVec<[usize; 5]>> {
    let mut out: SmallVec<[usize; 5]> = SmallVec::new();
    match dims {
        None => out.extend((0..m.dim()).filter(|&d| m.sizes[d] == 1)),
        Some(dims) => {
            for &d in dims {
                let d = wrap_dim(d, m.dim())?;
                ensure!(!out.contains(&d), Runtime, "dim {d} appears multiple times in the list of dims");
                if m.dim() > 0 && m.sizes[d] == 1 {
                    out.push(d);
                }
            }
            out.sort_unstable();
        }
    }
    Ok(out)
}
/// Basic indexing (`x[1:, None, 2]`), item by item from the first dimension on; one view however many items there are.
pub struct Indexing {
    sizes: Dims,
    /// The next dimension of the indexed tensor, and of the result.
    from: usize,
    dim: usize,
    steps: Vec<View>,
}
impl Indexing {
    /// Of a tensor; no item yet.
    pub fn new(t: &Tensor) -> Indexing {
        Indexing { sizes: t.sizes(), from: 0, dim: 0, steps: Vec::new() }
    }
    /// Number of dimensions of the indexed tensor.
    pub fn rank(&self) -> usize {
        self.sizes.len()
    }
    /// Where the next item's dimension comes in the result.
    pub fn dim(&self) -> usize {
        self.dim
    }
    /// One index.
    ///
    /// # Errors
    /// `Index` for one out of range.
    pub fn select(&mut self, i: i64) -> Result<()> {
        let step = picked(&self.sizes, self.from, self.dim, i)?;
        self.steps.push(step);
        self.from += 1;
        Ok(())
    }
    /// A range, as a slice has it before it is cut to a size.
    ///
    /// # Errors
    /// `Value` for a step that is not positive, `Index` without a dimension.
    pub fn slice(&mut self, start: i64, stop: i64, step: i64) -> Result<()> {
        ensure!(step > 0, Value, "step must be greater than zero");
        ensure!(self.from < self.sizes.len(), Index, "slice() cannot be applied to a 0-dim tensor.");
        let n = self.sizes[self.from];
        let cut = |i: i64| (if i < 0 { i + n } else { i }).clamp(0, n);
        let (start, stop) = (cut(start), cut(stop));
        if start != 0 || stop != n || step != 1 {
            self.steps.push(View::Slice(self.dim, start, stop.max(start), step));
        }
        self.skip(1);
        Ok(())
    }
    /// A new dimension.
    pub fn unsqueeze(&mut self) {
        self.steps.push(View::Unsqueeze(self.dim));
        self.dim += 1;
    }
    /// `n` dimensions whole.
    pub fn skip(&mut self, n: usize) {
        self.from += n;
        self.dim += n;
    }
    /// The view; `None` when no item changed anything.
    ///
    /// # Errors
    /// None in practice.
    pub fn apply(mut self, t: &Tensor) -> Result<Option<Tensor>> {
        if self.steps.is_empty() {
            return Ok(None);
        }
        if t.flags() & (BATCHED | SPARSE) != 0 {
            return self.steps.into_iter().try_fold(t.clone(), |t, step| one(step, &t)).map(Some);
        }
        let out = apply_view(t, |m| {
            ensure!(same_dims(&m.sizes, &self.sizes), Runtime, "a tensor was resized while it was indexed");
            Ok(match self.steps.len() {
                1 => self.steps.swap_remove(0),
                _ => View::Index(std::mem::take(&mut self.steps)),
            })
        })?;
        Ok(Some(out))
    }
}
/// The view that takes index `i` of dimension `from`, which by then is dimension `dim`.
fn picked(sizes: &[i64], from: usize, dim: usize, i: i64) -> Result<View> {
    if from >= sizes.len() {
        bail!(
            Index,
            "invalid index of a 0-dim tensor. Use `tensor.item()` in Python or `tensor.item<T>()` in C++ to convert a 0-dim \
             tensor to a number"
        );
    }
    let n = sizes[from];
    if i < -n || i >= n {
        bail!(Index, "index {i} is out of bounds for dimension {dim} with size {n}");
    }
    Ok(View::Select(dim, if i < 0 { i + n } else { i }))
}
/// `t[i]`.
///
/// # Errors
/// `Index` for an index out of range.
pub fn index_one(t: &Tensor, i: i64) -> Result<Tensor> {
    apply_view(t, |m| picked(&m.sizes, 0, 0, i))
}

/// A new dimension of size 1.
///
/// # Errors
/// `Index` for a position out of range.
pub fn unsqueeze(t: &Tensor, dim: i64) -> Result<Tensor> {
    apply_view(t, |m| Ok(View::Unsqueeze(wrap_dim(dim, m.dim() + 1)?)))
}
/// A diagonal as the last dimension.
///
/// # Errors
/// `Runtime` for equal dimensions, `Index` for one out of range.
pub fn diagonal(t: &Tensor, offset: i64, dim1: i64, dim2: i64) -> Result<Tensor> {
    let n = t.dim();
    ensure!(n >= 2, Index, "diagonal(): Dimension out of range: the input has {n} dimensions, at least 2 are needed");
    let (a, b) = (wrap_dim(dim1, n)?, wrap_dim(dim2, n)?);
    ensure!(a != b, Runtime, "diagonal dimensions cannot be identical {dim1}, {dim2}");
    one(View::Diagonal(offset, a, b), t)
}
/// Windows of `size` every `step` along a dimension, as a last dimension.
///
/// # Errors
/// `Runtime` when a window does not fit.
pub fn unfold(t: &Tensor, dim: i64, size: i64, step: i64) -> Result<Tensor> {
    let d = wrap_dim(dim, t.dim())?;
    let n = t.sizes().get(d).copied().unwrap_or(1);
    ensure!(size >= 0, Runtime, "size is {size} but must be >= 0");
    ensure!(size <= n, Runtime, "maximum size for tensor at dimension {d} is {n} but size is {size}");
    ensure!(step > 0, Runtime, "step is {step} but must be > 0");
    one(View::Unfold(d, size, step), t)
}
/// Any layout over the tensor's storage.
///
/// # Errors
/// `Runtime` when it reaches outside.
pub fn as_strided(t: &Tensor, sizes: &[i64], strides: &[i64], offset: Option<i64>) -> Result<Tensor> {
    one(check_strided(t, sizes, strides, offset)?, t)
}
/// The view of a layout that is well-formed.
fn check_strided(t: &Tensor, sizes: &[i64], strides: &[i64], offset: Option<i64>) -> Result<View> {
    ensure!(sizes.len() == strides.len(), Runtime, "mismatch in length of strides and shape");
    ensure!(
        strides.iter().all(|s| *s >= 0),
        Runtime,
        "as_strided: Negative strides are not supported at the moment, got strides: {}",
        Shape(strides)
    );
    check_sizes(sizes, t.dtype())?;
    let offset = offset.unwrap_or(t.offset());
    ensure!(offset >= 0, Runtime, "Tensor: invalid storage offset {offset}");
    Ok(View::AsStrided(Box::new(Strided {
        sizes: sizes.into(),
        strides: strides.into(),
        offset,
        from_strides: t.strides(),
        from_offset: t.offset(),
    })))
}
/// The same tensor as a view.
///
/// # Errors
/// None in practice.
pub fn alias(t: &Tensor) -> Result<Tensor> {
    one(View::Alias, t)
}
/// `view` with the sizes of another tensor.
///
/// # Errors
/// As [`view`].
pub fn view_as(t: &Tensor, other: &Tensor) -> Result<Tensor> {
    view(t, &other.sizes())
}
/// `reshape` with the sizes of another tensor.
///
/// # Errors
/// As [`reshape`].
pub fn reshape_as(t: &Tensor, other: &Tensor) -> Result<Tensor> {
    reshape(t, &other.sizes())
}
/// `expand` to the sizes of another tensor.
///
/// # Errors
/// As [`expand`].
pub fn expand_as(t: &Tensor, other: &Tensor) -> Result<Tensor> {
    expand(t, &other.sizes())
}
/// Dimensions `start..=end` as one.
///
/// # Errors
/// `Runtime` when start comes after end.
pub fn flatten(t: &Tensor, start: i64, end: i64) -> Result<Tensor> {
    let sizes = t.sizes();
    let (a, b) = (wrap_dim(start, sizes.len())?, wrap_dim(end, sizes.len())?);
    ensure!(a <= b, Runtime, "flatten() has invalid args: start_dim cannot come after end_dim");
    if sizes.is_empty() {
        return reshape(t, &[1]);
    }
    if a == b {
        return Ok(t.clone());
    }
    let mut to: Dims = sizes[..a].into();
    to.push(sizes[a..=b].iter().product());
    to.extend_from_slice(&sizes[b + 1..]);
    reshape(t, &to)
}
/// One dimension.
///
/// # Errors
/// None in practice.
pub fn ravel(t: &Tensor) -> Result<Tensor> {
    reshape(t, &[-1])
}
/// A dimension as several.
///
/// # Errors
/// `Runtime` when the sizes do not multiply to the dimension's.
pub fn unflatten(t: &Tensor, dim: i64, sizes: &[i64]) -> Result<Tensor> {
    ensure!(!sizes.is_empty(), Runtime, "unflatten: sizes must be non-empty");
    let old = t.sizes();
    let d = wrap_dim(dim, old.len())?;
    ensure!(!old.is_empty(), Index, "unflatten: dim {dim} of a tensor without dimensions cannot be split");
    let part = infer_size(sizes, old[d]).map_err(|_| {
        err!(
            Runtime,
            "unflatten: Provided sizes {} don't multiply up to the size of dim {d} ({}) in the input tensor",
            Shape(sizes),
            old[d]
        )
    })?;
    let mut to: Dims = old[..d].into();
    to.extend_from_slice(&part);
    to.extend_from_slice(&old[d + 1..]);
    view(t, &to)
}
/// Dimensions moved to new places, the others in order.
///
/// # Errors
/// `Runtime` for lists of different lengths or repeated dimensions.
pub fn movedim(t: &Tensor, from: &[i64], to: &[i64]) -> Result<Tensor> {
    ensure!(
        from.len() == to.len(),
        Runtime,
        "movedim: Invalid source or destination dims: source ({} dims) should contain the same number of dims as destination ({} dims)",
        Shape(from),
        Shape(to)
    );
    let n = t.dim();
    let wrap = |ds: &[i64], what: &str| -> Result<SmallVec<[usize; 5]>> {
        let mut out: SmallVec<[usize; 5]> = SmallVec::new();
        for &d in ds {
            let d = wrap_dim(d, n)?;
            ensure!(!out.contains(&d), Runtime, "movedim: repeated dim in `{what}` ({})", Shape(ds));
            out.push(d);
        }
        Ok(out)
    };
    let (from, to) = (wrap(from, "source")?, wrap(to, "destination")?);
    if n == 0 {
        return one(View::Alias, t);
    }
    let mut order: SmallVec<[usize; 5]> = SmallVec::from_elem(usize::MAX, n);
    for (f, t) in from.iter().zip(&to) {
        order[*t] = *f;
    }
    let mut rest = (0..n).filter(|d| !from.contains(d));
    for slot in order.iter_mut().filter(|s| **s == usize::MAX) {
        *slot = rest.next().unwrap_or(0);
    }
    one(View::Permute(order), t)
}
/// Pieces of the given sizes along a dimension.
///
/// # Errors
/// `Runtime` unless they add up to the dimension.
pub fn split_with_sizes(t: &Tensor, sizes: &[i64], dim: i64) -> Result<Vec<Tensor>> {
    let m = t.meta();
    ensure!(m.dim() > 0, Runtime, "split expects at least a 1-dimensional tensor");
    let d = wrap_dim(dim, m.dim())?;
    let n = m.sizes[d];
    drop(m);
    ensure!(
        sizes.iter().all(|s| *s >= 0),
        Runtime,
        "split_with_sizes expects split_sizes have only non-negative entries, but got split_sizes={}",
        Shape(sizes)
    );
    ensure!(
        sizes.iter().sum::<i64>() == n,
        Runtime,
        "split_with_sizes expects split_sizes to sum exactly to {n} (input tensor's size at dimension {d}), but got \
         split_sizes={}",
        Shape(sizes)
    );
    Ok(apply(MultiView::Split(d, sizes.into()), &[t], Dest::New)?.into_vec())
}
/// Pieces of `size` along a dimension, the last one shorter if need be.
///
/// # Errors
/// `Runtime` for a size that is not positive.
pub fn split(t: &Tensor, size: i64, dim: i64) -> Result<Vec<Tensor>> {
    let m = t.meta();
    ensure!(m.dim() > 0, Runtime, "split expects at least a 1-dimensional tensor");
    let d = wrap_dim(dim, m.dim())?;
    let n = m.sizes[d];
    drop(m);
    ensure!(size >= 0, Runtime, "split expects split_size be non-negative, but got split_size={size}");
    ensure!(
        size > 0 || n == 0,
        Runtime,
        "split_size can only be 0 if dimension size is 0, but got dimension size of {n}"
    );
    let mut sizes: SmallVec<[i64; 8]> = SmallVec::new();
    let mut left = n;
    while left > 0 || sizes.is_empty() {
        sizes.push(left.min(size.max(0)));
        left -= size.max(1);
    }
    Ok(apply(MultiView::Split(d, sizes), &[t], Dest::New)?.into_vec())
}
/// At most `chunks` pieces of equal size.
///
/// # Errors
/// `Runtime` for a count that is not positive.
pub fn chunk(t: &Tensor, chunks: i64, dim: i64) -> Result<Vec<Tensor>> {
    ensure!(t.dim() > 0, Runtime, "chunk expects at least a 1-dimensional tensor");
    ensure!(chunks > 0, Runtime, "chunk expects `chunks` to be greater than 0, got: {chunks}");
    let n = t.size(dim)?;
    if n == 0 {
        let mut pieces = room("chunk", chunks)?;
        for _ in 0..chunks {
            pieces.push(slice(t, dim, 0, 0, 1)?);
        }
        return Ok(pieces);
    }
    split(t, (n - 1) / chunks + 1, dim)
}
/// Memory for a list of views, whose number is the caller's.
fn room(name: &str, n: i64) -> Result<Vec<Tensor>> {
    // What a tensor and its wrapper take is asked for first, so that too many fail before the first is made.
    let refused = |_| err!(OutOfMemory, "{name}: can't allocate memory for {n} pieces");
    Vec::<[u8; 256]>::new().try_reserve_exact(n as usize).map_err(refused)?;
    let mut pieces = Vec::new();
    pieces.try_reserve_exact(n as usize).map_err(refused)?;
    Ok(pieces)
}
/// `sections` pieces whose sizes differ by at most one.
///
/// # Errors
/// `Runtime` for a count that is not positive.
pub fn tensor_split(t: &Tensor, sections: i64, dim: i64) -> Result<Vec<Tensor>> {
    ensure!(
        t.dim() > 0,
        Runtime,
        "tensor_split expected at least a 1-dimensional tensor, but got a tensor with 0 dims"
    );
    ensure!(sections > 0, Runtime, "number of sections must be larger than 0, got {sections}");
    let n = t.size(dim)?;
    let mut start = 0;
    let mut pieces = room("tensor_split", sections)?;
    for i in 0..sections {
        let len = n / sections + i64::from(i < n % sections);
        start += len;
        pieces.push(slice(t, dim, start - len, start, 1)?);
    }
    Ok(pieces)
}
/// Pieces between the given indices.
///
/// # Errors
/// `Runtime` for a 0-dim tensor.
pub fn tensor_split_at(t: &Tensor, indices: &[i64], dim: i64) -> Result<Vec<Tensor>> {
    ensure!(
        t.dim() > 0,
        Runtime,
        "tensor_split expected at least a 1-dimensional tensor, but got a tensor with 0 dims"
    );
    let n = t.size(dim)?;
    let mut start = 0;
    indices
        .iter()
        .copied()
        .chain(std::iter::once(n))
        .map(|end| {
            let piece = slice(t, dim, start, end, 1);
            start = end;
            piece
        })
        .collect()
}
/// Every index of a dimension.
///
/// # Errors
/// `Index` for a dimension out of range.
pub fn unbind(t: &Tensor, dim: i64) -> Result<Vec<Tensor>> {
    ensure!(t.dim() > 0, Index, "Dimension specified as {dim} but tensor has no dimensions");
    Ok(apply(MultiView::Unbind(wrap_dim(dim, t.dim())?), &[t], Dest::New)?.into_vec())
}
/// Complex numbers as pairs of reals.
///
/// # Errors
/// `Runtime` for a real tensor.
pub fn view_as_real(t: &Tensor) -> Result<Tensor> {
    ensure!(t.dtype().is_complex(), Runtime, "view_as_real is only supported for complex tensors");
    one(View::AsReal, t)
}
/// Pairs of reals as complex numbers.
///
/// # Errors
/// `Runtime` unless the last dimension is a dense pair.
pub fn view_as_complex(t: &Tensor) -> Result<Tensor> {
    ensure!(
        matches!(t.dtype(), DType::F16 | DType::F32 | DType::F64),
        Runtime,
        "view_as_complex is only supported for half, float and double tensors, but got a tensor of scalar type: {}",
        t.dtype().title()
    );
    one(View::AsComplex, t)
}
/// The real part; a real tensor as it is.
///
/// # Errors
/// None in practice.
pub fn real(t: &Tensor) -> Result<Tensor> {
    if t.dtype().is_complex() {
        one(View::Part(0), t)
    } else {
        Ok(t.clone())
    }
}
/// The imaginary part.
///
/// # Errors
/// `Runtime` for a real tensor.
pub fn imag(t: &Tensor) -> Result<Tensor> {
    ensure!(t.dtype().is_complex(), Runtime, "imag is not implemented for tensors with non-complex dtypes.");
    one(View::Part(1), t)
}

/// A copy that keeps a dense tensor's order of memory.
///
/// # Errors
/// That of allocating it.
pub fn clone(t: &Tensor) -> Result<Tensor> {
    apply1(e::Map::identity(), &[t], Dest::New)
}
/// A copy in a given order of memory.
///
/// # Errors
/// `Runtime` when the format needs another number of dimensions.
pub fn clone_as(t: &Tensor, format: MemoryFormat) -> Result<Tensor> {
    match format {
        MemoryFormat::Preserve => clone(t),
        MemoryFormat::Contiguous => apply1(e::Map { contiguous: true, ..e::Map::identity() }, &[t], Dest::New),
        _ => {
            let want = if format == MemoryFormat::ChannelsLast { 4 } else { 5 };
            ensure!(t.dim() == want, Runtime, "required rank {want} tensor to use channels_last format");
            // Through a permuted copy: channels last in memory, first in the sizes.
            let n = want as i64;
            let mut there: Vec<i64> = vec![0];
            there.extend(2..n);
            there.push(1);
            let mut back: Vec<i64> = vec![0, n - 1];
            back.extend(1..n - 1);
            permute(&clone_as(&permute(t, &there)?, MemoryFormat::Contiguous)?, &back)
        }
    }
}
/// The tensor itself if it is row-major, else a copy that is.
///
/// # Errors
/// That of allocating it.
pub fn contiguous(t: &Tensor) -> Result<Tensor> {
    if t.is_contiguous() && t.as_batched().is_none() {
        return Ok(t.clone());
    }
    clone_as(t, MemoryFormat::Contiguous)
}
/// [`contiguous`] for any order of memory.
///
/// # Errors
/// As [`clone_as`].
pub fn contiguous_as(t: &Tensor, format: MemoryFormat) -> Result<Tensor> {
    if is_contiguous_as(t, format) {
        return Ok(t.clone());
    }
    clone_as(t, format)
}
/// Whether the elements lie in this order.
pub fn is_contiguous_as(t: &Tensor, format: MemoryFormat) -> bool {
    let m = t.meta();
    match format {
        MemoryFormat::Contiguous => m.is_contiguous(),
        MemoryFormat::Preserve => true,
        MemoryFormat::ChannelsLast => m.dim() == 4 && is_channels_last(&m.sizes, &m.strides),
        MemoryFormat::ChannelsLast3d => m.dim() == 5 && is_channels_last(&m.sizes, &m.strides),
    }
}

/// Changes the sizes in place, growing the storage when it is too small; what was there stays.
///
/// # Errors
/// `Runtime` for negative sizes or a tensor that requires grad.
pub fn resize(t: &Tensor, sizes: &[i64]) -> Result<()> {
    if t.is_sparse() {
        return Err(crate::ops::sparse::refused("resize_", t.layout(), t.device()));
    }
    check_sizes(sizes, t.dtype())?;
    ensure!(!t.requires_grad(), Runtime, "cannot resize variables that require grad");
    let (storage, need, device) = {
        let m = t.meta();
        (m.storage.clone(), ((m.offset + numel(sizes)) as usize) * m.dtype.size(), m.device())
    };
    if need > storage.nbytes() && device != Device::Meta {
        let backend = crate::apply::backend(device)?;
        let old = storage.ptr()?;
        let fresh = Storage::new(backend.alloc(need)?, device);
        backend.copy_bytes(old, fresh.ptr()?, storage.nbytes())?;
        t.set_meta(|m| m.storage = fresh);
    }
    t.set_meta(|m| {
        m.sizes = sizes.into();
        m.strides = contiguous_strides(sizes);
    });
    Ok(())
}

/// `resize_` as an operator.
///
/// # Errors
/// As [`resize`].
pub fn resize_(t: &Tensor, sizes: &[i64]) -> Result<Tensor> {
    resize(t, sizes)?;
    Ok(t.clone())
}
/// `resize_` to another tensor's sizes.
///
/// # Errors
/// As [`resize`].
pub fn resize_as_(t: &Tensor, other: &Tensor) -> Result<Tensor> {
    resize_(t, &other.sizes())
}

/// Changes a tensor's own metadata by a view operator, in place.
fn in_place(t: &Tensor, op: View) -> Result<Tensor> {
    if let Some(b) = t.as_batched() {
        let _ = b;
        bail!(Batch, "vmap: {}_ in place on an example is not supported; use the out-of-place form", op.name());
    }
    if t.is_sparse() {
        return crate::ops::sparse::view_in_place(&op, t);
    }
    check_inplace(t, t.requires_grad())?;
    let mut draft = Draft::default();
    let before = t.meta().clone();
    op.infer(&[&before], &mut draft)?;
    let o = &draft.outputs[0];
    let old_edge = if t.requires_grad() { t.gradient_edge()? } else { None };
    t.set_meta(|m| {
        m.sizes = copy_dims(&o.sizes);
        m.strides = copy_dims(&o.strides);
        m.offset = o.offset;
    });
    t.bump_version();
    let op: Arc<dyn Primitive> = Arc::new(op);
    if t.flags() & VIEW != 0 {
        extend_chain(t, Link { op: op.clone(), output: 0 });
    }
    if let (Some(edge), true) = (old_edge, crate::mode::grad_enabled()) {
        let after = InputInfo::of(&t.meta());
        let node = Node::unary(op, InputInfo::of(&before), edge, after);
        t.set_edge(Edge { node, nr: 0 });
    }
    Ok(t.clone())
}
/// `unsqueeze` in place.
///
/// # Errors
/// As [`unsqueeze`], and for writes that autograd refuses.
pub fn unsqueeze_(t: &Tensor, dim: i64) -> Result<Tensor> {
    in_place(t, View::Unsqueeze(wrap_dim(dim, t.dim() + 1)?))
}
/// `squeeze` in place.
///
/// # Errors
/// As [`squeeze`], and for writes that autograd refuses.
pub fn squeeze_(t: &Tensor, dims: Option<&[i64]>) -> Result<Tensor> {
    let dims = squeezed(&t.meta(), dims)?;
    in_place(t, View::Squeeze(dims))
}
/// `transpose` in place.
///
/// # Errors
/// As [`transpose`], and for writes that autograd refuses.
pub fn transpose_(t: &Tensor, a: i64, b: i64) -> Result<Tensor> {
    // What may not be written is refused first, whatever the dimensions.
    check_inplace(t, t.requires_grad())?;
    in_place(t, exchanged(t.dim(), a, b)?)
}
/// `t` in place.
///
/// # Errors
/// As [`t()`], and for writes that autograd refuses.
pub fn t_(x: &Tensor) -> Result<Tensor> {
    ensure!(x.dim() <= 2, Runtime, "t_() expects a tensor with <= 2 dimensions, but self is {}D", x.dim());
    if x.dim() < 2 {
        return in_place(x, View::Alias);
    }
    transpose_(x, 0, 1)
}

/// `as_strided` in place.
///
/// # Errors
/// As [`as_strided`], and for writes that autograd refuses.
pub fn as_strided_(t: &Tensor, sizes: &[i64], strides: &[i64], offset: Option<i64>) -> Result<Tensor> {
    in_place(t, check_strided(t, sizes, strides, offset)?)
}

/// Elements in reverse along dimensions.
///
/// # Errors
/// `Runtime` for a repeated dimension.
pub fn flip(t: &Tensor, dims: &[i64]) -> Result<Tensor> {
    let n = t.dim();
    let mut seen: SmallVec<[usize; 5]> = SmallVec::new();
    let mut out = t.clone();
    for &d in dims {
        let d = wrap_dim(d, n)?;
        ensure!(!seen.contains(&d), Runtime, "dim {d} appears multiple times in the list of dims");
        seen.push(d);
        if n == 0 {
            continue;
        }
        let size = out.sizes()[d];
        let index = e::sub(size as i64 - 1, &factory::arange_to(size, out.device())?)?;
        out = crate::ops::indexing::index_select(&out, d as i64, &index)?;
    }
    if out.is_same(t) {
        return clone(t);
    }
    Ok(out)
}
/// Elements shifted around along dimensions; without dimensions, over the flattened tensor.
///
/// # Errors
/// `Runtime` for lists of different lengths.
pub fn roll(t: &Tensor, shifts: &[i64], dims: &[i64]) -> Result<Tensor> {
    if dims.is_empty() {
        ensure!(
            shifts.len() == 1,
            Runtime,
            "shifts and dimensions must align. shifts: {}, dims:{}",
            shifts.len(),
            dims.len()
        );
        return reshape(&roll(&ravel(t)?, shifts, &[0])?, &t.sizes());
    }
    ensure!(!shifts.is_empty(), Runtime, "`shifts` required");
    ensure!(
        shifts.len() == dims.len(),
        Runtime,
        "shifts and dimensions must align. shifts: {}, dims:{}",
        shifts.len(),
        dims.len()
    );
    let mut out = t.clone();
    for (&s, &d) in shifts.iter().zip(dims) {
        let n = out.size(d)?;
        if n == 0 {
            continue;
        }
        let k = (n - s).rem_euclid(n);
        if k == 0 {
            continue;
        }
        out = crate::ops::join::cat(&[slice(&out, d, k, n, 1)?, slice(&out, d, 0, k, 1)?], d)?;
    }
    if out.is_same(t) {
        return clone(t);
    }
    Ok(out)
}
/// Copies side by side.
///
/// # Errors
/// `Runtime` for fewer repeats than dimensions, or negative ones.
pub fn repeat(t: &Tensor, repeats: &[i64]) -> Result<Tensor> {
    let n = t.dim();
    ensure!(
        repeats.len() >= n,
        Runtime,
        "Number of dimensions of repeat dims can not be smaller than number of dimensions of tensor"
    );
    ensure!(
        repeats.iter().all(|r| *r >= 0),
        Runtime,
        "Trying to create tensor with negative dimension in repeat {}",
        Shape(repeats)
    );
    let lead = repeats.len() - n;
    let sizes = t.sizes();
    let (mut shape, mut full, mut last) = (Dims::new(), Dims::new(), Dims::new());
    for (i, &r) in repeats.iter().enumerate() {
        let s = if i < lead { 1 } else { sizes[i - lead] };
        shape.extend_from_slice(&[1, s]);
        full.extend_from_slice(&[r, s]);
        last.push(r * s);
    }
    let y = expand(&reshape(t, &shape)?, &full)?;
    reshape(&clone_as(&y, MemoryFormat::Contiguous)?, &last)
}
/// `repeat` with missing leading repeats taken as 1.
///
/// # Errors
/// As [`repeat`].
pub fn tile(t: &Tensor, dims: &[i64]) -> Result<Tensor> {
    let mut repeats: Dims = SmallVec::from_elem(1, t.dim().saturating_sub(dims.len()));
    repeats.extend_from_slice(dims);
    repeat(t, &repeats)
}
