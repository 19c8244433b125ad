//! Selected positions on the device.

use super::check::shape_error;
use super::{Buffer, Cuda, CudaBatch, ffi};
use crate::{Capacity, Error, Heads, PageSize, Result, Sets};

/// Selected positions, `[seqs][sets][stride]`, and how many there are, `[seqs][sets]`.
pub struct CudaSelection {
    ids: Buffer<i32>,
    count: Buffer<i32>,
    /// What the union of heads counts with, `[seqs][firsts_stride]`; empty where every head has its own set.
    firsts: Buffer<u64>,
    firsts_stride: usize,
    /// n when the choice was made, by sequence; 0 before that.
    lens: Vec<usize>,
    /// Tokens a sequence may have.
    tokens: usize,
    heads: Heads,
    sets: Sets,
    budget: usize,
    /// Room of one set: the budget, or one page where that is more (Quest always keeps the last page).
    stride: usize,
}

impl CudaSelection {
    pub(super) fn raw(&self) -> ffi::lim_selection {
        ffi::lim_selection {
            ids: self.ids.ptr(),
            count: self.count.ptr(),
            sets: self.sets.count(self.heads) as i32,
            kind: match self.sets {
                Sets::Shared => ffi::LIM_SHARED,
                Sets::PerKvHead => ffi::LIM_PER_KV_HEAD,
                Sets::PerQueryHead => ffi::LIM_PER_QUERY_HEAD,
            },
            capacity: self.stride as i32,
        }
    }

    /// Where the union of heads counts, and the words a sequence has there.
    pub(super) fn firsts(&self) -> (*mut u64, i64) {
        (self.firsts.ptr(), self.firsts_stride as i64)
    }

    /// Checks that the choice can be made here.
    pub(super) fn expect_room(
        &self,
        op: &'static str,
        sets: Sets,
        heads: Heads,
        budget: usize,
    ) -> Result<()> {
        if self.sets != sets || self.heads != heads {
            let (got, expected) = (self.sets.count(self.heads), sets.count(heads));
            return Err(shape_error(op, "sets of the selection", &[got], &[expected]));
        }
        if budget > self.budget || budget == 0 {
            let must = format!("from 1 to the selection's room, {}", self.budget);
            return Err(Error::Range { op, what: "token budget", got: budget as u64, must });
        }
        Ok(())
    }

    /// Checks that the choice was made for this step.
    pub(super) fn expect(&self, op: &'static str, heads: Heads, batch: &CudaBatch) -> Result<()> {
        if self.heads != heads {
            let list = |h: Heads| [h.query(), h.kv(), h.dim()];
            return Err(shape_error(op, "heads of the selection", &list(self.heads), &list(heads)));
        }
        self.expect_seqs(op, batch)?;
        for (len, chosen_for) in batch.lens().iter().zip(&self.lens) {
            if len != chosen_for {
                return Err(shape_error(op, "tokens the selection was made for", &[*chosen_for], &[*len]));
            }
        }
        Ok(())
    }

    /// Checks that there is room for every sequence of the step.
    pub(super) fn expect_seqs(&self, op: &'static str, batch: &CudaBatch) -> Result<()> {
        if self.lens.len() >= batch.seqs() {
            return Ok(());
        }
        Err(shape_error(op, "selection", &[self.lens.len()], &[batch.seqs()]))
    }

    /// Checks that a choice can be made for every sequence of the step, however long it may be.
    pub(super) fn expect_step(&self, op: &'static str, batch: &CudaBatch) -> Result<()> {
        self.expect_seqs(op, batch)?;
        let tokens = batch.capacity().tokens;
        if self.tokens >= tokens {
            return Ok(());
        }
        Err(shape_error(op, "tokens of the selection", &[self.tokens], &[tokens]))
    }

    /// Notes the step that the choice is made for.
    pub(super) fn note(&mut self, batch: &CudaBatch) {
        self.lens[..batch.seqs()].copy_from_slice(batch.lens());
    }
}

impl Cuda {
    pub(super) fn make_selection(
        &mut self,
        capacity: Capacity,
        heads: Heads,
        sets: Sets,
        budget: usize,
    ) -> Result<CudaSelection> {
        if budget == 0 {
            let must = "at least 1".into();
            return Err(Error::Range { op: "selection", what: "budget", got: 0, must });
        }
        let stride = budget.max(PageSize::MAX).next_multiple_of(4);
        let rows = capacity.seqs.saturating_mul(sets.count(heads));
        let firsts_stride = match sets {
            Sets::Shared => (4 + stride).saturating_add(capacity.tokens),
            Sets::PerKvHead | Sets::PerQueryHead => 0,
        };
        let firsts = self.zeros(capacity.seqs.saturating_mul(firsts_stride), "selected positions")?;
        let ids = self.zeros(rows.saturating_mul(stride), "selected positions")?;
        let count = self.zeros(rows, "selected positions")?;
        let lens = vec![0; capacity.seqs];
        Ok(CudaSelection {
            ids,
            count,
            firsts,
            firsts_stride,
            lens,
            tokens: capacity.tokens,
            heads,
            sets,
            budget,
            stride,
        })
    }

    pub(super) fn selection_to_host(
        &mut self,
        seq: usize,
        selection: &CudaSelection,
    ) -> Result<Option<Vec<Vec<u32>>>> {
        let CudaSelection { stride, .. } = *selection;
        if selection.lens.get(seq).is_none_or(|len| *len == 0) {
            let must = format!("one of the {} sequences that was selected for", selection.lens.len());
            return Err(Error::Range { op: "read selection", what: "sequence", got: seq as u64, must });
        }
        let sets = selection.sets.count(selection.heads);
        let mut counts = vec![0i32; sets];
        self.copy_out(&selection.count, seq * sets, &mut counts)?;
        if counts.iter().all(|count| *count == ffi::LIM_DENSE) {
            return Ok(None);
        }
        let mut lists = Vec::with_capacity(sets);
        for (set, count) in counts.into_iter().enumerate() {
            let count = usize::try_from(count).ok().filter(|count| *count <= stride).ok_or_else(|| {
                let reason = format!("sequence {seq}, set {set}: {count} selected positions of {stride}");
                Error::Device { device: self.name(), reason }
            })?;
            let mut ids = vec![0i32; count];
            self.copy_out(&selection.ids, (seq * sets + set) * stride, &mut ids)?;
            lists.push(ids.into_iter().map(|id| id as u32).collect());
        }
        Ok(Some(lists))
    }
}
