//! See [`Sample`].

use super::check::shape_error;
use super::context::Scratch;
use super::{Cuda, ffi};
use crate::{DType, Error, Result, Sample};

const OP: &str = "sample";

/// Launches `lim_sample`.
pub(super) fn sample(cuda: &mut Cuda, op: Sample<'_, Cuda>) -> Result<()> {
    let Sample { logits, draws, next } = op;
    let rows = next.as_ref().map_or(draws.started, |batch| batch.rows());
    let ([have, width], expected) = (logits.shape(), [rows, draws.vocab]);
    if have < rows || width != draws.vocab {
        return Err(shape_error(OP, "logits", &[have, width], &expected));
    }
    if logits.data().dtype != DType::F32 {
        return Err(Error::DType { op: OP, dtype: logits.data().dtype });
    }
    draws.expect_rows(rows)?;
    if rows == 0 {
        return Ok(());
    }
    let mut args = draws.args();
    args.logits = logits.data().data.ptr().cast_const().cast();
    args.rows = rows as i32;
    if let Some(batch) = next {
        batch.expect_decode(OP)?;
        cuda.note_batch_written();
        [args.next_token, args.next_pos, args.next_len] = batch.next();
    }
    // SAFETY: computes a size from a number.
    args.scratch_bytes = unsafe { ffi::lim_sample_scratch(args.rows) };
    args.scratch = cuda.scratch(Scratch::Common, args.scratch_bytes as usize)?.cast();
    let stream = cuda.launch_stream()?;
    // SAFETY: device memory of `rows` and `rows * vocab` elements, as checked and made; results go to page-locked memory of
    // `LIM_DRAW_SLOTS * stride` elements.
    let status = unsafe { ffi::lim_sample(&args, stream) };
    cuda.check(OP, DType::F32, status)
}
