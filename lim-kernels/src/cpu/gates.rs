//! Gates of pages (SeerAttention-R, Gao et al. 2025): key gates of filled pages, and pages' scores by them.

use super::Cpu;
use super::append::Narrow;
use super::attend::expect_layer;
use super::buffer::{Buffer, Parts};
use super::simd::{Elem, Isa, Kernel, Simd, with_elem};
use super::store::{Batch, Kv, Linear, Rope, expect_rows, shape_error};
use crate::{DType, Error, GateScore, Heads, KeyGates, KvLayout, PageGates, Result};

/// Pages of one scoring task.
const PAGES: usize = 256;

/// The dot product of `x` with as many stored elements.
///
/// # Safety
/// `x.len()` elements must be readable at `stored`.
#[inline(always)]
unsafe fn dot<S: Simd, E: Elem>(s: S, x: &[f32], stored: *const u8) -> f32 {
    let mut sums = s.splat(0.0);
    let mut i = 0;
    // SAFETY: `i` and the lanes after it stay below `x.len()`.
    unsafe {
        while i + S::LANES <= x.len() {
            sums = s.fma(s.load(x.as_ptr().add(i)), E::load(s, stored.add(i * E::BYTES)), sums);
            i += S::LANES;
        }
        let mut sum = s.sum(sums);
        while i < x.len() {
            sum += x[i] * E::get(stored.add(i * E::BYTES));
            i += 1;
        }
        sum
    }
}

/// A head before its rotation: `[low | high]` turned back by the position's cosines and sines.
#[inline(always)]
fn turn_back(low: f32, high: f32, cos: f32, sin: f32) -> (f32, f32) {
    let scale = 1.0 / (cos * cos + sin * sin);
    ((low * cos + high * sin) * scale, (high * cos - low * sin) * scale)
}

/// `out = rope(W x)`, one head.
struct Project<'a> {
    dtype: DType,
    /// `[out.len(), x.len()]`.
    weight: &'a [u8],
    x: &'a [f32],
    cos: &'a [f32],
    sin: &'a [f32],
    out: &'a mut [f32],
}

impl Kernel for Project<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Project { dtype, weight, x, cos, sin, out } = self;
        with_elem!(dtype, E => {
            let row = x.len() * E::BYTES;
            assert!(weight.len() == out.len() * row && cos.len() * 2 == out.len() && sin.len() == cos.len());
            for (i, out) in out.iter_mut().enumerate() {
                // SAFETY: row i of the weight.
                *out = unsafe { dot::<S, E>(s, x, weight.as_ptr().add(i * row)) };
            }
        });
        let (low, high) = out.split_at_mut(cos.len());
        for i in 0..cos.len() {
            let (a, b) = (low[i], high[i]);
            low[i] = a * cos[i] - b * sin[i];
            high[i] = b * cos[i] + a * sin[i];
        }
    }
}

/// `[max | min | mean]` over one head's keys of a page, before their rotation.
struct PoolKeys<'a> {
    layout: KvLayout,
    /// This head's key at slot 0; the next slot's lies a token further.
    keys: *const u8,
    /// `[page_size, half]` of the page's positions.
    cos: &'a [f32],
    sin: &'a [f32],
    /// `[3 * head_dim]`.
    out: &'a mut [f32],
}

impl Kernel for PoolKeys<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let PoolKeys { layout, keys, cos, sin, out } = self;
        let (dim, size) = (layout.heads.dim(), layout.page_size.tokens());
        let half = dim / 2;
        assert!(out.len() == 3 * dim && cos.len() == size * half && sin.len() == cos.len());
        let (most, rest) = out.split_at_mut(dim);
        let (least, sum) = rest.split_at_mut(dim);
        most.fill(f32::NEG_INFINITY);
        least.fill(f32::INFINITY);
        sum.fill(0.0);
        with_elem!(layout.dtype, E => {
            for slot in 0..size {
                for i in 0..half {
                    // SAFETY: the maker of this kernel vouches for `size` keys of `dim` elements.
                    let (low, high) = unsafe {
                        let key = keys.add((slot * layout.token_width() + i) * E::BYTES);
                        (E::get(key), E::get(key.add(half * E::BYTES)))
                    };
                    let (low, high) = turn_back(low, high, cos[slot * half + i], sin[slot * half + i]);
                    most[i] = most[i].max(low);
                    most[i + half] = most[i + half].max(high);
                    least[i] = least[i].min(low);
                    least[i + half] = least[i + half].min(high);
                    sum[i] += low;
                    sum[i + half] += high;
                }
            }
        });
        for x in sum {
            *x *= 1.0 / size as f32;
        }
    }
}

/// `query gate . key gate` of some pages of one KV head.
struct ScorePages<'a> {
    layout: KvLayout,
    gates: &'a [u8],
    /// Full pages.
    pages: &'a [u32],
    head: usize,
    /// The query gate over sqrt(d).
    q: &'a [f32],
    out: &'a mut [f32],
}

impl Kernel for ScorePages<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let ScorePages { layout, gates, pages, head, q, out } = self;
        let (dim, width) = (layout.heads.dim(), layout.token_width());
        assert!(q.len() == dim);
        with_elem!(layout.dtype, E => {
            for (&page, out) in pages.iter().zip(out) {
                let gate = &gates[(page as usize * width + head * dim) * E::BYTES..][..dim * E::BYTES];
                // SAFETY: the gate holds `dim` elements.
                *out = unsafe { dot::<S, E>(s, q, gate.as_ptr()) };
            }
        })
    }
}

/// A gate's weight as the kernels read it.
#[derive(Clone, Copy)]
struct Weight<'a> {
    dtype: DType,
    bytes: &'a [u8],
}

impl<'a> Weight<'a> {
    /// Checks that `linear` is `[kv_heads * d, inputs]` in one part, without bias.
    fn new(
        op: &'static str,
        operand: &'static str,
        linear: &'a Linear,
        heads: Heads,
        inputs: usize,
    ) -> Result<Self> {
        let (got, need) = ([linear.outputs, linear.inputs], [heads.kv() * heads.dim(), inputs]);
        if got != need {
            return Err(shape_error(op, operand, &got, &need));
        }
        match &linear.parts[..] {
            [part] if part.bias.is_none() => Ok(Weight { dtype: part.dtype, bytes: part.bytes() }),
            parts => {
                let (what, must) = ("parts of a gate's weight", "1, without bias".into());
                Err(Error::Range { op, what, got: parts.len() as u64, must })
            }
        }
    }

    /// Rows of KV head `head` of `kv`.
    fn head(self, head: usize, kv: usize) -> &'a [u8] {
        let len = self.bytes.len() / kv;
        &self.bytes[head * len..(head + 1) * len]
    }
}

/// Checks that the tables turn these heads at every position of the step.
fn expect_rope(op: &'static str, rope: &Rope, heads: Heads, batch: &Batch) -> Result<()> {
    if rope.half * 2 != heads.dim() {
        return Err(shape_error(op, "rope", &[rope.half], &[heads.dim() / 2]));
    }
    let longest = batch.step.max_len();
    if longest > rope.positions() {
        let must = format!("at most the rope tables' {}", rope.positions());
        return Err(Error::Range { op, what: "sequence length", got: longest as u64, must });
    }
    Ok(())
}

fn without_gates(op: &'static str) -> Error {
    let must = "the number of its pages: made with gates".into();
    Error::Range { op, what: "page gates kept by the pages", got: 0, must }
}

impl Cpu {
    pub(super) fn key_gates_op(&mut self, op: KeyGates<'_, Self>) -> Result<()> {
        const OP: &str = "key gates";
        let KeyGates { gates: PageGates { k, rope, .. }, batch, kv } = op;
        let layout = kv.layout;
        let (heads, size) = (layout.heads, layout.page_size.tokens());
        let (dim, half, bytes) = (heads.dim(), rope.half, layout.dtype.bytes());
        kv.expect(OP, heads, batch)?;
        expect_rope(OP, rope, heads, batch)?;
        let weight = Weight::new(OP, "key weight", k, heads, 3 * dim)?;
        let Kv { data, gates: Some(gates), .. } = kv else { return Err(without_gates(OP)) };
        for room in &mut self.scratch {
            room.reserve(4 * dim)?;
        }
        let (isa, keys, rooms) = (self.isa, data.bytes(), Parts::new(&mut self.scratch));
        let out = Parts::new(gates.bytes_mut());
        // A task owns one KV head for all pages, so tasks never meet in memory, whatever the page tables say.
        self.pool.run(heads.kv(), |head, thread| {
            // SAFETY: a thread uses its own scratch.
            let room: &mut Buffer = unsafe { &mut rooms.slice(thread, 1)[0] };
            let (pooled, gate) = room.f32s_mut()[..4 * dim].split_at_mut(3 * dim);
            for seq in batch.step.iter() {
                for index in seq.start() / size..seq.len / size {
                    let (page, table) = (seq.pages[index] as usize, index * size * half);
                    let (cos, sin) = (&rope.cos[table..][..size * half], &rope.sin[table..][..size * half]);
                    let at = (layout.key_offset(page, 0) + head * dim) * bytes;
                    let span = ((size - 1) * layout.token_width() + dim) * bytes;
                    let keys = keys[at..][..span].as_ptr();
                    isa.run(PoolKeys { layout, keys, cos, sin, out: &mut *pooled });
                    let (cos, sin) = (&cos[..half], &sin[..half]);
                    let (dtype, weight) = (weight.dtype, weight.head(head, heads.kv()));
                    isa.run(Project { dtype, weight, x: pooled, cos, sin, out: &mut *gate });
                    let at = (page * layout.token_width() + head * dim) * bytes;
                    // SAFETY: this task alone touches its head of any page.
                    let to = unsafe { out.slice(at, dim * bytes) };
                    isa.run(Narrow { dtype: layout.dtype, from: gate, to });
                }
            }
        });
        Ok(())
    }

    pub(super) fn gate_score_op(&mut self, op: GateScore<'_, Self>) -> Result<()> {
        const OP: &str = "gate score";
        let GateScore {
            q, gates: PageGates { q: weight, rope, .. }, kv, heads, batch, budget, layer, ..
        } = op;
        let (counters, out) = (op.counters, op.out);
        kv.expect(OP, heads, batch)?;
        batch.expect_decode(OP)?;
        expect_rope(OP, rope, heads, batch)?;
        expect_rows(OP, "q", q, [batch.step.rows(), heads.qkv_width()])?;
        out.expect_rows(OP, heads.kv(), batch)?;
        let count = expect_layer(OP, counters, layer)?;
        let (layout, dim, width) = (kv.layout, heads.dim(), heads.group() * heads.dim());
        let weight = Weight::new(OP, "query weight", weight, heads, width)?;
        let Some(gates) = &kv.gates else { return Err(without_gates(OP)) };
        for room in &mut self.scratch {
            room.reserve(width)?;
        }
        self.partials.reserve(heads.kv() * dim)?;
        for (seq, step) in batch.step.iter().enumerate() {
            let full = step.len / layout.page_size.tokens();
            out.counts[seq] = if step.len > budget { step.pages.len() } else { 0 };
            if step.len <= budget {
                continue;
            }
            let table = step.start() * rope.half;
            let query = Query {
                isa: self.isa,
                heads,
                rows: &q.data().f32s()[seq * heads.qkv_width()..][..heads.query() * dim],
                weight,
                cos: &rope.cos[table..][..rope.half],
                sin: &rope.sin[table..][..rope.half],
            };
            let rooms = Parts::new(&mut self.scratch);
            let found = Parts::new(&mut self.partials.f32s_mut()[..heads.kv() * dim]);
            self.pool.run(heads.kv(), |head, thread| {
                // SAFETY: a thread uses its own scratch, a task its own head.
                unsafe {
                    let room: &mut Buffer = &mut rooms.slice(thread, 1)[0];
                    query.gate(head, &mut room.f32s_mut()[..width], found.slice(head * dim, dim));
                }
            });
            let (queries, isa) = (&self.partials.f32s()[..heads.kv() * dim], self.isa);
            let (stride, start) = (out.tokens, seq * heads.kv() * out.tokens);
            let scores = Parts::new(out.data.f32s_mut());
            self.pool.run(heads.kv() * full.div_ceil(PAGES), |task, _| {
                let (head, first) = (task % heads.kv(), task / heads.kv() * PAGES);
                let pages = &step.pages[first..(first + PAGES).min(full)];
                // SAFETY: this task alone writes its pages' scores of its head.
                let out = unsafe { scores.slice(start + head * stride + first, pages.len()) };
                let q = &queries[head * dim..][..dim];
                isa.run(ScorePages { layout, gates: gates.bytes(), pages, head, q, out });
            });
            for head in 0..heads.kv() {
                let row = start + head * stride;
                out.data.f32s_mut()[row + full..row + step.pages.len()].fill(0.0);
            }
            count.kv_bytes += (full * layout.token_width() * layout.dtype.bytes()) as u64;
        }
        Ok(())
    }
}

/// One sequence's queries on their way to gates.
struct Query<'a> {
    isa: Isa,
    heads: Heads,
    /// `[H * d]`, rotated.
    rows: &'a [f32],
    weight: Weight<'a>,
    cos: &'a [f32],
    sin: &'a [f32],
}

impl Query<'_> {
    /// KV head `head`'s query gate over sqrt(d); `turned` is room for its query heads.
    fn gate(&self, head: usize, turned: &mut [f32], out: &mut [f32]) {
        let Query { isa, heads, rows, weight, cos, sin } = *self;
        let (dim, half, width) = (heads.dim(), cos.len(), turned.len());
        let rows = rows[head * width..][..width].chunks_exact(dim);
        for (q, turned) in rows.zip(turned.chunks_exact_mut(dim)) {
            for i in 0..half {
                (turned[i], turned[i + half]) = turn_back(q[i], q[i + half], cos[i], sin[i]);
            }
        }
        let (dtype, weight) = (weight.dtype, weight.head(head, heads.kv()));
        isa.run(Project { dtype, weight, x: turned, cos, sin, out: &mut *out });
        let scale = 1.0 / (dim as f32).sqrt();
        for x in out {
            *x *= scale;
        }
    }
}
