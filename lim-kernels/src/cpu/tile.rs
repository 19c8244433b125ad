//! The inner loop of all matrix products: a few rows of one operand against vectors of the other, sums in registers.
// Loops over registers count with constants: the compiler unrolls them.
#![allow(clippy::needless_range_loop)]

use super::simd::Simd;

/// The lanes of one panel are at most this many vectors.
pub(super) const PANEL: usize = 2;

/// Steps that the vectors are fetched ahead.
const AHEAD: usize = 12;

/// Where element (row, k) of the broadcast operand lies.
#[derive(Clone, Copy)]
pub(super) struct Rows {
    pub(super) start: *const f32,
    /// Elements from one row to the next, and from one k to the next.
    pub(super) strides: (usize, usize),
}

/// `c[r][lane] (+)= sum over k of w(r, k) x[k][lane]` for `r < R` and `lane < V * LANES`.
///
/// # Safety
/// `w` must hold `R` rows of `k` elements, `x` `[k][V * LANES]`, and `c` `[R][V * LANES]` to write; to read where
/// `add`.
#[inline(always)]
pub(super) unsafe fn tile<S: Simd, const R: usize, const V: usize>(
    s: S,
    k: usize,
    w: Rows,
    x: *const f32,
    c: *mut f32,
    add: bool,
) {
    let width = V * S::LANES;
    let mut acc = [[s.splat(0.0); V]; R];
    if add {
        for r in 0..R {
            for v in 0..V {
                // SAFETY: this function's contract.
                acc[r][v] = unsafe { s.load(c.add(r * width + v * S::LANES)) };
            }
        }
    }
    for i in 0..k {
        let mut lanes = [s.splat(0.0); V];
        for v in 0..V {
            // SAFETY: this function's contract.
            lanes[v] = unsafe { s.load(x.add(i * width + v * S::LANES)) };
            s.prefetch(x.wrapping_add((i + AHEAD) * width + v * S::LANES).cast());
        }
        for r in 0..R {
            // SAFETY: this function's contract.
            let one = s.splat(unsafe { *w.start.add(r * w.strides.0 + i * w.strides.1) });
            for v in 0..V {
                acc[r][v] = s.fma(one, lanes[v], acc[r][v]);
            }
        }
    }
    for r in 0..R {
        for v in 0..V {
            // SAFETY: this function's contract.
            unsafe { s.store(c.add(r * width + v * S::LANES), acc[r][v]) }
        }
    }
}

/// Copies rows of `k` elements, `stride` apart, to a panel `[k][lanes]`; missing rows become zeros.
pub(super) fn pack(rows: &[f32], stride: usize, count: usize, k: usize, lanes: usize, panel: &mut [f32]) {
    for (i, to) in panel[..k * lanes].chunks_exact_mut(lanes).enumerate() {
        for (r, to) in to[..count].iter_mut().enumerate() {
            *to = rows[r * stride + i];
        }
        to[count..].fill(0.0);
    }
}
