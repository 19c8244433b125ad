//! Causal attention of a prompt: blocks of query rows against tiles of keys and values widened to float32, with an
//! online softmax (Milakov and Gimelshein 2018).
//!
//! Query rows are the lanes of all vectors: scores are `[token][lane]`, sums `[element][lane]`. So the softmax needs
//! no sums across lanes, and both products are the tiles of `tile.rs`.

use std::ops::Range;

use super::Cpu;
use super::buffer::{Buffer, Parts};
use super::simd::{Elem, Kernel, Simd, with_elem};
use super::store::{Batch, Kv};
use super::tile::{PANEL, Rows, tile};
use crate::{Result, SeqStep, Tensor};

/// Query rows times query heads of one block, about.
const BLOCK: usize = 128;
/// Cached tokens of one tile: a multiple of every `GEMM_ROWS`.
const TILE: usize = 96;
/// The widest panel of lanes, and the most rows of a tile of products.
const MOST: usize = PANEL * 16;

impl Cpu {
    pub(super) fn prefill_attention(
        &mut self,
        q: &Tensor<Buffer, 2>,
        kv: &Kv,
        scale: f32,
        batch: &Batch,
        out: &mut Tensor<Buffer, 2>,
    ) -> Result<()> {
        let heads = kv.layout.heads;
        let rows = (BLOCK / heads.group()).max(8);
        let blocks: Vec<(usize, usize)> = batch
            .step
            .iter()
            .enumerate()
            .flat_map(|(seq, step)| (0..step.rows.len().div_ceil(rows)).map(move |block| (seq, block)))
            .collect();
        for room in &mut self.scratch {
            room.reserve(Room::floats(rows * heads.group(), heads.dim()))?;
        }
        let rooms = Parts::new(&mut self.scratch);
        let out = Parts::new(out.data_mut().f32s_mut());
        let (isa, q) = (self.isa, q.data().f32s());
        self.pool.run(blocks.len() * heads.kv(), |task, thread| {
            // Late blocks read most: they go first, so that threads end together.
            let (seq, block) = blocks[blocks.len() - 1 - task / heads.kv()];
            let step = batch.step.seq(seq);
            let first = step.rows.start + block * rows;
            let rows = first..(first + rows).min(step.rows.end);
            // SAFETY: a thread uses its own scratch.
            let room = unsafe { rooms.slice(thread, 1)[0].f32s_mut() };
            isa.run(Block { q, kv, scale, step, head: task % heads.kv(), rows, out, room });
        });
        Ok(())
    }
}

/// One block of rows of one KV head. Lane `g * rows + r` is row r of the g-th query head.
struct Block<'a> {
    q: &'a [f32],
    kv: &'a Kv,
    scale: f32,
    step: SeqStep<'a>,
    head: usize,
    rows: Range<usize>,
    out: Parts<'a, f32>,
    room: &'a mut [f32],
}

/// A block's memory.
struct Room<'a> {
    /// Tokens' keys `[TILE][dim]`.
    keys: &'a mut [f32],
    /// Tokens' values `[TILE][padded dim]`, zeros past dim.
    values: &'a mut [f32],
    /// `[TILE][lanes]` of one panel.
    scores: &'a mut [f32],
    /// Scaled queries, panel by panel `[dim][lanes]`.
    q: &'a mut [f32],
    /// Panel by panel `[padded dim][lanes]`.
    sums: &'a mut [f32],
    /// Maximum so far, by lane.
    top: &'a mut [f32],
    /// Sum of weights so far, by lane.
    weight: &'a mut [f32],
}

impl<'a> Room<'a> {
    fn floats(lanes: usize, dim: usize) -> usize {
        let (lanes, dim) = (lanes.next_multiple_of(MOST), dim + MOST);
        2 * TILE * dim + TILE * MOST + 2 * lanes * dim + 2 * lanes
    }

    #[inline(always)]
    fn cut(floats: &'a mut [f32], lanes: usize, dim: usize, padded: usize) -> Self {
        let (keys, floats) = floats.split_at_mut(TILE * dim);
        let (values, floats) = floats.split_at_mut(TILE * padded);
        let (scores, floats) = floats.split_at_mut(TILE * MOST);
        let (q, floats) = floats.split_at_mut(lanes * dim);
        let (sums, floats) = floats.split_at_mut(lanes * padded);
        let (top, floats) = floats.split_at_mut(lanes);
        Room { keys, values, scores, q, sums, top, weight: &mut floats[..lanes] }
    }
}

impl Kernel for Block<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        with_elem!(self.kv.layout.dtype, E => match S::GEMM_ROWS {
            12 => self.attend::<S, E, 12>(s),
            6 => self.attend::<S, E, 6>(s),
            _ => self.attend::<S, E, 4>(s),
        })
    }
}

impl Block<'_> {
    #[inline(always)]
    fn attend<S: Simd, E: Elem, const R: usize>(self, s: S) {
        let Block { q, kv, scale, step, head, rows, out, room } = self;
        let heads = kv.layout.heads;
        let (dim, group, count) = (heads.dim(), heads.group(), rows.len());
        let (live, padded, whole) = (group * count, dim.next_multiple_of(R), PANEL * S::LANES);
        let lanes = live.next_multiple_of(S::LANES);
        let mut room = Room::cut(room, lanes, dim, padded);
        for lane in 0..lanes {
            let (first, width) = panel::<S>(lane / whole * whole, lanes);
            let to = &mut room.q[first * dim + lane - first..];
            if lane < live {
                let row = (rows.start + lane % count) * heads.qkv_width();
                let from = &q[row + (head * group + lane / count) * dim..][..dim];
                for i in 0..dim {
                    to[i * width] = from[i] * scale;
                }
            } else {
                for i in 0..dim {
                    to[i * width] = 0.0;
                }
            }
        }
        room.values.fill(0.0);
        room.keys.fill(0.0);
        room.sums.fill(0.0);
        room.top.fill(f32::NEG_INFINITY);
        room.weight.fill(0.0);
        let position = step.start() + rows.start - step.rows.start;
        for start in (0..position + count).step_by(TILE) {
            let tokens = (position + count - start).min(TILE);
            widen::<S, E>(
                s,
                kv,
                &step,
                head,
                start..start + tokens,
                (&mut *room.keys, &mut *room.values),
                padded,
            );
            for first in (0..lanes).step_by(whole) {
                let hidden = Hidden { start, position, count, first, live };
                let at = panel::<S>(first, lanes);
                if at.1 == whole {
                    room.panel::<S, R, PANEL>(s, first, tokens, [dim, padded], &hidden);
                } else {
                    room.panel::<S, R, 1>(s, first, tokens, [dim, padded], &hidden);
                }
            }
        }
        for lane in 0..live {
            let (first, width) = panel::<S>(lane / whole * whole, lanes);
            let from = &room.sums[first * padded + lane - first..];
            let inverse = 1.0 / room.weight[lane];
            let row = (rows.start + lane % count) * heads.query() + head * group + lane / count;
            // SAFETY: this task alone writes these heads of these rows.
            let to = unsafe { out.slice(row * dim, dim) };
            for i in 0..dim {
                to[i] = from[i * width] * inverse;
            }
        }
    }
}

/// First lane and width of the panel that starts at `first`.
#[inline(always)]
fn panel<S: Simd>(first: usize, lanes: usize) -> (usize, usize) {
    (first, (lanes - first).min(PANEL * S::LANES))
}

/// Keys and values of the tokens `range`, as float32.
#[inline(always)]
fn widen<S: Simd, E: Elem>(
    s: S,
    kv: &Kv,
    step: &SeqStep<'_>,
    head: usize,
    range: Range<usize>,
    (keys, values): (&mut [f32], &mut [f32]),
    padded: usize,
) {
    let layout = kv.layout;
    let (dim, page_size, data) = (layout.heads.dim(), layout.page_size.tokens(), kv.data.bytes());
    for t in range.clone() {
        let key = layout.key_offset(step.pages[t / page_size] as usize, t % page_size) + head * dim;
        let i = t - range.start;
        let keys = &mut keys[i * dim..(i + 1) * dim];
        let values = &mut values[i * padded..i * padded + dim];
        for (at, to) in [(key, keys), (key + layout.value_offset(), values)] {
            let from = data[at * E::BYTES..(at + dim) * E::BYTES].as_ptr();
            let mut i = 0;
            while i + S::LANES <= dim {
                // SAFETY: `i + LANES <= dim`, the length of both sides.
                unsafe { s.store(to.as_mut_ptr().add(i), E::load(s, from.add(i * E::BYTES))) }
                i += S::LANES;
            }
            while i < dim {
                // SAFETY: `i < dim`.
                to[i] = unsafe { E::get(from.add(i * E::BYTES)) };
                i += 1;
            }
        }
    }
}

/// What a panel's lanes must not see: the tokens past their own position.
struct Hidden {
    /// Position of the tile's first token.
    start: usize,
    /// Position of the block's first row, and its rows.
    position: usize,
    count: usize,
    /// First lane of the panel, and the lanes that are rows.
    first: usize,
    live: usize,
}

impl Hidden {
    /// Writes `value` over the hidden scores `[tokens][width]`.
    #[inline(always)]
    fn fill(&self, scores: &mut [f32], tokens: usize, width: usize, value: f32) {
        if self.start + tokens <= self.position + 1 {
            return;
        }
        for lane in 0..width.min(self.live - self.first) {
            let seen = self.position + (self.first + lane) % self.count + 1;
            for t in seen.saturating_sub(self.start)..tokens {
                scores[t * width + lane] = value;
            }
        }
    }
}

impl Room<'_> {
    /// One tile of tokens for the panel of `V` vectors that starts at lane `first`.
    #[inline(always)]
    fn panel<S: Simd, const R: usize, const V: usize>(
        &mut self,
        s: S,
        first: usize,
        tokens: usize,
        [dim, padded]: [usize; 2],
        hidden: &Hidden,
    ) {
        let width = V * S::LANES;
        let scores = &mut self.scores[..TILE * width];
        let q = &self.q[first * dim..(first + width) * dim];
        let sums = &mut self.sums[first * padded..(first + width) * padded];
        for t in (0..tokens).step_by(R) {
            let w = Rows { start: self.keys[t * dim..(t + R) * dim].as_ptr(), strides: (dim, 1) };
            let c = scores[t * width..(t + R) * width].as_mut_ptr();
            // SAFETY: all three were just cut to size.
            unsafe { tile::<S, R, V>(s, dim, w, q.as_ptr(), c, false) }
        }
        hidden.fill(scores, tokens, width, f32::NEG_INFINITY);
        for v in 0..V {
            let lane = v * S::LANES;
            let top = &mut self.top[first + lane..first + lane + S::LANES];
            let weight = &mut self.weight[first + lane..first + lane + S::LANES];
            // SAFETY: `scores` holds TILE rows, `sums` padded rows of `width >= lane + LANES` floats; top and weight
            // were just cut to LANES.
            unsafe {
                let before = s.load(top.as_ptr());
                let mut largest = before;
                for t in 0..tokens {
                    largest = s.max(s.load(scores.as_ptr().add(t * width + lane)), largest);
                }
                let mut total = s.splat(0.0);
                for t in 0..tokens {
                    let p = scores.as_mut_ptr().add(t * width + lane);
                    let e = s.exp(s.sub(s.load(p), largest));
                    s.store(p, e);
                    total = s.add(total, e);
                }
                let old = s.exp(s.sub(before, largest));
                s.store(top.as_mut_ptr(), largest);
                s.store(weight.as_mut_ptr(), s.fma(s.load(weight.as_ptr()), old, total));
                for i in 0..dim {
                    let p = sums.as_mut_ptr().add(i * width + lane);
                    s.store(p, s.mul(s.load(p), old));
                }
            }
        }
        // The exponential of -inf is tiny, not zero.
        hidden.fill(scores, tokens, width, 0.0);
        for i in (0..padded).step_by(R) {
            let w =
                Rows { start: self.values[i..(tokens - 1) * padded + i + R].as_ptr(), strides: (1, padded) };
            let c = sums[i * width..(i + R) * width].as_mut_ptr();
            // SAFETY: all three were just cut to size.
            unsafe { tile::<S, R, V>(s, tokens, w, scores.as_ptr(), c, true) }
        }
    }
}
