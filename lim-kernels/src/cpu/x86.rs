//! The vectors of x86-64: AVX-512, and AVX2 with FMA and F16C.
//!
//! The tokens come from `detect` alone, which is what every call of an intrinsic here relies on.

use std::arch::x86_64::*;

use super::simd::{Kernel, Simd};

/// An intrinsic on values: nothing but the instruction has to exist.
macro_rules! v {
    ($call:expr) => {
        // SAFETY: `self` proves that the processor has the instruction.
        unsafe { $call }
    };
}

/// Proof of AVX-512 F, BW, DQ and VL, and of all that [`Avx2`] proves.
#[derive(Clone, Copy, Debug)]
pub(super) struct Avx512(());

impl Avx512 {
    pub(super) fn detect() -> Option<Self> {
        let has = Avx2::detect().is_some()
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl");
        has.then_some(Avx512(()))
    }

    #[inline]
    pub(super) fn run<K: Kernel>(self, kernel: K) -> K::Out {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c,bmi1,bmi2,lzcnt,popcnt")]
        fn inner<K: Kernel>(s: Avx512, kernel: K) -> K::Out {
            kernel.run(s)
        }
        // SAFETY: `self` proves the features.
        unsafe { inner(self, kernel) }
    }
}

impl Simd for Avx512 {
    const LANES: usize = 16;
    const TILE: usize = 4;
    const GEMM_ROWS: usize = 12;
    type V = __m512;

    #[inline(always)]
    fn splat(self, x: f32) -> __m512 {
        v!(_mm512_set1_ps(x))
    }
    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        v!(_mm512_add_ps(a, b))
    }
    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        v!(_mm512_sub_ps(a, b))
    }
    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        v!(_mm512_mul_ps(a, b))
    }
    #[inline(always)]
    fn div(self, a: __m512, b: __m512) -> __m512 {
        v!(_mm512_div_ps(a, b))
    }
    #[inline(always)]
    fn fma(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        v!(_mm512_fmadd_ps(a, b, c))
    }
    #[inline(always)]
    fn min(self, a: __m512, b: __m512) -> __m512 {
        v!(_mm512_min_ps(a, b))
    }
    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        v!(_mm512_max_ps(a, b))
    }
    #[inline(always)]
    fn round(self, a: __m512) -> __m512 {
        v!(_mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a))
    }
    #[inline(always)]
    fn pow2(self, n: __m512) -> __m512 {
        v!(_mm512_scalef_ps(_mm512_set1_ps(1.0), n))
    }
    #[inline(always)]
    fn sum(self, v: __m512) -> f32 {
        v!(_mm512_reduce_add_ps(v))
    }
    #[inline(always)]
    fn sum4(self, v: [__m512; 4]) -> [f32; 4] {
        let mut half = [v!(_mm256_setzero_ps()); 4];
        for (h, v) in half.iter_mut().zip(v) {
            *h = v!(_mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps::<1>(v)));
        }
        v!(sum4_ymm(half))
    }
    #[inline(always)]
    fn largest(self, v: __m512) -> f32 {
        v!(_mm512_reduce_max_ps(v))
    }
    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> __m512 {
        // SAFETY: this function's contract and the token.
        unsafe { _mm512_loadu_ps(p) }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, v: __m512) {
        // SAFETY: this function's contract and the token.
        unsafe { _mm512_storeu_ps(p, v) }
    }
    #[inline(always)]
    unsafe fn load_f16(self, p: *const u8) -> __m512 {
        // SAFETY: this function's contract and the token.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(p.cast())) }
    }
    #[inline(always)]
    unsafe fn load_bf16(self, p: *const u8) -> __m512 {
        // SAFETY: this function's contract and the token. A bfloat16 is the high half of a float32.
        unsafe {
            let bits = _mm512_cvtepu16_epi32(_mm256_loadu_si256(p.cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(bits))
        }
    }
    #[inline(always)]
    unsafe fn turn4(self, p: *const f32, stride: usize) -> [[f32; 4]; 4] {
        // SAFETY: this function's contract.
        unsafe { turn4_xmm(p, stride) }
    }
    #[inline(always)]
    fn prefetch(self, p: *const u8) {
        v!(_mm_prefetch::<_MM_HINT_T0>(p.cast()))
    }
}

/// Proof of AVX2, FMA and F16C.
#[derive(Clone, Copy, Debug)]
pub(super) struct Avx2(());

impl Avx2 {
    pub(super) fn detect() -> Option<Self> {
        let has = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c")
            && is_x86_feature_detected!("bmi1")
            && is_x86_feature_detected!("bmi2")
            && is_x86_feature_detected!("lzcnt")
            && is_x86_feature_detected!("popcnt");
        has.then_some(Avx2(()))
    }

    #[inline]
    pub(super) fn run<K: Kernel>(self, kernel: K) -> K::Out {
        #[target_feature(enable = "avx2,fma,f16c,bmi1,bmi2,lzcnt,popcnt")]
        fn inner<K: Kernel>(s: Avx2, kernel: K) -> K::Out {
            kernel.run(s)
        }
        // SAFETY: `self` proves the features.
        unsafe { inner(self, kernel) }
    }
}

/// The lanes' sums of four vectors.
///
/// # Safety
/// The processor must have AVX.
#[inline(always)]
unsafe fn sum4_ymm([a, b, c, d]: [__m256; 4]) -> [f32; 4] {
    // SAFETY: AVX by this function's contract; the array holds the four floats of the vector.
    unsafe {
        let pairs = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
        let sums = _mm_add_ps(_mm256_castps256_ps128(pairs), _mm256_extractf128_ps::<1>(pairs));
        let mut out = [0.0; 4];
        _mm_storeu_ps(out.as_mut_ptr(), sums);
        out
    }
}

/// The transpose of a four by four block.
///
/// # Safety
/// Four float32 must be readable at each of four rows, `stride` apart.
#[inline(always)]
unsafe fn turn4_xmm(p: *const f32, stride: usize) -> [[f32; 4]; 4] {
    // SAFETY: this function's contract; SSE is part of x86-64; the array holds four vectors.
    unsafe {
        let [mut a, mut b, mut c, mut d] = [0, 1, 2, 3].map(|r| _mm_loadu_ps(p.add(r * stride)));
        _MM_TRANSPOSE4_PS(&mut a, &mut b, &mut c, &mut d);
        std::mem::transmute::<[__m128; 4], [[f32; 4]; 4]>([a, b, c, d])
    }
}

impl Simd for Avx2 {
    const LANES: usize = 8;
    const TILE: usize = 2;
    const GEMM_ROWS: usize = 6;
    type V = __m256;

    #[inline(always)]
    fn splat(self, x: f32) -> __m256 {
        v!(_mm256_set1_ps(x))
    }
    #[inline(always)]
    fn add(self, a: __m256, b: __m256) -> __m256 {
        v!(_mm256_add_ps(a, b))
    }
    #[inline(always)]
    fn sub(self, a: __m256, b: __m256) -> __m256 {
        v!(_mm256_sub_ps(a, b))
    }
    #[inline(always)]
    fn mul(self, a: __m256, b: __m256) -> __m256 {
        v!(_mm256_mul_ps(a, b))
    }
    #[inline(always)]
    fn div(self, a: __m256, b: __m256) -> __m256 {
        v!(_mm256_div_ps(a, b))
    }
    #[inline(always)]
    fn fma(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        v!(_mm256_fmadd_ps(a, b, c))
    }
    #[inline(always)]
    fn min(self, a: __m256, b: __m256) -> __m256 {
        v!(_mm256_min_ps(a, b))
    }
    #[inline(always)]
    fn max(self, a: __m256, b: __m256) -> __m256 {
        v!(_mm256_max_ps(a, b))
    }
    #[inline(always)]
    fn round(self, a: __m256) -> __m256 {
        v!(_mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a))
    }
    #[inline(always)]
    fn pow2(self, n: __m256) -> __m256 {
        v!({
            let biased = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
            _mm256_castsi256_ps(_mm256_slli_epi32::<23>(biased))
        })
    }
    #[inline(always)]
    fn sum(self, v: __m256) -> f32 {
        self.sum4([v; 4])[0]
    }
    #[inline(always)]
    fn sum4(self, v: [__m256; 4]) -> [f32; 4] {
        v!(sum4_ymm(v))
    }
    #[inline(always)]
    fn largest(self, v: __m256) -> f32 {
        v!({
            let m = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
            let m = _mm_max_ps(m, _mm_movehl_ps(m, m));
            _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)))
        })
    }
    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> __m256 {
        // SAFETY: this function's contract and the token.
        unsafe { _mm256_loadu_ps(p) }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, v: __m256) {
        // SAFETY: this function's contract and the token.
        unsafe { _mm256_storeu_ps(p, v) }
    }
    #[inline(always)]
    unsafe fn load_f16(self, p: *const u8) -> __m256 {
        // SAFETY: this function's contract and the token.
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(p.cast())) }
    }
    #[inline(always)]
    unsafe fn load_bf16(self, p: *const u8) -> __m256 {
        // SAFETY: this function's contract and the token. A bfloat16 is the high half of a float32.
        unsafe {
            let bits = _mm256_cvtepu16_epi32(_mm_loadu_si128(p.cast()));
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(bits))
        }
    }
    #[inline(always)]
    unsafe fn turn4(self, p: *const f32, stride: usize) -> [[f32; 4]; 4] {
        // SAFETY: this function's contract.
        unsafe { turn4_xmm(p, stride) }
    }
    #[inline(always)]
    fn prefetch(self, p: *const u8) {
        v!(_mm_prefetch::<_MM_HINT_T0>(p.cast()))
    }
}
