//! One step of the engine: which sequences run, and what becomes of them.

use std::time::Instant;

use lim_kernels::{Backend, Draw};

use crate::engine::{Engine, Event};
use crate::sequence::{Group, Running};
use crate::{Result, SeqId};

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
    /// running sequence. Does nothing when idle. A decode step allocates nothing. On a device of its own the tokens of
    /// a step, and what follows from them, come with the call after it.
    ///
    /// # Errors
    /// When the backend fails; the engine's sequences are then in no defined state, their pages still accounted for.
    pub fn step(&mut self) -> Result<&[Event]> {
        self.forget_delivered();
        self.admit()?;
        let mut lap = Lap(Instant::now());
        // A decode step whose tokens are unread has left the workspace as it was; the first draw after a prompt has not.
        let prompts_draw = self.unread > 0 && !self.workspace.continues;
        if self.waiting.front().is_some_and(|group| group.table.is_some()) {
            // What is under way is read while the device computes the chunk.
            let chunk = self.prefill()?;
            self.totals.prefill_s += lap.seconds();
            self.settle()?;
            *self.totals.seconds(prompts_draw) += lap.seconds();
            if let Some(chunk) = chunk {
                self.close(chunk)?;
            }
            self.totals.prefill_s += lap.seconds();
        } else if !self.running.is_empty() {
            if prompts_draw {
                self.settle()?;
                self.totals.prefill_s += lap.seconds();
            }
            self.decode()?;
            self.totals.decode_s += lap.seconds();
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

    /// Issues a chunk of the first waiting prompt.
    fn prefill(&mut self) -> Result<Option<Chunk>> {
        let Some(Group { members, table: Some(table) }) = self.waiting.front_mut() else { return Ok(None) };
        let Some(first) = members.first() else { return Ok(None) };
        let (id, prompt, random) = (first.id, &first.shared.prompt, first.shared.random_prefix);
        let (begin, total) = (table.len(), prompt.len());
        if begin < random {
            return self.fill_random();
        }
        let done = chunk_end(begin, total, self.options.capacity.rows);
        self.prompts.reserve(&mut self.cache, &mut self.backend, table, done)?;
        self.step.clear();
        self.step.push(&prompt[begin..done], done, table.pages())?;
        self.forward_prefill()?;
        self.totals.prefill_tokens += (done - begin) as u64;
        Ok(Some(Chunk { id, begin, done, total }))
    }

    /// Reports a chunk, and starts the sequences of a prompt that is cached then.
    fn close(&mut self, Chunk { id, begin, done, total }: Chunk) -> Result<()> {
        self.events.push(Event::Prefill { id, done, total });
        if done == total { self.start(done - begin - 1) } else { Ok(()) }
    }

    /// Caches all random tokens of the first waiting prompt; every chunk gets the same values.
    fn fill_random(&mut self) -> Result<Option<Chunk>> {
        let Some(Group { members, table: Some(table) }) = self.waiting.front_mut() else { return Ok(None) };
        let Some(first) = members.first() else { return Ok(None) };
        let (id, prompt, random) = (first.id, &first.shared.prompt, first.shared.random_prefix);
        let Engine { backend, model, step, cache, prompts, workspace, options, .. } = self;
        let begin = table.len();
        let rows = options.capacity.rows.min(random - begin);
        model.draw_random(backend, rows, workspace, id.0)?;
        while table.len() < random {
            let (done, end) = (table.len(), random.min(table.len() + rows));
            prompts.reserve(cache, backend, table, end)?;
            step.clear();
            step.push(&prompt[done..end], end, table.pages())?;
            model.fill_random(backend, step, cache, workspace)?;
        }
        Ok(Some(Chunk { id, begin, done: random, total: prompt.len() }))
    }

    /// Turns the first waiting group, whose prompt is cached, into running sequences, and draws their first tokens. `row`:
    /// the last token's row.
    fn start(&mut self, row: usize) -> Result<()> {
        let Some(Group { members, table: Some(table) }) = self.waiting.pop_front() else { return Ok(()) };
        let Some(first) = members.first() else { return Ok(()) };
        let plain = first.shared.random_prefix == 0 && self.prefill_rope.is_none();
        if plain && first.shared.prompt.len() >= FEW_ROWS {
            self.prompts.keep(&mut self.cache, &first.shared, &table)?;
        }
        let mut tables = vec![table];
        for _ in 1..members.len() {
            tables.push(self.cache.fork(&tables[0])?);
        }
        // The tokens of a sequence that is recomputed are known.
        if first.generated.is_empty() {
            let rows = vec![row as u32; members.len()];
            let draws: Vec<Draw<'_>> = members.iter().map(|seq| seq.draw(seq.shared.prompt.len())).collect();
            self.model.draw(&mut self.backend, &rows, &draws, &mut self.workspace)?;
            self.placed.clear();
            self.placed.extend(members.iter().map(|seq| seq.id));
            self.unread = 1;
        }
        for (seq, mut table) in members.into_iter().zip(tables) {
            table.make_room(self.options.page_size.pages_for(self.max_len()));
            let cached = table.len();
            self.running.push(Running { seq, table, cached });
        }
        self.read_behind()
    }
}

/// Prompt tokens `begin..done` of `total`, under way.
struct Chunk {
    /// The request's first sample.
    id: SeqId,
    begin: usize,
    done: usize,
    total: usize,
}

/// Time since the last look at it.
struct Lap(Instant);

impl Lap {
    fn seconds(&mut self) -> f64 {
        let now = Instant::now();
        now.duration_since(std::mem::replace(&mut self.0, now)).as_secs_f64()
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
