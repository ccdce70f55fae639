//! The innermost loops of matrix products: a tile of C kept in registers, and the transpositions that packing needs.

use std::sync::OnceLock;

/// `C[mr × nr] (+)= A[mr × k] · B[k × nr]`: `a` holds k steps of `Micro::mr` rows, `b` k steps of columns that lie `ldb`
/// apart. Arguments: k, a, b, ldb, c, ldc, rows, columns, whether to add to C.
pub(crate) type MicroFn<S> = unsafe fn(usize, *const S, *const S, usize, *mut S, isize, usize, usize, bool);

/// A register tile of `mr` rows and `nr` columns.
#[derive(Clone, Copy)]
pub(crate) struct Micro<S: 'static> {
    pub mr: usize,
    pub nr: usize,
    pub run: MicroFn<S>,
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
    add: bool,
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
            *p = if add { (*p).add(v) } else { v };
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    macro_rules! tile {
        ($tile:ident, $run:ident, $S:ty, $feature:literal, $W:literal, $MR:literal, [$($m:literal)*], $set1:ident, $load:ident, $store:ident, $fma:ident, $zero:ident, $sum:ident) => {
            /// M rows of V vectors; A is packed by the level's full number of rows.
            // SAFETY: of `MicroFn`: the pointers lead to the tile and its operands; the feature has been detected.
            #[allow(clippy::too_many_arguments)]
            #[target_feature(enable = $feature)]
            unsafe fn $tile<const M: usize, const V: usize>(
                k: usize, mut a: *const $S, mut b: *const $S, ldb: usize, c: *mut $S, ldc: isize, mr: usize, nr: usize, add: bool,
            ) {
                let mut acc = [[$zero(); V]; M];
                for _ in 0..k {
                    let mut y = [$zero(); V];
                    for j in 0..V {
                        y[j] = $load(b.add(j * $W));
                    }
                    for i in 0..M {
                        let x = $set1(*a.add(i));
                        for j in 0..V {
                            acc[i][j] = $fma(x, y[j], acc[i][j]);
                        }
                    }
                    a = a.add($MR);
                    b = b.add(ldb);
                }
                if mr == M && nr == V * $W {
                    for i in 0..M {
                        for j in 0..V {
                            let p = c.offset(i as isize * ldc).add(j * $W);
                            $store(p, if add { $sum(acc[i][j], $load(p)) } else { acc[i][j] });
                        }
                    }
                } else {
                    let mut row = [0 as $S; 2 * $W];
                    for i in 0..mr {
                        for j in 0..V {
                            $store(row.as_mut_ptr().add(j * $W), acc[i][j]);
                        }
                        let p = c.offset(i as isize * ldc);
                        for j in 0..nr {
                            *p.add(j) = if add { *p.add(j) + row[j] } else { row[j] };
                        }
                    }
                }
            }
            /// Picks the smallest tile that holds `mr` rows and `nr` columns. B is packed (readable for whole vectors)
            /// whenever `nr` is not a multiple of the vector.
            #[allow(clippy::too_many_arguments)]
            pub(super) unsafe fn $run(
                k: usize, a: *const $S, b: *const $S, ldb: usize, c: *mut $S, ldc: isize, mr: usize, nr: usize, add: bool,
            ) {
                if nr <= $W {
                    match mr {
                        $(0..=$m => $tile::<$m, 1>(k, a, b, ldb, c, ldc, mr, nr, add),)*
                        _ => $tile::<$MR, 1>(k, a, b, ldb, c, ldc, mr, nr, add),
                    }
                } else {
                    match mr {
                        $(0..=$m => $tile::<$m, 2>(k, a, b, ldb, c, ldc, mr, nr, add),)*
                        _ => $tile::<$MR, 2>(k, a, b, ldb, c, ldc, mr, nr, add),
                    }
                }
            }
        };
    }
    tile!(tile_f32_512, f32_512, f32, "avx512f", 16, 14, [1 2 4 8], _mm512_set1_ps, _mm512_loadu_ps, _mm512_storeu_ps, _mm512_fmadd_ps, _mm512_setzero_ps, _mm512_add_ps);
    /// Products of two pairs of bfloat16 added to 16 sums.
    // SAFETY: the features have been detected by whoever calls.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bf16")]
    unsafe fn dot_pairs(x: __m512, y: __m512, sum: __m512) -> __m512 {
        _mm512_dpbf16_ps(sum, std::mem::transmute::<__m512, __m512bh>(x), std::mem::transmute::<__m512, __m512bh>(y))
    }
    tile!(tile_bf16_512, bf16_512, f32, "avx512f,avx512bf16", 16, 14, [1 2 4 8], _mm512_set1_ps, _mm512_loadu_ps, _mm512_storeu_ps, dot_pairs, _mm512_setzero_ps, _mm512_add_ps);
    tile!(tile_f64_512, f64_512, f64, "avx512f", 8, 14, [1 2 4 8], _mm512_set1_pd, _mm512_loadu_pd, _mm512_storeu_pd, _mm512_fmadd_pd, _mm512_setzero_pd, _mm512_add_pd);
    tile!(tile_f32_256, f32_256, f32, "avx2,fma", 8, 6, [1 2 4], _mm256_set1_ps, _mm256_loadu_ps, _mm256_storeu_ps, _mm256_fmadd_ps, _mm256_setzero_ps, _mm256_add_ps);
    tile!(tile_f64_256, f64_256, f64, "avx2,fma", 4, 6, [1 2 4], _mm256_set1_pd, _mm256_loadu_pd, _mm256_storeu_pd, _mm256_fmadd_pd, _mm256_setzero_pd, _mm256_add_pd);

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
    ($S:ident, $w512:literal, $run512:ident, $w256:literal, $run256:ident, $plain:literal, $group:literal, $transpose:ident) => {
        impl Scalar for $S {
            #[inline]
            fn micro() -> Micro<$S> {
                static MICRO: OnceLock<Micro<$S>> = OnceLock::new();
                *MICRO.get_or_init(|| {
                    #[cfg(target_arch = "x86_64")]
                    match crate::isa::level() {
                        3 => return Micro { mr: 14, nr: 2 * $w512, run: x86::$run512 },
                        2 => return Micro { mr: 6, nr: 2 * $w256, run: x86::$run256 },
                        _ => {}
                    }
                    Micro { mr: 4, nr: $plain, run: plain::<$S, $plain> }
                })
            }
            #[inline]
            unsafe fn transpose(dst: *mut $S, width: usize, src: *const $S, stride: isize, lanes: usize, k: usize) {
                #[cfg(target_arch = "x86_64")]
                if lanes >= $group && crate::isa::level() >= 2 {
                    return x86::$transpose(dst, width, src, stride, lanes, k);
                }
                transpose_plain(dst, width, src, stride, lanes, 0, k);
            }
        }
    };
}
scalar!(f32, 16, f32_512, 8, f32_256, 8, 4, transpose_f32);
scalar!(f64, 8, f64_512, 4, f64_256, 4, 4, transpose_f64);

/// The tile over pairs of bfloat16 along K, each pair in the place of a float32; on machines with such an instruction.
pub(crate) fn bf16_micro() -> Option<Micro<f32>> {
    #[cfg(target_arch = "x86_64")]
    {
        static FOUND: OnceLock<bool> = OnceLock::new();
        if *FOUND.get_or_init(|| crate::isa::level() == 3 && is_x86_feature_detected!("avx512bf16")) {
            return Some(Micro { mr: 14, nr: 32, run: x86::bf16_512 });
        }
    }
    None
}
