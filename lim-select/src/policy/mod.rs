//! The closed set of policies. Each is one file with its [`Rule`], and one arm of [`Policy::rule`].

mod delta;
mod full;
mod kascade;
mod lim;
mod lim_layer;
mod omnikv;
mod quest;
mod seer;
mod streaming;
mod tidal;
mod topp;

use std::{fmt, str::FromStr};

use lim_kernels::{Backend, Heads, PageExtras, Pick, Pooling, Sets};
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
    /// LessIsMore's rule in every later layer, each for itself.
    LimLayer,
    /// TidalDecode: each query head its own top tokens.
    Tidal,
    /// Kascade: each KV head the tokens with the most weight in its group.
    Kascade,
    /// OmniKV: for all heads the tokens with the most weight in any.
    OmniKv,
    /// DELTA: for all heads the pages with the most weight.
    Delta,
    /// Twilight's rule: tokens until a share of every head's weight is reached.
    TopP,
    /// Quest: each query head its own top pages by upper bound.
    Quest,
    /// SeerAttention-R: each KV head its own top pages by a distilled gate.
    Seer,
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
    /// The share of a head's softmax to reach when nothing else is asked for; `None` where sets have a fixed size.
    pub top_mass: Option<f64>,
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
    /// The same from lists that end at a share of their head's softmax.
    Mass,
    /// Each query head's top tokens.
    PerQueryHead,
    /// Each KV head's top tokens by the sum of its group's softmax weights.
    PerKvHead,
    /// The top tokens by the largest softmax weight of all heads.
    Peak,
    /// Each query head's top pages.
    Pages,
    /// Each KV head's top pages by their gates.
    Gates,
    /// The top pages by the sum of their tokens' largest softmax weights.
    PeakPages,
    /// None.
    Nothing,
}

/// What a choice ranks by, before pooling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scoring {
    /// Raw scores of tokens.
    Tokens,
    /// Upper bounds of pages.
    Bounds,
    /// Gates of pages.
    Gates,
}

impl Scoring {
    /// Rows of a sequence.
    pub fn rows(self, heads: Heads) -> usize {
        match self {
            Scoring::Tokens | Scoring::Bounds => heads.query(),
            Scoring::Gates => heads.kv(),
        }
    }

    /// What the KV cache must keep beside its pages.
    pub fn extras(self) -> PageExtras {
        PageExtras { bounds: self == Scoring::Bounds, gates: self == Scoring::Gates }
    }
}

/// Which layers select by default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schedule {
    /// A few layers select and attend densely, the others reuse: [`default_layers`](crate::default_layers).
    Model,
    /// Every layer selects and attends to its own selection.
    EveryLayer,
    /// The same, but for two dense layers before.
    LaterLayers,
}

/// What choices by softmax weights need besides scores.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mass {
    /// Softmax scale.
    pub scale: f32,
    /// Share of a head's softmax that [`Choice::Mass`] reaches; others do not look at it.
    pub share: f64,
}

impl Choice {
    /// Scores it ranks by.
    pub fn scores(self) -> Option<Scoring> {
        match self {
            Choice::Pages => Some(Scoring::Bounds),
            Choice::Gates => Some(Scoring::Gates),
            Choice::Nothing => None,
            _ => Some(Scoring::Tokens),
        }
    }

    /// How the scores are pooled before it ranks; `None` where it ranks by the scores themselves.
    pub fn pooling(self) -> Option<Pooling> {
        match self {
            Choice::PerKvHead => Some(Pooling::Groups),
            Choice::Peak => Some(Pooling::Peak),
            Choice::PeakPages => Some(Pooling::PagePeak),
            _ => None,
        }
    }

    /// Whether it takes whole pages.
    pub fn is_of_pages(self) -> bool {
        matches!(self, Choice::Pages | Choice::Gates | Choice::PeakPages)
    }

    /// Sets it makes.
    pub fn sets(self) -> Sets {
        match self {
            Choice::PerQueryHead | Choice::Pages => Sets::PerQueryHead,
            Choice::PerKvHead | Choice::Gates => Sets::PerKvHead,
            _ => Sets::Shared,
        }
    }

    /// The seam's operand, given the scores that [`Choice::scores`] asks for, pooled where [`Choice::pooling`] says so;
    /// `None` when they are missing.
    pub fn pick<B: Backend>(self, scores: Option<&B::Scores>, mass: Mass) -> Option<Pick<'_, B>> {
        let Mass { scale, share } = mass;
        match self {
            Choice::Union => scores.map(Pick::Union),
            Choice::Mass => scores.map(|scores| Pick::Mass { scores, scale, share }),
            Choice::PerQueryHead | Choice::PerKvHead | Choice::Peak => {
                scores.map(|scores| Pick::Best(scores, self.sets()))
            }
            Choice::Pages | Choice::Gates | Choice::PeakPages => {
                scores.map(|scores| Pick::Pages(scores, self.sets()))
            }
            Choice::Nothing => Some(Pick::Nothing),
        }
    }
}

impl Policy {
    /// Every policy.
    pub const ALL: [Policy; 11] = [
        Policy::Full,
        Policy::Lim,
        Policy::LimLayer,
        Policy::Tidal,
        Policy::Kascade,
        Policy::OmniKv,
        Policy::Delta,
        Policy::TopP,
        Policy::Quest,
        Policy::Seer,
        Policy::Streaming,
    ];

    /// What defines the policy.
    pub fn rule(self) -> &'static Rule {
        match self {
            Policy::Full => &full::RULE,
            Policy::Lim => &lim::RULE,
            Policy::LimLayer => &lim_layer::RULE,
            Policy::Tidal => &tidal::RULE,
            Policy::Kascade => &kascade::RULE,
            Policy::OmniKv => &omnikv::RULE,
            Policy::Delta => &delta::RULE,
            Policy::TopP => &topp::RULE,
            Policy::Quest => &quest::RULE,
            Policy::Seer => &seer::RULE,
            Policy::Streaming => &streaming::RULE,
        }
    }

    /// Name in `--attention` and JSON.
    pub fn name(self) -> &'static str {
        self.rule().name
    }

    /// What the KV cache must keep beside its pages.
    pub fn extras(self) -> PageExtras {
        let scoring = self.rule().select.and_then(|rule| rule.choice.scores());
        scoring.map_or(PageExtras::default(), Scoring::extras)
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
