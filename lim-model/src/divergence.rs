//! How far decode steps under other settings are from full attention in what they would say next.

use std::sync::atomic::AtomicBool;

use lim_kernels::Backend;
use lim_select::{Attention, Buffers, ModelHint, Policy, Settings};

use crate::walk::Walk;
use crate::{Engine, Error, RecallOptions, Result};

/// For every setting of a list: the Kullback-Leibler divergence of its next-token distribution from that of full attention,
/// on the same cache. Sums over steps, of any number of sequences.
#[derive(Clone, Debug)]
pub struct Divergence {
    steps: usize,
    sums: Vec<f64>,
    changed: Vec<usize>,
}

impl Divergence {
    /// Nothing measured yet, for a list of `settings` settings.
    pub fn new(settings: usize) -> Self {
        Divergence { steps: 0, sums: vec![0.0; settings], changed: vec![0; settings] }
    }

    /// Measured steps.
    pub fn steps(&self) -> usize {
        self.steps
    }

    /// Mean divergence of a setting in nats a step.
    pub fn mean(&self, setting: usize) -> f64 {
        self.sums[setting] / self.steps.max(1) as f64
    }

    /// Share of steps in which a setting's likeliest token is not that of full attention.
    pub fn changed(&self, setting: usize) -> f64 {
        self.changed[setting] as f64 / self.steps.max(1) as f64
    }
}

impl<B: Backend> Engine<B> {
    /// Runs a sequence with full attention and at each `every`-th step with more cached tokens than the budget tries what
    /// each of `settings` would say next. Their policies and budgets are the same; layers differ. What is cached stays that
    /// of full attention. `progress` is told the tokens cached so far. Returns all tokens.
    ///
    /// # Errors
    /// When the engine is busy, `settings` select nothing, differ in more than layers or in number from what `divergence` was
    /// made for, the tokens do not fit, or the backend fails; [`Error::Interrupted`] when `cancel` is set.
    pub fn divergence(
        &mut self,
        options: RecallOptions<'_>,
        settings: &[Attention],
        divergence: &mut Divergence,
        cancel: &AtomicBool,
        mut progress: impl FnMut(usize),
    ) -> Result<Vec<u32>> {
        let refuse = |reason: &str| Err(Error::Request { what: "settings to try", reason: reason.into() });
        let Some((first, quota)) = settings.first().and_then(|first| Some((first, first.quota()?))) else {
            return refuse("select nothing");
        };
        if settings.len() != divergence.sums.len() || options.every == 0 {
            return refuse("are not as many as the results, or for every 0th step");
        }
        let config = self.model.config();
        let (layers, heads, capacity) = (config.layers, config.heads, self.options().capacity);
        let hint = ModelHint { model_type: "", name: "", layers, hidden: config.hidden };
        let full = Settings { policy: Some(Policy::Full), ..Settings::default() };
        let full = full.resolve(&hint, self.options().page_size)?;
        let mut unused = Buffers::new(&mut self.backend, &full, capacity, heads)?;
        let mut buffers = Buffers::new(&mut self.backend, first, capacity, heads)?;
        let mut walk = Walk::start(self, options.prompt, options.continuation, cancel)?;
        let mut run = || {
            let mut logits = vec![vec![0.0; self.model.config().vocab]; settings.len() + 1];
            let mut next = walk.cached().max(quota.budget()) + 1;
            while walk.goes_on(self) {
                if walk.cached() + 1 < next {
                    walk.skip_to(self, next - 1, cancel)?;
                } else {
                    walk.enter(self, cancel)?;
                    // Full attention last: its keys and values stay.
                    for (setting, out) in settings.iter().zip(&mut logits) {
                        walk.pass(self, (setting, &mut buffers), |_| Ok(()))?;
                        self.read_logits(out)?;
                    }
                    walk.pass(self, (&full, &mut unused), |_| Ok(()))?;
                    self.read_logits(&mut logits[settings.len()])?;
                    walk.draw(self)?;
                    divergence.add(&logits);
                    next += options.every;
                }
                progress(walk.cached());
            }
            Ok(())
        };
        let result = run();
        let ids = walk.end(self)?;
        result.map(|()| ids)
    }

    /// Logits of the step's only row.
    fn read_logits(&mut self, out: &mut [f32]) -> Result<()> {
        let Engine { backend, model, workspace, .. } = self;
        model.logits(backend, &[0], workspace)?;
        Ok(backend.read_rows(workspace.logits(), out)?)
    }
}

impl Divergence {
    /// `logits`: of every setting, and of full attention last.
    fn add(&mut self, logits: &[Vec<f32>]) {
        let Some((full, tried)) = logits.split_last() else { return };
        let of_full = log_softmax(full);
        for (index, tried) in tried.iter().enumerate() {
            let of_tried = log_softmax(tried);
            let pairs = of_full.iter().zip(&of_tried);
            self.sums[index] += pairs
                .map(|(p, q)| if *p == f64::NEG_INFINITY { 0.0 } else { p.exp() * (p - q) })
                .sum::<f64>();
            self.changed[index] += usize::from(likeliest(tried) != likeliest(full));
        }
        self.steps += 1;
    }
}

/// Natural logs of the probabilities.
fn log_softmax(logits: &[f32]) -> Vec<f64> {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let shifted = || logits.iter().map(|&logit| f64::from(logit) - f64::from(most));
    let total = shifted().map(f64::exp).sum::<f64>().ln();
    shifted().map(|logit| logit - total).collect()
}

/// The first of the highest.
fn likeliest(logits: &[f32]) -> usize {
    let better = |best: usize, at: usize| if logits[at] > logits[best] { at } else { best };
    (0..logits.len()).fold(0, better)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn divergence_of_two_coins() {
        let logits = |p: f32| vec![p.ln(), (1.0 - p).ln()];
        let mut divergence = Divergence::new(2);
        divergence.add(&[logits(0.25), logits(0.5), logits(0.5)]);
        divergence.add(&[logits(0.5), logits(0.75), logits(0.75)]);
        let kl = |p: f64, q: f64| p * (p / q).ln() + (1.0 - p) * ((1.0 - p) / (1.0 - q)).ln();
        assert!((divergence.mean(0) - (kl(0.5, 0.25) + kl(0.75, 0.5)) / 2.0).abs() < 1e-6);
        assert_eq!((divergence.mean(1), divergence.steps()), (0.0, 2));
        assert_eq!((divergence.changed(0), divergence.changed(1)), (0.5, 0.0));
    }

    #[test]
    fn what_cannot_be_said_diverges_by_nothing_where_full_attention_would_not_say_it() {
        let mut divergence = Divergence::new(1);
        divergence.add(&[vec![0.0, -1.0], vec![0.0, f32::NEG_INFINITY]]);
        let expected = (1.0 + (-1.0f64).exp()).ln();
        assert!((divergence.mean(0) - expected).abs() < 1e-12, "{}", divergence.mean(0));
    }
}
