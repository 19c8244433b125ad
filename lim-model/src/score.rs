//! Teacher forcing: how likely a model finds a given text, through the decode path.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use lim_kernels::{Backend, Draw, Sampled};
use lim_kvcache::PageTable;

use crate::{Engine, Error, Result};

/// A text to score.
#[derive(Clone, Copy, Debug)]
pub struct ScoreOptions<'a> {
    /// Token ids, at least 2.
    pub ids: &'a [u32],
    /// Tokens that are prefilled (densely) at once; the others go through decode steps, one by one, under the engine's
    /// policy. From 1, the way generation would have it with a one-token prompt, to `ids.len()`.
    pub prefill: usize,
}

impl<B: Backend> Engine<B> {
    /// Negative log-likelihoods, in nats, of tokens `1..n` given the tokens before them: n-1 values. `scored` is told
    /// how many of them are known; `cancel` ends the work with [`Error::Interrupted`].
    ///
    /// The tokens are fed as one sequence of their own, beside what else the engine holds.
    ///
    /// # Errors
    /// When there are too few or too many tokens, one is not in the vocabulary, `prefill` is out of range, pages run
    /// out, or the backend fails.
    pub fn score(
        &mut self,
        options: ScoreOptions<'_>,
        cancel: &AtomicBool,
        mut scored: impl FnMut(usize),
    ) -> Result<Vec<f32>> {
        let ScoreOptions { ids, prefill } = options;
        let refuse = |what, reason: String| Err(Error::Request { what, reason });
        let max = self.max_len() + 1; // the last token is scored, not fed
        if !(2..=max).contains(&ids.len()) {
            return refuse("text to score", format!("has {} tokens, from 2 to {max}", ids.len()));
        }
        if !(1..=ids.len()).contains(&prefill) {
            return refuse("prefill", format!("is {prefill}, from 1 to the {} tokens", ids.len()));
        }
        self.model.check_tokens("text to score", ids)?;
        self.settle()?;
        let mut run = Run { ids, nll: Vec::with_capacity(ids.len() - 1), table: self.cache.table() };
        // A waiting prompt may be half prefilled.
        let held = self.prefill_rope.take();
        let result = self.score_prefill(&mut run, prefill.min(ids.len() - 1), cancel, &mut scored);
        let result = result.and_then(|()| self.score_decode(&mut run, cancel, &mut scored));
        self.prefill_rope = held;
        // On an error steps may be under way.
        (self.unread, self.workspace.continues) = (0, false);
        self.cache.release(run.table)?;
        result.map(|()| run.nll)
    }

    fn score_prefill(
        &mut self,
        run: &mut Run<'_>,
        prefill: usize,
        cancel: &AtomicBool,
        scored: &mut dyn FnMut(usize),
    ) -> Result<()> {
        let begun = Instant::now();
        self.prefill_rope = self.model.prefill_rope(&mut self.backend, prefill)?;
        while run.table.len() < prefill {
            let start = run.table.len();
            let end = prefill.min(start + self.options.capacity.rows);
            self.reserve(run, end, cancel)?;
            self.step.push(&run.ids[start..end], end, run.table.pages())?;
            self.forward_prefill()?;
            for first in (start..end).step_by(self.options.capacity.seqs) {
                let rows = first..end.min(first + self.options.capacity.seqs);
                let rows: Vec<u32> = rows.map(|position| (position - start) as u32).collect();
                self.take_rows(run, &rows)?;
                scored(run.nll.len());
            }
        }
        self.totals.prefill_tokens += prefill as u64;
        self.totals.prefill_s += begun.elapsed().as_secs_f64();
        Ok(())
    }

    fn score_decode(
        &mut self,
        run: &mut Run<'_>,
        cancel: &AtomicBool,
        scored: &mut dyn FnMut(usize),
    ) -> Result<()> {
        let begun = Instant::now();
        let last = run.ids.len() - 1;
        while run.nll.len() < last {
            while run.table.len() < last && self.unread <= self.backend.lag() {
                self.feed(run, cancel)?;
            }
            self.unread -= 1;
            let mut sampled = [Sampled { token: 0, logprob: 0.0 }];
            self.backend.read_draws(&mut self.workspace.draws, &mut sampled)?;
            run.nll.push(-sampled[0].logprob);
            scored(run.nll.len());
        }
        self.totals.decode_s += begun.elapsed().as_secs_f64();
        Ok(())
    }

    /// Makes room for the tokens up to `end` and empties the step.
    fn reserve(&mut self, run: &mut Run<'_>, end: usize, cancel: &AtomicBool) -> Result<()> {
        if cancel.load(Ordering::Relaxed) {
            return Err(Error::Interrupted);
        }
        self.prompts.reserve(&mut self.cache, &mut self.backend, &mut run.table, end)?;
        self.step.clear();
        Ok(())
    }

    /// Issues the decode step of the next token, which scores the one after it.
    fn feed(&mut self, run: &mut Run<'_>, cancel: &AtomicBool) -> Result<()> {
        let end = run.table.len() + 1;
        self.reserve(run, end, cancel)?;
        let forced = Some(run.ids[end]);
        let Engine { backend, step, workspace, .. } = self;
        if workspace.continues {
            step.push_next(end, run.table.pages())?;
            backend.force_draws(&[forced], &mut workspace.draws)?;
        } else {
            step.push(&run.ids[end - 1..end], end, run.table.pages())?;
            backend.start_draws(&[given(run.ids[end])], &mut workspace.draws)?;
        }
        self.totals.decode_tokens += 1;
        self.totals.decode_steps += 1;
        self.forward_decode()
    }

    /// Adds the values of the tokens that follow `rows` of the last step.
    fn take_rows(&mut self, run: &mut Run<'_>, rows: &[u32]) -> Result<()> {
        let next = &run.ids[run.nll.len() + 1..][..rows.len()];
        let draws: Vec<Draw<'_>> = next.iter().map(|&id| given(id)).collect();
        let mut sampled = vec![Sampled { token: 0, logprob: 0.0 }; rows.len()];
        self.model.sample(&mut self.backend, rows, &draws, &mut sampled, &mut self.workspace)?;
        run.nll.extend(sampled.iter().map(|s| -s.logprob));
        Ok(())
    }
}

/// Takes `id` and tells how likely it was.
fn given(id: u32) -> Draw<'static> {
    Draw { forced: Some(id), ..Draw::default() }
}

/// A text being scored.
struct Run<'a> {
    ids: &'a [u32],
    /// Of the tokens `1..=table.len()`, once a step's rows are taken.
    nll: Vec<f32>,
    table: PageTable,
}
