//! The CPU backend: readable kernels that are fast on AVX2 and AVX-512.
//!
//! Weights stay where they lie (a mapped file, usually) in the type they have; activations and sums are float32.
//! Results do not depend on the number of threads.

mod append;
mod attend;
mod buffer;
mod draws;
mod gates;
mod gemm;
mod gemv;
mod linear;
mod mass;
mod philox;
mod pool;
mod prefill;
mod rank;
mod sample;
mod score;
mod select;
mod simd;
mod split;
mod store;
mod tile;
#[cfg(target_arch = "x86_64")]
mod x86;
mod yardstick;

pub use buffer::Buffer;
pub use draws::Draws;
pub use store::{Batch, Kv, Linear, Rope, Scores, Selection};

use pool::Pool;
use simd::Isa;

use crate::{
    Append, Attend, Backend, Capacity, Draw, Embed, Error, GateScore, Heads, HostTensor, KeyGates, KvLayout,
    LayerCount, LinearAdd, Logits, MAX_UNREAD_DRAWS, NormGateUp, NormLinear, PageExtras, PageSize,
    Pool as PoolOp, Result, RowsKind, Sample, Sampled, Score, Select, Sets, Step, Tensor,
};

/// A pool of threads and the scratch of its kernels.
///
/// ```
/// use lim_kernels::{Backend, RowsKind, cpu::Cpu};
///
/// # fn main() -> lim_kernels::Result<()> {
/// let mut cpu = Cpu::new(Some(1))?;
/// let mut rows = cpu.rows(RowsKind::Residual, [2, 3])?;
/// cpu.write_rows(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], &mut rows)?;
/// let mut first = [0.0; 3];
/// cpu.read_rows(&rows, &mut first)?;
/// assert_eq!(first, [1.0, 2.0, 3.0]);
/// # Ok(()) }
/// ```
pub struct Cpu {
    pool: Pool,
    isa: Isa,
    lag: usize,
    /// Normed rows `[rows, hidden]`.
    normed: Buffer,
    /// Activations packed for dot or matrix products.
    packed: Buffer,
    /// Gate and up `[rows, 2 * intermediate]`.
    wide: Buffer,
    /// Partial results of decode attention.
    partials: Buffer,
    /// One a thread.
    scratch: Vec<Buffer>,
    sampling: Vec<sample::Room>,
    groups: Vec<attend::Group>,
    select: select::Room,
    /// Of every query head, for the sequence in hand.
    softmaxes: Vec<mass::Softmax>,
}

impl Cpu {
    /// Computes with `threads` threads, the caller included; `None` takes as many as the system offers.
    ///
    /// # Errors
    /// When `threads` is 0 or more than 1024, or a thread cannot be started.
    pub fn new(threads: Option<usize>) -> Result<Self> {
        let threads =
            threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from).min(1024));
        if threads == 0 || threads > 1024 {
            let must = "from 1 to 1024".into();
            return Err(Error::Range { op: "cpu", what: "number of threads", got: threads as u64, must });
        }
        Ok(Cpu {
            pool: Pool::new(threads)?,
            isa: Isa::detect(),
            lag: 0,
            normed: Buffer::default(),
            packed: Buffer::default(),
            wide: Buffer::default(),
            partials: Buffer::default(),
            scratch: (0..threads).map(|_| Buffer::default()).collect(),
            sampling: (0..threads).map(|_| sample::Room::default()).collect(),
            groups: Vec::new(),
            select: select::Room::default(),
            softmaxes: Vec::new(),
        })
    }

    /// As [`Cpu::new`], for each of the instruction sets that this processor has, best first, for tests of all.
    ///
    /// # Errors
    /// As [`Cpu::new`].
    pub fn each_isa(threads: Option<usize>) -> Result<Vec<Self>> {
        Isa::all().into_iter().map(|isa| Ok(Cpu { isa, ..Cpu::new(threads)? })).collect()
    }

    /// Has callers run ahead and fill up their steps as on a device of its own, for tests of them.
    pub fn like_a_device(self) -> Self {
        Cpu { lag: MAX_UNREAD_DRAWS - 1, ..self }
    }
}

impl Backend for Cpu {
    type Linear = Linear;
    type Vector = Vec<f32>;
    type Rope = Rope;
    type Rows = Buffer;
    type Batch = Batch;
    type Kv = Kv;
    type Scores = Scores;
    type Selection = Selection;
    type Counters = Vec<LayerCount>;
    type Draws = Draws;
    type Recording = ();

    fn device(&self) -> String {
        let threads = self.pool.threads();
        format!("cpu ({threads} thread{}, {})", if threads == 1 { "" } else { "s" }, self.isa.name())
    }

    fn lag(&self) -> usize {
        self.lag
    }

    fn padded(&self, seqs: usize, most: usize) -> usize {
        if self.lag > 0 { seqs.next_multiple_of(2).min(most) } else { seqs.min(most) }
    }

    fn linear(&mut self, parts: &[(HostTensor<2>, Option<HostTensor<1>>)]) -> Result<Linear> {
        Linear::new(parts)
    }

    fn vector(&mut self, weight: &HostTensor<1>) -> Result<Vec<f32>> {
        store::floats("vector", "weight", weight)
    }

    fn rope(&mut self, cos: &[f32], sin: &[f32], half: usize) -> Result<Rope> {
        Rope::new(cos, sin, half)
    }

    fn rows(&mut self, _: RowsKind, shape: [usize; 2]) -> Result<Tensor<Buffer, 2>> {
        Ok(Tensor::new(Buffer::floats(shape[0].saturating_mul(shape[1]), "activations")?, shape))
    }

    fn kv(&mut self, layout: KvLayout, pages: usize, extras: PageExtras) -> Result<Kv> {
        Kv::new(layout, pages, extras)
    }

    fn batch(&mut self, capacity: Capacity, page_size: PageSize) -> Result<Batch> {
        Ok(Batch::new(capacity, page_size))
    }

    fn scores(&mut self, capacity: Capacity, heads: Heads) -> Result<Scores> {
        Scores::new(capacity, heads.query())
    }

    fn pooled(&mut self, capacity: Capacity, rows: usize) -> Result<Scores> {
        Scores::new(capacity, rows)
    }

    fn selection(
        &mut self,
        capacity: Capacity,
        heads: Heads,
        sets: Sets,
        budget: usize,
    ) -> Result<Selection> {
        Selection::new(capacity, heads, sets, budget)
    }

    fn draws(&mut self, rows: usize, vocab: usize) -> Result<Draws> {
        Ok(Draws::new(rows, vocab))
    }

    fn counters(&mut self, layers: usize) -> Result<Vec<LayerCount>> {
        Ok(vec![LayerCount::default(); layers])
    }

    fn upload(&mut self, step: &Step, batch: &mut Batch) -> Result<()> {
        batch.upload(step)
    }

    fn start_draws(&mut self, draws: &[Draw<'_>], to: &mut Draws) -> Result<()> {
        to.start(draws)
    }

    fn force_draws(&mut self, tokens: &[Option<u32>], draws: &mut Draws) -> Result<()> {
        draws.force(tokens)
    }

    fn post_draws(&mut self, draws: &mut Draws) -> Result<()> {
        draws.post()
    }

    fn read_draws(&mut self, draws: &mut Draws, out: &mut [Sampled]) -> Result<()> {
        draws.take(out)
    }

    fn copy_page(&mut self, kv: &mut Kv, from: u32, to: u32) -> Result<()> {
        kv.copy_page(from, to)
    }

    fn read_rows(&mut self, rows: &Tensor<Buffer, 2>, out: &mut [f32]) -> Result<()> {
        let data = rows.data().f32s();
        expect_whole_rows("read rows", rows, out.len())?;
        out.copy_from_slice(&data[..out.len()]);
        Ok(())
    }

    fn write_rows(&mut self, data: &[f32], rows: &mut Tensor<Buffer, 2>) -> Result<()> {
        expect_whole_rows("write rows", rows, data.len())?;
        rows.data_mut().f32s_mut()[..data.len()].copy_from_slice(data);
        Ok(())
    }

    fn write_scores(&mut self, seq: usize, data: &[f32], scores: &mut Scores) -> Result<()> {
        scores.write(seq, data)
    }

    fn read_scores(&mut self, seq: usize, count: usize, scores: &Scores) -> Result<Vec<f32>> {
        scores.read(seq, count)
    }

    fn read_selection(&mut self, seq: usize, selection: &Selection) -> Result<Option<Vec<Vec<u32>>>> {
        selection.read(seq)
    }

    fn read_counters(&mut self, counters: &Vec<LayerCount>) -> Result<Vec<LayerCount>> {
        Ok(counters.clone())
    }

    fn record<E: From<Error>>(
        &mut self,
        verbs: impl FnOnce(&mut Self) -> Result<(), E>,
    ) -> Result<Option<()>, E> {
        verbs(self)?;
        Ok(None)
    }

    fn replay(&mut self, (): &()) -> Result<()> {
        Err(Error::Device {
            device: self.device(),
            reason: "it records nothing that could be replayed".into(),
        })
    }

    fn embed(&mut self, op: Embed<'_, Self>) -> Result<()> {
        self.embed_op(op)
    }

    fn norm_linear(&mut self, op: NormLinear<'_, Self>) -> Result<()> {
        self.norm_linear_op(op)
    }

    fn linear_add(&mut self, op: LinearAdd<'_, Self>) -> Result<()> {
        self.linear_add_op(op)
    }

    fn norm_gate_up(&mut self, op: NormGateUp<'_, Self>) -> Result<()> {
        self.norm_gate_up_op(op)
    }

    fn append(&mut self, op: Append<'_, Self>) -> Result<()> {
        self.append_op(op)
    }

    fn key_gates(&mut self, op: KeyGates<'_, Self>) -> Result<()> {
        self.key_gates_op(op)
    }

    fn attend(&mut self, op: Attend<'_, Self>) -> Result<()> {
        self.attend_op(op)
    }

    fn score(&mut self, op: Score<'_, Self>) -> Result<()> {
        self.score_op(op)
    }

    fn gate_score(&mut self, op: GateScore<'_, Self>) -> Result<()> {
        self.gate_score_op(op)
    }

    fn pool(&mut self, op: PoolOp<'_, Self>) -> Result<()> {
        self.pool_op(op)
    }

    fn select(&mut self, op: Select<'_, Self>) -> Result<()> {
        self.select_op(op)
    }

    fn logits(&mut self, op: Logits<'_, Self>) -> Result<()> {
        self.logits_op(op)
    }

    fn sample(&mut self, op: Sample<'_, Self>) -> Result<()> {
        self.sample_op(op)
    }
}

fn expect_whole_rows(op: &'static str, rows: &Tensor<Buffer, 2>, count: usize) -> Result<()> {
    let [most, width] = rows.shape();
    if count <= rows.len() && count.is_multiple_of(width.max(1)) {
        return Ok(());
    }
    Err(store::shape_error(op, "host data", &[count], &[most, width]))
}
