//! What is kept of every sample: a line of results.jsonl, and what attention read for it.

use serde::{Deserialize, Serialize};

use crate::grade::Grade;

/// A line of results.jsonl. There is nothing in it that another run would not repeat.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    /// Label of the setting.
    pub(super) setting: String,
    /// Id of the problem.
    pub(super) problem: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) group: Option<String>,
    pub(super) sample: usize,
    /// Of the draws: `generate --seed` repeats the sample.
    pub(super) seed: u64,
    pub(super) answer: Option<String>,
    pub(super) reference: String,
    pub(super) grade: Grade,
    pub(super) tokens: usize,
    pub(super) finish_reason: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) text: Option<String>,
}

impl Record {
    /// Whether the model was still writing when it had to stop.
    pub(super) fn truncated(&self) -> bool {
        self.finish_reason != "stop"
    }
}

/// A line of counts.jsonl, for the same line of results.jsonl.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Count {
    /// Decode steps.
    pub(super) steps: u64,
    /// Cached tokens, mean over the steps.
    pub(super) context_tokens: f64,
    /// Tokens that attention read, mean over steps and layers.
    pub(super) attended_tokens: f64,
}

/// A sample's two lines.
#[derive(Clone, Debug)]
pub(super) struct Outcome {
    pub(super) record: Record,
    /// `None` where counts.jsonl was lost.
    pub(super) count: Option<Count>,
}
