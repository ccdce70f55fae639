//! Functions in pieces: 32 polynomials whose coefficients lie in registers, from which one instruction of AVX-512 picks each
//! lane's own. No division, and fewer steps than one formula for all numbers takes. Other levels have the formulas of `math`.

/// `tanh` on [0, ⅛), on quarters of the octaves from ⅛ to 8, and beyond: `tanh(c + t) ≈ v + c₁ t + … + c₅ t⁵`. The rows are the
/// centres `c`, the values `v` and the coefficients. A centre near the middle of its piece was chosen such that its `tanh` is
/// close to a number of float32, so that `v` has no error of its own; the coefficients are a minimax fit of the relative error.
#[cfg(target_arch = "x86_64")]
static TANH: [[f32; 32]; 7] = [
    [
        0.,
        1.405984e-1,
        1.7188764e-1,
        2.0317619e-1,
        2.3441929e-1,
        2.8135866e-1,
        3.4375155e-1,
        4.0618768e-1,
        4.688358e-1,
        5.6268835e-1,
        6.874732e-1,
        8.1272113e-1,
        9.374493e-1,
        1.1253259,
        1.3747424,
        1.625279,
        1.8746567,
        2.2495773,
        2.749266,
        3.2508688,
        3.7507064,
        4.4981236,
        5.4985805,
        6.498972,
        7.5019073,
        8.746185,
        8.746185,
        8.746185,
        8.746185,
        8.746185,
        8.746185,
        8.746185,
    ],
    [
        0.,
        1.3967922e-1,
        1.7021458e-1,
        2.0042585e-1,
        2.3021765e-1,
        2.7416208e-1,
        3.308225e-1,
        3.852309e-1,
        4.3725818e-1,
        5.0996935e-1,
        5.963563e-1,
        6.7108864e-1,
        7.340481e-1,
        8.094135e-1,
        8.797685e-1,
        9.253863e-1,
        9.540144e-1,
        9.7800773e-1,
        9.918478e-1,
        9.9700284e-1,
        9.98896e-1,
        9.997523e-1,
        9.999665e-1,
        9.9999547e-1,
        9.999994e-1,
        9.9999994e-1,
        9.9999994e-1,
        9.9999994e-1,
        9.9999994e-1,
        9.9999994e-1,
        9.9999994e-1,
        9.9999994e-1,
    ],
    [
        0.,
        9.8048973e-1,
        9.71027e-1,
        9.5982945e-1,
        9.4699985e-1,
        9.2483515e-1,
        8.9055645e-1,
        8.5159713e-1,
        8.088053e-1,
        7.399313e-1,
        6.443592e-1,
        5.4964006e-1,
        4.6117336e-1,
        3.448498e-1,
        2.260074e-1,
        1.4366017e-1,
        8.985648e-2,
        4.350087e-2,
        1.6237918e-2,
        5.98534e-3,
        2.2067768e-3,
        4.9538445e-4,
        6.6996225e-5,
        9.060129e-6,
        1.2189496e-6,
        1.0120908e-7,
        1.0120908e-7,
        1.0120908e-7,
        1.0120908e-7,
        1.0120908e-7,
        1.0120908e-7,
        1.0120908e-7,
    ],
    [
        3.1189603e-7,
        -1.3695405e-1,
        -1.6528295e-1,
        -1.923746e-1,
        -2.180161e-1,
        -2.535547e-1,
        -2.9461607e-1,
        -3.2806152e-1,
        -3.536567e-1,
        -3.7734202e-1,
        -3.8426757e-1,
        -3.6885723e-1,
        -3.3852354e-1,
        -2.7912802e-1,
        -1.9883534e-1,
        -1.3294159e-1,
        -8.572445e-2,
        -4.2542975e-2,
        -1.6104622e-2,
        -5.96699e-3,
        -2.204179e-3,
        -4.9464626e-4,
        -6.691003e-5,
        -9.048715e-6,
        -1.640908e-6,
        2.5766841e-8,
        2.5766841e-8,
        2.5766841e-8,
        2.5766841e-8,
        2.5766841e-8,
        2.5766841e-8,
        2.5766841e-8,
    ],
    [
        -3.3335564e-1,
        -3.0789652e-1,
        -2.957982e-1,
        -2.8100774e-1,
        -2.6564848e-1,
        -2.3874258e-1,
        -1.9931965e-1,
        -1.5740617e-1,
        -1.1498324e-1,
        -5.423357e-2,
        1.4394091e-2,
        6.430857e-2,
        9.4759755e-2,
        1.1098005e-1,
        9.95931e-2,
        7.513678e-2,
        5.1830806e-2,
        2.7108649e-2,
        1.056128e-2,
        3.9540525e-3,
        1.4661826e-3,
        3.2963688e-4,
        4.460627e-5,
        6.032529e-6,
        8.056198e-7,
        6.55702e-8,
        6.55702e-8,
        6.55702e-8,
        6.55702e-8,
        6.55702e-8,
        6.55702e-8,
        6.55702e-8,
    ],
    [
        4.7279266e-4,
        8.8649996e-2,
        1.0538944e-1,
        1.2030152e-1,
        1.3389449e-1,
        1.4987783e-1,
        1.6405503e-1,
        1.6994725e-1,
        1.6808148e-1,
        1.5322314e-1,
        1.1945298e-1,
        7.982668e-2,
        4.3367233e-2,
        3.6165752e-3,
        -2.1101547e-2,
        -2.5126556e-2,
        -2.0857932e-2,
        -1.2393867e-2,
        -5.1545007e-3,
        -1.9745093e-3,
        -7.381953e-4,
        -1.7259068e-4,
        -2.3382352e-5,
        -3.162824e-6,
        1.2628731e-6,
        -2.6148427e-7,
        -2.6148427e-7,
        -2.6148427e-7,
        -2.6148427e-7,
        -2.6148427e-7,
        -2.6148427e-7,
        -2.6148427e-7,
    ],
    [
        1.2998609e-1,
        6.453052e-1,
        8.5488904e-1,
        -9.6629804e-1,
        5.460971e-1,
        4.3841902e-2,
        -1.6948398e-2,
        -5.2898984e-2,
        -1.9813278e-3,
        -3.9377786e-2,
        -6.531052e-2,
        -6.0138445e-2,
        -5.155847e-2,
        -3.2072194e-2,
        -9.523687e-3,
        1.3531435e-3,
        4.5802523e-3,
        3.9776233e-3,
        1.9163247e-3,
        7.713547e-4,
        2.9291704e-4,
        6.8590154e-5,
        9.318969e-6,
        1.2618626e-6,
        2.2031317e-7,
        2.0629795e-8,
        2.0629795e-8,
        2.0629795e-8,
        2.0629795e-8,
        2.0629795e-8,
        2.0629795e-8,
        2.0629795e-8,
    ],
];

/// See [`TANH`]; within 1 ulp.
///
/// # Safety
/// As the kernels of `kernels`: `x` and `out` have `n` numbers, and are the same memory or apart.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx2,fma,f16c,bmi1,bmi2,lzcnt,popcnt")]
pub(crate) unsafe fn tanh(n: usize, x: *const u8, _: *const u8, _: *const u8, _: *const u8, out: *mut u8) {
    use std::arch::x86_64::*;
    let (x, out) = (x as *const f32, out as *mut f32);
    let rows: [[__m512; 2]; 7] =
        std::array::from_fn(|k| [_mm512_loadu_ps(TANH[k].as_ptr()), _mm512_loadu_ps(TANH[k].as_ptr().add(16))]);
    // Where tanh is 1; NaN is the second operand, which the minimum then returns.
    let (limit, sign) = (_mm512_set1_ps(9.5), _mm512_set1_ps(-0.0));
    // The exponent and two bits of the mantissa, from ⅛ on.
    let first = _mm512_set1_epi32((0.125f32.to_bits() >> 21) as i32 - 1);
    let one = |x: __m512| {
        let a = _mm512_min_ps(limit, _mm512_andnot_ps(sign, x));
        let piece = _mm512_sub_epi32(_mm512_srli_epi32::<21>(_mm512_castps_si512(a)), first);
        let piece = _mm512_max_epi32(piece, _mm512_setzero_si512());
        let of = |k: usize| _mm512_permutex2var_ps(rows[k][0], piece, rows[k][1]);
        let t = _mm512_sub_ps(a, of(0));
        let mut p = _mm512_fmadd_ps(of(6), t, of(5));
        p = _mm512_fmadd_ps(p, t, of(4));
        p = _mm512_fmadd_ps(p, t, of(3));
        p = _mm512_fmadd_ps(p, t, of(2));
        // About 0 the value is the argument itself.
        let small = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, _mm512_set1_ps(0.125));
        let y = _mm512_fmadd_ps(p, t, _mm512_mask_mov_ps(of(1), small, a));
        _mm512_or_ps(y, _mm512_and_ps(x, sign))
    };
    let mut i = 0;
    while i + 16 <= n {
        _mm512_storeu_ps(out.add(i), one(_mm512_loadu_ps(x.add(i))));
        i += 16;
    }
    if i < n {
        let mask = (1u16 << (n - i)) - 1;
        _mm512_mask_storeu_ps(out.add(i), mask, one(_mm512_maskz_loadu_ps(mask, x.add(i))));
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    #[test]
    fn tanh_is_within_one_ulp_and_the_same_at_every_place() {
        if crate::isa::level() != 3 {
            return;
        }
        let mut x: Vec<f32> = (0..1 << 18).map(|i| f32::from_bits(0x3000_0000 + i * 1067)).collect();
        x.extend([0.0, -0.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e-40, f32::MAX, 0.125, 8.0, 9.5]);
        let run = |x: &[f32]| {
            let mut y = vec![0f32; x.len()];
            let p = x.as_ptr() as *const u8;
            // SAFETY: both have as many numbers; the level has been looked at.
            unsafe { super::tanh(x.len(), p, p, p, p, y.as_mut_ptr() as *mut u8) };
            y
        };
        let y = run(&x);
        for (&x, &y) in x.iter().zip(&y) {
            let want = (x as f64).tanh();
            let ulp = f32::EPSILON as f64 * 2f64.powi(want.abs().max(f32::MIN_POSITIVE as f64).log2().floor() as i32);
            assert!((y as f64 - want).abs() <= ulp || x.is_nan() && y.is_nan(), "tanh {x}: {y}, not {want}");
            assert!(x.is_nan() || y.is_sign_negative() == x.is_sign_negative(), "tanh {x}: {y}");
        }
        for n in 1..40 {
            let (some, at) = (&x[1000..1000 + n], 1000);
            assert!(run(some).iter().zip(&y[at..]).all(|(a, b)| a.to_bits() == b.to_bits()), "{n}");
        }
    }
}
