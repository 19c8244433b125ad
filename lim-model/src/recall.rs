//! How much attention later layers would keep on what an earlier layer selects: measured under full attention.

use std::sync::atomic::AtomicBool;

use lim_kernels::{Backend, Heads, Pick, Quota, Select, Sets};
use lim_select::{Attention, Buffers, KeptMass, Layers, ModelHint, Own, Policy, Settings};

use crate::walk::Walk;
use crate::{Continuation, Engine, Error, Result, Watched};

/// A sequence to measure on.
#[derive(Clone, Copy, Debug)]
pub struct RecallOptions<'a> {
    /// Prompt, prefilled; its positions are not measured.
    pub prompt: &'a [u32],
    /// What follows, in decode steps of full attention.
    pub continuation: Continuation<'a>,
    /// Every how many tokens a step is measured; at least 1.
    pub every: usize,
}

/// For every pair of layers, query head and budget: the softmax mass that the later layer's full attention has on the tokens
/// that LessIsMore selects by the earlier layer's scores. Sums over steps, of any number of sequences.
#[derive(Clone, Debug)]
pub struct Recall {
    layers: usize,
    heads: Heads,
    budgets: Vec<Budget>,
}

#[derive(Clone, Debug)]
struct Budget {
    quota: Quota,
    steps: usize,
    /// Cached tokens of the measured steps, summed.
    context: usize,
    /// `[select layer][reading layer][query head]`: mass summed over steps, and its minimum.
    sum: Vec<f64>,
    least: Vec<f64>,
}

impl Recall {
    /// Nothing measured yet, for a model of `layers` layers. Every quota needs at least one token.
    pub fn new(layers: usize, heads: Heads, quotas: &[Quota]) -> Self {
        let cells = layers * layers * heads.query();
        let budget = |&quota: &Quota| Budget {
            quota,
            steps: 0,
            context: 0,
            sum: vec![0.0; cells],
            least: vec![1.0; cells],
        };
        Recall { layers, heads, budgets: quotas.iter().map(budget).collect() }
    }

    /// Number of layers.
    pub fn layers(&self) -> usize {
        self.layers
    }

    /// Heads of a layer.
    pub fn heads(&self) -> Heads {
        self.heads
    }

    /// How a budget is cut.
    pub fn quota(&self, budget: usize) -> Quota {
        self.budgets[budget].quota
    }

    /// Number of budgets.
    pub fn budgets(&self) -> usize {
        self.budgets.len()
    }

    /// Measured steps under a budget: those with more cached tokens than it.
    pub fn steps(&self, budget: usize) -> usize {
        self.budgets[budget].steps
    }

    /// Mean cached tokens of the measured steps; 0 without any.
    pub fn context(&self, budget: usize) -> f64 {
        let Budget { steps, context, .. } = self.budgets[budget];
        if steps == 0 { 0.0 } else { context as f64 / steps as f64 }
    }

    /// Mean kept mass of one query head.
    pub fn head(&self, budget: usize, select: usize, reader: usize, head: usize) -> f64 {
        let budget = &self.budgets[budget];
        budget.sum[self.cell(select, reader) + head] / budget.steps.max(1) as f64
    }

    /// Mean kept mass over steps and heads.
    pub fn mean(&self, budget: usize, select: usize, reader: usize) -> f64 {
        let heads = self.heads.query();
        (0..heads).map(|head| self.head(budget, select, reader, head)).sum::<f64>() / heads as f64
    }

    /// The query head that keeps least in the mean, and how much.
    pub fn worst_head(&self, budget: usize, select: usize, reader: usize) -> (usize, f64) {
        let of = |head| (head, self.head(budget, select, reader, head));
        (0..self.heads.query()).map(of).min_by(|a, b| a.1.total_cmp(&b.1)).unwrap_or((0, 0.0))
    }

    /// Least kept mass of any head in any step.
    pub fn least(&self, budget: usize, select: usize, reader: usize) -> f64 {
        let cell = self.cell(select, reader);
        self.budgets[budget].least[cell..cell + self.heads.query()].iter().copied().fold(1.0, f64::min)
    }

    /// Means over steps and heads, for the choice of layers.
    pub fn kept_mass(&self, budget: usize) -> KeptMass {
        KeptMass::new(
            self.layers,
            |select, reader| {
                if select <= reader { self.mean(budget, select, reader) } else { 0.0 }
            },
        )
    }

    fn cell(&self, select: usize, reader: usize) -> usize {
        (select * self.layers + reader) * self.heads.query()
    }

    /// Adds what one layer keeps on every earlier layer's set, its own included.
    fn add(&mut self, budget: usize, reader: usize, weights: &[f64], sets: &[Vec<u32>]) {
        let heads = self.heads.query();
        for (select, set) in sets.iter().enumerate() {
            let cell = self.cell(select, reader);
            let Budget { sum, least, .. } = &mut self.budgets[budget];
            for (head, of_head) in weights.chunks_exact(weights.len() / heads).enumerate() {
                let kept: f64 = set.iter().map(|&t| of_head[t as usize]).sum();
                sum[cell + head] += kept;
                least[cell + head] = least[cell + head].min(kept);
            }
        }
    }
}

impl<B: Backend> Engine<B> {
    /// Runs a sequence with full attention and adds what every layer would have kept, at each `every`-th step with more
    /// cached tokens than a budget. `progress` is told the tokens cached so far. Returns all tokens.
    ///
    /// # Errors
    /// When the engine is busy, was not made for the model that `recall` was made for, the tokens do not fit, or the
    /// backend fails; [`Error::Interrupted`] when `cancel` is set.
    pub fn recall(
        &mut self,
        options: RecallOptions<'_>,
        recall: &mut Recall,
        cancel: &AtomicBool,
        mut progress: impl FnMut(usize),
    ) -> Result<Vec<u32>> {
        let config = self.model.config();
        let (layers, heads) = (config.layers, config.heads);
        if (recall.layers, recall.heads) != (layers, heads) || options.every == 0 {
            let reason = "was made for another model, or for every 0th step".into();
            return Err(Error::Request { what: "recall", reason });
        }
        let mut watch = Watch::new(self, recall)?;
        let mut walk = Walk::start(self, options.prompt, options.continuation, cancel)?;
        let result = watch.run(self, &mut walk, recall, options, cancel, &mut progress);
        let ids = walk.end(self)?;
        result.map(|()| ids)
    }
}

/// What the measured steps need.
struct Watch<B: Backend> {
    /// Every layer attends to everything, writes its scores and selects: full attention by another name.
    attention: Attention,
    buffers: Buffers<B>,
    /// One a budget.
    selections: Vec<B::Selection>,
    counters: B::Counters,
    least: usize,
}

impl<B: Backend> Watch<B> {
    fn new(engine: &mut Engine<B>, recall: &Recall) -> Result<Self> {
        let config = engine.model.config();
        let (layers, heads, capacity) = (config.layers, config.heads, engine.options().capacity);
        let hint = ModelHint { model_type: "", name: "", layers, hidden: config.hidden };
        let least = recall.budgets.iter().map(|b| b.quota.budget()).min().unwrap_or(0);
        let settings = Settings {
            policy: Some(Policy::Lim),
            token_budget: Some(least),
            layers: Some(Layers::new([], (0..layers).map(|layer| (layer, Own::Dense)))?),
            ..Settings::default()
        };
        let attention = settings.resolve(&hint, engine.options().page_size)?;
        let backend = &mut engine.backend;
        let selections = recall
            .budgets
            .iter()
            .map(|b| backend.selection(capacity, heads, Sets::Shared, b.quota.budget()))
            .collect::<Result<_, _>>()?;
        let counters = backend.counters(layers)?;
        let buffers = Buffers::new(backend, &attention, capacity, heads)?;
        Ok(Watch { attention, buffers, selections, counters, least })
    }

    fn run(
        &mut self,
        engine: &mut Engine<B>,
        walk: &mut Walk<'_>,
        recall: &mut Recall,
        options: RecallOptions<'_>,
        cancel: &AtomicBool,
        progress: &mut dyn FnMut(usize),
    ) -> Result<()> {
        // The first measured step has one token more than the smallest budget, or than the prompt.
        let mut next = walk.cached().max(self.least) + 1;
        while walk.goes_on(engine) {
            if walk.cached() + 1 < next {
                walk.skip_to(engine, next - 1, cancel)?;
            } else {
                self.step(engine, walk, recall, cancel)?;
                next += options.every;
            }
            progress(walk.cached());
        }
        Ok(())
    }

    /// A decode step of full attention, measured.
    fn step(
        &mut self,
        engine: &mut Engine<B>,
        walk: &mut Walk<'_>,
        recall: &mut Recall,
        cancel: &AtomicBool,
    ) -> Result<()> {
        let Watch { attention, buffers, selections, counters, .. } = self;
        let (n, heads) = (walk.cached() + 1, recall.heads);
        let scale = 1.0 / (heads.dim() as f64).sqrt();
        // `[budget][layers so far]`, ascending positions.
        let mut sets: Vec<Vec<Vec<u32>>> = vec![Vec::new(); selections.len()];
        walk.decode(engine, (&*attention, buffers), cancel, |seen: Watched<'_, B>| {
            let Watched { backend, layer, batch, buffers } = seen;
            let Some(scores) = buffers.scores() else { return Ok(()) };
            let mut weights: Vec<f64> =
                backend.read_scores(0, n, scores)?.into_iter().map(f64::from).collect();
            weights.chunks_exact_mut(n).for_each(|of_head| softmax(of_head, scale));
            for (budget, out) in selections.iter_mut().enumerate() {
                let quota = recall.budgets[budget].quota;
                if n <= quota.budget() {
                    continue;
                }
                let pick = Pick::Union(scores);
                backend.select(Select {
                    pick,
                    quota,
                    heads,
                    batch,
                    layer,
                    counters: &mut *counters,
                    out: &mut *out,
                })?;
                let set = backend.read_selection(0, out)?.and_then(|sets| sets.into_iter().next());
                sets[budget].push(set.unwrap_or_default());
                recall.add(budget, layer, &weights, &sets[budget]);
            }
            Ok(())
        })?;
        for budget in recall.budgets.iter_mut().filter(|b| n > b.quota.budget()) {
            budget.steps += 1;
            budget.context += n;
        }
        Ok(())
    }
}

/// Raw scores to attention weights. Scores that are not numbers get none.
fn softmax(scores: &mut [f64], scale: f64) {
    let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mut sum = 0.0;
    for score in scores.iter_mut() {
        *score = ((*score - most) * scale).exp();
        sum += *score;
    }
    scores.iter_mut().for_each(|weight| *weight /= sum);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_a_softmax() {
        let mut scores = [0.0, 2.0, 4.0, -1000.0];
        softmax(&mut scores, 0.5);
        let sum = 1.0 + 1f64.exp() + 2f64.exp();
        for (got, expected) in scores.iter().zip([1.0 / sum, 1f64.exp() / sum, 2f64.exp() / sum, 0.0]) {
            assert!((got - expected).abs() < 1e-12, "{got} {expected}");
        }
    }

    #[test]
    fn figures_of_a_pair() {
        let heads = Heads::new(2, 1, 32).expect("valid");
        let quota = Quota { sinks: 0, history: 1, window: 1 };
        let mut recall = Recall::new(2, heads, &[quota]);
        // Two steps of three tokens; layer 1 on the set of layer 0 and its own.
        for (weights, sets) in [
            ([0.5, 0.25, 0.25, 0.1, 0.1, 0.8], [vec![0, 2], vec![1, 2]]),
            ([1.0, 0.0, 0.0, 0.25, 0.5, 0.25], [vec![1, 2], vec![0, 2]]),
        ] {
            recall.add(0, 1, &weights, &sets);
            recall.budgets[0].steps += 1;
            recall.budgets[0].context += 3;
        }
        assert_eq!((recall.steps(0), recall.context(0)), (2, 3.0));
        let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-12, "{a} {b}");
        close(recall.head(0, 0, 1, 0), 0.375);
        close(recall.head(0, 0, 1, 1), 0.825);
        close(recall.mean(0, 0, 1), 0.6);
        close(recall.mean(0, 1, 1), 0.725);
        close(recall.least(0, 0, 1), 0.0);
        assert_eq!(recall.worst_head(0, 0, 1).0, 0);
        close(recall.kept_mass(0).get(0, 1), 0.6);
    }
}
