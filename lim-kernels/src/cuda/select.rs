//! See [`Select`].

use super::check::{int, shape_error};
use super::context::{Last, Scratch};
use super::{Cuda, CudaBatch, CudaScores, ffi, linear};
use crate::softmax::{fixed_share, log2_scale};
use crate::{DType, NormGateUp, Pick, Result, ScoreOf, Select, Sets};

const OP: &str = "select";

/// Launches `lim_select`.
pub(super) fn select(cuda: &mut Cuda, op: Select<'_, Cuda>) -> Result<()> {
    let args = arguments(cuda, &op)?;
    finish(cuda, op, args)
}

/// Begins the selection beside the product before, where that one lets it, and ends it as the blocks of gate and up leave, which
/// wait for its beginning alone. Any other selection comes before gate and up.
pub(super) fn select_and_gate_up(
    cuda: &mut Cuda,
    op: Select<'_, Cuda>,
    gate_up: NormGateUp<'_, Cuda>,
) -> Result<()> {
    if !cuda.may_read_early() || !matches!(op.pick, Pick::Union(_)) {
        select(cuda, op)?;
        return linear::norm_gate_up(cuda, gate_up);
    }
    let mut args = arguments(cuda, &op)?;
    let stream = cuda.launch_stream()?;
    // SAFETY: every pointer is device memory of the extents that `arguments` checked, alive in `op`; the context is current.
    let status = unsafe { ffi::lim_select_begin(&args, stream) };
    cuda.note_next_waits();
    cuda.check(OP, DType::F32, status)?;
    let product = linear::norm_gate_up(cuda, gate_up);
    // Where the product was refused, too: what was begun has to end before the next selection.
    args.begun = 1;
    args.early = i32::from(cuda.may_read_early());
    finish(cuda, op, args)?;
    product
}

/// Launches all that was not begun.
fn finish(cuda: &mut Cuda, op: Select<'_, Cuda>, args: ffi::lim_select_args) -> Result<()> {
    let stream = cuda.launch_stream()?;
    // SAFETY: every pointer is device memory of the extents that `arguments` checked, alive in `op`; the context is current.
    let status = unsafe { ffi::lim_select(&args, stream) };
    if args.begun != 0 && args.early != 0 {
        cuda.note_next_waits();
    }
    cuda.check(OP, DType::F32, status)?;
    op.out.note(op.batch);
    Ok(())
}

/// The checked arguments of a selection that starts here, with scratch.
fn arguments(cuda: &mut Cuda, op: &Select<'_, Cuda>) -> Result<ffi::lim_select_args> {
    let Select { ref pick, quota, heads, batch, layer, .. } = *op;
    batch.expect_decode(OP)?;
    let counters = op.counters.layer(OP, layer)?;
    let (rule, scores, sets) = match *pick {
        Pick::Union(scores) => (ffi::LIM_PICK_UNION, Some(scores), Sets::Shared),
        Pick::Mass { scores, .. } => (ffi::LIM_PICK_MASS, Some(scores), Sets::Shared),
        Pick::Best(scores, sets) => (ffi::LIM_PICK_ROWS, Some(scores), sets),
        Pick::Pages(scores, sets) => (ffi::LIM_PICK_PAGES, Some(scores), sets),
        Pick::Nothing => (ffi::LIM_PICK_NOTHING, None, Sets::Shared),
    };
    let (scale_log2, share) = match *pick {
        Pick::Mass { scale, share, .. } => (log2_scale(OP, scale)?, fixed_share(OP, share)?),
        _ => (0.0, 0),
    };
    // Rules that make one set of all heads take a row a query head.
    let rows = match *pick {
        Pick::Best(..) | Pick::Pages(..) => sets.count(heads),
        Pick::Union(_) | Pick::Mass { .. } | Pick::Nothing => heads.query(),
    };
    op.out.expect_room(OP, sets, heads, quota.budget())?;
    op.out.expect_step(OP, batch)?;
    if let Some(scores) = scores {
        expect_scored(scores, rule, quota.budget(), rows, batch)?;
    }
    let (firsts, firsts_stride) = op.out.firsts();
    let early = cuda.may_read_early();
    let beside = early && cuda.last() == Last::Beside;
    let mut args = ffi::lim_select_args {
        scores: scores.map_or(ffi::lim_scores { data: std::ptr::null_mut(), stride: 4 }, |s| s.raw()),
        batch: batch.raw(),
        out: op.out.raw(),
        counters,
        firsts,
        firsts_stride,
        scratch: std::ptr::null_mut(),
        scratch_bytes: 0,
        share,
        scale_log2,
        rule,
        rows: int(rows),
        sinks: int(quota.sinks),
        history: int(quota.history),
        window: int(quota.window),
        page_size: int(batch.page_size().tokens()),
        early: i32::from(early),
        beside: i32::from(beside),
        begun: 0,
    };
    // SAFETY: reads the plain values of `args` alone.
    args.scratch_bytes = unsafe { ffi::lim_select_scratch(&args) };
    args.scratch = cuda.scratch(Scratch::Select, args.scratch_bytes as usize)?.cast();
    Ok(args)
}

/// Checks that every sequence beyond the budget has the scores that the rule takes.
fn expect_scored(
    scores: &CudaScores,
    rule: i32,
    budget: usize,
    rows: usize,
    batch: &CudaBatch,
) -> Result<()> {
    let of = if rule == ffi::LIM_PICK_PAGES { ScoreOf::Pages } else { ScoreOf::Tokens };
    scores.expect_rows(OP, rows, batch, of)?;
    for (seq, &len) in batch.lens().iter().enumerate().filter(|(_, len)| **len > budget) {
        let need = if rule == ffi::LIM_PICK_PAGES { batch.page_size().pages_for(len) } else { len };
        if scores.count(seq) != need {
            return Err(shape_error(OP, "scores of a sequence", &[scores.count(seq)], &[need]));
        }
    }
    Ok(())
}
