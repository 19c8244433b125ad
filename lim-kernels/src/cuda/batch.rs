//! A step's tokens, lengths and page tables on the device, at addresses that never change.

use std::ops::RangeInclusive;

use super::check::shape_error;
use super::outbox::HALF;
use super::{Buffer, Cuda, ffi};
use crate::{Capacity, Error, PageSize, Result, Step};

/// Bytes that are sent in the time of starting another transfer: 3 us (H200), most of it the copy to page-locked memory.
const WORTH_A_TRANSFER: usize = 16 << 10;

/// Room for steps of up to a capacity, and what the last upload put there.
pub struct CudaBatch {
    /// `[tokens: rows | pos: rows | seq: rows | len: seqs | first: seqs + 1]`, each part padded to 4 elements.
    head: Buffer<i32>,
    /// `[seqs][stride]`.
    table: Buffer<i32>,
    /// What `head` and `table` were told, so that only page table entries that changed travel. Draws change `head` on the
    /// device.
    host_head: Vec<i32>,
    host_table: Vec<i32>,
    capacity: Capacity,
    page_size: PageSize,
    stride: usize,
    rows: usize,
    /// Sequences whose page table changed in the last upload, and the first and last entry that did.
    changed: Vec<(usize, RangeInclusive<usize>)>,
    /// n by sequence.
    lens: Vec<usize>,
    /// One more than the largest page id in use.
    pages_named: usize,
    /// The largest token id.
    largest_token: usize,
}

impl CudaBatch {
    /// Rows of the step.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// Sequences of the step.
    pub(super) fn seqs(&self) -> usize {
        self.lens.len()
    }

    /// Cached tokens of each sequence, the step's rows included.
    pub(super) fn lens(&self) -> &[usize] {
        &self.lens
    }

    /// One more than the largest page id in use.
    pub(super) fn pages_named(&self) -> usize {
        self.pages_named
    }

    /// The largest token id.
    pub(super) fn largest_token(&self) -> usize {
        self.largest_token
    }

    /// Whether every sequence has one row.
    pub(super) fn is_decode(&self) -> bool {
        self.rows == self.seqs()
    }

    /// Checks that the step has one row per sequence.
    pub(super) fn expect_decode(&self, op: &'static str) -> Result<()> {
        if self.is_decode() {
            return Ok(());
        }
        Err(shape_error(op, "rows of the step", &[self.rows], &[self.seqs()]))
    }

    /// Upper bounds of a step.
    pub(super) fn capacity(&self) -> Capacity {
        self.capacity
    }

    /// Tokens per page.
    pub(super) fn page_size(&self) -> PageSize {
        self.page_size
    }

    /// Tokens, positions and lengths, for a draw to write what rows go on with.
    pub(super) fn next(&mut self) -> [*mut i32; 3] {
        [0, 1, 3].map(|part| self.head.ptr().wrapping_add(part_start(self.capacity, part)))
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
            seqs: self.seqs() as i32,
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
            changed: Vec::with_capacity(capacity.seqs),
            lens: Vec::with_capacity(capacity.seqs),
            pages_named: 0,
            largest_token: 0,
        })
    }

    pub(super) fn upload_step(&mut self, step: &Step, batch: &mut CudaBatch) -> Result<()> {
        check(step, batch)?;
        self.note_batch_written();
        if step.continues() {
            // Tokens, positions and lengths are where the draw has left them.
            expect_next(step, batch)?;
        } else {
            fill_head(step, batch);
            self.send(&batch.host_head, &mut batch.head, 0)?;
            batch.largest_token = step.tokens().iter().max().map_or(0, |&token| token as usize);
        }
        batch.pages_named = 0;
        batch.changed.clear();
        for (index, seq) in step.iter().enumerate() {
            let start = index * batch.stride;
            let pages = &seq.pages[..batch.page_size.pages_for(seq.len)];
            let named = pages.iter().max().map_or(0, |&page| page as usize + 1);
            batch.pages_named = batch.pages_named.max(named);
            let held = &mut batch.host_table[start..start + pages.len()];
            let same = |(held, new): (&i32, &u32)| *held == *new as i32;
            let first = held.iter().zip(pages).take_while(|&pair| same(pair)).count();
            let last = held.iter().zip(pages).rposition(|pair| !same(pair));
            let Some(last) = last else { continue };
            for (held, new) in held[first..=last].iter_mut().zip(&pages[first..=last]) {
                *held = *new as i32;
            }
            batch.changed.push((index, first..=last));
        }
        self.send_tables(batch)?;
        batch.rows = step.rows();
        batch.lens.clear();
        batch.lens.extend(step.iter().map(|seq| seq.len));
        Ok(())
    }

    /// Sends the page table entries that changed: each sequence's, or the smallest block that holds them all where that is
    /// sooner done.
    fn send_tables(&mut self, batch: &mut CudaBatch) -> Result<()> {
        let CudaBatch { table, host_table, stride, changed, .. } = batch;
        let Some((first, _)) = changed.first() else { return Ok(()) };
        let rows = *first..changed.last().map_or(0, |(seq, _)| seq + 1);
        let start = changed.iter().map(|(_, entries)| *entries.start()).min().unwrap_or(0);
        let end = changed.iter().map(|(_, entries)| *entries.end() + 1).max().unwrap_or(0);
        let bytes = rows.len() * (end - start) * size_of::<i32>();
        if bytes <= HALF.min(WORTH_A_TRANSFER * (changed.len() - 1)) {
            return self.send_block(host_table, *stride, (rows, start..end), table);
        }
        for (seq, entries) in changed {
            let entries = *seq * *stride + entries.start()..=*seq * *stride + entries.end();
            self.send(&host_table[entries.clone()], table, *entries.start())?;
        }
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

/// Whether the step has the sequences of the one before, each one token longer. What the device knows of sequences that
/// ended there, the host need not.
fn expect_next(step: &Step, batch: &CudaBatch) -> Result<()> {
    if step.seqs() != batch.lens.len() {
        let got = [step.seqs()];
        return Err(shape_error("upload", "sequences that continue a draw", &got, &[batch.lens.len()]));
    }
    match step.iter().zip(&batch.lens).find(|(seq, old)| **old > 0 && seq.len != **old + 1) {
        Some((seq, old)) => {
            Err(shape_error("upload", "tokens of a sequence that continues", &[seq.len], &[old + 1]))
        }
        None => Ok(()),
    }
}

fn check(step: &Step, batch: &CudaBatch) -> Result<()> {
    let Capacity { rows, seqs, tokens } = batch.capacity;
    let sizes = [
        ("rows", step.rows(), rows),
        ("sequences", step.seqs(), seqs),
        ("tokens of a sequence", step.max_len(), tokens),
    ];
    for (what, got, most) in sizes {
        if got == 0 || got > most {
            return Err(range(what, got, format!("from 1 to the capacity, {most}")));
        }
    }
    for seq in step.iter() {
        let needed = batch.page_size.pages_for(seq.len);
        if seq.pages.len() < needed {
            return Err(shape_error("upload", "page table", &[seq.pages.len()], &[needed]));
        }
    }
    Ok(())
}

fn range(what: &'static str, got: usize, must: String) -> Error {
    Error::Range { op: "upload", what, got: got as u64, must }
}
