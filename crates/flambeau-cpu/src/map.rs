//! Element by element: one driver for eager operators and fused groups.

use crate::convert;
use crate::element::Scratch;
use crate::gemm_kernels::transpose_bits;
use crate::isa::{prefetch, stream, stream_end, LINE, STREAMED, STREAM_AHEAD};
use crate::kernels::kernel;
use crate::pool;
use crate::tile::{Evaluator, Prepared, Space, TILE};
use flambeau_core::*;

/// Elements a parallel piece has at least.
const GRAIN: usize = 16 * 1024;

/// Numbers in the memory of an argument that is one number everywhere.
const SAME: usize = 2 * TILE;

/// Bytes of an output that no cache will hold until it is read: a store that passes the caches does not first read the line, which
/// saves a third of the traffic. Few in tests, so that they try it.
pub(crate) const STREAM: usize = if cfg!(test) { 1 << 16 } else { 48 << 20 };

/// See [`Backend::map`].
///
/// # Errors
/// `NotImplemented` for a row without a formula in its class.
pub fn map(program: &Program, x: &[Operand], out: &[Operand]) -> Result<()> {
    let total = out[0].numel() as usize;
    if total == 0 {
        return Ok(());
    }
    if plain(program, x, out, total) {
        return Ok(());
    }
    let sizes = out[0].sizes;
    // Iterate in the order of the first output's memory.
    let mut order: SmallVec<[usize; 6]> = (0..sizes.len()).collect();
    let strides = out[0].strides;
    order.sort_by(|&a, &b| strides[b].cmp(&strides[a]).then(a.cmp(&b)));
    let all: SmallVec<[&[i64]; 12]> = x.iter().chain(out).map(|o| o.strides).collect();
    let space = Space::new(sizes, &all, &order, &[]);
    let outs = x.len();
    if program.steps.is_empty() && x.len() == 1 && out.len() == 1 && x[0].dtype == out[0].dtype {
        copy(&space, &x[0], &out[0], total);
        return Ok(());
    }
    // One output that no cache will hold, in long rows: its tiles are stored past the caches.
    let streamed = out.len() == 1
        && total * out[0].dtype.size() >= STREAM
        && space.inner() >= TILE
        && space.inner_stride(outs) == 1
        && apart(&out[0], x);
    if (!streamed && by_rows(program, x, out, &space, total)) || by_bands(program, x, out, &space, total) {
        return Ok(());
    }
    let prepared = Prepared::new(program, x)?;
    // A result may go straight to its memory when that has the right form and no operand is there too.
    let direct = out.iter().zip(program.results).position(|(o, &v)| {
        v as usize >= program.inputs.len()
            && o.dtype == prepared.class(v).dtype()
            && x.iter().enumerate().all(|(k, i)| apart(o, &[*i]) || over_first(program, v, k, i, o))
    });
    let inner = space.inner();
    // One tile, evaluated and stored.
    let tile = |e: &mut Evaluator, i: usize, n: usize| {
        let single = i % inner + n <= inner;
        let target = direct.filter(|&d| single && space.inner_stride(outs + d) == 1).map(|d| {
            let at = space.offset(outs + d, i);
            (program.results[d], out[d].ptr.wrapping_offset(at * out[d].dtype.size() as isize))
        });
        e.tile(i, n, target);
        for (r, (o, &v)) in out.iter().zip(program.results).enumerate() {
            if target.is_some() && direct == Some(r) {
                continue;
            }
            let (size, stride) = (o.dtype.size() as isize, space.inner_stride(outs + r));
            let class = prepared.class(v);
            let (mut done, mut at) = (0, i);
            while done < n {
                let len = (inner - at % inner).min(n - done);
                let dst = o.ptr.wrapping_offset(space.offset(outs + r, at) * size);
                let src = e.value(v).wrapping_add(done * class.size());
                // SAFETY: `dst` walks the output's own memory; `src` has the tile's values, in a slot or in an operand that
                // is exactly this memory (then the bytes are the same and `store_over` handles it).
                unsafe { store_over(o.dtype, class, src, len, dst, stride) };
                done += len;
                at += len;
            }
        }
    };
    if let Some(d) = transposed(&space).filter(|_| total >= 4096) {
        // Bands of rows under one column tile, so that a cache line of the transposed operand serves a whole band.
        const BAND: usize = 16;
        let last = space.sizes.len() - 1;
        let bands = space.sizes[d].div_ceil(BAND);
        let units = total / (space.sizes[d] * inner) * bands;
        let below: usize = space.sizes[d + 1..last].iter().product();
        pool::chunks(units, (GRAIN / (BAND * inner)).max(1), |lo, hi| {
            let mut e = Evaluator::new(&prepared, &space);
            for unit in lo..hi {
                let (plane, r0) = (unit / bands, unit % bands * BAND);
                let (above, within) = (plane / below, plane % below);
                for column in (0..inner).step_by(TILE) {
                    for r in r0..(r0 + BAND).min(space.sizes[d]) {
                        let row = (above * space.sizes[d] + r) * below + within;
                        tile(&mut e, row * inner + column, TILE.min(inner - column));
                    }
                }
            }
        });
        return Ok(());
    }
    // While the memory stores a tile and brings what comes later, the next one is computed.
    let stream_tiles = |lo: usize, hi: usize| {
        let mut e = Evaluator::new(&prepared, &space);
        let (o, v) = (&out[0], program.results[0]);
        let (size, class) = (o.dtype.size(), prepared.class(v));
        let mut room = Room::new();
        let room = room.ptr();
        let address =
            |o: &Operand, k: usize, i: usize| o.ptr.wrapping_offset(space.offset(k, i) * o.dtype.size() as isize);
        let mut i = lo;
        while i < hi {
            let dst = address(o, outs, i);
            // Tiles end where cache lines do.
            let n = (TILE / 2 - dst as usize % LINE / size).min(hi - i).min(inner - i % inner);
            let mut next: SmallVec<[*const u8; 4]> = SmallVec::new();
            for k in (0..outs).filter(|&k| space.inner_stride(k) == 1 && !space.strides[k].contains(&0)) {
                let (ahead, bytes) = (address(&x[k], k, i).wrapping_add(STREAM_AHEAD), x[k].dtype.size());
                if bytes == size {
                    next.push(ahead);
                } else {
                    (0..n * bytes).step_by(LINE).for_each(|line| prefetch(ahead.wrapping_add(line)));
                }
            }
            e.tile(i, n, direct.map(|_| (v, room)));
            // SAFETY: the room holds a tile of any class; `dst` leads to `n` adjacent elements of the output.
            unsafe {
                if direct.is_none() {
                    convert::store(o.dtype, class, e.value(v), n, room, 1);
                }
                stream(room, dst, n * size, &next);
            }
            i += n;
        }
        stream_end();
    };
    if streamed {
        pool::chunks(total, 8 * GRAIN, stream_tiles);
        return Ok(());
    }
    let work = |lo: usize, hi: usize| {
        let mut e = Evaluator::new(&prepared, &space);
        let mut i = lo;
        while i < hi {
            // A tile within one row where rows are long; short rows share one.
            let n = (hi - i).min(TILE);
            let n = if inner >= TILE { n.min(inner - i % inner) } else { n };
            tile(&mut e, i, n);
            i += n;
        }
    };
    if total < 2 * GRAIN {
        work(0, total);
    } else {
        pool::chunks(total, GRAIN, work);
    }
    Ok(())
}

/// Whether an output's memory is apart from every operand's.
fn apart(o: &Operand, x: &[Operand]) -> bool {
    let end = |o: &Operand| o.ptr as usize + extent(o.sizes, o.strides) as usize * o.dtype.size();
    x.iter().all(|i| end(o) <= i.ptr as usize || end(i) <= o.ptr as usize)
}

/// One step over operands in its own class whose rows are contiguous or one value throughout, and numbers: the kernel, a row at
/// a time. False when it is not that.
fn by_rows(program: &Program, x: &[Operand], out: &[Operand], space: &Space, total: usize) -> bool {
    let ([step], [o], [result]) = (program.steps, out, program.results) else { return false };
    let StepOp::Apply(f) = step.op else { return false };
    let dtype = step.class.dtype();
    let inner = space.inner();
    let same = |k: usize| space.inner_stride(k) == 0;
    if inner < 128
        || *result as usize != program.inputs.len()
        || x.is_empty()
        || o.dtype != dtype
        || space.inner_stride(x.len()) != 1
        || !(0..x.len()).all(|k| same(k) || space.inner_stride(k) == 1)
        || !x.iter().all(|i| i.dtype == dtype)
        || !program.inputs.iter().all(|i| i.class() == step.class)
        || !x.iter().enumerate().all(|(k, i)| apart(o, &[*i]) || over_first(program, *result, k, i, o))
    {
        return false;
    }
    let Some(kernel) = kernel(f, step.class) else { return false };
    let size = dtype.size();
    // What is one value along a row has a stretch of it, as long as the parts of rows that then go to the kernel.
    let spread = program.inputs.len() - (0..x.len()).filter(|&k| !same(k)).count();
    let part = if spread > 0 { inner.min(TILE) } else { inner };
    let run = |lo: usize, hi: usize| {
        let mut room = Scratch::<u8>::new(spread * part * size);
        let room = room.ptr();
        // Each input's operand, and its stretch.
        let mut sources: SmallVec<[(Option<usize>, Option<*mut u8>); 4]> = SmallVec::new();
        let (mut k, mut used) = (0, 0);
        for input in program.inputs {
            let operand = matches!(input, Input::Operand(_)).then_some(k);
            let stretch = operand.is_none_or(same).then(|| room.wrapping_add(used * part * size));
            used += stretch.is_some() as usize;
            k += operand.is_some() as usize;
            if let (Input::Number(number, class), Some(to)) = (*input, stretch) {
                // SAFETY: the room has a stretch for each input that is one value.
                unsafe { convert::fill(class, number, part, to) };
            }
            sources.push((operand, stretch));
        }
        space.rows(lo, hi, |at, j0, j1| {
            for &(operand, stretch) in &sources {
                if let (Some(k), Some(to)) = (operand, stretch) {
                    let from = x[k].ptr.wrapping_offset(at[k] * size as isize);
                    // SAFETY: the element lies in the operand; the stretch has room for a part.
                    unsafe { spread_value(from, size, part.min(j1 - j0), to) };
                }
            }
            for j in (j0..j1).step_by(part) {
                let p = |i: usize| match sources[step.args[i] as usize] {
                    (_, Some(stretch)) => stretch as *const u8,
                    (k, _) => {
                        let k = k.unwrap_or(0);
                        x[k].ptr.wrapping_offset((at[k] + j as isize) * size as isize) as *const u8
                    }
                };
                let dst = o.ptr.wrapping_offset((at[x.len()] + j as isize) * size as isize);
                // SAFETY: the space's rows lie in the operands' memory, contiguous in the class's form, and the output is the
                // first of them or overlaps none; stretches hold a part. Unused arguments are valid pointers that are not read.
                unsafe { kernel(part.min(j1 - j), p(0), p(1), p(2), p(3), dst) };
            }
        });
    };
    if total < 2 * GRAIN {
        run(0, total);
    } else {
        pool::chunks(total, GRAIN, run);
    }
    true
}

/// Writes the `size` bytes at `from` `n` times.
///
/// # Safety
/// The bytes are readable at any alignment, `to` is writable for `n` times as many and aligned for them.
unsafe fn spread_value(from: *const u8, size: usize, n: usize, to: *mut u8) {
    match size {
        4 => std::slice::from_raw_parts_mut(to as *mut u32, n).fill((from as *const u32).read_unaligned()),
        8 => std::slice::from_raw_parts_mut(to as *mut u64, n).fill((from as *const u64).read_unaligned()),
        _ => (0..n).for_each(|i| std::ptr::copy_nonoverlapping(from, to.add(i * size), size)),
    }
}

/// One step over operands in its own class that are contiguous along rows, or across them: the latter are turned, a band of
/// rows under some columns at a time, then the kernel runs a row at a time. False when it is not that.
fn by_bands(program: &Program, x: &[Operand], out: &[Operand], space: &Space, total: usize) -> bool {
    /// Rows of a band, some cache lines of a turned operand, and columns.
    const BAND: usize = 32;
    const COLUMNS: usize = 256;
    let ([step], [o], [result]) = (program.steps, out, program.results) else { return false };
    let StepOp::Apply(f) = step.op else { return false };
    let dtype = step.class.dtype();
    let Some(d) = transposed(space).filter(|_| total >= 4096) else { return false };
    let (last, inner) = (space.sizes.len() - 1, space.inner());
    let turned: SmallVec<[bool; 4]> =
        (0..x.len()).map(|k| space.strides[k][last] > 4 && space.strides[k][d] == 1).collect();
    if *result as usize != program.inputs.len()
        || x.len() != program.inputs.len()
        || o.dtype != dtype
        || !matches!(step.class, Class::F32 | Class::F64 | Class::I64)
        || space.inner_stride(x.len()) != 1
        || !(0..x.len()).all(|k| turned[k] || space.inner_stride(k) == 1)
        || !x.iter().all(|i| i.dtype == dtype)
        || !program.inputs.iter().all(|i| *i == Input::Operand(step.class))
        || !x.iter().enumerate().all(|(k, i)| apart(o, &[*i]) || over_first(program, *result, k, i, o))
    {
        return false;
    }
    let Some(kernel) = kernel(f, step.class) else { return false };
    let size = dtype.size();
    let bands = space.sizes[d].div_ceil(BAND);
    let below: usize = space.sizes[d + 1..last].iter().product();
    let units = total / (space.sizes[d] * inner) * bands;
    pool::chunks(units, (GRAIN / (BAND * inner)).max(1), |lo, hi| {
        let mut room = Scratch::<u64>::new(x.len() * BAND * COLUMNS);
        let room = room.ptr();
        for unit in lo..hi {
            let (plane, r0) = (unit / bands, unit % bands * BAND);
            let h = BAND.min(space.sizes[d] - r0);
            let first = ((plane / below * space.sizes[d] + r0) * below + plane % below) * inner;
            let at: SmallVec<[isize; 4]> = (0..=x.len()).map(|k| space.offset(k, first)).collect();
            for column in (0..inner).step_by(COLUMNS) {
                let w = COLUMNS.min(inner - column);
                // Each operand's first row here, and what leads to the next one.
                let mut rows: SmallVec<[(*mut u8, isize); 4]> = SmallVec::new();
                for k in 0..=x.len() {
                    let (operand, strides) = (x.get(k).unwrap_or(o), &space.strides[k]);
                    let from = operand.ptr.wrapping_offset((at[k] + column as isize * strides[last]) * size as isize);
                    if k == x.len() || !turned[k] {
                        rows.push((from, strides[d] * size as isize));
                        continue;
                    }
                    // Too many streams for the processor to follow: what the next columns read is asked for here, or the next band.
                    let next = if column + COLUMNS < inner {
                        COLUMNS as isize * strides[last]
                    } else {
                        BAND as isize - column as isize * strides[last]
                    };
                    for j in 0..w as isize {
                        let line = from.wrapping_offset((j * strides[last] + next) * size as isize);
                        (0..h * size).step_by(64).for_each(|at| prefetch(line.wrapping_add(at)));
                    }
                    let to = room.wrapping_add(k * BAND * COLUMNS);
                    // SAFETY: `h` rows and `w` columns lie in the operand, by the space's construction, and the room has a band for
                    // each operand; numbers move as bits of their size.
                    unsafe {
                        transpose_bits(size, to as *mut u8, COLUMNS, from, strides[last], w, h);
                    }
                    rows.push((to as *mut u8, (COLUMNS * size) as isize));
                }
                for r in 0..h as isize {
                    let p = |k: usize| rows[k].0.wrapping_offset(r * rows[k].1);
                    let a = |i: usize| p(step.args[i] as usize) as *const u8;
                    // SAFETY: as in `by_rows`, with some operands' rows in the room.
                    unsafe { kernel(w, a(0), a(1), a(2), a(3), p(x.len())) };
                }
            }
        }
    });
    true
}

/// Room for a tile of any class.
#[repr(align(64))]
struct Room(std::mem::MaybeUninit<[u128; TILE]>);
impl Room {
    fn new() -> Self {
        Room(std::mem::MaybeUninit::uninit())
    }
    fn ptr(&mut self) -> *mut u8 {
        self.0.as_mut_ptr() as *mut u8
    }
}

/// One step over contiguous operands in its own class, and numbers: the kernel alone. False when it is not that.
fn plain(program: &Program, x: &[Operand], out: &[Operand], total: usize) -> bool {
    let ([step], [o], [result]) = (program.steps, out, program.results) else { return false };
    let StepOp::Apply(f) = step.op else { return false };
    let dtype = step.class.dtype();
    if *result as usize != program.inputs.len()
        || x.is_empty()
        || o.dtype != dtype
        || !o.is_contiguous()
        || !x.iter().all(|i| i.dtype == dtype && i.is_contiguous())
        || !program.inputs.iter().all(|i| i.class() == step.class)
    {
        return false;
    }
    // Exactly an operand's memory is the first argument's, or staged; anything else that overlaps is not for here.
    let in_place = x.iter().any(|i| i.ptr == o.ptr);
    let staged = x.iter().enumerate().any(|(k, i)| i.ptr == o.ptr && !over_first(program, *result, k, i, o));
    if !x.iter().all(|i| i.ptr == o.ptr || apart(o, &[*i])) {
        return false;
    }
    let Some(kernel) = kernel(f, step.class) else { return false };
    // Where each input begins, and whether it goes along; a number has a stretch of its own.
    let (size, numbers) = (dtype.size(), program.inputs.len() - x.len());
    let mut room = Scratch::<u8>::new(numbers * SAME * size);
    let mut inputs: SmallVec<[(*const u8, bool); 4]> = SmallVec::new();
    for input in program.inputs {
        match *input {
            Input::Operand(_) => {
                let seen = inputs.iter().filter(|i| i.1).count();
                inputs.push((x[seen].ptr, true));
            }
            Input::Number(number, class) => {
                let tile = room.ptr().wrapping_add(inputs.iter().filter(|i| !i.1).count() * SAME * size);
                // SAFETY: the room has a stretch for each number.
                unsafe { convert::fill(class, number, SAME.min(total), tile) };
                inputs.push((tile, false));
            }
        }
    }
    let args = step.args.map(|a| inputs[a as usize]).map(|(p, along)| (Ptr(p as *mut u8), along));
    let at = |lo: usize, k: usize| {
        let (p, along) = args[k];
        p.0.wrapping_add(if along { lo * size } else { 0 }) as *const u8
    };
    let streamed = !in_place && total * size >= STREAM;
    let read: SmallVec<[Ptr<u8>; 4]> = args[..f.arity()].iter().filter(|a| a.1).map(|a| a.0).collect();
    let run = |lo: usize, hi: usize| {
        let dst = |lo: usize| o.ptr.wrapping_add(lo * size);
        if streamed || staged {
            let mut buffer = Room::new();
            let buffer = buffer.ptr();
            let room = std::mem::size_of::<Room>() / size;
            let room = if numbers > 0 { room.min(TILE) } else { room };
            let mut lo = lo;
            while lo < hi {
                // What is streamed ends where a cache line does.
                let some = if streamed { (STREAMED - dst(lo) as usize % STREAMED).div_ceil(size) } else { room };
                let n = some.min(hi - lo);
                // SAFETY: as below, into a buffer that holds that many numbers, and from there to the output.
                unsafe {
                    kernel(n, at(lo, 0), at(lo, 1), at(lo, 2), at(lo, 3), buffer);
                    if streamed {
                        let next: SmallVec<[*const u8; 4]> =
                            read.iter().map(|p| p.0.wrapping_add(lo * size + STREAM_AHEAD) as *const u8).collect();
                        stream(buffer, dst(lo), n * size, &next);
                    } else {
                        std::ptr::copy_nonoverlapping(buffer, dst(lo), n * size);
                    }
                }
                lo += n;
            }
            if streamed {
                stream_end();
            }
            return;
        }
        let step = if numbers > 0 { SAME } else { hi - lo };
        for lo in (lo..hi).step_by(step.max(1)) {
            let n = step.min(hi - lo);
            // SAFETY: every operand has elements lo..hi contiguous in the class's form, numbers have a stretch of them, and the
            // output is the first operand or overlaps none.
            unsafe { kernel(n, at(lo, 0), at(lo, 1), at(lo, 2), at(lo, 3), dst(lo)) };
        }
    };
    if total < 2 * GRAIN {
        run(0, total);
    } else {
        pool::chunks(total, if streamed { 8 * GRAIN } else { GRAIN }, run);
    }
    true
}

/// Whether output `o`, value `v`, lies exactly over operand `k`, and the last step makes it of that operand as its first
/// argument alone: what has been read by then is not needed again.
fn over_first(program: &Program, v: u16, k: usize, x: &Operand, o: &Operand) -> bool {
    if x.ptr != o.ptr || x.strides != o.strides || v as usize + 1 != program.inputs.len() + program.steps.len() {
        return false;
    }
    let Some(Step { op: StepOp::Apply(f), args, .. }) = program.steps.last() else { return false };
    let operands = program.inputs.iter().enumerate().filter(|(_, i)| matches!(i, Input::Operand(_)));
    let Some((value, _)) = operands.clone().nth(k) else { return false };
    args[1..f.arity()].iter().all(|&a| a as usize != value)
}

/// The dimension in which some operand is contiguous while it strides along the innermost one.
fn transposed(space: &Space) -> Option<usize> {
    let last = space.sizes.len() - 1;
    if space.inner() < 32 {
        return None;
    }
    space.strides.iter().filter(|s| s[last] > 4).find_map(|s| (0..last).find(|&d| s[d] == 1 && space.sizes[d] >= 8))
}

/// Stores numbers; nothing to do when they are already there.
///
/// # Safety
/// As `convert::store`, or `src == dst` with the same form.
unsafe fn store_over(dtype: DType, class: Class, src: *const u8, n: usize, dst: *mut u8, stride: isize) {
    if dtype == class.dtype() && stride == 1 {
        std::ptr::copy(src, dst, n * dtype.size());
    } else {
        convert::store(dtype, class, src, n, dst, stride);
    }
}

/// Copies elements of one dtype between layouts.
fn copy(space: &Space, x: &Operand, out: &Operand, total: usize) {
    if x.ptr == out.ptr && space.strides[0] == space.strides[1] {
        return;
    }
    let size = x.dtype.size();
    match size {
        1 => copy_as::<u8>(space, x, out, total),
        2 => copy_as::<u16>(space, x, out, total),
        4 => copy_as::<u32>(space, x, out, total),
        8 => copy_as::<u64>(space, x, out, total),
        _ => copy_as::<u128>(space, x, out, total),
    }
}

fn copy_as<T: Copy + Send + Sync>(space: &Space, x: &Operand, out: &Operand, total: usize) {
    let inner = space.inner();
    let (sx, so) = (space.inner_stride(0), space.inner_stride(1));
    let (src, dst) = (Ptr(x.ptr as *mut T), Ptr(out.ptr as *mut T));
    // A transposed source: its unit stride is in an outer dimension. Walk both in blocks that fit the cache.
    let dims = space.sizes.len();
    if sx != 1 && so == 1 && dims >= 2 && inner >= 2 {
        if let Some(d) = (0..dims - 1).rev().find(|&d| space.strides[0][d] == 1 && space.sizes[d] >= 8) {
            return transpose(space, d, src, dst, total);
        }
    }
    let size = std::mem::size_of::<T>();
    let streamed = total * size >= STREAM && inner * size >= STREAMED;
    let work = |lo: usize, hi: usize| {
        let (src, dst) = (src, dst);
        let mut i = lo;
        while i < hi {
            let column = i % inner;
            let len = (inner - column).min(hi - i);
            // SAFETY: offsets stay inside the two operands by the space's construction; unaligned and overlapping accesses
            // do not occur (the caller forbids overlap).
            unsafe {
                let s = src.0.offset(space.offset(0, i));
                let t = dst.0.offset(space.offset(1, i));
                if sx == 1 && so == 1 && streamed {
                    let next = (s as *const u8).wrapping_add(2 * STREAM_AHEAD);
                    stream(s as *const u8, t as *mut u8, len * size, &[next]);
                } else if sx == 1 && so == 1 {
                    std::ptr::copy_nonoverlapping(s, t, len);
                } else {
                    for k in 0..len as isize {
                        t.offset(k * so).write(s.offset(k * sx).read());
                    }
                }
            }
            i += len;
        }
        if streamed {
            stream_end();
        }
    };
    if total < 2 * GRAIN {
        work(0, total);
    } else {
        pool::chunks(total, if streamed { 8 } else { 2 } * GRAIN, work);
    }
}

#[derive(Clone, Copy)]
struct Ptr<T>(*mut T);
// SAFETY: pieces of work write disjoint parts of the output.
unsafe impl<T> Send for Ptr<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Ptr<T> {}

/// Copies with the source's unit stride in dimension `d` and the destination's in the innermost one.
fn transpose<T: Copy + Send + Sync>(space: &Space, d: usize, src: Ptr<T>, dst: Ptr<T>, total: usize) {
    // Blocks of `H` rows, some cache lines of the source, and `2 B` columns.
    const B: usize = 16;
    const H: usize = 32;
    let last = space.sizes.len() - 1;
    let (n, m) = (space.sizes[d], space.sizes[last]);
    let sx = space.strides[0][last];
    let so = space.strides[1][d];
    let planes = total / (n * m);
    let bands = n.div_ceil(H);
    let plane_offset = |k: usize, mut p: usize| {
        let mut at = 0isize;
        for e in (0..last).rev() {
            if e == d {
                continue;
            }
            at += (p % space.sizes[e]) as isize * space.strides[k][e];
            p /= space.sizes[e];
        }
        at
    };
    pool::chunks(planes * bands, (GRAIN / (H * m)).max(1), |lo, hi| {
        let (src, dst) = (src, dst);
        for band in lo..hi {
            let (plane, i0) = (band / bands, band % bands * H);
            let (ps, pd) = (plane_offset(0, plane), plane_offset(1, plane));
            let h = H.min(n - i0);
            let size = std::mem::size_of::<T>();
            if (size == 4 || size == 8) && so >= 0 {
                // SAFETY: a band of a plane lies inside both operands; vectors move bits as they are.
                unsafe {
                    let (s, t) = (src.0.offset(ps + i0 as isize), dst.0.offset(pd + i0 as isize * so));
                    for j0 in (0..m).step_by(2 * B) {
                        let w = (2 * B).min(m - j0);
                        let (s, t) = (s.offset(j0 as isize * sx), t.add(j0));
                        // Too many streams for the processor to follow: the next block's lines are asked for here.
                        let next = if j0 + 2 * B < m { (2 * B) as isize * sx } else { H as isize - j0 as isize * sx };
                        for j in 0..w as isize {
                            for q in (0..h * size).step_by(64) {
                                prefetch((s.wrapping_offset(j * sx + next) as *const u8).wrapping_add(q));
                            }
                        }
                        transpose_bits(size, t as *mut u8, so as usize, s as *const u8, sx, w, h);
                    }
                }
                continue;
            }
            for j0 in (0..m).step_by(B) {
                let w = B.min(m - j0);
                // SAFETY: block (i0.., j0..) of a plane lies inside both operands.
                unsafe {
                    let mut block = [[std::mem::MaybeUninit::<T>::uninit(); B]; H];
                    for j in 0..w {
                        let s = src.0.offset(ps + i0 as isize + (j0 + j) as isize * sx);
                        for (i, row) in block.iter_mut().enumerate().take(h) {
                            row[j].write(s.add(i).read());
                        }
                    }
                    for (i, row) in block.iter().enumerate().take(h) {
                        let t = dst.0.offset(pd + (i0 + i) as isize * so + j0 as isize);
                        std::ptr::copy_nonoverlapping(row.as_ptr() as *const T, t, w);
                    }
                }
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Case;

    #[test]
    fn operands_across_rows_are_turned() {
        for dtype in [DType::F32, DType::F64, DType::I64, DType::BF16] {
            for sizes in [vec![70i64, 133], vec![3, 40, 150], vec![40, 3, 70], vec![9, 300]] {
                let class = dtype.class();
                let input = Input::Operand(class);
                let step = Step { op: StepOp::Apply(ScalarFn::Sub), class, args: [0, 1, 0, 0] };
                let sub = Program { inputs: &[input, input], steps: &[step], results: &[2] };
                let same = Program { inputs: &[input], steps: &[], results: &[0] };
                let (a, b) = (Case::random(dtype, &sizes, true, 1), Case::random(dtype, &sizes, false, 2));
                let (c, d) = (Case::random(dtype, &sizes, true, 3), Case::random(dtype, &sizes, false, 4));
                let mut bits: Option<Vec<u8>> = None;
                for threads in [1, 2, 8] {
                    pool::set_num_threads(threads);
                    // Across rows as the first operand, as the second, and both.
                    for (x, y) in [(&a, &b), (&b, &a), (&a, &c)] {
                        map(&sub, &[x.operand(), y.operand()], &[d.operand()]).unwrap();
                        let (xv, yv, dv) = (x.values(), y.values(), d.reals());
                        for i in 0..dv.len() {
                            let want = xv[i].re - yv[i].re;
                            assert!((dv[i] - want).abs() <= want.abs() / 128.0, "{dtype} {sizes:?} {i}");
                            assert!(dtype != DType::I64 || dv[i] == want);
                        }
                    }
                    assert_eq!(*bits.get_or_insert(d.bytes.clone()), d.bytes);
                }
                map(&same, &[a.operand()], &[d.operand()]).unwrap();
                assert_eq!(a.values(), d.values());
            }
        }
    }

    /// Outputs that are stored past the caches, beginning somewhere in a cache line, beside the same computed row by row.
    #[test]
    fn streamed_outputs_are_the_same() {
        let (rows, n) = (7usize, 5001usize);
        for (dtype, to) in
            [(DType::F32, DType::F32), (DType::F64, DType::F64), (DType::F32, DType::BF16), (DType::BF16, DType::F32)]
        {
            let class = dtype.class();
            let input = Input::Operand(class);
            let step = |f, args| Step { op: StepOp::Apply(f), class, args };
            let number = Input::Number(Number::Float(0.7), class);
            let steps = [
                step(ScalarFn::Add, [0, 1, 0, 0]),
                step(ScalarFn::Exp, [2, 0, 0, 0]),
                step(ScalarFn::Mul, [3, 1, 0, 0]),
            ];
            let programs = [
                Program { inputs: &[input], steps: &[], results: &[0] },
                Program { inputs: &[input, input], steps: &steps[..1], results: &[2] },
                Program { inputs: &[input, number], steps: &steps[..1], results: &[2] },
                Program { inputs: &[input, input], steps: &steps, results: &[4] },
            ];
            let sizes = [(rows * n + 16) as i64];
            let (a, b) = (Case::random(dtype, &sizes, false, 1), Case::random(dtype, &sizes, false, 2));
            for (k, program) in programs.iter().enumerate() {
                for broadcast in [false, true] {
                    let start = Case::random(to, &sizes, false, 3);
                    let run = |first: usize, count: usize, out: &Case| {
                        let (sizes, strides) = ([count as i64, n as i64], [n as i64, 1]);
                        let along = [if broadcast { 0 } else { n as i64 }, 1];
                        let part = |x: &Case, row: usize| x.operand().ptr.wrapping_add((row * n + 3) * x.dtype.size());
                        let x = Operand { ptr: part(&a, first), sizes: &sizes, strides: &strides, ..a.operand() };
                        let row = if broadcast { 0 } else { first };
                        let y = Operand { ptr: part(&b, row), sizes: &sizes, strides: &along, ..b.operand() };
                        let o = Operand { ptr: part(out, first), sizes: &sizes, strides: &strides, ..out.operand() };
                        let inputs = program.inputs.iter().filter(|i| matches!(i, Input::Operand(_))).count();
                        map(program, &[x, y][..inputs], &[o]).unwrap();
                    };
                    let one = Case { bytes: start.bytes.clone(), ..Case::random(to, &sizes, false, 3) };
                    (0..rows).for_each(|r| run(r, 1, &one));
                    for threads in [1, 2, 8] {
                        pool::set_num_threads(threads);
                        let whole = Case { bytes: start.bytes.clone(), ..Case::random(to, &sizes, false, 3) };
                        run(0, rows, &whole);
                        assert!(whole.bytes == one.bytes, "{dtype} {to} program {k} {broadcast} {threads}");
                    }
                }
            }
        }
    }
}
