//! Choice of the tokens that later attentions read.
//!
//! The union needs few ranks. Reading the heads' ranked lists rank by rank, one rank of all heads yields at least one
//! new token or has been exhausted, and M ranks of one head already hold M tokens; so a short prefix of every list is
//! ranked first, and a longer one only where the prefix holds too few distinct tokens. Where lists end at a share of the
//! softmax, a prefix also does if every list ends in it.

use super::Cpu;
use super::attend::expect_layer;
use super::buffer::Parts;
use super::mass::Softmax;
use super::rank::{best, position};
use super::store::{Scores, Selection, shape_error};
use crate::softmax::{fixed_share, log2_scale};
use crate::{Error, Heads, Pick, Quota, Result, Select, Sets};

/// Ranks per head of the first try, at least.
const FIRST_RANKS: usize = 32;

/// Memory kept between selections.
#[derive(Default)]
pub(super) struct Room {
    /// Keys being ranked, by thread.
    ranking: Vec<Vec<u64>>,
    /// Ranked keys by list: (sequence, head).
    lists: Vec<Vec<u64>>,
    /// Chosen positions as bits, by sequence.
    chosen: Vec<Vec<u64>>,
    pending: Vec<usize>,
    /// By list, where lists end at a share of the softmax.
    shares: Vec<Share>,
}

/// Where a head's list ends.
#[derive(Clone, Copy, Default)]
struct Share {
    softmax: Softmax,
    /// Fixed weights that the listed tokens must reach together.
    wanted: u64,
}

/// What every rule works with.
struct Rule<'a> {
    quota: Quota,
    heads: Heads,
    page_size: usize,
    /// n by sequence.
    lens: &'a [usize],
    positions: Parts<'a, u32>,
    counts: Parts<'a, usize>,
    stride: usize,
}

impl Cpu {
    pub(super) fn select_op(&mut self, op: Select<'_, Self>) -> Result<()> {
        const OP: &str = "select";
        let Select { pick, quota, heads, batch, layer, counters, out } = op;
        batch.expect_decode(OP)?;
        let count = expect_layer(OP, counters, layer)?;
        expect_room(OP, &pick, quota, heads, out)?;
        let end = match pick {
            Pick::Mass { scale, share, .. } => Some((log2_scale(OP, scale)?, fixed_share(OP, share)?)),
            _ => None,
        };
        if out.lens.len() < batch.step.seqs() {
            return Err(shape_error(OP, "selection", &[out.lens.len()], &[batch.step.seqs()]));
        }
        self.select.pending.clear();
        for (seq, step) in batch.step.iter().enumerate() {
            out.lens[seq] = step.len;
            out.dense[seq] = step.len <= quota.budget();
            if !out.dense[seq] {
                self.select.pending.push(seq);
            }
        }
        let sets = out.sets;
        if let Pick::Union(scores)
        | Pick::Mass { scores, .. }
        | Pick::Best(scores, _)
        | Pick::Pages(scores, _) = pick
        {
            let rows = if sets_of(&pick).is_some() { sets.count(heads) } else { heads.query() };
            scores.expect_rows(OP, rows, batch)?;
            for &seq in &self.select.pending {
                let len = out.lens[seq];
                let need = if matches!(pick, Pick::Pages(..)) { batch.page_size.pages_for(len) } else { len };
                if scores.counts[seq] != need {
                    return Err(shape_error(OP, "scores of a sequence", &[scores.counts[seq]], &[need]));
                }
            }
        }
        count.selections += self.select.pending.len() as u64;
        let Selection { positions, counts, lens, stride, .. } = out;
        let rule = Rule {
            quota,
            heads,
            page_size: batch.page_size.tokens(),
            lens,
            positions: Parts::new(positions),
            counts: Parts::new(counts),
            stride: *stride,
        };
        match pick {
            Pick::Union(scores) => self.union(&rule, scores, false),
            Pick::Mass { scores, .. } => {
                if let Some((c, share)) = end {
                    self.shares(&rule, scores, c, share);
                }
                self.union(&rule, scores, true);
            }
            Pick::Best(scores, _) => self.per_row(&rule, scores, |seq, row, room, list| {
                let (first, last) = rule.candidates(seq);
                best(&scores.head(seq, row)[first..last], first, quota.history, room, list);
                list.iter_mut().for_each(|key| *key = position(*key).into());
                list.sort_unstable();
                rule.write(seq, seq * scores.rows + row, list.iter().map(|&t| t as u32));
            }),
            Pick::Pages(scores, _) => self.per_row(&rule, scores, |seq, row, room, list| {
                rule.pages(seq, seq * scores.rows + row, scores.head(seq, row), room, list);
            }),
            Pick::Nothing => {
                for &seq in &self.select.pending {
                    rule.write(seq, seq, std::iter::empty());
                }
            }
        }
        Ok(())
    }

    /// Runs `choose(sequence, row, room, list)` for all rows of the pending sequences: room for the keys of a row, a
    /// list for those that are kept. Both take their memory once, however many tokens there are now.
    fn per_row(
        &mut self,
        rule: &Rule<'_>,
        scores: &Scores,
        choose: impl Fn(usize, usize, &mut Vec<u64>, &mut Vec<u64>) + Sync,
    ) {
        let (rows, kept) = (scores.rows, rule.quota.budget());
        let Room { ranking, lists, pending, .. } = &mut self.select;
        grow(ranking, self.pool.threads(), scores.tokens);
        grow(lists, rule.lens.len() * rows, kept);
        let (ranking, lists) = (Parts::new(ranking), Parts::new(lists));
        self.pool.run(pending.len() * rows, |task, thread| {
            // SAFETY: a thread uses its own room, a task its own list.
            let (room, list) = unsafe { (&mut ranking.slice(thread, 1)[0], &mut lists.slice(task, 1)[0]) };
            choose(pending[task / rows], task % rows, room, list);
        });
    }

    /// Softmaxes of the pending sequences, and what their lists have to reach: the share less sinks and window.
    fn shares(&mut self, rule: &Rule<'_>, scores: &Scores, c: f32, share: u64) {
        let (isa, heads) = (self.isa, rule.heads.query());
        let Room { shares, pending, .. } = &mut self.select;
        shares.resize(shares.len().max(rule.lens.len() * heads), Share::default());
        let shares = Parts::new(shares);
        self.pool.run(pending.len() * heads, |task, _| {
            let (seq, head) = (pending[task / heads], task % heads);
            let (first, last) = rule.candidates(seq);
            let scores = scores.head(seq, head);
            let softmax = Softmax::new(isa, scores, c);
            let kept = softmax.sum(isa, &scores[..first]) + softmax.sum(isa, &scores[last..]);
            let wanted = (u128::from(softmax.total) * u128::from(share)).div_ceil(1 << 32) as u64;
            // SAFETY: a list's share is its task's alone.
            unsafe {
                shares.slice(seq * heads + head, 1)[0] =
                    Share { softmax, wanted: wanted.saturating_sub(kept) };
            }
        });
    }

    /// LessIsMore: the M candidates with the smallest `min_h(rank_h * H + h)`; with `shares` from lists that end there.
    fn union(&mut self, rule: &Rule<'_>, scores: &Scores, shares: bool) {
        let (heads, history) = (rule.heads.query(), rule.quota.history);
        let mut ranks = (2 * history.div_ceil(heads)).max(FIRST_RANKS).min(history);
        while !self.select.pending.is_empty() {
            let ends = std::mem::take(&mut self.select.shares);
            self.per_row(rule, scores, |seq, head, room, list| {
                let (first, last) = rule.candidates(seq);
                let scores = scores.head(seq, head);
                best(&scores[first..last], first, ranks, room, list);
                list.sort_unstable_by(|a, b| b.cmp(a));
                if shares {
                    ends[seq * heads + head].cut(scores, list);
                }
            });
            self.select.shares = ends;
            let Room { lists, chosen, pending, .. } = &mut self.select;
            grow(chosen, rule.lens.len(), scores.tokens.div_ceil(64));
            let bits = Parts::new(chosen);
            self.pool.run(pending.len(), |i, _| {
                let seq = pending[i];
                // SAFETY: this task alone uses its bits.
                let bits = unsafe { &mut bits.slice(i, 1)[0] };
                bits.clear();
                bits.resize(rule.lens[seq].div_ceil(64), 0);
                if merge(&lists[i * heads..(i + 1) * heads], ranks, history, bits) {
                    rule.write(seq, seq, ones(bits));
                } else {
                    bits.clear();
                }
            });
            // A sequence that needs more ranks left its bits empty.
            let mut i = 0;
            pending.retain(|_| {
                i += 1;
                chosen[i - 1].is_empty()
            });
            ranks = (ranks * 4).min(history);
        }
    }
}

/// At least `count` vectors with room for `len` elements each.
fn grow(vectors: &mut Vec<Vec<u64>>, count: usize, len: usize) {
    vectors.resize_with(vectors.len().max(count), Vec::new);
    for vector in &mut vectors[..count] {
        vector.reserve(len.saturating_sub(vector.len()));
    }
}

impl Share {
    /// Ends a ranked list with the token that reaches the share.
    fn cut(&self, scores: &[f32], list: &mut Vec<u64>) {
        let mut left = self.wanted;
        let mut kept = 0;
        while left > 0 && kept < list.len() {
            left = left.saturating_sub(self.softmax.fixed(scores[position(list[kept]) as usize]));
            kept += 1;
        }
        list.truncate(kept);
    }
}

/// Marks the first `history` distinct positions of the lists, read rank by rank; whether no longer lists could add any.
fn merge(lists: &[Vec<u64>], ranks: usize, history: usize, bits: &mut [u64]) -> bool {
    let mut left = history;
    for rank in 0..ranks {
        for list in lists.iter().filter(|list| rank < list.len()) {
            if left == 0 {
                return true;
            }
            let at = position(list[rank]) as usize;
            let (word, bit) = (&mut bits[at / 64], 1 << (at % 64));
            left -= usize::from(*word & bit == 0);
            *word |= bit;
        }
    }
    left == 0 || ranks == history || lists.iter().all(|list| list.len() < ranks)
}

/// Positions of the set bits, ascending.
fn ones(bits: &[u64]) -> impl Iterator<Item = u32> {
    bits.iter().enumerate().flat_map(|(i, &word)| {
        let mut word = word;
        std::iter::from_fn(move || {
            let bit = (word != 0).then(|| i as u32 * 64 + word.trailing_zeros());
            word &= word.wrapping_sub(1);
            bit
        })
    })
}

impl Rule<'_> {
    /// The ranked positions `[S, n - W)` of a sequence.
    fn candidates(&self, seq: usize) -> (usize, usize) {
        (self.quota.sinks, self.lens[seq] - self.quota.window)
    }

    /// Writes sinks, history (ascending) and window of the set in row `row`.
    fn write(&self, seq: usize, row: usize, history: impl Iterator<Item = u32>) {
        let (sinks, recent) =
            (0..self.quota.sinks as u32, self.candidates(seq).1 as u32..self.lens[seq] as u32);
        self.emit(row, sinks.chain(history).chain(recent));
    }

    fn emit(&self, row: usize, positions: impl Iterator<Item = u32>) {
        // SAFETY: a row belongs to one task.
        let (out, count) =
            unsafe { (self.positions.slice(row * self.stride, self.stride), self.counts.slice(row, 1)) };
        count[0] = 0;
        for (to, position) in out.iter_mut().zip(positions) {
            *to = position;
            count[0] += 1;
        }
    }

    /// The last pages and the best others, `K / page_size` in all, all their tokens.
    fn pages(&self, seq: usize, row: usize, scores: &[f32], room: &mut Vec<u64>, list: &mut Vec<u64>) {
        let pages = (self.quota.budget() / self.page_size).max(1);
        let recent = (self.quota.window / self.page_size).clamp(1, pages);
        let others = scores.len() - recent;
        best(&scores[..others], 0, pages - recent, room, list);
        list.iter_mut().for_each(|key| *key = position(*key).into());
        list.sort_unstable();
        list.extend(others as u64..scores.len() as u64);
        let len = self.lens[seq] as u32;
        let tokens = |page: u64| {
            let from = page as u32 * self.page_size as u32;
            from..(from + self.page_size as u32).min(len)
        };
        self.emit(row, list.iter().flat_map(|&page| tokens(page)));
    }
}

/// Sets of a rule that has a row of scores for each.
fn sets_of(pick: &Pick<'_, Cpu>) -> Option<Sets> {
    match *pick {
        Pick::Best(_, sets) | Pick::Pages(_, sets) => Some(sets),
        Pick::Union(_) | Pick::Mass { .. } | Pick::Nothing => None,
    }
}

fn expect_room(
    op: &'static str,
    pick: &Pick<'_, Cpu>,
    quota: Quota,
    heads: Heads,
    out: &Selection,
) -> Result<()> {
    let needed = sets_of(pick).unwrap_or(Sets::Shared);
    if out.sets != needed || out.heads != heads {
        let (got, expected) = (out.sets.count(out.heads), needed.count(heads));
        return Err(shape_error(op, "sets of the selection", &[got], &[expected]));
    }
    if quota.budget() > out.budget || quota.budget() == 0 {
        let must = format!("from 1 to the selection's room, {}", out.budget);
        return Err(Error::Range { op, what: "token budget", got: quota.budget() as u64, must });
    }
    Ok(())
}
