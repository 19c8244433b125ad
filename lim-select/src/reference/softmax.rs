//! Softmax weights step by step, every step rounded to float32, so that there is one right result: see
//! [`lim_kernels::Pool`].

use lim_kernels::{Heads, PageSize, Pooling};

use super::{by_head, rank_value, tokens};

/// `2^x` for `x <= 0`: 0 below -125, else Taylor's series of `2^f` to degree 7 by Horner's rule, times `2^(x - f)`, where
/// `x - f` is the integer next to x, ties to even.
pub fn exp2(x: f32) -> f32 {
    if x < -125.0 {
        return 0.0;
    }
    let whole = x.round_ties_even();
    let f = x - whole;
    // ln(2)^k / k! for k from 7 down to 0.
    let series: [f32; 8] = [
        0.000_015_252_734,
        0.000_154_035_3,
        0.001_333_355_8,
        0.009_618_129,
        0.055_504_11,
        0.240_226_5,
        std::f32::consts::LN_2,
        1.0,
    ];
    let sum = series.into_iter().reduce(|sum, term| sum * f + term).unwrap_or_default();
    sum * 2f32.powi(whole as i32)
}

/// One head's softmax.
pub(super) struct Softmax {
    /// Scale times log2(e).
    c: f32,
    top: f32,
    /// Sum of all tokens' fixed weights: integers, so the order does not count.
    pub(super) total: u64,
}

impl Softmax {
    pub(super) fn new(scores: &[f32], scale: f32) -> Self {
        let top = scores.iter().map(|&score| rank_value(score)).fold(f32::NEG_INFINITY, f32::max);
        let mut softmax = Softmax { c: scale * std::f32::consts::LOG2_E, top, total: 0 };
        softmax.total = scores.iter().map(|&score| softmax.fixed(score)).sum();
        softmax
    }

    /// Weight relative to the highest score's.
    fn relative(&self, score: f32) -> f32 {
        let score = rank_value(score);
        // Infinities of the same sign are equal, not NaN apart.
        let away = if score == self.top { 0.0 } else { score - self.top };
        exp2(self.c * away)
    }

    /// The same in units of 2^-30, rounded down.
    pub(super) fn fixed(&self, score: f32) -> u64 {
        (self.relative(score) * (1u64 << 30) as f32) as u64
    }

    fn weight(&self, score: f32) -> f32 {
        self.relative(score) * ((1u64 << 30) as f32 / self.total as f32)
    }
}

/// Softmax weights of `[H][n]` scores, pooled over heads: `[rows][tokens or pages]`.
pub fn pooled(by: Pooling, scores: &[f32], heads: Heads, page_size: PageSize, scale: f32) -> Vec<f32> {
    let n = tokens(scores, heads.query());
    let weights: Vec<Vec<f32>> = by_head(scores, heads.query())
        .map(|of_head| {
            let softmax = Softmax::new(of_head, scale);
            of_head.iter().map(|&score| softmax.weight(score)).collect()
        })
        .collect();
    let column =
        |t: usize, heads: std::ops::Range<usize>| weights[heads].iter().map(move |of_head| of_head[t]);
    let peaks = || (0..n).map(|t| column(t, 0..heads.query()).fold(0.0, f32::max));
    match by {
        Pooling::Groups => (0..heads.kv() * n)
            .map(|i| {
                let first = i / n * heads.group();
                column(i % n, first..first + heads.group()).fold(0.0, |sum, weight| sum + weight)
            })
            .collect(),
        Pooling::Peak => peaks().collect(),
        Pooling::PagePeak => {
            let peaks: Vec<f32> = peaks().collect();
            let sum = |page: &[f32]| page.iter().fold(0.0, |sum, weight| sum + weight);
            peaks.chunks(page_size.tokens()).map(sum).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(got: &[f32], want: &[f64]) {
        assert_eq!(got.len(), want.len());
        for (got, want) in got.iter().zip(want) {
            assert!((f64::from(*got) - want).abs() <= 1e-6 * want, "{got} for {want}");
        }
    }

    #[test]
    fn powers_of_two() {
        for i in 0..12_500 {
            let x = -(i as f32) / 100.0;
            let exact = f64::from(x).exp2();
            assert!((f64::from(exp2(x)) - exact).abs() <= 2.4e-7 * exact, "{x}");
        }
        assert_eq!((exp2(0.0), exp2(-3.0), exp2(-125.5)), (1.0, 0.125, 0.0));
    }

    #[test]
    fn weights_are_the_softmax() {
        let (heads, page) = (Heads::new(4, 2, 8).expect("valid"), PageSize::new(2).expect("valid"));
        let scores: Vec<f32> = (0..12).map(|i| (i * 7 % 12) as f32 * 0.5 - 2.0).collect();
        let scale = 0.7f32;
        let softmax: Vec<f64> = scores
            .chunks(3)
            .flat_map(|row| {
                let e = |&s: &f32| (f64::from(scale) * f64::from(s)).exp();
                let sum: f64 = row.iter().map(e).sum();
                row.iter().map(move |s| e(s) / sum).collect::<Vec<_>>()
            })
            .collect();
        let at = |h: usize, t: usize| softmax[h * 3 + t];
        let groups: Vec<f64> = (0..6).map(|i| at(i / 3 * 2, i % 3) + at(i / 3 * 2 + 1, i % 3)).collect();
        near(&pooled(Pooling::Groups, &scores, heads, page, scale), &groups);
        let peaks: Vec<f64> = (0..3).map(|t| (0..4).map(|h| at(h, t)).fold(0.0, f64::max)).collect();
        near(&pooled(Pooling::Peak, &scores, heads, page, scale), &peaks);
        near(&pooled(Pooling::PagePeak, &scores, heads, page, scale), &[peaks[0] + peaks[1], peaks[2]]);
    }
}
