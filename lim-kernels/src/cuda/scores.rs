//! Raw scores and pooled weights on the device.

use super::check::shape_error;
use super::{Buffer, Cuda, CudaBatch, ffi};
use crate::{Capacity, Heads, Result, ScoreOf};

/// Raw scores or pooled weights, `[seqs][rows][stride]` float32; scores have a row a query head.
pub struct CudaScores {
    data: Buffer<f32>,
    /// Tokens (or pages) that were scored, by sequence.
    counts: Vec<usize>,
    rows: usize,
    tokens: usize,
    /// `tokens`, rounded up to a multiple of 4.
    stride: usize,
}

impl CudaScores {
    pub(super) fn raw(&self) -> ffi::lim_scores {
        ffi::lim_scores { data: self.data.ptr(), stride: self.stride as i32 }
    }

    /// Checks that every sequence of `batch` has room for a score of each token or page it may have.
    pub(super) fn expect(
        &self,
        op: &'static str,
        heads: Heads,
        batch: &CudaBatch,
        of: ScoreOf,
    ) -> Result<()> {
        self.expect_rows(op, heads.query(), batch, of)
    }

    /// The same, in `rows` rows a sequence.
    pub(super) fn expect_rows(
        &self,
        op: &'static str,
        rows: usize,
        batch: &CudaBatch,
        of: ScoreOf,
    ) -> Result<()> {
        let tokens = batch.capacity().tokens;
        let columns = match of {
            ScoreOf::Tokens => tokens,
            ScoreOf::Pages => batch.page_size().pages_for(tokens),
        };
        let got = [self.counts.len(), self.rows, self.tokens];
        let need = [batch.seqs(), rows, columns];
        if got[0] >= need[0] && got[1] == need[1] && got[2] >= need[2] {
            return Ok(());
        }
        Err(shape_error(op, "scores", &got, &need))
    }

    /// Notes that the kernel just launched gives each sequence so many scores a row.
    pub(super) fn note(&mut self, cuda: &Cuda, counts: impl Iterator<Item = usize>) {
        cuda.note_next_waits();
        for (of_seq, count) in self.counts.iter_mut().zip(counts) {
            *of_seq = count;
        }
    }

    /// Scores that sequence `seq` has.
    pub(super) fn count(&self, seq: usize) -> usize {
        self.counts[seq]
    }
}

impl Cuda {
    pub(super) fn make_scores(&mut self, capacity: Capacity, rows: usize) -> Result<CudaScores> {
        let Capacity { seqs, tokens, .. } = capacity;
        let stride = tokens.next_multiple_of(4);
        let data = self.zeros(seqs.saturating_mul(rows).saturating_mul(stride), "scores")?;
        Ok(CudaScores { data, counts: vec![0; seqs], rows, tokens, stride })
    }

    pub(super) fn scores_from_host(
        &mut self,
        seq: usize,
        data: &[f32],
        scores: &mut CudaScores,
    ) -> Result<()> {
        let CudaScores { rows, tokens, stride, .. } = *scores;
        let count = data.len() / rows;
        if seq >= scores.counts.len() || data.len() != count * rows || count > tokens {
            let most = [scores.counts.len(), rows, tokens];
            return Err(shape_error("write scores", "data (sequence, values)", &[seq, data.len()], &most));
        }
        for (index, row) in data.chunks_exact(count.max(1)).enumerate() {
            self.copy_in(row, &mut scores.data, (seq * rows + index) * stride)?;
        }
        scores.counts[seq] = count;
        Ok(())
    }

    pub(super) fn scores_to_host(
        &mut self,
        seq: usize,
        count: usize,
        scores: &CudaScores,
    ) -> Result<Vec<f32>> {
        let CudaScores { rows, stride, .. } = *scores;
        if scores.counts.get(seq) != Some(&count) {
            let have = scores.counts.get(seq).map_or([seq, 0], |&c| [seq, c]);
            return Err(shape_error("read scores", "count (sequence, scores)", &[seq, count], &have));
        }
        let mut out = vec![0f32; rows * count];
        for (index, row) in out.chunks_exact_mut(count.max(1)).enumerate() {
            self.copy_out(&scores.data, (seq * rows + index) * stride, row)?;
        }
        Ok(out)
    }
}
