//! Dense attention: every cached token in every layer. What the sparse policies are compared with.

use super::Rule;

pub(super) const RULE: Rule =
    Rule { name: "full", source: "Vaswani et al. 2017, arXiv 1706.03762", select: None };
