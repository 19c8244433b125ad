//! Device memory of a model and an engine on it, before either is made.

use lim_kernels::{Capacity, DType, KvLayout, PageExtras, PageSize};
use lim_select::Attention;

use crate::{Config, EngineOptions, weights};

/// What no size of ours says: a context with its kernels, libraries' workspaces, recordings, rounding of allocations.
const ASIDE: u64 = 640 << 20;

/// What is to lie on a device.
#[derive(Clone, Copy, Debug)]
pub struct Demand<'a> {
    /// Shapes.
    pub config: &'a Config,
    /// Element type of weights and activations on the device.
    pub dtype: DType,
    /// Attention that the engine starts with, and those that it changes to.
    pub attentions: &'a [Attention],
}

impl Demand<'_> {
    /// Bytes of weights, gates included where an attention needs them.
    pub fn weights(&self) -> u64 {
        let gates = if self.extras().gates { weights::gate_parameters(self.config) } else { 0 };
        (self.config.parameters() + gates) * self.dtype.bytes() as u64
    }

    /// What the attentions need beside the pages.
    fn extras(&self) -> PageExtras {
        self.attentions.iter().fold(PageExtras::default(), |all, a| all.and(a.policy().extras()))
    }

    /// Bytes of keys and values of one token in all layers.
    pub fn token(&self, kv_dtype: DType) -> u64 {
        let page_size = PageSize::default();
        let layout = KvLayout { heads: self.config.heads, page_size, dtype: kv_dtype };
        (self.config.layers * layout.token_bytes()) as u64
    }

    /// Bytes of one page in all layers, with what the engine keeps beside it.
    pub fn page(&self, options: &EngineOptions) -> u64 {
        let EngineOptions { page_size, kv_dtype, extras, .. } = *options;
        let layout = KvLayout { heads: self.config.heads, page_size, dtype: kv_dtype };
        let beside = extras.and(self.extras()).page_elements(layout) * kv_dtype.bytes();
        self.token(kv_dtype) * page_size.tokens() as u64 + (self.config.layers * beside) as u64
    }

    /// Bytes of everything else: activations, logits, scores, selections, rotary tables, scratch. An upper estimate.
    pub fn buffers(&self, capacity: Capacity) -> u64 {
        let Capacity { rows, seqs, tokens } = capacity;
        let Config { heads, hidden, intermediate, vocab, .. } = *self.config;
        let query = heads.query() * heads.dim();
        // Prefill keeps normed rows and gate and up beside the activations.
        let row = (heads.qkv_width() + query + 3 * intermediate + hidden) * self.dtype.bytes() + 4 * hidden;
        // Logits, and counts of the tokens seen for penalties.
        let seq = 8 * vocab;
        let rope = 4 * heads.dim() * tokens;
        let plain = rows as u64 * row as u64 + seqs as u64 * seq as u64 + rope as u64;
        let sparse: u64 = self.attentions.iter().map(|a| self.selection(a, seqs, tokens)).sum();
        ASIDE + plain + sparse
    }

    /// Scores, pooled weights, selections, and the ranking's scratch.
    fn selection(&self, attention: &Attention, seqs: usize, tokens: usize) -> u64 {
        let (Some(rule), Some(quota)) = (attention.policy().rule().select, attention.quota()) else {
            return 0;
        };
        let (heads, budget) = (self.config.heads.query() as u64, quota.budget() as u64);
        let sets = rule.choice.sets().count(self.config.heads) as u64;
        let (scores, ranking) = match rule.choice.scores() {
            Some(by) => (
                4 * (by.rows(self.config.heads) * tokens) as u64,
                heads * (24 * budget + (32 << 10)) + 12 * tokens as u64,
            ),
            None => (0, 0),
        };
        let pooled = rule.choice.pooling().map_or(0, |by| 4 * by.rows(self.config.heads) * tokens) as u64;
        let chosen = sets * (4 * budget.max(PageSize::MAX as u64) + tokens as u64 / 8);
        seqs as u64 * (scores + pooled + ranking + chosen)
    }

    /// Bytes of all.
    pub fn total(&self, options: &EngineOptions) -> u64 {
        let kv = self.page(options).saturating_mul(options.pages as u64);
        (self.weights() + self.buffers(options.capacity)).saturating_add(kv)
    }

    /// Pages that fit into `free` bytes beside weights and buffers.
    pub fn pages(&self, options: &EngineOptions, free: u64) -> usize {
        let rest = free.saturating_sub(self.weights() + self.buffers(options.capacity));
        usize::try_from(rest / self.page(options).max(1)).unwrap_or(usize::MAX)
    }

    /// The longest context for which an engine as in `options`, but for its tokens and pages, fits into `free` bytes
    /// with pages for `whole` sequences of that length; the model's own where more would fit, 0 where none does.
    pub fn longest(&self, options: &EngineOptions, whole: usize, free: u64) -> usize {
        let fits = |tokens: usize| {
            let capacity = Capacity { tokens, ..options.capacity };
            let pages = whole.saturating_mul(options.page_size.pages_for(tokens));
            self.total(&EngineOptions { capacity, pages, ..*options }) <= free
        };
        let (mut fit, mut beyond) = (0, self.config.max_positions + 1);
        while fit + 1 < beyond {
            let middle = fit.midpoint(beyond);
            if fits(middle) {
                fit = middle;
            } else {
                beyond = middle;
            }
        }
        fit
    }
}

#[cfg(test)]
mod tests {
    use lim_select::{ModelHint, Policy, Settings};

    use super::*;

    fn attention(config: &Config, policy: Policy) -> Attention {
        let hint = ModelHint { model_type: "qwen3", name: "", layers: config.layers, hidden: config.hidden };
        let settings = Settings { policy: Some(policy), ..Settings::default() };
        settings.resolve(&hint, PageSize::default()).unwrap()
    }

    fn options(seqs: usize, tokens: usize) -> EngineOptions {
        EngineOptions { kv_dtype: DType::BF16, ..EngineOptions::new(seqs, tokens) }
    }

    #[test]
    fn sizes_of_a_known_model() {
        let config = Config::preset("qwen3-8b").unwrap();
        let attentions = [attention(&config, Policy::Full)];
        let demand = Demand { config: &config, dtype: DType::BF16, attentions: &attentions };
        assert_eq!(demand.weights(), 2 * config.parameters());
        // 36 layers of K and V, 8 heads of 128 elements, 2 bytes each.
        assert_eq!(demand.token(DType::BF16), 36 * 2 * 8 * 128 * 2);
        assert_eq!(demand.page(&options(1, 16)), 16 * demand.token(DType::BF16));
        let quest = [attention(&config, Policy::Quest)];
        let quest = Demand { attentions: &quest, ..demand };
        assert_eq!(quest.page(&options(1, 16)), 17 * demand.token(DType::BF16));
        // Gates: keys of half a token a page; 8 KV heads of Wq 128 x 512 and Wk 128 x 384 a layer.
        let seer = [attention(&config, Policy::Seer)];
        let seer = Demand { attentions: &seer, ..demand };
        assert_eq!(2 * seer.page(&options(1, 16)), 33 * demand.token(DType::BF16));
        assert_eq!(seer.weights() - demand.weights(), 2 * 36 * 8 * 128 * (512 + 384));
    }

    #[test]
    fn the_longest_context_fits_and_one_more_token_does_not() {
        let config = Config::preset("qwen3-8b").unwrap();
        for policy in Policy::ALL {
            let attentions = [attention(&config, policy)];
            let demand = Demand { config: &config, dtype: DType::BF16, attentions: &attentions };
            for (seqs, free) in [(1, 18 << 30), (1, 20 << 30), (8, 24 << 30)] {
                let longest = demand.longest(&options(seqs, 1), seqs, free);
                assert!(longest > 0 && longest < config.max_positions, "{policy}: {longest}");
                let fit = options(seqs, longest);
                assert!(demand.total(&fit) <= free && demand.total(&options(seqs, longest + 1)) > free);
                assert!(demand.pages(&fit, free) >= fit.pages);
            }
            assert_eq!(demand.longest(&options(1, 1), 1, demand.weights()), 0);
            assert_eq!(demand.longest(&options(1, 1), 1, 1 << 40), config.max_positions);
        }
    }
}
