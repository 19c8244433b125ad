//! The one transformer block. Families differ by what their config switches on: qk-norm, biases.

use lim_kernels::{
    Append, Attend, Backend, FeedForward, HostTensor, KeyGates, Over, PageGates, Projection, Tensor,
};
use lim_select::{Buffers, DecodeAttend, decode_attention};

use crate::{Config, LayerWeights, Result, Workspace};

/// A block's weights on a device.
pub(crate) struct Block<B: Backend> {
    attention_norm: B::Vector,
    /// `[(H + 2 kv) * d, hidden]`, of parts q, k, v.
    qkv: B::Linear,
    qk_norm: Option<(B::Vector, B::Vector)>,
    /// `[hidden, H * d]`.
    o: B::Linear,
    mlp_norm: B::Vector,
    /// `[2 * intermediate, hidden]`, of parts gate, up.
    gate_up: B::Linear,
    /// `[hidden, intermediate]`.
    down: B::Linear,
    /// Of queries and of keys: [`PageGates`].
    pub(crate) gates: Option<[B::Linear; 2]>,
}

/// What the rows of a step attend to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Everything before them: rows of prompts.
    Prefill,
    /// By the layers' roles: one row per sequence.
    Decode,
}

/// What a block's attention needs of a step besides its weights.
pub(crate) struct AttentionPass<'a, B: Backend> {
    pub(crate) config: &'a Config,
    pub(crate) rope: &'a B::Rope,
    pub(crate) phase: Phase,
    pub(crate) layer: usize,
    /// Cached tokens of the step's longest sequence.
    pub(crate) max_len: usize,
    pub(crate) kv: &'a mut B::Kv,
    /// Whether the pages keep gates.
    pub(crate) keep_gates: bool,
    pub(crate) attention: &'a lim_select::Attention,
    /// Carries the selection from a select layer to the layers that reuse it.
    pub(crate) buffers: &'a mut Buffers<B>,
    pub(crate) workspace: &'a mut Workspace<B>,
}

impl<B: Backend> Block<B> {
    pub(crate) fn new(backend: &mut B, weights: LayerWeights) -> Result<Self> {
        let LayerWeights { attention_norm, attention, mlp_norm, gate, up, down } = weights;
        let mut vector = |v: &HostTensor<1>| backend.vector(v);
        let qk_norm = match &attention.qk_norm {
            Some((q, k)) => Some((vector(q)?, vector(k)?)),
            None => None,
        };
        Ok(Block {
            attention_norm: vector(&attention_norm)?,
            mlp_norm: vector(&mlp_norm)?,
            qk_norm,
            qkv: backend.linear(&[attention.q, attention.k, attention.v])?,
            o: backend.linear(&[attention.o])?,
            gate_up: backend.linear(&[gate, up])?,
            down: backend.linear(&[down])?,
            gates: None,
        })
    }

    /// What opens the block: its fused rows, normed, rotated, and written to its pages.
    pub(crate) fn projection<'a>(&'a self, rows: Rows<'a, B>) -> Projection<'a, B> {
        let eps = rows.config.rms_norm_eps;
        Projection { norm: &self.attention_norm, eps, linear: &self.qkv, append: self.append(rows) }
    }

    /// The fused rows' way into the pages.
    pub(crate) fn append<'a>(&'a self, rows: Rows<'a, B>) -> Append<'a, B> {
        let Rows { config, rope, batch, qkv, kv } = rows;
        let qk_norm = self.qk_norm.as_ref().map(|(q, k)| (q, k));
        Append { qkv, qk_norm, eps: config.rms_norm_eps, rope, batch, kv }
    }

    /// The gates of pages that a step has filled, where the pages keep them.
    pub(crate) fn key_gates(
        &self,
        backend: &mut B,
        rope: &B::Rope,
        batch: &B::Batch,
        kv: &mut B::Kv,
    ) -> Result<()> {
        match self.gates(rope) {
            Some(gates) => Ok(backend.key_gates(KeyGates { gates, batch, kv })?),
            None => Ok(()),
        }
    }

    /// Attention of rows that the block's projection has prepared.
    pub(crate) fn attend(&self, backend: &mut B, pass: AttentionPass<'_, B>) -> Result<()> {
        let AttentionPass {
            config,
            rope,
            phase,
            layer,
            max_len,
            kv,
            keep_gates,
            attention,
            buffers,
            workspace,
        } = pass;
        let Workspace { batch, qkv, attended, counters, prefill_counters, .. } = workspace;
        let batch = &*batch;
        if keep_gates {
            self.key_gates(backend, rope, batch, kv)?;
        }
        let (heads, scale) = (config.heads, 1.0 / (config.heads.dim() as f32).sqrt());
        let (q, out) = (&*qkv, attended);
        match phase {
            Phase::Prefill => {
                let (over, counters) = (Over::Dense, prefill_counters);
                Ok(backend.attend(Attend { q, kv, heads, scale, batch, over, layer, counters, out })?)
            }
            Phase::Decode => {
                let gates = self.gates(rope);
                let op = DecodeAttend { q, kv, gates, heads, scale, batch, max_len, layer, counters, out };
                Ok(decode_attention(backend, attention, buffers, op)?)
            }
        }
    }

    /// From the attention's output to the end of the block, and the next one's projection: `next` is that block with its
    /// pages.
    pub(crate) fn feed_forward(
        &self,
        backend: &mut B,
        config: &Config,
        rope: &B::Rope,
        next: Option<(&Block<B>, &mut B::Kv)>,
        workspace: &mut Workspace<B>,
    ) -> Result<()> {
        let Workspace { batch, x, qkv, attended, gated, .. } = workspace;
        let batch = &*batch;
        let next = next.map(|(block, kv)| block.projection(Rows { config, rope, batch, qkv, kv }));
        let (o, norm, gate_up, down) = (&self.o, &self.mlp_norm, &self.gate_up, &self.down);
        let eps = config.rms_norm_eps;
        let op = FeedForward { attended, o, norm, eps, gate_up, gated, down, next, batch, x };
        Ok(backend.feed_forward(op)?)
    }

    fn gates<'a>(&'a self, rope: &'a B::Rope) -> Option<PageGates<'a, B>> {
        self.gates.as_ref().map(|[q, k]| PageGates { q, k, rope })
    }
}

/// Fused rows on their way to the pages.
pub(crate) struct Rows<'a, B: Backend> {
    pub(crate) config: &'a Config,
    pub(crate) rope: &'a B::Rope,
    pub(crate) batch: &'a B::Batch,
    /// `[>= rows, (H + 2 kv) * d]`.
    pub(crate) qkv: &'a mut Tensor<B::Rows, 2>,
    pub(crate) kv: &'a mut B::Kv,
}
