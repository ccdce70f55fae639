//! The tile interpreter: evaluates a scalar program over any stretch of an iteration space, a tile at a time, for `map`
//! and for the reductions that end a fused group. Eager execution is a program of one step.

use crate::convert;
use crate::isa::{dispatch, Isa, Kernel};
use crate::kernels::kernel;
use flambeau_core::*;
use std::cell::RefCell;

/// Elements of a tile.
pub const TILE: usize = 512;

/// An iteration space: sizes, and each operand's strides in elements.
pub struct Space {
    pub sizes: SmallVec<[usize; 6]>,
    pub strides: SmallVec<[SmallVec<[isize; 6]>; 8]>,
}

impl Space {
    /// The operands' dimensions in the given order, with neighbours merged where every operand allows it.
    /// `barriers` are positions in `order` that may not merge with what comes before them.
    pub fn new(sizes: &[i64], operands: &[&[i64]], order: &[usize], barriers: &[usize]) -> Space {
        let mut space = Space { sizes: SmallVec::new(), strides: operands.iter().map(|_| SmallVec::new()).collect() };
        let mut fresh = true;
        for (at, &d) in order.iter().enumerate() {
            fresh |= barriers.contains(&at);
            if sizes[d] == 1 {
                continue;
            }
            let n = sizes[d] as usize;
            let last = space.sizes.len();
            if !fresh
                && last > 0
                && operands.iter().zip(&space.strides).all(|(o, s)| s[last - 1] == o[d] as isize * n as isize)
            {
                space.sizes[last - 1] *= n;
                for (o, s) in operands.iter().zip(&mut space.strides) {
                    s[last - 1] = o[d] as isize;
                }
            } else {
                space.sizes.push(n);
                for (o, s) in operands.iter().zip(&mut space.strides) {
                    s.push(o[d] as isize);
                }
            }
            fresh = false;
        }
        if space.sizes.is_empty() {
            space.sizes.push(1);
            space.strides.iter_mut().for_each(|s| s.push(1));
        }
        space
    }
    /// Size of the innermost dimension.
    pub fn inner(&self) -> usize {
        self.sizes[self.sizes.len() - 1]
    }
    /// Innermost stride of an operand.
    pub fn inner_stride(&self, k: usize) -> isize {
        self.strides[k][self.sizes.len() - 1]
    }
    /// Calls `f(offsets of the row's start, first, end)` for the stretches of innermost rows that make up elements
    /// `lo..hi`, walking the outer dimensions like an odometer.
    #[inline(always)]
    pub fn rows(&self, lo: usize, hi: usize, mut f: impl FnMut(&[isize], usize, usize)) {
        if lo >= hi {
            return;
        }
        let inner = self.inner();
        let outer = self.sizes.len() - 1;
        let mut at: SmallVec<[isize; 8]> = SmallVec::from_elem(0, self.strides.len());
        let mut coordinates: SmallVec<[usize; 6]> = SmallVec::from_elem(0, outer);
        let (mut rest, mut column) = (lo / inner, lo % inner);
        for d in (0..outer).rev() {
            coordinates[d] = rest % self.sizes[d];
            rest /= self.sizes[d];
            at.iter_mut().zip(&self.strides).for_each(|(o, s)| *o += coordinates[d] as isize * s[d]);
        }
        let mut left = hi - lo;
        loop {
            let w = (inner - column).min(left);
            f(&at, column, column + w);
            left -= w;
            if left == 0 {
                return;
            }
            column = 0;
            for d in (0..outer).rev() {
                coordinates[d] += 1;
                if coordinates[d] < self.sizes[d] {
                    at.iter_mut().zip(&self.strides).for_each(|(o, s)| *o += s[d]);
                    break;
                }
                coordinates[d] = 0;
                let back = self.sizes[d] as isize - 1;
                at.iter_mut().zip(&self.strides).for_each(|(o, s)| *o -= back * s[d]);
            }
        }
    }
    /// Element offset of operand `k` at a linear index.
    pub fn offset(&self, k: usize, mut i: usize) -> isize {
        let mut at = 0;
        for d in (0..self.sizes.len()).rev() {
            at += (i % self.sizes[d]) as isize * self.strides[k][d];
            i /= self.sizes[d];
        }
        at
    }
}

/// A program made ready: its kernels looked up, its values given room.
pub struct Prepared<'a> {
    pub program: &'a Program<'a>,
    pub x: &'a [Operand<'a>],
    kernels: SmallVec<[Option<DirectKernel>; 8]>,
    /// Byte offset of each value's tile, and its class.
    slots: SmallVec<[(usize, Class); 16]>,
    bytes: usize,
}

impl<'a> Prepared<'a> {
    /// # Errors
    /// `NotImplemented` for a row without a formula in its class.
    pub fn new(program: &'a Program<'a>, x: &'a [Operand<'a>]) -> Result<Self> {
        let mut slots = SmallVec::new();
        let mut bytes = 0;
        for v in 0..program.inputs.len() + program.steps.len() {
            let class = program.class_of(v as u16);
            slots.push((bytes, class));
            bytes += TILE * class.size();
        }
        let mut kernels = SmallVec::new();
        for s in program.steps {
            kernels.push(match s.op {
                StepOp::Apply(f) => Some(kernel(f, s.class).ok_or_else(|| {
                    err!(NotImplemented, "\"{}\" not implemented for '{}'", f.name(), s.class.dtype().title())
                })?),
                StepOp::Convert(..) => None,
            });
        }
        Ok(Prepared { program, x, kernels, slots, bytes })
    }
    /// The class of a value.
    pub fn class(&self, v: u16) -> Class {
        self.slots[v as usize].1
    }
}

/// Copies rows of bytes, whose distances are bytes as well.
pub(crate) struct CopyBytes {
    pub from: (*const u8, isize),
    pub to: (*mut u8, isize),
    pub rows: usize,
    pub bytes: usize,
}
impl CopyBytes {
    /// # Safety
    /// The rows are readable and writable, and do not overlap.
    #[inline(always)]
    unsafe fn of<const N: usize>(&self) {
        for r in 0..self.rows as isize {
            let (from, to) = (self.from.0.offset(r * self.from.1), self.to.0.offset(r * self.to.1));
            *(to as *mut [u8; N]) = *(from as *const [u8; N]);
        }
    }
}
impl Kernel for CopyBytes {
    type Out = ();
    #[inline(always)]
    fn run<I: Isa>(self) {
        // SAFETY: whoever makes it answers for the rows.
        unsafe {
            match self.bytes {
                // What a register tile is wide.
                128 => self.of::<128>(),
                64 => self.of::<64>(),
                n => {
                    for r in 0..self.rows as isize {
                        let (from, to) = (self.from.0.offset(r * self.from.1), self.to.0.offset(r * self.to.1));
                        std::ptr::copy_nonoverlapping(from, to, n);
                    }
                }
            }
        }
    }
}

thread_local! {
    static SCRATCH: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
}

/// Evaluates a prepared program over a space. One for each thread that works.
pub struct Evaluator<'a, 'p> {
    p: &'p Prepared<'a>,
    space: &'p Space,
    scratch: Vec<u64>,
    base: *mut u8,
    /// Where each value is, for the current tile.
    at: SmallVec<[*const u8; 16]>,
    /// Values that never change: numbers, and operands that are the same everywhere.
    fixed: SmallVec<[bool; 8]>,
    /// The operand that the first result simply is, if it is one of its own class with unit stride.
    plain: Option<usize>,
}

impl<'a, 'p> Evaluator<'a, 'p> {
    pub fn new(p: &'p Prepared<'a>, space: &'p Space) -> Self {
        let mut scratch = SCRATCH.with(|s| std::mem::take(&mut *s.borrow_mut()));
        let words = p.bytes / 8 + 8;
        if scratch.len() < words {
            scratch.resize(words, 0);
        }
        // Tiles aligned to a cache line.
        let base = ((scratch.as_mut_ptr() as usize + 63) & !63) as *mut u8;
        let mut at: SmallVec<[*const u8; 16]> = SmallVec::new();
        for (offset, _) in &p.slots {
            at.push(base.wrapping_add(*offset) as *const u8);
        }
        let mut fixed = SmallVec::new();
        let mut k = 0;
        let total: usize = space.sizes.iter().product();
        let n = TILE.min(total);
        for (v, input) in p.program.inputs.iter().enumerate() {
            match *input {
                Input::Number(number, class) => {
                    // SAFETY: the value's slot has room for a tile.
                    unsafe { convert::fill(class, number, n, at[v] as *mut u8) };
                    fixed.push(true);
                }
                Input::Operand(class) => {
                    let everywhere = space.strides[k].iter().zip(&space.sizes).all(|(s, n)| *s == 0 || *n == 1);
                    if everywhere {
                        // SAFETY: one element is read again and again; the slot has room for a tile.
                        unsafe { convert::load(p.x[k].dtype, class, p.x[k].ptr, 0, n, at[v] as *mut u8) };
                    }
                    fixed.push(everywhere);
                    k += 1;
                }
            }
        }
        let result = p.program.results.first().map_or(usize::MAX, |&v| v as usize);
        let operands = |end: usize| p.program.inputs[..end].iter().filter(|i| matches!(i, Input::Operand(_))).count();
        let plain = match p.program.inputs.get(result) {
            Some(Input::Operand(class)) => {
                Some(operands(result)).filter(|&k| p.x[k].dtype == class.dtype() && space.inner_stride(k) == 1)
            }
            _ => None,
        };
        Evaluator { p, space, scratch, base, at, fixed, plain }
    }

    /// Evaluates elements `start .. start + n` of the space (n ≤ TILE). `target`, if given, is memory in which value
    /// `.0` is to end up: it has the value's class, `n` elements, and does not overlap any operand but exactly the first
    /// argument of the last step.
    pub fn tile(&mut self, start: usize, n: usize, target: Option<(u16, *mut u8)>) {
        debug_assert!(n <= TILE);
        let inner = self.space.inner();
        let (row, column) = (start / inner, start % inner);
        let single = column + n <= inner;
        let mut k = 0;
        for (v, input) in self.p.program.inputs.iter().enumerate() {
            let Input::Operand(class) = *input else { continue };
            let (operand, k_now) = (&self.p.x[k], k);
            k += 1;
            if self.fixed[v] {
                continue;
            }
            let size = operand.dtype.size() as isize;
            let stride = self.space.inner_stride(k_now);
            let first = self.space.offset(k_now, row * inner) + column as isize * stride;
            let slot = self.base.wrapping_add(self.p.slots[v].0);
            if single {
                let src = operand.ptr.wrapping_offset(first * size);
                if stride == 1 && operand.dtype == class.dtype() {
                    self.at[v] = src;
                } else {
                    // SAFETY: the elements lie in the operand's memory by the space's construction; the slot holds a tile.
                    unsafe { convert::load(operand.dtype, class, src, stride, n, slot) };
                    self.at[v] = slot;
                }
                continue;
            }
            let (mut done, mut row, mut column) = (0, row, column);
            while done < n {
                let len = (inner - column).min(n - done);
                let at = self.space.offset(k_now, row * inner) + column as isize * stride;
                // SAFETY: as above, for a part of the tile.
                unsafe {
                    convert::load(
                        operand.dtype,
                        class,
                        operand.ptr.wrapping_offset(at * size),
                        stride,
                        len,
                        slot.add(done * class.size()),
                    )
                };
                done += len;
                row += 1;
                column = 0;
            }
            self.at[v] = slot;
        }
        self.steps(n, target);
    }
    /// Evaluates some rows and columns, each given by the first and how many, of a space of two dimensions (at most TILE elements
    /// in all). Operands are copied, so that results may be written to their memory afterwards.
    pub fn block(&mut self, (row, rows): (usize, usize), (column, columns): (usize, usize)) {
        debug_assert!(rows * columns <= TILE && self.space.sizes.len() == 2);
        let mut k = 0;
        for (v, input) in self.p.program.inputs.iter().enumerate() {
            let Input::Operand(class) = *input else { continue };
            let (operand, strides) = (&self.p.x[k], &self.space.strides[k]);
            k += 1;
            if self.fixed[v] {
                continue;
            }
            let slot = self.base.wrapping_add(self.p.slots[v].0);
            let size = operand.dtype.size() as isize;
            let from = operand.ptr.wrapping_offset((row as isize * strides[0] + column as isize * strides[1]) * size);
            let (step, bytes) = (strides[0] * size, columns * class.size());
            // SAFETY: the elements lie in the operand's memory by the space's construction; the slot holds a tile.
            unsafe {
                if operand.dtype == class.dtype() && strides[1] == 1 {
                    dispatch(CopyBytes { from: (from, step), to: (slot, bytes as isize), rows, bytes });
                } else {
                    for r in 0..rows {
                        let from = from.offset(r as isize * step);
                        convert::load(operand.dtype, class, from, strides[1], columns, slot.add(r * bytes));
                    }
                }
            }
            self.at[v] = slot;
        }
        self.steps(rows * columns, None);
    }
    /// Runs the program's steps over `n` elements of the operands that have been loaded.
    #[inline]
    fn steps(&mut self, n: usize, target: Option<(u16, *mut u8)>) {
        let inputs = self.p.program.inputs.len();
        for (i, step) in self.p.program.steps.iter().enumerate() {
            let v = inputs + i;
            let slot = match target {
                Some((t, memory)) if t as usize == v => memory,
                _ => self.base.wrapping_add(self.p.slots[v].0),
            };
            let a = |i: usize| self.at[step.args[i] as usize];
            // SAFETY: every argument is an earlier value with `n` numbers of the step's class; the slot is this value's own, or
            // memory of which `target` says what it overlaps. Unused arguments are valid pointers that are not read.
            unsafe {
                match (step.op, self.p.kernels[i]) {
                    (StepOp::Convert(dtype, to), _) => convert::round_trip(dtype, step.class, to, n, a(0), slot),
                    (_, Some(kernel)) => kernel(n, a(0), a(1), a(2), a(3), slot),
                    _ => {}
                }
            }
            self.at[v] = slot;
        }
    }
    /// Elements `start .. start + n` of value `v`, at any length, where they lie as numbers of the value's class in an
    /// operand's memory: the value is an operand of its own class, contiguous there.
    #[inline]
    pub fn span(&self, v: u16, start: usize, n: usize) -> Option<*const u8> {
        let k = self.plain?;
        debug_assert_eq!(v, self.p.program.results[0]);
        let inner = self.space.inner();
        let column = start % inner;
        if column + n > inner {
            return None;
        }
        let operand = &self.p.x[k];
        let at = self.space.offset(k, start - column) + column as isize;
        Some(operand.ptr.wrapping_offset(at * operand.dtype.size() as isize))
    }
    /// Elements of an operand between neighbours along dimension `d` of the space, where [`Evaluator::span`] finds the value's
    /// numbers in it.
    pub fn step(&self, v: u16, d: usize) -> Option<isize> {
        debug_assert_eq!(v, self.p.program.results[0]);
        self.plain.map(|k| self.space.strides[k][d])
    }
    /// Where value `v` of the last tile is.
    pub fn value(&self, v: u16) -> *const u8 {
        self.at[v as usize]
    }
}

impl Drop for Evaluator<'_, '_> {
    fn drop(&mut self) {
        let scratch = std::mem::take(&mut self.scratch);
        let _ = SCRATCH.try_with(|s| *s.borrow_mut() = scratch);
    }
}
