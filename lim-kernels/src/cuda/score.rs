//! See [`Score`].

use super::attend::query_rows;
use super::check::int;
use super::{Cuda, ffi};
use crate::{Error, Result, Score, ScoreOf};

const OP: &str = "score";

/// Launches `lim_score`.
pub(super) fn score(cuda: &mut Cuda, op: Score<'_, Cuda>) -> Result<()> {
    let Score { q, kv, heads, batch, of, budget, layer, counters, out } = op;
    let layout = kv.layout();
    batch.expect_decode(OP)?;
    kv.expect(OP, heads, batch)?;
    out.expect(OP, heads, batch, of)?;
    let (queries, q_stride) = query_rows(OP, q, heads, batch, layout.dtype)?;
    let code = match of {
        ScoreOf::Tokens => ffi::LIM_SCORE_TOKENS,
        ScoreOf::Pages => ffi::LIM_SCORE_PAGES,
    };
    let raw = kv.raw();
    if of == ScoreOf::Pages && raw.bounds.is_null() {
        let must = "made with the pages".into();
        return Err(Error::Range { op: OP, what: "page bounds kept by the pages", got: 0, must });
    }
    let args = ffi::lim_score_args {
        kv: raw,
        batch: batch.raw(),
        q: queries,
        scores: out.raw(),
        counters: counters.attended(OP, layer, heads.query())?,
        heads: int(heads.query()),
        q_stride,
        of: code,
        budget: int(budget),
    };
    let stream = cuda.launch_stream()?;
    // SAFETY: every pointer is device memory of the extents checked above, alive in `op`; the context is current.
    let status = unsafe { ffi::lim_score(&args, stream) };
    cuda.check(OP, layout.dtype, status)?;
    let scored = |&len: &usize| match of {
        _ if len <= budget => 0,
        ScoreOf::Pages => batch.page_size().pages_for(len),
        ScoreOf::Tokens => len,
    };
    out.note(cuda, batch.lens().iter().map(scored));
    Ok(())
}
