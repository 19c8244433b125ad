//! StreamingLLM (arXiv 2309.17453): the first S tokens, which soak up attention, and the last K-S.
//!
//! Keys keep the rotation of their original positions, as in every policy here; the paper's infinite generation beyond
//! the trained context, by positions inside the cache, is another thing.

use super::{Choice, Knob, Rule, Schedule, SelectRule};

pub(super) const RULE: Rule = Rule {
    name: "streaming",
    source: "Xiao et al. 2023, StreamingLLM, arXiv 2309.17453",
    select: Some(SelectRule {
        choice: Choice::Nothing,
        tokens: 2048,
        recent_ratio: Knob::Fixed(1.0, "the window is always the budget less the sinks"),
        sinks: Knob::Default(4),
        top_mass: None,
        schedule: Schedule::EveryLayer,
    }),
};
