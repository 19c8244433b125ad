//! Pooled softmax weights against float64. That all backends give the same bits is tested beside the reference, in
//! lim-select.

use lim_kernels::{
    Backend, Capacity, Heads, PageSize, Pick, Pool, Pooling, Quota, Result, Select, Sets, Step,
};

use crate::errors::refused;
use crate::fixture::{Rng, Subject, close};

const ALL: [Pooling; 3] = [Pooling::Groups, Pooling::Peak, Pooling::PagePeak];

/// A decode step and buffers for it.
struct Rig<B: Backend> {
    heads: Heads,
    page_size: PageSize,
    capacity: Capacity,
    batch: B::Batch,
    scores: B::Scores,
}

impl<B: Backend> Rig<B> {
    /// `scores` by sequence: `[H][n]`.
    fn new(b: &mut B, heads: Heads, page_size: usize, lens: &[usize], scores: &[Vec<f32>]) -> Self {
        let page_size = PageSize::new(page_size).unwrap();
        let tokens = *lens.iter().max().unwrap() + 3;
        let capacity = Capacity { rows: lens.len(), seqs: lens.len(), tokens };
        let mut batch = b.batch(capacity, page_size).unwrap();
        let mut step = Step::default();
        let pages: Vec<u32> = (0..page_size.pages_for(tokens) as u32).collect();
        for &n in lens {
            step.push(&[0], n, &pages[..page_size.pages_for(n)]).unwrap();
        }
        b.upload(&step, &mut batch).unwrap();
        let mut buffer = b.scores(capacity, heads).unwrap();
        for (seq, data) in scores.iter().enumerate() {
            b.write_scores(seq, data, &mut buffer).unwrap();
        }
        Rig { heads, page_size, capacity, batch, scores: buffer }
    }

    fn pool(&self, b: &mut B, by: Pooling, scale: f32, budget: usize, out: &mut B::Scores) -> Result<()> {
        let Rig { heads, batch, scores, .. } = self;
        b.pool(Pool { scores, scale, heads: *heads, batch, by, budget, out })
    }
}

/// One head's softmax; NaN as -inf, and scores at the top alike, infinite ones too.
fn softmax(scores: &[f32], scale: f32) -> Vec<f64> {
    let value = |s: f32| if s.is_nan() { f64::NEG_INFINITY } else { f64::from(s) };
    let top = scores.iter().map(|&s| value(s)).fold(f64::NEG_INFINITY, f64::max);
    let away = |s: f64| if s == top { 0.0 } else { s - top };
    let e: Vec<f64> = scores.iter().map(|&s| (f64::from(scale) * away(value(s))).exp()).collect();
    let sum: f64 = e.iter().sum();
    e.into_iter().map(|e| e / sum).collect()
}

/// Every pooling of a sequence: `[rows][columns]`.
fn expected(by: Pooling, heads: Heads, page: usize, scores: &[f32], scale: f32) -> Vec<f64> {
    let n = scores.len() / heads.query();
    let weights: Vec<Vec<f64>> = scores.chunks(n).map(|row| softmax(row, scale)).collect();
    let peak = |t: usize| weights.iter().map(|row| row[t]).fold(0.0, f64::max);
    match by {
        Pooling::Groups => weights
            .chunks(heads.group())
            .flat_map(|group| (0..n).map(|t| group.iter().map(|row| row[t]).sum()).collect::<Vec<_>>())
            .collect(),
        Pooling::Peak => (0..n).map(peak).collect(),
        Pooling::PagePeak => {
            (0..n.div_ceil(page)).map(|p| (p * page..n.min((p + 1) * page)).map(peak).sum()).collect()
        }
    }
}

pub(crate) fn weights<B: Backend>(s: &mut Subject<B>) {
    let mut rng = Rng(70);
    for case in 0..30 {
        let (query, kv) = [(1, 1), (4, 2), (7, 7), (32, 8), (6, 1), (128, 8)][case % 6];
        let heads = Heads::new(query, kv, 32).unwrap();
        let page = [1, 4, 16, 256][case % 4];
        let budget = 20;
        // Within the budget, just beyond it, more than one run of any kernel.
        let lens = [20, 21, 5, 30 + rng.below(300), if case % 5 == 0 { 5003 } else { 1025 }];
        let scores: Vec<Vec<f32>> = lens
            .iter()
            .map(|n| {
                let mut score = || match (case % 3, rng.below(40)) {
                    (0, 0) => f32::NAN,
                    (0, 1) => -0.0,
                    (0, 2) => f32::NEG_INFINITY,
                    (0, 3) if case == 9 => f32::INFINITY,
                    (1, _) => 1.0,
                    _ => rng.grid() * 8.0,
                };
                (0..n * query).map(|_| score()).collect()
            })
            .collect();
        let scale = [0.125, 1.0, 0.011][case % 3];
        let rig = Rig::new(&mut s.b, heads, page, &lens, &scores);
        for by in ALL {
            let mut out = s.b.pooled(rig.capacity, by.rows(heads)).unwrap();
            rig.pool(&mut s.b, by, scale, budget, &mut out).unwrap();
            for (seq, &n) in lens.iter().enumerate() {
                if n <= budget {
                    assert!(s.b.read_scores(seq, 0, &out).unwrap().is_empty());
                    continue;
                }
                let got = s.b.read_scores(seq, by.columns(n, rig.page_size), &out).unwrap();
                let want = expected(by, heads, page, &scores[seq], scale);
                assert_eq!(got.len(), want.len());
                for (i, (&got, want)) in got.iter().zip(want).enumerate() {
                    // Totals of fixed weights lack less than 2^-30 a token.
                    let tolerance = 4e-5 * want + 1e-37;
                    close(got, want, tolerance, format_args!("case {case} {by:?} n {n} at {i}"));
                }
            }
        }
    }
}

pub(crate) fn refusals<B: Backend>(s: &mut Subject<B>) {
    let heads = Heads::new(4, 2, 32).unwrap();
    let rig = Rig::new(&mut s.b, heads, 4, &[9], &[vec![0.5; 36]]);
    let mut two = s.b.pooled(rig.capacity, 2).unwrap();
    let mut one = s.b.pooled(rig.capacity, 1).unwrap();
    refused(rig.pool(&mut s.b, Pooling::Peak, 1.0, 4, &mut two), "scores has shape");
    refused(rig.pool(&mut s.b, Pooling::Groups, 1.0, 4, &mut one), "scores has shape");
    for scale in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        refused(rig.pool(&mut s.b, Pooling::Groups, scale, 4, &mut two), "softmax scale is");
    }
    let bare = s.b.scores(rig.capacity, heads).unwrap();
    let unscored = Rig { scores: bare, ..rig };
    refused(unscored.pool(&mut s.b, Pooling::Groups, 1.0, 4, &mut two), "scores of a sequence");
    // Nothing beyond the budget, nothing to score.
    unscored.pool(&mut s.b, Pooling::Groups, 1.0, 9, &mut two).unwrap();
    let mut out = s.b.selection(unscored.capacity, heads, Sets::Shared, 4).unwrap();
    let mut counters = s.b.counters(1).unwrap();
    let (batch, scores) = (&unscored.batch, &unscored.scores);
    for (scale, share, words) in [(0.0, 0.5, "softmax scale is 0"), (1.0, 1.5, "share of the softmax is 1.5")]
    {
        let pick = Pick::Mass { scores, scale, share };
        let quota = Quota { sinks: 0, history: 3, window: 1 };
        let op = Select { pick, quota, heads, batch, layer: 0, counters: &mut counters, out: &mut out };
        refused(s.b.select(op), words);
    }
}
