//! Vectors of float32 as wide as the level's registers, for kernels whose loads and shuffles the compiler would not find in a
//! plain loop: loads of some lanes only, and numbers at even and odd places taken apart and put together.

/// A register of float32 numbers.
pub trait Vector: Copy {
    /// Lanes.
    const N: usize;
    fn zero() -> Self;
    fn splat(x: f32) -> Self;
    /// # Safety
    /// `N` numbers are readable at `p`.
    unsafe fn load(p: *const f32) -> Self;
    /// # Safety
    /// `N` numbers are writable at `p`.
    unsafe fn store(self, p: *mut f32);
    /// As `store`, past the caches where the machine has such stores, which other stores do not wait for.
    ///
    /// # Safety
    /// `N` numbers are writable at `p`, which is aligned to a register.
    unsafe fn stream(self, p: *mut f32);
    /// Puts the numbers at `p` into the lanes whose bits are set in `mask`; the other lanes stay. `self` is 0 in the set lanes.
    ///
    /// # Safety
    /// `p + l` is readable for every lane `l` that is set; `p` itself may be any address.
    unsafe fn fill(self, p: *const f32, mask: u32) -> Self;
    /// Writes the lanes whose bits are set in `mask`, which are adjacent.
    ///
    /// # Safety
    /// `p + l` is writable for every lane `l` that is set; `p` itself may be any address.
    unsafe fn store_some(self, p: *mut f32, mask: u32);
    /// The numbers at `p`, `p + step`, ….
    ///
    /// # Safety
    /// They are readable; `(N - 1) · step` fits 31 bits.
    unsafe fn strided(p: *const f32, step: isize) -> Self;
    fn add(self, other: Self) -> Self;
    fn sub(self, other: Self) -> Self;
    fn mul(self, other: Self) -> Self;
    /// `self · a + b`, rounded once where the level can.
    fn mul_add(self, a: Self, b: Self) -> Self;
    /// The numbers at even and at odd places of the 2 N that the two make up.
    fn split(self, other: Self) -> (Self, Self);
    /// The reverse: the numbers of both in turn.
    fn join(self, other: Self) -> (Self, Self);
    /// The lanes whose bits are set in `mask`, moved to the front in order; the others are unspecified.
    fn squeeze(self, mask: u32) -> Self;
}

/// Lanes set in a mask, which are adjacent.
fn range(mask: u32) -> std::ops::Range<usize> {
    let lo = mask.trailing_zeros().min(31);
    lo as usize..(32 - mask.leading_zeros()) as usize
}

/// Four numbers, on every machine.
#[derive(Clone, Copy)]
pub struct Plain([f32; 4]);
impl Vector for Plain {
    const N: usize = 4;
    #[inline(always)]
    fn zero() -> Self {
        Plain([0.0; 4])
    }
    #[inline(always)]
    fn splat(x: f32) -> Self {
        Plain([x; 4])
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        Plain((p as *const [f32; 4]).read_unaligned())
    }
    #[inline(always)]
    unsafe fn strided(p: *const f32, step: isize) -> Self {
        Plain(std::array::from_fn(|l| *p.offset(l as isize * step)))
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        (p as *mut [f32; 4]).write_unaligned(self.0)
    }
    #[inline(always)]
    unsafe fn stream(self, p: *mut f32) {
        #[cfg(target_arch = "x86_64")]
        std::arch::x86_64::_mm_stream_ps(p, std::mem::transmute::<[f32; 4], std::arch::x86_64::__m128>(self.0));
        #[cfg(not(target_arch = "x86_64"))]
        self.store(p)
    }
    #[inline(always)]
    unsafe fn fill(mut self, p: *const f32, mask: u32) -> Self {
        for (l, v) in self.0.iter_mut().enumerate() {
            if mask >> l & 1 == 1 {
                *v = *p.wrapping_add(l);
            }
        }
        self
    }
    #[inline(always)]
    unsafe fn store_some(self, p: *mut f32, mask: u32) {
        for (l, v) in self.0.iter().enumerate() {
            if mask >> l & 1 == 1 {
                *p.wrapping_add(l) = *v;
            }
        }
    }
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        Plain(std::array::from_fn(|l| self.0[l] + other.0[l]))
    }
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        Plain(std::array::from_fn(|l| self.0[l] - other.0[l]))
    }
    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        Plain(std::array::from_fn(|l| self.0[l] * other.0[l]))
    }
    #[inline(always)]
    fn mul_add(self, a: Self, b: Self) -> Self {
        Plain(std::array::from_fn(|l| self.0[l] * a.0[l] + b.0[l]))
    }
    #[inline(always)]
    fn split(self, other: Self) -> (Self, Self) {
        let (a, b) = (self.0, other.0);
        (Plain([a[0], a[2], b[0], b[2]]), Plain([a[1], a[3], b[1], b[3]]))
    }
    #[inline(always)]
    fn join(self, other: Self) -> (Self, Self) {
        let (a, b) = (self.0, other.0);
        (Plain([a[0], b[0], a[1], b[1]]), Plain([a[2], b[2], a[3], b[3]]))
    }
    #[inline(always)]
    fn squeeze(self, mask: u32) -> Self {
        let (mut out, mut k) = ([0.0; 4], 0);
        for (l, v) in self.0.iter().enumerate() {
            out[k & 3] = *v;
            k += (mask >> l & 1) as usize;
        }
        Plain(out)
    }
}

// The methods are inlined into kernels that `isa::dispatch` compiled for the level, which is where their instructions exist;
// no other code has values of these types.
#[cfg(target_arch = "x86_64")]
pub(crate) mod x86 {
    use super::{range, Vector};
    use std::arch::x86_64::*;

    /// 16 numbers; AVX-512.
    #[derive(Clone, Copy)]
    pub struct V512(__m512);
    const EVEN: [i32; 16] = [0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30];
    const ODD: [i32; 16] = [1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31];
    const LOW: [i32; 16] = [0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23];
    const HIGH: [i32; 16] = [8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31];
    // SAFETY (of all methods): kernels of the AVX-512 level alone use this type.
    impl V512 {
        #[inline(always)]
        fn pick(self, other: Self, from: &[i32; 16]) -> Self {
            unsafe {
                let index = _mm512_loadu_si512(from.as_ptr() as *const __m512i);
                V512(_mm512_permutex2var_ps(self.0, index, other.0))
            }
        }
    }
    impl Vector for V512 {
        const N: usize = 16;
        #[inline(always)]
        fn zero() -> Self {
            unsafe { V512(_mm512_setzero_ps()) }
        }
        #[inline(always)]
        fn splat(x: f32) -> Self {
            unsafe { V512(_mm512_set1_ps(x)) }
        }
        #[inline(always)]
        unsafe fn load(p: *const f32) -> Self {
            V512(_mm512_loadu_ps(p))
        }
        #[inline(always)]
        unsafe fn strided(p: *const f32, step: isize) -> Self {
            let lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
            let index = _mm512_mullo_epi32(lanes, _mm512_set1_epi32(step as i32));
            V512(_mm512_i32gather_ps::<4>(index, p))
        }
        #[inline(always)]
        unsafe fn store(self, p: *mut f32) {
            _mm512_storeu_ps(p, self.0)
        }
        #[inline(always)]
        unsafe fn stream(self, p: *mut f32) {
            _mm512_stream_ps(p, self.0)
        }
        #[inline(always)]
        unsafe fn fill(self, p: *const f32, mask: u32) -> Self {
            V512(_mm512_mask_loadu_ps(self.0, mask as u16, p))
        }
        #[inline(always)]
        unsafe fn store_some(self, p: *mut f32, mask: u32) {
            _mm512_mask_storeu_ps(p, mask as u16, self.0)
        }
        #[inline(always)]
        fn add(self, other: Self) -> Self {
            unsafe { V512(_mm512_add_ps(self.0, other.0)) }
        }
        #[inline(always)]
        fn sub(self, other: Self) -> Self {
            unsafe { V512(_mm512_sub_ps(self.0, other.0)) }
        }
        #[inline(always)]
        fn mul(self, other: Self) -> Self {
            unsafe { V512(_mm512_mul_ps(self.0, other.0)) }
        }
        #[inline(always)]
        fn mul_add(self, a: Self, b: Self) -> Self {
            unsafe { V512(_mm512_fmadd_ps(self.0, a.0, b.0)) }
        }
        #[inline(always)]
        fn split(self, other: Self) -> (Self, Self) {
            (self.pick(other, &EVEN), self.pick(other, &ODD))
        }
        #[inline(always)]
        fn join(self, other: Self) -> (Self, Self) {
            (self.pick(other, &LOW), self.pick(other, &HIGH))
        }
        #[inline(always)]
        fn squeeze(self, mask: u32) -> Self {
            unsafe { V512(_mm512_maskz_compress_ps(mask as u16, self.0)) }
        }
    }

    /// 8 numbers; AVX2.
    #[derive(Clone, Copy)]
    pub struct V256(__m256);
    /// The lanes of a mask as the instruction wants them.
    static LANES: [[i32; 8]; 256] = {
        let mut table = [[0; 8]; 256];
        let mut i = 0;
        while i < 256 {
            let mut l = 0;
            while l < 8 {
                table[i][l] = -(((i >> l) & 1) as i32);
                l += 1;
            }
            i += 1;
        }
        table
    };
    /// The set lanes of a mask, a byte each, lowest first.
    static FRONT: [u64; 256] = {
        let mut table = [0; 256];
        let mut i = 0;
        while i < 256 {
            let (mut l, mut k) = (0, 0);
            while l < 8 {
                if (i >> l) & 1 == 1 {
                    table[i] |= (l as u64) << (8 * k);
                    k += 1;
                }
                l += 1;
            }
            i += 1;
        }
        table
    };
    // SAFETY (of all methods): kernels of the AVX2 level alone use this type.
    impl Vector for V256 {
        const N: usize = 8;
        #[inline(always)]
        fn zero() -> Self {
            unsafe { V256(_mm256_setzero_ps()) }
        }
        #[inline(always)]
        fn splat(x: f32) -> Self {
            unsafe { V256(_mm256_set1_ps(x)) }
        }
        #[inline(always)]
        unsafe fn load(p: *const f32) -> Self {
            V256(_mm256_loadu_ps(p))
        }
        #[inline(always)]
        unsafe fn strided(p: *const f32, step: isize) -> Self {
            let lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
            let index = _mm256_mullo_epi32(lanes, _mm256_set1_epi32(step as i32));
            V256(_mm256_i32gather_ps::<4>(p, index))
        }
        #[inline(always)]
        unsafe fn store(self, p: *mut f32) {
            _mm256_storeu_ps(p, self.0)
        }
        #[inline(always)]
        unsafe fn stream(self, p: *mut f32) {
            _mm256_stream_ps(p, self.0)
        }
        #[inline(always)]
        unsafe fn fill(self, p: *const f32, mask: u32) -> Self {
            let lanes = _mm256_loadu_si256(LANES[mask as usize & 255].as_ptr() as *const __m256i);
            V256(_mm256_or_ps(self.0, _mm256_maskload_ps(p, lanes)))
        }
        #[inline(always)]
        unsafe fn store_some(self, p: *mut f32, mask: u32) {
            // The masked store of this level takes many cycles on some machines.
            if mask == 255 {
                return self.store(p);
            }
            let mut lanes = [0f32; 8];
            _mm256_storeu_ps(lanes.as_mut_ptr(), self.0);
            for l in range(mask) {
                *p.wrapping_add(l) = lanes[l];
            }
        }
        #[inline(always)]
        fn add(self, other: Self) -> Self {
            unsafe { V256(_mm256_add_ps(self.0, other.0)) }
        }
        #[inline(always)]
        fn sub(self, other: Self) -> Self {
            unsafe { V256(_mm256_sub_ps(self.0, other.0)) }
        }
        #[inline(always)]
        fn mul(self, other: Self) -> Self {
            unsafe { V256(_mm256_mul_ps(self.0, other.0)) }
        }
        #[inline(always)]
        fn mul_add(self, a: Self, b: Self) -> Self {
            unsafe { V256(_mm256_fmadd_ps(self.0, a.0, b.0)) }
        }
        #[inline(always)]
        fn split(self, other: Self) -> (Self, Self) {
            unsafe {
                let (even, odd) =
                    (_mm256_shuffle_ps::<0x88>(self.0, other.0), _mm256_shuffle_ps::<0xDD>(self.0, other.0));
                let order = |v| V256(_mm256_castpd_ps(_mm256_permute4x64_pd::<0xD8>(_mm256_castps_pd(v))));
                (order(even), order(odd))
            }
        }
        #[inline(always)]
        fn join(self, other: Self) -> (Self, Self) {
            unsafe {
                let (low, high) = (_mm256_unpacklo_ps(self.0, other.0), _mm256_unpackhi_ps(self.0, other.0));
                (V256(_mm256_permute2f128_ps::<0x20>(low, high)), V256(_mm256_permute2f128_ps::<0x31>(low, high)))
            }
        }
        #[inline(always)]
        fn squeeze(self, mask: u32) -> Self {
            unsafe {
                let places = _mm_loadl_epi64(&FRONT[mask as usize & 255] as *const u64 as *const __m128i);
                V256(_mm256_permutevar8x32_ps(self.0, _mm256_cvtepu8_epi32(places)))
            }
        }
    }
}

/// The lanes `lo..hi` of a vector of `n`, as far as it has them.
#[inline(always)]
pub(crate) fn mask(lo: isize, hi: isize, n: usize) -> u32 {
    let (lo, hi) = (lo.clamp(0, n as isize) as u32, hi.clamp(0, n as isize) as u32);
    if lo < hi {
        (u32::MAX >> (32 - (hi - lo))) << lo
    } else {
        0
    }
}
