//! LessIsMore's rule (arXiv 2508.07101) without its reuse: every layer from 2 on selects for itself and reads its own
//! selection. Shows what reuse costs in accuracy, and what it saves: here every layer reads all keys to rank them.

use super::{Rule, Schedule, SelectRule, lim};

pub(super) const RULE: Rule = Rule {
    name: "lim-layer",
    source: lim::RULE.source,
    select: match lim::RULE.select {
        Some(rule) => Some(SelectRule { schedule: Schedule::LaterLayers, ..rule }),
        None => None,
    },
};
