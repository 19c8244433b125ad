//! Kascade (arXiv 2512.16391): each KV head keeps the K tokens with the most softmax weight in its group of query heads,
//! chosen at anchor layers and reused by the layers after them.
//!
//! Taken from the paper: weights after the softmax, pooled over the query heads that share a KV head (its mean orders as
//! the sum here), one set per KV head, reuse. Simplified: its anchor layers come from a dynamic program over a
//! development set, here they are the select layers; a later layer's KV head takes the set of the same KV head, where the
//! paper maps heads to the most similar ones; K is fixed, where the paper takes a tenth of the context; prefill is
//! dense.

use super::{Choice, Knob, Rule, Schedule, SelectRule};

pub(super) const RULE: Rule = Rule {
    name: "kascade",
    source: "Deshmukh et al. 2025, Kascade, arXiv 2512.16391",
    select: Some(SelectRule {
        choice: Choice::PerKvHead,
        tokens: 2048,
        recent_ratio: Knob::Default(0.0),
        sinks: Knob::Default(0),
        top_mass: None,
        schedule: Schedule::Model,
    }),
};
