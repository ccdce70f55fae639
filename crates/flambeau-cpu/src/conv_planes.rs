//! Images whose channels lie beside each other (channels last), taken as planes where that is the faster way to convolve them:
//! copying costs little beside the multiplications that Winograd's filters save.

use crate::conv::Geometry;
use crate::conv_windows::Images;
use crate::direct;
use crate::element::Scratch;
use crate::map::map;
use crate::winograd;
use flambeau_core::{contiguous_strides, DType, Dims, Input, Operand, Program, Result};

/// Channels of an image that are too few to be read beside each other.
const FEW: usize = 4;

/// A copy of an image, or room for one, in planes.
struct Planes {
    room: Scratch<u64>,
    strides: Dims,
}
impl Planes {
    fn new(o: &Operand) -> Planes {
        let words = (o.numel() as usize * o.dtype.size()).div_ceil(8);
        Planes { room: Scratch::new(words), strides: contiguous_strides(o.sizes) }
    }
    fn operand<'a>(&'a mut self, o: &Operand<'a>) -> Operand<'a> {
        Operand { ptr: self.room.ptr() as *mut u8, strides: &self.strides, ..*o }
    }
}

fn by_channels(o: &Operand) -> bool {
    let r = o.sizes.len();
    r > 3 && o.sizes[1] > 1 && o.strides[1] == 1 && o.sizes[r - 1] > 1
}

fn copy(from: &Operand, to: &Operand) -> Result<()> {
    let inputs = [Input::Operand(from.dtype.class())];
    map(&Program { inputs: &inputs, steps: &[], results: &[0] }, &[*from], &[*to])
}

/// Whether a convolution of `x` to `y`, of `channels` to `rows` a group, should see them as planes.
pub(crate) fn pay(x: &Operand, y: &Operand, g: &Geometry, rows: usize, channels: usize) -> bool {
    let taps = g.kernel.iter().product();
    if x.dtype != DType::F32 || taps == 1 || !(by_channels(x) || by_channels(y)) || direct::pays(rows, channels, taps) {
        return false;
    }
    let (sx, sy) = (contiguous_strides(x.sizes), contiguous_strides(y.sizes));
    let planes = [Operand { strides: &sx, ..*x }, Operand { strides: &sy, ..*y }].map(|o| Images::<f32>::new(&o));
    channels.min(rows) <= FEW || g.is_three_by_three() && winograd::pays(&planes[0], &planes[1], channels, rows)
}

/// Calls `f` with two images as planes: the first is read, the second read or, when `writes`, written.
///
/// # Errors
/// Those of `f`.
pub(crate) fn with(
    x: &Operand,
    y: &Operand,
    writes: bool,
    f: impl FnOnce(&Operand, &Operand) -> Result<()>,
) -> Result<()> {
    let (mut px, mut py) = (Planes::new(x), Planes::new(y));
    let (a, b) = (px.operand(x), py.operand(y));
    copy(x, &a)?;
    if !writes {
        copy(y, &b)?;
    }
    f(&a, &b)?;
    if writes {
        copy(&b, y)?;
    }
    Ok(())
}
