//! Choice of the tokens that later attentions read.
//!
//! The union needs few ranks. Reading the heads' ranked lists rank by rank, one rank of all heads yields at least one
//! new token or has been exhausted, and M ranks of one head already hold M tokens; so a short prefix of every list is
//! ranked first, and a longer one only where the prefix holds too few distinct tokens.

use super::Cpu;
use super::attend::expect_layer;
use super::buffer::Parts;
use super::rank::{best, position};
use super::store::{Scores, Selection, shape_error};
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
        if let Pick::Union(scores) | Pick::PerQueryHead(scores) | Pick::Pages(scores) = pick {
            scores.expect(OP, heads, batch)?;
            for &seq in &self.select.pending {
                let len = out.lens[seq];
                let need = if matches!(pick, Pick::Pages(_)) { batch.page_size.pages_for(len) } else { len };
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
            Pick::Union(scores) => self.union(&rule, scores),
            Pick::PerQueryHead(scores) => self.per_head(&rule, scores.tokens, |seq, head, room, list| {
                let (first, last) = rule.candidates(seq);
                best(&scores.head(seq, head)[first..last], first, quota.history, room, list);
                list.iter_mut().for_each(|key| *key = position(*key).into());
                list.sort_unstable();
                rule.write(seq, seq * heads.query() + head, list.iter().map(|&t| t as u32));
            }),
            Pick::Pages(scores) => self.per_head(&rule, scores.tokens, |seq, head, room, list| {
                rule.pages(seq, head, scores.head(seq, head), room, list);
            }),
            Pick::Nothing => {
                for &seq in &self.select.pending {
                    rule.write(seq, seq, std::iter::empty());
                }
            }
        }
        Ok(())
    }

    /// Runs `choose(sequence, head, room, list)` for all heads of the pending sequences: room for the keys of `tokens`
    /// scores, a list for those that are kept. Both take their memory once, however many tokens there are now.
    fn per_head(
        &mut self,
        rule: &Rule<'_>,
        tokens: usize,
        choose: impl Fn(usize, usize, &mut Vec<u64>, &mut Vec<u64>) + Sync,
    ) {
        let (heads, kept) = (rule.heads.query(), rule.quota.budget());
        let Room { ranking, lists, pending, .. } = &mut self.select;
        grow(ranking, self.pool.threads(), tokens);
        grow(lists, rule.lens.len() * heads, kept);
        let (ranking, lists) = (Parts::new(ranking), Parts::new(lists));
        self.pool.run(pending.len() * heads, |task, thread| {
            // SAFETY: a thread uses its own room, a task its own list.
            let (room, list) = unsafe { (&mut ranking.slice(thread, 1)[0], &mut lists.slice(task, 1)[0]) };
            choose(pending[task / heads], task % heads, room, list);
        });
    }

    /// LessIsMore: the M candidates with the smallest `min_h(rank_h * H + h)`.
    fn union(&mut self, rule: &Rule<'_>, scores: &Scores) {
        let (heads, history) = (rule.heads.query(), rule.quota.history);
        let mut ranks = (2 * history.div_ceil(heads)).max(FIRST_RANKS).min(history);
        while !self.select.pending.is_empty() {
            self.per_head(rule, scores.tokens, |seq, head, room, list| {
                let (first, last) = rule.candidates(seq);
                best(&scores.head(seq, head)[first..last], first, ranks, room, list);
                list.sort_unstable_by(|a, b| b.cmp(a));
            });
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

/// Marks the first `history` distinct positions of the lists, read rank by rank; whether there were as many.
fn merge(lists: &[Vec<u64>], ranks: usize, history: usize, bits: &mut [u64]) -> bool {
    let mut left = history;
    for rank in 0..ranks {
        for list in lists {
            if left == 0 {
                return true;
            }
            let at = position(list[rank]) as usize;
            let (word, bit) = (&mut bits[at / 64], 1 << (at % 64));
            left -= usize::from(*word & bit == 0);
            *word |= bit;
        }
    }
    left == 0
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

    /// Quest: the last page and the `K / page_size - 1` best others, all their tokens.
    fn pages(&self, seq: usize, head: usize, scores: &[f32], room: &mut Vec<u64>, list: &mut Vec<u64>) {
        let Some((_, others)) = scores.split_last() else { return };
        let pages = (self.quota.budget() / self.page_size).max(1);
        best(others, 0, pages - 1, room, list);
        list.iter_mut().for_each(|key| *key = position(*key).into());
        list.push(others.len() as u64);
        list.sort_unstable();
        let len = self.lens[seq] as u32;
        let tokens = |page: u64| {
            let from = page as u32 * self.page_size as u32;
            from..(from + self.page_size as u32).min(len)
        };
        self.emit(seq * self.heads.query() + head, list.iter().flat_map(|&page| tokens(page)));
    }
}

fn expect_room(
    op: &'static str,
    pick: &Pick<'_, Cpu>,
    quota: Quota,
    heads: Heads,
    out: &Selection,
) -> Result<()> {
    let needed = match pick {
        Pick::Union(_) | Pick::Nothing => Sets::Shared,
        Pick::PerQueryHead(_) | Pick::Pages(_) => Sets::PerQueryHead,
    };
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
