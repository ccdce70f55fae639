//! Convolutions, as columns and products, and pooling.

use crate::args::Args;
use crate::backend::{CudaBackend, Scratch};
use crate::codegen::{self, Library, Unit};
use crate::driver::{Extent, Function};
use crate::{elementwise, matmul, reduce};
use flambeau_core::*;
use std::sync::Arc;

/// Columns of more images than fit in this many bytes are made in turns.
const COLUMN_BYTES: i64 = 256 << 20;

const KERNELS: [&str; 5] = ["im2col", "col2im", "max_pool", "avg_pool", "avg_pool_grad"];

/// The kernels for one dtype; complex numbers have no pooling.
pub(crate) fn unit(key: &[u8], class: Class, code: i32) -> Unit {
    let take = if matches!(class, Class::C32 | Class::C64) { 2 } else { KERNELS.len() };
    let list: Vec<(&str, &str, Option<u32>, usize)> =
        KERNELS[..take].iter().map(|k| (*k, "WindowArgs", None, 0)).collect();
    codegen::instances(Library::Window, &codegen::kernel_name("k", key), class, &[code], &list)
}

fn kernels(b: &CudaBackend, dtype: DType) -> Result<Arc<[Function]>> {
    let (class, code) = (dtype.class(), codegen::dtype_code(dtype, b.generic()));
    let key = [b'w', class as u8, code as u8];
    b.kernels(&key, || Ok(unit(&key, class, code)))
}

/// Three numbers from one to three, with `fill` in front.
fn three(values: &[i64], fill: i64) -> [i64; 3] {
    let mut out = [fill; 3];
    out[3 - values.len()..].copy_from_slice(values);
    out
}

/// What every window kernel is told.
struct Plan {
    channels: i64,
    input: [i64; 3],
    output: [i64; 3],
    kernel: [i64; 3],
    stride: [i64; 3],
    padding: [i64; 3],
    dilation: [i64; 3],
}

/// One side of a window kernel: strides of image, channel and the three dimensions.
#[derive(Clone, Copy)]
struct Side {
    ptr: *mut u8,
    dtype: DType,
    image: i64,
    channel: i64,
    step: [i64; 3],
}

impl Side {
    fn of(x: &Operand) -> Side {
        Side { ptr: x.ptr, dtype: x.dtype, image: x.strides[0], channel: x.strides[1], step: three(&x.strides[2..], 0) }
    }
    /// The same from image `i` on.
    fn skip_images(self, i: i64) -> Side {
        // Address arithmetic only; the memory is the device's.
        Side { ptr: self.ptr.wrapping_offset((i * self.image) as isize * self.dtype.size() as isize), ..self }
    }
}

impl Plan {
    #[allow(clippy::too_many_arguments)]
    fn args(
        &self,
        images: i64,
        x: Side,
        y: Side,
        y_kernel: i64,
        index: Option<&Operand>,
        include_padding: bool,
        divisor: i64,
    ) -> Args {
        let mut a = Args::new();
        a.i64(images).i64(self.channels);
        for v in [self.input, self.output, self.kernel, self.stride, self.padding, self.dilation] {
            a.array(&v, 3);
        }
        a.i64(x.image).i64(x.channel).array(&x.step, 3);
        a.i64(y.image).i64(y.channel).array(&y.step, 3);
        a.i64(y_kernel).ptr(x.ptr).ptr(y.ptr);
        match index {
            Some(i) => a.ptr(i.ptr).i64(i.strides[0]).i64(i.strides[1]).array(&three(&i.strides[2..], 0), 3),
            None => a.array(&[], 6),
        };
        a.i64(x.dtype as i64).i64(y.dtype as i64).i64(include_padding as i64).i64(divisor);
        a
    }
    fn places(&self) -> i64 {
        self.output.iter().product()
    }
    fn window(&self) -> i64 {
        self.kernel.iter().product()
    }
    fn conv(x: &Operand, w: &Operand, out: &Operand, g: &Conv) -> Plan {
        Plan {
            channels: x.sizes[1],
            input: three(&x.sizes[2..], 1),
            output: three(&out.sizes[2..], 1),
            kernel: three(&w.sizes[2..], 1),
            stride: three(&g.stride, 1),
            padding: three(&g.padding, 0),
            dilation: three(&g.dilation, 1),
        }
    }
    fn pool(x: &Operand, out: &Operand, p: &Pool) -> Plan {
        Plan {
            channels: x.sizes[1],
            input: three(&x.sizes[2..], 1),
            output: three(&out.sizes[2..], 1),
            kernel: three(&p.kernel, 1),
            stride: three(&p.stride, 1),
            padding: three(&p.padding, 0),
            dilation: if p.dilation.is_empty() { [1; 3] } else { three(&p.dilation, 1) },
        }
    }
    /// Whether the columns are the images themselves.
    fn is_pointwise(&self) -> bool {
        self.window() == 1 && self.stride == [1; 3] && self.padding == [0; 3]
    }
    /// How many images' columns are made at a time.
    fn images_at_once(&self, images: i64, size: i64) -> i64 {
        (COLUMN_BYTES / (self.channels * self.window() * self.places() * size).max(1)).clamp(1, images.max(1))
    }
}

/// The one stride with which the spatial dimensions are walked in order, when there is one.
fn flat(x: &Operand) -> Option<i64> {
    let (sizes, strides) = (&x.sizes[2..], &x.strides[2..]);
    let mut expected: Option<i64> = None;
    let mut first = 1;
    for d in (0..sizes.len()).rev() {
        if sizes[d] == 1 {
            continue;
        }
        match expected {
            None => first = strides[d],
            Some(e) if e != strides[d] => return None,
            Some(_) => {}
        }
        expected = Some(strides[d] * sizes[d]);
    }
    Some(first)
}

/// `x` itself when it is contiguous, else a contiguous copy in scratch memory.
fn dense<'a>(b: &'a CudaBackend, x: &Operand) -> Result<(*mut u8, Option<Scratch<'a>>)> {
    if x.is_contiguous() {
        return Ok((x.ptr, None));
    }
    let room = b.scratch(x.numel() as usize * x.dtype.size())?;
    b.copy(x, &b.over(room.ptr(), x.dtype, x.sizes, &contiguous_strides(x.sizes)))?;
    Ok((room.ptr(), Some(room)))
}

/// Elements of `dtype` past a device address.
fn at(p: *mut u8, elements: i64, dtype: DType) -> *mut u8 {
    p.wrapping_offset((elements * dtype.size() as i64) as isize)
}

/// Columns of some images, as (images, groups, channels of a group and window, places): address and strides.
struct Columns<'a> {
    ptr: *mut u8,
    strides: [i64; 4],
    _room: Option<Scratch<'a>>,
}

fn columns<'a>(
    b: &'a CudaBackend,
    plan: &Plan,
    x: &Operand,
    from: i64,
    images: i64,
    groups: i64,
) -> Result<Columns<'a>> {
    if plan.is_pointwise() {
        if let Some(step) = flat(x) {
            let per_group = plan.channels / groups;
            let strides = [x.strides[0], per_group * x.strides[1], x.strides[1], step];
            return Ok(Columns { ptr: at(x.ptr, from * x.strides[0], x.dtype), strides, _room: None });
        }
    }
    let (window, places) = (plan.window(), plan.places());
    let image = plan.channels * window * places;
    let room = b.scratch((images * image) as usize * x.dtype.size())?;
    let y = Side { ptr: room.ptr(), dtype: x.dtype, image, channel: window * places, step: [0; 3] };
    let mut args = plan.args(images, Side::of(x).skip_images(from), y, places, None, false, 0);
    b.launch(kernels(b, x.dtype)?[0], Extent::linear(images * plan.channels * places), &mut args)?;
    Ok(Columns { ptr: room.ptr(), strides: [image, image / groups, places, 1], _room: Some(room) })
}

/// See [`Backend::conv`].
pub(crate) fn conv(
    b: &CudaBackend,
    x: &Operand,
    w: &Operand,
    bias: Option<&Operand>,
    g: &Conv,
    out: &Operand,
) -> Result<()> {
    if out.numel() == 0 {
        return Ok(());
    }
    let Some(step) = flat(out) else {
        // Through a contiguous result.
        let room = b.scratch(out.numel() as usize * out.dtype.size())?;
        let strides = contiguous_strides(out.sizes);
        let middle = b.over(room.ptr(), out.dtype, out.sizes, &strides);
        conv(b, x, w, bias, g, &middle)?;
        return b.copy(&middle, out);
    };
    let plan = Plan::conv(x, w, out, g);
    let (images, outputs, groups) = (x.sizes[0], w.sizes[0], g.groups);
    let depth = plan.channels / groups * plan.window();
    let places = plan.places();
    if let Some(bias) = bias {
        // The bias first; the product is added to it and rounded once.
        let mut strides: Dims = SmallVec::from_elem(0, out.sizes.len());
        strides[1] = bias.strides.first().copied().unwrap_or(0);
        b.copy(&b.over(bias.ptr, bias.dtype, out.sizes, &strides), out)?;
    }
    let (weights, _room) = dense(b, w)?;
    let rows = outputs / groups;
    let turn = plan.images_at_once(images, x.dtype.size() as i64);
    let mut from = 0;
    while from < images {
        let count = turn.min(images - from);
        let columns = columns(b, &plan, x, from, count, groups)?;
        let (sa, sb, so) =
            ([count, groups, rows, depth], [count, groups, depth, places], [count, groups, rows, places]);
        let ta = [0, rows * depth, depth, 1];
        let to = [out.strides[0], rows * out.strides[1], out.strides[1], step];
        let a = b.over(weights, w.dtype, &sa, &ta);
        let c = b.over(columns.ptr, x.dtype, &sb, &columns.strides);
        let o = b.over(at(out.ptr, from * out.strides[0], out.dtype), out.dtype, &so, &to);
        matmul::product(b, &a, &c, &o, Epilogue { accumulate: bias.is_some(), ..Default::default() })?;
        from += count;
    }
    Ok(())
}

/// What halves are summed in.
fn wide(dtype: DType) -> DType {
    if dtype.is_reduced() {
        DType::F32
    } else {
        dtype
    }
}

/// See [`Backend::conv_input_grad`].
pub(crate) fn conv_input_grad(b: &CudaBackend, g: &Operand, w: &Operand, geometry: &Conv, gx: &Operand) -> Result<()> {
    if gx.numel() == 0 {
        return Ok(());
    }
    let plan = Plan::conv(gx, w, g, geometry);
    let (images, outputs, groups) = (gx.sizes[0], w.sizes[0], geometry.groups);
    let (window, places, rows) = (plan.window(), plan.places(), outputs / groups);
    let depth = plan.channels / groups * window;
    let (weights, _weights_room) = dense(b, w)?;
    let g_strides = contiguous_strides(g.sizes);
    let (gradient, step, _gradient_room) = match flat(g) {
        Some(step) => (*g, step, None),
        None => {
            let (p, room) = dense(b, g)?;
            (b.over(p, g.dtype, g.sizes, &g_strides), 1, room)
        }
    };
    let dtype = wide(gx.dtype);
    let turn = plan.images_at_once(images, dtype.size() as i64);
    let image = plan.channels * window * places;
    let mut from = 0;
    while from < images {
        let count = turn.min(images - from);
        let room = b.scratch((count * image).max(1) as usize * dtype.size())?;
        let (sa, sb, so) =
            ([count, groups, depth, rows], [count, groups, rows, places], [count, groups, depth, places]);
        let ta = [0, rows * depth, 1, depth];
        let tb = [gradient.strides[0], rows * gradient.strides[1], gradient.strides[1], step];
        let to = [image, depth * places, places, 1];
        let a = b.over(weights, w.dtype, &sa, &ta);
        let c = b.over(at(gradient.ptr, from * gradient.strides[0], g.dtype), g.dtype, &sb, &tb);
        let o = b.over(room.ptr(), dtype, &so, &to);
        matmul::product(b, &a, &c, &o, Epilogue::default())?;
        let y = Side { ptr: room.ptr(), dtype, image, channel: window * places, step: [0; 3] };
        let mut args = plan.args(count, Side::of(gx).skip_images(from), y, places, None, false, 0);
        let elements = count * plan.channels * plan.input.iter().product::<i64>();
        b.launch(kernels(b, gx.dtype)?[1], Extent::linear(elements), &mut args)?;
        from += count;
    }
    Ok(())
}

/// See [`Backend::conv_weight_grad`].
pub(crate) fn conv_weight_grad(b: &CudaBackend, g: &Operand, x: &Operand, geometry: &Conv, gw: &Operand) -> Result<()> {
    if gw.numel() == 0 {
        return Ok(());
    }
    if g.numel() == 0 || x.numel() == 0 {
        return elementwise::fill(b, gw, Number::Int(0));
    }
    let plan = Plan::conv(x, gw, g, geometry);
    let (images, outputs, groups) = (x.sizes[0], gw.sizes[0], geometry.groups);
    let (places, rows) = (plan.places(), outputs / groups);
    let depth = plan.channels / groups * plan.window();
    let g_strides = contiguous_strides(g.sizes);
    let (gradient, step, _gradient_room) = match flat(g) {
        Some(step) => (*g, step, None),
        None => {
            let (p, room) = dense(b, g)?;
            (b.over(p, g.dtype, g.sizes, &g_strides), 1, room)
        }
    };
    let dtype = wide(gw.dtype);
    let total = outputs * depth;
    // One product an image (so that much runs at once), then their sum over the images.
    let per_image = (total * dtype.size() as i64).max(1);
    let turn = plan.images_at_once(images, x.dtype.size() as i64).min((COLUMN_BYTES / per_image).max(1));
    let sum = b.scratch(total as usize * dtype.size())?;
    let (flat_sizes, one) = ([1, total], [total, 1]);
    let sum_operand = b.over(sum.ptr(), dtype, &flat_sizes, &one);
    let class = dtype.class();
    let identity = Program { inputs: &[Input::Operand(class)], steps: &[], results: &[0] };
    let mut from = 0;
    while from < images {
        let count = turn.min(images - from);
        let columns = columns(b, &plan, x, from, count, groups)?;
        let room = b.scratch((count * total) as usize * dtype.size())?;
        let (sa, sb, so) =
            ([count, groups, rows, places], [count, groups, places, depth], [count, groups, rows, depth]);
        let ta = [gradient.strides[0], rows * gradient.strides[1], gradient.strides[1], step];
        let tb = [columns.strides[0], columns.strides[1], columns.strides[3], columns.strides[2]];
        let to = [total, rows * depth, depth, 1];
        let a = b.over(at(gradient.ptr, from * gradient.strides[0], g.dtype), g.dtype, &sa, &ta);
        let c = b.over(columns.ptr, x.dtype, &sb, &tb);
        matmul::product(b, &a, &c, &b.over(room.ptr(), dtype, &so, &to), Epilogue::default())?;
        let (parts_sizes, parts_strides) = ([count, total], [total, 1]);
        let parts = b.over(room.ptr(), dtype, &parts_sizes, &parts_strides);
        if from == 0 {
            reduce::reduce(b, Reduction::Sum, &identity, &[parts], 1, &[sum_operand])?;
        } else {
            let more = b.scratch(total as usize * dtype.size())?;
            let more = b.over(more.ptr(), dtype, &flat_sizes, &one);
            reduce::reduce(b, Reduction::Sum, &identity, &[parts], 1, &[more])?;
            let add = [Step { op: StepOp::Apply(ScalarFn::Add), class, args: [0, 1, 0, 0] }];
            let program =
                Program { inputs: &[Input::Operand(class), Input::Operand(class)], steps: &add, results: &[2] };
            elementwise::map(b, &program, &[sum_operand, more], &[sum_operand])?;
        }
        from += count;
    }
    b.copy(&b.over(sum.ptr(), dtype, gw.sizes, &contiguous_strides(gw.sizes)), gw)
}

fn no_complex(name: &str, x: &Operand) -> Result<()> {
    ensure!(!x.dtype.is_complex(), NotImplemented, "\"{name}\" not implemented for '{}'", x.dtype.title());
    Ok(())
}

/// See [`Backend::max_pool`].
pub(crate) fn max_pool(b: &CudaBackend, x: &Operand, p: &Pool, out: &Operand, indices: Option<&Operand>) -> Result<()> {
    no_complex("max_pool", x)?;
    let plan = Plan::pool(x, out, p);
    if out.numel() == 0 {
        return Ok(());
    }
    let mut args = plan.args(x.sizes[0], Side::of(x), Side::of(out), 0, indices, false, 0);
    b.launch(kernels(b, x.dtype)?[2], Extent::linear(out.numel()), &mut args)
}

/// See [`Backend::avg_pool`].
pub(crate) fn avg_pool(b: &CudaBackend, x: &Operand, p: &Pool, out: &Operand) -> Result<()> {
    no_complex("avg_pool", x)?;
    let plan = Plan::pool(x, out, p);
    if out.numel() == 0 {
        return Ok(());
    }
    let mut args =
        plan.args(x.sizes[0], Side::of(x), Side::of(out), 0, None, p.count_include_pad, p.divisor.unwrap_or(0));
    b.launch(kernels(b, x.dtype)?[3], Extent::linear(out.numel()), &mut args)
}

/// See [`Backend::avg_pool_grad`].
pub(crate) fn avg_pool_grad(b: &CudaBackend, g: &Operand, p: &Pool, gx: &Operand) -> Result<()> {
    no_complex("avg_pool_grad", g)?;
    let plan = Plan::pool(gx, g, p);
    if gx.numel() == 0 {
        return Ok(());
    }
    let mut args =
        plan.args(gx.sizes[0], Side::of(gx), Side::of(g), 0, None, p.count_include_pad, p.divisor.unwrap_or(0));
    b.launch(kernels(b, gx.dtype)?[4], Extent::linear(gx.numel()), &mut args)
}
