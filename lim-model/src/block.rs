//! The one transformer block. Families differ by what their config switches on: qk-norm, biases.

use lim_kernels::{
    Append, Attend, Backend, HostTensor, KeyGates, LinearAdd, NormGateUp, NormLinear, Over, PageGates, Tensor,
};
use lim_select::{Buffers, DecodeAttend, DecodeLayer, decode_attention, gate_up_and_select};

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

/// What one block needs of a step besides its weights.
pub(crate) struct BlockPass<'a, B: Backend> {
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

    /// `x += attention(norm(x)); x += mlp(norm(x))` on the workspace's residual stream.
    pub(crate) fn forward(&self, backend: &mut B, pass: BlockPass<'_, B>) -> Result<()> {
        let BlockPass { config, rope, phase, layer, max_len, kv, keep_gates, attention, buffers, workspace } =
            pass;
        let Workspace { batch, x, qkv, attended, gated, counters, prefill_counters, .. } = workspace;
        let (batch, eps) = (&*batch, config.rms_norm_eps);

        let (norm, linear) = (&self.attention_norm, &self.qkv);
        backend.norm_linear(NormLinear { x, norm, eps, linear, batch, out: qkv })?;
        self.append(backend, Rows { config, rope, batch, qkv, kv, keep_gates })?;
        let (heads, scale) = (config.heads, 1.0 / (config.heads.dim() as f32).sqrt());
        let (q, out) = (&*qkv, &mut *attended);
        let at = DecodeLayer { heads, scale, batch, max_len, layer };
        match phase {
            Phase::Prefill => {
                let (over, counters) = (Over::Dense, prefill_counters);
                backend.attend(Attend { q, kv, heads, scale, batch, over, layer, counters, out })?;
            }
            Phase::Decode => {
                let gates = self.gates(rope);
                let op = DecodeAttend { at, q, kv, gates, counters, out };
                decode_attention(backend, attention, buffers, op)?;
            }
        }
        backend.linear_add(LinearAdd { a: attended, linear: &self.o, batch, x })?;

        let gate_up = NormGateUp { x, norm: &self.mlp_norm, eps, gate_up: &self.gate_up, batch, out: gated };
        match phase {
            Phase::Prefill => backend.norm_gate_up(gate_up)?,
            Phase::Decode => gate_up_and_select(backend, attention, buffers, at, counters, gate_up)?,
        }
        backend.linear_add(LinearAdd { a: gated, linear: &self.down, batch, x })?;
        Ok(())
    }

    /// Norms and rotates the fused rows and writes their keys and values to the pages, and the gates of pages that they
    /// fill.
    pub(crate) fn append(&self, backend: &mut B, rows: Rows<'_, B>) -> Result<()> {
        let Rows { config, rope, batch, qkv, kv, keep_gates } = rows;
        let qk_norm = self.qk_norm.as_ref().map(|(q, k)| (q, k));
        backend.append(Append { qkv, qk_norm, eps: config.rms_norm_eps, rope, batch, kv: &mut *kv })?;
        if keep_gates && let Some(gates) = self.gates(rope) {
            backend.key_gates(KeyGates { gates, batch, kv })?;
        }
        Ok(())
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
    /// Whether the pages keep gates.
    pub(crate) keep_gates: bool,
}
