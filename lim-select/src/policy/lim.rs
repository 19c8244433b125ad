//! LessIsMore (arXiv 2508.07101): one token set for all heads, made of the heads' own rankings.
//!
//! Heads of a reasoning model look at strongly overlapping tokens, and at recent ones throughout. Every query head
//! ranks the candidates by its raw score; the lists are read rank-major, head-minor, first occurrence kept, until M
//! positions are found. In keys: `key(t) = min_h(rank_h(t) * H + h)`, the M smallest win. Sinks and a window of recent
//! tokens fill the budget up.

use super::{Choice, Knob, Rule, Schedule, SelectRule};

pub(super) const RULE: Rule = Rule {
    name: "lim",
    source: "Yang et al. 2025, Less Is More, arXiv 2508.07101",
    select: Some(SelectRule {
        choice: Choice::Union,
        tokens: 2048,
        recent_ratio: Knob::Default(0.25),
        sinks: Knob::Default(4),
        top_mass: None,
        schedule: Schedule::Model,
    }),
};
