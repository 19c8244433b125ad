//! Top-p of the softmax (Twilight, arXiv 2502.02770): as many tokens as a share of the attention needs, so sets grow and
//! shrink with the context.
//!
//! Every query head takes its highest-scored candidates until they, with sinks and window, hold at least the share
//! `top_mass` of its softmax. The union of the heads' lists is the set of all heads; where it is larger than the budget
//! it is cut in LessIsMore's order, `min_h(rank_h(t) * H + h)`. The current token is always in the set. Taken from the
//! paper: a share instead of a number. Simplified: the paper prunes the choice of another policy with 4-bit keys, in
//! every layer and for each KV head; here weights are exact, select layers choose and others reuse, and heads share a set.

use super::{Choice, Knob, Rule, Schedule, SelectRule};

pub(super) const RULE: Rule = Rule {
    name: "topp",
    source: "after Lin et al. 2025, Twilight, arXiv 2502.02770",
    select: Some(SelectRule {
        choice: Choice::Mass,
        tokens: 2048,
        recent_ratio: Knob::Default(0.0),
        sinks: Knob::Default(0),
        top_mass: Some(0.95),
        schedule: Schedule::Model,
    }),
};
