//! See [`Append`].

use super::attend::activation;
use super::check::{expect_rows, int, shape_error};
use super::{Cuda, ffi};
use crate::{Append, Error, Result};

const OP: &str = "append";

/// Launches `lim_append`.
pub(super) fn append(cuda: &mut Cuda, op: Append<'_, Cuda>) -> Result<()> {
    let Append { qkv, qk_norm, eps, rope, batch, kv } = op;
    let layout = kv.layout();
    let heads = layout.heads;
    kv.expect(OP, heads, batch)?;
    expect_rows(OP, "qkv", qkv, [batch.rows(), heads.qkv_width()])?;
    activation(OP, qkv.data(), layout.dtype)?;
    for (operand, norm) in qk_norm.iter().flat_map(|(q, k)| [("q_norm", q), ("k_norm", k)]) {
        if norm.data.len() != heads.dim() {
            return Err(shape_error(OP, operand, &[norm.data.len()], &[heads.dim()]));
        }
    }
    if rope.half * 2 != heads.dim() {
        return Err(shape_error(OP, "rope", &[rope.half], &[heads.dim() / 2]));
    }
    // Against the capacity: a recorded step is replayed with longer sequences.
    let longest = batch.capacity().tokens;
    if longest > rope.positions {
        let must = format!("at most the rope tables' {}", rope.positions);
        return Err(Error::Range { op: OP, what: "sequence length", got: longest as u64, must });
    }
    let norm = |pick: fn((&super::CudaVector, &super::CudaVector)) -> *const f32| {
        qk_norm.map_or(std::ptr::null(), pick)
    };
    let early = cuda.may_read_early();
    let args = ffi::lim_append_args {
        kv: kv.raw(),
        batch: batch.raw(),
        qkv: qkv.data().data.ptr().cast(),
        q_norm: norm(|(q, _)| q.data.ptr()),
        k_norm: norm(|(_, k)| k.data.ptr()),
        cos: rope.cos.ptr(),
        sin: rope.sin.ptr(),
        positions: int(rope.positions),
        heads: int(heads.query()),
        early: i32::from(early),
        eps,
    };
    let stream = cuda.launch_stream()?;
    // SAFETY: every pointer is device memory of the extents checked above, alive in `op`; the context is current.
    let status = unsafe { ffi::lim_append(&args, stream) };
    cuda.note_append(early);
    cuda.check(OP, layout.dtype, status)
}
