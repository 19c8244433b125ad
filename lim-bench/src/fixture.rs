//! Synthetic weights and filled caches, the same for every backend.

use half::{bf16, f16};
use lim_kernels::{
    Append, Attend, Backend, Capacity, DType, HostTensor, KvLayout, LinearAdd, Over, PageExtras, PageSize,
    Pick, Quota, Result, RowsKind, Score, ScoreOf, Select, Sets, Step, Tensor,
};

/// Numbers from -1 to 1 of a linear congruential generator: any will do, but not all the same.
pub struct Noise(u32);

impl Noise {
    /// A stream of its own for each seed.
    pub fn new(seed: u32) -> Self {
        Noise(seed)
    }

    /// The next number.
    pub fn number(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (self.0 >> 8) as f32 / (1 << 23) as f32 - 1.0
    }

    /// As many.
    pub fn numbers(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.number()).collect()
    }
}

/// A random weight `[out, in]`.
pub fn weight(dtype: DType, shape: [usize; 2]) -> HostTensor<2> {
    let mut noise = Noise::new(1);
    let mut bytes = Vec::with_capacity(shape[0] * shape[1] * dtype.bytes());
    for _ in 0..shape[0] * shape[1] {
        let x = noise.number() * 0.05;
        match dtype {
            DType::F32 => bytes.extend(x.to_le_bytes()),
            DType::F16 => bytes.extend(f16::from_f32(x).to_le_bytes()),
            DType::BF16 => bytes.extend(bf16::from_f32(x).to_le_bytes()),
        }
    }
    HostTensor { dtype, shape, bytes: bytes.into() }
}

/// Some weights of one shape, read one after the other so that none is in the cache, and rows to put through.
pub struct Layers<B: Backend> {
    weights: Vec<B::Linear>,
    batch: B::Batch,
    a: Tensor<B::Rows, 2>,
    x: Tensor<B::Rows, 2>,
}

impl<B: Backend> Layers<B> {
    /// `copies` weights `[out, in]` and `rows` rows.
    ///
    /// # Errors
    /// When the backend cannot hold them.
    pub fn new(b: &mut B, dtype: DType, shape: [usize; 2], copies: usize, rows: usize) -> Result<Self> {
        let host = weight(dtype, shape);
        let weights = (0..copies)
            .map(|_| {
                // A copy of its own for each, or they would share the cache.
                let bytes = host.bytes.as_slice().to_vec().into();
                b.linear(&[(HostTensor { bytes, ..host.clone() }, None)])
            })
            .collect::<Result<_>>()?;
        let page_size = PageSize::default();
        let mut batch = b.batch(Capacity { rows, seqs: 1, tokens: rows }, page_size)?;
        let mut step = Step::default();
        let pages: Vec<u32> = (0..page_size.pages_for(rows) as u32).collect();
        step.push(&vec![0; rows], rows, &pages)?;
        b.upload(&step, &mut batch)?;
        let mut a = b.rows(RowsKind::Activation, [rows, shape[1]])?;
        b.write_rows(&Noise::new(2).numbers(rows * shape[1]), &mut a)?;
        let x = b.rows(RowsKind::Residual, [rows, shape[0]])?;
        Ok(Layers { weights, batch, a, x })
    }

    /// Puts the rows through every weight.
    ///
    /// # Errors
    /// When the backend fails.
    pub fn run(&mut self, b: &mut B) -> Result<()> {
        for linear in &self.weights {
            b.linear_add(LinearAdd { a: &self.a, linear, batch: &self.batch, x: &mut self.x })?;
        }
        Ok(())
    }
}

/// One or more layers' pages filled for some sequences of equal length, with a decode step over them.
pub struct Decode<B: Backend> {
    layers: Vec<B::Kv>,
    layout: KvLayout,
    batch: B::Batch,
    rope: B::Rope,
    q: Tensor<B::Rows, 2>,
    out: Tensor<B::Rows, 2>,
    scores: B::Scores,
    shared: B::Selection,
    per_head: B::Selection,
    counters: B::Counters,
    quota: Quota,
}

/// What [`Decode::run`] does in every layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Dense attention.
    Dense,
    /// Dense attention that keeps the scores.
    DenseScored,
    /// Attention over LessIsMore's selection.
    Shared,
    /// Attention over a set per query head.
    PerQueryHead,
    /// Scores of all tokens.
    ScoreTokens,
    /// Quest's bounds of all pages.
    ScorePages,
    /// LessIsMore's selection from scores.
    SelectUnion,
    /// TidalDecode's selection from scores.
    SelectPerHead,
    /// Append of one token a sequence.
    Append,
}

impl<B: Backend> Decode<B> {
    /// `layers` layers of `seqs` sequences of `len` tokens; selections keep `quota`.
    ///
    /// # Errors
    /// When the backend cannot hold them.
    pub fn new(
        b: &mut B,
        layout: KvLayout,
        layers: usize,
        seqs: usize,
        len: usize,
        quota: Quota,
    ) -> Result<Self> {
        const CHUNK: usize = 64;
        let (heads, page_size) = (layout.heads, layout.page_size);
        let capacity = Capacity { rows: seqs * CHUNK, seqs, tokens: len };
        let pages = page_size.pages_for(len);
        // Pages of the sequences take turns, as they do when sequences grow together.
        let tables: Vec<Vec<u32>> =
            (0..seqs).map(|s| (0..pages).map(|p| (p * seqs + s) as u32).collect()).collect();
        let mut batch = b.batch(capacity, page_size)?;
        let half = heads.dim() / 2;
        let rope = b.rope(&vec![1.0; len * half], &vec![0.0; len * half], half)?;
        let width = heads.qkv_width();
        let (mut noise, mut kvs) = (Noise::new(3), Vec::new());
        for _ in 0..layers {
            let mut kv = b.kv(layout, pages * seqs, PageExtras { bounds: true, gates: false })?;
            for start in (0..len).step_by(CHUNK) {
                let rows = CHUNK.min(len - start);
                let mut step = Step::default();
                for table in &tables {
                    step.push(&vec![0; rows], start + rows, table)?;
                }
                b.upload(&step, &mut batch)?;
                let mut qkv = b.rows(RowsKind::Activation, [step.rows(), width])?;
                b.write_rows(&noise.numbers(step.rows() * width), &mut qkv)?;
                let op = Append {
                    qkv: &mut qkv,
                    qk_norm: None,
                    eps: 0.0,
                    rope: &rope,
                    batch: &batch,
                    kv: &mut kv,
                };
                b.append(op)?;
            }
            kvs.push(kv);
        }
        let mut step = Step::default();
        for table in &tables {
            step.push(&[0], len, table)?;
        }
        b.upload(&step, &mut batch)?;
        let mut q = b.rows(RowsKind::Activation, [seqs, width])?;
        b.write_rows(&noise.numbers(seqs * width), &mut q)?;
        let out = b.rows(RowsKind::Activation, [seqs, heads.query() * heads.dim()])?;
        let scores = b.scores(capacity, heads)?;
        let shared = b.selection(capacity, heads, Sets::Shared, quota.budget())?;
        let per_head = b.selection(capacity, heads, Sets::PerQueryHead, quota.budget())?;
        let counters = b.counters(1)?;
        let mut decode =
            Decode { layers: kvs, layout, batch, rope, q, out, scores, shared, per_head, counters, quota };
        for op in [Op::DenseScored, Op::SelectUnion, Op::SelectPerHead] {
            decode.run(b, op)?;
        }
        Ok(decode)
    }

    /// Does `op` in every layer. Selections rank the scores of the last layer that was scored.
    ///
    /// # Errors
    /// When the backend fails.
    pub fn run(&mut self, b: &mut B, op: Op) -> Result<()> {
        (0..self.layers.len()).try_for_each(|layer| self.layer(b, layer, op))
    }

    fn layer(&mut self, b: &mut B, layer: usize, op: Op) -> Result<()> {
        let Decode { layers, layout, batch, rope, q, out, scores, shared, per_head, counters, quota } = self;
        let (kv, batch, heads, quota) = (&mut layers[layer], &*batch, layout.heads, *quota);
        let over = match op {
            Op::Dense => Over::Dense,
            Op::DenseScored => Over::DenseScored(scores),
            Op::Shared => Over::Selected(shared),
            Op::PerQueryHead => Over::Selected(per_head),
            Op::ScoreTokens | Op::ScorePages => {
                let of = if op == Op::ScoreTokens { ScoreOf::Tokens } else { ScoreOf::Pages };
                return b.score(Score {
                    q,
                    kv,
                    heads,
                    batch,
                    of,
                    budget: 0,
                    layer: 0,
                    counters,
                    out: scores,
                });
            }
            Op::SelectUnion => {
                let pick = Pick::Union(scores);
                return b.select(Select { pick, quota, heads, batch, layer: 0, counters, out: shared });
            }
            Op::SelectPerHead => {
                let pick = Pick::Best(scores, Sets::PerQueryHead);
                return b.select(Select { pick, quota, heads, batch, layer: 0, counters, out: per_head });
            }
            Op::Append => return b.append(Append { qkv: q, qk_norm: None, eps: 0.0, rope, batch, kv }),
        };
        let scale = 1.0 / (heads.dim() as f32).sqrt();
        b.attend(Attend { q, kv, heads, scale, batch, over, layer: 0, counters, out })
    }
}

/// A prompt's last rows against what is cached before them.
pub struct Prefill<B: Backend> {
    kv: B::Kv,
    layout: KvLayout,
    batch: B::Batch,
    q: Tensor<B::Rows, 2>,
    out: Tensor<B::Rows, 2>,
    counters: B::Counters,
}

impl<B: Backend> Prefill<B> {
    /// `rows` rows that end at `len` tokens; the cache is zeros, which costs the same.
    ///
    /// # Errors
    /// When the backend cannot hold them.
    pub fn new(b: &mut B, layout: KvLayout, rows: usize, len: usize) -> Result<Self> {
        let pages = layout.page_size.pages_for(len);
        let kv = b.kv(layout, pages, PageExtras::default())?;
        let mut batch = b.batch(Capacity { rows, seqs: 1, tokens: len }, layout.page_size)?;
        let mut step = Step::default();
        step.push(&vec![0; rows], len, &(0..pages as u32).collect::<Vec<_>>())?;
        b.upload(&step, &mut batch)?;
        let q = b.rows(RowsKind::Activation, [rows, layout.heads.qkv_width()])?;
        let out = b.rows(RowsKind::Activation, [rows, layout.heads.query() * layout.heads.dim()])?;
        Ok(Prefill { kv, layout, batch, q, out, counters: b.counters(1)? })
    }

    /// Attends.
    ///
    /// # Errors
    /// When the backend fails.
    pub fn run(&mut self, b: &mut B) -> Result<()> {
        let heads = self.layout.heads;
        b.attend(Attend {
            q: &self.q,
            kv: &self.kv,
            heads,
            scale: 0.1,
            batch: &self.batch,
            over: Over::Dense,
            layer: 0,
            counters: &mut self.counters,
            out: &mut self.out,
        })
    }
}
