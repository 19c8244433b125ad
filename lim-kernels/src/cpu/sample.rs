//! Sampling: penalties, temperature, top-k, top-p, min-p, then one draw by the inverse of the distribution over the
//! kept tokens in ascending id order.

use std::sync::atomic::{AtomicU64, Ordering};

use super::Cpu;
use super::buffer::Parts;
use super::draws::{IN_PROMPT, Place};
use super::philox::uniform;
use super::rank::{key, position};
use super::simd::{Isa, Kernel, Simd};
use super::store::expect_rows;
use crate::{Error, Result, Sample, SampleParams, Sampled};

const OP: &str = "sample";
/// Logits whose exponentials are added in float32 before the sum goes to float64.
const BLOCK: usize = 1024;
/// Tokens sorted at first for top-p; eight times more each time they do not hold the mass.
const FIRST_SORTED: usize = 256;

/// Memory of one thread.
#[derive(Default)]
pub(super) struct Room {
    logits: Vec<f32>,
    kept: Vec<u64>,
}

/// Index and value of the largest element, the first on ties; or the index of a NaN or +inf.
struct Largest<'a>(&'a [f32]);

impl Kernel for Largest<'_> {
    type Out = Result<(usize, f32), usize>;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Self::Out {
        let x = self.0;
        let mut top = s.splat(f32::NEG_INFINITY);
        // NaN and +inf survive in a product with zero, finite numbers and the sum's start do not; -inf is let off.
        let mut odd = s.splat(0.0);
        let (zero, least) = (s.splat(0.0), s.splat(f32::MIN));
        let mut i = 0;
        while i + S::LANES <= x.len() {
            // SAFETY: `i + LANES <= len`.
            let v = unsafe { s.load(x.as_ptr().add(i)) };
            top = s.max(v, top);
            odd = s.fma(s.max(least, v), zero, odd);
            i += S::LANES;
        }
        let mut largest = s.largest(top);
        let mut rest = s.sum(odd);
        for &v in &x[i..] {
            largest = largest.max(v);
            rest += if v == f32::NEG_INFINITY { 0.0 } else { v * 0.0 };
        }
        if rest.is_nan() {
            let bad = x.iter().position(|v| v.is_nan() || *v == f32::INFINITY);
            return Err(bad.unwrap_or(0));
        }
        match x.iter().position(|&v| v == largest) {
            Some(at) if largest > f32::NEG_INFINITY => Ok((at, largest)),
            _ => Err(0),
        }
    }
}

/// `sum e^(x_i - top)`.
struct ExpSum<'a> {
    x: &'a [f32],
    top: f32,
}

impl Kernel for ExpSum<'_> {
    type Out = f64;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f64 {
        let mut total = 0.0;
        let (top, floor) = (s.splat(self.top), s.splat(-87.0));
        let mut start = 0;
        while start < self.x.len() {
            let block = &self.x[start..self.x.len().min(start + BLOCK)];
            let mut sums = s.splat(0.0);
            let mut i = 0;
            while i + S::LANES <= block.len() {
                // SAFETY: `i + LANES <= len`.
                let v = unsafe { s.load(block.as_ptr().add(i)) };
                sums = s.add(sums, s.exp(s.max(floor, s.sub(v, top))));
                i += S::LANES;
            }
            total += f64::from(s.sum(sums));
            for &v in &block[i..] {
                total += f64::from((v - self.top).exp());
            }
            start += BLOCK;
        }
        total
    }
}

impl Cpu {
    pub(super) fn sample_op(&mut self, op: Sample<'_, Self>) -> Result<()> {
        let Sample { logits, draws, next } = op;
        let rows = next.as_ref().map_or(draws.started, |batch| batch.step.rows());
        expect_rows(OP, "logits", logits, [rows, draws.vocab])?;
        draws.expect_rows(rows)?;
        let (isa, vocab, logits) = (self.isa, draws.vocab, logits.data().f32s());
        // Row and index of the first logit that is not a number, in one value so that the least is the first.
        let failed = AtomicU64::new(u64::MAX);
        let empty = |row| next.as_ref().is_some_and(|batch| batch.step.seq(row).len == 0);
        let (slot, places, seen) = draws.parts();
        let (rooms, results) = (Parts::new(&mut self.sampling), Parts::new(slot));
        let row_logits = |row| &logits[row * vocab..(row + 1) * vocab];
        self.pool.run(rows, |row, thread| {
            if empty(row) {
                return;
            }
            // SAFETY: a thread uses its own room, a task its own result.
            let (room, result) = unsafe { (&mut rooms.slice(thread, 1)[0], &mut results.slice(row, 1)[0]) };
            let seen = seen.get(row * vocab..(row + 1) * vocab);
            match draw_one(isa, row_logits(row), &places[row], seen, room) {
                Ok(sampled) => *result = sampled,
                Err(index) => _ = failed.fetch_min((row as u64) << 32 | index as u64, Ordering::Relaxed),
            }
        });
        let failed = failed.into_inner();
        if failed != u64::MAX {
            let (row, index) = ((failed >> 32) as usize, failed as u32 as usize);
            let value = row_logits(row)[index];
            return Err(Error::NotFinite { op: OP, operand: "logits", row, index, value });
        }
        match next {
            Some(batch) => {
                batch.next.clear();
                for row in 0..rows {
                    let token = if batch.step.seq(row).len > 0 { draws.advance(row) } else { None };
                    batch.next.push(token);
                }
            }
            None => (0..rows).for_each(|row| _ = draws.advance(row)),
        }
        Ok(())
    }
}

/// One token, or the index of a logit that is not a number. `seen`: counts by token, where a penalty needs them.
fn draw_one(
    isa: Isa,
    logits: &[f32],
    place: &Place,
    seen: Option<&[u32]>,
    room: &mut Room,
) -> Result<Sampled, usize> {
    let (first, top) = isa.run(Largest(logits))?;
    let log_sum = f64::from(top) + isa.run(ExpSum { x: logits, top }).ln();
    let token = match place.forced {
        Some(token) => token as usize,
        None => choose(isa, logits, (first, top), place, seen, room)?,
    };
    Ok(Sampled { token: token as u32, logprob: (f64::from(logits[token]) - log_sum) as f32 })
}

fn choose(
    isa: Isa,
    logits: &[f32],
    largest: (usize, f32),
    place: &Place,
    seen: Option<&[u32]>,
    room: &mut Room,
) -> Result<usize, usize> {
    let p = &place.params;
    let Room { logits: changed, kept } = room;
    let (logits, (first, top)) = match seen.filter(|_| p.has_penalty()) {
        Some(seen) => {
            changed.clear();
            changed.extend_from_slice(logits);
            penalise(changed, p, seen);
            (&changed[..], isa.run(Largest(changed))?)
        }
        None => (logits, largest),
    };
    if p.temperature == 0.0 {
        return Ok(first);
    }
    let weight = |logit: f32| (f64::from(logit - top) / f64::from(p.temperature)).exp();
    let u = f64::from(uniform(p.seed, place.drawn));
    // Unlikely enough tokens never survive min-p, which compares with the most likely token only.
    let least = if p.min_p > 0.0 { f64::from(p.min_p) } else { 0.0 };
    let cut = p.top_k > 0 && p.top_k < logits.len() || p.top_p < 1.0;
    if !cut {
        let all = logits.iter().enumerate().map(|(t, &l)| (t, weight(l))).filter(|&(_, w)| w >= least);
        return Ok(invert(all, u).unwrap_or(first));
    }
    keep(logits, p, &weight, kept);
    kept.retain(|&k| weight(logits[position(k) as usize]) >= least);
    kept.sort_unstable_by_key(|&k| position(k));
    let all = kept.iter().map(|&k| position(k) as usize).map(|t| (t, weight(logits[t])));
    Ok(invert(all, u).unwrap_or(first))
}

/// The tokens that top-k and top-p keep, as keys.
fn keep(logits: &[f32], p: &SampleParams, weight: &impl Fn(f32) -> f64, kept: &mut Vec<u64>) {
    kept.clear();
    kept.extend(logits.iter().enumerate().map(|(t, &l)| key(l, t as u32)));
    if p.top_k > 0 && p.top_k < kept.len() {
        kept.select_nth_unstable_by(p.top_k - 1, |a, b| b.cmp(a));
        kept.truncate(p.top_k);
    }
    if p.top_p == 1.0 {
        return;
    }
    let of = |k: u64| weight(logits[position(k) as usize]);
    let target = f64::from(p.top_p) * kept.iter().map(|&k| of(k)).sum::<f64>();
    let mut sorted = FIRST_SORTED;
    loop {
        let head = sorted.min(kept.len());
        if head < kept.len() {
            kept.select_nth_unstable_by(head - 1, |a, b| b.cmp(a));
        }
        kept[..head].sort_unstable_by(|a, b| b.cmp(a));
        let mut mass = 0.0;
        let enough = kept[..head].iter().position(|&k| {
            mass += of(k);
            mass >= target
        });
        if let Some(last) = enough {
            return kept.truncate(last + 1);
        }
        if head == kept.len() {
            return;
        }
        sorted *= 8;
    }
}

/// The first token whose cumulated weight passes `u` of the total; the last one with weight if rounding gets in the
/// way.
fn invert(weights: impl Iterator<Item = (usize, f64)> + Clone, u: f64) -> Option<usize> {
    let target = u * weights.clone().map(|(_, w)| w).sum::<f64>();
    let (mut mass, mut last) = (0.0, None);
    for (token, weight) in weights {
        if weight > 0.0 {
            mass += weight;
            last = Some(token);
            if mass > target {
                break;
            }
        }
    }
    last
}

/// Repetition penalty for every token seen, then presence and frequency penalties for generated ones.
fn penalise(logits: &mut [f32], p: &SampleParams, seen: &[u32]) {
    for (l, &seen) in logits.iter_mut().zip(seen).filter(|(_, seen)| **seen != 0) {
        *l = if *l > 0.0 { *l / p.repetition_penalty } else { *l * p.repetition_penalty };
        let generated = seen & !IN_PROMPT;
        if generated > 0 {
            *l -= p.presence_penalty + p.frequency_penalty * generated as f32;
        }
    }
}
