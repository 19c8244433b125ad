//! One step's input: which tokens enter, for which sequences, and where their pages lie.

use std::ops::Range;

use crate::{Capacity, Error, PageSize, Result};

/// The rows that enter the model together, grouped by sequence.
///
/// A decode step has one row per sequence; a prefill chunk has many rows of one. Row `r` of a sequence with `m` rows
/// and `n` cached tokens (these rows included) stands at position `n - m + r`. An empty place has one row and length 0: its
/// row computes something, which nobody reads, and touches no page.
#[derive(Clone, Debug, Default)]
pub struct Step {
    tokens: Vec<u32>,
    spans: Vec<Span>,
    pages: Vec<u32>,
    /// The tokens are those that were drawn last.
    continues: bool,
}

#[derive(Clone, Debug)]
struct Span {
    rows: Range<usize>,
    len: usize,
    pages: Range<usize>,
}

/// One sequence's part of a [`Step`].
#[derive(Clone, Debug)]
pub struct SeqStep<'a> {
    /// Rows of the step that belong to the sequence.
    pub rows: Range<usize>,
    /// n: cached tokens once these rows are appended.
    pub len: usize,
    /// Physical pages in order; page `p` holds positions `p * page_size ..`.
    pub pages: &'a [u32],
}

impl SeqStep<'_> {
    /// Position of the first of these rows; 0 for an empty place.
    pub fn start(&self) -> usize {
        self.len.saturating_sub(self.rows.len())
    }
}

impl Step {
    /// An empty step with room for `capacity`, so that pushing up to that much does not allocate.
    pub fn with_capacity(capacity: Capacity, page_size: PageSize) -> Self {
        let Capacity { rows, seqs, tokens } = capacity;
        Step {
            tokens: Vec::with_capacity(rows),
            spans: Vec::with_capacity(seqs),
            pages: Vec::with_capacity(seqs * page_size.pages_for(tokens)),
            continues: false,
        }
    }

    /// Forgets all sequences, keeps the memory.
    pub fn clear(&mut self) {
        self.tokens.clear();
        self.spans.clear();
        self.pages.clear();
        self.continues = false;
    }

    /// Adds a sequence: `tokens` are its new rows, `len` its cached tokens including them, `pages` its page table.
    ///
    /// # Errors
    /// When there is no row, `len` is smaller than the number of rows, or the step continues a draw.
    pub fn push(&mut self, tokens: &[u32], len: usize, pages: &[u32]) -> Result<()> {
        if self.continues {
            return Err(mixed());
        }
        if tokens.is_empty() || len < tokens.len() {
            return Err(Error::Range {
                op: "step",
                what: "rows of a sequence",
                got: tokens.len() as u64,
                must: format!("from 1 to its length, {len}"),
            });
        }
        self.add(tokens, len, pages);
        Ok(())
    }

    /// Adds a sequence that goes on with the token drawn for it in this place of the step before
    /// ([`Sample::next`](crate::Sample::next)): the device knows it. A step has such sequences only, as many and in the
    /// same places, each of them one token longer.
    ///
    /// # Errors
    /// When `len` is 0, or the step has given tokens.
    pub fn push_next(&mut self, len: usize, pages: &[u32]) -> Result<()> {
        if !self.continues && !self.tokens.is_empty() {
            return Err(mixed());
        }
        if len == 0 {
            let must = "at least 1".into();
            return Err(Error::Range { op: "step", what: "length of a sequence", got: 0, must });
        }
        self.continues = true;
        self.add(&[0], len, pages);
        Ok(())
    }

    /// Adds empty places until the step has `seqs` sequences.
    pub fn pad(&mut self, seqs: usize) {
        while self.spans.len() < seqs {
            self.add(&[0], 0, &[]);
        }
    }

    fn add(&mut self, tokens: &[u32], len: usize, pages: &[u32]) {
        let (row, page) = (self.tokens.len(), self.pages.len());
        self.tokens.extend_from_slice(tokens);
        self.pages.extend_from_slice(pages);
        self.spans.push(Span { rows: row..self.tokens.len(), len, pages: page..self.pages.len() });
    }

    /// Whether the tokens are those that were drawn last, and not given here.
    pub fn continues(&self) -> bool {
        self.continues
    }

    /// Token ids, one a row.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.tokens.len()
    }

    /// Number of sequences.
    pub fn seqs(&self) -> usize {
        self.spans.len()
    }

    /// Whether every sequence has exactly one row.
    pub fn is_decode(&self) -> bool {
        self.rows() == self.seqs()
    }

    /// The sequence at `index`.
    ///
    /// # Panics
    /// When `index >= self.seqs()`.
    pub fn seq(&self, index: usize) -> SeqStep<'_> {
        let span = &self.spans[index];
        SeqStep { rows: span.rows.clone(), len: span.len, pages: &self.pages[span.pages.clone()] }
    }

    /// All sequences in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = SeqStep<'_>> {
        (0..self.seqs()).map(|i| self.seq(i))
    }

    /// The longest sequence's length, 0 without sequences.
    pub fn max_len(&self) -> usize {
        self.spans.iter().map(|s| s.len).max().unwrap_or(0)
    }
}

fn mixed() -> Error {
    let must = "all given, or all those drawn last".into();
    Error::Range { op: "step", what: "tokens of another origin", got: 1, must }
}
