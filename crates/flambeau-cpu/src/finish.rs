//! Element-by-element work on the parts of a matrix that has just been computed, while they are in a cache.

use crate::convert;
use crate::isa::dispatch;
use crate::matmul::merged;
use crate::tile::{CopyBytes, Evaluator, Prepared, Space, TILE};
use flambeau_core::{Result, Then};

/// A program made ready to run over blocks of the product's rows and columns, by any thread.
pub(crate) struct Finish<'a> {
    then: Then<'a>,
    prepared: Prepared<'a>,
    /// Rows and columns; the operands', then the outputs' strides.
    space: Space,
}

impl<'a> Finish<'a> {
    /// For a product of `rows` × `columns`. None where an operand's leading dimensions cannot be walked as rows.
    ///
    /// # Errors
    /// As [`Prepared::new`].
    pub(crate) fn new(then: Then<'a>, rows: usize, columns: usize) -> Result<Option<Finish<'a>>> {
        let mut space = Space { sizes: [rows, columns].into_iter().collect(), strides: Default::default() };
        for o in then.x.iter().chain(then.out) {
            let last = o.sizes.len() - 1;
            let Some(row) = merged(&o.sizes[..last], &o.strides[..last]) else { return Ok(None) };
            space.strides.push([row as isize, o.strides[last] as isize].into_iter().collect());
        }
        Ok(Some(Finish { then, prepared: Prepared::new(then.program, then.x)?, space }))
    }

    /// Runs the program for `rows` rows from `i` and `columns` columns from `j`.
    ///
    /// # Safety
    /// The product's elements there have been computed, and no other thread writes them or the outputs there meanwhile.
    pub(crate) unsafe fn block(&self, i: usize, rows: usize, j: usize, columns: usize) {
        let Finish { then, prepared, space } = self;
        let mut evaluator = Evaluator::new(prepared, space);
        let (wide, high) = (columns.min(TILE), (TILE / columns).max(1));
        for i in (i..i + rows).step_by(high).map(|r| (r, high.min(i + rows - r))) {
            for j in (j..j + columns).step_by(wide).map(|c| (c, wide.min(j + columns - c))) {
                evaluator.block(i, j);
                for (k, (o, &v)) in then.out.iter().zip(then.program.results).enumerate() {
                    let class = prepared.class(v);
                    let strides = &space.strides[then.x.len() + k];
                    let size = o.dtype.size() as isize;
                    let at = (i.0 as isize * strides[0] + j.0 as isize * strides[1]) * size;
                    let (to, from) = (o.ptr.wrapping_offset(at), evaluator.value(v));
                    let (step, bytes) = (strides[0] * size, j.1 * class.size());
                    if o.dtype == class.dtype() && strides[1] == 1 {
                        dispatch(CopyBytes { from: (from, bytes as isize), to: (to, step), rows: i.1, bytes });
                    } else {
                        for r in 0..i.1 {
                            let (from, to) = (from.wrapping_add(r * bytes), to.wrapping_offset(r as isize * step));
                            convert::store(o.dtype, class, from, j.1, to, strides[1]);
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::Case;
    use crate::{map, matmul, pool};
    use flambeau_core::*;

    /// What follows by blocks gives the bits that it gives afterwards, wherever the product goes.
    #[test]
    fn blocks_of_every_blocking() {
        let class = Class::F32;
        let inputs = [Input::Operand(class), Input::Operand(class), Input::Number(Number::Float(0.5), class)];
        let steps = [
            Step { op: StepOp::Apply(ScalarFn::Gelu), class, args: [0, 0, 0, 0] },
            Step { op: StepOp::Apply(ScalarFn::Mul), class, args: [3, 2, 0, 0] },
            Step { op: StepOp::Apply(ScalarFn::Add), class, args: [4, 1, 0, 0] },
        ];
        let program = Program { inputs: &inputs, steps: &steps, results: &[5, 3] };
        // Read where it lies, in one piece, few columns, slabs, slices of K; a vector, which is followed as a whole.
        for (m, n, k) in [(20, 70, 30), (100, 300, 600), (300, 100, 70), (900, 700, 520), (200, 90, 1500), (1, 40, 30)]
        {
            for turned in [false, true] {
                let a = Case::random(DType::F32, &[m, k], turned, 1);
                let b = Case::random(DType::F32, &[k, n], !turned, 2);
                let (bias, row) = (Case::random(DType::F32, &[n], false, 3), Case::random(DType::F32, &[n], false, 4));
                let row = Operand { sizes: &[m, n], strides: &[0, 1], ..row.operand() };
                let [c, want, other, other_want] =
                    [5, 6, 7, 8].map(|s| Case::random(DType::F32, &[m, n], s > 6 && turned, s));
                let product = |out: &Case, then: Option<Then>| {
                    let epilogue = Epilogue { bias: Some(bias.operand()), accumulate: false, then };
                    matmul::matmul(&a.operand(), &b.operand(), &out.operand(), epilogue).unwrap();
                };
                product(&want, None);
                let (x, out) = ([want.operand(), row], [want.operand(), other_want.operand()]);
                map::map(&program, &x, &out).unwrap();
                for threads in [1, 2, 8] {
                    pool::set_num_threads(threads);
                    let (x, out) = ([c.operand(), row], [c.operand(), other.operand()]);
                    product(&c, Some(Then { program: &program, x: &x, out: &out }));
                    assert_eq!(c.bytes, want.bytes, "{m} {n} {k} {turned}");
                    assert_eq!(other.values(), other_want.values());
                }
            }
        }
    }
}
