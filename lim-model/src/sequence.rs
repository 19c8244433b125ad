//! What the engine knows about one sequence: its tokens, where they are cached, when it ends.

use std::sync::Arc;

use lim_kernels::{Draw, SampleParams};
use lim_kvcache::PageTable;

/// Handle of a sequence, unique within its engine and ascending in order of arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SeqId(pub(crate) u64);

/// Why a sequence ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FinishReason {
    /// An end-of-sequence token or a stop string.
    Stop,
    /// `max_new_tokens` tokens were generated.
    Length,
    /// The context is full: the engine's limit per sequence, or all its pages.
    Context,
    /// The caller asked to stop.
    Interrupted,
}

impl FinishReason {
    /// Name in reports and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            FinishReason::Stop => "stop",
            FinishReason::Length => "length",
            FinishReason::Context => "context",
            FinishReason::Interrupted => "interrupted",
        }
    }
}

/// Ends a reasoning model's thinking after a number of tokens, by putting words into its mouth.
#[derive(Clone, Debug)]
pub struct ThinkingBudget {
    /// Tokens that may be generated without `end`.
    pub tokens: usize,
    /// The token that ends thinking, `</think>`.
    pub end: u32,
    /// Tokens that are forced, one a step, once the budget is spent; `end` should be among them.
    pub closing: Vec<u32>,
}

/// A prompt to continue.
#[derive(Clone, Debug)]
pub struct Request {
    /// Prompt, taken as it is; at least one token.
    pub prompt: Vec<u32>,
    /// The first tokens of the prompt get random keys and values instead of a prefill: a measurement at a depth. The
    /// last token is always computed.
    pub random_prefix: usize,
    /// Continuations. They share the prompt's pages; the prompt is prefilled once.
    pub samples: usize,
    /// How to draw. Sample i draws with the seed [`sample_seed`]`(seed, i)`.
    pub params: SampleParams,
    /// Most tokens of one continuation; at least 1.
    pub max_new_tokens: usize,
    /// Tokens that end a continuation; they are its last token. At most [`lim_kernels::MAX_STOP_TOKENS`].
    pub stop_ids: Vec<u32>,
    /// Bound on thinking.
    pub thinking: Option<ThinkingBudget>,
}

impl Request {
    /// Greedy, one continuation, no stop token.
    pub fn new(prompt: Vec<u32>, max_new_tokens: usize) -> Self {
        Request {
            prompt,
            random_prefix: 0,
            samples: 1,
            params: SampleParams::default(),
            max_new_tokens,
            stop_ids: Vec::new(),
            thinking: None,
        }
    }
}

/// Seed of a prompt's i-th sample: `seed` itself for the first, then SplitMix64 outputs (Steele, Lea, Flood 2014).
pub fn sample_seed(seed: u64, sample: usize) -> u64 {
    if sample == 0 {
        return seed;
    }
    let mut z = seed.wrapping_add((sample as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// What a request's samples have in common.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) prompt: Vec<u32>,
    pub(crate) random_prefix: usize,
    max_new_tokens: usize,
    stop_ids: Vec<u32>,
    thinking: Option<ThinkingBudget>,
    /// Most cached tokens.
    max_len: usize,
}

/// One continuation.
#[derive(Debug)]
pub(crate) struct Sequence {
    pub(crate) id: SeqId,
    pub(crate) shared: Arc<Shared>,
    pub(crate) generated: Vec<u32>,
    params: SampleParams,
    /// The model ended its thinking by itself.
    thought: bool,
}

impl Sequence {
    /// The samples of a request, the first with the id `first`. `max_len`: most cached tokens of each.
    pub(crate) fn from_request(request: Request, first: u64, max_len: usize) -> Vec<Sequence> {
        let Request { prompt, random_prefix, samples, params, max_new_tokens, stop_ids, thinking } = request;
        let room = max_new_tokens.min((max_len + 1).saturating_sub(prompt.len()));
        let shared = Arc::new(Shared { prompt, random_prefix, max_new_tokens, stop_ids, thinking, max_len });
        let sample = |i: usize| Sequence {
            id: SeqId(first + i as u64),
            shared: Arc::clone(&shared),
            generated: Vec::with_capacity(room),
            params: SampleParams { seed: sample_seed(params.seed, i), ..params },
            thought: false,
        };
        (0..samples).map(sample).collect()
    }

    /// Prompt and generated tokens.
    pub(crate) fn len(&self) -> usize {
        self.shared.prompt.len() + self.generated.len()
    }

    /// The token at `position`.
    pub(crate) fn token(&self, position: usize) -> u32 {
        match position.checked_sub(self.shared.prompt.len()) {
            None => self.shared.prompt[position],
            Some(generated) => self.generated[generated],
        }
    }

    /// How the token at position `cached` comes about: known already where the sequence is being recomputed, forced
    /// where its thinking has run out, drawn otherwise.
    pub(crate) fn draw(&self, cached: usize) -> Draw<'_> {
        let index = cached - self.shared.prompt.len();
        let Shared { prompt, stop_ids, .. } = &*self.shared;
        let (generated, forced) = (&self.generated[..index], self.forced(cached));
        Draw { params: self.params, prompt, generated, forced, stop: stop_ids }
    }

    /// The token at position `cached`, where it is not to be drawn.
    pub(crate) fn forced(&self, cached: usize) -> Option<u32> {
        let index = cached - self.shared.prompt.len();
        self.generated.get(index).copied().or_else(|| self.closing(index))
    }

    /// Whether there is a token after the next, and it can be drawn by a host that does not know the next.
    pub(crate) fn goes_on_blindly(&self) -> bool {
        let (shared, known) = (&self.shared, self.generated.len() + 1);
        let ends = known >= shared.max_new_tokens || self.len() + 1 > shared.max_len;
        let decides = shared.thinking.as_ref().is_some_and(|t| !self.thought && known == t.tokens);
        !ends && !decides
    }

    /// The token that the thinking budget forces as generated token `index`.
    fn closing(&self, index: usize) -> Option<u32> {
        let budget = self.shared.thinking.as_ref().filter(|_| !self.thought)?;
        budget.closing.get(index.checked_sub(budget.tokens)?).copied()
    }

    /// Takes the next token; the reason if it was the last.
    pub(crate) fn push(&mut self, token: u32) -> Option<FinishReason> {
        let shared = &self.shared;
        if shared.thinking.as_ref().is_some_and(|t| self.generated.len() < t.tokens && token == t.end) {
            self.thought = true;
        }
        self.generated.push(token);
        if shared.stop_ids.contains(&token) {
            Some(FinishReason::Stop)
        } else if self.generated.len() >= shared.max_new_tokens {
            Some(FinishReason::Length)
        } else if self.len() > shared.max_len {
            Some(FinishReason::Context)
        } else {
            None
        }
    }
}

/// A sequence that decodes, with its pages.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) seq: Sequence,
    /// Holds the tokens that have been fed, and maybe the next.
    pub(crate) table: PageTable,
    /// Tokens that have been fed; the last one may be known to the device alone.
    pub(crate) cached: usize,
}

/// Samples of one request that wait for its prompt. A preempted sequence waits alone.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) members: Vec<Sequence>,
    /// Pages of the prompt, `None` until its prefill starts.
    pub(crate) table: Option<PageTable>,
}
