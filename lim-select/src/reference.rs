//! The readable specification of every policy: plain arrays, full sorts, no care for speed.
//!
//! Scores are `[H][n]`, head after head, as the seam's score buffers hold them. A result of `None` means dense:
//! `n <= K`. Sources: LessIsMore arXiv 2508.07101, TidalDecode arXiv 2410.05076, Kascade arXiv 2512.16391, OmniKV (ICLR
//! 2025), DELTA arXiv 2510.09883, Twilight arXiv 2502.02770, Quest arXiv 2406.10774, SeerAttention-R arXiv
//! 2506.08889, StreamingLLM arXiv 2309.17453.
//!
//! Every function here takes `scores.len()` to be a multiple of `heads` and rounds n down otherwise; `heads` of 0 is
//! no tokens.

mod softmax;

use std::ops::Range;

use lim_kernels::{Heads, PageSize, Pooling, Quota};

pub use softmax::{exp2, pooled};

use crate::{Choice, Mass};
use softmax::Softmax;

/// A score as rankings see it: -0 counts as +0, NaN as -inf.
pub fn rank_value(score: f32) -> f32 {
    if score.is_nan() { f32::NEG_INFINITY } else { score + 0.0 }
}

/// `candidates` by descending score, the lower position first where scores are equal.
pub fn ranking(scores: &[f32], candidates: Range<usize>) -> Vec<u32> {
    let mut order: Vec<u32> = candidates.map(|t| t as u32).collect();
    let value = |t: u32| rank_value(scores[t as usize]);
    order.sort_by(|&a, &b| value(b).total_cmp(&value(a)).then(a.cmp(&b)));
    order
}

/// LessIsMore's history set in the order it is found: the heads' rankings of `candidates` read rank-major, head-minor,
/// first occurrence kept, cut at `count`.
///
/// This is the order of `key(t) = min_h(rank_h(t) * H + h)`.
pub fn union_history(scores: &[f32], heads: usize, candidates: Range<usize>, count: usize) -> Vec<u32> {
    let rankings: Vec<Vec<u32>> =
        by_head(scores, heads).map(|of_head| ranking(of_head, candidates.clone())).collect();
    merge(&rankings, count)
}

/// Lists read rank-major, head-minor, first occurrence kept, cut at `count`.
fn merge(lists: &[Vec<u32>], count: usize) -> Vec<u32> {
    let mut history = Vec::new();
    let longest = lists.iter().map(Vec::len).max().unwrap_or(0);
    let mut taken = std::collections::HashSet::new();
    for rank in 0..longest {
        for t in lists.iter().filter_map(|list| list.get(rank)) {
            if history.len() < count && taken.insert(*t) {
                history.push(*t);
            }
        }
    }
    history
}

/// LessIsMore: one set for all heads, exactly K positions in ascending order.
pub fn lim(scores: &[f32], heads: usize, quota: Quota) -> Option<Vec<u32>> {
    let n = tokens(scores, heads);
    let candidates = candidates(n, quota)?;
    Some(with_ends(union_history(scores, heads, candidates, quota.history), n, quota))
}

/// Top-p: one set for all heads, at most K positions in ascending order, sinks and window always among them.
///
/// A head's list is the shortest beginning of its ranking that with sinks and window holds at least `mass.share` of its
/// softmax, as integers: `ceil(share * total)`, the share in units of 2^-32.
pub fn topp(scores: &[f32], heads: usize, quota: Quota, mass: Mass) -> Option<Vec<u32>> {
    let n = tokens(scores, heads);
    let candidates = candidates(n, quota)?;
    let share = (mass.share * (1u64 << 32) as f64).round().max(1.0) as u128;
    let list = |of_head: &[f32]| {
        let softmax = Softmax::new(of_head, mass.scale);
        let wanted = (u128::from(softmax.total) * share).div_ceil(1 << 32) as u64;
        let held = |t: u32| softmax.fixed(of_head[t as usize]);
        let mut sum: u64 = with_ends(Vec::new(), n, quota).into_iter().map(held).sum();
        let reaches = |t: &u32| {
            let more = sum < wanted;
            sum += held(*t);
            more
        };
        ranking(of_head, candidates.clone()).into_iter().take_while(reaches).collect()
    };
    let lists: Vec<Vec<u32>> = by_head(scores, heads).map(list).collect();
    Some(with_ends(merge(&lists, quota.history), n, quota))
}

/// TidalDecode: one set per query head, exactly K positions each in ascending order.
///
/// With rows of [`pooled`] weights in the place of heads: Kascade (a row a KV head) and OmniKV (one row).
pub fn tidal(scores: &[f32], heads: usize, quota: Quota) -> Option<Vec<Vec<u32>>> {
    let n = tokens(scores, heads);
    let candidates = candidates(n, quota)?;
    let set = |of_head| {
        let mut history = ranking(of_head, candidates.clone());
        history.truncate(quota.history);
        with_ends(history, n, quota)
    };
    Some(by_head(scores, heads).map(set).collect())
}

/// Quest's upper bound of `q . k` over the keys of a page: `sum_i max(q_i * min_i, q_i * max_i)`.
///
/// `query`, `min` and `max` have head_dim elements.
pub fn page_bound(query: &[f32], min: &[f32], max: &[f32]) -> f32 {
    query.iter().zip(min.iter().zip(max)).map(|(q, (min, max))| (q * min).max(q * max)).sum()
}

/// Quest: one set per query head, of whole pages. `bounds` is `[H][pages]` for `n` cached tokens.
///
/// `P = max(1, K / page_size)` pages: the last `W / page_size`, at least one, and the best others. Quest has no window:
/// of the last pages it keeps the current token's. With one row of [`pooled`] weights in the place of heads: DELTA; with
/// a row of gate scores a KV head: SeerAttention-R.
pub fn quest(
    bounds: &[f32],
    heads: usize,
    n: usize,
    page_size: PageSize,
    quota: Quota,
) -> Option<Vec<Vec<u32>>> {
    candidates(n, quota)?;
    let all = page_size.pages_for(n);
    let pages = (quota.budget() / page_size.tokens()).max(1);
    let recent = (quota.window / page_size.tokens()).clamp(1, pages);
    let set = |of_head| {
        let mut chosen = ranking(of_head, 0..all - recent);
        chosen.truncate(pages - recent);
        chosen.extend((all - recent) as u32..all as u32);
        chosen.sort_unstable();
        let tokens = |page: u32| {
            let start = page as usize * page_size.tokens();
            (start..n.min(start + page_size.tokens())).map(|t| t as u32)
        };
        chosen.into_iter().flat_map(tokens).collect()
    };
    Some(by_head(bounds, heads).map(set).collect())
}

/// StreamingLLM: sinks and window, exactly K positions in ascending order.
pub fn streaming(n: usize, quota: Quota) -> Option<Vec<u32>> {
    candidates(n, quota)?;
    Some(with_ends(Vec::new(), n, quota))
}

/// The sets that `choice` makes of `n` cached tokens: as many as [`Choice::sets`] says. `scores` is what
/// [`Choice::scores`] asks for, `[H][tokens or pages]` (gates: `[kv heads][pages]`), and unused where it asks for none.
pub fn select(
    choice: Choice,
    scores: &[f32],
    heads: Heads,
    n: usize,
    page_size: PageSize,
    quota: Quota,
    mass: Mass,
) -> Option<Vec<Vec<u32>>> {
    let pooled = |by| pooled(by, scores, heads, page_size, mass.scale);
    let (kv, heads) = (heads.kv(), heads.query());
    match choice {
        Choice::Mass => topp(scores, heads, quota, mass).map(|set| vec![set]),
        Choice::PerKvHead => tidal(&pooled(Pooling::Groups), kv, quota),
        Choice::Peak => tidal(&pooled(Pooling::Peak), 1, quota),
        Choice::PeakPages => quest(&pooled(Pooling::PagePeak), 1, n, page_size, quota),
        Choice::Union => lim(scores, heads, quota).map(|set| vec![set]),
        Choice::PerQueryHead => tidal(scores, heads, quota),
        Choice::Pages => quest(scores, heads, n, page_size, quota),
        Choice::Gates => quest(scores, kv, n, page_size, quota),
        Choice::Nothing => streaming(n, quota).map(|set| vec![set]),
    }
}

/// Positions `[S, n - W)`; `None` where the budget takes all n.
fn candidates(n: usize, quota: Quota) -> Option<Range<usize>> {
    (n > quota.budget()).then(|| quota.sinks..n - quota.window)
}

/// Sinks, history and recent positions in ascending order.
fn with_ends(history: Vec<u32>, n: usize, quota: Quota) -> Vec<u32> {
    let sinks = 0..quota.sinks as u32;
    let recent = (n - quota.window) as u32..n as u32;
    let mut set: Vec<u32> = sinks.chain(history).chain(recent).collect();
    set.sort_unstable();
    set
}

fn tokens(scores: &[f32], heads: usize) -> usize {
    scores.len().checked_div(heads).unwrap_or(0)
}

fn by_head(scores: &[f32], heads: usize) -> impl Iterator<Item = &[f32]> {
    scores.chunks_exact(tokens(scores, heads).max(1)).take(heads)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Figure 1 of the paper: n = 8, K = 4, r = 0.25, S = 0.
    #[test]
    fn golden_of_the_paper() {
        #[rustfmt::skip]
        let scores = [
            1.1, 2.1, 3.2, 1.3, 0.3, 1.4, 1.5, 1.7,
            2.2, 3.2, 4.5, 2.6, 2.8, 1.2, 0.8, 1.9,
            1.2, 3.6, 6.7, 1.3, 4.2, 3.6, 5.5, 3.8,
            1.9, 0.9, 2.1, 2.4, 2.8, 4.2, 3.6, 1.7,
        ];
        let quota = crate::Budget::new(4, 0.25, 0).expect("valid").quota();
        assert_eq!(union_history(&scores, 4, 0..7, 3), [2, 5, 1]);
        assert_eq!(lim(&scores, 4, quota), Some(vec![1, 2, 5, 7]));
    }

    #[test]
    fn golden_with_ties_sink_and_window() {
        let scores = [9.0, 0.5, 0.9, 0.9, 0.1, 9.0, 9.0, 0.2, 0.7, 0.3, 0.7, 9.0];
        let quota = Quota { sinks: 1, history: 2, window: 1 };
        assert_eq!(lim(&scores, 2, quota), Some(vec![0, 2, 3, 5]));
    }

    /// The key formula and the rank-major reading are the same rule.
    #[test]
    fn keys_agree_with_the_reading() {
        let scores = [0.3, 0.1, 0.2, 0.9, 0.4, 0.8, 0.1, 0.5, 0.5, 0.0];
        let rank = |h: usize, t: u32| {
            let order = ranking(&scores[h * 5..][..5], 0..5);
            order.iter().position(|&x| x == t).expect("ranked")
        };
        let mut keyed: Vec<u32> = (0..5).collect();
        keyed.sort_by_key(|&t| (0..2).map(|h| rank(h, t) * 2 + h).min());
        assert_eq!(union_history(&scores, 2, 0..5, 5), keyed);
    }

    #[test]
    fn special_scores() {
        let scores = [f32::NAN, -0.0, 0.0, f32::NEG_INFINITY, f32::INFINITY, -f32::NAN];
        assert_eq!(ranking(&scores, 0..6), [4, 1, 2, 0, 3, 5]);
    }

    #[test]
    fn quest_takes_whole_pages_and_the_last() {
        let quota = Quota { sinks: 0, history: 9, window: 0 };
        let page = PageSize::new(4).expect("valid");
        let bounds = [1.0, 3.0, 3.0, -9.0, 5.0, 3.0, 3.0, -9.0];
        let sets = vec![vec![4, 5, 6, 7, 12, 13], vec![0, 1, 2, 3, 12, 13]];
        assert_eq!(quest(&bounds, 2, 14, page, quota), Some(sets));
        assert_eq!(quest(&bounds, 2, 9, page, quota), None);
        assert_eq!(page_bound(&[2.0, -1.0], &[-3.0, -2.0], &[1.0, 4.0]), 4.0);
    }

    #[test]
    fn streaming_keeps_the_ends() {
        let quota = Quota { sinks: 2, history: 0, window: 3 };
        assert_eq!(streaming(10, quota), Some(vec![0, 1, 7, 8, 9]));
        assert_eq!(streaming(5, quota), None);
    }
}
