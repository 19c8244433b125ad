//! Gates of pages (policy seer): scores by them, and those of pages that a step fills.

use std::rc::Rc;

use lim_kernels::cuda::{Cuda, CudaLinear};
use lim_kernels::{Backend, Capacity, GateScore, KeyGates, PageExtras, PageGates, Result, Step};

use super::pool::Pool;
use super::{Prepared, Settings, heads, layout};
use crate::fixture::weight;

/// `copies` gate weights of one layer with `inputs` inputs, and the bytes of each.
fn weights(cuda: &mut Cuda, copies: impl Fn(u64) -> usize, inputs: usize) -> Result<(Vec<CudaLinear>, u64)> {
    let layout = layout()?;
    let shape = [layout.token_width(), inputs];
    let bytes = (shape[0] * shape[1] * layout.dtype.bytes()) as u64;
    let host = weight(layout.dtype, shape);
    let all = (0..copies(bytes)).map(|_| cuda.linear(&[(host.clone(), None)])).collect::<Result<_>>()?;
    Ok((all, bytes))
}

/// Scores of all pages of `seqs` sequences of `len` tokens, query gates included. Wq counts once, as the sequences share it.
///
/// # Errors
/// When the pool is too small or the device refuses.
pub fn gate_score(
    cuda: &mut Cuda,
    settings: Settings,
    pool: &Rc<Pool>,
    [seqs, len]: [usize; 2],
) -> Result<Prepared> {
    let (layout, heads) = (layout()?, heads()?);
    let pages = layout.page_size.pages_for(len);
    let moved = (seqs * pages * (layout.token_bytes() / 2 + 4 * heads.kv())) as u64;
    // As many as there are pages for: the keys between the gates are not read, so copies hold less than elsewhere.
    let copies = |weight: u64| settings.copies(moved + weight).min(pool.pages() / (seqs * pages));
    let (weights, weight) = weights(cuda, copies, heads.group() * heads.dim())?;
    let batches = pool.batches(cuda, weights.len(), seqs, len, len)?;
    let mut counters = cuda.counters(1)?;
    let mut out = cuda.pooled(Capacity { rows: seqs, seqs, tokens: len }, heads.kv())?;
    let pool = Rc::clone(pool);
    Prepared::new(cuda, batches.len(), moved + weight, move |cuda, copy| {
        cuda.gate_score(GateScore {
            q: &pool.qkv,
            gates: PageGates { q: &weights[copy], k: &weights[copy], rope: pool.rotary().rope() },
            kv: &pool.kv,
            heads,
            batch: &batches[copy],
            budget: 0,
            layer: 0,
            counters: &mut counters,
            out: &mut out,
        })
    })
}

/// Key gates in a decode step in which every one of `seqs` sequences fills a page, or none does.
///
/// # Errors
/// As [`gate_score`].
pub fn key_gates(
    cuda: &mut Cuda,
    settings: Settings,
    pool: &Rc<Pool>,
    seqs: usize,
    fills: bool,
) -> Result<Prepared> {
    let layout = layout()?;
    let page = layout.page_size.tokens();
    // The keys, which append has just brought near, do not count.
    let (weights, bytes) = weights(cuda, |bytes| settings.copies(bytes), 3 * layout.heads.dim())?;
    let mut kv = cuda.kv(layout, seqs, PageExtras { bounds: false, gates: true })?;
    let mut batch = cuda.batch(Capacity { rows: seqs, seqs, tokens: page }, layout.page_size)?;
    let mut step = Step::default();
    (0..seqs).try_for_each(|seq| step.push(&[0], if fills { page } else { page - 1 }, &[seq as u32]))?;
    cuda.upload(&step, &mut batch)?;
    let pool = Rc::clone(pool);
    let bytes = if fills { bytes } else { 0 };
    Prepared::new(cuda, weights.len(), bytes, move |cuda, copy| {
        let gates = PageGates { q: &weights[copy], k: &weights[copy], rope: pool.rotary().rope() };
        cuda.key_gates(KeyGates { gates, batch: &batch, kv: &mut kv })
    })
}
