//! The innermost loops of matrix products: a tile of C kept in registers, and the transpositions that packing needs.

use std::sync::OnceLock;

/// What is added to the sums of a tile.
#[derive(Clone, Copy)]
pub(crate) struct Put<S> {
    /// What C holds.
    pub add: bool,
    /// One value a column, unless it is null.
    pub bias: *const S,
}
impl<S> From<bool> for Put<S> {
    fn from(add: bool) -> Self {
        Put { add, bias: std::ptr::null() }
    }
}

/// `C[mr × nr] (+)= A[mr × k] · B[k × nr]`: `a` holds k steps of `Micro::mr` rows, `b` k steps of columns that lie `ldb`
/// apart. Arguments: k, a, b, ldb, c, ldc, rows, columns, what to add, and what will be read next: `STREAM` bytes of it
/// a step are brought into the second-level cache meanwhile.
pub(crate) type MicroFn<S> = unsafe fn(usize, *const S, *const S, usize, *mut S, isize, usize, usize, Put<S>, *const S);
/// Bytes of what will be read next that a tile asks for at every step of K.
pub(crate) const STREAM: usize = 16;

/// The same over an A that lies as it may: the distances between its rows and between its steps come after its address. Of what
/// will be read next, a cache line is asked for at every step.
pub(crate) type NearFn<S> =
    unsafe fn(usize, *const S, [isize; 2], *const S, usize, *mut S, isize, usize, usize, Put<S>, *const S);

/// A register tile of `mr` rows and `nr` columns.
#[derive(Clone, Copy)]
pub(crate) struct Micro<S: 'static> {
    pub mr: usize,
    pub nr: usize,
    pub run: MicroFn<S>,
    /// For an A that is not packed, where the level has such a tile.
    pub near: Option<NearFn<S>>,
}

/// f32 and f64: the numbers whose products go through register tiles.
pub(crate) trait Scalar: crate::element::Float {
    /// The best tile of this machine.
    fn micro() -> Micro<Self>;
    /// `dst[p · width + l] = src[l · stride + p]` for `l < lanes`, `p < k`; lanes past `lanes` may hold anything.
    ///
    /// # Safety
    /// `src` is readable at those positions, `dst` writable for `k · width` values.
    unsafe fn transpose(dst: *mut Self, width: usize, src: *const Self, stride: isize, lanes: usize, k: usize);
}

/// [`Scalar::transpose`] of numbers of `size` bytes, 4 or 8, whatever they are: bits move as they are.
///
/// # Safety
/// As [`Scalar::transpose`].
pub(crate) unsafe fn transpose_bits(
    size: usize,
    dst: *mut u8,
    width: usize,
    src: *const u8,
    stride: isize,
    lanes: usize,
    k: usize,
) {
    debug_assert!(matches!(size, 4 | 8));
    if size == 4 {
        f32::transpose(dst as *mut f32, width, src as *const f32, stride, lanes, k)
    } else {
        f64::transpose(dst as *mut f64, width, src as *const f64, stride, lanes, k)
    }
}

/// Any number of lanes, one value at a time.
#[inline(always)]
unsafe fn transpose_plain<S: Copy>(
    dst: *mut S,
    width: usize,
    src: *const S,
    stride: isize,
    lanes: usize,
    k0: usize,
    k: usize,
) {
    for p in k0..k {
        for l in 0..lanes {
            *dst.add(p * width + l) = *src.offset(l as isize * stride + p as isize);
        }
    }
}

/// The tile of a machine without FMA: 4 rows in plain arrays that the compiler vectorises.
#[allow(clippy::too_many_arguments)]
unsafe fn plain<S: Scalar, const NR: usize>(
    k: usize,
    a: *const S,
    b: *const S,
    ldb: usize,
    c: *mut S,
    ldc: isize,
    mr: usize,
    nr: usize,
    put: Put<S>,
    _next: *const S,
) {
    let mut acc = [[S::default(); NR]; 4];
    for p in 0..k {
        let x = &*(a.add(p * 4) as *const [S; 4]);
        if nr == NR {
            let y = &*(b.add(p * ldb) as *const [S; NR]);
            for i in 0..4 {
                for j in 0..NR {
                    acc[i][j] = acc[i][j].add(x[i].mul(y[j]));
                }
            }
        } else {
            for i in 0..4 {
                for (j, c) in acc[i].iter_mut().enumerate().take(nr) {
                    *c = c.add(x[i].mul(*b.add(p * ldb + j)));
                }
            }
        }
    }
    for (i, row) in acc.iter().enumerate().take(mr) {
        for (j, &v) in row.iter().enumerate().take(nr) {
            let p = c.offset(i as isize * ldc).add(j);
            let v = if put.bias.is_null() { v } else { v.add(*put.bias.add(j)) };
            *p = if put.add { (*p).add(v) } else { v };
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::Put;
    use std::arch::x86_64::*;

    /// Steps of K between asking for what lies in an A that is not packed and its use: a cache line of float32.
    const ROUND: usize = 16;
    /// Steps before the end at which the tile of C is brought nearest.
    const LAST: usize = 24;

    /// Vectors of a level, by the names of their instructions; `part` and `put_part` touch the first `n` lanes alone.
    macro_rules! part {
        (512 $S:ty, $V:ty, $M:ty, $load:ident, $store:ident, $part:ident, $put:ident) => {
            #[inline]
            #[target_feature(enable = "avx512f")]
            // SAFETY: the first `n` numbers at `p` are readable; the feature has been detected.
            unsafe fn $part(p: *const $S, n: usize) -> $V {
                $load(((1u32 << n) - 1) as $M, p)
            }
            #[inline]
            #[target_feature(enable = "avx512f")]
            // SAFETY: the first `n` numbers at `p` are writable; the feature has been detected.
            unsafe fn $put(p: *mut $S, n: usize, v: $V) {
                $store(p, ((1u32 << n) - 1) as $M, v)
            }
        };
        (256 $S:ty, $V:ty, $W:literal, $load:ident, $store:ident, $part:ident, $put:ident) => {
            #[inline]
            #[target_feature(enable = "avx2")]
            // SAFETY: the first `n` numbers at `p` are readable; the feature has been detected.
            unsafe fn $part(p: *const $S, n: usize) -> $V {
                let mut lanes = [0 as $S; $W];
                std::ptr::copy_nonoverlapping(p, lanes.as_mut_ptr(), n);
                $load(lanes.as_ptr())
            }
            #[inline]
            #[target_feature(enable = "avx2")]
            // SAFETY: the first `n` numbers at `p` are writable; the feature has been detected.
            unsafe fn $put(p: *mut $S, n: usize, v: $V) {
                let mut lanes = [0 as $S; $W];
                $store(lanes.as_mut_ptr(), v);
                std::ptr::copy_nonoverlapping(lanes.as_ptr(), p, n);
            }
        };
    }
    part!(512 f32, __m512, __mmask16, _mm512_maskz_loadu_ps, _mm512_mask_storeu_ps, part_f32_512, put_f32_512);
    part!(512 f64, __m512d, __mmask8, _mm512_maskz_loadu_pd, _mm512_mask_storeu_pd, part_f64_512, put_f64_512);
    part!(256 f32, __m256, 8, _mm256_loadu_ps, _mm256_storeu_ps, part_f32_256, put_f32_256);
    part!(256 f64, __m256d, 4, _mm256_loadu_pd, _mm256_storeu_pd, part_f64_256, put_f64_256);

    macro_rules! tile {
        ($tile:ident, $pick:ident, $run:ident $(, near $near:ident)?; $S:ty, $feature:literal, $W:literal, $MR:literal, [$($m:literal)*], $set1:ident, $load:ident, $store:ident, $fma:ident, $zero:ident, $sum:ident, $part:ident, $put:ident) => {
            /// M rows of V vectors; A is packed by the level's full number of rows, or lies with the given distances between rows
            /// and steps.
            // SAFETY: of `MicroFn`: the pointers lead to the tile and its operands; the feature has been detected.
            #[allow(clippy::too_many_arguments)]
            #[target_feature(enable = $feature)]
            unsafe fn $tile<const M: usize, const V: usize, const NEAR: bool>(
                k: usize, mut a: *const $S, [row, step]: [isize; 2], mut b: *const $S, ldb: usize, c: *mut $S, ldc: isize, nr: usize, put: Put<$S>, next: *const $S,
            ) {
                // The tile of C is wanted when its sums are there: it comes near meanwhile, and nearest shortly before, since A and B
                // would push it out of the first cache again.
                for i in 0..M {
                    for j in 0..V {
                        _mm_prefetch::<_MM_HINT_T1>(c.wrapping_offset(i as isize * ldc).wrapping_add(j * $W) as *const i8);
                    }
                }
                let mut acc = [[$zero(); V]; M];
                // Rows that lie apart begin new cache lines all at the same step, so the next line of one row is asked for at
                // every step; where rows lie together, a later step's.
                let (start, walk, back) = match NEAR {
                    true if step == 1 => (a.wrapping_add(ROUND), row, ROUND as isize * (1 - row)),
                    true => (a.wrapping_offset(ROUND as isize * step), step, 0),
                    false => (next, (super::STREAM / size_of::<$S>()) as isize, 0),
                };
                let mut far = next as *const u8;
                let mut next = start;
                let mut left = k;
                while left > 0 {
                    let round = if NEAR {
                        left.min(ROUND)
                    } else if left > LAST {
                        left - LAST
                    } else {
                        left
                    };
                    if (LAST - ROUND + 1..=LAST).contains(&left) {
                        for i in 0..M {
                            for j in 0..V {
                                crate::isa::prefetch(c.wrapping_offset(i as isize * ldc).wrapping_add(j * $W) as *const u8);
                            }
                        }
                    }
                    left -= round;
                    for _ in 0..round {
                        let mut y = [$zero(); V];
                        for j in 0..V {
                            y[j] = $load(b.add(j * $W));
                        }
                        if NEAR {
                            _mm_prefetch::<_MM_HINT_T0>(next as *const i8);
                            _mm_prefetch::<_MM_HINT_T1>(far as *const i8);
                            far = far.wrapping_add(64);
                        } else {
                            _mm_prefetch::<_MM_HINT_T1>(next as *const i8);
                        }
                        next = next.wrapping_offset(walk);
                        for i in 0..M {
                            let x = $set1(if NEAR { *a.offset(i as isize * row) } else { *a.add(i) });
                            for j in 0..V {
                                acc[i][j] = $fma(x, y[j], acc[i][j]);
                            }
                        }
                        a = a.offset(if NEAR { step } else { $MR });
                        b = b.add(ldb);
                    }
                    next = next.wrapping_offset(back);
                }
                // Columns in the last vector.
                let last = nr - (V - 1) * $W;
                let Put { add, bias } = put;
                if !bias.is_null() {
                    for j in 0..V {
                        let p = bias.add(j * $W);
                        let y = if j + 1 < V || last == $W { $load(p) } else { $part(p, last) };
                        for i in 0..M {
                            acc[i][j] = $sum(acc[i][j], y);
                        }
                    }
                }
                if last == $W {
                    for i in 0..M {
                        for j in 0..V {
                            let p = c.offset(i as isize * ldc).add(j * $W);
                            $store(p, if add { $sum(acc[i][j], $load(p)) } else { acc[i][j] });
                        }
                    }
                } else {
                    for i in 0..M {
                        for j in 0..V {
                            let p = c.offset(i as isize * ldc).add(j * $W);
                            let n = if j + 1 < V { $W } else { last };
                            $put(p, n, if add { $sum(acc[i][j], $part(p, n)) } else { acc[i][j] });
                        }
                    }
                }
            }
            /// Picks the tile of `mr` rows that is wide enough for `nr` columns. B is packed (readable for whole vectors)
            /// whenever `nr` is not a multiple of the vector.
            #[allow(clippy::too_many_arguments)]
            #[inline(always)]
            unsafe fn $pick<const NEAR: bool>(
                k: usize, a: *const $S, at: [isize; 2], b: *const $S, ldb: usize, c: *mut $S, ldc: isize, mr: usize, nr: usize, put: Put<$S>, next: *const $S,
            ) {
                if nr <= $W {
                    match mr {
                        $($m => $tile::<$m, 1, NEAR>(k, a, at, b, ldb, c, ldc, nr, put, next),)*
                        _ => $tile::<$MR, 1, NEAR>(k, a, at, b, ldb, c, ldc, nr, put, next),
                    }
                } else {
                    match mr {
                        $($m => $tile::<$m, 2, NEAR>(k, a, at, b, ldb, c, ldc, nr, put, next),)*
                        _ => $tile::<$MR, 2, NEAR>(k, a, at, b, ldb, c, ldc, nr, put, next),
                    }
                }
            }
            #[allow(clippy::too_many_arguments)]
            pub(super) unsafe fn $run(
                k: usize, a: *const $S, b: *const $S, ldb: usize, c: *mut $S, ldc: isize, mr: usize, nr: usize, put: Put<$S>, next: *const $S,
            ) {
                $pick::<false>(k, a, [0; 2], b, ldb, c, ldc, mr, nr, put, next)
            }
            $(
                #[allow(clippy::too_many_arguments)]
                pub(super) unsafe fn $near(
                    k: usize, a: *const $S, at: [isize; 2], b: *const $S, ldb: usize, c: *mut $S, ldc: isize, mr: usize, nr: usize, put: Put<$S>, next: *const $S,
                ) {
                    $pick::<true>(k, a, at, b, ldb, c, ldc, mr, nr, put, next)
                }
            )?
        };
    }
    tile!(tile_f32_512, pick_f32_512, f32_512, near near_f32_512; f32, "avx512f", 16, 14, [1 2 3 4 5 6 7 8 9 10 11 12 13], _mm512_set1_ps, _mm512_loadu_ps, _mm512_storeu_ps, _mm512_fmadd_ps, _mm512_setzero_ps, _mm512_add_ps, part_f32_512, put_f32_512);
    /// Products of two pairs of bfloat16 added to 16 sums.
    // SAFETY: the features have been detected by whoever calls.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bf16")]
    unsafe fn dot_pairs(x: __m512, y: __m512, sum: __m512) -> __m512 {
        _mm512_dpbf16_ps(sum, std::mem::transmute::<__m512, __m512bh>(x), std::mem::transmute::<__m512, __m512bh>(y))
    }
    tile!(tile_bf16_512, pick_bf16_512, bf16_512; f32, "avx512f,avx512bf16", 16, 14, [1 2 3 4 5 6 7 8 9 10 11 12 13], _mm512_set1_ps, _mm512_loadu_ps, _mm512_storeu_ps, dot_pairs, _mm512_setzero_ps, _mm512_add_ps, part_f32_512, put_f32_512);
    tile!(tile_f64_512, pick_f64_512, f64_512, near near_f64_512; f64, "avx512f", 8, 14, [1 2 3 4 5 6 7 8 9 10 11 12 13], _mm512_set1_pd, _mm512_loadu_pd, _mm512_storeu_pd, _mm512_fmadd_pd, _mm512_setzero_pd, _mm512_add_pd, part_f64_512, put_f64_512);
    tile!(tile_f32_256, pick_f32_256, f32_256, near near_f32_256; f32, "avx2,fma", 8, 6, [1 2 3 4 5], _mm256_set1_ps, _mm256_loadu_ps, _mm256_storeu_ps, _mm256_fmadd_ps, _mm256_setzero_ps, _mm256_add_ps, part_f32_256, put_f32_256);
    tile!(tile_f64_256, pick_f64_256, f64_256, near near_f64_256; f64, "avx2,fma", 4, 6, [1 2 3 4 5], _mm256_set1_pd, _mm256_loadu_pd, _mm256_storeu_pd, _mm256_fmadd_pd, _mm256_setzero_pd, _mm256_add_pd, part_f64_256, put_f64_256);

    /// Tiles over words of integers, which lie in the registers of float32: `$dot` multiplies two of them and adds the products to
    /// sums of 32 bits.
    macro_rules! words {
        ($tile:ident, $pick:ident, $run:ident, $dot:ident, $plus:ident; $feature:literal, $V:ty, $W:literal, $MR:literal, [$($m:literal)*], $set1:ident, $load:ident, $store:ident, $zero:ident, $bits:ident, $back:ident, $add:ident, $part:ident, $put:ident, |$x:ident, $y:ident, $sum:ident| $product:expr) => {
            // SAFETY: the features have been detected by whoever calls.
            #[inline]
            #[target_feature(enable = $feature)]
            unsafe fn $dot(x: $V, y: $V, sum: $V) -> $V {
                let ($x, $y, $sum) = ($bits(x), $bits(y), $bits(sum));
                $back($product)
            }
            // SAFETY: as above.
            #[inline]
            #[target_feature(enable = $feature)]
            unsafe fn $plus(x: $V, y: $V) -> $V {
                $back($add($bits(x), $bits(y)))
            }
            tile!($tile, $pick, $run; f32, $feature, $W, $MR, [$($m)*], $set1, $load, $store, $dot, $zero, $plus, $part, $put);
        };
    }
    words!(tile_quads_512, pick_quads_512, quads_512, dot_quads_512, plus_quads_512; "avx512f,avx512bw,avx512vnni", __m512, 16, 14, [1 2 3 4 5 6 7 8 9 10 11 12 13], _mm512_set1_ps, _mm512_loadu_ps, _mm512_storeu_ps, _mm512_setzero_ps, _mm512_castps_si512, _mm512_castsi512_ps, _mm512_add_epi32, part_f32_512, put_f32_512, |x, y, sum| _mm512_dpbusd_epi32(sum, x, y));
    words!(tile_pairs_512, pick_pairs_512, pairs_512, dot_pairs_512, plus_pairs_512; "avx512f,avx512bw", __m512, 16, 14, [1 2 3 4 5 6 7 8 9 10 11 12 13], _mm512_set1_ps, _mm512_loadu_ps, _mm512_storeu_ps, _mm512_setzero_ps, _mm512_castps_si512, _mm512_castsi512_ps, _mm512_add_epi32, part_f32_512, put_f32_512, |x, y, sum| _mm512_add_epi32(sum, _mm512_madd_epi16(x, y)));
    words!(tile_quads_256, pick_quads_256, quads_256, dot_quads_256, plus_quads_256; "avx2,avxvnni", __m256, 8, 6, [1 2 3 4 5], _mm256_set1_ps, _mm256_loadu_ps, _mm256_storeu_ps, _mm256_setzero_ps, _mm256_castps_si256, _mm256_castsi256_ps, _mm256_add_epi32, part_f32_256, put_f32_256, |x, y, sum| _mm256_dpbusd_avx_epi32(sum, x, y));
    words!(tile_pairs_256, pick_pairs_256, pairs_256, dot_pairs_256, plus_pairs_256; "avx2", __m256, 8, 6, [1 2 3 4 5], _mm256_set1_ps, _mm256_loadu_ps, _mm256_storeu_ps, _mm256_setzero_ps, _mm256_castps_si256, _mm256_castsi256_ps, _mm256_add_epi32, part_f32_256, put_f32_256, |x, y, sum| _mm256_add_epi32(sum, _mm256_madd_epi16(x, y)));

    /// The first numbers of 16 rows as columns.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn transposed(r: [__m512; 16]) -> [__m512; 16] {
        let mut t = r;
        // Pairs of rows, then fours, then the quarters of the registers in two steps.
        for i in 0..8 {
            t[2 * i] = _mm512_unpacklo_ps(r[2 * i], r[2 * i + 1]);
            t[2 * i + 1] = _mm512_unpackhi_ps(r[2 * i], r[2 * i + 1]);
        }
        let mut u = t;
        for i in 0..4 {
            let pd = |q: usize| _mm512_castps_pd(t[4 * i + q]);
            u[4 * i] = _mm512_castpd_ps(_mm512_unpacklo_pd(pd(0), pd(2)));
            u[4 * i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(pd(0), pd(2)));
            u[4 * i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(pd(1), pd(3)));
            u[4 * i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(pd(1), pd(3)));
        }
        for i in 0..4 {
            t[i] = _mm512_shuffle_f32x4::<0x88>(u[i], u[4 + i]);
            t[4 + i] = _mm512_shuffle_f32x4::<0xdd>(u[i], u[4 + i]);
            t[8 + i] = _mm512_shuffle_f32x4::<0x88>(u[8 + i], u[12 + i]);
            t[12 + i] = _mm512_shuffle_f32x4::<0xdd>(u[8 + i], u[12 + i]);
        }
        for i in 0..4 {
            u[i] = _mm512_shuffle_f32x4::<0x88>(t[i], t[8 + i]);
            u[4 + i] = _mm512_shuffle_f32x4::<0x88>(t[4 + i], t[12 + i]);
            u[8 + i] = _mm512_shuffle_f32x4::<0xdd>(t[i], t[8 + i]);
            u[12 + i] = _mm512_shuffle_f32x4::<0xdd>(t[4 + i], t[12 + i]);
        }
        u
    }

    /// 16 lanes × 16 steps at a time, a cache line of every lane.
    // SAFETY: of `Scalar::transpose`; AVX-512 has been detected.
    #[target_feature(enable = "avx512f")]
    pub(super) unsafe fn transpose_f32_512(
        dst: *mut f32,
        width: usize,
        src: *const f32,
        stride: isize,
        lanes: usize,
        k: usize,
    ) {
        for l0 in (0..lanes).step_by(16) {
            let n = (lanes - l0).min(16);
            let some = ((1u32 << n) - 1) as __mmask16;
            for p in (0..k).step_by(16) {
                let steps = (k - p).min(16);
                let there = ((1u32 << steps) - 1) as __mmask16;
                let from = src.offset(l0 as isize * stride).add(p);
                let mut rows = [_mm512_setzero_ps(); 16];
                for (l, row) in rows.iter_mut().enumerate() {
                    if l < n {
                        let from = from.offset(l as isize * stride);
                        // So many streams are more than the machine follows by itself.
                        crate::isa::prefetch(from.wrapping_add(64) as *const u8);
                        *row = _mm512_maskz_loadu_ps(there, from);
                    }
                }
                let columns = transposed(rows);
                let to = dst.add(p * width + l0);
                for (q, column) in columns.into_iter().enumerate() {
                    if q < steps {
                        _mm512_mask_storeu_ps(to.add(q * width), some, column);
                    }
                }
            }
        }
    }

    /// 4 lanes × 4 steps at a time, for fewer than 8 lanes.
    // SAFETY: of `Scalar::transpose`, with `lanes ≥ 4`.
    unsafe fn transpose_few(dst: *mut f32, width: usize, src: *const f32, stride: isize, lanes: usize, k: usize) {
        let mut p = 0;
        while p + 4 <= k {
            for l0 in [0, lanes - 4] {
                let s = |l: usize| _mm_loadu_ps(src.offset((l0 + l) as isize * stride + p as isize));
                let (mut a, mut b, mut c, mut d) = (s(0), s(1), s(2), s(3));
                _MM_TRANSPOSE4_PS(&mut a, &mut b, &mut c, &mut d);
                for (q, row) in [a, b, c, d].into_iter().enumerate() {
                    _mm_storeu_ps(dst.add((p + q) * width + l0), row);
                }
                if lanes == 4 {
                    break;
                }
            }
            p += 4;
        }
        super::transpose_plain(dst, width, src, stride, lanes, p, k);
    }

    /// 8 lanes × 8 steps at a time; the last group of lanes overlaps the one before it.
    // SAFETY: of `Scalar::transpose`, with `lanes ≥ 4`; AVX has been detected.
    #[target_feature(enable = "avx2")]
    pub(super) unsafe fn transpose_f32(
        dst: *mut f32,
        width: usize,
        src: *const f32,
        stride: isize,
        lanes: usize,
        k: usize,
    ) {
        if lanes < 8 {
            return transpose_few(dst, width, src, stride, lanes, k);
        }
        let mut p = 0;
        while p + 8 <= k {
            let mut l0 = 0;
            loop {
                let s = |l: usize| _mm256_loadu_ps(src.offset((l0 + l) as isize * stride + p as isize));
                let r = [s(0), s(1), s(2), s(3), s(4), s(5), s(6), s(7)];
                let (t0, t1) = (_mm256_unpacklo_ps(r[0], r[1]), _mm256_unpackhi_ps(r[0], r[1]));
                let (t2, t3) = (_mm256_unpacklo_ps(r[2], r[3]), _mm256_unpackhi_ps(r[2], r[3]));
                let (t4, t5) = (_mm256_unpacklo_ps(r[4], r[5]), _mm256_unpackhi_ps(r[4], r[5]));
                let (t6, t7) = (_mm256_unpacklo_ps(r[6], r[7]), _mm256_unpackhi_ps(r[6], r[7]));
                let (u0, u1) = (_mm256_shuffle_ps::<0x44>(t0, t2), _mm256_shuffle_ps::<0xEE>(t0, t2));
                let (u2, u3) = (_mm256_shuffle_ps::<0x44>(t1, t3), _mm256_shuffle_ps::<0xEE>(t1, t3));
                let (u4, u5) = (_mm256_shuffle_ps::<0x44>(t4, t6), _mm256_shuffle_ps::<0xEE>(t4, t6));
                let (u6, u7) = (_mm256_shuffle_ps::<0x44>(t5, t7), _mm256_shuffle_ps::<0xEE>(t5, t7));
                let d = |q: usize| dst.add((p + q) * width + l0);
                _mm256_storeu_ps(d(0), _mm256_permute2f128_ps::<0x20>(u0, u4));
                _mm256_storeu_ps(d(1), _mm256_permute2f128_ps::<0x20>(u1, u5));
                _mm256_storeu_ps(d(2), _mm256_permute2f128_ps::<0x20>(u2, u6));
                _mm256_storeu_ps(d(3), _mm256_permute2f128_ps::<0x20>(u3, u7));
                _mm256_storeu_ps(d(4), _mm256_permute2f128_ps::<0x31>(u0, u4));
                _mm256_storeu_ps(d(5), _mm256_permute2f128_ps::<0x31>(u1, u5));
                _mm256_storeu_ps(d(6), _mm256_permute2f128_ps::<0x31>(u2, u6));
                _mm256_storeu_ps(d(7), _mm256_permute2f128_ps::<0x31>(u3, u7));
                if l0 + 8 >= lanes {
                    break;
                }
                l0 = (l0 + 8).min(lanes - 8);
            }
            p += 8;
        }
        super::transpose_plain(dst, width, src, stride, lanes, p, k);
    }

    /// 4 lanes × 4 steps at a time.
    // SAFETY: of `Scalar::transpose`, with `lanes ≥ 4`; AVX has been detected.
    #[target_feature(enable = "avx2")]
    pub(super) unsafe fn transpose_f64(
        dst: *mut f64,
        width: usize,
        src: *const f64,
        stride: isize,
        lanes: usize,
        k: usize,
    ) {
        let mut p = 0;
        while p + 4 <= k {
            let mut l0 = 0;
            loop {
                let s = |l: usize| _mm256_loadu_pd(src.offset((l0 + l) as isize * stride + p as isize));
                let r = [s(0), s(1), s(2), s(3)];
                let (t0, t1) = (_mm256_unpacklo_pd(r[0], r[1]), _mm256_unpackhi_pd(r[0], r[1]));
                let (t2, t3) = (_mm256_unpacklo_pd(r[2], r[3]), _mm256_unpackhi_pd(r[2], r[3]));
                let d = |q: usize| dst.add((p + q) * width + l0);
                _mm256_storeu_pd(d(0), _mm256_permute2f128_pd::<0x20>(t0, t2));
                _mm256_storeu_pd(d(1), _mm256_permute2f128_pd::<0x20>(t1, t3));
                _mm256_storeu_pd(d(2), _mm256_permute2f128_pd::<0x31>(t0, t2));
                _mm256_storeu_pd(d(3), _mm256_permute2f128_pd::<0x31>(t1, t3));
                if l0 + 4 >= lanes {
                    break;
                }
                l0 = (l0 + 4).min(lanes - 4);
            }
            p += 4;
        }
        super::transpose_plain(dst, width, src, stride, lanes, p, k);
    }
}

macro_rules! scalar {
    ($S:ident, $w512:literal, $run512:ident, $near512:ident, $w256:literal, $run256:ident, $near256:ident, $plain:literal, $group:literal, $transpose:ident, $transpose512:ident) => {
        impl Scalar for $S {
            #[inline]
            fn micro() -> Micro<$S> {
                static MICRO: OnceLock<Micro<$S>> = OnceLock::new();
                *MICRO.get_or_init(|| {
                    #[cfg(target_arch = "x86_64")]
                    match crate::isa::level() {
                        3 => return Micro { mr: 14, nr: 2 * $w512, run: x86::$run512, near: Some(x86::$near512) },
                        2 => return Micro { mr: 6, nr: 2 * $w256, run: x86::$run256, near: Some(x86::$near256) },
                        _ => {}
                    }
                    Micro { mr: 4, nr: $plain, run: plain::<$S, $plain>, near: None }
                })
            }
            #[inline]
            unsafe fn transpose(dst: *mut $S, width: usize, src: *const $S, stride: isize, lanes: usize, k: usize) {
                #[cfg(target_arch = "x86_64")]
                if lanes >= $group {
                    match crate::isa::level() {
                        3 => return x86::$transpose512(dst, width, src, stride, lanes, k),
                        2 => return x86::$transpose(dst, width, src, stride, lanes, k),
                        _ => {}
                    }
                }
                transpose_plain(dst, width, src, stride, lanes, 0, k);
            }
        }
    };
}
scalar!(f32, 16, f32_512, near_f32_512, 8, f32_256, near_f32_256, 8, 4, transpose_f32, transpose_f32_512);
scalar!(f64, 8, f64_512, near_f64_512, 4, f64_256, near_f64_256, 4, 4, transpose_f64, transpose_f64);

/// The tile over pairs of bfloat16 along K, each pair in the place of a float32; on machines where the instruction is fast.
/// Intel's take four times as long for it as for a multiply-add of float32, so that converting is twice as fast there.
pub(crate) fn bf16_micro() -> Option<Micro<f32>> {
    #[cfg(target_arch = "x86_64")]
    {
        static FOUND: OnceLock<bool> = OnceLock::new();
        if *FOUND
            .get_or_init(|| crate::isa::level() == 3 && is_x86_feature_detected!("avx512bf16") && !crate::isa::intel())
        {
            return Some(Micro { mr: 14, nr: 32, run: x86::bf16_512, near: None });
        }
    }
    None
}

/// The tile over words of 8-bit integers along K, each in the place of a float32, and whether a word holds four of them (those of
/// A without sign), for which the machine has to have VNNI, or two, widened to 16 bits. None where there are no such instructions.
pub(crate) fn int8_micro(vnni: bool) -> Option<(Micro<f32>, bool)> {
    #[cfg(target_arch = "x86_64")]
    {
        let wide = |run| Micro { mr: 14, nr: 32, run, near: None };
        let narrow = |run| Micro { mr: 6, nr: 16, run, near: None };
        match crate::isa::level() {
            3 if vnni && is_x86_feature_detected!("avx512vnni") => Some((wide(x86::quads_512), true)),
            3 => Some((wide(x86::pairs_512), false)),
            2 if vnni && is_x86_feature_detected!("avxvnni") => Some((narrow(x86::quads_256), true)),
            2 => Some((narrow(x86::pairs_256), false)),
            _ => None,
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = vnni;
        None
    }
}
