//! The choice of tokens, from random scores that the kernel before left in the cache.

use lim_kernels::cuda::{Cuda, CudaBatch, CudaScores, CudaSelection};
use lim_kernels::{Backend, Capacity, Pick, Pool, Pooling, Quota, Result, Select, Sets, Step};

use super::{CALLS, Noise, Prepared, heads, layout};

/// Softmax scale of the random scores.
const SCALE: f32 = 0.5;

/// Rules, as `Pick` names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// LessIsMore: 4 sinks, a quarter recent, the union of the heads' best.
    Union,
    /// The same from lists that end at 0.95 of their head's softmax.
    Mass,
    /// TidalDecode: each query head's best.
    PerQueryHead,
    /// Quest: each query head's best pages.
    Pages,
}

impl Rule {
    fn sets(self) -> Sets {
        match self {
            Rule::Union | Rule::Mass => Sets::Shared,
            Rule::PerQueryHead | Rule::Pages => Sets::PerQueryHead,
        }
    }

    fn quota(self, budget: usize) -> Quota {
        match self {
            Rule::Union => {
                let history = budget - budget / 4;
                Quota { sinks: 4, history, window: budget - history - 4 }
            }
            Rule::Mass => Quota { sinks: 0, history: budget - 1, window: 1 },
            Rule::PerQueryHead | Rule::Pages => Quota { sinks: 0, history: budget, window: 0 },
        }
    }

    fn pick(self, scores: &CudaScores) -> Pick<'_, Cuda> {
        match self {
            Rule::Union => Pick::Union(scores),
            Rule::Mass => Pick::Mass { scores, scale: SCALE, share: 0.95 },
            Rule::PerQueryHead => Pick::Best(scores, Sets::PerQueryHead),
            Rule::Pages => Pick::Pages(scores, Sets::PerQueryHead),
        }
    }
}

/// A choice of `budget` tokens for each of `seqs` sequences of `len` tokens by 32 heads. The fewest bytes are the
/// scores, read once, and the ids.
///
/// # Errors
/// When the device refuses.
pub fn select(cuda: &mut Cuda, rule: Rule, [seqs, budget, len]: [usize; 3]) -> Result<Prepared> {
    let (heads, page_size) = (heads()?, layout()?.page_size);
    let scored = if rule == Rule::Pages { page_size.pages_for(len) } else { len };
    let scores = random_scores(cuda, [seqs, scored, len])?;
    let batch = decode_batch(cuda, seqs, len)?;
    let (sets, quota) = (rule.sets(), rule.quota(budget));
    let capacity = Capacity { rows: seqs, seqs, tokens: len };
    let mut out = cuda.selection(capacity, heads, sets, budget)?;
    let mut counters = cuda.counters(1)?;
    let bytes = 4 * seqs * (heads.query() * scored + sets.count(heads) * budget);
    Prepared::new(cuda, CALLS, bytes as u64, move |cuda, _| {
        cuda.select(Select {
            pick: rule.pick(&scores),
            quota,
            heads,
            batch: &batch,
            layer: 0,
            counters: &mut counters,
            out: &mut out,
        })
    })
}

/// Softmax weights of `seqs` sequences of `len` tokens, pooled over 32 heads. The fewest bytes are the scores, read once,
/// and the weights.
///
/// # Errors
/// When the device refuses.
pub fn pool(cuda: &mut Cuda, by: Pooling, [seqs, len]: [usize; 2]) -> Result<Prepared> {
    let (heads, page_size) = (heads()?, layout()?.page_size);
    let scores = random_scores(cuda, [seqs, len, len])?;
    let batch = decode_batch(cuda, seqs, len)?;
    let mut out = cuda.pooled(Capacity { rows: seqs, seqs, tokens: len }, by.rows(heads))?;
    let bytes = 4 * seqs * (heads.query() * len + by.rows(heads) * by.columns(len, page_size));
    Prepared::new(cuda, CALLS, bytes as u64, move |cuda, _| {
        let (scores, batch, out) = (&scores, &batch, &mut out);
        cuda.pool(Pool { scores, scale: SCALE, heads, batch, by, budget: 0, out })
    })
}

/// `budget` random positions of each sequence, ascending: the best of random scores, without sinks and window.
pub(super) fn random_selection(
    cuda: &mut Cuda,
    sets: Sets,
    batch: &CudaBatch,
    [seqs, budget, len]: [usize; 3],
) -> Result<CudaSelection> {
    let heads = heads()?;
    let scores = random_scores(cuda, [seqs, len, len])?;
    let capacity = Capacity { rows: seqs, seqs, tokens: len };
    let mut out = cuda.selection(capacity, heads, sets, budget)?;
    let rule = if sets == Sets::Shared { Rule::Union } else { Rule::PerQueryHead };
    let mut counters = cuda.counters(1)?;
    cuda.select(Select {
        pick: rule.pick(&scores),
        quota: Quota { sinks: 0, history: budget, window: 0 },
        heads,
        batch,
        layer: 0,
        counters: &mut counters,
        out: &mut out,
    })?;
    cuda.synchronize()?;
    Ok(out)
}

/// `scored` scores per head, room for `capacity`.
fn random_scores(cuda: &mut Cuda, [seqs, scored, capacity]: [usize; 3]) -> Result<CudaScores> {
    let heads = heads()?;
    let mut scores = cuda.scores(Capacity { rows: seqs, seqs, tokens: capacity }, heads)?;
    let mut noise = Noise::new(11);
    for seq in 0..seqs {
        // Sums of uniforms: the tail, which the choice is made from, is close to a normal one.
        let sum = |_| (0..4).map(|_| noise.float(10.0)).sum();
        let row: Vec<f32> = (0..heads.query() * scored).map(sum).collect();
        cuda.write_scores(seq, &row, &mut scores)?;
    }
    Ok(scores)
}

/// Selection works on logical positions, so every page may be page 0.
fn decode_batch(cuda: &mut Cuda, seqs: usize, len: usize) -> Result<CudaBatch> {
    let page_size = layout()?.page_size;
    let capacity = Capacity { rows: seqs, seqs, tokens: len };
    let mut step = Step::with_capacity(capacity, page_size);
    let table = vec![0; page_size.pages_for(len)];
    (0..seqs).try_for_each(|_| step.push(&[0], len, &table))?;
    let mut batch = cuda.batch(capacity, page_size)?;
    cuda.upload(&step, &mut batch)?;
    Ok(batch)
}
