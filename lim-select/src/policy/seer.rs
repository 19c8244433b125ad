//! SeerAttention-R (arXiv 2506.08889): each KV head keeps whole pages, ranked by a gate that was distilled from the model.
//!
//! The gate scores a page against the query in head_dim numbers each: a projection of the group's query heads, and one
//! of the max, min and mean of the page's keys, both from before the rotation and rotated afterwards, the page by its
//! first position ([`lim_kernels::PageGates`] has the formula). The page budget is `P = max(1, K / page_size)`: the current
//! token's page, and the P-1 best others (ties: the lower page), so a set holds at most K tokens.
//!
//! Weights come from a file beside the model, made for one page size. Simplified: a block is a page (16 tokens by
//! default, 64 in the paper), the gate is as wide as a head and has no norms, a threshold in the place of the budget is
//! not offered, and keys are pooled as they are stored, rounded and turned back.

use super::{Choice, Knob, Rule, Schedule, SelectRule};

pub(super) const RULE: Rule = Rule {
    name: "seer",
    source: "Gao et al. 2025, SeerAttention-R, arXiv 2506.08889",
    select: Some(SelectRule {
        choice: Choice::Gates,
        tokens: 2048,
        recent_ratio: Knob::Fixed(0.0, "it keeps no window, only the current token's page"),
        sinks: Knob::Fixed(0, "it keeps whole pages by gate, the first page like any other"),
        top_mass: None,
        schedule: Schedule::EveryLayer,
    }),
};
