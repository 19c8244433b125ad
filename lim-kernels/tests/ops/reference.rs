//! The ops in float64, as their formulas read.

use lim_kernels::Heads;

pub(crate) fn rms_norm(x: &[f64], weight: &[f64], eps: f64) -> Vec<f64> {
    let mean = x.iter().map(|v| v * v).sum::<f64>() / x.len() as f64;
    x.iter().zip(weight).map(|(v, w)| v / (mean + eps).sqrt() * w).collect()
}

pub(crate) fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

pub(crate) fn silu(x: f64) -> f64 {
    x / (1.0 + (-x).exp())
}

/// HF's rotate_half: element i pairs with `i + d/2`.
pub(crate) fn rotate(x: &[f64], cos: &[f64], sin: &[f64]) -> Vec<f64> {
    let half = x.len() / 2;
    let turned = |i: usize| if i < half { -x[i + half] } else { x[i - half] };
    (0..x.len()).map(|i| x[i] * cos[i % half] + turned(i) * sin[i % half]).collect()
}

/// One head's `softmax(scale q k^T) v` over the given tokens.
pub(crate) fn attend(q: &[f64], keys: &[&[f64]], values: &[&[f64]], scale: f64) -> Vec<f64> {
    let scores: Vec<f64> = keys.iter().map(|k| scale * dot(q, k)).collect();
    let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = scores.iter().map(|s| (s - top).exp()).collect();
    let total: f64 = weights.iter().sum();
    (0..q.len()).map(|i| weights.iter().zip(values).map(|(w, v)| w * v[i]).sum::<f64>() / total).collect()
}

/// All heads of one row: `positions(h)` are the tokens of query head h. Cache rows are `[token][kv_head * dim]`.
pub(crate) fn attend_heads(
    heads: Heads,
    q: &[f32],
    keys: &[Vec<f64>],
    values: &[Vec<f64>],
    scale: f64,
    positions: impl Fn(usize) -> Vec<usize>,
) -> Vec<f64> {
    let (dim, group) = (heads.dim(), heads.group());
    let mut out = Vec::new();
    for h in 0..heads.query() {
        let at = h / group * dim..(h / group + 1) * dim;
        let tokens = positions(h);
        let keys: Vec<&[f64]> = tokens.iter().map(|&t| &keys[t][at.clone()]).collect();
        let values: Vec<&[f64]> = tokens.iter().map(|&t| &values[t][at.clone()]).collect();
        let q: Vec<f64> = q[h * dim..(h + 1) * dim].iter().map(|&x| f64::from(x)).collect();
        out.extend(attend(&q, &keys, &values, scale));
    }
    out
}

/// Descending by score, ascending by position; NaN as -inf.
pub(crate) fn ranked(scores: &[f32], candidates: std::ops::Range<usize>) -> Vec<usize> {
    let value = |t: usize| if scores[t].is_nan() { f32::NEG_INFINITY } else { scores[t] };
    let mut order: Vec<usize> = candidates.collect();
    order.sort_by(|&a, &b| value(b).partial_cmp(&value(a)).unwrap().then(a.cmp(&b)));
    order
}

/// LessIsMore's history: the M smallest of `min_h(rank_h(t) * H + h)`, ascending by position.
pub(crate) fn union(scores: &[Vec<f32>], candidates: std::ops::Range<usize>, history: usize) -> Vec<usize> {
    let mut key = vec![usize::MAX; candidates.end];
    for (h, head) in scores.iter().enumerate() {
        for (rank, &t) in ranked(head, candidates.clone()).iter().enumerate() {
            key[t] = key[t].min(rank * scores.len() + h);
        }
    }
    let mut order: Vec<usize> = candidates.collect();
    order.sort_by_key(|&t| key[t]);
    order.truncate(history);
    order.sort_unstable();
    order
}
