//! One step of the engine: which sequences run, and what becomes of them.

use std::time::Instant;

use lim_kernels::{Backend, Draw, Sampled};

use crate::Result;
use crate::engine::{Engine, Event};
use crate::sequence::{Group, Running};

/// Rows below which backends take another path through their matrix products (up to 8 rows on the CPU, up to 16 on GPUs)
/// with other roundings. A prompt is cut so that no part of it is so short, unless all of it is: on the CPU its bits then
/// do not depend on where it is cut, nor on how much of it was cached before.
pub(crate) const FEW_ROWS: usize = 17;

/// Where a chunk of at most `rows` rows from `done` on ends.
fn chunk_end(done: usize, total: usize, rows: usize) -> usize {
    let end = total.min(done + rows);
    let cut_short = end < total && total - end < FEW_ROWS && rows >= 2 * FEW_ROWS;
    if cut_short { total - FEW_ROWS } else { end }
}

impl<B: Backend> Engine<B> {
    /// Prefills a chunk of the oldest waiting prompt where there is room for it, otherwise decodes one token of every
    /// running sequence. Does nothing when idle. A decode step allocates nothing. On a device of its own the events of
    /// a decode step come with the call after it.
    ///
    /// # Errors
    /// When the backend fails; the engine's sequences are then in no defined state, their pages still accounted for.
    pub fn step(&mut self) -> Result<&[Event]> {
        self.forget_delivered();
        self.admit()?;
        let prefills = self.waiting.front().is_some_and(|group| group.table.is_some());
        if !self.running.is_empty() {
            let begun = Instant::now();
            if prefills {
                self.settle()?
            } else {
                self.decode()?
            }
            self.totals.decode_s += begun.elapsed().as_secs_f64();
        }
        if prefills {
            let begun = Instant::now();
            self.prefill()?;
            self.totals.prefill_s += begun.elapsed().as_secs_f64();
        }
        self.delivered = true;
        Ok(&self.events)
    }

    /// Forgets the events that the last step has returned; others may have come since.
    pub(crate) fn forget_delivered(&mut self) {
        if std::mem::take(&mut self.delivered) {
            self.events.clear();
        }
    }

    /// Starts the oldest waiting prompt if its samples fit beside what runs, on the pages of a kept prompt that begins like
    /// it. It always fits an empty engine.
    fn admit(&mut self) -> Result<()> {
        let Engine { backend, model, cache, prompts, waiting, running, options, totals, .. } = self;
        let Some(group) = waiting.front_mut().filter(|group| group.table.is_none()) else { return Ok(()) };
        let Some(first) = group.members.first() else { return Ok(()) };
        let samples = group.members.len();
        if running.len() + samples > options.capacity.seqs {
            return Ok(());
        }
        let (prompt, random) = (&first.shared.prompt, first.shared.random_prefix);
        let rope = model.prefill_rope(backend, prompt.len())?;
        let table = match (random, &rope) {
            (0, None) => prompts.begin(cache, prompt, prompt.len().saturating_sub(FEW_ROWS))?,
            // Not the keys that other prompts have.
            _ => cache.table(),
        };
        // What a preempted sequence had cached counts too: admitted with less it would soon be preempted again.
        let pages = options.page_size.pages_for(first.len() + 1) + samples - table.pages().len();
        let fits = pages <= cache.free_pages() || pages <= cache.free_pages() + prompts.idle(cache);
        if !fits && !running.is_empty() {
            return Ok(cache.release(table)?);
        }
        while pages > cache.free_pages() && prompts.evict(cache)? {}
        totals.reused_tokens += table.len() as u64;
        self.prefill_rope = rope;
        group.table = Some(table);
        Ok(())
    }

    fn prefill(&mut self) -> Result<()> {
        let Some(Group { members, table: Some(table) }) = self.waiting.front_mut() else { return Ok(()) };
        let Some(first) = members.first() else { return Ok(()) };
        let (id, prompt, random) = (first.id, &first.shared.prompt, first.shared.random_prefix);
        let (done, total) = (table.len(), prompt.len());
        if done < random {
            return self.fill_random();
        }
        let end = chunk_end(done, total, self.options.capacity.rows);
        self.prompts.reserve(&mut self.cache, &mut self.backend, table, end)?;
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
        let Engine { backend, model, step, cache, prompts, workspace, options, .. } = self;
        let rows = options.capacity.rows.min(random - table.len());
        model.draw_random(backend, rows, workspace, first.id.0)?;
        while table.len() < random {
            let (done, end) = (table.len(), random.min(table.len() + rows));
            prompts.reserve(cache, backend, table, end)?;
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
        if let Some(first) = members.first()
            && first.shared.random_prefix == 0
            && self.prefill_rope.is_none()
            && first.shared.prompt.len() >= FEW_ROWS
        {
            self.prompts.keep(&mut self.cache, &first.shared, &table)?;
        }
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
            let cached = table.len();
            self.running.push(Running { seq, table, cached });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_chunk_is_short_unless_the_prompt_is() {
        for (rows, total) in (2 * FEW_ROWS..60).flat_map(|rows| (1..300).map(move |total| (rows, total))) {
            let mut done = 0;
            while done < total {
                let end = chunk_end(done, total, rows);
                assert!(
                    end - done <= rows && (end - done >= FEW_ROWS || total < FEW_ROWS),
                    "{rows} {total} {done}"
                );
                done = end;
            }
        }
        assert_eq!((chunk_end(0, 5, 4), chunk_end(4, 5, 4)), (4, 5));
    }
}
