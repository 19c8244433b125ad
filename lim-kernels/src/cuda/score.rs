//! See [`Score`].

use super::attend::{int, query_rows, same_heads};
use super::{Cuda, ffi};
use crate::{Error, Result, Score, ScoreOf};

const OP: &str = "score";

/// Launches `lim_score`.
pub(super) fn score(cuda: &mut Cuda, op: Score<'_, Cuda>) -> Result<()> {
    let Score { q, kv, heads, batch, of, budget, layer, counters, out } = op;
    let layout = kv.layout();
    same_heads(OP, heads, layout.heads)?;
    let (queries, q_stride) = query_rows(OP, q, heads, batch, layout.dtype)?;
    let (of, positions) = match of {
        ScoreOf::Tokens => (ffi::LIM_SCORE_TOKENS, batch.capacity().tokens),
        ScoreOf::Pages => (ffi::LIM_SCORE_PAGES, batch.page_size().pages_for(batch.capacity().tokens)),
    };
    let [seqs, score_heads, stride] = out.shape();
    if seqs < batch.seqs() || score_heads != heads.query() || stride < positions {
        let (got, expected) = (out.shape().to_vec(), vec![batch.seqs(), heads.query(), positions]);
        return Err(Error::Shape { op: OP, operand: "scores", got, expected });
    }
    let raw = kv.raw();
    if of == ffi::LIM_SCORE_PAGES && raw.bounds.is_null() {
        let must = "made with page bounds".into();
        return Err(Error::Range { op: OP, what: "page bounds of the cache", got: 0, must });
    }
    let args = ffi::lim_score_args {
        kv: raw,
        batch: batch.raw(),
        q: queries,
        scores: out.raw(),
        counters: counters.attended(layer, heads.query())?,
        heads: int(heads.query()),
        q_stride,
        of,
        budget: int(budget),
    };
    let stream = cuda.launch_stream()?;
    // SAFETY: every pointer is device memory of the extents checked above, alive in `op`; the context is current.
    let status = unsafe { ffi::lim_score(&args, stream) };
    cuda.check(OP, layout.dtype, status)
}
