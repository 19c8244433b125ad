//! DELTA (arXiv 2510.09883): whole pages with the most softmax weight, one set for all heads, chosen at a few selection
//! layers and reused by the layers after them; the last pages always.
//!
//! A token's weight is the largest of all heads after the softmax, a page's the sum of its tokens'. Of
//! `P = max(1, K / page_size)` pages, the window `W = r K` gives the last `W / page_size`, at least one; the best others
//! fill up (ties: the lower page). The last page may be partly filled, so a set holds at most K tokens. Simplified:
//! selection layers are those of LessIsMore and r is our choice, where the paper tunes both by model.

use super::{Choice, Knob, Rule, Schedule, SelectRule};

pub(super) const RULE: Rule = Rule {
    name: "delta",
    source: "Entezari Zarch et al. 2025, DELTA, arXiv 2510.09883",
    select: Some(SelectRule {
        choice: Choice::PeakPages,
        tokens: 2048,
        recent_ratio: Knob::Default(0.25),
        sinks: Knob::Fixed(0, "it keeps whole pages by weight, the first page like any other"),
        top_mass: None,
        schedule: Schedule::Model,
    }),
};
