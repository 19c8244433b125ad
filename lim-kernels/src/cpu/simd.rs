//! Vectors of float32 behind one trait, so that a kernel is written once, reads as its formula, and runs on AVX-512,
//! AVX2 or anything else.
//!
//! A [`Simd`] value is a token: holding one proves that the processor has the instructions.

use half::{bf16, f16};

#[cfg(target_arch = "x86_64")]
use super::x86::{Avx2, Avx512};
use crate::DType;

/// A kernel with its arguments; `run` must be `#[inline(always)]` and hold no closures, so that the instructions of
/// `S` reach all of it.
pub(super) trait Kernel {
    type Out;
    fn run<S: Simd>(self, s: S) -> Self::Out;
}

/// Instruction set chosen once, at run time.
#[derive(Clone, Copy, Debug)]
pub(super) enum Isa {
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    Portable,
}

impl Isa {
    /// The best of this processor.
    pub(super) fn detect() -> Self {
        *Isa::all().first().unwrap_or(&Isa::Portable)
    }

    /// All that this processor has, best first.
    pub(super) fn all() -> Vec<Self> {
        let mut all = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            all.extend(Avx512::detect().map(Isa::Avx512));
            all.extend(Avx2::detect().map(Isa::Avx2));
        }
        all.push(Isa::Portable);
        all
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512(_) => "avx512",
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2(_) => "avx2",
            Isa::Portable => "portable",
        }
    }

    #[inline]
    pub(super) fn run<K: Kernel>(self, kernel: K) -> K::Out {
        match self {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512(s) => s.run(kernel),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2(s) => s.run(kernel),
            Isa::Portable => kernel.run(Portable),
        }
    }
}

/// Vectors of `LANES` float32.
pub(super) trait Simd: Copy {
    const LANES: usize;
    /// Rows of activations that fit the registers beside four rows of weights.
    const TILE: usize;
    /// Rows of a matrix product's tile: as many as the registers hold sums for, two vectors each.
    const GEMM_ROWS: usize;
    type V: Copy;

    fn splat(self, x: f32) -> Self::V;
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    fn div(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a * b + c`, rounded once where the processor can.
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// `a < b ? a : b`: b where either is NaN.
    fn min(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a > b ? a : b`: b where either is NaN.
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    /// To the nearest integer, ties to even.
    fn round(self, a: Self::V) -> Self::V;
    /// `2^n` for integers `n` in -126..=127.
    fn pow2(self, n: Self::V) -> Self::V;
    /// The lanes' sum.
    fn sum(self, v: Self::V) -> f32;
    /// The lanes' sums of four vectors.
    fn sum4(self, v: [Self::V; 4]) -> [f32; 4];
    /// The largest lane.
    fn largest(self, v: Self::V) -> f32;

    /// # Safety
    /// `LANES` float32 must be readable at `p`; no alignment is asked for.
    unsafe fn load(self, p: *const f32) -> Self::V;
    /// # Safety
    /// `LANES` float32 must be writable at `p`.
    unsafe fn store(self, p: *mut f32, v: Self::V);
    /// # Safety
    /// `LANES` binary16 must be readable at `p`.
    unsafe fn load_f16(self, p: *const u8) -> Self::V;
    /// # Safety
    /// `LANES` bfloat16 must be readable at `p`.
    unsafe fn load_bf16(self, p: *const u8) -> Self::V;
    /// The transpose of the four by four block at `p`, its rows `stride` apart.
    ///
    /// # Safety
    /// Four float32 must be readable at each of the four rows.
    unsafe fn turn4(self, p: *const f32, stride: usize) -> [[f32; 4]; 4];
    /// Hints that the cache line of `p` is needed soon; any address will do.
    fn prefetch(self, p: *const u8);

    /// `e^x`, within 2 ulp; arguments below -87.3 give 1.2e-38, above 88 give 1.7e38, NaN stays NaN.
    #[inline(always)]
    fn exp(self, x: Self::V) -> Self::V {
        let x = self.min(self.splat(88.0), self.max(self.splat(-87.336_54), x));
        let n = self.round(self.mul(x, self.splat(std::f32::consts::LOG2_E)));
        // ln 2 in two parts, so that x - n ln 2 is exact enough (Cody and Waite).
        let r = self.fma(n, self.splat(-0.693_359_4), x);
        let r = self.fma(n, self.splat(2.121_944_4e-4), r);
        // Minimax polynomial of (e^r - 1 - r) / r^2 on |r| <= ln 2 / 2 (Cephes expf).
        let mut p = self.splat(1.987_569_1e-4);
        for c in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
            p = self.fma(p, r, self.splat(c));
        }
        let e = self.add(self.fma(self.mul(p, r), r, r), self.splat(1.0));
        self.mul(e, self.pow2(n))
    }
}

/// How an element is stored.
pub(super) trait Elem: Copy + Send + Sync + 'static {
    const BYTES: usize;
    /// # Safety
    /// `S::LANES` elements must be readable at `p`.
    unsafe fn load<S: Simd>(s: S, p: *const u8) -> S::V;
    /// # Safety
    /// One element must be readable at `p`.
    unsafe fn get(p: *const u8) -> f32;
    /// Rounds to nearest, ties to even.
    ///
    /// # Safety
    /// One element must be writable at `p`.
    unsafe fn put(p: *mut u8, x: f32);
}

macro_rules! elem {
    ($name:ident, $doc:literal, $stored:ty, $load:ident, $from:expr, $to:expr) => {
        #[doc = $doc]
        #[derive(Clone, Copy)]
        pub(super) struct $name;

        impl Elem for $name {
            const BYTES: usize = size_of::<$stored>();
            #[inline(always)]
            unsafe fn load<S: Simd>(s: S, p: *const u8) -> S::V {
                // SAFETY: this function's contract is that of the load.
                unsafe { s.$load(p.cast()) }
            }
            #[inline(always)]
            unsafe fn get(p: *const u8) -> f32 {
                // SAFETY: this function's contract; no alignment is asked for.
                $from(unsafe { p.cast::<$stored>().read_unaligned() })
            }
            #[inline(always)]
            unsafe fn put(p: *mut u8, x: f32) {
                // SAFETY: this function's contract; no alignment is asked for.
                unsafe { p.cast::<$stored>().write_unaligned($to(x)) }
            }
        }
    };
}

elem!(F32, "binary32", f32, load, std::convert::identity, std::convert::identity);
elem!(F16, "binary16", f16, load_f16, f16::to_f32, f16::from_f32);
elem!(Bf16, "bfloat16", bf16, load_bf16, bf16::to_f32, bf16::from_f32);

/// Evaluates an expression with `$e` naming the [`Elem`] of a dtype.
macro_rules! with_elem {
    ($dtype:expr, $e:ident => $body:expr) => {
        match $dtype {
            crate::DType::F32 => {
                type $e = crate::cpu::simd::F32;
                $body
            }
            crate::DType::F16 => {
                type $e = crate::cpu::simd::F16;
                $body
            }
            crate::DType::BF16 => {
                type $e = crate::cpu::simd::Bf16;
                $body
            }
        }
    };
}
pub(super) use with_elem;

/// Widens stored elements to float32.
pub(super) struct Widen<'a> {
    pub(super) dtype: DType,
    /// `out.len()` elements.
    pub(super) from: &'a [u8],
    pub(super) out: &'a mut [f32],
}

impl Kernel for Widen<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        with_elem!(self.dtype, E => {
            let (n, from, out) = (self.out.len(), self.from, self.out);
            assert!(from.len() >= n * E::BYTES);
            let mut i = 0;
            while i + S::LANES <= n {
                // SAFETY: `i + LANES <= n`, and both sides hold n elements.
                unsafe { s.store(out.as_mut_ptr().add(i), E::load(s, from.as_ptr().add(i * E::BYTES))) }
                i += S::LANES;
            }
            while i < n {
                // SAFETY: `i < n`.
                out[i] = unsafe { E::get(from.as_ptr().add(i * E::BYTES)) };
                i += 1;
            }
        })
    }
}

/// Arrays of eight, for processors without the instructions above.
#[derive(Clone, Copy, Debug)]
pub(super) struct Portable;

type Eight = [f32; 8];

#[inline(always)]
fn zip(a: Eight, b: Eight, f: impl Fn(f32, f32) -> f32) -> Eight {
    let mut out = a;
    for (o, b) in out.iter_mut().zip(b) {
        *o = f(*o, b);
    }
    out
}

impl Simd for Portable {
    const LANES: usize = 8;
    const TILE: usize = 2;
    const GEMM_ROWS: usize = 4;
    type V = Eight;

    #[inline(always)]
    fn splat(self, x: f32) -> Eight {
        [x; 8]
    }
    #[inline(always)]
    fn add(self, a: Eight, b: Eight) -> Eight {
        zip(a, b, |a, b| a + b)
    }
    #[inline(always)]
    fn sub(self, a: Eight, b: Eight) -> Eight {
        zip(a, b, |a, b| a - b)
    }
    #[inline(always)]
    fn mul(self, a: Eight, b: Eight) -> Eight {
        zip(a, b, |a, b| a * b)
    }
    #[inline(always)]
    fn div(self, a: Eight, b: Eight) -> Eight {
        zip(a, b, |a, b| a / b)
    }
    #[inline(always)]
    fn fma(self, a: Eight, b: Eight, c: Eight) -> Eight {
        self.add(self.mul(a, b), c)
    }
    #[inline(always)]
    fn min(self, a: Eight, b: Eight) -> Eight {
        zip(a, b, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    fn max(self, a: Eight, b: Eight) -> Eight {
        zip(a, b, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    fn round(self, a: Eight) -> Eight {
        a.map(f32::round_ties_even)
    }
    #[inline(always)]
    fn pow2(self, n: Eight) -> Eight {
        n.map(|n| f32::from_bits(((n as i32 + 127) << 23) as u32))
    }
    #[inline(always)]
    fn sum(self, v: Eight) -> f32 {
        ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7]))
    }
    #[inline(always)]
    fn sum4(self, v: [Eight; 4]) -> [f32; 4] {
        v.map(|v| self.sum(v))
    }
    #[inline(always)]
    fn largest(self, v: Eight) -> f32 {
        v.into_iter().fold(f32::NEG_INFINITY, f32::max)
    }
    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> Eight {
        // SAFETY: this function's contract; no alignment is asked for.
        unsafe { p.cast::<Eight>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, v: Eight) {
        // SAFETY: this function's contract; no alignment is asked for.
        unsafe { p.cast::<Eight>().write_unaligned(v) }
    }
    #[inline(always)]
    unsafe fn load_f16(self, p: *const u8) -> Eight {
        // SAFETY: this function's contract; no alignment is asked for.
        unsafe { p.cast::<[u16; 8]>().read_unaligned() }.map(|b| f16::from_bits(b).to_f32())
    }
    #[inline(always)]
    unsafe fn load_bf16(self, p: *const u8) -> Eight {
        // SAFETY: this function's contract; no alignment is asked for.
        unsafe { p.cast::<[u16; 8]>().read_unaligned() }.map(|b| f32::from_bits(u32::from(b) << 16))
    }
    #[inline(always)]
    unsafe fn turn4(self, p: *const f32, stride: usize) -> [[f32; 4]; 4] {
        let mut out = [[0.0; 4]; 4];
        for (i, row) in out.iter_mut().enumerate() {
            for (j, x) in row.iter_mut().enumerate() {
                // SAFETY: this function's contract.
                *x = unsafe { *p.add(j * stride + i) };
            }
        }
        out
    }
    #[inline(always)]
    fn prefetch(self, _: *const u8) {}
}
