//! Products of 8-bit integers, summed in 32 bits. Neighbours along K are moved about as one word in the place of a float32, so
//! that packing and blocking are those of float32 over fewer steps: four numbers where the machine multiplies and adds as many
//! at once (VNNI), else two of 16 bits.

use crate::element::{unravel, Ptr, Scratch};
use crate::gemm::{split, Bias, Panels, Product, SERIAL};
use crate::gemm_kernels::{int8_micro, transpose_bits, Micro};
use crate::isa::{dispatch, prefetch, Isa, Kernel};
use crate::matmul::plain;
use flambeau_core::{contiguous_strides, DType, Epilogue, Operand};

/// A matrix of bytes, read as words along K.
struct Words {
    at: Ptr<u8>,
    /// Elements between lanes and between steps of K.
    lane: isize,
    step: isize,
    /// Single steps; what is missing in the last word is 0.
    k: usize,
    form: Form,
    micro: Micro<f32>,
}

/// What a word holds of the numbers.
#[derive(Clone, Copy, PartialEq)]
enum Form {
    /// Four, as they are.
    Bytes,
    /// Four, each 128 larger: the instruction takes one side without sign.
    Shifted,
    /// Two, whose sign is kept.
    Signed,
    /// Two, which have none.
    Unsigned,
}
impl Form {
    fn numbers(self) -> usize {
        match self {
            Form::Bytes | Form::Shifted => 4,
            Form::Signed | Form::Unsigned => 2,
        }
    }
    /// A word of numbers that are there; the others are 0.
    #[inline(always)]
    fn word(self, x: [u8; 4]) -> u32 {
        let two = |low: u16, high: u16| low as u32 | (high as u32) << 16;
        let signed = |x: u8| x as i8 as i16 as u16;
        match self {
            Form::Bytes => u32::from_le_bytes(x),
            Form::Shifted => u32::from_le_bytes(x) ^ 0x8080_8080,
            Form::Signed => two(signed(x[0]), signed(x[1])),
            Form::Unsigned => two(x[0] as u16, x[1] as u16),
        }
    }
}

/// Rows of adjacent lanes, each two or four woven into one row of words.
struct Weave {
    from: *const u8,
    /// Between rows.
    step: isize,
    /// Rows that are there; those behind them are zeros.
    there: usize,
    form: Form,
    to: *mut u32,
    width: usize,
    lanes: usize,
    k: usize,
}
impl Weave {
    /// # Safety
    /// Of [`Panels::pack`].
    #[inline(always)]
    unsafe fn of(&self, form: Form) {
        let (numbers, n, zeros) = (form.numbers(), self.lanes, [0u8; 64]);
        for p in 0..self.k {
            let row = |q: usize| {
                let at = numbers * p + q;
                let there = q < numbers && at < self.there;
                // So many streams are more than the machine follows by itself.
                prefetch(self.from.wrapping_offset((at + 32) as isize * self.step));
                std::slice::from_raw_parts(
                    if there { self.from.offset(at as isize * self.step) } else { zeros.as_ptr() },
                    n,
                )
            };
            let (a, b, c, d) = (row(0), row(1), row(2), row(3));
            let to = std::slice::from_raw_parts_mut(self.to.add(p * self.width), n);
            for i in 0..n {
                to[i] = form.word([a[i], b[i], c[i], d[i]]);
            }
        }
    }
}
impl Kernel for Weave {
    type Out = ();
    #[inline(always)]
    fn run<I: Isa>(self) {
        // SAFETY: whoever makes a `Weave` answers for `Panels::pack`'s contract.
        unsafe {
            match self.form {
                Form::Bytes => self.of(Form::Bytes),
                Form::Shifted => self.of(Form::Shifted),
                Form::Signed => self.of(Form::Signed),
                Form::Unsigned => self.of(Form::Unsigned),
            }
        }
    }
}

/// Adjacent numbers as words.
struct Group<'a>(&'a [u8], Form, &'a mut [u32]);
impl Kernel for Group<'_> {
    type Out = ();
    #[inline(always)]
    fn run<I: Isa>(self) {
        let Group(from, form, to) = self;
        macro_rules! group {
            ($form:expr, $n:literal) => {{
                let (whole, rest) = from.as_chunks::<$n>();
                let n = whole.len();
                for (to, x) in to[..n].iter_mut().zip(whole) {
                    let mut four = [0; 4];
                    four[..$n].copy_from_slice(x);
                    *to = $form.word(four);
                }
                if !rest.is_empty() {
                    let mut four = [0; 4];
                    four[..rest.len()].copy_from_slice(rest);
                    to[n] = $form.word(four);
                }
            }};
        }
        match form {
            Form::Bytes => group!(Form::Bytes, 4),
            Form::Shifted => group!(Form::Shifted, 4),
            Form::Signed => group!(Form::Signed, 2),
            Form::Unsigned => group!(Form::Unsigned, 2),
        }
    }
}

impl Panels<f32> for Words {
    unsafe fn pack(&self, dst: *mut f32, width: usize, lane: usize, lanes: usize, k: usize, kb: usize) {
        let numbers = self.form.numbers();
        let src = self.at.at(lane as isize * self.lane + (numbers * k) as isize * self.step) as *const u8;
        // Numbers from the first step to the end of these words, or of K.
        let there = (numbers * kb).min(self.k - numbers * k);
        if self.lane == 1 {
            let to = dst as *mut u32;
            dispatch(Weave { from: src, step: self.step, there, form: self.form, to, width, lanes, k: kb });
            return;
        }
        // Some words of every lane, one lane after another, are turned.
        const BLOCK: usize = 128;
        let mut room = Scratch::<u32>::new(lanes * BLOCK);
        let mut bytes = [0u8; 4 * BLOCK];
        for p in (0..kb).step_by(BLOCK) {
            let n = BLOCK.min(kb - p);
            let first = numbers * p;
            let count = (numbers * n).min(there - first);
            for l in 0..lanes {
                let from = src.offset(l as isize * self.lane + first as isize * self.step);
                let from = if self.step == 1 {
                    std::slice::from_raw_parts(from, count)
                } else {
                    for (q, b) in bytes[..count].iter_mut().enumerate() {
                        *b = *from.offset(q as isize * self.step);
                    }
                    &bytes[..count]
                };
                dispatch(Group(from, self.form, &mut room.slice()[l * BLOCK..][..n]));
            }
            transpose_bits(4, dst.add(p * width) as *mut u8, width, room.ptr() as *const u8, BLOCK as isize, lanes, n);
        }
    }
    fn micro(&self) -> Option<Micro<f32>> {
        Some(self.micro)
    }
}

/// `to[l] += from[l]`
struct AddRow<'a>(&'a [i8], &'a mut [i32]);
impl Kernel for AddRow<'_> {
    type Out = ();
    #[inline(always)]
    fn run<I: Isa>(self) {
        for (to, from) in self.1.iter_mut().zip(self.0) {
            *to += *from as i32;
        }
    }
}
struct SumRow<'a>(&'a [i8]);
impl Kernel for SumRow<'_> {
    type Out = i32;
    #[inline(always)]
    fn run<I: Isa>(self) -> i32 {
        self.0.iter().map(|x| *x as i32).sum()
    }
}

/// `to[j] −= 128 Σ_q b[q][j]`: what sums over numbers 128 larger have too much.
///
/// # Safety
/// `b` leads to `k` × `to.len()` numbers at these distances.
unsafe fn unshift(b: Ptr<i8>, k: usize, [row, column]: [isize; 2], to: &mut [i32], parallel: bool) {
    const COLUMNS: usize = 256;
    let n = to.len();
    let to = Ptr(to.as_mut_ptr());
    split(parallel, n.div_ceil(COLUMNS), 1, |lo, hi| {
        for j0 in (lo..hi).map(|b| b * COLUMNS) {
            let w = COLUMNS.min(n - j0);
            let mut sums = [0i32; COLUMNS];
            // SAFETY: the matrix has these columns, and tasks have columns of their own.
            unsafe {
                if column == 1 {
                    for q in 0..k {
                        let from = b.at(q as isize * row + j0 as isize);
                        dispatch(AddRow(std::slice::from_raw_parts(from, w), &mut sums[..w]));
                    }
                } else {
                    for (j, sum) in sums[..w].iter_mut().enumerate() {
                        let from = b.at((j0 + j) as isize * column);
                        *sum = if row == 1 {
                            dispatch(SumRow(std::slice::from_raw_parts(from, k)))
                        } else {
                            (0..k).map(|q| *from.offset(q as isize * row) as i32).sum()
                        };
                    }
                }
                for (j, sum) in sums[..w].iter().enumerate() {
                    let to = to.get().add(j0 + j);
                    *to = (*to).wrapping_sub(sum.wrapping_mul(128));
                }
            }
        }
    });
}

/// A vector of numbers of 16 bits times adjacent numbers.
struct Dot<'a>(&'a [i16], &'a [i8]);
impl Kernel for Dot<'_> {
    type Out = i32;
    #[inline(always)]
    fn run<I: Isa>(self) -> i32 {
        self.0.iter().zip(self.1).fold(0i32, |sum, (x, y)| sum.wrapping_add(*x as i32 * *y as i32))
    }
}
/// `acc[j] += Σ_q x[q] b[q][j]` over four rows, or fewer. A product of 8-bit numbers fits into 16.
struct Combine<'a>(&'a [i16], [&'a [i8]; 4], &'a mut [i32]);
impl Kernel for Combine<'_> {
    type Out = ();
    #[inline(always)]
    fn run<I: Isa>(self) {
        let Combine(x, rows, acc) = self;
        let n = acc.len();
        let [b0, b1, b2, b3] = rows.map(|r| &r[..n]);
        let x: [i16; 4] = std::array::from_fn(|q| x.get(q).copied().unwrap_or(0));
        let times = |x: i16, y: i8| x.wrapping_mul(y as i16) as i32;
        for j in 0..n {
            let (low, high) = (times(x[0], b0[j]) + times(x[1], b1[j]), times(x[2], b2[j]) + times(x[3], b3[j]));
            acc[j] = acc[j].wrapping_add(low + high);
        }
    }
}

/// `out[j] (+)= Σ_q x[q] b[q][j] (+ bias[j])` of a vector, where the matrix can be read as it lies: `b` holds the distances of
/// steps and of columns, one of them 1.
///
/// # Safety
/// The addresses lead to k, k × n and n numbers, and nobody else uses `out` meanwhile.
unsafe fn vector<X: Copy + Into<i16>>(
    [n, k]: [usize; 2],
    (x, x_step): (*const X, isize),
    (b, [step, column]): (*const i8, [isize; 2]),
    put: impl Fn(usize, i32) + Sync,
    parallel: bool,
) {
    const COLUMNS: usize = 1024;
    let mut values = Scratch::<i16>::new(k);
    values.slice().iter_mut().enumerate().for_each(|(q, v)| *v = (*x.offset(q as isize * x_step)).into());
    let (x, b) = (&*values.slice(), Ptr(b as *mut i8));
    if step == 1 {
        split(parallel, n, ((1 << 16) / k).max(1), |lo, hi| {
            for j in lo..hi {
                // SAFETY: of this function.
                let row = unsafe { std::slice::from_raw_parts(b.at(j as isize * column), k) };
                put(j, dispatch(Dot(x, row)));
            }
        });
        return;
    }
    split(parallel, n.div_ceil(COLUMNS), 1, |lo, hi| {
        for j0 in (lo..hi).map(|b| b * COLUMNS) {
            let mut acc = [0i32; COLUMNS];
            let acc = &mut acc[..COLUMNS.min(n - j0)];
            for q in (0..k).step_by(4) {
                let x = &x[q..(q + 4).min(k)];
                // SAFETY: of this function; the last row stands for those that are missing, times 0.
                let rows = [0, 1, 2, 3].map(|r: usize| unsafe {
                    let q = q + r.min(x.len() - 1);
                    std::slice::from_raw_parts(b.at(q as isize * step + j0 as isize), acc.len())
                });
                dispatch(Combine(x, rows, &mut *acc));
            }
            acc.iter().enumerate().for_each(|(j, v)| put(j0 + j, *v));
        }
    });
}

/// The product of int8 or uint8 and int8 into int32, which wraps around where K is beyond 2¹⁷ or so. Operands are as
/// [`crate::matmul::matmul`] has checked them.
pub(crate) fn matmul(a: &Operand, b: &Operand, out: &Operand, epilogue: &Epilogue) {
    product(int8_micro(true), a, b, out, epilogue);
}

/// By a tile, and whether its words hold four numbers.
fn product(tile: Option<(Micro<f32>, bool)>, a: &Operand, b: &Operand, out: &Operand, epilogue: &Epilogue) {
    let r = out.sizes.len() - 2;
    let (m, n, k) = (out.sizes[r] as usize, out.sizes[r + 1] as usize, a.sizes[r + 1] as usize);
    let (Some((micro, four)), true) = (tile, k > 0) else { return widened(a, b, out, epilogue) };
    let parallel = m * n * k >= SERIAL;
    let unsigned = a.dtype == DType::U8;
    let form = match (four, unsigned) {
        (true, false) => Form::Shifted,
        (true, true) => Form::Bytes,
        (false, false) => Form::Signed,
        (false, true) => Form::Unsigned,
    };
    let words = k.div_ceil(form.numbers());
    let at = |x: &Operand, i: usize| {
        let size = x.dtype.size() as isize;
        x.ptr.wrapping_offset(size * unravel(i, &x.sizes[..r], &x.strides[..r]))
    };
    let strides = |x: &Operand| [x.strides[r] as isize, x.strides[r + 1] as isize];
    let ([ar, ac], [br, bc], [or, oc]) = (strides(a), strides(b), strides(out));
    // Rows of C are adjacent numbers, in the output or in a copy.
    let direct = oc == 1 || n == 1;
    let mut whole = Scratch::<i32>::new(if direct { 0 } else { m * n });
    let mut extra = Scratch::<i32>::new(n);
    for i in 0..out.sizes[..r].iter().product::<i64>() as usize {
        let bias = match epilogue.bias {
            Some(bias) => {
                for (j, v) in extra.slice().iter_mut().enumerate() {
                    // SAFETY: the bias has one int32 a column.
                    *v = unsafe { *(bias.ptr as *const i32).offset(j as isize * bias.strides[0] as isize) };
                }
                true
            }
            None => {
                extra.slice().fill(0);
                form == Form::Shifted
            }
        };
        let z = Ptr(at(out, i) as *mut i32);
        if m == 1 && (bc == 1 || br == 1) {
            let bias = epilogue.bias.is_some().then(|| Ptr(extra.ptr()));
            let put = |j: usize, v: i32| {
                // SAFETY: the output and the bias have `n` numbers; tasks write disjoint ones.
                unsafe {
                    let to = z.at(j as isize * oc);
                    let v = bias.map_or(v, |b| v.wrapping_add(*b.get().add(j)));
                    *to = if epilogue.accumulate { (*to).wrapping_add(v) } else { v };
                }
            };
            let (x, y) = (at(a, i), (at(b, i) as *const i8, [br, bc]));
            // SAFETY: the operands describe memory of these sizes, and batches of `out` do not overlap.
            unsafe {
                if unsigned {
                    vector::<u8>([n, k], (x, ac), y, put, parallel);
                } else {
                    vector::<i8>([n, k], (x as *const i8, ac), y, put, parallel);
                }
            }
            continue;
        }
        let x = Words { at: Ptr(at(a, i)), lane: ar, step: ac, k, form, micro };
        let form = if four { Form::Bytes } else { Form::Signed };
        let y = Words { at: Ptr(at(b, i)), lane: bc, step: br, k, form, micro };
        // SAFETY: the operands describe memory of these sizes, and batches of `out` do not overlap.
        unsafe {
            if x.form == Form::Shifted {
                unshift(Ptr(y.at.get() as *mut i8), k, [br, bc], extra.slice(), parallel);
            }
            let bias = if bias { Bias::Columns(extra.ptr() as *const f32) } else { Bias::None };
            let (c, ldc) = if direct { (z.get(), or) } else { (whole.ptr(), n as isize) };
            let accumulate = direct && epilogue.accumulate;
            Product { m, n, k: words, a: &x, b: &y, c: c as *mut f32, ldc, accumulate, bias }.run(parallel);
            if !direct {
                for (j, v) in whole.slice().iter().enumerate() {
                    let to = z.at((j / n) as isize * or + (j % n) as isize * oc);
                    *to = if epilogue.accumulate { (*to).wrapping_add(*v) } else { *v };
                }
            }
        }
    }
}

/// The same by copies of 32 bits, on machines without a tile for words.
fn widened(a: &Operand, b: &Operand, out: &Operand, epilogue: &Epilogue) {
    let mut room = [a, b].map(|x| Scratch::<i32>::new(x.numel() as usize));
    for (x, to) in [a, b].into_iter().zip(&mut room) {
        for (i, v) in to.slice().iter_mut().enumerate() {
            let from = x.ptr.wrapping_offset(unravel(i, x.sizes, x.strides));
            // SAFETY: the operand describes its elements.
            *v = unsafe {
                if x.dtype == DType::U8 {
                    *from as i32
                } else {
                    *(from as *const i8) as i32
                }
            };
        }
    }
    let [x, y] = &mut room;
    let (sa, sb) = (contiguous_strides(a.sizes), contiguous_strides(b.sizes));
    let a = Operand { ptr: x.ptr() as *mut u8, dtype: DType::I32, strides: &sa, ..*a };
    let b = Operand { ptr: y.ptr() as *mut u8, dtype: DType::I32, strides: &sb, ..*b };
    plain::<i32>(&a, &b, out, epilogue);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool;
    use crate::testing::Case;

    #[test]
    fn products_of_bytes_are_exact() {
        let shapes =
            [(1, 1, 1), (3, 5, 7), (1, 70, 33), (40, 1, 19), (29, 47, 16), (33, 64, 600), (200, 100, 2500), (5, 4, 0)];
        for (seed, &(m, n, k)) in shapes.iter().enumerate() {
            for layout in 0..16 {
                let left = if layout & 8 != 0 { DType::U8 } else { DType::I8 };
                let case = |dtype, sizes: &[i64], turned, seed| {
                    let mut case = Case::random(dtype, sizes, turned, seed);
                    // The whole range: sums of the largest products must not saturate.
                    let mut state = seed as u32;
                    for b in &mut case.bytes {
                        state = state.wrapping_mul(1664525).wrapping_add(1013904223);
                        *b = [(state >> 24) as u8, 0x80, 0x7f, 0xff][(state >> 16) as usize % 4];
                    }
                    case
                };
                let a = case(left, &[m, k], layout & 1 != 0, seed as u64 + 1);
                let b = case(DType::I8, &[k, n], layout & 2 != 0, seed as u64 + 100);
                let bias = Case::random(DType::I32, &[n], false, 7);
                let (x, y, z) = (a.reals(), b.reals(), bias.reals());
                for accumulate in [false, true] {
                    for tile in [int8_micro(true), int8_micro(false), None] {
                        for threads in [1, 8] {
                            pool::set_num_threads(threads);
                            let out = Case::random(DType::I32, &[m, n], layout & 4 != 0, 9);
                            let before = out.reals();
                            let epilogue =
                                Epilogue { bias: accumulate.then(|| bias.operand()), accumulate, then: None };
                            product(tile, &a.operand(), &b.operand(), &out.operand(), &epilogue);
                            let got = out.reals();
                            for i in 0..(m * n) as usize {
                                let (row, column) = (i / n as usize, i % n as usize);
                                let k = k as usize;
                                let sum: f64 = (0..k).map(|q| x[row * k + q] * y[q * n as usize + column]).sum();
                                let want = sum + if accumulate { before[i] + z[column] } else { 0.0 };
                                assert_eq!(got[i], want, "{left} {m} {n} {k} layout {layout} at {i}");
                            }
                        }
                    }
                }
            }
        }
    }
}
