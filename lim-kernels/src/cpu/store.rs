//! What the CPU backend keeps: weights as they lie in the checkpoint, pages, scores, selections, the current step.

use std::ops::Range;

use super::buffer::Buffer;
use super::simd::{Elem, with_elem};
use crate::{
    Capacity, DType, Error, Heads, HostBytes, HostTensor, KvLayout, PageExtras, PageSize, Result, SeqStep,
    Sets, Step, Tensor,
};

pub(super) fn shape_error(
    op: &'static str,
    operand: &'static str,
    got: &[usize],
    expected: &[usize],
) -> Error {
    Error::Shape { op, operand, got: got.to_vec(), expected: expected.to_vec() }
}

/// Checks that `x` is `[>= rows, width]`.
pub(super) fn expect_rows(
    op: &'static str,
    operand: &'static str,
    x: &Tensor<Buffer, 2>,
    [rows, width]: [usize; 2],
) -> Result<()> {
    let [got_rows, got_width] = x.shape();
    if got_rows >= rows && got_width == width {
        return Ok(());
    }
    Err(shape_error(op, operand, &x.shape(), &[rows, width]))
}

fn expect_bytes<const R: usize>(op: &'static str, operand: &'static str, t: &HostTensor<R>) -> Result<()> {
    let elements = t.shape.iter().try_fold(1usize, |n, &e| n.checked_mul(e));
    if elements.and_then(|n| n.checked_mul(t.dtype.bytes())) == Some(t.bytes.as_slice().len()) {
        return Ok(());
    }
    let got = [t.bytes.as_slice().len() / t.dtype.bytes()];
    Err(shape_error(op, operand, &got, &t.shape))
}

/// Widens a one-dimensional weight to float32.
pub(super) fn floats(op: &'static str, operand: &'static str, t: &HostTensor<1>) -> Result<Vec<f32>> {
    expect_bytes(op, operand, t)?;
    let bytes = t.bytes.as_slice();
    Ok(with_elem!(t.dtype, E => {
        // SAFETY: each chunk holds one element.
        bytes.chunks_exact(E::BYTES).map(|b| unsafe { E::get(b.as_ptr()) }).collect()
    }))
}

/// Stacked weight parts `[out_i, in]`, read where they lie.
#[derive(Debug)]
pub struct Linear {
    pub(super) parts: Vec<Part>,
    pub(super) outputs: usize,
    pub(super) inputs: usize,
}

#[derive(Debug)]
pub(super) struct Part {
    pub(super) dtype: DType,
    /// This part's rows among the outputs of the whole.
    pub(super) rows: Range<usize>,
    bytes: HostBytes,
    pub(super) bias: Option<Vec<f32>>,
}

impl Part {
    /// Row-major elements, at any alignment.
    pub(super) fn bytes(&self) -> &[u8] {
        self.bytes.as_slice()
    }
}

impl Linear {
    pub(super) fn new(parts: &[(HostTensor<2>, Option<HostTensor<1>>)]) -> Result<Self> {
        const OP: &str = "linear";
        let Some(([_, inputs], mut outputs)) = parts.first().map(|(w, _)| (w.shape, 0)) else {
            return Err(Error::Range { op: OP, what: "parts", got: 0, must: "at least 1".into() });
        };
        let mut kept = Vec::with_capacity(parts.len());
        for (weight, bias) in parts {
            let [out, input] = weight.shape;
            if input != inputs || out == 0 || input == 0 {
                return Err(shape_error(OP, "weight", &weight.shape, &[out.max(1), inputs.max(1)]));
            }
            expect_bytes(OP, "weight", weight)?;
            let bias = match bias {
                Some(b) if b.shape != [out] => return Err(shape_error(OP, "bias", &b.shape, &[out])),
                Some(b) => Some(floats(OP, "bias", b)?),
                None => None,
            };
            let rows = outputs..outputs + out;
            kept.push(Part { dtype: weight.dtype, rows, bytes: weight.bytes.clone(), bias });
            outputs += out;
        }
        Ok(Linear { parts: kept, outputs, inputs })
    }
}

/// Cosines and sines, each `[positions, half]`.
#[derive(Debug)]
pub struct Rope {
    pub(super) cos: Vec<f32>,
    pub(super) sin: Vec<f32>,
    pub(super) half: usize,
}

impl Rope {
    pub(super) fn new(cos: &[f32], sin: &[f32], half: usize) -> Result<Self> {
        if half == 0 || cos.len() != sin.len() || !cos.len().is_multiple_of(half) {
            let positions = cos.len() / half.max(1);
            return Err(shape_error("rope", "cos and sin", &[cos.len(), sin.len()], &[positions * half; 2]));
        }
        Ok(Rope { cos: cos.to_vec(), sin: sin.to_vec(), half })
    }

    pub(super) fn positions(&self) -> usize {
        self.cos.len() / self.half
    }
}

/// One layer's pages `[page][K|V][slot][kv_head][head_dim]`, and what is kept beside them.
#[derive(Debug)]
pub struct Kv {
    pub(super) layout: KvLayout,
    pub(super) pages: usize,
    pub(super) data: Buffer,
    /// `[page][min|max][kv_head][head_dim]` over a page's keys, in the keys' own type, so exact.
    pub(super) bounds: Option<Buffer>,
    /// Key gates, `[page][kv_head][head_dim]`, in the keys' type.
    pub(super) gates: Option<Buffer>,
}

impl Kv {
    pub(super) fn new(layout: KvLayout, pages: usize, extras: PageExtras) -> Result<Self> {
        let PageExtras { bounds, gates } = extras;
        let room = |elements, what| Buffer::new(pages.saturating_mul(elements), layout.dtype.bytes(), what);
        let data = room(layout.page_elements(), "KV pages")?;
        let bounds = bounds.then(|| room(2 * layout.token_width(), "page bounds")).transpose()?;
        let gates = gates.then(|| room(layout.token_width(), "page gates")).transpose()?;
        Ok(Kv { layout, pages, data, bounds, gates })
    }

    pub(super) fn copy_page(&mut self, from: u32, to: u32) -> Result<()> {
        for (what, page) in [("page to copy from", from), ("page to copy to", to)] {
            if page as usize >= self.pages {
                let must = format!("below the {} pages", self.pages);
                return Err(Error::Range { op: "copy page", what, got: page.into(), must });
            }
        }
        let beside = [self.bounds.as_mut(), self.gates.as_mut()];
        for buffer in [Some(&mut self.data)].into_iter().chain(beside).flatten() {
            let page = buffer.bytes().len() / self.pages;
            let (from, to) = (from as usize * page, to as usize * page);
            buffer.bytes_mut().copy_within(from..from + page, to);
        }
        Ok(())
    }

    /// Checks that the step fits these pages and heads.
    pub(super) fn expect(&self, op: &'static str, heads: Heads, batch: &Batch) -> Result<()> {
        let (mine, theirs) = (self.layout.heads, heads);
        if mine != theirs {
            let list = |h: Heads| [h.query(), h.kv(), h.dim()];
            return Err(shape_error(op, "heads (query, kv, head_dim)", &list(theirs), &list(mine)));
        }
        if self.layout.page_size != batch.page_size {
            let [mine, theirs] = [self.layout.page_size, batch.page_size].map(|p| [p.tokens()]);
            return Err(shape_error(op, "page size of the batch", &theirs, &mine));
        }
        if batch.pages_named > self.pages {
            let must = format!("below the {} pages", self.pages);
            return Err(Error::Range { op, what: "page id", got: batch.pages_named as u64 - 1, must });
        }
        Ok(())
    }
}

/// The current step.
#[derive(Debug)]
pub struct Batch {
    pub(super) step: Step,
    pub(super) page_size: PageSize,
    /// What a draw left for the step after this one, by row: its token, `None` for an empty place.
    pub(super) next: Vec<Option<u32>>,
    /// One more than the largest page id in use.
    pages_named: usize,
    capacity: Capacity,
}

impl Batch {
    pub(super) fn new(capacity: Capacity, page_size: PageSize) -> Self {
        let (step, next) = (Step::with_capacity(capacity, page_size), Vec::with_capacity(capacity.rows));
        Batch { step, page_size, next, pages_named: 0, capacity }
    }

    pub(super) fn upload(&mut self, step: &Step) -> Result<()> {
        const OP: &str = "upload";
        let Capacity { rows, seqs, tokens } = self.capacity;
        let sizes = [
            ("rows", step.rows(), rows),
            ("sequences", step.seqs(), seqs),
            ("tokens of a sequence", step.max_len(), tokens),
        ];
        for (what, got, most) in sizes {
            if got > most {
                let must = format!("at most the capacity, {most}");
                return Err(Error::Range { op: OP, what, got: got as u64, must });
            }
        }
        if step.continues() {
            self.expect_next(OP, step)?;
        }
        self.step.clear();
        self.pages_named = 0;
        for seq in step.iter() {
            let needed = self.page_size.pages_for(seq.len);
            let Some(pages) = seq.pages.get(..needed) else {
                return Err(shape_error(OP, "page table", &[seq.pages.len()], &[needed]));
            };
            let drawn = self.next.get(seq.rows.start).copied().filter(|_| step.continues());
            match drawn {
                _ if seq.len == 0 => self.step.pad(self.step.seqs() + 1),
                Some(None) => self.step.pad(self.step.seqs() + 1),
                Some(Some(token)) => self.step.push(&[token], seq.len, pages)?,
                None => self.step.push(&step.tokens()[seq.rows], seq.len, pages)?,
            }
            let named = pages.iter().max().map_or(0, |&p| p as usize + 1);
            self.pages_named = self.pages_named.max(named);
        }
        self.next.clear();
        Ok(())
    }

    /// Checks that the step goes on where a draw has left this one.
    fn expect_next(&self, op: &'static str, step: &Step) -> Result<()> {
        if step.seqs() != self.next.len() {
            return Err(shape_error(
                op,
                "sequences that continue a draw",
                &[step.seqs()],
                &[self.next.len()],
            ));
        }
        let ahead = |(new, old): &(SeqStep<'_>, SeqStep<'_>)| old.len > 0 && new.len != old.len + 1;
        match step.iter().zip(self.step.iter()).find(ahead) {
            Some((new, old)) => {
                Err(shape_error(op, "tokens of a sequence that continues", &[new.len], &[old.len + 1]))
            }
            None => Ok(()),
        }
    }

    /// Checks that the step has one row per sequence.
    pub(super) fn expect_decode(&self, op: &'static str) -> Result<()> {
        if self.step.is_decode() {
            return Ok(());
        }
        Err(shape_error(op, "rows of the step", &[self.step.rows()], &[self.step.seqs()]))
    }
}

/// Raw scores or pooled weights, `[seqs][rows][tokens]`; scores have a row a query head.
#[derive(Debug)]
pub struct Scores {
    pub(super) data: Buffer,
    /// Tokens (or pages) that were scored, by sequence.
    pub(super) counts: Vec<usize>,
    pub(super) rows: usize,
    pub(super) tokens: usize,
}

impl Scores {
    pub(super) fn new(capacity: Capacity, rows: usize) -> Result<Self> {
        let tokens = capacity.tokens;
        let count = capacity.seqs.saturating_mul(rows).saturating_mul(tokens);
        Ok(Scores { data: Buffer::floats(count, "scores")?, counts: vec![0; capacity.seqs], rows, tokens })
    }

    /// Checks that sequences of `batch`, each with `count(n)` scores, fit.
    pub(super) fn expect(&self, op: &'static str, heads: Heads, batch: &Batch) -> Result<()> {
        self.expect_rows(op, heads.query(), batch)
    }

    /// The same, in `rows` rows a sequence.
    pub(super) fn expect_rows(&self, op: &'static str, rows: usize, batch: &Batch) -> Result<()> {
        let got = [self.counts.len(), self.rows, self.tokens];
        let need = [batch.step.seqs(), rows, batch.step.max_len()];
        if got[0] >= need[0] && got[1] == need[1] && got[2] >= need[2] {
            return Ok(());
        }
        Err(shape_error(op, "scores", &got, &need))
    }

    /// One row: the scores of a head.
    pub(super) fn head(&self, seq: usize, head: usize) -> &[f32] {
        let start = (seq * self.rows + head) * self.tokens;
        &self.data.f32s()[start..start + self.counts[seq]]
    }

    pub(super) fn write(&mut self, seq: usize, data: &[f32]) -> Result<()> {
        let count = data.len() / self.rows;
        if seq >= self.counts.len() || data.len() != count * self.rows || count > self.tokens {
            let most = [self.counts.len(), self.rows, self.tokens];
            return Err(shape_error("write scores", "data (sequence, values)", &[seq, data.len()], &most));
        }
        self.counts[seq] = count;
        for (head, row) in data.chunks_exact(count.max(1)).enumerate() {
            let start = (seq * self.rows + head) * self.tokens;
            self.data.f32s_mut()[start..start + count].copy_from_slice(row);
        }
        Ok(())
    }

    pub(super) fn read(&self, seq: usize, count: usize) -> Result<Vec<f32>> {
        if self.counts.get(seq) != Some(&count) {
            let have = self.counts.get(seq).map_or([seq, 0], |&c| [seq, c]);
            return Err(shape_error("read scores", "count (sequence, scores)", &[seq, count], &have));
        }
        Ok((0..self.rows).flat_map(|head| self.head(seq, head).iter().copied()).collect())
    }
}

/// Selected positions `[seqs][sets][<= stride]`.
#[derive(Debug)]
pub struct Selection {
    pub(super) positions: Vec<u32>,
    /// Selected tokens, `[seqs][sets]`.
    pub(super) counts: Vec<usize>,
    /// n when the choice was made, by sequence; 0 before that.
    pub(super) lens: Vec<usize>,
    /// Sequences to attend densely.
    pub(super) dense: Vec<bool>,
    pub(super) sets: Sets,
    pub(super) heads: Heads,
    pub(super) budget: usize,
    /// Room of one set: the budget, or one page where that is more (Quest always keeps the last page).
    pub(super) stride: usize,
}

impl Selection {
    pub(super) fn new(capacity: Capacity, heads: Heads, sets: Sets, budget: usize) -> Result<Self> {
        if budget == 0 {
            let must = "at least 1".into();
            return Err(Error::Range { op: "selection", what: "budget", got: 0, must });
        }
        let stride = budget.max(256).min(capacity.tokens);
        let rows = capacity.seqs.saturating_mul(sets.count(heads));
        let mut positions = Vec::new();
        let count = rows.saturating_mul(stride);
        positions.try_reserve_exact(count).map_err(|_| Error::OutOfMemory {
            device: "cpu".into(),
            bytes: count.saturating_mul(4),
            free: None,
            what: "selection",
        })?;
        positions.resize(count, 0);
        Ok(Selection {
            positions,
            counts: vec![0; rows],
            lens: vec![0; capacity.seqs],
            dense: vec![true; capacity.seqs],
            sets,
            heads,
            budget,
            stride,
        })
    }

    /// Ascending positions of one set.
    pub(super) fn set(&self, seq: usize, set: usize) -> &[u32] {
        let row = seq * self.sets.count(self.heads) + set;
        &self.positions[row * self.stride..][..self.counts[row]]
    }

    pub(super) fn read(&self, seq: usize) -> Result<Option<Vec<Vec<u32>>>> {
        if seq >= self.lens.len() || self.lens[seq] == 0 {
            let must = format!("one of the {} sequences that was selected for", self.lens.len());
            return Err(Error::Range { op: "read selection", what: "sequence", got: seq as u64, must });
        }
        if self.dense[seq] {
            return Ok(None);
        }
        Ok(Some((0..self.sets.count(self.heads)).map(|set| self.set(seq, set).to_vec()).collect()))
    }
}
