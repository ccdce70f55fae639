//! Reading and writing by index.

use crate::apply::{apply1, Dest};
use crate::autograd::node::Vjp;
use crate::ops::elementwise as e;
use crate::ops::{factory, reduction, view};
use crate::primitive::*;
use crate::tensor::{Meta, Tensor, Value};
use flambeau_core::*;

/// Where the positions of an indexed read or write come from.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Places {
    /// The index tensor has the result's rank; dimension `0` is replaced by its values (gather, scatter).
    Along(usize),
    /// The 1-d index tensor selects along a dimension (index_select, index_add).
    Whole(usize),
    /// Index tensors, broadcast together, stand for the dimensions given; their common dimensions come at `at` (advanced
    /// indexing).
    Advanced { dims: SmallVec<[usize; 4]>, at: usize },
    /// Positions in the flattened tensor (take, put).
    Flat,
}

impl Places {
    fn words(&self, key: &mut PlanKey) {
        match self {
            Places::Along(d) => key.word(0).word(*d as u64),
            Places::Whole(d) => key.word(1).word(*d as u64),
            Places::Advanced { dims, at } => {
                key.word(2).word(*at as u64);
                dims.iter().for_each(|d| {
                    key.word(*d as u64);
                });
                key
            }
            Places::Flat => key.word(3),
        };
    }
    /// Sizes of the iteration, for a tensor of `x` and index tensors of `index` sizes.
    fn sizes(&self, x: &[i64], index: &[&[i64]]) -> Result<Dims> {
        Ok(match self {
            Places::Along(_) | Places::Flat => index[0].into(),
            Places::Whole(d) => {
                let mut s: Dims = x.into();
                if s.is_empty() {
                    return Ok(index[0].into());
                }
                s[*d] = numel(index[0]);
                s
            }
            Places::Advanced { dims, at } => {
                let mut common = Dims::new();
                for i in index {
                    common = broadcast_shapes(&common, i).map_err(|_| {
                        let shapes: Vec<String> = index.iter().map(|i| Shape(i).to_string()).collect();
                        err!(
                            Index,
                            "shape mismatch: indexing tensors could not be broadcast together with shapes {}",
                            shapes.join(", ")
                        )
                    })?;
                }
                let mut s = Dims::new();
                let rest: SmallVec<[i64; 5]> = (0..x.len()).filter(|d| !dims.contains(d)).map(|d| x[d]).collect();
                s.extend_from_slice(&rest[..*at]);
                s.extend_from_slice(&common);
                s.extend_from_slice(&rest[*at..]);
                s
            }
        })
    }
    /// The tensor's strides over the iteration, and each index tensor with its stride.
    fn resolve<'a>(
        &self,
        x: &Operand<'a>,
        index: &[Operand<'a>],
        sizes: &[i64],
        run: impl FnOnce(&[i64], &[Index]) -> Result<()>,
    ) -> Result<()> {
        let rank = sizes.len();
        let mut base: Dims = SmallVec::from_elem(0, rank);
        let mut strides: SmallVec<[Dims; 2]> = SmallVec::new();
        let mut info: SmallVec<[(i64, i64, usize, bool); 2]> = SmallVec::new();
        match self {
            Places::Along(d) => {
                for k in 0..rank {
                    if k != *d {
                        base[k] = x.strides[k];
                    }
                }
                strides.push(index[0].strides.into());
                info.push((x.sizes.get(*d).copied().unwrap_or(1), x.strides.get(*d).copied().unwrap_or(1), *d, false));
            }
            Places::Whole(d) => {
                let mut s: Dims = SmallVec::from_elem(0, rank);
                for k in 0..rank {
                    if k != *d {
                        base[k] = x.strides[k];
                    }
                }
                if rank > 0 {
                    s[*d] = index[0].strides.first().copied().unwrap_or(0);
                }
                strides.push(s);
                info.push((x.sizes.get(*d).copied().unwrap_or(1), x.strides.get(*d).copied().unwrap_or(1), *d, false));
            }
            Places::Advanced { dims, at } => {
                let common = rank - (x.sizes.len() - dims.len());
                let rest: SmallVec<[usize; 5]> = (0..x.sizes.len()).filter(|d| !dims.contains(d)).collect();
                for (k, &d) in rest.iter().enumerate() {
                    base[if k < *at { k } else { k + common }] = x.strides[d];
                }
                for (o, &d) in index.iter().zip(dims) {
                    let mut s: Dims = SmallVec::from_elem(0, rank);
                    let lead = common - o.sizes.len();
                    for k in 0..o.sizes.len() {
                        if o.sizes[k] != 1 {
                            s[at + lead + k] = o.strides[k];
                        }
                    }
                    strides.push(s);
                    info.push((x.sizes[d], x.strides[d], d, true));
                }
            }
            Places::Flat => {
                strides.push(index[0].strides.into());
                info.push((x.numel(), 1, 0, true));
            }
        }
        let list: SmallVec<[Index; 2]> = index
            .iter()
            .zip(&strides)
            .zip(&info)
            .map(|((o, s), &(size, stride, dim, wrap))| Index {
                values: Operand { sizes, strides: s, ..*o },
                size,
                stride,
                dim,
                wrap,
            })
            .collect();
        run(&base, &list)
    }
}

/// `out[i] = x[places(i)]`. Operands: the tensor, then the index tensors.
#[derive(Clone)]
struct Read(Places);
impl Primitive for Read {
    fn name(&self) -> &'static str {
        match self.0 {
            Places::Along(_) => "gather",
            Places::Whole(_) => "index_select",
            Places::Advanced { .. } => "index",
            Places::Flat => "take",
        }
    }
    fn infer(&self, x: &[&Meta], out: &mut Draft) -> Result<()> {
        let index: SmallVec<[&[i64]; 2]> = x[1..].iter().map(|m| &m.sizes[..]).collect();
        let sizes = self.0.sizes(&x[0].sizes, &index)?;
        if let Places::Along(d) = self.0 {
            check_along(self.name(), d, x[0], x[1])?;
        }
        if x[0].numel() == 0 && numel(&sizes) > 0 {
            bail!(
                Index,
                "{}(): index out of range: the tensor of sizes {} has no elements",
                self.name(),
                Shape(&x[0].sizes)
            );
        }
        out.push(sizes, x[0].dtype);
        Ok(())
    }
    fn run(&self, on: &dyn Backend, x: &[Operand], out: &[Operand]) -> Result<()> {
        self.0.resolve(&x[0], &x[1..], out[0].sizes, |base, index| {
            on.index_read(&Operand { sizes: out[0].sizes, strides: base, ..x[0] }, index, &out[0])
        })
    }
    fn saves(&self, _: Mask) -> Mask {
        // The index tensors; the sixteen operands that a mask can name are more than dimensions in use.
        0xfffe
    }
    fn vjp(&self, cx: &Vjp, g: &[Option<Tensor>]) -> Result<Gradients> {
        let mut grads: Gradients = SmallVec::from_elem(None, cx.len());
        let Some(g) = &g[0] else { return Ok(grads) };
        let info = cx.info(0);
        let zeros = factory::zeros(&info.sizes, g.dtype(), g.device())?;
        let index: SmallVec<[Tensor; 2]> = (1..cx.len()).map(|i| cx.input(i)).collect::<Result<_>>()?;
        grads[0] = Some(write(&zeros, self.0.clone(), &index, g, Write::Add, false)?);
        Ok(grads)
    }
    fn key(&self, key: &mut PlanKey) {
        self.0.words(key);
    }
    fn sparse(&self, x: &[&Tensor]) -> Option<Result<Tensor>> {
        match self.0 {
            Places::Whole(d) if !x[1].is_sparse() => Some(crate::ops::sparse::index_select(x[0], d, x[1])),
            _ => None,
        }
    }
    crate::shareable!();
}

pub(super) fn check_along(name: &str, d: usize, x: &Meta, index: &Meta) -> Result<()> {
    ensure!(
        index.dim() == x.dim() || x.dim() == 0 || index.dim() == 0,
        Runtime,
        "Index tensor must have the same number of dimensions as input tensor"
    );
    for k in 0..x.dim().min(index.dim()) {
        ensure!(
            k == d || index.sizes[k] <= x.sizes[k],
            Runtime,
            "{name}(): Size does not match at dimension {k} expected index {} to be no larger than self {} apart from dimension {d}",
            Shape(&index.sizes),
            Shape(&x.sizes)
        );
    }
    Ok(())
}

/// Writes values at places of operand 0. Operands: the tensor, the values, then the index tensors.
#[derive(Clone)]
struct WriteAt {
    places: Places,
    how: Write,
}
impl Primitive for WriteAt {
    fn name(&self) -> &'static str {
        match (&self.places, self.how) {
            (Places::Along(_), Write::Set) => "scatter",
            (Places::Along(_), Write::Add) => "scatter_add",
            (Places::Along(_), _) => "scatter_reduce",
            (Places::Whole(_), Write::Set) => "index_copy",
            (Places::Whole(_), Write::Add) => "index_add",
            (Places::Whole(_), _) => "index_reduce",
            (Places::Advanced { .. }, _) => "index_put",
            (Places::Flat, _) => "put",
        }
    }
    fn infer(&self, x: &[&Meta], out: &mut Draft) -> Result<()> {
        out.push_strided(copy_dims(&x[0].sizes), copy_dims(&x[0].strides), x[0].dtype);
        Ok(())
    }
    fn run(&self, on: &dyn Backend, x: &[Operand], out: &[Operand]) -> Result<()> {
        let target = &out[0];
        let index: SmallVec<[&[i64]; 2]> = x[2..].iter().map(|o| o.sizes).collect();
        let sizes = self.places.sizes(target.sizes, &index)?;
        if numel(&sizes) == 0 {
            return Ok(());
        }
        // scatter's source may be larger than the index.
        let value_strides = match self.places {
            Places::Along(_) => x[1].strides.into(),
            _ => e::expand_strides(x[1].sizes, x[1].strides, &sizes)?,
        };
        self.places.resolve(target, &x[2..], &sizes, |base, index| {
            let x0 = Operand { sizes: &sizes, strides: base, ..*target };
            on.index_write(&x0, index, &Operand { sizes: &sizes, strides: &value_strides, ..x[1] }, self.how)
        })
    }
    fn effect(&self) -> Effect {
        Effect::Update
    }
    fn writes_expanded(&self) -> bool {
        matches!(self.places, Places::Advanced { .. })
    }
    fn gradient_compares(&self) -> bool {
        matches!(self.how, Write::Max | Write::Min)
    }
    fn refuses_overlap(&self) -> bool {
        true
    }
    fn saves(&self, _: Mask) -> Mask {
        match self.how {
            Write::Set | Write::Add => 0xfffc,
            Write::Mul | Write::Max | Write::Min => 0xffff | output_bit(0),
        }
    }
    fn vjp(&self, cx: &Vjp, g: &[Option<Tensor>]) -> Result<Gradients> {
        let mut grads: Gradients = SmallVec::from_elem(None, cx.len());
        let Some(g) = &g[0] else { return Ok(grads) };
        let index: SmallVec<[Tensor; 2]> = (2..cx.len()).map(|i| cx.input(i)).collect::<Result<_>>()?;
        if !matches!(self.how, Write::Set | Write::Add) {
            let (gx, gv) = self.combined_grad(cx, g, &index)?;
            grads[0] = gx;
            grads[1] = gv;
            return Ok(grads);
        }
        if cx.needs(0) {
            grads[0] = Some(match self.how {
                Write::Add => g.clone(),
                _ => {
                    let zero = factory::zeros(&[], g.dtype(), g.device())?;
                    let sizes: SmallVec<[Dims; 2]> = index.iter().map(|i| i.sizes()).collect();
                    let views: SmallVec<[&[i64]; 2]> = sizes.iter().map(|s| &s[..]).collect();
                    let whole = view::expand(&zero, &self.places.sizes(&g.sizes(), &views)?)?;
                    write(g, self.places.clone(), &index, &whole, Write::Set, true)?
                }
            });
        }
        if cx.needs(1) {
            let mut read: SmallVec<[&Tensor; 4]> = SmallVec::from_iter([g]);
            read.extend(index.iter());
            let part = apply1(Read(self.places.clone()), &read, Dest::New)?;
            let want = cx.info(1);
            grads[1] = Some(if let (Places::Along(_), true) = (&self.places, part.sizes() != want.sizes) {
                let z = factory::zeros(&want.sizes, part.dtype(), part.device())?;
                let mut window = z.clone();
                for (d, n) in part.sizes().iter().enumerate() {
                    window = view::narrow(&window, d as i64, 0, *n)?;
                }
                e::copy_(&window, &part)?;
                z
            } else {
                reduction::sum_to_size(&part, &want.sizes)?
            });
        }
        Ok(grads)
    }
    fn key(&self, key: &mut PlanKey) {
        self.places.words(key);
        key.word(self.how as u64);
    }
    crate::shareable!();
}

impl WriteAt {
    fn read(&self, x: &Tensor, index: &[Tensor]) -> Result<Tensor> {
        let mut operands: SmallVec<[&Tensor; 4]> = SmallVec::from_iter([x]);
        operands.extend(index.iter());
        apply1(Read(self.places.clone()), &operands, Dest::New)
    }
    /// Gradients of products and extrema. A product's gradient is the product of the other factors, found without dividing
    /// by zero; an extremum's is shared evenly among the values that reach it.
    fn combined_grad(&self, cx: &Vjp, g: &Tensor, index: &[Tensor]) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (x, v, y) = (cx.input(0)?, cx.input(1)?, cx.output(0)?);
        let put = |x: &Tensor, v: &Tensor, how: Write| write(x, self.places.clone(), index, v, how, true);
        let (mut gx, mut gv) = (None, None);
        if self.how == Write::Mul {
            if cx.needs(0) {
                gx = Some(e::mul(g, &put(&factory::ones_like(&x)?, &v, Write::Mul)?)?);
            }
            if cx.needs(1) {
                let zero = e::eq(&v, 0)?;
                let zeros = put(&factory::zeros_like(&x)?, &e::to_dtype(&zero, v.dtype())?, Write::Add)?;
                let alone = e::logical_and(&zero, &e::eq(&self.read(&zeros, index)?, 1)?)?;
                // With its only zero left out, the product at a place is that of the other factors.
                let others = put(&x, &e::where_(&alone, &factory::ones_like(&v)?, &v)?, Write::Mul)?;
                let at_zero = self.read(&e::mul(g, &others)?, index)?;
                let divided =
                    e::div(&self.read(&e::mul(g, &y)?, index)?, &e::where_(&zero, &factory::ones_like(&v)?, &v)?)?;
                gv = Some(e::where_(&alone, &at_zero, &divided)?);
            }
        } else {
            let dtype = g.dtype();
            let mine = e::to_dtype(&e::eq(&x, &y)?, dtype)?;
            let theirs = e::to_dtype(&e::eq(&v, &self.read(&y, index)?)?, dtype)?;
            let share = e::div(g, &put(&mine, &theirs, Write::Add)?)?;
            if cx.needs(0) {
                gx = Some(e::mul(&mine, &share)?);
            }
            if cx.needs(1) {
                gv = Some(e::mul(&theirs, &self.read(&share, index)?)?);
            }
        }
        Ok((gx, gv))
    }
}

pub(super) fn write(
    x: &Tensor,
    places: Places,
    index: &[Tensor],
    values: &Tensor,
    how: Write,
    fresh: bool,
) -> Result<Tensor> {
    let target = if fresh { view::clone(x)? } else { x.clone() };
    let mut operands: SmallVec<[&Tensor; 5]> = SmallVec::from_iter([&target, values]);
    operands.extend(index.iter());
    apply1(WriteAt { places, how }, &operands, Dest::Inplace(&target))
}

pub(super) fn check_index(name: &str, index: &Tensor) -> Result<Tensor> {
    let d = index.dtype();
    ensure!(
        matches!(d, DType::I64 | DType::I32),
        Runtime,
        "{name}(): Expected dtype int32/int64 for index, but got {}",
        d.name()
    );
    e::to_dtype(index, DType::I64)
}

/// Values at `index` along a dimension; the result has the index's sizes.
///
/// # Errors
/// `Runtime` for a wrong dtype or rank, `Index` for positions out of range.
pub fn gather(x: &Tensor, dim: i64, index: &Tensor) -> Result<Tensor> {
    let d = wrap_dim(dim, x.dim())?;
    if index.numel() == 0 {
        // Whatever its dtype and rank: nothing is read.
        let part = view::narrow(&view::reshape(x, &[-1])?, 0, 0, 0)?;
        return view::reshape(&view::clone(&part)?, &index.sizes());
    }
    let index = check_index("gather", index)?;
    if x.dim() == 0 || index.dim() == 0 {
        let (a, b) = (view::reshape(x, &[-1])?, view::reshape(&index, &[-1])?);
        return view::reshape(&apply1(Read(Places::Along(0)), &[&a, &b], Dest::New)?, &index.sizes());
    }
    super::scatter::out_of_bounds(apply1(Read(Places::Along(d)), &[x, &index], Dest::New))
}
/// Slices at `index` along a dimension.
///
/// # Errors
/// As [`gather`].
pub fn index_select(x: &Tensor, dim: i64, index: &Tensor) -> Result<Tensor> {
    ensure!(index.dim() <= 1, Index, "index_select(): Index is supposed to be a vector");
    let index = check_index("index_select", index)?;
    let d = wrap_dim(dim, x.dim())?;
    if x.dim() == 0 {
        let y = view::reshape(x, &[1])?;
        return view::reshape(&index_select(&y, 0, &index)?, &[]);
    }
    let index = view::reshape(&index, &[-1])?;
    apply1(Read(Places::Whole(d)), &[x, &index], Dest::New)
}
pub(super) fn same_dtype(name: &str, x: &Tensor, v: &Tensor) -> Result<()> {
    ensure!(
        x.dtype() == v.dtype(),
        Runtime,
        "{name}(): Expected self.dtype to be equal to src.dtype; got {} and {}",
        x.dtype().title(),
        v.dtype().title()
    );
    Ok(())
}
fn write_along(
    x: &Tensor,
    dim: i64,
    index: &Tensor,
    src: &Tensor,
    how: Write,
    dest: Dest,
    name: &str,
) -> Result<Tensor> {
    let index = check_index(name, index)?;
    same_dtype(name, x, src)?;
    let d = wrap_dim(dim, x.dim())?;
    if index.numel() == 0 {
        return if let Dest::Inplace(t) = dest { Ok(t.clone()) } else { view::clone(x) };
    }
    check_along(name, d, &x.meta(), &index.meta())?;
    {
        let (i, s) = (index.meta(), src.meta());
        ensure!(
            i.dim() == s.dim() || i.dim() == 0 || s.dim() == 0,
            Runtime,
            "Index tensor must have the same number of dimensions as src tensor"
        );
        for k in 0..i.dim().min(s.dim()) {
            ensure!(
                i.sizes[k] <= s.sizes[k],
                Runtime,
                "Expected index {} to be no larger than self {} apart from dimension {d} and to be no larger size than src {}",
                Shape(&i.sizes),
                Shape(&x.sizes()),
                Shape(&s.sizes)
            );
        }
    }
    let target = match dest {
        Dest::Inplace(t) => t.clone(),
        _ => view::clone(x)?,
    };
    if x.dim() == 0 {
        let flat = view::reshape(&target, &[1])?;
        write(&flat, Places::Along(0), &[view::reshape(&index, &[-1])?], &view::reshape(src, &[-1])?, how, false)?;
        return Ok(target);
    }
    super::scatter::out_of_bounds(write(&target, Places::Along(d), std::slice::from_ref(&index), src, how, false))
}
/// Writes `src` at `index` along a dimension.
///
/// # Errors
/// As [`gather`].
pub fn scatter(x: &Tensor, dim: i64, index: &Tensor, src: &Tensor, dest: Dest) -> Result<Tensor> {
    write_along(x, dim, index, src, Write::Set, dest, "scatter")
}
/// Writes a number at `index` along a dimension.
///
/// # Errors
/// As [`gather`].
pub fn scatter_value(x: &Tensor, dim: i64, index: &Tensor, value: Number, dest: Dest) -> Result<Tensor> {
    let v = factory::full(&[], value, x.dtype(), x.device())?;
    scatter(x, dim, index, &view::expand(&v, &index.sizes())?, dest)
}
/// Adds `src` at `index` along a dimension, in index order.
///
/// # Errors
/// As [`gather`].
pub fn scatter_add(x: &Tensor, dim: i64, index: &Tensor, src: &Tensor) -> Result<Tensor> {
    write_along(x, dim, index, src, Write::Add, Dest::New, "scatter_add")
}
/// [`scatter_add`] with a destination.
///
/// # Errors
/// As [`gather`].
pub fn scatter_add_to(x: &Tensor, dim: i64, index: &Tensor, src: &Tensor, dest: Dest) -> Result<Tensor> {
    write_along(x, dim, index, src, Write::Add, dest, "scatter_add")
}
fn write_whole(
    x: &Tensor,
    dim: i64,
    index: &Tensor,
    src: &Tensor,
    how: Write,
    dest: Dest,
    name: &str,
) -> Result<Tensor> {
    ensure!(index.dim() <= 1, Index, "{name}(): Index is supposed to be a vector, but got dim: {}", index.dim());
    let index = view::reshape(&check_index(name, index)?, &[-1])?;
    same_dtype(name, x, src)?;
    let d = wrap_dim(dim, x.dim())?;
    let target = match dest {
        Dest::Inplace(t) => t.clone(),
        _ => view::clone(x)?,
    };
    if x.dim() == 0 {
        let flat = view::reshape(&target, &[1])?;
        write(&flat, Places::Whole(0), &[index], &view::reshape(src, &[-1])?, how, false)?;
        return Ok(target);
    }
    {
        let (xs, ss) = (x.sizes(), src.sizes());
        let mut want = xs.clone();
        want[d] = index.numel();
        ensure!(
            ss == want || (ss.is_empty() && numel(&want) == 1),
            Runtime,
            "{name}(): Number of indices ({}) should be equal to source.size(dim), and the other sizes should match: self {} source {} at \
             dimension {d}",
            index.numel(),
            Shape(&xs),
            Shape(&ss)
        );
    }
    write(&target, Places::Whole(d), &[index], src, how, false)
}
/// Adds slices of `src` at `index` along a dimension.
///
/// # Errors
/// As [`gather`].
pub fn index_add(x: &Tensor, dim: i64, index: &Tensor, src: &Tensor) -> Result<Tensor> {
    write_whole(x, dim, index, src, Write::Add, Dest::New, "index_add")
}
/// [`index_add`] with a factor and destination.
///
/// # Errors
/// As [`gather`].
pub fn index_add_to(x: &Tensor, dim: i64, index: &Tensor, src: &Tensor, alpha: Number, dest: Dest) -> Result<Tensor> {
    let scaled = if alpha == Number::Int(1) {
        src.clone()
    } else {
        e::to_dtype(&e::mul(src, Value::Number(alpha))?, src.dtype())?
    };
    write_whole(x, dim, index, &scaled, Write::Add, dest, "index_add")
}
/// Writes slices of `src` at `index` along a dimension.
///
/// # Errors
/// As [`gather`].
pub fn index_copy(x: &Tensor, dim: i64, index: &Tensor, src: &Tensor, dest: Dest) -> Result<Tensor> {
    write_whole(x, dim, index, src, Write::Set, dest, "index_copy")
}
/// Fills slices at `index` along a dimension.
///
/// # Errors
/// As [`gather`]; `Runtime` for a value with dimensions.
pub fn index_fill(x: &Tensor, dim: i64, index: &Tensor, value: Value, dest: Dest) -> Result<Tensor> {
    let v = match value {
        Value::Tensor(t) => {
            ensure!(
                t.dim() == 0,
                Runtime,
                "index_fill_ only supports a 0-dimensional value tensor, but got tensor with {} dimension(s).",
                t.dim()
            );
            e::to_dtype(t, x.dtype())?
        }
        Value::Number(n) => factory::full(&[], n, x.dtype(), x.device())?,
    };
    let d = wrap_dim(dim, x.dim())?;
    if v.requires_grad() && crate::mode::grad_enabled() && x.dim() > 0 {
        // An index that comes twice counts once in the value's gradient.
        let mut sizes: Dims = SmallVec::from_elem(1, x.dim());
        sizes[d] = x.size(d as i64)?;
        let (none, all) = (
            factory::zeros(&[sizes[d]], DType::Bool, x.device())?,
            factory::ones(&index.sizes(), DType::Bool, x.device())?,
        );
        let chosen = view::reshape(&index_copy(&none, 0, index, &all, Dest::New)?, &sizes)?;
        return crate::apply::store("index_fill", e::where_(&chosen, &v, x)?, dest);
    }
    if let Dest::Inplace(t) = dest {
        if let Some((once, shared)) = without_repeats(t)? {
            let first;
            let index = if shared.contains(&(d as i64)) && index.numel() > 0 {
                first = factory::zeros(&[1], DType::I64, t.device())?;
                &first
            } else {
                index
            };
            index_fill(&once, dim, index, Value::Tensor(&v), Dest::Inplace(&once))?;
            return Ok(t.clone());
        }
    }
    let mut sizes = x.sizes();
    if let Some(s) = sizes.get_mut(d) {
        *s = index.numel();
    }
    index_copy(x, dim, index, &view::expand(&v, &sizes)?, dest)
}
/// A view of an expanded tensor's memory with each element once (its repeated dimensions at size 1), and those dimensions;
/// `None` when nothing is repeated.
fn without_repeats(t: &Tensor) -> Result<Option<(Tensor, SmallVec<[i64; 4]>)>> {
    let (sizes, strides) = (t.sizes(), t.strides());
    let shared: SmallVec<[i64; 4]> =
        (0..sizes.len()).filter(|&d| strides[d] == 0 && sizes[d] > 1).map(|d| d as i64).collect();
    if shared.is_empty() {
        return Ok(None);
    }
    let mut once = t.clone();
    for &d in &shared {
        once = view::narrow(&once, d, 0, 1)?;
    }
    Ok(Some((once, shared)))
}

/// Elements at positions of the flattened tensor.
///
/// # Errors
/// As [`gather`].
pub fn take(x: &Tensor, index: &Tensor) -> Result<Tensor> {
    ensure!(
        index.dtype() == DType::I64,
        Runtime,
        "take(): Expected a long tensor for index, but got {}",
        index.dtype().title()
    );
    apply1(Read(Places::Flat), &[&view::contiguous(x)?, index], Dest::New)
}
/// Values at `index` along a dimension, broadcast against the other dimensions; without a dimension, of the flattened tensor.
///
/// # Errors
/// As [`gather`].
pub fn take_along_dim(x: &Tensor, index: &Tensor, dim: Option<i64>) -> Result<Tensor> {
    ensure!(
        index.dtype() == DType::I64,
        Runtime,
        "torch.take_along_dim(): dtype of indices should be Long but got {}",
        index.dtype().title()
    );
    let Some(dim) = dim else {
        return gather(&view::reshape(x, &[-1])?, 0, &wrapped(&view::reshape(index, &[-1])?, x.numel())?);
    };
    ensure!(x.dim() == index.dim(), Runtime, "torch.take_along_dim(): input and indices should have the same number of dimensions, but got {} dimensions for input, and {} dimensions for indices", x.dim(), index.dim());
    let d = wrap_dim(dim, x.dim())?;
    let (xs, is) = (x.sizes(), index.sizes());
    let (mut a, mut b) = (xs.clone(), is.clone());
    for k in 0..xs.len() {
        if k != d {
            let n = broadcast_shapes(&[xs[k]], &[is[k]])?[0];
            (a[k], b[k]) = (n, n);
        }
    }
    let n = xs.get(d).copied().unwrap_or(1);
    gather(&view::expand(x, &a)?, dim, &wrapped(&view::expand(index, &b)?, n)?)
}
/// Positions with negative ones counted from the end.
fn wrapped(index: &Tensor, n: i64) -> Result<Tensor> {
    e::where_(&e::lt(index, 0)?, &e::add(index, n)?, index)
}

/// Positions of the values that are not zero: (count, rank), row-major.
///
/// # Errors
/// The failure of a pending computation.
pub fn nonzero(x: &Tensor) -> Result<Tensor> {
    ensure!(
        x.as_batched().is_none(),
        Batch,
        "vmap: nonzero has a result whose size depends on the data, which is not supported"
    );
    let x = &x.detach();
    let device = x.device();
    let on_host = device != Device::Cpu;
    let x = if on_host { crate::ops::device::to_cpu_contiguous(x)? } else { view::resolve(x)? };
    let m = x.meta();
    let on = crate::apply::backend(Device::Cpu)?;
    let operand = m.operand()?;
    let count = on.count_nonzero(&operand)?;
    let out = factory::empty(&[count, m.dim() as i64], DType::I64, Device::Cpu)?;
    if count > 0 && m.dim() > 0 {
        on.nonzero(&operand, &out.meta().operand()?)?;
    }
    crate::ops::device::to_device(&out, device)
}
/// [`nonzero`] as one index tensor a dimension.
///
/// # Errors
/// As [`nonzero`].
pub fn nonzero_tuple(x: &Tensor) -> Result<Vec<Tensor>> {
    let x = if x.dim() == 0 { view::unsqueeze(x, 0)? } else { x.clone() };
    view::unbind(&nonzero(&x)?, 1)
}
/// `value` where the mask holds.
///
/// # Errors
/// `Runtime` for a mask that is not bool, or a value with dimensions.
pub fn masked_fill(x: &Tensor, mask: &Tensor, value: Value, dest: Dest) -> Result<Tensor> {
    ensure!(
        mask.dtype() == DType::Bool,
        Runtime,
        "masked_fill only supports boolean masks, but got dtype {}",
        mask.dtype().title()
    );
    let v = match value {
        Value::Tensor(t) => {
            ensure!(
                t.dim() == 0,
                Runtime,
                "masked_fill_ only supports a 0-dimensional value tensor, but got tensor with {} dimension(s).",
                t.dim()
            );
            ensure!(
                x.dtype().is_complex() || !t.dtype().is_complex(),
                Runtime,
                "value cannot be converted to type {} without overflow",
                x.dtype().name()
            );
            e::to_dtype(t, x.dtype())?
        }
        Value::Number(n) => {
            ensure!(
                n.category() < Category::Complex || x.dtype().is_complex() || x.dtype() == DType::Bool,
                Runtime,
                "value cannot be converted to type {} without overflow",
                x.dtype().name()
            );
            factory::full(&[], n, x.dtype(), x.device())?
        }
    };
    match dest {
        Dest::Inplace(t) => {
            if let (Some((once, shared)), true) = (without_repeats(t)?, mask.dim() <= t.dim()) {
                let mask = reduction::any(&view::expand(mask, &t.sizes())?, &shared, true, Dest::New)?;
                masked_fill(&once, &mask, Value::Tensor(&v), Dest::Inplace(&once))?;
                return Ok(t.clone());
            }
            let y = e::where_(mask, &v, x)?;
            ensure!(
                y.sizes() == t.sizes(),
                Runtime,
                "output with shape {} doesn't match the broadcast shape {}",
                Shape(&t.sizes()),
                Shape(&y.sizes())
            );
            e::copy_(t, &y)
        }
        dest => e::map(ScalarFn::Where, &[Value::Tensor(mask), Value::Tensor(&v), Value::Tensor(x)], dest),
    }
}
/// The values where the mask holds, in a row.
///
/// # Errors
/// `Runtime` for a mask that is not bool.
pub fn masked_select(x: &Tensor, mask: &Tensor) -> Result<Tensor> {
    ensure!(mask.dtype() == DType::Bool, Runtime, "masked_select: expected BoolTensor for mask");
    let sizes = broadcast_shapes(&x.sizes(), &mask.sizes())?;
    let (x, mask) = (view::expand(x, &sizes)?, view::expand(mask, &sizes)?);
    match super::mask::select(&x, &mask, "masked_select")? {
        Some(y) => Ok(y),
        None => index(&x, &[Some(mask)]),
    }
}
/// Values of `source`, in order, where the mask holds.
///
/// # Errors
/// `Runtime` for too few values or different dtypes.
pub fn masked_scatter(x: &Tensor, mask: &Tensor, source: &Tensor, dest: Dest) -> Result<Tensor> {
    ensure!(
        mask.dtype() == DType::Bool,
        Runtime,
        "masked_scatter_ only supports boolean masks, but got mask with dtype {}",
        mask.dtype().title()
    );
    same_dtype("masked_scatter", x, source)?;
    let target = match dest {
        Dest::Inplace(t) => {
            ensure!(
                !may_overlap_itself(&t.sizes(), &t.strides()),
                Runtime,
                "unsupported operation: more than one element of the written-to tensor refers to a single memory location. \
                 Please clone() the tensor before performing the operation."
            );
            t.clone()
        }
        _ => view::clone(&view::expand(x, &broadcast_shapes(&x.sizes(), &mask.sizes())?)?)?,
    };
    let mask = view::expand(mask, &target.sizes())?;
    let places = nonzero_tuple(&mask)?;
    let n = places[0].numel();
    ensure!(n <= source.numel(), Runtime, "masked_scatter: expected self and source to have same dtypes and number of elements in source ({}) >= number of ones in mask ({n})", source.numel());
    let values = view::narrow(&view::reshape(source, &[-1])?, 0, 0, n)?;
    if target.dim() == 0 {
        if n == 1 {
            e::copy_(&target, &view::reshape(&values, &[])?)?;
        }
        return Ok(target);
    }
    index_put_(&target, &places.into_iter().map(Some).collect::<Vec<_>>(), &values, false)
}

/// Index tensors made ready: masks become positions, dtypes int64; and where the results go.
fn prepare(x: &Tensor, index: &[Option<Tensor>]) -> Result<(Places, SmallVec<[Tensor; 4]>)> {
    let mut dims: SmallVec<[usize; 4]> = SmallVec::new();
    let mut list: SmallVec<[Tensor; 4]> = SmallVec::new();
    let sizes = x.sizes();
    let mut d = 0;
    for i in index {
        let Some(t) = i else {
            d += 1;
            continue;
        };
        match t.dtype() {
            DType::Bool | DType::U8 => {
                let shape = t.sizes();
                ensure!(
                    d + shape.len() <= sizes.len(),
                    Index,
                    "too many indices for tensor of dimension {}",
                    sizes.len()
                );
                for (k, n) in shape.iter().enumerate() {
                    ensure!(
                        sizes[d + k] == *n,
                        Index,
                        "The shape of the mask {} at index {k} does not match the shape of the indexed tensor {} at index {}",
                        Shape(&shape),
                        Shape(&sizes),
                        d + k
                    );
                }
                for p in view::unbind(&nonzero(t)?, 1)? {
                    dims.push(d);
                    list.push(p);
                    d += 1;
                }
            }
            DType::I64 | DType::I32 | DType::I8 | DType::I16 => {
                dims.push(d);
                list.push(e::to_dtype(t, DType::I64)?);
                d += 1;
            }
            _ => bail!(Index, "tensors used as indices must be long, int, byte or bool tensors"),
        }
    }
    ensure!(d <= sizes.len(), Index, "too many indices for tensor of dimension {}", sizes.len());
    // Indices side by side put their dimensions in place, others first.
    let adjacent = dims.windows(2).all(|w| w[1] == w[0] + 1);
    let at = if adjacent { dims.first().copied().unwrap_or(0) } else { 0 };
    for t in &mut list {
        if t.device() != x.device() {
            *t = crate::ops::device::to_device(t, x.device())?;
        }
    }
    Ok((Places::Advanced { dims, at }, list))
}
/// Advanced indexing: `x[index…]` with `None` for whole dimensions.
///
/// # Errors
/// `Index` for shapes that do not fit and positions out of range.
pub fn index(x: &Tensor, index: &[Option<Tensor>]) -> Result<Tensor> {
    if let [Some(mask)] = index {
        if let Some(y) = super::mask::select(x, mask, "index")? {
            return Ok(y);
        }
    }
    let (places, list) = prepare(x, index)?;
    if list.is_empty() {
        // A 0-dim mask adds a dimension of one or none.
        if let Some(Some(mask)) = index.first() {
            let yes = mask.item()?.to_bool();
            let wide = view::unsqueeze(x, 0)?;
            return view::slice(&wide, 0, 0, i64::from(yes), 1);
        }
        return view::alias(x);
    }
    let mut operands: SmallVec<[&Tensor; 5]> = SmallVec::from_iter([x]);
    operands.extend(list.iter());
    apply1(Read(places), &operands, Dest::New)
}
/// `x[index…] = values` (or `+=`) in place.
///
/// # Errors
/// As [`index`]; `Runtime` for values that do not broadcast.
pub fn index_put_(x: &Tensor, index: &[Option<Tensor>], values: &Tensor, accumulate: bool) -> Result<Tensor> {
    ensure!(
        x.dtype() == values.dtype(),
        Runtime,
        "Index put requires the source and destination dtypes match, got {} for the destination and {} for the source.",
        x.dtype().title(),
        values.dtype().title()
    );
    if let ([Some(mask)], 0, false) = (index, values.dim(), accumulate) {
        let (m, t) = (mask.sizes(), x.sizes());
        let fits = mask.dtype() == DType::Bool && !m.is_empty() && m.len() <= t.len() && m[..] == t[..m.len()];
        let here = [x.device(), mask.device(), values.device()].iter().all(|d| *d == Device::Cpu);
        // One number wherever a mask holds: no positions are needed. A gradient keeps the name of this operator.
        if fits && here && !x.requires_grad() && !values.requires_grad() {
            let mut mask = mask.clone();
            for _ in m.len()..t.len() {
                mask = view::unsqueeze(&mask, -1)?;
            }
            return masked_fill(x, &mask, Value::Tensor(values), Dest::Inplace(x));
        }
    }
    let (places, list) = prepare(x, index)?;
    if list.is_empty() {
        if let Some(Some(mask)) = index.first() {
            if mask.item()?.to_bool() {
                e::copy_(x, values)?;
            }
        }
        return Ok(x.clone());
    }
    let sizes: SmallVec<[Dims; 2]> = list.iter().map(|i| i.sizes()).collect();
    let views: SmallVec<[&[i64]; 2]> = sizes.iter().map(|s| &s[..]).collect();
    let whole = places.sizes(&x.sizes(), &views)?;
    let vs = values.sizes();
    let lead = vs.len().saturating_sub(whole.len());
    let values = if lead > 0 && vs[..lead].iter().all(|n| *n == 1) {
        view::reshape(values, &vs[lead..])?
    } else {
        values.clone()
    };
    ensure!(
        e::expand_strides(&values.sizes(), &values.strides(), &whole).is_ok(),
        Runtime,
        "shape mismatch: value tensor of shape {} cannot be broadcast to indexing result of shape {}",
        Shape(&vs),
        Shape(&whole)
    );
    let how = if accumulate { Write::Add } else { Write::Set };
    write(x, places, &list, &values, how, false)
}
/// [`index_put_`] into a copy.
///
/// # Errors
/// As [`index_put_`].
pub fn index_put(x: &Tensor, index: &[Option<Tensor>], values: &Tensor, accumulate: bool) -> Result<Tensor> {
    index_put_(&view::clone(x)?, index, values, accumulate)
}

/// One item of an index expression `x[…]`.
#[derive(Clone)]
pub enum IndexItem {
    Int(i64),
    Slice { start: Option<i64>, stop: Option<i64>, step: i64 },
    None,
    Ellipsis,
    Bool(bool),
    Tensor(Tensor),
}

/// The basic part of an index expression as views, and what is left for advanced indexing.
fn basic(t: &Tensor, items: &[IndexItem]) -> Result<(Tensor, Vec<Option<Tensor>>)> {
    let used: usize = items
        .iter()
        .map(|i| match i {
            IndexItem::Int(_) | IndexItem::Slice { .. } => 1,
            IndexItem::Tensor(m) if matches!(m.dtype(), DType::Bool | DType::U8) => m.dim(),
            IndexItem::Tensor(_) => 1,
            _ => 0,
        })
        .sum();
    let rank = t.dim();
    ensure!(used <= rank, Index, "too many indices for tensor of dimension {rank}");
    ensure!(
        items.iter().filter(|i| matches!(i, IndexItem::Ellipsis)).count() <= 1,
        Index,
        "an index can only have a single ellipsis ('...')"
    );
    let mut out = t.clone();
    let mut d = 0i64;
    let mut advanced: Vec<Option<Tensor>> = Vec::new();
    let put = |advanced: &mut Vec<Option<Tensor>>, d: i64, t: Tensor| {
        while (advanced.len() as i64) < d {
            advanced.push(None);
        }
        advanced.push(Some(t));
    };
    // A mask of several dimensions takes one slot of the list but several dimensions: the offset between both.
    let mut extra = 0i64;
    for item in items {
        match item {
            IndexItem::Int(i) => {
                let n = out.sizes()[d as usize];
                ensure!(*i >= -n && *i < n, Index, "index {i} is out of bounds for dimension {d} with size {n}");
                out = view::select(&out, d, *i)?;
            }
            IndexItem::Slice { start, stop, step } => {
                ensure!(*step > 0, Value, "step must be greater than zero");
                let n = out.sizes()[d as usize];
                let (start, stop) = (start.unwrap_or(0), stop.unwrap_or(i64::MAX));
                if !(start == 0 && stop >= n && *step == 1) {
                    out = view::slice(&out, d, start, stop, *step)?;
                }
                d += 1;
            }
            IndexItem::None => {
                out = view::unsqueeze(&out, d)?;
                d += 1;
            }
            IndexItem::Ellipsis => d += (rank - used) as i64,
            IndexItem::Bool(b) => {
                out = view::unsqueeze(&out, d)?;
                let index: Vec<i64> = if *b { vec![0] } else { vec![] };
                put(&mut advanced, d - extra, Tensor::from_slice(&index, &[index.len() as i64])?);
                d += 1;
            }
            IndexItem::Tensor(m) => {
                let mask = matches!(m.dtype(), DType::Bool | DType::U8);
                if mask && m.dim() == 0 {
                    out = view::unsqueeze(&out, d)?;
                    let index: Vec<i64> = if m.item()?.to_bool() { vec![0] } else { vec![] };
                    put(&mut advanced, d - extra, Tensor::from_slice(&index, &[index.len() as i64])?);
                    d += 1;
                } else {
                    put(&mut advanced, d - extra, m.clone());
                    let takes = if mask { m.dim() as i64 } else { 1 };
                    extra += takes - 1;
                    d += takes;
                }
            }
        }
    }
    Ok((out, advanced))
}
/// `t[items]`: a view for basic items, a copy once a tensor or bool is among them.
///
/// # Errors
/// `Index` and `Value`, as PyTorch words them.
pub fn getitem(t: &Tensor, items: &[IndexItem]) -> Result<Tensor> {
    let (out, advanced) = basic(t, items)?;
    if !advanced.is_empty() {
        return index(&out, &advanced);
    }
    if out.is_same(t) {
        return view::alias(t);
    }
    Ok(out)
}
/// `t[items] = value` in place.
///
/// # Errors
/// As [`getitem`], and `Runtime` for values that do not broadcast.
pub fn setitem(t: &Tensor, items: &[IndexItem], value: Value) -> Result<()> {
    let (target, advanced) = basic(t, items)?;
    if advanced.is_empty() {
        match value {
            Value::Number(n) => {
                let n = match (n, t.dtype().category()) {
                    (Number::Float(f), Category::Integer) => Number::Int(f as i64),
                    (n, Category::Bool) => Number::Bool(n.to_bool()),
                    (n, _) => n,
                };
                e::fill_(&target, n)?;
            }
            Value::Tensor(v) => {
                e::copy_(&target, v)?;
            }
        }
        return Ok(());
    }
    let values = match value {
        Value::Number(n) => {
            let n = match (n, t.dtype().category()) {
                (Number::Float(f), Category::Integer) => Number::Int(f as i64),
                (n, _) => n,
            };
            factory::full(&[], n, t.dtype(), t.device())?
        }
        Value::Tensor(v) => {
            let v = e::to_dtype(v, t.dtype())?;
            if v.device() != t.device() {
                crate::ops::device::to_device(&v, t.device())?
            } else {
                v
            }
        }
    };
    index_put_(&target, &advanced, &values, false)?;
    Ok(())
}

/// Rows of a table; the row at `padding_idx` gets no gradient.
///
/// # Errors
/// `Index` for rows out of range, `Runtime` for a wrong dtype.
pub fn embedding(indices: &Tensor, weight: &Tensor, padding_idx: Option<i64>) -> Result<Tensor> {
    ensure!(weight.dim() == 2, Runtime, "'weight' must be 2-D");
    ensure!(
        matches!(indices.dtype(), DType::I64 | DType::I32),
        Runtime,
        "Expected tensor for argument #1 'indices' to have one of the following scalar types: Long, Int; but got torch.{}Tensor \
         instead (while checking arguments for embedding)",
        indices.dtype().title()
    );
    let flat = view::reshape(&e::to_dtype(indices, DType::I64)?, &[-1])?;
    let mut sizes = indices.sizes();
    sizes.push(weight.sizes()[1]);
    let rows = index_select(weight, 0, &flat).map_err(|e| {
        if e.kind() == ErrorKind::Index {
            err!(Index, "index out of range in self (embedding: {})", e.message())
        } else {
            e
        }
    })?;
    let rows = match padding_idx.filter(|_| weight.requires_grad()) {
        Some(p) => {
            let n = weight.sizes()[0];
            let p = if p < 0 { p + n } else { p };
            let pad = view::unsqueeze(&e::eq(&flat, p)?, 1)?;
            e::where_(&pad, &rows.detach(), &rows)?
        }
        None => rows,
    };
    view::reshape(&rows, &sizes)
}
/// [`embedding`] whose gradient is sparse: the rows that were read, as often as they were, each divided by that number when
/// `by_frequency` says so.
///
/// # Errors
/// As [`embedding`].
pub fn embedding_sparse(
    indices: &Tensor,
    weight: &Tensor,
    padding_idx: Option<i64>,
    by_frequency: bool,
) -> Result<Tensor> {
    if !(weight.requires_grad() && crate::mode::grad_enabled()) || weight.dim() != 2 {
        return embedding(indices, weight, padding_idx);
    }
    // The values, and every error, are the dense one's; the node is another.
    let rows = {
        let _off = crate::mode::no_grad();
        embedding(indices, weight, padding_idx)?
    };
    let n = weight.sizes()[0];
    let padding = padding_idx.map(|p| if p < 0 { p + n } else { p });
    apply1(SparseRows { padding, by_frequency }, &[weight, &e::to_dtype(indices, DType::I64)?, &rows], Dest::New)
}
/// Rows of operand 0 at operand 1, which are operand 2; the gradient is sparse.
#[derive(Clone)]
struct SparseRows {
    padding: Option<i64>,
    by_frequency: bool,
}
impl Primitive for SparseRows {
    fn name(&self) -> &'static str {
        "embedding"
    }
    fn infer(&self, x: &[&Meta], out: &mut Draft) -> Result<()> {
        out.push(copy_dims(&x[2].sizes), x[2].dtype);
        Ok(())
    }
    fn run(&self, on: &dyn Backend, x: &[Operand], out: &[Operand]) -> Result<()> {
        let class = x[2].dtype.class();
        on.map(&Program { inputs: &[Input::Operand(class)], steps: &[], results: &[0] }, &x[2..], out)
    }
    fn saves(&self, _: Mask) -> Mask {
        2
    }
    fn vjp(&self, cx: &Vjp, g: &[Option<Tensor>]) -> Result<Gradients> {
        let mut grads: Gradients = SmallVec::from_elem(None, 3);
        let Some(g) = &g[0] else { return Ok(grads) };
        if cx.needs(0) {
            let sizes = &cx.info(0).sizes;
            let mut at = view::reshape(&cx.input(1)?, &[-1])?;
            let mut values = view::reshape(g, &[at.numel(), sizes[1]])?;
            if let Some(padding) = self.padding {
                let kept = view::reshape(&nonzero(&e::ne(&at, padding)?)?, &[-1])?;
                at = index_select(&at, 0, &kept)?;
                values = index_select(&values, 0, &kept)?;
            }
            if self.by_frequency {
                let uses = crate::ops::search::bincount(&at, None, sizes[0])?;
                let uses = view::unsqueeze(&e::to_dtype(&index_select(&uses, 0, &at)?, values.dtype())?, 1)?;
                values = e::div(&values, &uses)?;
            }
            grads[0] = Some(crate::ops::sparse::coo(view::unsqueeze(&at, 0)?, values, sizes, false));
        }
        Ok(grads)
    }
    fn key(&self, key: &mut PlanKey) {
        key.word(self.padding.unwrap_or(-1) as u64).word(self.by_frequency as u64);
    }
    crate::shareable!();
}
/// One where the class is, in a new last dimension.
///
/// # Errors
/// `Runtime` for a dtype other than int64 or classes out of range.
pub fn one_hot(t: &Tensor, classes: i64) -> Result<Tensor> {
    ensure!(t.dtype() == DType::I64, Runtime, "one_hot is only applicable to index tensor of type LongTensor.");
    let n = if classes == -1 {
        ensure!(t.numel() > 0, Runtime, "Can not infer total number of classes from empty tensor.");
        ensure!(reduction::min_all(t)?.item()?.to_i64() >= 0, Runtime, "Class values must be non-negative.");
        let hi = reduction::max_all(t)?.item()?.to_i64();
        hi.checked_add(1).ok_or_else(|| err!(Runtime, "one_hot: the class {hi} leaves no number of classes"))?
    } else {
        ensure!(classes > 0, Runtime, "num_classes should be positive");
        if t.numel() > 0 {
            let (lo, hi) = (reduction::min_all(t)?.item()?.to_i64(), reduction::max_all(t)?.item()?.to_i64());
            ensure!(lo >= 0, Runtime, "Class values must be non-negative.");
            ensure!(hi < classes, Runtime, "Class values must be smaller than num_classes.");
        }
        classes
    };
    let at = view::unsqueeze(t, -1)?;
    if t.as_batched().is_some() || t.numel() == 0 {
        return e::to_dtype(&e::eq(&at, &factory::arange_to(n, t.device())?)?, DType::I64);
    }
    let mut sizes = t.sizes();
    sizes.push(n);
    let zeros = factory::zeros(&sizes, DType::I64, t.device())?;
    scatter_value(&zeros, -1, &at, Number::Int(1), Dest::Inplace(&zeros))
}
