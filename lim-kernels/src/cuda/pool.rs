//! See [`Pool`].

use super::check::{int, shape_error};
use super::context::Scratch;
use super::{Cuda, ffi};
use crate::softmax::log2_scale;
use crate::{DType, Pool, Pooling, Result, ScoreOf};

const OP: &str = "pool";

/// Launches `lim_pool`.
pub(super) fn pool(cuda: &mut Cuda, op: Pool<'_, Cuda>) -> Result<()> {
    let Pool { scores, scale, heads, batch, by, budget, out } = op;
    batch.expect_decode(OP)?;
    scores.expect(OP, heads, batch, ScoreOf::Tokens)?;
    let (code, of) = match by {
        Pooling::Groups => (ffi::LIM_POOL_GROUPS, ScoreOf::Tokens),
        Pooling::Peak => (ffi::LIM_POOL_PEAK, ScoreOf::Tokens),
        Pooling::PagePeak => (ffi::LIM_POOL_PAGE_PEAK, ScoreOf::Pages),
    };
    out.expect_rows(OP, by.rows(heads), batch, of)?;
    let scale_log2 = log2_scale(OP, scale)?;
    for (seq, &len) in batch.lens().iter().enumerate().filter(|(_, len)| **len > budget) {
        if scores.count(seq) != len {
            return Err(shape_error(OP, "scores of a sequence", &[scores.count(seq)], &[len]));
        }
    }
    let mut args = ffi::lim_pool_args {
        scores: scores.raw(),
        batch: batch.raw(),
        out: out.raw(),
        scratch: std::ptr::null_mut(),
        scratch_bytes: 0,
        scale_log2,
        by: code,
        heads: int(heads.query()),
        kv_heads: int(heads.kv()),
        page_size: int(batch.page_size().tokens()),
        budget: int(budget),
    };
    // SAFETY: reads the plain values of `args` alone.
    args.scratch_bytes = unsafe { ffi::lim_pool_scratch(&args) };
    args.scratch = cuda.scratch(Scratch::Common, args.scratch_bytes as usize)?.cast();
    let stream = cuda.launch_stream()?;
    // SAFETY: every pointer is device memory of the extents checked above, alive in `op`; the context is current.
    let status = unsafe { ffi::lim_pool(&args, stream) };
    cuda.check(OP, DType::F32, status)?;
    let columns = |&len: &usize| if len > budget { by.columns(len, batch.page_size()) } else { 0 };
    out.note(cuda, batch.lens().iter().map(columns));
    Ok(())
}
