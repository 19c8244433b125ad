//! One layer's attention in a decode step: the one place that looks at a layer's role.

use lim_kernels::{
    Attend, Backend, Capacity, GateScore, Heads, NormGateUp, Over, PageGates, Pool, Pooling, Score, ScoreOf,
    Select, Tensor,
};

use crate::{Attention, Choice, Error, Own, Result, Role, Scoring, settings::Sparse};

/// Scores and selection of a decode step. Made once; the selection that a select layer leaves here is what the
/// layers after it read.
pub struct Buffers<B: Backend> {
    sparse: Option<SparseBuffers<B>>,
}

struct SparseBuffers<B: Backend> {
    /// Choice and K that the buffers were made for.
    made_for: (Choice, usize),
    /// `[seqs][H or kv heads][tokens or pages]`, for choices that rank.
    scores: Option<(Scoring, B::Scores)>,
    /// `[seqs][rows][tokens or pages]`, for choices that rank pooled weights.
    pooled: Option<(Pooling, B::Scores)>,
    /// `[seqs][sets][<= K]`.
    selection: B::Selection,
}

impl<B: Backend> Buffers<B> {
    /// Room for what `attention` needs in steps of up to `capacity`: nothing for `full`.
    ///
    /// # Errors
    /// When the backend has not the memory.
    pub fn new(backend: &mut B, attention: &Attention, capacity: Capacity, heads: Heads) -> Result<Self> {
        let Some(Sparse { rule, quota, .. }) = attention.sparse() else {
            return Ok(Buffers { sparse: None });
        };
        let (choice, budget) = (rule.choice, quota.budget());
        let scores = match choice.scores() {
            Some(by) => Some((by, backend.pooled(capacity, by.rows(heads))?)),
            None => None,
        };
        let pooled = match choice.pooling() {
            Some(by) => Some((by, backend.pooled(capacity, by.rows(heads))?)),
            None => None,
        };
        let selection = backend.selection(capacity, heads, choice.sets(), budget)?;
        Ok(Buffers { sparse: Some(SparseBuffers { made_for: (choice, budget), scores, pooled, selection }) })
    }

    /// The last selection; `None` for `full`.
    pub fn selection(&self) -> Option<&B::Selection> {
        self.sparse.as_ref().map(|s| &s.selection)
    }

    /// Scores of the last layer that selected; `None` where the policy ranks nothing.
    pub fn scores(&self) -> Option<&B::Scores> {
        self.sparse.as_ref().and_then(|s| s.scores.as_ref()).map(|(_, scores)| scores)
    }

    fn of<'a>(&mut self, attention: &'a Attention) -> Result<(&'a Sparse, &mut SparseBuffers<B>)> {
        match (attention.sparse(), &mut self.sparse) {
            (Some(sparse), Some(buffers))
                if buffers.made_for == (sparse.rule.choice, sparse.quota.budget()) =>
            {
                Ok((sparse, buffers))
            }
            _ => Err(Error::Buffers { policy: attention.policy() }),
        }
    }
}

/// One layer of a decode step.
pub struct DecodeLayer<'a, B: Backend> {
    /// Head geometry.
    pub heads: Heads,
    /// Softmax scale.
    pub scale: f32,
    /// The step, one row per sequence.
    pub batch: &'a B::Batch,
    /// Cached tokens of the step's longest sequence.
    pub max_len: usize,
    /// Layer number.
    pub layer: usize,
}

impl<B: Backend> Clone for DecodeLayer<'_, B> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<B: Backend> Copy for DecodeLayer<'_, B> {}

/// A layer's attention: [`Attend`] without the choice of tokens.
pub struct DecodeAttend<'a, B: Backend> {
    /// Which layer of which step.
    pub at: DecodeLayer<'a, B>,
    /// Fused rows after `Append`, `[>= rows, (H + 2 kv) * d]`.
    pub q: &'a Tensor<B::Rows, 2>,
    /// This layer's pages.
    pub kv: &'a B::Kv,
    /// This layer's gates, where it has some.
    pub gates: Option<PageGates<'a, B>>,
    /// Counts what was really read and selected.
    pub counters: &'a mut B::Counters,
    /// `[>= rows, H * d]`.
    pub out: &'a mut Tensor<B::Rows, 2>,
}

/// Attends; a layer that reads its own choice selects first. What a layer leaves to later ones, [`gate_up_and_select`]
/// selects.
///
/// # Errors
/// When `buffers` were made for another attention, or the backend fails.
///
/// # Panics
/// When `attention` has no such layer.
pub fn decode_attention<B: Backend>(
    backend: &mut B,
    attention: &Attention,
    buffers: &mut Buffers<B>,
    mut op: DecodeAttend<'_, B>,
) -> Result<()> {
    match attention.role(op.at.layer, op.at.max_len) {
        Role::Dense => op.attend(backend, Over::Dense),
        Role::Reuse => {
            let (_, buffers) = buffers.of(attention)?;
            op.attend(backend, Over::Selected(&buffers.selection))
        }
        Role::Select { own: Own::Dense } => {
            let (sparse, buffers) = buffers.of(attention)?;
            match &mut buffers.scores {
                // The scores come out of the attention itself.
                Some((Scoring::Tokens, scores)) => op.attend(backend, Over::DenseScored(scores)),
                Some((by, scores)) => {
                    op.attend(backend, Over::Dense)?;
                    op.score(backend, *by, sparse, scores)
                }
                None => op.attend(backend, Over::Dense),
            }
        }
        Role::Select { own: Own::Sparse } => {
            let (sparse, buffers) = buffers.of(attention)?;
            if let Some((by, scores)) = &mut buffers.scores {
                op.score(backend, *by, sparse, scores)?;
            }
            let select = op.at.selection(backend, sparse, buffers, op.counters)?;
            backend.select(select)?;
            op.attend(backend, Over::Selected(&buffers.selection))
        }
    }
}

/// `gate_up`, and beside it the selection of what the layers after this one read, where the layer's role says so, by the scores that
/// [`decode_attention`] has left. `counters` count the selections made. On a GPU that goes beside this product and the one
/// before, which takes the layer's attention.
///
/// # Errors
/// When `buffers` were made for another attention, or the backend fails.
///
/// # Panics
/// When `attention` has no such layer.
pub fn gate_up_and_select<B: Backend>(
    backend: &mut B,
    attention: &Attention,
    buffers: &mut Buffers<B>,
    at: DecodeLayer<'_, B>,
    counters: &mut B::Counters,
    gate_up: NormGateUp<'_, B>,
) -> Result<()> {
    if attention.role(at.layer, at.max_len) != (Role::Select { own: Own::Dense }) {
        return Ok(backend.norm_gate_up(gate_up)?);
    }
    let (sparse, buffers) = buffers.of(attention)?;
    let op = at.selection(backend, sparse, buffers, counters)?;
    Ok(backend.select_and_gate_up(op, gate_up)?)
}

impl<B: Backend> DecodeAttend<'_, B> {
    fn attend(&mut self, backend: &mut B, over: Over<'_, B>) -> Result<()> {
        let DecodeAttend { q, kv, at: DecodeLayer { heads, scale, batch, layer, .. }, .. } = *self;
        let (counters, out) = (&mut *self.counters, &mut *self.out);
        Ok(backend.attend(Attend { q, kv, heads, scale, batch, over, layer, counters, out })?)
    }

    fn score(&mut self, backend: &mut B, by: Scoring, sparse: &Sparse, out: &mut B::Scores) -> Result<()> {
        let DecodeAttend { q, kv, gates, at: DecodeLayer { heads, batch, layer, .. }, .. } = *self;
        let (counters, budget) = (&mut *self.counters, sparse.quota.budget());
        let of = match by {
            Scoring::Tokens => ScoreOf::Tokens,
            Scoring::Bounds => ScoreOf::Pages,
            Scoring::Gates => {
                let gates = gates.ok_or(Error::NoGates { policy: sparse.policy, layer })?;
                let op = GateScore { q, gates, kv, heads, batch, budget, layer, counters, out };
                return Ok(backend.gate_score(op)?);
            }
        };
        Ok(backend.score(Score { q, kv, heads, batch, of, budget, layer, counters, out })?)
    }
}

impl<'a, B: Backend> DecodeLayer<'a, B> {
    /// What there is to select, and from: pools the scores where the choice wants that.
    fn selection(
        self,
        backend: &mut B,
        sparse: &Sparse,
        buffers: &'a mut SparseBuffers<B>,
        counters: &'a mut B::Counters,
    ) -> Result<Select<'a, B>> {
        let DecodeLayer { heads, scale, batch, layer, .. } = self;
        let SparseBuffers { scores, pooled, selection: out, .. } = buffers;
        let mut ranked = scores.as_ref().map(|(_, scores)| scores);
        if let (Some(scores), Some((by, out))) = (ranked, pooled) {
            let budget = sparse.quota.budget();
            backend.pool(Pool { scores, scale, heads, batch, by: *by, budget, out })?;
            ranked = Some(out);
        }
        let pick = sparse.rule.choice.pick(ranked, sparse.mass(scale));
        let pick = pick.ok_or(Error::Buffers { policy: sparse.policy })?;
        Ok(Select { pick, quota: sparse.quota, heads, batch, layer, counters, out })
    }
}
