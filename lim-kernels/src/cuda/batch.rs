//! A step's tokens, lengths and page tables on the device, at addresses that never change.

use super::{Buffer, Cuda, ffi};
use crate::{Capacity, Error, PageSize, Result, Step};

/// Room for steps of up to a capacity, and what the last upload put there.
pub struct CudaBatch {
    /// `[tokens: rows | pos: rows | seq: rows | len: seqs | first: seqs + 1]`, each part padded to 4 elements.
    head: Buffer<i32>,
    /// `[seqs][stride]`.
    table: Buffer<i32>,
    /// What `head` and `table` hold, so that only page table entries that changed travel.
    host_head: Vec<i32>,
    host_table: Vec<i32>,
    capacity: Capacity,
    page_size: PageSize,
    stride: usize,
    rows: usize,
    seqs: usize,
    is_decode: bool,
}

impl CudaBatch {
    /// Rows of the step.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// Sequences of the step.
    pub(super) fn seqs(&self) -> usize {
        self.seqs
    }

    /// Whether every sequence has one row.
    pub(super) fn is_decode(&self) -> bool {
        self.is_decode
    }

    /// Upper bounds of a step.
    pub(super) fn capacity(&self) -> Capacity {
        self.capacity
    }

    /// Tokens per page.
    pub(super) fn page_size(&self) -> PageSize {
        self.page_size
    }

    pub(super) fn raw(&self) -> ffi::lim_batch {
        let part = |index: usize| self.head.ptr().wrapping_add(part_start(self.capacity, index)).cast_const();
        ffi::lim_batch {
            tokens: part(0),
            pos: part(1),
            seq: part(2),
            len: part(3),
            first: part(4),
            table: self.table.ptr(),
            rows: self.rows as i32,
            seqs: self.seqs as i32,
            table_stride: self.stride as i32,
            max_len: self.capacity.tokens as i32,
        }
    }
}

/// Element at which part `index` of the head starts: tokens, pos, seq, len, first, and the end.
fn part_start(capacity: Capacity, index: usize) -> usize {
    let Capacity { rows, seqs, .. } = capacity;
    [rows, rows, rows, seqs, seqs + 1].iter().take(index).map(|len| len.next_multiple_of(4)).sum()
}

impl Cuda {
    pub(super) fn make_batch(&mut self, capacity: Capacity, page_size: PageSize) -> Result<CudaBatch> {
        let limit = i32::MAX as usize / 2;
        for (what, got) in
            [("rows", capacity.rows), ("sequences", capacity.seqs), ("tokens of a sequence", capacity.tokens)]
        {
            if got == 0 || got > limit {
                return Err(range(what, got, format!("from 1 to {limit}")));
            }
        }
        let stride = page_size.pages_for(capacity.tokens).next_multiple_of(4);
        let head = part_start(capacity, 5);
        Ok(CudaBatch {
            head: self.zeros(head, "a step")?,
            table: self.zeros(capacity.seqs * stride, "page tables")?,
            host_head: vec![0; head],
            host_table: vec![0; capacity.seqs * stride],
            capacity,
            page_size,
            stride,
            rows: 0,
            seqs: 0,
            is_decode: true,
        })
    }

    pub(super) fn upload_step(&mut self, step: &Step, batch: &mut CudaBatch) -> Result<()> {
        check(step, batch)?;
        fill_head(step, batch);
        // Host memory that is not page-locked is staged by the driver before the call returns, so the vectors may
        // be overwritten by the next step at once.
        self.copy_in(&batch.host_head, &mut batch.head, 0)?;
        for (index, seq) in step.iter().enumerate() {
            let start = index * batch.stride;
            let held = &mut batch.host_table[start..start + seq.pages.len()];
            let same = |(held, new): (&i32, &u32)| *held == *new as i32;
            let first = held.iter().zip(seq.pages).take_while(|&pair| same(pair)).count();
            let last = held.iter().zip(seq.pages).rposition(|pair| !same(pair));
            let Some(last) = last else { continue };
            for (held, new) in held[first..=last].iter_mut().zip(&seq.pages[first..=last]) {
                *held = *new as i32;
            }
            let changed = start + first..=start + last;
            self.copy_in(&batch.host_table[changed], &mut batch.table, start + first)?;
        }
        (batch.rows, batch.seqs, batch.is_decode) = (step.rows(), step.seqs(), step.is_decode());
        Ok(())
    }
}

fn fill_head(step: &Step, batch: &mut CudaBatch) {
    let start = |index| part_start(batch.capacity, index);
    let [tokens, pos, owner, len, first, end] = [0, 1, 2, 3, 4, 5].map(start);
    let head = &mut batch.host_head;
    head[len..end].fill(0);
    for (slot, token) in head[tokens..].iter_mut().zip(step.tokens()) {
        *slot = *token as i32;
    }
    for (index, seq) in step.iter().enumerate() {
        for (offset, row) in seq.rows.clone().enumerate() {
            head[pos + row] = (seq.start() + offset) as i32;
            head[owner + row] = index as i32;
        }
        head[len + index] = seq.len as i32;
        head[first + index + 1] = seq.rows.end as i32;
    }
}

fn check(step: &Step, batch: &CudaBatch) -> Result<()> {
    let Capacity { rows, seqs, tokens } = batch.capacity;
    if step.rows() == 0 || step.rows() > rows {
        return Err(range("rows", step.rows(), format!("from 1 to the capacity, {rows}")));
    }
    if step.seqs() > seqs {
        return Err(range("sequences", step.seqs(), format!("at most the capacity, {seqs}")));
    }
    for seq in step.iter() {
        if seq.len > tokens {
            return Err(range("tokens of a sequence", seq.len, format!("at most the capacity, {tokens}")));
        }
        let needed = batch.page_size.pages_for(seq.len);
        if seq.pages.len() < needed || seq.pages.len() > batch.stride {
            let must = format!("from {needed} to {} for {} tokens", batch.stride, seq.len);
            return Err(range("pages of a sequence", seq.pages.len(), must));
        }
    }
    Ok(())
}

fn range(what: &'static str, got: usize, must: String) -> Error {
    Error::Range { op: "step", what, got: got as u64, must }
}
