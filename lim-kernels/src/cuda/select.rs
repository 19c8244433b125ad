//! See [`Select`].

use super::{Cuda, ffi};
use crate::{DType, Error, Pick, Result, Select, Sets};

/// Launches `lim_select`.
pub(super) fn select(cuda: &mut Cuda, op: Select<'_, Cuda>) -> Result<()> {
    let Select { pick, quota, heads, batch, layer, counters, out } = op;
    let page_size = batch.page_size();
    let (rule, scores, sets, positions) = match pick {
        Pick::Union(scores) => (ffi::LIM_PICK_UNION, Some(scores), Sets::Shared, batch.capacity().tokens),
        Pick::PerQueryHead(scores) => {
            (ffi::LIM_PICK_HEADS, Some(scores), Sets::PerQueryHead, batch.capacity().tokens)
        }
        Pick::Pages(scores) => {
            let pages = page_size.pages_for(batch.capacity().tokens);
            (ffi::LIM_PICK_PAGES, Some(scores), Sets::PerQueryHead, pages)
        }
        Pick::Nothing => (ffi::LIM_PICK_NOTHING, None, Sets::Shared, 0),
    };
    if let Some(scores) = scores {
        let [seqs, score_heads, stride] = scores.shape();
        if seqs < batch.seqs() || score_heads != heads.query() || stride < positions {
            let expected = vec![batch.seqs(), heads.query(), positions];
            return Err(shape("scores", scores.shape().to_vec(), expected));
        }
    }
    let [seqs, set_count, capacity] = out.shape();
    if out.kind() != sets
        || seqs < batch.seqs()
        || set_count != sets.count(heads)
        || capacity < quota.budget()
    {
        let expected = vec![batch.seqs(), sets.count(heads), quota.budget()];
        return Err(shape("selection", out.shape().to_vec(), expected));
    }
    let int = |value: usize| i32::try_from(value).unwrap_or(i32::MAX);
    let mut args = ffi::lim_select_args {
        scores: scores.map_or(ffi::lim_scores { data: std::ptr::null_mut(), stride: 4 }, |s| s.raw()),
        batch: batch.raw(),
        out: out.raw(),
        counters: counters.layer(layer)?,
        scratch: std::ptr::null_mut(),
        scratch_bytes: 0,
        rule,
        heads: int(heads.query()),
        sinks: int(quota.sinks),
        history: int(quota.history),
        window: int(quota.window),
        page_size: int(page_size.tokens()),
    };
    // SAFETY: reads the plain values of `args` alone.
    args.scratch_bytes = unsafe { ffi::lim_select_scratch(&args) };
    args.scratch = cuda.scratch(args.scratch_bytes as usize)?.cast();
    let stream = cuda.launch_stream()?;
    // SAFETY: every pointer is device memory of the extents checked above, alive in `op`; the context is current.
    let status = unsafe { ffi::lim_select(&args, stream) };
    cuda.check("select", DType::F32, status)
}

fn shape(operand: &'static str, got: Vec<usize>, expected: Vec<usize>) -> Error {
    Error::Shape { op: "select", operand, got, expected }
}
