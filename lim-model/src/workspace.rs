//! Everything a step writes besides the KV cache, allocated once.

use lim_kernels::{Backend, Capacity, PageSize, RowsKind, Tensor};

use crate::{Config, Result};

/// Activations of a step, its place on the device, and the counters.
pub struct Workspace<B: Backend> {
    pub(crate) batch: B::Batch,
    /// Residual stream, `[rows, hidden]`.
    pub(crate) x: Tensor<B::Rows, 2>,
    /// Fused queries, keys and values, `[rows, (H + 2 kv) * d]`.
    pub(crate) qkv: Tensor<B::Rows, 2>,
    /// Output of the attention, `[rows, H * d]`.
    pub(crate) attended: Tensor<B::Rows, 2>,
    /// Gated activations of the feed-forward layer, `[rows, intermediate]`.
    pub(crate) gated: Tensor<B::Rows, 2>,
    /// `[seqs, vocab]`.
    pub(crate) logits: Tensor<B::Rows, 2>,
    /// For `seqs` rows.
    pub(crate) draws: B::Draws,
    /// The last thing that used `batch` and `draws` was a decode step, and both stand where the next one goes on.
    pub(crate) continues: bool,
    /// What decode attention read.
    pub(crate) counters: B::Counters,
    /// What prefill attention read. Kept apart: a prefill chunk of one row looks like a decode step to a kernel.
    pub(crate) prefill_counters: B::Counters,
}

impl<B: Backend> Workspace<B> {
    /// Buffers for steps of up to `capacity`; logits for `capacity.seqs` rows.
    ///
    /// # Errors
    /// When the backend has not the memory.
    pub fn new(backend: &mut B, config: &Config, capacity: Capacity, page_size: PageSize) -> Result<Self> {
        let Capacity { rows, seqs, .. } = capacity;
        let heads = config.heads;
        let mut activation = |width| backend.rows(RowsKind::Activation, [rows, width]);
        Ok(Workspace {
            qkv: activation(heads.qkv_width())?,
            attended: activation(heads.query() * heads.dim())?,
            gated: activation(config.intermediate)?,
            x: backend.rows(RowsKind::Residual, [rows, config.hidden])?,
            logits: backend.rows(RowsKind::Logits, [seqs, config.vocab])?,
            draws: backend.draws(seqs, config.vocab)?,
            continues: false,
            batch: backend.batch(capacity, page_size)?,
            counters: backend.counters(config.layers)?,
            prefill_counters: backend.counters(config.layers)?,
        })
    }

    /// Logits of the last draw, `[seqs, vocab]`.
    pub fn logits(&self) -> &Tensor<B::Rows, 2> {
        &self.logits
    }
}
