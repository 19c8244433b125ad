//! Prompts with their answers, and which of their steps are measured.

use lim_kernels::Quota;
use lim_model::{Continuation, RecallOptions};

use crate::console::Console;
use crate::error::{Error, Result};

/// What is measured on.
pub(super) struct Sequences<'a> {
    sequences: Vec<Sequence<'a>>,
    /// Steps to measure, about.
    steps: usize,
}

/// A prompt and its answer.
struct Sequence<'a> {
    prompt: &'a [u32],
    answer: Vec<u32>,
}

impl Sequence<'_> {
    /// The answer but for its last token, which no step feeds.
    fn fed(&self) -> &[u32] {
        &self.answer[..self.answer.len().saturating_sub(1)]
    }

    fn len(&self) -> usize {
        self.prompt.len() + self.fed().len()
    }

    /// Decode steps with more than `least` cached tokens.
    fn steps(&self, least: usize) -> usize {
        self.len() - self.len().min(self.prompt.len().max(least))
    }
}

impl<'a> Sequences<'a> {
    /// `steps`: about how many steps a measurement takes.
    pub(super) fn new(
        prompts: impl Iterator<Item = &'a [u32]>,
        answers: Vec<Vec<u32>>,
        steps: usize,
    ) -> Self {
        let sequence = |(prompt, answer)| Sequence { prompt, answer };
        Sequences { sequences: prompts.zip(answers).map(sequence).collect(), steps }
    }

    pub(super) fn len(&self) -> usize {
        self.sequences.len()
    }

    /// Tokens of all answers.
    pub(super) fn generated(&self) -> usize {
        self.sequences.iter().map(|sequence| sequence.answer.len()).sum()
    }

    /// Decode steps with more than `least` cached tokens.
    fn steps(&self, least: usize) -> usize {
        self.sequences.iter().map(|sequence| sequence.steps(least)).sum()
    }

    /// Every budget needs a step with more cached tokens than it.
    ///
    /// # Errors
    /// When one has none: the message names it.
    pub(super) fn check(&self, quotas: &[Quota]) -> Result<()> {
        let longest = self.sequences.iter().map(Sequence::len).max().unwrap_or(0);
        match quotas.iter().map(|quota| quota.budget()).find(|&budget| self.steps(budget) == 0) {
            Some(budget) => Err(Error::Failed(format!(
                "--token-budget {budget}: no decode step had more cached tokens, so nothing is chosen there; the longest \
                 sequence has {longest}. Lower the budget, raise --max-new-tokens or take longer problems"
            ))),
            None => Ok(()),
        }
    }

    /// Measures on each sequence, at even distances among all steps with more than `least` cached tokens. `measure` is told
    /// what to run, and tells the tokens cached so far.
    ///
    /// # Errors
    /// When `measure` fails.
    pub(super) fn measure(
        &self,
        what: &'static str,
        least: usize,
        console: Console,
        mut measure: impl FnMut(RecallOptions<'_>, &mut dyn FnMut(usize)) -> lim_model::Result<Vec<u32>>,
    ) -> Result<()> {
        let steps = self.steps(least);
        let every = steps.div_ceil(self.steps).max(1);
        let bar = console.bar(what, steps as u64);
        let mut before = 0;
        for sequence in &self.sequences {
            let (prompt, continuation) = (sequence.prompt, Continuation::Given(sequence.fed()));
            let start = prompt.len().max(least);
            measure(RecallOptions { prompt, continuation, every }, &mut |cached| {
                bar.set_position((before + cached.saturating_sub(start)) as u64);
            })?;
            before += sequence.steps(least);
        }
        bar.finish_and_clear();
        Ok(())
    }
}
