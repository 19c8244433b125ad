//! Random inputs that the test files share.

use lim_kernels::Quota;
use lim_select::Budget;
use proptest::prelude::*;

/// Scores of one sequence and a budget.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) heads: usize,
    /// n.
    pub(crate) tokens: usize,
    /// `[H][n]`.
    pub(crate) scores: Vec<f32>,
    pub(crate) quota: Quota,
}

/// From no ties to nothing but ties, with every kind of special value among them.
pub(crate) fn score() -> impl Strategy<Value = Vec<f32>> {
    let special = prop::sample::select(vec![
        0.0,
        -0.0,
        f32::NAN,
        -f32::NAN,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::MIN_POSITIVE / 2.0,
        -f32::MIN_POSITIVE / 2.0,
        f32::MAX,
        f32::MIN,
    ]);
    let pool = 24..200usize;
    prop_oneof![
        pool.clone().prop_flat_map(|n| prop::collection::vec(-8.0..8.0f32, n)),
        pool.clone().prop_flat_map(|n| prop::collection::vec((-2..2i8).prop_map(f32::from), n)),
        pool.prop_flat_map(move |n| {
            prop::collection::vec(prop_oneof![1 => special.clone(), 2 => -1.0..1.0f32], n)
        }),
        Just(vec![1.0]),
    ]
}

pub(crate) fn budget(most: usize) -> impl Strategy<Value = Budget> {
    let ratio = prop_oneof![Just(0.0), Just(0.25), Just(1.0), 0.0..1.0f64];
    (1..=most, ratio, 0..9usize).prop_map(|(k, r, s)| Budget::new(k, r, s).expect("in range"))
}

/// Up to 128 heads and `most` tokens; n = K + 1 and n <= K are common.
pub(crate) fn case(most: usize) -> impl Strategy<Value = Case> {
    let heads = prop_oneof![1..=8usize, prop::sample::select(vec![16usize, 32, 128])];
    let tokens = move |quota: Quota| {
        let k = quota.budget();
        prop_oneof![1 => 1..=k, 2 => Just(k + 1), 6 => k + 1..=most.max(k) + 1]
    };
    (heads, budget(most), score(), any::<u64>()).prop_flat_map(move |(heads, budget, values, seed)| {
        let quota = budget.quota();
        tokens(quota).prop_map(move |tokens| {
            let scores = draw(&values, heads * tokens, seed);
            Case { heads, tokens, scores, quota }
        })
    })
}

/// `count` of the `values` in an order that depends on `seed` only; cheaper than a strategy per score.
pub(crate) fn draw(values: &[f32], count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        // SplitMix64.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    (0..count).map(|_| values[(next() % values.len() as u64) as usize]).collect()
}
