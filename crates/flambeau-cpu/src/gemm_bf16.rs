//! Products of bfloat16 where the machine multiplies pairs of them (AVX-512 BF16). A pair of neighbours along K is moved about
//! as one number of 32 bits, so that packing and blocking are those of float32 over half as many steps; sums are float32.

use crate::element::Ptr;
use crate::gemm::Panels;
use crate::gemm_kernels::{bf16_micro, Micro, Scalar};
use crate::isa::{dispatch, Isa, Kernel};

/// A matrix of bfloat16, read as pairs along K.
#[derive(Clone, Copy)]
pub(crate) struct Pairs {
    pub at: Ptr<u16>,
    /// Elements between lanes and between steps of K.
    pub lane: isize,
    pub step: isize,
    /// Single steps; an odd one is paired with 0.
    pub k: usize,
}

/// Each two rows of adjacent lanes as one row of pairs.
struct Interleave {
    from: *const u16,
    step: isize,
    to: *mut u32,
    width: usize,
    lanes: usize,
    k: usize,
}
impl Kernel for Interleave {
    type Out = ();
    #[inline(always)]
    fn run<I: Isa>(self) {
        for p in 0..self.k {
            // SAFETY: `Panels::pack`'s contract: `2 k` rows of adjacent lanes on one side, `k` rows on the other, apart.
            let (low, high, to) = unsafe {
                let low = self.from.offset(2 * p as isize * self.step);
                (
                    std::slice::from_raw_parts(low, self.lanes),
                    std::slice::from_raw_parts(low.offset(self.step), self.lanes),
                    std::slice::from_raw_parts_mut(self.to.add(p * self.width), self.lanes),
                )
            };
            for ((to, low), high) in to.iter_mut().zip(low).zip(high) {
                *to = *low as u32 | (*high as u32) << 16;
            }
        }
    }
}

impl Panels<f32> for Pairs {
    unsafe fn pack(&self, dst: *mut f32, width: usize, lane: usize, lanes: usize, k: usize, kb: usize) {
        let whole = kb.min((self.k - 2 * k) / 2);
        let src = self.at.at(lane as isize * self.lane + 2 * k as isize * self.step) as *const u16;
        let mut done = 0;
        if self.lane == 1 {
            dispatch(Interleave { from: src, step: self.step, to: dst as *mut u32, width, lanes, k: whole });
            done = whole;
        } else if self.step == 1 && self.lane % 2 == 0 && (src as usize).is_multiple_of(4) {
            f32::transpose(dst, width, src as *const f32, self.lane / 2, lanes, whole);
            done = whole;
        }
        for p in done..kb {
            for l in 0..lanes {
                let at = src.offset(l as isize * self.lane + 2 * p as isize * self.step);
                let high = if p < whole { *at.offset(self.step) } else { 0 };
                (dst as *mut u32).add(p * width + l).write(*at as u32 | (high as u32) << 16);
            }
        }
    }
    fn micro(&self) -> Option<Micro<f32>> {
        bf16_micro()
    }
}
