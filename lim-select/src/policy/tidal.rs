//! TidalDecode (arXiv 2410.05076): each query head keeps its own K highest-scored tokens, chosen at a few select
//! layers and reused by the layers after them.
//!
//! By default nothing is kept unasked, so a head that ranks the current token low does not read it.

use super::{Choice, Knob, Rule, Schedule, SelectRule};

pub(super) const RULE: Rule = Rule {
    name: "tidal",
    source: "Yang et al. 2024, TidalDecode, arXiv 2410.05076",
    select: Some(SelectRule {
        choice: Choice::PerQueryHead,
        tokens: 2048,
        recent_ratio: Knob::Default(0.0),
        sinks: Knob::Default(0),
        top_mass: None,
        schedule: Schedule::Model,
    }),
};
