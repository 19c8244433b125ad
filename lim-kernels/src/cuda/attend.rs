//! See [`Attend`].

use super::check::{expect_rows, int};
use super::context::{Last, Scratch};
use super::{Cuda, CudaBatch, CudaRows, ffi};
use crate::{Attend, DType, Error, Heads, Over, Result, ScoreOf, Tensor};

const OP: &str = "attend";
/// Chunks of a sequence where their number may not depend on that of the sequences.
const SPLITS: i32 = 8;

/// Launches `lim_attend` for a decode step, `lim_prefill` otherwise.
pub(super) fn attend(cuda: &mut Cuda, op: Attend<'_, Cuda>) -> Result<()> {
    let Attend { q, kv, heads, scale, batch, over, layer, counters, out } = op;
    let layout = kv.layout();
    kv.expect(OP, heads, batch)?;
    expect_rows(OP, "out", out, [batch.rows(), heads.query() * heads.dim()])?;
    activation(OP, out.data(), layout.dtype)?;
    let (queries, q_stride) = query_rows(OP, q, heads, batch, layout.dtype)?;
    if !batch.is_decode() {
        return match over {
            Over::Dense => {
                prefill(cuda, op_args(kv.raw(), batch, queries, q_stride, heads, scale, out), layout.dtype)
            }
            _ => batch.expect_decode(OP),
        };
    }
    let mut args = ffi::lim_attend_args {
        kv: kv.raw(),
        batch: batch.raw(),
        q: queries,
        out: out.data().data.ptr().cast(),
        scores: ffi::lim_scores { data: std::ptr::null_mut(), stride: 0 },
        selection: NO_SELECTION,
        counters: counters.attended(OP, layer, heads.query())?,
        scratch: std::ptr::null_mut(),
        scratch_bytes: 0,
        heads: int(heads.query()),
        q_stride,
        splits: if cuda.is_batch_invariant() { SPLITS } else { 0 },
        early: i32::from(cuda.last() == Last::Append),
        scale,
    };
    let mut scored = None;
    match over {
        Over::Dense => {}
        Over::DenseScored(scores) => {
            scores.expect(OP, heads, batch, ScoreOf::Tokens)?;
            args.scores = scores.raw();
            scored = Some(scores);
        }
        Over::Selected(selection) => {
            selection.expect(OP, heads, batch)?;
            args.selection = selection.raw();
        }
    }
    // SAFETY: reads the plain values of `args` alone.
    let bytes = unsafe { ffi::lim_attend_scratch(&args) };
    match usize::try_from(bytes) {
        Ok(bytes) => args.scratch = cuda.scratch(Scratch::Attend, bytes)?.cast(),
        Err(_) => return cuda.check(OP, layout.dtype, bytes as i32),
    }
    args.scratch_bytes = bytes;
    let stream = cuda.launch_stream()?;
    // SAFETY: every pointer is device memory of the extents checked above, alive in `op`; the context is current.
    let status = unsafe { ffi::lim_attend(&args, stream) };
    cuda.note_attend(scored.is_some());
    cuda.check(OP, layout.dtype, status)?;
    if let Some(scores) = scored {
        scores.note(cuda, batch.lens().iter().copied());
    }
    Ok(())
}

const NO_SELECTION: ffi::lim_selection = ffi::lim_selection {
    ids: std::ptr::null_mut(),
    count: std::ptr::null_mut(),
    sets: 0,
    kind: ffi::LIM_SHARED,
    capacity: 0,
};

fn op_args(
    kv: ffi::lim_kv,
    batch: &CudaBatch,
    q: *const std::ffi::c_void,
    q_stride: i32,
    heads: Heads,
    scale: f32,
    out: &Tensor<CudaRows, 2>,
) -> ffi::lim_prefill_args {
    let out = out.data().data.ptr().cast();
    ffi::lim_prefill_args { kv, batch: batch.raw(), q, out, heads: int(heads.query()), q_stride, scale }
}

fn prefill(cuda: &mut Cuda, args: ffi::lim_prefill_args, dtype: DType) -> Result<()> {
    let stream = cuda.launch_stream()?;
    // SAFETY: every pointer is device memory of the extents that `attend` checked, alive in its argument; the context
    // is current.
    let status = unsafe { ffi::lim_prefill(&args, stream) };
    cuda.check("prefill attention", dtype, status)
}

/// Address of the queries and elements from one row to the next.
pub(super) fn query_rows(
    op: &'static str,
    q: &Tensor<CudaRows, 2>,
    heads: Heads,
    batch: &CudaBatch,
    dtype: DType,
) -> Result<(*const std::ffi::c_void, i32)> {
    let [rows, stride] = q.shape();
    if rows < batch.rows() || stride < heads.query() * heads.dim() {
        let expected = vec![batch.rows(), heads.query() * heads.dim()];
        return Err(Error::Shape { op, operand: "query rows", got: vec![rows, stride], expected });
    }
    activation(op, q.data(), dtype)?;
    Ok((q.data().data.ptr().cast_const().cast(), int(stride)))
}

/// Rows are of the cache's element type.
pub(super) fn activation(op: &'static str, rows: &CudaRows, dtype: DType) -> Result<()> {
    if rows.dtype == dtype { Ok(()) } else { Err(Error::DType { op, dtype: rows.dtype }) }
}
