//! The seam between models and devices: some twenty coarse verbs, one argument struct each.
//!
//! A backend is an execution context (thread pool or stream, with its scratch), so verbs take `&mut self`. Everything
//! a step changes is an argument. Inside a decode step no verb allocates, synchronises with a device or copies from
//! the host. Dispatch is static: models are generic over `B: Backend`.

use std::sync::Arc;

use crate::{DType, GateScore, Heads, KeyGates, KvLayout, PageExtras, Result, Step, Tensor};

/// Bytes kept alive by whoever owns them (a file mapping, a vector, the executable itself).
#[derive(Clone)]
pub struct HostBytes {
    owner: Arc<dyn AsRef<[u8]> + Send + Sync>,
    start: usize,
    end: usize,
}

impl HostBytes {
    /// The bytes `range` of `owner`.
    ///
    /// # Errors
    /// When the range does not lie inside `owner`.
    pub fn new(owner: Arc<dyn AsRef<[u8]> + Send + Sync>, range: std::ops::Range<usize>) -> Result<Self> {
        let len = (*owner).as_ref().len();
        if range.start > range.end || range.end > len {
            return Err(crate::Error::Range {
                op: "host bytes",
                what: "end of range",
                got: range.end as u64,
                must: format!("at most {len}, and not before its start, {}", range.start),
            });
        }
        Ok(HostBytes { owner, start: range.start, end: range.end })
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        &(*self.owner).as_ref()[self.start..self.end]
    }
}

impl From<Vec<u8>> for HostBytes {
    fn from(bytes: Vec<u8>) -> Self {
        let end = bytes.len();
        HostBytes { owner: Arc::new(bytes), start: 0, end }
    }
}

impl std::fmt::Debug for HostBytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "HostBytes({} bytes)", self.end - self.start)
    }
}

/// A weight as it lies in a checkpoint: little-endian elements, row-major.
#[derive(Clone, Debug)]
pub struct HostTensor<const R: usize> {
    /// Element type.
    pub dtype: DType,
    /// Extents, outermost first.
    pub shape: [usize; R],
    /// `shape.product() * dtype.bytes()` bytes.
    pub bytes: HostBytes,
}

/// What an activation buffer is for; a device may store the kinds in different precisions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowsKind {
    /// The residual stream: float32 everywhere.
    Residual,
    /// Inputs and outputs of linear layers: float32 on the CPU, the weights' type on a GPU.
    Activation,
    /// Logits: float32 everywhere.
    Logits,
}

/// How many sets a selection has per sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sets {
    /// One set for all heads (LessIsMore, OmniKV, StreamingLLM).
    Shared,
    /// One set per KV head (Kascade, SeerAttention).
    PerKvHead,
    /// One set per query head (TidalDecode, Quest).
    PerQueryHead,
}

impl Sets {
    /// Sets of one sequence.
    pub fn count(self, heads: Heads) -> usize {
        match self {
            Sets::Shared => 1,
            Sets::PerKvHead => heads.kv(),
            Sets::PerQueryHead => heads.query(),
        }
    }
}

/// A token budget cut into its parts: `sinks + history + window = K` tokens.
///
/// A sequence with `n <= K` cached tokens is attended densely; no set is made for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// S: always-kept first positions.
    pub sinks: usize,
    /// M: ranked positions from the candidates `[S, n - W)`.
    pub history: usize,
    /// W: always-kept last positions, the current token included.
    pub window: usize,
}

impl Quota {
    /// K, the number of selected tokens.
    pub fn budget(self) -> usize {
        self.sinks + self.history + self.window
    }
}

/// Which positions a selection keeps besides sinks and window.
pub enum Pick<'a, B: Backend + ?Sized> {
    /// LessIsMore: the M candidates with the smallest `min_h(rank_h(t) * H + h)`, one set for all heads. Takes token
    /// scores.
    Union(&'a B::Scores),
    /// The same, but of each head's list only the shortest beginning that counts: tokens until sinks, window and list
    /// together hold at least `share` of the head's softmax (Twilight's rule). At most M candidates, maybe none.
    Mass {
        /// Token scores.
        scores: &'a B::Scores,
        /// Softmax scale.
        scale: f32,
        /// Part of a head's softmax, above 0 and at most 1.
        share: f64,
    },
    /// Each set's own M best candidates by its own row of the scores: of query heads (TidalDecode) or pooled. Takes
    /// token scores, a row a set.
    Best(&'a B::Scores, Sets),
    /// Each set's own best pages, `max(1, K / page_size)` whole pages: as many last ones as the window fills (at least
    /// one), the best others by score (Quest, DELTA, SeerAttention). Takes page scores, a row a set.
    Pages(&'a B::Scores, Sets),
    /// StreamingLLM: nothing else.
    Nothing,
}

/// What a [`Score`] writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScoreOf {
    /// `q_h . k_t` for every cached token t: float32, before scaling and softmax.
    Tokens,
    /// Quest's upper bound for every page: `sum_i max(q_i * min_i, q_i * max_i)` over the page's keys.
    Pages,
}

/// How the heads' softmax weights of a token become one value. Sums have a fixed order, so all backends agree to the bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooling {
    /// The sum over the query heads of a KV head, in ascending order: a row a KV head.
    Groups,
    /// The largest of all heads: one row.
    Peak,
    /// Of every page the sum of its tokens' `Peak`, in ascending order: one row.
    PagePeak,
}

impl Pooling {
    /// Rows of a sequence.
    pub fn rows(self, heads: Heads) -> usize {
        match self {
            Pooling::Groups => heads.kv(),
            Pooling::Peak | Pooling::PagePeak => 1,
        }
    }

    /// Values of a row for n = `len` tokens.
    pub fn columns(self, len: usize, page_size: crate::PageSize) -> usize {
        match self {
            Pooling::Groups | Pooling::Peak => len,
            Pooling::PagePeak => page_size.pages_for(len),
        }
    }
}

/// What a decode attention reads.
pub enum Over<'a, B: Backend + ?Sized> {
    /// All cached tokens.
    Dense,
    /// All cached tokens, and the raw token scores go to the buffer: a select layer that attends densely. Bit-equal
    /// to `Dense`.
    DenseScored(&'a mut B::Scores),
    /// The selected tokens; sequences that the selection marks dense are attended as by `Dense`, bit for bit.
    Selected(&'a B::Selection),
}

/// `x[row] = table[token[row]]`.
pub struct Embed<'a, B: Backend + ?Sized> {
    /// Embedding, `[vocab, hidden]`.
    pub table: &'a B::Linear,
    /// The step's tokens.
    pub batch: &'a B::Batch,
    /// Residual stream, `[>= rows, hidden]`.
    pub x: &'a mut Tensor<B::Rows, 2>,
}

/// `out = rms_norm(x) W^T + b`.
pub struct NormLinear<'a, B: Backend + ?Sized> {
    /// Residual stream, `[>= rows, in]`.
    pub x: &'a Tensor<B::Rows, 2>,
    /// RMSNorm weight, `[in]`.
    pub norm: &'a B::Vector,
    /// RMSNorm epsilon.
    pub eps: f32,
    /// Weight `[out, in]` with optional bias `[out]`.
    pub linear: &'a B::Linear,
    /// The step, for its number of rows.
    pub batch: &'a B::Batch,
    /// `[>= rows, out]`.
    pub out: &'a mut Tensor<B::Rows, 2>,
}

/// `x += a W^T`.
pub struct LinearAdd<'a, B: Backend + ?Sized> {
    /// `[>= rows, in]`.
    pub a: &'a Tensor<B::Rows, 2>,
    /// Weight `[hidden, in]` with optional bias.
    pub linear: &'a B::Linear,
    /// The step, for its number of rows.
    pub batch: &'a B::Batch,
    /// Residual stream, `[>= rows, hidden]`.
    pub x: &'a mut Tensor<B::Rows, 2>,
}

/// `h = rms_norm(x); out = silu(h Wg^T) * (h Wu^T)`.
pub struct NormGateUp<'a, B: Backend + ?Sized> {
    /// Residual stream, `[>= rows, hidden]`.
    pub x: &'a Tensor<B::Rows, 2>,
    /// RMSNorm weight, `[hidden]`.
    pub norm: &'a B::Vector,
    /// RMSNorm epsilon.
    pub eps: f32,
    /// Gate and up stacked: `[2 * intermediate, hidden]`, made from two parts.
    pub gate_up: &'a B::Linear,
    /// The step, for its number of rows.
    pub batch: &'a B::Batch,
    /// `[>= rows, intermediate]`.
    pub out: &'a mut Tensor<B::Rows, 2>,
}

/// QK-norm (where the model has it), rotary embedding, and the write of keys and values to their pages.
///
/// The rotation is HF's `rotate_half`: element `i < d/2` of a head pairs with `i + d/2`.
pub struct Append<'a, B: Backend + ?Sized> {
    /// Fused rows `[q | k | v]`, `[>= rows, (H + 2 kv) * d]`; the q part is normed and rotated in place.
    pub qkv: &'a mut Tensor<B::Rows, 2>,
    /// RMSNorm weights over head_dim for queries and keys (Qwen3).
    pub qk_norm: Option<(&'a B::Vector, &'a B::Vector)>,
    /// Epsilon of the two norms.
    pub eps: f32,
    /// Cosines and sines by position, scaled by the rope kind's attention factor.
    pub rope: &'a B::Rope,
    /// The step: positions and pages.
    pub batch: &'a B::Batch,
    /// This layer's pages.
    pub kv: &'a mut B::Kv,
}

/// Attention of the step's rows over their sequences: causal for a prefill step, which must be `Over::Dense`.
pub struct Attend<'a, B: Backend + ?Sized> {
    /// Fused rows after [`Append`]: row r's queries are its first `H * d` elements.
    pub q: &'a Tensor<B::Rows, 2>,
    /// This layer's pages.
    pub kv: &'a B::Kv,
    /// Head geometry.
    pub heads: Heads,
    /// Softmax scale, usually `1 / sqrt(head_dim)`.
    pub scale: f32,
    /// The step: lengths and pages.
    pub batch: &'a B::Batch,
    /// Tokens to attend to.
    pub over: Over<'a, B>,
    /// Layer number, for the counters.
    pub layer: usize,
    /// Counts the tokens that were really read.
    pub counters: &'a mut B::Counters,
    /// `[>= rows, H * d]`.
    pub out: &'a mut Tensor<B::Rows, 2>,
}

/// Scores without attention, for a select layer that attends to what it selects.
pub struct Score<'a, B: Backend + ?Sized> {
    /// Fused rows after [`Append`].
    pub q: &'a Tensor<B::Rows, 2>,
    /// This layer's pages.
    pub kv: &'a B::Kv,
    /// Head geometry.
    pub heads: Heads,
    /// The step, one row per sequence.
    pub batch: &'a B::Batch,
    /// Tokens or pages.
    pub of: ScoreOf,
    /// K: a sequence with `n <= K` is attended densely, so it is not scored.
    pub budget: usize,
    /// Layer number, for the counters.
    pub layer: usize,
    /// Counts the bytes that were really read.
    pub counters: &'a mut B::Counters,
    /// Scores, `[seqs][H][tokens or pages]`.
    pub out: &'a mut B::Scores,
}

/// Softmax weights from token scores, pooled over heads.
///
/// With c the float32 product of `scale` and log2(e), a head with the highest score m gives token t
/// `e = 2^(c (s_t - m))`, equal scores 2^0, NaN as -inf. The head's total is the integer sum of `floor(2^30 e)`, which no
/// order of summation changes, and the token's weight `e * (2^30 / total)`, everything rounded to float32 step by step.
/// `2^x` is 0 below x = -125, else a polynomial of degree 7 without fused operations. So results are the same bits
/// on every backend; `lim-select`'s reference has the steps as code.
pub struct Pool<'a, B: Backend + ?Sized> {
    /// Token scores of the query heads.
    pub scores: &'a B::Scores,
    /// Softmax scale.
    pub scale: f32,
    /// Head geometry.
    pub heads: Heads,
    /// The step, one row per sequence.
    pub batch: &'a B::Batch,
    /// How heads become rows.
    pub by: Pooling,
    /// K: a sequence with `n <= K` is attended densely, so nothing is pooled.
    pub budget: usize,
    /// Made by [`Backend::pooled`] for as many rows: `[seqs][rows][tokens or pages]`.
    pub out: &'a mut B::Scores,
}

/// Choice of the tokens that later attentions read.
pub struct Select<'a, B: Backend + ?Sized> {
    /// Rule and its scores.
    pub pick: Pick<'a, B>,
    /// Budget.
    pub quota: Quota,
    /// Head geometry.
    pub heads: Heads,
    /// The step, one row per sequence.
    pub batch: &'a B::Batch,
    /// Layer number, for the counters.
    pub layer: usize,
    /// Counts the selections that were really made.
    pub counters: &'a mut B::Counters,
    /// Ascending positions per set, or the mark for dense where `n <= K`.
    pub out: &'a mut B::Selection,
}

/// `logits = rms_norm(x[rows]) W^T`, float32.
pub struct Logits<'a, B: Backend + ?Sized> {
    /// Residual stream.
    pub x: &'a Tensor<B::Rows, 2>,
    /// Final RMSNorm weight.
    pub norm: &'a B::Vector,
    /// RMSNorm epsilon.
    pub eps: f32,
    /// Head, `[vocab, hidden]`.
    pub head: &'a B::Linear,
    /// Rows of `x` to read, at most as many as `out` has.
    pub rows: &'a [u32],
    /// `[>= rows.len(), vocab]`.
    pub out: &'a mut Tensor<B::Rows, 2>,
}

/// Sampling settings of one sequence. Order: penalties, temperature, top-k, top-p, min-p.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SampleParams {
    /// 0 is greedy: the highest logit, the lowest id on ties.
    pub temperature: f32,
    /// Keep the k most likely tokens; 0 is off.
    pub top_k: usize,
    /// Keep the smallest set with this probability mass; 1 is off.
    pub top_p: f32,
    /// Drop tokens less likely than this times the most likely; 0 is off.
    pub min_p: f32,
    /// Divides positive and multiplies negative logits of tokens seen before; 1 is off.
    pub repetition_penalty: f32,
    /// Subtracted once from logits of tokens generated before; 0 is off.
    pub presence_penalty: f32,
    /// Subtracted per occurrence from logits of tokens generated before; 0 is off.
    pub frequency_penalty: f32,
    /// Seed of the sequence's random stream.
    pub seed: u64,
}

impl Default for SampleParams {
    fn default() -> Self {
        SampleParams {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            seed: 0,
        }
    }
}

/// How one sequence's next token comes about.
#[derive(Clone, Copy, Debug, Default)]
pub struct Draw<'a> {
    /// Settings.
    pub params: SampleParams,
    /// Prompt tokens, for the repetition penalty.
    pub prompt: &'a [u32],
    /// Tokens generated so far, for all penalties; their number picks the random value of the stream.
    pub generated: &'a [u32],
    /// Takes this token instead of drawing one; its logprob is given all the same (teacher forcing, thinking budgets).
    pub forced: Option<u32>,
    /// Tokens that end the sequence, at most [`MAX_STOP_TOKENS`]; see [`Sample::next`].
    pub stop: &'a [u32],
}

/// Most tokens of [`Draw::stop`].
pub const MAX_STOP_TOKENS: usize = 16;

/// Draws that may be posted and not yet read ([`Backend::post_draws`]).
pub const MAX_UNREAD_DRAWS: usize = 2;

/// A sampled token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampled {
    /// Token id.
    pub token: u32,
    /// Natural log of its probability under the unscaled softmax (temperature 1, no penalties).
    pub logprob: f32,
}

/// Draws one token per logits row, by the settings and counts in `draws`, which move one token on with it.
pub struct Sample<'a, B: Backend + ?Sized> {
    /// `[>= rows, vocab]`.
    pub logits: &'a Tensor<B::Rows, 2>,
    /// Made for the logits' vocabulary; [`Backend::start_draws`] has said how to draw.
    pub draws: &'a mut B::Draws,
    /// The decode step that the logits are of: all its rows are drawn for, and its batch becomes what they continue with
    /// ([`Step::push_next`]). A row that drew one of its stop tokens becomes an empty place, of length 0, and stays one.
    /// `None` draws for the rows that were started.
    pub next: Option<&'a mut B::Batch>,
}

/// Upper bounds of what one step may hold; buffers are made for it once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Rows of a step.
    pub rows: usize,
    /// Sequences of a step.
    pub seqs: usize,
    /// Cached tokens of one sequence.
    pub tokens: usize,
}

/// What one layer really did since the counters were made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LayerCount {
    /// Tokens read by decode attention, summed over sequences and steps; a set per head counts its mean over heads,
    /// rounded.
    pub attended: u64,
    /// Tokens that dense decode attention would have read.
    pub context: u64,
    /// Selections made (one per sequence and step, none where `n <= K`).
    pub selections: u64,
    /// KV bytes read by decode attention and scoring.
    pub kv_bytes: u64,
}

/// A device and its kernels.
pub trait Backend {
    /// A weight matrix, possibly of several parts stacked along its outputs, with optional bias.
    type Linear;
    /// A norm weight.
    type Vector;
    /// Cosine and sine tables.
    type Rope;
    /// Activation storage.
    type Rows;
    /// A step's tokens, lengths and page tables where the kernels read them.
    type Batch;
    /// One layer's pages.
    type Kv;
    /// Raw scores, `[seqs][H][tokens or pages]`, or pooled weights in as many rows as asked for.
    type Scores;
    /// Selected positions, `[seqs][sets][<= K]`.
    type Selection;
    /// Per-layer counters.
    type Counters;
    /// Settings and counts that draws go by, and what they drew.
    type Draws;
    /// A recorded run of verbs; `()` on a device that runs them right away.
    type Recording;

    /// Device as reports name it, such as `cpu (2 threads, avx512)` or `cuda:0 (NVIDIA H200)`.
    fn device(&self) -> String;
    /// Steps that a caller should have under way before it reads what the first of them drew: 0 where verbs have run
    /// when they return, up to `MAX_UNREAD_DRAWS - 1` where they run on a device of their own.
    fn lag(&self) -> usize {
        0
    }
    /// Sequences that a decode step of `seqs` is to be filled up to with [`Step::pad`], so that few recordings serve all
    /// sizes; never more than `most`.
    fn padded(&self, seqs: usize, most: usize) -> usize {
        seqs.min(most)
    }

    /// Takes weight parts `[out_i, in]` with their biases `[out_i]`; the result is `[sum of out_i, in]`.
    fn linear(&mut self, parts: &[(HostTensor<2>, Option<HostTensor<1>>)]) -> Result<Self::Linear>;
    /// Takes a norm weight.
    fn vector(&mut self, weight: &HostTensor<1>) -> Result<Self::Vector>;
    /// Takes `cos` and `sin`, each `[positions, rotary_dim / 2]` float32 row-major.
    fn rope(&mut self, cos: &[f32], sin: &[f32], half: usize) -> Result<Self::Rope>;
    /// Makes an activation buffer `[rows, width]`.
    fn rows(&mut self, kind: RowsKind, shape: [usize; 2]) -> Result<Tensor<Self::Rows, 2>>;
    /// Makes one layer's pages, with room for `extras`.
    fn kv(&mut self, layout: KvLayout, pages: usize, extras: PageExtras) -> Result<Self::Kv>;
    /// Makes the place for steps of up to `capacity`.
    fn batch(&mut self, capacity: Capacity, page_size: crate::PageSize) -> Result<Self::Batch>;
    /// Makes a score buffer for `capacity.seqs` sequences of `capacity.tokens` tokens.
    fn scores(&mut self, capacity: Capacity, heads: Heads) -> Result<Self::Scores>;
    /// Makes a buffer for `rows` rows of pooled weights a sequence.
    fn pooled(&mut self, capacity: Capacity, rows: usize) -> Result<Self::Scores>;
    /// Makes room for selections of `budget` tokens per set.
    fn selection(
        &mut self,
        capacity: Capacity,
        heads: Heads,
        sets: Sets,
        budget: usize,
    ) -> Result<Self::Selection>;
    /// Makes room for draws of `rows` rows from `vocab` tokens.
    fn draws(&mut self, rows: usize, vocab: usize) -> Result<Self::Draws>;
    /// Makes counters, all zero.
    fn counters(&mut self, layers: usize) -> Result<Self::Counters>;

    /// Brings a step to the device. Of one that continues the last draw only the pages are new.
    fn upload(&mut self, step: &Step, batch: &mut Self::Batch) -> Result<()>;
    /// Says how rows are drawn for from here on: row r by `draws[r]`. Every [`Sample`] moves all rows one token on, so that
    /// the next one needs no other start. What was posted and not read is forgotten.
    fn start_draws(&mut self, draws: &[Draw<'_>], to: &mut Self::Draws) -> Result<()>;
    /// Forces the next token of the rows that have one here.
    fn force_draws(&mut self, tokens: &[Option<u32>], draws: &mut Self::Draws) -> Result<()>;
    /// Ends a step that has sampled, run or replayed: what it drew can be read from here on. At most
    /// [`MAX_UNREAD_DRAWS`] wait to be read.
    fn post_draws(&mut self, draws: &mut Self::Draws) -> Result<()>;
    /// What the oldest step that was posted and not read drew for its first rows, once it is done; steps after it may
    /// still run.
    ///
    /// # Errors
    /// [`Error::NotFinite`](crate::Error::NotFinite) where a logit kept a token from being drawn.
    fn read_draws(&mut self, draws: &mut Self::Draws, out: &mut [Sampled]) -> Result<()>;
    /// Copies page `from` over page `to` (copy-on-write of a forked sequence).
    fn copy_page(&mut self, kv: &mut Self::Kv, from: u32, to: u32) -> Result<()>;
    /// Reads rows `0..out.len() / width` back as float32.
    fn read_rows(&mut self, rows: &Tensor<Self::Rows, 2>, out: &mut [f32]) -> Result<()>;
    /// Writes rows from row 0 on; `data.len()` is a multiple of the width.
    fn write_rows(&mut self, data: &[f32], rows: &mut Tensor<Self::Rows, 2>) -> Result<()>;
    /// Writes scores of one sequence: `[H][count]`.
    fn write_scores(&mut self, seq: usize, data: &[f32], scores: &mut Self::Scores) -> Result<()>;
    /// Reads scores of one sequence back: `[H][count]`.
    fn read_scores(&mut self, seq: usize, count: usize, scores: &Self::Scores) -> Result<Vec<f32>>;
    /// Selected positions of one sequence, one list per set; `None` where it is dense.
    fn read_selection(&mut self, seq: usize, selection: &Self::Selection) -> Result<Option<Vec<Vec<u32>>>>;
    /// What each layer did.
    fn read_counters(&mut self, counters: &Self::Counters) -> Result<Vec<LayerCount>>;

    /// Runs `verbs` and, where the device can, records them: [`Backend::replay`] then runs the same kernels on the same
    /// buffers, with what a later `upload` of as many rows has put into the batch, or a draw left there. `verbs` has run before, so that
    /// scratch has its size, and neither uploads nor reads back. The buffers must outlive the recording.
    fn record<E: From<crate::Error>>(
        &mut self,
        verbs: impl FnOnce(&mut Self) -> Result<(), E>,
    ) -> Result<Option<Self::Recording>, E>;
    /// Runs a recording.
    fn replay(&mut self, recording: &Self::Recording) -> Result<()>;

    /// See [`Embed`].
    fn embed(&mut self, op: Embed<'_, Self>) -> Result<()>;
    /// See [`NormLinear`].
    fn norm_linear(&mut self, op: NormLinear<'_, Self>) -> Result<()>;
    /// See [`LinearAdd`].
    fn linear_add(&mut self, op: LinearAdd<'_, Self>) -> Result<()>;
    /// See [`NormGateUp`].
    fn norm_gate_up(&mut self, op: NormGateUp<'_, Self>) -> Result<()>;
    /// See [`Append`].
    fn append(&mut self, op: Append<'_, Self>) -> Result<()>;
    /// See [`KeyGates`].
    fn key_gates(&mut self, op: KeyGates<'_, Self>) -> Result<()>;
    /// See [`Attend`].
    fn attend(&mut self, op: Attend<'_, Self>) -> Result<()>;
    /// See [`Score`].
    fn score(&mut self, op: Score<'_, Self>) -> Result<()>;
    /// See [`GateScore`].
    fn gate_score(&mut self, op: GateScore<'_, Self>) -> Result<()>;
    /// See [`Pool`].
    fn pool(&mut self, op: Pool<'_, Self>) -> Result<()>;
    /// See [`Select`].
    fn select(&mut self, op: Select<'_, Self>) -> Result<()>;
    /// [`select`](Self::select) and [`norm_gate_up`](Self::norm_gate_up), with the same results: neither looks at what the other
    /// writes, and a device may do one beside the other.
    fn select_and_gate_up(&mut self, op: Select<'_, Self>, gate_up: NormGateUp<'_, Self>) -> Result<()> {
        self.select(op)?;
        self.norm_gate_up(gate_up)
    }
    /// See [`Logits`].
    fn logits(&mut self, op: Logits<'_, Self>) -> Result<()>;
    /// See [`Sample`].
    fn sample(&mut self, op: Sample<'_, Self>) -> Result<()>;
}
