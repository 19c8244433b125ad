//! Gates of pages (SeerAttention-R, arXiv 2506.08889): what they are, and the two verbs that make and rank them.
//!
//! With d = head_dim and g query heads per KV head, a page and a query meet, for each KV head, in d numbers:
//!
//! ```text
//! key gate of a page  = rope(Wk . [max | min | mean over the page's keys], position of the page's first token)
//! query gate          = rope(Wq . [the group's g queries], position of the query)
//! score of a page     = query gate . key gate / sqrt(d)
//! ```
//!
//! Keys and queries enter as they were before their rotation: stored ones are turned back, and divided by the square of
//! the rope tables' scale where they have one. Products and sums are float32, a key gate is rounded once, to the keys'
//! type.

use crate::{Backend, Heads, Tensor};

/// One layer's gate weights, without biases.
pub struct PageGates<'a, B: Backend + ?Sized> {
    /// Wq, `[kv_heads * d, g * d]`: rows `j * d ..` are KV head j's.
    pub q: &'a B::Linear,
    /// Wk, `[kv_heads * d, 3 * d]`.
    pub k: &'a B::Linear,
    /// The tables that rotate the model's own heads.
    pub rope: &'a B::Rope,
}

impl<B: Backend + ?Sized> Clone for PageGates<'_, B> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<B: Backend + ?Sized> Copy for PageGates<'_, B> {}

/// Key gates of the pages that the step's rows have filled, prefill or decode. A page without its last token has none.
pub struct KeyGates<'a, B: Backend + ?Sized> {
    /// Weights.
    pub gates: PageGates<'a, B>,
    /// The step, whose rows [`Append`](crate::Append) has written.
    pub batch: &'a B::Batch,
    /// This layer's pages, made with room for gates.
    pub kv: &'a mut B::Kv,
}

/// Scores of pages by their gates, a row a KV head. The last page scores 0 where it is not full: it is read in any case.
pub struct GateScore<'a, B: Backend + ?Sized> {
    /// Fused rows after [`Append`](crate::Append).
    pub q: &'a Tensor<B::Rows, 2>,
    /// Weights.
    pub gates: PageGates<'a, B>,
    /// This layer's pages with their key gates.
    pub kv: &'a B::Kv,
    /// Head geometry.
    pub heads: Heads,
    /// The step, one row per sequence.
    pub batch: &'a B::Batch,
    /// K: a sequence with `n <= K` is attended densely, so it is not scored.
    pub budget: usize,
    /// Layer number, for the counters.
    pub layer: usize,
    /// Counts the bytes of gates that were really read.
    pub counters: &'a mut B::Counters,
    /// Made by [`Backend::pooled`] for as many rows as there are KV heads: `[seqs][kv_heads][pages]`.
    pub out: &'a mut B::Scores,
}
