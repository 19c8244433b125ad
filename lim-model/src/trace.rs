//! Which positions the select layers keep, step by step.

use std::sync::atomic::AtomicBool;

use lim_kernels::{Backend, Quota};
use lim_select::{Buffers, Role};

use crate::walk::Walk;
use crate::{Continuation, Engine, Error, Result};

/// A sequence to look at.
#[derive(Clone, Copy, Debug)]
pub struct TraceOptions<'a> {
    /// Prompt, prefilled.
    pub prompt: &'a [u32],
    /// What follows, through decode steps of the engine's policy.
    pub continuation: Continuation<'a>,
}

/// What the select layers chose from the history in the steps of one sequence. Sinks and recent tokens are kept whatever
/// their scores, so they are left out. Where a policy has a set per head, a position counts that any head has kept.
#[derive(Clone, Debug)]
pub struct Trace {
    /// Select layers, ascending.
    pub layers: Vec<usize>,
    /// How the budget is cut.
    pub quota: Quota,
    /// All tokens.
    pub ids: Vec<u32>,
    /// Steps that selected, in order.
    pub steps: Vec<TraceStep>,
}

/// One decode step.
#[derive(Clone, Debug)]
pub struct TraceStep {
    /// Cached tokens.
    pub len: usize,
    /// Positions as bits, by select layer.
    kept: Vec<Vec<u64>>,
}

impl TraceStep {
    /// Whether the `layer`-th select layer chose `position` from the history.
    pub fn keeps(&self, layer: usize, position: usize) -> bool {
        self.kept[layer].get(position / 64).is_some_and(|word| word >> (position % 64) & 1 == 1)
    }

    /// Positions that the `layer`-th select layer chose.
    pub fn count(&self, layer: usize) -> usize {
        self.kept[layer].iter().map(|word| word.count_ones() as usize).sum()
    }
}

impl Trace {
    /// In how many steps the `layer`-th select layer chose each position; any layer where `None`.
    pub fn counts(&self, layer: Option<usize>) -> Vec<u32> {
        let layers = self.range(layer);
        let keeps = |step: &&TraceStep, t| layers.clone().any(|layer| step.keeps(layer, t));
        let count = |t| self.steps.iter().filter(|step| keeps(step, t)).count() as u32;
        (0..self.ids.len()).map(count).collect()
    }

    /// How many positions the `layer`-th select layer chose a step, in the mean. `None` without a step.
    pub fn chosen(&self, layer: usize) -> Option<f64> {
        mean(self.steps.iter().map(|step| step.count(layer) as f64))
    }

    fn range(&self, layer: Option<usize>) -> std::ops::Range<usize> {
        layer.map_or(0..self.layers.len(), |layer| layer..layer + 1)
    }

    /// In how many steps `position` was there to be chosen.
    pub fn candidate_steps(&self, position: usize) -> usize {
        let Quota { sinks, window, .. } = self.quota;
        if position < sinks {
            return 0;
        }
        self.steps.len() - self.steps.partition_point(|step| position + window >= step.len)
    }

    /// Share of the positions there to be chosen that the `layer`-th select layer chose at least once; any layer where `None`.
    /// `None` without a step.
    pub fn ever_kept(&self, layer: Option<usize>) -> Option<f64> {
        let counts = self.counts(layer).into_iter().enumerate();
        let candidates = counts.filter(|&(t, _)| self.candidate_steps(t) > 0);
        mean(candidates.map(|(_, count)| if count > 0 { 1.0 } else { 0.0 }))
    }

    /// Share of the `layer`-th select layer's choice that was not in its choice of the step before, in the mean. `None` with
    /// fewer than two steps.
    pub fn turnover(&self, layer: usize) -> Option<f64> {
        mean(
            self.steps
                .windows(2)
                .filter_map(|pair| Some(1.0 - shared(&pair[1].kept[layer], &pair[0].kept[layer])?)),
        )
    }

    /// Share of the `layer`-th select layer's choice that the `other`-th has chosen too, in the mean over steps.
    pub fn overlap(&self, layer: usize, other: usize) -> Option<f64> {
        mean(self.steps.iter().filter_map(|step| shared(&step.kept[layer], &step.kept[other])))
    }
}

/// Share of `a` that is in `b` too; `None` where `a` is empty.
fn shared(a: &[u64], b: &[u64]) -> Option<f64> {
    let ones = |words: &mut dyn Iterator<Item = u64>| words.map(u64::count_ones).sum::<u32>();
    let all = ones(&mut a.iter().copied());
    (all > 0).then(|| f64::from(ones(&mut a.iter().zip(b).map(|(a, b)| a & b))) / f64::from(all))
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.fold((0.0, 0usize), |(sum, count), value| (sum + value, count + 1));
    (count > 0).then(|| sum / count as f64)
}

impl<B: Backend> Engine<B> {
    /// Runs a sequence under the engine's policy and notes what its select layers choose. `progress` is told the tokens
    /// cached so far.
    ///
    /// # Errors
    /// When the engine is busy or its policy selects nothing, the tokens do not fit, or the backend fails;
    /// [`Error::Interrupted`] when `cancel` is set.
    pub fn trace(
        &mut self,
        options: TraceOptions<'_>,
        cancel: &AtomicBool,
        mut progress: impl FnMut(usize),
    ) -> Result<Trace> {
        let attention = self.attention().clone();
        let Some(quota) = attention.quota() else {
            let reason = format!("`{}` selects nothing", attention.policy());
            return Err(Error::Request { what: "policy", reason });
        };
        let (heads, capacity) = (self.model.config().heads, self.options().capacity);
        let mut buffers = Buffers::new(&mut self.backend, &attention, capacity, heads)?;
        let mut walk = Walk::start(self, options.prompt, options.continuation, cancel)?;
        let mut steps = Vec::new();
        let mut run = || {
            while walk.goes_on(self) {
                let len = walk.cached() + 1;
                let mut kept = Vec::new();
                walk.decode(self, (&attention, &mut buffers), cancel, |seen| {
                    if !matches!(attention.role(seen.layer, len), Role::Select { .. }) {
                        return Ok(());
                    }
                    let Some(selection) = seen.buffers.selection() else { return Ok(()) };
                    let sets = seen.backend.read_selection(0, selection)?.unwrap_or_default();
                    kept.push(bits(&sets, quota.sinks..len - quota.window.min(len), len));
                    Ok(())
                })?;
                if !kept.is_empty() {
                    steps.push(TraceStep { len, kept });
                }
                progress(walk.cached());
            }
            Ok(())
        };
        let result = run();
        let ids = walk.end(self)?;
        result.map(|()| Trace { layers: attention.plan().select_layers(), quota, ids, steps })
    }
}

/// The positions of `sets` within `history`, as bits.
fn bits(sets: &[Vec<u32>], history: std::ops::Range<usize>, len: usize) -> Vec<u64> {
    let mut bits = vec![0u64; len.div_ceil(64)];
    for position in sets.iter().flatten().map(|&t| t as usize).filter(|t| history.contains(t)) {
        bits[position / 64] |= 1 << (position % 64);
    }
    bits
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two select layers, sink 0, a window of two; steps of 6 and 7 cached tokens.
    fn trace() -> Trace {
        let quota = Quota { sinks: 1, history: 2, window: 2 };
        let step = |len: usize, sets: [&[u32]; 2]| {
            let kept = sets.map(|set| bits(&[set.to_vec()], 1..len - 2, len));
            TraceStep { len, kept: kept.to_vec() }
        };
        let steps = vec![
            step(6, [&[0, 1, 2, 4, 5], &[0, 1, 3, 4, 5]]),
            step(7, [&[0, 1, 4, 5, 6], &[0, 1, 4, 5, 6]]),
        ];
        Trace { layers: vec![2, 5], quota, ids: vec![9; 7], steps }
    }

    #[test]
    fn sinks_and_window_do_not_count() {
        let trace = trace();
        assert_eq!(trace.counts(Some(0)), [0, 2, 1, 0, 1, 0, 0]);
        assert_eq!(trace.counts(Some(1)), [0, 2, 0, 1, 1, 0, 0]);
        assert_eq!(trace.counts(None), [0, 2, 1, 1, 1, 0, 0]);
        assert_eq!(trace.chosen(0), Some(2.0));
        assert_eq!((trace.steps[0].count(0), trace.steps[0].keeps(0, 2)), (2, true));
        let candidates: Vec<usize> = (0..7).map(|t| trace.candidate_steps(t)).collect();
        assert_eq!(candidates, [0, 2, 2, 2, 1, 0, 0]);
    }

    #[test]
    fn figures() {
        let trace = trace();
        assert_eq!((trace.ever_kept(Some(0)), trace.ever_kept(None)), (Some(0.75), Some(1.0)));
        assert_eq!(trace.turnover(0), Some(0.5));
        assert_eq!((trace.overlap(0, 1), trace.overlap(0, 0)), (Some(0.75), Some(1.0)));
        let none = Trace { steps: Vec::new(), ..trace };
        assert_eq!((none.ever_kept(None), none.turnover(0), none.overlap(0, 1)), (None, None, None));
    }
}
