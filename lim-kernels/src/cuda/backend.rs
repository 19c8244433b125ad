//! [`Backend`] for [`Cuda`]: every verb is in the file of its name.

use super::{
    Cuda, CudaBatch, CudaCounters, CudaDraws, CudaKv, CudaLinear, CudaRope, CudaRows, CudaScores,
    CudaSelection, CudaVector, Graph,
};
use super::{append, attend, gates, linear, pool, sample, score, select};
use crate::{
    Append, Attend, Backend, Capacity, Draw, Embed, Error, GateScore, Heads, HostTensor, KeyGates, KvLayout,
    LayerCount, LinearAdd, Logits, MAX_UNREAD_DRAWS, NormGateUp, NormLinear, PageExtras, PageSize, Pool,
    Result, RowsKind, Sample, Sampled, Score, Select, Sets, Step, Tensor,
};

impl Backend for Cuda {
    type Linear = CudaLinear;
    type Vector = CudaVector;
    type Rope = CudaRope;
    type Rows = CudaRows;
    type Batch = CudaBatch;
    type Kv = CudaKv;
    type Scores = CudaScores;
    type Selection = CudaSelection;
    type Counters = CudaCounters;
    type Draws = CudaDraws;
    type Recording = Graph;

    fn device(&self) -> String {
        self.name()
    }

    fn lag(&self) -> usize {
        MAX_UNREAD_DRAWS - 1
    }

    fn padded(&self, seqs: usize, most: usize) -> usize {
        // Up to 8 rows, attention is better cut for the sequences that there are; from 9 on a few empty ones cost
        // nothing, and every size would want plans and recordings of its own.
        let places = if seqs <= 8 { seqs } else { seqs.next_multiple_of(8) };
        places.min(most)
    }

    fn linear(&mut self, parts: &[(HostTensor<2>, Option<HostTensor<1>>)]) -> Result<CudaLinear> {
        self.make_linear(parts)
    }

    fn vector(&mut self, weight: &HostTensor<1>) -> Result<CudaVector> {
        self.make_vector(weight)
    }

    fn rope(&mut self, cos: &[f32], sin: &[f32], half: usize) -> Result<CudaRope> {
        self.make_rope(cos, sin, half)
    }

    fn rows(&mut self, kind: RowsKind, shape: [usize; 2]) -> Result<Tensor<CudaRows, 2>> {
        self.make_rows(kind, shape)
    }

    fn kv(&mut self, layout: KvLayout, pages: usize, extras: PageExtras) -> Result<CudaKv> {
        self.make_kv(layout, pages, extras)
    }

    fn batch(&mut self, capacity: Capacity, page_size: PageSize) -> Result<CudaBatch> {
        self.make_batch(capacity, page_size)
    }

    fn scores(&mut self, capacity: Capacity, heads: Heads) -> Result<CudaScores> {
        self.make_scores(capacity, heads.query())
    }

    fn pooled(&mut self, capacity: Capacity, rows: usize) -> Result<CudaScores> {
        self.make_scores(capacity, rows)
    }

    fn selection(
        &mut self,
        capacity: Capacity,
        heads: Heads,
        sets: Sets,
        budget: usize,
    ) -> Result<CudaSelection> {
        self.make_selection(capacity, heads, sets, budget)
    }

    fn draws(&mut self, rows: usize, vocab: usize) -> Result<CudaDraws> {
        self.make_draws(rows, vocab)
    }

    fn counters(&mut self, layers: usize) -> Result<CudaCounters> {
        self.make_counters(layers)
    }

    fn upload(&mut self, step: &Step, batch: &mut CudaBatch) -> Result<()> {
        self.upload_step(step, batch)
    }

    fn start_draws(&mut self, draws: &[Draw<'_>], to: &mut CudaDraws) -> Result<()> {
        self.begin_draws(draws, to)
    }

    fn force_draws(&mut self, tokens: &[Option<u32>], draws: &mut CudaDraws) -> Result<()> {
        self.force(tokens, draws)
    }

    fn post_draws(&mut self, draws: &mut CudaDraws) -> Result<()> {
        self.post(draws)
    }

    fn read_draws(&mut self, draws: &mut CudaDraws, out: &mut [Sampled]) -> Result<()> {
        self.take_draws(draws, out)
    }

    fn copy_page(&mut self, kv: &mut CudaKv, from: u32, to: u32) -> Result<()> {
        self.copy_kv_page(kv, from, to)
    }

    fn read_rows(&mut self, rows: &Tensor<CudaRows, 2>, out: &mut [f32]) -> Result<()> {
        self.rows_to_host(rows, out)
    }

    fn write_rows(&mut self, data: &[f32], rows: &mut Tensor<CudaRows, 2>) -> Result<()> {
        self.rows_from_host(data, rows)
    }

    fn write_scores(&mut self, seq: usize, data: &[f32], scores: &mut CudaScores) -> Result<()> {
        self.scores_from_host(seq, data, scores)
    }

    fn read_scores(&mut self, seq: usize, count: usize, scores: &CudaScores) -> Result<Vec<f32>> {
        self.scores_to_host(seq, count, scores)
    }

    fn read_selection(&mut self, seq: usize, selection: &CudaSelection) -> Result<Option<Vec<Vec<u32>>>> {
        self.selection_to_host(seq, selection)
    }

    fn read_counters(&mut self, counters: &CudaCounters) -> Result<Vec<LayerCount>> {
        self.counters_to_host(counters)
    }

    fn record<E: From<Error>>(
        &mut self,
        verbs: impl FnOnce(&mut Self) -> Result<(), E>,
    ) -> Result<Option<Graph>, E> {
        let graph = self.capture(verbs)?;
        Cuda::replay(self, &graph)?;
        Ok(Some(graph))
    }

    fn replay(&mut self, recording: &Graph) -> Result<()> {
        Cuda::replay(self, recording)
    }

    fn embed(&mut self, op: Embed<'_, Self>) -> Result<()> {
        linear::embed(self, op)
    }

    fn norm_linear(&mut self, op: NormLinear<'_, Self>) -> Result<()> {
        linear::norm_linear(self, op)
    }

    fn linear_add(&mut self, op: LinearAdd<'_, Self>) -> Result<()> {
        linear::linear_add(self, op)
    }

    fn norm_gate_up(&mut self, op: NormGateUp<'_, Self>) -> Result<()> {
        linear::norm_gate_up(self, op)
    }

    fn append(&mut self, op: Append<'_, Self>) -> Result<()> {
        append::append(self, op)
    }

    fn key_gates(&mut self, op: KeyGates<'_, Self>) -> Result<()> {
        gates::key_gates(self, op)
    }

    fn attend(&mut self, op: Attend<'_, Self>) -> Result<()> {
        attend::attend(self, op)
    }

    fn score(&mut self, op: Score<'_, Self>) -> Result<()> {
        score::score(self, op)
    }

    fn gate_score(&mut self, op: GateScore<'_, Self>) -> Result<()> {
        gates::gate_score(self, op)
    }

    fn pool(&mut self, op: Pool<'_, Self>) -> Result<()> {
        pool::pool(self, op)
    }

    fn select(&mut self, op: Select<'_, Self>) -> Result<()> {
        select::select(self, op)
    }

    fn select_and_gate_up(&mut self, op: Select<'_, Self>, gate_up: NormGateUp<'_, Self>) -> Result<()> {
        select::select_and_gate_up(self, op, gate_up)
    }

    fn logits(&mut self, op: Logits<'_, Self>) -> Result<()> {
        linear::logits(self, op)
    }

    fn sample(&mut self, op: Sample<'_, Self>) -> Result<()> {
        sample::sample(self, op)
    }
}
