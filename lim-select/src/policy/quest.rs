//! Quest (arXiv 2406.10774): each query head keeps whole pages, ranked by an upper bound of their keys' scores.
//!
//! The bound of a page is `sum_i max(q_i * min_i, q_i * max_i)` over its keys' element-wise minima and maxima. The
//! page budget is `P = max(1, K / page_size)`: the current token's page, and the P-1 best others (ties: the lower
//! page). The current page may be partly filled, so a set holds at most K tokens, not exactly K.

use super::{Choice, Knob, Rule, Schedule, SelectRule};

pub(super) const RULE: Rule = Rule {
    name: "quest",
    source: "Tang et al. 2024, Quest, arXiv 2406.10774",
    select: Some(SelectRule {
        choice: Choice::Pages,
        tokens: 2048,
        recent_ratio: Knob::Fixed(0.0, "it keeps whole pages by score, and the current token's page always"),
        sinks: Knob::Fixed(0, "it keeps whole pages by score, the first page like any other"),
        top_mass: None,
        schedule: Schedule::EveryLayer,
    }),
};
