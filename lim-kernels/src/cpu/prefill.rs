//! Causal attention of a prompt: blocks of query rows against tiles of keys and values widened to float32, with an
//! online softmax (Milakov and Gimelshein 2018).

use super::Cpu;
use super::buffer::{Buffer, Parts};
use super::simd::{Isa, Kernel, Simd, Widen};
use super::store::{Batch, Kv};
use crate::{Result, SeqStep, Tensor};

/// Query rows times query heads of one block, about.
const BLOCK: usize = 128;
/// Cached tokens of one tile.
const TILE: usize = 128;

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
            let last = (first + rows).min(step.rows.end);
            // SAFETY: a thread uses its own scratch.
            let room = unsafe { &mut rooms.slice(thread, 1)[0] };
            Block { isa, q, kv, scale, step, head: task % heads.kv(), rows: first..last, out }.run(room);
        });
        Ok(())
    }
}

/// One block of rows of one KV head; its query heads are stacked: row `g * rows + r`.
struct Block<'a> {
    isa: Isa,
    q: &'a [f32],
    kv: &'a Kv,
    scale: f32,
    step: SeqStep<'a>,
    head: usize,
    rows: std::ops::Range<usize>,
    out: Parts<'a, f32>,
}

struct Room<'a> {
    /// `[m][dim]`, scaled.
    q: &'a mut [f32],
    /// `[TILE][dim]`.
    k: &'a mut [f32],
    /// `[TILE][dim]`.
    v: &'a mut [f32],
    /// `[m][TILE]`.
    scores: &'a mut [f32],
    /// `[m][dim]`.
    sums: &'a mut [f32],
    /// `[m]`: maximum so far.
    top: &'a mut [f32],
    /// `[m]`: sum of weights so far.
    weight: &'a mut [f32],
}

impl<'a> Room<'a> {
    fn floats(m: usize, dim: usize) -> usize {
        2 * m * dim + 2 * TILE * dim + m * TILE + 2 * m
    }

    fn cut(floats: &'a mut [f32], m: usize, dim: usize) -> Self {
        let (q, floats) = floats.split_at_mut(m * dim);
        let (k, floats) = floats.split_at_mut(TILE * dim);
        let (v, floats) = floats.split_at_mut(TILE * dim);
        let (scores, floats) = floats.split_at_mut(m * TILE);
        let (sums, floats) = floats.split_at_mut(m * dim);
        let (top, floats) = floats.split_at_mut(m);
        Room { q, k, v, scores, sums, top, weight: &mut floats[..m] }
    }
}

impl Block<'_> {
    fn run(self, room: &mut Buffer) {
        let heads = self.kv.layout.heads;
        let (dim, group, rows) = (heads.dim(), heads.group(), self.rows.len());
        let m = group * rows;
        let room = Room::cut(room.f32s_mut(), m, dim);
        let position = self.step.start() + self.rows.start - self.step.rows.start;
        for g in 0..group {
            for (r, row) in self.rows.clone().enumerate() {
                let from = &self.q[row * heads.qkv_width() + (self.head * group + g) * dim..][..dim];
                let to = &mut room.q[(g * rows + r) * dim..][..dim];
                to.iter_mut().zip(from).for_each(|(to, x)| *to = x * self.scale);
            }
        }
        room.top.fill(f32::NEG_INFINITY);
        room.weight.fill(0.0);
        room.sums.fill(0.0);
        let end = position + rows;
        for start in (0..end).step_by(TILE) {
            let count = (end - start).min(TILE);
            self.widen(start, count, room.k, room.v);
            // scores = q k^T
            multiply([m, count, dim], room.q, dim, (room.k, 1, dim), false, room.scores, TILE);
            let soften = Soften {
                scores: room.scores,
                count,
                start,
                position,
                rows,
                top: room.top,
                weight: room.weight,
                sums: room.sums,
                dim,
            };
            self.isa.run(soften);
            // sums += weights v
            multiply([m, dim, count], room.scores, TILE, (room.v, dim, 1), true, room.sums, dim);
        }
        for g in 0..group {
            for (r, row) in self.rows.clone().enumerate() {
                let i = g * rows + r;
                let inverse = 1.0 / room.weight[i];
                // SAFETY: this task alone writes these heads of these rows.
                let to = unsafe { self.out.slice((row * heads.query() + self.head * group + g) * dim, dim) };
                to.iter_mut().zip(&room.sums[i * dim..]).for_each(|(y, x)| *y = x * inverse);
            }
        }
    }

    /// Keys and values of `count` tokens from `start` on, as float32.
    fn widen(&self, start: usize, count: usize, k: &mut [f32], v: &mut [f32]) {
        let layout = self.kv.layout;
        let (dim, page_size, bytes) = (layout.heads.dim(), layout.page_size.tokens(), layout.dtype.bytes());
        let data = self.kv.data.bytes();
        for t in 0..count {
            let (page, slot) = ((start + t) / page_size, (start + t) % page_size);
            let key = layout.key_offset(self.step.pages[page] as usize, slot) + self.head * dim;
            for (at, to) in [(key, &mut *k), (key + layout.value_offset(), &mut *v)] {
                let from = &data[at * bytes..(at + dim) * bytes];
                self.isa.run(Widen { dtype: layout.dtype, from, out: &mut to[t * dim..(t + 1) * dim] });
            }
        }
    }
}

/// `c (+)= a b` for `[m, k] x [k, n]`; b's strides are (row, column).
fn multiply(
    [m, n, k]: [usize; 3],
    a: &[f32],
    a_row: usize,
    (b, b_row, b_column): (&[f32], usize, usize),
    add: bool,
    c: &mut [f32],
    c_row: usize,
) {
    assert!(a.len() >= (m - 1) * a_row + k && c.len() >= (m - 1) * c_row + n);
    assert!(b.len() > (k - 1) * b_row + (n - 1) * b_column);
    // SAFETY: all three lie inside their slices, as asserted; c is borrowed uniquely.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            c.as_mut_ptr(),
            1,
            c_row as isize,
            add,
            a.as_ptr(),
            1,
            a_row as isize,
            b.as_ptr(),
            b_column as isize,
            b_row as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

/// One tile of the online softmax: scores become weights, zero beyond the diagonal; older sums are scaled down.
struct Soften<'a> {
    /// `[m][TILE]`.
    scores: &'a mut [f32],
    /// Tokens of the tile.
    count: usize,
    /// Position of the tile's first token.
    start: usize,
    /// Position of row 0; each later row stands one further.
    position: usize,
    rows: usize,
    top: &'a mut [f32],
    weight: &'a mut [f32],
    sums: &'a mut [f32],
    dim: usize,
}

impl Kernel for Soften<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Soften { scores, count, start, position, rows, top, weight, sums, dim } = self;
        for i in 0..top.len() {
            let row = &mut scores[i * TILE..i * TILE + count];
            let seen = (position + i % rows + 1).saturating_sub(start).min(count);
            let mut largest = top[i];
            for &x in &row[..seen] {
                largest = largest.max(x);
            }
            if seen == 0 {
                row.fill(0.0);
                continue;
            }
            let (mut total, v) = (s.splat(0.0), s.splat(largest));
            let mut t = 0;
            while t + S::LANES <= seen {
                // SAFETY: `t + LANES <= seen`.
                unsafe {
                    let p = row.as_mut_ptr().add(t);
                    let e = s.exp(s.sub(s.load(p), v));
                    s.store(p, e);
                    total = s.add(total, e);
                }
                t += S::LANES;
            }
            let mut sum = s.sum(total);
            while t < seen {
                row[t] = (row[t] - largest).exp();
                sum += row[t];
                t += 1;
            }
            row[seen..].fill(0.0);
            let old = (top[i] - largest).exp();
            if old != 1.0 {
                for x in &mut sums[i * dim..(i + 1) * dim] {
                    *x *= old;
                }
            }
            weight[i] = weight[i] * old + sum;
            top[i] = largest;
        }
    }
}
