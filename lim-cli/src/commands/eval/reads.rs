//! What attention read for each sample.
//!
//! The engine counts where it reads, a layer at a time and for all sequences together. Between two readings of its counts
//! what a layer read is shared out by what each sequence could have read there: its length in a layer that is dense, at
//! most the budget in one that is not. That is exact for every policy that fills its budget.

use lim_kernels::PageSize;
use lim_model::Usage;
use lim_select::{Attention, Own, Role};

use super::record::Count;

/// How much of a sequence each kind of layer reads.
pub(super) struct Reads {
    /// Whether a layer reads everything.
    dense: Vec<bool>,
    /// `None` for a policy without one.
    budget: Option<usize>,
    /// Of policies that read whole pages.
    pages: Option<PageSize>,
}

/// A sequence's part.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Share {
    steps: u64,
    context: u64,
    /// Summed over layers.
    attended: f64,
    /// Since the last reading: tokens in a dense layer, and in a sparse one.
    window: [u64; 2],
}

impl Reads {
    pub(super) fn new(attention: &Attention, page_size: PageSize) -> Self {
        let dense = |role: &Role| matches!(role, Role::Dense | Role::Select { own: Own::Dense });
        let by_pages = attention.policy().rule().select.is_some_and(|rule| rule.choice.is_of_pages());
        Reads {
            dense: attention.plan().roles().iter().map(dense).collect(),
            budget: attention.quota().map(|quota| quota.budget()),
            pages: by_pages.then_some(page_size),
        }
    }

    /// A sequence decoded with `len` cached tokens.
    pub(super) fn step(&self, share: &mut Share, len: usize) {
        let sparse = match (self.budget, self.pages) {
            (Some(budget), Some(page)) if len > budget => {
                let page = page.tokens();
                // The last page holds what it holds; the others are full.
                page * (budget / page).saturating_sub(1) + (len - 1) % page + 1
            }
            (Some(budget), _) => len.min(budget),
            (None, _) => len,
        };
        share.steps += 1;
        share.context += len as u64;
        share.window[0] += len as u64;
        share.window[1] += sparse as u64;
    }

    /// Shares out what was read, `usage` since the last time, among all that decoded meanwhile.
    pub(super) fn settle<'a>(&self, usage: &Usage, shares: impl Iterator<Item = &'a mut Share>) {
        let mut shares: Vec<&mut Share> = shares.filter(|share| share.window[0] > 0).collect();
        let all = [0, 1].map(|kind| shares.iter().map(|share| share.window[kind]).sum::<u64>() as f64);
        let mut read = [0.0; 2];
        for (layer, &dense) in usage.layers.iter().zip(&self.dense) {
            // A sequence that is recomputed reads too, but for nobody's answer.
            let own = if layer.context == 0 { 0.0 } else { all[0] / layer.context as f64 };
            read[usize::from(!dense)] += layer.attended as f64 * own;
        }
        for share in &mut shares {
            share.attended +=
                (0..2).map(|kind| read[kind] * share.window[kind] as f64 / all[kind]).sum::<f64>();
            share.window = [0; 2];
        }
    }

    /// Means over steps and layers, rounded to thousandths.
    pub(super) fn count(&self, share: &Share) -> Count {
        let Share { steps, context, attended, .. } = *share;
        let mean = |sum: f64, of: u64| if of == 0 { 0.0 } else { (sum / of as f64 * 1e3).round() / 1e3 };
        Count {
            steps,
            context_tokens: mean(context as f64, steps),
            attended_tokens: mean(attended, steps * self.dense.len() as u64),
        }
    }
}

#[cfg(test)]
mod tests {
    use lim_kernels::LayerCount;
    use lim_model::Totals;
    use lim_select::{ModelHint, Policy, Settings};

    use super::*;

    fn reads(policy: Policy, budget: Option<usize>) -> Reads {
        let hint = ModelHint { model_type: "qwen3", name: "", layers: 4, hidden: 64 };
        let settings = Settings { policy: Some(policy), token_budget: budget, ..Settings::default() };
        let page = PageSize::default();
        Reads::new(&settings.resolve(&hint, page).expect("valid"), page)
    }

    fn usage(layers: [[u64; 2]; 4]) -> Usage {
        let layer = |[attended, context]: [u64; 2]| LayerCount { attended, context, ..LayerCount::default() };
        Usage { totals: Totals::default(), layers: layers.map(layer).into(), token_bytes: 1 }
    }

    #[test]
    fn what_was_read_goes_to_who_read_it() {
        let reads = reads(Policy::Streaming, Some(32));
        let mut shares = [Share::default(); 3];
        reads.step(&mut shares[0], 20);
        reads.step(&mut shares[1], 100);
        reads.settle(&usage([[52, 120]; 4]), shares.iter_mut());
        reads.step(&mut shares[1], 101);
        reads.settle(&usage([[32, 101]; 4]), shares.iter_mut());
        assert_eq!(reads.count(&shares[0]), Count { steps: 1, context_tokens: 20.0, attended_tokens: 20.0 });
        assert_eq!(reads.count(&shares[1]), Count { steps: 2, context_tokens: 100.5, attended_tokens: 32.0 });
        assert_eq!(reads.count(&shares[2]), Count::default());
    }

    #[test]
    fn recomputed_sequences_count_for_nobody() {
        let reads = reads(Policy::Full, None);
        let mut share = Share::default();
        reads.step(&mut share, 100);
        reads.settle(&usage([[150, 150]; 4]), std::iter::once(&mut share));
        assert_eq!(reads.count(&share).attended_tokens, 100.0);
    }

    #[test]
    fn pages_are_whole_but_for_the_last() {
        let reads = reads(Policy::Quest, Some(64));
        let mut share = Share::default();
        reads.step(&mut share, 161);
        assert_eq!(share.window, [161, 49]);
        reads.step(&mut share, 64);
        assert_eq!(share.window, [225, 113]);
    }
}
