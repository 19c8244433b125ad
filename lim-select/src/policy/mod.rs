//! The closed set of policies. Each is one file with its [`Rule`], and one arm of [`Policy::rule`].

mod full;
mod lim;
mod quest;
mod streaming;
mod tidal;

use std::{fmt, str::FromStr};

use lim_kernels::{Backend, Pick, ScoreOf, Sets};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{Error, Result};

/// How decode attention chooses the tokens it reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Policy {
    /// All of them.
    Full,
    /// LessIsMore: the heads' rankings merged into one set for all heads.
    #[default]
    Lim,
    /// TidalDecode: each query head its own top tokens.
    Tidal,
    /// Quest: each query head its own top pages by upper bound.
    Quest,
    /// StreamingLLM: the first tokens and the last.
    Streaming,
}

/// What a policy file states.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// Name in `--attention` and JSON.
    pub name: &'static str,
    /// Where the rule was published.
    pub source: &'static str,
    /// How it selects; `None` reads everything.
    pub select: Option<SelectRule>,
}

/// How a sparse policy selects.
#[derive(Clone, Copy, Debug)]
pub struct SelectRule {
    /// Rule for the positions between sinks and window.
    pub choice: Choice,
    /// K when nothing else is asked for.
    pub tokens: usize,
    /// r, the share of K that sinks and window take.
    pub recent_ratio: Knob<f64>,
    /// S, always-kept first positions.
    pub sinks: Knob<usize>,
    /// Which layers select when nothing else is asked for.
    pub schedule: Schedule,
}

/// A setting that a policy leaves open, or not.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Knob<T> {
    /// Open; this is the default.
    Default(T),
    /// Part of the policy's definition. Asking for any value is refused with the reason.
    Fixed(T, &'static str),
}

/// Rule for the positions between sinks and window: the seam's [`Pick`] before it has scores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// Heads' token rankings merged into one set.
    Union,
    /// Each query head's top tokens.
    PerQueryHead,
    /// Each query head's top pages.
    Pages,
    /// None.
    Nothing,
}

/// Which layers select by default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schedule {
    /// A few layers select and attend densely, the others reuse: [`default_layers`](crate::default_layers).
    Model,
    /// Every layer selects and attends to its own selection.
    EveryLayer,
}

impl Choice {
    /// Scores it ranks by.
    pub fn scores(self) -> Option<ScoreOf> {
        match self {
            Choice::Union | Choice::PerQueryHead => Some(ScoreOf::Tokens),
            Choice::Pages => Some(ScoreOf::Pages),
            Choice::Nothing => None,
        }
    }

    /// Sets it makes.
    pub fn sets(self) -> Sets {
        match self {
            Choice::Union | Choice::Nothing => Sets::Shared,
            Choice::PerQueryHead | Choice::Pages => Sets::PerQueryHead,
        }
    }

    /// The seam's operand, given the scores that [`Choice::scores`] asks for; `None` when they are missing.
    pub fn pick<B: Backend>(self, scores: Option<&B::Scores>) -> Option<Pick<'_, B>> {
        match self {
            Choice::Union => scores.map(Pick::Union),
            Choice::PerQueryHead => scores.map(Pick::PerQueryHead),
            Choice::Pages => scores.map(Pick::Pages),
            Choice::Nothing => Some(Pick::Nothing),
        }
    }
}

impl Policy {
    /// Every policy.
    pub const ALL: [Policy; 5] = [Policy::Full, Policy::Lim, Policy::Tidal, Policy::Quest, Policy::Streaming];

    /// What defines the policy.
    pub fn rule(self) -> &'static Rule {
        match self {
            Policy::Full => &full::RULE,
            Policy::Lim => &lim::RULE,
            Policy::Tidal => &tidal::RULE,
            Policy::Quest => &quest::RULE,
            Policy::Streaming => &streaming::RULE,
        }
    }

    /// Name in `--attention` and JSON.
    pub fn name(self) -> &'static str {
        self.rule().name
    }

    /// Whether the KV cache must keep page bounds (key minima and maxima).
    pub fn needs_page_bounds(self) -> bool {
        self.rule().select.is_some_and(|s| s.choice.scores() == Some(ScoreOf::Pages))
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Policy {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Policy::ALL.into_iter().find(|p| p.name() == name).ok_or_else(|| Error::UnknownPolicy(name.into()))
    }
}

impl Serialize for Policy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Policy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}
