//! Decode steps. Where the device works on its own, a step is issued before the tokens of the one before it are read: they
//! stay on the device, which feeds them to the next step and empties the places of sequences that have ended.

use lim_kernels::{Backend, Draw};

use crate::engine::{Engine, Event, Recorded};
use crate::sequence::{Group, Running};
use crate::{Error, FinishReason, Pass, Phase, Result};

impl<B: Backend> Engine<B> {
    /// Issues a step of all running sequences, and reads the tokens of steps before it as far as the backend's lag asks
    /// for.
    pub(crate) fn decode(&mut self) -> Result<()> {
        if self.unread > 0 && !self.runs_on() {
            self.settle()?;
        }
        self.make_room()?;
        if !self.running.is_empty() {
            self.issue()?;
        }
        self.read_behind()
    }

    /// Reads the tokens that the backend's lag does not leave under way.
    pub(crate) fn read_behind(&mut self) -> Result<()> {
        while self.unread > self.backend.lag() {
            self.take()?;
        }
        Ok(())
    }

    /// Reads all tokens that are under way.
    pub(crate) fn settle(&mut self) -> Result<()> {
        self.forget_delivered();
        while self.unread > 0 {
            self.take()?;
        }
        Ok(())
    }

    /// Whether the running sequences are those of the last step, in the same places, and nothing else has used the
    /// device's batch and draws since.
    fn follows(&self) -> bool {
        let ids = self.running.iter().map(|r| r.seq.id);
        self.workspace.continues && ids.eq(self.placed.iter().copied())
    }

    /// Whether the next step does not depend on the tokens under way but by feeding them.
    fn runs_on(&self) -> bool {
        self.follows() && self.running.iter().all(|r| r.cached < r.seq.len() || r.seq.goes_on_blindly())
    }

    fn issue(&mut self) -> Result<()> {
        let follows = self.follows();
        let Engine { backend, running, placed, step, forced, workspace, .. } = self;
        step.clear();
        for Running { seq, table, cached } in &mut *running {
            *cached += 1;
            match follows {
                true => step.push_next(*cached, table.pages())?,
                false => step.push(&[seq.token(*cached - 1)], *cached, table.pages())?,
            }
        }
        if follows {
            forced.clear();
            forced.extend(running.iter().map(|r| r.seq.forced(r.cached)));
            if forced.iter().any(Option::is_some) {
                backend.force_draws(forced, &mut workspace.draws)?;
            }
        } else {
            placed.clear();
            placed.extend(running.iter().map(|r| r.seq.id));
            let mut draws = recycle(std::mem::take(&mut self.draws));
            draws.extend(running.iter().map(|r| r.seq.draw(r.cached)));
            backend.start_draws(&draws, &mut workspace.draws)?;
            self.draws = recycle(draws);
        }
        self.totals.decode_tokens += self.running.len() as u64;
        self.totals.decode_steps += 1;
        self.forward_decode()
    }

    /// Issues the decode step that `self.step` holds, to the draws that [`Backend::start_draws`] has begun: the first of
    /// its kind as it is, the second recorded, the others by replay. Its tokens are unread then.
    pub(crate) fn forward_decode(&mut self) -> Result<()> {
        let Engine { backend, model, step, cache, attention, buffers, workspace, recordings, .. } = self;
        step.pad(backend.padded(step.seqs(), self.options.capacity.seqs));
        let (seqs, sparse) = (step.seqs(), attention.is_sparse_at(step.max_len()));
        let rows = &self.rows[..seqs];
        backend.upload(step, &mut workspace.batch)?;
        let (phase, rope) = (Phase::Decode, None);
        let pass = Pass { phase, step, cache, attention, buffers, workspace, rope };
        match recordings.iter_mut().find(|r| (r.seqs, r.sparse) == (seqs, sparse)) {
            Some(Recorded { recording: Some(recording), .. }) => backend.replay(recording)?,
            Some(Recorded { recording, .. }) => {
                *recording = backend.record(|backend| model.decode(backend, pass, rows))?;
            }
            None => {
                model.decode(backend, pass, rows)?;
                recordings.push(Recorded { seqs, sparse, recording: None });
            }
        }
        self.backend.post_draws(&mut self.workspace.draws)?;
        self.workspace.continues = true;
        self.unread += 1;
        Ok(())
    }

    /// Reads the tokens of the oldest unread step: of all running sequences, or the first of those that started last.
    /// Sequences that the caller has ended since are passed over.
    fn take(&mut self) -> Result<()> {
        let rows = self.placed.len();
        self.unread -= 1;
        let read = self.backend.read_draws(&mut self.workspace.draws, &mut self.sampled[..rows]);
        if let Err(error) = read {
            (self.unread, self.workspace.continues) = (0, false);
            return Err(error.into());
        }
        let mut at = 0;
        for row in 0..rows {
            let placed = self.running[at..].iter().position(|r| r.seq.id == self.placed[row]);
            let Some(offset) = placed else { continue };
            at += offset;
            let Running { seq, cached, .. } = &mut self.running[at];
            let sampled = self.sampled[row];
            at += 1;
            if *cached - self.unread < seq.len() {
                continue; // recomputed after preemption: its next token is known
            }
            self.events.push(Event::Token { id: seq.id, sampled });
            let Some(reason) = seq.push(sampled.token) else { continue };
            self.events.push(Event::Finished { id: seq.id, reason });
            if reason == FinishReason::Stop {
                // In steps issued since, its place is empty.
                self.totals.decode_tokens -= self.unread as u64;
            }
            at -= 1;
            let Running { table, .. } = self.running.remove(at);
            self.cache.release(table)?;
        }
        self.forget_surplus();
        Ok(())
    }

    /// Gives up the steps under way when no sequence waits for their tokens.
    pub(crate) fn forget_surplus(&mut self) {
        if self.running.is_empty() {
            self.unread = 0;
        }
    }

    /// Reserves one more token for every running sequence; where pages run out, the newest sequences wait. Those that have
    /// ended already are found out first.
    fn make_room(&mut self) -> Result<()> {
        let mut at = 0;
        while at < self.running.len() {
            let Running { table, cached, .. } = &mut self.running[at];
            match self.prompts.reserve(&mut self.cache, &mut self.backend, table, *cached + 1) {
                Ok(()) => at += 1,
                Err(Error::Cache(lim_kvcache::Error::OutOfPages { .. })) if self.unread > 0 => {
                    self.settle()?;
                    at = 0;
                }
                Err(Error::Cache(lim_kvcache::Error::OutOfPages { .. })) if self.running.len() > 1 => {
                    self.preempt_newest()?;
                    at = 0;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Takes the pages of the sequence that came last, and puts it first in the queue. Its tokens stay: once there is
    /// room, its prompt is prefilled and its tokens are fed through decode steps again, beside the other sequences, so
    /// that under every policy it goes on as if nothing had happened.
    fn preempt_newest(&mut self) -> Result<()> {
        let ids = self.running.iter().map(|r| r.seq.id).enumerate();
        let newest = ids.max_by_key(|&(_, id)| id).map_or(0, |(index, _)| index);
        let Running { seq, table, .. } = self.running.remove(newest);
        self.cache.release(table)?;
        self.events.push(Event::Preempted { id: seq.id });
        self.waiting.push_front(Group { members: vec![seq], table: None });
        Ok(())
    }
}

/// An empty vector in the memory of `spent`, for draws that borrow from something else.
fn recycle<'a>(mut spent: Vec<Draw<'_>>) -> Vec<Draw<'a>> {
    spent.clear();
    spent.into_iter().map_while(|_| None).collect()
}
