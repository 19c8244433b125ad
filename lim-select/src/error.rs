//! The one error type of this crate.

use crate::Policy;

/// What settings, layer plans and a decode step can refuse.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No policy has this name.
    #[error("unknown policy `{0}`: {names}", names = names())]
    UnknownPolicy(String),
    /// The text of a layer plan does not follow the grammar.
    #[error("layers: `{part}` at column {column}: {reason}")]
    Layers {
        /// Offending part of the text.
        part: String,
        /// Where it starts, in characters from 1.
        column: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// A layer plan does not fit the model.
    #[error("layers: {0}")]
    Plan(String),
    /// A setting has no meaning under the policy, and would be ignored.
    #[error("{setting} does not apply to policy `{policy}`: {reason}")]
    NotApplicable {
        /// The setting as JSON spells it.
        setting: &'static str,
        /// Policy.
        policy: Policy,
        /// Why.
        reason: &'static str,
    },
    /// A setting has a value that the policy cannot use.
    #[error("{setting} is {got}, must be {must}")]
    Value {
        /// The setting as JSON spells it.
        setting: &'static str,
        /// Its value.
        got: String,
        /// The rule it breaks, in words.
        must: String,
    },
    /// The buffers handed to a decode step were made for another attention.
    #[error("decode step of policy `{policy}`: its buffers were made for another policy or budget")]
    Buffers {
        /// Policy of the step.
        policy: Policy,
    },
    /// The policy ranks pages by gates, and the layer has none.
    #[error("decode step of policy `{policy}`: layer {layer} has no gates")]
    NoGates {
        /// Policy of the step.
        policy: Policy,
        /// Layer number.
        layer: usize,
    },
    /// The backend failed.
    #[error(transparent)]
    Backend(#[from] lim_kernels::Error),
}

/// Every policy in a sentence.
fn names() -> String {
    let [first @ .., last] = Policy::ALL.map(Policy::name);
    format!("{} or {last}", first.join(", "))
}

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;
