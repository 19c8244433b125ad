//! One sequence taken through an engine's model step by step, none of them recorded, so that each can be looked at.

use std::sync::atomic::{AtomicBool, Ordering};

use lim_kernels::{Backend, Draw, SampleParams, Sampled};
use lim_kvcache::PageTable;
use lim_select::{Attention, Buffers};

use crate::{Engine, Error, Pass, Phase, Result, Watched};

/// What follows a prompt.
#[derive(Clone, Copy, Debug)]
pub enum Continuation<'a> {
    /// These tokens, whatever the model thinks of them.
    Given(&'a [u32]),
    /// What the model draws.
    Generate {
        /// Most tokens.
        max_new_tokens: usize,
        /// How to draw.
        params: SampleParams,
        /// Tokens that end it; the last token.
        stop_ids: &'a [u32],
    },
}

/// A sequence under way.
pub(crate) struct Walk<'a> {
    prompt: usize,
    continuation: Continuation<'a>,
    /// Prompt and what has followed.
    ids: Vec<u32>,
    table: PageTable,
    /// The last token ends the continuation: it is not fed.
    ended: bool,
}

impl<'a> Walk<'a> {
    /// Prefills `prompt`.
    ///
    /// # Errors
    /// When the tokens are too few, too many or unknown, or the backend fails.
    pub(crate) fn start<B: Backend>(
        engine: &mut Engine<B>,
        prompt: &[u32],
        continuation: Continuation<'a>,
        cancel: &AtomicBool,
    ) -> Result<Self> {
        let refuse = |what, reason: String| Err(Error::Request { what, reason });
        if !engine.is_idle() {
            return refuse("engine", "has other sequences, must be idle".into());
        }
        engine.model.check_tokens("prompt", prompt)?;
        if prompt.is_empty() {
            return refuse("prompt", "has no tokens".into());
        }
        let given = match continuation {
            Continuation::Given(ids) => ids,
            Continuation::Generate { .. } => &[],
        };
        engine.model.check_tokens("continuation", given)?;
        let (all, max) = (prompt.len() + given.len(), engine.max_len());
        if all > max {
            return refuse("prompt", format!("has {all} tokens with what follows, the engine takes {max}"));
        }
        let ids = [prompt, given].concat();
        let mut walk =
            Walk { prompt: prompt.len(), continuation, ids, table: engine.cache.table(), ended: false };
        engine.prefill_rope = engine.model.prefill_rope(&mut engine.backend, prompt.len())?;
        let result = walk.prefill(engine, prompt.len(), cancel);
        engine.prefill_rope = None;
        match result.and_then(|()| walk.draw(engine)) {
            Ok(_) => Ok(walk),
            Err(error) => {
                walk.end(engine)?;
                Err(error)
            }
        }
    }

    /// Tokens cached so far.
    pub(crate) fn cached(&self) -> usize {
        self.table.len()
    }

    /// Whether there is a token to feed and room for it.
    pub(crate) fn goes_on<B: Backend>(&self, engine: &Engine<B>) -> bool {
        !self.ended && self.cached() < self.ids.len() && self.cached() < engine.max_len()
    }

    /// Caches tokens densely, all that are known up to `end`, in as few steps as the engine takes.
    pub(crate) fn skip_to<B: Backend>(
        &mut self,
        engine: &mut Engine<B>,
        end: usize,
        cancel: &AtomicBool,
    ) -> Result<()> {
        self.prefill(engine, end.min(self.ids.len()), cancel)?;
        self.draw(engine)
    }

    /// Feeds the next token through a decode step by `attention`, every layer watched, and draws the one after it.
    pub(crate) fn decode<B: Backend>(
        &mut self,
        engine: &mut Engine<B>,
        (attention, buffers): (&Attention, &mut Buffers<B>),
        cancel: &AtomicBool,
        watch: impl FnMut(Watched<'_, B>) -> Result<()>,
    ) -> Result<()> {
        self.enter(engine, cancel)?;
        self.pass(engine, (attention, buffers), watch)?;
        self.draw(engine)
    }

    /// Makes the engine's step of the next token.
    pub(crate) fn enter<B: Backend>(&mut self, engine: &mut Engine<B>, cancel: &AtomicBool) -> Result<()> {
        self.push(engine, self.cached() + 1, cancel)
    }

    /// Runs the token that was entered through a decode step, every layer watched. May be done again: the last time counts
    /// for what is cached.
    pub(crate) fn pass<B: Backend>(
        &self,
        engine: &mut Engine<B>,
        (attention, buffers): (&Attention, &mut Buffers<B>),
        watch: impl FnMut(Watched<'_, B>) -> Result<()>,
    ) -> Result<()> {
        let Engine { backend, model, step, cache, workspace, .. } = engine;
        let pass = Pass { phase: Phase::Decode, step, cache, attention, buffers, workspace, rope: None };
        model.forward_watched(backend, pass, watch)
    }

    /// Frees the pages; all tokens.
    pub(crate) fn end<B: Backend>(self, engine: &mut Engine<B>) -> Result<Vec<u32>> {
        engine.cache.release(self.table)?;
        Ok(self.ids)
    }

    fn prefill<B: Backend>(&mut self, engine: &mut Engine<B>, end: usize, cancel: &AtomicBool) -> Result<()> {
        while self.cached() < end {
            let rows = engine.options().capacity.rows;
            self.push(engine, end.min(self.cached() + rows), cancel)?;
            engine.forward_prefill()?;
        }
        Ok(())
    }

    /// Makes the engine's step of the tokens up to `end`.
    fn push<B: Backend>(&mut self, engine: &mut Engine<B>, end: usize, cancel: &AtomicBool) -> Result<()> {
        if cancel.load(Ordering::Relaxed) {
            return Err(Error::Interrupted);
        }
        let start = self.cached();
        engine.prompts.reserve(&mut engine.cache, &mut engine.backend, &mut self.table, end)?;
        engine.step.clear();
        Ok(engine.step.push(&self.ids[start..end], end, self.table.pages())?)
    }

    /// Draws the token after the last step, unless it is known or the sequence has ended.
    pub(crate) fn draw<B: Backend>(&mut self, engine: &mut Engine<B>) -> Result<()> {
        let Continuation::Generate { max_new_tokens, params, stop_ids } = self.continuation else {
            return Ok(());
        };
        let (prompt, generated) = self.ids.split_at(self.prompt);
        if self.cached() < self.ids.len() {
            return Ok(());
        }
        let Engine { backend, model, step, workspace, .. } = engine;
        let row = (step.rows() - 1) as u32;
        let mut sampled = [Sampled { token: 0, logprob: 0.0 }];
        model.sample(
            backend,
            &[row],
            &[Draw { params, prompt, generated, forced: None, stop: &[] }],
            &mut sampled,
            workspace,
        )?;
        let token = sampled[0].token;
        self.ended = stop_ids.contains(&token) || generated.len() + 1 >= max_new_tokens;
        self.ids.push(token);
        Ok(())
    }
}
