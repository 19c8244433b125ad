//! Softmax weights with the same bits on every backend, and their pooling over heads. See [`Pool`].

use super::Cpu;
use super::buffer::Parts;
use super::simd::{Isa, Kernel, Simd};
use super::store::shape_error;
use crate::softmax::log2_scale;
use crate::{Pool, Pooling, Result};

/// Tokens of one task: whole pages of any size.
const TILE: usize = 1024;

/// A weight of 1 in the integers that totals are made of.
const ONE: f32 = (1 << 30) as f32;

/// `ln(2)^k / k!`.
const SERIES: [f32; 8] = [
    1.0,
    std::f32::consts::LN_2,
    0.240_226_5,
    0.055_504_11,
    0.009_618_129,
    0.001_333_355_8,
    0.000_154_035_3,
    0.000_015_252_734,
];

/// `2^x` for x <= 0, within 2 ulp; 0 below -125. Plain products and sums: their roundings are the same everywhere, those
/// of fused ones are where the processor has them.
#[inline(always)]
fn exp2(x: f32) -> f32 {
    /// Sums with it have no bits behind the point, and their low bits are the rounded integer.
    const SHIFT: f32 = 12_582_912.0;
    let shifted = x + SHIFT;
    let f = x - (shifted - SHIFT);
    let mut series = SERIES[7];
    series = series * f + SERIES[6];
    series = series * f + SERIES[5];
    series = series * f + SERIES[4];
    series = series * f + SERIES[3];
    series = series * f + SERIES[2];
    series = series * f + SERIES[1];
    series = series * f + SERIES[0];
    let exponent = shifted.to_bits().wrapping_sub(SHIFT.to_bits()).wrapping_add(127);
    if x < -125.0 { 0.0 } else { series * f32::from_bits(exponent << 23) }
}

/// The softmax of one head's scores.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Softmax {
    c: f32,
    /// The highest score.
    top: f32,
    /// Sum of the fixed weights of all tokens.
    pub(super) total: u64,
    /// `2^30 / total`.
    per: f32,
}

impl Softmax {
    pub(super) fn new(isa: Isa, scores: &[f32], c: f32) -> Self {
        let top = isa.run(Highest(scores));
        let softmax = Softmax { c, top, total: 0, per: 0.0 };
        let total = softmax.sum(isa, scores);
        Softmax { total, per: ONE / total as f32, ..softmax }
    }

    /// `e`, relative to the highest score's.
    #[inline(always)]
    fn relative(&self, score: f32) -> f32 {
        let score = if score.is_nan() { f32::NEG_INFINITY } else { score };
        let away = if score == self.top { 0.0 } else { score - self.top };
        exp2(self.c * away)
    }

    /// The same in units of 2^-30, rounded down.
    #[inline(always)]
    pub(super) fn fixed(&self, score: f32) -> u64 {
        // At most 2^30: through a signed integer, which vectors convert to.
        (self.relative(score) * ONE) as i32 as u64
    }

    /// Sum of the fixed weights of `scores`.
    pub(super) fn sum(&self, isa: Isa, scores: &[f32]) -> u64 {
        isa.run(Sum { softmax: *self, scores })
    }
}

/// The highest score, NaN as -inf.
struct Highest<'a>(&'a [f32]);

impl Kernel for Highest<'_> {
    type Out = f32;

    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> f32 {
        let mut lanes = [f32::NEG_INFINITY; 16];
        let mut chunks = self.0.chunks_exact(16);
        for chunk in &mut chunks {
            for i in 0..16 {
                // False for NaN.
                lanes[i] = if chunk[i] > lanes[i] { chunk[i] } else { lanes[i] };
            }
        }
        let mut top = f32::NEG_INFINITY;
        for &score in lanes.iter().chain(chunks.remainder()) {
            top = if score > top { score } else { top };
        }
        top
    }
}

struct Sum<'a> {
    softmax: Softmax,
    scores: &'a [f32],
}

impl Kernel for Sum<'_> {
    type Out = u64;

    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> u64 {
        let mut total = 0;
        for &score in self.scores {
            total += self.softmax.fixed(score);
        }
        total
    }
}

/// How a head's weights meet those of the heads before it.
#[derive(Clone, Copy)]
enum Meet {
    First,
    Add,
    Largest,
}

struct Weights<'a> {
    softmax: Softmax,
    scores: &'a [f32],
    meet: Meet,
    out: &'a mut [f32],
}

impl Kernel for Weights<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let Weights { softmax, scores, meet, out } = self;
        let n = scores.len();
        assert!(out.len() == n);
        match meet {
            Meet::First => {
                for i in 0..n {
                    out[i] = softmax.relative(scores[i]) * softmax.per;
                }
            }
            Meet::Add => {
                for i in 0..n {
                    out[i] += softmax.relative(scores[i]) * softmax.per;
                }
            }
            Meet::Largest => {
                for i in 0..n {
                    let weight = softmax.relative(scores[i]) * softmax.per;
                    out[i] = if weight > out[i] { weight } else { out[i] };
                }
            }
        }
    }
}

impl Cpu {
    pub(super) fn pool_op(&mut self, op: Pool<'_, Self>) -> Result<()> {
        const OP: &str = "pool";
        let Pool { scores, scale, heads, batch, by, budget, out } = op;
        batch.expect_decode(OP)?;
        scores.expect(OP, heads, batch)?;
        out.expect_rows(OP, by.rows(heads), batch)?;
        let c = log2_scale(OP, scale)?;
        for (seq, step) in batch.step.iter().enumerate().filter(|(_, step)| step.len > budget) {
            if scores.counts[seq] != step.len {
                return Err(shape_error(OP, "scores of a sequence", &[scores.counts[seq]], &[step.len]));
            }
        }
        self.softmaxes.resize(self.softmaxes.len().max(heads.query()), Softmax::default());
        for room in &mut self.scratch {
            room.reserve(TILE)?;
        }
        let (isa, page) = (self.isa, batch.page_size.tokens());
        for (seq, step) in batch.step.iter().enumerate() {
            let n = step.len;
            if n <= budget {
                out.counts[seq] = 0;
                continue;
            }
            out.counts[seq] = by.columns(n, batch.page_size);
            let softmaxes = Parts::new(&mut self.softmaxes);
            self.pool.run(heads.query(), |h, _| {
                // SAFETY: a head's softmax is its task's alone.
                unsafe { softmaxes.slice(h, 1)[0] = Softmax::new(isa, scores.head(seq, h), c) };
            });
            let (softmaxes, rooms) = (&self.softmaxes[..heads.query()], Parts::new(&mut self.scratch));
            let (start, stride) = (seq * out.rows * out.tokens, out.tokens);
            let to = Parts::new(out.data.f32s_mut());
            self.pool.run(n.div_ceil(TILE), |task, thread| {
                let (first, last) = (task * TILE, n.min((task + 1) * TILE));
                let pool = |range: std::ops::Range<usize>, rest: Meet, out: &mut [f32]| {
                    let begin = range.start;
                    for h in range {
                        let meet = if h == begin { Meet::First } else { rest };
                        let scores = &scores.head(seq, h)[first..last];
                        isa.run(Weights { softmax: softmaxes[h], scores, meet, out: &mut *out });
                    }
                };
                match by {
                    Pooling::Groups => {
                        for j in 0..heads.kv() {
                            // SAFETY: this task alone writes its positions, here and below.
                            let row = unsafe { to.slice(start + j * stride + first, last - first) };
                            pool(j * heads.group()..(j + 1) * heads.group(), Meet::Add, row);
                        }
                    }
                    Pooling::Peak => {
                        // SAFETY: as above.
                        pool(0..heads.query(), Meet::Largest, unsafe {
                            to.slice(start + first, last - first)
                        });
                    }
                    Pooling::PagePeak => {
                        // SAFETY: a thread uses its own scratch.
                        let room = unsafe { &mut rooms.slice(thread, 1)[0] };
                        let peaks = &mut room.f32s_mut()[..last - first];
                        pool(0..heads.query(), Meet::Largest, peaks);
                        let pages = peaks.chunks(page);
                        // SAFETY: as above, of the pages that begin here.
                        let sums = unsafe { to.slice(start + first / page, pages.len()) };
                        for (sum, page) in sums.iter_mut().zip(pages) {
                            *sum = page.iter().fold(0.0, |sum, weight| sum + weight);
                        }
                    }
                }
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp2_is_close_and_ends() {
        let mut worst = 0.0f64;
        for i in 0..=1_250_000 {
            let x = -(i as f32) * 1e-4;
            let exact = f64::from(x).exp2();
            worst = worst.max((f64::from(exp2(x)) - exact).abs() / exact);
        }
        assert!(worst < 2.4e-7, "{worst:e}");
        assert_eq!((exp2(0.0), exp2(-0.0), exp2(-1.0), exp2(-125.0)), (1.0, 1.0, 0.5, 0.5f32.powi(125)));
        assert_eq!((exp2(-125.1), exp2(f32::MIN), exp2(f32::NEG_INFINITY)), (0.0, 0.0, 0.0));
        assert!((0..1_000_000).all(|i| exp2(-(i as f32) * 1e-6) <= 1.0));
    }

    #[test]
    fn odd_scores_have_a_softmax() {
        let isa = Isa::detect();
        let total = |scores: &[f32]| Softmax::new(isa, scores, 1.0).total >> 30;
        assert_eq!(total(&[f32::INFINITY, 3.0, f32::INFINITY, f32::NAN]), 2);
        assert_eq!(total(&[f32::NAN, f32::NEG_INFINITY, -f32::NAN]), 3);
        assert_eq!(total(&[f32::MAX, f32::MIN, -0.0, 0.0]), 1);
        assert_eq!(total(&[-0.0, 0.0]), 2);
    }
}
