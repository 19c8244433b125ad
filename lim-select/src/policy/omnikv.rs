//! OmniKV (ICLR 2025): the K tokens with the largest softmax weight in any head, one set for all heads, chosen at a few
//! filter layers and reused by the layers after them.
//!
//! Taken from the paper: weights of the current token's queries after the softmax, their maximum over all heads, top K,
//! reuse. Simplified: it chooses among the prompt's tokens and keeps all generated ones, here generated tokens are ranked
//! like any other, as reasoning generates most of the context; the cache stays on the device, where the paper offloads
//! what was not chosen.

use super::{Choice, Knob, Rule, Schedule, SelectRule};

pub(super) const RULE: Rule = Rule {
    name: "omnikv",
    source: "Hao et al. 2025, OmniKV, ICLR 2025",
    select: Some(SelectRule {
        choice: Choice::Peak,
        tokens: 2048,
        recent_ratio: Knob::Default(0.0),
        sinks: Knob::Default(0),
        top_mass: None,
        schedule: Schedule::Model,
    }),
};
