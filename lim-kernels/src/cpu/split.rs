//! The inner loops of decode: scores of a run of cached tokens, their softmax, and the weighted sum of values.
//!
//! A run has at most [`SPLIT`] tokens. All heads of a token are handled together, so that memory is read in long
//! pieces; a run's keys are read once, then its values once.
// Loops over registers count with constants: the compiler unrolls them, and the index names rows of several arrays.
#![allow(clippy::needless_range_loop)]

use super::buffer::Parts;
use super::gemv::{ROWS, dots, tile};
use super::simd::{Elem, Kernel, Simd, with_elem};
use crate::KvLayout;

/// Tokens of one run.
pub(super) const SPLIT: usize = 256;
/// Distance of two heads' scores: not a power of two, or they would meet in few sets of the cache.
pub(super) const SCORES: usize = SPLIT + 16;
/// Tokens whose values are added between two visits to the sums in memory.
const VALUE_TILE: usize = 8;
/// Distance in bytes at which keys are fetched ahead, about.
const AHEAD: usize = 8192;
/// Vectors of one head's sums held in registers.
const VALUE_CHUNK: usize = 4;

/// Floats of one head's partial result: its sums, then maximum and weight, up to a whole line.
pub(super) fn partial_width(dim: usize) -> usize {
    dim + 16
}

/// Positions to attend to, ascending.
#[derive(Clone, Copy)]
pub(super) enum Positions<'a> {
    Range(usize, usize),
    List(&'a [u32]),
}

impl<'a> Positions<'a> {
    pub(super) fn len(self) -> usize {
        match self {
            Positions::Range(from, to) => to - from,
            Positions::List(list) => list.len(),
        }
    }

    /// The run of index `index`.
    pub(super) fn split(self, index: usize) -> Positions<'a> {
        let (from, to) = (index * SPLIT, ((index + 1) * SPLIT).min(self.len()));
        match self {
            Positions::Range(start, _) => Positions::Range(start + from, start + to),
            Positions::List(list) => Positions::List(&list[from..to]),
        }
    }

    /// Byte offset of every token's keys.
    pub(super) fn offsets(self, layout: KvLayout, pages: &[u32], offsets: &mut [usize]) {
        let (page_size, bytes) = (layout.page_size.tokens(), layout.dtype.bytes());
        let at = |t: usize| layout.key_offset(pages[t / page_size] as usize, t % page_size) * bytes;
        match self {
            Positions::Range(from, to) => offsets.iter_mut().zip(from..to).for_each(|(o, t)| *o = at(t)),
            Positions::List(list) => offsets.iter_mut().zip(list).for_each(|(o, &t)| *o = at(t as usize)),
        }
    }
}

/// Raw scores `q . k` of a run of positions for some heads.
pub(super) struct Keys<'a> {
    pub(super) layout: KvLayout,
    pub(super) pages: &'a [u8],
    /// Queries `[group heads][dim]`.
    pub(super) q: &'a [f32],
    pub(super) kv: (usize, usize),
    pub(super) group: usize,
    pub(super) offsets: &'a [usize],
    pub(super) count: usize,
    /// `[group heads][SCORES]`.
    pub(super) scores: &'a mut [f32],
}

impl Kernel for Keys<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        with_elem!(self.layout.dtype, E => self.typed::<S, E>(s))
    }
}

impl Keys<'_> {
    #[inline(always)]
    fn typed<S: Simd, E: Elem>(self, s: S) {
        let Keys { layout, pages, q, kv, group, offsets, count, scores } = self;
        let dim = layout.heads.dim();
        assert!(q.len() == kv.1 * group * dim && scores.len() >= kv.1 * group * SCORES && count <= SPLIT);
        let far = (AHEAD / (kv.1 * dim * E::BYTES)).next_multiple_of(ROWS).max(ROWS);
        let mut t = 0;
        while t < count {
            let live = (count - t).min(ROWS);
            let mut h = 0;
            while h < kv.1 {
                let head = (kv.0 + h) * dim * E::BYTES;
                let (mut k, mut next) = ([pages.as_ptr(); ROWS], [pages.as_ptr(); ROWS]);
                let mut r = 0;
                while r < ROWS {
                    // The last group repeats its last token.
                    let at = offsets[t + r.min(live - 1)] + head;
                    assert!(at + dim * E::BYTES <= pages.len());
                    // SAFETY: in bounds as just asserted.
                    k[r] = unsafe { pages.as_ptr().add(at) };
                    next[r] = pages.as_ptr().wrapping_add(offsets[(t + far + r).min(count - 1)] + head);
                    r += 1;
                }
                let mut m = 0;
                while m < group {
                    let x = q[(h * group + m) * dim..].as_ptr();
                    let (done, sums) = tile!(s, (group - m), E, (x, dim, k, next, dim), sums);
                    let mut i = 0;
                    while i < done {
                        let row = (h * group + m + i) * SCORES + t;
                        // Past `count` lie no scores yet, so repeats may be stored there.
                        scores[row..row + ROWS].copy_from_slice(&sums[i]);
                        i += 1;
                    }
                    m += done;
                }
                h += 1;
            }
            t += live;
        }
    }
}

/// `scores -> e^(scale * score - max)` in place for one head; returns the maximum and the sum.
#[inline(always)]
fn soften<S: Simd>(s: S, scores: &mut [f32], scale: f32) -> (f32, f32) {
    let n = scores.len();
    let (factor, mut tops) = (s.splat(scale), s.splat(f32::NEG_INFINITY));
    let mut i = 0;
    while i + S::LANES <= n {
        // SAFETY: `i + LANES <= n`.
        unsafe {
            let p = scores.as_mut_ptr().add(i);
            let x = s.mul(s.load(p), factor);
            s.store(p, x);
            tops = s.max(x, tops);
        }
        i += S::LANES;
    }
    let mut largest = s.largest(tops);
    for x in &mut scores[i..] {
        *x *= scale;
        largest = largest.max(*x);
    }
    let (mut sums, top) = (s.splat(0.0), s.splat(largest));
    let mut i = 0;
    while i + S::LANES <= n {
        // SAFETY: `i + LANES <= n`.
        unsafe {
            let p = scores.as_mut_ptr().add(i);
            let e = s.exp(s.sub(s.load(p), top));
            s.store(p, e);
            sums = s.add(sums, e);
        }
        i += S::LANES;
    }
    let mut sum = s.sum(sums);
    while i < n {
        scores[i] = (scores[i] - largest).exp();
        sum += scores[i];
        i += 1;
    }
    (largest, sum)
}

/// One task: attention of some heads over one run of positions.
pub(super) struct Split<'a> {
    pub(super) keys: Keys<'a>,
    pub(super) scale: f32,
    /// Where the raw scores go, `[group heads]` rows `stride` apart.
    pub(super) raw: Option<(Parts<'a, f32>, usize, usize)>,
    /// `[group heads][partial_width]`.
    pub(super) out: &'a mut [f32],
}

impl Kernel for Split<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        with_elem!(self.keys.layout.dtype, E => self.typed::<S, E>(s))
    }
}

impl Split<'_> {
    #[inline(always)]
    fn typed<S: Simd, E: Elem>(self, s: S) {
        let Split { keys, scale, raw, out } = self;
        let Keys { layout, pages, q, kv, group, offsets, count, scores } = keys;
        Keys { layout, pages, q, kv, group, offsets, count, scores: &mut *scores }.typed::<S, E>(s);
        let (dim, heads) = (layout.heads.dim(), kv.1 * group);
        let width = partial_width(dim);
        for h in 0..heads {
            let row = &mut scores[h * SCORES..h * SCORES + count];
            if let Some((to, start, stride)) = raw {
                // SAFETY: this task alone writes these positions of this head.
                unsafe { to.slice(start + h * stride, count) }.copy_from_slice(row);
            }
            let (largest, sum) = soften(s, row, scale);
            let out = &mut out[h * width..(h + 1) * width];
            out[..dim].fill(0.0);
            (out[dim], out[dim + 1]) = (largest, sum);
        }
        let mut t = 0;
        while t < count {
            let live = (count - t).min(VALUE_TILE);
            for h in 0..kv.1 {
                let value = (layout.value_offset() + (kv.0 + h) * dim) * E::BYTES;
                let tile = Values {
                    pages,
                    value,
                    offsets: &offsets[t..count],
                    live,
                    dim,
                    weights: &scores[h * group * SCORES + t..],
                    out: &mut out[h * group * width..(h + 1) * group * width],
                };
                tile.add::<S, E>(s, group);
            }
            t += live;
        }
    }
}

/// Adds `weight * value` of a few tokens to the sums of one KV head's query heads.
struct Values<'a> {
    pages: &'a [u8],
    /// From a token's keys to this head's value, bytes.
    value: usize,
    /// Tokens from the first on; those past `live` are fetched ahead.
    offsets: &'a [usize],
    live: usize,
    dim: usize,
    /// Rows [`SCORES`] apart.
    weights: &'a [f32],
    /// Rows [`partial_width`] apart.
    out: &'a mut [f32],
}

impl Values<'_> {
    #[inline(always)]
    fn add<S: Simd, E: Elem>(mut self, s: S, group: usize) {
        let value = self.value;
        for &at in &self.offsets[..self.live] {
            assert!(at + value + self.dim * E::BYTES <= self.pages.len());
        }
        let mut m = 0;
        while m < group {
            let rows = (group - m).min(S::TILE);
            let mut i = 0;
            while i + S::LANES * VALUE_CHUNK <= self.dim {
                match rows {
                    1 => self.chunk::<S, E, 1, VALUE_CHUNK>(s, m, i),
                    2 => self.chunk::<S, E, 2, VALUE_CHUNK>(s, m, i),
                    3 => self.chunk::<S, E, 3, VALUE_CHUNK>(s, m, i),
                    _ => self.chunk::<S, E, 4, VALUE_CHUNK>(s, m, i),
                }
                i += S::LANES * VALUE_CHUNK;
            }
            while i + S::LANES <= self.dim {
                match rows {
                    1 => self.chunk::<S, E, 1, 1>(s, m, i),
                    2 => self.chunk::<S, E, 2, 1>(s, m, i),
                    3 => self.chunk::<S, E, 3, 1>(s, m, i),
                    _ => self.chunk::<S, E, 4, 1>(s, m, i),
                }
                i += S::LANES;
            }
            while i < self.dim {
                for row in m..m + rows {
                    for t in 0..self.live {
                        let at = self.offsets[t] + value + i * E::BYTES;
                        // SAFETY: in bounds as asserted above.
                        let v = unsafe { E::get(self.pages.as_ptr().add(at)) };
                        self.out[row * partial_width(self.dim) + i] += self.weights[row * SCORES + t] * v;
                    }
                }
                i += 1;
            }
            m += rows;
        }
    }

    /// `M` query heads from `m` on, `C` vectors from element `i` on.
    #[inline(always)]
    fn chunk<S: Simd, E: Elem, const M: usize, const C: usize>(&mut self, s: S, m: usize, i: usize) {
        let (stride, last) = (partial_width(self.dim), self.offsets.len() - 1);
        assert!(self.out.len() >= (m + M - 1) * stride + i + C * S::LANES);
        assert!(self.weights.len() >= (m + M - 1) * SCORES + self.live);
        let mut acc = [[s.splat(0.0); C]; M];
        for row in 0..M {
            for c in 0..C {
                // SAFETY: in bounds as asserted.
                acc[row][c] = unsafe { s.load(self.out.as_ptr().add((m + row) * stride + i + c * S::LANES)) };
            }
        }
        let value_at = self.value + i * E::BYTES;
        for t in 0..self.live {
            if m == 0 {
                let next = self.offsets[(t + VALUE_TILE).min(last)] + value_at;
                for line in 0..(C * S::LANES * E::BYTES).div_ceil(64) {
                    s.prefetch(self.pages.as_ptr().wrapping_add(next + line * 64));
                }
            }
            let at = self.pages.as_ptr().wrapping_add(self.offsets[t] + value_at);
            let mut value = [s.splat(0.0); C];
            for c in 0..C {
                // SAFETY: `add` asserted that this head's value lies inside the pages.
                value[c] = unsafe { E::load(s, at.add(c * S::LANES * E::BYTES)) };
            }
            for row in 0..M {
                // SAFETY: in bounds as asserted.
                let weight = s.splat(unsafe { *self.weights.as_ptr().add((m + row) * SCORES + t) });
                for c in 0..C {
                    acc[row][c] = s.fma(weight, value[c], acc[row][c]);
                }
            }
        }
        for row in 0..M {
            for c in 0..C {
                let to = (m + row) * stride + i + c * S::LANES;
                // SAFETY: in bounds as asserted.
                unsafe { s.store(self.out.as_mut_ptr().add(to), acc[row][c]) }
            }
        }
    }
}
