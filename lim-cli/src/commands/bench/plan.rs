//! Which tests run, and under which attention.

use lim_select::{Attention, Policy, Settings};

use crate::args::BenchArgs;
use crate::error::{Error, Result};
use crate::open::Opened;
use crate::policy;

/// One measurement, to be repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Test {
    /// `tokens` prompt tokens behind `depth` cached ones. Prefill is dense under every policy.
    Prefill { tokens: usize, depth: usize },
    /// `tokens` decode steps of `batch` sequences with `depth` cached tokens each.
    Decode { tokens: usize, depth: usize, batch: usize },
}

/// Decode steps before the clock counts: a device runs the first of a kind as it is and records the second.
pub(super) const WARM_STEPS: usize = 2;

impl Test {
    /// llama-bench's name.
    pub(super) fn name(self) -> String {
        let (kind, tokens, depth) = match self {
            Test::Prefill { tokens, depth } => ("pp", tokens, depth),
            Test::Decode { tokens, depth, .. } => ("tg", tokens, depth),
        };
        if depth == 0 { format!("{kind}{tokens}") } else { format!("{kind}{tokens} @ d{depth}") }
    }

    /// The same with few tokens, to bring weights and caches into place before the clock counts.
    pub(super) fn shortened(self) -> Self {
        match self {
            Test::Prefill { tokens, depth } => Test::Prefill { tokens: tokens.min(64), depth },
            Test::Decode { tokens, depth, batch } => Test::Decode { tokens: tokens.min(4), depth, batch },
        }
    }

    /// Sequences.
    pub(super) fn batch(self) -> usize {
        match self {
            Test::Prefill { .. } => 1,
            Test::Decode { batch, .. } => batch,
        }
    }

    /// Prompt of each sequence: what is cached, and at least one token to compute.
    pub(super) fn prompt(self) -> usize {
        match self {
            Test::Prefill { tokens, depth } => depth + tokens,
            Test::Decode { depth, .. } => depth.max(1),
        }
    }

    /// Tokens to generate: a prefill ends with a draw; warm and counted decode steps come after it.
    pub(super) fn new_tokens(self) -> usize {
        match self {
            Test::Prefill { .. } => 1,
            Test::Decode { tokens, .. } => 1 + WARM_STEPS + tokens,
        }
    }

    /// Cached tokens at the end; the last drawn token is not fed.
    pub(super) fn len(self) -> usize {
        self.prompt() + self.new_tokens() - 1
    }
}

/// Tests in the order of the table.
///
/// # Errors
/// When there is nothing to do, or a test exceeds the model's `context`.
pub(super) fn tests(args: &BenchArgs, context: usize) -> Result<Vec<Test>> {
    let mut tests = Vec::new();
    for &depth in &args.depth {
        for &tokens in args.n_prompt.iter().filter(|&&n| n > 0) {
            tests.push(Test::Prefill { tokens, depth });
        }
        for batch in &args.batch {
            for &tokens in args.n_gen.iter().filter(|&&n| n > 0) {
                tests.push(Test::Decode { tokens, depth, batch: batch.get() });
            }
        }
    }
    if tests.is_empty() {
        return Err(Error::usage("nothing to measure: both --n-prompt and --n-gen are 0"));
    }
    if args.plot.is_some() && !tests.iter().any(|test| matches!(test, Test::Decode { .. })) {
        return Err(Error::usage("--plot shows decode tests: --n-gen must not be 0"));
    }
    match tests.iter().find(|test| test.len() > context) {
        Some(test) => Err(Error::usage(format!(
            "test {} needs {} positions, the model has {context}: lower --depth, --n-prompt or --n-gen",
            test.name(),
            test.len()
        ))),
        None => Ok(tests),
    }
}

/// One attention a policy. With several policies a setting counts for those that have it.
///
/// # Errors
/// When a policy is named twice, or a setting does not go with any of them.
pub(super) fn attentions(args: &BenchArgs, opened: &Opened) -> Result<Vec<Attention>> {
    let asked = policy::from_flags(None, &args.budget)?;
    let policies = &args.attention;
    if let Some(twice) = policies.iter().enumerate().find_map(|(i, p)| policies[..i].contains(p).then_some(p))
    {
        return Err(Error::usage(format!("--attention names {twice} twice")));
    }
    let settings = |&policy: &Policy| match policy::refused_by_all(&asked, policies) {
        true => Settings { policy: Some(policy), ..asked.clone() },
        false => policy::applicable(&asked, policy),
    };
    policies.iter().map(|p| opened.attention(&settings(p), args.model.page_size)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_count_what_is_cached() {
        let decode = Test::Decode { tokens: 8, depth: 0, batch: 2 };
        assert_eq!((decode.prompt(), decode.new_tokens(), decode.len()), (1, 11, 11));
        let prefill = Test::Prefill { tokens: 8, depth: 16 };
        assert_eq!((prefill.prompt(), prefill.new_tokens(), prefill.len()), (24, 1, 24));
        assert_eq!(prefill.name(), "pp8 @ d16");
    }
}
