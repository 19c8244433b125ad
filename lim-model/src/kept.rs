//! What a plan's layers keep and read, from what was measured for every pair of layers.

use lim_select::Plan;

use crate::Recall;

/// A plan's figures under one budget. Means are over the measured steps.
#[derive(Clone, Debug, PartialEq)]
pub struct Kept {
    /// One a layer.
    pub layers: Vec<LayerKept>,
    /// Tokens that a layer reads a step, mean over layers.
    pub attended: f64,
}

/// What one layer keeps of its attention.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerKept {
    /// The layer whose set it reads; `None` where it reads everything, and keeps all.
    pub source: Option<usize>,
    /// Of every query head, mean over steps.
    pub heads: Vec<f64>,
    /// In the step and head that keep least.
    pub least: f64,
}

impl LayerKept {
    /// Mean over heads.
    pub fn mean(&self) -> f64 {
        self.heads.iter().sum::<f64>() / self.heads.len() as f64
    }

    /// The head that keeps least in the mean, and how much.
    pub fn worst_head(&self) -> (usize, f64) {
        let heads = self.heads.iter().copied().enumerate();
        heads.min_by(|a, b| a.1.total_cmp(&b.1)).unwrap_or((0, 1.0))
    }
}

impl Kept {
    /// Layers that read a chosen set, by number.
    fn sparse(&self) -> impl Iterator<Item = (usize, &LayerKept)> {
        self.layers.iter().enumerate().filter(|(_, layer)| layer.source.is_some())
    }

    /// Mean over the layers that read a chosen set; 1 without any.
    pub fn mean(&self) -> f64 {
        let (sum, count) = self.sparse().fold((0.0, 0), |(sum, n), (_, layer)| (sum + layer.mean(), n + 1));
        if count == 0 { 1.0 } else { sum / f64::from(count) }
    }

    /// The layer that keeps least in the mean, and how much; `None` where every layer reads everything.
    pub fn worst_layer(&self) -> Option<(usize, f64)> {
        self.sparse().map(|(l, layer)| (l, layer.mean())).min_by(|a, b| a.1.total_cmp(&b.1))
    }

    /// The layer and head that keep least in the mean, and how much; `None` where every layer reads everything.
    pub fn worst_head(&self) -> Option<(usize, usize, f64)> {
        let heads = self.sparse().map(|(l, layer)| (l, layer.worst_head().0, layer.worst_head().1));
        heads.min_by(|a, b| a.2.total_cmp(&b.2))
    }

    /// Least of any layer, head and step; 1 where every layer reads everything.
    pub fn least(&self) -> f64 {
        self.sparse().map(|(_, layer)| layer.least).fold(1.0, f64::min)
    }
}

impl Recall {
    /// What the layers of `plan` keep and read under a budget.
    ///
    /// # Panics
    /// When there is no such budget, or the plan is for another number of layers.
    pub fn kept(&self, budget: usize, plan: &Plan) -> Kept {
        let sources = plan.sources();
        assert_eq!(sources.len(), self.layers(), "layers of the plan");
        let heads = self.heads().query();
        let (context, tokens) = (self.context(budget), self.quota(budget).budget() as f64);
        let layer = |(reader, source): (usize, &Option<usize>)| match *source {
            None => LayerKept { source: None, heads: vec![1.0; heads], least: 1.0 },
            Some(select) => LayerKept {
                source: Some(select),
                heads: (0..heads).map(|head| self.head(budget, select, reader, head)).collect(),
                least: self.least(budget, select, reader),
            },
        };
        // Measured steps have more cached tokens than the budget: sets are full.
        let read = |source: &Option<usize>| if source.is_some() { tokens } else { context };
        Kept {
            attended: sources.iter().map(read).sum::<f64>() / sources.len().max(1) as f64,
            layers: sources.iter().enumerate().map(layer).collect(),
        }
    }
}
