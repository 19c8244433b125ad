//! See [`KeyGates`] and [`GateScore`].

use super::attend::query_rows;
use super::check::{int, shape_error};
use super::context::Scratch;
use super::{Cuda, CudaBatch, CudaLinear, CudaRope, ffi};
use crate::{Error, GateScore, KeyGates, KvLayout, Result, ScoreOf};

/// Launches `lim_key_gates`.
pub(super) fn key_gates(cuda: &mut Cuda, op: KeyGates<'_, Cuda>) -> Result<()> {
    const OP: &str = "key gates";
    let KeyGates { gates, batch, kv } = op;
    let layout = kv.layout();
    kv.expect(OP, layout.heads, batch)?;
    expect_weight(OP, "key weight", gates.k, layout, 3 * layout.heads.dim())?;
    expect_rope(OP, gates.rope, layout, batch)?;
    let raw = kv.raw();
    expect_gates(OP, &raw)?;
    let args = ffi::lim_key_gates_args {
        kv: raw,
        batch: batch.raw(),
        w: gates.k.weight.ptr().cast(),
        cos: gates.rope.cos.ptr(),
        sin: gates.rope.sin.ptr(),
        positions: int(gates.rope.positions),
    };
    let stream = cuda.launch_stream()?;
    // SAFETY: every pointer is device memory of the extents checked above, alive in `op`; the context is current.
    let status = unsafe { ffi::lim_key_gates(&args, stream) };
    cuda.check(OP, layout.dtype, status)
}

/// Launches `lim_gate_score`.
pub(super) fn gate_score(cuda: &mut Cuda, op: GateScore<'_, Cuda>) -> Result<()> {
    const OP: &str = "gate score";
    let GateScore { q, gates, kv, heads, batch, budget, layer, counters, out } = op;
    let layout = kv.layout();
    kv.expect(OP, heads, batch)?;
    batch.expect_decode(OP)?;
    expect_rope(OP, gates.rope, layout, batch)?;
    out.expect_rows(OP, heads.kv(), batch, ScoreOf::Pages)?;
    let (queries, q_stride) = query_rows(OP, q, heads, batch, layout.dtype)?;
    expect_weight(OP, "query weight", gates.q, layout, heads.group() * heads.dim())?;
    let raw = kv.raw();
    expect_gates(OP, &raw)?;
    let mut args = ffi::lim_gate_score_args {
        kv: raw,
        batch: batch.raw(),
        q: queries,
        w: gates.q.weight.ptr().cast(),
        cos: gates.rope.cos.ptr(),
        sin: gates.rope.sin.ptr(),
        scores: out.raw(),
        counters: counters.attended(OP, layer, heads.query())?,
        scratch: std::ptr::null_mut(),
        scratch_bytes: 0,
        positions: int(gates.rope.positions),
        heads: int(heads.query()),
        q_stride,
        budget: int(budget),
    };
    // SAFETY: reads the plain values of `args` alone.
    args.scratch_bytes = unsafe { ffi::lim_gate_score_scratch(&args) };
    args.scratch = cuda.scratch(Scratch::Common, args.scratch_bytes as usize)?.cast();
    let stream = cuda.launch_stream()?;
    // SAFETY: every pointer is device memory of the extents checked above, alive in `op`; the context is current.
    let status = unsafe { ffi::lim_gate_score(&args, stream) };
    cuda.check(OP, layout.dtype, status)?;
    let pages = |&len: &usize| if len > budget { batch.page_size().pages_for(len) } else { 0 };
    out.note(cuda, batch.lens().iter().map(pages));
    Ok(())
}

/// Checks that `linear` is `[kv_heads * d, inputs]` of the pages' type, without bias.
fn expect_weight(
    op: &'static str,
    operand: &'static str,
    linear: &CudaLinear,
    layout: KvLayout,
    inputs: usize,
) -> Result<()> {
    let need = [layout.token_width(), inputs];
    if linear.shape != need {
        return Err(shape_error(op, operand, &linear.shape, &need));
    }
    if linear.bias.is_some() {
        let (what, must) = ("parts of a gate's weight", "1, without bias".into());
        return Err(Error::Range { op, what, got: 1, must });
    }
    if linear.dtype != layout.dtype {
        return Err(Error::DType { op, dtype: linear.dtype });
    }
    Ok(())
}

/// Checks that the tables turn these heads at every position that the batch may come to.
fn expect_rope(op: &'static str, rope: &CudaRope, layout: KvLayout, batch: &CudaBatch) -> Result<()> {
    if rope.half * 2 != layout.heads.dim() {
        return Err(shape_error(op, "rope", &[rope.half], &[layout.heads.dim() / 2]));
    }
    // Against the capacity: a recorded step is replayed with longer sequences.
    let longest = batch.capacity().tokens;
    if longest > rope.positions {
        let must = format!("at most the rope tables' {}", rope.positions);
        return Err(Error::Range { op, what: "sequence length", got: longest as u64, must });
    }
    Ok(())
}

fn expect_gates(op: &'static str, kv: &ffi::lim_kv) -> Result<()> {
    if kv.gates.is_null() {
        let must = "the number of its pages: made with gates".into();
        return Err(Error::Range { op, what: "page gates kept by the pages", got: 0, must });
    }
    Ok(())
}
