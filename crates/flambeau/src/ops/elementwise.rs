//! Scalar functions as operators: broadcasting, promotion, the call of a kernel, and the gradient read from the table.

use crate::apply::{apply1, apply_map, check_inplace, Dest};
use crate::autograd::expr::{gelu_tanh_derivative, Expr};
use crate::autograd::node::{InputInfo, Vjp};
use crate::mode;
use crate::primitive::*;
use crate::tensor::{Meta, Tensor, Value};
use flambeau_core::*;
use std::sync::OnceLock;

/// A row of the table of scalar functions over tensors and numbers.
#[derive(Clone, Debug)]
pub struct Map {
    pub f: ScalarFn,
    /// Operands that are numbers, by position; tensors fill the others in order.
    pub numbers: [Option<Number>; 4],
    /// Conversion: the result's dtype, for `Identity`.
    pub to: Option<DType>,
    /// `Identity` into a given order of memory.
    pub contiguous: bool,
}

impl Map {
    /// `f` over tensors alone.
    pub fn new(f: ScalarFn) -> Map {
        Map { f, numbers: [None; 4], to: None, contiguous: false }
    }
    /// A copy.
    pub fn identity() -> Map {
        Map::new(ScalarFn::Identity)
    }
    /// A conversion.
    pub fn convert(dtype: DType) -> Map {
        Map { to: Some(dtype), ..Map::identity() }
    }
    /// The dtype the formula is computed in, and the dtype of the result.
    ///
    /// # Errors
    /// `NotImplemented` when the row has no formula for the operands.
    pub fn dtypes(&self, x: &[&Meta]) -> Result<(DType, DType)> {
        let promoted = match self.common_dtype(x) {
            Some(dtype) => dtype,
            None => self.promoted(x),
        };
        let compute = self.f.compute_dtype(promoted, mode::default_dtype());
        if !self.f.takes(compute) {
            let name = self.f.name();
            let name = name.strip_prefix("special_").unwrap_or(name);
            bail!(NotImplemented, "\"{name}_cpu\" not implemented for '{}'", compute.title());
        }
        let result = match self.to {
            Some(to) => to,
            None => self.f.result_dtype(compute),
        };
        Ok((compute, result))
    }
    /// The dtype of operands that all have the same one, when no number is of a higher category.
    #[inline]
    fn common_dtype(&self, x: &[&Meta]) -> Option<DType> {
        let dtype = x[0].dtype;
        for m in &x[1..] {
            if m.dtype != dtype {
                return None;
            }
        }
        if x.len() < self.f.arity() {
            for n in self.numbers.iter().take(self.f.arity()).flatten() {
                if n.category() > dtype.category() {
                    return None;
                }
            }
        }
        Some(dtype)
    }
    fn promoted(&self, x: &[&Meta]) -> DType {
        let skip = usize::from(self.f.rule() == DTypeRule::Select);
        let mut state = Promotion::default();
        let mut k = 0;
        for (i, number) in self.numbers.iter().enumerate().take(self.f.arity()) {
            match number {
                Some(n) => {
                    if i >= skip {
                        state.number(*n);
                    }
                }
                None => {
                    if i >= skip {
                        state.tensor(x[k].dtype, x[k].dim());
                    }
                    k += 1;
                }
            }
        }
        state.result()
    }
    /// The class in which the kernel works for these operand dtypes and this result.
    pub fn class(&self, x: &[(DType, usize)]) -> Class {
        if self.f == ScalarFn::Identity {
            return x[0].0.class();
        }
        let skip = usize::from(self.f.rule() == DTypeRule::Select);
        let mut state = Promotion::default();
        let mut k = 0;
        for (i, number) in self.numbers.iter().enumerate().take(self.f.arity()) {
            match number {
                Some(n) if i >= skip => state.number(*n),
                Some(_) => {}
                None => {
                    if i >= skip {
                        state.tensor(x[k].0, x[k].1);
                    }
                    k += 1;
                }
            }
        }
        self.f.compute_dtype(state.result(), mode::default_dtype()).class()
    }
}

/// PyTorch's promotion: tensors with dimensions, then 0-dim tensors, then numbers; a lower group counts only when its
/// category is higher.
#[derive(Default, Clone, Copy)]
pub struct Promotion {
    dims: Option<DType>,
    scalars: Option<DType>,
    numbers: Option<DType>,
}
impl Promotion {
    pub fn tensor(&mut self, dtype: DType, dim: usize) {
        let slot = if dim > 0 { &mut self.dims } else { &mut self.scalars };
        *slot = Some(slot.map_or(dtype, |d| promote_types(d, dtype)));
    }
    pub fn number(&mut self, n: Number) {
        let dtype = n.default_dtype(mode::default_dtype());
        self.numbers = Some(self.numbers.map_or(dtype, |d| promote_types(d, dtype)));
    }
    pub fn result(&self) -> DType {
        fn combine(higher: Option<DType>, lower: Option<DType>) -> Option<DType> {
            match (higher, lower) {
                (Some(a), Some(b)) if b.category() > a.category() => Some(if b.is_complex() && a.is_float() {
                    // A complex number does not widen float16 … float64 beyond their own complex type.
                    a.to_complex()
                } else {
                    b
                }),
                (Some(a), _) => Some(a),
                (None, b) => b,
            }
        }
        let lower = combine(self.scalars, self.numbers);
        match (self.dims, lower) {
            (Some(a), Some(b))
                if b.category() > a.category() && b.is_complex() && a.is_float() && self.numbers.is_none() =>
            {
                Some(promote_types(a, b))
            }
            (a, b) => combine(a, b),
        }
        .unwrap_or(DType::F32)
    }
}

impl Primitive for Map {
    fn name(&self) -> &'static str {
        if self.to.is_some() {
            return "to_copy";
        }
        match self.f {
            ScalarFn::Identity => "clone",
            ScalarFn::AddScaled => "add",
            other => other.name(),
        }
    }
    fn infer(&self, x: &[&Meta], out: &mut Draft) -> Result<()> {
        let (_, dtype) = self.dtypes(x)?;
        let first = x[0];
        let same = x[1..].iter().all(|m| same_dims(&m.sizes, &first.sizes));
        let sizes = if same {
            copy_dims(&first.sizes)
        } else {
            let mut sizes = copy_dims(&first.sizes);
            for m in &x[1..] {
                sizes = broadcast_shapes(&sizes, &m.sizes)?;
            }
            sizes
        };
        let strides = if self.contiguous {
            contiguous_strides(&sizes)
        } else if same || first.sizes == sizes {
            preserve_strides(&sizes, &first.strides)
        } else {
            match x.iter().find(|m| m.sizes == sizes) {
                Some(m) => preserve_strides(&sizes, &m.strides),
                None => contiguous_strides(&sizes),
            }
        };
        out.push_strided(sizes, strides, dtype);
        if !has_gradient(self.f) {
            out.outputs[0].differentiable = false;
        }
        Ok(())
    }
    fn run(&self, on: &dyn Backend, x: &[Operand], out: &[Operand]) -> Result<()> {
        let out = &out[0];
        if self.run_direct(on, x, out) {
            return Ok(());
        }
        let kinds: SmallVec<[(DType, usize); 4]> = x.iter().map(|o| (o.dtype, o.sizes.len())).collect();
        let class = self.class(&kinds);
        let mut strides: SmallVec<[Dims; 4]> = SmallVec::new();
        for o in x {
            strides.push(expand_strides(o.sizes, o.strides, out.sizes)?);
        }
        let operands: SmallVec<[Operand; 4]> =
            x.iter().zip(&strides).map(|(o, s)| Operand { sizes: out.sizes, strides: s, ..*o }).collect();
        let mut inputs: SmallVec<[Input; 4]> = SmallVec::new();
        for number in self.numbers.iter().take(self.f.arity()) {
            inputs.push(match number {
                Some(n) => Input::Number(*n, class),
                None => Input::Operand(class),
            });
        }
        // Arguments beyond the row's own must still name a value.
        let arity = self.f.arity() as u16;
        let args = [0, 1, 2, 3].map(|i| if i < arity { i } else { 0 });
        let step = [Step { op: StepOp::Apply(self.f), class, args }];
        let (steps, result): (&[Step], u16) =
            if self.f == ScalarFn::Identity { (&[], 0) } else { (&step, self.f.arity() as u16) };
        on.map(&Program { inputs: &inputs, steps, results: &[result] }, &operands, std::slice::from_ref(out))
    }
    fn effect(&self) -> Effect {
        Effect::Elementwise
    }
    fn gradient_compares(&self) -> bool {
        use ScalarFn as F;
        matches!(
            self.f,
            F::Clamp | F::ClampMin | F::ClampMax | F::Maximum | F::Minimum | F::Fmax | F::Fmin | F::NanToNum
        )
    }
    fn saves(&self, needs: Mask) -> Mask {
        let uses = uses(self.f);
        let mut mask = 0u8;
        if self.numbers.iter().all(Option::is_none) {
            // Every argument is a tensor: positions are operands.
            for (i, used) in uses.iter().enumerate().take(self.f.arity()) {
                if needs & (1 << i) != 0 {
                    mask |= used;
                }
            }
            return Mask::from(mask & 0x7f) | if mask & 0x80 != 0 { output_bit(0) } else { 0 };
        }
        for (k, i) in self.tensor_positions().enumerate() {
            if needs & (1 << k) != 0 {
                mask |= uses[i];
            }
        }
        let mut out = if mask & 0x80 != 0 { output_bit(0) } else { 0 };
        for (k, i) in self.tensor_positions().enumerate() {
            if mask & (1 << i) != 0 {
                out |= 1 << k;
            }
        }
        out
    }
    fn differentiable(&self) -> bool {
        has_gradient(self.f) && self.to.is_none_or(|d| d.is_differentiable())
    }
    fn vjp(&self, cx: &Vjp, g: &[Option<Tensor>]) -> Result<Gradients> {
        let mut grads: Gradients = SmallVec::from_elem(None, cx.len());
        let Some(g) = &g[0] else { return Ok(grads) };
        let g = Expr::from(g.clone());
        let saves = self.saves(cx.needs_mask());
        for (k, i) in self.tensor_positions().enumerate() {
            if cx.needs(k) {
                let get = |position: usize| -> Expr {
                    match self.numbers[position] {
                        Some(n) => Expr::number(n),
                        None => {
                            let k = self.tensor_positions().position(|p| p == position).unwrap_or(0);
                            if saves & (1 << k) != 0 {
                                cx.input(k).into()
                            } else {
                                Expr::from(0.0)
                            }
                        }
                    }
                };
                let out = || -> Expr {
                    if saves & output_bit(0) != 0 {
                        cx.output(0).into()
                    } else {
                        Expr::from(0.0)
                    }
                };
                let raw = gradient(self.f, i, &g, &get, &out).tensor()?;
                grads[k] = Some(undo_broadcast(raw, cx.info(k))?);
            }
        }
        Ok(grads)
    }
    fn key(&self, key: &mut PlanKey) {
        key.word(self.f as u64).word(self.to.map_or(99, |d| d as u64)).word(self.contiguous as u64);
        for n in &self.numbers {
            key.word(n.map_or(9, |n| n.category() as u64));
        }
    }
    fn as_map(&self) -> Option<&Map> {
        Some(self)
    }
    fn allows_cpu_scalars(&self) -> bool {
        true
    }
    fn sparse(&self, x: &[&Tensor]) -> Option<Result<Tensor>> {
        crate::ops::sparse::map(self, x)
    }
    fn batch(&self, x: &[(Tensor, Option<usize>)], _level: u32) -> Option<Result<SmallVec<[(Tensor, usize); 2]>>> {
        Some(self.batched(x))
    }
    crate::shareable!();
}

/// Elements up to which [`Map::run_direct`] is tried, and up to which it copies single values and results.
const DIRECT: usize = 2048;
const DIRECT_COPY: usize = 256;

/// Room for a single value, repeated as often as there are elements.
pub(crate) type Repeated = std::mem::MaybeUninit<[u64; DIRECT_COPY]>;

impl Map {
    /// Small operands in one dtype and one dense layout: the kernel itself, without a program. Single values (numbers, one
    /// element tensors) are repeated on the stack; a result that lies on an operand goes through the stack too. False when
    /// the operands are not of that kind.
    fn run_direct(&self, on: &dyn Backend, x: &[Operand], out: &Operand) -> bool {
        let dtype = out.dtype;
        let n = out.numel() as usize;
        if self.f == ScalarFn::Identity && n <= DIRECT && on.device() == Device::Cpu && copy_strided(&x[0], out) {
            return true;
        }
        if n > DIRECT || dtype.class().dtype() != dtype || !is_non_overlapping_and_dense(out.sizes, out.strides) {
            return false;
        }
        // Also says that the memory is the host's to read.
        let Some(kernel) = on.direct(self.f, dtype, n) else { return false };
        let mut stack = [std::mem::MaybeUninit::<[u64; DIRECT_COPY]>::uninit(); 3];
        let [buffers @ .., result] = &mut stack;
        let mut buffers = buffers.iter_mut();
        let mut p = [std::ptr::null::<u8>(); 4];
        let mut onto_operand = false;
        let mut k = 0;
        for (i, number) in self.numbers.iter().enumerate().take(self.f.arity()) {
            let (single, number): (*const u8, _) = match number {
                Some(number) => (std::ptr::null(), Some(*number)),
                None => {
                    let o = &x[k];
                    k += 1;
                    if o.dtype != dtype {
                        return false;
                    }
                    if same_dims(o.sizes, out.sizes) && same_dims(o.strides, out.strides) {
                        onto_operand |= o.ptr == out.ptr;
                        p[i] = o.ptr;
                        continue;
                    }
                    // One element, repeated by broadcasting or by an expanded view.
                    if !o.sizes.iter().zip(o.strides).all(|(n, s)| *s == 0 || *n == 1) {
                        return false;
                    }
                    (o.ptr, None)
                }
            };
            let Some(buffer) = buffers.next() else { return false };
            let to = buffer.as_mut_ptr() as *mut u8;
            if n > DIRECT_COPY || !splat(dtype.class(), single, number, n, to) {
                return false;
            }
            p[i] = to;
        }
        if onto_operand && (n > DIRECT_COPY || dtype.size() > 8) {
            return false;
        }
        let to = if onto_operand { result.as_mut_ptr() as *mut u8 } else { out.ptr };
        // SAFETY: every operand has `n` elements of `dtype` laid out like `out`, which is dense, so all are read and written
        // linearly; `to` is none of the operands, and `result` has room for `DIRECT_COPY` elements of 8 bytes.
        unsafe {
            kernel(n, p[0], p[1], p[2], p[3], to);
            if onto_operand {
                std::ptr::copy_nonoverlapping(to, out.ptr, n * dtype.size());
            }
        }
        true
    }
    /// The kernel for `n` contiguous elements of one dtype that also is the result's, if there is one and they are few.
    pub(crate) fn small_kernel(&self, dtype: DType, n: usize) -> Option<DirectKernel> {
        if n > DIRECT || n == 0 || dtype.class().dtype() != dtype || self.to.is_some() {
            return None;
        }
        for number in self.numbers.iter().flatten() {
            if number.category() > dtype.category() || n > DIRECT_COPY {
                return None;
            }
        }
        let compute = self.f.compute_dtype(dtype, mode::default_dtype());
        if compute != dtype || !self.f.takes(dtype) || self.f.result_dtype(dtype) != dtype {
            return None;
        }
        flambeau_cpu::cpu().direct(self.f, dtype, n)
    }
    /// One value of `dtype`, a dtype that [`Map::small_kernel`] has a kernel for, repeated `n` times; `None` when `n` are too many.
    pub(crate) fn repeat(&self, dtype: DType, value: *const u8, n: usize, to: &mut Repeated) -> Option<*const u8> {
        let to = to.as_mut_ptr() as *mut u8;
        (n <= DIRECT_COPY && splat(dtype.class(), value, None, n, to)).then_some(to as *const u8)
    }
    /// Runs [`Map::small_kernel`]'s kernel; numbers are repeated on the stack. False when a number has no such form.
    ///
    /// # Safety
    /// `n` contiguous elements of `dtype` are behind each of as many `tensors` as the row has, and behind `to`, which is
    /// none of them.
    #[inline]
    pub(crate) unsafe fn call_small(
        &self,
        kernel: DirectKernel,
        dtype: DType,
        n: usize,
        tensors: &[*const u8; 2],
        to: *mut u8,
    ) -> bool {
        let arity = self.f.arity();
        if arity <= 2 && self.numbers[0].is_none() && self.numbers[1].is_none() {
            kernel(n, tensors[0], tensors[1], std::ptr::null(), std::ptr::null(), to);
            return true;
        }
        let mut stack = [std::mem::MaybeUninit::<[u64; DIRECT_COPY]>::uninit(); 3];
        let mut buffers = stack.iter_mut();
        let mut given = tensors.iter();
        let mut p = [std::ptr::null::<u8>(); 4];
        for (p, number) in p.iter_mut().zip(&self.numbers).take(arity) {
            *p = match number {
                None => match given.next() {
                    Some(t) => *t,
                    None => return false,
                },
                Some(_) => {
                    let Some(buffer) = buffers.next() else { return false };
                    let buffer = buffer.as_mut_ptr() as *mut u8;
                    if !splat(dtype.class(), std::ptr::null(), *number, n, buffer) {
                        return false;
                    }
                    buffer
                }
            };
        }
        kernel(n, p[0], p[1], p[2], p[3], to);
        true
    }
    /// Whether the gradient reads a number that stands where a tensor could.
    pub(crate) fn keeps_numbers(&self) -> bool {
        matches!(self.f, ScalarFn::Mul | ScalarFn::Div) && self.numbers.iter().any(Option::is_some)
    }
    fn tensor_positions(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.f.arity()).filter(|&i| self.numbers[i].is_none())
    }
    /// Batched operands: batch dimension first, logical dimensions aligned at the right.
    fn batched(&self, x: &[(Tensor, Option<usize>)]) -> Result<SmallVec<[(Tensor, usize); 2]>> {
        let logical = |t: &Tensor, b: &Option<usize>| t.dim() - usize::from(b.is_some());
        let rank = x.iter().map(|(t, b)| logical(t, b)).max().unwrap_or(0);
        let mut moved: SmallVec<[Tensor; 4]> = SmallVec::new();
        for (t, b) in x {
            let Some(b) = *b else {
                moved.push(t.clone());
                continue;
            };
            let mut t = crate::ops::view::movedim(t, &[b as i64], &[0])?;
            for _ in t.dim() - 1..rank {
                t = crate::ops::view::unsqueeze(&t, 1)?;
            }
            moved.push(t);
        }
        let refs: SmallVec<[&Tensor; 4]> = moved.iter().collect();
        // A 0-dim example stays weak in promotion although it now has a batch dimension.
        let out = if x.iter().any(|(t, b)| b.is_some() && logical(t, b) == 0) && rank > 0 {
            let metas: SmallVec<[_; 4]> = x
                .iter()
                .map(|(t, b)| {
                    let mut m = t.meta().clone();
                    if let Some(b) = b {
                        m.sizes.remove(*b);
                        m.strides.remove(*b);
                    }
                    m
                })
                .collect();
            let views: SmallVec<[&Meta; 4]> = metas.iter().collect();
            let (_, want) = self.dtypes(&views)?;
            let y = apply1(self.clone(), &refs, Dest::New)?;
            if y.dtype() == want {
                y
            } else {
                to_dtype(&y, want)?
            }
        } else {
            apply1(self.clone(), &refs, Dest::New)?
        };
        Ok(SmallVec::from_iter([(out, 0)]))
    }
}

/// Copies few elements of the host's memory into a row-major layout. False where the dtypes or sizes differ, or when nothing has
/// to be brought into another order.
fn copy_strided(x: &Operand, out: &Operand) -> bool {
    if x.dtype != out.dtype || !same_dims(x.sizes, out.sizes) || x.sizes.len() > 6 {
        return false;
    }
    if same_dims(x.strides, out.strides) || !is_contiguous(out.sizes, out.strides) {
        return false;
    }
    // SAFETY: `x` has an element at every index of its sizes and `out` as many in a row. Where the layouts differ an output does
    // not overlap an operand (see `Effect::Elementwise`). Elements are moved as integers of their size.
    unsafe {
        match x.dtype.size() {
            1 => walk(x, x.ptr, out.ptr),
            2 => walk(x, x.ptr as *const u16, out.ptr as *mut u16),
            4 => walk(x, x.ptr as *const u32, out.ptr as *mut u32),
            8 => walk(x, x.ptr as *const u64, out.ptr as *mut u64),
            _ => walk(x, x.ptr as *const [u64; 2], out.ptr as *mut [u64; 2]),
        }
    }
    true
}
/// The elements of a layout of at most six dimensions, one after the other to `to`.
///
/// # Safety
/// `from` has an element at every index of `x`'s layout, and `to` room for all of them.
unsafe fn walk<T: std::marker::Copy>(x: &Operand, mut from: *const T, mut to: *mut T) {
    let Some(last) = x.sizes.len().checked_sub(1) else {
        *to = *from;
        return;
    };
    if numel(x.sizes) == 0 {
        return;
    }
    let (n, step) = (x.sizes[last], x.strides[last] as isize);
    let mut index = [0i64; 6];
    loop {
        for i in 0..n as isize {
            *to.offset(i) = *from.offset(i * step);
        }
        to = to.offset(n as isize);
        // On to the next row.
        let mut d = last;
        loop {
            if d == 0 {
                return;
            }
            d -= 1;
            index[d] += 1;
            from = from.wrapping_offset(x.strides[d] as isize);
            if index[d] < x.sizes[d] {
                break;
            }
            from = from.wrapping_offset(-(x.strides[d] * x.sizes[d]) as isize);
            index[d] = 0;
        }
    }
}

/// Repeats a number, or else the element at `single`, `n <= DIRECT_COPY` times. False for complex numbers.
fn splat(class: Class, single: *const u8, number: Option<Number>, n: usize, to: *mut u8) -> bool {
    macro_rules! fill {
        ($T:ty, $convert:expr) => {{
            // SAFETY: `single` points to an element of the class, `to` has room for `n` elements of 8 bytes.
            unsafe {
                let value: $T = match number {
                    Some(x) => $convert(x),
                    None => *(single as *const $T),
                };
                std::slice::from_raw_parts_mut(to as *mut $T, n).fill(value);
            }
            true
        }};
    }
    match class {
        Class::F32 => fill!(f32, |x: Number| x.to_f64() as f32),
        Class::F64 => fill!(f64, |x: Number| x.to_f64()),
        Class::I64 => fill!(i64, |x: Number| x.to_i64()),
        Class::C32 | Class::C64 => false,
    }
}

/// Strides of an operand over the result's sizes; 0 where it is broadcast.
///
/// # Errors
/// `Runtime` when it does not broadcast.
pub fn expand_strides(sizes: &[i64], strides: &[i64], to: &[i64]) -> Result<Dims> {
    if sizes == to {
        return Ok(SmallVec::from_slice(strides));
    }
    let lead = to.len().checked_sub(sizes.len());
    let Some(lead) = lead else {
        bail!(Runtime, "output with shape {} doesn't match the broadcast shape {}", Shape(to), Shape(sizes));
    };
    let mut out: Dims = SmallVec::from_elem(0, to.len());
    for d in 0..sizes.len() {
        if sizes[d] == to[lead + d] {
            out[lead + d] = strides[d];
        } else if sizes[d] != 1 {
            bail!(Runtime, "output with shape {} doesn't match the broadcast shape {}", Shape(to), Shape(sizes));
        }
    }
    Ok(out)
}

/// Sums a gradient over broadcast dimensions and brings it to the input's dtype.
fn undo_broadcast(g: Tensor, want: &InputInfo) -> Result<Tensor> {
    let (same, dtype) = {
        let m = g.meta();
        (same_dims(&m.sizes, &want.sizes), m.dtype)
    };
    if same && dtype == want.dtype {
        return Ok(g);
    }
    let g = if same {
        g
    } else if numel(&g.sizes()) == numel(&want.sizes) && g.dim() == want.sizes.len() {
        crate::ops::view::reshape(&g, &want.sizes)?
    } else if g.dim() == 0 {
        crate::ops::view::expand(&g, &want.sizes)?
    } else {
        crate::ops::reduction::sum_to_size(&g, &want.sizes)?
    };
    convert_gradient(&g, want.dtype)
}

/// A gradient in the dtype of its value: the real part where the value is real.
///
/// # Errors
/// That of the conversion.
pub fn convert_gradient(g: &Tensor, dtype: DType) -> Result<Tensor> {
    let from = g.dtype();
    if from == dtype {
        return Ok(g.clone());
    }
    if from.is_complex() && !dtype.is_complex() {
        return to_dtype(&crate::ops::view::real(g)?, dtype);
    }
    to_dtype(g, dtype)
}

// ---- the table's columns that tensors need ------------------------------------------------------------------------------

macro_rules! columns {
    (names ($m:ident $g:ident $out:ident);
     $( $(#[$doc:meta])* $Name:ident $name:tt ($($arg:ident)*) $rule:ident
        [$($formula:tt)*] cuda [$($cuda:tt)*] saves [$($saved:ident)*] grad { $($wrt:ident : $grad:expr),* }; )*) => {
        /// The gradient with respect to argument `wrt`, from cotangent `g` and saved values.
        #[allow(unused_variables)]
        fn gradient(f: ScalarFn, wrt: usize, $g: &Expr, get: &dyn Fn(usize) -> Expr, output: &dyn Fn() -> Expr) -> Expr {
            match f { $(ScalarFn::$Name => {
                let names: &[&str] = &[$(stringify!($arg)),*];
                let mut position = 0usize;
                $( let $arg = &get({ position += 1; position - 1 }); )*
                columns!(@out $name $out output [$($arg)*]);
                $( if names[wrt] == stringify!($wrt) { return Expr::from($grad); } )*
                $g.zero()
            }),* }
        }
        /// Per argument, what its derivative reads: arguments by position (bits 0–3), the output (bit 7).
        fn uses_table() -> Vec<[u8; 4]> {
            vec![$( derive_uses(&[$(stringify!($arg)),*], &[$((stringify!($wrt), stringify!($grad))),*]) ),*]
        }
        fn gradient_table() -> Vec<bool> {
            vec![$( { let wrt: &[&str] = &[$(stringify!($wrt)),*]; !wrt.is_empty() } ),*]
        }
    };
    // The rows whose argument is itself called `out` must not have it hidden by the output.
    (@out "relu_grad" $out:ident $output:ident [$($arg:ident)*]) => {};
    (@out "sigmoid_grad" $out:ident $output:ident [$($arg:ident)*]) => {};
    (@out "tanh_grad" $out:ident $output:ident [$($arg:ident)*]) => {};
    (@out $name:tt $out:ident $output:ident [$($arg:ident)*]) => { let $out = &$output(); };
}
flambeau_core::for_each_scalar_function!(with_names columns);

/// Reads off a derivative's text which values it needs.
fn derive_uses(args: &[&str], grads: &[(&str, &str)]) -> [u8; 4] {
    let mut out = [0u8; 4];
    for (wrt, text) in grads {
        let Some(i) = args.iter().position(|a| a == wrt) else { continue };
        for word in text.split(|c: char| !(c.is_alphanumeric() || c == '_')) {
            if let Some(k) = args.iter().position(|a| *a == word) {
                out[i] |= 1 << k;
            } else if word == "out" {
                out[i] |= 0x80;
            }
        }
    }
    out
}
fn uses(f: ScalarFn) -> [u8; 4] {
    static TABLE: OnceLock<Vec<[u8; 4]>> = OnceLock::new();
    TABLE.get_or_init(uses_table)[f as usize]
}
fn has_gradient(f: ScalarFn) -> bool {
    static TABLE: OnceLock<Vec<bool>> = OnceLock::new();
    TABLE.get_or_init(gradient_table)[f as usize]
}

// ---- functions ------------------------------------------------------------------------------------------------------------

/// Applies a row to tensors and numbers (at least one tensor).
///
/// # Errors
/// Shapes that do not broadcast, dtypes without a formula, and [`crate::apply::apply`]'s.
pub fn map(f: ScalarFn, x: &[Value], dest: Dest) -> Result<Tensor> {
    let mut op = Map::new(f);
    let mut tensors: SmallVec<[&Tensor; 4]> = SmallVec::new();
    for (i, v) in x.iter().enumerate() {
        match v {
            Value::Tensor(t) => tensors.push(t),
            Value::Number(n) => op.numbers[i] = Some(*n),
        }
    }
    if tensors.is_empty() {
        let Value::Number(n) = x[0] else { bail!(Runtime, "{}: no operands", f.name()) };
        check_divisor(f, x)?;
        let t = number_tensor(n)?;
        op.numbers[0] = None;
        return apply1(op, &[&t], dest);
    }
    check_numbers(&op, &tensors)?;
    check_divisor(f, x)?;
    if tensors.iter().any(|t| t.dtype().is_reduced()) {
        if let (ScalarFn::Div, [Value::Number(n), Value::Tensor(t)]) = (f, x) {
            // The reciprocal is rounded to a half before it is multiplied.
            return binary(ScalarFn::Mul, &reciprocal(t)?, *n, dest);
        }
        round_numbers(&mut op, &tensors);
    }
    apply_map(op, &tensors, dest)
}
/// Beside half precisions, numbers are rounded to the operands' dtype as tensors would be, except where PyTorch's kernel takes
/// them in the precision that it computes in: factors, divisors and the parameters of activations.
fn round_numbers(op: &mut Map, tensors: &[&Tensor]) {
    use ScalarFn::*;
    let from = match op.f {
        Add | Sub | AddScaled | TruncDiv | Remainder | Fmod | Pow | Xlogy | Xlog1py | Eq | Ne | Lt | Le | Gt | Ge
        | Hardshrink => 0..op.numbers.len(),
        FloorDiv => 0..1,
        _ => return,
    };
    let guards: SmallVec<[_; 4]> = tensors.iter().map(|t| t.meta()).collect();
    let metas: SmallVec<[&Meta; 4]> = guards.iter().map(|g| &**g).collect();
    let Ok((dtype, _)) = op.dtypes(&metas) else { return };
    for n in op.numbers[from].iter_mut().flatten() {
        let x = match *n {
            Number::Float(x) => x,
            Number::Int(i) => i as f64,
            _ => continue,
        };
        match dtype {
            DType::BF16 => *n = Number::Float(bf16::from_f64(x).to_f64()),
            DType::F16 => *n = Number::Float(f16::from_f64(x).to_f64()),
            _ => {}
        }
    }
}
/// Refuses numbers that the operands' common dtype cannot hold, where PyTorch's kernel takes them in that dtype. Other rows' numbers
/// are tensors to PyTorch, which wrap around.
fn check_numbers(op: &Map, tensors: &[&Tensor]) -> Result<()> {
    use ScalarFn::*;
    let first = match op.f {
        AddScaled | Addcmul | Addcdiv | Clamp | ClampMin | ClampMax | Hardtanh | Pow | Threshold | Where => 1,
        _ => return Ok(()),
    };
    if op.numbers.iter().skip(first).all(Option::is_none) {
        return Ok(());
    }
    let guards: SmallVec<[_; 4]> = tensors.iter().map(|t| t.meta()).collect();
    let metas: SmallVec<[&Meta; 4]> = guards.iter().map(|g| &**g).collect();
    let Ok((dtype, _)) = op.dtypes(&metas) else { return Ok(()) };
    op.numbers.iter().skip(first).flatten().try_for_each(|n| n.check_fits(dtype))
}
/// Refuses to divide integers by zero: by a number, or by a tensor whose values can be looked at now.
fn check_divisor(f: ScalarFn, x: &[Value]) -> Result<()> {
    if !matches!(f, ScalarFn::FloorDiv | ScalarFn::TruncDiv | ScalarFn::Remainder | ScalarFn::Fmod) {
        return Ok(());
    }
    let integral = |v: &Value| match v {
        Value::Tensor(t) => t.dtype().is_integral(true),
        Value::Number(n) => n.category() < Category::Float,
    };
    if !x.iter().all(integral) {
        return Ok(());
    }
    let zero = match x[1] {
        Value::Number(n) => !n.to_bool(),
        Value::Tensor(t) => {
            let known = t.device() == Device::Cpu && mode::current() & mode::RECORD == 0 && t.as_batched().is_none();
            known && t.numel() > 0 && !crate::ops::reduction::all(t, &[], false, Dest::New)?.item()?.to_bool()
        }
    };
    ensure!(!zero, Runtime, "ZeroDivisionError: {}: an integer is divided by zero", f.name());
    Ok(())
}
/// A row of one argument.
///
/// # Errors
/// As [`map`].
pub fn unary(f: ScalarFn, a: &Tensor, dest: Dest) -> Result<Tensor> {
    apply_map(Map::new(f), &[a], dest)
}
/// A row of two arguments.
///
/// # Errors
/// As [`map`].
pub fn binary<'a>(f: ScalarFn, a: impl Into<Value<'a>>, b: impl Into<Value<'a>>, dest: Dest) -> Result<Tensor> {
    match (a.into(), b.into()) {
        (Value::Tensor(a), Value::Tensor(b)) => {
            check_divisor(f, &[a.into(), b.into()])?;
            apply_map(Map::new(f), &[a, b], dest)
        }
        (a, b) => map(f, &[a, b], dest),
    }
}
/// A 0-dim tensor of the number's default dtype.
///
/// # Errors
/// That of allocating it.
pub fn number_tensor(n: Number) -> Result<Tensor> {
    crate::ops::factory::full(&[], n, n.default_dtype(mode::default_dtype()), Device::Cpu)
}

macro_rules! unary_functions {
    ($($name:ident $Row:ident),* $(,)?) => { $(
        #[doc = concat!("The table's `", stringify!($Row), "`, as a new tensor.\n\n# Errors\nAs [`map`].")]
        pub fn $name(a: &Tensor) -> Result<Tensor> { unary(ScalarFn::$Row, a, Dest::New) }
    )* };
}
macro_rules! binary_functions {
    ($($name:ident $Row:ident),* $(,)?) => { $(
        #[doc = concat!("The table's `", stringify!($Row), "`, as a new tensor.\n\n# Errors\nAs [`map`].")]
        pub fn $name<'a>(a: impl Into<Value<'a>>, b: impl Into<Value<'a>>) -> Result<Tensor> { binary(ScalarFn::$Row, a, b, Dest::New) }
    )* };
}
unary_functions!(
    neg Neg, abs Abs, exp Exp, exp2 Exp2, expm1 Expm1, log Log, log2 Log2, log10 Log10, log1p Log1p, sqrt Sqrt, rsqrt Rsqrt, square Square,
    reciprocal Reciprocal, sin Sin, cos Cos, tan Tan, tanh Tanh, sigmoid Sigmoid, relu Relu, gelu Gelu, silu Silu, erf Erf, erfc Erfc, erfinv Erfinv,
    lgamma Lgamma, digamma Digamma, floor Floor, ceil Ceil, trunc Trunc, round Round, sign Sign, sgn Sgn, isnan IsNan, isinf IsInf, isfinite IsFinite,
    logical_not LogicalNot, log_sigmoid LogSigmoid, angle Angle, conj_physical Conj,
);
binary_functions!(
    add Add, sub Sub, mul Mul, div Div, floor_divide FloorDiv, remainder Remainder, fmod Fmod, pow Pow, maximum Maximum, minimum Minimum, atan2 Atan2,
    eq Eq, ne Ne, lt Lt, le Le, gt Gt, ge Ge, logical_and LogicalAnd, logical_or LogicalOr, logical_xor LogicalXor, bitwise_and BitAnd,
    bitwise_or BitOr, bitwise_xor BitXor, xlogy Xlogy, clamp_min ClampMin, clamp_max ClampMax, copysign Copysign, hypot Hypot, logaddexp LogAddExp,
);

/// `if_true` where `condition` holds, else `if_false`.
///
/// # Errors
/// As [`map`].
pub fn where_<'a>(condition: &Tensor, if_true: impl Into<Value<'a>>, if_false: impl Into<Value<'a>>) -> Result<Tensor> {
    map(ScalarFn::Where, &[Value::Tensor(condition), if_true.into(), if_false.into()], Dest::New)
}
/// `a += b` in place.
///
/// # Errors
/// As [`map`], and for writes that autograd refuses.
pub fn add_(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    apply1(Map::new(ScalarFn::Add), &[a, b], Dest::Inplace(a))
}
/// The same values in another dtype; the same tensor when it has that dtype already.
///
/// # Errors
/// As [`map`].
pub fn to_dtype(t: &Tensor, dtype: DType) -> Result<Tensor> {
    if t.dtype() == dtype {
        return Ok(t.clone());
    }
    apply1(Map::convert(dtype), &[t], Dest::New)
}

/// Copies `src` (broadcast, converted) over `dst`.
#[derive(Clone)]
pub struct Copy;
impl Primitive for Copy {
    fn name(&self) -> &'static str {
        "copy"
    }
    fn infer(&self, x: &[&Meta], out: &mut Draft) -> Result<()> {
        let (dst, src) = (x[0], x[1]);
        if expand_strides(&src.sizes, &src.strides, &dst.sizes).is_err() {
            let lead = src.dim() as i64 - dst.dim() as i64;
            if lead > 0
                && numel(&src.sizes[..lead as usize]) == 1
                && expand_strides(&src.sizes[lead as usize..], &src.strides[lead as usize..], &dst.sizes).is_ok()
            {
                // Leading dimensions of size 1 fall away.
            } else {
                broadcast_shapes(&dst.sizes, &src.sizes)?;
                bail!(
                    Runtime,
                    "output with shape {} doesn't match the broadcast shape {}",
                    Shape(&dst.sizes),
                    Shape(&src.sizes)
                );
            }
        }
        out.push_strided(copy_dims(&dst.sizes), copy_dims(&dst.strides), dst.dtype);
        Ok(())
    }
    fn run(&self, on: &dyn Backend, x: &[Operand], out: &[Operand]) -> Result<()> {
        let lead = x[1].sizes.len().saturating_sub(out[0].sizes.len());
        let strides = expand_strides(&x[1].sizes[lead..], &x[1].strides[lead..], out[0].sizes)?;
        let src = Operand { sizes: out[0].sizes, strides: &strides, ..x[1] };
        let class = src.dtype.class();
        on.map(&Program { inputs: &[Input::Operand(class)], steps: &[], results: &[0] }, &[src], out)
    }
    fn effect(&self) -> Effect {
        Effect::Update
    }
    fn vjp(&self, cx: &Vjp, g: &[Option<Tensor>]) -> Result<Gradients> {
        let mut grads: Gradients = SmallVec::from_elem(None, 2);
        let Some(g) = &g[0] else { return Ok(grads) };
        if cx.needs(0) {
            grads[0] = Some(crate::ops::factory::zeros_like(g)?);
        }
        if cx.needs(1) {
            let want = cx.info(1);
            let lead = want.sizes.len().saturating_sub(g.dim());
            let summed = undo_broadcast(g.clone(), &InputInfo { sizes: want.sizes[lead..].into(), ..want.clone() })?;
            grads[1] = Some(if lead > 0 { crate::ops::view::reshape(&summed, &want.sizes)? } else { summed });
        }
        Ok(grads)
    }
    fn key(&self, _: &mut PlanKey) {}
    fn sparse(&self, x: &[&Tensor]) -> Option<Result<Tensor>> {
        let (to, from) = (x[0], x[1]);
        Some(if to.is_sparse() && from.is_sparse() {
            to_dtype(from, to.dtype())
        } else {
            Err(err!(
                Runtime,
                "copy_() between dense and sparse Tensors is not implemented! Found self layout = torch.{} and src layout = torch.{}",
                to.layout().name(),
                from.layout().name()
            ))
        })
    }
    crate::shareable!();
}

/// Copies `src` over `dst` in place, broadcast and converted; across devices too.
///
/// # Errors
/// `Runtime` when `src` does not broadcast to `dst`, and for writes that autograd refuses.
pub fn copy_(dst: &Tensor, src: &Tensor) -> Result<Tensor> {
    let moved;
    let src = if src.device() != dst.device() && dst.device() != Device::Meta {
        moved = crate::ops::device::to_device(src, dst.device())?;
        &moved
    } else {
        src
    };
    // A source that shares memory with the destination is read whole first.
    let fresh;
    let shares = dst.as_batched().is_none()
        && src.as_batched().is_none()
        && std::sync::Arc::ptr_eq(&dst.meta().storage, &src.meta().storage);
    let src = if shares {
        crate::apply::check_overlap(dst, src)?;
        fresh = crate::ops::view::clone(src)?;
        &fresh
    } else {
        src
    };
    apply1(Copy, &[dst, src], Dest::Inplace(dst))
}

/// Fills a tensor with a number.
#[derive(Clone)]
pub struct Fill(pub Number);
impl Primitive for Fill {
    fn name(&self) -> &'static str {
        "fill"
    }
    fn infer(&self, x: &[&Meta], out: &mut Draft) -> Result<()> {
        self.0.check_fits(x[0].dtype)?;
        ensure!(
            self.0.category() < Category::Complex || x[0].dtype.is_complex(),
            Runtime,
            "value cannot be converted to type {} without overflow",
            x[0].dtype.name()
        );
        out.push_strided(copy_dims(&x[0].sizes), copy_dims(&x[0].strides), x[0].dtype);
        Ok(())
    }
    fn run(&self, on: &dyn Backend, _: &[Operand], out: &[Operand]) -> Result<()> {
        let out = &out[0];
        if is_non_overlapping_and_dense(out.sizes, out.strides) {
            return on.fill(out, self.0);
        }
        let class = match self.0 {
            Number::Complex(_) => Class::C64,
            Number::Float(_) => Class::F64,
            _ => Class::I64,
        };
        on.map(
            &Program { inputs: &[Input::Number(self.0, class)], steps: &[], results: &[0] },
            &[],
            std::slice::from_ref(out),
        )
    }
    fn effect(&self) -> Effect {
        Effect::Update
    }
    fn writes_expanded(&self) -> bool {
        true
    }
    fn vjp(&self, _: &Vjp, g: &[Option<Tensor>]) -> Result<Gradients> {
        let g = match &g[0] {
            Some(g) => Some(crate::ops::factory::zeros_like(g)?),
            None => None,
        };
        Ok(SmallVec::from_iter([g]))
    }
    fn key(&self, key: &mut PlanKey) {
        key.word(self.0.category() as u64);
    }
    fn sparse(&self, x: &[&Tensor]) -> Option<Result<Tensor>> {
        // Zero is no entries; anything else would be dense.
        (self.0.to_complex() == Complex64::new(0.0, 0.0)).then(|| crate::ops::factory::empty_like(x[0]))
    }
    crate::shareable!();
}

/// Sets every element to `value` in place.
///
/// # Errors
/// `Runtime` when the number does not fit the dtype, and for writes that autograd refuses.
pub fn fill_(t: &Tensor, value: Number) -> Result<Tensor> {
    apply1(Fill(value), &[t], Dest::Inplace(t))
}
/// Sets every element to 0 in place.
///
/// # Errors
/// For writes that autograd refuses.
pub fn zero_(t: &Tensor) -> Result<Tensor> {
    fill_(t, Number::Int(0))
}
/// Fails unless `t` may be written in place.
///
/// # Errors
/// See `apply`.
pub fn require_writable(t: &Tensor) -> Result<()> {
    check_inplace(t, t.requires_grad())
}
