//! Convolutions and their gradients as matrix products whose packing reads the windows in place: no column matrix is
//! ever stored. The gradient with respect to the input is such a product for every phase of the stride, so its sums are
//! gathered, in a fixed order, and never scattered.

use crate::conv_bands::Bands;
use crate::conv_planes;
use crate::conv_windows::{name, Images, Rows, Tap, Transposed, Windows};
use crate::direct::{self, Direct, DirectGrad};
use crate::element::{not_implemented, with_element, Element, Number, Ptr, Scratch};
use crate::gemm::{split, Bias, Panels, Product, Strided, SERIAL};
use crate::gemm_kernels::Scalar;
use crate::pool;
use crate::winograd;
use flambeau_core::{ensure, Conv, DType, Operand, Result, Shape};

/// Geometry in three spatial dimensions, the missing ones of size 1 in front.
pub(crate) struct Geometry {
    pub kernel: [usize; 3],
    pub stride: [usize; 3],
    pub padding: [isize; 3],
    pub dilation: [usize; 3],
    pub groups: usize,
}

impl Geometry {
    /// Checks the three tensors against each other: `x` the side with the windows, `y` the side with the results.
    fn new(name: &str, x: &Operand, w: &Operand, y: &Operand, geometry: &Conv) -> Result<Geometry> {
        let s = geometry.stride.len();
        ensure!(
            (1..=3).contains(&s)
                && geometry.padding.len() == s
                && geometry.dilation.len() == s
                && [x, w, y].iter().all(|t| t.sizes.len() == s + 2),
            Runtime,
            "{name}: {s} spatial dimensions do not fit input {}, weight {} and output {}",
            Shape(x.sizes),
            Shape(w.sizes),
            Shape(y.sizes)
        );
        ensure!(
            geometry.groups > 0
                && geometry.stride.iter().chain(&geometry.dilation).all(|&v| v > 0)
                && x.sizes[0] == y.sizes[0]
                && w.sizes[0] == y.sizes[1]
                && w.sizes[0] % geometry.groups == 0
                && w.sizes[1] * geometry.groups == x.sizes[1],
            Runtime,
            "{name}: given groups={}, weight of size {}, expected input {} and output {} to agree in samples and channels",
            geometry.groups,
            Shape(w.sizes),
            Shape(x.sizes),
            Shape(y.sizes)
        );
        ensure!(
            x.dtype == w.dtype && x.dtype == y.dtype,
            Runtime,
            "{name}: expected one dtype, but got {}, {} and {}",
            x.dtype,
            w.dtype,
            y.dtype
        );
        let three = |v: &[i64], missing: usize| {
            let mut r = [missing; 3];
            for (d, &v) in v.iter().enumerate() {
                r[d + 3 - s] = v as usize;
            }
            r
        };
        let mut padding = [0; 3];
        for (d, &p) in geometry.padding.iter().enumerate() {
            padding[d + 3 - s] = p as isize;
        }
        Ok(Geometry {
            kernel: three(&w.sizes[2..], 1),
            stride: three(&geometry.stride, 1),
            padding,
            dilation: three(&geometry.dilation, 1),
            groups: geometry.groups as usize,
        })
    }
    fn taps(&self) -> usize {
        self.kernel.iter().product()
    }
    /// Tap `t` as three coordinates.
    fn tap(&self, t: usize) -> [usize; 3] {
        [t / (self.kernel[1] * self.kernel[2]), t / self.kernel[2] % self.kernel[1], t % self.kernel[2]]
    }
    /// Where a tap reads, relative to `position · stride`.
    fn shift(&self, tap: [usize; 3]) -> [isize; 3] {
        std::array::from_fn(|d| (tap[d] * self.dilation[d]) as isize - self.padding[d])
    }
    /// What Winograd's filters are for.
    pub(crate) fn is_three_by_three(&self) -> bool {
        self.kernel == [1, 3, 3] && self.stride == [1; 3] && self.dilation == [1; 3] && self.padding[0] == 0
    }
    /// A product of one tap that reads every position once.
    fn is_pointwise(&self) -> bool {
        self.taps() == 1 && self.stride == [1; 3] && self.padding == [0; 3]
    }
}

/// A weight (o, c, kd, kh, kw).
struct Weight<E> {
    ptr: Ptr<E>,
    so: isize,
    sc: isize,
    taps: [isize; 3],
}
impl<E: Element> Weight<E> {
    fn new(w: &Operand) -> Self {
        let r = w.sizes.len();
        let mut taps = [0; 3];
        for d in 2..r {
            taps[d + 3 - r] = w.strides[d] as isize;
        }
        Weight { ptr: Ptr(w.ptr as *mut E), so: w.strides[0] as isize, sc: w.strides[1] as isize, taps }
    }
    fn at(&self, tap: [usize; 3]) -> isize {
        (0..3).map(|d| tap[d] as isize * self.taps[d]).sum()
    }
    /// The 3 × 3 windows from `first` on, for Winograd's filters.
    fn window(&self, first: *mut E, row: isize, channel: isize) -> winograd::Weight {
        winograd::Weight { ptr: Ptr(first as *mut f32), row, channel, taps: [self.taps[1], self.taps[2]] }
    }
    /// Row-major without gaps, with `columns` numbers a row.
    fn is_dense(&self, columns: usize, g: &Geometry) -> bool {
        let mut step = 1;
        for d in (0..3).rev() {
            if g.kernel[d] > 1 && self.taps[d] != step {
                return false;
            }
            step *= g.kernel[d] as isize;
        }
        self.sc == step && self.so == columns as isize
    }
}

/// `out[n, row, t] = Σ_k w[row, k] · window_k(n, t)`: rows of weights against windows of images.
pub(crate) struct Correlation<'a, E: Element> {
    pub rows: usize,
    pub windows: &'a Windows<'a, E>,
    pub weight: Ptr<E>,
    /// Elements between rows of the weight, and the offset of each step of K.
    pub weight_row: isize,
    pub weight_steps: &'a [isize],
    /// The result's memory: samples, rows, positions.
    pub out: Ptr<E>,
    pub out_sample: isize,
    pub out_row: isize,
    pub out_position: [isize; 3],
    pub bias: Option<Ptr<E::Acc>>,
}

/// The stride of positions walked as one, if there is one.
fn merged(size: &[usize; 3], stride: &[isize; 3]) -> Option<isize> {
    let mut found: Option<(isize, isize)> = None;
    for d in (0..3).rev() {
        if size[d] == 1 {
            continue;
        }
        found = match found {
            None => Some((stride[d], stride[d] * size[d] as isize)),
            Some((_, next)) if next != stride[d] => return None,
            Some((s, next)) => Some((s, next * size[d] as isize)),
        };
    }
    Some(found.map_or(1, |f| f.0))
}

impl<E: Element> Correlation<'_, E>
where
    E::Acc: Scalar,
{
    fn run(&self) {
        if Bands(self).pays() {
            return Bands(self).run();
        }
        let windows = self.windows;
        let (area, samples, k) = (windows.area(), windows.samples, windows.taps.len());
        let (m, n) = (self.rows, area * samples);
        if m * n == 0 {
            return;
        }
        // Enough lanes for the weight's packing to be cheap, few enough for many tasks.
        let wanted = ((1 << 24) / (m * k.max(1))).clamp(1024, 1 << 14);
        // Tasks take part of a sample, or several samples.
        let (tile, parts) = if area >= wanted {
            let parts = area.div_ceil(wanted);
            (area.div_ceil(parts), samples * parts)
        } else {
            let each = (wanted / area).clamp(1, samples);
            (each * area, samples.div_ceil(each))
        };
        let per_sample = area.div_ceil(tile);
        let inside = m * n * k.max(1) >= SERIAL && parts < 4;
        let task = |i: usize| {
            let (lo, hi) = if area >= wanted {
                let (s, part) = (i / per_sample, i % per_sample);
                (s * area + part * tile, s * area + ((part + 1) * tile).min(area))
            } else {
                (i * tile, ((i + 1) * tile).min(n))
            };
            if lo < hi {
                // SAFETY: the operands describe their memory; tasks write disjoint positions.
                unsafe { self.part(lo, hi, inside) };
            }
        };
        let parts = if area >= wanted { samples * per_sample } else { parts };
        if inside || m * n * k.max(1) < SERIAL {
            (0..parts).for_each(task);
        } else {
            pool::parallel(parts, task);
        }
    }

    /// Lanes `lo..hi` of all samples' positions.
    unsafe fn part(&self, lo: usize, hi: usize, parallel: bool) {
        let steps = self.weight_steps;
        let even = steps.len() < 2 || steps.windows(2).all(|p| p[1] - p[0] == steps[1] - steps[0]);
        if even {
            let step = if steps.len() < 2 { 1 } else { steps[1] - steps[0] };
            let first = steps.first().copied().unwrap_or(0);
            let weight = Strided { ptr: Ptr(self.weight.at(first)), lane: self.weight_row, step };
            self.with_weight(&weight, lo, hi, parallel);
        } else {
            self.with_weight(&Rows { ptr: self.weight, lane: self.weight_row, steps }, lo, hi, parallel);
        }
    }

    unsafe fn with_weight<W: Panels<E::Acc>>(&self, weight: &W, lo: usize, hi: usize, parallel: bool) {
        let windows = self.windows;
        let area = windows.area();
        let sample = lo / area;
        // One tap over whole samples is a plain matrix.
        if windows.plain && (hi - 1) / area == sample {
            if let Some(lane) = merged(&windows.size, &windows.stride) {
                let at =
                    sample as isize * windows.sample + (lo - sample * area) as isize * lane + windows.taps[0].offset;
                let matrix = Strided { ptr: Ptr(windows.image.at(at)), lane, step: windows.channel };
                return self.product(weight, &matrix, lo, hi, parallel);
            }
        }
        self.product(weight, &windows.from(lo), lo, hi, parallel);
    }

    unsafe fn product<W: Panels<E::Acc>, X: Panels<E::Acc>>(
        &self,
        weight: &W,
        x: &X,
        lo: usize,
        hi: usize,
        parallel: bool,
    ) {
        type Acc<E> = <E as Element>::Acc;
        let windows = self.windows;
        let (area, k) = (windows.area(), windows.taps.len());
        let (m, n) = (self.rows, hi - lo);
        let sample = lo / area;
        let bias = self.bias.map(|b| b.get() as *const Acc<E>);
        if (hi - 1) / area == sample && crate::gemm::same::<E, Acc<E>>() {
            if let Some(step) = merged(&windows.extent, &self.out_position) {
                let at = sample as isize * self.out_sample + (lo - sample * area) as isize * step;
                let c = self.out.at(at) as *mut Acc<E>;
                if step == 1 {
                    let bias = bias.map_or(Bias::None, Bias::Rows);
                    return Product { m, n, k, a: weight, b: x, c, ldc: self.out_row, accumulate: false, bias }
                        .run(parallel);
                }
                if self.out_row == 1 {
                    let bias = bias.map_or(Bias::None, Bias::Columns);
                    return Product { m: n, n: m, k, a: x, b: weight, c, ldc: step, accumulate: false, bias }
                        .run(parallel);
                }
            }
        }
        let mut whole = Scratch::<Acc<E>>::new(m * n);
        let c = whole.ptr();
        let bias = bias.map_or(Bias::None, Bias::Rows);
        Product { m, n, k, a: weight, b: x, c, ldc: n as isize, accumulate: false, bias }.run(parallel);
        let c = Ptr(c);
        split(parallel, m, ((1 << 14) / n).max(1), |r0, r1| {
            windows.segments(lo, hi, |at, len, s, t| {
                let to =
                    s as isize * self.out_sample + (0..3).map(|d| t[d] as isize * self.out_position[d]).sum::<isize>();
                for r in r0..r1 {
                    // SAFETY: as in `run`.
                    unsafe {
                        let (from, to) = (c.get().add(r * n + at), self.out.at(to + r as isize * self.out_row));
                        for j in 0..len {
                            *to.offset(j as isize * self.out_position[2]) = E::store(*from.add(j));
                        }
                    }
                }
            });
        });
    }
}

macro_rules! with_kind {
    ($dtype:expr, $name:expr, $E:ident, $scalar:expr, $plain:expr) => {
        match $dtype {
            DType::F32 => { type $E = f32; $scalar }
            DType::F64 => { type $E = f64; $scalar }
            DType::BF16 => { type $E = half::bf16; $scalar }
            DType::F16 => { type $E = half::f16; $scalar }
            DType::Bool => return Err(not_implemented($name, DType::Bool)),
            other => with_element!(other, $name, $E => $plain),
        }
    };
}

/// See [`flambeau_core::Backend::conv`].
pub fn conv(x: &Operand, w: &Operand, bias: Option<&Operand>, geometry: &Conv, out: &Operand) -> Result<()> {
    let g = Geometry::new("conv", x, w, out, geometry)?;
    if let Some(b) = bias {
        ensure!(
            b.sizes.len() == 1 && b.sizes[0] == w.sizes[0] && b.dtype == out.dtype,
            Runtime,
            "conv: expected a bias of sizes [{}] and {}, but got {} and {}",
            w.sizes[0],
            out.dtype,
            Shape(b.sizes),
            b.dtype
        );
    }
    if out.numel() == 0 {
        return Ok(());
    }
    let (rows, channels) = (w.sizes[0] as usize / g.groups, w.sizes[1] as usize);
    if conv_planes::pay(x, out, &g, rows, channels) {
        return conv_planes::with(x, out, true, |x, out| conv(x, w, bias, geometry, out));
    }
    with_kind!(x.dtype, "conv", E, forward::<E>(x, w, bias, &g, out), plain_forward::<E>(x, w, bias, &g, out));
    Ok(())
}

fn bias_values<E: Element>(bias: Option<&Operand>) -> Option<Scratch<E::Acc>> {
    let bias = bias?;
    let mut values = Scratch::new(bias.numel() as usize);
    for (i, v) in values.slice().iter_mut().enumerate() {
        // SAFETY: the operand describes its memory.
        *v = unsafe { (*(bias.ptr as *const E).offset(i as isize * bias.strides[0] as isize)).load() };
    }
    Some(values)
}

fn forward<E: Element>(x: &Operand, w: &Operand, bias: Option<&Operand>, g: &Geometry, out: &Operand)
where
    E::Acc: Scalar,
{
    let (x, weight, y) = (Images::<E>::new(x), Weight::<E>::new(w), Images::<E>::new(out));
    let (rows, channels) = (y.channels / g.groups, x.channels / g.groups);
    let mut bias = bias_values::<E>(bias);
    let bias = bias.as_mut().map(|b| Ptr(b.ptr()));
    let few = direct::pays(rows, channels, g.taps());
    if !few && crate::gemm::same::<E, f32>() && g.is_three_by_three() && winograd::pays(&x, &y, channels, rows) {
        for group in 0..g.groups {
            let ptr = unsafe_at(weight.ptr, (group * rows) as isize * weight.so);
            winograd::Winograd {
                x: &winograd::group(&x, group * channels),
                y: &winograd::group(&y, group * rows),
                channels,
                rows,
                weight: weight.window(ptr, weight.so, weight.sc),
                padding: [g.padding[1], g.padding[2]],
                bias: bias.map(|b| Ptr(unsafe_at(b, (group * rows) as isize) as *mut f32)),
            }
            .run();
        }
        return;
    }
    // Steps of K in the order in which the image's memory lies.
    let last = !few && x.channel == 1 && channels > 1 && g.taps() > 1;
    let (mut taps, mut steps) = (Vec::new(), Vec::new());
    for k in 0..channels * g.taps() {
        let (c, t) = if last { (k % channels, k / channels) } else { (k / g.taps(), k % g.taps()) };
        let tap = g.tap(t);
        taps.push(Tap { offset: c as isize * x.channel, shift: g.shift(tap) });
        steps.push(c as isize * weight.sc + weight.at(tap));
    }
    let all = Windows {
        image: x.ptr,
        samples: x.samples,
        sample: x.sample,
        channel: x.channel,
        size: x.size,
        stride: x.stride,
        extent: y.size,
        step: g.stride,
        taps: &taps,
        cycle: if last { 0 } else { g.taps() },
        name: name(),
        first: 0,
        plain: g.is_pointwise(),
    };
    if few {
        return Direct {
            windows: &all,
            groups: g.groups,
            channels,
            rows,
            weight: weight.ptr,
            weight_group: rows as isize * weight.so,
            weight_row: weight.so,
            weight_steps: &steps,
            out: y.ptr,
            out_sample: y.sample,
            out_row: y.channel,
            out_position: y.stride,
            bias,
        }
        .run();
    }
    for group in 0..g.groups {
        let windows = Windows { image: Ptr(unsafe_at(x.ptr, (group * channels) as isize * x.channel)), ..all };
        Correlation {
            rows,
            windows: &windows,
            weight: Ptr(unsafe_at(weight.ptr, (group * rows) as isize * weight.so)),
            weight_row: weight.so,
            weight_steps: &steps,
            out: Ptr(unsafe_at(y.ptr, (group * rows) as isize * y.channel)),
            out_sample: y.sample,
            out_row: y.channel,
            out_position: y.stride,
            bias: bias.map(|b| Ptr(unsafe_at(b, (group * rows) as isize))),
        }
        .run();
    }
}

/// `p + i`, an address inside the operand that `p` leads to.
fn unsafe_at<T>(p: Ptr<T>, i: isize) -> *mut T {
    p.get().wrapping_offset(i)
}

/// See [`flambeau_core::Backend::conv_input_grad`].
pub fn conv_input_grad(g: &Operand, w: &Operand, geometry: &Conv, gx: &Operand) -> Result<()> {
    let shape = Geometry::new("conv_input_grad", gx, w, g, geometry)?;
    if gx.numel() == 0 {
        return Ok(());
    }
    let (rows, channels) = (w.sizes[0] as usize / shape.groups, w.sizes[1] as usize);
    if conv_planes::pay(g, gx, &shape, channels, rows) {
        return conv_planes::with(g, gx, true, |g, gx| conv_input_grad(g, w, geometry, gx));
    }
    with_kind!(
        g.dtype,
        "conv_input_grad",
        E,
        input_grad::<E>(g, w, &shape, gx),
        plain_input_grad::<E>(g, w, &shape, gx)
    );
    Ok(())
}

fn input_grad<E: Element>(g: &Operand, w: &Operand, shape: &Geometry, gx: &Operand)
where
    E::Acc: Scalar,
{
    let (y, weight, x) = (Images::<E>::new(g), Weight::<E>::new(w), Images::<E>::new(gx));
    let (outputs, channels) = (y.channels / shape.groups, x.channels / shape.groups);
    let few = direct::pays(channels, outputs, shape.taps());
    if !few && crate::gemm::same::<E, f32>() && shape.is_three_by_three() && winograd::pays(&y, &x, outputs, channels) {
        // A convolution of the result's gradient with every window turned around.
        for group in 0..shape.groups {
            let first = unsafe_at(weight.ptr, (group * outputs) as isize * weight.so);
            winograd::Winograd {
                x: &winograd::group(&y, group * outputs),
                y: &winograd::group(&x, group * channels),
                channels: outputs,
                rows: channels,
                weight: weight.window(first, weight.sc, weight.so).turned(),
                padding: [2 - shape.padding[1], 2 - shape.padding[2]],
                bias: None,
            }
            .run();
        }
        return;
    }
    let phases: usize = shape.stride.iter().product();
    for phase in 0..phases {
        let r = [
            phase / (shape.stride[1] * shape.stride[2]),
            phase / shape.stride[2] % shape.stride[1],
            phase % shape.stride[2],
        ];
        // Positions i = stride · t + r of the input; a tap reaches them from output (i + padding - tap · dilation) / stride.
        let extent: [usize; 3] = std::array::from_fn(|d| {
            (x.size[d] + shape.stride[d] - 1 - r[d].min(x.size[d] + shape.stride[d] - 1)) / shape.stride[d]
        });
        if extent.contains(&0) {
            continue;
        }
        let mut reached = Vec::new();
        for t in 0..shape.taps() {
            let tap = shape.tap(t);
            let from: [isize; 3] =
                std::array::from_fn(|d| r[d] as isize + shape.padding[d] - (tap[d] * shape.dilation[d]) as isize);
            if (0..3).all(|d| from[d].rem_euclid(shape.stride[d] as isize) == 0) {
                reached.push((tap, std::array::from_fn(|d| from[d].div_euclid(shape.stride[d] as isize))));
            }
        }
        let last = !few && y.channel == 1 && outputs > 1 && reached.len() > 1;
        let (mut taps, mut steps) = (Vec::new(), Vec::new());
        for k in 0..outputs * reached.len() {
            let (o, t) = if last { (k % outputs, k / outputs) } else { (k / reached.len(), k % reached.len()) };
            let (tap, shift) = reached[t];
            taps.push(Tap { offset: o as isize * y.channel, shift });
            steps.push(o as isize * weight.so + weight.at(tap));
        }
        let all = Windows {
            image: y.ptr,
            samples: y.samples,
            sample: y.sample,
            channel: y.channel,
            size: y.size,
            stride: y.stride,
            extent,
            step: [1; 3],
            taps: &taps,
            cycle: if last { 0 } else { reached.len() },
            name: name(),
            first: 0,
            plain: shape.is_pointwise(),
        };
        let start = (0..3).map(|d| r[d] as isize * x.stride[d]).sum::<isize>();
        let out_position = std::array::from_fn(|d| x.stride[d] * shape.stride[d] as isize);
        if few {
            Direct {
                windows: &all,
                groups: shape.groups,
                channels: outputs,
                rows: channels,
                weight: weight.ptr,
                weight_group: outputs as isize * weight.so,
                weight_row: weight.sc,
                weight_steps: &steps,
                out: Ptr(unsafe_at(x.ptr, start)),
                out_sample: x.sample,
                out_row: x.channel,
                out_position,
                bias: None,
            }
            .run();
            continue;
        }
        for group in 0..shape.groups {
            let windows = Windows { image: Ptr(unsafe_at(y.ptr, (group * outputs) as isize * y.channel)), ..all };
            let at = (group * channels) as isize * x.channel + start;
            Correlation {
                rows: channels,
                windows: &windows,
                weight: Ptr(unsafe_at(weight.ptr, (group * outputs) as isize * weight.so)),
                weight_row: weight.sc,
                weight_steps: &steps,
                out: Ptr(unsafe_at(x.ptr, at)),
                out_sample: x.sample,
                out_row: x.channel,
                out_position,
                bias: None,
            }
            .run();
        }
    }
}

/// See [`flambeau_core::Backend::conv_weight_grad`].
pub fn conv_weight_grad(g: &Operand, x: &Operand, geometry: &Conv, gw: &Operand) -> Result<()> {
    let shape = Geometry::new("conv_weight_grad", x, gw, g, geometry)?;
    if gw.numel() == 0 {
        return Ok(());
    }
    let (rows, channels) = (gw.sizes[0] as usize / shape.groups, gw.sizes[1] as usize);
    if conv_planes::pay(x, g, &shape, rows, channels) {
        return conv_planes::with(x, g, false, |x, g| conv_weight_grad(g, x, geometry, gw));
    }
    with_kind!(
        g.dtype,
        "conv_weight_grad",
        E,
        weight_grad::<E>(g, x, &shape, gw),
        plain_weight_grad::<E>(g, x, &shape, gw)
    );
    Ok(())
}

/// Partial sums over groups of samples, at most this many, and numbers that they may take together.
const PARTS: usize = 16;
const PARTIAL: usize = 1 << 23;
/// Positions that a part sums over at least: fewer would cost less than writing and adding up its sums.
const PART_STEPS: usize = 512;
/// Groups that are enough tasks for the direct sums of a weight's gradient.
const MANY: usize = 8;

fn weight_grad<E: Element>(g: &Operand, x: &Operand, shape: &Geometry, gw: &Operand)
where
    E::Acc: Scalar,
{
    let (y, x, weight) = (Images::<E>::new(g), Images::<E>::new(x), Weight::<E>::new(gw));
    let (rows, channels) = (y.channels / shape.groups, x.channels / shape.groups);
    let columns = channels * shape.taps();
    let area: usize = y.size.iter().product();
    let few = direct::pays(rows, channels, shape.taps());
    if !few && crate::gemm::same::<E, f32>() && shape.is_three_by_three() && winograd::pays(&x, &y, channels, rows) {
        for group in 0..shape.groups {
            let ptr = unsafe_at(weight.ptr, (group * rows) as isize * weight.so);
            winograd::WinogradGrad {
                x: &winograd::group(&x, group * channels),
                g: &winograd::group(&y, group * rows),
                channels,
                rows,
                weight: weight.window(ptr, weight.so, weight.sc),
                padding: [shape.padding[1], shape.padding[2]],
            }
            .run();
        }
        return;
    }
    let mut taps = Vec::new();
    for k in 0..columns {
        let tap = shape.tap(k % shape.taps());
        taps.push(Tap { offset: (k / shape.taps()) as isize * x.channel, shift: shape.shift(tap) });
    }
    if shape.groups >= MANY && few && y.samples * area > 0 {
        let steps: Vec<isize> = (0..columns)
            .map(|k| (k / shape.taps()) as isize * weight.sc + weight.at(shape.tap(k % shape.taps())))
            .collect();
        let windows = Windows {
            image: x.ptr,
            samples: x.samples,
            sample: x.sample,
            channel: x.channel,
            size: x.size,
            stride: x.stride,
            extent: y.size,
            step: shape.stride,
            taps: &taps,
            cycle: shape.taps(),
            name: name(),
            first: 0,
            plain: false,
        };
        return DirectGrad {
            windows: &windows,
            gradient: &y,
            groups: shape.groups,
            channels,
            rows,
            weight: weight.ptr,
            weight_row: weight.so,
            weight_steps: &steps,
        }
        .run();
    }
    // The same windows of one position each, for reading the output's gradient.
    let own: Vec<Tap> = (0..rows).map(|o| Tap { offset: o as isize * y.channel, shift: [0; 3] }).collect();
    let size = rows * columns;
    let parts = y.samples.min(PARTS).min(PARTIAL / (size * shape.groups)).min(y.samples * area / PART_STEPS).max(1);
    let per = y.samples.div_ceil(parts);
    let parts = if per == 0 { 1 } else { y.samples.div_ceil(per) };
    // A dense result of the accumulator's own type takes a single part's sums as they come.
    let dense = weight.is_dense(columns, shape);
    let direct = dense && parts == 1 && crate::gemm::same::<E, E::Acc>();
    let mut partial = Scratch::<E::Acc>::new(if direct { 0 } else { parts * shape.groups * size });
    let sums = if direct { Ptr(weight.ptr.get() as *mut E::Acc) } else { Ptr(partial.ptr()) };
    let tasks = parts * shape.groups;
    let inside = tasks < 4;
    let task = |i: usize| {
        let (part, group) = (i / shape.groups, i % shape.groups);
        let samples = per.min(y.samples - part * per);
        let windows = Windows {
            image: Ptr(unsafe_at(x.ptr, (group * channels) as isize * x.channel + (part * per) as isize * x.sample)),
            samples,
            sample: x.sample,
            channel: x.channel,
            size: x.size,
            stride: x.stride,
            extent: y.size,
            step: shape.stride,
            taps: &taps,
            cycle: shape.taps(),
            name: name(),
            first: 0,
            plain: false,
        };
        let gradient = Windows {
            image: Ptr(unsafe_at(y.ptr, (group * rows) as isize * y.channel + (part * per) as isize * y.sample)),
            sample: y.sample,
            channel: y.channel,
            size: y.size,
            stride: y.stride,
            step: [1; 3],
            taps: &own,
            cycle: 1,
            name: name(),
            ..windows
        };
        // SAFETY: the operands describe their memory; every task has its own partial sums.
        unsafe {
            Product {
                m: rows,
                n: columns,
                k: samples * area,
                a: &Transposed(gradient),
                b: &Transposed(windows),
                c: sums.get().add(i * size),
                ldc: columns as isize,
                accumulate: false,
                bias: Bias::None,
            }
            .run(inside);
        }
    };
    if inside || rows * columns * area * y.samples < SERIAL {
        (0..tasks).for_each(task);
    } else {
        pool::parallel(tasks, task);
    }
    if direct {
        return;
    }
    let total = shape.groups * size;
    split(total * parts >= 1 << 16, total, 1 << 13, |lo, hi| {
        // SAFETY: tasks combine and store disjoint positions.
        unsafe {
            let piece = |p: usize| std::slice::from_raw_parts_mut(sums.get().add(p * total + lo), hi - lo);
            let mut k = parts;
            while k > 1 {
                let h = k.div_ceil(2);
                for p in 0..k - h {
                    for (to, from) in piece(p).iter_mut().zip(piece(p + h)) {
                        *to = to.add(*from);
                    }
                }
                k = h;
            }
            let sums = piece(0);
            if dense {
                for (i, v) in sums.iter().enumerate() {
                    *weight.ptr.at((lo + i) as isize) = E::store(*v);
                }
                return;
            }
            for (i, v) in (lo..hi).zip(sums) {
                let (o, k) = (i / columns, i % columns);
                let at = o as isize * weight.so
                    + (k / shape.taps()) as isize * weight.sc
                    + weight.at(shape.tap(k % shape.taps()));
                *weight.ptr.at(at) = E::store(*v);
            }
        }
    });
}

// ---- integers and complex numbers: the definition ----------------------------------------------------------------------

/// Calls `f(tap, position in the image)` for the taps of output position `o` that lie inside.
fn inside(g: &Geometry, size: &[usize; 3], o: [usize; 3], mut f: impl FnMut([usize; 3], [usize; 3])) {
    for t in 0..g.taps() {
        let tap = g.tap(t);
        let shift = g.shift(tap);
        let at: [isize; 3] = std::array::from_fn(|d| (o[d] * g.stride[d]) as isize + shift[d]);
        if (0..3).all(|d| at[d] >= 0 && (at[d] as usize) < size[d]) {
            f(tap, at.map(|v| v as usize));
        }
    }
}

fn position(size: &[usize; 3], i: usize) -> [usize; 3] {
    [i / (size[1] * size[2]), i / size[2] % size[1], i % size[2]]
}

fn plain_forward<E: Element>(x: &Operand, w: &Operand, bias: Option<&Operand>, g: &Geometry, out: &Operand) {
    let (x, w, y) = (Images::<E>::new(x), Weight::<E>::new(w), Images::<E>::new(out));
    let (rows, channels) = (y.channels / g.groups, x.channels / g.groups);
    let mut bias = bias_values::<E>(bias);
    let bias = bias.as_mut().map(|b| &*b.slice());
    pool::parallel(y.samples * y.channels, |i| {
        let (s, o) = (i / y.channels, i % y.channels);
        for p in 0..y.area() {
            let at = position(&y.size, p);
            let mut sum = E::Acc::default();
            for c in 0..channels {
                inside(g, &x.size, at, |tap, v| {
                    // SAFETY: the operands describe their memory; tasks write disjoint planes.
                    let (a, b) = unsafe {
                        (
                            *x.at(s, o / rows * channels + c, v),
                            *w.ptr.at(o as isize * w.so + c as isize * w.sc + w.at(tap)),
                        )
                    };
                    sum = sum.add(a.load().mul(b.load()));
                });
            }
            if let Some(b) = bias {
                sum = sum.add(b[o]);
            }
            // SAFETY: as above.
            unsafe { *y.at(s, o, at) = E::store(sum) };
        }
    });
}

fn plain_input_grad<E: Element>(g: &Operand, w: &Operand, shape: &Geometry, gx: &Operand) {
    let (y, w, x) = (Images::<E>::new(g), Weight::<E>::new(w), Images::<E>::new(gx));
    let (rows, channels) = (y.channels / shape.groups, x.channels / shape.groups);
    pool::parallel(x.samples * x.channels, |i| {
        let (s, c) = (i / x.channels, i % x.channels);
        let mut plane = vec![E::Acc::default(); x.area()];
        for o in c / channels * rows..(c / channels + 1) * rows {
            for p in 0..y.area() {
                let at = position(&y.size, p);
                inside(shape, &x.size, at, |tap, v| {
                    // SAFETY: the operands describe their memory; tasks write disjoint planes.
                    let (a, b) = unsafe {
                        (*y.at(s, o, at), *w.ptr.at(o as isize * w.so + (c % channels) as isize * w.sc + w.at(tap)))
                    };
                    let to = &mut plane[(v[0] * x.size[1] + v[1]) * x.size[2] + v[2]];
                    *to = to.add(a.load().mul(b.load()));
                });
            }
        }
        for (p, v) in plane.into_iter().enumerate() {
            // SAFETY: as above.
            unsafe { *x.at(s, c, position(&x.size, p)) = E::store(v) };
        }
    });
}

fn plain_weight_grad<E: Element>(g: &Operand, x: &Operand, shape: &Geometry, gw: &Operand) {
    let (y, x, w) = (Images::<E>::new(g), Images::<E>::new(x), Weight::<E>::new(gw));
    let (rows, channels) = (y.channels / shape.groups, x.channels / shape.groups);
    pool::parallel(y.channels * channels, |i| {
        let (o, c) = (i / channels, i % channels);
        let mut sums = vec![E::Acc::default(); shape.taps()];
        for s in 0..y.samples {
            for p in 0..y.area() {
                let at = position(&y.size, p);
                inside(shape, &x.size, at, |tap, v| {
                    // SAFETY: the operands describe their memory; tasks write disjoint weights.
                    let (a, b) = unsafe { (*y.at(s, o, at), *x.at(s, o / rows * channels + c, v)) };
                    let to = &mut sums[(tap[0] * shape.kernel[1] + tap[1]) * shape.kernel[2] + tap[2]];
                    *to = to.add(a.load().mul(b.load()));
                });
            }
        }
        for (t, v) in sums.into_iter().enumerate() {
            // SAFETY: as above.
            unsafe { *w.ptr.at(o as isize * w.so + c as isize * w.sc + w.at(shape.tap(t))) = E::store(v) };
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{compare, Case};
    use flambeau_core::channels_last_strides;

    struct Problem {
        x: Vec<i64>,
        w: Vec<i64>,
        conv: Conv,
    }
    fn problem(x: &[i64], w: &[i64], stride: &[i64], padding: &[i64], dilation: &[i64], groups: i64) -> Problem {
        Problem {
            x: x.to_vec(),
            w: w.to_vec(),
            conv: Conv { stride: stride.to_vec(), padding: padding.to_vec(), dilation: dilation.to_vec(), groups },
        }
    }

    #[test]
    fn against_the_definition() {
        let problems = [
            problem(&[2, 6, 9, 11], &[8, 6, 3, 3], &[1, 1], &[1, 1], &[1, 1], 1),
            problem(&[3, 6, 9, 11], &[8, 3, 3, 2], &[2, 1], &[1, 0], &[1, 2], 2),
            problem(&[2, 16, 20, 20], &[24, 16, 1, 1], &[1, 1], &[0, 0], &[1, 1], 1),
            problem(&[2, 16, 8, 8], &[24, 16, 1, 1], &[2, 2], &[0, 0], &[1, 1], 1),
            problem(&[2, 6, 12, 10], &[12, 1, 3, 3], &[2, 1], &[1, 1], &[1, 1], 6),
            // Few weights a result: bands, phases, slices, several channels and results of a group, channels as lanes.
            problem(&[2, 40, 30, 37], &[40, 1, 3, 3], &[1, 1], &[1, 1], &[1, 1], 40),
            problem(&[1, 9, 90, 85], &[18, 1, 5, 5], &[2, 3], &[2, 1], &[2, 1], 9),
            problem(&[2, 16, 12, 9], &[24, 2, 2, 3], &[1, 2], &[0, 3], &[1, 1], 8),
            problem(&[2, 8, 6, 7, 8], &[8, 1, 3, 2, 3], &[2, 1, 2], &[1, 1, 0], &[1, 2, 1], 8),
            problem(&[3, 1, 11, 12], &[20, 1, 3, 3], &[1, 1], &[0, 0], &[1, 1], 1),
            problem(&[2, 12, 70], &[12, 1, 7], &[1], &[3], &[1], 12),
            problem(&[5, 20, 30], &[9, 20, 4], &[3], &[2], &[2], 1),
            problem(&[2, 3, 5, 6, 7], &[4, 3, 2, 3, 2], &[1, 2, 1], &[1, 0, 1], &[1, 1, 2], 1),
            problem(&[1, 3, 40, 40], &[8, 3, 7, 7], &[2, 2], &[3, 3], &[1, 1], 1),
            problem(&[2, 4, 3, 3], &[6, 4, 2, 2], &[5, 5], &[0, 0], &[1, 1], 1),
            // Bands for many results, in the first layout and type: slices, phases, rows and columns that do not fill a tile.
            problem(&[2, 5, 4, 11, 41], &[11, 5, 2, 3, 3], &[1, 1, 2], &[1, 1, 1], &[1, 1, 1], 1),
            problem(&[1, 8, 23, 40], &[20, 4, 5, 3], &[3, 1], &[2, 2], &[1, 2], 2),
            // The same with more steps than are summed at once.
            problem(&[1, 30, 8, 21], &[9, 30, 5, 5], &[1, 1], &[2, 2], &[1, 1], 1),
            // Winograd's filters, in the first layout and type: odd sizes, groups, wide padding and none.
            problem(&[2, 40, 10, 9], &[40, 40, 3, 3], &[1, 1], &[1, 1], &[1, 1], 1),
            problem(&[1, 80, 13, 12], &[80, 40, 3, 3], &[1, 1], &[2, 3], &[1, 1], 2),
            problem(&[3, 40, 12, 11], &[40, 40, 3, 3], &[1, 1], &[0, 0], &[1, 1], 1),
        ];
        for dtype in [DType::F32, DType::F64, DType::BF16, DType::I32, DType::C64] {
            for p in &problems {
                for layout in 0..2 {
                    let s = p.conv.stride.len();
                    let mut so = vec![p.x[0], p.w[0]];
                    for d in 0..s {
                        let (c, k) = (&p.conv, p.w[d + 2]);
                        so.push((p.x[d + 2] + 2 * c.padding[d] - c.dilation[d] * (k - 1) - 1) / c.stride[d] + 1);
                    }
                    let make = |sizes: &[i64], seed| {
                        let mut c = Case::random(dtype, sizes, false, seed);
                        if layout == 1 && sizes.len() > 3 {
                            c.strides = channels_last_strides(sizes).to_vec();
                        } else if layout == 1 {
                            c = Case::random(dtype, sizes, true, seed);
                        }
                        c
                    };
                    let (x, w, y) = (make(&p.x, 1), make(&p.w, 2), make(&so, 3));
                    let (g, gx, gw) = (make(&so, 4), make(&p.x, 5), make(&p.w, 6));
                    let bias = Case::random(dtype, &[p.w[0]], false, 7);
                    let mut bits: Option<[Vec<u8>; 3]> = None;
                    for threads in [1, 2, 8] {
                        pool::set_num_threads(threads);
                        conv(&x.operand(), &w.operand(), Some(&bias.operand()), &p.conv, &y.operand()).unwrap();
                        conv_input_grad(&g.operand(), &w.operand(), &p.conv, &gx.operand()).unwrap();
                        conv_weight_grad(&g.operand(), &x.operand(), &p.conv, &gw.operand()).unwrap();
                        let now = [y.bytes.clone(), gx.bytes.clone(), gw.bytes.clone()];
                        assert!(*bits.get_or_insert(now.clone()) == now);
                    }
                    let geometry = Geometry::new("test", &x.operand(), &w.operand(), &y.operand(), &p.conv).unwrap();
                    let (xi, yi) = (Images::<u8>::new(&x.operand()), Images::<u8>::new(&y.operand()));
                    let (xv, wv, gv, bv) = (x.values(), w.values(), g.values(), bias.values());
                    let (mut vy, mut vx, mut vw) = (
                        vec![Default::default(); gv.len()],
                        vec![Default::default(); xv.len()],
                        vec![Default::default(); wv.len()],
                    );
                    let (rows, channels) = (yi.channels / geometry.groups, xi.channels / geometry.groups);
                    for n in 0..yi.samples {
                        for (o, b) in bv.iter().enumerate() {
                            for q in 0..yi.area() {
                                let iy = (n * yi.channels + o) * yi.area() + q;
                                vy[iy] += b;
                                for c in 0..channels {
                                    inside(&geometry, &xi.size, position(&yi.size, q), |t, v| {
                                        let ix = (n * xi.channels + o / rows * channels + c) * xi.area()
                                            + (v[0] * xi.size[1] + v[1]) * xi.size[2]
                                            + v[2];
                                        let k = &geometry.kernel;
                                        let iw =
                                            (o * channels + c) * geometry.taps() + (t[0] * k[1] + t[1]) * k[2] + t[2];
                                        vy[iy] += xv[ix] * wv[iw];
                                        vx[ix] += gv[iy] * wv[iw];
                                        vw[iw] += gv[iy] * xv[ix];
                                    });
                                }
                            }
                        }
                    }
                    compare(&y, &vy, 60.0, &format!("conv {dtype} {:?} {layout}", p.conv));
                    compare(&gx, &vx, 60.0, &format!("conv_input_grad {dtype} {:?} {layout}", p.conv));
                    compare(&gw, &vw, 90.0, &format!("conv_weight_grad {dtype} {:?} {layout}", p.conv));
                }
            }
        }
    }
}
