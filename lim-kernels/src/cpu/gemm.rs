//! Matrix products of prefill: blocks of weight rows are widened to float32 as they are needed, activations are
//! packed once, and every task owns some outputs for all rows.
//!
//! The activations are the vectors and the weights the broadcast operand, so that widening needs no transposition;
//! the outputs, which come out transposed, are few. Blocks fit the caches: a block of activations the second, the
//! widened weights the first.

use std::ops::Range;

use super::buffer::Parts;
use super::gemv::Write;
use super::simd::{Elem, Kernel, Simd, with_elem};
use super::store::Part;
use super::tile::{PANEL, Rows, pack, tile};

/// Inputs of one block.
const DEPTH: usize = 256;
/// Bytes of a cache line.
const LINE: usize = 64;
/// Lanes that outputs are fetched ahead.
const LATER: usize = 8;
/// Row panels of one block.
const PANELS: usize = 8;
/// Distance of widened rows: not a power of two, or they would meet in few sets of the cache.
const STRIDE: usize = DEPTH + 16;
/// Most weight rows that one tile takes.
const MOST_ROWS: usize = 12;

/// Floats of a thread's scratch for tasks of `rows` weight rows.
pub(super) fn scratch(rows: usize) -> usize {
    MOST_ROWS * STRIDE + rows.next_multiple_of(MOST_ROWS) * PANELS * PANEL * 16
}

/// Lanes of the panel that starts at row `first` of `count`.
#[inline(always)]
fn lanes<S: Simd>(first: usize, count: usize) -> usize {
    if count - first > S::LANES { PANEL * S::LANES } else { S::LANES }
}

/// Packs one panel of activations: `[inputs][lanes]`.
pub(super) struct Pack<'a> {
    /// `[count, inputs]`.
    pub(super) x: &'a [f32],
    pub(super) count: usize,
    pub(super) inputs: usize,
    pub(super) panel: usize,
    /// All panels.
    pub(super) out: Parts<'a, f32>,
}

/// Rows that the panels of `count` rows have room for.
pub(super) struct Padded(pub(super) usize);

impl Kernel for Padded {
    /// Padded rows, and rows of a whole panel.
    type Out = (usize, usize);

    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> (usize, usize) {
        (self.0.next_multiple_of(S::LANES), PANEL * S::LANES)
    }
}

impl Kernel for Pack<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let Pack { x, count, inputs, panel, out } = self;
        let first = panel * PANEL * S::LANES;
        let lanes = lanes::<S>(first, count);
        // SAFETY: this task alone writes the panel.
        let to = unsafe { out.slice(first * inputs, inputs * lanes) };
        pack(&x[first * inputs..], inputs, (count - first).min(lanes), inputs, lanes, to);
    }
}

/// `out[m][o] (+)= x_m . w_o + b_o` for a block of rows `o` of one part.
pub(super) struct Gemm<'a> {
    /// Packed activations.
    pub(super) x: &'a [f32],
    pub(super) count: usize,
    pub(super) inputs: usize,
    pub(super) part: &'a Part,
    /// Rows within the part.
    pub(super) rows: Range<usize>,
    /// `[count, width]`; this kernel writes columns `part.rows.start + rows`.
    pub(super) out: Parts<'a, f32>,
    pub(super) width: usize,
    pub(super) write: Write,
    pub(super) scratch: &'a mut [f32],
}

impl Kernel for Gemm<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        with_elem!(self.part.dtype, E => match S::GEMM_ROWS {
            12 => self.blocks::<S, E, 12>(s),
            6 => self.blocks::<S, E, 6>(s),
            _ => self.blocks::<S, E, 4>(s),
        })
    }
}

impl Gemm<'_> {
    #[inline(always)]
    fn blocks<S: Simd, E: Elem, const R: usize>(mut self, s: S) {
        let whole = PANEL * S::LANES;
        assert!(self.x.len() >= self.count.next_multiple_of(S::LANES) * self.inputs);
        assert!(self.part.bytes().len() >= self.rows.end * self.inputs * E::BYTES);
        assert!(self.scratch.len() >= R * STRIDE + self.rows.len().next_multiple_of(R) * PANELS * whole);
        for first in (0..self.count).step_by(PANELS * whole) {
            let count = (self.count - first).min(PANELS * whole);
            for k in (0..self.inputs).step_by(DEPTH) {
                let depth = (self.inputs - k).min(DEPTH);
                for row in (0..self.rows.len()).step_by(R) {
                    self.widen::<S, E, R>(s, row, k, depth);
                    self.tiles::<S, R>(s, first..first + count, row, k, depth);
                }
            }
            self.write::<S, R>(s, first..first + count);
        }
    }

    /// Elements `k..k + depth` of `R` rows from `row` on; rows past the task's last are zeros.
    #[inline(always)]
    fn widen<S: Simd, E: Elem, const R: usize>(&mut self, s: S, row: usize, k: usize, depth: usize) {
        for r in 0..R {
            let to = &mut self.scratch[r * STRIDE..r * STRIDE + depth];
            if row + r >= self.rows.len() {
                to.fill(0.0);
                continue;
            }
            let at = (self.rows.start + row + r) * self.inputs + k;
            let from = self.part.bytes()[at * E::BYTES..(at + depth) * E::BYTES].as_ptr();
            let mut i = 0;
            while i + S::LANES <= depth {
                // SAFETY: `i + LANES <= depth`, the length of both sides.
                unsafe { s.store(to.as_mut_ptr().add(i), E::load(s, from.add(i * E::BYTES))) }
                i += S::LANES;
            }
            while i < depth {
                // SAFETY: `i < depth`.
                to[i] = unsafe { E::get(from.add(i * E::BYTES)) };
                i += 1;
            }
        }
    }

    /// Adds the widened rows' products with the panels of activation rows `range` to the sums.
    #[inline(always)]
    fn tiles<S: Simd, const R: usize>(
        &mut self,
        s: S,
        range: Range<usize>,
        row: usize,
        k: usize,
        depth: usize,
    ) {
        let whole = PANEL * S::LANES;
        let (wide, sums) = self.scratch.split_at_mut(R * STRIDE);
        let w = Rows { start: wide.as_ptr(), strides: (STRIDE, 1) };
        let padded = self.rows.len().next_multiple_of(R);
        for first in range.clone().step_by(whole) {
            let lanes = lanes::<S>(first, self.count);
            let x = self.x[first * self.inputs + k * lanes..].as_ptr();
            // Sums are [panel][row][lane].
            let c = sums[(first - range.start) * padded + row * lanes..].as_mut_ptr();
            // SAFETY: the rows were widened, the panel has `inputs >= k + depth` steps, the sums have room for all
            // tiles as `blocks` asserts.
            unsafe {
                if lanes == whole {
                    tile::<S, R, PANEL>(s, depth, w, x, c, k > 0);
                } else {
                    tile::<S, R, 1>(s, depth, w, x, c, k > 0);
                }
            }
        }
    }

    /// Turns the sums of activation rows `range` around and stores or adds them, in blocks of four by four.
    #[inline(always)]
    fn write<S: Simd, const R: usize>(&mut self, s: S, range: Range<usize>) {
        let (whole, rows) = (PANEL * S::LANES, self.rows.len());
        let padded = rows.next_multiple_of(R);
        let column = self.part.rows.start + self.rows.start;
        for first in range.clone().step_by(whole) {
            let lanes = lanes::<S>(first, self.count);
            let sums = &self.scratch[R * STRIDE + (first - range.start) * padded..][..padded * lanes];
            for lane in (0..lanes.min(range.end - first)).step_by(4) {
                let live = (range.end - first - lane).min(4);
                // Outputs of later lanes lie a row apart, where nothing else fetches them.
                for j in 0..live {
                    let later = self.out.pointer((first + lane + j) * self.width + column, rows).cast::<u8>();
                    for line in (0..rows * 4).step_by(LINE) {
                        s.prefetch(later.wrapping_add(LATER * self.width * 4 + line));
                    }
                }
                // Rows inside, so that a row of `out` is written in one go.
                for row in (0..rows).step_by(4) {
                    let at = (first + lane) * self.width + column + row;
                    if row + 4 <= rows {
                        let from = &sums[row * lanes + lane..][..3 * lanes + 4];
                        // SAFETY: the slice just cut holds the four rows.
                        let block = unsafe { s.turn4(from.as_ptr(), lanes) };
                        for (j, block) in block.iter().enumerate().take(live) {
                            self.finish(at + j * self.width, row, block);
                        }
                    } else {
                        for j in 0..live {
                            for r in row..rows {
                                self.finish(at + j * self.width + r - row, r, &[sums[r * lanes + lane + j]]);
                            }
                        }
                    }
                }
            }
        }
    }

    /// Stores or adds neighbouring outputs from the task's row `row` on.
    #[inline(always)]
    fn finish<const N: usize>(&self, at: usize, row: usize, y: &[f32; N]) {
        // SAFETY: no other task writes these columns.
        let to = unsafe { &mut *self.out.pointer(at, N).cast::<[f32; N]>() };
        let mut sum = *y;
        if let Some(bias) = &self.part.bias {
            let bias = &bias[self.rows.start + row..][..N];
            for i in 0..N {
                sum[i] += bias[i];
            }
        }
        if self.write == Write::Add {
            for i in 0..N {
                sum[i] += to[i];
            }
        }
        *to = sum;
    }
}
