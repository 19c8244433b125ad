//! Scores without attention: of every cached token, or Quest's bound of every page (Tang et al. 2024).

use super::Cpu;
use super::attend::expect_layer;
use super::buffer::Parts;
use super::simd::{Elem, Kernel, Simd, with_elem};
use super::split::{Keys, Positions, SCORES, SPLIT};
use super::store::expect_rows;
use crate::{Error, KvLayout, Result, Score, ScoreOf};

/// Pages of one task.
const PAGES: usize = 64;

/// `sum_i max(q_i min_i, q_i max_i)` of some pages for all query heads.
struct PageBounds<'a> {
    layout: KvLayout,
    bounds: &'a [u8],
    pages: &'a [u32],
    /// `[H][dim]`.
    q: &'a [f32],
    /// Rows of `stride`, this task's pages from `start` on.
    out: Parts<'a, f32>,
    start: usize,
    stride: usize,
}

impl Kernel for PageBounds<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let PageBounds { layout, bounds, pages, q, out, start, stride } = self;
        let heads = layout.heads;
        let (dim, width) = (heads.dim(), layout.token_width());
        assert!(q.len() == heads.query() * dim);
        with_elem!(layout.dtype, E => {
            for p in 0..pages.len() {
                let page = &bounds[pages[p] as usize * 2 * width * E::BYTES..][..2 * width * E::BYTES];
                for h in 0..heads.query() {
                    let (low, q) = (h / heads.group() * dim, &q[h * dim..(h + 1) * dim]);
                    let high = low + width;
                    let mut acc = s.splat(0.0);
                    let mut i = 0;
                    while i + S::LANES <= dim {
                        // SAFETY: `i + LANES <= dim`, and the page holds both bounds of every head.
                        unsafe {
                            let q = s.load(q.as_ptr().add(i));
                            let least = s.mul(q, E::load(s, page.as_ptr().add((low + i) * E::BYTES)));
                            let most = s.mul(q, E::load(s, page.as_ptr().add((high + i) * E::BYTES)));
                            acc = s.add(acc, s.max(least, most));
                        }
                        i += S::LANES;
                    }
                    let mut sum = s.sum(acc);
                    while i < dim {
                        // SAFETY: as above.
                        let (least, most) = unsafe {
                            let at = page.as_ptr();
                            (E::get(at.add((low + i) * E::BYTES)), E::get(at.add((high + i) * E::BYTES)))
                        };
                        sum += (q[i] * least).max(q[i] * most);
                        i += 1;
                    }
                    // SAFETY: this task alone writes its pages' scores.
                    unsafe { out.slice(start + h * stride + p, 1)[0] = sum };
                }
            }
        })
    }
}

impl Cpu {
    pub(super) fn score_op(&mut self, op: Score<'_, Self>) -> Result<()> {
        const OP: &str = "score";
        let Score { q, kv, heads, batch, of, budget, layer, counters, out } = op;
        kv.expect(OP, heads, batch)?;
        batch.expect_decode(OP)?;
        expect_rows(OP, "q", q, [batch.step.rows(), heads.qkv_width()])?;
        out.expect(OP, heads, batch)?;
        let count = expect_layer(OP, counters, layer)?;
        let layout = kv.layout;
        let bounds = match (of, &kv.bounds) {
            (ScoreOf::Tokens, _) => None,
            (ScoreOf::Pages, Some(bounds)) => Some(bounds.bytes()),
            (ScoreOf::Pages, None) => {
                let must = "the number of its pages: made with bounds".into();
                return Err(Error::Range { op: OP, what: "page bounds kept by the pages", got: 0, must });
            }
        };
        let dim = heads.dim();
        let (row, stride) = (heads.query() * dim, out.tokens);
        for room in &mut self.scratch {
            room.reserve(2 * SPLIT + heads.query() * SCORES)?;
        }
        for (seq, step) in batch.step.iter().enumerate() {
            if step.len <= budget {
                out.counts[seq] = 0;
                continue;
            }
            let q = &q.data().f32s()[seq * heads.qkv_width()..][..row];
            let start = seq * heads.query() * stride;
            let isa = self.isa;
            if let Some(bounds) = bounds {
                out.counts[seq] = step.pages.len();
                let to = Parts::new(out.data.f32s_mut());
                self.pool.run(step.pages.len().div_ceil(PAGES), |task, _| {
                    let pages = &step.pages[task * PAGES..((task + 1) * PAGES).min(step.pages.len())];
                    isa.run(PageBounds {
                        layout,
                        bounds,
                        pages,
                        q,
                        out: to,
                        start: start + task * PAGES,
                        stride,
                    });
                });
                // Two bounds a page are as much as one token's keys and values.
                count.kv_bytes += (step.pages.len() * layout.token_bytes()) as u64;
            } else {
                out.counts[seq] = step.len;
                let to = Parts::new(out.data.f32s_mut());
                let rooms = Parts::new(&mut self.scratch);
                self.pool.run(step.len.div_ceil(SPLIT), |task, thread| {
                    // SAFETY: a thread uses its own scratch.
                    let room = unsafe { &mut rooms.slice(thread, 1)[0] };
                    let run = Positions::Range(0, step.len).split(task);
                    let (offsets, scores) = room.f32s_mut().split_at_mut(2 * SPLIT);
                    let offsets = &mut bytemuck::cast_slice_mut(offsets)[..run.len()];
                    run.offsets(layout, step.pages, offsets);
                    let keys = Keys {
                        layout,
                        pages: kv.data.bytes(),
                        q,
                        kv: (0, heads.kv()),
                        group: heads.group(),
                        offsets,
                        count: run.len(),
                        scores: &mut *scores,
                    };
                    isa.run(keys);
                    for h in 0..heads.query() {
                        // SAFETY: this task alone writes its positions.
                        let to = unsafe { to.slice(start + h * stride + task * SPLIT, run.len()) };
                        to.copy_from_slice(&scores[h * SCORES..][..run.len()]);
                    }
                });
                count.kv_bytes += (step.len * layout.token_bytes() / 2) as u64;
            }
        }
        Ok(())
    }
}
