//! See [`Append`].

use super::attend::{activation, int, same_heads, width};
use super::{Cuda, ffi};
use crate::{Append, Error, Result};

const OP: &str = "append";

/// Launches `lim_append`.
pub(super) fn append(cuda: &mut Cuda, op: Append<'_, Cuda>) -> Result<()> {
    let Append { qkv, qk_norm, eps, rope, batch, kv } = op;
    let layout = kv.layout();
    let qkv_width = qkv.shape()[1];
    let dim = layout.heads.dim();
    let query = (qkv_width / dim).saturating_sub(2 * layout.heads.kv());
    let heads = crate::Heads::new(query, layout.heads.kv(), dim)?;
    same_heads(OP, heads, layout.heads)?;
    width(OP, "qkv rows", qkv.shape(), [batch.rows(), heads.qkv_width()])?;
    activation(OP, qkv.data(), layout.dtype)?;
    for norm in qk_norm.iter().flat_map(|(q, k)| [q, k]) {
        if norm.data.len() != dim {
            let (got, expected) = (vec![norm.data.len()], vec![dim]);
            return Err(Error::Shape { op: OP, operand: "head norm", got, expected });
        }
    }
    if rope.half * 2 != dim || rope.positions < batch.capacity().tokens {
        let (got, expected) = (vec![rope.positions, rope.half], vec![batch.capacity().tokens, dim / 2]);
        return Err(Error::Shape { op: OP, operand: "rotary tables", got, expected });
    }
    let norm = |pick: fn((&super::CudaVector, &super::CudaVector)) -> *const f32| {
        qk_norm.map_or(std::ptr::null(), pick)
    };
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
        eps,
    };
    let stream = cuda.launch_stream()?;
    // SAFETY: every pointer is device memory of the extents checked above, alive in `op`; the context is current.
    let status = unsafe { ffi::lim_append(&args, stream) };
    cuda.note_append();
    cuda.check(OP, layout.dtype, status)
}
