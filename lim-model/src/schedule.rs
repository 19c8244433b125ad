//! One step of the engine: which sequences run, and what becomes of them.

use std::time::Instant;

use lim_kernels::{Backend, Draw, Sampled};

use crate::Result;
use crate::engine::{Engine, Event};
use crate::sequence::{Group, Running, Sequence};

impl<B: Backend> Engine<B> {
    /// Prefills a chunk of the oldest waiting prompt where there is room for it, otherwise decodes one token of every
    /// running sequence. Does nothing when idle. A decode step allocates nothing.
    ///
    /// # Errors
    /// When the backend fails; the engine's sequences are then in no defined state, their pages still accounted for.
    pub fn step(&mut self) -> Result<&[Event]> {
        self.events.clear();
        self.admit();
        let begun = Instant::now();
        if self.waiting.front().is_some_and(|group| group.table.is_some()) {
            self.prefill()?;
            self.totals.prefill_s += begun.elapsed().as_secs_f64();
        } else if !self.running.is_empty() {
            self.decode()?;
            self.totals.decode_s += begun.elapsed().as_secs_f64();
        }
        Ok(&self.events)
    }

    /// Starts the oldest waiting prompt if its samples fit beside what runs. It always fits an empty engine.
    fn admit(&mut self) {
        let (free, capacity) = (self.cache.free_pages(), self.options.capacity);
        let Some(group) = self.waiting.front_mut().filter(|group| group.table.is_none()) else { return };
        let samples = group.members.len();
        // What a preempted sequence had cached counts too: admitted with less it would soon be preempted again.
        let tokens = group.members.first().map_or(0, Sequence::len) + 1;
        let pages = self.options.page_size.pages_for(tokens) + samples;
        let fits = self.running.len() + samples <= capacity.seqs && pages <= free;
        if fits || self.running.is_empty() {
            group.table = Some(self.cache.table());
        }
    }

    fn prefill(&mut self) -> Result<()> {
        let Some(Group { members, table: Some(table) }) = self.waiting.front_mut() else { return Ok(()) };
        let Some(first) = members.first() else { return Ok(()) };
        let (id, prompt, random) = (first.id, &first.shared.prompt, first.shared.random_prefix);
        let (done, total) = (table.len(), prompt.len());
        if done == 0 {
            self.prefill_rope = self.model.prefill_rope(&mut self.backend, total)?;
        }
        if done < random {
            return self.fill_random();
        }
        let end = total.min(done + self.options.capacity.rows);
        self.cache.reserve(&mut self.backend, table, end)?;
        self.step.clear();
        self.step.push(&prompt[done..end], end, table.pages())?;
        self.forward_prefill()?;
        self.totals.prefill_tokens += (end - done) as u64;
        self.events.push(Event::Prefill { id, done: end, total });
        if end == total { self.start(end - done - 1) } else { Ok(()) }
    }

    /// Caches all random tokens of the first waiting prompt; every chunk gets the same values.
    fn fill_random(&mut self) -> Result<()> {
        let Some(Group { members, table: Some(table) }) = self.waiting.front_mut() else { return Ok(()) };
        let Some(first) = members.first() else { return Ok(()) };
        let (prompt, random) = (&first.shared.prompt, first.shared.random_prefix);
        let Engine { backend, model, step, cache, workspace, options, .. } = self;
        let rows = options.capacity.rows.min(random - table.len());
        model.draw_random(backend, rows, workspace, first.id.0)?;
        while table.len() < random {
            let (done, end) = (table.len(), random.min(table.len() + rows));
            cache.reserve(backend, table, end)?;
            step.clear();
            step.push(&prompt[done..end], end, table.pages())?;
            model.fill_random(backend, step, cache, workspace)?;
        }
        self.events.push(Event::Prefill { id: first.id, done: random, total: prompt.len() });
        Ok(())
    }

    /// Turns the first waiting group, whose prompt is cached, into running sequences. `row`: the last token's row.
    fn start(&mut self, row: usize) -> Result<()> {
        let Some(Group { members, table: Some(table) }) = self.waiting.pop_front() else { return Ok(()) };
        let mut tables = vec![table];
        for _ in 1..members.len() {
            tables.push(self.cache.fork(&tables[0])?);
        }
        let known = members.first().is_some_and(|seq| !seq.generated.is_empty());
        let mut sampled = vec![Sampled { token: 0, logprob: 0.0 }; members.len()];
        if !known {
            let rows = vec![row as u32; members.len()];
            let draws: Vec<Draw<'_>> = members.iter().map(|seq| seq.draw(seq.shared.prompt.len())).collect();
            self.model.sample(&mut self.backend, &rows, &draws, &mut sampled, &mut self.workspace)?;
        }
        for ((mut seq, mut table), sampled) in members.into_iter().zip(tables).zip(sampled) {
            if !known {
                self.events.push(Event::Token { id: seq.id, sampled });
                if let Some(reason) = seq.push(sampled.token) {
                    self.events.push(Event::Finished { id: seq.id, reason });
                    self.cache.release(table)?;
                    continue;
                }
            }
            table.make_room(self.options.page_size.pages_for(self.max_len()));
            self.running.push(Running { seq, table });
        }
        Ok(())
    }

    fn decode(&mut self) -> Result<()> {
        self.make_room()?;
        self.step.clear();
        for Running { seq, table } in &self.running {
            self.step.push(&[seq.token(table.len() - 1)], table.len(), table.pages())?;
        }
        self.forward_decode()?;

        let rows = self.running.len();
        let mut draws = recycle(std::mem::take(&mut self.draws));
        draws.extend(self.running.iter().map(|r| r.seq.draw(r.table.len())));
        let sampled = &mut self.sampled[..rows];
        self.model.sample(&mut self.backend, &self.rows[..rows], &draws, sampled, &mut self.workspace)?;
        self.draws = recycle(draws);
        self.totals.decode_tokens += rows as u64;
        self.totals.decode_steps += 1;

        let mut at = 0;
        for row in 0..rows {
            let (Running { seq, table }, sampled) = (&mut self.running[at], self.sampled[row]);
            at += 1;
            if table.len() < seq.len() {
                continue; // recomputed after preemption: its next token is known
            }
            self.events.push(Event::Token { id: seq.id, sampled });
            if let Some(reason) = seq.push(sampled.token) {
                self.events.push(Event::Finished { id: seq.id, reason });
                at -= 1;
                let Running { table, .. } = self.running.remove(at);
                self.cache.release(table)?;
            }
        }
        Ok(())
    }

    /// Reserves one more token for every running sequence; where pages run out, the newest sequences wait.
    fn make_room(&mut self) -> Result<()> {
        let mut at = 0;
        while at < self.running.len() {
            let table = &mut self.running[at].table;
            let new_len = table.len() + 1;
            match self.cache.reserve(&mut self.backend, table, new_len) {
                Ok(()) => at += 1,
                Err(lim_kvcache::Error::OutOfPages { .. }) if self.running.len() > 1 => {
                    if self.preempt_newest()? < at {
                        at -= 1;
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Takes the pages of the sequence that came last, and puts it first in the queue. Its tokens stay: once there is
    /// room, its prompt is prefilled and its tokens are fed through decode steps again, beside the other sequences, so
    /// that under every policy it goes on as if nothing had happened. Returns its index.
    fn preempt_newest(&mut self) -> Result<usize> {
        let ids = self.running.iter().map(|r| r.seq.id).enumerate();
        let newest = ids.max_by_key(|&(_, id)| id).map_or(0, |(index, _)| index);
        let Running { seq, table } = self.running.remove(newest);
        self.cache.release(table)?;
        self.events.push(Event::Preempted { id: seq.id });
        self.waiting.push_front(Group { members: vec![seq], table: None });
        Ok(newest)
    }
}

/// An empty vector in the memory of `spent`, for draws that borrow from something else.
fn recycle<'a>(mut spent: Vec<Draw<'_>>) -> Vec<Draw<'a>> {
    spent.clear();
    spent.into_iter().map_while(|_| None).collect()
}
